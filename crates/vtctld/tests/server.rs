//! vtctld over the wire: the REST API on a port, commands over gRPC. Tablets are fakes, the topology is
//! in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tabletclient::tm::{Result as TmResult, TabletManager};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use topo::TopoServer;
use vtctld::{HealthCache, HealthSettings, VtctlService, api};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{Keyspace, Tablet, TabletAlias, TabletType};
use vtproto::vtctldata::ExecuteVtctlCommandRequest;
use vtproto::vtctlservice::vtctl_client::VtctlClient;
use vtproto::vtctlservice::vtctl_server::VtctlServer;
use wrangler::{Config, Wrangler};

/// Answers Ping, and remembers whether a Sleep was given up.
#[derive(Default)]
struct Tablets {
    asleep: AtomicBool,
    given_up: AtomicBool,
}

struct GivenUp<'a>(&'a AtomicBool);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl TabletManager for Tablets {
    async fn ping(&self, _: &Tablet, request: tmd::PingRequest) -> TmResult<tmd::PingResponse> {
        Ok(tmd::PingResponse { payload: request.payload })
    }
    async fn sleep(&self, _: &Tablet, _: tmd::SleepRequest) -> TmResult<tmd::SleepResponse> {
        self.asleep.store(true, Ordering::SeqCst);
        let _guard = GivenUp(&self.given_up);
        std::future::pending().await
    }
}

impl tabletclient::cutover::Cutover for Tablets {}

async fn topology() -> TopoServer {
    let topo = TopoServer::memory(&["zone1"]);
    topo.create_keyspace("commerce", &Keyspace::default()).await.unwrap();
    topo.ensure_vschema("commerce").await.unwrap();
    topo.create_shard("commerce", "0").await.unwrap();
    let tablet = Tablet {
        alias: Some(TabletAlias { cell: "zone1".into(), uid: 100 }),
        hostname: "127.0.0.1".into(),
        // Nobody listens there.
        port_map: BTreeMap::from([("vt".to_owned(), 1), ("grpc".to_owned(), 1)]),
        keyspace: "commerce".into(),
        shard: "0".into(),
        r#type: TabletType::Replica.into(),
        ..Default::default()
    };
    topo.create_tablet(&tablet).await.unwrap();
    topo.rebuild_keyspace("commerce", &[]).await.unwrap();
    topo
}

async fn wrangler(tablets: Arc<Tablets>) -> Wrangler {
    Wrangler::new(topology().await, tablets, Config::default())
}

/// The REST API on a free port.
async fn rest(policy: &str) -> String {
    let wr = wrangler(Arc::default()).await;
    let settings = HealthSettings {
        keep_alive: Duration::from_secs(60),
        retry_delay: Duration::from_secs(5),
        timeout: Duration::from_secs(60),
        topology_refresh: Duration::from_secs(30),
    };
    let state = api::State {
        health: HealthCache::new(&wr, settings),
        wr,
        acl: servenv::Acl::new(policy),
        cell: "zone1".into(),
        action_timeout: Duration::from_secs(30),
        show_topology_crud: true,
        realtime_stats: false,
        workflows: false,
    };
    let routes = api::routes(Arc::new(state)).merge(vtctld::web_routes());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// Status, head and body of an answer.
async fn request(address: &str, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, head.to_lowercase(), body.to_owned())
}

async fn get(address: &str, path: &str) -> (u16, String) {
    let (status, _, body) = request(address, "GET", path, "", "").await;
    (status, body)
}

