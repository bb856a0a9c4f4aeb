//! Query rules: statements that the tablet refuses.
//!
//! Owns: the model, its JSON form, matching, and the sources it comes from (denied tables of the shard
//! record, a file, topo). Facts: a rule matches when all its conditions do; the first matching rule
//! that does not say CONTINUE decides.
//! Unlike Vitess v5.0.1, a condition on table names looks at every table of a statement, not only at
//! the one of a single-table statement: a join does not get around a denied table.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value, json};
use vterrors::{Code, VtError};
use vtproto::query::{BindVariable, Type};
use vtsql::BindVars;

use super::plan::PlanKind;

/// Name of the source that holds the denied tables of the shard record.
pub const BLACKLIST_RULES: &str = "BlacklistQueryRules";
/// Name of the source read from `-filecustomrules`.
pub const FILE_RULES: &str = "FileCustomRules";
/// Name of the source read from `-topocustomrule_path`.
pub const TOPO_RULES: &str = "TopoCustomRules";

/// What happens to a statement that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// Look at the next rule.
    Continue,
    /// Refuse; the caller must not try elsewhere.
    #[default]
    Fail,
    /// Refuse; the caller may try another tablet.
    FailRetry,
}

/// A rule that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(String);

impl From<RuleError> for VtError {
    fn from(error: RuleError) -> Self {
        VtError::new(Code::InvalidArgument, error.0)
    }
}

fn bad<T>(text: impl Into<String>) -> Result<T, RuleError> {
    Err(RuleError(text.into()))
}

/// A regular expression that must match the whole text; printed as it was written.
#[derive(Debug, Clone)]
struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    fn new(source: &str) -> Result<Self, RuleError> {
        match Regex::new(&format!("(?s)^(?:{source})$")) {
            Ok(regex) => Ok(Self { source: source.to_owned(), regex }),
            Err(error) => bad(format!("could not set regexp condition {source}: {error}")),
        }
    }

    fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// A table name, or `/regex/` over table names.
#[derive(Debug, Clone)]
pub(crate) enum TableCondition {
    Name(String),
    Pattern { written: String, regex: Regex },
}

impl TableCondition {
    pub(crate) fn new(written: &str) -> Result<Self, RuleError> {
        let Some(inside) = written.strip_prefix('/') else { return Ok(Self::Name(written.to_owned())) };
        let inside = inside.strip_suffix('/').unwrap_or(inside);
        match Regex::new(inside) {
            Ok(regex) => Ok(Self::Pattern { written: written.to_owned(), regex }),
            Err(error) => bad(format!("cannot compile regexp {inside} for table: {error}")),
        }
    }

    pub(crate) fn matches(&self, table: &str) -> bool {
        match self {
            Self::Name(name) => name == table,
            Self::Pattern { regex, .. } => regex.is_match(table),
        }
    }

    fn written(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Pattern { written, .. } => written,
        }
    }
}

/// How a bind variable is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    None,
    Equal,
    NotEqual,
    Less,
    GreaterEqual,
    Greater,
    LessEqual,
    Match,
    NoMatch,
    In,
    NotIn,
}

const OPERATORS: [(Operator, &str); 11] = [
    (Operator::None, ""),
    (Operator::Equal, "=="),
    (Operator::NotEqual, "!="),
    (Operator::Less, "<"),
    (Operator::GreaterEqual, ">="),
    (Operator::Greater, ">"),
    (Operator::LessEqual, "<="),
    (Operator::Match, "MATCH"),
    (Operator::NoMatch, "NOMATCH"),
    (Operator::In, "IN"),
    (Operator::NotIn, "NOTIN"),
];

#[derive(Debug, Clone)]
enum CondValue {
    None,
    Number(i128),
    Text(String),
    Pattern(Pattern),
    /// `[start, end)` over keyspace ids; an empty end is the end of the keyspace.
    Range {
        start: Vec<u8>,
        end: Vec<u8>,
    },
}

/// A condition on one bind variable.
#[derive(Debug, Clone)]
struct BindVarCond {
    name: String,
    on_absent: bool,
    on_mismatch: bool,
    op: Operator,
    value: CondValue,
}

