//! What commands print and refuse, beyond the recorded stage.

mod common;

use std::sync::{Arc, Mutex};

use common::{Cluster, alias};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::TabletType;

#[tokio::test]
async fn help_lists_groups_in_order_and_hides_what_is_hidden() {
    let cluster = Cluster::empty();
    let help = cluster.ok(&["help"]).await;
    assert!(help.starts_with("Available commands:\n\nTablets:\n  InitTablet "), "{help}");
    let groups = ["Tablets", "Shards", "Keyspaces", "Generic", "Schema, Version, Permissions", "Serving Graph"];
    let places: Vec<usize> = groups.iter().map(|g| help.find(&format!("\n{g}:\n")).expect(g)).collect();
    assert!(places.is_sorted());
    assert!(!help.contains("Panic") && !help.contains("ShardReplicationAdd"));
    assert!(cluster.ok(&["Help", "gettablet"]).await.starts_with("Usage: GetTablet <tablet alias>\n\n"));

    let nothing = cluster.run(&[]).await;
    assert!(nothing.console.starts_with("No command specified. Please see the list below:\n\nTablets:\n"));
    assert_eq!(nothing.result.unwrap_err().to_string(), "no command was specified");
    let usage = cluster.run(&["Ping", "-h"]).await;
    assert!(usage.console.starts_with("Usage: Ping <tablet alias>\n\n"), "{}", usage.console);
    assert_eq!(usage.result.unwrap_err().to_string(), "flag: help requested");
}

#[tokio::test]
async fn a_panic_is_an_error_of_its_command() {
    let error = Cluster::empty().err(&["Panic"]).await;
    assert_eq!(error, "uncaught vtctl panic: this command panics on purpose");
}

#[tokio::test]
async fn every_command_checks_its_arguments_and_none_crashes() {
    let cluster = Cluster::with_master().await;
    for command in wrangler::groups().iter().flat_map(wrangler::Group::commands) {
        let outcome = cluster.run(&[command.name, "x", "x", "x", "x"]).await;
        if let Err(error) = outcome.result
            && command.name != "Panic"
        {
            assert!(!error.to_string().contains("panic"), "{}: {error}", command.name);
        }
    }
}

#[tokio::test]
async fn creating_a_keyspace_again_is_an_error_only_without_a_vschema() {
    let cluster = Cluster::empty();
    cluster.ok(&["CreateKeyspace", "ks"]).await;
    cluster.ok(&["CreateKeyspace", "ks"]).await;
    assert_eq!(
        cluster.err(&["CreateKeyspace", "-allow_empty_vschema", "ks"]).await,
        "node already exists: /vitess/global/keyspaces/ks/Keyspace"
    );
    cluster.ok(&["CreateKeyspace", "-force", "-allow_empty_vschema", "ks"]).await;
    cluster.ok(&["CreateKeyspace", "-served_from=master:ks,replica:ks,rdonly:ks", "customer"]).await;
    assert_eq!(cluster.ok(&["GetKeyspaces"]).await, "customer\nks\n");
    let served = cluster.topo.get_keyspace("customer").await.unwrap().record.served_froms;
    assert_eq!(served.len(), 3);
    assert!(cluster.topo.get_srv_vschema("zone1").await.unwrap().keyspaces.contains_key("customer"));
    assert_eq!(
        cluster.err(&["CreateKeyspace", "-keyspace_type=SNAPSHOT", "snap"]).await,
        "base_keyspace must be specified while creating a snapshot keyspace"
    );
    let args = [
        "CreateKeyspace",
        "-keyspace_type=SNAPSHOT",
        "-base_keyspace=ks",
        "-snapshot_time=2020-01-01T00:00:00Z",
        "snap",
    ];
    cluster.ok(&args).await;
    assert!(cluster.topo.get_vschema("snap").await.unwrap().require_explicit_routing);
}

