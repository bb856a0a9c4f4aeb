//! Texts of topology values: aliases, tablet types, shard paths, targets, addresses, tablet lines.
//!
//! These forms are used in flags, logs, commands and keys, by operators and by other processes: the
//! printed forms and the error texts are fixed.

use std::cmp::Ordering;

use keyrange::{Destination, KeyRange, KeyspaceId};
use vterrors::{Code, VtError};
use vtproto::topodata::{self, Tablet, TabletAlias, TabletType};

/// Prefix of a database name made from a keyspace name.
const DB_PREFIX: &str = "vt_";

/// `zone1-0000000100`; empty for no alias.
pub fn tablet_alias_string(alias: Option<&TabletAlias>) -> String {
    alias.map_or_else(String::new, |alias| format!("{}-{:010}", alias.cell, alias.uid))
}

/// `100`, the form in query texts: `zone1-100`.
pub fn tablet_alias_uid_string(alias: &TabletAlias) -> String {
    format!("{}-{}", alias.cell, alias.uid)
}

/// `<cell>-<uid>`; the uid is decimal, leading zeros are fine.
pub fn parse_tablet_alias(text: &str) -> Result<TabletAlias, VtError> {
    let invalid = || invalid(format!("invalid tablet alias: '{text}', expecting format: '<cell>-<uid>'"));
    let (cell, uid) = text.split_once('-').ok_or_else(invalid)?;
    if cell.is_empty() || uid.is_empty() || !uid.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    let uid = uid.parse().map_err(|_| invalid())?;
    Ok(TabletAlias { cell: cell.to_owned(), uid })
}

/// The order in which tablets are listed: by cell, then by uid.
pub fn compare_aliases(left: &TabletAlias, right: &TabletAlias) -> Ordering {
    left.cell.cmp(&right.cell).then(left.uid.cmp(&right.uid))
}

/// Whether both name the same tablet; no alias is equal to no alias only.
pub fn tablet_alias_equal(left: Option<&TabletAlias>, right: Option<&TabletAlias>) -> bool {
    left == right
}

pub fn tablet_alias_is_zero(alias: Option<&TabletAlias>) -> bool {
    alias.is_none_or(|alias| alias.cell.is_empty() && alias.uid == 0)
}

/// Tags of a tablet that a vtworker uses: its address, why, and of ours which process took it and what type it had. They
/// outlive a restart of the tablet, so that whoever comes after that vtworker knows what to put back.
pub const WORKER_TAGS: [&str; 4] = ["worker", "drain_reason", "worker_process", "worker_drained_from"];

/// Every type, in the order of its number.
pub const ALL_TABLET_TYPES: [TabletType; 9] = [
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

/// A type by its name in any case; `batch` is `rdonly`.
pub fn parse_tablet_type(text: &str) -> Result<TabletType, VtError> {
    let upper = text.to_uppercase();
    if upper == "BATCH" {
        return Ok(TabletType::Rdonly);
    }
    ALL_TABLET_TYPES
        .into_iter()
        .find(|tablet_type| tablet_type.as_str_name() == upper)
        .ok_or_else(|| VtError::new(Code::Unknown, format!("unknown TabletType {text}")))
}

/// Types separated by commas.
pub fn parse_tablet_types(text: &str) -> Result<Vec<TabletType>, VtError> {
    text.split(',').filter(|part| !part.is_empty()).map(|part| parse_tablet_type(part.trim())).collect()
}

/// The lower-case name: `replica`.
pub fn tablet_type_lstring(tablet_type: TabletType) -> String {
    tablet_type.as_str_name().to_lowercase()
}

/// The name of a type given as its number in a record; a number we do not know prints as itself.
pub fn tablet_type_number_lstring(number: i32) -> String {
    TabletType::try_from(number).map_or_else(|_| number.to_string(), tablet_type_lstring)
}

/// Types that the serving graph has partitions for.
pub fn is_in_serving_graph(tablet_type: TabletType) -> bool {
    matches!(tablet_type, TabletType::Master | TabletType::Replica | TabletType::Rdonly)
}

/// Types whose tablets run the query service.
pub fn is_running_query_service(tablet_type: TabletType) -> bool {
    matches!(
        tablet_type,
        TabletType::Master | TabletType::Replica | TabletType::Rdonly | TabletType::Experimental | TabletType::Drained
    )
}

/// Types whose mysqld replicates from the master.
pub fn is_slave_type(tablet_type: TabletType) -> bool {
    !matches!(tablet_type, TabletType::Master | TabletType::Backup | TabletType::Restore | TabletType::Drained)
}

/// Whether an operator may change a tablet between two types without a reparent.
pub fn is_trivial_type_change(from: TabletType, to: TabletType) -> bool {
    use TabletType as T;
    let plain = |tablet_type| {
        matches!(tablet_type, T::Replica | T::Rdonly | T::Spare | T::Backup | T::Experimental | T::Drained)
    };
    (plain(from) && plain(to)) || (from == T::Restore && to == T::Spare)
}

/// `ks/shard` or `ks:shard`, exactly one separator.
pub fn parse_keyspace_shard(text: &str) -> Result<(String, String), VtError> {
    let separator = if text.contains(':') { ':' } else { '/' };
    let mut parts = text.split(separator);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(keyspace), Some(shard), None) => Ok((keyspace.to_owned(), shard.to_owned())),
        _ => Err(VtError::new(Code::Unknown, format!("invalid shard path: {text}"))),
    }
}

