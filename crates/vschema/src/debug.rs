//! The JSON of `/debug/vschema`.

use crate::model::VSchema;

impl VSchema {
    /// The built vschema in the shape of `/debug/vschema`; print with one blank of indentation.
    pub fn debug_json(&self) -> serde_json::Value {
        unimplemented!()
    }
}
