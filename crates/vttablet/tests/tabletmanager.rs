//! Three real vttablets with a real etcd and real mysqlds, led through what the cluster commands do with them.
//!
//! Needs etcd and MariaDB or MySQL; says so loudly and passes where they are missing.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, eventually};
use mysql::client::Connection;
use tabletclient::{grpc::DialOptions, tm::TabletManager};
use vterrors::Code;
use vtproto::{
    query::{BeginRequest, RollbackRequest, Target},
    tabletmanagerdata as tmd,
    topodata::{Tablet, TabletAlias, TabletType},
};

const WAIT: Duration = Duration::from_secs(30);

/// What InitShardMaster does, without its checks.
async fn init_shard_master(cluster: &Cluster, elect: usize) -> anyhow::Result<()> {
    let tablets = cluster.tablets().await?;
    for tablet in &tablets {
        cluster.tm.reset_replication(tablet, tmd::ResetReplicationRequest {}).await?;
    }
    let position = cluster.tm.init_master(&tablets[elect], tmd::InitMasterRequest {}).await?.position;
    assert!(!position.is_empty() && !position.ends_with('/'), "no position to start from: {position:?}");
    let now = 1_000_000_007;
    let journal = cluster.tm.populate_reparent_journal(
        &tablets[elect],
        tmd::PopulateReparentJournalRequest {
            time_created_ns: now,
            action_name: "InitShardMaster".into(),
            master_alias: tablets[elect].alias.clone(),
            replication_position: position.clone(),
        },
    );
    let slaves = futures::future::try_join_all(tablets.iter().enumerate().filter(|(index, _)| *index != elect).map(
        |(_, tablet)| {
            cluster.tm.init_slave(
                tablet,
                tmd::InitSlaveRequest {
                    parent: tablets[elect].alias.clone(),
                    replication_position: position.clone(),
                    time_created_ns: now,
                },
            )
        },
    ));
    let (journal, slaves) = futures::join!(journal, slaves);
    journal?;
    slaves?;
    let create = tmd::ExecuteFetchAsDbaRequest {
        query: b"CREATE DATABASE IF NOT EXISTS `vt_commerce`".to_vec(),
        max_rows: 1,
        reload_schema: true,
        ..Default::default()
    };
    cluster.tm.execute_fetch_as_dba(&tablets[elect], create).await?;
    Ok(())
}

fn dba(sql: &str) -> tmd::ExecuteFetchAsDbaRequest {
    tmd::ExecuteFetchAsDbaRequest {
        query: sql.as_bytes().to_vec(),
        db_name: "vt_commerce".into(),
        max_rows: 100,
        ..Default::default()
    }
}

