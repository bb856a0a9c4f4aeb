//! `Reshard <keyspace> <sources> <targets>`: a whole horizontal split by one command.
//!
//! The plan is a list of the commands that an operator would type, found from the records alone: what is
//! done is left out. It is printed first, and run only then; run again after a failure, it goes on with
//! what is left. The jobs of vtworker are sent to one that serves (`-vtworker host:port`; `worker.rs`).
//!
//! Shards that share rows are a group, which is cloned and switched as one: `-80,80-` to four shards are two
//! groups. Each step is done for all groups before the next.

use keyrange::KeyRange;
use topo::{ShardInfo, topoproto};
use vschema::VSchema;
use vtproto::topodata::TabletType;

use super::sides::{Sides, direction, overlapping};
use super::worker::run_on_vtworker;
use crate::error::{Result, bail, err};
use crate::schema::{Filter, get_schema};
use crate::{Wrangler, cutover};

/// One command.
pub(crate) struct Drive {
    pub keyspace: String,
    pub sources: Vec<String>,
    pub targets: Vec<String>,
    /// gRPC address of a vtworker.
    pub vtworker: String,
    pub skip_schema_copy: bool,
    pub skip_diff: bool,
    pub reverse_replication: bool,
    /// Print the plan and stop.
    pub dry_run: bool,
}

/// A command of the plan, as an operator would type it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Vtctl(Vec<String>),
    Vtworker(Vec<String>),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vtctl(words) => write!(f, "vtctlclient {}", words.join(" ")),
            Self::Vtworker(words) => write!(f, "vtworker {}", words.join(" ")),
        }
    }
}

/// A target as the records show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub name: String,
    /// The tablet to become master, where there is none.
    pub elect: Option<String>,
    /// Filtered replication has been set up.
    pub fed: bool,
}

/// Shards that share rows, and what has been done for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub sources: Vec<String>,
    pub targets: Vec<Target>,
    /// Types that the sources still serve.
    pub left: Vec<TabletType>,
    /// A switch of MASTER was begun and is not over.
    pub switching: bool,
}

impl Group {
    /// Nothing of MASTER has been touched.
    fn is_before_switch(&self) -> bool {
        self.left.contains(&TabletType::Master) && !self.switching
    }

    /// The sources have ceased to serve something already.
    fn has_moved_reads(&self) -> bool {
        [TabletType::Rdonly, TabletType::Replica].iter().any(|served_type| !self.left.contains(served_type))
    }

    fn is_cloned(&self) -> bool {
        self.targets.iter().all(|target| target.fed)
    }
}

/// The commands that are left to run. Pure.
pub(crate) fn plan(request: &Drive, groups: &[Group]) -> Vec<Step> {
    let path = |shard: &str| format!("{}/{shard}", request.keyspace);
    let vtctl = |words: &[&str]| Step::Vtctl(words.iter().map(|&word| word.to_owned()).collect());
    let worker = |words: &[&str]| Step::Vtworker(words.iter().map(|&word| word.to_owned()).collect());
    let waiting: Vec<&Group> = groups.iter().filter(|group| group.is_before_switch()).collect();
    let to_clone: Vec<&Group> = waiting.iter().copied().filter(|group| !group.is_cloned()).collect();
    let mut steps = Vec::new();
    for target in waiting.iter().flat_map(|group| &group.targets) {
        if let Some(elect) = &target.elect {
            steps.push(vtctl(&["InitShardMaster", "-force", &path(&target.name), elect]));
        }
    }
    for group in to_clone.iter().filter(|_| !request.skip_schema_copy) {
        for target in group.targets.iter().filter(|target| !target.fed) {
            steps.push(vtctl(&["CopySchemaShard", &path(&group.sources[0]), &path(&target.name)]));
        }
    }
    for group in &to_clone {
        steps.push(worker(&["SplitClone", "-min_healthy_rdonly_tablets=1", &path(&group.sources[0])]));
    }
    for target in waiting.iter().flat_map(|group| &group.targets) {
        steps.push(vtctl(&["WaitForFilteredReplication", &path(&target.name)]));
    }
    // Also where reads were moved by hand: nothing may be written to rows that nobody has compared.
    if !request.skip_diff {
        for source in waiting.iter().flat_map(|group| &group.sources) {
            steps.push(worker(&["MultiSplitDiff", "-min_healthy_tablets=1", &path(source)]));
        }
    }
    // Reads moved before: whoever moved them may not have come to telling the tablets that they left.
    for group in waiting.iter().filter(|group| group.has_moved_reads()) {
        for source in &group.sources {
            steps.push(vtctl(&["RefreshStateByShard", &path(source)]));
        }
    }
    for (served_type, name) in [(TabletType::Rdonly, "rdonly"), (TabletType::Replica, "replica")] {
        for group in groups.iter().filter(|group| group.left.contains(&served_type)) {
            steps.push(vtctl(&["MigrateServedTypes", &path(&group.sources[0]), name]));
        }
    }
    for group in groups.iter().filter(|group| group.left.contains(&TabletType::Master) || group.switching) {
        let mut words = vec!["MigrateServedTypes"];
        if request.reverse_replication {
            words.push("-reverse_replication");
        }
        let source = path(&group.sources[0]);
        words.extend([source.as_str(), "master"]);
        steps.push(vtctl(&words));
    }
    steps
}

