//! One statement from text to result.
//!
//! Owns: finding its plan, the checks (cutover, rules, table ACL), the choice of a connection, the limits it
//! runs under, and what is counted and logged about it. Does not own: who may call at all (`gate`),
//! nor streaming (`stream`).
//! Invariants: outside a transaction a write is one round trip in autocommit. A statement is run a
//! second time only if it is a read, or if it is known not to have left the first time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use mysql::{raw_rows, types::trim_fields};
use tabletclient::RowSink;
use vterrors::{Code, MysqlError, VtError};
use vtproto::query::execute_options::{IncludedFields, TransactionIsolation, Workload};
use vtproto::query::{BindVariable, ExecuteOptions, QueryResult, Type, VtGateCallerId};
use vtproto::vtrpc::CallerId;
use vtsql::{BindVars, BulkInsert, NextCount};

use super::acl::Members;
use super::conn::{DbConn, RunAs};
use super::consolidator::{Outgrowing, Part, follow};
use super::cutover::InFlight;
use super::error::{ER_ROW_LIMIT, ExecError, describe};
use super::live::KILL_GRACE;
use super::logs::QueryRecord;
use super::plan::{MAX_LIMIT, PlanKind, Shape};
use super::plan_cache::Plan;
use super::rules::{RuleSources, Subject};
use super::schema::{TableKind, cells};
use super::sequence::next_value_result;
use super::server::{TabletServer, TxMode};
use super::tx::{BeginOptions, Transaction};
use super::variables;

/// Bound on the two statements that move a sequence.
const SEQUENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes from which on an INSERT is looked at as one of many rows.
const BULK: usize = 2048;

/// Who calls, and what for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// Name of the RPC, for logs.
    pub method: &'static str,
    pub effective: Option<&'a CallerId>,
    pub immediate: Option<&'a VtGateCallerId>,
}

impl Caller<'_> {
    pub fn user(&self) -> &str {
        self.immediate.map_or("", |caller| caller.username.as_str())
    }
}

/// What happened on the way, for counters, log and error text.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub mysql_time: Duration,
    pub wait_time: Duration,
    pub sent: Bytes,
    pub statements: u32,
    pub source: &'static str,
    /// Row limit that counts as a bind variable in error texts.
    pub max_limit: Option<u64>,
    /// Bytes of rows that the caller has been given before the result.
    pub passed_bytes: usize,
}

/// The rows that a caller is given before the result, counted.
struct Passed<'a> {
    sink: &'a dyn RowSink,
    bytes: AtomicUsize,
    /// How long the caller did not take them.
    waited_nanos: AtomicU64,
}

impl<'a> Passed<'a> {
    fn new(sink: &'a dyn RowSink) -> Self {
        Self { sink, bytes: AtomicUsize::new(0), waited_nanos: AtomicU64::new(0) }
    }
}

#[async_trait::async_trait]
impl RowSink for Passed<'_> {
    async fn piece(&self, piece: QueryResult) -> Result<(), VtError> {
        self.bytes.fetch_add(piece.raw_rows.len(), Ordering::Relaxed);
        let started = Instant::now();
        let taken = self.sink.piece(piece).await;
        self.waited_nanos.fetch_add(nanos(started.elapsed()), Ordering::Relaxed);
        taken
    }

    fn has_begun(&self) -> bool {
        self.sink.has_begun()
    }
}

/// The same of a read outside of a transaction, which is in nobody's way once its reader has a part of it.
struct LoneRows<'a> {
    passed: &'a Passed<'a>,
    flight: &'a InFlight,
}

