//! What a job has to put back: recorded before it changes something, done in reverse at its end, whatever the end.

use std::time::Duration;

use futures::future::BoxFuture;
use vterrors::VtError;

type Action = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), VtError>> + Send>;

/// Longest one action may take: a dead tablet must not hold up the others.
const LIMIT: Duration = Duration::from_secs(60);

/// Actions in the order in which they were recorded.
#[derive(Default)]
pub struct Cleaner {
    actions: Vec<(String, Action)>,
}

impl Cleaner {
    /// Records what undoes the step that comes next.
    pub fn record<Fut>(&mut self, what: impl Into<String>, action: impl FnOnce() -> Fut + Send + 'static)
    where
        Fut: Future<Output = Result<(), VtError>> + Send + 'static,
    {
        self.actions.push((what.into(), Box::new(move || Box::pin(action()))));
    }

    /// Does everything, last first. An action that fails does not keep the others from being done.
    ///
    /// # Errors
    /// The failures, joined.
    pub async fn clean(&mut self) -> Result<(), VtError> {
        let mut failures = Vec::new();
        for (what, action) in std::mem::take(&mut self.actions).into_iter().rev() {
            tracing::info!("cleaning up: {what}");
            let outcome = match tokio::time::timeout(LIMIT, action()).await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err(format!("not done within {LIMIT:?}")),
            };
            if let Err(error) = outcome {
                tracing::error!("cleaning up: {what}: {error}");
                failures.push(format!("{what}: {error}"));
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        Err(VtError::new(vterrors::Code::Unknown, failures.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn actions_run_in_reverse_and_all_of_them() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let mut cleaner = Cleaner::default();
        for (name, fails) in [("first", false), ("second", true), ("third", false)] {
            let done = done.clone();
            cleaner.record(name, move || async move {
                done.lock().expect("no panic").push(name);
                if fails { Err(VtError::new(vterrors::Code::Unknown, "gone")) } else { Ok(()) }
            });
        }
        let error = cleaner.clean().await.expect_err("the second failed");
        assert_eq!(error.message(), "second: gone");
        assert_eq!(*done.lock().expect("no panic"), ["third", "second", "first"]);
        cleaner.clean().await.expect("nothing is left");
    }
}
