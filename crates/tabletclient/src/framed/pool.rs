//! The connections to one tablet: opened when needed, again after a loss, more of them when one is not enough.
//!
//! Owns: which connection a call takes, and when to try again after a failure. Invariants: while the tablet cannot be reached,
//! attempts are spaced by a growing pause, and calls in between fail with the last error at once; a peer that does not speak
//! the protocol is asked again only after a while. One that spoke it and is silent cannot be reached; silent again, it counts
//! as one that does not speak it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use rand::Rng;
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, time::Instant};
use vterrors::{Code, VtError};
use vtproto::framed::Hello;

use super::{
    connection::{Connection, Settings},
    hello::{self, Refused},
    tls::ClientTls,
};
use crate::grpc;

/// Connections for calls. One is cheapest, because it joins the writes of all callers.
const CALL_SLOTS: usize = 4;
/// Calls under way on a connection above which another is used.
const BUSY: usize = 256;
/// First and longest pause after a failed attempt to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a peer without the protocol is left alone; doubled each time, up to the second.
const ASK_AGAIN: Duration = Duration::from_secs(30);
const ASK_AGAIN_LONGEST: Duration = Duration::from_secs(600);

/// Where and how to connect.
pub(super) struct Target {
    pub address: Arc<str>,
    pub tls: Option<ClientTls>,
    pub hello: Hello,
    pub connect_timeout: Duration,
    pub settings: Settings,
}

/// What became of looking for a connection.
pub(super) enum Found {
    Connection(Arc<Connection>),
    /// The tablet speaks gRPC only.
    NotSpoken(Arc<str>),
}

/// All connections to one tablet.
pub(super) struct Pool {
    target: Target,
    calls: [Slot; CALL_SLOTS],
    /// Streams of rows have one of their own, so that they stand in nobody's way.
    streams: Slot,
    strangers: Mutex<Strangers>,
    /// There is a stranger: asked on the hot path, so not behind the lock.
    estranged: AtomicBool,
    /// The peer has spoken the protocol, and has not been silent since.
    spoken: AtomicBool,
}

#[derive(Default)]
struct Slot {
    current: ArcSwapOption<Connection>,
    /// Held while connecting: the others wait for the outcome.
    attempts: tokio::sync::Mutex<Attempts>,
    /// Somebody connects in the background.
    busy: AtomicBool,
}

#[derive(Default)]
struct Attempts {
    failed: Option<(VtError, Instant)>,
    pause: Duration,
}

/// When a peer showed that it does not know the protocol, and why we think so.
#[derive(Default)]
struct Strangers {
    why: Option<Arc<str>>,
    ask_again: Option<Instant>,
    pause: Duration,
}

enum Failed {
    NotSpoken(String),
    /// The tablet cannot be reached, or refuses us.
    Error(VtError),
}

impl Slot {
    fn open(&self) -> Option<Arc<Connection>> {
        let current = self.current.load();
        current.as_ref().filter(|connection| connection.is_open()).cloned()
    }
}

impl Pool {
    pub fn new(target: Target) -> Self {
        Self {
            target,
            calls: Default::default(),
            streams: Slot::default(),
            strangers: Mutex::default(),
            estranged: AtomicBool::new(false),
            spoken: AtomicBool::new(false),
        }
    }

    /// A connection for a call.
    pub async fn for_call(self: &Arc<Self>) -> Result<Found, VtError> {
        let Some(first) = self.calls[0].open() else { return self.connect(0).await };
        if first.load() < BUSY {
            return Ok(Found::Connection(first));
        }
        // The least busy one, and one more for the next caller when all are busy.
        let mut best = first;
        for (number, slot) in self.calls.iter().enumerate().skip(1) {
            match slot.open() {
                Some(other) if other.load() < BUSY => return Ok(Found::Connection(other)),
                Some(other) if other.load() < best.load() => best = other,
                Some(_) => {}
                None => {
                    self.connect_in_background(number);
                    break;
                }
            }
        }
        Ok(Found::Connection(best))
    }

    /// A connection for a stream of rows.
    pub async fn for_stream(self: &Arc<Self>) -> Result<Found, VtError> {
        match self.streams.open() {
            Some(connection) => Ok(Found::Connection(connection)),
            None => self.connect(CALL_SLOTS).await,
        }
    }

    /// Finds out at once whether a peer that did not speak the protocol does so now, without making anybody wait.
    pub fn ask_again(self: &Arc<Self>) {
        if self.estranged.load(Ordering::Relaxed) {
            self.strangers().ask_again = None;
            self.connect_in_background(0);
        }
    }

    fn strangers(&self) -> std::sync::MutexGuard<'_, Strangers> {
        // Changed in single steps.
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the peer is known not to speak the protocol. Asks again in the background when that is long ago.
    fn stranger(self: &Arc<Self>) -> Option<Arc<str>> {
        if !self.estranged.load(Ordering::Relaxed) {
            return None;
        }
        let strangers = self.strangers();
        let why = strangers.why.clone()?;
        let due = strangers.ask_again.is_none_or(|when| Instant::now() >= when);
        drop(strangers);
        if due {
            self.connect_in_background(0);
        }
        Some(why)
    }

