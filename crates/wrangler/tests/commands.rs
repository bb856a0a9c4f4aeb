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

/// A record under such a name would be listed under another one, and break whatever goes through all cells.
#[tokio::test]
async fn names_of_cells_aliases_and_keyspaces_are_elements_of_paths() {
    let cluster = Cluster::with_master().await;
    for (name, problem) in [
        ("a/b", "it has a slash"),
        ("", "it is empty"),
        ("..", "it means a directory"),
        ("a b", "it has a blank"),
        ("a\tb", "it has a control character"),
    ] {
        let refused = |what: &str| format!("{name:?} is no name of {what}: {problem}");
        assert_eq!(cluster.err(&["AddCellInfo", "-root", "/x", name]).await, refused("a cell"));
        assert_eq!(cluster.err(&["UpdateCellInfo", "-root", "/x", name]).await, refused("a cell"));
        assert_eq!(cluster.err(&["AddCellsAlias", "-cells", "zone1", name]).await, refused("an alias of cells"));
        assert_eq!(cluster.err(&["UpdateCellsAlias", "-cells", "zone1", name]).await, refused("an alias of cells"));
        assert_eq!(cluster.err(&["CreateKeyspace", name]).await, refused("a keyspace"));
    }
    assert_eq!(cluster.err(&["CreateShard", "-parent", "/0"]).await, "\"\" is no name of a keyspace: it is empty");
    assert_eq!(cluster.ok(&["GetCellInfoNames"]).await, "zone1\n");
    assert_eq!(cluster.ok(&["GetCellsAliases"]).await, "null\n");
    assert_eq!(cluster.ok(&["GetKeyspaces"]).await, "commerce\n");
    cluster.ok(&["ApplyVSchema", "-vschema", "{}", "commerce"]).await;
    cluster.ok(&["AddCellsAlias", "-cells", "zone1", "us-east_1"]).await;
}