impl BindVarCond {
    fn matches(&self, vars: &BindVars) -> bool {
        let Some(var) = vars.get(&self.name) else { return self.on_absent };
        match (&self.value, self.op) {
            (_, Operator::None) | (CondValue::None, _) => true,
            (CondValue::Number(wanted), op) => match number_of(var) {
                Some(got) => compare(got.cmp(wanted), op),
                None => self.on_mismatch,
            },
            (CondValue::Text(wanted), op) => match text_of(var) {
                Some(got) => compare(got.as_ref().cmp(wanted.as_str()), op),
                None => self.on_mismatch,
            },
            (CondValue::Pattern(pattern), op) => match text_of(var) {
                Some(got) => pattern.matches(&got) == (op == Operator::Match),
                None => self.on_mismatch,
            },
            (CondValue::Range { start, end }, op) => match id_of(var) {
                Some(id) => (id >= *start && (end.is_empty() || id < *end)) == (op == Operator::In),
                None => self.on_mismatch,
            },
        }
    }

    fn json(&self) -> Value {
        let mut out = Map::new();
        out.insert("Name".into(), self.name.clone().into());
        out.insert("OnAbsent".into(), self.on_absent.into());
        if self.op != Operator::None {
            out.insert("OnMismatch".into(), self.on_mismatch.into());
        }
        let op = OPERATORS.iter().find(|(op, _)| *op == self.op).map_or("INVALID", |(_, text)| text);
        out.insert("Operator".into(), op.into());
        if self.op != Operator::None {
            let value = match &self.value {
                CondValue::None => Value::Null,
                CondValue::Number(n) => number_json(*n),
                CondValue::Text(text) => text.clone().into(),
                CondValue::Pattern(pattern) => pattern.source.clone().into(),
                CondValue::Range { start, end } => json!({"Start": hex(start), "End": hex(end)}),
            };
            out.insert("Value".into(), value);
        }
        Value::Object(out)
    }
}

fn number_json(n: i128) -> Value {
    i64::try_from(n).map(Value::from).or_else(|_| u64::try_from(n).map(Value::from)).unwrap_or(Value::Null)
}

fn compare(order: std::cmp::Ordering, op: Operator) -> bool {
    match op {
        Operator::Equal => order.is_eq(),
        Operator::NotEqual => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::GreaterEqual => order.is_ge(),
        Operator::Greater => order.is_gt(),
        Operator::LessEqual => order.is_le(),
        Operator::None | Operator::Match | Operator::NoMatch | Operator::In | Operator::NotIn => false,
    }
}

fn number_of(var: &BindVariable) -> Option<i128> {
    // Bit 256 of the type says integral.
    (var.r#type & 256 != 0).then(|| std::str::from_utf8(&var.value).ok()?.parse().ok()).flatten()
}

fn text_of(var: &BindVariable) -> Option<std::borrow::Cow<'_, str>> {
    let quoted = var.r#type & 2048 != 0;
    quoted.then(|| String::from_utf8_lossy(&var.value))
}

fn id_of(var: &BindVariable) -> Option<Vec<u8>> {
    if let Some(n) = number_of(var) {
        return u64::try_from(n).ok().map(|n| n.to_be_bytes().to_vec());
    }
    let quoted = var.r#type & 2048 != 0 || var.r#type == Type::Varbinary as i32;
    quoted.then(|| var.value.to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One rule.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    name: String,
    description: String,
    request_ip: Option<Pattern>,
    user: Option<Pattern>,
    query: Option<Pattern>,
    /// Plan names as written; those of v5.0.1 that we do not use stand for the statements they meant.
    plans: Vec<String>,
    tables: Vec<TableCondition>,
    bind_vars: Vec<BindVarCond>,
    action: Action,
}

/// What a rule looks at in a statement.
#[derive(Debug)]
pub struct Subject<'a> {
    pub sql: &'a str,
    pub kind: PlanKind,
    pub tables: &'a [String],
    /// It may touch other tables too: conditions on tables hold.
    pub opaque: bool,
}

impl Rule {
    pub fn new(name: impl Into<String>, description: impl Into<String>, action: Action) -> Self {
        Self { name: name.into(), description: description.into(), action, ..Self::default() }
    }

