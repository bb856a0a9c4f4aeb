//! Stops a replica of each side at the position where the stream between them stands.
//!
//! The stream is held, the source replica runs up to its position and stops, the stream goes on exactly up to where the
//! source replica stopped, the destination replica runs up to what the stream wrote and stops. Then the stream goes on.

use std::sync::Arc;
use std::time::Duration;

use vterrors::{Code, Result, VtError};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::Tablet;

use crate::cleaner::Cleaner;
use crate::env::WorkerEnv;
use crate::rows;
use crate::sql::quoted;
use crate::tablets::start_slave;

/// One stream, by the master that runs it.
pub struct Stream {
    pub env: Arc<WorkerEnv>,
    pub master: Tablet,
    pub uid: u32,
}

impl Stream {
    async fn exec(&self, query: String) -> Result<vtproto::query::QueryResult> {
        let request = tmd::VReplicationExecRequest { query };
        let answer = self.env.bounded(self.env.tmc.v_replication_exec(&self.master, request)).await?;
        Ok(answer.result.unwrap_or_default())
    }

    async fn hold(&self) -> Result<()> {
        let query = format!(
            "update _vt.vreplication set state = 'Stopped', message = 'for split diff' where id = {}",
            self.uid
        );
        self.exec(query).await.map(drop)
    }

    async fn go_on(&self) -> Result<()> {
        let query = format!(
            "update _vt.vreplication set state = 'Running', message = '', stop_pos = NULL where id = {}",
            self.uid
        );
        self.exec(query).await.map(drop)
    }

    async fn position(&self) -> Result<String> {
        let result = self.exec(format!("select pos from _vt.vreplication where id = {}", self.uid)).await?;
        let position = result.rows.first().map(|row| rows::text(row, 0)).unwrap_or_default();
        if position.is_empty() {
            return Err(VtError::new(Code::FailedPrecondition, format!("stream {} has no position", self.uid)));
        }
        Ok(position)
    }

    async fn run_until(&self, position: &str) -> Result<()> {
        let query = format!(
            "update _vt.vreplication set state = 'Running', message = 'synchronizing for split diff', stop_pos = {} \
             where id = {}",
            quoted(position),
            self.uid
        );
        self.exec(query).await?;
        let request = tmd::VReplicationWaitForPosRequest { id: self.uid.into(), position: position.to_owned() };
        self.env.bounded(self.env.tmc.v_replication_wait_for_pos(&self.master, request)).await.map(drop)
    }
}

/// Lets a replica run up to a position and stops it; returns where it stopped.
async fn stop_at(env: &Arc<WorkerEnv>, tablet: &Tablet, position: &str, cleaner: &mut Cleaner) -> Result<String> {
    let (again, stopped) = (env.clone(), tablet.clone());
    cleaner.record("start replication", move || async move { start_slave(&again, &stopped).await });
    let wait = env.settings.remote_actions_timeout.saturating_sub(Duration::from_secs(1)).max(Duration::from_secs(1));
    let request = tmd::StopSlaveMinimumRequest {
        position: position.to_owned(),
        wait_timeout: i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX),
    };
    Ok(env.bounded(env.tmc.stop_slave_minimum(tablet, request)).await?.position)
}

/// Stops both replicas; recorded to be started again.
///
/// # Errors
/// A tablet refuses or does not get there in time.
pub async fn stop_both(
    stream: Arc<Stream>,
    source: &Tablet,
    destination: &Tablet,
    cleaner: &mut Cleaner,
) -> Result<String> {
    let env = &stream.env;
    let again = stream.clone();
    cleaner.record(format!("stream {} goes on", stream.uid), move || async move { again.go_on().await });
    stream.hold().await?;
    let position = stream.position().await?;
    let stopped = stop_at(env, source, &position, cleaner).await?;
    stream.run_until(&stopped).await?;
    let request = tmd::MasterPositionRequest {};
    let written = env.bounded(env.tmc.master_position(&stream.master, request)).await?.position;
    stop_at(env, destination, &written, cleaner).await?;
    stream.go_on().await?;
    Ok(stopped)
}
