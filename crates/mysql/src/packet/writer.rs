//! Packets to a stream, collected and written together.

use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{WireError, payload_len};
use crate::constants::MAX_FRAME;
use crate::raw_rows::frame_len;

/// Collected bytes from which on a writer of many packets should flush.
const FLUSH_AT: usize = 64 << 10;
/// A frame up to this is written in one piece.
const WHOLE: usize = 4 * FLUSH_AT;
/// Buffers up to this size stay with an idle connection.
const KEEP_IDLE: usize = 1 << 10;

/// A packet is built in [`PacketWriter::begin`]'s buffer and framed by [`PacketWriter::end`]; nothing is written
/// before [`PacketWriter::flush`]. After an error the stream is undefined; a flush that is dropped is gone on with by the
/// next.
#[derive(Debug)]
pub(crate) struct PacketWriter<W> {
    io: W,
    buf: Vec<u8>,
    /// Bytes of `buf` that have been written.
    sent: usize,
    /// Written, but maybe not out of the stream's own buffer.
    unflushed: bool,
    start: usize,
    seq: u8,
    /// Bytes that the last frame of [`PacketWriter::part`] still lacks.
    frame_left: usize,
    /// Whether another frame of the same packet follows it.
    continues: bool,
}

impl<W: AsyncWrite + Unpin> PacketWriter<W> {
    pub fn new(io: W) -> Self {
        Self { io, buf: Vec::new(), sent: 0, unflushed: false, start: 0, seq: 0, frame_left: 0, continues: false }
    }

    pub fn set_seq(&mut self, seq: u8) {
        self.seq = seq;
    }

    pub fn seq(&self) -> u8 {
        self.seq
    }

    pub fn into_inner(self) -> W {
        self.io
    }

    /// Opens a packet; its payload is what the caller appends.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        self.start = self.buf.len();
        self.buf.extend_from_slice(&[0; 4]);
        &mut self.buf
    }

    /// Closes the packet that `begin` opened.
    pub fn end(&mut self) {
        let payload = self.start + 4;
        let len = self.buf.len() - payload;
        if len < MAX_FRAME {
            self.header(self.start, len);
            return;
        }
        // Frames move to make room for their heads, the last one first: a copy of such a packet would be as large again.
        let behind = len / MAX_FRAME;
        self.buf.resize(self.buf.len() + 4 * behind, 0);
        for number in (1..=behind).rev() {
            let from = payload + number * MAX_FRAME;
            let end = payload + len.min((number + 1) * MAX_FRAME);
            self.buf.copy_within(from..end, from + 4 * number);
        }
        for number in 0..=behind {
            self.header(self.start + number * (4 + MAX_FRAME), MAX_FRAME.min(len - number * MAX_FRAME));
        }
    }

    /// Takes back the packet that `begin` opened.
    pub fn abandon(&mut self) {
        self.buf.truncate(self.start);
    }

    fn header(&mut self, start: usize, len: usize) {
        let [a, b, c, _] = (len as u32).to_le_bytes();
        self.buf[start..start + 4].copy_from_slice(&[a, b, c, self.seq]);
        self.seq = self.seq.wrapping_add(1);
    }

    /// A packet with this payload.
    pub fn packet(&mut self, payload: &[u8]) {
        self.begin().extend_from_slice(payload);
        self.end();
    }

    /// Adds frames that came from another connection, under our sequence ids, until enough is collected. How many bytes
    /// were taken.
    ///
    /// Errors: a frame is cut short; those before it have been added.
    pub fn frames(&mut self, raw: &[u8]) -> Result<usize, WireError> {
        let mut taken = 0;
        let mut outcome = Ok(());
        while taken < raw.len() && self.buf.len() + taken < FLUSH_AT {
            match frame_len(&raw[taken..]) {
                Ok(len) => taken += len,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let mut at = self.buf.len();
        self.buf.extend_from_slice(&raw[..taken]);
        while at < self.buf.len() {
            self.buf[at + 3] = self.seq;
            self.seq = self.seq.wrapping_add(1);
            at += 4 + payload_len([self.buf[at], self.buf[at + 1], self.buf[at + 2]]);
        }
        outcome.map(|()| taken)
    }

    /// As [`PacketWriter::frames`], of frames that come in pieces: the last may be cut anywhere but in its head. Frames
    /// larger than [`WHOLE`] are taken in parts; of others none is begun that is not ended, so that a writer that is
    /// dropped meanwhile leaves off behind a packet.
    ///
    /// Errors: a head is cut short.
    pub fn part(&mut self, raw: &[u8]) -> Result<usize, WireError> {
        let begin = self.buf.len();
        let (mut taken, mut left, mut continues) = (0, self.frame_left, self.continues);
        while taken < raw.len() && begin + taken < FLUSH_AT {
            if left == 0 {
                let &[a, b, c, _] = raw[taken..].first_chunk::<4>().ok_or(WireError::Truncated)?;
                left = 4 + payload_len([a, b, c]);
                continues = left == 4 + MAX_FRAME;
            }
            let most = if left <= WHOLE { left } else { FLUSH_AT };
            let count = most.min(raw.len() - taken);
            taken += count;
            left -= count;
        }
        self.buf.extend_from_slice(&raw[..taken]);
        let mut head = begin + self.frame_left;
        while head < self.buf.len() {
            self.buf[head + 3] = self.seq;
            self.seq = self.seq.wrapping_add(1);
            head += 4 + payload_len([self.buf[head], self.buf[head + 1], self.buf[head + 2]]);
        }
        (self.frame_left, self.continues) = (left, continues);
        Ok(taken)
    }

    /// Whether [`PacketWriter::part`] has been given the beginning of a packet and not its end.
    pub fn is_inside_packet(&self) -> bool {
        self.frame_left > 0 || self.continues
    }

    /// Whether enough is collected to be worth a write.
    pub fn is_full(&self) -> bool {
        self.buf.len() >= FLUSH_AT
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.buf.len() {
            let count = self.io.write(&self.buf[self.sent..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sent += count;
            self.unflushed = true;
        }
        self.buf.clear();
        self.sent = 0;
        if !self.unflushed {
            return Ok(());
        }
        self.io.flush().await?;
        self.unflushed = false;
        if self.buf.capacity() > WHOLE {
            // One big row should not stay allocated for the rest of a long result.
            self.buf = Vec::new();
        }
        Ok(())
    }

    /// Gives memory back before a wait.
    pub fn release(&mut self) {
        if self.buf.is_empty() && self.buf.capacity() > KEEP_IDLE {
            self.buf = Vec::new();
        }
    }

    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }
}
