//! Commands on shards: their records, their tablets, their masters.

use servenv::flags::Parsed;
use topo::{Update, topoproto};
use vtproto::topodata::{self, TabletAlias};

use crate::args::{self, ALL_TYPES, at_least, exactly, only};
use crate::command::{Command, command};
use crate::commands::not_built::not_built;
use crate::error::{Error, Result, bail};
use crate::locked::with_keyspace_lock;
use crate::logger::info;
use crate::{Wrangler, positions, reparent, shards, validator};

pub(super) const COMMANDS: &[Command] = &[
    command!(
        "CreateShard",
        "[-force] [-parent] <keyspace/shard>",
        "Creates the record of a shard.",
        |f| {
            f.bool("force", false, "a shard that exists is no error").bool(
                "parent",
                false,
                "create the keyspace if it does not exist",
            );
        },
        create_shard
    ),
    command!(
        "GetShard",
        "<keyspace/shard>",
        "Outputs a JSON structure that contains information about the Shard.",
        get_shard
    ),
    command!(
        "ValidateShard",
        "[-ping-tablets] <keyspace/shard>",
        "Checks that all records of a shard agree, and that its tablets answer and replicate.",
        |f| {
            f.bool("ping-tablets", true, "ping every tablet and compare the master's list of replicas");
        },
        validate_shard
    ),
    command!(
        "ShardReplicationPositions",
        "<keyspace/shard>",
        "Shows the replication status of each tablet of the shard.",
        shard_replication_positions
    ),
    command!("ListShardTablets", "<keyspace/shard>", "Lists all tablets of the shard.", list_shard_tablets),
    command!(
        "SetShardIsMasterServing",
        "<keyspace/shard> <is_master_serving>",
        "Sets whether the shard's master serves. For emergencies: no tablet is told.",
        set_shard_is_master_serving
    ),
    command!(
        "SetShardTabletControl",
        "[--cells=c1,c2,...] [--blacklisted_tables=t1,t2,...] [--remove] [--disable_query_service] <keyspace/shard> <tablet type>",
        "Sets which tables tablets of a type must not serve, or whether they serve at all. For emergencies: no tablet is told.",
        |f| {
            f.string("cells", "", "only these cells; empty means all")
                .string("blacklisted_tables", "", "tables not to serve: names, or expressions such as /t.*/")
                .bool("remove", false, "remove cells for this type, or the whole entry")
                .bool("disable_query_service", false, "disable the query service for this type");
        },
        set_shard_tablet_control
    ),
    command!(
        "UpdateSrvKeyspacePartition",
        "[--cells=c1,c2,...] [--remove] <keyspace/shard> <tablet type>",
        "Adds the shard to the serving graph of a type, or removes it. For emergencies.",
        |f| {
            f.string("cells", "", "only these cells; empty means all").bool(
                "remove",
                false,
                "remove the shard from the partition instead of adding it",
            );
        },
        update_srv_keyspace_partition
    ),
    command!(
        "SourceShardDelete",
        "<keyspace/shard> <uid>",
        "Deletes a source of filtered replication from a shard. For emergencies.",
        source_shard_delete
    ),
    command!(
        "SourceShardAdd",
        "[--key_range=<keyrange>] [--tables=<table1,table2,...>] <keyspace/shard> <uid> <source keyspace/shard>",
        "Adds a source of filtered replication to a shard. For emergencies.",
        |f| {
            f.string("key_range", "", "the range to replicate, for a horizontal split").string(
                "tables",
                "",
                "the tables to replicate, for a vertical split",
            );
        },
        source_shard_add
    ),
    command!(
        "ShardReplicationAdd",
        "<keyspace/shard> <tablet alias>",
        "HIDDEN Enters a tablet into the shard's list.",
        shard_replication_add
    )
    .hide(),
    command!(
        "ShardReplicationRemove",
        "<keyspace/shard> <tablet alias>",
        "HIDDEN Removes a tablet from the shard's list.",
        shard_replication_remove
    )
    .hide(),
    command!(
        "ShardReplicationFix",
        "<cell> <keyspace/shard>",
        "Removes the first wrong entry of the shard's list in a cell.",
        shard_replication_fix
    ),
    command!(
        "WaitForFilteredReplication",
        "[-max_delay <max_delay, default 30s>] <keyspace/shard>",
        "Waits until the shard's filtered replication has caught up.",
        |f| {
            f.duration("max_delay", std::time::Duration::from_secs(30), "the delay to reach");
        },
        wait_for_filtered_replication
    ),
    command!(
        "RemoveShardCell",
        "[-force] [-recursive] <keyspace/shard> <cell>",
        "Removes a shard from a cell which holds none of its tablets any more.",
        |f| {
            f.bool("force", false, "go on even if the cell's topology server cannot be reached").bool(
                "recursive",
                false,
                "delete the tablets of the shard in the cell too",
            );
        },
        remove_shard_cell
    ),
    command!(
        "DeleteShard",
        "[-recursive] [-even_if_serving] <keyspace/shard> ...",
        "Deletes shards. A shard that serves or has tablets is kept unless the flags say otherwise.",
        |f| {
            f.bool("recursive", false, "delete the tablets of the shard too").bool(
                "even_if_serving",
                false,
                "delete a shard that serves",
            );
        },
        delete_shard
    ),
    command!("ListBackups", "<keyspace/shard>", "Lists the backups of a shard.", list_backups),
    command!(
        "BackupShard",
        "[-concurrency=4] [-allow_master=false] <keyspace/shard>",
        "Takes a backup of the tablet of the shard that lags least.",
        |f| {
            f.int("concurrency", 4, "files compressed at the same time").bool(
                "allow_master",
                false,
                "back up the master if there is nothing else",
            );
        },
        backup_shard
    ),
    command!("RemoveBackup", "<keyspace/shard> <backup name>", "Removes a backup.", remove_backup),
    command!(
        "InitShardMaster",
        "[-force] [-wait_slave_timeout=<duration>] <keyspace/shard> <tablet alias>",
        "Makes a tablet the first master of a shard and the others its replicas. All replication starts anew: data that only another tablet has is lost. For shards with data use PlannedReparentShard or EmergencyReparentShard.",
        |f| {
            f.bool("force", false, "go on although the tablet does not seem to be the shard's master").duration(
                "wait_slave_timeout",
                std::time::Duration::from_secs(30),
                "how long to wait for replicas",
            );
        },
        init_shard_master
    ),
    command!(
        "PlannedReparentShard",
        "-keyspace_shard=<keyspace/shard> [-new_master=<tablet alias>] [-avoid_master=<tablet alias>] [-wait_slave_timeout=<duration>]",
        "Moves mastership to another tablet, or away from one. The present master has to be up.",
        |f| {
            f.string("keyspace_shard", "", "keyspace/shard to reparent")
                .string("new_master", "", "the tablet to be master")
                .string("avoid_master", "", "the tablet not to be master")
                .duration(
                    "wait_slave_timeout",
                    std::time::Duration::ZERO,
                    "how long to wait for replicas; 0 means -remote_operation_timeout",
                );
        },
        planned_reparent_shard
    ),
    command!(
        "EmergencyReparentShard",
        "-keyspace_shard=<keyspace/shard> -new_master=<tablet alias> [-wait_slave_timeout=<duration>]",
        "Makes a tablet master when the present one is dead. The old master's record is deleted.",
        |f| {
            f.string("keyspace_shard", "", "keyspace/shard to reparent")
                .string("new_master", "", "the tablet to be master")
                .duration("wait_slave_timeout", std::time::Duration::from_secs(30), "how long to wait for replicas");
        },
        emergency_reparent_shard
    ),
    command!(
        "TabletExternallyReparented",
        "<tablet alias>",
        "Takes note that somebody else made this tablet the master.",
        tablet_externally_reparented
    ),
];

