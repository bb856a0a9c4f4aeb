//! Source tablets in this process: their query service is real and tells their health, their update stream says what a
//! test has written into a log.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{Stream, StreamExt};
use tabletclient::grpc::QueryServer;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use topo::TopoServer;
use vreplication::{OnDdl, StreamOptions};
use vtproto::{
    binlogdata::{
        self, BinlogTransaction,
        binlog_transaction::{Row, Statement, Table, statement::Category},
    },
    binlogservice::update_stream_server::{UpdateStream, UpdateStreamServer},
    query::{EventToken, RealtimeStats, Target},
    topodata::{Tablet, TabletAlias, TabletType},
};
use vttablet::queryservice::{QueryServiceConfig, TabletServer};

/// The binary log of a shard: each transaction as its messages. The nth brings a reader to `MariaDB/0-1-n`.
#[derive(Clone)]
pub struct Log(Arc<watch::Sender<Vec<Vec<BinlogTransaction>>>>);

/// What a stream was asked for: tables or a range, and the position.
pub type Asked = (Vec<String>, String);

/// What a stream was asked to do about DDL.
fn on_ddl<T>(request: &Request<T>) -> OnDdl {
    StreamOptions::read(request.metadata()).expect("options").on_ddl
}

pub fn position(n: usize) -> String {
    format!("MariaDB/0-1-{n}")
}

impl Log {
    pub fn new() -> Self {
        Self(Arc::new(watch::channel(Vec::new()).0))
    }

    /// One transaction in one message.
    pub fn write(&self, statements: &[&str]) -> String {
        self.write_pieces(&[statements])
    }

    /// One transaction in several messages.
    pub fn write_pieces(&self, pieces: &[&[&str]]) -> String {
        self.write_messages(
            pieces.iter().map(|statements| statements.iter().map(|sql| statement(sql)).collect()).collect(),
        )
    }

    /// One transaction of rows of `t(id, v)` in one message: whether the row is there before, its id and its value.
    pub fn write_rows(&self, rows: impl Iterator<Item = (bool, u32, String)>) -> String {
        let (columns, key) = (vec!["id".to_owned(), "v".to_owned()], vec!["id".to_owned()]);
        let table = Table { number: 1, name: "t".into(), columns, key };
        let rows = rows.map(|(there, id, v)| {
            let (key, none) = (id.to_string().into_bytes(), Vec::new());
            let (before, after) = if there { (key, none) } else { (none, key) };
            let row = Row { table: 1, before, after, values: Some(format!("{id},'{v}'").into_bytes()) };
            Statement { row: Some(row), ..Statement::default() }
        });
        let table = Statement { table: Some(table), ..Statement::default() };
        self.write_messages(vec![std::iter::once(table).chain(rows).collect()])
    }

    fn write_messages(&self, messages: Vec<Vec<Statement>>) -> String {
        let mut at = 0;
        let last = messages.len();
        self.0.send_modify(|log| {
            at = log.len() + 1;
            let messages = messages.into_iter().enumerate().map(|(n, statements)| BinlogTransaction {
                statements,
                event_token: (n + 1 == last).then(|| EventToken {
                    timestamp: now(),
                    position: position(at),
                    ..Default::default()
                }),
            });
            log.push(messages.collect());
        });
        position(at)
    }

    pub fn end(&self) -> String {
        position(self.0.borrow().len())
    }
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_secs() as i64
}

fn statement(sql: &str) -> Statement {
    let category = match &sql[..3] {
        "SET" => Category::BlSet,
        "ins" => Category::BlInsert,
        "upd" => Category::BlUpdate,
        "alt" => Category::BlDdl,
        _ => Category::BlDelete,
    };
    Statement { category: category.into(), sql: sql.as_bytes().to_vec(), ..Statement::default() }
}

