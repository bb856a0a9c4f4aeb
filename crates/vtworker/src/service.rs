//! `vtworkerservice.Vtworker`: runs one command per call and streams its events as they happen.
//!
//! Invariants: at most [`EVENTS`] events wait for a client; a client that goes away cancels its job, which then still
//! gives back what it took.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};
use vtproto::logutil::{Event, Level};
use vtproto::vtworkerdata::{ExecuteVtworkerCommandRequest, ExecuteVtworkerCommandResponse};
use vtproto::vtworkerservice::vtworker_server::Vtworker;
use wrangler::Logger;
use wrangler::logger::Sink;

use crate::Instance;

/// Events that may wait for one client.
const EVENTS: usize = 64;
/// How long an event waits for a client that does not read: a job that holds tablets must not wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The gRPC service.
#[derive(Clone)]
pub struct VtworkerService {
    instance: Instance,
}

impl VtworkerService {
    pub fn new(instance: Instance) -> Self {
        Self { instance }
    }
}

type Item = Result<ExecuteVtworkerCommandResponse, Status>;

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
        let sent = self.events.send(Ok(ExecuteVtworkerCommandResponse { event: Some(event) }));
        if tokio::time::timeout(PATIENCE, sent).await.is_err() {
            tracing::warn!("a client does not read its command's output, an event is left out");
        }
    }
}

/// The events of a command. Dropping it cancels the command.
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
impl Vtworker for VtworkerService {
    type ExecuteVtworkerCommandStream = Events;

    async fn execute_vtworker_command(
        &self,
        request: Request<ExecuteVtworkerCommandRequest>,
    ) -> Result<Response<Events>, Status> {
        let args = request.into_inner().args;
        let (sender, events) = mpsc::channel(EVENTS);
        let logger = Logger::new(Arc::new(ClientSink { events: sender.clone() }));
        let instance = self.instance.clone();
        let command = async move {
            tracing::info!("running {}", args.join(" "));
            if let Err(error) = instance.run_command(&args, logger).await {
                tracing::info!("failed: {error}");
                let _ = sender.send(Err(error.into())).await;
            }
        };
        let command = AbortOnDropHandle::new(tokio::spawn(command));
        Ok(Response::new(Events { events, _command: command }))
    }
}
