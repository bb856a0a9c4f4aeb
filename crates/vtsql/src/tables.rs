//! The tables that a statement names, found on its tokens.
//!
//! The walk follows MySQL's places for tables (FROM and JOIN lists, the heads of DML and DDL) through
//! any nesting and steps over what it does not know, so that a statement the tree parser lacks is
//! routed all the same. Common table expressions and derived tables are no tables.

use crate::cursor::Cursor;
use crate::kind::StatementKind;
use crate::lexer::TokenKind;

/// What a statement does with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    Write,
}

/// A table as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableRef {
    /// Keyspace or database in front of the point.
    pub qualifier: Option<String>,
    pub name: String,
    /// The alias, if it has one.
    pub alias: Option<String>,
    pub access: Access,
    /// Byte span in the statement's text of the qualifier with its point; empty when there is none.
    pub qualifier_span: (usize, usize),
    /// Byte span of the name itself.
    pub name_span: (usize, usize),
}

/// Nesting followed; deeper text is stepped over by brackets.
const MAX_DEPTH: usize = 200;

/// Words that may follow a table where an alias could stand.
const NOT_ALIAS: &[&str] = &[
    "from",
    "where",
    "group",
    "order",
    "having",
    "limit",
    "union",
    "except",
    "intersect",
    "for",
    "lock",
    "into",
    "set",
    "on",
    "using",
    "join",
    "inner",
    "cross",
    "left",
    "right",
    "natural",
    "straight_join",
    "use",
    "force",
    "ignore",
    "partition",
    "values",
    "value",
    "select",
    "window",
    "procedure",
    "with",
    "returning",
    "read",
    "write",
    "end",
    "minus",
    "key",
    "to",
    "add",
    "drop",
    "table",
];

/// Words that end an ON condition at its level.
const ENDS_CONDITION: &[&str] = &[
    "where",
    "group",
    "order",
    "having",
    "limit",
    "union",
    "except",
    "intersect",
    "for",
    "lock",
    "into",
    "set",
    "on",
    "using",
    "join",
    "inner",
    "cross",
    "natural",
    "straight_join",
    "window",
    "procedure",
    "returning",
];

pub(crate) struct Tables<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    found: Vec<TableRef>,
    ctes: Vec<String>,
    depth: usize,
}

/// Finds the tables of the statement at the cursor.
pub(crate) fn find(cursor: &mut Cursor<'_>, kind: StatementKind) -> Vec<TableRef> {
    let mut walk = Tables { cursor, found: Vec::new(), ctes: Vec::new(), depth: 0 };
    walk.statement(kind);
    let Tables { mut found, ctes, .. } = walk;
    found.retain(|t| t.qualifier.is_some() || !ctes.iter().any(|cte| cte.eq_ignore_ascii_case(&t.name)));
    found
}

impl Tables<'_, '_> {
    fn statement(&mut self, kind: StatementKind) {
        use StatementKind::*;
        match kind {
            Insert | Replace | Update | Delete => {
                while !self.cursor.done() && !self.cursor.is_any(&["insert", "replace", "update", "delete"]) {
                    self.common_tables_or_step();
                }
                self.cursor.next();
                match kind {
                    Update => self.update(),
                    Delete => self.delete(),
                    _ => self.insert(),
                }
                self.block(true);
            }
            Ddl => self.ddl(),
            Describe | Explain => {
                self.cursor.next();
                self.explained();
            }
            LockTables => {
                self.cursor.at += 2;
                self.list(Access::Write, |walk| {
                    walk.cursor.skip_any(&["read", "local", "low_priority", "write", "concurrent"]);
                });
            }
            Maintenance => {
                while !self.cursor.done() && !self.cursor.is_any(&["table", "tables"]) {
                    self.cursor.next();
                }
                self.cursor.next();
                self.list(Access::Read, |_| {});
            }
            Load => {
                while !self.cursor.done() && (!self.cursor.is("into") || !self.cursor.is_at(1, "table")) {
                    self.cursor.next();
                }
                self.cursor.at += 2;
                self.name(Access::Write);
            }
            Call => {
                self.cursor.next();
                self.name(Access::Write);
                self.block(false);
            }
            Flush => {
                while !self.cursor.done() && !self.cursor.is_any(&["table", "tables"]) {
                    self.cursor.next();
                }
                self.cursor.next();
                if self.cursor.peek().is_some_and(|t| t.name(self.cursor.bytes()).is_some()) && !self.cursor.is("with")
                {
                    self.list(Access::Read, |_| {});
                }
            }
            Select | Stream => self.block(true),
            Do | Set => self.block(false),
            _ => {}
        }
    }

