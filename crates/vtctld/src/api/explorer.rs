//! The topology as a tree: `/<cell or global>/<path>`.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use topo::{GLOBAL_CELL, TopoServer};

use super::{Shared, go_json};

/// A node: what it holds as text, and what lies under it.
fn node_json(data: &str, children: Option<Vec<String>>, error: &str) -> Response {
    go_json(&json!({
        "Data": data,
        "Children": children.map_or(Value::Null, Value::from),
        "Error": error,
    }))
}

pub(super) async fn root(State(state): Shared) -> Response {
    match state.wr.topo().get_known_cells().await {
        Ok(mut cells) => {
            cells.push(GLOBAL_CELL.to_owned());
            cells.sort();
            node_json("", Some(cells), "")
        }
        Err(error) => node_json("", None, &error.to_string()),
    }
}

pub(super) async fn node(State(state): Shared, Path(path): Path<String>) -> Response {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return root(State(state)).await;
    }
    let (cell, rest) = path.split_once('/').unwrap_or((path, ""));
    match read(state.wr.topo(), cell, rest).await {
        Ok((data, children)) => node_json(&data, children, ""),
        Err(error) => node_json("", None, &error.to_string()),
    }
}

async fn read(topo: &TopoServer, cell: &str, path: &str) -> wrangler::Result<(String, Option<Vec<String>>)> {
    let conn = topo.conn_for_cell(cell).await?;
    let value = match path {
        "" => None,
        path => match conn.get(path).await {
            Ok((contents, _)) => Some(wrangler::records::text(path, &contents)?),
            Err(error) if error.is_no_node() => None,
            Err(error) => return Err(error.into()),
        },
    };
    let children = match conn.list_dir(path, false).await {
        Ok(entries) => Some(entries.into_iter().map(|entry| entry.name).collect()),
        Err(error) if error.is_no_node() && (value.is_some() || path.is_empty()) => None,
        Err(error) => return Err(error.into()),
    };
    Ok((value.unwrap_or_default(), children))
}
