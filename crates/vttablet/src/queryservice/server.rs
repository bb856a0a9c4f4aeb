//! The query service as a whole: what it is made of, when it serves, and what the tablet manager may
//! ask of it.
//!
//! Owns: the transitions between serving and not serving, schema reloads, rules and ACL, the regular
//! chores. Does not own: execution (`executor`), nor the decision whether to serve.
//! Invariants: one transition at a time. Serving stops in order: new requests are refused, open
//! transactions end or are rolled back after the grace, streams are ended, running requests are waited
//! for; every wait is bounded.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mysql::{ConnectParams, Connection};
use servenv::stats::Registry;
use tokio::sync::Notify;
use vterrors::{Code, Result, VtError};
use vtproto::query::{RealtimeStats, StreamHealthResponse, Target};
use vtproto::topodata::{TabletAlias, TabletType};

use super::acl::TableAcl;
use super::config::QueryServiceConfig;
use super::consolidator::Consolidator;
use super::cutover::{Cutover, Progress};
use super::error::{ErrorStyle, ExecError};
use super::gate::{Current, Gate, State};
use super::health::Health;
use super::heartbeat::{self, Heartbeat};
use super::hot_rows::HotRows;
use super::live::{KILL_GRACE, KillReason, LiveQueries, lock};
use super::logs::{StreamLog, TxLog};
use super::plan_cache::PlanCache;
use super::pool::{Pool, PoolConfig, PoolTexts};
use super::rules::{RuleSources, Rules};
use super::schema::{Schema, first_cell};
use super::stats::{Stats, register_pool};
use super::twopc::TwoPc;
use super::tx::Transactions;
use super::tx_limiter::TxLimiter;
use super::tx_throttler::TxThrottler;

/// Bound on probing mysqld.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for transactions when neither a grace nor their own timeout bounds it.
const LONGEST_DRAIN: Duration = Duration::from_secs(60);
/// Longest wait for running requests after the transactions are gone.
const LONGEST_REQUEST: Duration = Duration::from_secs(60);

/// Which transactions may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TxMode {
    Closed = 0,
    ReadOnly = 1,
    ReadWrite = 2,
}

/// What the parts of the query service share.
#[derive(Debug)]
pub struct Core {
    pub config: QueryServiceConfig,
    pub stats: Arc<Stats>,
    pub(crate) live: Arc<LiveQueries>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) cutover: Arc<Cutover>,
    pub(crate) reads: Arc<Pool>,
    pub(crate) streams: Arc<Pool>,
    pub(crate) tx_reads: Arc<Pool>,
    pub(crate) tx: Arc<Transactions>,
    tx_mode: AtomicU8,
    pub(crate) schema: Schema,
    pub(crate) plans: PlanCache,
    rules: Mutex<RuleSources>,
    acl: ArcSwap<TableAcl>,
    pub(crate) consolidator: Consolidator,
    pub query_log: StreamLog,
    pub tx_log: Arc<TxLog>,
    pub health: Health,
    pub(crate) twopc: TwoPc,
    pub(crate) tx_limiter: Arc<TxLimiter>,
    pub(super) tx_throttler: OnceLock<Arc<TxThrottler>>,
    pub(crate) hot_rows: Arc<HotRows>,
    pub heartbeat: Heartbeat,
    transition: tokio::sync::Mutex<()>,
    /// mysqld did not answer: told to whoever watches over it.
    mysql_lost: Notify,
    last_reload: Mutex<Instant>,
}

/// The query service of one tablet. A clone is the same service.
#[derive(Debug, Clone)]
pub struct TabletServer {
    core: Arc<Core>,
}