    /// Behind EXPLAIN or DESCRIBE: options, then a statement or a table.
    fn explained(&mut self) {
        loop {
            if self.cursor.is_any(&["extended", "partitions", "analyze"]) {
                self.cursor.next();
            } else if self.cursor.is("format") {
                self.cursor.at += 3;
            } else {
                break;
            }
        }
        let Some(token) = self.cursor.peek() else { return };
        let kind = crate::kind::preview(&self.cursor.sql[token.start..]);
        if kind == StatementKind::Select || kind.is_dml() {
            self.statement(kind);
        } else if !self.cursor.is("for") {
            self.name(Access::Read);
        }
    }

    /// `WITH a AS (…), b AS (…)`, or one step over anything else.
    fn common_tables_or_step(&mut self) {
        if !self.cursor.take("with") {
            if self.cursor.is_punct("(") {
                self.parens();
            } else {
                self.cursor.next();
            }
            return;
        }
        self.cursor.take("recursive");
        loop {
            let Some(name) = self.cursor.name() else { return };
            self.ctes.push(name);
            if self.cursor.is_punct("(") {
                self.cursor.skip_parens();
            }
            self.cursor.take("as");
            if !self.cursor.is_punct("(") {
                return;
            }
            self.parens();
            if !self.cursor.take_punct(",") {
                return;
            }
        }
    }

    /// At `(`: everything to its `)`.
    fn parens(&mut self) {
        if self.depth >= MAX_DEPTH {
            self.cursor.skip_parens();
            return;
        }
        self.cursor.next();
        self.depth += 1;
        self.block(false);
        self.depth -= 1;
        self.cursor.take_punct(")");
    }

    /// Everything to the end of this level. `query`: FROM begins a table list; otherwise only after a
    /// SELECT, since `extract(year from d)` and its like have the word too.
    fn block(&mut self, mut query: bool) {
        let mut starts = true;
        while let Some(token) = self.cursor.peek() {
            if token.is_punct(self.cursor.bytes(), ")") && self.depth > 0 {
                return;
            }
            if token.is_punct(self.cursor.bytes(), "(") {
                self.parens();
            } else if token.kind != TokenKind::Word {
                self.cursor.next();
            } else if self.cursor.is("select") {
                query = true;
                self.cursor.next();
            } else if self.cursor.is("with") && starts {
                self.common_tables_or_step();
            } else if query && self.cursor.is("from") {
                self.cursor.next();
                self.table_list(Access::Read);
            } else if self.cursor.is("table") && starts {
                self.cursor.next();
                self.name(Access::Read);
            } else {
                starts = self.cursor.is_any(&["union", "except", "intersect", "all", "distinct"]);
                self.cursor.next();
                continue;
            }
            starts = false;
        }
    }

    /// Table factors between commas and joins.
    fn table_list(&mut self, access: Access) {
        loop {
            self.cursor.take("lateral");
            if self.cursor.take_punct("{") {
                self.cursor.next();
            }
            if self.cursor.is_punct("(") {
                let query =
                    self.cursor.is_at(1, "select") || self.cursor.is_at(1, "with") || self.cursor.is_at(1, "values");
                let nested = self.cursor.peek_at(1).is_some_and(|t| t.is_punct(self.cursor.bytes(), "("));
                if query || (nested && self.holds_query()) || self.depth >= MAX_DEPTH {
                    self.parens();
                } else {
                    self.cursor.next();
                    self.depth += 1;
                    self.table_list(access);
                    // What the list did not take ends with the bracket.
                    self.block(false);
                    self.depth -= 1;
                    self.cursor.take_punct(")");
                }
                self.alias();
                if self.cursor.is_punct("(") {
                    self.cursor.skip_parens();
                }
            } else if self.cursor.is("json_table")
                && self.cursor.peek_at(1).is_some_and(|t| t.is_punct(self.cursor.bytes(), "("))
            {
                self.cursor.next();
                self.parens();
                self.alias();
            } else if !self.aliased(access) {
                return;
            }
            self.hints();
            self.cursor.take_punct("}");
            loop {
                if self.cursor.take("on") {
                    self.condition();
                } else if self.cursor.take("using") {
                    if self.cursor.is_punct("(") {
                        self.cursor.skip_parens();
                    }
                } else {
                    break;
                }
                self.cursor.take_punct("}");
            }
            if self.cursor.take_punct(",") {
                continue;
            }
            if !self.cursor.is_any(&["join", "inner", "cross", "left", "right", "natural", "straight_join", "full"]) {
                return;
            }
            self.cursor.skip_any(&[
                "join",
                "inner",
                "cross",
                "left",
                "right",
                "natural",
                "straight_join",
                "full",
                "outer",
            ]);
        }
    }

