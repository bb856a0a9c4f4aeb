//! Commands that are known by name and wait for their part of the work.

use servenv::flags::Parsed;

use crate::Wrangler;
use crate::command::{Command, command};
use crate::error::{Result, bail};

/// The answer of a command after its arguments have been found right.
pub(super) fn not_built(command: &str) -> Result {
    bail!("{command} is not built yet")
}

macro_rules! workflow_command {
    ($name:literal, $params:literal, $help:literal, $least:literal) => {
        command!(
            $name,
            $params,
            $help,
            |f| {
                f.bool("skip_start", false, "create the workflow without starting it");
            },
            async |wr: Wrangler, args: Parsed| workflow(&wr, $name, $params, $least, &args)
        )
    };
}

pub(super) const WORKFLOWS: &[Command] = &[
    workflow_command!("WorkflowCreate", "[-skip_start] <factory name> [parameters...]", "Creates a workflow.", 1),
    workflow_command!("WorkflowStart", "<uuid>", "Starts a workflow.", 1),
    workflow_command!("WorkflowStop", "<uuid>", "Stops a workflow.", 1),
    workflow_command!("WorkflowDelete", "<uuid>", "Deletes a workflow that is finished or was not started.", 1),
    workflow_command!("WorkflowWait", "<uuid>", "Waits for a workflow to finish.", 1),
    workflow_command!("WorkflowTree", "", "Prints the workflows as a JSON tree.", 0),
    workflow_command!("WorkflowAction", "<path> <name>", "Sends an action to a node of a workflow.", 2),
];

fn workflow(wr: &Wrangler, name: &str, params: &str, least: usize, args: &Parsed) -> Result {
    if !wr.config().workflow_manager {
        bail!("no workflow.Manager registered");
    }
    if args.args().len() < least {
        bail!("the {name} command requires {params}");
    }
    let _ = args.bool("skip_start");
    not_built(name)
}
