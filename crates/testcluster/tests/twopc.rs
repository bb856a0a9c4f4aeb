//! Transactions over two shards with `-transaction_mode TWOPC`, and what is left of them when a process dies.

use anyhow::{Context, Result, ensure};
use std::{sync::Arc, time::Duration};
use tabletclient::{QueryService, grpc};
use testcluster::{Cluster, Flavor, Spec, wait_for};
use vtproto::{query, topodata};

const LIMIT: Duration = Duration::from_secs(30);

fn start(abandon_seconds: u32) -> Result<Cluster> {
    // The coordinator's address is known before the tablets start: the cluster gives vtgate a port first.
    let spec = Spec::two_keyspaces(Flavor::MariaDb)
        .vttablet_flag("-twopc_enable")
        .vttablet_flag(&format!("-twopc_abandon_age={abandon_seconds}"))
        .vtgate_flag("-transaction_mode=TWOPC");
    Cluster::start_with(spec, |cluster| {
        let coordinator = format!("-twopc_coordinator_address=127.0.0.1:{}", cluster.vtgate_grpc_port);
        cluster.spec.vttablet_flags.push(coordinator);
    })
}

/// What the cluster holds, as seen through vtgate.
fn counts(cluster: &Cluster) -> Result<(String, String)> {
    let count = |database: &str, table: &str| -> Result<String> {
        let sql = format!("select count(*) from {table}");
        let seen = cluster.mysql(&[database, "--batch", "--skip-table", "--skip-column-names"], &sql)?.success()?;
        Ok(seen.stdout.trim().to_owned())
    };
    Ok((count("commerce", "product")?, count("other", "note")?))
}

/// Rows of a table of `_vt` on a tablet.
fn rows(cluster: &Cluster, tablet: usize, table: &str) -> Result<String> {
    Ok(cluster.mysql_on_tablet(tablet, &format!("select count(*) from _vt.{table}"))?.stdout.trim().to_owned())
}

const BOTH: &str = "begin; use commerce; insert into product values ('p', 'q', 1); use other; \
                    insert into note values (1, 'r'); ";

/// A commit through vtgate is whole on both shards and leaves no record behind; a rollback leaves nothing. What is
/// prepared reaches the replica, which goes on replicating.
#[test]
fn commit_and_rollback() -> Result<()> {
    let cluster = start(3600)?;
    cluster.mysql(&[], &format!("{BOTH} rollback"))?.success()?;
    ensure!(counts(&cluster)? == ("0".into(), "0".into()));
    cluster.mysql(&[], &format!("{BOTH} commit"))?.success()?;
    ensure!(counts(&cluster)? == ("1".into(), "1".into()));
    for table in ["dt_state", "dt_participant", "redo_state", "redo_statement"] {
        for tablet in [0, 1] {
            ensure!(rows(&cluster, tablet, table)? == "0", "{table} of tablet {tablet}");
        }
    }
    // The replica of `other` has seen the prepare come and go.
    wait_for("the replica to follow", LIMIT, || {
        let seen = cluster.mysql_on_tablet(2, "select count(*) from vt_other.note");
        seen.is_ok_and(|seen| seen.stdout.trim() == "1")
    })?;
    let status = cluster.mysql_on_tablet(2, "show slave status")?.stdout;
    ensure!(!status.contains("1146"), "{status}");
    Ok(())
}

/// A transaction on both tablets, driven as a vtgate drives it, so that it can be left at any step.
struct Half {
    runtime: tokio::runtime::Runtime,
    commerce: Arc<dyn QueryService>,
    other: Arc<dyn QueryService>,
    dtid: String,
    id: i64,
    other_id: i64,
}

fn target(keyspace: &str) -> Option<query::Target> {
    let tablet_type = topodata::TabletType::Master.into();
    Some(query::Target { keyspace: keyspace.into(), shard: "0".into(), tablet_type, ..Default::default() })
}

