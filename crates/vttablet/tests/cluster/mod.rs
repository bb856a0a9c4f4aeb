//! A small cluster of real processes for the tests of the tablet manager: etcd, mysqlds, vttablets. All of it is ended
//! and removed with the value.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use mysql::client::ConnectParams;
use mysqlctl::{
    Installation, MysqlTablet,
    init::{self, InitOptions},
    process,
    tablet::tablet_dir,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tabletclient::{grpc::DialOptions, tm::TabletManagerClient};
use testcluster::free_port;
use topo::{TopoOptions, TopoServer};
use vtproto::topodata::{CellInfo, Tablet, TabletAlias};

const START: Duration = Duration::from_secs(120);
const UID: u32 = 100;
/// Whatever is behind by more than two seconds stops nearly everything, and is forgiven at once.
const TX_THROTTLER: &str = "target_replication_lag_sec: 1 max_replication_lag_sec: 2 initial_rate: 1000
    max_increase: 100 emergency_decrease: 0.9 min_duration_between_increases_sec: 1 max_duration_between_increases_sec: 1
    min_duration_between_decreases_sec: 1 spread_backlog_across_sec: 1 age_bad_rate_after_sec: 1 bad_rate_increase: 100
    max_rate_approach_threshold: 0";

pub struct Cluster {
    dir: PathBuf,
    etcd: Child,
    etcd_address: String,
    installation: Installation,
    mysqlds: Vec<MysqlTablet>,
    vttablets: Vec<Option<Child>>,
    ports: Vec<(u16, u16)>,
    pub topo: TopoServer,
    pub tm: TabletManagerClient,
}

impl Cluster {
    /// `count` tablets of shard commerce/0: replicas, and the third an rdonly. `None` where the programs are missing.
    pub async fn start(count: u32) -> Result<Option<Self>> {
        let installation = match Installation::find() {
            Ok(installation) => installation,
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                return Ok(None);
            }
        };
        if Command::new("etcd").arg("--version").output().is_err() {
            eprintln!("SKIPPED: no etcd in PATH");
            return Ok(None);
        }
        // Short: the path of a socket has a limit.
        let dir = std::env::temp_dir().join(format!("vtt-{}", std::process::id()));
        fs::create_dir_all(dir.join("backups"))?;
        let (client, peer) = (free_port(), free_port());
        let etcd_address = format!("127.0.0.1:{client}");
        let etcd = spawn_etcd(&dir, &etcd_address, peer)?;
        let mut mysqlds = Vec::new();
        for uid in UID..UID + count {
            mysqlds.push(MysqlTablet::new(&dir, tablet_dir(&dir, "", uid), free_port(), None)?);
        }
        let options = InitOptions { init_db_sql_file: None, wait: START };
        let made =
            futures::future::try_join_all(mysqlds.iter().map(|mysqld| init::init(&installation, mysqld, &options)))
                .await;
        let topo = eventually(START, "etcd answers", async || {
            TopoServer::open("etcd2", &etcd_address, "/vitess/global", TopoOptions::default()).await.ok()
        })
        .await;
        let cell = CellInfo { server_address: etcd_address.clone(), root: "/vitess/zone1".into() };
        topo.create_cell_info("zone1", &cell).await?;
        let mut cluster = Self {
            dir,
            etcd,
            etcd_address,
            installation,
            vttablets: mysqlds.iter().map(|_| None).collect(),
            mysqlds,
            ports: Vec::new(),
            topo,
            tm: TabletManagerClient::new(DialOptions::default()),
        };
        made.context("mysqlctl init")?;
        for index in 0..cluster.mysqlds.len() {
            cluster.ports.push((free_port(), free_port()));
            cluster.start_vttablet(index)?;
        }
        for index in 0..cluster.mysqlds.len() {
            eventually(START, "the tablet is registered", async || {
                let record = cluster.topo.get_tablet(&cluster.alias(index)).await.ok()?.record;
                (!record.hostname.is_empty()).then_some(())
            })
            .await;
        }
        Ok(Some(cluster))
    }

    pub fn alias(&self, index: usize) -> TabletAlias {
        TabletAlias { cell: "zone1".into(), uid: UID + index as u32 }
    }

    /// Whether mysqld knows REPLICA and no longer SLAVE.
    pub fn has_only_new_words(&self) -> bool {
        self.installation.version.has_only_new_words()
    }

    /// The records as they are now.
    pub async fn tablets(&self) -> Result<Vec<Tablet>> {
        let mut tablets = Vec::new();
        for index in 0..self.mysqlds.len() {
            tablets.push(self.topo.get_tablet(&self.alias(index)).await?.record);
        }
        Ok(tablets)
    }

    pub fn start_vttablet(&mut self, index: usize) -> Result<()> {
        let (http, grpc) = self.ports[index];
        let dir = self.mysqlds[index].dir.path();
        let output = fs::File::create(dir.join("vttablet.out"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_vttablet"))
            .env("VTDATAROOT", &self.dir)
            .args(["-topo_implementation", "etcd2", "-topo_global_root", "/vitess/global"])
            .args(["-topo_global_server_address", &self.etcd_address])
            .arg("-log_dir")
            .arg(dir)
            .args(["-tablet-path", &format!("zone1-{}", UID + index as u32), "-tablet_hostname", "127.0.0.1"])
            .args(["-init_keyspace", "commerce", "-init_shard", "0"])
            .args(["-init_tablet_type", if index == 2 { "rdonly" } else { "replica" }])
            .args(["-health_check_interval", "1s", "-enable_semi_sync", "-enable_replication_reporter"])
            .args(["-enable-tx-throttler", "-tx-throttler-config", TX_THROTTLER])
            .args(["-backup_storage_implementation", "file", "-restore_from_backup", "-file_backup_storage_root"])
            .arg(self.dir.join("backups"))
            .args(["-port", &http.to_string(), "-grpc_port", &grpc.to_string()])
            .args(["-service_map", "grpc-queryservice,grpc-tabletmanager,grpc-updatestream"])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        self.vttablets[index] = Some(child);
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop_vttablet(&mut self, index: usize) {
        let Some(mut child) = self.vttablets[index].take() else { return };
        kill(pid(&child), Signal::SIGTERM).expect("it runs");
        let done = eventually(START, "vttablet ends", async || child.try_wait().ok().flatten()).await;
        assert!(done.success(), "vttablet ended with {done}");
    }

    pub fn kill_mysqld(&self, index: usize) {
        let pid = process::find(&self.mysqlds[index]).expect("mysqld runs");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    }

    /// The login of the administrator at a mysqld itself.
    pub fn mysqld_login(&self, index: usize) -> ConnectParams {
        ConnectParams::unix(&self.mysqlds[index].cnf.socket, "vt_dba")
    }

    pub async fn start_mysqld(&self, index: usize) -> Result<()> {
        let mysqld = &self.mysqlds[index];
        let login = self.mysqld_login(index);
        process::start(&self.installation, mysqld, &[], &login, START).await?;
        Ok(())
    }

    /// The body of a page, redirects followed.
    pub async fn get(&self, index: usize, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.ports[index].0);
        let output = tokio::process::Command::new("curl").args(["-sL", "--max-time", "10", &url]).output().await;
        String::from_utf8_lossy(&output.expect("curl").stdout).into_owned()
    }

    /// `TabletStateName`.
    pub async fn state(&self, index: usize) -> String {
        let vars: serde_json::Value = serde_json::from_str(&self.get(index, "/debug/vars").await).unwrap_or_default();
        vars["TabletStateName"].as_str().unwrap_or("unreachable").to_owned()
    }

    pub async fn wait_for_state(&self, index: usize, wanted: &str) {
        eventually(START, &format!("tablet {index} is {wanted}"), async || {
            (self.state(index).await == wanted).then_some(())
        })
        .await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.vttablets.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for mysqld in &self.mysqlds {
            if let Some(pid) = process::find(mysqld) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
        if std::thread::panicking() {
            eprintln!("logs are kept in {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn spawn_etcd(dir: &Path, address: &str, peer: u16) -> Result<Child> {
    let log = fs::File::create(dir.join("etcd.log"))?;
    let peers = format!("http://127.0.0.1:{peer}");
    Ok(Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", &format!("http://{address}")])
        .args(["--advertise-client-urls", &format!("http://{address}")])
        .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("default={peers}")])
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid"))
}

/// Polls until there is an answer.
pub async fn eventually<T>(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
