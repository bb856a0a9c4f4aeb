//! What a user sees when things break: clients that misbehave, servers that die.

mod raw;

use anyhow::{Result, ensure};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use raw::Raw;
use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};
use testcluster::{Background, Cluster, Flavor, Spec, anonymous_kib, wait_for};

const MIB: u64 = 1024;

fn select_works(cluster: &Cluster) -> Result<()> {
    let answer =
        cluster.mysql(&["commerce", "--batch", "--skip-table"], "select count(*) as n from product")?.success()?;
    ensure!(answer.stdout == "n\n0\n", "{}", answer.stdout);
    Ok(())
}

/// Malformed packets, wrong handshakes and silence end their own connection and nothing else.
#[test]
fn malformed_clients() -> Result<()> {
    let cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    let port = cluster.vtgate_mysql_port;

    let mut garbage = TcpStream::connect(("127.0.0.1", port))?;
    garbage.write_all(&[0xff; 4096])?;
    // A handshake that ends in the middle of a field.
    let mut short = Raw::greeted(port)?;
    short.write_packet(1, &[0x8d, 0xa6])?;
    ensure!(short.is_closed_by_server(), "a truncated handshake is answered by the end of the connection");
    // A wrong sequence number, a command that does not exist, a truncated prepared execution.
    let mut unknown = Raw::connected(port, "commerce")?;
    unknown.write_packet(0, &[0xfe])?;
    let answer = unknown.read_packet()?;
    ensure!(answer.first() == Some(&0xff), "an unknown command is an error: {answer:?}");
    unknown.write_packet(0, &[0x17, 1])?;
    let answer = unknown.read_packet()?;
    ensure!(answer.first() == Some(&0xff), "a truncated execute is an error: {answer:?}");
    let mut sequence = Raw::connected(port, "commerce")?;
    sequence.write_packet(77, b"\x03select 1")?;
    // Either an answer or the end, but no hang and no crash.
    let _ = sequence.read_packet();
    // An announced packet that never comes.
    let mut partial = Raw::connected(port, "commerce")?;
    partial.0.write_all(&[0xff, 0xff, 0xff, 0, 3, b's'])?;
    drop(partial);

    select_works(&cluster)
}

/// Only the right password opens the door, with either authentication plugin, and the error is MySQL's.
#[test]
fn wrong_password() -> Result<()> {
    let users = r#"{"app": [{"Password": "secret", "UserData": "app"}]}"#;
    let spec = Spec::single(Flavor::MariaDb)
        .vtgate_flag("-mysql_auth_server_impl=static")
        .vtgate_flag("-mysql_auth_server_static_string")
        .vtgate_flag(users);
    let cluster = Cluster::start(spec)?;
    let right = cluster.mysql(&["-u", "app", "-psecret", "commerce"], "select 1")?;
    ensure!(right.code == Some(0), "{right:?}");
    for args in [&["-u", "app", "-pwrong"][..], &["-u", "app"], &["-u", "other", "-psecret"]] {
        let wrong = cluster.mysql(args, "select 1")?;
        ensure!(wrong.code == Some(1), "{wrong:?}");
        ensure!(wrong.stderr.contains("ERROR 1045 (28000)") && wrong.stderr.contains("Access denied"), "{wrong:?}");
    }
    Ok(())
}

/// A statement of a gigabyte is refused before it is held in memory.
#[test]
fn gigabyte_statement() -> Result<()> {
    let cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    let mut client = Raw::connected(cluster.vtgate_mysql_port, "commerce")?;
    let mut chunk = vec![b' '; 0xff_ffff];
    chunk[0] = 3;
    let mut peak = 0;
    for number in 0..64u8 {
        if client.write_packet(number, &chunk).is_err() {
            break; // the server has closed the connection
        }
        chunk[0] = b' ';
        peak = peak.max(anonymous_kib(cluster.vtgate().pid())?);
    }
    ensure!(peak < 200 * MIB, "vtgate grew to {peak} KiB");
    ensure!(client.is_closed_by_server(), "the connection goes on");
    select_works(&cluster)
}

