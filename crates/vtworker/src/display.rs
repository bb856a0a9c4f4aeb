//! What the command-line form shows while its job runs: one bar per table on a terminal, log lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vtproto::logutil::{Event, Level};
use wrangler::logger::Sink;

use crate::Instance;
use crate::status::{Status, TableReading, megabytes, seconds, table_line};

/// Width of a bar in characters.
const BAR: usize = 30;
/// How often bars are drawn at least.
const REDRAW: Duration = Duration::from_millis(250);

/// Output to stdout as it stands, the rest into the log.
pub struct Terminal;

#[async_trait::async_trait]
impl Sink for Terminal {
    async fn send(&self, event: Event) {
        match event.level() {
            Level::Console => {
                let mut out = std::io::stdout();
                // A reader such as `head` may have closed the pipe.
                let _ = out.write_all(event.value.as_bytes()).and_then(|()| out.flush());
            }
            Level::Info => tracing::info!("{}", event.value),
            Level::Warning => tracing::warn!("{}", event.value),
            Level::Error => tracing::error!("{}", event.value),
        }
    }
}

/// Shows until told to end.
pub struct Shown {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Shown {
    /// Shows the last state and ends.
    pub async fn finish(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// Begins to show the job of an instance every `interval`.
pub fn show(instance: Instance, interval: Duration) -> Shown {
    let (stop, mut stopped) = oneshot::channel();
    let on_terminal = std::io::stderr().is_terminal();
    let interval = if on_terminal { interval.min(REDRAW) } else { interval }.max(Duration::from_millis(10));
    let task = tokio::spawn(async move {
        let mut drawn = 0;
        let mut last = String::new();
        loop {
            let ended = tokio::time::timeout(interval, &mut stopped).await.is_ok();
            if let Some(status) = instance.status() {
                if on_terminal {
                    drawn = draw(&status, drawn);
                } else {
                    log(&status, &mut last);
                }
            }
            if ended {
                return;
            }
        }
    });
    Shown { stop, task }
}

/// One line per table that moved since the last time.
fn log(status: &Status, last: &mut String) {
    let tables: Vec<String> = status.tables().iter().map(table_line).collect();
    let line = format!("{}; {}", status.state().text(), tables.join("; "));
    if !tables.is_empty() && *last != line {
        tracing::info!("{line}");
        *last = line;
    }
}

/// Draws the bars over the `drawn` lines of the last time.
fn draw(status: &Status, drawn: usize) -> usize {
    let tables = status.tables();
    let mut text = String::new();
    if drawn > 0 {
        text.push_str(&format!("\x1b[{drawn}A"));
    }
    text.push_str(&format!("\x1b[2K{}: {}\n", status.command, status.state().text()));
    for table in &tables {
        text.push_str(&format!("\x1b[2K{}\n", bar(table)));
    }
    // Lines of a longer list before.
    let lines = tables.len() + 1;
    for _ in lines..drawn {
        text.push_str("\x1b[2K\n");
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
    lines.max(drawn)
}

/// `customer              [######                        ]  21%  120000 rows  12.1 MB  80000 rows/s  5s left`
pub fn bar(table: &TableReading) -> String {
    let share = table.share();
    let full = ((share * BAR as f64) as usize).min(BAR);
    let left = match table.left() {
        _ if table.done => "done".to_owned(),
        Some(left) => format!("{} left", seconds(left)),
        None => String::new(),
    };
    format!(
        "{:<24} [{}{}] {:>3.0}%  {} rows  {}  {:.0} rows/s  {left}",
        table.name,
        "#".repeat(full),
        " ".repeat(BAR - full),
        share * 100.0,
        table.rows,
        megabytes(table.bytes),
        table.rate()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_says_rows_bytes_rate_and_time_left() {
        let table = TableReading {
            name: "customer".into(),
            rows: 500,
            expected_rows: 1000,
            bytes: 2_000_000,
            elapsed: Duration::from_secs(5),
            done: false,
        };
        let text = bar(&table);
        assert!(
            text.contains("[###############               ]  50%  500 rows  2.0 MB  100 rows/s  5s left"),
            "{text}"
        );
    }
}
