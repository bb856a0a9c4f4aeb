//! Identical reads that run at the same time share one execution.
//!
//! Invariants: a read joins another only if no write has ended on this tablet since the other began,
//! so that a client always sees its own writes (unlike Vitess v5.0.1, which joins regardless). If the
//! leader goes away without a result, its followers run the statement themselves. So they do when its result becomes too
//! large to be held ([`Outgrowing`]): nobody waits for a client that reads slowly.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tabletclient::RowSink;
use tokio::sync::watch;
use vterrors::VtError;
use vtproto::query::QueryResult;

use super::error::ExecError;
use super::live::lock;

/// What a leader tells its followers.
pub type Shared = Result<Arc<QueryResult>, ExecError>;

/// A read that can be joined. The channel is made by the first who joins: most reads are alone.
#[derive(Debug)]
struct Running {
    epoch: u64,
    followers: Option<watch::Sender<Option<Shared>>>,
}

/// Most different statements whose joins are remembered for the page.
const REMEMBERED: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub struct Consolidator {
    running: Mutex<HashMap<Bytes, Running>>,
    epoch: AtomicU64,
    joins: Mutex<HashMap<String, u64>>,
}

/// The part a caller plays.
#[derive(Debug)]
pub enum Part<'a> {
    /// Runs the statement and tells the others.
    Leader(Leader<'a>),
    /// Waits for the leader's outcome.
    Follower(watch::Receiver<Option<Shared>>),
    /// Runs it for itself.
    Alone,
}

/// The one who runs a shared statement.
#[derive(Debug)]
pub struct Leader<'a> {
    consolidator: &'a Consolidator,
    /// Empty once the entry is removed.
    key: Mutex<Bytes>,
}

/// The way of a leader's rows to its caller: with the first of them the sharing ends.
pub struct Outgrowing<'a> {
    pub leader: &'a Leader<'a>,
    pub sink: &'a dyn RowSink,
}

#[async_trait::async_trait]
impl RowSink for Outgrowing<'_> {
    async fn piece(&self, piece: QueryResult) -> Result<(), VtError> {
        drop(self.leader.leave());
        self.sink.piece(piece).await
    }

    fn has_begun(&self) -> bool {
        self.sink.has_begun()
    }
}

impl Consolidator {
    /// A write has ended: reads that began before it cannot be joined any more.
    pub fn written(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Joins a running read of the same bytes, or becomes the one to be joined.
    pub fn join(&self, sql: &Bytes, shown: &str) -> Part<'_> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let mut running = lock(&self.running);
        match running.get_mut(sql) {
            Some(other) if other.epoch == epoch => {
                let outcome = other.followers.get_or_insert_with(|| watch::channel(None).0).subscribe();
                drop(running);
                let mut joins = lock(&self.joins);
                if joins.len() < REMEMBERED || joins.contains_key(shown) {
                    *joins.entry(shown.to_owned()).or_default() += 1;
                }
                Part::Follower(outcome)
            }
            Some(_) => Part::Alone,
            None => {
                running.insert(sql.clone(), Running { epoch, followers: None });
                Part::Leader(Leader { consolidator: self, key: Mutex::new(sql.clone()) })
            }
        }
    }

    /// Statements that were joined, and how often, most often first.
    pub fn joins(&self) -> Vec<(String, u64)> {
        let mut joins: Vec<(String, u64)> = lock(&self.joins).iter().map(|(sql, n)| (sql.clone(), *n)).collect();
        joins.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        joins
    }
}

impl Leader<'_> {
    /// Ends the sharing: no one joins any more, and those who did get the outcome. Without followers
    /// the result comes back as it was, not copied.
    pub fn finish(self, outcome: Result<QueryResult, ExecError>) -> Result<QueryResult, ExecError> {
        let Some(followers) = self.leave() else { return outcome };
        let shared = outcome.map(Arc::new);
        followers.send_replace(Some(shared.clone()));
        shared.map(|result| result.as_ref().clone())
    }

    /// Once it has left, the entry of its key may be another leader's.
    fn leave(&self) -> Option<watch::Sender<Option<Shared>>> {
        let key = std::mem::take(&mut *lock(&self.key));
        if key.is_empty() {
            return None;
        }
        lock(&self.consolidator.running).remove(&key)?.followers
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        // In a dropped future the entry must not stay; the followers see that the sender is gone.
        self.leave();
    }
}

