//! A key that says something about this process and goes away with it.
//!
//! Its lease is shorter than those of locks: nobody loses anything when it is lost, and those who
//! count the living should not count the dead for long.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::PutOptions;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Inner, Repeat, lease::Lease, revision};
use crate::{
    conn::{LeasedKey, Version},
    error::{Result, TopoError},
};

/// Longest life of the key after its process died.
const TTL_SECONDS: i64 = 10;

pub(super) struct EtcdLeasedKey {
    inner: Arc<Inner>,
    key: String,
    lease: Mutex<Option<Lease>>,
}

impl EtcdLeasedKey {
    pub(super) fn new(inner: Arc<Inner>, key: String) -> Self {
        Self { inner, key, lease: Mutex::default() }
    }

    async fn put_leased(&self, contents: Bytes, lease: i64) -> Result<Version> {
        // The one writer of this key repeats the same value.
        let answer = self
            .inner
            .call(&self.key, Repeat::Safe, || {
                let (mut kv, key, contents) = (self.inner.kv(), self.key.clone(), contents.clone());
                async move { kv.put(key, contents, Some(PutOptions::new().with_lease(lease))).await }
            })
            .await?;
        Ok(Version(revision(answer.header())))
    }
}

#[async_trait]
impl LeasedKey for EtcdLeasedKey {
    async fn put(&self, contents: Bytes) -> Result<Version> {
        let mut held = self.lease.lock().await;
        if let Some(lease) = held.as_ref().filter(|lease| !lease.is_lost()) {
            match self.put_leased(contents.clone(), lease.id()).await {
                // The server forgot the lease before its keeper heard of it.
                Err(TopoError::NoNode { .. }) => {}
                outcome => return outcome,
            }
        }
        let ttl = TTL_SECONDS.min(self.inner.lease_ttl_seconds);
        let lease = held.insert(Lease::grant_for(&self.inner, &self.key, ttl).await?);
        self.put_leased(contents, lease.id()).await
    }

    async fn lost(&self) {
        let loss = self.lease.lock().await.as_ref().map_or_else(CancellationToken::new, Lease::loss);
        loss.cancelled().await;
    }
}
