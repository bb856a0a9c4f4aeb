//! The gates of the sources: held together, renewed while anything waits, lifted together.
//!
//! A tablet that knows no gates (one of Vitess) answers UNIMPLEMENTED; then the sequence of v5.0.1 is
//! used: the denial is put into effect at once and the positions are read behind it, without waiting
//! for open transactions.

use std::future::Future;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use tokio::time::Instant;
use vterrors::Code;
use vtproto::cutover as pb;
use vtproto::tabletmanagerdata as tmd;

use super::plan::{Place, Plan};
use super::run::each;
use crate::Wrangler;
use crate::error::{Result, bail, err, join_errors};
use crate::logger::warning;
use crate::resharding::refresh_masters;
use crate::wrangler::within;

/// How long a gate holds without being renewed: how long a source refuses after this process dies.
const TTL: Duration = Duration::from_secs(5);
/// How often a gate is renewed.
const RENEWAL: Duration = Duration::from_millis(1500);
/// What a call may take beside what it waits for.
const SLACK: Duration = Duration::from_secs(5);
/// What a tablet may need to kill what is left at the deadline, beside the deadline.
const KILLING: Duration = Duration::from_secs(12);
/// How often several sources are asked whether they have work from before.
const LOOK: Duration = Duration::from_millis(5);
/// How often lifting a gate is tried: one that is left refuses everything.
const RELEASE_TRIES: u32 = 5;

/// The gates of one cutover.
pub(super) struct Gates<'a> {
    wr: &'a Wrangler,
    plan: &'a Plan,
    id: String,
    /// The sources know no gates.
    plain: bool,
}

/// A source's final position.
pub(super) struct Fenced {
    pub position: String,
    pub read_only_set: bool,
}

/// What lifting the gates told.
#[derive(Default)]
pub(super) struct Released {
    pub refused: i64,
    pub killed: i64,
    pub longest_stall_ms: i64,
}

impl<'a> Gates<'a> {
    pub fn new(wr: &'a Wrangler, plan: &'a Plan, id: &str) -> Self {
        Self { wr, plan, id: id.to_owned(), plain: false }
    }

    fn request(&self, others_follow: bool) -> pb::GateRequest {
        let ttl_ms = i64::try_from(TTL.as_millis()).unwrap_or(i64::MAX);
        pb::GateRequest { id: self.id.clone(), tables: self.plan.tables.clone(), ttl_ms, others_follow }
    }

    /// Holds new work back at every source, or finds out that they cannot.
    pub async fn gate(&mut self) -> Result {
        let several = self.plan.sources.len() > 1;
        let raise = |source: &'a Place| within(SLACK, self.wr.gates().gate(&source.master, self.request(several)));
        let answers = join_all(self.plan.sources.iter().map(raise)).await;
        let mut failure = None;
        for (source, answer) in self.plan.sources.iter().zip(answers) {
            match answer {
                Ok(_) => {}
                Err(error) if error.code == Code::Unimplemented => {
                    warning!(
                        self.wr,
                        "tablet {} knows no cutover gate: as in Vitess v5.0.1, transactions that are open now may be lost and clients get errors",
                        source.alias()
                    );
                    self.plain = true;
                }
                Err(error) => failure = Some(err!("cannot gate {}: {error}", source.alias())),
            }
        }
        match failure {
            Some(error) => Err(error),
            // One procedure for all: those that have gates are let go.
            None if self.plain => self.release(&[]).await.map(drop),
            None => Ok(()),
        }
    }

