//! The gate of a cutover: holds back new work on tables that are about to be served elsewhere, and
//! tells when the old work is through.
//!
//! Owns: the gate and its phases, the statements that run right now with what they touch. Does not own:
//! transactions (`tx`), the position and read-only (`tabletmanager::cutover`).
//! Invariants: a statement is entered in the flights before it looks whether a gate is held, so that
//! whoever raises the gate and then looks at the flights has seen every statement that did not see it.
//! Once drained, nothing that writes to the tables runs or can begin until the gate ends. A gate that is
//! not fenced ends by itself when its coordinator does not renew it; that mysqld was made read-only for it
//! is then remembered until it is undone, or the next gate needs it.
//! Reads that stream outside of a transaction, and those whose caller is given rows before their end, are
//! let through: they show one moment, and write nothing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use tabletclient::cutover::REFUSAL;
use tokio::sync::Notify;
use tokio::time::Instant;
use vterrors::{Code, Result, VtError};

use super::error::ExecError;
use super::live::{KillReason, lock};
use super::plan::Shape;
use super::plan_cache::Plan;
use super::rules::{RuleError, TableCondition};
use super::server::{Core, TabletServer};
use super::tx::Doom;

/// Time to live of a gate whose coordinator names none.
const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// Longest time to live, and longest drain.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long killed work may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Pause before what was not running yet at the last kill is looked for again.
const KILL_AGAIN: Duration = Duration::from_millis(50);
/// Pause before mysqld is asked again whether abandoned statements are gone.
const ORPHAN_PAUSE: Duration = Duration::from_millis(5);
/// Places to enter flights in; statements of different threads seldom meet at one.
const LANES: usize = 16;
/// How long a statement may be on its way from vtgate, which is by how much younger its transaction seems here.
const DELIVERY: Duration = Duration::from_millis(100);
/// What a transaction that did not end in time is told from then on.
const KILLED: &str = "transaction killed by a cutover";

/// The tables behind a gate.
#[derive(Debug)]
pub struct Tables {
    written: Vec<String>,
    conditions: Vec<TableCondition>,
}

impl Tables {
    /// Names or `/regular expressions/`; none is every table.
    fn new(written: Vec<String>) -> Result<Self, RuleError> {
        let conditions = written.iter().map(|table| TableCondition::new(table)).collect::<Result<_, _>>()?;
        Ok(Self { written, conditions })
    }

    pub fn contain(&self, table: &str) -> bool {
        self.conditions.is_empty() || self.conditions.iter().any(|condition| condition.matches(table))
    }

    /// Whether a statement may read or write one of them.
    fn touched_by(&self, shape: &Shape) -> bool {
        let everything = self.conditions.is_empty() && shape.kind.is_write();
        everything || shape.opaque || shape.tables.iter().any(|table| table != "dual" && self.contain(table))
    }
}

/// Told when work has ended; costs one load while nobody waits.
#[derive(Debug, Default)]
pub struct Progress {
    held: AtomicBool,
    changed: Notify,
}

impl Progress {
    pub fn note(&self) {
        if self.held.load(Ordering::Acquire) {
            self.changed.notify_waiters();
        }
    }
}

/// How far the gate is. Only forward, except that a failed fence goes back to drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Gated,
    Drained,
    Fenced,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gated => "gated",
            Self::Drained => "drained",
            Self::Fenced => "fenced",
        }
    }
}

#[derive(Debug)]
struct Held {
    id: String,
    tables: Arc<Tables>,
    phase: Phase,
    since: SystemTime,
    ttl: Duration,
    /// When it ends by itself; `None` once fenced.
    expires: Option<Instant>,
    /// When it and those of the other sources were up; `None` before that is known.
    raised: Option<Instant>,
    /// Transactions up to this id were open before.
    newest_before: i64,
    /// Newer ones, which were open on other shards before: those wait for them.
    open_elsewhere: HashSet<i64>,
    refused: i64,
    first_refusal: Option<Instant>,
    killed: i64,
    /// mysqld was made read-only for it.
    read_only: bool,
}

