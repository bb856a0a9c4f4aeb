//! Settings from the flags of a program that runs commands (vtctld, vtctl).

use std::path::PathBuf;
use std::sync::Arc;

use servenv::failpoint::Failpoints;
use servenv::flags::Parsed;
use servenv::grpc::ClientOptions;
use tabletclient::grpc::{DialOptions, StaticCreds, TlsOptions};
use tabletclient::tm::TabletManagerClient;
use topo::{EtcdTls, TopoOptions, TopoServer};

use crate::error::{Result, bail, err};
use crate::{BackupStorage, Config, Wrangler};

/// Connects to the topology of `-topo_implementation`, `-topo_global_server_address` and
/// `-topo_global_root`.
pub async fn open_topo(flags: &Parsed) -> Result<TopoServer> {
    let [cert, key, ca] = ["topo_etcd_tls_cert", "topo_etcd_tls_key", "topo_etcd_tls_ca"].map(|flag| flags.str(flag));
    let etcd_tls = EtcdTls::from_flags(cert, key, ca)?;
    let options = TopoOptions {
        remote_operation_timeout: flags.duration("remote_operation_timeout"),
        etcd_lease_ttl_seconds: flags.int("topo_etcd_lease_ttl"),
        etcd_tls,
        ..TopoOptions::default()
    };
    let (implementation, address) = (flags.str("topo_implementation"), flags.str("topo_global_server_address"));
    Ok(TopoServer::open(implementation, address, flags.str("topo_global_root"), options).await?)
}

/// A wrangler over that topology, with the settings of the flags.
pub fn wrangler(flags: &Parsed, topo: TopoServer) -> Result<Wrangler> {
    for flag in ["tablet_manager_protocol", "throttler_client_protocol"] {
        let protocol = flags.str(flag);
        if protocol != "grpc" {
            bail!("-{flag}={protocol} is not known: only grpc is");
        }
    }
    let tmc = TabletManagerClient::new(dial_options(flags, "tablet_manager_grpc")?);
    let client = |prefix: &str| ClientOptions::from_flags(flags, prefix).map_err(|error| err!("{error}"));
    let config = Config {
        remote_operation_timeout: flags.duration("remote_operation_timeout"),
        disable_active_reparents: flags.bool("disable_active_reparents"),
        enable_queries: flags.bool("enable_queries"),
        workflow_manager: flags.is_defined("workflow_manager_init") && flags.bool("workflow_manager_init"),
        drain_pause_rdonly: flags.duration("wait_for_drain_sleep_rdonly"),
        drain_pause_replica: flags.duration("wait_for_drain_sleep_replica"),
        failpoints: Failpoints::from_env(),
        backup_storage: BackupStorage::from_flags(
            flags.str("backup_storage_implementation"),
            flags.str("file_backup_storage_root"),
        ),
        tablet_dial: dial_options(flags, "tablet_grpc")?,
        vtgate_client: client("vtgate_grpc")?,
        // vtctl has no flags for it.
        vtworker_client: match flags.is_defined("vtworker_client_grpc_ca") {
            true => client("vtworker_client_grpc")?,
            false => ClientOptions::default(),
        },
        throttler_client: client("throttler_client_grpc")?,
    };
    Ok(Wrangler::new(topo, Arc::new(tmc), config))
}

/// How to connect to tablets, with the TLS flags of one prefix.
pub fn dial_options(flags: &Parsed, prefix: &str) -> Result<DialOptions> {
    let file = |suffix: &str| {
        Some(flags.str(&format!("{prefix}_{suffix}"))).filter(|path| !path.is_empty()).map(PathBuf::from)
    };
    let server_name = Some(flags.str(&format!("{prefix}_server_name"))).filter(|name| !name.is_empty());
    let tls = TlsOptions {
        ca: file("ca"),
        cert: file("cert"),
        key: file("key"),
        server_name: server_name.map(str::to_owned),
    };
    let mut options = DialOptions {
        // Commands are few: one connection to a tablet is enough.
        channels: 1,
        max_message_size: flags.size("grpc_max_message_size"),
        creds: credentials(flags.str("grpc_auth_static_client_creds"))?,
        ..DialOptions::default()
    };
    if tls.is_set() {
        options.tls = Some(tls);
    }
    Ok(options)
}

/// The user and password of `-grpc_auth_static_client_creds`: a file of `{"Username": …, "Password": …}`.
fn credentials(path: &str) -> Result<Option<StaticCreds>> {
    if path.is_empty() {
        return Ok(None);
    }
    let text =
        std::fs::read_to_string(path).map_err(|error| err!("-grpc_auth_static_client_creds: {path}: {error}"))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| err!("-grpc_auth_static_client_creds: {path}: {error}"))?;
    let field = |name: &str| {
        value[name]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| err!("-grpc_auth_static_client_creds: {path}: {name} is missing"))
    };
    Ok(Some(StaticCreds { username: field("Username")?, password: field("Password")? }))
}
