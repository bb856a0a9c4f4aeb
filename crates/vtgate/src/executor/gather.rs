//! Brings rows of several shards to one mysqld and selects from them there.
//!
//! Owns: fetching what a [`Gather`] names, and the tables of literals that stand for it in the statement: one
//! bind variable each, a JSON array that JSON_TABLE reads with the columns' own types and collations, so that the
//! statement's text is the same every time. Invariants: nothing is stored on the way; a column whose type would
//! not arrive as it was is refused; rows and bytes are bounded.

use std::sync::Arc;

use planner::{Destination, Fetch, Gather, Opcode, Target, VindexRows, bind_variable};
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::{BindVariable, Field, QueryResult, Row, Type},
    topodata::TabletType,
    vtgate::CommitOrder,
};
use vtsql::{BindVars, quote_identifier};

use super::{Executor, Prepared, Work, merge::Window, route::not_one_shard};
use crate::{
    scatter::{Effect, ShardQuery},
    session::Session,
};

/// Most bytes that a table of literals may have.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// How a column of a table of literals is written.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    /// Its type with character set and collation, as JSON_TABLE takes them.
    declared: String,
    form: Form,
}

/// How a value is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Number,
    Text,
    /// Hexadecimal, undone by UNHEX.
    Bytes,
    /// JSON itself.
    Json,
}

