//! MigrateServedFrom, MigrateServedTypes and their relatives: what they write, in which order they tell
//! tablets, what they refuse, and that a process that dies anywhere in a cutover can be continued.

mod common;

use std::collections::BTreeMap;

use common::{Cluster, alias};
use servenv::failpoint::Action;
use topo::Update;
use vtproto::cutover::{Kind, Phase};
use vtproto::topodata::{Keyspace, SrvKeyspace, TabletType, keyspace, shard::SourceShard};

const TABLES_SOURCE: &str = r#"keyspace:"commerce" shard:"0" tables:"customer" tables:"corder" "#;

/// `customer` and `corder` cloned from commerce/0 (tablets 100 to 102) to customer/0 (200 to 202).
async fn vertical() -> Cluster {
    let cluster = Cluster::empty();
    cluster.topo.create_keyspace("commerce", &Keyspace::default()).await.unwrap();
    cluster.add_shard("commerce", "0", 100).await;
    let served_from = |tablet_type: TabletType| keyspace::ServedFrom {
        tablet_type: tablet_type.into(),
        cells: vec![],
        keyspace: "commerce".into(),
    };
    let served_froms = [TabletType::Master, TabletType::Replica, TabletType::Rdonly].map(served_from).to_vec();
    cluster.topo.create_keyspace("customer", &Keyspace { served_froms, ..Default::default() }).await.unwrap();
    cluster.add_shard("customer", "0", 200).await;
    let source = SourceShard {
        uid: 1,
        keyspace: "commerce".into(),
        shard: "0".into(),
        tables: vec!["customer".into(), "corder".into()],
        ..Default::default()
    };
    set_sources(&cluster, "0", vec![source]).await;
    for keyspace in ["commerce", "customer"] {
        cluster.topo.rebuild_keyspace(keyspace, &[]).await.unwrap();
    }
    cluster.tablets.add_stream(200, 1, TABLES_SOURCE);
    cluster
}

/// customer/0 (tablets 200 to 202) cloned to `-80` (300 to 302) and `80-` (400 to 402).
async fn horizontal() -> Cluster {
    let cluster = Cluster::empty();
    cluster.topo.create_keyspace("customer", &Keyspace::default()).await.unwrap();
    cluster.add_shard("customer", "0", 200).await;
    cluster.topo.rebuild_keyspace("customer", &[]).await.unwrap();
    for (shard, uid, range) in [("-80", 300, r#"end:"\200""#), ("80-", 400, r#"start:"\200""#)] {
        cluster.add_shard("customer", shard, uid).await;
        let source = SourceShard { uid: 1, keyspace: "customer".into(), shard: "0".into(), ..Default::default() };
        set_sources(&cluster, shard, vec![source]).await;
        cluster.tablets.add_stream(uid, 1, &format!("keyspace:\"customer\" shard:\"0\" key_range:<{range} > "));
    }
    cluster
}

async fn set_sources(cluster: &Cluster, shard: &str, sources: Vec<SourceShard>) {
    cluster
        .topo
        .update_shard_fields("customer", shard, |info| {
            info.record.source_shards = sources.clone();
            Ok(Update::Write)
        })
        .await
        .unwrap();
}

async fn migrate_replicas(cluster: &Cluster, command: &str) {
    for served_type in ["rdonly", "replica"] {
        cluster.ok(&[command, "customer/0", served_type]).await;
    }
    cluster.tablets.take_calls();
}

/// What a shard's record says: sources, controls, whether it serves.
async fn shard(cluster: &Cluster, keyspace: &str, shard: &str) -> String {
    let record = cluster.topo.get_shard(keyspace, shard).await.unwrap().record;
    let sources: Vec<String> = record
        .source_shards
        .iter()
        .map(|s| format!("{} {}/{} [{}]", s.uid, s.keyspace, s.shard, s.tables.join(",")))
        .collect();
    let controls: Vec<String> = record
        .tablet_controls
        .iter()
        .map(|c| {
            let frozen = if c.frozen { " frozen" } else { "" };
            format!(
                "{} [{}] [{}]{frozen}",
                c.tablet_type().as_str_name(),
                c.cells.join(","),
                c.blacklisted_tables.join(",")
            )
        })
        .collect();
    format!("sources: {}; controls: {}; serving: {}", sources.join(", "), controls.join(", "), record.is_master_serving)
}

/// The redirections of the cell, by type.
async fn redirected(cluster: &Cluster) -> Vec<(TabletType, String)> {
    let record = cluster.topo.get_srv_keyspace("zone1", "customer").await.unwrap();
    record.served_from.iter().map(|entry| (entry.tablet_type(), entry.keyspace.clone())).collect()
}

/// What a type's partition says: `-80 80- | 0:off -80:on`.
async fn partition(cluster: &Cluster, tablet_type: TabletType) -> String {
    let record: SrvKeyspace = cluster.topo.get_srv_keyspace("zone1", "customer").await.unwrap();
    let partition = topo::partition(&record, tablet_type).expect("a partition");
    let shards: Vec<&str> = partition.shard_references.iter().map(|r| r.name.as_str()).collect();
    let controls: Vec<String> = partition
        .shard_tablet_controls
        .iter()
        .map(|c| format!("{}:{}", c.name, if c.query_service_disabled { "off" } else { "on" }))
        .collect();
    format!("{} | {}", shards.join(" "), controls.join(" "))
}

async fn phase(cluster: &Cluster, name: &str) -> Phase {
    cluster.topo.get_cutover("customer", name).await.unwrap().0.phase()
}

#[tokio::test]
async fn replicas_of_a_vertical_split_move_cell_by_cell_and_back() {
    let cluster = vertical().await;
    cluster.ok(&["MigrateServedFrom", "customer/0", "rdonly"]).await;
    assert_eq!(cluster.tablets.take_calls(), ["RefreshState zone1-0000000102"]);
    assert_eq!(
        shard(&cluster, "commerce", "0").await,
        "sources: ; controls: RDONLY [] [customer,corder]; serving: true"
    );
    let commerce = || "commerce".to_owned();
    assert_eq!(redirected(&cluster).await, [(TabletType::Master, commerce()), (TabletType::Replica, commerce())]);
    assert_eq!(cluster.err(&["MigrateServedFrom", "customer/0", "rdonly"]).await, "supplied type cannot be migrated");
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "customer/0", "nonsense"]).await,
        "invalid tablet type nonsense: unknown TabletType nonsense"
    );
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "customer/0", "master"]).await,
        "cannot migrate master into customer until everything else is migrated"
    );
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "-cells=zone1", "customer/0", "master"]).await,
        "cannot migrate only some cells for master removal in keyspace customer"
    );
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "-reverse", "customer/0", "master"]).await,
        "cannot add master back to customer"
    );
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "commerce/0", "replica"]).await,
        "destination keyspace commerce is not a vertical split target"
    );

    cluster.ok(&["MigrateServedFrom", "-reverse", "customer/0", "rdonly"]).await;
    assert_eq!(shard(&cluster, "commerce", "0").await, "sources: ; controls: ; serving: true");
    assert_eq!(redirected(&cluster).await.len(), 3);

    cluster.ok(&["MigrateServedFrom", "-cells=zone1", "customer/0", "replica"]).await;
    assert_eq!(
        shard(&cluster, "commerce", "0").await,
        "sources: ; controls: REPLICA [zone1] [customer,corder]; serving: true"
    );
    set_sources(&cluster, "0", vec![]).await;
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "customer/0", "rdonly"]).await,
        "destination shard customer/0 is not a vertical split target"
    );
}

