//! A cluster in memory: a topology with tablets that do nothing but remember what they were told.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tabletclient::tm::{Result, TabletManager, TmError};
use topo::{TopoServer, Update, topoproto};
use vterrors::Code;
use vtproto::query::{Field, QueryResult, Row};
use vtproto::replicationdata::Status;
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{Keyspace, Tablet, TabletAlias, TabletType};
use vtproto::vttime;
use wrangler::logger::MemorySink;
use wrangler::{Config, Logger, Wrangler};

pub fn alias(uid: u32) -> TabletAlias {
    TabletAlias { cell: "zone1".into(), uid }
}

/// Tablets that remember their calls as `Method alias` and answer from what a test has set.
pub struct Tablets {
    topo: TopoServer,
    pub calls: Mutex<Vec<String>>,
    /// Answers to fail with, by `Method alias`.
    pub failures: Mutex<HashMap<String, TmError>>,
    /// Calls that never answer, by `Method alias`.
    pub hanging: Mutex<Vec<String>>,
    /// Positions, by uid.
    pub positions: Mutex<HashMap<u32, String>>,
    pub schemas: Mutex<HashMap<u32, tmd::SchemaDefinition>>,
    /// What the next preflights answer.
    pub preflights: Mutex<VecDeque<Result<tmd::PreflightSchemaResponse>>>,
    /// Results of statements.
    pub results: Mutex<HashMap<String, Result<QueryResult>>>,
    term: Mutex<i64>,
}

impl Tablets {
    fn call(&self, method: &str, tablet: &Tablet, detail: &str) -> Result<()> {
        let name = format!("{method} {}", topoproto::tablet_alias_string(tablet.alias.as_ref()));
        self.calls.lock().unwrap().push(if detail.is_empty() { name.clone() } else { format!("{name} {detail}") });
        match self.failures.lock().unwrap().get(&name) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// As [`Tablets::call`], for calls that may also hang.
    async fn slow(&self, method: &str, tablet: &Tablet, detail: &str) -> Result<()> {
        self.call(method, tablet, detail)?;
        let name = format!("{method} {}", topoproto::tablet_alias_string(tablet.alias.as_ref()));
        if self.hanging.lock().unwrap().contains(&name) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    /// The calls so far, and forgets them.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    pub fn fail(&self, call: &str, text: &str) {
        self.failures.lock().unwrap().insert(call.to_owned(), TmError::new(Code::Unknown, text));
    }

    fn position(&self, tablet: &Tablet) -> String {
        let uid = tablet.alias.as_ref().map_or(0, |alias| alias.uid);
        self.positions.lock().unwrap().get(&uid).cloned().unwrap_or_else(|| "MariaDB/0-100-7".to_owned())
    }

    /// What a tablet does when it becomes master: its own record, then the shard's.
    async fn become_master(&self, tablet: &Tablet) {
        let term = {
            let mut term = self.term.lock().unwrap();
            *term += 1;
            vttime::Time { seconds: *term, nanoseconds: 5 }
        };
        let alias = tablet.alias.clone().unwrap();
        self.topo
            .update_tablet_fields(&alias, |record| {
                record.set_type(TabletType::Master);
                record.master_term_start_time = Some(term);
                Ok(Update::Write)
            })
            .await
            .unwrap();
        let (topo, keyspace, shard) = (self.topo.clone(), tablet.keyspace.clone(), tablet.shard.clone());
        tokio::spawn(async move {
            topo.update_shard_fields(&keyspace, &shard, |info| {
                info.record.master_alias = Some(alias.clone());
                info.record.master_term_start_time = Some(term);
                Ok(Update::Write)
            })
            .await
            .unwrap();
        });
    }

    async fn become_replica(&self, tablet: &Tablet) {
        let alias = tablet.alias.clone().unwrap();
        self.topo
            .update_tablet_fields(&alias, |record| {
                if record.r#type() == TabletType::Master {
                    record.set_type(TabletType::Replica);
                    record.master_term_start_time = None;
                    return Ok(Update::Write);
                }
                Ok(Update::NoUpdateNeeded)
            })
            .await
            .unwrap();
    }
}

