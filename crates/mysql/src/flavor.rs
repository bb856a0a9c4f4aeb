//! What differs between MariaDB and MySQL in administration and replication, as statements.
//!
//! Pure: [`crate::admin`] runs them. MySQL 8.4 removed the words MASTER and SLAVE; MariaDB keeps them.

use std::time::Duration;

use crate::replication::{Position, PositionError, ReplicationSource, replication_host};

/// Which dialect of replication statements a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// MariaDB 10.x and later.
    MariaDb,
    /// MySQL 5.6 to 8.3.
    Mysql,
    /// MySQL 8.4, 9.x: SOURCE and REPLICA words only.
    Mysql84,
}

/// A value as a string literal.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        if matches!(c, '\'' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

impl Flavor {
    /// From `@@version` or the version in the handshake: `10.11.6-MariaDB-log`, `8.0.36`, `9.7.0`.
    pub fn from_version(version: &str) -> Self {
        if version.contains("MariaDB") {
            return Self::MariaDb;
        }
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
        let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if (major, minor) >= (8, 4) { Self::Mysql84 } else { Self::Mysql }
    }

    /// The name in front of this server's positions.
    pub fn position_flavor(self) -> &'static str {
        match self {
            Self::MariaDb => "MariaDB",
            Self::Mysql | Self::Mysql84 => "MySQL56",
        }
    }

    /// A GTID set as the server prints it.
    pub fn parse_position(self, text: &str) -> Result<Position, PositionError> {
        Position::in_flavor(self.position_flavor(), text)
    }

    /// Picks the words this server knows.
    fn word<T>(self, old: T, new: T) -> T {
        match self {
            Self::MariaDb | Self::Mysql => old,
            Self::Mysql84 => new,
        }
    }

    pub fn stop_slave(self) -> &'static str {
        self.word("STOP SLAVE", "STOP REPLICA")
    }

    pub fn start_slave(self) -> &'static str {
        self.word("START SLAVE", "START REPLICA")
    }

    pub fn stop_io_thread(self) -> &'static str {
        self.word("STOP SLAVE IO_THREAD", "STOP REPLICA IO_THREAD")
    }

    pub fn start_io_thread(self) -> &'static str {
        self.word("START SLAVE IO_THREAD", "START REPLICA IO_THREAD")
    }

    /// Forgets the relay logs, keeps the source.
    pub fn reset_slave(self) -> &'static str {
        self.word("RESET SLAVE", "RESET REPLICA")
    }

    /// Forgets the source too.
    pub fn reset_slave_all(self) -> &'static str {
        self.word("RESET SLAVE ALL", "RESET REPLICA ALL")
    }

    /// Empties the binary logs and the set of executed GTIDs.
    pub fn reset_master(self) -> &'static str {
        self.word("RESET MASTER", "RESET BINARY LOGS AND GTIDS")
    }

    pub fn show_slave_status(self) -> &'static str {
        match self {
            Self::MariaDb => "SHOW ALL SLAVES STATUS",
            Self::Mysql => "SHOW SLAVE STATUS",
            Self::Mysql84 => "SHOW REPLICA STATUS",
        }
    }

    /// File and offset of the binary log.
    pub fn show_master_status(self) -> &'static str {
        self.word("SHOW MASTER STATUS", "SHOW BINARY LOG STATUS")
    }

    /// One row, one column: the GTID set of what this server has written to its binary log.
    pub fn master_position(self) -> &'static str {
        match self {
            Self::MariaDb => "SELECT @@GLOBAL.gtid_binlog_pos",
            Self::Mysql | Self::Mysql84 => "SELECT @@GLOBAL.gtid_executed",
        }
    }

    /// One row, one column: a GTID set that readers see the rows of. MariaDB has none of what a master has written.
    pub fn committed_position(self) -> &'static str {
        match self {
            Self::MariaDb => "SELECT @@GLOBAL.gtid_slave_pos",
            Self::Mysql | Self::Mysql84 => "SELECT @@GLOBAL.gtid_executed",
        }
    }

    /// Back to a server that has never replicated and has written nothing.
    pub fn reset_replication(self) -> Vec<String> {
        let mut statements = vec![self.stop_slave().into(), self.reset_slave_all().into(), self.reset_master().into()];
        if self == Self::MariaDb {
            statements.push("SET GLOBAL gtid_slave_pos = ''".into());
        }
        statements
    }

    /// Makes the server believe it has executed `position`. Replication must stand still.
    pub fn set_slave_position(self, position: &Position) -> Vec<String> {
        let set = quote(&position.set_text());
        match self {
            Self::MariaDb => vec![
                self.reset_master().into(),
                format!("SET GLOBAL gtid_slave_pos = {set}"),
                format!("SET GLOBAL gtid_binlog_state = {set}"),
            ],
            Self::Mysql | Self::Mysql84 => {
                vec![self.reset_master().into(), format!("SET GLOBAL gtid_purged = {set}")]
            }
        }
    }

    pub fn change_master(self, source: &ReplicationSource) -> String {
        let word = self.word("MASTER", "SOURCE");
        let mut options = vec![
            format!("{word}_HOST = {}", quote(replication_host(&source.host))),
            format!("{word}_PORT = {}", source.port),
            format!("{word}_USER = {}", quote(&source.user)),
            format!("{word}_PASSWORD = {}", quote(&source.password)),
            format!("{word}_CONNECT_RETRY = {}", source.connect_retry.as_secs()),
        ];
        if source.ssl {
            options.push(format!("{word}_SSL = 1"));
        }
        match self {
            Self::MariaDb => options.push("MASTER_USE_GTID = current_pos".into()),
            Self::Mysql => options.push("MASTER_AUTO_POSITION = 1".into()),
            // The default login method there sends no password without TLS or the source's key.
            Self::Mysql84 => options.extend(["GET_SOURCE_PUBLIC_KEY = 1".into(), "SOURCE_AUTO_POSITION = 1".into()]),
        }
        format!("{} TO\n  {}", self.word("CHANGE MASTER", "CHANGE REPLICATION SOURCE"), options.join(",\n  "))
    }

    /// One row, one column; see [`Flavor::wait_succeeded`].
    pub fn wait_for_position(self, position: &Position, timeout: Duration) -> String {
        let set = quote(&position.set_text());
        match self {
            Self::MariaDb => format!("SELECT MASTER_GTID_WAIT({set}, {:.6})", timeout.as_secs_f64()),
            // Whole seconds, and 0 would be no bound at all.
            Self::Mysql => {
                format!("SELECT WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS({set}, {})", timeout.as_secs_f64().ceil().max(1.0))
            }
            Self::Mysql84 => {
                format!("SELECT WAIT_FOR_EXECUTED_GTID_SET({set}, {:.6})", timeout.as_secs_f64().max(0.001))
            }
        }
    }

    /// Reads the answer to [`Flavor::wait_for_position`]: reached, timed out, or `None` when replication stands.
    pub fn wait_succeeded(self, answer: Option<&str>) -> Option<bool> {
        match (self, answer?) {
            (Self::Mysql84, number) => Some(number == "0"),
            (_, "-1") => Some(false),
            // MySQL counts the events it waited for; MariaDB says 0.
            (_, _) => Some(true),
        }
    }

    pub fn start_slave_until_after(self, position: &Position) -> String {
        let set = position.set_text();
        match self {
            Self::MariaDb => format!("START SLAVE UNTIL master_gtid_pos = \"{set}\""),
            Self::Mysql => format!("START SLAVE UNTIL SQL_AFTER_GTIDS = '{set}'"),
            Self::Mysql84 => format!("START REPLICA UNTIL SQL_AFTER_GTIDS = '{set}'"),
        }
    }

    /// Ends being a replica and begins a new binary log.
    pub fn promote(self) -> Vec<String> {
        vec![self.stop_slave().into(), self.reset_slave_all().into(), "FLUSH BINARY LOGS".into()]
    }

    /// The repair of `Slave failed to initialize relay log info structure from the repository`.
    pub fn restart_slave(self) -> Vec<String> {
        vec![self.stop_slave().into(), self.reset_slave().into(), self.start_slave().into()]
    }

    /// Names of the semi-sync plugins and their libraries, as source and as replica. MariaDB has them built in.
    pub fn semi_sync_plugins(self) -> Option<[(&'static str, &'static str); 2]> {
        match self {
            Self::MariaDb => None,
            Self::Mysql => {
                Some([("rpl_semi_sync_master", "semisync_master.so"), ("rpl_semi_sync_slave", "semisync_slave.so")])
            }
            Self::Mysql84 => {
                Some([("rpl_semi_sync_source", "semisync_source.so"), ("rpl_semi_sync_replica", "semisync_replica.so")])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "00010203-0405-0607-0809-0a0b0c0d0e0f";

    fn source(host: &str) -> ReplicationSource {
        ReplicationSource {
            host: host.into(),
            port: 17_100,
            user: "vt_repl".into(),
            password: "it's".into(),
            connect_retry: Duration::from_secs(10),
            ssl: false,
        }
    }

    #[test]
    fn versions() {
        for (version, flavor) in [
            ("10.11.6-MariaDB-0+deb12u1", Flavor::MariaDb),
            ("5.5.5-10.4.2-MariaDB", Flavor::MariaDb),
            ("11.4.2-MariaDB-log", Flavor::MariaDb),
            ("5.7.44-log", Flavor::Mysql),
            ("8.0.36-28", Flavor::Mysql),
            ("8.3.0", Flavor::Mysql),
            ("8.4.0", Flavor::Mysql84),
            ("9.7.0", Flavor::Mysql84),
            ("10.0.0", Flavor::Mysql84),
        ] {
            assert_eq!(Flavor::from_version(version), flavor, "{version}");
        }
    }

    #[test]
    fn change_master_per_flavour() {
        assert_eq!(
            Flavor::MariaDb.change_master(&source("localhost")),
            "CHANGE MASTER TO\n  MASTER_HOST = '127.0.0.1',\n  MASTER_PORT = 17100,\n  MASTER_USER = 'vt_repl',\n  \
             MASTER_PASSWORD = 'it\\'s',\n  MASTER_CONNECT_RETRY = 10,\n  MASTER_USE_GTID = current_pos"
        );
        let mysql = Flavor::Mysql.change_master(&source("db1"));
        assert!(mysql.contains("MASTER_HOST = 'db1'") && mysql.ends_with("MASTER_AUTO_POSITION = 1"));
        let mysql84 = Flavor::Mysql84.change_master(&ReplicationSource { ssl: true, ..source("db1") });
        assert!(mysql84.starts_with("CHANGE REPLICATION SOURCE TO\n  SOURCE_HOST = 'db1'"));
        assert!(mysql84.contains("SOURCE_SSL = 1") && mysql84.contains("GET_SOURCE_PUBLIC_KEY = 1"));
        assert!(!mysql84.contains("MASTER"));
    }

    #[test]
    fn positions_per_flavour() {
        let mariadb: Position = "MariaDB/0-100-7".parse().expect("a position");
        assert_eq!(
            Flavor::MariaDb.set_slave_position(&mariadb),
            ["RESET MASTER", "SET GLOBAL gtid_slave_pos = '0-100-7'", "SET GLOBAL gtid_binlog_state = '0-100-7'"]
        );
        assert_eq!(
            Flavor::MariaDb.wait_for_position(&mariadb, Duration::from_millis(1500)),
            "SELECT MASTER_GTID_WAIT('0-100-7', 1.500000)"
        );
        let mysql: Position = format!("MySQL56/{A}:1-5").parse().expect("a position");
        assert_eq!(
            Flavor::Mysql84.set_slave_position(&mysql),
            ["RESET BINARY LOGS AND GTIDS".to_owned(), format!("SET GLOBAL gtid_purged = '{A}:1-5'")]
        );
        assert_eq!(
            Flavor::Mysql.wait_for_position(&mysql, Duration::from_millis(100)),
            format!("SELECT WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS('{A}:1-5', 1)")
        );
        assert_eq!(
            Flavor::Mysql.start_slave_until_after(&mysql),
            format!("START SLAVE UNTIL SQL_AFTER_GTIDS = '{A}:1-5'")
        );
    }

    #[test]
    fn the_answer_of_a_wait() {
        assert_eq!(Flavor::MariaDb.wait_succeeded(Some("0")), Some(true));
        assert_eq!(Flavor::MariaDb.wait_succeeded(Some("-1")), Some(false));
        assert_eq!(Flavor::Mysql.wait_succeeded(Some("12")), Some(true));
        assert_eq!(Flavor::Mysql.wait_succeeded(None), None);
        assert_eq!(Flavor::Mysql84.wait_succeeded(Some("1")), Some(false));
    }

    #[test]
    fn no_old_word_for_a_new_server() {
        let flavor = Flavor::Mysql84;
        let mut all = [flavor.reset_replication(), flavor.promote(), flavor.restart_slave()].concat();
        all.extend(
            [flavor.show_slave_status(), flavor.show_master_status(), flavor.stop_io_thread()].map(String::from),
        );
        for statement in all {
            assert!(!statement.contains("SLAVE") && !statement.contains("MASTER"), "{statement}");
        }
    }
}