    /// Waits for the work from before the gates, and kills what is left at the deadline.
    pub async fn drain(&self, timeout: Duration) -> Result {
        if self.plain {
            return Ok(());
        }
        let timeout = timeout.saturating_sub(self.all_idle(timeout).await?);
        let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        let one = |source: &'a Place| async move {
            let mut timeout_ms = timeout_ms;
            // What cannot be killed at once is given one more chance.
            for _ in 0..2 {
                let request = pb::DrainRequest { id: self.id.clone(), timeout_ms };
                let drained = within(timeout + KILLING, self.wr.gates().drain(&source.master, request))
                    .await
                    .map_err(|error| err!("cannot drain {}: {error}", source.alias()))?;
                if drained.drained {
                    return Ok(());
                }
                timeout_ms = 0;
            }
            bail!("{} still runs transactions that could not be killed", source.alias())
        };
        self.renewing(each(self.plan.sources.iter().map(one))).await.map(drop)
    }

    /// Waits until no source has work from before at the same time: a transaction that is open at one may yet come to
    /// another, which must not be closed before. Returns how long it took.
    async fn all_idle(&self, timeout: Duration) -> Result<Duration> {
        let started = Instant::now();
        while self.plan.sources.len() > 1 && started.elapsed() < timeout {
            let answers = each(self.plan.sources.iter().map(|source| async move {
                within(SLACK, self.wr.gates().gate(&source.master, self.request(false)))
                    .await
                    .map_err(|error| err!("cannot drain {}: {error}", source.alias()))
            }))
            .await?;
            if answers.iter().all(|answer| answer.transactions == 0 && answer.statements == 0) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(started.elapsed())
    }

    /// Makes the gates final and reads the positions behind them. Sources without gates have to be denied in
    /// the topology before.
    /// One answer for each source, in their order.
    pub async fn fence(&self) -> Vec<Result<Fenced>> {
        if self.plain
            && let Err(error) = refresh_masters(self.wr, self.plan.sources.iter().map(|source| &source.master)).await
        {
            return vec![Err(error)];
        }
        join_all(self.plan.sources.iter().map(|source| async move {
            if self.plain {
                return Ok(Fenced { position: master_position(self.wr, source).await?, read_only_set: false });
            }
            let request = pb::FenceRequest { id: self.id.clone(), read_only: self.plan.whole_shards() };
            let fenced = within(SLACK, self.wr.gates().fence(&source.master, request))
                .await
                .map_err(|error| err!("cannot fence {}: {error}", source.alias()))?;
            Ok(Fenced { position: fenced.position, read_only_set: fenced.read_only_set })
        }))
        .await
    }

    /// Whether the sources know no gates.
    pub fn are_plain(&self) -> bool {
        self.plain
    }

    /// Fails unless every source still holds its fence: one that was restarted since its position was
    /// read may have let work in behind it.
    pub async fn check_fenced(&self) -> Result {
        if self.plain {
            return Ok(());
        }
        try_join_all(self.plan.sources.iter().map(|source| async move {
            let status = within(SLACK, self.wr.gates().status(&source.master, pb::StatusRequest {}))
                .await
                .map_err(|error| err!("cannot see whether {} is still fenced: {error}", source.alias()))?;
            if status.id != self.id || status.phase() != pb::GatePhase::Fenced {
                bail!("{} has lost its fence: its vttablet was restarted meanwhile", source.alias());
            }
            Ok(())
        }))
        .await
        .map(drop)
    }

    /// Lifts every gate. `read_only` names the sources (by index) whose mysqlds accept writes again.
    pub async fn release(&self, read_only: &[usize]) -> Result<Released> {
        let answers = join_all(self.plan.sources.iter().enumerate().map(|(index, source)| async move {
            let mut pause = Duration::from_millis(100);
            let mut tries = 1;
            loop {
                match self.release_at(source, read_only.contains(&index)).await {
                    Err(_) if tries < RELEASE_TRIES => tokio::time::sleep(pause).await,
                    answer => return answer,
                }
                tries += 1;
                pause *= 2;
            }
        }))
        .await;
        let mut sum = Released::default();
        let mut failures = Vec::new();
        for answer in answers {
            match answer {
                Ok(told) => {
                    sum.refused += told.refused;
                    sum.killed += told.killed;
                    sum.longest_stall_ms = sum.longest_stall_ms.max(told.longest_stall_ms);
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        join_errors(&failures)?;
        Ok(sum)
    }

    /// Lifts the gate of one source, if it has any; tried once. `read_write`: its mysqld accepts writes again.
    pub async fn release_at(&self, source: &Place, read_write: bool) -> Result<Released> {
        let request = pb::ReleaseRequest { id: self.id.clone(), read_write };
        match within(SLACK, self.wr.gates().release(&source.master, request)).await {
            Ok(told) => {
                Ok(Released { refused: told.refused, killed: told.killed, longest_stall_ms: told.longest_stall_ms })
            }
            Err(error) if error.code == Code::Unimplemented => Ok(Released::default()),
            Err(error) => bail!("cannot lift the gate of {}: {error}", source.alias()),
        }
    }

    /// Runs something that may take longer than a gate holds by itself. A renewal that fails shows when
    /// the source is fenced.
    async fn renewing<T>(&self, work: impl Future<Output = T>) -> T {
        let renewals = async {
            loop {
                tokio::time::sleep(RENEWAL).await;
                join_all(
                    self.plan
                        .sources
                        .iter()
                        .map(|source| within(RENEWAL, self.wr.gates().gate(&source.master, self.request(false)))),
                )
                .await;
            }
        };
        tokio::select! {
            done = work => done,
            () = renewals => unreachable!("renewals have no end"),
        }
    }
}

/// The present position of a shard's master.
pub(super) async fn master_position(wr: &Wrangler, place: &Place) -> Result<String> {
    let call = wr.tmc().master_position(&place.master, tmd::MasterPositionRequest {});
    let answer = within(wr.config().remote_operation_timeout, call)
        .await
        .map_err(|error| err!("MasterPosition({}) failed: {error}", place.alias()))?;
    Ok(answer.position)
}
