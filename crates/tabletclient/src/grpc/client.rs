//! A tablet at the other end of gRPC connections.
//!
//! Owns: one call of each method. Invariant: an error of a call names the tablet's own code and
//! text, see [`super::tablet_error`].

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt, TryStreamExt};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use vterrors::{Code, Result, VtError};
use vtproto::{binlogdata, query, query::QueryResult, queryservice::query_client::QueryClient};

use super::{DialOptions, tablet_error};
use crate::{BeginOutcome, HealthStream, QueryService, ResultStream};

/// A client of one tablet, made by [`super::dial`].
pub struct GrpcTablet {
    clients: Vec<QueryClient<Channel>>,
    next: AtomicUsize,
    creds: Option<(MetadataValue<Ascii>, MetadataValue<Ascii>)>,
}

impl GrpcTablet {
    /// Over channels that all lead to the same tablet; at least one.
    pub fn new(channels: Vec<Channel>, options: &DialOptions) -> Self {
        let clients = channels
            .into_iter()
            .map(|channel| {
                QueryClient::new(channel)
                    .max_decoding_message_size(options.max_message_size)
                    .max_encoding_message_size(options.max_message_size)
            })
            .collect();
        let creds = options.creds.as_ref().and_then(|creds| {
            // A name or password that cannot stand in a header is not sent; the tablet then refuses
            // the call with its own error.
            Some((creds.username.parse().ok()?, creds.password.parse().ok()?))
        });
        Self { clients, next: AtomicUsize::new(0), creds }
    }

    fn client(&self) -> QueryClient<Channel> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.clients[turn % self.clients.len()].clone()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some((username, password)) = &self.creds {
            request.metadata_mut().insert("username", username.clone());
            request.metadata_mut().insert("password", password.clone());
        }
        request
    }
}

/// An answer whose body may carry an error beside the transaction that it left open.
fn outcome<T>(error: Option<&vtproto::vtrpc::RpcError>, transaction_id: i64, result: T) -> BeginOutcome<T> {
    let result = match VtError::from_rpc_error(error) {
        // The tablet's text travels in the body here, and gets the same prefix as one in a status.
        Some(error) => {
            Err(tablet_error(&tonic::Status::new(tonic::Code::from(error.code() as i32), error.message().to_string())))
        }
        None => Ok(result),
    };
    BeginOutcome { transaction_id, result }
}

/// A unary call: takes the message out of the answer, or turns the status into our error.
macro_rules! call {
    ($self:ident, $method:ident, $request:ident) => {
        $self
            .client()
            .$method($self.request($request))
            .await
            .map(tonic::Response::into_inner)
            .map_err(|s| tablet_error(&s))
    };
}

#[async_trait::async_trait]
impl QueryService for GrpcTablet {
    async fn execute(&self, request: query::ExecuteRequest) -> Result<QueryResult> {
        Ok(call!(self, execute, request)?.result.unwrap_or_default())
    }

    async fn execute_batch(&self, request: query::ExecuteBatchRequest) -> Result<Vec<QueryResult>> {
        Ok(call!(self, execute_batch, request)?.results)
    }

    async fn stream_execute(&self, request: query::StreamExecuteRequest) -> Result<ResultStream> {
        let stream = call!(self, stream_execute, request)?;
        Ok(stream.map_ok(|message| message.result.unwrap_or_default()).map_err(|s| tablet_error(&s)).boxed())
    }

    async fn begin(&self, request: query::BeginRequest) -> Result<i64> {
        Ok(call!(self, begin, request)?.transaction_id)
    }

    async fn commit(&self, request: query::CommitRequest) -> Result<()> {
        call!(self, commit, request).map(drop)
    }

    async fn rollback(&self, request: query::RollbackRequest) -> Result<()> {
        call!(self, rollback, request).map(drop)
    }

    async fn begin_execute(&self, request: query::BeginExecuteRequest) -> BeginOutcome<QueryResult> {
        match call!(self, begin_execute, request) {
            Ok(answer) => outcome(answer.error.as_ref(), answer.transaction_id, answer.result.unwrap_or_default()),
            Err(error) => BeginOutcome { transaction_id: 0, result: Err(error) },
        }
    }

    async fn begin_execute_batch(&self, request: query::BeginExecuteBatchRequest) -> BeginOutcome<Vec<QueryResult>> {
        match call!(self, begin_execute_batch, request) {
            Ok(answer) => outcome(answer.error.as_ref(), answer.transaction_id, answer.results),
            Err(error) => BeginOutcome { transaction_id: 0, result: Err(error) },
        }
    }

    async fn prepare(&self, request: query::PrepareRequest) -> Result<query::PrepareResponse> {
        call!(self, prepare, request)
    }

    async fn commit_prepared(&self, request: query::CommitPreparedRequest) -> Result<()> {
        call!(self, commit_prepared, request).map(drop)
    }

    async fn rollback_prepared(&self, request: query::RollbackPreparedRequest) -> Result<()> {
        call!(self, rollback_prepared, request).map(drop)
    }

    async fn create_transaction(&self, request: query::CreateTransactionRequest) -> Result<()> {
        call!(self, create_transaction, request).map(drop)
    }

    async fn start_commit(&self, request: query::StartCommitRequest) -> Result<()> {
        call!(self, start_commit, request).map(drop)
    }

    async fn set_rollback(&self, request: query::SetRollbackRequest) -> Result<()> {
        call!(self, set_rollback, request).map(drop)
    }

    async fn conclude_transaction(&self, request: query::ConcludeTransactionRequest) -> Result<()> {
        call!(self, conclude_transaction, request).map(drop)
    }

    async fn read_transaction(&self, request: query::ReadTransactionRequest) -> Result<query::TransactionMetadata> {
        Ok(call!(self, read_transaction, request)?.metadata.unwrap_or_default())
    }

    async fn stream_health(&self) -> Result<HealthStream> {
        let request = query::StreamHealthRequest {};
        let stream = call!(self, stream_health, request)?;
        Ok(stream.map_err(|s| tablet_error(&s)).boxed())
    }

    async fn message_stream(&self, request: query::MessageStreamRequest) -> Result<ResultStream> {
        let stream = call!(self, message_stream, request)?;
        Ok(stream.map_ok(|message| message.result.unwrap_or_default()).map_err(|s| tablet_error(&s)).boxed())
    }

    async fn message_ack(&self, request: query::MessageAckRequest) -> Result<i64> {
        let result = call!(self, message_ack, request)?.result.unwrap_or_default();
        i64::try_from(result.rows_affected)
            .map_err(|_| VtError::new(Code::Internal, "MessageAck: more messages than can be counted"))
    }

    async fn split_query(&self, request: query::SplitQueryRequest) -> Result<Vec<query::QuerySplit>> {
        Ok(call!(self, split_query, request)?.queries)
    }

    async fn vstream(
        &self,
        request: binlogdata::VStreamRequest,
    ) -> Result<futures::stream::BoxStream<'static, Result<Vec<binlogdata::VEvent>>>> {
        let stream = call!(self, v_stream, request)?;
        Ok(stream.map_ok(|message| message.events).map_err(|s| tablet_error(&s)).boxed())
    }
}
