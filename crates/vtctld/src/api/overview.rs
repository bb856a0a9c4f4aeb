//! Everything the page shows about keyspaces, in one answer.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use tabletclient::TabletHealth;
use topo::topoproto;
use vtproto::topodata::Tablet;

use super::{Shared, cannot_get, go_json};
use crate::HealthCache;

pub(super) async fn overview(State(state): Shared) -> Response {
    match read(state.wr.topo(), &state.health).await {
        Ok(keyspaces) => go_json(&keyspaces.into()),
        Err(error) => cannot_get("overview", &error),
    }
}

async fn read(topo: &topo::TopoServer, health: &HealthCache) -> wrangler::Result<Vec<Value>> {
    let mut keyspaces = Vec::new();
    for name in topo.get_keyspaces().await? {
        let sharded = topo.get_vschema(&name).await.is_ok_and(|vschema| vschema.sharded);
        // A keyspace that cannot be read is shown with its error, beside the others.
        let (shards, error) = match topo.find_all_shards_in_keyspace(&name).await {
            Ok(shards) => (shards, String::new()),
            Err(error) => (Default::default(), error.to_string()),
        };
        let mut shown = Vec::new();
        for (shard_name, info) in shards {
            let (tablets, error) = match topo.get_tablet_map_for_shard(&name, &shard_name).await {
                Ok(found) => (found.value, found.error.map(|error| error.to_string()).unwrap_or_default()),
                Err(error) => (Default::default(), error.to_string()),
            };
            let records: Vec<Tablet> = tablets.into_values().map(|tablet| tablet.record).collect();
            let reports = health.get(&records).await;
            let tablets: Vec<Value> = records
                .iter()
                .map(|tablet| {
                    let alias = topoproto::tablet_alias_string(tablet.alias.as_ref());
                    tablet_json(tablet, &alias, reports.get(&alias).map(AsRef::as_ref))
                })
                .collect();
            shown.push(json!({
                "name": shard_name,
                "is_master_serving": info.record.is_master_serving,
                "master": topoproto::tablet_alias_string(info.master_alias()),
                "tablets": tablets,
                "error": error,
            }));
        }
        keyspaces.push(json!({ "name": name, "sharded": sharded, "shards": shown, "error": error }));
    }
    Ok(keyspaces)
}

fn tablet_json(tablet: &Tablet, alias: &str, health: Option<&TabletHealth>) -> Value {
    let report = health.filter(|health| health.up).map_or(Value::Null, |health| {
        json!({
            "serving": health.serving,
            "realtime_stats": vtjson::go_json(&health.stats),
        })
    });
    // The type that the tablet itself reports is newer than that of its record.
    let tablet_type = health.filter(|health| health.up).map_or(tablet.r#type(), |health| health.target.tablet_type());
    let error = match health {
        None => "the tablet is not running: its record has no address".to_owned(),
        Some(health) if health.up => String::new(),
        Some(health) => health.last_error.clone().unwrap_or_default(),
    };
    json!({
        "alias": alias,
        "type": topoproto::tablet_type_lstring(tablet_type),
        "hostname": tablet.hostname,
        "vt_port": tablet.port_map.get("vt"),
        "mysql": topoproto::mysql_addr(tablet),
        "health": report,
        "error": error,
    })
}
