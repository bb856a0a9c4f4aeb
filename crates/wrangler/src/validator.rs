//! Checks that the records of the topology agree with each other and with what tablets say.
//!
//! Every problem is an ERROR event; the command then fails with one text that points to them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use topo::{TabletInfo, TabletMap, topoproto};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::TabletType;

use crate::Wrangler;
use crate::error::{Result, bail};
use crate::logger::error;
use crate::wrangler::within;

/// How many tablets are asked at once.
const CONCURRENCY: usize = 32;

/// Reports problems, each once: a tablet is met in its shard and again in its cell.
struct Problems<'a> {
    wr: &'a Wrangler,
    reported: BTreeSet<String>,
}

impl<'a> Problems<'a> {
    fn new(wr: &'a Wrangler) -> Self {
        Self { wr, reported: BTreeSet::new() }
    }

    async fn add(&mut self, text: String) {
        if !self.reported.contains(&text) {
            error!(self.wr, "{text}");
            self.reported.insert(text);
        }
    }

    fn outcome(self) -> Result {
        if !self.reported.is_empty() {
            bail!("some validation errors - see log");
        }
        Ok(())
    }
}

/// The whole topology: every keyspace, and every tablet of every cell.
pub(crate) async fn validate(wr: &Wrangler, ping: bool) -> Result {
    let mut problems = Problems::new(wr);
    match wr.topo().get_keyspaces().await {
        Ok(keyspaces) => {
            for keyspace in keyspaces {
                check_keyspace(wr, &keyspace, ping, &mut problems).await;
            }
        }
        Err(error) => problems.add(format!("TopologyServer.GetKeyspaces failed: {error}")).await,
    }
    match wr.topo().get_cell_info_names().await {
        Ok(cells) => {
            for cell in cells {
                check_cell(wr, &cell, &mut problems).await;
            }
        }
        Err(error) => problems.add(format!("TopologyServer.GetCellInfoNames failed: {error}")).await,
    }
    problems.outcome()
}

pub(crate) async fn validate_keyspace(wr: &Wrangler, keyspace: &str, ping: bool) -> Result {
    let mut problems = Problems::new(wr);
    check_keyspace(wr, keyspace, ping, &mut problems).await;
    problems.outcome()
}

pub(crate) async fn validate_shard(wr: &Wrangler, keyspace: &str, shard: &str, ping: bool) -> Result {
    let mut problems = Problems::new(wr);
    check_shard(wr, keyspace, shard, ping, &mut problems).await;
    problems.outcome()
}

/// Every tablet of a cell has to have a record that names it, and a keyspace and shard that exist
/// are checked with those.
async fn check_cell(wr: &Wrangler, cell: &str, problems: &mut Problems<'_>) {
    let aliases = match wr.topo().get_tablets_by_cell(cell).await {
        Ok(aliases) => aliases,
        Err(error) if error.is_no_node() => return,
        Err(error) => {
            return problems.add(format!("TopologyServer.GetTabletsByCell({cell}) failed: {error}")).await;
        }
    };
    for alias in aliases {
        let text = topoproto::tablet_alias_string(Some(&alias));
        match wr.topo().get_tablet(&alias).await {
            Ok(tablet) => check_tablet(wr, &tablet, problems).await,
            Err(error) if error.is_no_node() => {}
            Err(error) => problems.add(format!("TopologyServer.Validate({text}) failed: {error}")).await,
        }
    }
}

/// A tablet of a shard has to be in the shard's list of its cell.
async fn check_tablet(wr: &Wrangler, tablet: &TabletInfo, problems: &mut Problems<'_>) {
    let record = &tablet.record;
    let text = tablet.alias_string();
    if record.keyspace.is_empty() || record.shard.is_empty() {
        return;
    }
    let found = wr.topo().get_shard_replication(&tablet.alias().cell, &record.keyspace, &record.shard).await;
    match found {
        Ok(list) if list.nodes.iter().any(|node| node.tablet_alias == record.alias) => {}
        Ok(_) => {
            problems
                .add(format!(
                    "TopologyServer.Validate({text}) failed: tablet not found in the ShardReplication of {}/{}",
                    record.keyspace, record.shard
                ))
                .await;
        }
        Err(error) => problems.add(format!("TopologyServer.Validate({text}) failed: {error}")).await,
    }
}

async fn check_keyspace(wr: &Wrangler, keyspace: &str, ping: bool, problems: &mut Problems<'_>) {
    match wr.topo().get_shard_names(keyspace).await {
        Ok(shards) => {
            for shard in shards {
                check_shard(wr, keyspace, &shard, ping, problems).await;
            }
        }
        Err(error) => problems.add(format!("TopologyServer.GetShardNames({keyspace}) failed: {error}")).await,
    }
}

