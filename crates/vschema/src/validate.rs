//! JSON in, checked.

use vterrors::VtError;
use vtproto::vschema as pb;

/// Checks a keyspace the way `ApplyVSchema` does. The first fault is the error.
pub fn validate(keyspace: &pb::Keyspace) -> Result<(), VtError> {
    let _ = keyspace;
    unimplemented!()
}

/// Reads a keyspace from JSON, strictly, without [`validate`].
pub fn parse_keyspace(json: &str) -> Result<pb::Keyspace, VtError> {
    let _ = json;
    unimplemented!()
}

/// Reads routing rules from JSON, strictly, and checks their form.
pub fn parse_routing_rules(json: &str) -> Result<pb::RoutingRules, VtError> {
    let _ = json;
    unimplemented!()
}
