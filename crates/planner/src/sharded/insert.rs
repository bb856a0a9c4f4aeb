//! INSERT and REPLACE into tables whose rows have to be looked at: those of sharded keyspaces, and those with a
//! column that a sequence fills.
//!
//! Owns: the columns of the statement with those that it has to have besides, the text of each row, and the
//! values that say where a row goes. Rows stay text; only values of vindex columns are read.

use std::sync::Arc;

use vschema::Table;
use vterrors::{Code, VtError};
use vtsql::{
    Directives, InsertParts, InsertSource, Item, ItemKind, Needs, Statement, StatementKind, insert_parts,
    quote_identifier,
};

use crate::plan::{Context, plan_text};
use crate::primitive::{Plan, Primitive};
use crate::route::{finish_primitive, unsupported};
use crate::value::PlanValue;

/// An INSERT.
#[derive(Debug, Clone)]
pub struct Insert {
    pub shape: InsertShape,
    pub rows: InsertedRows,
}

/// An INSERT without a column list into a table whose columns the vschema does not have: it is to be planned again
/// with a list.
#[derive(Debug, Clone)]
pub struct UnlistedInsert {
    pub table: Arc<Table>,
    head: String,
    rest: String,
}

impl UnlistedInsert {
    /// The statement with a column list.
    pub fn with_columns(&self, columns: &[String]) -> String {
        let columns: Vec<String> = columns.iter().map(|column| quote_identifier(column)).collect();
        format!("{} ({}) {}", self.head, columns.join(", "), self.rest)
    }
}

/// Where rows come from.
#[derive(Debug, Clone)]
pub enum InsertedRows {
    Written(InsertRows),
    /// The result of a query, row by row.
    Query(Box<Plan>),
}

/// An INSERT without its rows.
#[derive(Debug, Clone)]
pub struct InsertShape {
    pub table: Arc<Table>,
    /// `insert into t`.
    head: String,
    /// As the statement names them, with vindex and sequence columns that it left out.
    columns: Vec<String>,
    /// How many of them the statement's rows have.
    written: usize,
    /// `on duplicate key update …`; empty when there is none.
    tail: String,
    /// Rows that are there already are no error: IGNORE, ON DUPLICATE KEY UPDATE.
    pub lenient: bool,
    /// ON DUPLICATE KEY UPDATE, without IGNORE: a row is inserted or changes another one, and never left out.
    pub updates: bool,
    /// Changes no rows that are there.
    pub only_adds: bool,
    /// `/*vt+ MULTI_SHARD_AUTOCOMMIT=1 */`: outside of a transaction, no transaction around several shards.
    pub multi_shard_autocommit: bool,
}

/// Rows of an INSERT.
#[derive(Debug, Clone, Default)]
pub struct InsertRows {
    /// `(:vtg1, 'x')` each.
    texts: Vec<String>,
    /// The variables in each text.
    names: Vec<Vec<String>>,
    /// For a table with a sequence: the value that the sequence is to replace if it is NULL or 0. The text has
    /// [`InsertRows::generated`] in its place.
    pub generate: Vec<PlanValue>,
    /// By column vindex, by row, by column: what the row is mapped with.
    pub keys: Vec<Vec<Vec<PlanValue>>>,
}

impl InsertRows {
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The variables that a row's text names.
    pub fn names(&self, row: usize) -> &[String] {
        &self.names[row]
    }

    /// The variable of a row's sequence value.
    pub fn generated(row: usize) -> String {
        format!("__seq{row}")
    }

    /// The variable of a vindex column that is not in the statement.
    pub fn filled(vindex: usize, column: usize, row: usize) -> String {
        format!("__key{vindex}_{column}_{row}")
    }
}

impl InsertShape {
    fn new(parts: &InsertParts, table: Arc<Table>) -> Result<Self, VtError> {
        let columns = match &parts.columns {
            Some(columns) => columns.clone(),
            None if table.column_list_authoritative && !has_no_values(&parts.source) => {
                table.columns.iter().map(|c| c.name.clone()).collect()
            }
            // Rows of nothing but defaults.
            None => Vec::new(),
        };
        let written = columns.len();
        let mut shape = Self {
            head: parts.head.clone(),
            columns,
            written,
            tail: parts.tail.clone(),
            lenient: parts.ignore || !parts.updated.is_empty(),
            updates: !parts.ignore && !parts.updated.is_empty(),
            multi_shard_autocommit: false,
            only_adds: !parts.replace && parts.updated.is_empty(),
            table,
        };
        let table = shape.table.clone();
        let keys = table.column_vindexes.iter().filter(|_| table.sharded).flat_map(|cv| &cv.columns);
        for column in table.auto_increment.iter().map(|auto| &auto.column).chain(keys) {
            if shape.position(column).is_none() {
                shape.columns.push(column.clone());
            }
        }
        Ok(shape)
    }

    fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|own| own.eq_ignore_ascii_case(column))
    }

    /// How many columns a row of the statement has.
    pub fn width(&self) -> usize {
        self.written
    }

    /// Prepares rows. Errors: a wrong number of values; values of vindex columns that only mysqld can compute.
    pub fn rows(&self, rows: &[Vec<Item>]) -> Result<InsertRows, VtError> {
        let mut prepared = InsertRows::default();
        let auto = self.table.auto_increment.as_ref().and_then(|auto| self.position(&auto.column));
        let vindexes = if self.table.sharded { &self.table.column_vindexes[..] } else { &[] };
        prepared.keys = vec![Vec::with_capacity(rows.len()); vindexes.len()];
        for (number, row) in rows.iter().enumerate() {
            if row.len() != self.written {
                return Err(VtError::new(Code::Unknown, "column list doesn't match values"));
            }
            let mut texts: Vec<String> = row.iter().map(|item| item.text.clone()).collect();
            texts.resize(self.columns.len(), "null".to_owned());
            let mut names: Vec<String> = Vec::new();
            let value = |position: usize| match row.get(position) {
                Some(Item { kind: ItemKind::Default, .. }) | None => Ok(PlanValue::null()),
                Some(item) => PlanValue::of_item(item),
            };
            if let Some(position) = auto {
                prepared.generate.push(value(position)?);
                texts[position] = format!(":{}", InsertRows::generated(number));
                names.push(InsertRows::generated(number));
            }
            for (index, cv) in vindexes.iter().enumerate() {
                let mut key = Vec::with_capacity(cv.columns.len());
                for (at, column) in cv.columns.iter().enumerate() {
                    let Some(position) = self.position(column) else { continue };
                    if auto == Some(position) {
                        key.push(PlanValue::Variable(InsertRows::generated(number)));
                        continue;
                    }
                    let missing =
                        matches!(row.get(position), None | Some(Item { kind: ItemKind::Default | ItemKind::Null, .. }));
                    if missing && !texts[position].starts_with(":__key") {
                        let name = InsertRows::filled(index, at, number);
                        texts[position] = format!(":{name}");
                        names.push(name);
                    }
                    key.push(match texts[position].strip_prefix(":__key") {
                        Some(rest) => PlanValue::Variable(format!("__key{rest}")),
                        None => value(position)?,
                    });
                }
                prepared.keys[index].push(key);
            }
            let mut text = String::with_capacity(2 + texts.iter().map(|t| t.len() + 2).sum::<usize>());
            for (position, item) in texts.iter().enumerate() {
                text.push_str(if position == 0 { "(" } else { ", " });
                text.push_str(item);
                names.extend(row.get(position).into_iter().flat_map(variables));
            }
            text.push_str(if texts.is_empty() { "()" } else { ")" });
            prepared.texts.push(text);
            prepared.names.push(names);
        }
        Ok(prepared)
    }

    /// The statement with some of its rows.
    pub fn sql<'r>(&self, rows: &InsertRows, chosen: impl IntoIterator<Item = &'r usize>) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| quote_identifier(column)).collect();
        let mut sql = format!("{}({}) values ", self.head, columns.join(", "));
        for (number, row) in chosen.into_iter().enumerate() {
            if number > 0 {
                sql.push_str(", ");
            }
            sql.push_str(&rows.texts[*row]);
        }
        if !self.tail.is_empty() {
            sql.push(' ');
            sql.push_str(&self.tail);
        }
        sql
    }

    /// Variables in the text behind the rows.
    pub fn tail_names(&self) -> Vec<String> {
        names_in(&self.tail)
    }
}

/// `values ()`
fn has_no_values(source: &InsertSource) -> bool {
    matches!(source, InsertSource::Rows(rows) if rows.iter().all(Vec::is_empty))
}

fn variables(item: &Item) -> Vec<String> {
    match &item.kind {
        ItemKind::Variable(name) => vec![name.clone()],
        ItemKind::Expression | ItemKind::Subquery => names_in(&item.text),
        _ => Vec::new(),
    }
}

fn names_in(text: &str) -> Vec<String> {
    vtsql::Template::new(text).names().map(str::to_owned).collect()
}

/// Plans an INSERT or REPLACE. `text` is what tablets may be sent; `table` the one written to.
pub(crate) fn plan_insert(
    statement: &Statement,
    context: &Context<'_>,
    table: Arc<Table>,
    text: &str,
    needs: Needs,
) -> Result<Plan, VtError> {
    let mut parts = insert_parts(text)?;
    let written = insert_parts(&statement.sql)?;
    if matches!(parts.source, InsertSource::Query(_)) {
        // It is planned by itself, with all names as they are written.
        parts.source = written.source;
    }
    let owned = table.column_vindexes.iter().any(|cv| cv.owned);
    if table.sharded {
        if parts.replace && owned {
            return unsupported("REPLACE INTO with sharded schema");
        }
        let changes = |column: &String| {
            let keys = table.column_vindexes.iter().flat_map(|cv| &cv.columns);
            keys.into_iter().any(|key| key.eq_ignore_ascii_case(column))
        };
        if parts.overwritten.iter().any(changes) {
            return unsupported("DML cannot change vindex column");
        }
    }
    if parts.columns.is_none() && !table.column_list_authoritative && !has_no_values(&parts.source) {
        let rest = statement.sql[written.head.len()..].trim_start().to_owned();
        let insert = UnlistedInsert { table, head: written.head, rest };
        return Ok(finish_primitive(statement, Primitive::UnlistedInsert(Box::new(insert)), needs));
    }
    let mut shape = InsertShape::new(&parts, table)?;
    shape.multi_shard_autocommit = statement.directives.is_set(Directives::MULTI_SHARD_AUTOCOMMIT);
    let rows = match &parts.source {
        InsertSource::Rows(rows) => {
            let in_rows = rows.iter().flatten().any(|item| item.kind == ItemKind::Subquery);
            if in_rows && (shape.table.sharded || statement.tables.len() > 1) {
                return unsupported("subquery in insert values");
            }
            InsertedRows::Written(shape.rows(rows)?)
        }
        InsertSource::Query(query) => {
            let plan = plan_text(query, context)?;
            if plan.kind != StatementKind::Select {
                return unsupported(format_args!("insert from {}", plan.kind.name()));
            }
            InsertedRows::Query(Box::new(plan))
        }
    };
    Ok(finish_primitive(statement, Primitive::Insert(Box::new(Insert { shape, rows })), needs))
}
