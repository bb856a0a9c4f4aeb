//! Replication positions and the status of a replica.
//!
//! - [`Position`]: what a server has executed, as it stands in topo records, journals and RPCs.
//! - [`Gtid`], [`GtidSet`]: one transaction and a set of them, per flavour.
//! - [`SlaveStatus`], [`ReplicationSource`]: what `SHOW SLAVE STATUS` says and `CHANGE MASTER` takes.

mod file_pos;
mod mariadb;
mod mysql56;
mod position;
mod status;

pub use file_pos::FilePos;
pub use mariadb::{MariaDbGtid, MariaDbGtidSet};
pub use mysql56::{Interval, Mysql56Gtid, Mysql56GtidSet, Sid};
pub use position::{Gtid, GtidSet, MAX_POSITION_LEN, Position, PositionError};
pub use status::{ReplicationSource, SlaveStatus, replication_host};
