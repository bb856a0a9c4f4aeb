//! What a client has said before: transaction, settings, variables, target.
//!
//! Owns: [`Session`], a `vtgate.Session` message (which gRPC clients carry back and forth) with what
//! is worked out from it. Invariant: `shard_sessions` is empty unless `in_transaction` is set.

use std::collections::HashMap;

use planner::Target;
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
    /// Parts of the present statement that have changed something: with none it may be run anew.
    pub parts_done: u32,
    /// What the next transaction, or the open one, has instead of the session's own settings.
    pub transaction: TransactionSettings,
    /// `set session transaction read only`.
    pub read_only: bool,
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

    /// Forgets the transaction, after commit or rollback.
    pub fn reset_transaction(&mut self) {
        self.pb.in_transaction = false;
        self.pb.single_db = false;
        self.pb.shard_sessions.clear();
        self.pb.pre_sessions.clear();
        self.pb.post_sessions.clear();
        self.pb.savepoints.clear();
        self.must_rollback = false;
        self.parts_done = 0;
        self.transaction = TransactionSettings::default();
    }
}
