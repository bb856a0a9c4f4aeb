//! Differences between two tablets, as texts for operators.

use std::collections::BTreeMap;
use std::fmt::Debug;

use vtproto::tabletmanagerdata::{Permissions, SchemaDefinition, TableDefinition};

/// What `TableDefinition.type` says of a view.
const VIEW: &str = "VIEW";

/// The differences of two schemas; none when they are alike. Row counts and sizes do not matter.
pub(crate) fn diff_schema(
    left_name: &str,
    left: &SchemaDefinition,
    right_name: &str,
    right: &SchemaDefinition,
) -> Vec<String> {
    let mut diffs = Vec::new();
    if left.database_schema != right.database_schema {
        diffs.push(format!(
            "schemas are different:\n{left_name}: {}\n differs from:\n{right_name}: {}",
            left.database_schema, right.database_schema
        ));
    }
    let tables = |schema: &SchemaDefinition| -> BTreeMap<(bool, String), TableDefinition> {
        schema.table_definitions.iter().map(|t| ((t.r#type == VIEW, t.name.clone()), t.clone())).collect()
    };
    let (left_tables, right_tables) = (tables(left), tables(right));
    for (key, table) in &left_tables {
        match right_tables.get(key) {
            None => diffs.push(extra(left_name, key)),
            Some(other) if without_implied_charsets(&other.schema) != without_implied_charsets(&table.schema) => diffs
                .push(format!(
                    "schemas differ on table {}:\n{left_name}: {}\n differs from:\n{right_name}: {}",
                    table.name, table.schema, other.schema
                )),
            Some(_) => {}
        }
    }
    diffs.extend(right_tables.keys().filter(|key| !left_tables.contains_key(*key)).map(|key| extra(right_name, key)));
    diffs
}

/// A CREATE TABLE without the character sets of columns that the collation behind them implies. MySQL 8 prints them or not,
/// as the column was created, and a table that is created from what it prints is not printed the same.
fn without_implied_charsets(sql: &str) -> String {
    const CHARSET: &str = " CHARACTER SET ";
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some((before, behind)) = rest.split_once(CHARSET) {
        out.push_str(before);
        let end = behind.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(behind.len());
        let (charset, after) = behind.split_at(end);
        let collation = after.strip_prefix(" COLLATE ").and_then(|text| text.strip_prefix(charset));
        if collation.is_none_or(|text| !text.starts_with('_')) {
            out.push_str(CHARSET);
            out.push_str(charset);
        }
        rest = after;
    }
    out + rest
}

fn extra(name: &str, (is_view, table): &(bool, String)) -> String {
    format!("{name} has an extra {} named {table}", if *is_view { "view" } else { "table" })
}

/// The differences of two tablets' users and grants.
pub(crate) fn diff_permissions(
    left_name: &str,
    left: &Permissions,
    right_name: &str,
    right: &Permissions,
) -> Vec<String> {
    let users = |p: &Permissions| -> BTreeMap<String, _> {
        p.user_permissions.iter().map(|u| (format!("{}:{}", u.host, u.user), u.clone())).collect()
    };
    let dbs = |p: &Permissions| -> BTreeMap<String, _> {
        p.db_permissions.iter().map(|d| (format!("{}:{}:{}", d.host, d.db, d.user), d.clone())).collect()
    };
    let mut diffs = diff_maps("user", left_name, &users(left), right_name, &users(right));
    diffs.extend(diff_maps("db", left_name, &dbs(left), right_name, &dbs(right)));
    diffs
}

fn diff_maps<T: PartialEq + Debug>(
    what: &str,
    left_name: &str,
    left: &BTreeMap<String, T>,
    right_name: &str,
    right: &BTreeMap<String, T>,
) -> Vec<String> {
    let mut diffs = Vec::new();
    for (key, value) in left {
        match right.get(key) {
            None => diffs.push(format!("{left_name} has an extra {what} {key}")),
            Some(other) if other != value => diffs.push(format!(
                "permissions differ on {what} {key}:\n{left_name}: {value:?}\n differs from:\n{right_name}: {other:?}"
            )),
            Some(_) => {}
        }
    }
    let only_right = right.keys().filter(|key| !left.contains_key(*key));
    diffs.extend(only_right.map(|key| format!("{right_name} has an extra {what} {key}")));
    diffs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(tables: &[(&str, &str, &str)]) -> SchemaDefinition {
        SchemaDefinition {
            table_definitions: tables
                .iter()
                .map(|(name, ty, sql)| TableDefinition {
                    name: (*name).into(),
                    r#type: (*ty).into(),
                    schema: (*sql).into(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_character_set_that_its_collation_implies_is_no_difference() {
        let table = |text: &str| schema(&[("a", "BASE TABLE", text)]);
        let implied = table("`n` text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, `m` int");
        assert!(diff_schema("l", &implied, "r", &table("`n` text COLLATE utf8mb4_bin, `m` int")).is_empty());
        for other in ["`n` text CHARACTER SET latin1 COLLATE latin1_bin, `m` int", "`n` text, `m` int"] {
            assert_eq!(diff_schema("l", &implied, "r", &table(other)).len(), 1, "{other}");
        }
        let alone = table("`n` text CHARACTER SET utf8mb4");
        assert_eq!(diff_schema("l", &alone, "r", &table("`n` text")).len(), 1);
    }

    #[test]
    fn tables_are_compared_by_name_kind_and_text() {
        let left = schema(&[("a", "BASE TABLE", "x"), ("b", "BASE TABLE", "y"), ("v", VIEW, "z")]);
        let right = schema(&[("c", "BASE TABLE", "x"), ("b", "BASE TABLE", "y2")]);
        assert_eq!(
            diff_schema("l", &left, "r", &right),
            [
                "l has an extra table named a",
                "schemas differ on table b:\nl: y\n differs from:\nr: y2",
                "l has an extra view named v",
                "r has an extra table named c",
            ]
        );
        assert_eq!(diff_schema("l", &left, "r", &left), [] as [String; 0]);
    }
}
