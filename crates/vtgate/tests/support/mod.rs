//! A vtgate in this process between a real MySQL client and tablets behind real gRPC.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use mysql::{ConnectParams, Connection};
use servenv::{Env, Program};
use tabletclient::{BeginOutcome, HealthStream, QueryService, ResultStream, grpc::QueryServer};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use topo::TopoServer;
use vterrors::{Code, MysqlError, Result, VtError};
use vtgate::{Config, Gate};
use vtproto::{
    query::{
        self, BoundQuery, ExecuteOptions, Field, QueryResult, RealtimeStats, Row, StreamHealthResponse, Target, Type,
    },
    topodata::{
        KeyRange, ShardReference, SrvKeyspace, Tablet, TabletAlias, TabletType, srv_keyspace::KeyspacePartition,
    },
    vschema::{ColumnVindex, Keyspace, SrvVSchema, Table, Vindex},
    vtgateservice::vitess_client::VitessClient,
};

/// One call that reached a tablet: the method, the text with its values, the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub method: &'static str,
    pub sql: String,
    pub transaction: i64,
    pub settings: Vec<String>,
    /// For how long the tablet is told that the transaction is open on other shards.
    pub open_elsewhere_ms: i64,
}

/// Answers statements by rules that a test sets; otherwise with the statement itself.
pub struct FakeTablet {
    pub uid: u32,
    health: watch::Sender<StreamHealthResponse>,
    calls: Mutex<Vec<Call>>,
    /// By a part of the text: what to answer.
    answers: Mutex<HashMap<String, Result<QueryResult>>>,
    next_transaction: AtomicI64,
    /// While true, statements do not end.
    pub stuck: watch::Sender<bool>,
    pub dropped: AtomicUsize,
    /// Parts of a stream sent so far.
    pub stream_parts: Arc<AtomicUsize>,
    /// Streams have so many parts of 1000 rows.
    pub stream_length: AtomicUsize,
    pub open_transactions: Mutex<Vec<i64>>,
    pub lose_transactions: AtomicBool,
    /// Transactions write nothing here: there is nothing to prepare.
    pub prepares_nothing: AtomicBool,
}

struct OnDrop<'a>(&'a AtomicUsize, bool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A result of one text column.
pub fn rows(name: &str, values: &[&str]) -> QueryResult {
    let row = |value: &&str| Row { lengths: vec![value.len() as i64], values: (*value).to_string().into() };
    QueryResult {
        fields: vec![Field {
            name: name.into(),
            r#type: Type::Varchar.into(),
            charset: 33,
            column_length: 255,
            database: "vt_commerce".into(),
            ..Default::default()
        }],
        rows: values.iter().map(row).collect(),
        rows_affected: values.len() as u64,
        ..Default::default()
    }
}

impl FakeTablet {
    fn new(uid: u32, tablet_type: TabletType) -> Arc<Self> {
        let health = StreamHealthResponse {
            target: Some(Target {
                keyspace: "commerce".into(),
                shard: "0".into(),
                tablet_type: tablet_type.into(),
                cell: String::new(),
            }),
            serving: true,
            tablet_externally_reparented_timestamp: i64::from(tablet_type == TabletType::Master),
            realtime_stats: Some(RealtimeStats::default()),
            tablet_alias: None,
        };
        Arc::new(Self {
            uid,
            health: watch::channel(health).0,
            calls: Mutex::default(),
            answers: Mutex::default(),
            next_transaction: AtomicI64::new(0),
            stuck: watch::channel(false).0,
            dropped: AtomicUsize::new(0),
            stream_parts: Arc::default(),
            stream_length: AtomicUsize::new(1),
            open_transactions: Mutex::default(),
            lose_transactions: AtomicBool::new(false),
            prepares_nothing: AtomicBool::new(false),
        })
    }

    /// Answers statements that contain `part` so from now on.
    pub fn answer(&self, part: &str, answer: Result<QueryResult>) {
        self.answers.lock().expect("no panic while held").insert(part.into(), answer);
    }

    pub fn forget_answers(&self) {
        self.answers.lock().expect("no panic while held").clear();
    }

