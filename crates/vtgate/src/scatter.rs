//! Runs a statement on shards, inside or outside the session's transaction.
//!
//! Owns: which tablet call a statement becomes, the transactions it opens on the way, and what a
//! failure does to the session. Does not own: commit and rollback (`transaction.rs`).
//! Invariants: every transaction that a tablet has opened for us is in the session before anything
//! else can fail; a statement in autocommit mode is one round trip; the first error of a fan-out
//! cancels the rest.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream::FuturesUnordered};
use tabletclient::{BeginOutcome, CallKind, Gateway, ResultStream, cutover::is_refusal};
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::{
        BeginExecuteRequest, BindVariable, BoundQuery, ExecuteBatchRequest, ExecuteOptions, ExecuteRequest,
        QueryResult, StreamExecuteRequest, Target,
    },
    topodata::TabletType,
    vtgate::{CommitOrder, TransactionMode, session::ShardSession},
};
use vtsql::StatementKind;

use crate::{caller::Caller, session::Session};

/// What a statement does, as far as its transport matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Changes nothing: may be repeated on another tablet.
    Read,
    /// Changes rows: runs in a transaction of its own outside one.
    Write,
    /// Anything else (schema changes, administration): as it is, and never repeated once sent.
    Other,
}

/// A statement for one shard.
#[derive(Debug, Clone)]
pub struct ShardQuery {
    pub target: Target,
    pub sql: Arc<str>,
    pub bind_variables: Arc<BTreeMap<String, BindVariable>>,
}

impl ShardQuery {
    fn bound(&self) -> BoundQuery {
        BoundQuery { sql: self.sql.to_string(), bind_variables: (*self.bind_variables).clone() }
    }
}

/// Sends statements to shards.
#[derive(Clone)]
pub struct Scatter {
    gateway: Gateway,
    /// Used by sessions that have none of their own (`-transaction_mode`).
    default_mode: TransactionMode,
    /// Most rows that results of several shards may have together (`-max_memory_rows`).
    max_memory_rows: usize,
}

impl Scatter {
    pub fn new(gateway: Gateway, default_mode: TransactionMode, max_memory_rows: usize) -> Self {
        Self { gateway, default_mode, max_memory_rows }
    }

    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    pub fn max_memory_rows(&self) -> usize {
        self.max_memory_rows
    }

    /// The session's transaction mode, or the program's.
    pub fn mode(&self, session: &Session) -> TransactionMode {
        match session.pb.transaction_mode() {
            TransactionMode::Unspecified => self.default_mode,
            mode => mode,
        }
    }

    /// Runs one statement on one shard.
    ///
    /// # Errors
    /// The tablet's, with its target in front.
    pub async fn execute_one(
        &self,
        caller: &Caller,
        session: &mut Session,
        query: &ShardQuery,
        effect: Effect,
        order: CommitOrder,
    ) -> Result<QueryResult> {
        let target = &query.target;
        let options = session.tablet_options();
        let mut result = if session.in_transaction() && target.tablet_type() == TabletType::Master {
            match session.transaction_on(order, &target.keyspace, &target.shard, target.tablet_type()) {
                0 => self.begin_and_execute(caller, session, query, options, order).await?,
                open => {
                    let request = || execute_request(caller, query, open, &options);
                    let outcome = self.gateway.execute(target, CallKind::InTransaction, request).await;
                    outcome.map_err(|error| self.in_transaction_failed(session, error))?
                }
            }
        } else {
            self.outside_transaction(caller, query, &options, effect).await?
        };
        if effect == Effect::Write
            || (effect == Effect::Other && vtsql::preview(query.sql.as_bytes()) != StatementKind::Select)
        {
            session.parts_done += 1;
        }
        name_database(&mut result, &target.keyspace);
        Ok(result)
    }

    async fn outside_transaction(
        &self,
        caller: &Caller,
        query: &ShardQuery,
        options: &ExecuteOptions,
        effect: Effect,
    ) -> Result<QueryResult> {
        let target = &query.target;
        match effect {
            Effect::Read => {
                self.gateway.execute(target, CallKind::Read, || execute_request(caller, query, 0, options)).await
            }
            Effect::Other => {
                self.gateway.execute(target, CallKind::Write, || execute_request(caller, query, 0, options)).await
            }
            // The only call that begins, executes and commits in one round trip on any tablet.
            Effect::Write => {
                let request = || ExecuteBatchRequest {
                    effective_caller_id: caller.effective.clone(),
                    immediate_caller_id: caller.immediate.clone(),
                    target: Some(target.clone()),
                    queries: vec![query.bound()],
                    as_transaction: true,
                    transaction_id: 0,
                    options: Some(options.clone()),
                };
                let mut results = self.gateway.execute_batch(target, CallKind::Write, request).await?;
                results.pop().ok_or_else(|| VtError::new(Code::Internal, "the tablet sent no result"))
            }
        }
    }

