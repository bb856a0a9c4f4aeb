//! vttablet serves the queries of one mysqld.
fn main() {}
