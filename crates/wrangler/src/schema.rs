//! Schemas of shards: comparing them, reloading them, changing them, copying them.
//!
//! Owns: what ApplySchema, CopySchemaShard and ValidateSchema* do. Does not own: how a tablet reads or
//! changes the schema of its mysqld.

mod apply;
mod copy;
mod diff;
mod place;

pub(crate) use apply::{ApplySchema, apply_schema};
pub(crate) use copy::copy_schema_shard;
pub(crate) use diff::diff_schema;

use std::time::Duration;

use futures::stream::{self, StreamExt};
use topo::topoproto;
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{Tablet, TabletType};

use crate::Wrangler;
use crate::error::{Result, bail};
use crate::logger::{info, warning};
use crate::wrangler::within;

/// What of a schema to look at: names or `/expressions/`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub tables: Vec<String>,
    pub exclude_tables: Vec<String>,
    pub include_views: bool,
}

/// The schema of a tablet, as far as `filter` lets it through.
pub(crate) async fn get_schema(wr: &Wrangler, tablet: &Tablet, filter: &Filter) -> Result<tmd::SchemaDefinition> {
    let request = tmd::GetSchemaRequest {
        tables: filter.tables.clone(),
        include_views: filter.include_views,
        exclude_tables: filter.exclude_tables.clone(),
    };
    let call = wr.tmc().get_schema(tablet, request);
    Ok(within(wr.config().remote_operation_timeout.max(Duration::from_secs(30)), call)
        .await?
        .schema_definition
        .unwrap_or_default())
}

/// Makes the tablets of a shard read their schema again, once they have replicated `position` (empty:
/// at once). Best effort: what fails is a warning.
pub(crate) async fn reload_shard(
    wr: &Wrangler,
    keyspace: &str,
    shard: &str,
    position: &str,
    concurrency: usize,
    include_master: bool,
) {
    let tablets = match wr.topo().get_tablet_map_for_shard(keyspace, shard).await {
        Ok(tablets) => tablets,
        Err(error) => {
            warning!(
                wr,
                "Failed to reload schema on replica tablets in {keyspace}/{shard} (use vtctl ReloadSchema to fix individual tablets): {error}"
            );
            return;
        }
    };
    if let Some(error) = &tablets.error {
        warning!(wr, "reloadSchema: got partial result for {keyspace}/{shard}: {error}");
    }
    let wanted = tablets.value.values().filter(|tablet| include_master || tablet.record.r#type() != TabletType::Master);
    stream::iter(wanted)
        .for_each_concurrent(concurrency.max(1), |tablet| async move {
            let request = tmd::ReloadSchemaRequest { wait_position: position.to_owned() };
            if let Err(error) = wr.tmc().reload_schema(&tablet.record, request).await {
                let alias = tablet.alias_string();
                warning!(wr, "Failed to reload schema on slave tablet {alias} in {keyspace}/{shard} (use vtctl ReloadSchema to try again): {error}");
            }
        })
        .await;
}

/// A tablet and what it is called in diffs.
struct Compared {
    name: String,
    tablet: Tablet,
}

/// Compares every tablet of the shards with the master of the first one.
pub(crate) async fn validate_schema(wr: &Wrangler, keyspace: &str, shards: &[String], filter: &Filter) -> Result {
    let (reference, others, mut failures) = reference_and_others(wr, keyspace, shards).await?;
    info!(wr, "gathering schema for master {}", reference.name);
    let wanted = get_schema(wr, &reference.tablet, filter).await?;
    let diffs = stream::iter(&others)
        .map(|other| {
            let (reference, wanted) = (&reference, &wanted);
            async move {
                match get_schema(wr, &other.tablet, filter).await {
                    Ok(schema) => diff_schema(&reference.name, wanted, &other.name, &schema),
                    Err(error) => vec![format!(
                        "GetSchema({}, nil, {:?}, {}) failed: {error}",
                        other.name, filter.exclude_tables, filter.include_views
                    )],
                }
            }
        })
        .buffered(32)
        .boxed()
        .collect::<Vec<_>>()
        .await;
    failures.extend(diffs.into_iter().flatten());
    if !failures.is_empty() {
        bail!("schema diffs: {}", failures.join(";"));
    }
    Ok(())
}

/// Compares the permissions of every tablet of the shards with those of the first master.
pub(crate) async fn validate_permissions(wr: &Wrangler, keyspace: &str, shards: &[String]) -> Result {
    let (reference, others, mut failures) = reference_and_others(wr, keyspace, shards).await?;
    let limit = wr.config().remote_operation_timeout;
    let read = async |tablet: &Tablet| {
        within(limit, wr.tmc().get_permissions(tablet, tmd::GetPermissionsRequest {}))
            .await
            .map(|answer| answer.permissions.unwrap_or_default())
    };
    info!(wr, "gathering permissions for master {}", reference.name);
    let wanted = read(&reference.tablet).await?;
    for other in &others {
        match read(&other.tablet).await {
            Ok(found) => failures.extend(diff::diff_permissions(&reference.name, &wanted, &other.name, &found)),
            Err(error) => failures.push(format!("GetPermissions({}) failed: {error}", other.name)),
        }
    }
    if !failures.is_empty() {
        bail!("permissions diffs: {}", failures.join(";"));
    }
    Ok(())
}

/// The master of the first shard, all other tablets, and what is missing.
async fn reference_and_others(
    wr: &Wrangler,
    keyspace: &str,
    shards: &[String],
) -> Result<(Compared, Vec<Compared>, Vec<String>)> {
    let mut reference = None;
    let mut others = Vec::new();
    let mut failures = Vec::new();
    for (i, shard) in shards.iter().enumerate() {
        let info = wr.topo().get_shard(keyspace, shard).await?;
        let master = info.master_alias().cloned();
        if master.is_none() {
            if i == 0 {
                bail!("no master in shard {keyspace}/{shard}");
            }
            failures.push(format!("no master in shard {keyspace}/{shard}"));
            continue;
        }
        let tablets = wr.topo().get_tablet_map_for_shard(keyspace, shard).await?.complete()?;
        for (name, info) in tablets {
            let is_reference = reference.is_none() && i == 0 && Some(info.alias()) == master;
            let compared = Compared { name, tablet: info.record };
            if is_reference {
                reference = Some(compared);
            } else {
                others.push(compared);
            }
        }
    }
    match reference {
        Some(reference) => Ok((reference, others, failures)),
        None if shards.is_empty() => bail!("no shards in keyspace {keyspace}"),
        None => bail!("no master in shard {keyspace}/{}", shards[0]),
    }
}

/// The tablet that a shard record names as master.
async fn master_of(wr: &Wrangler, keyspace: &str, shard: &str) -> Result<Option<Tablet>> {
    let info = wr.topo().get_shard(keyspace, shard).await?;
    match info.master_alias() {
        None => Ok(None),
        Some(alias) => match wr.topo().get_tablet(alias).await {
            Ok(tablet) => Ok(Some(tablet.record)),
            Err(error) => bail!(
                "unable to get master tablet info, keyspace: {keyspace}, shard: {shard}, tablet: {}, error: {error}",
                topoproto::tablet_alias_string(Some(alias))
            ),
        },
    }
}
