//! The settings of a vtgate, read from its flags and checked before anything listens.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use servenv::{Env, Parsed};
use tabletclient::{
    HealthCheckOptions, TabletFilter, WatcherOptions,
    buffer::BufferOptions,
    grpc::{DialOptions, StaticCreds, TlsOptions},
    replication_lag::LagOptions,
};
use topo::{EtcdTls, TopoOptions, srv_cache::SrvCacheOptions};
use vtproto::{topodata::TabletType, vtgate::TransactionMode};

use crate::cutover::CutoverOptions;
use crate::query_log::{Format, QueryLogOptions};

/// Where MySQL clients connect, and how.
#[derive(Debug, Clone)]
pub struct MysqlConfig {
    /// Port to listen on; none means no TCP. 0 takes a free one.
    pub port: Option<u16>,
    pub bind_address: String,
    pub socket: Option<PathBuf>,
    pub server_version: String,
    pub auth_implementation: String,
    pub auth_file: String,
    pub auth_string: String,
    /// How often the file of users is read again; none means at SIGHUP only.
    pub auth_reload: Option<Duration>,
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
    pub tls_ca: PathBuf,
    pub require_tls: bool,
    pub read_timeout: Option<Duration>,
    pub write_timeout: Option<Duration>,
    pub slow_connect_warn: Option<Duration>,
    /// Connections open at once; 0 is what open files allow.
    pub max_connections: usize,
}

impl MysqlConfig {
    /// Whether any listener is wanted.
    pub fn is_wanted(&self) -> bool {
        self.port.is_some() || self.socket.is_some()
    }
}

/// All settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// `-cell`
    pub cell: String,
    /// `-cells_to_watch`; our own when empty.
    pub cells_to_watch: Vec<String>,
    pub tablet_types_to_wait: Vec<TabletType>,
    /// Types that statements may go to; empty means all.
    pub allowed_tablet_types: Vec<TabletType>,
    pub initial_tablet_timeout: Duration,
    pub mysql: MysqlConfig,
    pub dial: DialOptions,
    /// Over the framed transport to tablets that speak it (`-framed_transport`).
    pub framed: bool,
    pub health: HealthCheckOptions,
    pub watcher: WatcherOptions,
    pub buffer: BufferOptions,
    pub cutover: CutoverOptions,
    pub srv_cache: SrvCacheOptions,
    pub retry_count: usize,
    pub max_calls_per_tablet: usize,
    pub transaction_mode: TransactionMode,
    pub default_tablet_type: TabletType,
    pub normalize: bool,
    pub plan_cache_entries: usize,
    pub max_memory_rows: usize,
    pub warn_memory_rows: usize,
    pub stream_buffer_size: usize,
    pub terse_errors: bool,
    pub vschema_ddl_users: Vec<String>,
    pub kill_users: Vec<String>,
    pub use_effective_caller_id: bool,
    pub query_timeout: Option<Duration>,
    pub query_log: QueryLogOptions,
    pub query_log_file: Option<PathBuf>,
    /// Our HTTP port, for the text of errors.
    pub http_port: i64,
    /// Our gRPC port, by which the topology knows us; 0 when gRPC is not served.
    pub grpc_port: i64,
    /// Longest wait for running statements at a stop (`-onterm_timeout`).
    pub onterm_timeout: Duration,
    /// Longest statement on debug pages, in bytes; 0 is all of it.
    pub sql_max_length_ui: usize,
}

fn positive(flags: &Parsed, name: &str) -> Option<Duration> {
    Some(flags.duration(name)).filter(|duration| !duration.is_zero())
}

