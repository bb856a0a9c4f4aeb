//! Log files: one per level, begun with the first line of the level, rotated by size, purged by age.
//!
//! Invariant: nothing here fails. What cannot be written is counted, and the count is written as
//! soon as writing works again; the reason goes to standard error once.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Local, NaiveDateTime, TimeZone};

use super::Severity;

/// How long to leave a disk alone that refused to take lines.
const RETRY: Duration = Duration::from_secs(5);
const TIME_FORMAT: &str = "%Y%m%d-%H%M%S";

struct LogFile {
    writer: BufWriter<File>,
    bytes: u64,
}

/// The log files of one process.
pub(super) struct Files {
    program: String,
    dir: PathBuf,
    rotate_bytes: u64,
    /// By level; `None` before its first line.
    open: [Option<LogFile>; 4],
    lost: u64,
    retry_at: Option<Instant>,
    complained: bool,
}

impl Files {
    pub(super) fn new(program: &str, dir: &Path, rotate_bytes: u64) -> Self {
        Self {
            program: program.into(),
            dir: dir.into(),
            rotate_bytes,
            open: [const { None }; 4],
            lost: 0,
            retry_at: None,
            complained: false,
        }
    }

    /// Writes a line into the files of its level and of the lighter ones.
    pub(super) fn write(&mut self, severity: Severity, line: &[u8]) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            self.lost += 1;
            return;
        }
        if self.retry_at.take().is_some() && self.lost > 0 {
            let text = format!("{} log lines were lost: the log files could not be written\n", self.lost);
            let note =
                super::line::prefix(Severity::Warning, SystemTime::now(), Some(std::process::id()), file!(), line!());
            if self.write_levels(Severity::Warning, (note + &text).as_bytes()) {
                self.lost = 0;
            }
        }
        if !self.write_levels(severity, line) {
            self.lost += 1;
        }
    }

    fn write_levels(&mut self, severity: Severity, line: &[u8]) -> bool {
        Severity::ALL.into_iter().filter(|&level| level <= severity).all(|level| match self.write_level(level, line) {
            Ok(()) => true,
            Err(error) => {
                self.fail(&error);
                false
            }
        })
    }

    fn fail(&mut self, error: &std::io::Error) {
        if !self.complained {
            eprintln!("cannot write log files in {}: {error}", self.dir.display());
            self.complained = true;
        }
        // What the buffers hold is lost too; dropping them must not try again.
        for file in self.open.iter_mut().filter_map(Option::take) {
            drop(file.writer.into_parts());
        }
        self.retry_at = Some(Instant::now() + RETRY);
    }

    fn write_level(&mut self, level: Severity, line: &[u8]) -> std::io::Result<()> {
        let slot = level as usize;
        if self.open[slot].as_ref().is_some_and(|file| file.bytes + line.len() as u64 > self.rotate_bytes)
            && let Some(mut full) = self.open[slot].take()
        {
            full.writer.flush()?;
        }
        if self.open[slot].is_none() {
            self.open[slot] = Some(self.create(level)?);
        }
        if let Some(file) = &mut self.open[slot] {
            file.writer.write_all(line)?;
            file.bytes += line.len() as u64;
            // A line that tells of trouble must be there if the process dies in the next moment.
            if level >= Severity::Error {
                file.writer.flush()?;
            }
        }
        Ok(())
    }

    /// Hands what is buffered to the system.
    pub(super) fn flush(&mut self) {
        let failed = self.open.iter_mut().flatten().find_map(|file| file.writer.flush().err());
        if let Some(error) = failed {
            self.fail(&error);
        }
    }

    /// What the names of this program's files of a level begin with.
    fn stem(&self, level: Severity) -> String {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
        let user = user.map_or_else(|| "unknownuser".into(), |user| user.name.replace('\\', "_"));
        format!("{}.{}.{user}.log.{}.", self.program, host(), level.name())
    }

    fn create(&self, level: Severity) -> std::io::Result<LogFile> {
        std::fs::create_dir_all(&self.dir)?;
        let now = Local::now();
        let name = format!("{}{}.{}", self.stem(level), now.format(TIME_FORMAT), std::process::id());
        let mut file = OpenOptions::new().create(true).append(true).open(self.dir.join(&name))?;
        let head = format!(
            "Log file created at: {}\nRunning on machine: {}\nBinary: {} {}\n\
             Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n",
            now.format("%Y/%m/%d %H:%M:%S"),
            host(),
            self.program,
            env!("CARGO_PKG_VERSION"),
        );
        file.write_all(head.as_bytes())?;
        self.link(level, &name);
        let bytes = file.metadata().map_or(head.len() as u64, |metadata| metadata.len());
        Ok(LogFile { writer: BufWriter::new(file), bytes })
    }

    /// Points `<program>.<LEVEL>` to the latest file. A directory without links still has the files.
    fn link(&self, level: Severity, name: &str) {
        let link = self.dir.join(format!("{}.{}", self.program, level.name()));
        let _ = std::fs::remove_file(&link);
        let _ = std::os::unix::fs::symlink(name, &link);
    }

    /// Removes this program's files that are too old, except those in use.
    pub(super) fn purge(&self, keep: Option<Duration>, keep_by_mtime: Option<Duration>) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        let stems = Severity::ALL.map(|level| self.stem(level));
        let current: Vec<PathBuf> = Severity::ALL
            .iter()
            .filter_map(|level| std::fs::read_link(self.dir.join(format!("{}.{}", self.program, level.name()))).ok())
            .collect();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(rest) = stems.iter().find_map(|stem| name.strip_prefix(stem)) else { continue };
            if current.iter().any(|file| file.as_os_str() == entry.file_name()) {
                continue;
            }
            let begun = rest.split('.').next().and_then(begun_at);
            let changed = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let older = |time: Option<SystemTime>, than: Option<Duration>| {
                time.zip(than).is_some_and(|(time, than)| time.elapsed().is_ok_and(|age| age > than))
            };
            if older(begun, keep) || older(changed, keep_by_mtime) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// The host's name up to the first dot.
