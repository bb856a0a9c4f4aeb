//! Transactions of one stream on which mysqld works at the same time.
//!
//! A transaction of changed rows is begun on a connection of its own while the one before it still runs, if they have no
//! row in common. It stores its position and commits once the one before it has committed, and is rolled back if that one
//! failed: what the target holds is at any time what the source held at the stored position, as with one connection.
//!
//! Does not own: what is done about one that failed. The player runs it again, and those behind it, on the stream's own
//! connection.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use vterrors::{Code, VtError};

use super::{
    applier::{Applier, ApplyError, LANES},
    batch::Detached,
};

/// What became of a transaction: it has committed, and whether the row of the stream was there then.
pub(super) type Outcome = Result<bool, ApplyError>;

struct Lane {
    number: usize,
    applier: Applier,
}

struct Running {
    number: usize,
    batch: Arc<Detached>,
    task: AbortOnDropHandle<(Lane, Outcome)>,
    /// Tells the next one that this one has committed; dropped without, that it has not.
    committed: Option<oneshot::Receiver<()>>,
}

/// The connections, and the transactions in the order of their commits.
#[derive(Default)]
pub(super) struct Overlap {
    idle: Vec<Lane>,
    running: VecDeque<Running>,
}

impl Overlap {
    /// Whether the oldest one has to end before this one may begin.
    pub fn has_to_wait(&self, batch: &Detached) -> bool {
        self.running.len() == LANES || self.running.iter().any(|other| other.batch.touched.may_meet(&batch.touched))
    }

    /// Begins a transaction: `batch` first, and in its turn `end`, which commits it.
    ///
    /// # Errors
    /// There is no connection for it; it was not begun.
    pub async fn start(&mut self, main: &Applier, batch: Arc<Detached>, end: String) -> Result<(), ApplyError> {
        let lane = match self.idle.pop() {
            Some(lane) => lane,
            None => {
                let taken = |number: &usize| self.running.iter().any(|running| running.number == *number);
                let number = (1..=LANES).find(|number| !taken(number)).unwrap_or(LANES);
                Lane { number, applier: main.beside(number).await? }
            }
        };
        let number = lane.number;
        let (sender, committed) = oneshot::channel();
        let before = self.running.back_mut().and_then(|last| last.committed.take());
        let task = AbortOnDropHandle::new(tokio::spawn(transaction(lane, batch.clone(), end, before, sender)));
        self.running.push_back(Running { number, batch, task, committed: Some(committed) });
        Ok(())
    }

    /// Waits until the oldest one has ended. `None`: none runs. It may be dropped and called again.
    pub async fn next(&mut self) -> Option<(Arc<Detached>, Outcome)> {
        let ended = (&mut self.running.front_mut()?.task).await;
        let Running { batch, .. } = self.running.pop_front()?;
        let outcome = match ended {
            Ok((lane, outcome)) => {
                if !lane.applier.is_lost() {
                    self.idle.push(lane);
                }
                outcome
            }
            Err(panic) => Err(VtError::new(Code::Internal, format!("applying a transaction: {panic}")).into()),
        };
        Some((batch, outcome))
    }

    /// Closes the connections that nothing runs on.
    pub async fn close(&mut self) {
        for lane in self.idle.drain(..) {
            lane.applier.close().await;
        }
    }
}

async fn transaction(
    mut lane: Lane,
    batch: Arc<Detached>,
    end: String,
    before: Option<oneshot::Receiver<()>>,
    committed: oneshot::Sender<()>,
) -> (Lane, Outcome) {
    let outcome = run(&mut lane.applier, &batch, &end, before).await;
    match &outcome {
        // Nobody listens when it is the last one.
        Ok(true) => drop(committed.send(())),
        Ok(false) => {}
        Err(_) if lane.applier.is_lost() => {}
        // One that does not roll back is closed, which does.
        Err(_) => drop(lane.applier.run(b"rollback").await),
    }
    (lane, outcome)
}

async fn run(applier: &mut Applier, batch: &Detached, end: &str, before: Option<oneshot::Receiver<()>>) -> Outcome {
    applier.run_script(&batch.script).await?;
    if let Some(before) = before
        && before.await.is_err()
    {
        return Err(VtError::new(Code::Aborted, "the transaction before it has failed").into());
    }
    let results = applier.run(end.as_bytes()).await?;
    Ok(results.first().is_some_and(|result| result.rows_affected == 1))
}
