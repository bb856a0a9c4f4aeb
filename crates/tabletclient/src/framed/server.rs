//! Serves a [`QueryService`] on one framed connection.
//!
//! Owns: one task for each call, its credit, its end. Invariants: a call that the client cancels, or whose connection ends, is
//! dropped, and with it whatever the service runs for it; a stream is read from the service only while the client has given
//! credit, so that a client that stops reading stops mysqld and nobody else; what a connection makes the tablet hold is
//! bounded (see the [module](super)).

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    task::AbortHandle,
};
use tokio_util::sync::CancellationToken;
use vterrors::{Code, Result, VtError};
use vtproto::{binlogdata, framed::Credentials, query, vtrpc::RpcError};

use super::{
    codec::{Assembler, Budget, Frame, Kind, Limits},
    drive::{Ended, Peer, drive},
    hello::{self, TIMED},
    method::Method,
    outbox::{self, Outbox, Withdrawn},
};
use crate::{BeginOutcome, QueryService, RowSink};

/// Calls under way on one connection above which more are refused; as many requests may have begun to arrive.
const MAX_CALLS: usize = 50_000;
/// Bytes of requests under way on one connection above which more are refused.
const MAX_HELD: usize = 256 << 20;
/// Transactions of one connection that were begun last, which are remembered for a client that has given up the call and so
/// does not know of its transaction. It says so within the time of a hop.
const MAX_BEGUN: usize = 1024;
/// Bytes of requests that have begun to arrive. Of the process, not of a server: its memory is what they share.
static ARRIVING: Budget = Budget::new(256 << 20);
/// Bytes of results that wait to be read by clients, of the process.
static LEAVING: Budget = Budget::new(512 << 20);

/// Says whether a caller with these credentials may call.
pub type Authenticate = Arc<dyn Fn(Option<&Credentials>) -> Result<()> + Send + Sync>;

/// How to serve.
#[derive(Clone)]
pub struct ServeOptions {
    /// Longest message either way, in bytes.
    pub max_message_size: usize,
    pub authenticate: Authenticate,
    /// Asks the client to go; calls under way end first.
    pub stop: CancellationToken,
}

/// Serves until the client leaves. Dropping the future ends the connection and its calls.
pub async fn serve<S>(mut io: S, service: Arc<dyn QueryService>, options: ServeOptions)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (greeting, input) = match hello::receive(&mut io).await {
        Ok(received) => received,
        Err(error) => {
            tracing::info!("a framed connection did not begin: {error}");
            return;
        }
    };
    let outcome = match hello::common_version(&greeting) {
        Some(version) => (options.authenticate)(greeting.credentials.as_ref()).map(|()| version),
        None => {
            let (min, max) = (greeting.version_min, greeting.version_max);
            let text = format!("versions {min} to {max} of the framed transport are not spoken here");
            Err(VtError::new(Code::Unimplemented, text))
        }
    };
    let version = outcome.as_ref().ok().copied();
    if let Err(error) = &outcome {
        tracing::warn!("a framed connection was refused: {error}");
    }
    if let Err(error) = hello::answer(&mut io, outcome).await {
        tracing::debug!("a framed connection did not begin: {error}");
        return;
    }
    let Some(version) = version else { return };
    let shared = Arc::new(Shared {
        roll_back: roll_back(service.clone()),
        outbox: Outbox::sharing(&LEAVING),
        running: Mutex::default(),
        max_message: options.max_message_size,
        window: greeting.stream_window.max(1).into(),
        timed: version >= TIMED,
    });
    let limit = options.max_message_size;
    let limits = Limits { message: limit, prefix: 0, count: MAX_CALLS, held: MAX_HELD, all: Some(&ARRIVING) };
    let mut calls = Calls { shared: shared.clone(), service, assembler: Assembler::new(limits) };
    let mut driven = pin!(drive(&mut io, input, &shared.outbox, &mut calls));
    let ended = tokio::select! {
        ended = &mut driven => ended,
        () = options.stop.cancelled() => {
            shared.outbox.frame(Kind::GoAway, 0, &[]);
            driven.await
        }
    };
    match ended {
        Ended::Closed => {}
        Ended::Io(error) => tracing::debug!("a framed connection broke: {error}"),
        ended => tracing::warn!("a framed connection was closed: {ended}"),
    }
}

