//! Our client against our server, over TCP and unix sockets, and raw packets where our client is too well behaved.

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mysql::Connection;
use mysql::client::{ClientError, RawResult};
use mysql::server::{AuthServer, ServerConfig, bind_unix, tls_config};
use support::{Running, certificate, start, start_open, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vtproto::query::{QueryResult, Type};

async fn connect(running: &Running) -> Connection {
    Connection::connect(&running.tcp()).await.expect("a connection")
}

fn text(result: &QueryResult) -> String {
    String::from_utf8_lossy(&result.rows[0].values).into_owned()
}

#[tokio::test]
async fn statements_over_both_sockets() {
    let running = start_open().await;
    for params in [running.tcp(), running.unix().database("db1")] {
        let db = params.db_name.clone();
        let mut conn = Connection::connect(&params).await.expect("a connection");
        assert_eq!(conn.server_version(), "5.7.9-Vitess");
        conn.ping().await.expect("ping");
        let result = conn.query(b"echo hello", 10).await.expect("a row");
        assert_eq!((text(&result).as_str(), result.rows_affected), ("hello", 1));
        assert_eq!((result.fields[0].name.as_str(), result.fields[0].r#type()), ("echo", Type::Varchar));
        let result = conn.query(b"insert", 10).await.expect("an OK");
        assert_eq!((result.rows_affected, result.insert_id, conn.warnings()), (2, 77, 1));
        assert_eq!(text(&conn.query(b"whoami", 1).await.expect("a row")), format!("tester|userData1|{db}|false"));
        conn.select_db("ks:-80@replica").await.expect("any name is taken");
        assert!(text(&conn.query(b"whoami", 1).await.expect("a row")).contains("|ks:-80@replica|"));
        conn.query(b"begin", 1).await.expect("an OK");
        assert!(conn.in_transaction());
        conn.reset().await.expect("a reset");
        assert!(!conn.in_transaction());
        conn.close().await;
    }
    until("both sessions are closed", || running.demo.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn errors_leave_the_connection_usable() {
    let running = start_open().await;
    let mut conn = connect(&running).await;
    for (sql, number, state) in [
        (&b"fail"[..], 1146, "42S02"),
        (b"fail_midway", 1317, "70100"),
        (b"lie", 1105, "HY000"),
        (b"nothing", 1105, "HY000"),
        (b"selec 1", 1064, "42000"),
    ] {
        let error = conn.query(sql, 10).await.expect_err("an error");
        assert_eq!((error.errno(), error.mysql().sqlstate.as_str()), (number, state));
        assert!(!error.is_connection_error() && !conn.is_broken());
    }
    assert_eq!(text(&conn.query(b"echo still here", 1).await.expect("a row")), "still here");
    let error = Connection::connect(&running.tcp().database("forbidden")).await.expect_err("refused");
    assert_eq!(error.errno(), 1044);
}

#[tokio::test]
async fn a_row_limit_is_an_error_and_nothing_more() {
    let running = start_open().await;
    let mut conn = connect(&running).await;
    assert_eq!(conn.query(b"rows 100 50", 100).await.expect("100 rows").rows.len(), 100);
    let error = conn.query(b"rows 101 50", 100).await.expect_err("one too many");
    assert_eq!(error.to_string(), "Row count exceeded 100 (errno 10001) (sqlstate HY000)");
    assert_eq!(text(&conn.query(b"echo on", 1).await.expect("a row")), "on");
    // More than anybody wants to read away: the connection is given up.
    let error = conn.query(b"rows 1000 1000000", 1).await.expect_err("too many");
    assert!(error.errno() == 10_001 && conn.is_broken());
}

#[tokio::test]
async fn rows_of_17_mb_and_a_statement_of_33_mb() {
    let running = start_open().await;
    let mut conn = connect(&running).await;
    // One cell whose packet is exactly a full frame: 3 bytes for id, 4 for the length, one for NULL.
    for size in [17 << 20, 0xff_ffff - 7, 0xff_ffff - 6] {
        let result = conn.query(format!("rows 2 {size}").as_bytes(), 2).await.expect("two rows");
        assert_eq!(result.rows[1].lengths, [1, size, -1]);
        assert!(result.rows[1].values[1..].iter().all(|&byte| byte == b'x'));
        assert_eq!(conn.warnings(), 3);
    }
    let mut sql = b"echo ".to_vec();
    sql.resize(33 << 20, b'y');
    let result = conn.query(&sql, 1).await.expect("a row");
    assert_eq!(result.rows[0].values.len(), (33 << 20) - 5);
}

/// All packets of a result, and how many bytes at most came at once.
async fn in_pieces(conn: &mut Connection, sql: &str, max_rows: usize) -> Result<(QueryResult, usize), ClientError> {
    let RawResult::Growing(mut rows) = conn.query_raw(sql.as_bytes(), max_rows, 100_000).await? else {
        panic!("{sql}: held whole")
    };
    let mut result = rows.take_begun();
    let (mut all, mut most) = (result.raw_rows.to_vec(), result.raw_rows.len());
    while let Some(piece) = rows.next(64 << 10).await? {
        most = most.max(piece.len());
        all.extend_from_slice(&piece);
    }
    (result.raw_rows, result.rows_affected) = (all.into(), rows.rows());
    Ok((result, most))
}

#[tokio::test]
async fn a_large_result_is_read_in_pieces() {
    let running = start_open().await;
    let mut conn = connect(&running).await;
    let small = conn.query_raw(b"rows 10 100", 10, 100_000).await.expect("ten rows");
    assert!(matches!(small, RawResult::Whole(result) if result.rows_affected == 10 && result.rows.is_empty()));
    // A last one whose packet is exactly a full frame, and is closed by an empty one.
    for (count, size) in [(5000, 100), (300, 70_000), (3, 17 << 20), (2, 0xff_ffff - 6)] {
        let sql = format!("rows {count} {size}");
        let (mut result, most) = in_pieces(&mut conn, &sql, count).await.expect("rows");
        assert!(most < 300_000, "{sql}: {most} bytes at once");
        assert_eq!((result.rows_affected, result.fields.len()), (count as u64, 3));
        mysql::raw_rows::decode(&mut result).expect("whole rows");
        let whole = conn.query(sql.as_bytes(), count).await.expect("the same rows");
        assert!(result.rows == whole.rows, "{sql}");
        let error = in_pieces(&mut conn, &sql, count - 1).await.expect_err("one too many");
        assert_eq!(error.errno(), 10_001);
        assert!(!conn.is_broken(), "{sql}: read away");
    }
    let RawResult::Growing(rows) = conn.query_raw(b"rows 5000 100", 5000, 100_000).await.expect("rows") else {
        panic!("held whole")
    };
    drop(rows);
    assert!(conn.is_broken(), "there is more to read");
}

#[tokio::test]
async fn a_statement_over_the_limit_is_refused_without_being_read() {
    let running = start(ServerConfig { max_allowed_packet: 1 << 20, ..ServerConfig::new(AuthServer::none()) }).await;
    let mut conn = connect(&running).await;
    let mut sql = b"echo ".to_vec();
    sql.resize(2 << 20, b'y');
    let error = conn.query(&sql, 1).await.expect_err("too large");
    assert_eq!(error.mysql().message, "Got a packet bigger than 'max_allowed_packet' bytes");
    assert_eq!(error.errno(), 1153);
    let error = conn.ping().await.expect_err("closed");
    assert!(error.is_connection_error() && conn.is_broken());
    // The client's own limit, on rows.
    let mut params = running.tcp();
    params.max_allowed_packet = 1000;
    let mut conn = Connection::connect(&params).await.expect("a connection");
    let error = conn.query(b"rows 1 2000", 1).await.expect_err("too large");
    assert!(error.errno() == 1153 && conn.is_broken());
}

#[tokio::test]
async fn several_statements_and_several_results() {
    let running = start_open().await;
    let mut conn = connect(&running).await;
    let results = conn.query_multi(b"echo a; insert; rows 2 1; call; echo z", 10).await.expect("results");
    let shapes = results.iter().map(|r| (r.fields.len(), r.rows_affected)).collect::<Vec<_>>();
    assert_eq!(shapes, [(1, 1), (0, 2), (3, 2), (1, 1), (0, 0), (1, 1)]);
    let error = conn.query_multi(b"echo a; fail; echo z", 10).await.expect_err("the second fails");
    assert_eq!(error.errno(), 1146);
    assert_eq!(text(&conn.query(b"call", 1).await.expect("the first result")), "1");
    assert_eq!(text(&conn.query(b"echo in step", 1).await.expect("a row")), "in step");
    // Without the capability the text goes to the handler as it is.
    let mut params = running.tcp();
    params.multi_statements = false;
    let mut conn = Connection::connect(&params).await.expect("a connection");
    assert_eq!(text(&conn.query(b"echo a; fail", 1).await.expect("one statement")), "a; fail");
}

#[tokio::test]
async fn streams_are_batched_in_bytes() {
    let running = start_open().await;
    let mut conn = connect(&running).await;
    let mut stream = conn.query_stream(b"rows 50000 100").await.expect("a stream");
    assert_eq!(stream.fields().len(), 3);
    let (mut rows, mut batches) = (0, 0);
    while let Some(batch) = stream.next_batch(32 << 10).await.expect("rows") {
        assert!(batch.iter().map(|row| row.values.len()).sum::<usize>() <= (32 << 10) + 200);
        rows += batch.len();
        batches += 1;
    }
    assert!(rows == 50_000 && batches > 100, "{rows} rows in {batches} batches");
    drop(stream);
    let stream = conn.query_stream(b"insert").await.expect("a stream");
    assert_eq!((stream.fields().len(), stream.summary()), (0, (2, 77)));
    stream.finish().await.expect("the end");
    let mut stream = conn.query_stream(b"fail_midway").await.expect("a stream");
    let mut failed = None;
    while failed.is_none() {
        failed = stream.next_batch(1).await.map(|batch| assert!(batch.is_some())).err();
    }
    assert_eq!(failed.map(|error| error.errno()), Some(1317));
    assert!(!conn.is_broken());
    drop(conn.query_stream(b"rows 10 10").await.expect("a stream"));
    assert!(conn.is_broken());
    assert_eq!(conn.ping().await.map_err(|error| error.errno()), Err(2006));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_the_handler_back() {
    let running = start_open().await;
    let mut conn = connect(&running).await;
    let mut stream = conn.query_stream(b"rows 1000000 1000").await.expect("a stream");
    let first = stream.next_batch(1).await.expect("rows").expect("a row");
    assert_eq!(first.len(), 1);
    // The socket's buffers fill up, and then nothing more is produced.
    let mut last = 0;
    until("the handler stands still", || {
        std::thread::sleep(Duration::from_millis(50));
        let produced = running.demo.produced.load(Ordering::Relaxed);
        std::mem::replace(&mut last, produced) == produced
    })
    .await;
    assert!(last < 100_000, "{last} rows of 1 KB were produced for one that was read");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_statement() {
    let running = start_open().await;
    let mut conn = connect(&running).await;
    let waiting = tokio::time::timeout(Duration::from_millis(100), conn.query(b"sleep", 1)).await;
    assert!(waiting.is_err() && conn.is_broken(), "a dropped future breaks the connection");
    drop(conn);
    until("the statement is cancelled", || running.demo.cancelled.load(Ordering::SeqCst) == 1).await;
    until("the session is closed", || running.demo.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn kill_query_and_kill() {
    let config = ServerConfig { cancel_grace: Duration::from_millis(100), ..ServerConfig::new(AuthServer::none()) };
    let running = start(config).await;
    let mut conn = connect(&running).await;
    let id = conn.thread_id();
    for (sql, query_only, number) in [(&b"sleep"[..], true, 1317), (b"sleep", true, 1317), (b"deaf", false, 1317)] {
        let server = running.server.clone();
        let killer = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            server.kill(id.into(), query_only, None)
        });
        let error = conn.query(sql, 1).await.expect_err("killed");
        assert_eq!(error.errno(), number);
        killer.await.expect("the killer").expect("killed");
    }
    assert!(conn.ping().await.is_err(), "the last was a KILL of the connection");
    until("nobody is left", || running.server.connection_count() == 0).await;
    assert_eq!(running.server.kill(id.into(), true, None).expect_err("it is gone").errno, 1094);
}

#[tokio::test]
async fn draining_waits_for_transactions() {
    let running = start_open().await;
    let mut idle = connect(&running).await;
    let mut writer = connect(&running).await;
    writer.query(b"begin", 1).await.expect("a transaction");
    let server = running.server.clone();
    let drain = tokio::spawn(async move { server.drain(Duration::from_secs(20)).await });
    until("the idle one is closed", || running.server.connection_count() == 1).await;
    assert!(idle.ping().await.is_err());
    writer.query(b"echo working", 1).await.expect("a row");
    assert!(!drain.is_finished());
    writer.query(b"commit", 1).await.expect("a commit");
    drain.await.expect("drained");
    assert!(writer.ping().await.is_err());
}

#[tokio::test]
async fn a_drain_ends_after_its_grace() {
    let config = ServerConfig { cancel_grace: Duration::from_millis(50), ..ServerConfig::new(AuthServer::none()) };
    let running = start(config).await;
    let mut conn = connect(&running).await;
    conn.query(b"begin", 1).await.expect("a transaction");
    let started = Instant::now();
    running.server.drain(Duration::from_millis(50)).await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(running.server.connection_count(), 0);
}

#[tokio::test]
async fn one_connection_too_many() {
    let running = start(ServerConfig { max_connections: 2, ..ServerConfig::new(AuthServer::none()) }).await;
    let (first, _second) = (connect(&running).await, connect(&running).await);
    let error = Connection::connect(&running.tcp()).await.expect_err("refused");
    assert_eq!((error.errno(), error.mysql().message.as_str()), (1040, "Too many connections"));
    drop(first);
    until("room again", || running.server.connection_count() == 1).await;
    connect(&running).await;
}

#[tokio::test]
async fn passwords() {
    let hash = "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19";
    let users = format!(
        r#"{{"plain": [{{"Password": "s3cret", "UserData": "app"}}], "hashed": {{"MysqlNativePassword": "{hash}"}},
            "empty": {{"Password": ""}}, "local": {{"Password": "p", "SourceHost": "localhost"}}}}"#
    );
    let running = start(ServerConfig::new(AuthServer::static_json(&users).expect("users"))).await;
    for (user, password, unix, works) in [
        ("plain", "s3cret", false, true),
        ("plain", "s3cret", true, true),
        ("plain", "wrong", false, false),
        ("plain", "", false, false),
        ("hashed", "password", false, true),
        ("hashed", "Password", false, false),
        ("empty", "", false, true),
        ("empty", "x", false, false),
        ("local", "p", true, true),
        ("local", "p", false, false),
        ("nobody", "", false, false),
    ] {
        let mut params = if unix { running.unix() } else { running.tcp() };
        (params.user, params.password) = (user.into(), password.into());
        match Connection::connect(&params).await {
            Ok(_) => assert!(works, "{user} {password}"),
            Err(error) => {
                assert!(!works, "{user} {password}");
                let text = format!("Access denied for user '{user}' (errno 1045) (sqlstate 28000)");
                assert_eq!(error.to_string(), text);
            }
        }
    }
}

#[tokio::test]
async fn tls() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key, client) = certificate(dir.path());
    let config = ServerConfig {
        tls: Some(tls_config(&cert, &key, None).expect("a TLS set-up")),
        require_secure_transport: true,
        ..ServerConfig::new(AuthServer::static_json(r#"{"u": {"Password": "p"}}"#).expect("users"))
    };
    let running = start(config).await;
    let mut params = running.tcp();
    (params.user, params.password) = ("u".into(), "p".into());
    let error = Connection::connect(&params).await.expect_err("no TLS");
    assert_eq!(error.errno(), 3159);
    params.tls = Some(client.clone());
    let mut conn = Connection::connect(&params).await.expect("a connection");
    assert!(text(&conn.query(b"whoami", 1).await.expect("a row")).ends_with("|true"));
    let result = conn.query(b"rows 3 17825792", 3).await.expect("rows of 17 MB");
    assert_eq!(result.rows.len(), 3);
    let waiting = tokio::time::timeout(Duration::from_millis(100), conn.query(b"sleep", 1)).await;
    assert!(waiting.is_err());
    drop(conn);
    until("the statement is cancelled", || running.demo.cancelled.load(Ordering::SeqCst) == 1).await;
    // Another name than the certificate's.
    params.tls = Some(mysql::client::ClientTls { server_name: "elsewhere".into(), ..client });
    assert_eq!(Connection::connect(&params).await.expect_err("wrong name").errno(), 2026);
    // A server without TLS.
    let open = start_open().await;
    params.port = open.port;
    assert_eq!(Connection::connect(&params).await.expect_err("no TLS there").errno(), 2026);
}

#[tokio::test]
async fn nobody_there() {
    let running = start_open().await;
    let mut params = running.unix();
    params.socket = Some("/nonexistent/mysql.sock".into());
    assert_eq!(Connection::connect(&params).await.expect_err("no socket").errno(), 2002);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut params = running.tcp();
    params.port = listener.local_addr().expect("bound").port();
    params.connect_timeout = Duration::from_millis(100);
    assert_eq!(Connection::connect(&params).await.expect_err("nobody accepts").errno(), 2003);
    drop(listener);
    assert_eq!(Connection::connect(&params).await.expect_err("nobody listens").errno(), 2003);
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let running = start_open().await;
    let error = bind_unix(&running.socket).expect_err("in use");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound once"));
    bind_unix(&path).expect("bound again");
}

/// A packet with its header.
fn packet(seq: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
    [&[a, b, c, seq], payload].concat()
}

/// A connection on the level of packets, logged in with the given capabilities.
struct Raw {
    stream: TcpStream,
}

impl Raw {
    async fn login(running: &Running, capabilities: u32) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", running.port)).await.expect("a connection");
        let mut raw = Self { stream };
        raw.read().await;
        let mut response = capabilities.to_le_bytes().to_vec();
        response.extend_from_slice(&[0, 0, 0, 1, 33]);
        response.extend_from_slice(&[0; 23]);
        response.extend_from_slice(b"raw\0\0");
        raw.send(1, &response).await;
        assert_eq!(raw.read().await[0], 0);
        raw
    }

    async fn send(&mut self, seq: u8, payload: &[u8]) {
        self.stream.write_all(&packet(seq, payload)).await.expect("written");
    }

    async fn read(&mut self) -> Vec<u8> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await.expect("a header");
        let mut payload = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16];
        self.stream.read_exact(&mut payload).await.expect("a payload");
        payload
    }

    async fn ask(&mut self, payload: &[u8]) -> Vec<u8> {
        self.send(0, payload).await;
        self.read().await
    }

    async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), self.stream.read_to_end(&mut rest)).await.is_ok()
    }
}