fn host() -> String {
    let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split('.').next().filter(|short| !short.is_empty()).unwrap_or("unknownhost").to_owned()
}

fn begun_at(text: &str) -> Option<SystemTime> {
    let time = NaiveDateTime::parse_from_str(text, TIME_FORMAT).ok()?;
    let time: DateTime<Local> = Local.from_local_datetime(&time).earliest()?;
    Some(time.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .expect("readable")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_line_goes_to_its_level_and_the_lighter_ones() {
        let dir = tempfile::tempdir().expect("directory");
        let mut files = Files::new("vtgate", dir.path(), 1 << 20);
        files.write(Severity::Info, b"I one\n");
        files.write(Severity::Warning, b"W two\n");
        files.flush();
        let read = |link: &str| std::fs::read_to_string(dir.path().join(link)).expect("a linked file");
        assert!(read("vtgate.INFO").ends_with("msg\nI one\nW two\n"), "{}", read("vtgate.INFO"));
        assert!(read("vtgate.WARNING").ends_with("msg\nW two\n"));
        assert!(!dir.path().join("vtgate.ERROR").exists());
        let target = std::fs::read_link(dir.path().join("vtgate.INFO")).expect("a link");
        let target = target.to_string_lossy().into_owned();
        let pid = std::process::id().to_string();
        assert!(target.starts_with("vtgate.") && target.contains(".log.INFO.20") && target.ends_with(&pid), "{target}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_loses_lines_and_nothing_else() {
        let mut files = Files::new("vtgate", Path::new("/proc/nonexistent"), 1 << 20);
        files.write(Severity::Error, b"E lost\n");
        files.write(Severity::Error, b"E lost too\n");
        assert_eq!(files.lost, 2);
        let dir = tempfile::tempdir().expect("directory");
        files.dir = dir.path().into();
        files.retry_at = Some(Instant::now());
        files.write(Severity::Info, b"I back\n");
        files.flush();
        let text = std::fs::read_to_string(dir.path().join("vtgate.INFO")).expect("written");
        assert!(text.contains("] 2 log lines were lost") && text.ends_with("I back\n"), "{text}");
    }

    #[test]
    fn old_files_of_this_program_are_removed() {
        let dir = tempfile::tempdir().expect("directory");
        let mut files = Files::new("vtgate", dir.path(), 1 << 20);
        files.write(Severity::Info, b"I now\n");
        files.flush();
        let old = format!("{}20190101-000000.1", files.stem(Severity::Info));
        for name in [old.as_str(), "vtgate.other.txt", "vttablet.h.u.log.INFO.20190101-000000.1"] {
            std::fs::write(dir.path().join(name), "x").expect("written");
        }
        files.purge(None, None);
        assert!(dir.path().join(&old).exists());
        files.purge(Some(Duration::from_secs(3600)), None);
        assert!(!dir.path().join(&old).exists());
        assert_eq!(names(dir.path()).len(), 4, "{:?}", names(dir.path()));
    }
}