impl Executor {
    /// Runs a gathering SELECT. `select_limit` is what the session's `sql_select_limit` leaves of its rows.
    #[expect(clippy::too_many_arguments, reason = "everything a statement consists of")]
    pub(super) async fn gather(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        prepared: &Prepared,
        gather: &Gather,
        vars: Arc<BindVars>,
        select_limit: i64,
    ) -> Result<QueryResult> {
        if !session.pb.autocommit && !session.in_transaction() && target.tablet_type == TabletType::Master {
            self.transactions.begin(work.caller, session).await?;
        }
        let before = work.shard_queries;
        let mut sql = gather.sql.clone();
        let mut own = (*vars).clone();
        for (number, fetch) in gather.fetches.iter().enumerate() {
            let known = self.columns_of(work, session, target, fetch).await?;
            let (columns, rows) = self.fetch(work, session, target, fetch, &known, &vars).await?;
            let name = format!("__rows{number}");
            sql = replace_mark(&sql, &fetch.mark, &table_of(&columns, &name));
            let value = BindVariable { r#type: Type::Varchar.into(), value: rows.into(), values: Vec::new() };
            own.insert(name, value);
        }
        for (number, rows) in gather.vindexes.iter().enumerate() {
            let name = format!("__vindex{number}");
            sql = replace_mark(&sql, &rows.mark, &table_of(&vindex_columns(), &name));
            let mapped = self.vindex_rows(work, session, rows, &vars).await?;
            own.insert(name, BindVariable { r#type: Type::Varchar.into(), value: mapped.into(), values: Vec::new() });
        }
        // What is selected from is all in the statement: any shard will do, outside of the transaction.
        let any = &Destination::AnyShard;
        let mut targets = self.parts.resolver.resolve(&gather.keyspace, target.tablet_type, any).await?;
        let place = targets.pop().ok_or_else(|| VtError::new(Code::Internal, "any shard is no shard"))?;
        let query = ShardQuery { target: place, sql: sql.into(), bind_variables: Arc::new(own), raw: false };
        work.shard_queries += 1;
        prepared.count(usize::try_from(work.shard_queries - before).unwrap_or(1));
        let mut beside = session.beside();
        beside.set_select_limit(select_limit);
        let order = CommitOrder::Normal;
        let mut result = self.parts.scatter.execute_one(work.caller, &mut beside, &query, Effect::Read, order).await?;
        for name in &gather.names {
            let count = result.fields.len();
            let at = if name.from_start { Some(name.position) } else { count.checked_sub(name.position + 1) };
            if let Some(field) = at.and_then(|at| result.fields.get_mut(at))
                && let Ok(text) = name.text.render(&vars)
            {
                field.name = String::from_utf8_lossy(&text).into_owned();
            }
        }
        Ok(result)
    }

    /// The columns that are fetched of a table, in its order, with their types.
    async fn columns_of(
        &self,
        work: &mut Work<'_>,
        session: &Session,
        target: &Target,
        fetch: &Fetch,
    ) -> Result<Vec<Column>> {
        let found = self.described(work, session, target.tablet_type, &fetch.table).await?;
        let mut columns = Vec::new();
        for row in super::lookup::values(&found) {
            let text =
                |at: usize| row.get(at).map(|v| String::from_utf8_lossy(&v.bytes).into_owned()).unwrap_or_default();
            let (name, kind, full) = (text(0), text(1).to_ascii_lowercase(), text(2).to_ascii_lowercase());
            let lower = name.to_ascii_lowercase();
            let wanted = fetch.columns.as_ref().is_none_or(|wanted| wanted.contains(&lower))
                || fetch.computed.iter().any(|computed| computed.like.as_ref() == Some(&lower));
            if wanted {
                columns.push(column(&name, &kind, &full, &text(3), &text(4))?);
            } else if columns.is_empty() && fetch.computed.is_empty() {
                // A statement that names no column still has rows.
                if let Ok(column) = column(&name, &kind, &full, &text(3), &text(4)) {
                    columns.push(column);
                }
            }
        }
        if columns.is_empty() && fetch.computed.is_empty() {
            let text = format!("table {} has no columns that can be fetched", fetch.table.name);
            return Err(VtError::new(Code::Unimplemented, text));
        }
        Ok(columns)
    }

    /// Where a vindex maps a value to, as a JSON array.
    async fn vindex_rows(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        rows: &VindexRows,
        vars: &BindVars,
    ) -> Result<Vec<u8>> {
        let value = rows.value.resolve(vars)?;
        let mapped = self.map(work, session, &rows.keyspace, &rows.vindex, &[vec![value.clone()]]).await?;
        let null = None::<&[u8]>;
        let mut found: Vec<[Option<&[u8]>; 4]> = Vec::new();
        for place in &mapped {
            let id = Some(&value.bytes[..]);
            match place {
                vindex::Destination::KeyspaceId(at) => found.push([id, Some(at.as_bytes()), null, null]),
                vindex::Destination::KeyspaceIds(all) => {
                    found.extend(all.iter().map(|at| [id, Some(at.as_bytes()), null, null]));
                }
                vindex::Destination::AllShards => found.push([id, null, Some(b""), Some(b"")]),
                vindex::Destination::None => {}
            }
        }
        let rows: Vec<Row> = found
            .iter()
            .map(|row| Row {
                lengths: row.iter().map(|v| v.map_or(-1, |v| i64::try_from(v.len()).unwrap_or(0))).collect(),
                values: row.iter().flatten().flat_map(|v| v.iter().copied()).collect::<Vec<u8>>().into(),
            })
            .collect();
        json_rows(&vindex_columns(), &rows, "a vindex")
    }

    /// What information_schema says of a table's columns, in their order.
    pub(super) async fn described(
        &self,
        work: &mut Work<'_>,
        session: &Session,
        tablet_type: TabletType,
        table: &vschema::Table,
    ) -> Result<QueryResult> {
        let sql = "select column_name, data_type, column_type, character_set_name, collation_name, extra \
                   from information_schema.columns where table_schema = database() and table_name = :name \
                   order by ordinal_position";
        let any = &Destination::AnyShard;
        let mut targets = self.parts.resolver.resolve(&table.keyspace, tablet_type, any).await?;
        let place = targets.pop().ok_or_else(|| VtError::new(Code::Internal, "any shard is no shard"))?;
        let name = vindex::Value::new(Type::Varchar, table.name.as_bytes());
        let vars = BindVars::from([("name".to_owned(), bind_variable(&name))]);
        let query = ShardQuery { target: place, sql: sql.into(), bind_variables: Arc::new(vars), raw: false };
        let mut beside = session.beside();
        beside.set_select_limit(0);
        let order = CommitOrder::Normal;
        self.parts.scatter.execute_one(work.caller, &mut beside, &query, Effect::Read, order).await
    }

    /// The rows as a JSON array, with their columns.
    async fn fetch(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        fetch: &Fetch,
        known: &[Column],
        vars: &Arc<BindVars>,
    ) -> Result<(Vec<Column>, Vec<u8>)> {
        let plain: Vec<&Column> = known
            .iter()
            .filter(|column| {
                fetch.computed.is_empty()
                    || fetch.columns.as_ref().is_none_or(|c| c.contains(&column.name.to_ascii_lowercase()))
            })
            .collect();
        let alias = quote_identifier(&fetch.alias);
        let mut items: Vec<String> =
            plain.iter().map(|column| format!("{alias}.{}", quote_identifier(&column.name))).collect();
        items.extend(fetch.computed.iter().map(|computed| format!("{} as {}", computed.text, computed.name)));
        let table = quote_identifier(&fetch.table.name);
        let mut sql = format!("select {} from {table}{}{}", items.join(", "), fetch.condition, fetch.order);
        let mut own = vars.clone();
        if let Some(window) = Window::of(fetch.limit.as_ref(), vars)? {
            own = Arc::new(window.bound(&mut sql, vars));
        }
        sql.push_str(fetch.lock);
        let places = match self.places(work, session, target.tablet_type, &fetch.route, &own).await? {
            Some(places) => places,
            // No row is meant; groups without rows are mysqld's to make.
            None => {
                let any = &Destination::AnyShard;
                let targets = self.parts.resolver.resolve(&fetch.route.keyspace, target.tablet_type, any).await?;
                targets.into_iter().map(|target| (target, own.clone())).collect()
            }
        };
        if fetch.route.opcode == Opcode::Unsharded && places.len() != 1 {
            return Err(not_one_shard(&fetch.route.keyspace, places.len()));
        }
        let sql: Arc<str> = sql.into();
        let queries: Vec<ShardQuery> = places
            .into_iter()
            .map(|(target, bind_variables)| ShardQuery { target, sql: sql.clone(), bind_variables, raw: false })
            .collect();
        work.shard_queries += queries.len() as u64;
        let result = self.parts.scatter.execute_many(work.caller, session, &queries, Effect::Read, work.order).await?;
        let mut columns: Vec<Column> = plain.into_iter().cloned().collect();
        for (computed, field) in fetch.computed.iter().zip(result.fields.iter().skip(columns.len())) {
            let like = computed.like.as_ref();
            let like = like.and_then(|like| known.iter().find(|column| column.name.eq_ignore_ascii_case(like)));
            columns.push(match like {
                Some(column) => Column { name: computed.name.clone(), ..column.clone() },
                None => computed_column(&computed.name, field)?,
            });
        }
        let rows = json_rows(&columns, &result.rows, &fetch.table.name)?;
        Ok((columns, rows))
    }
}

/// The columns of a vindex as a table.
fn vindex_columns() -> Vec<Column> {
    let declared = "varchar(2000) character set ascii collate ascii_bin";
    let column = |name: &str| Column { name: name.to_owned(), declared: declared.to_owned(), form: Form::Bytes };
    VindexRows::COLUMNS.into_iter().map(column).collect()
}

/// A column of a table, by what information_schema says of it.
fn column(name: &str, kind: &str, full: &str, charset: &str, collation: &str) -> Result<Column> {
    let unsigned = if full.contains("unsigned") { " unsigned" } else { "" };
    let text = |of: &str| format!("{of} character set {charset} collate {collation}");
    let (declared, form) = match kind {
        _ if full.contains("zerofill") => return Err(refused(name, full)),
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => (format!("{kind}{unsigned}"), Form::Number),
        "year" => ("smallint unsigned".to_owned(), Form::Number),
        "float" | "double" => (kind.to_owned(), Form::Number),
        "decimal" => (full.to_owned(), Form::Text),
        "char" | "varchar" => (text(full.split(" character ").next().unwrap_or(full)), Form::Text),
        // Not longtext: MariaDB 10.11 groups and sorts values computed from it as if they were empty. The rows of a table
        // are bounded by MAX_BYTES, which is less than a mediumtext holds.
        "tinytext" | "text" | "mediumtext" | "longtext" => (text("mediumtext"), Form::Text),
        "date" | "time" | "datetime" => (full.to_owned(), Form::Text),
        "timestamp" => (full.replacen("timestamp", "datetime", 1), Form::Text),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            ("mediumtext character set ascii collate ascii_bin".to_owned(), Form::Bytes)
        }
        "json" => ("json".to_owned(), Form::Json),
        _ => return Err(refused(name, full)),
    };
    Ok(Column { name: name.to_owned(), declared, form })
}

fn refused(name: &str, kind: &str) -> VtError {
    let text = format!("unsupported: column {name} of type {kind} in a select over rows of several shards");
    VtError::new(Code::Unimplemented, text)
}

/// A column that shards have computed: numbers only, whose type the result tells.
fn computed_column(name: &str, field: &Field) -> Result<Column> {
    let (declared, form) = match field.r#type() {
        Type::Int64 | Type::Int32 | Type::Int24 | Type::Int16 | Type::Int8 => ("bigint".to_owned(), Form::Number),
        Type::Uint64 | Type::Uint32 | Type::Uint24 | Type::Uint16 | Type::Uint8 => {
            ("bigint unsigned".to_owned(), Form::Number)
        }
        Type::Decimal => (format!("decimal(65, {})", field.decimals.min(30)), Form::Text),
        Type::Float64 | Type::Float32 => ("double".to_owned(), Form::Number),
        Type::NullType => ("bigint".to_owned(), Form::Number),
        kind => return Err(refused(name, kind.as_str_name())),
    };
    Ok(Column { name: name.to_owned(), declared, form })
}

/// The table of literals that the variable `name` holds.
fn table_of(columns: &[Column], name: &str) -> String {
    let declared: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(number, column)| {
            let column_name = quote_identifier(&column.name);
            format!("{column_name} {} path '$[{number}]' null on empty error on error", column.declared)
        })
        .collect();
    let table = format!("json_table(:{name}, '$[*]' columns ({}))", declared.join(", "));
    if columns.iter().all(|column| column.form != Form::Bytes) {
        return table;
    }
    let items: Vec<String> = columns
        .iter()
        .map(|column| {
            let name = quote_identifier(&column.name);
            if column.form == Form::Bytes { format!("unhex({name}) as {name}") } else { name }
        })
        .collect();
    format!("(select {} from {table} as __vt_json)", items.join(", "))
}

