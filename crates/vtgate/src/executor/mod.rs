//! Runs a client's statement: plan, primitives, session.
//!
//! Owns: the way from a text to a plan, and metrics and log of each statement. A plan goes to shards
//! (`route.rs`, `merge`, `insert.rs`, `write.rs`) or is carried out here (`local.rs`). Does not own: calls to tablets (`scatter.rs`),
//! ending transactions (`transaction.rs`), the protocols.
//! Invariants: a statement seen before is neither parsed nor planned; nothing on the way waits for
//! the topology; a statement that fails or is cut short leaves the transaction as it was before it, or, where a shard
//! has lost its part, no transaction at all.

mod bulk;
mod cutover;
mod describe;
mod direct;
mod gather;
mod insert;
mod local;
mod lookup;
mod merge;
mod places;
mod prepared;
mod route;
mod set;
mod show;
mod vschema_ddl;
mod write;

pub use direct::{Direct, Named};
pub use show::like;

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use futures::{StreamExt, TryStreamExt};
use mysql::raw_rows;
use planner::{Opcode, Plan, Primitive, Target};
use tabletclient::{ResultStream, RowSink, health_check::type_text};
use tokio::time::Instant;
use topo::TopoServer;
use vterrors::{Code, MysqlError, Result, VtError};
use vtproto::{
    query::{BindVariable, QueryResult, Type},
    topodata::TabletType,
    vtgate::CommitOrder,
};
use vtsql::{BindVars, Needs, Normalized, StatementKind};

use crate::{
    caller::Caller,
    cutover::CutoverWaits,
    plan_cache::{Cached, PlanCache, PlanKey},
    query_log::{QueryLog, Record},
    resolver::Resolver,
    scatter::Scatter,
    session::Session,
    stats::Stats,
    transaction::Transactions,
    vschema_watch::VSchemaWatch,
};

/// Settings of an [`Executor`].
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// Put in front of every error: `vtgate: http://host:15001/`.
    pub error_prefix: String,
    /// Type of targets that name none (`-default_tablet_type`).
    pub default_tablet_type: TabletType,
    /// Lift literals out of statements (`-normalize_queries`).
    pub normalize: bool,
    /// Results with more rows are counted (`-warn_memory_rows`).
    pub warn_memory_rows: usize,
    /// Cut statements and values out of errors (`-vtgate-config-terse-errors`).
    pub terse_errors: bool,
    /// Who may change the vschema (`-vschema_ddl_authorized_users`); `%` is everybody.
    pub vschema_ddl_users: Vec<String>,
    /// Who may KILL connections of other users (`-kill_authorized_users`); `%` is everybody.
    pub kill_users: Vec<String>,
    /// Bound on every statement (`-mysql_server_query_timeout`).
    pub query_timeout: Option<Duration>,
}

/// Ends a connection or its statement for a user, who may end only their own; for `None` any.
pub type Killer = Box<dyn Fn(&vtsql::Kill, Option<&str>) -> Result<(), MysqlError> + Send + Sync>;

/// A plan with what is worked out of it once.
#[derive(Debug)]
pub struct Prepared {
    pub plan: Plan,
    /// The route's text, when the plan is one.
    text: Arc<str>,
    /// The plan's name in metrics: `SelectUnsharded`.
    pub name: String,
    calc_found_rows: bool,
    counters: Option<Counters>,
    /// How the values that answers are merged by compared when they were last seen.
    forms: ArcSwapOption<Vec<merge::Form>>,
}

impl Prepared {
    /// One execution on so many shards.
    fn count(&self, shards: usize) {
        if let Some(counters) = &self.counters {
            counters.count(shards);
        }
    }
}

#[derive(Debug)]
struct Counters {
    processed: Arc<AtomicI64>,
    routed: Arc<AtomicI64>,
    processed_by_table: Option<Arc<AtomicI64>>,
    routed_by_table: Option<Arc<AtomicI64>>,
}

