//! The journal of one cutover: its phase and what a process that continues it has to know.
//!
//! Invariants: it is written with the version that was read, before the effect of the phase that it
//! names. A writer whose version is old has lost the cutover to another and does nothing more. What is
//! in memory is what was written: a phase that could not be written has not begun. A write that failed
//! may have been made all the same, or may yet be; it is looked up, and known as this process's own.

use topo::Version;
use vtproto::cutover as pb;
use vtproto::vttime;

use crate::Wrangler;
use crate::error::{Result, bail};
use crate::logger::info;

/// A journal in the topology.
pub(super) struct JournalFile {
    keyspace: String,
    name: String,
    pub record: pb::Journal,
    version: Version,
    /// The last write that failed, if it is not known to have been overtaken: it may still arrive.
    doubtful: Option<pb::Journal>,
}

impl JournalFile {
    /// The journal of a name, if there is one.
    pub async fn read(wr: &Wrangler, keyspace: &str, name: &str) -> Result<Option<Self>> {
        match wr.topo().get_cutover(keyspace, name).await {
            Ok((record, version)) => {
                Ok(Some(Self { keyspace: keyspace.to_owned(), name: name.to_owned(), record, version, doubtful: None }))
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
        Ok(Self { keyspace, name: name.to_owned(), record, version, doubtful: None })
    }

    pub fn is_done(&self) -> bool {
        self.record.phase() == pb::Phase::Done
    }

    /// Whether it can only go forward. One that was given up never flipped.
    pub fn is_flipped(&self) -> bool {
        !self.record.cancelled && self.record.phase() >= pb::Phase::Flipped
    }

    /// Writes that a phase begins.
    pub async fn advance(&mut self, wr: &Wrangler, phase: pb::Phase) -> Result {
        info!(wr, "cutover {}/{}: {} -> {}", self.keyspace, self.name, short(self.record.phase()), short(phase));
        let mut next = self.record.clone();
        // Whoever gave it up before: it goes on.
        next.cancelled &= phase != pb::Phase::Gated;
        next.set_phase(phase);
        next.phase_times.push(pb::PhaseTime { phase: phase.into(), at: Some(now()) });
        self.write(wr, next).await
    }

    /// Writes that it is given up, before anything is undone.
    pub async fn give_up(&mut self, wr: &Wrangler) -> Result {
        let mut next = self.record.clone();
        next.cancelled = true;
        next.set_phase(next.phase().min(pb::Phase::CaughtUp));
        self.write(wr, next).await
    }

    async fn write(&mut self, wr: &Wrangler, next: pb::Journal) -> Result {
        let (topo, keyspace, name) = (wr.topo(), self.keyspace.clone(), self.name.clone());
        loop {
            let error = match topo.update_cutover(&keyspace, &name, &next, self.version).await {
                Ok(version) => {
                    self.accept(next, version);
                    return Ok(());
                }
                Err(error) => error,
            };
            let Ok((stored, version)) = topo.get_cutover(&keyspace, &name).await else {
                if !error.is_bad_version() {
                    self.doubtful = Some(next);
                }
                return Err(error.into());
            };
            if stored == next {
                self.accept(next, version);
                return Ok(());
            }
            if version == self.version {
                self.doubtful = Some(next);
                return Err(error.into());
            }
            if self.doubtful.take().is_none_or(|doubtful| doubtful != stored) {
                bail!("cutover {keyspace}/{name} is driven by another process: {error}");
            }
            // A write that was believed to have failed has arrived. Nobody has acted on it.
            self.version = version;
        }
    }

    fn accept(&mut self, record: pb::Journal, version: Version) {
        self.record = record;
        self.version = version;
        self.doubtful = None;
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

/// Whether a cutover was begun and is not over.
pub(crate) async fn is_unfinished(wr: &Wrangler, keyspace: &str, name: &str) -> Result<bool> {
    Ok(JournalFile::read(wr, keyspace, name).await?.is_some_and(|journal| !journal.is_done()))
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