    /// Whether the innermost of the brackets at the cursor begins with a query.
    fn holds_query(&self) -> bool {
        let mut ahead = 0;
        while self.cursor.peek_at(ahead).is_some_and(|t| t.is_punct(self.cursor.bytes(), "(")) {
            ahead += 1;
        }
        self.cursor.is_at(ahead, "select") || self.cursor.is_at(ahead, "with")
    }

    /// An ON condition.
    fn condition(&mut self) {
        while let Some(token) = self.cursor.peek() {
            let bytes = self.cursor.bytes();
            if token.is_punct(bytes, "(") {
                self.parens();
                continue;
            }
            if token.is_punct(bytes, ")") || token.is_punct(bytes, ",") || token.is_punct(bytes, "}") {
                return;
            }
            // LEFT and RIGHT are functions, too.
            let joins = |word| self.cursor.is(word) && (self.cursor.is_at(1, "join") || self.cursor.is_at(1, "outer"));
            if self.cursor.is_any(ENDS_CONDITION) || joins("left") || joins("right") {
                return;
            }
            self.cursor.next();
        }
    }

    /// `[qualifier.]name [partition (…)] [[as] alias]`; `false` when there is no name.
    fn aliased(&mut self, access: Access) -> bool {
        if !self.name(access) {
            return false;
        }
        let alias = self.alias();
        if let Some(last) = self.found.last_mut() {
            last.alias = alias;
        }
        true
    }

    /// `[qualifier.]name [partition (…)]`.
    fn name(&mut self, access: Access) -> bool {
        let Some(first) = self.cursor.peek() else { return false };
        if first.kind == TokenKind::Word && self.cursor.is_any(&["select", "set", "values", "where"]) {
            return false;
        }
        let Some(mut name) = self.cursor.name() else { return false };
        let mut qualifier = None;
        let mut qualifier_span = (first.start, first.start);
        let mut name_span = (first.start, first.end);
        if self.cursor.is_punct(".") {
            self.cursor.next();
            let Some(token) = self.cursor.peek() else { return false };
            let Some(second) = self.cursor.name() else { return false };
            qualifier = Some(std::mem::replace(&mut name, second));
            qualifier_span = (first.start, token.start);
            name_span = (token.start, token.end);
        }
        // `delete t.* from …`
        if self.cursor.is_punct(".") && self.cursor.peek_at(1).is_some_and(|t| t.is_punct(self.cursor.bytes(), "*")) {
            self.cursor.at += 2;
        }
        if self.cursor.is("partition") {
            self.cursor.next();
            if self.cursor.is_punct("(") {
                self.cursor.skip_parens();
            }
        }
        self.found.push(TableRef { qualifier, name, alias: None, access, qualifier_span, name_span });
        true
    }

    fn alias(&mut self) -> Option<String> {
        if self.cursor.take("as") {
            return self.cursor.name();
        }
        let token = self.cursor.peek()?;
        match token.kind {
            TokenKind::Quoted => self.cursor.name(),
            TokenKind::Word if !self.cursor.is_any(NOT_ALIAS) => self.cursor.name(),
            _ => None,
        }
    }

    /// `use index (…)` and its like, any number.
    fn hints(&mut self) {
        while self.cursor.is_any(&["use", "force", "ignore"])
            && (self.cursor.is_at(1, "index") || self.cursor.is_at(1, "key") || self.cursor.is_at(1, "vindex"))
        {
            while !self.cursor.done() && !self.cursor.is_punct("(") {
                self.cursor.next();
            }
            self.cursor.skip_parens();
        }
    }

