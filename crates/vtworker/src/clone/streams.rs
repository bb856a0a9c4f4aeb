//! The rows of `_vt.vreplication` from which filtered replication goes on after a clone, and the source shards in the
//! topology that name them.
//!
//! Every step may be run again: a stream that exists for the same source is used, a source shard that is noted is left.

use std::sync::Arc;
use std::time::SystemTime;

use topo::{ShardInfo, TopoServer, Update, topoproto};
use vterrors::{Code, Result, VtError};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{KeyRange, shard};

use super::plan::{Kind, Plan, shard_path};
use super::progress::Positions;
use super::write::{Writer, errno};
use crate::rows;
use crate::sql::quoted;

const WORKFLOW: &str = "SplitClone";
/// As stored for "no limit" and "disabled".
const UNLIMITED: i64 = i64::MAX;
const NO_SUCH_DATABASE: u32 = 1049;
const NO_SUCH_TABLE: u32 = 1146;

/// `binlogdata.BinlogSource` as text on one line, a blank behind each field.
pub fn source_text(keyspace: &str, shard: &str, key_range: Option<&KeyRange>, tables: &[String]) -> String {
    let mut text = format!("keyspace:{} shard:{} ", string(keyspace.as_bytes()), string(shard.as_bytes()));
    if let Some(range) = key_range {
        text.push_str("key_range:<");
        for (field, bytes) in [("start", &range.start), ("end", &range.end)] {
            if !bytes.is_empty() {
                text.push_str(&format!("{field}:{} ", string(bytes)));
            }
        }
        text.push_str("> ");
    }
    for table in tables {
        text.push_str(&format!("tables:{} ", string(table.as_bytes())));
    }
    text
}

/// Bytes in quotes, as protobuf's text form escapes them.
fn string(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' | b'\'' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x20..=0x7e => text.push(char::from(*byte)),
            other => text.push_str(&format!("\\{other:03o}")),
        }
    }
    text.push('"');
    text
}

/// The source of one stream: what of a source shard belongs to a destination.
fn stream_source(plan: &Plan, source: &ShardInfo, destination: &ShardInfo, tables: &[String]) -> String {
    match plan.kind {
        Kind::Vertical => source_text(&source.keyspace, &source.shard_name, None, tables),
        Kind::Horizontal => {
            let range = source.range().overlap(&destination.range()).unwrap_or_else(|| destination.range());
            let range = topoproto::proto_key_range(&range);
            source_text(&source.keyspace, &source.shard_name, Some(&range), &[])
        }
    }
}

/// The streams of a destination for a source; none where the table does not exist yet.
async fn find(writer: &Arc<Writer>, source: &str) -> Result<Vec<u32>> {
    let master = writer.master();
    let sql = format!(
        "select id from _vt.vreplication where workflow = {} and source = {} and db_name = {}",
        quoted(WORKFLOW),
        quoted(source),
        quoted(&master.db_name)
    );
    match master.fetch(sql).await {
        Ok(result) => Ok(result.rows.iter().filter_map(|row| rows::text(row, 0).parse().ok()).collect()),
        Err(error) if matches!(errno(&error), Some(NO_SUCH_DATABASE | NO_SUCH_TABLE)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

async fn exec(writer: &Arc<Writer>, query: String) -> Result<vtproto::query::QueryResult> {
    let master = writer.master();
    let env = master.env();
    let request = tmd::VReplicationExecRequest { query };
    let answer = env.bounded(env.tmc.v_replication_exec(&master.tablet, request)).await?;
    Ok(answer.result.unwrap_or_default())
}

/// Removes streams that an earlier run started and did not enter in the topology: they would write while rows are
/// copied.
///
/// # Errors
/// The destination refuses.
pub async fn remove_stale(plan: &Plan, writers: &[Arc<Writer>], tables: &[String]) -> Result<()> {
    for (writer, destination) in writers.iter().zip(&plan.destinations) {
        for source in &plan.sources {
            for id in find(writer, &stream_source(plan, source, destination, tables)).await? {
                tracing::warn!("removing the stream {id} of an earlier run at {}", writer.name());
                exec(writer, format!("delete from _vt.vreplication where id = {id}")).await?;
            }
        }
    }
    Ok(())
}

/// Starts filtered replication at the positions of the sources.
///
/// # Errors
/// A destination or the topology refuses; running it again goes on.
pub async fn start(
    topo: &TopoServer,
    plan: &Plan,
    writers: &[Arc<Writer>],
    positions: &Positions,
    tables: &[String],
) -> Result<()> {
    for (at, (writer, destination)) in writers.iter().zip(&plan.destinations).enumerate() {
        for (from, source) in plan.sources.iter().enumerate() {
            if !plan.overlaps(from, at) {
                continue;
            }
            let position = positions.get(&shard_path(source)).ok_or_else(|| {
                VtError::new(Code::Internal, format!("no position is known of source shard {}", shard_path(source)))
            })?;
            let text = stream_source(plan, source, destination, tables);
            let uid = match find(writer, &text).await?.first() {
                Some(id) => *id,
                None => insert(writer, &text, position).await?,
            };
            add_source_shard(topo, destination, source, uid, tables).await?;
        }
        let master = writer.master();
        let env = master.env();
        let refresh = env.tmc.refresh_state(&master.tablet, tmd::RefreshStateRequest {});
        env.bounded(refresh).await?;
    }
    Ok(())
}

async fn insert(writer: &Arc<Writer>, source: &str, position: &str) -> Result<u32> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let query = format!(
        "insert into _vt.vreplication (workflow, source, pos, max_tps, max_replication_lag, time_updated, \
         transaction_timestamp, state, db_name) values ({}, {}, {}, {UNLIMITED}, {UNLIMITED}, {now}, 0, 'Running', {})",
        quoted(WORKFLOW),
        quoted(source),
        quoted(position),
        quoted(&writer.master().db_name)
    );
    let id = exec(writer, query).await?.insert_id;
    u32::try_from(id).ok().filter(|id| *id > 0).ok_or_else(|| {
        VtError::new(Code::Internal, format!("VReplicationExec on {} returned the id {id}", writer.name()))
    })
}

async fn add_source_shard(
    topo: &TopoServer,
    destination: &ShardInfo,
    source: &ShardInfo,
    uid: u32,
    tables: &[String],
) -> Result<()> {
    let record = shard::SourceShard {
        uid,
        keyspace: source.keyspace.clone(),
        shard: source.shard_name.clone(),
        key_range: source.record.key_range.clone(),
        tables: tables.to_vec(),
    };
    let action = format!("SourceShardAdd({uid})");
    let lock = topo.lock_keyspace(&destination.keyspace, &action).await?;
    let updated = topo
        .update_shard_fields(&destination.keyspace, &destination.shard_name, |info| {
            if info.record.source_shards.contains(&record) {
                return Ok(Update::NoUpdateNeeded);
            }
            info.add_source_shard(&lock, record.clone())?;
            Ok(Update::Write)
        })
        .await;
    let unlocked = lock.unlock().await;
    updated?;
    Ok(unlocked?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_written_as_the_walkthrough_shows_them() {
        let tables = ["customer".to_owned(), "corder".to_owned()];
        assert_eq!(
            source_text("commerce", "0", None, &tables),
            r#"keyspace:"commerce" shard:"0" tables:"customer" tables:"corder" "#
        );
        let range = KeyRange { start: Vec::new(), end: vec![0x80] };
        assert_eq!(
            source_text("customer", "0", Some(&range), &[]),
            r#"keyspace:"customer" shard:"0" key_range:<end:"\200" > "#
        );
    }
}
