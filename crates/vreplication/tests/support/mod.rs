//! Real servers with a binlog, and a reader that applies what a streamer sends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mysql::{ConnectParams, Connection, Position, admin};
use vreplication::StreamOptions;
use vreplication::source::{Ended, Filter, Input, Progress, StreamRequest, Streamer, channel};
use vtproto::binlogdata::{BinlogTransaction, Charset, binlog_transaction::statement::Category};
use vtproto::query::{QueryResult, Row};

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    MariaDb,
    MySql9,
}

/// One mysqld. Stopped, and its directory removed, when dropped.
pub struct Server {
    pub flavor: Flavor,
    dir: tempfile::TempDir,
    child: Child,
}

fn root_user() -> Option<&'static str> {
    let id = Command::new("id").arg("-u").output().expect("id");
    (id.stdout == b"0\n").then_some("--user=root")
}

impl Server {
    /// `None`, said loudly, where there is no such server.
    pub async fn start(flavor: Flavor, options: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        // Temporary tables of servers that are made at the same time have the same names.
        let tmp = format!("--tmpdir={}", dir.path().display());
        let data = format!("--datadir={}", dir.path().join("data").display());
        let program = match flavor {
            Flavor::MariaDb => {
                if Command::new("mariadbd").arg("--version").output().is_err() {
                    eprintln!("SKIPPED: no mariadbd in PATH");
                    return None;
                }
                let made = Command::new("mariadb-install-db")
                    .args(["--no-defaults", &data, &tmp, "--auth-root-authentication-method=normal", "--skip-test-db"])
                    .args(root_user())
                    .output()
                    .expect("mariadb-install-db");
                assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
                PathBuf::from("mariadbd")
            }
            Flavor::MySql9 => {
                let Some(root) = std::env::var_os("VT_TEST_MYSQL9_ROOT") else {
                    eprintln!("SKIPPED: VT_TEST_MYSQL9_ROOT is not set, see scripts/test.sh");
                    return None;
                };
                let program = Path::new(&root).join("bin/mysqld");
                let made = Command::new(&program)
                    .args(["--no-defaults", "--initialize-insecure", &data])
                    .args(root_user())
                    .output()
                    .expect("mysqld");
                assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
                program
            }
        };
        let at = |option: &str, file: &str| format!("--{option}={}", dir.path().join(file).display());
        let own: &[&str] = match flavor {
            Flavor::MariaDb => &["--binlog-format=ROW", "--gtid-strict-mode=1"],
            Flavor::MySql9 => &[
                "--gtid-mode=ON",
                "--enforce-gtid-consistency=ON",
                "--mysqlx=OFF",
                "--performance-schema=OFF",
                "--innodb-redo-log-capacity=32M",
            ],
        };
        let child = Command::new(program)
            .args([
                "--no-defaults",
                &data,
                &at("socket", "sock"),
                &at("pid-file", "pid"),
                &at("log-error", "error.log"),
            ])
            .args(["--skip-networking", "--server-id=1", "--log-bin=bin", "--log-slave-updates"])
            .args(["--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0", "--innodb-buffer-pool-size=32M"])
            .args(["--max-allowed-packet=128M", &tmp])
            .args(own)
            .args(root_user())
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        let server = Self { flavor, dir, child };
        let deadline = Instant::now() + Duration::from_secs(90);
        while Connection::connect(&server.params("")).await.is_err() {
            let log = || std::fs::read_to_string(server.dir.path().join("error.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the server does not start:\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(server)
    }

    pub fn params(&self, database: &str) -> ConnectParams {
        ConnectParams::unix(self.dir.path().join("sock"), "root").database(database)
    }

    pub async fn connect(&self, database: &str) -> Connection {
        Connection::connect(&self.params(database)).await.expect("connected")
    }

    /// Runs statements in a database.
    pub async fn run(&self, database: &str, statements: &[&str]) {
        let mut connection = self.connect(database).await;
        for statement in statements {
            connection.execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    pub async fn position(&self) -> Position {
        admin::master_position(&mut self.connect("").await).await.expect("a position")
    }

    pub fn streamer(&self, database: &str) -> Streamer {
        Streamer { params: self.params(""), database: database.into(), max_message: 64 << 20 }
    }

    /// Starts a stream in the background.
    pub fn stream(&self, database: &str, start: &Position, filter: Filter, options: StreamOptions) -> Stream {
        let streamer = self.streamer(database);
        let charset = Some(Charset { client: 45, conn: 45, server: 45 });
        let request = StreamRequest { start: start.clone(), filter, options, charset, row_tables: Vec::new() };
        Stream::start(streamer, request)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All of some tables.
pub fn tables(names: &[&str]) -> Filter {
    Filter::Tables(names.iter().map(|name| (*name).to_owned()).collect())
}

struct Uncounted;

impl Progress for Uncounted {
    fn streamed(&self, _: u64, _: u64) {}
}

/// A running stream.
pub struct Stream {
    pub input: Input,
    task: tokio::task::JoinHandle<Result<(), Ended>>,
}

impl Stream {
    pub fn start(streamer: Streamer, request: StreamRequest) -> Self {
        let (output, input) = channel();
        let task = tokio::spawn(async move { streamer.run(&request, &output, &Uncounted).await });
        Self { input, task }
    }

    pub async fn next(&mut self) -> Option<BinlogTransaction> {
        tokio::time::timeout(Duration::from_secs(60), self.input.next()).await.expect("a message in time")
    }

    /// Everything up to a position.
    pub async fn until(&mut self, position: &Position) -> Vec<BinlogTransaction> {
        let mut all = Vec::new();
        loop {
            let Some(message) = self.next().await else { panic!("the stream ended: {}", self.error().await) };
            let reached =
                message.event_token.as_ref().map(|token| token.position.parse::<Position>().expect("a position"));
            all.push(message);
            if reached.is_some_and(|reached| reached.at_least(position)) {
                return all;
            }
        }
    }

    /// The error with which the stream ends.
    pub async fn error(&mut self) -> String {
        while self.next().await.is_some() {}
        match (&mut self.task).await.expect("no panic") {
            Err(Ended::Failed(error)) => error.to_string(),
            other => panic!("no error: {other:?}"),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The statements without the settings of time.
pub fn statements(messages: &[BinlogTransaction]) -> Vec<String> {
    let rows = |message: &BinlogTransaction| {
        let kept = message.statements.iter().filter(|statement| statement.category() != Category::BlSet);
        kept.map(|statement| String::from_utf8_lossy(&statement.sql).into_owned()).collect::<Vec<_>>()
    };
    messages.iter().flat_map(rows).collect()
}

/// Applies messages as a reader does: those of one source transaction in one transaction. Every change has to change a row.
pub async fn apply(connection: &mut Connection, messages: &[BinlogTransaction]) {
    connection
        .execute("SET sql_log_bin=0, sql_mode='NO_AUTO_VALUE_ON_ZERO', foreign_key_checks=0")
        .await
        .expect("a session");
    for message in messages {
        if !connection.in_transaction() {
            connection.execute("BEGIN").await.expect("begin");
        }
        for statement in &message.statements {
            let shown = || String::from_utf8_lossy(&statement.sql[..statement.sql.len().min(2000)]).into_owned();
            let result = connection.query(&statement.sql, 0).await;
            let result = result.unwrap_or_else(|error| panic!("{error}: {}", shown()));
            assert!(
                statement.category() == Category::BlSet || result.rows_affected == 1,
                "changed nothing: {}",
                shown()
            );
        }
        if message.event_token.is_some() {
            connection.execute("COMMIT").await.expect("commit");
        }
    }
}

pub fn cells(row: &Row) -> Vec<Option<Vec<u8>>> {
    let mut at = 0;
    let cell = |&len: &i64| {
        let len = usize::try_from(len).ok()?;
        at += len;
        Some(row.values[at - len..at].to_vec())
    };
    row.lengths.iter().map(cell).collect()
}

pub fn texts(result: &QueryResult) -> Vec<Vec<String>> {
    let text = |cell: Option<Vec<u8>>| cell.map_or("NULL".into(), |cell| String::from_utf8_lossy(&cell).into_owned());
    result.rows.iter().map(|row| cells(row).into_iter().map(text).collect()).collect()
}

/// Fails with the first row in which a table differs between two databases.
pub async fn expect_same(connection: &mut Connection, left: &str, right: &str, table: &str, order: &str) {
    let mut rows = Vec::new();
    for database in [left, right] {
        let sql = format!("SELECT * FROM {database}.{table} ORDER BY {order}");
        let result = connection.execute(&sql).await.expect("rows");
        rows.push((result.fields.clone(), result.rows.iter().map(cells).collect::<Vec<_>>()));
    }
    let (fields, left_rows) = &rows[0];
    let right_rows = &rows[1].1;
    for (a, b) in left_rows.iter().zip(right_rows) {
        for ((a, b), field) in a.iter().zip(b).zip(fields) {
            assert!(a == b, "{table}.{}: {} became {}", field.name, shown(a), shown(b));
        }
    }
    assert_eq!(left_rows.len(), right_rows.len(), "rows of {table}");
    let sums = connection.execute(&format!("CHECKSUM TABLE {left}.{table}, {right}.{table}")).await.expect("checksums");
    let sums = texts(&sums);
    assert_eq!(sums[0][1], sums[1][1], "checksums of {table}");
}

fn shown(cell: &Option<Vec<u8>>) -> String {
    match cell {
        None => "NULL".into(),
        Some(bytes) if bytes.len() > 200 => format!("{} bytes", bytes.len()),
        Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
    }
}