    /// Names between commas, each followed by what `after` takes.
    fn list(&mut self, access: Access, mut after: impl FnMut(&mut Self)) {
        while self.aliased(access) {
            after(self);
            if !self.cursor.take_punct(",") {
                return;
            }
        }
    }

    fn insert(&mut self) {
        self.cursor.skip_any(&["low_priority", "delayed", "high_priority", "ignore"]);
        self.cursor.take("into");
        self.name(Access::Write);
        if self.cursor.is_punct("(")
            && !self.cursor.is_at(1, "select")
            && !self.cursor.is_at(1, "with")
            && !self.holds_query()
        {
            self.cursor.skip_parens();
        }
    }

    fn update(&mut self) {
        self.cursor.skip_any(&["low_priority", "ignore"]);
        self.table_list(Access::Write);
    }

    fn delete(&mut self) {
        self.cursor.skip_any(&["low_priority", "quick", "ignore"]);
        let from_first = self.cursor.take("from");
        let start = self.found.len();
        self.list(Access::Write, |_| {});
        if from_first && !self.cursor.is("using") {
            // `delete from t …`; several tables need USING, which mysqld will say.
            return;
        }
        // `delete a, b from …` and `delete from a, b using …`: the targets are names or aliases of the list.
        self.cursor.next();
        let targets: Vec<TableRef> = self.found.drain(start..).collect();
        self.table_list(Access::Read);
        for table in &mut self.found[start..] {
            let known_as = table.alias.as_ref().unwrap_or(&table.name);
            if targets.iter().any(|target| target.name.eq_ignore_ascii_case(known_as)) {
                table.access = Access::Write;
            }
        }
    }

    fn ddl(&mut self) {
        let verb = self.cursor.word();
        self.cursor.next();
        if verb == "truncate" {
            self.cursor.take("table");
            self.name(Access::Write);
            return;
        }
        // Modifiers up to the kind of object.
        let mut steps = 0;
        while !self.cursor.done() && steps < 12 && !self.cursor.is_any(&["table", "tables", "index", "view", "trigger"])
        {
            // Definers and algorithms stand here; a database or program has no tables of interest.
            if self.cursor.is_any(&[
                "database",
                "schema",
                "procedure",
                "function",
                "event",
                "server",
                "tablespace",
                "logfile",
            ]) {
                return;
            }
            self.cursor.next();
            steps += 1;
        }
        let object = self.cursor.word();
        self.cursor.next();
        self.cursor.skip_any(&["if", "not", "exists"]);
        match (verb.as_str(), object.as_str()) {
            ("drop", "table" | "tables" | "view") => self.list(Access::Write, |_| {}),
            ("rename", _) => self.list(Access::Write, |walk| {
                if walk.cursor.take("to") {
                    walk.name(Access::Write);
                }
            }),
            (_, "index" | "trigger") => {
                while !self.cursor.done() && !self.cursor.is("on") {
                    self.cursor.next();
                }
                self.cursor.next();
                self.name(Access::Write);
            }
            ("create", "table") => {
                self.name(Access::Write);
                if self.cursor.take("like") || (self.cursor.is_punct("(") && self.cursor.is_at(1, "like")) {
                    self.cursor.take_punct("(");
                    self.cursor.take("like");
                    self.name(Access::Read);
                } else {
                    self.created_from();
                }
            }
            ("alter", "table") => {
                self.name(Access::Write);
                while !self.cursor.done() {
                    let renames = self.cursor.take("rename");
                    if renames && !self.cursor.is_any(&["column", "index", "key"]) {
                        self.cursor.skip_any(&["to", "as"]);
                        self.cursor.take_punct("=");
                        self.name(Access::Write);
                    }
                    self.cursor.next();
                }
            }
            _ => {
                self.name(Access::Write);
                self.created_from();
            }
        }
    }

