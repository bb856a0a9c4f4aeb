//! JSON in, checked.

use vterrors::{Code, VtError};
use vtproto::vschema as pb;

use crate::build::{Fault, fault, fill};
use crate::model::Keyspace;

/// Checks a keyspace the way `ApplyVSchema` does. The first fault is the error.
pub fn validate(keyspace: &pb::Keyspace) -> Result<(), VtError> {
    check(keyspace).map_err(|fault| refused(fault.text))
}

/// The same for a keyspace that was read from `json`: behind the text of the fault stands its line, as behind those of
/// [`parse_keyspace`].
pub fn validate_json(keyspace: &pb::Keyspace, json: &str) -> Result<(), VtError> {
    check(keyspace).map_err(|fault| refused(placed(fault, json)))
}

fn check(keyspace: &pb::Keyspace) -> Result<(), Fault> {
    let mut built = Keyspace {
        name: String::new(),
        sharded: keyspace.sharded,
        tables: Default::default(),
        vindexes: Default::default(),
        error: None,
    };
    fill(&mut built, keyspace)
}

fn refused(text: String) -> VtError {
    VtError::new(Code::InvalidArgument, text)
}

/// The text of a fault and where in `json` it is.
fn placed(fault: Fault, json: &str) -> String {
    fault.text + &vtjson::place(json, &fault.path)
}

/// Reads a keyspace from JSON, strictly, without [`validate`].
pub fn parse_keyspace(json: &str) -> Result<pb::Keyspace, VtError> {
    vtjson::from_json(json).map_err(|error| refused(error.to_string()))
}

/// Reads routing rules from JSON, strictly, and checks their form: every target qualified, no name and
/// no target twice. Whether the targets exist shows when the rules are built.
pub fn parse_routing_rules(json: &str) -> Result<pb::RoutingRules, VtError> {
    let rules: pb::RoutingRules = vtjson::from_json(json).map_err(|error| refused(error.to_string()))?;
    for (i, rule) in rules.rules.iter().enumerate() {
        let wrong = |field: &str, text| fault(placed(Fault::at(["rules", &i.to_string(), field], text), json));
        if rules.rules[..i].iter().any(|earlier| earlier.from_table == rule.from_table) {
            return Err(wrong("from_table", format!("duplicate rule for entry {}", rule.from_table)));
        }
        for (j, to) in rule.to_tables.iter().enumerate() {
            if rule.to_tables[..j].contains(to) {
                return Err(wrong("to_tables", format!("table {to} specified more than once")));
            }
            if !to.split_once('.').is_some_and(|(keyspace, table)| !keyspace.is_empty() && !table.is_empty()) {
                return Err(wrong("to_tables", format!("table {to} must be qualified")));
            }
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_checked_in_form() {
        let fault = |json| parse_routing_rules(json).expect_err(json).to_string();
        assert_eq!(
            fault("{\"rules\":[\n{\"fromTable\":\"t\",\n\"toTables\":[\"x\"]}]}"),
            "table x must be qualified (line 3: rules.toTables)"
        );
        assert_eq!(
            fault("{\"rules\":[{\"from_table\":\"t\"},\n{\"from_table\":\"t\"}]}"),
            "duplicate rule for entry t (line 2: rules.from_table)"
        );
        assert_eq!(
            parse_routing_rules(r#"{"rules":[{"fromTable":"t","toTables":["a.t"]}]}"#).expect("valid").rules.len(),
            1
        );
    }

    #[test]
    fn a_fault_of_a_text_is_told_with_its_line() {
        let fault = |json: &str| {
            let keyspace = parse_keyspace(json).expect(json);
            let (plain, placed) = (validate(&keyspace), validate_json(&keyspace, json));
            let (plain, placed) = (plain.expect_err(json), placed.expect_err(json));
            assert_eq!(plain.code(), placed.code());
            placed.message().strip_prefix(plain.message()).expect("the text stands in front").to_owned()
        };
        let vindexes = r#""vindexes": {"h": {"type": "hash"}}"#;
        let one = r#"{"column": "id", "name": "h"}"#;
        for (tables, want) in [
            (
                format!("\"b\": {{\n\"column_vindexes\": [{one},\n{{\"column\": \"x\",\n\"name\": \"zz\"}}]}}"),
                " (line 5: tables.b.column_vindexes.name)",
            ),
            (format!("\"a\": {{\"columnVindexes\": [{one}]}},\n\"b\": {{}}"), " (line 3: tables.b)"),
            ("\"b\":\n{\n\"type\": \"weird\"}".into(), " (line 4: tables.b.type)"),
            ("\"b\":{\n\"pinned\": \"8\"}".into(), " (line 3: tables.b.pinned)"),
            (
                format!(
                    "\"b\":{{\"columnVindexes\": [{one}], \"columns\": [{{\"name\": \"a\"}},\n{{\"name\": \"A\"}}]}}"
                ),
                " (line 3: tables.b.columns.name)",
            ),
        ] {
            assert_eq!(fault(&format!("{{\"sharded\": true, {vindexes}, \"tables\": {{\n{tables}}}}}")), want);
        }
        assert_eq!(fault("{\"vindexes\": {\"v\": {\n\"type\": \"nonexist\"}}}"), " (line 2: vindexes.v.type)");
        assert_eq!(fault("{\"vindexes\": {\n\"v\": {}}}"), " (line 2: vindexes.v)");
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(parse_keyspace(r#"{"shraded":true}"#).is_err());
        assert!(parse_keyspace("{").is_err());
    }
}
