//! Begin, commit, rollback and savepoints of a session's transaction, over all its shards.
//!
//! Owns: the order of commits, the two-phase commit and its recovery, and what a statement that was cut short leaves of
//! the transaction ([`Transactions::settle`]). Invariants: from the first moment of [`Transactions::commit`] and
//! [`Transactions::rollback`] the session has no open transaction; what they have begun runs to its end by itself,
//! also when the statement's future is dropped, so that no shard is left out.

use std::{sync::Arc, time::Duration};

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
    session::{OpenShards, Session, Unanswered},
};

/// How often a transaction that is committed everywhere tries to remove its record: nobody waits out a moment in which
/// its tablet does not serve, as is done for statements.
const CONCLUDE_TRIES: u32 = 5;
const CONCLUDE_PAUSE: Duration = Duration::from_millis(100);

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

    /// Begins a transaction for one statement alone, which is outside of any. [`Transactions::end`] ends it, or
    /// [`Transactions::settle`] if the statement is cut short.
    ///
    /// # Errors
    /// Those of [`Transactions::begin`].
    pub async fn begin_own(&self, caller: &Caller, session: &mut Session) -> Result<()> {
        self.begin(caller, session).await?;
        session.own_transaction = true;
        Ok(())
    }

    /// Commits on every shard, in the order pre, normal, post. Goes on if this future is dropped.
    ///
    /// # Errors
    /// The first shard's that fails; what is not committed then is rolled back, and the error says which shards are
    /// committed already, if any are. ABORTED for a transaction of which a part was lost.
    pub async fn commit(&self, caller: &Caller, session: &mut Session) -> Result<()> {
        if !session.in_transaction() {
            return Ok(());
        }
        if session.must_rollback {
            self.rollback(caller, session).await;
            return Err(VtError::new(Code::Aborted, "transaction was rolled back: a part of it was lost"));
        }
        let two_phase = self.scatter.mode(session) == TransactionMode::Twopc;
        let _waited_for = caller.committing.lock().await;
        let open = session.take_transaction();
        if open.is_empty() {
            return Ok(());
        }
        session.unanswered = Some(Unanswered::Commit);
        let (transactions, by) = (self.clone(), caller.clone());
        let commit = tokio::spawn(async move {
            match two_phase {
                true => transactions.commit_2pc(&by, open).await,
                false => transactions.commit_each(&by, open).await,
            }
        });
        let ended = commit.await;
        session.unanswered = None;
        let committed = ended.unwrap_or_else(|panic| {
            let error = VtError::new(Code::Internal, format!("commit: {panic}"));
            Committed { outcome: Err(error), warnings: Vec::new() }
        });
        for warning in committed.warnings {
            session.warn(0, warning);
        }
        committed.outcome
    }

    async fn commit_each(&self, caller: &Caller, open: OpenShards) -> Committed {
        let OpenShards { pre, normal, post } = open;
        // Lookup rows that nothing points to do no harm.
        if let Some(error) = self.commit_at_once(caller, &pre).await.into_iter().find_map(Result::err) {
            self.rollback_all(caller, &[normal, post].concat()).await;
            return Err(error).into();
        }
        // One by one: as long as none is committed, a failure leaves nothing behind.
        for (number, open) in normal.iter().enumerate() {
            if let Err(error) = self.commit_one(caller, open).await {
                let rest = &normal[number + 1..];
                self.rollback_all(caller, &[rest, &post[..]].concat()).await;
                if number == 0 {
                    return Err(error).into();
                }
                let partial = partial_commit(&normal[..number], open, rest);
                return Committed { outcome: Err(error.wrap(&partial)), warnings: vec![partial] };
            }
        }
        // The data is committed; what is left are lookup rows that nothing points to.
        let failures = self.commit_at_once(caller, &post).await.into_iter().filter_map(Result::err);
        let warnings = failures.map(|error| format!("post-operation transaction had an error: {error}")).collect();
        Committed { outcome: Ok(()), warnings }
    }

    async fn commit_at_once(&self, caller: &Caller, all: &[ShardSession]) -> Vec<Result<()>> {
        join_all(all.iter().map(|open| self.commit_one(caller, open))).await
    }

    async fn commit_one(&self, caller: &Caller, open: &ShardSession) -> Result<()> {
        let target = open.target.clone().unwrap_or_default();
        on_tablet!(self, "Commit", commit, CommitRequest, caller, &target, {
            transaction_id: open.transaction_id,
        })
    }

    async fn commit_2pc(&self, caller: &Caller, open: OpenShards) -> Committed {
        if !open.pre.is_empty() || !open.post.is_empty() {
            self.rollback_all(caller, &open.into_all()).await;
            let text = "pre or post actions not allowed in 2PC logs";
            return Err(VtError::new(Code::FailedPrecondition, text)).into();
        }
        if open.normal.len() <= 1 {
            return self.commit_each(caller, open).await;
        }
        self.commit_in_two_phases(caller, &open.normal).await.into()
    }

    /// Commits on several shards in two phases.
    async fn commit_in_two_phases(&self, caller: &Caller, all: &[ShardSession]) -> Result<()> {
        // The first shard keeps the record of the transaction; it need not prepare.
        let Some((manager, participants)) = all.split_first() else { return Ok(()) };
        let target = manager.target.clone().unwrap_or_default();
        let dtid = Dtid { target: target.clone(), transaction_id: manager.transaction_id }.to_string();
        let created = on_tablet!(self, "CreateTransaction", create_transaction, CreateTransactionRequest, caller, &target, {
            dtid: dtid.clone(),
            participants: participants.iter().filter_map(|open| open.target.clone()).collect(),
        });
        if let Err(error) = created {
            self.rollback_all(caller, all).await;
            return Err(error);
        }
        let prepares = participants.iter().map(|open| {
            let dtid = dtid.clone();
            async move {
                let target = open.target.clone().unwrap_or_default();
                let prepared = on_tablet!(self, "Prepare", prepare, PrepareRequest, caller, &target, {
                    transaction_id: open.transaction_id,
                    dtid: dtid.clone(),
                })?;
                // Where nothing was written nothing is open any more, and a cutover does not wait for it.
                Ok((!prepared.nothing_written).then_some(target))
            }
        });
        let prepared: Result<Vec<Option<Target>>> = join_all(prepares).await.into_iter().collect();
        let written: Vec<Target> = match prepared {
            Ok(targets) => targets.into_iter().flatten().collect(),
            Err(error) => return Err(self.give_up_prepared(caller, manager, participants, &dtid, error).await),
        };
        on_tablet!(self, "StartCommit", start_commit, StartCommitRequest, caller, &target, {
            transaction_id: manager.transaction_id,
            dtid: dtid.clone(),
        })?;
        self.conclude_commit(caller, &target, &dtid, &written).await
    }

    /// Rolls back a transaction of which a part could not be prepared. Returns the error that the client sees.
    async fn give_up_prepared(
        &self,
        caller: &Caller,
        manager: &ShardSession,
        participants: &[ShardSession],
        dtid: &str,
        error: VtError,
    ) -> VtError {
        let target = manager.target.clone().unwrap_or_default();
        // The decision is written first, so that a crash from here on also ends in a rollback.
        let decided = on_tablet!(self, "SetRollback", set_rollback, SetRollbackRequest, caller, &target, {
            transaction_id: manager.transaction_id,
            dtid: dtid.to_string(),
        });
        if let Err(failed) = decided {
            tracing::warn!(%dtid, "the rollback of a distributed transaction is not recorded: {failed}");
            return error;
        }
        if let Err(failed) = self.conclude_rollback(caller, &target, dtid, participants).await {
            tracing::warn!(%dtid, "the rollback of a distributed transaction is not complete: {failed}");
        }
        error
    }

    async fn conclude_commit(&self, caller: &Caller, manager: &Target, dtid: &str, others: &[Target]) -> Result<()> {
        let commits = others.iter().map(|target| async move {
            on_tablet!(self, "CommitPrepared", commit_prepared, CommitPreparedRequest, caller, target, {
                dtid: dtid.to_string(),
            })
        });
        join_all(commits).await.into_iter().collect::<Result<()>>()?;
        // Everything is committed. A record that is left makes its tablet ask for what has been done already, perhaps
        // of shards that are gone by then.
        let mut tries = 1;
        while let Err(error) = self.conclude(caller, manager, dtid).await {
            if tries == CONCLUDE_TRIES {
                tracing::warn!(%dtid, "the record of a distributed transaction that is committed is left: {error}");
                break;
            }
            tries += 1;
            tokio::time::sleep(CONCLUDE_PAUSE).await;
        }
        Ok(())
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

    /// Rolls back on every shard. A shard that does not answer ends the transaction by itself. Goes on if this future
    /// is dropped.
    pub async fn rollback(&self, caller: &Caller, session: &mut Session) {
        let all = session.take_transaction().into_all();
        if all.is_empty() {
            return;
        }
        let (transactions, by) = (self.clone(), caller.clone());
        let rollback = tokio::spawn(async move { transactions.rollback_all(&by, &all).await });
        if let Err(panic) = rollback.await {
            tracing::error!("rollback: {panic}");
        }
    }

    /// What follows for the session's transaction from a statement that has ended, or was cut short with an error: it is
    /// rolled back if a part of it is lost, if a statement is done in part, or if it was begun for a statement that has
    /// not ended it. The error then says so.
    ///
    /// # Errors
    /// `outcome`'s.
    pub async fn settle<T>(&self, caller: &Caller, session: &mut Session, outcome: Result<T>) -> Result<T> {
        let own = session.own_transaction;
        let cut_in = session.unanswered.take();
        let told = session.must_rollback && cut_in.is_none();
        // The first statement on the first shard takes nothing with it but itself.
        let part_lost = session.all_shard_sessions().next().is_some()
            && (cut_in == Some(Unanswered::Statement) || (outcome.is_err() && session.parts_done > 0));
        if own || session.must_rollback || part_lost {
            self.rollback(caller, session).await;
        }
        outcome.map_err(|error| match cut_in {
            Some(Unanswered::Commit) => error.wrap("whether the transaction is committed is not known"),
            _ if part_lost && !own && !told => error.wrap("transaction rolled back"),
            _ => error,
        })
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
                // Nothing of it is left: it may be run anew.
                session.parts_done = 0;
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
            let query = ShardQuery { target, sql: sql.clone(), bind_variables: Arc::default(), raw: false };
            self.scatter.execute_one(caller, session, &query, Effect::Other, order).await?;
        }
        Ok(())
    }
}

/// How a commit ended, and what the session is to be warned of.
struct Committed {
    outcome: Result<()>,
    warnings: Vec<String>,
}

impl From<Result<()>> for Committed {
    fn from(outcome: Result<()>) -> Self {
        Self { outcome, warnings: Vec::new() }
    }
}

/// What is said of a transaction that is committed on some of its shards only.
fn partial_commit(committed: &[ShardSession], failed: &ShardSession, rolled_back: &[ShardSession]) -> String {
    let names = |of: &[ShardSession]| {
        let name = |open: &ShardSession| {
            let target = open.target.clone().unwrap_or_default();
            format!("{}/{}", target.keyspace, target.shard)
        };
        of.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let mut text =
        format!("partial commit: committed on {}; failed on {}", names(committed), names(std::slice::from_ref(failed)));
    if !rolled_back.is_empty() {
        text.push_str("; rolled back on ");
        text.push_str(&names(rolled_back));
    }
    text
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
