//! What a replica says about itself, and what it is told.

use std::time::Duration;

use vtproto::query::QueryResult;
use vtproto::replicationdata;

use super::{Position, PositionError};
use crate::flavor::Flavor;
use crate::wire;

/// Where a replica reads from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationSource {
    /// As in the tablet record; see [`replication_host`].
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    /// Between attempts to connect; whole seconds.
    pub connect_retry: Duration,
    pub ssl: bool,
}

/// The host as it goes into CHANGE MASTER and comes back from SHOW SLAVE STATUS. The client library inside MariaDB
/// takes `localhost` as "the default unix socket", whatever the port: the replica would talk to another server of
/// the machine, or to none. An address forces TCP.
pub fn replication_host(host: &str) -> &str {
    if host.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { host }
}

/// What SHOW SLAVE STATUS says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlaveStatus {
    /// What has been applied.
    pub position: Position,
    /// `Yes`, not `Connecting`.
    pub io_running: bool,
    pub sql_running: bool,
    /// `None` while the SQL thread stands or nothing is known.
    pub seconds_behind_master: Option<u32>,
    pub master_host: String,
    pub master_port: u16,
    /// Seconds.
    pub connect_retry: u32,
    pub last_io_error: String,
    pub last_sql_error: String,
}

impl SlaveStatus {
    /// Both threads run.
    pub fn running(&self) -> bool {
        self.io_running && self.sql_running
    }

    /// Reads the answer to [`Flavor::show_slave_status`]; `None` when the server is no replica.
    pub(crate) fn from_result(flavor: Flavor, result: &QueryResult) -> Result<Option<Self>, PositionError> {
        let mut status = Self::default();
        // MariaDB may have several named connections; ours is the one without a name.
        let name_column = result.fields.iter().position(|field| field.name == "Connection_name");
        let row = result.rows.iter().find(|row| match name_column {
            Some(column) => wire::cells(row).nth(column).flatten().is_some_and(<[u8]>::is_empty),
            None => true,
        });
        let Some(row) = row else { return Ok(None) };
        for (field, cell) in result.fields.iter().zip(wire::cells(row)) {
            let text = cell.map(String::from_utf8_lossy);
            let text = text.as_deref().unwrap_or_default();
            match field.name.as_str() {
                "Slave_IO_Running" | "Replica_IO_Running" => status.io_running = text == "Yes",
                "Slave_SQL_Running" | "Replica_SQL_Running" => status.sql_running = text == "Yes",
                "Seconds_Behind_Master" | "Seconds_Behind_Source" => status.seconds_behind_master = text.parse().ok(),
                "Master_Host" | "Source_Host" => status.master_host = text.to_owned(),
                "Master_Port" | "Source_Port" => status.master_port = text.parse().unwrap_or(0),
                "Connect_Retry" => status.connect_retry = text.parse().unwrap_or(0),
                "Last_IO_Error" => status.last_io_error = text.to_owned(),
                "Last_SQL_Error" => status.last_sql_error = text.to_owned(),
                "Gtid_Slave_Pos" if flavor == Flavor::MariaDb => status.position = flavor.parse_position(text)?,
                "Executed_Gtid_Set" if flavor != Flavor::MariaDb => status.position = flavor.parse_position(text)?,
                _ => {}
            }
        }
        Ok(Some(status))
    }
}

impl From<&SlaveStatus> for replicationdata::Status {
    fn from(status: &SlaveStatus) -> Self {
        Self {
            position: status.position.to_string(),
            slave_io_running: status.io_running,
            slave_sql_running: status.sql_running,
            seconds_behind_master: status.seconds_behind_master.unwrap_or(0),
            master_host: status.master_host.clone(),
            master_port: status.master_port.into(),
            master_connect_retry: i32::try_from(status.connect_retry).unwrap_or(i32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use vtproto::query::{Field, Row};

    use super::*;

    fn result(cells: &[(&str, &str)]) -> QueryResult {
        QueryResult {
            fields: cells.iter().map(|(name, _)| Field { name: (*name).into(), ..Field::default() }).collect(),
            rows: vec![Row {
                lengths: cells.iter().map(|(_, value)| value.len() as i64).collect(),
                values: cells.iter().flat_map(|(_, value)| value.bytes()).collect(),
            }],
            ..QueryResult::default()
        }
    }

    #[test]
    fn both_vocabularies_are_read() {
        let old = result(&[
            ("Connection_name", ""),
            ("Master_Host", "db1"),
            ("Master_Port", "17100"),
            ("Slave_IO_Running", "Connecting"),
            ("Slave_SQL_Running", "Yes"),
            ("Seconds_Behind_Master", "3"),
            ("Gtid_Slave_Pos", "0-100-7"),
        ]);
        let status = SlaveStatus::from_result(Flavor::MariaDb, &old).expect("readable").expect("a replica");
        assert!(!status.io_running && status.sql_running && !status.running());
        assert_eq!((status.position.to_string().as_str(), status.master_port), ("MariaDB/0-100-7", 17_100));

        let new = result(&[
            ("Source_Host", "db1"),
            ("Replica_IO_Running", "Yes"),
            ("Replica_SQL_Running", "Yes"),
            ("Executed_Gtid_Set", "00010203-0405-0607-0809-0a0b0c0d0e0f:1-5"),
        ]);
        let status = SlaveStatus::from_result(Flavor::Mysql84, &new).expect("readable").expect("a replica");
        assert!(status.running());
        let wire = replicationdata::Status::from(&status);
        assert_eq!(wire.position, "MySQL56/00010203-0405-0607-0809-0a0b0c0d0e0f:1-5");
        assert_eq!((wire.master_host.as_str(), wire.seconds_behind_master), ("db1", 0));
    }

    #[test]
    fn another_named_connection_is_not_ours() {
        let other = result(&[("Connection_name", "reporting"), ("Master_Host", "db9")]);
        assert_eq!(SlaveStatus::from_result(Flavor::MariaDb, &other), Ok(None));
        assert_eq!(SlaveStatus::from_result(Flavor::Mysql, &QueryResult::default()), Ok(None));
    }

    #[test]
    fn localhost_means_tcp() {
        assert_eq!(replication_host("localhost"), "127.0.0.1");
        assert_eq!(replication_host("db1"), "db1");
    }
}
