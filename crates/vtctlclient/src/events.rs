//! Events of a command as they are shown: console text on standard output as it comes, log lines
//! into the log of this process, where errors also reach standard error.

use std::io::Write;
use std::time::{Duration, SystemTime};

use futures::{Stream, StreamExt};
use servenv::logging::{Severity, foreign_line, write_line};
use vterrors::VtError;
use vtproto::logutil::{Event, Level};

use crate::ClientError;

/// Where events go.
pub trait Output {
    /// Text of the command's result, with its own line feeds.
    ///
    /// # Errors
    /// Nobody reads it any more.
    fn console(&mut self, text: &str) -> std::io::Result<()>;
    /// A log line of the server.
    fn log(&mut self, severity: Severity, line: &str);
}

/// Standard output and the log of the process.
#[derive(Debug, Default)]
pub struct Terminal;

impl Output for Terminal {
    fn console(&mut self, text: &str) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        // Long commands tell how far they are in lines without an end.
        out.flush()
    }

    fn log(&mut self, severity: Severity, line: &str) {
        write_line(severity, file!(), line!(), line);
    }
}

/// Shows events until the stream ends.
pub(crate) async fn print(
    mut events: impl Stream<Item = Result<Event, tonic::Status>> + Unpin,
    output: &mut impl Output,
) -> Result<(), ClientError> {
    while let Some(event) = events.next().await {
        let event = event.map_err(|status| ClientError::Remote(VtError::from_status(&status)))?;
        let severity = match event.level() {
            Level::Console => {
                output.console(&event.value)?;
                continue;
            }
            Level::Info => Severity::Info,
            Level::Warning => Severity::Warning,
            Level::Error => Severity::Error,
        };
        let time = event.time.as_ref().map_or(SystemTime::UNIX_EPOCH, |time| {
            let since = Duration::new(
                u64::try_from(time.seconds).unwrap_or(0),
                u32::try_from(time.nanoseconds).unwrap_or(0).min(999_999_999),
            );
            SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
        });
        let line = u32::try_from(event.line).unwrap_or(0);
        output.log(severity, &foreign_line(severity, time, &event.file, line, event.value.trim_end_matches('\n')));
    }
    Ok(())
}
