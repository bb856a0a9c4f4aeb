//! Statements that go to shards.
//!
//! Owns: from a planned route to calls: its shards, its text, the transaction it runs in, and what its
//! result leaves in the session.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use planner::{Destination, Opcode, Route, Target};
use vterrors::{Code, MysqlError, Result, VtError};
use vtproto::{
    query::{self, QueryResult},
    topodata::TabletType,
    vtgate::CommitOrder,
};
use vtsql::{BindVars, Normalized, StatementKind};

use super::{
    Executor, Output, Prepared, Work,
    bulk::{Bulk, Rows},
    insert::with_margins,
    places::Place,
};
use crate::{
    caller::Caller,
    scatter::{Effect, ShardQuery, put_together},
    session::Session,
};

impl Executor {
    /// Runs a route.
    #[expect(clippy::too_many_arguments, reason = "everything a statement consists of")]
    pub(super) async fn route(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        prepared: &Prepared,
        route: &Route,
        normalized: &Normalized,
        vars: Arc<BindVars>,
        stream: bool,
    ) -> Result<Output> {
        // Not for what is read to find the shards.
        let raw = std::mem::take(&mut work.raw);
        let caller = work.caller;
        let tablet_type = target.tablet_type;
        if route.needs_connection && !session.in_transaction() {
            return Err(VtError::new(
                Code::Unimplemented,
                "locks that belong to a connection are only supported inside a transaction",
            ));
        }
        let effect = effect(normalized.kind, route);
        let places = match self.places(work, session, tablet_type, route, &vars).await? {
            Some(places) => places,
            // No row is meant: mysqld still says which columns there are.
            None if effect == Effect::Read => {
                let any = &Destination::AnyShard;
                let targets = self.parts.resolver.resolve(&route.keyspace, tablet_type, any).await?;
                let vars = match &route.destination {
                    Destination::Vindex(destination) => self.whole(destination, &vars),
                    _ => vars.clone(),
                };
                targets.into_iter().map(|target| (target, vars.clone())).collect()
            }
            None => Vec::new(),
        };
        check_shards(route, &normalized.sql, &places)?;
        if route.is_ddl && session.in_transaction() {
            // As in MySQL: it ends the transaction.
            self.transactions.commit(caller, session).await?;
        } else if !session.pb.autocommit
            && !session.in_transaction()
            && tablet_type == TabletType::Master
            && (effect == Effect::Write || normalized.kind == StatementKind::Select)
        {
            self.transactions.begin(caller, session).await?;
        }
        if let Some(merge) = &route.merge
            && places.len() > 1
        {
            let merging = self.merge(work, session, target, prepared, route, merge, normalized, vars, places, stream);
            return Box::pin(merging).await;
        }
        let text = self.text(work, prepared, route, normalized);
        let select_limit = match normalized.kind {
            StatementKind::Select if places.len() > 1 => {
                usize::try_from(session.options().sql_select_limit).unwrap_or(0)
            }
            _ => 0,
        };
        // Nobody between the tablet and the client looks at the rows.
        let raw = raw && effect == Effect::Read && !prepared.calc_found_rows && select_limit == 0;
        let queries: Vec<ShardQuery> = places
            .into_iter()
            .map(|(target, bind_variables)| ShardQuery { target, sql: text.clone(), bind_variables, raw })
            .collect();
        let shards = queries.len() as u64;
        work.shard_queries += shards;
        prepared.count(queries.len());
        // Outside of a transaction each statement is one of its own.
        if effect == Effect::Write && session.is_read_only() {
            let text = "Cannot execute statement in a READ ONLY transaction.";
            return Err(MysqlError::new(1792, "25006", text).into());
        }
        let wrap = |error: VtError| match route.error_context {
            Some(context) => error.wrap(context),
            None => error,
        };
        if stream
            && effect == Effect::Read
            && !prepared.calc_found_rows
            && select_limit == 0
            && !route.scatter_errors_as_warnings
        {
            let rows = self.parts.scatter.stream_many(caller, session, &queries).await.map_err(wrap)?;
            let context = route.error_context;
            let rows = rows.map_err(move |error| match context {
                Some(context) => error.wrap(context),
                None => error,
            });
            return Ok(Output::Rows(rows.boxed()));
        }
        let found_rows = prepared.calc_found_rows.then(|| queries.first().cloned()).flatten();
        let outcome = match found_rows {
            Some(query) => Box::pin(self.with_found_rows(caller, session, query)).await,
            None if effect == Effect::Read && route.scatter_errors_as_warnings => {
                put_together(self.tolerant(caller, session, &queries).await?)
            }
            None if effect == Effect::Write && queries.len() > 1 && !session.in_transaction() => {
                let sorted = sorted_by_shard(queries);
                if route.multi_shard_autocommit {
                    self.parts.scatter.execute_each(caller, session, &sorted).await
                } else {
                    self.in_own_transaction(caller, session, &sorted, false).await
                }
            }
            None => match (&queries[..], work.sink) {
                ([query], Some(sink)) if raw => {
                    self.parts.scatter.execute_rows(caller, session, query, effect, work.order, sink).await
                }
                ([_, _, ..], Some(sink)) if raw && !session.in_transaction() => {
                    Box::pin(self.parts.scatter.execute_rows_of_many(caller, session, &queries, sink)).await
                }
                _ => self.parts.scatter.execute_many(caller, session, &queries, effect, work.order).await,
            },
        };
        let mut result = outcome.map_err(wrap)?;
        // The same rows were written on each shard.
        if route.opcode == Opcode::Reference && effect == Effect::Write && shards > 0 {
            result.rows_affected /= shards;
        }
        if select_limit > 0 {
            result.rows.truncate(select_limit);
        }
        Ok(Output::Whole(result))
    }

