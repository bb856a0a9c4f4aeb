//! VSchema of each keyspace, routing rules, and their union per cell, which vtgate reads (SrvVSchema).
//!
//! All writes are blind: the last writer wins. After each edit the SrvVSchema has to be rebuilt.

use futures::{StreamExt, TryStreamExt, stream};
use tracing::warn;
use vtproto::vschema::{Keyspace, RoutingRules, SrvVSchema};

use crate::{
    conn::Version,
    error::{Result, TopoError},
    keyspace::READ_CONCURRENCY,
    paths::{self, ROUTING_RULES_FILE, SRV_VSCHEMA_FILE},
    record::{self, UnknownFields},
    server::{TopoServer, read},
};

impl TopoServer {
    pub async fn get_vschema(&self, keyspace: &str) -> Result<Keyspace> {
        Ok(read(&**self.global(), &paths::vschema_path(keyspace)).await?.0)
    }

    /// Writes whatever is there, or creates; the keyspace need not exist.
    pub async fn save_vschema(&self, keyspace: &str, vschema: &Keyspace) -> Result<()> {
        let contents = record::encode(vschema, &UnknownFields::default());
        self.global().update(&paths::vschema_path(keyspace), contents, None).await.map(drop)
    }

    pub async fn delete_vschema(&self, keyspace: &str) -> Result<()> {
        self.global().delete(&paths::vschema_path(keyspace), None).await
    }

    /// Makes sure that a keyspace has a VSchema, blank if need be, and that every cell knows it.
    pub async fn ensure_vschema(&self, keyspace: &str) -> Result<()> {
        match self.get_vschema(keyspace).await {
            Ok(_) => {}
            Err(TopoError::NoNode { .. }) => {
                let contents = record::encode(&Keyspace::default(), &UnknownFields::default());
                // Created, not written: a VSchema that appears meanwhile must not be blanked.
                match self.global().create(&paths::vschema_path(keyspace), contents).await {
                    Ok(_) | Err(TopoError::NodeExists { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
        self.rebuild_srv_vschema(&[]).await
    }

    /// The routing rules; none when there is no record.
    pub async fn get_routing_rules(&self) -> Result<RoutingRules> {
        match read(&**self.global(), ROUTING_RULES_FILE).await {
            Ok((rules, _, _)) => Ok(rules),
            Err(TopoError::NoNode { .. }) => Ok(RoutingRules::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes whatever is there; rules without an entry are deleted.
    pub async fn save_routing_rules(&self, rules: &RoutingRules) -> Result<()> {
        let contents = record::encode(rules, &UnknownFields::default());
        if !contents.is_empty() {
            return self.global().update(ROUTING_RULES_FILE, contents, None).await.map(drop);
        }
        match self.global().delete(ROUTING_RULES_FILE, None).await {
            Ok(()) | Err(TopoError::NoNode { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub async fn get_srv_vschema(&self, cell: &str) -> Result<SrvVSchema> {
        let conn = self.conn_for_cell(cell).await?;
        Ok(read(&*conn, SRV_VSCHEMA_FILE).await?.0)
    }

    /// With the version that a vtgate acknowledges when it acts on this value.
    pub async fn get_srv_vschema_version(&self, cell: &str) -> Result<(SrvVSchema, Version)> {
        let conn = self.conn_for_cell(cell).await?;
        let (srv_vschema, _, version) = read(&*conn, SRV_VSCHEMA_FILE).await?;
        Ok((srv_vschema, version))
    }

    /// Writes whatever is there, or creates.
    pub async fn update_srv_vschema(&self, cell: &str, value: &SrvVSchema) -> Result<()> {
        let conn = self.conn_for_cell(cell).await?;
        let contents = record::encode(value, &UnknownFields::default());
        conn.update(SRV_VSCHEMA_FILE, contents, None).await.map(drop)
    }

    pub async fn delete_srv_vschema(&self, cell: &str) -> Result<()> {
        let conn = self.conn_for_cell(cell).await?;
        conn.delete(SRV_VSCHEMA_FILE, None).await
    }

    /// Writes the VSchemas of all keyspaces and the routing rules to some cells (none given: to all).
    /// Every cell is tried; the last failure is returned.
    pub async fn rebuild_srv_vschema(&self, cells: &[String]) -> Result<()> {
        let cells = match cells {
            [] => {
                let known = self.get_known_cells().await;
                known.map_err(|error| error.wrap("GetKnownCells failed"))?
            }
            cells => cells.to_vec(),
        };
        let keyspaces = self.get_keyspaces().await.map_err(|error| error.wrap("GetKeyspaces failed"))?;
        let vschemas = stream::iter(keyspaces)
            .map(|keyspace| async move {
                match self.get_vschema(&keyspace).await {
                    Ok(vschema) => Ok((keyspace, vschema)),
                    Err(TopoError::NoNode { .. }) => Ok((keyspace, Keyspace::default())),
                    Err(error) => Err(error.wrap(format_args!("GetVSchema({keyspace}) failed"))),
                }
            })
            .buffer_unordered(READ_CONCURRENCY)
            // Boxed, or the compiler cannot see that the future of a caller is Send.
            .boxed()
            .try_collect()
            .await?;
        let rules = self.get_routing_rules().await.map_err(|error| error.wrap("GetRoutingRules failed"))?;
        let value = SrvVSchema { keyspaces: vschemas, routing_rules: Some(rules) };
        let mut outcome = Ok(());
        for cell in &cells {
            if let Err(error) = self.update_srv_vschema(cell, &value).await {
                warn!(cell, %error, "cannot write SrvVSchema");
                outcome = Err(error.wrap(format_args!("UpdateSrvVSchema({cell}) failed")));
            }
        }
        outcome
    }
}