/// Prints the plan of a split and runs it.
pub(crate) async fn drive(wr: &Wrangler, request: Drive) -> Result {
    check_ranges(&request.sources, &request.targets)?;
    let groups = look(wr, &request).await?;
    check_tables(wr, &request, &groups).await?;
    let steps = plan(&request, &groups);
    if steps.is_empty() {
        wr.logger().println(format!("{} is served by {}", request.keyspace, request.targets.join(","))).await;
        return Ok(());
    }
    wr.logger().println("Plan:").await;
    for (number, step) in steps.iter().enumerate() {
        wr.logger().println(format!("  {}. {step}", number + 1)).await;
    }
    if request.dry_run {
        return Ok(());
    }
    if request.vtworker.is_empty() && steps.iter().any(|step| matches!(step, Step::Vtworker(_))) {
        bail!(
            "the plan has jobs of vtworker: name one that serves with -vtworker <host:grpc_port>, or run these steps by hand and this command again"
        );
    }
    for (number, step) in steps.iter().enumerate() {
        wr.logger().println(format!("{}. {step}", number + 1)).await;
        let outcome = match step {
            Step::Vtctl(words) => Box::pin(crate::run_command(wr, words)).await,
            Step::Vtworker(words) => run_on_vtworker(wr, &request.vtworker, words).await,
        };
        outcome.map_err(|error| {
            err!("step {} ({step}) failed, run the same command again to go on: {error}", number + 1)
        })?;
    }
    Ok(())
}

/// The names alone tell whether this is a split.
fn check_ranges(sources: &[String], targets: &[String]) -> Result {
    let ranges = |names: &[String]| -> Result<Vec<Option<KeyRange>>> {
        let range = |name: &String| Ok(Some(topoproto::key_range(topo::validate_shard_name(name)?.1.as_ref())));
        names.iter().map(range).collect()
    };
    keyrange::validate_for_reshard(&ranges(sources)?, &ranges(targets)?).map_err(|error| err!("{error}"))
}

/// Before anything is copied: of each table there is to be cloned, the vschema has to say where its rows belong. Without a
/// sharded vschema the keyspace's sharding column does, which the clone checks.
async fn check_tables(wr: &Wrangler, request: &Drive, groups: &[Group]) -> Result {
    let Some(group) = groups.iter().find(|group| group.is_before_switch() && !group.is_cloned()) else {
        return Ok(());
    };
    let record = wr.topo().get_vschema(&request.keyspace).await?;
    if !record.sharded {
        return Ok(());
    }
    let vschema = VSchema::of_rows(&request.keyspace, record)?;
    let source = wr.topo().get_shard(&request.keyspace, &group.sources[0]).await?;
    let Some(master) = source.master_alias() else {
        bail!("shard {}/{} has no master", source.keyspace, source.shard_name)
    };
    let master = wr.topo().get_tablet(master).await?.record;
    let tables = get_schema(wr, &master, &Filter::default()).await?;
    for table in &tables.table_definitions {
        vschema.placement(&request.keyspace, &table.name)?;
    }
    Ok(())
}

