//! The v2 calls, in which the client names shards, keyspace ids or key ranges itself.

use std::collections::BTreeMap;

use keyrange::KeyspaceId;
use planner::Destination;
use tonic::{Request, Response, Status};
use topo::topoproto;
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::{BindVariable, BoundQuery, ExecuteOptions, QueryResult, Target, Type, Value},
    topodata::{KeyRange, TabletType},
    vtgate,
};
use vtsql::lexer::{Lexer, TokenKind};

use super::{ResponseStream, VitessService, bound, chunks, messages, split};
use crate::{
    caller::Caller,
    executor::{Direct, Named},
    session::Session,
};

/// The places that the calls can name.
enum Place<'a> {
    Shards(&'a [String]),
    KeyspaceIds(&'a [Vec<u8>]),
    KeyRanges(&'a [KeyRange]),
}

/// A session as the v2 calls use it: one that is missing means no transaction.
fn v2_session(session: Option<vtgate::Session>, options: Option<ExecuteOptions>) -> Session {
    let mut session = Session::from_message(session);
    if options.is_some() {
        session.pb.options = options;
    }
    session
}

/// A statement and the places that its caller names.
struct At<'a> {
    service: &'a VitessService,
    keyspace: &'a str,
    tablet_type: TabletType,
    place: Place<'a>,
    query: BoundQuery,
}

impl At<'_> {
    async fn targets(&self) -> Result<Vec<Target>> {
        let resolver = &self.service.executor.parts().resolver;
        let (keyspace, tablet_type) = (self.keyspace, self.tablet_type);
        match self.place {
            Place::Shards(names) => {
                let mut targets = Vec::with_capacity(names.len());
                for name in names {
                    let destination = Destination::Explicit(keyrange::Destination::Shard(name.clone()));
                    targets.extend(resolver.resolve(keyspace, tablet_type, &destination).await?);
                }
                Ok(targets)
            }
            Place::KeyspaceIds(ids) => {
                let ids = ids.iter().map(|id| KeyspaceId::new(id.as_slice())).collect();
                resolver.resolve(keyspace, tablet_type, &Destination::KeyspaceIds(ids)).await
            }
            Place::KeyRanges(ranges) => {
                let mut targets: Vec<Target> = Vec::new();
                for range in ranges {
                    let range = topoproto::key_range(Some(range));
                    for target in resolver.resolve_range(keyspace, tablet_type, &range).await? {
                        if !targets.contains(&target) {
                            targets.push(target);
                        }
                    }
                }
                Ok(targets)
            }
        }
    }
}

#[async_trait::async_trait]
impl Named for At<'_> {
    async fn resolve(&self) -> Result<Direct> {
        let targets = self.targets().await?;
        let ids = match self.place {
            Place::KeyspaceIds(ids) => ids,
            _ => &[],
        };
        let sql = self.service.executor.annotated(&self.query.sql, ids);
        let query = BoundQuery { sql, bind_variables: self.query.bind_variables.clone() };
        Ok(Direct::same(self.keyspace, self.tablet_type, targets, &query))
    }
}

/// A statement that each shard runs for the ids that it holds.
struct ForEntities<'a> {
    service: &'a VitessService,
    request: &'a vtgate::ExecuteEntityIdsRequest,
}

#[async_trait::async_trait]
impl Named for ForEntities<'_> {
    async fn resolve(&self) -> Result<Direct> {
        self.service.entity_queries(self.request).await
    }
}

