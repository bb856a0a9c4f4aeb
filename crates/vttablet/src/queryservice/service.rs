//! The calls of `queryservice.Query`, over a [`TabletServer`].
//!
//! Owns: which checks a call passes first and what its failure looks like. Calls that end a
//! transaction are let in while serving stops.

use std::time::{Duration, Instant};

use futures::StreamExt;
use tabletclient::cutover::is_refusal;
use tabletclient::{BeginOutcome, HealthStream, QueryService, ResultStream, RowSink};
use vterrors::{Code, Result, VtError};
use vtproto::query::execute_options::{TransactionIsolation, Workload};
use vtproto::query::{self, ExecuteOptions, QueryResult, VtGateCallerId};
use vtproto::vtrpc::CallerId;
use vtsql::BindVars;

use super::error::ExecError;
use super::executor::Caller;
use super::gate::Request;
use super::hot_rows::Ticket;
use super::server::TabletServer;
use super::tx::{BeginOptions, Conclusion};

/// Longest wait for a turn on a hot row when queries may run without limit.
const LONGEST_TURN: Duration = Duration::from_secs(60);

/// Bytes of a statement whose three round trips to mysqld count.
const SHORT: usize = 16 << 10;

impl TabletServer {
    async fn begin_checked(
        &self,
        effective: Option<CallerId>,
        immediate: Option<VtGateCallerId>,
        options: &ExecuteOptions,
        deferred: bool,
    ) -> Result<i64> {
        let started = Instant::now();
        let isolation = options.transaction_isolation();
        let is_snapshot = isolation == TransactionIsolation::ConsistentSnapshotReadOnly;
        let begun = async {
            self.check_tx_mode(is_snapshot)?;
            if let Some(throttler) = self.tx_throttler.get() {
                throttler.admit()?;
            }
            let slot = self.tx_limiter.take(immediate.as_ref(), effective.as_ref())?;
            let options = BeginOptions {
                slot,
                found_rows: options.client_found_rows,
                isolation,
                long_read: is_snapshot && options.workload() == Workload::Olap,
                settings: &options.session_settings,
                deferred,
                effective,
                immediate: immediate.clone(),
            };
            // Given back at once: the next call takes it.
            self.tx.begin(options).await.map(|guard| guard.id())
        };
        let outcome = begun.await;
        self.stats.queries.record(&["BEGIN"], started.elapsed());
        outcome.map_err(|error| self.tell(error, "begin", &BindVars::new(), immediate.as_ref()))
    }

    /// Whether a transaction of this statement alone is the same as the statement in autocommit, which is one round trip to
    /// mysqld instead of three.
    fn commits_by_itself(&self, query: &query::BoundQuery, options: &ExecuteOptions) -> bool {
        let sql = query.sql.as_bytes();
        // Rows that are too many would be an error behind the commit.
        let returns_rows = || sql.windows(9).any(|word| word.eq_ignore_ascii_case(b"returning"));
        sql.len() <= SHORT
            && options.transaction_isolation() == TransactionIsolation::Default
            && self.tx_throttler.get().is_none()
            && !self.tx_limiter.is_on()
            && vtsql::preview(sql).is_dml()
            && !returns_rows()
    }

    async fn execute_for(&self, request: query::ExecuteRequest, sink: Option<&dyn RowSink>) -> Result<QueryResult> {
        let _inside = self.gate.enter(request.target.as_ref(), request.transaction_id != 0)?;
        let mut bound = request.query.unwrap_or_default();
        let options = request.options.unwrap_or_default();
        let caller = Caller {
            method: "Execute",
            effective: request.effective_caller_id.as_ref(),
            immediate: request.immediate_caller_id.as_ref(),
        };
        let (vars, id) = (&mut bound.bind_variables, request.transaction_id);
        self.execute_query(caller, &bound.sql, vars, id, &options, sink).await
    }

