//! Small questions about expressions and queries.

use std::ops::ControlFlow;

use vtsql::ast::{
    BinaryOperator, Distinct, Expr, GroupByExpr, LimitClause, OrderByExpr, OrderByKind, Query, Select, SelectItem,
    Visit, Visitor,
};

/// The conditions that all have to hold for `expr` to hold.
pub(crate) fn conjuncts<'a>(expr: &'a Expr, out: &mut Vec<&'a Expr>) {
    match expr {
        Expr::Nested(inner) => conjuncts(inner, out),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left, out);
            conjuncts(right, out);
        }
        other => out.push(other),
    }
}

/// Equalities of which a conjunct consists: one, or those of a row comparison.
pub(crate) fn equalities(expr: &Expr) -> Vec<(&Expr, &Expr)> {
    let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = expr else { return Vec::new() };
    match (&**left, &**right) {
        (Expr::Tuple(left), Expr::Tuple(right)) if left.len() == right.len() => left.iter().zip(right).collect(),
        (left, right) => vec![(left, right)],
    }
}

/// The queries directly inside an expression.
pub(crate) fn subqueries(expr: &impl Visit) -> Vec<Query> {
    struct Find {
        depth: usize,
        found: Vec<Query>,
    }
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            if self.depth == 0 {
                self.found.push(query.clone());
            }
            self.depth += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
    }
    let mut find = Find { depth: 0, found: Vec::new() };
    let _ = expr.visit(&mut find);
    find.found
}

/// Whether an expression needs more than one row at once: aggregate or window functions.
pub(crate) fn is_over_rows(expr: &impl Visit) -> bool {
    struct Find(usize);
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.0 -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(function)
                    if self.0 == 0 && (function.over.is_some() || is_aggregate(&function.name.to_string())) =>
                {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Find(0)).is_break()
}

/// Functions that give another value each time, or do something.
pub(crate) fn is_volatile(name: &str) -> bool {
    const NAMES: &[&str] =
        &["rand", "uuid", "uuid_short", "sleep", "benchmark", "found_rows", "row_count", "connection_id"];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether an expression has a window function.
pub(crate) fn is_over_window(expr: &impl Visit) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(function) if function.over.is_some() => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Find).is_break()
}

/// The aggregate functions of MySQL and MariaDB.
pub(crate) fn is_aggregate(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "count",
        "sum",
        "min",
        "max",
        "avg",
        "group_concat",
        "bit_and",
        "bit_or",
        "bit_xor",
        "std",
        "stddev",
        "stddev_pop",
        "stddev_samp",
        "var_pop",
        "var_samp",
        "variance",
        "json_arrayagg",
        "json_objectagg",
        "any_value",
        "approx_count_distinct",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

pub(crate) fn group_by(select: &Select) -> &[Expr] {
    match &select.group_by {
        GroupByExpr::Expressions(list, _) => list,
        GroupByExpr::All(_) => &[],
    }
}

/// GROUP BY with more rows than groups: WITH ROLLUP.
pub(crate) fn has_rollup(select: &Select) -> bool {
    match &select.group_by {
        GroupByExpr::Expressions(_, modifiers) => !modifiers.is_empty(),
        GroupByExpr::All(_) => true,
    }
}

pub(crate) fn order_by(query: &Query) -> &[OrderByExpr] {
    match query.order_by.as_ref().map(|order| &order.kind) {
        Some(OrderByKind::Expressions(list)) => list,
        _ => &[],
    }
}

pub(crate) fn has_limit(query: &Query) -> bool {
    query.fetch.is_some()
        || match &query.limit_clause {
            None => false,
            Some(LimitClause::LimitOffset { limit, offset, .. }) => limit.is_some() || offset.is_some(),
            Some(LimitClause::OffsetCommaLimit { .. }) => true,
        }
}

pub(crate) fn is_distinct(select: &Select) -> bool {
    matches!(&select.distinct, Some(Distinct::Distinct | Distinct::On(_)))
}

/// The expression of a select item.
pub(crate) fn item_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// The name of a select item's column, if it is an alias or a column's own.
pub(crate) fn item_name(item: &SelectItem) -> Option<&str> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(&alias.value),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(&name.value),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(|part| part.value.as_str()),
        _ => None,
    }
}

/// An item's alias, unless it is the name of the column that it stands for.
pub(crate) fn alias_of_another(item: &SelectItem) -> Option<&str> {
    let SelectItem::ExprWithAlias { expr, alias } = item else { return None };
    let own = match expr {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    };
    (!own.is_some_and(|own| own.value.eq_ignore_ascii_case(&alias.value))).then_some(&alias.value)
}

/// Whether an expression names one of these without a table.
pub(crate) fn names_one_of(expr: &Expr, names: &[&str]) -> bool {
    struct Find<'a>(&'a [&'a str]);
    impl Visitor for Find<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(name) if self.0.iter().any(|one| name.value.eq_ignore_ascii_case(one)) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Find(names)).is_break()
}
