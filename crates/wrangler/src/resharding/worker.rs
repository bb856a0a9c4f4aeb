//! Jobs that are sent to a vtworker that serves.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;
use vtproto::logutil::Level;
use vtproto::vtworkerdata::ExecuteVtworkerCommandRequest;
use vtproto::vtworkerservice::vtworker_client::VtworkerClient;

use crate::Wrangler;
use crate::error::{Result, err};
use crate::logger::info;

/// How long a job that is in the way may take to end: that of a caller who went away is canceled, and gives back
/// what it took.
const IN_THE_WAY: Duration = Duration::from_secs(60);
/// How often it is asked whether it has.
const LOOK: Duration = Duration::from_millis(200);

/// Runs a job of vtworker to its end, with its log among ours. The vtworker is there for this caller alone: a job
/// that ended before is forgotten, one that failed now is kept for its page.
pub(crate) async fn run_on_vtworker(wr: &Wrangler, address: &str, words: &[String]) -> Result {
    let limit = Instant::now() + IN_THE_WAY;
    while let Err(status) = execute(wr, address, &["Reset".to_owned()]).await {
        if status.code() != tonic::Code::FailedPrecondition || Instant::now() > limit {
            return Err(err!("vtworker {address}: {}", status.message()));
        }
        tokio::time::sleep(LOOK).await;
    }
    execute(wr, address, words).await.map_err(|status| err!("{}", status.message()))
}

async fn execute(wr: &Wrangler, address: &str, words: &[String]) -> Result<(), tonic::Status> {
    let options = &wr.config().vtworker_client;
    let channel = options
        .channel(address)
        .map_err(|error| tonic::Status::invalid_argument(format!("cannot dial to vtworker {address}: {error}")))?;
    let mut client = VtworkerClient::with_interceptor(channel, options.auth.clone());
    let request = ExecuteVtworkerCommandRequest { args: words.to_vec() };
    let mut events = client.execute_vtworker_command(request).await?.into_inner();
    while let Some(response) = events.next().await {
        let event = response?.event.unwrap_or_default();
        if event.level() == Level::Console {
            wr.logger().print(event.value).await;
        } else {
            info!(wr, "vtworker: {}", event.value);
        }
    }
    Ok(())
}
