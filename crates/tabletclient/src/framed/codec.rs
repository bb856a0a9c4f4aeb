//! The frames of a connection as bytes.
//!
//! Owns: the layout of a frame, and the messages that are too long for one. Invariants: nothing is taken in that is longer
//! than [`MAX_PAYLOAD`]; an unknown or malformed frame is an error, after which the connection cannot be used.

use std::{collections::HashMap, io};

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
    /// Server: the answer of a unary call, which ends it.
    Response = 4,
    /// Server: one message of a stream.
    Item = 5,
    /// Server: the end of a stream. Also behind a cancelled call of which a message had begun to leave: the rest of it
    /// does not come.
    End = 6,
    /// Server: the failure that ends a call, a `vtrpc.RPCError`.
    Error = 7,
    /// Client: nobody waits for the call any more.
    Cancel = 8,
    /// Client: so many bytes (u32) of a stream have been read, as many more may be sent.
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

/// A message that is longer than the receiver takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub found: usize,
    pub limit: usize,
}

/// Puts messages together from the frames of many calls.
#[derive(Debug)]
pub(super) struct Assembler {
    parts: HashMap<u64, BytesMut>,
    /// Bytes in `parts`.
    held: usize,
    max_message: usize,
    max_held: usize,
}

impl Assembler {
    /// `max_message` bytes of one message, `max_held` of all that are not complete.
    pub fn new(max_message: usize, max_held: usize) -> Self {
        Self { parts: HashMap::new(), held: 0, max_message, max_held }
    }

    /// The message that the frame completes.
    pub fn add(&mut self, frame: &mut Frame) -> Result<Option<Bytes>, TooLarge> {
        let payload = std::mem::take(&mut frame.payload);
        let so_far = if self.parts.is_empty() { 0 } else { self.parts.get(&frame.id).map_or(0, BytesMut::len) };
        let found = so_far + payload.len();
        if found > self.max_message {
            self.forget(frame.id);
            return Err(TooLarge { found, limit: self.max_message });
        }
        if so_far == 0 && !frame.more {
            return Ok(Some(payload));
        }
        // The first message is taken however small the room is, else none ever fits.
        if frame.more && self.held > 0 && self.held + payload.len() > self.max_held && so_far < self.held {
            self.forget(frame.id);
            return Err(TooLarge { found: self.held + payload.len(), limit: self.max_held });
        }
        self.held += payload.len();
        let part = self.parts.entry(frame.id).or_default();
        part.extend_from_slice(&payload);
        if frame.more {
            return Ok(None);
        }
        let whole = self.parts.remove(&frame.id).unwrap_or_default();
        self.held -= whole.len();
        Ok(Some(whole.freeze()))
    }

    /// Whether every message begun is complete.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Drops what has come of a message.
    pub fn forget(&mut self, id: u64) {
        if let Some(part) = self.parts.remove(&id) {
            self.held -= part.len();
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
            let mut assembler = Assembler::new(1 << 20, 1 << 20);
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

    #[test]
    fn what_is_too_large_is_refused_and_let_go() {
        let mut assembler = Assembler::new(100, 150);
        let mut frame = |id: u64, size: usize, more: bool| {
            assembler.add(&mut Frame { kind: Kind::Request, more, id, payload: vec![0; size].into() })
        };
        assert_eq!(frame(1, 60, true), Ok(None));
        assert_eq!(frame(1, 60, true), Err(TooLarge { found: 120, limit: 100 }));
        assert_eq!(frame(2, 90, true), Ok(None));
        assert_eq!(frame(3, 90, true), Err(TooLarge { found: 180, limit: 150 }));
        assert_eq!(frame(4, 90, false).map(|whole| whole.map(|w| w.len())), Ok(Some(90)), "held by nobody");
        assert_eq!(frame(2, 10, false).map(|whole| whole.map(|w| w.len())), Ok(Some(100)));
        assert_eq!(assembler.held, 0);
    }
}
