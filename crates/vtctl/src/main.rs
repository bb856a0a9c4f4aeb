//! vtctl runs one cluster command against the topology and the tablets, without a vtctld. Here: flags,
//! the time limit, and where the output goes. The commands are `wrangler`'s.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use servenv::Program;
use vtproto::logutil::{Event, Level};
use wrangler::Logger;
use wrangler::logger::{Sink, event_text};

fn main() -> ExitCode {
    servenv::main(
        Program::Vtctl,
        |set| {
            set.synopsis(
                "[global parameters] command [command parameters]\n\
                 Runs a command. \"vtctl <flags of the topology> Help\" lists all commands.",
            );
        },
        run,
    )
}

async fn run(env: servenv::Env) -> anyhow::Result<()> {
    let flags = env.flags();
    if flags.bool("detach") {
        detach()?;
        return Ok(());
    }
    let topo = wrangler::flags::open_topo(flags).await?;
    let logger = Logger::new(Arc::new(Terminal));
    let wr = wrangler::flags::wrangler(flags, topo)?.with_logger(logger);
    let limit = flags.duration("wait-time");
    flags.warn_without_effect();
    let command = wrangler::run_command(&wr, flags.args());
    tokio::select! {
        outcome = tokio::time::timeout(limit, command) => match outcome {
            Ok(outcome) => outcome.context("action failed"),
            Err(_) => anyhow::bail!("action failed: not done after {limit:?} (-wait-time)"),
        },
        () = servenv::terminated() => anyhow::bail!("interrupted"),
    }
}

/// Starts the same command again in a session of its own and leaves it to itself.
fn detach() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !matches!(word.trim_start_matches('-'), "detach" | "detach=true"))
        .collect();
    std::process::Command::new(std::env::current_exe()?)
        .args(args)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .context("start the detached command")?;
    Ok(())
}

/// Output to stdout as it stands, progress to stderr.
struct Terminal;

#[async_trait::async_trait]
impl Sink for Terminal {
    async fn send(&self, event: Event) {
        use std::io::Write;
        // A reader such as `head` may have closed the pipe.
        if event.level() == Level::Console {
            let mut out = std::io::stdout();
            let _ = out.write_all(event.value.as_bytes()).and_then(|()| out.flush());
        } else {
            let _ = std::io::stderr().write_all(event_text(&event).as_bytes());
        }
    }
}