impl Held {
    fn is_from_before(&self, transaction_id: i64) -> bool {
        transaction_id <= self.newest_before || self.open_elsewhere.contains(&transaction_id)
    }

    fn renew(&mut self, at_least: Duration) {
        if self.expires.is_some() {
            self.expires = Some(Instant::now() + self.ttl.max(at_least));
        }
    }
}

/// What can be seen of a gate from outside.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub id: String,
    pub phase: Phase,
    pub tables: Vec<String>,
    pub since: SystemTime,
    pub ttl_left: Option<Duration>,
    /// From before the gate: open transactions that used its tables, and statements on them.
    pub transactions: usize,
    pub statements: usize,
    pub refused: i64,
    pub killed: i64,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    pub left: usize,
    pub killed: i64,
    pub waited: Duration,
}

/// What a gate did while it was held.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub refused: i64,
    pub killed: i64,
    /// Since the first refusal.
    pub longest_stall: Duration,
}

/// A statement that runs, from before it is let in until its end.
#[derive(Debug)]
struct Flight {
    plan: Arc<Plan>,
    /// It reads outside of a transaction, for as long as its reader takes.
    lone_stream: bool,
}

#[derive(Debug, Default)]
struct Lane {
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
}

/// See the module.
#[derive(Debug)]
pub struct Cutover {
    progress: Arc<Progress>,
    held: Mutex<Option<Held>>,
    lanes: [Mutex<Lane>; LANES],
    next_lane: AtomicUsize,
    /// Told when the time of a gate has changed.
    renewed: Notify,
    /// Told when a gate ended by itself.
    lapsed: Notify,
    /// mysqld is still read-only for a gate that ended by itself. Changes under the lock of `held`.
    left_read_only: AtomicBool,
    pub gates: AtomicI64,
    pub refused: AtomicI64,
    pub killed: AtomicI64,
}

/// Takes a statement out of the flights when it ends.
#[derive(Debug)]
pub(crate) struct InFlight {
    cutover: Arc<Cutover>,
    lane: usize,
    place: usize,
}

impl InFlight {
    /// Says that a read outside of a transaction goes on for as long as its reader takes.
    pub(crate) fn streams(&self) {
        if let Some(flight) = &mut lock(&self.cutover.lanes[self.lane]).flights[self.place] {
            flight.lone_stream = true;
        }
        self.cutover.progress.note();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        {
            let mut lane = lock(&self.cutover.lanes[self.lane]);
            lane.flights[self.place] = None;
            lane.free.push(self.place);
        }
        self.cutover.progress.note();
    }
}

impl Cutover {
    pub fn new(progress: Arc<Progress>) -> Arc<Self> {
        Arc::new(Self {
            progress,
            held: Mutex::default(),
            lanes: Default::default(),
            next_lane: AtomicUsize::new(0),
            renewed: Notify::new(),
            lapsed: Notify::new(),
            left_read_only: AtomicBool::new(false),
            gates: AtomicI64::new(0),
            refused: AtomicI64::new(0),
            killed: AtomicI64::new(0),
        })
    }

    pub fn is_held(&self) -> bool {
        self.progress.held.load(Ordering::Acquire)
    }

    /// What a request is told that comes while serving has stopped behind a gate: to wait, as others do.
    pub fn refuse_stopped(&self) -> Option<VtError> {
        if !self.is_held() {
            return None;
        }
        lock(&self.held).as_mut().map(|held| self.refuse(held))
    }

    fn refuse(&self, held: &mut Held) -> VtError {
        held.refused += 1;
        held.first_refusal.get_or_insert_with(Instant::now);
        self.refused.fetch_add(1, Ordering::Relaxed);
        VtError::new(Code::FailedPrecondition, format!("{REFUSAL} ({})", held.id))
    }

