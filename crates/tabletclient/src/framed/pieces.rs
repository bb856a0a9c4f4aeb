//! Bytes on their way out that are not in one place.
//!
//! Owns: messages whose long fields are not copied when they are encoded, and what one write takes of them. A piece of rows
//! leaves from the memory that it was read into.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut, buf::UninitSlice};
use tokio::io::AsyncWrite;

/// Bytes of a field from which on it is not copied.
const LONG_FIELD: usize = 4 << 10;
/// Bytes of short fields from which on a new buffer is begun. One that grew on would be copied each time.
const CHUNK: usize = 64 << 10;
/// Pieces that one write takes at most.
const SLICES: usize = 32;

/// An encoded message. Messages are encoded into it as into any buffer.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// In their order; none is empty.
    pieces: VecDeque<Bytes>,
    /// Their bytes.
    length: usize,
    /// What comes behind them and is still added to.
    end: BytesMut,
}

impl Pieces {
    pub fn len(&self) -> usize {
        self.length + self.end.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }

    fn close(&mut self) {
        let end = std::mem::take(&mut self.end).freeze();
        self.push(end);
    }

    /// Begins a new buffer if this one is large and would have to grow for `bytes` more.
    fn make_room(&mut self, bytes: usize) {
        if self.end.len() >= CHUNK && self.end.capacity() - self.end.len() < bytes {
            self.close();
            self.end.reserve(CHUNK.max(bytes));
        }
    }

    /// Moves the first `bytes` of it to the end of `to`.
    fn split_to(&mut self, mut bytes: usize, to: &mut VecDeque<Bytes>) {
        self.close();
        while bytes > 0
            && let Some(mut piece) = self.pieces.pop_front()
        {
            let part = piece.split_to(piece.len().min(bytes));
            if !piece.is_empty() {
                self.pieces.push_front(piece);
            }
            bytes -= part.len();
            self.length -= part.len();
            to.push_back(part);
        }
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        let mut pieces = Self::default();
        pieces.push(bytes);
        pieces
    }
}

// SAFETY: the memory that is handed out, and the count of what was written to it, are those of a `BytesMut`.
unsafe impl BufMut for Pieces {
    fn remaining_mut(&self) -> usize {
        self.end.remaining_mut()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller has written so many bytes to `chunk_mut`.
        unsafe { self.end.advance_mut(count) };
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.end.chunk_mut()
    }

    fn put<T: Buf>(&mut self, mut field: T) {
        if field.remaining() < LONG_FIELD {
            self.make_room(field.remaining());
            return self.end.put(field);
        }
        self.close();
        // Of `Bytes` this is another handle to the same memory.
        self.push(field.copy_to_bytes(field.remaining()));
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.end.put_slice(bytes);
    }
}

/// What is written next.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Leaves first.
    pub short: BytesMut,
    /// Bytes of `short` that have left.
    sent: usize,
    /// Leaves behind it; none is empty.
    long: VecDeque<Bytes>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.sent == self.short.len() && self.long.is_empty()
    }

    pub fn has_only_short(&self) -> bool {
        self.long.is_empty()
    }

    /// Makes it ready to be filled again. Its allocation stays.
    pub fn clear(&mut self) {
        self.short.clear();
        self.sent = 0;
        self.long.clear();
    }

    /// Adds a frame: its head, and the first `bytes` of a message.
    pub fn add(&mut self, head: Bytes, message: &mut Pieces, bytes: usize) {
        self.long.push_back(head);
        message.split_to(bytes, &mut self.long);
    }

    /// Writes once. How many bytes have left.
    pub fn poll_write<S: AsyncWrite + Unpin>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let short = &self.short[self.sent..];
        let written = if self.long.is_empty() {
            Pin::new(io).poll_write(cx, short)
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            let pieces = self.long.iter().map(|piece| &piece[..]);
            for (slice, piece) in slices.iter_mut().zip([short].into_iter().filter(|s| !s.is_empty()).chain(pieces)) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            Pin::new(io).poll_write_vectored(cx, &slices[..count])
        };
        if let Poll::Ready(Ok(count)) = written {
            self.advance(count);
        }
        written
    }

    fn advance(&mut self, mut count: usize) {
        let short = count.min(self.short.len() - self.sent);
        self.sent += short;
        count -= short;
        while count > 0
            && let Some(piece) = self.long.front_mut()
        {
            let part = count.min(piece.len());
            piece.advance(part);
            count -= part;
            if piece.is_empty() {
                self.long.pop_front();
            }
        }
    }
}

