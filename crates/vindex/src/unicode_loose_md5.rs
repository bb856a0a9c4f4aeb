//! `unicode_loose_md5`: the MD5 of a text's loose sort key, so that case, accents, width and trailing
//! blanks do not matter.

use std::sync::Arc;

use keyrange::KeyspaceId;
use md5::{Digest, Md5};
use vterrors::{Code, VtError};

use crate::{Destination, Params, Value, Vindex, loose};

#[derive(Debug)]
struct UnicodeLooseMd5 {
    name: String,
}

pub(crate) fn unicode_loose_md5(name: &str, _: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    Ok(Arc::new(UnicodeLooseMd5 { name: name.to_owned() }))
}

/// The MD5 of a text's loose sort key. Errors: text that is not UTF-8.
pub(crate) fn loose_md5(value: &Value) -> Result<[u8; 16], VtError> {
    let text = std::str::from_utf8(&value.bytes).map_err(|_| {
        VtError::new(Code::Unknown, format!("cannot normalize string containing invalid UTF-8: {:?}", value.text()))
    })?;
    Ok(Md5::digest(loose::key(text.trim_end_matches(' '))).into())
}

impl Vindex for UnicodeLooseMd5 {
    fn name(&self) -> &str {
        &self.name
    }
    fn cost(&self) -> u32 {
        1
    }
    fn is_unique(&self) -> bool {
        true
    }
    fn map(&self, values: &[Value]) -> Result<Vec<Destination>, VtError> {
        let one = |value: &Value| {
            let id = loose_md5(value).map_err(|e| e.wrap("UnicodeLooseMD5.Map"))?;
            Ok(Destination::KeyspaceId(KeyspaceId::new(id)))
        };
        values.iter().map(one).collect()
    }
    fn verify(&self, values: &[Value], ids: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        let one = |(value, id): (&Value, &KeyspaceId)| {
            Ok(loose_md5(value).map_err(|e| e.wrap("UnicodeLooseMD5.Verify"))? == id.as_bytes())
        };
        values.iter().zip(ids).map(one).collect()
    }
}
