//! Running a statement across a cutover.
//!
//! Owns: which failures mean that a statement is to be run anew, and when. A statement that a gate
//! refused is planned and resolved from its keyspace again once something has changed, for the tables
//! may be served elsewhere by then. Only what has changed nothing is run again: a statement of which
//! some shards have done their part is not, and its transaction is rolled back.

use std::time::Duration;

use keyrange::Destination;
use tabletclient::{RowSink, cutover::is_refusal};

use vterrors::{Code, Result, VtError};
use vtproto::topodata::srv_keyspace::KeyspacePartition;

use super::{Executor, Output, Work};
use crate::{
    cutover::{Mark, Place},
    session::Session,
};

/// How long after a change of the serving records a place that does not serve yet is waited for.
const SETTLING: Duration = Duration::from_secs(10);

/// The attempts of one statement. Before each, [`Across::attempt`]; after one that failed,
/// [`Across::again`], which returns when it is time for the next.
pub(super) struct Across<'a> {
    executor: &'a Executor,
    mark: Mark,
    place: Option<Place>,
    /// Whether a gate has refused it before.
    refused: bool,
    /// Whether the attempt began in a transaction.
    in_transaction: bool,
}

impl Across<'_> {
    /// To be called before the statement's shards are looked up.
    pub fn attempt(&mut self, session: &mut Session) {
        self.mark = self.executor.parts.cutovers.mark();
        self.in_transaction = session.in_transaction();
        session.parts_done = 0;
    }

    /// Waits until the statement, of so many bytes, may be tried again.
    ///
    /// # Errors
    /// The failure, if no cutover is the cause or nothing can be done about it.
    pub async fn again(&mut self, session: &mut Session, bytes: usize, error: VtError) -> Result<()> {
        let waits = &self.executor.parts.cutovers;
        // The statement was to end its transaction and has: run anew, it would find nothing to commit and say that
        // all is well.
        if self.in_transaction && !session.in_transaction() {
            return Err(error);
        }
        let refused = is_refusal(&error);
        // What is to be rolled back, or was cut short, is not gone on with.
        if session.must_rollback || session.own_transaction || session.unanswered.is_some() {
            return Err(error);
        }
        if session.parts_done > 0 && !refused {
            if !session.in_transaction() {
                return Err(error);
            }
            // What has run of the statement cannot be taken back alone.
            session.must_rollback = true;
            let text = format!("transaction rolled back due to partial DML execution: {}", error.message());
            return Err(VtError::new(Code::Aborted, text));
        }
        self.refused |= refused;
        let settles = not_serving_yet(&error)
            && (self.refused || self.executor.records_changed_lately())
            && !self.executor.aims_beside_the_records(session);
        if !refused && !settles {
            return Err(error);
        }
        if session.parts_done > 0 {
            waits.count_partly_done();
            if !session.in_transaction() {
                return Err(error);
            }
            session.must_rollback = true;
            let text = format!("transaction rolled back: a part of the statement had run before {error}");
            return Err(VtError::new(Code::Aborted, text));
        }
        let place = match &self.place {
            Some(place) => place,
            None => self.place.insert(waits.place(bytes, &error)?),
        };
        place.wait(self.mark, error).await
    }
}

impl Executor {
    /// Attempts of a statement, none of which was made yet.
    pub(super) fn across_cutovers(&self) -> Across<'_> {
        Across { executor: self, mark: self.parts.cutovers.mark(), place: None, refused: false, in_transaction: false }
    }

    /// [`Executor::run`], as often as cutovers make it necessary.
    pub(super) async fn run_across_cutovers(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        sql: &[u8],
        stream: bool,
    ) -> Result<Output> {
        let mut across = self.across_cutovers();
        loop {
            across.attempt(session);
            work.raw = work.takes_raw;
            match self.run(work, session, sql, stream).await {
                Ok(output) => return Ok(output),
                // The client has rows of it.
                Err(error) if work.sink.is_some_and(RowSink::has_begun) => return Err(error),
                Err(error) => across.again(session, sql.len() + bytes_of(work), error).await?,
            }
        }
    }

    fn records_changed_lately(&self) -> bool {
        self.parts.resolver.cache().changed_within(SETTLING)
    }

    /// Whether the client has named a shard that the serving records do not list: nobody is about to serve there.
    fn aims_beside_the_records(&self, session: &mut Session) -> bool {
        let Ok(target) = self.target(session) else { return false };
        let Some(Destination::Shard(shard)) = target.destination else { return false };
        let resolver = &self.parts.resolver;
        let Some(record) = resolver.cache().known_srv_keyspace(resolver.cell(), &target.keyspace) else { return false };
        let listed = |partition: &KeyspacePartition| partition.shard_references.iter().any(|one| one.name == shard);
        topo::partition(&record, target.tablet_type).is_some_and(|partition| !listed(partition))
    }
}

/// Whether nobody serves at a place, so that the statement has reached no mysqld.
fn not_serving_yet(error: &VtError) -> bool {
    match error.code() {
        Code::Unavailable => error.message().ends_with("no valid tablet"),
        Code::FailedPrecondition => error.message().contains("operation not allowed in state NOT_SERVING"),
        _ => false,
    }
}

fn bytes_of(work: &Work<'_>) -> usize {
    work.client_vars.iter().map(|(name, var)| name.len() + var.value.len()).sum()
}
