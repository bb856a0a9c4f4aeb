//! Lookup tables: asked where rows live, and kept in step with the rows of their owner.
//!
//! Owns: running the SQL of [`vindex::Lookup`] through this gate, in the transaction that its kind asks for:
//! the client's own for plain ones, none for those with `autocommit`, and for consistent ones a transaction
//! committed before the client's (rows added) or after it (rows removed).

use std::sync::Arc;

use keyrange::KeyspaceId;
use planner::{Target, bind_variable};
use vindex::{Destination, Lookup, Value};
use vschema::{ColumnVindex, Table};
use vterrors::{Code, MysqlError, Result, VtError};
use vtproto::{
    query::{QueryResult, Type},
    topodata::TabletType,
    vtgate::CommitOrder,
};
use vtsql::BindVars;

use super::{Executor, Output, Work, places::shown};
use crate::{
    scatter::{Effect, ShardQuery},
    session::Session,
};

impl Executor {
    /// Where the rows of each value live.
    pub(super) async fn lookup_map(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        keyspace: &str,
        lookup: &Lookup,
        rows: &[Vec<Value>],
    ) -> Result<Vec<Destination>> {
        if lookup.write_only {
            return Ok(rows.iter().map(|_| Destination::AllShards).collect());
        }
        let sql = lookup.map_sql();
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(value) = row.first().filter(|value| value.kind != Type::NullType) else {
                found.push(Destination::None);
                continue;
            };
            let vars = BindVars::from([(lookup.from[0].clone(), bind_variable(&lookup.from_value(value)?))]);
            let result = self.internal(work, session, keyspace, lookup, &sql, vars, read_order(lookup)).await?;
            let ids: Vec<KeyspaceId> =
                values(&result).iter().map(|row| lookup.keyspace_id(&row[0])).collect::<Result<_>>()?;
            found.push(match (ids.len(), lookup.unique) {
                (0, _) => Destination::None,
                (1, true) => ids.into_iter().next().map_or(Destination::None, Destination::KeyspaceId),
                (_, true) => return Err(lookup.several(value)),
                (_, false) => Destination::KeyspaceIds(ids),
            });
        }
        Ok(found)
    }

    /// Whether each value is known to live at the id beside it.
    pub(super) async fn lookup_verify(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        keyspace: &str,
        lookup: &Lookup,
        rows: &[Vec<Value>],
        ids: &[KeyspaceId],
    ) -> Result<Vec<bool>> {
        if lookup.write_only {
            return Ok(vec![true; rows.len()]);
        }
        let order = if lookup.consistent { CommitOrder::Pre } else { CommitOrder::Normal };
        let sql = lookup.verify_sql();
        let mut verified = Vec::with_capacity(rows.len());
        for (row, id) in rows.iter().zip(ids) {
            let value = row.first().cloned().unwrap_or_else(Value::null);
            let vars = BindVars::from([
                (lookup.from[0].clone(), bind_variable(&lookup.from_value(&value)?)),
                (lookup.to.clone(), bind_variable(&lookup.to_value(id)?)),
            ]);
            let result = self.internal(work, session, keyspace, lookup, &sql, vars, order).await?;
            verified.push(!result.rows.is_empty());
        }
        Ok(verified)
    }

    /// Adds the rows of new owner rows. `lenient`: those that are there stay.
    #[expect(clippy::too_many_arguments, reason = "a statement's context and the rows")]
    pub(super) async fn lookup_create(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        owner: &Table,
        vindex: &ColumnVindex,
        lookup: &Lookup,
        rows: &[(Vec<Value>, KeyspaceId)],
        lenient: bool,
    ) -> Result<()> {
        let mut stored: Vec<(Vec<Value>, &KeyspaceId)> = Vec::with_capacity(rows.len());
        for (row, id) in rows {
            // NULL is found by nobody.
            if row.iter().any(|value| value.kind == Type::NullType) {
                continue;
            }
            check_width(lookup, row)?;
            let mut values: Vec<Value> = row.iter().map(|value| lookup.from_value(value)).collect::<Result<_>>()?;
            values.push(lookup.to_value(id)?);
            stored.push((values, id));
        }
        if stored.is_empty() {
            return Ok(());
        }
        // Everybody locks in the same order.
        stored.sort_by(|(a, _), (b, _)| a.iter().map(|v| &v.bytes).cmp(b.iter().map(|v| &v.bytes)));
        let sql = lookup.insert_sql(stored.len(), lenient);
        let columns = lookup.columns();
        let mut vars = BindVars::new();
        for (number, (values, _)) in stored.iter().enumerate() {
            for (column, value) in columns.iter().zip(values) {
                vars.insert(format!("{column}{number}"), bind_variable(value));
            }
        }
        let order = match (lookup.consistent, lookup.autocommit) {
            (true, _) => CommitOrder::Pre,
            (false, true) => CommitOrder::Autocommit,
            (false, false) => CommitOrder::Normal,
        };
        match self.internal(work, session, &owner.keyspace, lookup, &sql, vars, order).await {
            Ok(_) => Ok(()),
            Err(error) if lookup.consistent && error.message().contains("Duplicate entry") => {
                let all: Vec<_> = stored.iter().map(|(row, id)| (from_of(row), *id)).collect();
                for (at, (values, id)) in stored.iter().enumerate() {
                    self.lookup_take_over(work, session, owner, vindex, lookup, values, id, &all[..at]).await?;
                }
                Ok(())
            }
            Err(error) => Err(error.wrap(format_args!("lookup.Create"))),
        }
    }

    /// A row of a consistent lookup that may be there already: left over from a transaction that was not
    /// committed, or in use. `earlier` are values and places of rows that the same statement adds: they are in use,
    /// though the owner does not have them yet.
    #[expect(clippy::too_many_arguments, reason = "a statement's context and the row")]
    async fn lookup_take_over(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        owner: &Table,
        vindex: &ColumnVindex,
        lookup: &Lookup,
        values: &[Value],
        id: &KeyspaceId,
        earlier: &[(&[Value], &KeyspaceId)],
    ) -> Result<()> {
        let keyspace = &owner.keyspace;
        let columns = lookup.columns();
        let vars: BindVars =
            columns.iter().zip(values).map(|(column, value)| (column.to_string(), bind_variable(value))).collect();
        let pre = CommitOrder::Pre;
        let there = self.internal(work, session, keyspace, lookup, &lookup.lock_sql(), vars.clone(), pre).await?;
        let there = values_of_first(&there);
        let Some(there) = there else {
            let numbered = vars.into_iter().map(|(column, value)| (format!("{column}0"), value)).collect();
            self.internal(work, session, keyspace, lookup, &lookup.insert_sql(1, false), numbered, pre).await?;
            return Ok(());
        };
        let existing = lookup.keyspace_id(&there[0])?;
        let from = from_of(values);
        let mut in_use = self.owner_row_exists(work, session, owner, vindex, from, &existing, &[]).await?;
        if lookup.unique {
            for (value, _) in earlier.iter().filter(|(_, id)| **id == existing) {
                let same = value.iter().zip(from).all(|(one, other)| one.bytes == other.bytes);
                in_use |= same || self.lookup_holds_equal(work, session, keyspace, lookup, value, from).await?;
            }
        }
        if in_use {
            let text = format!("duplicate entry {}", shown(from));
            return Err(MysqlError::new(1062, "23000", text).into());
        }
        if existing == *id {
            return Ok(());
        }
        self.internal(work, session, keyspace, lookup, &lookup.update_sql(), vars, pre).await?;
        Ok(())
    }

    /// Whether a lenient INSERT may have a value that the lookup table knows with another place: `true` when it was
    /// left over and is taken over.
    #[expect(clippy::too_many_arguments, reason = "a statement's context and the row")]
    pub(super) async fn lookup_claim(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        owner: &Table,
        vindex: &ColumnVindex,
        lookup: &Lookup,
        row: &[Value],
        id: &KeyspaceId,
        earlier: &[(&[Value], &KeyspaceId)],
    ) -> Result<bool> {
        if !lookup.consistent {
            return Ok(false);
        }
        let mut values: Vec<Value> = row.iter().map(|value| lookup.from_value(value)).collect::<Result<_>>()?;
        values.push(lookup.to_value(id)?);
        match self.lookup_take_over(work, session, owner, vindex, lookup, &values, id, earlier).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Code::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether two values are one to the lookup table, whose collation may not tell `a` from `A`. Only consistent
    /// lookups are asked: they add in another transaction than they remove in, which would wait for each other.
    pub(super) async fn lookup_holds_equal(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        keyspace: &str,
        lookup: &Lookup,
        old: &[Value],
        new: &[Value],
    ) -> Result<bool> {
        let may_be_equal =
            |(old, new): (&Value, &Value)| old.bytes == new.bytes || !(old.is_integral() && new.is_integral());
        let has_null = old.iter().chain(new).any(|value| value.kind == Type::NullType);
        if !lookup.consistent || has_null || !old.iter().zip(new).all(may_be_equal) {
            return Ok(false);
        }
        let mut vars = BindVars::new();
        for (column, (old, new)) in lookup.from.iter().zip(old.iter().zip(new)) {
            vars.insert(column.clone(), bind_variable(&lookup.from_value(old)?));
            vars.insert(format!("{column}_new"), bind_variable(&lookup.from_value(new)?));
        }
        let found = self.internal(work, session, keyspace, lookup, &lookup.equal_sql(), vars, CommitOrder::Pre).await?;
        Ok(!found.rows.is_empty())
    }

    /// Whether the owner has the row that a lookup row points to, with `also` these values in other columns; it is locked for
    /// as long as the transaction lasts.
    #[expect(clippy::too_many_arguments, reason = "a statement's context and the row")]
    async fn owner_row_exists(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        owner: &Table,
        vindex: &ColumnVindex,
        from: &[Value],
        id: &KeyspaceId,
        also: &[(&String, &Value)],
    ) -> Result<bool> {
        let values = vindex.columns.iter().zip(from).chain(also.iter().copied());
        let (mut conditions, mut vars) = (Vec::new(), BindVars::new());
        for (number, (column, value)) in values.enumerate() {
            conditions.push(format!("{} = :c{number}", vtsql::quote_identifier(column)));
            vars.insert(format!("c{number}"), bind_variable(value));
        }
        let sql = format!(
            "select {} from {} where {} lock in share mode",
            vtsql::quote_identifier(&vindex.columns[0]),
            vtsql::quote_identifier(&owner.name),
            conditions.join(" and ")
        );
        let shards = self.parts.resolver.shard_map(&owner.keyspace, TabletType::Master).await?;
        let query =
            ShardQuery { target: shards.holder(id)?, sql: sql.into(), bind_variables: Arc::new(vars), raw: false };
        work.shard_queries += 1;
        let result =
            self.parts.scatter.execute_one(work.caller, session, &query, Effect::Read, CommitOrder::Normal).await?;
        Ok(!result.rows.is_empty())
    }

    /// Removes the lookup rows of rows that a lenient INSERT did not write. `primary` are the values of the first vindex
    /// of each.
    #[expect(clippy::too_many_arguments, reason = "a statement's context and the rows")]
    pub(super) async fn lookup_forget_unwritten(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        owner: &Table,
        vindex: &ColumnVindex,
        lookup: &Lookup,
        rows: Vec<(Vec<Value>, KeyspaceId)>,
        primary: &[Vec<Value>],
    ) -> Result<()> {
        let mut unwritten = Vec::new();
        for ((from, id), primary) in rows.into_iter().zip(primary) {
            if from.iter().any(|value| value.kind == Type::NullType) {
                continue;
            }
            let also: Vec<_> = owner.column_vindexes[0].columns.iter().zip(primary).collect();
            if !self.owner_row_exists(work, session, owner, vindex, &from, &id, &also).await? {
                unwritten.push((from, id));
            }
        }
        // In the transaction that added them, which holds their locks.
        let order = if lookup.consistent { CommitOrder::Pre } else { CommitOrder::Normal };
        self.lookup_remove(work, session, &owner.keyspace, lookup, &unwritten, order).await
    }

    /// Removes the rows of owner rows that go.
    pub(super) async fn lookup_delete(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        keyspace: &str,
        lookup: &Lookup,
        rows: &[(Vec<Value>, KeyspaceId)],
    ) -> Result<()> {
        let order = if lookup.consistent { CommitOrder::Post } else { CommitOrder::Normal };
        self.lookup_remove(work, session, keyspace, lookup, rows, order).await
    }

    async fn lookup_remove(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        keyspace: &str,
        lookup: &Lookup,
        rows: &[(Vec<Value>, KeyspaceId)],
        order: CommitOrder,
    ) -> Result<()> {
        // In autocommit mode the client's transaction could still be rolled back.
        if lookup.autocommit {
            return Ok(());
        }
        let sql = lookup.delete_sql();
        for (row, id) in rows {
            if row.iter().any(|value| value.kind == Type::NullType) {
                continue;
            }
            check_width(lookup, row)?;
            let mut vars = BindVars::new();
            for (column, value) in lookup.from.iter().zip(row) {
                vars.insert(column.clone(), bind_variable(&lookup.from_value(value)?));
            }
            vars.insert(lookup.to.clone(), bind_variable(&lookup.to_value(id)?));
            self.internal(work, session, keyspace, lookup, &sql, vars, order).await?;
        }
        Ok(())
    }

    /// Runs a statement on a lookup table, which may be anywhere, in the session.
    #[expect(clippy::too_many_arguments, reason = "a statement's context and its text")]
    async fn internal(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        keyspace: &str,
        lookup: &Lookup,
        sql: &str,
        vars: BindVars,
        order: CommitOrder,
    ) -> Result<QueryResult> {
        // A bare name is the vindex's own keyspace's, or else the only table of that name.
        let current = self.parts.vschema.current();
        let own = current.vschema.keyspaces.get(keyspace).is_some_and(|ks| ks.tables.contains_key(&lookup.table));
        let target = Target {
            keyspace: if own && !lookup.table.contains('.') { keyspace.to_owned() } else { String::new() },
            ..Target::default()
        };
        if order == CommitOrder::Autocommit {
            let mut own_session = session.beside();
            return self.statement_of_ours(work, &mut own_session, &target, sql, vars, CommitOrder::Normal).await;
        }
        self.statement_of_ours(work, session, &target, sql, vars, order).await
    }

    /// Plans and runs a statement that the client did not send.
    pub(super) async fn statement_of_ours(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        sql: &str,
        vars: BindVars,
        order: CommitOrder,
    ) -> Result<QueryResult> {
        let normalized = self.as_written(sql);
        let entry = self.plan_for(session, target, &normalized)?;
        let prepared = &entry.value;
        let before = std::mem::replace(&mut work.order, order);
        let limit = session.take_select_limit();
        let vars = Arc::new(vars);
        let running = self.shard_plan(work, session, target, prepared, &normalized, vars, false);
        let outcome = Box::pin(running).await;
        session.set_select_limit(limit);
        work.order = before;
        match outcome? {
            Output::Whole(result) => Ok(result),
            Output::Rows(_) => Err(VtError::new(Code::Internal, "a stream where none was asked for")),
        }
    }
}

