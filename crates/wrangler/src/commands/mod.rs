//! One module per family of commands, and their order in Help.

mod cells;
mod generic;
mod keyspaces;
mod not_built;
mod queries;
mod resharding;
mod schema;
mod serving;
mod shards;
mod tablets;
mod throttler;
mod topo_files;
mod version;
mod vschema;

use crate::command::Group;

/// All commands.
pub(crate) const GROUPS: &[Group] = &[
    Group { name: "Tablets", families: &[tablets::COMMANDS] },
    Group { name: "Shards", families: &[shards::COMMANDS] },
    Group { name: "Keyspaces", families: &[keyspaces::COMMANDS, resharding::COMMANDS] },
    Group { name: "Generic", families: &[generic::COMMANDS] },
    Group { name: "Schema, Version, Permissions", families: &[schema::COMMANDS, version::COMMANDS, vschema::COMMANDS] },
    Group { name: "Serving Graph", families: &[serving::SERVING_GRAPH] },
    Group { name: "Replication Graph", families: &[serving::REPLICATION_GRAPH] },
    Group { name: "Cells", families: &[cells::CELLS] },
    Group { name: "CellsAliases", families: &[cells::ALIASES] },
    Group { name: "Queries", families: &[queries::COMMANDS] },
    Group { name: "Resharding Throttler", families: &[throttler::COMMANDS] },
    Group { name: "Topo", families: &[topo_files::COMMANDS] },
    Group { name: "Workflows", families: &[not_built::WORKFLOWS] },
];
