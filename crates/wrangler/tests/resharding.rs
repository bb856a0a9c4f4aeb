//! MigrateServedFrom, MigrateServedTypes and their relatives: what they write, in which order they tell
//! tablets, what they refuse, and that a process that dies anywhere in a cutover can be continued.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{Cluster, alias};
use prost::Message;
use servenv::failpoint::Action;
use tabletclient::tm::TmError;
use topo::Update;
use topo::memory::UpdateFault;
use vterrors::Code;
use vtproto::cutover::{Journal, Kind, Phase};
use vtproto::topodata::{Keyspace, SrvKeyspace, TabletType, keyspace, shard::SourceShard};

const THERE: &[&str] = &["MigrateServedFrom", "-reverse_replication", "customer/0", "master"];
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

/// Lets the next `times` writes of a journal that say `phase` meet a fault.
fn on_phase(cluster: &Cluster, phase: Phase, fault: UpdateFault, times: u32) {
    let left = AtomicU32::new(times);
    cluster.store.set_update_faults(move |key, contents| {
        let journal = key.ends_with("/Cutover").then(|| Journal::decode(contents.clone()).expect("a journal"))?;
        let meets = journal.phase() == phase
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        meets.then_some(fault)
    });
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
async fn reads_do_not_move_to_shards_whose_streams_stand_still() {
    let cluster = horizontal().await;
    cluster.tablets.set_stream_state(300, 1, "Stopped");
    let error = cluster.err(&["MigrateServedTypes", "customer/0", "rdonly"]).await;
    assert!(error.contains("vreplication stream 1 on zone1-0000000300 is in state Stopped"), "{error}");
    cluster.tablets.set_stream_state(300, 1, "Running");
    for command in ["MigrateServedTypes", "MigrateServedFrom"] {
        let error = cluster.err(&[command, "-cancel", "customer/0", "rdonly"]).await;
        assert_eq!(error, "-cancel is for a migration of MASTER: RDONLY goes back by -reverse");
    }
    cluster.ok(&["MigrateServedTypes", "customer/0", "rdonly"]).await;
}

#[tokio::test]
async fn shard_names_are_generated() {
    let cluster = Cluster::empty();
    let shown = cluster.ok(&["GenerateShardRanges", "3"]).await;
    assert_eq!(shown, "[\n  \"-55\",\n  \"55-aa\",\n  \"aa-\"\n]\n");
    assert_eq!(cluster.err(&["GenerateShardRanges", "three"]).await, "three is not a number of shards");
}

#[tokio::test]
async fn a_cell_that_does_not_exist_is_named() {
    let cluster = horizontal().await;
    for command in [
        &["MigrateServedTypes", "-cells=zone9", "customer/0", "rdonly"][..],
        &["MigrateServedFrom", "-cells=zone9", "customer/0", "rdonly"],
        &["SetShardTabletControl", "-cells=zone9", "-blacklisted_tables=t", "customer/0", "rdonly"],
        &["UpdateSrvKeyspacePartition", "-cells=zone9", "customer/0", "rdonly"],
        &["SetKeyspaceServedFrom", "-cells=zone9", "-source=commerce", "customer", "rdonly"],
        &["RebuildKeyspaceGraph", "-cells=zone9", "customer"],
        &["RebuildVSchemaGraph", "-cells=zone9"],
        &["RefreshStateByShard", "-cells=zone9", "customer/0"],
        &["ApplyVSchema", "-cells=zone9", "-vschema={\"tables\": {\"t\": {}}}", "customer"],
    ] {
        let error = cluster.err(command).await;
        assert!(error.contains("node doesn't exist") && error.contains("zone9"), "{command:?}: {error}");
    }
    assert!(cluster.topo.get_vschema("customer").await.unwrap_err().is_no_node(), "nothing is half applied");
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
            // What an attempt before may have prepared at the source; how far away the destination is; whether the
            // stream is near.
            "VReplicationExec zone1-0000000100 select",
            "VReplicationWaitForPos zone1-0000000200 1 MariaDB/0-100-7",
            "VReplicationWaitForPos zone1-0000000200 1 MariaDB/0-100-7",
            "MasterPosition zone1-0000000100",
            "VReplicationWaitForPos zone1-0000000200 1 MariaDB/0-100-7",
            "Gate zone1-0000000100 customer,corder",
            "Drain zone1-0000000100",
            "Fence zone1-0000000100",
            "VReplicationWaitForPos zone1-0000000200 1 MariaDB/0-100-7",
            "MasterPosition zone1-0000000200",
            "Status zone1-0000000100",
            "RefreshState zone1-0000000200",
            "VReplicationExec zone1-0000000200 delete id=1",
            "RefreshState zone1-0000000100",
            "Release zone1-0000000100",
        ]
    );
    assert!(receipt.starts_with("MASTER was moved from commerce/0 to customer/0 (cutover "), "{receipt}");
    // Not what the source says (42 ms) but what passed until the vtgates had acted.
    let stall = receipt.lines().find_map(|line| line.trim().strip_prefix("longest stall:")).expect("a line");
    let stall: u64 = stall.trim().trim_end_matches(" ms").parse().expect("milliseconds");
    assert!(stall <= 42, "{receipt}");
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