impl VitessService {
    pub(super) async fn v2_execute_shards(
        &self,
        mut request: Request<vtgate::ExecuteShardsRequest>,
    ) -> Result<Response<vtgate::ExecuteShardsResponse>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, _guard) = self.caller(&request, effective);
        let r = request.into_inner();
        let (tablet_type, mut session) = (r.tablet_type(), v2_session(r.session, r.options));
        let place = Place::Shards(&r.shards);
        let at = At { service: self, keyspace: &r.keyspace, tablet_type, place, query: bound(r.query) };
        let outcome = self.executor.execute_direct(&caller, &mut session, "ExecuteShards", &at).await;
        let (error, result) = split(outcome);
        Ok(Response::new(vtgate::ExecuteShardsResponse { error, session: Some(session.pb), result }))
    }

    pub(super) async fn v2_execute_keyspace_ids(
        &self,
        mut request: Request<vtgate::ExecuteKeyspaceIdsRequest>,
    ) -> Result<Response<vtgate::ExecuteKeyspaceIdsResponse>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, _guard) = self.caller(&request, effective);
        let r = request.into_inner();
        let (tablet_type, mut session) = (r.tablet_type(), v2_session(r.session, r.options));
        let place = Place::KeyspaceIds(&r.keyspace_ids);
        let at = At { service: self, keyspace: &r.keyspace, tablet_type, place, query: bound(r.query) };
        let outcome = self.executor.execute_direct(&caller, &mut session, "ExecuteKeyspaceIds", &at).await;
        let (error, result) = split(outcome);
        Ok(Response::new(vtgate::ExecuteKeyspaceIdsResponse { error, session: Some(session.pb), result }))
    }

    pub(super) async fn v2_execute_key_ranges(
        &self,
        mut request: Request<vtgate::ExecuteKeyRangesRequest>,
    ) -> Result<Response<vtgate::ExecuteKeyRangesResponse>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, _guard) = self.caller(&request, effective);
        let r = request.into_inner();
        let (tablet_type, mut session) = (r.tablet_type(), v2_session(r.session, r.options));
        let place = Place::KeyRanges(&r.key_ranges);
        let at = At { service: self, keyspace: &r.keyspace, tablet_type, place, query: bound(r.query) };
        let outcome = self.executor.execute_direct(&caller, &mut session, "ExecuteKeyRanges", &at).await;
        let (error, result) = split(outcome);
        Ok(Response::new(vtgate::ExecuteKeyRangesResponse { error, session: Some(session.pb), result }))
    }

    pub(super) async fn v2_execute_entity_ids(
        &self,
        mut request: Request<vtgate::ExecuteEntityIdsRequest>,
    ) -> Result<Response<vtgate::ExecuteEntityIdsResponse>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, _guard) = self.caller(&request, effective);
        let mut r = request.into_inner();
        let mut session = v2_session(r.session.take(), r.options.take());
        let entities = ForEntities { service: self, request: &r };
        let outcome = self.executor.execute_direct(&caller, &mut session, "ExecuteEntityIds", &entities).await;
        let (error, result) = split(outcome);
        Ok(Response::new(vtgate::ExecuteEntityIdsResponse { error, session: Some(session.pb), result }))
    }

    /// One query a shard, each with the ids of that shard.
    async fn entity_queries(&self, request: &vtgate::ExecuteEntityIdsRequest) -> Result<Direct> {
        let (resolver, tablet_type) = (&self.executor.parts().resolver, request.tablet_type());
        let mut by_shard: BTreeMap<String, (Target, Vec<Value>)> = BTreeMap::new();
        for entity in &request.entity_keyspace_ids {
            let id = Destination::KeyspaceIds(vec![KeyspaceId::new(entity.keyspace_id.as_slice())]);
            for target in resolver.resolve(&request.keyspace, tablet_type, &id).await? {
                let value = Value { r#type: entity.r#type, value: entity.value.clone().into() };
                by_shard.entry(target.shard.clone()).or_insert_with(|| (target, Vec::new())).1.push(value);
            }
        }
        let query = request.query.clone().unwrap_or_default();
        let column = &request.entity_column_name;
        let name = format!("{column}_entity_ids");
        let condition = format!("{} in ::{name}", vtsql::quote_identifier(column));
        let sql = with_condition(&query.sql, &condition)?;
        let queries = by_shard
            .into_values()
            .map(|(target, values)| {
                let mut bind_variables = query.bind_variables.clone();
                let list = BindVariable { r#type: Type::Tuple.into(), values, ..BindVariable::default() };
                bind_variables.insert(name.clone(), list);
                (target, BoundQuery { sql: sql.clone(), bind_variables })
            })
            .collect();
        Ok(Direct { keyspace: request.keyspace.clone(), tablet_type, queries })
    }

    pub(super) async fn v2_execute_batch_shards(
        &self,
        mut request: Request<vtgate::ExecuteBatchShardsRequest>,
    ) -> Result<Response<vtgate::ExecuteBatchShardsResponse>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, _guard) = self.caller(&request, effective);
        let r = request.into_inner();
        let (tablet_type, mut session) = (r.tablet_type(), v2_session(r.session, r.options));
        let batch = r.queries.iter().map(|query| At {
            service: self,
            keyspace: &query.keyspace,
            tablet_type,
            place: Place::Shards(&query.shards),
            query: bound(query.query.clone()),
        });
        let outcome = self.batch(&caller, &mut session, "ExecuteBatchShards", r.as_transaction, batch.collect()).await;
        let (error, results) = whole_batch(outcome);
        Ok(Response::new(vtgate::ExecuteBatchShardsResponse { error, session: Some(session.pb), results }))
    }

    pub(super) async fn v2_execute_batch_keyspace_ids(
        &self,
        mut request: Request<vtgate::ExecuteBatchKeyspaceIdsRequest>,
    ) -> Result<Response<vtgate::ExecuteBatchKeyspaceIdsResponse>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, _guard) = self.caller(&request, effective);
        let r = request.into_inner();
        let (tablet_type, mut session) = (r.tablet_type(), v2_session(r.session, r.options));
        let batch = r.queries.iter().map(|query| At {
            service: self,
            keyspace: &query.keyspace,
            tablet_type,
            place: Place::KeyspaceIds(&query.keyspace_ids),
            query: bound(query.query.clone()),
        });
        let outcome =
            self.batch(&caller, &mut session, "ExecuteBatchKeyspaceIds", r.as_transaction, batch.collect()).await;
        let (error, results) = whole_batch(outcome);
        Ok(Response::new(vtgate::ExecuteBatchKeyspaceIdsResponse { error, session: Some(session.pb), results }))
    }

    /// Runs a batch up to its first error, in a transaction of its own if asked for.
    async fn batch(
        &self,
        caller: &Caller,
        session: &mut Session,
        method: &'static str,
        as_transaction: bool,
        batch: Vec<At<'_>>,
    ) -> Result<Vec<QueryResult>> {
        if as_transaction && session.in_transaction() {
            let error =
                VtError::new(Code::FailedPrecondition, "cannot execute a batch as transaction inside a transaction");
            return Err(self.executor.prefixed(error));
        }
        let transactions = self.executor.transactions();
        if as_transaction {
            transactions.begin(caller, session).await?;
        }
        let mut results = Vec::with_capacity(batch.len());
        for at in &batch {
            match self.executor.execute_direct(caller, session, method, at).await {
                Ok(result) => results.push(result),
                Err(error) => {
                    if as_transaction {
                        transactions.rollback(caller, session).await;
                    }
                    return Err(error);
                }
            }
        }
        if as_transaction {
            transactions.commit(caller, session).await.map_err(|error| self.executor.prefixed(error))?;
        }
        Ok(results)
    }

    pub(super) async fn v2_stream_execute_shards(
        &self,
        mut request: Request<vtgate::StreamExecuteShardsRequest>,
    ) -> Result<Response<ResponseStream<vtgate::StreamExecuteShardsResponse>>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, guard) = self.caller(&request, effective);
        let r = request.into_inner();
        let tablet_type = r.tablet_type();
        let place = Place::Shards(&r.shards);
        let at = At { service: self, keyspace: &r.keyspace, tablet_type, place, query: bound(r.query) };
        let output = self.executor.stream_direct(&caller, "StreamExecuteShards", &at).await?;
        let rows = chunks(output, self.stream_buffer_size, guard);
        Ok(messages(rows, |result| vtgate::StreamExecuteShardsResponse { result: Some(result) }))
    }

    pub(super) async fn v2_stream_execute_keyspace_ids(
        &self,
        mut request: Request<vtgate::StreamExecuteKeyspaceIdsRequest>,
    ) -> Result<Response<ResponseStream<vtgate::StreamExecuteKeyspaceIdsResponse>>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, guard) = self.caller(&request, effective);
        let r = request.into_inner();
        let tablet_type = r.tablet_type();
        let place = Place::KeyspaceIds(&r.keyspace_ids);
        let at = At { service: self, keyspace: &r.keyspace, tablet_type, place, query: bound(r.query) };
        let output = self.executor.stream_direct(&caller, "StreamExecuteKeyspaceIds", &at).await?;
        let rows = chunks(output, self.stream_buffer_size, guard);
        Ok(messages(rows, |result| vtgate::StreamExecuteKeyspaceIdsResponse { result: Some(result) }))
    }

    pub(super) async fn v2_stream_execute_key_ranges(
        &self,
        mut request: Request<vtgate::StreamExecuteKeyRangesRequest>,
    ) -> Result<Response<ResponseStream<vtgate::StreamExecuteKeyRangesResponse>>, Status> {
        let effective = request.get_mut().caller_id.take();
        let (caller, guard) = self.caller(&request, effective);
        let r = request.into_inner();
        let tablet_type = r.tablet_type();
        let place = Place::KeyRanges(&r.key_ranges);
        let at = At { service: self, keyspace: &r.keyspace, tablet_type, place, query: bound(r.query) };
        let output = self.executor.stream_direct(&caller, "StreamExecuteKeyRanges", &at).await?;
        let rows = chunks(output, self.stream_buffer_size, guard);
        Ok(messages(rows, |result| vtgate::StreamExecuteKeyRangesResponse { result: Some(result) }))
    }
}

