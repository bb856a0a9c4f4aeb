//! `region_experimental`: two columns, a region and a number. The region's low bytes come first in the
//! keyspace id, so that shards can be regions; the number is hashed behind them.

use std::sync::Arc;

use keyrange::KeyspaceId;
use vterrors::{Code, VtError};

use crate::{Destination, Params, Value, Vindex, hash::hash_id, to_u64};

#[derive(Debug)]
struct Region {
    name: String,
    /// How many low bytes of the region: 1 or 2.
    bytes: usize,
}

pub(crate) fn region_experimental(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    let invalid = |text: String| VtError::new(Code::InvalidArgument, text);
    let bytes = match params.get("region_bytes").map(String::as_str) {
        None => return Err(invalid("region_experimental missing region_bytes param".into())),
        Some("1") => 1,
        Some("2") => 2,
        Some(other) => return Err(invalid(format!("region_bits must be 1 or 2: {other}"))),
    };
    Ok(Arc::new(Region { name: name.to_owned(), bytes }))
}

impl Region {
    /// The keyspace id of a row; `None` where a value is no number, or one is missing.
    fn id(&self, row: &[Value]) -> Option<KeyspaceId> {
        let [region, id] = row else { return None };
        let region = to_u64(region).ok()?.to_be_bytes();
        let mut out = region[8 - self.bytes..].to_vec();
        out.extend(hash_id(id.wrapped_u64().ok()?));
        Some(KeyspaceId::new(out))
    }
}

impl Vindex for Region {
    fn name(&self) -> &str {
        &self.name
    }
    fn cost(&self) -> u32 {
        1
    }
    fn is_unique(&self) -> bool {
        true
    }
    fn columns(&self) -> usize {
        2
    }
    fn map(&self, _: &[Value]) -> Result<Vec<Destination>, VtError> {
        Err(VtError::new(Code::Internal, format!("vindex {} maps two columns at once", self.name)))
    }
    fn verify(&self, _: &[Value], _: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        Err(VtError::new(Code::Internal, format!("vindex {} verifies two columns at once", self.name)))
    }
    fn map_rows(&self, rows: &[Vec<Value>]) -> Result<Vec<Destination>, VtError> {
        Ok(rows.iter().map(|row| self.id(row).map_or(Destination::None, Destination::KeyspaceId)).collect())
    }
    fn verify_rows(&self, rows: &[Vec<Value>], ids: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        Ok(rows.iter().zip(ids).map(|(row, id)| self.id(row).is_some_and(|found| found == *id)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtproto::query::Type;

    #[test]
    fn the_region_comes_first() {
        let value = |n: i64| Value::new(Type::Int64, n.to_string());
        for (bytes, region, want) in [("1", 1, "01166b40b44aba4bd6"), ("2", 256, "0100166b40b44aba4bd6")] {
            let params = Params::from([("region_bytes".into(), bytes.into())]);
            let vindex = region_experimental("r", &params).expect("valid");
            let got = vindex.map_rows(&[vec![value(region), value(1)]]).expect("maps");
            let Destination::KeyspaceId(id) = &got[0] else { panic!("{got:?}") };
            assert_eq!(id.to_string(), want);
            assert_eq!(
                vindex.verify_rows(&[vec![value(region), value(1)]], std::slice::from_ref(id)).expect("verifies"),
                [true]
            );
        }
        assert_eq!(
            region_experimental("r", &Params::new()).expect_err("missing").message(),
            "region_experimental missing region_bytes param"
        );
        let bad = Params::from([("region_bytes".into(), "3".into())]);
        assert_eq!(region_experimental("r", &bad).expect_err("bad").message(), "region_bits must be 1 or 2: 3");
    }
}
