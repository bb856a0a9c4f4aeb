//! A cluster in memory: a topology with tablets that do nothing but remember what they were told.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use servenv::failpoint::{Action, Failpoints};
use tabletclient::cutover::Cutover;
use tabletclient::tm::{Result, TabletManager, TmError};
use topo::{TopoServer, Update, memory::MemoryStore, topoproto};
use vterrors::Code;
use vtproto::cutover;
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
    /// Answers to fail with, by `Method alias`, or by that and what else is remembered of the call.
    pub failures: Mutex<HashMap<String, TmError>>,
    /// Calls with which a tablet dies, by `Method alias`.
    pub deadly: Mutex<Vec<String>>,
    /// Tablets that do not answer.
    pub dead: Mutex<BTreeSet<u32>>,
    /// How far away tablets are: how long they take to tell positions.
    pub distance: Mutex<Duration>,
    /// Calls that never answer, by `Method alias`.
    pub hanging: Mutex<Vec<String>>,
    /// How long the next waits for a position take.
    pub waits: Mutex<VecDeque<Duration>>,
    /// Positions, by uid.
    pub positions: Mutex<HashMap<u32, String>>,
    pub schemas: Mutex<HashMap<u32, tmd::SchemaDefinition>>,
    /// What the next preflights answer.
    pub preflights: Mutex<VecDeque<Result<tmd::PreflightSchemaResponse>>>,
    /// Results of statements.
    pub results: Mutex<HashMap<String, Result<QueryResult>>>,
    /// Rows of `_vt.vreplication`, by uid of the tablet.
    pub streams: Mutex<BTreeMap<u32, Vec<Stream>>>,
    /// Tablets that know no gates, as those of Vitess.
    pub gateless: Mutex<Vec<u32>>,
    /// Tablets that lose their gates once they are fenced.
    pub forgetful: Mutex<Vec<u32>>,
    /// Tablets whose mysqld refuses writes.
    pub read_only: Mutex<BTreeSet<u32>>,
    /// Tablets whose answer to the next fence is lost.
    pub unheard: Mutex<Vec<u32>>,
    /// The gate of a tablet: id and whether it is fenced.
    pub gates: Mutex<HashMap<u32, (String, bool)>>,
    /// How often a gate finds an open transaction.
    pub busy: Mutex<HashMap<u32, u32>>,
    term: Mutex<i64>,
}

/// A row of `_vt.vreplication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub id: u32,
    pub workflow: String,
    pub source: String,
    pub pos: String,
    pub state: String,
    pub db_name: String,
}

impl Tablets {
    /// Enters a row, as SplitClone does.
    pub fn add_stream(&self, tablet: u32, id: u32, source: &str) {
        let stream = Stream {
            id,
            workflow: "SplitClone".into(),
            source: source.into(),
            pos: "MariaDB/0-1-1".into(),
            state: "Running".into(),
            db_name: "vt_customer".into(),
        };
        self.streams.lock().unwrap().entry(tablet).or_default().push(stream);
    }

    pub fn set_stream_state(&self, tablet: u32, id: u32, state: &str) {
        let mut streams = self.streams.lock().unwrap();
        let stream = streams.get_mut(&tablet).and_then(|rows| rows.iter_mut().find(|row| row.id == id));
        stream.expect("there is such a stream").state = state.into();
    }

    pub fn streams_of(&self, tablet: u32) -> Vec<(u32, String, String)> {
        let streams = self.streams.lock().unwrap();
        let rows = streams.get(&tablet).into_iter().flatten();
        rows.map(|row| (row.id, row.source.clone(), row.state.clone())).collect()
    }

    fn gated(&self, tablet: &Tablet) -> Result<()> {
        let uid = tablet.alias.as_ref().map_or(0, |alias| alias.uid);
        if self.gateless.lock().unwrap().contains(&uid) {
            return Err(TmError::new(Code::Unimplemented, "unknown service cutover.Cutover"));
        }
        Ok(())
    }

