//! Commands that compare versions and permissions of tablets.

use servenv::flags::Parsed;
use vtproto::tabletmanagerdata as tmd;

use crate::args::{self, only};
use crate::command::{Command, command};
use crate::error::Result;
use crate::wrangler::within;
use crate::{Wrangler, schema, version};

pub(super) const COMMANDS: &[Command] = &[
    command!(
        "ValidateVersionShard",
        "<keyspace/shard>",
        "Checks that all tablets of a shard run the master's version.",
        validate_version_shard
    ),
    command!(
        "ValidateVersionKeyspace",
        "<keyspace name>",
        "Checks that all tablets of a keyspace run the version of the first shard's master.",
        validate_version_keyspace
    ),
    command!("GetPermissions", "<tablet alias>", "Prints the users and grants of a tablet's mysqld.", get_permissions),
    command!(
        "ValidatePermissionsShard",
        "<keyspace/shard>",
        "Checks that all tablets of a shard have the master's users and grants.",
        validate_permissions_shard
    ),
    command!(
        "ValidatePermissionsKeyspace",
        "<keyspace name>",
        "Checks that all tablets of a keyspace have the users and grants of the first shard's master.",
        validate_permissions_keyspace
    ),
];

async fn validate_version_shard(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "ValidateVersionShard")?)?;
    version::validate(&wr, &keyspace, &[shard]).await
}

async fn validate_version_keyspace(wr: Wrangler, args: Parsed) -> Result {
    let keyspace = only(&args, "keyspace name", "ValidateVersionKeyspace")?;
    let shards = wr.topo().get_shard_names(keyspace).await?;
    version::validate(&wr, keyspace, &shards).await
}

async fn get_permissions(wr: Wrangler, args: Parsed) -> Result {
    let alias = args::tablet_alias(only(&args, "tablet alias", "GetPermissions")?)?;
    let tablet = wr.topo().get_tablet(&alias).await?.record;
    let call = wr.tmc().get_permissions(&tablet, tmd::GetPermissionsRequest {});
    let permissions = within(wr.config().remote_operation_timeout, call).await?.permissions.unwrap_or_default();
    wr.logger().println(vtjson::pb_json(&permissions)).await;
    Ok(())
}

async fn validate_permissions_shard(wr: Wrangler, args: Parsed) -> Result {
    let (keyspace, shard) = args::keyspace_shard(only(&args, "keyspace/shard", "ValidatePermissionsShard")?)?;
    schema::validate_permissions(&wr, &keyspace, &[shard]).await
}

async fn validate_permissions_keyspace(wr: Wrangler, args: Parsed) -> Result {
    let keyspace = only(&args, "keyspace name", "ValidatePermissionsKeyspace")?;
    let shards = wr.topo().get_shard_names(keyspace).await?;
    schema::validate_permissions(&wr, keyspace, &shards).await
}
