//! The gRPC service `cutover.Cutover`: what the coordinator of a cutover asks of a source tablet.
//!
//! Owns: the order of the steps that need mysqld or the topology. The gate itself is
//! `queryservice::cutover`'s. Each RPC runs as a task of its own, so that a caller that hangs up leaves
//! no step half done. Errors keep their codes.
//! Invariants: a gate is lifted only after what the topology says now is in force, so that nothing gets
//! in between that has moved away; a fence that fails leaves a gate that ends by itself, and a mysqld that was made
//! read-only for it accepts writes again: at once or, where that fails too, behind the end of the gate.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tonic::{Request, Response, Status};
use vterrors::{Code, Result, VtError};
use vtproto::{cutover as pb, topodata::TabletType, vttime};

use super::{manager::TabletManager, markers::Marker};
use crate::queryservice::{
    TabletServer,
    cutover::{Phase, Snapshot},
};

/// How long mysqld may take to become read-only. It is drained: usually less than a millisecond.
const FENCE_LIMIT: Duration = Duration::from_secs(5);
/// Pause before a mysqld that did not become writable again is asked once more.
const WRITABLE_PAUSE: Duration = Duration::from_secs(1);

/// Serves the gate of a tablet over gRPC.
#[derive(Clone)]
pub struct CutoverService {
    manager: Arc<TabletManager>,
    queries: TabletServer,
}

impl CutoverService {
    pub fn new(manager: Arc<TabletManager>, queries: TabletServer) -> Self {
        Self { manager, queries }
    }

    async fn run<T, F>(&self, method: &'static str, work: impl FnOnce(Self) -> F) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let error = match tokio::spawn(work(self.clone())).await {
            Ok(Ok(answer)) => return Ok(Response::new(answer)),
            Ok(Err(error)) => error,
            Err(failed) => VtError::new(Code::Internal, format!("{method} failed: {failed}")),
        };
        tracing::warn!("Cutover.{method}: {error}");
        Err(error.wrap(format!("Cutover.{method} on {}", self.manager.alias_string())).into())
    }

    async fn fence(self, request: pb::FenceRequest) -> Result<pb::FenceResponse> {
        let _action = self.manager.action.lock().await;
        self.check_master()?;
        let set_before = self.queries.fence(&request.id)?;
        let mut set_now = false;
        let fenced = async {
            if request.read_only && !self.manager.mysqld.is_read_only().await? {
                // No health check and no restart takes it back from here on.
                self.manager.markers.put(Marker::ReadOnly, true);
                if let Err(error) = self.manager.mysqld.fence(FENCE_LIMIT).await {
                    self.manager.markers.put(Marker::ReadOnly, false);
                    return Err(error);
                }
                self.queries.note_read_only(&request.id, true);
                set_now = true;
            }
            self.manager.master_position().await
        };
        match fenced.await {
            Ok(position) => Ok(pb::FenceResponse { position, read_only_set: set_before || set_now }),
            Err(error) => {
                if set_now {
                    match self.accept_writes().await {
                        Ok(()) => self.queries.note_read_only(&request.id, false),
                        // Whoever ends the gate tries again.
                        Err(error) => tracing::warn!("mysqld stays read-only after a fence that failed: {error}"),
                    }
                }
                self.queries.unfence(&request.id);
                Err(error)
            }
        }
    }

    async fn accept_writes(&self) -> Result<()> {
        self.manager.mysqld.set_read_only(false).await?;
        self.manager.markers.put(Marker::ReadOnly, false);
        Ok(())
    }

    /// A gate ended by itself: what the topology says is in force from now on, and a mysqld that is still read-only for
    /// the gate accepts writes again, unless a younger gate is fenced or this tablet is no master any more.
    pub async fn gate_lapsed(&self) {
        {
            let _action = self.manager.action.lock().await;
            self.manager.apply("the gate of a cutover was not renewed").await;
        }
        while self.queries.left_read_only() {
            let action = self.manager.action.lock().await;
            let demoted = self.manager.markers.has(Marker::DemotedMaster);
            if demoted || self.check_master().is_err() {
                self.queries.forget_left_read_only();
                return;
            }
            // Looked at again: a fence may have come first.
            if !self.queries.left_read_only() {
                return;
            }
            match self.accept_writes().await {
                Ok(()) => {
                    self.queries.forget_left_read_only();
                    tracing::info!("mysqld accepts writes again: the gate that it was read-only for has ended");
                    return;
                }
                Err(error) => tracing::warn!("mysqld stays read-only after the end of a gate: {error}"),
            }
            drop(action);
            tokio::time::sleep(WRITABLE_PAUSE).await;
        }
    }

    async fn release(self, request: pb::ReleaseRequest) -> Result<pb::ReleaseResponse> {
        let _action = self.manager.action.lock().await;
        let mut read_write = request.read_write;
        if self.queries.holds(&request.id)? {
            self.manager.read_permit().await?;
            self.manager.reconcile_behind(false, "a cutover ends").await;
            // Its coordinator may never have got the answer to its fence.
            read_write |= self.queries.made_read_only(&request.id);
        }
        if read_write {
            self.accept_writes().await?;
        }
        let Some(ended) = self.queries.release(&request.id)? else { return Ok(pb::ReleaseResponse::default()) };
        Ok(pb::ReleaseResponse {
            released: true,
            refused: ended.refused,
            killed: ended.killed,
            longest_stall_ms: millis(ended.longest_stall),
        })
    }

    fn check_master(&self) -> Result<()> {
        match self.manager.tablet_type() {
            TabletType::Master => Ok(()),
            other => {
                let text = format!("this tablet is no master but {}", other.as_str_name());
                Err(VtError::new(Code::FailedPrecondition, text))
            }
        }
    }
}

