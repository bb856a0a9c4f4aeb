//! Journals of cutovers: how far a change of the serving place has come.
//!
//! One key per destination keyspace and name (a shard, or a name of the migration). Written with the
//! version of the read it is based on, so that two coordinators cannot both drive one cutover. It
//! goes away with its keyspace.

use vtproto::cutover::Journal;

use crate::{
    conn::Version,
    error::{Result, TopoError},
    paths,
    record::{self, UnknownFields},
    server::{TopoServer, read},
};

impl TopoServer {
    /// The names of a keyspace's cutovers, sorted.
    pub async fn get_cutover_names(&self, keyspace: &str) -> Result<Vec<String>> {
        self.names(self.global(), &paths::cutovers_dir(keyspace)).await
    }

    /// `NodeExists` when there is one of this name already.
    pub async fn create_cutover(&self, keyspace: &str, name: &str, journal: &Journal) -> Result<Version> {
        let contents = record::encode(journal, &UnknownFields::default());
        self.global().create(&paths::cutover_path(keyspace, name), contents).await
    }

    pub async fn get_cutover(&self, keyspace: &str, name: &str) -> Result<(Journal, Version)> {
        let (journal, _, version) = read(&**self.global(), &paths::cutover_path(keyspace, name)).await?;
        Ok((journal, version))
    }

    /// Writes a journal if nobody else has written it since `version`: `BadVersion` otherwise.
    pub async fn update_cutover(
        &self,
        keyspace: &str,
        name: &str,
        journal: &Journal,
        version: Version,
    ) -> Result<Version> {
        let contents = record::encode(journal, &UnknownFields::default());
        self.global().update(&paths::cutover_path(keyspace, name), contents, Some(version)).await
    }

    /// Deletes a journal if nobody else has written it since `version`.
    pub async fn delete_cutover(&self, keyspace: &str, name: &str, version: Version) -> Result<()> {
        self.global().delete(&paths::cutover_path(keyspace, name), Some(version)).await
    }

    /// Deletes the journals of a keyspace that is no more: a key left behind would list it as one.
    pub(crate) async fn delete_cutovers(&self, keyspace: &str) -> Result<()> {
        for name in self.get_cutover_names(keyspace).await? {
            match self.global().delete(&paths::cutover_path(keyspace, &name), None).await {
                Ok(()) | Err(TopoError::NoNode { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
