//! What a client has said before: transaction, settings, variables, target.
//!
//! Owns: [`Session`], a `vtgate.Session` message (which gRPC clients carry back and forth) with what
//! is worked out from it. Invariant: `shard_sessions` is empty unless `in_transaction` is set.

use std::collections::HashMap;

use planner::Target;
use tokio::time::Instant;
use vterrors::Result;
use vtproto::{
    query::{ExecuteOptions, QueryWarning, execute_options::IncludedFields},
    topodata::TabletType,
    vtgate::{self, CommitOrder, session::ShardSession},
};

/// Most warnings kept for SHOW WARNINGS, as MySQL's default `max_error_count`.
const MAX_WARNINGS: usize = 64;
/// Most texts that PREPARE may keep in one session.
pub const MAX_TEXT_PREPARED: usize = 1024;

/// Names and values that a session hands to the tablet with each statement.
const TABLET_SETTINGS_MAX: usize = 128;

/// One client's session.
#[derive(Debug, Clone, Default)]
pub struct Session {
    pub pb: vtgate::Session,
    /// The parsed `pb.target_string`, for as long as that is the string it was parsed from.
    target: Option<(String, Target)>,
    /// Texts of PREPARE … FROM by name. They do not travel in the message.
    pub prepared: HashMap<String, String>,
    /// The id that KILL and CONNECTION_ID() use; 0 for gRPC clients.
    pub connection_id: u32,
    /// The open transaction can only be rolled back, because a part of it is lost.
    pub must_rollback: bool,
    /// The open transaction was begun for the present statement alone, which has not ended it yet.
    pub own_transaction: bool,
    /// What the present statement waits for; after it, what it was cut short in.
    pub unanswered: Option<Unanswered>,
    /// Parts of the present statement that have changed something: with none it may be run anew.
    pub parts_done: u32,
    /// What the next transaction, or the open one, has instead of the session's own settings.
    pub transaction: TransactionSettings,
    /// `set session transaction read only`.
    pub read_only: bool,
    /// When the open transaction came to its first shard. Not known of a gRPC client's, whose session is a message.
    pub opened: Option<Instant>,
}

/// A call of the open transaction whose answer decides what becomes of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// A statement: a tablet whose call is dropped rolls its part of the transaction back.
    Statement,
    /// The commit, which goes on by itself.
    Commit,
}

/// The transactions on shards that one of vtgate consists of, in the order of their commit.
#[derive(Debug, Default)]
pub struct OpenShards {
    pub pre: Vec<ShardSession>,
    pub normal: Vec<ShardSession>,
    pub post: Vec<ShardSession>,
}

impl OpenShards {
    pub fn is_empty(&self) -> bool {
        self.pre.is_empty() && self.normal.is_empty() && self.post.is_empty()
    }

    pub fn into_all(self) -> Vec<ShardSession> {
        [self.pre, self.normal, self.post].concat()
    }
}

/// Settings of one transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransactionSettings {
    /// An `ExecuteOptions.TransactionIsolation`.
    pub isolation: Option<i32>,
    pub read_only: Option<bool>,
}

impl Session {
    /// A MySQL connection's session as it begins.
    pub fn for_mysql(connection_id: u32, database: &str, client_found_rows: bool) -> Self {
        let options = ExecuteOptions {
            included_fields: IncludedFields::All.into(),
            client_found_rows,
            ..ExecuteOptions::default()
        };
        let pb = vtgate::Session {
            autocommit: true,
            target_string: database.to_string(),
            options: Some(options),
            // What MariaDB answers before the first statement.
            found_rows: 1,
            ..vtgate::Session::default()
        };
        Self { pb, connection_id, ..Self::default() }
    }

    /// A gRPC client's session; one without any gets autocommit.
    pub fn from_message(session: Option<vtgate::Session>) -> Self {
        let pb = session.unwrap_or_else(|| vtgate::Session { autocommit: true, ..vtgate::Session::default() });
        Self { pb, ..Self::default() }
    }

    /// The session's target, parsed once a string.
    ///
    /// # Errors
    /// Those of [`Target::parse_with_default`].
    pub fn target(&mut self, default_type: TabletType) -> Result<Target> {
        match &self.target {
            Some((text, target)) if *text == self.pb.target_string => Ok(target.clone()),
            _ => {
                let target = Target::parse_with_default(&self.pb.target_string, default_type)?;
                self.target = Some((self.pb.target_string.clone(), target.clone()));
                Ok(target)
            }
        }
    }

    pub fn in_transaction(&self) -> bool {
        self.pb.in_transaction
    }

    pub fn options(&mut self) -> &mut ExecuteOptions {
        self.pb.options.get_or_insert_default()
    }

    /// The options to send to a tablet: the session's, and its settings.
    pub fn tablet_options(&self) -> ExecuteOptions {
        let mut options = self.pb.options.clone().unwrap_or_default();
        options.session_settings = self
            .pb
            .system_variables
            .iter()
            .take(TABLET_SETTINGS_MAX)
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        if let Some(isolation) = self.transaction.isolation {
            options.transaction_isolation = isolation;
        }
        options
    }

    /// A session with the same settings and no transaction, for statements of our own.
    pub fn beside(&self) -> Self {
        let pb = vtgate::Session {
            autocommit: true,
            options: self.pb.options.clone(),
            system_variables: self.pb.system_variables.clone(),
            ..vtgate::Session::default()
        };
        Self { pb, ..Self::default() }
    }

