//! What a source streams from real binlogs of MariaDB and MySQL 9, applied to a second database and compared.

mod support;

use futures::StreamExt;
use mysql::Position;
use vreplication::source::{Filter, Sharding, SourceConfig, StreamRequest, UpdateStreamService};
use vreplication::{OnDdl, StreamOptions};
use vtproto::binlogdata::binlog_transaction::statement::Category;
use vtproto::binlogdata::{RowTable, StreamKeyRangeRequest, StreamTablesRequest};
use vtproto::binlogservice::update_stream_server::UpdateStream;

use support::{Flavor, Server, Stream, apply, expect_same, statements, tables, texts};

const FLAVORS: [Flavor; 2] = [Flavor::MariaDb, Flavor::MySql9];

/// Every column type of both servers. The rows have every kind of value that the types can hold.
fn every_type(flavor: Flavor) -> (String, Vec<String>) {
    let mut columns = vec![
        ("ti", "TINYINT", &["-128", "127", "0"][..]),
        ("tu", "TINYINT UNSIGNED", &["200", "255", "0"]),
        ("si", "SMALLINT", &["-32768", "32767", "1"]),
        ("su", "SMALLINT UNSIGNED", &["65535", "40000", "1"]),
        ("mi", "MEDIUMINT", &["-8388608", "8388607", "-1"]),
        ("mu", "MEDIUMINT UNSIGNED", &["16777215", "9000000", "1"]),
        ("i", "INT", &["-2147483648", "2147483647", "-1"]),
        ("iu", "INT UNSIGNED", &["4294967295", "3000000000", "1"]),
        ("bi", "BIGINT", &["-9223372036854775808", "9223372036854775807", "-1"]),
        ("bu", "BIGINT UNSIGNED", &["18446744073709551615", "9223372036854775808", "1"]),
        ("de", "DECIMAL(65,30)", &["-12345678901234567890123456789012345.123456789012345678901234567891", "0", "0.1"]),
        ("ds", "DECIMAL(5,2)", &["-999.99", "0.01", "-0.5"]),
        ("d0", "DECIMAL(20,0)", &["12345678901234567890", "-1", "0"]),
        ("f", "FLOAT", &["0.1", "-3.4028234e38", "1.17549435e-38"]),
        ("f2", "FLOAT(10,3)", &["1234567.125", "0.333", "-0.001"]),
        ("d", "DOUBLE", &["0.1", "-1.7976931348623157e308", "2.2250738585072014e-308"]),
        ("dn", "DOUBLE", &["-0e0", "3", "1e100"]),
        ("b1", "BIT(1)", &["b'1'", "b'0'", "b'1'"]),
        ("b13", "BIT(13)", &["b'1111111111111'", "b'0'", "b'1000000000001'"]),
        ("b64", "BIT(64)", &["0xffffffffffffffff", "1", "0x8000000000000000"]),
        ("y", "YEAR", &["1901", "2155", "0"]),
        ("da", "DATE", &["'1000-01-01'", "'9999-12-31'", "'0000-00-00'"]),
        ("dz", "DATE", &["'2024-00-00'", "'2024-02-29'", "'2024-10-00'"]),
        ("t0", "TIME", &["'-838:59:59'", "'838:59:59'", "'-00:00:01'"]),
        ("t2", "TIME(2)", &["'-01:02:03.45'", "'00:00:00.01'", "'-00:00:00.01'"]),
        ("t3", "TIME(3)", &["'-01:02:03.456'", "'00:00:00.001'", "'-00:00:00.999'"]),
        ("t6", "TIME(6)", &["'-838:59:58.999999'", "'00:00:00.000001'", "'-00:00:00.000001'"]),
        ("dt0", "DATETIME", &["'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'0000-00-00 00:00:00'"]),
        ("dt1", "DATETIME(1)", &["'2024-01-02 03:04:05.6'", "'9999-12-31 23:59:59.9'", "'0000-00-00 00:00:00.0'"]),
        (
            "dt4",
            "DATETIME(4)",
            &["'2024-01-02 03:04:05.0607'", "'2024-12-31 23:59:59.9999'", "'2024-00-01 00:00:00.1'"],
        ),
        ("dt6", "DATETIME(6)", &["'2024-01-02 03:04:05.000006'", "'9999-12-31 23:59:59.999999'", "'2000-01-01'"]),
        ("ts0", "TIMESTAMP NULL", &["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "'0000-00-00 00:00:00'"]),
        ("ts3", "TIMESTAMP(3) NULL", &["'2024-07-01 12:00:00.123'", "'2038-01-19 03:14:07.999'", "'2024-01-01'"]),
        ("ts6", "TIMESTAMP(6) NULL", &["'2024-07-01 12:00:00.123456'", "'2001-02-03 04:05:06.000007'", "'2024-01-01'"]),
        ("c", "CHAR(10) CHARACTER SET utf8mb4", &["'añ€😀'", "''", "'trail   '"]),
        ("cl", "CHAR(255) CHARACTER SET utf8mb4", &["REPEAT('😀', 255)", "'x'", "' '"]),
        ("bn", "BINARY(8)", &["0x0102000000000000", "'a b     '", "''"]),
        ("vc", "VARCHAR(100) CHARACTER SET utf8mb4", &["'it''s \\\\ \"q\" \\n\\0\\Z😀'", "''", "'trail   '"]),
        ("vl", "VARCHAR(100) CHARACTER SET latin1", &["'é\\'ß'", "_latin1 0x80ff5c27", "'plain'"]),
        ("vu", "VARCHAR(100) CHARACTER SET ucs2", &["'aé€'", "''", "'it''s'"]),
        ("v16", "VARCHAR(100) CHARACTER SET utf16", &["'a😀'", "'b'", "''"]),
        ("v32", "VARCHAR(100) CHARACTER SET utf32", &["'a😀'", "'b'", "''"]),
        ("vs", "VARCHAR(100) CHARACTER SET sjis", &["'ソ表能'", "'abc\\\\'", "''"]),
        ("vg", "VARCHAR(100) CHARACTER SET gbk", &["_gbk 0xd55c", "'中文'", "''"]),
        ("vb5", "VARCHAR(100) CHARACTER SET big5", &["'中文功'", "'x'", "''"]),
        ("vr", "VARCHAR(100) CHARACTER SET koi8r", &["'привет'", "'x'", "''"]),
        ("vb", "VARBINARY(300)", &["0x00ff27225c0a0d1a", "REPEAT(0xff, 300)", "''"]),
        ("tt", "TINYTEXT", &["'tiny é'", "''", "'x'"]),
        ("tx", "TEXT CHARACTER SET latin1", &["REPEAT('é', 1000)", "''", "'x'"]),
        ("mt", "MEDIUMTEXT CHARACTER SET utf8mb3", &["REPEAT('€', 70000)", "''", "'x'"]),
        ("lt", "LONGTEXT", &["REPEAT('a''😀', 10000)", "''", "'x'"]),
        ("tb", "TINYBLOB", &["0x00", "''", "0xff"]),
        ("bl", "BLOB", &["REPEAT(0x00ff, 1000)", "''", "0x27"]),
        ("mb", "MEDIUMBLOB", &["REPEAT(0x5c27, 50000)", "''", "0x00"]),
        ("lb", "LONGBLOB", &["REPEAT(0x0a0d1a, 50000)", "''", "0x00"]),
        ("e", "ENUM('a','b,c','it''s','é')", &["'b,c'", "'é'", "''"]),
        ("s", "SET('a','b','c','it''s')", &["'a,c,it''s'", "''", "'b'"]),
        ("g", "GEOMETRY", &["ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')", "NULL"]),
        ("p", "POINT", &["ST_GeomFromText('POINT(-1.5 2.25)', 4326)", "NULL", "ST_GeomFromText('POINT(0 0)')"]),
        ("select", "INT", &["1", "2", "3"]),
    ];
    match flavor {
        Flavor::MariaDb => columns.extend([
            ("j", "JSON", &["'{\"a\": [1, 2.50, \"é\"]}'", "'null'", "'[]'"][..]),
            ("u", "UUID", &["'123e4567-e89b-12d3-a456-426614174000'", "'00000000-0000-0000-0000-000000000000'", "NULL"]),
            ("i6", "INET6", &["'2001:db8::ff00:42:8329'", "'::'", "'192.0.2.1'"]),
            ("i4", "INET4", &["'192.0.2.1'", "'0.0.0.0'", "'255.255.255.255'"]),
        ]),
        Flavor::MySql9 => columns.extend([
            (
                "j",
                "JSON",
                &[
                    "'{\"a\": [1, -1, 2.5, 1e300, \"é\\\\n\", null, true, {\"b\": {}}], \"z\": 18446744073709551615, \"n\": -9223372036854775808}'",
                    "'\"\"'",
                    "JSON_OBJECT('d', CAST('2024-01-02' AS DATE), 't', CAST('-12:00:00.5' AS TIME(6)), 'dt', CAST('2024-01-02 03:04:05.6' AS DATETIME(6)), 'n', CAST(-1.50 AS DECIMAL(10,2)), 'b', CAST(_binary'\\0\\'x' AS JSON), 'k', 1.0)",
                ][..],
            ),
            ("v", "VECTOR(3)", &["TO_VECTOR('[1,2.5,-3]')", "TO_VECTOR('[0,0,0]')", "NULL"]),
        ]),
    }
    let definitions: Vec<String> = columns.iter().map(|(name, of, _)| format!("`{name}` {of}")).collect();
    let table = format!(
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, gv INT AS (ti + 1) VIRTUAL, {}, gs INT AS (si * 2) STORED)",
        definitions.join(", ")
    );
    let names: Vec<String> = columns.iter().map(|(name, ..)| format!("`{name}`")).collect();
    let rows = (0..3).map(|row| {
        let values: Vec<&str> = columns.iter().map(|(_, _, values)| values[row]).collect();
        format!("INSERT INTO t ({}) VALUES ({})", names.join(", "), values.join(", "))
    });
    (table, rows.collect())
}

/// Inserts, updates and deletes of every type come out the same.
async fn every_type_survives(server: &Server, charset: &str) {
    let (table, rows) = every_type(server.flavor);
    server
        .run(
            "",
            &[
                "DROP DATABASE IF EXISTS src",
                "DROP DATABASE IF EXISTS dst",
                "CREATE DATABASE src CHARACTER SET utf8mb4",
                "CREATE DATABASE dst CHARACTER SET utf8mb4",
            ],
        )
        .await;
    for database in ["src", "dst"] {
        server.run(database, &[&table]).await;
    }
    let start = server.position().await;
    let mut source = server.connect("src").await;
    source.execute("SET sql_mode='', time_zone='+05:30'").await.expect("a session");
    for row in rows {
        source.execute(&row).await.unwrap_or_else(|error| panic!("{}: {error}", &row[row.len() - 300..]));
    }
    source.execute("INSERT INTO t () VALUES ()").await.expect("a row of NULLs");
    let names = texts(&source.execute("SELECT column_name FROM information_schema.columns WHERE table_schema='src' AND table_name='t' AND column_name NOT IN ('id','gv','gs') ORDER BY ordinal_position").await.expect("columns"));
    let names: Vec<String> = names.into_iter().map(|row| format!("`{}`", row[0])).collect();
    // The same values in other rows, then updates that give each row the values of another, then deletes.
    let list = names.join(", ");
    source.execute(&format!("INSERT INTO t ({list}) SELECT {list} FROM t ORDER BY id")).await.expect("copies");
    let assign: Vec<String> = names.iter().map(|name| format!("a.{name}=b.{name}")).collect();
    source
        .execute(&format!("UPDATE t a JOIN t b ON b.id = a.id % 4 + 1 SET {} WHERE a.id > 4", assign.join(", ")))
        .await
        .expect("updates");
    source.execute("UPDATE t SET id = 100 WHERE id = 5").await.expect("a new key");
    source.execute("DELETE FROM t WHERE id = 6").await.expect("a delete");
    let end = server.position().await;
    let mut stream = server.stream("src", &start, tables(&["t"]), StreamOptions::default());
    let messages = stream.until(&end).await;
    let mut target =
        mysql::Connection::connect(&mysql::ConnectParams { charset: charset.into(), ..server.params("dst") })
            .await
            .expect("connected");
    apply(&mut target, &messages).await;
    expect_same(&mut source, "src", "dst", "t", "id").await;
}

#[tokio::test]
async fn every_type_on_mariadb() {
    let Some(server) = Server::start(Flavor::MariaDb, &[]).await else { return };
    for charset in ["utf8mb4", "latin1", "utf8"] {
        every_type_survives(&server, charset).await;
    }
    server.run("", &["SET GLOBAL binlog_row_metadata='FULL'"]).await;
    every_type_survives(&server, "utf8mb4").await;
    server.run("", &["SET GLOBAL log_bin_compress=1", "SET GLOBAL log_bin_compress_min_len=10"]).await;
    every_type_survives(&server, "utf8mb4").await;
    server.run("", &["SET GLOBAL binlog_checksum='NONE'"]).await;
    every_type_survives(&server, "utf8mb4").await;
}

#[tokio::test]
async fn every_type_on_mysql9() {
    let Some(server) = Server::start(Flavor::MySql9, &[]).await else { return };
    for charset in ["utf8mb4", "latin1"] {
        every_type_survives(&server, charset).await;
    }
    server.run("", &["SET GLOBAL binlog_row_metadata='FULL'"]).await;
    every_type_survives(&server, "utf8mb4").await;
    server.run("", &["SET GLOBAL binlog_transaction_compression=ON"]).await;
    every_type_survives(&server, "utf8mb4").await;
    server.run("", &["SET GLOBAL binlog_checksum='NONE'"]).await;
    every_type_survives(&server, "utf8mb4").await;
}

#[tokio::test]
async fn only_own_tables_and_positions_go_on() {
    for flavor in FLAVORS {
        let Some(server) = Server::start(flavor, &[]).await else { continue };
        server
            .run(
                "",
                &["CREATE DATABASE src", "CREATE DATABASE other", "CREATE TABLE src.a (id INT PRIMARY KEY, v INT)"],
            )
            .await;
        server.run("src", &["CREATE TABLE b (id INT PRIMARY KEY)", "CREATE TABLE other.a (id INT PRIMARY KEY)"]).await;
        let start = server.position().await;
        let mut stream = server.stream("src", &start, tables(&["a"]), StreamOptions::default());
        server
            .run(
                "src",
                &[
                    "INSERT INTO b VALUES (1)",
                    "INSERT INTO other.a VALUES (1)",
                    "BEGIN",
                    "INSERT INTO b VALUES (2)",
                    "INSERT INTO a VALUES (1, NULL)",
                    "UPDATE a SET v = 1",
                    "INSERT INTO other.a VALUES (2)",
                    "COMMIT",
                    "BEGIN",
                    "INSERT INTO a VALUES (3, 3)",
                    "ROLLBACK",
                    "DELETE FROM a",
                    "CREATE TABLE c (a INT)",
                    "FLUSH LOGS",
                    "INSERT INTO b VALUES (4)",
                ],
            )
            .await;
        let end = server.position().await;
        let messages = stream.until(&end).await;
        let expected = [
            "INSERT INTO `a` SET `id`=1, `v`=NULL",
            "UPDATE `a` SET `id`=1, `v`=1 WHERE `id`=1",
            "DELETE FROM `a` WHERE `id`=1",
        ];
        assert_eq!(statements(&messages), expected, "{flavor:?}");
        let last = messages.last().and_then(|message| message.event_token.clone()).expect("a token");
        assert_eq!(last.position, end.to_string());
        assert!(last.timestamp > 0);
        // Where nothing of ours is changed is told before what follows it: a reader may be asked to stop there.
        let tokens: Vec<_> = messages.iter().filter_map(|message| message.event_token.as_ref()).collect();
        let before_rows = messages.iter().position(|message| !message.statements.is_empty()).expect("rows");
        assert!(before_rows > 0, "{flavor:?}: {messages:?}");
        assert_ne!(tokens[before_rows - 1].position, start.to_string());
        // From the middle: nothing comes twice.
        let middle: Position = messages
            .iter()
            .find(|message| !message.statements.is_empty())
            .and_then(|message| message.event_token.as_ref())
            .expect("a token")
            .position
            .parse()
            .expect("a position");
        let mut again = server.stream("src", &middle, tables(&["a"]), StreamOptions::default());
        assert_eq!(statements(&again.until(&end).await), expected[2..], "{flavor:?}");
    }
}

#[tokio::test]
async fn ddl_on_a_streamed_table() {
    for flavor in FLAVORS {
        let Some(server) = Server::start(flavor, &[]).await else { continue };
        server.run("", &["CREATE DATABASE src", "CREATE TABLE src.a (id INT PRIMARY KEY, v INT)"]).await;
        let start = server.position().await;
        server
            .run(
                "src",
                &[
                    "INSERT INTO a VALUES (1, 1)",
                    "CREATE TABLE b (id INT)",
                    "ALTER TABLE src.a ADD COLUMN w VARCHAR(10) FIRST",
                ],
            )
            .await;
        let end = server.position().await;
        // The binlog has rows that do not fit the table any more.
        let mut stream = server.stream("src", &start, tables(&["a"]), StreamOptions::default());
        let error = stream.error().await;
        assert!(error.contains("do not fit its columns now"), "{error}");
        // As it goes on, a reader that keeps up sees the statement.
        let mut stream = server.stream("src", &end, tables(&["a"]), StreamOptions::default());
        server.run("src", &["INSERT INTO a VALUES ('x', 2, 2)"]).await;
        let middle = server.position().await;
        assert_eq!(statements(&stream.until(&middle).await), ["INSERT INTO `a` SET `w`='x', `id`=2, `v`=2"]);
        server.run("src", &["ALTER TABLE src.a DROP COLUMN w", "INSERT INTO a VALUES (3, 3)"]).await;
        let after = server.position().await;
        let error = stream.error().await;
        assert!(error.contains("DDL on a streamed table: ALTER TABLE src.a DROP COLUMN w;"), "{error}");
        assert!(error.starts_with(&format!("stream error @ {middle}: ")), "{error}");
        for (on_ddl, expected) in [
            (OnDdl::Ignore, &["INSERT INTO `a` SET `id`=3, `v`=3"][..]),
            (OnDdl::Exec, &["ALTER TABLE a DROP COLUMN w", "INSERT INTO `a` SET `id`=3, `v`=3"]),
        ] {
            let options = StreamOptions { on_ddl, ..StreamOptions::default() };
            let mut stream = server.stream("src", &middle, tables(&["a"]), options);
            let messages = stream.until(&after).await;
            assert_eq!(statements(&messages), expected);
            if on_ddl == OnDdl::Exec {
                let ddl = messages.iter().flat_map(|message| &message.statements);
                assert!(ddl.clone().any(|statement| statement.category() == Category::BlDdl));
            }
        }
    }
}

fn vschema(kind: &str) -> vtproto::vschema::SrvVSchema {
    let keyspace = vschema::parse_keyspace(&format!(
        r#"{{"sharded": true, "vindexes": {{"v": {{"type": "{kind}"}}}},
            "tables": {{"a": {{"column_vindexes": [{{"column": "k", "name": "v"}}]}}, "r": {{"type": "reference"}}}}}}"#
    ))
    .expect("a vschema");
    vtproto::vschema::SrvVSchema { keyspaces: [("ks".to_owned(), keyspace)].into(), ..Default::default() }
}

