//! The register of flags: every flag that Vitess v5.0.1 (and v4.0.1) defines for a program, with its
//! default, so that no script written for Vitess fails on an unknown flag.
//!
//! A row without a help text is accepted for compatibility only. A row with one works in some
//! program; where a program never reads it, [`crate::Parsed::warn_without_effect`] says so when it
//! is set. Own flags of ours stand in `common.rs` and say so.

mod common;
mod mysql;
mod others;
mod topo;
mod vtctl;
mod vtgate;
mod vttablet;

use crate::flags::{FlagSet, Kind};

/// A program of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    Vtgate,
    Vttablet,
    Vtctld,
    Vtctl,
    Vtworker,
    Mysqlctl,
    Mysqlctld,
    Vtctlclient,
    Vtworkerclient,
    Vtexplain,
    Vtcombo,
    Vttestserver,
    Vtbackup,
}

/// Name, kind, default and help of a flag.
type Row = (&'static str, Kind, &'static str, &'static str);

/// Flags that the same programs have.
struct Group {
    /// The programs, one letter each; see [`Program::letter`].
    letters: &'static str,
    /// Those of them in which the flags can do something; the others list them apart.
    used_by: &'static str,
    heading: &'static str,
    rows: &'static [Row],
}

impl Program {
    pub const ALL: [Self; 13] = [
        Self::Vtgate,
        Self::Vttablet,
        Self::Vtctld,
        Self::Vtctl,
        Self::Vtworker,
        Self::Mysqlctl,
        Self::Mysqlctld,
        Self::Vtctlclient,
        Self::Vtworkerclient,
        Self::Vtexplain,
        Self::Vtcombo,
        Self::Vttestserver,
        Self::Vtbackup,
    ];

    /// The name of the binary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vtgate => "vtgate",
            Self::Vttablet => "vttablet",
            Self::Vtctld => "vtctld",
            Self::Vtctl => "vtctl",
            Self::Vtworker => "vtworker",
            Self::Mysqlctl => "mysqlctl",
            Self::Mysqlctld => "mysqlctld",
            Self::Vtctlclient => "vtctlclient",
            Self::Vtworkerclient => "vtworkerclient",
            Self::Vtexplain => "vtexplain",
            Self::Vtcombo => "vtcombo",
            Self::Vttestserver => "vttestserver",
            Self::Vtbackup => "vtbackup",
        }
    }

    /// One that serves until it is told to stop, and takes no words behind its flags.
    pub fn is_server(self) -> bool {
        matches!(self, Self::Vtgate | Self::Vttablet | Self::Vtctld)
    }

    /// The letter of the program in the tables.
    pub fn letter(self) -> char {
        match self {
            Self::Vtgate => 'G',
            Self::Vttablet => 'T',
            Self::Vtctld => 'C',
            Self::Vtctl => 'L',
            Self::Vtworker => 'W',
            Self::Mysqlctl => 'M',
            Self::Mysqlctld => 'D',
            Self::Vtctlclient => 'c',
            Self::Vtworkerclient => 'w',
            Self::Vtexplain => 'X',
            Self::Vtcombo => 'O',
            Self::Vttestserver => 'S',
            Self::Vtbackup => 'B',
        }
    }

    /// Every flag of the program. Add to it or change defaults before parsing.
    pub fn flag_set(self) -> FlagSet {
        let mut set = FlagSet::new(self.name());
        let letter = self.letter();
        let tables = [common::GROUPS, topo::GROUPS, mysql::GROUPS, vtgate::GROUPS, vttablet::GROUPS];
        let tables = tables.into_iter().chain([vtctl::GROUPS, others::GROUPS]);
        for group in tables.flatten().filter(|group| group.letters.contains(letter)) {
            add(&mut set, group, letter);
        }
        mysql::add_users(&mut set, letter);
        match self {
            Self::Vtgate => {}
            Self::Mysqlctl => {
                set.set_default("port", "6612");
            }
            // Vitess's vtgate alone comes with the name of a test cell.
            Self::Vtctld | Self::Vtworker | Self::Vtcombo => {
                set.set_default("cell", "");
            }
            Self::Vtctlclient => {
                set.set_default("action_timeout", "1h");
            }
            Self::Vttestserver => {
                set.set_default("tablet_hostname", "localhost")
                    .set_default("queryserver-config-transaction-timeout", "0");
            }
            _ => {}
        }
        set
    }
}

