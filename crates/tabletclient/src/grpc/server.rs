//! Serves a [`QueryService`] over gRPC.
//!
//! Owns: which answers travel in a status and which in a body. A client that goes away drops the
//! future or stream of its call, and with it whatever the service runs for it.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use tonic::{Request, Response, Status};
use vterrors::Result;
use vtproto::{binlogdata, query, queryservice::query_server};

use crate::{BeginOutcome, QueryService};

/// The gRPC face of a query service.
pub struct QueryServer {
    service: Arc<dyn QueryService>,
}

impl QueryServer {
    pub fn new(service: Arc<dyn QueryService>) -> Self {
        Self { service }
    }

    /// What a tonic server or router takes. `max_message_size` in bytes, both ways.
    pub fn into_service(self, max_message_size: usize) -> query_server::QueryServer<Self> {
        query_server::QueryServer::new(self)
            .max_decoding_message_size(max_message_size)
            .max_encoding_message_size(max_message_size)
    }
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

fn answer<T, R>(result: Result<T>, message: impl FnOnce(T) -> R) -> Result<Response<R>, Status> {
    result.map(|value| Response::new(message(value))).map_err(Status::from)
}

fn not_here<T>(method: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{method} is not implemented by this tablet")))
}

#[tonic::async_trait]
impl query_server::Query for QueryServer {
    type StreamExecuteStream = Stream<query::StreamExecuteResponse>;
    type MessageStreamStream = Stream<query::MessageStreamResponse>;
    type StreamHealthStream = Stream<query::StreamHealthResponse>;
    type UpdateStreamStream = Stream<query::UpdateStreamResponse>;
    type VStreamStream = Stream<binlogdata::VStreamResponse>;
    type VStreamRowsStream = Stream<binlogdata::VStreamRowsResponse>;
    type VStreamResultsStream = Stream<binlogdata::VStreamResultsResponse>;

    async fn execute(
        &self,
        request: Request<query::ExecuteRequest>,
    ) -> Result<Response<query::ExecuteResponse>, Status> {
        answer(self.service.execute(request.into_inner()).await, |result| query::ExecuteResponse {
            result: Some(result),
        })
    }

    async fn execute_batch(
        &self,
        request: Request<query::ExecuteBatchRequest>,
    ) -> Result<Response<query::ExecuteBatchResponse>, Status> {
        answer(self.service.execute_batch(request.into_inner()).await, |results| query::ExecuteBatchResponse {
            results,
        })
    }

    async fn stream_execute(
        &self,
        request: Request<query::StreamExecuteRequest>,
    ) -> Result<Response<Self::StreamExecuteStream>, Status> {
        answer(self.service.stream_execute(request.into_inner()).await, |stream| {
            stream.map_ok(|result| query::StreamExecuteResponse { result: Some(result) }).map_err(Status::from).boxed()
        })
    }

    async fn begin(&self, request: Request<query::BeginRequest>) -> Result<Response<query::BeginResponse>, Status> {
        answer(self.service.begin(request.into_inner()).await, |transaction_id| query::BeginResponse { transaction_id })
    }

    async fn commit(&self, request: Request<query::CommitRequest>) -> Result<Response<query::CommitResponse>, Status> {
        answer(self.service.commit(request.into_inner()).await, |()| query::CommitResponse {})
    }

    async fn rollback(
        &self,
        request: Request<query::RollbackRequest>,
    ) -> Result<Response<query::RollbackResponse>, Status> {
        answer(self.service.rollback(request.into_inner()).await, |()| query::RollbackResponse {})
    }

    async fn prepare(
        &self,
        request: Request<query::PrepareRequest>,
    ) -> Result<Response<query::PrepareResponse>, Status> {
        answer(self.service.prepare(request.into_inner()).await, |answer| answer)
    }

    async fn commit_prepared(
        &self,
        request: Request<query::CommitPreparedRequest>,
    ) -> Result<Response<query::CommitPreparedResponse>, Status> {
        answer(self.service.commit_prepared(request.into_inner()).await, |()| query::CommitPreparedResponse {})
    }

    async fn rollback_prepared(
        &self,
        request: Request<query::RollbackPreparedRequest>,
    ) -> Result<Response<query::RollbackPreparedResponse>, Status> {
        answer(self.service.rollback_prepared(request.into_inner()).await, |()| query::RollbackPreparedResponse {})
    }

    async fn create_transaction(
        &self,
        request: Request<query::CreateTransactionRequest>,
    ) -> Result<Response<query::CreateTransactionResponse>, Status> {
        answer(self.service.create_transaction(request.into_inner()).await, |()| query::CreateTransactionResponse {})
    }

    async fn start_commit(
        &self,
        request: Request<query::StartCommitRequest>,
    ) -> Result<Response<query::StartCommitResponse>, Status> {
        answer(self.service.start_commit(request.into_inner()).await, |()| query::StartCommitResponse {})
    }