impl Counters {
    fn count(&self, shards: usize) {
        let shards = i64::try_from(shards).unwrap_or(i64::MAX);
        self.processed.fetch_add(1, Ordering::Relaxed);
        self.routed.fetch_add(shards, Ordering::Relaxed);
        if let (Some(processed), Some(routed)) = (&self.processed_by_table, &self.routed_by_table) {
            processed.fetch_add(1, Ordering::Relaxed);
            routed.fetch_add(shards, Ordering::Relaxed);
        }
    }
}

/// A result that is there, or one that arrives.
pub enum Output {
    Whole(QueryResult),
    Rows(ResultStream),
}

/// The parts that an [`Executor`] is put together from.
pub struct Parts {
    pub config: ExecutorConfig,
    pub scatter: Scatter,
    pub resolver: Resolver,
    pub vschema: Arc<VSchemaWatch>,
    pub plans: Arc<PlanCache<Prepared>>,
    pub stats: Stats,
    pub log: Arc<QueryLog>,
    pub cutovers: CutoverWaits,
    /// For what changes the topology: vschema changes and metadata.
    pub topo: TopoServer,
}

/// Runs statements. Cloning shares it.
#[derive(Clone)]
pub struct Executor {
    parts: Arc<Parts>,
    transactions: Transactions,
    killer: Arc<OnceLock<Killer>>,
}

/// One statement under way, and what the log will say of it.
struct Work<'a> {
    caller: &'a Caller,
    method: &'static str,
    client_vars: &'a BindVars,
    started: Instant,
    plan_time: Duration,
    statement: &'static str,
    keyspace: String,
    tablet_type: TabletType,
    shard_queries: u64,
    /// Which of the session's transactions statements run in.
    order: CommitOrder,
    /// The caller takes rows as `QueryResult.raw_rows`.
    takes_raw: bool,
    /// The same, until the statement's own route has asked for them.
    raw: bool,
    /// Where such a caller takes what need not be held.
    sink: Option<&'a dyn RowSink>,
    bulk: Option<bulk::Bulk>,
    entry: Option<Arc<Cached<Prepared>>>,
    vars: Option<Arc<BindVars>>,
}

impl Executor {
    pub fn new(parts: Parts) -> Self {
        let transactions = Transactions::new(parts.scatter.clone());
        Self { parts: Arc::new(parts), transactions, killer: Arc::default() }
    }

    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    pub fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    /// Whether a caller may end connections of other users.
    pub fn may_kill_any(&self, caller: &Caller) -> bool {
        self.parts.config.kill_users.iter().any(|user| user == "%" || user == caller.principal())
    }

    /// Lets KILL work. Only the first call has an effect.
    pub fn set_killer(&self, killer: Killer) {
        if self.killer.set(killer).is_err() {
            tracing::debug!("KILL is wired already");
        }
    }

    /// Runs one statement and returns its whole result. `method` names the API in metrics.
    ///
    /// # Errors
    /// Everything a statement can fail with, prefixed as Vitess prefixes it. The session is as the
    /// statement left it.
    pub async fn execute(
        &self,
        caller: &Caller,
        session: &mut Session,
        method: &'static str,
        sql: &[u8],
        bind_variables: &BindVars,
    ) -> Result<QueryResult> {
        self.execute_work(Work::new(caller, method, bind_variables), session, sql).await
    }

    /// As [`Executor::execute`], for a caller that passes rows on as packets: they may be in `raw_rows` of the result, and
    /// `sink` may have been given all but the last of them. The result has their number.
    ///
    /// # Errors
    /// As [`Executor::execute`], also when `sink` has rows; the sink's.
    pub async fn execute_raw(
        &self,
        caller: &Caller,
        session: &mut Session,
        method: &'static str,
        sql: &[u8],
        bind_variables: &BindVars,
        sink: &dyn RowSink,
    ) -> Result<QueryResult> {
        let work = Work { takes_raw: true, sink: Some(sink), ..Work::new(caller, method, bind_variables) };
        self.execute_work(work, session, sql).await
    }