async fn check_shard(wr: &Wrangler, keyspace: &str, shard: &str, ping: bool, problems: &mut Problems<'_>) {
    let info = match wr.topo().get_shard(keyspace, shard).await {
        Ok(info) => info,
        Err(error) => {
            return problems.add(format!("TopologyServer.GetShard({keyspace}, {shard}) failed: {error}")).await;
        }
    };
    let tablets = match wr.topo().get_tablet_map_for_shard(keyspace, shard).await {
        Ok(tablets) => tablets,
        Err(error) => {
            return problems
                .add(format!("TopologyServer.GetTabletMapForShard({keyspace}, {shard}) failed: {error}"))
                .await;
        }
    };
    if let Some(error) = &tablets.error {
        problems.add(format!("TopologyServer.GetTabletMapForShard({keyspace}, {shard}) failed: {error}")).await;
    }
    let tablets = tablets.value;
    for tablet in tablets.values() {
        check_tablet(wr, tablet, problems).await;
    }

    let masters: Vec<&TabletInfo> = tablets.values().filter(|t| t.record.r#type() == TabletType::Master).collect();
    for other in masters.iter().skip(1) {
        problems
            .add(format!(
                "shard {keyspace}/{shard} already has master {} but found other master {}",
                masters[0].alias_string(),
                other.alias_string()
            ))
            .await;
    }
    match masters.first() {
        None => problems.add(format!("no master for shard {keyspace}/{shard}")).await,
        Some(master) if info.master_alias() != Some(&master.alias()) => {
            problems
                .add(format!(
                    "master mismatch for shard {keyspace}/{shard}: found {}, expected {}",
                    master.alias_string(),
                    topoproto::tablet_alias_string(info.master_alias())
                ))
                .await;
        }
        Some(_) => {}
    }
    if ping {
        if let Some(master) = masters.first() {
            check_replicas(wr, keyspace, shard, master, &tablets, problems).await;
        }
        ping_tablets(wr, &tablets, problems).await;
    }
}

/// The master's own list of replicas has to be that of the records.
async fn check_replicas(
    wr: &Wrangler,
    keyspace: &str,
    shard: &str,
    master: &TabletInfo,
    tablets: &TabletMap,
    problems: &mut Problems<'_>,
) {
    let limit = wr.config().remote_operation_timeout;
    let master_text = master.alias_string();
    let listed = match within(limit, wr.tmc().get_slaves(&master.record, tmd::GetSlavesRequest {})).await {
        Ok(answer) => answer.addrs,
        Err(error) => return problems.add(format!("GetSlaves({master_text}) failed: {error}")).await,
    };
    let replicas: Vec<&TabletInfo> =
        tablets.values().filter(|tablet| topoproto::is_slave_type(tablet.record.r#type())).collect();
    if listed.is_empty() {
        if !replicas.is_empty() {
            problems.add(format!("no slaves of tablet {master_text} found")).await;
        }
        return;
    }
    let listed_ips: BTreeSet<String> = listed.iter().map(|address| normalize(address)).collect();
    let mut known_ips = BTreeSet::new();
    for tablet in tablets.values() {
        match mysql_ips(tablet).await {
            Ok(ips) => {
                let replicates = ips.iter().any(|ip| listed_ips.contains(ip));
                if topoproto::is_slave_type(tablet.record.r#type()) && !replicates {
                    problems
                        .add(format!(
                            "slave {} not replicating: {} slave list: {listed:?}",
                            tablet.alias_string(),
                            ips.iter().next().map_or("", String::as_str)
                        ))
                        .await;
                }
                known_ips.extend(ips);
            }
            Err(error) => {
                let text = tablet.alias_string();
                problems.add(format!("could not resolve IP for tablet {text}: {error}")).await;
            }
        }
    }
    for address in listed.iter().filter(|address| !known_ips.contains(&normalize(address))) {
        problems
            .add(format!(
                "slave {address} not in replication graph for shard {keyspace}/{shard} (mysql instance without vttablet?)"
            ))
            .await;
    }
}

/// The addresses of a tablet's mysqld, in comparable form.
async fn mysql_ips(tablet: &TabletInfo) -> std::io::Result<BTreeSet<String>> {
    let host = topoproto::mysql_hostname(&tablet.record);
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| normalize(&address.ip().to_string())).collect())
}

/// All loopback addresses are the same machine.
fn normalize(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => "127.0.0.1".to_owned(),
        Ok(ip) => ip.to_string(),
        Err(_) if address == "localhost" => "127.0.0.1".to_owned(),
        Err(_) => address.to_owned(),
    }
}

async fn ping_tablets(wr: &Wrangler, tablets: &TabletMap, problems: &mut Problems<'_>) {
    let mut answers = stream::iter(tablets.values())
        .map(|tablet| async move {
            let call = wr.tmc().ping(&tablet.record, tmd::PingRequest { payload: "payload".into() });
            (tablet, within(Duration::from_secs(30).min(wr.config().remote_operation_timeout), call).await)
        })
        .buffered(CONCURRENCY)
        .boxed();
    while let Some((tablet, answer)) = answers.next().await {
        if let Err(error) = answer {
            let text = tablet.alias_string();
            problems.add(format!("Ping({text}) failed: {error} tablet hostname: {}", tablet.record.hostname)).await;
        }
    }
}
