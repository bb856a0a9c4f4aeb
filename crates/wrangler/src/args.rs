//! Arguments of commands: how many, and what the words mean.

use servenv::flags::Parsed;
use topo::topoproto;
use vtproto::topodata::{TabletAlias, TabletType};

use crate::{
    Wrangler,
    error::{Error, Result, bail, err},
};

/// Types that vtgate routes queries to.
pub(crate) const SERVING_TYPES: &[TabletType] = &[TabletType::Master, TabletType::Replica, TabletType::Rdonly];

/// Every type an operator may name.
pub(crate) const ALL_TYPES: &[TabletType] = &[
    TabletType::Unknown,
    TabletType::Master,
    TabletType::Replica,
    TabletType::Rdonly,
    TabletType::Spare,
    TabletType::Experimental,
    TabletType::Backup,
    TabletType::Restore,
    TabletType::Drained,
];

/// Exactly `N` words, or the error that names the missing ones.
pub(crate) fn exactly<'a, const N: usize>(args: &'a Parsed, message: &str) -> Result<[&'a str; N]> {
    let words: Vec<&str> = args.args().iter().map(String::as_str).collect();
    <[&str; N]>::try_from(words).map_err(|_| Error::rule(message))
}

/// At least `least` words.
pub(crate) fn at_least<'a>(args: &'a Parsed, least: usize, message: &str) -> Result<&'a [String]> {
    if args.args().len() < least { Err(Error::rule(message)) } else { Ok(args.args()) }
}

/// The error of a command that takes one thing: `the <tablet alias> argument is required for the X command`.
pub(crate) fn only<'a>(args: &'a Parsed, what: &str, command: &str) -> Result<&'a str> {
    let [word] = exactly(args, &format!("the <{what}> argument is required for the {command} command"))?;
    Ok(word)
}

/// The cells of `-cells`; nothing given means all of them to most commands.
///
/// # Errors
/// One of them is not in the topology: a command would do nothing there and seem to have succeeded.
pub(crate) async fn cells(wr: &Wrangler, args: &Parsed) -> Result<Vec<String>> {
    let cells = args.list("cells");
    for cell in &cells {
        wr.topo().get_cell_info(cell).await?;
    }
    Ok(cells)
}

pub(crate) fn tablet_alias(word: &str) -> Result<TabletAlias> {
    Ok(topoproto::parse_tablet_alias(word)?)
}

pub(crate) fn keyspace_shard(word: &str) -> Result<(String, String)> {
    Ok(topoproto::parse_keyspace_shard(word)?)
}

/// A tablet type out of those that the command allows.
pub(crate) fn tablet_type(word: &str, allowed: &[TabletType]) -> Result<TabletType> {
    let parsed = topoproto::parse_tablet_type(word).map_err(|e| err!("invalid tablet type {word}: {e}"))?;
    if !allowed.contains(&parsed) {
        let names: Vec<String> = allowed.iter().map(|t| topoproto::tablet_type_lstring(*t)).collect();
        bail!("type {} is not one of: {}", topoproto::tablet_type_lstring(parsed), names.join(" "));
    }
    Ok(parsed)
}

/// A type of the serving graph.
pub(crate) fn served_type(word: &str) -> Result<TabletType> {
    let parsed = tablet_type(word, ALL_TYPES)?;
    if !topoproto::is_in_serving_graph(parsed) {
        bail!("served_type has to be in the serving graph, not {}", parsed.as_str_name());
    }
    Ok(parsed)
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub(crate) fn boolean(word: &str) -> Result<bool> {
    match word {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => bail!("strconv.ParseBool: parsing {word:?}: invalid syntax"),
    }
}

/// A shard uid, base 10.
pub(crate) fn uid(word: &str) -> Result<u32> {
    word.parse().map_err(|error| err!("invalid uid {word:?}: {error}"))
}

/// An alias as Go prints the message in an error: `cell:"zone1" uid:100 `.
pub(crate) fn alias_text(alias: &TabletAlias) -> String {
    vtjson::text_compact(alias)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_in_errors() {
        assert_eq!(tablet_type("RDONLY", SERVING_TYPES).unwrap(), TabletType::Rdonly);
        assert_eq!(
            tablet_type("nonsense", ALL_TYPES).unwrap_err().to_string(),
            "invalid tablet type nonsense: unknown TabletType nonsense"
        );
        assert_eq!(
            served_type("spare").unwrap_err().to_string(),
            "served_type has to be in the serving graph, not SPARE"
        );
    }
}
