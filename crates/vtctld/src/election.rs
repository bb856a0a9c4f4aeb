//! The election among vtctlds, for what only one of them may do: run workflows.
//!
//! `-workflow_manager_init` starts a manager, `-workflow_manager_use_election` makes it wait until this
//! process is elected in the topology's election `vtctld`. There are no workflows yet, so that being
//! elected only shows.

use std::sync::Arc;

use servenv::Env;
use tokio::sync::watch;
use topo::{MasterParticipation, TopoServer};

use crate::Error;

/// The name of the election, which all vtctlds of a cluster share.
const NAME: &str = "vtctld";

/// A candidacy.
pub struct Election {
    participation: Arc<dyn MasterParticipation>,
    state: watch::Receiver<String>,
}

impl Election {
    /// Joins the election if the flags ask for it.
    pub fn start(env: &Env, topo: &TopoServer) -> Result<Option<Self>, Error> {
        let flags = env.flags();
        let (init, use_election) = (flags.bool("workflow_manager_init"), flags.bool("workflow_manager_use_election"));
        let disabled = flags.list("workflow_manager_disable");
        if !disabled.is_empty() {
            tracing::info!("workflow factories disabled: {}", disabled.join(", "));
        }
        if !init || !use_election {
            return Ok(None);
        }
        let id = format!("{}:{}", host(), flags.int("port"));
        let participation = topo.new_master_participation(NAME, &id);
        let (sender, state) = watch::channel(format!("{id} waits to be elected"));
        let candidate = participation.clone();
        tokio::spawn(async move {
            loop {
                match candidate.wait_for_mastership().await {
                    Ok(mastership) => {
                        tracing::info!(id, "elected among vtctlds");
                        sender.send_replace(format!("{id} is the elected vtctld"));
                        mastership.cancelled().await;
                        tracing::info!(id, "no longer the elected vtctld");
                        sender.send_replace(format!("{id} waits to be elected"));
                    }
                    Err(topo::TopoError::Interrupted { .. }) => return,
                    Err(error) => {
                        tracing::warn!(%error, "the election failed, trying again");
                        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
                    }
                }
            }
        });
        Ok(Some(Self { participation, state }))
    }

    /// Who is elected, as text.
    pub fn state(&self) -> watch::Receiver<String> {
        self.state.clone()
    }

    /// Leaves the election, so that another candidate need not wait for the lease to run out.
    pub async fn stop(&self) {
        self.participation.stop().await;
    }
}

/// This machine, as other vtctlds may call it.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "localhost".to_owned())
}