/// Reads what there is, and refuses what is no split.
async fn look(wr: &Wrangler, request: &Drive) -> Result<Vec<Group>> {
    let keyspace = &request.keyspace;
    let mut sources = Vec::new();
    for name in &request.sources {
        sources.push(wr.topo().get_shard(keyspace, name).await?);
    }
    let mut targets = Vec::new();
    for name in &request.targets {
        targets.push(shard_with_tablets(wr, keyspace, name).await?);
    }
    let mut groups = Vec::new();
    for sides in groups_of(sources, targets) {
        groups.push(look_at(wr, sides).await?);
    }
    Ok(groups)
}

/// Shards that together share rows with no other of these. Each side is without gaps, and both end at the same place.
fn groups_of(mut sources: Vec<ShardInfo>, mut targets: Vec<ShardInfo>) -> Vec<Sides> {
    for side in [&mut sources, &mut targets] {
        side.sort_by_key(ShardInfo::range);
    }
    let (mut sources, mut targets) = (sources.into_iter(), targets.into_iter());
    let mut groups = Vec::new();
    while let (Some(source), Some(target)) = (sources.next(), targets.next()) {
        let (mut source_end, mut target_end) = (source.range(), target.range());
        let mut group = Sides { sources: vec![source], destinations: vec![target] };
        loop {
            let (side, end, rest) = match source_end.compare_end(&target_end) {
                std::cmp::Ordering::Equal => break,
                std::cmp::Ordering::Less => (&mut group.sources, &mut source_end, &mut sources),
                std::cmp::Ordering::Greater => (&mut group.destinations, &mut target_end, &mut targets),
            };
            let Some(next) = rest.next() else { break };
            *end = next.range();
            side.push(next);
        }
        groups.push(group);
    }
    groups
}

async fn look_at(wr: &Wrangler, sides: Sides) -> Result<Group> {
    let switching = cutover::is_unfinished(wr, &sides.sources[0].keyspace, &cutover::group_name(&sides)).await?;
    let mut left = Vec::new();
    for source in &sides.sources {
        left.extend(wr.topo().get_shard_serving_types(source).await?);
    }
    left.sort();
    left.dedup();
    if !switching {
        check_direction(wr, &sides, &left).await?;
    }
    let mut targets = Vec::new();
    for target in &sides.destinations {
        targets.push(look_at_target(wr, target).await?);
    }
    let sources = sides.sources.into_iter().map(|source| source.shard_name).collect();
    Ok(Group { sources, targets, left, switching })
}

/// Before anything is moved: the records have to agree on who the source is.
async fn check_direction(wr: &Wrangler, sides: &Sides, left: &[TabletType]) -> Result {
    let names = |side: &[ShardInfo]| side.iter().map(|shard| shard.shard_name.clone()).collect::<Vec<_>>().join(",");
    let (keyspace, sources, targets) = (&sides.sources[0].keyspace, names(&sides.sources), names(&sides.destinations));
    if left.is_empty() {
        if sides.destinations.iter().all(|shard| shard.record.is_master_serving) {
            return Ok(());
        }
        bail!("neither {sources} nor {targets} serve in {keyspace}");
    }
    let Some(group) = overlapping(wr, keyspace, &sides.sources[0].shard_name).await? else { return Ok(()) };
    for shard in group.left.iter().chain(&group.right) {
        if !sides.sources.iter().chain(&sides.destinations).any(|named| named.shard_name == shard.shard_name) {
            bail!("{keyspace}/{} shares rows with {sources} and is none of the shards named", shard.shard_name);
        }
    }
    if sides.destinations.iter().all(|shard| !shard.record.source_shards.is_empty())
        && names(&direction(group)?.sources) != sources
    {
        bail!(
            "{targets} were replaced by {sources} without -reverse_replication: delete {targets} before they are filled anew"
        );
    }
    Ok(())
}

