//! `Reshard <keyspace> <sources> <targets>`: a whole horizontal split by one command.
//!
//! The plan is a list of the commands that an operator would type, found from the records alone: what is
//! done is left out. It is printed first, and run only then; run again after a failure, it goes on with
//! what is left. The jobs of vtworker are sent to one that serves (`-vtworker host:port`).

use futures::StreamExt;
use servenv::grpc::ClientOptions;
use topo::ShardInfo;
use vtproto::logutil::Level;
use vtproto::topodata::TabletType;
use vtproto::vtworkerdata::ExecuteVtworkerCommandRequest;
use vtproto::vtworkerservice::vtworker_client::VtworkerClient;

use super::sides::sides_of;
use crate::Wrangler;
use crate::error::{Result, bail, err};
use crate::logger::info;

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
    pub cloned: bool,
}

/// What the records say, before anything is done.
pub(crate) struct Snapshot {
    pub targets: Vec<Target>,
    /// Types that the sources still serve.
    pub left: Vec<TabletType>,
}

/// The commands that are left to run. Pure.
pub(crate) fn plan(request: &Drive, snapshot: &Snapshot) -> Vec<Step> {
    let keyspace = &request.keyspace;
    let vtctl = |words: &[&str]| Step::Vtctl(words.iter().map(|&word| word.to_owned()).collect());
    let worker = |words: &[&str]| Step::Vtworker(words.iter().map(|&word| word.to_owned()).collect());
    let source = format!("{keyspace}/{}", request.sources[0]);
    let mut steps = Vec::new();
    for target in &snapshot.targets {
        let shard = format!("{keyspace}/{}", target.name);
        if let Some(elect) = &target.elect {
            steps.push(vtctl(&["InitShardMaster", "-force", &shard, elect]));
        }
    }
    let cloned = snapshot.targets.iter().all(|target| target.cloned);
    let everything_left = snapshot.left.contains(&TabletType::Master);
    if !cloned && everything_left {
        if !request.skip_schema_copy {
            for target in &snapshot.targets {
                steps.push(vtctl(&["CopySchemaShard", &source, &format!("{keyspace}/{}", target.name)]));
            }
        }
        steps.push(worker(&["SplitClone", "-min_healthy_rdonly_tablets=1", &source]));
    }
    if everything_left {
        for target in &snapshot.targets {
            steps.push(vtctl(&["WaitForFilteredReplication", &format!("{keyspace}/{}", target.name)]));
        }
        if !request.skip_diff {
            for target in &snapshot.targets {
                let shard = format!("{keyspace}/{}", target.name);
                steps.push(worker(&["SplitDiff", "-min_healthy_rdonly_tablets=1", &shard]));
            }
        }
    }
    for (served_type, name) in [(TabletType::Rdonly, "rdonly"), (TabletType::Replica, "replica")] {
        if snapshot.left.contains(&served_type) {
            steps.push(vtctl(&["MigrateServedTypes", &source, name]));
        }
    }
    if everything_left {
        let mut words = vec!["MigrateServedTypes"];
        if request.reverse_replication {
            words.push("-reverse_replication");
        }
        words.extend([source.as_str(), "master"]);
        steps.push(vtctl(&words));
    }
    steps
}

