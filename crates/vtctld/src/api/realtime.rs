//! The health of tablets. The statistics of the whole cluster need `-enable_realtime_stats`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde_json::{Value, json};
use tabletclient::TabletHealth;
use topo::topoproto;
use vtproto::query::StreamHealthResponse;
use wrangler::Error;

use super::{Shared, cannot_get, go_json};

type Params = Query<HashMap<String, String>>;

fn not_initialized(collection: &str) -> Response {
    cannot_get(collection, &Error::rule("realtimeStats not initialized"))
}

/// The last report of one tablet, as it streamed it.
pub(super) async fn health_of_tablet(State(state): Shared, Path(alias): Path<String>) -> Response {
    let read = async {
        let alias = topoproto::parse_tablet_alias(&alias)?;
        let tablet = state.wr.topo().get_tablet(&alias).await?.record;
        let name = topoproto::tablet_alias_string(Some(&alias));
        let reports = state.health.get(std::slice::from_ref(&tablet)).await;
        let health = reports.get(&name).ok_or_else(|| Error::rule(format!("tablet {name} is not running")))?;
        if !health.up {
            let reason = health.last_error.clone().unwrap_or_else(|| "no report yet".to_owned());
            return Err(Error::rule(format!("cannot stream the health of {name}: {reason}")));
        }
        Ok(vtjson::go_json(&StreamHealthResponse {
            target: Some((*health.target).clone()),
            serving: health.serving,
            tablet_externally_reparented_timestamp: health.reparented_timestamp,
            realtime_stats: Some(health.stats.clone()),
            tablet_alias: tablet.alias.clone(),
        }))
    };
    match read.await {
        Ok(report) => go_json(&report),
        Err(error) => cannot_get("tablets", &error),
    }
}

/// `<cell>/<uid>`: what is known of a tablet that is watched.
pub(super) async fn tablet_health(State(state): Shared, path: Option<Path<String>>) -> Response {
    if !state.realtime_stats {
        return not_initialized("tablet_health");
    }
    let path = path.map(|Path(path)| path).unwrap_or_default();
    let find = || {
        let [cell, uid] = super::collections::elements(&path)[..] else {
            return Err(Error::rule(format!(
                "invalid tablet_health path: {path:?}  expected path: /tablet_health/<cell>/<uid>"
            )));
        };
        let alias = topoproto::parse_tablet_alias(&format!("{cell}-{uid}"))?;
        let name = topoproto::tablet_alias_string(Some(&alias));
        state.health.all().remove(&name).ok_or_else(|| Error::rule(format!("could not find tablet: {name}")))
    };
    match find() {
        Ok(health) => go_json(&stats_json(&health)),
        Err(error) => cannot_get("tablet_health", &error),
    }
}

/// A tablet's entry, in the shape of Go's `TabletStats`.
fn stats_json(health: &TabletHealth) -> Value {
    json!({
        "Key": topoproto::tablet_grpc_addr(&health.tablet).unwrap_or_default(),
        "Tablet": vtjson::go_json(&*health.tablet),
        "Name": topoproto::tablet_ident(&health.tablet),
        "Target": vtjson::go_json(&*health.target),
        "Up": health.up,
        "Serving": health.serving,
        "TabletExternallyReparentedTimestamp": health.reparented_timestamp,
        "Stats": vtjson::go_json(&health.stats),
        "LastError": health.last_error,
    })
}

/// The tablets that a filter of `keyspace`, `cell` and `type` lets through; `all` and nothing are no filter.
fn filtered(state: &super::State, params: &HashMap<String, String>) -> Vec<Arc<TabletHealth>> {
    let passes = |name: &str, value: &str| match params.get(name).map(String::as_str) {
        None | Some("" | "all") => true,
        Some(wanted) => wanted.eq_ignore_ascii_case(value),
    };
    let mut found: Vec<_> = state
        .health
        .all()
        .into_values()
        .filter(|health| {
            passes("keyspace", &health.target.keyspace)
                && passes("cell", health.cell())
                && passes("type", health.target.tablet_type().as_str_name())
        })
        .collect();
    found.sort_by_key(|health| health.alias());
    found
}

