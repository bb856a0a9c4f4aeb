//! Runs a statement on shards, inside or outside the session's transaction.
//!
//! Owns: which tablet call a statement becomes, the transactions it opens on the way, and what a
//! failure does to the session. Does not own: commit and rollback (`transaction.rs`).
//! Invariants: every transaction that a tablet has opened for us is in the session before anything
//! else can fail; a call of the open transaction whose future is dropped leaves its mark in the session
//! ([`Session::unanswered`]), for the tablet then ends its part; a statement in autocommit mode is one round trip; the
//! first error of reads outside of a transaction cancels the rest, anything else is waited for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures::{StreamExt, TryStreamExt, future::join_all, stream::FuturesUnordered};
use mysql::raw_rows;
use tabletclient::{BeginOutcome, CallKind, Gateway, ResultStream, RowSink, cutover::is_refusal};
use tokio::time::Instant;
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::{
        BeginExecuteRequest, BindVariable, BoundQuery, ExecuteBatchRequest, ExecuteOptions, ExecuteRequest,
        QueryResult, StreamExecuteRequest, Target, execute_options::TransactionIsolation,
    },
    topodata::TabletType,
    vtgate::{CommitOrder, TransactionMode, session::ShardSession},
};

use crate::{
    caller::Caller,
    session::{Session, Unanswered},
    turns::{Turns, put_behind},
};

/// What a statement does, as far as its transport matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Changes nothing: may be repeated on another tablet.
    Read,
    /// Takes values of a sequence: may be repeated, for that leaves a gap and gives none of them twice.
    Reserve,
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
    /// Rows are passed on unseen: they may come as `QueryResult.raw_rows`.
    pub raw: bool,
}

impl ShardQuery {
    fn bound(&self) -> BoundQuery {
        BoundQuery { sql: self.sql.to_string(), bind_variables: (*self.bind_variables).clone() }
    }
}

/// The way of a shard's rows to a client.
struct ShardSink<'a> {
    sink: &'a dyn RowSink,
    keyspace: &'a str,
    /// The client did not take a piece.
    failed: AtomicBool,
}

