//! Begin, commit, rollback and savepoints of a session's transaction, over all its shards.
//!
//! Owns: the order of commits, the two-phase commit and its recovery. Invariant: whatever happens,
//! the session has no open transaction after [`Transactions::commit`] and
//! [`Transactions::rollback`], so that none is left behind on a tablet that we could have ended.

use std::sync::Arc;

use futures::future::join_all;
use tabletclient::QueryService;
use vterrors::{Code, MysqlError, Result, VtError};
use vtproto::{
    query::{
        CommitPreparedRequest, CommitRequest, ConcludeTransactionRequest, CreateTransactionRequest, PrepareRequest,
        ReadTransactionRequest, RollbackPreparedRequest, RollbackRequest, SetRollbackRequest, StartCommitRequest,
        Target, TransactionState,
    },
    topodata::TabletType,
    vtgate::{CommitOrder, TransactionMode, session::ShardSession},
};

use crate::{
    caller::Caller,
    scatter::{Effect, Scatter, ShardQuery},
    session::Session,
};

/// Ends transactions.
#[derive(Clone)]
pub struct Transactions {
    scatter: Scatter,
}

/// A call on the tablet that holds a transaction, with the fields that all requests have.
macro_rules! on_tablet {
    ($self:ident, $name:literal, $method:ident, $request:ident, $caller:ident, $target:expr, { $($field:ident: $value:expr),* $(,)? }) => {{
        let target: &Target = $target;
        let request = || $request {
            effective_caller_id: $caller.effective.clone(),
            immediate_caller_id: $caller.immediate.clone(),
            target: Some(target.clone()),
            $($field: $value),*
        };
        $self
            .scatter
            .gateway()
            .in_transaction($name, target, |service: Arc<dyn QueryService>| {
                let request = request();
                async move { service.$method(request).await }
            })
            .await
    }};
}

impl Transactions {
    pub fn new(scatter: Scatter) -> Self {
        Self { scatter }
    }

    /// Begins a transaction; one that is open is committed first, as MySQL does.
    ///
    /// # Errors
    /// Those of the commit.
    pub async fn begin(&self, caller: &Caller, session: &mut Session) -> Result<()> {
        if session.in_transaction() {
            self.commit(caller, session).await?;
        }
        session.pb.in_transaction = true;
        Ok(())
    }

    /// Commits on every shard, in the order pre, normal, post.
    ///
    /// # Errors
    /// The first shard's that fails; what is not committed then is rolled back. ABORTED for a
    /// transaction of which a part was lost.
    pub async fn commit(&self, caller: &Caller, session: &mut Session) -> Result<()> {
        if !session.in_transaction() {
            return Ok(());
        }
        if session.must_rollback {
            self.rollback(caller, session).await;
            return Err(VtError::new(Code::Aborted, "transaction was rolled back: a part of it was lost"));
        }
        let two_phase = self.scatter.mode(session) == TransactionMode::Twopc;
        let outcome =
            if two_phase { self.commit_2pc(caller, session).await } else { self.commit_each(caller, session).await };
        session.reset_transaction();
        outcome
    }

    async fn commit_each(&self, caller: &Caller, session: &mut Session) -> Result<()> {
        let pre = std::mem::take(&mut session.pb.pre_sessions);
        let normal = std::mem::take(&mut session.pb.shard_sessions);
        let post = std::mem::take(&mut session.pb.post_sessions);
        let first_post = pre.len() + normal.len();
        let all: Vec<ShardSession> = pre.into_iter().chain(normal).chain(post).collect();
        for (number, open) in all.iter().enumerate() {
            let Some(target) = &open.target else { continue };
            let outcome = on_tablet!(self, "Commit", commit, CommitRequest, caller, target, {
                transaction_id: open.transaction_id,
            });
            let Err(error) = outcome else { continue };
            if number >= first_post {
                // The data is committed; what is left are lookup rows that nothing points to.
                session.warn(0, format!("post-operation transaction had an error: {error}"));
                continue;
            }
            self.rollback_all(caller, &all[number + 1..]).await;
            return Err(error);
        }
        Ok(())
    }

