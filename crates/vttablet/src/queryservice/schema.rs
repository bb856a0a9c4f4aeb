//! The tables of the tablet's database, as mysqld says.
//!
//! Owns: the snapshot that plans are checked against, when it is read anew, and the sizes shown as
//! variables. Readers take a snapshot and wait for nobody.
//! Invariants: a table whose definition may have changed gets a new [`Table`] with new sequence state;
//! `version` changes with every such table, and plans of an older version are not used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use vtproto::query::{QueryResult, Row};

use super::conn::DbConn;
use super::error::ExecError;
use super::sequence::Sequence;

/// Bound on reading the whole schema.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What a table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    Plain,
    /// Comment `vitess_sequence`.
    Sequence,
    /// Comment `vitess_message…`.
    Message,
    View,
}

impl TableKind {
    fn new(table_type: &str, comment: &str) -> Self {
        if table_type.eq_ignore_ascii_case("view") || table_type.eq_ignore_ascii_case("system view") {
            Self::View
        } else if comment.trim() == "vitess_sequence" || comment.contains("vitess_sequence") {
            Self::Sequence
        } else if comment.contains("vitess_message") {
            Self::Message
        } else {
            Self::Plain
        }
    }

    /// As `/schemaz` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "None",
            Self::Sequence => "sequence",
            Self::Message => "message",
            Self::View => "view",
        }
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// As `information_schema.columns.column_type`.
    pub column_type: String,
    pub nullable: bool,
    pub auto_increment: bool,
}

/// A table.
#[derive(Debug)]
pub struct Table {
    pub name: String,
    pub kind: TableKind,
    pub columns: Vec<Column>,
    /// Names of the primary key's columns, in key order.
    pub primary_key: Vec<String>,
    /// Creation time, unix seconds; 0 for views.
    create_time: i64,
    pub rows: i64,
    pub data_length: i64,
    pub index_length: i64,
    pub data_free: i64,
    pub max_data_length: i64,
    /// The ids handed out; only used by sequences.
    pub sequence: Arc<Sequence>,
}

/// All tables at one time.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows when a definition changes.
    pub version: u64,
    pub tables: BTreeMap<String, Arc<Table>>,
    /// mysqld's clock when it was read, unix seconds.
    read_at: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Schema {
    snapshot: ArcSwap<Snapshot>,
    versions: AtomicU64,
    /// One load at a time.
    loading: tokio::sync::Mutex<()>,
}

const TABLES: &str = "select table_name, table_type, unix_timestamp(create_time), table_comment, table_rows, \
    data_length, index_length, data_free, max_data_length, unix_timestamp() \
    from information_schema.tables where table_schema = database()";
const COLUMNS: &str = "select table_name, column_name, column_type, is_nullable, extra, column_key \
    from information_schema.columns where table_schema = database()";
const KEYS: &str = "select table_name, column_name from information_schema.statistics \
    where table_schema = database() and index_name = 'PRIMARY'";

