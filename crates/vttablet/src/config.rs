//! From flags to what the parts of a vttablet are started with. Everything that can be wrong is said here, before a port
//! is bound or a record written.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use mysql::client::ConnectParams;
use mysqlctl::{
    logins::LoginFlags,
    tablet::{data_root, tablet_dir},
};
use servenv::Parsed;
use tabletclient::{
    HealthCheckOptions, WatchOptions, WatcherOptions,
    grpc::{DialOptions, StaticCreds, TlsOptions},
};
use topo::{EtcdTls, TopoOptions, topoproto};
use vreplication::target::EngineConfig;
use vtproto::topodata::{Tablet, TabletType};

use crate::{
    queryservice::{HotRowLimits, LogFormat, QueryServiceConfig, TxLimit, UserParts},
    replica_lag::TxThrottlerConfig,
    tabletmanager::{InitTarget, Logins, ManagerConfig, OrchestratorConfig, RestoreConfig},
};

/// A flag, or a combination of flags, that makes no sense. The text names it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Flag(String),
    #[error(transparent)]
    Mysql(#[from] mysqlctl::Error),
}

fn flag(text: impl Into<String>) -> ConfigError {
    ConfigError::Flag(text.into())
}

/// Everything a vttablet is started with.
#[derive(Debug, Clone)]
pub struct TabletConfig {
    pub manager: ManagerConfig,
    /// The database is not known before the record is: [`TabletConfig::query_service`] puts it in.
    query: QueryServiceConfig,
    /// Likewise: [`TabletConfig::vreplication`].
    vreplication: EngineConfig,
    pub logins: Logins,
    pub topo: TopoConfig,
    /// The name under which others reach this process.
    pub hostname: String,
    /// The name under which others reach mysqld.
    pub mysql_hostname: String,
    /// `-port` and `-grpc_port`; 0 for none.
    pub http_port: u16,
    pub grpc_port: u16,
    /// `-filecustomrules`.
    pub rules_file: Option<PathBuf>,
    /// `-topocustomrule_path`, with its cell.
    pub topo_rules: Option<(String, String)>,
    /// `-table-acl-config`.
    pub table_acl: Option<PathBuf>,
    /// `-enforce-tableacl-config`: no table ACL, no start.
    pub enforce_table_acl: bool,
    /// `-enable-tx-throttler`.
    pub tx_throttler: Option<TxThrottlerConfig>,
}

/// Which topology server, and how.
#[derive(Debug, Clone)]
pub struct TopoConfig {
    pub implementation: String,
    pub address: String,
    pub root: String,
    pub options: TopoOptions,
}

