//! `my.cnf`: written from templates by server version, read back by key.
//!
//! Owns: the settings every tablet's mysqld needs (GTIDs, row-based binary log with full images, replicas that log what
//! they apply, semi-sync ready to be switched on), their spelling per version, and `EXTRA_MY_CNF`.
//! Invariant: the file alone is enough for a tablet that can be master and replica, on every supported server.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use mysql::mycnf::{Mycnf, MycnfError, TabletDir};

use crate::{
    error::{Error, Result},
    hook,
    install::{ServerVersion, Vendor},
};

/// The longest path that fits into a socket address.
const MAX_SOCKET_PATH: usize = 107;

/// Where one mysqld lives: what its `my.cnf` says, or is going to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MyCnf {
    pub server_id: u32,
    pub port: u16,
    pub socket: PathBuf,
    pub data_dir: PathBuf,
    pub innodb_data_home_dir: PathBuf,
    pub innodb_log_group_home_dir: PathBuf,
    pub error_log: PathBuf,
    pub slow_log: PathBuf,
    pub relay_log: PathBuf,
    pub bin_log: PathBuf,
    pub pid_file: PathBuf,
    pub tmp_dir: PathBuf,
}

impl MyCnf {
    /// The standard layout of a tablet directory, with a server id of its own.
    pub fn for_tablet(dir: &TabletDir, port: u16, socket: Option<PathBuf>) -> Self {
        Self {
            server_id: random_server_id(),
            port,
            socket: socket.unwrap_or_else(|| dir.socket()),
            data_dir: dir.data(),
            innodb_data_home_dir: dir.innodb_data(),
            innodb_log_group_home_dir: dir.innodb_logs(),
            error_log: dir.error_log(),
            slow_log: dir.slow_log(),
            relay_log: dir.relay_log_prefix(),
            bin_log: dir.bin_log_prefix(),
            pid_file: dir.pid_file(),
            tmp_dir: dir.tmp(),
        }
    }

    /// Reads the file of an existing tablet, whoever wrote it. What it leaves open has its usual place.
    pub fn read(path: &Path) -> Result<Self> {
        let file = Mycnf::read(path).map_err(invalid)?;
        Self::from_file(&file)
    }

    fn from_file(file: &Mycnf) -> Result<Self> {
        let data_dir = file.data_dir().map_err(invalid)?;
        let beside = |name: &str| data_dir.parent().unwrap_or(&data_dir).join(name);
        Ok(Self {
            server_id: file.server_id().map_err(invalid)?,
            port: file.port().map_err(invalid)?,
            socket: file.socket().map_err(invalid)?,
            innodb_data_home_dir: file.innodb_data_home_dir().unwrap_or_else(|_| data_dir.clone()),
            innodb_log_group_home_dir: file.innodb_log_group_home_dir().unwrap_or_else(|_| data_dir.clone()),
            error_log: file.error_log().unwrap_or_else(|_| beside("error.log")),
            slow_log: file.slow_log().unwrap_or_else(|_| beside("slow-query.log")),
            relay_log: file.relay_log().unwrap_or_else(|_| beside("relay-logs/relay-bin")),
            bin_log: file.bin_log().unwrap_or_else(|_| beside("bin-logs/bin")),
            pid_file: file.pid_file().unwrap_or_else(|_| beside("mysql.pid")),
            tmp_dir: file.tmp_dir().unwrap_or_else(|_| beside("tmp")),
            data_dir,
        })
    }

    /// The whole file for a server of that version.
    pub async fn render(&self, version: ServerVersion) -> Result<String> {
        let environment =
            self.substitutions().into_iter().map(|(name, value)| (format!("MYCNF_{name}"), value)).collect();
        let base = match hook::run_optional("make_mycnf", &[], &environment).await {
            None => self.built_in(version),
            Some(result) if result.exit_status == 0 => result.stdout,
            Some(result) => {
                return Err(Error::Hook {
                    name: "make_mycnf".to_owned(),
                    status: result.exit_status,
                    output: result.stderr,
                });
            }
        };
        Ok(self.fill(&(base + &extra_files()?)))
    }

    fn built_in(&self, version: ServerVersion) -> String {
        let mut text = format!("# Written by mysqlctl for {version}.\n[mysqld]\n");
        text.push_str(COMMON);
        text.push_str(if version.has_only_new_words() { NEW_WORDS } else { OLD_WORDS });
        text.push_str(&flavor_settings(version));
        text
    }

