//! Commands on single tablets.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use servenv::flags::Parsed;
use topo::{Update, topoproto};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{Tablet, TabletAlias, TabletType};
use vtproto::{query, vttime};

use crate::args::{self, ALL_TYPES, at_least, exactly, only};
use crate::command::{Command, command};
use crate::commands::not_built::not_built;
use crate::error::{Result, bail, err};
use crate::logger::{info, warning};
use crate::wrangler::within;
use crate::{Wrangler, output, reparent};

pub(super) const COMMANDS: &[Command] = &[
    command!(
        "InitTablet",
        "[-allow_update] [-allow_different_shard] [-allow_master_override] [-parent] [-db_name_override=<db name>] [-hostname=<hostname>] [-mysql_host=<hostname>] [-mysql_port=<port>] [-port=<port>] [-grpc_port=<port>] [-tags=tag1:value1,tag2:value2] -keyspace=<keyspace> -shard=<shard> <tablet alias> <tablet type>",
        "Initializes a tablet in the topology.",
        |f| {
            f.bool("allow_update", false, "overwrite the record of an existing tablet of the same shard")
                .bool("allow_master_override", false, "let a new master take the place of the shard's present one")
                .bool("parent", false, "create the keyspace and the shard if they do not exist")
                .string("db_name_override", "", "name of the database, if not vt_<keyspace>")
                .string("hostname", "", "the host vttablet runs on")
                .string("mysql_host", "", "the host mysqld runs on, if another")
                .int("mysql_port", 0, "the port of mysqld")
                .int("port", 0, "the HTTP port of vttablet")
                .int("grpc_port", 0, "the gRPC port of vttablet")
                .string("keyspace", "", "the keyspace of the tablet")
                .string("shard", "", "the shard of the tablet")
                .string("tags", "", "comma-separated list of key:value pairs")
                .accepted("allow_different_shard", "false", true);
        },
        init_tablet
    ),
    command!(
        "GetTablet",
        "<tablet alias>",
        "Outputs a JSON structure that contains information about the Tablet.",
        get_tablet
    ),
    command!(
        "UpdateTabletAddrs",
        "[-hostname <hostname>] [-mysql_host <mysql hostname>] [-mysql-port <mysql port>] [-vt-port <vt port>] [-grpc-port <grpc port>] <tablet alias>",
        "Updates the host names and ports of a tablet; what is not given stays.",
        |f| {
            f.string("hostname", "", "the host vttablet runs on")
                .string("mysql_host", "", "the host mysqld runs on")
                .int("vt-port", 0, "the HTTP port of vttablet")
                .int("grpc-port", 0, "the gRPC port of vttablet")
                .int("mysql-port", 0, "the port of mysqld");
        },
        update_tablet_addrs
    ),
    command!(
        "DeleteTablet",
        "[-allow_master] <tablet alias> ...",
        "Deletes tablets from the topology.",
        |f| {
            f.bool("allow_master", false, "delete the shard's master too; the shard then has none");
        },
        delete_tablet
    ),
    command!("SetReadOnly", "<tablet alias>", "Sets the tablet's mysqld to read-only.", set_read_only),
    command!("SetReadWrite", "<tablet alias>", "Sets the tablet's mysqld to read-write.", set_read_write),
    command!("StartSlave", "<tablet alias>", "Starts replication on the tablet.", start_slave),
    command!("StopSlave", "<tablet alias>", "Stops replication on the tablet.", stop_slave),
    command!(
        "ChangeSlaveType",
        "[-dry-run] <tablet alias> <tablet type>",
        "Changes the type of a tablet that is not a master: replica, rdonly, spare, backup, experimental, drained.",
        |f| {
            f.bool("dry-run", false, "only list what would change");
        },
        change_slave_type
    ),
    command!("Ping", "<tablet alias>", "Checks that the tablet is awake and answers RPCs.", ping),
    command!(
        "RefreshState",
        "<tablet alias>",
        "Makes the tablet read its record, its shard and its serving graph again.",
        refresh_state
    ),
    command!(
        "RefreshStateByShard",
        "[-cells=c1,c2,...] <keyspace/shard>",
        "Runs RefreshState on every tablet of the shard.",
        |f| {
            f.string("cells", "", "only tablets of these cells; empty means all");
        },
        refresh_state_by_shard
    ),
    command!("RunHealthCheck", "<tablet alias>", "Runs a health check on the tablet now.", run_health_check),
    command!(
        "IgnoreHealthError",
        "<tablet alias> <ignore regexp>",
        "Sets the expression for health errors to ignore; it has to match the whole text. An empty one clears it.",
        ignore_health_error
    ),
    command!(
        "Sleep",
        "<tablet alias> <duration>",
        "Blocks the tablet's action queue for the time given (a duration such as 500ms).",
        sleep
    ),
    command!(
        "ExecuteHook",
        "<tablet alias> <hook name> [<param1=value1> <param2=value2> ...]",
        "Runs a hook of the tablet's host and prints its result.",
        execute_hook
    ),
    command!(
        "ExecuteFetchAsApp",
        "[-max_rows=10000] [-json] [-use_pool] <tablet alias> <sql command>",
        "Runs a statement on the tablet's mysqld as the application user.",
        |f| {
            f.uint("max_rows", 10_000, "more rows than this are an error")
                .bool("use_pool", false, "use a connection of the pool")
                .bool("json", false, "print JSON instead of a table");
        },
        execute_fetch_as_app
    ),
    command!(
        "ExecuteFetchAsDba",
        "[-max_rows=10000] [-disable_binlogs] [-json] [-reload_schema] <tablet alias> <sql command>",
        "Runs a statement on the tablet's mysqld as the DBA user.",
        |f| {
            f.uint("max_rows", 10_000, "more rows than this are an error")
                .bool("disable_binlogs", false, "do not write the statement to the binlog")
                .bool("reload_schema", false, "make the tablet reload its schema afterwards")
                .bool("json", false, "print JSON instead of a table");
        },
        execute_fetch_as_dba
    ),
    command!(
        "VReplicationExec",
        "[-json] <tablet alias> <sql command>",
        "Runs a statement on the tablet's vreplication tables.",
        |f| {
            f.bool("json", false, "print JSON instead of a table");
        },
        v_replication_exec
    ),
    command!(
        "Backup",
        "[-concurrency=4] [-allow_master=false] <tablet alias>",
        "Takes a backup of the tablet.",
        |f| {
            f.int("concurrency", 4, "files compressed at the same time").bool(
                "allow_master",
                false,
                "back up a master too",
            );
        },
        backup
    ),
    command!("RestoreFromBackup", "<tablet alias>", "Wipes the tablet and restores the latest backup.", restore),
    command!("ReparentTablet", "<tablet alias>", "Points a tablet to the master of its shard.", reparent_tablet),
];

