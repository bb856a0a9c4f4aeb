//! JSON in, checked.

use vterrors::{Code, VtError};
use vtproto::vschema as pb;

use crate::build::{fault, fill};
use crate::model::Keyspace;

/// Checks a keyspace the way `ApplyVSchema` does. The first fault is the error.
pub fn validate(keyspace: &pb::Keyspace) -> Result<(), VtError> {
    let mut built = Keyspace {
        name: String::new(),
        sharded: keyspace.sharded,
        tables: Default::default(),
        vindexes: Default::default(),
        error: None,
    };
    fill(&mut built, keyspace).map_err(|error| VtError::new(Code::InvalidArgument, error.message().to_owned()))
}

/// Reads a keyspace from JSON, strictly, without [`validate`].
pub fn parse_keyspace(json: &str) -> Result<pb::Keyspace, VtError> {
    vtjson::from_json(json).map_err(|error| VtError::new(Code::InvalidArgument, error.to_string()))
}

/// Reads routing rules from JSON, strictly, and checks their form: every target qualified, no name and
/// no target twice. Whether the targets exist shows when the rules are built.
pub fn parse_routing_rules(json: &str) -> Result<pb::RoutingRules, VtError> {
    let rules: pb::RoutingRules =
        vtjson::from_json(json).map_err(|error| VtError::new(Code::InvalidArgument, error.to_string()))?;
    for (i, rule) in rules.rules.iter().enumerate() {
        if rules.rules[..i].iter().any(|earlier| earlier.from_table == rule.from_table) {
            return Err(fault(format!("duplicate rule for entry {}", rule.from_table)));
        }
        for (j, to) in rule.to_tables.iter().enumerate() {
            if rule.to_tables[..j].contains(to) {
                return Err(fault(format!("table {to} specified more than once")));
            }
            if !to.split_once('.').is_some_and(|(keyspace, table)| !keyspace.is_empty() && !table.is_empty()) {
                return Err(fault(format!("table {to} must be qualified")));
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
        assert_eq!(fault(r#"{"rules":[{"fromTable":"t","toTables":["x"]}]}"#), "table x must be qualified");
        assert_eq!(fault(r#"{"rules":[{"fromTable":"t"},{"fromTable":"t"}]}"#), "duplicate rule for entry t");
        assert_eq!(
            parse_routing_rules(r#"{"rules":[{"fromTable":"t","toTables":["a.t"]}]}"#).expect("valid").rules.len(),
            1
        );
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(parse_keyspace(r#"{"shraded":true}"#).is_err());
        assert!(parse_keyspace("{").is_err());
    }
}
