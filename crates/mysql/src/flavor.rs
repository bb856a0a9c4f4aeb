//! What differs between MariaDB and MySQL in administration and replication, as statements.

use std::time::Duration;

use crate::replication::{Position, ReplicationSource};

/// Which dialect of replication statements a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// MariaDB 10.x and 11.x.
    MariaDb,
    /// MySQL 5.6 to 8.3: MASTER and SLAVE words.
    Mysql,
    /// MySQL 8.4, 9.x: SOURCE and REPLICA words only.
    Mysql84,
}

impl Flavor {
    /// From `@@version` or the version in the handshake.
    pub fn from_version(_version: &str) -> Self {
        unimplemented!()
    }
    pub fn stop_slave(self) -> &'static str {
        unimplemented!()
    }
    pub fn start_slave(self) -> &'static str {
        unimplemented!()
    }
    pub fn stop_io_thread(self) -> &'static str {
        unimplemented!()
    }
    pub fn start_slave_until_after(self, _position: &Position) -> String {
        unimplemented!()
    }
    pub fn change_master(self, _source: &ReplicationSource) -> String {
        unimplemented!()
    }
    pub fn wait_for_position(self, _position: &Position, _timeout: Duration) -> String {
        unimplemented!()
    }
}