    /// Runs a statement as the first of a transaction on its shard.
    async fn begin_and_execute(
        &self,
        caller: &Caller,
        session: &mut Session,
        query: &ShardQuery,
        options: ExecuteOptions,
        order: CommitOrder,
    ) -> Result<QueryResult> {
        let target = &query.target;
        self.check_mode(session, target)?;
        // Savepoints that the client has set must exist here too, or a rollback to one would undo
        // more or less than it should.
        let mut statements: Vec<ShardQuery> = session
            .pb
            .savepoints
            .iter()
            .map(|name| ShardQuery {
                target: target.clone(),
                sql: format!("savepoint {}", vtsql::quote_identifier(name)).into(),
                bind_variables: Arc::default(),
            })
            .collect();
        statements.push(query.clone());
        let (first, rest) = statements.split_first().ok_or_else(|| VtError::new(Code::Internal, "no statement"))?;
        let request = || BeginExecuteRequest {
            effective_caller_id: caller.effective.clone(),
            immediate_caller_id: caller.immediate.clone(),
            target: Some(target.clone()),
            query: Some(first.bound()),
            options: Some(options.clone()),
        };
        let BeginOutcome { transaction_id, result } = self.gateway.begin_execute(target, request).await;
        if transaction_id != 0 {
            let open = ShardSession { target: Some(target.clone()), transaction_id };
            match order {
                CommitOrder::Pre => session.pb.pre_sessions.push(open),
                CommitOrder::Post => session.pb.post_sessions.push(open),
                CommitOrder::Normal | CommitOrder::Autocommit => session.pb.shard_sessions.push(open),
            }
        }
        let mut result = match result {
            Ok(result) => result,
            // Nobody was asked: what is open on other shards is not lost.
            Err(error) if transaction_id == 0 && no_tablet(&error) => return Err(error),
            Err(error) => return Err(self.in_transaction_failed(session, error)),
        };
        for statement in rest {
            let request = || execute_request(caller, statement, transaction_id, &options);
            result = self
                .gateway
                .execute(target, CallKind::InTransaction, request)
                .await
                .map_err(|error| self.in_transaction_failed(session, error))?;
        }
        Ok(result)
    }

    /// In SINGLE mode a transaction stays on one shard.
    fn check_mode(&self, session: &mut Session, target: &Target) -> Result<()> {
        if self.mode(session) == TransactionMode::Single
            && session.all_shard_sessions().any(|open| {
                open.target.as_ref().is_some_and(|t| t.keyspace != target.keyspace || t.shard != target.shard)
            })
        {
            session.must_rollback = true;
            let open: Vec<String> = session
                .all_shard_sessions()
                .filter_map(|open| open.target.as_ref())
                .chain([target])
                .map(tabletclient::health_check::target_text)
                .collect();
            return Err(VtError::new(Code::Aborted, format!("multi-db transaction attempted: [{}]", open.join(" "))));
        }
        Ok(())
    }

    /// A statement in a transaction failed: notes whether the tablet has lost the transaction.
    fn in_transaction_failed(&self, session: &mut Session, error: VtError) -> VtError {
        // ABORTED: the tablet no longer knows it, or MySQL rolled it back to break a deadlock.
        // UNAVAILABLE: the tablet is gone, and the transaction with it. FAILED_PRECONDITION of the
        // tablet itself: it is no longer the master.
        let lost = match error.code() {
            // It refuses statements, and keeps the transactions that it has.
            Code::FailedPrecondition if is_refusal(&error) => false,
            Code::Aborted | Code::Unavailable => true,
            Code::FailedPrecondition => !error.message().contains("(errno "),
            // A connection that a query timeout or an operator killed took its transaction with it.
            Code::DeadlineExceeded | Code::Canceled => error.message().contains("(errno 2013)"),
            _ => false,
        };
        if !lost {
            return error;
        }
        session.must_rollback = true;
        if error.message().contains("(errno ") || error.code() == Code::Aborted {
            return error;
        }
        VtError::new(Code::Aborted, format!("transaction rolled back: {error}"))
    }