impl Half {
    /// Begun, written to and prepared: no decision yet.
    fn prepared(cluster: &Cluster) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let dial = |index: usize| {
            let tablet = topodata::Tablet {
                hostname: "127.0.0.1".into(),
                port_map: [("grpc".to_owned(), i32::from(cluster.tablets[index].grpc_port))].into(),
                ..Default::default()
            };
            grpc::dial(&tablet, &Default::default())
        };
        let (commerce, other) = (dial(0)?, dial(1)?);
        let begin = async |service: &dyn QueryService, keyspace: &str, sql: &str| -> Result<i64> {
            let request = query::BeginExecuteRequest {
                target: target(keyspace),
                query: Some(query::BoundQuery { sql: sql.into(), ..Default::default() }),
                ..Default::default()
            };
            let begun = service.begin_execute(request).await;
            begun.result?;
            Ok(begun.transaction_id)
        };
        let (id, other_id, dtid) = runtime.block_on(async {
            let id = begin(&*commerce, "commerce", "insert into product values ('p', 'q', 1)").await?;
            let other_id = begin(&*other, "other", "insert into note values (1, 'r')").await?;
            let dtid = format!("commerce:0:{id}");
            let request = query::CreateTransactionRequest {
                target: target("commerce"),
                dtid: dtid.clone(),
                participants: target("other").into_iter().collect(),
                ..Default::default()
            };
            commerce.create_transaction(request).await?;
            let request = query::PrepareRequest {
                target: target("other"),
                transaction_id: other_id,
                dtid: dtid.clone(),
                ..Default::default()
            };
            other.prepare(request).await?;
            anyhow::Ok((id, other_id, dtid))
        })?;
        drop(inside);
        Ok(Self { runtime, commerce, other, dtid, id, other_id })
    }

    /// The decision to commit, and the commit of the first shard.
    fn decide(&self) -> Result<()> {
        let request = query::StartCommitRequest {
            target: target("commerce"),
            transaction_id: self.id,
            dtid: self.dtid.clone(),
            ..Default::default()
        };
        Ok(self.runtime.block_on(self.commerce.start_commit(request))?)
    }
}

/// Kills a vttablet as a crash would, starts it again and waits until it serves.
fn crash(cluster: &mut Cluster, tablet: usize) -> Result<()> {
    cluster.kill_vttablet(tablet);
    cluster.start_vttablet(tablet)?;
    cluster.wait_for_tablet_state(tablet, "SERVING")
}

/// A participant that dies between prepare and commit makes the transaction again when it is back, and holds its
/// locks; what was decided is then done.
#[test]
fn a_decided_commit_survives_a_crash() -> Result<()> {
    let mut cluster = start(3600)?;
    let half = Half::prepared(&cluster)?;
    half.decide()?;
    crash(&mut cluster, 1)?;
    ensure!(counts(&cluster)? == ("1".into(), "0".into()), "only the first shard is committed so far");
    let blocked = "set innodb_lock_wait_timeout = 1; insert into note values (1, 'mine')";
    let refused = cluster.mysql(&["other"], blocked)?;
    ensure!(refused.stderr.contains("1205") || refused.stderr.contains("1317"), "{refused:?}");
    let page = testcluster::http_get(cluster.tablets[1].http_port, "/twopcz")?.1;
    ensure!(page.contains(&half.dtid) && page.contains("PREPARED"), "{page}");

    resolve(&cluster, &half.dtid)?;
    ensure!(counts(&cluster)? == ("1".into(), "1".into()));
    for table in ["dt_state", "dt_participant"] {
        ensure!(rows(&cluster, 0, table)? == "0", "{table}");
    }
    ensure!(rows(&cluster, 1, "redo_state")? == "0");
    // Somebody else's second try finds nothing to do.
    resolve(&cluster, &half.dtid)
}

/// Without a decision, resolving rolls back: on both shards, also after both have crashed.
#[test]
fn an_undecided_transaction_is_rolled_back() -> Result<()> {
    let mut cluster = start(3600)?;
    let half = Half::prepared(&cluster)?;
    crash(&mut cluster, 0)?;
    crash(&mut cluster, 1)?;
    resolve(&cluster, &half.dtid)?;
    ensure!(counts(&cluster)? == ("0".into(), "0".into()));
    ensure!(rows(&cluster, 0, "dt_state")? == "0" && rows(&cluster, 1, "redo_state")? == "0");
    // The rows are free again.
    cluster.mysql(&["other"], "insert into note values (1, 'mine')")?.success()?;
    // The first owner finds his transaction gone.
    let request = query::CommitRequest { target: target("other"), transaction_id: half.other_id, ..Default::default() };
    let late = half.runtime.block_on(half.other.commit(request));
    ensure!(late.is_err(), "{late:?}");
    Ok(())
}

/// A coordinator that never comes back: the tablet that keeps the record asks a vtgate to finish it.
#[test]
fn an_abandoned_transaction_is_resolved_by_itself() -> Result<()> {
    let cluster = start(1)?;
    let half = Half::prepared(&cluster)?;
    half.decide()?;
    wait_for("the transaction to be finished", LIMIT, || {
        counts(&cluster).is_ok_and(|seen| seen == ("1".into(), "1".into()))
    })?;
    wait_for("its record to go", LIMIT, || rows(&cluster, 0, "dt_state").is_ok_and(|count| count == "0"))
}

/// ResolveTransaction of vtgate's gRPC API.
fn resolve(cluster: &Cluster, dtid: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let address = format!("http://127.0.0.1:{}", cluster.vtgate_grpc_port);
        let mut client =
            vtproto::vtgateservice::vitess_client::VitessClient::connect(address).await.context("vtgate")?;
        let request = vtproto::vtgate::ResolveTransactionRequest { dtid: dtid.into(), ..Default::default() };
        client.resolve_transaction(request).await?;
        Ok(())
    })
}
