//! What gRPC clients see: sessions that travel, errors in bodies, streams, the v2 calls.

mod support;

use futures::TryStreamExt;
use support::{rows, table, until, world};
use vterrors::{Code, VtError};
use vtproto::{
    query::BoundQuery,
    topodata::TabletType,
    vtgate::{self, Session},
};

fn bound(sql: &str) -> Option<BoundQuery> {
    Some(BoundQuery { sql: sql.into(), ..Default::default() })
}

fn request(sql: &str, session: &Option<Session>) -> vtgate::ExecuteRequest {
    vtgate::ExecuteRequest { query: bound(sql), session: session.clone(), ..Default::default() }
}

#[tokio::test]
async fn the_session_is_the_clients() {
    let w = world().await;
    let mut client = w.grpc().await;
    let mut session = Some(Session { autocommit: true, target_string: "commerce".into(), ..Default::default() });
    for sql in ["begin", "update product set price = 1"] {
        let answer = client.execute(request(sql, &session)).await.expect(sql).into_inner();
        assert_eq!(answer.error, None);
        session = answer.session;
    }
    let open = session.clone().expect("session");
    assert!(open.in_transaction);
    assert_eq!(open.shard_sessions[0].transaction_id, 1);
    w.master.answer("broken", Err(VtError::new(Code::InvalidArgument, "broken indeed")));
    let answer = client.execute(request("select broken from t", &session)).await.expect("status OK").into_inner();
    let error = answer.error.expect("in the body");
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message.starts_with("vtgate: http://") && error.message.ends_with("broken indeed"), "{error:?}");
    session = answer.session;
    assert!(session.as_ref().expect("also on errors").in_transaction);
    let answer = client.execute(request("commit", &session)).await.expect("commit").into_inner();
    assert!(!answer.session.expect("session").in_transaction);
    assert_eq!(w.master.take_lines().last().map(String::as_str), Some("Commit: "));
}

#[tokio::test]
async fn a_client_without_a_session_has_autocommit_and_one_with_an_empty_one_has_not() {
    let w = world().await;
    let mut client = w.grpc().await;
    client.execute(request("delete from t", &None)).await.expect("delete");
    assert_eq!(w.master.take_lines(), ["Autocommit: delete from t"]);
    let answer = client.execute(request("delete from t", &Some(Session::default()))).await.expect("delete");
    assert!(answer.into_inner().session.expect("session").in_transaction);
    assert_eq!(w.master.take_lines(), ["BeginExecute: delete from t"]);
    let old = vtgate::ExecuteRequest {
        query: bound("select 1 from t"),
        tablet_type: TabletType::Replica.into(),
        keyspace_shard: "commerce".into(),
        ..Default::default()
    };
    client.execute(old).await.expect("select");
    assert_eq!(w.replica.take_lines(), ["Execute: select 1 from t"]);
}

#[tokio::test]
async fn batches_and_streams() {
    let w = world().await;
    let mut client = w.grpc().await;
    let session = Some(Session { autocommit: true, target_string: "commerce".into(), ..Default::default() });
    let queries = ["select 1 from a", "selec", "select 2 from a"].map(|sql| bound(sql).expect("query")).to_vec();
    let batch = vtgate::ExecuteBatchRequest { session: session.clone(), queries, ..Default::default() };
    let results = client.execute_batch(batch).await.expect("batch").into_inner().results;
    assert_eq!(results.iter().map(|r| r.error.is_some()).collect::<Vec<_>>(), [false, true, false]);

    w.master.answer("from big", Ok(rows("a", &["x"; 100])));
    let request = vtgate::StreamExecuteRequest { query: bound("select a from big"), session, ..Default::default() };
    let parts: Vec<_> = client
        .stream_execute(request.clone())
        .await
        .expect("stream")
        .into_inner()
        .map_ok(|part| part.result.unwrap_or_default())
        .try_collect()
        .await
        .expect("parts");
    assert_eq!((parts[0].fields.len(), parts[0].rows.len()), (1, 0), "fields come first and alone");
    assert_eq!(parts[1..].iter().map(|part| part.rows.len()).sum::<usize>(), 100);

    w.master.answer("from big", Err(VtError::new(Code::NotFound, "no such table")));
    let status = client.stream_execute(request).await.expect_err("in the status");
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert!(status.message().ends_with("no such table"), "{status}");
}

#[tokio::test]
async fn an_abandoned_call_is_cancelled() {
    let w = world().await;
    let mut client = w.grpc().await;
    w.master.stuck.send_replace(true);
    let call = tokio::spawn(async move { client.execute(request("select 1 from slow", &None)).await });
    until("it runs", || !w.master.take_calls().is_empty()).await;
    call.abort();
    until("the tablet stopped", || w.master.dropped.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn the_v2_calls() {
    let w = world().await;
    let mut client = w.grpc().await;
    let master = i32::from(TabletType::Master);
    let shards = vtgate::ExecuteShardsRequest {
        query: bound("select 1 from t"),
        keyspace: "commerce".into(),
        shards: vec!["0".into()],
        tablet_type: master,
        ..Default::default()
    };
    let answer = client.execute_shards(shards.clone()).await.expect("call").into_inner();
    assert_eq!(table(&answer.result.expect("result")), ["select 1 from t"]);
    let ranges = vtgate::ExecuteKeyRangesRequest {
        query: bound("update t set a = 1"),
        keyspace: "commerce".into(),
        key_ranges: vec![Default::default()],
        tablet_type: master,
        ..Default::default()
    };
    client.execute_key_ranges(ranges).await.expect("call").into_inner().result.expect("result");
    assert_eq!(w.stat("VtgateApi")["Histograms"]["ExecuteKeyRanges.commerce.master"]["Count"], 1);
    let ids = vtgate::ExecuteKeyspaceIdsRequest {
        query: bound("delete from t"),
        keyspace: "commerce".into(),
        keyspace_ids: vec![vec![0x10]],
        tablet_type: master,
        ..Default::default()
    };
    client.execute_keyspace_ids(ids).await.expect("call").into_inner().result.expect("result");
    assert_eq!(
        w.master.take_lines(),
        [
            "Execute: select 1 from t",
            "Autocommit: update t set a = 1 /* vtgate:: filtered_replication_unfriendly */",
            "Autocommit: delete from t /* vtgate:: keyspace_id:10 */",
        ]
    );
    let session = client.begin(vtgate::BeginRequest::default()).await.expect("begin").into_inner().session;
    let answer = client.execute_shards(vtgate::ExecuteShardsRequest { session, ..shards }).await.expect("call");
    let session = answer.into_inner().session;
    assert_eq!(session.as_ref().expect("session").shard_sessions.len(), 1);
    client.commit(vtgate::CommitRequest { session, ..Default::default() }).await.expect("commit");
    let error = client.commit(vtgate::CommitRequest::default()).await.expect_err("nothing open");
    assert_eq!(error.code(), tonic::Code::Aborted);
    assert!(error.message().ends_with("cannot commit: not in transaction"), "{error}");
}

#[tokio::test]
async fn what_is_not_built_says_so() {
    let w = world().await;
    let mut client = w.grpc().await;
    let status = client.v_stream(vtgate::VStreamRequest::default()).await.expect_err("VStream");
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert!(status.message().starts_with("VStream "), "{status}");
    let status = client.split_query(vtgate::SplitQueryRequest::default()).await.expect_err("SplitQuery");
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    let answer = client.get_srv_keyspace(vtgate::GetSrvKeyspaceRequest { keyspace: "commerce".into() }).await;
    assert_eq!(answer.expect("record").into_inner().srv_keyspace.expect("record").partitions.len(), 3);
}
