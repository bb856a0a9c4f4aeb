//! Reads and writes a connection: the one task that touches its socket.
//!
//! Owns: when bytes move. One read brings the frames of many calls; one write takes what all of them have queued. While the
//! [`Peer`] is full nothing is read; writing goes on, and is all that ends that. Does not own: what frames mean, which is the
//! peer's business.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::{codec::Decoder, io::poll_read_buf};

use super::{
    codec::{Frame, FrameCodec, FrameError},
    outbox::Outbox,
    pieces::Batch,
};

/// Room for one read, and for one while much is arriving.
const READ: usize = 64 * 1024;
const LARGE_READ: usize = 256 * 1024;
/// Frames taken in before others on the same thread get their turn.
const BUDGET: usize = 256;
/// Frames taken in before the peer is asked again whether it is full: to look at what all senders count in costs a little.
const UNCHECKED: usize = 16;

/// What the two ends do with frames.
pub(super) trait Peer {
    /// An error ends the connection.
    fn frame(&mut self, frame: Frame) -> Result<(), Ended>;
    /// Whether more than one call is under way, so that waiting a moment may bring more to write.
    fn is_busy(&self) -> bool;
    /// Whether no frame may be taken in until more has been written.
    fn is_full(&self) -> bool;
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// By either side, between frames.
    #[error("the connection was closed")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("malformed: {0}")]
    Frame(FrameError),
    #[error("unexpected: {0}")]
    Protocol(String),
}

impl From<FrameError> for Ended {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => Self::Io(error),
            error => Self::Frame(error),
        }
    }
}

/// Moves frames until the connection ends. `input` holds what has been read of it so far.
pub(super) async fn drive<S, P>(io: &mut S, input: BytesMut, outbox: &Outbox, peer: &mut P) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
    P: Peer,
{
    let mut driver =
        Driver { io, input, read: READ, output: Batch::default(), outbox, peer, waited: false, flush: false };
    let ended = poll_fn(|cx| driver.poll(cx)).await;
    outbox.abandon();
    ended
}

struct Driver<'a, S, P> {
    io: &'a mut S,
    input: BytesMut,
    /// Room for the next read.
    read: usize,
    output: Batch,
    outbox: &'a Outbox,
    peer: &'a mut P,
    /// Others have had the chance to queue more before the next write.
    waited: bool,
    /// Written, but maybe not out of the stream's own buffer.
    flush: bool,
}

/// Why reading stopped before the bytes did.
enum Paused {
    /// Others on the same thread get their turn.
    Budget,
    /// Of writing. The end of the connection shows there too: a peer that leaves with answers unread resets it.
    Full,
}

impl<S, P> Driver<'_, S, P>
where
    S: AsyncRead + AsyncWrite + Unpin,
    P: Peer,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let full = match self.poll_read(cx) {
                Poll::Ready(Err(ended)) => return Poll::Ready(ended),
                Poll::Ready(Ok(Paused::Full)) => true,
                // The rest of the frames lie in the buffer.
                Poll::Ready(Ok(Paused::Budget)) => {
                    cx.waker().wake_by_ref();
                    false
                }
                Poll::Pending => false,
            };
            if let Poll::Ready(ended) = self.poll_write(cx) {
                return Poll::Ready(ended);
            }
            // Still full: whatever lets the writer go on brings us back here.
            if !full || self.peer.is_full() {
                return Poll::Pending;
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Paused, Ended>> {
        let mut budget = BUDGET;
        loop {
            while budget > 0 {
                // Not only before each read: what one brings may ask for more than there is room for.
                if budget.is_multiple_of(UNCHECKED) && self.peer.is_full() {
                    return Poll::Ready(Ok(Paused::Full));
                }
                let Some(frame) = FrameCodec.decode(&mut self.input)? else { break };
                self.peer.frame(frame)?;
                budget -= 1;
            }
            if budget == 0 {
                return Poll::Ready(Ok(Paused::Budget));
            }
            if self.input.capacity() - self.input.len() < self.read / 4 {
                self.input.reserve(self.read);
            }
            let count = ready!(poll_read_buf(Pin::new(&mut *self.io), cx, &mut self.input))?;
            if count == 0 {
                FrameCodec.decode_eof(&mut self.input)?;
                return Poll::Ready(Err(Ended::Closed));
            }
            self.read = if count >= READ { LARGE_READ } else { READ };
        }
    }

    /// Pending while the connection lives.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            while !self.output.is_empty() {
                let count = match ready!(self.output.poll_write(&mut *self.io, cx)) {
                    Ok(0) => return Poll::Ready(Ended::Io(io::ErrorKind::WriteZero.into())),
                    Ok(count) => count,
                    Err(error) => return Poll::Ready(error.into()),
                };
                self.outbox.written(count);
                self.flush = true;
            }
            if self.flush {
                if let Err(error) = ready!(Pin::new(&mut *self.io).poll_flush(cx)) {
                    return Poll::Ready(error.into());
                }
                self.flush = false;
            }
            if !self.waited && self.outbox.has_some() && self.peer.is_busy() {
                // Whatever can run now runs before this task does again, and queues its frames.
                self.waited = true;
                if pin!(tokio::task::yield_now()).poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            self.waited = false;
            self.output.clear();
            if !self.outbox.take(&mut self.output, cx.waker()) {
                return match ready!(Pin::new(&mut *self.io).poll_shutdown(cx)) {
                    Ok(()) => Poll::Ready(Ended::Closed),
                    Err(error) => Poll::Ready(error.into()),
                };
            }
            if self.output.is_empty() {
                return Poll::Pending;
            }
        }
    }
}
