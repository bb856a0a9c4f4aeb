//! The handle that every command works with.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tabletclient::cutover::Cutover;
use tabletclient::tm::{TabletManager, TmError};
use topo::TopoServer;
use vterrors::Code;

use crate::{Config, Logger, Result};

/// The topology, the tablets' managers, the settings and the log of one command. Cheap to clone;
/// [`Wrangler::with_logger`] makes the handle for one command out of a process's.
#[derive(Clone)]
pub struct Wrangler {
    topo: TopoServer,
    tmc: Arc<dyn TabletManager>,
    gates: Arc<dyn Cutover>,
    config: Arc<Config>,
    logger: Logger,
}

impl Wrangler {
    /// `tablets` speaks to the managers of tablets and to their cutover gates.
    pub fn new<T>(topo: TopoServer, tablets: Arc<T>, config: Config) -> Self
    where
        T: TabletManager + Cutover + 'static,
    {
        Self { topo, tmc: tablets.clone(), gates: tablets, config: Arc::new(config), logger: Logger::discard() }
    }

    /// The same, writing to `logger`.
    #[must_use]
    pub fn with_logger(&self, logger: Logger) -> Self {
        Self { logger, ..self.clone() }
    }

    pub fn topo(&self) -> &TopoServer {
        &self.topo
    }

    pub fn tmc(&self) -> &dyn TabletManager {
        &*self.tmc
    }

    /// The cutover gates of tablets.
    pub(crate) fn gates(&self) -> &dyn Cutover {
        &*self.gates
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn logger(&self) -> &Logger {
        &self.logger
    }

    /// Runs an operation to its end even if the caller is dropped meanwhile: a shard whose master is
    /// being changed must not be left half-way because a client went away. `operation` bounds its own
    /// calls.
    pub(crate) async fn to_the_end<T: Send + 'static>(&self, operation: BoxFuture<'static, Result<T>>) -> Result<T> {
        match tokio::spawn(operation).await {
            Ok(outcome) => outcome,
            Err(join) => match join.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(crate::Error::rule("the operation was cancelled: the process is ending")),
            },
        }
    }
}

/// A call to a tablet, bounded. Running out of time looks like the tablet's own `DeadlineExceeded`.
pub(crate) async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, TmError>>) -> Result<T, TmError> {
    match tokio::time::timeout(limit, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(TmError::new(Code::DeadlineExceeded, "context deadline exceeded")),
    }
}