/// The names to choose from.
pub(super) async fn topology_info(State(state): Shared, Query(params): Params) -> Response {
    if !state.realtime_stats {
        return not_initialized("topology_info");
    }
    let tablets = filtered(&state, &params);
    let set = |name: fn(&TabletHealth) -> String| -> BTreeSet<String> { tablets.iter().map(|t| name(t)).collect() };
    go_json(&json!({
        "Keyspaces": set(|t| t.target.keyspace.clone()),
        "Cells": set(|t| t.cell().to_owned()),
        "TabletTypes": set(|t| t.target.tablet_type().as_str_name().to_owned()),
    }))
}

/// A map of one number per tablet: rows are cells and types, columns are shards; one map per keyspace.
pub(super) async fn statuses(State(state): Shared, Query(params): Params) -> Response {
    if !state.realtime_stats {
        return not_initialized("tablet_statuses");
    }
    let metric = params.get("metric").map_or("health", String::as_str);
    if !matches!(metric, "lag" | "cpu" | "qps" | "health") {
        let error = Error::rule(format!("invalid metric: {metric} Select 'lag', 'cpu', 'qps', or 'health'"));
        return cannot_get("tablet_statuses", &error);
    }
    let mut by_keyspace: BTreeMap<String, Vec<Arc<TabletHealth>>> = BTreeMap::new();
    for health in filtered(&state, &params) {
        by_keyspace.entry(health.target.keyspace.clone()).or_default().push(health);
    }
    let maps: Vec<Value> = by_keyspace.iter().map(|(keyspace, tablets)| heat_map(keyspace, tablets, metric)).collect();
    go_json(&maps.into())
}

/// What a cell without a tablet holds.
const MISSING: f64 = -1.0;

fn number(health: &TabletHealth, metric: &str) -> f64 {
    match metric {
        "lag" => health.lag_seconds().into(),
        "cpu" => health.stats.cpu_usage,
        "qps" => health.stats.qps,
        // 0 healthy, 1 lagging, 2 not serving, 3 down.
        _ if !health.up => 3.0,
        _ if !health.is_healthy() => 2.0,
        _ if health.lag_seconds() > 60 => 1.0,
        _ => 0.0,
    }
}

fn heat_map(keyspace: &str, tablets: &[Arc<TabletHealth>], metric: &str) -> Value {
    let shards: Vec<&str> =
        tablets.iter().map(|t| t.target.shard.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
    let mut groups: BTreeMap<(&str, i32), BTreeMap<&str, Vec<&TabletHealth>>> = BTreeMap::new();
    for health in tablets {
        let group = groups.entry((health.cell(), health.target.tablet_type)).or_default();
        group.entry(&health.target.shard).or_default().push(health);
    }
    let (mut data, mut aliases, mut labels, mut lines) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut by_cell: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for ((cell, tablet_type), by_shard) in &groups {
        let height = by_shard.values().map(Vec::len).max().unwrap_or(0);
        for row in 0..height {
            let at = |shard: &&str| by_shard.get(*shard).and_then(|list| list.get(row));
            data.push(shards.iter().map(|s| at(s).map_or(MISSING, |t| number(t, metric))).collect::<Value>());
            aliases.push(
                shards
                    .iter()
                    .map(|s| {
                        at(s).map_or(Value::Null, |t| vtjson::go_json(&t.tablet.alias.clone().unwrap_or_default()))
                    })
                    .collect::<Value>(),
            );
        }
        lines.push(data.len() as f64 - 0.5);
        let name = vtproto::topodata::TabletType::try_from(*tablet_type).unwrap_or_default().as_str_name();
        by_cell.entry(*cell).or_default().push(json!({ "Name": name, "Rowspan": height }));
    }
    for (cell, types) in by_cell {
        let height: u64 = types.iter().filter_map(|label| label["Rowspan"].as_u64()).sum();
        labels.push(json!({ "CellLabel": { "Name": cell, "Rowspan": height }, "TypeLabels": types }));
    }
    json!({
        "Data": data,
        "Aliases": aliases,
        "KeyspaceLabel": { "Name": keyspace, "Rowspan": data.len() },
        "CellAndTypeLabels": labels,
        "ShardLabels": shards,
        "YGridLines": lines,
    })
}