    /// Runs the few statements that commands send.
    fn run_on_streams(&self, uid: u32, query: &str) -> QueryResult {
        let mut streams = self.streams.lock().unwrap();
        let rows = streams.entry(uid).or_default();
        if query.starts_with("select * from _vt.vreplication where db_name=") {
            return stream_rows(rows);
        }
        if let Some(id) = query.strip_prefix("delete from _vt.vreplication where id=") {
            let id: u32 = id.parse().unwrap();
            rows.retain(|row| row.id != id);
            return QueryResult::default();
        }
        if let Some(update) = query.strip_prefix("update _vt.vreplication set ") {
            let (changes, id) = update.split_once(" where id=").expect("one row");
            let id: u32 = id.parse().unwrap();
            let row = rows.iter_mut().find(|row| row.id == id).expect("a prepared stream");
            for change in changes.split(", ") {
                match change.split_once('=').expect("a column") {
                    ("pos", position) => row.pos = position.trim_matches('\'').to_owned(),
                    ("state", state) => row.state = state.trim_matches('\'').to_owned(),
                    ("stop_pos", "NULL") => {}
                    other => panic!("{other:?}"),
                }
            }
            return QueryResult::default();
        }
        let values = query.split_once(" values ").unwrap_or_else(|| panic!("{query}")).1;
        // Ids that a table has given away are not given again.
        let first = 1 + rows.iter().map(|row| row.id).max().unwrap_or(0).max(100);
        for (id, value) in (first..).zip(values.trim_matches(['(', ')']).split("), (")) {
            let columns: Vec<String> = sql_values(value);
            rows.push(Stream {
                id,
                workflow: columns[0].clone(),
                source: columns[1].clone(),
                pos: columns[2].clone(),
                state: columns[7].clone(),
                db_name: columns[8].clone(),
            });
        }
        QueryResult { insert_id: u64::from(first), ..Default::default() }
    }
}

/// The columns of `'a', 1, 'b\'c'`.
fn sql_values(text: &str) -> Vec<String> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let column = columns.last_mut().expect("never empty");
        match c {
            '\\' if quoted => column.extend(chars.next()),
            '\'' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            ' ' if !quoted => {}
            c => column.push(c),
        }
    }
    columns
}

