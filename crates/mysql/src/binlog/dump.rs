//! The commands that start a dump: everything after a GTID position.

use super::gtid_event::put_varint;
use crate::constants::command;
use crate::flavor::{Flavor, quote};
use crate::replication::{GtidSet, Mysql56GtidSet, Position, PositionError};

/// Ends the stream at the end of the log instead of waiting for more.
const NON_BLOCK: u16 = 1;

/// Seconds that the server waits for a reader that does not read: a reader may be held up by its own reader for long.
const WRITE_TIMEOUT: u32 = 86_400;

/// Statements before the dump command.
pub(super) fn preparation(flavor: Flavor, start: &Position, heartbeat_ns: u64, uuid: &str) -> Vec<String> {
    let mut statements = vec![
        // Says that checksums are understood; each file says whether it has them.
        "SET @master_binlog_checksum = @@global.binlog_checksum".to_owned(),
        format!("SET @master_heartbeat_period = {heartbeat_ns}"),
        format!("SET SESSION net_write_timeout = {WRITE_TIMEOUT}"),
    ];
    match flavor {
        Flavor::MariaDb => statements.extend([
            "SET @mariadb_slave_capability = 4".to_owned(),
            format!("SET @slave_connect_state = {}", quote(&start.set_text())),
            // A position that this server never had is an error, not a place to go on from.
            "SET @slave_gtid_strict_mode = 1".to_owned(),
            "SET @slave_gtid_ignore_duplicates = 0".to_owned(),
        ]),
        Flavor::Mysql | Flavor::Mysql84 => statements.extend([
            "SET @source_binlog_checksum = @@global.binlog_checksum".to_owned(),
            format!("SET @source_heartbeat_period = {heartbeat_ns}"),
            // A second reader with the same identity would end the first.
            format!("SET @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'"),
        ]),
    }
    statements
}

/// The dump command and its argument.
pub(super) fn command(
    flavor: Flavor,
    start: &Position,
    server_id: u32,
    until_end: bool,
) -> Result<(u8, Vec<u8>), PositionError> {
    let flags = if until_end { NON_BLOCK } else { 0 };
    let wrong = || PositionError::new("position of another flavor than the server's", &start.to_string());
    let mut argument = Vec::new();
    match (flavor, start.set()) {
        (Flavor::MariaDb, None | Some(GtidSet::MariaDb(_))) => {
            argument.extend_from_slice(&4u32.to_le_bytes());
            argument.extend_from_slice(&flags.to_le_bytes());
            argument.extend_from_slice(&server_id.to_le_bytes());
            Ok((command::BINLOG_DUMP, argument))
        }
        (Flavor::Mysql | Flavor::Mysql84, None | Some(GtidSet::Mysql56(_))) => {
            let empty = Mysql56GtidSet::default();
            let set = match start.set() {
                Some(GtidSet::Mysql56(set)) => set,
                _ => &empty,
            };
            /// Start where the GTID set says, not at file and offset.
            const THROUGH_GTID: u16 = 4;
            argument.extend_from_slice(&(flags | THROUGH_GTID).to_le_bytes());
            argument.extend_from_slice(&server_id.to_le_bytes());
            argument.extend_from_slice(&0u32.to_le_bytes()); // length of the file name
            argument.extend_from_slice(&4u64.to_le_bytes());
            let encoded = encode(set);
            argument.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
            argument.extend_from_slice(&encoded);
            Ok((command::BINLOG_DUMP_GTID, argument))
        }
        _ => Err(wrong()),
    }
}

/// A GTID set as the dump command takes it. With tags (MySQL 8.3), the count stands between two format bytes and each
/// source carries its tag.
fn encode(set: &Mysql56GtidSet) -> Vec<u8> {
    let tagged = set.iter().any(|(_, tag, _)| !tag.is_empty());
    let count = set.iter().count() as u64;
    let mut out = Vec::new();
    out.extend_from_slice(&if tagged { 1 << 56 | count << 8 | 1 } else { count }.to_le_bytes());
    for (sid, tag, intervals) in set.iter() {
        out.extend_from_slice(sid.as_bytes());
        if tagged {
            put_varint(&mut out, tag.len() as u64);
            out.extend_from_slice(tag.as_bytes());
        }
        out.extend_from_slice(&(intervals.len() as u64).to_le_bytes());
        for interval in intervals {
            out.extend_from_slice(&interval.start.to_le_bytes());
            out.extend_from_slice(&(interval.end + 1).to_le_bytes());
        }
    }
    out
}
