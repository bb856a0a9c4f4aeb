//! A fail point at which a process waits until the test goes on.

use crate::{Cluster, wait_for};
use anyhow::Result;
use std::{path::PathBuf, time::Duration};

/// A place where a process waits for as long as a test wants: its fail point, and the files of that.
pub struct Hold(PathBuf);

impl Hold {
    /// `name` is that of a file in the directory of the cluster, without a dot.
    pub fn new(cluster: &Cluster, name: &str) -> Result<Self> {
        let hold = Self(cluster.dir().join(name));
        let _ = std::fs::remove_file(hold.reached());
        std::fs::write(&hold.0, "")?;
        Ok(hold)
    }

    fn reached(&self) -> PathBuf {
        self.0.with_extension("reached")
    }

    /// The value of `VT_FAILPOINTS`.
    pub fn at(&self, place: &str) -> String {
        format!("{place}=hold:{}", self.0.display())
    }

    pub fn wait_until_reached(&self) -> Result<()> {
        let reached = self.reached();
        wait_for("a fail point to be reached", Duration::from_secs(60), || reached.exists())
    }

    /// Lets the process go on, now and whenever it comes there again.
    pub fn release(&self) -> Result<()> {
        Ok(std::fs::remove_file(&self.0)?)
    }
}
