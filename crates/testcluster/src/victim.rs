//! Processes of a cluster that a test kills and starts again.

use anyhow::Result;

use crate::Cluster;

/// A process, tablets and mysqlds by the index of their tablet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Vttablet(usize),
    Mysqld(usize),
    Vtctld,
    Vtgate,
    Etcd,
}

impl Victim {
    /// Whether a test is to kill everything everywhere (`VT_TEST_KILLS=all`) instead of a few things at a few places.
    pub fn all_asked_for() -> bool {
        std::env::var("VT_TEST_KILLS").is_ok_and(|value| value == "all")
    }
}

impl Cluster {
    /// Ends a process as `kill -9` does.
    pub fn kill(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::Vttablet(index) => self.kill_vttablet(index),
            Victim::Mysqld(index) => self.kill_mysqld(index)?,
            Victim::Vtctld => self.kill_vtctld(),
            Victim::Vtgate => self.kill_vtgate(),
            Victim::Etcd => self.kill_etcd(),
        }
        Ok(())
    }

    /// Starts what was killed, and waits until it answers.
    pub fn restart(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::Vttablet(index) => self.start_vttablet(index),
            Victim::Mysqld(index) => self.start_mysqld(index),
            Victim::Vtctld => self.start_vtctld(),
            Victim::Vtgate => self.start_vtgate(),
            Victim::Etcd => self.start_etcd(),
        }
    }
}