#[async_trait::async_trait]
impl RowSink for LoneRows<'_> {
    async fn piece(&self, piece: QueryResult) -> Result<(), VtError> {
        if self.passed.bytes.load(Ordering::Relaxed) == 0 {
            self.flight.streams();
        }
        self.passed.piece(piece).await
    }

    fn has_begun(&self) -> bool {
        self.passed.has_begun()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a statement has besides its plan.
pub(crate) enum Text<'a> {
    /// A comment behind it, which says for whom or where a statement is: no two need be the same.
    Planned { comment: &'a str },
    /// Its rows.
    Bulk { sql: &'a str, variables: bool },
}

impl Text<'_> {
    /// What is sent.
    fn render(&self, shape: &Shape, vars: &BindVars, limit: Option<u64>) -> Result<Bytes, ExecError> {
        match self {
            Self::Planned { comment } => Ok(shape.render(vars, limit, comment)?.into()),
            Self::Bulk { sql, variables: false } => Ok(Bytes::copy_from_slice(sql.as_bytes())),
            Self::Bulk { sql, variables: true } => Ok(vtsql::bind(sql, vars).map_err(VtError::from)?.into()),
        }
    }
}

/// Cuts off the comment at the end. Only what can be nothing else than one: where an earlier `/*` may still be open, as in
/// `/*! … /* … */`, nothing is cut, so that a plan sees whatever mysqld runs.
fn without_comment(sql: &str) -> (&str, &str) {
    let Some(at) = sql.rfind("/*").filter(|_| sql.ends_with("*/")) else { return (sql, "") };
    let (body, comment) = sql.split_at(at);
    let closed = body.rfind("/*").is_none_or(|open| body.rfind("*/").is_some_and(|close| close > open));
    // What mysqld runs, and hints, are no mere comments.
    let executed = comment[2..].starts_with(['!', 'M', 'm', '+']);
    let whole = comment.find("*/") == Some(comment.len() - 2);
    if closed && whole && !executed && !body.trim_ascii().is_empty() {
        (body.trim_ascii_end(), comment)
    } else {
        (sql, "")
    }
}

/// Limits of one statement.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Rows asked for in the text, if the text takes a limit.
    ask: Option<u64>,
    /// Rows accepted.
    accept: usize,
    timeout: Option<Duration>,
}

impl TabletServer {
    /// Executes a statement, inside a transaction if `transaction_id` is not 0. Counts and logs it. Of a result that is too
    /// large to be held, `sink` gets all but the end.
    pub(crate) async fn execute_query(
        &self,
        caller: Caller<'_>,
        sql: &str,
        vars: &mut BindVars,
        transaction_id: i64,
        options: &ExecuteOptions,
        sink: Option<&dyn RowSink>,
    ) -> Result<QueryResult, VtError> {
        let started = Instant::now();
        let mut trace = Trace::default();
        // Whoever sees other fields than mysqld's gets them with the whole result.
        let all = options.included_fields() == IncludedFields::All;
        let passed = sink.filter(|_| all && options.raw_rows).map(Passed::new);
        let skip = options.skip_query_plan_cache;
        let (text, plan) = self.plan_text(sql, skip, transaction_id != 0).await;
        let (plan, outcome) = match plan {
            Ok(plan) => {
                let passed = passed.as_ref();
                let outcome =
                    self.run_plan(caller, &plan, &text, vars, transaction_id, options, passed, &mut trace).await;
                (Some(plan), outcome)
            }
            Err(error) => (None, Err(error)),
        };
        if let Some(passed) = &passed {
            // mysqld waited too, but for the caller.
            let waited = Duration::from_nanos(passed.waited_nanos.load(Ordering::Relaxed));
            trace.mysql_time = trace.mysql_time.saturating_sub(waited);
            trace.passed_bytes = passed.bytes.load(Ordering::Relaxed);
        }
        let elapsed = started.elapsed();
        if let Some(plan) = &plan {
            let rows = outcome.as_ref().ok().map(|result| result.rows_affected);
            plan.count(elapsed, trace.mysql_time, rows);
            plan.timing.record(elapsed);
            self.stats.mysql_exec.record(trace.mysql_time);
            self.stats.pool_phase.record(trace.wait_time);
            self.stats.mysqld_phase.record(trace.mysql_time);
            self.stats.own_phase.record(elapsed.saturating_sub(trace.mysql_time + trace.wait_time));
            if !plan.shape.table.is_empty() {
                self.stats.user(&plan.counts, caller.user()).add(elapsed);
            }
            if let Ok(result) = &outcome {
                self.stats.results.add(i64::try_from(raw_rows::count(result)).unwrap_or(i64::MAX));
            }
        }
        if self.query_log.is_active() || self.config.log_queries {
            self.log_query(caller, plan.as_deref(), sql, vars, started, &trace, &outcome);
        }
        match outcome {
            Ok(result) => Ok(result),
            Err(error) => {
                if let Some(limit) = trace.max_limit {
                    vars.insert(MAX_LIMIT.to_owned(), int64(limit));
                }
                Err(self.tell(error, sql, vars, caller.immediate))
            }
        }
    }

