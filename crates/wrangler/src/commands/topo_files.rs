//! The topology as files: reading records and copying them from and to this host.

use std::sync::Arc;

use serde_json::Value;
use servenv::flags::Parsed;
use topo::{Conn, GLOBAL_CELL};

use crate::Wrangler;
use crate::args::exactly;
use crate::command::{Command, command};
use crate::error::{Result, bail, err};
use crate::records;
use crate::shards::{has_wildcard, wildcard};

pub(super) const COMMANDS: &[Command] = &[
    command!(
        "TopoCat",
        "[-cell <cell>] [-decode_proto] [-decode_proto_json] [-long] <path> [<path>...]",
        "Prints records of the topology. Elements of a path may hold wildcards.",
        |f| {
            f.string("cell", GLOBAL_CELL, "the cell to read from")
                .bool("long", false, "print paths and versions too")
                .bool("decode_proto", false, "print records as protobuf text")
                .bool("decode_proto_json", false, "print records as a JSON array");
        },
        topo_cat
    ),
    command!(
        "TopoCp",
        "[-cell <cell>] [-to_topo] <src> <dst>",
        "Copies a file of this host from or to the topology.",
        |f| {
            f.string("cell", GLOBAL_CELL, "the cell to copy from or to").bool(
                "to_topo",
                false,
                "copy into the topology",
            );
        },
        topo_cp
    ),
];

/// How TopoCat shows a record.
enum Form {
    Bytes,
    Text,
    Json,
}

async fn topo_cat(wr: Wrangler, args: Parsed) -> Result {
    if args.args().is_empty() {
        bail!("TopoCat: no path specified");
    }
    let long = args.bool("long");
    let form = match (args.bool("decode_proto"), args.bool("decode_proto_json")) {
        (_, true) => Form::Json,
        (true, false) => Form::Text,
        (false, false) => Form::Bytes,
    };
    let conn = wr.topo().conn_for_cell(args.str("cell")).await?;
    let mut paths = Vec::new();
    for path in args.args() {
        paths.extend(expand(&conn, path).await.map_err(|error| err!("TopoCat: invalid wildcards: {error}"))?);
    }
    if paths.is_empty() {
        // Only patterns that match nothing: nothing to show, and no error.
        return Ok(());
    }
    let mut failed = false;
    let mut documents = Vec::new();
    for path in &paths {
        let (contents, version) = match conn.get(path).await {
            Ok(found) => found,
            Err(error) => {
                failed = true;
                wr.logger().print(format!("TopoCat: Get({path}) failed: {error}\n")).await;
                continue;
            }
        };
        let decoded = match form {
            Form::Bytes => Ok(String::from_utf8_lossy(&contents).into_owned()),
            Form::Text => records::text(path, &contents),
            Form::Json => records::json(path, &contents).map(|mut value| {
                if let (Value::Object(fields), true) = (&mut value, long) {
                    fields.insert("__path".to_owned(), path.as_str().into());
                    fields.insert("__version".to_owned(), version.to_string().into());
                }
                documents.push(value);
                String::new()
            }),
        };
        match decoded {
            Ok(text) => {
                if long && !matches!(form, Form::Json) {
                    wr.logger().print(format!("path={path} version={version}\n")).await;
                }
                let newline = if long && !text.is_empty() && !text.ends_with('\n') { "\n" } else { "" };
                if !text.is_empty() {
                    wr.logger().print(format!("{text}{newline}")).await;
                }
            }
            Err(error) => {
                failed = true;
                wr.logger().print(format!("TopoCat: cannot proto decode {path}: {error}\n")).await;
            }
        }
    }
    if matches!(form, Form::Json) {
        wr.logger().println(vtjson::go_indent(&Value::Array(documents))).await;
    }
    if failed {
        bail!("TopoCat: some paths had errors");
    }
    Ok(())
}

/// The keys that a path names; elements with wildcards are matched against what is there.
async fn expand(conn: &Arc<dyn Conn>, path: &str) -> Result<Vec<String>> {
    if !has_wildcard(path) {
        return Ok(vec![path.to_owned()]);
    }
    let elements: Vec<&str> = path.split('/').filter(|element| !element.is_empty()).collect();
    let mut found = vec![String::new()];
    for (i, element) in elements.iter().enumerate() {
        let last = i + 1 == elements.len();
        let join = |dir: &str, name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
        let mut next = Vec::new();
        for dir in &found {
            if !has_wildcard(element) {
                next.push(join(dir, element));
                continue;
            }
            let pattern = wildcard(element)?;
            match conn.list_dir(dir, true).await {
                Ok(entries) => next.extend(
                    entries
                        .into_iter()
                        .filter(|entry| entry.is_directory != last && pattern.is_match(&entry.name))
                        .map(|entry| join(dir, &entry.name)),
                ),
                Err(error) if error.is_no_node() => {}
                Err(error) => return Err(error.into()),
            }
        }
        found = next;
    }
    // An element without a wildcard after one with may not exist everywhere: that is not asked for.
    let mut there = Vec::new();
    for path in found {
        match conn.get(&path).await {
            Err(error) if error.is_no_node() => {}
            _ => there.push(path),
        }
    }
    Ok(there)
}

async fn topo_cp(wr: Wrangler, args: Parsed) -> Result {
    let [from, to] = exactly(&args, "TopoCp: need source and destination")?;
    let conn = wr.topo().conn_for_cell(args.str("cell")).await?;
    if args.bool("to_topo") {
        let contents = tokio::fs::read(from).await.map_err(|error| err!("cannot read file {from}: {error}"))?;
        conn.update(to, contents.into(), None).await?;
    } else {
        let (contents, _) = conn.get(from).await?;
        tokio::fs::write(to, contents).await.map_err(|error| err!("cannot write file {to}: {error}"))?;
    }
    Ok(())
}
