//! Commands on the schemas of tablets, shards and keyspaces.

use std::time::Duration;

use servenv::flags::Parsed;
use vtproto::tabletmanagerdata as tmd;

use crate::Wrangler;
use crate::args::{self, exactly, only};
use crate::command::{Command, command};
use crate::error::{Result, bail, err};
use crate::schema::{self, ApplySchema, Filter};

pub(super) const COMMANDS: &[Command] = &[
    command!(
        "GetSchema",
        "[-tables=<table1>,<table2>,...] [-exclude_tables=<table1>,<table2>,...] [-include-views] [-table_names_only] <tablet alias>",
        "Prints the schema of a tablet. Tables are named, or matched by /expressions/.",
        |f| {
            f.string("tables", "", "only these tables")
                .string("exclude_tables", "", "all but these tables")
                .bool("include-views", false, "views too")
                .bool("table_names_only", false, "only the names");
        },
        get_schema
    ),
    command!("ReloadSchema", "<tablet alias>", "Makes a tablet read its schema again.", reload_schema),
    command!(
        "ReloadSchemaShard",
        "[-concurrency=10] [-include_master=false] <keyspace/shard>",
        "Makes all tablets of a shard read their schema again. Best effort.",
        |f| {
            f.int("concurrency", 10, "how many tablets at once").bool("include_master", true, "the master too");
        },
        reload_schema_shard
    ),
    command!(
        "ReloadSchemaKeyspace",
        "[-concurrency=10] [-include_master=false] <keyspace>",
        "Makes all tablets of a keyspace read their schema again. Best effort.",
        |f| {
            f.int("concurrency", 10, "how many tablets at once").bool("include_master", true, "the masters too");
        },
        reload_schema_keyspace
    ),
    command!(
        "ValidateSchemaShard",
        "[-exclude_tables=''] [-include-views] <keyspace/shard>",
        "Checks that all tablets of a shard have the master's schema.",
        |f| {
            f.string("exclude_tables", "", "all but these tables").bool("include-views", false, "views too");
        },
        validate_schema_shard
    ),
    command!(
        "ValidateSchemaKeyspace",
        "[-exclude_tables=''] [-include-views] <keyspace name>",
        "Checks that all tablets of a keyspace have the schema of the first shard's master.",
        |f| {
            f.string("exclude_tables", "", "all but these tables").bool("include-views", false, "views too");
        },
        validate_schema_keyspace
    ),
    command!(
        "ApplySchema",
        "[-allow_long_unavailability] [-wait_slave_timeout=10s] {-sql=<sql> || -sql-file=<filename>} <keyspace>",
        "Runs schema changes on the masters of all shards of a keyspace, after trying them in a scratch copy. The first failure ends it.",
        |f| {
            f.bool("allow_long_unavailability", false, "change large tables too, which may be unavailable for long")
                .string("sql", "", "semicolon-separated statements")
                .string("sql-file", "", "a file with the statements, read by the server")
                .duration("wait_slave_timeout", Duration::from_secs(10), "how long replicas get to have the change");
        },
        apply_schema
    ),
    command!(
        "CopySchemaShard",
        "[-tables=<table1>,<table2>,...] [-exclude_tables=<table1>,<table2>,...] [-include-views] [-wait_slave_timeout=10s] {<source keyspace/shard> || <source tablet alias>} <destination keyspace/shard>",
        "Gives a shard the schema of another shard's master or of a tablet.",
        |f| {
            f.string("tables", "", "only these tables")
                .string("exclude_tables", "", "all but these tables")
                .bool("include-views", true, "views too")
                .duration("wait_slave_timeout", Duration::from_secs(10), "how long replicas get to have the schema");
        },
        copy_schema_shard
    ),
];

async fn get_schema(wr: Wrangler, args: Parsed) -> Result {
    let alias = args::tablet_alias(only(&args, "tablet alias", "GetSchema")?)?;
    let filter = Filter {
        tables: args.list("tables"),
        exclude_tables: args.list("exclude_tables"),
        include_views: args.bool("include-views"),
    };
    let tablet = wr.topo().get_tablet(&alias).await?.record;
    let definition = schema::get_schema(&wr, &tablet, &filter).await?;
    if args.bool("table_names_only") {
        for table in &definition.table_definitions {
            wr.logger().println(&table.name).await;
        }
        return Ok(());
    }
    wr.logger().println(vtjson::pb_json(&definition)).await;
    Ok(())
}