impl TabletConfig {
    /// Reads and checks the flags of vttablet. Reads `my.cnf` and the credentials file too.
    pub fn from_flags(flags: &Parsed) -> Result<Self, ConfigError> {
        let alias_text = flags.str("tablet-path");
        if alias_text.is_empty() {
            return Err(flag("-tablet-path required"));
        }
        let alias = topoproto::parse_tablet_alias(alias_text)
            .map_err(|error| flag(format!("failed to parse -tablet-path: {error}")))?;
        let login = LoginFlags::new(flags)?;
        let root = data_root();
        let dir = tablet_dir(&root, flags.str("tablet_dir"), alias.uid);
        let unmanaged = login.is_unmanaged();
        let socket = if unmanaged { None } else { Some(managed_socket(flags, &dir.my_cnf())?) };
        let params = |user: &str| login.params(user, socket.as_deref());
        let (app, dba) = (params("app")?, params("dba")?);
        let hostname = match flags.str("tablet_hostname") {
            "" => servenv::hostname::fully_qualified(),
            given => given.to_owned(),
        };
        let mysql_hostname = match app.host.as_str() {
            // By socket it is this machine; so it is when the flag says localhost.
            "" | "localhost" | "127.0.0.1" => hostname.clone(),
            host => host.to_owned(),
        };
        let (replication_user, replication_password) = login.name_and_password("repl");
        let logins = Logins {
            dba: dba.clone(),
            app: app.clone(),
            allprivs: params("allprivs")?,
            replication_user,
            replication_password,
            replication_ssl: !flags.str("db_ssl_ca").is_empty() && flags.bool("db_repl_use_ssl"),
            connect_retry: flags.duration("master_connect_retry"),
            dba_limit: flags.size("dba_pool_size"),
            app_limit: flags.size("app_pool_size"),
        };
        let restore = restore(flags, unmanaged)?;
        let manager = ManagerConfig {
            init: init_target(flags)?,
            init_db_name_override: flags.str("init_db_name_override").to_owned(),
            init_tags: tags(flags.str("init_tags"))?,
            init_timeout: flags.duration("init_timeout"),
            init_populate_metadata: flags.bool("init_populate_metadata"),
            health_check_interval: flags.duration("health_check_interval"),
            degraded_threshold: flags.duration("degraded_threshold"),
            unhealthy_threshold: flags.duration("unhealthy_threshold"),
            serving_state_grace_period: flags.duration("serving_state_grace_period"),
            enable_semi_sync: flags.bool("enable_semi_sync"),
            enable_replication_reporter: flags.bool("enable_replication_reporter"),
            use_super_read_only: flags.bool("use_super_read_only"),
            demote_master_type: demote_type(flags.str("demote_master_type"))?,
            disable_active_reparents: flags.bool("disable_active_reparents"),
            lock_tables_timeout: flags.duration("lock_tables_timeout"),
            shard_sync_retry_delay: flags.duration("shard_sync_retry_delay"),
            restore,
            tablet_dir: (!unmanaged).then(|| dir.path().to_owned()),
            vtctld_addr: flags.str("vtctld_addr").to_owned(),
            orchestrator: orchestrator(flags)?,
            watch_replication: flags.bool("watch_replication_stream").then(|| dba.clone()),
            remote_operation_timeout: flags.duration("remote_operation_timeout"),
            alias,
        };
        if manager.health_check_interval.is_zero() {
            return Err(flag("-health_check_interval has to be longer than 0"));
        }
        refuse_unbuilt(flags)?;
        let mut query = query_service(flags)?;
        query.uid = manager.alias.uid;
        query.alias = topoproto::tablet_alias_string(Some(&manager.alias));
        (query.app, query.dba) = (app, dba);
        (query.appdebug, query.filtered) = (Some(params("appdebug")?), Some(params("filtered")?));
        let path = |name: &str| Some(flags.str(name)).filter(|path| !path.is_empty()).map(PathBuf::from);
        let vreplication = vreplication(flags, &manager.alias.cell, params("filtered")?)?;
        let tx_throttler = tx_throttler(flags, &manager.alias.cell)?;
        Ok(Self {
            manager,
            query,
            vreplication,
            logins,
            topo: topo_config(flags)?,
            hostname,
            mysql_hostname,
            http_port: port(flags, "port")?,
            grpc_port: port(flags, "grpc_port")?,
            rules_file: path("filecustomrules"),
            topo_rules: match flags.str("topocustomrule_path") {
                "" => None,
                path => Some((flags.str("topocustomrule_cell").to_owned(), path.to_owned())),
            },
            table_acl: path("table-acl-config"),
            enforce_table_acl: flags.bool("enforce-tableacl-config"),
            tx_throttler,
        })
    }

    /// How the health of other tablets is asked for.
    pub fn health_dial(&self) -> &DialOptions {
        &self.vreplication.health_dial
    }

    /// The configuration of filtered replication for a tablet.
    pub fn vreplication(&self, tablet: &Tablet) -> EngineConfig {
        EngineConfig {
            keyspace: tablet.keyspace.clone(),
            shard: tablet.shard.clone(),
            db_name: topoproto::tablet_db_name(tablet),
            ..self.vreplication.clone()
        }
    }

    /// The configuration of the query service for a tablet with this database.
    pub fn query_service(&self, database: &str) -> QueryServiceConfig {
        let mut query = self.query.clone();
        let with_database = |params: ConnectParams| params.database(database);
        query.app = with_database(query.app);
        query.dba = with_database(query.dba);
        query.appdebug = query.appdebug.map(with_database);
        query.filtered = query.filtered.map(with_database);
        query
    }
}

/// Refuses values that name what is not built.
fn refuse_unbuilt(flags: &Parsed) -> Result<(), ConfigError> {
    for name in ["binlog_player_protocol", "tablet_manager_protocol"] {
        match flags.str(name) {
            "grpc" => {}
            other => return Err(flag(format!("-{name} {other}: only grpc is built"))),
        }
    }
    match flags.str("db_flavor") {
        "" => Ok(()),
        other => Err(flag(format!("-db_flavor {other} is not built: the flavour is read from the server's version"))),
    }
}

