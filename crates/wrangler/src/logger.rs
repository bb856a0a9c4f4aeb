//! The log of a running command, streamed to whoever started it.
//!
//! Owns: the making of `logutil.Event`s. CONSOLE events are the command's output and carry their own
//! newlines; INFO, WARNING and ERROR tell how it goes. Does not own where they end: a [`Sink`] does.
//! A sink that is slow holds the command up instead of filling memory.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use vtproto::logutil::{Event, Level};
use vtproto::vttime;

/// Takes the events of a command, in order.
#[async_trait::async_trait]
pub trait Sink: Send + Sync {
    async fn send(&self, event: Event);
}

/// A handle that commands write to. Cheap to clone.
#[derive(Clone)]
pub struct Logger {
    sink: Arc<dyn Sink>,
}

impl Logger {
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink }
    }

    /// A logger whose events nobody reads.
    pub fn discard() -> Self {
        Self::new(Arc::new(Discard))
    }

    /// Writes output as it stands: the newline is the caller's.
    pub async fn print(&self, text: impl Into<String>) {
        self.event(Level::Console, file!(), line!(), text.into()).await;
    }

    /// Writes one line of output.
    pub async fn println(&self, text: impl Into<String>) {
        let mut text = text.into();
        text.push('\n');
        self.print(text).await;
    }

    /// `file` and `line` are those of the caller: use [`crate::info`] and its likes.
    pub async fn event(&self, level: Level, file: &str, line: u32, value: String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Event {
            time: Some(vttime::Time {
                seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
                // Below a billion.
                nanoseconds: i32::try_from(now.subsec_nanos()).unwrap_or(0),
            }),
            level: level.into(),
            file: file.rsplit('/').next().unwrap_or(file).to_owned(),
            line: line.into(),
            value,
        };
        self.sink.send(event).await;
    }
}

/// Logs at INFO through a [`crate::Wrangler`], with the place in the source.
macro_rules! info {
    ($wr:expr, $($arg:tt)*) => {
        $wr.logger().event(vtproto::logutil::Level::Info, file!(), line!(), format!($($arg)*)).await
    };
}
macro_rules! warning {
    ($wr:expr, $($arg:tt)*) => {
        $wr.logger().event(vtproto::logutil::Level::Warning, file!(), line!(), format!($($arg)*)).await
    };
}
macro_rules! error {
    ($wr:expr, $($arg:tt)*) => {
        $wr.logger().event(vtproto::logutil::Level::Error, file!(), line!(), format!($($arg)*)).await
    };
}
pub(crate) use {error, info, warning};

struct Discard;

#[async_trait::async_trait]
impl Sink for Discard {
    async fn send(&self, _event: Event) {}
}

/// Sends events to a channel. A receiver that has gone away is no error: whoever runs the command
/// ends it.
pub struct ChannelSink {
    pub events: mpsc::Sender<Event>,
}

#[async_trait::async_trait]
impl Sink for ChannelSink {
    async fn send(&self, event: Event) {
        let _ = self.events.send(event).await;
    }
}

/// Most text a [`MemorySink`] keeps, bytes.
const MAX_KEPT: usize = 64 << 20;

/// Keeps events in memory, up to a bound; for tests and for answers that are sent as a whole.
#[derive(Default)]
pub struct MemorySink {
    events: Mutex<(usize, Vec<Event>)>,
}

impl MemorySink {
    /// Everything of CONSOLE level: the command's output.
    pub fn console(&self) -> String {
        self.with(|events| events.iter().filter(|e| e.level() == Level::Console).map(|e| e.value.as_str()).collect())
    }

    /// The texts of one level.
    pub fn messages(&self, level: Level) -> Vec<String> {
        self.with(|events| events.iter().filter(|e| e.level() == level).map(|e| e.value.clone()).collect())
    }

    /// The log as text: output as it stands, other events as log lines.
    pub fn text(&self) -> String {
        self.with(|events| events.iter().map(event_text).collect())
    }

    fn with<T>(&self, read: impl FnOnce(&[Event]) -> T) -> T {
        read(&self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1)
    }
}

#[async_trait::async_trait]
impl Sink for MemorySink {
    async fn send(&self, event: Event) {
        let mut kept = self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept.0 >= MAX_KEPT {
            return;
        }
        kept.0 += event.value.len();
        if kept.0 >= MAX_KEPT {
            kept.1.push(Event { level: Level::Warning.into(), value: "output truncated".into(), ..Default::default() });
        } else {
            kept.1.push(event);
        }
    }
}

/// One event as a log shows it: `I1123 20:15:04.123456 file.rs:12] text`, or the bare output.
pub fn event_text(event: &Event) -> String {
    let letter = match event.level() {
        Level::Info => 'I',
        Level::Warning => 'W',
        Level::Error => 'E',
        Level::Console => return event.value.clone(),
    };
    let time = event.time.unwrap_or_default();
    let stamp = chrono::DateTime::from_timestamp(time.seconds, u32::try_from(time.nanoseconds).unwrap_or(0))
        .unwrap_or_default()
        .with_timezone(&chrono::Local)
        .format("%m%d %H:%M:%S%.6f");
    format!("{letter}{stamp} {}:{}] {}\n", event.file, event.line, event.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_keeps_its_own_newlines_and_log_lines_get_one() {
        let sink = Arc::new(MemorySink::default());
        let logger = Logger::new(sink.clone());
        logger.print("a").await;
        logger.println("b").await;
        logger.event(Level::Warning, "crates/x/src/y.rs", 7, "careful".into()).await;
        assert_eq!(sink.console(), "ab\n");
        let text = sink.text();
        assert!(text.starts_with("ab\nW"), "{text}");
        assert!(text.ends_with(" y.rs:7] careful\n"), "{text}");
    }
}
