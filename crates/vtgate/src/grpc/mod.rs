//! `vtgateservice.Vitess`: vtgate for Go, Java and other gRPC clients.
//!
//! Owns: which errors travel in a body and which in a status, and who the caller is. The session is
//! the client's: it comes with each request and goes back with each answer, errors included.

mod peer;
mod v2;

use std::sync::Arc;

use futures::{Stream, StreamExt, stream::BoxStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::{self, BoundQuery, QueryResult, ResultWithError, Row, VtGateCallerId},
    topodata::TabletType,
    vtgate::{self, TransactionMode},
    vtgateservice::vitess_server,
    vtrpc::CallerId,
};

use crate::{
    caller::Caller,
    executor::{Executor, Output},
    session::Session,
};

/// Name of a caller without a certificate.
const UNSECURE: &str = "unsecure_grpc_client";

/// Serves the API. Cloning shares it.
#[derive(Clone)]
pub struct VitessService {
    executor: Executor,
    use_effective_caller_id: bool,
    /// Bytes of rows in one message of a stream (`-stream_buffer_size`).
    stream_buffer_size: usize,
}

impl VitessService {
    pub fn new(executor: Executor, use_effective_caller_id: bool, stream_buffer_size: usize) -> Self {
        Self { executor, use_effective_caller_id, stream_buffer_size }
    }

    /// What a tonic server or router takes. `max_message_size` in bytes, both ways.
    pub fn into_service(self, max_message_size: usize) -> vitess_server::VitessServer<Self> {
        vitess_server::VitessServer::new(self)
            .max_decoding_message_size(max_message_size)
            .max_encoding_message_size(max_message_size)
    }

    /// Who calls. The guard ends what runs for a request when its future or stream is dropped.
    fn caller<T>(&self, request: &Request<T>, effective: Option<CallerId>) -> (Caller, DropGuard) {
        let certificate = request.peer_certs().and_then(|certs| peer::names(certs.first()?));
        let immediate = match (certificate, &effective) {
            (Some(names), _) => VtGateCallerId { username: names.common_name, groups: names.dns_names },
            (None, Some(effective)) if self.use_effective_caller_id && !effective.principal.is_empty() => {
                VtGateCallerId { username: effective.principal.clone(), groups: Vec::new() }
            }
            (None, _) => VtGateCallerId { username: UNSECURE.into(), groups: Vec::new() },
        };
        let left = request.extensions().get::<Left>();
        let cancelled = left.map_or_else(CancellationToken::new, |left| left.0.child_token());
        let remote = request.remote_addr().map(|address| address.to_string()).unwrap_or_default();
        let cancel = cancelled.clone();
        let caller = Caller { effective, immediate: Some(immediate), remote, cancelled: cancel, ..Caller::default() };
        (caller, cancelled.drop_guard())
    }

    /// Runs a call in a task of its own, to its end. When the client leaves, its statements are cancelled as those of a
    /// MySQL client are, and what they have begun is rolled back.
    async fn to_its_end<R, T, F>(
        &self,
        mut request: Request<R>,
        call: impl FnOnce(Self, Request<R>) -> F,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let left = CancellationToken::new();
        request.extensions_mut().insert(Left(left.clone()));
        let _guard = left.drop_guard();
        let ended = tokio::spawn(call(self.clone(), request)).await;
        ended.unwrap_or_else(|panic| Err(Status::internal(panic.to_string())))
    }

    async fn run_execute(
        &self,
        mut request: Request<vtgate::ExecuteRequest>,
    ) -> Result<Response<vtgate::ExecuteResponse>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, _guard) = self.caller(&request, effective);
        let request = request.into_inner();
        let mut session = Session::from_message(request.session.clone());
        legacy_target(&mut session, &request.keyspace_shard, request.tablet_type(), false);
        default_options(&mut session, request.options);
        let query = request.query.unwrap_or_default();
        let outcome =
            self.executor.execute(&caller, &mut session, "Execute", query.sql.as_bytes(), &query.bind_variables).await;
        let (error, result) = split(outcome);
        Ok(Response::new(vtgate::ExecuteResponse { error, session: Some(session.pb), result }))
    }

    async fn run_execute_batch(
        &self,
        mut request: Request<vtgate::ExecuteBatchRequest>,
    ) -> Result<Response<vtgate::ExecuteBatchResponse>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, _guard) = self.caller(&request, effective);
        let request = request.into_inner();
        let mut session = Session::from_message(request.session.clone());
        legacy_target(&mut session, &request.keyspace_shard, request.tablet_type(), true);
        default_options(&mut session, request.options.clone());
        let mut results = Vec::with_capacity(request.queries.len());
        for query in &request.queries {
            let outcome = self
                .executor
                .execute(&caller, &mut session, "ExecuteBatch", query.sql.as_bytes(), &query.bind_variables)
                .await;
            let (error, result) = split(outcome);
            results.push(ResultWithError { error, result });
            if caller.cancelled.is_cancelled() {
                break;
            }
        }
        Ok(Response::new(vtgate::ExecuteBatchResponse { error: None, session: Some(session.pb), results }))
    }
}

