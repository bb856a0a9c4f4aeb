//! StreamHealth: what the tablet tells about itself, to whoever subscribes.
//!
//! Owns: the last message and its subscribers. Does not own the health itself: the tablet manager
//! broadcasts it. A subscriber that is slow gets the newest message and misses those in between.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vtproto::query::StreamHealthResponse;

#[derive(Debug, Clone)]
struct Message {
    response: StreamHealthResponse,
    /// Until when a new subscriber is sent it at once.
    fresh_until: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Health {
    last: watch::Sender<Option<Message>>,
    ended: CancellationToken,
}

impl Default for Health {
    fn default() -> Self {
        Self { last: watch::channel(None).0, ended: CancellationToken::new() }
    }
}

impl Health {
    /// Sends to every subscriber, and for `max_cache` to new ones.
    pub fn broadcast(&self, response: StreamHealthResponse, max_cache: Duration) {
        self.last.send_replace(Some(Message { response, fresh_until: Instant::now() + max_cache }));
    }

    /// Sends the last message again: something about the tablet changed that it does not say, and
    /// those who wait for it should look.
    pub fn repeat(&self) {
        self.last.send_if_modified(|last| last.is_some());
    }

    /// Ends all streams: whoever stops has said so in the last message, and waits for nobody who listens on.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// The last state at once if it is still fresh, then every later one. Ends with the tablet.
    pub fn subscribe(&self) -> BoxStream<'static, StreamHealthResponse> {
        let mut receiver = self.last.subscribe();
        let fresh = |message: &Option<Message>| {
            message.as_ref().filter(|m| m.fresh_until > Instant::now()).map(|m| m.response.clone())
        };
        let first = fresh(&receiver.borrow_and_update());
        let later = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok()?;
            let response = receiver.borrow_and_update().as_ref().map(|m| m.response.clone());
            Some((response, receiver))
        });
        let ended = self.ended.clone().cancelled_owned();
        futures::stream::iter(first).chain(later.filter_map(std::future::ready)).take_until(ended).boxed()
    }

    /// The last message.
    pub fn last(&self) -> Option<StreamHealthResponse> {
        self.last.borrow().as_ref().map(|m| m.response.clone())
    }

    /// How many subscribe now.
    pub fn subscribers(&self) -> usize {
        self.last.receiver_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(serving: bool) -> StreamHealthResponse {
        StreamHealthResponse { serving, ..StreamHealthResponse::default() }
    }

    #[tokio::test]
    async fn a_subscriber_gets_the_last_state_and_then_changes() {
        let health = Health::default();
        health.broadcast(state(true), Duration::from_secs(60));
        let mut stream = health.subscribe();
        assert_eq!(stream.next().await, Some(state(true)));
        health.broadcast(state(false), Duration::from_secs(60));
        assert_eq!(stream.next().await, Some(state(false)));
        drop(health);
        assert_eq!(stream.next().await, None);
    }

    #[tokio::test]
    async fn a_tablet_that_stops_ends_the_streams() {
        let health = Health::default();
        let mut stream = health.subscribe();
        health.broadcast(state(false), Duration::from_secs(60));
        assert_eq!(stream.next().await, Some(state(false)));
        health.end();
        assert_eq!(stream.next().await, None);
    }

    #[tokio::test]
    async fn a_stale_state_is_not_sent() {
        let health = Health::default();
        health.broadcast(state(true), Duration::ZERO);
        let mut stream = health.subscribe();
        health.broadcast(state(false), Duration::ZERO);
        assert_eq!(stream.next().await, Some(state(false)));
    }
}
