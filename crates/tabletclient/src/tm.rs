//! The tablet manager of a vttablet as seen by the cluster commands: one method per RPC of
//! `tabletmanagerservice.TabletManager`.
//!
//! Owns: the gRPC connections to tablet managers, one per address, made on first use and kept.
//! [`TabletManager`] is the trait that commands are written against; [`TabletManagerClient`]
//! speaks gRPC. Requests and answers are the wire messages themselves.
//! Invariants: every call is bounded, by the options if the caller does not bound it
//! more tightly (by `tokio::time::timeout`, dropping the future cancels the RPC); the cache holds
//! at most [`MAX_CACHED`] connections.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use vterrors::Code;
use vtproto::logutil;
use vtproto::tabletmanagerdata as tmd;
use vtproto::tabletmanagerservice::tablet_manager_client::TabletManagerClient as GrpcClient;
use vtproto::topodata::Tablet;

use crate::grpc::{self, DialOptions};

/// Most connections kept; a cluster with more tablets reconnects now and then.
const MAX_CACHED: usize = 1024;

/// A tablet manager's refusal, or the failure to reach it. Prints as Go's gRPC client prints a
/// status, which is the form users see inside other errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {} desc = {message}", vterrors::go_code_name(*code))]
pub struct TmError {
    /// The status code; what a tablet's own command failed with is always `Unknown`.
    pub code: Code,
    /// The tablet's text, without the prefix that printing adds.
    pub message: String,
}

impl TmError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn from_status(status: &tonic::Status) -> Self {
        let mut message = status.message().to_owned();
        // A connection that could not be made says why only in its sources.
        let mut source = std::error::Error::source(status);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self { code: vterrors::code_of_status(status), message }
    }
}

/// Inside errors of a larger job, printed as users see it.
impl From<TmError> for vterrors::VtError {
    fn from(error: TmError) -> Self {
        Self::new(error.code, error.to_string())
    }
}

pub type Result<T, E = TmError> = std::result::Result<T, E>;

/// Log events of a long RPC (Backup, RestoreFromBackup) as the tablet writes them.
pub type EventStream = BoxStream<'static, Result<logutil::Event>>;

