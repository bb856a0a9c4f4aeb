//! The directory of one mysqld and its `my.cnf`.

use std::path::{Path, PathBuf};

/// Paths of one mysqld under `$VTDATAROOT`: `vt_%010d` by tablet uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TabletDir {
    path: PathBuf,
    uid: u32,
}

impl TabletDir {
    /// Under a data root.
    pub fn new(data_root: &Path, uid: u32) -> Self {
        Self { path: data_root.join(format!("vt_{uid:010}")), uid }
    }
    /// At an explicit path (`-tablet_dir`, relative ones under the data root).
    pub fn at(path: PathBuf, uid: u32) -> Self {
        Self { path, uid }
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn uid(&self) -> u32 {
        self.uid
    }
    pub fn my_cnf(&self) -> PathBuf {
        self.path.join("my.cnf")
    }
    pub fn socket(&self) -> PathBuf {
        self.path.join("mysql.sock")
    }
    pub fn pid_file(&self) -> PathBuf {
        self.path.join("mysql.pid")
    }
    pub fn error_log(&self) -> PathBuf {
        self.path.join("error.log")
    }
    pub fn slow_log(&self) -> PathBuf {
        self.path.join("slow-query.log")
    }
    pub fn general_log(&self) -> PathBuf {
        self.path.join("general.log")
    }
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }
    pub fn innodb_data(&self) -> PathBuf {
        self.path.join("innodb/data")
    }
    pub fn innodb_logs(&self) -> PathBuf {
        self.path.join("innodb/logs")
    }
    pub fn relay_logs(&self) -> PathBuf {
        self.path.join("relay-logs")
    }
    pub fn bin_logs(&self) -> PathBuf {
        self.path.join("bin-logs")
    }
    pub fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }
    /// Value of log-bin: a path prefix.
    pub fn bin_log_prefix(&self) -> PathBuf {
        self.bin_logs().join(format!("vt-{:010}-bin", self.uid))
    }
    /// Value of relay-log: a path prefix.
    pub fn relay_log_prefix(&self) -> PathBuf {
        self.relay_logs().join(format!("vt-{:010}-relay-bin", self.uid))
    }
}
