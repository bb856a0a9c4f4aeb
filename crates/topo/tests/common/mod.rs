//! What several test programs share: a real etcd, a connection that can be cut, and waiting for conditions.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    fs::File,
    future::Future,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::watch};
use topo::{EtcdTls, TopoOptions, TopoServer};
use vtproto::topodata::CellInfo;

/// How long a condition may take to come true on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until a condition holds.
pub async fn eventually<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Bounds a wait of a test.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// One etcd of this test, with its data in a temporary directory.
pub struct Etcd {
    dir: TempDir,
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
    tls: Option<EtcdTls>,
}

impl Etcd {
    /// `None`, said loudly, when there is no etcd to start.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        Self::start_with(None).await
    }

    /// With the files of the server and of the authority that clients have to be known to.
    pub async fn start_with(tls: Option<EtcdTls>) -> anyhow::Result<Option<Self>> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: there is no `etcd` in the PATH, nothing of the etcd backend was tested");
            return Ok(None);
        }
        let (client_port, peer_port) = (testcluster::free_port(), testcluster::free_port());
        let mut etcd = Self { dir: TempDir::new()?, client_port, peer_port, process: None, tls };
        etcd.restart().await?;
        Ok(Some(etcd))
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Starts the process (again) and waits until it answers.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let (client, peer) =
            (format!("{scheme}://127.0.0.1:{}", self.client_port), format!("http://127.0.0.1:{}", self.peer_port));
        let mut command = Command::new("etcd");
        if let Some(tls) = &self.tls {
            command.arg("--cert-file").arg(&tls.cert).arg("--key-file").arg(&tls.key);
            command.arg("--trusted-ca-file").arg(&tls.ca).arg("--client-cert-auth=true");
        }
        let process = command
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("etcd")?;
        self.process = Some(process);
        let started = Instant::now();
        while !self.answers().await {
            if started.elapsed() > PATIENCE {
                bail!("etcd does not answer: {}", std::fs::read_to_string(self.dir.path().join("log"))?);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn answers(&self) -> bool {
        match &self.tls {
            None => self.raw().await.is_ok(),
            // The test itself tries the encrypted connection; here it is enough that something listens.
            Some(_) => TcpStream::connect(self.address()).await.is_ok(),
        }
    }

    /// A client of its own, to see and do what the backend does not offer.
    pub async fn raw(&self) -> anyhow::Result<etcd_client::Client> {
        let mut client = etcd_client::Client::connect([self.address()], None).await?;
        client.get("ready?", None).await?;
        Ok(client)
    }

    /// Ends the process without giving it a chance to say goodbye.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Makes the process stand still with its connections open, or go on.
    pub fn freeze(&self, freeze: bool) -> anyhow::Result<()> {
        let process = self.process.as_ref().context("etcd is not running")?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id())?);
        kill(pid, if freeze { Signal::SIGSTOP } else { Signal::SIGCONT })?;
        // The threads of a busy machine may still answer behind the signal.
        let started = Instant::now();
        while freeze && !all_threads_stopped(process.id())? {
            anyhow::ensure!(started.elapsed() < PATIENCE, "etcd does not stand still");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// A topology under a root of its own, with some cells.
    pub async fn topo(&self, root: &str, cells: &[&str], options: TopoOptions) -> anyhow::Result<TopoServer> {
        topo_at(&self.address(), root, cells, options).await
    }
}

fn all_threads_stopped(pid: u32) -> anyhow::Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
        if !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

pub async fn topo_at(address: &str, root: &str, cells: &[&str], options: TopoOptions) -> anyhow::Result<TopoServer> {
    let topo = TopoServer::open("etcd2", address, &format!("{root}/global"), options).await?;
    for cell in cells {
        let info = CellInfo { server_address: address.to_owned(), root: format!("{root}/{cell}") };
        topo.create_cell_info(cell, &info).await?;
    }
    Ok(topo)
}

/// A TCP connection to etcd which can be cut, or can lose its packets.
pub struct Proxy {
    pub address: SocketAddr,
    open: watch::Sender<bool>,
    /// Connections made before the last change forward nothing any more.
    generation: watch::Sender<u32>,
}

impl Proxy {
    pub async fn start(target: String) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (open, opened) = watch::channel(true);
        let (generation, generations) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (target, mut opened, mut stalled) = (target.clone(), opened.clone(), generations.clone());
                stalled.mark_unchanged();
                tokio::spawn(async move {
                    if !*opened.borrow() {
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    let stalled = tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
                        _ = async { drop(opened.wait_for(|open| !open).await) } => false,
                        changed = stalled.changed() => changed.is_ok(),
                    };
                    if stalled {
                        // Both sockets stay open.
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Ok(Self { address, open, generation })
    }

    /// Lets the present connections stay open and silent; new ones work.
    pub fn stall(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}
