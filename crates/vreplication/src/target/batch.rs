//! What is sent to mysqld next: statements of one or several source transactions, as one transaction of the
//! target.
//!
//! Invariant: what is kept is at most [`TEXT`] bytes that were not sent, and [`REPLAY`] bytes that were, plus one
//! statement each. A transaction that is larger was sent in pieces and is forgotten; if it fails, the source has to send
//! it again.

use vterrors::Result;
use vtproto::binlogdata::{
    BinlogTransaction, Charset,
    binlog_transaction::{Statement, statement::Category},
};

use super::{
    merge::{Merge, Touched},
    script::Script,
};

/// Bytes of statements that are sent to mysqld at once.
pub(super) const TEXT: usize = 512 << 10;
/// Bytes of an open transaction that are kept to be sent again after a deadlock.
const REPLAY: usize = 4 << 20;
/// Source transactions that become one of the target, at most.
pub(super) const TRANSACTIONS: i64 = 2000;

/// A position of the source with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    pub position: String,
    pub timestamp: i64,
}

/// A whole transaction of changed rows that was taken out of its batch.
#[derive(Debug)]
pub(super) struct Detached {
    /// From `begin` on, without what commits it.
    pub script: Script,
    pub touched: Touched,
    pub reached: Reached,
    pub queries: i64,
    pub transactions: i64,
}

/// What a connection does without being told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    pub charset: Charset,
    /// It takes many rows of parameters with one statement.
    pub bulk: bool,
}

#[derive(Debug)]
pub(super) struct Batch {
    /// Statements not sent yet.
    script: Script,
    /// Changes of rows that come after these statements.
    merge: Merge,
    /// The open transaction has such changes.
    merged: bool,
    /// The rows that the text changes, as long as it changes nothing else.
    touched: Option<Touched>,
    /// What was sent of the open transaction.
    sent: Vec<Script>,
    sent_bytes: usize,
    replayable: bool,
    /// The source transaction that was begun has not ended.
    unfinished: bool,
    /// The time that the source set last, and the one that the text sets last.
    timestamp: Vec<u8>,
    timestamp_set: Vec<u8>,
    charset: Charset,
    session: Session,
    pub reached: Option<Reached>,
    pub queries: i64,
    pub transactions: i64,
    /// The source transaction that was begun changes something.
    changes: bool,
}

impl Batch {
    pub fn new(session: Session) -> Self {
        Self {
            script: Script::default(),
            merge: Merge::new(session.bulk),
            merged: false,
            touched: Some(Touched::default()),
            sent: Vec::new(),
            sent_bytes: 0,
            replayable: true,
            unfinished: false,
            timestamp: Vec::new(),
            timestamp_set: Vec::new(),
            charset: session.charset,
            session,
            reached: None,
            queries: 0,
            transactions: 0,
            changes: false,
        }
    }

    /// Nothing that would have to be sent or committed.
    pub fn is_empty(&self) -> bool {
        self.script.is_empty() && self.merge.is_empty() && !self.is_open()
    }

    /// A transaction is open at mysqld.
    pub fn is_open(&self) -> bool {
        !self.sent.is_empty() || !self.replayable
    }

    /// Everything up to here may be committed.
    pub fn is_whole(&self) -> bool {
        !self.unfinished
    }

    pub fn is_full(&self) -> bool {
        self.script.len() + self.merge.bytes() >= TEXT || self.transactions >= TRANSACTIONS
    }

    /// Adds one message of the source. The end of a source transaction has an event token; before it come as many
    /// messages as it takes.
    ///
    /// # Errors
    /// It has a row of a table that no message has told of.
    pub fn add(&mut self, message: BinlogTransaction) -> Result<()> {
        for mut statement in message.statements {
            if let Some(table) = statement.table.take() {
                if self.merge.has_other(&table) {
                    self.write_merged();
                }
                self.merge.define(table);
            } else if let Some(row) = statement.row.take() {
                self.queries += 1;
                (self.changes, self.merged) = (true, true);
                self.merge.add(row)?;
            } else {
                self.add_statement(&statement);
            }
        }
        match message.event_token {
            Some(token) => {
                self.unfinished = false;
                self.transactions += i64::from(std::mem::take(&mut self.changes));
                self.reached = Some(Reached { position: token.position, timestamp: token.timestamp });
            }
            None => self.unfinished = true,
        }
        Ok(())
    }