async fn shard_with_tablets(wr: &Wrangler, keyspace: &str, name: &str) -> Result<ShardInfo> {
    topo::validate_shard_name(name)?;
    match wr.topo().get_shard(keyspace, name).await {
        Err(error) if error.is_no_node() => bail!(
            "shard {keyspace}/{name} has no tablets: start them with -init_keyspace={keyspace} -init_shard={name}, then run this again"
        ),
        shard => Ok(shard?),
    }
}

async fn look_at_target(wr: &Wrangler, shard: &ShardInfo) -> Result<Target> {
    let (keyspace, name) = (&shard.keyspace, &shard.shard_name);
    let elect = if shard.has_master() {
        None
    } else {
        let tablets = wr.topo().get_tablet_map_for_shard(keyspace, name).await?.complete()?;
        let replica = tablets.values().find(|tablet| tablet.record.r#type() == TabletType::Replica);
        let Some(replica) = replica else {
            bail!(
                "shard {keyspace}/{name} has no master and no replica to become one: start its tablets, then run this again"
            )
        };
        Some(replica.alias_string())
    };
    Ok(Target { name: name.clone(), elect, fed: !shard.record.source_shards.is_empty() })
}

#[cfg(test)]
mod tests {
    use TabletType::{Master, Rdonly, Replica};
    use vtproto::topodata::Shard;

    use super::*;

    const ALL: &[TabletType] = &[Master, Replica, Rdonly];

    fn request() -> Drive {
        Drive {
            keyspace: "customer".into(),
            sources: vec![],
            targets: vec![],
            vtworker: String::new(),
            skip_schema_copy: false,
            skip_diff: false,
            reverse_replication: true,
            dry_run: false,
        }
    }

    fn group(sources: &[&str], targets: &[(&str, bool, bool)], left: &[TabletType]) -> Group {
        let target = |&(name, elect, fed): &(&str, bool, bool)| Target {
            name: name.into(),
            elect: elect.then(|| format!("the replica of {name}")),
            fed,
        };
        Group {
            sources: sources.iter().map(|&name| name.into()).collect(),
            targets: targets.iter().map(target).collect(),
            left: left.to_vec(),
            switching: false,
        }
    }

    fn lines(groups: &[Group]) -> Vec<String> {
        plan(&request(), groups).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_plan_is_what_an_operator_would_type_and_shrinks_as_it_is_done() {
        let halves = |elect, fed, left| lines(&[group(&["0"], &[("-80", elect, fed), ("80-", elect, fed)], left)]);
        let whole = halves(true, false, ALL);
        assert_eq!(
            whole,
            [
                "vtctlclient InitShardMaster -force customer/-80 the replica of -80",
                "vtctlclient InitShardMaster -force customer/80- the replica of 80-",
                "vtctlclient CopySchemaShard customer/0 customer/-80",
                "vtctlclient CopySchemaShard customer/0 customer/80-",
                "vtworker SplitClone -min_healthy_rdonly_tablets=1 customer/0",
                "vtctlclient WaitForFilteredReplication customer/-80",
                "vtctlclient WaitForFilteredReplication customer/80-",
                "vtworker MultiSplitDiff -min_healthy_tablets=1 customer/0",
                "vtctlclient MigrateServedTypes customer/0 rdonly",
                "vtctlclient MigrateServedTypes customer/0 replica",
                "vtctlclient MigrateServedTypes -reverse_replication customer/0 master",
            ]
        );
        assert_eq!(halves(false, false, ALL), whole[2..]);
        assert_eq!(halves(false, true, ALL), whole[5..]);
        // Tablets of what was moved before may not know of it.
        let refresh = ["vtctlclient RefreshStateByShard customer/0".to_owned()];
        assert_eq!(halves(false, true, &[Master, Replica]), [&whole[5..8], &refresh, &whole[9..]].concat());
        assert_eq!(halves(false, true, &[Master]), [&whole[5..8], &refresh, &whole[10..]].concat());
        assert_eq!(halves(false, false, &[]), [""; 0]);
        // Only the first target was fed: the clone goes on.
        let half_way = lines(&[group(&["0"], &[("-80", false, true), ("80-", false, false)], ALL)]);
        assert_eq!(half_way, whole[3..]);
    }

    #[test]
    fn a_switch_that_was_begun_is_finished_first_of_all() {
        for left in [&[Master][..], &[]] {
            let mut begun = group(&["0"], &[("-80", false, left.is_empty()), ("80-", false, true)], left);
            begun.switching = true;
            assert_eq!(lines(&[begun]), ["vtctlclient MigrateServedTypes -reverse_replication customer/0 master"]);
        }
    }

    #[test]
    fn each_group_is_cloned_and_switched_as_one() {
        let groups = [
            group(&["-40", "40-80"], &[("-80", false, false)], ALL),
            group(&["80-c0", "c0-"], &[("80-", false, false)], &[]),
            group(&["80-c0", "c0-"], &[("80-", false, false)], ALL),
        ];
        assert_eq!(
            lines(&groups),
            [
                "vtctlclient CopySchemaShard customer/-40 customer/-80",
                "vtctlclient CopySchemaShard customer/80-c0 customer/80-",
                "vtworker SplitClone -min_healthy_rdonly_tablets=1 customer/-40",
                "vtworker SplitClone -min_healthy_rdonly_tablets=1 customer/80-c0",
                "vtctlclient WaitForFilteredReplication customer/-80",
                "vtctlclient WaitForFilteredReplication customer/80-",
                "vtworker MultiSplitDiff -min_healthy_tablets=1 customer/-40",
                "vtworker MultiSplitDiff -min_healthy_tablets=1 customer/40-80",
                "vtworker MultiSplitDiff -min_healthy_tablets=1 customer/80-c0",
                "vtworker MultiSplitDiff -min_healthy_tablets=1 customer/c0-",
                "vtctlclient MigrateServedTypes customer/-40 rdonly",
                "vtctlclient MigrateServedTypes customer/80-c0 rdonly",
                "vtctlclient MigrateServedTypes customer/-40 replica",
                "vtctlclient MigrateServedTypes customer/80-c0 replica",
                "vtctlclient MigrateServedTypes -reverse_replication customer/-40 master",
                "vtctlclient MigrateServedTypes -reverse_replication customer/80-c0 master",
            ]
        );
    }

    #[test]
    fn shards_that_share_rows_are_a_group() {
        let shards = |names: &[&str]| {
            let shard = |name: &&str| {
                let (name, key_range) = topo::validate_shard_name(name).expect("a name");
                ShardInfo::new("customer", &name, Shard { key_range, ..Default::default() })
            };
            names.iter().map(shard).collect::<Vec<_>>()
        };
        let groups = |sources: &[&str], targets: &[&str]| -> Result<Vec<String>, String> {
            let names = |side: &[&str]| side.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
            check_ranges(&names(sources), &names(targets)).map_err(|error| error.to_string())?;
            let groups = groups_of(shards(sources), shards(targets));
            Ok(groups.iter().map(cutover::group_name).collect())
        };
        assert_eq!(groups(&["0"], &["80-", "-80"]), Ok(vec!["-80,80-:0".into()]));
        assert_eq!(groups(&["-40", "40-80"], &["-80"]), Ok(vec!["-40,40-80:-80".into()]));
        assert_eq!(
            groups(&["80-", "-80"], &["c0-", "-40", "80-c0", "40-80"]),
            Ok(vec!["-40,40-80:-80".into(), "80-:80-c0,c0-".into()])
        );
        // Bounds that cross make one group.
        assert_eq!(groups(&["-60", "60-"], &["-40", "40-80", "80-"]), Ok(vec!["-40,40-80,80-:-60,60-".into()]));
        assert_eq!(groups(&["0"], &["-40", "80-"]), Err("shards don't form a contiguous keyrange".into()));
        assert_eq!(groups(&["-80"], &["-40"]), Err("source and target keyranges don't match: -80 vs -40".into()));
        assert_eq!(groups(&["0"], &["-"]), Err("same keyrange is present in source and target: -".into()));
    }
}
