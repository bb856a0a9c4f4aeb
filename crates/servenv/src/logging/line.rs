//! The prefix of a log line: `Lmmdd hh:mm:ss.uuuuuu threadid file:line] `.
//!
//! As in Go's glog, the process id stands in the place of the thread id, and times are local.

use std::time::SystemTime;

use chrono::{DateTime, Local};

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Warning,
    Error,
    Fatal,
}

impl Severity {
    pub(super) const ALL: [Self; 4] = [Self::Info, Self::Warning, Self::Error, Self::Fatal];

    /// The word in the names of log files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }

    /// A name in any case or a number from 0 to 3.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let by_number = |severity: &Self| text == (*severity as u8).to_string();
        Self::ALL.into_iter().find(|severity| by_number(severity) || severity.name().eq_ignore_ascii_case(text))
    }
}

/// Only the last part of `file` is shown.
pub(super) fn prefix(severity: Severity, time: SystemTime, process: Option<u32>, file: &str, line: u32) -> String {
    let letter = &severity.name()[..1];
    let time = DateTime::<Local>::from(time).format("%m%d %H:%M:%S%.6f");
    let file = file.rsplit('/').next().unwrap_or(file);
    match process {
        Some(id) => format!("{letter}{time} {id:>7} {file}:{line}] "),
        None => format!("{letter}{time} {file}:{line}] "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn a_prefix_looks_like_that_of_glog() {
        let time = Local.with_ymd_and_hms(2019, 11, 8, 9, 5, 1).single().expect("a time of day");
        let time = SystemTime::from(time) + std::time::Duration::from_micros(42);
        assert_eq!(
            prefix(Severity::Warning, time, Some(1234), "crates/x/src/validate.rs", 52),
            "W1108 09:05:01.000042    1234 validate.rs:52] "
        );
        assert_eq!(prefix(Severity::Error, time, None, "validator.go", 7), "E1108 09:05:01.000042 validator.go:7] ");
    }

    #[test]
    fn severities_read_by_name_and_number() {
        assert_eq!(Severity::parse("warning"), Some(Severity::Warning));
        assert_eq!(Severity::parse("3"), Some(Severity::Fatal));
        assert_eq!(Severity::parse("loud"), None);
        assert!(Severity::Error > Severity::Warning);
    }
}