    /// Turns a failure into what the caller is told; counts and logs it.
    pub(crate) fn tell(
        &self,
        error: ExecError,
        sql: &str,
        vars: &BindVars,
        immediate: Option<&VtGateCallerId>,
    ) -> VtError {
        if error.is_connection_error() {
            self.note_mysql_lost();
        }
        let told = describe(error, self.error_style(), sql, vars, immediate);
        self.stats.errors.inc(&[told.code().as_str_name()]);
        match told.code() {
            // Everyday: the caller handles them.
            Code::FailedPrecondition | Code::AlreadyExists | Code::InvalidArgument | Code::NotFound => {
                tracing::debug!("{told}");
            }
            Code::ResourceExhausted | Code::Aborted | Code::DeadlineExceeded | Code::Canceled => {
                tracing::info!("{told}");
            }
            _ => tracing::warn!("{told}"),
        }
        told
    }

    #[expect(clippy::too_many_arguments)]
    fn log_query(
        &self,
        caller: Caller<'_>,
        plan: Option<&Plan>,
        sql: &str,
        vars: &BindVars,
        started: Instant,
        trace: &Trace,
        outcome: &Result<QueryResult, ExecError>,
    ) {
        let tag = &self.config.querylog_filter_tag;
        if !tag.is_empty() && !sql.contains(tag.as_str()) {
            return;
        }
        let error = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let total = started.elapsed();
        let line = QueryRecord {
            method: caller.method,
            plan: plan.map_or("", |plan| plan.shape.kind.name()),
            immediate: caller.immediate,
            effective: caller.effective,
            start: Utc::now() - chrono::Duration::from_std(total).unwrap_or_default(),
            total,
            sql,
            bind_vars: vars,
            sent: &String::from_utf8_lossy(&trace.sent),
            queries: trace.statements,
            mysql_time: trace.mysql_time,
            wait_time: trace.wait_time,
            source: trace.source,
            rows_affected: outcome.as_ref().map_or(0, |result| result.rows_affected),
            response_bytes: outcome.as_ref().map_or(0, |r| {
                trace.passed_bytes + r.raw_rows.len() + r.rows.iter().map(|row| row.values.len()).sum::<usize>()
            }),
            error: &error,
        }
        .line(self.config.querylog_format, self.config.redact_debug_ui_queries);
        if self.config.log_queries {
            tracing::info!("{}", line.trim_end());
        }
        if self.query_log.is_active() {
            self.query_log.send(line);
        }
    }

