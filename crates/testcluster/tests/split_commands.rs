//! The single commands of a horizontal split on a real cluster: what they print, what they refuse, and what tablets
//! and clients see of it.

mod load;

use std::time::Duration;

use anyhow::{Result, ensure};
use load::ok;
use serde_json::Value;
use testcluster::{Cluster, Flavor, Spec, TabletSpec, wait_for};

const WHOLE: usize = 0;
const WHOLE_RDONLY: usize = 2;
const LEFT: usize = 3;
const LEFT_RDONLY: usize = 4;

fn start() -> Result<Cluster> {
    let tablet = |uid, shard, tablet_type| TabletSpec::new(uid, "customer", shard, tablet_type);
    let mut spec = Spec::keyspaces(
        Flavor::MariaDb,
        vec![tablet(200, "0", "replica"), tablet(201, "0", "replica"), tablet(202, "0", "rdonly")],
    );
    spec.schema = vec![(
        "customer".into(),
        "create table customer(customer_id bigint not null, email varbinary(128), primary key(customer_id))".into(),
    )];
    let vschema = r#"{"sharded": true, "vindexes": {"hash": {"type": "hash"}},
        "tables": {"customer": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]}}}"#;
    spec.vschema = vec![("customer".into(), vschema.into())];
    let spec = spec.vtctld_flag("-wait_for_drain_sleep_rdonly=0s").vtctld_flag("-wait_for_drain_sleep_replica=0s");
    let mut cluster = Cluster::start(spec)?;
    cluster
        .mysql(&["customer"], "insert into customer(customer_id, email) values (1, 'a'), (2, 'b'), (4, 'd')")?
        .success()?;
    cluster.add_tablets(vec![
        tablet(300, "-80", "replica"),
        tablet(301, "-80", "rdonly"),
        tablet(400, "80-", "replica"),
        tablet(401, "80-", "rdonly"),
    ])?;
    Ok(cluster)
}

/// What vtctld answers a command that it refuses.
fn refused(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let ended = cluster.vtctlclient(words)?;
    ensure!(ended.code == Some(1), "{} was not refused: {ended:?}", ended.what);
    let text = ended.stderr.rsplit("desc = ").next().unwrap_or_default();
    Ok(text.trim_end().to_owned())
}

fn json(cluster: &Cluster, words: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&ok(cluster, words)?)?)
}

/// The shards that serve a type (its number), as vtgate reads it.
fn serving(cluster: &Cluster, served_type: i64) -> Result<Vec<String>> {
    let record = json(cluster, &["GetSrvKeyspace", "zone1", "customer"])?;
    let partitions = record["partitions"].as_array().cloned().unwrap_or_default();
    let partition = partitions.iter().find(|partition| partition["served_type"] == served_type);
    let shards = partition.and_then(|partition| partition["shard_references"].as_array()).cloned().unwrap_or_default();
    Ok(shards.iter().filter_map(|shard| shard["name"].as_str()).map(str::to_owned).collect())
}

/// What vtgate answers.
fn ask(cluster: &Cluster, target: &str, sql: &str) -> Result<String> {
    let words = [target, "--skip-table", "--batch", "--skip-column-names"];
    Ok(cluster.mysql(&words, sql)?.success()?.stdout)
}

const MASTER: i64 = 1;
const REPLICA: i64 = 2;
const RDONLY: i64 = 3;

fn clone(cluster: &Cluster) -> Result<()> {
    cluster.vtworker(&["SplitClone", "-min_healthy_rdonly_tablets=1", "customer/0"])?.success().map(drop)
}

#[test]
fn the_commands_of_a_split() -> Result<()> {
    let cluster = start()?;
    records(&cluster)?;
    for shard in ["customer/-80", "customer/80-"] {
        ok(&cluster, &["CopySchemaShard", "customer/0", shard])?;
    }
    shown_and_cancelled(&cluster)?;
    clone(&cluster)?;
    rdonly(&cluster)?;
    master(&cluster)?;
    emergencies(&cluster)?;
    deletion(&cluster)
}