    fn connect_in_background(self: &Arc<Self>, number: usize) {
        if self.slot(number).busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let pool = self.clone();
        tokio::spawn(async move {
            // What it finds, others see; what fails shows in the next call.
            let _ = pool.attempt(number).await;
            pool.slot(number).busy.store(false, Ordering::Release);
        });
    }

    fn slot(&self, number: usize) -> &Slot {
        self.calls.get(number).unwrap_or(&self.streams)
    }

    async fn connect(self: &Arc<Self>, number: usize) -> Result<Found, VtError> {
        if let Some(why) = self.stranger() {
            return Ok(Found::NotSpoken(why));
        }
        match self.attempt(number).await {
            Ok(connection) => Ok(Found::Connection(connection)),
            Err(Failed::NotSpoken(why)) => Ok(Found::NotSpoken(why.into())),
            Err(Failed::Error(error)) => Err(error),
        }
    }

    async fn attempt(&self, number: usize) -> Result<Arc<Connection>, Failed> {
        let slot = self.slot(number);
        let mut attempts = slot.attempts.lock().await;
        // Whoever was here before us may have connected, or failed.
        if let Some(connection) = slot.open() {
            self.speaks();
            return Ok(connection);
        }
        if let Some((error, until)) = &attempts.failed
            && Instant::now() < *until
        {
            return Err(Failed::Error(error.clone()));
        }
        match self.dial().await {
            Ok(connection) => {
                *attempts = Attempts::default();
                self.speaks();
                let connection = Arc::new(connection);
                slot.current.store(Some(connection.clone()));
                Ok(connection)
            }
            Err(Failed::NotSpoken(why)) => {
                let mut strangers = self.strangers();
                if strangers.why.is_none() {
                    let address = &self.target.address;
                    tracing::info!("no framed transport to {address} ({why}): using gRPC");
                }
                strangers.pause = (strangers.pause * 2).clamp(ASK_AGAIN, ASK_AGAIN_LONGEST);
                strangers.ask_again = Some(Instant::now() + strangers.pause);
                strangers.why = Some(why.as_str().into());
                self.estranged.store(true, Ordering::Relaxed);
                Err(Failed::NotSpoken(why))
            }
            Err(Failed::Error(error)) => {
                attempts.pause = (attempts.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                // Spread, so that many gates do not come back at the same moment.
                let pause = attempts.pause.mul_f64(rand::rng().random_range(0.5..1.0));
                attempts.failed = Some((error.clone(), Instant::now() + pause));
                Err(Failed::Error(error))
            }
        }
    }

    /// The peer speaks the protocol.
    fn speaks(&self) {
        if self.estranged.swap(false, Ordering::Relaxed) {
            tracing::info!("the framed transport to {} again", self.target.address);
            *self.strangers() = Strangers::default();
        }
        self.spoken.store(true, Ordering::Relaxed);
    }

    /// A peer was silent that had spoken before it was dialled. Silent once more it may be another one, unless it still
    /// speaks on another connection.
    fn hangs(&self) {
        let open = self.calls.iter().chain([&self.streams]).any(|slot| slot.open().is_some());
        self.spoken.store(open, Ordering::Relaxed);
    }

    async fn dial(&self) -> Result<Connection, Failed> {
        let spoken = self.spoken.load(Ordering::Relaxed);
        let address = &self.target.address;
        let unreachable = |text: &dyn std::fmt::Display| {
            Failed::Error(grpc::local_error(Code::Unavailable, &format!("{} {text}", grpc::NEVER_SENT)))
        };
        let limit = self.target.connect_timeout;
        let io = match tokio::time::timeout(limit, TcpStream::connect(&**address)).await {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => return Err(unreachable(&format_args!("{address}: {error}"))),
            Err(_) => return Err(unreachable(&format_args!("{address}: no connection within {limit:?}"))),
        };
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(10))
            .with_retries(3);
        let socket = SockRef::from(&io);
        socket
            .set_tcp_nodelay(true)
            .and_then(|()| socket.set_tcp_keepalive(&keepalive))
            .map_err(|error| unreachable(&format_args!("{address}: {error}")))?;
        let settings = self.target.settings.clone();
        let refused = |refused| match refused {
            Refused::NotSpoken(why) => Failed::NotSpoken(why),
            Refused::Silent(why) if spoken => {
                self.hangs();
                unreachable(&format_args!("{address}: {why}"))
            }
            Refused::Silent(why) => Failed::NotSpoken(why),
            Refused::Error(error) => Failed::Error(grpc::local_error(error.code(), error.message())),
        };
        let Some(tls) = &self.target.tls else {
            let mut io = io;
            let greeted = hello::greet(&mut io, &self.target.hello).await.map_err(refused)?;
            return Ok(Connection::new(io, greeted, settings, address.clone()));
        };
        let connect = tls.connector.connect(tls.name.clone(), io);
        let mut io = match tokio::time::timeout(limit, connect).await {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => return Err(unreachable(&format_args!("{address}: TLS: {error}"))),
            Err(_) => return Err(unreachable(&format_args!("{address}: no TLS within {limit:?}"))),
        };
        let greeted = hello::greet(&mut io, &self.target.hello).await.map_err(refused)?;
        Ok(Connection::new(io, greeted, settings, address.clone()))
    }
}