async fn create_shard(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "CreateShard")?)?;
    if args.bool("parent") {
        match wr.topo().create_keyspace(&keyspace, &topodata::Keyspace::default()).await {
            Ok(()) => {}
            Err(error) if error.is_node_exists() => {}
            Err(error) => return Err(error.into()),
        }
    }
    match wr.topo().create_shard(&keyspace, &shard).await {
        Err(error) if error.is_node_exists() && args.bool("force") => {
            info!(wr, "shard {keyspace}/{shard} already exists (ignoring error with -force)");
            Ok(())
        }
        outcome => Ok(outcome?),
    }
}

async fn get_shard(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "GetShard")?)?;
    let info = wr.topo().get_shard(&keyspace, &shard).await?;
    wr.logger().println(vtjson::pb_json(&info.record)).await;
    Ok(())
}

async fn validate_shard(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "ValidateShard")?)?;
    validator::validate_shard(&wr, &keyspace, &shard, args.bool("ping-tablets")).await
}

async fn shard_replication_positions(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "ShardReplicationPositions")?)?;
    for tablet in positions::shard_positions(&wr, &keyspace, &shard).await? {
        let status = match &tablet.status {
            Some(status) => format!("{} {}", status.position, status.seconds_behind_master),
            None => "<err> <err> <err>".to_owned(),
        };
        wr.logger().println(format!("{} {status}", topoproto::tablet_awkable(&tablet.tablet))).await;
    }
    Ok(())
}

