//! The query service over real connections: the same over gRPC and over the framed transport.

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use futures::{StreamExt, TryStreamExt};
use support::{FakeTablet, Transport, at_port, until};
use tabletclient::grpc::{self, DialOptions};
use tokio::net::TcpListener;
use vterrors::Code;
use vtproto::{
    query::{
        BeginExecuteRequest, BoundQuery, CommitRequest, ExecuteBatchRequest, ExecuteRequest, StreamExecuteRequest,
    },
    topodata::{Tablet, TabletAlias, TabletType},
};

fn statement(sql: &str) -> ExecuteRequest {
    ExecuteRequest { query: Some(BoundQuery { sql: sql.into(), ..Default::default() }), ..Default::default() }
}

#[tokio::test]
async fn results_streams_and_errors_cross_the_wire() {
    for transport in Transport::ALL {
        let fake = FakeTablet::new("100");
        let served = transport.serve(fake.clone()).await;
        let client = transport.dial(&served.tablet, &DialOptions::default()).expect("dial");
        for _ in 0..10 {
            let result = client.execute(ExecuteRequest::default()).await.expect("result");
            assert_eq!(&result.rows[0].values[..], b"100");
        }
        let batch = ExecuteBatchRequest { queries: vec![BoundQuery::default(); 3], ..Default::default() };
        assert_eq!(client.execute_batch(batch).await.expect("results").len(), 3);
        let parts: Vec<_> = client
            .stream_execute(StreamExecuteRequest::default())
            .await
            .expect("stream")
            .try_collect()
            .await
            .expect("parts");
        assert_eq!((parts.len(), parts[0].fields.len(), parts[1].rows.len()), (3, 1, 1));
        client.commit(CommitRequest::default()).await.expect("committed");

        fake.fail_next(Code::NotFound, "no such thing");
        let error = client.execute(ExecuteRequest::default()).await.expect_err("failed");
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(error.to_string(), "vttablet: rpc error: code = NotFound desc = no such thing");

        fake.fail_next(Code::Internal, &"é".repeat(10_000));
        let error = client.execute(ExecuteRequest::default()).await.expect_err("failed");
        let cut = " [...] [remainder of the error is truncated because gRPC has a size limit on errors.]";
        assert!(error.to_string().ends_with(cut), "{transport:?}");

        fake.fail_next(Code::FailedPrecondition, "not now");
        let error = client.stream_execute(StreamExecuteRequest::default()).await.err().expect("did not begin");
        assert_eq!(error.to_string(), "vttablet: rpc error: code = FailedPrecondition desc = not now");

        fake.fail_next(Code::AlreadyExists, "Duplicate entry");
        let outcome = client.begin_execute(BeginExecuteRequest::default()).await;
        assert!(outcome.transaction_id > 0, "open although the statement failed");
        let error = outcome.result.expect_err("failed");
        assert_eq!(error.to_string(), "vttablet: rpc error: code = AlreadyExists desc = Duplicate entry");
        let error = client.prepare(Default::default()).await.expect_err("not there");
        assert_eq!(error.to_string(), "vttablet: rpc error: code = Unimplemented desc = not faked");

        fake.says(TabletType::Master, true, 7, 0);
        let mut health = client.stream_health().await.expect("health");
        let message = health.try_next().await.expect("message").expect("not the end");
        assert_eq!(message.tablet_externally_reparented_timestamp, 7);
    }
}

#[tokio::test]
async fn large_messages_arrive_whole_and_too_large_ones_fail() {
    for transport in Transport::ALL {
        let fake = FakeTablet::new("100");
        let served = transport.serve(fake.clone()).await;
        let client = transport.dial(&served.tablet, &DialOptions::default()).expect("dial");
        let sizes = [0, 1, 65_000, 65_536, 200_000, 1_000_000];
        let calls = sizes.map(|size| {
            let client = client.clone();
            tokio::spawn(async move {
                let sql: String = (0..size).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
                let result = client.execute(statement(&sql)).await.expect("result");
                assert_eq!(&result.rows[0].values[..], sql.as_bytes(), "{size}");
            })
        });
        for call in calls {
            call.await.expect("as sent");
        }
        // The server takes a mebibyte.
        let error = client.execute(statement(&"x".repeat(1 << 20))).await.expect_err("too large");
        assert!(error.to_string().contains("message length too large"), "{transport:?}: {error}");
        client.execute(statement("small")).await.expect("goes on");
        let small = DialOptions { max_message_size: 1000, ..Default::default() };
        let client = transport.dial(&served.tablet, &small).expect("dial");
        let error = client.execute(statement(&"x".repeat(2000))).await.expect_err("too large to send");
        // tonic breaks off a request that it finds too large half way, and says no more than that.
        if transport == Transport::Framed {
            assert_eq!(error.code(), Code::ResourceExhausted);
            let text = "vttablet: rpc error: code = ResourceExhausted desc = Error, encoded message length too large: found 20";
            assert!(error.to_string().starts_with(text), "{error}");
        }
        let error = client.execute(statement(&"x".repeat(985))).await.expect_err("an answer too large to take");
        assert!(error.to_string().contains("message length too large"), "{transport:?}: {error}");
        client.execute(statement("small")).await.expect("goes on");
    }
}

