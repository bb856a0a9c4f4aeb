//! The entry: which part of this crate plans a statement.

use vschema::VSchema;
use vterrors::{Code, VtError};
use vtproto::topodata::TabletType;
use vtsql::{Detail, Needs, Statement, StatementKind, preview};

use crate::primitive::{Plan, Primitive, SavepointAction};
use crate::target::Target;
use crate::{route, set, show, vschema_ddl};

/// What a plan depends on besides the statement.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub vschema: &'a VSchema,
    /// The session's target.
    pub target: &'a Target,
    /// A transaction is open (for checks only: a cached plan does not depend on it).
    pub in_transaction: bool,
}

/// The error of a statement that needs a keyspace where none is named and none is the only one.
pub(crate) fn no_keyspace() -> VtError {
    VtError::new(
        Code::FailedPrecondition,
        "no keyspace in database name specified. Supported database name format (items in <> are optional): \
         keyspace<:shard><@type> or keyspace<[range]><@type>",
    )
}

/// The keyspace of the session: the target's, else the only one.
pub(crate) fn session_keyspace<'a>(context: &Context<'a>) -> Result<&'a str, VtError> {
    if !context.target.keyspace.is_empty() {
        return Ok(&context.target.keyspace);
    }
    context.vschema.only_keyspace().map(|keyspace| keyspace.name.as_str()).ok_or_else(no_keyspace)
}

/// A keyspace any shard of which can compute something without tables.
pub(crate) fn any_keyspace<'a>(context: &Context<'a>) -> Result<&'a str, VtError> {
    if !context.target.keyspace.is_empty() {
        return Ok(&context.target.keyspace);
    }
    context.vschema.first_keyspace().map(|keyspace| keyspace.name.as_str()).ok_or_else(no_keyspace)
}

/// Reads and plans `sql`, one statement, with the error texts that clients see: a text that begins no
/// statement is `unrecognized statement: …`.
pub fn plan_text(sql: &str, context: &Context<'_>) -> Result<Plan, VtError> {
    match preview(sql) {
        StatementKind::Unknown => {
            Err(VtError::new(Code::InvalidArgument, format!("unrecognized statement: {}", body(sql))))
        }
        StatementKind::Empty => {
            Err(VtError::new(Code::InvalidArgument, "Query was empty (errno 1065) (sqlstate 42000)"))
        }
        _ => plan(&vtsql::parse(sql)?, context),
    }
}

/// The text without the comments around it.
fn body(sql: &str) -> String {
    let (_, body, _) = vtsql::split_margin_comments(sql.as_bytes());
    String::from_utf8_lossy(body).into_owned()
}

/// Plans `statement`.
///
/// Errors: INVALID_ARGUMENT and FAILED_PRECONDITION as Vitess has them; UNIMPLEMENTED for what is
/// recognised and not built.
pub fn plan(statement: &Statement, context: &Context<'_>) -> Result<Plan, VtError> {
    use StatementKind as K;
    let simple = |primitive| Ok(Plan { kind: statement.kind, primitive, needs: Needs::default(), cacheable: false });
    match (statement.kind, &statement.detail) {
        (K::Comment | K::Empty | K::UnlockTables, _) => simple(Primitive::Nothing),
        (K::Unknown, _) => {
            Err(VtError::new(Code::InvalidArgument, format!("unrecognized statement: {}", statement.sql)))
        }
        (K::Begin, Detail::Begin(characteristics)) => {
            let tablet_type = context.target.tablet_type;
            if tablet_type != TabletType::Master {
                let text = format!(
                    "transactions are supported only for master tablet types, current type: {}",
                    tablet_type.as_str_name()
                );
                return Err(VtError::new(Code::InvalidArgument, text));
            }
            simple(Primitive::Begin(characteristics.clone()))
        }
        (K::Commit | K::Rollback, _) if goes_on(&statement.sql) => route::unsupported(&statement.sql),
        (K::Commit, _) => simple(Primitive::Commit),
        (K::Rollback, _) => simple(Primitive::Rollback),
        (kind @ (K::Savepoint | K::Release | K::RollbackTo), Detail::Savepoint(name)) => {
            let action = match kind {
                K::Savepoint => SavepointAction::Create,
                K::Release => SavepointAction::Release,
                _ => SavepointAction::RollbackTo,
            };
            simple(Primitive::Savepoint { action, name: name.clone() })
        }
        (K::Set, Detail::Set(assignments)) => {
            simple(Primitive::Set(set::plan_set(assignments, &statement.sql, context)?))
        }
        (K::Show, Detail::Show(detail)) => show::plan_show(statement, detail, context),
        (K::Use, Detail::Use(text)) => simple(Primitive::Use(plan_use(text, context)?)),
        (K::Kill, Detail::Kill(kill)) => simple(Primitive::Kill(kill.clone())),
        (K::Prepare, Detail::Prepare(prepare)) => simple(Primitive::Prepare(prepare.clone())),
        (K::Execute, Detail::Execute(execute)) => simple(Primitive::Execute(execute.clone())),
        (K::Deallocate, Detail::Deallocate(name)) => simple(Primitive::Deallocate(name.clone())),
        (K::VschemaDdl, _) => {
            let (qualifier, command) = vschema_ddl::parse_vschema_ddl(&statement.sql)?;
            let keyspace = if qualifier.is_empty() { session_keyspace(context)?.to_owned() } else { qualifier };
            simple(Primitive::VschemaDdl { keyspace, command })
        }
        _ => route::plan_route(statement, context),
    }
}

