//! Whether the shards can each run a query on their own rows.
//!
//! Owns: [`Analysis`], which finds out where the rows of a query live that have to meet: those of tables
//! joined by the same vindex, of queries inside queries, of the branches of a UNION. Invariant: when it says that
//! a query stays together at a place, running its text on every shard of the place and putting the
//! rows together gives the rows of the whole, leaving aside what its outermost level does to rows of
//! several shards (sorting, grouping, limits); [`Together::outer_local`] says whether it does any of that.

use std::sync::Arc;

use vschema::{Table, TableType};
use vterrors::VtError;
use vtsql::{
    Tree,
    ast::{
        Expr, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
        SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, TableFactor, TableWithJoins,
    },
};

use super::place::{CvRef, Known, Place};
use super::scope::{ColumnRef, Key, Leaf, Scope, key_column};
use super::walk;
use crate::plan::Context;
use crate::route::{is_system_database, unsupported};
use crate::value::PlanValue;

/// Why there is no place for a whole query.
#[derive(Debug)]
pub(crate) enum Apart {
    /// Its rows are not together.
    Rows,
    /// It cannot be planned at all.
    Fault(VtError),
}

impl From<VtError> for Apart {
    fn from(error: VtError) -> Self {
        Self::Fault(error)
    }
}

/// A query that its place can run.
#[derive(Debug, Clone)]
pub(crate) struct Together {
    pub place: Place,
    /// The vindexes that its columns keep, by name of the column.
    pub keys: Vec<Key>,
    /// For each row of the query around it, all rows that it needs are where that row is.
    tied: bool,
    /// The body works row by row, or on groups that no two shards share.
    pub local: bool,
}

/// Queries by name: WITH.
type Named = Vec<(String, Together)>;

pub(crate) struct Analysis<'a> {
    pub context: Context<'a>,
}

/// Relations of a FROM clause as they are put together.
#[derive(Default)]
pub(super) struct FromClause {
    pub scope: Scope,
    /// Equal columns of two relations.
    equal: Vec<(ColumnRef, ColumnRef)>,
    /// Outer joins: the relations on both sides, the side that stays first.
    outer_joins: Vec<(Vec<usize>, Vec<usize>)>,
}

