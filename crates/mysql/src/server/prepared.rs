//! The prepared statements of one connection.
//!
//! Bounds: their number, the bytes of their texts together, and the bytes of parameters sent ahead together.

use std::collections::{BTreeMap, HashMap};

use vterrors::MysqlError;
use vtproto::query::BindVariable;

use super::Prepared;
use super::binary::{self, ParamType};
use crate::constants::errno;
use crate::packet::{Cursor, WireError};

#[derive(Debug)]
struct Statement {
    prepared: Prepared,
    /// Types of the last execute: a client may leave them out when they stay the same.
    types: Vec<ParamType>,
    /// Parameters sent ahead, by index.
    long_data: BTreeMap<u16, Vec<u8>>,
    /// What went wrong with them: SEND_LONG_DATA has no answer, so the execute gets it.
    long_data_error: Option<MysqlError>,
}

#[derive(Debug)]
pub(super) struct Statements {
    by_id: HashMap<u32, Statement>,
    last_id: u32,
    max_count: usize,
    max_bytes: usize,
    text_bytes: usize,
    long_bytes: usize,
}

fn unknown(id: u32, command: &str) -> MysqlError {
    let text = format!("Unknown prepared statement handler ({id}) given to {command}");
    MysqlError::new(errno::UNKNOWN_STMT_HANDLER, "HY000", text)
}

fn malformed(error: WireError) -> MysqlError {
    MysqlError::new(errno::MALFORMED_PACKET, "HY000", format!("Malformed communication packet: {error}"))
}

impl Statements {
    pub fn new(max_count: usize, max_bytes: usize) -> Self {
        Self { by_id: HashMap::new(), last_id: 0, max_count, max_bytes, text_bytes: 0, long_bytes: 0 }
    }

    /// Whether one more with this text fits.
    pub fn check_room(&self, text: &[u8]) -> Result<(), MysqlError> {
        if self.by_id.len() >= self.max_count || self.text_bytes + text.len() > self.max_bytes {
            let text = format!(
                "Can't create more than max_prepared_stmt_count statements (current value: {}, {} bytes)",
                self.max_count, self.max_bytes
            );
            return Err(MysqlError::new(errno::MAX_PREPARED_STMT_COUNT, "42000", text));
        }
        Ok(())
    }

    pub fn add(&mut self, prepared: Prepared) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != 0 && !self.by_id.contains_key(&self.last_id) {
                break;
            }
        }
        self.text_bytes += prepared.sql.len();
        let statement = Statement { prepared, types: Vec::new(), long_data: BTreeMap::new(), long_data_error: None };
        self.by_id.insert(self.last_id, statement);
        self.last_id
    }

    pub fn close(&mut self, id: u32) {
        if let Some(statement) = self.by_id.remove(&id) {
            self.text_bytes -= statement.prepared.sql.len();
            self.long_bytes -= statement.long_data.values().map(Vec::len).sum::<usize>();
        }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.max_count, self.max_bytes);
    }

    /// COM_STMT_RESET: forgets parameters sent ahead.
    pub fn reset(&mut self, id: u32) -> Result<(), MysqlError> {
        let statement = self.by_id.get_mut(&id).ok_or_else(|| unknown(id, "mysqld_stmt_reset"))?;
        self.long_bytes -= take_long_data(statement).values().map(Vec::len).sum::<usize>();
        statement.long_data_error = None;
        Ok(())
    }

    /// COM_STMT_SEND_LONG_DATA: statement id, parameter, bytes to append.
    pub fn send_long_data(&mut self, packet: &[u8]) {
        let mut cursor = Cursor::new(packet);
        let (Ok(id), Ok(param)) = (cursor.u32(), cursor.u16()) else { return };
        let Some(statement) = self.by_id.get_mut(&id) else { return };
        let data = cursor.rest();
        if param >= statement.prepared.param_count {
            let text = "Incorrect arguments to mysqld_stmt_send_long_data";
            statement.long_data_error = Some(MysqlError::new(errno::WRONG_ARGUMENTS, "HY000", text));
        } else if self.long_bytes + data.len() > self.max_bytes {
            let text = "Parameter of prepared statement which is set through mysql_send_long_data() is longer than \
                        'max_allowed_packet' bytes";
            statement.long_data_error = Some(MysqlError::new(errno::PACKET_TOO_LARGE, "08S01", text));
        } else {
            self.long_bytes += data.len();
            statement.long_data.entry(param).or_default().extend_from_slice(data);
        }
    }

    /// COM_STMT_EXECUTE: the statement and its parameters as `v1`, `v2`, ….
    pub fn execute(&mut self, packet: &[u8]) -> Result<(&Prepared, BTreeMap<String, BindVariable>), MysqlError> {
        let mut cursor = Cursor::new(packet);
        let id = cursor.u32().map_err(malformed)?;
        let statement = self.by_id.get_mut(&id).ok_or_else(|| unknown(id, "mysqld_stmt_execute"))?;
        let long_data = take_long_data(statement);
        self.long_bytes -= long_data.values().map(Vec::len).sum::<usize>();
        if let Some(error) = statement.long_data_error.take() {
            return Err(error);
        }
        let variables = parse_execute(statement, long_data, &mut cursor).map_err(malformed)?;
        Ok((&statement.prepared, variables))
    }
}