impl Schema {
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.snapshot.load().tables.get(name).cloned()
    }

    /// Reads the schema. Tables created since the last time are read whole, and so are those named in
    /// `changed`; of others only the sizes. `all` reads everything whole.
    ///
    /// Returns the names of tables that are new, different or gone.
    pub async fn load(&self, conn: &mut DbConn, changed: &[String], all: bool) -> Result<BTreeSet<String>, ExecError> {
        let _one = self.loading.lock().await;
        let listed = conn.run(&format!("{TABLES} order by table_name"), LOAD_TIMEOUT).await?;
        let before = self.snapshot();
        let mut fresh: BTreeMap<String, Table> = BTreeMap::new();
        let mut kept: BTreeMap<String, Arc<Table>> = BTreeMap::new();
        let mut read_at = before.read_at;
        for row in &listed.rows {
            let (table, now) = table_of(row);
            read_at = read_at.max(now);
            let old = before.tables.get(&table.name);
            // A second counts as old only once it is over.
            let settled = table.create_time > 0 && table.create_time < before.read_at;
            match old {
                Some(old) if settled && !all && old.kind == table.kind && !changed.contains(&table.name) => {
                    let sized = Table {
                        columns: old.columns.clone(),
                        primary_key: old.primary_key.clone(),
                        sequence: old.sequence.clone(),
                        ..table
                    };
                    kept.insert(sized.name.clone(), Arc::new(sized));
                }
                _ => {
                    fresh.insert(table.name.clone(), table);
                }
            }
        }
        let filter = fresh_filter(fresh.keys(), kept.is_empty());
        self.read_columns(conn, &mut fresh, filter).await?;
        let mut different: BTreeSet<String> = before
            .tables
            .keys()
            .filter(|name| !kept.contains_key(*name) && !fresh.contains_key(*name))
            .cloned()
            .collect();
        for (name, mut table) in fresh {
            match before.tables.get(&name) {
                Some(old) if same_definition(old, &table) => table.sequence = old.sequence.clone(),
                _ => drop(different.insert(name.clone())),
            }
            kept.insert(name, Arc::new(table));
        }
        let version =
            if different.is_empty() { before.version } else { self.versions.fetch_add(1, Ordering::Relaxed) + 1 };
        self.snapshot.store(Arc::new(Snapshot { version, tables: kept, read_at }));
        Ok(different)
    }

    /// Looks for one table that the snapshot does not have: it may have been made a moment ago, by
    /// somebody else. True when it is known now.
    pub async fn find(&self, conn: &mut DbConn, name: &str) -> Result<bool, ExecError> {
        let _one = self.loading.lock().await;
        if self.table(name).is_some() {
            return Ok(true);
        }
        let filter = format!(" and table_name = {}", quoted(name));
        let listed = conn.run(&format!("{TABLES}{filter}"), LOAD_TIMEOUT).await?;
        let Some((table, _)) = listed.rows.iter().map(table_of).find(|(table, _)| table.name == name) else {
            return Ok(false);
        };
        let mut fresh = BTreeMap::from([(name.to_owned(), table)]);
        self.read_columns(conn, &mut fresh, filter).await?;
        let before = self.snapshot();
        let mut tables = before.tables.clone();
        tables.extend(fresh.into_iter().map(|(name, table)| (name, Arc::new(table))));
        let version = self.versions.fetch_add(1, Ordering::Relaxed) + 1;
        self.snapshot.store(Arc::new(Snapshot { version, tables, read_at: before.read_at }));
        Ok(true)
    }

    async fn read_columns(
        &self,
        conn: &mut DbConn,
        tables: &mut BTreeMap<String, Table>,
        filter: String,
    ) -> Result<(), ExecError> {
        if tables.is_empty() {
            return Ok(());
        }
        let columns =
            conn.run(&format!("{COLUMNS}{filter} order by table_name, ordinal_position"), LOAD_TIMEOUT).await?;
        let mut has_key = false;
        for row in &columns.rows {
            let cells = cells(row);
            has_key |= cells[5] == "PRI";
            let Some(table) = tables.get_mut(&cells[0]) else { continue };
            table.columns.push(Column {
                name: cells[1].clone(),
                column_type: cells[2].clone(),
                nullable: cells[3] == "YES",
                auto_increment: cells[4].contains("auto_increment"),
            });
        }
        if has_key {
            let keys = conn.run(&format!("{KEYS}{filter} order by table_name, seq_in_index"), LOAD_TIMEOUT).await?;
            for row in &keys.rows {
                let cells = cells(row);
                if let Some(table) = tables.get_mut(&cells[0]) {
                    table.primary_key.push(cells[1].clone());
                }
            }
        }
        Ok(())
    }

    /// Sequences start from what is stored: somebody else may have handed out ids meanwhile.
    pub fn reset_sequences(&self) {
        for table in self.snapshot.load().tables.values() {
            table.sequence.reset();
        }
    }

    /// What `/debug/schema` shows.
    pub fn json(&self) -> Value {
        let table = |table: &Arc<Table>| {
            let columns: Vec<Value> = table
                .columns
                .iter()
                .map(|c| json!({"Name": c.name, "Type": c.column_type, "Nullable": c.nullable, "IsAuto": c.auto_increment}))
                .collect();
            json!({
                "Name": table.name, "Type": table.kind.name(), "Columns": columns, "PrimaryKey": table.primary_key,
                "CreateTime": table.create_time, "TableRows": table.rows, "DataLength": table.data_length,
                "IndexLength": table.index_length, "DataFree": table.data_free,
                "MaxDataLength": table.max_data_length,
            })
        };
        self.snapshot().tables.values().map(table).collect()
    }

    /// A number of every table, for a variable.
    pub fn sizes(&self, of: impl Fn(&Table) -> i64) -> Vec<(Vec<String>, i64)> {
        self.snapshot().tables.values().map(|table| (vec![table.name.clone()], of(table))).collect()
    }
}

