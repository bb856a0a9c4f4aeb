//! The rows of `_vt.vreplication` from which filtered replication goes on after a clone, and the source shards in the
//! topology that name them.
//!
//! Every step may be run again: a stream that exists for the same source is used, a source shard that is noted is left.

use std::sync::Arc;
use std::time::SystemTime;

use topo::{KeyspaceLock, ShardInfo, TopoServer, Update, topoproto};
use vterrors::{Code, Result, VtError};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{KeyRange, shard};

use super::Options;
use super::plan::{Kind, Plan, shard_path};
use super::progress::Positions;
use super::write::{Writer, errno};
use crate::rows;
use crate::sql::quoted;

const WORKFLOW: &str = "SplitClone";
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
            // As v5.0.1 writes it: all that the destination takes, of which the source has a part.
            let range = topoproto::proto_key_range(&destination.range());
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

/// Whether a stream of the plan exists, by the records, which the plan has anew, or at a destination. Nobody who has lost
/// the job starts one after this.
///
/// # Errors
/// The topology or a destination cannot be asked.
pub async fn started(topo: &TopoServer, plan: &mut Plan, writers: &[Arc<Writer>], tables: &[String]) -> Result<bool> {
    let lock = lock(topo, plan).await?;
    let found: Result<bool> = async {
        for destination in &mut plan.destinations {
            *destination = topo.get_shard(&destination.keyspace, &destination.shard_name).await?;
        }
        let mut found = plan.check_no_streams().is_err();
        for (writer, destination) in writers.iter().zip(&plan.destinations) {
            for source in &plan.sources {
                found |= !find(writer, &stream_source(plan, source, destination, tables)).await?.is_empty();
            }
        }
        Ok(found)
    }
    .await;
    let unlocked = lock.unlock().await;
    let found = found?;
    unlocked?;
    Ok(found)
}

/// The lock under which streams are started.
async fn lock(topo: &TopoServer, plan: &Plan) -> Result<KeyspaceLock> {
    Ok(topo.lock_keyspace(&plan.destinations[0].keyspace, "streams of a clone").await?)
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

/// Starts filtered replication at the positions of the sources, if this run has the job still.
///
/// # Errors
/// A destination or the topology refuses; running it again goes on. ABORTED: another run has taken the job over.
pub async fn start(
    topo: &TopoServer,
    plan: &Plan,
    writers: &[Arc<Writer>],
    positions: &Positions,
    options: &Options,
) -> Result<()> {
    let lock = lock(topo, plan).await?;
    let started = start_locked(topo, &lock, plan, writers, positions, options).await;
    let unlocked = lock.unlock().await;
    started?;
    Ok(unlocked?)
}

async fn start_locked(
    topo: &TopoServer,
    lock: &KeyspaceLock,
    plan: &Plan,
    writers: &[Arc<Writer>],
    positions: &Positions,
    options: &Options,
) -> Result<()> {
    let tables = &options.tables;
    for writer in writers {
        writer.check_owner().await?;
    }
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
                None => insert(writer, &text, position, options).await?,
            };
            add_source_shard(topo, lock, destination, source, uid, tables).await?;
        }
        let master = writer.master();
        let env = master.env();
        let refresh = env.tmc.refresh_state(&master.tablet, tmd::RefreshStateRequest {});
        env.bounded(refresh).await?;
    }
    Ok(())
}

/// The limits of the clone are those of its streams, as in v5.0.1.
async fn insert(writer: &Arc<Writer>, source: &str, position: &str, options: &Options) -> Result<u32> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let query = format!(
        "insert into _vt.vreplication (workflow, source, pos, max_tps, max_replication_lag, time_updated, \
         transaction_timestamp, state, db_name) values ({}, {}, {}, {}, {}, {now}, 0, 'Running', {})",
        quoted(WORKFLOW),
        quoted(source),
        quoted(position),
        options.max_tps,
        options.max_replication_lag,
        quoted(&writer.master().db_name)
    );
    let id = exec(writer, query).await?.insert_id;
    u32::try_from(id).ok().filter(|id| *id > 0).ok_or_else(|| {
        VtError::new(Code::Internal, format!("VReplicationExec on {} returned the id {id}", writer.name()))
    })
}

async fn add_source_shard(
    topo: &TopoServer,
    lock: &KeyspaceLock,
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
    topo.update_shard_fields(&destination.keyspace, &destination.shard_name, |info| {
        if info.record.source_shards.contains(&record) {
            return Ok(Update::NoUpdateNeeded);
        }
        info.add_source_shard(lock, record.clone())?;
        Ok(Update::Write)
    })
    .await?;
    Ok(())
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