pub fn keyspace_shard_string(keyspace: &str, shard: &str) -> String {
    format!("{keyspace}/{shard}")
}

/// Name of a `KeyspaceIdType` in any case: unset, uint64, bytes. Empty is unset.
pub fn parse_keyspace_id_type(text: &str) -> Result<topodata::KeyspaceIdType, VtError> {
    if text.is_empty() {
        return Ok(topodata::KeyspaceIdType::Unset);
    }
    topodata::KeyspaceIdType::from_str_name(&text.to_uppercase())
        .ok_or_else(|| VtError::new(Code::Unknown, format!("unknown KeyspaceIdType {text}")))
}

/// Name of a `KeyspaceType` in any case: normal, snapshot.
pub fn parse_keyspace_type(text: &str) -> Result<topodata::KeyspaceType, VtError> {
    topodata::KeyspaceType::from_str_name(&text.to_uppercase())
        .ok_or_else(|| VtError::new(Code::Unknown, format!("unknown KeyspaceType {text}")))
}

/// What a target text names: `ks:-80@replica|zone1-0000000100`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub keyspace: String,
    pub tablet_type: TabletType,
    pub destination: Option<Destination>,
    pub tablet_alias: Option<TabletAlias>,
}

/// Parses `[keyspace][:shard | /shard | [range or id]][@type][|alias]`. `primary` means master.
pub fn parse_destination(text: &str, default_type: TabletType) -> Result<Target, VtError> {
    let mut target =
        Target { keyspace: String::new(), tablet_type: default_type, destination: None, tablet_alias: None };
    let mut rest = text;
    if let Some((before, alias)) = rest.split_once('|') {
        target.tablet_alias = Some(parse_tablet_alias(alias)?);
        rest = before;
    }
    if let Some((before, name)) = rest.rsplit_once('@') {
        target.tablet_type = match name {
            name if name.eq_ignore_ascii_case("primary") => TabletType::Master,
            name => parse_tablet_type(name)?,
        };
        rest = before;
    }
    if let Some((before, shard)) = rest.rsplit_once(['/', ':']) {
        target.destination = Some(Destination::Shard(shard.to_owned()));
        rest = before;
    }
    if let Some((before, range)) = rest.split_once('[') {
        let range = range
            .strip_suffix(']')
            .ok_or_else(|| invalid("invalid key range provided. Couldn't find range end ']'".to_owned()))?;
        target.destination = Some(parse_range_or_id(range)?);
        rest = before;
    }
    target.keyspace = rest.to_owned();
    Ok(target)
}

fn parse_range_or_id(text: &str) -> Result<Destination, VtError> {
    match text.split_once('-') {
        None => text
            .parse::<KeyspaceId>()
            .map(Destination::KeyspaceId)
            .map_err(|error| invalid(format!("expected valid hex in keyspace id {text}: {error}"))),
        Some((_, end)) if end.contains('-') => Err(invalid(format!("single keyrange expected in {text}"))),
        Some((start, end)) => KeyRange::from_hex(start, end)
            .map(Destination::ExactKeyRange)
            .map_err(|error| invalid(format!("error parsing keyrange {text}: {error}"))),
    }
}

/// The range of a record; the whole keyspace when it has none.
pub fn key_range(range: Option<&topodata::KeyRange>) -> KeyRange {
    range.map_or_else(KeyRange::full, |range| KeyRange::from_bounds(range.start.clone(), range.end.clone()))
}