/// What the streams of one source do.
#[derive(Clone)]
struct Streams {
    log: Log,
    /// Requests that came: what was asked for and from where.
    asked: Arc<Mutex<Vec<Asked>>>,
    ddl: Arc<Mutex<Vec<OnDdl>>>,
    /// Streams end with an error when a message that they have sent as many times before … is to be sent again.
    break_at: Arc<watch::Sender<Option<(usize, usize)>>>,
    down: CancellationToken,
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Streams {
    fn open(&self, what: Vec<String>, position: String) -> mpsc::Receiver<Result<BinlogTransaction, Status>> {
        self.asked.lock().expect("no panic").push((what, position.clone()));
        let at: usize = position.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a position of ours");
        let (sender, receiver) = mpsc::channel(4);
        let (streams, mut log) = (self.clone(), self.log.0.subscribe());
        tokio::spawn(async move {
            let mut at = at;
            loop {
                let transaction = log.borrow_and_update().get(at).cloned();
                let Some(transaction) = transaction else {
                    tokio::select! {
                        _ = log.changed() => continue,
                        () = streams.down.cancelled() => return,
                        () = sender.closed() => return,
                    }
                };
                for (n, message) in transaction.into_iter().enumerate() {
                    if *streams.break_at.borrow() == Some((at + 1, n)) {
                        let _ = sender.send(Err(Status::unavailable("the source breaks"))).await;
                        return;
                    }
                    if streams.down.is_cancelled() || sender.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
                at += 1;
            }
        });
        receiver
    }
}

#[tonic::async_trait]
impl UpdateStream for Streams {
    type StreamKeyRangeStream = Messages<binlogdata::StreamKeyRangeResponse>;
    type StreamTablesStream = Messages<binlogdata::StreamTablesResponse>;

    async fn stream_key_range(
        &self,
        request: Request<binlogdata::StreamKeyRangeRequest>,
    ) -> Result<Response<Self::StreamKeyRangeStream>, Status> {
        self.ddl.lock().expect("no panic").push(on_ddl(&request));
        let request = request.into_inner();
        let range = request.key_range.expect("a range");
        let what = vec![format!("{:x?}-{:x?}", range.start, range.end)];
        let messages = tokio_stream::wrappers::ReceiverStream::new(self.open(what, request.position));
        let answer = |message: Result<_, Status>| {
            message.map(|message| binlogdata::StreamKeyRangeResponse { binlog_transaction: Some(message) })
        };
        Ok(Response::new(messages.map(answer).boxed()))
    }

    async fn stream_tables(
        &self,
        request: Request<binlogdata::StreamTablesRequest>,
    ) -> Result<Response<Self::StreamTablesStream>, Status> {
        self.ddl.lock().expect("no panic").push(on_ddl(&request));
        let request = request.into_inner();
        assert_eq!(request.charset.expect("a character set").client, 45);
        let messages = tokio_stream::wrappers::ReceiverStream::new(self.open(request.tables, request.position));
        let answer = |message: Result<_, Status>| {
            message.map(|message| binlogdata::StreamTablesResponse { binlog_transaction: Some(message) })
        };
        Ok(Response::new(messages.map(answer).boxed()))
    }
}

/// One source tablet of commerce/0.
pub struct Source {
    pub alias: String,
    streams: Streams,
    server: TabletServer,
}

impl Source {
    /// Starts one, with its record in topo.
    pub async fn start(
        topo: &TopoServer,
        mysql: mysql::ConnectParams,
        uid: u32,
        tablet_type: TabletType,
        log: &Log,
    ) -> Self {
        let streams = Streams {
            log: log.clone(),
            asked: Arc::default(),
            ddl: Arc::default(),
            break_at: Arc::new(watch::channel(None).0),
            down: CancellationToken::new(),
        };
        let registry = servenv::stats::Registry::new("vttablet");
        let config = QueryServiceConfig { app: mysql.clone(), dba: mysql, ..QueryServiceConfig::default() };
        let target = Target { keyspace: "commerce".into(), shard: "0".into(), ..Target::default() };
        let server = TabletServer::new(config, target, &registry).expect("a service");
        server.set_serving_type(tablet_type, true, vec![]).await.expect("serving");
        let alias = TabletAlias { cell: "zone1".into(), uid };
        let hour = std::time::Duration::from_secs(3600);
        server.broadcast_health(alias.clone(), 0, RealtimeStats::default(), hour);

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let (query, update) = (
            QueryServer::new(Arc::new(server.clone())).into_service(16 << 20),
            UpdateStreamServer::new(streams.clone()),
        );
        let down = streams.down.clone();
        tokio::spawn(async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let serving = tonic::transport::Server::builder().add_service(query).add_service(update);
            // A process that dies takes its connections along at once.
            down.run_until_cancelled(serving.serve_with_incoming(incoming)).await
        });
        let mut record = Tablet {
            alias: Some(alias.clone()),
            hostname: "127.0.0.1".into(),
            port_map: [("grpc".to_owned(), i32::from(address.port()))].into(),
            keyspace: "commerce".into(),
            shard: "0".into(),
            ..Tablet::default()
        };
        record.set_type(tablet_type);
        topo.create_tablet(&record).await.expect("a record");
        Self { alias: topo::topoproto::tablet_alias_string(Some(&alias)), streams, server }
    }

    /// Says that it is so far behind its master.
    pub fn lag(&self, uid: u32, seconds_behind_master: u32) {
        let stats = RealtimeStats { seconds_behind_master, ..Default::default() };
        let alias = TabletAlias { cell: "zone1".into(), uid };
        self.server.broadcast_health(alias, 0, stats, std::time::Duration::from_secs(3600));
    }

    /// Says that it is ill.
    pub fn sicken(&self, uid: u32) {
        let stats = RealtimeStats { health_error: "ill".into(), ..Default::default() };
        let alias = TabletAlias { cell: "zone1".into(), uid };
        self.server.broadcast_health(alias, 0, stats, std::time::Duration::from_secs(3600));
    }

    /// Breaks the stream before the nth message of a transaction, until told otherwise.
    pub fn break_at(&self, place: Option<(usize, usize)>) {
        self.streams.break_at.send_replace(place);
    }

    /// What each stream was asked to do about DDL.
    pub fn asked_on_ddl(&self) -> Vec<OnDdl> {
        self.streams.ddl.lock().expect("no panic").clone()
    }

    /// What was asked for, and from which position.
    pub fn asked(&self) -> Vec<Asked> {
        self.streams.asked.lock().expect("no panic").clone()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.streams.down.cancel();
    }
}
