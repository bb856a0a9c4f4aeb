//! Framing: packets over a byte stream, in both directions.
//!
//! A packet of 16 MB - 1 and more travels in several frames, the last of which is shorter than that and may be empty.
//! [`PacketReader`] joins them, [`PacketWriter`] splits them. Both keep their buffers small while a connection is
//! idle, and do one system call for many packets.

mod lenenc;
mod reader;
mod writer;

pub(crate) use lenenc::{Cursor, WireError, put_lenenc, put_lenenc_bytes};
pub(crate) use reader::{PacketError, PacketReader, Run, RunEnd, Span};
pub(crate) use writer::PacketWriter;

/// The length of a frame's payload, from the first bytes of its head.
pub(crate) fn payload_len([a, b, c]: [u8; 3]) -> usize {
    u32::from_le_bytes([a, b, c, 0]) as usize
}

#[cfg(test)]
mod tests;