    /// The session for one of several statements that run at once: its settings and its transaction.
    pub fn branch(&self) -> Self {
        let mut branch = self.beside();
        branch.pb.in_transaction = self.pb.in_transaction;
        branch.pb.transaction_mode = self.pb.transaction_mode;
        branch.pb.pre_sessions.clone_from(&self.pb.pre_sessions);
        branch.pb.shard_sessions.clone_from(&self.pb.shard_sessions);
        branch.pb.post_sessions.clone_from(&self.pb.post_sessions);
        branch.pb.savepoints.clone_from(&self.pb.savepoints);
        branch.transaction = self.transaction;
        branch.read_only = self.read_only;
        branch.opened = self.opened;
        branch
    }

    /// Takes over what a statement has done in its [`Session::branch`].
    pub fn join(&mut self, branch: Self) {
        let (own, other) = (&mut self.pb, branch.pb);
        let lists = [
            (&mut own.pre_sessions, other.pre_sessions),
            (&mut own.shard_sessions, other.shard_sessions),
            (&mut own.post_sessions, other.post_sessions),
        ];
        for (known, theirs) in lists {
            for open in theirs {
                if !known.iter().any(|k| k.target == open.target && k.transaction_id == open.transaction_id) {
                    known.push(open);
                }
            }
        }
        self.must_rollback |= branch.must_rollback;
        self.parts_done += branch.parts_done;
        self.opened = [self.opened, branch.opened].into_iter().flatten().min();
    }

    /// Takes `sql_select_limit` away for statements that the client does not see; to be given back by
    /// [`Session::set_select_limit`].
    pub fn take_select_limit(&mut self) -> i64 {
        std::mem::take(&mut self.options().sql_select_limit)
    }

    pub fn set_select_limit(&mut self, limit: i64) {
        self.options().sql_select_limit = limit;
    }

    /// Whether the open transaction refuses writes.
    pub fn is_read_only(&self) -> bool {
        self.transaction.read_only.unwrap_or(self.read_only)
    }

    pub fn warn(&mut self, code: u32, message: impl Into<String>) {
        if self.pb.warnings.len() < MAX_WARNINGS {
            self.pb.warnings.push(QueryWarning { code, message: message.into() });
        }
    }

    /// All open transactions on shards, in the order of their commit.
    pub fn all_shard_sessions(&self) -> impl Iterator<Item = &ShardSession> {
        self.pb.pre_sessions.iter().chain(&self.pb.shard_sessions).chain(&self.pb.post_sessions)
    }

    /// The transaction that is open on a shard for statements of an order of commit; 0 when there is none.
    pub fn transaction_on(&self, order: CommitOrder, keyspace: &str, shard: &str, tablet_type: TabletType) -> i64 {
        let open = match order {
            CommitOrder::Pre => &self.pb.pre_sessions,
            CommitOrder::Post => &self.pb.post_sessions,
            CommitOrder::Normal | CommitOrder::Autocommit => &self.pb.shard_sessions,
        };
        open.iter()
            .find(|open| {
                open.target.as_ref().is_some_and(|target| {
                    target.keyspace == keyspace && target.shard == shard && target.tablet_type() == tablet_type
                })
            })
            .map_or(0, |open| open.transaction_id)
    }

    /// Forgets the transaction, which is about to be ended or has been.
    pub fn reset_transaction(&mut self) {
        self.take_transaction();
    }

    /// Takes the transaction out of the session, which has none from here on.
    pub fn take_transaction(&mut self) -> OpenShards {
        let open = OpenShards {
            pre: std::mem::take(&mut self.pb.pre_sessions),
            normal: std::mem::take(&mut self.pb.shard_sessions),
            post: std::mem::take(&mut self.pb.post_sessions),
        };
        self.pb.in_transaction = false;
        self.pb.single_db = false;
        self.pb.savepoints.clear();
        self.must_rollback = false;
        self.own_transaction = false;
        self.unanswered = None;
        self.parts_done = 0;
        self.transaction = TransactionSettings::default();
        self.opened = None;
        open
    }

    /// For how long the transaction has been open on other shards of a keyspace, in milliseconds; 0 if it is not.
    pub fn open_elsewhere_ms(&self, keyspace: &str) -> i64 {
        let of_keyspace = |open: &ShardSession| open.target.as_ref().is_some_and(|target| target.keyspace == keyspace);
        match self.opened {
            Some(opened) if self.all_shard_sessions().any(of_keyspace) => {
                i64::try_from(opened.elapsed().as_millis()).unwrap_or(i64::MAX).max(1)
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_knows_and_tells_since_when_the_transaction_is_open() {
        let open_on = |shard: &str| ShardSession {
            target: Some(vtproto::query::Target {
                keyspace: "customer".into(),
                shard: shard.into(),
                ..Default::default()
            }),
            transaction_id: 1,
        };
        let mut session = Session::default();
        session.pb.in_transaction = true;
        let mut branches = [session.branch(), session.branch()];
        let first = Instant::now();
        for (number, branch) in branches.iter_mut().enumerate() {
            branch.pb.shard_sessions.push(open_on(&number.to_string()));
            branch.opened = Some(first + std::time::Duration::from_millis(number as u64));
        }
        for branch in branches.into_iter().rev() {
            session.join(branch);
        }
        assert_eq!(session.opened, Some(first), "the earliest");
        assert_ne!(session.branch().open_elsewhere_ms("customer"), 0, "a further shard is told of it");
    }
}
