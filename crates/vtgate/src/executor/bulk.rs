//! INSERT of many rows, whose values are not lifted into variables.
//!
//! Owns: which statements are planned by their skeleton ([`BulkInsert`]), and what of them replaces the skeleton's one row.
//! Invariant: whatever does not fit, errors too, is left to the ordinary way of a statement.

use std::sync::Arc;

use planner::{InsertRows, InsertedRows, Primitive};
use vtsql::{BindVars, BulkInsert, Normalized};

use super::{Executor, Prepared};
use crate::{plan_cache::Cached, session::Session};

/// Bytes from which on an INSERT is looked at as one of many rows.
const BULK: usize = 2048;

/// A statement of many rows.
pub(super) struct Bulk {
    /// The skeleton.
    pub normalized: Normalized,
    pub entry: Arc<Cached<Prepared>>,
    pub rows: Rows,
}

/// The rows, in the form that the plan needs.
pub(super) enum Rows {
    /// All go to one place: the whole text for it.
    Text(Arc<str>),
    /// Each has its place.
    Each(InsertRows),
}

impl Executor {
    /// Plans a statement of many rows by its skeleton.
    pub(super) fn bulk(&self, session: &mut Session, sql: &[u8], client_vars: &BindVars) -> Option<Bulk> {
        if sql.len() < BULK || !self.parts.config.normalize || !client_vars.is_empty() {
            return None;
        }
        // Strings of another character set reach tablets as values of variables only.
        let bulk = BulkInsert::new(std::str::from_utf8(sql).ok()?)?;
        let normalized = vtsql::normalize(bulk.skeleton().as_bytes()).ok()?;
        let entry = self.plan(session, &normalized).ok()?;
        let rows = match &entry.value.plan.primitive {
            Primitive::Route(_) => Rows::Text(bulk.fill(&entry.value.text)?.into()),
            Primitive::Insert(insert) => match &insert.rows {
                InsertedRows::Written(written) if written.len() == 1 => {
                    Rows::Each(insert.shape.rows(&bulk.items()).ok()?)
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(Bulk { normalized, entry, rows })
    }
}
