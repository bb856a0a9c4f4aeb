//! Keeps two clones of one split apart: the one that began last may write, and every other one ends.
//!
//! Each destination master names the owner of a job in `_vt.vtworker_owner`. Every statement of a clone looks at that row
//! under a shared lock, and fails if another one is named ([`Owner::guard`]). So a claim, which changes the row, waits for
//! statements that run, and none of the former owner comes after it: also not one that was under way for an hour. A
//! killed clone leaves its name, and the next one takes the job over at once.

use vterrors::{Code, VtError};

use super::progress::now;
use crate::sql::quoted;
use crate::tablets::process;

/// What [`Owner::guard`] makes of another's row: "Subquery returns more than 1 row".
const GUARDED: u32 = 1242;
/// CancelResharding has removed the table.
const NO_SUCH_TABLE: u32 = 1146;
const NAME: &str = "vtworker_owner";

/// One run of a job.
pub struct Owner {
    job: String,
    /// [`process`] and a number.
    id: String,
}

impl Owner {
    /// An owner that no other run is.
    pub fn new(job: &str) -> Self {
        Self { job: job.to_owned(), id: format!("{}/{:016x}", process(), rand::random::<u64>()) }
    }

    /// The statements by which the job at a destination becomes this run's.
    pub fn claim(&self) -> [String; 3] {
        [
            "create database if not exists _vt".to_owned(),
            format!(
                "create table if not exists _vt.{NAME} (job varbinary(512) not null, owner varbinary(512) not null, \
                 time_updated bigint not null, primary key (job)) engine=InnoDB"
            ),
            format!(
                "replace into _vt.{NAME} (job, owner, time_updated) values ({}, {}, {})",
                quoted(&self.job),
                quoted(&self.id),
                now()
            ),
        ]
    }

    /// An expression that is 1 while this run owns the job, and an error when it does not.
    pub fn guard(&self) -> String {
        format!(
            "(select if(count(*) = 1, 1, (select 1 union all select 2)) from _vt.{NAME} where job = {} and owner = {} \
             lock in share mode)",
            quoted(&self.job),
            quoted(&self.id)
        )
    }

    /// Reads who owns the job.
    pub fn select(&self) -> String {
        format!("select owner from _vt.{NAME} where job = {}", quoted(&self.job))
    }

    /// Whether this run is the one that [`Owner::select`] found.
    pub fn is(&self, found: &str) -> bool {
        self.id == found
    }

    /// Whether a statement failed by its guard. `errno` is that of its error.
    pub fn is_lost(errno: Option<u32>, error: &VtError) -> bool {
        match errno {
            Some(GUARDED) => true,
            Some(NO_SUCH_TABLE) => error.message().contains(NAME),
            _ => false,
        }
    }

    /// What a clone ends with that has lost its job. `found`: to whom; empty: it was canceled.
    pub fn lost(found: &str) -> VtError {
        let text = if found.is_empty() {
            "this clone was given up: its notes were removed from the destination, as CancelResharding does".to_owned()
        } else {
            format!("another vtworker has taken this clone over: {found}")
        };
        VtError::new(Code::Aborted, text)
    }
}
