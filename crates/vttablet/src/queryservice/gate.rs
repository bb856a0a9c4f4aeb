//! Who gets in: the state of the query service, its target, and the requests that are inside.
//!
//! Invariants: a request is counted before the state is looked at, so that whoever changes the state
//! and then waits for zero has waited for every request that saw the old state. The checks and their
//! texts are those of Vitess.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use vterrors::{Code, VtError};
use vtproto::query::Target;
use vtproto::topodata::TabletType;

use super::cutover::Cutover;

/// Where the query service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No connection to mysqld yet, or none any more.
    NotConnected,
    /// Connected, but not open.
    NotServing,
    Serving,
    /// On the way to serving.
    Transitioning,
    /// Lets open transactions end; nothing new.
    ShuttingDown,
}

impl State {
    /// The variable `TabletStateName`, and what errors say.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotConnected | Self::NotServing | Self::Transitioning => "NOT_SERVING",
            Self::Serving => "SERVING",
            Self::ShuttingDown => "SHUTTING_DOWN",
        }
    }

    /// More of it, for the status page; empty while serving.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NotConnected => "Not Connected",
            Self::NotServing => "Not Serving",
            Self::Serving => "",
            Self::Transitioning => "Transitioning",
            Self::ShuttingDown => "Shutting Down",
        }
    }

    /// The variable `TabletState`.
    pub fn number(self) -> i64 {
        match self {
            Self::NotConnected => 0,
            Self::NotServing => 1,
            Self::Serving => 2,
            Self::Transitioning => 3,
            Self::ShuttingDown => 4,
        }
    }
}

/// State and target together: they change together.
#[derive(Debug, Clone)]
pub struct Current {
    pub state: State,
    pub target: Target,
    /// Types served besides the target's, while a promotion is under way.
    pub also_allow: Vec<TabletType>,
}

/// See the module.
#[derive(Debug)]
pub struct Gate {
    current: ArcSwap<Current>,
    inside: AtomicI64,
    empty: Notify,
    cutover: Arc<Cutover>,
}

/// A request that is inside; dropping it lets it out.
#[derive(Debug)]
pub struct Request {
    gate: Arc<Gate>,
}

impl Gate {
    pub fn new(target: Target, cutover: Arc<Cutover>) -> Arc<Self> {
        let current = Current { state: State::NotConnected, target, also_allow: Vec::new() };
        let (current, inside, empty) = (ArcSwap::from_pointee(current), AtomicI64::new(0), Notify::new());
        Arc::new(Self { current, inside, empty, cutover })
    }

    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    pub fn set(&self, current: Current) {
        let before = self.current.swap(Arc::new(current));
        let now = self.current.load();
        if before.state != now.state {
            let (from, to) = (before.state, now.state);
            tracing::info!("query service: {} ({}) -> {} ({})", from.name(), from.detail(), to.name(), to.detail());
        }
    }

    /// Only the state changes.
    pub fn set_state(&self, state: State) {
        let current = self.current.load();
        self.set(Current { state, target: current.target.clone(), also_allow: current.also_allow.clone() });
    }

    /// Lets a request in. `ending`: it belongs to an open transaction, which may go on while serving stops.
    pub fn enter(self: &Arc<Self>, target: Option<&Target>, ending: bool) -> Result<Request, VtError> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let request = Request { gate: self.clone() };
        let current = self.current.load();
        let open = current.state == State::Serving || (ending && current.state == State::ShuttingDown);
        if !open {
            // Who waits for a cutover goes on waiting, though serving has stopped behind it.
            if !ending && let Some(refusal) = self.cutover.refuse_stopped() {
                return Err(refusal);
            }
            let text = format!("operation not allowed in state {}", current.state.name());
            return Err(VtError::new(Code::FailedPrecondition, text));
        }
        check_target(&current, target)?;
        Ok(request)
    }

    pub fn inside(&self) -> i64 {
        self.inside.load(Ordering::SeqCst)
    }

    /// Waits until nobody is inside.
    pub async fn wait_empty(&self) {
        loop {
            let emptied = self.empty.notified();
            if self.inside() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// Whether a request means this tablet.
pub fn check_target(current: &Current, target: Option<&Target>) -> Result<(), VtError> {
    let Some(target) = target else { return Err(VtError::new(Code::InvalidArgument, "No target")) };
    if target.keyspace != current.target.keyspace {
        return Err(VtError::new(Code::InvalidArgument, format!("invalid keyspace {}", target.keyspace)));
    }
    if target.shard != current.target.shard {
        return Err(VtError::new(Code::InvalidArgument, format!("invalid shard {}", target.shard)));
    }
    let (asked, own) = (target.tablet_type(), current.target.tablet_type());
    if asked != own && !current.also_allow.contains(&asked) {
        let others: Vec<&str> = current.also_allow.iter().map(TabletType::as_str_name).collect();
        let text = format!(
            "invalid tablet type: {}, want: {} or [{}]",
            asked.as_str_name(),
            own.as_str_name(),
            others.join(" ")
        );
        return Err(VtError::new(Code::FailedPrecondition, text));
    }
    Ok(())
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.gate.inside.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.gate.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(keyspace: &str, shard: &str, tablet_type: TabletType) -> Target {
        Target { keyspace: keyspace.into(), shard: shard.into(), tablet_type: tablet_type.into(), ..Target::default() }
    }

    fn serving() -> Arc<Gate> {
        let cutover = Cutover::new(Arc::default());
        let gate = Gate::new(target("commerce", "0", TabletType::Replica), cutover);
        gate.set_state(State::Serving);
        gate
    }

    #[test]
    fn the_wrong_door_is_named() {
        let gate = serving();
        for (asked, code, text) in [
            (None, Code::InvalidArgument, "No target"),
            (Some(target("x", "0", TabletType::Replica)), Code::InvalidArgument, "invalid keyspace x"),
            (Some(target("commerce", "-80", TabletType::Replica)), Code::InvalidArgument, "invalid shard -80"),
            (
                Some(target("commerce", "0", TabletType::Master)),
                Code::FailedPrecondition,
                "invalid tablet type: MASTER, want: REPLICA or []",
            ),
        ] {
            let refused = gate.enter(asked.as_ref(), false).expect_err(text);
            assert_eq!((refused.code(), refused.message()), (code, text));
        }
        let right = target("commerce", "0", TabletType::Replica);
        let request = gate.enter(Some(&right), false).expect("let in");
        assert_eq!(gate.inside(), 1);
        drop(request);
        assert_eq!(gate.inside(), 0);
    }

    #[test]
    fn only_what_ends_gets_in_while_shutting_down() {
        let gate = serving();
        let right = target("commerce", "0", TabletType::Replica);
        gate.set_state(State::ShuttingDown);
        assert!(gate.enter(Some(&right), true).is_ok());
        let refused = gate.enter(Some(&right), false).expect_err("closed");
        assert_eq!(refused.message(), "operation not allowed in state SHUTTING_DOWN");
        gate.set_state(State::NotServing);
        let refused = gate.enter(Some(&right), true).expect_err("closed");
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::FailedPrecondition, "operation not allowed in state NOT_SERVING")
        );
    }

    #[tokio::test]
    async fn draining_waits_for_those_inside() {
        let gate = serving();
        let right = target("commerce", "0", TabletType::Replica);
        let request = gate.enter(Some(&right), false).expect("let in");
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.wait_empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(request);
        waiting.await.expect("drained");
    }
}