#[tokio::test]
async fn the_master_of_a_vertical_split_moves_without_losing_what_is_open() {
    let cluster = vertical().await;
    migrate_replicas(&cluster, "MigrateServedFrom").await;
    let receipt = cluster.ok(&["MigrateServedFrom", "customer/0", "master"]).await;
    assert_eq!(
        cluster.tablets.take_calls(),
        [
            "VReplicationExec zone1-0000000200 select",
            "MasterPosition zone1-0000000100",
            "VReplicationWaitForPos zone1-0000000200 1 MariaDB/0-100-7",
            "Gate zone1-0000000100 customer,corder",
            "Drain zone1-0000000100",
            "Fence zone1-0000000100",
            "VReplicationWaitForPos zone1-0000000200 1 MariaDB/0-100-7",
            "VReplicationExec zone1-0000000200 delete id=1",
            "RefreshState zone1-0000000200",
            "RefreshState zone1-0000000100",
            "Release zone1-0000000100",
        ]
    );
    assert!(receipt.starts_with("MASTER was moved from commerce/0 to customer/0 (cutover "), "{receipt}");
    assert!(receipt.contains("longest stall:        42 ms"), "{receipt}");
    let controls = ["RDONLY", "REPLICA", "MASTER"].map(|t| format!("{t} [] [customer,corder]")).join(", ");
    assert_eq!(shard(&cluster, "commerce", "0").await, format!("sources: ; controls: {controls}; serving: true"));
    assert_eq!(shard(&cluster, "customer", "0").await, "sources: ; controls: ; serving: true");
    assert!(cluster.topo.get_keyspace("customer").await.unwrap().record.served_froms.is_empty());
    assert!(redirected(&cluster).await.is_empty());
    assert!(cluster.tablets.streams_of(200).is_empty());
    assert!(cluster.tablets.gates.lock().unwrap().is_empty());

    let (journal, _) = cluster.topo.get_cutover("customer", "0").await.unwrap();
    assert_eq!((journal.phase(), journal.kind()), (Phase::Done, Kind::MigrateServedFrom));
    assert_eq!(journal.sources[0].position, "MariaDB/0-100-7");
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "customer/0", "master"]).await,
        "destination keyspace customer is not a vertical split target"
    );
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "-reverse", "customer/0", "master"]).await,
        "cannot add master back to customer: it was migrated without -reverse_replication"
    );
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "-cancel", "customer/0", "master"]).await,
        "destination keyspace customer is not a vertical split target"
    );
}

