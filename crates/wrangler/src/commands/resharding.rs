//! Commands that move tables and shards: their arguments. What they do is in `crate::resharding`. Those of
//! workflows are not built yet.

use servenv::flags::Parsed;
use topo::topoproto;

use crate::args::{self, exactly, only};
use crate::command::{Command, command};
use crate::commands::not_built::not_built;
use crate::error::{Result, bail};
use crate::{Wrangler, cutover, resharding};

/// The default of `-filtered_replication_wait_time`.
const WAIT: std::time::Duration = std::time::Duration::from_secs(30);
/// The default of `-drain_timeout`.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) const COMMANDS: &[Command] = &[
    command!(
        "Reshard",
        "[-skip_schema_copy] <keyspace.workflow> <source_shards> <target_shards> | [-vtworker=<host:port>] [-reverse_replication] [-skip_schema_copy] [-skip_diff] [-dry_run] <keyspace> <source_shards> <target_shards>",
        "With a keyspace alone: splits or merges shards from beginning to end (schema, clone, diff, switch). The plan is printed first; run again after a failure, it goes on. With a workflow: starts copying a keyspace to other shards.",
        |f| {
            f.bool("skip_schema_copy", false, "the targets have the schema already")
                .string("vtworker", "", "gRPC address of a vtworker that serves, for clone and diff")
                .bool("reverse_replication", false, "replicate back to the sources afterwards")
                .bool("skip_diff", false, "do not compare sources and targets")
                .bool("dry_run", false, "only print the plan");
        },
        reshard
    ),
    command!(
        "Migrate",
        "[-cell=<cell>] [-tablet_types=<source_tablet_types>] -workflow=<workflow> <source_keyspace> <target_keyspace> <table_specs>",
        "Starts copying tables to another keyspace.",
        |f| {
            f.string("cell", "", "cell to replicate from")
                .string("tablet_types", "", "types to replicate from")
                .string("workflow", "", "the name of the workflow");
        },
        migrate
    ),
    command!(
        "CreateLookupVindex",
        "[-cell=<cell>] [-tablet_types=<source_tablet_types>] <keyspace> <json_spec>",
        "Creates a lookup vindex and fills it.",
        |f| {
            f.string("cell", "", "cell to replicate from").string("tablet_types", "", "types to replicate from");
        },
        create_lookup_vindex
    ),
    command!("Materialize", "<json_spec>", "Keeps a table as the result of a query over another one.", materialize),
    command!("SplitClone", "<keyspace> <from_shards> <to_shards>", "Starts replicating shards to others.", split_clone),
    command!(
        "VerticalSplitClone",
        "<from_keyspace> <to_keyspace> <tables>",
        "Starts replicating tables to another keyspace.",
        vertical_split_clone
    ),
    command!(
        "VDiff",
        "[-source_cell=<cell>] [-target_cell=<cell>] [-tablet_types=replica] [-filtered_replication_wait_time=30s] <keyspace.workflow>",
        "Compares all rows of a workflow's tables.",
        |f| {
            f.string("source_cell", "", "cell of the sources")
                .string("target_cell", "", "cell of the targets")
                .string("tablet_types", "", "types to compare")
                .duration("filtered_replication_wait_time", WAIT, "how long to wait for replication");
        },
        vdiff
    ),
    command!(
        "MigrateServedTypes",
        "[-cells=c1,c2,...] [-reverse] [-skip-refresh-state] [-filtered_replication_wait_time=30s] [-reverse_replication=false] [-drain_timeout=5s] [-cancel] <keyspace/shard> <served tablet type>",
        "Moves serving of a type from the source shards of a split to its destination shards.",
        |f| {
            f.string("cells", "", "only these cells; empty means all")
                .bool("reverse", false, "move serving back")
                .bool("skip-refresh-state", false, "do not refresh the source tablets");
            master_flags(f);
        },
        migrate_served_types
    ),
    command!(
        "MigrateServedFrom",
        "[-cells=c1,c2,...] [-reverse] [-filtered_replication_wait_time=30s] [-reverse_replication=false] [-drain_timeout=5s] [-cancel] <destination keyspace/shard> <served tablet type>",
        "Moves serving of a type from the source keyspace of a vertical split to its destination.",
        |f| {
            f.string("cells", "", "only these cells; empty means all").bool("reverse", false, "move serving back");
            master_flags(f);
        },
        migrate_served_from
    ),
    command!(
        "MigrateReads",
        "[-cells=c1,c2,...] [-reverse] -tablet_type={replica|rdonly} <keyspace.workflow>",
        "Moves reads of a type to the target of a workflow.",
        |f| {
            f.string("cells", "", "only these cells; empty means all")
                .bool("reverse", false, "move reads back")
                .string("tablet_type", "", "the type to move");
        },
        migrate_reads
    ),
    command!(
        "MigrateWrites",
        "[-filtered_replication_wait_time=30s] [-cancel] [-reverse_replication=true] <keyspace.workflow>",
        "Moves writes to the target of a workflow.",
        |f| {
            f.duration("filtered_replication_wait_time", WAIT, "how long to wait for replication")
                .bool("cancel", false, "give up a move that is under way")
                .bool("reverse_replication", true, "replicate back to the sources afterwards");
        },
        migrate_writes
    ),
    command!("CancelResharding", "<keyspace/shard>", "Gives up a split that is under way.", cancel_resharding),
    command!("ShowResharding", "<keyspace/shard>", "Shows a split that is under way.", show_resharding),
];

/// The flags of a MASTER migration.
fn master_flags(f: &mut servenv::FlagSet) {
    f.duration("filtered_replication_wait_time", WAIT, "master: how long to wait for replication")
        .bool("reverse_replication", false, "master: replicate back to the sources afterwards, so that it can go back")
        .duration("drain_timeout", DRAIN, "master: how long open transactions may go on before they are killed")
        .bool("cancel", false, "master: give up a migration that was interrupted; the sources serve again");
}

