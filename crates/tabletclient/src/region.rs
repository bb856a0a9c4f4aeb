//! The cells whose replicas may answer for ours: its own, and those that a cells alias joins it with.
//!
//! Owns: the present set of cells, and the task that keeps it true to the topology. A reading that fails leaves the set
//! as it was.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio_util::sync::{CancellationToken, DropGuard};
use topo::TopoServer;

/// Bound of the first reading: without it there is only the own cell.
const FIRST_READING: Duration = Duration::from_secs(5);

/// See the module. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Region {
    cell: Arc<str>,
    joined: Arc<ArcSwap<BTreeSet<String>>>,
    _stop: Option<Arc<DropGuard>>,
}

impl Region {
    /// One cell that no alias joins with others.
    pub fn of(cell: &str) -> Self {
        Self { cell: cell.into(), joined: Arc::default(), _stop: None }
    }

    /// Reads the aliases, and again every `interval` until the last clone is dropped.
    pub async fn follow(topo: TopoServer, cell: &str, interval: Duration) -> Self {
        let mut region = Self::of(cell);
        if tokio::time::timeout(FIRST_READING, read(&topo, &region.cell, &region.joined)).await.is_err() {
            tracing::warn!(
                cell,
                "the cells aliases could not be read in time: replicas of other cells are not asked yet"
            );
        }
        let stop = CancellationToken::new();
        let (cell, joined, stopped) = (region.cell.clone(), region.joined.clone(), stop.clone());
        let keep_true = async move {
            loop {
                tokio::time::sleep(interval).await;
                read(&topo, &cell, &joined).await;
            }
        };
        tokio::spawn(async move { stopped.run_until_cancelled(keep_true).await });
        region._stop = Some(Arc::new(stop.drop_guard()));
        region
    }

    /// The cell that it is the region of.
    pub fn cell(&self) -> &str {
        &self.cell
    }

    /// Whether replicas of `cell` may answer for ours.
    pub fn contains(&self, cell: &str) -> bool {
        cell == &*self.cell || self.joined.load().contains(cell)
    }
}

async fn read(topo: &TopoServer, cell: &str, joined: &ArcSwap<BTreeSet<String>>) {
    match topo.find_cells_alias(cell).await {
        Ok(found) => joined.store(Arc::new(found.into_iter().flat_map(|(_, alias)| alias.cells).collect())),
        Err(error) => tracing::warn!(cell, "cannot read the cells aliases: {error}"),
    }
}
