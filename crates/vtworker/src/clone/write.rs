//! Writes to the master of one destination shard, tried again when that is safe.
//!
//! Rules: a write is tried again when the master is read-only, gone, not there or silent, for `-retry_duration` in all.
//! A duplicate key is an error on every try, also on one whose predecessor may have taken effect: the row that is there
//! may be another's. Who copies looks at the rows then.
//! Invariants: at most `-destination_writer_count` statements run at once; a statement with [`Writer::guard`] or
//! [`Writer::guarded`] in it has no effect once another clone has claimed the job, and its error ends this one.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use vterrors::{Code, Result, VtError};
use vtproto::query::QueryResult;
use vtproto::topodata::{Tablet, TabletType};

use super::Endpoint;
use super::owner::Owner;
use super::throttle::Throttle;
use crate::env::WorkerEnv;
use crate::rows;
use crate::sql::Dialect;
use crate::tablets::{ShardName, Tablets};

/// Longest one try may take.
const TRY_LIMIT: Duration = Duration::from_secs(120);
/// First pause before a write is tried again; doubled up to `-executefetch_retry_time`.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Whether a write that is run twice does what one run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It does: keys keep rows from being there twice.
    Harmless,
    /// It may not: what has an unknown outcome is an error.
    Doubles,
}

/// The duplicate key of a row.
pub const DUPLICATE_KEY: u32 = 1062;

/// The number of the MySQL error in a text.
pub fn errno(error: &VtError) -> Option<u32> {
    let (_, rest) = error.message().split_once("(errno ")?;
    rest.split_once(')')?.0.parse().ok()
}

/// Why a write may be tried again, as `WorkerRetryCounters` names it.
fn retry_reason(error: &VtError) -> Option<&'static str> {
    match errno(error) {
        Some(1290) => Some("ReadOnly"),
        Some(2002 | 2003 | 2006 | 2013 | 1053) => Some("ConnectionError"),
        // A deadlock or a lock held too long: the statement was rolled back.
        Some(1205 | 1213) => Some("LockError"),
        Some(_) => None,
        None => match error.code() {
            Code::DeadlineExceeded => Some("TimeoutError"),
            Code::Unavailable | Code::Canceled => Some("ConnectionError"),
            Code::FailedPrecondition => Some("NoMasterAvailable"),
            _ => None,
        },
    }
}

/// Whether a write that failed for this reason did certainly nothing.
fn is_rolled_back(reason: &str) -> bool {
    matches!(reason, "ReadOnly" | "LockError" | "NoMasterAvailable")
}

/// One destination shard.
pub struct Writer {
    env: Arc<WorkerEnv>,
    tablets: Arc<Tablets>,
    pub shard: ShardName,
    master: RwLock<Endpoint>,
    slots: Semaphore,
    throttle: Throttle,
    owner: Arc<Owner>,
    guard: String,
}

