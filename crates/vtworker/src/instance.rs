//! The one job of a process: started if there is none, canceled, looked at, forgotten by Reset.
//!
//! Invariants: at most one job runs; a job that ended is kept until Reset, so that nobody starts the next one without
//! having seen how the last one ended; a caller that goes away cancels its job, and the job runs on to the end of its
//! clean-up.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use servenv::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vterrors::{Code, VtError};
use wrangler::Logger;

use crate::command::{self, Work};
use crate::env::WorkerEnv;
use crate::status::{State, Status};

/// After the end of a job, for how long a client is told to try again instead of to act.
const GRACE: Duration = Duration::from_secs(60);

/// What a job works with.
#[derive(Clone)]
pub struct JobContext {
    pub env: Arc<WorkerEnv>,
    pub status: Arc<Status>,
    /// Cancelled when the job has to end.
    pub stop: CancellationToken,
    pub logger: Logger,
}

impl JobContext {
    /// CANCELED if the job has to end.
    ///
    /// # Errors
    /// That.
    pub fn check(&self) -> Result<(), VtError> {
        if self.stop.is_cancelled() { Err(canceled()) } else { Ok(()) }
    }

    /// Passes a place where a test may end the job.
    ///
    /// # Errors
    /// A test wants that.
    pub async fn pass(&self, place: &'static str) -> Result<(), VtError> {
        let points = self.env.failpoints.clone();
        if points.is_empty() {
            return Ok(());
        }
        // It may have to wait there.
        let hit = tokio::task::spawn_blocking(move || points.hit(place)).await.unwrap_or(Ok(()));
        hit.map_err(|_| VtError::new(Code::Internal, format!("fail point {place}")))
    }

    /// Runs `work` until it ends or the job is canceled.
    ///
    /// # Errors
    /// Those of `work`, or CANCELED.
    pub async fn or_canceled<T>(&self, work: impl Future<Output = Result<T, VtError>>) -> Result<T, VtError> {
        match self.stop.run_until_cancelled(work).await {
            Some(outcome) => outcome,
            None => Err(canceled()),
        }
    }
}

fn canceled() -> VtError {
    VtError::new(Code::Canceled, "context canceled")
}

struct Job {
    status: Arc<Status>,
    stop: CancellationToken,
    ended: watch::Receiver<Option<Instant>>,
}

struct Inner {
    env: Arc<WorkerEnv>,
    job: Mutex<Option<Job>>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Instance {
    inner: Arc<Inner>,
}

impl Instance {
    pub fn new(env: Arc<WorkerEnv>) -> Self {
        Self { inner: Arc::new(Inner { env, job: Mutex::new(None) }) }
    }

    fn job(&self) -> MutexGuard<'_, Option<Job>> {
        self.inner.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the job, running or ended.
    pub fn status(&self) -> Option<Arc<Status>> {
        self.job().as_ref().map(|job| job.status.clone())
    }

    pub fn is_running(&self) -> bool {
        self.job().as_ref().is_some_and(|job| job.ended.borrow().is_none())
    }

    /// Publishes `WorkerState`.
    pub fn export(&self, stats: &Registry) {
        let instance = self.clone();
        stats.string_func("WorkerState", move || {
            instance.status().map_or(State::NotStarted, |status| status.state()).text().to_owned()
        });
    }

    /// Asks the running job to end; false if none runs.
    pub fn cancel(&self) -> bool {
        let job = self.job();
        let Some(job) = job.as_ref().filter(|job| job.ended.borrow().is_none()) else { return false };
        tracing::info!("canceling {}", job.status.command);
        job.stop.cancel();
        true
    }

    /// Asks the running job to end and waits until it has.
    pub async fn cancel_and_wait(&self) {
        self.cancel();
        let ended = self.job().as_ref().map(|job| job.ended.clone());
        if let Some(mut ended) = ended {
            // The sender lives as long as the job.
            let _ = ended.wait_for(Option::is_some).await;
        }
    }

