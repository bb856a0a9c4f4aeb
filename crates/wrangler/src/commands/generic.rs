//! Commands about everything at once.

use servenv::flags::Parsed;
use topo::topoproto;
use vtproto::topodata::TabletAlias;

use crate::args::{self, at_least};
use crate::command::{self, Command, command};
use crate::error::{Result, bail, join_errors};
use crate::logger::warning;
use crate::{Wrangler, validator};

pub(super) const COMMANDS: &[Command] = &[
    command!(
        "Validate",
        "[-ping-tablets]",
        "Checks that all the records of the topology agree, and that tablets answer if asked to ping them.",
        |f| {
            f.bool("ping-tablets", false, "ping every tablet");
        },
        validate
    ),
    command!(
        "ListAllTablets",
        "[<cell name1>, <cell name2>, ...]",
        "Lists all tablets of the given cells, or of all cells, in a form fit for awk.",
        list_all_tablets
    ),
    command!("ListTablets", "<tablet alias> ...", "Lists the given tablets in a form fit for awk.", list_tablets),
    command!("Panic", "", "HIDDEN Panics, to test that the server survives it.", panic).hide(),
    command!("Help", "[command name]", "Prints the list of commands, or how to use one of them.", help),
];

async fn validate(wr: Wrangler, args: Parsed) -> Result {
    if !args.args().is_empty() {
        warning!(wr, "action Validate doesn't take any parameter any more");
    }
    validator::validate(&wr, args.bool("ping-tablets")).await
}

async fn list_all_tablets(wr: Wrangler, args: Parsed) -> Result {
    let cells: Vec<String> = match args.args() {
        [one] => {
            let cells: Vec<_> =
                one.split(',').map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
            // One that does not exist has no tablets either, but whoever names it means another one.
            for cell in &cells {
                wr.topo().get_cell_info(cell).await?;
            }
            cells
        }
        _ => wr.topo().get_known_cells().await?,
    };
    let mut failures = Vec::new();
    for cell in cells {
        match wr.topo().get_tablets_by_cell(&cell).await {
            Ok(aliases) => print_tablets(&wr, &aliases, &mut failures).await,
            // A cell without tablets is no error.
            Err(error) if error.is_no_node() => {}
            Err(error) => failures.push(error.to_string()),
        }
    }
    join_errors(&failures)
}

async fn list_tablets(wr: Wrangler, args: Parsed) -> Result {
    let words = at_least(&args, 1, "the <tablet alias> argument is required for the ListTablets command")?;
    let aliases: Vec<TabletAlias> = words.iter().map(|word| args::tablet_alias(word)).collect::<Result<_>>()?;
    let mut failures = Vec::new();
    print_tablets(&wr, &aliases, &mut failures).await;
    join_errors(&failures)
}

/// One line for each tablet, in the order of `aliases`. Records that are gone are left out with a
/// warning; what could not be read is collected.
pub(super) async fn print_tablets(wr: &Wrangler, aliases: &[TabletAlias], failures: &mut Vec<String>) {
    let tablets = wr.topo().get_tablet_map(aliases).await;
    failures.extend(tablets.error.map(|error| error.to_string()));
    for alias in aliases {
        let text = topoproto::tablet_alias_string(Some(alias));
        match tablets.value.get(&text) {
            Some(tablet) => wr.logger().println(topoproto::tablet_awkable(&tablet.record)).await,
            None => warning!(wr, "failed to load tablet {text}"),
        }
    }
}

async fn panic(_wr: Wrangler, _args: Parsed) -> Result {
    std::panic::panic_any("this command panics on purpose")
}

async fn help(wr: Wrangler, args: Parsed) -> Result {
    match args.args() {
        [] => {
            wr.logger().print("Available commands:\n\n").await;
            command::print_all(wr.logger()).await;
            Ok(())
        }
        [name] => match command::print_usage(wr.logger(), name).await {
            Some(()) => Ok(()),
            None => {
                wr.logger().print(format!("Unknown command: {name}\n")).await;
                bail!("unknown command")
            }
        },
        _ => bail!(
            "When calling the Help command, either specify a single argument that identifies the name of the command to get help with or specify no additional arguments."
        ),
    }
}
