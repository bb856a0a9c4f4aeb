//! The tablet planner cases of Vitess: kinds, tables and roles, texts and refusals.
//!
//! DML is passed through here (docs/decisions/0002-dml-passthrough.md), so that of a DML plan only what
//! a user can see is compared: which rules mean it, and which roles it needs.

use serde_json::Value;
use vttablet::queryservice::plan_summary;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/cases/tablet_planner_2020.jsonl");

/// Refusals of v5.0.1 that come from rewriting DML and from message tables, which this tablet does not
/// do: mysqld judges these statements.
const REWRITING: [&str; 12] = [
    "could not find qualified column",
    "deletes not allowed on topics",
    "updates not allowed on topics",
    "subquery not allowed for",
    "must not be specified for message insert",
    "must be specified for message insert",
    "is not allowed for message",
    "'on duplicate key' construct not allowed",
    "column missing not found",
    "column count doesn't match",
    "strconv.ParseUint",
    "bind variable",
];

/// Deletes over several tables: v5.0.1 asks for the role of a writer on those that are only read too.
const READ_ONLY_PARTNERS: [&str; 2] = ["delete a, b from a, b, c where", "delete a  from a join b"];

#[test]
fn plans_are_those_of_vitess() {
    let Ok(cases) = std::fs::read_to_string(CASES) else {
        eprintln!("SKIPPED: no {CASES}");
        return;
    };
    let mut failures = Vec::new();
    let mut compared = 0;
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).expect("a case");
        let (sql, expect) = (case["q"].as_str().unwrap_or_default(), &case["expect"]);
        let streaming = case["file"] == "stream_cases.txt";
        let got = plan_summary(sql, streaming);
        let mut differ = |what: String| failures.push(format!("{sql}: {what}"));
        if let Some(error) = expect["error"].as_str() {
            // Unknown tables are a matter of the schema, which the integration tests have.
            if REWRITING.iter().any(|text| error.contains(text)) || error.ends_with("not found in schema") {
                continue;
            }
            compared += 1;
            match got {
                Err(got) if got.message() == error => {}
                other => differ(format!("want the error {error}, got {other:?}")),
            }
            continue;
        }
        let got = match got {
            Ok(got) => got,
            Err(error) => {
                differ(format!("refused: {error}"));
                continue;
            }
        };
        compared += 1;
        if let Some(plan) = expect["PlanID"].as_str()
            && !got.names.contains(&plan)
            && !(plan == "PASS_DML" && got.names.contains(&"PASS_DML"))
        {
            differ(format!("want {plan}, got {:?}", got.names));
        }
        if let Some(permissions) = expect["Permissions"].as_array() {
            let mut want: Vec<(String, u64)> = permissions
                .iter()
                .map(|p| (p["TableName"].as_str().unwrap_or_default().to_owned(), p["Role"].as_u64().unwrap_or(9)))
                .collect();
            let mut have = got.permissions.clone();
            // Vitess asks for the same role twice where a table is named twice.
            want.sort();
            want.dedup();
            have.sort();
            have.dedup();
            if want != have && !READ_ONLY_PARTNERS.iter().any(|start| sql.starts_with(start)) {
                differ(format!("want the roles {want:?}, got {have:?}"));
            }
        }
        let select = matches!(expect["PlanID"].as_str(), Some("PASS_SELECT" | "SELECT_LOCK" | "SELECT_STREAM"));
        if select
            && let Some(table) = expect["TableName"].as_str()
            && table != got.table
        {
            differ(format!("want the table {table:?}, got {:?}", got.table));
        }
        if select
            && let Some(query) = expect["FullQuery"].as_str()
            && vtsql::canonical(&got.full_query) != query
        {
            differ(format!("want {query}, got {}", vtsql::canonical(&got.full_query)));
        }
    }
    assert!(compared > 60, "only {compared} cases compared");
    assert!(failures.is_empty(), "{} of {compared} differ:\n{}", failures.len(), failures.join("\n"));
}