#[tokio::test]
async fn a_vertical_split_goes_there_and_back_as_often_as_wanted() {
    let cluster = vertical().await;
    migrate_replicas(&cluster, "MigrateServedFrom").await;
    for _ in 0..3 {
        cluster.ok(&["MigrateServedFrom", "-reverse_replication", "customer/0", "master"]).await;
        let source = r#"keyspace:"customer" shard:"0" tables:"customer" tables:"corder" "#;
        assert_eq!(cluster.tablets.streams_of(100), [(101, source.into(), "Running".into())]);
        assert!(cluster.tablets.streams_of(200).is_empty());
        // Serving the other tables goes on: it is not a shard that is replicated into.
        assert!(shard(&cluster, "commerce", "0").await.starts_with("sources: ; controls: RDONLY"));

        cluster.ok(&["MigrateServedFrom", "-reverse", "customer/0", "master"]).await;
        assert!(cluster.tablets.streams_of(100).is_empty());
        assert_eq!(cluster.tablets.streams_of(200), [(101, TABLES_SOURCE.into(), "Running".into())]);
        assert_eq!(redirected(&cluster).await, [(TabletType::Master, "commerce".into())]);
        assert_eq!(
            shard(&cluster, "customer", "0").await,
            "sources: 101 commerce/0 [customer,corder]; controls: ; serving: true"
        );
        let controls = ["RDONLY", "REPLICA"].map(|t| format!("{t} [] [customer,corder]")).join(", ");
        assert_eq!(shard(&cluster, "commerce", "0").await, format!("sources: ; controls: {controls}; serving: true"));
    }
    // Replicas can follow.
    for served_type in ["replica", "rdonly"] {
        cluster.ok(&["MigrateServedFrom", "-reverse", "customer/0", served_type]).await;
    }
    assert_eq!(shard(&cluster, "commerce", "0").await, "sources: ; controls: ; serving: true");
}

#[tokio::test]
async fn tables_made_after_the_split_keep_it_from_going_back() {
    let cluster = vertical().await;
    migrate_replicas(&cluster, "MigrateServedFrom").await;
    cluster.ok(&["MigrateServedFrom", "-reverse_replication", "customer/0", "master"]).await;
    let table = |name: &str| vtproto::tabletmanagerdata::TableDefinition { name: name.into(), ..Default::default() };
    let schema = vtproto::tabletmanagerdata::SchemaDefinition {
        table_definitions: vec![table("customer"), table("corder"), table("newer")],
        ..Default::default()
    };
    cluster.tablets.schemas.lock().unwrap().insert(200, schema);
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "-reverse", "customer/0", "master"]).await,
        "cannot add master back to customer: commerce does not have newer, created since the migration"
    );
}

#[tokio::test]
async fn a_tablet_without_gates_is_migrated_from_as_by_vitess() {
    let cluster = vertical().await;
    migrate_replicas(&cluster, "MigrateServedFrom").await;
    cluster.tablets.gateless.lock().unwrap().push(100);
    let outcome = cluster.run(&["MigrateServedFrom", "customer/0", "master"]).await;
    outcome.result.unwrap();
    assert!(outcome.warnings[0].starts_with("tablet zone1-0000000100 knows no cutover gate"), "{:?}", outcome.warnings);
    let calls = cluster.tablets.take_calls();
    assert_eq!(
        calls[3..],
        [
            "RefreshState zone1-0000000100",
            "MasterPosition zone1-0000000100",
            "VReplicationWaitForPos zone1-0000000200 1 MariaDB/0-100-7",
            "VReplicationExec zone1-0000000200 delete id=1",
            "RefreshState zone1-0000000200",
            "RefreshState zone1-0000000100",
        ]
    );
    assert!(redirected(&cluster).await.is_empty());
}

