//! Row changes put together: of many changes of many rows, the few statements that have the same effect.
//!
//! What counts of a row is whether it was there before and what it is at the end; what it was meanwhile is nobody's
//! business, because all of it becomes visible in one transaction. Every table then takes one DELETE, one INSERT … ON
//! DUPLICATE KEY UPDATE for the rows that were there, and one INSERT for those that were not, which still fails where a row
//! is that should not be.
//!
//! That is allowed only for tables whose rows do not depend on each other ([`independent_tables`]): InnoDB, the key of the
//! source as the only unique one, no foreign keys to or from them, no triggers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use vterrors::{Code, Result, VtError};
use vtproto::{
    binlogdata::binlog_transaction::{Row, Table},
    query::QueryResult,
};

use super::{
    parameters::{Kind, parameters},
    row::{cells, quoted},
    script::{Bulk, Script},
};
use crate::row_bytes;

/// Keys of one DELETE: servers bound the memory with which they find the ranges of a condition.
const DELETE_KEYS: usize = 1000;

/// Rows for which a statement with parameters pays.
const BULK_ROWS: usize = 16;

/// Keys of tables by name: their columns.
pub(super) type Keys = BTreeMap<String, Vec<String>>;

/// Asks for what [`independent_tables`] reads: unique keys, tables, triggers, foreign keys.
pub(super) fn select_independent_tables(database: &str) -> String {
    let schema = quoted(database.as_bytes());
    format!(
        "select table_name, index_name, column_name, \
           sub_part is null and nullable <> 'YES' and index_type = 'BTREE' \
         from information_schema.statistics where table_schema = {schema} and non_unique = 0 \
         order by table_name, index_name, seq_in_index;\
         select table_name from information_schema.tables \
         where table_schema = {schema} and table_type = 'BASE TABLE' and engine = 'InnoDB';\
         select event_object_table from information_schema.triggers where event_object_schema = {schema};\
         select table_schema = {schema}, table_name, referenced_table_schema = {schema}, referenced_table_name \
         from information_schema.key_column_usage where referenced_table_name is not null \
           and (table_schema = {schema} or referenced_table_schema = {schema})"
    )
}

/// The tables whose rows do not depend on each other, with their keys, from the results of
/// [`select_independent_tables`].
pub(super) fn independent_tables(results: &[QueryResult]) -> Keys {
    let rows = |at: usize| results.get(at).into_iter().flat_map(|result| &result.rows).map(cells);
    let text = |cell: Option<&[u8]>| cell.map(|cell| String::from_utf8_lossy(cell).into_owned()).unwrap_or_default();
    let mut keys: BTreeMap<String, Option<(String, Vec<String>)>> = BTreeMap::new();
    for row in rows(0) {
        let [table, index, column, plain] = row[..] else { continue };
        let (index, plain) = (text(index), column.is_some() && plain == Some(b"1"));
        let key = keys.entry(text(table)).or_insert_with(|| Some((index.clone(), Vec::new())));
        match key {
            Some((first, columns)) if *first == index && plain => columns.push(text(column)),
            _ => *key = None,
        }
    }
    let innodb: HashSet<String> = rows(1).filter_map(|row| Some(text(*row.first()?))).collect();
    let mut dependent: HashSet<String> = rows(2).filter_map(|row| Some(text(*row.first()?))).collect();
    for row in rows(3) {
        let ends = row.chunks_exact(2).filter(|end| end[0] == Some(b"1"));
        dependent.extend(ends.map(|end| text(end[1])));
    }
    keys.into_iter()
        .filter(|(table, _)| innodb.contains(table) && !dependent.contains(table))
        .filter_map(|(table, key)| Some((table, key?.1)))
        .collect()
}

