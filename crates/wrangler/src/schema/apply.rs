//! ApplySchema: runs statements on the masters of all shards of a keyspace, the first failure ends it.
//!
//! Everything is checked before the first statement runs: every shard has a master, every statement
//! parses, none would block a large table, and all of them work in a scratch copy of the schema.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use topo::topoproto;
use vtproto::query::QueryResult;
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::Tablet;
use vtsql::{Detail, Statement, StatementKind};

use super::{Filter, get_schema, master_of, place, reload_shard};
use crate::Wrangler;
use crate::error::{Error, Result, bail, err};
use crate::logger::{info, warning};

/// More rows than this and ALTER TABLE takes too long.
const MAX_ROWS_TO_ALTER: u64 = 100_000;
/// More rows than this and any change of an existing table takes too long.
const MAX_ROWS_TO_CHANGE: u64 = 2_000_000;
/// Most rows a statement of ApplySchema may return.
const MAX_RESULT_ROWS: u64 = 10;
/// Tablets that reload their schema at once.
const RELOAD_CONCURRENCY: usize = 10;

/// What to run where.
pub(crate) struct ApplySchema {
    pub keyspace: String,
    /// The statements as one text.
    pub sql: String,
    /// The file that the text was read from, for errors; empty when it was given as it is.
    pub file: String,
    /// Run ALTERs on large tables too.
    pub allow_long_unavailability: bool,
    /// How long replicas get to have the change.
    pub wait_slave_timeout: Duration,
}

/// A statement of the text.
struct Change {
    sql: String,
    parsed: Statement,
    /// Where it stands in the text, as [`place::of_statement`] tells it.
    place: String,
}

impl Change {
    fn is_ddl(&self) -> bool {
        self.parsed.kind == StatementKind::Ddl
    }
}

/// What happened, for the error text.
#[derive(Default)]
struct Execution {
    failed: Option<Vec<ShardFailure>>,
    succeeded: Option<Vec<ShardResult>>,
    current: usize,
    /// Statements that every shard has applied: the first ones.
    applied: usize,
    executor_error: String,
}

struct ShardResult {
    shard: String,
    result: QueryResult,
    position: String,
}

struct ShardFailure {
    shard: String,
    error: String,
    /// The statement itself went well.
    applied: bool,
}

impl Execution {
    fn failed(&self) -> &[ShardFailure] {
        self.failed.as_deref().unwrap_or_default()
    }

    fn is_failure(&self) -> bool {
        !self.executor_error.is_empty() || !self.failed().is_empty()
    }

    /// Which statement failed, and what stays of those that did not: behind the document, which has neither in words.
    fn explain(&self, request: &ApplySchema, changes: &[Change]) -> String {
        let mut told = String::new();
        let failed = changes.get(self.current).filter(|_| !self.failed().is_empty());
        match failed {
            Some(change) if !request.file.is_empty() || changes.len() > 1 => told += &request.told(&change.place),
            Some(_) => {}
            None => told += &request.told_of(&self.executor_error),
        }
        let before = if failed.is_some() { " before it" } else { "" };
        match self.applied {
            0 => {}
            1 => told += &format!("1 statement{before} was applied and stays\n"),
            count => told += &format!("{count} statements{before} were applied and stay\n"),
        }
        let half_done = self.failed().iter().filter(|one| one.applied).map(|one| one.shard.as_str());
        let succeeded = self.succeeded.iter().flatten().map(|one| one.shard.as_str());
        let mut shards: Vec<&str> = succeeded.chain(half_done).collect();
        if failed.is_some() && !shards.is_empty() {
            shards.sort_unstable();
            let word = if shards.len() == 1 { "shard" } else { "shards" };
            told += &format!("the statement itself was applied on {word} {} and stays there\n", shards.join(", "));
        }
        told
    }

    /// The document that the error text holds: keys, order and nulls are what scripts read.
    fn to_json(&self, changes: &[Change], spent: Duration) -> Value {
        let failed = self.failed.as_ref().map_or(Value::Null, |list| {
            list.iter().map(|one| json!({ "Shard": one.shard, "Err": one.error })).collect()
        });
        let succeeded = self.succeeded.as_ref().map_or(Value::Null, |list| {
            list.iter()
                .map(|one| json!({ "Shard": one.shard, "Result": vtjson::go_json(&one.result), "Position": one.position }))
                .collect()
        });
        json!({
            "FailedShards": failed,
            "SuccessShards": succeeded,
            "CurSQLIndex": self.current,
            "Sqls": changes.iter().map(|change| &change.sql).collect::<Vec<_>>(),
            "ExecutorErr": self.executor_error,
            "TotalTimeSpent": u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX),
        })
    }
}