#[tokio::test]
async fn shards_are_deleted_by_pattern_and_not_while_they_serve() {
    let cluster = Cluster::with_master().await;
    for shard in ["-80", "80-"] {
        cluster.ok(&["CreateShard", "-parent", &format!("other/{shard}")]).await;
    }
    cluster.ok(&["DeleteShard", "other/*"]).await;
    assert!(cluster.topo.get_shard_names("other").await.unwrap().is_empty());
    assert_eq!(
        cluster.err(&["DeleteShard", "-even_if_serving", "commerce/0"]).await,
        "shard commerce/0 still has 3 tablets in cell zone1; use -recursive or remove them manually"
    );
    cluster.ok(&["DeleteShard", "-recursive", "-even_if_serving", "commerce/0"]).await;
    assert_eq!(cluster.ok(&["ListAllTablets", "zone1"]).await, "");
    assert_eq!(cluster.ok(&["DeleteShard", "commerce/0"]).await, "", "a shard that is gone is skipped");
}

#[tokio::test]
async fn a_deleted_master_leaves_the_shard_without_one() {
    let cluster = Cluster::with_master().await;
    cluster.ok(&["DeleteTablet", "-allow_master", "zone1-100", "zone1-102"]).await;
    assert_eq!(cluster.master().await, "");
    let validated = cluster.run(&["Validate"]).await;
    assert_eq!(validated.errors, ["no master for shard commerce/0"]);
    assert_eq!(validated.result.unwrap_err().to_string(), "some validation errors - see log");
}

#[tokio::test]
async fn types_change_among_replicas_only() {
    let cluster = Cluster::with_master().await;
    assert_eq!(
        cluster.ok(&["ChangeSlaveType", "-dry-run", "zone1-101", "spare"]).await,
        "- zone1-0000000101 commerce 0 replica <host>:15101 <host>:17101 []\n+ zone1-0000000101 commerce 0 spare <host>:15101 <host>:17101 []\n"
    );
    assert!(cluster.tablets.take_calls().is_empty());
    cluster.ok(&["ChangeSlaveType", "zone1-101", "rdonly"]).await;
    assert_eq!(cluster.tablets.take_calls(), ["ChangeType zone1-0000000101 RDONLY"]);
    assert_eq!(
        cluster.err(&["ChangeSlaveType", "zone1-100", "replica"]).await,
        "tablet cell:\"zone1\" uid:100  type change MASTER -> REPLICA is not an allowed transition for ChangeSlaveType"
    );
}

#[tokio::test]
async fn tablet_controls_are_kept_per_type() {
    let cluster = Cluster::with_master().await;
    cluster.ok(&["SetShardTabletControl", "commerce/0", "rdonly"]).await;
    assert_eq!(
        cluster.err(&["SetShardTabletControl", "--blacklisted_tables=product", "commerce/0", "rdonly"]).await,
        "trying to use two different sets of blacklisted tables for shard commerce/0: [] and [product]"
    );
    let controls = cluster.topo.get_shard("commerce", "0").await.unwrap().record.tablet_controls;
    assert_eq!(controls.len(), 1);
    assert_eq!(controls[0].tablet_type(), TabletType::Rdonly);
    cluster.ok(&["SetShardTabletControl", "--remove", "commerce/0", "rdonly"]).await;
    assert!(cluster.topo.get_shard("commerce", "0").await.unwrap().record.tablet_controls.is_empty());
}

