//! The source side: which statements of its binlog a tablet streams to a target.