    /// What reached the tablet since the last question.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().expect("no panic while held"))
    }

    /// Whether anything has reached the tablet since the last question.
    pub fn called(&self) -> bool {
        !self.calls.lock().expect("no panic while held").is_empty()
    }

    /// The same as `method: text`.
    pub fn take_lines(&self) -> Vec<String> {
        self.take_calls().iter().map(|call| format!("{}: {}", call.method, call.sql)).collect()
    }

    pub fn set_health(&self, change: impl FnOnce(&mut StreamHealthResponse)) {
        self.health.send_modify(change);
    }

    fn note(
        &self,
        method: &'static str,
        query: Option<&BoundQuery>,
        transaction: i64,
        options: Option<&ExecuteOptions>,
    ) {
        let sql = query.map_or_else(String::new, |query| {
            let bound = vtsql::bind(&query.sql, &query.bind_variables).expect("all variables are there");
            String::from_utf8(bound).expect("UTF-8")
        });
        let settings = options.map(|options| options.session_settings.clone()).unwrap_or_default();
        self.calls.lock().expect("no panic while held").push(Call {
            method,
            sql,
            transaction,
            settings,
            open_elsewhere_ms: options.map_or(0, |options| options.transaction_open_ms),
        });
    }

    async fn run(
        &self,
        method: &'static str,
        query: Option<&BoundQuery>,
        transaction: i64,
        options: Option<&ExecuteOptions>,
    ) -> Result<QueryResult> {
        self.note(method, query, transaction, options);
        let mut guard = OnDrop(&self.dropped, true);
        let mut stuck = self.stuck.subscribe();
        let _ = stuck.wait_for(|stuck| !stuck).await.map(drop);
        guard.1 = false;
        if transaction != 0 && self.lose_transactions.load(Ordering::SeqCst) {
            return Err(VtError::new(Code::Aborted, format!("transaction {transaction}: not found")));
        }
        if options.is_some_and(|options| options.session_settings.iter().any(|setting| setting.contains("bad_value"))) {
            return Err(MysqlError::new(1231, "42000", "Variable can't be set to the value of 'bad_value'").into());
        }
        let sql = self.calls.lock().expect("no panic while held").last().map(|c| c.sql.clone()).unwrap_or_default();
        let answers = self.answers.lock().expect("no panic while held");
        if let Some((_, answer)) = answers.iter().find(|(part, _)| sql.contains(*part)) {
            return answer.clone();
        }
        if vtsql::preview(&sql).is_dml() {
            return Ok(QueryResult { rows_affected: 1, ..Default::default() });
        }
        Ok(rows("sql", &[&sql]))
    }
}

fn not_faked<T>() -> Result<T> {
    Err(VtError::new(Code::Unimplemented, "not faked"))
}

#[async_trait::async_trait]
impl QueryService for FakeTablet {
    async fn execute(&self, r: query::ExecuteRequest) -> Result<QueryResult> {
        self.run("Execute", r.query.as_ref(), r.transaction_id, r.options.as_ref()).await
    }
    async fn execute_batch(&self, r: query::ExecuteBatchRequest) -> Result<Vec<QueryResult>> {
        assert!(r.as_transaction, "nothing else is sent so");
        let mut results = Vec::new();
        for query in &r.queries {
            results.push(self.run("Autocommit", Some(query), 0, r.options.as_ref()).await?);
        }
        Ok(results)
    }
    async fn stream_execute(&self, r: query::StreamExecuteRequest) -> Result<ResultStream> {
        let result = self.run("Stream", r.query.as_ref(), r.transaction_id, r.options.as_ref()).await?;
        let length = self.stream_length.load(Ordering::SeqCst);
        let part = QueryResult {
            rows: result.rows.iter().cycle().take(if length > 1 { 1000 } else { result.rows.len() }).cloned().collect(),
            ..Default::default()
        };
        let fields = QueryResult { fields: result.fields, ..Default::default() };
        let sent = self.stream_parts.clone();
        let parts = futures::stream::iter(0..length).map(move |_| {
            sent.fetch_add(1, Ordering::SeqCst);
            Ok(part.clone())
        });
        Ok(futures::stream::iter([Ok(fields)]).chain(parts).boxed())
    }
    async fn begin(&self, _: query::BeginRequest) -> Result<i64> {
        not_faked()
    }
    async fn commit(&self, r: query::CommitRequest) -> Result<()> {
        self.open_transactions.lock().expect("lock").retain(|id| *id != r.transaction_id);
        self.run("Commit", None, r.transaction_id, None).await.map(drop)
    }
    async fn rollback(&self, r: query::RollbackRequest) -> Result<()> {
        self.open_transactions.lock().expect("lock").retain(|id| *id != r.transaction_id);
        self.note("Rollback", None, r.transaction_id, None);
        Ok(())
    }
    async fn begin_execute(&self, r: query::BeginExecuteRequest) -> BeginOutcome<QueryResult> {
        let transaction_id = self.next_transaction.fetch_add(1, Ordering::SeqCst) + 1;
        self.open_transactions.lock().expect("lock").push(transaction_id);
        let result = self.run("BeginExecute", r.query.as_ref(), 0, r.options.as_ref()).await;
        if result.as_ref().is_err_and(|error| error.code() == Code::Unavailable) {
            // As over a connection that was lost: nobody is told of the transaction.
            return BeginOutcome { transaction_id: 0, result };
        }
        BeginOutcome { transaction_id, result }
    }
    async fn begin_execute_batch(&self, _: query::BeginExecuteBatchRequest) -> BeginOutcome<Vec<QueryResult>> {
        BeginOutcome { transaction_id: 0, result: not_faked() }
    }
    async fn prepare(&self, r: query::PrepareRequest) -> Result<query::PrepareResponse> {
        self.note("Prepare", None, r.transaction_id, None);
        Ok(query::PrepareResponse { nothing_written: self.prepares_nothing.load(Ordering::SeqCst) })
    }
    async fn commit_prepared(&self, _: query::CommitPreparedRequest) -> Result<()> {
        self.note("CommitPrepared", None, 0, None);
        Ok(())
    }
    async fn rollback_prepared(&self, _: query::RollbackPreparedRequest) -> Result<()> {
        self.note("RollbackPrepared", None, 0, None);
        Ok(())
    }
    async fn create_transaction(&self, _: query::CreateTransactionRequest) -> Result<()> {
        self.note("CreateTransaction", None, 0, None);
        Ok(())
    }
    async fn start_commit(&self, r: query::StartCommitRequest) -> Result<()> {
        self.note("StartCommit", None, r.transaction_id, None);
        Ok(())
    }
    async fn set_rollback(&self, _: query::SetRollbackRequest) -> Result<()> {
        self.note("SetRollback", None, 0, None);
        Ok(())
    }
    async fn conclude_transaction(&self, _: query::ConcludeTransactionRequest) -> Result<()> {
        self.note("ConcludeTransaction", None, 0, None);
        Ok(())
    }
    async fn read_transaction(&self, _: query::ReadTransactionRequest) -> Result<query::TransactionMetadata> {
        not_faked()
    }
    async fn stream_health(&self) -> Result<HealthStream> {
        let receiver = self.health.subscribe();
        let stream = futures::stream::unfold((receiver, true), |(mut receiver, first)| async move {
            if !first {
                receiver.changed().await.ok()?;
            }
            let message = receiver.borrow_and_update().clone();
            Some((Ok(message), (receiver, false)))
        });
        Ok(stream.boxed())
    }
}

