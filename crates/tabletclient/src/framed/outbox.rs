//! What waits to be written on a connection.
//!
//! Owns: the queue between the tasks that send and the one that writes. Small frames lie one behind the other in one buffer,
//! which the writer takes whole: one write carries whatever all callers have queued. Longer messages are cut into frames, which
//! take turns with each other and with the small ones. Invariants: frames of one call leave in the order they were put in;
//! senders that wait in [`Outbox::room`] first keep the queue at about [`LIMIT`]; what they hold meanwhile is counted
//! ([`Outbox::hold`]), and [`Outbox::is_overfull`] says when a server has to stop taking in what it would have to answer.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::sync::Notify;

use super::{
    codec::{Budget, HEAD, Kind, MAX_PAYLOAD, put_head},
    pieces::{Batch, Pieces},
};

/// Bytes of a message up to which it is short: put between others without taking turns.
const SHORT: usize = 16 << 10;
/// Bytes queued above which senders wait.
const LIMIT: usize = 8 << 20;
/// Bytes of short frames queued above which the outbox is overfull. More than [`LIMIT`], around which streams keep it.
const MOST_SHORT: usize = 16 << 20;
/// Bytes queued and held above which the outbox is overfull.
const MOST_WAITING: usize = 64 << 20;
/// Bytes queued and held above which no more are held. Half of what all connections may hold.
const MOST_HELD: usize = 256 << 20;
/// An answer up to this is held in any case: that a transaction was committed is not told by an error.
const ALWAYS_HELD: usize = 4 * 1024;
/// Bytes up to which one write takes further frames of long messages. Short ones wait for no more than that.
const GATHERED: usize = 4 * MAX_PAYLOAD;
/// A write buffer that has grown beyond this is not used again.
const KEPT: usize = 128 * 1024;

/// The queue of one connection.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// Bytes queued, for those who only want to know whether there is room.
    queued: AtomicUsize,
    /// Those of them that are in `Queue::large`.
    long: AtomicUsize,
    /// Bytes that wait for room outside of the queue.
    held: AtomicUsize,
    /// What all connections together may hold in that way.
    all: Option<&'static Budget>,
    room: Notify,
}

/// Bytes that wait for room, counted until this is dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    outbox: &'a Outbox,
    bytes: usize,
    /// Bytes counted in `all` as well.
    counted: usize,
    all: Option<&'static Budget>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.outbox.held.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(all) = self.all {
            all.give_back(self.counted);
        }
        // It may be what the connection's task waits for to read on.
        wake(self.outbox.lock());
    }
}

#[derive(Debug, Default)]
struct Queue {
    small: BytesMut,
    /// Messages longer than [`SHORT`], and such as come behind one of the same call.
    large: VecDeque<Large>,
    /// The writer, while it waits for something to write.
    writer: Option<Waker>,
    /// Nothing is taken in any more.
    closed: bool,
}

#[derive(Debug)]
struct Large {
    id: u64,
    /// Kind and what is left of each message.
    messages: VecDeque<(Kind, Pieces)>,
    /// Whether a frame of it has left.
    begun: bool,
}

/// What [`Outbox::withdraw`] found of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withdrawn {
    /// No long message: what there was of the call has left, or leaves.
    Nothing,
    /// Messages of which nothing had left.
    Unsent,
    /// The other side has the beginning of what was dropped.
    Rest,
}

