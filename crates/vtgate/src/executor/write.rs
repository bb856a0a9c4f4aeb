//! UPDATE and DELETE of rows that lookup tables point to.
//!
//! Owns: the order of things: the rows are found and locked, the lookup tables changed, then the rows. All of
//! it happens in one transaction, the client's or one of its own.

use std::sync::Arc;

use keyrange::KeyspaceId;
use planner::{OwnedVindexes, Target, Write};
use vindex::Value;
use vterrors::{Code, Result, VtError};
use vtproto::{query::QueryResult, vtgate::CommitOrder};
use vtsql::{BindVars, Normalized};

use super::{
    Executor, Prepared, Work,
    lookup::values,
    places::{Place, only_id, shown},
    route::check_shards,
};
use crate::{
    scatter::{Effect, ShardQuery},
    session::Session,
};

impl Executor {
    /// Runs an UPDATE or DELETE with its lookup tables.
    #[expect(clippy::too_many_arguments, reason = "everything a statement consists of")]
    pub(super) async fn write(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        prepared: &Prepared,
        write: &Write,
        normalized: &Normalized,
        vars: Arc<BindVars>,
    ) -> Result<QueryResult> {
        self.before_write(work.caller, session, target.tablet_type).await?;
        let own = !session.in_transaction();
        if own {
            self.transactions.begin_own(work.caller, session).await?;
        }
        let running = async {
            let route = &write.route;
            // Once: the lookup tables that tell the places may be changed on the way.
            let places = self.places(work, session, target.tablet_type, route, &vars).await?.unwrap_or_default();
            check_shards(route, &normalized.sql, &places)?;
            if let Some(owned) = &write.owned {
                self.keep_in_step(work, session, owned, &places, &vars).await?;
            }
            let queries = to_places(&places, &self.text(work, prepared, route, normalized));
            work.shard_queries += queries.len() as u64;
            prepared.count(queries.len());
            let effect = Effect::Write;
            let outcome = self.parts.scatter.execute_many(work.caller, session, &queries, effect, work.order).await;
            outcome.map_err(|error| match route.error_context {
                Some(context) => error.wrap(context),
                None => error,
            })
        };
        let outcome = running.await;
        if !own {
            return outcome;
        }
        self.transactions.end(work.caller, session, outcome).await
    }

    /// Changes the lookup tables for the rows that are about to be changed.
    async fn keep_in_step(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        owned: &OwnedVindexes,
        places: &[Place],
        vars: &Arc<BindVars>,
    ) -> Result<()> {
        let queries = to_places(places, &owned.select.sql().into());
        work.shard_queries += queries.len() as u64;
        let order = CommitOrder::Normal;
        let found = self.parts.scatter.execute_many(work.caller, session, &queries, Effect::Read, order).await?;
        let rows = values(&found);
        if rows.is_empty() {
            return Ok(());
        }
        let table = &owned.table;
        let primary = &table.column_vindexes[0];
        let width = primary.columns.len();
        let keys: Vec<Vec<Value>> = rows.iter().map(|row| row[..width].to_vec()).collect();
        let mapped = self.map(work, session, &table.keyspace, &primary.vindex, &keys).await?;
        let ids: Vec<KeyspaceId> = keys
            .iter()
            .zip(&mapped)
            .map(|(key, place)| {
                let text = || format!("could not map {} to a keyspace id", shown(key));
                only_id(place).cloned().ok_or_else(|| VtError::new(Code::Unknown, text()))
            })
            .collect::<Result<_>>()?;
        let mut at = width;
        for (index, cv) in table.column_vindexes.iter().enumerate().filter(|(index, cv)| *index > 0 && cv.owned) {
            let columns = at..at + cv.columns.len();
            at = columns.end;
            let Some(lookup) = cv.vindex.lookup() else { continue };
            let old: Vec<(Vec<Value>, KeyspaceId)> =
                rows.iter().zip(&ids).map(|(row, id)| (row[columns.clone()].to_vec(), id.clone())).collect();
            let Some(changed) = &owned.changed else {
                self.lookup_delete(work, session, &table.keyspace, lookup, &old).await?;
                continue;
            };
            let Some(change) = changed.iter().find(|change| change.index == index) else { continue };
            let (mut gone, mut come) = (Vec::new(), Vec::new());
            for (values, id) in old {
                let mut new = values.clone();
                for (value, given) in new.iter_mut().zip(&change.values) {
                    if let Some(given) = given {
                        *value = given.resolve(vars)?;
                    }
                }
                let same = new.iter().zip(&values).all(|(new, old)| {
                    new.bytes == old.bytes
                        && (new.kind == vtproto::query::Type::NullType) == (old.kind == vtproto::query::Type::NullType)
                });
                let keyspace = &table.keyspace;
                if !same && !self.lookup_holds_equal(work, session, keyspace, lookup, &values, &new).await? {
                    gone.push((values, id.clone()));
                    come.push((new, id));
                }
            }
            self.lookup_delete(work, session, &table.keyspace, lookup, &gone).await?;
            self.lookup_create(work, session, table, cv, lookup, &come, false).await?;
        }
        Ok(())
    }
}

fn to_places(places: &[Place], sql: &Arc<str>) -> Vec<ShardQuery> {
    let of = |(target, vars): &Place| ShardQuery {
        target: target.clone(),
        sql: sql.clone(),
        bind_variables: vars.clone(),
        raw: false,
    };
    places.iter().map(of).collect()
}
