//! What Vitess writes into comments of statements, for a binlog of statements.
//!
//! - `/* vtgate:: keyspace_id:166b40b4,… */`: the keyspace ids of what the statement changes, one for each row of an
//!   INSERT.
//! - `/* vtgate:: filtered_replication_unfriendly */`: they are not known.
//! - `/* _stream t (pk ) … */`: the table.

/// What the comments of a statement say about keyspace ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ids {
    Known(Vec<Vec<u8>>),
    Unfriendly,
    /// There is no such comment.
    Absent,
}

fn find<'a>(sql: &'a [u8], marker: &[u8]) -> Option<&'a [u8]> {
    sql.windows(marker.len()).position(|window| window == marker).map(|at| &sql[at + marker.len()..])
}

pub(super) fn keyspace_ids(sql: &[u8]) -> Ids {
    if let Some(rest) = find(sql, b"/* vtgate:: keyspace_id:") {
        let end = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        let ids: Option<Vec<Vec<u8>>> = rest[..end].split(|&byte| byte == b',').map(hex).collect();
        return ids.map_or(Ids::Absent, Ids::Known);
    }
    match find(sql, b"/* vtgate:: filtered_replication_unfriendly */") {
        Some(_) => Ids::Unfriendly,
        None => Ids::Absent,
    }
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(digits).ok()?;
    if text.is_empty() || text.len() % 2 == 1 || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// The table that a statement says it changes.
pub(super) fn stream_table(sql: &[u8]) -> Option<String> {
    let rest = find(sql, b"/* _stream ")?;
    let (_, token) = super::sql::Tokens::new(rest).next()?;
    token.name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments() {
        let sql =
            b"insert into t(id) values (1) /* vtgate:: keyspace_id:166b40b44aba4bd6 */ /* _stream t (id ) (1 ); */";
        assert_eq!(keyspace_ids(sql), Ids::Known(vec![vec![0x16, 0x6b, 0x40, 0xb4, 0x4a, 0xba, 0x4b, 0xd6]]));
        assert_eq!(stream_table(sql).as_deref(), Some("t"));
        let two = b"insert into t values (1), (2) /* vtgate:: keyspace_id:10,20 */";
        assert_eq!(keyspace_ids(two), Ids::Known(vec![vec![0x10], vec![0x20]]));
        assert_eq!(keyspace_ids(b"x /* vtgate:: filtered_replication_unfriendly */"), Ids::Unfriendly);
        assert_eq!(keyspace_ids(b"x"), Ids::Absent);
        assert_eq!(stream_table(b"x"), None);
    }
}
