//! The gRPC service `tabletmanagerservice.TabletManager`.
//!
//! Each RPC runs as a task of its own: a caller that hangs up does not stop a reparent between two steps. A task ends at
//! the caller's deadline or, without one, at the limit of its kind. Errors have the code UNKNOWN and the text
//! `TabletManager.<Method> on <alias> error: <text>: <text>`, as existing clients see them; a panic becomes such an error.

use std::{any::Any, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};
use vterrors::{Code, Result, VtError};
use vtproto::{tabletmanagerdata as tmd, tabletmanagerservice::tablet_manager_server};

use super::manager::TabletManager;

/// What changes the tablet or asks mysqld a short question.
const SHORT: Duration = Duration::from_secs(120);
/// What runs statements of others, waits for replication, or waits because it was asked to.
const LONG: Duration = Duration::from_secs(3600);
/// The action itself knows the deadline; this much later it is given up from outside.
const SLACK: Duration = Duration::from_millis(500);

/// Serves a [`TabletManager`] over gRPC.
#[derive(Clone)]
pub struct TabletManagerService {
    manager: Arc<TabletManager>,
}

impl TabletManagerService {
    pub fn new(manager: Arc<TabletManager>) -> Self {
        Self { manager }
    }

    async fn run<Q, T, F>(
        &self,
        method: &'static str,
        limit: Duration,
        request: Request<Q>,
        work: impl FnOnce(Arc<TabletManager>, Q, Instant) -> F,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let limit = callers_timeout(&request).unwrap_or(limit);
        let deadline = Instant::now() + limit;
        tracing::debug!(method, "TabletManager RPC");
        let task =
            tokio::spawn(timeout_at(deadline + SLACK, work(self.manager.clone(), request.into_inner(), deadline)));
        let error = match task.await {
            Ok(Ok(Ok(answer))) => return Ok(Response::new(answer)),
            Ok(Ok(Err(error))) => error,
            Ok(Err(_)) => VtError::new(Code::DeadlineExceeded, "context deadline exceeded"),
            Err(failed) if failed.is_panic() => VtError::new(
                Code::Internal,
                format!("caught panic during {method}: {}", panic_text(&*failed.into_panic())),
            ),
            Err(_) => VtError::new(Code::Canceled, "the tablet is shutting down"),
        };
        tracing::warn!("TabletManager.{method}: {error}");
        let text = error.message();
        Err(VtError::new(
            Code::Unknown,
            format!("TabletManager.{method} on {} error: {text}: {text}", self.manager.alias_string()),
        )
        .into())
    }

    fn not_built(&self, method: &'static str) -> Status {
        VtError::new(
            Code::Unimplemented,
            format!("TabletManager.{method} on {} is not built yet", self.manager.alias_string()),
        )
        .into()
    }
}

/// What is left of the caller's patience, from the header that gRPC sends it in: `30S`, `1500m`.
fn callers_timeout<Q>(request: &Request<Q>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    parse_timeout(text)
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    // Beyond a day it is as good as none, and the sum with the clock must not overflow.
    Some(timeout.min(Duration::from_secs(24 * 3600)))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "of unknown kind".to_owned())
}

/// Errors of statements come wrapped in a status of their own, as they always did.
fn as_status(error: VtError) -> VtError {
    VtError::new(error.code(), format!("rpc error: code = Unknown desc = {error}"))
}

