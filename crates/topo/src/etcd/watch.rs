//! Watches of one key that go on when etcd restarts, is away, or has forgotten old revisions.
//!
//! Invariants: no change after the first value is missed, except values that were overwritten before
//! they could be read; a watch ends only when its key is deleted or its reader is gone.

use std::{sync::Arc, time::Duration};

use etcd_client::{EventType, WatchOptions, WatchResponse};
use rand::Rng;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{Inner, MAX_ANSWER_BYTES, revision};
use crate::{
    conn::{Version, WatchData, WatchStream},
    error::{Result, TopoError},
};

/// Changes a reader may be behind before the stream from etcd is no longer read.
const QUEUE: usize = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Reads the key and follows it from there.
pub(super) async fn start(inner: &Arc<Inner>, key: String) -> Result<(WatchData, WatchStream)> {
    let Some((current, seen)) = read(inner, &key).await? else { return Err(TopoError::NoNode { path: key }) };
    let (changes, changed) = mpsc::channel(QUEUE);
    let stop = CancellationToken::new();
    let follower = Follower { inner: inner.clone(), key, changes, next: seen + 1, last: current.version };
    tokio::spawn(stop.clone().run_until_cancelled_owned(follower.run()));
    Ok((current, WatchStream::new(changed, stop)))
}

/// The value of a key and the revision at which it was read.
async fn read(inner: &Inner, key: &str) -> Result<Option<(WatchData, i64)>> {
    let mut answer = inner.get(key, None).await?;
    let seen = revision(answer.header());
    Ok(answer.take_kvs().pop().map(|kv| {
        let version = Version(kv.mod_revision());
        (WatchData { contents: kv.into_key_value().1.into(), version }, seen)
    }))
}

struct Follower {
    inner: Arc<Inner>,
    key: String,
    changes: mpsc::Sender<Result<WatchData>>,
    /// The first revision that was not seen yet.
    next: i64,
    /// Version of the last value that was passed on.
    last: Version,
}

/// What has to be done next.
enum Step {
    /// Read on from the stream.
    GoOn,
    /// Make a new stream from the first unseen revision.
    Reopen,
    /// The revisions that were not seen are gone: read the value itself.
    Resync,
    /// The reader is gone or was told of the deletion.
    End,
}

impl Follower {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let step = match self.follow(&mut pause).await {
                Ok(step) => step,
                Err(error) => {
                    debug!(key = self.key, %error, "a watch broke");
                    Step::Reopen
                }
            };
            match step {
                Step::End => return,
                Step::Resync => {
                    if matches!(self.resync().await, Step::End) {
                        return;
                    }
                }
                Step::GoOn | Step::Reopen => {}
            }
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Follows one stream until it breaks.
    async fn follow(&mut self, pause: &mut Duration) -> Result<Step, etcd_client::Error> {
        let options = WatchOptions::new().with_start_revision(self.next).with_progress_notify();
        let mut client = self.inner.client.watch_client().max_decoding_message_size(MAX_ANSWER_BYTES);
        let opened = tokio::time::timeout(self.inner.timeout, client.watch(self.key.as_str(), Some(options))).await;
        let Ok(opened) = opened else { return Ok(Step::Reopen) };
        let mut stream = opened?;
        loop {
            let Some(answer) = stream.message().await? else { return Ok(Step::Reopen) };
            *pause = FIRST_PAUSE;
            match self.take(answer).await {
                Step::GoOn => {}
                step => return Ok(step),
            }
        }
    }

    async fn take(&mut self, answer: WatchResponse) -> Step {
        let revision = revision(answer.header());
        if answer.compact_revision() != 0 {
            info!(key = self.key, compacted = answer.compact_revision(), "etcd compacted unseen revisions");
            return Step::Resync;
        }
        if answer.created() {
            // A server behind what was already seen has lost its data and starts anew.
            return if revision + 1 < self.next { Step::Resync } else { Step::GoOn };
        }
        if answer.canceled() {
            info!(key = self.key, reason = answer.cancel_reason(), "etcd cancelled a watch");
            return Step::Reopen;
        }
        if answer.events().is_empty() {
            self.next = self.next.max(revision + 1);
            return Step::GoOn;
        }
        for event in answer.events() {
            let Some(kv) = event.kv() else { continue };
            self.next = kv.mod_revision() + 1;
            if event.event_type() == EventType::Delete {
                return self.deleted().await;
            }
            let version = Version(kv.mod_revision());
            if matches!(self.pass_on(WatchData { contents: kv.value().to_vec().into(), version }).await, Step::End) {
                return Step::End;
            }
        }
        Step::GoOn
    }

    async fn resync(&mut self) -> Step {
        match read(&self.inner, &self.key).await {
            Ok(Some((data, seen))) => {
                self.next = seen + 1;
                if data.version == self.last {
                    return Step::Reopen;
                }
                match self.pass_on(data).await {
                    Step::End => Step::End,
                    _ => Step::Reopen,
                }
            }
            Ok(None) => self.deleted().await,
            // Tried again when the new stream says the same.
            Err(_) => Step::Reopen,
        }
    }

    async fn pass_on(&mut self, data: WatchData) -> Step {
        self.last = data.version;
        match self.changes.send(Ok(data)).await {
            Ok(()) => Step::GoOn,
            Err(_) => Step::End,
        }
    }

    async fn deleted(&mut self) -> Step {
        // A reader that is gone does not miss it.
        let _ = self.changes.send(Err(TopoError::NoNode { path: self.key.clone() })).await;
        Step::End
    }
}