    async fn set_rollback(
        &self,
        request: Request<query::SetRollbackRequest>,
    ) -> Result<Response<query::SetRollbackResponse>, Status> {
        answer(self.service.set_rollback(request.into_inner()).await, |()| query::SetRollbackResponse {})
    }

    async fn conclude_transaction(
        &self,
        request: Request<query::ConcludeTransactionRequest>,
    ) -> Result<Response<query::ConcludeTransactionResponse>, Status> {
        answer(
            self.service.conclude_transaction(request.into_inner()).await,
            |()| query::ConcludeTransactionResponse {},
        )
    }

    async fn read_transaction(
        &self,
        request: Request<query::ReadTransactionRequest>,
    ) -> Result<Response<query::ReadTransactionResponse>, Status> {
        answer(self.service.read_transaction(request.into_inner()).await, |metadata| query::ReadTransactionResponse {
            metadata: Some(metadata),
        })
    }

    async fn begin_execute(
        &self,
        request: Request<query::BeginExecuteRequest>,
    ) -> Result<Response<query::BeginExecuteResponse>, Status> {
        let BeginOutcome { transaction_id, result } = self.service.begin_execute(request.into_inner()).await;
        match result {
            Ok(result) => {
                Ok(Response::new(query::BeginExecuteResponse { error: None, result: Some(result), transaction_id }))
            }
            // The client has to learn of the open transaction, so the error travels in the body.
            Err(error) if transaction_id != 0 => Ok(Response::new(query::BeginExecuteResponse {
                error: Some(error.to_rpc_error()),
                result: None,
                transaction_id,
            })),
            Err(error) => Err(error.into()),
        }
    }

    async fn begin_execute_batch(
        &self,
        request: Request<query::BeginExecuteBatchRequest>,
    ) -> Result<Response<query::BeginExecuteBatchResponse>, Status> {
        let BeginOutcome { transaction_id, result } = self.service.begin_execute_batch(request.into_inner()).await;
        match result {
            Ok(results) => Ok(Response::new(query::BeginExecuteBatchResponse { error: None, results, transaction_id })),
            Err(error) if transaction_id != 0 => Ok(Response::new(query::BeginExecuteBatchResponse {
                error: Some(error.to_rpc_error()),
                results: Vec::new(),
                transaction_id,
            })),
            Err(error) => Err(error.into()),
        }
    }

    async fn message_stream(
        &self,
        request: Request<query::MessageStreamRequest>,
    ) -> Result<Response<Self::MessageStreamStream>, Status> {
        answer(self.service.message_stream(request.into_inner()).await, |stream| {
            stream.map_ok(|result| query::MessageStreamResponse { result: Some(result) }).map_err(Status::from).boxed()
        })
    }

    async fn message_ack(
        &self,
        request: Request<query::MessageAckRequest>,
    ) -> Result<Response<query::MessageAckResponse>, Status> {
        answer(self.service.message_ack(request.into_inner()).await, |count| query::MessageAckResponse {
            result: Some(query::QueryResult { rows_affected: count.max(0).unsigned_abs(), ..Default::default() }),
        })
    }

    async fn split_query(
        &self,
        request: Request<query::SplitQueryRequest>,
    ) -> Result<Response<query::SplitQueryResponse>, Status> {
        answer(self.service.split_query(request.into_inner()).await, |queries| query::SplitQueryResponse { queries })
    }

    async fn stream_health(
        &self,
        _request: Request<query::StreamHealthRequest>,
    ) -> Result<Response<Self::StreamHealthStream>, Status> {
        answer(self.service.stream_health().await, |stream| stream.map_err(Status::from).boxed())
    }

    async fn update_stream(
        &self,
        _request: Request<query::UpdateStreamRequest>,
    ) -> Result<Response<Self::UpdateStreamStream>, Status> {
        not_here("UpdateStream")
    }

    async fn v_stream(
        &self,
        request: Request<binlogdata::VStreamRequest>,
    ) -> Result<Response<Self::VStreamStream>, Status> {
        answer(self.service.vstream(request.into_inner()).await, |stream| {
            stream.map_ok(|events| binlogdata::VStreamResponse { events }).map_err(Status::from).boxed()
        })
    }

    async fn v_stream_rows(
        &self,
        _request: Request<binlogdata::VStreamRowsRequest>,
    ) -> Result<Response<Self::VStreamRowsStream>, Status> {
        not_here("VStreamRows")
    }

    async fn v_stream_results(
        &self,
        _request: Request<binlogdata::VStreamResultsRequest>,
    ) -> Result<Response<Self::VStreamResultsStream>, Status> {
        not_here("VStreamResults")
    }
}
