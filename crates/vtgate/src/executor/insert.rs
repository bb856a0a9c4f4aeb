//! Puts the rows of an INSERT on their shards.
//!
//! Owns: values from sequences, the keyspace id of each row, lookup tables that the table keeps, and one
//! statement for each shard. Invariant: rows on several shards, and rows with their lookup rows, are written in
//! one transaction, the client's or one of their own.

use std::{collections::BTreeMap, sync::Arc};

use keyrange::KeyspaceId;
use planner::{Insert, InsertRows, InsertShape, InsertedRows, Target, UnlistedInsert, bind_variable};
use vindex::Value;
use vschema::{AutoIncrement, ColumnVindex};
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::{self, BindVariable, QueryResult, Type},
    topodata::TabletType,
};
use vtsql::{BindVars, Item, ItemKind, Normalized};

use super::{
    Executor, Output, Prepared, Work,
    bulk::{Bulk, Rows},
    lookup::values,
    places::{only_id, shown},
    route::not_one_shard,
};
use crate::{
    scatter::{Effect, ShardQuery},
    session::Session,
};

/// Rows of a query that are written at once.
const BATCH: usize = 1000;

impl Executor {
    /// Runs an INSERT.
    #[expect(clippy::too_many_arguments, reason = "everything a statement consists of")]
    pub(super) async fn insert(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        prepared: &Prepared,
        insert: &Insert,
        normalized: &Normalized,
        vars: Arc<BindVars>,
    ) -> Result<QueryResult> {
        let keeps_lookups = insert.shape.table.column_vindexes.iter().any(|cv| cv.vindex.needs_lookup());
        let bulk = work.bulk.take();
        let written = match (&bulk, &insert.rows) {
            (Some(Bulk { rows: Rows::Each(rows), .. }), _) | (_, InsertedRows::Written(rows)) => Some(rows),
            (_, InsertedRows::Query(_)) => None,
        };
        let several = written.is_none_or(|rows| rows.len() > 1 && insert.shape.table.sharded);
        self.before_write(work.caller, session, target.tablet_type).await?;
        let own = (several || keeps_lookups) && !session.in_transaction();
        if own
            && !keeps_lookups
            && let Some(rows) = written
        {
            // Rows that all go to one shard need no transaction around them.
            let written =
                self.insert_rows(work, session, target, prepared, &insert.shape, rows, normalized, vars, true);
            return written.await.map_err(|error| error.wrap(context(&insert.shape)));
        }
        if own {
            self.transactions.begin_own(work.caller, session).await?;
        }
        let running = async {
            match (written, &insert.rows) {
                (Some(rows), _) | (None, InsertedRows::Written(rows)) => {
                    self.insert_rows(work, session, target, prepared, &insert.shape, rows, normalized, vars, false)
                        .await
                }
                (None, InsertedRows::Query(plan)) => {
                    self.insert_from(work, session, target, prepared, &insert.shape, plan, normalized, vars).await
                }
            }
        };
        let outcome = running.await.map_err(|error: VtError| error.wrap(context(&insert.shape)));
        if !own {
            return outcome;
        }
        self.transactions.end(work.caller, session, outcome).await
    }

    /// Runs an INSERT without a column list: the tablets know the columns.
    pub(super) async fn insert_unlisted(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        insert: &UnlistedInsert,
        normalized: &Normalized,
        vars: Arc<BindVars>,
    ) -> Result<QueryResult> {
        let table = &insert.table;
        let described = self.described(work, session, target.tablet_type, table).await?;
        let mut columns = Vec::new();
        for row in values(&described) {
            let text = |at: usize| row.get(at).map(|value| String::from_utf8_lossy(&value.bytes).into_owned());
            if !text(5).unwrap_or_default().to_ascii_lowercase().contains("invisible") {
                columns.extend(text(0));
            }
        }
        if columns.is_empty() {
            return Err(VtError::new(Code::NotFound, "no column list").wrap(format_args!("table {}", table.name)));
        }
        let sql = insert.with_columns(&columns);
        let listed = Normalized { fingerprint: vtsql::fingerprint(&sql), sql, ..normalized.clone() };
        let entry = self.plan_for(session, target, &listed)?;
        let running = self.shard_plan(work, session, target, &entry.value, &listed, vars, false);
        match Box::pin(running).await? {
            Output::Whole(result) => Ok(result),
            Output::Rows(_) => Err(VtError::new(Code::Internal, "a stream where none was asked for")),
        }
    }

