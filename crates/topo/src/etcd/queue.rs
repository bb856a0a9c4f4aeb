//! Locks and elections: queues of leased keys in which the lowest revision is the owner.
//!
//! Each waiter watches its immediate predecessor only. The key of a waiter or owner is
//! `<dir>/locks/<lease id in decimal>`; it goes away with its lease.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use etcd_client::{GetOptions, SortOrder, SortTarget, WatchOptions};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Inner, create_leased, lease::Lease, revision};
use crate::{
    conn::{LockDescriptor, MasterParticipation},
    error::{Result, TopoError},
    paths::LOCKS_DIR,
};

/// A waiter looks again after this time even if its watch is silent.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Pause of a waiter whose watch broke.
const WATCH_PAUSE: Duration = Duration::from_millis(200);

/// A place at the head of a queue: the lock itself. Dropping it gives it up in the background.
pub(super) struct Place {
    inner: Arc<Inner>,
    /// Always there until the place is released.
    lease: Lease,
    key: String,
}

impl Place {
    /// Queues up and waits until every earlier place is gone. Dropping the future leaves the queue.
    pub(super) async fn take(inner: &Arc<Inner>, dir: &str, contents: &str) -> Result<Self> {
        let lease = Lease::grant(inner, dir).await?;
        let prefix = format!("{dir}/{LOCKS_DIR}/");
        let key = format!("{prefix}{}", lease.id());
        let own_revision = create_leased(inner, &key, contents, lease.id()).await?;
        let place = Self { inner: inner.clone(), lease, key };
        let mut waited = false;
        while let Some((predecessor, seen_at)) = place.predecessor(&prefix, own_revision).await? {
            if place.lease.is_lost() {
                return Err(TopoError::LockLost { path: place.key.clone() });
            }
            waited = true;
            place.wait_for_change(&predecessor, seen_at).await;
        }
        // During a long wait the own key may have gone with its lease.
        if waited && place.inner.get(&place.key, None).await?.kvs().is_empty() {
            return Err(TopoError::LockLost { path: place.key.clone() });
        }
        Ok(place)
    }

    /// The youngest key older than the own one, and the revision at which it was seen.
    async fn predecessor(&self, prefix: &str, own_revision: i64) -> Result<Option<(Vec<u8>, i64)>> {
        let options = GetOptions::new()
            .with_prefix()
            .with_keys_only()
            .with_sort(SortTarget::Mod, SortOrder::Descend)
            .with_limit(1)
            .with_max_mod_revision(own_revision - 1);
        let mut answer = self.inner.get(prefix, Some(options)).await?;
        let seen_at = revision(answer.header());
        Ok(answer.take_kvs().pop().map(|kv| (kv.into_key_value().0, seen_at)))
    }

    /// Waits for the first change of a key after a revision; returns also if that cannot be watched.
    async fn wait_for_change(&self, key: &[u8], seen_at: i64) {
        let changed = async {
            let options = WatchOptions::new().with_start_revision(seen_at + 1);
            let mut watch = self.inner.client.watch_client();
            let mut stream = watch.watch(key, Some(options)).await?;
            loop {
                match stream.message().await? {
                    Some(answer) if answer.events().is_empty() && !answer.canceled() => {}
                    _ => return Ok::<_, etcd_client::Error>(()),
                }
            }
        };
        if let Ok(Err(error)) = tokio::time::timeout(LOOK_AGAIN, changed).await {
            debug!(%error, "the watch of a lock's predecessor broke");
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }
}

#[async_trait]
impl LockDescriptor for Place {
    async fn check(&self) -> Result<()> {
        self.lease.check(&self.key).await
    }

    fn is_lost(&self) -> bool {
        self.lease.is_lost()
    }

    async fn unlock(self: Box<Self>) -> Result<()> {
        let place = *self;
        place.lease.release(&place.key).await
    }
}

/// One candidate of an election.
pub(super) struct Candidate {
    inner: Arc<Inner>,
    dir: String,
    id: String,
    stop: CancellationToken,
    /// The task which holds the mastership, to be waited for by `stop`.
    holding: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Candidate {
    pub(super) fn new(inner: Arc<Inner>, dir: String, id: &str) -> Self {
        let (id, stop) = (id.to_owned(), CancellationToken::new());
        Self { inner, dir, id, stop, holding: Mutex::default() }
    }

    fn set_holding(&self, holding: Option<tokio::task::JoinHandle<()>>) -> Option<tokio::task::JoinHandle<()>> {
        std::mem::replace(&mut *self.holding.lock().unwrap_or_else(PoisonError::into_inner), holding)
    }
}

#[async_trait]
impl MasterParticipation for Candidate {
    async fn wait_for_mastership(&self) -> Result<CancellationToken> {
        let elected = async {
            loop {
                match Place::take(&self.inner, &self.dir, &self.id).await {
                    Ok(place) => return place,
                    Err(error) => {
                        warn!(election = self.dir, %error, "cannot take part in the election; trying again");
                        tokio::time::sleep(WATCH_PAUSE * 5).await;
                    }
                }
            }
        };
        let interrupted = || TopoError::Interrupted { path: self.dir.clone() };
        let place = self.stop.run_until_cancelled(elected).await.ok_or_else(interrupted)?;
        let mastership = CancellationToken::new();
        let (lost, stop, dir) = (mastership.clone(), self.stop.clone(), self.dir.clone());
        let holding = tokio::spawn(async move {
            stop.run_until_cancelled(place.lease.lost()).await;
            lost.cancel();
            if let Err(error) = Box::new(place).unlock().await {
                debug!(election = dir, %error, "mastership was not given back");
            }
        });
        self.set_holding(Some(holding));
        Ok(mastership)
    }

    async fn stop(&self) {
        self.stop.cancel();
        if let Some(holding) = self.set_holding(None) {
            // It ends within the bound of a call; a panic there is already logged.
            let _ = holding.await;
        }
    }

    async fn get_current_master_id(&self) -> Result<String> {
        let prefix = format!("{}/", self.dir);
        let options = GetOptions::new().with_prefix().with_sort(SortTarget::Mod, SortOrder::Ascend).with_limit(1);
        let answer = self.inner.get(&prefix, Some(options)).await?;
        Ok(answer.kvs().first().map(|kv| String::from_utf8_lossy(kv.value()).into_owned()).unwrap_or_default())
    }
}