impl ApplySchema {
    /// The line of an error text that names a place in the statements.
    fn told(&self, place: &str) -> String {
        let source = if self.file.is_empty() { "-sql" } else { &self.file };
        format!("in {source}, {place}\n")
    }

    /// The same for the statement of the file that an error quotes; empty when there is none.
    fn told_of(&self, error: &str) -> String {
        let place = if self.file.is_empty() { None } else { place::of_quoted(&self.sql, error) };
        place.map_or_else(String::new, |place| self.told(&place))
    }

    /// An error of a statement, with the place of that in the file.
    fn placed(&self, error: Error) -> Error {
        let text = error.to_string();
        match self.told_of(&text) {
            told if told.is_empty() => error,
            told if text.ends_with('\n') => err!("{text}{told}"),
            told => err!("{text}\n{told}"),
        }
    }
}

/// Runs an ApplySchema.
pub(crate) async fn apply_schema(wr: &Wrangler, request: ApplySchema) -> Result {
    let keyspace = &request.keyspace;
    let masters = find_masters(wr, keyspace).await?;
    let changes = parse(&request.sql, masters.len()).map_err(|error| request.placed(error))?;
    if changes.is_empty() {
        info!(wr, "no statement to apply");
        return Ok(());
    }
    if !request.allow_long_unavailability {
        refuse_big_changes(wr, &masters[0], &changes).await.map_err(|error| request.placed(error))?;
    }
    let start = Instant::now();
    let mut execution = Execution::default();
    match wr.topo().lock_keyspace(keyspace, "ApplySchemaKeyspace").await {
        Err(error) => execution.executor_error = error.to_string(),
        Ok(lock) => {
            execute(wr, &request, &masters, &changes, &mut execution).await;
            if let Err(error) = lock.unlock().await
                && execution.executor_error.is_empty()
            {
                execution.executor_error = error.to_string();
            }
        }
    }
    if execution.is_failure() {
        let document = vtjson::go_indent(&execution.to_json(&changes, start.elapsed()));
        bail!("schema change failed, ExecuteResult: {document}\n{}", execution.explain(&request, &changes));
    }
    Ok(())
}

/// The masters of all shards: a change runs on every shard or on none.
async fn find_masters(wr: &Wrangler, keyspace: &str) -> Result<Vec<Tablet>> {
    let shards = wr
        .topo()
        .get_shard_names(keyspace)
        .await
        .map_err(|error| err!("unable to get shard names for keyspace: {keyspace}, error: {error}"))?;
    let mut masters = Vec::new();
    for shard in &shards {
        match master_of(wr, keyspace, shard).await? {
            Some(master) => masters.push(master),
            None => bail!("shard: {shard} does not have a master"),
        }
    }
    if masters.is_empty() {
        bail!("keyspace: {keyspace} does not contain any master tablets");
    }
    Ok(masters)
}

/// Takes the text apart; every statement has to parse.
fn parse(text: &str, shards: usize) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let pieces = vtsql::split_statements(text);
    let several = pieces.len() > 1;
    for piece in pieces {
        let sql = piece.trim();
        if sql.is_empty() {
            continue;
        }
        let parsed = vtsql::parse(sql).map_err(|error| {
            let place = if several {
                format!("\n(the statement at line {})", place::line_of(text, sql))
            } else {
                String::new()
            };
            err!("failed to parse sql: {sql}, got error: Code: INVALID_ARGUMENT\n{error}{place}\n")
        })?;
        if parsed.kind == StatementKind::Empty || parsed.kind == StatementKind::Comment {
            continue;
        }
        let change = Change { sql: sql.to_owned(), parsed, place: place::of_statement(text, sql) };
        if !change.is_ddl() && shards != 1 {
            bail!("non-ddl statements can only be executed for single shard keyspaces: {sql}");
        }
        changes.push(change);
    }
    Ok(changes)
}

/// Refuses what would lock up a large table.
async fn refuse_big_changes(wr: &Wrangler, master: &Tablet, changes: &[Change]) -> Result {
    use vtsql::DdlVerb as V;
    let watched: Vec<(&Change, V)> = changes
        .iter()
        .filter_map(|change| match change.parsed.detail {
            // These are fast whatever the size of the table.
            Detail::Ddl(V::CreateTable | V::DropTable | V::TruncateTable | V::RenameTable) => None,
            Detail::Ddl(verb) => Some((change, verb)),
            _ => None,
        })
        .collect();
    if watched.is_empty() {
        return Ok(());
    }
    let schema = get_schema(wr, master, &Filter::default()).await.map_err(|error| {
        let alias = topoproto::tablet_alias_string(master.alias.as_ref());
        err!("unable to get database schema, error: {error} (tablet {alias})")
    })?;
    for (change, verb) in watched {
        let rows = change
            .parsed
            .tables
            .iter()
            .filter_map(|table| schema.table_definitions.iter().find(|t| t.name == table.name))
            .map(|table| table.row_count)
            .max()
            .unwrap_or(0);
        let sql = &change.sql;
        if verb == V::AlterTable && rows > MAX_ROWS_TO_ALTER {
            bail!(
                "big schema change detected. Disable check with -allow_long_unavailability. ddl: {sql} alters a table with more than 100 thousand rows"
            );
        }
        if rows > MAX_ROWS_TO_CHANGE {
            bail!(
                "big schema change detected. Disable check with -allow_long_unavailability. ddl: {sql} changes a table with more than 2 million rows"
            );
        }
    }
    Ok(())
}