/// A range as records hold it.
pub fn proto_key_range(range: &KeyRange) -> topodata::KeyRange {
    topodata::KeyRange { start: range.start_bytes().to_vec(), end: range.end_bytes().to_vec() }
}

/// `40-80`; `-` for no range.
pub fn key_range_string(range: Option<&topodata::KeyRange>) -> String {
    key_range(range).to_string()
}

/// Whether two ranges of records hold the same ids; no range is the full one.
pub fn key_range_equal(left: Option<&topodata::KeyRange>, right: Option<&topodata::KeyRange>) -> bool {
    key_range(left) == key_range(right)
}

/// Whether two ranges of records share an id; no range is the full one.
pub fn key_ranges_intersect(left: Option<&topodata::KeyRange>, right: Option<&topodata::KeyRange>) -> bool {
    key_range(left).intersects(&key_range(right))
}

/// The MySQL database of a tablet: its override, else `vt_<keyspace>`.
pub fn tablet_db_name(tablet: &Tablet) -> String {
    if !tablet.db_name_override.is_empty() {
        return tablet.db_name_override.clone();
    }
    if tablet.keyspace.is_empty() { String::new() } else { format!("{DB_PREFIX}{}", tablet.keyspace) }
}

/// Host of the tablet's mysqld: the vttablet's host unless told otherwise.
pub fn mysql_hostname(tablet: &Tablet) -> &str {
    if tablet.mysql_hostname.is_empty() { &tablet.hostname } else { &tablet.mysql_hostname }
}

/// Port of the tablet's mysqld; old records have it in the port map only. 0 when unknown.
pub fn mysql_port(tablet: &Tablet) -> i32 {
    match tablet.mysql_port {
        0 => tablet.port_map.get("mysql").copied().unwrap_or_default(),
        port => port,
    }
}

/// `host:port` of the tablet's mysqld.
pub fn mysql_addr(tablet: &Tablet) -> String {
    join_host_port(mysql_hostname(tablet), mysql_port(tablet))
}

/// `host:port` of the tablet's HTTP server; port 0 when it has none.
pub fn tablet_addr(tablet: &Tablet) -> String {
    join_host_port(&tablet.hostname, tablet.port_map.get("vt").copied().unwrap_or_default())
}

/// `host:port` of the tablet's gRPC server; `None` when its record has none, as after a clean stop.
pub fn tablet_grpc_addr(tablet: &Tablet) -> Option<String> {
    let port = tablet.port_map.get("grpc").copied().filter(|port| *port != 0)?;
    (!tablet.hostname.is_empty()).then(|| join_host_port(&tablet.hostname, port))
}

