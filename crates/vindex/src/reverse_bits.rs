//! `reverse_bits`: the number's bits in reverse, which spreads an ascending key.

use std::sync::Arc;

use keyrange::KeyspaceId;
use vterrors::{Code, VtError};
use vtproto::query::Type;

use crate::{Destination, Params, Value, Vindex, to_u64};

#[derive(Debug)]
struct ReverseBits {
    name: String,
}

pub(crate) fn reverse_bits(name: &str, _: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    Ok(Arc::new(ReverseBits { name: name.to_owned() }))
}

impl Vindex for ReverseBits {
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
        let one = |value: &Value| match to_u64(value) {
            Ok(number) => Destination::KeyspaceId(KeyspaceId::from_u64(number.reverse_bits())),
            Err(_) => Destination::None,
        };
        Ok(values.iter().map(one).collect())
    }
    fn verify(&self, values: &[Value], ids: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        let one = |(value, id): (&Value, &KeyspaceId)| {
            let number = to_u64(value).map_err(|e| e.wrap("reverseBits.Verify"))?;
            Ok(number.reverse_bits().to_be_bytes() == id.as_bytes())
        };
        values.iter().zip(ids).map(one).collect()
    }
    fn reverse_map(&self, ids: &[KeyspaceId]) -> Option<Result<Vec<Value>, VtError>> {
        let one = |id: &KeyspaceId| {
            let bytes: [u8; 8] = id.as_bytes().try_into().map_err(|_| {
                VtError::new(Code::InvalidArgument, format!("invalid keyspace id: {:?}", id.as_bytes()))
            })?;
            Ok(Value::new(Type::Uint64, u64::from_be_bytes(bytes).reverse_bits().to_string()))
        };
        Some(ids.iter().map(one).collect())
    }
}
