//! The framed transport itself: how it begins and ends, what it does with nonsense, and the way back to gRPC.

mod support;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use futures::{StreamExt, future::join_all};
use prost::Message;
use support::{
    FakeTablet, Transport, allow_all, at_port, listen,
    raw::{bytes, hello, read_frame, request},
    serve_framed, serve_grpc, until,
};
use tabletclient::{
    framed::{self, Kind, MAGIC, MAX_PAYLOAD},
    grpc::{self, DialOptions, HopObserver, StaticCreds, TlsOptions},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use vterrors::{Code, VtError};
use vtproto::{
    framed::Welcome,
    query::{
        BeginExecuteRequest, BeginExecuteResponse, ExecuteRequest, ExecuteResponse, QueryResult, StreamExecuteRequest,
    },
    topodata::Tablet,
};

/// A connection that speaks in raw bytes, past its greeting.
async fn raw(tablet: &Tablet) -> (TcpStream, BytesMut) {
    let mut io = TcpStream::connect(grpc::grpc_address(tablet).expect("address")).await.expect("connects");
    io.write_all(&hello(1, 1)).await.expect("sent");
    let mut input = BytesMut::new();
    let frame = read_frame(&mut io, &mut input).await.expect("an answer");
    assert_eq!(frame.kind, Kind::Welcome);
    assert_eq!(Welcome::decode(frame.payload).expect("a Welcome"), Welcome { version: 1, error: None });
    (io, input)
}

#[tokio::test]
async fn many_callers_share_a_connection() {
    let fake = FakeTablet::new("100");
    let served = Transport::Framed.serve(fake.clone()).await;
    let (proxy, through) = listen().await;
    // Counts the connections on their way to the tablet.
    let address = grpc::grpc_address(&served.tablet).expect("address");
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = proxy.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut far = TcpStream::connect(&address).await.expect("connects");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let client = Transport::Framed.dial(&through, &DialOptions::default()).expect("dial");
    let calls = (0..200).map(|_| client.execute(ExecuteRequest::default()));
    for result in join_all(calls).await {
        result.expect("answered");
    }
    assert_eq!((connections.load(Ordering::SeqCst), fake.calls()), (1, 200));
    // More than one can bear gets a few more, not one each.
    fake.stuck.send_replace(true);
    let calls = (0..2000).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.execute(ExecuteRequest::default()).await.expect("answered") })
    });
    let all = tokio::spawn(join_all(calls.collect::<Vec<_>>()));
    until("all of them run", || fake.calls() == 2200).await;
    fake.stuck.send_replace(false);
    all.await.expect("answered");
    let count = connections.load(Ordering::SeqCst);
    assert!((1..=4).contains(&count), "{count}");
}

/// A transaction whose caller gave up when it was begun and had not heard of it is rolled back, and only such a one.
#[tokio::test]
async fn a_transaction_that_nobody_heard_of_is_rolled_back() {
    let fake = FakeTablet::new("100");
    let served = Transport::Framed.serve(fake.clone()).await;
    let rolled_back = || fake.rolled_back.lock().expect("no panic").clone();
    let client = Transport::Framed.dial(&served.tablet, &DialOptions::default()).expect("dial");
    client.execute(ExecuteRequest::default()).await.expect("connected");
    // Answered, whether that is still on its way or here and not read.
    for turns in 1..30 {
        let mut call = Box::pin(client.begin_execute(BeginExecuteRequest::default()));
        assert!(futures::poll!(&mut call).is_pending());
        until("it is begun", || fake.transactions.load(Ordering::SeqCst) == turns).await;
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        drop(call);
        until("it is rolled back", || rolled_back().last() == Some(&turns)).await;
        assert_eq!(rolled_back().len(), usize::try_from(turns).expect("few"));
    }
    let outcome = client.begin_execute(BeginExecuteRequest::default()).await;
    assert_eq!(outcome.transaction_id, 30);
    outcome.result.expect("answered");

    let (mut io, mut input) = raw(&served.tablet).await;
    for id in 1..=2 {
        io.write_all(&request(id, 7, &BeginExecuteRequest::default())).await.expect("sent");
        let frame = read_frame(&mut io, &mut input).await.expect("an answer");
        let answer = BeginExecuteResponse::decode(frame.payload).expect("a response");
        assert_eq!((frame.id, answer.transaction_id), (id, 30 + i64::try_from(id).expect("few")));
    }
    io.write_all(&bytes(Kind::Cancel, 2, &[])).await.expect("sent");
    until("it is rolled back", || rolled_back().last() == Some(&32)).await;
    assert_eq!(rolled_back().len(), 30);
}

