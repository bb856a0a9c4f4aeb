//! Hexadecimal text of keyspace ids.

use crate::KeyRangeError;

/// Two digits a byte, either case. A wrong digit is reported before an odd length.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, KeyRangeError> {
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(KeyRangeError::InvalidHex(byte));
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for pair in text.as_bytes().chunks(2) {
        let high = digit(pair[0])?;
        let low = digit(*pair.get(1).ok_or(KeyRangeError::OddHex)?)?;
        bytes.push((high * 16 + low) as u8);
    }
    Ok(bytes)
}

/// Lower case, two digits a byte.
pub(crate) fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}