/// In the extensions of a request: resolves when its client has left.
#[derive(Clone)]
struct Left(CancellationToken);

/// The old ways to name a target, where the session names none. `always` as for the calls that take
/// an unset type as `@unknown`.
fn legacy_target(session: &mut Session, keyspace_shard: &str, tablet_type: TabletType, always: bool) {
    if session.pb.target_string.is_empty() && (always || tablet_type != TabletType::Unknown) {
        let name = tabletclient::health_check::type_text(tablet_type);
        session.pb.target_string = format!("{keyspace_shard}@{name}");
    }
}

fn default_options(session: &mut Session, options: Option<query::ExecuteOptions>) {
    if session.pb.options.is_none() {
        session.pb.options = options;
    }
}

/// Gathers rows into messages of about `size` bytes and keeps `guard` for as long as the stream lives.
fn chunks(output: Output, size: usize, guard: DropGuard) -> BoxStream<'static, Result<QueryResult>> {
    let rows = match output {
        Output::Rows(rows) => rows,
        Output::Whole(mut result) => {
            // The first message holds the fields alone, whatever the rows are.
            let rest = QueryResult { rows: std::mem::take(&mut result.rows), ..QueryResult::default() };
            let parts = [Some(result), Some(rest).filter(|rest| !rest.rows.is_empty())];
            futures::stream::iter(parts.into_iter().flatten().map(Ok)).boxed()
        }
    };
    struct State<S> {
        source: S,
        rows: Vec<Row>,
        bytes: usize,
        failed: Option<VtError>,
        ready: std::collections::VecDeque<QueryResult>,
        done: bool,
        _guard: DropGuard,
    }
    impl<S> State<S> {
        fn flush(&mut self) {
            if !self.rows.is_empty() {
                let rows = std::mem::take(&mut self.rows);
                self.bytes = 0;
                self.ready.push_back(QueryResult { rows, ..QueryResult::default() });
            }
        }

        fn take(&mut self, mut part: QueryResult, size: usize) {
            let rows = std::mem::take(&mut part.rows);
            if !part.fields.is_empty() || part.rows_affected != 0 || part.insert_id != 0 {
                self.ready.push_back(part);
            }
            for row in rows {
                self.bytes += row.values.len() + row.lengths.len();
                self.rows.push(row);
                if self.bytes >= size {
                    self.flush();
                }
            }
        }
    }
    let state = State {
        source: rows,
        rows: Vec::new(),
        bytes: 0,
        failed: None,
        ready: Default::default(),
        done: false,
        _guard: guard,
    };
    futures::stream::unfold(state, move |mut state| async move {
        loop {
            if let Some(ready) = state.ready.pop_front() {
                return Some((Ok(ready), state));
            }
            if let Some(error) = state.failed.take() {
                return Some((Err(error), state));
            }
            if state.done {
                return None;
            }
            match state.source.next().await {
                Some(Ok(part)) => state.take(part, size),
                ended => {
                    state.flush();
                    state.failed = ended.and_then(Result::err);
                    state.done = true;
                }
            }
        }
    })
    .boxed()
}

fn not_built<T>(method: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{method} is not implemented by this vtgate")))
}

type ResponseStream<T> = BoxStream<'static, Result<T, Status>>;

/// A stream of results as a stream of messages.
fn messages<T>(
    rows: impl Stream<Item = Result<QueryResult>> + Send + 'static,
    message: fn(QueryResult) -> T,
) -> Response<ResponseStream<T>>
where
    T: Send + 'static,
{
    Response::new(rows.map(move |part| part.map(message).map_err(Status::from)).boxed())
}

#[tonic::async_trait]
impl vitess_server::Vitess for VitessService {
    type StreamExecuteStream = ResponseStream<vtgate::StreamExecuteResponse>;
    type StreamExecuteShardsStream = ResponseStream<vtgate::StreamExecuteShardsResponse>;
    type StreamExecuteKeyspaceIdsStream = ResponseStream<vtgate::StreamExecuteKeyspaceIdsResponse>;
    type StreamExecuteKeyRangesStream = ResponseStream<vtgate::StreamExecuteKeyRangesResponse>;
    type MessageStreamStream = ResponseStream<query::MessageStreamResponse>;
    type VStreamStream = ResponseStream<vtgate::VStreamResponse>;
    type UpdateStreamStream = ResponseStream<vtgate::UpdateStreamResponse>;

