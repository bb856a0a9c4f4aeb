//! Variables every program has: its command line, memory, build and limits.
//!
//! Source: `/proc/self`. Keys are those of Vitess, whose `memstats` is Go's: numbers that have a
//! meaning for a process without a garbage collector are filled, the others are left out.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Registry;

/// Facts of the build. A release script sets the variables; other builds show them empty.
struct Build {
    host: &'static str,
    user: &'static str,
    /// Seconds since 1970 as text.
    timestamp: &'static str,
    git_rev: &'static str,
    git_branch: &'static str,
    number: &'static str,
}

const BUILD: Build = Build {
    host: or_empty(option_env!("BUILD_HOST")),
    user: or_empty(option_env!("BUILD_USER")),
    timestamp: or_empty(option_env!("BUILD_TIMESTAMP")),
    git_rev: or_empty(option_env!("BUILD_GIT_REV")),
    git_branch: or_empty(option_env!("BUILD_GIT_BRANCH")),
    number: or_empty(option_env!("BUILD_NUMBER")),
};

const fn or_empty(value: Option<&'static str>) -> &'static str {
    match value {
        Some(value) => value,
        None => "",
    }
}

/// What `-version` prints.
pub(crate) fn version_text() -> String {
    format!(
        "Version: {} (Git revision {} branch '{}') built on {} by {}@{} using Rust {}/{}",
        env!("CARGO_PKG_VERSION"),
        BUILD.git_rev,
        BUILD.git_branch,
        BUILD.timestamp,
        BUILD.user,
        BUILD.host,
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}

/// Soft limit of open files; 0 when it cannot be read.
fn max_fds() -> i64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| i64::try_from(soft).unwrap_or(i64::MAX))
}

pub(super) fn register(stats: &Registry) {
    stats.json_func("cmdline", || std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect());
    stats.json_func("memstats", memstats);
    stats.string("BuildHost", BUILD.host);
    stats.string("BuildUser", BUILD.user);
    stats.gauge("BuildTimestamp", "build timestamp").set(BUILD.timestamp.parse().unwrap_or(0));
    stats.string("BuildGitRev", BUILD.git_rev);
    stats.string("BuildGitBranch", BUILD.git_branch);
    stats.gauge("BuildNumber", "build number").set(BUILD.number.parse().unwrap_or(0));
    // Vitess's names for the toolchain: monitoring reads them, so ours stands there.
    stats.string("GoVersion", concat!("Rust ", env!("CARGO_PKG_RUST_VERSION")));
    stats.string("GoOS", std::env::consts::OS);
    stats.string("GoArch", std::env::consts::ARCH);
    stats.string("GrpcVersion", "tonic");
    let labels = ["BuildHost", "BuildUser", "BuildTimestamp", "BuildGitRev", "BuildGitBranch", "BuildNumber"];
    stats
        .multi_gauge("BuildInformation", "build information exposed via label", &labels)
        .set(&[BUILD.host, BUILD.user, BUILD.timestamp, BUILD.git_rev, BUILD.git_branch, BUILD.number], 1);
    stats.gauge_func("MaxFds", "maximum number of open files", max_fds);
}

/// Numbers of `/proc/self`; `None` where a file is missing or of another form.
struct Process {
    virtual_bytes: u64,
    resident_bytes: u64,
    data_bytes: u64,
    cpu_seconds: f64,
    start_seconds: f64,
    open_fds: usize,
    threads: u64,
}

fn process() -> Option<Process> {
    // SAFETY: sysconf only reads its argument.
    let (page, ticks) = unsafe { (libc::sysconf(libc::_SC_PAGESIZE), libc::sysconf(libc::_SC_CLK_TCK)) };
    let (page, ticks) = (u64::try_from(page).ok()?, ticks as f64);
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: Vec<u64> = statm.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<f64>().ok());
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(Process {
        virtual_bytes: pages.first()? * page,
        resident_bytes: pages.get(1)? * page,
        data_bytes: pages.get(5)? * page,
        cpu_seconds: (field(14)? + field(15)?) / ticks,
        start_seconds: boot + field(22)? / ticks,
        open_fds: std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or(0),
        threads: field(20)? as u64,
    })
}

fn memstats() -> Value {
    let Some(process) = process() else { return json!({}) };
    json!({
        "Alloc": process.resident_bytes,
        "Sys": process.virtual_bytes,
        "HeapAlloc": process.resident_bytes,
        "HeapSys": process.data_bytes,
        "HeapInuse": process.resident_bytes,
        "NumGC": 0,
        "EnableGC": false,
    })
}

/// The `process_*` families, without the program's prefix.
pub(super) fn write_metrics(out: &mut String) {
    let Some(process) = process() else { return };
    let limit = {
        use nix::sys::resource::{Resource, getrlimit};
        getrlimit(Resource::RLIMIT_AS).map_or(-1.0, |(soft, _)| if soft == u64::MAX { -1.0 } else { soft as f64 })
    };
    let mut family = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    family(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        process.cpu_seconds,
    );
    family("process_max_fds", "gauge", "Maximum number of open file descriptors.", max_fds() as f64);
    family("process_open_fds", "gauge", "Number of open file descriptors.", process.open_fds as f64);
    family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", process.resident_bytes as f64);
    family("process_start_time_seconds", "gauge", "Start time since 1970 in seconds.", process.start_seconds);
    family("process_threads", "gauge", "Number of OS threads.", process.threads as f64);
    family("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", process.virtual_bytes as f64);
    family("process_virtual_memory_max_bytes", "gauge", "Maximum amount of virtual memory in bytes.", limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now_seconds() -> f64 {
        std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |since| since.as_secs_f64())
    }

    #[test]
    fn numbers_of_this_process_are_plausible() {
        let process = process().expect("/proc is there");
        assert!(process.resident_bytes > 100_000 && process.resident_bytes < process.virtual_bytes);
        assert!(process.start_seconds <= now_seconds() + 1.0 && process.start_seconds > now_seconds() - 3600.0);
        assert!(process.threads >= 1 && process.open_fds >= 3);
    }
}