    async fn begin_execute_for(
        &self,
        request: query::BeginExecuteRequest,
        sink: Option<&dyn RowSink>,
    ) -> BeginOutcome<QueryResult> {
        let failed = |error| BeginOutcome { transaction_id: 0, result: Err(error) };
        let _inside = match self.gate.enter(request.target.as_ref(), false) {
            Ok(inside) => inside,
            Err(error) => return failed(error),
        };
        let mut bound = request.query.unwrap_or_default();
        let options = request.options.unwrap_or_default();
        let (effective, immediate) = (request.effective_caller_id, request.immediate_caller_id);
        // Held until the first statement has run.
        let _turn = match self.turn_on_hot_row(&bound, &options).await {
            Ok(turn) => turn,
            Err(error) => return failed(self.tell(error, &bound.sql, &bound.bind_variables, immediate.as_ref())),
        };
        let transaction_id = match self.begin_checked(effective.clone(), immediate.clone(), &options, true).await {
            Ok(id) => id,
            Err(error) => return failed(error),
        };
        self.note_open_elsewhere(transaction_id, options.transaction_open_ms);
        let caller = Caller { method: "BeginExecute", effective: effective.as_ref(), immediate: immediate.as_ref() };
        let vars = &mut bound.bind_variables;
        let result = self.execute_query(caller, &bound.sql, vars, transaction_id, &options, sink).await;
        self.begun(transaction_id, result, &options, immediate.as_ref()).await
    }

    /// The outcome of a transaction's first statements. One whose first a cutover holds back is not left open here: the
    /// statement will be sent elsewhere.
    async fn begun<T>(
        &self,
        transaction_id: i64,
        result: Result<T>,
        options: &ExecuteOptions,
        immediate: Option<&VtGateCallerId>,
    ) -> BeginOutcome<T> {
        if let Err(error) = &result
            && is_refusal(error)
        {
            if let Ok(guard) = self.tx.take(transaction_id, "for rollback") {
                guard.rollback(Conclusion::Rollback, "transaction rolled back: cutover in progress").await;
            }
            return BeginOutcome { transaction_id: 0, result };
        }
        match self.tx.settle(transaction_id, &options.session_settings).await {
            Ok(true) => BeginOutcome { transaction_id, result },
            Ok(false) => BeginOutcome { transaction_id: 0, result },
            Err(error) => {
                let error = self.tell(error, "begin", &BindVars::new(), immediate);
                BeginOutcome { transaction_id: 0, result: Err(error) }
            }
        }
    }

    async fn end<T>(
        &self,
        name: &'static str,
        sql: &str,
        immediate: Option<&VtGateCallerId>,
        work: impl Future<Output = Result<T, ExecError>>,
    ) -> Result<T> {
        let started = Instant::now();
        let outcome = work.await;
        self.stats.queries.record(&[name], started.elapsed());
        outcome.map_err(|error| self.tell(error, sql, &BindVars::new(), immediate))
    }

    async fn batch(
        &self,
        caller: Caller<'_>,
        queries: Vec<query::BoundQuery>,
        transaction_id: i64,
        options: &ExecuteOptions,
    ) -> Result<Vec<QueryResult>> {
        let mut results = Vec::with_capacity(queries.len());
        for mut bound in queries {
            let vars = &mut bound.bind_variables;
            results.push(self.execute_query(caller, &bound.sql, vars, transaction_id, options, None).await?);
        }
        Ok(results)
    }

    /// Waits behind transactions that begin on the same row, if hot row protection is on.
    async fn turn_on_hot_row(
        &self,
        bound: &query::BoundQuery,
        options: &ExecuteOptions,
    ) -> Result<Option<Ticket>, ExecError> {
        if !self.hot_rows.is_on() {
            return Ok(None);
        }
        // A statement that cannot be planned fails where every statement does.
        let (_, plan) = self.plan_text(&bound.sql, options.skip_query_plan_cache, true).await;
        let Ok(plan) = plan else { return Ok(None) };
        let Some(range) = plan.shape.row_range(&bound.bind_variables) else { return Ok(None) };
        let longest = if self.config.query_timeout.is_zero() { LONGEST_TURN } else { self.config.query_timeout };
        let ticket = self.hot_rows.enter(&plan.shape.table, range, longest).await?;
        if let Some(waited) = ticket.waited {
            self.stats.waits.record(&["TxSerializer"], waited);
        }
        Ok(Some(ticket))
    }