    /// Runs statements on several shards at once and puts the results together in the order of
    /// `queries`.
    ///
    /// # Errors
    /// The first that arises; the others are dropped. RESOURCE_EXHAUSTED when the results have more
    /// rows than `-max_memory_rows`.
    pub async fn execute_many(
        &self,
        caller: &Caller,
        session: &mut Session,
        queries: &[ShardQuery],
        effect: Effect,
        order: CommitOrder,
    ) -> Result<QueryResult> {
        if let [query] = queries {
            return self.execute_one(caller, session, query, effect, order).await;
        }
        // Writes on several shards, and anything in a transaction, share the session: one by one
        // where a transaction has to be opened or may be lost.
        if session.in_transaction() || effect != Effect::Read {
            let mut merged = QueryResult::default();
            for query in queries {
                let result = self.execute_one(caller, session, query, effect, order).await?;
                self.merge(&mut merged, result)?;
            }
            return Ok(merged);
        }
        let options = session.tablet_options();
        let options = &options;
        let mut calls: FuturesUnordered<_> = queries
            .iter()
            .enumerate()
            .map(|(number, query)| async move {
                let mut result = self.outside_transaction(caller, query, options, effect).await?;
                name_database(&mut result, &query.target.keyspace);
                Ok::<_, VtError>((number, result))
            })
            .collect();
        let mut results: Vec<Option<QueryResult>> = vec![None; queries.len()];
        while let Some((number, result)) = calls.try_next().await? {
            results[number] = Some(result);
        }
        let mut merged = QueryResult::default();
        for result in results.into_iter().flatten() {
            self.merge(&mut merged, result)?;
        }
        Ok(merged)
    }

    /// Adds a shard's result to those before it.
    fn merge(&self, merged: &mut QueryResult, result: QueryResult) -> Result<()> {
        if merged.fields.is_empty() {
            merged.fields = result.fields;
        }
        merged.rows_affected += result.rows_affected;
        if merged.insert_id == 0 {
            merged.insert_id = result.insert_id;
        }
        merged.rows.extend(result.rows);
        if merged.rows.len() > self.max_memory_rows {
            return Err(VtError::new(
                Code::ResourceExhausted,
                format!("in-memory row count exceeded allowed limit of {}", self.max_memory_rows),
            ));
        }
        Ok(())
    }

    /// Streams a statement from one shard. In a transaction it sees what the transaction has done.
    ///
    /// # Errors
    /// The tablet's, here or from the stream.
    pub async fn stream_one(&self, caller: &Caller, session: &mut Session, query: &ShardQuery) -> Result<ResultStream> {
        let target = query.target.clone();
        let open = if target.tablet_type() == TabletType::Master {
            session.transaction_on(CommitOrder::Normal, &target.keyspace, &target.shard, target.tablet_type())
        } else {
            0
        };
        let options = session.tablet_options();
        let kind = if open == 0 { CallKind::Read } else { CallKind::InTransaction };
        let request = || StreamExecuteRequest {
            effective_caller_id: caller.effective.clone(),
            immediate_caller_id: caller.immediate.clone(),
            target: Some(target.clone()),
            query: Some(query.bound()),
            options: Some(options.clone()),
            transaction_id: open,
        };
        let stream = self.gateway.stream_execute(&target, kind, request).await;
        let stream =
            stream.map_err(|error| if open == 0 { error } else { self.in_transaction_failed(session, error) })?;
        let keyspace = target.keyspace;
        Ok(stream
            .map_ok(move |mut result| {
                name_database(&mut result, &keyspace);
                result
            })
            .boxed())
    }

    /// Streams statements from several shards, one shard behind the other, so that memory does not
    /// grow with their number.
    ///
    /// # Errors
    /// The tablets', here or from the stream.
    pub async fn stream_many(
        &self,
        caller: &Caller,
        session: &mut Session,
        queries: &[ShardQuery],
    ) -> Result<ResultStream> {
        let mut streams = Vec::with_capacity(queries.len());
        for query in queries {
            streams.push(self.stream_one(caller, session, query).await?);
        }
        let mut fields_seen = false;
        Ok(futures::stream::iter(streams)
            .flatten()
            .try_filter_map(move |mut result| {
                // Only the first shard's fields are the client's.
                if fields_seen && !result.fields.is_empty() {
                    result.fields.clear();
                    if result.rows.is_empty() {
                        return futures::future::ready(Ok(None));
                    }
                }
                fields_seen |= !result.fields.is_empty();
                futures::future::ready(Ok(Some(result)))
            })
            .boxed())
    }
}

fn no_tablet(error: &VtError) -> bool {
    error.code() == Code::Unavailable && error.message().ends_with("no valid tablet")
}

fn execute_request(
    caller: &Caller,
    query: &ShardQuery,
    transaction_id: i64,
    options: &ExecuteOptions,
) -> ExecuteRequest {
    ExecuteRequest {
        effective_caller_id: caller.effective.clone(),
        immediate_caller_id: caller.immediate.clone(),
        target: Some(query.target.clone()),
        query: Some(query.bound()),
        transaction_id,
        options: Some(options.clone()),
    }
}

/// Clients know keyspaces: the name of the database behind one is replaced in the column
/// descriptions.
fn name_database(result: &mut QueryResult, keyspace: &str) {
    for field in &mut result.fields {
        if field.database.strip_prefix("vt_").is_some_and(|name| name == keyspace) {
            field.database.clear();
            field.database.push_str(keyspace);
        }
    }
}