/// Prints the plan of a split and runs it.
pub(crate) async fn drive(wr: &Wrangler, request: Drive) -> Result {
    let snapshot = look(wr, &request).await?;
    let steps = plan(&request, &snapshot);
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

/// Reads what there is, and refuses what is no split.
async fn look(wr: &Wrangler, request: &Drive) -> Result<Snapshot> {
    let keyspace = &request.keyspace;
    let mut sources = Vec::new();
    for name in &request.sources {
        sources.push(wr.topo().get_shard(keyspace, name).await?);
    }
    let mut ranges = Vec::new();
    for name in &request.targets {
        if request.sources.contains(name) {
            bail!("{keyspace}/{name} is a source and a target");
        }
        let (_, range) = topo::validate_shard_name(name)?;
        ranges.push(topo::topoproto::key_range(range.as_ref()));
    }
    same_span(sources.iter().map(ShardInfo::range).collect(), ranges)?;
    let mut targets = Vec::new();
    for name in &request.targets {
        targets.push(look_at_target(wr, keyspace, name).await?);
    }
    if targets.iter().all(|target| target.cloned) {
        // Before anything is moved: the records have to agree on who is the source.
        let sides = sides_of(wr, keyspace, &request.targets[0]).await?;
        if sides.destinations.iter().any(|shard| !request.targets.contains(&shard.shard_name)) {
            bail!("the targets are cloned to the sources: {} is the other direction", request.targets.join(","));
        }
    }
    let mut left = Vec::new();
    for source in &sources {
        left.extend(wr.topo().get_shard_serving_types(source).await?);
    }
    left.sort();
    left.dedup();
    Ok(Snapshot { targets, left })
}

/// Both sides have to hold the same ids, each once.
fn same_span(mut sources: Vec<keyrange::KeyRange>, mut targets: Vec<keyrange::KeyRange>) -> Result {
    for side in [&mut sources, &mut targets] {
        side.sort();
        for pair in side.windows(2) {
            if !pair[0].is_followed_by(&pair[1]) {
                bail!("shards don't form a contiguous keyrange");
            }
        }
    }
    let (Some(first), Some(last)) = (sources.first(), sources.last()) else { bail!("there are no shards to combine") };
    let (Some(from), Some(to)) = (targets.first(), targets.last()) else { bail!("there are no shards to combine") };
    if first.start() != from.start() || last.end() != to.end() {
        bail!("source and target keyranges don't match: {first} to {last} vs {from} to {to}");
    }
    Ok(())
}

async fn look_at_target(wr: &Wrangler, keyspace: &str, name: &str) -> Result<Target> {
    let shard = match wr.topo().get_shard(keyspace, name).await {
        Ok(shard) => shard,
        Err(error) if error.is_no_node() => {
            bail!(
                "shard {keyspace}/{name} has no tablets: start them with -init_keyspace={keyspace} -init_shard={name}, then run this again"
            )
        }
        Err(error) => return Err(error.into()),
    };
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
    let cloned = !shard.record.source_shards.is_empty() || shard.record.is_master_serving;
    Ok(Target { name: name.to_owned(), elect, cloned })
}

/// Runs a job of vtworker to its end, with its log among ours.
async fn run_on_vtworker(wr: &Wrangler, address: &str, words: &[String]) -> Result {
    let mut options = ClientOptions::default();
    options.auth = wr.config().vtgate_client.auth.clone();
    let channel = options.channel(address).map_err(|error| err!("cannot dial to vtworker {address}: {error}"))?;
    let mut client = VtworkerClient::with_interceptor(channel, options.auth.clone());
    let request = ExecuteVtworkerCommandRequest { args: words.to_vec() };
    let answer = client.execute_vtworker_command(request).await.map_err(|status| err!("{}", status.message()))?;
    let mut events = answer.into_inner();
    while let Some(response) = events.next().await {
        let event = response.map_err(|status| err!("{}", status.message()))?.event.unwrap_or_default();
        if event.level() == Level::Console {
            wr.logger().print(event.value).await;
        } else {
            info!(wr, "vtworker: {}", event.value);
        }
    }
    // A finished job is kept for its page; the next one needs the place.
    let reset = ExecuteVtworkerCommandRequest { args: vec!["Reset".to_owned()] };
    client.execute_vtworker_command(reset).await.map_err(|status| err!("{}", status.message()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Drive {
        Drive {
            keyspace: "customer".into(),
            sources: vec!["0".into()],
            targets: vec!["-80".into(), "80-".into()],
            vtworker: String::new(),
            skip_schema_copy: false,
            skip_diff: false,
            reverse_replication: true,
            dry_run: false,
        }
    }

    fn lines(elect: bool, cloned: bool, left: &[TabletType]) -> Vec<String> {
        let target = |name: &str, uid: &str| Target {
            name: name.into(),
            elect: elect.then(|| format!("zone1-0000000{uid}")),
            cloned,
        };
        let snapshot = Snapshot { targets: vec![target("-80", "300"), target("80-", "400")], left: left.to_vec() };
        plan(&request(), &snapshot).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_plan_is_what_an_operator_would_type_and_shrinks_as_it_is_done() {
        use TabletType::{Master, Rdonly, Replica};
        let all = [Master, Replica, Rdonly];
        let whole = lines(true, false, &all);
        assert_eq!(
            whole,
            [
                "vtctlclient InitShardMaster -force customer/-80 zone1-0000000300",
                "vtctlclient InitShardMaster -force customer/80- zone1-0000000400",
                "vtctlclient CopySchemaShard customer/0 customer/-80",
                "vtctlclient CopySchemaShard customer/0 customer/80-",
                "vtworker SplitClone -min_healthy_rdonly_tablets=1 customer/0",
                "vtctlclient WaitForFilteredReplication customer/-80",
                "vtctlclient WaitForFilteredReplication customer/80-",
                "vtworker SplitDiff -min_healthy_rdonly_tablets=1 customer/-80",
                "vtworker SplitDiff -min_healthy_rdonly_tablets=1 customer/80-",
                "vtctlclient MigrateServedTypes customer/0 rdonly",
                "vtctlclient MigrateServedTypes customer/0 replica",
                "vtctlclient MigrateServedTypes -reverse_replication customer/0 master",
            ]
        );
        assert_eq!(lines(false, false, &all), whole[2..]);
        assert_eq!(lines(false, true, &all), whole[5..]);
        assert_eq!(lines(false, true, &[Master, Replica])[4..], whole[10..]);
        assert_eq!(lines(false, true, &[]), [""; 0]);
    }

    #[test]
    fn both_sides_hold_the_same_ids() {
        let ranges = |names: &[&str]| {
            names
                .iter()
                .map(|name| topo::topoproto::key_range(topo::validate_shard_name(name).expect("a name").1.as_ref()))
                .collect::<Vec<_>>()
        };
        let check = |sources: &[&str], targets: &[&str]| {
            same_span(ranges(sources), ranges(targets)).map_err(|error| error.to_string())
        };
        assert_eq!(check(&["0"], &["80-", "-80"]), Ok(()));
        assert_eq!(check(&["-40", "40-80"], &["-80"]), Ok(()));
        assert_eq!(check(&["0"], &["-40", "80-"]), Err("shards don't form a contiguous keyrange".into()));
        assert_eq!(
            check(&["-80"], &["-40"]),
            Err("source and target keyranges don't match: -80 to -80 vs -40 to -40".into())
        );
    }
}