    /// The rule that keeps queries away from the denied tables of a shard record.
    ///
    /// Errors: a `/regex/` that is none.
    pub fn denied_tables(tables: &[String]) -> Result<Self, RuleError> {
        let mut rule = Self::new("blacklisted_table", "enforce blacklisted tables", Action::FailRetry);
        for table in tables {
            rule.tables.push(TableCondition::new(table)?);
        }
        Ok(rule)
    }

    /// Conditions that a plan decides once and for all.
    fn applies_to(&self, subject: &Subject<'_>) -> bool {
        (self.plans.is_empty() || self.plans.iter().any(|name| subject.kind.is_called(name)))
            && (self.tables.is_empty()
                || subject.opaque
                || subject.tables.iter().any(|table| self.tables.iter().any(|cond| cond.matches(table))))
            && self.query.as_ref().is_none_or(|query| query.matches(subject.sql))
    }

    /// Conditions that each call decides.
    fn matches(&self, ip: &str, user: &str, vars: &BindVars) -> bool {
        self.request_ip.as_ref().is_none_or(|pattern| pattern.matches(ip))
            && self.user.as_ref().is_none_or(|pattern| pattern.matches(user))
            && self.bind_vars.iter().all(|cond| cond.matches(vars))
    }

    fn json(&self) -> Value {
        let mut out = Map::new();
        out.insert("Description".into(), self.description.clone().into());
        out.insert("Name".into(), self.name.clone().into());
        for (key, pattern) in [("RequestIP", &self.request_ip), ("User", &self.user), ("Query", &self.query)] {
            if let Some(pattern) = pattern {
                out.insert(key.into(), pattern.source.clone().into());
            }
        }
        if !self.plans.is_empty() {
            out.insert("Plans".into(), self.plans.clone().into());
        }
        if !self.tables.is_empty() {
            let names: Vec<Value> = self.tables.iter().map(|cond| cond.written().into()).collect();
            out.insert("TableNames".into(), names.into());
        }
        if !self.bind_vars.is_empty() {
            out.insert("BindVarConds".into(), self.bind_vars.iter().map(BindVarCond::json).collect());
        }
        match self.action {
            Action::Continue => {}
            Action::Fail => drop(out.insert("Action".into(), "FAIL".into())),
            Action::FailRetry => drop(out.insert("Action".into(), "FAIL_RETRY".into())),
        }
        Value::Object(out)
    }

    fn from_json(value: &Value) -> Result<Self, RuleError> {
        let Value::Object(fields) = value else { return bad(format!("want object for rule, got {value}")) };
        let mut rule = Self::default();
        for (key, value) in fields {
            match key.as_str() {
                "Name" => rule.name = text(key, value)?.to_owned(),
                "Description" => rule.description = text(key, value)?.to_owned(),
                "RequestIP" => rule.request_ip = Some(Pattern::new(text(key, value)?)?),
                "User" => rule.user = Some(Pattern::new(text(key, value)?)?),
                "Query" => rule.query = Some(Pattern::new(text(key, value)?)?),
                "Plans" => {
                    for plan in list(key, value)? {
                        let name = text(key, plan)?;
                        if !PlanKind::is_known_name(name) {
                            return bad(format!("invalid plan name: {name}"));
                        }
                        rule.plans.push(name.to_owned());
                    }
                }
                "TableNames" => {
                    for table in list(key, value)? {
                        rule.tables.push(TableCondition::new(text(key, table)?)?);
                    }
                }
                "BindVarConds" => {
                    for cond in list(key, value)? {
                        rule.bind_vars.push(cond_from_json(cond)?);
                    }
                }
                "Action" => {
                    rule.action = match text(key, value)? {
                        "FAIL" => Action::Fail,
                        "FAIL_RETRY" => Action::FailRetry,
                        "CONTINUE" => Action::Continue,
                        other => return bad(format!("invalid Action {other}")),
                    }
                }
                _ => return bad(format!("unrecognized tag {key}")),
            }
        }
        Ok(rule)
    }
}

fn text<'a>(key: &str, value: &'a Value) -> Result<&'a str, RuleError> {
    value.as_str().ok_or_else(|| RuleError(format!("want string for {key}")))
}

