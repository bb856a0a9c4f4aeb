//! One tablet as a clone talks to it: SQL of administration, streams of rows, what its server is.
//!
//! Two ways lead to a tablet's mysqld. Rows stream through the query service, with flow control from here to mysqld.
//! Small results and writes go through ExecuteFetchAsApp, which passes SQL on unread.

use std::sync::Arc;

use tabletclient::{QueryService, ResultStream};
use topo::topoproto;
use vterrors::{Code, Result, VtError};
use vtproto::query::{
    BoundQuery, ExecuteOptions, QueryResult, StreamExecuteRequest, Target, VtGateCallerId, execute_options,
};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{Tablet, TabletType};

use crate::env::WorkerEnv;
use crate::rows;
use crate::sql::{Dialect, TIME_ZONE};

/// Most rows of one result of administration.
const MAX_ROWS: u64 = 1_000_000;

/// A tablet and the connection to it.
#[derive(Clone)]
pub struct Endpoint {
    env: Arc<WorkerEnv>,
    pub tablet: Tablet,
    target: Target,
    service: Arc<dyn QueryService>,
    pub dialect: Dialect,
    /// The database of its keyspace.
    pub db_name: String,
}

impl Endpoint {
    /// Connects to a tablet that serves as `kind`.
    ///
    /// # Errors
    /// It has no address, or does not answer.
    pub async fn connect(env: &Arc<WorkerEnv>, tablet: &Tablet, kind: TabletType) -> Result<Self> {
        let service = tabletclient::grpc::dial(tablet, &env.dial)?;
        let target = Target {
            keyspace: tablet.keyspace.clone(),
            shard: tablet.shard.clone(),
            tablet_type: kind.into(),
            ..Target::default()
        };
        let db_name = topoproto::tablet_db_name(tablet);
        let mut endpoint =
            Self { env: env.clone(), tablet: tablet.clone(), target, service, dialect: Dialect::Other, db_name };
        let version = endpoint.fetch("select version()").await?;
        endpoint.dialect = Dialect::of_version(&version.rows.first().map(|row| rows::text(row, 0)).unwrap_or_default());
        Ok(endpoint)
    }

    /// `zone1-0000000102`
    pub fn alias(&self) -> String {
        topoproto::tablet_alias_string(self.tablet.alias.as_ref())
    }

    /// Whether it was taken out of service to be read.
    pub fn is_drained(&self) -> bool {
        self.target.tablet_type() == TabletType::Drained
    }

    /// Runs one statement as the application's user, however long it takes.
    ///
    /// # Errors
    /// mysqld's, or the tablet's.
    pub async fn execute(&self, sql: Vec<u8>) -> Result<QueryResult> {
        let request = tmd::ExecuteFetchAsAppRequest { query: sql, max_rows: MAX_ROWS };
        let answer = self.env.tmc.execute_fetch_as_app(&self.tablet, request).await?;
        Ok(answer.result.unwrap_or_default())
    }

    /// Runs a small statement of administration.
    ///
    /// # Errors
    /// As [`Endpoint::execute`], and its time is over.
    pub async fn fetch(&self, sql: impl Into<Vec<u8>>) -> Result<QueryResult> {
        self.env.bounded(self.execute(sql.into())).await
    }

    /// Rows of a statement as they come, times in [`TIME_ZONE`].
    ///
    /// # Errors
    /// The tablet refuses.
    pub async fn stream(&self, sql: Vec<u8>, transaction_id: i64) -> Result<ResultStream> {
        let (name, value) = TIME_ZONE;
        let options = ExecuteOptions {
            included_fields: execute_options::IncludedFields::TypeAndName.into(),
            workload: execute_options::Workload::Olap.into(),
            skip_query_plan_cache: true,
            session_settings: vec![format!("{name} = {value}")],
            ..ExecuteOptions::default()
        };
        let sql = String::from_utf8(sql)
            .map_err(|_| VtError::new(Code::Internal, "the text of a statement is not valid UTF-8"))?;
        let username = &self.env.settings.username;
        let caller =
            (!username.is_empty()).then(|| VtGateCallerId { username: username.clone(), ..VtGateCallerId::default() });
        let request = StreamExecuteRequest {
            target: Some(self.target.clone()),
            query: Some(BoundQuery { sql, ..BoundQuery::default() }),
            options: Some(options),
            immediate_caller_id: caller,
            transaction_id,
            ..StreamExecuteRequest::default()
        };
        self.env.bounded(self.service.stream_execute(request)).await
    }

    pub fn service(&self) -> &Arc<dyn QueryService> {
        &self.service
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn env(&self) -> &Arc<WorkerEnv> {
        &self.env
    }
}