    /// The plan of a text as it was received, and what of it is not in the plan.
    pub(crate) async fn plan_text<'s>(
        &self,
        sql: &'s str,
        skip_cache: bool,
        in_transaction: bool,
    ) -> (Text<'s>, Result<Arc<Plan>, ExecError>) {
        // A rule that looks at texts has to see the rows too.
        if sql.len() >= BULK
            && !self.with_rules(RuleSources::read_texts)
            && let Some(bulk) = BulkInsert::new(sql)
        {
            let plan = self.plan(without_comment(&bulk.skeleton()).0, skip_cache, in_transaction).await;
            if plan.is_ok() {
                return (Text::Bulk { sql, variables: bulk.has_variables() }, plan);
            }
        }
        // Also for the error of a bulk insert, which shows the statement.
        let (body, comment) = without_comment(sql);
        (Text::Planned { comment }, self.plan(body, skip_cache, in_transaction).await)
    }

    /// The plan of a text, from the cache or new.
    pub(crate) async fn plan(&self, sql: &str, skip_cache: bool, in_transaction: bool) -> Result<Arc<Plan>, ExecError> {
        if !skip_cache && let Some(plan) = self.plans.get(sql) {
            return Ok(plan);
        }
        let generation = self.plans.generation();
        let shape = Shape::new(sql)?;
        let mut plan = self.complete(shape);
        if let Some(missing) = plan.missing_table.clone() {
            // It may have been made a moment ago, by somebody else.
            let known = {
                let mut place = self.reads.get(&[]).await?;
                self.schema.find(place.get_mut()?, &missing).await?
            };
            if known {
                plan = self.complete(Shape::new(sql)?);
            } else if !in_transaction {
                return Err(table_not_found(&missing));
            }
        }
        let plan = Arc::new(plan);
        if !skip_cache && plan.missing_table.is_none() {
            self.plans.insert(plan.clone(), generation);
        }
        Ok(plan)
    }

    /// Holds a statement against schema, rules and ACL.
    pub(crate) fn complete(&self, shape: Shape) -> Plan {
        let checked = match shape.kind {
            PlanKind::PassSelect | PlanKind::SelectLock | PlanKind::NextVal => true,
            PlanKind::Insert | PlanKind::Update | PlanKind::Delete => !self.config.passthrough_dmls,
            _ => false,
        };
        let table = if shape.table.is_empty() { None } else { self.schema.table(&shape.table) };
        let dual = shape.table.eq_ignore_ascii_case("dual");
        let missing = checked && !shape.table.is_empty() && !dual && table.is_none();
        let missing_table = missing.then(|| shape.table.clone());
        let subject = Subject { sql: &shape.sql, kind: shape.kind, tables: &shape.tables, opaque: shape.opaque };
        let rules = self.with_rules(|sources| sources.filter(&subject));
        let acl = self.acl();
        let authorized: Vec<Members> = shape.permissions.iter().map(|p| acl.members(&p.table, p.role)).collect();
        let counts = self.stats.table(&shape.table, shape.kind);
        let timing = self.stats.queries.handle(&[shape.kind.name()]);
        Plan::new(shape, table, missing_table, rules, authorized, counts, timing)
    }

    /// Rules and table ACL.
    pub(crate) fn check_permissions(&self, caller: Caller<'_>, plan: &Plan, vars: &BindVars) -> Result<(), ExecError> {
        // The caller's address is not known behind the transport; rules with a RequestIP match the empty one.
        plan.rules.check("", caller.user(), vars)?;
        if plan.shape.table == "dual" {
            return Ok(());
        }
        let Some(immediate) = caller.immediate else {
            if self.config.strict_table_acl {
                return Err(ExecError::new(Code::Unauthenticated, "missing caller id"));
            }
            return Ok(());
        };
        let exempt = &self.config.acl_exempt;
        if !exempt.is_empty()
            && (exempt.contains(&immediate.username) || immediate.groups.iter().any(|group| exempt.contains(group)))
        {
            self.stats.acl_exempt.inc();
            return Ok(());
        }
        if plan.shape.opaque && self.config.strict_table_acl && !self.config.table_acl_dry_run {
            let name = plan.shape.kind.name();
            let text = format!("table acl error: {:?} cannot run {name}: its tables are not known", immediate.username);
            return Err(ExecError::new(Code::PermissionDenied, text));
        }
        for (permission, members) in plan.shape.permissions.iter().zip(&plan.authorized) {
            let name = plan.shape.kind.name();
            let labels = [permission.table.as_str(), members.group.as_str(), name, immediate.username.as_str()];
            if members.contains(immediate) {
                self.stats.acl_allowed.inc(&labels);
            } else if self.config.table_acl_dry_run {
                self.stats.acl_pseudo_denied.inc(&labels);
            } else if self.config.strict_table_acl && permission.table != "dual" {
                self.stats.acl_denied.inc(&labels);
                let text = format!(
                    "table acl error: {:?} [{}] cannot run {name} on table {:?}",
                    immediate.username,
                    immediate.groups.join(" "),
                    permission.table
                );
                return Err(ExecError::new(Code::PermissionDenied, text));
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments)]
    async fn run_plan(
        &self,
        caller: Caller<'_>,
        plan: &Arc<Plan>,
        text: &Text<'_>,
        vars: &BindVars,
        transaction_id: i64,
        options: &ExecuteOptions,
        passed: Option<&Passed<'_>>,
        trace: &mut Trace,
    ) -> Result<QueryResult, ExecError> {
        let flight = self.admit(plan, transaction_id, false)?;
        self.check_permissions(caller, plan, vars)?;
        let shape = &plan.shape;
        if shape.kind == PlanKind::NextVal {
            return self.next_value(plan, vars).await;
        }
        let limits = self.limits(shape, options);
        if matches!(shape.kind, PlanKind::Insert | PlanKind::Update | PlanKind::Delete | PlanKind::Replace) {
            trace.max_limit = Some(self.config.max_result_size as u64 + 1);
        }
        let sql = text.render(shape, vars, limits.ask)?;
        trace.sent = sql.clone();
        let lone = passed
            .filter(|_| transaction_id == 0 && shape.kind.is_select())
            .map(|passed| LoneRows { passed, flight: &flight });
        let mut run = RunAs {
            sql: shape.sql.clone(),
            caller: caller.user(),
            timeout: limits.timeout,
            max_rows: limits.accept,
            raw: options.raw_rows,
            sink: match &lone {
                Some(lone) => Some(lone),
                None => passed.map(|passed| passed as &dyn RowSink),
            },
        };
        if transaction_id == 0 && shape.kind == PlanKind::SelectLock {
            let text = format!("{} disallowed outside transaction", shape.kind.name());
            return Err(ExecError::new(Code::FailedPrecondition, text));
        }
        let mut outcome = self.send(caller, plan, &sql, &run, transaction_id, options, trace).await;
        let mut renamed = Vec::new();
        for _ in 0..variables::MOST {
            let Some(replaced) = variables::for_other_server(shape.kind, &trace.sent, &outcome) else { break };
            trace.sent = replaced.sql.into();
            renamed.extend(replaced.names);
            run.sink = None;
            let sql = trace.sent.clone();
            outcome = self.send(caller, plan, &sql, &run, transaction_id, options, trace).await;
        }
        if let Ok(result) = &mut outcome {
            variables::rename(&mut result.fields, &renamed);
        }
        let mut result = match outcome {
            Ok(result) => result,
            Err(error) => {
                if shape.kind.is_select() && self.is_run_time_error(plan, &error).await {
                    trace.max_limit = Some(limits.ask.unwrap_or(self.config.max_result_size as u64 + 1));
                }
                return Err(error);
            }
        };
        if !plan.resolved.load(Ordering::Relaxed) {
            plan.resolved.store(true, Ordering::Relaxed);
        }
        self.check_row_count(caller, &result, limits)?;
        trim_fields(&mut result.fields, options.included_fields());
        Ok(result)
    }

    /// Sends a statement to mysqld on the connection that is right for it.
    #[expect(clippy::too_many_arguments)]
    async fn send(
        &self,
        caller: Caller<'_>,
        plan: &Plan,
        sql: &Bytes,
        run: &RunAs<'_>,
        transaction_id: i64,
        options: &ExecuteOptions,
        trace: &mut Trace,
    ) -> Result<QueryResult, ExecError> {
        let shape = &plan.shape;
        if transaction_id != 0 {
            return self.run_in_transaction(plan, sql, run, transaction_id, options, trace).await;
        }
        match shape.kind {
            PlanKind::PassSelect
                if self.config.enable_consolidator && shape.shareable && options.session_settings.is_empty() =>
            {
                self.read_shared(caller, plan, sql, run, options, trace).await
            }
            kind if kind.is_write() => self.write(plan, sql, run, options, trace).await,
            _ => self.read(caller, plan, sql, run, options, trace).await,
        }
    }

    fn limits(&self, shape: &Shape, options: &ExecuteOptions) -> Limits {
        if options.workload() == Workload::Dba {
            return Limits { ask: None, accept: usize::MAX, timeout: None };
        }
        let timeout = (!self.config.query_timeout.is_zero()).then_some(self.config.query_timeout);
        let most = self.config.max_result_size;
        let ask = shape.is_limited().then(|| match u64::try_from(options.sql_select_limit) {
            // The client asked for no more, so that fewer rows are no error.
            Ok(wanted) if wanted > 0 && wanted <= most as u64 => wanted,
            _ => most as u64 + 1,
        });
        Limits { ask, accept: most, timeout }
    }

    fn check_row_count(&self, caller: Caller<'_>, result: &QueryResult, limits: Limits) -> Result<(), ExecError> {
        let rows = raw_rows::count(result);
        if rows > limits.accept {
            let error = MysqlError::new(ER_ROW_LIMIT, "HY000", format!("Row count exceeded {}", limits.accept));
            return Err(ExecError::mysql(error, Code::ResourceExhausted));
        }
        let warn = self.config.warn_result_size;
        if warn > 0 && rows > warn {
            self.stats.warnings.inc(&["ResultsExceeded"]);
            tracing::warn!("caller id: {}: row count {rows} exceeds warning threshold {warn}", caller.user());
        }
        Ok(())
    }

    /// Whether a failed SELECT resolved its names: Vitess finds out by a query of its own before it
    /// fills in the row limit, and its error text shows which of the two failed. Only asked after a
    /// failure that could be either.
    async fn is_run_time_error(&self, plan: &Plan, error: &ExecError) -> bool {
        // Syntax, unknown column, table, function, ambiguous or repeated names, grouping.
        const NAMES: [u16; 12] = [1052, 1054, 1055, 1056, 1064, 1066, 1109, 1111, 1140, 1146, 1305, 1630];
        if plan.resolved.load(Ordering::Relaxed) || !error.errno().is_some_and(|errno| NAMES.contains(&errno)) {
            return true;
        }
        let Some(query) = plan.shape.field_query() else { return true };
        let Ok(mut place) = self.reads.get(&[]).await else { return true };
        match place.get_mut() {
            Ok(conn) => conn.run(&query, SEQUENCE_TIMEOUT).await.is_ok(),
            Err(_) => true,
        }
    }

    /// A read that joins the same read running already.
    async fn read_shared(
        &self,
        caller: Caller<'_>,
        plan: &Plan,
        sql: &Bytes,
        run: &RunAs<'_>,
        options: &ExecuteOptions,
        trace: &mut Trace,
    ) -> Result<QueryResult, ExecError> {
        match self.consolidator.join(sql, &plan.shape.sql) {
            Part::Leader(leader) => {
                let outgrowing = run.sink.map(|sink| Outgrowing { leader: &leader, sink });
                let sink = outgrowing.as_ref().map(|outgrowing| outgrowing as &dyn RowSink);
                let outcome = self.read(caller, plan, sql, &RunAs { sink, ..run.clone() }, options, trace).await;
                leader.finish(outcome)
            }
            Part::Follower(outcome) => {
                let waited = Instant::now();
                let longest = run.timeout.map_or(Duration::MAX, |timeout| timeout + KILL_GRACE);
                let shared = tokio::time::timeout(longest, follow(outcome)).await;
                self.stats.waits.record(&["Consolidations"], waited.elapsed());
                match shared {
                    Ok(Some(shared)) => {
                        trace.source = "consolidator";
                        let mut result = shared?.as_ref().clone();
                        if !run.raw {
                            // The one who ran it may have asked for packets.
                            raw_rows::decode(&mut result)
                                .map_err(|error| ExecError::new(Code::Internal, error.to_string()))?;
                        }
                        Ok(result)
                    }
                    // Who ran it is gone. What was waited counts.
                    Ok(None) => {
                        let timeout = run.timeout.map(|timeout| timeout.saturating_sub(waited.elapsed()));
                        self.read(caller, plan, sql, &RunAs { timeout, ..run.clone() }, options, trace).await
                    }
                    Err(_) => {
                        let text = format!("an equal query that runs already has not ended within {longest:?}");
                        Err(ExecError::new(Code::DeadlineExceeded, text))
                    }
                }
            }
            Part::Alone => self.read(caller, plan, sql, run, options, trace).await,
        }
    }

    async fn read(
        &self,
        caller: Caller<'_>,
        plan: &Plan,
        sql: &Bytes,
        run: &RunAs<'_>,
        options: &ExecuteOptions,
        trace: &mut Trace,
    ) -> Result<QueryResult, ExecError> {
        if let Some(params) = &self.config.appdebug
            && params.user == caller.user()
        {
            let mut conn = DbConn::connect(params, &self.live, "AppDebug".into()).await?;
            conn.prepare(&options.session_settings).await?;
            return timed(&mut conn, sql, run, trace).await;
        }
        let waiting = Instant::now();
        let mut place = self.reads.get(&options.session_settings).await?;
        trace.wait_time = waiting.elapsed();
        let conn = place.get_mut()?;
        if plan.shape.dirties {
            conn.mark_dirty();
        }
        match timed(conn, sql, run, trace).await {
            // A read can be repeated: nothing of the first run is left.
            Err(error) if error.is_connection_error() && !run.has_passed_rows() => {
                self.note_mysql_lost();
                place.reconnect().await?;
                let conn = place.get_mut()?;
                conn.prepare(&options.session_settings).await?;
                if plan.shape.dirties {
                    conn.mark_dirty();
                }
                timed(conn, sql, run, trace).await
            }
            outcome => outcome,
        }
    }

    /// Whether a write or a transaction may begin now.
    pub(crate) fn check_tx_mode(&self, read_only: bool) -> Result<(), ExecError> {
        match self.tx_mode() {
            TxMode::Closed => {
                Err(ExecError::new(Code::Unavailable, "tx engine can't accept new transactions in state NotServing"))
            }
            TxMode::ReadOnly if !read_only => Err(ExecError::new(
                Code::Unavailable,
                "tx engine can only accept read-only transactions in current state",
            )),
            TxMode::ReadOnly | TxMode::ReadWrite => Ok(()),
        }
    }

    /// One write on its own, in autocommit.
    async fn write(
        &self,
        plan: &Plan,
        sql: &Bytes,
        run: &RunAs<'_>,
        options: &ExecuteOptions,
        trace: &mut Trace,
    ) -> Result<QueryResult, ExecError> {
        self.check_tx_mode(false)?;
        let waiting = Instant::now();
        let mut place = self.tx.connection(options.client_found_rows, &options.session_settings).await?;
        trace.wait_time = waiting.elapsed();
        let conn = place.get_mut()?;
        if plan.shape.dirties {
            conn.mark_dirty();
        }
        let outcome = match timed(conn, sql, run, trace).await {
            Err(error) if error.is_not_sent() => {
                self.note_mysql_lost();
                place.reconnect().await?;
                let conn = place.get_mut()?;
                conn.prepare(&options.session_settings).await?;
                if plan.shape.dirties {
                    conn.mark_dirty();
                }
                timed(conn, sql, run, trace).await
            }
            outcome => outcome,
        };
        self.consolidator.written();
        drop(place);
        if plan.shape.kind == PlanKind::Ddl && outcome.is_ok() {
            self.reload_after_ddl(plan).await;
        }
        outcome
    }

    async fn reload_after_ddl(&self, plan: &Plan) {
        if plan.shape.temporary {
            return;
        }
        if let Err(error) = self.reload(&plan.shape.tables, false).await {
            tracing::warn!("after a schema change: {error}");
        }
    }

    async fn run_in_transaction(
        &self,
        plan: &Plan,
        sql: &Bytes,
        run: &RunAs<'_>,
        transaction_id: i64,
        options: &ExecuteOptions,
        trace: &mut Trace,
    ) -> Result<QueryResult, ExecError> {
        let shape = &plan.shape;
        let mut guard = self.tx.take_for(transaction_id, "for query", shape)?;
        let tx = guard.get()?;
        if let Some(missing) = &plan.missing_table
            && !tx.temporary_tables
        {
            return Err(table_not_found(missing));
        }
        let mut outcome = self.run_on(tx, plan, sql, run, options, trace).await;
        // Nothing but its connection held the transaction.
        if tx.is_broken() && !tx.has_failed_to_begin() {
            outcome = outcome.map_err(ExecError::transaction_lost);
        }
        tx.temporary_tables |= shape.temporary && outcome.is_ok();
        if shape.kind.is_write() && tx.autocommit {
            self.consolidator.written();
        }
        // Mysqld commits before a schema change; the caller's transaction goes on with a new one.
        if shape.kind == PlanKind::Ddl && !shape.temporary {
            if !tx.autocommit && !tx.is_broken() {
                tx.conn()?.run("begin", SEQUENCE_TIMEOUT).await?;
            }
            drop(guard);
            self.consolidator.written();
            if outcome.is_ok() {
                self.reload_after_ddl(plan).await;
            }
        }
        outcome
    }

    async fn run_on(
        &self,
        tx: &mut Transaction,
        plan: &Plan,
        sql: &Bytes,
        run: &RunAs<'_>,
        options: &ExecuteOptions,
        trace: &mut Trace,
    ) -> Result<QueryResult, ExecError> {
        let shape = &plan.shape;
        let conn = tx.conn()?;
        conn.prepare_in_transaction(&options.session_settings).await?;
        if shape.dirties {
            conn.mark_dirty();
        }
        let mut outcome = timed(conn, sql, run, trace).await;
        if let Err(error) = &outcome
            && error.is_connection_error()
            && (shape.kind.is_select() || error.is_not_sent())
            && tx.has_failed_to_begin()
        {
            self.note_mysql_lost();
            self.tx.renew_unbegun(tx, &options.session_settings).await?;
            let conn = tx.conn()?;
            if shape.dirties {
                conn.mark_dirty();
            }
            outcome = timed(conn, sql, run, trace).await;
        }
        if outcome.is_ok() {
            tx.wrote |= shape.kind.is_write();
            if shape.recorded && self.config.twopc_enable {
                tx.remember(sql.clone())?;
            }
        }
        if self.tx_log.stream.is_active() {
            tx.shown.push(shape.sql.clone());
        }
        outcome
    }

    /// The next ids of a sequence.
    async fn next_value(&self, plan: &Plan, vars: &BindVars) -> Result<QueryResult, ExecError> {
        let name = &plan.shape.table;
        let Some(table) = &plan.table else { return Err(table_not_found(name)) };
        if table.kind != TableKind::Sequence {
            return Err(ExecError::new(Code::InvalidArgument, format!("{name} is not a sequence")));
        }
        let count = match &plan.shape.next {
            Some(NextCount::Number(count)) => i64::try_from(*count).unwrap_or(i64::MAX),
            Some(NextCount::BindVar(var)) => number_var(vars, var)?,
            None => 1,
        };
        if count < 1 {
            let text = format!("invalid increment for sequence {name}: {count}");
            return Err(ExecError::new(Code::InvalidArgument, text));
        }
        let sequence = &table.sequence;
        if let Some(first) = sequence.take(count) {
            return Ok(next_value_result(first));
        }
        let _one = sequence.reserving.lock().await;
        // The one before may have reserved enough for this one too.
        if let Some(first) = sequence.take(count) {
            return Ok(next_value_result(first));
        }
        self.check_tx_mode(false)?;
        let options = BeginOptions { isolation: TransactionIsolation::Default, ..BeginOptions::default() };
        let mut guard = self.tx.begin(options).await?;
        let reserved = async {
            let tx = guard.get()?;
            let quoted = vtsql::quote_identifier(name);
            let select = format!("select next_id, cache from {quoted} where id = 0 for update");
            let stored = tx.conn()?.run(&select, SEQUENCE_TIMEOUT).await?;
            if stored.rows.len() != 1 {
                let text =
                    format!("unexpected rows from reading sequence {name} (possible mis-route): {}", stored.rows.len());
                return Err(ExecError::new(Code::Unknown, text));
            }
            let cells = cells(&stored.rows[0]);
            let number = |cell: &str| {
                cell.parse::<i64>().map_err(|error| {
                    ExecError::new(Code::Unknown, format!("error loading sequence {name}: {cell:?}: {error}"))
                })
            };
            let (next_id, cache) = (number(&cells[0])?, number(&cells[1])?);
            if cache < 1 {
                let text = format!("invalid cache value for sequence {name}: {cache}");
                return Err(ExecError::new(Code::Unknown, text));
            }
            let Some(reservation) = sequence.reserve(next_id, cache, count) else {
                return Err(ExecError::new(Code::OutOfRange, format!("sequence {name} is used up")));
            };
            let update = format!("update {quoted} set next_id = {} where id = 0", reservation.stored);
            match tx.conn()?.run(&update, SEQUENCE_TIMEOUT).await {
                Ok(_) => Ok(reservation),
                Err(error) => {
                    sequence.abandon(reservation);
                    Err(error)
                }
            }
        };
        let reservation = match reserved.await {
            Ok(reservation) => reservation,
            Err(error) => {
                guard.rollback(super::tx::Conclusion::Rollback, "transaction rolled back").await;
                return Err(error);
            }
        };
        if let Err(error) = guard.commit().await {
            sequence.abandon(reservation);
            return Err(error);
        }
        let first = sequence.commit(reservation, count);
        self.consolidator.written();
        Ok(next_value_result(first))
    }
}

