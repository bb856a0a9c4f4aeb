//! How commands print query results: as a table, or as Go prints its `sqltypes.Result`.

use vtproto::query::{Field, QueryResult, Row};

use crate::table;

/// Bit of `query.Type` that types quoted in SQL have.
const IS_QUOTED: i32 = 2048;
/// `query.Type` of BIT, whose bytes are no number.
const BIT: i32 = 2073;

/// The values of a row; `None` is NULL.
pub(crate) fn row_values(row: &Row) -> Vec<Option<&[u8]>> {
    let mut offset = 0_usize;
    row.lengths
        .iter()
        .map(|&length| {
            // -1 is NULL; a length beyond the data would be a broken message: cut, not crash.
            let length = usize::try_from(length).ok()?;
            let end = offset.saturating_add(length).min(row.values.len());
            let value = &row.values[offset.min(end)..end];
            offset = end;
            Some(value)
        })
        .collect()
}

/// A result as a table, with its last newline.
pub(crate) fn result_table(result: &QueryResult) -> String {
    let header: Vec<String> = result.fields.iter().map(|field| field.name.clone()).collect();
    let rows: Vec<Vec<String>> = result
        .rows
        .iter()
        .map(|row| {
            row_values(row)
                .into_iter()
                .map(|value| value.map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default())
                .collect()
        })
        .collect();
    table::render(&header, &rows)
}

/// A result as indented JSON, without a final newline. Numbers stand as the server wrote them, which
/// is why rows are not built as JSON values: a DECIMAL would lose its zeros.
pub(crate) fn result_json(result: &QueryResult) -> String {
    let fields: Vec<String> = result.fields.iter().map(|f| vtjson::go_indent(&vtjson::go_json(f))).collect();
    let rows: Vec<String> = result
        .rows
        .iter()
        .map(|row| {
            let values: Vec<String> = row_values(row)
                .into_iter()
                .zip(&result.fields)
                .map(|(value, field)| value_json(value, field))
                .collect();
            list(&values, false)
        })
        .collect();
    let extras = result.extras.as_ref().map_or("null".to_owned(), |e| vtjson::go_indent(&vtjson::go_json(e)));
    // Go tells an absent list from an empty one: a statement without columns has neither list.
    let no_columns = fields.is_empty();
    format!(
        "{{\n  \"fields\": {},\n  \"rows_affected\": {},\n  \"insert_id\": {},\n  \"rows\": {},\n  \"extras\": {}\n}}",
        indented(&list(&fields, no_columns)),
        result.rows_affected,
        result.insert_id,
        indented(&list(&rows, no_columns)),
        indented(&extras),
    )
}

/// A JSON array of items that are JSON already.
fn list(items: &[String], null_if_empty: bool) -> String {
    if items.is_empty() {
        return if null_if_empty { "null" } else { "[]" }.to_owned();
    }
    let items: Vec<String> = items.iter().map(|item| format!("  {}", indented(item))).collect();
    format!("[\n{}\n]", items.join(",\n"))
}

/// One level deeper. Line breaks inside strings are escaped, so that every one is layout.
fn indented(json: &str) -> String {
    json.replace('\n', "\n  ")
}

/// Numbers bare, everything quoted in SQL as a string.
fn value_json(value: Option<&[u8]>, field: &Field) -> String {
    let Some(bytes) = value else { return "null".to_owned() };
    let text = String::from_utf8_lossy(bytes);
    let bare = field.r#type & IS_QUOTED == 0 && field.r#type != BIT;
    if bare && serde_json::from_str::<serde_json::Number>(&text).is_ok() {
        return text.into_owned();
    }
    vtjson::go_indent(&serde_json::Value::String(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn field(name: &str, ty: i32) -> Field {
        Field { name: name.into(), r#type: ty, ..Default::default() }
    }

    #[test]
    fn numbers_stand_as_written_and_null_is_null() {
        let result = QueryResult {
            fields: vec![field("a", 263), field("b", 0), field("c", 6165), field("d", 18)],
            rows_affected: 1,
            rows: vec![Row { lengths: vec![1, -1, 2, 4], values: "1<x1.50".into() }],
            ..Default::default()
        };
        let text = result_json(&result);
        assert!(text.contains("      1,\n      null,\n      \"\\u003cx\",\n      1.50\n"), "{text}");
        let value: Value = serde_json::from_str(&text).expect("valid JSON");
        assert_eq!(value["fields"][1], json!({"name": "b"}));
        assert_eq!(value["extras"], Value::Null);
    }

    #[test]
    fn a_statement_without_columns_has_null_lists() {
        let text = result_json(&QueryResult { rows_affected: 3, insert_id: 7, ..Default::default() });
        assert_eq!(
            text,
            "{\n  \"fields\": null,\n  \"rows_affected\": 3,\n  \"insert_id\": 7,\n  \"rows\": null,\n  \"extras\": null\n}"
        );
    }

    #[test]
    fn a_broken_row_does_not_crash() {
        let row = Row { lengths: vec![5, 9, i64::MAX], values: "abc".into() };
        assert_eq!(row_values(&row), [Some(&b"abc"[..]), Some(&b""[..]), Some(&b""[..])]);
    }
}
