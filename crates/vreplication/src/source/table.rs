//! A table whose rows are streamed: what its row events say of it, joined with what information_schema says.
//!
//! Invariant: the two agree in the number of columns and in what each of them is, or there is no [`Table`]; rows are
//! never put under names that may not be theirs.

use mysql::binlog::{Codec, TableMap, TextKind};
use vterrors::{Code, Result, VtError};

use super::columns::{Column, TableColumns};
use super::literal::Text;

/// A column of a streamed table.
#[derive(Debug, Clone)]
pub(super) struct StreamedColumn {
    pub name: String,
    /// The name in backquotes, with `=` behind it.
    pub assign: Vec<u8>,
    pub text: Text,
    /// Appears in what is written; a generated column does not.
    pub written: bool,
    /// Names the row.
    pub key: bool,
}

/// A streamed table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub name: String,
    /// The name in backquotes.
    pub quoted: Vec<u8>,
    pub codecs: Vec<Codec>,
    pub columns: Vec<StreamedColumn>,
    /// The table has a key; without one a row is named by all its columns.
    pub has_key: bool,
}

pub(super) fn backquoted(name: &str) -> Vec<u8> {
    format!("`{}`", name.replace('`', "``")).into_bytes()
}

impl Table {
    pub fn new(map: &TableMap, schema: &TableColumns) -> Result<Self> {
        let mismatch = |what: String| {
            VtError::new(
                Code::FailedPrecondition,
                format!(
                    "table {}: its rows in the binlog do not fit its columns now ({what}): it was altered after they were \
                     written; binlog_row_metadata=FULL keeps the columns with the rows",
                    map.table
                ),
            )
        };
        let known = columns_of(map, schema, &mismatch)?;
        let mut codecs = Vec::with_capacity(map.columns.len());
        let mut columns = Vec::with_capacity(map.columns.len());
        let key: Vec<&str> = match (&map.names, &map.primary_key) {
            (Some(names), Some(key)) => key.iter().filter_map(|&at| names.get(at).map(String::as_str)).collect(),
            _ => schema.key.iter().map(String::as_str).collect(),
        };
        for (index, (def, column)) in map.columns.iter().zip(&known).enumerate() {
            if !fits(&def.codec, column) {
                return Err(mismatch(format!("column {} is {}", column.name, column.data_type)));
            }
            let unsigned = map.unsigned.as_ref().and_then(|signs| signs.get(index).copied());
            let mut codec = def.codec.with_sign(unsigned.unwrap_or(column.unsigned));
            if column.data_type == "binary" {
                codec = codec.as_binary();
            }
            codecs.push(codec);
            let mut assign = backquoted(&column.name);
            assign.push(b'=');
            columns.push(StreamedColumn {
                assign,
                text: Text::of_column(&column.data_type, column.charset.as_deref()),
                written: !column.generated,
                key: key.iter().any(|name| name.eq_ignore_ascii_case(&column.name)),
                name: column.name.clone(),
            });
        }
        // A key of which a part is generated still names a row, for a WHERE may use what cannot be written.
        let has_key = !key.is_empty() && columns.iter().filter(|column| column.key).count() == key.len();
        Ok(Self { name: map.table.clone(), quoted: backquoted(&map.table), codecs, columns, has_key })
    }

    /// Whether these columns, in any order, are the key, and all of it can be written.
    pub fn is_keyed_by(&self, key: &[String]) -> bool {
        let own: Vec<&StreamedColumn> = self.columns.iter().filter(|column| column.key).collect();
        self.has_key
            && own.len() == key.len()
            && own.iter().all(|column| column.written && key.iter().any(|name| name.eq_ignore_ascii_case(&column.name)))
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }
}

/// The columns of the rows, in their order: by name where the event has names, else by place.
fn columns_of(map: &TableMap, schema: &TableColumns, mismatch: &impl Fn(String) -> VtError) -> Result<Vec<Column>> {
    let Some(names) = &map.names else {
        if schema.columns.len() != map.columns.len() {
            return Err(mismatch(format!("{} instead of {}", map.columns.len(), schema.columns.len())));
        }
        return Ok(schema.columns.clone());
    };
    names
        .iter()
        .map(|name| {
            let found = schema.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
            found.cloned().ok_or_else(|| mismatch(format!("column {name} is gone")))
        })
        .collect()
}

/// Whether rows with this codec can have been written for a column of this type.
fn fits(codec: &Codec, column: &Column) -> bool {
    let of = column.data_type.as_str();
    match codec {
        Codec::Int { bytes, .. } => {
            *bytes
                == match of {
                    "tinyint" => 1,
                    "smallint" => 2,
                    "mediumint" => 3,
                    "int" => 4,
                    "bigint" => 8,
                    _ => return false,
                }
        }
        Codec::Float => of == "float",
        Codec::Double => of == "double",
        Codec::Decimal { .. } => of == "decimal",
        Codec::Year => of == "year",
        Codec::OldTimestamp | Codec::Timestamp { .. } => of == "timestamp",
        Codec::OldDateTime | Codec::DateTime { .. } => of == "datetime",
        Codec::OldTime | Codec::Time { .. } => of == "time",
        Codec::Date => of == "date",
        Codec::Bit { .. } => of == "bit",
        Codec::Enum { .. } => of == "enum",
        Codec::Set { .. } => of == "set",
        Codec::Text { kind: TextKind::Fixed, .. } | Codec::Binary { .. } => {
            matches!(of, "char" | "binary" | "uuid" | "inet4" | "inet6")
        }
        Codec::Text { kind: TextKind::Variable, .. } => matches!(of, "varchar" | "varbinary"),
        Codec::Text { kind: TextKind::Blob, .. } => {
            // MariaDB's JSON is a text.
            of.ends_with("blob") || of.ends_with("text") || matches!(of, "json" | "vector")
        }
        Codec::Json { .. } => of == "json",
        Codec::Geometry { .. } => GEOMETRIES.contains(&of),
    }
}

const GEOMETRIES: [&str; 10] = [
    "geometry",
    "point",
    "linestring",
    "polygon",
    "multipoint",
    "multilinestring",
    "multipolygon",
    "geometrycollection",
    "geomcollection",
    "geom_collection",
];
