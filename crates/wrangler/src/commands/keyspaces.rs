//! Commands on keyspaces.

use servenv::flags::Parsed;
use topo::topoproto;
use vtproto::topodata::{self, KeyspaceIdType, KeyspaceType, TabletType};
use vtproto::vttime;

use crate::args::{self, ALL_TYPES, SERVING_TYPES, at_least, exactly, only};
use crate::command::{Command, command};
use crate::error::{Result, bail, err};
use crate::locked::with_keyspace_lock;
use crate::logger::{error, info, warning};
use crate::{Wrangler, shards, validator};

pub(super) const COMMANDS: &[Command] = &[
    command!(
        "CreateKeyspace",
        "[-sharding_column_name=name] [-sharding_column_type=type] [-served_from=tablettype1:ks1,tablettype2:ks2,...] [-force] [-keyspace_type=type] [-base_keyspace=base_keyspace] [-snapshot_time=time] [-allow_empty_vschema] <keyspace name>",
        "Creates a keyspace.",
        |f| {
            f.string("sharding_column_name", "", "the column that shards by (old ways of sharding)")
                .string("sharding_column_type", "", "its type: unset, uint64 or bytes")
                .bool("force", false, "a keyspace that exists is no error")
                .bool("allow_empty_vschema", false, "do not write an empty vschema")
                .string(
                    "served_from",
                    "",
                    "comma-separated list of tablettype:keyspace pairs served by other keyspaces",
                )
                .string("keyspace_type", "", "NORMAL or SNAPSHOT")
                .string("base_keyspace", "", "the keyspace that a SNAPSHOT is of")
                .string("snapshot_time", "", "the time that a SNAPSHOT is of (RFC 3339)");
        },
        create_keyspace
    ),
    command!(
        "DeleteKeyspace",
        "[-recursive] <keyspace>",
        "Deletes a keyspace which has no shards, or with all its shards.",
        |f| {
            f.bool("recursive", false, "delete the keyspace's shards and their tablets too");
        },
        delete_keyspace
    ),
    command!(
        "RemoveKeyspaceCell",
        "[-force] [-recursive] <keyspace> <cell>",
        "Removes all shards of a keyspace from a cell which holds none of their tablets any more.",
        |f| {
            f.bool("force", false, "go on even if the cell's topology server cannot be reached").bool(
                "recursive",
                false,
                "delete the tablets in the cell too",
            );
        },
        remove_keyspace_cell
    ),
    command!(
        "GetKeyspace",
        "<keyspace>",
        "Outputs a JSON structure that contains information about the Keyspace.",
        get_keyspace
    ),
    command!("GetKeyspaces", "", "Outputs a sorted list of all keyspaces.", get_keyspaces),
    command!(
        "SetKeyspaceShardingInfo",
        "[-force] <keyspace name> [<column name>] [<column type>]",
        "Updates the sharding column of a keyspace (old ways of sharding).",
        |f| {
            f.bool("force", false, "change a column that is set already");
        },
        set_keyspace_sharding_info
    ),
    command!(
        "SetKeyspaceServedFrom",
        "[-source=<source keyspace name>] [-remove] [-cells=c1,c2,...] <keyspace name> <tablet type>",
        "Changes which keyspace serves a type. For emergencies: the serving graph is not rebuilt.",
        |f| {
            f.string("source", "", "the keyspace that serves")
                .bool("remove", false, "remove the entry instead of adding it")
                .string("cells", "", "only these cells; empty means all");
        },
        set_keyspace_served_from
    ),
    command!(
        "RebuildKeyspaceGraph",
        "[-cells=c1,c2,...] <keyspace> ...",
        "Rebuilds the serving data of keyspaces; every cell gets the same.",
        |f| {
            f.string("cells", "", "only these cells; empty means all");
        },
        rebuild_keyspace_graph
    ),
    command!(
        "ValidateKeyspace",
        "[-ping-tablets] <keyspace name>",
        "Checks that all records of a keyspace agree.",
        |f| {
            f.bool("ping-tablets", false, "ping every tablet");
        },
        validate_keyspace
    ),
    command!(
        "GenerateShardRanges",
        "<number of shards>",
        "Prints the names of so many shards of nearly equal size.",
        generate_shard_ranges
    ),
    command!(
        "FindAllShardsInKeyspace",
        "<keyspace>",
        "Prints all shards of a keyspace as JSON.",
        find_all_shards_in_keyspace
    ),
    command!(
        "WaitForDrain",
        "[-timeout <duration>] [-retry_delay <duration>] [-initial_wait <duration>] [-cells=c1,c2,...] <keyspace/shard> <served tablet type>",
        "Waits until the tablets of a type serve no queries any more. Only for types that vtgate balances.",
        |f| {
            f.string("cells", "", "the cells to look at; empty means all")
                .duration("timeout", std::time::Duration::ZERO, "how long to wait; 0 means without end")
                .duration("retry_delay", std::time::Duration::from_secs(1), "how often to look")
                .duration("initial_wait", std::time::Duration::from_secs(60), "how long to wait before the first look");
        },
        wait_for_drain
    ),
];