impl Deref for TabletServer {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl TabletServer {
    /// A service that is not connected yet. Must be called inside a tokio runtime. Registers its
    /// variables in `registry`.
    ///
    /// Errors: the query log's file cannot be opened.
    pub fn new(mut config: QueryServiceConfig, target: Target, registry: &Registry) -> Result<Self> {
        // One text, one statement: what stands behind a semicolon would bypass every check.
        config.app.multi_statements = false;
        config.dba.multi_statements = false;
        if let Some(params) = &mut config.appdebug {
            params.multi_statements = false;
        }
        let stats = Stats::new(registry);
        let live = LiveQueries::new(
            ConnectParams { db_name: String::new(), ..config.dba.clone() },
            stats.kills.handle(&["Queries"]),
        );
        let pool = |name: &str, capacity, waiter_cap, wait: Duration, texts, found_rows| {
            let settings = PoolConfig {
                name: name.into(),
                capacity,
                idle_timeout: config.idle_timeout,
                waiter_cap,
                wait_timeout: if wait.is_zero() { LONGEST_REQUEST } else { wait },
                texts,
            };
            let params = ConnectParams { client_found_rows: found_rows, ..config.app.clone() };
            let pool = Pool::new(settings, params, live.clone());
            register_pool(registry, &config.pool_name_prefix, &pool);
            pool
        };
        let query_texts =
            PoolTexts { waiters: "query pool waiter count exceeded", timeout: "query pool wait time exceeded" };
        let stream_texts =
            PoolTexts { waiters: "stream pool waiter count exceeded", timeout: "stream pool wait time exceeded" };
        let tx_texts = PoolTexts {
            waiters: "transaction pool waiter count exceeded",
            timeout: "transaction pool connection limit exceeded",
        };
        let query_wait =
            if config.query_pool_timeout.is_zero() { config.query_timeout } else { config.query_pool_timeout };
        let reads =
            pool("ConnPool", config.pool_size, config.query_pool_waiter_cap, query_wait, query_texts.clone(), false);
        let streams = pool(
            "StreamConnPool",
            config.stream_pool_size,
            config.query_pool_waiter_cap,
            query_wait,
            stream_texts,
            false,
        );
        // Chores of the transactions (2PC metadata, redo logs), which must not wait for user transactions.
        let tx_reads = pool("TxReadPool", 3, config.query_pool_waiter_cap, query_wait, query_texts, false);
        let (cap, wait) = (config.tx_pool_waiter_cap, config.tx_pool_timeout);
        let tx_pool = pool("TransactionPool", config.transaction_cap, cap, wait, tx_texts.clone(), false);
        let found_rows = pool("FoundRowsPool", config.found_rows_pool_size, cap, wait, tx_texts, true);
        let tx_log = TxLog::new(stats.clone());
        let progress = Arc::new(Progress::default());
        let cutover = Cutover::new(progress.clone());
        let (timeout, logs) = (config.transaction_timeout, tx_log.clone());
        let twopc = TwoPc::new(config.twopc_enable, config.transaction_cap.saturating_sub(2), progress.clone());
        let tx = Transactions::new(tx_pool, found_rows, timeout, stats.clone(), logs, progress);
        let query_log = StreamLog::new("QueryLog", stats.clone());
        if let Some(path) = &config.log_queries_to_file {
            query_log.log_to_file(path).map_err(|error| {
                VtError::new(Code::Internal, format!("-log_queries_to_file {}: {error}", path.display()))
            })?;
        }
        let heartbeat_interval = config.heartbeat_interval;
        let core = Core {
            tx_throttler: OnceLock::new(),
            tx_limiter: TxLimiter::new(config.tx_limit.clone(), config.transaction_cap, registry),
            hot_rows: HotRows::new(config.hot_rows.clone(), registry),
            heartbeat: Heartbeat::new(config.heartbeat_enable, registry),
            gate: Gate::new(target, cutover.clone()),
            cutover,
            plans: PlanCache::new(config.query_cache_size, config.query_cache_bytes),
            twopc,
            tx_mode: AtomicU8::new(TxMode::Closed as u8),
            schema: Schema::default(),
            rules: Mutex::new(RuleSources::new()),
            acl: ArcSwap::default(),
            consolidator: Consolidator::default(),
            health: Health::default(),
            transition: tokio::sync::Mutex::default(),
            mysql_lost: Notify::new(),
            last_reload: Mutex::new(Instant::now()),
            config,
            stats,
            live,
            reads,
            streams,
            tx_reads,
            tx,
            query_log,
            tx_log,
        };
        let server = Self { core: Arc::new(core) };
        server.register(registry);
        tokio::spawn(chores(Arc::downgrade(&server.core)));
        if server.heartbeat.is_on() {
            tokio::spawn(heartbeat::run(Arc::downgrade(&server.core), heartbeat_interval));
        }
        Ok(server)
    }