    /// Runs the statements of an INSERT. `autocommit`: outside of a transaction where one shard has all rows.
    #[expect(clippy::too_many_arguments, reason = "everything a statement consists of")]
    async fn insert_now(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        prepared: &Prepared,
        shape: &InsertShape,
        queries: Vec<ShardQuery>,
        first_generated: Option<i64>,
        autocommit: bool,
    ) -> Result<QueryResult> {
        work.shard_queries += queries.len() as u64;
        prepared.count(queries.len());
        let mut result = if queries.is_empty() {
            QueryResult::default()
        } else if autocommit && queries.len() > 1 && shape.multi_shard_autocommit {
            self.parts.scatter.execute_each(work.caller, session, &queries).await?
        } else if autocommit && queries.len() > 1 {
            self.in_own_transaction(work.caller, session, &queries, shape.only_adds).await?
        } else if shape.only_adds {
            self.parts.scatter.execute_at_once(work.caller, session, &queries, Effect::Write, work.order).await?
        } else {
            self.parts.scatter.execute_many(work.caller, session, &queries, Effect::Write, work.order).await?
        };
        if let Some(first) = first_generated {
            result.insert_id = u64::try_from(first).unwrap_or_default();
        }
        Ok(result)
    }

    /// INSERT … SELECT: the rows of the query, batch by batch.
    #[expect(clippy::too_many_arguments, reason = "everything a statement consists of")]
    async fn insert_from(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        prepared: &Prepared,
        shape: &InsertShape,
        plan: &planner::Plan,
        normalized: &Normalized,
        vars: Arc<BindVars>,
    ) -> Result<QueryResult> {
        let query = self.prepared_part(plan.clone());
        let select = Normalized { leading: String::new(), trailing: String::new(), ..normalized.clone() };
        let select = Normalized { kind: plan.kind, ..select };
        let read = self.shard_plan(work, session, target, &query, &select, vars.clone(), false);
        let Output::Whole(read) = Box::pin(read).await? else {
            return Err(VtError::new(Code::Internal, "a stream where none was asked for"));
        };
        if read.fields.len() != shape.width() {
            return Err(VtError::new(Code::Unknown, "column list doesn't match values"));
        }
        let rows = values(&read);
        let mut total = QueryResult::default();
        for batch in rows.chunks(BATCH) {
            let mut own = (*vars).clone();
            let mut items = Vec::with_capacity(batch.len());
            for (number, row) in batch.iter().enumerate() {
                let mut names = Vec::with_capacity(row.len());
                for (column, value) in row.iter().enumerate() {
                    let name = format!("__row{number}_{column}");
                    own.insert(name.clone(), bind_variable(value));
                    names.push(Item { text: format!(":{name}"), kind: ItemKind::Variable(name) });
                }
                items.push(names);
            }
            let rows = shape.rows(&items)?;
            let own = Arc::new(own);
            let result =
                self.insert_rows(work, session, target, prepared, shape, &rows, normalized, own, false).await?;
            total.rows_affected += result.rows_affected;
            if total.insert_id == 0 {
                total.insert_id = result.insert_id;
            }
        }
        Ok(total)
    }