impl Analysis<'_> {
    /// The place of a whole query. `outer` are the scopes around it, innermost first.
    pub fn query(&self, query: &Query, outer: &[&Scope], named: &Named) -> Result<Together, Apart> {
        let mut named = named.clone();
        if let Some(with) = &query.with {
            if with.recursive {
                return Err(Apart::Rows);
            }
            for cte in &with.cte_tables {
                let mut together = self.nested(&cte.query, &[], &named)?;
                rename(&mut together, &cte.alias.columns.iter().map(|c| c.name.value.as_str()).collect::<Vec<_>>());
                named.push((cte.alias.name.value.clone(), together));
            }
        }
        let mut together = self.body(&query.body, outer, &named)?;
        // Sorting may look into queries, too.
        for item in walk::order_by(query) {
            if !walk::subqueries(item).is_empty() && !together.place.is_single() {
                return Err(Apart::Rows);
            }
            // Groups that no two shards share have their aggregates to sort by.
            let of_group = is_grouped(&query.body) && !walk::is_over_window(item);
            together.local &= of_group || !walk::is_over_rows(item);
        }
        Ok(together)
    }

    /// A query inside another: nobody puts together what several shards answer for it.
    fn nested(&self, query: &Query, outer: &[&Scope], named: &Named) -> Result<Together, Apart> {
        let together = self.query(query, outer, named)?;
        let local = together.local && !walk::has_limit(query);
        if together.place.is_single() || together.tied || local { Ok(together) } else { Err(Apart::Rows) }
    }

    fn body(&self, body: &SetExpr, outer: &[&Scope], named: &Named) -> Result<Together, Apart> {
        match body {
            SetExpr::Select(select) => self.select(select, outer, named),
            SetExpr::Query(query) => {
                let mut together = self.query(query, outer, named)?;
                together.local &= !walk::has_limit(query);
                Ok(together)
            }
            SetExpr::SetOperation { op, set_quantifier, left, right } => {
                let (left, right) = (self.body(left, outer, named)?, self.body(right, outer, named)?);
                let all = *op == SetOperator::Union && *set_quantifier == SetQuantifier::All;
                self.set_operation(left, right, all)
            }
            SetExpr::Values(values) => {
                let queries: Vec<Query> = walk::subqueries(values);
                if queries.is_empty() {
                    return Ok(Together { place: Place::Nowhere, keys: Vec::new(), tied: false, local: true });
                }
                Err(Apart::Rows)
            }
            _ => Err(Apart::Rows),
        }
    }

    fn set_operation(&self, left: Together, right: Together, all: bool) -> Result<Together, Apart> {
        let tied = left.tied && right.tied;
        let single = |place: Place| Ok(Together { place, keys: Vec::new(), tied, local: true });
        match (&left.place, &right.place) {
            (a, b) if a.is_same_single(b) => single(left.place),
            (Place::Nowhere, b) if b.is_single() => single(right.place),
            (a, Place::Nowhere) if a.is_single() => single(left.place),
            (Place::Reference(a), b) if b.is_single() && b.keyspace() == Some(a) => single(right.place),
            (a, Place::Reference(b)) if a.is_single() && a.keyspace() == Some(b) => single(left.place),
            (Place::Scatter(a), Place::Scatter(b)) if a == b && all && left.local && right.local => {
                Ok(Together { place: left.place, keys: Vec::new(), tied, local: true })
            }
            _ => Err(Apart::Rows),
        }
    }

    /// The tables of an UPDATE or DELETE with its conditions.
    pub fn tables(&self, tables: &[TableWithJoins], selection: Option<&Expr>) -> Result<(Together, Scope), Apart> {
        let mut from = self.from(tables, &[], &Vec::new())?;
        let mut conditions = Vec::new();
        if let Some(selection) = selection {
            walk::conjuncts(selection, &mut conditions);
        }
        let together = self.combine(&mut from, &conditions, &[], &Vec::new())?;
        Ok((together, from.scope))
    }

    fn from(&self, tables: &[TableWithJoins], outer: &[&Scope], named: &Named) -> Result<FromClause, Apart> {
        let mut from = FromClause::default();
        for table in tables {
            self.joins(table, &mut from, outer, named)?;
        }
        Ok(from)
    }

    fn select(&self, select: &Select, outer: &[&Scope], named: &Named) -> Result<Together, Apart> {
        let mut from = self.from(&select.from, outer, named)?;
        let mut conditions = Vec::new();
        if let Some(selection) = &select.selection {
            walk::conjuncts(selection, &mut conditions);
        }
        let mut together = self.combine(&mut from, &conditions, outer, named)?;
        // Queries in the other parts.
        let mut parts: Vec<Query> = Vec::new();
        parts.extend(select.projection.iter().flat_map(walk::subqueries));
        parts.extend(walk::group_by(select).iter().flat_map(walk::subqueries));
        parts.extend(select.having.iter().flat_map(walk::subqueries));
        let scopes: Vec<&Scope> = std::iter::once(&from.scope).chain(outer.iter().copied()).collect();
        for query in parts {
            self.absorb(&mut together, &query, &scopes, named, false)?;
        }
        together.local = self.is_local(select, &from.scope);
        together.keys = self.exposed(select, &from.scope);
        Ok(together)
    }

    /// One place for the relations of a FROM clause and the queries in its conditions.
    fn combine(
        &self,
        from: &mut FromClause,
        conditions: &[&Expr],
        outer: &[&Scope],
        named: &Named,
    ) -> Result<Together, Apart> {
        let mut tied = false;
        for condition in conditions {
            self.condition(condition, from, outer, &mut tied, true);
        }
        let place = self.merged(from)?;
        let mut together = Together { place, keys: Vec::new(), tied, local: true };
        // An outer join without shared rows on the side that stays would repeat them on each shard.
        if !together.place.is_single() {
            let leaves = &from.scope.leaves;
            let spread = |side: &[usize]| side.iter().any(|i| !leaves[*i].outer && !leaves[*i].place.is_anywhere());
            let fixed = |side: &[usize]| side.iter().all(|i| leaves[*i].place.is_anywhere());
            if from.outer_joins.iter().any(|(stays, may_miss)| !spread(stays) && !fixed(may_miss)) {
                return Err(Apart::Rows);
            }
        }
        let scopes: Vec<&Scope> = std::iter::once(&from.scope).chain(outer.iter().copied()).collect();
        for condition in conditions {
            if let Expr::InSubquery { expr, subquery, negated: false } = condition
                && walk::subqueries(&**expr).is_empty()
            {
                let joined = self.in_subquery(expr, subquery, &scopes, named)?;
                self.absorb(&mut together, subquery, &scopes, named, joined)?;
                continue;
            }
            for query in walk::subqueries(*condition) {
                self.absorb(&mut together, &query, &scopes, named, false)?;
            }
        }
        Ok(together)
    }

    /// Whether `column in (select column …)` compares columns of one vindex.
    fn in_subquery(&self, left: &Expr, query: &Query, scopes: &[&Scope], named: &Named) -> Result<bool, Apart> {
        let Some(column) = key_column(left, scopes).filter(|column| column.depth == 0) else { return Ok(false) };
        if walk::has_limit(query) {
            return Ok(false);
        }
        let Ok(inner) = self.query(query, scopes, named) else { return Ok(false) };
        let SetExpr::Select(select) = &*query.body else { return Ok(false) };
        let [item] = &select.projection[..] else { return Ok(false) };
        let Some(name) = walk::item_name(item) else { return Ok(false) };
        let leaf = &scopes[0].leaves[column.leaf];
        let shared = inner.keys.iter().any(|key| {
            matches!(&key.columns[..], [only] if only.eq_ignore_ascii_case(name))
                && key.cv.vindex().is_unique()
                && leaf.keys.iter().any(|own| {
                    matches!(&own.columns[..], [only] if only.eq_ignore_ascii_case(&column.column))
                        && own.cv.is_same(&key.cv)
                })
        });
        Ok(shared && (inner.local || walk::is_distinct(select)))
    }

    /// Takes a query inside into the place of the one around it. `joined`: its rows are known to be where
    /// they are needed.
    fn absorb(
        &self,
        together: &mut Together,
        query: &Query,
        scopes: &[&Scope],
        named: &Named,
        joined: bool,
    ) -> Result<(), Apart> {
        let inner = if joined { self.query(query, scopes, named)? } else { self.nested(query, scopes, named)? };
        let same_keyspace = |a: &Place, b: &Place| match (a.keyspace(), b.keyspace()) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        let fits = (joined || inner.tied || inner.place.is_anywhere() || together.place.is_same_single(&inner.place))
            && same_keyspace(&together.place, &inner.place);
        if fits {
            return Ok(());
        }
        if together.place.is_anywhere() && inner.place.is_single() && same_keyspace(&together.place, &inner.place) {
            together.place = inner.place;
            return Ok(());
        }
        Err(Apart::Rows)
    }

    /// Notes what a condition says. Those of an outer join (`filters` is false) choose no rows of the side that
    /// stays, so that only equalities between relations count.
    pub(super) fn condition(
        &self,
        condition: &Expr,
        from: &mut FromClause,
        outer: &[&Scope],
        tied: &mut bool,
        filters: bool,
    ) {
        let scopes_of = |from: &FromClause| from.scope.clone();
        let own = scopes_of(from);
        let scopes: Vec<&Scope> = std::iter::once(&own).chain(outer.iter().copied()).collect();
        for (left, right) in walk::equalities(condition) {
            let columns = (key_column(left, &scopes), key_column(right, &scopes));
            match columns {
                (Some(a), Some(b)) if a.depth == 0 && b.depth == 0 => from.equal.push((a, b)),
                (Some(a), Some(b)) if a.depth == 0 || b.depth == 0 => {
                    let (inner, around) = if a.depth == 0 { (a, b) } else { (b, a) };
                    let around_leaf = &scopes[around.depth].leaves[around.leaf];
                    *tied |= around.depth == 1
                        && filters
                        && shares(&own.leaves[inner.leaf], &inner.column, around_leaf, &around.column);
                }
                (Some(column), None) | (None, Some(column)) if column.depth == 0 && filters => {
                    let value = if key_column(left, &scopes).is_some() { right } else { left };
                    if let Some(value) = PlanValue::of_expr(value) {
                        from.scope.leaves[column.leaf].known.push((column.column, Known::Is(value)));
                    }
                }
                _ => {}
            }
        }
        if let Expr::InList { expr, list, negated: false } = condition
            && filters
        {
            let columns: Vec<&Expr> = match &**expr {
                Expr::Tuple(columns) => columns.iter().collect(),
                one => vec![one],
            };
            let is_row = matches!(&**expr, Expr::Tuple(_));
            for (position, column) in columns.into_iter().enumerate() {
                let Some(column) = key_column(column, &scopes).filter(|c| c.depth == 0) else { continue };
                let known = if let Some(name) = Tree::list_variable(list) {
                    (!is_row).then(|| Known::IsIn(name.to_owned()))
                } else {
                    let item = |item: &Expr| match item {
                        Expr::Tuple(row) if is_row => PlanValue::of_expr(row.get(position)?),
                        one if !is_row => PlanValue::of_expr(one),
                        _ => None,
                    };
                    list.iter().map(item).collect::<Option<Vec<_>>>().map(Known::IsOneOf)
                };
                if let Some(known) = known {
                    from.scope.leaves[column.leaf].known.push((column.column, known));
                }
            }
        }
    }

    /// The place of relations of which equal keys are at equal places.
    fn merged(&self, from: &FromClause) -> Result<Place, Apart> {
        let leaves = &from.scope.leaves;
        let mut group: Vec<usize> = (0..leaves.len()).collect();
        for a in 0..leaves.len() {
            for b in a + 1..leaves.len() {
                if joined(from, a, b) {
                    let (old, new) = (group[b], group[a]);
                    group.iter_mut().filter(|g| **g == old).for_each(|g| *g = new);
                }
            }
        }
        let mut result = Place::Nowhere;
        let mut placed: Option<usize> = None;
        for (i, leaf) in leaves.iter().enumerate() {
            let place = leaf.constrained();
            match (&result, &place) {
                (_, Place::Nowhere) => {}
                (Place::Nowhere, _) => {
                    result = place;
                    placed = Some(i);
                }
                (Place::Reference(a), b) if b.keyspace() == Some(a) => {
                    result = place;
                    placed = Some(i);
                }
                (a, Place::Reference(b)) if a.keyspace() == Some(b) => {}
                (a, b) if a.is_same_single(b) => {}
                _ if placed.is_some_and(|first| group[first] == group[i]) => {
                    // Conditions on a side that may be missing choose no rows of the other.
                    if place.cost() < result.cost() {
                        result = place;
                    }
                }
                _ => return Err(Apart::Rows),
            }
        }
        Ok(result)
    }

    fn joins(
        &self,
        table: &TableWithJoins,
        from: &mut FromClause,
        outer: &[&Scope],
        named: &Named,
    ) -> Result<(), Apart> {
        let start = from.scope.leaves.len();
        self.relation(&table.relation, from, outer, named)?;
        for Join { relation, join_operator, .. } in &table.joins {
            let right_start = from.scope.leaves.len();
            self.relation(relation, from, outer, named)?;
            let end = from.scope.leaves.len();
            use JoinOperator::*;
            let (constraint, left_outer, right_outer) = match join_operator {
                Join(c) | Inner(c) | CrossJoin(c) | StraightJoin(c) => (c, false, false),
                Left(c) | LeftOuter(c) => (c, false, true),
                Right(c) | RightOuter(c) => (c, true, false),
                _ => return Err(Apart::Rows),
            };
            let (left, right): (Vec<usize>, Vec<usize>) =
                ((start..right_start).collect(), (right_start..end).collect());
            if right_outer || left_outer {
                let (stays, missing) = if right_outer { (left, right) } else { (right, left) };
                for i in &missing {
                    let leaf = &mut from.scope.leaves[*i];
                    leaf.outer = true;
                    // What it is joined by so far chooses its rows and not those of the side that stays.
                    leaf.known.clear();
                }
                from.outer_joins.push((stays, missing));
            }
            match constraint {
                JoinConstraint::On(condition) => {
                    let mut conditions = Vec::new();
                    walk::conjuncts(condition, &mut conditions);
                    let mut tied = false;
                    for condition in conditions {
                        if !walk::subqueries(condition).is_empty() {
                            return Err(Apart::Rows);
                        }
                        self.condition(condition, from, outer, &mut tied, !(left_outer || right_outer));
                    }
                }
                JoinConstraint::Using(columns) => {
                    for column in columns {
                        let Some(name) = last_part(column) else { continue };
                        let find = |range: std::ops::Range<usize>| {
                            let mut having = range.filter(|i| from.scope.leaves[*i].has_key(name));
                            having.next().filter(|_| having.next().is_none())
                        };
                        if let (Some(a), Some(b)) = (find(start..right_start), find(right_start..end)) {
                            let of = |leaf| ColumnRef { depth: 0, leaf, column: name.to_ascii_lowercase() };
                            from.equal.push((of(a), of(b)));
                        }
                    }
                }
                JoinConstraint::Natural | JoinConstraint::None => {}
            }
        }
        Ok(())
    }

    fn relation(
        &self,
        factor: &TableFactor,
        from: &mut FromClause,
        outer: &[&Scope],
        named: &Named,
    ) -> Result<(), Apart> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let parts: Vec<&str> =
                    name.0.iter().filter_map(|part| part.as_ident()).map(|i| i.value.as_str()).collect();
                let (qualifier, table) = match parts[..] {
                    [table] => (None, table),
                    [qualifier, table] => (Some(qualifier), table),
                    _ => return Err(Apart::Rows),
                };
                let alias = alias.as_ref().map(|a| a.name.value.clone());
                let mut leaf = match named.iter().rev().find(|(name, _)| qualifier.is_none() && name == table) {
                    Some((_, together)) => leaf_of(together.clone()),
                    None => self.table(qualifier, table)?,
                };
                leaf.qualifier = alias.is_none().then(|| qualifier.map(str::to_owned)).flatten();
                leaf.alias = alias.unwrap_or_else(|| table.to_owned());
                from.scope.leaves.push(leaf);
            }
            TableFactor::Derived { lateral: false, subquery, alias, .. } => {
                let mut together = self.nested(subquery, &[], named)?;
                if let Some(alias) = alias {
                    rename(&mut together, &alias.columns.iter().map(|c| c.name.value.as_str()).collect::<Vec<_>>());
                }
                let mut leaf = leaf_of(together);
                leaf.alias = alias.as_ref().map(|a| a.name.value.clone()).unwrap_or_default();
                from.scope.leaves.push(leaf);
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.joins(table_with_joins, from, outer, named)?;
            }
            _ => return Err(Apart::Rows),
        }
        Ok(())
    }

    /// A table of the vschema as a relation.
    fn table(&self, qualifier: Option<&str>, name: &str) -> Result<Leaf, Apart> {
        if qualifier.is_some_and(|q| is_system_database(q) && !self.context.vschema.keyspaces.contains_key(q)) {
            return Err(Apart::Rows);
        }
        if qualifier.is_none() && name.eq_ignore_ascii_case("dual") {
            return Ok(Leaf::of_nothing(String::new()));
        }
        let keyspace = qualifier.unwrap_or(&self.context.target.keyspace);
        let tables = self.context.vschema.find_routed_table(keyspace, name, self.context.target.tablet_type)?;
        let [table] = <[Arc<Table>; 1]>::try_from(tables).map_err(|_| Apart::Rows)?;
        Ok(leaf_of_table(&table))
    }

    /// A table and its relation. Errors: what is no table, or one of several.
    pub(super) fn named_table(&self, qualifier: Option<&str>, name: &str) -> Result<(Arc<Table>, Leaf), VtError> {
        if qualifier.is_some_and(|q| is_system_database(q) && !self.context.vschema.keyspaces.contains_key(q)) {
            return unsupported(format_args!("system tables beside sharded ones: {name}"));
        }
        let keyspace = qualifier.unwrap_or(&self.context.target.keyspace);
        let tables = self.context.vschema.find_routed_table(keyspace, name, self.context.target.tablet_type)?;
        match &tables[..] {
            [table] => Ok((table.clone(), leaf_of_table(table))),
            _ => unsupported(format_args!("a name routed to several tables: {name}")),
        }
    }

    /// Whether the rows of several shards are the rows of the whole.
    fn is_local(&self, select: &Select, scope: &Scope) -> bool {
        let over_rows = select.projection.iter().any(walk::is_over_rows)
            || select.having.as_ref().is_some_and(walk::is_over_rows)
            || select.qualify.is_some();
        let grouped = !walk::group_by(select).is_empty();
        if select.into.is_some() || walk::has_rollup(select) {
            return false;
        }
        if grouped {
            let exprs: Vec<&Expr> =
                walk::group_by(select).iter().map(|expr| resolve_alias(expr, select, scope)).collect();
            let distinct = !walk::is_distinct(select) || {
                let exprs: Vec<&Expr> = select.projection.iter().filter_map(walk::item_expr).collect();
                self.covers_key(&exprs, scope)
            };
            return distinct && self.covers_key(&exprs, scope) && !has_window(select);
        }
        if over_rows {
            return false;
        }
        if walk::is_distinct(select) {
            let exprs: Vec<&Expr> = select.projection.iter().filter_map(walk::item_expr).collect();
            return self.covers_key(&exprs, scope);
        }
        true
    }

    /// Whether the expressions hold all columns of a unique vindex: no two shards have equal ones.
    ///
    /// Not those of lookup vindexes: rows with NULL, which lookup tables do not have, are on any shard.
    fn covers_key(&self, exprs: &[&Expr], scope: &Scope) -> bool {
        let scopes = [scope];
        let columns: Vec<ColumnRef> = exprs.iter().filter_map(|expr| key_column(expr, &scopes)).collect();
        scope.leaves.iter().enumerate().any(|(i, leaf)| {
            !leaf.outer
                && leaf.keys.iter().any(|key| {
                    key.cv.vindex().is_unique()
                        && !key.cv.vindex().needs_lookup()
                        && key
                            .columns
                            .iter()
                            .all(|column| columns.iter().any(|c| c.leaf == i && c.column.eq_ignore_ascii_case(column)))
                })
        })
    }

    /// The vindexes whose columns the select list hands on.
    fn exposed(&self, select: &Select, scope: &Scope) -> Vec<Key> {
        let scopes = [scope];
        // The new name of each column of each relation.
        let mut names: Vec<(usize, String, String)> = Vec::new();
        for item in &select.projection {
            match item {
                SelectItem::Wildcard(_) => {
                    for (i, leaf) in scope.leaves.iter().enumerate() {
                        names.extend(own_names(i, leaf));
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    let Some(table) = last_part(name) else { continue };
                    for (i, leaf) in scope.leaves.iter().enumerate().filter(|(_, leaf)| leaf.alias == table) {
                        names.extend(own_names(i, leaf));
                    }
                }
                item => {
                    let column = walk::item_expr(item).and_then(|expr| key_column(expr, &scopes));
                    if let (Some(column), Some(name)) = (column, walk::item_name(item)) {
                        names.push((column.leaf, column.column, name.to_ascii_lowercase()));
                    }
                }
            }
        }
        let mut keys = Vec::new();
        for (i, leaf) in scope.leaves.iter().enumerate() {
            // What may be NULL for want of a row says nothing of a place.
            if leaf.outer {
                continue;
            }
            for key in &leaf.keys {
                let new_name = |column: &String| {
                    names.iter().find(|(l, own, _)| *l == i && own.eq_ignore_ascii_case(column)).map(|n| n.2.clone())
                };
                if let Some(columns) = key.columns.iter().map(new_name).collect::<Option<Vec<_>>>() {
                    keys.push(Key { cv: key.cv.clone(), columns });
                }
            }
        }
        keys
    }
}

