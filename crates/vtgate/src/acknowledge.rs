//! Tells the topology by which serving records this vtgate routes.
//!
//! Owns: the key of this vtgate in its cell, kept true. A coordinator that has changed a record waits for
//! the new version here. Invariant: a version is told only after every later statement is routed by it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::Rng;
use tokio::sync::Notify;
use topo::{GateRegistration, TopoServer, srv_cache::SrvTopoCache};
use vtproto::{cutover::GateAck, vttime};

use crate::vschema_watch::VSchemaWatch;

/// Pause after a topology that could not be reached.
const RETRY: Duration = Duration::from_secs(1);

/// What is told, and to whom.
pub struct Acknowledger {
    pub topo: TopoServer,
    pub cell: String,
    /// `host:port`; the key has something random behind it.
    pub address: String,
    pub cache: Arc<SrvTopoCache>,
    pub vschema: Arc<VSchemaWatch>,
    /// Told after a new vschema is in use.
    pub vschema_changed: Arc<Notify>,
}

impl Acknowledger {
    /// Registers, and tells each change, until it is dropped.
    pub async fn run(self) {
        let name = format!("{}-{:08x}", self.address, rand::rng().random::<u32>());
        let mut changes = self.cache.changes();
        let mut told = None;
        let mut registration: Option<GateRegistration> = None;
        loop {
            changes.borrow_and_update();
            let present = self.present(&name);
            if told.as_ref() != Some(&present) {
                let ack = GateAck { updated_at: Some(now()), ..present.clone() };
                let done = match &registration {
                    Some(registration) => registration.update(&ack).await.map(drop),
                    None => self.topo.register_gate(&self.cell, &ack).await.map(|new| registration = Some(new)),
                };
                match done {
                    Ok(()) => told = Some(present),
                    Err(error) => {
                        tracing::info!("cannot tell the topology which serving records are in use: {error}");
                        told = None;
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
            let lost = async {
                match &registration {
                    Some(registration) => registration.lost().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.vschema_changed.notified() => {}
                () = lost => {
                    told = None;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn present(&self, name: &str) -> GateAck {
        let srv_keyspaces = self
            .cache
            .snapshot()
            .into_iter()
            .filter(|known| known.cell == self.cell && known.value.is_some())
            .map(|known| (known.keyspace, known.version.0))
            .collect();
        GateAck { gate: name.to_owned(), srv_keyspaces, srv_vschema: self.vschema.version(), updated_at: None }
    }
}

fn now() -> vttime::Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    vttime::Time {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}
