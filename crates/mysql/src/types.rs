//! Column types: MySQL's type code and flags to and from `query.Type`, as Vitess maps them.

use vtproto::query::Type;

/// `query.Type` of a column with this protocol type code and these column flags.
pub fn from_mysql(_code: u8, _flags: u16) -> Type {
    unimplemented!()
}

/// Type code and flags that stand for a `query.Type`.
pub fn to_mysql(_type: Type) -> (u8, u16) {
    unimplemented!()
}