#[tokio::test]
async fn an_abandoned_call_is_dropped_by_the_tablet() {
    for transport in Transport::ALL {
        let fake = FakeTablet::new("100");
        let served = transport.serve(fake.clone()).await;
        let client = transport.dial(&served.tablet, &DialOptions::default()).expect("dial");
        fake.stuck.send_replace(true);
        let call = tokio::spawn(async move { client.execute(ExecuteRequest::default()).await });
        until("the call runs", || fake.calls() == 1).await;
        call.abort();
        until("the call was dropped", || fake.dropped.load(Ordering::SeqCst) == 1).await;
    }
}

#[tokio::test]
async fn a_stream_that_nobody_reads_stops_the_tablet_and_nobody_else() {
    for transport in Transport::ALL {
        let fake = FakeTablet::new("100");
        let served = transport.serve(fake.clone()).await;
        let options =
            DialOptions { channels: 1, stream_window: 256 * 1024, connection_window: 1 << 20, ..Default::default() };
        let client = transport.dial(&served.tablet, &options).expect("dial");
        fake.endless.store(100_000, Ordering::SeqCst);
        let mut stream = client.stream_execute(StreamExecuteRequest::default()).await.expect("stream");
        stream.next().await.expect("a part").expect("fields");
        let taken = || fake.taken.load(Ordering::SeqCst);
        until("rows flow", || taken() > 100).await;
        // It stops: two looks at the same number, with work of others between.
        let mut before = 0;
        while before != taken() {
            before = taken();
            for _ in 0..50 {
                client.execute(ExecuteRequest::default()).await.expect("others are served");
            }
        }
        assert!(before < 3000, "{transport:?}: {before} rows of 1000 bytes were taken for nobody");
        for _ in 0..5000 {
            stream.next().await.expect("a part").expect("rows");
        }
        assert!(taken() >= 4900, "it goes on");
        drop(stream);
        until("the stream was dropped", || fake.dropped.load(Ordering::SeqCst) == 1).await;
        assert!(taken() < 100_000);
    }
}

#[tokio::test]
async fn a_tablet_that_is_away_was_never_asked() {
    for transport in Transport::ALL {
        // A port that was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let tablet = at_port(listener.local_addr().expect("address").port());
        drop(listener);
        let client = transport.dial(&tablet, &DialOptions::default()).expect("dial");
        let error = client.execute(ExecuteRequest::default()).await.expect_err("nobody listens");
        assert_eq!(error.code(), Code::Unavailable);
        assert!(grpc::never_sent(&error) && !grpc::connection_lost(&error), "{error}");
        let error = client.begin_execute(BeginExecuteRequest::default()).await.result.expect_err("nobody listens");
        assert!(grpc::never_sent(&error), "{error}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_call_says_so() {
    for transport in Transport::ALL {
        let fake = FakeTablet::new("100");
        let served = transport.serve(fake.clone()).await;
        let client = transport.dial(&served.tablet, &DialOptions::default()).expect("dial");
        fake.stuck.send_replace(true);
        let call = tokio::spawn(async move { client.execute(ExecuteRequest::default()).await });
        until("the call runs", || fake.calls() == 1).await;
        if transport == Transport::Grpc {
            // tonic's connections outlive the future of its server.
            continue;
        }
        drop(served);
        let error = call.await.expect("no panic").expect_err("broken");
        assert_eq!(error.to_string(), "vttablet: rpc error: code = Unavailable desc = transport is closing");
        assert!(grpc::connection_lost(&error) && !grpc::never_sent(&error));
        until("the call was dropped", || fake.dropped.load(Ordering::SeqCst) == 1).await;
    }
}

#[tokio::test]
async fn a_call_has_a_deadline_when_asked_for() {
    for transport in Transport::ALL {
        let fake = FakeTablet::new("100");
        let served = transport.serve(fake.clone()).await;
        let options = DialOptions { call_timeout: Some(Duration::from_millis(50)), ..Default::default() };
        let client = transport.dial(&served.tablet, &options).expect("dial");
        fake.stuck.send_replace(true);
        let error = client.execute(ExecuteRequest::default()).await.expect_err("too slow");
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
        assert!(error.to_string().starts_with("vttablet: rpc error: code = DeadlineExceeded desc = "), "{error}");
        until("the call was dropped", || fake.dropped.load(Ordering::SeqCst) == 1).await;
    }
}

#[test]
fn a_record_without_an_address_is_an_error_that_names_the_tablet() {
    let tablet = Tablet { alias: Some(TabletAlias { cell: "zone1".into(), uid: 7 }), ..Default::default() };
    for transport in Transport::ALL {
        let error = transport.dial(&tablet, &DialOptions::default()).err().expect("no host");
        assert_eq!(error.to_string(), "tablet zone1-0000000007 has no host name in its record");
    }
}
