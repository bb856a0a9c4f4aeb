//! The relations of one FROM clause and the columns that say where their rows live.

use vtsql::ast::{Expr, Ident};

use super::place::{CvRef, Known, Place, best_place};

/// A vindex with the names that its columns have here.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub cv: CvRef,
    pub columns: Vec<String>,
}

impl Key {
    fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|own| own.eq_ignore_ascii_case(column))
    }
}

/// A table, or a query in its place.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    /// What columns are qualified with.
    pub alias: String,
    /// The keyspace that may stand in front of it.
    pub qualifier: Option<String>,
    pub place: Place,
    pub keys: Vec<Key>,
    /// All its columns, where the vschema says so.
    pub columns: Option<Vec<String>>,
    /// On the side of an outer join that may be missing.
    pub outer: bool,
    /// What the conditions say of its columns.
    pub known: Vec<(String, Known)>,
}

impl Leaf {
    /// A relation without tables.
    pub fn of_nothing(alias: String) -> Self {
        Self {
            alias,
            qualifier: None,
            place: Place::Nowhere,
            keys: Vec::new(),
            columns: None,
            outer: false,
            known: Vec::new(),
        }
    }

    pub fn has_key(&self, column: &str) -> bool {
        self.keys.iter().any(|key| key.position(column).is_some())
    }

    /// Where its rows live, by the conditions on it.
    pub fn constrained(&self) -> Place {
        if !matches!(self.place, Place::Scatter(_)) {
            return self.place.clone();
        }
        let keys = self.keys.iter().map(|key| {
            let of = |column: &String| -> Vec<Known> {
                let same = self.known.iter().filter(|(name, _)| name.eq_ignore_ascii_case(column));
                same.map(|(_, known)| known.clone()).collect()
            };
            (&key.cv, key.columns.iter().map(of).collect())
        });
        best_place(keys).unwrap_or_else(|| self.place.clone())
    }
}

/// The relations of a FROM clause.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    pub leaves: Vec<Leaf>,
}

/// A column of a relation, so many scopes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnRef {
    pub depth: usize,
    pub leaf: usize,
    pub column: String,
}

/// The column that an expression is, if it is one which some vindex is over. `scopes` has the innermost first.
pub(crate) fn key_column(expr: &Expr, scopes: &[&Scope]) -> Option<ColumnRef> {
    match expr {
        Expr::Nested(inner) => key_column(inner, scopes),
        Expr::Identifier(name) => unqualified(&name.value, scopes),
        Expr::CompoundIdentifier(parts) => qualified(parts, scopes),
        _ => None,
    }
}

fn qualified(parts: &[Ident], scopes: &[&Scope]) -> Option<ColumnRef> {
    let (keyspace, table, column) = match parts {
        [table, column] => (None, table, column),
        [keyspace, table, column] => (Some(keyspace), table, column),
        _ => return None,
    };
    for (depth, scope) in scopes.iter().enumerate() {
        let mut matching = scope.leaves.iter().enumerate().filter(|(_, leaf)| {
            leaf.alias == table.value && keyspace.is_none_or(|ks| leaf.qualifier.as_ref() == Some(&ks.value))
        });
        if let Some((leaf, found)) = matching.next() {
            let unique = matching.next().is_none();
            return (unique && found.has_key(&column.value)).then(|| ColumnRef {
                depth,
                leaf,
                column: column.value.to_ascii_lowercase(),
            });
        }
    }
    None
}

fn unqualified(column: &str, scopes: &[&Scope]) -> Option<ColumnRef> {
    for (depth, scope) in scopes.iter().enumerate() {
        let mut having = scope.leaves.iter().enumerate().filter(|(_, leaf)| leaf.has_key(column));
        if let Some((leaf, _)) = having.next() {
            // Two that have it make it ambiguous, or one column of a USING: no use either way.
            return having.next().is_none().then(|| ColumnRef { depth, leaf, column: column.to_ascii_lowercase() });
        }
        // It goes on outside only when it is known not to be in here.
        let lacks = |leaf: &Leaf| {
            leaf.columns.as_ref().is_some_and(|all| !all.iter().any(|own| own.eq_ignore_ascii_case(column)))
        };
        if !scope.leaves.iter().all(lacks) {
            return None;
        }
    }
    None
}
