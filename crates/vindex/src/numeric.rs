//! `numeric` (the number is the keyspace id) and `numeric_static_map` (after a look at a fixed map).

use std::collections::HashMap;
use std::sync::Arc;

use keyrange::KeyspaceId;
use vterrors::{Code, VtError};
use vtproto::query::Type;

use crate::{Destination, Params, Value, Vindex, to_u64};

#[derive(Debug)]
struct Numeric {
    name: String,
    /// `None`: plain `numeric`.
    map: Option<HashMap<u64, u64>>,
}

pub(crate) fn numeric(name: &str, _: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    Ok(Arc::new(Numeric { name: name.to_owned(), map: None }))
}

/// Reads the map from the file that `json_path` names.
pub(crate) fn static_map(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    let path = params.get("json_path").ok_or_else(|| {
        VtError::new(Code::InvalidArgument, "NumericStaticMap: Could not find `json_path` param in vschema")
    })?;
    let fault =
        |e: &dyn std::fmt::Display| VtError::new(Code::InvalidArgument, format!("numeric_static_map {path}: {e}"));
    let text = std::fs::read_to_string(path).map_err(|e| fault(&e))?;
    let entries: HashMap<String, u64> = serde_json::from_str(&text).map_err(|e| fault(&e))?;
    let map = entries
        .into_iter()
        .map(|(from, to)| Ok((from.parse::<u64>().map_err(|e| fault(&format!("{from:?}: {e}")))?, to)))
        .collect::<Result<_, VtError>>()?;
    Ok(Arc::new(Numeric { name: name.to_owned(), map: Some(map) }))
}

impl Numeric {
    fn id(&self, value: &Value) -> Result<[u8; 8], VtError> {
        let number = to_u64(value)?;
        let mapped = self.map.as_ref().and_then(|map| map.get(&number)).copied().unwrap_or(number);
        Ok(mapped.to_be_bytes())
    }

    /// The type as errors say it.
    fn kind(&self) -> &'static str {
        if self.map.is_some() { "NumericStaticMap" } else { "Numeric" }
    }
}

impl Vindex for Numeric {
    fn name(&self) -> &str {
        &self.name
    }
    fn cost(&self) -> u32 {
        u32::from(self.map.is_some())
    }
    fn is_unique(&self) -> bool {
        true
    }
    fn map(&self, values: &[Value]) -> Result<Vec<Destination>, VtError> {
        let one = |value: &Value| match self.id(value) {
            Ok(id) => Destination::KeyspaceId(KeyspaceId::new(id)),
            Err(_) => Destination::None,
        };
        Ok(values.iter().map(one).collect())
    }
    fn verify(&self, values: &[Value], ids: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        let one = |(value, id): (&Value, &KeyspaceId)| {
            Ok(self.id(value).map_err(|e| e.wrap(format_args!("{}.Verify", self.kind())))? == id.as_bytes())
        };
        values.iter().zip(ids).map(one).collect()
    }
    fn reverse_map(&self, ids: &[KeyspaceId]) -> Option<Result<Vec<Value>, VtError>> {
        let one = |id: &KeyspaceId| {
            let bytes: [u8; 8] = id.as_bytes().try_into().map_err(|_| {
                VtError::new(
                    Code::InvalidArgument,
                    format!("Numeric.ReverseMap: length of keyspaceId is not 8: {}", id.as_bytes().len()),
                )
            })?;
            Ok(Value::new(Type::Uint64, u64::from_be_bytes(bytes).to_string()))
        };
        self.map.is_none().then(|| ids.iter().map(one).collect())
    }
}
