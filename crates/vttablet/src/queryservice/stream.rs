//! Streaming reads.
//!
//! Invariants: at most [`QUEUE`] messages wait for a consumer; while it is not asked for more, mysqld
//! is not read from. A consumer that goes away ends the statement on mysqld: the connection is closed
//! and killed. The first message holds the fields, later ones rows of about `stream_buffer_size` bytes.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use mysql::client::RawResult;
use mysql::{Connection, types::trim_fields};
use tabletclient::ResultStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use vterrors::{Code, MysqlError, VtError};
use vtproto::query::{ExecuteOptions, QueryResult, StreamExecuteRequest};
use vtsql::BindVars;

use super::conn::{DbConn, RunAs};
use super::cutover::InFlight;
use super::error::ExecError;
use super::executor::Caller;
use super::gate::Request;
use super::plan::Shape;
use super::plan_cache::Plan;
use super::server::TabletServer;

/// Messages between the reader of mysqld and the consumer.
const QUEUE: usize = 2;

type Sender = mpsc::Sender<Result<QueryResult, VtError>>;

impl TabletServer {
    /// Starts a stream. What is wrong before the first byte of mysqld is answered here.
    pub(crate) async fn start_stream(&self, request: StreamExecuteRequest) -> Result<ResultStream, VtError> {
        let inside = self.gate.enter(request.target.as_ref(), request.transaction_id != 0)?;
        let bound = request.query.clone().unwrap_or_default();
        let caller = caller(&request);
        let planned = Shape::for_streaming(&bound.sql).map_err(ExecError::from).and_then(|shape| {
            let plan = Arc::new(self.complete(shape));
            let in_flight = self.admit(&plan, request.transaction_id, true)?;
            self.check_permissions(caller, &plan, &bound.bind_variables)?;
            Ok((plan, in_flight))
        });
        let (plan, in_flight) = match planned {
            Ok(planned) => planned,
            Err(error) => return Err(self.tell(error, &bound.sql, &bound.bind_variables, caller.immediate)),
        };
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(self.clone().run_stream((inside, in_flight), request, plan, sender));
        Ok(ReceiverStream::new(receiver).boxed())
    }

    async fn run_stream(
        self,
        inside: (Request, InFlight),
        request: StreamExecuteRequest,
        plan: Arc<Plan>,
        sender: Sender,
    ) {
        let started = Instant::now();
        let bound = request.query.clone().unwrap_or_default();
        let options = request.options.clone().unwrap_or_default();
        let mut rows = 0;
        let work = self.stream_rows(&request, &plan, &bound.bind_variables, &options, &sender, &mut rows);
        let outcome = tokio::select! {
            outcome = work => outcome,
            // Nobody reads any more; dropping the work closes and kills.
            () = sender.closed() => Err(ExecError::new(Code::Canceled, "the consumer of the stream is gone")),
        };
        let elapsed = started.elapsed();
        plan.count(elapsed, elapsed, outcome.is_ok().then_some(rows));
        plan.timing.record(elapsed);
        self.stats.mysql_stream.record(elapsed);
        // The statement is over; a consumer that does not take its error must not hold up the end of serving.
        drop(inside);
        if let Err(error) = outcome
            && !sender.is_closed()
        {
            let told = self.tell(error, &bound.sql, &bound.bind_variables, request.immediate_caller_id.as_ref());
            // A consumer that stopped reading may leave now; the error is for nobody then.
            let _ = sender.send(Err(told)).await;
        }
    }

    async fn stream_rows(
        &self,
        request: &StreamExecuteRequest,
        plan: &Plan,
        vars: &BindVars,
        options: &ExecuteOptions,
        sender: &Sender,
        rows: &mut u64,
    ) -> Result<(), ExecError> {
        let sql = plan.shape.render(vars, None, "")?;
        let user = request.immediate_caller_id.as_ref().map_or("", |c| c.username.as_str());
        let run = RunAs {
            sql: plan.shape.sql.clone(),
            caller: user,
            timeout: None,
            max_rows: usize::MAX,
            raw: false,
            sink: None,
        };
        if request.transaction_id != 0 {
            let mut guard = self.tx.take_for(request.transaction_id, "for streaming query", &plan.shape)?;
            let conn = guard.get()?.conn()?;
            conn.prepare_in_transaction(&options.session_settings).await?;
            let outcome = self.stream_on(conn, plan, &sql, &run, options, sender, rows).await;
            return if conn.is_broken() { outcome.map_err(ExecError::transaction_lost) } else { outcome };
        }
        let mut place = self.streams.get(&options.session_settings).await?;
        let conn = place.get_mut()?;
        match self.stream_on(conn, plan, &sql, &run, options, sender, rows).await {
            Err(error) if error.is_connection_error() && *rows == 0 && error.is_not_sent() => {
                self.note_mysql_lost();
                place.reconnect().await?;
                let conn = place.get_mut()?;
                conn.prepare(&options.session_settings).await?;
                self.stream_on(conn, plan, &sql, &run, options, sender, rows).await
            }
            outcome => outcome,
        }
    }

