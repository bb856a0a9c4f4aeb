//! What an operator tells a cluster by flags and files.

use anyhow::{Result, ensure};
use std::{
    io::{BufRead, BufReader, Write},
    time::Duration,
};
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

/// A table that somebody made straight on mysqld is known at once.
#[test]
fn changes_past_vtctld_are_seen_in_the_binary_log() -> Result<()> {
    let cluster = Cluster::start(Spec::single(Flavor::MariaDb).vttablet_flag("-watch_replication_stream"))?;
    cluster.wait_for_tablet_state(0, "SERVING")?;
    let knows = |table: &str| {
        let schema = testcluster::http_get(cluster.tablets[0].http_port, "/debug/schema");
        schema.is_ok_and(|(_, body)| body.contains(&format!("\"{table}\"")))
    };
    for (change, there, gone) in [
        ("create table vt_commerce.straight(id int primary key)", "straight", "renamed"),
        ("rename table vt_commerce.straight to vt_commerce.renamed", "renamed", "straight"),
    ] {
        cluster.mysql_on_tablet(0, change)?;
        wait_for("the schema to be read", Duration::from_secs(20), || knows(there) && !knows(gone))?;
    }
    let gone = cluster.mysql(&["commerce"], "select count(*) from straight")?;
    ensure!(gone.stderr.contains("table straight not found in schema"), "{gone:?}");
    cluster.mysql(&["commerce"], "select count(*) from renamed")?.success()?;
    Ok(())
}

/// An Orchestrator is told of the tablet's mysqld, and of what is stopped on purpose.
#[test]
fn an_orchestrator_is_told() -> Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let api = format!("http://{}/api/", listener.local_addr()?);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
            let user = lines.find(|line| line.starts_with("Authorization: ")).unwrap_or_default();
            let _ = (&stream).write_all(b"HTTP/1.0 200 OK\r\n\r\n{}");
            if tell.send((path, user)).is_err() {
                return;
            }
        }
    });
    let mut spec = Spec::single(Flavor::MariaDb)
        .vttablet_flag(&format!("-orc_api_url={api}"))
        .vttablet_flag("-orc_api_user=orc")
        .vttablet_flag("-orc_api_password=secret")
        .vttablet_flag("-orc_discover_interval=200ms");
    spec.tablets.push(TabletSpec::new(101, "commerce", "0", "replica"));
    let cluster = Cluster::start(spec)?;
    let ports = [0, 1].map(|index| cluster.tablets[index].mysql_port);
    let hears = |wanted: &str| -> Result<()> {
        wait_for(wanted, Duration::from_secs(20), || {
            told.try_iter()
                .any(|(path, user)| path.ends_with(wanted) && user == "Authorization: Basic b3JjOnNlY3JldA==")
        })
    };
    for port in ports {
        hears(&format!("/{port}"))?;
    }
    let replica = ports[1];
    cluster.vtctlclient(&["StopSlave", "zone1-101"])?.success()?;
    hears(&format!("/{replica}/vitess/vttablet%20has%20been%20told%20to%20StopSlave"))?;
    cluster.vtctlclient(&["StartSlave", "zone1-101"])?.success()?;
    wait_for("the end of maintenance", Duration::from_secs(20), || {
        told.try_iter()
            .any(|(path, _)| path.starts_with("/api/end-maintenance/") && path.ends_with(&format!("/{replica}")))
    })
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