/// The statement with a table in place of its mark.
fn replace_mark(sql: &str, mark: &str, table: &str) -> String {
    // A mark ends with a number: `__vt_rows_1` is not `__vt_rows_10`.
    let mut out = String::with_capacity(sql.len() + table.len());
    let mut rest = sql;
    while let Some(at) = rest.find(mark) {
        let after = &rest[at + mark.len()..];
        out.push_str(&rest[..at]);
        out.push_str(if after.starts_with(|c: char| c.is_ascii_digit()) { mark } else { table });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Rows as a JSON array of arrays.
fn json_rows(columns: &[Column], rows: &[Row], table: &str) -> Result<Vec<u8>> {
    let mut out = vec![b'['];
    for (number, row) in rows.iter().enumerate() {
        out.extend_from_slice(if number == 0 { b"[" } else { b",[" });
        let mut rest = &row.values[..];
        for (at, (column, length)) in columns.iter().zip(&row.lengths).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let Ok(length) = usize::try_from(*length) else {
                out.extend_from_slice(b"null");
                continue;
            };
            let (value, tail) = rest.split_at(length.min(rest.len()));
            rest = tail;
            match column.form {
                Form::Number | Form::Json => out.extend_from_slice(value),
                Form::Text => {
                    let text =
                        std::str::from_utf8(value).map_err(|_| refused(&column.name, "text that is not UTF-8"))?;
                    out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
                }
                Form::Bytes => {
                    out.push(b'"');
                    for byte in value {
                        out.extend_from_slice(format!("{byte:02x}").as_bytes());
                    }
                    out.push(b'"');
                }
            }
        }
        out.push(b']');
        if out.len() > MAX_BYTES {
            let text = format!("the rows of {table} that have to be gathered exceed {MAX_BYTES} bytes");
            return Err(VtError::new(Code::ResourceExhausted, text));
        }
    }
    out.push(b']');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_literals() {
        let columns = [
            column("id", "bigint", "bigint(20) unsigned", "", "").expect("a number"),
            column("n", "varchar", "varchar(3)", "utf8mb4", "utf8mb4_bin").expect("text"),
            column("b", "blob", "blob", "", "").expect("bytes"),
        ];
        assert_eq!(
            table_of(&columns[..2], "r"),
            "json_table(:r, '$[*]' columns (`id` bigint unsigned path '$[0]' null on empty error on error, \
             `n` varchar(3) character set utf8mb4 collate utf8mb4_bin path '$[1]' null on empty error on error))"
        );
        assert!(table_of(&columns, "r").starts_with("(select `id`, `n`, unhex(`b`) as `b` from json_table("));
        let row = Row { lengths: vec![1, 3, -1], values: "1a\"b".into() };
        assert_eq!(json_rows(&columns, &[row], "t").expect("JSON"), br#"[[1,"a\"b",null]]"#);
        assert!(column("e", "enum", "enum('a')", "utf8mb4", "utf8mb4_bin").is_err());
        assert_eq!(replace_mark("from __vt_rows_1, __vt_rows_10", "__vt_rows_1", "T"), "from T, __vt_rows_10");
    }
}