/// A vtgate before one keyspace `commerce` with a master (100), a replica (101) and an rdonly (102).
pub struct World {
    pub gate: Arc<Gate>,
    pub env: Env,
    pub topo: TopoServer,
    pub master: Arc<FakeTablet>,
    pub replica: Arc<FakeTablet>,
    pub mysql: SocketAddr,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(fake: Arc<FakeTablet>, stop: &CancellationToken) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("address").port();
    let server = tonic::transport::Server::builder().add_service(QueryServer::new(fake).into_service(16 << 20));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
    port
}

/// Settings as from a command line, with what every test needs in front.
pub fn config(flags: &[&str]) -> (Config, Env) {
    let mut all = vec![
        "-cell=zone1",
        "-cells_to_watch=zone1",
        "-mysql_server_port=0",
        "-mysql_server_bind_address=127.0.0.1",
        "-mysql_auth_server_impl=none",
        "-port=15001",
        "-tablet_types_to_wait=MASTER,REPLICA",
        "-tablet_refresh_interval=50ms",
        "-gateway_initial_tablet_timeout=10s",
    ];
    all.extend(flags);
    let parsed = Program::Vtgate.flag_set().parse(all).expect("flags");
    let env = Env::new(Program::Vtgate, parsed);
    (Config::from_env(&env).expect("config"), env)
}

pub async fn world() -> World {
    world_with(&[]).await
}

pub async fn world_with(flags: &[&str]) -> World {
    let stop = CancellationToken::new();
    let topo = TopoServer::memory(&["zone1"]);
    let types = [(100, TabletType::Master), (101, TabletType::Replica), (102, TabletType::Rdonly)];
    let mut fakes = Vec::new();
    for (uid, tablet_type) in types {
        let fake = FakeTablet::new(uid, tablet_type);
        let port = serve(fake.clone(), &stop).await;
        let tablet = Tablet {
            alias: Some(TabletAlias { cell: "zone1".into(), uid }),
            hostname: "127.0.0.1".into(),
            port_map: [("grpc".to_string(), i32::from(port))].into(),
            keyspace: "commerce".into(),
            shard: "0".into(),
            r#type: tablet_type.into(),
            ..Default::default()
        };
        topo.create_tablet(&tablet).await.expect("tablet record");
        fakes.push(fake);
    }
    let partitions = types.iter().map(|(_, tablet_type)| KeyspacePartition {
        served_type: (*tablet_type).into(),
        shard_references: vec![ShardReference { name: "0".into(), key_range: None }],
        ..Default::default()
    });
    let record = SrvKeyspace { partitions: partitions.collect(), ..Default::default() };
    topo.update_srv_keyspace("zone1", "commerce", &record).await.expect("SrvKeyspace");
    let vschema = SrvVSchema { keyspaces: [("commerce".to_string(), Keyspace::default())].into(), routing_rules: None };
    topo.update_srv_vschema("zone1", &vschema).await.expect("SrvVSchema");
    let (config, env) = config(flags);
    let gate = Gate::start(config, topo.clone(), env.stats()).await.expect("vtgate starts");
    let known = || gate.executor.parts().vschema.current().vschema.keyspaces.contains_key("commerce");
    until("the vschema is there", known).await;
    let mysql = gate.mysql_address().expect("a MySQL port");
    let [master, replica, _]: [Arc<FakeTablet>; 3] = fakes.try_into().ok().expect("three tablets");
    World { gate: Arc::new(gate), env, topo, master, replica, mysql, stop }
}

