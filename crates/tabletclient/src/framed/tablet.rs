//! A tablet at the other end of framed connections, or of gRPC where it does not speak them.
//!
//! Owns: one call of each method, and the way back to gRPC. Errors look the same over both.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use prost::Message;
use vterrors::{Code, Result, VtError};
use vtproto::{binlogdata, query, query::QueryResult};

use super::{
    connection::{Connection, Items},
    method::Method,
    pool::{Found, Pool},
};
use crate::{BeginOutcome, HealthStream, QueryService, ResultStream, RowSink, grpc};

/// A client of one tablet, made by [`super::dial`].
pub struct FramedTablet {
    pool: Arc<Pool>,
    grpc: Option<Arc<dyn QueryService>>,
    call_timeout: Option<Duration>,
}

/// The way that a call takes.
enum Way<'a> {
    Framed(Arc<Connection>),
    Grpc(&'a dyn QueryService),
}

/// A failure of the connection before the request left: found out only when it was used.
fn lost() -> VtError {
    grpc::local_error(Code::Unavailable, &format!("{} the connection ended", grpc::NEVER_SENT))
}

impl FramedTablet {
    pub(super) fn new(pool: Arc<Pool>, grpc: Option<Arc<dyn QueryService>>, call_timeout: Option<Duration>) -> Self {
        Self { pool, grpc, call_timeout }
    }

    fn way(&self, found: Found) -> Result<Way<'_>> {
        match (found, &self.grpc) {
            (Found::Connection(connection), _) => Ok(Way::Framed(connection)),
            (Found::NotSpoken(_), Some(grpc)) => Ok(Way::Grpc(&**grpc)),
            (Found::NotSpoken(why), None) => {
                let text = format!("{} the framed transport is not spoken: {why}", grpc::NEVER_SENT);
                Err(grpc::local_error(Code::Unavailable, &text))
            }
        }
    }

    async fn for_call(&self) -> Result<Way<'_>> {
        self.way(self.pool.for_call().await?)
    }

    async fn for_stream(&self) -> Result<Way<'_>> {
        self.way(self.pool.for_stream().await?)
    }

    async fn unary<Q, A>(&self, connection: &Connection, method: Method, request: &Q) -> Result<A>
    where
        Q: Message,
        A: Message + Default,
    {
        if let Some(answer) = connection.unary(method, request, self.call_timeout).await {
            return answer;
        }
        self.fresh().await?.unary(method, request, self.call_timeout).await.unwrap_or_else(|| Err(lost()))
    }

    /// As [`FramedTablet::unary`], with pieces of the result for `sink` where the tablet knows the first of `methods`, or
    /// else by the second.
    async fn growing<Q, A>(
        &self,
        connection: &Connection,
        methods: [Method; 2],
        request: &Q,
        sink: &dyn RowSink,
    ) -> Result<A>
    where
        Q: Message,
        A: Message + Default,
    {
        if let Some(answer) = self.growing_on(connection, methods, request, sink).await {
            return answer;
        }
        let fresh = self.fresh().await?;
        self.growing_on(&fresh, methods, request, sink).await.unwrap_or_else(|| Err(lost()))
    }

    async fn growing_on<Q, A>(
        &self,
        connection: &Connection,
        [in_pieces, whole]: [Method; 2],
        request: &Q,
        sink: &dyn RowSink,
    ) -> Option<Result<A>>
    where
        Q: Message,
        A: Message + Default,
    {
        match connection.has_pieces() {
            true => connection.growing(in_pieces, request, self.call_timeout, sink).await,
            false => connection.unary(whole, request, self.call_timeout).await,
        }
    }

    /// Another connection for a call of which nothing left, because its own had ended while nobody used it.
    async fn fresh(&self) -> Result<Arc<Connection>> {
        match self.pool.for_call().await? {
            Found::Connection(fresh) => Ok(fresh),
            Found::NotSpoken(_) => Err(lost()),
        }
    }

    async fn stream<Q: Message>(connection: &Arc<Connection>, method: Method, request: &Q) -> Result<Items> {
        connection.stream(method, request).await.unwrap_or_else(|| Err(lost()))
    }
}

/// An answer whose body may carry an error beside the transaction that it left open.
fn outcome<T>(error: Option<&vtproto::vtrpc::RpcError>, transaction_id: i64, result: T) -> BeginOutcome<T> {
    let result = match VtError::from_rpc_error(error) {
        Some(error) => Err(grpc::local_error(error.code(), error.message())),
        None => Ok(result),
    };
    BeginOutcome { transaction_id, result }
}

