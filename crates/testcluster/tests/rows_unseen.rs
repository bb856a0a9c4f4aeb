//! Rows that tablet and gate pass on as they were written, over both transports: what clients read and what mysqld keeps
//! is the same as without Vitess.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};
use testcluster::{Background, Cluster, Flavor, Spec, TabletSpec};

const TABLE: &str = "
create table cells(id bigint not null, tiny tinyint, wide bigint unsigned, ratio double, amount decimal(20,5), word varchar(400),
    bytes_ longblob, day date, moment datetime(6), span time(3), some_bits bit(10), choice enum('a','b'), nothing int,
    primary key(id));
";

fn start() -> Result<Cluster> {
    let tablets = vec![
        TabletSpec::new(100, "commerce", "0", "replica"),
        TabletSpec::new(200, "customer", "-80", "replica"),
        TabletSpec::new(300, "customer", "80-", "replica"),
    ];
    let mut spec = Spec::keyspaces(Flavor::MariaDb, tablets);
    let sequence =
        "create table cells_seq(id int, next_id bigint, cache bigint, primary key(id)) comment 'vitess_sequence';
        insert into cells_seq(id, next_id, cache) values(0, 1000000, 1000);";
    spec.schema = vec![("commerce".into(), format!("{TABLE}{sequence}")), ("customer".into(), TABLE.into())];
    let commerce = r#"{"tables": {"cells": {}, "cells_seq": {"type": "sequence"}}}"#;
    let customer = r#"{"sharded": true, "vindexes": {"hash": {"type": "hash"}}, "tables": {"cells": {
        "column_vindexes": [{"column": "id", "name": "hash"}],
        "auto_increment": {"column": "id", "sequence": "commerce.cells_seq"}}}}"#;
    spec.vschema = vec![("commerce".into(), commerce.into()), ("customer".into(), customer.into())];
    Cluster::start(spec)
}

/// Runs `tests/clients/rows_unseen.py` with the client libraries that `scripts/test.sh` installed.
fn same_as_mysqld(cluster: &Cluster) -> Result<()> {
    let Some(path) = std::env::var_os("VT_TEST_PYTHONPATH") else {
        eprintln!("SKIPPED: VT_TEST_PYTHONPATH is not set, see scripts/test.sh");
        return Ok(());
    };
    let sockets = (0..cluster.tablets.len()).map(|index| cluster.tablet_dir(index).join("mysql.sock"));
    let mut command = Command::new("python3");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/rows_unseen.py"))
        .arg(cluster.vtgate_mysql_port.to_string())
        .args(sockets)
        .env("PYTHONPATH", path);
    Background::start("rows_unseen.py", command)?.finish()?.success().map(drop)
}

#[test]
fn over_both_transports() -> Result<()> {
    let mut cluster = start()?;
    same_as_mysqld(&cluster).context("framed")?;
    cluster.kill_vtgate();
    cluster.spec.vtgate_flags.push("-framed_transport=false".into());
    cluster.start_vtgate()?;
    same_as_mysqld(&cluster).context("gRPC")
}