fn nanos(nanoseconds: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

macro_rules! service {
    ($( $method:ident, $name:literal, $limit:expr, $request:ident => $response:ident,
        |$manager:ident, $message:ident, $deadline:ident| $body:expr; )*) => {
        #[tonic::async_trait]
        impl tablet_manager_server::TabletManager for TabletManagerService {
            type BackupStream = Events<tmd::BackupResponse>;
            type RestoreFromBackupStream = Events<tmd::RestoreFromBackupResponse>;

            $(
                async fn $method(
                    &self,
                    request: Request<tmd::$request>,
                ) -> Result<Response<tmd::$response>, Status> {
                    #[allow(unused_variables)]
                    self.run($name, $limit, request, |$manager, $message, $deadline| async move { $body }).await
                }
            )*

            async fn backup(&self, _: Request<tmd::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
                Err(self.not_built("Backup"))
            }

            async fn restore_from_backup(
                &self,
                _: Request<tmd::RestoreFromBackupRequest>,
            ) -> Result<Response<Self::RestoreFromBackupStream>, Status> {
                Err(self.not_built("RestoreFromBackup"))
            }
        }
    };
}

service! {
    ping, "Ping", SHORT, PingRequest => PingResponse, |manager, request, deadline|
        Ok(tmd::PingResponse { payload: request.payload });
    sleep, "Sleep", LONG, SleepRequest => SleepResponse, |manager, request, deadline|
        manager.hold(request.duration).await.map(|()| tmd::SleepResponse {});
    execute_hook, "ExecuteHook", LONG, ExecuteHookRequest => ExecuteHookResponse, |manager, request, deadline|
        manager.execute_hook(request).await;
    get_schema, "GetSchema", LONG, GetSchemaRequest => GetSchemaResponse, |manager, request, deadline|
        manager.get_schema(&request).await.map(|schema| tmd::GetSchemaResponse { schema_definition: Some(schema) });
    get_permissions, "GetPermissions", SHORT, GetPermissionsRequest => GetPermissionsResponse, |manager, request, deadline|
        manager.get_permissions().await.map(|permissions| tmd::GetPermissionsResponse { permissions: Some(permissions) });
    set_read_only, "SetReadOnly", SHORT, SetReadOnlyRequest => SetReadOnlyResponse, |manager, request, deadline|
        manager.set_read_only(true).await.map(|()| tmd::SetReadOnlyResponse {});
    set_read_write, "SetReadWrite", SHORT, SetReadWriteRequest => SetReadWriteResponse, |manager, request, deadline|
        manager.set_read_only(false).await.map(|()| tmd::SetReadWriteResponse {});
    change_type, "ChangeType", SHORT, ChangeTypeRequest => ChangeTypeResponse, |manager, request, deadline|
        manager.change_type(request.tablet_type()).await.map(|()| tmd::ChangeTypeResponse {});
    refresh_state, "RefreshState", SHORT, RefreshStateRequest => RefreshStateResponse, |manager, request, deadline|
        manager.refresh_state().await.map(|()| tmd::RefreshStateResponse {});
    run_health_check, "RunHealthCheck", SHORT, RunHealthCheckRequest => RunHealthCheckResponse, |manager, request, deadline| {
        manager.run_health_check().await;
        Ok(tmd::RunHealthCheckResponse {})
    };
    ignore_health_error, "IgnoreHealthError", SHORT, IgnoreHealthErrorRequest => IgnoreHealthErrorResponse,
        |manager, request, deadline|
        manager.ignore_health_error(&request.pattern).await.map(|()| tmd::IgnoreHealthErrorResponse {});
    reload_schema, "ReloadSchema", LONG, ReloadSchemaRequest => ReloadSchemaResponse, |manager, request, deadline|
        manager.reload_schema(&request.wait_position, deadline).await.map(|()| tmd::ReloadSchemaResponse {});
    preflight_schema, "PreflightSchema", LONG, PreflightSchemaRequest => PreflightSchemaResponse,
        |manager, request, deadline|
        manager.preflight_schema(&request.changes).await
            .map(|change_results| tmd::PreflightSchemaResponse { change_results });
    apply_schema, "ApplySchema", LONG, ApplySchemaRequest => ApplySchemaResponse, |manager, request, deadline|
        manager.apply_schema(request).await.map(|result| tmd::ApplySchemaResponse {
            before_schema: result.before_schema,
            after_schema: result.after_schema,
        });
    lock_tables, "LockTables", SHORT, LockTablesRequest => LockTablesResponse, |manager, request, deadline|
        manager.lock_tables().await.map(|()| tmd::LockTablesResponse {});
    unlock_tables, "UnlockTables", SHORT, UnlockTablesRequest => UnlockTablesResponse, |manager, request, deadline|
        manager.unlock_tables().await.map(|()| tmd::UnlockTablesResponse {});
    execute_fetch_as_dba, "ExecuteFetchAsDba", LONG, ExecuteFetchAsDbaRequest => ExecuteFetchAsDbaResponse,
        |manager, request, deadline|
        manager.execute_fetch_as_dba(request, deadline).await.map_err(as_status)
            .map(|result| tmd::ExecuteFetchAsDbaResponse { result: Some(result) });
    execute_fetch_as_all_privs, "ExecuteFetchAsAllPrivs", LONG,
        ExecuteFetchAsAllPrivsRequest => ExecuteFetchAsAllPrivsResponse, |manager, request, deadline|
        manager.execute_fetch_as_all_privs(request, deadline).await.map_err(as_status)
            .map(|result| tmd::ExecuteFetchAsAllPrivsResponse { result: Some(result) });
    execute_fetch_as_app, "ExecuteFetchAsApp", LONG, ExecuteFetchAsAppRequest => ExecuteFetchAsAppResponse,
        |manager, request, deadline|
        manager.execute_fetch_as_app(request, deadline).await.map_err(as_status)
            .map(|result| tmd::ExecuteFetchAsAppResponse { result: Some(result) });
    slave_status, "SlaveStatus", SHORT, SlaveStatusRequest => SlaveStatusResponse, |manager, request, deadline|
        manager.slave_status().await.map(|status| tmd::SlaveStatusResponse { status: Some(status) });
    master_position, "MasterPosition", SHORT, MasterPositionRequest => MasterPositionResponse, |manager, request, deadline|
        manager.master_position().await.map(|position| tmd::MasterPositionResponse { position });
    wait_for_position, "WaitForPosition", LONG, WaitForPositionRequest => WaitForPositionResponse,
        |manager, request, deadline|
        manager.wait_for_position(&request.position, deadline).await.map(|()| tmd::WaitForPositionResponse {});
    stop_slave, "StopSlave", SHORT, StopSlaveRequest => StopSlaveResponse, |manager, request, deadline|
        manager.stop_slave().await.map(|()| tmd::StopSlaveResponse {});
    stop_slave_minimum, "StopSlaveMinimum", LONG, StopSlaveMinimumRequest => StopSlaveMinimumResponse,
        |manager, request, deadline|
        manager.stop_slave_minimum(&request.position, nanos(request.wait_timeout)).await
            .map(|position| tmd::StopSlaveMinimumResponse { position });
    start_slave, "StartSlave", SHORT, StartSlaveRequest => StartSlaveResponse, |manager, request, deadline|
        manager.start_slave().await.map(|()| tmd::StartSlaveResponse {});
    start_slave_until_after, "StartSlaveUntilAfter", LONG, StartSlaveUntilAfterRequest => StartSlaveUntilAfterResponse,
        |manager, request, deadline|
        manager.start_slave_until_after(&request.position, nanos(request.wait_timeout)).await
            .map(|()| tmd::StartSlaveUntilAfterResponse {});
    tablet_externally_reparented, "TabletExternallyReparented", SHORT,
        TabletExternallyReparentedRequest => TabletExternallyReparentedResponse, |manager, request, deadline|
        manager.tablet_externally_reparented().await.map(|()| tmd::TabletExternallyReparentedResponse {});
    tablet_externally_elected, "TabletExternallyElected", SHORT,
        TabletExternallyElectedRequest => TabletExternallyElectedResponse, |manager, request, deadline|
        Ok(tmd::TabletExternallyElectedResponse {});
    get_slaves, "GetSlaves", SHORT, GetSlavesRequest => GetSlavesResponse, |manager, request, deadline|
        manager.get_slaves().await.map(|addrs| tmd::GetSlavesResponse { addrs });
    reset_replication, "ResetReplication", SHORT, ResetReplicationRequest => ResetReplicationResponse,
        |manager, request, deadline|
        manager.reset_replication().await.map(|()| tmd::ResetReplicationResponse {});
    init_master, "InitMaster", SHORT, InitMasterRequest => InitMasterResponse, |manager, request, deadline|
        manager.init_master().await.map(|position| tmd::InitMasterResponse { position });
    populate_reparent_journal, "PopulateReparentJournal", SHORT,
        PopulateReparentJournalRequest => PopulateReparentJournalResponse, |manager, request, deadline|
        manager.populate_reparent_journal(
            request.time_created_ns,
            &request.action_name,
            request.master_alias.as_ref(),
            &request.replication_position,
            deadline,
        ).await.map(|()| tmd::PopulateReparentJournalResponse {});
    init_slave, "InitSlave", SHORT, InitSlaveRequest => InitSlaveResponse, |manager, request, deadline|
        manager.init_slave(request.parent.as_ref(), &request.replication_position, request.time_created_ns, deadline).await
            .map(|()| tmd::InitSlaveResponse {});
    demote_master, "DemoteMaster", SHORT, DemoteMasterRequest => DemoteMasterResponse, |manager, request, deadline|
        manager.demote_master().await.map(|position| tmd::DemoteMasterResponse { position });
    undo_demote_master, "UndoDemoteMaster", SHORT, UndoDemoteMasterRequest => UndoDemoteMasterResponse,
        |manager, request, deadline|
        manager.undo_demote_master().await.map(|()| tmd::UndoDemoteMasterResponse {});
    promote_slave_when_caught_up, "PromoteSlaveWhenCaughtUp", SHORT,
        PromoteSlaveWhenCaughtUpRequest => PromoteSlaveWhenCaughtUpResponse, |manager, request, deadline|
        manager.promote_slave_when_caught_up(&request.position, deadline).await
            .map(|position| tmd::PromoteSlaveWhenCaughtUpResponse { position });
    slave_was_promoted, "SlaveWasPromoted", SHORT, SlaveWasPromotedRequest => SlaveWasPromotedResponse,
        |manager, request, deadline|
        manager.slave_was_promoted().await.map(|()| tmd::SlaveWasPromotedResponse {});
    set_master, "SetMaster", SHORT, SetMasterRequest => SetMasterResponse, |manager, request, deadline|
        manager.set_master(
            request.parent.as_ref(),
            request.time_created_ns,
            &request.wait_position,
            request.force_start_slave,
            deadline,
        ).await.map(|()| tmd::SetMasterResponse {});
    slave_was_restarted, "SlaveWasRestarted", SHORT, SlaveWasRestartedRequest => SlaveWasRestartedResponse,
        |manager, request, deadline|
        manager.slave_was_restarted().await.map(|()| tmd::SlaveWasRestartedResponse {});
    stop_replication_and_get_status, "StopReplicationAndGetStatus", SHORT,
        StopReplicationAndGetStatusRequest => StopReplicationAndGetStatusResponse, |manager, request, deadline|
        manager.stop_replication_and_get_status().await
            .map(|status| tmd::StopReplicationAndGetStatusResponse { status: Some(status) });
    promote_slave, "PromoteSlave", SHORT, PromoteSlaveRequest => PromoteSlaveResponse, |manager, request, deadline|
        manager.promote_slave().await.map(|position| tmd::PromoteSlaveResponse { position });
    v_replication_exec, "VReplicationExec", SHORT, VReplicationExecRequest => VReplicationExecResponse,
        |manager, request, deadline|
        manager.vreplication_exec(&request.query).await
            .map(|result| tmd::VReplicationExecResponse { result: Some(result) });
    v_replication_wait_for_pos, "VReplicationWaitForPos", LONG,
        VReplicationWaitForPosRequest => VReplicationWaitForPosResponse, |manager, request, deadline|
        manager.vreplication_wait_for_pos(request.id, &request.position, deadline).await
            .map(|()| tmd::VReplicationWaitForPosResponse {});
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout("30S"), Some(Duration::from_secs(30)));
        assert_eq!(parse_timeout("29999972u"), Some(Duration::from_micros(29_999_972)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(24 * 3600)));
        assert_eq!(parse_timeout(""), None);
        assert_eq!(parse_timeout("5"), None);
    }
}