/// Ten thousand connections that do nothing cost at most 12 KiB each, and others are served.
#[test]
fn ten_thousand_idle_connections() -> Result<()> {
    const COUNT: u64 = 10_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < 2 * COUNT {
        eprintln!("SKIPPED: at most {hard} open files here");
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    select_works(&cluster)?;
    let before = anonymous_kib(cluster.vtgate().pid())?;
    let mut idle = Vec::new();
    for _ in 0..COUNT {
        idle.push(Raw::connected(cluster.vtgate_mysql_port, "commerce")?);
    }
    let each = (anonymous_kib(cluster.vtgate().pid())? - before) as f64 / COUNT as f64;
    println!("{each:.1} KiB for each idle connection");
    ensure!(each <= 12.0, "{each:.1} KiB for each idle connection");
    select_works(&cluster)?;
    // One in the middle is still alive.
    idle[5_000].write_packet(0, &[0x0e])?;
    ensure!(idle[5_000].read_packet()?.first() == Some(&0));
    Ok(())
}

/// A client that asks for much and stops reading stops its own statement and nobody else; its result
/// is not piled up in memory.
#[test]
fn client_that_stops_reading() -> Result<()> {
    let spec = Spec::single(Flavor::MariaDb).vttablet_flag("-queryserver-config-query-timeout=300");
    let cluster = Cluster::start(spec)?;
    let fill = "create table wide(id bigint primary key auto_increment, body longblob); \
                insert into wide(body) values (repeat('x', 1000000)); \
                insert into wide(body) select body from wide; insert into wide(body) select body from wide; \
                insert into wide(body) select body from wide; insert into wide(body) select body from wide; \
                insert into wide(body) select body from wide; insert into wide(body) select body from wide; \
                insert into wide(body) select body from wide; insert into wide(body) select body from wide";
    cluster.mysql(&["commerce"], fill)?.success()?;
    let vttablet = cluster.tablets[0].vttablet.as_ref().expect("it runs").pid();
    let mut deaf = Raw::connected(cluster.vtgate_mysql_port, "commerce")?;
    deaf.send_query("set workload='olap'")?;
    deaf.read_packet()?;
    deaf.send_query("select * from wide")?;
    deaf.read_packet()?;
    // 256 MB are on their way; what does not fit into socket buffers and windows stays in mysqld.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        for pid in [cluster.vtgate().pid(), vttablet] {
            let held = anonymous_kib(pid)?;
            ensure!(held < 120 * MIB, "process {pid} grew to {held} KiB");
        }
        select_works(&cluster)?;
    }
    drop(deaf);
    // The statement ends with its client: mysqld no longer runs it.
    wait_for("the statement to end", Duration::from_secs(20), || {
        cluster
            .mysql_on_tablet(
                0,
                "select count(*) from information_schema.processlist where info like 'select * from wide%'",
            )
            .is_ok_and(|seen| seen.stdout.trim() == "0")
    })
}

/// mysqld dies: the tablet says so and errors come at once; when it is back, so is the service.
#[test]
fn mysqld_killed() -> Result<()> {
    let cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    select_works(&cluster)?;
    cluster.kill_mysqld(0)?;
    cluster.wait_for_tablet_state(0, "NOT_SERVING")?;
    let start = Instant::now();
    let refused = cluster.mysql(&["commerce"], "select 1 from product")?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("commerce.0.master"), "{refused:?}");
    ensure!(start.elapsed() < Duration::from_secs(15), "the error took {:?}", start.elapsed());
    cluster.start_mysqld(0)?;
    cluster.wait_for_tablet_state(0, "SERVING")?;
    wait_for("queries to work again", Duration::from_secs(20), || select_works(&cluster).is_ok())
}

/// etcd dies: queries go on, changes of the topology fail with a clear error, and work when it is back.
#[test]
fn etcd_killed() -> Result<()> {
    let mut cluster = Cluster::start(Spec::single(Flavor::MariaDb).vtctld_flag("-remote_operation_timeout=5s"))?;
    cluster.kill_etcd();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        select_works(&cluster)?;
    }
    let refused = cluster.vtctlclient(&["CreateKeyspace", "other"])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("deadline exceeded"), "{refused:?}");
    select_works(&cluster)?;
    cluster.start_etcd()?;
    wait_for("the topology to be writable", Duration::from_secs(30), || {
        cluster.vtctlclient(&["CreateKeyspace", "other"]).is_ok_and(|done| done.code == Some(0))
    })?;
    ensure!(cluster.vtctlclient(&["GetKeyspaces"])?.success()?.stdout.contains("other"));
    select_works(&cluster)
}

/// vttablet dies: a clear error without waiting; when it is back, it is master again and serves.
#[test]
fn vttablet_killed() -> Result<()> {
    let mut cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    cluster.kill_vttablet(0);
    let start = Instant::now();
    let refused = cluster.mysql(&["commerce"], "select 1 from product")?;
    ensure!(refused.code == Some(1), "{refused:?}");
    ensure!(start.elapsed() < Duration::from_secs(20), "the error took {:?}", start.elapsed());
    cluster.start_vttablet(0)?;
    cluster.wait_for_tablet_state(0, "SERVING")?;
    wait_for("queries to work again", Duration::from_secs(30), || select_works(&cluster).is_ok())
}