fn list<'a>(key: &str, value: &'a Value) -> Result<&'a [Value], RuleError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| RuleError(format!("want list for {key}")))
}

fn cond_from_json(value: &Value) -> Result<BindVarCond, RuleError> {
    let Value::Object(fields) = value else { return bad("want json object for bind var conditions") };
    let Some(name) = fields.get("Name").and_then(Value::as_str) else {
        return bad("Name missing in BindVarConds");
    };
    let Some(on_absent) = fields.get("OnAbsent").and_then(Value::as_bool) else {
        return bad("OnAbsent missing in BindVarConds");
    };
    let Some(op) = fields.get("Operator").and_then(Value::as_str) else {
        return bad("Operator missing in BindVarConds");
    };
    let Some((op, _)) = OPERATORS.iter().find(|(_, text)| *text == op) else {
        return bad(format!("invalid Operator {op}"));
    };
    let mut cond =
        BindVarCond { name: name.to_owned(), on_absent, on_mismatch: false, op: *op, value: CondValue::None };
    if cond.op == Operator::None {
        return Ok(cond);
    }
    let Some(value) = fields.get("Value") else { return bad("Value missing in BindVarConds") };
    let is_pattern = matches!(cond.op, Operator::Match | Operator::NoMatch);
    let is_range = matches!(cond.op, Operator::In | Operator::NotIn);
    cond.value = match value {
        Value::Number(n) if !is_pattern && !is_range => {
            let n = n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
            CondValue::Number(n.ok_or_else(|| RuleError(format!("want int64/uint64: {value}")))?)
        }
        Value::String(s) if is_pattern => CondValue::Pattern(Pattern::new(s)?),
        Value::String(s) if !is_range => CondValue::Text(s.clone()),
        Value::Object(range) if is_range => {
            let end = |key: &str| match range.get(key).and_then(Value::as_str) {
                Some(s) => unhex(s),
                None => bad(format!("{key} missing in the keyrange of a condition")),
            };
            CondValue::Range { start: end("Start")?, end: end("End")? }
        }
        _ => return bad(format!("invalid Value for Operator: {value}")),
    };
    let Some(on_mismatch) = fields.get("OnMismatch").and_then(Value::as_bool) else {
        return bad("OnMismatch missing in BindVarConds");
    };
    cond.on_mismatch = on_mismatch;
    Ok(cond)
}

fn unhex(text: &str) -> Result<Vec<u8>, RuleError> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    match digits {
        Some(digits) if digits.len().is_multiple_of(2) => Ok(digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()),
        _ => bad(format!("want hexadecimal digits: {text}")),
    }
}

/// An ordered list of rules.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Reads the JSON list of a rules file.
    ///
    /// Errors: name the tag and what was wanted.
    pub fn from_json(json: &str) -> Result<Self, RuleError> {
        let value: Value = match serde_json::from_str(json) {
            Ok(value) => value,
            Err(error) => return bad(error.to_string()),
        };
        let Value::Array(rules) = value else { return bad("want a list of rules") };
        Ok(Self(rules.iter().map(Rule::from_json).collect::<Result<_, _>>()?))
    }

    pub fn json(&self) -> Value {
        self.0.iter().map(Rule::json).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules that a statement may fall under, whoever sends it.
    pub fn filter(&self, subject: &Subject<'_>) -> Rules {
        Self(self.0.iter().filter(|rule| rule.applies_to(subject)).cloned().collect())
    }

    /// Lets a call through or refuses it.
    pub fn check(&self, ip: &str, user: &str, vars: &BindVars) -> Result<(), VtError> {
        for rule in &self.0 {
            let code = match rule.action {
                Action::Continue => continue,
                Action::Fail => Code::InvalidArgument,
                Action::FailRetry => Code::FailedPrecondition,
            };
            if rule.matches(ip, user, vars) {
                return Err(VtError::new(code, format!("disallowed due to rule: {}", rule.description)));
            }
        }
        Ok(())
    }
}

/// Rules by source.
#[derive(Debug, Clone, Default)]
pub struct RuleSources(BTreeMap<String, Rules>);

