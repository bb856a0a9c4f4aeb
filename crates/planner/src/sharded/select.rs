//! SELECT from sharded tables.

use vterrors::VtError;
use vtsql::{
    Needs, Statement, ast,
    lexer::{TokenKind, tokens},
};

use super::{
    analysis::{Analysis, Apart},
    gather::plan_gather,
    place::Place,
    tree, walk,
};
use crate::plan::Context;
use crate::primitive::{Destination, Plan, Primitive};
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
        Ok(together)
            if together.place.is_single()
                || (together.local && walk::order_by(query).is_empty() && !walk::has_limit(query)) =>
        {
            let rows_stay = together.local && walk::order_by(query).is_empty() && !walk::has_limit(query);
            routed(statement, &together.place, rows_stay, text, needs, context)
        }
        _ => {
            let gather = plan_gather(&analysis, statement, query)?;
            Ok(finish_primitive(statement, Primitive::Gather(Box::new(gather)), needs))
        }
    }
}

/// One route to the shards of a place.
fn routed(
    statement: &Statement,
    place: &Place,
    may_scatter: bool,
    mut text: String,
    needs: Needs,
    context: &Context<'_>,
) -> Result<Plan, VtError> {
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
    Ok(finish(statement, route, needs))
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
