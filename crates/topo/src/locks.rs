//! Locks over keyspaces and shards, as guards which are the proof of holding them.
//!
//! A function that needs a lock takes the guard, so that the check "is it locked" cannot be forgotten;
//! what is left to check at run time is that the guard is of the right keyspace and not lost.
//! Invariants: a guard that goes out of scope releases its lock; nobody waits for a lock longer than
//! `remote_operation_timeout`.

use chrono::{Local, SecondsFormat};
use serde::Serialize;
use tracing::info;

use crate::{
    conn::LockDescriptor,
    error::{Result, TopoError},
    paths,
    server::TopoServer,
};

/// What a lock key says about its holder, for operators.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LockContents<'a> {
    action: &'a str,
    host_name: String,
    user_name: String,
    time: String,
    status: &'static str,
}

fn lock_contents(action: &str) -> String {
    let uid = nix::unistd::Uid::current();
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let contents = LockContents {
        action,
        host_name: host,
        user_name: user,
        time: Local::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        status: "Running",
    };
    let text = serde_json::to_string_pretty(&contents).unwrap_or_else(|_| action.to_owned());
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// What both kinds of locks share.
struct Held {
    descriptor: Box<dyn LockDescriptor>,
    /// `keyspace ks` or `shard ks/0`, as messages name it.
    what: String,
    action: String,
}

impl Held {
    fn check_not_lost(&self) -> Result<()> {
        if self.descriptor.is_lost() {
            return Err(TopoError::LockLost { path: self.what.clone() });
        }
        Ok(())
    }

    async fn unlock(self) -> Result<()> {
        info!(what = self.what, action = self.action, "unlocking");
        let what = self.what;
        self.descriptor.unlock().await.map_err(|error| error.wrap(format_args!("unlock of {what} failed")))
    }
}

/// The lock of one keyspace, held until [`KeyspaceLock::unlock`] or until it goes out of scope.
pub struct KeyspaceLock {
    keyspace: String,
    held: Held,
}

impl KeyspaceLock {
    pub fn keyspace(&self) -> &str {
        &self.keyspace
    }

    /// Whether this is the lock of `keyspace` and not known to be lost. Does not ask the server.
    pub fn check_held(&self, keyspace: &str) -> Result<()> {
        if self.keyspace != keyspace {
            return Err(TopoError::other(format!("keyspace {keyspace} is not locked (no lockInfo in map)")));
        }
        self.held.check_not_lost()
    }

    /// Asks the server whether the lock is still held, and extends it.
    pub async fn check(&self) -> Result<()> {
        self.held.descriptor.check().await
    }

    /// Whether this process knows that the lock is gone.
    pub fn is_lost(&self) -> bool {
        self.held.descriptor.is_lost()
    }

    pub async fn unlock(self) -> Result<()> {
        self.held.unlock().await
    }
}

/// The lock of one shard, held until [`ShardLock::unlock`] or until it goes out of scope.
pub struct ShardLock {
    keyspace: String,
    shard: String,
    held: Held,
}

impl ShardLock {
    pub fn keyspace(&self) -> &str {
        &self.keyspace
    }

    pub fn shard(&self) -> &str {
        &self.shard
    }

    /// Whether this is the lock of the shard, asked in memory and then of the server, which extends it.
    pub async fn check_held(&self, keyspace: &str, shard: &str) -> Result<()> {
        if self.keyspace != keyspace || self.shard != shard {
            return Err(TopoError::other(format!("shard {keyspace}/{shard} is not locked (no lockInfo in map)")));
        }
        self.held.check_not_lost()?;
        self.held.descriptor.check().await
    }

    /// Whether this process knows that the lock is gone.
    pub fn is_lost(&self) -> bool {
        self.held.descriptor.is_lost()
    }

    pub async fn unlock(self) -> Result<()> {
        self.held.unlock().await
    }
}

impl TopoServer {
    /// Takes the lock of a keyspace whose record exists. `action` tells others what it is held for.
    pub async fn lock_keyspace(&self, keyspace: &str, action: &str) -> Result<KeyspaceLock> {
        let held = self.lock(&paths::keyspace_dir(keyspace), format!("keyspace {keyspace}"), action).await?;
        Ok(KeyspaceLock { keyspace: keyspace.to_owned(), held })
    }

    /// Takes the lock of a shard whose record exists.
    pub async fn lock_shard(&self, keyspace: &str, shard: &str, action: &str) -> Result<ShardLock> {
        let dir = paths::shard_dir(keyspace, shard);
        let held = self.lock(&dir, format!("shard {keyspace}/{shard}"), action).await?;
        Ok(ShardLock { keyspace: keyspace.to_owned(), shard: shard.to_owned(), held })
    }

    async fn lock(&self, dir: &str, what: String, action: &str) -> Result<Held> {
        info!(what, action, "locking");
        let timeout = self.options().remote_operation_timeout;
        let descriptor = self.global().lock(dir, &lock_contents(action), timeout).await?;
        Ok(Held { descriptor, what, action: action.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use vtproto::topodata::Keyspace;

    use super::*;

    #[test]
    fn the_key_of_a_lock_tells_who_and_what() {
        let text = lock_contents("InitShardMaster(<a>&)");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "{");
        assert_eq!(lines[1], "  \"Action\": \"InitShardMaster(\\u003ca\\u003e\\u0026)\",");
        assert!(lines[2].starts_with("  \"HostName\": \""));
        assert!(lines[3].starts_with("  \"UserName\": \""));
        assert!(lines[4].starts_with("  \"Time\": \"20"));
        assert_eq!(lines[5], "  \"Status\": \"Running\"");
        assert_eq!(lines[6], "}");
    }

    #[tokio::test]
    async fn a_guard_proves_its_own_keyspace_only() {
        let topo = TopoServer::memory(&["zone1"]);
        assert!(topo.lock_keyspace("ks", "Test").await.err().expect("no record").is_no_node());
        for keyspace in ["ks", "other"] {
            topo.create_keyspace(keyspace, &Keyspace::default()).await.expect("new");
        }
        let lock = topo.lock_keyspace("ks", "Test").await.expect("free");
        lock.check_held("ks").expect("held");
        let error = lock.check_held("other").expect_err("another keyspace");
        assert_eq!(error.to_string(), "keyspace other is not locked (no lockInfo in map)");
        let mut other = topo.get_keyspace("other").await.expect("there");
        assert!(topo.update_keyspace(&lock, &mut other).await.is_err());
        lock.unlock().await.expect("unlocked");
        topo.lock_keyspace("ks", "Test").await.expect("free again");
    }
}