/// The answer of a call that has none.
fn nothing<T>(_: T) {}

/// A unary call whose answer `$take` turns into the result.
macro_rules! call {
    ($self:ident, $method:ident, $name:ident, $request:ident, $answer:ty, $take:expr) => {
        match $self.for_call().await? {
            Way::Framed(connection) => {
                let answer: $answer = $self.unary(&connection, Method::$method, &$request).await?;
                Ok($take(answer))
            }
            Way::Grpc(grpc) => grpc.$name($request).await,
        }
    };
}

#[async_trait::async_trait]
impl QueryService for FramedTablet {
    async fn execute(&self, request: query::ExecuteRequest) -> Result<QueryResult> {
        call!(self, Execute, execute, request, query::ExecuteResponse, |a: query::ExecuteResponse| {
            a.result.unwrap_or_default()
        })
    }

    async fn execute_rows(&self, request: query::ExecuteRequest, sink: &dyn RowSink) -> Result<QueryResult> {
        match self.for_call().await? {
            Way::Framed(connection) => {
                let methods = [Method::ExecuteRows, Method::Execute];
                let answer: query::ExecuteResponse = self.growing(&connection, methods, &request, sink).await?;
                Ok(answer.result.unwrap_or_default())
            }
            Way::Grpc(grpc) => grpc.execute(request).await,
        }
    }

    async fn execute_batch(&self, request: query::ExecuteBatchRequest) -> Result<Vec<QueryResult>> {
        let take = |answer: query::ExecuteBatchResponse| answer.results;
        call!(self, ExecuteBatch, execute_batch, request, query::ExecuteBatchResponse, take)
    }

    async fn stream_execute(&self, request: query::StreamExecuteRequest) -> Result<ResultStream> {
        match self.for_stream().await? {
            Way::Framed(connection) => {
                let items = Self::stream(&connection, Method::StreamExecute, &request).await?;
                let take = |message: query::StreamExecuteResponse| message.result.unwrap_or_default();
                Ok(items.of::<query::StreamExecuteResponse>().map_ok(take).boxed())
            }
            Way::Grpc(grpc) => grpc.stream_execute(request).await,
        }
    }

    async fn begin(&self, request: query::BeginRequest) -> Result<i64> {
        call!(self, Begin, begin, request, query::BeginResponse, |a: query::BeginResponse| a.transaction_id)
    }

    async fn commit(&self, request: query::CommitRequest) -> Result<()> {
        call!(self, Commit, commit, request, query::CommitResponse, nothing)
    }

    async fn rollback(&self, request: query::RollbackRequest) -> Result<()> {
        call!(self, Rollback, rollback, request, query::RollbackResponse, nothing)
    }

    async fn begin_execute(&self, request: query::BeginExecuteRequest) -> BeginOutcome<QueryResult> {
        let failed = |error| BeginOutcome { transaction_id: 0, result: Err(error) };
        match self.for_call().await {
            Ok(Way::Framed(connection)) => {
                match self.unary::<_, query::BeginExecuteResponse>(&connection, Method::BeginExecute, &request).await {
                    Ok(a) => outcome(a.error.as_ref(), a.transaction_id, a.result.unwrap_or_default()),
                    Err(error) => failed(error),
                }
            }
            Ok(Way::Grpc(grpc)) => grpc.begin_execute(request).await,
            Err(error) => failed(error),
        }
    }

    async fn begin_execute_rows(
        &self,
        request: query::BeginExecuteRequest,
        sink: &dyn RowSink,
    ) -> BeginOutcome<QueryResult> {
        let failed = |error| BeginOutcome { transaction_id: 0, result: Err(error) };
        match self.for_call().await {
            Ok(Way::Framed(connection)) => {
                let methods = [Method::BeginExecuteRows, Method::BeginExecute];
                match self.growing::<_, query::BeginExecuteResponse>(&connection, methods, &request, sink).await {
                    Ok(a) => outcome(a.error.as_ref(), a.transaction_id, a.result.unwrap_or_default()),
                    Err(error) => failed(error),
                }
            }
            Ok(Way::Grpc(grpc)) => grpc.begin_execute(request).await,
            Err(error) => failed(error),
        }
    }

