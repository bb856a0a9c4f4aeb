//! Flags from a YAML file, `-config_file`: for servers whose command lines grow long.
//!
//! One mapping, names of flags (either spelling, without dashes in front) to values. A flag on the command line
//! wins over the file. Nothing in it is ignored: an unknown name, a value that does not fit and a name that stands
//! there twice are errors that name the file.

use serde_yaml::{Mapping, Value as Yaml};

use super::{FlagError, FlagSet, Parsed, Words, key};

/// The flag that names the file.
pub const CONFIG_FILE: &str = "config_file";

impl FlagSet {
    /// Parses `args` (without the program's name) and the file that `-config_file` names.
    ///
    /// # Errors
    /// Those of [`FlagSet::parse`]; [`FlagError::Invalid`] without a usage text for the file.
    pub fn parse_with_file<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Result<Parsed, FlagError> {
        let mut words = self.read(args)?;
        let path = words.flags.get(&key(CONFIG_FILE)).map(|flag| flag.value.print()).unwrap_or_default();
        if !path.is_empty() {
            let wrong = |error: String| FlagError::Invalid {
                message: format!("-{CONFIG_FILE} {path}: {error}"),
                usage: String::new(),
            };
            let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
            apply(&mut words, &text).map_err(wrong)?;
        }
        let Words { flags, given, rest } = words;
        Ok(Parsed::new(self.name.clone(), flags, &self.flags, given, rest))
    }
}

/// Gives every flag of the file that the command line does not give its value.
fn apply(words: &mut Words, text: &str) -> Result<(), String> {
    let file: Option<Mapping> = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let mut seen = Vec::new();
    for (name, value) in file.unwrap_or_default() {
        let Yaml::String(name) = name else { return Err(format!("{name:?} is not the name of a flag")) };
        let key = key(&name);
        let Some(flag) = words.flags.get_mut(&key).filter(|_| name != CONFIG_FILE) else {
            return Err(format!("flag provided but not defined: {name}"));
        };
        if seen.contains(&key) {
            return Err(format!("{name} stands there twice"));
        }
        if !words.given.contains(&key) {
            for text in texts(&value).ok_or_else(|| format!("{name} takes a value, or a list of values"))? {
                flag.value = (flag.value.parse(&text))
                    .map_err(|error| format!("invalid value {text:?} for flag {name}: {}", error.text()))?;
            }
        }
        seen.push(key);
    }
    words.given.extend(seen);
    Ok(())
}

/// A value as a command line would have it. A list stands for a flag that takes several, separated by commas.
fn texts(value: &Yaml) -> Option<Vec<String>> {
    let scalar = |value: &Yaml| match value {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Bool(value) => Some(value.to_string()),
        Yaml::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match value {
        Yaml::Sequence(values) => Some(vec![values.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(",")]),
        one => Some(vec![scalar(one)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn set() -> FlagSet {
        let mut set = FlagSet::new("prog");
        set.string(CONFIG_FILE, "", "file")
            .int("port", 15, "port")
            .bool("enable_semi_sync", false, "switch")
            .duration("health_check_interval", Duration::from_secs(20), "interval")
            .float("transaction_limit_per_user", 0.4, "share")
            .string("tablet-path", "", "alias")
            .list("cells_to_watch", "", "cells");
        set
    }

    fn parse(text: &str, args: &[&str]) -> Result<Parsed, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, text).expect("written");
        let path = file.path().to_str().expect("text");
        let all: Vec<&str> = ["-config_file", path].iter().chain(args).copied().collect();
        set().parse_with_file(all).map_err(|error| error.to_string().replace(path, "FILE"))
    }

    #[test]
    fn the_file_sets_what_the_command_line_does_not() {
        let text = "# of this host\nport: 15100\nenable-semi-sync: true\nhealth_check_interval: 5s\n\
                    transaction_limit_per_user: 0.25\ntablet_path: zone1-100\ncells_to_watch: [zone1, zone2]\n";
        let parsed = parse(text, &["-port", "16", "word"]).expect("valid");
        assert_eq!((parsed.int("port"), parsed.args()), (16, &["word".to_owned()][..]));
        assert!(parsed.bool("enable_semi_sync") && parsed.is_set("enable_semi_sync"));
        assert_eq!(parsed.duration("health_check_interval"), Duration::from_secs(5));
        assert_eq!(parsed.float("transaction_limit_per_user"), 0.25);
        assert_eq!(parsed.str("tablet-path"), "zone1-100");
        assert_eq!(parsed.list("cells_to_watch"), ["zone1", "zone2"]);
        assert_eq!(parse("", &[]).expect("an empty file").int("port"), 15);
        assert_eq!(parse("# nothing\n", &["-port=3"]).expect("a comment").int("port"), 3);
    }

    #[test]
    fn nothing_in_the_file_is_ignored() {
        for (text, error) in [
            ("nope: 1", "flag provided but not defined: nope"),
            ("config_file: other.yaml", "flag provided but not defined: config_file"),
            ("port: many", "invalid value \"many\" for flag port: parse error"),
            ("port:", "port takes a value, or a list of values"),
            ("tablet_path: a\ntablet-path: b", "tablet-path stands there twice"),
            ("port: 1\nport: 2", "duplicate entry with key \"port\""),
            ("- port", "invalid type: sequence"),
            ("port: [1", "did not find expected ',' or ']' at line 2"),
        ] {
            let told = parse(text, &[]).expect_err(text);
            assert!(told.starts_with("-config_file FILE: ") && told.contains(error), "{text}: {told}");
        }
        let missing = set().parse_with_file(["-config_file", "/nowhere.yaml"]).expect_err("no file").to_string();
        assert_eq!(missing, "-config_file /nowhere.yaml: No such file or directory (os error 2)");
    }
}
