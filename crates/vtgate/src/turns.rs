//! Rows of several shards on their way to one client, one shard behind the other.
//!
//! Owns: whose turn it is, and the rows of shards that have ended as long as they are few. Does not own: the calls
//! (`scatter.rs`), nor how a client takes rows.
//! Invariants: between two pieces of a shard comes nothing of another, for a row may go on from one to the next. Statements
//! wait for shards in their one order, so that of two that hold connections of the same shards one always gets on. Of
//! shards that have ended and whose turn it was, no more than [`HELD`] bytes and one result are held.

use std::sync::atomic::{AtomicBool, Ordering};

use mysql::raw_rows;
use tabletclient::RowSink;
use tokio::sync::{Mutex, watch};
use vterrors::{Code, Result, VtError};
use vtproto::query::QueryResult;

/// Bytes of rows up to which results of shards that came whole become one.
const HELD: usize = 1 << 20;

/// See the module.
pub struct Turns<'a> {
    sink: &'a dyn RowSink,
    /// The number of the shard whose rows come now.
    now: watch::Sender<usize>,
    held: Mutex<QueryResult>,
}

/// What one shard passes its rows to.
pub struct Turn<'a> {
    turns: &'a Turns<'a>,
    number: usize,
    begun: AtomicBool,
}

impl<'a> Turns<'a> {
    pub fn new(sink: &'a dyn RowSink) -> Self {
        Self { sink, now: watch::Sender::new(0), held: Mutex::default() }
    }

    /// The turn of a shard, which comes when all those of smaller numbers have ended.
    pub fn of(&'a self, number: usize) -> Turn<'a> {
        Turn { turns: self, number, begun: AtomicBool::new(false) }
    }

    /// The end of all rows, with their number.
    pub async fn take_last(&self) -> QueryResult {
        std::mem::take(&mut *self.held.lock().await)
    }

    async fn pass_on(&self, held: &mut QueryResult) -> Result<()> {
        if !has_rows(held) {
            return Ok(());
        }
        let piece = QueryResult {
            fields: held.fields.clone(),
            raw_rows: std::mem::take(&mut held.raw_rows),
            rows: std::mem::take(&mut held.rows),
            ..QueryResult::default()
        };
        self.sink.piece(piece).await
    }
}

impl Turn<'_> {
    /// Waits until it comes.
    async fn comes(&self) {
        // The sender lives as long as this does.
        let _ = self.turns.now.subscribe().wait_for(|now| *now == self.number).await;
    }

    /// Ends it, when it has come, with the shard's result or the end of it.
    ///
    /// # Errors
    /// The sink's; INTERNAL for rows that are not what the fields say.
    pub async fn end(&self, result: QueryResult) -> Result<()> {
        self.comes().await;
        let turns = self.turns;
        let mut held = turns.held.lock().await;
        // Rows that a tablet of another make has taken apart are held as long as that is possible.
        let is_large = held.raw_rows.len() + result.raw_rows.len() > HELD;
        if has_rows(&result) && (is_large || turns.sink.has_begun()) {
            turns.pass_on(&mut held).await?;
        }
        put_behind(&mut held, result)?;
        drop(held);
        turns.now.send_modify(|now| *now += 1);
        Ok(())
    }
}

#[async_trait::async_trait]
impl RowSink for Turn<'_> {
    async fn piece(&self, piece: QueryResult) -> Result<()> {
        self.comes().await;
        let turns = self.turns;
        // A statement that fails before is run again, as if it had not begun.
        self.begun.store(true, Ordering::Relaxed);
        let mut held = turns.held.lock().await;
        turns.pass_on(&mut held).await?;
        turns.sink.piece(piece).await
    }

    /// Of this shard: another's rows do not keep its statement from being run again.
    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }
}

fn has_rows(result: &QueryResult) -> bool {
    !result.raw_rows.is_empty() || !result.rows.is_empty()
}

/// Puts the result of a shard behind those of others.
///
/// # Errors
/// INTERNAL for rows that are not what the fields say.
pub fn put_behind(all: &mut QueryResult, mut result: QueryResult) -> Result<()> {
    if all.fields.is_empty() {
        all.fields = std::mem::take(&mut result.fields);
    }
    if all.insert_id == 0 {
        all.insert_id = result.insert_id;
    }
    raw_rows::extend(all, result).map_err(|error| VtError::new(Code::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use bytes::Bytes;
    use vtproto::query::Field;

    use super::*;

    /// What a client was given.
    #[derive(Default)]
    struct Client(StdMutex<Vec<u8>>);

    #[async_trait::async_trait]
    impl RowSink for Client {
        async fn piece(&self, piece: QueryResult) -> Result<()> {
            assert!(!piece.fields.is_empty());
            self.0.lock().expect("no panic").extend_from_slice(&piece.raw_rows);
            Ok(())
        }

        fn has_begun(&self) -> bool {
            !self.0.lock().expect("no panic").is_empty()
        }
    }

    /// One row of this letter.
    fn rows(letter: u8, size: usize) -> QueryResult {
        let mut raw = vec![(size & 0xff) as u8, (size >> 8) as u8, (size >> 16) as u8, 0];
        raw.resize(4 + size, letter);
        QueryResult {
            fields: vec![Field::default()],
            raw_rows: Bytes::from(raw),
            rows_affected: 1,
            ..QueryResult::default()
        }
    }

    fn letters(raw: &[u8]) -> String {
        let mut letters: Vec<u8> = raw.iter().copied().filter(u8::is_ascii_lowercase).collect();
        letters.dedup();
        String::from_utf8(letters).expect("letters")
    }

    #[tokio::test]
    async fn shards_come_one_behind_the_other() {
        let client = Client::default();
        let turns = Turns::new(&client);
        let (second, third) = (turns.of(1), turns.of(2));
        let mut pieces = std::pin::pin!(async {
            // The larger number is asked first.
            tokio::join!(biased; third.piece(rows(b'c', 10)), second.piece(rows(b'b', 10)))
        });
        assert!(futures::poll!(&mut pieces).is_pending());
        assert!(!second.has_begun() && !client.has_begun(), "another tablet may still be asked");
        turns.of(0).end(rows(b'a', 10)).await.expect("held");
        assert!(!client.has_begun());
        assert!(futures::poll!(&mut pieces).is_pending());
        assert_eq!(letters(&client.0.lock().expect("no panic")), "ab");
        assert!(second.has_begun() && !third.has_begun());
        turns.of(1).end(rows(b'b', 5)).await.expect("held");
        let (third, second) = pieces.await;
        third.and(second).expect("taken");
        turns.of(2).end(rows(b'c', 5)).await.expect("held");
        let last = turns.take_last().await;
        assert_eq!((letters(&client.0.lock().expect("no panic")), letters(&last.raw_rows)), ("abc".into(), "c".into()));
        assert_eq!(last.rows_affected, 3);
    }

    #[tokio::test]
    async fn few_rows_stay_whole() {
        let client = Client::default();
        let turns = Turns::new(&client);
        for (number, letter) in b"ab".iter().enumerate() {
            turns.of(number).end(rows(*letter, HELD / 2 - 100)).await.expect("held");
        }
        assert!(!client.has_begun());
        turns.of(2).end(rows(b'c', 200)).await.expect("passed on");
        assert_eq!(letters(&client.0.lock().expect("no panic")), "ab");
        turns
            .of(3)
            .end(QueryResult { fields: vec![Field::default()], ..QueryResult::default() })
            .await
            .expect("no rows");
        let last = turns.take_last().await;
        assert_eq!((letters(&last.raw_rows).as_str(), last.rows_affected), ("c", 3));
    }
}
