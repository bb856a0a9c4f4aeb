//! Which vtgates serve a cell, and by which versions of the serving records each of them routes.
//!
//! A vtgate registers in its cell with a key that lives as long as it does, and rewrites it when it
//! acts on a newer record. A coordinator that changed a record waits until nobody acts on the old one.
//! Invariant: a version is told only after every later statement is routed by it. A vtgate that tells
//! nothing about a keyspace has not read it: what it reads later is what is there then.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use vtproto::cutover::GateAck;

use crate::{
    conn::{Conn, LeasedKey, Version},
    error::{Result, TopoError},
    keyspace::READ_CONCURRENCY,
    paths::{self, GATES_DIR},
    record::{self, UnknownFields},
    server::{TopoServer, read},
};

/// The place of one vtgate. Dropping it takes it back.
pub struct GateRegistration {
    key: Box<dyn LeasedKey>,
}

impl GateRegistration {
    /// Tells what the gate acts on, also after the place was lost.
    pub async fn update(&self, ack: &GateAck) -> Result<Version> {
        self.key.put(record::encode(ack, &UnknownFields::default())).await
    }

    /// Resolves when the place is lost, as the topology server was not reached for long: tell again.
    pub async fn lost(&self) {
        self.key.lost().await;
    }
}

impl TopoServer {
    /// Registers the gate `ack.gate` in a cell.
    pub async fn register_gate(&self, cell: &str, ack: &GateAck) -> Result<GateRegistration> {
        let conn = self.conn_for_cell(cell).await?;
        let registration = GateRegistration { key: conn.leased_key(&paths::gate_path(&ack.gate)) };
        registration.update(ack).await?;
        Ok(registration)
    }

    /// What every vtgate of a cell acts on, by name.
    pub async fn get_gate_acks(&self, cell: &str) -> Result<Vec<GateAck>> {
        let conn = self.conn_for_cell(cell).await?;
        let names = self.names(&conn, GATES_DIR).await?;
        stream::iter(names)
            .map(|name| {
                let conn = conn.clone();
                async move {
                    match read::<GateAck>(&*conn, &paths::gate_path(&name)).await {
                        Ok((ack, _, _)) => Ok(Some(ack)),
                        Err(TopoError::NoNode { .. }) => Ok(None),
                        Err(error) => Err(error),
                    }
                }
            })
            .buffered(READ_CONCURRENCY)
            .boxed()
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }

    /// Waits until no vtgate of a cell acts on an older SrvKeyspace than `version`. The names of those
    /// that still do when the time is over; a gate that goes away is not waited for.
    pub async fn wait_for_gate_acks(
        &self,
        cell: &str,
        keyspace: &str,
        version: Version,
        timeout: Duration,
    ) -> Result<Vec<String>> {
        let behind = |ack: &GateAck| ack.srv_keyspaces.get(keyspace).is_some_and(|&seen| seen < version.0);
        let conn = self.conn_for_cell(cell).await?;
        let acks = self.get_gate_acks(cell).await?;
        let waits = acks.into_iter().filter(behind).map(|ack| {
            let conn = conn.clone();
            async move {
                let caught_up = tokio::time::timeout(timeout, follow(&conn, &ack.gate, |ack| !behind(ack))).await;
                (!matches!(caught_up, Ok(Ok(())))).then_some(ack.gate)
            }
        });
        let silent = futures::future::join_all(waits).await;
        Ok(silent.into_iter().flatten().collect())
    }
}

/// Follows the key of one gate until it says what is wanted, or is gone.
async fn follow(conn: &Arc<dyn Conn>, gate: &str, wanted: impl Fn(&GateAck) -> bool) -> Result<()> {
    let path = paths::gate_path(gate);
    let (mut data, mut changes) = match conn.watch(&path).await {
        Ok(watch) => watch,
        Err(TopoError::NoNode { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    loop {
        let (ack, _) = record::decode::<GateAck>(&conn.full_path(&path), &data.contents)?;
        if wanted(&ack) {
            return Ok(());
        }
        data = match changes.next().await {
            Some(Ok(data)) => data,
            Some(Err(TopoError::NoNode { .. })) => return Ok(()),
            Some(Err(error)) => return Err(error),
            None => return Err(TopoError::Interrupted { path: conn.full_path(&path) }),
        };
    }
}