#[tokio::test]
async fn statements_run_on_every_shard_and_the_first_failure_ends_it() {
    let cluster = Cluster::with_master().await;
    cluster
        .tablets
        .results
        .lock()
        .unwrap()
        .insert("alter table b add c int".into(), Err(tabletclient::tm::TmError::new(vterrors::Code::Unknown, "no")));
    let sql = "create table a(id int);\nalter table b add c int;\ndrop table a";
    let error = cluster.err(&["ApplySchema", "-sql", sql, "commerce"]).await;
    let (text, document) = error.split_once("ExecuteResult: ").expect("a document");
    assert_eq!(text, "schema change failed, ");
    let document: serde_json::Value = serde_json::from_str(document.trim()).expect("JSON");
    assert_eq!(document["CurSQLIndex"], 1);
    assert_eq!(
        document["FailedShards"],
        serde_json::json!([{"Shard": "0", "Err": "rpc error: code = Unknown desc = no"}])
    );
    assert_eq!(document["SuccessShards"], serde_json::json!([]));
    assert_eq!(document["ExecutorErr"], "");
    let calls = cluster.tablets.take_calls();
    assert!(!calls.iter().any(|call| call.ends_with("drop table a")), "{calls:#?}");
    assert!(calls.iter().any(|call| call == "ReloadSchema zone1-0000000101 MariaDB/0-100-7"), "{calls:#?}");

    // Nothing runs when one statement does not parse, or when the scratch database refuses one.
    assert!(
        cluster
            .err(&["ApplySchema", "-sql", "create table c(id int); nonsense", "commerce"])
            .await
            .contains("nonsense")
    );
    let refused = tabletclient::tm::TmError::new(vterrors::Code::Unknown, "Table 'c' already exists");
    cluster.tablets.preflights.lock().unwrap().push_back(Err(refused));
    let error = cluster.err(&["ApplySchema", "-sql", "create table c(id int)", "commerce"]).await;
    assert!(error.contains("Table 'c' already exists"), "{error}");
    assert!(!cluster.tablets.take_calls().iter().any(|call| call.starts_with("ExecuteFetchAsDba")));
    assert_eq!(cluster.err(&["ApplySchema", "commerce"]).await, "action requires one of sql or sql-file");
}

#[tokio::test]
async fn statements_that_change_no_definition_run_too() {
    let cluster = Cluster::with_master().await;
    for sql in [
        "alter table a engine=innodb",
        "alter database d character set utf8mb4",
        "create table if not exists a(id int)",
    ] {
        let same = tmd::PreflightSchemaResponse { change_results: vec![tmd::SchemaChangeResult::default()] };
        cluster.tablets.preflights.lock().unwrap().push_back(Ok(same));
        cluster.ok(&["ApplySchema", "-sql", sql, "commerce"]).await;
        let calls = cluster.tablets.take_calls();
        assert!(calls.iter().any(|call| call.starts_with("ExecuteFetchAsDba") && call.ends_with(sql)), "{calls:#?}");
    }
}

#[tokio::test]
async fn large_tables_are_not_altered_by_accident() {
    let cluster = Cluster::with_master().await;
    let table = tmd::TableDefinition { name: "big".into(), row_count: 100_001, ..Default::default() };
    let schema = tmd::SchemaDefinition { table_definitions: vec![table], ..Default::default() };
    cluster.tablets.schemas.lock().unwrap().insert(100, schema);
    let error = cluster.err(&["ApplySchema", "-sql", "alter table big add c int", "commerce"]).await;
    assert!(error.starts_with("big schema change detected. Disable check with -allow_long_unavailability."), "{error}");
    cluster.ok(&["ApplySchema", "-allow_long_unavailability", "-sql", "alter table big add c int", "commerce"]).await;
}

#[tokio::test]
async fn schemas_are_compared_with_the_masters() {
    let cluster = Cluster::with_master().await;
    cluster.ok(&["ValidateSchemaKeyspace", "commerce"]).await;
    let table = tmd::TableDefinition { name: "extra".into(), ..Default::default() };
    let schema = tmd::SchemaDefinition { table_definitions: vec![table], ..Default::default() };
    cluster.tablets.schemas.lock().unwrap().insert(102, schema);
    assert_eq!(
        cluster.err(&["ValidateSchemaShard", "commerce/0"]).await,
        "schema diffs: zone1-0000000102 has an extra table named extra"
    );
}

