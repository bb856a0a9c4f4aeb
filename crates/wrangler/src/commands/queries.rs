//! Queries through vtgate and straight to tablets, for tests and emergencies. Only if the process
//! was started with `-enable_queries`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value as Json;
use servenv::flags::{FlagSet, Parsed};
use servenv::grpc::ClientAuth;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use vterrors::VtError;
use vtproto::query::{self, BindVariable, BoundQuery, ExecuteOptions, QueryResult, Type, VtGateCallerId};
use vtproto::topodata::Tablet;
use vtproto::vtgate::{self, Session};
use vtproto::vtgateservice::vitess_client::VitessClient;
use vtproto::vtrpc::RpcError;

use super::not_built::not_built;
use super::tablets::print_result;
use crate::args::{self, ALL_TYPES, exactly};
use crate::command::{Command, command};
use crate::error::{Result, bail, err};
use crate::{Wrangler, health};

fn vtgate_flags(f: &mut FlagSet) {
    f.string("server", "", "VtGate server to connect to (host:grpcport)")
        .string("bind_variables", "", "bind variables as a JSON object")
        .string("options", "", "execute options as protobuf text")
        .bool("json", false, "print JSON instead of a table");
}

fn username_flag(f: &mut FlagSet) {
    f.string("username", "", "user that the query is run for");
}

pub(super) const COMMANDS: &[Command] = &[
    command!(
        "VtGateExecute",
        "-server <vtgate> [-bind_variables <JSON map>] [-target <keyspace:shard@tablettype>] [-options <proto text options>] [-json] <sql>",
        "Runs a statement through vtgate.",
        |f| {
            vtgate_flags(f);
            f.string("target", "", "keyspace:shard@tablet_type");
        },
        vtgate_execute
    ),
    command!(
        "VtGateExecuteShards",
        "-server <vtgate> -keyspace <keyspace> -shards <shard0>,<shard1>,... [-bind_variables <JSON map>] [-tablet_type <tablet type>] [-options <proto text options>] [-json] <sql>",
        "Runs a statement through vtgate on shards.",
        |f| {
            vtgate_flags(f);
            f.string("keyspace", "", "keyspace to send to")
                .string("shards", "", "comma-separated list of shards to send to")
                .string("tablet_type", "master", "tablet type to query");
        },
        vtgate_execute_shards
    ),
    command!(
        "VtGateExecuteKeyspaceIds",
        "-server <vtgate> -keyspace <keyspace> -keyspace_ids <ks1 in hex>,<k2 in hex>,... [-bind_variables <JSON map>] [-tablet_type <tablet type>] [-options <proto text options>] [-json] <sql>",
        "Runs a statement through vtgate on the shards of keyspace ids.",
        |f| {
            vtgate_flags(f);
            f.string("keyspace", "", "keyspace to send to")
                .string("keyspace_ids", "", "comma-separated list of keyspace ids in hex")
                .string("tablet_type", "master", "tablet type to query");
        },
        vtgate_execute_keyspace_ids
    ),
    command!(
        "VtGateSplitQuery",
        "-server <vtgate> -keyspace <keyspace> [-split_columns <split_columns>] [-split_count <count> | -num_rows_per_query_part <rows>] [-algorithm <algorithm>] <sql>",
        "Splits a query into parts.",
        |f| {
            vtgate_flags(f);
            f.string("keyspace", "", "keyspace to send to")
                .string("split_columns", "", "columns to split by")
                .int("split_count", 16, "number of parts")
                .int("num_rows_per_query_part", 0, "rows of a part")
                .string("algorithm", "EQUAL_SPLITS", "EQUAL_SPLITS or FULL_SCAN");
        },
        vtgate_split_query
    ),
    command!(
        "VtTabletExecute",
        "[-username <TableACL user>] [-transaction_id <transaction_id>] [-options <proto text options>] [-bind_variables <JSON map>] [-json] <tablet alias> <sql>",
        "Runs a statement on a tablet.",
        |f| {
            username_flag(f);
            f.int("transaction_id", 0, "the transaction to run it in")
                .string("bind_variables", "", "bind variables as a JSON object")
                .string("options", "", "execute options as protobuf text")
                .bool("json", false, "print JSON instead of a table");
        },
        vttablet_execute
    ),
    command!(
        "VtTabletBegin",
        "[-username <TableACL user>] <tablet alias>",
        "Begins a transaction on a tablet and prints its id.",
        username_flag,
        vttablet_begin
    ),
    command!(
        "VtTabletCommit",
        "[-username <TableACL user>] <tablet alias> <transaction_id>",
        "Commits a transaction of a tablet.",
        username_flag,
        vttablet_commit
    ),
    command!(
        "VtTabletRollback",
        "[-username <TableACL user>] <tablet alias> <transaction_id>",
        "Rolls a transaction of a tablet back.",
        username_flag,
        vttablet_rollback
    ),
    command!(
        "VtTabletStreamHealth",
        "[-count <count, default 1>] <tablet alias>",
        "Prints a tablet's health as it is streamed, one line of JSON each.",
        |f| {
            f.int("count", 1, "how many reports to print");
        },
        vttablet_stream_health
    ),
    command!(
        "VtTabletUpdateStream",
        "[-count <count, default 1>] [-position <position>] [-timestamp <timestamp>] <tablet alias>",
        "Prints a tablet's update stream, one line of JSON each.",
        |f| {
            f.int("count", 1, "how many events to print").string("position", "", "the position to start at").int(
                "timestamp",
                0,
                "the time to start at, seconds",
            );
        },
        vttablet_update_stream
    ),
];