/// What became of a row.
#[derive(Debug)]
struct Entry {
    key: Vec<u8>,
    /// It was there before.
    existed: bool,
    /// It was deleted after that: what comes now is a new row.
    replaced: bool,
    /// Its values at the end, if it is there then.
    values: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Changes {
    table: Table,
    insert: String,
    update: String,
    delete: String,
    /// The two statements for one row of parameters, without and with `update`.
    bulk: [Arc<str>; 2],
    kinds: Vec<Kind>,
    /// Several columns: each key is a condition of its own.
    composite: bool,
    entries: Vec<Entry>,
    by_key: HashMap<Vec<u8>, usize>,
}

/// Changes that were not turned into statements yet.
#[derive(Debug, Default)]
pub(super) struct Merge {
    tables: HashMap<u32, Changes>,
    /// Tables with changes.
    touched: Vec<u32>,
    bytes: usize,
    /// mysqld takes many rows of parameters with one statement.
    bulk: bool,
}

/// The rows that changes were about, by hashes of their keys: hashes that two sets share by chance cost a wait.
#[derive(Debug, Default)]
pub(super) struct Touched {
    rows: HashSet<u64>,
    /// It has a key that may be equal to one that is written otherwise.
    unsure: bool,
    folded: Vec<u8>,
}

impl Touched {
    fn add(&mut self, table: &str, key: &[u8]) {
        self.folded.clear();
        if key.starts_with(b"_binary") {
            self.folded.extend_from_slice(key);
        } else {
            // Collations may hold letters of other case and blanks behind them for equal, letters with accents too, and
            // pass over what is no letter. Of `_latin1 0xe9` it is not seen what the bytes stand for.
            self.folded.extend(key.iter().filter(|byte| **byte != b' ').map(u8::to_ascii_lowercase));
            let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'\\';
            self.unsure |= !self.folded.iter().all(plain) || self.folded.windows(2).any(|pair| pair == b"0x");
        }
        let mut hasher = DefaultHasher::new();
        (table, &self.folded).hash(&mut hasher);
        self.rows.insert(hasher.finish());
    }

    /// Whether a row may be in both.
    pub fn may_meet(&self, other: &Self) -> bool {
        self.unsure || other.unsure || !self.rows.is_disjoint(&other.rows)
    }
}

fn name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

impl Changes {
    fn new(table: Table) -> Self {
        let place = name(&table.name);
        let columns: Vec<String> = table.columns.iter().map(|column| name(column)).collect();
        let updates: Vec<String> = columns.iter().map(|column| format!("{column}=values({column})")).collect();
        let insert = format!("insert into {place} ({}) values ", columns.join(","));
        let update = format!(" on duplicate key update {}", updates.join(","));
        let marks = vec!["?"; columns.len()].join(",");
        let bulk = ["", &update].map(|end| Arc::from(format!("{insert}({marks}){end}")));
        let composite = table.key.len() != 1;
        let key = table.key.first().filter(|_| !composite).map(|column| name(column));
        Self {
            insert,
            update,
            bulk,
            kinds: vec![Kind::Null; columns.len()],
            delete: format!("delete from {place} where {}", key.map_or_else(String::new, |key| format!("{key} in "))),
            composite,
            entries: Vec::new(),
            by_key: HashMap::new(),
            table,
        }
    }

    /// The entry of a row; `there` says whether its first change found it.
    fn entry(&mut self, key: Vec<u8>, there: bool) -> &mut Entry {
        let at = match self.by_key.get(&key) {
            Some(at) => *at,
            None => {
                let at = self.entries.len();
                self.by_key.insert(key.clone(), at);
                self.entries.push(Entry { key, existed: there, replaced: false, values: None });
                at
            }
        };
        &mut self.entries[at]
    }

