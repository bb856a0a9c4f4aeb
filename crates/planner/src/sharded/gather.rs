//! SELECT over rows that no shard has together: they are brought to one place.
//!
//! Owns: what to fetch of each table (the columns that the statement names, the conditions that are about this
//! table alone, for one table also its sorting and limit, or its groups) and the statement to run over what was
//! fetched. That statement is the client's own with each table replaced by a mark, which the gate fills
//! with the rows; mysqld runs it, so that its results are mysqld's in every detail. Invariant: every table of
//! the statement is replaced, or it is refused.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use vschema::{Table, VindexDef};
use vterrors::VtError;
use vtsql::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint, JoinOperator,
    LimitClause, LockType, ObjectName, Query, Select, SelectItem, SetExpr, Statement as Tree, TableFactor,
    TableWithJoins, Visit, VisitMut, Visitor, VisitorMut,
};
use vtsql::{Statement, Template, print_tree, quote_identifier};

use super::analysis::{Analysis, FromClause};
use super::scope::Leaf;
use super::walk;
use crate::primitive::Route;
use crate::route::{plain_route, unsupported};
use crate::value::PlanValue;

/// A SELECT over fetched rows.
#[derive(Debug, Clone)]
pub struct Gather {
    pub fetches: Vec<Fetch>,
    /// Vindexes that are selected from.
    pub vindexes: Vec<VindexRows>,
    /// The statement over them, with [`Fetch::mark`]s in place of tables.
    pub sql: String,
    /// Any shard of it runs the statement.
    pub keyspace: String,
    /// Columns whose names hold values of the statement.
    pub names: Vec<ColumnName>,
}

/// Where a vindex maps one value to, as rows with [`VindexRows::COLUMNS`].
#[derive(Debug, Clone)]
pub struct VindexRows {
    pub keyspace: String,
    pub vindex: Arc<dyn vindex::Vindex>,
    pub value: PlanValue,
    /// What stands for it in [`Gather::sql`].
    pub mark: String,
}

