//! Stage 101 as recorded from Vitess v5.0.1, replayed against tablets in memory: the same output, the
//! same errors. What needs a real mysqld is answered by the fake with what a tablet said then.

mod common;

use std::path::Path;

use common::{Cluster, one_and_null};
use serde_json::Value;
use tabletclient::tm::TmError;
use vterrors::Code;
use vtproto::tabletmanagerdata as tmd;

const TRANSCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/cases/transcripts/101.txt");

/// Entries that memory cannot answer, with the reason.
const SKIPPED: &[(&str, &str)] = &[
    ("GetSchema ", "fields of a real mysqld"),
    ("ValidateVersionShard", "reads /debug/vars of tablets"),
    ("ListBackups", "needs a backup storage"),
    ("GetSrvVSchema", "needs the walkthrough's vschema"),
];

struct Entry {
    command: String,
    output: String,
    exit: i32,
}

fn entries(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut current: Option<(String, String)> = None;
    for line in text.lines() {
        if let Some((command, output)) = &mut current {
            if let Some(code) = line.strip_prefix("[exit ").and_then(|rest| rest.strip_suffix(']')) {
                entries.push(Entry {
                    command: command.clone(),
                    output: std::mem::take(output),
                    exit: code.parse().expect("a number"),
                });
                current = None;
            } else {
                output.push_str(line);
                output.push('\n');
            }
        } else if let Some(command) = line.strip_prefix("$ ") {
            current = Some((command.to_owned(), String::new()));
        }
    }
    entries
}

/// The words of a command line with single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("never empty").push(c),
        }
    }
    words
}

/// Without what differs from run to run.
fn strip(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(key, _)| !matches!(key.as_str(), "seconds" | "nanoseconds" | "TotalTimeSpent"))
                .map(|(key, value)| (key, strip(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(strip).collect()),
        other => other,
    }
}

fn json(text: &str) -> Option<Value> {
    let text = text.replace("\"<seconds>\"", "0").replace("<seconds>", "0");
    serde_json::from_str(&text).ok().map(strip)
}

/// Positions and times are not compared.
fn neutral(text: &str) -> String {
    text.trim()
        .replace("MariaDB/0-100-7", "MariaDB/<position>")
        .lines()
        .map(|line| match line.split_once("seconds: ") {
            Some((before, _)) => format!("{before}seconds:"),
            None => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// What the client printed for an error: the command's text after the client's prefix.
fn split_error(output: &str) -> (String, String) {
    let mark = "remote error: rpc error: code = Unknown desc = ";
    let (before, error) = output.split_once(mark).expect("an error line");
    // The log prefix of the client's line.
    let console = before.rsplit_once('\n').map_or("", |(console, _)| console);
    (console.to_owned(), error.to_owned())
}

/// The error texts of ApplySchema hold a document.
fn same_error(want: &str, got: &str) -> bool {
    let (want, got) = (want.trim(), got.trim());
    if want == got {
        return true;
    }
    match (want.split_once("ExecuteResult: "), got.split_once("ExecuteResult: ")) {
        (Some((a, x)), Some((b, y))) => a == b && json(x).is_some() && json(x) == json(y),
        _ => false,
    }
}

async fn walkthrough() -> Cluster {
    let cluster = Cluster::with_master().await;
    cluster.ok(&["UpdateCellInfo", "-server_address", "<host>:2379", "-root", "/vitess/zone1", "zone1"]).await;
    let refused = |sql: &str, code: &str, text: &str| {
        let output = format!(
            "/usr/bin/mysql: exit status 1, output: --------------\n{sql}\n--------------\n\nERROR {code} at line 3: {text}\n"
        );
        Err(TmError::new(
            Code::Unknown,
            format!("TabletManager.PreflightSchema on zone1-0000000100 error: {output}: {output}"),
        ))
    };
    let changed = |count: usize| {
        let after = tmd::SchemaDefinition { database_schema: "changed".into(), ..Default::default() };
        let result = tmd::SchemaChangeResult { before_schema: None, after_schema: Some(after) };
        Ok(tmd::PreflightSchemaResponse { change_results: vec![result; count] })
    };
    cluster.tablets.preflights.lock().unwrap().extend([
        changed(1),
        refused("create table t1(id bigint primary key)", "1050 (42S01)", "Table 't1' already exists"),
        changed(2),
        refused("insert into product values(1)", "1136 (21S01)", "Column count doesn't match value count at row 1"),
    ]);
    let tablet_error = |method: &str, text: &str| {
        let status = format!("rpc error: code = Unknown desc = {text}");
        Err(TmError::new(
            Code::Unknown,
            format!("TabletManager.{method} on zone1-0000000100 error: {status}: {status}"),
        ))
    };
    cluster.tablets.results.lock().unwrap().extend([
        ("select 1 as a, null as b".to_owned(), Ok(one_and_null())),
        (
            "select count(*) from customer".to_owned(),
            tablet_error(
                "ExecuteFetchAsApp",
                "No database selected (errno 1046) (sqlstate 3D000) during query: select count(*) from customer",
            ),
        ),
        (
            "select nope".to_owned(),
            tablet_error(
                "ExecuteFetchAsDba",
                "Unknown column 'nope' in 'SELECT' (errno 1054) (sqlstate 42S22) during query: select nope",
            ),
        ),
    ]);
    cluster
}

#[tokio::test]
async fn stage_101_answers_as_recorded() {
    if !Path::new(TRANSCRIPT).exists() {
        eprintln!("SKIPPED: the recorded transcripts are not there");
        return;
    }
    let text = std::fs::read_to_string(TRANSCRIPT).expect("readable");
    let cluster = walkthrough().await;
    let mut compared = 0;
    let mut differences = Vec::new();
    for entry in entries(&text) {
        let Some(line) = entry.command.strip_prefix("vtctlclient ") else { continue };
        if SKIPPED.iter().any(|(prefix, _)| line.starts_with(prefix)) {
            continue;
        }
        let words = words(line);
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let outcome = cluster.run(&args).await;
        compared += 1;
        let error = outcome.result.as_ref().err().map(|error| error.to_vt_error().message().to_owned());
        let alike = match (&error, entry.exit) {
            (None, 0) => {
                neutral(&entry.output) == neutral(&outcome.console)
                    || (json(&entry.output).is_some() && json(&entry.output) == json(&outcome.console))
            }
            (Some(error), 1) => {
                let (console, want) = split_error(&entry.output);
                neutral(&console) == neutral(&outcome.console) && same_error(&want, error)
            }
            _ => false,
        };
        if !alike {
            differences.push(format!(
                "$ vtctlclient {line}\n--- recorded [exit {}]\n{}--- ours\n{}{}\n",
                entry.exit,
                entry.output,
                outcome.console,
                error.unwrap_or_default()
            ));
        }
    }
    assert!(compared > 60, "only {compared} entries");
    assert!(differences.is_empty(), "{} of {compared} differ:\n{}", differences.len(), differences.join("\n"));
}
