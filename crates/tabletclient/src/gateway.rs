//! Sends a call to a tablet of the wanted keyspace, shard and type.
//!
//! Owns: the choice of the tablet, retries on another one, and how an error names its target.
//! Does not own: health (`health_check.rs`), waiting out a failover (`buffer.rs`).
//! Invariants: inside a transaction nothing is retried; a write is retried only if the tablet
//! refused it or never saw it; choosing a tablet never waits for topology or health.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::Rng;
use tokio::time::Instant;
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::{self, QueryResult, Target},
    topodata::TabletType,
};

use crate::{
    BeginOutcome, QueryService, Region, ResultStream, RowSink,
    buffer::{Buffer, Failure},
    cutover::is_refusal,
    grpc,
    health_check::{HealthCheck, TabletHealth, target_text, type_text},
};

/// Told of every call that ended, for metrics.
pub trait CallObserver: Send + Sync {
    /// `operation` is the method's name; `error` the code it failed with.
    fn call_ended(&self, operation: &'static str, target: &Target, elapsed: Duration, error: Option<Code>);
}

/// An observer that is not interested.
pub struct NoObserver;

impl CallObserver for NoObserver {
    fn call_ended(&self, _: &'static str, _: &Target, _: Duration, _: Option<Code>) {}
}

/// What a call may do, and so what may be done about its failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Changes nothing: may be repeated on another tablet whenever the tablet is the problem.
    Read,
    /// May change data: repeated only when it certainly has not been executed.
    Write,
    /// Belongs to an open transaction: never repeated.
    InTransaction,
}

/// Settings of a [`Gateway`].
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Our cell, whose replicas are preferred, and those whose replicas may be asked instead.
    pub region: Region,
    /// How many more tablets are tried after a failure (`-retry-count`).
    pub retry_count: usize,
    /// Types that may be asked for (`-allowed_tablet_types`); empty means all.
    pub allowed_types: Vec<TabletType>,
    /// Calls of one tablet that may be under way at once; one more is refused. Those of open transactions, which hold what
    /// others wait for, are not.
    pub max_calls_per_tablet: usize,
}

/// Finds tablets and calls them. Cloning shares it.
#[derive(Clone)]
pub struct Gateway {
    options: Arc<GatewayOptions>,
    health: HealthCheck,
    buffer: Buffer,
    observer: Arc<dyn CallObserver>,
}

impl Gateway {
    /// The buffer must have been added to the health check's listeners, see [`Gateway::start`].
    fn new(options: GatewayOptions, health: HealthCheck, buffer: Buffer, observer: Arc<dyn CallObserver>) -> Self {
        Self { options: Arc::new(options), health, buffer, observer }
    }

    /// Connects the parts: the buffer learns of new masters from the health check.
    pub fn start(
        options: GatewayOptions,
        health: HealthCheck,
        buffer: Buffer,
        observer: Arc<dyn CallObserver>,
    ) -> Self {
        health.add_listener(Arc::new(buffer.clone()));
        Self::new(options, health, buffer, observer)
    }

    pub fn health(&self) -> &HealthCheck {
        &self.health
    }

    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// A healthy tablet of the target that is not among those tried before: a master wherever it is, others within the
    /// region. Own cell first, and at random within a cell.
    fn choose(&self, target: &Target, tried: &[Arc<TabletHealth>]) -> Choice {
        let snapshot = self.health.snapshot();
        let Some(group) = snapshot.group(&target.keyspace, &target.shard, target.tablet_type()) else {
            return Choice::NoneHealthy;
        };
        let region = &self.options.region;
        let near =
            |health: &&Arc<TabletHealth>| target.tablet_type() == TabletType::Master || region.contains(health.cell());
        if !group.healthy.iter().any(|health| near(&health)) {
            return Choice::NoneHealthy;
        }
        let untried =
            |health: &&Arc<TabletHealth>| near(health) && !tried.iter().any(|t| t.tablet.alias == health.tablet.alias);
        let local = |health: &&Arc<TabletHealth>| health.cell() == region.cell();
        if let [only] = group.healthy.as_slice() {
            return if untried(&only) { Choice::Tablet(only.clone()) } else { Choice::AllTried };
        }
        let pick = |wanted: &dyn Fn(&&Arc<TabletHealth>) -> bool| {
            let count = group.healthy.iter().filter(wanted).count();
            let index = if count > 1 { rand::rng().random_range(0..count) } else { 0 };
            group.healthy.iter().filter(wanted).nth(index).cloned()
        };
        match pick(&|health| untried(health) && local(health)).or_else(|| pick(&untried)) {
            Some(health) => Choice::Tablet(health),
            None => Choice::AllTried,
        }
    }

