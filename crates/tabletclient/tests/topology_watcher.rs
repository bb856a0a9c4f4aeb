//! Tablets come and go with their records.

mod support;

use std::time::Duration;

use support::{FakeTablet, tablet, target, until};
use tabletclient::{HealthCheck, HealthCheckOptions, QueryService, TabletFilter, TopologyWatcher, WatcherOptions};
use topo::TopoServer;
use vtproto::topodata::TabletType;

fn watch(topo: &TopoServer, filter: TabletFilter) -> (HealthCheck, TopologyWatcher) {
    let fake = FakeTablet::new("any");
    let health = HealthCheck::new(HealthCheckOptions::default(), move |_| {
        let fake: std::sync::Arc<dyn QueryService> = fake.clone();
        Ok(fake)
    });
    let options = WatcherOptions { refresh_interval: Duration::from_millis(5), filter, ..Default::default() };
    let watcher = TopologyWatcher::start(topo.clone(), "zone1", options, health.clone());
    (health, watcher)
}

fn aliases(health: &HealthCheck) -> Vec<String> {
    health.tablets().iter().map(|health| health.alias()).collect()
}

#[tokio::test]
async fn tablets_follow_their_records() {
    let topo = TopoServer::memory(&["zone1"]);
    let (health, watcher) = watch(&topo, TabletFilter::All);
    let first = tablet("zone1", 100, TabletType::Master);
    topo.create_tablet(&first).await.expect("create");
    topo.create_tablet(&tablet("zone1", 101, TabletType::Replica)).await.expect("create");
    until("both are watched", || aliases(&health) == ["zone1-0000000100", "zone1-0000000101"]).await;

    let alias = first.alias.clone().expect("alias");
    let moved = |tablet: &mut vtproto::topodata::Tablet| {
        tablet.hostname = "elsewhere".into();
        Ok(topo::Update::Write)
    };
    topo.update_tablet_fields(&alias, moved).await.expect("update");
    until("the new address is used", || health.tablets()[0].tablet.hostname == "elsewhere").await;

    topo.delete_tablet(&alias).await.expect("delete");
    until("the deleted one is gone", || aliases(&health) == ["zone1-0000000101"]).await;
    assert!(watcher.counters().operations["RemoveTablet"] >= 1);
    assert!(watcher.counters().last_refresh.contains_key("zone1"));
}

#[tokio::test]
async fn filters_keep_tablets_out() {
    let topo = TopoServer::memory(&["zone1"]);
    let mut other = tablet("zone1", 102, TabletType::Replica);
    other.keyspace = "other".into();
    let mut half = tablet("zone1", 103, TabletType::Replica);
    half.shard = "40-80".into();
    for tablet in [&tablet("zone1", 100, TabletType::Master), &other, &half] {
        topo.create_tablet(tablet).await.expect("create");
    }
    let keyspaces = TabletFilter::Keyspaces(["other".to_string()].into());
    let (health, watcher) = watch(&topo, keyspaces);
    watcher.refresh().await;
    assert_eq!(aliases(&health), ["zone1-0000000102"]);
    let (health, watcher) = watch(&topo, TabletFilter::parse(&["ks|-80".into()]).expect("filter"));
    watcher.refresh().await;
    assert_eq!(aliases(&health), ["zone1-0000000103"]);
    assert!(TabletFilter::parse(&["ks".into()]).is_err());
}

async fn look_for(health: &HealthCheck, target: &vtproto::query::Target) -> bool {
    let is_there = || {
        let snapshot = health.snapshot();
        let group = snapshot.group(&target.keyspace, &target.shard, target.tablet_type());
        group.is_some_and(|group| !group.healthy.is_empty())
    };
    health.look_for(target, is_there).await
}

/// Statements for a shard of which nobody has heard wait for one look at the topology, all of them.
#[tokio::test]
async fn whoever_asks_for_unknown_tablets_shares_one_look() {
    let topo = TopoServer::memory(&["zone1"]);
    let fake = FakeTablet::new("100");
    fake.says(TabletType::Master, true, 1, 0);
    let health = HealthCheck::new(HealthCheckOptions::default(), move |tablet| {
        let known = tablet.alias.as_ref().is_some_and(|alias| alias.uid == 100);
        let service: std::sync::Arc<dyn QueryService> = if known { fake.clone() } else { FakeTablet::new("101") };
        Ok(service)
    });
    let options = WatcherOptions { refresh_interval: Duration::from_secs(3600), ..Default::default() };
    topo.create_tablet(&tablet("zone1", 101, TabletType::Replica)).await.expect("create");
    let _watcher = TopologyWatcher::start(topo.clone(), "zone1", options, health.clone());
    until("the first reading is done", || aliases(&health) == ["zone1-0000000101"]).await;
    topo.create_tablet(&tablet("zone1", 100, TabletType::Master)).await.expect("create");
    let wanted = target(TabletType::Master);
    let (first, second) = tokio::join!(look_for(&health, &wanted), look_for(&health, &wanted));
    assert!(first && second, "{first} {second}");
}

/// A tablet that takes its time to answer is waited for; a shard that nobody has is not.
#[tokio::test(start_paused = true)]
async fn a_look_ends_when_nothing_more_can_come_of_it() {
    let topo = TopoServer::memory(&["zone1"]);
    let fake = FakeTablet::new("100");
    let health = HealthCheck::new(HealthCheckOptions::default(), {
        let fake = fake.clone();
        move |_| Ok(fake.clone() as std::sync::Arc<dyn QueryService>)
    });
    let options = WatcherOptions { refresh_interval: Duration::from_secs(3600), ..Default::default() };
    let watcher = TopologyWatcher::start(topo.clone(), "zone1", options, health.clone());
    // What is wanted while a reading is under way is read after it.
    tokio::join!(watcher.refresh(), tokio::task::yield_now());
    topo.create_tablet(&tablet("zone1", 100, TabletType::Master)).await.expect("create");
    let begun = tokio::time::Instant::now();
    let speaks = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        fake.says(TabletType::Master, true, 1, 0);
    };
    let wanted = target(TabletType::Master);
    assert!(tokio::join!(look_for(&health, &wanted), speaks).0);
    assert!(begun.elapsed() < Duration::from_millis(2100), "{:?}", begun.elapsed());
    let nowhere = vtproto::query::Target { shard: "nope".into(), ..wanted };
    assert!(!look_for(&health, &nowhere).await);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let begun = tokio::time::Instant::now();
    assert!(!look_for(&health, &nowhere).await);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

/// A tablet that is given up is not waited for as long as one that may still speak.
#[tokio::test(start_paused = true)]
async fn a_look_does_not_wait_long_for_what_is_silent() {
    let topo = TopoServer::memory(&["zone1"]);
    let silent = FakeTablet::new("100");
    let options = HealthCheckOptions { timeout: Duration::from_millis(300), ..Default::default() };
    let health = HealthCheck::new(options, move |_| Ok(silent.clone() as std::sync::Arc<dyn QueryService>));
    let options = WatcherOptions { refresh_interval: Duration::from_secs(3600), ..Default::default() };
    topo.create_tablet(&tablet("zone1", 100, TabletType::Master)).await.expect("create");
    let _watcher = TopologyWatcher::start(topo.clone(), "zone1", options, health.clone());
    let begun = tokio::time::Instant::now();
    assert!(!look_for(&health, &target(TabletType::Master)).await);
    assert!(begun.elapsed() < Duration::from_millis(1100), "{:?}", begun.elapsed());
}
