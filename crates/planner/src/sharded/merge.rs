//! SELECT that each shard answers from its own rows, and whose answers only have to be put in order and cut.
//!
//! Owns: which statements these are, the text for shards, and where the values that rows are sorted by stand in
//! the result. Each shard sorts as the client's ORDER BY says and stops at offset and count together; the gate
//! merges, skips and cuts. How values compare the gate learns from the types of the result, and asks for more
//! columns where a value as clients see it does not tell its order. Invariant: what is asked for in addition stands
//! behind the client's own columns, and changes neither them nor the rows.

use std::ops::ControlFlow;

use vterrors::VtError;
use vtsql::{
    Statement,
    ast::{Expr, LimitClause, OrderByExpr, OrderBySort, Query, Select, SelectItem, SetExpr, VisitMut, VisitorMut},
    lexer::{Token, TokenKind, tokens},
    print_tree,
};

use super::gather::Gather;
use super::walk;
use crate::value::PlanValue;

/// How the answers of several shards become one.
#[derive(Debug, Clone)]
pub struct Merge {
    /// The statement to the end of its select list.
    head: String,
    /// From there to its limit.
    tail: String,
    /// ` for update`
    pub lock: String,
    /// What rows are sorted by.
    pub keys: Vec<MergeKey>,
    /// Count and offset.
    pub limit: Option<(PlanValue, Option<PlanValue>)>,
    /// For values whose order only mysqld knows.
    pub otherwise: Result<Box<Gather>, VtError>,
}

/// One value that rows are sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeKey {
    /// The client's column that is this value; `None`: it has to be asked for.
    pub column: Option<ResultColumn>,
    /// The value's text.
    pub expr: String,
    /// What is computed from the value may be asked for, too.
    pub nests: bool,
    pub descending: bool,
}

/// A column of a result whose number of columns the statement does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultColumn {
    FromStart(usize),
    /// 0 is the last one.
    FromEnd(usize),
}

impl ResultColumn {
    /// Its position in a result of `count` columns.
    pub fn position(self, count: usize) -> Option<usize> {
        match self {
            Self::FromStart(at) => (at < count).then_some(at),
            Self::FromEnd(at) => count.checked_sub(at + 1),
        }
    }
}

impl Merge {
    /// The statement with more columns, without limit and lock.
    pub fn text(&self, columns: &[String]) -> String {
        let mut text = self.head.clone();
        for column in columns {
            text.push_str(", ");
            text.push_str(column);
        }
        text.push_str(&self.tail);
        text
    }
}