    /// Waits for a tablet that can be chosen. Whether there is one.
    async fn look_for(&self, target: &Target) -> bool {
        let is_there = || !matches!(self.choose(target, &[]), Choice::NoneHealthy);
        self.health.look_for(target, is_there).await
    }

    /// A master that is up and does not serve: one that stops waits for the transactions that it holds.
    fn leaving_master(&self, target: &Target) -> Option<Arc<TabletHealth>> {
        let snapshot = self.health.snapshot();
        let group = snapshot.group(&target.keyspace, &target.shard, TabletType::Master)?;
        let up = group.all.iter().filter(|health| health.up && target.tablet_type() == TabletType::Master);
        up.max_by_key(|health| health.reparented_timestamp).cloned()
    }

    /// Calls a tablet of `target`, and others after it as far as `kind` allows. `call` makes the
    /// request anew for each attempt. The answer comes with the tablet that gave it.
    ///
    /// # Errors
    /// Those of the tablet, with target and tablet in front; UNAVAILABLE `no valid tablet`.
    pub async fn call<T, F, C>(
        &self,
        operation: &'static str,
        target: &Target,
        kind: CallKind,
        call: C,
    ) -> Result<(T, Arc<TabletHealth>)>
    where
        F: Future<Output = Result<T>> + Send,
        C: Fn(Arc<dyn QueryService>) -> F,
    {
        self.call_for(operation, target, kind, None, call).await
    }

    /// [`Gateway::call`] with pieces of a result for `sink`: none is repeated once it has one.
    async fn call_for<T, F, C>(
        &self,
        operation: &'static str,
        target: &Target,
        kind: CallKind,
        sink: Option<&dyn RowSink>,
        call: C,
    ) -> Result<(T, Arc<TabletHealth>)>
    where
        F: Future<Output = Result<T>> + Send,
        C: Fn(Arc<dyn QueryService>) -> F,
    {
        let allowed = &self.options.allowed_types;
        if !allowed.is_empty() && !allowed.contains(&target.tablet_type()) {
            let names: Vec<&str> = allowed.iter().map(|one| type_text(*one)).collect();
            let text = format!(
                "requested tablet type {} is not part of the allowed tablet types for this vtgate: [{}]",
                type_text(target.tablet_type()),
                names.join(" "),
            );
            return Err(named(VtError::new(Code::FailedPrecondition, text), target, None));
        }
        let mut tried: Vec<Arc<TabletHealth>> = Vec::new();
        let mut last: Option<VtError> = None;
        let bufferable = target.tablet_type() == TabletType::Master && kind != CallKind::InTransaction;
        let mut buffered = None;
        let mut attempts = self.options.retry_count + 1;
        let mut looked = false;
        while attempts > 0 {
            attempts -= 1;
            if bufferable && buffered.is_none() {
                // A new master that is known by now is asked at once: the failover is over.
                let failure = last
                    .as_ref()
                    .filter(|_| !matches!(self.choose(target, &tried), Choice::Tablet(_)))
                    .map(|error| failure_of(error, kind));
                buffered = self
                    .buffer
                    .wait_for_failover_end(&target.keyspace, &target.shard, failure)
                    .await
                    .map_err(|error| named(error, target, tried.last()))?;
                if buffered.is_some() && last.is_some() {
                    // What refused us before the failover may be the one that serves after it.
                    tried.clear();
                    attempts = attempts.max(1);
                }
            }
            let choice = match self.choose(target, &tried) {
                Choice::NoneHealthy if kind == CallKind::InTransaction => {
                    self.leaving_master(target).map_or(Choice::NoneHealthy, Choice::Tablet)
                }
                choice => choice,
            };
            let health = match choice {
                Choice::Tablet(health) => health,
                Choice::NoneHealthy
                    if tried.is_empty() && !std::mem::replace(&mut looked, true) && self.look_for(target).await =>
                {
                    attempts += 1;
                    continue;
                }
                Choice::NoneHealthy => {
                    // No tablet was asked in this attempt, whatever was asked before.
                    tried.clear();
                    if bufferable && buffered.is_none() {
                        buffered = self
                            .buffer
                            .wait_for_failover_end(&target.keyspace, &target.shard, Some(Failure::NoMaster))
                            .await
                            .map_err(|error| named(error, target, None))?;
                        if buffered.is_some() {
                            attempts = attempts.max(1);
                            continue;
                        }
                    }
                    last = Some(VtError::new(Code::Unavailable, "no valid tablet"));
                    break;
                }
                Choice::AllTried => {
                    last.get_or_insert_with(|| VtError::new(Code::Unavailable, "no available connection"));
                    break;
                }
            };
            let under_way = InFlight::new(&health);
            if under_way.before >= self.options.max_calls_per_tablet && kind != CallKind::InTransaction {
                let text = format!("{} calls of this tablet are under way already", under_way.before);
                return Err(named(VtError::new(Code::ResourceExhausted, text), target, Some(&health)));
            }
            let started = Instant::now();
            let outcome = tokio::select! {
                biased;
                outcome = call(health.service.clone()) => outcome,
                () = health.closed.cancelled() => Err(VtError::new(
                    Code::Unavailable,
                    "vttablet: rpc error: code = Unavailable desc = transport is closing (the tablet's health check failed)",
                )),
            };
            let code = outcome.as_ref().err().map(VtError::code);
            self.observer.call_ended(operation, target, started.elapsed(), code);
            let error = match outcome {
                Ok(answer) => return Ok((answer, health)),
                Err(error) => error,
            };
            let again = match kind {
                CallKind::InTransaction => false,
                CallKind::Read => matches!(error.code(), Code::Unavailable | Code::FailedPrecondition),
                CallKind::Write => match error.code() {
                    Code::FailedPrecondition => true,
                    Code::Unavailable => !grpc::connection_lost(&error),
                    _ => false,
                },
            };
            // The records will say where to go; until then another tablet knows no better.
            let again = again && !is_refusal(&error) && !sink.is_some_and(RowSink::has_begun);
            tried.push(health);
            last = Some(error);
            if !again {
                break;
            }
        }
        let error = last.unwrap_or_else(|| VtError::new(Code::Unavailable, "no valid tablet"));
        Err(named(error, target, tried.last()))
    }