    /// The service that a task of its own looks after.
    pub(super) fn from_core(core: Arc<Core>) -> Self {
        Self { core }
    }

    fn register(&self, registry: &Registry) {
        super::unbuilt::register(registry);
        self.stats.register_tables(registry);
        self.stats.unresolved.set(&["Prepares"], 0);
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let gauge = |name: &str, help: &str, read: fn(&Core) -> i64| {
            let core = Arc::downgrade(&self.core);
            registry.gauge_func(name, help, move || core.upgrade().map_or(0, |core| read(&core)));
        };
        gauge("TabletState", "Tablet server state", |c| c.gate.current().state.number());
        gauge("TabletServerState", "Tablet server state", |c| c.gate.current().state.number());
        let core = Arc::downgrade(&self.core);
        registry.string_func("TabletStateName", move || {
            core.upgrade().map_or("NOT_SERVING", |core| core.gate.current().state.name()).to_owned()
        });
        gauge("QueryCacheLength", "Query engine query cache length", |c| c.plans.len() as i64);
        gauge("QueryCacheSize", "Query engine query cache size", |c| c.plans.len() as i64);
        gauge("QueryCacheCapacity", "Query engine query cache capacity", |c| c.plans.capacity() as i64);
        gauge("QueryCacheBytes", "Bytes of statement text in the query cache", |c| c.plans.bytes() as i64);
        for (name, help, read) in [
            (
                "QueryCacheEvictions",
                "Query engine query cache evictions",
                (|c| &c.evictions) as fn(&PlanCache) -> &AtomicU64,
            ),
            ("QueryCacheHits", "Statements whose plan was cached", |c| &c.hits),
            ("QueryCacheMisses", "Statements that had to be planned", |c| &c.misses),
        ] {
            let core = Arc::downgrade(&self.core);
            let count =
                move |core: Arc<Core>| i64::try_from(read(&core.plans).load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            registry.counter_func(name, help, move || core.upgrade().map_or(0, count));
        }
        // The cache does not keep times: a plan's age says nothing about its use.
        registry.string("QueryCacheOldest", "");
        gauge("CutoverGated", "Whether a cutover holds back new work", |c| c.cutover.is_held().into());
        for (name, help, read) in [
            ("CutoverGates", "Times that a cutover held back new work", (|c| &c.gates) as fn(&Cutover) -> &AtomicI64),
            ("CutoverRefused", "Requests held back by cutovers", |c| &c.refused),
            ("CutoverKilled", "Transactions and statements that did not end before a cutover", |c| &c.killed),
        ] {
            let cutover = self.cutover.clone();
            registry.counter_func(name, help, move || read(&cutover).load(Ordering::Relaxed));
        }
        gauge("QueryPoolWaiters", "Query engine query pool waiters", |c| c.reads.waiters() as i64);
        gauge("TransactionPoolWaiters", "Transaction engine waiters", |c| {
            (c.tx.pool.waiters() + c.tx.found_rows_pool.waiters()) as i64
        });
        let config = &self.config;
        for (name, help, value) in [
            ("MaxResultSize", "Query engine max result size", number(config.max_result_size)),
            ("WarnResultSize", "Query engine warn result size", number(config.warn_result_size)),
            ("MaxDMLRows", "Query engine max DML rows", number(config.max_dml_rows)),
            ("StreamBufferSize", "Query engine stream buffer size", number(config.stream_buffer_size)),
        ] {
            registry.gauge_func(name, help, move || value);
        }
        for (name, help, value) in [
            ("QueryTimeout", "Tablet server query timeout", config.query_timeout),
            (
                "QueryPoolTimeout",
                "Tablet server timeout to get a connection from the query pool",
                config.query_pool_timeout,
            ),
            ("SchemaReloadTime", "Tablet server schema reload time", config.schema_reload_time),
            ("TransactionTimeout", "Transaction pool timeout", config.transaction_timeout),
            ("TransactionPoolTimeout", "Timeout to get a connection from the transaction pool", config.tx_pool_timeout),
        ] {
            registry.gauge_duration(name, help, move || value);
        }
        let sizes = |name: &str, help: &str, read: fn(&super::schema::Table) -> i64| {
            let core = Arc::downgrade(&self.core);
            registry.multi_gauge_func(name, help, &["Table"], move || {
                core.upgrade().map(|core| core.schema.sizes(read)).unwrap_or_default()
            });
        };
        sizes("TableRows", "table rows", |t| t.rows);
        sizes("DataLength", "data length", |t| t.data_length);
        sizes("IndexLength", "index length", |t| t.index_length);
        sizes("DataFree", "data free", |t| t.data_free);
        sizes("MaxDataLength", "max data length", |t| t.max_data_length);
    }

    pub(crate) fn weak(&self) -> Weak<Core> {
        Arc::downgrade(&self.core)
    }

    /// From now on transactions begin only if `throttler` admits them. Has an effect once.
    pub fn throttle_transactions(&self, throttler: Arc<TxThrottler>) {
        let _ = self.tx_throttler.set(throttler);
    }

    /// Where the service stands and for whom.
    pub fn current(&self) -> Arc<Current> {
        self.gate.current()
    }

    pub fn state(&self) -> State {
        self.gate.current().state
    }

    pub fn is_serving(&self) -> bool {
        self.state() == State::Serving
    }

    /// Queries a second, over the last full interval of five seconds.
    pub fn queries_per_second(&self) -> f64 {
        self.stats.qps()
    }

    pub fn target(&self) -> Target {
        self.gate.current().target.clone()
    }

    /// Changes keyspace or shard while not serving (a tablet that joins one).
    ///
    /// Errors: FAILED_PRECONDITION while it serves.
    pub async fn set_target(&self, target: Target) -> Result<()> {
        let _one = self.transition.lock().await;
        let current = self.gate.current();
        if !matches!(current.state, State::NotConnected | State::NotServing) {
            let text = format!("cannot change the target in state {}", current.state.name());
            return Err(VtError::new(Code::FailedPrecondition, text));
        }
        self.gate.set(Current { state: current.state, target, also_allow: Vec::new() });
        Ok(())
    }

    /// Told each time that mysqld did not answer; for a health check that need not wait for its turn.
    pub async fn mysql_lost(&self) {
        self.mysql_lost.notified().await;
    }

    /// Serves as `tablet_type`, or stops serving. `also_allow`: types that requests may name besides.
    /// True when something changed.
    ///
    /// Errors: mysqld cannot be reached or is not fit (then the service is not connected).
    pub async fn set_serving_type(
        &self,
        tablet_type: TabletType,
        serving: bool,
        also_allow: Vec<TabletType>,
    ) -> Result<bool> {
        let _one = self.transition.lock().await;
        let before = self.gate.current();
        let mut target = before.target.clone();
        target.set_tablet_type(tablet_type);
        let same_type = before.target.tablet_type() == tablet_type;
        match (before.state, serving) {
            (State::Serving, true) if same_type && before.also_allow == also_allow => return Ok(false),
            (State::Serving, true) if same_type => {
                self.gate.set(Current { state: State::Serving, target, also_allow });
                return Ok(true);
            }
            (State::NotConnected | State::NotServing, false) => {
                self.gate.set(Current { state: before.state, target, also_allow });
                return Ok(!same_type);
            }
            _ => {}
        }
        if !serving {
            // The target stays until the drain is over: open transactions still name it.
            self.stop_gracefully().await;
            self.gate.set(Current { state: State::NotServing, target, also_allow });
            return Ok(true);
        }
        self.gate.set(Current { state: State::Transitioning, target, also_allow });
        if let Err(error) = self.open(before.state, tablet_type).await {
            self.close_connections().await;
            self.gate.set_state(State::NotConnected);
            return Err(error);
        }
        self.gate.set_state(State::Serving);
        Ok(true)
    }

    /// Stops serving and closes every connection. Serving can be resumed with
    /// [`TabletServer::set_serving_type`].
    pub async fn stop_service(&self) {
        let _one = self.transition.lock().await;
        if self.state() == State::Serving {
            self.stop_gracefully().await;
        }
        self.close_connections().await;
        self.gate.set_state(State::NotConnected);
    }

    async fn open(&self, from: State, tablet_type: TabletType) -> Result<()> {
        if from != State::Serving {
            self.ensure_database(tablet_type).await?;
            for pool in [&self.reads, &self.streams, &self.tx_reads] {
                pool.open();
            }
            self.verify_mode().await?;
            self.reload(&[], true).await?;
            self.prefill().await;
        }
        if tablet_type == TabletType::Master {
            self.tx.open();
            self.set_tx_mode(TxMode::ReadWrite);
            if self.config.twopc_enable {
                self.recover_prepared().await?;
            }
        } else {
            if self.tx_mode() == TxMode::ReadWrite {
                self.set_tx_mode(TxMode::Closed);
                self.tx.rollback_free().await;
                if tokio::time::timeout(LONGEST_DRAIN, self.tx.wait_empty()).await.is_err() {
                    tracing::warn!("{} transactions are still in use", self.tx.count());
                }
                self.twopc.forget_all();
            }
            if self.config.twopc_enable
                && let Err(error) = self.ensure_twopc_tables().await
            {
                tracing::warn!("the tables of two-phase commit: {error}");
            }
            self.schema.reset_sequences();
            self.tx.open();
            self.set_tx_mode(TxMode::ReadOnly);
        }
        Ok(())
    }

    /// Makes the connections that the flags want before anybody needs them.
    async fn prefill(&self) {
        let config = &self.config;
        // Those of transactions open with the transactions, a moment later.
        self.tx.open();
        for (pool, parallel) in [
            (&self.reads, config.pool_prefill),
            (&self.streams, config.stream_pool_prefill),
            (&self.tx.pool, config.transaction_prefill),
        ] {
            if parallel == 0 {
                continue;
            }
            if let Err(error) = pool.prefill(parallel).await {
                tracing::warn!("{}: not every connection could be made beforehand: {error}", pool.config().name);
            }
        }
    }

    async fn stop_gracefully(&self) {
        self.gate.set_state(State::ShuttingDown);
        self.set_tx_mode(TxMode::Closed);
        // Without a mysqld there is nothing to wait for: its transactions are gone.
        let grace = if self.probe(Duration::from_secs(1)).await.is_ok() { self.drain_grace() } else { Duration::ZERO };
        if tokio::time::timeout(grace, self.tx.wait_empty()).await.is_err() {
            tracing::warn!("rolling back {} transactions that did not end within {grace:?}", self.tx.count());
            self.tx.rollback_free().await;
        }
        self.live.terminate_streams();
        // From here on nobody is let in who would look for a prepared transaction that is just being forgotten.
        self.gate.set_state(State::NotServing);
        let limit =
            if self.config.query_timeout.is_zero() { LONGEST_REQUEST } else { self.config.query_timeout + KILL_GRACE };
        if tokio::time::timeout(limit.min(LONGEST_REQUEST), self.gate.wait_empty()).await.is_err() {
            tracing::warn!("{} requests did not end", self.gate.inside());
        }
        self.twopc.forget_all();
        self.schema.reset_sequences();
    }

    fn drain_grace(&self) -> Duration {
        match (self.config.transaction_shutdown_grace_period, self.config.transaction_timeout) {
            (grace, _) if !grace.is_zero() => grace,
            (_, timeout) if timeout.is_zero() => LONGEST_DRAIN,
            // The killer ends them; it looks about once a second.
            (_, timeout) => timeout + Duration::from_secs(2),
        }
    }

    async fn close_connections(&self) {
        self.set_tx_mode(TxMode::Closed);
        self.tx.rollback_free().await;
        self.twopc.forget_all();
        for pool in [&self.reads, &self.streams, &self.tx_reads] {
            pool.close();
        }
        self.tx.close_pools();
        self.schema.reset_sequences();
    }

    pub(crate) fn set_tx_mode(&self, mode: TxMode) {
        self.tx_mode.store(mode as u8, Ordering::SeqCst);
    }

    pub(crate) fn tx_mode(&self) -> TxMode {
        match self.tx_mode.load(Ordering::SeqCst) {
            0 => TxMode::Closed,
            1 => TxMode::ReadOnly,
            _ => TxMode::ReadWrite,
        }
    }

    /// A master whose database is missing makes it: a new keyspace has none yet.
    async fn ensure_database(&self, tablet_type: TabletType) -> Result<()> {
        let error = match Connection::connect(&self.config.app).await {
            Ok(connection) => {
                connection.close().await;
                return Ok(());
            }
            Err(error) => error,
        };
        if error.errno() != 1049 || tablet_type != TabletType::Master || self.config.app.db_name.is_empty() {
            return Err(error.into());
        }
        let dba = ConnectParams { db_name: String::new(), ..self.config.dba.clone() };
        let mut connection = Connection::connect(&dba).await?;
        let name = vtsql::quote_identifier(&self.config.app.db_name);
        // With semi-sync and no replica it would wait for ever.
        match tokio::time::timeout(PROBE_TIMEOUT, connection.execute(&format!("create database if not exists {name}")))
            .await
        {
            Ok(created) => drop(created?),
            Err(_) => {
                let text = format!(
                    "creating database {name} took longer than {PROBE_TIMEOUT:?}: is there a replica to acknowledge it?"
                );
                return Err(VtError::new(Code::DeadlineExceeded, text));
            }
        }
        connection.close().await;
        Ok(())
    }

    /// A mysqld whose mode silently changes data is not served from.
    async fn verify_mode(&self) -> Result<()> {
        let mut place = self.reads.get(&[]).await.map_err(bare)?;
        let conn = place.get_mut().map_err(bare)?;
        let mut variable = async |name: &str| -> Result<String> {
            let result = conn.run(&format!("select @@global.{name}"), PROBE_TIMEOUT).await.map_err(bare)?;
            Ok(first_cell(&result).unwrap_or_default())
        };
        let refuse = |text: String| Err(VtError::new(Code::FailedPrecondition, text));
        let mode = variable("sql_mode").await?;
        let strict = ["STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"].iter().any(|word| mode.contains(word));
        if self.config.enforce_strict_trans_tables && !strict {
            return refuse(format!("require sql_mode to be STRICT_TRANS_TABLES or STRICT_ALL_TABLES: got '{mode}'"));
        }
        if variable("autocommit").await? != "1" {
            return refuse("require autocommit to be 1".into());
        }
        if variable("sql_auto_is_null").await? != "0" {
            return refuse("require sql_auto_is_null to be 0".into());
        }
        Ok(())
    }

    /// Whether mysqld answers a query of user app.
    ///
    /// Errors: why not.
    pub async fn is_healthy(&self) -> Result<()> {
        self.probe(PROBE_TIMEOUT).await
    }

    async fn probe(&self, limit: Duration) -> Result<()> {
        let asked = async {
            // Pools may be exhausted by queries that wait for each other; that is not mysqld's health.
            let mut connection = Connection::connect(&self.config.app).await?;
            connection.execute("select 1 from dual limit 1").await?;
            connection.close().await;
            Ok(())
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(VtError::new(Code::Unavailable, format!("mysqld did not answer within {limit:?}"))),
        }
    }

    /// mysqld did not answer: idle connections are closed, and whoever watches is told.
    pub(crate) fn note_mysql_lost(&self) {
        for pool in [&self.reads, &self.streams, &self.tx_reads, &self.tx.pool, &self.tx.found_rows_pool] {
            pool.drop_idle();
        }
        // A stored permit: nobody has to be waiting at this very moment.
        self.mysql_lost.notify_one();
    }

    /// Reads the schema anew, whole. Before the first connection, and after the last, there is nothing to do: it is read
    /// whole before anything is served.
    ///
    /// Errors: mysqld's; the schema then stays as it was.
    pub async fn reload_schema(&self) -> Result<()> {
        if !self.reads.is_open() {
            tracing::warn!(
                "schema reload called before there is a connection to mysqld: it is read when serving begins"
            );
            return Ok(());
        }
        self.reload(&[], true).await.map(drop)
    }

    /// Reads what changed, `tables` in any case. Plans are forgotten when a definition changed.
    pub(crate) async fn reload(&self, tables: &[String], all: bool) -> Result<BTreeSet<String>> {
        *lock(&self.last_reload) = Instant::now();
        let load = async {
            let mut place = self.reads.get(&[]).await?;
            self.schema.load(place.get_mut()?, tables, all).await
        };
        match load.await {
            Ok(different) => {
                if !different.is_empty() {
                    self.plans.clear();
                }
                Ok(different)
            }
            Err(error) => {
                self.stats.internal_errors.inc(&["Schema"]);
                Err(bare(error).wrap("schema reload"))
            }
        }
    }

    /// Replaces the query rules of one source ([`super::rules::BLACKLIST_RULES`] …).
    pub fn set_query_rules(&self, source: &str, rules: Rules) {
        lock(&self.rules).set(source, rules);
        self.plans.clear();
    }

    pub(crate) fn with_rules<T>(&self, read: impl FnOnce(&RuleSources) -> T) -> T {
        read(&lock(&self.rules))
    }

    /// Replaces the table ACL.
    pub fn set_table_acl(&self, acl: TableAcl) {
        self.acl.store(Arc::new(acl));
        self.plans.clear();
    }

    pub(crate) fn acl(&self) -> Arc<TableAcl> {
        self.acl.load_full()
    }

    /// How error texts are cut.
    pub(crate) fn error_style(&self) -> ErrorStyle {
        ErrorStyle { terse: self.config.terse_errors, max_sql: self.config.sql_max_length_errors }
    }

    /// Tells every subscriber of StreamHealth how the tablet is. `reparented_timestamp`: start of the
    /// master's term, unix seconds, 0 for other types. `max_cache`: how long new subscribers are sent it.
    pub fn broadcast_health(
        &self,
        alias: TabletAlias,
        reparented_timestamp: i64,
        mut stats: RealtimeStats,
        max_cache: Duration,
    ) {
        let current = self.gate.current();
        stats.qps = self.stats.qps();
        self.health.broadcast(
            StreamHealthResponse {
                target: Some(current.target.clone()),
                serving: self.is_serving(),
                tablet_externally_reparented_timestamp: reparented_timestamp,
                realtime_stats: Some(stats),
                tablet_alias: Some(alias),
            },
            max_cache,
        );
    }
}

/// An error of the tablet's own work, told without statement and values.
pub(crate) fn bare(error: ExecError) -> VtError {
    match error {
        ExecError::Vt(error) => error,
        ExecError::Mysql { error, code, .. } => VtError::new(code, error.to_string()),
    }
}

/// What has to be done from time to time. Ends with the service.
async fn chores(core: Weak<Core>) {
    let Some(first) = core.upgrade() else { return };
    // A tenth of the transaction timeout is how late a transaction may be killed.
    let period = match first.config.transaction_timeout {
        Duration::ZERO => Duration::from_secs(1),
        timeout => (timeout / 10).clamp(Duration::from_millis(10), Duration::from_secs(1)),
    };
    drop(first);
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last_slow = Instant::now();
    loop {
        tick.tick().await;
        let Some(core) = core.upgrade() else { return };
        let server = TabletServer { core };
        for slot in server.tx.kill_outdated().await {
            server.live.kill(&slot, KillReason::Transaction);
        }
        if last_slow.elapsed() < Duration::from_secs(1) {
            continue;
        }
        last_slow = Instant::now();
        for pool in [&server.reads, &server.streams, &server.tx_reads, &server.tx.pool, &server.tx.found_rows_pool] {
            pool.close_idle();
        }
        let every = server.config.schema_reload_time;
        if server.is_serving()
            && !every.is_zero()
            && lock(&server.last_reload).elapsed() >= every
            && let Err(error) = server.reload(&[], false).await
        {
            tracing::warn!("{error}");
        }
        server.watch_prepared().await;
    }
}