/// Where the rows of a table are that nothing is known of.
pub(crate) fn place_of(table: &Table) -> Place {
    let keyspace = table.keyspace.clone();
    match &table.pinned {
        Some(id) => Place::Pinned(keyspace, id.clone()),
        None if !table.sharded => Place::Unsharded(keyspace),
        None if table.kind == TableType::Reference => Place::Reference(keyspace),
        None => Place::Scatter(keyspace),
    }
}

fn leaf_of_table(table: &Arc<Table>) -> Leaf {
    let mut leaf = Leaf::of_nothing(String::new());
    leaf.place = place_of(table);
    leaf.columns =
        table.column_list_authoritative.then(|| table.columns.iter().map(|column| column.name.clone()).collect());
    if matches!(leaf.place, Place::Scatter(_)) {
        for index in 0..table.column_vindexes.len() {
            let cv = CvRef { table: table.clone(), index };
            leaf.keys.push(Key { columns: cv.columns().to_vec(), cv });
        }
    }
    leaf
}

fn leaf_of(together: Together) -> Leaf {
    let place = together.place;
    Leaf {
        alias: String::new(),
        qualifier: None,
        keys: together.keys,
        place,
        columns: None,
        outer: false,
        known: Vec::new(),
    }
}

/// New names for all columns of a query, as an alias with a column list gives them: which is which is not
/// followed.
fn rename(together: &mut Together, columns: &[&str]) {
    if !columns.is_empty() {
        together.keys.clear();
    }
}

