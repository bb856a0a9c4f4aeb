//! The directory of one mysqld and its `my.cnf`.
//!
//! [`TabletDir`] says where things are; [`Mycnf`] reads what a file says. Writing the file is mysqlctl's.

use std::collections::BTreeMap;
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

    /// Every directory that has to exist before mysqld starts.
    pub fn directories(&self) -> [PathBuf; 6] {
        [self.data(), self.innodb_data(), self.innodb_logs(), self.relay_logs(), self.bin_logs(), self.tmp()]
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

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MycnfError {
    #[error("read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("no value in {path} for {key}")]
    Missing { path: PathBuf, key: &'static str },
    #[error("bad value in {path} for {key}: {value:?}")]
    Bad { path: PathBuf, key: &'static str, value: String },
}

/// The settings for mysqld in a `my.cnf`. Option names are kept with `-`; the file may use `_` as well. The last
/// of several values wins, as in mysqld.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mycnf {
    path: PathBuf,
    values: BTreeMap<String, String>,
}

impl Mycnf {
    pub fn read(path: &Path) -> Result<Self, MycnfError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| MycnfError::Read { path: path.to_owned(), source })?;
        Ok(Self::parse(path, &text))
    }

    /// `path` is only for error texts. Lines in front of the first section count, sections of other programs do not.
    /// `!include` lines are not followed: files written by mysqlctl have none.
    pub fn parse(path: &Path, text: &str) -> Self {
        let mut values = BTreeMap::new();
        let mut ours = true;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';', '!']) {
                continue;
            }
            if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                let section = section.trim();
                ours = ["mysqld", "server", "mariadb", "mariadbd"]
                    .iter()
                    .any(|name| section == *name || section.strip_prefix(name).is_some_and(|v| v.starts_with('-')));
                continue;
            }
            if ours {
                let (key, value) = line.split_once('=').unwrap_or((line, ""));
                values.insert(normal(key), unquoted(value).to_owned());
            }
        }
        Self { path: path.to_owned(), values }
    }

    /// A value by option name; `-` and `_` are the same. An option without value is empty text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(&normal(key)).map(String::as_str)
    }

    fn required(&self, key: &'static str) -> Result<&str, MycnfError> {
        self.get(key)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| MycnfError::Missing { path: self.path.clone(), key })
    }

    fn number<T: std::str::FromStr>(&self, key: &'static str) -> Result<T, MycnfError> {
        let value = self.required(key)?;
        value.parse().map_err(|_| MycnfError::Bad { path: self.path.clone(), key, value: value.to_owned() })
    }

    fn file(&self, key: &'static str) -> Result<PathBuf, MycnfError> {
        self.required(key).map(PathBuf::from)
    }

    pub fn server_id(&self) -> Result<u32, MycnfError> {
        self.number("server-id")
    }

    /// TCP port of mysqld.
    pub fn port(&self) -> Result<u16, MycnfError> {
        self.number("port")
    }

    pub fn socket(&self) -> Result<PathBuf, MycnfError> {
        self.file("socket")
    }

    pub fn data_dir(&self) -> Result<PathBuf, MycnfError> {
        self.file("datadir")
    }

    pub fn innodb_data_home_dir(&self) -> Result<PathBuf, MycnfError> {
        self.file("innodb_data_home_dir")
    }

    pub fn innodb_log_group_home_dir(&self) -> Result<PathBuf, MycnfError> {
        self.file("innodb_log_group_home_dir")
    }

    pub fn pid_file(&self) -> Result<PathBuf, MycnfError> {
        self.file("pid-file")
    }

    pub fn error_log(&self) -> Result<PathBuf, MycnfError> {
        self.file("log-error")
    }

    pub fn slow_log(&self) -> Result<PathBuf, MycnfError> {
        self.file("slow-query-log-file")
    }

    pub fn general_log(&self) -> Result<PathBuf, MycnfError> {
        self.file("general_log_file")
    }

    pub fn tmp_dir(&self) -> Result<PathBuf, MycnfError> {
        self.file("tmpdir")
    }

    /// Path prefix of the binary logs.
    pub fn bin_log(&self) -> Result<PathBuf, MycnfError> {
        self.file("log-bin")
    }

    /// Path prefix of the relay logs.
    pub fn relay_log(&self) -> Result<PathBuf, MycnfError> {
        self.file("relay-log")
    }
}

fn normal(key: &str) -> String {
    key.trim().replace('_', "-").to_ascii_lowercase()
}

/// A value without its quotes or the comment behind it.
fn unquoted(value: &str) -> &str {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some((inside, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inside;
        }
    }
    // Like mysqld: `#` begins a comment only behind a blank.
    value.split_once(" #").map_or(value, |(value, _)| value.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_tablet_100() {
        let dir = TabletDir::new(Path::new("/vt"), 100);
        assert_eq!(dir.socket(), Path::new("/vt/vt_0000000100/mysql.sock"));
        assert_eq!(dir.bin_log_prefix(), Path::new("/vt/vt_0000000100/bin-logs/vt-0000000100-bin"));
        assert!(dir.directories().contains(&PathBuf::from("/vt/vt_0000000100/innodb/logs")));
    }

    #[test]
    fn a_file_as_mysqlctl_writes_it() {
        let text = "[mysqld]\n# a comment\nserver-id = 1234\nport = 17100\nsocket = /vt/mysql.sock\nread-only\n\
                    slow_query_log_file = '/vt/slow # 1.log'\ntmpdir=/vt/tmp # scratch\nport = 17101\n\
                    [client]\nport = 1\n[mysqld-8.0]\nmysqlx = 0\n";
        let cnf = Mycnf::parse(Path::new("my.cnf"), text);
        assert_eq!(cnf.server_id().ok(), Some(1234));
        assert_eq!(cnf.port().ok(), Some(17_101));
        assert_eq!(cnf.slow_log().ok(), Some(PathBuf::from("/vt/slow # 1.log")));
        assert_eq!(cnf.tmp_dir().ok(), Some(PathBuf::from("/vt/tmp")));
        assert_eq!((cnf.get("read_only"), cnf.get("mysqlx")), (Some(""), Some("0")));
        assert_eq!(cnf.data_dir().map_err(|e| e.to_string()), Err("no value in my.cnf for datadir".into()));
    }

    #[test]
    fn a_number_that_is_none() {
        let cnf = Mycnf::parse(Path::new("my.cnf"), "port = many");
        assert_eq!(cnf.port().map_err(|e| e.to_string()), Err("bad value in my.cnf for port: \"many\"".into()));
        assert!(Mycnf::read(Path::new("/nonexistent/my.cnf")).is_err());
    }
}