/// How to put together the answers to a statement whose rows are local to shards. `text` is what they may be sent;
/// `None`: that is not enough.
pub(crate) fn plan_merge(
    statement: &Statement,
    query: &Query,
    text: &str,
    otherwise: impl FnOnce() -> Result<Gather, VtError>,
) -> Option<Merge> {
    let facts = &statement.facts;
    if facts.assigns_user_var || facts.into_file || facts.calc_found_rows || query.fetch.is_some() {
        return None;
    }
    let limit = match &query.limit_clause {
        None => None,
        Some(LimitClause::LimitOffset { limit: Some(limit), offset, limit_by }) if limit_by.is_empty() => {
            Some((limit, offset.as_ref().map(|offset| &offset.value)))
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => Some((limit, Some(offset))),
        Some(_) => return None,
    };
    let limit = match limit {
        None => None,
        Some((limit, None)) => Some((PlanValue::of_expr(limit)?, None)),
        Some((limit, Some(offset))) => Some((PlanValue::of_expr(limit)?, Some(PlanValue::of_expr(offset)?))),
    };
    let parts = Parts::of(text)?;
    let order = walk::order_by(query);
    if order.is_empty() {
        return Some(Merge {
            head: parts.body.to_owned(),
            tail: String::new(),
            lock: parts.lock,
            keys: Vec::new(),
            limit,
            otherwise: otherwise().map(Box::new),
        });
    }
    let SetExpr::Select(select) = &*query.body else { return None };
    let keys = order.iter().map(|item| key(item, select)).collect::<Option<Vec<_>>>()?;
    if walk::is_distinct(select) && keys.iter().any(|key| key.column.is_none()) {
        return None;
    }
    let (head, tail) = parts.body.split_at(parts.list_end?);
    Some(Merge {
        head: head.to_owned(),
        tail: tail.to_owned(),
        lock: parts.lock,
        keys,
        limit,
        otherwise: otherwise().map(Box::new),
    })
}

/// A SELECT's text taken apart.
struct Parts<'a> {
    /// All before the limit.
    body: &'a str,
    /// Where the select list ends.
    list_end: Option<usize>,
    /// What stands behind the limit, with a blank before it.
    lock: String,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let sql = text.as_bytes();
        let tokens: Vec<Token> = tokens(sql).into_iter().filter(|token| token.kind != TokenKind::Comment).collect();
        let (mut depth, mut list_end, mut body_end, mut lock_start) = (0usize, None, None, None);
        let mut end = text.len();
        for (number, token) in tokens.iter().enumerate() {
            let before = number.checked_sub(1).and_then(|before| tokens.get(before));
            let next = |words: &[&str]| tokens.get(number + 1).is_some_and(|t| words.iter().any(|w| t.is_word(sql, w)));
            match token.bytes(sql) {
                b"(" => depth += 1,
                b")" => depth = depth.checked_sub(1)?,
                _ if depth > 0 || before.is_some_and(|before| before.is_punct(sql, ".")) => {}
                b";" => {
                    end = token.start;
                    break;
                }
                _ if token.is_word(sql, "from") && list_end.is_none() => list_end = Some(before?.end),
                _ if token.is_word(sql, "limit") && body_end.is_none() => body_end = Some(token.start),
                _ if (token.is_word(sql, "for") && next(&["update", "share"]))
                    || (token.is_word(sql, "lock") && next(&["in"])) =>
                {
                    lock_start = lock_start.or(Some(token.start));
                }
                _ => {}
            }
        }
        let body_end = body_end.or(lock_start).unwrap_or(end);
        // A lock before the limit would be cut off with it.
        if lock_start.is_some_and(|start| start < body_end) {
            return None;
        }
        let lock = lock_start.map(|start| format!(" {}", text[start..end].trim_end())).unwrap_or_default();
        Some(Self { body: text[..body_end].trim_end(), list_end, lock })
    }
}

