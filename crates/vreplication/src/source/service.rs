//! The gRPC service `binlogservice.UpdateStream` of a tablet: its switch, its streams and their ends.
//!
//! Invariants: streams exist only while the service is enabled; a stream whose reader is gone ends, also while it waits
//! for the binlog.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use keyrange::KeyRange;
use mysql::ConnectParams;
use mysql::replication::Position;
use servenv::Registry;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use topo::TopoServer;
use tracing::Instrument;
use vterrors::{Code, Result, VtError};
use vtproto::binlogdata::{
    BinlogTransaction, Charset, RowTable, StreamKeyRangeRequest, StreamKeyRangeResponse, StreamTablesRequest,
    StreamTablesResponse,
};
use vtproto::binlogservice::update_stream_server::UpdateStream;

use super::filter::Filter;
use super::output;
use super::sharding::Sharding;
use super::stats::{KindStats, SourceStats};
use super::streamer::{Ended, Progress, StreamRequest, Streamer};
use crate::StreamOptions;

/// What the streams of a tablet need.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// A login that may replicate and read information_schema: vt_dba.
    pub params: ConnectParams,
    pub database: String,
    pub cell: String,
    pub keyspace: String,
    /// The range of the tablet's shard.
    pub key_range: KeyRange,
    /// Largest message, bytes: `-grpc_max_message_size`.
    pub max_message: usize,
    /// `-binlog_use_v3_resharding_mode`: the vschema says how rows are sharded.
    pub by_vschema: bool,
}

/// The service. Clones are the same service.
#[derive(Clone)]
pub struct UpdateStreamService {
    inner: Arc<Inner>,
}

struct Inner {
    config: SourceConfig,
    topo: TopoServer,
    stats: SourceStats,
    /// Ends the streams; `None` while the service is disabled.
    running: Mutex<Option<CancellationToken>>,
}

const NOT_ENABLED: &str = "update stream service is not enabled";

impl UpdateStreamService {
    /// A service that is disabled.
    pub fn new(config: SourceConfig, topo: TopoServer, registry: &Registry) -> Self {
        let stats = SourceStats::new(registry);
        Self { inner: Arc::new(Inner { config, topo, stats, running: Mutex::new(None) }) }
    }

    /// Lets readers in, or ends all streams and refuses new ones.
    pub fn set_enabled(&self, enabled: bool) {
        let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*running, enabled) {
            (None, true) => *running = Some(CancellationToken::new()),
            (Some(token), false) => {
                token.cancel();
                *running = None;
            }
            (Some(_), true) | (None, false) => return,
        }
        self.inner.stats.enabled.store(enabled, Ordering::Relaxed);
        tracing::info!("update stream {}", if enabled { "enabled" } else { "disabled" });
    }

    fn running(&self) -> Result<CancellationToken> {
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.clone().ok_or_else(|| VtError::new(Code::FailedPrecondition, NOT_ENABLED))
    }

    /// Starts a stream; `respond` makes its messages.
    fn start<T: Send + 'static>(
        &self,
        until: CancellationToken,
        request: StreamRequest,
        counters: KindStats,
        respond: fn(BinlogTransaction) -> T,
    ) -> Messages<T> {
        let (output, input) = output::channel();
        let inner = self.inner.clone();
        let (report, ended) = tokio::sync::oneshot::channel();
        let span = tracing::info_span!("update_stream", position = %request.start);
        let task = async move {
            let _open = Opened::new(inner.clone());
            let config = &inner.config;
            let streamer = Streamer {
                params: config.params.clone(),
                database: config.database.clone(),
                max_message: config.max_message,
            };
            tracing::info!("stream begins");
            let outcome = tokio::select! {
                outcome = streamer.run(&request, &output, &counters) => outcome,
                () = until.cancelled() => Err(Ended::Failed(VtError::new(Code::Unavailable, NOT_ENABLED))),
                () = output.closed() => Err(Ended::Gone),
            };
            // Nothing comes after what waits already.
            drop(output);
            if let Err(Ended::Failed(error)) = outcome {
                inner.stats.errors.inc();
                tracing::warn!("stream ends: {error}");
                // Nobody may be left to hear it.
                let _ = report.send(error);
            } else {
                tracing::info!("the reader of the stream is gone");
            }
        };
        tokio::spawn(task.instrument(span));
        let state = (input, Some(ended));
        Box::pin(futures::stream::unfold(state, move |(mut input, ended)| async move {
            if let Some(transaction) = input.next().await {
                return Some((Ok(respond(transaction)), (input, ended)));
            }
            let error = ended?.await.ok()?;
            Some((Err(Status::from(error)), (input, None)))
        }))
    }

    /// The parts of a request that both methods have.
    fn request(
        position: &str,
        charset: Option<Charset>,
        filter: Filter,
        options: StreamOptions,
        row_tables: Vec<RowTable>,
    ) -> Result<StreamRequest> {
        let start: Position =
            position.parse().map_err(|error| VtError::new(Code::InvalidArgument, format!("{error}")))?;
        Ok(StreamRequest { start, filter, options, charset, row_tables })
    }
}

/// Counts a stream as long as it lives.
struct Opened {
    inner: Arc<Inner>,
}

impl Opened {
    fn new(inner: Arc<Inner>) -> Self {
        inner.stats.streams.fetch_add(1, Ordering::Relaxed);
        Self { inner }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.inner.stats.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Progress for KindStats {
    fn streamed(&self, statements: u64, transactions: u64) {
        self.statements.add(i64::try_from(statements).unwrap_or(i64::MAX));
        self.transactions.add(i64::try_from(transactions).unwrap_or(i64::MAX));
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl UpdateStream for UpdateStreamService {
    type StreamKeyRangeStream = Messages<StreamKeyRangeResponse>;
    type StreamTablesStream = Messages<StreamTablesResponse>;

    async fn stream_key_range(
        &self,
        request: Request<StreamKeyRangeRequest>,
    ) -> Result<Response<Self::StreamKeyRangeStream>, Status> {
        let running = self.running()?;
        let options = StreamOptions::read(request.metadata())?;
        let request = request.into_inner();
        let range = request.key_range.unwrap_or_default();
        let wanted = KeyRange::from_bounds(range.start, range.end);
        let config = &self.inner.config;
        let sharding = Sharding::read(&self.inner.topo, &config.cell, &config.keyspace, config.by_vschema).await?;
        let filter = Filter::KeyRange { wanted, own: config.key_range.clone(), sharding };
        let request = Self::request(&request.position, request.charset, filter, options, request.row_tables)?;
        let respond = |transaction| StreamKeyRangeResponse { binlog_transaction: Some(transaction) };
        Ok(Response::new(self.start(running, request, self.inner.stats.key_range.clone(), respond)))
    }

    async fn stream_tables(
        &self,
        request: Request<StreamTablesRequest>,
    ) -> Result<Response<Self::StreamTablesStream>, Status> {
        let running = self.running()?;
        let options = StreamOptions::read(request.metadata())?;
        let request = request.into_inner();
        let filter = Filter::Tables(request.tables.into_iter().collect());
        let request = Self::request(&request.position, request.charset, filter, options, request.row_tables)?;
        let respond = |transaction| StreamTablesResponse { binlog_transaction: Some(transaction) };
        Ok(Response::new(self.start(running, request, self.inner.stats.tables.clone(), respond)))
    }
}