#[tokio::test]
async fn a_vschema_that_cannot_be_used_is_not_kept() {
    let cluster = Cluster::with_master().await;
    let good = r#"{"tables": {"product": {}}}"#;
    let printed = cluster.ok(&["ApplyVSchema", "-vschema", good, "commerce"]).await;
    assert!(printed.starts_with("New VSchema object:\n{\n  \"tables\": {\n    \"product\": {\n"), "{printed}");
    let bad = r#"{"sharded": true, "tables": {"a": {"column_vindexes": [{"column": "id", "name": "nope"}]}}}"#;
    let error = cluster.err(&["ApplyVSchema", "-vschema", bad, "commerce"]).await;
    assert!(error.contains("vindex nope not found for table a"), "{error}");
    let kept = cluster.topo.get_vschema("commerce").await.unwrap();
    assert!(kept.tables.contains_key("product"));
    assert_eq!(
        cluster.err(&["ApplyVSchema", "-vschema", "{}", "-sql", "x", "commerce"]).await,
        "only one of the sql, sql_file, vschema, or vschema_file flags may be specified when calling the ApplyVSchema command"
    );
    cluster.ok(&["ApplyVSchema", "-sql", "alter vschema add table commerce.t9", "commerce"]).await;
    assert!(cluster.topo.get_vschema("commerce").await.unwrap().tables.contains_key("t9"));
}

#[tokio::test]
async fn records_are_shown_by_path_and_pattern() {
    let cluster = Cluster::with_master().await;
    let json = cluster.ok(&["TopoCat", "-long", "-decode_proto_json", "keyspaces/*/Keyspace"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["__path"], "keyspaces/commerce/Keyspace");
    let text = cluster.ok(&["TopoCat", "-cell=zone1", "-decode_proto", "tablets/zone1-*101/Tablet"]).await;
    assert!(text.starts_with("alias: <\n  cell: \"zone1\"\n  uid: 101\n>\n"), "{text}");
    let file = std::env::temp_dir().join(format!("wrangler-topocp-{}", std::process::id()));
    let path = file.display().to_string();
    cluster.ok(&["TopoCp", "keyspaces/commerce/shards/0/Shard", &path]).await;
    cluster.ok(&["TopoCp", "-to_topo", &path, "keyspaces/copy/shards/0/Shard"]).await;
    assert_eq!(cluster.topo.get_shard("copy", "0").await.unwrap().master_alias(), Some(&alias(100)));
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn what_is_not_built_says_so_after_its_own_checks() {
    let cluster = Cluster::with_master().await;
    assert_eq!(cluster.err(&["Backup", "zone1-101"]).await, "Backup is not built yet");
    assert_eq!(cluster.err(&["Backup"]).await, "the Backup command requires the <tablet alias> argument");
    assert_eq!(cluster.err(&["WorkflowTree"]).await, "no workflow.Manager registered");
    assert_eq!(
        cluster.err(&["MigrateServedFrom", "commerce/0", "master"]).await,
        "destination keyspace commerce is not a vertical split target"
    );
    assert_eq!(cluster.ok(&["ShowResharding", "commerce/0"]).await, "No resharding in progress\n");
}

#[tokio::test]
async fn a_slow_reader_of_events_slows_the_command_down() {
    let topo = topo::TopoServer::memory(&["zone1"]);
    for name in ["a", "b", "c", "d"] {
        topo.create_keyspace(name, &Default::default()).await.unwrap();
    }
    let (events, mut received) = tokio::sync::mpsc::channel(1);
    let tmc = Arc::new(tabletclient::tm::TabletManagerClient::new(Default::default()));
    let logger = wrangler::Logger::new(Arc::new(wrangler::logger::ChannelSink { events }));
    let wr = wrangler::Wrangler::new(topo, tmc, wrangler::Config::default()).with_logger(logger);
    let finished = Arc::new(Mutex::new(false));
    let flag = finished.clone();
    let command = tokio::spawn(async move {
        wrangler::run_command(&wr, &["RebuildKeyspaceGraph".into(), "*".into()]).await.unwrap();
        *flag.lock().unwrap() = true;
    });
    let first = received.recv().await.expect("an event");
    assert_eq!(first.value, "rebuilding keyspace a");
    tokio::task::yield_now().await;
    assert!(!*finished.lock().unwrap(), "two events at most fit between");
    while received.recv().await.is_some() {}
    command.await.unwrap();
    assert!(*finished.lock().unwrap());
}
