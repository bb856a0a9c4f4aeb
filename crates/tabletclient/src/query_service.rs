//! The query service of a tablet as one trait, whatever carries it.
//!
//! vttablet implements it over its mysqld, [`crate::grpc`] implements it over a connection, and a
//! server of either transport hands requests to it. Requests are the wire messages themselves, so
//! that a second transport needs no second set of types.

use futures::stream::BoxStream;
use vterrors::{Code, Result, VtError};
use vtproto::{binlogdata, query, query::QueryResult};

/// Results that arrive in pieces: the first holds the fields, later ones rows. Dropping the stream
/// cancels the statement on the server.
pub type ResultStream = BoxStream<'static, Result<QueryResult>>;
/// Health of a tablet as it changes. Ends only with an error or with the tablet.
pub type HealthStream = BoxStream<'static, Result<query::StreamHealthResponse>>;

/// What BeginExecute answers: the transaction may be open although the statement failed.
#[derive(Debug)]
pub struct BeginOutcome<T> {
    /// The transaction that is open now; the caller has to end it. 0 when none was opened.
    pub transaction_id: i64,
    pub result: Result<T>,
}

/// Whoever takes a result that is too large to be held, in pieces and as it arrives.
#[async_trait::async_trait]
pub trait RowSink: Send + Sync {
    /// The next piece: raw rows, of which the last may go on in the piece behind it. The first piece has the fields. Waits
    /// while its reader does not read.
    async fn piece(&self, piece: QueryResult) -> Result<()>;
    /// Whether a piece has come: the statement cannot be run again, for its reader has rows of it.
    fn has_begun(&self) -> bool;
}

/// Answers for what a tablet does not offer.
pub(crate) fn unimplemented<T>(method: &str) -> Result<T> {
    Err(VtError::new(Code::Unimplemented, format!("{method} is not implemented by this tablet")))
}

/// The methods of `queryservice.Query`. Every call but [`QueryService::stream_health`] names its
/// target, which the tablet checks. Errors are the tablet's own: a client of a remote tablet adds
/// `vttablet: rpc error: code = … desc = …` in front (see [`VtError::from_tablet_status`]).
#[async_trait::async_trait]
pub trait QueryService: Send + Sync {
    async fn execute(&self, request: query::ExecuteRequest) -> Result<QueryResult>;
    /// As [`QueryService::execute`] with `raw_rows`, for a caller that need not have the result in one piece: of one that is
    /// large all but the end goes to `sink`. What is returned has its fields, its end, and the number of all its rows. Not
    /// every way to a tablet has pieces.
    async fn execute_rows(&self, request: query::ExecuteRequest, _sink: &dyn RowSink) -> Result<QueryResult> {
        self.execute(request).await
    }
    async fn execute_batch(&self, request: query::ExecuteBatchRequest) -> Result<Vec<QueryResult>>;
    async fn stream_execute(&self, request: query::StreamExecuteRequest) -> Result<ResultStream>;
    async fn begin(&self, request: query::BeginRequest) -> Result<i64>;
    async fn commit(&self, request: query::CommitRequest) -> Result<()>;
    async fn rollback(&self, request: query::RollbackRequest) -> Result<()>;
    async fn begin_execute(&self, request: query::BeginExecuteRequest) -> BeginOutcome<QueryResult>;
    /// [`QueryService::begin_execute`] as [`QueryService::execute_rows`].
    async fn begin_execute_rows(
        &self,
        request: query::BeginExecuteRequest,
        _sink: &dyn RowSink,
    ) -> BeginOutcome<QueryResult> {
        self.begin_execute(request).await
    }
    async fn begin_execute_batch(&self, request: query::BeginExecuteBatchRequest) -> BeginOutcome<Vec<QueryResult>>;
    async fn prepare(&self, request: query::PrepareRequest) -> Result<query::PrepareResponse>;
    async fn commit_prepared(&self, request: query::CommitPreparedRequest) -> Result<()>;
    async fn rollback_prepared(&self, request: query::RollbackPreparedRequest) -> Result<()>;
    async fn create_transaction(&self, request: query::CreateTransactionRequest) -> Result<()>;
    async fn start_commit(&self, request: query::StartCommitRequest) -> Result<()>;
    async fn set_rollback(&self, request: query::SetRollbackRequest) -> Result<()>;
    async fn conclude_transaction(&self, request: query::ConcludeTransactionRequest) -> Result<()>;
    async fn read_transaction(&self, request: query::ReadTransactionRequest) -> Result<query::TransactionMetadata>;
    async fn stream_health(&self) -> Result<HealthStream>;

    async fn message_stream(&self, _request: query::MessageStreamRequest) -> Result<ResultStream> {
        unimplemented("MessageStream")
    }
    async fn message_ack(&self, _request: query::MessageAckRequest) -> Result<i64> {
        unimplemented("MessageAck")
    }
    async fn split_query(&self, _request: query::SplitQueryRequest) -> Result<Vec<query::QuerySplit>> {
        unimplemented("SplitQuery")
    }
    async fn vstream(
        &self,
        _request: binlogdata::VStreamRequest,
    ) -> Result<BoxStream<'static, Result<Vec<binlogdata::VEvent>>>> {
        unimplemented("VStream")
    }
}