async fn execute(
    wr: &Wrangler,
    request: &ApplySchema,
    masters: &[Tablet],
    changes: &[Change],
    execution: &mut Execution,
) {
    // Shards may differ: what one of them would refuse is known before any has changed.
    let preflights = join_all(masters.iter().map(|master| preflight(wr, master, changes))).await;
    if let Some(error) = preflights.into_iter().find_map(Result::err) {
        execution.executor_error = error.to_string();
        return;
    }
    for (index, change) in changes.iter().enumerate() {
        execution.current = index;
        let outcomes = join_all(masters.iter().map(|master| run_on(wr, master, &change.sql))).await;
        let (mut failed, mut succeeded) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome {
                Ok(result) => succeeded.push(result),
                Err(failure) => failed.push(failure),
            }
        }
        let stop = !failed.is_empty();
        if !stop {
            reload_replicas(wr, request, &succeeded).await;
        }
        execution.failed = Some(failed);
        execution.succeeded = Some(succeeded);
        if stop {
            return;
        }
        execution.applied = index + 1;
    }
}

/// Tries all changes in a scratch database. What changes no definition there is not refused: rebuilding a
/// table and altering a database do not.
async fn preflight(wr: &Wrangler, master: &Tablet, changes: &[Change]) -> Result {
    let request = tmd::PreflightSchemaRequest { changes: changes.iter().map(|change| change.sql.clone()).collect() };
    wr.tmc().preflight_schema(master, request).await?;
    Ok(())
}

/// Runs one statement on one master, and says what position holds it.
async fn run_on(wr: &Wrangler, master: &Tablet, sql: &str) -> Result<ShardResult, ShardFailure> {
    let failure = |applied, error| ShardFailure { shard: master.shard.clone(), error, applied };
    let request = tmd::ExecuteFetchAsDbaRequest {
        query: sql.as_bytes().to_vec(),
        db_name: topoproto::tablet_db_name(master),
        max_rows: MAX_RESULT_ROWS,
        disable_binlogs: false,
        reload_schema: true,
    };
    let executed = wr.tmc().execute_fetch_as_dba(master, request).await;
    let result = executed.map_err(|error| failure(false, error.to_string()))?.result.unwrap_or_default();
    let asked = wr.tmc().master_position(master, tmd::MasterPositionRequest {}).await;
    let position = asked
        .map_err(|error| {
            let text = format!("couldn't get replication position after applying schema change on master: {error}");
            failure(true, text)
        })?
        .position;
    Ok(ShardResult { shard: master.shard.clone(), result, position })
}

/// Lets replicas see the change as soon as they have replicated it. Best effort.
async fn reload_replicas(wr: &Wrangler, request: &ApplySchema, shards: &[ShardResult]) {
    let reloads = join_all(
        shards
            .iter()
            .map(|one| reload_shard(wr, &request.keyspace, &one.shard, &one.position, RELOAD_CONCURRENCY, false)),
    );
    if tokio::time::timeout(request.wait_slave_timeout, reloads).await.is_err() {
        warning!(wr, "not all replicas have reloaded their schema within {:?}", request.wait_slave_timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_bad_statement_is_told() {
        let text = "create table a(id int);\n\nnonsense b;\ndrop table a";
        let error = parse(text, 1).err().expect("a syntax error").to_string();
        assert!(error.starts_with("failed to parse sql: nonsense b, got error: Code: INVALID_ARGUMENT\n"), "{error}");
        assert!(error.contains("(the statement at line 3)"), "{error}");
    }

    #[test]
    fn rows_can_be_changed_in_unsharded_keyspaces_only() {
        assert_eq!(parse("insert into t values(1)", 1).expect("allowed").len(), 1);
        assert_eq!(
            parse("insert into t values(1)", 2).err().expect("refused").to_string(),
            "non-ddl statements can only be executed for single shard keyspaces: insert into t values(1)"
        );
    }
}