    async fn commit_2pc(&self, caller: &Caller, session: &mut Session) -> Result<()> {
        if !session.pb.pre_sessions.is_empty() || !session.pb.post_sessions.is_empty() {
            self.rollback(caller, session).await;
            return Err(VtError::new(Code::FailedPrecondition, "pre or post actions not allowed in 2PC logs"));
        }
        if session.pb.shard_sessions.len() <= 1 {
            return self.commit_each(caller, session).await;
        }
        let all = std::mem::take(&mut session.pb.shard_sessions);
        // The first shard keeps the record of the transaction; it need not prepare.
        let Some((manager, participants)) = all.split_first() else { return Ok(()) };
        let target = manager.target.clone().unwrap_or_default();
        let dtid = Dtid { target: target.clone(), transaction_id: manager.transaction_id }.to_string();
        let others: Vec<Target> = participants.iter().filter_map(|open| open.target.clone()).collect();
        let created = on_tablet!(self, "CreateTransaction", create_transaction, CreateTransactionRequest, caller, &target, {
            dtid: dtid.clone(),
            participants: others.clone(),
        });
        if let Err(error) = created {
            self.rollback_all(caller, &all).await;
            return Err(error);
        }
        let prepares = participants.iter().map(|open| {
            let dtid = dtid.clone();
            async move {
                let target = open.target.clone().unwrap_or_default();
                on_tablet!(self, "Prepare", prepare, PrepareRequest, caller, &target, {
                    transaction_id: open.transaction_id,
                    dtid: dtid.clone(),
                })
            }
        });
        if let Some(error) = join_all(prepares).await.into_iter().find_map(Result::err) {
            // The decision is written first, so that a crash from here on also ends in a rollback.
            let decided = on_tablet!(self, "SetRollback", set_rollback, SetRollbackRequest, caller, &target, {
                transaction_id: manager.transaction_id,
                dtid: dtid.clone(),
            });
            if let Err(failed) = decided {
                tracing::warn!(%dtid, "the rollback of a distributed transaction is not recorded: {failed}");
                return Err(error);
            }
            if let Err(failed) = self.conclude_rollback(caller, &target, &dtid, participants).await {
                tracing::warn!(%dtid, "the rollback of a distributed transaction is not complete: {failed}");
            }
            return Err(error);
        }
        on_tablet!(self, "StartCommit", start_commit, StartCommitRequest, caller, &target, {
            transaction_id: manager.transaction_id,
            dtid: dtid.clone(),
        })?;
        self.conclude_commit(caller, &target, &dtid, &others).await
    }

    async fn conclude_commit(&self, caller: &Caller, manager: &Target, dtid: &str, others: &[Target]) -> Result<()> {
        let commits = others.iter().map(|target| async move {
            on_tablet!(self, "CommitPrepared", commit_prepared, CommitPreparedRequest, caller, target, {
                dtid: dtid.to_string(),
            })
        });
        join_all(commits).await.into_iter().collect::<Result<()>>()?;
        self.conclude(caller, manager, dtid).await
    }

    async fn conclude_rollback(
        &self,
        caller: &Caller,
        manager: &Target,
        dtid: &str,
        participants: &[ShardSession],
    ) -> Result<()> {
        let rollbacks = participants.iter().map(|open| async move {
            let target = open.target.clone().unwrap_or_default();
            on_tablet!(self, "RollbackPrepared", rollback_prepared, RollbackPreparedRequest, caller, &target, {
                transaction_id: open.transaction_id,
                dtid: dtid.to_string(),
            })
        });
        join_all(rollbacks).await.into_iter().collect::<Result<()>>()?;
        self.conclude(caller, manager, dtid).await
    }

    async fn conclude(&self, caller: &Caller, manager: &Target, dtid: &str) -> Result<()> {
        on_tablet!(self, "ConcludeTransaction", conclude_transaction, ConcludeTransactionRequest, caller, manager, {
            dtid: dtid.to_string(),
        })
    }

    /// Brings a distributed transaction whose coordinator died to its end, by its id.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an id of another form; those of the tablets.
    pub async fn resolve(&self, caller: &Caller, dtid: &str) -> Result<()> {
        let Dtid { target, transaction_id } = dtid.parse()?;
        let metadata = on_tablet!(self, "ReadTransaction", read_transaction, ReadTransactionRequest, caller, &target, {
            dtid: dtid.to_string(),
        })?;
        if metadata.dtid.is_empty() {
            // Somebody else has resolved it.
            return Ok(());
        }
        let participants: Vec<ShardSession> = metadata
            .participants
            .iter()
            .map(|target| ShardSession { target: Some(target.clone()), transaction_id: 0 })
            .collect();
        match metadata.state() {
            TransactionState::Commit => self.conclude_commit(caller, &target, dtid, &metadata.participants).await,
            TransactionState::Rollback => self.conclude_rollback(caller, &target, dtid, &participants).await,
            TransactionState::Prepare => {
                // No decision was made: it is rolled back.
                on_tablet!(self, "SetRollback", set_rollback, SetRollbackRequest, caller, &target, {
                    transaction_id: transaction_id,
                    dtid: dtid.to_string(),
                })?;
                self.conclude_rollback(caller, &target, dtid, &participants).await
            }
            TransactionState::Unknown => Err(VtError::new(Code::Internal, "invalid state: UNKNOWN")),
        }
    }

    /// Rolls back on every shard. A shard that does not answer ends the transaction by itself.
    pub async fn rollback(&self, caller: &Caller, session: &mut Session) {
        let all: Vec<ShardSession> = session.all_shard_sessions().cloned().collect();
        session.reset_transaction();
        self.rollback_all(caller, &all).await;
    }

