//! The etcd backend (being written).
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    conn::Conn,
    error::{Result, TopoError},
    server::{Factory, TopoOptions},
};

pub(crate) struct EtcdFactory;

impl EtcdFactory {
    pub(crate) fn new(_options: TopoOptions) -> Result<Self> {
        Ok(Self)
    }
}

#[async_trait]
impl Factory for EtcdFactory {
    async fn create(&self, _cell: &str, _server_address: &str, _root: &str) -> Result<Arc<dyn Conn>> {
        Err(TopoError::other("the etcd backend is not there yet"))
    }
}
