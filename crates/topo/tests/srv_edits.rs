//! Whatever is split into whatever, and however often a type goes there and back: every keyspace id is
//! served by exactly one shard, and only the type that was moved has changed.

use std::collections::BTreeSet;

use proptest::prelude::*;
use topo::{ShardInfo, TopoServer, check_partitions, partition};
use vtproto::topodata::{Keyspace, SrvKeyspace, TabletType};

const TYPES: [TabletType; 3] = [TabletType::Master, TabletType::Replica, TabletType::Rdonly];

/// Shard names of the ranges between bounds: `-40`, `40-c0`, `c0-`.
fn names(bounds: &BTreeSet<u8>) -> Vec<String> {
    let mut ends: Vec<String> = vec![String::new()];
    ends.extend(bounds.iter().map(|bound| format!("{bound:02x}")));
    ends.push(String::new());
    ends.windows(2).map(|pair| format!("{}-{}", pair[0], pair[1])).collect()
}

fn served(srv_keyspace: &SrvKeyspace, tablet_type: TabletType) -> Vec<String> {
    let partition = partition(srv_keyspace, tablet_type).expect("every type is served");
    partition.shard_references.iter().map(|reference| reference.name.clone()).collect()
}

async fn shards(topo: &TopoServer, names: &[String]) -> Vec<ShardInfo> {
    let mut found = Vec::new();
    for name in names {
        match topo.create_shard("ks", name).await {
            Ok(()) => {}
            Err(error) => assert!(error.is_node_exists(), "{error}"),
        }
        found.push(topo.get_shard("ks", name).await.expect("it was made"));
    }
    found
}

async fn check(from: BTreeSet<u8>, to: BTreeSet<u8>, moves: Vec<(usize, bool)>) {
    let topo = TopoServer::memory(&["one", "two"]);
    topo.create_keyspace("ks", &Keyspace::default()).await.expect("new");
    let (from, to) = (names(&from), names(&to));
    let sources = shards(&topo, &from).await;
    topo.rebuild_keyspace("ks", &[]).await.expect("they tile");
    let targets = shards(&topo, &to).await;
    // Shards on both sides are not part of a split.
    let moved: Vec<ShardInfo> = sources.iter().filter(|shard| !to.contains(&shard.shard_name)).cloned().collect();
    let moving: Vec<ShardInfo> = targets.iter().filter(|shard| !from.contains(&shard.shard_name)).cloned().collect();
    let mut there = [false; 3];
    let lock = topo.lock_keyspace("ks", "Test").await.expect("free");
    for (index, back) in moves {
        let (add, remove) = if back { (&moved, &moving) } else { (&moving, &moved) };
        topo.update_disable_query_service(&lock, remove, TYPES[index], &[], true).await.expect("allowed");
        topo.update_disable_query_service(&lock, add, TYPES[index], &[], false).await.expect("allowed");
        topo.migrate_served_type(&lock, add, remove, TYPES[index], &[]).await.expect("they tile the same span");
        there[index] = !back;
        for cell in ["one", "two"] {
            let srv_keyspace = topo.get_srv_keyspace(cell, "ks").await.expect("there");
            check_partitions(cell, &srv_keyspace).expect("every id once");
            for (index, there) in there.iter().enumerate() {
                assert_eq!(&served(&srv_keyspace, TYPES[index]), if *there { &to } else { &from });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_id_is_served_once_through_any_split(
        from in proptest::collection::btree_set(1_u8..=255, 0..6),
        to in proptest::collection::btree_set(1_u8..=255, 0..6),
        moves in proptest::collection::vec((0_usize..3, any::<bool>()), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(check(from, to, moves));
    }
}
