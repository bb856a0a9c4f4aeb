//! Records of the topology in readable form. What a key holds is told by the last element of its path.

use prost::Message;
use serde_json::Value;
use vtproto::{cutover, topodata, vschema, workflow};

use crate::error::{Result, err};

/// The name of a record, and how to read one.
macro_rules! by_name {
    ($path:expr, $contents:expr, |$message:ident| $show:expr, $otherwise:expr) => {{
        macro_rules! show {
            ($type:ty) => {{
                let $message = <$type>::decode($contents).map_err(|error| err!("{error}"))?;
                $show
            }};
        }
        match $path.rsplit('/').next().unwrap_or("") {
            "CellInfo" => show!(topodata::CellInfo),
            "CellsAlias" => show!(topodata::CellsAlias),
            "Keyspace" => show!(topodata::Keyspace),
            "Shard" => show!(topodata::Shard),
            "VSchema" => show!(vschema::Keyspace),
            "ShardReplication" => show!(topodata::ShardReplication),
            "Tablet" => show!(topodata::Tablet),
            "SrvVSchema" => show!(vschema::SrvVSchema),
            "SrvKeyspace" => show!(topodata::SrvKeyspace),
            "RoutingRules" => show!(vschema::RoutingRules),
            "Workflow" => show!(workflow::Workflow),
            "Cutover" => show!(cutover::Journal),
            _ => $otherwise,
        }
    }};
}

/// A record as protobuf text; a key that is no record as it stands.
pub fn text(path: &str, contents: &[u8]) -> Result<String> {
    Ok(by_name!(path, contents, |message| vtjson::text(&message), String::from_utf8_lossy(contents).into_owned()))
}

/// A record as JSON; a key that is no record as a string under `Data`.
pub fn json(path: &str, contents: &[u8]) -> Result<Value> {
    by_name!(
        path,
        contents,
        |message| serde_json::from_str(&vtjson::vschema_json(&message)).map_err(Into::into),
        Ok(serde_json::json!({ "Data": String::from_utf8_lossy(contents) }))
    )
}
