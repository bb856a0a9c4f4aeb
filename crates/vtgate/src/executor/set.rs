//! SET: what a session keeps, and what tablets are told of it.

use planner::{RouteText, SetAction, SetValue, SettingValue};
use vterrors::{Code, MysqlError, Result, VtError};
use vtproto::{
    query::{
        BindVariable, Type,
        execute_options::{TransactionIsolation, Workload},
    },
    vtgate::TransactionMode,
};
use vtsql::{BindVars, Normalized, TransactionCharacteristic};

use super::{Executor, Work, first_bind_variable};
use crate::session::{Session, TransactionSettings};

/// Most user variables and most settings that one session may have.
const MAX_VARIABLES: usize = 1024;
/// Errno that mysqld itself uses for a value that a variable cannot have, and its like.
const NO_TABLET: [Code; 2] = [Code::Unavailable, Code::FailedPrecondition];

impl Executor {
    pub(super) async fn set(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        actions: &[SetAction],
        normalized: &Normalized,
    ) -> Result<()> {
        for action in actions {
            self.set_one(work, session, action, normalized).await?;
        }
        Ok(())
    }

    async fn set_one(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        action: &SetAction,
        normalized: &Normalized,
    ) -> Result<()> {
        match action {
            SetAction::Autocommit(on) => {
                if *on && session.in_transaction() {
                    self.transactions.commit(work.caller, session).await?;
                }
                session.pb.autocommit = *on;
            }
            SetAction::ClientFoundRows(on) => session.options().client_found_rows = *on,
            SetAction::SkipQueryPlanCache(on) => session.options().skip_query_plan_cache = *on,
            SetAction::TransactionMode(mode) => session.pb.set_transaction_mode(*mode),
            SetAction::Workload(workload) => session.options().set_workload(*workload),
            SetAction::SqlSelectLimit(limit) => session.options().sql_select_limit = limit.unwrap_or(0),
            SetAction::Transaction { next_only, characteristics } => {
                self.set_transaction(session, *next_only, characteristics)?;
            }
            SetAction::UserVariable { name, value } => {
                let value = self.user_value(work, session, value, normalized).await?;
                let variables = &mut session.pb.user_defined_variables;
                if variables.len() >= MAX_VARIABLES && !variables.contains_key(name) {
                    let text = format!("a session may have {MAX_VARIABLES} user variables, @{name} is one too many");
                    return Err(VtError::new(Code::ResourceExhausted, text));
                }
                variables.insert(name.clone(), value);
            }
            SetAction::SystemVariable { name, value } => {
                self.set_system(work, session, name, value).await?;
            }
            SetAction::Ignored { name, warning } => {
                self.parts.stats.warnings.inc(&["IgnoredSet"]);
                tracing::debug!(name, "SET without effect");
                if let Some(warning) = warning {
                    // ER_NOT_SUPPORTED_YET
                    session.warn(1235, warning.clone());
                }
            }
            SetAction::Metadata { key, value } => {
                self.check_vschema_rights(work.caller)?;
                let outcome = if value.is_empty() {
                    self.parts.topo.delete_metadata(key).await
                } else {
                    self.parts.topo.upsert_metadata(key, value).await
                };
                outcome?;
            }
        }
        Ok(())
    }

    fn set_transaction(
        &self,
        session: &mut Session,
        next_only: bool,
        characteristics: &[TransactionCharacteristic],
    ) -> Result<()> {
        if next_only {
            if session.in_transaction() {
                let text = "Transaction characteristics can't be changed while a transaction is in progress";
                return Err(MysqlError::new(1568, "25001", text).into());
            }
            for one in characteristics {
                characteristic(&mut session.transaction, *one);
            }
            return Ok(());
        }
        let mut settings = TransactionSettings::default();
        for one in characteristics {
            characteristic(&mut settings, *one);
        }
        if let Some(isolation) = settings.isolation {
            session.options().transaction_isolation = isolation;
        }
        if let Some(read_only) = settings.read_only {
            session.read_only = read_only;
        }
        Ok(())
    }

    async fn user_value(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        value: &SetValue,
        normalized: &Normalized,
    ) -> Result<BindVariable> {
        match value {
            SetValue::Literal(value) => Ok(value.clone()),
            SetValue::BindVar(name) => {
                let lifted = normalized.bind_vars.iter().find(|(known, _)| known == name).map(|(_, value)| value);
                let value = work.client_vars.get(name).or(lifted);
                value.cloned().ok_or_else(|| VtError::new(Code::InvalidArgument, format!("missing bind var {name}")))
            }
            SetValue::Query(text) => self.computed(work, session, text).await,
        }
    }

    /// The value of an expression, as mysqld computes it.
    async fn computed(&self, work: &mut Work<'_>, session: &mut Session, text: &RouteText) -> Result<BindVariable> {
        let mut vars: BindVars = work.client_vars.clone();
        self.session_values(session, &text.needs, &mut vars)?;
        work.shard_queries += 1;
        let result = self.on_any_shard(work.caller, session, &text.keyspace, &text.query, vars).await?;
        Ok(first_bind_variable(&result))
    }