async fn get_json(address: &str, path: &str) -> Value {
    let (status, body) = get(address, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

#[tokio::test]
async fn the_rest_api_has_the_shapes_of_vitess() {
    let address = rest("").await;
    assert_eq!(get(&address, "/api/shards/commerce/").await, (200, "[\n  \"0\"\n]".to_owned()));
    assert_eq!(get_json(&address, "/api/cells/").await, json!(["zone1"]));
    assert_eq!(get_json(&address, "/api/tablets/zone1-100").await["port_map"], json!({"grpc": 1, "vt": 1}));
    assert_eq!(get_json(&address, "/api/tablets/?shard=commerce/0").await, json!([{"cell": "zone1", "uid": 100}]));
    assert_eq!(get_json(&address, "/api/keyspace/commerce/tablets/").await[0]["type"], 2);
    assert_eq!(
        get_json(&address, "/api/topodata/global/keyspaces/commerce").await,
        json!({"Data": "", "Children": ["Keyspace", "VSchema", "shards"], "Error": ""})
    );
    assert_eq!(get_json(&address, "/api/topodata/").await["Children"], json!(["global", "zone1"]));
    let partition = |served_type: i32| json!({"served_type": served_type, "shard_references": [{"name": "0"}]});
    assert_eq!(
        get_json(&address, "/api/srv_keyspace/local/").await,
        json!({"commerce": {"partitions": [partition(1), partition(2), partition(3)]}})
    );
    assert_eq!(get_json(&address, "/api/srv_keyspace/zone1/commerce").await["served_from"], json!([]));
    assert_eq!(get_json(&address, "/api/features").await["activeReparents"], true);
    assert_eq!(get(&address, "/api/keyspaces/nope").await.0, 404);

    let (status, head, body) = request(&address, "GET", "/api/cells", "", "").await;
    assert_eq!((status, body.as_str()), (307, "<a href=\"/api/cells/\">Temporary Redirect</a>.\n\n"));
    assert!(head.contains("location: /api/cells/"));
    let (status, _, body) = request(&address, "GET", "/api/nope", "", "").await;
    assert_eq!((status, body.as_str()), (302, "<a href=\"/app/\">Found</a>.\n\n"));
    assert_eq!(
        get(&address, "/api/tablet_health/zone1/100").await,
        (500, "can't get tablet_health: realtimeStats not initialized\n".to_owned())
    );
    assert_eq!(
        get(&address, "/api/topology_info/?keyspace=commerce").await.1,
        "can't get topology_info: realtimeStats not initialized\n"
    );
}

#[tokio::test]
async fn the_page_and_what_it_needs_come_from_the_program() {
    let address = rest("").await;
    let (status, page) = get(&address, "/app/").await;
    assert_eq!(status, 200);
    for file in ["/app/style.css", "/app/app.js"] {
        assert!(page.contains(file));
        assert_eq!(get(&address, file).await.0, 200);
    }
    assert!(!page.contains("http:") && !page.contains("https:"), "no foreign resources");
    assert_eq!(get(&address, "/app/keyspaces").await, (200, page), "paths of older pages");
    assert_eq!(get(&address, "/app/nope.js").await.0, 404);

    let overview = get_json(&address, "/api/overview/").await;
    let tablet = &overview[0]["shards"][0]["tablets"][0];
    assert_eq!(tablet["alias"], "zone1-0000000100");
    assert_eq!(tablet["type"], "replica");
    assert_eq!(tablet["health"], Value::Null);
    assert_ne!(tablet["error"], "", "nobody listens on the tablet's port: {overview}");
}

#[tokio::test]
async fn actions_run_for_posts_of_this_page_only() {
    let address = rest("").await;
    let (status, _, body) = request(&address, "POST", "/api/vtctl/", "", r#"["GetKeyspaces"]"#).await;
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({"Error": "", "Output": "commerce\n"}));
    let (_, _, body) = request(&address, "POST", "/api/vtctl/", "", r#"["NoSuchCommand"]"#).await;
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({"Error": "unknown command", "Output": "Unknown command: NoSuchCommand\n"})
    );
    let (_, _, body) = request(&address, "POST", "/api/tablets/zone1-100?action=Ping", "", "").await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["Error"], false);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let (_, _, body) = request(&address, "POST", "/api/keyspaces/commerce", form, "action=DeleteKeyspace").await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["Output"], "Unknown action");
    let foreign = "Origin: http://elsewhere.example\r\n";
    assert_eq!(request(&address, "POST", "/api/vtctl/", foreign, r#"["GetKeyspaces"]"#).await.0, 403);
    let own = format!("Origin: http://{address}\r\n");
    assert_eq!(request(&address, "POST", "/api/vtctl/", &own, r#"["GetKeyspaces"]"#).await.0, 200);

    let read_only = rest("read-only").await;
    assert_eq!(get(&read_only, "/api/keyspaces/").await.0, 200);
    assert_eq!(request(&read_only, "POST", "/api/vtctl/", "", r#"["GetKeyspaces"]"#).await.0, 403);
}

async fn grpc(tablets: Arc<Tablets>) -> VtctlClient<tonic::transport::Channel> {
    let service = VtctlServer::new(VtctlService::new(wrangler(tablets).await));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    VtctlClient::connect(format!("http://{address}")).await.unwrap()
}

fn command(args: &[&str]) -> ExecuteVtctlCommandRequest {
    ExecuteVtctlCommandRequest { args: args.iter().map(|&arg| arg.to_owned()).collect(), action_timeout: 0 }
}

#[tokio::test]
async fn a_command_streams_its_output_and_ends_with_its_error() {
    let mut client = grpc(Arc::default()).await;
    let mut events = client.execute_vtctl_command(command(&["getkeyspaces"])).await.unwrap().into_inner();
    let event = events.next().await.unwrap().unwrap().event.unwrap();
    assert_eq!(event.value, "commerce\n");
    assert!(events.next().await.is_none());

    let mut events = client.execute_vtctl_command(command(&["GetTablet", "zone1-999"])).await.unwrap().into_inner();
    let status = events.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unknown);
    assert_eq!(status.message(), "node doesn't exist: /vitess/zone1/tablets/zone1-0000000999/Tablet");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_command() {
    let tablets = Arc::new(Tablets::default());
    let mut client = grpc(tablets.clone()).await;
    let events = client.execute_vtctl_command(command(&["Sleep", "zone1-100", "1h"])).await.unwrap();
    let until = async |flag: &AtomicBool| {
        while !flag.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), until(&tablets.asleep)).await.expect("the command runs");
    assert!(!tablets.given_up.load(Ordering::SeqCst));
    drop(events);
    drop(client);
    tokio::time::timeout(Duration::from_secs(10), until(&tablets.given_up)).await.expect("the command is cancelled");
}
