//! SplitClone and VerticalSplitClone: one implementation.
//!
//! Two passes over the same chunks of the same tables. The online pass reads tablets that serve and replicate on; the
//! offline pass brings the destination to the exact position of one stopped replica per source shard, from which
//! filtered replication then goes on. A chunk whose rows have not changed between the passes costs the second a
//! checksum at most.
//! Invariants: streams begin only after every chunk is at their position; what was done is stored at the destination
//! ([`progress`]), so that a clone that was killed goes on instead of beginning anew, and is believed as far as the
//! destination's own rows agree; of two clones of one split, one writes ([`owner`]); every source tablet goes back into
//! service.

mod chunk;
mod copy;
mod endpoint;
mod job;
mod options;
mod owner;
mod pass;
mod plan;
mod progress;
mod reconcile;
mod route;
mod snapshot;
mod streams;
mod table;
mod throttle;
mod write;

use futures::FutureExt;
use servenv::flags::Parsed;
use vterrors::{Code, VtError};

use crate::command::{Command, Work, exactly};

pub(crate) use copy::select;
pub(crate) use endpoint::Endpoint;
pub(crate) use job::load_vschema;
pub use options::Options;
pub(crate) use options::replica_type;
pub(crate) use plan::Kind;
pub(crate) use route::Route;
pub(crate) use snapshot::begin_snapshots;
pub(crate) use table::{Table, load_tables};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "SplitClone",
        params: "[-online=true] [-offline=true] [-exclude_tables=''] [-chunk_count=1000] [-min_rows_per_chunk=10000] \
                 [-source_reader_count=10] [-write_query_max_rows] [-write_query_max_size=1048576] \
                 [-destination_writer_count=20] [-tablet_type=RDONLY] [-min_healthy_rdonly_tablets=2] \
                 [-use_consistent_snapshot=false] [-max_tps] [-max_replication_lag] <keyspace/shard>",
        help: "Copies the rows of the source shards of a split or merge to the destination shards and starts filtered replication.",
        flags: options::horizontal_flags,
        prepare: split_clone,
    },
    Command {
        name: "VerticalSplitClone",
        params: "[-online=true] [-offline=true] [-tables=''] [-chunk_count=1000] [-min_rows_per_chunk=10000] \
                 [-source_reader_count=10] [-write_query_max_rows] [-write_query_max_size=1048576] \
                 [-destination_writer_count=20] [-tablet_type=RDONLY] [-min_healthy_tablets=2] \
                 [-use_consistent_snapshot=false] [-max_tps] [-max_replication_lag] <destination keyspace/shard>",
        help: "Copies tables to another keyspace and starts filtered replication.",
        flags: options::vertical_flags,
        prepare: vertical_split_clone,
    },
    Command {
        name: "LegacySplitClone",
        params: "<keyspace/shard>",
        help: "Replaced by SplitClone.",
        flags: options::legacy_flags,
        prepare: legacy_split_clone,
    },
];

fn split_clone(args: Parsed) -> Result<Work, VtError> {
    let [shard] = exactly(&args, "command SplitClone requires <keyspace/shard>")?;
    start(args, Kind::Horizontal, &shard)
}

fn vertical_split_clone(args: Parsed) -> Result<Work, VtError> {
    let [shard] = exactly(&args, "command VerticalSplitClone requires <destination keyspace/shard>")?;
    if args.list("tables").is_empty() {
        return Err(VtError::new(Code::Unknown, "list of tables to copy is required: -tables"));
    }
    start(args, Kind::Vertical, &shard)
}

fn start(args: Parsed, kind: Kind, shard: &str) -> Result<Work, VtError> {
    let options = Options::from_flags(&args, kind)?;
    let shard = topo::topoproto::parse_keyspace_shard(shard)?;
    Ok(Box::new(move |context| job::run(context, kind, options, shard).boxed()))
}

fn legacy_split_clone(_args: Parsed) -> Result<Work, VtError> {
    let text = "LegacySplitClone is not supported: SplitClone does the same, takes less time and can be run again after \
                a failure. Run SplitClone with the same <keyspace/shard>";
    Err(VtError::new(Code::Unimplemented, text))
}