/// A source whose vttablet was restarted between its fence and the denial may have let work in behind its position.
#[tokio::test]
async fn a_lost_fence_is_noticed_before_the_flip() {
    let cluster = vertical().await;
    migrate_replicas(&cluster, "MigrateServedFrom").await;
    let before = (shard(&cluster, "commerce", "0").await, redirected(&cluster).await);
    // The journal's write is on its way when the check fails: what it did has to be known when it is undone.
    on_phase(&cluster, Phase::CaughtUp, UpdateFault::Late(Duration::from_millis(50)), 1);
    cluster.tablets.forgetful.lock().unwrap().push(100);
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "-reverse_replication", "customer/0", "master"]).await,
        "zone1-0000000100 has lost its fence: its vttablet was restarted meanwhile"
    );
    assert_eq!((shard(&cluster, "commerce", "0").await, redirected(&cluster).await), before);
    assert!(cluster.tablets.streams_of(100).is_empty());
    assert!(cluster.tablets.gates.lock().unwrap().is_empty());
    assert_eq!(phase(&cluster, "0").await, Phase::Done);
    cluster.tablets.forgetful.lock().unwrap().clear();
    cluster.ok(&["MigrateServedFrom", "-reverse_replication", "customer/0", "master"]).await;
}

/// The flip that could not be written has not happened, whatever else goes wrong on the way back.
#[tokio::test(start_paused = true)]
async fn a_flip_that_was_not_written_is_not_gone_on_with() {
    for again in [&["MigrateServedFrom", "-cancel", "customer/0", "master"][..], THERE] {
        let cluster = vertical().await;
        migrate_replicas(&cluster, "MigrateServedFrom").await;
        let before = (shard(&cluster, "commerce", "0").await, redirected(&cluster).await);
        on_phase(&cluster, Phase::Flipped, UpdateFault::Unwritten, 1);
        cluster.tablets.fail("Release zone1-0000000100", "no");
        let error = cluster.err(THERE).await;
        assert!(error.contains("going back failed too, run the same command again or with -cancel: "), "{error}");
        assert!(error.contains("cannot lift the gate of zone1-0000000100: "), "{error}");
        let (journal, _) = cluster.topo.get_cutover("customer", "0").await.unwrap();
        assert_eq!((journal.phase(), journal.cancelled), (Phase::CaughtUp, true));
        assert_eq!((shard(&cluster, "commerce", "0").await, redirected(&cluster).await), before);

        cluster.tablets.failures.lock().unwrap().clear();
        cluster.tablets.take_calls();
        cluster.ok(again).await;
        let (journal, _) = cluster.topo.get_cutover("customer", "0").await.unwrap();
        assert_eq!((journal.phase(), journal.cancelled), (Phase::Done, again != THERE));
        assert!(cluster.tablets.gates.lock().unwrap().is_empty());
        if again == THERE {
            // What was written meanwhile at the source is waited for.
            assert!(cluster.tablets.take_calls().iter().any(|call| call.starts_with("Fence ")));
            assert!(redirected(&cluster).await.is_empty());
        } else {
            assert_eq!((shard(&cluster, "commerce", "0").await, redirected(&cluster).await), before);
        }
    }
}

