//! A real tablet streams its changes over gRPC, as destination shards read them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testcluster::{Cluster, Flavor, Spec};
use vtproto::binlogdata::{StreamTablesRequest, binlog_transaction::statement::Category};
use vtproto::binlogservice::update_stream_client::UpdateStreamClient;

fn changes_of_a_tablet(flavor: Flavor) -> Result<()> {
    let maria = flavor == Flavor::MariaDb;
    let cluster = Cluster::start(Spec::single(flavor))?;
    let (name, set) =
        if maria { ("MariaDB", "@@GLOBAL.gtid_binlog_pos") } else { ("MySQL56", "@@GLOBAL.gtid_executed") };
    let position = cluster.mysql_on_tablet(0, &format!("SELECT {set}"))?.stdout.trim().replace("\\n", "");
    let sql = "INSERT INTO customer(customer_id, email) VALUES (7, 'é'); DELETE FROM customer WHERE customer_id = 7";
    cluster.mysql(&["commerce"], sql)?.success()?;
    let address = format!("http://127.0.0.1:{}", cluster.tablets[0].grpc_port);
    let request = StreamTablesRequest {
        position: format!("{name}/{position}"),
        tables: vec!["customer".into()],
        ..Default::default()
    };
    let read = async {
        let mut client = UpdateStreamClient::connect(address).await?;
        let mut stream = client.stream_tables(request).await?.into_inner();
        let mut rows = Vec::new();
        while rows.len() < 2 {
            let transaction =
                stream.message().await?.context("the stream ended")?.binlog_transaction.unwrap_or_default();
            ensure!(transaction.event_token.is_some_and(|token| token.position.starts_with(name)), "no position");
            let kept = transaction.statements.iter().filter(|statement| statement.category() != Category::BlSet);
            rows.extend(kept.map(|statement| String::from_utf8_lossy(&statement.sql).into_owned()));
        }
        Ok(rows)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows: Vec<String> = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), read).await })??;
    let insert = "INSERT INTO `customer` SET `customer_id`=7, `email`=_binary'é'";
    ensure!(rows == [insert, "DELETE FROM `customer` WHERE `customer_id`=7"], "{rows:?}");
    let port = cluster.tablets[0].http_port;
    ensure!(cluster.debug_var(port, "UpdateStreamState")? == "Enabled");
    ensure!(cluster.debug_var(port, "UpdateStreamTablesStatements")? == 2);
    Ok(())
}

#[test]
fn changes_on_mariadb() -> Result<()> {
    changes_of_a_tablet(Flavor::MariaDb)
}

#[test]
fn changes_on_mysql9() -> Result<()> {
    Flavor::mysql9().map_or(Ok(()), changes_of_a_tablet)
}