/// `select 1 as a, null as b` as MariaDB answers it.
pub fn one_and_null() -> QueryResult {
    QueryResult {
        fields: vec![
            Field { name: "a".into(), r#type: 263, column_length: 1, charset: 63, flags: 32897, ..Default::default() },
            Field { name: "b".into(), charset: 63, flags: 32896, ..Default::default() },
        ],
        rows_affected: 1,
        rows: vec![Row { lengths: vec![1, -1], values: "1".into() }],
        ..Default::default()
    }
}

#[async_trait::async_trait]
impl TabletManager for Tablets {
    async fn ping(&self, tablet: &Tablet, request: tmd::PingRequest) -> Result<tmd::PingResponse> {
        self.call("Ping", tablet, "")?;
        Ok(tmd::PingResponse { payload: request.payload })
    }
    async fn sleep(&self, tablet: &Tablet, request: tmd::SleepRequest) -> Result<tmd::SleepResponse> {
        self.call("Sleep", tablet, &request.duration.to_string())?;
        Ok(tmd::SleepResponse {})
    }
    async fn get_schema(&self, tablet: &Tablet, _: tmd::GetSchemaRequest) -> Result<tmd::GetSchemaResponse> {
        self.call("GetSchema", tablet, "")?;
        let uid = tablet.alias.as_ref().map_or(0, |alias| alias.uid);
        let schema = self.schemas.lock().unwrap().get(&uid).cloned().unwrap_or_default();
        Ok(tmd::GetSchemaResponse { schema_definition: Some(schema) })
    }
    async fn change_type(&self, tablet: &Tablet, request: tmd::ChangeTypeRequest) -> Result<tmd::ChangeTypeResponse> {
        self.call("ChangeType", tablet, request.tablet_type().as_str_name())?;
        Ok(tmd::ChangeTypeResponse {})
    }
    async fn refresh_state(&self, tablet: &Tablet, _: tmd::RefreshStateRequest) -> Result<tmd::RefreshStateResponse> {
        self.call("RefreshState", tablet, "")?;
        Ok(tmd::RefreshStateResponse {})
    }
    async fn run_health_check(
        &self,
        tablet: &Tablet,
        _: tmd::RunHealthCheckRequest,
    ) -> Result<tmd::RunHealthCheckResponse> {
        self.call("RunHealthCheck", tablet, "")?;
        Ok(tmd::RunHealthCheckResponse {})
    }
    async fn ignore_health_error(
        &self,
        tablet: &Tablet,
        request: tmd::IgnoreHealthErrorRequest,
    ) -> Result<tmd::IgnoreHealthErrorResponse> {
        self.call("IgnoreHealthError", tablet, &request.pattern)?;
        Ok(tmd::IgnoreHealthErrorResponse {})
    }
    async fn reload_schema(
        &self,
        tablet: &Tablet,
        request: tmd::ReloadSchemaRequest,
    ) -> Result<tmd::ReloadSchemaResponse> {
        self.call("ReloadSchema", tablet, &request.wait_position)?;
        Ok(tmd::ReloadSchemaResponse {})
    }
    async fn preflight_schema(
        &self,
        tablet: &Tablet,
        request: tmd::PreflightSchemaRequest,
    ) -> Result<tmd::PreflightSchemaResponse> {
        self.call("PreflightSchema", tablet, "")?;
        if let Some(answer) = self.preflights.lock().unwrap().pop_front() {
            return answer;
        }
        // Every statement changes something.
        let result = tmd::SchemaChangeResult {
            before_schema: None,
            after_schema: Some(tmd::SchemaDefinition { database_schema: "changed".into(), ..Default::default() }),
        };
        Ok(tmd::PreflightSchemaResponse { change_results: vec![result; request.changes.len()] })
    }
    async fn execute_fetch_as_dba(
        &self,
        tablet: &Tablet,
        request: tmd::ExecuteFetchAsDbaRequest,
    ) -> Result<tmd::ExecuteFetchAsDbaResponse> {
        let sql = String::from_utf8(request.query).unwrap();
        self.call("ExecuteFetchAsDba", tablet, &sql)?;
        let result = self.results.lock().unwrap().get(&sql).cloned().unwrap_or_else(|| Ok(QueryResult::default()))?;
        Ok(tmd::ExecuteFetchAsDbaResponse { result: Some(result) })
    }
    async fn execute_fetch_as_app(
        &self,
        tablet: &Tablet,
        request: tmd::ExecuteFetchAsAppRequest,
    ) -> Result<tmd::ExecuteFetchAsAppResponse> {
        let sql = String::from_utf8(request.query).unwrap();
        self.call("ExecuteFetchAsApp", tablet, &sql)?;
        let result = self.results.lock().unwrap().get(&sql).cloned().unwrap_or_else(|| Ok(QueryResult::default()))?;
        Ok(tmd::ExecuteFetchAsAppResponse { result: Some(result) })
    }
    async fn slave_status(&self, tablet: &Tablet, _: tmd::SlaveStatusRequest) -> Result<tmd::SlaveStatusResponse> {
        self.call("SlaveStatus", tablet, "")?;
        let status = Status { position: self.position(tablet), slave_io_running: true, ..Default::default() };
        Ok(tmd::SlaveStatusResponse { status: Some(status) })
    }
    async fn master_position(
        &self,
        tablet: &Tablet,
        _: tmd::MasterPositionRequest,
    ) -> Result<tmd::MasterPositionResponse> {
        self.call("MasterPosition", tablet, "")?;
        Ok(tmd::MasterPositionResponse { position: self.position(tablet) })
    }
    async fn reset_replication(
        &self,
        tablet: &Tablet,
        _: tmd::ResetReplicationRequest,
    ) -> Result<tmd::ResetReplicationResponse> {
        self.call("ResetReplication", tablet, "")?;
        Ok(tmd::ResetReplicationResponse {})
    }
    async fn init_master(&self, tablet: &Tablet, _: tmd::InitMasterRequest) -> Result<tmd::InitMasterResponse> {
        self.call("InitMaster", tablet, "")?;
        self.become_master(tablet).await;
        Ok(tmd::InitMasterResponse { position: self.position(tablet) })
    }
    async fn populate_reparent_journal(
        &self,
        tablet: &Tablet,
        request: tmd::PopulateReparentJournalRequest,
    ) -> Result<tmd::PopulateReparentJournalResponse> {
        self.slow("PopulateReparentJournal", tablet, &request.action_name).await?;
        Ok(tmd::PopulateReparentJournalResponse {})
    }
    async fn init_slave(&self, tablet: &Tablet, request: tmd::InitSlaveRequest) -> Result<tmd::InitSlaveResponse> {
        let parent = topoproto::tablet_alias_string(request.parent.as_ref());
        self.slow("InitSlave", tablet, &format!("{parent} {}", request.replication_position)).await?;
        self.become_replica(tablet).await;
        Ok(tmd::InitSlaveResponse {})
    }
    async fn demote_master(&self, tablet: &Tablet, _: tmd::DemoteMasterRequest) -> Result<tmd::DemoteMasterResponse> {
        self.call("DemoteMaster", tablet, "")?;
        Ok(tmd::DemoteMasterResponse { position: self.position(tablet) })
    }
    async fn undo_demote_master(
        &self,
        tablet: &Tablet,
        _: tmd::UndoDemoteMasterRequest,
    ) -> Result<tmd::UndoDemoteMasterResponse> {
        self.call("UndoDemoteMaster", tablet, "")?;
        Ok(tmd::UndoDemoteMasterResponse {})
    }
    async fn promote_slave_when_caught_up(
        &self,
        tablet: &Tablet,
        request: tmd::PromoteSlaveWhenCaughtUpRequest,
    ) -> Result<tmd::PromoteSlaveWhenCaughtUpResponse> {
        self.call("PromoteSlaveWhenCaughtUp", tablet, &request.position)?;
        self.become_master(tablet).await;
        Ok(tmd::PromoteSlaveWhenCaughtUpResponse { position: self.position(tablet) })
    }
    async fn set_master(&self, tablet: &Tablet, request: tmd::SetMasterRequest) -> Result<tmd::SetMasterResponse> {
        let parent = topoproto::tablet_alias_string(request.parent.as_ref());
        let force = if request.force_start_slave { " force" } else { "" };
        self.slow("SetMaster", tablet, &format!("{parent}{force}")).await?;
        self.become_replica(tablet).await;
        Ok(tmd::SetMasterResponse {})
    }
    async fn stop_replication_and_get_status(
        &self,
        tablet: &Tablet,
        _: tmd::StopReplicationAndGetStatusRequest,
    ) -> Result<tmd::StopReplicationAndGetStatusResponse> {
        self.call("StopReplicationAndGetStatus", tablet, "")?;
        let status = Status { position: self.position(tablet), slave_io_running: true, ..Default::default() };
        Ok(tmd::StopReplicationAndGetStatusResponse { status: Some(status) })
    }
    async fn promote_slave(&self, tablet: &Tablet, _: tmd::PromoteSlaveRequest) -> Result<tmd::PromoteSlaveResponse> {
        self.call("PromoteSlave", tablet, "")?;
        self.become_master(tablet).await;
        Ok(tmd::PromoteSlaveResponse { position: self.position(tablet) })
    }
}

/// A topology with the cell `zone1`, and commands over it.
pub struct Cluster {
    pub topo: TopoServer,
    pub tablets: Arc<Tablets>,
    wr: Wrangler,
}

/// What a command printed, and what it failed with.
pub struct Outcome {
    pub console: String,
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
    pub result: Result<(), wrangler::Error>,
}

impl Cluster {
    pub fn empty() -> Self {
        let topo = TopoServer::memory(&["zone1"]);
        let tablets = Arc::new(Tablets {
            topo: topo.clone(),
            calls: Mutex::default(),
            failures: Mutex::default(),
            hanging: Mutex::default(),
            positions: Mutex::default(),
            schemas: Mutex::default(),
            preflights: Mutex::default(),
            results: Mutex::default(),
            term: Mutex::new(1_574_000_000),
        });
        let config = Config { remote_operation_timeout: Duration::from_secs(5), ..Config::default() };
        let wr = Wrangler::new(topo.clone(), tablets.clone(), config);
        Self { topo, tablets, wr }
    }

    /// One unsharded keyspace with the three tablets of the walkthrough, none of them master yet.
    pub async fn with_tablets() -> Self {
        let cluster = Self::empty();
        cluster.topo.create_keyspace("commerce", &Keyspace::default()).await.unwrap();
        cluster.topo.ensure_vschema("commerce").await.unwrap();
        cluster.topo.create_shard("commerce", "0").await.unwrap();
        let types = [TabletType::Replica, TabletType::Replica, TabletType::Rdonly];
        for (uid, tablet_type) in (100..).zip(types) {
            let port = |base: i32| base + i32::try_from(uid).unwrap();
            let tablet = Tablet {
                alias: Some(alias(uid)),
                hostname: "<host>".into(),
                mysql_hostname: "<host>".into(),
                mysql_port: port(17000),
                port_map: BTreeMap::from([
                    ("vt".to_owned(), port(15000)),
                    ("grpc".to_owned(), port(16000)),
                    ("mysql".to_owned(), port(17000)),
                ]),
                keyspace: "commerce".into(),
                shard: "0".into(),
                r#type: tablet_type.into(),
                ..Default::default()
            };
            cluster.topo.create_tablet(&tablet).await.unwrap();
        }
        cluster.topo.rebuild_keyspace("commerce", &[]).await.unwrap();
        cluster
    }

    /// The same after `InitShardMaster -force commerce/0 zone1-100`.
    pub async fn with_master() -> Self {
        let cluster = Self::with_tablets().await;
        cluster.ok(&["InitShardMaster", "-force", "commerce/0", "zone1-100"]).await;
        cluster.tablets.take_calls();
        cluster
    }

    pub async fn run(&self, args: &[&str]) -> Outcome {
        let sink = Arc::new(MemorySink::default());
        let wr = self.wr.with_logger(Logger::new(sink.clone()));
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let result = wrangler::run_command(&wr, &args).await;
        Outcome {
            console: sink.console(),
            errors: sink.messages(vtproto::logutil::Level::Error),
            warnings: sink.messages(vtproto::logutil::Level::Warning),
            result,
        }
    }

    /// Runs what has to succeed, and returns its output.
    pub async fn ok(&self, args: &[&str]) -> String {
        let outcome = self.run(args).await;
        if let Err(error) = &outcome.result {
            panic!("{args:?} failed: {error}\n{}", outcome.console);
        }
        outcome.console
    }

    /// Runs what has to fail, and returns the text that a client sees.
    pub async fn err(&self, args: &[&str]) -> String {
        match self.run(args).await.result {
            Ok(()) => panic!("{args:?} succeeded"),
            Err(error) => error.to_vt_error().message().to_owned(),
        }
    }

    pub async fn master(&self) -> String {
        let shard = self.topo.get_shard("commerce", "0").await.unwrap();
        topoproto::tablet_alias_string(shard.master_alias())
    }

    pub async fn type_of(&self, uid: u32) -> TabletType {
        self.topo.get_tablet(&alias(uid)).await.unwrap().record.r#type()
    }
}