fn records(cluster: &Cluster) -> Result<()> {
    let shards = json(cluster, &["FindAllShardsInKeyspace", "customer"])?;
    let names: Vec<&String> = shards.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    ensure!(names == ["-80", "0", "80-"], "{shards}");
    ensure!(shards["0"]["is_master_serving"] == true && shards["0"]["master_alias"]["uid"] == 200, "{shards}");
    ensure!(shards["-80"].get("is_master_serving").is_none(), "a zero value is shown: {shards}");
    ensure!(shards["-80"]["key_range"]["end"] == "gA==", "{shards}");

    let half = "both <column name> and <column type> must be set, or both must be unset";
    ensure!(refused(cluster, &["SetKeyspaceShardingInfo", "customer", "id"])? == half);
    ok(cluster, &["SetKeyspaceShardingInfo", "customer", "id", "uint64"])?;
    let kept = refused(cluster, &["SetKeyspaceShardingInfo", "customer", "other", "uint64"])?;
    ensure!(kept == "cannot change keyspace shardingColumnName from id to other", "{kept}");
    let kept = refused(cluster, &["SetKeyspaceShardingInfo", "customer", "id", "bytes"])?;
    ensure!(kept == "cannot change keyspace shardingColumnType from UINT64 to BYTES", "{kept}");
    ok(cluster, &["SetKeyspaceShardingInfo", "-force", "customer", "other", "bytes"])?;
    let keyspace = json(cluster, &["GetKeyspace", "customer"])?;
    ensure!(keyspace["sharding_column_name"] == "other" && keyspace["sharding_column_type"] == 2, "{keyspace}");
    ok(cluster, &["SetKeyspaceShardingInfo", "-force", "customer"])?;
    Ok(())
}

const NO_DIRECTION: &str = "neither Shard '0' nor Shard '-80' have a 'SourceShards' entry. Did you successfully run \
                            vtworker SplitClone before? Or did you already migrate the MASTER type?";