impl Outbox {
    /// Of a connection that shares `all` with others.
    pub fn sharing(all: &'static Budget) -> Self {
        Self { all: Some(all), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every section is a few steps without a panic between.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the queue is short enough for another message.
    pub async fn room(&self) {
        while self.queued.load(Ordering::Relaxed) >= LIMIT {
            let free = self.room.notified();
            if self.queued.load(Ordering::Relaxed) < LIMIT {
                return;
            }
            free.await;
        }
    }

    /// Whether [`Outbox::room`] would not wait.
    pub fn has_room(&self) -> bool {
        self.queued.load(Ordering::Relaxed) < LIMIT
    }

    /// Counts bytes that are to wait for room. `None` when so many wait already, here or on all connections, that these have to
    /// be given up.
    pub fn hold(&self, bytes: usize) -> Option<Held<'_>> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed) + self.queued.load(Ordering::Relaxed);
        // One that is larger than all may be has to be alone.
        let counted = self.all.map_or(0, |all| bytes.min(all.most()));
        let all = self.all.filter(|all| all.take(counted));
        let held = Held { outbox: self, bytes, counted, all };
        let fits = before < MOST_HELD && all.is_some() == self.all.is_some();
        (fits || bytes <= ALWAYS_HELD).then_some(held)
    }

    /// Whether more waits to be written than a peer that reads lets come together. Ends by writing alone: the writer asks
    /// again after each write, and is woken when something held is let go.
    pub fn is_overfull(&self) -> bool {
        let queued = self.queued.load(Ordering::Relaxed);
        queued.saturating_sub(self.long.load(Ordering::Relaxed)) >= MOST_SHORT
            || queued + self.held.load(Ordering::Relaxed) >= MOST_WAITING
    }

    /// Queues a message of a call behind a fixed prefix. False when the connection has ended.
    pub fn message(&self, kind: Kind, id: u64, prefix: &[u8], message: &impl Message) -> bool {
        let length = prefix.len() + message.encoded_len();
        if length > SHORT {
            // Encoded without the lock: that takes long.
            let mut pieces = Pieces::default();
            pieces.put_slice(prefix);
            encode(message, &mut pieces);
            return self.put_large(id, kind, pieces);
        }
        self.put(kind, id, length, |out| {
            out.put_slice(prefix);
            encode(message, out);
        })
    }

    /// [`Outbox::message`] of one that is encoded.
    pub fn encoded(&self, kind: Kind, id: u64, message: Bytes) -> bool {
        if message.len() > SHORT { self.put_large(id, kind, message.into()) } else { self.frame(kind, id, &message) }
    }

    /// Queues a frame that is not longer than a frame may be.
    pub fn frame(&self, kind: Kind, id: u64, payload: &[u8]) -> bool {
        self.put(kind, id, payload.len(), |out| out.put_slice(payload))
    }

    fn put(&self, kind: Kind, id: u64, length: usize, write: impl FnOnce(&mut BytesMut)) -> bool {
        let mut queue = self.lock();
        if queue.closed {
            return false;
        }
        if let Some(large) = queue.large.iter_mut().find(|large| large.id == id) {
            let mut bytes = BytesMut::with_capacity(length);
            write(&mut bytes);
            large.messages.push_back((kind, bytes.freeze().into()));
            self.queued.fetch_add(length, Ordering::Relaxed);
            self.long.fetch_add(length, Ordering::Relaxed);
        } else {
            queue.small.reserve(HEAD + length);
            put_head(&mut queue.small, kind, false, id, length);
            write(&mut queue.small);
            self.queued.fetch_add(HEAD + length, Ordering::Relaxed);
        }
        wake(queue)
    }

    fn put_large(&self, id: u64, kind: Kind, message: Pieces) -> bool {
        let mut queue = self.lock();
        if queue.closed {
            return false;
        }
        self.queued.fetch_add(message.len(), Ordering::Relaxed);
        self.long.fetch_add(message.len(), Ordering::Relaxed);
        match queue.large.iter_mut().find(|large| large.id == id) {
            Some(large) => large.messages.push_back((kind, message)),
            None => queue.large.push_back(Large { id, messages: [(kind, message)].into(), begun: false }),
        }
        wake(queue)
    }

    /// Drops what is queued of a call with a long message.
    pub fn withdraw(&self, id: u64) -> Withdrawn {
        let mut queue = self.lock();
        let Some(at) = queue.large.iter().position(|large| large.id == id) else { return Withdrawn::Nothing };
        let withdrawn = if queue.large[at].begun { Withdrawn::Rest } else { Withdrawn::Unsent };
        let bytes =
            queue.large.remove(at).map_or(0, |large| large.messages.iter().map(|(_, message)| message.len()).sum());
        self.long.fetch_sub(bytes, Ordering::Relaxed);
        drop(queue);
        self.written(bytes);
        withdrawn
    }

    /// Takes nothing in from here on. What is queued is still written.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        wake(queue);
    }

    /// Drops what is queued, and with it the connection. Lets go whoever waits for room.
    pub fn abandon(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.small = BytesMut::new();
        queue.large.clear();
        self.long.store(0, Ordering::Relaxed);
        wake(queue);
        self.queued.store(0, Ordering::Relaxed);
        self.room.notify_waiters();
    }