fn whole_batch(outcome: Result<Vec<QueryResult>>) -> (Option<vtproto::vtrpc::RpcError>, Vec<QueryResult>) {
    match outcome {
        Ok(results) => (None, results),
        Err(error) => (Some(error.to_rpc_error()), Vec::new()),
    }
}

/// The statement with one more condition: in front of what may follow WHERE, at the outermost level.
fn with_condition(sql: &str, condition: &str) -> Result<String> {
    let bytes = sql.as_bytes();
    let (mut depth, mut condition_at, mut end) = (0usize, None, sql.len());
    for token in Lexer::new(bytes) {
        match (token.kind, token.bytes(bytes)) {
            (TokenKind::Punct, b"(") => depth += 1,
            (TokenKind::Punct, b")") => depth = depth.saturating_sub(1),
            (TokenKind::Punct, b";") if depth == 0 => {
                end = token.start;
                break;
            }
            (TokenKind::Word, _) if depth == 0 => {
                let is = |word: &str| token.is_word(bytes, word);
                if is("union") {
                    return Err(VtError::new(Code::InvalidArgument, "entity ids cannot be added to a union"));
                }
                if is("where") && condition_at.is_none() {
                    condition_at = Some(token.end);
                } else if ["group", "having", "order", "limit", "for", "lock", "procedure"].iter().any(|w| is(w)) {
                    end = token.start;
                    break;
                }
            }
            _ => {}
        }
    }
    let tail = if end < sql.len() { format!(" {}", &sql[end..]) } else { String::new() };
    let head = sql[..end].trim_end();
    Ok(match condition_at {
        // In parentheses: what is there may contain OR.
        Some(at) => format!("{} ({}) and {condition}{tail}", &sql[..at], sql[at..end].trim()),
        None => format!("{head} where {condition}{tail}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_goes_where_it_belongs() {
        for (sql, expected) in [
            ("select a from t", "select a from t where `id` in ::x"),
            ("select a from t where b = 1 or c = 2", "select a from t where (b = 1 or c = 2) and `id` in ::x"),
            ("select a from t order by a limit 5", "select a from t where `id` in ::x order by a limit 5"),
            (
                "select a from t where b in (select c from u where d order by e) limit 1",
                "select a from t where (b in (select c from u where d order by e)) and `id` in ::x limit 1",
            ),
        ] {
            assert_eq!(with_condition(sql, "`id` in ::x").expect(sql), expected);
        }
        assert!(with_condition("select 1 union select 2", "x").is_err());
    }
}
