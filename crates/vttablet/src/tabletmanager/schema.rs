//! `GetSchema` and `ApplySchema`: the definition of the tablet's database.
//!
//! Definitions compare equal between servers that have the same schema: the database's name is replaced by a mark and the
//! next auto-increment value left out.

use std::collections::HashMap;

use md5::{Digest, Md5};
use vreplication::NamePattern;
use vterrors::{Code, Result, VtError};
use vtproto::tabletmanagerdata::{self as tmd, SchemaChangeResult, SchemaDefinition, TableDefinition};

use super::{
    manager::TabletManager,
    mysqld::{Lease, cell, cells, escape_id, quote},
};

/// Stands for the name of the database in definitions.
pub(super) const DATABASE_MARK: &str = "{{.DatabaseName}}";
pub(super) const VIEW: &str = "VIEW";

/// Which tables a request is about.
pub(super) struct TableFilter {
    wanted: Vec<NamePattern>,
    excluded: Vec<NamePattern>,
    include_views: bool,
}

impl TableFilter {
    /// Names, or `/regexps/`; no names at all means every table.
    pub(super) fn new(tables: &[String], excluded: &[String], include_views: bool) -> Result<Self> {
        Ok(Self {
            wanted: tables.iter().map(|text| NamePattern::new(text)).collect::<Result<_>>()?,
            excluded: excluded.iter().map(|text| NamePattern::new(text)).collect::<Result<_>>()?,
            include_views,
        })
    }

    fn includes(&self, name: &str, table_type: &str) -> bool {
        (self.include_views || table_type != VIEW)
            && (self.wanted.is_empty() || self.wanted.iter().any(|pattern| pattern.matches(name)))
            && !self.excluded.iter().any(|pattern| pattern.matches(name))
    }
}

impl TabletManager {
    pub(super) async fn get_schema(&self, request: &tmd::GetSchemaRequest) -> Result<SchemaDefinition> {
        let filter = TableFilter::new(&request.tables, &request.exclude_tables, request.include_views)?;
        read_schema(&mut self.mysqld.dba().await?, &self.db_name(), &filter).await
    }

    /// Applies a change to the tablet's database and checks what was before and after, as far as the request says.
    pub(super) async fn apply_schema(&self, request: tmd::ApplySchemaRequest) -> Result<SchemaChangeResult> {
        let _action = self.action.lock().await;
        let everything = TableFilter::new(&[], &[], true)?;
        let db = self.db_name();
        let mut conn = self.mysqld.dba().await?;
        let before = read_schema(&mut conn, &db, &everything).await?;
        if let Some(expected) = request.before_schema.as_ref().filter(|expected| !same(expected, &before)) {
            if request.after_schema.as_ref().is_some_and(|after| same(after, &before)) {
                tracing::info!("the schema is already as it should be afterwards: nothing to apply");
                return Ok(SchemaChangeResult { before_schema: Some(before.clone()), after_schema: Some(before) });
            }
            let differences = differences(expected, &before);
            if !request.force {
                return Err(VtError::new(Code::FailedPrecondition, format!("BeforeSchema differs: {differences}")));
            }
            tracing::warn!("BeforeSchema differs ({differences}), applying anyway");
        }
        if !request.allow_replication {
            conn.execute("SET sql_log_bin = 0").await?;
        }
        conn.execute(&format!("USE {}", escape_id(&db))).await?;
        super::preflight::run_statements(&mut conn, &request.sql, 0).await?;
        let after = read_schema(&mut conn, &db, &everything).await?;
        if let Some(expected) = request.after_schema.as_ref().filter(|expected| !same(expected, &after)) {
            let differences = differences(expected, &after);
            if !request.force {
                return Err(VtError::new(Code::FailedPrecondition, format!("AfterSchema differs: {differences}")));
            }
            tracing::warn!("AfterSchema differs: {differences}");
        }
        self.query.reload_schema().await?;
        Ok(SchemaChangeResult { before_schema: Some(before), after_schema: Some(after) })
    }
}

/// The definition of a database.
pub(super) async fn read_schema(conn: &mut Lease, db: &str, filter: &TableFilter) -> Result<SchemaDefinition> {
    let quoted = escape_id(db);
    let created = conn.execute(&format!("SHOW CREATE DATABASE IF NOT EXISTS {quoted}")).await?;
    let database_schema = cell(&created, 1)
        .ok_or_else(|| VtError::new(Code::NotFound, format!("mysqld does not show database {db}")))?
        .replacen(&quoted, DATABASE_MARK, 1);
    let listed = conn
        .execute(&format!(
            "SELECT table_name AS name, table_type AS type, data_length AS bytes, table_rows AS row_estimate \
             FROM information_schema.tables WHERE table_schema = {} ORDER BY table_type = 'VIEW', table_name",
            quote(db)
        ))
        .await?;
    let mut keys = primary_keys(conn, db).await?;
    let mut table_definitions = Vec::new();
    for row in &listed.rows {
        let values = cells(row);
        let text = |at: usize| values.get(at).cloned().flatten().unwrap_or_default();
        let (name, table_type) = (text(0), text(1));
        if !filter.includes(&name, &table_type) {
            continue;
        }
        let Some(schema) = create_statement(conn, &quoted, &name, &table_type).await? else { continue };
        let fields = conn.execute(&format!("SELECT * FROM {quoted}.{} WHERE 1 != 1", escape_id(&name))).await?.fields;
        table_definitions.push(TableDefinition {
            schema,
            columns: fields.iter().map(|field| field.name.clone()).collect(),
            primary_key_columns: keys.remove(&name).unwrap_or_default(),
            r#type: table_type,
            data_length: text(2).parse().unwrap_or(0),
            row_count: text(3).parse().unwrap_or(0),
            fields,
            name,
        });
    }
    let version = version(&table_definitions);
    Ok(SchemaDefinition { database_schema, table_definitions, version })
}