    /// Behind the name in CREATE TABLE and CREATE VIEW: the query, where there is one.
    fn created_from(&mut self) {
        while !self.cursor.done() {
            if self.cursor.is("select") || self.cursor.is("with") && !self.cursor.is_at(1, "parser") {
                return self.block(true);
            }
            if self.cursor.is_punct("(") {
                if self.holds_query() {
                    return self.block(true);
                }
                self.cursor.skip_parens();
            } else {
                self.cursor.next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::statement::parse;

    /// `name`, `q.name`, `name!` for written ones.
    fn tables(sql: &str) -> Vec<String> {
        let statement = parse(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let text = |t: &crate::TableRef| {
            let q = t.qualifier.as_ref().map(|q| format!("{q}.")).unwrap_or_default();
            format!("{q}{}{}", t.name, if t.access == crate::Access::Write { "!" } else { "" })
        };
        statement.tables.iter().map(text).collect()
    }

    #[test]
    fn tables_are_found_wherever_they_stand() {
        for (sql, want) in [
            ("select 1", vec![]),
            (
                "select * from a, ks.b as x left join `c d` y on a.id = left(y.id, 2) right join e using (id) where 1",
                vec!["a", "ks.b", "c d", "e"],
            ),
            (
                "select (select max(x) from b) from a where exists (select 1 from c where extract(year from c.d) = 1)",
                vec!["b", "a", "c"],
            ),
            ("select * from (select * from a) t join (b, c) on t.id = b.id", vec!["a", "b", "c"]),
            ("(select 1 from a) union all (select 2 from b) order by 1", vec!["a", "b"]),
            ("select 1 from a union select 2 from b", vec!["a", "b"]),
            ("with x as (select * from a), y(n) as (select * from x) select * from x join y join b", vec!["a", "b"]),
            ("select trim(leading 'x' from y) from a use index (i) for update", vec!["a"]),
            ("select * from a partition (p0) where b in (select c from ((select c from d)) z)", vec!["a", "d"]),
            ("insert into a (x, y) values (1, (select max(z) from b))", vec!["a!", "b"]),
            ("insert ignore ks.a select * from b on duplicate key update x = 1", vec!["ks.a!", "b"]),
            ("replace into a set x = 1", vec!["a!"]),
            ("insert into a (select * from b)", vec!["a!", "b"]),
            ("update a, b set a.x = b.x where a.id in (select id from c)", vec!["a!", "b!", "c"]),
            ("update low_priority a as t set x = 1", vec!["a!"]),
            ("delete from a where id = 1", vec!["a!"]),
            ("delete x from a as x, b where x.id = b.id", vec!["a!", "b"]),
            ("delete from x using a as x join b where x.id = b.id", vec!["a!", "b"]),
            ("with c as (select 1 from d) delete from a where id in (select * from c)", vec!["d", "a!"]),
            ("create table if not exists ks.a (id int primary key)", vec!["ks.a!"]),
            ("create table a like b", vec!["a!", "b"]),
            ("create table a as select * from b", vec!["a!", "b"]),
            ("create or replace view v as select * from b", vec!["v!", "b"]),
            ("alter table a add column x int, rename to b", vec!["a!", "b!"]),
            ("alter table a rename b, rename column x to y, rename index i to j", vec!["a!", "b!"]),
            ("drop table if exists a, ks.b", vec!["a!", "ks.b!"]),
            ("rename table a to b, c to d", vec!["a!", "b!", "c!", "d!"]),
            ("truncate table t1", vec!["t1!"]),
            ("create unique index i on a (x)", vec!["a!"]),
            ("describe ks.a", vec!["ks.a"]),
            ("explain format=json select * from a", vec!["a"]),
            ("lock tables a read, b as c write", vec!["a!", "b!"]),
            ("analyze table a, b", vec!["a", "b"]),
            ("load data infile 'x' into table ks.a", vec!["ks.a!"]),
            ("select * from json_table('[]', '$' columns(a int path '$.a')) jt, b", vec!["b"]),
            ("select next 5 values from seq", vec!["seq"]),
            ("table a", vec!["a"]),
            ("stream * from a", vec!["a"]),
            ("select case when a then b end from c where d between 1 and 2 group by x having y", vec!["c"]),
            ("select count(*) from a where x = 1 limit 5 into @v", vec!["a"]),
        ] {
            assert_eq!(tables(sql), want, "{sql}");
        }
    }

    #[test]
    fn the_qualifier_can_be_cut_out() {
        let sql = "select * from `k s` . a";
        let statement = parse(sql).expect("valid");
        let (start, end) = statement.tables[0].qualifier_span;
        assert_eq!(format!("{}{}", &sql[..start], &sql[end..]), "select * from a");
    }
}
