//! Changes of a shard's master: who is told what in which order, and what a failure leaves.

mod common;

use std::time::Duration;

use common::{Cluster, alias};
use vtproto::query::{QueryResult, Row};
use vtproto::topodata::TabletType;

/// Where a call stands among the calls.
fn index(calls: &[String], call: &str) -> usize {
    calls.iter().position(|c| c.starts_with(call)).unwrap_or_else(|| panic!("no {call} in {calls:#?}"))
}

#[tokio::test]
async fn the_first_master_of_a_shard() {
    let cluster = Cluster::with_tablets().await;
    let refused = cluster.err(&["InitShardMaster", "commerce/0", "zone1-100"]).await;
    assert_eq!(refused, "master-elect tablet zone1-0000000100 is not the shard master, use -force to proceed anyway");
    assert!(cluster.tablets.take_calls().is_empty(), "a refused command touches no tablet");

    let outcome = cluster.run(&["InitShardMaster", "-force", "commerce/0", "zone1-100"]).await;
    outcome.result.unwrap();
    assert_eq!(outcome.console, "");
    let calls = cluster.tablets.take_calls();
    let init_master = index(&calls, "InitMaster zone1-0000000100");
    for uid in 100..103 {
        assert!(index(&calls, &format!("ResetReplication zone1-0000000{uid}")) < init_master);
    }
    for uid in 101..103 {
        let init_slave = format!("InitSlave zone1-0000000{uid} zone1-0000000100 MariaDB/0-100-7");
        assert!(index(&calls, &init_slave) > init_master);
    }
    assert_eq!(
        calls.last().map(String::as_str),
        Some("ExecuteFetchAsDba zone1-0000000100 CREATE DATABASE IF NOT EXISTS `vt_commerce`")
    );
    let shard = cluster.topo.get_shard("commerce", "0").await.unwrap();
    assert_eq!(shard.master_alias(), Some(&alias(100)));
    assert!(shard.record.master_term_start_time.is_some(), "the command waits for the tablet to record its term");

    // Again, now without -force: it is the master of the shard already.
    cluster.ok(&["InitShardMaster", "commerce/0", "zone1-100"]).await;
    let other = cluster.err(&["InitShardMaster", "commerce/0", "zone1-101"]).await;
    assert_eq!(other, "master-elect tablet zone1-0000000101 is not the shard master, use -force to proceed anyway");
    let unknown = cluster.err(&["InitShardMaster", "-force", "commerce/0", "zone1-999"]).await;
    assert_eq!(unknown, "master-elect tablet zone1-0000000999 is not in the shard");
}

#[tokio::test]
async fn a_tablet_that_cannot_be_reset_stops_everything() {
    let cluster = Cluster::with_tablets().await;
    cluster.tablets.fail("ResetReplication zone1-0000000102", "mysqld is down");
    let error = cluster.err(&["InitShardMaster", "-force", "commerce/0", "zone1-100"]).await;
    assert_eq!(
        error,
        "tablet zone1-0000000102 ResetReplication failed (either fix it, or Scrap it): rpc error: code = Unknown desc = mysqld is down"
    );
    assert!(!cluster.tablets.take_calls().iter().any(|call| call.starts_with("InitMaster")));
    // The lock is free again, and the next run succeeds.
    cluster.tablets.failures.lock().unwrap().clear();
    cluster.ok(&["InitShardMaster", "-force", "commerce/0", "zone1-100"]).await;
}

#[tokio::test]
async fn no_replica_acknowledges_and_the_wait_ends() {
    let cluster = Cluster::with_tablets().await;
    cluster.tablets.hanging.lock().unwrap().push("PopulateReparentJournal zone1-0000000100".into());
    let args = ["InitShardMaster", "-force", "-wait_slave_timeout=50ms", "commerce/0", "zone1-100"];
    let outcome = cluster.run(&args).await;
    let error = outcome.result.expect_err("nobody acknowledges").to_vt_error().message().to_owned();
    assert!(error.starts_with("failed to PopulateReparentJournal on master: "), "{error}");
    let warned = "master failed to PopulateReparentJournal, canceling slaves";
    assert!(outcome.warnings.iter().any(|warning| warning == warned), "{:?}", outcome.warnings);
    assert!(error.contains("a tablet of type replica has to follow"), "{error}");
}

