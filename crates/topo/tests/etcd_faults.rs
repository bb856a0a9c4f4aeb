//! The etcd backend against an etcd that dies, restarts, stands still, forgets, and is written to by others.

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Etcd, Proxy, eventually, soon, topo_at};
use prost::Message;
use topo::{EtcdTls, TopoError, TopoOptions, TopoServer, Update};
use vtproto::topodata::{CellInfo, Keyspace, Shard};

fn options(operation: Duration, dial: Duration, lease_ttl_seconds: i64) -> TopoOptions {
    TopoOptions {
        remote_operation_timeout: operation,
        dial_timeout: dial,
        etcd_lease_ttl_seconds: lease_ttl_seconds,
        ..TopoOptions::default()
    }
}

fn patient() -> TopoOptions {
    options(Duration::from_secs(20), Duration::from_secs(10), 30)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Starts an etcd or leaves the test.
macro_rules! etcd_or_return {
    () => {
        match Etcd::start().await? {
            Some(etcd) => etcd,
            None => return Ok(()),
        }
    };
}

async fn raw_value(etcd: &Etcd, key: &str) -> Vec<u8> {
    let mut raw = etcd.raw().await.expect("etcd is up");
    let answer = raw.get(key, None).await.expect("read");
    answer.kvs().first().unwrap_or_else(|| panic!("no key {key}")).value().to_vec()
}

#[tokio::test]
async fn keys_values_and_locks_are_laid_out_as_others_expect() -> anyhow::Result<()> {
    let etcd = etcd_or_return!();
    let topo = etcd.topo("/vitess", &["zone1"], patient()).await?;
    topo.create_keyspace("ks", &Keyspace::default()).await?;
    assert_eq!(raw_value(&etcd, "/vitess/global/keyspaces/ks/Keyspace").await, b"", "an empty record is a key");
    let cell = CellInfo { server_address: etcd.address(), root: "/vitess/zone1".into() };
    assert_eq!(raw_value(&etcd, "/vitess/global/cells/zone1/CellInfo").await, cell.encode_to_vec());
    topo.rebuild_srv_vschema(&[]).await?;
    raw_value(&etcd, "/vitess/zone1/SrvVSchema").await;

    let lock = topo.lock_keyspace("ks", "RebuildKeyspace").await?;
    let mut raw = etcd.raw().await?;
    let prefix = "/vitess/global/keyspaces/ks/locks/";
    let answer = raw.get(prefix, Some(etcd_client::GetOptions::new().with_prefix())).await?;
    let held = &answer.kvs()[0];
    assert_eq!(held.key_str()?, format!("{prefix}{}", held.lease()), "the lease's id in decimal");
    let contents: serde_json::Value = serde_json::from_slice(held.value())?;
    assert_eq!((&contents["Action"], &contents["Status"]), (&"RebuildKeyspace".into(), &"Running".into()));

    // Whoever revokes the lease takes the lock away, and the holder notices.
    raw.lease_revoke(held.lease()).await?;
    assert!(matches!(lock.check().await, Err(TopoError::LockLost { .. })));
    assert!(matches!(lock.check_held("ks"), Err(TopoError::LockLost { .. })));
    let mut info = topo.get_keyspace("ks").await?;
    assert!(topo.update_keyspace(&lock, &mut info).await.is_err(), "nothing is written under a lost lock");
    assert!(lock.unlock().await.is_err());
    Ok(())
}

#[tokio::test]
async fn an_update_keeps_what_a_newer_writer_put_in() -> anyhow::Result<()> {
    let etcd = etcd_or_return!();
    let topo = etcd.topo("/v", &["zone1"], patient()).await?;
    // Field 900, a varint, which no message of ours has.
    let unknown = [0xa0, 0x38, 0x2a];
    let mut stored = Shard { is_master_serving: true, ..Default::default() }.encode_to_vec();
    stored.extend_from_slice(&unknown);
    etcd.raw().await?.put("/v/global/keyspaces/ks/shards/0/Shard", stored, None).await?;
    topo.update_shard_fields("ks", "0", |info| {
        info.record.is_master_serving = false;
        Ok(Update::Write)
    })
    .await?;
    assert_eq!(raw_value(&etcd, "/v/global/keyspaces/ks/shards/0/Shard").await, unknown);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_outlives_a_killed_etcd() -> anyhow::Result<()> {
    let mut etcd = etcd_or_return!();
    let topo = etcd.topo("/v", &["zone1"], options(Duration::from_secs(2), Duration::from_millis(200), 30)).await?;
    let conn = topo.conn_for_cell("zone1").await?;
    conn.create("File", bytes("before")).await?;
    let (current, mut changes) = conn.watch("File").await?;
    assert_eq!(current.contents, bytes("before"));

    for round in 0..2 {
        etcd.kill();
        let asked = Instant::now();
        let error = conn.get("File").await.expect_err("etcd is down");
        assert_eq!(error.to_string(), "deadline exceeded: /v/zone1/File");
        assert!(conn.update("File", bytes("lost"), None).await.expect_err("etcd is down").is_timeout());
        assert!(conn.watch("File").await.err().expect("etcd is down").is_timeout());
        assert!(asked.elapsed() < Duration::from_secs(7), "three calls, each with a deadline");
        assert!(tokio::time::timeout(Duration::from_millis(300), changes.next()).await.is_err(), "not ended");

        etcd.restart().await?;
        // Written by somebody else before the watch is back.
        let value = format!("after {round}");
        etcd.raw().await?.put("/v/zone1/File", value.clone(), None).await?;
        let change = soon("the change", changes.next()).await.expect("not ended")?;
        assert_eq!(change.contents, bytes(&value));
        eventually("calls work again by themselves", || async { conn.get("File").await.is_ok() }).await;
    }
    etcd.kill();
    etcd.restart().await?;
    etcd.raw().await?.delete("/v/zone1/File", None).await?;
    assert!(soon("the deletion", changes.next()).await.expect("an item").expect_err("gone").is_no_node());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_restart_goes_unnoticed_by_readers() -> anyhow::Result<()> {
    let mut etcd = etcd_or_return!();
    let topo = etcd.topo("/v", &["zone1"], patient()).await?;
    let conn = topo.conn_for_cell("zone1").await?;
    conn.create("File", bytes("value")).await?;
    etcd.kill();
    let reading = tokio::spawn({
        let conn = conn.clone();
        async move { conn.get("File").await }
    });
    etcd.restart().await?;
    assert_eq!(soon("the read", reading).await??.0, bytes("value"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_outlives_compaction() -> anyhow::Result<()> {
    let etcd = etcd_or_return!();
    let proxy = Proxy::start(etcd.address()).await?;
    let topo = topo_at(&proxy.address.to_string(), "/v", &["zone1"], patient()).await?;
    let conn = topo.conn_for_cell("zone1").await?;
    for file in ["Changed", "Same", "Deleted"] {
        conn.create(file, bytes("0")).await?;
    }
    let (_, mut changed) = conn.watch("Changed").await?;
    let (_, mut same) = conn.watch("Same").await?;
    let (_, mut deleted) = conn.watch("Deleted").await?;

    proxy.set_open(false);
    let mut raw = etcd.raw().await?;
    let mut revision = 0;
    for value in ["1", "2", "3"] {
        let answer = raw.put("/v/zone1/Changed", value, None).await?;
        revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
    }
    raw.delete("/v/zone1/Deleted", None).await?;
    raw.compact(revision, None).await?;
    for _ in 0..3 {
        let answer = raw.put("/v/zone1/Other", "x", None).await?;
        raw.compact(answer.header().map_or(0, etcd_client::ResponseHeader::revision), None).await?;
    }
    proxy.set_open(true);

    let change = soon("the last value", changed.next()).await.expect("not ended")?;
    assert_eq!(change.contents, bytes("3"), "values between were compacted");
    assert!(soon("the deletion", deleted.next()).await.expect("an item").expect_err("gone").is_no_node());
    // A value that did not change is not told again: the next item is the next change.
    raw.put("/v/zone1/Same", "1", None).await?;
    assert_eq!(soon("the change", same.next()).await.expect("not ended")?.contents, bytes("1"));
    raw.put("/v/zone1/Changed", "4", None).await?;
    assert_eq!(soon("the change", changed.next()).await.expect("not ended")?.contents, bytes("4"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_a_timeout() -> anyhow::Result<()> {
    let etcd = etcd_or_return!();
    let topo = etcd.topo("/v", &["zone1"], options(Duration::from_secs(1), Duration::from_secs(1), 30)).await?;
    let conn = topo.conn_for_cell("zone1").await?;
    conn.create("File", bytes("value")).await?;
    let (_, mut changes) = conn.watch("File").await?;
    etcd.freeze(true)?;
    for _ in 0..2 {
        let asked = Instant::now();
        assert!(conn.get("File").await.expect_err("no answer").is_timeout());
        assert!(asked.elapsed() < Duration::from_secs(3));
    }
    etcd.freeze(false)?;
    eventually("it works again", || async { conn.get("File").await.is_ok() }).await;
    etcd.raw().await?.put("/v/zone1/File", "new", None).await?;
    assert_eq!(soon("the change", changes.next()).await.expect("not ended")?.contents, bytes("new"));
    Ok(())
}

/// A connection whose packets vanish without an error has to be given up by the pings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_leaves_a_connection_that_went_silent() -> anyhow::Result<()> {
    let etcd = etcd_or_return!();
    let proxy = Proxy::start(etcd.address()).await?;
    let topo = topo_at(&proxy.address.to_string(), "/v", &["zone1"], patient()).await?;
    let conn = topo.conn_for_cell("zone1").await?;
    conn.create("File", bytes("value")).await?;
    let (_, mut changes) = conn.watch("File").await?;
    proxy.stall();
    etcd.raw().await?.put("/v/zone1/File", "new", None).await?;
    assert_eq!(soon("the change", changes.next()).await.expect("not ended")?.contents, bytes("new"));
    assert_eq!(conn.get("File").await?.0, bytes("new"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_and_its_waiter_outlive_a_restart() -> anyhow::Result<()> {
    let mut etcd = etcd_or_return!();
    let topo = etcd.topo("/v", &["zone1"], patient()).await?;
    topo.create_keyspace("ks", &Keyspace::default()).await?;
    let lock = topo.lock_keyspace("ks", "First").await?;
    let waiting = tokio::spawn({
        let topo = topo.clone();
        async move { topo.lock_keyspace("ks", "Second").await }
    });
    let global = topo.conn_for_cell("global").await?;
    eventually("the waiter is in the queue", || async {
        global.list_dir("keyspaces/ks/locks", false).await.is_ok_and(|locks| locks.len() == 2)
    })
    .await;
    etcd.kill();
    etcd.restart().await?;
    lock.check().await?;
    lock.check_held("ks")?;
    assert!(!waiting.is_finished());
    lock.unlock().await?;
    let second = soon("the waiter", waiting).await??;
    second.check().await?;
    second.unlock().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_kept_alive_and_their_loss_is_noticed() -> anyhow::Result<()> {
    let mut etcd = etcd_or_return!();
    // etcd makes short leases a little longer than asked for.
    let topo = etcd.topo("/v", &["zone1"], options(Duration::from_secs(2), Duration::from_secs(1), 2)).await?;
    topo.create_keyspace("ks", &Keyspace::default()).await?;
    let lock = topo.lock_keyspace("ks", "Long").await?;
    let held_since = Instant::now();
    while held_since.elapsed() < Duration::from_secs(5) {
        lock.check_held("ks")?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let candidate = topo.new_master_participation("vtctld", "me");
    let mastership = soon("the election", candidate.wait_for_mastership()).await?;
    etcd.kill();
    eventually("the loss is noticed without the server", || async { lock.is_lost() }).await;
    soon("the loss of mastership", mastership.cancelled()).await;
    assert!(matches!(lock.check_held("ks"), Err(TopoError::LockLost { .. })));
    etcd.restart().await?;
    // The next one gets the lock once the old lease is over.
    eventually("the lock is free again", || async { topo.lock_keyspace("ks", "Next").await.is_ok() }).await;
    let again = soon("a new election", candidate.wait_for_mastership()).await?;
    assert!(!again.is_cancelled());
    candidate.stop().await;
    Ok(())
}

#[tokio::test]
async fn opening_says_what_is_wrong() -> anyhow::Result<()> {
    let open = |implementation: &'static str, address: &'static str| async move {
        let options = options(Duration::from_secs(2), Duration::from_millis(300), 30);
        TopoServer::open(implementation, address, "/vitess/global", options).await.expect_err("wrong").to_string()
    };
    assert_eq!(open("etcd2", "").await, "topo_global_server_address must be configured");
    assert_eq!(open("zk2", "127.0.0.1:1").await, "no such topology implementation zk2");
    assert_eq!(
        open("etcd2", "127.0.0.1:1").await,
        "Failed to open topo server (etcd2,127.0.0.1:1,/vitess/global): deadline exceeded: /vitess/global/"
    );
    Ok(())
}

/// A certificate for this machine signed by an authority of the test, as files.
fn certificates(
    dir: &std::path::Path,
    name: &str,
    authority: &rcgen::CertifiedIssuer<rcgen::KeyPair>,
) -> anyhow::Result<EtcdTls> {
    let key = rcgen::KeyPair::generate()?;
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let certificate = parameters.signed_by(&key, authority)?;
    let files =
        EtcdTls { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")), ca: dir.join("ca.pem") };
    std::fs::write(&files.cert, certificate.pem())?;
    std::fs::write(&files.key, key.serialize_pem())?;
    std::fs::write(&files.ca, authority.pem())?;
    Ok(files)
}

#[tokio::test]
async fn connections_can_be_encrypted_both_ways() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut parameters = rcgen::CertificateParams::new(vec![])?;
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(parameters, rcgen::KeyPair::generate()?)?;
    let server = certificates(dir.path(), "server", &authority)?;
    let client = certificates(dir.path(), "client", &authority)?;
    let Some(etcd) = Etcd::start_with(Some(server)).await? else { return Ok(()) };
    let with = |etcd_tls| TopoOptions { etcd_tls, ..options(Duration::from_secs(5), Duration::from_secs(2), 30) };
    let topo = etcd.topo("/v", &["zone1"], with(Some(client.clone()))).await?;
    topo.create_keyspace("ks", &Keyspace::default()).await?;
    assert_eq!(topo.get_keyspaces().await?, ["ks"]);
    topo.lock_keyspace("ks", "Test").await?.unlock().await?;
    assert!(etcd.topo("/v", &[], with(None)).await.is_err(), "plain connections are refused");

    let missing = EtcdTls { cert: dir.path().join("nope.pem"), ..client };
    let error = etcd.topo("/v", &[], with(Some(missing))).await.expect_err("no such file");
    assert!(error.to_string().contains("nope.pem"), "{error}");
    let partly = EtcdTls::from_flags("cert", "", "").expect_err("a key is missing").to_string();
    assert_eq!(partly, "topo_etcd_tls_cert, topo_etcd_tls_key and topo_etcd_tls_ca must be given together");
    Ok(())
}