async fn reload_schema(wr: Wrangler, args: Parsed) -> Result {
    let alias = args::tablet_alias(only(&args, "tablet alias", "ReloadSchema")?)?;
    let tablet = wr.topo().get_tablet(&alias).await?.record;
    wr.tmc().reload_schema(&tablet, tmd::ReloadSchemaRequest::default()).await?;
    Ok(())
}

async fn reload_schema_shard(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "ReloadSchemaShard")?)?;
    // A shard that does not exist is an error; what single tablets do is best effort.
    wr.topo().get_shard(&keyspace, &shard).await?;
    schema::reload_shard(&wr, &keyspace, &shard, "", args.size("concurrency"), args.bool("include_master")).await;
    Ok(())
}

async fn reload_schema_keyspace(wr: Wrangler, args: Parsed) -> Result {
    let keyspace = only(&args, "keyspace", "ReloadSchemaKeyspace")?;
    let (concurrency, include_master) = (args.size("concurrency"), args.bool("include_master"));
    for shard in wr.topo().get_shard_names(keyspace).await? {
        schema::reload_shard(&wr, keyspace, &shard, "", concurrency, include_master).await;
    }
    Ok(())
}

fn validate_filter(args: &Parsed) -> Filter {
    Filter {
        tables: Vec::new(),
        exclude_tables: args.list("exclude_tables"),
        include_views: args.bool("include-views"),
    }
}

async fn validate_schema_shard(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "ValidateSchemaShard")?)?;
    schema::validate_schema(&wr, &keyspace, &[shard], &validate_filter(&args)).await
}

async fn validate_schema_keyspace(wr: Wrangler, args: Parsed) -> Result {
    let keyspace = only(&args, "keyspace name", "ValidateSchemaKeyspace")?;
    let shards = wr.topo().get_shard_names(keyspace).await?;
    schema::validate_schema(&wr, keyspace, &shards, &validate_filter(&args)).await
}

/// The text of a flag or of the file that another flag names, of which one has to be given.
pub(super) async fn text_or_file(args: &Parsed, text: &str, file: &str) -> Result<String> {
    match (args.str(text), args.str(file)) {
        ("", "") => bail!("action requires one of {text} or {file}"),
        (given, "") => Ok(given.to_owned()),
        ("", path) => tokio::fs::read_to_string(path).await.map_err(|error| err!("cannot read file {path}: {error}")),
        _ => bail!("action requires only one of {text} or {file}"),
    }
}

async fn apply_schema(wr: Wrangler, args: Parsed) -> Result {
    let [keyspace] = exactly(&args, "the <keyspace> argument is required for the commandApplySchema command")?;
    let request = ApplySchema {
        keyspace: keyspace.to_owned(),
        sql: text_or_file(&args, "sql", "sql-file").await?,
        file: args.str("sql-file").to_owned(),
        allow_long_unavailability: args.bool("allow_long_unavailability"),
        wait_slave_timeout: args.duration("wait_slave_timeout"),
    };
    schema::apply_schema(&wr, request).await
}

async fn copy_schema_shard(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <source keyspace/shard> or <source tablet alias> and <destination keyspace/shard> arguments are both required for the CopySchemaShard command";
    let [source, dest] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(dest)?;
    let filter = Filter {
        tables: args.list("tables"),
        exclude_tables: args.list("exclude_tables"),
        include_views: args.bool("include-views"),
    };
    let source = match args::keyspace_shard(source) {
        Ok((source_keyspace, source_shard)) => {
            let info = wr.topo().get_shard(&source_keyspace, &source_shard).await?;
            info.master_alias().cloned().ok_or_else(|| err!("no master in shard record {source_keyspace}/{source_shard}. Consider running 'vtctl InitShardMaster' in case of a new shard or to reparent the shard to fix the topology data, or providing a non-master tablet alias"))?
        }
        Err(_) => args::tablet_alias(source)?,
    };
    schema::copy_schema_shard(&wr, &source, &filter, &keyspace, &shard, args.duration("wait_slave_timeout")).await
}
