//! Deleting shards and keyspaces, and taking shards out of cells.

use regex::Regex;
use topo::topoproto::{self, tablet_alias_string};
use vtproto::topodata::TabletType;

use crate::Wrangler;
use crate::error::{Result, bail, err};
use crate::logger::{info, warning};
use crate::tablets::delete_tablet_record;

/// The (keyspace, shard) pairs that words name; either part of a word may hold `*`, `?`, `[...]`.
pub(crate) async fn expand(wr: &Wrangler, words: &[String]) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for word in words {
        let Some((keyspace, shard)) = word.split_once('/').filter(|(_, shard)| !shard.contains('/')) else {
            bail!("invalid shard path: {word}");
        };
        for keyspace in expand_keyspaces(wr, keyspace).await? {
            if has_wildcard(shard) {
                let pattern = wildcard(shard)?;
                let names = wr.topo().get_shard_names(&keyspace).await;
                // A keyspace that matched only by its name may have no record.
                let names = match names {
                    Err(error) if error.is_no_node() => Vec::new(),
                    names => names?,
                };
                found.extend(names.into_iter().filter(|name| pattern.is_match(name)).map(|s| (keyspace.clone(), s)));
            } else {
                found.push(topoproto::parse_keyspace_shard(&format!("{keyspace}/{shard}"))?);
            }
        }
    }
    Ok(found)
}

/// The keyspaces that a word names. Without a wildcard it is the word itself, whether it exists or not.
pub(crate) async fn expand_keyspaces(wr: &Wrangler, word: &str) -> Result<Vec<String>> {
    if !has_wildcard(word) {
        return Ok(vec![word.to_owned()]);
    }
    let pattern = wildcard(word)?;
    Ok(wr.topo().get_keyspaces().await?.into_iter().filter(|name| pattern.is_match(name)).collect())
}

pub(crate) fn has_wildcard(word: &str) -> bool {
    word.contains(['*', '?', '['])
}

/// A file name pattern: `*` any text, `?` any character, `[a-z]` and `[^a-z]` sets, `\` escapes.
pub(crate) fn wildcard(pattern: &str) -> Result<Regex> {
    let mut regex = String::from("(?s)^");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => {
                regex.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    regex.push('^');
                }
                loop {
                    match chars.next() {
                        Some(']') => break,
                        Some('\\') => regex.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
                        Some('-') => regex.push('-'),
                        Some(c) => regex.push_str(&regex::escape(&c.to_string())),
                        None => bail!("syntax error in pattern {pattern}"),
                    }
                }
                regex.push(']');
            }
            '\\' => regex.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
            c => regex.push_str(&regex::escape(&c.to_string())),
        }
    }
    regex.push('$');
    Regex::new(&regex).map_err(|_| err!("syntax error in pattern {pattern}"))
}

/// Deletes a shard: its tablets' records (if `recursive`), its lists in all cells, its own record.
pub(crate) async fn delete_shard(
    wr: &Wrangler,
    keyspace: &str,
    shard: &str,
    recursive: bool,
    even_if_serving: bool,
) -> Result {
    let info = wr.topo().get_shard(keyspace, shard).await?;
    if !wr.topo().get_shard_serving_cells(&info).await?.is_empty() {
        if !even_if_serving {
            bail!("shard {keyspace}/{shard} is still serving, cannot delete it, use even_if_serving flag if needed");
        }
        info!(wr, "shard {keyspace}/{shard} is serving, deleting it anyway");
    }
    let cells = wr.topo().get_cell_info_names().await?;

    // Everything that forbids the deletion is looked at before the first record goes.
    let mut doomed = Vec::new();
    for cell in &cells {
        let aliases =
            match wr.topo().find_all_tablet_aliases_in_shard_by_cell(keyspace, shard, std::slice::from_ref(cell)).await
            {
                Ok(aliases) => aliases.complete()?,
                Err(error) => return Err(error.into()),
            };
        let tablets = wr.topo().get_tablet_map(&aliases).await.complete()?;
        let here: Vec<_> = tablets.into_values().filter(|t| t.alias().cell == *cell).collect();
        if !here.is_empty() && !recursive {
            bail!(
                "shard {keyspace}/{shard} still has {} tablets in cell {cell}; use -recursive or remove them manually",
                here.len()
            );
        }
        doomed.extend(here);
    }
    for tablet in doomed {
        // The lists may hold tablets that were moved to another shard.
        if tablet.record.keyspace != keyspace || tablet.record.shard != shard {
            warning!(wr, "{} belongs to another shard now, not deleting it", tablet.alias_string());
            continue;
        }
        info!(wr, "deleting tablet {}", tablet.alias_string());
        match delete_tablet_record(wr, &tablet.record).await {
            Err(error) if error.is_no_node() => {}
            outcome => outcome.map_err(|error| err!("can't delete tablet {}: {error}", tablet.alias_string()))?,
        }
    }
    for cell in &cells {
        match wr.topo().delete_shard_replication(cell, keyspace, shard).await {
            Ok(()) => {}
            Err(error) if error.is_no_node() => {}
            Err(error) => warning!(wr, "cannot delete ShardReplication in cell {cell} for {keyspace}/{shard}: {error}"),
        }
    }
    Ok(wr.topo().delete_shard(keyspace, shard).await?)
}

