//! The tests of `queryservice.rs` over the framed transport: `support/via.rs` goes by the name of this program.

#[path = "queryservice.rs"]
mod queryservice;