/// Filtered replication; what depends on the tablet is filled in later.
fn vreplication(flags: &Parsed, cell: &str, filtered: ConnectParams) -> Result<EngineConfig, ConfigError> {
    let types = flags.str("vreplication_tablet_type");
    Ok(EngineConfig {
        cell: cell.to_owned(),
        keyspace: String::new(),
        shard: String::new(),
        db_name: String::new(),
        filtered,
        tablet_types: topoproto::parse_tablet_types(types)
            .map_err(|error| flag(format!("-vreplication_tablet_type {types}: {error}")))?,
        retry_delay: flags.duration("vreplication_retry_delay"),
        topology_refresh: flags.duration("vreplication_healthcheck_topology_refresh"),
        health_retry_delay: flags.duration("vreplication_healthcheck_retry_delay"),
        health_timeout: flags.duration("vreplication_healthcheck_timeout"),
        health_dial: dial_options(flags, "tablet_grpc")?,
        stream_dial: dial_options(flags, "binlog_player_grpc")?,
    })
}

/// How other tablets are called, with the TLS flags of one prefix.
fn dial_options(flags: &Parsed, prefix: &str) -> Result<DialOptions, ConfigError> {
    let text = |suffix: &str| Some(flags.str(&format!("{prefix}_{suffix}"))).filter(|text| !text.is_empty());
    let tls = TlsOptions {
        ca: text("ca").map(PathBuf::from),
        cert: text("cert").map(PathBuf::from),
        key: text("key").map(PathBuf::from),
        server_name: text("server_name").map(str::to_owned),
    };
    let defaults = DialOptions::default();
    let window = |name: &str, default: u32| match flags.int(name) {
        given if given > 0 => u32::try_from(given).map_err(|_| flag(format!("-{name} is too large"))),
        _ => Ok(default),
    };
    let positive = |name: &str| Some(flags.duration(name)).filter(|duration| !duration.is_zero());
    Ok(DialOptions {
        channels: 1,
        stream_window: window("grpc_initial_window_size", defaults.stream_window)?,
        connection_window: window("grpc_initial_conn_window_size", defaults.connection_window)?,
        keepalive_time: positive("grpc_keepalive_time"),
        keepalive_timeout: positive("grpc_keepalive_timeout").unwrap_or(defaults.keepalive_timeout),
        max_message_size: flags.size("grpc_max_message_size"),
        tls: tls.is_set().then_some(tls),
        creds: StaticCreds::read(flags.str("grpc_auth_static_client_creds"))
            .map_err(|error| flag(error.message().to_owned()))?,
        ..defaults
    })
}

/// The socket of the mysqld that mysqlctl manages.
fn managed_socket(flags: &Parsed, default_file: &Path) -> Result<PathBuf, ConfigError> {
    // A server id says that the flags stand for the whole file.
    if flags.int("mycnf_server_id") != 0 {
        return match flags.str("mycnf_socket_file") {
            "" => Err(flag("-mycnf_server_id was given: then -mycnf_socket_file is needed too")),
            socket => Ok(PathBuf::from(socket)),
        };
    }
    let file = match flags.str("mycnf-file") {
        "" => default_file.to_owned(),
        path => PathBuf::from(path),
    };
    if !file.exists() {
        return Err(flag(format!(
            "{} does not exist: start mysqld with mysqlctl first, or name an unmanaged one with -db_socket or -db_host",
            file.display()
        )));
    }
    Ok(mysqlctl::config::MyCnf::read(&file)?.socket)
}

fn init_target(flags: &Parsed) -> Result<Option<InitTarget>, ConfigError> {
    let [keyspace, shard, tablet_type] =
        ["init_keyspace", "init_shard", "init_tablet_type"].map(|name| flags.str(name));
    match [keyspace, shard, tablet_type].iter().filter(|value| value.is_empty()).count() {
        3 => return Ok(None),
        0 => {}
        _ => return Err(flag("either need all of init_keyspace, init_shard and init_tablet_type, or none")),
    }
    let parsed = topoproto::parse_tablet_type(tablet_type)
        .map_err(|error| flag(format!("-init_tablet_type {tablet_type}: {error}")))?;
    if parsed == TabletType::Master {
        return Err(flag("init_tablet_type cannot be master, use replica instead"));
    }
    topo::validate_shard_name(shard).map_err(|error| flag(format!("-init_shard {shard}: {error}")))?;
    Ok(Some(InitTarget { keyspace: keyspace.to_owned(), shard: shard.to_owned(), tablet_type: parsed }))
}