    /// Values under the names that templates use: `{{.DataDir}}`.
    fn substitutions(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.display().to_string();
        vec![
            ("ServerID", self.server_id.to_string()),
            ("MysqlPort", self.port.to_string()),
            ("DataDir", path(&self.data_dir)),
            ("InnodbDataHomeDir", path(&self.innodb_data_home_dir)),
            ("InnodbLogGroupHomeDir", path(&self.innodb_log_group_home_dir)),
            ("SocketFile", path(&self.socket)),
            ("ErrorLogPath", path(&self.error_log)),
            ("SlowLogPath", path(&self.slow_log)),
            ("RelayLogPath", path(&self.relay_log)),
            ("RelayLogIndexPath", format!("{}.index", path(&self.relay_log))),
            ("BinLogPath", path(&self.bin_log)),
            ("PidFile", path(&self.pid_file)),
            ("TmpDir", path(&self.tmp_dir)),
            ("SlaveLoadTmpDir", path(&self.tmp_dir)),
        ]
    }

    fn fill(&self, template: &str) -> String {
        self.substitutions()
            .into_iter()
            .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{.{name}}}}}"), &value))
    }

    /// What mysqld would refuse later with a less telling message.
    pub fn check(&self) -> Result<()> {
        let length = self.socket.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            return Err(Error::Invalid(format!(
                "the socket path {} has {length} bytes, a socket's may have {MAX_SOCKET_PATH}: give a shorter one with \
                 -mysql_socket, or move VTDATAROOT",
                self.socket.display()
            )));
        }
        Ok(())
    }
}

/// A server id for a new mysqld. Ids must differ within a replication tree and small ones are often used by hand.
pub fn random_server_id() -> u32 {
    rand::random_range(100..1 << 31)
}

fn invalid(error: MycnfError) -> Error {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Error::Invalid(format!("{error}{cause}"))
}