async fn init_tablet(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <tablet alias> and <tablet type> arguments are both required for the InitTablet command";
    let [alias, tablet_type] = exactly(&args, message)?;
    let alias = args::tablet_alias(alias)?;
    let tablet_type = args::tablet_type(tablet_type, ALL_TYPES)?;
    let mut tablet = Tablet {
        alias: Some(alias.clone()),
        hostname: args.str("hostname").to_owned(),
        mysql_hostname: args.str("mysql_host").to_owned(),
        keyspace: args.str("keyspace").to_owned(),
        shard: args.str("shard").to_owned(),
        r#type: tablet_type.into(),
        db_name_override: args.str("db_name_override").to_owned(),
        tags: parse_tags(args.str("tags"))?,
        ..Default::default()
    };
    for (flag, name) in [("port", "vt"), ("grpc_port", "grpc")] {
        if let Some(port) = port(&args, flag)? {
            tablet.port_map.insert(name.to_owned(), port);
        }
    }
    if let Some(port) = port(&args, "mysql_port")? {
        set_mysql_port(&mut tablet, port);
    }
    let override_master = args.bool("allow_master_override");

    let (shard_name, key_range) = topo::validate_shard_name(&tablet.shard)?;
    tablet.shard = shard_name;
    tablet.key_range = key_range;
    let shard = if args.bool("parent") {
        wr.topo().get_or_create_shard(&tablet.keyspace, &tablet.shard).await?
    } else {
        wr.topo().get_shard(&tablet.keyspace, &tablet.shard).await.map_err(|error| {
            err!("missing parent shard, use -parent option to create it, or CreateKeyspace / CreateShard: {error}")
        })?
    };
    if !topoproto::key_range_equal(shard.record.key_range.as_ref(), tablet.key_range.as_ref()) {
        bail!(
            "shard {}/{} has a different KeyRange: {:?} != {:?}",
            tablet.keyspace,
            tablet.shard,
            shard.record.key_range,
            tablet.key_range
        );
    }
    if tablet_type == TabletType::Master {
        if let Some(master) = shard.master_alias()
            && *master != alias
            && !override_master
        {
            bail!(
                "creating this tablet would override old master {} in shard {}/{}, use allow_master_override flag",
                topoproto::tablet_alias_string(Some(master)),
                tablet.keyspace,
                tablet.shard
            );
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        tablet.master_term_start_time = Some(vttime::Time {
            seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i32::try_from(now.subsec_nanos()).unwrap_or(0),
        });
    }

    match wr.topo().create_tablet(&tablet).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_node_exists() && args.bool("allow_update") => {
            let old = wr
                .topo()
                .get_tablet(&alias)
                .await
                .map_err(|error| err!("failed reading existing tablet {}: {error}", args::alias_text(&alias)))?
                .record;
            if old.keyspace != tablet.keyspace || old.shard != tablet.shard {
                bail!(
                    "old tablet has shard {}/{}. Cannot override with shard {}/{}. Delete and re-add tablet if you want to change the tablet's keyspace/shard",
                    old.keyspace,
                    old.shard,
                    tablet.keyspace,
                    tablet.shard
                );
            }
            wr.topo()
                .overwrite_tablet(&tablet)
                .await
                .map_err(|error| err!("failed updating tablet {}: {error}", args::alias_text(&alias)))?;
            Ok(wr.topo().update_tablet_replication_data(&tablet).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Writers keep both forms of the port: old readers know only the map.
fn set_mysql_port(tablet: &mut Tablet, port: i32) {
    tablet.port_map.insert("mysql".to_owned(), port);
    tablet.mysql_port = port;
}

/// A port flag that was given.
fn port(args: &Parsed, flag: &str) -> Result<Option<i32>> {
    match args.int(flag) {
        0 => Ok(None),
        number => match u16::try_from(number) {
            Ok(port) => Ok(Some(port.into())),
            Err(_) => bail!("-{flag}: {number} is not a port"),
        },
    }
}

fn parse_tags(text: &str) -> Result<BTreeMap<String, String>> {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) =
                pair.split_once(':').ok_or_else(|| err!("invalid tag {pair:?}: expected key:value pairs"))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

async fn get_tablet(wr: Wrangler, args: Parsed) -> Result {
    let alias = args::tablet_alias(only(&args, "tablet alias", "GetTablet")?)?;
    let tablet = wr.topo().get_tablet(&alias).await?;
    wr.logger().println(vtjson::pb_json(&tablet.record)).await;
    Ok(())
}

async fn update_tablet_addrs(wr: Wrangler, args: Parsed) -> Result {
    let alias = args::tablet_alias(only(&args, "tablet alias", "UpdateTabletAddrs")?)?;
    let (vt, grpc, mysql) = (port(&args, "vt-port")?, port(&args, "grpc-port")?, port(&args, "mysql-port")?);
    let (hostname, mysql_host) = (args.str("hostname"), args.str("mysql_host"));
    wr.topo()
        .update_tablet_fields(&alias, |tablet| {
            if !hostname.is_empty() {
                tablet.hostname = hostname.to_owned();
            }
            if !mysql_host.is_empty() {
                tablet.mysql_hostname = mysql_host.to_owned();
            }
            for (name, port) in [("vt", vt), ("grpc", grpc)] {
                if let Some(port) = port {
                    tablet.port_map.insert(name.to_owned(), port);
                }
            }
            if let Some(port) = mysql {
                set_mysql_port(tablet, port);
            }
            Ok(Update::Write)
        })
        .await?;
    Ok(())
}

async fn delete_tablet(wr: Wrangler, args: Parsed) -> Result {
    let message =
        "the <tablet alias> argument must be used to specify at least one tablet when calling the DeleteTablet command";
    let words = at_least(&args, 1, message)?;
    // Every name is read before anything is deleted.
    let aliases: Vec<TabletAlias> = words.iter().map(|word| args::tablet_alias(word)).collect::<Result<_>>()?;
    for alias in &aliases {
        crate::tablets::delete_tablet(&wr, alias, args.bool("allow_master")).await?;
    }
    Ok(())
}

/// The record of the one tablet that the command names.
async fn the_tablet(wr: &Wrangler, args: &Parsed, command: &str) -> Result<Tablet> {
    tablet_named(wr, only(args, "tablet alias", command)?).await
}

async fn tablet_named(wr: &Wrangler, word: &str) -> Result<Tablet> {
    Ok(wr.topo().get_tablet(&args::tablet_alias(word)?).await?.record)
}

/// As [`tablet_named`], for the commands that say which tablet they could not read.
async fn tablet_read(wr: &Wrangler, word: &str) -> Result<Tablet> {
    let alias = args::tablet_alias(word)?;
    match wr.topo().get_tablet(&alias).await {
        Ok(info) => Ok(info.record),
        Err(error) => bail!("failed reading tablet {}: {error}", args::alias_text(&alias)),
    }
}

/// The bound of a short RPC.
fn limit(wr: &Wrangler) -> Duration {
    wr.config().remote_operation_timeout
}

async fn set_read_only(wr: Wrangler, args: Parsed) -> Result {
    let tablet = tablet_read(&wr, only(&args, "tablet alias", "SetReadOnly")?).await?;
    within(limit(&wr), wr.tmc().set_read_only(&tablet, tmd::SetReadOnlyRequest {})).await?;
    Ok(())
}

async fn set_read_write(wr: Wrangler, args: Parsed) -> Result {
    let tablet = tablet_read(&wr, only(&args, "tablet alias", "SetReadWrite")?).await?;
    within(limit(&wr), wr.tmc().set_read_write(&tablet, tmd::SetReadWriteRequest {})).await?;
    Ok(())
}

async fn start_slave(wr: Wrangler, args: Parsed) -> Result {
    let [alias] = exactly(&args, "action StartSlave requires <tablet alias>")?;
    let tablet = tablet_read(&wr, alias).await?;
    within(limit(&wr), wr.tmc().start_slave(&tablet, tmd::StartSlaveRequest {})).await?;
    Ok(())
}

async fn stop_slave(wr: Wrangler, args: Parsed) -> Result {
    let [alias] = exactly(&args, "action StopSlave requires <tablet alias>")?;
    let tablet = tablet_read(&wr, alias).await?;
    within(limit(&wr), wr.tmc().stop_slave(&tablet, tmd::StopSlaveRequest {})).await?;
    Ok(())
}

async fn change_slave_type(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <tablet alias> and <db type> arguments are required for the ChangeSlaveType command";
    let [alias, new_type] = exactly(&args, message)?;
    let alias = args::tablet_alias(alias)?;
    let new_type = args::tablet_type(new_type, ALL_TYPES)?;
    let mut tablet = tablet_read(&wr, &topoproto::tablet_alias_string(Some(&alias))).await?;
    let allowed = topoproto::is_trivial_type_change(tablet.r#type(), new_type);
    let names = || format!("{} -> {}", tablet.r#type().as_str_name(), new_type.as_str_name());
    if args.bool("dry-run") {
        if !allowed {
            bail!("invalid type transition {}: {}", args::alias_text(&alias), names());
        }
        wr.logger().println(format!("- {}", topoproto::tablet_awkable(&tablet))).await;
        tablet.set_type(new_type);
        wr.logger().println(format!("+ {}", topoproto::tablet_awkable(&tablet))).await;
        return Ok(());
    }
    if !allowed {
        bail!(
            "tablet {} type change {} is not an allowed transition for ChangeSlaveType",
            args::alias_text(&alias),
            names()
        );
    }
    within(limit(&wr), wr.tmc().change_type(&tablet, tmd::ChangeTypeRequest { tablet_type: new_type.into() })).await?;
    Ok(())
}

/// What Ping sends. The tablet has to send it back.
const PING: &str = "payload";

async fn ping(wr: Wrangler, args: Parsed) -> Result {
    let tablet = the_tablet(&wr, &args, "Ping").await?;
    let answer = within(limit(&wr), wr.tmc().ping(&tablet, tmd::PingRequest { payload: PING.into() })).await?;
    if answer.payload != PING {
        bail!("ping answered {:?} instead of {PING:?}", answer.payload);
    }
    Ok(())
}

async fn refresh_state(wr: Wrangler, args: Parsed) -> Result {
    let tablet = the_tablet(&wr, &args, "RefreshState").await?;
    within(limit(&wr), wr.tmc().refresh_state(&tablet, tmd::RefreshStateRequest {})).await?;
    Ok(())
}

async fn refresh_state_by_shard(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "RefreshStateByShard")?)?;
    refresh_shard_tablets(&wr, &keyspace, &shard, None, &args::cells(&wr, &args).await?).await
}

/// RefreshState on the tablets of a shard, of one type and of some cells if given. A tablet that
/// fails is only worth a warning: it may be down.
pub(super) async fn refresh_shard_tablets(
    wr: &Wrangler,
    keyspace: &str,
    shard: &str,
    of_type: Option<TabletType>,
    cells: &[String],
) -> Result {
    let tablets = wr.topo().get_tablet_map_for_shard(keyspace, shard).await?;
    if let Some(error) = &tablets.error {
        warning!(
            wr,
            "RefreshTabletsByShard: got partial result for shard {keyspace}/{shard}, may not refresh all tablets everywhere: {error}"
        );
    }
    let refreshes = tablets.value.values().filter(|tablet| {
        of_type.is_none_or(|wanted| tablet.record.r#type() == wanted)
            && (cells.is_empty() || cells.contains(&tablet.alias().cell))
    });
    futures::future::join_all(refreshes.map(|tablet| async move {
        let alias = tablet.alias_string();
        info!(wr, "calling RefreshState on tablet {alias}");
        let call = wr.tmc().refresh_state(&tablet.record, tmd::RefreshStateRequest {});
        if let Err(error) = within(Duration::from_secs(60), call).await {
            warning!(wr, "RefreshTabletsByShard: failed to refresh {alias}: {error}");
        }
    }))
    .await;
    Ok(())
}

async fn run_health_check(wr: Wrangler, args: Parsed) -> Result {
    let tablet = the_tablet(&wr, &args, "RunHealthCheck").await?;
    within(limit(&wr), wr.tmc().run_health_check(&tablet, tmd::RunHealthCheckRequest {})).await?;
    Ok(())
}

async fn ignore_health_error(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <tablet alias> and <ignore regexp> arguments are required for the IgnoreHealthError command";
    let [alias, pattern] = exactly(&args, message)?;
    let tablet = tablet_named(&wr, alias).await?;
    let request = tmd::IgnoreHealthErrorRequest { pattern: pattern.to_owned() };
    within(limit(&wr), wr.tmc().ignore_health_error(&tablet, request)).await?;
    Ok(())
}

async fn sleep(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <tablet alias> and <duration> arguments are required for the Sleep command";
    let [alias, duration] = exactly(&args, message)?;
    let tablet = tablet_named(&wr, alias).await?;
    let duration = servenv::flags::go_duration(duration).map_err(|_| err!("time: invalid duration {duration}"))?;
    let duration = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    wr.tmc().sleep(&tablet, tmd::SleepRequest { duration }).await?;
    Ok(())
}

async fn execute_hook(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <tablet alias> and <hook name> arguments are required for the ExecuteHook command";
    let words = at_least(&args, 2, message)?;
    let tablet = tablet_named(&wr, &words[0]).await?;
    let name = &words[1];
    if name.contains('/') {
        bail!("hook name cannot contain a '/'");
    }
    let request =
        tmd::ExecuteHookRequest { name: name.clone(), parameters: words[2..].to_vec(), extra_env: BTreeMap::new() };
    let result = wr.tmc().execute_hook(&tablet, request).await?;
    let json = serde_json::json!({
        "ExitStatus": result.exit_status,
        "Stdout": result.stdout,
        "Stderr": result.stderr,
    });
    wr.logger().println(vtjson::go_indent(&json)).await;
    Ok(())
}

/// Prints a query result as the command's `-json` flag says.
pub(super) async fn print_result(wr: &Wrangler, args: &Parsed, result: &query::QueryResult) {
    if args.bool("json") {
        wr.logger().println(output::result_json(result)).await;
    } else {
        wr.logger().print(output::result_table(result)).await;
    }
}

async fn execute_fetch_as_app(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <tablet alias> and <sql command> arguments are required for the ExecuteFetchAsApp command";
    let [alias, sql] = exactly(&args, message)?;
    let tablet = tablet_named(&wr, alias).await?;
    if args.bool("use_pool") {
        info!(wr, "ExecuteFetchAsApp always uses the tablet's pool");
    }
    let request = tmd::ExecuteFetchAsAppRequest { query: sql.into(), max_rows: args.uint("max_rows") };
    let result = wr.tmc().execute_fetch_as_app(&tablet, request).await?.result.unwrap_or_default();
    print_result(&wr, &args, &result).await;
    Ok(())
}

async fn execute_fetch_as_dba(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <tablet alias> and <sql command> arguments are required for the ExecuteFetchAsDba command";
    let [alias, sql] = exactly(&args, message)?;
    let tablet = tablet_named(&wr, alias).await?;
    let request = tmd::ExecuteFetchAsDbaRequest {
        query: sql.into(),
        db_name: topoproto::tablet_db_name(&tablet),
        max_rows: args.uint("max_rows"),
        disable_binlogs: args.bool("disable_binlogs"),
        reload_schema: args.bool("reload_schema"),
    };
    let result = wr.tmc().execute_fetch_as_dba(&tablet, request).await?.result.unwrap_or_default();
    print_result(&wr, &args, &result).await;
    Ok(())
}

async fn v_replication_exec(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <tablet alias> and <sql command> arguments are required for the VReplicationExec command";
    let [alias, sql] = exactly(&args, message)?;
    let tablet = tablet_named(&wr, alias).await?;
    let request = tmd::VReplicationExecRequest { query: sql.to_owned() };
    let result = wr.tmc().v_replication_exec(&tablet, request).await?.result.unwrap_or_default();
    print_result(&wr, &args, &result).await;
    Ok(())
}

async fn backup(wr: Wrangler, args: Parsed) -> Result {
    let [alias] = exactly(&args, "the Backup command requires the <tablet alias> argument")?;
    let tablet = tablet_named(&wr, alias).await?;
    let _ = (args.int("concurrency"), args.bool("allow_master"), tablet);
    not_built("Backup")
}

async fn restore(wr: Wrangler, args: Parsed) -> Result {
    let [alias] = exactly(&args, "the RestoreFromBackup command requires the <tablet alias> argument")?;
    tablet_named(&wr, alias).await?;
    not_built("RestoreFromBackup")
}

async fn reparent_tablet(wr: Wrangler, args: Parsed) -> Result {
    reparent::check_active_reparents(&wr)?;
    let [alias] = exactly(&args, "action ReparentTablet requires <tablet alias>")?;
    reparent::reparent_tablet(&wr, &args::tablet_alias(alias)?).await
}
