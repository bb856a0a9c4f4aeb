//! vtgate: here only from arguments to the library.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    servenv::main(servenv::Program::Vtgate, |_| {}, |env| vtgate::run(env, servenv::terminated()))
}
