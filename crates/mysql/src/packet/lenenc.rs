//! Integers and strings inside a packet.
//!
//! Source: MySQL manual, Protocol Basics: little-endian integers, `int<lenenc>`, `string<lenenc>`, `string<NUL>`.

/// A packet that does not have the shape it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("packet ends early")]
    Truncated,
    #[error("bad length prefix")]
    BadLength,
    #[error("bytes after the end")]
    Trailing,
    #[error("not UTF-8")]
    NotUtf8,
    #[error("unexpected value")]
    Unexpected,
}

/// Reads a packet from front to back. After an error its place is undefined.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(packet: &'a [u8]) -> Self {
        Self { rest: packet }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length-encoded integer: a first byte `00..=fa` is the value; after `fc`, `fd`, `fe` come 2, 3, 8 bytes.
    /// `fb` (NULL) and `ff` (error packet) are no integers.
    pub fn lenenc(&mut self) -> Result<u64, WireError> {
        match self.u8()? {
            byte @ 0..=0xfa => Ok(byte.into()),
            0xfc => self.u16().map(u64::from),
            0xfd => self.array::<3>().map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]).into()),
            0xfe => self.u64(),
            0xfb | 0xff => Err(WireError::BadLength),
        }
    }

    /// A length-encoded string.
    pub fn lenenc_bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = usize::try_from(self.lenenc()?).map_err(|_| WireError::BadLength)?;
        self.bytes(len)
    }

    /// A cell of a text row: NULL or a length-encoded string.
    pub fn cell(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        if self.peek() == Some(0xfb) {
            self.rest = &self.rest[1..];
            return Ok(None);
        }
        self.lenenc_bytes().map(Some)
    }

    pub fn lenenc_str(&mut self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.lenenc_bytes()?).map_err(|_| WireError::NotUtf8)
    }

    /// Bytes up to a NUL, which is consumed.
    pub fn nul_bytes(&mut self) -> Result<&'a [u8], WireError> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or(WireError::Truncated)?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }
}

/// Appends a length-encoded integer.
pub(crate) fn put_lenenc(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0xfa => out.push(value as u8),
        0xfb..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&(value as u16).to_le_bytes());
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend_from_slice(&value.to_le_bytes()[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// Appends a length-encoded string.
pub(crate) fn put_lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_lenenc(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