#[cfg(test)]
impl Batch {
    /// All of it, as if it had been written.
    pub fn take(&mut self) -> Vec<u8> {
        let mut all = self.short[self.sent..].to_vec();
        self.long.iter().for_each(|piece| all.extend_from_slice(piece));
        self.clear();
        all
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use prost::Message;
    use vtproto::query;

    use super::*;

    fn rows(size: usize) -> query::StreamExecuteResponse {
        let raw_rows = (0..size).map(|i| i as u8).collect::<Vec<_>>().into();
        query::StreamExecuteResponse {
            result: Some(query::QueryResult { rows_affected: 3, raw_rows, ..Default::default() }),
        }
    }

    /// A socket that takes a few bytes at a time, of as many pieces as it is given.
    struct Slow {
        taken: Vec<u8>,
        each: usize,
    }

    impl AsyncWrite for Slow {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let before = self.taken.len();
            for slice in slices {
                let room = self.each - (self.taken.len() - before);
                let part = &slice[..slice.len().min(room)];
                self.taken.extend_from_slice(part);
            }
            Poll::Ready(Ok(self.taken.len() - before))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn rows_stay_where_they_are() {
        let message = rows(50_000);
        let mut pieces = Pieces::default();
        message.encode(&mut pieces).expect("it grows");
        assert_eq!(pieces.len(), message.encoded_len());
        let mut parts = VecDeque::new();
        pieces.split_to(pieces.len(), &mut parts);
        assert!(pieces.is_empty());
        let rows = &message.result.as_ref().expect("a result").raw_rows;
        assert!(parts.iter().any(|part| part.as_ptr() == rows.as_ptr()), "not a copy");
        let all = parts.iter().flatten().copied().collect::<Vec<u8>>();
        assert_eq!(all, message.encode_to_vec());
    }

    #[test]
    fn many_short_fields_are_not_copied_again_and_again() {
        let row = query::Row { lengths: vec![3; 500], values: vec![b'x'; 1500].into() };
        let message = query::QueryResult { rows: vec![row; 500], ..Default::default() };
        let mut pieces = Pieces::default();
        message.encode(&mut pieces).expect("it grows");
        let mut parts = VecDeque::new();
        pieces.split_to(usize::MAX, &mut parts);
        assert!(parts.iter().all(|part| part.len() <= 2 * CHUNK), "no buffer has grown to the whole");
        assert_eq!(parts.iter().flatten().copied().collect::<Vec<u8>>(), message.encode_to_vec());
    }

    #[test]
    fn what_is_written_in_parts_arrives_whole() {
        for each in [1, 12, 13, 14, 999, 4096, 1 << 20] {
            let (first, second) = (rows(10_000), rows(100));
            let mut batch = Batch::default();
            batch.short.extend_from_slice(b"short frames");
            let mut expected = batch.short.to_vec();
            for message in [&first, &second] {
                let mut pieces = Pieces::default();
                message.encode(&mut pieces).expect("it grows");
                let all = message.encode_to_vec();
                for part in all.chunks(6_000) {
                    batch.add(Bytes::from_static(b"head"), &mut pieces, part.len());
                    expected.extend_from_slice(b"head");
                    expected.extend_from_slice(part);
                }
            }
            let mut io = Slow { taken: Vec::new(), each };
            while !batch.is_empty() {
                let written = batch.poll_write(&mut io, &mut Context::from_waker(Waker::noop()));
                assert!(matches!(written, Poll::Ready(Ok(1..))), "each {each}");
            }
            assert!(io.taken == expected, "each {each}");
        }
    }
}