/// A write of the journal whose answer was lost was made: the cutover goes on with it.
#[tokio::test]
async fn a_journal_written_without_an_answer_counts() {
    for point in
        [Phase::Gated, Phase::Drained, Phase::Fenced, Phase::CaughtUp, Phase::Flipped, Phase::Released, Phase::Done]
    {
        let cluster = vertical().await;
        migrate_replicas(&cluster, "MigrateServedFrom").await;
        on_phase(&cluster, point, UpdateFault::Unanswered, 1);
        cluster.ok(THERE).await;
        assert!(redirected(&cluster).await.is_empty(), "{point:?}");
        assert_eq!(phase(&cluster, "0").await, Phase::Done);
    }
}

/// The topology is away for the moment in which the flip is written and looked up. Nobody has acted on it: it is
/// taken back.
#[tokio::test]
async fn a_flip_of_which_nobody_knows_is_taken_back() {
    let cluster = vertical().await;
    migrate_replicas(&cluster, "MigrateServedFrom").await;
    let before = (shard(&cluster, "commerce", "0").await, redirected(&cluster).await);
    on_phase(&cluster, Phase::Flipped, UpdateFault::Unknown, 1);
    let error = cluster.err(THERE).await;
    assert!(error.starts_with("deadline exceeded: ") && !error.contains("going back failed"), "{error}");
    let (journal, _) = cluster.topo.get_cutover("customer", "0").await.unwrap();
    assert_eq!((journal.phase(), journal.cancelled), (Phase::Done, true));
    assert_eq!((shard(&cluster, "commerce", "0").await, redirected(&cluster).await), before);
    assert!(cluster.tablets.gates.lock().unwrap().is_empty());
    cluster.ok(THERE).await;
}

/// The streams into the destination cannot be ended while the records are written: clients are served all the same.
#[tokio::test]
async fn streams_that_do_not_end_keep_nobody_waiting() {
    let cluster = vertical().await;
    migrate_replicas(&cluster, "MigrateServedFrom").await;
    let late = |key: &str| key.ends_with("/customer/Keyspace").then_some(UpdateFault::Late(Duration::from_millis(20)));
    cluster.store.set_update_faults(move |key, _| late(key));
    cluster.tablets.fail("VReplicationExec zone1-0000000200 delete id=1", "no");
    let error = cluster.err(THERE).await;
    assert!(error.contains("has passed its point of no return and has to be finished"), "{error}");
    assert!(error.contains("delete from _vt.vreplication where id=1) failed: "), "{error}");
    assert!(redirected(&cluster).await.is_empty(), "the destination serves");
    assert!(cluster.tablets.gates.lock().unwrap().is_empty());
    assert_eq!(phase(&cluster, "0").await, Phase::Released);
    // Two streams that answer each other never run at the same time.
    assert_eq!(cluster.tablets.streams_of(100)[0].2, "Stopped");
    cluster.tablets.failures.lock().unwrap().clear();
    cluster.ok(THERE).await;
    assert_eq!(phase(&cluster, "0").await, Phase::Done);
    assert!(cluster.tablets.streams_of(200).is_empty());
    assert_eq!(cluster.tablets.streams_of(100)[0].2, "Running");
}