fn path(flags: &Parsed, name: &str) -> Option<PathBuf> {
    Some(flags.str(name)).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A list of users.
fn users(flags: &Parsed, name: &str) -> Vec<String> {
    flags.list(name).iter().map(|user| user.trim().to_owned()).filter(|user| !user.is_empty()).collect()
}

fn count(flags: &Parsed, name: &str) -> Result<usize> {
    usize::try_from(flags.int(name)).with_context(|| format!("-{name} must not be negative"))
}

fn tablet_type(name: &str) -> Result<TabletType> {
    topo::topoproto::parse_tablet_type(name).map_err(Into::into)
}

impl Config {
    /// Reads the flags.
    ///
    /// # Errors
    /// A value that cannot be meant, naming its flag.
    pub fn from_env(env: &Env) -> Result<Self> {
        let flags = env.flags();
        let cell = flags.str("cell").to_string();
        if cell.is_empty() {
            bail!("cell flag must be set");
        }
        if flags.str("gateway_implementation") != "discoverygateway" {
            bail!(
                "-gateway_implementation: only discoverygateway is built, not {:?}",
                flags.str("gateway_implementation")
            );
        }
        if flags.bool("proxy_protocol") {
            bail!("-proxy_protocol is not built: connections would be refused or misread");
        }
        let mut cells_to_watch = flags.list("cells_to_watch");
        cells_to_watch.retain(|cell| !cell.is_empty());
        if cells_to_watch.is_empty() {
            cells_to_watch.push(cell.clone());
        }
        let types = |flag: &str| -> Result<Vec<TabletType>> {
            let names = flags.list(flag);
            let names = names.iter().filter(|name| !name.is_empty());
            names.map(|name| tablet_type(name)).collect::<Result<_>>().with_context(|| format!("-{flag}"))
        };
        let tablet_types_to_wait = types("tablet_types_to_wait")?;
        let allowed_tablet_types = types("allowed_tablet_types")?;
        let mode = flags.str("transaction_mode");
        let transaction_mode = match mode.to_ascii_uppercase().as_str() {
            "SINGLE" => TransactionMode::Single,
            "MULTI" => TransactionMode::Multi,
            "TWOPC" => TransactionMode::Twopc,
            _ => bail!("-transaction_mode: {mode:?} is none of SINGLE, MULTI and TWOPC"),
        };
        let default_tablet_type = match flags.str("default_tablet_type") {
            "" => TabletType::Master,
            name => tablet_type(name).context("-default_tablet_type")?,
        };
        let format = match flags.str("querylog-format") {
            "text" => Format::Text,
            "json" => Format::Json,
            other => bail!("-querylog-format: {other:?} is neither text nor json"),
        };
        Ok(Self {
            cells_to_watch,
            tablet_types_to_wait,
            allowed_tablet_types,
            initial_tablet_timeout: flags.duration("gateway_initial_tablet_timeout"),
            mysql: mysql_config(flags)?,
            dial: dial_options(flags)?,
            framed: flags.bool("framed_transport"),
            health: HealthCheckOptions {
                retry_delay: flags.duration("healthcheck_retry_delay"),
                timeout: flags.duration("healthcheck_timeout"),
                lag: LagOptions {
                    low: flags.duration("discovery_low_replication_lag"),
                    high_minimum_serving: flags.duration("discovery_high_replication_lag_minimum_serving"),
                    min_tablets: count(flags, "min_number_serving_vttablets")?,
                    legacy: flags.bool("legacy_replication_lag_algorithm"),
                },
            },
            watcher: WatcherOptions {
                refresh_interval: flags.duration("tablet_refresh_interval"),
                refresh_known: flags.bool("tablet_refresh_known_tablets"),
                read_concurrency: count(flags, "topo_read_concurrency")?,
                filter: tablet_filter(flags)?,
            },
            buffer: buffer_options(flags)?,
            cutover: CutoverOptions {
                window: flags.duration("cutover_buffer_window"),
                size: count(flags, "cutover_buffer_size")?,
                bytes: count(flags, "cutover_buffer_bytes")?,
            },
            srv_cache: SrvCacheOptions {
                ttl: flags.duration("srv_topo_cache_ttl"),
                refresh: flags.duration("srv_topo_cache_refresh"),
            },
            retry_count: count(flags, "retry-count")?,
            max_calls_per_tablet: count(flags, "max_calls_per_tablet")?,
            transaction_mode,
            default_tablet_type,
            normalize: flags.bool("normalize_queries"),
            plan_cache_entries: count(flags, "gate_query_cache_size")?,
            max_memory_rows: count(flags, "max_memory_rows")?,
            warn_memory_rows: count(flags, "warn_memory_rows")?,
            stream_buffer_size: count(flags, "stream_buffer_size")?,
            terse_errors: flags.bool("vtgate-config-terse-errors"),
            vschema_ddl_users: users(flags, "vschema_ddl_authorized_users"),
            // Without logins a name says nothing: everybody could take the owner's.
            kill_users: match flags.str("mysql_auth_server_impl") {
                "none" => vec!["%".to_owned()],
                _ => users(flags, "kill_authorized_users"),
            },
            use_effective_caller_id: flags.bool("grpc_use_effective_callerid"),
            query_timeout: positive(flags, "mysql_server_query_timeout"),
            query_log: QueryLogOptions {
                format,
                redact: flags.bool("redact-debug-ui-queries"),
                filter_tag: flags.str("querylog-filter-tag").to_string(),
            },
            query_log_file: path(flags, "log_queries_to_file"),
            http_port: flags.int("port"),
            grpc_port: flags.int("grpc_port"),
            onterm_timeout: flags.duration("onterm_timeout"),
            sql_max_length_ui: count(flags, "sql-max-length-ui")?,
            cell,
        })
    }
}

fn mysql_config(flags: &Parsed) -> Result<MysqlConfig> {
    let port = match flags.int("mysql_server_port") {
        negative if negative < 0 => None,
        port => Some(u16::try_from(port).context("-mysql_server_port: not a port")?),
    };
    let bind_address = match (flags.str("mysql_server_bind_address"), flags.str("mysql_tcp_version")) {
        ("", "tcp") => "[::]".to_string(),
        ("", "tcp4") => "0.0.0.0".to_string(),
        ("", "tcp6") => "[::]".to_string(),
        ("", other) => bail!("-mysql_tcp_version: {other:?} is none of tcp, tcp4 and tcp6"),
        (address, _) if address.contains(':') && !address.starts_with('[') => format!("[{address}]"),
        (address, _) => address.to_string(),
    };
    Ok(MysqlConfig {
        port,
        bind_address,
        socket: path(flags, "mysql_server_socket_path"),
        server_version: flags.str("mysql_server_version").to_string(),
        auth_implementation: flags.str("mysql_auth_server_impl").to_string(),
        auth_file: flags.str("mysql_auth_server_static_file").to_string(),
        auth_string: flags.str("mysql_auth_server_static_string").to_string(),
        auth_reload: positive(flags, "mysql_auth_static_reload_interval"),
        tls_cert: flags.str("mysql_server_ssl_cert").into(),
        tls_key: flags.str("mysql_server_ssl_key").into(),
        tls_ca: flags.str("mysql_server_ssl_ca").into(),
        require_tls: flags.bool("mysql_server_require_secure_transport"),
        read_timeout: positive(flags, "mysql_server_read_timeout"),
        write_timeout: positive(flags, "mysql_server_write_timeout"),
        slow_connect_warn: positive(flags, "mysql_slow_connect_warn_threshold"),
        max_connections: count(flags, "mysql_server_max_connections")?,
    })
}

fn dial_options(flags: &Parsed) -> Result<DialOptions> {
    if flags.str("tablet_protocol") != "grpc" {
        bail!("-tablet_protocol: only grpc is built, not {:?}", flags.str("tablet_protocol"));
    }
    let defaults = DialOptions::default();
    let window = |name: &str, default: u32| match flags.int(name) {
        given if given > 0 => u32::try_from(given).with_context(|| format!("-{name} is too large")),
        _ => Ok(default),
    };
    let name = flags.str("tablet_grpc_server_name");
    let tls = TlsOptions {
        ca: path(flags, "tablet_grpc_ca"),
        cert: path(flags, "tablet_grpc_cert"),
        key: path(flags, "tablet_grpc_key"),
        server_name: (!name.is_empty()).then(|| name.to_string()),
    };
    let creds = match flags.str("grpc_auth_static_client_creds") {
        "" => None,
        file => Some(read_creds(file).with_context(|| format!("-grpc_auth_static_client_creds {file}"))?),
    };
    Ok(DialOptions {
        max_message_size: flags.size("grpc_max_message_size"),
        stream_window: window("grpc_initial_window_size", defaults.stream_window)?,
        connection_window: window("grpc_initial_conn_window_size", defaults.connection_window)?,
        keepalive_time: positive(flags, "grpc_keepalive_time"),
        keepalive_timeout: positive(flags, "grpc_keepalive_timeout").unwrap_or(defaults.keepalive_timeout),
        tls: tls.is_set().then_some(tls),
        creds,
        ..defaults
    })
}

fn read_creds(file: &str) -> Result<StaticCreds> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        username: String,
        password: String,
    }
    let entry: Entry = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    Ok(StaticCreds { username: entry.username, password: entry.password })
}