    #[expect(clippy::too_many_arguments)]
    async fn stream_on(
        &self,
        conn: &mut DbConn,
        plan: &Plan,
        sql: &[u8],
        run: &RunAs<'_>,
        options: &ExecuteOptions,
        sender: &Sender,
        rows: &mut u64,
    ) -> Result<(), ExecError> {
        if plan.shape.dirties {
            conn.mark_dirty();
        }
        let slot = conn.slot.clone();
        slot.begin(run.running(true));
        let buffer = self.config.stream_buffer_size.max(1);
        let connection = &mut conn.conn;
        let work = async {
            if options.raw_rows {
                return stream_raw(connection, sql, buffer, options, sender, rows).await;
            }
            let mut stream = connection.query_stream(sql).await?;
            let mut fields = stream.take_fields();
            trim_fields(&mut fields, options.included_fields());
            send(sender, QueryResult { fields, ..QueryResult::default() }).await?;
            loop {
                let mut batch = Vec::new();
                let mut bytes = 0;
                let mut ended = false;
                while bytes < buffer {
                    let Some(more) = stream.next_batch(buffer - bytes).await? else {
                        ended = true;
                        break;
                    };
                    bytes += more.iter().map(|row| row.values.len() + row.lengths.len()).sum::<usize>();
                    batch.extend(more);
                }
                if !batch.is_empty() {
                    *rows += batch.len() as u64;
                    send(sender, QueryResult { rows: batch, ..QueryResult::default() }).await?;
                }
                if ended {
                    return Ok(());
                }
            }
        };
        let outcome = slot.abortable(work).await;
        let kill = slot.end();
        conn.last_used = Instant::now();
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => {
                conn.mark_broken();
                let error = MysqlError::new(2013, "HY000", "Lost connection to MySQL server");
                Err(ExecError::mysql(error, Code::Unknown))
            }
        };
        match kill {
            None => outcome,
            Some(reason) => conn.after_kill(reason).await,
        }
    }
}

/// Passes packets on as they come, so that not even a large row is held.
async fn stream_raw(
    connection: &mut Connection,
    sql: &[u8],
    size: usize,
    options: &ExecuteOptions,
    sender: &Sender,
    rows: &mut u64,
) -> Result<(), ExecError> {
    let (mut begun, rest) = match connection.query_raw(sql, usize::MAX, 0).await? {
        RawResult::Whole(result) => (result, None),
        RawResult::Growing(mut rest) => (rest.take_begun(), Some(rest)),
    };
    let mut fields = std::mem::take(&mut begun.fields);
    trim_fields(&mut fields, options.included_fields());
    send(sender, QueryResult { fields, ..QueryResult::default() }).await?;
    // How many rows have begun in each.
    let mut pass_on = async |raw_rows: Bytes, so_far: u64| {
        let rows_affected = so_far - std::mem::replace(rows, so_far);
        send(sender, QueryResult { raw_rows, rows_affected, ..QueryResult::default() }).await
    };
    if !begun.raw_rows.is_empty() {
        pass_on(begun.raw_rows, begun.rows_affected).await?;
    }
    let Some(mut rest) = rest else { return Ok(()) };
    while let Some(raw_rows) = rest.next(size).await? {
        pass_on(raw_rows, rest.rows()).await?;
    }
    Ok(())
}

fn caller(request: &StreamExecuteRequest) -> Caller<'_> {
    Caller {
        method: "StreamExecute",
        effective: request.effective_caller_id.as_ref(),
        immediate: request.immediate_caller_id.as_ref(),
    }
}

async fn send(sender: &Sender, result: QueryResult) -> Result<(), ExecError> {
    sender.send(Ok(result)).await.map_err(|_| ExecError::new(Code::Canceled, "the consumer of the stream is gone"))
}