impl VindexRows {
    /// The columns that a vindex has as a table.
    pub const COLUMNS: [&'static str; 4] = ["id", "keyspace_id", "range_start", "range_end"];
}

/// The name that mysqld would give to a column: the text of its expression.
#[derive(Debug, Clone)]
pub struct ColumnName {
    /// Which column: from the first one, or from the last one where a `*` stands before it.
    pub from_start: bool,
    pub position: usize,
    pub text: Template,
}

/// What is fetched of a table.
#[derive(Debug, Clone)]
pub struct Fetch {
    pub table: Arc<Table>,
    /// Which shards. Its text is made when the columns are known.
    pub route: Route,
    /// What stands for the table in [`Gather::sql`].
    pub mark: String,
    /// The columns, in lower case; `None` is all of them.
    pub columns: Option<BTreeSet<String>>,
    /// What its columns are qualified with.
    pub alias: String,
    /// ` as alias where …`
    pub condition: String,
    /// ` order by …`, ` group by …`
    pub order: String,
    /// Rows that are enough of each shard: the limit and the offset.
    pub limit: Option<(PlanValue, Option<PlanValue>)>,
    /// ` for update`
    pub lock: &'static str,
    /// Expressions fetched besides the columns.
    pub computed: Vec<Computed>,
}

/// An expression that shards compute.
#[derive(Debug, Clone)]
pub struct Computed {
    pub name: String,
    pub text: String,
    /// The column whose type it has; without one the result tells it.
    pub like: Option<String>,
}

/// Plans a SELECT as a gathering of rows.
pub(crate) fn plan_gather(analysis: &Analysis<'_>, statement: &Statement, query: &Query) -> Result<Gather, VtError> {
    if statement.facts.assigns_user_var || statement.facts.into_file || statement.facts.calc_found_rows {
        return unsupported(format_args!("over rows of several shards: {}", statement.sql));
    }
    let mut query = query.clone();
    let names = name_items(&mut query, &statement.sql);
    let lock = match query.locks.first() {
        None => "",
        Some(lock) if lock.lock_type == LockType::Update => " for update",
        Some(_) => " lock in share mode",
    };
    query.locks.clear();
    let mut known = Names::default();
    let _ = query.visit(&mut known);
    let mut blocks = Blocks {
        analysis,
        names: &known,
        fetches: Vec::new(),
        vindexes: Vec::new(),
        depth: 0,
        all_pushed: false,
        lock,
        sql: &statement.sql,
    };
    if let ControlFlow::Break(error) = VisitMut::visit(&mut query, &mut blocks) {
        return Err(error);
    }
    let (mut fetches, vindexes, all_pushed) = (blocks.fetches, blocks.vindexes, blocks.all_pushed);
    if let [fetch] = &mut fetches[..]
        && all_pushed
        && !push_groups(&mut query, fetch)
    {
        push_limit(&query, fetch);
    }
    let keyspace = match (fetches.first(), vindexes.first()) {
        (Some(fetch), _) => fetch.table.keyspace.clone(),
        (None, Some(vindex)) => vindex.keyspace.clone(),
        (None, None) => return unsupported(format_args!("over rows of several shards: {}", statement.sql)),
    };
    Ok(Gather { fetches, vindexes, sql: print_tree(&query), keyspace, names })
}

/// Gives the items of the outermost select list the names that mysqld would give to their text. Returned are those
/// that can only be given when the values are known.
fn name_items(query: &mut Query, sql: &str) -> Vec<ColumnName> {
    let mut body = &mut *query.body;
    loop {
        match body {
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Query(query) => body = &mut query.body,
            SetExpr::Select(select) => {
                let texts = vtsql::select_item_texts(sql);
                let count = texts.len();
                if count != select.projection.len() {
                    return Vec::new();
                }
                let mut late = Vec::new();
                let all_stars = select.projection.iter().filter(|item| walk::item_expr(item).is_none()).count();
                let mut stars = 0;
                for (at, (item, text)) in select.projection.iter_mut().zip(texts).enumerate() {
                    stars += usize::from(walk::item_expr(item).is_none());
                    let SelectItem::UnnamedExpr(expr) = item else { continue };
                    if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
                        continue;
                    }
                    let text = Template::new(text);
                    let found = stars == 0 || stars == all_stars;
                    if text.names().next().is_some() && !found {
                        continue;
                    }
                    if text.names().next().is_some() {
                        let from_start = stars == 0;
                        let position = if from_start { at } else { count - 1 - at };
                        late.push(ColumnName { from_start, position, text });
                    } else {
                        let alias = Ident::with_quote('`', text.sql());
                        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                    }
                }
                return late;
            }
            _ => return Vec::new(),
        }
    }
}

/// Every name in a statement.
#[derive(Default)]
struct Names {
    /// In lower case.
    all: BTreeSet<String>,
    /// `*` somewhere, or a join by names that are not told.
    wildcard: bool,
    /// Names that WITH gives.
    ctes: BTreeSet<String>,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_ident(&mut self, ident: &Ident) -> ControlFlow<()> {
        self.all.insert(ident.value.to_ascii_lowercase());
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.ctes.insert(cte.alias.name.value.clone());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let stars = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        self.wildcard |= select.projection.iter().any(stars);
        for join in select.from.iter().flat_map(|table| &table.joins) {
            self.wildcard |= matches!(constraint(join).0, Some(JoinConstraint::Natural));
        }
        ControlFlow::Continue(())
    }
}

/// A join's condition, and which of its sides may be missing.
fn constraint(join: &Join) -> (Option<&JoinConstraint>, bool, bool) {
    use JoinOperator::*;
    match &join.join_operator {
        Join(c) | Inner(c) | CrossJoin(c) | StraightJoin(c) => (Some(c), false, false),
        Left(c) | LeftOuter(c) => (Some(c), false, true),
        Right(c) | RightOuter(c) => (Some(c), true, false),
        _ => (None, true, true),
    }
}

