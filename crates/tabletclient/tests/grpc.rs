//! The query service over a real gRPC connection.

mod support;

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use support::{FakeTablet, until};
use tabletclient::grpc::{self, DialOptions, QueryServer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vterrors::Code;
use vtproto::{
    query::{BeginExecuteRequest, ExecuteRequest, StreamExecuteRequest},
    topodata::{Tablet, TabletAlias, TabletType},
};

async fn serve(fake: Arc<FakeTablet>) -> (Tablet, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("address").port();
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let server = tonic::transport::Server::builder().add_service(QueryServer::new(fake).into_service(1 << 20));
    tokio::spawn(
        server.serve_with_incoming_shutdown(tokio_stream::wrappers::TcpListenerStream::new(listener), stopped),
    );
    let tablet = Tablet {
        alias: Some(TabletAlias { cell: "zone1".into(), uid: 100 }),
        hostname: "127.0.0.1".into(),
        port_map: [("grpc".to_string(), i32::from(port))].into(),
        ..Default::default()
    };
    (tablet, stop)
}

#[tokio::test]
async fn results_streams_and_errors_cross_the_wire() {
    let fake = FakeTablet::new("100");
    let (tablet, _stop) = serve(fake.clone()).await;
    let client = grpc::dial(&tablet, &DialOptions::default()).expect("dial");
    for _ in 0..10 {
        let result = client.execute(ExecuteRequest::default()).await.expect("result");
        assert_eq!(&result.rows[0].values[..], b"100");
    }
    let parts: Vec<_> = client
        .stream_execute(StreamExecuteRequest::default())
        .await
        .expect("stream")
        .try_collect()
        .await
        .expect("parts");
    assert_eq!((parts.len(), parts[0].fields.len(), parts[1].rows.len()), (3, 1, 1));

    fake.fail_next(Code::NotFound, "no such thing");
    let error = client.execute(ExecuteRequest::default()).await.expect_err("failed");
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(error.to_string(), "vttablet: rpc error: code = NotFound desc = no such thing");

    fake.fail_next(Code::AlreadyExists, "Duplicate entry");
    let outcome = client.begin_execute(BeginExecuteRequest::default()).await;
    assert_eq!(outcome.transaction_id, 1, "open although the statement failed");
    let error = outcome.result.expect_err("failed");
    assert_eq!(error.to_string(), "vttablet: rpc error: code = AlreadyExists desc = Duplicate entry");

    fake.says(TabletType::Master, true, 7, 0);
    let mut health = client.stream_health().await.expect("health");
    let message = health.try_next().await.expect("message").expect("not the end");
    assert_eq!(message.tablet_externally_reparented_timestamp, 7);
}

#[tokio::test]
async fn an_abandoned_call_is_dropped_by_the_tablet() {
    let fake = FakeTablet::new("100");
    let (tablet, _stop) = serve(fake.clone()).await;
    let client = grpc::dial(&tablet, &DialOptions::default()).expect("dial");
    fake.stuck.send_replace(true);
    let call = tokio::spawn(async move { client.execute(ExecuteRequest::default()).await });
    until("the call runs", || fake.calls() == 1).await;
    call.abort();
    until("the call was dropped", || fake.dropped.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_tablet_that_is_away_was_never_asked() {
    let fake = FakeTablet::new("100");
    let (tablet, stop) = serve(fake).await;
    stop.cancel();
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("address").port();
    drop(listener);
    let tablet = Tablet { port_map: [("grpc".to_string(), i32::from(port))].into(), ..tablet };
    let client = grpc::dial(&tablet, &DialOptions::default()).expect("dial");
    let error = client.execute(ExecuteRequest::default()).await.expect_err("nobody listens");
    assert_eq!(error.code(), Code::Unavailable);
    assert!(grpc::never_sent(&error) && !grpc::connection_lost(&error), "{error}");
}

#[tokio::test]
async fn a_call_has_a_deadline_when_asked_for() {
    let fake = FakeTablet::new("100");
    let (tablet, _stop) = serve(fake.clone()).await;
    let options = DialOptions { call_timeout: Some(Duration::from_millis(50)), ..Default::default() };
    let client = grpc::dial(&tablet, &options).expect("dial");
    fake.stuck.send_replace(true);
    let error = client.execute(ExecuteRequest::default()).await.expect_err("too slow");
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
}

#[test]
fn a_record_without_an_address_is_an_error_that_names_the_tablet() {
    let tablet = Tablet { alias: Some(TabletAlias { cell: "zone1".into(), uid: 7 }), ..Default::default() };
    let error = grpc::dial(&tablet, &DialOptions::default()).err().expect("no host");
    assert_eq!(error.to_string(), "tablet zone1-0000000007 has no host name in its record");
}