fn shown_and_cancelled(cluster: &Cluster) -> Result<()> {
    let unknown = |text: String| text.replace("Shard '-80' nor Shard '0'", "Shard '0' nor Shard '-80'");
    for command in [&["ShowResharding", "customer/0"][..], &["MigrateServedTypes", "customer/0", "rdonly"]] {
        let text = unknown(refused(cluster, command)?);
        ensure!(text == NO_DIRECTION, "{text}");
    }
    let nothing = refused(cluster, &["CancelResharding", "customer/9"])?;
    ensure!(nothing == "shard 9 is not involved in any overlapping shards", "{nothing}");

    // A clone that failed before its streams is known by its notes alone.
    ensure!(unknown(refused(cluster, &["CancelResharding", "customer/0"])?) == NO_DIRECTION);
    let source = |sql: &str| cluster.mysql_on_tablet(WHOLE, sql)?.success();
    source("create table vt_customer.early (id int primary key)")?;
    ensure!(clone(cluster).is_err(), "a table that no destination has was cloned");
    source("drop table vt_customer.early")?;
    ok(cluster, &["CancelResharding", "customer/0"])?;
    let notes = cluster.mysql_on_tablet(LEFT, "show tables from _vt like 'vtworker%'")?.stdout;
    ensure!(notes.is_empty(), "notes of a clone are left: {notes}");

    clone(cluster)?;
    let shown = ok(cluster, &["ShowResharding", "customer/80-"])?;
    let lines: Vec<&str> = shown.lines().collect();
    for (at, line) in [
        (0, "Horizontal Resharding for customer:"),
        (1, "  Sources:"),
        (2, "    Shard: 0"),
        (3, "      Is Master Serving: true"),
        (4, "  Destinations:"),
        (5, "    Shard: -80"),
        (6, r#"      Source Shards: [uid:1 keyspace:"customer" shard:"0" ]"#),
        (7, "      VReplication:"),
        (9, "      Is Master Serving: false"),
        (10, "    Shard: 80-"),
    ] {
        ensure!(lines.get(at) == Some(&line), "line {at} is not {line:?}: {shown}");
    }
    let row = r#"        [INT32(1) VARBINARY("SplitClone") VARBINARY("keyspace:\"customer\" shard:\"0\" key_range:<end:\"\\200\" > ") "#;
    ensure!(lines[8].starts_with(row) && lines[8].contains(r#"VARBINARY("Running")"#), "{shown}");

    halted(cluster)?;
    ok(cluster, &["CancelResharding", "customer/0"])?;
    for (shard, master) in [("customer/-80", "zone1-300"), ("customer/80-", "zone1-400")] {
        let record = json(cluster, &["GetShard", shard])?;
        ensure!(record["source_shards"] == Value::Array(vec![]), "{record}");
        let streams = json(cluster, &["VReplicationExec", "-json", master, "select * from _vt.vreplication"])?;
        ensure!(streams["rows"].as_array().is_none_or(Vec::is_empty), "{streams}");
    }
    // The targets are ordinary shards again: their masters answer.
    cluster.wait_for_tablet_state(LEFT, "SERVING")
}

/// A table of which the vschema says nothing: streams cannot tell whose its rows are, and nobody waits for them in the dark.
fn halted(cluster: &Cluster) -> Result<()> {
    let source = |sql: &str| cluster.mysql_on_tablet(WHOLE, sql)?.success();
    source("create table vt_customer.stray (id int primary key)")?;
    let waits = ["-action_timeout", "6s", "WaitForFilteredReplication", "-max_delay=1s", "customer/-80"];
    let told = "vreplication stream 1 on zone1-0000000300 is in state Error: ";
    wait_for("the waiting command to tell of the stream", Duration::from_secs(60), || {
        let waited = cluster.vtctlclient(&waits);
        waited.is_ok_and(|waited| waited.code == Some(1) && waited.stdout.matches(told).count() == 1)
    })?;
    source("drop table vt_customer.stray").map(drop)
}

fn rdonly(cluster: &Cluster) -> Result<()> {
    let migrate = |words: &[&str]| ok(cluster, &[&["MigrateServedTypes"], words].concat());
    cluster.wait_for_tablet_state(LEFT, "NOT_SERVING")?;
    migrate(&["-cells=zone1", "customer/0", "rdonly"])?;
    ensure!(serving(cluster, RDONLY)? == ["-80", "80-"] && serving(cluster, REPLICA)? == ["0"]);
    cluster.wait_for_tablet_state(WHOLE_RDONLY, "NOT_SERVING")?;
    cluster.wait_for_tablet_state(LEFT_RDONLY, "SERVING")?;
    ensure!(ask(cluster, "customer@rdonly", "select count(*) from customer")? == "3\n");

    let cancelled = refused(cluster, &["CancelResharding", "customer/0"])?;
    let moved = "some served types have migrated for customer/0, please undo them before canceling";
    ensure!(cancelled == moved, "{cancelled}");

    migrate(&["-reverse", "customer/0", "rdonly"])?;
    ensure!(serving(cluster, RDONLY)? == ["0"]);
    cluster.wait_for_tablet_state(WHOLE_RDONLY, "SERVING")?;
    cluster.wait_for_tablet_state(LEFT_RDONLY, "NOT_SERVING")?;

    // Left as they are until somebody refreshes them.
    migrate(&["-skip-refresh-state", "customer/0", "rdonly"])?;
    ensure!(serving(cluster, RDONLY)? == ["-80", "80-"]);
    cluster.wait_for_tablet_state(WHOLE_RDONLY, "SERVING")?;
    ok(cluster, &["RefreshStateByShard", "customer/0"])?;
    cluster.wait_for_tablet_state(WHOLE_RDONLY, "NOT_SERVING")
}

fn master(cluster: &Cluster) -> Result<()> {
    let first = "cannot migrate MASTER away from customer/0 until everything else is migrated. Make sure that the \
                 following types are migrated first: REPLICA";
    ensure!(refused(cluster, &["MigrateServedTypes", "customer/0", "master"])? == first);
    ok(cluster, &["MigrateServedTypes", "customer/0", "replica"])?;
    for (flag, text) in [
        ("-cells=zone1", "cannot specify cells for master migration on customer/0"),
        ("-reverse", "cannot migrate master back to customer/0"),
        ("-skip-refresh-state", "Skip refresh state is not allowed when migrating a MASTER"),
    ] {
        let got = refused(cluster, &["MigrateServedTypes", flag, "customer/0", "master"])?;
        ensure!(got == text, "{got}");
    }
    let unknown = refused(cluster, &["MigrateServedTypes", "customer/0", "spare"])?;
    ensure!(unknown == "served_type has to be in the serving graph, not SPARE", "{unknown}");
    ok(cluster, &["MigrateServedTypes", "-reverse_replication", "customer/0", "master"])?;
    ensure!(serving(cluster, MASTER)? == ["-80", "80-"]);
    ensure!(ask(cluster, "customer/80-", "select customer_id from customer")? == "4\n");
    // The other way round now.
    let shown = ok(cluster, &["ShowResharding", "customer/0"])?;
    let (sources, destinations) = shown.split_once("  Destinations:").unwrap_or_default();
    ensure!(sources.contains("    Shard: -80\n") && destinations.contains("    Shard: 0\n"), "{shown}");
    ensure!(destinations.contains("ReversedResharding") && destinations.contains("Running"), "{shown}");
    Ok(())
}

fn emergencies(cluster: &Cluster) -> Result<()> {
    for serves in [false, true] {
        ok(cluster, &["SetShardIsMasterServing", "customer/-80", &serves.to_string()])?;
        ensure!(json(cluster, &["GetShard", "customer/-80"])?["is_master_serving"] == serves);
    }
    let wrong = refused(cluster, &["SetShardIsMasterServing", "customer/-80", "maybe"])?;
    ensure!(wrong.contains("maybe"), "{wrong}");

    ok(cluster, &["UpdateSrvKeyspacePartition", "-remove", "customer/80-", "rdonly"])?;
    ensure!(serving(cluster, RDONLY)? == ["-80"]);
    ok(cluster, &["UpdateSrvKeyspacePartition", "--cells=zone1", "customer/80-", "rdonly"])?;
    let mut shards = serving(cluster, RDONLY)?;
    shards.sort();
    ensure!(shards == ["-80", "80-"], "{shards:?}");
    Ok(())
}

fn deletion(cluster: &Cluster) -> Result<()> {
    let serves = "shard customer/-80 is still serving, cannot delete it, use even_if_serving flag if needed";
    ensure!(refused(cluster, &["DeleteShard", "-recursive", "customer/-80"])? == serves);
    let tablets = "shard customer/0 still has 3 tablets in cell zone1; use -recursive or remove them manually";
    ensure!(refused(cluster, &["DeleteShard", "customer/0"])? == tablets);
    let master = refused(cluster, &["RemoveShardCell", "-recursive", "customer/-80", "zone1"])?;
    ensure!(master == "master zone1-0000000300 is in the cell 'zone1' we want to remove", "{master}");
    let cell = refused(cluster, &["RemoveShardCell", "customer/-80", "zone9"])?;
    ensure!(cell == "shard customer/-80 does not have serving cell zone9", "{cell}");

    ok(cluster, &["DeleteShard", "-recursive", "customer/0"])?;
    let gone = refused(cluster, &["GetTablet", "zone1-200"])?;
    ensure!(gone.contains("node doesn't exist"), "{gone}");
    ok(cluster, &["DeleteShard", "customer/0"])?;
    let none = ok(cluster, &["ShowResharding", "customer/-80"])?;
    ensure!(none == "No resharding in progress\n", "{none}");

    ok(cluster, &["DeleteShard", "-recursive", "-even_if_serving", "customer/80-"])?;
    let shards = json(cluster, &["FindAllShardsInKeyspace", "customer"])?;
    ensure!(shards.as_object().is_some_and(|shards| shards.len() == 1), "{shards}");
    Ok(())
}
