//! What a plan consists of.

use keyrange::KeyspaceId;
use vtproto::query::{BindVariable, QueryResult};
use vtproto::vtgate::TransactionMode;
use vtsql::{Kill, Needs, Prepare, StatementKind, Template, TransactionCharacteristic};

use crate::sharded::{Gather, Insert, Merge, UnlistedInsert, Write};
use crate::target::Target;
use crate::value::VindexDestination;

/// A plan: what to do, and what to give to it.
#[derive(Debug, Clone)]
pub struct Plan {
    pub kind: StatementKind,
    pub primitive: Primitive,
    /// Session values that the texts refer to by bind variables.
    pub needs: Needs,
    /// Depends on nothing but statement, keyspace, target and vschema, so that it can be cached.
    pub cacheable: bool,
}

/// One step.
#[derive(Debug, Clone)]
pub enum Primitive {
    /// Sends a text to shards.
    Route(Route),
    /// Puts rows on their shards.
    Insert(Box<Insert>),
    /// An INSERT whose columns only the tablets know.
    UnlistedInsert(Box<UnlistedInsert>),
    /// Changes rows, and the lookup tables that point to them.
    Write(Box<Write>),
    /// Brings rows of several shards to one place and selects from them there.
    Gather(Box<Gather>),
    /// Rows known without asking anybody.
    Rows(QueryResult),
    /// Answered by the gate from what it knows.
    Show(ShowAction),
    Set(Vec<SetAction>),
    /// `use …`: the new target, its keyspace known to exist (empty: none).
    Use(Target),
    Begin(Vec<TransactionCharacteristic>),
    Commit,
    Rollback,
    Savepoint {
        action: SavepointAction,
        name: String,
    },
    Kill(Kill),
    /// To be saved for this keyspace, after the caller's right to do so has been checked.
    VschemaDdl {
        keyspace: String,
        command: vschema::Command,
    },
    Prepare(Prepare),
    Execute(vtsql::Execute),
    Deallocate(String),
    /// An empty OK: comments, or statements without an effect here.
    Nothing,
}

/// How a route finds its shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The only shard of an unsharded keyspace.
    Unsharded,
    EqualUnique,
    Equal,
    In,
    Scatter,
    /// A sequence's next values; the text is `select next :n values from seq`.
    NextSequence,
    /// Any shard holds the rows.
    Reference,
    /// information_schema and its like: any shard.
    Dba,
    /// The session's target names the shards.
    ByDestination,
}

/// Shards of a keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    AnyShard,
    AllShards,
    /// Named by the session's target.
    Explicit(keyrange::Destination),
    KeyspaceIds(Vec<KeyspaceId>),
    /// Where a vindex says that the values of the statement live.
    Vindex(VindexDestination),
}

/// Sends `query` to the shards of `destination`.
#[derive(Debug, Clone)]
pub struct Route {
    pub opcode: Opcode,
    pub keyspace: String,
    pub destination: Destination,
    /// The text for tablets, variables found. Margin comments are not in it: the gate puts them back.
    pub query: Template,
    /// Put in front of errors of the tablets (`execInsertUnsharded`).
    pub error_context: Option<&'static str>,
    /// INSERT, UPDATE, DELETE and the like: needs a transaction or autocommit on a master.
    pub is_write: bool,
    /// A schema change or another statement that mysqld runs outside of transactions.
    pub is_ddl: bool,
    /// More than one shard is an error: `Destination can only be a single shard for statement: …`.
    pub single_shard: bool,
    /// To be marked unfriendly to filtered replication: DML sent to explicit shards.
    pub unfriendly: bool,
    /// Must run on one connection together with what follows (LOCK TABLES, `get_lock`): sessions
    /// that hold a transaction have one.
    pub needs_connection: bool,
    /// The main table, for metrics.
    pub table: Option<String>,
    /// `/*vt+ QUERY_TIMEOUT_MS=… */`; 0 is none.
    pub timeout_ms: u64,
    pub scatter_errors_as_warnings: bool,
    pub multi_shard_autocommit: bool,
    /// What several shards answer has to be put in order, or cut.
    pub merge: Option<Box<Merge>>,
}

/// What happens to a savepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavepointAction {
    Create,
    Release,
    RollbackTo,
}

/// Answers from the gate's own knowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShowAction {
    /// Column `Databases`.
    Keyspaces { like: Option<String> },
    /// Column `Shards`.
    Shards { like: Option<String> },
    /// Columns `Cell, Keyspace, Shard, TabletType, State, Alias, Hostname`.
    Tablets { like: Option<String> },
    /// Column `Target`.
    Target,
    /// Columns `Key, Value`.
    Metadata { like: Option<String> },
    /// Columns `Level, Type, Message`.
    Warnings,
}

/// One effect of SET, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum SetAction {
    Autocommit(bool),
    ClientFoundRows(bool),
    SkipQueryPlanCache(bool),
    TransactionMode(TransactionMode),
    /// An `ExecuteOptions.Workload`.
    Workload(vtproto::query::execute_options::Workload),
    /// `None` is DEFAULT.
    SqlSelectLimit(Option<i64>),
    /// Isolation and access mode: for the session or (`next_only`) the next transaction.
    Transaction {
        next_only: bool,
        characteristics: Vec<TransactionCharacteristic>,
    },
    /// `@name`; lower case.
    UserVariable {
        name: String,
        value: SetValue,
    },
    /// A MySQL variable that tablets set on the connection that runs the session's statements.
    SystemVariable {
        name: String,
        value: SettingValue,
    },
    /// Accepted without an effect, with a warning for SHOW WARNINGS if there is one.
    Ignored {
        name: String,
        warning: Option<String>,
    },
    /// `@@vitess_metadata.key = 'value'`; needs the right to change the vschema.
    Metadata {
        key: String,
        value: String,
    },
}

/// The value of a session setting.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingValue {
    /// SQL text of a literal: the setting is `name = text`.
    Sql(String),
    /// Forget the setting.
    Default,
    /// mysqld computes it, with the session's settings in force; the result becomes a literal. A result
    /// for `sql_mode` has to pass [`crate::sysvars::usable_sql_mode`].
    Query(Box<RouteText>),
}

/// A value to give to a user variable.
#[derive(Debug, Clone, PartialEq)]
pub enum SetValue {
    Literal(BindVariable),
    /// The statement's own bind variable of that name.
    BindVar(String),
    /// `select <expression>`: mysqld computes it on this route; one row with one column.
    Query(Box<RouteText>),
}

/// A text and the keyspace on any shard of which it can run.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteText {
    pub keyspace: String,
    pub query: String,
    pub needs: Needs,
}
