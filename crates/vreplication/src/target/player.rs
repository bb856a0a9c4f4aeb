//! Playing one stream of a source: messages in, transactions of the target out.
//!
//! A task of its own reads ahead, bounded in bytes, while mysqld works. What has arrived by the time mysqld is free
//! becomes one transaction, so that a source that is faster than one commit at a time is followed all the same. Full ones
//! overlap ([`Overlap`]); whatever else there is to do waits until none of those runs. Messages without rows only move the
//! position; it is stored when a while has passed, or when somebody waits for it.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use mysql::{Position, client::ClientError};
use throttler::Throttler;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use vterrors::VtError;
use vtproto::{
    binlogdata::{
        BinlogTransaction,
        binlog_transaction::{Statement, statement::Category},
    },
    query::QueryResult,
};

use super::{
    applier::{Applier, ApplyError, is_foreign_key, is_transient},
    batch::{Batch, Detached, Reached},
    client::Transactions,
    merge::Keys,
    overlap::{Outcome, Overlap},
    replicas::Replicas,
    row::{State, read_position, update_position},
    script::Script,
    stats::{Stream, unix_now},
};
use crate::{OnDdl, row_bytes};

/// Bytes of messages read ahead of mysqld, one message more at most.
const READ_AHEAD: usize = 8 << 20;
/// What a statement takes up beside its bytes.
const STATEMENT_OVERHEAD: usize = 32;
/// Messages read ahead: empty ones have no bytes to speak of.
const MESSAGES: usize = 4096;
/// How often the tables are looked at while changes of theirs are put together, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What looking may take of the time: one part of so many.
const LOOKING_SHARE: u32 = 100;
/// How long a position without rows may wait to be stored.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// Pauses between attempts after a deadlock.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// The message of a row whose stream has come to its stop position.
pub(super) const REACHED: &str = "Reached stopping position, done playing logs";

/// Why playing ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// At its stop position, which the row says now.
    Stopped,
    /// It was told to stop.
    Cancelled,
    /// The row is gone.
    Removed,
    /// Transactions that were put together do not apply so: each has to be tried alone.
    OneByOne(VtError),
    /// The stream has to be asked for again, in another way.
    Anew(&'static str),
    /// The source ended the stream, or sent what cannot be used.
    Source(VtError),
    /// mysqld refuses.
    Target(VtError),
}

impl From<ApplyError> for Ended {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Cancelled => Self::Cancelled,
            ApplyError::Mysql(error) => Self::Target(error.into()),
            ApplyError::Other(error) => Self::Target(error),
        }
    }
}

/// One message and the room it takes up.
struct Arrived {
    message: BinlogTransaction,
    _room: OwnedSemaphorePermit,
}

/// The tables whose changes the source was asked for as rows. They have to stay independent of each other, which DDL here
/// may change at any time.
#[derive(Debug)]
pub(super) struct Independent {
    db_name: String,
    keys: Keys,
    /// When to look again.
    due: Instant,
}

impl Independent {
    pub fn new(db_name: &str, keys: Keys) -> Self {
        Self { db_name: db_name.to_owned(), keys, due: Instant::now() + LOOK_AGAIN }
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether they still are. Looks not often, and less often where looking takes long.
    async fn still_are(&mut self, applier: &mut Applier) -> Result<bool, ApplyError> {
        let started = Instant::now();
        if self.keys.is_empty() || started < self.due {
            return Ok(true);
        }
        let now = applier.independent_tables(&self.db_name).await?;
        self.due = Instant::now() + LOOK_AGAIN.max(started.elapsed() * LOOKING_SHARE);
        Ok(self.keys.iter().all(|(table, key)| now.get(table) == Some(key)))
    }
}

/// What slows a stream down.
pub(super) struct Pace<'a> {
    pub throttler: &'a Throttler,
    /// Which it must not leave too far behind, if that was asked for.
    pub replicas: Option<&'a Replicas>,
}

