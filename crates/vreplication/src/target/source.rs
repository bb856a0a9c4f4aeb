//! Where a stream reads from: the text in the column `source` of `_vt.vreplication`.

use vterrors::{Code, Result, VtError};
use vtproto::{
    binlogdata::{BinlogSource, OnDdlAction},
    topodata::KeyRange,
};
use vtsql::lexer::Lexer;

use crate::OnDdl;

/// Which rows of the source a stream takes.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceKind {
    /// Whole tables (StreamTables).
    Tables(Vec<String>),
    /// The rows of a key range, of all tables (StreamKeyRange).
    KeyRange(KeyRange),
}

/// Reads the text form of a source, `<…>` and `{…}` alike.
///
/// # Errors
/// INVALID_ARGUMENT with the place of the mistake.
pub fn read_source(text: &str) -> Result<BinlogSource> {
    vtjson::from_text(text)
        .map_err(|error| VtError::new(Code::InvalidArgument, format!("cannot read the source {text:?}: {error}")))
}

/// The text form as it stands in `_vt.vreplication`: one line, every entry with a blank behind it.
pub fn print_source(source: &BinlogSource) -> String {
    vtjson::text_compact(source)
}

/// What the stream does about DDL: what the text says, or stops. A message cannot tell IGNORE, which is its first value,
/// from nothing; a text can, for it says IGNORE only where somebody wrote it.
pub(super) fn on_ddl(text: &str, source: &BinlogSource) -> OnDdl {
    match source.on_ddl() {
        OnDdlAction::Stop => OnDdl::Stop,
        OnDdlAction::Exec => OnDdl::Exec,
        OnDdlAction::ExecIgnore => OnDdl::ExecIgnore,
        OnDdlAction::Ignore => {
            let bytes = text.as_bytes();
            let written = Lexer::new(bytes).any(|token| token.is_word(bytes, "on_ddl"));
            if written { OnDdl::Ignore } else { OnDdl::Stop }
        }
    }
}

/// What kind of stream a source asks for.
///
/// # Errors
/// INVALID_ARGUMENT when it names none, UNIMPLEMENTED when it names one that is not built.
pub(super) fn kind(source: &BinlogSource) -> Result<SourceKind> {
    if !source.external_mysql.is_empty() {
        let name = &source.external_mysql;
        return Err(VtError::new(
            Code::Unimplemented,
            format!("streams from an external MySQL ({name}) are not built"),
        ));
    }
    if !source.tables.is_empty() {
        return Ok(SourceKind::Tables(source.tables.clone()));
    }
    if let Some(range) = &source.key_range {
        return Ok(SourceKind::KeyRange(range.clone()));
    }
    Err(match source.filter {
        Some(_) => VtError::new(
            Code::Unimplemented,
            "streams with a filter (VStream) are not built: a source has to name tables or a key_range",
        ),
        None => VtError::new(Code::InvalidArgument, "missing source"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_v5() {
        let vertical = "keyspace:\"commerce\" shard:\"0\" tables:\"customer\" tables:\"corder\" ";
        let source = read_source(vertical).expect("a source");
        assert_eq!(kind(&source), Ok(SourceKind::Tables(vec!["customer".into(), "corder".into()])));
        assert_eq!(print_source(&source), vertical);
        let horizontal = "keyspace:\"customer\" shard:\"0\" key_range:<end:\"\\200\" > ";
        let source = read_source(horizontal).expect("a source");
        assert_eq!(kind(&source), Ok(SourceKind::KeyRange(KeyRange { start: vec![], end: vec![0x80] })));
        assert_eq!(print_source(&source), horizontal);
        let braces =
            read_source("keyspace: \"customer\" shard: \"0\" key_range: { end: \"\\x80\" }").expect("a source");
        assert_eq!(braces, source);
    }

    #[test]
    fn ddl_stops_a_stream_that_does_not_say_otherwise() {
        for (more, expected) in [
            ("", OnDdl::Stop),
            ("on_ddl:IGNORE ", OnDdl::Ignore),
            ("on_ddl: STOP", OnDdl::Stop),
            ("on_ddl:EXEC ", OnDdl::Exec),
            ("on_ddl:EXEC_IGNORE", OnDdl::ExecIgnore),
        ] {
            let text = format!("keyspace:\"ks\" shard:\"0\" tables:\"on_ddl\" {more}");
            assert_eq!(on_ddl(&text, &read_source(&text).expect("a source")), expected, "{more}");
        }
    }

    #[test]
    fn a_range_without_bounds_is_a_range() {
        let source = read_source("keyspace:\"ks\" shard:\"0\" key_range:<> ").expect("a source");
        assert_eq!(kind(&source), Ok(SourceKind::KeyRange(KeyRange::default())));
    }

    #[test]
    fn other_sources_are_refused_by_name() {
        let error = |text: &str| kind(&read_source(text).expect("a source")).expect_err(text).message().to_owned();
        assert_eq!(error("keyspace:\"ks\" shard:\"0\" "), "missing source");
        assert!(error("keyspace:\"ks\" filter:<rules:<match:\"/.*\" > > ").contains("not built"));
        assert!(error("external_mysql:\"legacy\" tables:\"t\" ").contains("legacy"));
        assert!(read_source("keyspace:ks").expect_err("no quotes").message().contains("line 1."));
    }
}
