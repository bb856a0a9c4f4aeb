//! Records and lists of records.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};
use topo::topoproto;
use wrangler::Error;

use super::{Shared, cannot_get, go_json, json, not_found};
use crate::web::redirect;

type Params = Query<HashMap<String, String>>;

/// The elements of a path.
pub(super) fn elements(path: &str) -> Vec<&str> {
    path.split('/').filter(|element| !element.is_empty()).collect()
}

fn names(list: Vec<String>) -> Response {
    go_json(&list.into())
}

pub(super) async fn cells(State(state): Shared) -> Response {
    match state.wr.topo().get_known_cells().await {
        Ok(cells) => names(cells),
        Err(error) => cannot_get("cells", &error.into()),
    }
}

pub(super) async fn keyspaces(State(state): Shared) -> Response {
    match state.wr.topo().get_keyspaces().await {
        Ok(keyspaces) => names(keyspaces),
        Err(error) => cannot_get("keyspaces", &error.into()),
    }
}

pub(super) async fn keyspace(State(state): Shared, Path(keyspace): Path<String>) -> Response {
    match state.wr.topo().get_keyspace(&keyspace).await {
        Ok(info) => json(vtjson::pb_json(&info.record)),
        Err(error) => cannot_get("keyspaces", &error.into()),
    }
}

/// `<keyspace>/tablets[/<shard>]`: the tablets of a keyspace or of one shard.
pub(super) async fn keyspace_tablets(State(state): Shared, Path(path): Path<String>) -> Response {
    let elements = elements(&path);
    let (keyspace, shard) = match elements.as_slice() {
        [keyspace, "tablets"] => (*keyspace, None),
        [keyspace, "tablets", shard] => (*keyspace, Some((*shard).to_owned())),
        _ => return cannot_get("keyspace", &Error::rule(format!("invalid keyspace path: {path:?}"))),
    };
    let read = async {
        let shards = match shard {
            Some(shard) => vec![shard],
            None => state.wr.topo().get_shard_names(keyspace).await?,
        };
        let mut tablets = Vec::new();
        for shard in shards {
            let of_shard = state.wr.topo().get_tablet_map_for_shard(keyspace, &shard).await?;
            // What can be shown is shown: a cell may be away.
            let of_shard = of_shard.or_warn("tablets of a shard");
            tablets.extend(of_shard.values().map(|tablet| vtjson::go_json(&tablet.record)));
        }
        Ok::<_, Error>(tablets)
    };
    match read.await {
        Ok(tablets) => go_json(&tablets.into()),
        Err(error) => cannot_get("keyspace", &error),
    }
}

/// `<keyspace>/`: the names of its shards; `<keyspace>/<shard>`: a shard.
pub(super) async fn shards(State(state): Shared, Path(path): Path<String>) -> Response {
    match elements(&path).as_slice() {
        [keyspace] => match state.wr.topo().get_shard_names(keyspace).await {
            Ok(shards) => names(shards),
            Err(error) => cannot_get("shards", &error.into()),
        },
        [keyspace, shard] => match state.wr.topo().get_shard(keyspace, shard).await {
            Ok(info) => json(vtjson::pb_json(&info.record)),
            Err(error) => cannot_get("shards", &error.into()),
        },
        _ => cannot_get("shards", &Error::rule(format!("invalid shards path: {path:?}"))),
    }
}

