//! Query rules and table ACLs that operators keep in files or in topo.
//!
//! Files are read at start, the ACL again at SIGHUP; rules in topo are watched. A new text that cannot be read is logged
//! and the rules before it stay in force.

use std::{fs, path::Path, time::Duration};

use tokio_util::sync::CancellationToken;
use topo::TopoServer;
use vterrors::{Code, Result, VtError};

use crate::queryservice::{
    TabletServer,
    acl::TableAcl,
    rules::{FILE_RULES, Rules, TOPO_RULES},
};

/// How long a watch that ended waits before it is tried again.
const RETRY: Duration = Duration::from_secs(5);

fn read(flag: &str, path: &Path) -> Result<String> {
    fs::read_to_string(path)
        .map_err(|error| VtError::new(Code::InvalidArgument, format!("-{flag} {}: {error}", path.display())))
}

/// `-filecustomrules`.
pub fn load_rules_file(server: &TabletServer, path: &Path) -> Result<()> {
    let rules = Rules::from_json(&read("filecustomrules", path)?)
        .map_err(|error| VtError::from(error).wrap(format!("-filecustomrules {}", path.display())))?;
    server.set_query_rules(FILE_RULES, rules);
    Ok(())
}

/// `-table-acl-config`.
pub fn load_table_acl(server: &TabletServer, path: &Path) -> Result<()> {
    let acl = TableAcl::from_json(&read("table-acl-config", path)?).map_err(|error| {
        VtError::new(Code::InvalidArgument, format!("-table-acl-config {}: {error}", path.display()))
    })?;
    server.set_table_acl(acl);
    Ok(())
}

/// Reads the table ACL again at each SIGHUP.
pub async fn reload_table_acl(server: TabletServer, path: std::path::PathBuf, stop: CancellationToken) {
    let mut hangups = match servenv::hangups() {
        Ok(hangups) => hangups,
        Err(error) => return tracing::error!("cannot listen to SIGHUP: {error}"),
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = hangups.recv() => {}
        }
        match load_table_acl(&server, &path) {
            Ok(()) => tracing::info!("read the table ACL again"),
            Err(error) => tracing::error!("the table ACL stays as it was: {error}"),
        }
    }
}

/// `-topocustomrule_path`: follows the rules in topo until `stop`.
pub async fn follow_topo_rules(
    server: TabletServer,
    topo: TopoServer,
    cell: String,
    path: String,
    stop: CancellationToken,
) {
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follow(&server, &topo, &cell, &path) => ended,
        };
        if let Err(error) = ended {
            tracing::warn!("query rules at {path} in cell {cell}: {error}");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn follow(server: &TabletServer, topo: &TopoServer, cell: &str, path: &str) -> Result<()> {
    let conn = topo.conn_for_cell(cell).await?;
    let (first, mut changes) = conn.watch(path).await?;
    apply(server, path, &first.contents);
    while let Some(change) = changes.next().await {
        match change {
            Ok(data) => apply(server, path, &data.contents),
            Err(error) if error.is_no_node() => {
                tracing::info!("the query rules at {path} were removed");
                server.set_query_rules(TOPO_RULES, Rules::default());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn apply(server: &TabletServer, path: &str, contents: &[u8]) {
    let text = String::from_utf8_lossy(contents);
    match Rules::from_json(&text) {
        Ok(rules) => {
            server.set_query_rules(TOPO_RULES, rules);
            tracing::info!("query rules at {path} are in force");
        }
        Err(error) => tracing::error!("query rules at {path} are not readable, the ones before stay in force: {error}"),
    }
}
