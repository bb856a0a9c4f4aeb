//! How much one framed connection can make a tablet hold.
//!
//! Over pipes in memory and in paused time, which moves on only when nobody has anything left to do: what has not happened
//! after [`settled`] does not happen by itself.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use prost::Message;
use support::{
    FakeTablet, allow_all,
    raw::{bytes, hello, part, read_frame, request},
};
use tabletclient::framed::{self, Frame, Kind, MAX_PAYLOAD, ServeOptions};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::Mutex,
};
use tokio_util::sync::CancellationToken;
use vtproto::{
    query::{BeginExecuteRequest, BeginExecuteResponse, ExecuteRequest},
    vtrpc::{Code, RpcError},
};

const MIB: usize = 1 << 20;
const EXECUTE: u8 = 1;
const BEGIN_EXECUTE: u8 = 7;
const UNKNOWN: u8 = 99;

/// What arrives, and what waits to leave, is bounded for the whole process.
static ARRIVING: Mutex<()> = Mutex::const_new(());
static LEAVING: Mutex<()> = Mutex::const_new(());

async fn settled() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// A connection past its greeting.
struct Raw {
    io: DuplexStream,
    input: BytesMut,
}

impl Raw {
    async fn to(fake: &Arc<FakeTablet>) -> Self {
        let (io, far) = tokio::io::duplex(MAX_PAYLOAD);
        let options = ServeOptions { max_message_size: 128 * MIB, ..allow_all(CancellationToken::new()) };
        tokio::spawn(framed::serve(far, fake.clone(), options));
        let mut raw = Self { io, input: BytesMut::new() };
        raw.send(&hello(1, 1)).await;
        assert_eq!(raw.next().await.map(|frame| frame.kind), Some(Kind::Welcome));
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.expect("sent");
    }

    /// `None` at the end of the connection.
    async fn next(&mut self) -> Option<Frame> {
        let next = read_frame(&mut self.io, &mut self.input);
        tokio::time::timeout(Duration::from_secs(1), next).await.expect("a frame, or the end")
    }

    /// The next message, in one piece.
    async fn whole(&mut self) -> Frame {
        let mut whole = BytesMut::new();
        loop {
            let frame = self.next().await.expect("still open");
            whole.extend_from_slice(&frame.payload);
            if !frame.more {
                return Frame { payload: whole.freeze(), ..frame };
            }
        }
    }

    async fn is_alive(&mut self) {
        self.send(&bytes(Kind::Ping, 5, &[])).await;
        assert_eq!(self.next().await.map(|frame| (frame.kind, frame.id)), Some((Kind::Pong, 5)));
    }

    /// The ends of so many calls: whether each has its result, or why not. Their messages may come in turns.
    async fn ends(&mut self, count: usize) -> Vec<Result<(), RpcError>> {
        let mut ends = Vec::new();
        while ends.len() < count {
            let frame = self.next().await.expect("still open");
            match frame.kind {
                Kind::Response if frame.more => {}
                Kind::Response => ends.push(Ok(())),
                Kind::Error => ends.push(Err(RpcError::decode(frame.payload).expect("an error"))),
                kind => panic!("{kind:?}"),
            }
        }
        ends
    }
}

/// Whoever does not read what is answered is not read from, and goes on where it stopped once it reads.
async fn flood(what: &str, frame: impl Fn(u64) -> Vec<u8>, count: u64) {
    let Raw { io, mut input } = Raw::to(&FakeTablet::new("100")).await;
    let (mut from, mut to) = tokio::io::split(io);
    let frames: Vec<u8> = (0..count).flat_map(frame).collect();
    let (all, sent) = (frames.len(), Arc::new(AtomicUsize::new(0)));
    let counted = sent.clone();
    let writer = tokio::spawn(async move {
        for piece in frames.chunks(8192) {
            to.write_all(piece).await.expect("sent");
            counted.fetch_add(piece.len(), Ordering::SeqCst);
        }
        // Not closed before everything is answered.
        to
    });
    settled().await;
    let taken = sent.load(Ordering::SeqCst);
    assert!(taken < all, "{what}: all {all} bytes were taken");
    for _ in 0..count {
        let frame = read_frame(&mut from, &mut input).await.expect("an answer");
        assert!(matches!(frame.kind, Kind::Pong | Kind::Error), "{what}: {:?}", frame.kind);
    }
    writer.await.expect("the rest was taken");
}

#[tokio::test(start_paused = true)]
async fn pongs_that_nobody_reads_stop_the_reading() {
    flood("pings", |id| bytes(Kind::Ping, id, &[]), 1_400_000).await;
}