    fn enter(self: &Arc<Self>, plan: &Arc<Plan>, lone_stream: bool) -> InFlight {
        let number = self.next_lane.fetch_add(1, Ordering::Relaxed) % LANES;
        let mut lane = lock(&self.lanes[number]);
        let flight = Some(Flight { plan: plan.clone(), lone_stream });
        let place = match lane.free.pop() {
            Some(place) => {
                lane.flights[place] = flight;
                place
            }
            None => {
                lane.flights.push(flight);
                lane.flights.len() - 1
            }
        };
        InFlight { cutover: self.clone(), lane: number, place }
    }

    /// Texts of the statements in flight that have to end before the tables are drained.
    fn in_the_way(&self, tables: &Tables) -> Vec<Arc<str>> {
        let mut found = Vec::new();
        for lane in &self.lanes {
            for flight in lock(lane).flights.iter().flatten() {
                if !flight.lone_stream && tables.touched_by(&flight.plan.shape) {
                    found.push(flight.plan.shape.sql.clone());
                }
            }
        }
        found
    }

    /// When the gate of `id` ends by itself.
    fn expires(&self, id: &str) -> Option<Instant> {
        lock(&self.held).as_ref().filter(|gate| gate.id == id)?.expires
    }

    /// Ends the gate of `id` if its time is over.
    fn lapse(&self, id: &str) -> bool {
        let mut held = lock(&self.held);
        let over = |gate: &Held| gate.id == id && gate.expires.is_some_and(|at| at <= Instant::now());
        if !held.as_ref().is_some_and(over) {
            return false;
        }
        tracing::warn!("the gate of cutover {id} was not renewed: it ends, the tables are served again");
        if held.as_ref().is_some_and(|gate| gate.read_only) {
            self.left_read_only.store(true, Ordering::Release);
        }
        self.lift(&mut held);
        drop(held);
        self.lapsed.notify_one();
        true
    }

    fn lift(&self, held: &mut Option<Held>) {
        *held = None;
        self.progress.held.store(false, Ordering::Release);
        // Who drains learns that the gate is gone.
        self.progress.changed.notify_waiters();
    }
}

fn not_held(id: &str) -> VtError {
    VtError::new(Code::FailedPrecondition, format!("cutover {id} holds no gate here: it was released or not renewed"))
}

fn other(held: &Held) -> VtError {
    VtError::new(Code::FailedPrecondition, format!("cutover {} holds the gate here", held.id))
}

/// The gate, if `id` holds it.
fn own<'a>(held: &'a mut Option<Held>, id: &str) -> Result<&'a mut Held> {
    let gate = held.as_mut().ok_or_else(|| not_held(id))?;
    if gate.id == id { Ok(gate) } else { Err(other(gate)) }
}

impl TabletServer {
    /// Lets a statement in, or refuses it because of a gate. It counts as running until the answer is
    /// dropped.
    pub(crate) fn admit(&self, plan: &Arc<Plan>, transaction_id: i64, streams: bool) -> Result<InFlight, ExecError> {
        let flight = self.cutover.enter(plan, streams && transaction_id == 0);
        if !self.cutover.is_held() {
            return Ok(flight);
        }
        let mut held = lock(&self.cutover.held);
        let Some(gate) = held.as_mut() else { return Ok(flight) };
        let goes_on = gate.phase == Phase::Gated
            && transaction_id != 0
            && self.tx.is_open(transaction_id)
            && gate.is_from_before(transaction_id);
        if goes_on || !gate.tables.touched_by(&plan.shape) {
            return Ok(flight);
        }
        Err(self.cutover.refuse(gate).into())
    }

    /// Takes note that a transaction which begins here has been open on other shards for so long: a younger gate
    /// counts it among those from before.
    pub(crate) fn note_open_elsewhere(&self, transaction_id: i64, milliseconds: i64) {
        if milliseconds <= 0 || !self.cutover.is_held() {
            return;
        }
        let open = Duration::from_millis(milliseconds.unsigned_abs());
        if let Some(gate) = lock(&self.cutover.held).as_mut()
            && gate.phase == Phase::Gated
            && gate.raised.is_none_or(|raised| open + DELIVERY >= raised.elapsed())
        {
            gate.open_elsewhere.insert(transaction_id);
        }
    }