fn take_long_data(statement: &mut Statement) -> BTreeMap<u16, Vec<u8>> {
    std::mem::take(&mut statement.long_data)
}

fn parse_execute(
    statement: &mut Statement,
    mut long_data: BTreeMap<u16, Vec<u8>>,
    cursor: &mut Cursor<'_>,
) -> Result<BTreeMap<String, BindVariable>, WireError> {
    // The cursor type is only a wish: without the "cursor exists" flag in the answer, clients read the rows at once.
    // The iteration count is always 1.
    cursor.u8()?;
    cursor.u32()?;
    let count = usize::from(statement.prepared.param_count);
    if count == 0 {
        return Ok(BTreeMap::new());
    }
    let nulls = cursor.bytes(count.div_ceil(8))?;
    if cursor.u8()? == 1 {
        statement.types = (0..count).map(|_| ParamType::parse(cursor)).collect::<Result<_, _>>()?;
    }
    if statement.types.len() != count {
        return Err(WireError::Unexpected);
    }
    let mut variables = BTreeMap::new();
    for (index, of) in statement.types.iter().enumerate() {
        let value = if let Some(data) = u16::try_from(index).ok().and_then(|index| long_data.remove(&index)) {
            binary::string(data)
        } else if nulls[index / 8] & 1 << (index % 8) != 0 {
            binary::null()
        } else {
            binary::parse_param(*of, cursor)?
        };
        variables.insert(format!("v{}", index + 1), value);
    }
    if cursor.is_empty() { Ok(variables) } else { Err(WireError::Trailing) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vtproto::query::Type;

    use super::*;

    fn statements(param_count: u16) -> (Statements, u32) {
        let mut statements = Statements::new(2, 100);
        let id = statements.add(Prepared { sql: "select ?".into(), param_count, fields: Vec::new() });
        (statements, id)
    }

    /// Two parameters: TINY -1 and NULL.
    const EXECUTE: &[u8] = b"\x01\0\0\0\0\x01\0\0\0\x02\x01\x01\x00\xfd\x00\xff";

    #[test]
    fn parameters_and_remembered_types() {
        let (mut statements, id) = statements(2);
        assert_eq!(id, 1);
        let (prepared, variables) = statements.execute(EXECUTE).expect("an execute");
        assert_eq!(&prepared.sql[..], b"select ?");
        assert_eq!((variables["v1"].r#type(), &variables["v1"].value[..]), (Type::Int8, &b"-1"[..]));
        assert_eq!(variables["v2"].r#type(), Type::NullType);
        // The types are left out the second time.
        let (_, variables) = statements.execute(b"\x01\0\0\0\0\x01\0\0\0\x00\x00\x05\x02ab").expect("an execute");
        assert_eq!((&variables["v1"].value[..], &variables["v2"].value[..]), (&b"5"[..], &b"ab"[..]));
    }

    #[test]
    fn long_data_replaces_a_parameter_once() {
        let (mut statements, _) = statements(1);
        statements.send_long_data(b"\x01\0\0\0\0\0hel");
        statements.send_long_data(b"\x01\0\0\0\0\0lo");
        let packet = b"\x01\0\0\0\0\x01\0\0\0\x00\x01\xfc\x00";
        let (_, variables) = statements.execute(packet).expect("an execute");
        assert_eq!(&variables["v1"].value[..], b"hello");
        assert_eq!(statements.execute(packet).map(drop).map_err(|e| e.errno), Err(1835));
    }

    #[test]
    fn bounds() {
        let (mut statements, id) = statements(1);
        statements.send_long_data(&[&b"\x01\0\0\0\0\0"[..], &[b'x'; 101]].concat());
        let packet = b"\x01\0\0\0\0\x01\0\0\0\x00\x01\xfc\x00\x00";
        assert_eq!(statements.execute(packet).map(drop).map_err(|e| e.errno), Err(1153));
        assert!(statements.execute(packet).is_ok(), "the error is reported once");
        assert_eq!(statements.check_room(&[0; 100]).map_err(|e| e.errno), Err(1461));
        assert!(statements.check_room(b"select 1").is_ok());
        statements.add(Prepared::default());
        assert_eq!(statements.check_room(b"").map_err(|e| e.errno), Err(1461));
        statements.close(id);
        assert_eq!((statements.text_bytes, statements.long_bytes), (0, 0));
        assert_eq!(statements.execute(EXECUTE).map(drop).map_err(|e| e.errno), Err(1243));
        assert_eq!(statements.reset(id).map_err(|e| e.errno), Err(1243));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(packet: Vec<u8>, count in 0..20u16) {
            let (mut statements, _) = statements(count);
            let _ = statements.execute(&packet);
            let _ = statements.execute(&[&b"\x01\0\0\0"[..], &packet].concat());
            statements.send_long_data(&packet);
        }
    }
}