fn master_options(args: &Parsed) -> cutover::Options {
    cutover::Options {
        wait: args.duration("filtered_replication_wait_time"),
        drain: args.duration("drain_timeout"),
        reverse_replication: args.bool("reverse_replication"),
        cancel: args.bool("cancel"),
    }
}

async fn reshard(wr: Wrangler, args: Parsed) -> Result {
    let message = "three arguments are required: <keyspace.workflow>, source_shards, target_shards";
    let [keyspace, sources, targets] = exactly(&args, message)?;
    if keyspace.contains('.') {
        keyspace_workflow(keyspace)?;
        return not_built("Reshard");
    }
    let shards = |list: &str| list.split(',').map(str::to_owned).collect::<Vec<_>>();
    let request = resharding::Drive {
        keyspace: keyspace.to_owned(),
        sources: shards(sources),
        targets: shards(targets),
        vtworker: args.str("vtworker").to_owned(),
        skip_schema_copy: args.bool("skip_schema_copy"),
        skip_diff: args.bool("skip_diff"),
        reverse_replication: args.bool("reverse_replication"),
        dry_run: args.bool("dry_run"),
    };
    resharding::drive(&wr, request).await
}

async fn migrate(_wr: Wrangler, args: Parsed) -> Result {
    if args.str("workflow").is_empty() {
        bail!("a workflow name must be specified");
    }
    exactly::<3>(&args, "three arguments are required: source_keyspace, target_keyspace, tableSpecs")?;
    let _ = (args.str("cell"), args.str("tablet_types"));
    not_built("Migrate")
}

async fn create_lookup_vindex(_wr: Wrangler, args: Parsed) -> Result {
    exactly::<2>(&args, "two arguments are required: keyspace and json_spec")?;
    let _ = (args.str("cell"), args.str("tablet_types"));
    not_built("CreateLookupVindex")
}

async fn materialize(_wr: Wrangler, args: Parsed) -> Result {
    exactly::<1>(&args, "a single argument is required: <json_spec>")?;
    not_built("Materialize")
}

async fn split_clone(_wr: Wrangler, args: Parsed) -> Result {
    exactly::<3>(&args, "three arguments are required: keyspace, from_shards, to_shards")?;
    not_built("SplitClone")
}

async fn vertical_split_clone(_wr: Wrangler, args: Parsed) -> Result {
    exactly::<3>(&args, "three arguments are required: from_keyspace, to_keyspace, tables")?;
    not_built("VerticalSplitClone")
}

async fn vdiff(_wr: Wrangler, args: Parsed) -> Result {
    let [workflow] = exactly(&args, "<keyspace.workflow> is required")?;
    keyspace_workflow(workflow)?;
    let _ = (args.str("source_cell"), args.str("target_cell"), args.str("tablet_types"));
    let _ = args.duration("filtered_replication_wait_time");
    not_built("VDiff")
}

async fn migrate_served_types(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <source keyspace/shard> and <served tablet type> arguments are both required for the MigrateServedTypes command";
    let [shard, served_type] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    let served_type = args::served_type(served_type)?;
    if served_type == vtproto::topodata::TabletType::Master && args.bool("skip-refresh-state") {
        bail!("Skip refresh state is not allowed when migrating a MASTER");
    }
    let request = resharding::MigrateServedTypes {
        keyspace,
        shard,
        served_type,
        cells: args::cells(&wr, &args).await?,
        reverse: args.bool("reverse"),
        skip_refresh_state: args.bool("skip-refresh-state"),
        master: master_options(&args),
    };
    resharding::migrate_served_types(&wr, request).await
}

async fn migrate_served_from(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <destination keyspace/shard> and <served tablet type> arguments are both required for the MigrateServedFrom command";
    let [shard, served_type] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    let request = resharding::MigrateServedFrom {
        keyspace,
        shard,
        served_type: args::served_type(served_type)?,
        cells: args::cells(&wr, &args).await?,
        reverse: args.bool("reverse"),
        master: master_options(&args),
    };
    resharding::migrate_served_from(&wr, request).await
}

async fn migrate_reads(_wr: Wrangler, args: Parsed) -> Result {
    use vtproto::topodata::TabletType::{Rdonly, Replica};
    let _ = (args.list("cells"), args.bool("reverse"));
    let tablet_type = args::served_type(args.str("tablet_type"))?;
    if tablet_type != Rdonly && tablet_type != Replica {
        bail!("tablet_type must be rdonly or replica: {}", topoproto::tablet_type_lstring(tablet_type));
    }
    keyspace_workflow(only(&args, "keyspace.workflow", "MigrateReads")?)?;
    not_built("MigrateReads")
}

async fn migrate_writes(_wr: Wrangler, args: Parsed) -> Result {
    keyspace_workflow(only(&args, "keyspace.workflow", "MigrateWrites")?)?;
    let _ = (args.bool("cancel"), args.bool("reverse_replication"), args.duration("filtered_replication_wait_time"));
    not_built("MigrateWrites")
}

async fn cancel_resharding(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "CancelResharding")?)?;
    resharding::cancel_resharding(&wr, &keyspace, &shard).await
}

async fn show_resharding(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "ShowResharding")?)?;
    resharding::show_resharding(&wr, &keyspace, &shard).await
}

fn keyspace_workflow(word: &str) -> Result<(&str, &str)> {
    match word.split_once('.') {
        Some((keyspace, workflow)) if !workflow.contains('.') => Ok((keyspace, workflow)),
        _ => bail!("invalid format for <keyspace.workflow>: {word}"),
    }
}