    async fn begin_execute_batch(&self, request: query::BeginExecuteBatchRequest) -> BeginOutcome<Vec<QueryResult>> {
        let failed = |error| BeginOutcome { transaction_id: 0, result: Err(error) };
        match self.for_call().await {
            Ok(Way::Framed(connection)) => {
                let method = Method::BeginExecuteBatch;
                match self.unary::<_, query::BeginExecuteBatchResponse>(&connection, method, &request).await {
                    Ok(a) => outcome(a.error.as_ref(), a.transaction_id, a.results),
                    Err(error) => failed(error),
                }
            }
            Ok(Way::Grpc(grpc)) => grpc.begin_execute_batch(request).await,
            Err(error) => failed(error),
        }
    }

    async fn prepare(&self, request: query::PrepareRequest) -> Result<query::PrepareResponse> {
        call!(self, Prepare, prepare, request, query::PrepareResponse, |answer| answer)
    }

    async fn commit_prepared(&self, request: query::CommitPreparedRequest) -> Result<()> {
        call!(self, CommitPrepared, commit_prepared, request, query::CommitPreparedResponse, nothing)
    }

    async fn rollback_prepared(&self, request: query::RollbackPreparedRequest) -> Result<()> {
        call!(self, RollbackPrepared, rollback_prepared, request, query::RollbackPreparedResponse, nothing)
    }

    async fn create_transaction(&self, request: query::CreateTransactionRequest) -> Result<()> {
        call!(self, CreateTransaction, create_transaction, request, query::CreateTransactionResponse, nothing)
    }

    async fn start_commit(&self, request: query::StartCommitRequest) -> Result<()> {
        call!(self, StartCommit, start_commit, request, query::StartCommitResponse, nothing)
    }

    async fn set_rollback(&self, request: query::SetRollbackRequest) -> Result<()> {
        call!(self, SetRollback, set_rollback, request, query::SetRollbackResponse, nothing)
    }

    async fn conclude_transaction(&self, request: query::ConcludeTransactionRequest) -> Result<()> {
        call!(self, ConcludeTransaction, conclude_transaction, request, query::ConcludeTransactionResponse, nothing)
    }

    async fn read_transaction(&self, request: query::ReadTransactionRequest) -> Result<query::TransactionMetadata> {
        let take = |answer: query::ReadTransactionResponse| answer.metadata.unwrap_or_default();
        call!(self, ReadTransaction, read_transaction, request, query::ReadTransactionResponse, take)
    }

    async fn stream_health(&self) -> Result<HealthStream> {
        // A tablet that came back may be another program than before.
        self.pool.ask_again();
        match self.for_call().await? {
            Way::Framed(connection) => {
                let request = query::StreamHealthRequest {};
                let items = Self::stream(&connection, Method::StreamHealth, &request).await?;
                Ok(items.of().boxed())
            }
            Way::Grpc(grpc) => grpc.stream_health().await,
        }
    }

    async fn message_stream(&self, request: query::MessageStreamRequest) -> Result<ResultStream> {
        match self.for_stream().await? {
            Way::Framed(connection) => {
                let items = Self::stream(&connection, Method::MessageStream, &request).await?;
                let take = |message: query::MessageStreamResponse| message.result.unwrap_or_default();
                Ok(items.of::<query::MessageStreamResponse>().map_ok(take).boxed())
            }
            Way::Grpc(grpc) => grpc.message_stream(request).await,
        }
    }

    async fn message_ack(&self, request: query::MessageAckRequest) -> Result<i64> {
        match self.for_call().await? {
            Way::Framed(connection) => {
                let answer: query::MessageAckResponse = self.unary(&connection, Method::MessageAck, &request).await?;
                i64::try_from(answer.result.unwrap_or_default().rows_affected)
                    .map_err(|_| VtError::new(Code::Internal, "MessageAck: more messages than can be counted"))
            }
            Way::Grpc(grpc) => grpc.message_ack(request).await,
        }
    }

    async fn split_query(&self, request: query::SplitQueryRequest) -> Result<Vec<query::QuerySplit>> {
        let take = |answer: query::SplitQueryResponse| answer.queries;
        call!(self, SplitQuery, split_query, request, query::SplitQueryResponse, take)
    }

    async fn vstream(
        &self,
        request: binlogdata::VStreamRequest,
    ) -> Result<BoxStream<'static, Result<Vec<binlogdata::VEvent>>>> {
        match self.for_stream().await? {
            Way::Framed(connection) => {
                let items = Self::stream(&connection, Method::VStream, &request).await?;
                Ok(items.of::<binlogdata::VStreamResponse>().map_ok(|message| message.events).boxed())
            }
            Way::Grpc(grpc) => grpc.vstream(request).await,
        }
    }
}