fn same_definition(a: &Table, b: &Table) -> bool {
    a.kind == b.kind && a.columns == b.columns && a.primary_key == b.primary_key && a.create_time == b.create_time
}

/// Only what is needed is read; a long list of names costs more than reading all.
fn fresh_filter<'a>(fresh: impl ExactSizeIterator<Item = &'a String>, all: bool) -> String {
    if all || fresh.len() > 100 {
        return String::new();
    }
    let names: Vec<String> = fresh.map(|name| quoted(name)).collect();
    format!(" and table_name in ({})", names.join(", "))
}

fn quoted(name: &str) -> String {
    let mut out = Vec::new();
    vtsql::quote_string(name.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn table_of(row: &Row) -> (Table, i64) {
    let cells = cells(row);
    let number = |at: usize| cells.get(at).and_then(|cell| cell.parse().ok()).unwrap_or(0);
    let table = Table {
        name: cells[0].clone(),
        kind: TableKind::new(&cells[1], &cells[3]),
        columns: Vec::new(),
        primary_key: Vec::new(),
        create_time: number(2),
        rows: number(4),
        data_length: number(5),
        index_length: number(6),
        data_free: number(7),
        max_data_length: number(8),
        sequence: Arc::default(),
    };
    (table, number(9))
}

/// The cells of a row as text, NULL as the empty text; always at least ten.
pub(crate) fn cells(row: &Row) -> Vec<String> {
    let mut out: Vec<String> = cell_bytes(row).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
    out.resize(out.len().max(10), String::new());
    out
}

/// The cells of a row as they are, NULL as no bytes.
pub(crate) fn cell_bytes(row: &Row) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    row.lengths.iter().map(move |&length| {
        let length = usize::try_from(length).unwrap_or(0);
        let bytes = row.values.get(at..at + length).unwrap_or_default();
        at += length;
        bytes
    })
}

/// The first cell of the first row, as text.
pub(crate) fn first_cell(result: &QueryResult) -> Option<String> {
    result.rows.first().map(|row| cells(row).swap_remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_comment() {
        assert_eq!(TableKind::new("BASE TABLE", "vitess_sequence"), TableKind::Sequence);
        assert_eq!(TableKind::new("BASE TABLE", "vitess_message,vt_ack_wait=30"), TableKind::Message);
        assert_eq!(TableKind::new("BASE TABLE", ""), TableKind::Plain);
        assert_eq!(TableKind::new("VIEW", "VIEW"), TableKind::View);
    }

    #[test]
    fn cells_of_a_row() {
        let row = Row { lengths: vec![1, -1, 2], values: "abc".into() };
        assert_eq!(cells(&row)[..3], ["a".to_owned(), String::new(), "bc".to_owned()]);
        let binary = Row { lengths: vec![2, 1], values: vec![0xff, 0, b'c'].into() };
        assert_eq!(cell_bytes(&binary).collect::<Vec<_>>(), [&[0xff, 0][..], b"c"]);
        assert_eq!(first_cell(&QueryResult { rows: vec![row], ..Default::default() }), Some("a".into()));
    }
}
