//! Pieces of a table by ranges of its primary key.
//!
//! An integer key is cut by arithmetic between its least and greatest value. Any other key is cut where the server
//! finds every n-th row, which it answers from its index alone. The first piece has no lower and the last no upper
//! bound, so that the pieces cover whatever is there.

use vterrors::{Code, Result, VtError};

use super::{Endpoint, Options, Table};
use crate::rows;
use crate::sql::{Bound, Range, TIME_ZONE, name};

/// How many pieces a table of so many rows is cut into.
pub fn count(rows: u64, options: &Options) -> u64 {
    if rows < options.min_rows_per_chunk.saturating_mul(2) {
        return 1;
    }
    (rows / options.min_rows_per_chunk).clamp(1, options.chunk_count)
}

/// Between neighbouring bounds, from no bound to no bound.
pub fn ranges(bounds: Vec<Bound>) -> Vec<Range> {
    let mut ranges = Vec::with_capacity(bounds.len() + 1);
    let mut lower = None;
    for upper in bounds {
        ranges.push(Range { lower: lower.take(), upper: Some(upper.clone()) });
        lower = Some(upper);
    }
    ranges.push(Range { lower, upper: None });
    ranges
}

/// `count - 1` numbers that cut `least..=greatest` into even parts; fewer if there are fewer numbers.
pub fn integer_bounds(least: i128, greatest: i128, count: u64) -> Vec<i128> {
    let span = greatest - least + 1;
    let mut bounds: Vec<i128> = (1..i128::from(count)).map(|i| least - 1 + span * i / i128::from(count)).collect();
    bounds.retain(|bound| (least..greatest).contains(bound));
    bounds.dedup();
    bounds
}

/// Cuts a table.
///
/// # Errors
/// The tablet's.
pub async fn plan(endpoint: &Endpoint, table: &Table, options: &Options) -> Result<Vec<Range>> {
    let count = count(table.rows, options);
    if count == 1 || table.is_keyless() {
        return Ok(vec![Range::default()]);
    }
    let select = endpoint.dialect.with("select", &[TIME_ZONE]);
    let place = format!("{}.{}", name(&endpoint.db_name), name(&table.name));
    if table.integer_key {
        let column = &table.key[0].expr;
        let sql = format!("{select} min({column}), max({column}) from {place}");
        let result = endpoint.execute(sql.into_bytes()).await?;
        let numbers: Vec<i128> = result
            .rows
            .first()
            .map(|row| (0..2).filter_map(|at| rows::text(row, at).parse().ok()).collect())
            .unwrap_or_default();
        let [least, greatest] = numbers[..] else { return Ok(vec![Range::default()]) };
        let bounds = integer_bounds(least, greatest, count);
        return Ok(ranges(bounds.into_iter().map(|bound| vec![bound.to_string().into_bytes()]).collect()));
    }
    let step = table.rows / count;
    let key: Vec<&str> = table.key.iter().map(|column| column.expr.as_str()).collect();
    let mut bounds: Vec<Bound> = Vec::new();
    // The number of rows is an estimate: the table may be longer, and then its last piece is.
    while (bounds.len() as u64) < count - 1 {
        let range = Range { lower: bounds.last().cloned(), upper: None };
        let mut sql = format!("{select} {} from {place}", key.join(", ")).into_bytes();
        sql.extend(range.condition(&table.key));
        sql.extend(format!("{} limit {}, 1", table.order(), step.saturating_sub(1)).into_bytes());
        let result = endpoint.execute(sql).await?;
        let Some(row) = result.rows.first() else { break };
        let bound: Option<Bound> = rows::cells(row).map(|cell| cell.map(<[u8]>::to_vec)).collect();
        bounds
            .push(bound.ok_or_else(|| VtError::new(Code::Internal, format!("table {}: NULL in its key", table.name)))?);
    }
    Ok(ranges(bounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_cut_evenly_over_their_whole_span() {
        assert_eq!(integer_bounds(1, 100, 4), [25, 50, 75]);
        assert_eq!(integer_bounds(1, 2, 4), [1]);
        assert_eq!(integer_bounds(5, 5, 10), [] as [i128; 0]);
        let whole = integer_bounds(i128::from(i64::MIN), i128::from(u64::MAX), 1000);
        assert_eq!(whole.len(), 999);
        assert!(whole.is_sorted());
    }

    #[test]
    fn pieces_join_without_gap() {
        let bound = |n: u8| vec![vec![n]];
        let cut = ranges(vec![bound(1), bound(2)]);
        assert_eq!(cut.len(), 3);
        assert_eq!((cut[0].lower.clone(), cut[2].upper.clone()), (None, None));
        assert!(cut.windows(2).all(|pair| pair[0].upper == pair[1].lower));
        assert_eq!(ranges(Vec::new()), [Range::default()]);
    }
}
