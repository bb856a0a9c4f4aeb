//! The throttlers of a process. One that is dropped is not listed any more.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use vterrors::{Code, Result, VtError};

use crate::Throttler;

/// Throttlers by name. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Throttlers(Arc<Mutex<BTreeMap<String, Weak<Throttler>>>>);

impl Throttlers {
    /// Lists a throttler for as long as it is in use, instead of an earlier one of its name.
    pub fn add(&self, throttler: Throttler) -> Arc<Throttler> {
        let throttler = Arc::new(throttler);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, other| other.strong_count() > 0);
        known.insert(throttler.name().to_owned(), Arc::downgrade(&throttler));
        throttler
    }

    /// The throttler of this name, or all for an empty one, by name.
    ///
    /// # Errors
    /// NOT_FOUND when there is none of this name.
    pub fn named(&self, name: &str) -> Result<Vec<Arc<Throttler>>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if name.is_empty() {
            return Ok(known.values().filter_map(Weak::upgrade).collect());
        }
        let found = known.get(name).and_then(Weak::upgrade);
        let found = found.ok_or_else(|| VtError::new(Code::NotFound, format!("throttler: {name} does not exist")))?;
        Ok(vec![found])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttlers_are_listed_while_they_are_used() {
        let throttlers = Throttlers::default();
        let names = |name: &str| -> Result<Vec<String>> {
            Ok(throttlers.named(name)?.iter().map(|throttler| throttler.name().to_owned()).collect())
        };
        assert!(names("").expect("all").is_empty());
        let b = throttlers.add(Throttler::new("ks/b", 1));
        let _a = throttlers.add(Throttler::new("ks/a", 1));
        assert_eq!(names("").expect("all"), ["ks/a", "ks/b"]);
        assert_eq!(names("ks/b").expect("it exists"), ["ks/b"]);
        drop(b);
        assert_eq!(names("").expect("all"), ["ks/a"]);
        assert_eq!(names("ks/b").expect_err("it is gone").message(), "throttler: ks/b does not exist");
    }
}
