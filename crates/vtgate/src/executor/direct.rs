//! Statements whose shards the caller has chosen: the v2 API. They are not planned.

use std::{pin::pin, sync::Arc};

use vterrors::Result;
use vtproto::{
    query::{BoundQuery, QueryResult, Target},
    topodata::TabletType,
    vtgate::CommitOrder,
};
use vtsql::StatementKind;

use super::{Executor, Output, ResultStream, Work, interrupted, no_variables};
use crate::{
    caller::Caller,
    scatter::{Effect, ShardQuery},
    session::Session,
};

/// One statement and its shards.
pub struct Direct {
    pub keyspace: String,
    pub tablet_type: TabletType,
    /// The statement for each shard; they differ where an API splits ids among shards.
    pub queries: Vec<(Target, BoundQuery)>,
}

impl Direct {
    /// The same statement on all shards.
    pub fn same(keyspace: &str, tablet_type: TabletType, targets: Vec<Target>, query: &BoundQuery) -> Self {
        let queries = targets.into_iter().map(|target| (target, query.clone())).collect();
        Self { keyspace: keyspace.into(), tablet_type, queries }
    }

    /// The statement as the log shows it.
    fn sql(&self) -> String {
        self.queries.first().map(|(_, query)| query.sql.clone()).unwrap_or_default()
    }
}

/// A statement whose shards the caller names. They are looked up anew for every attempt: a cutover may
/// move what the names mean.
#[async_trait::async_trait]
pub trait Named: Sync {
    /// The shards as of now.
    async fn resolve(&self) -> Result<Direct>;
}

impl Executor {
    /// Runs the statement on its shards; in the session's transaction if that is open.
    ///
    /// # Errors
    /// The tablets', prefixed.
    pub async fn execute_direct(
        &self,
        caller: &Caller,
        session: &mut Session,
        method: &'static str,
        named: &dyn Named,
    ) -> Result<QueryResult> {
        let none = no_variables();
        let mut work = Work::new(caller, method, &none);
        let mut sql = String::new();
        let outcome = {
            let running = pin!(async {
                let mut across = self.across_cutovers();
                loop {
                    across.attempt(session);
                    match self.attempt_direct(&mut work, session, &mut sql, named).await {
                        Ok(result) => return Ok(result),
                        Err(error) => across.again(session, sql.len(), error).await?,
                    }
                }
            });
            caller.run_until(caller.cancelled.cancelled(), running).await
        };
        let outcome = outcome.unwrap_or_else(|| Err(interrupted()));
        self.ended(work, session, sql.as_bytes(), outcome).await
    }

    async fn attempt_direct(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        sql: &mut String,
        named: &dyn Named,
    ) -> Result<QueryResult> {
        let direct = named.resolve().await?;
        *sql = direct.sql();
        let (queries, effect) = self.direct_queries(work, direct);
        if effect == Effect::Write && queries.len() > 1 && !session.in_transaction() {
            return self.in_own_transaction(work.caller, session, &queries, false).await;
        }
        self.parts.scatter.execute_many(work.caller, session, &queries, effect, CommitOrder::Normal).await
    }

    /// As [`Executor::execute_direct`], outside of transactions, rows as they arrive.
    ///
    /// # Errors
    /// The tablets', prefixed.
    pub async fn stream_direct(&self, caller: &Caller, method: &'static str, named: &dyn Named) -> Result<Output> {
        use futures::{StreamExt, TryStreamExt};
        let none = no_variables();
        let mut work = Work::new(caller, method, &none);
        let mut session = Session::from_message(None);
        let mut sql = String::new();
        let outcome = {
            let opening = pin!(async {
                let mut across = self.across_cutovers();
                loop {
                    across.attempt(&mut session);
                    match self.attempt_stream(&mut work, &mut session, &mut sql, named).await {
                        Ok(rows) => return Ok(rows),
                        Err(error) => across.again(&mut session, sql.len(), error).await?,
                    }
                }
            });
            caller.run_until(caller.cancelled.cancelled(), opening).await
        };
        match outcome.unwrap_or_else(|| Err(interrupted())) {
            Ok(rows) => {
                self.ended(work, &mut session, sql.as_bytes(), Ok(QueryResult::default())).await?;
                let executor = self.clone();
                Ok(Output::Rows(rows.map_err(move |error| executor.prefixed(error)).boxed()))
            }
            Err(error) => self.ended(work, &mut session, sql.as_bytes(), Err(error)).await.map(Output::Whole),
        }
    }

    async fn attempt_stream(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        sql: &mut String,
        named: &dyn Named,
    ) -> Result<ResultStream> {
        let direct = named.resolve().await?;
        *sql = direct.sql();
        let (queries, _) = self.direct_queries(work, direct);
        self.parts.scatter.stream_many(work.caller, session, &queries).await
    }

    fn direct_queries(&self, work: &mut Work<'_>, direct: Direct) -> (Vec<ShardQuery>, Effect) {
        work.keyspace = direct.keyspace;
        work.tablet_type = direct.tablet_type;
        let mut kind = StatementKind::Unknown;
        let queries: Vec<ShardQuery> = direct
            .queries
            .into_iter()
            .map(|(target, query)| {
                kind = vtsql::preview(&query.sql);
                ShardQuery { target, sql: query.sql.into(), bind_variables: Arc::new(query.bind_variables), raw: false }
            })
            .collect();
        work.statement = kind.name();
        work.shard_queries = queries.len() as u64;
        let effect = match kind {
            kind if kind.is_dml() => Effect::Write,
            StatementKind::Select | StatementKind::Show | StatementKind::Explain | StatementKind::Describe => {
                Effect::Read
            }
            _ => Effect::Other,
        };
        (queries, effect)
    }

    /// The text with the mark that filtered replication reads, if it is a write.
    pub fn annotated(&self, sql: &str, keyspace_ids: &[Vec<u8>]) -> String {
        if !vtsql::preview(sql).is_dml() {
            return sql.to_string();
        }
        match keyspace_ids {
            [id] => format!("{sql} /* vtgate:: keyspace_id:{} */", keyrange::KeyspaceId::new(id.as_slice())),
            _ => {
                self.parts.stats.unfriendly.inc();
                format!("{sql} /* vtgate:: filtered_replication_unfriendly */")
            }
        }
    }
}
