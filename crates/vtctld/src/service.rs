//! `vtctlservice.Vtctl`: runs one command per call and streams its events as they happen.
//!
//! Invariants: a client that reads slowly slows its command down, at most [`EVENTS`] events wait; a
//! client that goes away ends its command, except for the parts that have to reach their end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};
use tracing::Instrument;
use vtproto::logutil::{Event, Level};
use vtproto::vtctldata::{ExecuteVtctlCommandRequest, ExecuteVtctlCommandResponse};
use vtproto::vtctlservice::vtctl_server::Vtctl;
use wrangler::logger::Sink;
use wrangler::{Logger, Wrangler, run_command};

/// Events that may wait for one client.
const EVENTS: usize = 64;

/// How long a log event waits for a client that does not read.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// The gRPC service.
#[derive(Clone)]
pub struct VtctlService {
    wr: Wrangler,
}

impl VtctlService {
    pub fn new(wr: Wrangler) -> Self {
        Self { wr }
    }
}

type Item = Result<ExecuteVtctlCommandResponse, Status>;

/// Sends events to the client, and what is no output to the log of this process too.
struct ClientSink {
    events: mpsc::Sender<Item>,
}

#[async_trait::async_trait]
impl Sink for ClientSink {
    async fn send(&self, event: Event) {
        match event.level() {
            Level::Info => tracing::info!("{}", event.value),
            Level::Warning => tracing::warn!("{}", event.value),
            Level::Error => tracing::error!("{}", event.value),
            Level::Console => tracing::debug!("{}", event.value),
        }
        let is_output = event.level() == Level::Console;
        let sent = self.events.send(Ok(ExecuteVtctlCommandResponse { event: Some(event) }));
        // A client that has gone away ends the command itself: a failed send is no error. One that only
        // does not read holds its command up by output, but a change of masters, which goes on without
        // its client, must not hold a lock until somebody reads its log.
        if is_output {
            let _ = sent.await;
        } else if tokio::time::timeout(LOG_PATIENCE, sent).await.is_err() {
            tracing::warn!("a client does not read its command's log, an event is left out");
        }
    }
}

/// The events of a command. Dropping it aborts the command.
pub struct Events {
    events: mpsc::Receiver<Item>,
    _command: AbortOnDropHandle<()>,
}

impl Stream for Events {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.events.poll_recv(cx)
    }
}

#[tonic::async_trait]
impl Vtctl for VtctlService {
    type ExecuteVtctlCommandStream = Events;

    async fn execute_vtctl_command(
        &self,
        request: Request<ExecuteVtctlCommandRequest>,
    ) -> Result<Response<Events>, Status> {
        let args = request.into_inner().args;
        let (sender, events) = mpsc::channel(EVENTS);
        let wr = self.wr.with_logger(Logger::new(Arc::new(ClientSink { events: sender.clone() })));
        let span = tracing::info_span!("command", name = args.first().map_or("", String::as_str));
        let command = async move {
            tracing::info!("running {}", args.join(" "));
            if let Err(error) = run_command(&wr, &args).await {
                tracing::info!("failed: {error}");
                let _ = sender.send(Err(error.to_vt_error().into())).await;
            }
        };
        let command = AbortOnDropHandle::new(tokio::spawn(command.instrument(span)));
        Ok(Response::new(Events { events, _command: command }))
    }
}