#[async_trait::async_trait]
impl RowSink for ShardSink<'_> {
    async fn piece(&self, mut piece: QueryResult) -> Result<()> {
        name_database(&mut piece, self.keyspace);
        let taken = self.sink.piece(piece).await;
        if taken.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        taken
    }

    fn has_begun(&self) -> bool {
        self.sink.has_begun()
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
        self.execute_to(caller, session, query, effect, order, None).await
    }

    /// As [`Scatter::execute_one`] of raw rows, of which `sink` gets all but the end when they are many. Where the sink
    /// fails the statement counts as cut short.
    ///
    /// # Errors
    /// As [`Scatter::execute_one`]; the sink's.
    pub async fn execute_rows(
        &self,
        caller: &Caller,
        session: &mut Session,
        query: &ShardQuery,
        effect: Effect,
        order: CommitOrder,
        sink: &dyn RowSink,
    ) -> Result<QueryResult> {
        let sink = ShardSink { sink, keyspace: &query.target.keyspace, failed: AtomicBool::new(false) };
        let outcome = self.execute_to(caller, session, query, effect, order, Some(&sink)).await;
        // The call was dropped before its answer, as if nobody waited for it.
        if sink.failed.load(Ordering::Relaxed) && session.in_transaction() {
            session.unanswered = Some(Unanswered::Statement);
        }
        outcome
    }

    async fn execute_to(
        &self,
        caller: &Caller,
        session: &mut Session,
        query: &ShardQuery,
        effect: Effect,
        order: CommitOrder,
        sink: Option<&dyn RowSink>,
    ) -> Result<QueryResult> {
        let target = &query.target;
        let options = session.tablet_options();
        let mut result = if session.in_transaction() && target.tablet_type() == TabletType::Master {
            match session.transaction_on(order, &target.keyspace, &target.shard, target.tablet_type()) {
                0 => self.begin_and_execute(caller, session, query, options, effect, order, sink).await?,
                open => {
                    let request = || execute_request(caller, query, open, &options);
                    let call = self.gateway.execute_rows(target, CallKind::InTransaction, request, sink);
                    let outcome = answered(session, call).await;
                    outcome.map_err(|error| self.in_transaction_failed(session, error))?
                }
            }
        } else {
            self.outside_transaction(caller, query, &options, effect, sink).await?
        };
        if matches!(effect, Effect::Write | Effect::Other) {
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
        sink: Option<&dyn RowSink>,
    ) -> Result<QueryResult> {
        let target = &query.target;
        match effect {
            Effect::Read | Effect::Reserve => {
                let request = || execute_request(caller, query, 0, options);
                self.gateway.execute_rows(target, CallKind::Read, request, sink).await
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
    #[expect(clippy::too_many_arguments, reason = "everything a statement consists of")]
    async fn begin_and_execute(
        &self,
        caller: &Caller,
        session: &mut Session,
        query: &ShardQuery,
        mut options: ExecuteOptions,
        effect: Effect,
        order: CommitOrder,
        sink: Option<&dyn RowSink>,
    ) -> Result<QueryResult> {
        let target = &query.target;
        self.check_mode(session, target)?;
        options.transaction_open_ms = session.open_elsewhere_ms(&target.keyspace);
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
                raw: false,
            })
            .collect();
        statements.push(query.clone());
        let (first, rest) = statements.split_first().ok_or_else(|| VtError::new(Code::Internal, "no statement"))?;
        let request = || BeginExecuteRequest {
            effective_caller_id: caller.effective.clone(),
            immediate_caller_id: caller.immediate.clone(),
            target: Some(target.clone()),
            query: Some(first.bound()),
            options: Some(ExecuteOptions { raw_rows: first.raw, ..options.clone() }),
        };
        // What is done in a transaction that nobody knows of changes nothing, unless it commits by itself.
        let commits = options.transaction_isolation() == TransactionIsolation::Autocommit
            || (rest.is_empty() && effect != Effect::Read && !vtsql::preview(query.sql.as_bytes()).is_dml());
        let kind = if commits { CallKind::Write } else { CallKind::Read };
        // A gate that is raised while the statement waits for a lock is younger than the transaction.
        let began = Instant::now();
        let call = self.gateway.begin_execute(target, kind, request, sink.filter(|_| rest.is_empty()));
        let BeginOutcome { transaction_id, result } = answered(session, call).await;
        if transaction_id != 0 {
            session.opened.get_or_insert(began);
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
            // Savepoints have no rows: only the statement itself may have pieces.
            let call = self.gateway.execute_rows(target, CallKind::InTransaction, request, sink);
            let outcome = answered(session, call).await;
            result = outcome.map_err(|error| self.in_transaction_failed(session, error))?;
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
            let open: Vec<String> = session.all_shard_sessions().map(shown).collect();
            let new = shown(&ShardSession { target: Some(target.clone()), transaction_id: 0 });
            let text = format!("multi-db transaction attempted: [{} {new}]", open.join(" "));
            return Err(VtError::new(Code::Unknown, text));
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
        put_together(self.execute_apart(caller, session, queries, effect, order).await?)
    }

    /// As [`Scatter::execute_many`] of reads outside of a transaction with raw rows, of which `sink` gets all but the end
    /// when they are many.
    ///
    /// # Errors
    /// As [`Scatter::execute_many`], also when `sink` has rows; the sink's.
    pub async fn execute_rows_of_many(
        &self,
        caller: &Caller,
        session: &Session,
        queries: &[ShardQuery],
        sink: &dyn RowSink,
    ) -> Result<QueryResult> {
        let turns = Turns::new(sink);
        let options = &session.tablet_options();
        let count = &AtomicUsize::new(0);
        // Each ends its own turn: while the client is slow the others go on, and the first failure is seen at once.
        let mut calls: FuturesUnordered<_> = queries
            .iter()
            .enumerate()
            .map(|(number, query)| {
                let turn = turns.of(number);
                async move {
                    let keyspace = &query.target.keyspace;
                    let sink = ShardSink { sink: &turn, keyspace, failed: AtomicBool::new(false) };
                    let mut result =
                        self.outside_transaction(caller, query, options, Effect::Read, Some(&sink)).await?;
                    name_database(&mut result, keyspace);
                    let rows = raw_rows::count(&result);
                    self.check_rows(count.fetch_add(rows, Ordering::Relaxed) + rows)?;
                    turn.end(result).await
                }
            })
            .collect();
        while calls.try_next().await?.is_some() {}
        Ok(turns.take_last().await)
    }

    /// As [`Scatter::execute_many`], with the result of each shard for itself.
    ///
    /// # Errors
    /// As [`Scatter::execute_many`].
    pub async fn execute_apart(
        &self,
        caller: &Caller,
        session: &mut Session,
        queries: &[ShardQuery],
        effect: Effect,
        order: CommitOrder,
    ) -> Result<Vec<QueryResult>> {
        if session.in_transaction() && effect == Effect::Read && !queries.iter().any(|query| locks(&query.sql)) {
            return self.at_once_apart(caller, session, queries, effect, order).await;
        }
        let mut results = Vec::with_capacity(queries.len());
        // Statements that lock rows go from shard to shard, everybody's in the same order: no mysqld could tell
        // that two of them wait for each other on different shards.
        if session.in_transaction() || effect != Effect::Read {
            for query in queries {
                let result = self.execute_one(caller, session, query, effect, order).await?;
                self.keep(&mut results, result)?;
            }
            return Ok(results);
        }
        let options = session.tablet_options();
        let options = &options;
        let mut calls: FuturesUnordered<_> = queries
            .iter()
            .enumerate()
            .map(|(number, query)| async move {
                let mut result = self.outside_transaction(caller, query, options, effect, None).await?;
                name_database(&mut result, &query.target.keyspace);
                Ok::<_, VtError>((number, result))
            })
            .collect();
        let mut arrived: Vec<Option<QueryResult>> = vec![None; queries.len()];
        while let Some((number, result)) = calls.try_next().await? {
            arrived[number] = Some(result);
        }
        for result in arrived.into_iter().flatten() {
            self.keep(&mut results, result)?;
        }
        Ok(results)
    }

    /// Runs statements that wait for nobody's rows on several shards of the session's transaction at once, and waits
    /// for all of them: what tablets have opened is in the session afterwards.
    ///
    /// # Errors
    /// As [`Scatter::execute_many`].
    pub async fn execute_at_once(
        &self,
        caller: &Caller,
        session: &mut Session,
        queries: &[ShardQuery],
        effect: Effect,
        order: CommitOrder,
    ) -> Result<QueryResult> {
        put_together(self.at_once_apart(caller, session, queries, effect, order).await?)
    }

    async fn at_once_apart(
        &self,
        caller: &Caller,
        session: &mut Session,
        queries: &[ShardQuery],
        effect: Effect,
        order: CommitOrder,
    ) -> Result<Vec<QueryResult>> {
        let mut results = Vec::with_capacity(queries.len());
        if queries.len() < 2 || !session.in_transaction() || self.mode(session) == TransactionMode::Single {
            for query in queries {
                let result = self.execute_one(caller, session, query, effect, order).await?;
                self.keep(&mut results, result)?;
            }
            return Ok(results);
        }
        for outcome in self.all_at_once(caller, session, queries, effect, order).await {
            self.keep(&mut results, outcome?)?;
        }
        Ok(results)
    }

    /// Runs a write on several shards at once, in a transaction of its own on each.
    ///
    /// # Errors
    /// The first shard's; the others have done their part.
    pub async fn execute_each(
        &self,
        caller: &Caller,
        session: &mut Session,
        queries: &[ShardQuery],
    ) -> Result<QueryResult> {
        let mut results = Vec::with_capacity(queries.len());
        for outcome in self.all_at_once(caller, session, queries, Effect::Write, CommitOrder::Normal).await {
            self.keep(&mut results, outcome?)?;
        }
        put_together(results)
    }

    /// Runs a read on several shards and leaves out those that fail: what each of the others has, and the failures.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED as in [`Scatter::execute_many`].
    pub async fn execute_tolerant(
        &self,
        caller: &Caller,
        session: &mut Session,
        queries: &[ShardQuery],
    ) -> Result<(Vec<QueryResult>, Vec<VtError>)> {
        let (mut results, mut failures) = (Vec::new(), Vec::new());
        for outcome in self.all_at_once(caller, session, queries, Effect::Read, CommitOrder::Normal).await {
            match outcome {
                Ok(result) => self.keep(&mut results, result)?,
                Err(error) => failures.push(error),
            }
        }
        Ok((results, failures))
    }

    /// The outcome of each statement, none of which is cut short by another's.
    async fn all_at_once(
        &self,
        caller: &Caller,
        session: &mut Session,
        queries: &[ShardQuery],
        effect: Effect,
        order: CommitOrder,
    ) -> Vec<Result<QueryResult>> {
        let calls = queries.iter().enumerate().map(|(number, query)| {
            let mut branch = session.branch();
            async move {
                let outcome = self.execute_one(caller, &mut branch, query, effect, order).await;
                (number, branch, outcome)
            }
        });
        let mut calls: FuturesUnordered<_> = calls.collect();
        let mut outcomes: Vec<Option<Result<QueryResult>>> = Vec::new();
        outcomes.resize_with(queries.len(), || None);
        let mut branches = Branches { ended: outcomes.iter().map(|_| None).collect(), session };
        if branches.session.in_transaction() {
            branches.session.unanswered = Some(Unanswered::Statement);
        }
        while let Some((number, branch, outcome)) = calls.next().await {
            branches.ended[number] = Some(branch);
            outcomes[number] = Some(outcome);
        }
        branches.session.unanswered = None;
        outcomes.into_iter().flatten().collect()
    }

    /// Adds a shard's result to those before it, as far as they are not too many rows together.
    fn keep(&self, results: &mut Vec<QueryResult>, result: QueryResult) -> Result<()> {
        results.push(result);
        self.check_rows(results.iter().map(raw_rows::count).sum())
    }

    fn check_rows(&self, count: usize) -> Result<()> {
        if count > self.max_memory_rows {
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
    async fn stream_one(&self, caller: &Caller, session: &mut Session, query: &ShardQuery) -> Result<ResultStream> {
        let target = query.target.clone();
        let open = open_for_stream(session, query);
        let options = session.tablet_options();
        let kind = if open == 0 { CallKind::Read } else { CallKind::InTransaction };
        let request = || StreamExecuteRequest {
            effective_caller_id: caller.effective.clone(),
            immediate_caller_id: caller.immediate.clone(),
            target: Some(target.clone()),
            query: Some(query.bound()),
            options: Some(ExecuteOptions { raw_rows: query.raw, ..options.clone() }),
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

    /// Opens a stream on each of several shards, all at once. Not for a transaction that is open on any of them: one of
    /// the streams that is dropped takes its shard's part of it with it.
    ///
    /// # Errors
    /// The first shard's that fails to begin.
    pub async fn stream_apart(
        &self,
        caller: &Caller,
        session: &mut Session,
        queries: &[ShardQuery],
    ) -> Result<Vec<ResultStream>> {
        let opening = queries.iter().map(|query| {
            let mut branch = session.branch();
            async move {
                let stream = self.stream_one(caller, &mut branch, query).await;
                (branch, stream)
            }
        });
        let opened = join_all(opening).await;
        let join = |(branch, stream)| {
            session.join(branch);
            stream
        };
        opened.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
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
        if queries.iter().any(|query| open_for_stream(session, query) != 0) {
            session.unanswered = Some(Unanswered::Statement);
        }
        for query in queries {
            match self.stream_one(caller, session, query).await {
                Ok(stream) => streams.push(stream),
                // A stream that is not read to its end takes its shard's part of the transaction with it.
                Err(error) if !streams.is_empty() => return Err(error),
                Err(error) => {
                    session.unanswered = None;
                    return Err(error);
                }
            }
        }
        session.unanswered = None;
        let mut fields_seen = false;
        Ok(futures::stream::iter(streams)
            .flatten()
            .try_filter_map(move |mut result| {
                // Only the first shard's fields are the client's.
                if fields_seen && !result.fields.is_empty() {
                    result.fields.clear();
                    if result.rows.is_empty() && result.raw_rows.is_empty() {
                        return futures::future::ready(Ok(None));
                    }
                }
                fields_seen |= !result.fields.is_empty();
                futures::future::ready(Ok(Some(result)))
            })
            .boxed())
    }
}

/// The results of shards, one behind the other.
///
/// # Errors
/// Rows that are not what the fields say.
pub fn put_together(results: Vec<QueryResult>) -> Result<QueryResult> {
    let mut merged = QueryResult::default();
    for result in results {
        put_behind(&mut merged, result)?;
    }
    Ok(merged)
}

/// The sessions of statements that run at once. Dropping it joins those that have ended to their session, in the order
/// of the statements: what tablets have opened is not forgotten when the others are cut short.
struct Branches<'a> {
    session: &'a mut Session,
    ended: Vec<Option<Session>>,
}

impl Drop for Branches<'_> {
    fn drop(&mut self) {
        for branch in self.ended.drain(..).flatten() {
            self.session.join(branch);
        }
    }
}

/// Waits for the answer to a call of the session's transaction. The session remembers that there is none yet.
async fn answered<T>(session: &mut Session, call: impl Future<Output = T>) -> T {
    session.unanswered = Some(Unanswered::Statement);
    let answer = call.await;
    session.unanswered = None;
    answer
}

/// The transaction that a stream reads in; 0 when it is in none.
fn open_for_stream(session: &Session, query: &ShardQuery) -> i64 {
    let target = &query.target;
    match target.tablet_type() {
        TabletType::Master => {
            session.transaction_on(CommitOrder::Normal, &target.keyspace, &target.shard, TabletType::Master)
        }
        _ => 0,
    }
}

/// A transaction on a shard as Vitess prints the message.
fn shown(open: &ShardSession) -> String {
    let target = open.target.clone().unwrap_or_default();
    let (keyspace, shard, of) = (&target.keyspace, &target.shard, target.tablet_type().as_str_name());
    let mut text = format!("target:<keyspace:{keyspace:?} shard:{shard:?} tablet_type:{of} > ");
    if open.transaction_id != 0 {
        text.push_str(&format!("transaction_id:{} ", open.transaction_id));
    }
    text
}

/// Whether a read locks rows.
fn locks(sql: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    ["for update", "for share", "lock in share mode"].iter().any(|clause| lower.contains(clause))
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
        options: Some(ExecuteOptions { raw_rows: query.raw, ..options.clone() }),
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
