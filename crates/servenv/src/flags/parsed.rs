//! The values a command line gave, read by name.
//!
//! Invariant: reading a flag marks it as read, so that [`Parsed::never_read`] tells which flags were
//! given although nothing in the program asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::value::{Value, from_nanos};
use super::{Effect, Flag, key};

#[derive(Debug)]
struct Entry {
    flag: Flag,
    read: AtomicBool,
    /// Differs from its default.
    changed: bool,
}

/// The result of [`super::FlagSet::parse`]. Cheap to share behind an `Arc`.
///
/// Reading a name that was not defined, or as another kind than it was defined with, panics: it is
/// a mistake of the program that every start shows, not one of its user.
#[derive(Debug)]
pub struct Parsed {
    name: String,
    entries: BTreeMap<String, Entry>,
    given: BTreeSet<String>,
    args: Vec<String>,
}

impl Parsed {
    pub(super) fn new(
        name: String,
        flags: BTreeMap<String, Flag>,
        defaults: &BTreeMap<String, Flag>,
        given: Vec<String>,
        args: Vec<String>,
    ) -> Self {
        let entries = flags
            .into_iter()
            .map(|(key, flag)| {
                let changed = defaults.get(&key).is_none_or(|default| default.value != flag.value);
                (key, Entry { flag, read: AtomicBool::new(false), changed })
            })
            .collect();
        Self { name, entries, given: given.into_iter().collect(), args }
    }

    /// The program's or sub-command's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn value(&self, name: &str) -> &Value {
        let Some(entry) = self.entries.get(&key(name)) else { panic!("flag -{name} is read but not defined") };
        entry.read.store(true, Ordering::Relaxed);
        &entry.flag.value
    }

    #[track_caller]
    fn wrong_kind(&self, name: &str, wanted: &str) -> ! {
        panic!("flag -{name} is read as {wanted} but is not defined so")
    }

    pub fn bool(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(value) => *value,
            _ => self.wrong_kind(name, "a boolean"),
        }
    }

    pub fn str(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Str(value) => value,
            _ => self.wrong_kind(name, "a string"),
        }
    }

    pub fn int(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Int(value) => *value,
            Value::Uint(value) => i64::try_from(*value).unwrap_or(i64::MAX),
            _ => self.wrong_kind(name, "an integer"),
        }
    }

    pub fn uint(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Uint(value) => *value,
            Value::Int(value) => u64::try_from(*value).unwrap_or(0),
            _ => self.wrong_kind(name, "an unsigned integer"),
        }
    }

    /// An integer as a count or size; negative values are 0.
    pub fn size(&self, name: &str) -> usize {
        usize::try_from(self.uint(name)).unwrap_or(usize::MAX)
    }

    pub fn float(&self, name: &str) -> f64 {
        match self.value(name) {
            Value::Float(value) => *value,
            Value::Int(value) => *value as f64,
            _ => self.wrong_kind(name, "a number"),
        }
    }

    /// A duration; a negative one reads as zero.
    pub fn duration(&self, name: &str) -> Duration {
        match self.value(name) {
            Value::Duration(nanos) => from_nanos(*nanos),
            _ => self.wrong_kind(name, "a duration"),
        }
    }

    /// A float flag in seconds (the `queryserver-config-*` flags) as a duration.
    pub fn seconds(&self, name: &str) -> Duration {
        let seconds = self.float(name);
        Duration::try_from_secs_f64(seconds).unwrap_or(if seconds > 0.0 { Duration::MAX } else { Duration::ZERO })
    }

    /// The entries of a list; a string flag is split at its commas.
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::List(value) | Value::Multi(value) => value.clone(),
            Value::Str(value) => super::value::split_list(value),
            _ => self.wrong_kind(name, "a list"),
        }
    }

    /// Whether the flag stood on the command line, whatever its value.
    pub fn is_set(&self, name: &str) -> bool {
        if let Some(entry) = self.entries.get(&key(name)) {
            entry.read.store(true, Ordering::Relaxed);
        }
        self.given.contains(&key(name))
    }

    /// Whether a flag of that name is defined at all.
    pub fn is_defined(&self, name: &str) -> bool {
        self.entries.contains_key(&key(name))
    }

    /// The words after the flags.
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// Refuses words after the flags: flags behind a word are words, too, and `-flag true -other` would lose `-other`.
    ///
    /// # Errors
    /// What to tell the caller, when there are any.
    pub fn refuse_args(&self) -> Result<(), String> {
        match self.args.as_slice() {
            [] => Ok(()),
            args => Err(format!("{} doesn't take any positional arguments, got '{}'", self.name, args.join(" "))),
        }
    }

    /// The word number `index` after the flags; empty when there is none, as in Go.
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// Names of flags that exist for compatibility only and were given another value than their
    /// default. One that the program reads all the same does have an effect.
    pub fn without_effect(&self) -> Vec<&str> {
        self.names(|entry| {
            entry.changed && entry.flag.effect == Effect::AcceptedOnly && !entry.read.load(Ordering::Relaxed)
        })
    }

    /// Names of flags that were changed although the program has not read them so far.
    pub fn never_read(&self) -> Vec<&str> {
        self.names(|entry| entry.changed && entry.flag.effect == Effect::Works && !entry.read.load(Ordering::Relaxed))
    }

    fn names(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<&str> {
        self.entries.values().filter(|entry| wanted(entry)).map(|entry| entry.flag.name.as_str()).collect()
    }

    /// Logs one warning for each flag that was set and does nothing in this build.
    pub fn warn_without_effect(&self) {
        for name in self.without_effect() {
            tracing::warn!("flag -{name} is accepted for compatibility and has no effect");
        }
        for name in self.never_read() {
            tracing::warn!("flag -{name} is accepted, but nothing in this build of {} uses it", self.name);
        }
    }
}