async fn create_keyspace(wr: Wrangler, args: Parsed) -> Result {
    let keyspace = only(&args, "keyspace name", "CreateKeyspace")?;
    let column_type = topoproto::parse_keyspace_id_type(args.str("sharding_column_type"))?;
    let keyspace_type = match args.str("keyspace_type") {
        "" => KeyspaceType::Normal,
        text => match topoproto::parse_keyspace_type(text) {
            Ok(parsed) => parsed,
            Err(problem) => {
                error!(wr, "error parsing keyspace type {text}, defaulting to NORMAL: {problem}");
                KeyspaceType::Normal
            }
        },
    };
    let mut record = topodata::Keyspace {
        sharding_column_name: args.str("sharding_column_name").to_owned(),
        sharding_column_type: column_type.into(),
        keyspace_type: keyspace_type.into(),
        base_keyspace: args.str("base_keyspace").to_owned(),
        ..Default::default()
    };
    if keyspace_type == KeyspaceType::Snapshot {
        if record.base_keyspace.is_empty() {
            bail!("base_keyspace must be specified while creating a snapshot keyspace");
        }
        wr.topo()
            .get_keyspace(&record.base_keyspace)
            .await
            .map_err(|error| err!("cannot find base_keyspace: {}: {error}", record.base_keyspace))?;
        record.snapshot_time = Some(snapshot_time(args.str("snapshot_time"))?);
    }
    for pair in args.list("served_from").iter().filter(|pair| !pair.is_empty()) {
        let Some((tablet_type, source)) = pair.split_once(':').filter(|(_, source)| !source.contains(':')) else {
            bail!("invalid tablet type:keyspace pair: {pair:?}");
        };
        record.served_froms.push(topodata::keyspace::ServedFrom {
            tablet_type: args::tablet_type(tablet_type, SERVING_TYPES)?.into(),
            cells: Vec::new(),
            keyspace: source.to_owned(),
        });
    }

    let created = wr.topo().create_keyspace(keyspace, &record).await;
    let exists = created.as_ref().is_err_and(topo::TopoError::is_node_exists);
    if exists && args.bool("force") {
        info!(wr, "keyspace {keyspace} already exists (ignoring error with -force)");
    } else if !exists || args.bool("allow_empty_vschema") {
        created?;
    }
    if !args.bool("allow_empty_vschema") {
        // Its outcome decides: a keyspace that exists is no error here even without -force, which the
        // walkthrough relies on when it runs twice.
        wr.topo().ensure_vschema(keyspace).await?;
    }
    if keyspace_type == KeyspaceType::Snapshot {
        let mut vschema = wr.topo().get_vschema(&record.base_keyspace).await.unwrap_or_default();
        // Tables of a snapshot must not make names of the base keyspace ambiguous.
        vschema.require_explicit_routing = true;
        wr.topo().save_vschema(keyspace, &vschema).await?;
        wr.topo().rebuild_srv_vschema(&[]).await?;
    }
    Ok(())
}