/// Waits for a leader; `None` when it went away without a result.
pub async fn follow(mut outcome: watch::Receiver<Option<Shared>>) -> Option<Shared> {
    let shared = outcome.wait_for(Option::is_some).await.ok()?;
    shared.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(rows: u64) -> QueryResult {
        QueryResult { rows_affected: rows, ..QueryResult::default() }
    }

    #[tokio::test]
    async fn followers_get_the_leaders_result() {
        let consolidator = Consolidator::default();
        let Part::Leader(leader) = consolidator.join(&Bytes::from_static(b"select 1"), "select 1") else {
            panic!("first")
        };
        let Part::Follower(follower) = consolidator.join(&Bytes::from_static(b"select 1"), "select 1") else {
            panic!("second")
        };
        assert!(matches!(consolidator.join(&Bytes::from_static(b"select 2"), "select 2"), Part::Leader(_)));
        assert_eq!(leader.finish(Ok(result(3))), Ok(result(3)));
        let shared = follow(follower).await.expect("an outcome").expect("a result");
        assert_eq!(*shared, result(3));
        assert_eq!(consolidator.joins(), [("select 1".to_owned(), 1)]);
        assert!(matches!(consolidator.join(&Bytes::from_static(b"select 1"), "select 1"), Part::Leader(_)));
    }

    #[tokio::test]
    async fn a_read_after_a_write_is_not_joined_to_one_before_it() {
        let consolidator = Consolidator::default();
        let Part::Leader(leader) = consolidator.join(&Bytes::from_static(b"select 1"), "select 1") else {
            panic!("first")
        };
        consolidator.written();
        assert!(matches!(consolidator.join(&Bytes::from_static(b"select 1"), "select 1"), Part::Alone));
        leader.finish(Ok(result(0))).expect("a result");
    }

    #[tokio::test]
    async fn a_leader_that_goes_away_leaves_nobody_waiting() {
        let consolidator = Consolidator::default();
        let Part::Leader(leader) = consolidator.join(&Bytes::from_static(b"select 1"), "select 1") else {
            panic!("first")
        };
        let Part::Follower(follower) = consolidator.join(&Bytes::from_static(b"select 1"), "select 1") else {
            panic!("second")
        };
        drop(leader);
        assert_eq!(follow(follower).await, None);
        assert!(matches!(consolidator.join(&Bytes::from_static(b"select 1"), "select 1"), Part::Leader(_)));
    }

    /// Takes everything.
    struct Taker;

    #[async_trait::async_trait]
    impl RowSink for Taker {
        async fn piece(&self, _: QueryResult) -> Result<(), VtError> {
            Ok(())
        }

        fn has_begun(&self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn a_result_that_becomes_large_is_not_shared() {
        let consolidator = Consolidator::default();
        let sql = Bytes::from_static(b"select 1");
        let Part::Leader(leader) = consolidator.join(&sql, "select 1") else { panic!("first") };
        let Part::Follower(follower) = consolidator.join(&sql, "select 1") else { panic!("second") };
        Outgrowing { leader: &leader, sink: &Taker }.piece(result(0)).await.expect("taken");
        assert_eq!(follow(follower).await, None, "it reads for itself");
        let Part::Leader(next) = consolidator.join(&sql, "select 1") else { panic!("nobody to join") };
        assert_eq!(leader.finish(Ok(result(9))), Ok(result(9)));
        let Part::Follower(_) = consolidator.join(&sql, "select 1") else { panic!("the entry is the next leader's") };
        drop(next);
    }
}
