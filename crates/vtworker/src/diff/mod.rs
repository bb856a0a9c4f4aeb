//! SplitDiff, VerticalSplitDiff and MultiSplitDiff: whether source and destination hold the same rows at one position.
//!
//! Snapshots of a replica of each side are opened at one position ([`sync`]); their rows are compared in batches of bounded
//! size ([`compare`]) while the replicas serve and replicate on. Any number of comparisons may run at once. Differences
//! are named by their keys, and fail the job.

mod compare;
mod job;
mod keyless;
mod sync;

use futures::FutureExt;
use servenv::flags::{FlagSet, Parsed};
use vterrors::{Code, VtError};
use vtproto::topodata::TabletType;

use crate::clone::{Kind, replica_type};
use crate::command::{Command, Work, exactly};

/// What a comparison was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The stream to compare by; 0: the only one.
    pub source_uid: u32,
    pub exclude_tables: Vec<String>,
    pub min_healthy: usize,
    pub source_type: TabletType,
    pub destination_type: TabletType,
    /// Tables that are compared at once.
    pub parallel: usize,
}

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "SplitDiff",
        params: "[-source_uid=0] [-exclude_tables=''] [-min_healthy_rdonly_tablets=2] [-dest_tablet_type=RDONLY] \
                 [-parallel_diffs_count=8] <keyspace/shard>",
        help: "Compares a destination shard of a split with its source.",
        flags: horizontal_flags,
        prepare: split_diff,
    },
    Command {
        name: "VerticalSplitDiff",
        params: "[-min_healthy_rdonly_tablets=2] [-dest_tablet_type=RDONLY] [-parallel_diffs_count=8] <keyspace/shard>",
        help: "Compares the moved tables of a destination shard with their source.",
        flags: vertical_flags,
        prepare: vertical_split_diff,
    },
    Command {
        name: "MultiSplitDiff",
        params: "[-tablet_type=RDONLY] [-exclude_tables=''] [-min_healthy_tablets=1] [-parallel_diffs_count=8] \
                 [-wait_for_fixed_time_rather_than_gtid_set=false] [-use_consistent_snapshot=false] <source keyspace/shard>",
        help: "Compares a source shard with all destination shards of its split.",
        flags: multi_flags,
        prepare: multi_split_diff,
    },
];

fn common(set: &mut FlagSet) {
    set.int("min_healthy_rdonly_tablets", 2, "healthy source tablets that have to be there")
        .string("dest_tablet_type", "RDONLY", "type of the destination tablet: REPLICA or RDONLY")
        .int("parallel_diffs_count", 8, "tables that are compared at once");
}

fn horizontal_flags(set: &mut FlagSet) {
    common(set);
    set.int("source_uid", 0, "number of the source shard, if there are several").list(
        "exclude_tables",
        "",
        "tables that are not compared: names or /expressions/",
    );
}

fn vertical_flags(set: &mut FlagSet) {
    common(set);
}

fn multi_flags(set: &mut FlagSet) {
    set.string("tablet_type", "RDONLY", "type of the tablets on both sides: REPLICA or RDONLY")
        .list("exclude_tables", "", "tables that are not compared: names or /expressions/")
        // v5.0.1 prints 2 and needs one.
        .int("min_healthy_tablets", 1, "healthy source tablets that have to be there")
        .int("parallel_diffs_count", 8, "tables that are compared at once")
        .accepted("wait_for_fixed_time_rather_than_gtid_set", "false", true)
        .accepted("use_consistent_snapshot", "false", true);
}

fn number<T: TryFrom<i64>>(flags: &Parsed, name: &str, least: i64) -> Result<T, VtError> {
    let value = flags.int(name);
    T::try_from(value)
        .ok()
        .filter(|_| value >= least)
        .ok_or_else(|| VtError::new(Code::InvalidArgument, format!("{name} cannot be {value}")))
}

fn split_diff(args: Parsed) -> Result<Work, VtError> {
    let [shard] = exactly(&args, "command SplitDiff requires <keyspace/shard>")?;
    let options = Options {
        source_uid: number(&args, "source_uid", 0)?,
        exclude_tables: args.list("exclude_tables"),
        min_healthy: number(&args, "min_healthy_rdonly_tablets", 0)?,
        source_type: TabletType::Rdonly,
        destination_type: replica_type(args.str("dest_tablet_type"), "compared")?,
        parallel: number(&args, "parallel_diffs_count", 1)?,
    };
    let shard = topo::topoproto::parse_keyspace_shard(&shard)?;
    Ok(Box::new(move |context| job::run(context, Kind::Horizontal, options, shard).boxed()))
}

fn vertical_split_diff(args: Parsed) -> Result<Work, VtError> {
    let [shard] = exactly(&args, "command VerticalSplitDiff requires <keyspace/shard>")?;
    let options = Options {
        source_uid: 0,
        exclude_tables: Vec::new(),
        min_healthy: number(&args, "min_healthy_rdonly_tablets", 0)?,
        source_type: TabletType::Rdonly,
        destination_type: replica_type(args.str("dest_tablet_type"), "compared")?,
        parallel: number(&args, "parallel_diffs_count", 1)?,
    };
    let shard = topo::topoproto::parse_keyspace_shard(&shard)?;
    Ok(Box::new(move |context| job::run(context, Kind::Vertical, options, shard).boxed()))
}

fn multi_split_diff(args: Parsed) -> Result<Work, VtError> {
    let [shard] = exactly(&args, "command MultiSplitDiff requires <keyspace/shard>")?;
    let tablet_type = replica_type(args.str("tablet_type"), "compared")?;
    let options = Options {
        source_uid: 0,
        exclude_tables: args.list("exclude_tables"),
        min_healthy: number(&args, "min_healthy_tablets", 0)?,
        source_type: tablet_type,
        destination_type: tablet_type,
        parallel: number(&args, "parallel_diffs_count", 1)?,
    };
    let shard = topo::topoproto::parse_keyspace_shard(&shard)?;
    Ok(Box::new(move |context| job::run_multi(context, options, shard).boxed()))
}