/// A tablet that comes up next to what others have left: a `_vt` database from the scripts of v5.0.1, a record that calls it
/// master without a reparent, a mysqld without replicas.
#[test]
fn a_tablet_starts_with_what_it_finds() -> Result<()> {
    let spec = Spec::single(Flavor::MariaDb)
        .vttablet_flag("-security_policy=read-only")
        .vttablet_flag("-init_populate_metadata");
    let mut cluster = Cluster::start(spec)?;
    let column = "select column_type from information_schema.columns where table_schema = '_vt' and \
                  table_name = 'local_metadata' and column_name = 'value'";
    cluster.kill_vttablet(0);
    let before = "set sql_log_bin = 0; truncate _vt.reparent_journal; truncate _vt.local_metadata; \
                  alter table _vt.local_metadata modify value varchar(255) not null";
    cluster.mysql_on_tablet(0, before)?;
    cluster.spec.semi_sync = true;
    cluster.start_vttablet(0)?;
    cluster.wait_for_tablet_state(0, "SERVING")?;
    ensure!(cluster.mysql_on_tablet(0, column)?.stdout.contains("mediumblob"));
    let alias = "select value from _vt.local_metadata where name = 'Alias'";
    ensure!(cluster.mysql_on_tablet(0, alias)?.stdout.contains("zone1-0000000100"));
    // No election has turned semi-sync on, so that nobody waits for a replica.
    ensure!(cluster.mysql_on_tablet(0, "select @@rpl_semi_sync_master_enabled")?.stdout.trim().ends_with('0'));
    cluster.mysql_on_tablet(0, "create table vt_commerce.alone(id int primary key)")?;

    // One that was elected has it back after a restart of its mysqld.
    cluster.kill_vttablet(0);
    let elected = "set sql_log_bin = 0; insert into _vt.reparent_journal values (1, 'PlannedReparentShard', 'zone1-0000000100', '')";
    cluster.mysql_on_tablet(0, elected)?;
    cluster.start_vttablet(0)?;
    wait_for("semi-sync", Duration::from_secs(20), || {
        cluster
            .mysql_on_tablet(0, "select @@rpl_semi_sync_master_enabled")
            .is_ok_and(|out| out.stdout.trim().ends_with('1'))
    })?;

    // -security_policy covers the pages of the query service.
    let port = cluster.tablets[0].http_port;
    let (status, body) = testcluster::http_get(port, "/streamqueryz/terminate?connID=1")?;
    ensure!(status == 403 && body.contains("Access denied: not allowed"), "{status} {body}");
    ensure!(testcluster::http_get(port, "/queryz")?.0 == 200);
    Ok(())
}

/// The first shard of a keyspace has a serving tablet before the others have any.
#[test]
fn the_first_shard_starts_alone() -> Result<()> {
    let mut cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    cluster.add_tablets(vec![TabletSpec::new(300, "half", "-80", "replica")])?;
    cluster.wait_for_tablet_state(1, "SERVING")?;
    cluster.add_tablets(vec![TabletSpec::new(400, "half", "80-", "replica")])?;
    cluster.wait_for_tablet_state(2, "SERVING")?;
    let serving = cluster.vtctlclient(&["GetSrvKeyspace", "zone1", "half"])?.success()?.stdout;
    // Masters have what they wrote themselves: nobody waits.
    let copied = cluster.vtctlclient(&["CopySchemaShard", "commerce/0", "half/-80"])?.success()?;
    ensure!(!copied.stderr.contains("not all tablets have reloaded"), "{copied:?}");
    ensure!(serving.contains("\"name\": \"-80\"") && serving.contains("\"name\": \"80-\""), "{serving}");
    Ok(())
}

/// A word behind the flags is an error: flags that follow it would be words, too.
#[test]
fn words_behind_flags_are_refused() -> Result<()> {
    for name in ["vtgate", "vttablet", "vtctld"] {
        let ended = std::process::Command::new(program(name))
            .args(["-log_dir", "", "-stderrthreshold", "INFO", "true", "-port", "1"])
            .output()?;
        let text = String::from_utf8_lossy(&ended.stderr);
        let wanted = format!("{name} doesn't take any positional arguments, got 'true -port 1'");
        ensure!(ended.status.code() == Some(1) && text.contains(&wanted), "{ended:?}");
    }
    let ended =
        std::process::Command::new(program("mysqlctl")).args(["-tablet_uid", "1", "shutdown", "now"]).output()?;
    let text = String::from_utf8_lossy(&ended.stderr);
    ensure!(text.contains("shutdown doesn't take any positional arguments, got 'now'"), "{text}");
    Ok(())
}
