//! A real server on 127.0.0.1: pages, policies, gRPC with TLS and logins, and how it stops.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use servenv::grpc::ClientOptions;
use servenv::{Env, Program, Role, Running};
use testcluster::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};
use vtproto::vtctldata::{ExecuteVtctlCommandRequest, ExecuteVtctlCommandResponse};
use vtproto::vtctlservice::vtctl_client::VtctlClient;
use vtproto::vtctlservice::vtctl_server::{Vtctl, VtctlServer};

fn env(args: &[&str]) -> Env {
    let mut all = vec!["-bind_address=127.0.0.1"];
    all.extend(args);
    Env::new(Program::Vtctld, Program::Vtctld.flag_set().parse(all).expect("valid flags"))
}

/// A server with HTTP and gRPC on free ports.
async fn start(args: &[&str], fill: impl Fn(&mut servenv::Server)) -> (Env, Running) {
    let ports = [format!("-port={}", free_port()), format!("-grpc_port={}", free_port())];
    let mut all: Vec<&str> = args.to_vec();
    all.extend(ports.iter().map(String::as_str));
    let env = env(&all);
    let mut server = env.server();
    fill(&mut server);
    let running = server.start().await.expect("it starts");
    (env, running)
}

/// Status code, head and body.
async fn http(address: Option<SocketAddr>, method: &str, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address.expect("HTTP is on")).await.expect("connects");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (code, head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn standard_pages_answer() {
    let healthy = Arc::new(AtomicBool::new(true));
    let (env, running) = start(&[], |server| {
        let healthy = healthy.clone();
        server.health(move || {
            let outcome = if healthy.load(Ordering::Relaxed) { Ok(()) } else { Err("not ok: no tablets".into()) };
            async move { outcome }
        });
        server.status_section("Tablets <all>", || "<p>three of them</p>".into());
        server.redirect_root_to_status();
    })
    .await;
    env.stats().string("TabletStateName", "SERVING");

    for path in ["/debug/vars", "/debug/vars/"] {
        let (code, head, body) = http(running.http, "GET", path).await;
        assert_eq!(code, 200);
        assert!(head.contains("content-type: application/json"), "{head}");
        let vars: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(vars["TabletStateName"], "SERVING");
        assert!(vars["memstats"]["Alloc"].as_u64() > Some(0) && vars["cmdline"].is_array(), "{body}");
        assert!(vars["ConnAccepted"].as_i64() >= Some(1) && vars["ConnCount"].as_i64() >= Some(1), "{body}");
    }
    for path in ["/debug/health", "/debug/health/"] {
        let (code, _, body) = http(running.http, "GET", path).await;
        assert_eq!((code, body.as_str()), (200, "ok"));
    }
    healthy.store(false, Ordering::Relaxed);
    let (code, _, body) = http(running.http, "GET", "/debug/health").await;
    assert_eq!((code, body.as_str()), (500, "not ok: no tablets"));

    let (code, _, page) = http(running.http, "GET", "/debug/status").await;
    assert_eq!(code, 200);
    assert!(page.contains("<h2>Tablets &lt;all&gt;</h2>\n<p>three of them</p>"), "{page}");
    assert!(page.ends_with("</html>"), "{page}");
    let (code, _, body) = http(running.http, "HEAD", "/debug/status").await;
    assert_eq!((code, body.as_str()), (200, ""));
    let (code, head, _) = http(running.http, "GET", "/").await;
    assert!((300..400).contains(&code) && head.contains("location: /debug/status"), "{head}");

    let (code, _, body) = http(running.http, "GET", "/debug/liveness").await;
    assert_eq!((code, body.as_str()), (200, ""));
    let (code, _, body) = http(running.http, "GET", "/metrics").await;
    assert_eq!(code, 200);
    assert!(body.contains("# TYPE vtctld_conn_accepted counter\n"), "{body}");
    let (code, _, body) = http(running.http, "GET", "/debug/pprof/heap").await;
    assert_eq!(code, 501);
    assert!(body.contains("not written in Go"), "{body}");
    assert_eq!(http(running.http, "GET", "/debug/flushlogs").await.0, 200);
    assert_eq!(http(running.http, "GET", "/nope").await.0, 404);
}

#[tokio::test]
async fn the_security_policy_refuses_pages() {
    let codes = async |policy: &str| {
        let flag = format!("-security_policy={policy}");
        let (_, running) = start(&[&flag], |server| {
            let page = axum::routing::get(async || "done");
            server.guarded_routes(Role::Admin, axum::Router::new().route("/terminate", page));
        })
        .await;
        let mut codes = Vec::new();
        for path in ["/debug/vars", "/terminate", "/debug/health", "/debug/status"] {
            codes.push(http(running.http, "GET", path).await.0);
        }
        let (_, _, body) = http(running.http, "GET", "/terminate").await;
        (codes, body)
    };
    assert_eq!(codes("").await, (vec![200, 200, 200, 200], "done".into()));
    let refused = |policy: &str| format!("Access denied: not allowed: {policy} security_policy enforced\n");
    assert_eq!(codes("read-only").await, (vec![200, 403, 200, 200], refused("read-only")));
    assert_eq!(codes("deny-all").await, (vec![200, 403, 403, 403], refused("deny-all")));
    assert_eq!(codes("unknown").await, (vec![200, 403, 403, 403], refused("deny-all")));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let env = env(&[&format!("-grpc_port={port}")]);
    let error = env.server().start().await.map(|_| ()).expect_err("the port is taken").to_string();
    assert!(error.starts_with(&format!("-grpc_port: cannot listen on 127.0.0.1:{port}: ")), "{error}");
    let error = self::env(&["-port=70000"]).server().start().await.map(|_| ()).expect_err("no port").to_string();
    assert_eq!(error, "-port: 70000 is not a port");
}

struct Fake;

type Events = futures::stream::BoxStream<'static, Result<ExecuteVtctlCommandResponse, Status>>;

#[tonic::async_trait]
impl Vtctl for Fake {
    type ExecuteVtctlCommandStream = Events;

    async fn execute_vtctl_command(
        &self,
        request: Request<ExecuteVtctlCommandRequest>,
    ) -> Result<Response<Events>, Status> {
        if let Some(name) = servenv::grpc::peer_common_name(&request) {
            return Err(Status::unknown(format!("you are {name}")));
        }
        match request.get_ref().args.first().map(String::as_str) {
            Some("endless") => Ok(Response::new(Box::pin(futures::stream::pending()))),
            _ => Err(Status::unknown("you are nobody")),
        }
    }
}

fn offer(server: &mut servenv::Server) {
    server.grpc("grpc-vtctl", VtctlServer::new(Fake));
}

/// The text of the status that a call ends with.
async fn call(running: &Running, host: &str, options: &ClientOptions) -> String {
    let port = running.grpc.expect("gRPC is on").port();
    let channel = options.channel(&format!("{host}:{port}")).expect("an address");
    let request = options.auth.request(ExecuteVtctlCommandRequest::default());
    VtctlClient::new(channel).execute_vtctl_command(request).await.map(|_| ()).expect_err("a status").message().into()
}

#[tokio::test]
async fn services_are_offered_by_the_service_map_alone() {
    let (_, running) = start(&["-service_map=grpc-vtctl"], offer).await;
    assert_eq!(call(&running, "127.0.0.1", &ClientOptions::default()).await, "you are nobody");
    let (_, running) = start(&["-service_map=grpc-vtworker"], offer).await;
    assert_ne!(call(&running, "127.0.0.1", &ClientOptions::default()).await, "you are nobody");
}

fn client(args: &[&str]) -> ClientOptions {
    let parsed = Program::Vtctlclient.flag_set().parse(args).expect("valid flags");
    ClientOptions::from_flags(&parsed, "vtctld_grpc").expect("readable files")
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

#[tokio::test]
async fn static_authentication_knows_its_users() {
    let dir = tempfile::tempdir().expect("directory");
    let users = write(dir.path(), "users", r#"[{"Username":"vt","Password":"secret"}]"#);
    let good = write(dir.path(), "good", r#"{"Username":"vt","Password":"secret"}"#);
    let bad = write(dir.path(), "bad", r#"{"Username":"vt","Password":"guess"}"#);
    let flags = ["-service_map=grpc-vtctl", "-grpc_auth_mode=static", "-grpc_auth_static_password_file", &users];
    let (_, running) = start(&flags, offer).await;
    let call_as =
        async |file: &str| call(&running, "127.0.0.1", &client(&["-grpc_auth_static_client_creds", file])).await;
    assert_eq!(call_as("").await, "username and password must be provided");
    assert_eq!(call_as(&bad).await, "auth failure: caller \"vt\" provided invalid credentials");
    assert_eq!(call_as(&good).await, "you are nobody");
}

/// An authority, and the files of certificates that it signed.
struct Authority {
    dir: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    ca: String,
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let ca = write(dir.path(), "ca", &certificate.pem());
        Self { dir, issuer: rcgen::Issuer::new(params, key), ca }
    }

    /// Certificate and key of a name.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let file = |suffix: &str, text: &str| write(self.dir.path(), &format!("{name}{suffix}"), text);
        (file(".cert", &certificate.pem()), file(".key", &key.serialize_pem()))
    }
}

#[tokio::test]
async fn tls_works_both_ways_and_certificates_can_be_demanded() {
    let authority = Authority::new();
    let (cert, key) = authority.sign("server.test");
    let tls = ["-service_map=grpc-vtctl", "-grpc_cert", &cert, "-grpc_key", &key];
    let trusting = ["-vtctld_grpc_ca", &authority.ca, "-vtctld_grpc_server_name", "server.test"];

    let (_, running) = start(&tls, offer).await;
    assert_eq!(call(&running, "127.0.0.1", &client(&trusting)).await, "you are nobody");
    let wrong_name = client(&["-vtctld_grpc_ca", &authority.ca, "-vtctld_grpc_server_name", "other.test"]);
    assert_ne!(call(&running, "127.0.0.1", &wrong_name).await, "you are nobody");
    assert_ne!(call(&running, "127.0.0.1", &ClientOptions::default()).await, "you are nobody");

    let (vtgate_cert, vtgate_key) = authority.sign("vtgate.test");
    let (other_cert, other_key) = authority.sign("other.test");
    let certificate = |cert: &str, key: &str| {
        client(&[&trusting[..], &["-vtctld_grpc_cert", cert, "-vtctld_grpc_key", key]].concat())
    };
    let demanding =
        ["-grpc_ca", &authority.ca, "-grpc_auth_mode=mtls", "-grpc_auth_mtls_allowed_substrings=x:CN=vtgate"];
    let (_, running) = start(&[&tls[..], &demanding].concat(), offer).await;
    assert_eq!(call(&running, "127.0.0.1", &certificate(&vtgate_cert, &vtgate_key)).await, "you are vtgate.test");
    assert_eq!(
        call(&running, "127.0.0.1", &certificate(&other_cert, &other_key)).await,
        "client certificate not authorized"
    );
    let nobody = call(&running, "127.0.0.1", &client(&trusting)).await;
    assert!(!nobody.starts_with("you are"), "{nobody}");
}

/// What a client of another protocol on the port is told, after what it sent in small pieces; over TLS if there is any.
async fn echo(running: &Running, tls: Option<&tokio_rustls::TlsConnector>) -> String {
    let io = TcpStream::connect(running.grpc.expect("gRPC is on")).await.expect("connects");
    match tls {
        None => echo_over(io).await,
        Some(tls) => {
            let name = "server.test".try_into().expect("a name");
            echo_over(tls.connect(name, io).await.expect("TLS")).await
        }
    }
}

async fn echo_over(mut io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> String {
    for piece in ["EC", "HO----", "hello", "!"] {
        io.write_all(piece.as_bytes()).await.expect("sent");
        io.flush().await.expect("sent");
    }
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// Offers gRPC and a protocol that answers with the first bytes and with what the caller may do.
fn offer_both(server: &mut servenv::Server) {
    offer(server);
    let serve = |accepted: servenv::grpc::Accepted| async move {
        let servenv::grpc::Accepted { mut io, caller, stop } = accepted;
        let mut read = [0; 14];
        io.read_exact(&mut read).await.expect("from the first byte on");
        let may = |credentials| match caller.authenticate(credentials) {
            Ok(()) => "welcome".to_owned(),
            Err(status) => status.message().to_owned(),
        };
        let text = format!("{} {} {}", String::from_utf8_lossy(&read), may(None), may(Some(("vt", "secret"))));
        io.write_all(text.as_bytes()).await.expect("sent");
        io.shutdown().await.expect("closed");
        assert!(!stop.is_cancelled());
    };
    server.protocol(b"ECHO----", Arc::new(move |accepted| Box::pin(serve(accepted))));
}

#[tokio::test]
async fn another_protocol_shares_the_port() {
    let (_, running) = start(&["-service_map=grpc-vtctl"], offer_both).await;
    // Connections that say nothing hold up nobody.
    let silent = TcpStream::connect(running.grpc.expect("gRPC is on")).await.expect("connects");
    assert_eq!(echo(&running, None).await, "ECHO----hello! welcome welcome");
    assert_eq!(call(&running, "127.0.0.1", &ClientOptions::default()).await, "you are nobody");
    assert_eq!(echo(&running, None).await, "ECHO----hello! welcome welcome");
    drop(silent);

    let dir = tempfile::tempdir().expect("directory");
    let users = write(dir.path(), "users", r#"[{"Username":"vt","Password":"secret"}]"#);
    let flags = ["-service_map=grpc-vtctl", "-grpc_auth_mode=static", "-grpc_auth_static_password_file", &users];
    let (_, running) = start(&flags, offer_both).await;
    assert_eq!(echo(&running, None).await, "ECHO----hello! username and password must be provided welcome");

    let authority = Authority::new();
    let (cert, key) = authority.sign("server.test");
    let (other_cert, other_key) = authority.sign("other.test");
    let tls = |cert: &str, key: &str| {
        let pem = |path: &str| std::fs::read(path).expect("a file");
        let mut roots = tokio_rustls::rustls::RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut &pem(&authority.ca)[..]) {
            roots.add(certificate.expect("PEM")).expect("an authority");
        }
        let chain = rustls_pemfile::certs(&mut &pem(cert)[..]).collect::<Result<Vec<_>, _>>().expect("PEM");
        let key = rustls_pemfile::private_key(&mut &pem(key)[..]).expect("PEM").expect("a key");
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a certificate");
        tokio_rustls::TlsConnector::from(Arc::new(config))
    };
    let flags = ["-service_map=grpc-vtctl", "-grpc_cert", &cert, "-grpc_key", &key, "-grpc_ca", &authority.ca];
    let mtls = ["-grpc_auth_mode=mtls", "-grpc_auth_mtls_allowed_substrings=CN=server"];
    let (_, running) = start(&[&flags[..], &mtls].concat(), offer_both).await;
    assert_eq!(echo(&running, Some(&tls(&cert, &key))).await, "ECHO----hello! welcome welcome");
    let refused = "client certificate not authorized";
    assert_eq!(
        echo(&running, Some(&tls(&other_cert, &other_key))).await,
        format!("ECHO----hello! {refused} {refused}")
    );
}

#[tokio::test]
async fn a_local_socket_serves_and_goes() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("grpc.sock");
    // Left behind by a process that died.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    let flag = format!("-socket_file={}", path.display());
    let (_, running) = start(&[&flag, "-service_map=grpc-vtctl"], offer).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("unix://{}", path.display()))
        .expect("an address")
        .connect()
        .await
        .expect("connects");
    let outcome = VtctlClient::new(channel).execute_vtctl_command(ExecuteVtctlCommandRequest::default()).await;
    assert_eq!(outcome.map(|_| ()).expect_err("a status").message(), "you are nobody");
    running.wait(std::future::ready(())).await.expect("stops");
    assert!(!path.exists());
}

/// Whatever a stop meets: hooks run while gRPC still serves, an endless stream does not hold it up,
/// and the pid file is gone in the end.
#[tokio::test]
async fn a_stop_keeps_its_order_and_its_limit() {
    let dir = tempfile::tempdir().expect("directory");
    let pid_file = dir.path().join("pid");
    let pid_flag = format!("-pid_file={}", pid_file.display());
    let (order, mut steps) = tokio::sync::mpsc::unbounded_channel();
    let (address_sender, address) = oneshot::channel::<SocketAddr>();
    let address_receiver = std::sync::Mutex::new(Some(address));
    let flags = ["-service_map=grpc-vtctl", "-onterm_timeout=1s", "-lameduck-period=1ms", &pid_flag];
    let (_, running) = start(&flags, |server| {
        offer(server);
        let Some(address) = address_receiver.lock().expect("no panic").take() else { return };
        let sender = order.clone();
        server.on_term_sync(async move || {
            let address = address.await.expect("sent");
            let channel = ClientOptions::default().channel(&address.to_string()).expect("an address");
            let outcome = VtctlClient::new(channel).execute_vtctl_command(ExecuteVtctlCommandRequest::default()).await;
            let text = outcome.map(|_| ()).expect_err("a status").message().to_owned();
            sender.send(text).expect("somebody listens");
        });
        let sender = order.clone();
        server.on_close(async move || sender.send("closed".into()).expect("somebody listens"));
    })
    .await;
    assert!(pid_file.exists());
    let grpc = running.grpc.expect("gRPC is on");
    address_sender.send(grpc).expect("somebody listens");
    let channel = ClientOptions::default().channel(&grpc.to_string()).expect("an address");
    let endless = ExecuteVtctlCommandRequest { args: vec!["endless".into()], action_timeout: 0 };
    let stream = VtctlClient::new(channel).execute_vtctl_command(endless).await.expect("a stream without end");

    let begin = Instant::now();
    running.wait(std::future::ready(())).await.expect("stops");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(steps.recv().await.as_deref(), Some("you are nobody"));
    assert_eq!(steps.recv().await.as_deref(), Some("closed"));
    assert!(!pid_file.exists());
    assert!(TcpStream::connect(grpc).await.is_err());
    drop(stream);
}

/// Uses CPU until told to stop.
#[inline(never)]
fn spin_for_the_profile(stop: &AtomicBool) -> u64 {
    let mut n: u64 = 1;
    while !stop.load(Ordering::Relaxed) {
        n = std::hint::black_box(n.wrapping_mul(31).wrapping_add(7));
    }
    n
}

/// How often this program's file is mapped.
fn mappings_of_the_program() -> usize {
    let program = std::env::current_exe().expect("a program").display().to_string();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("this process has maps");
    maps.lines().filter(|line| line.ends_with(&program)).count()
}

#[tokio::test]
async fn a_profile_is_a_flame_graph_of_what_runs() {
    let (_env, running) = start(&[], |_| {}).await;
    let mapped = mappings_of_the_program();
    let stop = Arc::new(AtomicBool::new(false));
    let busy = std::thread::spawn({
        let stop = stop.clone();
        move || spin_for_the_profile(&stop)
    });
    let first = tokio::spawn(http(running.http, "GET", "/debug/profile?seconds=2"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (code, _, body) = http(running.http, "GET", "/debug/profile?seconds=1").await;
    assert_eq!(code, 409, "one at a time: {body}");
    let (code, head, svg) = first.await.expect("an answer");
    stop.store(true, Ordering::Relaxed);
    busy.join().expect("it stops");
    assert_eq!(code, 200, "{svg}");
    assert!(head.contains("content-type: image/svg+xml"), "{head}");
    assert!(svg.contains("<svg") && svg.contains("spin_for_the_profile"), "{}", svg.get(..2000).unwrap_or(&svg));
    assert_eq!(mappings_of_the_program(), mapped, "its debug information is not kept");
    let (code, _, svg) = http(running.http, "GET", "/debug/profile?seconds=1&hz=1").await;
    assert!(code == 200 && svg.contains("<svg"), "of a server at rest as well: {code} {svg}");
    for wrong in ["seconds=0", "seconds=1000", "hz=0"] {
        assert_eq!(http(running.http, "GET", &format!("/debug/profile?{wrong}")).await.0, 400, "{wrong}");
    }
}