/// Runs a statement and adds up what it took.
async fn timed(conn: &mut DbConn, sql: &Bytes, run: &RunAs<'_>, trace: &mut Trace) -> Result<QueryResult, ExecError> {
    let started = Instant::now();
    let outcome = conn.exec(sql, run).await;
    trace.mysql_time += started.elapsed();
    trace.statements += 1;
    trace.source = "mysql";
    outcome
}

fn table_not_found(name: &str) -> ExecError {
    ExecError::new(Code::InvalidArgument, format!("table {name} not found in schema"))
}

/// A whole number as a bind variable.
pub(crate) fn int64(n: u64) -> BindVariable {
    BindVariable { r#type: Type::Int64.into(), value: n.to_string().into(), values: vec![] }
}

fn number_var(vars: &BindVars, name: &str) -> Result<i64, ExecError> {
    let Some(var) = vars.get(name) else {
        return Err(ExecError::new(Code::InvalidArgument, format!("missing bind var {name}")));
    };
    let text = String::from_utf8_lossy(&var.value);
    text.parse().map_err(|_| ExecError::new(Code::InvalidArgument, format!("could not parse value: '{text}'")))
}

#[cfg(test)]
mod tests {
    use super::without_comment;

    #[test]
    fn the_comment_behind_a_statement_is_told_from_what_mysqld_runs() {
        assert_eq!(without_comment("select 1 /* a */"), ("select 1", "/* a */"));
        assert_eq!(without_comment("/* b */ select 1 /* a */"), ("/* b */ select 1", "/* a */"));
        assert_eq!(without_comment("select '*/' /* a */"), ("select '*/'", "/* a */"));
        for whole in [
            "select 1",
            "/* a */",
            "select 1 /*! + 1 */",
            "select 1 /*M! + 1 */",
            "select 1 /*+ hint */",
            "select 1 /*! + (select 2 /* a */",
            "select 1 /*! + 2 /* a */ */",
            "select 1 /* a /* b */",
            "select 1 */",
        ] {
            assert_eq!(without_comment(whole), (whole, ""));
        }
    }
}
