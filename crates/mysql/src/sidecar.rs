//! The tables of the `_vt` database, which every mysqld of a cluster carries.
//!
//! They are made on each server by itself, outside the binary log, before its replication position is set. Leaving that
//! to replication fails on MariaDB 10.11: it does not log `CREATE TABLE IF NOT EXISTS` of a table that exists.

use crate::client::{ClientError, Connection};

/// The streams of filtered replication into this server.
pub const VREPLICATION: &str = "CREATE TABLE IF NOT EXISTS _vt.vreplication (
  id INT AUTO_INCREMENT,
  workflow VARBINARY(1000),
  source VARBINARY(10000) NOT NULL,
  pos VARBINARY(10000) NOT NULL,
  stop_pos VARBINARY(10000) DEFAULT NULL,
  max_tps BIGINT NOT NULL,
  max_replication_lag BIGINT NOT NULL,
  cell VARBINARY(1000) DEFAULT NULL,
  tablet_types VARBINARY(100) DEFAULT NULL,
  time_updated BIGINT NOT NULL,
  transaction_timestamp BIGINT NOT NULL,
  state VARBINARY(100) NOT NULL,
  message VARBINARY(1000) DEFAULT NULL,
  db_name VARBINARY(255) NOT NULL,
  PRIMARY KEY (id)
) ENGINE=InnoDB";
/// What migrations have decided, for those who read the streams of the sources.
pub const RESHARDING_JOURNAL: &str = "CREATE TABLE IF NOT EXISTS _vt.resharding_journal (
  id BIGINT,
  db_name VARBINARY(255),
  val BLOB,
  PRIMARY KEY (id)
) ENGINE=InnoDB";
/// How far each table of a stream was copied.
pub const COPY_STATE: &str = "CREATE TABLE IF NOT EXISTS _vt.copy_state (
  vrepl_id INT,
  table_name VARBINARY(128),
  lastpk VARBINARY(2000),
  PRIMARY KEY (vrepl_id, table_name)
) ENGINE=InnoDB";

/// Statements that make the database and its tables; each may run again.
pub const STATEMENTS: &[&str] = &[
    "CREATE DATABASE IF NOT EXISTS _vt",
    // Facts about this one server.
    "CREATE TABLE IF NOT EXISTS _vt.local_metadata (
  name VARCHAR(255) NOT NULL,
  value MEDIUMBLOB NOT NULL,
  db_name VARBINARY(255) NOT NULL,
  PRIMARY KEY (db_name, name)
) ENGINE=InnoDB",
    // Facts about the shard, copied along when a shard is split.
    "CREATE TABLE IF NOT EXISTS _vt.shard_metadata (
  name VARCHAR(255) NOT NULL,
  value MEDIUMBLOB NOT NULL,
  db_name VARBINARY(255) NOT NULL,
  PRIMARY KEY (db_name, name)
) ENGINE=InnoDB",
    // One row for each reparent; a replica has caught up with it when the row has arrived.
    "CREATE TABLE IF NOT EXISTS _vt.reparent_journal (
  time_created_ns BIGINT UNSIGNED NOT NULL,
  action_name VARBINARY(250) NOT NULL,
  master_alias VARBINARY(32) NOT NULL,
  replication_position VARBINARY(64000) DEFAULT NULL,
  PRIMARY KEY (time_created_ns)
) ENGINE=InnoDB",
    VREPLICATION,
    RESHARDING_JOURNAL,
    COPY_STATE,
    "CREATE TABLE IF NOT EXISTS _vt.heartbeat (
  keyspaceShard VARBINARY(256) NOT NULL,
  tabletUid INT UNSIGNED NOT NULL,
  ts BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (keyspaceShard)
) ENGINE=InnoDB",
    // Distributed transactions: what a participant has prepared, and what the coordinator decided.
    "CREATE TABLE IF NOT EXISTS _vt.redo_state (
  dtid VARBINARY(512),
  state BIGINT,
  time_created BIGINT,
  PRIMARY KEY (dtid)
) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS _vt.redo_statement (
  dtid VARBINARY(512),
  id BIGINT,
  statement MEDIUMBLOB,
  PRIMARY KEY (dtid, id)
) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS _vt.dt_state (
  dtid VARBINARY(512),
  state BIGINT,
  time_created BIGINT,
  PRIMARY KEY (dtid)
) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS _vt.dt_participant (
  dtid VARBINARY(512),
  id BIGINT,
  keyspace VARCHAR(256),
  shard VARCHAR(256),
  PRIMARY KEY (dtid, id)
) ENGINE=InnoDB",
];

/// Makes whatever is missing, outside the binary log. Needs the rights of vt_dba. The connection logs again afterwards.
pub async fn ensure(conn: &mut Connection) -> Result<(), ClientError> {
    conn.execute("SET SESSION sql_log_bin = 0").await?;
    for statement in STATEMENTS {
        conn.execute(statement).await?;
    }
    // v5.0.1's own init_db.sql makes values of 255 characters, too few for a replication position, and its tablets widen
    // them.
    let narrow = "SELECT 1 FROM information_schema.columns WHERE table_schema = '_vt' AND table_name = 'local_metadata' \
                  AND column_name = 'value' AND data_type = 'varchar'";
    if !conn.execute(narrow).await?.rows.is_empty() {
        conn.execute("ALTER TABLE _vt.local_metadata CHANGE value value MEDIUMBLOB NOT NULL").await?;
    }
    conn.execute("SET SESSION sql_log_bin = 1").await?;
    Ok(())
}
