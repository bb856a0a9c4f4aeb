//! The phases of a cutover, in order.
//!
//! Before the flip every failure goes back: the denial is taken out of the topology, then each source, whatever
//! becomes of the others, loses what was prepared there and its gate. From the flip on there is only forward:
//! every step can run again, and the journal says that it has to.
//!
//! Clients are kept from the gate to the serving records. What can be done before or after that is, and
//! what does not depend on each other goes on side by side: the destinations catch up while the denial is
//! being written, which is safe because the flip comes only when both are done and the sources still hold
//! their fences. What has an effect runs to its end even if something beside it fails ([`each`], `join!`): an
//! effect that arrives after it was taken back, or a write that this process does not know of, is worse than
//! a failure that is told late.

use std::future::Future;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use futures::join;
use servenv::failpoint::Hit;
use tokio::time::Instant;
use topo::KeyspaceLock;
use vterrors::Code;
use vtproto::cutover as pb;
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::shard::SourceShard;

use super::Options;
use super::gate::{Fenced, Gates, master_position};
use super::journal::JournalFile;
use super::plan::{Place, Plan};
use super::receipt::{self, Clock};
use crate::Wrangler;
use crate::error::{Error, Result, bail, err, join_errors};
use crate::logger::{info, warning};
use crate::resharding::{refresh_masters, streams, wait_for_gates};
use crate::wrangler::within;

/// Longest that clients are kept while the destinations catch up: what vtgates keep them for, less the
/// other phases. Destinations are caught up once before anybody is kept, so that milliseconds are left.
const GATED_CATCH_UP: Duration = Duration::from_secs(4);

/// Streams that are this near when the gates are raised delay clients by no more than the other phases do.
const NEAR: Duration = Duration::from_millis(20);
/// How long such a moment is waited for.
const MOMENT: Duration = Duration::from_secs(10);
/// How long streams that are not near are waited for before it is looked anew.
const LOOK: Duration = Duration::from_millis(100);