    /// Raises the gate, or renews it. `others_follow`: other sources are gated at the same time, which the renewal says
    /// they are. Until then any transaction that is open on another shard counts as one from before: there it may be.
    ///
    /// Errors: FAILED_PRECONDITION when another cutover holds one, INVALID_ARGUMENT for a bad expression.
    pub fn gate(&self, id: &str, tables: Vec<String>, ttl: Duration, others_follow: bool) -> Result<Snapshot> {
        if id.is_empty() {
            return Err(VtError::new(Code::InvalidArgument, "a cutover has to have an id"));
        }
        let ttl = if ttl.is_zero() { DEFAULT_TTL } else { ttl.min(LONGEST) };
        {
            let mut held = lock(&self.cutover.held);
            match held.as_mut() {
                Some(gate) if gate.id == id => {
                    if gate.tables.written != tables {
                        let text = format!("cutover {id} holds the gate of other tables here");
                        return Err(VtError::new(Code::FailedPrecondition, text));
                    }
                    gate.ttl = ttl;
                    gate.raised.get_or_insert_with(Instant::now);
                    gate.renew(Duration::ZERO);
                }
                Some(gate) => return Err(other(gate)),
                None => {
                    let tables = Arc::new(Tables::new(tables)?);
                    self.cutover.progress.held.store(true, Ordering::SeqCst);
                    *held = Some(Held {
                        id: id.to_owned(),
                        tables,
                        phase: Phase::Gated,
                        since: SystemTime::now(),
                        raised: (!others_follow).then(Instant::now),
                        ttl,
                        expires: Some(Instant::now() + ttl),
                        newest_before: self.tx.newest_id(),
                        open_elsewhere: HashSet::new(),
                        refused: 0,
                        first_refusal: None,
                        killed: 0,
                        read_only: false,
                    });
                    self.cutover.gates.fetch_add(1, Ordering::Relaxed);
                    tracing::info!("cutover {id}: gated");
                    tokio::spawn(watch_ttl(self.weak(), id.to_owned()));
                }
            }
        }
        self.gated().filter(|gate| gate.id == id).ok_or_else(|| not_held(id))
    }

    /// The gate that is held now.
    pub fn gated(&self) -> Option<Snapshot> {
        if !self.cutover.is_held() {
            return None;
        }
        let held = lock(&self.cutover.held);
        let gate = held.as_ref()?;
        let (transactions, statements) = match gate.phase {
            Phase::Gated => self.left(gate),
            Phase::Drained | Phase::Fenced => (0, 0),
        };
        Some(Snapshot {
            id: gate.id.clone(),
            phase: gate.phase,
            tables: gate.tables.written.clone(),
            since: gate.since,
            ttl_left: gate.expires.map(|at| at.saturating_duration_since(Instant::now())),
            transactions,
            statements,
            refused: gate.refused,
            killed: gate.killed,
        })
    }