/// What a caller waits is what the tablet takes and what the way takes; peers of before the tablet's time was told are
/// understood as they were.
#[tokio::test]
async fn the_way_is_told_from_what_the_tablet_does() {
    let hops = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = hops.clone();
    let hop = HopObserver::new(move |hop| noted.lock().expect("no panic").push(hop));
    let options = DialOptions { hop: Some(hop), ..Default::default() };
    let noted = || hops.lock().expect("no panic").len();

    let fake = FakeTablet::new("100");
    let served = Transport::Framed.serve(fake.clone()).await;
    let client = Transport::Framed.dial(&served.tablet, &options).expect("dial");
    client.execute(ExecuteRequest::default()).await.expect("answered");
    fake.stuck.send_replace(true);
    let call = tokio::spawn(async move { client.execute(ExecuteRequest::default()).await });
    until("the call runs", || fake.calls() == 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    fake.stuck.send_replace(false);
    call.await.expect("no panic").expect("answered");
    assert_eq!(noted(), 2);
    let longest = hops.lock().expect("no panic").iter().max().copied().expect("two");
    assert!(longest < Duration::from_millis(400), "{longest:?}: the tablet's time is no part of it");

    // A client of version 1 gets the bare message.
    let (mut io, mut input) = raw(&served.tablet).await;
    io.write_all(&request(1, 1, &ExecuteRequest::default())).await.expect("sent");
    let frame = read_frame(&mut io, &mut input).await.expect("an answer");
    assert_eq!(frame.kind, Kind::Response);
    assert!(ExecuteResponse::decode(frame.payload).expect("a response").result.is_some());

    // A server of version 1 sends it.
    let (listener, tablet) = listen().await;
    tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.expect("a client");
        let mut input = BytesMut::new();
        io.read_exact(&mut [0; MAGIC.len()]).await.expect("the magic");
        read_frame(&mut io, &mut input).await.expect("a Hello");
        let welcome = Welcome { version: 1, error: None };
        io.write_all(&bytes(Kind::Welcome, 0, &welcome.encode_to_vec())).await.expect("sent");
        let call = read_frame(&mut io, &mut input).await.expect("a request");
        let answer = ExecuteResponse { result: Some(QueryResult { insert_id: 7, ..Default::default() }) };
        io.write_all(&bytes(Kind::Response, call.id, &answer.encode_to_vec())).await.expect("sent");
        read_frame(&mut io, &mut input).await
    });
    let client = framed::dial_only(&tablet, &options).expect("dial");
    assert_eq!(client.execute(ExecuteRequest::default()).await.expect("answered").insert_id, 7);
    assert_eq!(noted(), 2);
}