#[tokio::test]
async fn tablets_are_listed_of_cells_that_exist() {
    let cluster = Cluster::with_master().await;
    cluster.ok(&["AddCellInfo", "-server_address", "memory", "-root", "/vitess/zone2", "zone2"]).await;
    assert_eq!(cluster.ok(&["ListAllTablets"]).await.lines().count(), 3);
    assert_eq!(cluster.ok(&["ListAllTablets", "zone1, zone2"]).await.lines().count(), 3);
    assert_eq!(cluster.ok(&["ListAllTablets", "zone2"]).await, "", "a cell without tablets is no error");
    let unknown = "node doesn't exist: /vitess/global/cells/nope/CellInfo";
    assert_eq!(cluster.err(&["GetSrvKeyspaceNames", "nope"]).await, unknown);
    let outcome = cluster.run(&["ListAllTablets", "zone1,nope"]).await;
    assert_eq!(outcome.console, "");
    assert_eq!(outcome.result.unwrap_err().to_string(), unknown);
    assert_eq!(cluster.err(&["ListAllTablets", "nope"]).await, unknown);
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

/// The document of an ApplySchema that failed, and what stands behind it.
fn change_failed(error: &str) -> (serde_json::Value, &str) {
    let document = error.strip_prefix("schema change failed, ExecuteResult: ").expect("the text of v5.0.1 in front");
    let (document, told) = document.split_once("\n}\n").expect("a document on lines of its own");
    (serde_json::from_str(&format!("{document}\n}}")).expect("JSON"), told)
}

/// A file with a text, for as long as it is held.
struct TestFile(std::path::PathBuf);

impl TestFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wrangler-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
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
    let (document, told) = change_failed(&error);
    assert_eq!(told, "in -sql, line 2: alter table b add c int\n1 statement before it was applied and stays\n");
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

/// Whoever reads the error knows the line to mend, and what has to be undone or left out before the file runs again.
#[tokio::test]
async fn a_file_that_fails_halfway_is_told_with_the_line_and_what_stays() {
    let cluster = Cluster::with_master().await;
    let sql = "-- the first\ncreate table hd(id int);\n\n-- the second\nalter table corder\n  add unique key uk(sku);\n\
               create table hd(id int);\ncreate table he(id int)";
    let file = TestFile::new("halfway.sql", sql);
    let path = file.path();
    let apply = ["ApplySchema", "-sql-file", &path, "commerce"];

    let second = "-- the second\nalter table corder\n  add unique key uk(sku)";
    cluster.tablets.fail(&format!("ExecuteFetchAsDba zone1-0000000100 {second}"), "Duplicate entry 'SKU-1002'");
    let error = cluster.err(&apply).await;
    let (document, told) = change_failed(&error);
    assert_eq!(document["CurSQLIndex"], 1);
    assert_eq!(told, format!("in {path}, line 5: alter table corder\n1 statement before it was applied and stays\n"));

    // The statement that failed is meant, not one of the same words before it.
    cluster.tablets.failures.lock().unwrap().clear();
    cluster.tablets.fail("ExecuteFetchAsDba zone1-0000000100 create table he(id int)", "no space left");
    let error = cluster.err(&apply).await;
    let want = format!("in {path}, line 8: create table he(id int)\n3 statements before it were applied and stay\n");
    assert_eq!(change_failed(&error).1, want);
    cluster.tablets.fail("ExecuteFetchAsDba zone1-0000000100 create table hd(id int)", "Table 'hd' already exists");
    let error = cluster.err(&apply).await;
    assert_eq!(
        change_failed(&error).1,
        format!("in {path}, line 7: create table hd(id int)\n2 statements before it were applied and stay\n")
    );

    // One statement that failed has nothing before it, and needs no line when it is on the command line.
    cluster.tablets.fail("ExecuteFetchAsDba zone1-0000000100 create table a(id int)", "no");
    let error = cluster.err(&["ApplySchema", "-sql", "create table a(id int)", "commerce"]).await;
    assert_eq!(change_failed(&error).1, "");
    // Nothing was applied when the scratch database refuses a statement.
    let refused = tabletclient::tm::TmError::new(vterrors::Code::Unknown, "refused: create table he(id int)");
    cluster.tablets.preflights.lock().unwrap().push_back(Err(refused));
    let error = cluster.err(&apply).await;
    assert_eq!(change_failed(&error).1, format!("in {path}, line 8: create table he(id int)\n"));
}

#[tokio::test]
async fn a_statement_that_fails_on_some_shards_is_told_with_the_others() {
    let cluster = Cluster::empty();
    cluster.topo.create_keyspace("customer", &Default::default()).await.unwrap();
    for (shard, uid) in [("-40", 300), ("40-80", 400), ("80-", 500)] {
        cluster.add_shard("customer", shard, uid).await;
    }
    let file = TestFile::new("shards.sql", "create table a(id int);\nalter table a add c int;\n");
    let path = file.path();
    let place = format!("in {path}, line 2: alter table a add c int\n1 statement before it was applied and stays\n");
    let apply = ["ApplySchema", "-sql-file", &path, "customer"];
    cluster.tablets.fail("ExecuteFetchAsDba zone1-0000000400 alter table a add c int", "no");
    assert_eq!(
        change_failed(&cluster.err(&apply).await).1,
        format!("{place}the statement itself was applied on shards -40, 80- and stays there\n")
    );
    cluster.tablets.fail("ExecuteFetchAsDba zone1-0000000300 alter table a add c int", "no");
    assert_eq!(
        change_failed(&cluster.err(&apply).await).1,
        format!("{place}the statement itself was applied on shard 80- and stays there\n")
    );
    cluster.tablets.fail("ExecuteFetchAsDba zone1-0000000500 alter table a add c int", "no");
    assert_eq!(change_failed(&cluster.err(&apply).await).1, place);

    // Applied is what mysqld has done, though the shard failed later.
    cluster.tablets.failures.lock().unwrap().clear();
    cluster.tablets.fail("MasterPosition zone1-0000000300", "gone");
    let error = cluster.err(&["ApplySchema", "-sql", "drop table a", "customer"]).await;
    let (document, told) = change_failed(&error);
    assert_eq!(document["FailedShards"][0]["Shard"], "-40");
    assert_eq!(told, "the statement itself was applied on shards -40, 40-80, 80- and stays there\n");
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
    assert_eq!(error, "vindex nope not found for table a (line 1: tables.a.column_vindexes.name)");
    for (name, text, want) in [
        (
            "missing.json",
            "{\n \"sharded\": true,\n \"tables\": {\n  \"b\": {\n   \"columnVindexes\": [{\"column\": \"id\", \"name\": \"zz\"}]\n  }\n }\n}\n",
            "vindex zz not found for table b (line 5: tables.b.columnVindexes.name)",
        ),
        (
            "type.json",
            "{\n \"vindexes\": {\n  \"v\": {\n   \"type\": \"nonexist\"\n  }\n }\n}\n",
            "vindexType \"nonexist\" not found (line 4: vindexes.v.type)",
        ),
        (
            "table.json",
            "{\n \"tables\": {\n  \"a\": {\"type\": \"weird\"}\n }\n}\n",
            "unidentified table type weird (line 3: tables.a.type)",
        ),
        (
            "twice.json",
            "{\n \"tables\": {\n  \"a\": {},\n  \"b\": {},\n  \"a\": {\"type\": \"sequence\"}\n }\n}\n",
            "duplicate key \"a\", first given in line 3 (line 5: tables.a)",
        ),
        (
            "vindex.json",
            "{\"vindexes\": {\n \"h\": {\"type\": \"hash\"},\n \"h\": {\"type\": \"null\"}}}",
            "duplicate key \"h\", first given in line 2 (line 3: vindexes.h)",
        ),
    ] {
        let file = TestFile::new(name, text);
        assert_eq!(cluster.err(&["ApplyVSchema", "-vschema_file", &file.path(), "commerce"]).await, want);
        let dry = ["ApplyVSchema", "-dry-run", "-vschema_file", &file.path(), "commerce"];
        assert_eq!(cluster.err(&dry).await, want);
    }
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
