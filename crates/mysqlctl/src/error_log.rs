//! The end of mysqld's error log, and what its well-known complaints mean.
//!
//! Owns: reading what was written since a position, and the advice that goes with it. The log may be large: only its
//! last [`TAIL_BYTES`] are read.

use std::{
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Enough for the messages of one failed start.
const TAIL_BYTES: u64 = 32 * 1024;
const TAIL_LINES: usize = 15;

/// The last lines of an error log, printed after the failure they explain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogTail {
    pub path: PathBuf,
    pub lines: Vec<String>,
    /// What to do about it, when the log tells.
    pub hint: Option<String>,
}

impl LogTail {
    /// Reads what was written to `path` after its first `start` bytes. An unreadable log is an empty tail.
    pub fn read(path: &Path, start: u64) -> Self {
        let text = read_end(path, start).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let hint = hint(&lines);
        let skip = lines.len().saturating_sub(TAIL_LINES);
        Self { path: path.to_owned(), lines: lines.into_iter().skip(skip).collect(), hint }
    }
}

impl fmt::Display for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            write!(f, "\nmysqld wrote nothing to {}", self.path.display())?;
        } else {
            write!(f, "\nlast lines of {}:", self.path.display())?;
            for line in &self.lines {
                write!(f, "\n  {line}")?;
            }
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// The size of the log now, from which a later [`LogTail::read`] shows only what is new.
pub fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

fn read_end(path: &Path, start: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    // A log that was rotated meanwhile is shorter than before.
    let start = if start > size { 0 } else { start };
    file.seek(SeekFrom::Start(start.max(size.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Advice for the complaints that newcomers meet.
fn hint(lines: &[String]) -> Option<String> {
    let has = |words: &[&str]| lines.iter().any(|line| words.iter().any(|word| line.contains(word)));
    if has(&["Errcode: 28", "No space left on device", "error 28 ", "OS errno 28"]) {
        return Some("the file system is full".to_owned());
    }
    if has(&["Address already in use", "port already in use"]) {
        return Some("another server listens on the port; choose another -mysql_port or stop that server".to_owned());
    }
    if has(&["Unable to lock ./ibdata1", "Unable to lock ./ib", "is using unix socket file"]) {
        return Some("another mysqld still uses this data directory; stop it first".to_owned());
    }
    if let Some(line) = lines.iter().find(|line| line.contains("unknown variable") || line.contains("unknown option")) {
        let option = line.rsplit("unknown ").next().unwrap_or_default();
        return Some(format!("my.cnf holds an option that this server does not know ({option}): see EXTRA_MY_CNF"));
    }
    if has(&["Errcode: 13", "Permission denied", "OS errno 13", "(errno: 13"]) {
        return Some(if apparmor_confines_mysqld() {
            APPARMOR.to_owned()
        } else {
            "the user that runs mysqld may not use the tablet directory, or one of its parents".to_owned()
        });
    }
    // A confined mysqld may not even write its error log.
    (lines.is_empty() && apparmor_confines_mysqld()).then(|| APPARMOR.to_owned())
}

const APPARMOR: &str = "AppArmor confines mysqld to its own directories: allow the tablet directory in \
    /etc/apparmor.d/local/usr.sbin.mysqld and reload the profile, or switch the profile off with aa-disable";

/// Whether the kernel enforces an AppArmor profile for a MySQL or MariaDB server.
pub fn apparmor_confines_mysqld() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    // Only root may list the loaded profiles; for others the profile file has to do.
    let loaded = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").ok();
    let files = ["usr.sbin.mysqld", "usr.sbin.mariadbd"];
    let has_file = || files.iter().any(|name| Path::new("/etc/apparmor.d").join(name).exists());
    is_confined(&enabled, loaded.as_deref(), has_file)
}

fn is_confined(enabled: &str, loaded: Option<&str>, has_file: impl Fn() -> bool) -> bool {
    let server = |line: &str| line.contains("mysqld") || line.contains("mariadbd");
    enabled.starts_with('Y')
        && match loaded {
            Some(profiles) => profiles.lines().any(|line| server(line) && line.contains("(enforce)")),
            None => has_file(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_for(line: &str) -> Option<String> {
        hint(&[line.to_owned()])
    }

    #[test]
    fn known_complaints_get_advice() {
        let full = "[ERROR] InnoDB: Write to file ./ibdata1 failed ... (errno: 28 \"No space left on device\")";
        assert_eq!(hint_for(full).as_deref(), Some("the file system is full"));
        let port = "[ERROR] Can't start server: Bind on TCP/IP port. Got error: 98: Address already in use";
        assert!(hint_for(port).is_some_and(|hint| hint.contains("-mysql_port")));
        let option = "[ERROR] mysqld: unknown variable 'no_such=1'";
        assert!(hint_for(option).is_some_and(|hint| hint.contains("'no_such=1'")));
        assert_eq!(hint_for("[Note] mysqld: ready for connections."), None);
    }

    #[test]
    fn apparmor_is_named_only_where_it_confines_mysqld() {
        let enforced = "/usr/sbin/cupsd (enforce)\n/usr/sbin/mysqld (enforce)\n";
        assert!(is_confined("Y\n", Some(enforced), || false));
        assert!(is_confined("Y\n", Some("/usr/sbin/mariadbd (enforce)\n"), || false));
        assert!(!is_confined("Y\n", Some("/usr/sbin/mysqld (complain)\n/usr/sbin/cupsd (enforce)\n"), || true));
        assert!(is_confined("Y\n", None, || true) && !is_confined("Y\n", None, || false));
        assert!(!is_confined("", Some(enforced), || true));
        let denied = "[ERROR] mysqld: Can't create/write to file '/vt/vt_1/x' (Errcode: 13 \"Permission denied\")";
        let advice = hint_for(denied).expect("advice");
        assert_eq!(advice.contains("AppArmor"), apparmor_confines_mysqld(), "{advice}");
    }

    #[test]
    fn only_what_is_new_is_shown() {
        let dir = std::env::temp_dir().join(format!("error-log-{}", std::process::id()));
        std::fs::write(&dir, "old\n").unwrap();
        let start = size(&dir);
        std::fs::write(&dir, "old\nnew\n").unwrap();
        let tail = LogTail::read(&dir, start);
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(tail.lines, ["new"]);
        assert!(tail.to_string().contains("last lines of"));
    }
}
