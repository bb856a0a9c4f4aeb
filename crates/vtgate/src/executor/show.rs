//! SHOW statements that vtgate answers from what it knows.

use std::time::Duration;

use bytes::Bytes;
use planner::ShowAction;
use tabletclient::health_check::TabletHealth;
use vterrors::Result;
use vtproto::{
    query::{Field, MySqlFlag, QueryResult, Row, Type},
    topodata::TabletType,
};

use super::Executor;
use crate::session::Session;

/// How long SHOW waits for the topology before it answers from what is known.
const TOPO_PATIENCE: Duration = Duration::from_secs(1);
/// Collation id of utf8_general_ci, and of binary data such as numbers.
const UTF8: u32 = 33;
const BINARY: u32 = 63;

/// A result of text columns.
pub fn text_result(columns: &[&str], rows: Vec<Vec<String>>) -> QueryResult {
    let fields = columns
        .iter()
        .map(|name| Field {
            name: (*name).to_string(),
            r#type: Type::Varchar.into(),
            charset: UTF8,
            column_length: 1024,
            flags: MySqlFlag::NotNullFlag as u32,
            ..Field::default()
        })
        .collect();
    let rows_affected = rows.len() as u64;
    QueryResult {
        fields,
        rows: rows.iter().map(|row| text_row(row)).collect(),
        rows_affected,
        ..QueryResult::default()
    }
}

fn text_row(values: &[String]) -> Row {
    let lengths = values.iter().map(|value| i64::try_from(value.len()).unwrap_or_default()).collect();
    Row { lengths, values: Bytes::from(values.concat()) }
}

/// Whether `text` matches a LIKE pattern (`%`, `_`, `\` before either), in any case.
pub fn like(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    let text: Vec<char> = text.to_lowercase().chars().collect();
    // Where to go on when what follows the last `%` does not match: never further back than that.
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        let matched = match pattern.get(p) {
            Some('%') => {
                back = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('_') if t < text.len() => 1,
            Some('\\') if p + 1 < pattern.len() && text.get(t) == pattern.get(p + 1) => 2,
            Some(c) if text.get(t) == Some(c) => 1,
            None if t == text.len() => return true,
            _ => 0,
        };
        if matched > 0 {
            p += matched;
            t += 1;
            continue;
        }
        let Some((after, from)) = back else { return false };
        if from >= text.len() {
            return false;
        }
        back = Some((after, from + 1));
        (p, t) = (after, from + 1);
    }
}

fn wanted(pattern: Option<&str>, text: &str) -> bool {
    pattern.is_none_or(|pattern| like(pattern, text))
}

impl Executor {
    pub(super) async fn show(
        &self,
        session: &mut Session,
        action: &ShowAction,
        tablet_type: TabletType,
    ) -> Result<QueryResult> {
        match action {
            ShowAction::Keyspaces { like } => {
                let names = self.keyspace_names().await?;
                let mut names: Vec<&String> = names.iter().filter(|name| wanted(like.as_deref(), name)).collect();
                names.sort();
                Ok(text_result(&["Databases"], names.into_iter().map(|name| vec![name.clone()]).collect()))
            }
            ShowAction::Shards { like } => self.show_shards(like.as_deref(), tablet_type).await,
            ShowAction::Tablets { like } => Ok(self.show_tablets(like.as_deref())),
            ShowAction::Target => Ok(text_result(&["Target"], vec![vec![session.pb.target_string.clone()]])),
            ShowAction::Metadata { like } => {
                let pattern = like.as_deref();
                let all = self.parts.topo.get_metadata(|key| wanted(pattern, key)).await?;
                let rows = all.into_iter().map(|(key, value)| vec![key, value]).collect();
                Ok(text_result(&["Key", "Value"], rows))
            }
            ShowAction::Warnings => {
                let rows: Vec<Vec<String>> = session
                    .pb
                    .warnings
                    .iter()
                    .map(|warning| vec!["Warning".into(), warning.code.to_string(), warning.message.clone()])
                    .collect();
                let mut result = text_result(&["Level", "Type", "Message"], rows);
                if let Some(code) = result.fields.get_mut(1) {
                    code.r#type = Type::Uint16.into();
                    code.flags |= MySqlFlag::UnsignedFlag as u32;
                    code.charset = BINARY;
                    code.column_length = 5;
                }
                Ok(result)
            }
        }
    }

    /// The keyspaces of our cell; while the topology does not answer, those of the vschema.
    async fn keyspace_names(&self) -> Result<Vec<String>> {
        match tokio::time::timeout(TOPO_PATIENCE, self.parts.resolver.keyspaces()).await {
            Ok(names) => Ok(names?.to_vec()),
            Err(_) => Ok(self.parts.vschema.current().vschema.keyspaces.keys().cloned().collect()),
        }
    }

    async fn show_shards(&self, pattern: Option<&str>, tablet_type: TabletType) -> Result<QueryResult> {
        let keyspaces = self.keyspace_names().await?;
        let mut names = Vec::new();
        for keyspace in keyspaces.iter() {
            // The keyspace's own record, whoever serves it. One that serves nothing of this type has
            // no shards to show.
            let Ok(record) = self.parts.resolver.srv_keyspace(keyspace).await else { continue };
            let partitions = record.partitions.iter().filter(|p| p.served_type() == tablet_type);
            names
                .extend(partitions.flat_map(|p| &p.shard_references).map(|shard| format!("{keyspace}/{}", shard.name)));
        }
        names.retain(|name| wanted(pattern, name));
        Ok(text_result(&["Shards"], names.into_iter().map(|name| vec![name]).collect()))
    }

    fn show_tablets(&self, pattern: Option<&str>) -> QueryResult {
        let tablets = self.parts.scatter.gateway().health().tablets();
        let row = |health: &TabletHealth| {
            vec![
                health.cell().to_string(),
                health.target.keyspace.clone(),
                health.target.shard.clone(),
                health.target.tablet_type().as_str_name().to_string(),
                if health.up && health.serving { "SERVING" } else { "NOT_SERVING" }.to_string(),
                health.alias(),
                health.tablet.hostname.clone(),
            ]
        };
        let mut tablets: Vec<_> = tablets.iter().collect();
        tablets.sort_by_cached_key(|health| {
            let target = &health.target;
            (
                health.cell().to_string(),
                target.keyspace.clone(),
                target.shard.clone(),
                target.tablet_type,
                health.alias(),
            )
        });
        let rows = tablets
            .into_iter()
            .map(|health| row(health))
            .filter(|row| pattern.is_none() || row.iter().any(|value| wanted(pattern, value)))
            .collect();
        text_result(&["Cell", "Keyspace", "Shard", "TabletType", "State", "Alias", "Hostname"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_patterns() {
        for (pattern, text, expected) in [
            ("%", "", true),
            ("comm%", "commerce", true),
            ("COMM%", "commerce", true),
            ("%merc_", "commerce", true),
            ("%merc_", "commerc", false),
            ("a\\_b", "a_b", true),
            ("a\\_b", "axb", false),
            ("%a%b", "xxaxxaxb", true),
            ("a", "ab", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(like(pattern, text), expected, "{pattern} {text}");
        }
        // Not exponential in the number of wildcards.
        assert!(!like(&"%a".repeat(200), &"b".repeat(2000)));
    }
}
