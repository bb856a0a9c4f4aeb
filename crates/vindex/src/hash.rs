//! `hash`: one DES block of the number. The usual primary vindex.

use std::sync::Arc;

use keyrange::KeyspaceId;
use vterrors::{Code, VtError};
use vtproto::query::Type;

use crate::des::encrypt;
use crate::{Destination, Params, Value, Vindex, to_u64};

#[derive(Debug)]
struct Hash {
    name: String,
}

pub(crate) fn hash(name: &str, _: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    Ok(Arc::new(Hash { name: name.to_owned() }))
}

/// The keyspace id of a number.
pub(crate) fn hash_id(number: u64) -> [u8; 8] {
    encrypt(number).to_be_bytes()
}

/// The number behind a keyspace id. The key of zeroes is one of those under which DES undoes itself.
pub(crate) fn unhash(id: &KeyspaceId) -> Result<u64, VtError> {
    let bytes: [u8; 8] = id
        .as_bytes()
        .try_into()
        .map_err(|_| VtError::new(Code::InvalidArgument, format!("invalid keyspace id: {id}")))?;
    Ok(encrypt(u64::from_be_bytes(bytes)))
}

impl Vindex for Hash {
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
        let one = |value: &Value| match value.wrapped_u64() {
            Ok(number) => Destination::KeyspaceId(KeyspaceId::new(hash_id(number))),
            // No row can have such a value: not an error.
            Err(_) => Destination::None,
        };
        Ok(values.iter().map(one).collect())
    }
    fn verify(&self, values: &[Value], ids: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        values
            .iter()
            .zip(ids)
            .map(|(v, id)| Ok(hash_id(to_u64(v).map_err(|e| e.wrap("hash.Verify"))?) == id.as_bytes()))
            .collect()
    }
    fn reverse_map(&self, ids: &[KeyspaceId]) -> Option<Result<Vec<Value>, VtError>> {
        Some(ids.iter().map(|id| Ok(Value::new(Type::Uint64, unhash(id)?.to_string()))).collect())
    }
}
