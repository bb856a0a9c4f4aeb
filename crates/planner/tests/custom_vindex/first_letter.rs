use keyrange::KeyspaceId;
use std::sync::Arc;
use vindex::{Destination, Params, Value, Vindex};
use vterrors::VtError;

#[derive(Debug)]
struct FirstLetter(String);

impl Vindex for FirstLetter {
    fn name(&self) -> &str {
        &self.0
    }
    fn cost(&self) -> u32 {
        1
    }
    fn is_unique(&self) -> bool {
        true
    }
    fn map(&self, values: &[Value]) -> Result<Vec<Destination>, VtError> {
        let one = |value: &Value| match value.bytes.first() {
            Some(letter) => Destination::KeyspaceId(KeyspaceId::new([letter.to_ascii_lowercase()])),
            None => Destination::None,
        };
        Ok(values.iter().map(one).collect())
    }
    fn verify(&self, values: &[Value], ids: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        let places = self.map(values)?;
        Ok(places.iter().zip(ids).map(|(place, id)| *place == Destination::KeyspaceId(id.clone())).collect())
    }
}

pub fn first_letter(name: &str, _: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    Ok(Arc::new(FirstLetter(name.to_owned())))
}