/// How a table or view is made. `None` when it was dropped since it was listed.
async fn create_statement(conn: &mut Lease, quoted_db: &str, name: &str, table_type: &str) -> Result<Option<String>> {
    const NO_SUCH_TABLE: u16 = 1146;
    let shown = match conn.execute(&format!("SHOW CREATE TABLE {quoted_db}.{}", escape_id(name))).await {
        Ok(shown) => shown,
        Err(error) if error.errno() == NO_SUCH_TABLE => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = cell(&shown, 1).unwrap_or_default();
    Ok(Some(if table_type == VIEW { text.replace(quoted_db, DATABASE_MARK) } else { without_auto_increment(&text) }))
}

/// Two servers with the same schema need not be at the same next value.
fn without_auto_increment(text: &str) -> String {
    const OPTION: &str = " AUTO_INCREMENT=";
    let Some(start) = text.rfind(OPTION) else { return text.to_owned() };
    let rest = &text[start + OPTION.len()..];
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if digits == 0 { text.to_owned() } else { format!("{}{}", &text[..start], &rest[digits..]) }
}

async fn primary_keys(conn: &mut Lease, db: &str) -> Result<HashMap<String, Vec<String>>> {
    let listed = conn
        .execute(&format!(
            "SELECT table_name AS name, column_name AS column_name FROM information_schema.key_column_usage \
             WHERE table_schema = {} AND constraint_name = 'PRIMARY' ORDER BY table_name, ordinal_position",
            quote(db)
        ))
        .await?;
    let mut keys: HashMap<String, Vec<String>> = HashMap::new();
    for row in &listed.rows {
        if let [Some(table), Some(column)] = cells(row).as_slice() {
            keys.entry(table.clone()).or_default().push(column.clone());
        }
    }
    Ok(keys)
}

/// The same for the same definitions in the same order.
fn version(tables: &[TableDefinition]) -> String {
    let mut hash = Md5::new();
    for table in tables {
        hash.update(table.schema.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn same(a: &SchemaDefinition, b: &SchemaDefinition) -> bool {
    differences(a, b).is_empty()
}

/// What a person needs to see where two schemas part.
fn differences(expected: &SchemaDefinition, actual: &SchemaDefinition) -> String {
    let by_name = |schema: &SchemaDefinition| -> std::collections::BTreeMap<String, (String, String)> {
        let tables = schema.table_definitions.iter();
        tables.map(|table| (table.name.clone(), (table.schema.clone(), table.r#type.clone()))).collect()
    };
    let (wanted, found) = (by_name(expected), by_name(actual));
    let mut all = Vec::new();
    if expected.database_schema != actual.database_schema {
        all.push("the databases differ".to_owned());
    }
    for name in wanted.keys().filter(|name| !found.contains_key(*name)) {
        all.push(format!("there is no table {name}"));
    }
    for (name, definition) in &found {
        match wanted.get(name) {
            None => all.push(format!("there is an extra table {name}")),
            Some(other) if other != definition => all.push(format!("table {name} differs")),
            Some(_) => {}
        }
    }
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_value_does_not_count() {
        let text = "CREATE TABLE `t` (\n  `id` bigint(20) NOT NULL AUTO_INCREMENT\n) ENGINE=InnoDB AUTO_INCREMENT=6 DEFAULT CHARSET=utf8";
        assert_eq!(
            without_auto_increment(text),
            "CREATE TABLE `t` (\n  `id` bigint(20) NOT NULL AUTO_INCREMENT\n) ENGINE=InnoDB DEFAULT CHARSET=utf8"
        );
        assert_eq!(without_auto_increment("CREATE TABLE `t` ()"), "CREATE TABLE `t` ()");
    }

    #[test]
    fn the_version_is_that_of_v5() {
        let schema = "CREATE TABLE `customer` (\n  `customer_id` bigint(20) NOT NULL AUTO_INCREMENT,\n  \
                      `email` varbinary(128) DEFAULT NULL,\n  PRIMARY KEY (`customer_id`)\n) ENGINE=InnoDB \
                      DEFAULT CHARSET=utf8mb3 COLLATE=utf8mb3_general_ci";
        let table = TableDefinition { schema: schema.to_owned(), ..Default::default() };
        assert_eq!(version(&[table]), "e8e8d90d1ab5004b3028ef7e0b7b1509");
    }

    #[test]
    fn filters_take_names_and_expressions() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let filter = TableFilter::new(&list(&["customer", "/^or/"]), &list(&["order_seq"]), false).unwrap();
        let includes = |name: &str| filter.includes(name, "BASE TABLE");
        assert!(includes("customer") && includes("orders") && !includes("order_seq") && !includes("corder"));
        assert!(!filter.includes("customer", VIEW));
        assert!(TableFilter::new(&list(&["/(/"]), &[], false).is_err());
    }

    #[test]
    fn differences_are_named() {
        let table = |name: &str, schema: &str| TableDefinition {
            name: name.into(),
            schema: schema.into(),
            ..Default::default()
        };
        let schema =
            |tables: Vec<TableDefinition>| SchemaDefinition { table_definitions: tables, ..Default::default() };
        let a = schema(vec![table("a", "1"), table("b", "1")]);
        let b = schema(vec![table("b", "2"), table("c", "1")]);
        assert_eq!(differences(&a, &b), "there is no table a, table b differs, there is an extra table c");
        assert!(same(&a, &a));
    }
}