fn add(set: &mut FlagSet, group: &Group, letter: char) {
    set.group(group.heading);
    let used = group.used_by.contains(letter);
    for &(name, kind, default, help) in group.rows {
        set.row(name, kind, default, help);
        if help.is_empty() || !used {
            set.no_effect(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlagError;

    /// The register of v5.0.1, if it lies beside the project: every flag of every program has to
    /// parse with its default, and booleans without a value.
    #[test]
    fn every_flag_of_vitess_is_accepted_with_its_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/commands.md");
        let Ok(text) = std::fs::read_to_string(path) else {
            eprintln!("SKIPPED: {path} is not there");
            return;
        };
        let (_, section) = text.split_once("## 5. Complete flag register").expect("the section of flags");
        let mut checked = 0;
        for line in section.lines() {
            let mut cells = line.trim_matches('|').splitn(2, '|').map(str::trim);
            let (Some(letters), Some(flags)) = (cells.next(), cells.next()) else { continue };
            let all: String = Program::ALL.map(Program::letter).iter().collect();
            let letters = if letters == "all" { all.as_str() } else { letters };
            if !letters.chars().all(|letter| all.contains(letter)) {
                continue;
            }
            for flag in flags.split(", ").flat_map(|piece| piece.split("; ")) {
                let flag = flag.rsplit(": ").next().unwrap_or(flag);
                let Some((name, default)) = flag.split_once('=') else { continue };
                let default = default.split(" (").next().unwrap_or(default).trim_end_matches(['|', ' ']);
                let (name, is_bool) = name.strip_suffix('^').map_or((name, false), |name| (name, true));
                for letter in letters.chars() {
                    check(program(letter), name, is_bool, default);
                    checked += 1;
                }
            }
        }
        assert!(checked > 2200, "only {checked} flags were found in the register");
    }

    fn program(letter: char) -> Program {
        Program::ALL.into_iter().find(|program| program.letter() == letter).expect("a letter of the register")
    }

    fn check(program: Program, name: &str, is_bool: bool, default: &str) {
        let set = program.flag_set();
        let what = format!("{} -{name}={default}", program.name());
        assert!(set.defines(name), "{what} is not defined");
        if is_bool {
            let parsed = set.parse([format!("-{name}"), "word".into()]).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(parsed.args(), ["word"], "{what} must not take the next word");
        } else {
            let error = set.parse([format!("-{name}")]).expect_err("a value is needed").to_string();
            assert_eq!(error, format!("flag needs an argument: -{name}"));
        }
        // The defaults that differ by program, and words that stand for a value. Our messages may be larger, so that a
        // statement of max_allowed_packet fits into one.
        let differs = matches!(
            name,
            "cell"
                | "port"
                | "tablet_hostname"
                | "queryserver-config-transaction-timeout"
                | "action_timeout"
                | "grpc_max_message_size"
        ) || matches!(default, "max" | "")
            || default.starts_with('(');
        if !differs {
            let parsed = set.parse([format!("-{name}={default}")]).unwrap_or_else(|e| panic!("{what}: {e}"));
            let changed = [parsed.never_read(), parsed.without_effect()].concat();
            assert_eq!(changed, [] as [&str; 0], "{what} has another default here");
        }
    }

    #[test]
    fn defaults_differ_by_program_where_they_do_in_vitess() {
        let flag =
            |program: Program, name: &str| program.flag_set().parse([""; 0]).expect("empty").str(name).to_owned();
        assert_eq!(flag(Program::Vtgate, "cell"), "test_nj");
        assert_eq!(flag(Program::Vtctld, "cell"), "");
        let set = Program::Mysqlctl.flag_set();
        assert_eq!(set.parse([""; 0]).expect("empty").int("port"), 6612);
        let limit =
            |program: Program| program.flag_set().parse([""; 0]).expect("empty").duration("action_timeout").as_secs();
        assert_eq!((limit(Program::Vtctld), limit(Program::Vtctlclient)), (120, 3600));
    }

    #[test]
    fn the_flags_of_the_walkthrough_parse() {
        let vttablet = "-topo_implementation etcd2 -topo_global_server_address localhost:2379 \
             -topo_global_root /vitess/global -log_dir /tmp -log_queries_to_file /tmp/q -tablet-path zone1-0000000100 \
             -tablet_hostname= -init_keyspace commerce -init_shard 0 -init_tablet_type replica \
             -health_check_interval 5s -enable_semi_sync -enable_replication_reporter \
             -backup_storage_implementation file -file_backup_storage_root /tmp/b -restore_from_backup -port 15100 \
             -grpc_port 16100 -service_map grpc-queryservice,grpc-tabletmanager,grpc-updatestream -pid_file /tmp/p \
             -vtctld_addr http://host:15000/";
        let parsed = Program::Vttablet.flag_set().parse(vttablet.split_ascii_whitespace()).expect("valid");
        assert_eq!(parsed.duration("health_check_interval").as_secs(), 5);
        assert_eq!(parsed.without_effect(), [] as [&str; 0]);
        assert!(parsed.args().is_empty());
        let Err(FlagError::Invalid { message, .. }) = Program::Vtctld.flag_set().parse(["-enable_queries", "-nope"])
        else {
            panic!("-nope is no flag");
        };
        assert_eq!(message, "flag provided but not defined: -nope");
        Program::Vtctld.flag_set().parse(["-web_dir", "/x", "-web_dir2", "/y"]).expect("flags of v4");
    }
}
