//! A binlog, read from a server as a replica reads it.
//!
//! Invariants: while nobody asks for the next event nothing is read from the socket, so that the server waits; a
//! transaction is never gathered; dropping the stream closes the connection, and with it the server's dump thread.

use std::time::Duration;

use super::compressed::{self, Payload};
use super::dump;
use super::error::BinlogError;
use super::event::{Event, HEADER_LEN, Header, kind};
use crate::client::{ClientError, ConnectParams, Connection};
use crate::packet::Span;
use crate::replication::Position;

/// Largest event, bytes: `max_allowed_packet` of a dump is 1 GB, whatever it is for statements.
const MAX_EVENT_PACKET: usize = (1 << 30) + (1 << 20);
const CHECKSUM_LEN: usize = 4;
const CHECKSUM_CRC32: u8 = 1;

/// How a binlog is read.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// The server says that it lives this often while it has no events. Three times as long without a word is an error.
    pub heartbeat: Duration,
    /// End at the end of the log instead of waiting for more.
    pub until_end: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(5), until_end: false }
    }
}

/// Where the current event lies.
#[derive(Debug)]
enum At {
    Nothing,
    /// In the packet: status byte, header, body. `checksum` bytes at the end are not part of the body.
    Packet {
        span: Span,
        checksum: usize,
    },
    /// Unpacked: only the body for MariaDB, header and body for MySQL.
    Unpacked {
        header: Header,
        body: usize,
    },
}

/// Events after a position, one at a time: [`BinlogStream::advance`], then [`BinlogStream::event`].
#[derive(Debug)]
pub struct BinlogStream {
    connection: Connection,
    patience: Duration,
    at: At,
    /// Events carry a checksum, says the file that is being read.
    checksums: bool,
    payload: Option<Payload>,
    unpacked: Vec<u8>,
    ended: bool,
}

impl BinlogStream {
    /// Asks the server for everything after `start`. Needs REPLICATION SLAVE. Errors of the server about the position
    /// (1236) come from the first [`BinlogStream::advance`].
    pub async fn open(params: &ConnectParams, start: &Position, options: &StreamOptions) -> Result<Self, BinlogError> {
        let params = ConnectParams { max_allowed_packet: MAX_EVENT_PACKET, ..params.clone() };
        let mut connection = Connection::connect(&params).await?;
        let flavor = connection.flavor();
        // A server ends the dump of another reader with the same id. Ids of tablets are small numbers.
        let server_id = rand::random::<u32>() | 0x8000_0000;
        let uuid = random_uuid();
        let heartbeat = u64::try_from(options.heartbeat.as_nanos()).unwrap_or(u64::MAX);
        let (command, argument) = dump::command(flavor, start, server_id, options.until_end)
            .map_err(|error| BinlogError::Unsupported(error.to_string()))?;
        let prepare = async {
            for statement in dump::preparation(flavor, start, heartbeat, &uuid) {
                connection.execute(&statement).await?;
            }
            connection.start_dump(command, &argument).await
        };
        match tokio::time::timeout(params.connect_timeout, prepare).await {
            Ok(prepared) => prepared?,
            Err(_) => return Err(ClientError::lost("no answer").into()),
        }
        Ok(Self {
            connection,
            patience: options.heartbeat * 3,
            at: At::Nothing,
            checksums: false,
            payload: None,
            unpacked: Vec::new(),
            ended: false,
        })
    }

    /// Goes to the next event. False at the end, which only a stream with `until_end` has. May be dropped and called
    /// again.
    pub async fn advance(&mut self) -> Result<bool, BinlogError> {
        loop {
            if let Some(more) = self.try_advance()? {
                return Ok(more);
            }
            match tokio::time::timeout(self.patience, self.connection.fill()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(BinlogError::Silent(self.patience.as_secs())),
            }
        }
    }

