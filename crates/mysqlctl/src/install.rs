//! The MySQL or MariaDB server of this machine: where its binaries are and which version it is.
//!
//! Environment: `VT_MYSQL_ROOT` names the directory that holds `bin/mysqld` (or `sbin`, `libexec`); without it `PATH`
//! is searched, `/usr/sbin` first. `VT_MYSQL_BASEDIR` is passed on as `--basedir`. `MYSQL_FLAVOR` names the family when
//! the server does not say, and overrides it when it differs.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    MariaDb,
    /// Oracle's server and Percona's, which behaves alike here.
    MySql,
}

/// What decides over the settings that a server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerVersion {
    pub vendor: Vendor,
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl ServerVersion {
    pub fn new(vendor: Vendor, major: u32, minor: u32, patch: u32) -> Self {
        Self { vendor, major, minor, patch }
    }

    pub fn at_least(&self, major: u32, minor: u32, patch: u32) -> bool {
        (self.major, self.minor, self.patch) >= (major, minor, patch)
    }

    pub fn is_mariadb(&self) -> bool {
        self.vendor == Vendor::MariaDb
    }

    /// MySQL 8.4 and later: the words MASTER and SLAVE, and the plugin `mysql_native_password`, are gone.
    pub fn has_only_new_words(&self) -> bool {
        self.vendor == Vendor::MySql && self.at_least(8, 4, 0)
    }

    /// Reads the output of `mysqld --version`, such as `mysqld  Ver 10.11.4-MariaDB-1 for debian-linux-gnu on x86_64`.
    pub fn parse(output: &str) -> Option<Self> {
        let after = output.split_once("Ver ")?.1.trim_start();
        let mut numbers = after
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .next()?
            .split('.')
            .map(|number| number.parse::<u32>().ok());
        let (major, minor) = (numbers.next()??, numbers.next()??);
        let patch = numbers.next().flatten().unwrap_or(0);
        let vendor = if output.to_ascii_lowercase().contains("mariadb") { Vendor::MariaDb } else { Vendor::MySql };
        Some(Self { vendor, major, minor, patch })
    }

    /// Reads a value of `MYSQL_FLAVOR`: `MariaDB`, `MariaDB103`, `MariaDB1011`, `MySQL56`, `MySQL80`, `MySQL84`, `MySQL9`.
    pub fn parse_flavor(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let (vendor, digits) = if let Some(digits) = lower.strip_prefix("mariadb") {
            (Vendor::MariaDb, digits)
        } else if let Some(digits) = lower.strip_prefix("mysql") {
            (Vendor::MySql, digits)
        } else {
            return None;
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(match (vendor, digits) {
            (Vendor::MariaDb, "") => Self::new(vendor, 10, 0, 10),
            (Vendor::MariaDb, "103") => Self::new(vendor, 10, 3, 7),
            // Historical: the flavour of 5.6 stands for a server of 5.7.
            (Vendor::MySql, "56") => Self::new(vendor, 5, 7, 10),
            (Vendor::MySql, "80") => Self::new(vendor, 8, 0, 11),
            (Vendor::MySql, "") => return None,
            (Vendor::MariaDb, _) => Self::new(vendor, digits.get(..2)?.parse().ok()?, minor(digits.get(2..)?)?, 0),
            (Vendor::MySql, _) => Self::new(vendor, digits.get(..1)?.parse().ok()?, minor(digits.get(1..)?)?, 0),
        })
    }
}

fn minor(digits: &str) -> Option<u32> {
    if digits.is_empty() { Some(0) } else { digits.parse().ok() }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vendor = match self.vendor {
            Vendor::MariaDb => "MariaDB",
            Vendor::MySql => "MySQL",
        };
        write!(f, "{vendor} {}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A server that was found.
#[derive(Debug, Clone)]
pub struct Installation {
    pub mysqld: PathBuf,
    /// `bin`, `sbin`, `libexec` and `scripts` under it hold the other programs.
    pub root: PathBuf,
    /// Passed as `--basedir`; the server finds its files by itself when there is none.
    pub basedir: Option<PathBuf>,
    pub version: ServerVersion,
}

impl Installation {
    /// Looks for the server as the module's documentation says, and asks it for its version.
    pub fn find() -> Result<Self> {
        let mysqld = find_mysqld()?;
        let root = match env_path("VT_MYSQL_ROOT") {
            Some(root) => root,
            None => mysqld.parent().and_then(Path::parent).unwrap_or(Path::new("/usr")).to_owned(),
        };
        let basedir = env_path("VT_MYSQL_BASEDIR").or_else(|| {
            // An unpacked archive was compiled for another place.
            env_path("VT_MYSQL_ROOT").filter(|root| root.join("share").is_dir())
        });
        let version = version_of(&mysqld)?;
        Ok(Self { mysqld, root, basedir, version })
    }

    /// Another program of the installation: beside the server, or in `PATH`.
    pub fn program(&self, names: &[&str]) -> Result<PathBuf> {
        let beside = ["bin", "sbin", "libexec", "scripts"].map(|dir| self.root.join(dir));
        let path = env::var_os("PATH").unwrap_or_default();
        let dirs: Vec<PathBuf> = beside.into_iter().chain(env::split_paths(&path)).collect();
        names
            .iter()
            .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
            .find(|candidate| is_executable(candidate))
            .ok_or_else(|| {
                Error::Installation(format!(
                    "{} was not found under {} or in PATH",
                    names.join(" or "),
                    self.root.display()
                ))
            })
    }
}

fn env_path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn find_mysqld() -> Result<PathBuf> {
    const NAMES: [&str; 2] = ["mysqld", "mariadbd"];
    if let Some(root) = env_path("VT_MYSQL_ROOT") {
        return ["bin", "sbin", "libexec"]
            .iter()
            .flat_map(|dir| NAMES.map(|name| root.join(dir).join(name)))
            .find(|candidate| is_executable(candidate))
            .ok_or_else(|| {
                Error::Installation(format!("VT_MYSQL_ROOT is {}, but it holds no bin/mysqld", root.display()))
            });
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = [PathBuf::from("/usr/sbin")].into_iter().chain(env::split_paths(&path)).collect();
    NAMES
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| {
            Error::Installation(
                "no mysqld in PATH or /usr/sbin: install mariadb-server or mysql-server, or set VT_MYSQL_ROOT"
                    .to_owned(),
            )
        })
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

fn version_of(mysqld: &Path) -> Result<ServerVersion> {
    // A broken my.cnf of the system is not our business.
    let output = Command::new(mysqld).args(["--no-defaults", "--version"]).output();
    let detected =
        output.as_ref().ok().and_then(|output| ServerVersion::parse(&String::from_utf8_lossy(&output.stdout)));
    let wanted = match env::var("MYSQL_FLAVOR") {
        Ok(name) if !name.is_empty() => Some(ServerVersion::parse_flavor(&name).ok_or_else(|| {
            Error::Invalid(format!(
                "MYSQL_FLAVOR is {name:?}; known are MariaDB, MariaDB103, MySQL56, MySQL80 and the like (MySQL84, MariaDB1011)"
            ))
        })?),
        _ => None,
    };
    match (detected, wanted) {
        // The variable names a family and its oldest version; what the server says itself is more exact.
        (Some(detected), Some(wanted)) if detected.vendor == wanted.vendor => Ok(detected),
        (Some(detected), Some(wanted)) => {
            tracing::warn!("{} is {detected}, but MYSQL_FLAVOR asks for {wanted}", mysqld.display());
            Ok(wanted)
        }
        (Some(version), None) | (None, Some(version)) => Ok(version),
        (None, None) => Err(Error::Installation(match output {
            Err(error) => format!("cannot run {}: {error}", mysqld.display()),
            Ok(output) => format!(
                "{} --version prints no version ({}): {}{}",
                mysqld.display(),
                output.status,
                String::from_utf8_lossy(&output.stdout).trim(),
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_print_them() {
        let cases = [
            ("mysqld  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)", "MariaDB 10.11.19"),
            ("/opt/x/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))", "MySQL 9.7.4"),
            ("mysqld  Ver 5.7.29-32 for debian-linux-gnu on x86_64 (Percona Server (GPL))", "MySQL 5.7.29"),
            ("/usr/sbin/mysqld  Ver 8.0.36-0ubuntu0.22.04.1 for Linux on x86_64 ((Ubuntu))", "MySQL 8.0.36"),
        ];
        for (output, expected) in cases {
            assert_eq!(ServerVersion::parse(output).map(|version| version.to_string()).as_deref(), Some(expected));
        }
        assert_eq!(ServerVersion::parse("mysqld: command not found"), None);
    }

    #[test]
    fn flavours_name_families() {
        let flavor = |name| ServerVersion::parse_flavor(name).map(|version| version.to_string());
        assert_eq!(flavor("MariaDB").as_deref(), Some("MariaDB 10.0.10"));
        assert_eq!(flavor("MariaDB103").as_deref(), Some("MariaDB 10.3.7"));
        assert_eq!(flavor("MariaDB1011").as_deref(), Some("MariaDB 10.11.0"));
        assert_eq!(flavor("MySQL56").as_deref(), Some("MySQL 5.7.10"));
        assert_eq!(flavor("MySQL80").as_deref(), Some("MySQL 8.0.11"));
        assert_eq!(flavor("MySQL84").as_deref(), Some("MySQL 8.4.0"));
        assert_eq!(flavor("MySQL9").as_deref(), Some("MySQL 9.0.0"));
        assert_eq!(flavor("Postgres"), None);
    }
}
