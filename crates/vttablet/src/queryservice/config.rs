//! What the query service is started with: one plain struct, one field a flag.
//!
//! Durations that Vitess's flags give in float seconds are [`Duration`]s here; whoever reads the flags
//! converts them. Defaults are those of Vitess v5.0.1.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use mysql::ConnectParams;

use super::hot_rows::HotRowLimits;
use super::tx_limiter::TxLimit;

/// How the query log and the transaction log print an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Tab-separated fields.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything the query service can be told from outside.
#[derive(Debug, Clone)]
pub struct QueryServiceConfig {
    /// How user queries reach mysqld: user app, starting in the tablet's database.
    pub app: ConnectParams,
    /// How connections are killed and a missing database is made: user dba, no database needed.
    pub dba: ConnectParams,
    /// Callers whose immediate name is this user's get a connection of this user, outside the pools.
    pub appdebug: Option<ConnectParams>,
    /// How filtered replication writes; kept here so that all users of one mysqld stand together.
    pub filtered: Option<ConnectParams>,
    /// The tablet's alias as text, `zone1-0000000100`; for log lines and link texts.
    pub alias: String,
    /// The number in the alias, which heartbeats carry.
    pub uid: u32,

    /// `-queryserver-config-pool-size`: connections for reads.
    pub pool_size: usize,
    /// `-queryserver-config-stream-pool-size`: connections for streaming reads.
    pub stream_pool_size: usize,
    /// `-queryserver-config-transaction-cap`: transactions open at once, and connections for them.
    pub transaction_cap: usize,
    /// `-client-found-rows-pool-size`: connections for transactions whose client wants matched rows counted.
    pub found_rows_pool_size: usize,
    /// `-queryserver-config-idle-timeout`: idle connections older than this are closed; zero keeps them.
    pub idle_timeout: Duration,
    /// `-queryserver-config-query-pool-timeout`: longest wait for a read connection; zero waits as long
    /// as the query itself may run.
    pub query_pool_timeout: Duration,
    /// `-queryserver-config-txpool-timeout`: longest wait for a transaction connection.
    pub tx_pool_timeout: Duration,
    /// `-queryserver-config-query-pool-waiter-cap`: callers that may wait for a read connection.
    pub query_pool_waiter_cap: usize,
    /// `-queryserver-config-txpool-waiter-cap`: callers that may wait for a transaction connection.
    pub tx_pool_waiter_cap: usize,
    /// `-queryserver-config-pool-prefill-parallelism`: the connections for reads are made before serving, so many at
    /// a time; zero makes each when it is first needed. Likewise the next two, for their pools.
    pub pool_prefill: usize,
    /// `-queryserver-config-stream-pool-prefill-parallelism`.
    pub stream_pool_prefill: usize,
    /// `-queryserver-config-transaction-prefill-parallelism`.
    pub transaction_prefill: usize,
    /// `-pool-name-prefix`: put in front of the pools' names in metrics.
    pub pool_name_prefix: String,

    /// `-queryserver-config-query-timeout`: a statement running longer is killed; zero lets it run.
    pub query_timeout: Duration,
    /// `-queryserver-config-transaction-timeout`: a transaction open longer is rolled back; zero never.
    pub transaction_timeout: Duration,
    /// `-transaction_shutdown_grace_period`: how long open transactions may go on when serving stops;
    /// zero lets them run into their own timeout.
    pub transaction_shutdown_grace_period: Duration,

    /// `-queryserver-config-max-result-size`: most rows of a result that is not streamed.
    pub max_result_size: usize,
    /// `-queryserver-config-warn-result-size`: results with more rows are counted and logged; zero never.
    pub warn_result_size: usize,
    /// `-queryserver-config-max-dml-rows`: shown as a variable; DML is passed through as written, so
    /// there is no list of keys to split (docs/decisions/0002-dml-passthrough.md).
    pub max_dml_rows: usize,
    /// `-queryserver-config-passthrough-dmls`: DML on tables that the schema does not know is passed on
    /// instead of refused.
    pub passthrough_dmls: bool,
    /// `-queryserver-config-stream-buffer-size`: bytes of rows a streamed message holds.
    pub stream_buffer_size: usize,
    /// `-queryserver-config-query-cache-size`: plans kept.
    pub query_cache_size: usize,
    /// Most bytes of statement text that the plans kept may hold together.
    pub query_cache_bytes: usize,
    /// `-queryserver-config-schema-reload-time`: how often the schema is read anew; zero never.
    pub schema_reload_time: Duration,
    /// `-enable-consolidator`: identical reads that run at the same time share one execution.
    pub enable_consolidator: bool,
    /// `-enforce_strict_trans_tables`: refuse to serve from a mysqld without a strict `sql_mode`.
    pub enforce_strict_trans_tables: bool,

