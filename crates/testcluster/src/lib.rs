//! A real cluster on free ports for end-to-end tests: etcd, mysqlds and the built programs.
//!
//! Owns: starting and stopping the processes, the directory they live in, and waiting on conditions.
//! Every process listens on 127.0.0.1 and is ended by pid when the [`Cluster`] is dropped. The
//! directory of a failed test is kept and named.
//!
//! The programs are those beside the test's own executable: `cargo build --workspace` comes first.

mod background;
mod datadir;
mod hold;
mod http;
mod ports;
mod process;
mod tls;
mod victim;

pub use background::Background;
pub use hold::Hold;
pub use http::get as http_get;
pub use ports::free_port;
pub use process::{Process, anonymous_kib, peak_anonymous_kib, program};
pub use tls::TlsFiles;
pub use victim::Victim;

use anyhow::{Context, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use std::{
    collections::{HashMap, HashSet},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// The cell of every test cluster.
pub const CELL: &str = "zone1";

/// Which mysqld the tablets stand beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flavor {
    /// The MariaDB of the system.
    MariaDb,
    /// A MySQL 9 unpacked at this path.
    MySql9(PathBuf),
}

impl Flavor {
    /// The MySQL 9 that `scripts/test.sh` unpacked. `None`, said loudly, where there is none.
    pub fn mysql9() -> Option<Self> {
        match std::env::var_os("VT_TEST_MYSQL9_ROOT") {
            Some(root) => Some(Self::MySql9(root.into())),
            None => {
                eprintln!("SKIPPED: VT_TEST_MYSQL9_ROOT is not set, see scripts/test.sh");
                None
            }
        }
    }

    /// Makes a program of ours use this mysqld.
    fn choose(&self, command: &mut Command) {
        if let Self::MySql9(root) = self {
            command.env("VT_MYSQL_ROOT", root);
        }
    }
}

/// One tablet to start.
#[derive(Debug, Clone)]
pub struct TabletSpec {
    pub uid: u32,
    pub keyspace: String,
    pub shard: String,
    /// `replica` or `rdonly`.
    pub tablet_type: &'static str,
}

impl TabletSpec {
    pub fn new(uid: u32, keyspace: &str, shard: &str, tablet_type: &'static str) -> Self {
        Self { uid, keyspace: keyspace.into(), shard: shard.into(), tablet_type }
    }

    pub fn alias(&self) -> String {
        format!("{CELL}-{:010}", self.uid)
    }
}

/// What to start, and with which flags beside those that every cluster needs.
#[derive(Debug, Clone)]
pub struct Spec {
    pub flavor: Flavor,
    /// The first tablet of a shard becomes its master.
    pub tablets: Vec<TabletSpec>,
    /// Semi-sync needs a replica beside the master.
    pub semi_sync: bool,
    /// Statements for ApplySchema, by keyspace.
    pub schema: Vec<(String, String)>,
    /// VSchema JSON, by keyspace.
    pub vschema: Vec<(String, String)>,
    pub vtgate_flags: Vec<String>,
    pub vttablet_flags: Vec<String>,
    pub vtctld_flags: Vec<String>,
    /// TLS and passwords on every connection, etcd's too.
    pub encrypted: bool,
}

impl Spec {
    /// Keyspace `commerce` of the walkthrough, with its schema, on these tablets.
    fn commerce(flavor: Flavor, tablets: Vec<TabletSpec>) -> Self {
        let example = |name: &str| {
            let path = repository().join("examples/local").join(name);
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        Self {
            flavor,
            semi_sync: tablets.len() > 1,
            tablets,
            schema: vec![("commerce".into(), example("create_commerce_schema.sql"))],
            vschema: vec![("commerce".into(), example("vschema_commerce_initial.json"))],
            vtgate_flags: Vec::new(),
            vttablet_flags: Vec::new(),
            vtctld_flags: Vec::new(),
            encrypted: false,
        }
    }

    /// Any keyspaces: the masters, or also other tablets, of their shards. Schema and vschema are to be added.
    pub fn keyspaces(flavor: Flavor, tablets: Vec<TabletSpec>) -> Self {
        Self {
            flavor,
            tablets,
            semi_sync: false,
            encrypted: false,
            schema: Vec::new(),
            vschema: Vec::new(),
            vtgate_flags: vec!["-tablet_types_to_wait".into(), "MASTER".into()],
            vttablet_flags: Vec::new(),
            vtctld_flags: Vec::new(),
        }
    }

    /// What 101 of the walkthrough starts: a master, a replica and an rdonly.
    pub fn walkthrough(flavor: Flavor) -> Self {
        let tablet = |uid, tablet_type| TabletSpec::new(uid, "commerce", "0", tablet_type);
        Self::commerce(flavor, vec![tablet(100, "replica"), tablet(101, "replica"), tablet(102, "rdonly")])
    }

    /// Only a master: the quickest cluster that serves.
    pub fn single(flavor: Flavor) -> Self {
        Self::commerce(flavor, vec![TabletSpec::new(100, "commerce", "0", "replica")])
    }

    /// The masters of two unsharded keyspaces, `commerce` and `other`, and a replica of `other`: the least for transactions
    /// over several shards.
    pub fn two_keyspaces(flavor: Flavor) -> Self {
        let tablet = |uid, keyspace| TabletSpec::new(uid, keyspace, "0", "replica");
        let mut spec =
            Self::commerce(flavor, vec![tablet(100, "commerce"), tablet(200, "other"), tablet(201, "other")]);
        // The master of commerce has no replica that could acknowledge.
        spec.semi_sync = false;
        spec.schema.push(("other".into(), "create table note(id bigint primary key, text_ varchar(100))".into()));
        spec.vschema.push(("other".into(), r#"{"tables": {"note": {}}}"#.into()));
        spec
    }

    /// With TLS and passwords on every connection.
    #[must_use]
    pub fn encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }

    #[must_use]
    pub fn vtgate_flag(mut self, flag: &str) -> Self {
        self.vtgate_flags.push(flag.into());
        self
    }

    #[must_use]
    pub fn vttablet_flag(mut self, flag: &str) -> Self {
        self.vttablet_flags.push(flag.into());
        self
    }

    #[must_use]
    pub fn vtctld_flag(mut self, flag: &str) -> Self {
        self.vtctld_flags.push(flag.into());
        self
    }
}

/// Settings of every mysqld: the kernel has asynchronous I/O (`fs.aio-max-nr`) for about 25 of MySQL 9 at once, and two
/// clusters that run side by side may have more.
const EXTRA_CNF: &str = "extra.cnf";

/// One running tablet with its mysqld.
pub struct Tablet {
    pub spec: TabletSpec,
    pub http_port: u16,
    pub grpc_port: u16,
    pub mysql_port: u16,
    /// `None` while it is stopped.
    pub vttablet: Option<Process>,
}

impl Tablet {
    /// Nothing of it runs yet.
    fn stopped(spec: TabletSpec) -> Self {
        Self { spec, http_port: free_port(), grpc_port: free_port(), mysql_port: free_port(), vttablet: None }
    }
}

/// A running cluster.
pub struct Cluster {
    pub spec: Spec,
    dir: PathBuf,
    pub tls: Option<TlsFiles>,
    pub etcd_port: u16,
    etcd: Option<Process>,
    pub vtctld_http_port: u16,
    pub vtctld_grpc_port: u16,
    vtctld: Option<Process>,
    pub vtgate_http_port: u16,
    pub vtgate_grpc_port: u16,
    pub vtgate_mysql_port: u16,
    vtgate: Option<Process>,
    pub tablets: Vec<Tablet>,
}

impl Cluster {
    /// Starts everything and returns when vtgate serves.
    pub fn start(spec: Spec) -> Result<Self> {
        Self::start_with(spec, |_| {})
    }

    /// The same; `adjust` may change the spec when ports and directory are known, before anything runs.
    pub fn start_with(spec: Spec, adjust: impl FnOnce(&mut Self)) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vtdataroot-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(dir.join("tmp"))?;
        std::fs::write(dir.join(EXTRA_CNF), "innodb_use_native_aio = OFF\n")?;
        let tls = spec.encrypted.then(|| TlsFiles::make(&dir.join("tls"))).transpose()?;
        let tablets = spec.tablets.iter().cloned().map(Tablet::stopped).collect();
        let mut cluster = Self {
            spec,
            dir,
            tls,
            etcd_port: free_port(),
            etcd: None,
            vtctld_http_port: free_port(),
            vtctld_grpc_port: free_port(),
            vtctld: None,
            vtgate_http_port: free_port(),
            vtgate_grpc_port: free_port(),
            vtgate_mysql_port: free_port(),
            vtgate: None,
            tablets,
        };
        adjust(&mut cluster);
        cluster.start_etcd()?;
        let address = format!("127.0.0.1:{}", cluster.etcd_port);
        cluster.run("vtctl", &["AddCellInfo", "-root", "/vitess/zone1", "-server_address", &address, CELL], true)?;
        cluster.start_vtctld()?;
        cluster.start_mysqlds(0)?;
        cluster.create_shards(0)?;
        for index in 0..cluster.tablets.len() {
            cluster.start_vttablet(index)?;
        }
        cluster.elect_masters(0)?;
        for (keyspace, sql) in cluster.spec.schema.clone() {
            cluster.vtctlclient(&["ApplySchema", "-sql", &sql, &keyspace])?.success()?;
        }
        for (keyspace, json) in cluster.spec.vschema.clone() {
            cluster.vtctlclient(&["ApplyVSchema", "-vschema", &json, &keyspace])?.success()?;
        }
        cluster.start_vtgate()?;
        Ok(cluster)
    }

    /// Starts more tablets, of shards that exist or of new ones. The first of a new shard becomes its master.
    pub fn add_tablets(&mut self, specs: Vec<TabletSpec>) -> Result<()> {
        let before = self.tablets.len();
        self.add_tablets_without_master(specs)?;
        self.elect_masters(before)
    }

    /// The same; new shards are left without a master.
    pub fn add_tablets_without_master(&mut self, specs: Vec<TabletSpec>) -> Result<()> {
        let before = self.tablets.len();
        self.tablets.extend(specs.into_iter().map(Tablet::stopped));
        self.start_mysqlds(before)?;
        self.create_shards(before)?;
        for index in before..self.tablets.len() {
            self.start_vttablet(index)?;
        }
        Ok(())
    }

    /// Where data and logs are; the processes' command lines hold it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn topo_flags(&self) -> Vec<String> {
        let mut flags = vec![
            "-topo_implementation".into(),
            "etcd2".into(),
            "-topo_global_server_address".into(),
            format!("127.0.0.1:{}", self.etcd_port),
            "-topo_global_root".into(),
            "/vitess/global".into(),
        ];
        flags.extend(self.tls_flags(TlsFiles::etcd_flags));
        flags
    }

    /// The flags that encryption takes, if this cluster has it.
    fn tls_flags(&self, flags: impl FnOnce(&TlsFiles) -> Vec<String>) -> Vec<String> {
        self.tls.as_ref().map(flags).unwrap_or_default()
    }

    /// A program of ours with the environment and the log directory of this cluster.
    fn command(&self, name: &str, with_topo: bool) -> Command {
        let mut command = Command::new(program(name));
        command.env("VTDATAROOT", &self.dir).current_dir(&self.dir);
        command.env("EXTRA_MY_CNF", self.dir.join(EXTRA_CNF));
        self.spec.flavor.choose(&mut command);
        if with_topo {
            command.args(self.topo_flags());
        }
        command.arg("-log_dir").arg(self.dir.join("tmp"));
        command
    }

    fn run(&self, name: &str, args: &[&str], with_topo: bool) -> Result<Finished> {
        let mut command = self.command(name, with_topo);
        command.args(args);
        Background::start(format!("{name} {}", args.join(" ")), command)?.finish()?.success()
    }

    pub fn start_etcd(&mut self) -> Result<()> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.dir.join("etcd"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.arg(format!("--initial-cluster=default={peer}"));
        // Its health is asked for where no certificate is wanted.
        let health_port = if self.tls.is_some() { free_port() } else { self.etcd_port };
        if let Some(tls) = &self.tls {
            command.arg(format!("--listen-metrics-urls=http://127.0.0.1:{health_port}"));
            command.arg("--cert-file").arg(&tls.cert).arg("--key-file").arg(&tls.key);
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.ca);
        }
        self.etcd = Some(Process::start("etcd", command, &self.dir.join("tmp/etcd.out"))?);
        let port = health_port;
        wait_for("etcd to be healthy", Duration::from_secs(30), || {
            http_get(port, "/health").is_ok_and(|(status, body)| status == 200 && body.contains("true"))
        })
    }

    pub fn kill_etcd(&mut self) {
        self.etcd = None;
    }

    pub fn start_vtctld(&mut self) -> Result<()> {
        self.start_vtctld_with(&[])
    }

    /// Starts vtctld with variables in its environment, such as `VT_FAILPOINTS`.
    pub fn start_vtctld_with(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        let mut command = self.command("vtctld", true);
        command.envs(environment.iter().copied());
        command
            .args(["-cell", CELL, "-service_map", "grpc-vtctl", "-bind_address", "127.0.0.1"])
            .args(["-workflow_manager_init", "-workflow_manager_use_election"])
            .args(["-backup_storage_implementation", "file", "-file_backup_storage_root"])
            .arg(self.dir.join("backups"))
            .args(["-port", &self.vtctld_http_port.to_string(), "-grpc_port", &self.vtctld_grpc_port.to_string()])
            .args(self.tls_flags(|tls| {
                [tls.server_flags(), tls.client_flags("tablet_manager_grpc"), tls.client_flags("tablet_grpc")].concat()
            }))
            .args(self.tls_flags(|tls| [tls.client_flags("vtgate_grpc"), vec![tls.creds_flag()]].concat()))
            .args(&self.spec.vtctld_flags);
        self.vtctld = Some(Process::start("vtctld", command, &self.dir.join("tmp/vtctld.out"))?);
        self.wait_for_port(self.vtctld_http_port, "vtctld")
    }

    pub fn vtctld(&self) -> &Process {
        self.vtctld.as_ref().expect("vtctld is running")
    }

    pub fn kill_vtctld(&mut self) {
        self.vtctld = None;
    }

    /// Makes the mysqlds of the tablets from `first` on and starts them, all at once.
    fn start_mysqlds(&self, first: usize) -> Result<()> {
        for index in first..self.tablets.len() {
            self.mysqlctl(&self.tablets[index], "init_config")?.finish()?.success()?;
            datadir::fill(&self.spec.flavor, &self.tablet_dir(index))?;
        }
        let started: Vec<_> =
            self.tablets[first..].iter().map(|tablet| self.mysqlctl(tablet, "start")).collect::<Result<_>>()?;
        for child in started {
            child.finish()?.success()?;
        }
        Ok(())
    }

    fn mysqlctl(&self, tablet: &Tablet, action: &str) -> Result<Background> {
        let mut command = self.command("mysqlctl", false);
        command.args(["-tablet_uid", &tablet.spec.uid.to_string(), "-mysql_port", &tablet.mysql_port.to_string()]);
        command.arg(action);
        Background::start(format!("mysqlctl {action}"), command)
    }

    /// Starts the mysqld of a tablet again after [`Cluster::kill_mysqld`].
    pub fn start_mysqld(&self, index: usize) -> Result<()> {
        self.mysqlctl(&self.tablets[index], "start")?.finish()?.success().map(drop)
    }

    /// Ends a tablet's mysqld as a crash would.
    pub fn kill_mysqld(&self, index: usize) -> Result<()> {
        let pid = self.mysqld_pid(index)?;
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        // Its last threads may hold the port a moment longer.
        let port = self.tablets[index].mysql_port;
        wait_for("mysqld to be gone", Duration::from_secs(20), || {
            !process::is_running(pid) && TcpListener::bind(("::", port)).is_ok()
        })
    }

    fn mysqld_pid(&self, index: usize) -> Result<i32> {
        let path = self.tablet_dir(index).join("mysql.pid");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().parse()?)
    }

    pub fn tablet_dir(&self, index: usize) -> PathBuf {
        self.dir.join(format!("vt_{:010}", self.tablets[index].spec.uid))
    }

    pub fn start_vttablet(&mut self, index: usize) -> Result<()> {
        let tablet = &self.tablets[index];
        let command = self.vttablet_command(index, tablet.http_port, tablet.grpc_port);
        let log = self.tablet_dir(index).join("vttablet.out");
        let process = Process::start("vttablet", command, &log)?;
        self.tablets[index].vttablet = Some(process);
        self.wait_for_port(self.tablets[index].http_port, "vttablet")
    }

    /// A vttablet of this tablet, to serve on these ports.
    pub fn vttablet_command(&self, index: usize, http_port: u16, grpc_port: u16) -> Command {
        let spec = &self.tablets[index].spec;
        let mut command = self.command("vttablet", true);
        command
            .args(["-tablet-path", &spec.alias(), "-tablet_hostname", "127.0.0.1", "-bind_address", "127.0.0.1"])
            .args(["-init_keyspace", &spec.keyspace, "-init_shard", &spec.shard])
            .args(["-init_tablet_type", spec.tablet_type, "-health_check_interval", "1s"])
            .args(["-enable_replication_reporter", "-backup_storage_implementation", "file"])
            .arg("-file_backup_storage_root")
            .arg(self.dir.join("backups"))
            .args(["-restore_from_backup"])
            .args(["-service_map", "grpc-queryservice,grpc-tabletmanager,grpc-updatestream"])
            .args(["-port", &http_port.to_string(), "-grpc_port", &grpc_port.to_string()])
            .arg(format!("-enable_semi_sync={}", self.spec.semi_sync))
            .args(self.tls_flags(TlsFiles::server_flags))
            .args(&self.spec.vttablet_flags);
        command
    }

    pub fn kill_vttablet(&mut self, index: usize) {
        self.tablets[index].vttablet = None;
    }

    /// Creates the shards that tablets from `first` on have in sharded keyspaces, so that the serving graph has all of
    /// them from the first tablet on. In the order of the tablets, as the first shard of a range serves it.
    fn create_shards(&self, first: usize) -> Result<()> {
        let specs = || self.tablets[first..].iter().map(|tablet| &tablet.spec);
        let sharded: HashSet<&str> =
            specs().filter(|spec| spec.shard.contains('-')).map(|spec| spec.keyspace.as_str()).collect();
        let mut created = HashSet::new();
        for spec in specs().filter(|spec| sharded.contains(spec.keyspace.as_str())) {
            let shard = format!("{}/{}", spec.keyspace, spec.shard);
            if created.insert(shard.clone()) {
                self.vtctlclient(&["CreateShard", "-parent", "-force", &shard])?.success()?;
            }
        }
        Ok(())
    }

    /// The first tablet of every shard becomes its master; shards of tablets before `first` have one.
    fn elect_masters(&self, first: usize) -> Result<()> {
        let mut seen = HashSet::new();
        for (index, tablet) in self.tablets.iter().enumerate() {
            let shard = format!("{}/{}", tablet.spec.keyspace, tablet.spec.shard);
            if seen.insert(shard.clone()) && index >= first {
                self.vtctlclient(&["InitShardMaster", "-force", &shard, &tablet.spec.alias()])?.success()?;
            }
        }
        Ok(())
    }

    pub fn start_vtgate(&mut self) -> Result<()> {
        let ports = [self.vtgate_http_port, self.vtgate_grpc_port, self.vtgate_mysql_port];
        self.vtgate = Some(self.run_vtgate(ports, &self.mysql_socket())?);
        Ok(())
    }

    /// A second vtgate beside the cluster's own, and its MySQL port.
    pub fn another_vtgate(&self) -> Result<(Process, u16)> {
        let ports = [free_port(), free_port(), free_port()];
        Ok((self.run_vtgate(ports, &self.dir.join(format!("vtgate{}.sock", ports[2])))?, ports[2]))
    }

    /// Ports for HTTP, gRPC and MySQL.
    fn run_vtgate(&self, ports: [u16; 3], socket: &Path) -> Result<Process> {
        // For one that no tablet can become it waits for 30 s.
        let types = if self.every_shard_has_a_replica() { "MASTER,REPLICA" } else { "MASTER" };
        let mut command = self.command("vtgate", true);
        command
            .args(["-cell", CELL, "-cells_to_watch", CELL, "-tablet_types_to_wait", types])
            .args(["-service_map", "grpc-vtgateservice", "-bind_address", "127.0.0.1"])
            .args(["-mysql_server_bind_address", "127.0.0.1", "-mysql_server_socket_path"])
            .arg(socket)
            .args(["-port", &ports[0].to_string(), "-grpc_port", &ports[1].to_string()])
            .args(["-mysql_server_port", &ports[2].to_string()]);
        if !self.spec.vtgate_flags.iter().any(|flag| flag.starts_with("-mysql_auth_server_impl")) {
            command.args(["-mysql_auth_server_impl", "none"]);
        }
        command.args(self.tls_flags(|tls| {
            let mysql = [("cert", &tls.cert), ("key", &tls.key)]
                .map(|(name, path)| format!("-mysql_server_ssl_{name}={}", path.display()));
            [tls.server_flags(), tls.client_flags("tablet_grpc"), vec![tls.creds_flag()], mysql.to_vec()].concat()
        }));
        command.args(&self.spec.vtgate_flags);
        let process = Process::start("vtgate", command, &self.dir.join("tmp/vtgate.out"))?;
        self.wait_for_port(ports[0], "vtgate")?;
        self.wait_for_port(ports[2], "vtgate's MySQL port")?;
        Ok(process)
    }

    /// Besides the tablet that is its master.
    fn every_shard_has_a_replica(&self) -> bool {
        let mut candidates = HashMap::new();
        for TabletSpec { keyspace, shard, tablet_type, .. } in self.tablets.iter().map(|tablet| &tablet.spec) {
            *candidates.entry((keyspace, shard)).or_insert(0) += u32::from(*tablet_type == "replica");
        }
        candidates.values().all(|count| *count > 1)
    }

    pub fn kill_vtgate(&mut self) {
        self.vtgate = None;
    }

    pub fn vtgate(&self) -> &Process {
        self.vtgate.as_ref().expect("vtgate is running")
    }

    pub fn vtgate_mut(&mut self) -> &mut Process {
        self.vtgate.as_mut().expect("vtgate is running")
    }

    /// vtgate's unix socket.
    pub fn mysql_socket(&self) -> PathBuf {
        self.dir.join("vtgate.sock")
    }

    fn wait_for_port(&self, port: u16, name: &str) -> Result<()> {
        wait_for(&format!("{name} to answer on port {port}"), Duration::from_secs(60), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .with_context(|| format!("logs are in {}", self.dir.display()))
    }

    /// Sends a command to vtctld, as an operator does.
    pub fn vtctlclient(&self, args: &[&str]) -> Result<Finished> {
        Background::start(format!("vtctlclient {}", args.join(" ")), self.vtctlclient_command(args))?.finish()
    }

    /// The same, not started yet.
    pub fn vtctlclient_command(&self, args: &[&str]) -> Command {
        let server = format!("127.0.0.1:{}", self.vtctld_grpc_port);
        let mut command = self.command("vtctlclient", false);
        command.args(self.tls_flags(|tls| [tls.client_flags("vtctld_grpc"), vec![tls.creds_flag()]].concat()));
        command.args(["-server", &server]).args(args);
        command
    }

    /// A vtworker of this cluster with these words behind the flags that each needs, not started yet.
    pub fn vtworker_command(&self, words: &[&str]) -> Command {
        let mut command = self.command("vtworker", true);
        command.args(["-cell", CELL, "-alsologtostderr"]).args(words);
        command
    }

    /// Runs a command of vtworker to its end.
    pub fn vtworker(&self, words: &[&str]) -> Result<Finished> {
        Background::start(format!("vtworker {}", words.join(" ")), self.vtworker_command(words))?.finish()
    }

    /// Sends a command to a vtworker that serves on this gRPC port.
    pub fn vtworkerclient(&self, grpc_port: u16, words: &[&str]) -> Result<Finished> {
        let server = format!("127.0.0.1:{grpc_port}");
        let mut command = self.command("vtworkerclient", false);
        command.args(["-server", &server]).args(words);
        Background::start(format!("vtworkerclient {}", words.join(" ")), command)?.finish()
    }

    /// Runs SQL through vtgate with the command-line client, printing tables.
    pub fn mysql(&self, args: &[&str], sql: &str) -> Result<Finished> {
        let port = self.vtgate_mysql_port.to_string();
        let mut command = Command::new("mysql");
        command.args(["--no-defaults", "--table", "-h", "127.0.0.1", "-P", &port]).args(args).args(["-e", sql]);
        Background::start(format!("mysql -e '{sql}'"), command)?.finish()
    }

    /// Runs SQL on a tablet's own mysqld as its administrator.
    pub fn mysql_on_tablet(&self, index: usize, sql: &str) -> Result<Finished> {
        let mut command = Command::new("mysql");
        command.args(["--no-defaults", "--batch", "--skip-column-names", "-u", "vt_dba", "-S"]);
        command.arg(self.tablet_dir(index).join("mysql.sock")).args(["-e", sql]);
        Background::start(format!("mysql -e '{sql}' on tablet {index}"), command)?.finish()?.success()
    }

    /// A number or text in a server's `/debug/vars`.
    pub fn debug_var(&self, port: u16, name: &str) -> Result<serde_json::Value> {
        let (status, body) = http_get(port, "/debug/vars")?;
        ensure!(status == 200, "/debug/vars answers {status}");
        let vars: serde_json::Value = serde_json::from_str(&body)?;
        vars.get(name).cloned().with_context(|| format!("{name} is not in /debug/vars"))
    }

    /// Waits until a tablet's query service is in a state, e.g. `SERVING`.
    pub fn wait_for_tablet_state(&self, index: usize, state: &str) -> Result<()> {
        let port = self.tablets[index].http_port;
        wait_for(&format!("tablet {index} to be {state}"), Duration::from_secs(60), || {
            self.debug_var(port, "TabletStateName").is_ok_and(|value| value == state)
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.vtgate = None;
        for tablet in &mut self.tablets {
            tablet.vttablet = None;
        }
        for index in 0..self.tablets.len() {
            if let Ok(pid) = self.mysqld_pid(index) {
                process::end(pid);
            }
        }
        self.vtctld = None;
        self.etcd = None;
        if std::thread::panicking() || std::env::var_os("VT_TEST_KEEP").is_some() {
            eprintln!("data and logs of this test are kept in {}", self.dir.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("{} could not be removed: {error}", self.dir.display());
        }
    }
}

/// What a program printed and how it ended.
#[derive(Debug, Clone)]
pub struct Finished {
    pub what: String,
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Finished {
    pub fn new(what: String, output: Output) -> Self {
        Self {
            what,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }

    /// An error with everything it printed unless it ended with 0.
    pub fn success(self) -> Result<Self> {
        if self.code != Some(0) {
            bail!("{} ended with {:?}:\n{}{}", self.what, self.code, self.stdout, self.stderr);
        }
        Ok(self)
    }
}

/// The root of the checkout.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the checkout is there")
}

/// Polls until a condition holds.
pub fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