/// A second vttablet of the same alias ends with the reason, and takes nothing from the first.
#[test]
fn second_vttablet() -> Result<()> {
    let cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    let record = || Ok::<_, anyhow::Error>(cluster.vtctlclient(&["GetTablet", "zone1-100"])?.success()?.stdout);
    let before = record()?;
    let (http, grpc) = (testcluster::free_port(), testcluster::free_port());
    let second = Background::start("a second vttablet", cluster.vttablet_command(0, http, grpc))?.finish()?;
    let told =
        format!("another vttablet of zone1-0000000100 serves at 127.0.0.1:{}: stop it", cluster.tablets[0].grpc_port);
    ensure!(second.code == Some(1) && second.stderr.contains(&told), "{second:?}");
    ensure!(record()? == before, "the record was changed: {}", record()?);
    select_works(&cluster)
}

/// A tablet that stops lets open transactions end, and is gone as soon as they have.
#[test]
fn transaction_at_a_tablet_that_stops() -> Result<()> {
    let mut cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    let mut client = Raw::connected(cluster.vtgate_mysql_port, "commerce")?;
    for sql in ["begin", "insert into product(sku, description, price) values ('kept', 'x', 1)"] {
        client.send_query(sql)?;
        let answer = client.read_packet()?;
        ensure!(answer.first() == Some(&0), "{sql}: {}", String::from_utf8_lossy(&answer));
    }
    cluster.tablets[0].vttablet.as_ref().expect("it runs").signal(Signal::SIGTERM)?;
    wait_for("vtgate to hear of it", Duration::from_secs(5), || select_works(&cluster).is_err())?;
    client.send_query("commit")?;
    let answer = client.read_packet()?;
    ensure!(answer.first() == Some(&0), "commit: {}", String::from_utf8_lossy(&answer));
    let ended = Instant::now();
    let vttablet = cluster.tablets[0].vttablet.as_mut().expect("it runs");
    wait_for("vttablet to end", Duration::from_secs(30), || !vttablet.is_running())?;
    // -onterm_timeout is 10 s.
    ensure!(ended.elapsed() < Duration::from_secs(5), "nothing was left to wait for, for {:?}", ended.elapsed());
    let kept = cluster.mysql_on_tablet(0, "select count(*) from vt_commerce.product where sku = 'kept'")?;
    ensure!(kept.stdout.trim() == "1", "{kept:?}");
    Ok(())
}

/// A vtgate that stops does not leave transactions behind whose clients do not end them, and their locks.
#[test]
fn transaction_at_a_vtgate_that_stops() -> Result<()> {
    let mut cluster = Cluster::start(Spec::single(Flavor::MariaDb).vtgate_flag("-onterm_timeout=2s"))?;
    cluster.mysql(&["commerce"], "insert into product(sku, description, price) values ('held', 'x', 1)")?.success()?;
    let mut client = Raw::connected(cluster.vtgate_mysql_port, "commerce")?;
    for sql in ["begin", "update product set price = 2 where sku = 'held'"] {
        client.send_query(sql)?;
        let answer = client.read_packet()?;
        ensure!(answer.first() == Some(&0), "{sql}: {}", String::from_utf8_lossy(&answer));
    }
    let open = |cluster: &Cluster| -> Result<String> {
        Ok(cluster.mysql_on_tablet(0, "select count(*) from information_schema.innodb_trx")?.stdout.trim().to_owned())
    };
    ensure!(open(&cluster)? == "1");
    cluster.vtgate().signal(Signal::SIGTERM)?;
    let vtgate = cluster.vtgate_mut();
    wait_for("vtgate to end", Duration::from_secs(20), || !vtgate.is_running())?;
    ensure!(open(&cluster)? == "0", "its transaction is open");
    Ok(())
}

/// SIGTERM drains: the statement that runs ends well, the programs go with code 0.
#[test]
fn graceful_stop() -> Result<()> {
    let mut cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    let mut client = Raw::connected(cluster.vtgate_mysql_port, "commerce")?;
    client.send_query("select sleep(1)")?;
    wait_for("the statement to run", Duration::from_secs(10), || {
        cluster
            .mysql_on_tablet(0, "select count(*) from information_schema.processlist where info like 'select sleep%'")
            .is_ok_and(|seen| seen.stdout.trim() == "1")
    })?;
    cluster.vtgate().signal(Signal::SIGTERM)?;
    let first = client.read_packet()?;
    ensure!(first == [1], "a result with one column: {}", String::from_utf8_lossy(&first));
    let vttablet = cluster.tablets[0].vttablet.as_mut().expect("it runs");
    vttablet.signal(Signal::SIGTERM)?;
    wait_for("vttablet to end", Duration::from_secs(30), || !vttablet.is_running())?;
    ensure!(vttablet.exit_code() == Some(0));
    let record = cluster.vtctlclient(&["GetTablet", "zone1-100"])?.success()?.stdout;
    ensure!(record.contains("\"hostname\": \"\""), "a tablet that stopped clears its address:\n{record}");
    Ok(())
}