/// Replaces the tables of every SELECT block.
struct Blocks<'a, 'c> {
    analysis: &'a Analysis<'c>,
    names: &'a Names,
    fetches: Vec<Fetch>,
    vindexes: Vec<VindexRows>,
    depth: usize,
    /// All conditions of the block visited last are in its fetch.
    all_pushed: bool,
    lock: &'static str,
    sql: &'a str,
}

impl VisitorMut for Blocks<'_, '_> {
    type Break = VtError;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<VtError> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<VtError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<VtError> {
        match self.block(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<VtError> {
        // `keyspace.table.column`: the table has lost its keyspace.
        if let Expr::CompoundIdentifier(parts) = expr
            && parts.len() == 3
        {
            parts.remove(0);
        }
        ControlFlow::Continue(())
    }
}

/// A relation of a block, in order.
struct Relation {
    leaf: Leaf,
    /// The table to fetch; `None` for queries, CTEs and `dual`.
    table: Option<Arc<Table>>,
    vindex: Option<Arc<VindexDef>>,
    aliased: bool,
}

impl Blocks<'_, '_> {
    fn block(&mut self, select: &mut Select) -> Result<(), VtError> {
        let mut relations = Vec::new();
        let mut conditions: Vec<Expr> = Vec::new();
        for table in &select.from {
            self.relations(table, &mut relations, &mut conditions)?;
        }
        let mut pushed: Vec<&Expr> = Vec::new();
        for condition in select.selection.iter().chain(&conditions) {
            walk::conjuncts(condition, &mut pushed);
        }
        let mut from = FromClause::default();
        from.scope.leaves = relations.iter().map(|relation| relation.leaf.clone()).collect();
        for condition in &pushed {
            self.analysis.condition(condition, &mut from, &[], &mut false, true);
        }
        let only = relations.len() == 1;
        let mut all_pushed = true;
        let mut marks = Vec::with_capacity(relations.len());
        for (i, relation) in relations.iter().enumerate() {
            if let Some(def) = &relation.vindex {
                let mark = format!("__vt_vindex_{}", self.vindexes.len());
                let value = vindex_value(&pushed, &relation.leaf, only)?;
                let (keyspace, vindex) = (def.keyspace.clone(), def.vindex.clone());
                self.vindexes.push(VindexRows { keyspace, vindex, value, mark: mark.clone() });
                marks.push(Some((mark, (!relation.aliased).then(|| relation.leaf.alias.clone()))));
                all_pushed = false;
                continue;
            }
            let Some(table) = &relation.table else {
                marks.push(None);
                all_pushed = false;
                continue;
            };
            let leaf = &from.scope.leaves[i];
            let place = if leaf.outer { relation.leaf.place.clone() } else { leaf.constrained() };
            let own: Vec<&&Expr> = pushed.iter().filter(|c| !leaf.outer && self.is_about(c, leaf, only)).collect();
            all_pushed &= own.len() == pushed.len();
            let mark = format!("__vt_rows_{}", self.fetches.len());
            let mut condition = format!(" as {}", quote_identifier(&leaf.alias));
            for (number, part) in own.iter().enumerate() {
                condition.push_str(if number == 0 { " where (" } else { " and (" });
                condition.push_str(&print_tree(part));
                condition.push(')');
            }
            let mut route = plain_route(place.opcode(), &table.keyspace, place.destination(true), String::new());
            route.table = Some(table.name.clone());
            let columns = (!self.names.wildcard).then(|| self.names.all.clone());
            self.fetches.push(Fetch {
                table: table.clone(),
                route,
                mark: mark.clone(),
                columns,
                alias: leaf.alias.clone(),
                condition,
                order: String::new(),
                limit: None,
                lock: self.lock,
                computed: Vec::new(),
            });
            marks.push(Some((mark, (!relation.aliased).then(|| leaf.alias.clone()))));
        }
        self.all_pushed = all_pushed && self.depth == 1;
        let mut marks = marks.into_iter();
        for table in &mut select.from {
            replace(table, &mut marks);
        }
        Ok(())
    }

    fn relations(
        &self,
        table: &TableWithJoins,
        relations: &mut Vec<Relation>,
        conditions: &mut Vec<Expr>,
    ) -> Result<(), VtError> {
        let (start, start_conditions) = (relations.len(), conditions.len());
        self.relation(&table.relation, relations, conditions)?;
        for join in &table.joins {
            let (right, right_conditions) = (relations.len(), conditions.len());
            self.relation(&join.relation, relations, conditions)?;
            let (constraint, left_missing, right_missing) = constraint(join);
            // What a side that may be missing is joined by says nothing of the other's rows.
            let missing = match (left_missing, right_missing) {
                (true, true) => return unsupported(self.sql),
                (true, false) => {
                    conditions.drain(start_conditions..right_conditions);
                    start..right
                }
                (false, true) => {
                    conditions.truncate(right_conditions);
                    right..relations.len()
                }
                (false, false) => {
                    if let Some(JoinConstraint::On(condition)) = constraint {
                        conditions.push(condition.clone());
                    }
                    continue;
                }
            };
            for relation in &mut relations[missing] {
                relation.leaf.outer = true;
            }
        }
        Ok(())
    }

    fn relation(
        &self,
        factor: &TableFactor,
        relations: &mut Vec<Relation>,
        conditions: &mut Vec<Expr>,
    ) -> Result<(), VtError> {
        let alias = match factor {
            TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } => alias.as_ref(),
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                return self.relations(table_with_joins, relations, conditions);
            }
            TableFactor::JsonTable { alias, .. } => alias.as_ref(),
            _ => return unsupported(self.sql),
        };
        let aliased = alias.is_some();
        let mut leaf = Leaf::of_nothing(alias.map(|alias| alias.name.value.clone()).unwrap_or_default());
        let (mut table, mut vindex) = (None, None);
        if let TableFactor::Table { name, .. } = factor {
            let parts: Vec<&str> =
                name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.as_str()).collect();
            let (qualifier, name) = match parts[..] {
                [name] => (None, name),
                [qualifier, name] => (Some(qualifier), name),
                _ => return unsupported(self.sql),
            };
            let is_cte = qualifier.is_none() && self.names.ctes.contains(name);
            let is_dual = qualifier.is_none() && name.eq_ignore_ascii_case("dual");
            if is_cte && self.analysis.named_table(None, name).is_ok() {
                return unsupported(format_args!("a name of WITH that is a table's, too: {name}"));
            }
            if !is_cte && !is_dual {
                let alias = std::mem::take(&mut leaf.alias);
                match self.analysis.named_table(qualifier, name) {
                    Ok((found, place)) => {
                        leaf = place;
                        table = Some(found);
                    }
                    Err(error) => {
                        let vschema = self.analysis.context.vschema;
                        let keyspace = qualifier.unwrap_or(&self.analysis.context.target.keyspace);
                        let found = vschema.find_vindex(keyspace, name).ok().flatten();
                        vindex = Some(found.ok_or(error)?);
                    }
                }
                leaf.alias = if aliased { alias } else { name.to_owned() };
            } else if !aliased {
                leaf.alias = name.to_owned();
            }
        }
        relations.push(Relation { leaf, table, vindex, aliased });
        Ok(())
    }

    /// Whether a condition is about one relation alone, and may be asked of its shards.
    fn is_about(&self, condition: &Expr, leaf: &Leaf, only: bool) -> bool {
        struct Check<'a> {
            leaf: &'a Leaf,
            bare: bool,
        }
        impl Visitor for Check<'_> {
            type Break = ();
            fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
                ControlFlow::Break(())
            }
            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
                let fits = match expr {
                    Expr::Identifier(name) => self.bare || self.leaf.has_key(&name.value),
                    Expr::CompoundIdentifier(parts) => parts.len() == 2 && parts[0].value == self.leaf.alias,
                    Expr::Function(function) => is_pure(&function.name.to_string()),
                    Expr::CompoundFieldAccess { .. } | Expr::MatchAgainst { .. } => false,
                    _ => true,
                };
                if fits { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }
        }
        // A bare name in an inner block may be a column of the block around it.
        let mut check = Check { leaf, bare: only && self.depth == 1 };
        // Among several relations it may be another's.
        if !only && has_bare_name(condition) {
            return false;
        }
        condition.visit(&mut check).is_continue()
    }
}