/// Reading places happens in the transaction that may just have added them.
fn read_order(lookup: &Lookup) -> CommitOrder {
    if lookup.consistent { CommitOrder::Pre } else { CommitOrder::Normal }
}

/// The values of a lookup row without the place behind them.
fn from_of(row: &[Value]) -> &[Value] {
    &row[..row.len() - 1]
}

fn check_width(lookup: &Lookup, row: &[Value]) -> Result<()> {
    if row.len() == lookup.from.len() {
        return Ok(());
    }
    Err(VtError::new(
        Code::Unknown,
        format!(
            "lookup.Create: column vindex count does not match the columns in the lookup: {} vs {:?}",
            row.len(),
            lookup.from
        ),
    ))
}

/// The rows of a result as vindexes see values.
pub(super) fn values(result: &QueryResult) -> Vec<Vec<Value>> {
    result
        .rows
        .iter()
        .map(|row| {
            let mut rest = &row.values[..];
            let mut values = Vec::with_capacity(row.lengths.len());
            for (field, length) in result.fields.iter().zip(&row.lengths) {
                match usize::try_from(*length) {
                    Ok(length) => {
                        let (value, tail) = rest.split_at(length.min(rest.len()));
                        rest = tail;
                        values.push(Value::new(field.r#type(), value));
                    }
                    Err(_) => values.push(Value::null()),
                }
            }
            values
        })
        .collect()
}

fn values_of_first(result: &QueryResult) -> Option<Vec<Value>> {
    values(result).into_iter().next().filter(|row| !row.is_empty())
}