#[tokio::test]
async fn a_replica_that_does_not_follow_is_named_by_count() {
    let cluster = Cluster::with_tablets().await;
    cluster.tablets.hanging.lock().unwrap().push("InitSlave zone1-0000000102".into());
    let args = ["InitShardMaster", "-force", "-wait_slave_timeout=50ms", "commerce/0", "zone1-100"];
    let error = cluster.err(&args).await;
    assert_eq!(error, "1 tablets did not follow the new master within 50ms");
    assert_eq!(cluster.master().await, "zone1-0000000100", "the master is in place all the same");
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_stop_a_reparent() {
    let cluster = Cluster::with_tablets().await;
    {
        let run = cluster.run(&["InitShardMaster", "-force", "commerce/0", "zone1-100"]);
        tokio::pin!(run);
        // Polled once, then dropped.
        assert!(futures::poll!(&mut run).is_pending());
    }
    let done = async {
        while cluster.master().await != "zone1-0000000100" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), done).await.expect("the reparent goes on");
}

#[tokio::test]
async fn mastership_moves_while_all_are_well() {
    let cluster = Cluster::with_master().await;
    cluster.ok(&["PlannedReparentShard", "-keyspace_shard=commerce/0", "-new_master=zone1-101"]).await;
    let calls = cluster.tablets.take_calls();
    let order = [
        "MasterPosition zone1-0000000100",
        "SetMaster zone1-0000000101 zone1-0000000100 force",
        "DemoteMaster zone1-0000000100",
        "PromoteSlaveWhenCaughtUp zone1-0000000101 MariaDB/0-100-7",
        "SetMaster zone1-0000000100 zone1-0000000101",
    ];
    let places: Vec<usize> = order.iter().map(|call| index(&calls, call)).collect();
    assert!(places.is_sorted(), "{calls:#?}");
    assert!(calls.iter().any(|call| call == "PopulateReparentJournal zone1-0000000101 PlannedReparentShard"));
    assert_eq!(cluster.master().await, "zone1-0000000101");
    assert_eq!(cluster.type_of(100).await, TabletType::Replica);

    // To the same tablet once more: nothing is demoted, replicas are pointed to it again.
    cluster.ok(&["PlannedReparentShard", "-keyspace_shard=commerce/0", "-new_master=zone1-101"]).await;
    let calls = cluster.tablets.take_calls();
    assert!(!calls.iter().any(|call| call.starts_with("DemoteMaster")), "{calls:#?}");
    index(&calls, "RefreshState zone1-0000000101");
    index(&calls, "SetMaster zone1-0000000100 zone1-0000000101");

    let unknown = cluster.err(&["PlannedReparentShard", "-keyspace_shard=commerce/0", "-new_master=zone1-999"]).await;
    assert_eq!(unknown, "master-elect tablet zone1-0000000999 is not in the shard");
    // The old way to say it.
    cluster.ok(&["PlannedReparentShard", "commerce/0", "zone1-100"]).await;
    assert_eq!(cluster.master().await, "zone1-0000000100");
}

/// What the elect has to catch up with while nobody can write is made small first.
#[tokio::test]
async fn the_elect_gets_close_before_the_master_is_demoted() {
    let cluster = Cluster::with_master().await;
    let args = ["PlannedReparentShard", "-keyspace_shard=commerce/0", "-new_master=zone1-101"];
    let waits = |milliseconds: &[u64]| {
        *cluster.tablets.waits.lock().unwrap() = milliseconds.iter().map(|ms| Duration::from_millis(*ms)).collect();
    };
    let rounds = |calls: &[String]| {
        let demoted = index(calls, "DemoteMaster zone1-0000000100");
        calls[..demoted].iter().filter(|call| **call == "WaitForPosition zone1-0000000101").count()
    };
    waits(&[900, 500, 0, 900]);
    cluster.ok(&args).await;
    assert_eq!(rounds(&cluster.tablets.take_calls()), 3);

    // One that never gets closer is not waited for.
    waits(&[]);
    cluster.ok(&["PlannedReparentShard", "-keyspace_shard=commerce/0", "-new_master=zone1-100"]).await;
    cluster.tablets.take_calls();
    waits(&[400, 700, 900]);
    cluster.ok(&args).await;
    assert_eq!(rounds(&cluster.tablets.take_calls()), 2);
}