fn check_enabled(wr: &Wrangler) -> Result {
    if !wr.config().enable_queries {
        bail!("query commands are disabled (set the -enable_queries flag to enable)");
    }
    Ok(())
}

/// Bind variables from a JSON object: numbers, strings, null, and lists of those.
fn bind_variables(text: &str) -> Result<BTreeMap<String, BindVariable>> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let values: BTreeMap<String, Json> =
        serde_json::from_str(text).map_err(|error| err!("cannot parse bind variables {text:?}: {error}"))?;
    values.into_iter().map(|(name, value)| Ok((name.clone(), bind_variable(&name, &value)?))).collect()
}

fn bind_variable(name: &str, value: &Json) -> Result<BindVariable> {
    if let Json::Array(items) = value {
        let values = items
            .iter()
            .map(|item| {
                let (ty, value) = scalar(name, item)?;
                Ok(query::Value { r#type: ty.into(), value })
            })
            .collect::<Result<_>>()?;
        return Ok(BindVariable { r#type: Type::Tuple.into(), values, ..Default::default() });
    }
    let (ty, value) = scalar(name, value)?;
    Ok(BindVariable { r#type: ty.into(), value, values: Vec::new() })
}

fn scalar(name: &str, value: &Json) -> Result<(Type, Bytes)> {
    Ok(match value {
        Json::Null => (Type::NullType, Bytes::new()),
        Json::String(text) => (Type::Varbinary, text.clone().into()),
        Json::Number(number) if number.is_i64() => (Type::Int64, number.to_string().into()),
        Json::Number(number) if number.is_u64() => (Type::Uint64, number.to_string().into()),
        Json::Number(number) => (Type::Float64, number.to_string().into()),
        other => bail!("bind variable {name}: cannot use {other}"),
    })
}

fn options(args: &Parsed) -> Result<Option<ExecuteOptions>> {
    match args.str("options") {
        "" => Ok(None),
        text => vtjson::from_text(text).map(Some).map_err(|error| err!("failed to unmarshal options: {error}")),
    }
}

type Vtgate = VitessClient<InterceptedService<Channel, ClientAuth>>;

fn dial_vtgate(wr: &Wrangler, args: &Parsed) -> Result<Vtgate> {
    let address = args.str("server");
    let client = &wr.config().vtgate_client;
    let channel = client.channel(address).map_err(|error| err!("error connecting to vtgate '{address}': {error}"))?;
    Ok(VitessClient::with_interceptor(channel, client.auth.clone())
        .max_decoding_message_size(client.max_message_size)
        .max_encoding_message_size(client.max_message_size))
}

/// The statement, its variables and options, for every command that sends one to vtgate.
fn vtgate_request(args: &Parsed, command: &str) -> Result<(BoundQuery, Option<ExecuteOptions>)> {
    let [sql] = exactly(args, &format!("the <sql> argument is required for the {command} command"))?;
    let query = BoundQuery { sql: sql.to_owned(), bind_variables: bind_variables(args.str("bind_variables"))? };
    Ok((query, options(args)?))
}

/// A failure of the connection, or the error in the body of an answer.
fn failed(status: &tonic::Status) -> crate::Error {
    let error = VtError::from_status(status);
    // A status that came over the wire has no source; of one made here it tells what is wrong with the connection.
    let causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    match causes.last() {
        Some(cause) => err!("Execute failed: {error}: {cause}"),
        None => err!("Execute failed: {error}"),
    }
}

async fn print_answer(wr: &Wrangler, args: &Parsed, error: Option<RpcError>, result: Option<QueryResult>) -> Result {
    if let Some(error) = VtError::from_rpc_error(error.as_ref()) {
        bail!("Execute failed: {error}");
    }
    print_result(wr, args, &result.unwrap_or_default()).await;
    Ok(())
}

async fn vtgate_execute(wr: Wrangler, args: Parsed) -> Result {
    check_enabled(&wr)?;
    let (query, options) = vtgate_request(&args, "VtGateExecute")?;
    let session = Session {
        autocommit: true,
        target_string: args.str("target").to_owned(),
        options: options.clone(),
        ..Default::default()
    };
    let request = vtgate::ExecuteRequest { session: Some(session), query: Some(query), options, ..Default::default() };
    let answer = dial_vtgate(&wr, &args)?.execute(request).await.map_err(|s| failed(&s))?.into_inner();
    print_answer(&wr, &args, answer.error, answer.result).await
}

async fn vtgate_execute_shards(wr: Wrangler, args: Parsed) -> Result {
    check_enabled(&wr)?;
    let (query, options) = vtgate_request(&args, "VtGateExecuteShards")?;
    let request = vtgate::ExecuteShardsRequest {
        query: Some(query),
        keyspace: args.str("keyspace").to_owned(),
        shards: args.list("shards"),
        tablet_type: args::tablet_type(args.str("tablet_type"), ALL_TYPES)?.into(),
        options,
        ..Default::default()
    };
    let answer = dial_vtgate(&wr, &args)?.execute_shards(request).await.map_err(|s| failed(&s))?.into_inner();
    print_answer(&wr, &args, answer.error, answer.result).await
}

async fn vtgate_execute_keyspace_ids(wr: Wrangler, args: Parsed) -> Result {
    check_enabled(&wr)?;
    let (query, options) = vtgate_request(&args, "VtGateExecuteKeyspaceIds")?;
    let keyspace_ids = args
        .list("keyspace_ids")
        .iter()
        .map(|id| hex::decode(id).map_err(|error| err!("cannot hex-decode value {id} '{error}'")))
        .collect::<Result<_>>()?;
    let request = vtgate::ExecuteKeyspaceIdsRequest {
        query: Some(query),
        keyspace: args.str("keyspace").to_owned(),
        keyspace_ids,
        tablet_type: args::tablet_type(args.str("tablet_type"), ALL_TYPES)?.into(),
        options,
        ..Default::default()
    };
    let answer = dial_vtgate(&wr, &args)?.execute_keyspace_ids(request).await.map_err(|s| failed(&s))?.into_inner();
    print_answer(&wr, &args, answer.error, answer.result).await
}

async fn vtgate_split_query(wr: Wrangler, args: Parsed) -> Result {
    check_enabled(&wr)?;
    vtgate_request(&args, "VtGateSplitQuery")?;
    let _ = (args.str("server"), args.str("keyspace"), args.str("split_columns"), args.str("algorithm"));
    let _ = (args.int("split_count"), args.int("num_rows_per_query_part"), args.bool("json"));
    not_built("VtGateSplitQuery")
}

/// The record of a tablet and a connection to its query service.
async fn dial_tablet(wr: &Wrangler, word: &str) -> Result<(Tablet, std::sync::Arc<dyn tabletclient::QueryService>)> {
    let tablet = wr.topo().get_tablet(&args::tablet_alias(word)?).await?.record;
    let service = tabletclient::grpc::dial(&tablet, &wr.config().tablet_dial)
        .map_err(|error| err!("cannot connect to tablet {word}: {error}"))?;
    Ok((tablet, service))
}

fn target(tablet: &Tablet) -> query::Target {
    query::Target {
        keyspace: tablet.keyspace.clone(),
        shard: tablet.shard.clone(),
        tablet_type: tablet.r#type,
        ..Default::default()
    }
}

fn caller(args: &Parsed) -> Option<VtGateCallerId> {
    match args.str("username") {
        "" => None,
        user => Some(VtGateCallerId { username: user.to_owned(), ..Default::default() }),
    }
}

async fn vttablet_execute(wr: Wrangler, args: Parsed) -> Result {
    check_enabled(&wr)?;
    let message = "the <tablet alias> and <sql> arguments are required for the VtTabletExecute command";
    let [alias, sql] = exactly(&args, message)?;
    let (tablet, service) = dial_tablet(&wr, alias).await?;
    let request = query::ExecuteRequest {
        immediate_caller_id: caller(&args),
        target: Some(target(&tablet)),
        query: Some(BoundQuery { sql: sql.to_owned(), bind_variables: bind_variables(args.str("bind_variables"))? }),
        transaction_id: args.int("transaction_id"),
        options: options(&args)?,
        ..Default::default()
    };
    let result = service.execute(request).await.map_err(|error| err!("Execute failed: {error}"))?;
    print_result(&wr, &args, &result).await;
    Ok(())
}

async fn vttablet_begin(wr: Wrangler, args: Parsed) -> Result {
    check_enabled(&wr)?;
    let [alias] = exactly(&args, "the <tablet_alias> argument is required for the VtTabletBegin command")?;
    let (tablet, service) = dial_tablet(&wr, alias).await?;
    let request =
        query::BeginRequest { immediate_caller_id: caller(&args), target: Some(target(&tablet)), ..Default::default() };
    let id = service.begin(request).await.map_err(|error| err!("Begin failed: {error}"))?;
    wr.logger().println(vtjson::go_indent(&serde_json::json!({ "transaction_id": id }))).await;
    Ok(())
}

/// The tablet and the transaction of a command that ends one.
fn transaction<'a>(args: &'a Parsed, command: &str) -> Result<(&'a str, i64)> {
    let message = format!("the <tablet_alias> and <transaction_id> arguments are required for the {command} command");
    let [alias, id] = exactly(args, &message)?;
    Ok((alias, id.parse().map_err(|error| err!("invalid transaction id {id:?}: {error}"))?))
}

async fn vttablet_commit(wr: Wrangler, args: Parsed) -> Result {
    check_enabled(&wr)?;
    let (alias, transaction_id) = transaction(&args, "VtTabletCommit")?;
    let (tablet, service) = dial_tablet(&wr, alias).await?;
    let request = query::CommitRequest {
        immediate_caller_id: caller(&args),
        target: Some(target(&tablet)),
        transaction_id,
        ..Default::default()
    };
    Ok(service.commit(request).await?)
}

async fn vttablet_rollback(wr: Wrangler, args: Parsed) -> Result {
    check_enabled(&wr)?;
    let (alias, transaction_id) = transaction(&args, "VtTabletRollback")?;
    let (tablet, service) = dial_tablet(&wr, alias).await?;
    let request = query::RollbackRequest {
        immediate_caller_id: caller(&args),
        target: Some(target(&tablet)),
        transaction_id,
        ..Default::default()
    };
    Ok(service.rollback(request).await?)
}

async fn vttablet_stream_health(wr: Wrangler, args: Parsed) -> Result {
    check_enabled(&wr)?;
    let [alias] = exactly(&args, "the <tablet alias> argument is required for the VtTabletStreamHealth command")?;
    let tablet = wr.topo().get_tablet(&args::tablet_alias(alias)?).await?.record;
    let mut reports = health::stream(&wr, &tablet).await?;
    for _ in 0..args.int("count") {
        let report = health::next(&mut reports).await?;
        wr.logger().println(serde_json::to_string(&vtjson::go_json(&report))?).await;
    }
    Ok(())
}

async fn vttablet_update_stream(wr: Wrangler, args: Parsed) -> Result {
    check_enabled(&wr)?;
    let [alias] = exactly(&args, "the <tablet alias> argument is required for the VtTabletUpdateStream command")?;
    wr.topo().get_tablet(&args::tablet_alias(alias)?).await?;
    let _ = (args.int("count"), args.str("position"), args.int("timestamp"));
    not_built("VtTabletUpdateStream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_variables_take_their_type_from_json() {
        let vars =
            bind_variables(r#"{"a": 1, "b": "x", "c": null, "d": [1, "y"], "e": 18446744073709551615}"#).unwrap();
        let types: Vec<i32> = vars.values().map(|v| v.r#type).collect();
        assert_eq!(types, [Type::Int64, Type::Varbinary, Type::NullType, Type::Tuple, Type::Uint64].map(|t| t as i32));
        assert_eq!(vars["d"].values.len(), 2);
        assert!(bind_variables("[1]").is_err());
        assert!(bind_variables(r#"{"a": {"b": 1}}"#).is_err());
    }
}