    /// Whether there is something to write. May miss what is being put in at this moment.
    pub fn has_some(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > 0
    }

    /// The next bytes to write, put into the empty `out`; its allocation is used again. Without any, `writer` is woken when
    /// there are. False at the end: closed, and everything taken.
    pub fn take(&self, out: &mut Batch, writer: &Waker) -> bool {
        let mut queue = self.lock();
        if out.short.capacity() > KEPT {
            out.short = BytesMut::new();
        }
        std::mem::swap(&mut out.short, &mut queue.small);
        let mut gathered = out.short.len();
        // One at least: short frames that keep coming do not keep a long message back.
        while (gathered < GATHERED || out.has_only_short())
            && let Some(mut large) = queue.large.pop_front()
        {
            if let Some((kind, message)) = large.messages.front_mut() {
                let part = message.len().min(MAX_PAYLOAD);
                let mut head = BytesMut::with_capacity(HEAD);
                put_head(&mut head, *kind, part < message.len(), large.id, part);
                out.add(head.freeze(), message, part);
                gathered += HEAD + part;
                // Heads of cut messages are not counted when they are put in.
                self.queued.fetch_add(HEAD, Ordering::Relaxed);
                self.long.fetch_sub(part, Ordering::Relaxed);
                large.begun = true;
                if message.is_empty() {
                    large.messages.pop_front();
                }
            }
            if !large.messages.is_empty() {
                queue.large.push_back(large);
            }
        }
        if out.is_empty() && !queue.closed {
            match &mut queue.writer {
                Some(known) => known.clone_from(writer),
                none => *none = Some(writer.clone()),
            }
        }
        !(out.is_empty() && queue.closed)
    }

    /// Says that bytes of [`Outbox::take`] have left.
    pub fn written(&self, bytes: usize) {
        let before = self.queued.fetch_sub(bytes, Ordering::Relaxed);
        if before >= LIMIT {
            self.room.notify_waiters();
        }
    }
}

/// A message as bytes of its own, behind `prefix`.
pub(super) fn encoded(prefix: &[u8], message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(prefix.len() + message.encoded_len());
    bytes.put_slice(prefix);
    encode(message, &mut bytes);
    bytes.freeze()
}

fn encode(message: &impl Message, out: &mut impl BufMut) {
    // The only error is too little room, and the buffer grows.
    message.encode(out).expect("a growing buffer has room");
}