impl Pace<'_> {
    fn replicas_are_behind(&self) -> bool {
        let max_lag = self.throttler.max_lag();
        self.replicas.zip(max_lag).is_some_and(|(replicas, max_lag)| replicas.are_behind(max_lag))
    }

    /// Takes the place of one transaction if it may go now.
    fn try_take(&self) -> bool {
        !self.replicas_are_behind() && self.throttler.try_take()
    }

    /// Waits until [`Self::try_take`] may succeed.
    async fn ready(&self) {
        match self.replicas {
            Some(replicas) if self.replicas_are_behind() => replicas.changed().await,
            _ => self.throttler.ready().await,
        }
    }
}

/// How a stream is played.
pub(super) struct Rules {
    /// Empty: without end.
    pub stop_position: Position,
    pub on_ddl: OnDdl,
    /// So many source transactions are not put together with others.
    pub alone: i64,
}

pub(super) struct Player<'a> {
    applier: &'a mut Applier,
    stream: &'a Stream,
    pace: Pace<'a>,
    rules: Rules,
    batch: Batch,
    overlap: Overlap,
    /// A position without rows that is not stored yet, and until when it may stay so.
    unsaved: Option<(Reached, Instant)>,
    stop: CancellationToken,
    independent: Independent,
    /// Something was stored since the stream was opened.
    pub moved: bool,
}

impl<'a> Player<'a> {
    pub fn new(
        applier: &'a mut Applier,
        stream: &'a Stream,
        pace: Pace<'a>,
        rules: Rules,
        independent: Independent,
        stop: CancellationToken,
    ) -> Self {
        let batch = Batch::new(applier.session());
        let overlap = Overlap::default();
        Self { applier, stream, pace, rules, batch, overlap, unsaved: None, stop, independent, moved: false }
    }