    /// Runs `work` to its end as a task of its own, also when the caller hangs up: what began to commit must not stop
    /// half way, for its coordinator has decided and nobody else would go on with it.
    async fn to_the_end<T: Send + 'static>(
        &self,
        inside: Request,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let task = tokio::spawn(async move {
            let outcome = work.await;
            drop(inside);
            outcome
        });
        task.await.unwrap_or_else(|failed| {
            tracing::error!("a commit did not come to its end: {failed}");
            Err(VtError::new(Code::Internal, "the tablet failed on this request: see its log"))
        })
    }

    async fn commit_id(&self, inside: Request, id: i64, immediate: Option<VtGateCallerId>) -> Result<()> {
        let server = self.clone();
        let commit = async move {
            let work = async {
                let mut guard = server.tx.take(id, "for commit")?;
                let wrote = guard.get()?.wrote;
                let outcome = guard.commit().await;
                if wrote {
                    server.consolidator.written();
                }
                outcome
            };
            server.end("COMMIT", "commit", immediate.as_ref(), work).await
        };
        self.to_the_end(inside, commit).await
    }

    async fn rollback_id(&self, id: i64, immediate: Option<&VtGateCallerId>) -> Result<()> {
        let work = async {
            self.tx.take(id, "for rollback")?.rollback(Conclusion::Rollback, "transaction rolled back").await;
            Ok(())
        };
        self.end("ROLLBACK", "rollback", immediate, work).await
    }

    /// Lets a call of the second kind (2PC) in, runs it to its end, counts it and names its caller in errors.
    async fn twopc_call<T, F>(
        &self,
        name: &'static str,
        target: Option<query::Target>,
        immediate: Option<VtGateCallerId>,
        call: impl FnOnce(Self) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let inside = self.gate.enter(target.as_ref(), true)?;
        let (server, work) = (self.clone(), call(self.clone()));
        let counted = async move {
            server.end(name, name, immediate.as_ref(), async { work.await.map_err(ExecError::from) }).await
        };
        self.to_the_end(inside, counted).await
    }
}

#[async_trait::async_trait]
impl QueryService for TabletServer {
    async fn execute(&self, request: query::ExecuteRequest) -> Result<QueryResult> {
        self.execute_for(request, None).await
    }

    async fn execute_rows(&self, request: query::ExecuteRequest, sink: &dyn RowSink) -> Result<QueryResult> {
        self.execute_for(request, Some(sink)).await
    }

    async fn execute_batch(&self, request: query::ExecuteBatchRequest) -> Result<Vec<QueryResult>> {
        let inside = self.gate.enter(request.target.as_ref(), request.transaction_id != 0)?;
        let refuse = |text: &str| Err(VtError::new(Code::InvalidArgument, text));
        if request.queries.is_empty() {
            return refuse("Empty query list");
        }
        if request.as_transaction && request.transaction_id != 0 {
            return refuse("cannot start a new transaction in the scope of an existing one");
        }
        let options = request.options.unwrap_or_default();
        let (effective, immediate) = (request.effective_caller_id, request.immediate_caller_id);
        let caller = Caller { method: "ExecuteBatch", effective: effective.as_ref(), immediate: immediate.as_ref() };
        if !request.as_transaction {
            return self.batch(caller, request.queries, request.transaction_id, &options).await;
        }
        let mut queries = request.queries;
        if let [only] = &mut queries[..]
            && self.commits_by_itself(only, &options)
        {
            let result = self.execute_query(caller, &only.sql, &mut only.bind_variables, 0, &options, None).await?;
            return Ok(vec![result]);
        }
        let id = self.begin_checked(effective.clone(), immediate.clone(), &options, true).await?;
        match self.batch(caller, queries, id, &options).await {
            Ok(results) => {
                self.commit_id(inside, id, immediate).await?;
                Ok(results)
            }
            Err(error) => {
                // A transaction that ended with its connection is over already.
                let _ = self.rollback_id(id, immediate.as_ref()).await;
                Err(error)
            }
        }
    }

    async fn stream_execute(&self, request: query::StreamExecuteRequest) -> Result<ResultStream> {
        self.start_stream(request).await
    }

    async fn begin(&self, request: query::BeginRequest) -> Result<i64> {
        let _inside = self.gate.enter(request.target.as_ref(), false)?;
        let options = request.options.unwrap_or_default();
        self.begin_checked(request.effective_caller_id, request.immediate_caller_id, &options, false).await
    }

    async fn commit(&self, request: query::CommitRequest) -> Result<()> {
        let inside = self.gate.enter(request.target.as_ref(), true)?;
        self.commit_id(inside, request.transaction_id, request.immediate_caller_id).await
    }

    async fn rollback(&self, request: query::RollbackRequest) -> Result<()> {
        let _inside = self.gate.enter(request.target.as_ref(), true)?;
        self.rollback_id(request.transaction_id, request.immediate_caller_id.as_ref()).await
    }

    async fn begin_execute(&self, request: query::BeginExecuteRequest) -> BeginOutcome<QueryResult> {
        self.begin_execute_for(request, None).await
    }