const PROTOCOL_41: u32 = 1 << 9;
const SECURE: u32 = 1 << 15;
const DEPRECATE_EOF: u32 = 1 << 24;

#[tokio::test]
async fn prepared_statements_in_binary() {
    let running = start_open().await;
    let mut raw = Raw::login(&running, PROTOCOL_41 | SECURE).await;
    let prepared = raw.ask(b"\x16select ?, ?").await;
    assert_eq!(prepared, [0, 1, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0]);
    // Two parameters, EOF, one column, EOF.
    let mut kinds = Vec::new();
    for _ in 0..5 {
        kinds.push(raw.read().await[0]);
    }
    assert_eq!(kinds, [3, 3, 0xfe, 3, 0xfe]);
    // v1 = NULL, v2 = LONGLONG -5.
    raw.send(0, b"\x17\x01\0\0\0\0\x01\0\0\0\x01\x01\x06\0\x08\0\xfb\xff\xff\xff\xff\xff\xff\xff").await;
    assert_eq!(raw.read().await, [3]);
    for _ in 0..4 {
        raw.read().await;
    }
    assert_eq!(raw.read().await, b"\x00\x10\x02v1\0\0\0\0");
    assert_eq!(raw.read().await, b"\x00\x00\x02v2\x09\x01\0\0\x02-5");
    assert_eq!(raw.read().await[0], 0xfe);
    // A parameter sent ahead; no answer to that.
    raw.send(0, b"\x18\x01\0\0\0\x00\0long ").await;
    raw.send(0, b"\x18\x01\0\0\0\x00\0data").await;
    raw.send(0, b"\x17\x01\0\0\0\0\x01\0\0\0\x02\x01\xfc\0\x06\0").await;
    for _ in 0..5 {
        raw.read().await;
    }
    assert_eq!(raw.read().await, b"\x00\x00\x02v1\x16\x28\0\0\x09long data");
    raw.read().await;
    raw.read().await;
    assert_eq!(raw.ask(b"\x1a\x01\0\0\0").await[0], 0, "STMT_RESET");
    assert_eq!(raw.ask(b"\x1c\x01\0\0\0\x01\0\0\0").await[1..3], 1235_u16.to_le_bytes(), "STMT_FETCH");
    raw.send(0, b"\x19\x01\0\0\0").await;
    assert_eq!(raw.ask(b"\x17\x01\0\0\0\0\x01\0\0\0").await[1..3], 1243_u16.to_le_bytes());
    assert_eq!(raw.ask(b"\x16fail").await[1..3], 1064_u16.to_le_bytes());
}