    /// A read whose failures on shards are warnings.
    pub(super) async fn tolerant(
        &self,
        caller: &Caller,
        session: &mut Session,
        queries: &[ShardQuery],
    ) -> Result<Vec<QueryResult>> {
        let (results, failures) = self.parts.scatter.execute_tolerant(caller, session, queries).await?;
        if !failures.is_empty() {
            self.parts.stats.partial_scatter.inc();
        }
        for error in failures {
            session.warn(u32::from(MysqlError::from(&error).errno), error.to_string());
        }
        Ok(results)
    }

    /// A write to several shards in autocommit mode: all of it or nothing, as far as the
    /// transaction mode promises. `at_once`: it waits for no rows of others.
    pub(super) async fn in_own_transaction(
        &self,
        caller: &Caller,
        session: &mut Session,
        queries: &[ShardQuery],
        at_once: bool,
    ) -> Result<QueryResult> {
        self.transactions.begin_own(caller, session).await?;
        let scatter = &self.parts.scatter;
        let order = CommitOrder::Normal;
        let outcome = if at_once {
            scatter.execute_at_once(caller, session, queries, Effect::Write, order).await
        } else {
            scatter.execute_many(caller, session, queries, Effect::Write, order).await
        };
        self.transactions.end(caller, session, outcome).await
    }

    /// `select sql_calc_found_rows …`: the number has to come from the same connection.
    async fn with_found_rows(&self, caller: &Caller, session: &mut Session, query: ShardQuery) -> Result<QueryResult> {
        let own = !session.in_transaction() && query.target.tablet_type() == TabletType::Master;
        if own {
            self.transactions.begin_own(caller, session).await?;
        }
        let scatter = &self.parts.scatter;
        let outcome = async {
            let order = CommitOrder::Normal;
            let result = scatter.execute_one(caller, session, &query, Effect::Read, order).await?;
            let count =
                ShardQuery { sql: "select found_rows()".into(), bind_variables: Arc::default(), ..query.clone() };
            let count = scatter.execute_one(caller, session, &count, Effect::Read, order).await?;
            session.pb.found_rows = first_value(&count).and_then(|v| v.parse().ok()).unwrap_or_default();
            Ok(result)
        }
        .await;
        if own {
            self.transactions.rollback(caller, session).await;
        }
        outcome
    }

