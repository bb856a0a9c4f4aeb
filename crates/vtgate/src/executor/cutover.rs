//! Running a statement across a cutover.
//!
//! Owns: which failures mean that a statement is to be run anew, and when. A statement that a gate
//! refused is planned and resolved from its keyspace again once something has changed, for the tables
//! may be served elsewhere by then. Only what has changed nothing is run again: a statement of which
//! some shards have done their part is not, and its transaction is rolled back.

use std::time::Duration;

use tabletclient::cutover::is_refusal;
use vterrors::{Code, Result, VtError};

use super::{Executor, Output, Work};
use crate::session::Session;

/// How long after a change of the serving records a place that does not serve yet is waited for.
const SETTLING: Duration = Duration::from_secs(10);

impl Executor {
    /// [`Executor::run`], as often as cutovers make it necessary.
    pub(super) async fn run_across_cutovers(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        sql: &[u8],
        stream: bool,
    ) -> Result<Output> {
        let waits = &self.parts.cutovers;
        let mut place = None;
        loop {
            let mark = waits.mark();
            session.parts_done = 0;
            let error = match self.run(work, session, sql, stream).await {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            let refused = is_refusal(&error);
            if !refused && !(not_serving_yet(&error) && (place.is_some() || self.records_changed_lately())) {
                return Err(error);
            }
            if session.must_rollback || (session.parts_done > 0 && !refused) {
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
            if place.is_none() {
                place = Some(waits.place(sql.len() + bytes_of(work), &error)?);
            }
            if let Some(place) = &place {
                place.wait(mark, error).await?;
            }
        }
    }

    fn records_changed_lately(&self) -> bool {
        self.parts.resolver.cache().changed_within(SETTLING)
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
