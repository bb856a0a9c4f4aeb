//! `alter vschema …` read.
//!
//! ```text
//! alter vschema create vindex [ks.]name using type [with a=b, …]
//! alter vschema drop vindex [ks.]name
//! alter vschema add|drop table [ks.]t
//! alter vschema add sequence [ks.]s
//! alter vschema on [ks.]t add vindex name (col, …) [using type [with a=b, …]]
//! alter vschema on [ks.]t drop vindex name
//! alter vschema on [ks.]t add auto_increment col using [ks.]seq
//! ```

use std::collections::BTreeMap;

use vschema::{Command, VindexSpec};
use vterrors::VtError;
use vtsql::SyntaxError;
use vtsql::lexer::{Token, TokenKind, tokens};

/// Reads an `alter vschema` statement: the keyspace its table or vindex is qualified with (empty: the
/// session's) and the change.
pub fn parse_vschema_ddl(sql: &str) -> Result<(String, Command), VtError> {
    let mut reader = Reader { sql, tokens: tokens(sql.as_bytes()), at: 0 };
    let parsed = reader.statement()?;
    if reader.at < reader.tokens.len() && !reader.punct(";") {
        return Err(reader.fault().into());
    }
    Ok(parsed)
}

struct Reader<'a> {
    sql: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl Reader<'_> {
    fn word(&mut self, word: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|t| t.is_word(self.sql.as_bytes(), word));
        self.at += usize::from(found);
        found
    }

    fn punct(&mut self, punct: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|t| t.is_punct(self.sql.as_bytes(), punct));
        self.at += usize::from(found);
        found
    }

    fn fault(&self) -> SyntaxError {
        match self.tokens.get(self.at) {
            Some(token) => SyntaxError { position: token.end + 1, near: self.sql[token.start..token.end].to_owned() },
            None => SyntaxError { position: self.sql.len() + 1, near: String::new() },
        }
    }

    fn expect(&mut self, word: &str) -> Result<(), SyntaxError> {
        if self.word(word) { Ok(()) } else { Err(self.fault()) }
    }

    fn name(&mut self) -> Result<String, SyntaxError> {
        let name = self.tokens.get(self.at).and_then(|t| t.name(self.sql.as_bytes())).ok_or_else(|| self.fault())?;
        self.at += 1;
        Ok(name)
    }

    /// `[ks.]name`.
    fn qualified(&mut self) -> Result<(String, String), SyntaxError> {
        let name = self.name()?;
        if self.punct(".") { Ok((name, self.name()?)) } else { Ok((String::new(), name)) }
    }

    fn statement(&mut self) -> Result<(String, Command), SyntaxError> {
        self.expect("alter")?;
        self.expect("vschema")?;
        if self.word("create") {
            self.expect("vindex")?;
            let (keyspace, name) = self.qualified()?;
            let spec = self.spec()?.ok_or_else(|| self.fault())?;
            return Ok((keyspace, Command::CreateVindex { name, spec }));
        }
        if self.word("drop") {
            let vindex = self.word("vindex");
            if !vindex {
                self.expect("table")?;
            }
            let (keyspace, name) = self.qualified()?;
            return Ok((
                keyspace,
                if vindex { Command::DropVindex { name } } else { Command::DropTable { table: name } },
            ));
        }
        if self.word("add") {
            let sequence = self.word("sequence");
            if !sequence {
                self.expect("table")?;
            }
            let (keyspace, table) = self.qualified()?;
            return Ok((keyspace, if sequence { Command::AddSequence { table } } else { Command::AddTable { table } }));
        }
        self.expect("on")?;
        let (keyspace, table) = self.qualified()?;
        if self.word("drop") {
            self.expect("vindex")?;
            let name = self.name()?;
            return Ok((keyspace, Command::DropColumnVindex { table, name }));
        }
        self.expect("add")?;
        if self.word("auto_increment") {
            let column = self.name()?;
            self.expect("using")?;
            let (sequence_keyspace, name) = self.qualified()?;
            let sequence = if sequence_keyspace.is_empty() { name } else { format!("{sequence_keyspace}.{name}") };
            return Ok((keyspace, Command::AddAutoIncrement { table, column, sequence }));
        }
        self.expect("vindex")?;
        let name = self.name()?;
        if !self.punct("(") {
            return Err(self.fault());
        }
        let mut columns = vec![self.name()?];
        while self.punct(",") {
            columns.push(self.name()?);
        }
        if !self.punct(")") {
            return Err(self.fault());
        }
        let spec = self.spec()?;
        Ok((keyspace, Command::AddColumnVindex { table, name, columns, spec }))
    }

    /// `using type [with a=b, …]`; the parameter `owner` is the owner.
    fn spec(&mut self) -> Result<Option<VindexSpec>, SyntaxError> {
        if !self.word("using") {
            return Ok(None);
        }
        let kind = self.name()?;
        let mut params = BTreeMap::new();
        if self.word("with") {
            loop {
                let key = self.name()?;
                if !self.punct("=") {
                    return Err(self.fault());
                }
                params.insert(key, self.value()?);
                if !self.punct(",") {
                    break;
                }
            }
        }
        let owner = params.remove("owner").unwrap_or_default();
        Ok(Some(VindexSpec { kind, params, owner }))
    }

    /// A parameter's value: everything up to the next blank or comma, or a string.
    fn value(&mut self) -> Result<String, SyntaxError> {
        let first = *self.tokens.get(self.at).ok_or_else(|| self.fault())?;
        self.at += 1;
        if first.kind == TokenKind::String {
            let value = first.string_value(self.sql.as_bytes()).unwrap_or_default();
            return Ok(String::from_utf8_lossy(&value).into_owned());
        }
        let mut end = first.end;
        while let Some(token) = self.tokens.get(self.at)
            && token.start == end
            && !token.is_punct(self.sql.as_bytes(), ",")
            && !token.is_punct(self.sql.as_bytes(), ";")
        {
            end = token.end;
            self.at += 1;
        }
        Ok(self.sql[first.start..end].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(sql: &str) -> (String, Command) {
        parse_vschema_ddl(sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    fn spec(kind: &str, params: &[(&str, &str)], owner: &str) -> VindexSpec {
        let params = params.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        VindexSpec { kind: kind.into(), params, owner: owner.into() }
    }

    #[test]
    fn every_form() {
        assert_eq!(
            parsed(
                "alter vschema create vindex ks.l using lookup with owner=user, table=name_user_idx, from='a,b', to=user_id"
            ),
            (
                "ks".into(),
                Command::CreateVindex {
                    name: "l".into(),
                    spec: spec("lookup", &[("table", "name_user_idx"), ("from", "a,b"), ("to", "user_id")], "user")
                }
            )
        );
        assert_eq!(parsed("alter vschema drop vindex h"), (String::new(), Command::DropVindex { name: "h".into() }));
        assert_eq!(parsed("alter vschema add table ks.t").1, Command::AddTable { table: "t".into() });
        assert_eq!(parsed("alter vschema drop table t").1, Command::DropTable { table: "t".into() });
        assert_eq!(parsed("alter vschema add sequence s").1, Command::AddSequence { table: "s".into() });
        assert_eq!(
            parsed("alter vschema on ks.t add vindex h (a, `b`) using hash"),
            (
                "ks".into(),
                Command::AddColumnVindex {
                    table: "t".into(),
                    name: "h".into(),
                    columns: vec!["a".into(), "b".into()],
                    spec: Some(spec("hash", &[], ""))
                }
            )
        );
        assert_eq!(
            parsed("alter vschema on t drop vindex h").1,
            Command::DropColumnVindex { table: "t".into(), name: "h".into() }
        );
        assert_eq!(
            parsed("alter vschema on t add auto_increment id using ks.seq").1,
            Command::AddAutoIncrement { table: "t".into(), column: "id".into(), sequence: "ks.seq".into() }
        );
        assert!(parse_vschema_ddl("alter vschema create vindex h").is_err());
        assert!(parse_vschema_ddl("alter vschema on t add vindex h").is_err());
        assert!(parse_vschema_ddl("alter vschema add table t x").is_err());
    }
}