    /// `-queryserver-config-strict-table-acl`: refuse what the table ACL does not allow.
    pub strict_table_acl: bool,
    /// `-queryserver-config-enable-table-acl-dry-run`: only count what strict mode would refuse.
    pub table_acl_dry_run: bool,
    /// `-queryserver-config-acl-exempt-acl`: users whom no table ACL binds.
    pub acl_exempt: BTreeSet<String>,
    /// `-queryserver-config-terse-errors`: leave mysqld's message and the values out of error texts.
    pub terse_errors: bool,
    /// `-sql-max-length-errors`: longest statement text inside an error, bytes; zero is unlimited.
    pub sql_max_length_errors: usize,
    /// `-sql-max-length-ui`: longest statement text on a page, bytes; zero is unlimited.
    pub sql_max_length_ui: usize,
    /// `-redact-debug-ui-queries`: pages and logs show statements without values.
    pub redact_debug_ui_queries: bool,

    /// `-log_queries_to_file`: append every query to this file.
    pub log_queries_to_file: Option<PathBuf>,
    /// `-log_queries`: every query goes to the process log too.
    pub log_queries: bool,
    /// `-querylog-format`.
    pub querylog_format: LogFormat,
    /// `-querylog-filter-tag`: only statements that contain this text are logged; empty logs all.
    pub querylog_filter_tag: String,
    /// `-query-log-stream-handler`: URL path of the query log.
    pub query_log_path: String,
    /// `-transaction-log-stream-handler`: URL path of the transaction log.
    pub tx_log_path: String,

    /// `-enable_transaction_limit` and the flags with it.
    pub tx_limit: TxLimit,
    /// `-enable_hot_row_protection` and the flags with it.
    pub hot_rows: HotRowLimits,
    /// `-heartbeat_enable`: lag is measured by rows that the master writes.
    pub heartbeat_enable: bool,
    /// `-heartbeat_interval`: how often it writes one, and how often replicas look.
    pub heartbeat_interval: Duration,

    /// `-twopc_enable`: keep prepared transactions in `_vt`.
    pub twopc_enable: bool,
    /// `-twopc_abandon_age`: a distributed transaction older than this is resolved by its coordinator.
    pub twopc_abandon_age: Duration,
    /// `-twopc_coordinator_address`: gRPC address of the vtgate that resolves abandoned transactions.
    pub twopc_coordinator_address: String,
}

impl Default for QueryServiceConfig {
    fn default() -> Self {
        Self {
            app: ConnectParams::default(),
            dba: ConnectParams::default(),
            appdebug: None,
            filtered: None,
            alias: String::new(),
            uid: 0,
            pool_size: 16,
            stream_pool_size: 200,
            transaction_cap: 20,
            found_rows_pool_size: 20,
            idle_timeout: Duration::from_secs(1800),
            query_pool_timeout: Duration::ZERO,
            tx_pool_timeout: Duration::from_secs(1),
            query_pool_waiter_cap: 50_000,
            tx_pool_waiter_cap: 50_000,
            pool_prefill: 0,
            stream_pool_prefill: 0,
            transaction_prefill: 0,
            pool_name_prefix: String::new(),
            query_timeout: Duration::from_secs(30),
            transaction_timeout: Duration::from_secs(30),
            transaction_shutdown_grace_period: Duration::ZERO,
            max_result_size: 10_000,
            warn_result_size: 0,
            max_dml_rows: 500,
            passthrough_dmls: false,
            stream_buffer_size: 32 * 1024,
            query_cache_size: 5_000,
            query_cache_bytes: 32 << 20,
            schema_reload_time: Duration::from_secs(1800),
            enable_consolidator: true,
            enforce_strict_trans_tables: true,
            strict_table_acl: false,
            table_acl_dry_run: false,
            acl_exempt: BTreeSet::new(),
            terse_errors: false,
            sql_max_length_errors: 0,
            sql_max_length_ui: 512,
            redact_debug_ui_queries: false,
            log_queries_to_file: None,
            log_queries: false,
            querylog_format: LogFormat::Text,
            querylog_filter_tag: String::new(),
            query_log_path: "/debug/querylog".into(),
            tx_log_path: "/debug/txlog".into(),
            tx_limit: TxLimit::default(),
            hot_rows: HotRowLimits::default(),
            heartbeat_enable: false,
            heartbeat_interval: Duration::from_secs(1),
            twopc_enable: false,
            twopc_abandon_age: Duration::ZERO,
            twopc_coordinator_address: String::new(),
        }
    }
}
