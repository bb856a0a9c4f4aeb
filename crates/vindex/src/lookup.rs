//! The types whose mapping is not built yet: their metadata, so that a vschema that names them can be
//! checked, stored and shown. Mapping answers UNIMPLEMENTED by name.

use std::sync::Arc;

use keyrange::KeyspaceId;
use vterrors::{Code, VtError};

use crate::{Destination, Params, Value, Vindex};

#[derive(Debug)]
struct Unbuilt {
    name: String,
    kind: &'static str,
    cost: u32,
    unique: bool,
    lookup: bool,
}

impl Unbuilt {
    fn fault(&self) -> VtError {
        VtError::new(
            Code::Unimplemented,
            format!("vindex {} of type {}: mapping is not built yet", self.name, self.kind),
        )
    }
}

impl Vindex for Unbuilt {
    fn name(&self) -> &str {
        &self.name
    }
    fn cost(&self) -> u32 {
        self.cost
    }
    fn is_unique(&self) -> bool {
        self.unique
    }
    fn needs_lookup(&self) -> bool {
        self.lookup
    }
    fn is_lookup(&self) -> bool {
        self.lookup
    }
    fn map(&self, _: &[Value]) -> Result<Vec<Destination>, VtError> {
        Err(self.fault())
    }
    fn verify(&self, _: &[Value], _: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        Err(self.fault())
    }
}

/// Checks the parameters which are booleans.
fn check_bools(params: &Params, names: &[&str]) -> Result<(), VtError> {
    for name in names {
        if let Some(value) = params.get(*name)
            && value != "true"
            && value != "false"
        {
            return Err(VtError::new(
                Code::InvalidArgument,
                format!("{name} value must be 'true' or 'false': '{value}'"),
            ));
        }
    }
    Ok(())
}

fn make(
    name: &str,
    kind: &'static str,
    unique: bool,
    params: &Params,
    bools: &[&str],
) -> Result<Arc<dyn Vindex>, VtError> {
    check_bools(params, bools)?;
    Ok(Arc::new(Unbuilt { name: name.to_owned(), kind, cost: if unique { 10 } else { 20 }, unique, lookup: true }))
}

const PLAIN: &[&str] = &["autocommit", "write_only"];
const CONSISTENT: &[&str] = &["write_only"];

pub(crate) fn lookup(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    make(name, "lookup", false, params, PLAIN)
}

pub(crate) fn lookup_unique(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    make(name, "lookup_unique", true, params, PLAIN)
}

pub(crate) fn lookup_hash(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    make(name, "lookup_hash", false, params, PLAIN)
}

pub(crate) fn lookup_hash_unique(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    make(name, "lookup_hash_unique", true, params, PLAIN)
}

pub(crate) fn lookup_unicodeloosemd5_hash(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    make(name, "lookup_unicodeloosemd5_hash", false, params, PLAIN)
}

pub(crate) fn lookup_unicodeloosemd5_hash_unique(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    make(name, "lookup_unicodeloosemd5_hash_unique", true, params, PLAIN)
}

pub(crate) fn consistent_lookup(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    make(name, "consistent_lookup", false, params, CONSISTENT)
}

pub(crate) fn consistent_lookup_unique(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    make(name, "consistent_lookup_unique", true, params, CONSISTENT)
}

/// Several columns, a region first.
pub(crate) fn region_experimental(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    let invalid = |text: String| VtError::new(Code::InvalidArgument, text);
    match params.get("region_bytes").map(String::as_str) {
        None => Err(invalid("region_experimental missing region_bytes param".into())),
        Some("1" | "2") => Ok(Arc::new(Unbuilt {
            name: name.to_owned(),
            kind: "region_experimental",
            cost: 1,
            unique: true,
            lookup: false,
        })),
        Some(other) => Err(invalid(format!("region_bits must be 1 or 2: {other}"))),
    }
}

/// Text compared loosely; needs the collation's weights.
pub(crate) fn unicode_loose_md5(name: &str, _: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    Ok(Arc::new(Unbuilt { name: name.to_owned(), kind: "unicode_loose_md5", cost: 1, unique: true, lookup: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_checked_and_mapping_is_refused_by_name() {
        let bad = Params::from([("autocommit".into(), "yes".into())]);
        assert_eq!(lookup("l", &bad).expect_err("bad").message(), "autocommit value must be 'true' or 'false': 'yes'");
        assert_eq!(
            region_experimental("r", &Params::new()).expect_err("missing").message(),
            "region_experimental missing region_bytes param"
        );
        let error = lookup("l", &Params::new()).expect("valid").map(&[Value::null()]).expect_err("not built");
        assert_eq!(error.code(), Code::Unimplemented);
    }
}
