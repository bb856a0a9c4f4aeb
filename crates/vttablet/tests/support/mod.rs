//! A real MariaDB in a directory of its own, and a query service over it.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod turns;
mod via;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use mysql::{ConnectParams, Connection};
use servenv::stats::Registry;
use tabletclient::QueryService;
use vterrors::{Result, VtError};
use vtproto::query::{
    BindVariable, BoundQuery, ExecuteOptions, ExecuteRequest, QueryResult, Target, Type, VtGateCallerId,
};
use vtproto::topodata::TabletType;
use vttablet::queryservice::{QueryServiceConfig, TabletServer};

/// One mariadbd. Stopped, and its directory removed, when the last test that uses it is done.
pub struct Mysqld {
    pub dir: PathBuf,
    child: Mutex<Child>,
}

static SHARED: Mutex<Weak<Mysqld>> = Mutex::new(Weak::new());

/// The server that tests share; `None`, said loudly, where there is no MariaDB.
pub fn shared() -> Option<Arc<Mysqld>> {
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return Some(server);
    }
    let server = Arc::new(Mysqld::start()?);
    *shared = Arc::downgrade(&server);
    Some(server)
}

impl Mysqld {
    /// A server for a test that does harm to it.
    pub fn start() -> Option<Self> {
        let found = |name: &str| Command::new(name).arg("--version").output().is_ok();
        if !found("mariadbd") || !found("mariadb-install-db") {
            eprintln!("SKIPPED: no mariadbd in PATH");
            return None;
        }
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("vttablet-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let installed = Command::new("mariadb-install-db")
            .arg("--no-defaults")
            .arg(format!("--datadir={}", dir.join("data").display()))
            // A server that starts removes temporary tables it finds, those of others in the same directory too.
            .env("TMPDIR", &dir)
            .args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"])
            .args(user())
            .output()
            .expect("mariadb-install-db");
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let server = Self { child: Mutex::new(spawn(&dir)), dir };
        server.wait();
        Some(server)
    }

    pub fn params(&self) -> ConnectParams {
        ConnectParams::unix(self.dir.join("sock"), "root")
    }

    /// Kills it the hard way.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("the process");
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    pub fn restart(&self) {
        *self.child.lock().expect("the process") = spawn(&self.dir);
        self.wait();
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(self.dir.join("sock")).is_err() {
            assert!(Instant::now() < deadline, "mariadbd did not start, see {}", self.dir.display());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs statements past the query service.
    pub async fn run(&self, statements: &[&str]) {
        let mut connection = Connection::connect(&self.params()).await.expect("connected");
        for statement in statements {
            connection.execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }
}

impl Drop for Mysqld {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn user() -> Option<String> {
    // mariadbd refuses to run as uid 0 unless told so.
    nix::unistd::Uid::effective().is_root().then(|| "--user=root".to_owned())
}

fn spawn(dir: &std::path::Path) -> Child {
    let option = |name: &str, file: &str| format!("--{name}={}", dir.join(file).display());
    Command::new("mariadbd")
        .arg("--no-defaults")
        .args([option("datadir", "data"), option("socket", "sock"), option("pid-file", "pid")])
        .arg(option("log-error", "error.log"))
        // One of its own: a server that starts removes what it takes for temporary tables of a former run.
        .arg(format!("--tmpdir={}", dir.display()))
        .args([
            "--skip-networking",
            "--binlog-format=ROW",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=32M",
        ])
        .args(user())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mariadbd")
}

/// A query service over a database of its own.
pub struct Tablet {
    pub server: TabletServer,
    /// What a caller has of it: itself, or a client of it over the transport that this test program is for.
    pub queries: Arc<dyn QueryService>,
    pub registry: Registry,
    pub db: String,
    pub mysqld: Arc<Mysqld>,
}

impl Tablet {
    /// Serving as master over an empty database; `None` without MariaDB.
    pub async fn master(db: &str, change: impl FnOnce(&mut QueryServiceConfig)) -> Option<Self> {
        let mysqld = shared()?;
        Some(Self::over(mysqld, db, change).await)
    }

    pub async fn over(mysqld: Arc<Mysqld>, db: &str, change: impl FnOnce(&mut QueryServiceConfig)) -> Self {
        let registry = Registry::new("vttablet");
        let mut config = QueryServiceConfig {
            app: mysqld.params().database(db),
            dba: mysqld.params(),
            ..QueryServiceConfig::default()
        };
        change(&mut config);
        let target = Target { keyspace: "commerce".into(), shard: "0".into(), ..Target::default() };
        let server = TabletServer::new(config, target, &registry).expect("a service");
        let changed = server.set_serving_type(TabletType::Master, true, vec![]).await.expect("serving");
        assert!(changed);
        let queries = via::reach(&server).await;
        Self { server, queries, registry, db: db.into(), mysqld }
    }

    /// Runs statements in the database, past the query service, and tells it of the new schema.
    pub async fn sql(&self, statements: &[&str]) {
        let mut connection = Connection::connect(&self.mysqld.params().database(&self.db)).await.expect("connected");
        for statement in statements {
            connection.execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        self.server.reload_schema().await.expect("reloaded");
    }

    pub fn target(&self) -> Option<Target> {
        Some(self.server.target())
    }

    pub async fn execute(&self, sql: &str) -> Result<QueryResult> {
        self.execute_in(0, sql).await
    }

    pub async fn execute_in(&self, transaction_id: i64, sql: &str) -> Result<QueryResult> {
        self.execute_with(transaction_id, sql, &[], ExecuteOptions::default()).await
    }

    pub async fn execute_with(
        &self,
        transaction_id: i64,
        sql: &str,
        vars: &[(&str, BindVariable)],
        options: ExecuteOptions,
    ) -> Result<QueryResult> {
        self.queries
            .execute(ExecuteRequest {
                immediate_caller_id: caller("userData1"),
                target: self.target(),
                query: Some(bound(sql, vars)),
                transaction_id,
                options: Some(options),
                ..ExecuteRequest::default()
            })
            .await
    }
}

pub fn caller(name: &str) -> Option<VtGateCallerId> {
    Some(VtGateCallerId { username: name.into(), groups: vec![] })
}

pub fn bound(sql: &str, vars: &[(&str, BindVariable)]) -> BoundQuery {
    BoundQuery {
        sql: sql.into(),
        bind_variables: vars.iter().map(|(name, var)| (name.to_string(), var.clone())).collect(),
    }
}

pub fn int(n: i64) -> BindVariable {
    BindVariable { r#type: Type::Int64.into(), value: n.to_string().into(), values: vec![] }
}

pub fn text(s: &str) -> BindVariable {
    BindVariable { r#type: Type::Varbinary.into(), value: s.to_owned().into(), values: vec![] }
}

/// Rows as texts, NULL as `NULL`.
pub fn rows(result: &QueryResult) -> Vec<Vec<String>> {
    let cells = |row: &vtproto::query::Row| {
        let mut at = 0;
        let cell = |&length: &i64| match usize::try_from(length) {
            Ok(length) => {
                at += length;
                String::from_utf8_lossy(&row.values[at - length..at]).into_owned()
            }
            Err(_) => "NULL".into(),
        };
        row.lengths.iter().map(cell).collect()
    };
    result.rows.iter().map(cells).collect()
}

/// The only cell of a result.
pub fn cell(result: &QueryResult) -> String {
    rows(result).first().and_then(|row| row.first()).cloned().unwrap_or_default()
}

pub fn message(result: Result<QueryResult>) -> String {
    match result {
        Ok(result) => panic!("no error but {result:?}"),
        Err(error) => error.message().to_owned(),
    }
}

pub fn failure(result: Result<QueryResult>) -> VtError {
    result.expect_err("an error")
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