async fn list_shard_tablets(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "ListShardTablets")?)?;
    let tablets = wr.topo().get_tablet_map_for_shard(&keyspace, &shard).await?;
    let mut list: Vec<_> = tablets.value.values().collect();
    list.sort_by(|a, b| topoproto::compare_aliases(&a.alias(), &b.alias()));
    for tablet in list {
        wr.logger().println(topoproto::tablet_awkable(&tablet.record)).await;
    }
    match tablets.error {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

async fn set_shard_is_master_serving(wr: Wrangler, args: Parsed) -> Result {
    let message =
        "the <keyspace/shard> <is_master_serving> arguments are both required for the SetShardIsMasterServing command";
    let [shard, serving] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    let serving = args::boolean(serving)?;
    let action = format!("SetShardIsMasterServing({keyspace},{shard},{serving})");
    with_keyspace_lock!(&wr, &keyspace, &action, |_lock| {
        wr.topo()
            .update_shard_fields(&keyspace, &shard, |info| {
                info.record.is_master_serving = serving;
                Ok(Update::Write)
            })
            .await?;
        Ok(())
    })
}

async fn set_shard_tablet_control(wr: Wrangler, args: Parsed) -> Result {
    let message =
        "the <keyspace/shard> and <tablet type> arguments are both required for the SetShardTabletControl command";
    let [shard, tablet_type] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    let tablet_type = args::tablet_type(tablet_type, ALL_TYPES)?;
    let (cells, tables) = (args::cells(&wr, &args).await?, args.list("blacklisted_tables"));
    let (remove, disable) = (args.bool("remove"), args.bool("disable_query_service"));
    // One lock over both edits: nobody sees the first without the second.
    with_keyspace_lock!(&wr, &keyspace, "SetShardTabletControl", |lock| {
        let info = wr
            .topo()
            .update_shard_fields(&keyspace, &shard, |info| {
                info.update_source_blacklisted_tables(lock, tablet_type, &cells, remove, &tables)?;
                Ok(Update::Write)
            })
            .await?;
        if !remove && tables.is_empty() {
            wr.topo().update_disable_query_service(lock, &[info], tablet_type, &cells, disable).await?;
        }
        Ok(())
    })
}

async fn update_srv_keyspace_partition(wr: Wrangler, args: Parsed) -> Result {
    let message =
        "the <keyspace/shard> and <tablet type> arguments are both required for the UpdateSrvKeyspacePartition command";
    let [shard, tablet_type] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    let tablet_type = args::tablet_type(tablet_type, ALL_TYPES)?;
    let (cells, remove) = (args::cells(&wr, &args).await?, args.bool("remove"));
    with_keyspace_lock!(&wr, &keyspace, "UpdateSrvKeyspacePartitions", |lock| {
        let info = [wr.topo().get_shard(&keyspace, &shard).await?];
        if remove {
            wr.topo().delete_srv_keyspace_partitions(lock, &info, tablet_type, &cells).await?;
        } else {
            wr.topo().add_srv_keyspace_partitions(lock, &info, tablet_type, &cells).await?;
        }
        Ok(())
    })
}

async fn source_shard_delete(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <keyspace/shard> and <uid> arguments are both required for the SourceShardDelete command";
    let [shard, uid] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    let uid = args::uid(uid)?;
    with_keyspace_lock!(&wr, &keyspace, &format!("SourceShardDelete({uid})"), |lock| {
        wr.topo()
            .update_shard_fields(&keyspace, &shard, |info| {
                info.delete_source_shard(lock, uid)?;
                Ok(Update::Write)
            })
            .await?;
        Ok(())
    })
}

async fn source_shard_add(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <keyspace/shard>, <uid>, and <source keyspace/shard> arguments are all required for the SourceShardAdd command";
    let [shard, uid, source] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    let uid = args::uid(uid)?;
    let (source_keyspace, source_shard) = args::keyspace_shard(source)?;
    let key_range = match args.str("key_range") {
        "" => None,
        text => topo::validate_shard_name(text)?.1,
    };
    let source = topodata::shard::SourceShard {
        uid,
        keyspace: source_keyspace,
        shard: source_shard,
        key_range,
        tables: args.list("tables"),
    };
    with_keyspace_lock!(&wr, &keyspace, &format!("SourceShardAdd({uid})"), |lock| {
        wr.topo()
            .update_shard_fields(&keyspace, &shard, |info| {
                info.add_source_shard(lock, source.clone())?;
                Ok(Update::Write)
            })
            .await?;
        Ok(())
    })
}

fn replication_args(args: &Parsed, command: &str) -> Result<(String, String, TabletAlias)> {
    let message = format!("the <keyspace/shard> and <tablet alias> arguments are required for the {command} command");
    let [shard, alias] = exactly(args, &message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    Ok((keyspace, shard, args::tablet_alias(alias)?))
}

async fn shard_replication_add(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard, alias) = replication_args(&args, "ShardReplicationAdd")?;
    Ok(wr.topo().add_shard_replication_node(&keyspace, &shard, &alias).await?)
}

async fn shard_replication_remove(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard, alias) = replication_args(&args, "ShardReplicationRemove")?;
    Ok(wr.topo().remove_shard_replication_node(&keyspace, &shard, &alias).await?)
}