/// A file with an error is refused with the line and the reason, and nothing of it is applied; where something is, that
/// is said.
#[test]
fn broken_files() -> Result<()> {
    let cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    let refused =
        cluster.vtctlclient(&["ApplyVSchema", "-vschema", "{\n  \"tables\": {\n    \"a\": {,}\n  }\n}", "commerce"])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("line: 3, position"), "{refused:?}");
    let refused = cluster.vtctlclient(&["ApplyVSchema", "-vschema", "{\n  \"sharded\": \"maybe\"\n}", "commerce"])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("of type bool (line 2: sharded)"), "{refused:?}");
    let unknown = r#"{"sharded": true, "tables": {"a": {"column_vindexes": [{"column": "id", "name": "nope"}]}}}"#;
    let refused = cluster.vtctlclient(&["ApplyVSchema", "-vschema", unknown, "commerce"])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("vindex nope not found for table a"), "{refused:?}");
    for (text, want) in [
        (
            "{\n  \"vindexes\": {\n    \"h\": {\n      \"type\": \"nonexist\"\n    }\n  }\n}\n",
            "vindexType \"nonexist\" not found (line 4: vindexes.h.type)",
        ),
        (
            "{\n  \"tables\": {\n    \"corder\": {},\n    \"corder\": {}\n  }\n}\n",
            "duplicate key \"corder\", first given in line 3 (line 4: tables.corder)",
        ),
    ] {
        let file = cluster.dir().join("broken.json");
        std::fs::write(&file, text)?;
        let refused =
            cluster.vtctlclient(&["ApplyVSchema", "-vschema_file", &file.display().to_string(), "commerce"])?;
        ensure!(refused.code == Some(1) && refused.stderr.contains(want), "{refused:?}");
    }
    let kept = cluster.vtctlclient(&["GetVSchema", "commerce"])?.success()?.stdout;
    ensure!(kept.contains("corder") && !kept.contains("sharded"), "{kept}");
    let refused = cluster.vtctlclient(&[
        "ApplySchema",
        "-sql",
        "create table ok(id int); create tabel broken(id int)",
        "commerce",
    ])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("create tabel broken"), "{refused:?}");
    let file = cluster.dir().join("broken.sql");
    std::fs::write(&file, "create table ok(id int);\n\n-- what is wrong\ncreate tabel broken(\n  id int\n);\n")?;
    let path = file.display().to_string();
    let refused = cluster.vtctlclient(&["ApplySchema", "-sql-file", &path, "commerce"])?;
    ensure!(refused.stderr.contains(&format!("in {path}, line 4: create tabel broken(")), "{refused:?}");
    ensure!(refused.stderr.contains("You have an error in your SQL syntax"), "{refused:?}");
    let tables = cluster.mysql(&["commerce"], "show tables")?.success()?.stdout;
    ensure!(!tables.contains("ok"), "{tables}");
    // What only the rows can tell comes too late to keep what stands before it from being applied: that is said.
    cluster
        .mysql(&["commerce"], "insert into corder values (1, 1, 'SKU-1002', 1), (2, 1, 'SKU-1002', 1)")?
        .success()?;
    std::fs::write(
        &file,
        "create table hd (id int primary key);\nalter table corder add unique key uk(sku);\n\
         create table he (id int primary key);\n",
    )?;
    let refused = cluster.vtctlclient(&["ApplySchema", "-sql-file", &path, "commerce"])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("Duplicate entry 'SKU-1002'"), "{refused:?}");
    let told = format!(
        "\n}}\nin {path}, line 2: alter table corder add unique key uk(sku)\n\
         1 statement before it was applied and stays\n"
    );
    ensure!(refused.stderr.contains(&told), "{refused:?}");
    let tables = cluster.mysql(&["commerce"], "show tables like 'h_'")?.success()?.stdout;
    ensure!(tables.contains("hd") && !tables.contains("he"), "{tables}");
    // What is tried out before it is applied reaches nothing else than the scratch database.
    for sql in [
        "drop table vt_commerce.product",
        "delete from vt_commerce.product",
        "drop database vt_commerce",
        "alter table product add column extra int; drop table vt_commerce.product",
        "set global max_connections = 77; create table fine (id int)",
    ] {
        let refused = cluster.vtctlclient(&["ApplySchema", "-sql", sql, "commerce"])?;
        ensure!(refused.code == Some(1) && refused.stderr.contains("a schema"), "{sql}: {refused:?}");
    }
    let there = "select count(*), @@global.max_connections <> 77 from information_schema.columns \
                 where table_schema = 'vt_commerce' and table_name = 'product'";
    ensure!(
        cluster.mysql_on_tablet(0, there)?.stdout.trim() == "3\t1",
        "the change was not refused before it was made"
    );
    Ok(())
}
