//! vttablet serves the queries of one mysqld. Here: flags and the signal to stop; the rest is the library.

use std::process::ExitCode;

use servenv::Program;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    servenv::main(
        Program::Vttablet,
        |set| {
            set.synopsis(
                "[flags]\nServes the queries of one mysqld, which mysqlctl started or -db_socket/-db_host name.",
            );
        },
        |env| vttablet::run(env, servenv::terminated()),
    )
}