#[tokio::test]
async fn a_failure_before_the_flip_leaves_the_source_serving() {
    for failing in ["Drain zone1-0000000100", "Fence zone1-0000000100", "Gate zone1-0000000100"] {
        let cluster = vertical().await;
        migrate_replicas(&cluster, "MigrateServedFrom").await;
        let before = (shard(&cluster, "commerce", "0").await, redirected(&cluster).await);
        cluster.tablets.fail(failing, "no");
        let error = cluster.err(&["MigrateServedFrom", "-reverse_replication", "customer/0", "master"]).await;
        assert!(error.ends_with("rpc error: code = Unknown desc = no"), "{error}");
        assert_eq!((shard(&cluster, "commerce", "0").await, redirected(&cluster).await), before, "{failing}");
        assert!(cluster.tablets.gates.lock().unwrap().is_empty(), "{failing}");
        assert!(cluster.tablets.streams_of(100).is_empty(), "{failing}");
        assert_eq!(phase(&cluster, "0").await, Phase::Done);
        cluster.tablets.failures.lock().unwrap().clear();
        cluster.ok(&["MigrateServedFrom", "customer/0", "master"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_stays_behind_is_told_before_clients_are_kept() {
    let cluster = vertical().await;
    migrate_replicas(&cluster, "MigrateServedFrom").await;
    cluster.tablets.hanging.lock().unwrap().push("VReplicationWaitForPos zone1-0000000200".into());
    let error = cluster.err(&["MigrateServedFrom", "-filtered_replication_wait_time=7s", "customer/0", "master"]).await;
    assert!(error.starts_with("zone1-0000000200 did not catch up with commerce/0 within 7s: "), "{error}");
    assert!(!cluster.tablets.take_calls().iter().any(|call| call.starts_with("Gate")));
    cluster.tablets.hanging.lock().unwrap().clear();
    cluster.tablets.streams.lock().unwrap().get_mut(&200).unwrap()[0].state = "Error".into();
    let error = cluster.err(&["MigrateServedFrom", "customer/0", "master"]).await;
    assert_eq!(error, "vreplication stream 1 on zone1-0000000200 is in state Error: ");
    cluster.tablets.streams.lock().unwrap().clear();
    let error = cluster.err(&["MigrateServedFrom", "customer/0", "master"]).await;
    assert_eq!(error, "vreplication stream 1 not found on zone1-0000000200");
}

/// Everything that must not depend on where a process died.
async fn vertical_end(cluster: &Cluster) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("commerce/0", shard(cluster, "commerce", "0").await),
        ("customer/0", shard(cluster, "customer", "0").await),
        ("redirected", format!("{:?}", redirected(cluster).await)),
        ("at 100", format!("{:?}", cluster.tablets.streams_of(100))),
        ("at 200", format!("{:?}", cluster.tablets.streams_of(200))),
        ("gates", format!("{:?}", cluster.tablets.gates.lock().unwrap())),
        ("phase", format!("{:?}", phase(cluster, "0").await)),
    ])
}

#[tokio::test]
async fn a_vertical_cutover_is_finished_from_wherever_its_process_died() {
    let there = ["MigrateServedFrom", "-reverse_replication", "customer/0", "master"];
    let back = ["MigrateServedFrom", "-reverse", "customer/0", "master"];
    let straight = vertical().await;
    migrate_replicas(&straight, "MigrateServedFrom").await;
    straight.ok(&there).await;
    let end_there = vertical_end(&straight).await;
    straight.ok(&back).await;
    let end_back = vertical_end(&straight).await;
    for point in wrangler::CUTOVER_POINTS {
        let cluster = vertical().await;
        migrate_replicas(&cluster, "MigrateServedFrom").await;
        for (command, end) in [(&there, &end_there), (&back, &end_back)] {
            let dying = cluster.failing_at(point, Action::Crash);
            assert_eq!(dying.err(command.as_slice()).await, "stopped at a fail point", "{point}");
            assert_ne!(phase(&cluster, "0").await, Phase::Done, "{point}");
            let refused = cluster.err(&["CancelResharding", "customer/0"]).await;
            let redirected = !cluster.topo.get_keyspace("customer").await.unwrap().record.served_froms.is_empty();
            if redirected {
                assert!(refused.starts_with("a cutover of MASTER is under way for customer 0 (phase "), "{refused}");
            }
            cluster.ok(command.as_slice()).await;
            assert_eq!(&vertical_end(&cluster).await, end, "{point}");
        }
    }
}

#[tokio::test]
async fn a_vertical_cutover_can_be_cancelled_until_it_flips() {
    for point in wrangler::CUTOVER_POINTS {
        let cluster = vertical().await;
        migrate_replicas(&cluster, "MigrateServedFrom").await;
        let before = (shard(&cluster, "commerce", "0").await, redirected(&cluster).await);
        let command = ["MigrateServedFrom", "-reverse_replication", "customer/0", "master"];
        cluster.failing_at(point, Action::Crash).err(&command).await;
        let flipped = phase(&cluster, "0").await >= Phase::Flipped;
        let cancel = cluster.run(&["MigrateServedFrom", "-cancel", "customer/0", "master"]).await;
        if flipped {
            let error = cancel.result.unwrap_err().to_string();
            assert!(error.contains("has passed its point of no return and cannot be cancelled"), "{error}");
            continue;
        }
        cancel.result.unwrap();
        assert_eq!(cancel.console, "the cutover from commerce/0 to customer/0 was cancelled: the sources serve\n");
        assert_eq!((shard(&cluster, "commerce", "0").await, redirected(&cluster).await), before, "{point}");
        assert!(cluster.tablets.gates.lock().unwrap().is_empty(), "{point}");
        assert!(cluster.tablets.streams_of(100).is_empty(), "{point}");
        assert_eq!(
            cluster.err(&["MigrateServedFrom", "-cancel", "customer/0", "master"]).await,
            "no cutover of MASTER is under way for customer/0"
        );
        cluster.ok(&command).await;
    }
}

#[tokio::test]
async fn replicas_of_a_horizontal_split_move_and_move_back() {
    let cluster = horizontal().await;
    cluster.ok(&["MigrateServedTypes", "customer/0", "rdonly"]).await;
    assert_eq!(
        cluster.tablets.take_calls(),
        ["RefreshState zone1-0000000302", "RefreshState zone1-0000000402", "RefreshState zone1-0000000202"]
    );
    // The name of any shard of the split does, and repeating changes nothing.
    for shard in ["customer/-80", "customer/0"] {
        cluster.ok(&["MigrateServedTypes", shard, "replica"]).await;
        assert_eq!(partition(&cluster, TabletType::Replica).await, "-80 80- | 0:off -80:on 80-:on");
    }
    cluster.ok(&["MigrateServedTypes", "-reverse", "customer/0", "replica"]).await;
    assert_eq!(partition(&cluster, TabletType::Replica).await, "0 | 0:on -80:off 80-:off");
    assert_eq!(partition(&cluster, TabletType::Rdonly).await, "-80 80- | 0:off -80:on 80-:on");
    assert_eq!(partition(&cluster, TabletType::Master).await, "0 | ");
    assert_eq!(
        cluster.err(&["MigrateServedTypes", "customer/0", "master"]).await,
        "cannot migrate MASTER away from customer/0 until everything else is migrated. Make sure that the following types are migrated first: REPLICA"
    );
    assert_eq!(
        cluster.err(&["CancelResharding", "customer/0"]).await,
        "some served types have migrated for customer/0, please undo them before canceling"
    );
    cluster.tablets.take_calls();
    cluster.ok(&["MigrateServedTypes", "-skip-refresh-state", "customer/0", "replica"]).await;
    assert_eq!(cluster.tablets.take_calls(), ["RefreshState zone1-0000000301", "RefreshState zone1-0000000401"]);
}

#[tokio::test]
async fn what_a_horizontal_migration_refuses() {
    let cluster = horizontal().await;
    for (args, text) in [
        (&["-reverse", "customer/0", "master"][..], "cannot migrate master back to customer/0"),
        (&["-cells=zone1", "customer/0", "master"], "cannot specify cells for master migration on customer/0"),
        (&["-cancel", "customer/0", "master"], "no cutover of MASTER is under way for customer/0"),
        (&["customer/0", "spare"], "served_type has to be in the serving graph, not SPARE"),
    ] {
        let args = [&["MigrateServedTypes"], args].concat();
        assert_eq!(cluster.err(&args).await, text);
    }
    cluster.topo.create_keyspace("alone", &Keyspace::default()).await.unwrap();
    cluster.topo.create_shard("alone", "0").await.unwrap();
    assert_eq!(
        cluster.err(&["MigrateServedTypes", "alone/0", "master"]).await,
        "shard 0 is not involved in any overlapping shards"
    );
    for shard in ["-80", "80-"] {
        set_sources(&cluster, shard, vec![]).await;
    }
    let text = "neither Shard '-80' nor Shard '0' have a 'SourceShards' entry. Did you successfully run vtworker SplitClone before? Or did you already migrate the MASTER type?";
    assert_eq!(cluster.err(&["MigrateServedTypes", "customer/0", "replica"]).await, text);
    assert_eq!(cluster.err(&["MigrateServedTypes", "customer/0", "master"]).await, text);
}

#[tokio::test]
async fn a_shard_with_blacklisted_tables_is_not_split() {
    let cluster = horizontal().await;
    cluster.ok(&["SetShardTabletControl", "-blacklisted_tables=t", "customer/0", "rdonly"]).await;
    assert_eq!(
        cluster.err(&["MigrateServedTypes", "customer/0", "rdonly"]).await,
        "cannot safely alter DisableQueryService as BlacklistedTables is set for shard customer/0"
    );
}

#[tokio::test]
async fn the_master_of_a_horizontal_split_leaves_a_prepared_way_back() {
    let cluster = horizontal().await;
    migrate_replicas(&cluster, "MigrateServedTypes").await;
    cluster.ok(&["MigrateServedTypes", "customer/0", "master"]).await;
    let calls = cluster.tablets.take_calls();
    assert!(calls.contains(&"Fence zone1-0000000200 read_only".to_owned()), "{calls:?}");
    assert!(calls.contains(&"Release zone1-0000000200 read_write".to_owned()), "{calls:?}");
    assert_eq!(
        shard(&cluster, "customer", "0").await,
        "sources: 101 customer/-80 [], 102 customer/80- []; controls: MASTER [] [] frozen; serving: false"
    );
    for new in ["-80", "80-"] {
        assert_eq!(shard(&cluster, "customer", new).await, "sources: ; controls: ; serving: true");
    }
    for tablet_type in [TabletType::Master, TabletType::Replica, TabletType::Rdonly] {
        assert_eq!(partition(&cluster, tablet_type).await, "-80 80- | ");
    }
    let stopped =
        |id, shard: &str| (id, format!("keyspace:\"customer\" shard:\"{shard}\" key_range:<> "), "Stopped".to_owned());
    assert_eq!(cluster.tablets.streams_of(200), [stopped(101, "-80"), stopped(102, "80-")]);
    assert!(cluster.tablets.streams_of(300).is_empty() && cluster.tablets.streams_of(400).is_empty());

    let shown = cluster.ok(&["ShowResharding", "customer/0"]).await;
    assert_eq!(
        shown,
        r#"Horizontal Resharding for customer:
  Sources:
    Shard: 0
      Source Shards: [uid:101 keyspace:"customer" shard:"-80" key_range:<end:"\200" >  uid:102 keyspace:"customer" shard:"80-" key_range:<start:"\200" > ]
      VReplication:
        [INT32(101) VARBINARY("ReversedResharding") VARBINARY("keyspace:\"customer\" shard:\"-80\" key_range:<> ") VARBINARY("MariaDB/0-100-7") NULL INT64(9223372036854775807) INT64(9223372036854775807) NULL NULL INT64(7) INT64(0) VARBINARY("Stopped") NULL VARBINARY("vt_customer")]
        [INT32(102) VARBINARY("ReversedResharding") VARBINARY("keyspace:\"customer\" shard:\"80-\" key_range:<> ") VARBINARY("MariaDB/0-100-7") NULL INT64(9223372036854775807) INT64(9223372036854775807) NULL NULL INT64(7) INT64(0) VARBINARY("Stopped") NULL VARBINARY("vt_customer")]
      Is Master Serving: false
      Tablet Controls: [tablet_type:MASTER frozen:true ]
  Destinations:
    Shard: -80
      Is Master Serving: true
    Shard: 80-
      Is Master Serving: true
"#
    );
    // Repeating is no error and moves nothing.
    assert_eq!(cluster.ok(&["MigrateServedTypes", "customer/0", "master"]).await, "");
    // The way back can still be opened.
    cluster.ok(&["MigrateServedTypes", "-reverse_replication", "customer/0", "master"]).await;
    assert!(cluster.tablets.streams_of(200).iter().all(|stream| stream.2 == "Running"));
    assert!(shard(&cluster, "customer", "0").await.contains("controls: ; serving: false"));
}

#[tokio::test]
async fn a_horizontal_split_goes_there_and_back_as_often_as_wanted() {
    let cluster = horizontal().await;
    for _ in 0..3 {
        migrate_replicas(&cluster, "MigrateServedTypes").await;
        cluster.ok(&["MigrateServedTypes", "-reverse_replication", "customer/0", "master"]).await;
        assert_eq!(partition(&cluster, TabletType::Master).await, "-80 80- | ");
        assert_eq!(cluster.tablets.streams_of(200).len(), 2);

        migrate_replicas(&cluster, "MigrateServedTypes").await;
        cluster.ok(&["MigrateServedTypes", "-reverse_replication", "customer/0", "master"]).await;
        assert_eq!(partition(&cluster, TabletType::Master).await, "0 | ");
        assert!(cluster.tablets.streams_of(200).is_empty());
        let range = r#"keyspace:"customer" shard:"0" key_range:<end:"\200" > "#;
        assert_eq!(cluster.tablets.streams_of(300), [(101, range.to_owned(), "Running".to_owned())]);
        assert_eq!(shard(&cluster, "customer", "-80").await, "sources: 101 customer/0 []; controls: ; serving: false");
    }
    migrate_replicas(&cluster, "MigrateServedTypes").await;
}

async fn horizontal_end(cluster: &Cluster) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("0", shard(cluster, "customer", "0").await),
        ("-80", shard(cluster, "customer", "-80").await),
        ("80-", shard(cluster, "customer", "80-").await),
        ("master", partition(cluster, TabletType::Master).await),
        ("replica", partition(cluster, TabletType::Replica).await),
        ("at 200", format!("{:?}", cluster.tablets.streams_of(200))),
        ("at 300", format!("{:?}", cluster.tablets.streams_of(300))),
        ("at 400", format!("{:?}", cluster.tablets.streams_of(400))),
        ("gates", format!("{:?}", cluster.tablets.gates.lock().unwrap())),
        ("phase", format!("{:?}", phase(cluster, "-80,80-:0").await)),
    ])
}

