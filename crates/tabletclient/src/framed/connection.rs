//! A client's end of one connection: calls under way and their answers.
//!
//! Owns: request ids, who waits for which, the credit of streams. Does not own: when to connect (`pool.rs`). Invariants: a
//! call that nobody waits for any more is cancelled at the server; when the connection ends, every waiting call is told so.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::task::AbortOnDropHandle;
use vterrors::{Code, Result, VtError};
use vtproto::{query::StreamExecuteResponse, vtrpc::RpcError};

use super::{
    codec::{Assembler, Frame, Kind},
    drive::{Ended, Peer, drive},
    hello::{PIECES, TIMED},
    method::Method,
    outbox::{Outbox, Withdrawn},
};
use crate::{
    RowSink,
    grpc::{self, HopObserver},
};

/// Bytes of the time in front of a response.
const TIME: usize = size_of::<u32>();

/// Settings of a connection.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Longest message, either way.
    pub max_message_size: usize,
    /// Bytes of a stream held unread; the server has been told.
    pub stream_window: usize,
    pub keepalive_time: Duration,
    pub keepalive_timeout: Duration,
    pub hop: Option<HopObserver>,
}

/// One connection to a tablet. Dropping it ends it, and the calls on it.
pub(super) struct Connection {
    shared: Arc<Shared>,
    version: u32,
    _tasks: [AbortOnDropHandle<()>; 2],
}

struct Shared {
    settings: Settings,
    outbox: Outbox,
    calls: Mutex<Calls>,
    /// Calls that wait, for those who only want to know how many.
    waiting: AtomicUsize,
    /// New calls are welcome: neither ended nor asked to go away.
    open: AtomicBool,
    /// Frames taken in so far.
    received: AtomicU64,
    /// Told once, at the end.
    peer_gone: tokio::sync::Notify,
}

#[derive(Default)]
struct Calls {
    last_id: u64,
    waiting: HashMap<u64, Waiting>,
    ended: bool,
}

enum Waiting {
    Unary(oneshot::Sender<Result<Bytes>>),
    /// May become `Pieces`.
    Growing(oneshot::Sender<Result<Answer>>),
    /// A result of which a piece has come.
    Pieces {
        pieces: mpsc::UnboundedSender<Result<Piece>>,
        unread: Arc<AtomicUsize>,
    },
    /// The first item stands for the beginning and is empty.
    Stream {
        items: mpsc::UnboundedSender<Result<Bytes>>,
        unread: Arc<AtomicUsize>,
    },
}

/// What came of a call whose result may be large.
enum Answer {
    Whole(Bytes),
    Pieces(Pieces),
}

/// The pieces of a result as they come.
struct Pieces {
    pieces: mpsc::UnboundedReceiver<Result<Piece>>,
    unread: Arc<AtomicUsize>,
}

enum Piece {
    Item(Bytes),
    /// The response.
    End(Bytes),
}

impl Waiting {
    fn fail(self, error: VtError) {
        // Nobody listens when the call was dropped at this moment.
        match self {
            Self::Unary(sender) => drop(sender.send(Err(error))),
            Self::Growing(sender) => drop(sender.send(Err(error))),
            Self::Pieces { pieces, .. } => drop(pieces.send(Err(error))),
            Self::Stream { items, .. } => drop(items.send(Err(error))),
        }
    }

    /// Hands an item over, of which there may be no more than `window` bytes unread: that bounds the channels.
    fn item(&mut self, bytes: Bytes, window: usize) -> Result<(), Ended> {
        if matches!(self, Self::Growing(_)) {
            let (pieces, receiver) = mpsc::unbounded_channel();
            let unread = Arc::new(AtomicUsize::new(0));
            let answer = Answer::Pieces(Pieces { pieces: receiver, unread: unread.clone() });
            if let Self::Growing(sender) = std::mem::replace(self, Self::Pieces { pieces, unread }) {
                drop(sender.send(Ok(answer)));
            }
        }
        let unread = match self {
            Self::Stream { unread, .. } | Self::Pieces { unread, .. } => unread,
            Self::Unary(_) | Self::Growing(_) => {
                return Err(Ended::Protocol("a stream in answer to a unary call".into()));
            }
        };
        if unread.fetch_add(bytes.len(), Ordering::Relaxed) >= window {
            return Err(Ended::Protocol("more of a stream than was asked for".into()));
        }
        match self {
            Self::Stream { items, .. } => drop(items.send(Ok(bytes))),
            Self::Pieces { pieces, .. } => drop(pieces.send(Ok(Piece::Item(bytes)))),
            Self::Unary(_) | Self::Growing(_) => {}
        }
        Ok(())
    }
}