/// `host:port`, with brackets around an address with colons.
pub fn join_host_port(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `zone1-0000000100 (host)`, how a tablet is named in messages.
pub fn tablet_ident(tablet: &Tablet) -> String {
    let alias = tablet_alias_string(tablet.alias.as_ref());
    let tags = if tablet.tags.is_empty() { String::new() } else { format!(" {}", tags_string(tablet)) };
    format!("{alias} ({}{tags})", tablet.hostname)
}

fn tags_string(tablet: &Tablet) -> String {
    let tags: Vec<String> = tablet.tags.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    format!("[{}]", tags.join(" "))
}

/// One line for `awk`: alias, keyspace, shard, type, HTTP address, MySQL address, tags.
pub fn tablet_awkable(tablet: &Tablet) -> String {
    let or_null = |text: &str| if text.is_empty() { "<null>".to_owned() } else { text.to_owned() };
    format!(
        "{} {} {} {} {} {} {}",
        tablet_alias_string(tablet.alias.as_ref()),
        or_null(&tablet.keyspace),
        or_null(&tablet.shard),
        tablet_type_number_lstring(tablet.r#type),
        tablet_addr(tablet),
        mysql_addr(tablet),
        tags_string(tablet),
    )
}

fn invalid(message: String) -> VtError {
    VtError::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(cell: &str, uid: u32) -> TabletAlias {
        TabletAlias { cell: cell.into(), uid }
    }

    #[test]
    fn an_alias_is_read_with_and_without_zeros_and_printed_with_them() {
        for text in ["zone1-100", "zone1-0000000100"] {
            let parsed = parse_tablet_alias(text).expect("valid");
            assert_eq!(parsed, alias("zone1", 100));
            assert_eq!(tablet_alias_string(Some(&parsed)), "zone1-0000000100");
        }
        for text in ["", "zone1", "zone1-", "-100", "zone1-x", "zone-1-100", "zone1-+1", "zone1-99999999999"] {
            let error = parse_tablet_alias(text).expect_err(text);
            assert_eq!(error.message(), format!("invalid tablet alias: '{text}', expecting format: '<cell>-<uid>'"));
        }
        assert_eq!(tablet_alias_string(None), "");
    }

    #[test]
    fn a_type_is_read_in_any_case() {
        assert_eq!(parse_tablet_type("rDonly"), Ok(TabletType::Rdonly));
        assert_eq!(parse_tablet_type("batch"), Ok(TabletType::Rdonly));
        assert_eq!(parse_tablet_type("nonsense").expect_err("unknown").message(), "unknown TabletType nonsense");
        assert_eq!(tablet_type_lstring(TabletType::Rdonly), "rdonly");
    }

    #[test]
    fn a_shard_path_has_one_separator() {
        assert_eq!(parse_keyspace_shard("ks/-80"), Ok(("ks".into(), "-80".into())));
        assert_eq!(parse_keyspace_shard("ks:0"), Ok(("ks".into(), "0".into())));
        for text in ["ks", "a/b/c", "a:b:c"] {
            assert_eq!(parse_keyspace_shard(text).expect_err(text).message(), format!("invalid shard path: {text}"));
        }
    }

    #[test]
    fn a_target_names_keyspace_place_type_and_tablet() {
        let range = |text: &str| Some(Destination::ExactKeyRange(text.parse().expect("range")));
        let shard = |name: &str| Some(Destination::Shard(name.into()));
        let id = Some(Destination::KeyspaceId("deadbeef".parse().expect("id")));
        let rows = [
            ("ks[10-20]@master", "ks", TabletType::Master, range("10-20"), None),
            ("ks[-]@primary", "ks", TabletType::Master, range("-"), None),
            ("ks[deadbeef]@master", "ks", TabletType::Master, id, None),
            ("ks[10-]@master", "ks", TabletType::Master, range("10-"), None),
            ("ks[-20]@master", "ks", TabletType::Master, range("-20"), None),
            ("ks:-80@master", "ks", TabletType::Master, shard("-80"), None),
            (":-80@master", "", TabletType::Master, shard("-80"), None),
            ("@replica", "", TabletType::Replica, None, None),
            ("ks", "ks", TabletType::Master, None, None),
            ("ks/-80", "ks", TabletType::Master, shard("-80"), None),
            ("ks:80-@rdonly|zone2-0000000200", "ks", TabletType::Rdonly, shard("80-"), Some(alias("zone2", 200))),
        ];
        for (text, keyspace, tablet_type, destination, tablet_alias) in rows {
            let wanted = Target { keyspace: keyspace.into(), tablet_type, destination, tablet_alias };
            assert_eq!(parse_destination(text, TabletType::Master), Ok(wanted), "{text}");
        }
        assert!(parse_destination("ks[20-40", TabletType::Master).is_err());
        assert!(parse_destination("ks@nonsense", TabletType::Master).is_err());
    }

    #[test]
    fn a_tablet_line_shows_what_is_missing() {
        let mut tablet = Tablet {
            alias: Some(alias("zone1", 100)),
            hostname: "h1".into(),
            keyspace: "commerce".into(),
            shard: "0".into(),
            r#type: TabletType::Master.into(),
            port_map: [("vt".to_owned(), 15100), ("mysql".to_owned(), 17100)].into(),
            ..Default::default()
        };
        assert_eq!(tablet_awkable(&tablet), "zone1-0000000100 commerce 0 master h1:15100 h1:17100 []");
        assert_eq!(tablet_db_name(&tablet), "vt_commerce");
        tablet.tags = [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into();
        tablet.mysql_hostname = "db".into();
        tablet.mysql_port = 3306;
        tablet.keyspace.clear();
        tablet.db_name_override = "other".into();
        assert_eq!(tablet_awkable(&tablet), "zone1-0000000100 <null> 0 master h1:15100 db:3306 [a: \"1\" b: \"2\"]");
        assert_eq!(tablet_db_name(&tablet), "other");
    }

    #[test]
    fn only_types_without_mastership_change_freely() {
        use TabletType as T;
        assert!(is_trivial_type_change(T::Replica, T::Drained));
        assert!(is_trivial_type_change(T::Restore, T::Spare));
        assert!(!is_trivial_type_change(T::Restore, T::Replica));
        assert!(!is_trivial_type_change(T::Master, T::Replica));
        assert!(!is_trivial_type_change(T::Replica, T::Master));
    }
}
