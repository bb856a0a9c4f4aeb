//! The tables of a clone or a comparison: columns, keys, and how rows are read and written.

use std::collections::{BTreeMap, BTreeSet};

use vterrors::{Code, Result, VtError};
use vtproto::query::Type;
use vtproto::tabletmanagerdata as tmd;

use super::Endpoint;
use crate::rows::{self, SEPARATOR};
use crate::sql::{KeyColumn, Literal, name, quoted};

/// A column that is read.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub kind: Type,
    /// What is selected: the column, or an expression that prints it without loss.
    pub expr: String,
    /// What the server hashes for it.
    hashed: String,
    pub literal: Literal,
    /// Its declared type, to compare both sides.
    declared: String,
}

/// A table.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    /// Columns that are written; generated ones are left out.
    pub columns: Vec<Column>,
    /// The primary key, in conditions. Empty for a table without one, which has to be read and written as a whole.
    pub key: Vec<KeyColumn>,
    /// What its unique indexes, the primary key among them, keep apart: columns with their collations and lengths.
    unique: BTreeSet<String>,
    /// The columns of the primary key, for ORDER BY.
    key_names: Vec<String>,
    /// Where in a selected row the values of the key stand.
    pub key_at: Vec<usize>,
    /// Selected behind the columns: parts of the key that are no column of `columns`, or whose text does not sort.
    extra: Vec<String>,
    /// Whether the first column of the key is an integer.
    pub integer_key: bool,
    /// An estimate of the server.
    pub rows: u64,
    /// May hold rows of many megabytes.
    pub wide: bool,
}

impl Table {
    /// `select … from …`, without condition and order.
    pub fn select(&self) -> String {
        let all: Vec<&str> =
            self.columns.iter().map(|column| &column.expr).chain(&self.extra).map(String::as_str).collect();
        format!("select {} from {}", all.join(", "), name(&self.name))
    }

    /// Whether nothing names a single row.
    pub fn is_keyless(&self) -> bool {
        self.key.is_empty()
    }

    /// Reads all rows in an order that is the same on all servers as far as it goes: that of all columns.
    pub fn select_by_all_columns(&self) -> String {
        let all: Vec<String> = self.columns.iter().map(|column| name(&column.name)).collect();
        format!("{} order by {}", self.select(), all.join(", "))
    }

    /// ` order by …`; nothing for a table without a key.
    pub fn order(&self) -> String {
        if self.is_keyless() {
            return String::new();
        }
        format!(" order by {}", self.key_names.join(", "))
    }

    /// `(a, b, c)` of an INSERT.
    pub fn column_list(&self) -> String {
        let all: Vec<String> = self.columns.iter().map(|column| name(&column.name)).collect();
        format!("({})", all.join(","))
    }

    /// The aggregate that is equal to [`crate::rows::Checksum`] over the same rows: XOR and number.
    pub fn checksum_exprs(&self) -> String {
        let cells: Vec<&str> = self.columns.iter().map(|column| column.hashed.as_str()).collect();
        let nulls: Vec<String> = self.columns.iter().map(|column| format!("isnull({})", name(&column.name))).collect();
        // Bytes throughout: columns of different collations do not mix otherwise.
        let separator = char::from(SEPARATOR);
        let text = format!("concat_ws('{separator}', {}, concat({}))", cells.join(", "), nulls.join(", "));
        format!("coalesce(bit_xor(cast(conv(left(md5({text}), 16), 16, 10) as unsigned)), 0), count(*)")
    }

    /// The key of a selected row.
    pub fn key_of(&self, row: &vtproto::query::Row) -> Result<Vec<Vec<u8>>> {
        let cells: Vec<Option<&[u8]>> = rows::cells(row).collect();
        self.key_at
            .iter()
            .map(|at| cells.get(*at).copied().flatten().map(<[u8]>::to_vec))
            .collect::<Option<_>>()
            .ok_or_else(|| VtError::new(Code::Internal, format!("table {}: a row has no key", self.name)))
    }

