//! How a test reaches the query service: directly, or over a transport. One test program for each.

use std::sync::Arc;

use futures::{StreamExt, stream::BoxStream};
use tabletclient::framed::{self, ServeOptions};
use tabletclient::grpc::{self, DialOptions, QueryServer};
use tabletclient::{BeginOutcome, HealthStream, QueryService, ResultStream};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vterrors::{Result, VtError, go_code_name};
use vtproto::query::{self, QueryResult};
use vtproto::topodata;
use vttablet::queryservice::TabletServer;

const MAX_MESSAGE: usize = 64 << 20;

/// The service over what the name of this test program says.
pub async fn reach(server: &TabletServer) -> Arc<dyn QueryService> {
    let service: Arc<dyn QueryService> = Arc::new(server.clone());
    let over = env!("CARGO_CRATE_NAME").rsplit('_').next();
    if !matches!(over, Some("grpc" | "framed")) {
        return service;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let tablet = topodata::Tablet {
        hostname: "127.0.0.1".into(),
        port_map: [("grpc".to_string(), i32::from(port))].into(),
        ..Default::default()
    };
    let options = DialOptions { max_message_size: MAX_MESSAGE, ..Default::default() };
    let client = if over == Some("grpc") {
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server =
            tonic::transport::Server::builder().add_service(QueryServer::new(service).into_service(MAX_MESSAGE));
        tokio::spawn(server.serve_with_incoming(incoming));
        grpc::dial(&tablet, &options)
    } else {
        tokio::spawn(async move {
            let options = ServeOptions {
                max_message_size: MAX_MESSAGE,
                authenticate: Arc::new(|_| Ok(())),
                stop: CancellationToken::new(),
            };
            while let Ok((io, _)) = listener.accept().await {
                tokio::spawn(framed::serve(io, service.clone(), options.clone()));
            }
        });
        framed::dial_only(&tablet, &options)
    };
    Arc::new(Remote(client.expect("a client")))
}

/// A client whose errors read as the tablet said them; what the transport puts in front is checked here.
struct Remote(Arc<dyn QueryService>);

fn said(error: VtError) -> VtError {
    let front = format!("vttablet: rpc error: code = {} desc = ", go_code_name(error.code()));
    let text = error.message().strip_prefix(&front);
    VtError::new(error.code(), text.unwrap_or_else(|| panic!("{error:?} does not begin with {front:?}")))
}

fn began<T>(outcome: BeginOutcome<T>) -> BeginOutcome<T> {
    BeginOutcome { transaction_id: outcome.transaction_id, result: outcome.result.map_err(said) }
}

#[async_trait::async_trait]
impl QueryService for Remote {
    async fn execute(&self, request: query::ExecuteRequest) -> Result<QueryResult> {
        self.0.execute(request).await.map_err(said)
    }
    async fn execute_batch(&self, request: query::ExecuteBatchRequest) -> Result<Vec<QueryResult>> {
        self.0.execute_batch(request).await.map_err(said)
    }
    async fn stream_execute(&self, request: query::StreamExecuteRequest) -> Result<ResultStream> {
        let stream = self.0.stream_execute(request).await.map_err(said)?;
        Ok(stream.map(|item| item.map_err(said)).boxed())
    }
    async fn begin(&self, request: query::BeginRequest) -> Result<i64> {
        self.0.begin(request).await.map_err(said)
    }
    async fn commit(&self, request: query::CommitRequest) -> Result<()> {
        self.0.commit(request).await.map_err(said)
    }
    async fn rollback(&self, request: query::RollbackRequest) -> Result<()> {
        self.0.rollback(request).await.map_err(said)
    }
    async fn begin_execute(&self, request: query::BeginExecuteRequest) -> BeginOutcome<QueryResult> {
        began(self.0.begin_execute(request).await)
    }
    async fn begin_execute_batch(&self, request: query::BeginExecuteBatchRequest) -> BeginOutcome<Vec<QueryResult>> {
        began(self.0.begin_execute_batch(request).await)
    }
    async fn prepare(&self, request: query::PrepareRequest) -> Result<query::PrepareResponse> {
        self.0.prepare(request).await.map_err(said)
    }
    async fn commit_prepared(&self, request: query::CommitPreparedRequest) -> Result<()> {
        self.0.commit_prepared(request).await.map_err(said)
    }
    async fn rollback_prepared(&self, request: query::RollbackPreparedRequest) -> Result<()> {
        self.0.rollback_prepared(request).await.map_err(said)
    }
    async fn create_transaction(&self, request: query::CreateTransactionRequest) -> Result<()> {
        self.0.create_transaction(request).await.map_err(said)
    }
    async fn start_commit(&self, request: query::StartCommitRequest) -> Result<()> {
        self.0.start_commit(request).await.map_err(said)
    }
    async fn set_rollback(&self, request: query::SetRollbackRequest) -> Result<()> {
        self.0.set_rollback(request).await.map_err(said)
    }
    async fn conclude_transaction(&self, request: query::ConcludeTransactionRequest) -> Result<()> {
        self.0.conclude_transaction(request).await.map_err(said)
    }
    async fn read_transaction(&self, request: query::ReadTransactionRequest) -> Result<query::TransactionMetadata> {
        self.0.read_transaction(request).await.map_err(said)
    }
    async fn stream_health(&self) -> Result<HealthStream> {
        let stream = self.0.stream_health().await.map_err(said)?;
        Ok(stream.map(|item| item.map_err(said)).boxed())
    }
    async fn message_stream(&self, request: query::MessageStreamRequest) -> Result<ResultStream> {
        let stream = self.0.message_stream(request).await.map_err(said)?;
        Ok(stream.map(|item| item.map_err(said)).boxed())
    }
    async fn message_ack(&self, request: query::MessageAckRequest) -> Result<i64> {
        self.0.message_ack(request).await.map_err(said)
    }
    async fn split_query(&self, request: query::SplitQueryRequest) -> Result<Vec<query::QuerySplit>> {
        self.0.split_query(request).await.map_err(said)
    }
    async fn vstream(
        &self,
        request: vtproto::binlogdata::VStreamRequest,
    ) -> Result<BoxStream<'static, Result<Vec<vtproto::binlogdata::VEvent>>>> {
        let stream = self.0.vstream(request).await.map_err(said)?;
        Ok(stream.map(|item| item.map_err(said)).boxed())
    }
}