/// `<cell>/`: every SrvKeyspace of a cell; `<cell>/<keyspace>`: one. `local` is the cell of `-cell`.
pub(super) async fn srv_keyspaces(State(state): Shared, Path(path): Path<String>) -> Response {
    let elements = elements(&path);
    let cell = match elements.first() {
        Some(&"local") if state.cell.is_empty() => {
            return cannot_get(
                "srv_keyspace",
                &Error::rule("local cell requested, but not specified. Please set with -cell flag"),
            );
        }
        Some(&"local") => state.cell.as_str(),
        Some(cell) => cell,
        None => return not_found(),
    };
    match elements.as_slice() {
        [_] => {
            let read = async {
                let mut found = Map::new();
                for keyspace in state.wr.topo().get_srv_keyspace_names(cell).await? {
                    match state.wr.topo().get_srv_keyspace(cell, &keyspace).await {
                        Ok(record) => {
                            found.insert(keyspace, vtjson::go_json(&record));
                        }
                        // The directory may be there for its shards' tablets only.
                        Err(error) if error.is_no_node() => {}
                        Err(error) => return Err(Error::from(error)),
                    }
                }
                Ok(found)
            };
            match read.await {
                Ok(found) => go_json(&Value::Object(found)),
                Err(error) => cannot_get("srv_keyspace", &error),
            }
        }
        [_, keyspace] => match state.wr.topo().get_srv_keyspace(cell, keyspace).await {
            Ok(record) => json(vtjson::pb_json(&record)),
            Err(error) => cannot_get("srv_keyspace", &error.into()),
        },
        _ => cannot_get("srv_keyspace", &Error::rule(format!("invalid srv_keyspace path: {path:?}"))),
    }
}

/// Aliases, by `shard=ks/s`, `cell=c` or both.
pub(super) async fn tablets(State(state): Shared, Query(params): Params) -> Response {
    let param = |name: &str| params.get(name).map_or("", String::as_str);
    let topo = state.wr.topo();
    let read = async {
        let aliases = match (param("shard"), param("cell")) {
            ("", "") => return Err(Error::rule("cell param required")),
            ("", cell) => match topo.get_tablets_by_cell(cell).await {
                Err(error) if error.is_no_node() => Vec::new(),
                outcome => outcome?,
            },
            (shard, cell) => {
                let (keyspace, shard) = topoproto::parse_keyspace_shard(shard)?;
                let cells: Vec<String> = if cell.is_empty() { Vec::new() } else { vec![cell.to_owned()] };
                let found = topo.find_all_tablet_aliases_in_shard_by_cell(&keyspace, &shard, &cells).await?;
                found.or_warn("tablets of a shard")
            }
        };
        Ok(aliases.iter().map(vtjson::go_json).collect::<Vec<_>>())
    };
    match read.await {
        Ok(aliases) => go_json(&aliases.into()),
        Err(error) => cannot_get("tablets", &error),
    }
}

pub(super) async fn tablet(State(state): Shared, Path(alias): Path<String>) -> Response {
    let read = async { Ok::<_, Error>(state.wr.topo().get_tablet(&topoproto::parse_tablet_alias(&alias)?).await?) };
    match read.await {
        Ok(info) => json(vtjson::pb_json(&info.record)),
        Err(error) => cannot_get("tablets", &error),
    }
}

/// What this vtctld offers.
pub(super) async fn features(State(state): Shared) -> Response {
    go_json(&json!({
        "activeReparents": !state.wr.config().disable_active_reparents,
        "showStatus": state.realtime_stats,
        "showTopologyCRUD": state.show_topology_crud,
        "showWorkflows": state.workflows,
        "workflows": [],
    }))
}

/// Where links of status pages lead: to the place of the page that shows what they name.
pub(super) async fn explorers_redirect(Query(params): Params) -> Response {
    let param = |name: &str| params.get(name).map_or("", String::as_str);
    let place = match param("type") {
        "keyspace" | "shard" | "tablet" => "/keyspaces".to_owned(),
        "srv_keyspace" => format!("/topology/{}/keyspaces/{}/SrvKeyspace", param("cell"), param("keyspace")),
        "replication" => format!(
            "/topology/{}/keyspaces/{}/shards/{}/ShardReplication",
            param("cell"),
            param("keyspace"),
            param("shard")
        ),
        other => return super::error_text(Error::rule(format!("bad redirect type: {other:?}"))),
    };
    redirect(StatusCode::FOUND, "Found", &format!("/app/#{place}"))
}
