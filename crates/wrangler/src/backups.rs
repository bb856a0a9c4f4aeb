//! The list of backups of a shard. Only the file storage can be listed so far.

use std::path::{Component, Path};

use crate::config::BackupStorage;
use crate::error::{Result, bail, err};

/// The names of a shard's backups, oldest first: they begin with their time.
pub(crate) async fn list(storage: &BackupStorage, keyspace: &str, shard: &str) -> Result<Vec<String>> {
    let dir = root(storage)?.join(plain(keyspace)?).join(plain(shard)?);
    let mut entries = match tokio::fs::read_dir(&dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => bail!("cannot list {}: {error}", dir.display()),
    };
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(|e| err!("cannot list {}: {e}", dir.display()))? {
        if entry.file_type().await.is_ok_and(|kind| kind.is_dir()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Removes one backup with its files.
pub(crate) async fn remove(storage: &BackupStorage, keyspace: &str, shard: &str, name: &str) -> Result {
    let dir = root(storage)?.join(plain(keyspace)?).join(plain(shard)?).join(plain(name)?);
    tokio::fs::remove_dir_all(&dir).await.map_err(|error| err!("cannot remove {}: {error}", dir.display()))
}

fn root(storage: &BackupStorage) -> Result<&Path> {
    match storage {
        BackupStorage::None => bail!("no registered implementation of BackupStorage"),
        BackupStorage::NotBuilt { implementation } => bail!("backup storage {implementation} is not built yet"),
        BackupStorage::File { root } if root.as_os_str().is_empty() => bail!("-file_backup_storage_root is not set"),
        BackupStorage::File { root } => Ok(root),
    }
}

/// One path element and nothing else: a name must not lead out of the storage.
fn plain(name: &str) -> Result<&str> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) => Ok(name),
        _ => bail!("{name:?} is not a name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn backups_are_the_directories_of_the_shard() {
        let root = std::env::temp_dir().join(format!("wrangler-backups-{}", std::process::id()));
        let storage = BackupStorage::from_flags("file", root.to_str().unwrap());
        assert_eq!(list(&storage, "ks", "0").await.unwrap(), [] as [String; 0]);
        for name in ["2026-01-02.030405.zone1-0000000101", "2026-01-01.030405.zone1-0000000101"] {
            std::fs::create_dir_all(root.join("ks/0").join(name)).unwrap();
        }
        let names = list(&storage, "ks", "0").await.unwrap();
        assert_eq!(names, ["2026-01-01.030405.zone1-0000000101", "2026-01-02.030405.zone1-0000000101"]);
        remove(&storage, "ks", "0", &names[0]).await.unwrap();
        assert_eq!(list(&storage, "ks", "0").await.unwrap(), names[1..]);
        for bad in ["..", "a/b", "/etc", ""] {
            assert!(remove(&storage, "ks", "0", bad).await.is_err(), "{bad}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
