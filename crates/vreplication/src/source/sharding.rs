//! From a row to its keyspace id: by the vschema, or by the sharding column of a keyspace of the old kind.

use std::sync::Arc;

use keyrange::KeyspaceId;
use mysql::binlog::{Image, Value};
use topo::TopoServer;
use vindex::{Destination, Vindex};
use vschema::{Placement, VSchema};
use vterrors::{Code, Result, VtError};
use vtproto::query::Type;
use vtproto::topodata::KeyspaceIdType;

use super::literal::Text;
use super::table::Table;

/// How a keyspace is sharded.
#[derive(Debug, Clone)]
pub enum Sharding {
    /// By the vindexes of its vschema.
    Vindexes { vschema: Arc<VSchema>, keyspace: String },
    /// By one column, the same in every table, that holds the keyspace id itself.
    Column { name: String, kind: KeyspaceIdType },
}

/// Where the rows of a table live.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// On every shard.
    Everywhere,
    /// All at one keyspace id.
    At(Vec<u8>),
    ByVindex {
        column: usize,
        vindex: Arc<dyn Vindex>,
    },
    ByColumn {
        column: usize,
        kind: KeyspaceIdType,
    },
}

fn fault(text: String) -> VtError {
    VtError::new(Code::FailedPrecondition, text)
}

impl Sharding {
    /// Reads how `keyspace` is sharded. `by_vschema` is `-binlog_use_v3_resharding_mode`.
    pub async fn read(topo: &TopoServer, cell: &str, keyspace: &str, by_vschema: bool) -> Result<Self> {
        let record = topo.get_keyspace(keyspace).await.map_err(VtError::from)?.record;
        let column = record.sharding_column_name.clone();
        let by_column = || Self::Column { name: column.clone(), kind: record.sharding_column_type() };
        if !by_vschema {
            if column.is_empty() {
                return Err(fault(format!("keyspace {keyspace} has no sharding column")));
            }
            return Ok(by_column());
        }
        let vschema = VSchema::build(&topo.get_srv_vschema(cell).await.map_err(VtError::from)?);
        match vschema.keyspaces.get(keyspace) {
            Some(found) if found.sharded => match &found.error {
                Some(error) => Err(fault(format!("vschema of keyspace {keyspace}: {error}"))),
                None => Ok(Self::Vindexes { vschema: Arc::new(vschema), keyspace: keyspace.to_owned() }),
            },
            _ if !column.is_empty() => Ok(by_column()),
            _ => Err(fault(format!("keyspace {keyspace} has no sharded vschema in cell {cell}"))),
        }
    }

    pub(super) fn place(&self, table: &Table) -> Result<Place> {
        let column_of =
            |name: &str| table.column(name).ok_or_else(|| fault(format!("table {} has no column {name}", table.name)));
        match self {
            Self::Column { name, kind } => Ok(Place::ByColumn { column: column_of(name)?, kind: *kind }),
            Self::Vindexes { vschema, keyspace } => Ok(match vschema.placement(keyspace, &table.name)? {
                Placement::Everywhere => Place::Everywhere,
                Placement::At(id) => Place::At(id),
                Placement::ByVindex { column, vindex } => Place::ByVindex { column: column_of(&column)?, vindex },
            }),
        }
    }
}

impl Place {
    /// The keyspace id of a row. Errors name the column, and neither table nor row.
    pub fn of(&self, table: &Table, row: &Image<'_>) -> Result<Vec<u8>> {
        let cell = |column: usize| row.cells(&table.codecs).nth(column).unwrap_or(Value::Null);
        let named = |column: usize| table.columns.get(column).map_or("", |column| column.name.as_str());
        match self {
            Self::Everywhere => Ok(Vec::new()),
            Self::At(id) => Ok(id.clone()),
            Self::ByVindex { column, vindex } => {
                let value = vindex_value(table, *column, &cell(*column))?;
                let mapped = vindex.map(std::slice::from_ref(&value))?;
                match mapped.into_iter().next() {
                    Some(Destination::KeyspaceId(id)) => Ok(KeyspaceId::into_bytes(id)),
                    _ => Err(fault(format!(
                        "sharding column {}: vindex {} has no keyspace id for {value}",
                        named(*column),
                        vindex.name()
                    ))),
                }
            }
            Self::ByColumn { column, kind } => match (cell(*column), kind) {
                (Value::Uint(id), KeyspaceIdType::Uint64) => Ok(id.to_be_bytes().to_vec()),
                (Value::Int(id), KeyspaceIdType::Uint64) => Ok((id as u64).to_be_bytes().to_vec()),
                (Value::Bytes(id), KeyspaceIdType::Bytes) => Ok(id.to_vec()),
                (Value::Binary { bytes, len }, KeyspaceIdType::Bytes) => Ok(padded(bytes, len)),
                _ => Err(fault(format!("sharding column {}: not a keyspace id", named(*column)))),
            },
        }
    }
}

fn padded(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(len.max(bytes.len()), 0);
    padded
}

/// A value as vtgate would have handed it to the vindex.
fn vindex_value(table: &Table, column: usize, value: &Value<'_>) -> Result<vindex::Value> {
    let refused = |what: &str| {
        let name = table.columns.get(column).map_or("", |column| column.name.as_str());
        fault(format!("sharding column {name}: {what}"))
    };
    Ok(match value {
        Value::Null => vindex::Value::null(),
        Value::Int(number) => vindex::Value::new(Type::Int64, number.to_string()),
        Value::Uint(number) | Value::Bit(number) => vindex::Value::new(Type::Uint64, number.to_string()),
        Value::Year(year) => vindex::Value::new(Type::Uint64, year.to_string()),
        Value::Decimal(decimal) => {
            let mut text = Vec::new();
            decimal.write(&mut text);
            vindex::Value::new(Type::Decimal, text)
        }
        Value::Bytes(bytes) => match table.columns.get(column).map(|column| &column.text) {
            Some(Text::Binary) => vindex::Value::new(Type::Varbinary, *bytes),
            Some(Text::Utf8(_)) => vindex::Value::new(Type::Varchar, *bytes),
            Some(Text::Ascii(_)) if bytes.is_ascii() => vindex::Value::new(Type::Varchar, *bytes),
            // Gates compute from UTF-8.
            _ => return Err(refused("text in a character set other than UTF-8")),
        },
        Value::Binary { bytes, len } => vindex::Value::new(Type::Varbinary, padded(bytes, *len)),
        Value::Date(date) => {
            let mut text = Vec::new();
            date.write(&mut text);
            vindex::Value::new(Type::Date, text)
        }
        Value::DateTime(moment) => {
            let mut text = Vec::new();
            moment.write(&mut text);
            vindex::Value::new(Type::Datetime, text)
        }
        Value::Float(_)
        | Value::Double(_)
        | Value::Time(_)
        | Value::Timestamp(_)
        | Value::Enum(_)
        | Value::Set(_)
        | Value::Json(_)
        | Value::Geometry(_) => return Err(refused("its type cannot be a sharding key")),
    })
}
