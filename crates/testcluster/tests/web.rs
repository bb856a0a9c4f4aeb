//! vtctld's web UI in a real browser.

use anyhow::{Context, Result, ensure};
use std::process::Command;
use testcluster::{Cluster, Flavor, Spec, http_get};

#[test]
fn keyspaces_and_tablets_are_shown_with_type_and_health() -> Result<()> {
    let cluster = Cluster::start(Spec::walkthrough(Flavor::MariaDb))?;
    let (status, body) = http_get(cluster.vtctld_http_port, "/api/keyspaces/")?;
    ensure!(status == 200 && body.contains("commerce"), "{status}: {body}");
    if Command::new("chromium").arg("--version").output().is_err() {
        eprintln!("SKIPPED: chromium is not installed, see scripts/test.sh");
        return Ok(());
    }
    let page = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", cluster.dir().join("chromium").display()))
        .args(["--virtual-time-budget=8000", "--dump-dom"])
        .arg(format!("http://127.0.0.1:{}/app/", cluster.vtctld_http_port))
        .output()
        .context("chromium")?;
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    for shown in ["commerce", "zone1-0000000100", "zone1-0000000101", "zone1-0000000102"] {
        ensure!(page.contains(shown), "the page does not show {shown}:\n{page}");
    }
    let lower = page.to_lowercase();
    for shown in ["master", "replica", "rdonly", "healthy"] {
        ensure!(lower.contains(shown), "the page does not show {shown}:\n{page}");
    }
    Ok(())
}