/// How long a far tablet takes to answer is not how far its streams are behind.
#[tokio::test(start_paused = true)]
async fn a_far_destination_is_not_taken_for_a_late_one() {
    let cluster = vertical().await;
    migrate_replicas(&cluster, "MigrateServedFrom").await;
    *cluster.tablets.distance.lock().unwrap() = Duration::from_millis(40);
    let started = tokio::time::Instant::now();
    let outcome = cluster.run(THERE).await;
    outcome.result.unwrap();
    assert_eq!(outcome.warnings, Vec::<String>::new());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

/// A cell whose vtgates cannot be asked is in the receipt: it cannot be said that all have acted.
#[tokio::test]
async fn a_cell_that_cannot_be_read_is_no_acknowledgement() {
    let cluster = vertical().await;
    migrate_replicas(&cluster, "MigrateServedFrom").await;
    let broken = topo::gate_path("broken");
    let zone = cluster.topo.conn_for_cell("zone1").await.unwrap();
    zone.create(&broken, "no record".into()).await.unwrap();
    let outcome = cluster.run(THERE).await;
    outcome.result.unwrap();
    assert!(outcome.console.contains("  silent vtgates:       cell zone1: cannot decode "), "{}", outcome.console);
    // What the source has seen is all that is known of the stall.
    assert!(outcome.console.contains("  longest stall:        42 ms\n"), "{}", outcome.console);
    zone.delete(&broken, None).await.unwrap();
    let receipt = cluster.ok(&["MigrateServedFrom", "-reverse", "customer/0", "master"]).await;
    assert!(!receipt.contains("silent"), "{receipt}");
}

#[tokio::test]
async fn tables_made_after_the_split_keep_it_from_going_back() {
    let cluster = vertical().await;
    migrate_replicas(&cluster, "MigrateServedFrom").await;
    cluster.ok(&["MigrateServedFrom", "-reverse_replication", "customer/0", "master"]).await;
    let table = |name: &str| vtproto::tabletmanagerdata::TableDefinition { name: name.into(), ..Default::default() };
    // What both have is served from either.
    for (tablet, names) in [(100, &["older"][..]), (200, &["customer", "corder", "newer", "older"])] {
        let schema = vtproto::tabletmanagerdata::SchemaDefinition {
            table_definitions: names.iter().map(|name| table(name)).collect(),
            ..Default::default()
        };
        cluster.tablets.schemas.lock().unwrap().insert(tablet, schema);
    }
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
        calls[8..],
        [
            "RefreshState zone1-0000000100",
            "MasterPosition zone1-0000000100",
            "VReplicationWaitForPos zone1-0000000200 1 MariaDB/0-100-7",
            "MasterPosition zone1-0000000200",
            "RefreshState zone1-0000000200",
            "VReplicationExec zone1-0000000200 delete id=1",
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
        [
            "VReplicationExec zone1-0000000300 select",
            "VReplicationExec zone1-0000000400 select",
            "RefreshState zone1-0000000302",
            "RefreshState zone1-0000000402",
            "RefreshState zone1-0000000202"
        ]
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
    assert_eq!(
        cluster.tablets.take_calls(),
        [
            "VReplicationExec zone1-0000000300 select",
            "VReplicationExec zone1-0000000400 select",
            "RefreshState zone1-0000000301",
            "RefreshState zone1-0000000401"
        ]
    );
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

/// One of two streams back is started, the other's tablet does not answer. By the time the command is run again the first
/// has gone on: taken back to where it began, it would insert rows again that it has inserted.
#[tokio::test]
async fn a_stream_that_was_started_is_not_taken_back() {
    let cluster = horizontal().await;
    let command = ["MigrateServedTypes", "-reverse_replication", "customer/0", "master"];
    migrate_replicas(&cluster, "MigrateServedTypes").await;
    cluster.ok(&command).await;
    migrate_replicas(&cluster, "MigrateServedTypes").await;
    let refused = "VReplicationExec zone1-0000000300 update id=101";
    cluster.tablets.failures.lock().unwrap().insert(refused.into(), TmError::new(Code::Unavailable, "broken pipe"));
    let error = cluster.err(&command).await;
    assert!(error.contains("has to be finished, run the same command again"), "{error}");

    let reached = "MariaDB/0-100-4443";
    let started = |row: &common::Stream| row.state == "Running";
    let position = |tablet: u32| {
        let streams = cluster.tablets.streams.lock().unwrap();
        let row = streams[&tablet].iter().find(|row| started(row)).expect("a stream that was started");
        row.pos.clone()
    };
    for row in cluster.tablets.streams.lock().unwrap().get_mut(&400).expect("streams") {
        assert!(started(row), "{row:?}");
        row.pos = reached.into();
    }
    cluster.tablets.failures.lock().unwrap().clear();
    cluster.ok(&command).await;
    assert_eq!((position(300).as_str(), position(400).as_str()), ("MariaDB/0-100-7", reached));
}

/// A tablet fences, but its answer comes too late: its mysqld is read-only, which nobody has heard of.
#[tokio::test]
async fn a_fence_whose_answer_was_lost_is_taken_back() {
    let cluster = horizontal().await;
    migrate_replicas(&cluster, "MigrateServedTypes").await;
    cluster.tablets.unheard.lock().unwrap().push(200);
    let command = ["MigrateServedTypes", "-reverse_replication", "customer/0", "master"];
    let error = cluster.err(&command).await;
    assert!(error.starts_with("cannot fence zone1-0000000200: "), "{error}");
    assert!(!error.contains("going back failed"), "{error}");
    assert!(cluster.tablets.read_only.lock().unwrap().is_empty());
    assert!(cluster.tablets.gates.lock().unwrap().is_empty());
    cluster.ok(&command).await;
    assert!(cluster.tablets.read_only.lock().unwrap().is_empty());
}

/// One of two sources dies while it is fenced: the other serves again at once, the first as soon as it is there.
#[tokio::test(start_paused = true)]
async fn a_dead_source_keeps_no_other_from_serving() {
    let command = ["MigrateServedTypes", "-reverse_replication", "customer/0", "master"];
    let cancel = ["MigrateServedTypes", "-cancel", "customer/0", "master"];
    for revived_by_itself in [true, false] {
        let cluster = horizontal().await;
        migrate_replicas(&cluster, "MigrateServedTypes").await;
        cluster.ok(&command).await;
        migrate_replicas(&cluster, "MigrateServedTypes").await;
        cluster.tablets.deadly.lock().unwrap().push("Status zone1-0000000300".into());
        let (read_only, gates) = (
            || cluster.tablets.read_only.lock().unwrap().iter().copied().collect::<Vec<_>>(),
            || cluster.tablets.gates.lock().unwrap().keys().copied().collect::<Vec<_>>(),
        );
        let supervisor = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            assert_eq!((read_only(), gates()), (vec![300], vec![300]), "the healthy one serves");
            if revived_by_itself {
                cluster.tablets.deadly.lock().unwrap().clear();
                cluster.tablets.dead.lock().unwrap().clear();
            }
        };
        let (error, ()) = tokio::join!(cluster.err(&command), supervisor);
        assert!(error.starts_with("cannot see whether zone1-0000000300 is still fenced: "), "{error}");
        if !revived_by_itself {
            assert!(error.contains("going back failed too"), "{error}");
            assert!(error.contains("zone1-0000000300 cannot be told to serve again: "), "{error}");
            assert_eq!(phase(&cluster, "-80,80-:0").await, Phase::CaughtUp);
            let error = cluster.err(&cancel).await;
            assert!(error.contains("is not cancelled everywhere, run the same command again: "), "{error}");
            cluster.tablets.deadly.lock().unwrap().clear();
            cluster.tablets.dead.lock().unwrap().clear();
            cluster.ok(&cancel).await;
        }
        assert_eq!((read_only(), gates()), (vec![], vec![]));
        assert_eq!(phase(&cluster, "-80,80-:0").await, Phase::Done);
        assert!(cluster.tablets.streams_of(300).is_empty() && cluster.tablets.streams_of(400).is_empty());
        let master = partition(&cluster, TabletType::Master).await;
        assert!(!master.contains("off"), "{master}");
        cluster.ok(&command).await;
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
            let error = cluster.failing_at(point, action.clone()).err(&command).await;
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

/// A transaction that is open at one source may come to another: no door is shut before all are without work.
#[tokio::test]
async fn several_sources_are_drained_once_none_has_work_left() {
    let cluster = horizontal().await;
    let command = ["MigrateServedTypes", "-reverse_replication", "customer/0", "master"];
    for _ in 0..2 {
        migrate_replicas(&cluster, "MigrateServedTypes").await;
        cluster.tablets.take_calls();
        cluster.tablets.busy.lock().unwrap().extend([(200, 1), (300, 2), (400, 4)]);
        cluster.ok(&command).await;
    }
    let calls = cluster.tablets.take_calls();
    let (before, _) = calls.split_at(calls.iter().position(|call| call.starts_with("Drain")).expect("drained"));
    for uid in ["300", "400"] {
        let gates = before.iter().filter(|call| call.starts_with("Gate") && call.contains(uid)).count();
        assert_eq!(gates, 5, "{calls:?}");
    }
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
    assert!(plan.ends_with("  6. vtctlclient MigrateServedTypes customer/0 master\n"), "{plan}");
    assert_eq!(partition(&cluster, TabletType::Rdonly).await, "0 | ");
    let refused = cluster.err(&["Reshard", "customer", "0", "-80,80-"]).await;
    assert!(refused.starts_with("the plan has jobs of vtworker: name one that serves with -vtworker"), "{refused}");
    migrate_replicas(&cluster, "MigrateServedTypes").await;
    cluster.ok(&["MigrateServedTypes", "customer/0", "master"]).await;
    assert_eq!(cluster.ok(&["Reshard", "customer", "0", "-80,80-"]).await, "customer is served by -80,80-\n");
    assert_eq!(
        cluster.err(&["Reshard", "customer", "0", "-80"]).await,
        "source and target keyranges don't match: - vs -80"
    );
    // Told before the missing tablets of a shard that is none.
    assert_eq!(
        cluster.err(&["Reshard", "customer", "-80", "-40,40-90"]).await,
        "source and target keyranges don't match: -80 vs -90"
    );
    let missing = cluster.err(&["Reshard", "customer", "-80", "-40,40-80"]).await;
    assert!(
        missing.starts_with("shard customer/-40 has no tablets: start them with -init_keyspace=customer"),
        "{missing}"
    );
    // Nothing feeds 0, and it must not be filled from shards that it has fed.
    let frozen = cluster.err(&["Reshard", "-dry_run", "customer", "-80,80-", "0"]).await;
    assert!(frozen.starts_with("0 were replaced by -80,80- without -reverse_replication"), "{frozen}");
}

/// As when the process that moved the reads died before it told the tablets.
#[tokio::test]
async fn a_whole_split_tells_tablets_that_reads_have_left() {
    let cluster = horizontal().await;
    for served_type in ["rdonly", "replica"] {
        cluster.ok(&["MigrateServedTypes", "-skip-refresh-state", "customer/0", served_type]).await;
    }
    assert_eq!(
        cluster.ok(&["Reshard", "-dry_run", "-skip_diff", "customer", "0", "-80,80-"]).await,
        "Plan:\n  1. vtctlclient WaitForFilteredReplication customer/-80\n  \
         2. vtctlclient WaitForFilteredReplication customer/80-\n  \
         3. vtctlclient RefreshStateByShard customer/0\n  \
         4. vtctlclient MigrateServedTypes customer/0 master\n"
    );
    cluster.tablets.take_calls();
    cluster.ok(&["RefreshStateByShard", "customer/0"]).await;
    let calls = cluster.tablets.take_calls();
    let told = |alias: &str| calls.contains(&format!("RefreshState zone1-{alias}"));
    assert!(told("0000000201") && told("0000000202"), "{calls:?}");
}

#[tokio::test]
async fn a_whole_split_goes_back_along_its_streams() {
    let cluster = horizontal().await;
    migrate_replicas(&cluster, "MigrateServedTypes").await;
    cluster.ok(&["MigrateServedTypes", "-reverse_replication", "customer/0", "master"]).await;
    assert_eq!(cluster.ok(&["Reshard", "customer", "0", "-80,80-"]).await, "customer is served by -80,80-\n");
    assert_eq!(
        cluster.ok(&["Reshard", "-dry_run", "-skip_diff", "customer", "80-,-80", "0"]).await,
        "Plan:\n  1. vtctlclient WaitForFilteredReplication customer/0\n  \
         2. vtctlclient MigrateServedTypes customer/-80 rdonly\n  \
         3. vtctlclient MigrateServedTypes customer/-80 replica\n  \
         4. vtctlclient MigrateServedTypes customer/-80 master\n"
    );
}

#[tokio::test]
async fn a_whole_split_finishes_the_switch_that_was_begun() {
    for point in wrangler::CUTOVER_POINTS {
        let cluster = horizontal().await;
        migrate_replicas(&cluster, "MigrateServedTypes").await;
        let words = ["Reshard", "-skip_diff", "-reverse_replication", "customer", "0", "-80,80-"];
        let switch = ["MigrateServedTypes", "-reverse_replication", "customer/0", "master"];
        assert_eq!(cluster.failing_at(point, Action::Crash).err(&switch).await, "stopped at a fail point", "{point}");
        let plan = cluster.ok(&words).await;
        assert!(
            plan.starts_with("Plan:\n  1. vtctlclient MigrateServedTypes -reverse_replication customer/0 master\n1."),
            "{plan}"
        );
        assert_eq!(partition(&cluster, TabletType::Master).await, "-80 80- | ", "{point}");
        assert_eq!(cluster.ok(&words).await, "customer is served by -80,80-\n", "{point}");
    }
}
