//! vtworker: the jobs that read whole shards. Clones and comparisons for splits.
//!
//! Owns: the process ([`run`]), the one job that it runs at a time ([`instance`]), the jobs ([`clone`], [`diff`],
//! [`debug`]). Does not own: filtered replication after the copy (`vreplication`), moving traffic (`wrangler`).
//! Invariants: one job at a time; a job that ends, in whatever way but a crash, gives back the tablets that it took;
//! a clone that was killed can be run again and goes on where it was.

pub mod cleaner;
pub mod clone;
mod command;
pub mod debug;
pub mod diff;
pub mod display;
pub mod env;
pub mod instance;
mod page;
mod rows;
mod service;
mod sql;
pub mod status;
mod tablets;

use std::sync::Arc;

use servenv::Env;
use servenv::logging::Severity;
use throttler::ThrottlerService;
use vtproto::throttlerservice::throttler_server::ThrottlerServer;
use vtproto::vtworkerservice::vtworker_server::VtworkerServer;
use wrangler::Logger;

pub use env::WorkerEnv;
pub use instance::Instance;
pub use service::VtworkerService;

/// Runs the command of the command line, or serves until a signal comes.
///
/// # Errors
/// The command failed, or the server cannot start.
pub async fn run(env: Env) -> anyhow::Result<()> {
    let flags = env.flags();
    let worker = Arc::new(WorkerEnv::from_flags(&env).await?);
    let instance = Instance::new(worker.clone());
    instance.export(env.stats());
    let mut server = env.server();
    page::add(&mut server, &instance, env.acl());
    let limit = env.grpc_max_message_size();
    let service = VtworkerServer::new(VtworkerService::new(instance.clone()))
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    server.grpc("grpc-vtworker", service);
    server.grpc("grpc-throttler", ThrottlerServer::new(ThrottlerService::new(worker.throttlers.clone())));
    let args = flags.args().to_vec();
    let interval = flags.duration("command_display_interval");
    if args.is_empty() {
        let stopping = instance.clone();
        // The tablets that a job took are given back before the process ends.
        server.on_term_sync(move || async move { stopping.cancel_and_wait().await });
        server.run(servenv::terminated()).await?;
        return Ok(());
    }
    let running = server.start().await?;
    let logger = Logger::new(Arc::new(display::Terminal));
    let shown = display::show(instance.clone(), interval);
    let interrupted = instance.clone();
    let signals = tokio::spawn(async move {
        servenv::terminated().await;
        interrupted.cancel();
    });
    let outcome = instance.run_command(&args, logger).await;
    signals.abort();
    shown.finish().await;
    drop(running);
    if let Err(error) = outcome {
        if error.message() == "flag: help requested" {
            return Ok(());
        }
        servenv::logging::write_line(Severity::Error, file!(), line!(), error.message());
        return Err(servenv::Reported.into());
    }
    Ok(())
}