#[tokio::test]
async fn the_smaller_commands() {
    let running = start_open().await;
    let mut raw = Raw::login(&running, PROTOCOL_41 | SECURE).await;
    assert_eq!(raw.ask(b"\x0e").await[0], 0, "PING");
    assert_eq!(raw.ask(b"\x09").await, b"Connections: 1", "STATISTICS");
    assert!(raw.ask(b"\x04users\0%").await.ends_with(b"\xfb"), "FIELD_LIST");
    raw.read().await;
    assert_eq!(raw.read().await[0], 0xfe);
    // SET_OPTION switches several statements on: two OKs, the first of which announces the second.
    assert_eq!(raw.ask(b"\x1b\0\0").await[0], 0xfe);
    let first = raw.ask(b"\x03insert;insert").await;
    assert_eq!(first[3..5], (2_u16 | 8).to_le_bytes());
    assert_eq!(raw.read().await[3..5], 2_u16.to_le_bytes());
    assert_eq!(raw.ask(b"\x1b\x01\0").await[0], 0xfe);
    assert_eq!(raw.ask(b"\x03insert;insert").await[0], 0xff);
    assert_eq!(raw.ask(b"\x1b\x07\0").await[1..3], 1047_u16.to_le_bytes());
    for unknown in [0x0a, 0x0d, 0x12, 0x15, 0x1e, 0x77] {
        assert_eq!(raw.ask(&[unknown]).await[1..3], 1047_u16.to_le_bytes(), "{unknown:#x}");
    }
    assert_eq!(raw.ask(b"\x0c\xff\xff\0\0").await[1..3], 1094_u16.to_le_bytes(), "PROCESS_KILL");
    // CHANGE_USER, then the session is new.
    assert_eq!(raw.ask(b"\x11bob\0\0db2\0\x21\0").await[0], 0);
    raw.send(0, b"\x03whoami").await;
    let mut last = Vec::new();
    while !last.starts_with(b"\x1a") && !last.windows(3).any(|w| w == b"bob") {
        last = raw.read().await;
    }
    assert!(String::from_utf8_lossy(&last).contains("bob|userData1|db2|false"));
    assert_eq!(running.demo.open.load(Ordering::SeqCst), 1);
    raw.read().await;
    raw.send(0, b"\x01").await;
    assert!(raw.is_closed().await, "QUIT");
}