    /// Plays until something ends it. Everything that was begun and not committed is rolled back then.
    pub async fn play(
        &mut self,
        transactions: impl Future<Output = vterrors::Result<Transactions>> + Send + 'static,
    ) -> Ended {
        let (sender, mut arrived) = mpsc::channel(MESSAGES);
        let _reading = AbortOnDropHandle::new(tokio::spawn(read_ahead(transactions, sender)));
        let ended = match self.play_all(&mut arrived).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        };
        self.settle().await;
        if matches!(ended, Ended::Cancelled | Ended::Source(_) | Ended::OneByOne(_) | Ended::Anew(_))
            && !self.applier.is_lost()
        {
            // What was begun goes; what was reached without rows may as well be kept.
            if self.batch.is_open()
                && let Err(error) = self.applier.run(b"rollback").await
            {
                tracing::debug!(stream = self.stream.id, "rolling back: {error}");
            }
            if let Err(Ended::Target(error)) = self.save().await {
                tracing::debug!(stream = self.stream.id, "storing the position at the end: {error}");
            }
        }
        ended
    }

    /// Waits until nothing runs that would still commit. To be called whenever playing has ended, however it did.
    pub async fn settle(&mut self) {
        while let Some((batch, outcome)) = self.overlap.next().await {
            // One that has failed comes again with the next stream, and so does what was reached behind it.
            if self.has_ended(&batch, outcome).is_err() {
                self.unsaved = None;
            }
        }
        self.overlap.close().await;
    }

    async fn play_all(
        &mut self,
        arrived: &mut mpsc::Receiver<vterrors::Result<Arrived>>,
    ) -> Result<std::convert::Infallible, Ended> {
        loop {
            let next = match arrived.try_recv() {
                Ok(next) => Some(next),
                Err(mpsc::error::TryRecvError::Disconnected) => None,
                Err(mpsc::error::TryRecvError::Empty) => {
                    if self.batch.is_whole() && !self.batch.is_empty() {
                        self.commit().await?;
                    }
                    self.wait(arrived).await?
                }
            };
            match next {
                Some(Ok(arrived)) => self.take(arrived.message).await?,
                Some(Err(error)) => {
                    self.commit_whole().await?;
                    return Err(Ended::Source(error));
                }
                None => {
                    self.commit_whole().await?;
                    let text = "the source has ended the stream";
                    return Err(Ended::Source(VtError::new(vterrors::Code::Unavailable, text)));
                }
            }
        }
    }

    /// Waits for a message. Meanwhile positions are stored when it is time.
    async fn wait(
        &mut self,
        arrived: &mut mpsc::Receiver<vterrors::Result<Arrived>>,
    ) -> Result<Option<vterrors::Result<Arrived>>, Ended> {
        loop {
            let due = self.unsaved.as_ref().map(|(_, due)| *due);
            let save = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return Err(Ended::Cancelled),
                next = arrived.recv() => return Ok(next),
                () = save => self.save().await?,
                () = self.stream.asked.notified() => self.save_if_awaited().await?,
                Some((batch, outcome)) = self.overlap.next() => self.see_through(batch, outcome).await?,
            }
        }
    }

    async fn take(&mut self, message: BinlogTransaction) -> Result<(), Ended> {
        if self.stop.is_cancelled() {
            return Err(Ended::Cancelled);
        }
        if self.batch.is_whole() && !message.statements.is_empty() {
            self.throttle().await?;
        }
        if message.statements.iter().any(|statement| statement.category() == Category::BlDdl) {
            return self.take_ddl(&message).await;
        }
        let token = message.event_token.clone();
        self.batch.add(message).map_err(Ended::Source)?;
        let Some(token) = token else {
            return if self.batch.is_full() { self.send().await } else { Ok(()) };
        };
        self.stream.heard(token.timestamp);
        let position = read_position(&token.position).map_err(Ended::Source)?;
        let stop_position = &self.rules.stop_position;
        if !stop_position.is_empty() && position.at_least(stop_position) {
            self.commit_at(Some(REACHED)).await?;
            return Err(Ended::Stopped);
        }
        if self.batch.is_empty() {
            // No rows: the position waits.
            let reached = self.batch.reached.take();
            let due = self.unsaved.take().map_or_else(|| Instant::now() + SAVE_AFTER, |(_, due)| due);
            self.unsaved = reached.map(|reached| (reached, due));
            if due <= Instant::now() || self.stream.is_awaited(&position) {
                self.save().await?;
            }
        } else if self.rules.alone > 0 {
            self.commit().await?;
        } else if self.batch.is_full() {
            self.overlap().await?;
        }
        Ok(())
    }

    /// Commits the batch while others run, if that may be.
    async fn overlap(&mut self) -> Result<(), Ended> {
        if !self.applier.may_have_lanes() {
            return self.commit().await;
        }
        self.look_again().await?;
        let Some(batch) = self.batch.detach().map(Arc::new) else { return self.commit().await };
        self.unsaved = None;
        while self.overlap.has_to_wait(&batch)
            && let Some((oldest, outcome)) = self.overlap.next().await
        {
            self.see_through(oldest, outcome).await?;
        }
        let end = self.end_of(&batch.reached, None);
        if let Err(error) = self.overlap.start(self.applier, batch.clone(), end).await {
            if matches!(error, ApplyError::Cancelled) {
                return Err(Ended::Cancelled);
            }
            tracing::warn!(stream = self.stream.id, "no further connection, one does it all: {error}");
            self.drain().await?;
            self.apply_alone(&batch).await?;
        }
        Ok(())
    }

    /// Waits until no transaction overlaps with what comes.
    async fn drain(&mut self) -> Result<(), Ended> {
        while let Some((batch, outcome)) = self.overlap.next().await {
            self.see_through(batch, outcome).await?;
        }
        Ok(())
    }

    /// Takes note of a transaction that has ended. If mysqld refused it, it is run again, and those behind it, one after
    /// the other.
    async fn see_through(&mut self, batch: Arc<Detached>, outcome: Outcome) -> Result<(), Ended> {
        let done = self.repeat_if_refused(batch, outcome).await;
        if done.is_err() {
            // What was reached behind it was not.
            self.unsaved = None;
        }
        done
    }

    async fn repeat_if_refused(&mut self, batch: Arc<Detached>, outcome: Outcome) -> Result<(), Ended> {
        let refused = match &outcome {
            Err(ApplyError::Mysql(ClientError::Server(error))) => error.to_string(),
            _ => return self.has_ended(&batch, outcome),
        };
        tracing::info!(stream = self.stream.id, "transactions are run again one after the other: {refused}");
        let mut again = vec![batch];
        while let Some((batch, outcome)) = self.overlap.next().await {
            // None of them commits before the one that failed.
            if outcome.is_ok() || matches!(outcome, Err(ApplyError::Cancelled)) {
                return self.has_ended(&batch, outcome);
            }
            again.push(batch);
        }
        for batch in again {
            self.apply_alone(&batch).await?;
        }
        Ok(())
    }

    fn has_ended(&mut self, batch: &Detached, outcome: Outcome) -> Result<(), Ended> {
        let found = outcome?;
        self.stream.applied(batch.queries, batch.transactions);
        self.stored(&batch.reached, None, found)
    }

    /// Applies a transaction that was taken out on the stream's own connection, between others.
    async fn apply_alone(&mut self, batch: &Detached) -> Result<(), Ended> {
        let mut script = batch.script.clone();
        script.text().extend_from_slice(self.end_of(&batch.reached, None).as_bytes());
        let alone = Batch::of(batch, self.applier.session());
        let current = std::mem::replace(&mut self.batch, alone);
        let done = self.execute(&script).await;
        self.batch = current;
        let found = Self::found(&done?);
        self.has_ended(batch, Ok(found))
    }

    /// A source transaction with DDL, which commits what it finds open: it is run by itself, and its position is stored
    /// behind it. After a crash between the two it is run again.
    async fn take_ddl(&mut self, message: &BinlogTransaction) -> Result<(), Ended> {
        if !self.batch.is_whole() {
            let text = "a transaction of the source has DDL behind other parts, which cannot be applied in parts";
            return Err(Ended::Target(VtError::new(vterrors::Code::Unimplemented, text)));
        }
        self.commit_whole().await?;
        self.drain().await?;
        for statement in &message.statements {
            let mut alone = Batch::new(self.applier.session());
            alone.add_statement(statement);
            alone.finish();
            let script = alone.take_alone();
            if script.is_empty() {
                continue;
            }
            match self.applier.run_script(&script).await {
                Ok(_) => {}
                Err(ApplyError::Mysql(ClientError::Server(error)))
                    if statement.category() == Category::BlDdl && self.rules.on_ddl == OnDdl::ExecIgnore =>
                {
                    tracing::warn!(
                        stream = self.stream.id,
                        "DDL fails here and is passed over (on_ddl: EXEC_IGNORE): {error}"
                    );
                    self.applier.run(self.batch.reset().as_bytes()).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let Some(token) = &message.event_token else { return Ok(()) };
        self.stream.heard(token.timestamp);
        self.stream.applied(1, 1);
        self.unsaved = Some((Reached { position: token.position.clone(), timestamp: token.timestamp }, Instant::now()));
        let position = read_position(&token.position).map_err(Ended::Source)?;
        let stop_position = &self.rules.stop_position;
        if !stop_position.is_empty() && position.at_least(stop_position) {
            self.save_at(Some(REACHED)).await?;
            return Err(Ended::Stopped);
        }
        self.save().await?;
        // Its tables may be other ones now, among them some that a pattern of the stream names.
        Err(Ended::Anew("tables were altered at the source"))
    }

    /// Waits for the turn of a source transaction. Meanwhile what came before it is not held back.
    async fn throttle(&mut self) -> Result<(), Ended> {
        while !self.pace.try_take() {
            self.commit_whole().await?;
            let due = self.unsaved.as_ref().map(|(_, due)| *due);
            tokio::select! {
                () = self.stop.cancelled() => return Err(Ended::Cancelled),
                () = self.pace.ready() => {}
                () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => self.save().await?,
                () = self.stream.asked.notified() => self.save_if_awaited().await?,
            }
        }
        Ok(())
    }

    async fn commit_whole(&mut self) -> Result<(), Ended> {
        if self.batch.is_whole() && !self.batch.is_empty() { self.commit().await } else { Ok(()) }
    }

    /// Sends a piece of a transaction that is not complete.
    async fn send(&mut self) -> Result<(), Ended> {
        self.drain().await?;
        self.look_again().await?;
        let script = self.batch.take();
        self.execute(&script).await?;
        self.batch.keep(script);
        Ok(())
    }

    /// Makes sure, before a transaction begins, that its changes may be put together.
    async fn look_again(&mut self) -> Result<(), Ended> {
        if self.batch.has_merged() && !self.batch.is_open() && !self.independent.still_are(self.applier).await? {
            return Err(Ended::Anew("tables were altered here"));
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Ended> {
        let was_alone = self.rules.alone > 0;
        self.commit_at(None).await?;
        if was_alone && self.rules.alone == 0 {
            return Err(Ended::Anew("transactions may be put together again"));
        }
        Ok(())
    }

    /// Commits the batch together with the position it reaches. `stop`: the stream ends with it.
    async fn commit_at(&mut self, stop: Option<&str>) -> Result<(), Ended> {
        let Some(reached) = self.batch.reached.clone() else { return Ok(()) };
        self.drain().await?;
        self.look_again().await?;
        self.batch.finish();
        let mut script = self.batch.take();
        script.text().extend_from_slice(self.end_of(&reached, stop).as_bytes());
        let found = Self::found(&self.execute(&script).await?);
        self.unsaved = None;
        self.stream.applied(self.batch.queries, self.batch.transactions);
        self.rules.alone -= self.batch.transactions.min(self.rules.alone);
        self.batch.clear();
        self.stored(&reached, stop, found)
    }

    /// What ends a transaction: its position, and the commit.
    fn end_of(&self, reached: &Reached, stop: Option<&str>) -> String {
        let update = update_position(self.stream.id, &reached.position, unix_now(), reached.timestamp, stop);
        format!("{update};commit")
    }

    /// Whether the row of the stream was there, from the results of a script with [`Self::end_of`].
    fn found(results: &[QueryResult]) -> bool {
        // The update is the last statement but one.
        results.iter().rev().nth(1).is_some_and(|result| result.rows_affected == 1)
    }

    /// Stores a position that came without rows.
    async fn save(&mut self) -> Result<(), Ended> {
        self.save_at(None).await
    }

    /// The same; `stop`: the stream ends with it.
    async fn save_at(&mut self, stop: Option<&str>) -> Result<(), Ended> {
        self.drain().await?;
        let Some((reached, _)) = self.unsaved.take() else { return Ok(()) };
        let update = update_position(self.stream.id, &reached.position, unix_now(), reached.timestamp, stop);
        let results = self.applier.run(update.as_bytes()).await?;
        let found = results.first().is_some_and(|result| result.rows_affected == 1);
        self.stored(&reached, stop, found)
    }

    async fn save_if_awaited(&mut self) -> Result<(), Ended> {
        let awaited = match &self.unsaved {
            Some((reached, _)) => self.stream.is_awaited(&read_position(&reached.position).map_err(Ended::Source)?),
            None => false,
        };
        if awaited { self.save().await } else { Ok(()) }
    }

    fn stored(&mut self, reached: &Reached, stop: Option<&str>, found: bool) -> Result<(), Ended> {
        if !found {
            return Err(Ended::Removed);
        }
        self.moved = true;
        let position = read_position(&reached.position).map_err(Ended::Source)?;
        let state = if stop.is_some() { State::Stopped } else { State::Running };
        self.stream.stored(position, state, stop.unwrap_or_default());
        Ok(())
    }

    /// Runs a script of the open transaction. After a deadlock the transaction is run again from its begin, as long as it
    /// is known.
    async fn execute(&mut self, script: &Script) -> Result<Vec<QueryResult>, Ended> {
        let mut error = match self.applier.run_script(script).await {
            Ok(results) => return Ok(results),
            Err(ApplyError::Mysql(error)) => error,
            Err(other) => return Err(other.into()),
        };
        let mut pause = FIRST_RETRY;
        loop {
            let unchecked = match &error {
                ClientError::Server(error) if is_transient(error) => false,
                // What was put together may be wrong where the changes one by one are not.
                ClientError::Server(_) if self.batch.has_merged() => {
                    self.applier.run(b"rollback").await?;
                    return Err(Ended::OneByOne(error.into()));
                }
                ClientError::Server(fault) if is_foreign_key(fault) => {
                    if self.batch.transactions > 1 {
                        // Without checks nothing cascades, which the others may need.
                        self.applier.run(b"rollback").await?;
                        return Err(Ended::OneByOne(error.into()));
                    }
                    true
                }
                _ => break,
            };
            self.applier.run(b"rollback").await?;
            if self.batch.sent().is_none() {
                break;
            }
            if unchecked {
                tracing::warn!(
                    stream = self.stream.id,
                    "a transaction is applied without foreign key checks, as it would not apply with them: {}",
                    error.mysql()
                );
            } else {
                tracing::info!(stream = self.stream.id, "a transaction is run again: {}", error.mysql());
                tokio::select! {
                    () = self.stop.cancelled() => return Err(Ended::Cancelled),
                    () = sleep(pause.mul_f64(rand::random_range(0.5..1.5))) => {}
                }
                pause = (pause * 2).min(LAST_RETRY);
            }
            match self.replay(script, unchecked).await {
                Ok(results) => return Ok(results),
                // Without checks there is nothing more to try.
                Err(ApplyError::Mysql(again)) if !(unchecked && is_foreign_key(again.mysql())) => error = again,
                Err(other) => return Err(other.into()),
            }
        }
        Err(ApplyError::Mysql(error).into())
    }

    async fn replay(&mut self, script: &Script, unchecked: bool) -> Result<Vec<QueryResult>, ApplyError> {
        self.applier.run(self.batch.reset().as_bytes()).await?;
        if !unchecked {
            return self.replay_scripts(script).await;
        }
        self.applier.run(b"set session foreign_key_checks = 0").await?;
        let done = self.replay_scripts(script).await;
        if !self.applier.is_lost() {
            self.applier.run(b"set session foreign_key_checks = 1").await?;
        }
        done
    }

    async fn replay_scripts(&mut self, script: &Script) -> Result<Vec<QueryResult>, ApplyError> {
        for sent in self.batch.sent().unwrap_or_default() {
            self.applier.run_script(sent).await?;
        }
        self.applier.run_script(script).await
    }
}

/// Reads the stream into the queue, waiting where mysqld is slower.
async fn read_ahead(
    transactions: impl Future<Output = vterrors::Result<Transactions>>,
    sender: mpsc::Sender<vterrors::Result<Arrived>>,
) {
    let room = Arc::new(Semaphore::new(READ_AHEAD));
    let mut transactions = match transactions.await {
        Ok(transactions) => transactions,
        Err(error) => {
            // Nobody listens when the player has ended.
            let _ = sender.send(Err(error)).await;
            return;
        }
    };
    while let Some(next) = transactions.next().await {
        let next = match next {
            Ok(message) => {
                let room_of = |statement: &Statement| {
                    statement.sql.len() + statement.row.as_ref().map_or(0, row_bytes) + STATEMENT_OVERHEAD
                };
                let bytes: usize = message.statements.iter().map(room_of).sum();
                let bytes = u32::try_from(bytes.min(READ_AHEAD)).unwrap_or(u32::MAX);
                // The semaphore is never closed.
                let Ok(room) = room.clone().acquire_many_owned(bytes).await else { return };
                Ok(Arrived { message, _room: room })
            }
            Err(error) => Err(error),
        };
        if sender.send(next).await.is_err() {
            return;
        }
    }
}
