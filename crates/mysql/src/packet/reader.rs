//! Packets from a stream.
//!
//! Invariants: no more than the packet limit is buffered for one packet, whatever its header claims; a reader that
//! waits with nothing buffered holds no memory beyond itself ([`PacketReader::release`]); dropping a read in progress
//! loses no byte.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::payload_len;
use crate::constants::MAX_FRAME;

/// Bytes asked for by one read while little is arriving. They land on the stack, so that a connection waiting for
/// its next command owns no buffer.
const SMALL_READ: usize = 8 << 10;
/// Bytes asked for by one read while much is arriving.
const LARGE_READ: usize = 64 << 10;
/// Buffers up to this size stay with an idle connection.
const KEEP_IDLE: usize = 1 << 10;

/// Why there is no next packet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("EOF")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Raised from the header: the packet itself has not been read.
    #[error("Got a packet bigger than 'max_allowed_packet' bytes")]
    TooLarge,
    #[error("Got packets out of order")]
    OutOfOrder,
}

/// Where the current packet lies; valid until the reader is used again.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Span {
    Buffered { len: usize },
    Joined,
}

/// Whole packets of one frame each, counted from the front of the buffer on.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Run {
    /// With their heads.
    pub bytes: usize,
    pub packets: usize,
}

/// What lies behind a [`Run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// A packet of which a part is missing, or nothing.
    Part,
    /// A packet that does not belong to it.
    Other,
}

#[derive(Debug)]
pub(crate) struct PacketReader<R> {
    io: R,
    pub(super) buf: BytesMut,
    /// Bytes at the front of `buf` that belong to the packet returned last.
    done: usize,
    /// Frames of a packet of several, collected so far.
    joined: Vec<u8>,
    joining: bool,
    seq: u8,
    max_packet: usize,
    read_size: usize,
    /// `buf` is the rest of a larger allocation.
    cut: bool,
}

impl<R: AsyncRead + Unpin> PacketReader<R> {
    pub fn new(io: R, max_packet: usize) -> Self {
        let buf = BytesMut::new();
        Self {
            io,
            buf,
            done: 0,
            joined: Vec::new(),
            joining: false,
            seq: 0,
            max_packet,
            read_size: SMALL_READ,
            cut: false,
        }
    }

    pub fn set_max_packet(&mut self, bytes: usize) {
        self.max_packet = bytes;
    }

    /// Sequence id the next frame has to carry.
    pub fn set_seq(&mut self, seq: u8) {
        self.seq = seq;
    }

    pub fn seq(&self) -> u8 {
        self.seq
    }

    pub fn io(&self) -> &R {
        &self.io
    }

    /// Bytes that are here and not yet taken.
    pub fn buffered(&self) -> usize {
        self.buf.len() - self.done
    }

    pub fn get(&self, span: Span) -> &[u8] {
        match span {
            Span::Buffered { len } => &self.buf[self.done - len..self.done],
            Span::Joined => &self.joined,
        }
    }

    /// Appends the current packet as it came over the wire, in one frame or several.
    pub fn put_frames(&self, span: Span, out: &mut BytesMut) {
        match span {
            Span::Buffered { len } => out.extend_from_slice(&self.buf[self.done - len - 4..self.done]),
            Span::Joined => {
                // The head of the last frame says by its length that it is the last, even if it is empty.
                let mut rest = &self.joined[..];
                loop {
                    let (frame, behind) = rest.split_at(rest.len().min(MAX_FRAME));
                    out.extend_from_slice(&(frame.len() as u32).to_le_bytes());
                    out.extend_from_slice(frame);
                    if frame.len() < MAX_FRAME {
                        return;
                    }
                    rest = behind;
                }
            }
        }
    }

    /// What is known of the next frame: its length and its first byte, which may not be here yet.
    pub fn next_frame(&self) -> Option<(usize, Option<u8>)> {
        let arriving = &self.buf[self.done..];
        let &[a, b, c, _] = arriving.first_chunk::<4>()?;
        Some((payload_len([a, b, c]), arriving.get(4).copied()))
    }

    /// Moves the head of the next frame out, for a packet that is passed on before all of it is here, of which `before`
    /// bytes have been passed on. The length of the frame; `None` if its head is not here. The packet returned last is gone.
    pub fn pass_head(&mut self, before: usize, out: &mut BytesMut) -> Result<Option<usize>, PacketError> {
        self.buf.advance(std::mem::take(&mut self.done));
        let Some(&[a, b, c, seq]) = self.buf.first_chunk::<4>() else { return Ok(None) };
        let len = payload_len([a, b, c]);
        if seq != self.seq {
            return Err(PacketError::OutOfOrder);
        }
        if before + len > self.max_packet {
            return Err(PacketError::TooLarge);
        }
        self.seq = self.seq.wrapping_add(1);
        out.extend_from_slice(&self.buf[..4]);
        self.buf.advance(4);
        Ok(Some(len))
    }

    /// Moves up to `most` bytes out that lie behind a head of [`PacketReader::pass_head`]. How many that were.
    pub fn pass(&mut self, most: usize, out: &mut BytesMut) -> usize {
        let count = most.min(self.buf.len());
        out.extend_from_slice(&self.buf[..count]);
        self.buf.advance(count);
        count
    }