#[tonic::async_trait]
impl pb::cutover_server::Cutover for CutoverService {
    async fn gate(&self, request: Request<pb::GateRequest>) -> Result<Response<pb::GateResponse>, Status> {
        let request = request.into_inner();
        let work = |service: Self| async move {
            service.check_master()?;
            let gate =
                service.queries.gate(&request.id, request.tables, duration(request.ttl_ms), request.others_follow)?;
            Ok(pb::GateResponse { transactions: number(gate.transactions), statements: number(gate.statements) })
        };
        self.run("Gate", work).await
    }

    async fn drain(&self, request: Request<pb::DrainRequest>) -> Result<Response<pb::DrainResponse>, Status> {
        let request = request.into_inner();
        let work = |service: Self| async move {
            let drain = service.queries.drain(&request.id, duration(request.timeout_ms)).await?;
            Ok(pb::DrainResponse {
                drained: drain.left == 0,
                killed: drain.killed,
                waited_ms: millis(drain.waited),
                left: number(drain.left),
            })
        };
        self.run("Drain", work).await
    }

    async fn fence(&self, request: Request<pb::FenceRequest>) -> Result<Response<pb::FenceResponse>, Status> {
        let request = request.into_inner();
        self.run("Fence", |service: Self| service.fence(request)).await
    }

    async fn release(&self, request: Request<pb::ReleaseRequest>) -> Result<Response<pb::ReleaseResponse>, Status> {
        let request = request.into_inner();
        self.run("Release", |service: Self| service.release(request)).await
    }

    async fn status(&self, _request: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        self.run("Status", |service: Self| async move { Ok(status(service.queries.gated())) }).await
    }
}

fn status(gate: Option<Snapshot>) -> pb::StatusResponse {
    let Some(gate) = gate else { return pb::StatusResponse::default() };
    let since = gate.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let phase = match gate.phase {
        Phase::Gated => pb::GatePhase::Gated,
        Phase::Drained => pb::GatePhase::Drained,
        Phase::Fenced => pb::GatePhase::Fenced,
    };
    pb::StatusResponse {
        id: gate.id,
        phase: phase.into(),
        tables: gate.tables,
        since: Some(vttime::Time {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        }),
        ttl_left_ms: gate.ttl_left.map_or(0, millis),
        transactions: number(gate.transactions),
        statements: number(gate.statements),
        refused: gate.refused,
        killed: gate.killed,
    }
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
