//! The frames of a connection as bytes.
//!
//! Owns: the layout of a frame, and the messages that are too long for one. Invariants: nothing is taken in that is longer
//! than [`MAX_PAYLOAD`]; an unknown or malformed frame is an error, after which the connection cannot be used.

use std::{
    collections::HashMap,
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// Most bytes behind the head of one frame. A longer message travels in several, between which others find room.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Length, kind, id.
pub(super) const HEAD: usize = 4 + 1 + 8;
/// What the length counts besides the payload.
const COUNTED_HEAD: usize = HEAD - 4;
/// Set in the kind of every frame of a message but the last.
const MORE: u8 = 0x80;
/// A payload up to this is copied out of the read buffer, so that a small message does not keep the whole buffer alive.
const COPIED: usize = 4 * 1024;

/// What a frame means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client: the first frame, a `framed.Hello`.
    Hello = 1,
    /// Server: the answer to it, a `framed.Welcome`.
    Welcome = 2,
    /// Client: a call. Method, deadline in ms (u32, 0 for none), then the request message.
    Request = 3,
    /// Server: the answer of a unary call, which ends it. From version 3 on in front of the message: how long the server has
    /// had the request, in µs (u32).
    Response = 4,
    /// Server: one message of a stream, or a piece of a result that the response ends.
    Item = 5,
    /// Server: the end of a stream. Also behind a cancelled call of which a message had begun to leave: the rest of it
    /// does not come.
    End = 6,
    /// Server: the failure that ends a call, a `vtrpc.RPCError`.
    Error = 7,
    /// Client: nobody waits for the call any more.
    Cancel = 8,
    /// Client: so many bytes (u32) of items have been read, as many more may be sent.
    Credit = 9,
    /// Client: asks whether the server is there.
    Ping = 10,
    /// Server: it is.
    Pong = 11,
    /// Server: calls that run may end, new ones belong on another connection.
    GoAway = 12,
    /// Server: the stream that was asked for has begun.
    Begun = 13,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::Hello,
        Self::Welcome,
        Self::Request,
        Self::Response,
        Self::Item,
        Self::End,
        Self::Error,
        Self::Cancel,
        Self::Credit,
        Self::Ping,
        Self::Pong,
        Self::GoAway,
        Self::Begun,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    /// Whether a message of this kind may be cut into several frames.
    fn divisible(self) -> bool {
        matches!(self, Self::Request | Self::Response | Self::Item)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    /// More frames of the same message follow.
    pub more: bool,
    /// The call that it belongs to; 0 for frames of the connection.
    pub id: u64,
    pub payload: Bytes,
}

/// Bytes that are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes, longer than any may be")]
    TooLong(usize),
    #[error("a frame of {0} bytes, shorter than its head")]
    TooShort(usize),
    #[error("a frame of the unknown kind {0}")]
    UnknownKind(u8),
    #[error("part of a frame at the end of the connection")]
    Truncated,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Writes the head of a frame whose payload of `length` bytes follows.
pub(super) fn put_head(out: &mut BytesMut, kind: Kind, more: bool, id: u64, length: usize) {
    debug_assert!(length <= MAX_PAYLOAD, "callers cut what is longer");
    // Cannot overflow: a payload is at most MAX_PAYLOAD.
    out.put_u32_le((COUNTED_HEAD + length) as u32);
    out.put_u8(kind as u8 | if more { MORE } else { 0 });
    out.put_u64_le(id);
}

/// Frames from bytes and back.
#[derive(Debug, Default)]
pub struct FrameCodec;

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(length) = from.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        // Checked before the rest is there: nobody makes us wait for, or hold, more than a frame.
        if length < COUNTED_HEAD {
            return Err(FrameError::TooShort(length));
        }
        if length > COUNTED_HEAD + MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        if let Some(&byte) = from.get(4)
            && Kind::from_byte(byte & !MORE).is_none_or(|kind| byte & MORE != 0 && !kind.divisible())
        {
            return Err(FrameError::UnknownKind(byte));
        }
        if from.len() < 4 + length {
            from.reserve(4 + length - from.len());
            return Ok(None);
        }
        from.advance(4);
        let byte = from.get_u8();
        let kind = Kind::from_byte(byte & !MORE).ok_or(FrameError::UnknownKind(byte))?;
        let id = from.get_u64_le();
        let size = length - COUNTED_HEAD;
        let payload = if size <= COPIED {
            let copy = Bytes::copy_from_slice(&from[..size]);
            from.advance(size);
            copy
        } else {
            from.split_to(size).freeze()
        };
        Ok(Some(Frame { kind, more: byte & MORE != 0, id, payload }))
    }

    fn decode_eof(&mut self, from: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(from)? {
            None if !from.is_empty() => Err(FrameError::Truncated),
            frame => Ok(frame),
        }
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        if frame.payload.len() > MAX_PAYLOAD {
            return Err(FrameError::TooLong(COUNTED_HEAD + frame.payload.len()));
        }
        put_head(out, frame.kind, frame.more, frame.id, frame.payload.len());
        out.extend_from_slice(&frame.payload);
        Ok(())
    }
}