/// How long a source that does not answer is tried when it shall serve again: a tablet that was killed is usually
/// started again by then.
const GOING_BACK: Duration = Duration::from_secs(15);
/// How often.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// What the records and streams of one kind of cutover need. Every method can run again.
#[async_trait::async_trait]
pub(super) trait Records: Send + Sync {
    /// Writes to the topology that the sources must not serve. No tablet is told.
    async fn deny(&self, cx: &Context<'_>) -> Result;
    /// The opposite.
    async fn allow(&self, cx: &Context<'_>) -> Result;
    /// Writes that the destinations serve and that the sources are replicated into by the streams `back`.
    /// No tablet is told.
    async fn open(&self, cx: &Context<'_>, back: &[pb::Stream]) -> Result;
    /// Writes the serving records.
    async fn route(&self, cx: &Context<'_>) -> Result;
    /// What is left once nobody goes to the sources any more. `back` are the prepared streams.
    async fn settle(&self, cx: &Context<'_>, back: &[pb::Stream]) -> Result;
}

/// What every step works with.
pub(super) struct Context<'a> {
    pub wr: &'a Wrangler,
    /// One for each keyspace whose records change.
    pub locks: &'a [KeyspaceLock],
    pub plan: &'a Plan,
}

impl Context<'_> {
    pub fn lock(&self, keyspace: &str) -> Result<&KeyspaceLock> {
        self.locks
            .iter()
            .find(|lock| lock.keyspace() == keyspace)
            .ok_or_else(|| err!("keyspace {keyspace} is not locked"))
    }

    /// Asks the topology whether all locks are still held.
    async fn check_locks(&self) -> Result {
        try_join_all(self.locks.iter().map(KeyspaceLock::check)).await?;
        Ok(())
    }

    /// Prepares the way back: streams at the sources, stopped, at the destinations' present positions.
    async fn prepare_back(&self) -> Result<Vec<pb::Stream>> {
        self.unprepare_back().await?;
        let (plan, back) = (self.plan, self.plan.streams_back());
        let made = each(plan.sources.iter().enumerate().map(|(index, source)| {
            let here: Vec<_> = back.iter().filter(|stream| stream.source == index).collect();
            async move {
                let new = try_join_all(here.iter().map(|stream| async {
                    let position = master_position(self.wr, &plan.destinations[stream.destination]).await?;
                    Ok::<_, Error>(streams::NewStream { source: stream.reads.clone(), position })
                }))
                .await?;
                let uids = streams::insert_stopped(self.wr, &source.master, streams::REVERSED, &new).await?;
                let made = uids.into_iter().zip(new).map(|(uid, stream)| pb::Stream {
                    keyspace: source.keyspace().to_owned(),
                    shard: source.name().to_owned(),
                    uid,
                    source_keyspace: stream.source.keyspace,
                    source_shard: stream.source.shard,
                    reverse: true,
                    position: stream.position,
                });
                Ok::<_, Error>(made.collect::<Vec<_>>())
            }
        }))
        .await?;
        Ok(made.into_iter().flatten().collect())
    }

    /// Removes the way back, whether or not it was prepared.
    async fn unprepare_back(&self) -> Result {
        each(self.plan.sources.iter().map(|source| self.unprepare_back_at(source))).await.map(drop)
    }

    async fn unprepare_back_at(&self, source: &Place) -> Result {
        let from: Vec<(&str, &str)> =
            self.plan.destinations.iter().map(|place| (place.keyspace(), place.name())).collect();
        streams::delete_prepared(self.wr, &source.master, &from).await
    }

    /// The present positions of the destinations, in their order.
    async fn destination_positions(&self) -> Result<Vec<String>> {
        try_join_all(self.plan.destinations.iter().map(|place| master_position(self.wr, place))).await
    }

    /// Sets the prepared streams back to where they begin, and starts them if that was asked for.
    pub async fn start_back(&self, back: &[pb::Stream]) -> Result {
        each(back.iter().map(|stream| async move {
            let master = &self.source_of(stream)?.master;
            streams::begin(self.wr, master, stream.uid, &stream.position, self.plan.return_stream).await
        }))
        .await
        .map(drop)
    }

    /// How the record of a source names the streams back that run there.
    pub fn fed_back(&self, source: &Place, back: &[pb::Stream]) -> Result<Vec<SourceShard>> {
        back.iter()
            .filter(|stream| source.is(&stream.keyspace, &stream.shard))
            .map(|stream| {
                let destination = self.destination_of(stream)?;
                Ok(SourceShard {
                    uid: stream.uid,
                    keyspace: destination.keyspace().to_owned(),
                    shard: destination.name().to_owned(),
                    key_range: destination.shard.record.key_range.clone(),
                    tables: self.plan.tables.clone(),
                })
            })
            .collect()
    }

    /// The destination that a stream back reads.
    fn destination_of(&self, stream: &pb::Stream) -> Result<&Place> {
        self.plan.destinations.iter().find(|place| place.is(&stream.source_keyspace, &stream.source_shard)).ok_or_else(
            || err!("the journal names a stream back from {}/{}", stream.source_keyspace, stream.source_shard),
        )
    }

    /// The source that a stream back runs at.
    fn source_of(&self, stream: &pb::Stream) -> Result<&Place> {
        self.plan
            .sources
            .iter()
            .find(|place| place.is(&stream.keyspace, &stream.shard))
            .ok_or_else(|| err!("the journal names a stream back at {}/{}", stream.keyspace, stream.shard))
    }

    /// Ends the streams into the destinations.
    async fn end_streams(&self) -> Result {
        each(
            self.plan
                .streams
                .iter()
                .map(|stream| streams::delete(self.wr, &self.plan.destinations[stream.destination].master, stream.uid)),
        )
        .await
        .map(drop)
    }

    async fn refresh_destinations(&self) -> Result {
        refresh_masters(self.wr, self.plan.destinations.iter().map(|place| &place.master)).await
    }

    async fn refresh_sources(&self) -> Result {
        refresh_masters(self.wr, self.plan.sources.iter().map(|place| &place.master)).await
    }

    fn point(&self, name: &str) -> Result<(), Fault> {
        match self.wr.config().failpoints.hit(&format!("cutover.{name}")) {
            Ok(()) => Ok(()),
            Err(Hit::Error) => Err(Fault::Failed(err!("fail point cutover.{name}"))),
            Err(Hit::Crash) => Err(Fault::Crash),
        }
    }

    /// How long the streams take to apply `positions` of their sources, and to tell it; `None`: longer than `limit`.
    async fn time_to_apply(&self, positions: &[String], limit: Duration) -> Result<Option<Duration>> {
        let started = Instant::now();
        let applied = try_join_all(self.plan.streams.iter().map(|stream| {
            let destination = &self.plan.destinations[stream.destination].master;
            // `limit` decides, not the tablet.
            streams::wait_for_position(self.wr, destination, stream.uid, &positions[stream.source], limit + MOMENT)
        }));
        match tokio::time::timeout(limit, applied).await {
            Ok(applied) => Ok(applied.map(|_| Some(started.elapsed()))?),
            Err(_) => Ok(None),
        }
    }

    /// The present positions of the sources, in their order.
    async fn source_positions(&self) -> Result<Vec<String>> {
        try_join_all(self.plan.sources.iter().map(|place| master_position(self.wr, place))).await
    }

    /// Waits until every stream has applied the position of its source.
    async fn catch_up(&self, positions: &[String], limit: Duration) -> Result {
        let plan = self.plan;
        try_join_all(plan.streams.iter().map(|stream| async move {
            let destination = &plan.destinations[stream.destination];
            let position = positions.get(stream.source).map_or("", String::as_str);
            info!(self.wr, "waiting for {} to catch up to {position} in stream {}", destination.alias(), stream.uid);
            let waited = streams::wait_for_position(self.wr, &destination.master, stream.uid, position, limit).await;
            let Err(error) = waited else { return Ok(()) };
            let hint = match error.code {
                Code::DeadlineExceeded => self.why_behind(destination, stream.uid).await,
                _ => String::new(),
            };
            bail!(
                "{} did not catch up with {}/{} within {}: {error}{hint}",
                destination.alias(),
                plan.sources[stream.source].keyspace(),
                plan.sources[stream.source].name(),
                servenv::flags::print_go_duration(limit)
            )
        }))
        .await
        .map(drop)
    }

    /// What is known of a stream that is late.
    async fn why_behind(&self, destination: &Place, uid: u32) -> String {
        let found = streams::read(self.wr, &destination.master).await.unwrap_or_default();
        let halted =
            found.iter().filter(|row| row.uid == uid).find_map(|row| row.check_runs(&destination.alias()).err());
        match halted {
            Some(error) => format!(" ({error})"),
            None => {
                " (streams read from REPLICA tablets of the source unless vttablets say otherwise: is one healthy?)"
                    .into()
            }
        }
    }

    /// A reparent meanwhile would have moved writes to a tablet that was never gated.
    async fn check_masters(&self) -> Result {
        let plan = self.plan;
        try_join_all(plan.sources.iter().chain(&plan.destinations).map(|place| async move {
            let now = self.wr.topo().get_shard(place.keyspace(), place.name()).await?;
            if now.master_alias() != place.master.alias.as_ref() {
                bail!(
                    "the master of {}/{} was {} when the cutover began and is another now",
                    place.keyspace(),
                    place.name(),
                    place.alias()
                );
            }
            Ok(())
        }))
        .await
        .map(drop)
    }
}

/// Runs what has effects side by side, all of it to its end. The answers in their order, or the first failure.
pub(super) async fn each<T>(work: impl IntoIterator<Item = impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    join_all(work).await.into_iter().collect()
}

/// Why the phases before the flip ended.
enum Fault {
    Failed(Error),
    /// A test wants everything left as it is.
    Crash,
}

impl<E: Into<Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The positions of all sources, in their order; fails if one could not be fenced.
fn positions_of(fenced: &[Result<Fenced>]) -> Result<Vec<String>, Fault> {
    fenced
        .iter()
        .map(|one| match one {
            Ok(fenced) => Ok(fenced.position.clone()),
            Err(error) => Err(Fault::Failed(err!("{error}"))),
        })
        .collect()
}

/// One run of a cutover.
pub(super) struct Run<'a> {
    cx: Context<'a>,
    records: &'a dyn Records,
    options: &'a Options,
    journal: JournalFile,
    /// Since when this process has kept clients.
    gated_at: Option<Instant>,
}

impl<'a> Run<'a> {
    pub fn new(cx: Context<'a>, records: &'a dyn Records, options: &'a Options, journal: JournalFile) -> Self {
        Self { cx, records, options, journal, gated_at: None }
    }

    /// Goes on from wherever the journal is, to the end.
    pub async fn finish(mut self) -> Result {
        self.release_former_masters().await;
        if !self.journal.is_flipped() {
            match self.before_the_flip().await {
                Ok(()) => {}
                Err(Fault::Crash) => bail!("stopped at a fail point"),
                Err(Fault::Failed(error)) => return self.go_back(error).await,
            }
        }
        match self.behind_the_flip().await {
            Ok(()) => Ok(()),
            Err(Fault::Crash) => bail!("stopped at a fail point"),
            Err(Fault::Failed(error)) => bail!(
                "the cutover has passed its point of no return and has to be finished, run the same command again: {error}"
            ),
        }
    }

    /// Gives up a cutover that has not flipped.
    pub async fn cancel(mut self) -> Result {
        if self.journal.is_flipped() {
            bail!(
                "cutover {} has passed its point of no return and cannot be cancelled: run it again without -cancel to finish it",
                self.journal.record.id
            );
        }
        self.release_former_masters().await;
        if let Err(error) = self.undo("cancelled").await {
            bail!(
                "cutover {} is not cancelled everywhere, run the same command again: {error}",
                self.journal.record.id
            );
        }
        let title = self.cx.plan.title();
        self.cx.wr.logger().println(format!("the cutover from {title} was cancelled: the sources serve")).await;
        Ok(())
    }

    /// Lets tablets go that were gated when the cutover began and are not master any more.
    async fn release_former_masters(&mut self) {
        let wr = self.cx.wr;
        let id = self.journal.record.id.clone();
        for (source, place) in self.journal.record.sources.iter_mut().zip(&self.cx.plan.sources) {
            if source.master == place.master.alias {
                continue;
            }
            let Some(former) = std::mem::replace(&mut source.master, place.master.alias.clone()) else { continue };
            let request = pb::ReleaseRequest { id: id.clone(), read_write: false };
            let released = async {
                let tablet = wr.topo().get_tablet(&former).await?.record;
                let limit = wr.config().remote_operation_timeout;
                Ok::<_, Error>(within(limit, wr.gates().release(&tablet, request)).await?)
            };
            if let Err(error) = released.await {
                let alias = topo::topoproto::tablet_alias_string(Some(&former));
                warning!(
                    wr,
                    "cannot lift the gate of the former master {alias}; restarting its vttablet does: {error}"
                );
            }
        }
    }

    async fn before_the_flip(&mut self) -> Result<(), Fault> {
        let (wr, plan) = (self.cx.wr, self.cx.plan);
        let receipt = self.journal.record.receipt.get_or_insert_default();
        *receipt = pb::Receipt::default();
        self.cx.point("planned")?;
        if self.journal.record.phase() > pb::Phase::Planned {
            // The process that began it may have left a fence.
            self.thaw().await?;
        }
        self.check_streams().await?;
        let applied = self.catch_up_before().await?;

        let mut gates = Gates::new(wr, plan, &self.journal.record.id);
        self.journal.advance(wr, pb::Phase::Gated).await?;
        let mut back = self.cx.prepare_back().await?;
        self.wait_until_near(&applied).await?;
        let mut clock = Clock::start();
        self.gated_at = Some(Instant::now());
        gates.gate().await?;
        self.cx.point("gated")?;
        self.receipt().gated_ms = clock.lap();

        // To be begun anew by the next process, all the same: the journal need not be written first.
        let (told, drained) = join!(self.journal.advance(wr, pb::Phase::Drained), gates.drain(self.options.drain));
        drained?;
        told?;
        self.cx.point("drained")?;
        self.receipt().drained_ms = clock.lap();

        let limit = self.options.wait.min(GATED_CATCH_UP);
        let mut fenced_ms = 0;
        let mut fenced = Vec::new();
        let deny = async {
            self.journal.advance(wr, pb::Phase::Fenced).await?;
            self.records.deny(&self.cx).await?;
            self.cx.point("denied")
        };
        let follow = async {
            fenced = gates.fence().await;
            let positions = positions_of(&fenced)?;
            self.cx.point("fenced")?;
            fenced_ms = clock.lap();
            self.cx.catch_up(&positions, limit).await?;
            Ok::<_, Fault>(self.cx.destination_positions().await?)
        };
        // Neither is dropped half-way: what a tablet has done has to be known when it is undone.
        let (denied, followed) = match gates.are_plain() {
            true => (deny.await, follow.await),
            false => join!(deny, follow),
        };
        for (source, fenced) in self.journal.record.sources.iter_mut().zip(fenced) {
            if let Ok(fenced) = fenced {
                source.position = fenced.position;
                source.read_only_set |= fenced.read_only_set;
            }
        }
        denied?;
        let positions = followed?;
        self.cx.point("caught_up")?;
        for stream in &mut back {
            let reads = |place: &Place| place.is(&stream.source_keyspace, &stream.source_shard);
            if let Some(index) = plan.destinations.iter().position(reads) {
                stream.position.clone_from(&positions[index]);
            }
        }
        self.journal.record.streams.retain(|stream| !stream.reverse);
        self.journal.record.streams.extend(back);
        self.receipt().fenced_ms = fenced_ms;
        self.receipt().caught_up_ms = clock.lap();

        // The denial is written by now: a source that is restarted from here on reads it.
        let (told, fences, masters, locks) = join!(
            self.journal.advance(wr, pb::Phase::CaughtUp),
            gates.check_fenced(),
            self.cx.check_masters(),
            self.cx.check_locks()
        );
        fences.and(masters).and(locks).and(told)?;
        self.cx.point("prepared")?;
        self.journal.advance(wr, pb::Phase::Flipped).await?;
        self.receipt().flipped_ms = clock.lap();
        Ok(())
    }

    /// Waits for a moment at which the streams are near. They usually read from replicas, and what these are behind a
    /// busy master at the gate is a stall of its clients. `applied` are positions that the streams have applied: how
    /// long it takes to be told of them is no delay of the streams.
    async fn wait_until_near(&self, applied: &[String]) -> Result {
        let end = Instant::now() + self.options.wait.min(MOMENT);
        let mut distance = Duration::MAX;
        for _ in 0..2 {
            let Some(time) = self.cx.time_to_apply(applied, self.options.wait).await? else {
                bail!("the destinations do not answer within {}", servenv::flags::print_go_duration(self.options.wait));
            };
            distance = distance.min(time);
        }
        loop {
            let positions = self.cx.source_positions().await?;
            if self.cx.time_to_apply(&positions, distance + LOOK).await?.is_some_and(|time| time <= distance + NEAR) {
                return Ok(());
            }
            if Instant::now() > end {
                warning!(
                    self.cx.wr,
                    "the streams stay behind the sources: clients will wait until they have caught up. Is a replica of a source slower than its master?"
                );
                return Ok(());
            }
        }
    }

    async fn behind_the_flip(&mut self) -> Result<(), Fault> {
        let wr = self.cx.wr;
        let mut clock = Clock::start();
        let back: Vec<pb::Stream> =
            self.journal.record.streams.iter().filter(|stream| stream.reverse).cloned().collect();
        let mut longest_kept = None;
        let mut ended = false;
        if self.journal.record.phase() == pb::Phase::Flipped {
            self.cx.point("flipped")?;
            let flip = async {
                self.records.open(&self.cx, &back).await?;
                self.cx.refresh_destinations().await?;
                self.cx.point("opened")?;
                self.records.route(&self.cx).await?;
                self.cx.point("routed")
            };
            // The streams have nothing left to do: nobody waits for their end, or has to hear that it failed.
            let (flipped, end) = join!(flip, self.cx.end_streams());
            flipped?;
            ended = end.is_ok();
            self.receipt().flipped_ms += clock.lap();

            // Only now: a vtgate that still goes to the sources has to hear of the gate there.
            let silent = wait_for_gates(wr, &self.cx.plan.keyspace, &[]).await;
            if silent.is_empty() {
                longest_kept = self.gated_at.map(|at| receipt::millis(at.elapsed()));
            }
            self.receipt().silent_gates = silent;
            self.receipt().acknowledged_ms = clock.lap();
            self.cx.refresh_sources().await?;
            self.cx.point("closed")?;
            self.journal.advance(wr, pb::Phase::Released).await?;
        }
        let released = Gates::new(wr, self.cx.plan, &self.journal.record.id).release(&self.read_only()).await?;
        let receipt = self.receipt();
        receipt.refused = released.refused;
        receipt.killed = released.killed;
        // Clients of vtgates that have acted do not wait for the release.
        receipt.longest_stall_ms =
            longest_kept.map_or(released.longest_stall_ms, |kept| kept.min(released.longest_stall_ms));
        receipt.released_ms = clock.lap();
        self.cx.point("released")?;
        // Before a stream back starts, which they would answer.
        if !ended {
            self.cx.end_streams().await?;
        }
        self.records.settle(&self.cx, &back).await?;
        self.journal.advance(wr, pb::Phase::Done).await?;
        let receipt = self.receipt().clone();
        let text = receipt::text(&self.cx.plan.title(), &self.journal.record.id, &receipt);
        wr.logger().print(text).await;
        Ok(())
    }

    fn receipt(&mut self) -> &mut pb::Receipt {
        self.journal.record.receipt.get_or_insert_default()
    }

    /// The sources whose mysqlds this cutover made refuse writes.
    fn read_only(&self) -> Vec<usize> {
        let set = |(index, source): (usize, &pb::Source)| source.read_only_set.then_some(index);
        self.journal.record.sources.iter().enumerate().filter_map(set).collect()
    }

    /// Every stream has to be there and running: one that is not would be waited for in vain, or not at
    /// all, while clients are kept.
    async fn check_streams(&self) -> Result {
        let plan = self.cx.plan;
        for (index, destination) in plan.destinations.iter().enumerate() {
            let rows = streams::read(self.cx.wr, &destination.master).await?;
            for stream in plan.streams.iter().filter(|stream| stream.destination == index) {
                let uid = stream.uid;
                let Some(row) = rows.iter().find(|row| row.uid == uid) else {
                    bail!("vreplication stream {uid} not found on {}", destination.alias())
                };
                row.check_runs(&destination.alias())?;
            }
        }
        Ok(())
    }

    /// Lets the destinations catch up with the present, while the sources still serve. The positions that they have
    /// applied.
    async fn catch_up_before(&self) -> Result<Vec<String>> {
        let positions = self.cx.source_positions().await?;
        self.cx.catch_up(&positions, self.options.wait).await?;
        Ok(positions)
    }

    /// Lets the mysqlds of all sources accept writes again.
    async fn thaw(&self) -> Result {
        each(self.cx.plan.sources.iter().map(|source| self.thaw_at(source))).await.map(drop)
    }

    /// Lets the mysqld of a source accept writes again, all of which go through its tablet. Every source of whole
    /// shards: that one was fenced may be known to nobody, because the answer was lost or its reader died.
    async fn thaw_at(&self, source: &Place) -> Result {
        if !self.cx.plan.whole_shards() {
            return Ok(());
        }
        let call = self.cx.wr.tmc().set_read_write(&source.master, tmd::SetReadWriteRequest {});
        within(self.cx.wr.config().remote_operation_timeout, call)
            .await
            .map_err(|error| err!("SetReadWrite({}) failed: {error}", source.alias()))?;
        Ok(())
    }

    /// After a failure before the flip: the sources serve again, and the failure is told.
    async fn go_back(mut self, error: Error) -> Result {
        // Whoever lost the lock or the journal must not touch what another may be doing by now.
        if let Err(lost) = self.cx.check_locks().await {
            bail!("{error}; the keyspace lock is lost too, so nothing was undone, run the same command again: {lost}");
        }
        if self.journal.record.phase() == pb::Phase::Planned {
            self.close(&error.to_string()).await?;
            return Err(error);
        }
        warning!(self.cx.wr, "the cutover failed before its flip and is undone: {error}");
        match self.undo(&error.to_string()).await {
            Ok(()) => Err(error),
            Err(undo) => bail!("{error}; going back failed too, run the same command again or with -cancel: {undo}"),
        }
    }

    /// Removes every effect before the flip. A source that cannot be told keeps no other from serving, and the journal
    /// open.
    async fn undo(&mut self, reason: &str) -> Result {
        let wr = self.cx.wr;
        self.journal.give_up(wr).await?;
        // Nobody serves by it before a gate is lifted, except a tablet that was restarted and has none.
        self.records.allow(&self.cx).await?;
        let read_only = self.read_only();
        let gates = Gates::new(wr, self.cx.plan, &self.journal.record.id);
        let sources = self.cx.plan.sources.iter().enumerate();
        let served = join_all(sources.map(|(index, source)| {
            let read_write = read_only.contains(&index);
            self.serve_again(&gates, source, read_write)
        }))
        .await;
        let failures: Vec<String> = served.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        join_errors(&failures)?;
        self.close(reason).await
    }

    /// Lets a source serve that nothing in the topology keeps from it, as soon as its tablet answers.
    async fn serve_again(&self, gates: &Gates<'_>, source: &Place, read_write: bool) -> Result {
        let end = Instant::now() + GOING_BACK;
        loop {
            let error = match self.try_to_serve(gates, source, read_write).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() > end {
                bail!("{} cannot be told to serve again: {error}", source.alias());
            }
            tokio::time::sleep(TRY_AGAIN).await;
            // Another process may have gone on with this cutover, by the same gate.
            if let Err(lost) = self.cx.check_locks().await {
                bail!(
                    "{} cannot be told to serve again: {error}; the keyspace lock is lost too: {lost}",
                    source.alias()
                );
            }
        }
    }

    async fn try_to_serve(&self, gates: &Gates<'_>, source: &Place, read_write: bool) -> Result {
        self.thaw_at(source).await?;
        // A tablet that was restarted meanwhile has read the denial; under the gate nobody notices.
        refresh_masters(self.cx.wr, [&source.master]).await?;
        if let Err(error) = self.cx.unprepare_back_at(source).await {
            // They are stopped, and the next attempt removes them first.
            warning!(self.cx.wr, "cannot remove the prepared streams of {}: {error}", source.alias());
        }
        gates.release_at(source, read_write).await.map(drop)
    }

    /// The journal of a cutover of which nothing is left.
    async fn close(&mut self, reason: &str) -> Result {
        self.journal.record.cancelled = true;
        self.journal.record.streams.retain(|stream| !stream.reverse);
        self.receipt().errors.push(reason.to_owned());
        self.journal.advance(self.cx.wr, pb::Phase::Done).await
    }
}
