//! SET, planned: each assignment to its effect on the session.

use vterrors::{Code, VtError};
use vtproto::query::{BindVariable, Type, execute_options::Workload};
use vtproto::vtgate::TransactionMode;
use vtsql::set::{Assignment, Scope, SetStatement, Value};
use vtsql::{SessionFunction, TransactionCharacteristic as Characteristic, quote_string};

use crate::plan::{Context, any_keyspace};
use crate::primitive::{RouteText, SetAction, SetValue, SettingValue};
use crate::route::unsupported;
use crate::sysvars::{self, Handling, handling, usable_sql_mode};

/// Plans every assignment of `set`; `sql` is the statement's text for error messages.
pub(crate) fn plan_set(set: &SetStatement, sql: &str, context: &Context<'_>) -> Result<Vec<SetAction>, VtError> {
    let mut actions = Vec::with_capacity(set.assignments.len());
    for assignment in &set.assignments {
        let planner = Planner { sql, context };
        actions.extend(planner.assignment(assignment)?);
    }
    Ok(actions)
}

fn invalid(text: impl Into<String>) -> VtError {
    VtError::new(Code::InvalidArgument, text)
}

struct Planner<'a> {
    sql: &'a str,
    context: &'a Context<'a>,
}

impl Planner<'_> {
    fn unsupported(&self) -> VtError {
        invalid(format!("unsupported construct: {}", self.sql))
    }

    fn assignment(&self, assignment: &Assignment) -> Result<Vec<SetAction>, VtError> {
        match assignment {
            Assignment::User { name, value } => {
                Ok(vec![SetAction::UserVariable { name: name.clone(), value: self.user_value(value)? }])
            }
            Assignment::Names { charset, collate } => {
                let mut actions = self.charset("names", charset.as_deref())?;
                // Tablets' connections have this one.
                let other = collate.as_ref().filter(|collation| !collation.eq_ignore_ascii_case("utf8mb4_general_ci"));
                actions.extend(other.map(|collation| SetAction::Ignored {
                    name: "collation_connection".to_owned(),
                    warning: Some(format!("Ignored inapplicable SET collation_connection = {collation}")),
                }));
                Ok(actions)
            }
            Assignment::Charset(charset) => self.charset("charset", charset.as_deref()),
            Assignment::Transaction { scope: Scope::Global | Scope::Persist, .. } => {
                Err(invalid("unsupported in set: global"))
            }
            Assignment::Transaction { scope, characteristics } => Ok(vec![SetAction::Transaction {
                next_only: *scope == Scope::Implicit,
                characteristics: characteristics.clone(),
            }]),
            Assignment::System { scope: Scope::Global | Scope::Persist, .. } => {
                Err(invalid("unsupported in set: global"))
            }
            Assignment::System { scope: Scope::VitessMetadata, name, value, .. } => match value {
                Value::String(text) => Ok(vec![SetAction::Metadata { key: name.clone(), value: text.clone() }]),
                other => Err(invalid(format!("unexpected value type for {name}: {}", shown(other)))),
            },
            Assignment::System { name, value, at_signs, scope } => {
                // `set @@transaction_isolation = …` without a scope word is for the next transaction, as in MySQL.
                let next_only = *at_signs && *scope == Scope::Implicit;
                self.system(name, value, next_only)
            }
        }
    }

    fn charset(&self, name: &str, charset: Option<&str>) -> Result<Vec<SetAction>, VtError> {
        let charset = charset.unwrap_or_default();
        let action = accepted_charset(name, charset)
            .ok_or_else(|| invalid(format!("unexpected value for charset/names: {charset}")))?;
        Ok(vec![action])
    }

    fn system(&self, name: &str, value: &Value, next_only: bool) -> Result<Vec<SetAction>, VtError> {
        let action = match name {
            "autocommit" => SetAction::Autocommit(boolean(name, value)?),
            "client_found_rows" => SetAction::ClientFoundRows(boolean(name, value)?),
            "skip_query_plan_cache" => SetAction::SkipQueryPlanCache(boolean(name, value)?),
            "transaction_mode" => SetAction::TransactionMode(transaction_mode(&text(name, value)?)?),
            "workload" => SetAction::Workload(workload(&text(name, value)?)?),
            "sql_select_limit" => match value {
                Value::Default => SetAction::SqlSelectLimit(None),
                Value::Number(n) => match n.parse::<u64>() {
                    // MySQL's own default, 2^64-1, is no limit.
                    Ok(u64::MAX) => SetAction::SqlSelectLimit(None),
                    Ok(n) => SetAction::SqlSelectLimit(Some(i64::try_from(n).unwrap_or(i64::MAX))),
                    Err(_) => return Err(invalid(format!("unexpected value for {name}: {n}"))),
                },
                other => {
                    return Err(invalid(format!("unexpected string value for sql_select_limit: {}", shown(other))));
                }
            },
            "tx_isolation" | "transaction_isolation" => {
                let characteristics = vec![isolation(name, value)?];
                SetAction::Transaction { next_only, characteristics }
            }
            "tx_read_only" | "transaction_read_only" => {
                let read_only = boolean(name, value)?;
                let mode = if read_only { Characteristic::ReadOnly } else { Characteristic::ReadWrite };
                SetAction::Transaction { next_only, characteristics: vec![mode] }
            }
            "charset" | "names" => return self.charset(name, Some(&text(name, value)?)),
            "sql_safe_updates" => {
                boolean(name, value)?;
                ignored(name)
            }
            "sql_auto_is_null" if boolean(name, value)? => {
                return Err(invalid("sql_auto_is_null is not currently supported"));
            }
            "sql_auto_is_null" => ignored(name),
            "wait_timeout" | "interactive_timeout" => match value {
                Value::Number(n) if n.parse::<u32>().is_ok() => ignored(name),
                Value::Default => ignored(name),
                other => return Err(invalid(format!("unexpected value for {name}: {}", shown(other)))),
            },
            "character_set_results" => match value {
                Value::Null => ignored(name),
                other => match text(name, other)?.to_ascii_lowercase().as_str() {
                    "null" => ignored(name),
                    charset => accepted_charset(name, charset)
                        .ok_or_else(|| invalid(format!("disallowed value for character_set_results: {charset}")))?,
                },
            },
            _ => match handling(name) {
                Some(Handling::Ignored) => {
                    let warning = format!("Ignored inapplicable SET {name} = {}", shown(value));
                    SetAction::Ignored { name: name.to_owned(), warning: Some(warning) }
                }
                Some(Handling::Setting) => return self.setting(name, value),
                Some(Handling::Own | Handling::Checked) | None => return Err(self.unsupported()),
            },
        };
        Ok(vec![action])
    }

    /// A variable that tablets set on the connection.
    fn setting(&self, name: &str, value: &Value) -> Result<Vec<SetAction>, VtError> {
        let mut warning = None;
        let value = match value {
            Value::Default => SettingValue::Default,
            Value::String(text) if name == "sql_mode" => {
                let (kept, left_out) = usable_sql_mode(text).ok_or_else(|| self.unsupported())?;
                if !left_out.is_empty() {
                    let text = format!("sql_mode without {}: not supported", left_out.join(", "));
                    warning = Some(SetAction::Ignored { name: name.to_owned(), warning: Some(text) });
                }
                SettingValue::Sql(quoted(&kept))
            }
            Value::String(text) => SettingValue::Sql(quoted(text)),
            Value::Number(number) => SettingValue::Sql(number.clone()),
            // Bare words are values such as ON, or modes: as a string they cannot be anything else.
            Value::Word(word) if name == "sql_mode" => {
                let (kept, _) = usable_sql_mode(word).ok_or_else(|| self.unsupported())?;
                SettingValue::Sql(quoted(&kept))
            }
            Value::Word(word) if word.eq_ignore_ascii_case("true") => SettingValue::Sql("1".to_owned()),
            Value::Word(word) if word.eq_ignore_ascii_case("false") => SettingValue::Sql("0".to_owned()),
            Value::Word(word) => SettingValue::Sql(quoted(word)),
            Value::Null | Value::BindVar(_) => return Err(self.unsupported()),
            Value::Expression(text) => SettingValue::Query(Box::new(self.evaluate(text)?)),
        };
        let mut actions = vec![SetAction::SystemVariable { name: name.to_owned(), value }];
        actions.extend(warning);
        Ok(actions)
    }

    /// `select <expression>` on any shard.
    fn evaluate(&self, expression: &str) -> Result<RouteText, VtError> {
        let facts = vtsql::parse(&format!("select {expression}")).map_err(VtError::from)?.facts;
        if facts.functions.contains(&SessionFunction::NamedLock) || facts.assigns_user_var {
            return unsupported(format_args!("{expression} in SET: it would stay on a shared connection"));
        }
        let rewritten = vtsql::rewrite_session(&format!("select {expression}"), sysvars::source);
        let keyspace = any_keyspace(self.context)?.to_owned();
        Ok(RouteText { keyspace, query: rewritten.sql, needs: rewritten.needs })
    }

    fn user_value(&self, value: &Value) -> Result<SetValue, VtError> {
        let literal = |kind: Type, text: &str| {
            SetValue::Literal(BindVariable { r#type: kind.into(), value: text.to_owned().into(), values: Vec::new() })
        };
        Ok(match value {
            Value::String(text) => literal(Type::Varchar, text),
            Value::Number(number) if number.parse::<i64>().is_ok() => literal(Type::Int64, number),
            Value::Number(number) if number.parse::<u64>().is_ok() => literal(Type::Uint64, number),
            Value::Number(number) if number.contains(['e', 'E']) => literal(Type::Float64, number),
            Value::Number(number) => literal(Type::Decimal, number),
            Value::Null => literal(Type::NullType, ""),
            Value::Word(word) if word.eq_ignore_ascii_case("true") => literal(Type::Int64, "1"),
            Value::Word(word) if word.eq_ignore_ascii_case("false") => literal(Type::Int64, "0"),
            // MySQL takes bare words for column names and refuses them.
            Value::Word(_) | Value::Default => return Err(self.unsupported()),
            Value::BindVar(name) => SetValue::BindVar(name.clone()),
            Value::Expression(text) => SetValue::Query(Box::new(self.evaluate(text)?)),
        })
    }
}

fn ignored(name: &str) -> SetAction {
    SetAction::Ignored { name: name.to_owned(), warning: None }
}

/// What `name = charset` does, as far as Vitess takes the character set; `None` for one that is refused. Text travels as
/// utf8mb4 whatever is asked for: who asks for latin1 and sends more than ASCII should know.
fn accepted_charset(name: &str, charset: &str) -> Option<SetAction> {
    match charset.to_ascii_lowercase().as_str() {
        "" | "utf8" | "utf8mb3" | "utf8mb4" | "default" => Some(ignored(name)),
        "latin1" => {
            let warning = format!("Ignored SET {name} = latin1: text travels as utf8mb4");
            Some(SetAction::Ignored { name: name.to_owned(), warning: Some(warning) })
        }
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    quote_string(text.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// A value as error texts show it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) | Value::Number(text) | Value::Word(text) | Value::Expression(text) => text.clone(),
        Value::Default => "default".to_owned(),
        Value::Null => "null".to_owned(),
        Value::BindVar(name) => format!(":{name}"),
    }
}

/// The text of a string or bare word.
fn text(name: &str, value: &Value) -> Result<String, VtError> {
    match value {
        Value::String(text) | Value::Word(text) => Ok(text.clone()),
        Value::Default => Ok("default".to_owned()),
        other => Err(invalid(format!("unexpected value type for {name}: {}", shown(other)))),
    }
}

/// 0 or 1, in any of MySQL's spellings. The defaults of all variables asked for here are as listed.
fn boolean(name: &str, value: &Value) -> Result<bool, VtError> {
    match value {
        Value::Default => return Ok(name == "autocommit"),
        Value::Number(n) if n == "0" => return Ok(false),
        Value::Number(n) if n == "1" => return Ok(true),
        Value::String(word) | Value::Word(word) => match word.to_ascii_lowercase().as_str() {
            "on" | "true" | "1" => return Ok(true),
            "off" | "false" | "0" => return Ok(false),
            _ => {}
        },
        _ => {}
    }
    Err(invalid(format!("unexpected value for {name}: {}", shown(value))))
}

fn transaction_mode(text: &str) -> Result<TransactionMode, VtError> {
    TransactionMode::from_str_name(&text.to_ascii_uppercase())
        .ok_or_else(|| invalid(format!("invalid transaction_mode: {text}")))
}

fn workload(text: &str) -> Result<Workload, VtError> {
    let upper = text.to_ascii_uppercase();
    let name = if upper == "DEFAULT" { "UNSPECIFIED" } else { upper.as_str() };
    Workload::from_str_name(name).ok_or_else(|| invalid(format!("invalid workload: {text}")))
}

fn isolation(name: &str, value: &Value) -> Result<Characteristic, VtError> {
    let level = text(name, value)?;
    match level.to_ascii_lowercase().replace(['-', '_'], " ").as_str() {
        "repeatable read" | "default" => Ok(Characteristic::RepeatableRead),
        "read committed" => Ok(Characteristic::ReadCommitted),
        "read uncommitted" => Ok(Characteristic::ReadUncommitted),
        "serializable" => Ok(Characteristic::Serializable),
        _ => Err(invalid(format!("unexpected value for {name}: {level}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{context_of, vschema_of};
    use crate::{Primitive, Target, plan_text};

    fn set(sql: &str) -> Result<Vec<SetAction>, String> {
        let vschema = vschema_of(r#"{"keyspaces":{"commerce":{}}}"#);
        let target = Target::default();
        match plan_text(sql, &context_of(&vschema, &target)) {
            Ok(plan) => match plan.primitive {
                Primitive::Set(actions) => Ok(actions),
                other => panic!("{other:?}"),
            },
            Err(error) => Err(error.to_string()),
        }
    }

    fn one(sql: &str) -> SetAction {
        let mut actions = set(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(actions.len(), 1, "{sql}");
        actions.remove(0)
    }

    fn setting(name: &str, sql: &str) -> SetAction {
        SetAction::SystemVariable { name: name.into(), value: SettingValue::Sql(sql.into()) }
    }

    #[test]
    fn what_the_session_owns() {
        assert_eq!(one("set autocommit=0"), SetAction::Autocommit(false));
        assert_eq!(one("set @@session.autocommit = 'on'"), SetAction::Autocommit(true));
        assert_eq!(one("set workload='olap'"), SetAction::Workload(Workload::Olap));
        assert_eq!(one("set transaction_mode = twopc"), SetAction::TransactionMode(TransactionMode::Twopc));
        assert_eq!(one("set sql_select_limit = 5"), SetAction::SqlSelectLimit(Some(5)));
        assert_eq!(one("set sql_select_limit = default"), SetAction::SqlSelectLimit(None));
        assert_eq!(
            one("set transaction isolation level read committed"),
            SetAction::Transaction { next_only: true, characteristics: vec![Characteristic::ReadCommitted] }
        );
        assert_eq!(
            one("set session tx_isolation = 'SERIALIZABLE'"),
            SetAction::Transaction { next_only: false, characteristics: vec![Characteristic::Serializable] }
        );
        assert_eq!(set("set autocommit=1, @a='x'").map(|a| a.len()), Ok(2));
        let actions = set("set names utf8mb4 collate utf8mb4_bin").expect("taken");
        let warning = "Ignored inapplicable SET collation_connection = utf8mb4_bin";
        assert!(matches!(&actions[..], [_, SetAction::Ignored { warning: Some(text), .. }] if text == warning));
        assert_eq!(set("set names utf8mb4 collate utf8mb4_general_ci").map(|a| a.len()), Ok(1));
    }

    #[test]
    fn faults() {
        for (sql, want) in [
            ("set nonsense=1", "unsupported construct: set nonsense=1"),
            ("set workload='nope'", "invalid workload: nope"),
            ("set transaction_mode='nope'", "invalid transaction_mode: nope"),
            ("set autocommit=2", "unexpected value for autocommit: 2"),
            ("set global sql_mode=''", "unsupported in set: global"),
            ("set names greek", "unexpected value for charset/names: greek"),
            ("set sql_auto_is_null = 1", "sql_auto_is_null is not currently supported"),
            ("set sql_log_bin = 0", "unsupported construct: set sql_log_bin = 0"),
            ("set sql_mode = 'oracle'", "unsupported construct: set sql_mode = 'oracle'"),
            ("set autocommit = 1, nonsense = 2", "unsupported construct: set autocommit = 1, nonsense = 2"),
        ] {
            assert_eq!(set(sql), Err(want.to_owned()), "{sql}");
        }
    }

    #[test]
    fn settings_pass_as_literals() {
        assert_eq!(one("set sql_mode = 'STRICT_ALL_TABLES'"), setting("sql_mode", "'STRICT_ALL_TABLES'"));
        assert_eq!(one("set @@foreign_key_checks = off"), setting("foreign_key_checks", "'off'"));
        assert_eq!(one("set time_zone = '+00:00'"), setting("time_zone", "'+00:00'"));
        assert_eq!(one("set group_concat_max_len = 10"), setting("group_concat_max_len", "10"));
        let actions = set("set sql_mode='ansi'").expect("accepted");
        assert_eq!(actions[0], setting("sql_mode", "'REAL_AS_FLOAT,PIPES_AS_CONCAT,IGNORE_SPACE,ONLY_FULL_GROUP_BY'"));
        assert!(matches!(&actions[1], SetAction::Ignored { warning: Some(text), .. } if text.contains("ANSI_QUOTES")));
        match one("set sql_mode = concat(@@sql_mode, ',ANSI')") {
            SetAction::SystemVariable { value: SettingValue::Query(query), .. } => {
                assert_eq!(
                    (query.keyspace.as_str(), query.query.as_str()),
                    ("commerce", "select concat(@@sql_mode, ',ANSI')")
                );
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(one("set names utf8mb4"), SetAction::Ignored { warning: None, .. }));
        assert!(matches!(one("set charset utf8"), SetAction::Ignored { warning: None, .. }));
        for sql in ["set names latin1", "set charset latin1", "set character_set_results = latin1"] {
            assert!(
                matches!(one(sql), SetAction::Ignored { warning: Some(text), .. } if text.ends_with("text travels as utf8mb4")),
                "{sql}"
            );
        }
        assert!(matches!(one("set net_read_timeout = 5"), SetAction::Ignored { warning: Some(_), .. }));
    }

    #[test]
    fn user_variables() {
        match one("set @a = 5") {
            SetAction::UserVariable { name, value: SetValue::Literal(var) } => {
                assert_eq!((name.as_str(), var.r#type(), &var.value[..]), ("a", Type::Int64, &b"5"[..]));
            }
            other => panic!("{other:?}"),
        }
        match one("set @a = @b + 1") {
            SetAction::UserVariable { value: SetValue::Query(query), .. } => {
                assert_eq!(query.query, "select :__vtudvb + 1 as `@b + 1`");
                assert!(query.needs.user_vars.contains("b"));
            }
            other => panic!("{other:?}"),
        }
    }
}