    /// Waits until no work from before the gate is left; what has not ended after `timeout` is killed.
    ///
    /// Errors: FAILED_PRECONDITION when `id` does not hold the gate, or no longer.
    pub async fn drain(&self, id: &str, timeout: Duration) -> Result<Drain> {
        let started = Instant::now();
        let deadline = started + timeout.min(LONGEST);
        {
            // The coordinator waits for us, and cannot renew its gate by the same call.
            let mut held = lock(&self.cutover.held);
            let gate = own(&mut held, id)?;
            let ttl = gate.ttl;
            gate.renew(timeout.min(LONGEST) + KILL_LIMIT + ttl);
        }
        let mut left = self.drained(id)?;
        while left > 0 {
            let changed = self.cutover.progress.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            left = self.drained(id)?;
            if left == 0 {
                break;
            }
            let now = Instant::now();
            if now >= deadline + KILL_LIMIT {
                break;
            }
            let again = if now < deadline {
                deadline
            } else {
                self.kill_left(id).await?;
                Instant::now() + KILL_AGAIN
            };
            // Either way the state itself is looked at.
            let _ = tokio::time::timeout_at(again, changed).await;
        }
        if left == 0 {
            left = self.wait_for_orphans(deadline.max(Instant::now()) + KILL_LIMIT).await?;
        }
        let mut held = lock(&self.cutover.held);
        let gate = own(&mut held, id)?;
        gate.renew(Duration::ZERO);
        self.cutover.renewed.notify_one();
        let drain = Drain { left, killed: gate.killed, waited: started.elapsed() };
        tracing::info!("cutover {id}: {left} left, {} killed after {:?}", drain.killed, drain.waited);
        Ok(drain)
    }

    /// Transactions and statements from before the gate that are left.
    ///
    /// In the order in which work moves on, so that none slips through between two looks: a statement that is not in
    /// flight any more has noted its table with its transaction, and a transaction that is not open any more is
    /// prepared, or over.
    fn left(&self, gate: &Held) -> (usize, usize) {
        let statements = self.cutover.in_the_way(&gate.tables).len();
        let open = self.tx.using(&gate.tables, |id| gate.is_from_before(id)).len();
        (open + self.twopc.using(&gate.tables), statements)
    }

    /// How much is left; with nothing left the door closes for the transactions from before, too.
    fn drained(&self, id: &str) -> Result<usize> {
        let mut held = lock(&self.cutover.held);
        let gate = own(&mut held, id)?;
        if gate.phase != Phase::Gated {
            return Ok(0);
        }
        let (transactions, statements) = self.left(gate);
        let left = transactions + statements;
        if left == 0 {
            gate.phase = Phase::Drained;
        }
        Ok(left)
    }

    /// Kills what is left, as far as it can be.
    async fn kill_left(&self, id: &str) -> Result<()> {
        let (transactions, texts) = {
            let mut held = lock(&self.cutover.held);
            let gate = own(&mut held, id)?;
            (self.tx.using(&gate.tables, |id| gate.is_from_before(id)), self.cutover.in_the_way(&gate.tables))
        };
        let mut killed = 0;
        for transaction in transactions {
            match self.tx.doom(transaction, KILLED).await {
                Doom::Over => {}
                Doom::RolledBack => killed += 1,
                Doom::Running { slot, first } => {
                    killed += i64::from(first);
                    self.live.kill(&slot, KillReason::Cutover);
                }
            }
        }
        killed += self.live.kill_texts(&texts, &KillReason::Cutover);
        if killed > 0 {
            tracing::warn!("cutover {id}: killed {killed} transactions and statements that did not end in time");
            self.cutover.killed.fetch_add(killed, Ordering::Relaxed);
            if let Ok(gate) = own(&mut lock(&self.cutover.held), id) {
                gate.killed += killed;
            }
        }
        Ok(())
    }

    /// Statements whose callers went away are killed without waiting; mysqld may still be at them. None
    /// can be added behind a drained gate.
    async fn wait_for_orphans(&self, deadline: Instant) -> Result<usize> {
        loop {
            let left = self.live.orphans(&self.config.app).await.map_err(VtError::from)?;
            if left == 0 || Instant::now() >= deadline {
                return Ok(left);
            }
            tokio::time::sleep(ORPHAN_PAUSE).await;
        }
    }

    /// From now on the gate does not end by itself. Whether mysqld was made read-only for it before.
    ///
    /// Errors: FAILED_PRECONDITION when `id` does not hold it, or it is not drained.
    pub fn fence(&self, id: &str) -> Result<bool> {
        let mut held = lock(&self.cutover.held);
        let gate = own(&mut held, id)?;
        if gate.phase == Phase::Gated {
            let text = format!("cutover {id} is not drained here");
            return Err(VtError::new(Code::FailedPrecondition, text));
        }
        gate.phase = Phase::Fenced;
        gate.expires = None;
        // What a gate before left read-only is this one's to undo.
        gate.read_only |= self.cutover.left_read_only.swap(false, Ordering::AcqRel);
        Ok(gate.read_only)
    }

