//! A tablet in this process that says and answers what a test tells it to.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub mod raw;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use tabletclient::{
    BeginOutcome, HealthStream, QueryService, ResultStream, RowSink,
    framed::{self, ServeOptions},
    grpc::{self, DialOptions, QueryServer},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::{self, Field, QueryResult, RealtimeStats, Row, StreamHealthResponse, Target},
    topodata::{Tablet, TabletAlias, TabletType},
};

/// A tablet whose health and answers are set by the test.
pub struct FakeTablet {
    pub health: watch::Sender<Option<StreamHealthResponse>>,
    /// Errors for the next calls, then successes.
    pub errors: Mutex<VecDeque<VtError>>,
    /// While true, executing calls never end.
    pub stuck: watch::Sender<bool>,
    pub calls: AtomicUsize,
    /// Rows that a stream goes on with, of 1000 bytes each, and how many of them were taken.
    pub endless: AtomicUsize,
    pub taken: Arc<AtomicUsize>,
    /// Pieces of 200,000 bytes that come before a result which may have some.
    pub pieces: AtomicUsize,
    pub transactions: AtomicI64,
    /// Transactions that were rolled back.
    pub rolled_back: Mutex<Vec<i64>>,
    /// Calls that were dropped before they ended.
    pub dropped: Arc<AtomicUsize>,
    pub name: String,
}

struct OnDrop(Arc<AtomicUsize>, bool);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl FakeTablet {
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            health: watch::channel(None).0,
            errors: Mutex::default(),
            stuck: watch::channel(false).0,
            calls: AtomicUsize::new(0),
            endless: AtomicUsize::new(0),
            taken: Arc::default(),
            pieces: AtomicUsize::new(0),
            transactions: AtomicI64::new(0),
            rolled_back: Mutex::default(),
            dropped: Arc::default(),
            name: name.into(),
        })
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn fail_next(&self, code: Code, text: &str) {
        self.errors.lock().expect("no panic while held").push_back(VtError::new(code, text));
    }

    async fn answer(&self) -> Result<QueryResult> {
        let mut guard = OnDrop(self.dropped.clone(), true);
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut stuck = self.stuck.subscribe();
        let free = stuck.wait_for(|stuck| !stuck).await;
        drop(free);
        guard.1 = false;
        match self.errors.lock().expect("no panic while held").pop_front() {
            Some(error) => Err(error),
            None => Ok(one_row(&self.name)),
        }
    }

    async fn give_pieces(&self, sink: &dyn RowSink) -> Result<()> {
        let count = self.pieces.load(Ordering::SeqCst);
        let mut guard = OnDrop(self.dropped.clone(), count > 0);
        for number in 0..count {
            let raw_rows = vec![number as u8; 200_000].into();
            sink.piece(QueryResult { raw_rows, ..Default::default() }).await?;
            self.taken.fetch_add(1, Ordering::SeqCst);
        }
        guard.1 = false;
        Ok(())
    }

    pub fn says(&self, tablet_type: TabletType, serving: bool, term: i64, lag: u32) {
        self.says_of("ks", "0", tablet_type, serving, term, lag);
    }

    pub fn says_of(&self, keyspace: &str, shard: &str, tablet_type: TabletType, serving: bool, term: i64, lag: u32) {
        self.health.send_replace(Some(StreamHealthResponse {
            target: Some(Target {
                keyspace: keyspace.into(),
                shard: shard.into(),
                tablet_type: tablet_type.into(),
                cell: String::new(),
            }),
            serving,
            tablet_externally_reparented_timestamp: term,
            realtime_stats: Some(RealtimeStats { seconds_behind_master: lag, ..Default::default() }),
            tablet_alias: None,
        }));
    }
}

/// A result that tells who gave it.
pub fn one_row(name: &str) -> QueryResult {
    QueryResult {
        fields: vec![Field { name: "tablet".into(), r#type: query::Type::Varchar.into(), ..Default::default() }],
        rows: vec![Row { lengths: vec![name.len() as i64], values: name.to_string().into() }],
        rows_affected: 1,
        ..Default::default()
    }
}

pub fn tablet(cell: &str, uid: u32, tablet_type: TabletType) -> Tablet {
    Tablet {
        alias: Some(TabletAlias { cell: cell.into(), uid }),
        hostname: format!("host{uid}"),
        port_map: [("grpc".to_string(), 1)].into(),
        keyspace: "ks".into(),
        shard: "0".into(),
        r#type: tablet_type.into(),
        ..Default::default()
    }
}

pub fn target(tablet_type: TabletType) -> Target {
    Target { keyspace: "ks".into(), shard: "0".into(), tablet_type: tablet_type.into(), cell: String::new() }
}

/// Waits until `condition` holds; fails the test after 10 s.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// How a test reaches the tablet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    Framed,
}

/// A server of one tablet on a port of its own. Dropping it ends the server and its connections.
pub struct Served {
    pub tablet: Tablet,
    pub stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn listen() -> (TcpListener, Tablet) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("address").port();
    (listener, at_port(port))
}

/// A tablet at 127.0.0.1.
pub fn at_port(port: u16) -> Tablet {
    Tablet {
        hostname: "127.0.0.1".into(),
        port_map: [("grpc".to_string(), i32::from(port))].into(),
        ..tablet("zone1", 100, TabletType::Master)
    }
}

impl Transport {
    pub const ALL: [Self; 2] = [Self::Grpc, Self::Framed];

    /// Serves `fake` over this transport only; messages up to 1 MiB.
    pub async fn serve(self, fake: Arc<FakeTablet>) -> Served {
        let (listener, tablet) = listen().await;
        let stop = CancellationToken::new();
        let task = match self {
            Self::Grpc => tokio::spawn(serve_grpc(listener, fake, stop.clone())),
            Self::Framed => tokio::spawn(serve_framed(listener, fake, allow_all(stop.clone()))),
        };
        Served { tablet, stop, task }
    }

    pub fn dial(self, tablet: &Tablet, options: &DialOptions) -> Result<Arc<dyn QueryService>> {
        match self {
            Self::Grpc => grpc::dial(tablet, options),
            Self::Framed => framed::dial_only(tablet, options),
        }
    }
}

pub async fn serve_grpc(listener: TcpListener, fake: Arc<FakeTablet>, stop: CancellationToken) {
    let server = tonic::transport::Server::builder().add_service(QueryServer::new(fake).into_service(1 << 20));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await.expect("served");
}

pub fn allow_all(stop: CancellationToken) -> ServeOptions {
    ServeOptions { max_message_size: 1 << 20, authenticate: Arc::new(|_| Ok(())), stop }
}

pub async fn serve_framed(listener: TcpListener, fake: Arc<FakeTablet>, options: ServeOptions) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((io, _)) = listener.accept().await {
        connections.spawn(framed::serve(io, fake.clone(), options.clone()));
    }
}