    /// Goes to the next event if it is here already.
    pub fn try_advance(&mut self) -> Result<Option<bool>, BinlogError> {
        if self.ended {
            return Ok(Some(false));
        }
        if let Some(payload) = &mut self.payload {
            if payload.next(&mut self.unpacked)? {
                self.at = At::Unpacked { header: Header::parse(&self.unpacked)?, body: HEADER_LEN };
                return Ok(Some(true));
            }
            self.payload = None;
        }
        loop {
            let Some(span) = self.connection.packet_at_hand()? else { return Ok(None) };
            let packet = self.connection.bytes(span);
            match packet.first() {
                Some(0) => {}
                Some(0xff) => return Err(self.connection.packet_error(span).into()),
                Some(0xfe) if packet.len() < 9 => {
                    self.ended = true;
                    return Ok(Some(false));
                }
                _ => return Err(BinlogError::malformed("packet", "unexpected first byte")),
            }
            if self.accept(span)? {
                return Ok(Some(true));
            }
        }
    }

    /// Looks at a packet with an event. False: there is nothing in it for the caller.
    fn accept(&mut self, span: Span) -> Result<bool, BinlogError> {
        let packet = self.connection.bytes(span);
        let event = &packet[1..];
        let header = Header::parse(event)?;
        if event.len() < HEADER_LEN || header.len as usize != event.len() {
            return Err(BinlogError::malformed("packet", "length differs from its header's"));
        }
        match header.kind {
            kind::FORMAT_DESCRIPTION => {
                // The last bytes: which checksum the events of this file carry, and this one's own.
                let algorithm = event.len().checked_sub(CHECKSUM_LEN + 1).map(|at| event[at]);
                match algorithm {
                    Some(0) => self.checksums = false,
                    Some(CHECKSUM_CRC32) => self.checksums = true,
                    _ => return Err(BinlogError::Unsupported("unknown checksums in the binlog".into())),
                }
                return Ok(false);
            }
            // Made by the dump thread, and not always with the checksum one would expect.
            kind::ROTATE | kind::HEARTBEAT | kind::HEARTBEAT_V2 => return Ok(false),
            _ if header.is_artificial() => return Ok(false),
            _ => {}
        }
        let checksum = if self.checksums { CHECKSUM_LEN } else { 0 };
        if self.checksums {
            let wrong = BinlogError::Checksum { position: header.next_position };
            let Some((content, sum)) = event.split_last_chunk::<CHECKSUM_LEN>() else { return Err(wrong) };
            if content.len() < HEADER_LEN || crc32fast::hash(content) != u32::from_le_bytes(*sum) {
                return Err(wrong);
            }
        }
        if let Some(unpacked) = compressed::unpacked_kind(header.kind) {
            let body = &event[HEADER_LEN..event.len() - checksum];
            compressed::unpack_mariadb(unpacked, body, &mut self.unpacked)?;
            self.at = At::Unpacked { header: Header { kind: unpacked, ..header }, body: 0 };
            return Ok(true);
        }
        if header.kind == kind::TRANSACTION_PAYLOAD {
            let end = packet.len() - checksum;
            let packet = self.connection.take(span);
            let mut payload = Payload::open(packet, 1 + HEADER_LEN, end)?;
            if !payload.next(&mut self.unpacked)? {
                return Ok(false);
            }
            self.payload = Some(payload);
            self.at = At::Unpacked { header: Header::parse(&self.unpacked)?, body: HEADER_LEN };
            return Ok(true);
        }
        self.at = At::Packet { span, checksum };
        Ok(true)
    }

    /// The current event; `None` before the first.
    pub fn event(&self) -> Result<Option<Event<'_>>, BinlogError> {
        Ok(match &self.at {
            At::Nothing => None,
            At::Packet { span, checksum } => {
                let event = &self.connection.bytes(*span)[1..];
                Some(Event { header: Header::parse(event)?, body: &event[HEADER_LEN..event.len() - checksum] })
            }
            At::Unpacked { header, body } => Some(Event { header: *header, body: &self.unpacked[*body..] }),
        })
    }
}

fn random_uuid() -> String {
    let bytes: [u8; 16] = rand::random();
    crate::replication::Sid::from_bytes(bytes).to_string()
}