#[tokio::test]
async fn a_horizontal_cutover_is_finished_from_wherever_its_process_died() {
    for flags in [&["MigrateServedTypes"][..], &["MigrateServedTypes", "-reverse_replication"]] {
        let command = [flags, &["customer/0", "master"]].concat();
        let straight = horizontal().await;
        migrate_replicas(&straight, "MigrateServedTypes").await;
        straight.ok(&command).await;
        let end = horizontal_end(&straight).await;
        for point in wrangler::CUTOVER_POINTS {
            let cluster = horizontal().await;
            migrate_replicas(&cluster, "MigrateServedTypes").await;
            let dying = cluster.failing_at(point, Action::Crash);
            assert_eq!(dying.err(&command).await, "stopped at a fail point", "{point}");
            cluster.ok(&command).await;
            assert_eq!(horizontal_end(&cluster).await, end, "{point}");
        }
    }
}

#[tokio::test]
async fn a_horizontal_cutover_can_be_cancelled_or_fails_until_it_flips() {
    for point in wrangler::CUTOVER_POINTS {
        for action in [Action::Crash, Action::Error] {
            let cluster = horizontal().await;
            migrate_replicas(&cluster, "MigrateServedTypes").await;
            let records = async |cluster: &Cluster| {
                (shard(cluster, "customer", "0").await, shard(cluster, "customer", "-80").await)
            };
            let before = records(&cluster).await;
            let command = ["MigrateServedTypes", "-reverse_replication", "customer/0", "master"];
            let error = cluster.failing_at(point, action).err(&command).await;
            if phase(&cluster, "-80,80-:0").await >= Phase::Flipped && error.contains("point of no return") {
                let error = cluster.err(&["MigrateServedTypes", "-cancel", "customer/0", "master"]).await;
                assert!(error.contains("cannot be cancelled"), "{error}");
                cluster.ok(&command).await;
                continue;
            }
            if action == Action::Crash {
                if phase(&cluster, "-80,80-:0").await >= Phase::Flipped {
                    continue;
                }
                cluster.ok(&["MigrateServedTypes", "-cancel", "customer/0", "master"]).await;
            } else {
                assert_eq!(error, format!("fail point {point}"));
            }
            assert_eq!(records(&cluster).await, before, "{point} {action:?}");
            let master = partition(&cluster, TabletType::Master).await;
            assert!(master == "0 | " || master == "0 | 0:on", "{point}: {master}");
            assert!(cluster.tablets.gates.lock().unwrap().is_empty(), "{point}");
            assert!(cluster.tablets.streams_of(200).is_empty(), "{point}");
            cluster.ok(&command).await;
        }
    }
}

