//! Command line flags with the rules of Go's `flag` package, which every script of Vitess expects.
//!
//! Owns: [`FlagSet`] (what a program or a sub-command defines), [`Parsed`] (what it was given), the
//! texts of errors and of usage. Serves programs and the sub-commands of vtctl alike.
//! Invariants: `-x`, `--x` and both spellings `a-b`/`a_b` are the same flag; the first word that is
//! not a flag ends the flags; a boolean takes a value only after `=`; a repeated flag: the last wins.
//! See `docs/decisions/0001-go-style-flags.md`.

mod file;
mod parsed;
mod usage;
mod value;

use std::collections::BTreeMap;
use std::time::Duration;

pub use file::CONFIG_FILE;
pub use parsed::Parsed;
use value::Value;
pub use value::{go_duration, print_go_duration};

/// Why parsing ended without a result. `Display` is Go's error text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// `-h`, `-help` or `--help` was given.
    #[error("flag: help requested")]
    Help {
        /// The whole usage text, ending with a newline.
        usage: String,
    },
    /// A flag is unknown or its value is bad: `flag provided but not defined: -nope`.
    #[error("{message}")]
    Invalid {
        message: String,
        /// The whole usage text, ending with a newline.
        usage: String,
    },
}

/// Whether a flag does something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Works,
    /// Defined so that scripts written for Vitess start; giving it another value logs a warning.
    AcceptedOnly,
}

#[derive(Debug, Clone)]
struct Flag {
    /// As defined, for usage texts.
    name: String,
    value: Value,
    help: String,
    group: &'static str,
    effect: Effect,
}

/// The flags of a program or of one sub-command. Defining a name again replaces the earlier one, so
/// that a program can change the default of a flag of a shared group.
#[derive(Debug, Clone, Default)]
pub struct FlagSet {
    name: String,
    synopsis: String,
    /// Keyed by the spelling with dashes.
    flags: BTreeMap<String, Flag>,
    group: &'static str,
}

/// What a command line says, word by word.
struct Words {
    flags: BTreeMap<String, Flag>,
    /// Keys of the flags that were given.
    given: Vec<String>,
    /// The words behind the flags.
    rest: Vec<String>,
}

/// Both spellings of a flag lead to this one.
fn key(name: &str) -> String {
    name.replace('_', "-")
}

impl FlagSet {
    /// `name` is the program's or the sub-command's, for the usage text.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What stands after the name in the usage text (such as `<command> [arguments]`), and lines of
    /// description after a first line feed.
    pub fn synopsis(&mut self, text: impl Into<String>) -> &mut Self {
        self.synopsis = text.into();
        self
    }

    /// Flags defined from here on are listed under this heading.
    pub fn group(&mut self, heading: &'static str) -> &mut Self {
        self.group = heading;
        self
    }

    fn define(&mut self, name: &str, value: Value, help: &str, effect: Effect) -> &mut Self {
        let flag = Flag { name: name.into(), value, help: help.into(), group: self.group, effect };
        self.flags.insert(key(name), flag);
        self
    }

    pub fn bool(&mut self, name: &str, default: bool, help: &str) -> &mut Self {
        self.define(name, Value::Bool(default), help, Effect::Works)
    }

    pub fn string(&mut self, name: &str, default: &str, help: &str) -> &mut Self {
        self.define(name, Value::Str(default.into()), help, Effect::Works)
    }

    pub fn int(&mut self, name: &str, default: i64, help: &str) -> &mut Self {
        self.define(name, Value::Int(default), help, Effect::Works)
    }

    pub fn uint(&mut self, name: &str, default: u64, help: &str) -> &mut Self {
        self.define(name, Value::Uint(default), help, Effect::Works)
    }

    pub fn float(&mut self, name: &str, default: f64, help: &str) -> &mut Self {
        self.define(name, Value::Float(default), help, Effect::Works)
    }

    pub fn duration(&mut self, name: &str, default: Duration, help: &str) -> &mut Self {
        let nanos = i64::try_from(default.as_nanos()).unwrap_or(i64::MAX);
        self.define(name, Value::Duration(nanos), help, Effect::Works)
    }

    /// A comma separated list; the last occurrence wins.
    pub fn list(&mut self, name: &str, default: &str, help: &str) -> &mut Self {
        self.define(name, Value::List(value::split_list(default)), help, Effect::Works)
    }

    /// A flag that may be given several times; each occurrence is one entry.
    pub fn multi(&mut self, name: &str, help: &str) -> &mut Self {
        self.define(name, Value::Multi(Vec::new()), help, Effect::Works)
    }

    /// A flag that exists for compatibility only: any value parses; one that differs from `default`
    /// logs a warning that it has no effect.
    pub fn accepted(&mut self, name: &str, default: &str, is_bool: bool) -> &mut Self {
        let value = if is_bool { Value::Bool(default == "true") } else { Value::Str(default.into()) };
        self.define(name, value, "", Effect::AcceptedOnly)
    }