    /// Goes on with a run of packets of which together there are at most `bytes` and `packets`, and of whose first bytes
    /// `belongs` is true. The packet returned last is gone.
    pub fn count(&mut self, run: &mut Run, most: Run, belongs: impl Fn(u8) -> bool) -> Result<RunEnd, PacketError> {
        self.buf.advance(std::mem::take(&mut self.done));
        loop {
            let rest = &self.buf[run.bytes..];
            let Some(&[a, b, c, seq]) = rest.first_chunk::<4>() else { return Ok(RunEnd::Part) };
            let len = payload_len([a, b, c]);
            if run.packets == most.packets || len == MAX_FRAME || run.bytes + 4 + len > most.bytes {
                return Ok(RunEnd::Other);
            }
            // Sequence ids go round after 255.
            if seq != self.seq.wrapping_add(run.packets as u8) {
                return Err(PacketError::OutOfOrder);
            }
            if len > self.max_packet {
                return Err(PacketError::TooLarge);
            }
            if len == 0 || rest.get(4).is_some_and(|first| !belongs(*first)) {
                return Ok(RunEnd::Other);
            }
            if rest.len() < 4 + len {
                return Ok(RunEnd::Part);
            }
            run.bytes += 4 + len;
            run.packets += 1;
        }
    }

    /// Moves out what [`PacketReader::count`] has counted.
    pub fn take_run(&mut self, run: Run) -> BytesMut {
        self.seq = self.seq.wrapping_add(run.packets as u8);
        self.cut = true;
        self.buf.split_to(run.bytes)
    }

    /// The current packet, moved or copied out, so that reading can go on meanwhile.
    pub fn take(&mut self, span: Span) -> Vec<u8> {
        match span {
            Span::Buffered { .. } => self.get(span).to_vec(),
            Span::Joined => std::mem::take(&mut self.joined),
        }
    }

    /// The stream and the bytes that were read from it too far.
    pub fn into_parts(mut self) -> (R, BytesMut) {
        self.buf.advance(self.done);
        (self.io, self.buf)
    }

    /// The next packet, if all of it is here.
    pub fn try_next(&mut self) -> Result<Option<Span>, PacketError> {
        self.buf.advance(std::mem::take(&mut self.done));
        if !self.joining {
            self.joined = Vec::new();
        }
        loop {
            let Some((header, _)) = self.buf.split_first_chunk::<4>() else { return Ok(None) };
            let [a, b, c, seq] = *header;
            let len = payload_len([a, b, c]);
            if seq != self.seq {
                return Err(PacketError::OutOfOrder);
            }
            if self.joined.len() + len > self.max_packet {
                return Err(PacketError::TooLarge);
            }
            if self.buf.len() < 4 + len {
                return Ok(None);
            }
            self.seq = self.seq.wrapping_add(1);
            if len < MAX_FRAME && !self.joining {
                self.done = 4 + len;
                return Ok(Some(Span::Buffered { len }));
            }
            self.joined.extend_from_slice(&self.buf[4..4 + len]);
            self.buf.advance(4 + len);
            self.joining = len == MAX_FRAME;
            if !self.joining {
                return Ok(Some(Span::Joined));
            }
        }
    }

    /// The next packet. `Closed` only between packets; an end inside one is an I/O error.
    pub async fn next(&mut self) -> Result<Span, PacketError> {
        loop {
            if let Some(span) = self.try_next()? {
                return Ok(span);
            }
            if self.fill().await? == 0 {
                if self.buf.is_empty() && !self.joining {
                    return Err(PacketError::Closed);
                }
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Reads once. 0 at the end of the stream. The packet returned last stays valid.
    pub async fn fill(&mut self) -> io::Result<usize> {
        let missing = self.missing();
        let count = if self.read_size.max(missing) <= SMALL_READ {
            poll_fn(|cx| {
                let mut space = [MaybeUninit::<u8>::uninit(); SMALL_READ];
                let mut space = ReadBuf::uninit(&mut space);
                ready!(Pin::new(&mut self.io).poll_read(cx, &mut space))?;
                self.buf.extend_from_slice(space.filled());
                std::task::Poll::Ready(io::Result::Ok(space.filled().len()))
            })
            .await?
        } else {
            // Grows with what has arrived, not with what a header claims.
            let wanted = missing.clamp(self.read_size, LARGE_READ.max(self.buf.len()));
            // Room for a part of it is as good: to make more would move what is here.
            if self.buf.capacity() - self.buf.len() < wanted / 4 {
                self.buf.reserve(wanted);
            }
            self.io.read_buf(&mut self.buf).await?
        };
        if count >= self.read_size {
            self.read_size = (self.read_size * 2).min(LARGE_READ);
        }
        Ok(count)
    }

    /// Whether the stream has ended or holds bytes, where the peer has no reason to send any; never waits. After `true` the
    /// stream is of no more use.
    pub fn is_disturbed(&mut self) -> bool {
        let mut byte = [0];
        let mut space = ReadBuf::new(&mut byte);
        let polled = Pin::new(&mut self.io).poll_read(&mut Context::from_waker(Waker::noop()), &mut space);
        self.buffered() > 0 || polled.is_ready()
    }

    /// Bytes that the frame now arriving still lacks, as far as its header is known.
    fn missing(&self) -> usize {
        let arriving = &self.buf[self.done..];
        arriving.first_chunk::<3>().map_or(0, |&head| (4 + payload_len(head)).saturating_sub(arriving.len()))
    }

    /// Gives memory back before a wait. The packet returned last is gone.
    pub fn release(&mut self) {
        self.buf.advance(std::mem::take(&mut self.done));
        if self.buf.is_empty() && (self.buf.capacity() > KEEP_IDLE || self.cut) {
            self.buf = BytesMut::new();
            self.cut = false;
        }
        if !self.joining {
            self.joined = Vec::new();
        }
        self.read_size = SMALL_READ;
    }

    /// Throws away what the peer still sends, up to `bytes`.
    pub async fn discard(&mut self, bytes: usize) {
        let mut left = bytes;
        loop {
            self.done = 0;
            self.buf.clear();
            self.read_size = LARGE_READ;
            match self.fill().await {
                Ok(count) if count > 0 && count < left => left -= count,
                _ => return,
            }
        }
    }
}
