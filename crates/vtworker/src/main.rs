//! vtworker copies and compares the rows of shards. Here: flags to a job or a server. The rest is the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    servenv::main(
        servenv::Program::Vtworker,
        |set| {
            set.synopsis(
                "[global parameters] [command [command parameters]]\n\
                 With a command, runs it and ends. Without one, serves a web page on -port and vtworkerclient on\n\
                 -grpc_port (-service_map=grpc-vtworker). \"vtworker <flags of the topology> Help\" lists all commands.",
            );
        },
        vtworker::run,
    )
}
