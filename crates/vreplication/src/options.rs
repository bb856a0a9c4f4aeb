//! What a reader of a stream may ask for beyond the messages of v5.0.1.
//!
//! It travels as metadata of the gRPC request: a source that does not know it ignores it, and a reader that does not
//! send it gets what v5.0.1 readers can take.

use tonic::metadata::{MetadataMap, MetadataValue};
use vterrors::{Code, VtError};

const PARTS: &str = "vreplication-parts";
const ON_DDL: &str = "vreplication-on-ddl";

/// What happens when a DDL statement on a streamed table comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDdl {
    /// The stream ends with an error that names the statement: source and target may differ from here on, and only an
    /// operator knows what to do.
    #[default]
    Stop,
    /// It is passed over.
    Ignore,
    /// It is sent, and has to succeed at the target.
    Exec,
    /// It is sent, and may fail at the target.
    ExecIgnore,
}

impl OnDdl {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Ignore => "ignore",
            Self::Exec => "exec",
            Self::ExecIgnore => "exec_ignore",
        }
    }
}

impl std::str::FromStr for OnDdl {
    type Err = VtError;

    /// In any case of letters, as the words stand in records too.
    fn from_str(text: &str) -> Result<Self, VtError> {
        [Self::Stop, Self::Ignore, Self::Exec, Self::ExecIgnore]
            .into_iter()
            .find(|action| action.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| VtError::new(Code::InvalidArgument, format!("unknown action on DDL: {text}")))
    }
}

/// Options of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamOptions {
    /// The reader takes a transaction in several messages, of which the last alone has an event token.
    pub parts: bool,
    pub on_ddl: OnDdl,
}

impl StreamOptions {
    /// Puts the options into a request.
    pub fn write(&self, metadata: &mut MetadataMap) {
        if self.parts {
            metadata.insert(PARTS, MetadataValue::from_static("1"));
        }
        metadata.insert(ON_DDL, MetadataValue::from_static(self.on_ddl.as_str()));
    }

    /// Reads the options of a request.
    pub fn read(metadata: &MetadataMap) -> Result<Self, VtError> {
        let text = |key: &str| metadata.get(key).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok(Self {
            parts: text(PARTS).is_some_and(|value| value == "1"),
            on_ddl: text(ON_DDL).map(|value| value.parse()).transpose()?.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_through_a_request() {
        for on_ddl in [OnDdl::Stop, OnDdl::Ignore, OnDdl::Exec, OnDdl::ExecIgnore] {
            for parts in [false, true] {
                let options = StreamOptions { parts, on_ddl };
                let mut metadata = MetadataMap::new();
                options.write(&mut metadata);
                assert_eq!(StreamOptions::read(&metadata).expect("options"), options);
            }
        }
        assert_eq!(StreamOptions::read(&MetadataMap::new()).expect("options"), StreamOptions::default());
    }
}
