//! From the destination of a route to its shards, and what each of them is told.
//!
//! Owns: values of a statement through its vindex to keyspace ids and shards, and the share of a list that each
//! shard gets. Invariant: a value that the vindex cannot map is never taken for a row that is not there, unless
//! it is NULL: mysqld may compare it with what the vindex does not know.

use std::{collections::BTreeMap, sync::Arc};

use keyrange::KeyspaceId;
use planner::{Destination, Route, VindexDestination, VindexInput, bind_variable, resolve_list};
use vindex::{Value, Vindex};
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::{BindVariable, Target, Type},
    topodata::TabletType,
};
use vtsql::BindVars;

use super::{Executor, Work};
use crate::session::Session;

/// A shard and its values.
pub(super) type Place = (Target, Arc<BindVars>);

impl Executor {
    /// The shards of a route. `None`: no row can be meant.
    pub(super) async fn places(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        tablet_type: TabletType,
        route: &Route,
        vars: &Arc<BindVars>,
    ) -> Result<Option<Vec<Place>>> {
        let Destination::Vindex(destination) = &route.destination else {
            let targets = self.parts.resolver.resolve(&route.keyspace, tablet_type, &route.destination).await?;
            return Ok(Some(targets.into_iter().map(|target| (target, vars.clone())).collect()));
        };
        let rows: Vec<Vec<Value>> = match &destination.input {
            VindexInput::Row(row) => vec![row.iter().map(|value| value.resolve(vars)).collect::<Result<_>>()?],
            VindexInput::List(list) => {
                list.iter().map(|value| Ok(vec![value.resolve(vars)?])).collect::<Result<_>>()?
            }
            VindexInput::ListVariable(name) => resolve_list(name, vars)?.into_iter().map(|v| vec![v]).collect(),
        };
        let mapped = self.map(work, session, &destination.keyspace, &destination.vindex, &rows).await?;
        let shards = self.parts.resolver.shard_map(&route.keyspace, tablet_type).await?;
        // The rows that each shard may hold.
        let mut found: Vec<(Target, Vec<usize>)> = Vec::new();
        let mut everywhere = false;
        for (number, (row, place)) in rows.iter().zip(&mapped).enumerate() {
            match place {
                vindex::Destination::AllShards => everywhere = true,
                vindex::Destination::KeyspaceId(id) => add(&mut found, shards.holder(id)?, number),
                vindex::Destination::KeyspaceIds(ids) => {
                    for id in ids {
                        add(&mut found, shards.holder(id)?, number);
                    }
                }
                vindex::Destination::None if is_known_absent(&destination.vindex, row) => {}
                vindex::Destination::None if destination.may_scatter => everywhere = true,
                vindex::Destination::None => return Err(unmapped(row)),
            }
        }
        if everywhere {
            return Ok(Some(shards.all()?.into_iter().map(|target| (target, self.whole(destination, vars))).collect()));
        }
        if found.is_empty() {
            return Ok(None);
        }
        // Everybody locks rows in the same order.
        found.sort_by(|(a, _), (b, _)| a.shard.cmp(&b.shard));
        let told = |rows_here: &Vec<usize>| match &destination.split {
            None => vars.clone(),
            Some(name) => {
                let values = rows_here.iter().map(|number| list_value(&rows[*number][0])).collect();
                with_list(vars, name, values)
            }
        };
        Ok(Some(found.iter().map(|(target, rows_here)| (target.clone(), told(rows_here))).collect()))
    }

    /// What a shard is told that gets the whole list.
    pub(super) fn whole(&self, destination: &VindexDestination, vars: &Arc<BindVars>) -> Arc<BindVars> {
        match (&destination.split, &destination.input) {
            (Some(split), VindexInput::ListVariable(name)) => {
                with_list(vars, split, vars.get(name).map(|list| list.values.clone()).unwrap_or_default())
            }
            _ => vars.clone(),
        }
    }

    /// Where rows live that have these values.
    pub(super) async fn map(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        keyspace: &str,
        vindex: &Arc<dyn Vindex>,
        rows: &[Vec<Value>],
    ) -> Result<Vec<vindex::Destination>> {
        match vindex.lookup() {
            None => vindex.map_rows(rows),
            Some(lookup) => self.lookup_map(work, session, keyspace, lookup, rows).await,
        }
    }
}

fn add(found: &mut Vec<(Target, Vec<usize>)>, target: Target, number: usize) {
    match found.iter_mut().find(|(known, _)| known.shard == target.shard) {
        Some((_, rows)) => rows.push(number),
        None => found.push((target, vec![number])),
    }
}

/// Whether no row can have these values: NULL is equal to nothing, and a lookup table knows all there are.
fn is_known_absent(vindex: &Arc<dyn Vindex>, row: &[Value]) -> bool {
    vindex.needs_lookup() || row.iter().any(|value| value.kind == Type::NullType)
}

/// A value that its vindex cannot map, where the statement needs to know the one shard.
fn unmapped(row: &[Value]) -> VtError {
    VtError::new(
        Code::InvalidArgument,
        format!("could not map {} to a unique keyspace id: DestinationNone()", shown(row)),
    )
}

/// Values as errors show them: `[INT64(1) VARCHAR("a")]`.
pub(super) fn shown(row: &[Value]) -> String {
    let values: Vec<String> = row.iter().map(ToString::to_string).collect();
    format!("[{}]", values.join(" "))
}

fn list_value(value: &Value) -> vtproto::query::Value {
    let variable = bind_variable(value);
    vtproto::query::Value { r#type: variable.r#type, value: variable.value }
}

fn with_list(vars: &Arc<BindVars>, name: &str, values: Vec<vtproto::query::Value>) -> Arc<BindVars> {
    let mut own: BTreeMap<String, BindVariable> = (**vars).clone();
    own.insert(name.to_owned(), BindVariable { r#type: Type::Tuple.into(), value: Default::default(), values });
    Arc::new(own)
}

/// The id of a row that has one place.
pub(super) fn only_id(place: &vindex::Destination) -> Option<&KeyspaceId> {
    match place {
        vindex::Destination::KeyspaceId(id) => Some(id),
        vindex::Destination::KeyspaceIds(ids) => match &ids[..] {
            [only] => Some(only),
            _ => None,
        },
        vindex::Destination::AllShards | vindex::Destination::None => None,
    }
}
