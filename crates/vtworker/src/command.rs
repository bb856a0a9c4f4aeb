//! The table of commands: found whatever their case, parsed before anything starts.

use futures::future::BoxFuture;
use servenv::flags::{FlagError, FlagSet, Parsed};
use vterrors::{Code, VtError};
use wrangler::Logger;

use crate::instance::JobContext;
use crate::{clone, debug, diff};

/// What a command does once it may start.
pub type Work = Box<dyn FnOnce(JobContext) -> BoxFuture<'static, Result<(), VtError>> + Send>;

/// One command: its help, its flags, its work.
pub struct Command {
    pub name: &'static str,
    /// What follows the name.
    pub params: &'static str,
    pub help: &'static str,
    pub(crate) flags: fn(&mut FlagSet),
    /// Checks the arguments.
    pub(crate) prepare: fn(Parsed) -> Result<Work, VtError>,
}

impl Command {
    fn flag_set(&self) -> FlagSet {
        let mut set = FlagSet::new(self.name);
        (self.flags)(&mut set);
        set
    }

    fn usage(&self) -> String {
        format!("Usage: {} {}\n\n{}\n\n{}", self.name, self.params, self.help, self.flag_set().go_defaults())
    }
}

/// Commands that are listed together.
pub struct Group {
    pub name: &'static str,
    pub commands: &'static [Command],
}

/// All commands, in the order of Help.
pub const GROUPS: &[Group] = &[
    Group { name: "Diffs", commands: diff::COMMANDS },
    Group { name: "Clones", commands: clone::COMMANDS },
    Group { name: "Debugging", commands: debug::COMMANDS },
];

fn find(name: &str) -> Option<&'static Command> {
    GROUPS.iter().flat_map(|group| group.commands).find(|command| command.name.eq_ignore_ascii_case(name))
}

fn fault(text: impl Into<String>) -> VtError {
    VtError::new(Code::Unknown, text)
}

/// Prints the list of commands.
pub async fn print_all(logger: &Logger) {
    let mut text = String::new();
    for group in GROUPS {
        text.push_str(&format!("{}:\n", group.name));
        for command in group.commands {
            text.push_str(&format!("  {} {}\n", command.name, command.params));
        }
        text.push('\n');
    }
    text.push_str("Jobs:\n  Reset \n  Cancel \n\n");
    logger.print(text).await;
}

/// Finds a command and checks its flags and arguments; a mistake is explained on the console.
pub async fn prepare(args: &[String], logger: &Logger) -> Result<(&'static str, Work), VtError> {
    let Some((name, rest)) = args.split_first() else {
        logger.print("No command specified. Please see the list below:\n\n").await;
        print_all(logger).await;
        return Err(fault("no command was specified"));
    };
    let Some(command) = find(name) else {
        logger.print(format!("Unknown command: {name}\n")).await;
        return Err(fault("unknown command"));
    };
    let parsed = match command.flag_set().parse(rest) {
        Ok(parsed) => parsed,
        Err(error) => {
            if let FlagError::Invalid { message, .. } = &error {
                logger.print(format!("{message}\n")).await;
            }
            logger.print(command.usage()).await;
            return Err(fault(error.to_string()));
        }
    };
    Ok((command.name, (command.prepare)(parsed)?))
}

/// The words after the flags, if there are as many as wanted.
pub(crate) fn exactly<const N: usize>(args: &Parsed, message: &str) -> Result<[String; N], VtError> {
    <[String; N]>::try_from(args.args().to_vec()).map_err(|_| fault(message))
}
