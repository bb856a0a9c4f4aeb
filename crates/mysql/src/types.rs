//! Column types: MySQL's type code and flags to and from `query.Type`, as Vitess maps them; and how much of a column's
//! description a caller is told.
//!
//! Numbers: MySQL manual, "Column Definition Flags" and `enum_field_types`.

use vtproto::query::{Field, Type, execute_options::IncludedFields};

/// Type codes of the protocol.
pub mod code {
    pub const DECIMAL: u8 = 0;
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const NULL: u8 = 6;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    /// Of MySQL 9; v5.0.1 has no type for it, and clients get the bytes.
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// Column flags.
pub mod flag {
    pub const NOT_NULL: u16 = 1;
    pub const UNSIGNED: u16 = 32;
    /// Binary strings, and text in a `_bin` collation.
    pub const BINARY: u16 = 128;
    pub const ENUM: u16 = 256;
    pub const SET: u16 = 2048;
    /// Set by client libraries, not by servers.
    pub const NUM: u16 = 32768;
}

/// The flags with the one that says "a number", which servers leave to the client library to set.
/// Source: `IS_NUM` of MySQL's C API.
pub fn with_num_flag(type_code: u8, flags: u16) -> u16 {
    let is_num = match type_code {
        code::TIMESTAMP => false,
        code::YEAR | code::NEWDECIMAL => true,
        _ => type_code <= code::INT24,
    };
    if is_num { flags | flag::NUM } else { flags }
}

/// `query.Type` of a column with this type code and these column flags. `None` for a code no server sends.
pub fn from_mysql(type_code: u8, flags: u16) -> Option<Type> {
    let unsigned = flags & flag::UNSIGNED != 0;
    let binary = flags & flag::BINARY != 0;
    let sign = |signed, other| if unsigned { other } else { signed };
    Some(match type_code {
        code::TINY => sign(Type::Int8, Type::Uint8),
        code::SHORT => sign(Type::Int16, Type::Uint16),
        code::INT24 => sign(Type::Int24, Type::Uint24),
        code::LONG => sign(Type::Int32, Type::Uint32),
        code::LONGLONG => sign(Type::Int64, Type::Uint64),
        code::FLOAT => Type::Float32,
        code::DOUBLE => Type::Float64,
        code::NULL => Type::NullType,
        code::TIMESTAMP | code::TIMESTAMP2 => Type::Timestamp,
        code::DATE | code::NEWDATE => Type::Date,
        code::TIME | code::TIME2 => Type::Time,
        code::DATETIME | code::DATETIME2 => Type::Datetime,
        code::YEAR if binary => Type::Varbinary,
        code::YEAR => Type::Year,
        code::BIT => Type::Bit,
        code::JSON => Type::Json,
        code::DECIMAL | code::NEWDECIMAL => Type::Decimal,
        code::TINY_BLOB | code::MEDIUM_BLOB | code::LONG_BLOB | code::BLOB if binary => Type::Blob,
        code::TINY_BLOB | code::MEDIUM_BLOB | code::LONG_BLOB | code::BLOB => Type::Text,
        code::VARCHAR | code::VAR_STRING if binary => Type::Varbinary,
        code::VARCHAR | code::VAR_STRING => Type::Varchar,
        // This order: Vitess calls an ENUM in a `_bin` collation BINARY.
        code::STRING if binary => Type::Binary,
        code::STRING if flags & flag::ENUM != 0 => Type::Enum,
        code::STRING if flags & flag::SET != 0 => Type::Set,
        code::STRING => Type::Char,
        code::ENUM => Type::Enum,
        code::SET => Type::Set,
        code::GEOMETRY => Type::Geometry,
        code::VECTOR => Type::Blob,
        _ => return None,
    })
}

/// Leaves of each field what the caller asked for.
pub fn trim_fields(fields: &mut [Field], included: IncludedFields) {
    let with_name = match included {
        IncludedFields::All => return,
        IncludedFields::TypeAndName => true,
        IncludedFields::TypeOnly => false,
    };
    for field in fields {
        let name = if with_name { std::mem::take(&mut field.name) } else { String::new() };
        *field = Field { name, r#type: field.r#type, ..Field::default() };
    }
}

/// Type code and flags that stand for a `query.Type`. The flags are those the type itself implies; a field's own are
/// to be preferred where it has any.
pub fn to_mysql(of: Type) -> (u8, u16) {
    match of {
        Type::NullType => (code::NULL, flag::BINARY),
        Type::Int8 => (code::TINY, 0),
        Type::Uint8 => (code::TINY, flag::UNSIGNED),
        Type::Int16 => (code::SHORT, 0),
        Type::Uint16 => (code::SHORT, flag::UNSIGNED),
        Type::Int24 => (code::INT24, 0),
        Type::Uint24 => (code::INT24, flag::UNSIGNED),
        Type::Int32 => (code::LONG, 0),
        Type::Uint32 => (code::LONG, flag::UNSIGNED),
        Type::Int64 => (code::LONGLONG, 0),
        Type::Uint64 => (code::LONGLONG, flag::UNSIGNED),
        Type::Float32 => (code::FLOAT, 0),
        Type::Float64 => (code::DOUBLE, 0),
        Type::Timestamp => (code::TIMESTAMP, 0),
        Type::Date => (code::DATE, flag::BINARY),
        Type::Time => (code::TIME, flag::BINARY),
        Type::Datetime => (code::DATETIME, flag::BINARY),
        Type::Year => (code::YEAR, flag::UNSIGNED),
        Type::Bit => (code::BIT, flag::UNSIGNED),
        Type::Json => (code::JSON, 0),
        Type::Decimal => (code::NEWDECIMAL, 0),
        Type::Text => (code::BLOB, 0),
        Type::Blob => (code::BLOB, flag::BINARY),
        Type::Varchar => (code::VAR_STRING, 0),
        Type::Varbinary => (code::VAR_STRING, flag::BINARY),
        Type::Char => (code::STRING, 0),
        Type::Binary => (code::STRING, flag::BINARY),
        Type::Enum => (code::STRING, flag::ENUM),
        Type::Set => (code::STRING, flag::SET),
        Type::Geometry => (code::GEOMETRY, 0),
        // Never types of a column: shown as what a client can print.
        Type::Tuple | Type::Expression => (code::VAR_STRING, flag::BINARY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_type_comes_back() {
        for number in 0..12_000 {
            let Ok(of) = Type::try_from(number) else { continue };
            if matches!(of, Type::Tuple | Type::Expression) {
                continue;
            }
            let (type_code, flags) = to_mysql(of);
            assert_eq!(from_mysql(type_code, flags), Some(of));
        }
    }

    #[test]
    fn columns_as_servers_describe_them() {
        // Type codes and flags seen from MariaDB 10.11 for: bigint unsigned auto_increment key; varbinary; enum; year.
        assert_eq!(from_mysql(8, 16_931), Some(Type::Uint64));
        assert_eq!(from_mysql(253, 128), Some(Type::Varbinary));
        assert_eq!(from_mysql(254, 256), Some(Type::Enum));
        assert_eq!(from_mysql(13, 96), Some(Type::Year));
        assert_eq!(from_mysql(200, 0), None);
    }
}