    async fn begin_execute_rows(
        &self,
        request: query::BeginExecuteRequest,
        sink: &dyn RowSink,
    ) -> BeginOutcome<QueryResult> {
        self.begin_execute_for(request, Some(sink)).await
    }

    async fn begin_execute_batch(&self, request: query::BeginExecuteBatchRequest) -> BeginOutcome<Vec<QueryResult>> {
        let failed = |error| BeginOutcome { transaction_id: 0, result: Err(error) };
        let _inside = match self.gate.enter(request.target.as_ref(), false) {
            Ok(inside) => inside,
            Err(error) => return failed(error),
        };
        let options = request.options.unwrap_or_default();
        let (effective, immediate) = (request.effective_caller_id, request.immediate_caller_id);
        let transaction_id = match self.begin_checked(effective.clone(), immediate.clone(), &options, true).await {
            Ok(id) => id,
            Err(error) => return failed(error),
        };
        let caller =
            Caller { method: "BeginExecuteBatch", effective: effective.as_ref(), immediate: immediate.as_ref() };
        let result = if request.as_transaction {
            let text = "cannot start a new transaction in the scope of an existing one";
            Err(VtError::new(Code::InvalidArgument, text))
        } else {
            self.batch(caller, request.queries, transaction_id, &options).await
        };
        self.begun(transaction_id, result, &options, immediate.as_ref()).await
    }

    async fn prepare(&self, request: query::PrepareRequest) -> Result<query::PrepareResponse> {
        let (target, immediate) = (request.target.clone(), request.immediate_caller_id.clone());
        let call = |server: Self| async move { server.twopc_prepare(request.transaction_id, &request.dtid).await };
        self.twopc_call("PREPARE", target, immediate, call).await
    }

    async fn commit_prepared(&self, request: query::CommitPreparedRequest) -> Result<()> {
        let (target, immediate) = (request.target.clone(), request.immediate_caller_id.clone());
        let call = |server: Self| async move { server.twopc_commit(&request.dtid).await };
        self.twopc_call("COMMIT_PREPARED", target, immediate, call).await
    }

    async fn rollback_prepared(&self, request: query::RollbackPreparedRequest) -> Result<()> {
        let (target, immediate) = (request.target.clone(), request.immediate_caller_id.clone());
        let call = |server: Self| async move { server.twopc_rollback(&request.dtid, request.transaction_id).await };
        self.twopc_call("ROLLBACK_PREPARED", target, immediate, call).await
    }

    async fn create_transaction(&self, request: query::CreateTransactionRequest) -> Result<()> {
        let (target, immediate) = (request.target.clone(), request.immediate_caller_id.clone());
        let call = |server: Self| async move { server.twopc_create(&request.dtid, &request.participants).await };
        self.twopc_call("CREATE_TRANSACTION", target, immediate, call).await
    }

    async fn start_commit(&self, request: query::StartCommitRequest) -> Result<()> {
        let (target, immediate) = (request.target.clone(), request.immediate_caller_id.clone());
        let call = |server: Self| async move { server.twopc_start_commit(request.transaction_id, &request.dtid).await };
        self.twopc_call("START_COMMIT", target, immediate, call).await
    }

    async fn set_rollback(&self, request: query::SetRollbackRequest) -> Result<()> {
        let (target, immediate) = (request.target.clone(), request.immediate_caller_id.clone());
        let call = |server: Self| async move { server.twopc_set_rollback(&request.dtid, request.transaction_id).await };
        self.twopc_call("SET_ROLLBACK", target, immediate, call).await
    }

    async fn conclude_transaction(&self, request: query::ConcludeTransactionRequest) -> Result<()> {
        let (target, immediate) = (request.target.clone(), request.immediate_caller_id.clone());
        let call = |server: Self| async move { server.twopc_conclude(&request.dtid).await };
        self.twopc_call("CONCLUDE_TRANSACTION", target, immediate, call).await
    }

    async fn read_transaction(&self, request: query::ReadTransactionRequest) -> Result<query::TransactionMetadata> {
        let _inside = self.gate.enter(request.target.as_ref(), true)?;
        let started = Instant::now();
        let outcome = self.twopc_read(&request.dtid).await;
        self.stats.queries.record(&["READ_TRANSACTION"], started.elapsed());
        outcome.map_err(|error| {
            let immediate = request.immediate_caller_id.as_ref();
            self.tell(error.into(), "READ_TRANSACTION", &BindVars::new(), immediate)
        })
    }

    async fn stream_health(&self) -> Result<HealthStream> {
        Ok(self.health.subscribe().map(Ok).boxed())
    }
}
