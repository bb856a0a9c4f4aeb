//! Answers of several shards put in order, and cut.
//!
//! Owns: running a route with a [`Merge`]: what is asked of the shards, which columns tell the order of their rows
//! ([`order`]), and one answer out of theirs ([`rows`]), whole or as it arrives. Invariants: the client sees its own
//! columns only; an answer is merged by the types that it has itself, whatever was known of the table before.

mod order;
mod rows;

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, TryStreamExt};
use mysql::types::trim_fields;
use planner::{Merge, PlanValue, Route, Target, bind_variable};
use tabletclient::ResultStream;
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::{BindVariable, Field, QueryResult, Type, execute_options::IncludedFields},
    vtgate::CommitOrder,
};
use vtsql::{BindVars, Normalized};

pub(super) use order::Form;
use rows::{MergedRows, Slot, Source};

use super::{Executor, Output, Prepared, Work, insert::with_margins, places::Place};
use crate::{
    scatter::{Effect, ShardQuery},
    session::Session,
};

/// Rows of a shard beyond which its limit does not help.
const UPPER: &str = "__upper";

/// Which rows of the whole are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub offset: u64,
    pub count: u64,
}

impl Window {
    /// A statement's limit: count and offset.
    ///
    /// # Errors
    /// Values that are no such numbers.
    pub fn of(limit: Option<&(PlanValue, Option<PlanValue>)>, vars: &BindVars) -> Result<Option<Self>> {
        let Some((count, offset)) = limit else { return Ok(None) };
        let number = |value: &PlanValue| vindex::to_u64(&value.resolve(vars)?);
        let offset = offset.as_ref().map(number).transpose()?.unwrap_or(0);
        Ok(Some(Self { offset, count: number(count)? }))
    }

    /// Adds the limit for each shard to a text and its variables: all rows that can be in the window.
    pub fn bound(self, sql: &mut String, vars: &BTreeMap<String, BindVariable>) -> BindVars {
        sql.push_str(" limit :");
        sql.push_str(UPPER);
        let upper = if self.count == 0 { 0 } else { self.count.saturating_add(self.offset) };
        let mut with = vars.clone();
        with.insert(UPPER.to_owned(), bind_variable(&vindex::Value::new(Type::Uint64, upper.to_string())));
        with
    }
}

/// A statement under way.
struct Asked<'a> {
    prepared: &'a Prepared,
    route: &'a Route,
    merge: &'a Merge,
    normalized: &'a Normalized,
    window: Option<Window>,
    places: Vec<Place>,
}

impl Executor {
    /// Runs a route on several shards and merges their answers.
    #[expect(clippy::too_many_arguments, reason = "everything a statement consists of")]
    pub(super) async fn merge(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        prepared: &Prepared,
        route: &Route,
        merge: &Merge,
        normalized: &Normalized,
        vars: Arc<BindVars>,
        mut places: Vec<Place>,
        stream: bool,
    ) -> Result<Output> {
        let options = session.pb.options.clone();
        let included = session.options().included_fields();
        let select_limit = session.take_select_limit();
        session.options().included_fields = IncludedFields::All.into();
        let outcome = async {
            let window = Window::of(merge.limit.as_ref(), &vars)?;
            let window = window.or_else(|| {
                let count = u64::try_from(select_limit).ok().filter(|count| *count > 0)?;
                Some(Window { offset: 0, count })
            });
            if window.is_some_and(|window| window.count == 0) {
                // Any shard tells the columns.
                places.truncate(1);
            }
            let asked = Asked { prepared, route, merge, normalized, window, places };
            match self.merged(work, session, asked, stream).await? {
                Some(output) => Ok(output),
                None => {
                    let gather = merge.otherwise.as_ref().map_err(Clone::clone)?;
                    let gathered = self.gather(work, session, target, prepared, gather, vars.clone(), select_limit);
                    gathered.await.map(Output::Whole)
                }
            }
        }
        .await;
        session.pb.options = options;
        Ok(match outcome? {
            Output::Whole(mut result) => {
                trim_fields(&mut result.fields, included);
                Output::Whole(result)
            }
            Output::Rows(rows) => Output::Rows(
                rows.map_ok(move |mut result| {
                    trim_fields(&mut result.fields, included);
                    result
                })
                .boxed(),
            ),
        })
    }

