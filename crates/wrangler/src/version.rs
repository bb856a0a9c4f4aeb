//! The version that tablets run, as their `/debug/vars` tell it.

use std::time::Duration;

use futures::future::join_all;
use servenv::http_client;
use topo::topoproto;
use vtproto::topodata::Tablet;

use crate::Wrangler;
use crate::error::{Result, bail, err};
use crate::logger::info;

/// Bound of one read of variables.
const LIMIT: Duration = Duration::from_secs(30);

/// What makes two builds the same.
const VARIABLES: [&str; 4] = ["BuildHost", "BuildUser", "BuildTimestamp", "BuildGitRev"];

/// Compares the version of every tablet of the shards with that of the first master.
pub(crate) async fn validate(wr: &Wrangler, keyspace: &str, shards: &[String]) -> Result {
    if shards.is_empty() {
        bail!("no shards in keyspace {keyspace}");
    }
    let mut reference = None;
    let mut failures = Vec::new();
    for (i, shard) in shards.iter().enumerate() {
        let shard_info = wr.topo().get_shard(keyspace, shard).await?;
        let Some(master) = shard_info.master_alias().cloned() else {
            if i == 0 {
                bail!("no master in shard {keyspace}/{shard}");
            }
            failures.push(format!("no master in shard {keyspace}/{shard}"));
            continue;
        };
        if reference.is_none() {
            let tablet = wr.topo().get_tablet(&master).await?.record;
            info!(wr, "gathering version for master {}", topoproto::tablet_alias_string(Some(&master)));
            reference = Some((master.clone(), of_tablet(&tablet).await?));
        }
        let Some((reference_alias, wanted)) = &reference else { continue };
        let tablets = wr.topo().get_tablet_map_for_shard(keyspace, shard).await?.complete()?;
        let others = tablets.values().filter(|tablet| tablet.alias() != *reference_alias);
        let found = join_all(others.map(|tablet| async move { (tablet, of_tablet(&tablet.record).await) })).await;
        for (tablet, version) in found {
            match version {
                Ok(version) if version == *wanted => {}
                Ok(version) => failures.push(format!(
                    "master {} version {wanted} is different than slave {} version {version}",
                    topoproto::tablet_alias_string(Some(reference_alias)),
                    tablet.alias_string()
                )),
                Err(error) => failures.push(error.to_string()),
            }
        }
    }
    if !failures.is_empty() {
        bail!("version diffs: {}", failures.join(";"));
    }
    Ok(())
}

/// `{host user timestamp revision}` of the tablet's build.
async fn of_tablet(tablet: &Tablet) -> Result<String> {
    let body = http_client::get(&topoproto::tablet_addr(tablet), "/debug/vars", None, LIMIT)
        .await
        .map_err(|error| err!("{error}"))?;
    let vars: serde_json::Value = serde_json::from_slice(&body)?;
    let values: Vec<String> = VARIABLES
        .iter()
        .map(|name| match &vars[*name] {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => String::new(),
            other => other.to_string(),
        })
        .collect();
    Ok(format!("{{{}}}", values.join(" ")))
}
