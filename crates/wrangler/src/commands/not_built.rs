//! Commands that are known by name and wait for their part of the work.

use servenv::flags::Parsed;

use crate::Wrangler;
use crate::command::{Command, command};
use crate::error::{Result, bail};

/// The answer of a command after its arguments have been found right.
pub(super) fn not_built(command: &str) -> Result {
    bail!("{command} is not built yet")
}

macro_rules! throttler_command {
    ($name:literal, $params:literal, $help:literal, $least:literal, $most:literal) => {
        command!(
            $name,
            $params,
            $help,
            |f| {
                f.string("server", "", "vtworker or vttablet to connect to (host:grpcport)").bool(
                    "copy_zero_values",
                    false,
                    "take over zero values of the configuration too",
                );
            },
            async |_wr: Wrangler, args: Parsed| throttler($name, $least, $most, &args)
        )
    };
}

pub(super) const THROTTLER: &[Command] = &[
    throttler_command!(
        "ThrottlerMaxRates",
        "-server <vtworker or vttablet>",
        "Lists the maximum rates of all throttlers.",
        0,
        0
    ),
    throttler_command!(
        "ThrottlerSetMaxRate",
        "-server <vtworker or vttablet> <rate>",
        "Sets the maximum rate of all throttlers: a number, or unlimited.",
        1,
        1
    ),
    throttler_command!(
        "GetThrottlerConfiguration",
        "-server <vtworker or vttablet> [<throttler name>]",
        "Shows the configuration of one throttler or of all.",
        0,
        1
    ),
    throttler_command!(
        "UpdateThrottlerConfiguration",
        "-server <vtworker or vttablet> [-copy_zero_values] \"<configuration protobuf text>\" [<throttler name>]",
        "Changes the configuration of one throttler or of all.",
        1,
        2
    ),
    throttler_command!(
        "ResetThrottlerConfiguration",
        "-server <vtworker or vttablet> [<throttler name>]",
        "Resets the configuration of one throttler or of all.",
        0,
        1
    ),
];

fn throttler(name: &str, least: usize, most: usize, args: &Parsed) -> Result {
    let given = args.args().len();
    if given < least || given > most {
        bail!("the {name} command got {given} arguments, see Help {name}");
    }
    if args.str("server").is_empty() {
        bail!("the {name} command requires the -server flag: a vtworker or vttablet as host:grpcport");
    }
    let _ = args.bool("copy_zero_values");
    not_built(name)
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