/// What an item of ORDER BY sorts by. `None`: that cannot be told, or not be asked for.
fn key(item: &OrderByExpr, select: &Select) -> Option<MergeKey> {
    let descending = match &item.options.sort {
        None | Some(OrderBySort::Asc) => false,
        Some(OrderBySort::Desc) => true,
        Some(_) => return None,
    };
    if item.options.nulls_first.is_some() || item.with_fill.is_some() {
        return None;
    }
    let mut expr = &item.expr;
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    let of_item = |at: usize| {
        let shown = walk::item_expr(select.projection.get(at)?)?;
        let stars = |items: &[SelectItem]| items.iter().any(|item| walk::item_expr(item).is_none());
        let column = if !stars(&select.projection[..at]) {
            Some(ResultColumn::FromStart(at))
        } else if !stars(&select.projection[at..]) {
            Some(ResultColumn::FromEnd(select.projection.len() - 1 - at))
        } else {
            None
        };
        Some(MergeKey { column, expr: repeated(shown)?, nests: nests(shown, select), descending })
    };
    let items = || select.projection.iter();
    match expr {
        Expr::Value(value) => match PlanValue::of_expr(expr) {
            // With a value in its place it would be a position.
            Some(PlanValue::Variable(_)) => None,
            Some(PlanValue::Literal(literal)) if literal.kind == vtproto::query::Type::Int64 => {
                // Positions count what `*` stands for.
                let at = value.value.to_string().parse::<usize>().ok()?.checked_sub(1)?;
                let before = select.projection.get(..at)?;
                if before.iter().any(|item| walk::item_expr(item).is_none()) { None } else { of_item(at) }
            }
            Some(PlanValue::Literal(_)) => {
                Some(MergeKey { column: None, expr: print_tree(expr), nests: true, descending })
            }
            None => None,
        },
        Expr::Identifier(name) => {
            let is = |other: &str| other.eq_ignore_ascii_case(&name.value);
            let named = items().position(|item| walk::item_name(item).is_some_and(is));
            // A column of the list may be meant by its own name, too.
            let column = || {
                items().position(|item| match walk::item_expr(item) {
                    Some(Expr::Identifier(own)) => is(&own.value),
                    Some(Expr::CompoundIdentifier(parts)) => parts.last().is_some_and(|own| is(&own.value)),
                    _ => false,
                })
            };
            match named.or_else(column) {
                Some(at) => of_item(at),
                // `*` has it, from one of several relations.
                None if !has_one_relation(select) && items().any(|item| walk::item_expr(item).is_none()) => None,
                None => Some(MergeKey { column: None, expr: print_tree(expr), nests: nests(expr, select), descending }),
            }
        }
        _ => {
            let aliases: Vec<&str> = items().filter_map(walk::alias_of_another).collect();
            if walk::names_one_of(expr, &aliases) {
                return None;
            }
            match items().position(|item| walk::item_expr(item) == Some(expr)) {
                Some(at) => of_item(at),
                None => Some(MergeKey { column: None, expr: repeated(expr)?, nests: nests(expr, select), descending }),
            }
        }
    }
}

