//! Where each record lies, relative to the root of its cell.

use vtproto::topodata::TabletAlias;

use crate::{conn::DirEntry, topoproto::tablet_alias_string};

pub const CELLS_DIR: &str = "cells";
pub const CELLS_ALIASES_DIR: &str = "cells_aliases";
pub const KEYSPACES_DIR: &str = "keyspaces";
pub const SHARDS_DIR: &str = "shards";
pub const TABLETS_DIR: &str = "tablets";
pub const METADATA_DIR: &str = "metadata";
pub const WORKFLOWS_DIR: &str = "workflows";
pub const ELECTIONS_DIR: &str = "elections";
pub const CUTOVERS_DIR: &str = "cutovers";
pub const GATES_DIR: &str = "vtgates";
pub const LOCKS_DIR: &str = "locks";

pub const CELL_INFO_FILE: &str = "CellInfo";
pub const CELLS_ALIAS_FILE: &str = "CellsAlias";
pub const KEYSPACE_FILE: &str = "Keyspace";
pub const SHARD_FILE: &str = "Shard";
pub const VSCHEMA_FILE: &str = "VSchema";
pub const SHARD_REPLICATION_FILE: &str = "ShardReplication";
pub const TABLET_FILE: &str = "Tablet";
pub const SRV_VSCHEMA_FILE: &str = "SrvVSchema";
pub const SRV_KEYSPACE_FILE: &str = "SrvKeyspace";
pub const ROUTING_RULES_FILE: &str = "RoutingRules";
pub const CUTOVER_FILE: &str = "Cutover";
pub const WORKFLOW_FILE: &str = "Workflow";

pub fn cell_info_path(cell: &str) -> String {
    format!("{CELLS_DIR}/{cell}/{CELL_INFO_FILE}")
}

pub fn cells_alias_path(alias: &str) -> String {
    format!("{CELLS_ALIASES_DIR}/{alias}/{CELLS_ALIAS_FILE}")
}

pub fn keyspace_dir(keyspace: &str) -> String {
    format!("{KEYSPACES_DIR}/{keyspace}")
}

pub fn keyspace_path(keyspace: &str) -> String {
    format!("{KEYSPACES_DIR}/{keyspace}/{KEYSPACE_FILE}")
}

pub fn vschema_path(keyspace: &str) -> String {
    format!("{KEYSPACES_DIR}/{keyspace}/{VSCHEMA_FILE}")
}

pub fn shards_dir(keyspace: &str) -> String {
    format!("{KEYSPACES_DIR}/{keyspace}/{SHARDS_DIR}")
}

pub fn shard_dir(keyspace: &str, shard: &str) -> String {
    format!("{KEYSPACES_DIR}/{keyspace}/{SHARDS_DIR}/{shard}")
}

pub fn shard_path(keyspace: &str, shard: &str) -> String {
    format!("{KEYSPACES_DIR}/{keyspace}/{SHARDS_DIR}/{shard}/{SHARD_FILE}")
}

pub fn shard_replication_path(keyspace: &str, shard: &str) -> String {
    format!("{KEYSPACES_DIR}/{keyspace}/{SHARDS_DIR}/{shard}/{SHARD_REPLICATION_FILE}")
}

pub fn srv_keyspace_path(keyspace: &str) -> String {
    format!("{KEYSPACES_DIR}/{keyspace}/{SRV_KEYSPACE_FILE}")
}

pub fn tablet_path(alias: &TabletAlias) -> String {
    format!("{TABLETS_DIR}/{}/{TABLET_FILE}", tablet_alias_string(Some(alias)))
}

pub fn metadata_path(key: &str) -> String {
    format!("{METADATA_DIR}/{key}")
}

pub fn workflow_path(uuid: &str) -> String {
    format!("{WORKFLOWS_DIR}/{uuid}/{WORKFLOW_FILE}")
}

pub fn cutovers_dir(keyspace: &str) -> String {
    format!("{KEYSPACES_DIR}/{keyspace}/{CUTOVERS_DIR}")
}

pub fn cutover_path(keyspace: &str, name: &str) -> String {
    format!("{KEYSPACES_DIR}/{keyspace}/{CUTOVERS_DIR}/{name}/{CUTOVER_FILE}")
}

/// Relative to the root of a cell.
pub fn gate_path(name: &str) -> String {
    format!("{GATES_DIR}/{name}")
}

pub fn election_dir(name: &str) -> String {
    format!("{ELECTIONS_DIR}/{name}")
}

/// Joins path elements the way keys are made: without empty elements, and absolute when the first part is.
pub fn join(root: &str, path: &str) -> String {
    let mut key = String::with_capacity(root.len() + path.len() + 1);
    if root.starts_with('/') {
        key.push('/');
    }
    let mut elements: Vec<&str> = Vec::new();
    for element in root.split('/').chain(path.split('/')) {
        match element {
            "" | "." => {}
            ".." => {
                elements.pop();
            }
            element => elements.push(element),
        }
    }
    key.push_str(&elements.join("/"));
    key
}

/// What the keys under a directory begin with.
pub(crate) fn dir_prefix(dir: &str) -> String {
    if dir.ends_with('/') { dir.to_owned() } else { format!("{dir}/") }
}

/// The directory entries that sorted keys (each with whether it is leased) under a prefix make up.
pub(crate) fn entries_under<K: AsRef<str>>(
    prefix: &str,
    keys: impl Iterator<Item = (K, bool)>,
    full: bool,
) -> Vec<DirEntry> {
    let mut entries: Vec<DirEntry> = Vec::new();
    for (key, leased) in keys {
        let Some(rest) = key.as_ref().strip_prefix(prefix) else { continue };
        let (name, is_directory) = rest.split_once('/').map_or((rest, false), |(name, _)| (name, true));
        // Names that differ in a character below the slash may stand between two keys of a directory.
        match entries.iter_mut().rev().take_while(|entry| entry.name.starts_with(name)).find(|e| e.name == name) {
            Some(known) => known.is_directory |= full && is_directory,
            None => entries.push(DirEntry {
                name: name.to_owned(),
                is_directory: full && is_directory,
                is_ephemeral: full && !is_directory && leased,
            }),
        }
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_no_empty_elements() {
        assert_eq!(join("/vitess/global/", "/keyspaces//ks/Keyspace"), "/vitess/global/keyspaces/ks/Keyspace");
        assert_eq!(join("/vitess/global", ""), "/vitess/global");
        assert_eq!(join("", "cells/zone1/CellInfo"), "cells/zone1/CellInfo");
        assert_eq!(join("/", ""), "/");
    }

    #[test]
    fn every_name_is_listed_once() {
        // '-' sorts before '/': a shard `-80` beside a key `-80-x` is interleaved.
        let keys = ["/r/40-80/Shard", "/r/40-80-x", "/r/40-80/locks/1", "/r/Top"];
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        let entries = entries_under("/r/", sorted.into_iter().map(|key| (key, key.ends_with("Top"))), true);
        let listed: Vec<(&str, bool, bool)> =
            entries.iter().map(|entry| (entry.name.as_str(), entry.is_directory, entry.is_ephemeral)).collect();
        assert_eq!(listed, [("40-80", true, false), ("40-80-x", false, false), ("Top", false, true)]);
    }
}