async fn shard_replication_fix(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <cell> and <keyspace/shard> arguments are required for the ShardReplicationFix command";
    let [cell, shard] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    match wr.topo().fix_shard_replication(cell, &keyspace, &shard).await? {
        Some(alias) => info!(wr, "removed {} from the replication list", topoproto::tablet_alias_string(Some(&alias))),
        None => info!(wr, "all entries in the replication list are valid"),
    }
    Ok(())
}

async fn wait_for_filtered_replication(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "WaitForFilteredReplication")?)?;
    let max_delay = args.duration("max_delay");
    crate::health::wait_for_filtered_replication(&wr, &keyspace, &shard, max_delay).await
}

async fn remove_shard_cell(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <keyspace/shard> and <cell> arguments are required for the RemoveShardCell command";
    let [shard, cell] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    shards::remove_shard_cell(&wr, &keyspace, &shard, cell, args.bool("force"), args.bool("recursive")).await
}

async fn delete_shard(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <keyspace/shard> argument must be used to identify at least one keyspace and shard when calling the DeleteShard command";
    let words = at_least(&args, 1, message)?;
    for (keyspace, shard) in shards::expand(&wr, words).await? {
        match shards::delete_shard(&wr, &keyspace, &shard, args.bool("recursive"), args.bool("even_if_serving")).await {
            Err(error) if error.is_no_node() => info!(wr, "shard {keyspace}/{shard} doesn't exist, skipping it"),
            outcome => outcome?,
        }
    }
    Ok(())
}