    /// Forgets a job that ended.
    ///
    /// # Errors
    /// FAILED_PRECONDITION while one runs.
    pub fn reset(&self) -> Result<(), VtError> {
        let mut job = self.job();
        if job.as_ref().is_some_and(|job| job.ended.borrow().is_none()) {
            return Err(VtError::new(Code::FailedPrecondition, "worker still executing"));
        }
        *job = None;
        Ok(())
    }

    /// Runs a command to its end. Dropping the future cancels the job.
    ///
    /// # Errors
    /// Those of the command; UNAVAILABLE or FAILED_PRECONDITION if the last job stands in the way.
    pub async fn run_command(&self, args: &[String], logger: Logger) -> Result<(), VtError> {
        match args.first().map(String::as_str) {
            Some(name) if name.eq_ignore_ascii_case("Reset") => return self.reset(),
            Some(name) if name.eq_ignore_ascii_case("Cancel") => {
                if !self.cancel() {
                    logger.println("No job is running.").await;
                }
                return Ok(());
            }
            Some(name) if name.eq_ignore_ascii_case("Help") => {
                command::print_all(&logger).await;
                return Ok(());
            }
            _ => {}
        }
        let (name, work) = command::prepare(args, &logger).await?;
        self.run(name, work, logger).await
    }

    async fn run(&self, name: &str, work: Work, logger: Logger) -> Result<(), VtError> {
        let (end, ended) = watch::channel(None);
        let context = JobContext {
            env: self.inner.env.clone(),
            status: Arc::new(Status::new(name)),
            stop: CancellationToken::new(),
            logger,
        };
        {
            let mut job = self.job();
            if let Some(last) = &*job {
                return Err(refused(last));
            }
            *job = Some(Job { status: context.status.clone(), stop: context.stop.clone(), ended });
        }
        // Dropped with this future: a caller that goes away cancels.
        let _cancel = context.stop.clone().drop_guard();
        let (status, stop) = (context.status.clone(), context.stop.clone());
        let task = tokio::spawn(async move {
            let outcome = AssertUnwindSafe(async { work(context).await }).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|panic| Err(panicked(&*panic)));
            let outcome = outcome.map_err(|error| if stop.is_cancelled() { as_canceled(error) } else { error });
            match &outcome {
                Ok(()) => status.set_state(State::Done),
                Err(error) => status.set_error(error.message()),
            }
            end.send_replace(Some(Instant::now()));
            outcome
        });
        match task.await {
            Ok(outcome) => outcome,
            Err(error) => Err(VtError::new(Code::Internal, format!("the job's task ended: {error}"))),
        }
    }
}

/// Why no job can start now.
fn refused(last: &Job) -> VtError {
    let text = last.status.text();
    match *last.ended.borrow() {
        None => VtError::new(Code::Unavailable, format!("A worker job is already in progress: {text}")),
        Some(ended) if ended.elapsed() < GRACE => VtError::new(
            Code::Unavailable,
            format!(
                "A worker job was recently stopped ({:.6} seconds ago). If you run commands manually, run the 'Reset' \
                 command first. Job: {text}",
                ended.elapsed().as_secs_f64()
            ),
        ),
        Some(ended) => VtError::new(
            Code::FailedPrecondition,
            format!(
                "The worker job was stopped {:.1} minutes ago, but not reset. Run the 'Reset' command to clear it \
                 manually. Job: {text}",
                ended.elapsed().as_secs_f64() / 60.0
            ),
        ),
    }
}

fn as_canceled(error: VtError) -> VtError {
    if error.code() == Code::Canceled && error.message().starts_with("command '") {
        return error;
    }
    VtError::new(Code::Canceled, format!("vtworker command was canceled: {}", error.message()))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> VtError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown cause".to_owned());
    VtError::new(Code::Internal, format!("uncaught vtworker panic: {text}"))
}