/// `select *` as MariaDB answers it.
fn stream_rows(rows: &[Stream]) -> QueryResult {
    use vtproto::query::Type::{Int32, Int64, Varbinary};
    let columns = [
        ("id", Int32),
        ("workflow", Varbinary),
        ("source", Varbinary),
        ("pos", Varbinary),
        ("stop_pos", Varbinary),
        ("max_tps", Int64),
        ("max_replication_lag", Int64),
        ("cell", Varbinary),
        ("tablet_types", Varbinary),
        ("time_updated", Int64),
        ("transaction_timestamp", Int64),
        ("state", Varbinary),
        ("message", Varbinary),
        ("db_name", Varbinary),
    ];
    let fields = columns
        .iter()
        .map(|(name, r#type)| Field { name: (*name).into(), r#type: (*r#type).into(), ..Default::default() })
        .collect();
    let rows = rows
        .iter()
        .map(|row| {
            let id = row.id.to_string();
            let limit = i64::MAX.to_string();
            let values: [Option<&str>; 14] = [
                Some(&id),
                Some(&row.workflow),
                Some(&row.source),
                Some(&row.pos),
                None,
                Some(&limit),
                Some(&limit),
                None,
                None,
                Some("7"),
                Some("0"),
                Some(&row.state),
                if row.workflow == "SplitClone" { Some("") } else { None },
                Some(&row.db_name),
            ];
            Row {
                lengths: values.iter().map(|v| v.map_or(-1, |v| i64::try_from(v.len()).unwrap())).collect(),
                values: values.iter().flatten().flat_map(|v| v.bytes()).collect(),
            }
        })
        .collect();
    QueryResult { fields, rows, ..Default::default() }
}

impl Tablets {
    fn call(&self, method: &str, tablet: &Tablet, detail: &str) -> Result<()> {
        let name = format!("{method} {}", topoproto::tablet_alias_string(tablet.alias.as_ref()));
        let full = if detail.is_empty() { name.clone() } else { format!("{name} {detail}") };
        self.calls.lock().unwrap().push(full.clone());
        let uid = tablet.alias.as_ref().map_or(0, |alias| alias.uid);
        if self.deadly.lock().unwrap().contains(&name) {
            self.dead.lock().unwrap().insert(uid);
        }
        if self.dead.lock().unwrap().contains(&uid) {
            return Err(TmError::new(Code::Unavailable, "connection refused"));
        }
        let failures = self.failures.lock().unwrap();
        match failures.get(&name).or_else(|| failures.get(&full)) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    async fn travel(&self) {
        let distance = *self.distance.lock().unwrap();
        if !distance.is_zero() {
            tokio::time::sleep(distance).await;
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
    async fn get_schema(&self, tablet: &Tablet, request: tmd::GetSchemaRequest) -> Result<tmd::GetSchemaResponse> {
        self.call("GetSchema", tablet, "")?;
        let uid = tablet.alias.as_ref().map_or(0, |alias| alias.uid);
        let mut schema = self.schemas.lock().unwrap().get(&uid).cloned().unwrap_or_default();
        schema.table_definitions.retain(|table| request.tables.is_empty() || request.tables.contains(&table.name));
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
        self.travel().await;
        Ok(tmd::MasterPositionResponse { position: self.position(tablet) })
    }
    async fn set_read_write(&self, tablet: &Tablet, _: tmd::SetReadWriteRequest) -> Result<tmd::SetReadWriteResponse> {
        self.call("SetReadWrite", tablet, "")?;
        self.read_only.lock().unwrap().remove(&tablet.alias.as_ref().map_or(0, |alias| alias.uid));
        Ok(tmd::SetReadWriteResponse {})
    }
    async fn v_replication_exec(
        &self,
        tablet: &Tablet,
        request: tmd::VReplicationExecRequest,
    ) -> Result<tmd::VReplicationExecResponse> {
        let words: Vec<&str> = request.query.split(' ').collect();
        let detail = match words[0] {
            "select" => "select".to_owned(),
            "insert" => "insert".to_owned(),
            _ => format!("{} {}", words[0], words[words.len() - 1]),
        };
        self.call("VReplicationExec", tablet, &detail)?;
        let uid = tablet.alias.as_ref().map_or(0, |alias| alias.uid);
        if detail != "select" && self.read_only.lock().unwrap().contains(&uid) {
            return Err(TmError::new(Code::Unknown, "The MySQL server is running with the --read-only option"));
        }
        Ok(tmd::VReplicationExecResponse { result: Some(self.run_on_streams(uid, &request.query)) })
    }
    async fn v_replication_wait_for_pos(
        &self,
        tablet: &Tablet,
        request: tmd::VReplicationWaitForPosRequest,
    ) -> Result<tmd::VReplicationWaitForPosResponse> {
        self.slow("VReplicationWaitForPos", tablet, &format!("{} {}", request.id, request.position)).await?;
        self.travel().await;
        Ok(tmd::VReplicationWaitForPosResponse {})
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
    async fn start_slave(&self, tablet: &Tablet, _: tmd::StartSlaveRequest) -> Result<tmd::StartSlaveResponse> {
        self.call("StartSlave", tablet, "")?;
        Ok(tmd::StartSlaveResponse {})
    }
    async fn wait_for_position(
        &self,
        tablet: &Tablet,
        _: tmd::WaitForPositionRequest,
    ) -> Result<tmd::WaitForPositionResponse> {
        self.call("WaitForPosition", tablet, "")?;
        let wait = self.waits.lock().unwrap().pop_front();
        tokio::time::sleep(wait.unwrap_or_default()).await;
        Ok(tmd::WaitForPositionResponse {})
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

#[async_trait::async_trait]
impl Cutover for Tablets {
    async fn gate(&self, tablet: &Tablet, request: cutover::GateRequest) -> Result<cutover::GateResponse> {
        self.gated(tablet)?;
        self.call("Gate", tablet, &request.tables.join(","))?;
        let uid = tablet.alias.as_ref().map_or(0, |alias| alias.uid);
        let mut gates = self.gates.lock().unwrap();
        let held = gates.entry(uid).or_insert((request.id.clone(), false));
        if held.0 != request.id {
            return Err(TmError::new(Code::FailedPrecondition, format!("gate {} holds", held.0)));
        }
        let mut busy = self.busy.lock().unwrap();
        let left = busy.entry(uid).or_default();
        let transactions = i64::from(*left > 0);
        *left = left.saturating_sub(1);
        Ok(cutover::GateResponse { transactions, statements: 0 })
    }
    async fn drain(&self, tablet: &Tablet, _: cutover::DrainRequest) -> Result<cutover::DrainResponse> {
        self.gated(tablet)?;
        self.slow("Drain", tablet, "").await?;
        Ok(cutover::DrainResponse { drained: true, ..Default::default() })
    }
    async fn fence(&self, tablet: &Tablet, request: cutover::FenceRequest) -> Result<cutover::FenceResponse> {
        self.gated(tablet)?;
        self.call("Fence", tablet, if request.read_only { "read_only" } else { "" })?;
        let uid = tablet.alias.as_ref().map_or(0, |alias| alias.uid);
        match self.gates.lock().unwrap().get_mut(&uid) {
            Some((id, fenced)) if *id == request.id => *fenced = true,
            _ => return Err(TmError::new(Code::FailedPrecondition, "no such gate")),
        }
        if request.read_only {
            self.read_only.lock().unwrap().insert(uid);
        }
        let mut unheard = self.unheard.lock().unwrap();
        if let Some(index) = unheard.iter().position(|one| *one == uid) {
            unheard.remove(index);
            return Err(TmError::new(Code::DeadlineExceeded, "context deadline exceeded"));
        }
        Ok(cutover::FenceResponse { position: self.position(tablet), read_only_set: request.read_only })
    }
    async fn status(&self, tablet: &Tablet, _: cutover::StatusRequest) -> Result<cutover::StatusResponse> {
        self.gated(tablet)?;
        self.call("Status", tablet, "")?;
        let uid = tablet.alias.as_ref().map_or(0, |alias| alias.uid);
        let gates = self.gates.lock().unwrap();
        let forgotten = self.forgetful.lock().unwrap().contains(&uid);
        let Some((id, fenced)) = gates.get(&uid).filter(|_| !forgotten) else {
            return Ok(cutover::StatusResponse::default());
        };
        let phase = if *fenced { cutover::GatePhase::Fenced } else { cutover::GatePhase::Gated };
        Ok(cutover::StatusResponse { id: id.clone(), phase: phase.into(), ..Default::default() })
    }
    async fn release(&self, tablet: &Tablet, request: cutover::ReleaseRequest) -> Result<cutover::ReleaseResponse> {
        self.gated(tablet)?;
        self.call("Release", tablet, if request.read_write { "read_write" } else { "" })?;
        let uid = tablet.alias.as_ref().map_or(0, |alias| alias.uid);
        let mut gates = self.gates.lock().unwrap();
        let released = gates.get(&uid).is_some_and(|(id, _)| *id == request.id);
        if released {
            gates.remove(&uid);
        }
        if request.read_write {
            self.read_only.lock().unwrap().remove(&uid);
        }
        Ok(cutover::ReleaseResponse { released, refused: 3, killed: 1, longest_stall_ms: 42 })
    }
}

/// A topology with the cell `zone1`, and commands over it.
pub struct Cluster {
    pub store: MemoryStore,
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
        let store = MemoryStore::new();
        let topo = store.server(&["zone1"]);
        let tablets = Arc::new(Tablets {
            topo: topo.clone(),
            calls: Mutex::default(),
            failures: Mutex::default(),
            deadly: Mutex::default(),
            dead: Mutex::default(),
            distance: Mutex::default(),
            hanging: Mutex::default(),
            positions: Mutex::default(),
            schemas: Mutex::default(),
            preflights: Mutex::default(),
            results: Mutex::default(),
            waits: Mutex::default(),
            streams: Mutex::default(),
            gateless: Mutex::default(),
            forgetful: Mutex::default(),
            read_only: Mutex::default(),
            unheard: Mutex::default(),
            gates: Mutex::default(),
            busy: Mutex::default(),
            term: Mutex::new(1_574_000_000),
        });
        let config = Config {
            remote_operation_timeout: Duration::from_secs(5),
            drain_pause_rdonly: Duration::ZERO,
            drain_pause_replica: Duration::ZERO,
            ..Config::default()
        };
        let wr = Wrangler::new(topo.clone(), tablets.clone(), config);
        Self { store, topo, tablets, wr }
    }

    /// The same cluster, driven by a process that fails at a point.
    pub fn failing_at(&self, point: &str, action: Action) -> Self {
        let config = Config { failpoints: Failpoints::at(point, action), ..self.wr.config().clone() };
        let wr = Wrangler::new(self.topo.clone(), self.tablets.clone(), config);
        Self { store: self.store.clone(), topo: self.topo.clone(), tablets: self.tablets.clone(), wr }
    }

    /// A shard with a master, a replica and an rdonly, of uids `uid`, `uid + 1`, `uid + 2`.
    pub async fn add_shard(&self, keyspace: &str, shard: &str, uid: u32) {
        self.topo.create_shard(keyspace, shard).await.unwrap();
        let types = [TabletType::Master, TabletType::Replica, TabletType::Rdonly];
        for (uid, tablet_type) in (uid..).zip(types) {
            let tablet = Tablet {
                alias: Some(alias(uid)),
                hostname: "<host>".into(),
                port_map: BTreeMap::from([("grpc".to_owned(), 16000 + i32::try_from(uid).unwrap())]),
                keyspace: keyspace.into(),
                shard: shard.into(),
                r#type: tablet_type.into(),
                ..Default::default()
            };
            self.topo.create_tablet(&tablet).await.unwrap();
        }
        self.topo
            .update_shard_fields(keyspace, shard, |info| {
                info.record.master_alias = Some(alias(uid));
                Ok(Update::Write)
            })
            .await
            .unwrap();
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
