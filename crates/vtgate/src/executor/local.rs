//! Statements that vtgate runs itself: transaction control, USE, SET, SHOW, KILL and their like.

use planner::{Primitive, SavepointAction, Target};
use vterrors::{Code, MysqlError, Result, VtError};
use vtproto::{
    query::{QueryResult, execute_options::TransactionIsolation},
    topodata::TabletType,
};
use vtsql::{Normalized, StatementKind, TransactionCharacteristic};

use super::{Executor, Work, set};
use crate::session::{Session, TransactionSettings};

impl Executor {
    /// COM_INIT_DB: names the session's target. Whether there is such a keyspace shows at the next statement, for
    /// clients name databases before they exist.
    ///
    /// # Errors
    /// As those of USE inside a transaction.
    pub fn init_db(&self, session: &mut Session, name: &str) -> Result<()> {
        if session.in_transaction() {
            let new = Target::parse_with_default(name, self.parts.config.default_tablet_type);
            let checked = new.and_then(|new| check_target(session, &new));
            checked.map_err(|error| self.prefixed(error))?;
        }
        session.pb.target_string = name.to_string();
        Ok(())
    }

    /// Runs what needs no shard, or finds its shards itself.
    pub(super) async fn local(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        target: &Target,
        primitive: &Primitive,
        normalized: &Normalized,
    ) -> Result<QueryResult> {
        let caller = work.caller;
        let nothing = QueryResult::default();
        match primitive {
            Primitive::Route(_)
            | Primitive::Insert(_)
            | Primitive::UnlistedInsert(_)
            | Primitive::Write(_)
            | Primitive::Gather(_) => Err(VtError::new(Code::Internal, "a plan for shards where none belongs")),
            Primitive::Rows(rows) => {
                session.pb.found_rows = rows.rows.len() as u64;
                session.pb.row_count = -1;
                Ok(rows.clone())
            }
            Primitive::Show(action) => {
                let result = self.show(session, action, target.tablet_type).await?;
                session.pb.found_rows = result.rows.len() as u64;
                session.pb.row_count = -1;
                Ok(result)
            }
            Primitive::Set(actions) => {
                self.set(work, session, actions, normalized).await?;
                session.pb.row_count = 0;
                Ok(nothing)
            }
            Primitive::Use(new) => {
                check_target(session, new)?;
                session.pb.target_string = new.to_string();
                Ok(nothing)
            }
            Primitive::Begin(characteristics) => {
                if target.tablet_type != TabletType::Master {
                    let of = target.tablet_type.as_str_name();
                    return Err(VtError::new(
                        Code::InvalidArgument,
                        format!("transactions are supported only for master tablet types, current type: {of}"),
                    ));
                }
                let next = session.transaction;
                self.transactions.begin(caller, session).await?;
                session.transaction = begin_settings(next, characteristics);
                Ok(nothing)
            }
            Primitive::Commit => {
                self.transactions.commit(caller, session).await?;
                Ok(nothing)
            }
            Primitive::Rollback => {
                self.transactions.rollback(caller, session).await;
                Ok(nothing)
            }
            Primitive::Savepoint { action, name } => {
                match action {
                    SavepointAction::Create => self.transactions.savepoint(caller, session, name).await?,
                    SavepointAction::Release => self.transactions.release(caller, session, name).await?,
                    SavepointAction::RollbackTo => self.transactions.rollback_to(caller, session, name).await?,
                }
                Ok(nothing)
            }
            Primitive::Kill(kill) => {
                let Some(killer) = self.killer.get() else {
                    return Err(MysqlError::new(1094, "HY000", format!("Unknown thread id: {}", kill.id)).into());
                };
                let by = if self.may_kill_any(caller) { None } else { Some(caller.principal()) };
                killer(kill, by)?;
                Ok(nothing)
            }
            Primitive::VschemaDdl { keyspace, command } => {
                self.vschema_ddl(caller, keyspace, command).await?;
                Ok(nothing)
            }
            Primitive::Prepare(statement) => {
                self.prepare_text(session, statement)?;
                Ok(nothing)
            }
            Primitive::Execute(statement) => self.execute_text(work, session, statement).await,
            Primitive::Deallocate(name) => {
                self.deallocate_text(session, name)?;
                Ok(nothing)
            }
            Primitive::Nothing => Ok(nothing),
        }
    }
}

/// Whether the session may go on at another target: a transaction stays with masters.
fn check_target(session: &Session, new: &Target) -> Result<()> {
    if session.in_transaction() && new.tablet_type != TabletType::Master {
        let of = new.tablet_type.as_str_name();
        let text = format!("cannot change to a non-master type in the middle of a transaction: {of}");
        return Err(VtError::new(Code::InvalidArgument, text));
    }
    Ok(())
}

/// BEGIN, COMMIT and ROLLBACK with nothing else.
pub(super) fn plain_transaction(normalized: &Normalized) -> Option<Primitive> {
    let is = |text: &str| normalized.sql.eq_ignore_ascii_case(text);
    match normalized.kind {
        StatementKind::Begin if is("begin") || is("start transaction") => Some(Primitive::Begin(Vec::new())),
        StatementKind::Commit if is("commit") => Some(Primitive::Commit),
        StatementKind::Rollback if is("rollback") => Some(Primitive::Rollback),
        _ => None,
    }
}

/// What `start transaction …` asks for, on top of an earlier `set transaction …`.
fn begin_settings(next: TransactionSettings, characteristics: &[TransactionCharacteristic]) -> TransactionSettings {
    let mut settings = next;
    for characteristic in characteristics {
        set::characteristic(&mut settings, *characteristic);
    }
    let snapshot = characteristics.contains(&TransactionCharacteristic::ConsistentSnapshot);
    if snapshot && settings.read_only == Some(true) {
        settings.isolation = Some(TransactionIsolation::ConsistentSnapshotReadOnly.into());
    }
    settings
}