    async fn rollback_all(&self, caller: &Caller, all: &[ShardSession]) {
        let rollbacks = all.iter().map(|open| async move {
            let target = open.target.clone().unwrap_or_default();
            let outcome = on_tablet!(self, "Rollback", rollback, RollbackRequest, caller, &target, {
                transaction_id: open.transaction_id,
            });
            if let Err(error) = outcome {
                tracing::debug!("rollback: {error}");
            }
        });
        join_all(rollbacks).await;
    }

    /// Ends the transaction that was begun for one statement, as the statement ended: commits it, or rolls it back.
    ///
    /// # Errors
    /// The statement's own, else that of the commit.
    pub async fn end<T>(&self, caller: &Caller, session: &mut Session, outcome: Result<T>) -> Result<T> {
        match outcome {
            Ok(result) => {
                self.commit(caller, session).await?;
                Ok(result)
            }
            Err(error) => {
                self.rollback(caller, session).await;
                Err(error)
            }
        }
    }

    /// `savepoint name`: remembered, and set where a transaction is open. Outside a transaction it
    /// means nothing, as in MySQL.
    ///
    /// # Errors
    /// The tablets'.
    pub async fn savepoint(&self, caller: &Caller, session: &mut Session, name: &str) -> Result<()> {
        if !session.in_transaction() {
            return Ok(());
        }
        self.on_open_shards(caller, session, &format!("savepoint {}", vtsql::quote_identifier(name))).await?;
        session.pb.savepoints.retain(|known| !known.eq_ignore_ascii_case(name));
        session.pb.savepoints.push(name.to_string());
        Ok(())
    }

    /// `release savepoint name`: forgets it and those after it.
    ///
    /// # Errors
    /// errno 1305 when there is none of that name; the tablets'.
    pub async fn release(&self, caller: &Caller, session: &mut Session, name: &str) -> Result<()> {
        let position = position_of(session, name)?;
        self.on_open_shards(caller, session, &format!("release savepoint {}", vtsql::quote_identifier(name))).await?;
        session.pb.savepoints.truncate(position);
        Ok(())
    }

    /// `rollback to name`: undoes what came after it, on all shards, and forgets later savepoints.
    ///
    /// # Errors
    /// errno 1305 when there is none of that name; the tablets'.
    pub async fn rollback_to(&self, caller: &Caller, session: &mut Session, name: &str) -> Result<()> {
        let position = position_of(session, name)?;
        self.on_open_shards(caller, session, &format!("rollback to {}", vtsql::quote_identifier(name))).await?;
        session.pb.savepoints.truncate(position + 1);
        Ok(())
    }

    async fn on_open_shards(&self, caller: &Caller, session: &mut Session, sql: &str) -> Result<()> {
        let pb = &session.pb;
        let open = [
            (CommitOrder::Pre, &pb.pre_sessions),
            (CommitOrder::Normal, &pb.shard_sessions),
            (CommitOrder::Post, &pb.post_sessions),
        ];
        let targets: Vec<(CommitOrder, Target)> = open
            .into_iter()
            .flat_map(|(order, list)| list.iter().filter_map(move |open| Some((order, open.target.clone()?))))
            .filter(|(_, target)| target.tablet_type() == TabletType::Master)
            .collect();
        let sql: Arc<str> = sql.into();
        for (order, target) in targets {
            let query = ShardQuery { target, sql: sql.clone(), bind_variables: Arc::default() };
            self.scatter.execute_one(caller, session, &query, Effect::Other, order).await?;
        }
        Ok(())
    }
}

fn position_of(session: &Session, name: &str) -> Result<usize> {
    session
        .pb
        .savepoints
        .iter()
        .position(|known| known.eq_ignore_ascii_case(name))
        .ok_or_else(|| MysqlError::new(1305, "42000", format!("SAVEPOINT {name} does not exist")).into())
}

/// The id of a distributed transaction: `keyspace:shard:transaction_id` of the shard that keeps its
/// record.
struct Dtid {
    target: Target,
    transaction_id: i64,
}

impl std::fmt::Display for Dtid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.target.keyspace, self.target.shard, self.transaction_id)
    }
}

impl std::str::FromStr for Dtid {
    type Err = VtError;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || VtError::new(Code::InvalidArgument, format!("invalid parts in dtid: {text}"));
        let mut parts = text.split(':');
        let (Some(keyspace), Some(shard), Some(id), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let transaction_id = id
            .parse()
            .map_err(|_| VtError::new(Code::InvalidArgument, format!("invalid transaction id in dtid: {text}")))?;
        let target = Target {
            keyspace: keyspace.into(),
            shard: shard.into(),
            tablet_type: TabletType::Master.into(),
            cell: String::new(),
        };
        Ok(Self { target, transaction_id })
    }
}
