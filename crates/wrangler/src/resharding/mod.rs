//! Moving what serves: tables from one keyspace to another, rows from some shards to others.
//!
//! Owns: what MigrateServedFrom, MigrateServedTypes, CancelResharding and ShowResharding check and
//! write for each tablet type. Does not own: the switch of MASTER, which is one procedure for both kinds
//! (`crate::cutover`); the copying of rows (vtworker).
//! Invariant: every record is edited under the lock of its keyspace.

mod cancel;
mod drive;
mod refresh;
mod served_from;
mod served_types;
mod show;
pub(crate) mod sides;
pub(crate) mod streams;
mod worker;

pub(crate) use cancel::cancel_resharding;
pub(crate) use drive::{Drive, drive};
pub(crate) use refresh::refresh_masters;
pub(crate) use served_from::{MigrateServedFrom, migrate_served_from, read_split};
pub(crate) use served_types::{MigrateServedTypes, migrate_served_types};
pub(crate) use show::show_resharding;

use std::time::Duration;

use crate::Wrangler;
use crate::logger::warning;

/// How long a vtgate gets to act on a serving record that was written.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(5);

/// Waits until every vtgate acts on the present SrvKeyspace of its cell (no cells given: of all cells).
/// Returns the names of those that did not in time, and the cells of which it cannot be told (`cell zone2:
/// <error>`); each is a warning too, and no error: the records are written.
pub(crate) async fn wait_for_gates(wr: &Wrangler, keyspace: &str, cells: &[String]) -> Vec<String> {
    let cells = if cells.is_empty() {
        match wr.topo().get_known_cells().await {
            Ok(cells) => cells,
            Err(error) => {
                warning!(wr, "cannot tell whether vtgates act on the new serving records: {error}");
                return vec![format!("all cells: {error}")];
            }
        }
    } else {
        cells.to_vec()
    };
    let waits = cells.iter().map(|cell| async move {
        let (_, version) = match wr.topo().get_srv_keyspace_version(cell, keyspace).await {
            Err(error) if error.is_no_node() => return Ok(Vec::new()),
            read => read?,
        };
        wr.topo().wait_for_gate_acks(cell, keyspace, version, ACKNOWLEDGEMENT).await
    });
    let (mut silent, mut unknown) = (Vec::new(), Vec::new());
    for (cell, outcome) in cells.iter().zip(futures::future::join_all(waits).await) {
        match outcome {
            Ok(gates) => silent.extend(gates),
            Err(error) => {
                warning!(wr, "cannot tell whether vtgates of {cell} act on the new SrvKeyspace: {error}");
                unknown.push(format!("cell {cell}: {error}"));
            }
        }
    }
    for gate in &silent {
        warning!(wr, "vtgate {gate} has not acted on the new SrvKeyspace of {keyspace} within {ACKNOWLEDGEMENT:?}");
    }
    silent.extend(unknown);
    silent
}