/// The files that `EXTRA_MY_CNF` lists, separated by colons, each under a line that names it.
fn extra_files() -> Result<String> {
    let mut text = String::new();
    let list = env::var("EXTRA_MY_CNF").unwrap_or_default();
    for path in list.split(':').filter(|path| !path.is_empty()) {
        let content = fs::read_to_string(path).map_err(Error::file("read the EXTRA_MY_CNF file", path))?;
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## {path}\n{content}");
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

const COMMON: &str = "
# Places
datadir = {{.DataDir}}
innodb_data_home_dir = {{.InnodbDataHomeDir}}
innodb_log_group_home_dir = {{.InnodbLogGroupHomeDir}}
tmpdir = {{.TmpDir}}
socket = {{.SocketFile}}
pid-file = {{.PidFile}}
log-error = {{.ErrorLogPath}}
slow-query-log-file = {{.SlowLogPath}}
log-bin = {{.BinLogPath}}
relay-log = {{.RelayLogPath}}
relay-log-index = {{.RelayLogIndexPath}}

# Identity
port = {{.MysqlPort}}
server-id = {{.ServerID}}

# The tablet decides who may write: a mysqld that has just started may not.
read-only

# Clients come from the tablet beside it and from replicas by address.
skip-name-resolve
connect_timeout = 30
max_connections = 500
max_allowed_packet = 64M
innodb_lock_wait_timeout = 20
slow-query-log
long_query_time = 2

# Whole rows travel to replicas and to filtered replication.
binlog_format = ROW
loose_binlog_row_image = FULL
loose_binlog_row_metadata = FULL
sync_binlog = 1
";

// The tablet starts replication, once it knows the master.
const OLD_WORDS: &str = "
skip_slave_start
slave_load_tmpdir = {{.SlaveLoadTmpDir}}
slave_net_timeout = 60
log_slave_updates = ON
";

const NEW_WORDS: &str = "
skip_replica_start
replica_load_tmpdir = {{.SlaveLoadTmpDir}}
replica_net_timeout = 60
log_replica_updates = ON
";

/// A transaction waits for an acknowledgement as long as it takes: a master without replicas must not lose what it has
/// told a client. Milliseconds.
const SEMI_SYNC_TIMEOUT: &str = "1000000000000000000";

fn flavor_settings(version: ServerVersion) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut line = |text: &str| lines.push(text.to_owned());
    match version.vendor {
        Vendor::MariaDb => {
            line("gtid_strict_mode = ON");
            // Otherwise one thread applies what many clients wrote, and falls behind. Commits keep their order. MySQL has
            // four by default since 8.0.27.
            line("slave_parallel_threads = 4");
            line("innodb_stats_persistent = 0");
            line("character_set_server = utf8");
            line("collation_server = utf8_general_ci");
            line("expire_logs_days = 3");
            if !version.at_least(10, 2, 0) {
                line("sql_mode = STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION");
            }
            if !version.at_least(10, 3, 0) {
                // Part of the server since 10.3.
                line("plugin-load = rpl_semi_sync_master=semisync_master.so;rpl_semi_sync_slave=semisync_slave.so");
            }
        }
        Vendor::MySql => {
            line("gtid_mode = ON");
            line("enforce_gtid_consistency = ON");
            line("relay_log_recovery = ON");
            if version.at_least(8, 0, 0) {
                line("binlog_expire_logs_seconds = 259200");
                line("mysqlx = 0");
            } else {
                line("expire_logs_days = 3");
                line("master_info_repository = TABLE");
                line("relay_log_info_repository = TABLE");
                line("character_set_server = utf8");
                line("collation_server = utf8_general_ci");
            }
            if version.has_only_new_words() {
                line("plugin-load = rpl_semi_sync_source=semisync_source.so;rpl_semi_sync_replica=semisync_replica.so");
            } else {
                if version.at_least(8, 0, 0) {
                    line("default_authentication_plugin = mysql_native_password");
                }
                line("plugin-load = rpl_semi_sync_master=semisync_master.so;rpl_semi_sync_slave=semisync_slave.so");
            }
        }
    }
    // The settings of a plugin that failed to load must not keep the server down.
    let prefix = if version.is_mariadb() && version.at_least(10, 3, 0) { "" } else { "loose_" };
    let (source, no_replica) =
        if version.has_only_new_words() { ("source", "wait_no_replica") } else { ("master", "wait_no_slave") };
    lines.push(format!("{prefix}rpl_semi_sync_{source}_timeout = {SEMI_SYNC_TIMEOUT}"));
    lines.push(format!("{prefix}rpl_semi_sync_{source}_{no_replica} = 1"));
    format!("\n# {version}\n{}\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> MyCnf {
        MyCnf::for_tablet(&TabletDir::new(Path::new("/data"), 100), 17100, None)
    }

    fn text(vendor: Vendor, major: u32, minor: u32) -> String {
        let cnf = sample();
        cnf.fill(&cnf.built_in(ServerVersion::new(vendor, major, minor, 11)))
    }

    #[test]
    fn what_is_written_reads_back() {
        let cnf = sample();
        let written = cnf.fill(&cnf.built_in(ServerVersion::new(Vendor::MariaDb, 10, 11, 19)));
        assert_eq!(MyCnf::from_file(&Mycnf::parse(Path::new("my.cnf"), &written)).unwrap(), cnf);
        assert!(!written.contains("{{"), "{written}");
    }

    #[test]
    fn words_fit_the_version() {
        let mariadb = text(Vendor::MariaDb, 10, 11);
        assert!(mariadb.contains("gtid_strict_mode") && mariadb.contains("\nrpl_semi_sync_master_wait_no_slave = 1"));
        assert!(mariadb.contains("log_slave_updates") && !mariadb.contains("plugin-load"));
        assert!(mariadb.contains("slave_parallel_threads = 4"));
        assert!(text(Vendor::MariaDb, 10, 2).contains("plugin-load"));

        let mysql8 = text(Vendor::MySql, 8, 0);
        assert!(mysql8.contains("default_authentication_plugin") && mysql8.contains("semisync_master.so"));

        let mysql9 = text(Vendor::MySql, 9, 7);
        for gone in ["slave", "master", "native_password", "expire_logs_days"] {
            assert!(!mysql9.contains(gone), "{gone} in {mysql9}");
        }
        assert!(mysql9.contains("loose_rpl_semi_sync_source_timeout") && mysql9.contains("skip_replica_start"));
    }

    #[test]
    fn a_file_without_a_port_is_refused() {
        let text = "[mysqld]\ndatadir=/d\nserver-id=5\nsocket=/s\n";
        let error = MyCnf::from_file(&Mycnf::parse(Path::new("/t/my.cnf"), text)).unwrap_err().to_string();
        assert_eq!(error, "no value in /t/my.cnf for port");
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_explained() {
        let mut cnf = sample();
        cnf.socket = PathBuf::from(format!("/{}", "x".repeat(120)));
        assert!(cnf.check().unwrap_err().to_string().contains("-mysql_socket"));
    }
}
