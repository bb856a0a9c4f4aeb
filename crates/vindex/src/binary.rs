//! `binary` (the value's bytes are the keyspace id) and `binary_md5` (their MD5 is).

use std::sync::Arc;

use keyrange::KeyspaceId;
use md5::{Digest, Md5};
use vterrors::VtError;
use vtproto::query::Type;

use crate::{Destination, Params, Value, Vindex};

#[derive(Debug)]
struct Binary {
    name: String,
    md5: bool,
}

pub(crate) fn binary(name: &str, _: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    Ok(Arc::new(Binary { name: name.to_owned(), md5: false }))
}

pub(crate) fn binary_md5(name: &str, _: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    Ok(Arc::new(Binary { name: name.to_owned(), md5: true }))
}

impl Binary {
    fn id(&self, value: &Value) -> Vec<u8> {
        if self.md5 { Md5::digest(&value.bytes).to_vec() } else { value.bytes.clone() }
    }
}

impl Vindex for Binary {
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
        Ok(values.iter().map(|v| Destination::KeyspaceId(KeyspaceId::new(self.id(v)))).collect())
    }
    fn verify(&self, values: &[Value], ids: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        Ok(values.iter().zip(ids).map(|(v, id)| self.id(v) == id.as_bytes()).collect())
    }
    fn reverse_map(&self, ids: &[KeyspaceId]) -> Option<Result<Vec<Value>, VtError>> {
        (!self.md5).then(|| Ok(ids.iter().map(|id| Value::new(Type::Varbinary, id.as_bytes())).collect()))
    }
}