#[tokio::test(start_paused = true)]
async fn errors_that_nobody_reads_stop_the_reading() {
    flood("unknown methods", |id| request(id, UNKNOWN, &ExecuteRequest::default()), 400_000).await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_only_begin_end_the_connection() {
    let _alone = ARRIVING.lock().await;
    let fake = FakeTablet::new("100");
    // A second connection has as much room: the first gave all of it back.
    for _ in 0..2 {
        let mut raw = Raw::to(&fake).await;
        for id in 0..50_000 {
            raw.send(&part(Kind::Request, id, &[], true)).await;
        }
        raw.is_alive().await;
        // One that is given up makes room for one.
        raw.send(&bytes(Kind::Cancel, 7, &[])).await;
        raw.send(&part(Kind::Request, 50_000, &[], true)).await;
        raw.is_alive().await;
        raw.send(&part(Kind::Request, 50_001, &[], true)).await;
        assert_eq!(raw.next().await, None, "closed");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_do_not_end_are_bounded_over_all_connections() {
    let _alone = ARRIVING.lock().await;
    let fake = FakeTablet::new("100");
    let hundred = async || {
        let mut raw = Raw::to(&fake).await;
        let piece = part(Kind::Request, 1, &vec![EXECUTE; MAX_PAYLOAD], true);
        for _ in 0..100 * MIB / MAX_PAYLOAD {
            if raw.io.write_all(&piece).await.is_err() {
                break;
            }
        }
        raw
    };
    let (mut one, mut two) = (hundred().await, hundred().await);
    assert_eq!(hundred().await.next().await, None, "closed");
    one.is_alive().await;
    two.is_alive().await;
    drop(one);
    settled().await;
    hundred().await.is_alive().await;
}

/// While results lie there unread, no call begins; they begin when the results are read, and none fails.
#[tokio::test(start_paused = true)]
async fn results_that_nobody_reads_hold_back_calls() {
    let _alone = LEAVING.lock().await;
    let fake = FakeTablet::new(&"x".repeat(4 * MIB));
    let mut raw = Raw::to(&fake).await;
    for id in 0..40 {
        raw.send(&request(id, EXECUTE, &ExecuteRequest::default())).await;
        settled().await;
    }
    // 64 MiB, with the one that passes them and the one that is on its way.
    assert!((16..=18).contains(&fake.calls()), "{}", fake.calls());
    // Others are not concerned.
    let mut other = Raw::to(&fake).await;
    other.send(&request(1, EXECUTE, &ExecuteRequest::default())).await;
    assert_eq!(other.whole().await.kind, Kind::Response);
    let calls = fake.calls();
    assert_eq!(raw.ends(40).await, vec![Ok(()); 40]);
    assert_eq!(fake.calls() - calls, 40 - (calls - 1));
    raw.is_alive().await;
}

/// Calls that have begun cannot be held back: of what they bring, so much is kept.
#[tokio::test(start_paused = true)]
async fn results_of_calls_under_way_are_given_up_when_too_many_wait() {
    let _alone = LEAVING.lock().await;
    let fake = FakeTablet::new(&"x".repeat(4 * MIB));
    fake.stuck.send_replace(true);
    let mut raw = Raw::to(&fake).await;
    for id in 0..100 {
        raw.send(&request(id, EXECUTE, &ExecuteRequest::default())).await;
    }
    settled().await;
    assert_eq!(fake.calls(), 100, "none waits for another: it could be for a lock that the other frees");
    fake.stuck.send_replace(false);
    settled().await;
    let ends = raw.ends(100).await;
    let kept = ends.iter().filter(|end| end.is_ok()).count();
    assert!((64..=66).contains(&kept), "256 MiB: {kept}");
    for error in ends.iter().filter_map(|end| end.as_ref().err()) {
        assert_eq!(error.code(), Code::ResourceExhausted);
    }
    raw.is_alive().await;
}

/// The transaction that a call began is known to the client though the result was given up.
#[tokio::test(start_paused = true)]
async fn a_transaction_is_told_without_its_result() {
    let _alone = LEAVING.lock().await;
    let fake = FakeTablet::new(&"x".repeat(100 * MIB));
    fake.stuck.send_replace(true);
    let mut raw = Raw::to(&fake).await;
    for id in 0..4 {
        raw.send(&request(id, BEGIN_EXECUTE, &BeginExecuteRequest::default())).await;
    }
    settled().await;
    fake.stuck.send_replace(false);
    settled().await;
    // Short, so it leaves before the rest of the long ones.
    let short = loop {
        let frame = raw.next().await.expect("still open");
        if !frame.more {
            break BeginExecuteResponse::decode(frame.payload).expect("an answer");
        }
    };
    assert!(short.transaction_id > 0);
    assert_eq!(short.result, None);
    assert_eq!(short.error.expect("why").code(), Code::ResourceExhausted);
    assert_eq!(raw.ends(3).await, vec![Ok(()); 3]);
}

#[tokio::test(start_paused = true)]
async fn a_result_larger_than_may_wait_passes() {
    let _alone = LEAVING.lock().await;
    let fake = FakeTablet::new(&"x".repeat(100 * MIB));
    let mut raw = Raw::to(&fake).await;
    for id in 0..2 {
        raw.send(&request(id, EXECUTE, &ExecuteRequest::default())).await;
        settled().await;
    }
    assert_eq!(fake.calls(), 1);
    assert_eq!(raw.ends(2).await, vec![Ok(()); 2]);
    raw.is_alive().await;
}
