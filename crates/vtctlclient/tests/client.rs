//! The built program against a vtctld made up for the test.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use vtproto::logutil::{Event, Level};
use vtproto::vtctldata::{ExecuteVtctlCommandRequest, ExecuteVtctlCommandResponse};
use vtproto::vtctlservice::vtctl_server::{Vtctl, VtctlServer};

struct Fake;

fn event(level: Level, value: &str) -> Result<ExecuteVtctlCommandResponse, Status> {
    let time = Some(vtproto::vttime::Time { seconds: 1_573_203_901, nanoseconds: 42_000 });
    let event = Event { time, level: level.into(), file: "validator.go".into(), line: 52, value: value.into() };
    Ok(ExecuteVtctlCommandResponse { event: Some(event) })
}

type Events = futures::stream::BoxStream<'static, Result<ExecuteVtctlCommandResponse, Status>>;

#[tonic::async_trait]
impl Vtctl for Fake {
    type ExecuteVtctlCommandStream = Events;

    async fn execute_vtctl_command(
        &self,
        request: Request<ExecuteVtctlCommandRequest>,
    ) -> Result<Response<Events>, Status> {
        let user = request.metadata().get("username").map(|user| user.to_str().expect("ASCII").to_owned());
        let request = request.into_inner();
        let events: Vec<_> = match request.args.first().map(String::as_str) {
            Some("Echo") => vec![
                event(Level::Console, "no line feed, "),
                event(Level::Info, "an info"),
                event(Level::Console, &format!("{:?} {}\n", request.args, request.action_timeout)),
            ],
            Some("WhoAmI") => vec![event(Level::Console, &user.unwrap_or_default())],
            Some("Validate") => vec![
                event(Level::Error, "no master for shard customer/40-80\n"),
                Err(Status::unknown("some validation errors - see log")),
            ],
            Some("Help") => vec![event(Level::Console, "Usage: Help\n"), Err(Status::unknown("flag: help requested"))],
            Some("Hang") => {
                let first = futures::stream::iter([event(Level::Console, "started\n")]);
                use futures::StreamExt;
                return Ok(Response::new(first.chain(futures::stream::pending()).boxed()));
            }
            _ => vec![Err(Status::unknown("unknown command"))],
        };
        Ok(Response::new(Box::pin(futures::stream::iter(events))))
    }
}

async fn serve(listener: TcpListener) {
    tonic::transport::Server::builder()
        .add_service(VtctlServer::new(Fake))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .expect("serves");
}

async fn fake() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(serve(listener));
    address
}

fn client(logs: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vtctlclient"));
    command.arg("-log_dir").arg(logs.path()).args(args).kill_on_drop(true);
    command
}

async fn run(args: &[&str]) -> Output {
    let logs = tempfile::tempdir().expect("directory");
    client(&logs, args).output().await.expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn console_text_is_passed_on_as_it_is() {
    let server = fake().await.to_string();
    let logs = tempfile::tempdir().expect("directory");
    let output = client(&logs, &["-server", &server, "--action-timeout=30s", "Echo", "-x", "--", "a b"]).output().await;
    let output = output.expect("the program runs");
    assert_eq!(text(&output.stdout), "no line feed, [\"Echo\", \"-x\", \"--\", \"a b\"] 30000000000\n");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    let log = std::fs::read_to_string(logs.path().join("vtctlclient.INFO")).expect("a log");
    assert!(log.lines().any(|line| line.starts_with('I') && line.ends_with(" validator.go:52] an info")), "{log}");
}

#[tokio::test]
async fn a_failure_is_told_on_standard_error() {
    let server = fake().await.to_string();
    let output = run(&["-server", &server, "Validate"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let stderr = text(&output.stderr);
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].starts_with('E') && lines[0].contains("] E1108 "), "{stderr}");
    assert!(lines[0].ends_with(" validator.go:52] no master for shard customer/40-80"), "{stderr}");
    let end = "] remote error: rpc error: code = Unknown desc = some validation errors - see log";
    assert!(lines[1].starts_with('E') && lines[1].ends_with(end), "{stderr}");
}

#[tokio::test]
async fn help_is_no_failure() {
    let server = fake().await.to_string();
    let output = run(&["-server", &server, "Help"]).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "Usage: Help\n".into()));
    assert_eq!(text(&output.stderr), "");
}

#[tokio::test]
async fn bad_flags_are_refused_before_anything_is_sent() {
    let output = run(&["GetKeyspaces"]).await;
    assert_eq!(output.status.code(), Some(1));
    let text_ = text(&output.stderr);
    assert!(
        text_.ends_with(
            "] please specify -server <vtctld_host:vtctld_port> to specify the vtctld server to connect to\n"
        ),
        "{text_}"
    );
    let output = run(&["-nope", "GetKeyspaces"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("flag provided but not defined: -nope\nUsage of vtctlclient:\n"));
    let output = run(&["-h"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("-server string\n"));
}

#[tokio::test]
async fn it_waits_for_a_server_that_starts_later() {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], testcluster::free_port()));
    let logs = tempfile::tempdir().expect("directory");
    let waiting = client(&logs, &["-server", &address.to_string(), "Echo"]).stdout(Stdio::piped()).spawn();
    let waiting = waiting.expect("the program runs");
    // The log of the first attempts is not needed: the client may connect at any time from now on.
    let listener = TcpListener::bind(address).await.expect("the port is still free");
    tokio::spawn(serve(listener));
    let output = tokio::time::timeout(Duration::from_secs(20), waiting.wait_with_output()).await;
    let output = output.expect("in time").expect("the program ran");
    assert!(text(&output.stdout).starts_with("no line feed, [\"Echo\"]"), "{output:?}");
}

#[tokio::test]
async fn nobody_there_ends_with_the_action_timeout() {
    let address = format!("127.0.0.1:{}", testcluster::free_port());
    let output = run(&["-server", &address, "-action_timeout", "300ms", "GetKeyspaces"]).await;
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("] remote error: rpc error: code = DeadlineExceeded desc = "), "{stderr}");
}

#[tokio::test]
async fn an_interrupt_cancels_the_command() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let server = fake().await.to_string();
    let logs = tempfile::tempdir().expect("directory");
    let mut running = client(&logs, &["-server", &server, "Hang"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut lines = BufReader::new(running.stdout.take().expect("piped")).lines();
    assert_eq!(lines.next_line().await.expect("readable").as_deref(), Some("started"));
    let id = running.id().expect("it runs").to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().expect("kill runs").success());
    let output = tokio::time::timeout(Duration::from_secs(20), running.wait_with_output()).await;
    let output = output.expect("in time").expect("it ran");
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.ends_with("] remote error: rpc error: code = Canceled desc = context canceled\n"), "{stderr}");
}

#[tokio::test]
async fn credentials_are_sent() {
    let server = fake().await.to_string();
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("creds.json");
    std::fs::write(&file, r#"{"Username": "vt_admin", "Password": "secret"}"#).expect("written");
    let file = file.to_str().expect("UTF-8");
    let output = run(&["-server", &server, "-grpc_auth_static_client_creds", file, "WhoAmI"]).await;
    assert_eq!(text(&output.stdout), "vt_admin");
}
