//! vtctld runs cluster commands for vtctlclient and serves the cluster's web page. Here: flags to a
//! server. The rest is the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    servenv::main(servenv::Program::Vtctld, |_| {}, async |env| Ok(vtctld::run(env, servenv::terminated()).await?))
}