    /// Keeps a setting for the tablets' connections, after a tablet has accepted it.
    async fn set_system(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        name: &str,
        value: &SettingValue,
    ) -> Result<()> {
        let value = match value {
            SettingValue::Default => {
                session.pb.system_variables.remove(name);
                return Ok(());
            }
            SettingValue::Sql(text) => text.clone(),
            SettingValue::Query(text) => {
                let computed = self.computed(work, session, text).await?;
                literal(name, &computed)?
            }
        };
        if session.pb.system_variables.get(name) == Some(&value) {
            return Ok(());
        }
        if session.pb.system_variables.len() >= MAX_VARIABLES {
            let text = format!("a session may have {MAX_VARIABLES} settings, {name} is one too many");
            return Err(VtError::new(Code::ResourceExhausted, text));
        }
        let before = session.pb.system_variables.insert(name.to_string(), value);
        let keyspace = self.target(session)?.keyspace;
        if keyspace.is_empty() {
            // No tablet to ask: the first statement that runs on one will tell.
            return Ok(());
        }
        // Outside the transaction: it must not be opened, or lost, by a check.
        let mut probe = Session::from_message(Some(session.pb.clone()));
        probe.reset_transaction();
        probe.pb.autocommit = true;
        let outcome =
            self.on_any_shard(work.caller, &mut probe, &keyspace, "select 1 from dual", BindVars::new()).await;
        match outcome {
            Err(error) if !NO_TABLET.contains(&error.code()) => {
                match before {
                    Some(before) => session.pb.system_variables.insert(name.to_string(), before),
                    None => session.pb.system_variables.remove(name),
                };
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// A computed value as the SQL text of a setting.
fn literal(name: &str, value: &BindVariable) -> Result<String> {
    let text = String::from_utf8_lossy(&value.value);
    if value.r#type() == Type::NullType {
        let text = format!("Variable '{name}' can't be set to the value of 'NULL'");
        return Err(MysqlError::new(1231, "42000", text).into());
    }
    if name == "sql_mode" {
        return match planner::sysvars::usable_sql_mode(&text) {
            Some((usable, _)) => quoted(usable.as_bytes()),
            None => {
                let text = format!("Variable 'sql_mode' can't be set to the value of '{text}'");
                Err(MysqlError::new(1231, "42000", text).into())
            }
        };
    }
    // The type's bit 8 or 10: integral or floating.
    let number = value.r#type & (256 | 1024) != 0 || value.r#type() == Type::Decimal;
    if number { Ok(text.into_owned()) } else { quoted(&value.value) }
}

/// A string literal.
fn quoted(value: &[u8]) -> Result<String> {
    let mut out = Vec::with_capacity(value.len() + 2);
    vtsql::quote_string(value, &mut out);
    String::from_utf8(out).map_err(|_| VtError::new(Code::InvalidArgument, "the value of a setting is not UTF-8"))
}

/// Takes one characteristic into the settings.
pub(super) fn characteristic(settings: &mut TransactionSettings, characteristic: TransactionCharacteristic) {
    use TransactionCharacteristic as C;
    let isolation = match characteristic {
        C::ReadOnly => {
            settings.read_only = Some(true);
            return;
        }
        C::ReadWrite => {
            settings.read_only = Some(false);
            return;
        }
        // Every transaction reads from the snapshot of its first read, which is its first statement.
        C::ConsistentSnapshot => return,
        C::ReadUncommitted => TransactionIsolation::ReadUncommitted,
        C::ReadCommitted => TransactionIsolation::ReadCommitted,
        C::RepeatableRead => TransactionIsolation::RepeatableRead,
        C::Serializable => TransactionIsolation::Serializable,
    };
    settings.isolation = Some(isolation.into());
}

/// The value of a variable that belongs to vtgate, for `select @@autocommit`.
pub(super) fn own_variable(executor: &Executor, session: &Session, name: &str) -> BindVariable {
    let options = session.pb.options.clone().unwrap_or_default();
    let number =
        |number: i64| BindVariable { r#type: Type::Int64.into(), value: number.to_string().into(), values: Vec::new() };
    let text =
        |text: &str| BindVariable { r#type: Type::Varchar.into(), value: text.to_string().into(), values: Vec::new() };
    let null = BindVariable { r#type: Type::NullType.into(), ..Default::default() };
    match name {
        "autocommit" => number(session.pb.autocommit.into()),
        "client_found_rows" => number(options.client_found_rows.into()),
        "skip_query_plan_cache" => number(options.skip_query_plan_cache.into()),
        "sql_select_limit" => match options.sql_select_limit {
            // MySQL's default: no limit.
            0 => BindVariable { r#type: Type::Uint64.into(), value: u64::MAX.to_string().into(), values: Vec::new() },
            limit => number(limit),
        },
        "transaction_mode" => text(match session.pb.transaction_mode() {
            TransactionMode::Unspecified => match executor.parts.scatter.mode(session) {
                TransactionMode::Single => "SINGLE",
                TransactionMode::Twopc => "TWOPC",
                _ => "MULTI",
            },
            mode => mode.as_str_name(),
        }),
        "workload" => text(match options.workload() {
            Workload::Unspecified => "UNSPECIFIED",
            workload => workload.as_str_name(),
        }),
        "tx_isolation" | "transaction_isolation" => match options.transaction_isolation() {
            TransactionIsolation::RepeatableRead => text("REPEATABLE-READ"),
            TransactionIsolation::ReadCommitted => text("READ-COMMITTED"),
            TransactionIsolation::ReadUncommitted => text("READ-UNCOMMITTED"),
            TransactionIsolation::Serializable => text("SERIALIZABLE"),
            _ => null,
        },
        "tx_read_only" | "transaction_read_only" if session.read_only => number(1),
        _ => match session.pb.system_variables.get(name) {
            Some(value) => text(value.trim_matches('\'')),
            None => null,
        },
    }
}
