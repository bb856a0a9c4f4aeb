//! The ids of one sequence table that this tablet holds in memory.
//!
//! Invariants: an id is handed out once. Ids are served from a range that was reserved by moving the
//! stored `next_id` past it in a committed transaction; a range whose commit failed is not used.

use std::sync::Mutex;

use vtproto::query::{Field, QueryResult, Row, Type};

use super::live::lock;

/// The range in hand: `next..end`. Empty until the first reservation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Range {
    next: i64,
    end: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Sequence {
    range: Mutex<Range>,
    /// Held by the one who reserves; the others wait for its result. Its statements have deadlines.
    pub reserving: tokio::sync::Mutex<()>,
}

/// What a reservation has to store.
#[derive(Debug, PartialEq, Eq)]
pub struct Reservation {
    range: Range,
    /// What was in hand before.
    before: Range,
    /// The new `next_id`.
    pub stored: i64,
}

impl Sequence {
    /// `count` ids from the range in hand, the first of them returned; `None` when it does not hold that many.
    pub fn take(&self, count: i64) -> Option<i64> {
        let mut range = lock(&self.range);
        let after = range.next.checked_add(count)?;
        if range.next == 0 || after > range.end {
            return None;
        }
        let first = range.next;
        range.next = after;
        Some(first)
    }

    /// How far the stored `next_id` has to move so that `count` ids can be taken, in steps of `cache`.
    ///
    /// `stored` differs from the end of the range in hand when the tablet has just started, or when
    /// somebody changed the row; ids that were handed out are not handed out again. What is left in hand belongs to
    /// the reservation until [`Sequence::commit`] or [`Sequence::abandon`]: nobody else is given any of it. A
    /// reservation that is dropped loses it.
    pub fn reserve(&self, stored: i64, cache: i64, count: i64) -> Option<Reservation> {
        let mut in_hand = lock(&self.range);
        let before = *in_hand;
        let mut range = before;
        let mut from = stored;
        if range.end != stored {
            if stored < range.end {
                tracing::warn!("sequence: stored next_id {stored} is below {}, which was handed out", range.end);
                from = range.end;
            }
            range = Range { next: from, end: from };
        }
        let needed = range.next.checked_add(count)?;
        let missing = needed.checked_sub(from)?.max(1);
        let steps = missing.checked_add(cache - 1)? / cache;
        let stored = from.checked_add(steps.checked_mul(cache)?)?;
        in_hand.next = in_hand.end;
        Some(Reservation { range: Range { next: range.next, end: stored }, before, stored })
    }

    /// The reservation is committed: the first of `count` ids of it, which are as many as were asked for.
    pub fn commit(&self, reservation: Reservation, count: i64) -> i64 {
        let Range { next, end } = reservation.range;
        *lock(&self.range) = Range { next: next.saturating_add(count).min(end), end };
        next
    }

    /// The reservation is not committed: what was in hand before still is.
    pub fn abandon(&self, reservation: Reservation) {
        let mut in_hand = lock(&self.range);
        if in_hand.next == in_hand.end && in_hand.end == reservation.before.end {
            *in_hand = reservation.before;
        }
    }

    /// Forgets the range: another tablet may have become the one that hands out ids.
    pub fn reset(&self) {
        *lock(&self.range) = Range::default();
    }
}

/// The answer to `select next n values`: the first id of the block.
pub fn next_value_result(first: i64) -> QueryResult {
    let text = first.to_string();
    QueryResult {
        fields: vec![Field { name: "nextval".into(), r#type: Type::Int64.into(), ..Field::default() }],
        rows_affected: 1,
        rows: vec![Row { lengths: vec![text.len() as i64], values: text.into() }],
        ..QueryResult::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserve(sequence: &Sequence, stored: i64, cache: i64, count: i64) -> i64 {
        let reservation = sequence.reserve(stored, cache, count).expect("a reservation");
        let stored = reservation.stored;
        sequence.commit(reservation, 0);
        stored
    }

    /// While one client waits for a large block another must not be given what is left, which the first will get.
    #[test]
    fn nobody_takes_from_a_reservation_under_way() {
        let sequence = Sequence::default();
        reserve(&sequence, 1, 10, 1);
        assert_eq!(sequence.take(8), Some(1));
        let reservation = sequence.reserve(11, 10, 5).expect("a reservation");
        assert_eq!(sequence.take(1), None);
        assert_eq!(sequence.commit(reservation, 5), 9);
        assert_eq!(sequence.take(1), Some(14));
        let failed = sequence.reserve(21, 10, 9).expect("a reservation");
        assert_eq!(sequence.take(1), None);
        sequence.abandon(failed);
        assert_eq!(sequence.take(1), Some(15));
        let overtaken = sequence.reserve(21, 10, 9).expect("a reservation");
        sequence.reset();
        sequence.abandon(overtaken);
        assert_eq!(sequence.take(1), None);
    }

    #[test]
    fn ids_come_in_blocks() {
        let sequence = Sequence::default();
        assert_eq!(sequence.take(1), None);
        assert_eq!(reserve(&sequence, 1000, 100, 1), 1100);
        assert_eq!(sequence.take(1), Some(1000));
        assert_eq!(sequence.take(98), Some(1001));
        assert_eq!(sequence.take(2), None);
        assert_eq!(reserve(&sequence, 1100, 100, 2), 1200);
        assert_eq!(sequence.take(2), Some(1099));
        assert_eq!(sequence.take(1), Some(1101));
    }

    #[test]
    fn a_large_block_takes_several_steps() {
        let sequence = Sequence::default();
        assert_eq!(reserve(&sequence, 1, 10, 25), 31);
        assert_eq!(sequence.take(25), Some(1));
    }

    #[test]
    fn a_row_changed_from_outside() {
        let sequence = Sequence::default();
        reserve(&sequence, 1, 10, 1);
        assert_eq!(sequence.take(5), Some(1));
        // Moved back: what was reserved here stays used up.
        assert_eq!(reserve(&sequence, 5, 10, 1), 21);
        assert_eq!(sequence.take(1), Some(11));
        // Moved forward: followed.
        assert_eq!(reserve(&sequence, 100, 10, 1), 110);
        assert_eq!(sequence.take(1), Some(100));
    }

    #[test]
    fn an_uncommitted_reservation_changes_nothing() {
        let sequence = Sequence::default();
        assert!(sequence.reserve(1, 10, 1).is_some());
        assert_eq!(sequence.take(1), None);
        assert_eq!(sequence.reserve(i64::MAX - 1, 10, 1), None);
    }
}
