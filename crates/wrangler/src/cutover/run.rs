//! The phases of a cutover, in order.
//!
//! Before the flip every failure goes back: what was prepared is removed, the denial is taken out of the
//! topology, the gates are lifted. From the flip on there is only forward: every step can run again, and
//! the journal says that it has to.

use std::time::Duration;

use futures::future::try_join_all;
use servenv::failpoint::Hit;
use topo::KeyspaceLock;
use vterrors::Code;
use vtproto::cutover as pb;
use vtproto::tabletmanagerdata as tmd;

use super::Options;
use super::gate::{Gates, master_position};
use super::journal::JournalFile;
use super::plan::{Place, Plan};
use super::receipt::{self, Clock};
use crate::Wrangler;
use crate::error::{Error, Result, bail, err};
use crate::logger::{info, warning};
use crate::resharding::{refresh_masters, streams, wait_for_gates};
use crate::wrangler::within;

/// Longest that clients are kept while the destinations catch up: what vtgates keep them for, less the
/// other phases. Destinations are caught up once before anybody is kept, so that milliseconds are left.
const GATED_CATCH_UP: Duration = Duration::from_secs(4);

/// What the records and streams of one kind of cutover need. Every method can run again.
#[async_trait::async_trait]
pub(super) trait Records: Send + Sync {
    /// Writes to the topology that the sources must not serve. No tablet is told.
    async fn deny(&self, cx: &Context<'_>) -> Result;
    /// The opposite.
    async fn allow(&self, cx: &Context<'_>) -> Result;
    /// Prepares the way back: streams at the sources, stopped, at the destinations' present positions.
    async fn prepare(&self, cx: &Context<'_>) -> Result<Vec<pb::Stream>>;
    /// The opposite, whether or not it was prepared.
    async fn unprepare(&self, cx: &Context<'_>) -> Result;
    /// Ends the streams into the destinations and makes these serve.
    async fn open(&self, cx: &Context<'_>) -> Result;
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
        for lock in self.locks {
            lock.check().await?;
        }
        Ok(())
    }

    /// The streams back that `prepare` makes at one source, out of those `from` the destinations.
    pub async fn prepare_at(
        &self,
        source: &Place,
        from: &[(usize, vtproto::binlogdata::BinlogSource)],
    ) -> Result<Vec<pb::Stream>> {
        let places: Vec<(&str, &str)> =
            from.iter().map(|(_, source)| (source.keyspace.as_str(), source.shard.as_str())).collect();
        streams::delete_prepared(self.wr, &source.master, &places).await?;
        let new = try_join_all(from.iter().map(|(destination, wanted)| async move {
            let position = master_position(self.wr, &self.plan.destinations[*destination]).await?;
            Ok::<_, Error>(streams::NewStream { source: wanted.clone(), position })
        }))
        .await?;
        let uids = streams::insert_stopped(self.wr, &source.master, streams::REVERSED, &new).await?;
        Ok(uids
            .into_iter()
            .zip(&new)
            .map(|(uid, stream)| pb::Stream {
                keyspace: source.keyspace().to_owned(),
                shard: source.name().to_owned(),
                uid,
                source_keyspace: stream.source.keyspace.clone(),
                source_shard: stream.source.shard.clone(),
                reverse: true,
            })
            .collect())
    }

    /// The source that a stream back runs at.
    pub fn source_of(&self, stream: &pb::Stream) -> Result<&Place> {
        self.plan
            .sources
            .iter()
            .find(|place| place.is(&stream.keyspace, &stream.shard))
            .ok_or_else(|| err!("the journal names a stream back at {}/{}", stream.keyspace, stream.shard))
    }

    /// Ends the streams into the destinations.
    pub async fn end_streams(&self) -> Result {
        try_join_all(
            self.plan
                .streams
                .iter()
                .map(|stream| streams::delete(self.wr, &self.plan.destinations[stream.destination].master, stream.uid)),
        )
        .await
        .map(drop)
    }

    pub async fn refresh_destinations(&self) -> Result {
        refresh_masters(self.wr, self.plan.destinations.iter().map(|place| &place.master)).await
    }

    async fn refresh_sources(&self) -> Result {
        refresh_masters(self.wr, self.plan.sources.iter().map(|place| &place.master)).await
    }
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

/// One run of a cutover.
pub(super) struct Run<'a> {
    pub cx: Context<'a>,
    pub records: &'a dyn Records,
    pub options: &'a Options,
    pub journal: JournalFile,
}

impl Run<'_> {
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
        self.undo("cancelled").await?;
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

    fn point(&self, name: &str) -> Result<(), Fault> {
        match self.cx.wr.config().failpoints.hit(&format!("cutover.{name}")) {
            Ok(()) => Ok(()),
            Err(Hit::Error) => Err(Fault::Failed(err!("fail point cutover.{name}"))),
            Err(Hit::Crash) => Err(Fault::Crash),
        }
    }

    async fn before_the_flip(&mut self) -> Result<(), Fault> {
        let (wr, plan) = (self.cx.wr, self.cx.plan);
        let receipt = self.journal.record.receipt.get_or_insert_default();
        *receipt = pb::Receipt::default();
        self.point("planned")?;
        self.check_streams().await?;
        self.catch_up_before().await?;

        let mut clock = Clock::start();
        let mut gates = Gates::new(wr, plan, &self.journal.record.id);
        self.journal.advance(wr, pb::Phase::Gated).await?;
        clock.lap();
        gates.gate().await?;
        self.point("gated")?;
        self.receipt().gated_ms = clock.lap();

        self.journal.advance(wr, pb::Phase::Drained).await?;
        gates.drain(self.options.drain).await?;
        self.point("drained")?;
        self.receipt().drained_ms = clock.lap();

        self.journal.advance(wr, pb::Phase::Fenced).await?;
        self.records.deny(&self.cx).await?;
        self.point("denied")?;
        let fenced = gates.fence().await?;
        for (source, fenced) in self.journal.record.sources.iter_mut().zip(fenced) {
            source.position = fenced.position;
            source.read_only_set |= fenced.read_only_set;
        }
        self.point("fenced")?;
        self.receipt().fenced_ms = clock.lap();

        self.journal.advance(wr, pb::Phase::CaughtUp).await?;
        let positions: Vec<String> = self.journal.record.sources.iter().map(|source| source.position.clone()).collect();
        self.catch_up(&positions, self.options.wait.min(GATED_CATCH_UP)).await?;
        self.point("caught_up")?;
        self.receipt().caught_up_ms = clock.lap();

        // The positions are final: mysqld may accept the rows that the way back needs. The gates hold.
        self.thaw().await?;
        let back = self.records.prepare(&self.cx).await?;
        self.journal.record.streams.retain(|stream| !stream.reverse);
        self.journal.record.streams.extend(back);
        self.point("prepared")?;
        self.check_masters().await?;
        self.cx.check_locks().await?;
        self.journal.advance(wr, pb::Phase::Flipped).await?;
        self.receipt().flipped_ms = clock.lap();
        Ok(())
    }

    async fn behind_the_flip(&mut self) -> Result<(), Fault> {
        let wr = self.cx.wr;
        let mut clock = Clock::start();
        if self.journal.record.phase() == pb::Phase::Flipped {
            self.point("flipped")?;
            self.records.open(&self.cx).await?;
            self.point("opened")?;
            self.records.route(&self.cx).await?;
            self.point("routed")?;
            self.receipt().flipped_ms += clock.lap();

            // Only now: a vtgate that still goes to the sources has to hear of the gate there.
            let silent = wait_for_gates(wr, &self.cx.plan.keyspace, &[]).await;
            self.receipt().silent_gates = silent;
            self.receipt().acknowledged_ms = clock.lap();
            self.cx.refresh_sources().await?;
            self.point("closed")?;
            self.journal.advance(wr, pb::Phase::Released).await?;
        }
        let released = Gates::new(wr, self.cx.plan, &self.journal.record.id).release(&self.read_only()).await?;
        let receipt = self.receipt();
        receipt.refused = released.refused;
        receipt.killed = released.killed;
        receipt.longest_stall_ms = released.longest_stall_ms;
        receipt.released_ms = clock.lap();
        self.point("released")?;
        let back: Vec<pb::Stream> =
            self.journal.record.streams.iter().filter(|stream| stream.reverse).cloned().collect();
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
                if row.state == "Error" || row.state == "Stopped" {
                    bail!(
                        "vreplication stream {uid} on {} is in state {}: {}",
                        destination.alias(),
                        row.state,
                        row.message
                    );
                }
            }
        }
        Ok(())
    }

    /// Lets the destinations catch up with the present, while the sources still serve.
    async fn catch_up_before(&self) -> Result {
        let positions =
            try_join_all(self.cx.plan.sources.iter().map(|source| master_position(self.cx.wr, source))).await?;
        self.catch_up(&positions, self.options.wait).await
    }

    /// Waits until every stream has applied the position of its source.
    async fn catch_up(&self, positions: &[String], limit: Duration) -> Result {
        let plan = self.cx.plan;
        try_join_all(plan.streams.iter().map(|stream| async move {
            let destination = &plan.destinations[stream.destination];
            let position = positions.get(stream.source).map_or("", String::as_str);
            info!(self.cx.wr, "waiting for {} to catch up to {position} in stream {}", destination.alias(), stream.uid);
            streams::wait_for_position(self.cx.wr, &destination.master, stream.uid, position, limit).await.map_err(
                |error| {
                    let hint = match error.code {
                        Code::DeadlineExceeded => " (streams read from REPLICA tablets of the source unless vttablets say otherwise: is one healthy?)",
                        _ => "",
                    };
                    err!(
                        "{} did not catch up with {}/{} within {}: {error}{hint}",
                        destination.alias(),
                        plan.sources[stream.source].keyspace(),
                        plan.sources[stream.source].name(),
                        servenv::flags::print_go_duration(limit)
                    )
                },
            )
        }))
        .await
        .map(drop)
    }

    /// Lets the mysqlds of the sources accept writes again, all of which go through their tablets.
    async fn thaw(&self) -> Result {
        try_join_all(self.read_only().into_iter().map(|index| async move {
            let source = &self.cx.plan.sources[index];
            let call = self.cx.wr.tmc().set_read_write(&source.master, tmd::SetReadWriteRequest {});
            within(self.cx.wr.config().remote_operation_timeout, call)
                .await
                .map_err(|error| err!("SetReadWrite({}) failed: {error}", source.alias()))
        }))
        .await
        .map(drop)
    }

    /// A reparent meanwhile would have moved writes to a tablet that was never gated.
    async fn check_masters(&self) -> Result {
        let plan = self.cx.plan;
        for place in plan.sources.iter().chain(&plan.destinations) {
            let now = self.cx.wr.topo().get_shard(place.keyspace(), place.name()).await?;
            if now.master_alias() != place.master.alias.as_ref() {
                bail!(
                    "the master of {}/{} was {} when the cutover began and is another now",
                    place.keyspace(),
                    place.name(),
                    place.alias()
                );
            }
        }
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

    /// Removes every effect before the flip, the last one first.
    async fn undo(&mut self, reason: &str) -> Result {
        let wr = self.cx.wr;
        self.journal.record.cancelled = true;
        self.journal.save(wr).await?;
        self.thaw().await?;
        self.records.unprepare(&self.cx).await?;
        self.records.allow(&self.cx).await?;
        // A tablet that was restarted meanwhile has read the denial; under the gate nobody notices.
        self.cx.refresh_sources().await?;
        Gates::new(wr, self.cx.plan, &self.journal.record.id).release(&self.read_only()).await?;
        self.close(reason).await
    }

    /// The journal of a cutover of which nothing is left.
    async fn close(&mut self, reason: &str) -> Result {
        self.journal.record.cancelled = true;
        self.journal.record.streams.retain(|stream| !stream.reverse);
        self.receipt().errors.push(reason.to_owned());
        self.journal.advance(self.cx.wr, pb::Phase::Done).await
    }
}
