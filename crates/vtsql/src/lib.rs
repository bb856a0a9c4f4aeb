//! SQL as this system needs to see it: nothing outside this crate names `sqlparser`; its tree is [`ast`].
//!
//! Three depths of looking, cheapest first:
//! - [`preview`] and [`normalize`]: one pass over the bytes, no tree. The hot path.
//! - [`parse`]: a [`Statement`]: kind, tables, facts that routing needs, and the parts of statements
//!   that a gate answers itself (SET, SHOW, USE, savepoints …). Works on tokens, so whatever mysqld
//!   accepts passes through.
//! - [`Statement::tree`]: the syntax tree, made when somebody asks for it.
//!
//! Where a statement can go to its shards whole, what the user wrote is what runs, with literals replaced
//! by bind variables ([`normalize`]) and back ([`bind`]). Only what is made of parts is printed from a tree
//! ([`print_tree`]).

mod bind;
mod bulk;
mod canonical;
mod comments;
mod cursor;
mod dialect;
mod error;
mod facts;
mod insert;
mod kind;
pub mod lexer;
mod normalize;
mod quote;
mod rewrite;
pub mod set;
pub mod show;
mod split;
mod statement;
mod tables;
mod words;

/// The nodes of a [`Tree`], for whoever analyses or rewrites one.
pub mod ast {
    pub use sqlparser::ast::*;
}

pub use bind::{BindError, BindVars, Template, bind};
pub use bulk::BulkInsert;
pub use canonical::canonical;
pub use comments::{Directives, MarginComments, expand_version_comments, split_margin_comments};
pub use error::SyntaxError;
pub use facts::{Facts, Locking, NextCount, SchemaName, SessionFunction};
pub use insert::{InsertParts, InsertSource, Item, ItemKind, insert_parts};
pub use kind::{StatementKind, preview};
pub use normalize::{Normalized, fingerprint, normalize};
pub use quote::{quote_identifier, quote_string, unescape};
pub use rewrite::{Needs, Rewritten, VariableSource, rewrite_session, select_item_texts};
pub use split::{split_statements, split_statements_bytes};
pub use statement::{
    DdlVerb, Detail, Execute, ExplainTarget, Kill, Prepare, PrepareSource, Statement, StreamStatement,
    TransactionCharacteristic, Tree, parse, print_tree,
};
pub use tables::{Access, TableRef};
