//! The client side of commands that run elsewhere: vtctlclient, and whatever else sends a command
//! line to a server and shows the events that come back.
//!
//! Owns: waiting for the server, the limit of time, printing of events. A program brings the one RPC.

mod connect;
mod events;

use std::time::Duration;

use futures::stream::BoxStream;
use servenv::grpc::{ClientAuth, ClientOptions};
use servenv::{Env, flags::print_go_duration};
use tokio::time::Instant;
use tonic::transport::Channel;
use vterrors::VtError;
use vtproto::logutil::Event;

pub use events::{Output, Terminal};

/// Longer than any command runs, short enough to be added to the present.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Why a command did not succeed; the text is what the user reads.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("please specify -server <{0}_host:{0}_port> to specify the {0} server to connect to")]
    NoServer(&'static str),
    #[error("unknown {0} client protocol: {1}")]
    Protocol(&'static str, String),
    #[error("cannot dial to server {0}: {1}")]
    Dial(String, servenv::Error),
    #[error("remote error: {0}")]
    Remote(VtError),
    /// Nobody reads our output any more.
    #[error("cannot write output: {0}")]
    Output(#[from] std::io::Error),
}

impl ClientError {
    /// A request for help arrives as an error, but the user got what he asked for.
    pub fn is_help(&self) -> bool {
        matches!(self, Self::Remote(error) if error.message().contains("flag: help requested"))
    }
}

/// What a program sends and where.
#[derive(Debug)]
pub struct Command {
    /// The kind of server, for texts: `vtctld`.
    pub server_kind: &'static str,
    pub address: String,
    pub options: ClientOptions,
    /// Limit of everything: waiting for the server and the command itself.
    pub timeout: Duration,
}

impl Command {
    /// Reads `-server`, `-action_timeout` (vtworkerclient has none: a clone takes as long as it takes) and the TLS flags
    /// of `tls_prefix`.
    ///
    /// # Errors
    /// No server is named or a file of TLS or credentials cannot be read.
    pub fn from_flags(env: &Env, server_kind: &'static str, tls_prefix: &str) -> Result<Self, ClientError> {
        let address = env.flags().str("server").to_owned();
        if address.is_empty() {
            return Err(ClientError::NoServer(server_kind));
        }
        let options = ClientOptions::from_flags(env.flags(), tls_prefix)
            .map_err(|error| ClientError::Dial(address.clone(), error))?;
        let limited = env.flags().is_defined("action_timeout");
        let timeout = if limited { env.flags().duration("action_timeout") } else { NO_LIMIT };
        Ok(Self { server_kind, address, options, timeout })
    }

    /// Waits for the server, starts the RPC that `start` makes and shows its events until it ends,
    /// the time is over or `interrupted` resolves. Dropping the RPC cancels it on the server.
    ///
    /// # Errors
    /// What the server answered, or why there is no answer.
    pub async fn run<F, Fut>(
        &self,
        output: &mut impl Output,
        interrupted: impl Future<Output = ()>,
        start: F,
    ) -> Result<(), ClientError>
    where
        F: FnOnce(Channel, ClientAuth) -> Fut,
        Fut: Future<Output = Result<BoxStream<'static, Result<Event, tonic::Status>>, tonic::Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let canceled = |status: tonic::Status| ClientError::Remote(VtError::from_status(&status));
        tokio::select! {
            outcome = self.run_until(output, deadline, start) => outcome,
            () = tokio::time::sleep_until(deadline) =>
                Err(canceled(tonic::Status::deadline_exceeded("context deadline exceeded"))),
            () = interrupted => Err(canceled(tonic::Status::cancelled("context canceled"))),
        }
    }

    /// What the connection's own end means: a server that wants TLS hangs up on whoever comes without, or with a
    /// certificate that it does not know, and gRPC calls that a cancellation.
    fn explain(&self, status: tonic::Status) -> tonic::Status {
        let hung_up = match status.code() {
            tonic::Code::Cancelled => status.message() == "operation was canceled",
            tonic::Code::Unknown | tonic::Code::Unavailable => status.message().starts_with("transport error"),
            // Its TLS alert came first, which is no HTTP/2.
            tonic::Code::Internal => status.message().starts_with("h2 protocol error"),
            _ => false,
        };
        if !hung_up {
            return status;
        }
        let (kind, address) = (self.server_kind, &self.address);
        tonic::Status::unavailable(format!(
            "the {kind} at {address} closed the connection without an answer; if it wants TLS, see the flags -{kind}_grpc_ca, \
             -{kind}_grpc_cert and -{kind}_grpc_key"
        ))
    }

    async fn run_until<F, Fut>(&self, output: &mut impl Output, deadline: Instant, start: F) -> Result<(), ClientError>
    where
        F: FnOnce(Channel, ClientAuth) -> Fut,
        Fut: Future<Output = Result<BoxStream<'static, Result<Event, tonic::Status>>, tonic::Status>>,
    {
        let remote = |status: tonic::Status| ClientError::Remote(VtError::from_status(&status));
        let endpoint =
            self.options.endpoint(&self.address).map_err(|error| ClientError::Dial(self.address.clone(), error))?;
        let notice = |error: &str| {
            // Not a log line: it shows whatever the log flags are.
            let limit = print_go_duration(self.timeout);
            eprintln!("waiting for the {} at {} (at most {limit}): {error}", self.server_kind, self.address);
        };
        let channel = connect::wait(&endpoint, deadline, notice).await.map_err(remote)?;
        let events = start(channel, self.options.auth.clone()).await.map_err(|status| remote(self.explain(status)))?;
        events::print(events, output).await
    }
}
