//! PREPARE, EXECUTE and DEALLOCATE as statements. (The binary protocol's are the protocol's.)

use vterrors::{Code, MysqlError, Result, VtError};
use vtproto::query::{BindVariable, QueryResult, Type};
use vtsql::{BindVars, Execute, Prepare, PrepareSource};

use super::{Executor, Output, Work};
use crate::session::{MAX_TEXT_PREPARED, Session};

impl Executor {
    pub(super) fn prepare_text(&self, session: &mut Session, statement: &Prepare) -> Result<()> {
        let text = match &statement.from {
            PrepareSource::Text(text) => text.clone(),
            PrepareSource::UserVar(name) => {
                let value = session.pb.user_defined_variables.get(name).cloned().unwrap_or_default();
                String::from_utf8(value.value.to_vec())
                    .map_err(|_| VtError::new(Code::InvalidArgument, format!("@{name} does not hold a statement")))?
            }
        };
        if session.prepared.len() >= MAX_TEXT_PREPARED && !session.prepared.contains_key(&statement.name) {
            let text = format!(
                "Can't create more than max_prepared_stmt_count statements (current value: {MAX_TEXT_PREPARED})"
            );
            return Err(MysqlError::new(1461, "42000", text).into());
        }
        // Errors are to show here and not at each EXECUTE.
        let normalized = vtsql::normalize(text.as_bytes())?;
        self.plan(session, &normalized)?;
        session.prepared.insert(statement.name.to_ascii_lowercase(), text);
        Ok(())
    }

    pub(super) async fn execute_text(
        &self,
        work: &mut Work<'_>,
        session: &mut Session,
        statement: &Execute,
    ) -> Result<QueryResult> {
        let Some(text) = session.prepared.get(&statement.name.to_ascii_lowercase()).cloned() else {
            return Err(unknown(&statement.name, "EXECUTE"));
        };
        let wanted = vtsql::normalize(text.as_bytes())?.placeholders;
        if wanted != statement.using.len() {
            return Err(MysqlError::new(1210, "HY000", "Incorrect arguments to EXECUTE").into());
        }
        let null = BindVariable { r#type: Type::NullType.into(), ..BindVariable::default() };
        let vars: BindVars = statement
            .using
            .iter()
            .enumerate()
            .map(|(number, name)| {
                let value = session.pb.user_defined_variables.get(name).cloned();
                (format!("v{}", number + 1), value.unwrap_or_else(|| null.clone()))
            })
            .collect();
        let mut inner = Work::new(work.caller, work.method, &vars);
        let outcome = Box::pin(self.run(&mut inner, session, text.as_bytes(), false)).await;
        work.shard_queries += inner.shard_queries;
        match outcome? {
            Output::Whole(result) => Ok(result),
            Output::Rows(_) => Err(VtError::new(Code::Internal, "a stream where none was asked for")),
        }
    }

    pub(super) fn deallocate_text(&self, session: &mut Session, name: &str) -> Result<()> {
        match session.prepared.remove(&name.to_ascii_lowercase()) {
            Some(_) => Ok(()),
            None => Err(unknown(name, "DEALLOCATE PREPARE")),
        }
    }
}

fn unknown(name: &str, verb: &str) -> VtError {
    MysqlError::new(1243, "HY000", format!("Unknown prepared statement handler ({name}) given to {verb}")).into()
}
