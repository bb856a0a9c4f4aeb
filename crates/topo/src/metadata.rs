//! Free texts by key, set through `set @@vitess_metadata.<key>`.

use std::collections::BTreeMap;

use crate::{
    error::{Result, TopoError},
    paths::{self, METADATA_DIR},
    server::TopoServer,
};

impl TopoServer {
    /// The entries whose key the filter wants.
    pub async fn get_metadata(&self, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for key in self.names(self.global(), METADATA_DIR).await? {
            if !wanted(&key) {
                continue;
            }
            match self.global().get(&paths::metadata_path(&key)).await {
                Ok((contents, _)) => {
                    found.insert(key, String::from_utf8_lossy(&contents).into_owned());
                }
                Err(TopoError::NoNode { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    pub async fn upsert_metadata(&self, key: &str, value: &str) -> Result<()> {
        let contents = value.as_bytes().to_vec().into();
        self.global().update(&paths::metadata_path(key), contents, None).await.map(drop)
    }

    /// Deletes an entry; one that is missing is no error.
    pub async fn delete_metadata(&self, key: &str) -> Result<()> {
        match self.global().delete(&paths::metadata_path(key), None).await {
            Ok(()) | Err(TopoError::NoNode { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