/// Why a part of a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Longer than the receiver takes, or than it has room for.
    #[error("Error, decoded message length too large: found {found} bytes, the limit is: {limit} bytes")]
    TooLarge { found: usize, limit: usize },
    #[error("more than {0} unfinished messages on one connection")]
    TooMany(usize),
    #[error("more than {0} bytes of unfinished messages on all connections")]
    NoRoom(usize),
}

/// What an unfinished message counts besides its bytes: its entry, its buffer's least size, both with room to grow.
const ENTRY: usize = 256;

/// How much the unfinished messages of many connections may hold together.
#[derive(Debug)]
pub(super) struct Budget {
    taken: AtomicUsize,
    most: usize,
}

impl Budget {
    pub const fn new(most: usize) -> Self {
        Self { taken: AtomicUsize::new(0), most }
    }

    pub const fn most(&self) -> usize {
        self.most
    }

    pub fn take(&self, bytes: usize) -> bool {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= self.most {
            return true;
        }
        self.give_back(bytes);
        false
    }

    pub fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// How much of unfinished messages is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of one message.
    pub message: usize,
    /// Bytes in front of it that do not count.
    pub prefix: usize,
    /// Unfinished messages.
    pub count: usize,
    /// Bytes of all of them, with [`ENTRY`] for each.
    pub held: usize,
    /// The same of all connections.
    pub all: Option<&'static Budget>,
}

/// Puts messages together from the frames of many calls.
#[derive(Debug)]
pub(super) struct Assembler {
    parts: HashMap<u64, BytesMut>,
    /// Bytes in `parts`, with [`ENTRY`] for each.
    held: usize,
    limits: Limits,
}

impl Assembler {
    pub fn new(limits: Limits) -> Self {
        Self { parts: HashMap::new(), held: 0, limits }
    }

    /// Bounded by the calls that its owner has under way: nothing else is put together.
    pub fn of_client(max_message: usize, prefix: usize) -> Self {
        Self::new(Limits { message: max_message, prefix, count: usize::MAX, held: usize::MAX, all: None })
    }

    /// The message that the frame completes. A message of which a part is refused is dropped.
    pub fn add(&mut self, frame: &mut Frame) -> Result<Option<Bytes>, Refused> {
        let payload = std::mem::take(&mut frame.payload);
        let begun = if self.parts.is_empty() { None } else { self.parts.get(&frame.id).map(BytesMut::len) };
        let found = begun.unwrap_or(0) + payload.len();
        if found > self.limits.message + self.limits.prefix {
            self.forget(frame.id);
            return Err(Refused::TooLarge { found: found - self.limits.prefix, limit: self.limits.message });
        }
        if begun.is_none() && !frame.more {
            return Ok(Some(payload));
        }
        let added = payload.len() + if begun.is_none() { ENTRY } else { 0 };
        if let Err(refused) = self.take_room(frame.more, begun, added) {
            self.forget(frame.id);
            return Err(refused);
        }
        self.held += added;
        let part = self.parts.entry(frame.id).or_default();
        part.extend_from_slice(&payload);
        if frame.more {
            return Ok(None);
        }
        Ok(self.remove(frame.id).map(BytesMut::freeze))
    }

    fn take_room(&self, more: bool, begun: Option<usize>, added: usize) -> Result<(), Refused> {
        let limits = &self.limits;
        if begun.is_none() && self.parts.len() >= limits.count {
            return Err(Refused::TooMany(limits.count));
        }
        // The first message is taken however small the room is, else none ever fits.
        let alone = begun.map_or(0, |length| length + ENTRY) == self.held;
        if more && !alone && self.held + added > limits.held {
            return Err(Refused::TooLarge { found: self.held + added, limit: limits.held });
        }
        match limits.all {
            Some(all) if !all.take(added) => Err(Refused::NoRoom(all.most)),
            _ => Ok(()),
        }
    }