#[tokio::test]
async fn with_deprecate_eof_rows_end_with_an_ok() {
    let running = start_open().await;
    let mut raw = Raw::login(&running, PROTOCOL_41 | SECURE | DEPRECATE_EOF).await;
    assert_eq!(raw.ask(b"\x03echo hi").await, [1]);
    assert_eq!(raw.read().await[..4], *b"\x03def");
    assert_eq!(raw.read().await, b"\x02hi");
    assert_eq!(raw.read().await, [0xfe, 0, 0, 2, 0, 0, 0]);
}

#[tokio::test]
async fn a_pipelined_command_waits_its_turn() {
    let running = start_open().await;
    let mut raw = Raw::login(&running, PROTOCOL_41 | SECURE | DEPRECATE_EOF).await;
    let both = [packet(0, b"\x03rows 2000 100"), packet(0, b"\x0e")].concat();
    raw.stream.write_all(&both).await.expect("written");
    for _ in 0..2005 {
        raw.read().await;
    }
    assert_eq!(raw.read().await, [0, 0, 0, 2, 0, 0, 0], "the OK of the PING");
}

#[tokio::test]
async fn bad_clients_are_closed() {
    let config = ServerConfig { connect_timeout: Duration::from_millis(200), ..ServerConfig::new(AuthServer::none()) };
    let running = start(config).await;
    // Garbage, a frame that is too large, silence, an old protocol.
    for greeting in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff, 0xff, 0xff, 1], b"", &packet(1, &[0; 32])] {
        let stream = TcpStream::connect(("127.0.0.1", running.port)).await.expect("a connection");
        let mut raw = Raw { stream };
        raw.read().await;
        raw.stream.write_all(greeting).await.expect("written");
        assert!(raw.is_closed().await, "{greeting:?}");
    }
    // After login: a wrong sequence id, an empty packet.
    for (bytes, number) in [(packet(5, b"\x0e"), 1156_u16), (packet(0, b""), 1835)] {
        let mut raw = Raw::login(&running, PROTOCOL_41 | SECURE).await;
        raw.stream.write_all(&bytes).await.expect("written");
        assert_eq!(raw.read().await[1..3], number.to_le_bytes());
        assert!(raw.is_closed().await);
    }
    until("nobody is left", || running.server.connection_count() == 0).await;
}

#[tokio::test]
async fn timeouts_for_reading_and_writing() {
    let config = ServerConfig {
        read_timeout: Some(Duration::from_millis(100)),
        write_timeout: Some(Duration::from_millis(100)),
        ..ServerConfig::new(AuthServer::none())
    };
    let running = start(config).await;
    let mut raw = Raw::login(&running, PROTOCOL_41 | SECURE).await;
    assert!(raw.is_closed().await, "idle for too long");
    let mut raw = Raw::login(&running, PROTOCOL_41 | SECURE).await;
    raw.send(0, b"\x03rows 1000000 1000").await;
    until("a client that does not read is dropped", || running.server.connection_count() == 0).await;
}
