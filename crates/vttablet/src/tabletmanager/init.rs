//! The tablet's record: made at start, filled with addresses when serving begins, emptied at a clean stop.

use std::time::Duration;

use futures::StreamExt;
use tabletclient::grpc::DialOptions;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use topo::{ShardInfo, TopoError, TopoServer, Update, topoproto};
use vterrors::{Code, Result, VtError};
use vtproto::topodata::{Tablet, TabletAlias, TabletType};

use super::manager::{InitTarget, ManagerConfig, TabletManager, now, term};

const RETRY: Duration = Duration::from_secs(1);

/// How long whoever stands in the record may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Two processes of one alias would take the record, and mysqld, from each other.
///
/// # Errors
/// FAILED_PRECONDITION: a vttablet of this alias answers at the address in the record.
pub async fn refuse_second(alias: &TabletAlias, topo: &TopoServer, dial: &DialOptions) -> Result<()> {
    // A topology that cannot be read is waited for later.
    let Ok(Ok(info)) = timeout(ANSWER_LIMIT, topo.get_tablet(alias)).await else { return Ok(()) };
    let first = async {
        let service = tabletclient::grpc::dial(&info.record, dial).ok()?;
        service.stream_health().await.ok()?.next().await?.ok()?.tablet_alias
    };
    match timeout(ANSWER_LIMIT, first).await {
        Ok(Some(answered)) if answered == *alias => Err(VtError::new(
            Code::FailedPrecondition,
            format!(
                "another vttablet of {} serves at {}:{}: stop it first",
                info.alias_string(),
                info.record.hostname,
                info.record.port_map.get("grpc").copied().unwrap_or_default()
            ),
        )),
        _ => Ok(()),
    }
}

/// Registers the tablet in topo: its keyspace and shard if need be, its place in the cell's serving graph, and its
/// record, still without addresses. Tries for `-init_timeout`.
pub async fn register(config: &ManagerConfig, topo: &TopoServer) -> Result<Tablet> {
    Registration { config, topo }.run().await
}

struct Registration<'a> {
    config: &'a ManagerConfig,
    topo: &'a TopoServer,
}

