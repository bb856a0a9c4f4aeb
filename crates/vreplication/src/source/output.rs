//! The way from a streamer to its reader.
//!
//! Invariant: what waits there is bounded in bytes; a full way makes the streamer wait, and with it the binlog.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use vtproto::binlogdata::BinlogTransaction;

/// Bytes that may wait for the reader. One message may be larger; it then waits alone.
const BUDGET: usize = 4 << 20;
/// Messages that may wait: most are small.
const MESSAGES: usize = 256;
/// The unit in which bytes are counted.
const UNIT: usize = 256;

/// Nobody reads any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// A message, and its share of the bytes that may wait.
#[derive(Debug)]
struct Waiting {
    transaction: BinlogTransaction,
    _share: OwnedSemaphorePermit,
}

/// Where a streamer puts its messages.
#[derive(Debug, Clone)]
pub struct Output {
    sender: mpsc::Sender<Waiting>,
    budget: Arc<Semaphore>,
}

/// Where they come out.
#[derive(Debug)]
pub struct Input {
    receiver: mpsc::Receiver<Waiting>,
}

/// A way for the messages of one stream.
pub fn channel() -> (Output, Input) {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    (Output { sender, budget: Arc::new(Semaphore::new(BUDGET / UNIT)) }, Input { receiver })
}

impl Output {
    /// Waits until there is room.
    pub async fn send(&self, transaction: BinlogTransaction, bytes: usize) -> Result<(), Gone> {
        let units = bytes.div_ceil(UNIT).clamp(1, BUDGET / UNIT) as u32;
        let share = tokio::select! {
            share = self.budget.clone().acquire_many_owned(units) => share.map_err(|_| Gone)?,
            () = self.sender.closed() => return Err(Gone),
        };
        self.sender.send(Waiting { transaction, _share: share }).await.map_err(|_| Gone)
    }

    /// Resolves when nobody reads any more.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }
}

impl Input {
    /// The next message; `None` when the streamer has ended.
    pub async fn next(&mut self) -> Option<BinlogTransaction> {
        self.receiver.recv().await.map(|waiting| waiting.transaction)
    }
}
