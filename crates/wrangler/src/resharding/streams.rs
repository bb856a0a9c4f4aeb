//! Rows of `_vt.vreplication` at a master: its streams of filtered replication.
//!
//! They are read and changed through the tablet only (VReplicationExec), which starts and stops the
//! streams that the rows describe. Statements name one row by its id, as tablets of Vitess require.

use std::time::Duration;

use topo::topoproto::{tablet_alias_string, tablet_db_name};
use vtproto::binlogdata::BinlogSource;
use vtproto::query::QueryResult;
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::Tablet;

use crate::Wrangler;
use crate::error::{Result, bail, err};
use crate::output::row_values;
use crate::wrangler::within;

/// The workflow of a stream back to where the rows came from.
pub(crate) const REVERSED: &str = "ReversedResharding";
/// The state of a stream that is prepared and not started.
const STOPPED: &str = "Stopped";
/// "No limit" in the columns max_tps and max_replication_lag.
const UNLIMITED: i64 = i64::MAX;

/// A stream that is prepared and not started.
pub(crate) struct NewStream {
    pub source: BinlogSource,
    /// Where it begins to read.
    pub position: String,
}

/// Runs a statement on the rows of a tablet.
pub(crate) async fn exec(wr: &Wrangler, tablet: &Tablet, query: String) -> Result<QueryResult> {
    let alias = tablet_alias_string(tablet.alias.as_ref());
    let call = wr.tmc().v_replication_exec(tablet, tmd::VReplicationExecRequest { query: query.clone() });
    let answer = within(wr.config().remote_operation_timeout, call)
        .await
        .map_err(|error| err!("VReplicationExec({alias}, {query}) failed: {error}"))?;
    Ok(answer.result.unwrap_or_default())
}

/// All streams of a tablet's own database.
pub(crate) async fn list(wr: &Wrangler, tablet: &Tablet) -> Result<QueryResult> {
    let database = quoted(&tablet_db_name(tablet));
    exec(wr, tablet, format!("select * from _vt.vreplication where db_name={database}")).await
}

/// Ends a stream for good. One that is not there has been ended already.
pub(crate) async fn delete(wr: &Wrangler, tablet: &Tablet, uid: u32) -> Result {
    exec(wr, tablet, format!("delete from _vt.vreplication where id={uid}")).await.map(drop)
}

/// Sets where a prepared stream begins to read (empty: where it was prepared to), and starts it if it shall run. One that
/// has been started was so by an attempt before this one: it has gone on since, and taken back it would apply again what
/// it has applied.
pub(crate) async fn begin(wr: &Wrangler, tablet: &Tablet, uid: u32, position: &str, run: bool) -> Result {
    let mut changes = Vec::new();
    if !position.is_empty() {
        changes.push(format!("pos={}", quoted(position)));
    }
    if run {
        changes.push("state='Running', stop_pos=NULL".to_owned());
    }
    let has_begun = |stream: &Stream| stream.uid == uid && stream.state != STOPPED;
    if changes.is_empty() || read(wr, tablet).await?.iter().any(has_begun) {
        return Ok(());
    }
    let query = format!("update _vt.vreplication set {} where id={uid}", changes.join(", "));
    exec(wr, tablet, query).await.map(drop)
}

/// Ends the streams back that an attempt before this one prepared: of [`REVERSED`], not running, from
/// one of the places.
pub(crate) async fn delete_prepared(wr: &Wrangler, tablet: &Tablet, from: &[(&str, &str)]) -> Result {
    for stream in read(wr, tablet).await? {
        let place = (stream.source.keyspace.as_str(), stream.source.shard.as_str());
        if stream.workflow == REVERSED && stream.state == STOPPED && from.contains(&place) {
            delete(wr, tablet, stream.uid).await?;
        }
    }
    Ok(())
}

/// Prepares streams, stopped, and returns their ids.
pub(crate) async fn insert_stopped(
    wr: &Wrangler,
    tablet: &Tablet,
    workflow: &str,
    streams: &[NewStream],
) -> Result<Vec<u32>> {
    if streams.is_empty() {
        return Ok(Vec::new());
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let database = quoted(&tablet_db_name(tablet));
    let rows: Vec<String> = streams
        .iter()
        .map(|stream| {
            let source = quoted(&vtjson::text_compact(&stream.source));
            let position = quoted(&stream.position);
            format!(
                "({}, {source}, {position}, {UNLIMITED}, {UNLIMITED}, {now}, 0, '{STOPPED}', {database})",
                quoted(workflow)
            )
        })
        .collect();
    let result = exec(
        wr,
        tablet,
        format!(
            "insert into _vt.vreplication (workflow, source, pos, max_tps, max_replication_lag, time_updated, transaction_timestamp, state, db_name) values {}",
            rows.join(", ")
        ),
    )
    .await?;
    // Rows of one statement have consecutive ids, of which the first is told.
    let first = u32::try_from(result.insert_id).ok().filter(|id| *id > 0);
    let Some(first) = first else {
        bail!("{} did not tell the id of a new stream", tablet_alias_string(tablet.alias.as_ref()))
    };
    Ok((first..).take(streams.len()).collect())
}

/// A row, as far as anybody here looks at it.
pub(crate) struct Stream {
    pub uid: u32,
    pub workflow: String,
    pub source: BinlogSource,
    pub state: String,
    pub message: String,
}

impl Stream {
    /// # Errors
    /// It stands still, at the tablet of this alias.
    pub fn check_runs(&self, alias: &str) -> Result {
        if self.state == "Error" || self.state == STOPPED {
            bail!("vreplication stream {} on {alias} is in state {}: {}", self.uid, self.state, self.message);
        }
        Ok(())
    }
}

/// The streams of a tablet's own database, with their sources taken apart.
pub(crate) async fn read(wr: &Wrangler, tablet: &Tablet) -> Result<Vec<Stream>> {
    parse(&list(wr, tablet).await?)
}

fn parse(result: &QueryResult) -> Result<Vec<Stream>> {
    let column = |name: &str| {
        result
            .fields
            .iter()
            .position(|field| field.name == name)
            .ok_or_else(|| err!("_vt.vreplication has no column {name}"))
    };
    if result.rows.is_empty() {
        return Ok(Vec::new());
    }
    let (id, workflow, source, state, message) =
        (column("id")?, column("workflow")?, column("source")?, column("state")?, column("message")?);
    result
        .rows
        .iter()
        .map(|row| {
            let values = row_values(row);
            let text = |index: usize| {
                String::from_utf8_lossy(values.get(index).copied().flatten().unwrap_or_default()).into_owned()
            };
            Ok(Stream {
                uid: text(id).parse().map_err(|_| err!("a stream of _vt.vreplication has the id {:?}", text(id)))?,
                workflow: text(workflow),
                source: vtjson::from_text(&text(source))
                    .map_err(|error| err!("the source of stream {}: {error}", text(id)))?,
                state: text(state),
                message: text(message),
            })
        })
        .collect()
}

/// Waits until a stream has applied a position.
pub(crate) async fn wait_for_position(
    wr: &Wrangler,
    tablet: &Tablet,
    uid: u32,
    position: &str,
    limit: Duration,
) -> Result<(), tabletclient::tm::TmError> {
    let request = tmd::VReplicationWaitForPosRequest { id: i64::from(uid), position: position.to_owned() };
    within(limit, wr.tmc().v_replication_wait_for_pos(tablet, request)).await.map(drop)
}

fn quoted(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    vtsql::quote_string(text.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