#[tokio::test]
async fn a_cutover_that_vitess_left_half_way_is_finished() {
    let cluster = horizontal().await;
    migrate_replicas(&cluster, "MigrateServedTypes").await;
    // What its vtctld leaves when it dies behind its point of no return: no journal.
    let lock = cluster.topo.lock_keyspace("customer", "test").await.unwrap();
    let zero = cluster.topo.get_shard("customer", "0").await.unwrap();
    cluster.topo.update_disable_query_service(&lock, &[zero], TabletType::Master, &[], true).await.unwrap();
    cluster
        .topo
        .update_shard_fields("customer", "0", |info| {
            info.set_master_frozen(&lock, true)?;
            Ok(Update::Write)
        })
        .await
        .unwrap();
    lock.unlock().await.unwrap();
    cluster.ok(&["MigrateServedTypes", "customer/0", "master"]).await;
    assert_eq!(partition(&cluster, TabletType::Master).await, "-80 80- | ");
    assert!(!cluster.topo.get_shard("customer", "0").await.unwrap().record.is_master_serving);
    assert!(cluster.tablets.streams_of(300).is_empty());
}

#[tokio::test]
async fn two_to_one_needs_a_stream_from_every_source() {
    let cluster = horizontal().await;
    migrate_replicas(&cluster, "MigrateServedTypes").await;
    set_sources(&cluster, "80-", vec![]).await;
    assert_eq!(
        cluster.err(&["MigrateServedTypes", "customer/0", "master"]).await,
        "shard customer/80- is not replicated from customer/0: did vtworker SplitClone finish?"
    );
}

