//! Compressed events of MariaDB and compressed transactions of MySQL.

use std::io::{Cursor as IoCursor, Read};

use flate2::read::ZlibDecoder;
use ruzstd::decoding::StreamingDecoder;

use super::error::{BinlogError, within};
use super::event::{HEADER_LEN, Header, kind};
use crate::packet::Cursor;

/// Largest event that is unpacked, bytes: the largest that mysqld writes.
const MAX_EVENT: u64 = 1 << 30;

/// For a compressed event of MariaDB, the type it has unpacked.
pub(super) fn unpacked_kind(event_kind: u8) -> Option<u8> {
    Some(match event_kind {
        kind::MARIADB_QUERY_COMPRESSED => kind::QUERY,
        kind::MARIADB_WRITE_ROWS_COMPRESSED_V1 => kind::WRITE_ROWS_V1,
        kind::MARIADB_UPDATE_ROWS_COMPRESSED_V1 => kind::UPDATE_ROWS_V1,
        kind::MARIADB_DELETE_ROWS_COMPRESSED_V1 => kind::DELETE_ROWS_V1,
        kind::MARIADB_WRITE_ROWS_COMPRESSED => kind::WRITE_ROWS_V2,
        kind::MARIADB_UPDATE_ROWS_COMPRESSED => kind::UPDATE_ROWS_V2,
        kind::MARIADB_DELETE_ROWS_COMPRESSED => kind::DELETE_ROWS_V2,
        _ => return None,
    })
}

/// The body of a compressed event of MariaDB, unpacked into `out`: its first part is as ever, the statement or the rows
/// are compressed.
pub(super) fn unpack_mariadb(unpacked: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), BinlogError> {
    let fault = within("compressed event");
    let plain = match unpacked {
        kind::QUERY => {
            let mut cursor = Cursor::new(body);
            cursor.bytes(8).map_err(&fault)?;
            let database = usize::from(cursor.u8().map_err(&fault)?);
            cursor.u16().map_err(&fault)?;
            13 + usize::from(cursor.u16().map_err(&fault)?) + database + 1
        }
        _ => {
            let mut cursor = Cursor::new(body);
            cursor.bytes(8).map_err(&fault)?;
            if matches!(unpacked, kind::WRITE_ROWS_V2 | kind::UPDATE_ROWS_V2 | kind::DELETE_ROWS_V2) {
                let extra = usize::from(cursor.u16().map_err(&fault)?);
                cursor.bytes(extra.saturating_sub(2)).map_err(&fault)?;
            }
            let columns = usize::try_from(cursor.lenenc().map_err(&fault)?).unwrap_or(usize::MAX);
            let images = if matches!(unpacked, kind::UPDATE_ROWS_V1 | kind::UPDATE_ROWS_V2) { 2 } else { 1 };
            cursor.bytes(columns.div_ceil(8).saturating_mul(images)).map_err(&fault)?;
            body.len() - cursor.rest().len()
        }
    };
    let (plain, packed) = body.split_at_checked(plain).ok_or_else(|| fault(crate::packet::WireError::Truncated))?;
    out.clear();
    out.extend_from_slice(plain);
    unpack(packed, out)
}

/// One header byte (0x80, algorithm in bits 4 to 6, number of length bytes in bits 0 to 2), the unpacked length,
/// highest byte first, then zlib data.
fn unpack(packed: &[u8], out: &mut Vec<u8>) -> Result<(), BinlogError> {
    let bad = |what: &str| BinlogError::malformed("compressed event", what);
    let (&head, rest) = packed.split_first().ok_or_else(|| bad("empty"))?;
    let bytes = usize::from(head & 7);
    if head & 0x80 == 0 || head & 0x70 != 0 || bytes == 0 || bytes > 4 {
        return Err(bad("unknown compression"));
    }
    let (len, data) = rest.split_at_checked(bytes).ok_or_else(|| bad("ends early"))?;
    let len = len.iter().fold(0u64, |len, &byte| len << 8 | u64::from(byte));
    if len > MAX_EVENT {
        return Err(bad("longer than any event"));
    }
    let start = out.len();
    // One byte more than promised would be noticed.
    ZlibDecoder::new(data).take(len + 1).read_to_end(out).map_err(|error| bad(&error.to_string()))?;
    if (out.len() - start) as u64 != len {
        return Err(bad("unpacked length differs"));
    }
    Ok(())
}

/// The events inside a TRANSACTION_PAYLOAD event, unpacked one at a time.
pub(super) enum Payload {
    Plain(IoCursor<Vec<u8>>),
    Zstd(Box<StreamingDecoder<IoCursor<Vec<u8>>, ruzstd::decoding::FrameDecoder>>),
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl Payload {
    /// `packet` holds the event's body between `start` and `end`.
    pub fn open(mut packet: Vec<u8>, start: usize, end: usize) -> Result<Self, BinlogError> {
        /// Field types of the header; each field is a type, a length and that many bytes.
        const END: u64 = 0;
        const COMPRESSION: u64 = 2;
        const ZSTD: u64 = 0;
        const NONE: u64 = 255;
        let fault = within("TRANSACTION_PAYLOAD");
        packet.truncate(end);
        let mut cursor = Cursor::new(packet.get(start..).unwrap_or_default());
        let mut compression = NONE;
        loop {
            let field = cursor.lenenc().map_err(&fault)?;
            if field == END {
                break;
            }
            let value = cursor.lenenc_bytes().map_err(&fault)?;
            if field == COMPRESSION {
                compression = Cursor::new(value).lenenc().map_err(&fault)?;
            }
        }
        let data = end - cursor.rest().len();
        let mut source = IoCursor::new(packet);
        source.set_position(data as u64);
        match compression {
            NONE => Ok(Self::Plain(source)),
            ZSTD => {
                let decoder = StreamingDecoder::new(source)
                    .map_err(|error| BinlogError::malformed("TRANSACTION_PAYLOAD", error))?;
                Ok(Self::Zstd(Box::new(decoder)))
            }
            other => Err(BinlogError::Unsupported(format!("binlog transaction compression of unknown kind {other}"))),
        }
    }

    /// The next event, header included, into `out`; false at the end.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, BinlogError> {
        let fault = |error: std::io::Error| BinlogError::malformed("TRANSACTION_PAYLOAD", error);
        out.clear();
        let source: &mut dyn Read = match self {
            Self::Plain(source) => source,
            Self::Zstd(source) => source,
        };
        source.take(HEADER_LEN as u64).read_to_end(out).map_err(fault)?;
        if out.is_empty() {
            return Ok(false);
        }
        let header = Header::parse(out)?;
        let body = u64::from(header.len).saturating_sub(HEADER_LEN as u64);
        if body > MAX_EVENT {
            return Err(BinlogError::malformed("TRANSACTION_PAYLOAD", "longer than any event"));
        }
        source.take(body).read_to_end(out).map_err(fault)?;
        if out.len() != header.len as usize {
            return Err(BinlogError::malformed("TRANSACTION_PAYLOAD", "ends early"));
        }
        Ok(true)
    }
}
