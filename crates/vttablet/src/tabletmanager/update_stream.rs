//! The switch of `binlogservice.UpdateStream`: other shards read from this tablet while the manager says so.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vreplication::source::UpdateStreamService;

/// Keeps the service in line with the tablet until `stop`.
pub async fn follow(service: UpdateStreamService, mut streaming: watch::Receiver<bool>, stop: CancellationToken) {
    loop {
        let now = *streaming.borrow_and_update();
        service.set_enabled(now);
        tokio::select! {
            () = stop.cancelled() => break,
            changed = streaming.changed() => if changed.is_err() {
                break;
            },
        }
    }
    service.set_enabled(false);
}
