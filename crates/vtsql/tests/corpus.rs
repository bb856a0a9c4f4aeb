//! Public parser cases of Vitess: how much is understood, with floors so that it does not get less.

use serde_json::Value as Json;
use vtsql::StatementKind;

/// The rows of a case file; `None` (said on stderr) when it is not there.
fn rows(name: &str) -> Option<Vec<Json>> {
    let path = format!("{}/../../../shared/cases/{name}", env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("SKIPPED: {path} is not there");
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

fn share(part: usize, of: usize) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}

/// Statements that mysqld would be given; trees of those that are planned.
fn measure(file: &str, statement_floor: f64, tree_floor: f64) {
    let Some(rows) = rows(file) else { return };
    let (mut valid, mut parsed, mut planned, mut trees, mut round) = (0, 0, 0, 0, 0);
    for row in rows.iter().filter(|row| row["kind"] == "valid") {
        let sql = row["q"].as_str().expect("a statement");
        valid += 1;
        match vtsql::parse(sql) {
            Ok(statement) => {
                parsed += 1;
                if statement.kind.is_normalized() {
                    planned += 1;
                    match statement.tree() {
                        Ok(_) => trees += 1,
                        Err(error) if std::env::var_os("SHOW_FAILURES").is_some() => println!("tree: {sql}: {error}"),
                        Err(_) => {}
                    }
                }
            }
            Err(error) if std::env::var_os("SHOW_FAILURES").is_some() => println!("parse: {sql}: {error}"),
            Err(_) => {}
        }
        // Whatever it is, normalising it and putting the values back must work.
        let n = vtsql::normalize(sql.as_bytes()).expect("UTF-8");
        let vars: vtsql::BindVars = n.bind_vars.iter().cloned().collect();
        if n.bind_vars.is_empty() || vtsql::bind(&n.sql, &vars).is_ok() || sql.contains(':') {
            round += 1;
        }
    }
    println!(
        "{file}: {parsed} of {valid} statements ({:.1} %), {trees} of {planned} trees ({:.1} %)",
        share(parsed, valid),
        share(trees, planned)
    );
    assert_eq!(round, valid, "statements whose variables cannot be put back");
    assert!(share(parsed, valid) >= statement_floor);
    assert!(share(trees, planned) >= tree_floor);
}

#[test]
fn statements_of_2020() {
    measure("parser_2020.jsonl", 99.0, 90.0);
}

#[test]
fn statements_of_2026() {
    measure("parser_2026.jsonl", 97.0, 85.0);
}

#[test]
fn canonical_print() {
    let Some(rows) = rows("parser_2020.jsonl") else { return };
    let (mut alike, mut all) = (0, 0);
    for row in rows.iter().filter(|row| row["kind"] == "valid") {
        let (Some(sql), Some(out)) = (row["q"].as_str(), row["out"].as_str()) else { continue };
        if vtsql::preview(sql) == StatementKind::Comment || !vtsql::preview(sql).is_normalized() {
            continue;
        }
        all += 1;
        if vtsql::canonical(sql) == out {
            alike += 1;
        } else if std::env::var_os("SHOW_FAILURES").is_some() {
            println!("{sql}\n  {}\n  {out}", vtsql::canonical(sql));
        }
    }
    println!("canonical: {alike} of {all} ({:.1} %)", share(alike, all));
    assert!(share(alike, all) >= 84.0);
}