/// The value that the conditions on a vindex give to it: `id = value` and nothing else.
fn vindex_value(conditions: &[&Expr], leaf: &Leaf, only: bool) -> Result<PlanValue, VtError> {
    let refused = |why: &str| {
        unsupported(format_args!("where clause for vindex function must be of the form id = <val> ({why})"))
    };
    let is_id = |expr: &Expr| match expr {
        Expr::CompoundIdentifier(parts) => {
            matches!(&parts[..], [.., table, id] if table.value == leaf.alias && id.value.eq_ignore_ascii_case("id"))
        }
        _ => false,
    };
    // Among other relations it may be joined by its columns, too.
    let gives = |condition: &Expr| {
        matches!(condition, Expr::BinaryOp { left, op: BinaryOperator::Eq, right }
            if is_id(left) && PlanValue::of_expr(right).is_some())
    };
    let filters: Vec<&&Expr> = conditions.iter().filter(|condition| only || gives(condition)).collect();
    let filter = match filters[..] {
        [] => return refused("where clause missing"),
        [filter] => filter,
        _ => return refused("multiple filters"),
    };
    let Expr::BinaryOp { left, op, right } = filter else { return refused("not a comparison") };
    match op {
        BinaryOperator::Eq => {}
        BinaryOperator::Lt
        | BinaryOperator::LtEq
        | BinaryOperator::Gt
        | BinaryOperator::GtEq
        | BinaryOperator::NotEq
        | BinaryOperator::Spaceship => return refused("not equality"),
        _ => return refused("not a comparison"),
    }
    let column = match &**left {
        Expr::Identifier(name) => name,
        Expr::CompoundIdentifier(parts) if !parts.is_empty() => &parts[parts.len() - 1],
        _ => return refused("lhs is not a column"),
    };
    if !column.value.eq_ignore_ascii_case("id") {
        return refused("lhs is not id");
    }
    match PlanValue::of_expr(right) {
        Some(value) => Ok(value),
        None => refused("rhs is not a value"),
    }
}