    /// Defines a flag from a row of a table: `kind` and `default` as text.
    /// Panics on a default that is not of its kind: the table is part of the program.
    pub(crate) fn row(&mut self, name: &str, kind: Kind, default: &str, help: &str) -> &mut Self {
        let zero = match kind {
            Kind::Bool => Value::Bool(false),
            Kind::Str => Value::Str(String::new()),
            Kind::Int => Value::Int(0),
            Kind::Uint => Value::Uint(0),
            Kind::Float => Value::Float(0.0),
            Kind::Dur => Value::Duration(0),
            Kind::List => Value::List(Vec::new()),
        };
        let value = if default.is_empty() {
            zero
        } else {
            match zero.parse(default) {
                Ok(value) => value,
                Err(error) => panic!("flag table: -{name}={default}: {}", error.text()),
            }
        };
        self.define(name, value, help, Effect::Works)
    }

    /// Marks flags defined earlier as accepted for compatibility only.
    pub(crate) fn no_effect(&mut self, name: &str) {
        if let Some(flag) = self.flags.get_mut(&key(name)) {
            flag.effect = Effect::AcceptedOnly;
        }
    }

    /// Gives a flag defined earlier another default. Unknown names and bad values are ignored by
    /// nobody: both panic, being mistakes of the program.
    pub fn set_default(&mut self, name: &str, default: &str) -> &mut Self {
        let Some(flag) = self.flags.get_mut(&key(name)) else { panic!("set_default of -{name}, which is not defined") };
        match flag.value.parse(default) {
            Ok(value) => flag.value = value,
            Err(error) => panic!("default of -{name}: {default}: {}", error.text()),
        }
        self
    }

    /// Whether a flag of that name is defined.
    pub fn defines(&self, name: &str) -> bool {
        self.flags.contains_key(&key(name))
    }

    /// Parses `args` (without the program's name).
    ///
    /// # Errors
    /// [`FlagError::Help`] for `-h`, [`FlagError::Invalid`] with Go's text for everything else.
    pub fn parse<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Result<Parsed, FlagError> {
        let Words { flags, given, rest } = self.read(args)?;
        Ok(Parsed::new(self.name.clone(), flags, &self.flags, given, rest))
    }

    fn read<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Result<Words, FlagError> {
        let mut flags = self.flags.clone();
        let mut given = Vec::new();
        let words: Vec<String> = args.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let mut next = 0;
        while let Some(word) = words.get(next) {
            if word.len() < 2 || !word.starts_with('-') {
                break;
            }
            next += 1;
            if word == "--" {
                break;
            }
            let body = word.strip_prefix("--").unwrap_or(&word[1..]);
            if body.is_empty() || body.starts_with('-') || body.starts_with('=') {
                return Err(self.invalid(format!("bad flag syntax: {word}")));
            }
            let (name, inline) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            let Some(flag) = flags.get_mut(&key(name)) else {
                return Err(match name {
                    "h" | "help" => FlagError::Help { usage: self.usage() },
                    _ => self.invalid(format!("flag provided but not defined: -{name}")),
                });
            };
            let is_bool = matches!(flag.value, Value::Bool(_));
            let text = match inline {
                Some(text) => text,
                None if is_bool => "true".into(),
                None => {
                    let Some(text) = words.get(next) else {
                        return Err(self.invalid(format!("flag needs an argument: -{name}")));
                    };
                    next += 1;
                    text.clone()
                }
            };
            match flag.value.parse(&text) {
                Ok(value) => flag.value = value,
                Err(error) => {
                    let kind = if is_bool { "boolean value" } else { "value" };
                    let joint = if is_bool { "for" } else { "for flag" };
                    return Err(self.invalid(format!("invalid {kind} {text:?} {joint} -{name}: {}", error.text())));
                }
            }
            given.push(key(name));
        }
        Ok(Words { flags, given, rest: words[next..].to_vec() })
    }

    fn invalid(&self, message: String) -> FlagError {
        FlagError::Invalid { message, usage: self.usage() }
    }

    /// Parses the arguments of this process and the file that they name. Help goes to stdout with exit code 0; an error and the
    /// usage text go to stderr with exit code 2, as in Go.
    pub fn parse_or_exit(&self) -> Parsed {
        let mut args = Vec::new();
        for word in std::env::args_os().skip(1) {
            match word.into_string() {
                Ok(word) => args.push(word),
                Err(word) => {
                    eprintln!("argument is not UTF-8: {}", word.to_string_lossy());
                    std::process::exit(2);
                }
            }
        }
        match self.parse_with_file(args) {
            Ok(parsed) => parsed,
            Err(FlagError::Help { usage }) => {
                use std::io::Write;
                // A reader such as `head` may have closed the pipe.
                let _ = std::io::stdout().write_all(usage.as_bytes());
                std::process::exit(0);
            }
            Err(FlagError::Invalid { message, usage }) => {
                eprint!("{message}\n{usage}");
                std::process::exit(2);
            }
        }
    }
}