    /// Remembers whether mysqld is read-only for the gate of `id`.
    pub fn note_read_only(&self, id: &str, on: bool) {
        if let Ok(gate) = own(&mut lock(&self.cutover.held), id) {
            gate.read_only = on;
        }
    }

    /// Whether mysqld is still read-only for a gate that ended by itself, and no later gate needs it so.
    pub fn left_read_only(&self) -> bool {
        self.cutover.left_read_only.load(Ordering::Acquire)
    }

    /// Says that mysqld is not left read-only any more.
    pub fn forget_left_read_only(&self) {
        self.cutover.left_read_only.store(false, Ordering::Release);
    }

    /// Whether mysqld is read-only for the gate of `id`.
    pub fn made_read_only(&self, id: &str) -> bool {
        own(&mut lock(&self.cutover.held), id).is_ok_and(|gate| gate.read_only)
    }

    /// Takes a fence back that could not be completed.
    pub fn unfence(&self, id: &str) {
        if let Ok(gate) = own(&mut lock(&self.cutover.held), id)
            && gate.phase == Phase::Fenced
        {
            gate.phase = Phase::Drained;
            gate.expires = Some(Instant::now() + gate.ttl);
            tokio::spawn(watch_ttl(self.weak(), id.to_owned()));
        }
    }

    /// Whether the gate of `id` is held.
    ///
    /// Errors: FAILED_PRECONDITION when another cutover holds it.
    pub fn holds(&self, id: &str) -> Result<bool> {
        match lock(&self.cutover.held).as_ref() {
            Some(gate) if gate.id == id => Ok(true),
            Some(gate) => Err(other(gate)),
            None => Ok(false),
        }
    }

    /// Lifts the gate. `None`: it was not held.
    ///
    /// Errors: FAILED_PRECONDITION when another cutover holds it.
    pub fn release(&self, id: &str) -> Result<Option<Ended>> {
        let ended = {
            let mut held = lock(&self.cutover.held);
            let ended = match held.as_ref() {
                None => return Ok(None),
                Some(gate) if gate.id != id => return Err(other(gate)),
                Some(gate) => Ended {
                    refused: gate.refused,
                    killed: gate.killed,
                    longest_stall: gate.first_refusal.map(|at| at.elapsed()).unwrap_or_default(),
                },
            };
            self.cutover.lift(&mut held);
            ended
        };
        tracing::info!("cutover {id}: released, {} requests were refused, {} killed", ended.refused, ended.killed);
        self.health.repeat();
        Ok(Some(ended))
    }

    /// Resolves after a gate ended by itself.
    pub async fn gate_lapsed(&self) {
        self.cutover.lapsed.notified().await;
    }
}