fn has_bare_name(condition: &Expr) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if matches!(expr, Expr::Identifier(_)) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    condition.visit(&mut Find).is_break()
}

/// Functions that give the same for the same row wherever they run.
fn is_pure(name: &str) -> bool {
    !walk::is_aggregate(name) && !walk::is_volatile(name)
}

/// Puts marks in place of tables, in the order in which they were found.
fn replace(table: &mut TableWithJoins, marks: &mut impl Iterator<Item = Option<(String, Option<String>)>>) {
    let one = |factor: &mut TableFactor, marks: &mut dyn Iterator<Item = Option<(String, Option<String>)>>| {
        if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
            let mut marks = marks;
            replace(table_with_joins, &mut marks);
            return;
        }
        let Some(Some((mark, new_alias))) = marks.next() else { return };
        if let TableFactor::Table { name, alias, index_hints, partitions, .. } = factor {
            *name = ObjectName::from(vec![Ident::new(mark)]);
            index_hints.clear();
            partitions.clear();
            if let Some(new) = new_alias {
                *alias = Some(vtsql::ast::TableAlias {
                    explicit: true,
                    name: Ident::with_quote('`', new),
                    columns: Vec::new(),
                    at: None,
                });
            }
        }
    };
    one(&mut table.relation, marks);
    for join in &mut table.joins {
        one(&mut join.relation, marks);
    }
}

