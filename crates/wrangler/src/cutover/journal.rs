//! The journal of one cutover: its phase and what a process that continues it has to know.
//!
//! Invariant: it is written with the version that was read, before the effect of the phase that it
//! names. A writer whose version is old has lost the cutover to another and does nothing more.

use topo::Version;
use vtproto::cutover as pb;
use vtproto::vttime;

use crate::Wrangler;
use crate::error::{Result, bail, err};
use crate::logger::info;

/// A journal in the topology.
pub(super) struct JournalFile {
    keyspace: String,
    name: String,
    pub record: pb::Journal,
    version: Version,
}

impl JournalFile {
    /// The journal of a name, if there is one.
    pub async fn read(wr: &Wrangler, keyspace: &str, name: &str) -> Result<Option<Self>> {
        match wr.topo().get_cutover(keyspace, name).await {
            Ok((record, version)) => {
                Ok(Some(Self { keyspace: keyspace.to_owned(), name: name.to_owned(), record, version }))
            }
            Err(error) if error.is_no_node() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Begins a journal, in the place of one that is done.
    pub async fn begin(wr: &Wrangler, before: Option<Self>, name: &str, record: pb::Journal) -> Result<Self> {
        let keyspace = record.keyspace.clone();
        let mut record = record;
        record.started_at = Some(now());
        let version = match before {
            Some(before) => wr.topo().update_cutover(&keyspace, name, &record, before.version).await?,
            None => wr.topo().create_cutover(&keyspace, name, &record).await?,
        };
        Ok(Self { keyspace, name: name.to_owned(), record, version })
    }

    pub fn is_done(&self) -> bool {
        self.record.phase() == pb::Phase::Done
    }

    /// Whether it can only go forward.
    pub fn is_flipped(&self) -> bool {
        self.record.phase() >= pb::Phase::Flipped
    }

    /// Writes that a phase begins.
    pub async fn advance(&mut self, wr: &Wrangler, phase: pb::Phase) -> Result {
        info!(wr, "cutover {}/{}: {} -> {}", self.keyspace, self.name, short(self.record.phase()), short(phase));
        self.record.set_phase(phase);
        self.record.phase_times.push(pb::PhaseTime { phase: phase.into(), at: Some(now()) });
        self.save(wr).await
    }

    /// Writes what else is known.
    pub async fn save(&mut self, wr: &Wrangler) -> Result {
        self.version = wr.topo().update_cutover(&self.keyspace, &self.name, &self.record, self.version).await.map_err(
            |error| {
                if error.is_bad_version() {
                    err!("cutover {}/{} is driven by another process: {error}", self.keyspace, self.name)
                } else {
                    error.into()
                }
            },
        )?;
        Ok(())
    }
}

/// `FLIPPED` of `PHASE_FLIPPED`.
pub(super) fn short(phase: pb::Phase) -> &'static str {
    phase.as_str_name().trim_start_matches("PHASE_")
}

pub(super) fn now() -> vttime::Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    vttime::Time {
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        // Below a billion.
        nanoseconds: i32::try_from(now.subsec_nanos()).unwrap_or(0),
    }
}

/// Refuses what would change the records of a cutover that is under way.
pub(crate) async fn refuse_unfinished(wr: &Wrangler, keyspace: &str, name: &str) -> Result {
    match JournalFile::read(wr, keyspace, name).await? {
        Some(journal) if !journal.is_done() => bail!(
            "a cutover of MASTER is under way for {keyspace} {name} (phase {}): run it again to finish it{}",
            short(journal.record.phase()),
            if journal.is_flipped() { "" } else { ", or with -cancel to give it up" }
        ),
        _ => Ok(()),
    }
}