/// A row whose sharding key changes leaves one range and enters the other.
#[tokio::test]
async fn rows_go_where_their_key_says() {
    for flavor in FLAVORS {
        let Some(server) = Server::start(flavor, &[]).await else { continue };
        server
            .run(
                "",
                &[
                    "CREATE DATABASE src",
                    "CREATE TABLE src.a (id INT PRIMARY KEY, k BIGINT UNSIGNED)",
                    "CREATE TABLE src.r (id INT PRIMARY KEY)",
                    "CREATE TABLE src.x (id INT PRIMARY KEY)",
                ],
            )
            .await;
        let start = server.position().await;
        server
            .run(
                "src",
                &[
                    "INSERT INTO a VALUES (1, 1), (2, 9223372036854775808)",
                    "INSERT INTO r VALUES (1)",
                    "UPDATE a SET k = k + 1",
                    "UPDATE a SET k = 9223372036854775809 WHERE id = 1",
                    "UPDATE a SET k = 3 WHERE id = 2",
                    "DELETE FROM a",
                ],
            )
            .await;
        let end = server.position().await;
        let built = std::sync::Arc::new(vschema::VSchema::build(&vschema("numeric")));
        let from_shard = |own: &str, wanted: &str| {
            let range = |text: &str| -> keyrange::KeyRange { text.parse().expect("a range") };
            let sharding = Sharding::Vindexes { vschema: built.clone(), keyspace: "ks".into() };
            Filter::KeyRange { wanted: range(wanted), own: range(own), sharding }
        };
        let range = |wanted: &str| from_shard("-", wanted);
        let low = [
            "INSERT INTO `a` SET `id`=1, `k`=1",
            "INSERT INTO `r` SET `id`=1",
            "UPDATE `a` SET `id`=1, `k`=2 WHERE `id`=1",
            "DELETE FROM `a` WHERE `id`=1",
            "INSERT INTO `a` SET `id`=2, `k`=3",
            "DELETE FROM `a` WHERE `id`=2",
        ];
        let high = [
            "INSERT INTO `a` SET `id`=2, `k`=9223372036854775808",
            "INSERT INTO `r` SET `id`=1",
            "UPDATE `a` SET `id`=2, `k`=9223372036854775809 WHERE `id`=2",
            "INSERT INTO `a` SET `id`=1, `k`=9223372036854775809",
            "DELETE FROM `a` WHERE `id`=2",
            "DELETE FROM `a` WHERE `id`=1",
        ];
        for (text, expected) in [("-80", low), ("80-", high)] {
            let mut stream = server.stream("src", &start, range(text), StreamOptions::default());
            assert_eq!(statements(&stream.until(&end).await), expected, "{flavor:?} {text}");
        }
        // Of several shards that one feeds on, one brings the rows that all have.
        for (own, brings) in [("-80", true), ("80-", false)] {
            let mut stream = server.stream("src", &start, from_shard(own, "-"), StreamOptions::default());
            let statements = statements(&stream.until(&end).await);
            assert_eq!(statements.iter().any(|sql| sql.contains("`r`")), brings, "{flavor:?} {own}: {statements:?}");
            assert!(statements.iter().any(|sql| sql.contains("`a`")), "{flavor:?} {own}: {statements:?}");
        }
        // A table that nothing is known of cannot be left out.
        server.run("src", &["INSERT INTO x VALUES (1)"]).await;
        let error = server.stream("src", &end, range("-80"), StreamOptions::default()).error().await;
        assert!(error.contains("no vschema definition for table x"), "{error}");
        // Nor a row that belongs nowhere.
        let end = server.position().await;
        server.run("src", &["INSERT INTO a VALUES (7, NULL)"]).await;
        let error = server.stream("src", &end, range("-80"), StreamOptions::default()).error().await;
        let told = "table a, row WHERE `id`=7: sharding column k: vindex v has no keyspace id for NULL";
        assert!(error.contains(told), "{error}");
    }
}