fn not_faked<T>() -> Result<T> {
    Err(VtError::new(Code::Unimplemented, "not faked"))
}

#[async_trait::async_trait]
impl QueryService for FakeTablet {
    /// With a statement, answers with its text.
    async fn execute(&self, request: query::ExecuteRequest) -> Result<QueryResult> {
        let result = self.answer().await?;
        Ok(request.query.map_or(result, |query| one_row(&query.sql)))
    }
    async fn execute_rows(&self, request: query::ExecuteRequest, sink: &dyn RowSink) -> Result<QueryResult> {
        self.give_pieces(sink).await?;
        self.execute(request).await
    }
    async fn begin_execute_rows(
        &self,
        request: query::BeginExecuteRequest,
        sink: &dyn RowSink,
    ) -> BeginOutcome<QueryResult> {
        match self.give_pieces(sink).await {
            Ok(()) => self.begin_execute(request).await,
            Err(error) => BeginOutcome { transaction_id: 0, result: Err(error) },
        }
    }
    async fn execute_batch(&self, request: query::ExecuteBatchRequest) -> Result<Vec<QueryResult>> {
        let result = self.answer().await?;
        Ok(vec![result; request.queries.len()])
    }
    async fn stream_execute(&self, _: query::StreamExecuteRequest) -> Result<ResultStream> {
        let result = self.answer().await?;
        let fields = QueryResult { fields: result.fields, ..Default::default() };
        let row = QueryResult { rows: result.rows, ..Default::default() };
        let (more, taken) = (self.endless.load(Ordering::SeqCst), self.taken.clone());
        let guard = OnDrop(self.dropped.clone(), more > 0);
        let more = futures::stream::iter(0..more).map(move |_| {
            let _guard = &guard;
            taken.fetch_add(1, Ordering::SeqCst);
            Ok(one_row(&"x".repeat(1000)))
        });
        Ok(futures::stream::iter([Ok(fields), Ok(row.clone()), Ok(row)]).chain(more).boxed())
    }
    async fn begin(&self, _: query::BeginRequest) -> Result<i64> {
        self.answer().await?;
        Ok(self.transactions.fetch_add(1, Ordering::SeqCst) + 1)
    }
    async fn commit(&self, _: query::CommitRequest) -> Result<()> {
        self.answer().await.map(drop)
    }
    async fn rollback(&self, request: query::RollbackRequest) -> Result<()> {
        self.rolled_back.lock().expect("no panic").push(request.transaction_id);
        self.answer().await.map(drop)
    }
    async fn begin_execute(&self, _: query::BeginExecuteRequest) -> BeginOutcome<QueryResult> {
        let transaction_id = self.transactions.fetch_add(1, Ordering::SeqCst) + 1;
        BeginOutcome { transaction_id, result: self.answer().await }
    }
    async fn begin_execute_batch(&self, _: query::BeginExecuteBatchRequest) -> BeginOutcome<Vec<QueryResult>> {
        BeginOutcome { transaction_id: 0, result: not_faked() }
    }
    async fn prepare(&self, _: query::PrepareRequest) -> Result<query::PrepareResponse> {
        not_faked()
    }
    async fn commit_prepared(&self, _: query::CommitPreparedRequest) -> Result<()> {
        not_faked()
    }
    async fn rollback_prepared(&self, _: query::RollbackPreparedRequest) -> Result<()> {
        not_faked()
    }
    async fn create_transaction(&self, _: query::CreateTransactionRequest) -> Result<()> {
        not_faked()
    }
    async fn start_commit(&self, _: query::StartCommitRequest) -> Result<()> {
        not_faked()
    }
    async fn set_rollback(&self, _: query::SetRollbackRequest) -> Result<()> {
        not_faked()
    }
    async fn conclude_transaction(&self, _: query::ConcludeTransactionRequest) -> Result<()> {
        not_faked()
    }
    async fn read_transaction(&self, _: query::ReadTransactionRequest) -> Result<query::TransactionMetadata> {
        not_faked()
    }
    async fn stream_health(&self) -> Result<HealthStream> {
        let receiver = self.health.subscribe();
        let stream = futures::stream::unfold((receiver, true), |(mut receiver, first)| async move {
            if !first {
                receiver.changed().await.ok()?;
            }
            let message = receiver.wait_for(Option::is_some).await.ok()?.clone()?;
            Some((Ok(message), (receiver, false)))
        });
        Ok(stream.boxed())
    }
}