    /// Writes rows with their lookup rows. `autocommit`: outside of a transaction where one shard has all rows.
    #[expect(clippy::too_many_arguments, reason = "everything a statement consists of")]
    async fn insert_rows(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        prepared: &Prepared,
        shape: &InsertShape,
        rows: &InsertRows,
        normalized: &Normalized,
        vars: Arc<BindVars>,
        autocommit: bool,
    ) -> Result<QueryResult> {
        let mut vars = (*vars).clone();
        let first = match &shape.table.auto_increment {
            Some(auto) => self.generate(work, session, auto, &rows.generate, &mut vars).await?,
            None => None,
        };
        if !shape.table.sharded {
            let only = self.only_shard(shape, target.tablet_type).await?;
            let query = insert_query(only, shape, rows, &(0..rows.len()).collect::<Vec<_>>(), &[], normalized, &vars);
            return self.insert_now(work, session, prepared, shape, vec![query], first, autocommit).await;
        }
        let ids = self.keyspace_ids(work, session, shape, rows, &mut vars).await;
        let ids = ids.map_err(|error| error.wrap("getInsertShardedRoute"))?;
        let lookups_done = session.parts_done;
        let mut across = self.across_cutovers();
        loop {
            across.attempt(session);
            let running = async {
                let queries = self.insert_queries(target, shape, rows, &ids, normalized, &vars).await?;
                self.insert_now(work, session, prepared, shape, queries, first, autocommit).await
            };
            let outcome = running.await;
            // Lookup rows are written, and the statement as a whole cannot be run again. What holds back the rows
            // themselves, none of which is written yet, is waited for here.
            let only_lookups_done = lookups_done > 0 && session.parts_done == 0;
            let outcome = match outcome {
                Err(error) if only_lookups_done => match across.again(session, normalized.sql.len(), error).await {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                outcome => outcome,
            };
            session.parts_done += lookups_done;
            let result = outcome?;
            self.forget_unwritten(work, session, shape, rows, &ids, &vars, result.rows_affected).await?;
            return Ok(result);
        }
    }

    /// Takes back what a lenient INSERT wrote into lookup tables for rows that were there already.
    #[expect(clippy::too_many_arguments, reason = "a statement's context and the rows")]
    async fn forget_unwritten(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        shape: &InsertShape,
        rows: &InsertRows,
        ids: &[Option<KeyspaceId>],
        vars: &BindVars,
        rows_affected: u64,
    ) -> Result<()> {
        let table = &shape.table;
        if !shape.lenient || !table.column_vindexes.iter().any(|cv| cv.owned) {
            return Ok(());
        }
        let written: Vec<usize> = (0..ids.len()).filter(|row| ids[*row].is_some()).collect();
        // A row that was changed counts twice.
        let all_are_new = rows_affected == written.len() as u64 && (!shape.updates || written.len() == 1);
        if all_are_new {
            return Ok(());
        }
        let keys = |index: usize| -> Result<Vec<Vec<Value>>> {
            let resolve = |row: &usize| rows.keys[index][*row].iter().map(|value| value.resolve(vars)).collect();
            written.iter().map(resolve).collect()
        };
        let primary = keys(0)?;
        for (index, cv) in table.column_vindexes.iter().enumerate().skip(1).filter(|(_, cv)| cv.owned) {
            let Some(lookup) = cv.vindex.lookup() else { continue };
            let places = written.iter().filter_map(|row| ids[*row].clone());
            let rows = keys(index)?.into_iter().zip(places).collect();
            self.lookup_forget_unwritten(work, session, table, cv, lookup, rows, &primary).await?;
        }
        Ok(())
    }

    /// The shard of a keyspace that is not sharded.
    async fn only_shard(&self, shape: &InsertShape, tablet_type: TabletType) -> Result<query::Target> {
        let destination = planner::Destination::AllShards;
        let all = self.parts.resolver.resolve(&shape.table.keyspace, tablet_type, &destination).await?;
        let [only] =
            <[query::Target; 1]>::try_from(all).map_err(|all| not_one_shard(&shape.table.keyspace, all.len()))?;
        Ok(only)
    }

    /// The statement for each shard as the shards are now; `ids` are the places of the rows.
    async fn insert_queries(
        &self,
        target: &Target,
        shape: &InsertShape,
        rows: &InsertRows,
        ids: &[Option<KeyspaceId>],
        normalized: &Normalized,
        vars: &BindVars,
    ) -> Result<Vec<ShardQuery>> {
        // Rows by shard, in the order of the statement.
        let mut shards: Vec<(query::Target, Vec<usize>, Vec<&KeyspaceId>)> = Vec::new();
        let map = self.parts.resolver.shard_map(&shape.table.keyspace, target.tablet_type).await?;
        for (row, id) in ids.iter().enumerate() {
            let Some(id) = id else { continue };
            let holder = map.holder(id)?;
            match shards.iter_mut().find(|(known, ..)| known.shard == holder.shard) {
                Some((_, rows, ids)) => {
                    rows.push(row);
                    ids.push(id);
                }
                None => shards.push((holder, vec![row], vec![id])),
            }
        }
        shards.sort_by(|(a, ..), (b, ..)| a.shard.cmp(&b.shard));
        let query = |(holder, chosen, ids): (_, Vec<usize>, Vec<&KeyspaceId>)| {
            insert_query(holder, shape, rows, &chosen, &ids, normalized, vars)
        };
        Ok(shards.into_iter().map(query).collect())
    }

    /// Gives values of the sequence to the rows that have none; the first of them.
    async fn generate(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        auto: &AutoIncrement,
        values: &[planner::PlanValue],
        vars: &mut BindVars,
    ) -> Result<Option<i64>> {
        let zero_is_a_value = session
            .pb
            .system_variables
            .get("sql_mode")
            .is_some_and(|mode| mode.to_ascii_uppercase().contains("NO_AUTO_VALUE_ON_ZERO"));
        let mut given = Vec::with_capacity(values.len());
        for value in values {
            let value = value.resolve(vars)?;
            let missing =
                value.kind == Type::NullType || (!zero_is_a_value && vindex::to_u64(&value).is_ok_and(|n| n == 0));
            given.push((!missing).then_some(value));
        }
        let count = given.iter().filter(|value| value.is_none()).count();
        let mut first = None;
        if count > 0 {
            first = Some(self.next_values(work, session, auto, count).await?);
        }
        let mut next = first.unwrap_or_default();
        for (row, value) in given.into_iter().enumerate() {
            let value = value.unwrap_or_else(|| {
                next += 1;
                Value::new(Type::Int64, (next - 1).to_string())
            });
            vars.insert(InsertRows::generated(row), bind_variable(&value));
        }
        Ok(first)
    }

    /// Reserves so many values of a sequence, outside of the client's transaction: a value once given is never
    /// given again.
    async fn next_values(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        auto: &AutoIncrement,
        count: usize,
    ) -> Result<i64> {
        let sql = format!("select next :n values from {}", vtsql::quote_identifier(&auto.sequence));
        let n = Value::new(Type::Int64, count.to_string());
        let vars = BindVars::from([("n".to_owned(), bind_variable(&n))]);
        let target = Target { keyspace: auto.sequence_keyspace.clone(), ..Target::default() };
        let mut beside = session.beside();
        let order = vtproto::vtgate::CommitOrder::Normal;
        let result = self.statement_of_ours(work, &mut beside, &target, &sql, vars, order).await?;
        let first = values(&result).into_iter().flatten().next();
        first
            .and_then(|value| std::str::from_utf8(&value.bytes).ok()?.parse().ok())
            .ok_or_else(|| VtError::new(Code::Internal, format!("sequence {} gave no value", auto.sequence)))
    }

    /// The place of each row; `None` for rows that a lenient statement leaves out. Lookup tables have their rows
    /// afterwards.
    async fn keyspace_ids(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        shape: &InsertShape,
        rows: &InsertRows,
        vars: &mut BindVars,
    ) -> Result<Vec<Option<KeyspaceId>>> {
        let table = &shape.table;
        // A column that is not in the statement is NULL until its vindex fills it.
        let null = bind_variable(&Value::null());
        for (index, cv) in table.column_vindexes.iter().enumerate() {
            for row in 0..rows.len() {
                for column in 0..cv.columns.len() {
                    vars.entry(InsertRows::filled(index, column, row)).or_insert_with(|| null.clone());
                }
            }
        }
        let mut ids: Vec<Option<KeyspaceId>> = Vec::with_capacity(rows.len());
        for (index, cv) in table.column_vindexes.iter().enumerate() {
            let keys: Vec<Vec<Value>> = rows.keys[index]
                .iter()
                .map(|row| row.iter().map(|value| value.resolve(vars)).collect())
                .collect::<Result<_>>()?;
            if index == 0 {
                let mapped = self.map(work, session, &table.keyspace, &cv.vindex, &keys).await?;
                for (key, place) in keys.iter().zip(&mapped) {
                    match only_id(place) {
                        Some(id) => ids.push(Some(id.clone())),
                        None if shape.lenient && cv.vindex.needs_lookup() => ids.push(None),
                        None => {
                            let text = format!("could not map {} to a keyspace id", shown(key));
                            return Err(VtError::new(Code::Unknown, text));
                        }
                    }
                }
            } else if cv.owned {
                self.keep_owned(work, session, shape, cv, &keys, &mut ids).await?;
            } else {
                self.check_unowned(work, session, shape, index, &keys, &mut ids, vars).await?;
            }
        }
        Ok(ids)
    }

    /// Adds the rows of a lookup table that the table keeps.
    async fn keep_owned(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        shape: &InsertShape,
        cv: &ColumnVindex,
        keys: &[Vec<Value>],
        ids: &mut [Option<KeyspaceId>],
    ) -> Result<()> {
        let Some(lookup) = cv.vindex.lookup() else { return Ok(()) };
        let table = &shape.table;
        let rows: Vec<(Vec<Value>, KeyspaceId)> =
            keys.iter().zip(ids.iter()).filter_map(|(key, id)| Some((key.clone(), id.clone()?))).collect();
        self.lookup_create(work, session, table, cv, lookup, &rows, shape.lenient).await?;
        if !shape.lenient {
            return Ok(());
        }
        // Rows whose value belongs to another row are left out, as IGNORE leaves them out.
        let present: Vec<usize> = (0..ids.len())
            .filter(|row| ids[*row].is_some() && keys[*row].iter().all(|value| value.kind != Type::NullType))
            .collect();
        let chosen: Vec<Vec<Value>> = present.iter().map(|row| keys[*row].clone()).collect();
        let at: Vec<KeyspaceId> = present.iter().filter_map(|row| ids[*row].clone()).collect();
        let verified = self.lookup_verify(work, session, &table.keyspace, lookup, &chosen, &at).await?;
        let mut kept: Vec<(&[Value], &KeyspaceId)> = Vec::with_capacity(present.len());
        for (((row, verified), key), id) in present.into_iter().zip(verified).zip(&chosen).zip(&at) {
            if verified || self.lookup_claim(work, session, table, cv, lookup, key, id, &kept).await? {
                kept.push((key, id));
            } else if shape.updates {
                // mysqld would change the row that has the value, which is elsewhere.
                let (value, columns) = (shown(key), cv.columns.join(","));
                let text = format!(
                    "unsupported: on duplicate key update: {value} of {columns} belongs to a row with another keyspace id"
                );
                return Err(VtError::new(Code::Unimplemented, text));
            } else {
                ids[row] = None;
            }
        }
        Ok(())
    }

    /// Values of a vindex that the table does not keep have to lead where the row goes.
    #[expect(clippy::too_many_arguments, reason = "a statement's context and the rows")]
    async fn check_unowned(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        shape: &InsertShape,
        index: usize,
        keys: &[Vec<Value>],
        ids: &mut [Option<KeyspaceId>],
        vars: &mut BindVars,
    ) -> Result<()> {
        let cv = &shape.table.column_vindexes[index];
        for row in 0..ids.len() {
            let Some(id) = ids[row].clone() else { continue };
            let key = std::slice::from_ref(&keys[row]);
            let at = std::slice::from_ref(&id);
            if keys[row].iter().any(|value| value.kind == Type::NullType) {
                // The place may tell the value.
                let filled = InsertRows::filled(index, 0, row);
                let from_place = cv.vindex.reverse_map(at).filter(|_| cv.columns.len() == 1);
                match (from_place, vars.get_mut(&filled)) {
                    // Nothing is looked up by NULL.
                    _ if cv.vindex.needs_lookup() => {}
                    (Some(value), Some(variable)) => {
                        if let Some(value) = value?.first() {
                            *variable = bind_variable(value);
                        }
                        continue;
                    }
                    _ if shape.lenient => ids[row] = None,
                    _ => {
                        let text = format!("value must be supplied for column {}", cv.columns[0]);
                        return Err(VtError::new(Code::Unknown, text));
                    }
                }
                continue;
            }
            let verified = match cv.vindex.lookup() {
                None => cv.vindex.verify_rows(key, at)?,
                Some(lookup) => self.lookup_verify(work, session, &shape.table.keyspace, lookup, key, at).await?,
            };
            if verified != [true] {
                if !shape.lenient {
                    let (values, column) = (shown(&keys[row]), &cv.columns[0]);
                    let text = format!("values {values} for column {column} does not map to keyspace ids");
                    return Err(VtError::new(Code::Unknown, text));
                }
                ids[row] = None;
            }
        }
        Ok(())
    }

    /// What every write begins with: a transaction where autocommit is off, and the right to write.
    pub(super) async fn before_write(
        &self,
        caller: &crate::caller::Caller,
        session: &mut Session,
        tablet_type: TabletType,
    ) -> Result<()> {
        if !session.pb.autocommit && !session.in_transaction() && tablet_type == TabletType::Master {
            self.transactions.begin(caller, session).await?;
        }
        if session.in_transaction() && session.is_read_only() {
            let text = "Cannot execute statement in a READ ONLY transaction.";
            return Err(vterrors::MysqlError::new(1792, "25006", text).into());
        }
        Ok(())
    }
}

/// What stands in front of errors, as in Vitess.
/// The statement that puts the chosen rows, with their places, on one shard.
fn insert_query(
    target: query::Target,
    shape: &InsertShape,
    rows: &InsertRows,
    chosen: &[usize],
    ids: &[&KeyspaceId],
    normalized: &Normalized,
    vars: &BindVars,
) -> ShardQuery {
    let tail = shape.tail_names();
    let names = chosen.iter().flat_map(|row| rows.names(*row)).chain(&tail);
    let own: BTreeMap<String, BindVariable> =
        names.filter_map(|name| Some((name.clone(), vars.get(name)?.clone()))).collect();
    let mut sql = shape.sql(rows, chosen);
    if !ids.is_empty() {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        sql.push_str(&format!(" /* vtgate:: keyspace_id:{} */", ids.join(",")));
    }
    ShardQuery { target, sql: with_margins(&sql, normalized).into(), bind_variables: Arc::new(own), raw: false }
}

fn context(shape: &InsertShape) -> &'static str {
    if shape.table.sharded { "execInsertSharded" } else { "execInsertUnsharded" }
}

/// A statement with the client's comments around it.
pub(super) fn with_margins(sql: &str, normalized: &Normalized) -> String {
    let (leading, trailing) = (&normalized.leading, &normalized.trailing);
    let mut text = String::with_capacity(sql.len() + leading.len() + trailing.len() + 2);
    if !leading.is_empty() {
        text.push_str(leading);
        // A comment of `--` or `#` ends with its line.
        text.push(if leading.ends_with("*/") && !leading.contains(['#', '-']) { ' ' } else { '\n' });
    }
    text.push_str(sql);
    if !trailing.is_empty() {
        text.push(' ');
        text.push_str(trailing);
    }
    text
}