/// Rolls back a transaction that its caller never heard of.
type RollBack = Box<dyn Fn(Begun) + Send + Sync>;

fn roll_back(service: Arc<dyn QueryService>) -> RollBack {
    Box::new(move |Begun { transaction_id, target, .. }| {
        let service = service.clone();
        tokio::spawn(async move {
            let request = query::RollbackRequest { target, transaction_id, ..Default::default() };
            if let Err(error) = service.rollback(request).await {
                tracing::debug!("rolling back a transaction that its caller never heard of: {error}");
            }
        });
    })
}

struct Shared {
    roll_back: RollBack,
    outbox: Outbox,
    running: Mutex<Running>,
    max_message: usize,
    /// Credit that a stream begins with.
    window: i64,
    /// Responses begin with the time since their request.
    timed: bool,
}

/// A call, and when its request was here.
#[derive(Clone, Copy)]
struct CallId {
    id: u64,
    since: Instant,
}

#[derive(Default)]
struct Running {
    calls: HashMap<u64, Call>,
    /// Bytes of their requests.
    held: usize,
    begun: VecDeque<Begun>,
}

/// A transaction that was begun, and by which call.
struct Begun {
    call: u64,
    transaction_id: i64,
    target: Option<query::Target>,
}

impl Running {
    fn remove(&mut self, id: u64) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        self.held -= call.held;
        Some(call)
    }

    fn take_begun(&mut self, call: u64) -> Option<Begun> {
        let at = self.begun.iter().rposition(|begun| begun.call == call)?;
        self.begun.remove(at)
    }
}

struct Call {
    task: AbortHandle,
    credit: Option<Arc<Credit>>,
    held: usize,
}

/// How much more of a stream the client takes.
struct Credit {
    left: AtomicI64,
    more: Notify,
}

impl Credit {
    fn new(window: i64) -> Arc<Self> {
        Arc::new(Self { left: AtomicI64::new(window), more: Notify::new() })
    }

