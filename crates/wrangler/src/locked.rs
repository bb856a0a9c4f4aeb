//! Running something under a lock and releasing the lock whatever happened.
//!
//! Macros over async blocks: an async closure over the guard would not be `Send` in the eyes of the
//! compiler.

use topo::TopoError;

use crate::error::Result;

/// The first failure of the work and of the unlocking.
pub(crate) fn finish(outcome: Result, unlocked: Result<(), TopoError>) -> Result {
    outcome?;
    Ok(unlocked?)
}

/// Takes the lock of a keyspace, runs the block, releases the lock.
macro_rules! with_keyspace_lock {
    ($wr:expr, $keyspace:expr, $action:expr, |$lock:ident| $body:block) => {{
        let guard = $wr.topo().lock_keyspace($keyspace, $action).await?;
        let $lock = &guard;
        let outcome: $crate::error::Result = async { $body }.await;
        $crate::locked::finish(outcome, guard.unlock().await)
    }};
}

/// Takes the lock of a shard, runs the block, releases the lock.
macro_rules! with_shard_lock {
    ($wr:expr, $keyspace:expr, $shard:expr, $action:expr, |$lock:ident| $body:block) => {{
        let guard = $wr.topo().lock_shard($keyspace, $shard, $action).await?;
        let $lock = &guard;
        let outcome: $crate::error::Result = async { $body }.await;
        $crate::locked::finish(outcome, guard.unlock().await)
    }};
}
pub(crate) use {with_keyspace_lock, with_shard_lock};
