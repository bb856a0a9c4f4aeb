//! The life of one stream: choose a source, play it, and when that fails say so in the row and try again.
//!
//! A source that goes away while rows were flowing is replaced at once; what fails again without having moved waits for
//! the retry delay. A row whose text cannot be used stays in state Error until somebody changes it.

use std::{sync::Arc, time::Duration};

use mysql::client::Connection;
use throttler::{Throttler, Throttlers, UNLIMITED};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use topo::TopoServer;
use vterrors::{Result, VtError};
use vtproto::binlogdata::BinlogSource;

use crate::resolve_names;

use super::{
    EngineConfig, SourceKind,
    applier::{Applier, ApplyError},
    batch, client,
    merge::Keys,
    picker::Picker,
    player::{Ended, Independent, Pace, Player, Rules},
    replicas::Replicas,
    row::{State, StreamRow, read_position, update_state},
    source,
    stats::Stream,
};
use crate::OnDdl;

/// How long a source is looked for before the row says that there is none.
const SEARCH: Duration = Duration::from_secs(3);
/// How long writing a state may take when nothing else is known of mysqld.
const STATE_LIMIT: Duration = Duration::from_secs(5);

/// What all controllers of an engine share.
pub(super) struct Shared {
    pub config: EngineConfig,
    pub topo: TopoServer,
    pub throttlers: Throttlers,
}

/// A running stream. Dropping it leaves the task running until its token is cancelled.
pub(super) struct Controller {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Controller {
    pub fn start(shared: Arc<Shared>, row: &StreamRow, stream: Arc<Stream>, stop: CancellationToken) -> Self {
        let run = Run { shared, stream, stop: stop.clone(), failed: None, alone: 0 };
        let (id, workflow) = (row.id, row.workflow.clone());
        tracing::info!(stream = id, workflow, "stream starts at {}", row.pos);
        let task = tokio::spawn(async move {
            run.run().await;
            tracing::info!(stream = id, "stream ends");
        });
        Self { stop, task }
    }

    /// Stops it. Afterwards nothing of it changes the database any more.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!("a stream panicked: {error}");
        }
    }
}

struct Run {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    stop: CancellationToken,
    /// The tablet that the last attempt failed with.
    failed: Option<String>,
    /// So many source transactions are to be applied one by one.
    alone: i64,
}

/// How to go on after an attempt.
enum Next {
    /// Not at all.
    End,
    AtOnce,
    /// After the retry delay.
    Later(VtError),
    /// Not until the row is changed.
    Never(VtError),
}

/// What a row asks for, read and found right.
struct Wanted {
    source: BinlogSource,
    kind: SourceKind,
    on_ddl: OnDdl,
    position: mysql::Position,
    stop_position: mysql::Position,
}

impl Wanted {
    fn read(row: &StreamRow) -> Result<Self> {
        let source = source::read_source(&row.source)?;
        let kind = source::kind(&source)?;
        let on_ddl = source::on_ddl(&row.source, &source);
        Ok(Self { kind, on_ddl, source, position: read_position(&row.pos)?, stop_position: row.stop_position()? })
    }

    /// Why the stream has nothing to do, if it has not.
    fn already_there(&self) -> Option<String> {
        let (at, stop) = (&self.position, &self.stop_position);
        if stop.is_empty() {
            None
        } else if at == stop {
            Some(format!("not starting BinlogPlayer, we're already at the desired position {stop}"))
        } else if at.at_least(stop) {
            Some(format!("starting point {at} greater than stopping point {stop}"))
        } else {
            None
        }
    }
}

