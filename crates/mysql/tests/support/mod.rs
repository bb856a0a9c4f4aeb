//! A small handler and the ways to reach it, for the tests of both sides together.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mysql::client::{ClientTls, ConnectParams};
use mysql::constants::status;
use mysql::server::{
    AuthServer, ConnectionInfo, Handler, HandlerError, OkInfo, Prepared, ResultWriter, Server, ServerConfig, bind_unix,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vterrors::MysqlError;
use vtproto::query::{BindVariable, Field, QueryResult, Row, Type};

/// Answers a few made-up statements; see [`Demo::query`].
#[derive(Debug, Default)]
pub struct Demo {
    pub open: AtomicUsize,
    /// Statements `sleep` that have begun, and those that were cancelled.
    pub sleeping: AtomicUsize,
    pub cancelled: AtomicUsize,
    /// Rows handed to the writer.
    pub produced: AtomicUsize,
}

pub struct Session {
    pub info: ConnectionInfo,
    db: String,
    in_transaction: bool,
}

pub fn field(name: &str, of: Type) -> Field {
    Field { name: name.into(), r#type: of.into(), ..Field::default() }
}

pub fn row(cells: &[Option<&[u8]>]) -> Row {
    Row {
        lengths: cells.iter().map(|cell| cell.map_or(-1, |c| c.len() as i64)).collect(),
        values: cells.iter().flatten().flat_map(|cell| cell.iter().copied()).collect(),
    }
}

pub fn one(name: &str, value: &str) -> QueryResult {
    QueryResult {
        fields: vec![field(name, Type::Varchar)],
        rows: vec![row(&[Some(value.as_bytes())])],
        ..QueryResult::default()
    }
}

impl Demo {
    fn flags(session: &Session) -> u16 {
        status::AUTOCOMMIT | if session.in_transaction { status::IN_TRANS } else { 0 }
    }
}

impl Handler for Demo {
    type Session = Session;

    async fn connected(&self, conn: &ConnectionInfo) -> Result<Session, MysqlError> {
        if conn.db_name == "forbidden" {
            return Err(MysqlError::new(1044, "42000", "Access denied to database 'forbidden'"));
        }
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Session { info: conn.clone(), db: conn.db_name.clone(), in_transaction: false })
    }

    async fn query(&self, session: &mut Session, sql: &[u8], out: &mut ResultWriter<'_>) -> Result<(), HandlerError> {
        let text = String::from_utf8_lossy(sql).into_owned();
        let (word, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        match word {
            "echo" => out.result(&one("echo", rest), Self::flags(session), 0).await?,
            "whoami" => {
                let info = &session.info;
                let text = format!("{}|{}|{}|{}", info.user, info.identity.user_data, session.db, info.tls);
                out.result(&one("me", &text), Self::flags(session), 0).await?;
            }
            // rows COUNT SIZE: many rows.
            "rows" => {
                let mut numbers = rest.split(' ').map(|n| n.parse::<usize>().unwrap_or(0));
                let (count, size) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
                out.start(&[field("id", Type::Int64), field("filler", Type::Varbinary), field("null", Type::Int8)])
                    .await?;
                let filler = vec![b'x'; size];
                for id in 0..count {
                    out.rows(&[row(&[Some(id.to_string().as_bytes()), Some(&filler), None])]).await?;
                    self.produced.fetch_add(1, Ordering::Relaxed);
                }
                out.finish(Self::flags(session), 3).await?;
            }
            "fail" => return Err(MysqlError::new(1146, "42S02", "Table 'x' doesn't exist").into()),
            "fail_midway" => {
                out.start(&[field("id", Type::Int64)]).await?;
                out.rows(&[row(&[Some(b"1")])]).await?;
                return Err(MysqlError::new(1317, "70100", "Query execution was interrupted").into());
            }
            "lie" => {
                out.start(&[field("id", Type::Int64)]).await?;
                out.rows(&[Row { lengths: vec![100], values: bytes::Bytes::from_static(b"1") }]).await?;
            }
            "nothing" => {}
            "SET" => out.ok(&OkInfo { status: Self::flags(session), ..OkInfo::default() }).await?,
            "begin" => {
                session.in_transaction = true;
                out.ok(&OkInfo { status: Self::flags(session), ..OkInfo::default() }).await?;
            }
            "commit" => {
                session.in_transaction = false;
                out.ok(&OkInfo { status: Self::flags(session), ..OkInfo::default() }).await?;
            }
            "insert" => {
                let info = OkInfo {
                    affected_rows: 2,
                    last_insert_id: 77,
                    status: Self::flags(session),
                    warnings: 1,
                    info: "Records: 2".into(),
                };
                out.ok(&info).await?;
            }
            // Two results of one statement, as of a CALL.
            "call" => {
                out.set_more_results(true);
                out.result(&one("a", "1"), Self::flags(session), 0).await?;
                out.set_more_results(false);
                out.ok(&OkInfo::default()).await?;
            }
            "sleep" => {
                self.sleeping.fetch_add(1, Ordering::SeqCst);
                out.cancelled().cancelled().await;
                self.cancelled.fetch_add(1, Ordering::SeqCst);
                return Err(MysqlError::new(1317, "70100", "Query execution was interrupted").into());
            }
            "deaf" => std::future::pending::<()>().await,
            _ => return Err(MysqlError::new(1064, "42000", format!("syntax error at '{word}'")).into()),
        }
        Ok(())
    }

    async fn prepare(&self, _session: &mut Session, sql: &[u8]) -> Result<Prepared, MysqlError> {
        if sql.starts_with(b"fail") {
            return Err(MysqlError::new(1064, "42000", "syntax error"));
        }
        let param_count = sql.iter().filter(|&&byte| byte == b'?').count() as u16;
        Ok(Prepared { sql: sql.to_vec().into(), param_count, fields: vec![field("a", Type::Varchar)] })
    }

    /// Gives every parameter back as a row: name, type, text.
    async fn execute(
        &self,
        session: &mut Session,
        _statement: &Prepared,
        bind_variables: BTreeMap<String, BindVariable>,
        out: &mut ResultWriter<'_>,
    ) -> Result<(), HandlerError> {
        out.start(&[field("name", Type::Varchar), field("type", Type::Int32), field("value", Type::Varbinary)]).await?;
        for (name, variable) in &bind_variables {
            let of = variable.r#type.to_string();
            let value = (variable.r#type() != Type::NullType).then_some(&variable.value[..]);
            out.rows(&[row(&[Some(name.as_bytes()), Some(of.as_bytes()), value])]).await?;
        }
        out.finish(Self::flags(session), 0).await?;
        Ok(())
    }

    async fn init_db(&self, session: &mut Session, name: &str) -> Result<(), MysqlError> {
        session.db = name.to_owned();
        Ok(())
    }

    async fn reset(&self, session: &mut Session) -> Result<(), MysqlError> {
        session.in_transaction = false;
        Ok(())
    }

    async fn field_list(&self, _: &mut Session, table: &str, _: &str) -> Result<Vec<Field>, MysqlError> {
        Ok(vec![field(&format!("{table}_id"), Type::Int64), field("name", Type::Varchar)])
    }

    fn split<'a>(&self, sql: &'a [u8]) -> Vec<&'a [u8]> {
        sql.split(|&byte| byte == b';').filter(|piece| !piece.trim_ascii().is_empty()).collect()
    }

    fn status(&self, session: &Session) -> u16 {
        Self::flags(session)
    }

    fn statistics(&self) -> String {
        format!("Connections: {}", self.open.load(Ordering::SeqCst))
    }

    async fn closed(&self, _session: Session) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A running server, reachable over TCP and a unix socket.
pub struct Running {
    pub server: Arc<Server<Demo>>,
    pub demo: Arc<Demo>,
    pub port: u16,
    pub socket: PathBuf,
    _dir: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

pub async fn start(config: ServerConfig) -> Running {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("gate.sock");
    let demo = Arc::new(Demo::default());
    let server = Server::new(config, demo.clone());
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(server.clone().serve_tcp(listener, stop.clone()));
    tokio::spawn(server.clone().serve_unix(bind_unix(&socket).expect("a socket"), stop.clone()));
    Running { server, demo, port, socket, _dir: dir, _stop: stop.drop_guard() }
}

pub async fn start_open() -> Running {
    start(ServerConfig::new(AuthServer::none())).await
}

impl Running {
    pub fn tcp(&self) -> ConnectParams {
        ConnectParams::tcp("127.0.0.1", self.port, "tester")
    }

    pub fn unix(&self) -> ConnectParams {
        ConnectParams::unix(&self.socket, "tester")
    }
}

/// Waits until a condition holds; fails after ten seconds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// A certificate for 127.0.0.1, as files for the server and as trust for the client.
pub fn certificate(dir: &std::path::Path) -> (std::path::PathBuf, std::path::PathBuf, ClientTls) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("write");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("write");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = ClientTls { config: Arc::new(config), server_name: "localhost".into() };
    (cert, key, tls)
}
