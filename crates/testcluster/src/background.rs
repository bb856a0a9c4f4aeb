//! A command that runs beside the test, its output collected.

use crate::{Finished, wait_for};
use anyhow::{Context, Result};
use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    thread::JoinHandle,
    time::Duration,
};

/// No command of a test takes longer. One that does is killed and fails its test with what it printed.
const LIMIT: Duration = Duration::from_secs(300);

/// A command and what it prints. Dropping it kills it: a test that fails leaves nothing that holds its output open.
pub struct Background {
    what: String,
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Background {
    /// Starts a command; `what` names it in errors.
    pub fn start(what: impl Into<String>, mut command: Command) -> Result<Self> {
        let what = what.into();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| what.clone())?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Ok(Self { what, child, stdout, stderr })
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
    }

    /// Waits for its end, which has to come within five minutes.
    pub fn finish(mut self) -> Result<Finished> {
        let mut status: Option<ExitStatus> = None;
        let waited = wait_for(&format!("the end of {}", self.what), LIMIT, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        self.kill();
        let text = |reader: Option<JoinHandle<Vec<u8>>>| {
            let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        waited.with_context(|| format!("{stdout}{stderr}"))?;
        let code = status.and_then(|status| status.code());
        Ok(Finished { what: std::mem::take(&mut self.what), stdout, stderr, code })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what there is to show.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}