#[tokio::test]
async fn a_reparent_during_a_cutover_is_noticed() {
    let cluster = horizontal().await;
    migrate_replicas(&cluster, "MigrateServedTypes").await;
    let command = ["MigrateServedTypes", "customer/0", "master"];
    cluster.failing_at("cutover.fenced", Action::Crash).err(&command).await;
    cluster
        .topo
        .update_shard_fields("customer", "0", |info| {
            info.record.master_alias = Some(alias(201));
            Ok(Update::Write)
        })
        .await
        .unwrap();
    // It goes on with the new master, which is gated anew.
    cluster.tablets.take_calls();
    cluster.ok(&command).await;
    assert!(cluster.tablets.take_calls().contains(&"Fence zone1-0000000201 read_only".to_owned()));
    assert!(cluster.tablets.gates.lock().unwrap().is_empty(), "the former master is let go");
}

#[tokio::test]
async fn a_split_is_cancelled_as_long_as_nothing_has_moved() {
    let cluster = horizontal().await;
    cluster.ok(&["CancelResharding", "customer/-80"]).await;
    assert_eq!(shard(&cluster, "customer", "-80").await, "sources: ; controls: ; serving: false");
    assert!(cluster.tablets.streams_of(300).is_empty() && cluster.tablets.streams_of(400).is_empty());
    assert!(cluster.tablets.take_calls().contains(&"RefreshState zone1-0000000400".to_owned()));
    assert_eq!(
        cluster.err(&["CancelResharding", "customer/nope"]).await,
        "shard nope is not involved in any overlapping shards"
    );

    let cluster = vertical().await;
    let shown = cluster.ok(&["ShowResharding", "customer/0"]).await;
    assert_eq!(
        shown,
        r#"Vertical Resharding:
  Served From: [tablet_type:MASTER keyspace:"commerce"  tablet_type:REPLICA keyspace:"commerce"  tablet_type:RDONLY keyspace:"commerce" ]
  Source:
    Shard: 0
      Is Master Serving: true
  Destination:
    Shard: 0
      Source Shards: [uid:1 keyspace:"commerce" shard:"0" tables:"customer" tables:"corder" ]
      VReplication:
        [INT32(1) VARBINARY("SplitClone") VARBINARY("keyspace:\"commerce\" shard:\"0\" tables:\"customer\" tables:\"corder\" ") VARBINARY("MariaDB/0-1-1") NULL INT64(9223372036854775807) INT64(9223372036854775807) NULL NULL INT64(7) INT64(0) VARBINARY("Running") VARBINARY("") VARBINARY("vt_customer")]
      Is Master Serving: true
"#
    );
    cluster.ok(&["MigrateServedFrom", "customer/0", "rdonly"]).await;
    assert_eq!(
        cluster.err(&["CancelResharding", "customer/0"]).await,
        "some served types have migrated for customer/0, please undo them before canceling"
    );
    cluster.ok(&["MigrateServedFrom", "-reverse", "customer/0", "rdonly"]).await;
    cluster.ok(&["CancelResharding", "customer/0"]).await;
    assert!(cluster.tablets.streams_of(200).is_empty());
    assert_eq!(
        cluster.err(&["CancelResharding", "customer/0"]).await,
        "destination shard customer/0 is not a vertical split target"
    );
    assert_eq!(cluster.ok(&["ShowResharding", "customer/0"]).await, "No resharding in progress\n");
}