    fn write(&mut self, script: &mut Script, bulk: bool, touched: &mut Touched) {
        self.entries.iter().for_each(|row| touched.add(&self.table.name, &row.key));
        let deleted: Vec<&Entry> =
            self.entries.iter().filter(|row| row.existed && (row.replaced || row.values.is_none())).collect();
        for rows in deleted.chunks(DELETE_KEYS) {
            let text = script.text();
            text.extend_from_slice(self.delete.as_bytes());
            let (between, end): (&[u8], &[u8]) = if self.composite { (b" or ", b"") } else { (b",", b")") };
            for (at, row) in rows.iter().enumerate() {
                match at {
                    0 if self.composite => {}
                    0 => text.push(b'('),
                    _ => text.extend_from_slice(between),
                }
                text.extend_from_slice(&row.key);
            }
            text.extend_from_slice(end);
            text.extend_from_slice(b"\n;");
        }
        for there in [true, false] {
            let wanted = |row: &&Entry| (row.existed && !row.replaced) == there;
            let rows = self.entries.iter().filter(wanted).filter_map(|row| row.values.as_deref());
            if bulk
                && rows.clone().nth(BULK_ROWS - 1).is_some()
                && let Some(rows) = parameters(&mut self.kinds, rows.clone())
            {
                script.push_bulk(Bulk { sql: self.bulk[usize::from(there)].clone(), rows });
                continue;
            }
            let mut any = false;
            for values in rows {
                let text = script.text();
                text.extend_from_slice(if any { b",(" } else { self.insert.as_bytes() });
                if !std::mem::replace(&mut any, true) {
                    text.push(b'(');
                }
                text.extend_from_slice(values);
                text.push(b')');
            }
            if any && there {
                script.text().extend_from_slice(self.update.as_bytes());
            }
            if any {
                script.text().extend_from_slice(b"\n;");
            }
        }
        self.entries.clear();
        self.by_key.clear();
    }
}

impl Merge {
    /// Nothing yet. `bulk`: mysqld takes many rows of parameters with one statement.
    pub fn new(bulk: bool) -> Self {
        Self { bulk, ..Self::default() }
    }

    /// Whether changes wait in which the number of this table stands for something else.
    pub fn has_other(&self, table: &Table) -> bool {
        self.tables.get(&table.number).is_some_and(|known| !known.entries.is_empty() && known.table != *table)
    }

