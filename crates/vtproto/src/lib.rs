//! The protobuf messages and gRPC services of `proto/`, one module per package.
//!
//! Generated code and nothing else. Bytes of rows and values are [`bytes::Bytes`]; maps are sorted.

#![allow(clippy::all, missing_docs)]

include!(concat!(env!("OUT_DIR"), "/vtproto.rs"));

/// The serialised `FileDescriptorSet` of every file in `proto/`, for code that walks messages by
/// reflection (JSON and text forms).
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
