//! Commands on vschemas and routing rules.

use servenv::flags::Parsed;
use vtproto::vschema::{Keyspace, RoutingRules};

use super::schema::text_or_file;
use crate::Wrangler;
use crate::args::{self, only};
use crate::command::{Command, command};
use crate::error::{Result, bail, err};
use crate::logger::warning;

pub(super) const COMMANDS: &[Command] = &[
    command!("GetVSchema", "<keyspace>", "Prints the vschema of a keyspace as JSON.", get_vschema),
    command!(
        "ApplyVSchema",
        "{-vschema=<vschema> || -vschema_file=<vschema file> || -sql=<sql> || -sql_file=<sql file>} [-cells=c1,c2,...] [-skip_rebuild] [-dry-run] <keyspace>",
        "Gives a keyspace a new vschema, or changes it by an ALTER VSCHEMA statement. Prints the result.",
        |f| {
            f.string("vschema", "", "the vschema as JSON")
                .string("vschema_file", "", "a file with the vschema, read by the server")
                .string("sql", "", "an ALTER VSCHEMA statement")
                .string("sql_file", "", "a file with an ALTER VSCHEMA statement, read by the server")
                .bool("dry-run", false, "only print the result")
                .bool("skip_rebuild", false, "do not rebuild the SrvVSchema of cells")
                .string("cells", "", "the cells to rebuild; empty means all");
        },
        apply_vschema
    ),
    command!("GetRoutingRules", "", "Prints the routing rules as JSON.", get_routing_rules),
    command!(
        "ApplyRoutingRules",
        "{-rules=<rules> || -rules_file=<rules_file>} [-cells=c1,c2,...] [-skip_rebuild] [-dry-run]",
        "Replaces the routing rules. Prints the result.",
        |f| {
            f.string("rules", "", "the rules as JSON")
                .string("rules_file", "", "a file with the rules, read by the server")
                .bool("dry-run", false, "only print the result")
                .bool("skip_rebuild", false, "do not rebuild the SrvVSchema of cells")
                .string("cells", "", "the cells to rebuild; empty means all");
        },
        apply_routing_rules
    ),
    command!(
        "RebuildVSchemaGraph",
        "[-cells=c1,c2,...]",
        "Rebuilds the SrvVSchema of cells from the vschemas of all keyspaces.",
        |f| {
            f.string("cells", "", "the cells to rebuild; empty means all");
        },
        rebuild_vschema_graph
    ),
];

/// What follows a printed object.
const CHECK_INPUT: &str =
    "If this is not what you expected, check the input data (as JSON parsing will skip unexpected fields).";

async fn get_vschema(wr: Wrangler, args: Parsed) -> Result {
    let keyspace = only(&args, "keyspace", "GetVSchema")?;
    let vschema = wr.topo().get_vschema(keyspace).await?;
    wr.logger().println(vtjson::vschema_json(&vschema)).await;
    Ok(())
}

async fn apply_vschema(wr: Wrangler, args: Parsed) -> Result {
    let keyspace = only(&args, "keyspace", "ApplyVSchema")?;
    let given = ["sql", "sql_file", "vschema", "vschema_file"].map(|flag| !args.str(flag).is_empty());
    match given.iter().filter(|given| **given).count() {
        0 => bail!(
            "one of the sql, sql_file, vschema, or vschema_file flags must be specified when calling the ApplyVSchema command"
        ),
        1 => {}
        _ => bail!(
            "only one of the sql, sql_file, vschema, or vschema_file flags may be specified when calling the ApplyVSchema command"
        ),
    }
    let cells = args::cells(&wr, &args).await?;
    let (vschema, checked) = if given[0] || given[1] {
        let sql = text_or_file(&args, "sql", "sql_file").await?;
        (altered(&wr, keyspace, sql.trim()).await?, Ok(()))
    } else {
        let json = text_or_file(&args, "vschema", "vschema_file").await?;
        let vschema = vschema::parse_keyspace(&json)?;
        let checked = vschema::validate_json(&vschema, &json);
        (vschema, checked)
    };
    wr.logger().print(format!("New VSchema object:\n{}\n{CHECK_INPUT}\n", vtjson::vschema_json(&vschema))).await;
    // Nothing that could not be used is kept, a dry run says so too.
    checked?;
    if args.bool("dry-run") {
        wr.logger().print("Dry run: Skipping update of VSchema\n").await;
        return Ok(());
    }
    wr.topo().save_vschema(keyspace, &vschema).await?;
    rebuild(&wr, &args, &cells).await
}

/// The vschema of a keyspace after an ALTER VSCHEMA statement, checked.
async fn altered(wr: &Wrangler, keyspace: &str, sql: &str) -> Result<Keyspace> {
    let (_, change) =
        planner::parse_vschema_ddl(sql).map_err(|error| err!("error parsing vschema statement `{sql}`: {error}"))?;
    let mut vschema = match wr.topo().get_vschema(keyspace).await {
        Ok(vschema) => vschema,
        Err(error) if error.is_no_node() => Keyspace::default(),
        Err(error) => return Err(error.into()),
    };
    vschema::apply(&mut vschema, keyspace, &change)?;
    Ok(vschema)
}

async fn rebuild(wr: &Wrangler, args: &Parsed, cells: &[String]) -> Result {
    if args.bool("skip_rebuild") {
        warning!(wr, "Skipping rebuild of SrvVSchema, will need to run RebuildVSchemaGraph for changes to take effect");
        return Ok(());
    }
    Ok(wr.topo().rebuild_srv_vschema(cells).await?)
}

async fn get_routing_rules(wr: Wrangler, args: Parsed) -> Result {
    if !args.args().is_empty() {
        bail!("GetRoutingRules doesn't take any arguments");
    }
    let rules = wr.topo().get_routing_rules().await?;
    wr.logger().println(vtjson::vschema_json(&rules)).await;
    Ok(())
}

async fn apply_routing_rules(wr: Wrangler, args: Parsed) -> Result {
    if !args.args().is_empty() {
        bail!("ApplyRoutingRules doesn't take any arguments");
    }
    if args.str("rules").is_empty() == args.str("rules_file").is_empty() {
        bail!("Exactly one of -rules or -rules_file must be specified");
    }
    let cells = args::cells(&wr, &args).await?;
    let rules: RoutingRules = vschema::parse_routing_rules(&text_or_file(&args, "rules", "rules_file").await?)?;
    wr.logger().print(format!("New RoutingRules object:\n{}\n{CHECK_INPUT}\n", vtjson::vschema_json(&rules))).await;
    if args.bool("dry-run") {
        wr.logger().print("Dry run: Skipping update of RoutingRules\n").await;
        return Ok(());
    }
    wr.topo().save_routing_rules(&rules).await?;
    rebuild(&wr, &args, &cells).await
}

async fn rebuild_vschema_graph(wr: Wrangler, args: Parsed) -> Result {
    if !args.args().is_empty() {
        bail!("RebuildVSchemaGraph doesn't take any arguments");
    }
    Ok(wr.topo().rebuild_srv_vschema(&args::cells(&wr, &args).await?).await?)
}