    async fn execute_work(&self, mut work: Work<'_>, session: &mut Session, sql: &[u8]) -> Result<QueryResult> {
        let caller = work.caller;
        let sql = &*vtsql::expand_version_comments(sql);
        let outcome = {
            let running = pin!(self.run_across_cutovers(&mut work, session, sql, false));
            caller.run_until(caller.cancelled.cancelled(), running).await
        };
        let outcome = outcome.unwrap_or_else(|| Err(interrupted()));
        let outcome = match outcome {
            Ok(Output::Whole(result)) => Ok(result),
            Ok(Output::Rows(_)) => Err(VtError::new(Code::Internal, "a stream where none was asked for")),
            Err(error) => Err(error),
        };
        self.ended(work, session, sql, outcome).await
    }

    /// Runs one statement, whose rows may arrive later. Memory does not grow with their number. `raw`: they may be in
    /// `raw_rows` of the results, a row in several.
    ///
    /// # Errors
    /// As [`Executor::execute`]; later ones come from the stream.
    pub async fn stream(
        &self,
        caller: &Caller,
        session: &mut Session,
        method: &'static str,
        sql: &[u8],
        bind_variables: &BindVars,
        raw: bool,
    ) -> Result<Output> {
        let mut work = Work { takes_raw: raw, ..Work::new(caller, method, bind_variables) };
        let sql = &*vtsql::expand_version_comments(sql);
        let outcome = {
            let running = pin!(self.run_across_cutovers(&mut work, session, sql, true));
            caller.run_until(caller.cancelled.cancelled(), running).await
        };
        match outcome.unwrap_or_else(|| Err(interrupted())) {
            Ok(Output::Rows(stream)) => {
                self.ended(work, session, sql, Ok(QueryResult::default())).await?;
                let (executor, cancelled) = (self.clone(), caller.cancelled.clone());
                let end = async move {
                    cancelled.cancelled_owned().await;
                };
                let stream = stream.take_until(end).map_err(move |error| executor.prefixed(error)).boxed();
                Ok(Output::Rows(stream))
            }
            Ok(Output::Whole(result)) => self.ended(work, session, sql, Ok(result)).await.map(Output::Whole),
            Err(error) => self.ended(work, session, sql, Err(error)).await.map(Output::Whole),
        }
    }

    /// Metrics, log and the session's state after a statement.
    async fn ended(
        &self,
        work: Work<'_>,
        session: &mut Session,
        sql: &[u8],
        outcome: Result<QueryResult>,
    ) -> Result<QueryResult> {
        let outcome = self.transactions.settle(work.caller, session, outcome).await;
        let outcome = outcome.map_err(|error| self.prefixed(error));
        let elapsed = work.started.elapsed();
        let parts = &self.parts;
        let labels = [work.method, work.keyspace.as_str(), type_text(work.tablet_type)];
        parts.stats.api.record(&labels, elapsed);
        let rows = outcome.as_ref().map_or(0, raw_rows::count);
        if let Err(error) = &outcome {
            let code = error.code().as_str_name();
            parts.stats.api_errors.inc(&[labels[0], labels[1], labels[2], code]);
        } else {
            parts.stats.rows_returned.add(&labels, i64::try_from(rows).unwrap_or(i64::MAX));
        }
        if let Some(entry) = &work.entry {
            parts.stats.plan_phase.record(work.plan_time);
            let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
            entry.executions.fetch_add(1, Ordering::Relaxed);
            entry.nanos.fetch_add(nanos, Ordering::Relaxed);
            entry.rows.fetch_add(rows as u64, Ordering::Relaxed);
            entry.shard_queries.fetch_add(work.shard_queries, Ordering::Relaxed);
            entry.errors.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
        }
        if rows > parts.config.warn_memory_rows {
            parts.stats.warnings.inc(&["ResultsExceeded"]);
        }
        if parts.log.wanted() {
            parts.log.send(&Record {
                method: work.method,
                remote: work.caller.remote.clone(),
                username: work.caller.principal().to_string(),
                immediate: work.caller.username().to_string(),
                effective: work.caller.principal().to_string(),
                started: SystemTime::now() - elapsed,
                total: elapsed,
                plan: work.plan_time,
                statement: work.statement,
                sql: String::from_utf8_lossy(sql).into_owned(),
                bind_variables: work.vars.as_deref().unwrap_or(work.client_vars).clone(),
                shard_queries: work.shard_queries,
                rows_affected: outcome.as_ref().map_or(0, |result| result.rows_affected),
                error: outcome.as_ref().err().map(ToString::to_string).unwrap_or_default(),
            });
        }
        outcome
    }