#[tokio::test]
async fn without_a_name_the_replica_of_the_cell_is_chosen() {
    let cluster = Cluster::with_master().await;
    cluster.ok(&["PlannedReparentShard", "-keyspace_shard=commerce/0", "-avoid_master=zone1-102"]).await;
    assert_eq!(cluster.master().await, "zone1-0000000100", "the one to avoid is not the master");
    cluster.ok(&["PlannedReparentShard", "-keyspace_shard=commerce/0"]).await;
    assert_eq!(cluster.master().await, "zone1-0000000101", "an rdonly is never chosen");
}

#[tokio::test]
async fn an_elect_that_cannot_be_promoted_gives_the_old_master_back() {
    let cluster = Cluster::with_master().await;
    cluster.tablets.fail("PromoteSlaveWhenCaughtUp zone1-0000000101", "too far behind");
    let args = ["PlannedReparentShard", "-keyspace_shard=commerce/0", "-new_master=zone1-101"];
    let error = cluster.err(&args).await;
    assert_eq!(
        error,
        "master-elect tablet zone1-0000000101 failed to catch up with replication or be upgraded to master: rpc error: code = Unknown desc = too far behind"
    );
    let calls = cluster.tablets.take_calls();
    assert_eq!(calls.last().map(String::as_str), Some("UndoDemoteMaster zone1-0000000100"));
    assert_eq!(cluster.master().await, "zone1-0000000100");
    cluster.tablets.failures.lock().unwrap().clear();
    cluster.ok(&args).await;
    assert_eq!(cluster.master().await, "zone1-0000000101");
}

#[tokio::test]
async fn an_elect_that_does_not_replicate_is_found_out_before_anything_is_demoted() {
    let cluster = Cluster::with_master().await;
    cluster.tablets.fail("SetMaster zone1-0000000101", "no connection");
    cluster.err(&["PlannedReparentShard", "-keyspace_shard=commerce/0", "-new_master=zone1-101"]).await;
    assert!(!cluster.tablets.take_calls().iter().any(|call| call.starts_with("DemoteMaster")));
}

#[tokio::test]
async fn with_two_masters_nobody_loses_a_transaction() {
    let cluster = Cluster::with_master().await;
    // A tie: a failed run left two masters of the same term.
    let term = cluster.topo.get_tablet(&alias(100)).await.unwrap().record.master_term_start_time;
    cluster
        .topo
        .update_tablet_fields(&alias(101), |tablet| {
            tablet.set_type(TabletType::Master);
            tablet.master_term_start_time = term;
            Ok(topo::Update::Write)
        })
        .await
        .unwrap();
    cluster.tablets.positions.lock().unwrap().insert(102, "MariaDB/0-100-9".into());
    let args = ["PlannedReparentShard", "-keyspace_shard=commerce/0", "-new_master=zone1-101"];
    let error = cluster.err(&args).await;
    assert!(error.contains("zone1-0000000102 position"), "{error}");
    assert!(error.contains("contains transactions not found in master-elect zone1-0000000101"), "{error}");
    cluster.tablets.positions.lock().unwrap().insert(101, "MariaDB/0-100-9".into());
    cluster.ok(&args).await;
    assert_eq!(cluster.master().await, "zone1-0000000101");
}

