//! The table of commands and how one is found, parsed and run.
//!
//! Invariants: names match whatever their case; a command sees its arguments only if its flags parse;
//! a command that panics is an error of that command and of nothing else.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use futures::future::BoxFuture;
use servenv::flags::{FlagError, FlagSet, Parsed};

use crate::error::{Error, Result, bail};
use crate::{Logger, Wrangler, commands};

/// One command: what Help says about it, its flags, what it does.
pub struct Command {
    pub name: &'static str,
    /// What follows the name: `[-force] <keyspace/shard>`.
    pub params: &'static str,
    pub help: &'static str,
    /// Not listed by Help.
    pub hidden: bool,
    pub(crate) flags: fn(&mut FlagSet),
    pub(crate) run: fn(Wrangler, Parsed) -> BoxFuture<'static, Result>,
}

impl Command {
    pub(crate) const fn hide(mut self) -> Self {
        self.hidden = true;
        self
    }

    fn flag_set(&self) -> FlagSet {
        let mut set = FlagSet::new(self.name);
        (self.flags)(&mut set);
        set
    }

    /// What `-h` prints, and what a mistaken flag prints.
    pub fn usage(&self) -> String {
        format!("Usage: {} {}\n\n{}\n\n{}", self.name, self.params, self.help, self.flag_set().go_defaults())
    }
}

/// Commands that Help lists together.
pub struct Group {
    pub name: &'static str,
    /// In pieces, one per module.
    pub(crate) families: &'static [&'static [Command]],
}

impl Group {
    /// The commands, in the order of Help.
    pub fn commands(&self) -> impl Iterator<Item = &'static Command> {
        self.families.iter().copied().flatten()
    }
}

/// Makes a [`Command`] of a name, its parameters, a help text, its flags and an async function.
macro_rules! command {
    ($name:literal, $params:literal, $help:literal, $run:expr) => {
        $crate::command::command!($name, $params, $help, |_| {}, $run)
    };
    ($name:literal, $params:literal, $help:literal, $flags:expr, $run:expr) => {
        $crate::command::Command {
            name: $name,
            params: $params,
            help: $help,
            hidden: false,
            flags: $flags,
            run: |wr, args| Box::pin($run(wr, args)),
        }
    };
}
pub(crate) use command;

/// All commands, in the order of Help.
pub fn groups() -> &'static [Group] {
    commands::GROUPS
}

fn find(name: &str) -> Option<&'static Command> {
    groups().iter().flat_map(Group::commands).find(|command| command.name.eq_ignore_ascii_case(name))
}

/// The list that Help prints.
pub(crate) async fn print_all(logger: &Logger) {
    let mut text = String::new();
    for group in groups() {
        text.push_str(&format!("{}:\n", group.name));
        for command in group.commands().filter(|command| !command.hidden) {
            text.push_str(&format!("  {} {}\n", command.name, command.params));
        }
        text.push('\n');
    }
    logger.print(text).await;
}

/// Prints a command's usage; `None` if there is no such command.
pub(crate) async fn print_usage(logger: &Logger, name: &str) -> Option<()> {
    logger.print(find(name)?.usage()).await;
    Some(())
}

/// Runs `args` (a command name, its flags, its arguments). Output and progress go to the wrangler's
/// logger. Dropping the future cancels the command, except for what has to reach its end.
pub async fn run_command(wr: &Wrangler, args: &[String]) -> Result {
    let logger = wr.logger();
    let Some((name, rest)) = args.split_first() else {
        logger.print("No command specified. Please see the list below:\n\n").await;
        print_all(logger).await;
        bail!("no command was specified");
    };
    let Some(command) = find(name) else {
        logger.print(format!("Unknown command: {name}\n")).await;
        bail!("unknown command");
    };
    let parsed = match command.flag_set().parse(rest) {
        Ok(parsed) => parsed,
        Err(error) => {
            if let FlagError::Invalid { message, .. } = &error {
                logger.print(format!("{message}\n")).await;
            }
            logger.print(command.usage()).await;
            return Err(Error::rule(error.to_string()));
        }
    };
    match AssertUnwindSafe((command.run)(wr.clone(), parsed)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "unknown cause".to_owned());
            bail!("uncaught vtctl panic: {text}")
        }
    }
}