    /// `vtgate: http://host:15001/: …`
    pub fn prefixed(&self, error: VtError) -> VtError {
        let error = if self.parts.config.terse_errors { terse(error) } else { error };
        error.wrap(&self.parts.config.error_prefix)
    }

    /// The session's target with the keyspace that is meant when none is named.
    ///
    /// # Errors
    /// A target string that cannot be read.
    pub fn target(&self, session: &mut Session) -> Result<Target> {
        let mut target = session.target(self.parts.config.default_tablet_type)?;
        if target.keyspace.is_empty()
            && let Some(only) = self.parts.vschema.current().vschema.only_keyspace()
        {
            target.keyspace.push_str(&only.name);
        }
        Ok(target)
    }

    async fn run(&self, work: &mut Work<'_>, session: &mut Session, sql: &[u8], stream: bool) -> Result<Output> {
        work.bulk = self.bulk(session, sql, work.client_vars);
        let normalized = match &work.bulk {
            Some(bulk) => bulk.normalized.clone(),
            None => self.normalized(sql, work.client_vars)?,
        };
        work.statement = normalized.kind.name();
        let target = self.target(session)?;
        work.keyspace.clone_from(&target.keyspace);
        work.tablet_type = target.tablet_type;
        match normalized.kind {
            StatementKind::Empty => return Err(MysqlError::new(1065, "42000", "Query was empty").into()),
            StatementKind::Unknown => {
                let text = format!("unrecognized statement: {}", normalized.sql);
                return Err(VtError::new(Code::InvalidArgument, text));
            }
            StatementKind::Comment => return Ok(Output::Whole(QueryResult::default())),
            // SHOW WARNINGS tells of the statement before it.
            StatementKind::Show => {}
            _ => session.pb.warnings.clear(),
        }
        // Every transaction has them, and there is nothing to plan.
        if let Some(primitive) = local::plain_transaction(&normalized) {
            return Box::pin(self.local(work, session, &target, &primitive, &normalized)).await.map(Output::Whole);
        }
        let entry = match &work.bulk {
            Some(bulk) => bulk.entry.clone(),
            None => self.plan(session, &normalized)?,
        };
        work.entry = Some(entry.clone());
        work.plan_time = work.started.elapsed();
        let prepared = &entry.value;
        let timeout = match &prepared.plan.primitive {
            Primitive::Route(route) => route.timeout_ms,
            Primitive::Write(write) => write.route.timeout_ms,
            Primitive::Insert(_) | Primitive::UnlistedInsert(_) | Primitive::Gather(_) => 0,
            other => {
                prepared.count(0);
                let result = Box::pin(self.local(work, session, &target, other, &normalized)).await;
                return result.map(Output::Whole);
            }
        };
        let vars = self.bind_variables(session, work, &normalized, &prepared.plan.needs)?;
        let limit = match timeout {
            0 => self.parts.config.query_timeout,
            milliseconds => Some(Duration::from_millis(milliseconds)),
        };
        let caller = work.caller;
        let outcome = {
            let running = pin!(self.shard_plan(work, session, &target, prepared, &normalized, vars, stream));
            match limit {
                None => running.await,
                Some(limit) => {
                    let outcome = caller.run_until(tokio::time::sleep(limit), running).await;
                    outcome.unwrap_or_else(|| Err(VtError::new(Code::DeadlineExceeded, "context deadline exceeded")))
                }
            }
        };
        let output = match outcome {
            Err(error)
                if timeout > 0
                    && session.unanswered.is_none()
                    && route::tolerates(&prepared.plan.primitive)
                    && !work.sink.is_some_and(RowSink::has_begun) =>
            {
                session.warn(u32::from(MysqlError::from(&error).errno), error.to_string());
                Output::Whole(QueryResult::default())
            }
            outcome => outcome?,
        };
        if let Output::Whole(result) = &output {
            note(session, prepared, result);
        }
        Ok(output)
    }

