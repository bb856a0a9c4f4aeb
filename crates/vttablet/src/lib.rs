//! vttablet: serves the queries of one mysqld and manages its life in the cluster.
//!
//! Owns: the query service ([`queryservice`]) and the tablet manager ([`tabletmanager`]) of one tablet, and their
//! wiring. Does not own: mysqld itself, which `mysqlctl` starts and stops.

pub mod queryservice;
pub mod tabletmanager;