async fn count(cluster: &Cluster, tablet: &Tablet, sql: &str) -> String {
    match cluster.tm.execute_fetch_as_dba(tablet, dba(sql)).await {
        Ok(answer) => answer
            .result
            .and_then(|result| result.rows.first().map(|row| String::from_utf8_lossy(&row.values).into_owned()))
            .unwrap_or_default(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tablets_live_through_reparents_and_faults() -> anyhow::Result<()> {
    let Some(mut cluster) = Cluster::start(3).await? else { return Ok(()) };

    // A shard without a master serves nothing, and says why.
    eventually(WAIT, "the first health check finds no replication", async || {
        cluster.get(0, "/debug/health").await.contains("slave is not running").then_some(())
    })
    .await;
    init_shard_master(&cluster, 0).await?;
    let tablets = cluster.tablets().await?;
    assert_eq!(tablets[0].r#type(), TabletType::Master);
    for index in 0..3 {
        cluster.wait_for_state(index, "SERVING").await;
    }
    let us = tablets[0].alias.clone();
    eventually(WAIT, "the shard record names the master and its term", async || {
        let shard = cluster.topo.get_shard("commerce", "0").await.ok()?.record;
        (shard.master_alias == us && shard.master_term_start_time == tablets[0].master_term_start_time).then_some(())
    })
    .await;

    schema_rpcs(&cluster, &tablets).await?;
    replication_rpcs(&cluster, &tablets).await?;
    transactions_wait_for_replicas(&cluster, &tablets).await?;
    types(&cluster, &tablets).await?;
    planned_reparent(&cluster, 0, 1).await?;
    mysqld_dies(&cluster, 1).await?;
    // A clean stop takes the addresses out of the record, and the tablet comes back as what it was.
    cluster.stop_vttablet(1).await;
    let record = cluster.topo.get_tablet(&cluster.alias(1)).await?.record;
    assert!(record.hostname.is_empty() && record.port_map.is_empty(), "{record:?}");
    assert_eq!(record.r#type(), TabletType::Master);
    cluster.start_vttablet(1)?;
    cluster.wait_for_state(1, "SERVING").await;
    assert_eq!(cluster.topo.get_tablet(&cluster.alias(1)).await?.record.r#type(), TabletType::Master);
    Ok(())
}

async fn schema_rpcs(cluster: &Cluster, tablets: &[Tablet]) -> anyhow::Result<()> {
    let master = &tablets[0];
    let create = "create table customer(customer_id bigint not null auto_increment, email varbinary(128), \
                  primary key(customer_id)) ENGINE=InnoDB";
    let preflight = tmd::PreflightSchemaRequest { changes: vec![create.into(), "drop table customer".into()] };
    let results = cluster.tm.preflight_schema(master, preflight).await?.change_results;
    assert_eq!(results.len(), 2);
    let tables = |schema: &Option<tmd::SchemaDefinition>| schema.as_ref().map_or(0, |s| s.table_definitions.len());
    assert_eq!((tables(&results[0].before_schema), tables(&results[0].after_schema)), (0, 1));
    assert_eq!((tables(&results[1].before_schema), tables(&results[1].after_schema)), (1, 0));

    cluster
        .tm
        .execute_fetch_as_dba(master, tmd::ExecuteFetchAsDbaRequest { reload_schema: true, ..dba(create) })
        .await?;
    cluster.tm.execute_fetch_as_dba(master, dba("insert into customer(email) values ('a'), ('b')")).await?;
    let schema = cluster.tm.get_schema(master, tmd::GetSchemaRequest::default()).await?.schema_definition;
    let schema = schema.expect("a schema");
    assert!(schema.database_schema.contains("{{.DatabaseName}}"), "{}", schema.database_schema);
    let table = &schema.table_definitions[0];
    assert_eq!((table.name.as_str(), table.r#type.as_str()), ("customer", "BASE TABLE"));
    assert!(!table.schema.contains("AUTO_INCREMENT="), "{}", table.schema);
    assert_eq!(table.columns, ["customer_id", "email"]);
    assert_eq!(table.primary_key_columns, ["customer_id"]);

    // The same everywhere, once replication has brought it.
    let position = cluster.tm.master_position(master, tmd::MasterPositionRequest {}).await?.position;
    for replica in &tablets[1..] {
        cluster.tm.reload_schema(replica, tmd::ReloadSchemaRequest { wait_position: position.clone() }).await?;
        let theirs = cluster.tm.get_schema(replica, tmd::GetSchemaRequest::default()).await?.schema_definition;
        assert_eq!(theirs.map(|schema| schema.version), Some(schema.version.clone()));
    }

    let again = tmd::PreflightSchemaRequest { changes: vec![create.into()] };
    let error = cluster.tm.preflight_schema(master, again).await.expect_err("it exists").to_string();
    assert!(error.contains("ERROR 1050 (42S01) at line 3: Table 'customer' already exists"), "{error}");
    assert!(error.starts_with("rpc error: code = Unknown desc = TabletManager.PreflightSchema on zone1-"), "{error}");

    let error =
        cluster.tm.execute_fetch_as_dba(master, dba("select nope")).await.expect_err("no such column").to_string();
    assert!(
        error.contains("(errno 1054) (sqlstate 42S22) during query: select nope: rpc error: code = Unknown"),
        "{error}"
    );
    let app = tmd::ExecuteFetchAsAppRequest { query: b"select count(*) from customer".to_vec(), max_rows: 1 };
    let error = cluster.tm.execute_fetch_as_app(master, app).await.expect_err("no database").to_string();
    assert!(error.contains("No database selected (errno 1046) (sqlstate 3D000)"), "{error}");

    let permissions = cluster.tm.get_permissions(master, tmd::GetPermissionsRequest {}).await?.permissions;
    assert!(permissions.expect("permissions").user_permissions.iter().any(|user| user.user == "vt_app"));
    Ok(())
}

async fn replication_rpcs(cluster: &Cluster, tablets: &[Tablet]) -> anyhow::Result<()> {
    let (master, replica) = (&tablets[0], &tablets[1]);
    let error =
        cluster.tm.slave_status(master, tmd::SlaveStatusRequest {}).await.expect_err("it is master").to_string();
    assert!(error.contains("no slave status"), "{error}");
    let slaves = cluster.tm.get_slaves(master, tmd::GetSlavesRequest {}).await?.addrs;
    assert_eq!(slaves.len(), 2, "{slaves:?}");

    // Stopped on purpose it stays stopped, whatever the health checks think, and serves what it has: its lag grows.
    cluster.tm.stop_slave(replica, tmd::StopSlaveRequest {}).await?;
    cluster.tm.run_health_check(replica, tmd::RunHealthCheckRequest {}).await?;
    let status = cluster.tm.slave_status(replica, tmd::SlaveStatusRequest {}).await?.status.expect("a status");
    assert!(!status.slave_io_running && !status.slave_sql_running);
    assert_eq!(cluster.state(1).await, "SERVING");
    cluster.tm.start_slave(replica, tmd::StartSlaveRequest {}).await?;
    cluster.tm.run_health_check(replica, tmd::RunHealthCheckRequest {}).await?;
    cluster.wait_for_state(1, "SERVING").await;

    // Stopped by accident it is put right.
    cluster
        .tm
        .execute_fetch_as_dba(replica, dba(if cluster.has_only_new_words() { "stop replica" } else { "stop slave" }))
        .await?;
    eventually(WAIT, "replication runs again", async || {
        let status = cluster.tm.slave_status(replica, tmd::SlaveStatusRequest {}).await.ok()?.status?;
        (status.slave_io_running && status.slave_sql_running).then_some(())
    })
    .await;

    // A thread that stands is an error, and one that is ignored does not count.
    let one_thread = if cluster.has_only_new_words() { "stop replica sql_thread" } else { "stop slave sql_thread" };
    cluster.tm.execute_fetch_as_dba(replica, dba(one_thread)).await?;
    cluster.tm.run_health_check(replica, tmd::RunHealthCheckRequest {}).await?;
    cluster.wait_for_state(1, "NOT_SERVING").await;
    let pattern = tmd::IgnoreHealthErrorRequest { pattern: "slave is not running.*".into() };
    cluster.tm.ignore_health_error(replica, pattern).await?;
    cluster.tm.run_health_check(replica, tmd::RunHealthCheckRequest {}).await?;
    assert_eq!(cluster.get(1, "/healthz").await, "ok\n");
    cluster.tm.ignore_health_error(replica, tmd::IgnoreHealthErrorRequest::default()).await?;
    cluster.tm.start_slave(replica, tmd::StartSlaveRequest {}).await?;
    cluster.tm.run_health_check(replica, tmd::RunHealthCheckRequest {}).await?;
    cluster.wait_for_state(1, "SERVING").await;

    cluster.tm.lock_tables(replica, tmd::LockTablesRequest {}).await?;
    let error = cluster.tm.lock_tables(replica, tmd::LockTablesRequest {}).await.expect_err("locked").to_string();
    assert!(error.contains("tables already locked on this tablet"), "{error}");
    cluster.tm.unlock_tables(replica, tmd::UnlockTablesRequest {}).await?;
    Ok(())
}

/// While a replica lags behind its limit, the master lets few transactions begin; when it has caught up, all of them.
async fn transactions_wait_for_replicas(cluster: &Cluster, tablets: &[Tablet]) -> anyhow::Result<()> {
    let master = tabletclient::grpc::dial(&tablets[0], &DialOptions::default())?;
    let mut target = Target { keyspace: "commerce".into(), shard: "0".into(), ..Default::default() };
    target.set_tablet_type(TabletType::Master);
    let begin_and_end = async || {
        let begin = master.begin(BeginRequest { target: Some(target.clone()), ..Default::default() }).await?;
        let end = RollbackRequest { target: Some(target.clone()), transaction_id: begin, ..Default::default() };
        master.rollback(end).await
    };
    eventually(WAIT, "the throttler of the master runs", async || {
        (variable(cluster, "TransactionThrottlerRunning").await == 1).then_some(())
    })
    .await;
    begin_and_end().await?;

    // A table that is locked there holds up the replication of a replica.
    let mut reader = Connection::connect(&cluster.mysqld_login(1)).await?;
    reader.query(b"FLUSH TABLES WITH READ LOCK", 0).await?;
    cluster.tm.execute_fetch_as_dba(&tablets[0], dba("create table vt_commerce.slow (id int primary key)")).await?;
    let refused = eventually(WAIT, "transactions are throttled", async || begin_and_end().await.err()).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("Transaction throttled"), "{refused}");
    assert!(variable(cluster, "TransactionThrottlerThrottled").await > 0);

    reader.query(b"UNLOCK TABLES", 0).await?;
    eventually(WAIT, "fifty transactions in a row are let through", async || {
        for _ in 0..50 {
            begin_and_end().await.ok()?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(())
    })
    .await;
    Ok(())
}

async fn variable(cluster: &Cluster, name: &str) -> i64 {
    let vars: serde_json::Value = serde_json::from_str(&cluster.get(0, "/debug/vars").await).unwrap_or_default();
    vars[name].as_i64().unwrap_or_default()
}

async fn types(cluster: &Cluster, tablets: &[Tablet]) -> anyhow::Result<()> {
    let rdonly = &tablets[2];
    let change = |tablet_type: TabletType| tmd::ChangeTypeRequest { tablet_type: tablet_type.into() };
    cluster.tm.change_type(rdonly, change(TabletType::Spare)).await?;
    cluster.wait_for_state(2, "NOT_SERVING").await;
    let page = cluster.get(2, "/debug/status").await;
    assert!(page.contains("Query Service disabled: not a serving tablet type(spare)"), "{page}");
    cluster.tm.change_type(rdonly, change(TabletType::Drained)).await?;
    cluster.wait_for_state(2, "SERVING").await;
    let error = cluster.tm.change_type(rdonly, change(TabletType::Drained)).await.expect_err("twice").to_string();
    assert!(error.contains("is already drained"), "{error}");
    cluster.tm.change_type(rdonly, change(TabletType::Rdonly)).await?;
    cluster.wait_for_state(2, "SERVING").await;

    // Denied tables and switched-off types come with a refresh.
    cluster
        .topo
        .update_shard_fields("commerce", "0", |shard| {
            shard.record.tablet_controls.push(vtproto::topodata::shard::TabletControl {
                tablet_type: TabletType::Rdonly.into(),
                blacklisted_tables: vec!["customer".into()],
                ..Default::default()
            });
            Ok(topo::Update::Write)
        })
        .await?;
    cluster.tm.refresh_state(rdonly, tmd::RefreshStateRequest {}).await?;
    let page = cluster.get(2, "/").await;
    assert!(page.contains("BlacklistedTables: customer ") && page.trim_end().ends_with("</html>"), "{page}");
    let rules = cluster.get(2, "/debug/query_rules").await;
    assert!(rules.contains("enforce blacklisted tables"), "{rules}");
    cluster
        .topo
        .update_shard_fields("commerce", "0", |shard| {
            shard.record.tablet_controls.clear();
            Ok(topo::Update::Write)
        })
        .await?;
    cluster.tm.refresh_state(rdonly, tmd::RefreshStateRequest {}).await?;
    assert!(!cluster.get(2, "/debug/status").await.contains("BlacklistedTables"));
    Ok(())
}

/// What PlannedReparentShard does.
async fn planned_reparent(cluster: &Cluster, old: usize, elect: usize) -> anyhow::Result<()> {
    let tablets = cluster.tablets().await?;
    let position = cluster.tm.demote_master(&tablets[old], tmd::DemoteMasterRequest {}).await?.position;
    cluster.wait_for_state(old, "NOT_SERVING").await;
    let page = cluster.get(old, "/debug/status").await;
    assert!(page.contains("Query Service disabled: master was demoted"), "{page}");
    // Health checks do not bring a demoted master back; its undo does.
    cluster.tm.run_health_check(&tablets[old], tmd::RunHealthCheckRequest {}).await?;
    assert_eq!(cluster.state(old).await, "NOT_SERVING");
    assert_eq!(count(cluster, &tablets[old], "select @@global.read_only").await, "1");
    cluster.tm.undo_demote_master(&tablets[old], tmd::UndoDemoteMasterRequest {}).await?;
    cluster.wait_for_state(old, "SERVING").await;
    assert_eq!(count(cluster, &tablets[old], "select @@global.read_only").await, "0");

    let again = cluster.tm.demote_master(&tablets[old], tmd::DemoteMasterRequest {}).await?.position;
    assert_eq!(again, position, "nothing was written in between");
    let promoted = cluster
        .tm
        .promote_slave_when_caught_up(&tablets[elect], tmd::PromoteSlaveWhenCaughtUpRequest { position: again })
        .await?;
    let now = 1_000_000_008;
    let journal = cluster.tm.populate_reparent_journal(
        &tablets[elect],
        tmd::PopulateReparentJournalRequest {
            time_created_ns: now,
            action_name: "PlannedReparentShard".into(),
            master_alias: tablets[elect].alias.clone(),
            replication_position: promoted.position,
        },
    );
    let others = futures::future::try_join_all(tablets.iter().enumerate().filter(|(index, _)| *index != elect).map(
        |(_, tablet)| {
            cluster.tm.set_master(
                tablet,
                tmd::SetMasterRequest {
                    parent: tablets[elect].alias.clone(),
                    time_created_ns: now,
                    force_start_slave: true,
                    ..Default::default()
                },
            )
        },
    ));
    let (journal, others) = futures::join!(journal, others);
    journal?;
    others?;
    for index in 0..tablets.len() {
        cluster.wait_for_state(index, "SERVING").await;
    }
    let tablets = cluster.tablets().await?;
    assert_eq!(tablets[old].r#type(), TabletType::Replica);
    assert_eq!(tablets[elect].r#type(), TabletType::Master);
    let alias: Option<TabletAlias> = tablets[elect].alias.clone();
    eventually(WAIT, "the shard record follows", async || {
        let shard = cluster.topo.get_shard("commerce", "0").await.ok()?.record;
        (shard.master_alias == alias).then_some(())
    })
    .await;
    cluster.tm.execute_fetch_as_dba(&tablets[elect], dba("insert into customer(email) values ('c')")).await?;
    eventually(WAIT, "the old master has the row", async || {
        (count(cluster, &tablets[old], "select count(*) from customer").await == "3").then_some(())
    })
    .await;
    Ok(())
}

/// mysqld of the master is killed and comes back.
async fn mysqld_dies(cluster: &Cluster, index: usize) -> anyhow::Result<()> {
    cluster.kill_mysqld(index);
    cluster.wait_for_state(index, "NOT_SERVING").await;
    let health = cluster.get(index, "/debug/health").await;
    assert!(health.starts_with("not ok: mysqld does not answer"), "{health}");
    cluster.start_mysqld(index).await?;
    cluster.wait_for_state(index, "SERVING").await;
    let tablets = cluster.tablets().await?;
    eventually(WAIT, "the master accepts writes again", async || {
        (count(cluster, &tablets[index], "select @@global.read_only").await == "0").then_some(())
    })
    .await;
    let semi_sync = "show global variables like 'rpl_semi_sync_%_enabled'";
    assert!(count(cluster, &tablets[index], semi_sync).await.contains("ON"));
    Ok(())
}