    /// A selected row by its key, for an error text.
    pub fn shown(&self, row: &vtproto::query::Row) -> String {
        let cells: Vec<Option<&[u8]>> = rows::cells(row).collect();
        let parts: Vec<String> = self
            .key_names
            .iter()
            .zip(&self.key_at)
            .map(|(name, at)| {
                let value = cells.get(*at).copied().flatten().unwrap_or_default();
                format!("{name} = {}", quoted(value))
            })
            .collect();
        if parts.is_empty() {
            return format!("table {}, a row", self.name);
        }
        format!("table {}, row with {}", self.name, parts.join(" and "))
    }

    /// Columns that another table of the same name lacks.
    pub fn missing_columns(&self, other: &Self) -> impl Iterator<Item = &str> {
        let lacks = |column: &&Column| !other.columns.iter().any(|known| known.name.eq_ignore_ascii_case(&column.name));
        self.columns.iter().filter(lacks).map(|column| column.name.as_str())
    }

    /// Whether the destination's table takes every row of this one as it is.
    ///
    /// # Errors
    /// A column is missing there or declared differently, or rows that differ here are the same row there.
    pub fn check_destination(&self, other: &Self, place: &str) -> Result<()> {
        for column in &self.columns {
            let found = other.columns.iter().find(|known| known.name.eq_ignore_ascii_case(&column.name));
            match found {
                None => {
                    let text =
                        format!("table {}: column {} is missing at the destination {place}", self.name, column.name);
                    return Err(VtError::new(Code::FailedPrecondition, text));
                }
                Some(found) if found.declared != column.declared => {
                    let text = format!(
                        "table {}: column {} is {} at the source and {} at the destination {place}",
                        self.name, column.name, column.declared, found.declared
                    );
                    return Err(VtError::new(Code::FailedPrecondition, text));
                }
                Some(_) => {}
            }
        }
        if let Some(index) = other.unique.difference(&self.unique).next() {
            let text = format!(
                "table {}: ({index}) is unique at the destination {place} and not at the source, whose rows may differ in \
                 less",
                self.name
            );
            return Err(VtError::new(Code::FailedPrecondition, text));
        }
        Ok(())
    }
}