/// Whether COMMIT or ROLLBACK is to begin a transaction (AND CHAIN) or to end the connection (RELEASE).
fn goes_on(sql: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    (0..words.len()).any(|at| matches!(words[at], "chain" | "release") && words[at - 1] != "no")
}

/// `use x`: a keyspace has to exist; a transaction stays with masters.
fn plan_use(text: &str, context: &Context<'_>) -> Result<Target, VtError> {
    let target = Target::parse(text)?;
    if !target.keyspace.is_empty() && !context.vschema.keyspaces.contains_key(&target.keyspace) {
        return Err(VtError::new(Code::InvalidArgument, format!("invalid keyspace provided: {}", target.keyspace)));
    }
    if context.in_transaction && target.tablet_type != TabletType::Master {
        let text = format!(
            "cannot change to a non-master type in the middle of a transaction: {}",
            target.tablet_type.as_str_name()
        );
        return Err(VtError::new(Code::InvalidArgument, text));
    }
    Ok(target)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn vschema_of(json: &str) -> VSchema {
        VSchema::build(&vtjson::from_json(json).expect(json))
    }

    pub(crate) fn context_of<'a>(vschema: &'a VSchema, target: &'a Target) -> Context<'a> {
        Context { vschema, target, in_transaction: false }
    }

    fn primitive(sql: &str, target: &str) -> Result<Primitive, String> {
        let vschema = vschema_of(r#"{"keyspaces":{"commerce":{},"other":{}}}"#);
        let target = Target::parse(target).expect(target);
        let context = Context { vschema: &vschema, target: &target, in_transaction: sql.contains("in_tx") };
        plan_text(sql, &context).map(|plan| plan.primitive).map_err(|error| error.to_string())
    }

    #[test]
    fn transaction_control() {
        assert!(matches!(primitive("begin", ""), Ok(Primitive::Begin(_))));
        assert!(matches!(primitive("commit", ""), Ok(Primitive::Commit)));
        assert!(matches!(
            primitive("savepoint a", "commerce"),
            Ok(Primitive::Savepoint { action: SavepointAction::Create, name }) if name == "a"
        ));
        assert!(matches!(
            primitive("rollback to a", ""),
            Ok(Primitive::Savepoint { action: SavepointAction::RollbackTo, .. })
        ));
        assert_eq!(
            primitive("begin", "commerce@replica").expect_err("replica"),
            "transactions are supported only for master tablet types, current type: REPLICA"
        );
    }

    #[test]
    fn use_is_checked() {
        assert!(
            matches!(primitive("use `commerce:-80@replica`", ""), Ok(Primitive::Use(t)) if t.keyspace == "commerce")
        );
        assert!(matches!(primitive("use @replica", ""), Ok(Primitive::Use(t)) if t.keyspace.is_empty()));
        assert_eq!(primitive("use nope", "").expect_err("unknown"), "invalid keyspace provided: nope");
        assert_eq!(
            primitive("use `commerce@rdonly` /* in_tx */", "").expect_err("in a transaction"),
            "cannot change to a non-master type in the middle of a transaction: RDONLY"
        );
    }

    #[test]
    fn what_is_no_statement() {
        assert_eq!(primitive("selec 1", "").expect_err("unknown"), "unrecognized statement: selec 1");
        assert!(primitive("", "").expect_err("empty").starts_with("Query was empty"));
        assert!(matches!(primitive("/*!40101 set x=1 */", ""), Ok(Primitive::Nothing)));
    }
}
