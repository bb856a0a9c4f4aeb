//! The events that name the transaction which follows them.

use super::error::{BinlogError, within};
use crate::packet::Cursor;
use crate::replication::{Gtid, MariaDbGtid, Mysql56Gtid, Sid};

/// A transaction begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GtidEvent {
    pub gtid: Gtid,
    /// MariaDB: one statement follows that is a transaction by itself (DDL); no COMMIT comes. On MySQL this shows only
    /// in what follows.
    pub standalone: bool,
    /// MariaDB: the transaction ends prepared (`XA PREPARE`).
    pub prepared_xa: bool,
}

const STANDALONE: u8 = 1;
const PREPARED_XA: u8 = 64;

/// MariaDB's GTID event: sequence, domain, flags. The server is in the header.
pub(super) fn mariadb(body: &[u8], server: u32) -> Result<GtidEvent, BinlogError> {
    let fault = within("GTID");
    let mut cursor = Cursor::new(body);
    let sequence = cursor.u64().map_err(&fault)?;
    let domain = cursor.u32().map_err(&fault)?;
    let flags = cursor.u8().map_err(&fault)?;
    Ok(GtidEvent {
        gtid: Gtid::MariaDb(MariaDbGtid { domain, server, sequence }),
        standalone: flags & STANDALONE != 0,
        prepared_xa: flags & PREPARED_XA != 0,
    })
}

fn mysql_event(sid: [u8; 16], tag: String, number: u64) -> GtidEvent {
    let gtid = Gtid::Mysql56(Mysql56Gtid { sid: Sid::from_bytes(sid), tag, number });
    GtidEvent { gtid, standalone: false, prepared_xa: false }
}

/// MySQL's GTID event: flags, UUID, number; what else it holds is for parallel appliers.
pub(super) fn mysql(body: &[u8]) -> Result<GtidEvent, BinlogError> {
    let fault = within("GTID");
    let mut cursor = Cursor::new(body);
    cursor.u8().map_err(&fault)?;
    let sid = cursor.bytes(16).map_err(&fault)?.try_into().unwrap_or_default();
    Ok(mysql_event(sid, String::new(), cursor.u64().map_err(&fault)?))
}

/// MySQL's GTID event with a tag, in the form of MySQL's serialization library: version, size and a field number,
/// then fields, each after its number: 0 flags, 1 UUID, 2 transaction number, 3 tag, and others not wanted here.
pub(super) fn tagged(body: &[u8]) -> Result<GtidEvent, BinlogError> {
    let bad = |what: &str| BinlogError::malformed("tagged GTID", what);
    let mut cursor = Cursor::new(body);
    for _ in 0..3 {
        varint(&mut cursor)?;
    }
    let (mut sid, mut number, mut tag) = ([0; 16], None, None);
    while !cursor.is_empty() && (number.is_none() || tag.is_none()) {
        match varint(&mut cursor)? {
            0 => {
                varint(&mut cursor)?;
            }
            1 => {
                // Each byte is a number by itself.
                for byte in &mut sid {
                    *byte = u8::try_from(varint(&mut cursor)?).map_err(|_| bad("UUID"))?;
                }
            }
            // A signed number: its sign is the lowest bit.
            2 => number = Some(varint(&mut cursor)? >> 1),
            3 => {
                let len = usize::try_from(varint(&mut cursor)?).map_err(|_| bad("tag"))?;
                let bytes = cursor.bytes(len).map_err(within("tagged GTID"))?;
                tag = Some(String::from_utf8(bytes.to_vec()).map_err(|_| bad("tag"))?);
            }
            _ => return Err(bad("field out of order")),
        }
    }
    match (number, tag) {
        (Some(number), Some(tag)) => Ok(mysql_event(sid, tag, number)),
        _ => Err(bad("no transaction number or tag")),
    }
}

/// A number of MySQL's serialization library: as many 1 bits at the bottom of the first byte as bytes follow it.
fn varint(cursor: &mut Cursor<'_>) -> Result<u64, BinlogError> {
    let fault = within("tagged GTID");
    let first = cursor.u8().map_err(&fault)?;
    let more = first.trailing_ones() as usize;
    let mut bytes = [0; 8];
    let rest = cursor.bytes(more).map_err(&fault)?;
    bytes[..more].copy_from_slice(rest);
    let high = u64::from_le_bytes(bytes);
    if more >= 8 {
        return Ok(high);
    }
    Ok(high << (7 - more) | u64::from(first) >> (more + 1))
}

/// The same number written.
pub(super) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let bits = (64 - value.leading_zeros() as usize).max(1);
    let more = (bits - 1) / 7;
    if more >= 8 {
        out.push(0xff);
        out.extend_from_slice(&value.to_le_bytes());
        return;
    }
    let shifted = value << (more + 1) | ((1 << more) - 1);
    out.extend_from_slice(&shifted.to_le_bytes()[..=more]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mariadb_gtid_takes_its_server_from_the_header() {
        let body = [9, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0x29, 0];
        let event = mariadb(&body, 10).expect("an event");
        assert_eq!(event.gtid.to_string(), "MariaDB/3-10-9");
        assert!(event.standalone && !event.prepared_xa);
    }

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, shift in 0u32..64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value >> shift);
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(varint(&mut cursor).expect("a number"), value >> shift);
            prop_assert!(cursor.is_empty());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = (mysql(&bytes), tagged(&bytes), mariadb(&bytes, 1));
        }
    }
}