    pub async fn execute(
        &self,
        target: &Target,
        kind: CallKind,
        request: impl Fn() -> query::ExecuteRequest + Send + Sync,
    ) -> Result<QueryResult> {
        self.execute_rows(target, kind, request, None).await
    }

    /// As [`Gateway::execute`], with pieces of a large result for `sink` ([`QueryService::execute_rows`]).
    pub async fn execute_rows(
        &self,
        target: &Target,
        kind: CallKind,
        request: impl Fn() -> query::ExecuteRequest + Send + Sync,
        sink: Option<&dyn RowSink>,
    ) -> Result<QueryResult> {
        let call = |service: Arc<dyn QueryService>| {
            let request = request();
            async move {
                match sink {
                    Some(sink) => service.execute_rows(request, sink).await,
                    None => service.execute(request).await,
                }
            }
        };
        Ok(self.call_for("Execute", target, kind, sink, call).await?.0)
    }

    pub async fn execute_batch(
        &self,
        target: &Target,
        kind: CallKind,
        request: impl Fn() -> query::ExecuteBatchRequest + Send + Sync,
    ) -> Result<Vec<QueryResult>> {
        let call = |service: Arc<dyn QueryService>| {
            let request = request();
            async move { service.execute_batch(request).await }
        };
        Ok(self.call("ExecuteBatch", target, kind, call).await?.0)
    }

    /// A stream that has begun is not retried; its later errors name the tablet as the first does.
    pub async fn stream_execute(
        &self,
        target: &Target,
        kind: CallKind,
        request: impl Fn() -> query::StreamExecuteRequest + Send + Sync,
    ) -> Result<ResultStream> {
        use futures::{StreamExt, TryStreamExt};
        // A stream fails with its first message rather than when it is opened: wait for that one.
        let call = |service: Arc<dyn QueryService>| {
            let request = request();
            async move {
                let mut stream = service.stream_execute(request).await?;
                let first = stream.try_next().await?;
                Ok((first, stream))
            }
        };
        let ((first, rest), used) = self.call("StreamExecute", target, kind, call).await?;
        let target = target.clone();
        let closed = used.closed.clone();
        let lost = futures::stream::once(async move {
            closed.cancelled_owned().await;
            Err(VtError::new(Code::Unavailable, "vttablet: rpc error: code = Unavailable desc = transport is closing"))
        });
        // Ends with the tablet's stream; fails when the tablet's health does.
        let rest = ended_by(rest, lost.boxed()).map_err(move |error| named(error, &target, Some(&used)));
        Ok(futures::stream::iter(first.map(Ok)).chain(rest).boxed())
    }

