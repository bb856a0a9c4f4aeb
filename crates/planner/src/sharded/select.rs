//! SELECT from sharded tables.

use vterrors::VtError;
use vtsql::{
    Needs, Statement, ast,
    lexer::{TokenKind, tokens},
};

use super::{
    analysis::{Analysis, Apart},
    gather::{Gather, plan_gather},
    merge::plan_merge,
    place::Place,
    tree, walk,
};
use crate::plan::Context;
use crate::primitive::{Destination, Plan, Primitive, Route};
use crate::route::{finish, finish_primitive, plain_route, unsupported};
use crate::value::VindexInput;

/// The list variable that tells each shard its own values.
const SPLIT: &str = "__vals";

/// Plans a SELECT. `text` is what tablets may be sent.
pub(crate) fn plan_select(
    statement: &Statement,
    context: &Context<'_>,
    text: String,
    needs: Needs,
) -> Result<Plan, VtError> {
    let ast::Statement::Query(query) = tree(statement)? else {
        return unsupported(&statement.sql);
    };
    let analysis = Analysis { context: *context };
    match analysis.query(query, &[], &Vec::new()) {
        Err(Apart::Fault(error)) => Err(error),
        Ok(together) if together.place.is_single() || (together.local && !is_ordered(query)) => {
            let rows_stay = together.local && !is_ordered(query);
            let route = routed(statement, &together.place, rows_stay, text, context)?;
            Ok(finish(statement, route, needs))
        }
        Ok(together) if together.local => {
            let mut route = routed(statement, &together.place, true, text, context)?;
            let gather = || plan_gather(&analysis, statement, query);
            match plan_merge(statement, query, route.query.sql(), gather) {
                Some(merge) => {
                    route.merge = Some(Box::new(merge));
                    Ok(finish(statement, route, needs))
                }
                None => gathered(statement, gather()?, needs),
            }
        }
        _ => gathered(statement, plan_gather(&analysis, statement, query)?, needs),
    }
}

/// Plans a SELECT that reads from a vindex as if it were a table.
pub(crate) fn plan_vindex_select(statement: &Statement, context: &Context<'_>, needs: Needs) -> Result<Plan, VtError> {
    let ast::Statement::Query(query) = tree(statement)? else {
        return unsupported(&statement.sql);
    };
    gathered(statement, plan_gather(&Analysis { context: *context }, statement, query)?, needs)
}

fn gathered(statement: &Statement, gather: Gather, needs: Needs) -> Result<Plan, VtError> {
    Ok(finish_primitive(statement, Primitive::Gather(Box::new(gather)), needs))
}

/// Whether rows of several shards have to be put in order, or cut.
fn is_ordered(query: &ast::Query) -> bool {
    !walk::order_by(query).is_empty() || walk::has_limit(query)
}

/// One route to the shards of a place.
fn routed(
    statement: &Statement,
    place: &Place,
    may_scatter: bool,
    mut text: String,
    context: &Context<'_>,
) -> Result<Route, VtError> {
    let keyspace = match place.keyspace() {
        Some(keyspace) => keyspace,
        None => crate::plan::any_keyspace(context)?,
    };
    let mut destination = place.destination(may_scatter);
    if let Destination::Vindex(vindex) = &mut destination
        && let VindexInput::ListVariable(name) = &vindex.input
        && let Some(split) = with_own_list(&text, name)
    {
        text = split;
        vindex.split = Some(SPLIT.to_owned());
    }
    let mut route = plain_route(place.opcode(), keyspace, destination, text);
    route.table = statement.tables.first().map(|table| table.name.clone());
    Ok(route)
}

/// The text with `::name` replaced by the list of each shard's own values, if the list is used once.
fn with_own_list(text: &str, name: &str) -> Option<String> {
    let sql = text.as_bytes();
    let mut found = tokens(sql)
        .into_iter()
        .filter(|token| token.kind == TokenKind::ListVar && text[token.start + 2..token.end] == *name);
    let token = found.next()?;
    if found.next().is_some() {
        return None;
    }
    Some(format!("{}::{SPLIT}{}", &text[..token.start], &text[token.end..]))
}