#[tokio::test]
async fn a_client_comes_back_to_a_tablet_that_was_away() {
    let fake = FakeTablet::new("100");
    let (listener, tablet) = listen().await;
    let port = listener.local_addr().expect("address");
    let client = framed::dial_only(&tablet, &DialOptions::default()).expect("dial");
    let server = tokio::spawn(serve_framed(listener, fake.clone(), allow_all(CancellationToken::new())));
    client.execute(ExecuteRequest::default()).await.expect("answered");
    server.abort();
    let mut failures = 0;
    while client.execute(ExecuteRequest::default()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    // While it is away, calls fail at once and do not reach it.
    for _ in 0..1000 {
        let error = client.execute(ExecuteRequest::default()).await.expect_err("away");
        assert!(grpc::never_sent(&error) || grpc::connection_lost(&error), "{error}");
        failures += 1;
    }
    assert_eq!(failures, 1000);
    let listener = TcpListener::bind(port).await.expect("the same port");
    let _server = tokio::spawn(serve_framed(listener, fake, allow_all(CancellationToken::new())));
    let back = async {
        while client.execute(ExecuteRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("comes back");
}

#[tokio::test]
async fn a_tablet_that_stops_lets_calls_end_and_sends_new_ones_elsewhere() {
    let fake = FakeTablet::new("100");
    let served = Transport::Framed.serve(fake.clone()).await;
    let client = Transport::Framed.dial(&served.tablet, &DialOptions::default()).expect("dial");
    client.execute(ExecuteRequest::default()).await.expect("answered");
    fake.stuck.send_replace(true);
    let running = {
        let client = client.clone();
        tokio::spawn(async move { client.execute(ExecuteRequest::default()).await })
    };
    until("the call runs", || fake.calls() == 2).await;
    let (mut io, mut input) = raw(&served.tablet).await;
    served.stop.cancel();
    let frame = read_frame(&mut io, &mut input).await.expect("a frame");
    assert_eq!((frame.kind, frame.id), (Kind::GoAway, 0));
    fake.stuck.send_replace(false);
    running.await.expect("no panic").expect("a call under way ends in peace");
    // The server stays up here, so the next call finds it on a new connection.
    client.execute(ExecuteRequest::default()).await.expect("answered");
}

#[tokio::test]
async fn who_may_not_call_is_told_so() {
    let fake = FakeTablet::new("100");
    let (listener, tablet) = listen().await;
    let mut options = allow_all(CancellationToken::new());
    options.authenticate = Arc::new(|credentials| match credentials {
        Some(pair) if pair.username == "vt" && pair.password == "secret" => Ok(()),
        Some(_) => Err(VtError::new(Code::PermissionDenied, "auth failure")),
        None => Err(VtError::new(Code::Unauthenticated, "username and password must be provided")),
    });
    let _server = tokio::spawn(serve_framed(listener, fake, options));
    let message = async |creds: Option<(&str, &str)>| {
        let creds =
            creds.map(|(username, password)| StaticCreds { username: username.into(), password: password.into() });
        let client = framed::dial_only(&tablet, &DialOptions { creds, ..Default::default() }).expect("dial");
        client.execute(ExecuteRequest::default()).await.map(drop).map_err(|error| error.to_string())
    };
    let refused = |text: &str| Err(format!("vttablet: rpc error: code = {text}"));
    assert_eq!(message(None).await, refused("Unauthenticated desc = username and password must be provided"));
    assert_eq!(message(Some(("vt", "guess"))).await, refused("PermissionDenied desc = auth failure"));
    assert_eq!(message(Some(("vt", "secret"))).await, Ok(()));
}

#[tokio::test]
async fn a_tablet_of_grpc_is_called_over_grpc() {
    let fake = FakeTablet::new("100");
    let (listener, tablet) = listen().await;
    let server = tokio::spawn(serve_grpc(listener, fake.clone(), CancellationToken::new()));
    let client = framed::dial(&tablet, &DialOptions::default()).expect("dial");
    for _ in 0..10 {
        client.execute(ExecuteRequest::default()).await.expect("answered");
    }
    let rows: Vec<_> = client.stream_execute(StreamExecuteRequest::default()).await.expect("stream").collect().await;
    assert_eq!(rows.len(), 3);
    let only = framed::dial_only(&tablet, &DialOptions::default()).expect("dial");
    let error = only.execute(ExecuteRequest::default()).await.expect_err("not spoken");
    assert!(grpc::never_sent(&error) && error.to_string().contains("framed transport is not spoken"), "{error}");

    // The next program at that address may speak it: found out when its health is asked for.
    server.abort();
    assert!(server.await.expect_err("aborted").is_cancelled());
    let listener = TcpListener::bind(grpc::grpc_address(&tablet).expect("address")).await.expect("the same port");
    let _server = tokio::spawn(serve_framed(listener, fake.clone(), allow_all(CancellationToken::new())));
    let back = async {
        while client.stream_health().await.is_err() || client.execute(ExecuteRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("speaks it now");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_called_over_grpc() {
    // Takes the connection and is silent, then serves gRPC.
    let fake = FakeTablet::new("100");
    let (listener, tablet) = listen().await;
    tokio::spawn(async move {
        let silent = listener.accept().await.expect("the first connection");
        let serve = serve_grpc(listener, fake, CancellationToken::new());
        tokio::join!(serve, async move {
            let _silent = silent;
            std::future::pending::<()>().await
        })
    });
    let client = framed::dial(&tablet, &DialOptions::default()).expect("dial");
    let call = tokio::time::timeout(Duration::from_secs(30), client.execute(ExecuteRequest::default()));
    call.await.expect("in time").expect("answered");
}

#[tokio::test]
async fn a_tablet_that_hangs_is_not_taken_for_one_that_speaks_only_grpc() {
    let fake = FakeTablet::new("100");
    let (listener, tablet) = listen().await;
    let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
    let serving = (stop.clone(), stopped.clone(), fake.clone());
    tokio::spawn(async move {
        let (stop, stopped, fake) = serving;
        let (io, _) = listener.accept().await.expect("the first connection");
        framed::serve(io, fake.clone(), allow_all(stop)).await;
        stopped.cancel();
        // Nothing is said on these, in whatever protocol; another program takes the place of the one that hangs.
        let hung = [listener.accept().await.expect("once"), listener.accept().await.expect("twice")];
        serve_grpc(listener, fake, CancellationToken::new()).await;
        drop(hung);
    });
    let client = framed::dial(&tablet, &DialOptions::default()).expect("dial");
    client.execute(ExecuteRequest::default()).await.expect("framed");
    stop.cancel();
    stopped.cancelled().await;
    let error = client.execute(ExecuteRequest::default()).await.expect_err("it hangs");
    assert!(grpc::never_sent(&error) && error.to_string().contains("no answer within 5s"), "{error}");
    // Spoken to again it is silent again, and then called over gRPC.
    let answered = async {
        while client.execute(ExecuteRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("in time");
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else() {
    let fake = FakeTablet::new("100");
    let served = Transport::Framed.serve(fake.clone()).await;
    let client = Transport::Framed.dial(&served.tablet, &DialOptions::default()).expect("dial");
    let too_long = u32::try_from(MAX_PAYLOAD + 100).expect("small").to_le_bytes().to_vec();
    let mut flood = Vec::new();
    for _ in 0..20 {
        // A request in parts that never ends: more than a mebibyte of it.
        let mut part = bytes(Kind::Request, 5, &vec![1; MAX_PAYLOAD]);
        part[4] |= 0x80;
        flood.extend(part);
    }
    let nonsense = [
        ("a frame that is too long", too_long),
        ("a frame that is too short", vec![1, 0, 0, 0]),
        (
            "an unknown kind",
            bytes(Kind::Ping, 1, &[]).iter().enumerate().map(|(i, b)| if i == 4 { 99 } else { *b }).collect(),
        ),
        ("a frame of servers", bytes(Kind::Response, 1, &[])),
        ("a second hello", bytes(Kind::Hello, 0, &[])),
        ("a request without a method", bytes(Kind::Request, 1, &[1, 0])),
        ("a credit of three bytes", bytes(Kind::Credit, 1, &[1, 2, 3])),
        ("a message without end", flood),
    ];
    for (what, sent) in nonsense {
        let (mut io, mut input) = raw(&served.tablet).await;
        io.write_all(&sent).await.expect("sent");
        while let Some(frame) = read_frame(&mut io, &mut input).await {
            assert_eq!(frame.kind, Kind::Error, "{what}");
        }
        client.execute(ExecuteRequest::default()).await.expect("others go on");
    }
    // Half a frame, then gone.
    let (mut io, _) = raw(&served.tablet).await;
    io.write_all(&bytes(Kind::Request, 1, &[1; 50])[..20]).await.expect("sent");
    drop(io);
    // Half a greeting, another protocol, a version of the future.
    for begin in [&MAGIC[..4], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"] {
        let mut io = TcpStream::connect(grpc::grpc_address(&served.tablet).expect("address")).await.expect("connects");
        io.write_all(begin).await.expect("sent");
        io.shutdown().await.expect("half closed");
        let mut answer = Vec::new();
        let _ = io.read_to_end(&mut answer).await;
        assert_eq!(answer, b"");
    }
    let mut io = TcpStream::connect(grpc::grpc_address(&served.tablet).expect("address")).await.expect("connects");
    io.write_all(&hello(7, 9)).await.expect("sent");
    let frame = read_frame(&mut io, &mut BytesMut::new()).await.expect("an answer");
    let error = Welcome::decode(frame.payload).expect("a Welcome").error.expect("an error");
    assert_eq!(error.message, "versions 7 to 9 of the framed transport are not spoken here");
    client.execute(ExecuteRequest::default()).await.expect("others go on");
}

#[tokio::test]
async fn unknown_and_broken_requests_fail_alone() {
    let fake = FakeTablet::new("100");
    let served = Transport::Framed.serve(fake.clone()).await;
    let (mut io, mut input) = raw(&served.tablet).await;
    let request = |method: u8, message: &[u8]| [&[method, 0, 0, 0, 0], message].concat();
    let error = async |io: &mut TcpStream, input: &mut BytesMut| {
        let frame = read_frame(io, input).await.expect("an answer");
        assert_eq!(frame.kind, Kind::Error);
        let error = vtproto::vtrpc::RpcError::decode(frame.payload).expect("an error");
        (frame.id, error.code())
    };
    io.write_all(&bytes(Kind::Request, 1, &request(200, &[]))).await.expect("sent");
    assert_eq!(error(&mut io, &mut input).await, (1, vtproto::vtrpc::Code::Unimplemented));
    io.write_all(&bytes(Kind::Request, 2, &request(1, &[0xff; 9]))).await.expect("sent");
    assert_eq!(error(&mut io, &mut input).await, (2, vtproto::vtrpc::Code::Internal));
    // Cancelling what is not there, or twice, is nothing.
    for id in [2, 77] {
        io.write_all(&bytes(Kind::Cancel, id, &[])).await.expect("sent");
    }
    io.write_all(&bytes(Kind::Ping, 9, &[])).await.expect("sent");
    let frame = read_frame(&mut io, &mut input).await.expect("an answer");
    assert_eq!((frame.kind, frame.id), (Kind::Pong, 9));
    // The same id twice at a time.
    fake.stuck.send_replace(true);
    for _ in 0..2 {
        io.write_all(&bytes(Kind::Request, 3, &request(1, &[]))).await.expect("sent");
    }
    assert_eq!(read_frame(&mut io, &mut input).await, None, "closed");
    until("the call was dropped", || fake.dropped.load(Ordering::SeqCst) == 1).await;
}

/// A server that reads nothing, because too much waits to be written, finds out by writing that nobody is there.
#[tokio::test]
async fn a_client_that_leaves_with_answers_unread_is_noticed() {
    let fake = FakeTablet::new(&"x".repeat(4 << 20));
    let (listener, tablet) = listen().await;
    let options = framed::ServeOptions { max_message_size: 64 << 20, ..allow_all(CancellationToken::new()) };
    let _server = tokio::spawn(serve_framed(listener, fake.clone(), options));
    let (mut io, _) = raw(&tablet).await;
    fake.endless.store(1000, Ordering::SeqCst);
    io.write_all(&request(0, 3, &StreamExecuteRequest::default())).await.expect("sent");
    until("the stream began", || fake.calls() == 1).await;
    for id in 1..=30 {
        io.write_all(&request(id, 1, &ExecuteRequest::default())).await.expect("sent");
    }
    until("more results than may wait", || fake.calls() >= 21).await;
    drop(io);
    until("the stream was dropped", || fake.dropped.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn tls_secures_it_and_names_are_checked() {
    let fake = FakeTablet::new("100");
    let (listener, tablet) = listen().await;
    let dir = tempfile::tempdir().expect("a directory");
    let certified = rcgen::generate_simple_self_signed(vec!["tablet.test".into()]).expect("a certificate");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, certified.cert.pem()).expect("written");
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            if let Ok(io) = acceptor.accept(io).await {
                tokio::spawn(framed::serve(io, fake.clone(), allow_all(CancellationToken::new())));
            }
        }
    });
    let call = async |server_name: Option<&str>| {
        let tls = TlsOptions { ca: Some(ca.clone()), server_name: server_name.map(Into::into), ..Default::default() };
        let options = DialOptions { tls: Some(tls), ..Default::default() };
        let client = framed::dial_only(&tablet, &options).expect("dial");
        // More than one record, so that writes are cut.
        let sql = "x".repeat(300_000);
        let query = Some(vtproto::query::BoundQuery { sql: sql.clone(), ..Default::default() });
        let result = client.execute(ExecuteRequest { query, ..Default::default() }).await?;
        assert_eq!(&result.rows[0].values[..], sql.as_bytes());
        let rows: Vec<_> = client.stream_execute(StreamExecuteRequest::default()).await?.collect().await;
        assert_eq!(rows.len(), 3);
        Ok::<_, VtError>(())
    };
    call(Some("tablet.test")).await.expect("secured");
    let error = call(None).await.expect_err("not the name in the certificate");
    assert!(grpc::never_sent(&error), "{error}");
    assert!(error.to_string().contains(": TLS: "), "{error}");
    let missing = TlsOptions { ca: Some(dir.path().join("nope.pem")), ..Default::default() };
    let options = DialOptions { tls: Some(missing), ..Default::default() };
    let error = framed::dial_only(&tablet, &options).err().expect("no such file");
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_silent_tablet_is_given_up() {
    // Greets, and says nothing more.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let tablet = at_port(listener.local_addr().expect("address").port());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut io, _)) = listener.accept().await {
            let welcome = Welcome { version: 1, error: None };
            io.write_all(&bytes(Kind::Welcome, 0, &welcome.encode_to_vec())).await.expect("sent");
            held.push(io);
        }
    });
    let options = DialOptions {
        keepalive_time: Some(Duration::from_millis(20)),
        keepalive_timeout: Duration::from_millis(20),
        ..Default::default()
    };
    let client = framed::dial_only(&tablet, &options).expect("dial");
    let error = client.execute(ExecuteRequest::default()).await.expect_err("given up");
    assert_eq!(error.to_string(), "vttablet: rpc error: code = Unavailable desc = transport is closing");
}