fn own_names(i: usize, leaf: &Leaf) -> Vec<(usize, String, String)> {
    let columns = leaf.keys.iter().flat_map(|key| &key.columns);
    columns.map(|column| (i, column.clone(), column.to_ascii_lowercase())).collect()
}

/// Whether two relations meet on the same shards only.
fn joined(from: &FromClause, a: usize, b: usize) -> bool {
    let leaves = &from.scope.leaves;
    leaves[a].keys.iter().any(|key_a| {
        key_a.cv.vindex().is_unique()
            && leaves[b].keys.iter().any(|key_b| {
                key_a.cv.is_same(&key_b.cv)
                    && key_a.columns.len() == key_b.columns.len()
                    && key_a.columns.iter().zip(&key_b.columns).all(|(column_a, column_b)| {
                        let is = |c: &ColumnRef, leaf: usize, column: &str| {
                            c.leaf == leaf && c.column.eq_ignore_ascii_case(column)
                        };
                        from.equal.iter().any(|(x, y)| {
                            (is(x, a, column_a) && is(y, b, column_b)) || (is(y, a, column_a) && is(x, b, column_b))
                        })
                    })
            })
    })
}

/// Whether a column of one relation and one of another have the same unique vindex.
fn shares(a: &Leaf, column_a: &str, b: &Leaf, column_b: &str) -> bool {
    let single = |key: &&Key, column: &str| matches!(&key.columns[..], [only] if only.eq_ignore_ascii_case(column));
    a.keys
        .iter()
        .filter(|key| single(key, column_a) && key.cv.vindex().is_unique())
        .any(|key_a| b.keys.iter().any(|key_b| single(&key_b, column_b) && key_a.cv.is_same(&key_b.cv)))
}