    async fn execute(
        &self,
        request: Request<vtgate::ExecuteRequest>,
    ) -> Result<Response<vtgate::ExecuteResponse>, Status> {
        self.to_its_end(request, |service, request| async move { service.run_execute(request).await }).await
    }

    async fn execute_batch(
        &self,
        request: Request<vtgate::ExecuteBatchRequest>,
    ) -> Result<Response<vtgate::ExecuteBatchResponse>, Status> {
        self.to_its_end(request, |service, request| async move { service.run_execute_batch(request).await }).await
    }

    async fn stream_execute(
        &self,
        mut request: Request<vtgate::StreamExecuteRequest>,
    ) -> Result<Response<Self::StreamExecuteStream>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, guard) = self.caller(&request, effective);
        let request = request.into_inner();
        let mut session = Session::from_message(request.session.clone());
        legacy_target(&mut session, &request.keyspace_shard, request.tablet_type(), true);
        default_options(&mut session, request.options);
        // The session does not go back, so nothing may be begun in it; nor is what is open joined.
        session.reset_transaction();
        session.pb.autocommit = true;
        let query = request.query.unwrap_or_default();
        let output = self
            .executor
            .stream(&caller, &mut session, "StreamExecute", query.sql.as_bytes(), &query.bind_variables, false)
            .await?;
        if session.in_transaction() {
            self.executor.transactions().rollback(&caller, &mut session).await;
            let text = "transactions cannot be begun in StreamExecute: its session does not come back";
            return Err(VtError::new(Code::InvalidArgument, text).into());
        }
        let rows = chunks(output, self.stream_buffer_size, guard);
        Ok(messages(rows, |result| vtgate::StreamExecuteResponse { result: Some(result) }))
    }

    async fn execute_shards(
        &self,
        request: Request<vtgate::ExecuteShardsRequest>,
    ) -> Result<Response<vtgate::ExecuteShardsResponse>, Status> {
        self.to_its_end(request, |service, request| async move { service.v2_execute_shards(request).await }).await
    }

    async fn execute_keyspace_ids(
        &self,
        request: Request<vtgate::ExecuteKeyspaceIdsRequest>,
    ) -> Result<Response<vtgate::ExecuteKeyspaceIdsResponse>, Status> {
        self.to_its_end(request, |service, request| async move { service.v2_execute_keyspace_ids(request).await }).await
    }

    async fn execute_key_ranges(
        &self,
        request: Request<vtgate::ExecuteKeyRangesRequest>,
    ) -> Result<Response<vtgate::ExecuteKeyRangesResponse>, Status> {
        self.to_its_end(request, |service, request| async move { service.v2_execute_key_ranges(request).await }).await
    }

    async fn execute_entity_ids(
        &self,
        request: Request<vtgate::ExecuteEntityIdsRequest>,
    ) -> Result<Response<vtgate::ExecuteEntityIdsResponse>, Status> {
        self.to_its_end(request, |service, request| async move { service.v2_execute_entity_ids(request).await }).await
    }

    async fn execute_batch_shards(
        &self,
        request: Request<vtgate::ExecuteBatchShardsRequest>,
    ) -> Result<Response<vtgate::ExecuteBatchShardsResponse>, Status> {
        self.to_its_end(request, |service, request| async move { service.v2_execute_batch_shards(request).await }).await
    }

    async fn execute_batch_keyspace_ids(
        &self,
        request: Request<vtgate::ExecuteBatchKeyspaceIdsRequest>,
    ) -> Result<Response<vtgate::ExecuteBatchKeyspaceIdsResponse>, Status> {
        self.to_its_end(request, |service, request| async move { service.v2_execute_batch_keyspace_ids(request).await })
            .await
    }

    async fn stream_execute_shards(
        &self,
        request: Request<vtgate::StreamExecuteShardsRequest>,
    ) -> Result<Response<Self::StreamExecuteShardsStream>, Status> {
        self.v2_stream_execute_shards(request).await
    }

    async fn stream_execute_keyspace_ids(
        &self,
        request: Request<vtgate::StreamExecuteKeyspaceIdsRequest>,
    ) -> Result<Response<Self::StreamExecuteKeyspaceIdsStream>, Status> {
        self.v2_stream_execute_keyspace_ids(request).await
    }

    async fn stream_execute_key_ranges(
        &self,
        request: Request<vtgate::StreamExecuteKeyRangesRequest>,
    ) -> Result<Response<Self::StreamExecuteKeyRangesStream>, Status> {
        self.v2_stream_execute_key_ranges(request).await
    }

    async fn begin(&self, request: Request<vtgate::BeginRequest>) -> Result<Response<vtgate::BeginResponse>, Status> {
        let session = vtgate::Session {
            in_transaction: true,
            single_db: request.into_inner().single_db,
            ..vtgate::Session::default()
        };
        Ok(Response::new(vtgate::BeginResponse { session: Some(session) }))
    }

    async fn commit(
        &self,
        mut request: Request<vtgate::CommitRequest>,
    ) -> Result<Response<vtgate::CommitResponse>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, _guard) = self.caller(&request, effective);
        let request = request.into_inner();
        let mut session = Session::from_message(Some(request.session.unwrap_or_default()));
        if !session.in_transaction() {
            let error = VtError::new(Code::Aborted, "cannot commit: not in transaction");
            return Err(self.executor.prefixed(error).into());
        }
        if request.atomic {
            session.pb.set_transaction_mode(TransactionMode::Twopc);
        }
        let outcome = self.executor.transactions().commit(&caller, &mut session).await;
        outcome.map_err(|error| self.executor.prefixed(error))?;
        Ok(Response::new(vtgate::CommitResponse {}))
    }

    async fn rollback(
        &self,
        mut request: Request<vtgate::RollbackRequest>,
    ) -> Result<Response<vtgate::RollbackResponse>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, _guard) = self.caller(&request, effective);
        let mut session = Session::from_message(Some(request.into_inner().session.unwrap_or_default()));
        self.executor.transactions().rollback(&caller, &mut session).await;
        Ok(Response::new(vtgate::RollbackResponse {}))
    }

    async fn resolve_transaction(
        &self,
        mut request: Request<vtgate::ResolveTransactionRequest>,
    ) -> Result<Response<vtgate::ResolveTransactionResponse>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, _guard) = self.caller(&request, effective);
        let dtid = request.into_inner().dtid;
        let outcome = self.executor.transactions().resolve(&caller, &dtid).await;
        outcome.map_err(|error| self.executor.prefixed(error))?;
        Ok(Response::new(vtgate::ResolveTransactionResponse {}))
    }

    async fn message_stream(
        &self,
        _request: Request<vtgate::MessageStreamRequest>,
    ) -> Result<Response<Self::MessageStreamStream>, Status> {
        not_built("MessageStream")
    }

    async fn message_ack(
        &self,
        _request: Request<vtgate::MessageAckRequest>,
    ) -> Result<Response<query::MessageAckResponse>, Status> {
        not_built("MessageAck")
    }

    async fn message_ack_keyspace_ids(
        &self,
        _request: Request<vtgate::MessageAckKeyspaceIdsRequest>,
    ) -> Result<Response<query::MessageAckResponse>, Status> {
        not_built("MessageAckKeyspaceIds")
    }

    async fn split_query(
        &self,
        _request: Request<vtgate::SplitQueryRequest>,
    ) -> Result<Response<vtgate::SplitQueryResponse>, Status> {
        not_built("SplitQuery")
    }

    async fn get_srv_keyspace(
        &self,
        request: Request<vtgate::GetSrvKeyspaceRequest>,
    ) -> Result<Response<vtgate::GetSrvKeyspaceResponse>, Status> {
        let keyspace = request.into_inner().keyspace;
        let found = self.executor.parts().resolver.srv_keyspace(&keyspace).await;
        let record = found.map_err(|error| self.executor.prefixed(error))?;
        Ok(Response::new(vtgate::GetSrvKeyspaceResponse { srv_keyspace: Some(Arc::unwrap_or_clone(record)) }))
    }

    async fn v_stream(
        &self,
        _request: Request<vtgate::VStreamRequest>,
    ) -> Result<Response<Self::VStreamStream>, Status> {
        not_built("VStream")
    }

    async fn update_stream(
        &self,
        _request: Request<vtgate::UpdateStreamRequest>,
    ) -> Result<Response<Self::UpdateStreamStream>, Status> {
        not_built("UpdateStream")
    }
}

/// An outcome as the two fields of an answer's body.
fn split(outcome: Result<QueryResult>) -> (Option<vtproto::vtrpc::RpcError>, Option<QueryResult>) {
    match outcome {
        Ok(result) => (None, Some(result)),
        Err(error) => (Some(error.to_rpc_error()), None),
    }
}

/// The query of a request, which old clients may leave out.
fn bound(query: Option<BoundQuery>) -> BoundQuery {
    query.unwrap_or_default()
}
