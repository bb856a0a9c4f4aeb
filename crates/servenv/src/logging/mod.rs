//! Logs in the form of glog, which the scripts and tools around Vitess read.
//!
//! Owns: the one subscriber of the process and the thread that writes. Files are
//! `<program>.<host>.<user>.log.<LEVEL>.<yyyymmdd-hhmmss>.<pid>` in `-log_dir` with a link
//! `<program>.<LEVEL>` to the latest; each holds its own level and the graver ones.
//! Invariants: logging never waits for a disk (a full queue or a full disk loses lines, which are
//! counted and reported), and never ends the process.

mod files;
mod line;

use std::fmt::Write;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::Parsed;
use files::Files;
pub use line::Severity;

/// Lines that wait for the writer. At 200 bytes each that is 3 MB.
const QUEUE: usize = 16 * 1024;
/// How long [`flush`] waits for the writer.
const FLUSH: Duration = Duration::from_secs(2);

/// Opens a log that a flag names, to append to it; its directory is made where it is missing.
///
/// Errors: the directory cannot be made, or the file not opened.
pub fn open_to_append(path: &Path) -> std::io::Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Where lines go.
#[derive(Debug, Clone)]
struct Settings {
    program: String,
    /// `None`: no files.
    dir: Option<PathBuf>,
    /// Lines at or above it go to standard error.
    stderr: Severity,
    rotate_bytes: u64,
    keep: Option<Duration>,
    keep_by_mtime: Option<Duration>,
    purge_interval: Duration,
}

impl Settings {
    fn from_flags(program: &str, flags: &Parsed) -> Self {
        let only_stderr = flags.bool("logtostderr");
        let all_to_stderr = only_stderr || flags.bool("alsologtostderr");
        let threshold = flags.str("stderrthreshold");
        let threshold = Severity::parse(threshold).unwrap_or_else(|| {
            eprintln!("invalid value {threshold:?} for flag -stderrthreshold: ERROR is used");
            Severity::Error
        });
        let dir = match flags.str("log_dir") {
            "" => std::env::temp_dir(),
            dir => PathBuf::from(dir),
        };
        let positive = |name: &str| Some(flags.duration(name)).filter(|duration| !duration.is_zero());
        Self {
            program: program.into(),
            dir: (!only_stderr).then_some(dir),
            stderr: if all_to_stderr { Severity::Info } else { threshold },
            rotate_bytes: flags.uint("log_rotate_max_size"),
            keep: positive("keep_logs"),
            keep_by_mtime: positive("keep_logs_by_mtime"),
            purge_interval: positive("purge_logs_interval").unwrap_or(Duration::from_secs(3600)),
        }
    }
}

enum Job {
    Line(Severity, Vec<u8>),
    /// Answered when everything before it is written.
    Flush(Sender<()>),
}

/// The way to the writer thread, set once per process.
static WRITER: OnceLock<SyncSender<Job>> = OnceLock::new();
/// Lines lost because the queue was full.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Starts the logs of the process as the flags say. Later calls change nothing.
pub fn init(program: &str, flags: &Parsed) {
    let settings = Settings::from_flags(program, flags);
    let detail = match flags.int("v") {
        ..=0 => tracing::Level::INFO,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let (sender, receiver) = sync_channel(QUEUE);
    if WRITER.set(sender).is_err() {
        return;
    }
    let spawned = std::thread::Builder::new().name("logs".into()).spawn(move || Writer::new(settings).run(&receiver));
    if let Err(error) = spawned {
        eprintln!("cannot start the log writer: {error}");
    }
    let subscriber = tracing_subscriber::registry().with(Glog { detail });
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        eprintln!("another subscriber of tracing is in place: it takes the logs");
    }
    std::panic::set_hook(Box::new(|panic| {
        let (file, number) = panic.location().map_or(("?", 0), |place| (place.file(), place.line()));
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let message = message.unwrap_or("unknown cause");
        let thread = std::thread::current();
        let text = format!("thread {:?} panicked: {message}", thread.name().unwrap_or("?"));
        write_line(Severity::Error, file, number, &text);
    }));
}

/// Waits until the lines so far are written, at most two seconds.
pub fn flush() {
    let Some(writer) = WRITER.get() else { return };
    let (done, wait) = channel();
    if writer.send(Job::Flush(done)).is_ok() {
        let _ = wait.recv_timeout(FLUSH);
    }
}

/// Logs the reason why the process ends, on standard error too, and waits until it is written.
#[track_caller]
pub fn fatal(text: &str) {
    let place = std::panic::Location::caller();
    write_line(Severity::Fatal, place.file(), place.line(), text);
    flush();
}

