//! A place in a binary log, for servers without GTIDs: `<file>:<offset>`.

use std::fmt;
use std::str::FromStr;

use super::PositionError;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilePos {
    pub file: String,
    /// Bytes from the beginning of the file.
    pub offset: u64,
}

impl FilePos {
    /// Only meaningful between positions of one server.
    pub fn at_least(&self, other: &Self) -> bool {
        (&self.file, self.offset) >= (&other.file, other.offset)
    }
}

impl FromStr for FilePos {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let bad = || PositionError::new("invalid FilePos GTID", text);
        let (file, offset) = text.rsplit_once(':').ok_or_else(bad)?;
        Ok(Self { file: file.to_owned(), offset: offset.parse().map_err(|_| bad())? })
    }
}

impl fmt::Display for FilePos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_files_are_further() {
        let at = |text: &str| text.parse::<FilePos>().expect("a position");
        assert!(at("bin.000010:4").at_least(&at("bin.000009:900")));
        assert!(at("bin.000009:900").at_least(&at("bin.000009:900")));
        assert!(!at("bin.000009:899").at_least(&at("bin.000009:900")));
        assert!("bin.000009".parse::<FilePos>().is_err() && "bin:x".parse::<FilePos>().is_err());
    }
}
