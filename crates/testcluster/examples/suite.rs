//! A cluster with the keyspaces of a directory, for as long as a command runs: to compare vtgate with a plain
//! server by hand, or to look at one.
//!
//! `suite DIR COMMAND…`: DIR has `KEYSPACE.shards` (names, one a line), `KEYSPACE.schema.sql` and
//! `KEYSPACE.vschema.json`, as `difftest.py --write-setup` makes the latter two. The command finds vtgate's MySQL port in `VTGATE_PORT`, its page's in `VTGATE_HTTP`, and the socket
//! of the first mysqld in `MYSQLD_SOCKET`.

use anyhow::{Context, Result, ensure};
use std::{path::Path, process::Command};
use testcluster::{Cluster, Flavor, Spec, TabletSpec};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().context("suite DIR COMMAND…")?;
    let program = args.next().context("suite DIR COMMAND…")?;
    let flavor = match std::env::var_os("VT_TEST_MYSQL9_ROOT") {
        Some(root) => Flavor::MySql9(root.into()),
        None => Flavor::MariaDb,
    };
    let mut spec = Spec::keyspaces(flavor, Vec::new());
    let mut uid = 100;
    let mut names: Vec<_> = std::fs::read_dir(&dir)?.collect::<std::io::Result<_>>()?;
    names.sort_by_key(std::fs::DirEntry::path);
    for entry in names {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "shards") {
            continue;
        }
        let keyspace = path.file_stem().context("a name")?.to_string_lossy().into_owned();
        for shard in std::fs::read_to_string(&path)?.split_whitespace() {
            spec.tablets.push(TabletSpec::new(uid, &keyspace, shard, "replica"));
            uid += 100;
        }
        let part = |extension: &str| std::fs::read_to_string(Path::new(&dir).join(format!("{keyspace}.{extension}")));
        if let Ok(sql) = part("schema.sql")
            && !sql.trim().is_empty()
        {
            spec.schema.push((keyspace.clone(), sql));
        }
        if let Ok(vschema) = part("vschema.json")
            && !vschema.trim().is_empty()
        {
            spec.vschema.push((keyspace, vschema));
        }
    }
    let cluster = Cluster::start(spec)?;
    let status = Command::new(program)
        .args(args)
        .env("VTGATE_PORT", cluster.vtgate_mysql_port.to_string())
        .env("VTGATE_HTTP", cluster.vtgate_http_port.to_string())
        .env("VTGATE_LOG", cluster.dir().join("tmp"))
        .env("MYSQLD_SOCKET", cluster.tablet_dir(0).join("mysql.sock"))
        .status()?;
    ensure!(status.success(), "the command ended with {status}");
    Ok(())
}