macro_rules! tablet_manager {
    ($( $(#[$doc:meta])* $method:ident, $rpc:literal, $request:ident => $response:ident; )*) => {
        /// The unary RPCs of a tablet manager, and the two that stream. A fake for tests overrides
        /// what it needs; the rest answers `UNIMPLEMENTED` by name.
        #[async_trait::async_trait]
        pub trait TabletManager: Send + Sync {
            $(
                $(#[$doc])*
                async fn $method(&self, tablet: &Tablet, request: tmd::$request) -> Result<tmd::$response> {
                    let _ = (tablet, request);
                    Err(unimplemented($rpc))
                }
            )*
            /// Takes a backup; the stream ends when it is complete.
            async fn backup(&self, tablet: &Tablet, request: tmd::BackupRequest) -> Result<EventStream> {
                let _ = (tablet, request);
                Err(unimplemented("Backup"))
            }
            /// Wipes the tablet and restores the latest backup.
            async fn restore_from_backup(
                &self,
                tablet: &Tablet,
                request: tmd::RestoreFromBackupRequest,
            ) -> Result<EventStream> {
                let _ = (tablet, request);
                Err(unimplemented("RestoreFromBackup"))
            }
        }

        #[async_trait::async_trait]
        impl TabletManager for TabletManagerClient {
            $(
                async fn $method(&self, tablet: &Tablet, request: tmd::$request) -> Result<tmd::$response> {
                    let (mut client, request) = self.prepare(tablet, request)?;
                    client.$method(request).await.map(tonic::Response::into_inner).map_err(|s| TmError::from_status(&s))
                }
            )*

            async fn backup(&self, tablet: &Tablet, request: tmd::BackupRequest) -> Result<EventStream> {
                let (mut client, request) = self.prepare(tablet, request)?;
                let stream = client.backup(request).await.map_err(|s| TmError::from_status(&s))?.into_inner();
                Ok(stream.map(|item| match item {
                    Ok(response) => Ok(response.event.unwrap_or_default()),
                    Err(status) => Err(TmError::from_status(&status)),
                }).boxed())
            }

            async fn restore_from_backup(
                &self,
                tablet: &Tablet,
                request: tmd::RestoreFromBackupRequest,
            ) -> Result<EventStream> {
                let (mut client, request) = self.prepare(tablet, request)?;
                let stream = client.restore_from_backup(request).await.map_err(|s| TmError::from_status(&s))?.into_inner();
                Ok(stream.map(|item| match item {
                    Ok(response) => Ok(response.event.unwrap_or_default()),
                    Err(status) => Err(TmError::from_status(&status)),
                }).boxed())
            }
        }
    };
}

tablet_manager! {
    /// Answers the payload that it was sent.
    ping, "Ping", PingRequest => PingResponse;
    /// Holds the tablet's action lock for `duration` nanoseconds.
    sleep, "Sleep", SleepRequest => SleepResponse;
    /// Runs a file of the tablet host's hook directory.
    execute_hook, "ExecuteHook", ExecuteHookRequest => ExecuteHookResponse;
    get_schema, "GetSchema", GetSchemaRequest => GetSchemaResponse;
    get_permissions, "GetPermissions", GetPermissionsRequest => GetPermissionsResponse;
    set_read_only, "SetReadOnly", SetReadOnlyRequest => SetReadOnlyResponse;
    set_read_write, "SetReadWrite", SetReadWriteRequest => SetReadWriteResponse;
    change_type, "ChangeType", ChangeTypeRequest => ChangeTypeResponse;
    /// Makes the tablet read its own record, its shard and its part of the serving graph again.
    refresh_state, "RefreshState", RefreshStateRequest => RefreshStateResponse;
    run_health_check, "RunHealthCheck", RunHealthCheckRequest => RunHealthCheckResponse;
    ignore_health_error, "IgnoreHealthError", IgnoreHealthErrorRequest => IgnoreHealthErrorResponse;
    reload_schema, "ReloadSchema", ReloadSchemaRequest => ReloadSchemaResponse;
    /// Tries changes in a scratch copy of the schema.
    preflight_schema, "PreflightSchema", PreflightSchemaRequest => PreflightSchemaResponse;
    apply_schema, "ApplySchema", ApplySchemaRequest => ApplySchemaResponse;
    lock_tables, "LockTables", LockTablesRequest => LockTablesResponse;
    unlock_tables, "UnlockTables", UnlockTablesRequest => UnlockTablesResponse;
    execute_fetch_as_dba, "ExecuteFetchAsDba", ExecuteFetchAsDbaRequest => ExecuteFetchAsDbaResponse;
    execute_fetch_as_all_privs, "ExecuteFetchAsAllPrivs", ExecuteFetchAsAllPrivsRequest => ExecuteFetchAsAllPrivsResponse;
    execute_fetch_as_app, "ExecuteFetchAsApp", ExecuteFetchAsAppRequest => ExecuteFetchAsAppResponse;
    slave_status, "SlaveStatus", SlaveStatusRequest => SlaveStatusResponse;
    master_position, "MasterPosition", MasterPositionRequest => MasterPositionResponse;
    wait_for_position, "WaitForPosition", WaitForPositionRequest => WaitForPositionResponse;
    stop_slave, "StopSlave", StopSlaveRequest => StopSlaveResponse;
    stop_slave_minimum, "StopSlaveMinimum", StopSlaveMinimumRequest => StopSlaveMinimumResponse;
    start_slave, "StartSlave", StartSlaveRequest => StartSlaveResponse;
    start_slave_until_after, "StartSlaveUntilAfter", StartSlaveUntilAfterRequest => StartSlaveUntilAfterResponse;
    tablet_externally_reparented, "TabletExternallyReparented", TabletExternallyReparentedRequest => TabletExternallyReparentedResponse;
    tablet_externally_elected, "TabletExternallyElected", TabletExternallyElectedRequest => TabletExternallyElectedResponse;
    get_slaves, "GetSlaves", GetSlavesRequest => GetSlavesResponse;
    v_replication_exec, "VReplicationExec", VReplicationExecRequest => VReplicationExecResponse;
    v_replication_wait_for_pos, "VReplicationWaitForPos", VReplicationWaitForPosRequest => VReplicationWaitForPosResponse;
    /// Forgets every binlog and every position: the first step of a new shard.
    reset_replication, "ResetReplication", ResetReplicationRequest => ResetReplicationResponse;
    init_master, "InitMaster", InitMasterRequest => InitMasterResponse;
    populate_reparent_journal, "PopulateReparentJournal", PopulateReparentJournalRequest => PopulateReparentJournalResponse;
    init_slave, "InitSlave", InitSlaveRequest => InitSlaveResponse;
    demote_master, "DemoteMaster", DemoteMasterRequest => DemoteMasterResponse;
    undo_demote_master, "UndoDemoteMaster", UndoDemoteMasterRequest => UndoDemoteMasterResponse;
    promote_slave_when_caught_up, "PromoteSlaveWhenCaughtUp", PromoteSlaveWhenCaughtUpRequest => PromoteSlaveWhenCaughtUpResponse;
    slave_was_promoted, "SlaveWasPromoted", SlaveWasPromotedRequest => SlaveWasPromotedResponse;
    set_master, "SetMaster", SetMasterRequest => SetMasterResponse;
    slave_was_restarted, "SlaveWasRestarted", SlaveWasRestartedRequest => SlaveWasRestartedResponse;
    stop_replication_and_get_status, "StopReplicationAndGetStatus", StopReplicationAndGetStatusRequest => StopReplicationAndGetStatusResponse;
    promote_slave, "PromoteSlave", PromoteSlaveRequest => PromoteSlaveResponse;
}

pub(crate) fn unimplemented(method: &str) -> TmError {
    TmError::new(Code::Unimplemented, format!("{method} is not implemented by this tablet manager"))
}

/// Longest any single call may take when the caller sets no tighter bound and the options set none.
/// Schema changes and copies are among the calls, hence hours.
const LONGEST_CALL: Duration = Duration::from_secs(24 * 3600);

/// A [`TabletManager`] over gRPC, shared by all commands of a process.
pub struct TabletManagerClient {
    options: DialOptions,
    /// By `host:port`. A broken connection reconnects by itself on the next call.
    channels: Mutex<HashMap<String, Channel>>,
}

impl TabletManagerClient {
    /// The number of channels in the options does not matter: there is one per tablet.
    pub fn new(options: DialOptions) -> Self {
        Self { options, channels: Mutex::new(HashMap::new()) }
    }

    /// The client and the request of one call.
    fn prepare<T>(&self, tablet: &Tablet, message: T) -> Result<(GrpcClient<Channel>, tonic::Request<T>)> {
        let (channel, request) = self.prepare_on_channel(tablet, message)?;
        let client = GrpcClient::new(channel)
            .max_decoding_message_size(self.options.max_message_size)
            .max_encoding_message_size(self.options.max_message_size);
        Ok((client, request))
    }

    /// The connection and the request of one call, with credentials and deadline, for any service
    /// that a tablet serves beside its manager.
    pub(crate) fn prepare_on_channel<T>(&self, tablet: &Tablet, message: T) -> Result<(Channel, tonic::Request<T>)> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.options.call_timeout.unwrap_or(LONGEST_CALL));
        if let Some(creds) = &self.options.creds {
            for (key, value) in [("username", &creds.username), ("password", &creds.password)] {
                let value = AsciiMetadataValue::try_from(value.as_str())
                    .map_err(|_| TmError::new(Code::InvalidArgument, format!("{key} cannot be sent as metadata")))?;
                request.metadata_mut().insert(key, value);
            }
        }
        Ok((self.channel(tablet)?, request))
    }

    fn channel(&self, tablet: &Tablet) -> Result<Channel> {
        let local = |error: vterrors::VtError| TmError::new(error.code(), error.message());
        let address = grpc::grpc_address(tablet).map_err(local)?;
        let mut channels = self.channels.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(channel) = channels.get(&address) {
            return Ok(channel.clone());
        }
        let channel = grpc::endpoint(&address, &self.options).map_err(local)?.connect_lazy();
        if channels.len() >= MAX_CACHED {
            channels.clear();
        }
        channels.insert(address, channel.clone());
        Ok(channel)
    }
}

#[cfg(test)]
mod tests {
    use vtproto::topodata;

    use super::*;

    fn tablet(hostname: &str, port: Option<i32>) -> Tablet {
        Tablet {
            alias: Some(topodata::TabletAlias { cell: "zone1".into(), uid: 100 }),
            hostname: hostname.into(),
            port_map: port.map(|p| ("grpc".to_owned(), p)).into_iter().collect(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_stopped_tablet_is_named() {
        let client = TabletManagerClient::new(DialOptions::default());
        let error = client.ping(&tablet("", None), tmd::PingRequest::default()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "rpc error: code = FailedPrecondition desc = tablet zone1-0000000100 has no host name in its record"
        );
    }

    #[tokio::test]
    async fn a_refused_connection_says_so() {
        // Bound and dropped: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = TabletManagerClient::new(DialOptions::default());
        let error =
            client.ping(&tablet("127.0.0.1", Some(port.into())), tmd::PingRequest::default()).await.unwrap_err();
        assert_eq!(error.code, Code::Unavailable);
        assert!(error.message.to_lowercase().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn one_connection_per_address() {
        let client = TabletManagerClient::new(DialOptions::default());
        for port in [1, 1, 2] {
            client.channel(&tablet("127.0.0.1", Some(port))).unwrap();
        }
        assert_eq!(client.channels.lock().unwrap().len(), 2);
    }
}