/// The text of an expression for another column. `None`: it would not have the same value again.
fn repeated(expr: &Expr) -> Option<String> {
    struct Qualifiers;
    impl VisitorMut for Qualifiers {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            match expr {
                // `keyspace.table.column`: tablets do not know the keyspace.
                Expr::CompoundIdentifier(parts) if parts.len() == 3 => {
                    parts.remove(0);
                }
                Expr::Function(function) if walk::is_volatile(&function.name.to_string()) => {
                    return ControlFlow::Break(());
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut expr = expr.clone();
    VisitMut::visit(&mut expr, &mut Qualifiers).is_continue().then(|| print_tree(&expr))
}

/// Whether mysqld takes an expression inside others. With DISTINCT there would be other rows; with GROUP BY it
/// knows of columns and aggregates only that a group has one value.
fn nests(expr: &Expr, select: &Select) -> bool {
    let is_known = match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::Function(function) => walk::is_aggregate(&function.name.to_string()),
        _ => false,
    };
    !walk::is_distinct(select) && (is_known || walk::group_by(select).is_empty())
}

fn has_one_relation(select: &Select) -> bool {
    matches!(&select.from[..], [only] if only.joins.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{context_of, vschema_of};
    use crate::{Opcode, Primitive, Target, plan_text};

    fn merge(sql: &str) -> Option<(Opcode, Merge)> {
        let vschema = vschema_of(
            r#"{"keyspaces": {"ks": {"sharded": true, "vindexes": {"hash": {"type": "hash"}}, "tables": {
                "t": {"column_vindexes": [{"column": "id", "name": "hash"}]},
                "u": {"column_vindexes": [{"column": "id", "name": "hash"}]}}}}}"#,
        );
        let target = Target::parse("ks").expect("a target");
        match plan_text(sql, &context_of(&vschema, &target)).expect(sql).primitive {
            Primitive::Route(route) => route.merge.map(|merge| (route.opcode, *merge)),
            Primitive::Gather(_) => None,
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// The text with one more column, and the keys as `column or text [desc]`.
    fn shown(sql: &str) -> Option<(String, Vec<String>)> {
        let (_, merge) = merge(sql)?;
        let keys = merge.keys.iter().map(|key| {
            let what = match key.column {
                Some(ResultColumn::FromStart(at)) => format!("{at}"),
                Some(ResultColumn::FromEnd(at)) => format!("-{at}"),
                None => key.expr.clone(),
            };
            if key.descending { format!("{what} desc") } else { what }
        });
        let more: &[String] = if merge.keys.is_empty() { &[] } else { &["x".to_owned()] };
        Some((merge.text(more), keys.collect()))
    }

    #[test]
    fn rows_of_shards_are_sorted_and_cut() {
        for (sql, text, keys) in [
            ("select a from t limit 5", "select a from t", &[][..]),
            ("select a from t order by a", "select a, x from t order by a", &["0"]),
            (
                "select a as b, c from t where d = 1 order by b desc, 2 limit 3, 4",
                "select a as b, c, x from t where d = 1 order by b desc, 2",
                &["0 desc", "1"],
            ),
            (
                "select * from t order by a, t.b, a + 1 limit 1",
                "select *, x from t order by a, t.b, a + 1",
                &["a", "t.b", "a + 1"],
            ),
            (
                "select *, a as z from ks.t order by z, ks.t.b limit 1",
                "select *, a as z, x from t order by z, t.b",
                &["-0", "t.b"],
            ),
            (
                "select t.a from t join u on t.id = u.id order by a, u.b",
                "select t.a, x from t join u on t.id = u.id order by a, u.b",
                &["0", "u.b"],
            ),
            (
                "select id, count(*) from t group by id order by count(*), max(b)",
                "select id, count(*), x from t group by id order by count(*), max(b)",
                &["1", "max(b)"],
            ),
            ("select distinct id from t order by 1", "select distinct id, x from t order by 1", &["0"]),
            (
                "select extract(year from d) from t order by (1)",
                "select extract(year from d), x from t order by (1)",
                &["0"],
            ),
            (
                "select id, max(b) from t group by id order by null",
                "select id, max(b), x from t group by id order by null",
                &["NULL"],
            ),
            ("select a from t union all select a from u limit 2", "select a from t union all select a from u", &[]),
        ] {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            assert_eq!(shown(sql), Some((text.to_owned(), keys)), "{sql}");
        }
    }

    #[test]
    fn limits_and_locks_stand_apart() {
        let (opcode, merge) =
            merge("select a from t where id in (1, 2) order by a limit 2 for update").expect("a merge");
        assert_eq!((opcode, merge.lock.as_str()), (Opcode::In, " for update"));
        assert_eq!(merge.text(&[]), "select a from t where id in (1, 2) order by a");
        let two = PlanValue::Literal(vindex::Value::new(vtproto::query::Type::Int64, "2"));
        assert_eq!(merge.limit, Some((two, None)));
        assert!(merge.otherwise.is_ok() && merge.keys[0].nests);
    }

    #[test]
    fn what_mysqld_would_not_compute_from_a_key_is_not_asked_for() {
        for (sql, nests) in [
            (
                "select id, a, upper(b), max(c) from t group by id, a, upper(b) order by a, max(c), upper(b)",
                [true, true, false],
            ),
            ("select distinct id, a, b from t order by id, a, b", [false; 3]),
            ("select id from t order by a, upper(b), a + 1", [true; 3]),
        ] {
            let keys = merge(sql).expect(sql).1.keys;
            assert_eq!(keys.iter().map(|key| key.nests).collect::<Vec<_>>(), nests, "{sql}");
        }
    }

    #[test]
    fn what_is_more_than_order_is_gathered() {
        for sql in [
            "select a, count(*) from t group by a order by a",
            "select count(*) from t order by 1",
            "select a from t order by rand()",
            "select a from t union all select a from u order by a",
            // Which of the two is meant depends on the table.
            "select b as a from t order by a + 1",
            "select t.* from t join u on t.id = u.id order by a",
            "select distinct id from t order by a",
            "select a, row_number() over (order by a) from t order by 2 limit 1",
            "select * from t order by 2",
        ] {
            assert!(merge(sql).is_none(), "{sql}");
        }
    }
}
