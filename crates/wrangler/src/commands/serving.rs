//! The serving graph and the replication graph of cells.

use servenv::flags::Parsed;

use crate::Wrangler;
use crate::args::{self, exactly, only};
use crate::command::{Command, command};
use crate::error::Result;

pub(super) const SERVING_GRAPH: &[Command] = &[
    command!("GetSrvKeyspaceNames", "<cell>", "Lists the keyspaces a cell knows.", get_srv_keyspace_names),
    command!("GetSrvKeyspace", "<cell> <keyspace>", "Prints the SrvKeyspace of a cell as JSON.", get_srv_keyspace),
    command!("GetSrvVSchema", "<cell>", "Prints the SrvVSchema of a cell as JSON.", get_srv_vschema),
    command!("DeleteSrvVSchema", "<cell>", "Deletes the SrvVSchema of a cell.", delete_srv_vschema),
];

pub(super) const REPLICATION_GRAPH: &[Command] = &[command!(
    "GetShardReplication",
    "<cell> <keyspace/shard>",
    "Prints the list of a shard's tablets in a cell as JSON.",
    get_shard_replication
)];

async fn get_srv_keyspace_names(wr: Wrangler, args: Parsed) -> Result {
    let cell = only(&args, "cell", "GetSrvKeyspaceNames")?;
    for name in wr.topo().get_srv_keyspace_names(cell).await? {
        wr.logger().println(name).await;
    }
    Ok(())
}

async fn get_srv_keyspace(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <cell> and <keyspace> arguments are required for the GetSrvKeyspace command";
    let [cell, keyspace] = exactly(&args, message)?;
    let record = wr.topo().get_srv_keyspace(cell, keyspace).await?;
    wr.logger().println(vtjson::pb_json(&record)).await;
    Ok(())
}

async fn get_srv_vschema(wr: Wrangler, args: Parsed) -> Result {
    let cell = only(&args, "cell", "GetSrvVSchema")?;
    let record = wr.topo().get_srv_vschema(cell).await?;
    wr.logger().println(vtjson::pb_json(&record)).await;
    Ok(())
}

async fn delete_srv_vschema(wr: Wrangler, args: Parsed) -> Result {
    let cell = only(&args, "cell", "DeleteSrvVSchema")?;
    Ok(wr.topo().delete_srv_vschema(cell).await?)
}

async fn get_shard_replication(wr: Wrangler, args: Parsed) -> Result {
    let message = "the <cell> and <keyspace/shard> arguments are required for the GetShardReplication command";
    let [cell, shard] = exactly(&args, message)?;
    let (keyspace, shard) = args::keyspace_shard(shard)?;
    let record = wr.topo().get_shard_replication(cell, &keyspace, &shard).await?;
    wr.logger().println(vtjson::pb_json(&record)).await;
    Ok(())
}