    async fn any(&self) {
        while self.left.load(Ordering::Acquire) <= 0 {
            self.more.notified().await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Running> {
        // Every section leaves the table whole.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a transaction before its client is told. False when the client has given up the call: nobody would
    /// ever end the transaction, so it is rolled back.
    fn note_begun(&self, begun: Begun) -> bool {
        let mut running = self.lock();
        if !running.calls.contains_key(&begun.call) {
            drop(running);
            (self.roll_back)(begun);
            return false;
        }
        if running.begun.len() == MAX_BEGUN {
            running.begun.pop_front();
        }
        running.begun.push_back(begun);
        true
    }

    /// The client has given up a call. It may have been answered already; then it has not read that.
    fn cancel(&self, id: u64) {
        let (call, begun) = {
            let mut running = self.lock();
            (running.remove(id), running.take_begun(id))
        };
        if let Some(begun) = begun {
            (self.roll_back)(begun);
        }
        let Some(call) = call else { return };
        call.task.abort();
        if self.outbox.withdraw(id) == Withdrawn::Rest {
            // The client keeps the part that it has until it hears of the call again.
            self.outbox.frame(Kind::End, id, &[]);
        }
    }

    fn fail(&self, id: u64, error: VtError) {
        // Cut as gRPC cuts it, so that both transports say the same.
        let status = tonic::Status::from(error);
        let code = vterrors::code_of_status(&status);
        let body = RpcError { legacy_code: 0, message: status.message().to_owned(), code: code.into() };
        self.outbox.message(Kind::Error, id, &[], &body);
    }

    /// Answers a unary call. `instead` makes the answer that says why a result is not sent.
    async fn answer<M: Message>(&self, call: CallId, result: Result<M>, instead: impl Fn(VtError) -> Result<M>) {
        let id = call.id;
        let micros = u32::try_from(call.since.elapsed().as_micros()).unwrap_or(u32::MAX).to_le_bytes();
        let prefix = if self.timed { &micros[..] } else { &[] };
        let result = result.and_then(|message| match self.fits(&message) {
            Ok(()) => Ok(message),
            Err(error) => instead(error),
        });
        let message = match result {
            Ok(message) if self.outbox.has_room() => message,
            Ok(message) => {
                if let Some(held) = self.outbox.hold(message.encoded_len()) {
                    // As bytes: what is held is what is counted.
                    let bytes = outbox::encoded(prefix, &message);
                    drop(message);
                    self.outbox.room().await;
                    drop(held);
                    self.outbox.encoded(Kind::Response, id, bytes);
                    return;
                }
                drop(message);
                let text = "too many results wait to be read: this one was given up";
                match instead(VtError::new(Code::ResourceExhausted, text)) {
                    Ok(message) => message,
                    Err(error) => return self.fail(id, error),
                }
            }
            // Short, and cut: waiting for room it would be neither.
            Err(error) => return self.fail(id, error),
        };
        self.outbox.message(Kind::Response, id, prefix, &message);
    }

    fn fits(&self, message: &impl Message) -> Result<()> {
        let (found, limit) = (message.encoded_len(), self.max_message);
        if found <= limit {
            return Ok(());
        }
        let text = format!("Error, encoded message length too large: found {found} bytes, the limit is: {limit} bytes");
        Err(VtError::new(Code::OutOfRange, text))
    }

    async fn stream<T, M: Message>(
        &self,
        id: u64,
        credit: &Credit,
        stream: Result<impl Stream<Item = Result<T>>>,
        message: impl Fn(T) -> M,
    ) {
        let mut stream = match stream {
            Ok(stream) => pin!(stream),
            Err(error) => return self.fail(id, error),
        };
        self.outbox.frame(Kind::Begun, id, &[]);
        loop {
            credit.any().await;
            self.outbox.room().await;
            let message = match stream.next().await {
                Some(Ok(item)) => message(item),
                Some(Err(error)) => return self.fail(id, error),
                None => {
                    self.outbox.frame(Kind::End, id, &[]);
                    return;
                }
            };
            if let Err(error) = self.fits(&message) {
                return self.fail(id, error);
            }
            let bytes = i64::try_from(message.encoded_len()).unwrap_or(i64::MAX);
            credit.left.fetch_sub(bytes, Ordering::AcqRel);
            self.outbox.message(Kind::Item, id, &[], &message);
        }
    }
}

/// The way of a result's pieces to the client of a call. The call has its credit from the first piece on.
struct Items<'a> {
    shared: &'a Shared,
    id: u64,
    credit: OnceLock<Arc<Credit>>,
}

impl<'a> Items<'a> {
    fn new(shared: &'a Shared, id: u64) -> Self {
        Self { shared, id, credit: OnceLock::new() }
    }
}

#[async_trait::async_trait]
impl RowSink for Items<'_> {
    async fn piece(&self, piece: query::QueryResult) -> Result<()> {
        let shared = self.shared;
        let credit = self.credit.get_or_init(|| {
            let credit = Credit::new(shared.window);
            if let Some(call) = shared.lock().calls.get_mut(&self.id) {
                call.credit = Some(credit.clone());
            }
            credit
        });
        credit.any().await;
        shared.outbox.room().await;
        let message = query::StreamExecuteResponse { result: Some(piece) };
        shared.fits(&message)?;
        credit.left.fetch_sub(i64::try_from(message.encoded_len()).unwrap_or(i64::MAX), Ordering::AcqRel);
        if shared.outbox.message(Kind::Item, self.id, &[], &message) {
            return Ok(());
        }
        Err(VtError::new(Code::Canceled, "the connection of the caller has ended"))
    }

    fn has_begun(&self) -> bool {
        self.credit.get().is_some()
    }
}

/// Takes a call off the table however it ends, and answers for one that panicked.
struct CallGuard {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.fail(self.id, VtError::new(Code::Internal, "the tablet failed on this request: see its log"));
        }
        self.shared.lock().remove(self.id);
    }
}

/// What the client asks for.
struct Calls {
    shared: Arc<Shared>,
    service: Arc<dyn QueryService>,
    assembler: Assembler,
}