#[tokio::test]
async fn a_dead_master_is_replaced_and_its_record_goes() {
    let cluster = Cluster::with_master().await;
    let already = cluster.err(&["EmergencyReparentShard", "-keyspace_shard=commerce/0", "-new_master=zone1-100"]).await;
    assert_eq!(already, "master-elect tablet zone1-0000000100 is already the master");

    cluster.tablets.positions.lock().unwrap().insert(102, "MariaDB/0-100-9".into());
    let args = ["EmergencyReparentShard", "-keyspace_shard=commerce/0", "-new_master=zone1-101"];
    assert_eq!(
        cluster.err(&args).await,
        "tablet zone1-0000000102 is more advanced than master elect tablet zone1-0000000101: MariaDB/0-100-9 > MariaDB/0-100-7"
    );
    assert!(cluster.topo.get_tablet(&alias(100)).await.is_ok(), "a refused run keeps the old master");
    let calls = cluster.tablets.take_calls();
    for stopped in ["zone1-0000000101", "zone1-0000000102"] {
        let stop = index(&calls, &format!("StopReplicationAndGetStatus {stopped}"));
        assert!(index(&calls, &format!("StartSlave {stopped}")) > stop, "replication goes on: {calls:#?}");
    }

    cluster.tablets.positions.lock().unwrap().insert(101, "MariaDB/0-100-9".into());
    cluster.tablets.take_calls();
    cluster.ok(&args).await;
    let calls = cluster.tablets.take_calls();
    assert!(!calls.iter().any(|call| call.ends_with("zone1-0000000100")), "the dead master is not asked: {calls:#?}");
    index(&calls, "SetMaster zone1-0000000102 zone1-0000000101 force");
    assert!(cluster.topo.get_tablet(&alias(100)).await.expect_err("deleted").is_no_node());
    assert_eq!(cluster.master().await, "zone1-0000000101");
    cluster.ok(&["ValidateShard", "-ping-tablets=false", "commerce/0"]).await;
}

/// Of the shard only an rdonly tablet is left beside the elect, which would wait for an acknowledgement for ever.
#[tokio::test]
async fn an_elect_that_nobody_would_acknowledge_is_refused_while_the_old_master_is_still_there() {
    let cluster = Cluster::with_master().await;
    let roles = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('rpl_semi_sync_slave_enabled', \
                 'rpl_semi_sync_replica_enabled') AND Value = 'ON'";
    let on = QueryResult { rows: vec![Row::default()], ..Default::default() };
    cluster.tablets.results.lock().unwrap().insert(roles.to_owned(), Ok(on));
    let args = ["EmergencyReparentShard", "-keyspace_shard=commerce/0", "-new_master=zone1-101"];
    let error = cluster.err(&args).await;
    assert!(
        error.starts_with("no tablet of type replica is left beside master-elect tablet zone1-0000000101"),
        "{error}"
    );
    assert!(error.contains("ChangeSlaveType zone1-0000000102 replica"), "{error}");
    assert!(cluster.topo.get_tablet(&alias(100)).await.is_ok(), "the old master's record stays");
    let calls = cluster.tablets.take_calls();
    assert!(!calls.iter().any(|call| call.starts_with("PromoteSlave")), "{calls:#?}");
    index(&calls, "StartSlave zone1-0000000102");

    let as_replica = |tablet: &mut vtproto::topodata::Tablet| {
        tablet.set_type(TabletType::Replica);
        Ok(topo::Update::Write)
    };
    cluster.topo.update_tablet_fields(&alias(102), as_replica).await.unwrap();
    cluster.ok(&args).await;
    assert_eq!(cluster.master().await, "zone1-0000000101");
}

#[tokio::test]
async fn an_external_tool_chose_the_master() {
    let cluster = Cluster::with_master().await;
    cluster.ok(&["TabletExternallyReparented", "zone1-101"]).await;
    assert_eq!(cluster.tablets.take_calls(), ["ChangeType zone1-0000000101 MASTER"]);
    cluster.ok(&["TabletExternallyReparented", "zone1-100"]).await;
    assert!(cluster.tablets.take_calls().is_empty(), "it is the master already");
    cluster.ok(&["ReparentTablet", "zone1-101"]).await;
    assert_eq!(cluster.tablets.take_calls(), ["SetMaster zone1-0000000101 zone1-0000000100"]);
}