    /// What the number of a table stands for from now on. No changes may wait in which it stands for something else.
    pub fn define(&mut self, table: Table) {
        if self.tables.get(&table.number).is_none_or(|known| known.table != table) {
            self.tables.insert(table.number, Changes::new(table));
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// Bytes that wait, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a change.
    ///
    /// # Errors
    /// Its table is not defined.
    pub fn add(&mut self, row: Row) -> Result<()> {
        let unknown =
            || VtError::new(Code::Internal, format!("the stream has a row of an unknown table {}", row.table));
        let changes = self.tables.get_mut(&row.table).ok_or_else(unknown)?;
        if changes.entries.is_empty() {
            self.touched.push(row.table);
        }
        self.bytes += row_bytes(&row) + 4;
        let moved = !row.after.is_empty() && !row.before.is_empty();
        if !row.before.is_empty() {
            let entry = changes.entry(row.before, true);
            if moved || row.values.is_none() {
                entry.values = None;
                entry.replaced |= entry.existed;
            } else {
                entry.values = row.values;
                return Ok(());
            }
        }
        if !row.after.is_empty() {
            changes.entry(row.after, false).values = row.values;
        }
        Ok(())
    }

    /// Appends the statements and forgets the changes. Their rows are added to `touched`.
    pub fn write(&mut self, script: &mut Script, touched: &mut Touched) {
        for number in self.touched.drain(..) {
            if let Some(changes) = self.tables.get_mut(&number) {
                changes.write(script, self.bulk, touched);
            }
        }
        self.bytes = 0;
    }

    /// Forgets the changes.
    pub fn clear(&mut self) {
        for number in self.touched.drain(..) {
            if let Some(changes) = self.tables.get_mut(&number) {
                changes.entries.clear();
                changes.by_key.clear();
            }
        }
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge_of_id() -> Merge {
        merge(&["id"])
    }

    fn merge(key: &[&str]) -> Merge {
        let mut merge = Merge::default();
        merge.define(table("t", key));
        merge
    }

    fn table(name: &str, key: &[&str]) -> Table {
        let key = key.iter().map(|column| (*column).to_owned()).collect();
        Table { number: 7, name: name.into(), columns: vec!["id".into(), "v".into()], key }
    }

    /// `before` and `after` empty: not there.
    fn add(merge: &mut Merge, before: &str, after: &str, values: &str) {
        let values = (!values.is_empty()).then(|| values.into());
        merge.add(Row { table: 7, before: before.into(), after: after.into(), values }).expect("it is defined");
    }

    fn text(merge: &mut Merge) -> String {
        let mut script = Script::default();
        merge.write(&mut script, &mut Touched::default());
        assert!(merge.is_empty() && merge.bytes() == 0);
        String::from_utf8(std::mem::take(script.text())).expect("text").replace("\n;", ";")
    }

    #[test]
    fn of_every_row_its_end_counts() {
        let mut merge = merge_of_id();
        add(&mut merge, "", "1", "1,'new'");
        add(&mut merge, "1", "", "1,'changed'");
        add(&mut merge, "2", "", "2,'a'");
        add(&mut merge, "2", "", "2,'b'");
        add(&mut merge, "3", "", "");
        add(&mut merge, "", "4", "4,'x'");
        add(&mut merge, "4", "", "");
        add(&mut merge, "5", "", "5,'y'");
        add(&mut merge, "5", "", "");
        add(&mut merge, "", "6", "6,'z'");
        assert_eq!(
            text(&mut merge),
            "delete from `t` where `id` in (3,5);\
             insert into `t` (`id`,`v`) values (2,'b') on duplicate key update `id`=values(`id`),`v`=values(`v`);\
             insert into `t` (`id`,`v`) values (1,'changed'),(6,'z');"
        );
        assert_eq!(text(&mut merge), "");
    }

    #[test]
    fn a_row_that_was_replaced_is_a_new_one() {
        let mut merge = merge_of_id();
        add(&mut merge, "1", "", "");
        add(&mut merge, "", "1", "1,'again'");
        add(&mut merge, "1", "", "1,'and changed'");
        // Its key changes, to one that another row had.
        add(&mut merge, "3", "", "");
        add(&mut merge, "2", "3", "3,'moved'");
        assert_eq!(
            text(&mut merge),
            "delete from `t` where `id` in (1,3,2);insert into `t` (`id`,`v`) values (1,'and changed'),(3,'moved');"
        );
    }

    #[test]
    fn a_key_is_one_row_whatever_it_was_written_like_before() {
        // In a collation in which they are equal, of these two there is one at a time.
        let mut merge = merge_of_id();
        add(&mut merge, "'a'", "'A'", "'A',1");
        add(&mut merge, "'A'", "", "'A',2");
        assert_eq!(text(&mut merge), "delete from `t` where `id` in ('a');insert into `t` (`id`,`v`) values ('A',2);");
        add(&mut merge, "'a'", "'A'", "'A',1");
        add(&mut merge, "'A'", "'a'", "'a',2");
        assert_eq!(text(&mut merge), "delete from `t` where `id` in ('a');insert into `t` (`id`,`v`) values ('a',2);");
        // Two rows swap their keys by way of a third.
        add(&mut merge, "1", "0", "0,'x'");
        add(&mut merge, "2", "1", "1,'y'");
        add(&mut merge, "0", "2", "2,'x'");
        assert_eq!(
            text(&mut merge),
            "delete from `t` where `id` in (1,2);insert into `t` (`id`,`v`) values (1,'y'),(2,'x');"
        );
    }

    #[test]
    fn rows_that_may_be_the_same_meet() {
        let touched = |tables: &[(&str, &str)]| {
            let mut touched = Touched::default();
            tables.iter().for_each(|(table, key)| touched.add(table, key.as_bytes()));
            touched
        };
        let meet = |one: &[(&str, &str)], other: &[(&str, &str)]| touched(one).may_meet(&touched(other));
        assert!(!meet(&[("t", "1"), ("t", "2")], &[("t", "3"), ("u", "1")]));
        assert!(meet(&[("t", "1"), ("t", "2")], &[("t", "3"), ("t", "2")]));
        assert!(!meet(&[("t", "'a'")], &[("t", "'b'")]));
        assert!(!meet(&[("t", "_binary'a'")], &[("t", "_binary'A'")]));
        for (one, other) in [("'a'", "'A'"), ("'a '", "'a'"), ("`k`=1 AND `v`='x'", "`k`=1 AND `v`='X'")] {
            assert!(meet(&[("t", one)], &[("t", other)]), "{one} {other}");
        }
        // Whether these are equal is for a collation to say.
        for key in ["_utf8mb4'é'", "_latin1 0xe9", "'\u{1}a'", "'a\\n'"] {
            assert!(meet(&[("t", key)], &[("t", "'b'")]), "{key}");
        }
    }

    #[test]
    fn a_number_may_come_to_mean_another_table() {
        let mut merge = merge_of_id();
        add(&mut merge, "", "1", "1,'x'");
        assert!(!merge.has_other(&table("t", &["id"])) && merge.has_other(&table("u", &["id"])));
        merge.define(table("t", &["id"]));
        assert_eq!(text(&mut merge), "insert into `t` (`id`,`v`) values (1,'x');");
        assert!(!merge.has_other(&table("u", &["id"])));
        merge.define(table("u", &["id"]));
        add(&mut merge, "", "1", "1,'x'");
        assert_eq!(text(&mut merge), "insert into `u` (`id`,`v`) values (1,'x');");
    }

    fn result(rows: &[&[Option<&str>]]) -> QueryResult {
        let row = |cells: &&[Option<&str>]| vtproto::query::Row {
            lengths: cells.iter().map(|cell| cell.map_or(-1, |cell| cell.len() as i64)).collect(),
            values: cells.iter().flatten().flat_map(|cell| cell.bytes()).collect(),
        };
        QueryResult { rows: rows.iter().map(row).collect(), ..Default::default() }
    }

    #[test]
    fn tables_whose_rows_depend_on_each_other_are_left_out() {
        let key = |table, index, column, plain| [Some(table), Some(index), column, Some(plain)];
        let mut keys = vec![key("pair", "PRIMARY", Some("a"), "1"), key("pair", "PRIMARY", Some("b"), "1")];
        for table in ["child", "memory", "parent", "stray", "triggers"] {
            keys.push(key(table, "PRIMARY", Some("id"), "1"));
        }
        keys.extend([key("two", "PRIMARY", Some("id"), "1"), key("two", "u", Some("u"), "1")]);
        keys.extend([key("prefix", "u", Some("v"), "0"), key("expression", "u", None, "1")]);
        let keys: Vec<&[Option<&str>]> = keys.iter().map(|key| &key[..]).collect();
        let names = ["pair", "child", "parent", "stray", "triggers", "two", "prefix", "expression", "none"].map(Some);
        let names: Vec<&[Option<&str>]> = names.iter().map(std::slice::from_ref).collect();
        let results = [
            result(&keys),
            result(&names),
            result(&[&[Some("triggers")]]),
            result(&[
                &[Some("1"), Some("child"), Some("1"), Some("parent")],
                &[Some("0"), Some("stray"), Some("1"), Some("parent")],
            ]),
        ];
        let found = independent_tables(&results);
        let shown: Vec<String> = found.iter().map(|(table, key)| format!("{table} {key:?}")).collect();
        assert_eq!(shown, [r#"pair ["a", "b"]"#, r#"stray ["id"]"#]);
    }

    #[test]
    fn keys_of_several_columns_are_conditions() {
        let mut merge = merge(&["id", "v"]);
        add(&mut merge, "`id`=1 AND `v`='a'", "", "");
        add(&mut merge, "`id`=2 AND `v`='b'", "", "");
        assert_eq!(text(&mut merge), "delete from `t` where `id`=1 AND `v`='a' or `id`=2 AND `v`='b';");
        let mut merge = merge_of_id();
        assert!(merge.add(Row { table: 8, ..Row::default() }).is_err());
        add(&mut merge, "1", "", "");
        merge.clear();
        assert_eq!(text(&mut merge), "");
        for id in 0..DELETE_KEYS + 1 {
            add(&mut merge, &id.to_string(), "", "");
        }
        assert_eq!(text(&mut merge).matches("delete").count(), 2);
    }
}