    /// Whether changes of rows in the open transaction were put together.
    pub fn has_merged(&self) -> bool {
        self.merged
    }

    pub fn add_statement(&mut self, statement: &Statement) {
        let sql = trimmed(&statement.sql);
        let category = statement.category();
        if sql.is_empty() || matches!(category, Category::BlBegin | Category::BlCommit) {
            return;
        }
        // Each row of a source statement comes with the time of that statement. Other variables serve the statement that
        // follows.
        const TIMESTAMP: &[u8] = b"SET TIMESTAMP";
        let is_set = category == Category::BlSet;
        if is_set && sql.get(..TIMESTAMP.len()).is_some_and(|head| head.eq_ignore_ascii_case(TIMESTAMP)) {
            sql.clone_into(&mut self.timestamp);
            return;
        }
        // It may be about the same rows, whatever it is.
        self.write_merged();
        self.set_charset(statement.charset.unwrap_or(self.session.charset));
        self.set_timestamp();
        self.touched = None;
        if !is_set {
            self.queries += 1;
            self.changes = true;
        }
        self.push(sql);
    }

    /// Appends the changes that wait.
    fn write_merged(&mut self) {
        if !self.merge.is_empty() {
            self.set_charset(self.session.charset);
            self.set_timestamp();
            self.merge.write(&mut self.script, self.touched.as_mut().unwrap_or(&mut Touched::default()));
        }
    }

    fn set_timestamp(&mut self) {
        if self.timestamp != self.timestamp_set {
            let timestamp = self.timestamp.clone();
            self.push(&timestamp);
            self.timestamp_set = timestamp;
        }
    }

    /// From here on the text is in this character set.
    fn set_charset(&mut self, charset: Charset) {
        if charset != self.charset {
            self.push(set_charset(charset).as_bytes());
            self.charset = charset;
        }
    }

    fn push(&mut self, sql: &[u8]) {
        let text = self.script.text();
        text.extend_from_slice(sql);
        // On a line of its own, for a comment may end the statement.
        text.extend_from_slice(b"\n;");
    }

    /// To be called before the commit: the next batch begins with the session's own character set.
    pub fn finish(&mut self) {
        self.write_merged();
        self.set_charset(self.session.charset);
    }

    /// What a replay has to begin with, wherever the attempt before it ended.
    pub fn reset(&self) -> String {
        set_charset(self.session.charset)
    }

    /// What is to be sent now, with `begin` in front of the first piece of a transaction.
    pub fn take(&mut self) -> Script {
        self.write_merged();
        let statements = std::mem::take(&mut self.script);
        if self.is_open() {
            return statements;
        }
        let mut script = Script::from("begin;");
        script.append(statements);
        script
    }

    /// The same without a transaction around it.
    pub fn take_alone(&mut self) -> Script {
        self.write_merged();
        std::mem::take(&mut self.script)
    }

    /// Keeps what was sent, while it is not too much.
    pub fn keep(&mut self, script: Script) {
        self.sent_bytes += script.len();
        self.sent.push(script);
        if self.sent_bytes > REPLAY {
            self.sent.clear();
            self.replayable = false;
        }
    }

    /// Takes a transaction out that is whole, was not begun at mysqld and changes rows of independent tables alone. `None`:
    /// it is of another kind, and stays.
    pub fn detach(&mut self) -> Option<Detached> {
        if self.unfinished || self.is_open() || !self.merged || self.touched.is_none() {
            return None;
        }
        let reached = self.reached.clone()?;
        self.finish();
        let script = self.take();
        let touched = self.touched.take()?;
        let detached = Detached { script, touched, reached, queries: self.queries, transactions: self.transactions };
        self.clear();
        Some(detached)
    }

    /// A batch whose script was taken, to see it through alone.
    pub fn of(detached: &Detached, session: Session) -> Self {
        Self {
            merged: true,
            touched: None,
            reached: Some(detached.reached.clone()),
            queries: detached.queries,
            transactions: detached.transactions,
            ..Self::new(session)
        }
    }

    /// What was sent of the open transaction; `None` when that was too much to keep.
    pub fn sent(&self) -> Option<&[Script]> {
        self.replayable.then_some(&self.sent)
    }

