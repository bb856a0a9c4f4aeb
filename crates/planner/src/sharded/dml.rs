//! UPDATE and DELETE of tables of sharded keyspaces.
//!
//! Owns: their shards, and what has to happen to the lookup tables that the written table maintains: which
//! vindexes change, and the query that finds the rows before they are changed.

use std::sync::Arc;

use vschema::{Table, TableType};
use vterrors::VtError;
use vtsql::{
    Needs, Statement, Template,
    ast::{self, AssignmentTarget, Expr, FromTable, OrderByExpr, TableFactor, TableWithJoins},
    print_tree, quote_identifier,
};

use super::{
    analysis::{Analysis, Apart, last_part},
    place::Place,
    tree,
};
use crate::plan::Context;
use crate::primitive::{Destination, Plan, Primitive, Route};
use crate::route::{finish_primitive, finish_route, plain_route, unsupported};
use crate::value::PlanValue;

/// An UPDATE or DELETE.
#[derive(Debug, Clone)]
pub struct Write {
    pub route: Route,
    pub owned: Option<OwnedVindexes>,
}

/// The lookup tables to keep in step.
#[derive(Debug, Clone)]
pub struct OwnedVindexes {
    pub table: Arc<Table>,
    /// Finds and locks the rows. Its columns are those of the primary vindex, then those of each owned vindex, in
    /// the order of the table's vindexes.
    pub select: Template,
    /// `None`: the rows are deleted, all owned vindexes with them.
    pub changed: Option<Vec<ChangedVindex>>,
}

/// A vindex whose columns an UPDATE sets.
#[derive(Debug, Clone)]
pub struct ChangedVindex {
    /// Which of the table's.
    pub index: usize,
    /// By position of the column: its new value; `None` where it stays.
    pub values: Vec<Option<PlanValue>>,
}

/// An UPDATE or DELETE, whatever it is.
struct Parts<'a> {
    verb: &'static str,
    tables: Vec<TableWithJoins>,
    selection: Option<&'a Expr>,
    order_by: &'a [OrderByExpr],
    limit: Option<&'a Expr>,
    assignments: &'a [ast::Assignment],
    /// The tables that a DELETE of several names.
    deleted: &'a [ast::ObjectName],
}

/// Plans an UPDATE or DELETE. `text` is what tablets may be sent; `table` the first one written to.
pub(crate) fn plan_dml(
    statement: &Statement,
    context: &Context<'_>,
    table: &Arc<Table>,
    text: String,
    needs: Needs,
) -> Result<Plan, VtError> {
    let parts = parts(tree(statement)?)?;
    let analysis = Analysis { context: *context };
    let (together, _) = match analysis.tables(&parts.tables, parts.selection) {
        Ok(found) => found,
        Err(Apart::Fault(error)) => return Err(error),
        Err(Apart::Rows) if parts.tables.iter().any(|t| !t.joins.is_empty()) || parts.tables.len() > 1 => {
            return unsupported("multi-shard or vindex write statement");
        }
        Err(Apart::Rows) => return unsupported("subqueries in sharded DML"),
    };
    let place = together.place;
    for value in parts.assignments.iter().map(|a| &a.value) {
        if !super::walk::subqueries(value).is_empty() {
            return unsupported("subqueries in sharded DML");
        }
    }
    if !matches!(place, Place::Reference(_)) && writes_reference(&analysis, &parts)? {
        // Each shard would change its copy by its own rows, and the copies would part.
        return unsupported("multi-shard or vindex write statement");
    }
    if parts.limit.is_some() && !place.is_single() {
        return unsupported(format_args!("multi shard {} with limit", parts.verb));
    }
    let several = parts.tables.len() > 1 || parts.tables.iter().any(|t| !t.joins.is_empty());
    let owned = if several { refuse_vindexes(statement, context, &parts)? } else { owned(table, &parts)? };
    let keyspace = place.keyspace().unwrap_or(&table.keyspace).to_owned();
    let mut route = plain_route(place.opcode(), &keyspace, place.destination(true), text);
    route.is_write = true;
    route.table = Some(table.name.clone());
    // Each shard is told where its rows live only when that is one place.
    route.unfriendly = !matches!(
        (&route.destination, place.is_single()),
        (Destination::Vindex(_) | Destination::KeyspaceIds(_), true)
    );
    finish_route(statement, &mut route);
    match owned {
        None => Ok(finish_primitive(statement, Primitive::Route(route), needs)),
        Some(owned) => {
            let write = Write { route, owned: Some(owned) };
            Ok(finish_primitive(statement, Primitive::Write(Box::new(write)), needs))
        }
    }
}

/// Whether a table that is whole on each shard may be among those that are written to.
fn writes_reference(analysis: &Analysis<'_>, parts: &Parts<'_>) -> Result<bool, VtError> {
    let factors: Vec<&TableFactor> = parts
        .tables
        .iter()
        .flat_map(|table| std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)))
        .collect();
    for factor in &factors {
        let TableFactor::Table { name, alias, .. } = factor else { continue };
        let Some(own) = last_part(name) else { continue };
        let qualifier = match &name.0[..] {
            [qualifier, _] => qualifier.as_ident().map(|ident| ident.value.as_str()),
            _ => None,
        };
        let (table, _) = analysis.named_table(qualifier, own)?;
        let known_as = alias.as_ref().map_or(own, |alias| alias.name.value.as_str());
        if table.kind == TableType::Reference && (factors.len() == 1 || parts.may_write(known_as)) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Parts<'_> {
    /// Whether a table of several may be written to.
    fn may_write(&self, known_as: &str) -> bool {
        let may_own = |column: &ast::ObjectName| match &column.0[..] {
            [.., table, _] => table.as_ident().is_none_or(|ident| ident.value == known_as),
            _ => true,
        };
        let assigned = self.assignments.iter().any(|assignment| match &assignment.target {
            AssignmentTarget::ColumnName(name) => may_own(name),
            AssignmentTarget::Tuple(names) => names.iter().any(may_own),
        });
        assigned || self.deleted.iter().any(|name| last_part(name).is_some_and(|last| last == known_as))
    }
}