    /// Runs a plan that needs shards.
    #[expect(clippy::too_many_arguments, reason = "everything a statement consists of")]
    async fn shard_plan(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        prepared: &Prepared,
        normalized: &Normalized,
        vars: Arc<BindVars>,
        stream: bool,
    ) -> Result<Output> {
        if let Primitive::Route(route) = &prepared.plan.primitive {
            return self.route(work, session, target, prepared, route, normalized, vars, stream).await;
        }
        // What such a plan reads it looks at.
        work.raw = false;
        // It bounds what the client is given, not what a statement works with.
        let limit = session.take_select_limit();
        let outcome = match &prepared.plan.primitive {
            // On the heap, so that the futures of other statements are no larger for them.
            Primitive::Insert(insert) => {
                Box::pin(self.insert(work, session, target, prepared, insert, normalized, vars)).await
            }
            Primitive::UnlistedInsert(insert) => {
                Box::pin(self.insert_unlisted(work, session, target, insert, normalized, vars)).await
            }
            Primitive::Gather(gather) => {
                Box::pin(self.gather(work, session, target, prepared, gather, vars, limit)).await
            }
            Primitive::Write(write) => {
                Box::pin(self.write(work, session, target, prepared, write, normalized, vars)).await
            }
            _ => Err(VtError::new(Code::Internal, "a plan without shards where one belongs")),
        };
        session.set_select_limit(limit);
        outcome.map(Output::Whole)
    }

    /// The statement without literals, or as it is when that is not wanted.
    fn normalized(&self, sql: &[u8], client_vars: &BindVars) -> Result<Normalized> {
        let normalized = vtsql::normalize(sql)?;
        // Names that we give must not meet names that the client has given.
        let clash = |(name, _): &(String, BindVariable)| client_vars.contains_key(name);
        if self.parts.config.normalize && (client_vars.is_empty() || !normalized.bind_vars.iter().any(clash)) {
            return Ok(normalized);
        }
        // `?` became `:v1` …, which only a normalised text has.
        if normalized.bind_vars.is_empty() || normalized.placeholders > 0 {
            return Ok(normalized);
        }
        let (_, middle, _) = vtsql::split_margin_comments(sql);
        let text = String::from_utf8(middle.to_vec())
            .map_err(|_| VtError::new(Code::InvalidArgument, "the statement is not valid UTF-8"))?;
        let fingerprint = vtsql::fingerprint(&text);
        Ok(Normalized { sql: text, bind_vars: Vec::new(), fingerprint, ..normalized })
    }

    /// A statement of our own, which has its variables already.
    fn as_written(&self, sql: &str) -> Normalized {
        Normalized {
            kind: vtsql::preview(sql),
            sql: sql.to_owned(),
            bind_vars: Vec::new(),
            fingerprint: vtsql::fingerprint(sql),
            leading: String::new(),
            trailing: String::new(),
            session_dependent: false,
            placeholders: 0,
            renamed: Vec::new(),
        }
    }

    /// The plan of a statement: a cached one, or a new one.
    fn plan(&self, session: &mut Session, normalized: &Normalized) -> Result<Arc<Cached<Prepared>>> {
        let target = session.target(self.parts.config.default_tablet_type)?;
        let text = session.pb.target_string.clone();
        self.plan_at(session, &target, &text, normalized)
    }

    /// As [`Executor::plan`], for another target than the session's.
    fn plan_for(&self, session: &Session, target: &Target, normalized: &Normalized) -> Result<Arc<Cached<Prepared>>> {
        self.plan_at(session, target, &target.to_string(), normalized)
    }

    fn plan_at(
        &self,
        session: &Session,
        target: &Target,
        target_text: &str,
        normalized: &Normalized,
    ) -> Result<Arc<Cached<Prepared>>> {
        let current = self.parts.vschema.current();
        let key = PlanKey {
            target: target_text,
            sql: &normalized.sql,
            fingerprint: normalized.fingerprint,
            vschema: current.number,
        };
        if let Some(cached) = self.parts.plans.get(&key) {
            return Ok(cached);
        }
        let statement = vtsql::parse(&normalized.sql)?;
        let context = planner::Context { vschema: &current.vschema, target, in_transaction: session.in_transaction() };
        let plan = planner::plan(&statement, &context)?;
        let skip = !plan.cacheable || session.pb.options.as_ref().is_some_and(|o| o.skip_query_plan_cache);
        let prepared = self.prepare(plan, statement.facts.calc_found_rows);
        Ok(if skip { PlanCache::uncached(&key, prepared) } else { self.parts.plans.insert(&key, prepared) })
    }

