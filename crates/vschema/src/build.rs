//! From the topology's record to the built vschema.

use vtproto::vschema as pb;

use crate::model::VSchema;

impl VSchema {
    /// Builds every keyspace and rule; faults stay with what has them.
    pub fn build(source: &pb::SrvVSchema) -> Self {
        let _ = source;
        unimplemented!()
    }
}