impl Drop for Calls {
    fn drop(&mut self) {
        let calls = std::mem::take(&mut self.shared.lock().calls);
        for call in calls.into_values() {
            call.task.abort();
        }
    }
}

impl Peer for Calls {
    fn frame(&mut self, mut frame: Frame) -> Result<(), Ended> {
        let id = frame.id;
        match frame.kind {
            Kind::Request => match self.assembler.add(&mut frame) {
                Ok(None) => {}
                Ok(Some(request)) => self.request(id, request)?,
                // What follows of it could not be told from a new request.
                Err(refused) if frame.more => return Err(Ended::Protocol(format!("part of a request: {refused}"))),
                Err(refused) => self.shared.fail(id, VtError::new(Code::OutOfRange, refused.to_string())),
            },
            Kind::Cancel => {
                self.assembler.forget(id);
                self.shared.cancel(id);
            }
            Kind::Credit => {
                let bytes: [u8; 4] = (&*frame.payload)
                    .try_into()
                    .map_err(|_| Ended::Protocol("a credit that is not four bytes".into()))?;
                let credit = self.shared.lock().calls.get(&id).and_then(|call| call.credit.clone());
                if let Some(credit) = credit {
                    credit.left.fetch_add(u32::from_le_bytes(bytes).into(), Ordering::AcqRel);
                    credit.more.notify_one();
                }
            }
            Kind::Ping => {
                self.shared.outbox.frame(Kind::Pong, id, &[]);
            }
            kind => return Err(Ended::Protocol(format!("{kind:?} from a client"))),
        }
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.shared.lock().calls.len() > 1
    }

    fn is_full(&self) -> bool {
        self.shared.outbox.is_overfull()
    }
}

impl Calls {
    fn request(&mut self, id: u64, mut request: Bytes) -> Result<(), Ended> {
        if request.len() < 5 {
            return Err(Ended::Protocol("a request without a method".into()));
        }
        let number = request.get_u8();
        let millis = request.get_u32_le();
        let Some(method) = Method::from_byte(number) else {
            let text = format!("method {number} of the framed transport is not known here");
            self.shared.fail(id, VtError::new(Code::Unimplemented, text));
            return Ok(());
        };
        let since = Instant::now();
        let held = request.len();
        let mut running = self.shared.lock();
        if running.calls.contains_key(&id) {
            return Err(Ended::Protocol(format!("call {id} twice")));
        }
        if running.calls.len() >= MAX_CALLS || (running.held > 0 && running.held + held > MAX_HELD) {
            let text = format!(
                "too many requests on one connection: {} of {} bytes are under way",
                running.calls.len(),
                running.held
            );
            drop(running);
            self.shared.fail(id, VtError::new(Code::ResourceExhausted, text));
            return Ok(());
        }
        let credit = method.is_stream().then(|| Credit::new(self.shared.window));
        let call = (self.service.clone(), CallGuard { shared: self.shared.clone(), id }, credit.clone());
        // Under the lock: the task cannot end before it is in the table.
        let task = tokio::spawn(async move {
            let (service, guard, credit) = call;
            let work = run(&guard.shared, &*service, CallId { id, since }, method, request, credit.as_deref());
            if millis == 0 {
                work.await;
            } else if tokio::time::timeout(Duration::from_millis(millis.into()), work).await.is_err() {
                guard.shared.fail(id, VtError::new(Code::DeadlineExceeded, "context deadline exceeded"));
            }
        });
        running.held += held;
        running.calls.insert(id, Call { task: task.abort_handle(), credit, held });
        Ok(())
    }
}

fn decode<M: Message + Default>(bytes: Bytes) -> Result<M> {
    M::decode(bytes).map_err(|error| VtError::new(Code::Internal, error.to_string()))
}

/// What a BeginExecute answers: with a transaction open, an error travels beside its id.
fn begun<T, M>(outcome: BeginOutcome<T>, message: impl FnOnce(Option<RpcError>, Option<T>, i64) -> M) -> Result<M> {
    match outcome.result {
        Ok(result) => Ok(message(None, Some(result), outcome.transaction_id)),
        Err(error) if outcome.transaction_id != 0 => {
            Ok(message(Some(error.to_rpc_error()), None, outcome.transaction_id))
        }
        Err(error) => Err(error),
    }
}