/// The failure of a call whose connection broke.
fn closing() -> VtError {
    grpc::local_error(Code::Unavailable, grpc::CLOSING)
}

impl Shared {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            outbox: Outbox::default(),
            calls: Mutex::default(),
            waiting: AtomicUsize::new(0),
            open: AtomicBool::new(true),
            received: AtomicU64::new(0),
            peer_gone: tokio::sync::Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        // Every section leaves the table whole.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, call: Waiting) -> Option<u64> {
        let mut calls = self.lock();
        if calls.ended {
            return None;
        }
        calls.last_id += 1;
        let id = calls.last_id;
        calls.waiting.insert(id, call);
        self.waiting.store(calls.waiting.len(), Ordering::Relaxed);
        Some(id)
    }

    fn remove(&self, id: u64) -> Option<Waiting> {
        let mut calls = self.lock();
        let call = calls.waiting.remove(&id);
        self.waiting.store(calls.waiting.len(), Ordering::Relaxed);
        call
    }

    /// Nobody waits for the call any more: tells the server, unless it never left. Also when its answer has come and nobody
    /// has read it: the server rolls back what it has begun.
    fn cancel(&self, id: u64) {
        let waited = self.remove(id).is_some();
        if !(waited && self.outbox.withdraw(id) == Withdrawn::Unsent) {
            self.outbox.frame(Kind::Cancel, id, &[]);
        }
        self.leave_when_idle();
    }

    /// A connection that was asked to go away ends with its last call.
    fn leave_when_idle(&self) {
        if !self.open.load(Ordering::Relaxed) && self.waiting.load(Ordering::Relaxed) == 0 {
            self.outbox.close();
        }
    }

    fn end(&self) {
        self.open.store(false, Ordering::Relaxed);
        self.outbox.abandon();
        let waiting = {
            let mut calls = self.lock();
            calls.ended = true;
            std::mem::take(&mut calls.waiting)
        };
        for call in waiting.into_values() {
            call.fail(closing());
        }
        self.peer_gone.notify_waiters();
    }
}

impl Connection {
    /// Over a stream on which both ends have greeted each other; `greeted` is the version that they speak, and what the
    /// server has sent since.
    pub fn new<S>(mut io: S, greeted: (u32, BytesMut), settings: Settings, address: Arc<str>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (version, input) = greeted;
        let prefix = if version >= TIMED { TIME } else { 0 };
        let shared = Arc::new(Shared::new(settings));
        let (driven, watched, asked) = (shared.clone(), shared.clone(), address.clone());
        let drive = async move {
            // Also when the task is aborted: nobody waits for ever.
            let guard = EndOnDrop(driven);
            let limit = guard.0.settings.max_message_size;
            let mut peer = Answers { shared: &guard.0, assembler: Assembler::of_client(limit, prefix) };
            match drive(&mut io, input, &guard.0.outbox, &mut peer).await {
                Ended::Closed => tracing::debug!("framed connection to {address} ended"),
                ended => tracing::warn!("framed connection to {address} broke: {ended}"),
            }
        };
        let tasks = [tokio::spawn(drive), tokio::spawn(async move { watched.keep_alive(&asked).await })];
        Self { shared, version, _tasks: tasks.map(AbortOnDropHandle::new) }
    }

    /// Whether the server may be asked for results in pieces.
    pub fn has_pieces(&self) -> bool {
        self.version >= PIECES
    }