/// As [`world_with`], with keyspace `customer` over two shards: the master has become that of `-80`, the replica that of
/// `80-`. Row 1 of table `customer` lives on the first, row 4 on the second.
pub async fn two_shards(flags: &[&str]) -> World {
    let w = world_with(flags).await;
    for (tablet, shard) in [(&w.master, "-80"), (&w.replica, "80-")] {
        tablet.set_health(|health| {
            let target = health.target.as_mut().expect("target");
            (target.keyspace, target.shard) = ("customer".into(), shard.into());
            target.tablet_type = TabletType::Master.into();
            health.tablet_externally_reparented_timestamp = 5;
        });
    }
    let shard = |name: &str, start: &[u8], end: &[u8]| ShardReference {
        name: name.into(),
        key_range: Some(KeyRange { start: start.to_vec(), end: end.to_vec() }),
    };
    let partition = KeyspacePartition {
        served_type: TabletType::Master.into(),
        shard_references: vec![shard("-80", &[], &[0x80]), shard("80-", &[0x80], &[])],
        ..Default::default()
    };
    let record = SrvKeyspace { partitions: vec![partition], ..Default::default() };
    w.topo.update_srv_keyspace("zone1", "customer", &record).await.expect("SrvKeyspace");
    let by_id = ColumnVindex { column: "id".into(), name: "hash".into(), columns: Vec::new() };
    let customer = Keyspace {
        sharded: true,
        vindexes: [("hash".into(), Vindex { r#type: "hash".into(), ..Default::default() })].into(),
        tables: [("customer".into(), Table { column_vindexes: vec![by_id], ..Default::default() })].into(),
        ..Default::default()
    };
    let vschema = SrvVSchema { keyspaces: [("customer".to_string(), customer)].into(), routing_rules: None };
    w.topo.update_srv_vschema("zone1", &vschema).await.expect("SrvVSchema");
    until("vtgate knows the shards", || {
        let connections = w.stat("HealthcheckConnections");
        let known = w.gate.executor.parts().vschema.current();
        known.vschema.keyspaces.contains_key("customer")
            && ["-80", "80-"].iter().all(|shard| connections.get(format!("customer.{shard}.master")).is_some())
    })
    .await;
    w
}

impl World {
    pub async fn connect(&self) -> Connection {
        self.connect_to("").await
    }

    pub async fn connect_to(&self, database: &str) -> Connection {
        let params = ConnectParams::tcp(self.mysql.ip().to_string(), self.mysql.port(), "someone").database(database);
        Connection::connect(&params).await.expect("login")
    }

    /// A client of vtgate's gRPC API.
    pub async fn grpc(&self) -> VitessClient<tonic::transport::Channel> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("address");
        let service = self.gate.grpc_service().into_service(16 << 20);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        VitessClient::connect(format!("http://{address}")).await.expect("connect")
    }

    pub fn stat(&self, name: &str) -> serde_json::Value {
        self.env.stats().get(name).unwrap_or_default()
    }
}

/// Runs a statement that has to succeed.
pub async fn run(connection: &mut Connection, sql: &str) -> QueryResult {
    connection.execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Runs a statement that has to fail: errno, SQLSTATE and text.
pub async fn fails(connection: &mut Connection, sql: &str) -> MysqlError {
    match connection.execute(sql).await {
        Ok(result) => panic!("{sql}: {result:?}"),
        Err(error) => error.mysql().clone(),
    }
}

/// All values, a row joined by `|`, NULL as such.
pub fn table(result: &QueryResult) -> Vec<String> {
    let one = |row: &Row| {
        let mut at = 0;
        let values: Vec<String> = row
            .lengths
            .iter()
            .map(|length| match usize::try_from(*length) {
                Ok(length) => {
                    at += length;
                    String::from_utf8_lossy(&row.values[at - length..at]).into_owned()
                }
                Err(_) => "NULL".into(),
            })
            .collect();
        values.join("|")
    };
    result.rows.iter().map(one).collect()
}

/// Waits until `condition` holds; fails the test after 20 s.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
