//! Table ACL: which users may read, write and administer which tables.
//!
//! Owns: the configuration (`-table-acl-config`), its validation, and the lookup by table. Does not own
//! when a refusal counts (strict, dry run, exempt users): that is the executor's.
//! Invariants: every table belongs to at most one group; without an entry nobody has any role.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use vterrors::{Code, VtError};
use vtproto::query::VtGateCallerId;

/// What a statement needs to be allowed on a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Reader,
    Writer,
    Admin,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "READER",
            Self::Writer => "WRITER",
            Self::Admin => "ADMIN",
        }
    }
}

/// `-table-acl-config` as it stands in its file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclConfig {
    #[serde(default, alias = "tableGroups")]
    pub table_groups: Vec<TableGroup>,
}

/// Tables that share their users.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableGroup {
    #[serde(default)]
    pub name: String,
    /// Names, or prefixes that end with `%`.
    #[serde(default, alias = "tableNamesOrPrefixes")]
    pub table_names_or_prefixes: Vec<String>,
    #[serde(default)]
    pub readers: BTreeSet<String>,
    #[serde(default)]
    pub writers: BTreeSet<String>,
    #[serde(default)]
    pub admins: BTreeSet<String>,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    #[error("table acl config: {0}")]
    Json(String),
    #[error("table acl config: conflicting entries: {0:?} overlaps with {1:?}")]
    Overlap(String, String),
    #[error("table acl config: {0:?}: '%' may only stand at the end")]
    Wildcard(String),
}

impl From<AclError> for VtError {
    fn from(error: AclError) -> Self {
        VtError::new(Code::InvalidArgument, error.to_string())
    }
}

/// The users of one role on one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Empty when no entry covers the table.
    pub group: String,
    users: Arc<BTreeSet<String>>,
}

impl Members {
    /// Whether a caller is among them, by name or by one of its groups.
    pub fn contains(&self, caller: &VtGateCallerId) -> bool {
        self.users.contains(&caller.username) || caller.groups.iter().any(|group| self.users.contains(group))
    }
}

#[derive(Debug, Clone)]
struct Entry {
    /// Without the `%`.
    name: String,
    prefix: bool,
    group: String,
    readers: Arc<BTreeSet<String>>,
    writers: Arc<BTreeSet<String>>,
    admins: Arc<BTreeSet<String>>,
}

impl Entry {
    fn covers(&self, table: &str) -> bool {
        if self.prefix { table.starts_with(&self.name) } else { table == self.name }
    }

    fn written(&self) -> String {
        format!("{}{}", self.name, if self.prefix { "%" } else { "" })
    }
}

/// A validated configuration. Entries are sorted by name.
#[derive(Debug, Clone, Default)]
pub struct TableAcl {
    entries: Vec<Entry>,
}

impl TableAcl {
    /// Reads and validates the JSON of a configuration file.
    pub fn from_json(json: &str) -> Result<Self, AclError> {
        Self::new(serde_json::from_str(json).map_err(|error| AclError::Json(error.to_string()))?)
    }

    /// Validates a configuration.
    pub fn new(config: AclConfig) -> Result<Self, AclError> {
        let mut entries = Vec::new();
        for group in config.table_groups {
            let (readers, writers, admins) = (Arc::new(group.readers), Arc::new(group.writers), Arc::new(group.admins));
            for written in group.table_names_or_prefixes {
                let (name, prefix) = match written.strip_suffix('%') {
                    Some(name) => (name.to_owned(), true),
                    None => (written.clone(), false),
                };
                if name.contains('%') {
                    return Err(AclError::Wildcard(written));
                }
                entries.push(Entry {
                    name,
                    prefix,
                    group: group.name.clone(),
                    readers: readers.clone(),
                    writers: writers.clone(),
                    admins: admins.clone(),
                });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name).then(b.prefix.cmp(&a.prefix)));
        // Sorted, all that a prefix covers follows it directly.
        for pair in entries.windows(2) {
            let same = pair[0].name == pair[1].name;
            if same || (pair[0].prefix && pair[1].name.starts_with(&pair[0].name)) {
                return Err(AclError::Overlap(pair[0].written(), pair[1].written()));
            }
        }
        Ok(Self { entries })
    }

    /// Who has a role on a table.
    pub fn members(&self, table: &str, role: Role) -> Members {
        // The entry that covers a name is the last one not behind it.
        let at = self.entries.partition_point(|entry| entry.name.as_str() <= table);
        let Some(entry) = at.checked_sub(1).map(|at| &self.entries[at]).filter(|entry| entry.covers(table)) else {
            return Members::default();
        };
        let users = match role {
            Role::Reader => &entry.readers,
            Role::Writer => &entry.writers,
            Role::Admin => &entry.admins,
        };
        Members { group: entry.group.clone(), users: users.clone() }
    }

    /// What `/debug/acl` shows.
    pub fn json(&self) -> serde_json::Value {
        let entries = self.entries.iter().map(|entry| {
            serde_json::json!({
                "TableNameOrPrefix": entry.written(), "GroupName": entry.group,
                "Readers": *entry.readers, "Writers": *entry.writers, "Admins": *entry.admins,
            })
        });
        entries.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"table_groups": [
        {"name": "g1", "table_names_or_prefixes": ["t1", "log_%"], "readers": ["r"], "writers": ["w", "grp"]},
        {"name": "g2", "table_names_or_prefixes": ["t2"], "readers": ["r2"], "admins": ["a"]}
    ]}"#;

    fn caller(name: &str, groups: &[&str]) -> VtGateCallerId {
        VtGateCallerId { username: name.into(), groups: groups.iter().map(|g| g.to_string()).collect() }
    }

    #[test]
    fn roles_by_name_prefix_and_group() {
        let acl = TableAcl::from_json(CONFIG).expect("a config");
        assert!(acl.members("t1", Role::Reader).contains(&caller("r", &[])));
        assert!(!acl.members("t1", Role::Writer).contains(&caller("r", &[])));
        assert!(acl.members("log_2020", Role::Writer).contains(&caller("x", &["grp"])));
        assert_eq!(acl.members("log_2020", Role::Writer).group, "g1");
        assert!(acl.members("t2", Role::Admin).contains(&caller("a", &[])));
        assert!(!acl.members("t3", Role::Reader).contains(&caller("r", &[])));
        assert_eq!(acl.members("t3", Role::Reader).group, "");
    }

    #[test]
    fn a_table_in_two_groups_is_refused() {
        for names in [["t%", "t1"], ["t1", "t1"], ["a%", "a%"]] {
            let json = format!(
                r#"{{"table_groups":[{{"table_names_or_prefixes":["{}"]}},{{"table_names_or_prefixes":["{}"]}}]}}"#,
                names[0], names[1]
            );
            assert!(matches!(TableAcl::from_json(&json), Err(AclError::Overlap(..))), "{json}");
        }
        assert!(TableAcl::from_json(r#"{"table_groups":[{"table_names_or_prefixes":["a%b"]}]}"#).is_err());
        assert!(TableAcl::from_json("{").is_err());
    }
}