fn snapshot_time(text: &str) -> Result<vttime::Time> {
    if text.is_empty() {
        bail!("snapshot_time must be specified when creating a snapshot keyspace");
    }
    let time = chrono::DateTime::parse_from_rfc3339(text)
        .map_err(|error| err!("cannot parse snapshot_time {text:?}: {error}"))?;
    if time > chrono::Utc::now() {
        bail!("snapshot_time can not be more than current time");
    }
    // Below a billion, but for a leap second.
    let nanoseconds = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(999_999_999);
    Ok(vttime::Time { seconds: time.timestamp(), nanoseconds })
}

async fn delete_keyspace(wr: Wrangler, args: Parsed) -> Result {
    let [keyspace] = exactly(&args, "must specify the <keyspace> argument for DeleteKeyspace")?;
    shards::delete_keyspace(&wr, keyspace, args.bool("recursive")).await
}

async fn remove_keyspace_cell(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <keyspace> and <cell> arguments are required for the RemoveKeyspaceCell command";
    let [keyspace, cell] = exactly(&args, message)?;
    for shard in wr.topo().get_shard_names(keyspace).await? {
        info!(wr, "removing cell {cell} from shard {keyspace}/{shard}");
        shards::remove_shard_cell(&wr, keyspace, &shard, cell, args.bool("force"), args.bool("recursive"))
            .await
            .map_err(|error| err!("can't remove cell {cell} from shard {keyspace}/{shard}: {error}"))?;
    }
    info!(wr, "removing cell {cell} keyspace {keyspace} SrvKeyspace object");
    Ok(wr.topo().delete_srv_keyspace(cell, keyspace).await?)
}

async fn get_keyspace(wr: Wrangler, args: Parsed) -> Result {
    let keyspace = only(&args, "keyspace", "GetKeyspace")?;
    let info = wr.topo().get_keyspace(keyspace).await?;
    wr.logger().println(vtjson::pb_json(&info.record)).await;
    Ok(())
}

async fn get_keyspaces(wr: Wrangler, _args: Parsed) -> Result {
    let keyspaces = wr.topo().get_keyspaces().await?;
    wr.logger().println(keyspaces.join("\n")).await;
    Ok(())
}

async fn set_keyspace_sharding_info(wr: Wrangler, args: Parsed) -> Result {
    let words = args.args();
    if words.is_empty() || words.len() > 3 {
        bail!(
            "the <keyspace name> argument is required for the SetKeyspaceShardingInfo command. The <column name> and <column type> arguments are both optional"
        );
    }
    let (keyspace, column) = (args.arg(0), args.arg(1));
    let column_type = topoproto::parse_keyspace_id_type(args.arg(2))?;
    if column.is_empty() != (column_type == KeyspaceIdType::Unset) {
        bail!("both <column name> and <column type> must be set, or both must be unset");
    }
    let force = args.bool("force");
    with_keyspace_lock!(&wr, keyspace, "SetKeyspaceShardingInfo", |lock| {
        let mut info = wr.topo().get_keyspace(keyspace).await?;
        let record = &mut info.record;
        if !record.sharding_column_name.is_empty() && record.sharding_column_name != column {
            if !force {
                bail!("cannot change keyspace shardingColumnName from {} to {column}", record.sharding_column_name);
            }
            warning!(wr, "forcing keyspace ShardingColumnName change from {} to {column}", record.sharding_column_name);
        }
        let old_type = record.sharding_column_type();
        if old_type != KeyspaceIdType::Unset && old_type != column_type {
            let (old, new) = (old_type.as_str_name(), column_type.as_str_name());
            if !force {
                bail!("cannot change keyspace shardingColumnType from {old} to {new}");
            }
            warning!(wr, "forcing keyspace ShardingColumnType change from {old} to {new}");
        }
        record.sharding_column_name = column.to_owned();
        record.sharding_column_type = column_type.into();
        Ok(wr.topo().update_keyspace(lock, &mut info).await?)
    })
}