fn orchestrator(flags: &Parsed) -> Result<Option<OrchestratorConfig>, ConfigError> {
    let url = flags.str("orc_api_url");
    if url.is_empty() {
        return Ok(None);
    }
    let (timeout, interval) = (flags.duration("orc_timeout"), flags.duration("orc_discover_interval"));
    OrchestratorConfig::new(url, flags.str("orc_api_user"), flags.str("orc_api_password"), timeout, interval)
        .map(Some)
        .map_err(|problem| flag(format!("-orc_api_url {problem}")))
}

fn demote_type(text: &str) -> Result<TabletType, ConfigError> {
    let parsed =
        topoproto::parse_tablet_type(text).map_err(|error| flag(format!("-demote_master_type {text}: {error}")))?;
    if parsed == TabletType::Master {
        return Err(flag("-demote_master_type cannot be master"));
    }
    Ok(parsed)
}

/// `key:value,key:value`
fn tags(text: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    text.split(',')
        .filter(|tag| !tag.is_empty())
        .map(|tag| match tag.split_once(':') {
            Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
            None => Err(flag(format!("-init_tags: {tag:?} is not key:value"))),
        })
        .collect()
}

fn restore(flags: &Parsed, unmanaged: bool) -> Result<Option<RestoreConfig>, ConfigError> {
    if !flags.bool("restore_from_backup") {
        return Ok(None);
    }
    if unmanaged {
        return Err(flag(
            "-restore_from_backup needs a mysqld that mysqlctl manages: it cannot go with -db_host or -db_socket",
        ));
    }
    match flags.str("backup_storage_implementation") {
        "file" => {}
        "" => return Err(flag("-restore_from_backup needs -backup_storage_implementation")),
        other => {
            return Err(flag(format!(
                "-backup_storage_implementation {other} is not built, only file: the tablet cannot restore from it"
            )));
        }
    }
    let root = flags.str("file_backup_storage_root");
    if root.is_empty() {
        return Err(flag("-backup_storage_implementation file needs -file_backup_storage_root"));
    }
    Ok(Some(RestoreConfig { root: PathBuf::from(root), wait_interval: flags.duration("wait_for_backup_interval") }))
}

fn port(flags: &Parsed, name: &str) -> Result<u16, ConfigError> {
    u16::try_from(flags.int(name)).map_err(|_| flag(format!("-{name} {} is not a TCP port", flags.int(name))))
}

fn topo_config(flags: &Parsed) -> Result<TopoConfig, ConfigError> {
    let [cert, key, ca] = ["topo_etcd_tls_cert", "topo_etcd_tls_key", "topo_etcd_tls_ca"].map(|name| flags.str(name));
    let etcd_tls = EtcdTls::from_flags(cert, key, ca).map_err(|error| flag(error.to_string()))?;
    Ok(TopoConfig {
        implementation: flags.str("topo_implementation").to_owned(),
        address: flags.str("topo_global_server_address").to_owned(),
        root: flags.str("topo_global_root").to_owned(),
        options: TopoOptions {
            remote_operation_timeout: flags.duration("remote_operation_timeout"),
            etcd_lease_ttl_seconds: flags.int("topo_etcd_lease_ttl"),
            etcd_tls,
            ..TopoOptions::default()
        },
    })
}

fn tx_limit(flags: &Parsed) -> Result<TxLimit, ConfigError> {
    let limit = TxLimit {
        enabled: flags.bool("enable_transaction_limit"),
        dry_run: flags.bool("enable_transaction_limit_dry_run"),
        per_user: flags.float("transaction_limit_per_user"),
        parts: UserParts {
            username: flags.bool("transaction_limit_by_username"),
            principal: flags.bool("transaction_limit_by_principal"),
            component: flags.bool("transaction_limit_by_component"),
            subcomponent: flags.bool("transaction_limit_by_subcomponent"),
        },
    };
    if !(0.0..=1.0).contains(&limit.per_user) {
        return Err(flag(format!("-transaction_limit_per_user {}: a share between 0 and 1", limit.per_user)));
    }
    Ok(limit)
}