    /// Whether new calls may go here.
    pub fn is_open(&self) -> bool {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Calls under way.
    pub fn load(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Calls and waits for the answer. `None` when the connection had ended before: nothing was sent.
    pub async fn unary<Q, A>(&self, method: Method, request: &Q, timeout: Option<Duration>) -> Option<Result<A>>
    where
        Q: Message,
        A: Message + Default,
    {
        let started = Instant::now();
        let (sender, receiver) = oneshot::channel();
        let mut call = match self.start(method, request, timeout, Waiting::Unary(sender)).await? {
            Ok(call) => call,
            Err(error) => return Some(Err(error)),
        };
        let answer = async {
            let answer = receiver.await;
            call.answered = true;
            answer.unwrap_or_else(|_| Err(closing()))
        };
        let answer = within(timeout, answer).await;
        Some(answer.and_then(|bytes| self.untimed(bytes, started)).and_then(decode))
    }

    /// As [`Connection::unary`], for a method whose result may come in pieces, which go to `sink`.
    pub async fn growing<Q, A>(
        &self,
        method: Method,
        request: &Q,
        timeout: Option<Duration>,
        sink: &dyn RowSink,
    ) -> Option<Result<A>>
    where
        Q: Message,
        A: Message + Default,
    {
        let started = Instant::now();
        let (sender, receiver) = oneshot::channel();
        let mut call = match self.start(method, request, timeout, Waiting::Growing(sender)).await? {
            Ok(call) => call,
            Err(error) => return Some(Err(error)),
        };
        let answer = async {
            match receiver.await {
                Ok(Ok(Answer::Pieces(pieces))) => return Box::pin(pieces.pass_on(&mut call, sink)).await,
                answer => {
                    call.answered = true;
                    match answer {
                        Ok(Ok(Answer::Whole(bytes))) => Ok(bytes),
                        Ok(Err(error)) => Err(error),
                        _ => Err(closing()),
                    }
                }
            }
        };
        let answer = within(timeout, answer).await;
        Some(answer.and_then(|bytes| self.untimed(bytes, started)).and_then(decode))
    }

    /// A response without the time in front of it, which says how much of the time since `started` was spent on the way.
    fn untimed(&self, mut response: Bytes, started: Instant) -> Result<Bytes> {
        if self.version < TIMED {
            return Ok(response);
        }
        let micros = response.try_get_u32_le().map_err(|_| {
            grpc::local_error(Code::Internal, "a response that is shorter than the time in front of it")
        })?;
        if let Some(hop) = &self.shared.settings.hop {
            hop.note(started.elapsed().saturating_sub(Duration::from_micros(micros.into())));
        }
        Ok(response)
    }

    /// Begins a stream. `None` when the connection had ended before.
    pub async fn stream<Q: Message>(self: &Arc<Self>, method: Method, request: &Q) -> Option<Result<Items>> {
        let (items, receiver) = mpsc::unbounded_channel();
        let unread = Arc::new(AtomicUsize::new(0));
        let call = Waiting::Stream { items, unread: unread.clone() };
        let call = match self.start(method, request, None, call).await? {
            Ok(call) => call,
            Err(error) => return Some(Err(error)),
        };
        let mut items = Items { items: receiver, unread, unreturned: 0, call, _connection: self.clone() };
        // What fails before the first message fails here, as it does over gRPC.
        match std::future::poll_fn(|cx| Pin::new(&mut items).poll_next(cx)).await {
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(_)) | None => Some(Ok(items)),
        }
    }

    async fn start<Q: Message>(
        &self,
        method: Method,
        request: &Q,
        timeout: Option<Duration>,
        call: Waiting,
    ) -> Option<Result<Call>> {
        let limit = self.shared.settings.max_message_size;
        let found = request.encoded_len();
        if found > limit {
            let text =
                format!("Error, encoded message length too large: found {found} bytes, the limit is: {limit} bytes");
            return Some(Err(grpc::local_error(Code::ResourceExhausted, &text)));
        }
        self.shared.outbox.room().await;
        let id = self.shared.register(call)?;
        let mut call = Call { shared: self.shared.clone(), id, answered: false };
        let mut prefix = [method as u8, 0, 0, 0, 0];
        // 0 is no deadline; one of more than 49 days is none that matters.
        let millis = timeout.map_or(0, |timeout| u32::try_from(timeout.as_millis().max(1)).unwrap_or(0));
        prefix[1..].copy_from_slice(&millis.to_le_bytes());
        if !self.shared.outbox.message(Kind::Request, id, &prefix, request) {
            call.answered = true;
            self.shared.remove(id);
            return None;
        }
        Some(Ok(call))
    }
}

/// An answer, if it comes in time.
async fn within<T>(timeout: Option<Duration>, answer: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout {
        None => answer.await,
        Some(timeout) => tokio::time::timeout(timeout, answer)
            .await
            .unwrap_or_else(|_| Err(grpc::local_error(Code::DeadlineExceeded, "context deadline exceeded"))),
    }
}

fn decode<A: Message + Default>(bytes: Bytes) -> Result<A> {
    A::decode(bytes).map_err(|error| grpc::local_error(Code::Internal, &error.to_string()))
}

struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A call under way. Dropping it before the answer cancels it.
struct Call {
    shared: Arc<Shared>,
    id: u64,
    answered: bool,
}

impl Call {
    /// Returns credit for bytes that have been read, when enough have come together.
    fn consumed(&self, bytes: usize, unread: &AtomicUsize, unreturned: &mut usize) {
        unread.fetch_sub(bytes, Ordering::Relaxed);
        *unreturned += bytes;
        if *unreturned >= self.shared.settings.stream_window / 2 {
            let credit = u32::try_from(*unreturned).unwrap_or(u32::MAX);
            self.shared.outbox.frame(Kind::Credit, self.id, &credit.to_le_bytes());
            *unreturned = 0;
        }
    }
}

impl Pieces {
    /// Gives pieces to `sink` up to the response. An error of the sink's leaves the call unanswered, to be cancelled.
    async fn pass_on(mut self, call: &mut Call, sink: &dyn RowSink) -> Result<Bytes> {
        let mut unreturned = 0;
        loop {
            let bytes = match self.pieces.recv().await {
                Some(Ok(Piece::Item(bytes))) => bytes,
                end => {
                    call.answered = true;
                    return match end {
                        Some(Ok(Piece::End(bytes))) => Ok(bytes),
                        Some(Err(error)) => Err(error),
                        _ => Err(closing()),
                    };
                }
            };
            let length = bytes.len();
            let piece: StreamExecuteResponse = decode(bytes)?;
            sink.piece(piece.result.unwrap_or_default()).await?;
            call.consumed(length, &self.unread, &mut unreturned);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.answered {
            self.shared.cancel(self.id);
        }
    }
}

/// The messages of a stream. Dropping it cancels it.
pub(super) struct Items {
    items: mpsc::UnboundedReceiver<Result<Bytes>>,
    unread: Arc<AtomicUsize>,
    /// Bytes read whose credit the server does not have yet.
    unreturned: usize,
    call: Call,
    _connection: Arc<Connection>,
}

impl Items {
    /// Messages of one type.
    pub fn of<A: Message + Default + 'static>(self) -> impl Stream<Item = Result<A>> {
        use futures::TryStreamExt;
        self.and_then(|bytes| std::future::ready(decode(bytes)))
    }
}

impl Stream for Items {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let this = self.get_mut();
        let item = ready!(this.items.poll_recv(cx));
        match &item {
            Some(Ok(bytes)) => this.call.consumed(bytes.len(), &this.unread, &mut this.unreturned),
            // The end, or the error that is one.
            _ => this.call.answered = true,
        }
        Poll::Ready(item)
    }
}

