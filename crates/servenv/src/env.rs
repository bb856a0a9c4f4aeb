//! The environment of a program: its flags, variables and time of start; and the shared `main`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use crate::flags::{FlagSet, Parsed};
use crate::register::Program;
use crate::stats::Registry;
use crate::{Acl, Server, logging};

/// What a program's parts share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Env {
    program: Program,
    flags: Arc<Parsed>,
    stats: Registry,
    started: SystemTime,
}

impl Env {
    /// An environment from parsed flags. Touches nothing outside: no log files, no pid file.
    pub fn new(program: Program, flags: Parsed) -> Self {
        let stats = Registry::new(program.name());
        stats.add_standard();
        Self { program, flags: Arc::new(flags), stats, started: SystemTime::now() }
    }

    pub fn program(&self) -> Program {
        self.program
    }

    pub fn flags(&self) -> &Parsed {
        &self.flags
    }

    pub fn stats(&self) -> &Registry {
        &self.stats
    }

    /// When the program started.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// The policy of `-security_policy`.
    pub fn acl(&self) -> Acl {
        Acl::new(self.flags.str("security_policy"))
    }

    /// `-grpc_max_message_size`, for the limits of generated clients and services.
    pub fn grpc_max_message_size(&self) -> usize {
        self.flags.size("grpc_max_message_size")
    }

    /// A server for the ports of the flags; fill it, then run it.
    pub fn server(&self) -> Server {
        Server::new(self.clone())
    }
}

/// Keeps the process on small memory pages. The allocator asks for huge ones, and an idle server would then hold
/// 2 MiB for each of many small heaps: 28 MB instead of 16 MB.
#[cfg(target_os = "linux")]
fn small_pages() {
    // A kernel without the call has nothing to turn off.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

#[cfg(not(target_os = "linux"))]
fn small_pages() {}

/// Threads that run tasks; `None` leaves it to tokio: one a core, or what TOKIO_WORKER_THREADS says.
fn worker_threads(program: Program, flags: &Parsed) -> Option<usize> {
    let wanted = if flags.is_defined("worker_threads") { flags.int("worker_threads") } else { 0 };
    match usize::try_from(wanted) {
        Ok(threads) if threads > 0 => Some(threads),
        // A vttablet shares its machine with mysqld, which needs more than half of it. Threads beyond that only wake each
        // other up.
        _ if program == Program::Vttablet && std::env::var_os("TOKIO_WORKER_THREADS").is_none() => {
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            Some(cores.div_ceil(2))
        }
        _ => None,
    }
}

/// The whole of a program: parses the arguments with the flags of `program` (changed by `adjust`),
/// answers `-h` and `-version`, starts the logs and a runtime, and runs `run` to its end. An error
/// is logged and printed, and the exit code is 1.
///
/// Unlike Vitess it runs as any user, root included.
pub fn main<F, Fut>(program: Program, adjust: impl FnOnce(&mut FlagSet), run: F) -> ExitCode
where
    F: FnOnce(Env) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    small_pages();
    let mut set = program.flag_set();
    adjust(&mut set);
    let flags = set.parse_or_exit();
    if flags.is_defined("version") && flags.bool("version") {
        println!("{}", crate::stats::version_text());
        return ExitCode::SUCCESS;
    }
    logging::init(program.name(), &flags);
    if program.is_server()
        && let Err(text) = flags.refuse_args()
    {
        logging::fatal(&text);
        logging::flush();
        return ExitCode::FAILURE;
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = worker_threads(program, &flags) {
        runtime.worker_threads(threads);
    }
    let outcome = match runtime.enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(Env::new(program, flags)));
            // Tasks that were not stopped end with the process; a blocking one must not hold it.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(anyhow::anyhow!("cannot start the runtime: {error}")),
    };
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<crate::Reported>() => ExitCode::FAILURE,
        Err(error) => {
            logging::fatal(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    };
    logging::flush();
    code
}
