//! The columns of a table as information_schema has them now.

use mysql::{ConnectParams, Connection};
use vterrors::{Code, Result, VtError};
use vtproto::query::{QueryResult, Row};

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// `int`, `varchar`, …
    pub data_type: String,
    pub unsigned: bool,
    /// Of string types that have one.
    pub charset: Option<String>,
    /// Computed by the server, so that it cannot be written.
    pub generated: bool,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableColumns {
    pub columns: Vec<Column>,
    /// Columns that name a row: the primary key, else a unique key without NULLs. Empty when there is neither.
    pub key: Vec<String>,
}

/// Asks for a table; `None` when it does not exist.
pub(super) async fn lookup(params: &ConnectParams, database: &str, table: &str) -> Result<Option<TableColumns>> {
    let within = async {
        let mut connection = Connection::connect(params).await?;
        let (schema, name) = (quote(database), quote(table));
        let columns = connection
            .execute(&format!(
                "SELECT column_name, data_type, column_type, character_set_name, extra, generation_expression \
                 FROM information_schema.columns WHERE table_schema = {schema} AND table_name = {name} \
                 ORDER BY ordinal_position"
            ))
            .await?;
        let keys = connection
            .execute(&format!(
                "SELECT index_name, column_name, nullable FROM information_schema.statistics \
                 WHERE table_schema = {schema} AND table_name = {name} AND non_unique = 0 \
                 ORDER BY index_name, seq_in_index"
            ))
            .await?;
        connection.close().await;
        Ok::<_, mysql::ClientError>((columns, keys))
    };
    let (columns, keys) = match tokio::time::timeout(LIMIT, within).await {
        Ok(answer) => answer?,
        Err(_) => {
            return Err(VtError::new(Code::DeadlineExceeded, format!("reading the columns of {table}: no answer")));
        }
    };
    if columns.rows.is_empty() {
        return Ok(None);
    }
    let mut read = Vec::with_capacity(columns.rows.len());
    for row in texts(&columns) {
        let [name, data_type, column_type, charset, extra, expression] = &row[..] else { continue };
        let text = |cell: &Option<String>| cell.clone().unwrap_or_default();
        let extra = text(extra).to_ascii_uppercase();
        if text(expression).to_ascii_uppercase().starts_with("ROW ") {
            return Err(VtError::new(
                Code::FailedPrecondition,
                format!("table {table} keeps the history of its rows (system versioning): it cannot be streamed"),
            ));
        }
        read.push(Column {
            name: text(name),
            data_type: text(data_type).to_ascii_lowercase(),
            unsigned: text(column_type).contains("unsigned"),
            charset: charset.clone(),
            // "DEFAULT_GENERATED" is a default that is an expression.
            generated: ["VIRTUAL GENERATED", "STORED GENERATED", "PERSISTENT"].iter().any(|of| extra.contains(of)),
        });
    }
    Ok(Some(TableColumns { columns: read, key: key(&keys) }))
}

/// How long a look at the schema may take: an ALTER TABLE can hold it up.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// The columns of the primary key, or of the first unique key without NULLs.
fn key(keys: &QueryResult) -> Vec<String> {
    let mut best: Option<(bool, String)> = None;
    let rows = texts(keys);
    let text = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    for row in &rows {
        let name = text(row, 0);
        let nullable = rows.iter().any(|other| text(other, 0) == name && text(other, 2) == "YES");
        // A part that is an expression has no column.
        let expression = rows.iter().any(|other| text(other, 0) == name && text(other, 1).is_empty());
        if !nullable && !expression && best.as_ref().is_none_or(|(primary, _)| !primary && name == "PRIMARY") {
            best = Some((name == "PRIMARY", name));
        }
    }
    let Some((_, name)) = best else { return Vec::new() };
    rows.iter().filter(|row| text(row, 0) == name).map(|row| text(row, 1)).collect()
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn texts(result: &QueryResult) -> Vec<Vec<Option<String>>> {
    let cells = |row: &Row| {
        let mut at = 0;
        let cell = |&len: &i64| {
            let len = usize::try_from(len).ok()?;
            at += len;
            row.values.get(at - len..at).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        row.lengths.iter().map(cell).collect()
    };
    result.rows.iter().map(cells).collect()
}