/// `None` without `-enable-tx-throttler`; its settings are checked then, too, for who turns it on later.
fn tx_throttler(flags: &Parsed, cell: &str) -> Result<Option<TxThrottlerConfig>, ConfigError> {
    let wrong = |error: vterrors::VtError| flag(format!("-tx-throttler-config: {}", error.message()));
    let rate = throttler::config::parse_text(flags.str("tx-throttler-config")).map_err(wrong)?;
    throttler::config::verify(&rate).map_err(wrong)?;
    if !flags.bool("enable-tx-throttler") {
        return Ok(None);
    }
    let mut cells = flags.list("tx-throttler-healthcheck-cells");
    if cells.is_empty() {
        cells.push(cell.to_owned());
    }
    let watch = WatchOptions {
        health: HealthCheckOptions::default(),
        refresh_interval: WatcherOptions::default().refresh_interval,
        dial: dial_options(flags, "tablet_grpc")?,
    };
    Ok(Some(TxThrottlerConfig { rate, cells, watch }))
}

fn heartbeat_interval(flags: &Parsed) -> Result<std::time::Duration, ConfigError> {
    match flags.duration("heartbeat_interval") {
        interval if interval.is_zero() => Err(flag("-heartbeat_interval has to be longer than 0")),
        interval => Ok(interval),
    }
}

