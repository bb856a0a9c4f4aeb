//! DECIMAL as row events store it.
//!
//! Groups of nine digits, each in four bytes, highest byte first; what is left over on either side of the point takes
//! fewer. The first bit is set for numbers that are not negative; of negative ones every bit is inverted.

/// A DECIMAL(`precision`, `scale`) cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) precision: u8,
    pub(super) scale: u8,
}

/// Bytes of a number of digits less than ten.
const DIGIT_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// Bytes of a cell. `scale` is not more than `precision`.
pub(super) fn len(precision: u8, scale: u8) -> usize {
    let (whole, fraction) = (usize::from(precision.saturating_sub(scale)), usize::from(scale));
    whole / 9 * 4 + DIGIT_BYTES[whole % 9] + fraction / 9 * 4 + DIGIT_BYTES[fraction % 9]
}

impl Decimal<'_> {
    /// Appends the number as mysqld prints it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Some(&first) = self.bytes.first() else {
            out.push(b'0');
            return;
        };
        let negative = first & 0x80 == 0;
        let mask = if negative { 0xff } else { 0 };
        let mut at = 0;
        let mut group = |digits: usize| -> u32 {
            let bytes = DIGIT_BYTES[digits];
            let value = (at..at + bytes).fold(0u32, |value, index| {
                // The sign is not part of the number.
                let byte =
                    if index == 0 { self.bytes[0] ^ 0x80 } else { self.bytes.get(index).copied().unwrap_or(mask) };
                value << 8 | u32::from(byte ^ mask)
            });
            at += bytes;
            value
        };
        if negative {
            out.push(b'-');
        }
        let (whole, fraction) = (usize::from(self.precision.saturating_sub(self.scale)), usize::from(self.scale));
        let start = out.len();
        let put = |out: &mut Vec<u8>, value: u32, digits: usize| {
            let mut text = [b'0'; 10];
            let mut value = value;
            for digit in text[..digits].iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
            out.extend_from_slice(&text[..digits]);
        };
        if whole % 9 > 0 {
            put(out, group(whole % 9), whole % 9);
        }
        for _ in 0..whole / 9 {
            put(out, group(9), 9);
        }
        // Without leading zeros, but with one digit at least.
        let zeros = out[start..].iter().take_while(|&&digit| digit == b'0').count();
        if zeros == out.len() - start {
            out.truncate(start);
            out.push(b'0');
        } else {
            out.drain(start..start + zeros);
        }
        if fraction > 0 {
            out.push(b'.');
            for _ in 0..fraction / 9 {
                put(out, group(9), 9);
            }
            if fraction % 9 > 0 {
                put(out, group(fraction % 9), fraction % 9);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], precision: u8, scale: u8) -> String {
        assert_eq!(bytes.len(), len(precision, scale));
        let mut out = Vec::new();
        Decimal { bytes, precision, scale }.write(&mut out);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn numbers_of_the_manual() {
        // 1234567890.1234 in DECIMAL(14,4).
        let positive = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        assert_eq!(text(&positive, 14, 4), "1234567890.1234");
        let negative: Vec<u8> = positive.iter().map(|byte| !byte).collect();
        assert_eq!(text(&negative, 14, 4), "-1234567890.1234");
        assert_eq!(text(&[0x80, 0x00], 3, 2), "0.00");
        assert_eq!(text(&[0x80], 1, 0), "0");
        assert_eq!(text(&[0x80 + 7], 1, 1), "0.7");
    }
}
