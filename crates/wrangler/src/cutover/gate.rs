//! The gates of the sources: held together, renewed while anything waits, lifted together.
//!
//! A tablet that knows no gates (one of Vitess) answers UNIMPLEMENTED; then the sequence of v5.0.1 is
//! used: the denial is put into effect at once and the positions are read behind it, without waiting
//! for open transactions.

use std::future::Future;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use tabletclient::tm::TmError;
use vterrors::Code;
use vtproto::cutover as pb;
use vtproto::tabletmanagerdata as tmd;

use super::plan::{Place, Plan};
use crate::Wrangler;
use crate::error::{Result, bail, err};
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

    fn request(&self) -> pb::GateRequest {
        let ttl_ms = i64::try_from(TTL.as_millis()).unwrap_or(i64::MAX);
        pb::GateRequest { id: self.id.clone(), tables: self.plan.tables.clone(), ttl_ms }
    }

    /// Holds new work back at every source, or finds out that they cannot.
    pub async fn gate(&mut self) -> Result {
        let answers = join_all(
            self.plan.sources.iter().map(|source| within(SLACK, self.wr.gates().gate(&source.master, self.request()))),
        )
        .await;
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
        self.renewing(try_join_all(self.plan.sources.iter().map(one))).await.map(drop)
    }

    /// Makes the denial, which is in the topology already, final, and reads the positions behind it.
    pub async fn fence(&self) -> Result<Vec<Fenced>> {
        if self.plain {
            refresh_masters(self.wr, self.plan.sources.iter().map(|source| &source.master)).await?;
            return try_join_all(self.plan.sources.iter().map(|source| async move {
                Ok(Fenced { position: master_position(self.wr, source).await?, read_only_set: false })
            }))
            .await;
        }
        try_join_all(self.plan.sources.iter().map(|source| async move {
            let request = pb::FenceRequest { id: self.id.clone(), read_only: self.plan.whole_shards() };
            let fenced = within(SLACK, self.wr.gates().fence(&source.master, request))
                .await
                .map_err(|error| err!("cannot fence {}: {error}", source.alias()))?;
            Ok(Fenced { position: fenced.position, read_only_set: fenced.read_only_set })
        }))
        .await
    }

    /// Lifts every gate. `read_only` names the sources (by index) whose mysqlds accept writes again.
    pub async fn release(&self, read_only: &[usize]) -> Result<Released> {
        let answers = join_all(self.plan.sources.iter().enumerate().map(|(index, source)| async move {
            let request = pb::ReleaseRequest { id: self.id.clone(), read_write: read_only.contains(&index) };
            (source, self.release_one(source, request).await)
        }))
        .await;
        let mut sum = Released::default();
        let mut failures = Vec::new();
        for (source, answer) in answers {
            match answer {
                Ok(told) => {
                    sum.refused += told.refused;
                    sum.killed += told.killed;
                    sum.longest_stall_ms = sum.longest_stall_ms.max(told.longest_stall_ms);
                }
                Err(error) if error.code == Code::Unimplemented => {}
                Err(error) => failures.push(format!("cannot lift the gate of {}: {error}", source.alias())),
            }
        }
        match failures.is_empty() {
            true => Ok(sum),
            false => bail!("{}", failures.join(";")),
        }
    }

    async fn release_one(&self, source: &Place, request: pb::ReleaseRequest) -> Result<pb::ReleaseResponse, TmError> {
        let mut pause = Duration::from_millis(100);
        for _ in 1..RELEASE_TRIES {
            match within(SLACK, self.wr.gates().release(&source.master, request.clone())).await {
                Err(error) if error.code != Code::Unimplemented => tokio::time::sleep(pause).await,
                answer => return answer,
            }
            pause *= 2;
        }
        within(SLACK, self.wr.gates().release(&source.master, request)).await
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
                        .map(|source| within(RENEWAL, self.wr.gates().gate(&source.master, self.request()))),
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
