//! The lossless switch of MASTER from some shards to others: one procedure for vertical and horizontal
//! splits, in both directions.
//!
//! Phases, in this order: *gate* (sources hold new work back, vtgates keep it), *drain* (work from before
//! ends, or is killed at the deadline), *fence* (the denial goes to the topology, the positions are
//! final), *catch up* (destinations have applied them), *flip* (destinations serve, the serving records say
//! so), *release* (vtgates have acted on the records, the gates are lifted). Nothing begins with a lock
//! of MySQL, which hot rows can hold up for seconds.
//!
//! | file | what |
//! | --- | --- |
//! | `plan.rs` | what moves where, decided from records before anything happens; pure |
//! | `journal.rs` | the phase, in the topology, written before the effect of each |
//! | `run.rs` | the phases, in order; the way back before the flip, the way on after it |
//! | `gate.rs` | the sources' gates, and v5.0.1's sequence for tablets that have none |
//! | `served_from.rs` `served_back.rs` `served_types.rs` | the records and streams of each kind |
//! | `receipt.rs` | what it cost |
//!
//! Invariants: before the flip only sources may accept writes, from the flip on only destinations; a
//! failure before the flip leaves the sources serving; the same command, run again after a crash at any
//! point, finishes. Fail points for tests are in [`POINTS`].

mod gate;
mod journal;
mod plan;
mod receipt;
mod run;
mod served_back;
mod served_from;
mod served_types;

use std::time::Duration;

use vtproto::topodata::TabletType;

use crate::error::{Result, bail};
pub(crate) use journal::{is_unfinished, refuse_unfinished};
pub(crate) use plan::group_name;
pub(crate) use served_from::migrate_served_from_master;
pub(crate) use served_types::migrate_served_types_master;

/// What a MASTER migration may be told.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `-filtered_replication_wait_time`: how long destinations may need to catch up.
    pub wait: Duration,
    /// `-drain_timeout`: how long transactions may go on at the sources before they are killed.
    pub drain: Duration,
    /// `-reverse_replication`: replicate back to the sources afterwards.
    pub reverse_replication: bool,
    /// `-cancel`: give up a cutover that has not flipped.
    pub cancel: bool,
}

impl Options {
    /// For a migration of another type than MASTER.
    ///
    /// # Errors
    /// It is to be cancelled, and would be made instead.
    pub fn refuse_cancel(&self, served_type: TabletType) -> Result {
        if self.cancel {
            bail!("-cancel is for a migration of MASTER: {} goes back by -reverse", served_type.as_str_name());
        }
        Ok(())
    }
}

/// The fail points, each after the effect of its phase, in order.
pub const POINTS: &[&str] = &[
    "cutover.planned",
    "cutover.gated",
    "cutover.drained",
    "cutover.denied",
    "cutover.fenced",
    "cutover.caught_up",
    "cutover.prepared",
    "cutover.flipped",
    "cutover.opened",
    "cutover.routed",
    "cutover.closed",
    "cutover.released",
];