/// Hands answers to those who wait.
struct Answers<'a> {
    shared: &'a Shared,
    assembler: Assembler,
}

impl Answers<'_> {
    fn whole(&mut self, frame: &mut Frame) -> Result<Option<Bytes>, VtError> {
        self.assembler.add(frame).map_err(|refused| grpc::local_error(Code::ResourceExhausted, &refused.to_string()))
    }

    /// Gives up a call on our own account.
    fn give_up(&self, id: u64, error: VtError) {
        if let Some(call) = self.shared.remove(id) {
            self.shared.outbox.frame(Kind::Cancel, id, &[]);
            call.fail(error);
        }
    }

    /// Whether somebody waits for the call of a frame. What has come of a cancelled one is dropped.
    fn wanted(&mut self, frame: &Frame) -> bool {
        // A whole message finds out when it is handed over.
        let whole = !frame.more && self.assembler.is_empty();
        if whole || self.shared.lock().waiting.contains_key(&frame.id) {
            return true;
        }
        self.assembler.forget(frame.id);
        false
    }

    fn response(&mut self, mut frame: Frame) -> Result<(), Ended> {
        if !self.wanted(&frame) {
            return Ok(());
        }
        match self.whole(&mut frame) {
            Ok(None) => {}
            Ok(Some(bytes)) => match self.shared.remove(frame.id) {
                Some(Waiting::Unary(sender)) => drop(sender.send(Ok(bytes))),
                Some(Waiting::Growing(sender)) => drop(sender.send(Ok(Answer::Whole(bytes)))),
                Some(Waiting::Pieces { pieces, .. }) => drop(pieces.send(Ok(Piece::End(bytes)))),
                Some(Waiting::Stream { .. }) => return Err(Ended::Protocol("a response to a stream".into())),
                None => {}
            },
            Err(error) => self.give_up(frame.id, error),
        }
        Ok(())
    }

    fn item(&mut self, mut frame: Frame) -> Result<(), Ended> {
        if !self.wanted(&frame) {
            return Ok(());
        }
        match self.whole(&mut frame) {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                if let Some(call) = self.shared.lock().waiting.get_mut(&frame.id) {
                    return call.item(bytes, self.shared.settings.stream_window);
                }
            }
            Err(error) => self.give_up(frame.id, error),
        }
        Ok(())
    }
}

