//! The cached serving graph, on a topology which can be taken away.

mod common;

use std::{sync::Arc, time::Duration};

use common::{eventually, soon};
use topo::{
    TopoError,
    memory::MemoryStore,
    srv_cache::{SrvCacheOptions, SrvTopoCache},
};
use vtproto::{topodata::SrvKeyspace, vschema};

fn cache(store: &MemoryStore) -> Arc<SrvTopoCache> {
    let quick = Duration::from_millis(20);
    SrvTopoCache::new(store.server(&["zone1"]), SrvCacheOptions { ttl: quick, refresh: quick })
}

fn srv(column: &str) -> SrvKeyspace {
    SrvKeyspace { sharding_column_name: column.into(), ..Default::default() }
}

#[tokio::test]
async fn what_is_known_is_served_without_the_topology() {
    let store = MemoryStore::new();
    let (topo, cache) = (store.server(&["zone1"]), cache(&store));
    topo.update_srv_keyspace("zone1", "ks", &srv("one")).await.expect("written");
    assert!(cache.known_srv_keyspace("zone1", "ks").is_none(), "nobody asked yet");
    assert_eq!(*cache.get_srv_keyspace("zone1", "ks").await.expect("read"), srv("one"));
    assert_eq!(*cache.known_srv_keyspace("zone1", "ks").expect("known"), srv("one"));
    assert_eq!(*cache.get_srv_keyspace_names("zone1").await.expect("read"), ["ks"]);

    topo.update_srv_keyspace("zone1", "ks", &srv("two")).await.expect("written");
    eventually("the change arrives by itself", || async {
        cache.known_srv_keyspace("zone1", "ks").is_some_and(|value| *value == srv("two"))
    })
    .await;

    store.set_unavailable(true);
    for _ in 0..5 {
        // Longer than the ttl all in all.
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(*cache.get_srv_keyspace("zone1", "ks").await.expect("known"), srv("two"));
        assert_eq!(*cache.get_srv_keyspace_names("zone1").await.expect("known"), ["ks"]);
    }
    assert!(matches!(cache.get_srv_keyspace("zone1", "other").await, Err(TopoError::Timeout { .. })));

    store.set_unavailable(false);
    topo.update_srv_keyspace("zone1", "other", &srv("three")).await.expect("written");
    eventually("what could not be read is read later", || async {
        cache.get_srv_keyspace("zone1", "other").await.is_ok()
    })
    .await;
    eventually("new names appear", || async {
        *cache.get_srv_keyspace_names("zone1").await.expect("read") == ["ks", "other"]
    })
    .await;
}

#[tokio::test]
async fn a_deleted_keyspace_is_gone_and_may_come_back() {
    let store = MemoryStore::new();
    let (topo, cache) = (store.server(&["zone1"]), cache(&store));
    let missing = cache.get_srv_keyspace("zone1", "ks").await.expect_err("no such keyspace");
    assert_eq!(missing.to_string(), "node doesn't exist: /vitess/zone1/keyspaces/ks/SrvKeyspace");
    topo.update_srv_keyspace("zone1", "ks", &srv("one")).await.expect("written");
    eventually("it is found", || async { cache.get_srv_keyspace("zone1", "ks").await.is_ok() }).await;
    topo.delete_srv_keyspace("zone1", "ks").await.expect("there");
    eventually("it is gone", || async { cache.known_srv_keyspace("zone1", "ks").is_none() }).await;
    assert!(cache.get_srv_keyspace("zone1", "ks").await.expect_err("gone").is_no_node());
    topo.update_srv_keyspace("zone1", "ks", &srv("two")).await.expect("written");
    eventually("it is found again", || async {
        cache.get_srv_keyspace("zone1", "ks").await.is_ok_and(|value| *value == srv("two"))
    })
    .await;
    let status = cache.snapshot();
    assert_eq!((status.len(), status[0].cell.as_str(), status[0].keyspace.as_str()), (1, "zone1", "ks"));
    assert!(status[0].error.is_none());
}

#[tokio::test]
async fn missing_keyspaces_do_not_pile_up() {
    let store = MemoryStore::new();
    let cache = cache(&store);
    for number in 0..5000 {
        assert!(cache.get_srv_keyspace("zone1", &format!("nope{number}")).await.is_err());
    }
    assert!(cache.snapshot().len() <= 4096, "{}", cache.snapshot().len());
}

#[tokio::test(start_paused = true)]
async fn the_vschema_is_followed_and_outlives_its_source() {
    let store = MemoryStore::new();
    let (topo, cache) = (store.server(&["zone1"]), cache(&store));
    let mut vschema = cache.watch_srv_vschema("zone1");
    assert!(vschema.borrow().is_none(), "nothing is known yet");
    let state = soon("the first attempt", vschema.wait_for(Option::is_some)).await.expect("followed").clone();
    assert!(state.expect("an answer").expect_err("no record").is_no_node());

    let value = vschema::SrvVSchema {
        keyspaces: [("ks".to_owned(), vschema::Keyspace::default())].into(),
        ..Default::default()
    };
    topo.update_srv_vschema("zone1", &value).await.expect("written");
    let known = |state: &topo::srv_cache::SrvVSchemaState| matches!(state, Some(Ok(_)));
    soon("it is found later", vschema.wait_for(known)).await.expect("followed");
    store.set_unavailable(true);
    let mut second = cache.watch_srv_vschema("zone1");
    let state = second.borrow_and_update().clone().expect("known at once").expect("a value");
    assert_eq!(*state.0, value);
    store.set_unavailable(false);
    topo.update_srv_vschema("zone1", &vschema::SrvVSchema::default()).await.expect("written");
    soon("the change", second.changed()).await.expect("followed");
    assert_eq!(*second.borrow().as_ref().expect("known").as_ref().expect("a value").0, vschema::SrvVSchema::default());
}