    /// The text for tablets, with the comments that the client put around it.
    pub(super) fn text(
        &self,
        work: &Work<'_>,
        prepared: &Prepared,
        route: &Route,
        normalized: &Normalized,
    ) -> Arc<str> {
        let text = match &work.bulk {
            Some(Bulk { rows: Rows::Text(text), .. }) => text,
            _ => &prepared.text,
        };
        if normalized.leading.is_empty() && normalized.trailing.is_empty() && !route.unfriendly {
            return text.clone();
        }
        let mut text = text.to_string();
        if route.unfriendly {
            self.parts.stats.unfriendly.inc();
            text.push_str(" /* vtgate:: filtered_replication_unfriendly */");
        }
        with_margins(&text, normalized).into()
    }

    /// Runs a text of our own on some shard of a keyspace, in the session's transaction if there is
    /// one there.
    pub(super) async fn on_any_shard(
        &self,
        caller: &Caller,
        session: &mut Session,
        keyspace: &str,
        sql: &str,
        vars: BindVars,
    ) -> Result<QueryResult> {
        let tablet_type = self.target(session)?.tablet_type;
        let targets = self.parts.resolver.resolve(keyspace, tablet_type, &Destination::AnyShard).await?;
        let [target] = <[query::Target; 1]>::try_from(targets)
            .map_err(|_| VtError::new(Code::Internal, "any shard is not one shard"))?;
        let query = ShardQuery { target, sql: sql.into(), bind_variables: Arc::new(vars), raw: false };
        self.parts.scatter.execute_one(caller, session, &query, Effect::Read, CommitOrder::Normal).await
    }
}

/// Everybody locks rows in the same order.
fn sorted_by_shard(mut queries: Vec<ShardQuery>) -> Vec<ShardQuery> {
    queries.sort_by(|a, b| a.target.shard.cmp(&b.target.shard));
    queries
}

/// Whether failures of a statement are to be warnings.
pub(super) fn tolerates(primitive: &planner::Primitive) -> bool {
    matches!(primitive, planner::Primitive::Route(route) if route.scatter_errors_as_warnings && !route.is_write)
}

/// What a route's statement does.
pub(super) fn effect(kind: StatementKind, route: &Route) -> Effect {
    match kind {
        _ if route.is_write => Effect::Write,
        _ if route.is_ddl => Effect::Other,
        StatementKind::Select if route.opcode == Opcode::NextSequence => Effect::Reserve,
        StatementKind::Select | StatementKind::Show | StatementKind::Explain | StatementKind::Describe => Effect::Read,
        _ => Effect::Other,
    }
}

/// The error for an unsharded keyspace with none or several shards.
pub(super) fn not_one_shard(keyspace: &str, shards: usize) -> VtError {
    let text = format!("Keyspace does not have exactly one shard: {keyspace} has {shards}");
    VtError::new(Code::FailedPrecondition, text)
}

/// Refuses more shards than the statement can have.
pub(super) fn check_shards(route: &Route, sql: &str, targets: &[Place]) -> Result<()> {
    if targets.len() == 1 {
        return Ok(());
    }
    if route.opcode == Opcode::Unsharded {
        return Err(not_one_shard(&route.keyspace, targets.len()));
    }
    if route.single_shard {
        let to = match &route.destination {
            Destination::AnyShard => "DestinationAnyShard()".to_string(),
            Destination::AllShards => "DestinationAllShards()".to_string(),
            Destination::Explicit(keyrange::Destination::Shard(name)) => format!("DestinationShard({name})"),
            Destination::Explicit(keyrange::Destination::KeyspaceId(id)) => format!("DestinationKeyspaceID({id})"),
            Destination::Explicit(keyrange::Destination::ExactKeyRange(range)) => {
                format!("DestinationExactKeyRange({range})")
            }
            Destination::Vindex(_) => "DestinationKeyspaceIDs()".to_string(),
            Destination::KeyspaceIds(ids) => {
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                format!("DestinationKeyspaceIDs({})", ids.join(","))
            }
        };
        let text = format!("Destination can only be a single shard for statement: {sql}, got: {to}");
        return Err(VtError::new(Code::InvalidArgument, text));
    }
    Ok(())
}

/// The first column of the first row, as text.
fn first_value(result: &QueryResult) -> Option<String> {
    let row = result.rows.first()?;
    let length = usize::try_from(*row.lengths.first()?).ok()?;
    Some(String::from_utf8_lossy(row.values.get(..length)?).into_owned())
}