/// Wakes the writer if it waits. Always true, for the callers' answer.
fn wake(mut queue: MutexGuard<'_, Queue>) -> bool {
    let writer = queue.writer.take();
    drop(queue);
    if let Some(writer) = writer {
        writer.wake();
    }
    true
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, atomic::AtomicBool},
        task::Wake,
    };

    use tokio_util::codec::Decoder;

    use super::*;
    use crate::framed::codec::{Frame, FrameCodec};

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn drain(outbox: &Outbox) -> Vec<Frame> {
        let (mut all, mut out) = (BytesMut::new(), Batch::default());
        loop {
            outbox.take(&mut out, Waker::noop());
            let taken = out.take();
            if taken.is_empty() {
                break;
            }
            outbox.written(taken.len());
            all.extend_from_slice(&taken);
        }
        let mut frames = Vec::new();
        while let Some(frame) = FrameCodec.decode(&mut all).expect("frames") {
            frames.push(frame);
        }
        frames
    }

    fn blob(size: usize) -> vtproto::query::Value {
        vtproto::query::Value { r#type: 0, value: vec![7; size].into() }
    }

    #[test]
    fn long_messages_take_turns_and_each_call_stays_in_order() {
        let outbox = Outbox::default();
        assert!(outbox.message(Kind::Item, 1, &[], &blob(MAX_PAYLOAD * 3)));
        assert!(outbox.message(Kind::Item, 2, &[], &blob(MAX_PAYLOAD * 2)));
        assert!(outbox.frame(Kind::End, 1, &[]));
        assert!(outbox.frame(Kind::Response, 3, b"small"));
        let order: Vec<(u64, bool)> = drain(&outbox).iter().map(|frame| (frame.id, frame.more)).collect();
        let first = order.iter().position(|(id, _)| *id == 3);
        assert_eq!(first, Some(0), "small ones do not wait for large ones: {order:?}");
        assert!(order.windows(2).any(|pair| pair[0].0 == 1 && pair[1].0 == 2), "they take turns: {order:?}");
        let of_one: Vec<bool> = order.iter().filter(|(id, _)| *id == 1).map(|(_, more)| *more).collect();
        assert_eq!(of_one, [true, true, true, false, false], "the end comes last");
        assert_eq!(outbox.queued.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn senders_wait_for_room_and_are_let_go_at_the_end() {
        let outbox = std::sync::Arc::new(Outbox::default());
        outbox.message(Kind::Item, 1, &[], &blob(LIMIT + 1));
        let waiting = {
            let outbox = outbox.clone();
            tokio::spawn(async move { outbox.room().await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(outbox.withdraw(1), Withdrawn::Unsent);
        waiting.await.expect("let go");
        outbox.message(Kind::Item, 1, &[], &blob(LIMIT + 1));
        let waiting = {
            let outbox = outbox.clone();
            tokio::spawn(async move { outbox.room().await })
        };
        tokio::task::yield_now().await;
        outbox.abandon();
        waiting.await.expect("let go");
        assert!(!outbox.frame(Kind::Ping, 0, &[]), "closed");
    }

    #[test]
    fn short_frames_that_keep_coming_do_not_keep_a_long_message_back() {
        let outbox = Outbox::default();
        let long = SHORT + 1;
        assert!(outbox.message(Kind::Response, 1, &[], &blob(long)));
        for _ in 0..=GATHERED / MAX_PAYLOAD {
            outbox.frame(Kind::Error, 2, &[0; MAX_PAYLOAD]);
        }
        let mut out = Batch::default();
        outbox.take(&mut out, Waker::noop());
        assert!(out.take().len() > GATHERED + long, "it leaves with them");
    }

    #[test]
    fn what_is_held_fills_the_outbox_until_it_is_let_go() {
        let outbox = Outbox::default();
        let held = outbox.hold(MOST_WAITING).expect("the first");
        assert!(outbox.is_overfull());
        let more = outbox.hold(MOST_HELD - MOST_WAITING).expect("up to the bound");
        assert!(outbox.hold(ALWAYS_HELD + 1).is_none());
        drop(outbox.hold(ALWAYS_HELD).expect("short enough"));
        drop(more);
        assert!(outbox.is_overfull());
        // The writer, with nothing to write, hears of it.
        let woken = Arc::new(Woken::default());
        outbox.take(&mut Batch::default(), &woken.clone().into());
        drop(held);
        assert!(woken.0.load(Ordering::Relaxed) && !outbox.is_overfull());
    }

    #[test]
    fn what_all_connections_hold_is_bounded() {
        static ALL: Budget = Budget::new(100_000);
        let (one, other) = (Outbox::sharing(&ALL), Outbox::sharing(&ALL));
        let held = one.hold(80_000).expect("there is room for it");
        assert!(other.hold(30_000).is_none());
        let short = other.hold(ALWAYS_HELD).expect("short enough");
        drop(one.hold(20_000 - ALWAYS_HELD).expect("what was given up does not count"));
        drop(held);
        let all = other.hold(100_000 - ALWAYS_HELD).expect("what is let go does not count");
        drop((short, all));
        drop(one.hold(100_000).expect("nothing is left"));
    }

    #[test]
    fn short_frames_fill_the_outbox_sooner_than_long_messages() {
        let outbox = Outbox::default();
        outbox.message(Kind::Response, 1, &[], &blob(2 * MOST_SHORT));
        outbox.frame(Kind::Pong, 0, &[]);
        assert!(!outbox.is_overfull());
        for _ in 0..=MOST_SHORT / MAX_PAYLOAD {
            outbox.frame(Kind::Error, 2, &[0; MAX_PAYLOAD]);
        }
        assert!(outbox.is_overfull());
        assert_eq!(drain(&outbox).last().map(|frame| (frame.id, frame.more)), Some((1, false)));
        assert!(!outbox.is_overfull());
        assert_eq!((outbox.queued.load(Ordering::Relaxed), outbox.long.load(Ordering::Relaxed)), (0, 0));
    }
}