impl RuleSources {
    /// Only the denied tables, none yet.
    pub fn new() -> Self {
        Self(BTreeMap::from([(BLACKLIST_RULES.to_owned(), Rules::default())]))
    }

    pub fn set(&mut self, source: &str, rules: Rules) {
        self.0.insert(source.to_owned(), rules);
    }

    /// The rules of all sources that a statement may fall under.
    pub fn filter(&self, subject: &Subject<'_>) -> Rules {
        Rules(self.0.values().flat_map(|rules| rules.filter(subject).0).collect())
    }

    /// Whether there is a rule with a condition on texts.
    pub fn read_texts(&self) -> bool {
        self.0.values().any(|rules| rules.0.iter().any(|rule| rule.query.is_some()))
    }

    /// What `/debug/query_rules` shows.
    pub fn json(&self) -> Value {
        Value::Object(self.0.iter().map(|(source, rules)| (source.clone(), rules.json())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject<'a>(kind: PlanKind, tables: &'a [String]) -> Subject<'a> {
        Subject { sql: "select * from t", kind, tables, opaque: false }
    }

    fn var(kind: Type, value: &str) -> BindVariable {
        BindVariable { r#type: kind.into(), value: value.to_owned().into(), values: vec![] }
    }

    #[test]
    fn a_denied_table_is_refused_wherever_it_stands() {
        let rules = Rules::new(vec![Rule::denied_tables(&["customer".into(), "/^cor/".into()]).expect("a rule")]);
        for tables in [vec!["customer"], vec!["product", "corder"]] {
            let tables: Vec<String> = tables.into_iter().map(String::from).collect();
            let found = rules.filter(&subject(PlanKind::PassSelect, &tables));
            let refused = found.check("", "", &BindVars::new()).expect_err("refused");
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert_eq!(refused.message(), "disallowed due to rule: enforce blacklisted tables");
        }
        assert!(rules.filter(&subject(PlanKind::PassSelect, &["product".into()])).is_empty());
    }

    #[test]
    fn rules_print_what_they_read() {
        let text = r#"[{"Description":"no","Name":"r1","RequestIP":"1.2.*","User":"bob","Query":"select.*","Plans":["PASS_SELECT","INSERT_PK"],"TableNames":["t"],"BindVarConds":[{"Name":"a","OnAbsent":true,"OnMismatch":false,"Operator":"==","Value":1},{"Name":"b","OnAbsent":true,"Operator":""}],"Action":"FAIL_RETRY"}]"#;
        let rules = Rules::from_json(text).expect("rules");
        assert_eq!(rules.json().to_string(), text);
        for (text, error) in [
            (r#"[{"Nme":"x"}]"#, "unrecognized tag Nme"),
            (r#"[{"Name":1}]"#, "want string for Name"),
            (r#"[{"Action":"MAYBE"}]"#, "invalid Action MAYBE"),
            (r#"[{"Plans":["X"]}]"#, "invalid plan name: X"),
            ("{}", "want a list of rules"),
        ] {
            assert_eq!(Rules::from_json(text).expect_err(text).to_string(), error);
        }
    }

    #[test]
    fn every_condition_has_to_hold() {
        let rules = Rules::from_json(
            r#"[{"Description":"d","User":"bob","Plans":["DML_PK"],
                "BindVarConds":[{"Name":"a","OnAbsent":false,"OnMismatch":false,"Operator":">=","Value":10}]}]"#,
        )
        .expect("rules");
        assert!(rules.filter(&subject(PlanKind::PassSelect, &[])).is_empty());
        let rules = rules.filter(&subject(PlanKind::Update, &[]));
        let vars = |value: &str| BindVars::from([("a".to_owned(), var(Type::Int64, value))]);
        assert!(rules.check("", "bob", &vars("9")).is_ok());
        assert!(rules.check("", "bo", &vars("10")).is_ok());
        assert!(rules.check("", "bob", &BindVars::new()).is_ok());
        let refused = rules.check("", "bob", &vars("10")).expect_err("refused");
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "disallowed due to rule: d"));
    }

    #[test]
    fn the_page_lists_sources() {
        assert_eq!(RuleSources::new().json(), json!({"BlacklistQueryRules": []}));
    }
}
