//! Vindex types by name. Built-ins are always there; others are added with [`register`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use vterrors::{Code, VtError};

use crate::Vindex;

/// Parameters of a vindex, from the vschema.
pub type Params = BTreeMap<String, String>;

/// Makes an instance from its name and parameters.
pub type Constructor = fn(&str, &Params) -> Result<Arc<dyn Vindex>, VtError>;

static CUSTOM: RwLock<Option<HashMap<String, Constructor>>> = RwLock::new(None);

/// Adds a vindex type of one's own. Errors: the name is taken.
pub fn register(kind: &str, constructor: Constructor) -> Result<(), VtError> {
    let mut custom = CUSTOM.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    let custom = custom.get_or_insert_default();
    if built_in(kind).is_some() || custom.contains_key(kind) {
        return Err(VtError::new(Code::AlreadyExists, format!("{kind} is already registered")));
    }
    custom.insert(kind.to_owned(), constructor);
    Ok(())
}

/// Creates the vindex `name` of type `kind`. Errors: unknown type, bad parameters.
pub fn create(kind: &str, name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    let constructor = built_in(kind).or_else(|| {
        let custom = CUSTOM.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        custom.as_ref()?.get(kind).copied()
    });
    match constructor {
        Some(constructor) => constructor(name, params),
        None => Err(VtError::new(Code::NotFound, format!("vindexType {kind:?} not found"))),
    }
}

fn built_in(kind: &str) -> Option<Constructor> {
    Some(match kind {
        "binary" => crate::binary::binary,
        "binary_md5" => crate::binary::binary_md5,
        "hash" => crate::hash::hash,
        "null" => crate::null::null,
        "numeric" => crate::numeric::numeric,
        "numeric_static_map" => crate::numeric::static_map,
        "region_experimental" => crate::region::region_experimental,
        "reverse_bits" => crate::reverse_bits::reverse_bits,
        "unicode_loose_md5" => crate::unicode_loose_md5::unicode_loose_md5,
        "xxhash" => crate::xxhash::xxhash,
        "lookup" => crate::lookup::lookup,
        "lookup_unique" => crate::lookup::lookup_unique,
        "lookup_hash" => crate::lookup::lookup_hash,
        "lookup_hash_unique" => crate::lookup::lookup_hash_unique,
        "lookup_unicodeloosemd5_hash" => crate::lookup::lookup_unicodeloosemd5_hash,
        "lookup_unicodeloosemd5_hash_unique" => crate::lookup::lookup_unicodeloosemd5_hash_unique,
        "consistent_lookup" => crate::lookup::consistent_lookup,
        "consistent_lookup_unique" => crate::lookup::consistent_lookup_unique,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_type_has_its_metadata() {
        for (kind, cost, unique, lookup) in [
            ("binary", 1, true, false),
            ("binary_md5", 1, true, false),
            ("hash", 1, true, false),
            ("null", 100, true, false),
            ("numeric", 0, true, false),
            ("reverse_bits", 1, true, false),
            ("unicode_loose_md5", 1, true, false),
            ("xxhash", 1, true, false),
            ("region_experimental", 1, true, false),
            ("lookup", 20, false, true),
            ("lookup_unique", 10, true, true),
            ("lookup_hash", 20, false, true),
            ("lookup_hash_unique", 10, true, true),
            ("lookup_unicodeloosemd5_hash", 20, false, true),
            ("lookup_unicodeloosemd5_hash_unique", 10, true, true),
            ("consistent_lookup", 20, false, true),
            ("consistent_lookup_unique", 10, true, true),
        ] {
            let params = Params::from([("region_bytes".into(), "1".into())]);
            let vindex = create(kind, "v", &params).unwrap_or_else(|e| panic!("{kind}: {e}"));
            assert_eq!((vindex.cost(), vindex.is_unique(), vindex.needs_lookup()), (cost, unique, lookup), "{kind}");
            assert_eq!(vindex.name(), "v");
        }
    }

    #[test]
    fn unknown_types_and_taken_names() {
        assert_eq!(
            create("nope", "v", &Params::new()).expect_err("unknown").message(),
            "vindexType \"nope\" not found"
        );
        assert!(register("hash", crate::null::null).is_err());
        register("my_test_type", crate::null::null).expect("free name");
        assert_eq!(create("my_test_type", "v", &Params::new()).expect("registered").cost(), 100);
        assert!(register("my_test_type", crate::null::null).is_err());
    }
}