/// Deletes a keyspace, with its shards if `recursive`.
pub(crate) async fn delete_keyspace(wr: &Wrangler, keyspace: &str, recursive: bool) -> Result {
    let shards = wr.topo().get_shard_names(keyspace).await?;
    if recursive {
        info!(wr, "deleting all shards (and their tablets) in keyspace {keyspace}");
        for shard in &shards {
            info!(wr, "recursively deleting shard {keyspace}/{shard}");
            match delete_shard(wr, keyspace, shard, true, true).await {
                // A shard without a record has nothing to delete.
                Err(error) if error.is_no_node() => {}
                outcome => outcome.map_err(|error| err!("can't delete shard {keyspace}/{shard}: {error}"))?,
            }
        }
    } else if !shards.is_empty() {
        bail!("keyspace {keyspace} still has {} shards; use -recursive or remove them manually", shards.len());
    }
    for cell in wr.topo().get_known_cells().await? {
        match wr.topo().delete_srv_keyspace(&cell, keyspace).await {
            Ok(()) => {}
            Err(error) if error.is_no_node() => {}
            Err(error) => warning!(wr, "cannot delete SrvKeyspace in cell {cell} for {keyspace}: {error}"),
        }
    }
    Ok(wr.topo().delete_keyspace(keyspace).await?)
}

/// Takes a shard out of a cell: its tablets there (if `recursive`), its list, its serving graph.
pub(crate) async fn remove_shard_cell(
    wr: &Wrangler,
    keyspace: &str,
    shard: &str,
    cell: &str,
    force: bool,
    recursive: bool,
) -> Result {
    let info = wr.topo().get_shard(keyspace, shard).await?;
    let known = wr.topo().get_cell_info_names().await?;
    if !known.iter().any(|name| name == cell) {
        bail!("shard {keyspace}/{shard} does not have serving cell {cell}");
    }
    if let Some(master) = info.master_alias()
        && master.cell == cell
    {
        bail!("master {} is in the cell '{cell}' we want to remove", tablet_alias_string(Some(master)));
    }
    match wr.topo().get_shard_replication(cell, keyspace, shard).await {
        Ok(replication) => {
            if recursive {
                info!(wr, "deleting all tablets in cell {cell} in shard {keyspace}/{shard}");
                for alias in replication.nodes.iter().filter_map(|node| node.tablet_alias.as_ref()) {
                    match wr.topo().get_tablet(alias).await {
                        Ok(tablet) => {
                            // The list may hold tablets that were moved to another shard.
                            if tablet.record.keyspace != keyspace || tablet.record.shard != shard {
                                continue;
                            }
                            delete_tablet_record(wr, &tablet.record).await.map_err(|error| {
                                err!("can't delete tablet {}: {error}", tablet_alias_string(Some(alias)))
                            })?;
                        }
                        Err(error) if error.is_no_node() => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            } else if !replication.nodes.is_empty() {
                bail!("cell {cell} has {} possible tablets in replication graph", replication.nodes.len());
            }
            match wr.topo().delete_shard_replication(cell, keyspace, shard).await {
                Err(error) if !error.is_no_node() => {
                    bail!("error deleting ShardReplication object in cell {cell}: {error}")
                }
                _ => {}
            }
        }
        Err(error) if error.is_no_node() => info!(wr, "no ShardReplication object in cell {cell}"),
        Err(error) if force => {
            warning!(wr, "cannot get ShardReplication from cell {cell} (ignoring error with -force): {error}");
        }
        Err(error) => return Err(error.into()),
    }

    let lock = wr.topo().lock_keyspace(keyspace, "Locking keyspace to remove shard from SrvKeyspace").await?;
    let shards = [info];
    let cells = [cell.to_owned()];
    let mut outcome = Ok(());
    for tablet_type in [TabletType::Replica, TabletType::Rdonly, TabletType::Master] {
        outcome = wr.topo().delete_srv_keyspace_partitions(&lock, &shards, tablet_type, &cells).await;
        if outcome.is_err() {
            break;
        }
    }
    let unlocked = lock.unlock().await;
    outcome?;
    Ok(unlocked?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_file_names() {
        for (pattern, name, matches) in [
            ("*", "a-b", true),
            ("-8?", "-80", true),
            ("-8?", "-8", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a.b", "axb", false),
            ("\\*", "*", true),
        ] {
            assert_eq!(wildcard(pattern).unwrap().is_match(name), matches, "{pattern} {name}");
        }
        assert!(wildcard("[a").is_err());
    }
}
