//! The flags of the clone commands.

use servenv::flags::{FlagSet, Parsed};
use throttler::UNLIMITED;
use vterrors::{Code, VtError};
use vtproto::topodata::TabletType;

use super::Kind;

/// What a clone was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    pub online: bool,
    pub offline: bool,
    /// Names or `/expressions/`.
    pub tables: Vec<String>,
    pub exclude_tables: Vec<String>,
    pub chunk_count: u64,
    pub min_rows_per_chunk: u64,
    pub readers: usize,
    /// Most rows of one INSERT.
    pub max_rows: usize,
    /// Size from which an INSERT is sent, bytes.
    pub max_size: usize,
    /// INSERTs that one destination shard works on at once.
    pub writers: usize,
    pub tablet_type: TabletType,
    pub min_healthy: usize,
    pub consistent_snapshot: bool,
    /// Transactions per second at each destination shard.
    pub max_tps: i64,
    /// Seconds that replicas of a destination may be behind.
    pub max_replication_lag: i64,
}

fn common(set: &mut FlagSet) {
    set.bool("online", true, "copy from tablets that serve first, so that the offline pass is short")
        .bool("offline", true, "copy from stopped tablets and start filtered replication")
        .int("chunk_count", 1000, "pieces that a table is copied in at most")
        .int("min_rows_per_chunk", 10_000, "rows of such a piece at least")
        .int("source_reader_count", 10, "pieces that are read at once")
        .int("write_query_max_rows", 100_000, "rows of one INSERT at most (Vitess: 100; the size bounds it here)")
        .int("write_query_max_size", 1 << 20, "bytes of one INSERT, about")
        .int("destination_writer_count", 20, "INSERTs that one destination shard runs at once")
        .string("tablet_type", "RDONLY", "type of the source tablets: REPLICA or RDONLY")
        .bool("use_consistent_snapshot", false, "offline: read a consistent snapshot instead of stopping replication")
        .int("max_tps", UNLIMITED, "transactions per second at each destination shard")
        .int("max_replication_lag", UNLIMITED, "pause while replicas of the destination are so many seconds behind");
}

pub(super) fn horizontal_flags(set: &mut FlagSet) {
    common(set);
    set.list("exclude_tables", "", "tables that are not copied: names or /expressions/").int(
        "min_healthy_rdonly_tablets",
        2,
        "healthy source tablets that have to be there",
    );
}

pub(super) fn vertical_flags(set: &mut FlagSet) {
    common(set);
    set.list("tables", "", "tables that are copied: names or /expressions/").int(
        "min_healthy_tablets",
        2,
        "healthy source tablets that have to be there",
    );
}

pub(super) fn legacy_flags(set: &mut FlagSet) {
    for (name, default) in [
        ("exclude_tables", ""),
        ("source_reader_count", "10"),
        ("destination_pack_count", "10"),
        ("destination_writer_count", "20"),
        ("min_healthy_rdonly_tablets", "2"),
        ("max_tps", "9223372036854775807"),
    ] {
        set.accepted(name, default, false);
    }
}

fn fault(text: impl Into<String>) -> VtError {
    VtError::new(Code::InvalidArgument, text)
}

/// A type whose tablets replicate, by its name in upper case. `done`: what is done with them, for an error text.
pub(crate) fn replica_type(name: &str, done: &str) -> Result<TabletType, VtError> {
    match TabletType::from_str_name(name) {
        Some(kind @ (TabletType::Replica | TabletType::Rdonly)) => Ok(kind),
        Some(_) => Err(fault(format!("only REPLICA and RDONLY can be {done}, got: {name}"))),
        None => Err(fault(format!("command requires a valid tablet type, got: {name}"))),
    }
}

impl Options {
    /// # Errors
    /// A number below 1, an unknown type, nothing to do.
    pub fn from_flags(flags: &Parsed, kind: Kind) -> Result<Self, VtError> {
        let count = |name: &str| match flags.int(name) {
            n if n < 1 => Err(fault(format!("{name} must be > 0: {n}"))),
            n => Ok(n as u64),
        };
        let limit = |name: &str| match flags.int(name) {
            n if n < 0 => Err(fault(format!("{name} must be >= 0: {n}"))),
            n => Ok(n),
        };
        let size = |name: &str| count(name).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let (tables, exclude_tables, min_healthy) = match kind {
            Kind::Horizontal => (Vec::new(), flags.list("exclude_tables"), "min_healthy_rdonly_tablets"),
            Kind::Vertical => (flags.list("tables"), Vec::new(), "min_healthy_tablets"),
        };
        let options = Self {
            online: flags.bool("online"),
            offline: flags.bool("offline"),
            tables,
            exclude_tables,
            chunk_count: count("chunk_count")?,
            min_rows_per_chunk: count("min_rows_per_chunk")?,
            readers: size("source_reader_count")?,
            max_rows: size("write_query_max_rows")?,
            max_size: size("write_query_max_size")?,
            writers: size("destination_writer_count")?,
            tablet_type: replica_type(flags.str("tablet_type"), "copied from")?,
            min_healthy: usize::try_from(flags.int(min_healthy).max(0)).unwrap_or(0),
            consistent_snapshot: flags.bool("use_consistent_snapshot"),
            max_tps: limit("max_tps")?,
            max_replication_lag: limit("max_replication_lag")?,
        };
        if !options.online && !options.offline {
            return Err(fault("at least one of -online and -offline must be true"));
        }
        if options.max_tps == 0 {
            return Err(fault("max_tps must be > 0"));
        }
        Ok(options)
    }
}