impl Writer {
    /// Connects to the shard's master, whose statements `owner` guards.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn open(
        env: &Arc<WorkerEnv>,
        tablets: &Arc<Tablets>,
        shard: &ShardName,
        master: &Tablet,
        writers: usize,
        throttle: Throttle,
        owner: &Arc<Owner>,
    ) -> Result<Arc<Self>> {
        let master = Endpoint::connect(env, master, TabletType::Master).await?;
        Ok(Arc::new(Self {
            env: env.clone(),
            tablets: tablets.clone(),
            shard: shard.clone(),
            master: RwLock::new(master),
            slots: Semaphore::new(writers.max(1)),
            throttle,
            owner: owner.clone(),
            guard: owner.guard(),
        }))
    }

    /// Takes the job at this destination: statements that others guarded fail from now on.
    ///
    /// # Errors
    /// The master refuses.
    pub async fn claim(&self) -> Result<()> {
        for sql in self.owner.claim() {
            self.write(sql.as_bytes()).await?;
        }
        Ok(())
    }

    /// An expression that is 1, and an error once another one has claimed the job: for a WHERE clause.
    pub fn guard(&self) -> &str {
        &self.guard
    }

    /// A literal, and an error once another one has claimed the job: for one value of an INSERT.
    pub fn guarded(&self, literal: &[u8]) -> Vec<u8> {
        // The same twice, so that its type is that of the literal.
        [b"if(", self.guard.as_bytes(), b",", literal, b",", literal, b")"].concat()
    }

    /// ABORTED once another one has claimed the job.
    ///
    /// # Errors
    /// That, or the master cannot be asked.
    pub async fn check_owner(&self) -> Result<()> {
        let found = self.owner_found().await?;
        if self.owner.is(&found) { Ok(()) } else { Err(Owner::lost(&found)) }
    }

    /// Who owns the job; empty for nobody.
    async fn owner_found(&self) -> Result<String> {
        match self.master().fetch(self.owner.select()).await {
            Ok(result) => Ok(result.rows.first().map(|row| rows::text(row, 0)).unwrap_or_default()),
            Err(error) if Owner::is_lost(errno(&error), &error) => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// The master as known now.
    pub fn master(&self) -> Endpoint {
        self.master.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub fn dialect(&self) -> Dialect {
        self.master().dialect
    }

    /// `keyspace/shard`
    pub fn name(&self) -> String {
        format!("{}/{}", self.shard.0, self.shard.1)
    }

    /// Runs one statement that may run twice; see the module for when it is tried again.
    ///
    /// # Errors
    /// mysqld's, or the last one when the time for tries is over.
    pub async fn write(&self, sql: &[u8]) -> Result<QueryResult> {
        self.write_with(sql, Repeat::Harmless).await
    }

    /// Runs one statement that writes.
    ///
    /// # Errors
    /// As [`Writer::write`], and that a statement that must not run twice may have run.
    pub async fn write_with(&self, sql: &[u8], repeat: Repeat) -> Result<QueryResult> {
        let _slot = self.slots.acquire().await.map_err(|_| VtError::new(Code::Internal, "the writer is closed"))?;
        let begin = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            self.throttle.wait().await;
            let master = self.master();
            let outcome = match tokio::time::timeout(TRY_LIMIT, master.execute(sql.to_vec())).await {
                Ok(outcome) => outcome,
                Err(_) => Err(VtError::new(Code::DeadlineExceeded, format!("a write took longer than {TRY_LIMIT:?}"))),
            };
            let error = match outcome {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            if Owner::is_lost(errno(&error), &error) {
                return Err(Owner::lost(&self.owner_found().await?));
            }
            let Some(reason) = retry_reason(&error) else { return Err(error) };
            if repeat == Repeat::Doubles && !is_rolled_back(reason) {
                return Err(error.wrap(
                    "the table has no primary key, and whether its rows were written is not known: run the clone again",
                ));
            }
            if begin.elapsed() + pause > self.env.settings.retry_duration {
                return Err(error.wrap(format!("tried for {:?}", begin.elapsed())));
            }
            tracing::warn!("a write to {} is tried again in {pause:?}: {}", self.name(), shortened(error.message()));
            self.env.counters.retries.inc();
            self.env.counters.retries_by_reason.inc(&[reason]);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.env.settings.retry_pause.max(FIRST_PAUSE));
            self.find_master().await;
        }
    }

    /// Takes the master that is healthy now, if there is one: another tablet may have become it.
    async fn find_master(&self) {
        let Some(health) = self.tablets.healthy(&self.shard, TabletType::Master).into_iter().next() else { return };
        if let Ok(master) = Endpoint::connect(&self.env, &health.tablet, TabletType::Master).await {
            *self.master.write().unwrap_or_else(std::sync::PoisonError::into_inner) = master;
        }
    }
}

/// The beginning of a text that may hold a whole statement.
fn shortened(text: &str) -> String {
    if text.chars().count() <= 300 { text.to_owned() } else { text.chars().take(300).chain("…".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_errors_are_tried_again() {
        let error = |text: &str| VtError::new(Code::Unknown, text);
        assert_eq!(errno(&error("Duplicate entry (errno 1062) (sqlstate 23000) during query: x")), Some(1062));
        for (text, reason) in [
            ("read only (errno 1290) (sqlstate HY000)", Some("ReadOnly")),
            ("gone (errno 2006) (sqlstate HY000)", Some("ConnectionError")),
            ("Duplicate entry (errno 1062) (sqlstate 23000)", None),
            ("no such table (errno 1146) (sqlstate 42S02)", None),
        ] {
            assert_eq!(retry_reason(&error(text)), reason, "{text}");
        }
        assert_eq!(retry_reason(&VtError::new(Code::Unavailable, "refused")), Some("ConnectionError"));
        assert!(!is_rolled_back("ConnectionError") && !is_rolled_back("TimeoutError") && is_rolled_back("LockError"));
    }
}
