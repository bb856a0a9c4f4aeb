//! What every backend has to do, run against the memory backend and against a real etcd.

mod common;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Etcd, eventually, soon};
use tokio::sync::mpsc;
use topo::{Conn, TopoError, TopoOptions, TopoServer, Update, memory::MemoryStore};
use vtproto::{
    cutover::{GateAck, Journal, Phase},
    topodata::{Keyspace, KeyspaceIdType, Shard, Tablet, TabletAlias, TabletType, shard},
    vschema,
};

const CELLS: &[&str] = &["zone1", "zone2"];

/// Makes an empty topology with its own processes' worth of state; `name` sets its keys apart.
trait Backend {
    async fn topo(&self, name: &str) -> TopoServer;
}

struct Memory;

impl Backend for Memory {
    async fn topo(&self, _name: &str) -> TopoServer {
        MemoryStore::new().server(CELLS)
    }
}

impl Backend for Etcd {
    async fn topo(&self, name: &str) -> TopoServer {
        let options = TopoOptions { remote_operation_timeout: Duration::from_secs(20), ..TopoOptions::default() };
        Etcd::topo(self, &format!("/{name}"), CELLS, options).await.expect("a topology in etcd")
    }
}

async fn suite(backend: &impl Backend) {
    keys_have_versions(&conn(backend, "versions").await).await;
    directories_are_made_of_keys(&conn(backend, "directories").await).await;
    locks_are_exclusive_and_fair(&conn(backend, "locks").await).await;
    a_lock_is_given_up_after_a_time(&conn(backend, "timeout").await).await;
    watches_see_each_change(&conn(backend, "watches").await).await;
    one_candidate_is_elected(&conn(backend, "elections").await).await;
    cells_have_connections_of_their_own(&backend.topo("cells").await).await;
    shards_and_tablets(&backend.topo("records").await).await;
    serving_graph(&backend.topo("serving").await).await;
    vschema_reaches_every_cell(&backend.topo("vschema").await).await;
    gates_acknowledge_what_they_act_on(&backend.topo("gates").await).await;
    cutovers_are_journalled(&backend.topo("cutovers").await).await;
    no_update_is_lost(&backend.topo("stress").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory() {
    suite(&Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd() -> anyhow::Result<()> {
    if let Some(etcd) = Etcd::start().await? {
        suite(&etcd).await;
    }
    Ok(())
}

async fn conn(backend: &impl Backend, name: &str) -> Arc<dyn Conn> {
    backend.topo(name).await.conn_for_cell("global").await.expect("always there")
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn keys_have_versions(conn: &Arc<dyn Conn>) {
    let full = conn.full_path("a/File");
    let text = |error: TopoError| error.to_string();
    assert_eq!(conn.get("a/File").await.map_err(text), Err(format!("node doesn't exist: {full}")));
    let first = conn.create("a/File", bytes("one")).await.expect("new");
    assert_eq!(conn.create("a/File", bytes("x")).await.map_err(text), Err(format!("node already exists: {full}")));
    assert_eq!(conn.get("/a//File").await, Ok((bytes("one"), first)), "paths are cleaned");

    let second = conn.update("a/File", bytes("two"), Some(first)).await.expect("unchanged");
    assert!(second > first);
    assert_eq!(
        conn.update("a/File", bytes("x"), Some(first)).await.map_err(text),
        Err(format!("bad node version: {full}"))
    );
    let third = conn.update("a/File", bytes(""), None).await.expect("unconditional");
    assert_eq!(conn.get("a/File").await, Ok((bytes(""), third)), "an empty value is a value");

    assert_eq!(conn.delete("a/File", Some(second)).await.map_err(text), Err(format!("bad node version: {full}")));
    conn.delete("a/File", Some(third)).await.expect("the right version");
    assert_eq!(conn.delete("a/File", Some(third)).await.map_err(text), Err(format!("node doesn't exist: {full}")));
    assert_eq!(conn.delete("a/File", None).await.map_err(text), Err(format!("node doesn't exist: {full}")));
    assert!(conn.update("a/File", bytes("x"), Some(third)).await.expect_err("gone").is_bad_version());
    conn.update("a/File", bytes("made"), None).await.expect("an unconditional update creates");
    conn.delete("a/File", None).await.expect("there");
}

async fn directories_are_made_of_keys(conn: &Arc<dyn Conn>) {
    let error = conn.list_dir("d", false).await.expect_err("nothing there");
    assert_eq!(error.to_string(), format!("node doesn't exist: {}/", conn.full_path("d")));
    for path in ["d/b/File", "d/a/File", "d/a/deep/File", "d/a-b/File", "d/File", "dx/File"] {
        conn.create(path, bytes("")).await.expect("new");
    }
    let listed = conn.list_dir("d", true).await.expect("there");
    let shown: Vec<(&str, bool)> = listed.iter().map(|entry| (entry.name.as_str(), entry.is_directory)).collect();
    assert_eq!(shown, [("File", false), ("a", true), ("a-b", true), ("b", true)]);
    let names = |entries: Vec<topo::DirEntry>| entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    assert_eq!(names(conn.list_dir("d/a", false).await.expect("there")), ["File", "deep"]);
    assert!(names(conn.list_dir("", false).await.expect("the root")).contains(&"d".to_owned()));
    let lock = conn.lock("d/b", "contents", Duration::from_secs(10)).await.expect("free");
    let locks = conn.list_dir("d/b/locks", true).await.expect("the lock is a key");
    assert_eq!((locks.len(), locks[0].is_ephemeral, locks[0].is_directory), (1, true, false));
    let (contents, _) = conn.get(&format!("d/b/locks/{}", locks[0].name)).await.expect("there");
    assert_eq!(contents, bytes("contents"));
    lock.unlock().await.expect("held");
    assert!(conn.list_dir("d/b/locks", true).await.expect_err("released").is_no_node());
    conn.delete("d/b/File", None).await.expect("there");
    assert!(conn.list_dir("d/b", true).await.expect_err("empty").is_no_node());
}

async fn locks_are_exclusive_and_fair(conn: &Arc<dyn Conn>) {
    let missing = conn.lock("dir", "x", Duration::from_secs(10)).await.err().expect("no such directory");
    assert!(missing.is_no_node(), "{missing}");
    conn.create("dir/File", bytes("")).await.expect("new");
    let first = conn.lock("dir", "first", Duration::from_secs(10)).await.expect("free");
    first.check().await.expect("held");
    assert!(!first.is_lost());

    let (got, mut order) = mpsc::unbounded_channel();
    for waiter in 0..3 {
        let (conn, got) = (conn.clone(), got.clone());
        let waiting = tokio::spawn({
            let conn = conn.clone();
            async move {
                let lock = conn.lock("dir", "waiter", Duration::from_secs(30)).await.expect("in turn");
                got.send(waiter).expect("the test is listening");
                lock.unlock().await.expect("held");
            }
        });
        // One after the other, so that their order is known.
        eventually("the waiter is in the queue", || {
            let conn = conn.clone();
            async move { conn.list_dir("dir/locks", false).await.is_ok_and(|locks| locks.len() == waiter + 2) }
        })
        .await;
        drop(waiting);
    }
    assert!(order.try_recv().is_err(), "nobody gets a lock that is held");
    first.unlock().await.expect("held");
    for waiter in 0..3 {
        assert_eq!(soon("the next in turn", order.recv()).await, Some(waiter));
    }
    // A guard that is dropped lets go, too.
    drop(soon("free", conn.lock("dir", "dropped", Duration::from_secs(20))).await.expect("free"));
    let last = conn.lock("dir", "last", Duration::from_secs(20)).await.expect("free again");
    last.unlock().await.expect("held");
}

async fn a_lock_is_given_up_after_a_time(conn: &Arc<dyn Conn>) {
    conn.create("dir/File", bytes("")).await.expect("new");
    let holder = conn.lock("dir", "holder", Duration::from_secs(10)).await.expect("free");
    let error = conn.lock("dir", "late", Duration::from_millis(300)).await.err().expect("held by another");
    assert_eq!(error.to_string(), format!("deadline exceeded: {}", conn.full_path("dir")));
    eventually("who gave up leaves the queue", || async {
        conn.list_dir("dir/locks", false).await.is_ok_and(|locks| locks.len() == 1)
    })
    .await;
    holder.unlock().await.expect("held");
}

async fn watches_see_each_change(conn: &Arc<dyn Conn>) {
    assert!(conn.watch("w/File").await.err().expect("no such key").is_no_node());
    let created = conn.create("w/File", bytes("0")).await.expect("new");
    conn.create("w/File2", bytes("other")).await.expect("new");
    let (current, mut changes) = conn.watch("w/File").await.expect("there");
    assert_eq!((current.contents, current.version), (bytes("0"), created));
    for value in ["1", "2", "3"] {
        conn.update("w/File", bytes(value), None).await.expect("written");
        conn.update("w/File2", bytes(value), None).await.expect("written");
    }
    for value in ["1", "2", "3"] {
        let change = soon("a change", changes.next()).await.expect("not ended").expect("no error");
        assert_eq!(change.contents, bytes(value));
    }
    conn.delete("w/File", None).await.expect("there");
    let end = soon("the deletion", changes.next()).await.expect("an item");
    assert_eq!(end, Err(TopoError::NoNode { path: conn.full_path("w/File") }));
    assert_eq!(soon("the end", changes.next()).await, None);
}

async fn one_candidate_is_elected(conn: &Arc<dyn Conn>) {
    let one = conn.new_master_participation("vtctld", "one:15000");
    assert_eq!(one.get_current_master_id().await, Ok(String::new()));
    let mastership = soon("the only candidate", one.wait_for_mastership()).await.expect("elected");
    assert_eq!(one.get_current_master_id().await, Ok("one:15000".into()));
    let locks = conn.list_dir("elections/vtctld/locks", false).await.expect("the key of the master");
    assert_eq!(locks.len(), 1);

    let two = conn.new_master_participation("vtctld", "two:15000");
    let waiting = tokio::spawn({
        let two = two.clone();
        async move { two.wait_for_mastership().await }
    });
    eventually("both are candidates", || async {
        conn.list_dir("elections/vtctld/locks", false).await.is_ok_and(|locks| locks.len() == 2)
    })
    .await;
    assert_eq!(two.get_current_master_id().await, Ok("one:15000".into()));
    assert!(!mastership.is_cancelled());
    one.stop().await;
    soon("the old master is told", mastership.cancelled()).await;
    let second = soon("the next candidate", waiting).await.expect("no panic").expect("elected");
    assert!(!second.is_cancelled());
    assert_eq!(two.get_current_master_id().await, Ok("two:15000".into()));
    assert!(matches!(one.wait_for_mastership().await, Err(TopoError::Interrupted { .. })));
    two.stop().await;
    eventually("nobody is master", || async { two.get_current_master_id().await == Ok(String::new()) }).await;
}

async fn cells_have_connections_of_their_own(topo: &TopoServer) {
    assert_eq!(topo.get_known_cells().await, Ok(vec!["zone1".into(), "zone2".into()]));
    let (one, two) = (topo.conn_for_cell("zone1").await.expect("one"), topo.conn_for_cell("zone2").await.expect("two"));
    one.create("File", bytes("1")).await.expect("new");
    two.create("File", bytes("2")).await.expect("new");
    assert_eq!(one.get("File").await.expect("there").0, bytes("1"));
    assert_eq!(two.get("File").await.expect("there").0, bytes("2"));
    let error = topo.conn_for_cell("nope").await.err().expect("no such cell");
    assert!(error.is_no_node() && error.to_string().ends_with("/global/cells/nope/CellInfo"), "{error}");
    assert_eq!(topo.get_keyspaces().await, Ok(vec![]));
    assert_eq!(topo.get_srv_keyspace_names("zone1").await, Ok(vec![]));
    assert!(topo.get_tablets_by_cell("zone1").await.expect_err("no tablets").is_no_node());
    let error = topo.get_shard_names("ks").await.expect_err("no keyspace");
    assert!(error.to_string().ends_with("/global/keyspaces/ks/Keyspace"), "{error}");
}

fn tablet(cell: &str, uid: u32, shard: &str, tablet_type: TabletType) -> Tablet {
    Tablet {
        alias: Some(TabletAlias { cell: cell.into(), uid }),
        keyspace: "ks".into(),
        shard: shard.into(),
        r#type: tablet_type.into(),
        hostname: format!("host{uid}"),
        ..Default::default()
    }
}

async fn shards_and_tablets(topo: &TopoServer) {
    // What a starting tablet does, by several at once.
    let starting = (0..4).map(|_| {
        let topo = topo.clone();
        tokio::spawn(async move { topo.get_or_create_shard("ks", "0").await })
    });
    for started in futures::future::join_all(starting).await {
        let info = started.expect("no panic").expect("created by one, read by the others");
        assert!(info.record.is_master_serving && info.record.key_range.is_none());
    }
    assert_eq!(topo.get_vschema("ks").await, Ok(vschema::Keyspace::default()));
    topo.create_shard("ks", "-80").await.expect("new");
    assert!(topo.create_shard("ks", "-80").await.expect_err("again").is_node_exists());
    assert!(!topo.get_shard("ks", "-80").await.expect("there").record.is_master_serving, "overlaps 0");
    for name in ["00-80", "-8000"] {
        let error = topo.create_shard("ks", name).await.expect_err("has a name already");
        assert_eq!(error.to_string(), format!("ks/{name} is another name for the key range of the shard ks/-80"));
        let error = topo.get_or_create_shard("ks", name).await.expect_err("has a name already").to_string();
        assert!(error.ends_with("for the key range of the shard ks/-80"), "{error}");
    }
    let error = topo.create_shard("ks", "x0-").await.expect_err("no digits");
    assert_eq!(error.to_string(), "encoding/hex: invalid byte: U+0078 'x'");
    assert_eq!(topo.get_shard_names("ks").await, Ok(vec!["-80".into(), "0".into()]));
    let error = topo.get_only_shard("ks").await.expect_err("two shards");
    assert_eq!(error.to_string(), "keyspace ks must have one and only one shard: [-80 0]");

    for (cell, uid, tablet_type) in
        [("zone1", 100, TabletType::Master), ("zone1", 101, TabletType::Replica), ("zone2", 200, TabletType::Rdonly)]
    {
        topo.create_tablet(&tablet(cell, uid, "0", tablet_type)).await.expect("new");
    }
    let again = topo.create_tablet(&tablet("zone1", 100, "0", TabletType::Master)).await.expect_err("again");
    assert!(again.is_node_exists() && again.to_string().ends_with("/zone1/tablets/zone1-0000000100/Tablet"));
    let master = TabletAlias { cell: "zone1".into(), uid: 100 };
    topo.update_shard_fields("ks", "0", |info| {
        info.record.master_alias = Some(master.clone());
        Ok(Update::Write)
    })
    .await
    .expect("written");
    let map = topo.get_tablet_map_for_shard("ks", "0").await.expect("read").complete().expect("nothing missing");
    assert_eq!(map.keys().collect::<Vec<_>>(), ["zone1-0000000100", "zone1-0000000101", "zone2-0000000200"]);
    let near = topo.get_tablet_map_for_shard_by_cell("ks", "0", &["zone2".into()]).await.expect("read");
    assert_eq!(near.value.len(), 1);

    let changed = topo
        .update_tablet_fields(&master, |record| {
            record.hostname = "moved".into();
            Ok(Update::Write)
        })
        .await
        .expect("written");
    assert_eq!(changed.expect("changed").hostname, "moved");
    let kept = topo.update_tablet_fields(&master, |_| Ok(Update::NoUpdateNeeded)).await.expect("no error");
    assert_eq!(kept, None);

    // A node without a tablet is found and removed.
    topo.delete_tablet(&TabletAlias { cell: "zone1".into(), uid: 101 }).await.expect("there");
    let fixed = topo.fix_shard_replication("zone1", "ks", "0").await.expect("read");
    assert_eq!(fixed.map(|alias| alias.uid), Some(101));
    assert_eq!(topo.fix_shard_replication("zone1", "ks", "0").await, Ok(None));
    topo.delete_tablet_replication_data(&tablet("zone2", 200, "0", TabletType::Rdonly)).await.expect("removed");
    topo.delete_tablet_replication_data(&tablet("zone2", 200, "0", TabletType::Rdonly)).await.expect("no error");
    let left = topo.find_all_tablet_aliases_in_shard("ks", "0").await.expect("read");
    assert_eq!(left.value, [master]);

    // The keyspace record is written under its lock only, and by version.
    let lock = topo.lock_keyspace("ks", "SetKeyspaceShardingInfo").await.expect("free");
    let (mut mine, mut stale) =
        (topo.get_keyspace("ks").await.expect("there"), topo.get_keyspace("ks").await.expect("there"));
    mine.record.sharding_column_type = KeyspaceIdType::Uint64.into();
    topo.update_keyspace(&lock, &mut mine).await.expect("unchanged");
    topo.update_keyspace(&lock, &mut mine).await.expect("its version was kept up to date");
    assert!(topo.update_keyspace(&lock, &mut stale).await.expect_err("changed").is_bad_version());
    lock.unlock().await.expect("held");

    let shard_lock = topo.lock_shard("ks", "0", "InitShardMaster(zone1-0000000100)").await.expect("free");
    shard_lock.check_held("ks", "0").await.expect("held");
    assert!(shard_lock.check_held("ks", "-80").await.is_err());
    shard_lock.unlock().await.expect("held");
    topo.delete_shard("ks", "-80").await.expect("there");
    topo.delete_keyspace("ks").await.expect("there");
    assert!(topo.get_vschema("ks").await.expect_err("gone with the keyspace").is_no_node());
}

async fn gates_acknowledge_what_they_act_on(topo: &TopoServer) {
    let ack = |gate: &str, version: i64| GateAck {
        gate: gate.to_owned(),
        srv_keyspaces: [("ks".to_owned(), version)].into(),
        ..Default::default()
    };
    let names = |acks: Vec<GateAck>| acks.into_iter().map(|ack| ack.gate).collect::<Vec<_>>();
    let get = async |cell: &str| names(topo.get_gate_acks(cell).await.expect("read"));
    assert!(get("zone1").await.is_empty());
    topo.update_srv_keyspace("zone1", "ks", &Default::default()).await.expect("written");
    let old = topo.get_srv_keyspace_version("zone1", "ks").await.expect("there").1;
    let quick = topo.register_gate("zone1", &ack("a:1-x", old.0)).await.expect("registered");
    let dying = topo.register_gate("zone1", &ack("b:1-x", old.0)).await.expect("registered");
    let _elsewhere = topo.register_gate("zone2", &ack("c:1-x", old.0)).await.expect("registered");
    let unaware = GateAck { gate: "d:1-x".into(), ..Default::default() };
    let _unaware = topo.register_gate("zone1", &unaware).await.expect("registered");
    assert_eq!(get("zone1").await, ["a:1-x", "b:1-x", "d:1-x"]);
    assert_eq!(get("zone2").await, ["c:1-x"]);

    topo.update_srv_keyspace("zone1", "ks", &Default::default()).await.expect("written");
    let new = topo.get_srv_keyspace_version("zone1", "ks").await.expect("there").1;
    assert!(new > old, "a rewritten record has a new version");
    let wait = async |timeout| topo.wait_for_gate_acks("zone1", "ks", new, timeout).await.expect("read");
    assert_eq!(wait(Duration::from_millis(20)).await, ["a:1-x", "b:1-x"]);
    let (silent, ()) = tokio::join!(soon("each gate caught up or went away", wait(Duration::from_secs(60))), async {
        quick.update(&ack("a:1-x", new.0)).await.expect("written");
        drop(dying);
    });
    assert!(silent.is_empty());
    eventually("the place of a gate goes with it", || async { get("zone1").await == ["a:1-x", "d:1-x"] }).await;
}

async fn cutovers_are_journalled(topo: &TopoServer) {
    topo.create_keyspace("ks", &Keyspace::default()).await.expect("new");
    assert!(topo.get_cutover_names("ks").await.expect("none").is_empty());
    let mut journal = Journal { id: "one".into(), keyspace: "ks".into(), ..Default::default() };
    journal.set_phase(Phase::Gated);
    let first = topo.create_cutover("ks", "-80", &journal).await.expect("new");
    assert!(topo.create_cutover("ks", "-80", &journal).await.expect_err("there").is_node_exists());
    assert_eq!(topo.get_cutover("ks", "-80").await, Ok((journal.clone(), first)));
    journal.set_phase(Phase::Drained);
    let second = topo.update_cutover("ks", "-80", &journal, first).await.expect("unchanged");
    assert!(topo.update_cutover("ks", "-80", &journal, first).await.expect_err("changed").is_bad_version());
    topo.create_cutover("ks", "80-", &journal).await.expect("new");
    assert_eq!(topo.get_cutover_names("ks").await.expect("read"), ["-80", "80-"]);
    assert_eq!(topo.get_keyspaces().await.expect("read"), ["ks"]);
    assert!(topo.get_shard_names("ks").await.expect("a keyspace without shards").is_empty());
    assert!(topo.delete_cutover("ks", "-80", first).await.expect_err("changed").is_bad_version());
    topo.delete_cutover("ks", "-80", second).await.expect("unchanged");
    topo.delete_keyspace("ks").await.expect("there");
    assert!(topo.get_keyspaces().await.expect("read").is_empty(), "journals do not outlive their keyspace");
}

async fn serving_graph(topo: &TopoServer) {
    for shard in ["-80", "80-", "-40", "40-80"] {
        topo.get_or_create_shard("ks", shard).await.expect("new");
    }
    topo.rebuild_keyspace("ks", &[]).await.expect("a full keyspace");
    let srv = topo.get_srv_keyspace("zone2", "ks").await.expect("written");
    let shards = |srv: &vtproto::topodata::SrvKeyspace, tablet_type| {
        let partition = topo::partition(srv, tablet_type).expect("there");
        partition.shard_references.iter().map(|reference| reference.name.clone()).collect::<Vec<_>>()
    };
    for tablet_type in [TabletType::Master, TabletType::Replica, TabletType::Rdonly] {
        assert_eq!(shards(&srv, tablet_type), ["-80", "80-"]);
    }
    let infos = topo.find_all_shards_in_keyspace("ks").await.expect("read");
    let (whole, halves) = ([infos["-80"].clone()], [infos["-40"].clone(), infos["40-80"].clone()]);
    assert_eq!(topo.get_shard_serving_cells(&whole[0]).await, Ok(vec!["zone1".into(), "zone2".into()]));
    assert_eq!(topo.get_shard_serving_cells(&halves[0]).await, Ok(vec![]));

    let lock = topo.lock_keyspace("ks", "MigrateServedTypes(REPLICA)").await.expect("free");
    let cells = ["zone1".to_owned()];
    topo.migrate_served_type(&lock, &halves, &whole, TabletType::Replica, &cells).await.expect("contiguous");
    topo.update_disable_query_service(&lock, &whole, TabletType::Replica, &cells, true).await.expect("disabled");
    let (here, there) = (
        topo.get_srv_keyspace("zone1", "ks").await.expect("written"),
        topo.get_srv_keyspace("zone2", "ks").await.expect("written"),
    );
    assert_eq!(shards(&here, TabletType::Replica), ["-40", "40-80", "80-"]);
    assert_eq!(shards(&here, TabletType::Master), ["-80", "80-"]);
    assert_eq!(shards(&there, TabletType::Replica), ["-80", "80-"]);
    let range = whole[0].record.key_range.as_ref();
    assert!(topo::is_query_service_disabled(&here, TabletType::Replica, range));
    assert!(!topo::is_query_service_disabled(&here, TabletType::Rdonly, range));
    assert!(!topo::is_query_service_disabled(&there, TabletType::Replica, range));

    let error = topo.rebuild_keyspace_locked(&lock, &[]).await.expect_err("a migration is going on");
    assert!(
        error.to_string().starts_with(
            "can't rebuild serving keyspace while a migration is on going. TabletControls is set for partition \
             served_type:REPLICA shard_references:<name:\"-40\" key_range:<end:\"@\" > > "
        ),
        "{error}"
    );
    let error =
        topo.migrate_served_type(&lock, &halves[..1], &whole, TabletType::Master, &[]).await.expect_err("a gap at 40");
    assert_eq!(
        error.to_string(),
        "partial result: non-contiguous KeyRange values for MASTER in cell zone1 at shard 0 to 1: 40 != 80\n\
         non-contiguous KeyRange values for MASTER in cell zone2 at shard 0 to 1: 40 != 80"
    );
    topo.migrate_served_type(&lock, &halves, &whole, TabletType::Master, &[]).await.expect("contiguous");
    let here = topo.get_srv_keyspace("zone1", "ks").await.expect("written");
    assert!(!topo::is_query_service_disabled(&here, TabletType::Replica, range), "MASTER ends the migration");

    // A frozen source cannot serve again; one with a blacklist cannot be disabled.
    let frozen = topo
        .update_shard_fields("ks", "-80", |info| {
            info.set_master_frozen(&lock, true)?;
            Ok(Update::Write)
        })
        .await
        .expect("written");
    let error = topo
        .update_disable_query_service(&lock, &[frozen], TabletType::Master, &[], false)
        .await
        .expect_err("too late");
    assert_eq!(error.to_string(), "migrate has gone past the point of no return, cannot re-enable serving for ks/-80");
    topo.delete_srv_keyspace_partitions(&lock, &halves, TabletType::Rdonly, &[]).await.expect("not there");
    topo.add_srv_keyspace_partitions(&lock, &halves, TabletType::Rdonly, &[]).await.expect("added");
    let here = topo.get_srv_keyspace("zone1", "ks").await.expect("written");
    assert_eq!(shards(&here, TabletType::Rdonly), ["-80", "80-", "-40", "40-80"]);
    lock.unlock().await.expect("held");

    // Without a serving shard there are no partitions; that is allowed.
    topo.create_keyspace("empty", &Keyspace::default()).await.expect("new");
    topo.rebuild_keyspace("empty", &[]).await.expect("allowed");
    assert!(topo.get_srv_keyspace("zone1", "empty").await.expect("written").partitions.is_empty());
    assert_eq!(topo.get_srv_keyspace_names("zone1").await, Ok(vec!["empty".into(), "ks".into()]));
}

async fn vschema_reaches_every_cell(topo: &TopoServer) {
    topo.create_keyspace("ks", &Keyspace::default()).await.expect("new");
    topo.ensure_vschema("ks").await.expect("made");
    let mut watch = topo.watch_srv_vschema("zone1").await.expect("there");
    let first = soon("the present value", watch.next()).await.expect("an item").expect("a value");
    assert_eq!(first.keyspaces.keys().collect::<Vec<_>>(), ["ks"]);
    let sharded = vschema::Keyspace { sharded: true, ..Default::default() };
    topo.save_vschema("ks", &sharded).await.expect("written");
    let rules = vschema::RoutingRules {
        rules: vec![vschema::RoutingRule { from_table: "t".into(), to_tables: vec!["ks.t".into()] }],
    };
    topo.save_routing_rules(&rules).await.expect("written");
    topo.rebuild_srv_vschema(&[]).await.expect("written");
    let second = soon("the change", watch.next()).await.expect("an item").expect("a value");
    assert_eq!(second.keyspaces["ks"], sharded);
    assert_eq!(second.routing_rules, Some(rules));
    assert_eq!(topo.get_srv_vschema("zone2").await, Ok(second));
    topo.save_routing_rules(&vschema::RoutingRules::default()).await.expect("deleted");
    let global = topo.conn_for_cell("global").await.expect("there");
    assert!(global.get("RoutingRules").await.expect_err("no rules, no key").is_no_node());
    topo.delete_srv_vschema("zone1").await.expect("there");
    assert!(soon("the deletion", watch.next()).await.expect("an item").expect_err("gone").is_no_node());
    assert!(soon("the end", watch.next()).await.is_none());

    topo.upsert_metadata("a", "1").await.expect("written");
    topo.upsert_metadata("b", "2").await.expect("written");
    let found = topo.get_metadata(|key| key != "b").await.expect("read");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "1".to_owned())]);
    topo.delete_metadata("a").await.expect("there");
    topo.delete_metadata("a").await.expect("no error");
}

/// Writers of several records and fields at once, each adding what nobody else adds.
async fn no_update_is_lost(topo: &TopoServer) {
    const WRITERS: u32 = 6;
    const ROUNDS: u32 = 8;
    for shard in ["-80", "80-"] {
        topo.get_or_create_shard("ks", shard).await.expect("new");
    }
    let alias = TabletAlias { cell: "zone1".into(), uid: 1 };
    topo.create_tablet(&tablet("zone1", 1, "-80", TabletType::Replica)).await.expect("new");
    let lock = Arc::new(topo.lock_keyspace("ks", "Test").await.expect("free"));
    let writers = (0..WRITERS).map(|writer| {
        let (topo, lock, alias) = (topo.clone(), lock.clone(), alias.clone());
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let uid = writer * ROUNDS + round;
                let shard = if round % 2 == 0 { "-80" } else { "80-" };
                topo.update_shard_fields("ks", shard, |info| {
                    info.add_source_shard(&lock, shard::SourceShard { uid, ..Default::default() })?;
                    Ok(Update::Write)
                })
                .await?;
                topo.update_tablet_fields(&alias, |record| {
                    record.tags.insert(format!("tag{uid}"), String::new());
                    Ok(Update::Write)
                })
                .await?;
                let node = TabletAlias { cell: "zone2".into(), uid };
                topo.add_shard_replication_node("ks", shard, &node).await?;
            }
            Ok::<_, TopoError>(())
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.expect("no panic").expect("all written");
    }
    let mut uids = BTreeSet::new();
    let mut nodes = 0;
    for shard in ["-80", "80-"] {
        let Shard { source_shards, .. } = topo.get_shard("ks", shard).await.expect("there").record;
        uids.extend(source_shards.into_iter().map(|source| source.uid));
        nodes += topo.get_shard_replication("zone2", "ks", shard).await.expect("there").nodes.len();
    }
    assert_eq!(uids, (0..WRITERS * ROUNDS).collect::<BTreeSet<_>>());
    assert_eq!(nodes, (WRITERS * ROUNDS) as usize);
    let tags = topo.get_tablet(&alias).await.expect("there").record.tags;
    assert_eq!(tags.len(), (WRITERS * ROUNDS) as usize);
}