impl Peer for Answers<'_> {
    fn frame(&mut self, frame: Frame) -> Result<(), Ended> {
        self.shared.received.fetch_add(1, Ordering::Relaxed);
        match frame.kind {
            Kind::Response => self.response(frame)?,
            Kind::Item => return self.item(frame),
            Kind::Begun => {
                if let Some(Waiting::Stream { items, .. }) = self.shared.lock().waiting.get(&frame.id) {
                    drop(items.send(Ok(Bytes::new())));
                }
            }
            Kind::End => {
                // Of a call that was cancelled half a message may be here.
                self.assembler.forget(frame.id);
                drop(self.shared.remove(frame.id));
            }
            Kind::Error => {
                self.assembler.forget(frame.id);
                let error = RpcError::decode(frame.payload).map_err(|e| Ended::Protocol(e.to_string()))?;
                let error = VtError::from_rpc_error(Some(&error))
                    .ok_or_else(|| Ended::Protocol("an error without a code".into()))?;
                if let Some(call) = self.shared.remove(frame.id) {
                    call.fail(grpc::local_error(error.code(), error.message()));
                }
            }
            Kind::GoAway => self.shared.open.store(false, Ordering::Relaxed),
            Kind::Pong => {}
            kind => return Err(Ended::Protocol(format!("{kind:?} from a server"))),
        }
        self.shared.leave_when_idle();
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) > 1
    }

    /// Never: what a server has answered is taken off the connection, else both ends could wait for each other.
    fn is_full(&self) -> bool {
        false
    }
}

impl Shared {
    /// Asks a silent server whether it is there, and ends the connection when it does not say so.
    async fn keep_alive(&self, address: &str) {
        let Settings { keepalive_time, keepalive_timeout, .. } = self.settings;
        let mut ticks = tokio::time::interval_at(Instant::now() + keepalive_time, keepalive_time);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = 0;
        loop {
            let gone = self.peer_gone.notified();
            if self.lock().ended {
                return;
            }
            tokio::select! {
                _ = ticks.tick() => {}
                () = gone => return,
            }
            let received = self.received.load(Ordering::Relaxed);
            if received != seen {
                seen = received;
                continue;
            }
            self.outbox.frame(Kind::Ping, 0, &[]);
            tokio::time::sleep(keepalive_timeout).await;
            let received = self.received.load(Ordering::Relaxed);
            if received == seen && !self.lock().ended {
                let silent = keepalive_time + keepalive_timeout;
                tracing::warn!("framed connection to {address} is silent for {silent:?}: giving it up");
                self.end();
                return;
            }
            seen = received;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_message_of_a_cancelled_stream_is_let_go() {
        let settings = Settings {
            max_message_size: 1 << 20,
            stream_window: 1 << 20,
            keepalive_time: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(60),
            hop: None,
        };
        let shared = Shared::new(settings);
        let mut answers = Answers { shared: &shared, assembler: Assembler::of_client(1 << 20, 0) };
        let (items, _receiver) = mpsc::unbounded_channel();
        let call = shared.register(Waiting::Stream { items, unread: Arc::default() }).expect("open");
        let frame = |kind, more| Frame { kind, more, id: call, payload: vec![7; 1000].into() };
        answers.frame(frame(Kind::Item, true)).expect("half a message");
        assert!(!answers.assembler.is_empty());
        shared.cancel(call);
        answers.frame(Frame { payload: Bytes::new(), ..frame(Kind::End, false) }).expect("the last of the call");
        assert!(answers.assembler.is_empty(), "nobody would ever take it");
    }
}