/// A unary call: decode, call, wrap the result.
macro_rules! unary {
    ($shared:ident, $service:ident, $call:ident, $request:ident, $name:ident $(($sink:expr))?, $message:expr) => {{
        let result = match decode($request) {
            Ok(request) => $service.$name(request $(, $sink)?).await.map($message),
            Err(error) => Err(error),
        };
        $shared.answer($call, result, Err).await
    }};
}

/// A unary call that begins a transaction. The client hears of the one that is open though it does not get the result.
macro_rules! begin {
    ($shared:ident, $service:ident, $call:ident, $request:ident: $type:ident, $name:ident $(($sink:expr))?, $message:ident) => {{
        let (transaction_id, result) = match decode::<query::$type>($request) {
            Ok(request) => {
                let target = request.target.clone();
                let outcome = $service.$name(request $(, $sink)?).await;
                let transaction_id = outcome.transaction_id;
                let note = Begun { call: $call.id, transaction_id, target };
                if transaction_id != 0 && !$shared.note_begun(note) {
                    return;
                }
                (transaction_id, begun(outcome, $message))
            }
            Err(error) => (0, Err(error)),
        };
        let instead = |error| begun(BeginOutcome { transaction_id, result: Err(error) }, $message);
        $shared.answer($call, result, instead).await;
    }};
}

/// A stream: decode, call, wrap each item.
macro_rules! stream {
    ($shared:ident, $service:ident, $call:ident, $request:ident, $credit:ident, $name:ident, $message:expr) => {{
        let stream = match decode($request) {
            Ok(request) => $service.$name(request).await,
            Err(error) => Err(error),
        };
        // Calls of streams come with one.
        if let Some(credit) = $credit {
            $shared.stream($call.id, credit, stream, $message).await
        }
    }};
}

