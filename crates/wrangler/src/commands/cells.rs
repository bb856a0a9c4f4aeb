//! Cells and aliases of cells.

use servenv::flags::Parsed;
use topo::Update;
use vtproto::topodata::{CellInfo, CellsAlias};

use crate::Wrangler;
use crate::args::only;
use crate::command::{Command, command};
use crate::error::{Result, bail, err};
use crate::logger::info;

pub(super) const CELLS: &[Command] = &[
    command!(
        "AddCellInfo",
        "[-server_address <addr>] [-root <root>] <cell>",
        "Registers a cell: the address of its topology server and the root of its records there.",
        |f| {
            f.string("server_address", "", "the address of the cell's topology server").string(
                "root",
                "",
                "the root path of the cell in that server",
            );
        },
        add_cell_info
    ),
    command!(
        "UpdateCellInfo",
        "[-server_address <addr>] [-root <root>] <cell>",
        "Changes what is given of a cell; a cell that does not exist is created.",
        |f| {
            f.string("server_address", "", "the address of the cell's topology server").string(
                "root",
                "",
                "the root path of the cell in that server",
            );
        },
        update_cell_info
    ),
    command!("DeleteCellInfo", "<cell>", "Deletes a cell that serves no keyspace.", delete_cell_info),
    command!("GetCellInfoNames", "", "Lists the names of all cells.", get_cell_info_names),
    command!("GetCellInfo", "<cell>", "Prints a cell as JSON.", get_cell_info),
];

pub(super) const ALIASES: &[Command] = &[
    command!(
        "AddCellsAlias",
        "[-cells <cell,cell2...>] <alias>",
        "Defines a group of cells between which traffic of replicas may go.",
        |f| {
            f.string("cells", "", "the cells of the group");
        },
        add_cells_alias
    ),
    command!(
        "UpdateCellsAlias",
        "[-cells <cell,cell2,...>] <alias>",
        "Changes the cells of a group; a group that does not exist is created.",
        |f| {
            f.string("cells", "", "the cells of the group");
        },
        update_cells_alias
    ),
    command!("DeleteCellsAlias", "<alias>", "Deletes a group of cells.", delete_cells_alias),
    command!("GetCellsAliases", "", "Prints all groups of cells as JSON.", get_cells_aliases),
];

async fn add_cell_info(wr: Wrangler, args: Parsed) -> Result {
    let cell = only(&args, "cell", "AddCellInfo")?;
    let info = CellInfo { server_address: args.str("server_address").into(), root: args.str("root").into() };
    Ok(wr.topo().create_cell_info(cell, &info).await?)
}

async fn update_cell_info(wr: Wrangler, args: Parsed) -> Result {
    let cell = only(&args, "cell", "UpdateCellInfo")?;
    let (address, root) = (args.str("server_address"), args.str("root"));
    wr.topo()
        .update_cell_info_fields(cell, |info| {
            let before = info.clone();
            if !address.is_empty() {
                info.server_address = address.to_owned();
            }
            if !root.is_empty() {
                info.root = root.to_owned();
            }
            Ok(if *info == before { Update::NoUpdateNeeded } else { Update::Write })
        })
        .await?;
    Ok(())
}

async fn delete_cell_info(wr: Wrangler, args: Parsed) -> Result {
    let cell = only(&args, "cell", "DeleteCellInfo")?;
    // A cell whose server is gone can still be deleted: only a list that was read can forbid it.
    match wr.topo().get_srv_keyspace_names(cell).await {
        Ok(keyspaces) => {
            for keyspace in keyspaces {
                if wr.topo().get_srv_keyspace(cell, &keyspace).await.is_ok() {
                    bail!(
                        "cell {cell} has serving keyspaces. Before deleting, delete keyspace {keyspace} with: DeleteKeyspace or RemoveKeyspaceCell"
                    );
                }
            }
        }
        Err(error) => info!(wr, "cannot list the serving keyspaces of {cell}: {error}"),
    }
    Ok(wr.topo().delete_cell_info(cell).await?)
}

async fn get_cell_info_names(wr: Wrangler, args: Parsed) -> Result {
    if !args.args().is_empty() {
        bail!("GetCellInfoNames command takes no parameter");
    }
    let names = wr.topo().get_cell_info_names().await?;
    wr.logger().println(names.join("\n")).await;
    Ok(())
}

async fn get_cell_info(wr: Wrangler, args: Parsed) -> Result {
    let cell = only(&args, "cell", "GetCellInfo")?;
    let info = wr.topo().get_cell_info(cell).await?;
    wr.logger().println(vtjson::pb_json(&info)).await;
    Ok(())
}

/// The cells of `-cells`, which have to exist.
async fn known_cells(wr: &Wrangler, args: &Parsed) -> Result<Vec<String>> {
    let cells: Vec<String> = args.list("cells").into_iter().map(|cell| cell.trim().to_owned()).collect();
    for cell in &cells {
        wr.topo().get_cell_info(cell).await.map_err(|error| err!("unable to read cell {cell}: {error}"))?;
    }
    Ok(cells)
}

async fn add_cells_alias(wr: Wrangler, args: Parsed) -> Result {
    let alias = only(&args, "alias", "AddCellsAlias")?;
    let cells = known_cells(&wr, &args).await?;
    Ok(wr.topo().create_cells_alias(alias, &CellsAlias { cells }).await?)
}

async fn update_cells_alias(wr: Wrangler, args: Parsed) -> Result {
    let alias = only(&args, "alias", "UpdateCellsAlias")?;
    let cells = known_cells(&wr, &args).await?;
    wr.topo()
        .update_cells_alias(alias, |record| {
            record.cells.clone_from(&cells);
            Ok(Update::Write)
        })
        .await?;
    Ok(())
}

async fn delete_cells_alias(wr: Wrangler, args: Parsed) -> Result {
    let alias = only(&args, "alias", "DeleteCellsAlias")?;
    Ok(wr.topo().delete_cells_alias(alias).await?)
}

async fn get_cells_aliases(wr: Wrangler, args: Parsed) -> Result {
    if !args.args().is_empty() {
        bail!("GetCellsAliases command takes no parameter");
    }
    let aliases = wr.topo().get_cells_aliases().await?;
    // A Go map without entries was never made, and prints as null.
    let json = if aliases.is_empty() {
        serde_json::Value::Null
    } else {
        serde_json::Value::Object(aliases.into_iter().map(|(name, alias)| (name, vtjson::go_json(&alias))).collect())
    };
    wr.logger().println(vtjson::go_indent(&json)).await;
    Ok(())
}