impl Registration<'_> {
    async fn run(&self) -> Result<Tablet> {
        let Some(target) = &self.config.init else {
            return match self.topo.get_tablet(&self.config.alias).await {
                Ok(info) => Ok(info.record),
                Err(error) => Err(VtError::from(error).wrap(format!(
                    "the record of {} is not there and -init_keyspace was not given",
                    topoproto::tablet_alias_string(Some(&self.config.alias))
                ))),
            };
        };
        let deadline = Instant::now() + self.config.init_timeout;
        loop {
            let error = match timeout_at(deadline, self.try_init(target)).await {
                Ok(Ok(tablet)) => return Ok(tablet),
                // What retrying does not change.
                Ok(Err(error)) if matches!(error.code(), Code::InvalidArgument | Code::FailedPrecondition) => {
                    return Err(error);
                }
                Ok(Err(error)) => error,
                Err(_) => VtError::new(Code::DeadlineExceeded, "the topology server does not answer"),
            };
            if Instant::now() + RETRY >= deadline {
                return Err(error.wrap("InitTablet failed"));
            }
            tracing::warn!("registering the tablet, will be tried again: {error}");
            sleep(RETRY).await;
        }
    }

    async fn try_init(&self, target: &InitTarget) -> Result<Tablet> {
        let alias = &self.config.alias;
        let (shard_name, key_range) = topo::validate_shard_name(&target.shard)?;
        let old = match self.topo.get_tablet(alias).await {
            Ok(info) => Some(info.record),
            Err(TopoError::NoNode { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(old) = &old
            && (old.keyspace != target.keyspace || old.shard != shard_name)
        {
            return Err(VtError::new(
                Code::FailedPrecondition,
                format!(
                    "InitTablet failed because existing tablet keyspace and shard {}/{} differ from the provided ones {}/{shard_name}",
                    old.keyspace, old.shard, target.keyspace
                ),
            ));
        }
        let shard = self.topo.get_or_create_shard(&target.keyspace, &shard_name).await?;
        if !topoproto::key_range_equal(shard.record.key_range.as_ref(), key_range.as_ref()) {
            return Err(VtError::new(
                Code::InvalidArgument,
                format!("the key range of shard {}/{shard_name} is not that of its name", target.keyspace),
            ));
        }
        self.ensure_serving_graph(&target.keyspace).await?;
        let (tablet_type, master_term_start_time) = initial_type(target.tablet_type, alias, &shard, old.as_ref());
        let mut tags = self.config.init_tags.clone();
        if let Some(old) = old {
            tags.extend(old.tags.into_iter().filter(|(name, _)| topoproto::WORKER_TAGS.contains(&name.as_str())));
        }
        let tablet = Tablet {
            alias: Some(alias.clone()),
            keyspace: target.keyspace.clone(),
            shard: shard_name,
            key_range,
            r#type: tablet_type.into(),
            master_term_start_time,
            db_name_override: self.database_override(&target.keyspace).await?,
            tags,
            ..Default::default()
        };
        match self.topo.create_tablet(&tablet).await {
            Ok(()) => {}
            Err(TopoError::NodeExists { .. }) => {
                self.topo.update_tablet_replication_data(&tablet).await?;
                self.topo.overwrite_tablet(&tablet).await?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(tablet)
    }

    /// The first tablet of a keyspace in a cell puts the keyspace into the cell's serving graph. That fails as long as
    /// shards are missing, whose tablets then try again.
    async fn ensure_serving_graph(&self, keyspace: &str) -> Result<()> {
        let cell = &self.config.alias.cell;
        match self.topo.get_srv_keyspace(cell, keyspace).await {
            Ok(_) => Ok(()),
            Err(TopoError::NoNode { .. }) => {
                tracing::info!("cell {cell} does not serve {keyspace} yet: adding it to its serving graph");
                if let Err(error) = self.topo.rebuild_keyspace(keyspace, std::slice::from_ref(cell)).await {
                    tracing::warn!(
                        "RebuildKeyspace({cell},{keyspace}) failed: {error}, may need to run 'vtctl RebuildKeyspaceGraph {keyspace}'"
                    );
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A snapshot keyspace holds the database of the keyspace that it was taken from.
    async fn database_override(&self, keyspace: &str) -> Result<String> {
        if !self.config.init_db_name_override.is_empty() {
            return Ok(self.config.init_db_name_override.clone());
        }
        let base = self.topo.get_keyspace(keyspace).await?.record.base_keyspace;
        Ok(if base.is_empty() { String::new() } else { format!("vt_{base}") })
    }
}

impl TabletManager {
    /// Writes hostname and ports into the record.
    pub(super) async fn publish_addresses(&self) -> Result<()> {
        let Some(addresses) = self.state().addresses.clone() else { return Ok(()) };
        // mysqld may be down just now; the health check writes the port when it learns it.
        let mysql_port = match self.mysqld.port().await {
            Ok(port) => Some(port),
            Err(error) => {
                tracing::warn!("the port of mysqld is not known yet: {error}");
                None
            }
        };
        let written = self
            .topo
            .update_tablet_fields(&self.config.alias, |tablet| {
                tablet.hostname.clone_from(&addresses.hostname);
                tablet.port_map.insert("vt".to_owned(), addresses.http_port);
                if addresses.grpc_port != 0 {
                    tablet.port_map.insert("grpc".to_owned(), addresses.grpc_port);
                }
                set_mysql(tablet, &addresses.mysql_hostname, mysql_port);
                Ok(Update::Write)
            })
            .await?;
        if let Some(tablet) = written {
            self.state().tablet = tablet;
        }
        Ok(())
    }

    /// Corrects the port of mysqld in the record, if it is another now.
    pub(super) async fn check_mysql_port(&self) -> Result<()> {
        let Some(addresses) = self.state().addresses.clone() else { return Ok(()) };
        let port = self.mysqld.port().await?;
        if topoproto::mysql_port(&self.state().tablet) == port {
            return Ok(());
        }
        tracing::info!("mysqld listens on port {port} now, correcting the tablet record");
        let written = self
            .topo
            .update_tablet_fields(&self.config.alias, |tablet| {
                set_mysql(tablet, &addresses.mysql_hostname, Some(port));
                Ok(Update::Write)
            })
            .await?;
        if let Some(tablet) = written {
            self.state().tablet = tablet;
        }
        Ok(())
    }

    /// Takes the addresses out of the record, if they are still ours: a tablet that took our place keeps its own.
    pub(super) async fn clear_addresses(&self) -> Result<()> {
        let Some(addresses) = self.state().addresses.clone() else { return Ok(()) };
        let cleared = self
            .topo
            .update_tablet_fields(&self.config.alias, |tablet| {
                let ours = tablet.hostname == addresses.hostname
                    && tablet.port_map.get("vt").copied() == Some(addresses.http_port);
                if !ours {
                    return Ok(Update::NoUpdateNeeded);
                }
                tablet.hostname.clear();
                tablet.mysql_hostname.clear();
                tablet.port_map.clear();
                Ok(Update::Write)
            })
            .await;
        match cleared {
            Ok(_) | Err(TopoError::NoNode { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn set_mysql(tablet: &mut Tablet, hostname: &str, port: Option<i32>) {
    hostname.clone_into(&mut tablet.mysql_hostname);
    if let Some(port) = port {
        tablet.mysql_port = port;
        tablet.port_map.insert("mysql".to_owned(), port);
    }
}

/// The type a tablet starts as: what its flags say, unless it is the master of its shard.
fn initial_type(
    wanted: TabletType,
    alias: &vtproto::topodata::TabletAlias,
    shard: &ShardInfo,
    old: Option<&Tablet>,
) -> (TabletType, Option<vtproto::vttime::Time>) {
    let old_master = old.filter(|old| old.r#type() == TabletType::Master);
    if shard.master_alias() == Some(alias) {
        match (old, old_master) {
            // The record was deleted by hand: the shard's word counts. A new term, since the old one is not known.
            (None, _) => return (TabletType::Master, Some(shard.record.master_term_start_time.unwrap_or_else(now))),
            (Some(_), Some(old)) => return (TabletType::Master, old.master_term_start_time),
            (Some(_), None) => {}
        }
    } else if let Some(old) = old_master
        && term(old.master_term_start_time.as_ref()) > term(shard.record.master_term_start_time.as_ref())
    {
        // It became master and died before the shard record said so.
        return (TabletType::Master, old.master_term_start_time);
    }
    (wanted, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtproto::{
        topodata::{Shard, TabletAlias},
        vttime::Time,
    };

    fn at(seconds: i64) -> Option<Time> {
        Some(Time { seconds, nanoseconds: 0 })
    }

    fn record(tablet_type: TabletType, seconds: i64) -> Tablet {
        Tablet { r#type: tablet_type.into(), master_term_start_time: at(seconds), ..Default::default() }
    }

    #[test]
    fn a_tablet_comes_back_as_what_it_was() {
        let us = TabletAlias { cell: "zone1".into(), uid: 100 };
        let other = TabletAlias { cell: "zone1".into(), uid: 101 };
        let shard = |master: &TabletAlias, seconds| {
            let record =
                Shard { master_alias: Some(master.clone()), master_term_start_time: at(seconds), ..Default::default() };
            ShardInfo::new("commerce", "0", record)
        };
        let initial = |shard: &ShardInfo, old: Option<&Tablet>| initial_type(TabletType::Replica, &us, shard, old);

        assert_eq!(initial(&shard(&us, 5), Some(&record(TabletType::Master, 5))), (TabletType::Master, at(5)));
        assert_eq!(initial(&shard(&us, 5), None), (TabletType::Master, at(5)));
        assert_eq!(initial(&shard(&us, 5), Some(&record(TabletType::Replica, 0))).0, TabletType::Replica);
        assert_eq!(initial(&shard(&other, 5), Some(&record(TabletType::Master, 4))), (TabletType::Replica, None));
        assert_eq!(initial(&shard(&other, 5), Some(&record(TabletType::Master, 6))), (TabletType::Master, at(6)));
    }
}
