//! The choice of a tablet to stream from.
//!
//! Owns: the health of the source shard's tablets in the cells of one stream. A tablet that refuses queries only because
//! its traffic has moved away is still a good source; one that is ill is none. Among the good ones chance decides, so
//! that streams spread.

use std::sync::Arc;

use rand::seq::IndexedRandom;
use tabletclient::{TabletHealth, WatchedShard};
use tokio::time::{Duration, Instant, timeout_at};
use topo::{TopoServer, topoproto};
use vterrors::{Code, Result, VtError};
use vtproto::topodata::TabletType;

use super::EngineConfig;

/// How often the list of tablets is read while no good one is in it.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Picker {
    source: WatchedShard,
    cells: Vec<String>,
    types: Vec<TabletType>,
}

impl Picker {
    /// Begins to watch the tablets of a shard. `cells` and `types` are the row's; empty means those of the config.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for types that are none.
    pub fn start(
        config: &EngineConfig,
        topo: &TopoServer,
        keyspace: &str,
        shard: &str,
        cells: &str,
        types: &str,
    ) -> Result<Self> {
        let types = if types.is_empty() { config.tablet_types.clone() } else { topoproto::parse_tablet_types(types)? };
        let mut cells: Vec<String> =
            cells.split(',').map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
        if cells.is_empty() {
            cells.push(config.cell.clone());
        }
        let source = WatchedShard::start(config.watch(), topo, keyspace, shard, &cells);
        Ok(Self { source, cells, types })
    }

    /// A good tablet, another one than `avoid` if there is one.
    fn choose(&self, avoid: Option<&str>) -> Option<Arc<TabletHealth>> {
        let good = |health: &Arc<TabletHealth>| {
            health.stats.health_error.is_empty() && self.types.contains(&health.target.tablet_type())
        };
        let mut good: Vec<_> = self.source.up().filter(good).collect();
        let preferences: [&dyn Fn(&TabletHealth) -> bool; 2] =
            [&|health| Some(health.alias().as_str()) != avoid, &|health| health.serving];
        for preferred in preferences {
            if good.iter().any(|health| preferred(health)) {
                good.retain(|health| preferred(health));
            }
        }
        good.choose(&mut rand::rng()).cloned()
    }

    /// A good tablet, waiting for one until `deadline`.
    ///
    /// # Errors
    /// UNAVAILABLE with what was looked for and what was there instead.
    pub async fn pick(&self, avoid: Option<&str>, deadline: Instant) -> Result<Arc<TabletHealth>> {
        let found = async {
            loop {
                if let Some(found) = self.choose(avoid) {
                    return found;
                }
                if tokio::time::timeout(SEARCH_INTERVAL, self.source.changed()).await.is_err() {
                    self.source.refresh().await;
                }
            }
        };
        timeout_at(deadline, found).await.map_err(|_| VtError::new(Code::Unavailable, self.nothing()))
    }

    fn nothing(&self) -> String {
        let types: Vec<&str> = self.types.iter().map(|tablet_type| tablet_type.as_str_name()).collect();
        let seen: Vec<String> = self
            .source
            .all()
            .iter()
            .map(|health| {
                let state = match &health.last_error {
                    _ if !health.stats.health_error.is_empty() => health.stats.health_error.clone(),
                    Some(error) if !health.up => error.clone(),
                    _ if !health.up => "no answer yet".to_owned(),
                    _ => "healthy".to_owned(),
                };
                format!("{} {} ({state})", health.alias(), health.target.tablet_type().as_str_name())
            })
            .collect();
        format!(
            "no healthy tablet of type {} for {} in cell {} to stream from; there: {}. \
             The types are those of the column tablet_types, or of -vreplication_tablet_type",
            types.join(" or "),
            self.source.name(),
            self.cells.join(","),
            if seen.is_empty() { "no tablet at all".to_owned() } else { seen.join(", ") },
        )
    }
}