impl Run {
    async fn run(mut self) {
        let mut picker = None;
        loop {
            let next = self.attempt(&mut picker).await;
            self.stream.set_streaming(false);
            if self.stop.is_cancelled() {
                return;
            }
            match next {
                Next::End => return,
                Next::AtOnce => {}
                Next::Later(error) => {
                    self.fail(&error).await;
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = sleep(self.shared.config.retry_delay) => {}
                    }
                }
                Next::Never(error) => {
                    self.fail(&error).await;
                    self.stop.cancelled().await;
                    return;
                }
            }
        }
    }

    /// One attempt, from the login at mysqld to the end of the stream.
    async fn attempt(&mut self, picker: &mut Option<Picker>) -> Next {
        let config = &self.shared.config;
        let mut applier = match Applier::open(&config.login(), self.stream.id, self.stop.clone()).await {
            Ok(applier) => applier,
            Err(error) => return later(error),
        };
        let next = self.attempt_with(&mut applier, picker).await.unwrap_or_else(later);
        applier.close().await;
        next
    }

    async fn attempt_with(&mut self, applier: &mut Applier, picker: &mut Option<Picker>) -> Result<Next, ApplyError> {
        // Read under the lock of the stream: nobody else moves it any more.
        let Some(row) = applier.row(&self.shared.config.db_name).await? else { return Ok(Next::End) };
        if row.is_stopped() {
            self.stream.read(&row);
            return Ok(Next::End);
        }
        let wanted = match Wanted::read(&row) {
            Ok(wanted) => wanted,
            Err(error) => return Ok(Next::Never(error)),
        };
        if let Some(message) = wanted.already_there() {
            self.set_state(applier, State::Stopped, &message).await?;
            return Ok(Next::End);
        }
        let picker = match picker {
            Some(picker) => picker,
            None => match self.picker(&row, &wanted.source) {
                Ok(made) => picker.insert(made),
                Err(error) => return Ok(Next::Never(error)),
            },
        };
        let tablet = match self.pick(applier, picker).await? {
            Some(tablet) => tablet,
            None => return Ok(Next::End),
        };
        if row.state != State::Running.as_str() || !row.message.is_empty() {
            self.set_state(applier, State::Running, "").await?;
        }
        let alias = tablet.alias();
        self.stream.stored(wanted.position, State::Running, "");
        self.stream.set_source_tablet(&alias);
        tracing::info!(
            stream = self.stream.id,
            "streaming {}/{} from {alias} at {}",
            wanted.source.keyspace,
            wanted.source.shard,
            row.pos
        );
        let db_name = &self.shared.config.db_name;
        let kind = match wanted.kind {
            SourceKind::Tables(patterns) if patterns.iter().any(|text| text.starts_with('/')) => {
                // Sources know names alone.
                let existing = applier.table_names(db_name).await?;
                match resolve_names(&patterns, &existing) {
                    Ok(names) if names.is_empty() => {
                        let text = format!("no table of {db_name} matches {}", patterns.join(","));
                        return Ok(Next::Never(VtError::new(vterrors::Code::FailedPrecondition, text)));
                    }
                    Ok(names) => SourceKind::Tables(names),
                    Err(error) => return Ok(Next::Never(error)),
                }
            }
            kind => kind,
        };
        let (position, charset, on_ddl) = (row.pos, applier.charset(), wanted.on_ddl);
        let (record, dial) = (tablet.tablet.clone(), self.shared.config.stream_dial.clone());
        // Transactions that are tried one by one go statement by statement too.
        let independent = match self.alone {
            0 => Independent::new(db_name, applier.independent_tables(db_name).await?),
            _ => Independent::new(db_name, Keys::new()),
        };
        let row_tables = independent.keys().clone();
        let opening =
            async move { client::stream(&record, &dial, &kind, &position, charset, on_ddl, row_tables).await };
        self.stream.set_streaming(true);
        self.stream.set_source_tablet(&alias);
        let shared = &self.shared;
        let mut throttler = Throttler::new(format!("BinlogPlayer/{}", self.stream.id), row.max_tps);
        let mut replicas = None;
        if row.max_replication_lag != UNLIMITED {
            throttler = throttler.with_max_lag(row.max_replication_lag);
            replicas = Some(Replicas::start(&shared.config, &shared.topo));
        }
        let throttler = shared.throttlers.add(throttler);
        let pace = Pace { throttler: &throttler, replicas: replicas.as_ref() };
        let rules = Rules { stop_position: wanted.stop_position, on_ddl, alone: self.alone };
        let mut player = Player::new(applier, &self.stream, pace, rules, independent, self.stop.clone());
        let ended = tokio::select! {
            ended = player.play(opening) => ended,
            () = tablet.closed.cancelled() => Ended::Source(VtError::new(
                vterrors::Code::Unavailable,
                format!("the health stream of {alias} has broken"),
            )),
        };
        // Nothing may commit any more when the position is read anew.
        player.settle().await;
        Ok(self.after(ended, player.moved, alias))
    }

    fn after(&mut self, ended: Ended, moved: bool, alias: String) -> Next {
        let id = self.stream.id;
        self.alone = 0;
        match ended {
            Ended::Stopped => {
                tracing::info!(stream = id, "at its stop position");
                Next::End
            }
            Ended::Cancelled => Next::End,
            Ended::OneByOne(error) => {
                tracing::info!(stream = id, "transactions are applied one by one for a while: {error}");
                self.alone = batch::TRANSACTIONS;
                Next::AtOnce
            }
            Ended::Anew(why) => {
                tracing::info!(stream = id, "the stream is opened anew: {why}");
                Next::AtOnce
            }
            Ended::Removed => {
                tracing::warn!(stream = id, "the row of the stream is gone");
                Next::End
            }
            Ended::Source(error) => {
                let error = error.wrap(format!("stream from {alias}"));
                // The second failure in a row without a step forward is not chance.
                let again = !moved && self.failed.is_some();
                self.failed = Some(alias);
                if again {
                    return Next::Later(error);
                }
                tracing::warn!(stream = id, "{error}; looking for a source anew");
                Next::AtOnce
            }
            Ended::Target(error) => Next::Later(error),
        }
    }

    fn picker(&self, row: &StreamRow, source: &BinlogSource) -> Result<Picker> {
        let shared = &self.shared;
        Picker::start(&shared.config, &shared.topo, &source.keyspace, &source.shard, &row.cell, &row.tablet_types)
    }

    /// A tablet to stream from. That there is none stands in the row for as long as it is so. `None` when the stream is
    /// stopped meanwhile.
    async fn pick(
        &self,
        applier: &mut Applier,
        picker: &Picker,
    ) -> Result<Option<Arc<tabletclient::TabletHealth>>, ApplyError> {
        let mut said = String::new();
        loop {
            let search = picker.pick(self.failed.as_deref(), Instant::now() + SEARCH);
            let Some(found) = self.stop.run_until_cancelled(search).await else { return Ok(None) };
            match found {
                Ok(tablet) => {
                    if !said.is_empty() {
                        self.set_state(applier, State::Running, "").await?;
                    }
                    return Ok(Some(tablet));
                }
                Err(error) => {
                    let text = error.message().to_owned();
                    if text != said {
                        tracing::warn!(stream = self.stream.id, "{text}");
                        self.set_state(applier, State::Error, &text).await?;
                        said = text;
                    }
                }
            }
        }
    }

    async fn set_state(&self, applier: &mut Applier, state: State, message: &str) -> Result<(), ApplyError> {
        applier.run(update_state(self.stream.id, state, message).as_bytes()).await?;
        self.stream.set_state(state, message);
        Ok(())
    }

    /// Says in the row what went wrong, over a connection of its own: the stream's may be the reason.
    async fn fail(&self, error: &VtError) {
        let message = error.message();
        tracing::warn!(stream = self.stream.id, "the stream fails: {message}");
        self.stream.set_state(State::Error, message);
        let writing = async {
            let mut conn = Connection::connect(&self.shared.config.login()).await?;
            conn.execute(&update_state(self.stream.id, State::Error, message)).await?;
            conn.close().await;
            Ok::<_, mysql::ClientError>(())
        };
        match timeout(STATE_LIMIT, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(stream = self.stream.id, "the row cannot say so: {error}"),
            Err(_) => tracing::warn!(stream = self.stream.id, "the row cannot say so: mysqld does not answer"),
        }
    }
}