async fn run(
    shared: &Shared,
    service: &dyn QueryService,
    call: CallId,
    method: Method,
    request: Bytes,
    credit: Option<&Credit>,
) {
    match method {
        Method::Execute => {
            unary!(shared, service, call, request, execute, |result| query::ExecuteResponse { result: Some(result) })
        }
        Method::ExecuteRows => {
            let items = Items::new(shared, call.id);
            let message = |result| query::ExecuteResponse { result: Some(result) };
            unary!(shared, service, call, request, execute_rows(&items), message)
        }
        Method::ExecuteBatch => {
            unary!(shared, service, call, request, execute_batch, |results| query::ExecuteBatchResponse { results })
        }
        Method::StreamExecute => {
            let message = |result| query::StreamExecuteResponse { result: Some(result) };
            stream!(shared, service, call, request, credit, stream_execute, message)
        }
        Method::Begin => {
            let begun = async {
                let request: query::BeginRequest = decode(request)?;
                let target = request.target.clone();
                Ok(Begun { call: call.id, transaction_id: service.begin(request).await?, target })
            };
            let result = match begun.await {
                Ok(begun) => {
                    let transaction_id = begun.transaction_id;
                    if !shared.note_begun(begun) {
                        return;
                    }
                    Ok(query::BeginResponse { transaction_id })
                }
                Err(error) => Err(error),
            };
            shared.answer(call, result, Err).await;
        }
        Method::Commit => unary!(shared, service, call, request, commit, |()| query::CommitResponse {}),
        Method::Rollback => unary!(shared, service, call, request, rollback, |()| query::RollbackResponse {}),
        Method::BeginExecute => {
            let message = |error, result, transaction_id| query::BeginExecuteResponse { error, result, transaction_id };
            begin!(shared, service, call, request: BeginExecuteRequest, begin_execute, message)
        }
        Method::BeginExecuteRows => {
            let items = Items::new(shared, call.id);
            let message = |error, result, transaction_id| query::BeginExecuteResponse { error, result, transaction_id };
            begin!(shared, service, call, request: BeginExecuteRequest, begin_execute_rows(&items), message)
        }
        Method::BeginExecuteBatch => {
            let message = |error, results: Option<_>, transaction_id| query::BeginExecuteBatchResponse {
                error,
                results: results.unwrap_or_default(),
                transaction_id,
            };
            begin!(shared, service, call, request: BeginExecuteBatchRequest, begin_execute_batch, message)
        }
        Method::Prepare => unary!(shared, service, call, request, prepare, |answer| answer),
        Method::CommitPrepared => {
            unary!(shared, service, call, request, commit_prepared, |()| query::CommitPreparedResponse {})
        }
        Method::RollbackPrepared => {
            unary!(shared, service, call, request, rollback_prepared, |()| query::RollbackPreparedResponse {})
        }
        Method::CreateTransaction => {
            unary!(shared, service, call, request, create_transaction, |()| query::CreateTransactionResponse {})
        }
        Method::StartCommit => unary!(shared, service, call, request, start_commit, |()| query::StartCommitResponse {}),
        Method::SetRollback => unary!(shared, service, call, request, set_rollback, |()| query::SetRollbackResponse {}),
        Method::ConcludeTransaction => {
            unary!(shared, service, call, request, conclude_transaction, |()| query::ConcludeTransactionResponse {})
        }
        Method::ReadTransaction => {
            let message = |metadata| query::ReadTransactionResponse { metadata: Some(metadata) };
            unary!(shared, service, call, request, read_transaction, message)
        }
        Method::StreamHealth => {
            let stream = service.stream_health().await;
            if let Some(credit) = credit {
                shared.stream(call.id, credit, stream, |health| health).await;
            }
        }
        Method::MessageStream => {
            let message = |result| query::MessageStreamResponse { result: Some(result) };
            stream!(shared, service, call, request, credit, message_stream, message)
        }
        Method::MessageAck => {
            let message = |count: i64| query::MessageAckResponse {
                result: Some(query::QueryResult { rows_affected: count.max(0).unsigned_abs(), ..Default::default() }),
            };
            unary!(shared, service, call, request, message_ack, message)
        }
        Method::SplitQuery => {
            unary!(shared, service, call, request, split_query, |queries| query::SplitQueryResponse { queries })
        }
        Method::VStream => {
            let message = |events| binlogdata::VStreamResponse { events };
            stream!(shared, service, call, request, credit, vstream, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::BytesMut;
    use tokio_util::codec::Decoder;

    use super::{
        super::{
            codec::{FrameCodec, MAX_PAYLOAD},
            pieces::Batch,
        },
        *,
    };

    fn left(outbox: &Outbox) -> Vec<Frame> {
        let mut out = Batch::default();
        outbox.take(&mut out, Waker::noop());
        let mut out = BytesMut::from(&out.take()[..]);
        outbox.written(out.len());
        let mut frames = Vec::new();
        while let Some(frame) = FrameCodec.decode(&mut out).expect("frames") {
            frames.push(frame);
        }
        frames
    }

    #[tokio::test]
    async fn the_client_hears_the_end_of_a_message_that_breaks_off() {
        let shared = Shared {
            roll_back: Box::new(|_| {}),
            outbox: Outbox::default(),
            running: Mutex::default(),
            max_message: 64 << 20,
            window: 1 << 20,
            timed: true,
        };
        let cancel = |id: u64| {
            let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
            shared.lock().calls.insert(id, Call { task, credit: None, held: 0 });
            shared.cancel(id);
        };
        let item = query::Value { r#type: 0, value: vec![7; 20 * MAX_PAYLOAD].into() };
        shared.outbox.message(Kind::Item, 1, &[], &item);
        assert!(left(&shared.outbox).iter().all(|frame| frame.id == 1 && frame.more), "its beginning");
        cancel(1);
        let rest: Vec<(Kind, u64)> = left(&shared.outbox).iter().map(|frame| (frame.kind, frame.id)).collect();
        assert_eq!(rest, [(Kind::End, 1)]);
        // Of this one nothing has left, and nothing follows.
        shared.outbox.message(Kind::Item, 2, &[], &item);
        cancel(2);
        assert_eq!(left(&shared.outbox), []);
    }
}