/// Reads the definitions of tables.
///
/// # Errors
/// A name is not known, there is no table at all, or one of a kind whose rows are not all that it holds.
pub async fn load_tables(endpoint: &Endpoint, tables: &[String], exclude: &[String]) -> Result<Vec<Table>> {
    let env = endpoint.env();
    let request =
        tmd::GetSchemaRequest { tables: tables.to_vec(), include_views: true, exclude_tables: exclude.to_vec() };
    let schema =
        env.bounded(env.tmc.get_schema(&endpoint.tablet, request)).await?.schema_definition.unwrap_or_default();
    let alias = endpoint.alias();
    for wanted in tables.iter().filter(|name| !name.starts_with('/')) {
        if !schema.table_definitions.iter().any(|table| table.name == *wanted) {
            return Err(VtError::new(Code::NotFound, format!("table {wanted} does not exist on tablet {alias}")));
        }
    }
    // Views may be named: they have no rows of their own.
    let strange = schema.table_definitions.iter().find(|table| !matches!(table.r#type.as_str(), "BASE TABLE" | "VIEW"));
    if let Some(strange) = strange {
        return Err(VtError::new(
            Code::FailedPrecondition,
            format!(
                "table {} on tablet {alias} is a {} table, which cannot be copied or compared: leave it out",
                strange.name, strange.r#type
            ),
        ));
    }
    let definitions: Vec<&tmd::TableDefinition> =
        schema.table_definitions.iter().filter(|table| table.r#type == "BASE TABLE").collect();
    if definitions.is_empty() {
        return Err(VtError::new(
            Code::FailedPrecondition,
            format!("no tables matching the table filter on tablet {alias}"),
        ));
    }
    let mut loaded = Vec::with_capacity(definitions.len());
    for definition in definitions {
        loaded.push(load(endpoint, definition).await?);
    }
    Ok(loaded)
}

async fn load(endpoint: &Endpoint, definition: &tmd::TableDefinition) -> Result<Table> {
    let table = &definition.name;
    let sql = format!(
        "select column_name, extra, character_set_name, column_type, data_type from information_schema.columns \
         where table_schema = {} and table_name = {} order by ordinal_position",
        quoted(&endpoint.db_name),
        quoted(table)
    );
    let described = endpoint.fetch(sql).await?;
    let mut columns = Vec::new();
    let mut generated = Vec::new();
    for row in &described.rows {
        let column = column(definition, row);
        let extra = rows::text(row, 1).to_ascii_uppercase();
        let is_generated = (extra.contains("GENERATED") && !extra.contains("DEFAULT_GENERATED"))
            || extra.contains("PERSISTENT")
            || extra.contains("VIRTUAL");
        if is_generated { generated.push(column) } else { columns.push(column) }
    }
    if let Some(row) = described.rows.iter().find(|row| rows::text(row, 3).ends_with(" COMPRESSED*/")) {
        let text = format!(
            "table {table}: column {} is COMPRESSED, and filtered replication cannot read it: leave the table out",
            rows::text(row, 0)
        );
        return Err(VtError::new(Code::FailedPrecondition, text));
    }
    let mut built = Table {
        name: table.clone(),
        columns,
        key: Vec::new(),
        unique: unique_indexes(endpoint, table).await?,
        key_names: Vec::new(),
        key_at: Vec::new(),
        extra: Vec::new(),
        integer_key: false,
        rows: definition.row_count,
        wide: described.rows.iter().any(|row| {
            matches!(
                rows::text(row, 4).as_str(),
                "mediumblob" | "longblob" | "mediumtext" | "longtext" | "json" | "geometry"
            )
        }),
    };
    for key in &definition.primary_key_columns {
        let at = built.columns.iter().position(|column| column.name.eq_ignore_ascii_case(key));
        let column = match at {
            Some(at) => built.columns[at].clone(),
            None => generated
                .iter()
                .find(|column| column.name.eq_ignore_ascii_case(key))
                .cloned()
                .ok_or_else(|| VtError::new(Code::Internal, format!("table {table} has no column {key}")))?,
        };
        built.add_key(&column, at);
    }
    Ok(built)
}

/// The unique indexes of a table, in a form that differs only if what they keep apart differs.
async fn unique_indexes(endpoint: &Endpoint, table: &str) -> Result<BTreeSet<String>> {
    let sql = format!(
        "select i.index_name, coalesce(i.column_name, concat('(', i.index_name, ')')), coalesce(i.sub_part, ''), \
         coalesce(c.collation_name, '') from information_schema.statistics i left join information_schema.columns c \
         on c.table_schema = i.table_schema and c.table_name = i.table_name and c.column_name = i.column_name \
         where i.table_schema = {} and i.table_name = {} and i.non_unique = 0 order by i.index_name, i.seq_in_index",
        quoted(&endpoint.db_name),
        quoted(table)
    );
    let mut indexes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in &endpoint.fetch(sql).await?.rows {
        let mut column = rows::text(row, 1).to_ascii_lowercase();
        for (label, at) in [(" of length ", 2), (" collate ", 3)] {
            let value = rows::text(row, at);
            if !value.is_empty() {
                // 3-byte UTF-8 has two names.
                column = format!("{column}{label}{}", value.replace("utf8_", "utf8mb3_"));
            }
        }
        indexes.entry(rows::text(row, 0)).or_default().push(column);
    }
    Ok(indexes.into_values().map(|columns| columns.join(", ")).collect())
}

/// A column as `information_schema` describes it.
fn column(definition: &tmd::TableDefinition, row: &vtproto::query::Row) -> Column {
    let column = rows::text(row, 0);
    let charset = rows::text(row, 2);
    let field = definition.fields.iter().find(|field| field.name.eq_ignore_ascii_case(&column));
    let kind = field.map_or(Type::Varchar, vtproto::query::Field::r#type);
    let quoted_name = name(&column);
    // Of MariaDB: said to be bytes, and text in what is read and written.
    let has_text = matches!(rows::text(row, 4).as_str(), "uuid" | "inet6" | "inet4");
    let literal = if has_text { Literal::Text } else { Literal::of(kind) };
    // Six digits are what is printed of a FLOAT otherwise.
    let expr = if kind == Type::Float32 { format!("{quoted_name} * 1e0") } else { quoted_name.clone() };
    let hashed = if kind == Type::Float32 || literal == Literal::Number {
        expr.clone()
    } else if !has_text && matches!(charset.as_str(), "" | "utf8" | "utf8mb3" | "utf8mb4") {
        format!("cast({quoted_name} as binary)")
    } else {
        format!("cast(convert({quoted_name} using utf8mb4) as binary)")
    };
    Column { name: column, kind, expr, hashed, literal, declared: declared(&rows::text(row, 3), &charset) }
}

/// A declared type in a form that differs only if what fits into the column differs.
fn declared(column_type: &str, charset: &str) -> String {
    // MySQL 8 leaves out the width of integers, which means nothing; 3-byte UTF-8 has two names.
    let mut text = column_type.to_ascii_lowercase();
    if text.contains("int")
        && let (Some(open), Some(close)) = (text.find('('), text.find(')'))
    {
        text.replace_range(open..=close, "");
    }
    let charset = if charset == "utf8" { "utf8mb3" } else { charset };
    if charset.is_empty() { text } else { format!("{text} {charset}") }
}

impl Table {
    /// Adds the next column of the primary key.
    fn add_key(&mut self, column: &Column, at: Option<usize>) {
        let quoted_name = name(&column.name);
        let integer = matches!(
            column.kind,
            Type::Int8
                | Type::Uint8
                | Type::Int16
                | Type::Uint16
                | Type::Int24
                | Type::Uint24
                | Type::Int32
                | Type::Uint32
                | Type::Int64
                | Type::Uint64
        );
        if self.key.is_empty() {
            self.integer_key = integer;
        }
        // These sort by number and compare with a string by text.
        let by_number = matches!(column.kind, Type::Enum | Type::Set | Type::Bit);
        if by_number {
            let expr = format!("({quoted_name} + 0)");
            self.key_at.push(self.columns.len() + self.extra.len());
            self.extra.push(expr.clone());
            self.key.push(KeyColumn { expr, literal: Literal::Number });
        } else {
            let place = at.unwrap_or(self.columns.len() + self.extra.len());
            if at.is_none() {
                self.extra.push(column.expr.clone());
            }
            self.key_at.push(place);
            // Bytes in a statement that has to be valid text.
            let literal = if column.literal == Literal::Binary { Literal::Bits } else { column.literal };
            self.key.push(KeyColumn { expr: quoted_name.clone(), literal });
        }
        self.key_names.push(quoted_name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[(&str, Type)], key: &[&str]) -> Table {
        let columns = columns
            .iter()
            .map(|(column, kind)| Column {
                name: (*column).into(),
                kind: *kind,
                expr: name(column),
                hashed: name(column),
                literal: Literal::of(*kind),
                declared: "x".into(),
            })
            .collect();
        let mut table = Table {
            name: "t".into(),
            columns,
            key: Vec::new(),
            unique: BTreeSet::new(),
            key_names: Vec::new(),
            key_at: Vec::new(),
            extra: Vec::new(),
            integer_key: false,
            rows: 0,
            wide: false,
        };
        for key in key {
            let at = table.columns.iter().position(|column| column.name == *key).expect("a column");
            let column = table.columns[at].clone();
            table.add_key(&column, Some(at));
        }
        table
    }

    #[test]
    fn an_enum_in_the_key_is_compared_by_its_number() {
        let table = table(&[("e", Type::Enum), ("v", Type::Varbinary), ("n", Type::Int64)], &["e", "v"]);
        assert_eq!(table.select() + &table.order(), "select `e`, `v`, `n`, (`e` + 0) from `t` order by `e`, `v`");
        assert_eq!(table.key_at, [3, 1]);
        assert!(!table.integer_key);
        let row = vtproto::query::Row { lengths: vec![1, 2, 1, 1], values: "bxy72".into() };
        assert_eq!(table.key_of(&row).expect("a key"), [b"2".to_vec(), b"xy".to_vec()]);
        assert_eq!(table.shown(&row), "table t, row with `e` = '2' and `v` = 'xy'");
        let range = crate::sql::Range { lower: Some(vec![b"2".to_vec()]), upper: None };
        assert_eq!(range.condition(&table.key), b" where (`e` + 0)>2");
    }

    #[test]
    fn widths_of_integers_do_not_count() {
        assert_eq!(declared("int(11) unsigned", ""), "int unsigned");
        assert_eq!(declared("varchar(20)", "utf8"), declared("VARCHAR(20)", "utf8mb3"));
        assert_ne!(declared("varchar(20)", "utf8mb4"), declared("varchar(21)", "utf8mb4"));
    }
}