    /// `None`: the order of some value is only known to mysqld.
    async fn merged(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        asked: Asked<'_>,
        stream: bool,
    ) -> Result<Option<Output>> {
        let Asked { prepared, route, merge, .. } = asked;
        let keys = if asked.places.len() > 1 { merge.keys.len() } else { 0 };
        let mut forms: Arc<[Form]> = match prepared.forms.load_full() {
            _ if keys == 0 => Arc::new([]),
            Some(known) if known.len() == keys => known.iter().copied().collect(),
            _ => match self.forms(work, session, &asked).await? {
                Some(forms) => forms.into(),
                None => return Ok(None),
            },
        };
        // A second time when a column has got another type since.
        for _ in 0..2 {
            let columns = Columns::of(merge, &forms);
            if merge.keys.iter().zip(forms.iter()).any(|(key, form)| !key.nests && !form.asked(&key.expr).is_empty()) {
                return Ok(None);
            }
            let queries = asked.queries(&columns.hidden);
            work.shard_queries += queries.len() as u64;
            prepared.count(queries.len());
            let tolerates = route.scatter_errors_as_warnings;
            // Streams are left before their end, which would end the transaction with them.
            let stream = stream && session.all_shard_sessions().next().is_none();
            let streams: Vec<ResultStream> = if stream && !tolerates {
                self.parts.scatter.stream_apart(work.caller, session, &queries).await?
            } else {
                let results = if tolerates {
                    self.tolerant(work.caller, session, &queries).await?
                } else {
                    let (scatter, order) = (&self.parts.scatter, work.order);
                    scatter.execute_apart(work.caller, session, &queries, Effect::Read, order).await?
                };
                results.into_iter().map(|result| futures::stream::iter([Ok(result)]).boxed()).collect()
            };
            let mut sources = Vec::with_capacity(streams.len());
            for stream in streams {
                sources.push(Source::open(stream).await?);
            }
            let Some(first) = sources.first() else { return Ok(Some(Output::Whole(QueryResult::default()))) };
            let mut fields = first.fields.clone();
            let found: Vec<Option<Vec<Form>>> =
                sources.iter().map(|source| columns.forms(merge, &source.fields, keys)).collect();
            if let Some(other) = found.iter().find(|found| found.as_deref() != Some(&forms[..])) {
                prepared.forms.store(None);
                match other {
                    Some(other) => forms = other.as_slice().into(),
                    None => return Ok(None),
                }
                continue;
            }
            if keys > 0 {
                prepared.forms.store(Some(Arc::new(forms.to_vec())));
            }
            let slots = columns.slots(merge, &forms, fields.len()).ok_or_else(too_few)?;
            let visible = fields.len().checked_sub(columns.hidden.len()).ok_or_else(too_few)?;
            fields.truncate(visible);
            let mut rows = MergedRows::new(sources, slots.into(), visible, asked.window);
            if stream && !tolerates {
                let head = QueryResult { fields, ..QueryResult::default() };
                let rows = futures::stream::try_unfold(rows, |mut rows| async move {
                    Ok(rows.next().await?.map(|chunk| (chunk, rows)))
                });
                return Ok(Some(Output::Rows(futures::stream::iter([Ok(head)]).chain(rows).boxed())));
            }
            let mut result = QueryResult { fields, ..QueryResult::default() };
            while let Some(chunk) = rows.next().await? {
                result.rows.extend(chunk.rows);
            }
            result.rows_affected = result.rows.len() as u64;
            return Ok(Some(Output::Whole(result)));
        }
        let text = "the columns of ORDER BY do not have the same types on all shards";
        Err(VtError::new(Code::FailedPrecondition, text))
    }

    /// The forms of the keys, asked of one shard without rows.
    async fn forms(&self, work: &mut Work<'_>, session: &Session, asked: &Asked<'_>) -> Result<Option<Vec<Form>>> {
        let count = asked.merge.keys.len();
        let columns = Columns::of(asked.merge, &vec![Form::Bytes; count]);
        let Some((target, vars)) = asked.places.first() else { return Ok(None) };
        let sql = format!("{} limit 0", asked.merge.text(&columns.hidden));
        let query = ShardQuery { target: target.clone(), sql: sql.into(), bind_variables: vars.clone(), raw: false };
        work.shard_queries += 1;
        let (mut beside, order) = (session.beside(), CommitOrder::Normal);
        let result = self.parts.scatter.execute_one(work.caller, &mut beside, &query, Effect::Read, order).await?;
        Ok(columns.forms(asked.merge, &result.fields, count))
    }
}

impl Asked<'_> {
    /// The statement with more columns, for each shard.
    fn queries(&self, hidden: &[String]) -> Vec<ShardQuery> {
        let queries = self.places.iter().map(|(target, vars)| {
            let mut sql = self.merge.text(hidden);
            let bind_variables = match self.window {
                Some(window) => Arc::new(window.bound(&mut sql, vars)),
                None => vars.clone(),
            };
            sql.push_str(&self.merge.lock);
            let sql = with_margins(&sql, self.normalized).into();
            ShardQuery { target: target.clone(), sql, bind_variables, raw: false }
        });
        queries.collect()
    }
}

/// Columns that are asked for behind the client's own, and which keys they are about.
struct Columns {
    hidden: Vec<String>,
    /// For each key which hidden column is its value, if the client has none, and where those of its form begin.
    keys: Vec<(Option<usize>, usize)>,
}

impl Columns {
    fn of(merge: &Merge, forms: &[Form]) -> Self {
        let (mut hidden, mut keys) = (Vec::new(), Vec::new());
        for (key, form) in merge.keys.iter().zip(forms) {
            let own = key.column.is_none().then(|| {
                hidden.push(key.expr.clone());
                hidden.len() - 1
            });
            keys.push((own, hidden.len()));
            hidden.extend(form.asked(&key.expr));
        }
        Self { hidden, keys }
    }

    /// Where the values of the keys stand in rows of `count` columns.
    fn slots(&self, merge: &Merge, forms: &[Form], count: usize) -> Option<Vec<Slot>> {
        let visible = count.checked_sub(self.hidden.len())?;
        let of_key = |((own, asked), (key, form)): (&(Option<usize>, usize), (&planner::MergeKey, &Form))| {
            let own = match (own, key.column) {
                (Some(own), _) => visible + own,
                (None, column) => column?.position(visible)?,
            };
            Some(Slot { form: *form, descending: key.descending, own, asked: visible + asked })
        };
        self.keys.iter().zip(merge.keys.iter().zip(forms)).map(of_key).collect()
    }

    /// The forms of the first `count` keys, by the fields of a result.
    fn forms(&self, merge: &Merge, fields: &[Field], count: usize) -> Option<Vec<Form>> {
        let slots = self.slots(merge, &vec![Form::Bytes; count], fields.len())?;
        slots.iter().map(|slot| Form::of(fields.get(slot.own)?)).collect()
    }
}

fn too_few() -> VtError {
    VtError::new(Code::Internal, "a result with fewer columns than were asked for")
}
