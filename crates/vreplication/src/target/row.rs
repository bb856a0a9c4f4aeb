//! A row of `_vt.vreplication`: how it is read, and the statements that change it.

use std::{fmt, str::FromStr};

use mysql::Position;
use vterrors::{Code, Result, VtError};
use vtproto::query::{QueryResult, Row as ProtoRow};

/// Longest text kept in the column `message` before it is cut.
const MAX_MESSAGE: usize = 950;

/// What a stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made, and not started yet.
    Init,
    /// Copies existing rows.
    Copying,
    Running,
    /// On purpose. Only a change of its row starts it again.
    Stopped,
    /// Failed; tried again after a while.
    Error,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "Init",
            Self::Copying => "Copying",
            Self::Running => "Running",
            Self::Stopped => "Stopped",
            Self::Error => "Error",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = VtError;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Init, Self::Copying, Self::Running, Self::Stopped, Self::Error]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| VtError::new(Code::InvalidArgument, format!("unknown state of a stream: {text:?}")))
    }
}

/// One stream as its row describes it. Texts are as they stand there: a controller says in the row what is wrong with them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StreamRow {
    pub id: i64,
    pub workflow: String,
    pub source: String,
    pub pos: String,
    pub stop_pos: String,
    pub max_tps: i64,
    pub max_replication_lag: i64,
    pub cell: String,
    pub tablet_types: String,
    pub transaction_timestamp: i64,
    pub state: String,
    pub message: String,
}

impl StreamRow {
    const COLUMNS: &str = "id, workflow, source, pos, stop_pos, max_tps, max_replication_lag, cell, tablet_types, \
                           transaction_timestamp, state, message";

    pub fn select_all(db_name: &str) -> String {
        format!("select {} from _vt.vreplication where db_name = {}", Self::COLUMNS, quoted(db_name.as_bytes()))
    }

    pub fn select_one(id: i64, db_name: &str) -> String {
        format!("{} and id = {id}", Self::select_all(db_name))
    }

    /// Reads what [`Self::select_all`] gave.
    pub fn read_all(result: &QueryResult) -> Result<Vec<Self>> {
        result.rows.iter().map(Self::read).collect()
    }

    fn read(row: &ProtoRow) -> Result<Self> {
        let cells = cells(row);
        let text = |at: usize| {
            cells.get(at).copied().flatten().map_or_else(String::new, |cell| String::from_utf8_lossy(cell).into_owned())
        };
        let number = |at: usize| {
            text(at).parse::<i64>().map_err(|_| {
                VtError::new(Code::Internal, format!("column {at} of _vt.vreplication is not a number: {:?}", text(at)))
            })
        };
        Ok(Self {
            id: number(0)?,
            workflow: text(1),
            source: text(2),
            pos: text(3),
            stop_pos: text(4),
            max_tps: number(5)?,
            max_replication_lag: number(6)?,
            cell: text(7),
            tablet_types: text(8),
            transaction_timestamp: number(9)?,
            state: text(10),
            message: text(11),
        })
    }

    pub fn is_stopped(&self) -> bool {
        self.state == State::Stopped.as_str()
    }

    /// The position it has reached.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when the text is none.
    pub fn position(&self) -> Result<Position> {
        read_position(&self.pos)
    }

    pub fn stop_position(&self) -> Result<Position> {
        read_position(&self.stop_pos)
    }
}

pub(super) fn read_position(text: &str) -> Result<Position> {
    text.parse()
        .map_err(|error: mysql::replication::PositionError| VtError::new(Code::InvalidArgument, error.to_string()))
}

/// The cells of a row; `None` is NULL.
pub(super) fn cells(row: &ProtoRow) -> Vec<Option<&[u8]>> {
    let mut at = 0;
    let cell = |&length: &i64| {
        let length = usize::try_from(length).ok()?;
        at += length;
        row.values.get(at - length..at)
    };
    row.lengths.iter().map(cell).collect()
}

/// A number in the first cell of a result.
pub(super) fn first_number(result: &QueryResult) -> Option<i64> {
    let row = result.rows.first()?;
    std::str::from_utf8((*cells(row).first()?)?).ok()?.parse().ok()
}

pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    vtsql::quote_string(bytes, &mut out);
    // Only ASCII is put in front of bytes that were there before.
    String::from_utf8_lossy(&out).into_owned()
}

/// A message as the row keeps it.
pub(super) fn cut(message: &str) -> String {
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    let mut end = MAX_MESSAGE;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &message[..end])
}

pub(super) fn update_state(id: i64, state: State, message: &str) -> String {
    format!(
        "update _vt.vreplication set state = '{state}', message = {} where id = {id}",
        quoted(cut(message).as_bytes())
    )
}

/// Moves the stored position. `stop`: the stream ends here, with this message.
pub(super) fn update_position(id: i64, position: &str, now: i64, timestamp: i64, stop: Option<&str>) -> String {
    let state = stop.map_or(String::new(), |_| format!(", state = '{}'", State::Stopped));
    format!(
        "update _vt.vreplication set pos = {}, time_updated = {now}, transaction_timestamp = {timestamp}{state}, \
         message = {} where id = {id}",
        quoted(position.as_bytes()),
        quoted(cut(stop.unwrap_or_default()).as_bytes())
    )
}

/// `1,2,3`
pub(super) fn id_list(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut() {
        assert_eq!(cut("short"), "short");
        let long = "x".repeat(2000);
        assert_eq!(cut(&long), format!("{}...", "x".repeat(950)));
        assert_eq!(cut(&format!("{}é", "x".repeat(949))), format!("{}...", "x".repeat(949)));
    }

    #[test]
    fn a_row_is_read_with_its_nulls() {
        let values = [
            Some("3"),
            Some("SplitClone"),
            Some("keyspace:\"ks\" "),
            Some("MariaDB/0-1-5"),
            None,
            Some("9223372036854775807"),
            Some("9223372036854775807"),
            None,
            None,
            Some("0"),
            Some("Running"),
            Some(""),
        ];
        let row = ProtoRow {
            lengths: values.iter().map(|value| value.map_or(-1, |text| text.len() as i64)).collect(),
            values: values.iter().flatten().copied().collect::<String>().into_bytes().into(),
        };
        let read = StreamRow::read(&row).expect("a row");
        assert_eq!((read.id, read.max_tps, read.stop_pos.as_str()), (3, i64::MAX, ""));
        assert!(read.stop_position().expect("none").is_empty() && !read.is_stopped());
        assert!(StreamRow::read(&ProtoRow::default()).is_err());
    }

    #[test]
    fn statements_quote_what_others_wrote() {
        assert_eq!(
            update_state(7, State::Error, "it's \\ broken"),
            "update _vt.vreplication set state = 'Error', message = 'it\\'s \\\\ broken' where id = 7"
        );
        assert_eq!(
            update_position(7, "MariaDB/0-1-9", 11, 10, Some("done")),
            "update _vt.vreplication set pos = 'MariaDB/0-1-9', time_updated = 11, transaction_timestamp = 10, \
             state = 'Stopped', message = 'done' where id = 7"
        );
    }
}