    /// A plan inside another.
    fn prepared_part(&self, plan: Plan) -> Prepared {
        self.prepare(plan, false)
    }

    fn prepare(&self, plan: Plan, calc_found_rows: bool) -> Prepared {
        let stats = &self.parts.stats;
        let counters = |name: &str, keyspace: &str, table: Option<&str>| {
            let by_table = |counter: &servenv::stats::MultiCounter| Some(counter.handle(&[name, keyspace, table?]));
            Some(Counters {
                processed: stats.processed.handle(&[name]),
                routed: stats.routed.handle(&[name]),
                processed_by_table: by_table(&stats.processed_by_table),
                routed_by_table: by_table(&stats.routed_by_table),
            })
        };
        let of_route = |route: &planner::Route| {
            let name = plan_name(plan.kind, route.opcode);
            let counters = counters(&name, &route.keyspace, route.table.as_deref());
            (Arc::from(route.query.sql()), name, counters)
        };
        let (text, name, counters) = match &plan.primitive {
            Primitive::Route(route) => of_route(route),
            Primitive::Write(write) => of_route(&write.route),
            Primitive::Insert(insert) => {
                let table = &insert.shape.table;
                let name = if table.sharded { "InsertSharded" } else { "InsertUnsharded" };
                (Arc::from(""), name.to_owned(), counters(name, &table.keyspace, Some(&table.name)))
            }
            Primitive::UnlistedInsert(insert) => {
                let table = &insert.table;
                let name = if table.sharded { "InsertSharded" } else { "InsertUnsharded" };
                (Arc::from(""), name.to_owned(), None)
            }
            Primitive::Gather(gather) => {
                let table = gather.fetches.first().map(|fetch| fetch.table.name.as_str());
                let name = "SelectGather";
                (Arc::from(gather.sql.as_str()), name.to_owned(), counters(name, &gather.keyspace, table))
            }
            _ => (Arc::from(""), plan.kind.name().to_string(), None),
        };
        Prepared { plan, text, name, calc_found_rows, counters, forms: ArcSwapOption::empty() }
    }

    /// All values that a statement's text refers to.
    fn bind_variables(
        &self,
        session: &mut Session,
        work: &mut Work<'_>,
        normalized: &Normalized,
        needs: &Needs,
    ) -> Result<Arc<BindVars>> {
        let mut vars = work.client_vars.clone();
        vars.extend(normalized.bind_vars.iter().cloned());
        for (number, name) in &normalized.renamed {
            // The client may not have sent a value; that is told by whoever misses it.
            if let Some(value) = vars.remove(number) {
                vars.insert(name.clone(), value);
            }
        }
        if *needs != Needs::default() {
            self.session_values(session, needs, &mut vars)?;
        }
        let vars = Arc::new(vars);
        work.vars = Some(vars.clone());
        Ok(vars)
    }

