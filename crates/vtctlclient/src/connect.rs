//! Waiting for a server that may not be up yet: scripts start a server and at once its client.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// First and longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// After this long without success the user is told what is going on.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connects, again and again until `deadline`. `notice` is called once with the reason of the latest
/// failure when it takes long.
pub(crate) async fn wait(endpoint: &Endpoint, deadline: Instant, notice: impl FnOnce(&str)) -> Result<Channel, Status> {
    let begin = Instant::now();
    let mut notice = Some(notice);
    let mut pause = PAUSES.0;
    loop {
        let reason = match tokio::time::timeout_at(deadline, endpoint.connect()).await {
            Ok(Ok(channel)) => return Ok(channel),
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer".into(),
        };
        if Instant::now() + pause >= deadline {
            return Err(Status::deadline_exceeded(format!("latest connection error: {reason}")));
        }
        if begin.elapsed() >= PATIENCE
            && let Some(notice) = notice.take()
        {
            notice(&reason);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// An error with everything that caused it, without repetitions.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