    fn remove(&mut self, id: u64) -> Option<BytesMut> {
        let part = self.parts.remove(&id)?;
        let counted = part.len() + ENTRY;
        self.held -= counted;
        if let Some(all) = self.limits.all {
            all.give_back(counted);
        }
        Some(part)
    }

    /// Whether every message begun is complete.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Drops what has come of a message.
    pub fn forget(&mut self, id: u64) {
        self.remove(id);
    }
}

impl Drop for Assembler {
    fn drop(&mut self) {
        if let Some(all) = self.limits.all {
            all.give_back(self.held);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        (0..Kind::ALL.len()).prop_map(|index| Kind::ALL[index])
    }

    fn frames() -> impl Strategy<Value = Frame> {
        (kinds(), any::<bool>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..9000)).prop_map(
            |(kind, more, id, payload)| Frame { kind, more: more && kind.divisible(), id, payload: payload.into() },
        )
    }

    proptest! {
        /// However the network cuts them, frames arrive as they were sent.
        #[test]
        fn frames_survive_any_cut(sent in prop::collection::vec(frames(), 0..6), cuts in prop::collection::vec(1usize..5000, 0..40)) {
            let mut wire = BytesMut::new();
            for frame in &sent {
                FrameCodec.encode(frame.clone(), &mut wire).expect("fits");
            }
            let (mut got, mut buffer, mut cuts) = (Vec::new(), BytesMut::new(), cuts.into_iter());
            while !wire.is_empty() {
                let cut = cuts.next().unwrap_or(usize::MAX).min(wire.len());
                buffer.extend_from_slice(&wire.split_to(cut));
                while let Some(frame) = FrameCodec.decode(&mut buffer).expect("valid") {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, sent);
            prop_assert!(FrameCodec.decode_eof(&mut buffer).expect("nothing left").is_none());
        }

        /// Whatever bytes come, decoding ends, and asks for no more memory than a frame has.
        #[test]
        fn any_bytes_end_in_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = FrameCodec.decode(&mut buffer) {
                prop_assert!(frame.payload.len() <= MAX_PAYLOAD);
            }
            prop_assert!(buffer.capacity() <= bytes.len().max(HEAD + MAX_PAYLOAD) * 2);
        }

        /// A frame cut short is not a frame, and at the end of a connection an error.
        #[test]
        fn a_cut_frame_is_not_taken(frame in frames(), cut in 1usize..HEAD) {
            let mut wire = BytesMut::new();
            FrameCodec.encode(frame, &mut wire).expect("fits");
            wire.truncate(wire.len() - cut.min(wire.len() - 1));
            prop_assert!(FrameCodec.decode(&mut wire).expect("valid so far").is_none());
            prop_assert!(matches!(FrameCodec.decode_eof(&mut wire), Err(FrameError::Truncated)));
        }

        /// Messages that are sent in pieces between one another come out whole.
        #[test]
        fn interleaved_messages_are_put_together(lengths in prop::collection::vec(0usize..2000, 1..6), piece in 1usize..700) {
            let messages: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(n, len)| vec![n as u8; *len]).collect();
            let mut queues: Vec<(u64, Vec<Frame>)> = Vec::new();
            for (n, message) in messages.iter().enumerate() {
                let mut chunks: Vec<&[u8]> = message.chunks(piece).collect();
                if chunks.is_empty() { chunks.push(&[]); }
                let last = chunks.len() - 1;
                let frames = chunks.iter().enumerate().map(|(i, chunk)| Frame {
                    kind: Kind::Item, more: i < last, id: n as u64, payload: Bytes::copy_from_slice(chunk),
                });
                queues.push((n as u64, frames.rev().collect()));
            }
            let mut assembler = Assembler::of_client(1 << 20, 0);
            let mut done = HashMap::new();
            while !queues.is_empty() {
                queues.retain_mut(|(id, frames)| {
                    let Some(mut frame) = frames.pop() else { return false };
                    if let Some(whole) = assembler.add(&mut frame).expect("small enough") {
                        done.insert(*id, whole);
                    }
                    true
                });
            }
            for (n, message) in messages.iter().enumerate() {
                prop_assert_eq!(&done[&(n as u64)][..], &message[..]);
            }
            prop_assert_eq!(assembler.held, 0);
        }
    }

    #[test]
    fn malformed_frames_are_named() {
        let decode = |bytes: &[u8]| FrameCodec.decode(&mut BytesMut::from(bytes)).map(drop).expect_err("malformed");
        assert!(matches!(decode(&[8, 0, 0, 0]), FrameError::TooShort(8)));
        assert!(matches!(decode(&[0xff, 0xff, 0xff, 0xff]), FrameError::TooLong(_)));
        assert!(matches!(decode(&[9, 0, 0, 0, 0]), FrameError::UnknownKind(0)));
        assert!(matches!(decode(&[9, 0, 0, 0, 14]), FrameError::UnknownKind(14)));
        // A ping in several parts.
        assert!(matches!(decode(&[9, 0, 0, 0, 0x8a]), FrameError::UnknownKind(0x8a)));
        // What an HTTP/2 server says first.
        assert!(decode(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00").to_string().contains("longer than any may be"));
    }

    fn part(assembler: &mut Assembler, id: u64, size: usize, more: bool) -> Result<Option<usize>, Refused> {
        let whole = assembler.add(&mut Frame { kind: Kind::Request, more, id, payload: vec![0; size].into() })?;
        Ok(whole.map(|whole| whole.len()))
    }

    #[test]
    fn what_is_too_large_is_refused_and_let_go() {
        let limit = 150 + 2 * ENTRY;
        let limits = Limits { message: 100, prefix: 0, count: 10, held: limit, all: None };
        let mut assembler = Assembler::new(limits);
        let mut frame = |id: u64, size: usize, more: bool| part(&mut assembler, id, size, more);
        assert_eq!(frame(1, 60, true), Ok(None));
        assert_eq!(frame(1, 60, true), Err(Refused::TooLarge { found: 120, limit: 100 }));
        assert_eq!(frame(2, 90, true), Ok(None));
        assert_eq!(frame(3, 90, true), Err(Refused::TooLarge { found: limit + 30, limit }));
        assert_eq!(frame(4, 90, false), Ok(Some(90)), "held by nobody");
        assert_eq!(frame(2, 10, false), Ok(Some(100)));
        assert_eq!(assembler.held, 0);
        // Alone, it is taken where there is less room than for any.
        let mut assembler = Assembler::new(Limits { held: 10, ..limits });
        for _ in 0..10 {
            assert_eq!(part(&mut assembler, 1, 9, true), Ok(None));
        }
        assert_eq!(part(&mut assembler, 1, 9, false), Ok(Some(99)));
    }

    #[test]
    fn empty_beginnings_count_too() {
        let limits = Limits { message: 100, prefix: 0, count: 3, held: 1 << 20, all: None };
        let mut assembler = Assembler::new(limits);
        for id in 0..3 {
            assert_eq!(part(&mut assembler, id, 0, true), Ok(None));
        }
        assert_eq!(part(&mut assembler, 3, 0, true), Err(Refused::TooMany(3)));
        assert_eq!(part(&mut assembler, 1, 1, true), Ok(None), "those begun go on");
        assert_eq!(part(&mut assembler, 3, 7, false), Ok(Some(7)), "held by nobody");
        assert_eq!(part(&mut assembler, 0, 5, false), Ok(Some(5)), "it began with nothing");
        assert_eq!(part(&mut assembler, 3, 0, true), Ok(None), "in its place");
        for id in 1..4 {
            assembler.forget(id);
        }
        assert!(assembler.is_empty());
        assert_eq!(assembler.held, 0);
        let held = 2 * ENTRY;
        let mut assembler = Assembler::new(Limits { held, ..limits });
        assert_eq!([1, 2].map(|id| part(&mut assembler, id, 0, true)), [Ok(None); 2]);
        assert_eq!(part(&mut assembler, 3, 0, true), Err(Refused::TooLarge { found: 3 * ENTRY, limit: held }));
    }

    #[test]
    fn connections_share_a_budget_and_give_it_back() {
        let all: &'static Budget = Box::leak(Box::new(Budget::new(3 * (100 + ENTRY))));
        let limits = Limits { message: 1000, prefix: 0, count: 10, held: 1 << 20, all: Some(all) };
        let [mut one, mut two, mut three] = [limits; 3].map(Assembler::new);
        assert_eq!(part(&mut one, 1, 100, true), Ok(None));
        assert_eq!(part(&mut two, 1, 200, true), Ok(None));
        assert_eq!(part(&mut three, 1, 101, true), Err(Refused::NoRoom(all.most)));
        assert_eq!(part(&mut two, 1, ENTRY + 1, true), Err(Refused::NoRoom(all.most)));
        assert_eq!(part(&mut three, 1, 200, true), Ok(None), "the second's was let go");
        assert_eq!(part(&mut one, 1, 0, false), Ok(Some(100)));
        assert_eq!(all.taken.load(Ordering::Relaxed), 200 + ENTRY);
        drop(three);
        assert_eq!(all.taken.load(Ordering::Relaxed), 0);
    }
}