async fn list_backups(wr: Wrangler, args: Parsed) -> Result {
    let [shard] = exactly(&args, "action ListBackups requires <keyspace/shard>")?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    for name in crate::backups::list(&wr.config().backup_storage, &keyspace, &shard).await? {
        wr.logger().println(name).await;
    }
    Ok(())
}

async fn backup_shard(wr: Wrangler, args: Parsed) -> Result {
    let [shard] = exactly(&args, "action BackupShard requires <keyspace/shard>")?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    wr.topo().get_shard(&keyspace, &shard).await?;
    let _ = (args.int("concurrency"), args.bool("allow_master"));
    not_built("BackupShard")
}

async fn remove_backup(wr: Wrangler, args: Parsed) -> Result {
    let [shard, name] = exactly(&args, "action RemoveBackup requires <keyspace/shard> <backup name>")?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    crate::backups::remove(&wr.config().backup_storage, &keyspace, &shard, name).await
}

async fn init_shard_master(wr: Wrangler, args: Parsed) -> Result {
    reparent::check_active_reparents(&wr)?;
    let [shard, alias] = exactly(&args, "action InitShardMaster requires <keyspace/shard> <tablet alias>")?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    let alias = args::tablet_alias(alias)?;
    let limit = args.duration("wait_slave_timeout");
    reparent::init_shard_master(&wr, keyspace, shard, alias, args.bool("force"), limit).await
}

/// The shard and the new master, from flags or in the old way from words.
fn reparent_args(args: &Parsed, usage: &str, command: &str) -> Result<(String, String, Option<TabletAlias>)> {
    let (mut shard, mut new_master) = (args.str("keyspace_shard"), args.str("new_master"));
    match args.args() {
        [] => {}
        [word_shard, word_master] => {
            if !shard.is_empty() || !new_master.is_empty() {
                bail!(
                    "cannot use legacy syntax and flags -keyspace_shard and -new_master for action {command} at the same time"
                );
            }
            (shard, new_master) = (word_shard, word_master);
        }
        _ => return Err(Error::rule(usage)),
    }
    if shard.is_empty() {
        return Err(Error::rule(usage));
    }
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    let new_master = if new_master.is_empty() { None } else { Some(args::tablet_alias(new_master)?) };
    Ok((keyspace, shard, new_master))
}

async fn planned_reparent_shard(wr: Wrangler, args: Parsed) -> Result {
    reparent::check_active_reparents(&wr)?;
    let usage = "action PlannedReparentShard requires -keyspace_shard=<keyspace/shard> [-new_master=<tablet alias>] [-avoid_master=<tablet alias>]";
    let (keyspace, shard, new_master) = reparent_args(&args, usage, "PlannedReparentShard")?;
    let avoid = match args.str("avoid_master") {
        "" => None,
        alias => Some(args::tablet_alias(alias)?),
    };
    let limit = match args.duration("wait_slave_timeout") {
        limit if limit.is_zero() => wr.config().remote_operation_timeout,
        limit => limit,
    };
    reparent::planned_reparent_shard(&wr, keyspace, shard, new_master, avoid, limit).await
}

async fn emergency_reparent_shard(wr: Wrangler, args: Parsed) -> Result {
    reparent::check_active_reparents(&wr)?;
    let usage = "action EmergencyReparentShard requires -keyspace_shard=<keyspace/shard> -new_master=<tablet alias>";
    let (keyspace, shard, new_master) = reparent_args(&args, usage, "EmergencyReparentShard")?;
    let Some(new_master) = new_master else { bail!("{usage}") };
    reparent::emergency_reparent_shard(&wr, keyspace, shard, new_master, args.duration("wait_slave_timeout")).await
}

async fn tablet_externally_reparented(wr: Wrangler, args: Parsed) -> Result {
    let alias = args::tablet_alias(only(&args, "tablet alias", "TabletExternallyReparented")?)?;
    reparent::tablet_externally_reparented(&wr, &alias).await
}
