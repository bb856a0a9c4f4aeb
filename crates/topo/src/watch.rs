//! Watches of records: the present value first, then each change.

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::Stream;
use vtproto::{
    topodata::{Shard, SrvKeyspace},
    vschema::SrvVSchema,
};

use crate::{
    conn::{Version, WatchData, WatchStream},
    error::Result,
    paths,
    record::{self, TopoRecord},
    server::TopoServer,
};

/// A stream of the values of one record. It lives on while the topology server is away, and ends after
/// an error item: `NoNode` when the record was deleted. Dropping it ends the watch.
pub struct Watch<M> {
    first: Option<WatchData>,
    changes: Option<WatchStream>,
    full_path: String,
    message: PhantomData<fn() -> M>,
}

#[allow(private_bounds, reason = "the set of record types is closed")]
impl<M: TopoRecord> Watch<M> {
    async fn start(topo: &TopoServer, cell: &str, path: &str) -> Result<Self> {
        let conn = topo.conn_for_cell(cell).await?;
        let (first, changes) = conn.watch(path).await?;
        Ok(Self { first: Some(first), changes: Some(changes), full_path: conn.full_path(path), message: PhantomData })
    }

    /// [`Watch::next`] with the version of the value.
    pub async fn next_versioned(&mut self) -> Option<Result<(M, Version)>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_versioned(cx)).await
    }

    /// The present value, then each change; `None` after the final error.
    pub async fn next(&mut self) -> Option<Result<M>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn poll_versioned(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<(M, Version)>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(self.decoded(Ok(first))));
        }
        let Some(changes) = &mut self.changes else { return Poll::Ready(None) };
        let next = ready!(Pin::new(changes).poll_next(cx));
        Poll::Ready(next.map(|data| self.decoded(data)))
    }

    fn decoded(&mut self, data: Result<WatchData>) -> Result<(M, Version)> {
        let decode = |data: WatchData| Ok((record::decode(&self.full_path, &data.contents)?.0, data.version));
        let value = data.and_then(decode);
        if value.is_err() {
            self.changes = None;
        }
        value
    }
}

impl<M: TopoRecord> Stream for Watch<M> {
    type Item = Result<M>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_versioned(cx).map(|next| next.map(|data| data.map(|(value, _)| value)))
    }
}

impl TopoServer {
    /// Fails with `NoNode` when there is no record yet.
    pub async fn watch_srv_keyspace(&self, cell: &str, keyspace: &str) -> Result<Watch<SrvKeyspace>> {
        Watch::start(self, cell, &paths::srv_keyspace_path(keyspace)).await
    }

    /// Fails with `NoNode` when there is no record yet.
    pub async fn watch_srv_vschema(&self, cell: &str) -> Result<Watch<SrvVSchema>> {
        Watch::start(self, cell, paths::SRV_VSCHEMA_FILE).await
    }

    /// Fails with `NoNode` when there is no record yet.
    pub async fn watch_shard(&self, keyspace: &str, shard: &str) -> Result<Watch<Shard>> {
        Watch::start(self, crate::server::GLOBAL_CELL, &paths::shard_path(keyspace, shard)).await
    }
}