/// Logs one line as if it came from `file:line`; for lines that another process logged.
pub fn write_line(severity: Severity, file: &str, number: u32, text: &str) {
    let mut bytes = line::prefix(severity, SystemTime::now(), Some(std::process::id()), file, number).into_bytes();
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(b'\n');
    let Some(writer) = WRITER.get() else {
        // Before the logs are started only what matters is shown.
        if severity >= Severity::Error {
            eprint!("{}", String::from_utf8_lossy(&bytes));
        }
        return;
    };
    // What ends the process is worth a moment of waiting.
    let sent = if severity == Severity::Fatal {
        writer.send(Job::Line(severity, bytes)).is_ok()
    } else {
        !matches!(writer.try_send(Job::Line(severity, bytes)), Err(TrySendError::Full(_)))
    };
    if !sent {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// A line as another process logged it, without a process id: `Lmmdd hh:mm:ss.uuuuuu file:line] text`.
pub fn foreign_line(severity: Severity, time: SystemTime, file: &str, number: u32, text: &str) -> String {
    line::prefix(severity, time, None, file, number) + text
}

/// The thread behind [`WRITER`].
struct Writer {
    settings: Settings,
    files: Option<Files>,
}

impl Writer {
    fn new(settings: Settings) -> Self {
        let files = settings.dir.as_ref().map(|dir| Files::new(&settings.program, dir, settings.rotate_bytes));
        Self { settings, files }
    }

    fn run(mut self, jobs: &Receiver<Job>) {
        let mut purged = SystemTime::UNIX_EPOCH;
        loop {
            let job = match jobs.try_recv() {
                Ok(job) => Ok(job),
                Err(_) => {
                    // Nothing waits: a good moment to hand the lines to the system.
                    self.idle(&mut purged);
                    jobs.recv_timeout(self.settings.purge_interval)
                }
            };
            match job {
                Ok(Job::Line(severity, bytes)) => self.write(severity, &bytes),
                Ok(Job::Flush(done)) => {
                    self.idle(&mut purged);
                    // Who asked may have stopped waiting.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.idle(&mut purged),
            }
        }
    }

    fn write(&mut self, severity: Severity, bytes: &[u8]) {
        if severity >= self.settings.stderr {
            use std::io::Write;
            // Nobody can be told that standard error is closed.
            let _ = std::io::stderr().write_all(bytes);
        }
        if let Some(files) = &mut self.files {
            files.write(severity, bytes);
        }
    }

    fn idle(&mut self, purged: &mut SystemTime) {
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text = format!("{lost} log lines were lost: they came faster than they could be written\n");
            let mut line =
                line::prefix(Severity::Warning, SystemTime::now(), Some(std::process::id()), file!(), line!());
            line.push_str(&text);
            self.write(Severity::Warning, line.as_bytes());
        }
        let Some(files) = &mut self.files else { return };
        files.flush();
        let due = purged.elapsed().is_ok_and(|since| since >= self.settings.purge_interval);
        if due && (self.settings.keep.is_some() || self.settings.keep_by_mtime.is_some()) {
            *purged = SystemTime::now();
            files.purge(self.settings.keep, self.settings.keep_by_mtime);
        }
    }
}

/// Turns events of `tracing` into lines.
struct Glog {
    detail: tracing::Level,
}

/// Libraries whose debug lines drown ours.
const NOISY: [&str; 7] = ["h2", "hyper", "hyper_util", "tower", "tonic", "rustls", "tokio_util"];

impl Glog {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let root = metadata.target().split("::").next().unwrap_or_default();
        let detail = if NOISY.contains(&root) { tracing::Level::WARN } else { self.detail };
        *metadata.level() <= detail
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Glog {
    // Holds for spans too: h2 makes one per frame at the level of traces.
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.detail))
    }

    fn on_new_span(&self, attributes: &tracing::span::Attributes<'_>, id: &tracing::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &tracing::Id, values: &tracing::span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut text = fields.message;
        text.push_str(&fields.others);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                text.push_str(&fields.others);
            }
        }
        let metadata = event.metadata();
        let severity = match *metadata.level() {
            tracing::Level::ERROR => Severity::Error,
            tracing::Level::WARN => Severity::Warning,
            _ => Severity::Info,
        };
        write_line(severity, metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0), &text);
    }
}

/// The message of an event, and ` name=value` of everything else.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Writing into a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.others, " {name}={value}"),
        };
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_and_their_spans_cost_nothing() {
        use tracing::Level;
        let enabled = |detail: Level| {
            let subscriber = tracing_subscriber::registry().with(Glog { detail });
            tracing::subscriber::with_default(subscriber, || {
                [
                    tracing::enabled!(target: "vtgate::executor", Level::INFO),
                    tracing::enabled!(target: "vtgate::executor", Level::DEBUG),
                    tracing::enabled!(target: "h2::codec", Level::DEBUG),
                    tracing::event_enabled!(target: "h2::codec", Level::WARN),
                    tracing::span_enabled!(target: "h2::codec", Level::TRACE),
                ]
            })
        };
        assert_eq!(enabled(Level::INFO), [true, false, false, true, false]);
        assert_eq!(enabled(Level::TRACE), [true, true, false, true, false]);
    }

    #[test]
    fn flags_decide_where_lines_go() {
        let settings = |args: &[&str]| {
            Settings::from_flags("vtgate", &crate::Program::Vtgate.flag_set().parse(args).expect("valid flags"))
        };
        let usual = settings(&["-log_dir=/logs"]);
        assert_eq!((usual.dir.as_deref(), usual.stderr), (Some(std::path::Path::new("/logs")), Severity::Error));
        assert_eq!(settings(&[]).dir, Some(std::env::temp_dir()));
        let only = settings(&["-logtostderr"]);
        assert_eq!((only.dir, only.stderr), (None, Severity::Info));
        let both = settings(&["-alsologtostderr", "-keep_logs=1h"]);
        assert_eq!((both.dir.is_some(), both.stderr), (true, Severity::Info));
        assert_eq!(both.keep, Some(Duration::from_secs(3600)));
        assert_eq!(settings(&["-stderrthreshold=1"]).stderr, Severity::Warning);
    }
}