fn parts(tree: &ast::Statement) -> Result<Parts<'_>, VtError> {
    match tree {
        ast::Statement::Update(update) => Ok(Parts {
            verb: "update",
            tables: vec![update.table.clone()],
            selection: update.selection.as_ref(),
            order_by: &update.order_by,
            limit: update.limit.as_ref(),
            assignments: &update.assignments,
            deleted: &[],
        }),
        ast::Statement::Delete(delete) => {
            let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
            Ok(Parts {
                verb: "delete",
                tables: delete.using.as_ref().unwrap_or(from).clone(),
                selection: delete.selection.as_ref(),
                order_by: &delete.order_by,
                limit: delete.limit.as_ref(),
                assignments: &[],
                deleted: &delete.tables,
            })
        }
        other => unsupported(other),
    }
}

/// Statements on several tables may neither change vindex columns nor delete rows that lookup tables point to.
fn refuse_vindexes(
    statement: &Statement,
    context: &Context<'_>,
    parts: &Parts<'_>,
) -> Result<Option<OwnedVindexes>, VtError> {
    for reference in &statement.tables {
        let keyspace = reference.qualifier.as_ref().unwrap_or(&context.target.keyspace);
        let Ok(tables) = context.vschema.find_routed_table(keyspace, &reference.name, context.target.tablet_type)
        else {
            continue;
        };
        for cv in tables.iter().filter(|table| table.sharded).flat_map(|table| &table.column_vindexes) {
            let changed = cv.columns.iter().any(|column| assigned(parts.assignments, column).is_some());
            if changed || (parts.assignments.is_empty() && cv.owned) {
                return unsupported("multi-shard or vindex write statement");
            }
        }
    }
    Ok(None)
}

/// What an assignment list gives to a column: the last one counts.
fn assigned<'a>(assignments: &'a [ast::Assignment], column: &str) -> Option<&'a Expr> {
    let is = |name: &ast::ObjectName| last_part(name).is_some_and(|last| last.eq_ignore_ascii_case(column));
    assignments.iter().rev().find_map(|assignment| match &assignment.target {
        AssignmentTarget::ColumnName(name) => is(name).then_some(&assignment.value),
        AssignmentTarget::Tuple(names) => names.iter().any(is).then_some(&assignment.value),
    })
}

fn owned(table: &Arc<Table>, parts: &Parts<'_>) -> Result<Option<OwnedVindexes>, VtError> {
    let mut changed = Vec::new();
    for (index, cv) in table.column_vindexes.iter().enumerate() {
        let new: Vec<Option<&Expr>> = cv.columns.iter().map(|column| assigned(parts.assignments, column)).collect();
        if new.iter().all(Option::is_none) {
            continue;
        }
        if index == 0 {
            return unsupported(format_args!(
                "You can't update primary vindex columns. Invalid update on vindex: {}",
                cv.name
            ));
        }
        if !cv.owned {
            return unsupported(format_args!(
                "You can only update lookup vindexes. Invalid update on vindex: {}",
                cv.name
            ));
        }
        if parts.limit.is_some() && parts.order_by.is_empty() {
            return unsupported(format_args!(
                "Need to provide order by clause when using limit. Invalid update on vindex: {}",
                cv.name
            ));
        }
        let mut values = Vec::with_capacity(new.len());
        for expr in new {
            let value = expr.map(PlanValue::of_expr);
            if value == Some(None) {
                return unsupported(format_args!("Only values are supported. Invalid update on vindex: {}", cv.name));
            }
            values.push(value.flatten());
        }
        changed.push(ChangedVindex { index, values });
    }
    let deletes = parts.verb == "delete" && table.column_vindexes.iter().any(|cv| cv.owned);
    if changed.is_empty() && !deletes {
        return Ok(None);
    }
    let select = select_rows(table, parts)?;
    Ok(Some(OwnedVindexes { table: table.clone(), select, changed: (!deletes).then_some(changed) }))
}

/// The query that finds the rows which are about to be changed.
fn select_rows(table: &Table, parts: &Parts<'_>) -> Result<Template, VtError> {
    let [TableWithJoins { relation: TableFactor::Table { alias, .. }, .. }] = &parts.tables[..] else {
        return unsupported("multi-shard or vindex write statement");
    };
    let vindexes = table.column_vindexes.iter().enumerate().filter(|(index, cv)| *index == 0 || cv.owned);
    let columns: Vec<String> =
        vindexes.flat_map(|(_, cv)| &cv.columns).map(|column| quote_identifier(column)).collect();
    let mut sql = format!("select {} from {}", columns.join(", "), quote_identifier(&table.name));
    if let Some(alias) = alias {
        sql.push_str(&format!(" as {alias}"));
    }
    if let Some(selection) = parts.selection {
        sql.push_str(&format!(" where {}", print_tree(selection)));
    }
    if !parts.order_by.is_empty() {
        let order: Vec<String> = parts.order_by.iter().map(print_tree).collect();
        sql.push_str(&format!(" order by {}", order.join(", ")));
    }
    if let Some(limit) = parts.limit {
        sql.push_str(&format!(" limit {}", print_tree(limit)));
    }
    sql.push_str(" for update");
    Ok(Template::new(sql))
}
