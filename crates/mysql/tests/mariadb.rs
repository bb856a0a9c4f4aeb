//! The client and the administration commands against a real MariaDB or MySQL. Skipped, loudly, without one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mysql::client::{Behind, BulkRows, ClientError, ConnectParams, Connection, RawResult};
use mysql::replication::{Position, ReplicationSource};
use mysql::{Flavor, admin, types::code};
use vtproto::query::{QueryResult, Row, Type};

/// A mysqld of our own in a temporary directory.
struct Mysqld {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .flat_map(|dir| names.iter().map(move |name| dir.join(name)))
        .find(|path| path.is_file())
}

impl Mysqld {
    /// `None` when MariaDB is not installed.
    async fn start(server_id: u32) -> Result<Option<Self>> {
        let (Some(mysqld), Some(install)) = (program(&["mariadbd"]), program(&["mariadb-install-db"])) else {
            eprintln!("SKIPPED: mariadbd or mariadb-install-db is not installed");
            return Ok(None);
        };
        let dir = tempfile::tempdir()?;
        let (data, tmp) = (dir.path().join("data"), dir.path().join("tmp"));
        std::fs::create_dir(&tmp)?;
        let tmp = format!("--tmpdir={}", tmp.display());
        // Only root may, and has to, name a user; `root` spares a change of owner.
        let user = if Command::new("id").arg("-u").output()?.stdout == b"0\n" { &["--user=root"][..] } else { &[] };
        let installed = Command::new(install)
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db", &tmp])
            .args(user)
            .output()?;
        ensure!(installed.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&installed.stderr));
        let port = testcluster::free_port();
        let log = std::fs::File::create(dir.path().join("stderr.log"))?;
        let child = Command::new(mysqld)
            .arg("--no-defaults")
            .args(user)
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", dir.path().join("mysql.sock").display()))
            .arg(format!("--pid-file={}", dir.path().join("mysql.pid").display()))
            .arg(format!("--port={port}"))
            .arg(format!("--server-id={server_id}"))
            .args([&tmp, "--bind-address=127.0.0.1", "--log-bin=bin", "--binlog-format=ROW", "--log-slave-updates"])
            .args(["--gtid-strict-mode=1", "--innodb-buffer-pool-size=16M", "--max-allowed-packet=64M"])
            .args(["--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=96M"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let server = Self { child, dir, port };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match Connection::connect(&server.params()).await {
                Ok(_) => return Ok(Some(server)),
                Err(error) if Instant::now() > deadline => {
                    let log = std::fs::read_to_string(server.dir.path().join("stderr.log")).unwrap_or_default();
                    bail!("mariadbd does not start: {error}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("mysql.sock")
    }

    fn params(&self) -> ConnectParams {
        ConnectParams { charset: "utf8mb4".into(), ..ConnectParams::unix(self.socket(), "root") }
    }

    async fn connect(&self) -> Result<Connection> {
        Ok(Connection::connect(&self.params()).await?)
    }
}

impl Drop for Mysqld {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cells(row: &Row) -> Vec<Option<String>> {
    let mut offset = 0;
    row.lengths
        .iter()
        .map(|&len| {
            let len = usize::try_from(len).ok()?;
            offset += len;
            Some(String::from_utf8_lossy(&row.values[offset - len..offset]).into_owned())
        })
        .collect()
}

fn single(result: &QueryResult) -> String {
    cells(&result.rows[0])[0].clone().unwrap_or_default()
}

#[tokio::test]
async fn the_client_against_mariadb() -> Result<()> {
    let Some(server) = Mysqld::start(1).await? else { return Ok(()) };
    let mut conn = server.connect().await?;
    assert_eq!(conn.flavor(), Flavor::MariaDb);
    assert!(!conn.server_version().starts_with("5.5.5-"), "{}", conn.server_version());
    conn.execute("create database t").await?;
    conn.select_db("t").await?;

    types(&mut conn).await?;
    results(&mut conn).await?;
    errors(&mut conn, &server).await?;
    sizes(&mut conn).await?;
    many_rows(&mut conn).await?;
    logins(&mut conn, &server).await?;
    statements_behind_others(&server).await?;
    dropped_is_not_aborted(&server).await?;
    raw_socket_is_gone(conn, &server).await
}

/// A connection that is dropped has said goodbye, one whose statement is under way is an aborted client.
async fn dropped_is_not_aborted(server: &Mysqld) -> Result<()> {
    async fn counted(conn: &mut Connection, name: &str) -> Result<u64> {
        let rows = conn.query(format!("show global status like '{name}'").as_bytes(), 1).await?.rows;
        Ok(cells(&rows[0])[1].as_deref().unwrap_or_default().parse()?)
    }
    /// Beside the one that counts there is that of the caller.
    async fn until_all_are_gone(conn: &mut Connection) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while counted(conn, "Threads_connected").await? > 2 {
            ensure!(Instant::now() < deadline, "a connection is left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
    let mut watching = server.connect().await?;
    until_all_are_gone(&mut watching).await?;
    let before = counted(&mut watching, "Aborted_clients").await?;
    let tcp = ConnectParams { charset: "utf8mb4".into(), ..ConnectParams::tcp("127.0.0.1", server.port, "root") };
    for params in [server.params(), tcp] {
        let mut conn = Connection::connect(&params).await?;
        conn.query(b"select 1", 1).await?;
    }
    until_all_are_gone(&mut watching).await?;
    assert_eq!(counted(&mut watching, "Aborted_clients").await?, before);

    let mut conn = server.connect().await?;
    conn.send_query(b"select sleep(0.2)").await?;
    drop(conn);
    until_all_are_gone(&mut watching).await?;
    assert_eq!(counted(&mut watching, "Aborted_clients").await?, before + 1);
    Ok(())
}

/// Every column type arrives as Vitess names it.
async fn types(conn: &mut Connection) -> Result<()> {
    conn.execute(
        "create table types (ti tinyint, tu tinyint unsigned, si smallint, mi mediumint, mu mediumint unsigned, \
         i int, bi bigint, bu bigint unsigned, f float, d double, de decimal(10,2), da date, t time(3), \
         dt datetime(6), ts timestamp null, y year, c char(3), v varchar(9), b binary(3), vb varbinary(9), \
         tx text, bl blob, e enum('a','b'), s set('x','y'), bt bit(9), g point, vbin varchar(9) collate utf8mb4_bin) \
         charset utf8mb4",
    )
    .await?;
    conn.execute(
        "insert into types values (-1, 200, -2, -3, 4, -5, -6, 18446744073709551615, 1.5, 0.1, 12.30, '2024-02-29', \
         '-01:02:03.5', '2024-01-02 03:04:05.000006', '2024-01-02 03:04:05', 2024, 'ab', 'é', 'xy', x'00ff', \
         'text', 'blob', 'b', 'x,y', b'100000001', null, 'bin')",
    )
    .await?;
    let result = conn.query(b"select * from types", 10).await?;
    let kinds = result.fields.iter().map(|field| field.r#type()).collect::<Vec<_>>();
    use Type::*;
    let expected = vec![
        Int8, Uint8, Int16, Int24, Uint24, Int32, Int64, Uint64, Float32, Float64, Decimal, Date, Time, Datetime,
        Timestamp, Year, Char, Varchar, Binary, Varbinary, Text, Blob, Enum, Set, Bit, Geometry, Varbinary,
    ];
    assert_eq!(kinds, expected);
    let row = cells(&result.rows[0]);
    assert_eq!(row[7].as_deref(), Some("18446744073709551615"));
    assert_eq!(row[12].as_deref(), Some("-01:02:03.500"));
    assert_eq!(row[13].as_deref(), Some("2024-01-02 03:04:05.000006"));
    assert_eq!((row[17].as_deref(), row[25].as_deref()), (Some("é"), None));
    let field = &result.fields[10];
    assert_eq!((field.table.as_str(), field.org_table.as_str(), field.database.as_str()), ("types", "types", "t"));
    assert_eq!((field.name.as_str(), field.org_name.as_str(), field.decimals), ("de", "de", 2));
    Ok(())
}

async fn results(conn: &mut Connection) -> Result<()> {
    conn.execute("create table n (id int auto_increment primary key, v int)").await?;
    let result = conn.execute("insert into n (v) values (1), (2), (3)").await?;
    assert_eq!((result.rows_affected, result.insert_id, result.fields.len()), (3, 1, 0));
    conn.execute("begin").await?;
    assert!(conn.in_transaction());
    // Unchanged rows do not count, without the flag.
    assert_eq!(conn.execute("update n set v = 3 where v >= 2").await?.rows_affected, 1);
    conn.reset().await?;
    assert!(!conn.in_transaction());
    conn.select_db("t").await?;
    assert_eq!(single(&conn.execute("select sum(v) from n").await?), "6", "the reset rolled back");
    conn.execute("select 1").await?;
    assert_eq!(conn.warnings(), 0);
    conn.execute("drop table if exists nowhere").await?;
    assert_eq!(conn.warnings(), 1);
    let many = conn.query_multi(b"select 1; update n set v = v; select id from n", 10).await?;
    assert_eq!(many.iter().map(|r| r.rows.len()).collect::<Vec<_>>(), [1, 0, 3]);
    conn.execute("create procedure two() begin select 1; select 2; end").await?;
    let lost = conn.execute("call two()").await.err().context("rows that nobody would see")?;
    assert_eq!(lost.errno(), 1235, "{lost}");
    assert_eq!(conn.query_multi(b"call two()", 10).await?.len(), 3);
    let mut stream = conn.query_stream(b"select seq, repeat('x', 100) from seq_1_to_100000").await?;
    let (mut rows, mut last) = (0, String::new());
    while let Some(batch) = stream.next_batch(32 << 10).await? {
        rows += batch.len();
        last = cells(batch.last().context("a row")?)[0].clone().context("a value")?;
    }
    assert_eq!((rows, last.as_str()), (100_000, "100000"));
    assert!(!conn.is_broken());
    Ok(())
}

async fn errors(conn: &mut Connection, server: &Mysqld) -> Result<()> {
    let error = conn.execute("select * from nowhere").await.expect_err("no such table");
    assert_eq!(error.to_string(), "Table 't.nowhere' doesn't exist (errno 1146) (sqlstate 42S02)");
    let error = conn.query(b"select seq from seq_1_to_11", 10).await.expect_err("too many rows");
    assert_eq!(error.errno(), 10_001);
    assert_eq!(single(&conn.execute("select 'in step'").await?), "in step");
    // LOAD DATA LOCAL: the capability is not there, so the server refuses.
    let error = conn.execute("load data local infile '/etc/passwd' into table n").await.expect_err("refused");
    assert!(!error.is_connection_error(), "{error}");
    // Found rows.
    let mut params = server.params().database("t");
    params.client_found_rows = true;
    let mut found = Connection::connect(&params).await?;
    assert_eq!(found.execute("update n set v = v").await?.rows_affected, 3);
    // KILL QUERY leaves the connection, KILL does not.
    let mut victim = server.connect().await?;
    let id = victim.thread_id();
    let running = tokio::spawn(async move {
        let error = victim.execute("select sleep(30), benchmark(1, 1)").await;
        (victim, error)
    });
    until_running(conn, id).await?;
    conn.execute(&format!("kill query {id}")).await?;
    let (mut victim, outcome) = running.await?;
    match outcome {
        // SLEEP returns 1 when it is interrupted alone; anything else is 1317.
        Ok(result) => assert_eq!(cells(&result.rows[0])[0].as_deref(), Some("1")),
        Err(error) => assert_eq!(error.errno(), 1317),
    }
    victim.ping().await?;
    let running = tokio::spawn(async move {
        let outcome = victim.execute("select sleep(30)").await;
        (victim, outcome)
    });
    until_running(conn, id).await?;
    conn.execute(&format!("kill {id}")).await?;
    let (victim, outcome) = running.await?;
    let error = outcome.expect_err("killed");
    ensure!(matches!(error.errno(), 2013 | 1317 | 1927), "{error}");
    assert!(victim.is_broken() || error.errno() != 2013);
    Ok(())
}

/// A statement in one round trip with those that have to succeed before it, and no way to hide one more in its text.
async fn statements_behind_others(server: &Mysqld) -> Result<()> {
    let mut params = server.params();
    params.multi_statements = false;
    let mut conn = Connection::connect(&params).await?;
    for statement in ["create database behind", "use behind", "create table n (id int primary key)"] {
        conn.execute(statement).await?;
    }
    async fn answered(behind: Behind<'_>, max_rows: usize) -> Result<QueryResult, ClientError> {
        match behind {
            Behind::Sent(pending) => pending.result(max_rows).await,
            other => panic!("{other:?}"),
        }
    }
    let isolation = ["set transaction isolation level serializable", "begin"];
    for before in [&isolation[1..], &isolation] {
        let written = answered(conn.query_behind(before, b"insert into n values (1), (2)").await, 10).await?;
        assert_eq!(written.rows_affected, 2);
        assert!(conn.in_transaction());
        conn.execute("rollback").await?;
        let Behind::Sent(pending) = conn.query_behind(before, b"select id from n").await else { panic!("not sent") };
        let RawResult::Whole(read) = pending.raw_result(10, 1000).await? else { panic!("no rows are many") };
        assert_eq!((read.rows_affected, read.fields.len()), (0, 1));
        conn.execute("rollback").await?;
        // A failure of the statement itself leaves the transaction open.
        let error = answered(conn.query_behind(before, b"select nothing").await, 10).await.expect_err("no column");
        assert_eq!(error.errno(), 1054);
        assert!(!conn.is_broken());
        conn.execute("rollback").await?;
    }
    let error = answered(conn.query_behind(&["begin"], b"select 1 union select 2").await, 1).await;
    assert_eq!(error.expect_err("a row too many").errno(), 10_001);
    assert_eq!(single(&conn.execute("select 'in step'").await?), "in step");
    conn.execute("rollback").await?;
    // A text of several frames.
    conn.execute("set global max_allowed_packet = 67108864").await?;
    let mut large = Connection::connect(&params).await?;
    let text = format!("select length('{}')", "x".repeat(17 << 20));
    for _ in 0..2 {
        let length = answered(large.query_behind(&["begin"], text.as_bytes()).await, 10).await?;
        assert_eq!(single(&length), (17 << 20).to_string());
        large.execute("rollback").await?;
    }
    // Nothing behind one that fails is run.
    match conn.query_behind(&["select nothing", "begin"], b"insert into n values (3)").await {
        Behind::Failed(error) => assert_eq!(error.errno(), 1054),
        other => panic!("{other:?}"),
    }
    // A comment is no statement, wherever it stands.
    let alone = conn.query(b"/* nothing */", 10).await;
    let behind = answered(conn.query_behind(&["begin"], b"/* nothing */").await, 10).await;
    assert_eq!(behind.map_err(|error| error.errno()), alone.map_err(|error| error.errno()));
    assert!(conn.in_transaction());
    conn.execute("rollback").await?;
    // Other texts are one statement as before, also after a reset.
    for reset in [false, true] {
        let hidden = b"select 1; insert into n values (4)";
        assert!(matches!(conn.query_behind(&["begin"], hidden).await, Behind::Apart));
        if reset {
            conn.reset().await?;
            conn.execute("use behind").await?;
        }
        assert_eq!(conn.query(hidden, 10).await.expect_err("two statements").errno(), 1064);
        assert_eq!(conn.query_stream(hidden).await.expect_err("two statements").errno(), 1064);
        assert_eq!(single(&conn.execute("select count(*) from n").await?), "0");
        answered(conn.query_behind(&["begin"], b"select 1").await, 10).await?;
        conn.execute("rollback").await?;
    }
    // What the server has closed is found without a statement.
    assert!(!conn.is_closed_by_server());
    let mut killer = server.connect().await?;
    killer.execute(&format!("kill {}", conn.thread_id())).await?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !conn.is_closed_by_server() {
        ensure!(Instant::now() < deadline, "the end of the connection was never seen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(conn.query_behind(&["begin"], b"select 1").await, Behind::Failed(error) if error.errno() == 2006));
    Ok(())
}

/// Waits until a thread runs a statement.
async fn until_running(conn: &mut Connection, id: u32) -> Result<()> {
    let question =
        format!("select count(*) from information_schema.processlist where id = {id} and info like '%sleep%'");
    for _ in 0..500 {
        if single(&conn.execute(&question).await?) == "1" {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("thread {id} never ran its statement")
}

/// Rows and statements of 16 MB and more.
async fn sizes(conn: &mut Connection) -> Result<()> {
    for size in [0xff_ffff_usize - 4, 17 << 20, 40 << 20] {
        let result = conn.execute(&format!("select repeat('x', {size}), 'end'")).await?;
        assert_eq!(result.rows[0].lengths, [size as i64, 3]);
        assert!(result.rows[0].values.ends_with(b"xend"));
        let mut sql = b"select length('".to_vec();
        sql.resize(sql.len() + size, b'y');
        sql.extend_from_slice(b"')");
        assert_eq!(single(&conn.query(&sql, 1).await?), size.to_string());
    }
    Ok(())
}

/// One prepared statement for many rows.
async fn many_rows(conn: &mut Connection) -> Result<()> {
    assert!(conn.has_bulk());
    conn.execute(
        "create table many (id bigint unsigned primary key, d double, v longtext, n decimal(30, 2)) charset utf8mb4",
    )
    .await?;
    let insert = conn.prepare(b"insert into many values (?, ?, ?, ?)").await?;
    let types = [(code::LONGLONG, true), (code::DOUBLE, false), (code::VAR_STRING, false), (code::NEWDECIMAL, false)];
    let mut rows = BulkRows::new(types.into_iter());
    let long = "x".repeat(17 << 20);
    for (id, v) in [(-1, "\u{e9}'\\"), (2, long.as_str()), (3, "")] {
        rows.put_i64(id);
        rows.put_f64(0.5);
        rows.put_bytes(v.as_bytes());
        rows.put_null();
    }
    assert_eq!(conn.execute_bulk(insert, &rows).await?.rows_affected, 3);
    let seen = conn.execute("select id, d, length(v), n from many order by id").await?;
    let seen: Vec<_> = seen
        .rows
        .iter()
        .map(|row| cells(row).into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(seen, ["2 0.5 17825792 ", "3 0.5 0 ", "18446744073709551615 0.5 4 "]);
    // The same again is refused, and the connection is as good as before.
    assert_eq!(conn.execute_bulk(insert, &rows).await.expect_err("keys are there").errno(), 1062);
    assert_eq!(conn.prepare(b"insert into nowhere values (?)").await.expect_err("no table").errno(), 1146);
    conn.close_prepared(insert).await?;
    assert_eq!(conn.execute_bulk(insert, &rows).await.expect_err("closed").errno(), 1243);
    assert_eq!(single(&conn.execute("select count(*) from many").await?), "3");
    Ok(())
}

async fn logins(conn: &mut Connection, server: &Mysqld) -> Result<()> {
    conn.execute("create user app@'%' identified by 'p''w'").await?;
    conn.execute("create user nopass@'%'").await?;
    let mut params = ConnectParams::tcp("127.0.0.1", server.port, "app");
    let error = Connection::connect(&params).await.expect_err("no password");
    assert_eq!((error.errno(), error.mysql().sqlstate.as_str()), (1045, "28000"));
    params.password = "p'w".into();
    Connection::connect(&params).await?.ping().await?;
    Connection::connect(&ConnectParams::tcp("127.0.0.1", server.port, "nopass")).await?.ping().await?;
    let error = Connection::connect(&server.params().database("nowhere")).await.expect_err("no such database");
    assert_eq!(error.errno(), 1049);
    Ok(())
}

/// What a command sees when the server has died since the last one.
async fn raw_socket_is_gone(mut conn: Connection, server: &Mysqld) -> Result<()> {
    let mut other = server.connect().await?;
    let own = conn.thread_id();
    other.execute(&format!("kill {own}")).await?;
    let error = conn.execute("select 1").await.expect_err("gone");
    ensure!(matches!(error.errno(), 2006 | 2013 | 1927), "{error}");
    if error.is_connection_error() {
        assert!(conn.is_broken());
    }
    Ok(())
}

fn source(port: u16) -> ReplicationSource {
    ReplicationSource {
        // As a tablet record may have it; TCP all the same.
        host: "localhost".into(),
        port,
        user: "repl".into(),
        password: "r".into(),
        connect_retry: Duration::from_secs(1),
        ssl: false,
    }
}

/// The sequence of InitShardMaster and PlannedReparentShard on two servers.
#[tokio::test]
async fn replication_between_two_servers() -> Result<()> {
    let (Some(first), Some(second)) = (Mysqld::start(101).await?, Mysqld::start(102).await?) else { return Ok(()) };
    let (mut master, mut replica) = (first.connect().await?, second.connect().await?);
    assert!(matches!(admin::slave_status(&mut replica).await, Err(admin::AdminError::NotReplica)));
    for conn in [&mut master, &mut replica] {
        admin::reset_replication(conn).await?;
        assert_eq!(admin::semi_sync_enabled(conn).await?, (false, false));
        // Before the position is set: MariaDB logs no CREATE USER IF NOT EXISTS that changes nothing.
        conn.execute("set sql_log_bin = 0").await?;
        conn.execute("create user repl@'%' identified by 'r'").await?;
        conn.execute("grant replication slave on *.* to repl@'%'").await?;
        conn.execute("set sql_log_bin = 1").await?;
    }
    assert_eq!(admin::master_position(&mut master).await?.to_string(), "MariaDB/");
    // Somebody writes while positions are forgotten and set: that is no error.
    replica.execute("create database meanwhile").await?;
    replica.execute("create table meanwhile.t (id int)").await?;
    let mut other = second.connect().await?;
    let writer = tokio::spawn(async move {
        while other.execute("insert into meanwhile.t values (1)").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2500)).await;
        }
    });
    for _ in 0..8 {
        admin::reset_replication(&mut replica).await?;
    }
    writer.abort();
    replica.execute("drop database meanwhile").await?;
    admin::reset_replication(&mut replica).await?;
    master.execute("create database t").await?;
    master.execute("drop database t").await?;
    let start = admin::master_position(&mut master).await?;
    assert_eq!(start.to_string(), "MariaDB/0-101-2");
    // What it has written itself is there, wherever the binary log begins.
    for statement in ["do 1", "flush binary logs", "flush tables with read lock", "unlock tables", "flush logs"] {
        master.execute(statement).await?;
        admin::wait_for_position(&mut master, &start, Duration::from_secs(1)).await.with_context(|| statement)?;
    }

    admin::set_semi_sync(&mut replica, false, true).await?;
    admin::set_slave_position(&mut replica, &start).await?;
    admin::set_master(&mut replica, &source(first.port), false, true).await?;
    admin::set_semi_sync(&mut master, true, true).await?;
    assert_eq!(admin::semi_sync_enabled(&mut master).await?, (true, true));
    master.execute("create database d").await?;
    master.execute("create table d.n (id int primary key)").await?;
    master.execute("insert into d.n values (1)").await?;
    let target = admin::master_position(&mut master).await?;
    assert!(target.at_least(&start) && !start.at_least(&target));
    admin::wait_for_position(&mut replica, &target, Duration::from_secs(20)).await?;
    let status = admin::slave_status(&mut replica).await?;
    assert!(status.running() && status.position.at_least(&target), "{status:?}");
    assert_eq!((status.master_host.as_str(), status.master_port), ("127.0.0.1", first.port));
    assert_eq!((status.connect_retry, status.seconds_behind_master), (1, Some(0)));
    assert!(admin::semi_sync_slave_status(&mut replica).await?);
    assert_eq!(single(&replica.execute("select count(*) from d.n").await?), "1");

    // A position that is written and that nobody sees yet: the commit waits for a replica.
    admin::stop_slave(&mut replica).await?;
    master.execute("set global rpl_semi_sync_master_wait_point = 'AFTER_SYNC'").await?;
    master.execute("set global rpl_semi_sync_master_timeout = 600000").await?;
    let mut writer = first.connect().await?;
    let writing = tokio::spawn(async move { writer.execute("insert into d.n values (9)").await });
    let written = loop {
        let now = admin::master_position(&mut master).await?;
        if now != target {
            break now;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let waited = admin::wait_for_position(&mut master, &written, Duration::from_millis(200)).await;
    assert!(matches!(waited, Err(admin::AdminError::WaitTimeout(_))), "{waited:?}");
    assert_eq!(single(&master.execute("select count(*) from d.n").await?), "1");
    admin::start_slave(&mut replica).await?;
    admin::wait_for_position(&mut master, &written, Duration::from_secs(20)).await?;
    assert_eq!(single(&master.execute("select count(*) from d.n").await?), "2");
    writing.await??;
    master.execute("delete from d.n where id = 9").await?;

    // A position that does not come.
    let far: Position = "MariaDB/0-101-1000".parse()?;
    let waited = admin::wait_for_position(&mut replica, &far, Duration::from_millis(200)).await;
    assert!(matches!(waited, Err(admin::AdminError::WaitTimeout(_))));

    // Up to a position, then no further.
    admin::stop_slave(&mut replica).await?;
    assert!(!admin::slave_status(&mut replica).await?.running());
    admin::set_semi_sync(&mut master, false, false).await?;
    master.execute("insert into d.n values (2)").await?;
    let second_row = admin::master_position(&mut master).await?;
    master.execute("insert into d.n values (3)").await?;
    admin::start_slave_until_after(&mut replica, &second_row).await?;
    admin::wait_for_position(&mut replica, &second_row, Duration::from_secs(20)).await?;
    assert_eq!(single(&replica.execute("select count(*) from d.n").await?), "2");

    // Only the IO thread.
    admin::restart_slave(&mut replica).await?;
    admin::stop_io_thread(&mut replica).await?;
    let status = admin::slave_status(&mut replica).await?;
    assert!(!status.io_running && status.sql_running);
    admin::start_io_thread(&mut replica).await?;

    // The other way round.
    admin::set_read_only(&mut master, true).await?;
    assert!(admin::is_read_only(&mut master).await?);
    let last = admin::master_position(&mut master).await?;
    admin::wait_for_position(&mut replica, &last, Duration::from_secs(20)).await?;
    let promoted = admin::promote(&mut replica).await?;
    assert!(promoted.at_least(&last));
    admin::wait_for_position(&mut replica, &promoted, Duration::from_secs(1)).await?;
    assert!(matches!(admin::slave_status(&mut replica).await, Err(admin::AdminError::NotReplica)));
    admin::set_read_only(&mut replica, false).await?;
    replica.execute("insert into d.n values (4)").await?;
    let target = admin::master_position(&mut replica).await?;
    admin::wait_for_position(&mut replica, &target, Duration::from_secs(1)).await?;
    admin::set_master(&mut master, &source(second.port), true, true).await?;
    admin::wait_for_position(&mut master, &target, Duration::from_secs(20)).await?;
    assert_eq!(single(&master.execute("select count(*) from d.n").await?), "4");
    // MariaDB has no super_read_only.
    assert!(admin::set_super_read_only(&mut master, true).await.is_err());
    Ok(())
}

/// A second flavour, when `MYSQL9_DIR` names a directory with `bin/mysqld` of MySQL 8.4 or later.
#[tokio::test]
async fn mysql_84_and_later() -> Result<()> {
    let Some(root) = std::env::var_os("MYSQL9_DIR").map(PathBuf::from) else {
        eprintln!("SKIPPED: MYSQL9_DIR is not set");
        return Ok(());
    };
    let (first, second) = (start_mysql(&root, 201).await?, start_mysql(&root, 202).await?);
    let (mut master, mut replica) = (first.connect().await?, second.connect().await?);
    assert_eq!(master.flavor(), Flavor::Mysql84);
    for conn in [&mut master, &mut replica] {
        admin::reset_replication(conn).await?;
        conn.execute("set sql_log_bin = 0").await?;
        conn.execute("create user repl@'%' identified by 'r'").await?;
        conn.execute("grant replication slave on *.* to repl@'%'").await?;
        conn.execute("set sql_log_bin = 1").await?;
    }
    // caching_sha2_password over TCP: the RSA exchange first, then the fast path.
    let mut params = ConnectParams::tcp("127.0.0.1", first.port, "repl");
    params.password = "r".into();
    for _ in 0..2 {
        Connection::connect(&params).await?.ping().await?;
    }
    params.password = "wrong".into();
    assert_eq!(Connection::connect(&params).await.expect_err("wrong password").errno(), 1045);
    statements_behind_others(&first).await?;
    master.execute("create database d").await?;
    let start = admin::master_position(&mut master).await?;
    admin::set_slave_position(&mut replica, &start).await?;
    admin::set_master(&mut replica, &source(first.port), false, true).await?;
    master.execute("create database e").await?;
    let target = admin::master_position(&mut master).await?;
    admin::wait_for_position(&mut replica, &target, Duration::from_secs(20)).await?;
    let status = admin::slave_status(&mut replica).await?;
    assert!(status.running() && status.position.at_least(&target), "{status:?}");
    let promoted = admin::promote(&mut replica).await?;
    assert!(promoted.at_least(&target));
    admin::set_super_read_only(&mut master, true).await?;
    assert!(admin::is_read_only(&mut master).await?);
    Ok(())
}

async fn start_mysql(root: &Path, server_id: u32) -> Result<Mysqld> {
    let mysqld = root.join("bin/mysqld");
    let dir = tempfile::tempdir()?;
    let data = format!("--datadir={}", dir.path().join("data").display());
    let initialised = Command::new(&mysqld).args(["--initialize-insecure", "--user=root"]).arg(&data).output()?;
    ensure!(initialised.status.success(), "{}", String::from_utf8_lossy(&initialised.stderr));
    let port = testcluster::free_port();
    let log = std::fs::File::create(dir.path().join("stderr.log"))?;
    let child = Command::new(&mysqld)
        .args([&data, "--user=root", "--bind-address=127.0.0.1", "--mysqlx=OFF", "--performance-schema=OFF"])
        .arg(format!("--socket={}", dir.path().join("mysql.sock").display()))
        .arg(format!("--pid-file={}", dir.path().join("mysql.pid").display()))
        .args([format!("--port={port}"), format!("--server-id={server_id}")])
        .args(["--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--log-bin=bin"])
        .args(["--innodb-buffer-pool-size=64M", "--innodb-redo-log-capacity=32M"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let server = Mysqld { child, dir, port };
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = server.connect().await {
        ensure!(Instant::now() < deadline, "mysqld does not start: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(server)
}