async fn set_keyspace_served_from(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <keyspace name> and <tablet type> arguments are required for the SetKeyspaceServedFrom command";
    let [keyspace, tablet_type] = exactly(&args, message)?;
    let tablet_type = args::tablet_type(tablet_type, SERVING_TYPES)?;
    let (source, cells, remove) = (args.str("source"), args::cells(&wr, &args).await?, args.bool("remove"));
    with_keyspace_lock!(&wr, keyspace, "SetKeyspaceServedFrom", |lock| {
        let mut info = wr.topo().get_keyspace(keyspace).await?;
        let all_cells = wr.topo().get_known_cells().await?;
        info.update_served_from_map(tablet_type, &cells, source, remove, &all_cells)?;
        Ok(wr.topo().update_keyspace(lock, &mut info).await?)
    })
}

async fn rebuild_keyspace_graph(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <keyspace> argument must be used to specify at least one keyspace when calling the RebuildKeyspaceGraph command";
    let words = at_least(&args, 1, message)?;
    let cells = args::cells(&wr, &args).await?;
    let mut keyspaces = Vec::new();
    for word in words {
        keyspaces.extend(shards::expand_keyspaces(&wr, word).await?);
    }
    for keyspace in keyspaces {
        info!(wr, "rebuilding keyspace {keyspace}");
        wr.topo().rebuild_keyspace(&keyspace, &cells).await?;
    }
    Ok(())
}

async fn validate_keyspace(wr: Wrangler, args: Parsed) -> Result {
    let keyspace = only(&args, "keyspace name", "ValidateKeyspace")?;
    validator::validate_keyspace(&wr, keyspace, args.bool("ping-tablets")).await
}

async fn find_all_shards_in_keyspace(wr: Wrangler, args: Parsed) -> Result {
    let keyspace = only(&args, "keyspace", "FindAllShardsInKeyspace")?;
    let shards = wr.topo().find_all_shards_in_keyspace(keyspace).await?;
    let json = shards.into_iter().map(|(name, info)| (name, vtjson::go_json(&info.record))).collect();
    wr.logger().println(vtjson::go_indent(&serde_json::Value::Object(json))).await;
    Ok(())
}

async fn generate_shard_ranges(wr: Wrangler, args: Parsed) -> Result {
    let number = only(&args, "number of shards", "GenerateShardRanges")?;
    let count = number.parse().map_err(|_| err!("{number} is not a number of shards"))?;
    let names = keyrange::generate_shard_ranges(count).map_err(|error| err!("{error}"))?;
    wr.logger().println(vtjson::go_indent(&serde_json::Value::from(names))).await;
    Ok(())
}

async fn wait_for_drain(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <keyspace/shard> and <tablet type> arguments are both required for the WaitForDrain command";
    let [shard, tablet_type] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    let tablet_type: TabletType = topoproto::parse_tablet_type(tablet_type)?;
    if !ALL_TYPES.contains(&tablet_type) || !topoproto::is_in_serving_graph(tablet_type) {
        bail!("served_type has to be in the serving graph, not {}", tablet_type.as_str_name());
    }
    let cells = match args::cells(&wr, &args).await? {
        cells if cells.is_empty() => wr.topo().get_known_cells().await?,
        cells => cells,
    };
    let drained = crate::health::wait_for_drain(
        &wr,
        &keyspace,
        &shard,
        tablet_type,
        &cells,
        args.duration("retry_delay"),
        args.duration("initial_wait"),
    );
    match args.duration("timeout") {
        limit if limit.is_zero() => drained.await,
        limit => match tokio::time::timeout(limit, drained).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("the tablets are not drained after {}", servenv::flags::print_go_duration(limit)),
        },
    }
}
