//! ShowResharding: what is being moved, with the streams that move it.

use std::fmt::Write as _;

use topo::ShardInfo;
use vtproto::query::{QueryResult, Type};

use super::refresh::master_of;
use super::{sides, streams};
use crate::Wrangler;
use crate::error::Result;
use crate::output::row_values;

/// Bit of `query.Type` that types quoted in SQL have.
const IS_QUOTED: i32 = 2048;

/// Prints what is under way for a shard.
pub(crate) async fn show_resharding(wr: &Wrangler, keyspace: &str, shard: &str) -> Result {
    let text = match vertical(wr, keyspace, shard).await? {
        Some(text) => text,
        None => match horizontal(wr, keyspace, shard).await? {
            Some(text) => text,
            None => "No resharding in progress\n".to_owned(),
        },
    };
    wr.logger().print(text).await;
    Ok(())
}

/// `None`: the keyspace serves everything itself.
async fn vertical(wr: &Wrangler, keyspace: &str, shard: &str) -> Result<Option<String>> {
    let info = wr.topo().get_keyspace(keyspace).await?;
    if info.record.served_froms.is_empty() {
        return Ok(None);
    }
    let destination = wr.topo().get_shard(keyspace, shard).await?;
    let [source] = destination.record.source_shards.as_slice() else { return Ok(None) };
    if source.tables.is_empty() {
        return Ok(None);
    }
    let origin = wr.topo().get_shard(&source.keyspace, &source.shard).await?;
    Ok(Some(format!(
        "Vertical Resharding:\n  Served From: {}\n  Source:\n{}  Destination:\n{}",
        list(&info.record.served_froms),
        shard_text(wr, &origin).await?,
        shard_text(wr, &destination).await?
    )))
}

/// `None`: the shard shares its rows with no other.
async fn horizontal(wr: &Wrangler, keyspace: &str, shard: &str) -> Result<Option<String>> {
    let Some(group) = sides::overlapping(wr, keyspace, shard).await? else { return Ok(None) };
    let sides = sides::direction(group)?;
    let mut text = format!("Horizontal Resharding for {keyspace}:\n");
    for (title, shards) in [("Sources", &sides.sources), ("Destinations", &sides.destinations)] {
        let _ = writeln!(text, "  {title}:");
        for shard in shards {
            text.push_str(&shard_text(wr, shard).await?);
        }
    }
    Ok(Some(text))
}

async fn shard_text(wr: &Wrangler, shard: &ShardInfo) -> Result<String> {
    let record = &shard.record;
    let mut text = format!("    Shard: {}\n", shard.shard_name);
    if !record.source_shards.is_empty() {
        let _ = writeln!(text, "      Source Shards: {}", list(&record.source_shards));
    }
    let rows = row_texts(&streams::list(wr, &master_of(wr, shard).await?).await?);
    if !rows.is_empty() {
        text.push_str("      VReplication:\n");
        for row in rows {
            let _ = writeln!(text, "        {row}");
        }
    }
    let _ = writeln!(text, "      Is Master Serving: {}", record.is_master_serving);
    if !record.tablet_controls.is_empty() {
        let _ = writeln!(text, "      Tablet Controls: {}", list(&record.tablet_controls));
    }
    Ok(text)
}

/// Messages as Go prints a list of them.
fn list<M: prost::Message + prost::Name>(messages: &[M]) -> String {
    format!("[{}]", messages.iter().map(vtjson::text_compact).collect::<Vec<_>>().join(" "))
}

/// Rows as Go prints lists of its values: `[INT32(1) VARBINARY("x") NULL]`.
fn row_texts(result: &QueryResult) -> Vec<String> {
    let value = |(value, field): (Option<&[u8]>, &vtproto::query::Field)| match value {
        None => "NULL".to_owned(),
        Some(bytes) => {
            let name = Type::try_from(field.r#type).unwrap_or(Type::NullType).as_str_name();
            if field.r#type & IS_QUOTED != 0 {
                format!("{name}({})", quoted(bytes))
            } else {
                format!("{name}({})", String::from_utf8_lossy(bytes))
            }
        }
    };
    let row = |row| row_values(row).into_iter().zip(&result.fields).map(value).collect::<Vec<_>>().join(" ");
    result.rows.iter().map(|one| format!("[{}]", row(one))).collect()
}

/// Bytes as a Go string literal.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() => {
                    let _ = write!(text, "\\x{:02x}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use vtproto::query::{Field, Row};

    use super::*;

    #[test]
    fn rows_print_with_their_types() {
        let field = |r#type: Type| Field { r#type: r#type.into(), ..Default::default() };
        let source: &[u8] = b"key_range:<end:\"\\200\" > ";
        let result = QueryResult {
            fields: vec![field(Type::Int32), field(Type::Varbinary), field(Type::Varbinary), field(Type::Int64)],
            rows: vec![Row {
                lengths: vec![1, i64::try_from(source.len()).expect("short"), -1, 1],
                values: [b"7", source, b"0"].concat().into(),
            }],
            ..Default::default()
        };
        assert_eq!(row_texts(&result), ["[INT32(7) VARBINARY(\"key_range:<end:\\\"\\\\200\\\" > \") NULL INT64(0)]"]);
        assert_eq!(quoted(b"\xff\x01\n\"\\"), "\"\\xff\\x01\\n\\\"\\\\\"");
    }
}