/// The kinds of flags in the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Str,
    Int,
    Uint,
    Float,
    Dur,
    List,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> FlagSet {
        let mut set = FlagSet::new("prog");
        set.bool("force", false, "do it anyway")
            .string("tablet_hostname", "here", "name")
            .int("port", 15, "port")
            .duration("action_timeout", Duration::from_secs(3600), "limit")
            .list("cells", "", "cells")
            .multi("tag", "label")
            .float("ratio", 0.5, "ratio")
            .accepted("web_dir", "", false);
        set
    }

    fn error(args: &[&str]) -> String {
        set().parse(args).expect_err("bad arguments").to_string()
    }

    #[test]
    fn every_spelling_of_go_is_understood() {
        let parsed = set()
            .parse(["-force", "--port", "0x10", "-tablet-hostname=", "--action-timeout=1m30s", "GetTablet", "-x", "--"])
            .expect("valid");
        assert!(parsed.bool("force"));
        assert_eq!(parsed.int("port"), 16);
        assert_eq!(parsed.str("tablet_hostname"), "");
        assert!(parsed.is_set("tablet-hostname"));
        assert_eq!(parsed.duration("action_timeout"), Duration::from_secs(90));
        assert_eq!(parsed.args(), ["GetTablet", "-x", "--"]);
        assert!(!parsed.is_set("cells"));
    }

    #[test]
    fn a_boolean_takes_a_value_only_with_an_equals_sign() {
        let parsed = set().parse(["-force", "false"]).expect("valid");
        assert!(parsed.bool("force"));
        assert_eq!(parsed.args(), ["false"]);
        assert!(!set().parse(["-force=false"]).expect("valid").bool("force"));
    }

    #[test]
    fn flags_end_at_two_dashes_and_at_the_first_other_word() {
        assert_eq!(set().parse(["--", "-force"]).expect("valid").args(), ["-force"]);
        assert_eq!(set().parse(["-", "-force"]).expect("valid").args(), ["-", "-force"]);
        assert!(
            set().parse(["-tablet_hostname", "-force"]).expect("takes the next word").str("tablet_hostname")
                == "-force"
        );
    }

    #[test]
    fn the_last_of_a_repeated_flag_wins_and_multi_collects() {
        let parsed =
            set().parse(["-port=1", "-port=2", "-cells=a,b", "-cells=c", "-tag=x", "-tag", "y,z"]).expect("valid");
        assert_eq!(parsed.int("port"), 2);
        assert_eq!(parsed.list("cells"), ["c"]);
        assert_eq!(parsed.list("tag"), ["x", "y,z"]);
    }

    #[test]
    fn errors_have_the_texts_of_go() {
        assert_eq!(error(&["-nope"]), "flag provided but not defined: -nope");
        assert_eq!(error(&["--no_pe=1"]), "flag provided but not defined: -no_pe");
        assert_eq!(error(&["-port", "x"]), "invalid value \"x\" for flag -port: parse error");
        assert_eq!(
            error(&["-port=99999999999999999999"]),
            "invalid value \"99999999999999999999\" for flag -port: value out of range"
        );
        assert_eq!(error(&["-force=maybe"]), "invalid boolean value \"maybe\" for -force: parse error");
        assert_eq!(error(&["-port"]), "flag needs an argument: -port");
        assert_eq!(error(&["--=x"]), "bad flag syntax: --=x");
        assert_eq!(error(&["---x"]), "bad flag syntax: ---x");
        assert_eq!(error(&["-action_timeout=5"]), "invalid value \"5\" for flag -action_timeout: parse error");
        assert_eq!(error(&["-help"]), "flag: help requested");
    }

    #[test]
    fn flags_without_effect_are_reported_when_set_to_something_else() {
        let parsed = set().parse(["-web_dir=/x", "-force"]).expect("valid");
        assert_eq!(parsed.without_effect(), ["web_dir"]);
        assert_eq!(set().parse(["-web_dir="]).expect("valid").without_effect(), [] as [&str; 0]);
        // Given but never asked for: nothing in the program uses it.
        assert_eq!(parsed.never_read(), ["force"]);
        assert!(parsed.bool("force"));
        assert_eq!(parsed.never_read(), [] as [&str; 0]);
    }

    #[test]
    fn usage_lists_defaults_and_sets_apart_what_has_no_effect() {
        let usage = set().usage();
        assert!(usage.starts_with("Usage of prog:\n"), "{usage}");
        assert!(usage.contains("(default \"here\")"), "{usage}");
        assert!(usage.contains("(default 1h0m0s)"), "{usage}");
        let (working, accepted) = usage.split_once("without effect").expect("a list of flags without effect");
        assert!(working.contains("-port") && accepted.contains("-web_dir"), "{usage}");
        assert!(set().go_defaults().contains("  -port int\n    \tport (default 15)\n"), "{}", set().go_defaults());
    }
}
