//! Results in pieces: the first of them on, a call has the flow control and the end of a stream.

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
    FakeTablet, Transport, listen,
    raw::{bytes, read_frame},
    until,
};
use tabletclient::{
    RowSink,
    framed::{self, Kind, MAGIC},
    grpc::DialOptions,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};
use vterrors::{Code, Result, VtError};
use vtproto::{
    framed::Welcome,
    query::{BeginExecuteRequest, ExecuteRequest, ExecuteResponse, QueryResult},
};

/// Takes as many pieces as there are permits.
struct Reader {
    permits: Semaphore,
    taken: AtomicUsize,
    /// Does not take any piece.
    broken: bool,
}

impl Reader {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self { permits: Semaphore::new(permits), taken: AtomicUsize::new(0), broken: false })
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl RowSink for Reader {
    async fn piece(&self, piece: QueryResult) -> Result<()> {
        if self.broken {
            return Err(VtError::new(Code::Canceled, "the reader is gone"));
        }
        self.permits.acquire().await.expect("open").forget();
        let number = self.taken.fetch_add(1, Ordering::SeqCst);
        assert!(piece.raw_rows.len() == 200_000 && piece.raw_rows[0] == number as u8, "in order");
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.taken() > 0
    }
}

#[tokio::test]
async fn pieces_come_before_their_result_and_only_over_framed_connections() {
    for transport in Transport::ALL {
        let fake = FakeTablet::new("100");
        let served = transport.serve(fake.clone()).await;
        let client = transport.dial(&served.tablet, &DialOptions::default()).expect("dial");
        let reader = Reader::new(usize::MAX >> 3);
        let none = client.execute_rows(ExecuteRequest::default(), &*reader).await.expect("a result");
        assert!(none.rows.len() == 1 && reader.taken() == 0);
        fake.pieces.store(40, Ordering::SeqCst);
        let result = client.execute_rows(ExecuteRequest::default(), &*reader).await.expect("the end of a result");
        let come = if transport == Transport::Framed { 40 } else { 0 };
        assert_eq!((result.rows.len(), reader.taken()), (1, come));
        let reader = Reader::new(usize::MAX >> 3);
        let begun = client.begin_execute_rows(BeginExecuteRequest::default(), &*reader).await;
        assert_eq!((begun.transaction_id, begun.result.is_ok(), reader.taken()), (1, true, come));
        // Whoever wants it whole gets it so.
        assert_eq!(client.execute(ExecuteRequest::default()).await.expect("a result").rows.len(), 1);
    }
}

#[tokio::test]
async fn a_reader_that_stops_holds_back_its_own_call_and_no_other() {
    let fake = FakeTablet::new("100");
    let served = Transport::Framed.serve(fake.clone()).await;
    let client = Transport::Framed.dial(&served.tablet, &DialOptions::default()).expect("dial");
    fake.pieces.store(100, Ordering::SeqCst);
    let reader = Reader::new(10);
    let call = {
        let (client, reader) = (client.clone(), reader.clone());
        tokio::spawn(async move { client.execute_rows(ExecuteRequest::default(), &*reader).await })
    };
    until("ten are read", || reader.taken() == 10).await;
    for _ in 0..200 {
        client.execute(ExecuteRequest::default()).await.expect("answered");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The window of 512 KiB is passed by one piece at most; half of it may be credit that is not returned yet.
    let given = fake.taken.load(Ordering::SeqCst);
    assert!((10..=16).contains(&given), "{given} pieces were given away");
    reader.permits.add_permits(90);
    assert_eq!(call.await.expect("no panic").expect("the end").rows.len(), 1);
    assert_eq!(reader.taken(), 100);
}

#[tokio::test]
async fn an_error_behind_pieces_comes_after_them() {
    let fake = FakeTablet::new("100");
    let served = Transport::Framed.serve(fake.clone()).await;
    let client = Transport::Framed.dial(&served.tablet, &DialOptions::default()).expect("dial");
    fake.pieces.store(20, Ordering::SeqCst);
    fake.fail_next(Code::ResourceExhausted, "Row count exceeded 10000");
    let reader = Reader::new(100);
    let error = client.execute_rows(ExecuteRequest::default(), &*reader).await.expect_err("too many");
    assert_eq!((error.code(), reader.taken()), (Code::ResourceExhausted, 20));
    fake.fail_next(Code::Aborted, "a deadlock");
    let begun = client.begin_execute_rows(BeginExecuteRequest::default(), &*Reader::new(100)).await;
    assert_eq!(begun.result.expect_err("failed").code(), Code::Aborted);
    assert_eq!(begun.transaction_id, 1, "it is open all the same");
}

#[tokio::test]
async fn a_call_that_nobody_reads_is_ended() {
    let fake = FakeTablet::new("100");
    let served = Transport::Framed.serve(fake.clone()).await;
    let client = Transport::Framed.dial(&served.tablet, &DialOptions::default()).expect("dial");
    fake.pieces.store(100, Ordering::SeqCst);
    let reader = Reader::new(3);
    let call = {
        let (client, reader) = (client.clone(), reader.clone());
        tokio::spawn(async move { client.execute_rows(ExecuteRequest::default(), &*reader).await })
    };
    until("three are read", || reader.taken() == 3).await;
    call.abort();
    until("the tablet's part is dropped", || fake.dropped.load(Ordering::SeqCst) == 1).await;
    let gone = Reader { permits: Semaphore::new(0), taken: AtomicUsize::new(0), broken: true };
    let error = client.execute_rows(ExecuteRequest::default(), &gone).await.expect_err("gone");
    assert_eq!(error.message(), "the reader is gone");
    until("the tablet's part is dropped", || fake.dropped.load(Ordering::SeqCst) == 2).await;
    let options = DialOptions { call_timeout: Some(Duration::from_millis(50)), ..Default::default() };
    let hasty = Transport::Framed.dial(&served.tablet, &options).expect("dial");
    let error = hasty.execute_rows(ExecuteRequest::default(), &*Reader::new(3)).await.expect_err("too slow");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    until("the tablet's part is dropped", || fake.dropped.load(Ordering::SeqCst) == 3).await;
}

/// Version 1 has neither the methods nor items in answer to a call.
#[tokio::test]
async fn an_older_tablet_is_asked_for_the_whole() {
    let (listener, tablet) = listen().await;
    let server = tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.expect("a client");
        let mut magic = [0; MAGIC.len()];
        io.read_exact(&mut magic).await.expect("the magic");
        let mut input = BytesMut::new();
        let hello = read_frame(&mut io, &mut input).await.expect("a Hello");
        assert_eq!(hello.kind, Kind::Hello);
        let welcome = Welcome { version: 1, error: None };
        io.write_all(&bytes(Kind::Welcome, 0, &welcome.encode_to_vec())).await.expect("sent");
        let request = read_frame(&mut io, &mut input).await.expect("a request");
        let answer = ExecuteResponse { result: Some(support::one_row("old")) };
        io.write_all(&bytes(Kind::Response, request.id, &answer.encode_to_vec())).await.expect("sent");
        (request.payload[0], io)
    });
    let client = framed::dial_only(&tablet, &DialOptions::default()).expect("dial");
    let result = client.execute_rows(ExecuteRequest::default(), &*Reader::new(0)).await.expect("a result");
    assert_eq!(result.rows.len(), 1);
    assert_eq!(server.await.expect("no panic").0, 1, "Execute");
}
