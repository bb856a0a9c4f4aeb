//! Dates and times, and how mysqld prints them.
//!
//! Zero dates and dates with zero parts are values like any other.

/// A DATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    pub year: u16,
    pub month: u8,
    pub day: u8,
}

/// A DATETIME, or a TIMESTAMP in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    pub date: Date,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    pub micros: u32,
    /// Digits of the fraction.
    pub fsp: u8,
}

/// A TIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    pub negative: bool,
    pub hours: u16,
    pub minute: u8,
    pub second: u8,
    pub micros: u32,
    pub fsp: u8,
}

pub(super) fn put_number(out: &mut Vec<u8>, value: u32, digits: usize) {
    let mut text = [b'0'; 10];
    let mut value = value;
    let mut at = text.len();
    while value > 0 || text.len() - at < digits {
        at -= 1;
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&text[at..]);
}

fn put_fraction(out: &mut Vec<u8>, micros: u32, fsp: u8) {
    if fsp == 0 {
        return;
    }
    out.push(b'.');
    let digits = usize::from(fsp.min(6));
    put_number(out, micros / 10u32.pow(6 - digits as u32), digits);
}

impl Date {
    pub const ZERO: Date = Date { year: 0, month: 0, day: 0 };

    /// The day, counted from 1970-01-01.
    fn from_days(days: i64) -> Self {
        // Counted in eras of 400 years that begin on 1 March, so that the leap day is the last of a year.
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year: year as u16, month: month as u8, day: day as u8 }
    }

    /// `year << 9 | month << 5 | day`.
    pub(super) fn unpack(packed: u32) -> Self {
        Self { year: (packed >> 9) as u16, month: (packed >> 5 & 15) as u8, day: (packed & 31) as u8 }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.year.into(), 4);
        out.push(b'-');
        put_number(out, self.month.into(), 2);
        out.push(b'-');
        put_number(out, self.day.into(), 2);
    }
}

impl DateTime {
    /// A moment in UTC; 0 is the zero TIMESTAMP.
    pub(super) fn from_unix(seconds: u32, micros: u32, fsp: u8) -> Self {
        if seconds == 0 && micros == 0 {
            return Self { date: Date::ZERO, hour: 0, minute: 0, second: 0, micros: 0, fsp };
        }
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        Self {
            date: Date::from_days(days.into()),
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
            micros,
            fsp,
        }
    }

    /// 17 bits year and month (`year * 13 + month`), 5 day, 5 hour, 6 minute, 6 second.
    pub(super) fn unpack(packed: u64, micros: u32, fsp: u8) -> Self {
        let year_month = (packed >> 22) as u32;
        let date =
            Date { year: (year_month / 13) as u16, month: (year_month % 13) as u8, day: (packed >> 17 & 31) as u8 };
        Self {
            date,
            hour: (packed >> 12 & 31) as u8,
            minute: (packed >> 6 & 63) as u8,
            second: (packed & 63) as u8,
            micros,
            fsp,
        }
    }

    /// Digits in a row: YYYYMMDDhhmmss.
    pub(super) fn from_digits(digits: u64) -> Self {
        let (date, time) = ((digits / 1_000_000) as u32, (digits % 1_000_000) as u32);
        Self {
            date: Date { year: (date / 10_000) as u16, month: (date / 100 % 100) as u8, day: (date % 100) as u8 },
            hour: (time / 10_000) as u8,
            minute: (time / 100 % 100) as u8,
            second: (time % 100) as u8,
            micros: 0,
            fsp: 0,
        }
    }

    /// Whether every part is zero.
    pub fn is_zero(&self) -> bool {
        self.date == Date::ZERO && self.hour == 0 && self.minute == 0 && self.second == 0 && self.micros == 0
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        self.date.write(out);
        out.push(b' ');
        put_number(out, self.hour.into(), 2);
        out.push(b':');
        put_number(out, self.minute.into(), 2);
        out.push(b':');
        put_number(out, self.second.into(), 2);
        put_fraction(out, self.micros, self.fsp);
    }
}

impl Time {
    /// 10 bits hours, 6 minutes, 6 seconds, of a number that is not negative.
    pub(super) fn unpack(negative: bool, packed: u32, micros: u32, fsp: u8) -> Self {
        Self {
            negative,
            hours: (packed >> 12 & 1023) as u16,
            minute: (packed >> 6 & 63) as u8,
            second: (packed & 63) as u8,
            micros,
            fsp,
        }
    }

    /// Digits in a row: hhmmss.
    pub(super) fn from_digits(digits: i32) -> Self {
        let positive = digits.unsigned_abs();
        Self {
            negative: digits < 0,
            hours: (positive / 10_000) as u16,
            minute: (positive / 100 % 100) as u8,
            second: (positive % 100) as u8,
            micros: 0,
            fsp: 0,
        }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        put_number(out, self.hours.into(), 2);
        out.push(b':');
        put_number(out, self.minute.into(), 2);
        out.push(b':');
        put_number(out, self.second.into(), 2);
        put_fraction(out, self.micros, self.fsp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u32) -> String {
        let mut out = Vec::new();
        DateTime::from_unix(seconds, 0, 0).write(&mut out);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn moments() {
        assert_eq!(at(0), "0000-00-00 00:00:00");
        assert_eq!(at(1), "1970-01-01 00:00:01");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(at(1_709_251_199), "2024-02-29 23:59:59");
        assert_eq!(at(i32::MAX as u32), "2038-01-19 03:14:07");
        assert_eq!(at(u32::MAX), "2106-02-07 06:28:15");
    }
}
