//! Statements whose shards the caller has chosen: the v2 API. They are not planned.

use std::sync::Arc;

use vterrors::Result;
use vtproto::{
    query::{BoundQuery, QueryResult, Target},
    topodata::TabletType,
    vtgate::CommitOrder,
};
use vtsql::StatementKind;

use super::{Executor, Output, Work, interrupted, no_variables};
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
        direct: Direct,
    ) -> Result<QueryResult> {
        let none = no_variables();
        let mut work = Work::new(caller, method, &none);
        let sql = direct.queries.first().map(|(_, query)| query.sql.clone()).unwrap_or_default();
        let (queries, effect) = self.direct_queries(&mut work, direct);
        let running = async {
            if effect == Effect::Write && queries.len() > 1 && !session.in_transaction() {
                return self.in_own_transaction(caller, session, &queries).await;
            }
            self.parts.scatter.execute_many(caller, session, &queries, effect, CommitOrder::Normal).await
        };
        let outcome = tokio::select! {
            biased;
            outcome = running => outcome,
            () = caller.cancelled.cancelled() => Err(interrupted()),
        };
        self.ended(work, session, sql.as_bytes(), outcome).await
    }

    /// As [`Executor::execute_direct`], outside of transactions, rows as they arrive.
    ///
    /// # Errors
    /// The tablets', prefixed.
    pub async fn stream_direct(&self, caller: &Caller, method: &'static str, direct: Direct) -> Result<Output> {
        use futures::{StreamExt, TryStreamExt};
        let none = no_variables();
        let mut work = Work::new(caller, method, &none);
        let sql = direct.queries.first().map(|(_, query)| query.sql.clone()).unwrap_or_default();
        let mut session = Session::from_message(None);
        let (queries, _) = self.direct_queries(&mut work, direct);
        let outcome = self.parts.scatter.stream_many(caller, &mut session, &queries).await;
        match outcome {
            Ok(rows) => {
                self.ended(work, &mut session, sql.as_bytes(), Ok(QueryResult::default())).await?;
                let executor = self.clone();
                Ok(Output::Rows(rows.map_err(move |error| executor.prefixed(error)).boxed()))
            }
            Err(error) => self.ended(work, &mut session, sql.as_bytes(), Err(error)).await.map(Output::Whole),
        }
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
                ShardQuery { target, sql: query.sql.into(), bind_variables: Arc::new(query.bind_variables) }
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