/// A transaction beyond any message comes in parts to a reader that takes parts, and is refused to others.
#[tokio::test]
async fn large_transactions_come_in_parts() {
    for (flavor, options) in
        [(Flavor::MariaDb, &[][..]), (Flavor::MySql9, &[]), (Flavor::MySql9, &["--binlog-transaction-compression=ON"])]
    {
        let Some(server) = Server::start(flavor, options).await else { continue };
        for database in ["src", "dst"] {
            server.run("", &[&format!("CREATE DATABASE {database}")]).await;
            server.run(database, &["CREATE TABLE a (id INT PRIMARY KEY, v LONGTEXT)"]).await;
        }
        let start = server.position().await;
        server
            .run(
                "src",
                &[
                    "BEGIN",
                    "INSERT INTO a VALUES (0, REPEAT('x', 20 << 20))",
                    "INSERT INTO a WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
                     SELECT i, REPEAT('y', 3000) FROM n",
                    "COMMIT",
                ],
            )
            .await;
        let end = server.position().await;
        let parts = StreamOptions { parts: true, ..StreamOptions::default() };
        let messages = server.stream("src", &start, tables(&["a"]), parts).until(&end).await;
        assert!(messages.len() > 5, "{} messages", messages.len());
        let (last, before) = messages.split_last().expect("messages");
        assert!(last.event_token.is_some() && before.iter().all(|message| message.event_token.is_none()));
        let mut target = server.connect("dst").await;
        apply(&mut target, &messages).await;
        expect_same(&mut target, "src", "dst", "a", "id").await;
        let mut streamer = server.streamer("src");
        streamer.max_message = 16 << 20;
        let request = StreamRequest {
            start,
            filter: tables(&["a"]),
            options: StreamOptions::default(),
            charset: None,
            row_tables: vec![],
        };
        let error = Stream::start(streamer, request).error().await;
        assert!(error.contains("is larger than a message may be"), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let Some(server) = Server::start(Flavor::MariaDb, &[]).await else { return };
    server.run("", &["CREATE DATABASE src", "CREATE TABLE src.a (id INT PRIMARY KEY, v INT)"]).await;
    let mut start = server.position().await;
    for (statements, expected) in [
        (&["SET binlog_format='STATEMENT'", "INSERT INTO a VALUES (1, 1)"][..], "set binlog_format=ROW"),
        (&["SET binlog_row_image='MINIMAL'", "UPDATE a SET v = 2"], "ensure binlog_row_image is set to 'full'"),
        (
            &["XA START 'x'", "INSERT INTO a VALUES (2, 2)", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'"],
            "XA transaction changes streamed rows",
        ),
    ] {
        server.run("src", statements).await;
        let error = server.stream("src", &start, tables(&["a"]), StreamOptions::default()).error().await;
        assert!(error.contains(expected), "{error}");
        start = server.position().await;
    }
    let unknown: Position = "MariaDB/0-1-99999".parse().expect("a position");
    let error = server.stream("src", &unknown, tables(&["a"]), StreamOptions::default()).error().await;
    assert!(error.contains("errno 1236"), "{error}");
}

/// Columns of one type that change their names: nothing in the rows shows it, the names are still never wrong.
#[tokio::test]
async fn columns_renamed_behind_a_reader() {
    for flavor in FLAVORS {
        let Some(server) = Server::start(flavor, &[]).await else { continue };
        server.run("", &["CREATE DATABASE src", "CREATE TABLE src.a (id INT PRIMARY KEY, v INT, w INT)"]).await;
        let start = server.position().await;
        let rename = "ALTER TABLE a RENAME COLUMN v TO w, RENAME COLUMN w TO v";
        server.run("src", &["INSERT INTO a VALUES (1, 2, 3)"]).await;
        let before = server.position().await;
        server.run("src", &[rename, "INSERT INTO a VALUES (2, 2, 3)"]).await;
        let end = server.position().await;
        let pass = StreamOptions { on_ddl: OnDdl::Ignore, ..StreamOptions::default() };
        let error = server.stream("src", &start, tables(&["a"]), pass).error().await;
        assert!(error.contains(&format!("their columns are not known any more: {rename};")), "{error}");
        let mut stream = server.stream("src", &before, tables(&["a"]), pass);
        assert_eq!(statements(&stream.until(&end).await), ["INSERT INTO `a` SET `id`=2, `w`=2, `v`=3"]);
        // Seen as it happens, the names follow.
        let mut stream = server.stream("src", &end, tables(&["a"]), pass);
        server.run("src", &["INSERT INTO a VALUES (3, 2, 3)"]).await;
        let third = server.position().await;
        assert_eq!(statements(&stream.until(&third).await), ["INSERT INTO `a` SET `id`=3, `w`=2, `v`=3"]);
        server.run("src", &[rename, "INSERT INTO a VALUES (4, 2, 3)"]).await;
        let last = server.position().await;
        assert_eq!(statements(&stream.until(&last).await), ["INSERT INTO `a` SET `id`=4, `v`=2, `w`=3"]);
    }
}

#[tokio::test]
async fn transactions_with_tags() {
    let Some(server) = Server::start(Flavor::MySql9, &[]).await else { return };
    server.run("", &["CREATE DATABASE src", "CREATE TABLE src.a (id INT PRIMARY KEY)"]).await;
    let start = server.position().await;
    server
        .run(
            "src",
            &[
                "SET gtid_next='AUTOMATIC:backup_1'",
                "INSERT INTO a VALUES (1)",
                "INSERT INTO a VALUES (2)",
                "SET gtid_next='AUTOMATIC'",
                "INSERT INTO a VALUES (3)",
            ],
        )
        .await;
    let end = server.position().await;
    assert!(end.to_string().contains(":backup_1:1-2"), "{end}");
    let messages = server.stream("src", &start, tables(&["a"]), StreamOptions::default()).until(&end).await;
    let expected = ["INSERT INTO `a` SET `id`=1", "INSERT INTO `a` SET `id`=2", "INSERT INTO `a` SET `id`=3"];
    assert_eq!(statements(&messages), expected);
    let reached = |index: usize| -> Position {
        let token = messages[index].event_token.as_ref().expect("a token");
        token.position.parse().expect("a position")
    };
    assert_eq!(reached(messages.len() - 1), end);
    // A position with a tag can be started from.
    let mut again = server.stream("src", &reached(1), tables(&["a"]), StreamOptions::default());
    assert_eq!(statements(&again.until(&end).await), expected[2..]);
}

/// Rows of tables that the reader names come in parts, if the reader knows their key; the others as text.
#[tokio::test]
async fn rows_come_as_rows_where_the_reader_takes_them() {
    let Some(server) = Server::start(Flavor::MariaDb, &[]).await else { return };
    let definitions = [
        "CREATE DATABASE src",
        "CREATE TABLE src.a (id INT PRIMARY KEY, gen INT AS (id + 1) STORED, v VARCHAR(20))",
        "CREATE TABLE src.b (x INT, y CHAR(5), PRIMARY KEY (x, y))",
        "CREATE TABLE src.c (id INT PRIMARY KEY)",
        "CREATE TABLE src.d (id INT)",
    ];
    server.run("", &definitions).await;
    let start = server.position().await;
    let changes = [
        "INSERT INTO a (id, v) VALUES (1, 'it''s'), (2, NULL)",
        "UPDATE a SET v = 'new' WHERE id = 1",
        "UPDATE a SET id = 3 WHERE id = 2",
        "DELETE FROM a",
        "INSERT INTO b VALUES (1, 'k')",
        "DELETE FROM b",
        "INSERT INTO c VALUES (1)",
        "INSERT INTO d VALUES (1)",
        // The binlog calls the table something else from here on.
        "FLUSH LOCAL TABLES",
        "INSERT INTO a (id) VALUES (9)",
    ];
    server.run("src", &changes).await;
    let end = server.position().await;
    let named = |name: &str, key: &[&str]| RowTable {
        name: name.into(),
        key: key.iter().map(|column| (*column).to_owned()).collect(),
    };
    let request = StreamRequest {
        start,
        filter: tables(&["a", "b", "c", "d"]),
        options: StreamOptions::default(),
        charset: None,
        // The key of c is another one here, d has none.
        row_tables: vec![named("a", &["ID"]), named("b", &["y", "x"]), named("c", &["other"]), named("d", &["id"])],
    };
    let mut stream = Stream::start(server.streamer("src"), request);
    let mut shown = Vec::new();
    for statement in stream.until(&end).await.into_iter().flat_map(|message| message.statements) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some(table) = statement.table {
            shown.push(format!("{} {} {:?} {:?}", table.number, table.name, table.columns, table.key));
        } else if let Some(row) = statement.row {
            let values = row.values.as_deref().map_or("-".into(), text);
            shown.push(format!("{}: [{}] [{}] {values}", row.table, text(&row.before), text(&row.after)));
        } else if statement.category() != Category::BlSet {
            shown.push(text(&statement.sql));
        }
    }
    let expected = [
        r#"0 a ["id", "v"] ["id"]"#,
        r"0: [] [1] 1,'it\'s'",
        "0: [] [2] 2,NULL",
        "0: [1] [] 1,'new'",
        "0: [2] [3] 3,NULL",
        "0: [1] [] -",
        "0: [3] [] -",
        r#"1 b ["x", "y"] ["x", "y"]"#,
        "1: [] [`x`=1 AND `y`='k'] 1,'k'",
        "1: [`x`=1 AND `y`='k'] [] -",
        "INSERT INTO `c` SET `id`=1",
        "INSERT INTO `d` SET `id`=1",
        "0: [] [9] 9,NULL",
    ];
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn the_service_has_a_switch_and_numbers() {
    let Some(server) = Server::start(Flavor::MariaDb, &[]).await else { return };
    server.run("", &["CREATE DATABASE src", "CREATE TABLE src.a (id INT PRIMARY KEY, k BIGINT UNSIGNED)"]).await;
    let topo = topo::TopoServer::memory(&["zone1"]);
    topo.create_keyspace("ks", &Default::default()).await.expect("a keyspace");
    topo.update_srv_vschema("zone1", &vschema("numeric")).await.expect("a vschema");
    let registry = servenv::Registry::new("vttablet");
    let config = SourceConfig {
        params: server.params(""),
        database: "src".into(),
        cell: "zone1".into(),
        keyspace: "ks".into(),
        key_range: keyrange::KeyRange::full(),
        max_message: 1 << 20,
        by_vschema: true,
    };
    let service = UpdateStreamService::new(config, topo, &registry);
    let number = |name: &str| registry.get(name).expect("a variable");
    let position = server.position().await.to_string();
    let by_table = || {
        let request = StreamTablesRequest {
            position: position.clone(),
            tables: vec!["a".into()],
            charset: None,
            row_tables: vec![],
        };
        service.stream_tables(tonic::Request::new(request))
    };
    let Err(refused) = by_table().await else { panic!("not refused") };
    assert_eq!(refused.message(), "update stream service is not enabled");
    assert_eq!(number("UpdateStreamState"), "Disabled");
    service.set_enabled(true);
    assert_eq!(number("UpdateStreamState"), "Enabled");
    server.run("src", &["INSERT INTO a VALUES (1, 1), (2, 9223372036854775808)"]).await;
    let mut whole = by_table().await.expect("a stream").into_inner();
    let message = whole.next().await.expect("a message").expect("no error");
    let rows = message.binlog_transaction.expect("a transaction");
    assert_eq!(statements(&[rows]).len(), 2);
    let key_range = Some(vtproto::topodata::KeyRange { start: vec![0x80], end: vec![] });
    let request = StreamKeyRangeRequest { position: position.clone(), key_range, charset: None, row_tables: vec![] };
    let mut range = service.stream_key_range(tonic::Request::new(request)).await.expect("a stream").into_inner();
    let message = range.next().await.expect("a message").expect("no error");
    let rows = message.binlog_transaction.expect("a transaction");
    assert_eq!(statements(&[rows]), ["INSERT INTO `a` SET `id`=2, `k`=9223372036854775808"]);
    assert_eq!(number("UpdateStreamStreamCount"), 2);
    for (name, expected) in [("UpdateStreamTablesStatements", 2), ("UpdateStreamKeyRangeTransactions", 1)] {
        while number(name) != expected {
            tokio::task::yield_now().await;
        }
    }
    // A tablet that stops serving ends its streams.
    service.set_enabled(false);
    let ended = loop {
        match whole.next().await.expect("an error") {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(ended.message(), "update stream service is not enabled");
    drop(range);
    while number("UpdateStreamStreamCount") != 0 {
        tokio::task::yield_now().await;
    }
}