/// What a GROUP BY item means: an alias or ordinal stands for the select item.
fn resolve_alias<'a>(expr: &'a Expr, select: &'a Select, scope: &Scope) -> &'a Expr {
    match expr {
        // A column of that name would come first.
        Expr::Identifier(name) if lacks_column(scope, &name.value) => {
            let item = select.projection.iter().find(|item| {
                matches!(item, SelectItem::ExprWithAlias { alias, .. } if alias.value.eq_ignore_ascii_case(&name.value))
            });
            item.and_then(walk::item_expr).unwrap_or(expr)
        }
        Expr::Value(value) => {
            let position = value.value.to_string().parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            position.and_then(|n| select.projection.get(n)).and_then(walk::item_expr).unwrap_or(expr)
        }
        _ => expr,
    }
}

/// No relation has a column of that name, as far as the vschema knows them all.
fn lacks_column(scope: &Scope, name: &str) -> bool {
    scope.leaves.iter().all(|leaf| {
        leaf.columns.as_ref().is_some_and(|all| !all.iter().any(|column| column.eq_ignore_ascii_case(name)))
    })
}

fn is_grouped(body: &SetExpr) -> bool {
    matches!(body, SetExpr::Select(select) if !walk::group_by(select).is_empty())
}

fn has_window(select: &Select) -> bool {
    select.projection.iter().any(|item| item.to_string().to_ascii_lowercase().contains(" over "))
}

/// The last part of a name.
pub(crate) fn last_part(name: &ObjectName) -> Option<&str> {
    name.0.last()?.as_ident().map(|ident| ident.value.as_str())
}