    /// Adds the values of session functions and variables.
    fn session_values(&self, session: &mut Session, needs: &Needs, vars: &mut BindVars) -> Result<()> {
        let mut add = |name: &str, of: Type, value: String| {
            let value = BindVariable { r#type: of.into(), value: value.into(), values: Vec::new() };
            vars.insert(name.to_string(), value);
        };
        if needs.last_insert_id {
            add("__lastInsertId", Type::Uint64, session.pb.last_insert_id.to_string());
        }
        if needs.found_rows {
            add("__vtfrows", Type::Uint64, session.pb.found_rows.to_string());
        }
        if needs.row_count {
            add("__vtrcount", Type::Int64, session.pb.row_count.to_string());
        }
        if needs.connection_id {
            add("__vtconnid", Type::Uint64, session.connection_id.to_string());
        }
        if needs.database {
            let keyspace = self.target(session)?.keyspace;
            if keyspace.is_empty() {
                vars.insert("__vtdbname".into(), BindVariable { r#type: Type::NullType.into(), ..Default::default() });
            } else {
                let value = BindVariable { r#type: Type::Varchar.into(), value: keyspace.into(), values: Vec::new() };
                vars.insert("__vtdbname".into(), value);
            }
        }
        for name in &needs.user_vars {
            let known = session.pb.user_defined_variables.get(name).cloned();
            let value = known.unwrap_or(BindVariable { r#type: Type::NullType.into(), ..Default::default() });
            vars.insert(Needs::user_var_bind_name(name), value);
        }
        for name in &needs.system_vars {
            vars.insert(Needs::system_var_bind_name(name), set::own_variable(self, session, name));
        }
        Ok(())
    }
}

impl<'a> Work<'a> {
    fn new(caller: &'a Caller, method: &'static str, client_vars: &'a BindVars) -> Self {
        Self {
            caller,
            method,
            client_vars,
            started: Instant::now(),
            plan_time: Duration::ZERO,
            statement: "",
            keyspace: String::new(),
            tablet_type: TabletType::Master,
            shard_queries: 0,
            order: CommitOrder::Normal,
            takes_raw: false,
            raw: false,
            sink: None,
            bulk: None,
            entry: None,
            vars: None,
        }
    }
}

/// What a statement's result leaves in the session.
fn note(session: &mut Session, prepared: &Prepared, result: &QueryResult) {
    if result.insert_id != 0 {
        session.pb.last_insert_id = result.insert_id;
    }
    session.pb.row_count =
        if result.fields.is_empty() { i64::try_from(result.rows_affected).unwrap_or(i64::MAX) } else { -1 };
    let read = match &prepared.plan.primitive {
        Primitive::Route(route) => route::effect(prepared.plan.kind, route) == crate::scatter::Effect::Read,
        _ => prepared.plan.kind == StatementKind::Select,
    };
    if !read {
        session.pb.found_rows = 0;
    } else if !prepared.calc_found_rows {
        session.pb.found_rows = raw_rows::count(result) as u64;
    }
}

/// The plan's name as metrics of Vitess spell it.
fn plan_name(kind: StatementKind, opcode: Opcode) -> String {
    let verb = match kind {
        StatementKind::Insert | StatementKind::Replace => "Insert",
        StatementKind::Update => "Update",
        StatementKind::Delete => "Delete",
        StatementKind::Select => "Select",
        other => return capitalised(other.name()),
    };
    let way = match opcode {
        Opcode::Unsharded => "Unsharded",
        Opcode::EqualUnique => "EqualUnique",
        Opcode::Equal => "Equal",
        Opcode::In => "IN",
        Opcode::Scatter => "Scatter",
        Opcode::NextSequence => "Next",
        Opcode::Reference => "Reference",
        Opcode::Dba => "DBA",
        Opcode::ByDestination => "ByDestination",
    };
    format!("{verb}{way}")
}

fn capitalised(name: &str) -> String {
    let mut lower = name.to_ascii_lowercase();
    if let Some(first) = lower.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    lower
}

/// What a client gets whose statement was killed, or who has gone.
pub fn interrupted() -> VtError {
    let error = MysqlError::new(1317, "70100", "Query execution was interrupted");
    VtError::new(Code::Canceled, error.to_string())
}

/// The error without the statement and its values.
fn terse(error: VtError) -> VtError {
    match error.message().split_once(": Sql: \"") {
        Some((short, _)) => VtError::new(error.code(), short),
        None => error,
    }
}

/// The type and value of the first column of the first row; NULL when there is none.
fn first_bind_variable(result: &QueryResult) -> BindVariable {
    let null = BindVariable { r#type: Type::NullType.into(), ..Default::default() };
    let (Some(row), Some(field)) = (result.rows.first(), result.fields.first()) else { return null };
    let Some(length) = row.lengths.first().and_then(|length| usize::try_from(*length).ok()) else { return null };
    if row.values.len() < length {
        return null;
    }
    BindVariable { r#type: field.r#type, value: row.values.slice(..length), values: Vec::new() }
}

/// No variables.
pub fn no_variables() -> BindVars {
    BTreeMap::new()
}