fn query_service(flags: &Parsed) -> Result<QueryServiceConfig, ConfigError> {
    let querylog_format = match flags.str("querylog-format") {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        other => return Err(flag(format!("-querylog-format {other}: text or json"))),
    };
    let exempt = flags.str("queryserver-config-acl-exempt-acl");
    let own = |name: &str| format!("queryserver-config-{name}");
    let size = |name: &str| flags.size(&own(name));
    let seconds = |name: &str| flags.seconds(&own(name));
    let switch = |name: &str| flags.bool(&own(name));
    let log_file = flags.str("log_queries_to_file");
    Ok(QueryServiceConfig {
        pool_size: size("pool-size"),
        stream_pool_size: size("stream-pool-size"),
        transaction_cap: size("transaction-cap"),
        found_rows_pool_size: flags.size("client-found-rows-pool-size"),
        idle_timeout: seconds("idle-timeout"),
        query_pool_timeout: seconds("query-pool-timeout"),
        tx_pool_timeout: seconds("txpool-timeout"),
        query_pool_waiter_cap: size("query-pool-waiter-cap"),
        tx_pool_waiter_cap: size("txpool-waiter-cap"),
        pool_prefill: size("pool-prefill-parallelism"),
        stream_pool_prefill: size("stream-pool-prefill-parallelism"),
        transaction_prefill: size("transaction-prefill-parallelism"),
        pool_name_prefix: flags.str("pool-name-prefix").to_owned(),
        query_timeout: seconds("query-timeout"),
        transaction_timeout: seconds("transaction-timeout"),
        transaction_shutdown_grace_period: flags.seconds("transaction_shutdown_grace_period"),
        max_result_size: size("max-result-size"),
        warn_result_size: size("warn-result-size"),
        max_dml_rows: size("max-dml-rows"),
        passthrough_dmls: switch("passthrough-dmls"),
        stream_buffer_size: size("stream-buffer-size"),
        query_cache_size: size("query-cache-size"),
        schema_reload_time: seconds("schema-reload-time"),
        enable_consolidator: flags.bool("enable-consolidator"),
        enforce_strict_trans_tables: flags.bool("enforce_strict_trans_tables"),
        strict_table_acl: switch("strict-table-acl"),
        table_acl_dry_run: switch("enable-table-acl-dry-run"),
        acl_exempt: exempt.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect::<BTreeSet<_>>(),
        terse_errors: switch("terse-errors"),
        sql_max_length_errors: flags.size("sql-max-length-errors"),
        sql_max_length_ui: flags.size("sql-max-length-ui"),
        redact_debug_ui_queries: flags.bool("redact-debug-ui-queries"),
        log_queries_to_file: (!log_file.is_empty()).then(|| PathBuf::from(log_file)),
        log_queries: flags.bool("log_queries"),
        querylog_format,
        querylog_filter_tag: flags.str("querylog-filter-tag").to_owned(),
        query_log_path: flags.str("query-log-stream-handler").to_owned(),
        tx_log_path: flags.str("transaction-log-stream-handler").to_owned(),
        tx_limit: tx_limit(flags)?,
        hot_rows: HotRowLimits {
            enabled: flags.bool("enable_hot_row_protection"),
            dry_run: flags.bool("enable_hot_row_protection_dry_run"),
            max_queue: flags.size("hot_row_protection_max_queue_size"),
            max_global_queue: flags.size("hot_row_protection_max_global_queue_size"),
            concurrent: flags.size("hot_row_protection_concurrent_transactions"),
        },
        heartbeat_enable: flags.bool("heartbeat_enable"),
        heartbeat_interval: heartbeat_interval(flags)?,
        twopc_enable: flags.bool("twopc_enable"),
        twopc_abandon_age: flags.seconds("twopc_abandon_age"),
        twopc_coordinator_address: flags.str("twopc_coordinator_address").to_owned(),
        ..QueryServiceConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use servenv::Program;

    const UNMANAGED: [&str; 4] = ["-tablet-path", "zone1-100", "-db_socket", "/tmp/s"];

    fn config(args: &[&str]) -> Result<TabletConfig, ConfigError> {
        let flags = Program::Vttablet.flag_set().parse(UNMANAGED.iter().chain(args)).unwrap();
        TabletConfig::from_flags(&flags)
    }

    fn error(args: &[&str]) -> String {
        config(args).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_those_of_v5() {
        let config = config(&[]).unwrap();
        let query = config.query_service("vt_commerce");
        let plain = QueryServiceConfig::default();
        assert_eq!(query.pool_size, plain.pool_size);
        assert_eq!(query.transaction_timeout, plain.transaction_timeout);
        assert_eq!(query.schema_reload_time, plain.schema_reload_time);
        assert_eq!(query.query_cache_size, plain.query_cache_size);
        assert_eq!((query.app.user.as_str(), query.app.db_name.as_str()), ("vt_app", "vt_commerce"));
        assert_eq!(query.alias, "zone1-0000000100");
        assert_eq!(config.manager.demote_master_type, TabletType::Replica);
    }

    #[test]
    fn an_empty_hostname_means_this_machine() {
        assert!(!config(&["-tablet_hostname", ""]).unwrap().hostname.is_empty());
        assert_eq!(config(&["-tablet_hostname", "db7"]).unwrap().hostname, "db7");
    }

    #[test]
    fn combinations_that_make_no_sense_are_refused_by_name() {
        let none = Program::Vttablet.flag_set().parse(Vec::<String>::new()).unwrap();
        assert_eq!(TabletConfig::from_flags(&none).unwrap_err().to_string(), "-tablet-path required");
        assert!(error(&["-init_keyspace", "commerce"]).starts_with("either need all of init_keyspace"));
        let master = ["-init_keyspace", "k", "-init_shard", "0", "-init_tablet_type", "master"];
        assert!(error(&master).contains("cannot be master"));
        assert!(error(&["-restore_from_backup"]).contains("-db_host"));
        assert!(error(&["-topo_etcd_tls_cert", "c"]).contains("must be given together"));
        assert!(error(&["-querylog-format", "xml"]).contains("text or json"));
        assert!(error(&["-init_tags", "a"]).contains("key:value"));
        assert!(error(&["-port", "70000"]).contains("not a TCP port"));
        assert!(error(&["-db_flavor", "FilePos"]).contains("read from the server's version"));
        assert!(error(&["-tablet_manager_protocol", "rest"]).contains("only grpc is built"));
    }

    #[test]
    fn a_missing_my_cnf_says_what_to_do() {
        let args = ["-tablet-path", "zone1-4294967295", "-tablet_dir", "no/such/directory"];
        let flags = Program::Vttablet.flag_set().parse(args).unwrap();
        let error = TabletConfig::from_flags(&flags).unwrap_err().to_string();
        assert!(error.contains("no/such/directory/my.cnf does not exist") && error.contains("mysqlctl"), "{error}");
    }
}