fn tablet_filter(flags: &Parsed) -> Result<TabletFilter> {
    let mut filters = flags.list("tablet_filters");
    filters.retain(|filter| !filter.is_empty());
    let keyspaces: BTreeSet<String> =
        flags.list("keyspaces_to_watch").into_iter().filter(|keyspace| !keyspace.is_empty()).collect();
    match (filters.is_empty(), keyspaces.is_empty()) {
        (true, true) => Ok(TabletFilter::All),
        (true, false) => Ok(TabletFilter::Keyspaces(keyspaces)),
        (false, true) => Ok(TabletFilter::parse(&filters)?),
        (false, false) => bail!("only one of -keyspaces_to_watch and -tablet_filters may be specified at a time"),
    }
}

fn buffer_options(flags: &Parsed) -> Result<BufferOptions> {
    let options = BufferOptions {
        enabled: flags.bool("enable_buffer"),
        dry_run: flags.bool("enable_buffer_dry_run"),
        window: flags.duration("buffer_window"),
        size: count(flags, "buffer_size")?,
        max_failover_duration: flags.duration("buffer_max_failover_duration"),
        min_time_between_failovers: flags.duration("buffer_min_time_between_failovers"),
        drain_concurrency: count(flags, "buffer_drain_concurrency")?,
        keyspace_shards: flags.list("buffer_keyspace_shards").into_iter().filter(|name| !name.is_empty()).collect(),
    };
    if options.enabled && options.dry_run {
        bail!("both -enable_buffer and -enable_buffer_dry_run are set; only one may be");
    }
    if options.window > options.max_failover_duration {
        bail!("-buffer_window must not be longer than -buffer_max_failover_duration");
    }
    if options.size == 0 || options.drain_concurrency == 0 {
        bail!("-buffer_size and -buffer_drain_concurrency must be at least 1");
    }
    Ok(options)
}

/// Opens the topology that the flags name.
///
/// # Errors
/// The flags are wrong, or the server does not answer.
pub async fn open_topo(env: &Env) -> Result<topo::TopoServer> {
    let flags = env.flags();
    let [cert, key, ca] = ["topo_etcd_tls_cert", "topo_etcd_tls_key", "topo_etcd_tls_ca"].map(|name| flags.str(name));
    let etcd_tls = EtcdTls::from_flags(cert, key, ca)?;
    let options = TopoOptions {
        remote_operation_timeout: flags.duration("remote_operation_timeout"),
        etcd_lease_ttl_seconds: flags.int("topo_etcd_lease_ttl"),
        etcd_tls,
        observer: Some(Arc::new(env.stats().topology_calls())),
        ..TopoOptions::default()
    };
    Ok(topo::TopoServer::open(
        flags.str("topo_implementation"),
        flags.str("topo_global_server_address"),
        flags.str("topo_global_root"),
        options,
    )
    .await?)
}