/// Asks each shard for no more rows than the statement can use.
fn push_limit(query: &Query, fetch: &mut Fetch) {
    let SetExpr::Select(select) = &*query.body else { return };
    let over_rows = select.projection.iter().any(walk::is_over_rows)
        || select.having.is_some()
        || !walk::group_by(select).is_empty()
        || walk::is_distinct(select);
    let (limit, offset) = match &query.limit_clause {
        Some(LimitClause::LimitOffset { limit: Some(limit), offset, .. }) => {
            (limit, offset.as_ref().map(|offset| &offset.value))
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => (limit, Some(offset)),
        _ => return,
    };
    let (Some(limit), offset) = (PlanValue::of_expr(limit), offset.map(PlanValue::of_expr)) else { return };
    if over_rows || offset == Some(None) || !walk::subqueries(query).is_empty() && has_inner(query) {
        return;
    }
    let aliases: Vec<&str> = select.projection.iter().filter_map(walk::alias_of_another).collect();
    let mut order = Vec::new();
    for item in walk::order_by(query) {
        let mut item = item.clone();
        let meant = match &item.expr {
            Expr::Identifier(name) => select.projection.iter().find_map(|one| match one {
                SelectItem::ExprWithAlias { expr, alias } if alias.value.eq_ignore_ascii_case(&name.value) => {
                    Some(expr)
                }
                _ => None,
            }),
            Expr::Value(value) => {
                let position = value.value.to_string().parse::<usize>().ok().and_then(|n| n.checked_sub(1));
                match position.and_then(|n| select.projection.get(n)).and_then(walk::item_expr) {
                    Some(expr) => Some(expr),
                    None => return,
                }
            }
            // Whether it is the alias or a column of the same name that is meant inside depends on the tables' columns.
            expr if walk::names_one_of(expr, &aliases) => return,
            _ => None,
        };
        if let Some(meant) = meant {
            item.expr = meant.clone();
        }
        if walk::is_over_rows(&item.expr) {
            return;
        }
        order.push(print_tree(&item));
    }
    if !order.is_empty() {
        fetch.order = format!(" order by {}", order.join(", "));
    }
    fetch.limit = Some((limit, offset.flatten()));
}

/// Whether a query has others inside.
fn has_inner(query: &Query) -> bool {
    struct Count(usize);
    impl Visitor for Count {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 += 1;
            if self.0 > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    query.visit(&mut Count(0)).is_break()
}

/// Lets each shard form its groups, so that the statement only has to put equal ones together. False where the
/// statement is not of that kind.
fn push_groups(query: &mut Query, fetch: &mut Fetch) -> bool {
    if has_inner(query) {
        return false;
    }
    let order_before = query.order_by.clone();
    let SetExpr::Select(select) = &mut *query.body else { return false };
    if walk::is_distinct(select) || walk::has_rollup(select) || !select.named_window.is_empty() {
        return false;
    }
    let mut columns = BTreeSet::new();
    for expr in walk::group_by(select) {
        let name = match expr {
            Expr::Identifier(name) => name,
            Expr::CompoundIdentifier(parts) => match parts.last() {
                Some(name) => name,
                None => return false,
            },
            _ => return false,
        };
        let is_alias = select.projection.iter().any(|item| {
            matches!(item, SelectItem::ExprWithAlias { alias, expr: e } if alias.value.eq_ignore_ascii_case(&name.value) && e != expr)
        });
        if is_alias {
            return false;
        }
        columns.insert(name.value.to_ascii_lowercase());
    }
    let mut aggregates = Aggregates { columns: &columns, aliases: Vec::new(), computed: Vec::new(), fits: true };
    for item in &select.projection {
        if let SelectItem::ExprWithAlias { alias, .. } = item {
            aggregates.aliases.push(alias.value.to_ascii_lowercase());
        }
    }
    let (mut projection, mut having, mut order) = (select.projection.clone(), select.having.clone(), order_before);
    let aliases = std::mem::take(&mut aggregates.aliases);
    let _ = VisitMut::visit(&mut projection, &mut aggregates);
    aggregates.aliases = aliases;
    let _ = VisitMut::visit(&mut having, &mut aggregates);
    let _ = VisitMut::visit(&mut order, &mut aggregates);
    if !aggregates.fits
        || aggregates.computed.is_empty()
        || projection.iter().any(|item| walk::item_expr(item).is_none())
    {
        return false;
    }
    let computed = aggregates.computed;
    let groups: Vec<String> = walk::group_by(select).iter().map(print_tree).collect();
    select.projection = projection;
    select.having = having;
    select.selection = None;
    query.order_by = order;
    fetch.columns = Some(columns);
    fetch.computed = computed;
    if !groups.is_empty() {
        fetch.order = format!(" group by {}", groups.join(", "));
    }
    true
}

/// Begins the name of a value that shards compute for their groups.
const PART: &str = "__vt_part_";

/// Replaces aggregates over rows by aggregates over the shards' ones.
struct Aggregates<'a> {
    columns: &'a BTreeSet<String>,
    aliases: Vec<String>,
    computed: Vec<Computed>,
    fits: bool,
}

impl Aggregates<'_> {
    fn compute(&mut self, text: String, like: Option<String>) -> String {
        if let Some(known) = self.computed.iter().find(|known| known.text == text) {
            return known.name.clone();
        }
        let name = format!("{PART}{}", self.computed.len());
        self.computed.push(Computed { name: name.clone(), text, like });
        name
    }

    /// The expression in place of an aggregate function.
    fn replacement(&mut self, expr: &Expr) -> Option<Expr> {
        let Expr::Function(function) = expr else { return None };
        if function.over.is_some() || function.filter.is_some() || !function.within_group.is_empty() {
            return None;
        }
        let FunctionArguments::List(list) = &function.args else { return None };
        if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
            return None;
        }
        let [FunctionArg::Unnamed(arg)] = &list.args[..] else { return None };
        let name = function.name.to_string().to_ascii_lowercase();
        let text = match arg {
            FunctionArgExpr::Expr(expr) if walk::subqueries(expr).is_empty() && !walk::is_over_rows(expr) => {
                print_tree(expr)
            }
            FunctionArgExpr::Wildcard if name == "count" => "*".to_owned(),
            _ => return None,
        };
        let new = match name.as_str() {
            "count" => format!("cast(coalesce(sum({}), 0) as signed)", self.compute(format!("count({text})"), None)),
            "sum" => format!("sum({})", self.compute(format!("sum({text})"), None)),
            // Of text only a column keeps its collation on the way.
            "min" | "max" => {
                let column = match arg {
                    FunctionArgExpr::Expr(Expr::Identifier(name)) => name,
                    FunctionArgExpr::Expr(Expr::CompoundIdentifier(parts)) => parts.last()?,
                    _ => return None,
                };
                let like = Some(column.value.to_ascii_lowercase());
                format!("{name}({})", self.compute(format!("{name}({text})"), like))
            }
            "avg" => {
                let sum = self.compute(format!("sum({text})"), None);
                format!("sum({sum}) / sum({})", self.compute(format!("count({text})"), None))
            }
            _ => return None,
        };
        let tree = vtsql::parse(&format!("select ({new})")).ok()?;
        let Tree::Query(query) = tree.tree().ok()?.statement() else { return None };
        let SetExpr::Select(select) = &*query.body else { return None };
        select.projection.first().and_then(walk::item_expr).cloned()
    }
}

/// An aggregate that was put in place of another.
fn is_part(function: &vtsql::ast::Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    matches!(&list.args[..], [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name)))]
        if name.value.starts_with(PART))
}

impl VisitorMut for Aggregates<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        // What stands inside an aggregate belongs to it.
        if let Expr::Function(function) = expr
            && walk::is_aggregate(&function.name.to_string())
        {
            if is_part(function) {
                return ControlFlow::Continue(());
            }
            match self.replacement(expr) {
                Some(new) => *expr = new,
                None => {
                    self.fits = false;
                    return ControlFlow::Break(());
                }
            }
            return ControlFlow::Continue(());
        }
        let known = |columns: &BTreeSet<String>, aliases: &[String], name: &str| {
            let name = name.to_ascii_lowercase();
            name.starts_with(PART) || columns.contains(&name) || aliases.contains(&name)
        };
        let fits = match expr {
            Expr::Identifier(name) => known(self.columns, &self.aliases, &name.value),
            Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|name| known(self.columns, &[], &name.value)),
            Expr::Function(function) => function.over.is_none(),
            _ => true,
        };
        self.fits &= fits;
        if fits { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}
