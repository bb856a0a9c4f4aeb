//! What an operator tells a cluster by flags and files.

use anyhow::{Result, ensure};
use std::time::Duration;
use testcluster::{Cluster, Finished, Flavor, Spec, TabletSpec, program, wait_for};

/// Lag by heartbeats: a replica whose replication stands is found out although nobody asks mysqld for its status, stops
/// serving at `-unhealthy_threshold`, and serves again when it has caught up.
#[test]
fn heartbeats_find_a_replica_that_stands() -> Result<()> {
    let mut spec = Spec::single(Flavor::MariaDb)
        .vttablet_flag("-enable_replication_reporter=false")
        .vttablet_flag("-heartbeat_enable")
        .vttablet_flag("-heartbeat_interval=100ms")
        .vttablet_flag("-degraded_threshold=1s")
        .vttablet_flag("-unhealthy_threshold=2s");
    spec.tablets.push(TabletSpec::new(101, "commerce", "0", "replica"));
    spec.semi_sync = true;
    let cluster = Cluster::start(spec)?;
    cluster.wait_for_tablet_state(1, "SERVING")?;
    let lag = || {
        let value = cluster.debug_var(cluster.tablets[1].http_port, "HeartbeatCurrentLagNs")?;
        Ok::<_, anyhow::Error>(Duration::from_nanos(value.as_u64().unwrap_or(u64::MAX)))
    };
    wait_for("a small lag", Duration::from_secs(20), || lag().is_ok_and(|lag| lag < Duration::from_secs(1)))?;

    cluster.mysql_on_tablet(1, "stop slave sql_thread")?;
    cluster.wait_for_tablet_state(1, "NOT_SERVING")?;
    ensure!(lag()? > Duration::from_secs(2));
    let status = testcluster::http_get(cluster.tablets[1].http_port, "/debug/status")?.1;
    ensure!(status.contains("Polling health information from mysqld and MySQLHeartbeat"), "{status}");
    ensure!(status.contains("higher than unhealthy threshold: 2"), "{status}");
    let refused = cluster.mysql(&["commerce@replica"], "select 1 from product")?;
    ensure!(refused.code == Some(1), "{refused:?}");

    cluster.mysql_on_tablet(1, "start slave sql_thread")?;
    cluster.wait_for_tablet_state(1, "SERVING")
}

/// A server takes its flags from a file, the command line wins, and a mistake in the file is named.
#[test]
fn flags_from_a_file() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("config-file-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let file = dir.join("vtctl.yaml");
    let run = |text: &str, args: &[&str]| -> Result<Finished> {
        std::fs::write(&file, text)?;
        let mut command = std::process::Command::new(program("vtctl"));
        let output = command.arg("-config_file").arg(&file).arg("-log_dir").arg(&dir).args(args).output()?;
        Ok(Finished::new(format!("vtctl with {text}"), output))
    };
    let topo =
        "topo_implementation: etcd2\ntopo_global_root: /vitess/global\ntopo_global_server_address: 127.0.0.1:1\n";
    let unreachable = run(&format!("{topo}remote-operation-timeout: 1s\n"), &["GetKeyspaces"])?;
    ensure!(unreachable.code == Some(1) && unreachable.stderr.contains("127.0.0.1:1"), "{unreachable:?}");
    let wins = run(topo, &["-topo_implementation", "zk2", "GetKeyspaces"])?;
    ensure!(wins.code == Some(1) && wins.stderr.contains("zk2"), "{wins:?}");
    let unknown = run("topo_implementatoin: etcd2\n", &["GetKeyspaces"])?;
    let told = format!("-config_file {}: flag provided but not defined: topo_implementatoin\n", file.display());
    ensure!(unknown.code == Some(2) && unknown.stderr == told, "{unknown:?}");
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
