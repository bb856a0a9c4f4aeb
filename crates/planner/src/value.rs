//! Values that a plan knows before it runs, and vindexes asked with them.

use std::sync::Arc;

use vindex::Vindex;
use vterrors::{Code, VtError};
use vtproto::query::{BindVariable, Type};
use vtsql::{BindVars, Item, ItemKind, ast};

/// A value of a statement: written in it, or to come in a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanValue {
    Literal(vindex::Value),
    Variable(String),
}

impl PlanValue {
    pub fn null() -> Self {
        Self::Literal(vindex::Value::null())
    }

    /// The value of an expression that is no more than one.
    pub(crate) fn of_expr(expr: &ast::Expr) -> Option<Self> {
        use ast::{Expr, Value};
        match expr {
            Expr::Nested(inner) => Self::of_expr(inner),
            Expr::Value(value) => match &value.value {
                Value::Number(text, _) => Some(Self::number(text)),
                Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => {
                    // The tree keeps literals as they are written; one with an escape is left to mysqld.
                    let plain = !text.contains(['\\', '\'', '"']);
                    plain.then(|| Self::Literal(vindex::Value::new(Type::Varchar, text.as_bytes())))
                }
                Value::Null => Some(Self::null()),
                Value::Placeholder(name) => name.strip_prefix(':').map(|name| Self::Variable(name.to_owned())),
                _ => None,
            },
            Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match Self::of_expr(expr)? {
                Self::Literal(value) if value.kind != Type::Varchar && !value.bytes.starts_with(b"-") => {
                    Some(Self::number(&format!("-{}", String::from_utf8_lossy(&value.bytes))))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of an item of an INSERT. `Err` says why there is none.
    pub(crate) fn of_item(item: &Item) -> Result<Self, VtError> {
        match &item.kind {
            ItemKind::Variable(name) => Ok(Self::Variable(name.clone())),
            ItemKind::Integer | ItemKind::Number => Ok(Self::number(&item.text)),
            ItemKind::String(bytes) => Ok(Self::Literal(vindex::Value::new(Type::Varchar, bytes.clone()))),
            ItemKind::Null => Ok(Self::null()),
            ItemKind::Subquery => Err(VtError::new(Code::Unimplemented, "unsupported: subquery in insert values")),
            ItemKind::Default | ItemKind::Expression => Err(VtError::new(
                Code::Unimplemented,
                format!(
                    "could not compute value for vindex or auto-inc column: expression is too complex '{}'",
                    item.text
                ),
            )),
        }
    }

    fn number(text: &str) -> Self {
        let kind = if text.parse::<i64>().is_ok() {
            Type::Int64
        } else if text.parse::<u64>().is_ok() {
            Type::Uint64
        } else {
            Type::Decimal
        };
        Self::Literal(vindex::Value::new(kind, text.as_bytes()))
    }

    /// The value, with the variables of a run.
    ///
    /// Errors: a variable that is missing, or holds a list.
    pub fn resolve(&self, vars: &BindVars) -> Result<vindex::Value, VtError> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Variable(name) => {
                let var = vars
                    .get(name)
                    .ok_or_else(|| VtError::new(Code::InvalidArgument, format!("missing bind var {name}")))?;
                vindex_value(var.r#type, &var.value, name)
            }
        }
    }
}

/// A wire value as vindexes see it.
fn vindex_value(kind: i32, bytes: &[u8], name: &str) -> Result<vindex::Value, VtError> {
    match Type::try_from(kind) {
        Ok(Type::Tuple) | Err(_) => {
            Err(VtError::new(Code::InvalidArgument, format!("bind var {name} is not one value")))
        }
        Ok(kind) => Ok(vindex::Value::new(kind, bytes)),
    }
}

/// The values of a list variable.
///
/// Errors: a variable that is missing, or holds no list.
pub fn resolve_list(name: &str, vars: &BindVars) -> Result<Vec<vindex::Value>, VtError> {
    let var = vars.get(name).ok_or_else(|| VtError::new(Code::InvalidArgument, format!("missing bind var {name}")))?;
    if var.r#type() != Type::Tuple {
        return Err(VtError::new(Code::InvalidArgument, format!("bind var {name} is not a list")));
    }
    var.values.iter().map(|value| vindex_value(value.r#type, &value.value, name)).collect()
}

/// A bind variable that holds a vindex's value.
pub fn bind_variable(value: &vindex::Value) -> BindVariable {
    BindVariable { r#type: value.kind.into(), value: value.bytes.clone().into(), values: Vec::new() }
}

/// What a vindex is asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VindexInput {
    /// One row: a value for each of the vindex's columns.
    Row(Vec<PlanValue>),
    /// Any of these values of the only column.
    List(Vec<PlanValue>),
    /// Any value of the list variable of that name.
    ListVariable(String),
}

/// The shards that a vindex names for values of the statement.
#[derive(Debug, Clone)]
pub struct VindexDestination {
    pub keyspace: String,
    pub vindex: Arc<dyn Vindex>,
    pub input: VindexInput,
    /// The list variable that tells each shard its own values of the list.
    pub split: Option<String>,
    /// The statement may go to all shards, each of which answers for its own rows: for values that only mysqld
    /// can compare.
    pub may_scatter: bool,
}

impl PartialEq for VindexDestination {
    fn eq(&self, other: &Self) -> bool {
        (&self.keyspace, self.vindex.name(), &self.input, &self.split)
            == (&other.keyspace, other.vindex.name(), &other.input, &other.split)
    }
}

impl Eq for VindexDestination {}