    /// The transaction has ended, and with it all that is known of the batch.
    pub fn clear(&mut self) {
        let mut merge = std::mem::take(&mut self.merge);
        merge.clear();
        *self = Self { merge, ..Self::new(self.session) };
    }
}

fn set_charset(charset: Charset) -> String {
    format!(
        "set @@session.character_set_client={},@@session.collation_connection={},@@session.collation_server={}",
        charset.client, charset.conn, charset.server
    )
}

/// Without blanks and semicolons at its end: an empty statement is an error in a text of several.
fn trimmed(sql: &[u8]) -> &[u8] {
    let end = sql.iter().rposition(|byte| !byte.is_ascii_whitespace() && *byte != b';').map_or(0, |at| at + 1);
    &sql[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtproto::{
        binlogdata::binlog_transaction::{Row, Table},
        query::EventToken,
    };

    const UTF8: Charset = Charset { client: 45, conn: 45, server: 45 };
    const SESSION: Session = Session { charset: UTF8, bulk: false };
    const LATIN1: Charset = Charset { client: 8, conn: 8, server: 8 };

    fn statement(category: Category, sql: &str, charset: Option<Charset>) -> Statement {
        Statement { category: category.into(), charset, sql: sql.as_bytes().to_vec(), ..Statement::default() }
    }

    fn message(statements: Vec<Statement>, position: Option<&str>) -> BinlogTransaction {
        let event_token =
            position.map(|position| EventToken { timestamp: 7, position: position.into(), ..Default::default() });
        BinlogTransaction { statements, event_token }
    }

    fn add(batch: &mut Batch, message: BinlogTransaction) {
        batch.add(message).expect("tables are known");
    }

    fn table() -> Statement {
        let table = Table { number: 1, name: "t".into(), columns: vec!["id".into()], key: vec!["id".into()] };
        Statement { table: Some(table), ..Statement::default() }
    }

    fn inserted(id: &str) -> Statement {
        let row = Row { table: 1, before: vec![], after: id.into(), values: Some(id.into()) };
        Statement { row: Some(row), ..Statement::default() }
    }

    #[test]
    fn rows_and_statements_stay_in_order() {
        let mut batch = Batch::new(SESSION);
        let set = |sql| statement(Category::BlSet, sql, None);
        let statements = vec![
            set("SET TIMESTAMP=5"),
            table(),
            inserted("1"),
            set("SET TIMESTAMP=6"),
            inserted("2"),
            set("SET INSERT_ID=9"),
            statement(Category::BlInsert, "insert a", Some(LATIN1)),
            inserted("3"),
        ];
        add(&mut batch, message(statements, Some("MariaDB/0-1-1")));
        assert!(batch.has_merged());
        let (latin1, utf8) = (set_charset(LATIN1), set_charset(UTF8));
        assert_eq!(
            text(&mut batch),
            format!(
                "begin;SET TIMESTAMP=6\n;insert into `t` (`id`) values (1),(2)\n;SET INSERT_ID=9\n;{latin1}\n;insert a\n;\
                 {utf8}\n;insert into `t` (`id`) values (3)\n;"
            )
        );
        batch.clear();
        assert!(!batch.has_merged());
        // It is known what the number means, and no more what time it is.
        add(&mut batch, message(vec![set("SET TIMESTAMP=6"), inserted("4")], Some("MariaDB/0-1-2")));
        assert_eq!(text(&mut batch), "begin;SET TIMESTAMP=6\n;insert into `t` (`id`) values (4)\n;");
    }

    fn text(batch: &mut Batch) -> String {
        as_text(batch.take())
    }

    fn as_text(mut script: Script) -> String {
        assert_eq!(script.parts().len(), 1);
        String::from_utf8(std::mem::take(script.text())).expect("text")
    }

    #[test]
    fn transactions_become_one() {
        let mut batch = Batch::new(SESSION);
        assert!(batch.is_empty() && batch.is_whole());
        let set = statement(Category::BlSet, "SET TIMESTAMP=5", None);
        add(
            &mut batch,
            message(vec![set.clone(), statement(Category::BlInsert, "insert a;", None)], Some("MariaDB/0-1-1")),
        );
        add(
            &mut batch,
            message(vec![set, statement(Category::BlUpdate, "update b -- x", None)], Some("MariaDB/0-1-2")),
        );
        add(&mut batch, message(vec![], Some("MariaDB/0-1-3")));
        assert_eq!((batch.queries, batch.transactions, batch.is_whole()), (2, 2, true));
        assert_eq!(batch.reached.as_ref().expect("a position").position, "MariaDB/0-1-3");
        assert_eq!(text(&mut batch), "begin;SET TIMESTAMP=5\n;insert a\n;update b -- x\n;");
    }

    #[test]
    fn pieces_of_a_transaction_share_one_begin() {
        let mut batch = Batch::new(SESSION);
        add(&mut batch, message(vec![statement(Category::BlInsert, "insert a", None)], None));
        assert!(!batch.is_whole() && batch.reached.is_none());
        let first = batch.take();
        assert_eq!(as_text(first.clone()), "begin;insert a\n;");
        batch.keep(first.clone());
        assert!(batch.is_open() && !batch.is_empty());
        add(&mut batch, message(vec![statement(Category::BlInsert, "insert b", None)], Some("MariaDB/0-1-1")));
        assert_eq!(text(&mut batch), "insert b\n;");
        assert_eq!((batch.transactions, batch.sent()), (1, Some(&[first][..])));
        batch.keep(Script::from(" ".repeat(REPLAY).as_str()));
        assert!(batch.is_open() && batch.sent().is_none());
        batch.clear();
        assert!(batch.is_empty() && batch.is_whole() && batch.sent().is_some());
    }

    #[test]
    fn a_transaction_of_rows_can_be_taken_out() {
        let mut batch = Batch::new(SESSION);
        add(&mut batch, message(vec![table(), inserted("1")], None));
        assert!(batch.detach().is_none(), "it is not whole");
        let set = statement(Category::BlSet, "SET TIMESTAMP=5", None);
        add(&mut batch, message(vec![set, inserted("2")], Some("MariaDB/0-1-1")));
        let one = batch.detach().expect("rows");
        assert_eq!(as_text(one.script.clone()), "begin;SET TIMESTAMP=5\n;insert into `t` (`id`) values (1),(2)\n;");
        assert_eq!((one.reached.position.as_str(), one.queries, one.transactions), ("MariaDB/0-1-1", 2, 1));
        assert!(batch.is_empty() && batch.reached.is_none() && batch.detach().is_none());
        add(&mut batch, message(vec![inserted("3")], Some("MariaDB/0-1-2")));
        let other = batch.detach().expect("rows");
        assert!(!one.touched.may_meet(&other.touched) && one.touched.may_meet(&one.touched));
        let alone = Batch::of(&other, SESSION);
        assert!(alone.has_merged() && !alone.is_open() && alone.reached == Some(other.reached));
        // A statement may be about any row.
        add(
            &mut batch,
            message(vec![inserted("4"), statement(Category::BlUpdate, "update u", None)], Some("MariaDB/0-1-3")),
        );
        assert!(batch.detach().is_none());
        assert_eq!(text(&mut batch), "begin;insert into `t` (`id`) values (4)\n;update u\n;");
    }

    #[test]
    fn character_sets_follow_the_statements() {
        let mut batch = Batch::new(SESSION);
        add(
            &mut batch,
            message(
                vec![
                    statement(Category::BlInsert, "insert a", Some(LATIN1)),
                    statement(Category::BlInsert, "insert b", Some(LATIN1)),
                    statement(Category::BlInsert, "insert c", None),
                ],
                Some("MariaDB/0-1-1"),
            ),
        );
        let (latin1, utf8) = (set_charset(LATIN1), set_charset(UTF8));
        assert!(latin1.contains("@@session.character_set_client=8,"));
        assert_eq!(text(&mut batch), format!("begin;{latin1}\n;insert a\n;insert b\n;{utf8}\n;insert c\n;"));
        batch.clear();
        add(&mut batch, message(vec![statement(Category::BlInsert, "insert d", Some(LATIN1))], Some("MariaDB/0-1-2")));
        batch.finish();
        assert_eq!(text(&mut batch), format!("begin;{latin1}\n;insert d\n;{utf8}\n;"));
        assert_eq!(batch.reset(), utf8);
    }
}
