//! `alter vschema`: changes a keyspace's vschema in the topology.

use vschema::Command;
use vterrors::{Code, Result, VtError};

use super::Executor;
use crate::caller::Caller;

impl Executor {
    /// Whether the caller may change the vschema and the cluster's metadata.
    pub(super) fn check_vschema_rights(&self, caller: &Caller) -> Result<()> {
        let allowed = &self.parts.config.vschema_ddl_users;
        if allowed.iter().any(|user| user == "%" || user == caller.username()) {
            return Ok(());
        }
        Err(VtError::new(Code::PermissionDenied, "not authorized to perform vschema operations"))
    }

    /// Applies the change to the record and to every cell. The statement returns when our own plans
    /// follow it.
    pub(super) async fn vschema_ddl(&self, caller: &Caller, keyspace: &str, command: &Command) -> Result<()> {
        self.check_vschema_rights(caller)?;
        let topo = &self.parts.topo;
        let lock = topo.lock_keyspace(keyspace, "alter vschema").await?;
        let outcome = async {
            let mut record = match topo.get_vschema(keyspace).await {
                Ok(record) => record,
                // A keyspace that has none yet.
                Err(error) if error.is_no_node() => Default::default(),
                Err(error) => return Err(error.into()),
            };
            vschema::apply(&mut record, keyspace, command)?;
            topo.save_vschema(keyspace, &record).await?;
            topo.rebuild_srv_vschema(&[]).await?;
            Ok::<_, VtError>(record)
        }
        .await;
        if let Err(error) = lock.unlock().await {
            tracing::warn!(keyspace, "the keyspace lock could not be released: {error}");
        }
        let record = outcome?;
        // The watch will bring the same; clients need not wait for it.
        let mut source = self.parts.vschema.current().source.clone();
        source.keyspaces.insert(keyspace.to_string(), record);
        self.parts.vschema.set(source);
        self.parts.plans.clear();
        Ok(())
    }
}
