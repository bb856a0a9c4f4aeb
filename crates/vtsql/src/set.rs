//! SET, taken apart by our own parser: the general one loses scopes.

use crate::statement::TransactionCharacteristic;

/// A SET statement: its assignments in order.
#[derive(Debug, Clone, PartialEq)]
pub struct SetStatement {
    pub assignments: Vec<Assignment>,
}

/// Where an assignment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// None written: the session.
    Implicit,
    Session,
    Global,
    /// `persist`, `persist_only`.
    Persist,
    VitessMetadata,
}

/// One assignment.
#[derive(Debug, Clone, PartialEq)]
pub enum Assignment {
    /// `[scope] name = value`, `@@scope.name = value`; the name in lower case. `at_signs`: written with `@@`.
    System { scope: Scope, name: String, value: Value, at_signs: bool },
    /// `@name = value` or `:=`; the name in lower case.
    User { name: String, value: Value },
    /// `names x [collate y]`; `None` is DEFAULT.
    Names { charset: Option<String>, collate: Option<String> },
    /// `charset x`, `character set x`.
    Charset(Option<String>),
    /// `[scope] transaction …`.
    Transaction { scope: Scope, characteristics: Vec<TransactionCharacteristic> },
}

/// The right side.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A quoted string, escapes resolved.
    String(String),
    /// A number as written, sign included.
    Number(String),
    /// A bare word (`on`, `off`, `utf8`), as written.
    Word(String),
    /// DEFAULT.
    Default,
    /// NULL.
    Null,
    /// `:name`, after normalising clients.
    BindVar(String),
    /// Anything else, as written.
    Expression(String),
}