    pub async fn begin(&self, target: &Target, request: impl Fn() -> query::BeginRequest + Send + Sync) -> Result<i64> {
        // A transaction that was opened and not answered changes nothing: the tablet ends it.
        let call = |service: Arc<dyn QueryService>| {
            let request = request();
            async move { service.begin(request).await }
        };
        Ok(self.call("Begin", target, CallKind::Read, call).await?.0)
    }

    /// The statement's error, if any, comes with the transaction that is open nevertheless. `kind` is
    /// [`CallKind::Read`] for any statement that only takes effect with its transaction: a tablet ends one that it has
    /// opened and not answered. Pieces of a large result go to `sink`.
    pub async fn begin_execute(
        &self,
        target: &Target,
        kind: CallKind,
        request: impl Fn() -> query::BeginExecuteRequest + Send + Sync,
        sink: Option<&dyn RowSink>,
    ) -> BeginOutcome<QueryResult> {
        let call = |service: Arc<dyn QueryService>| {
            let request = request();
            async move {
                let outcome = match sink {
                    Some(sink) => service.begin_execute_rows(request, sink).await,
                    None => service.begin_execute(request).await,
                };
                if outcome.transaction_id == 0 && outcome.result.is_err() {
                    // Nothing was begun: another tablet may be tried.
                    return Err(outcome.result.err().unwrap_or_else(|| VtError::new(Code::Internal, "no error")));
                }
                Ok(outcome)
            }
        };
        match self.call_for("BeginExecute", target, kind, sink, call).await {
            Ok((outcome, used)) => BeginOutcome {
                transaction_id: outcome.transaction_id,
                result: outcome.result.map_err(|error| named(error, target, Some(&used))),
            },
            Err(error) => BeginOutcome { transaction_id: 0, result: Err(error) },
        }
    }

    /// Any other call on the tablet that holds a transaction of `target`.
    pub async fn in_transaction<T, F, C>(&self, operation: &'static str, target: &Target, call: C) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
        C: Fn(Arc<dyn QueryService>) -> F,
    {
        Ok(self.call(operation, target, CallKind::InTransaction, call).await?.0)
    }
}

/// What the error of a call to a master says about it.
fn failure_of(error: &VtError, kind: CallKind) -> Failure<'_> {
    // What has changed nothing may be asked again, so that losing the connection is as good as being refused.
    if kind == CallKind::Read && grpc::connection_lost(error) {
        Failure::ConnectionLost
    } else {
        Failure::Refused(error)
    }
}

/// Counts a call for as long as it lives.
struct InFlight {
    calls: Arc<AtomicUsize>,
    before: usize,
}

impl InFlight {
    fn new(health: &TabletHealth) -> Self {
        let calls = health.in_flight.clone();
        let before = calls.fetch_add(1, Ordering::Relaxed);
        Self { calls, before }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Choice {
    Tablet(Arc<TabletHealth>),
    NoneHealthy,
    AllTried,
}

/// `target: ks.shard.type, used tablet: zone1-100 (host): …`
fn named(error: VtError, target: &Target, used: Option<&Arc<TabletHealth>>) -> VtError {
    match used {
        Some(used) => error.wrap(format_args!("target: {}, used tablet: {}", target_text(target), used.label())),
        None => error.wrap(format_args!("target: {}", target_text(target))),
    }
}

/// The items of `stream` until it ends or `end` yields one, which is then the last.
fn ended_by(stream: ResultStream, end: ResultStream) -> ResultStream {
    use futures::StreamExt;
    let state = Some((stream, end));
    futures::stream::unfold(state, |state| async move {
        let (mut stream, mut end) = state?;
        tokio::select! {
            biased;
            item = stream.next() => item.map(|item| {
                let failed = item.is_err();
                (item, (!failed).then_some((stream, end)))
            }),
            item = end.next() => item.map(|item| (item, None)),
        }
    })
    .boxed()
}
