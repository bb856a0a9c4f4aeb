//! What commands need to know about the process they run in.

use std::path::PathBuf;
use std::time::Duration;

use servenv::failpoint::Failpoints;

/// Settings shared by all commands, from the flags of vtctld or vtctl.
#[derive(Clone)]
pub struct Config {
    /// `-remote_operation_timeout`: bound of single calls to tablets and of waiting for a lock.
    pub remote_operation_timeout: Duration,
    /// `-disable_active_reparents`: somebody else decides who is master.
    pub disable_active_reparents: bool,
    /// `-enable_queries`: allows the commands that send queries to vtgate and to tablets.
    pub enable_queries: bool,
    /// `-workflow_manager_init`: whether this process has a manager of workflows.
    pub workflow_manager: bool,
    /// `-wait_for_drain_sleep_rdonly`: pause of MigrateServedTypes between routing rdonly queries to the
    /// new shards and making the old tablets refuse them.
    pub drain_pause_rdonly: Duration,
    /// `-wait_for_drain_sleep_replica`: the same for replica queries.
    pub drain_pause_replica: Duration,
    /// Where tests make a cutover fail.
    pub failpoints: Failpoints,
    /// Where ListBackups and RemoveBackup look.
    pub backup_storage: BackupStorage,
    /// Connections to the query service of tablets.
    pub tablet_dial: tabletclient::grpc::DialOptions,
    /// Connections to vtgate (`-vtgate_grpc_{cert,key,ca,server_name}`).
    pub vtgate_client: servenv::grpc::ClientOptions,
    /// Connections to vtworker (`-vtworker_client_grpc_{cert,key,ca,server_name}`).
    pub vtworker_client: servenv::grpc::ClientOptions,
    /// Connections to throttlers (`-throttler_client_grpc_{cert,key,ca,server_name}`).
    pub throttler_client: servenv::grpc::ClientOptions,
}

/// `-backup_storage_implementation` and its own flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupStorage {
    /// No implementation chosen.
    None,
    /// `file`: directories under `-file_backup_storage_root`.
    File { root: PathBuf },
    /// An implementation that is known by name and not built.
    NotBuilt { implementation: String },
}

impl BackupStorage {
    /// From the two flags.
    pub fn from_flags(implementation: &str, file_root: &str) -> Self {
        match implementation {
            "" => Self::None,
            "file" => Self::File { root: PathBuf::from(file_root) },
            other => Self::NotBuilt { implementation: other.to_owned() },
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            remote_operation_timeout: Duration::from_secs(30),
            disable_active_reparents: false,
            enable_queries: false,
            workflow_manager: false,
            drain_pause_rdonly: Duration::from_secs(5),
            drain_pause_replica: Duration::from_secs(15),
            failpoints: Failpoints::default(),
            backup_storage: BackupStorage::None,
            tablet_dial: tabletclient::grpc::DialOptions::default(),
            vtgate_client: servenv::grpc::ClientOptions::default(),
            vtworker_client: servenv::grpc::ClientOptions::default(),
            throttler_client: servenv::grpc::ClientOptions::default(),
        }
    }
}
