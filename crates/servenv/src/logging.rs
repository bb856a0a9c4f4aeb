//! Logs.
use crate::Parsed;
pub fn init(_program: &str, _flags: &Parsed) {}
pub fn fatal(text: &str) {
    eprintln!("{text}");
}
pub fn flush() {}
