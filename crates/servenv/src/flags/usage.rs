//! Usage texts: a grouped one for programs, and Go's own layout for sub-commands.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Effect, Flag, FlagSet, Value};

/// Widest line of the list of flags without effect.
const WIDTH: usize = 100;

impl FlagSet {
    /// The usage text: groups in the order of their names, flags sorted, one line of help and the
    /// default each; then the names of the flags that are accepted without effect.
    pub fn usage(&self) -> String {
        let mut out = format!("Usage of {}:\n", self.name);
        if !self.synopsis.is_empty() {
            let (first, rest) = self.synopsis.split_once('\n').unwrap_or((&self.synopsis, ""));
            let _ = writeln!(out, "  {} {first}", self.name);
            for line in rest.lines() {
                let _ = writeln!(out, "  {line}");
            }
        }
        let mut groups: BTreeMap<&str, Vec<&Flag>> = BTreeMap::new();
        let mut accepted = Vec::new();
        for flag in self.flags.values() {
            match flag.effect {
                Effect::Works => groups.entry(flag.group).or_default().push(flag),
                Effect::AcceptedOnly => accepted.push(format!("-{}", flag.name)),
            }
        }
        for (heading, flags) in groups {
            out.push('\n');
            if !heading.is_empty() {
                let _ = writeln!(out, "{heading}:");
            }
            for flag in flags {
                out.push_str(&head(flag));
                let _ = writeln!(out, "\n        {}{}", flag.help, default(flag));
            }
        }
        if !accepted.is_empty() {
            out.push_str("\nAccepted so that scripts written for Vitess start, but without effect:\n");
            let mut line = String::from(" ");
            for name in accepted {
                if line.len() + name.len() + 1 > WIDTH {
                    let _ = writeln!(out, "{line}");
                    line = " ".into();
                }
                line.push(' ');
                line.push_str(&name);
            }
            let _ = writeln!(out, "{line}");
        }
        out
    }

    /// The list of flags as Go's `PrintDefaults` writes it, for the sub-commands of vtctl.
    pub fn go_defaults(&self) -> String {
        let mut flags: Vec<&Flag> = self.flags.values().collect();
        flags.sort_by(|a, b| a.name.cmp(&b.name));
        let mut out = String::new();
        for flag in flags {
            out.push_str(&head(flag));
            // Go keeps a boolean of one letter on the line of its help.
            let short = matches!(flag.value, Value::Bool(_)) && flag.name.chars().count() == 1;
            out.push_str(if short { "\t" } else { "\n    \t" });
            let _ = writeln!(out, "{}{}", flag.help.replace('\n', "\n    \t"), default(flag));
        }
        out
    }
}

fn head(flag: &Flag) -> String {
    match flag.value.type_word() {
        "" => format!("  -{}", flag.name),
        word => format!("  -{} {word}", flag.name),
    }
}

fn default(flag: &Flag) -> String {
    match &flag.value {
        value if value.is_zero() => String::new(),
        Value::Str(text) => format!(" (default {text:?})"),
        value => format!(" (default {})", value.print()),
    }
}