fn later(error: ApplyError) -> Next {
    match error {
        ApplyError::Cancelled => Next::End,
        ApplyError::Mysql(error) => Next::Later(error.into()),
        ApplyError::Other(error) => Next::Later(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pos: &str, stop_pos: &str) -> StreamRow {
        StreamRow {
            id: 1,
            workflow: String::new(),
            source: "keyspace:\"commerce\" shard:\"0\" tables:\"t\" ".into(),
            pos: pos.into(),
            stop_pos: stop_pos.into(),
            max_tps: i64::MAX,
            max_replication_lag: i64::MAX,
            cell: String::new(),
            tablet_types: String::new(),
            transaction_timestamp: 0,
            state: "Running".into(),
            message: String::new(),
        }
    }

    #[test]
    fn a_stop_position_that_is_reached_or_passed_ends_the_stream() {
        let there = |pos: &str, stop: &str| Wanted::read(&row(pos, stop)).expect("a row").already_there();
        assert_eq!(there("MariaDB/0-1-5", ""), None);
        assert_eq!(there("MariaDB/0-1-5", "MariaDB/0-1-6"), None);
        assert_eq!(
            there("MariaDB/0-1-5", "MariaDB/0-1-5").as_deref(),
            Some("not starting BinlogPlayer, we're already at the desired position MariaDB/0-1-5")
        );
        assert_eq!(
            there("MariaDB/0-1-6", "MariaDB/0-1-5").as_deref(),
            Some("starting point MariaDB/0-1-6 greater than stopping point MariaDB/0-1-5")
        );
        assert!(Wanted::read(&row("0-1-5", "")).is_err());
    }
}