/// Ends the gate when its time is over. Ends with it, or when it is fenced.
async fn watch_ttl(core: Weak<Core>, id: String) {
    loop {
        let expires = {
            let Some(core) = core.upgrade() else { return };
            match core.cutover.expires(&id) {
                None => return,
                Some(expires) if expires > Instant::now() => expires,
                Some(_) => {
                    if core.cutover.lapse(&id) {
                        core.health.repeat();
                    }
                    continue;
                }
            }
        };
        let Some(cutover) = core.upgrade().map(|core| core.cutover.clone()) else { return };
        // Notified or not, the time is looked at again.
        let _ = tokio::time::timeout_at(expires, cutover.renewed.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use servenv::stats::Registry;
    use vtproto::query::Target;

    use super::*;
    use crate::queryservice::QueryServiceConfig;

    /// A query service that has no mysqld: what is let in is not run.
    fn server() -> TabletServer {
        let registry = Registry::new("vttablet");
        TabletServer::new(QueryServiceConfig::default(), Target::default(), &registry).expect("a service")
    }

    fn plan(server: &TabletServer, sql: &str) -> Arc<Plan> {
        Arc::new(server.complete(Shape::new(sql).expect("a statement")))
    }

    fn refused(server: &TabletServer, sql: &str) -> bool {
        match server.admit(&plan(server, sql), 0, false) {
            Ok(_) => false,
            Err(error) => {
                let ExecError::Vt(error) = error else { panic!("{error}") };
                assert!(tabletclient::cutover::is_refusal(&error), "{error}");
                true
            }
        }
    }

    fn tables(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    const TTL: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn what_touches_a_gated_table_waits() {
        let server = server();
        server.gate("one", tables(&["customer", "/^cor/"]), TTL, false).expect("free");
        for (sql, wanted) in [
            ("select * from customer", true),
            ("select * from product join corder", true),
            ("insert into product select * from customer", true),
            ("alter table corder add x int", true),
            ("call anything()", true),
            ("select * from product", false),
            ("select 1 from dual", false),
            ("set @x = 1", false),
        ] {
            assert_eq!(refused(&server, sql), wanted, "{sql}");
        }
        assert_eq!(server.gated().expect("held").refused, 5);
        server.release("one").expect("ours").expect("held");
        assert!(!refused(&server, "select * from customer"));
        server.gate("two", vec![], TTL, false).expect("free");
        assert!(refused(&server, "select * from product"));
        assert!(!refused(&server, "select 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_cutover_at_a_time_and_every_call_twice() {
        let server = server();
        let told = |outcome: Result<()>| outcome.expect_err("refused").message().to_owned();
        server.gate("one", tables(&["t"]), TTL, false).expect("free");
        server.gate("one", tables(&["t"]), TTL, false).expect("renewed");
        assert_eq!(told(server.gate("two", vec![], TTL, false).map(drop)), "cutover one holds the gate here");
        assert_eq!(
            told(server.gate("one", vec![], TTL, false).map(drop)),
            "cutover one holds the gate of other tables here"
        );
        assert_eq!(told(server.fence("one").map(drop)), "cutover one is not drained here");
        assert_eq!(told(server.release("two").map(drop)), "cutover one holds the gate here");
        assert!(server.release("one").expect("ours").is_some());
        assert!(server.release("one").expect("no gate").is_none());
        let gone = "cutover one holds no gate here: it was released or not renewed";
        assert_eq!(told(server.fence("one").map(drop)), gone);
        assert_eq!(told(server.drain("one", TTL).await.map(drop)), gone);
        assert_eq!(told(server.gate("", vec![], TTL, false).map(drop)), "a cutover has to have an id");
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_that_is_not_renewed_ends() {
        let server = server();
        server.gate("one", tables(&["t"]), TTL, false).expect("free");
        tokio::time::sleep(TTL * 2 / 3).await;
        server.gate("one", tables(&["t"]), TTL, false).expect("renewed");
        tokio::time::sleep(TTL * 2 / 3).await;
        assert!(refused(&server, "select * from t"), "renewed in time");
        server.gate_lapsed().await;
        assert!(!refused(&server, "select * from t"));
        assert!(server.gated().is_none());
        server.gate("two", tables(&["t"]), TTL, false).expect("free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fenced_gate_stays_and_a_failed_fence_does_not() {
        let server = server();
        server.gate("one", tables(&["t"]), TTL, false).expect("free");
        assert_eq!(server.drained("one").expect("held"), 0);
        server.fence("one").expect("drained");
        tokio::time::sleep(TTL * 100).await;
        assert_eq!(server.gated().expect("held").phase, Phase::Fenced);
        server.unfence("one");
        assert!(server.gated().expect("held").ttl_left.is_some());
        server.gate_lapsed().await;
        assert!(!refused(&server, "select * from t"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_that_ends_by_itself_leaves_word_that_mysqld_is_read_only() {
        let server = server();
        let fail_a_fence = async |id: &str| {
            server.gate(id, tables(&["t"]), TTL, false).expect("free");
            assert_eq!(server.drained(id).expect("held"), 0);
            server.fence(id).expect("drained");
            server.note_read_only(id, true);
            server.unfence(id);
        };
        fail_a_fence("one").await;
        assert!(!server.left_read_only(), "its coordinator may still release it");
        server.gate_lapsed().await;
        assert!(server.left_read_only());
        server.forget_left_read_only();

        // A younger gate that is fenced before anybody undid it takes it over.
        fail_a_fence("two").await;
        server.gate_lapsed().await;
        server.gate("three", tables(&["t"]), TTL, false).expect("free");
        assert_eq!(server.drained("three").expect("held"), 0);
        assert!(server.fence("three").expect("drained"), "it is for this one to undo");
        assert!(!server.left_read_only() && server.made_read_only("three"));
    }

    /// Another thread is caught in the middle of its look at the flights, while the first statement of an old transaction
    /// notes its table and ends.
    #[test]
    fn a_transaction_that_uses_its_first_gated_table_right_now_is_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _inside = runtime.enter();
        let server = server();
        let insert = plan(&server, "insert into t values (1)");
        let (id, used) = server.tx.open_without_connection(None);
        let elsewhere = server.admit(&plan(&server, "insert into u values (1)"), 0, false).expect("no gate");
        let statement = server.admit(&insert, id, false).expect("no gate");
        server.gate("one", tables(&["t"]), TTL, false).expect("free");
        assert!(elsewhere.lane < statement.lane, "the lane that is looked at first is not its own");
        let first_lane = lock(&server.cutover.lanes[elsewhere.lane]);
        let drain = std::thread::spawn({
            let server = server.clone();
            move || server.drained("one").expect("held")
        });
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while server.cutover.held.try_lock().is_ok() {
            assert!(std::time::Instant::now() < deadline, "the drain never looked");
        }
        // It looks now, and is at the latest stopped at the lane that is taken.
        std::thread::sleep(Duration::from_millis(50));
        used.note(&insert.shape);
        drop(statement);
        drop(first_lane);
        let left = drain.join().expect("no panic");
        assert!(left > 0, "its transaction is open and has used the table");
        assert_eq!(server.gated().expect("held").phase, Phase::Gated);
        assert_eq!(server.drained("one").expect("held"), 1);
    }

    #[tokio::test]
    async fn a_transaction_that_is_looked_at_again_while_it_ends_is_killed_once() {
        let server = server();
        let slot = server.live.register(1, "a pool".into());
        let (id, used) = server.tx.open_without_connection(Some(slot));
        used.note(&plan(&server, "insert into t values (1)").shape);
        server.gate("one", tables(&["t"]), TTL, false).expect("free");
        server.kill_left("one").await.expect("held");
        assert!(server.tx.ends_with_its_statement(id));
        server.kill_left("one").await.expect("held");
        assert_eq!(server.gated().expect("held").killed, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_waits_for_statements_and_not_for_streams() {
        let server = server();
        let (write, read) = (plan(&server, "insert into t values (1)"), plan(&server, "select * from t"));
        let other = server.admit(&plan(&server, "insert into u values (1)"), 0, false).expect("no gate");
        let running = server.admit(&write, 0, false).expect("no gate");
        let stream = server.admit(&read, 0, true).expect("no gate");
        let large = server.admit(&read, 0, false).expect("no gate");
        server.gate("one", tables(&["t"]), TTL, false).expect("free");
        assert_eq!(server.gated().expect("held").statements, 2);
        let progress = server.cutover.progress.changed.notified();
        large.streams();
        progress.await;
        assert_eq!(server.drained("one").expect("held"), 1);
        let progress = server.cutover.progress.changed.notified();
        drop(running);
        progress.await;
        assert_eq!(server.drained("one").expect("held"), 0);
        drop((other, stream, large));
    }
}