#[tokio::test]
async fn a_change_that_one_shard_would_refuse_changes_none() {
    let cluster = horizontal().await;
    let changed = |text: &str| {
        let after = vtproto::tabletmanagerdata::SchemaDefinition { database_schema: text.into(), ..Default::default() };
        vtproto::tabletmanagerdata::PreflightSchemaResponse {
            change_results: vec![vtproto::tabletmanagerdata::SchemaChangeResult {
                before_schema: None,
                after_schema: Some(after),
            }],
        }
    };
    let refused = tabletclient::tm::TmError::new(vterrors::Code::Unknown, "Table 't' already exists");
    cluster.tablets.preflights.lock().unwrap().extend([Ok(changed("x")), Err(refused), Ok(changed("x"))]);
    let error = cluster.err(&["ApplySchema", "-sql=create table t(id bigint primary key)", "customer"]).await;
    assert!(error.contains("Table 't' already exists"), "{error}");
    let calls = cluster.tablets.take_calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("PreflightSchema")).count(), 3);
    assert!(!calls.iter().any(|call| call.starts_with("ExecuteFetchAsDba")), "{calls:?}");
}

#[tokio::test]
async fn a_whole_split_is_planned_and_what_is_left_of_it_is_run() {
    let cluster = horizontal().await;
    let plan = cluster.ok(&["Reshard", "-dry_run", "customer", "0", "-80,80-"]).await;
    assert!(plan.starts_with("Plan:\n  1. vtctlclient WaitForFilteredReplication customer/-80\n"), "{plan}");
    assert!(plan.ends_with("  7. vtctlclient MigrateServedTypes customer/0 master\n"), "{plan}");
    assert_eq!(partition(&cluster, TabletType::Rdonly).await, "0 | ");
    let refused = cluster.err(&["Reshard", "customer", "0", "-80,80-"]).await;
    assert!(refused.starts_with("the plan has jobs of vtworker: name one that serves with -vtworker"), "{refused}");
    migrate_replicas(&cluster, "MigrateServedTypes").await;
    cluster.ok(&["MigrateServedTypes", "customer/0", "master"]).await;
    assert_eq!(cluster.ok(&["Reshard", "customer", "0", "-80,80-"]).await, "customer is served by -80,80-\n");
    assert_eq!(
        cluster.err(&["Reshard", "customer", "0", "-80"]).await,
        "source and target keyranges don't match: - to - vs -80 to -80"
    );
    let missing = cluster.err(&["Reshard", "customer", "-80", "-40,40-80"]).await;
    assert!(
        missing.starts_with("shard customer/-40 has no tablets: start them with -init_keyspace=customer"),
        "{missing}"
    );
}
