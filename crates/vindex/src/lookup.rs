//! The lookup vindexes: a table that says where a value's rows live.
//!
//! Owns: the parameters of all eight types, the SQL of what can be done with the lookup table, and what its
//! columns hold. The SQL runs elsewhere: an instance answers [`Vindex::lookup`], and whoever has one
//! runs its texts. Bind variables are named as the columns.

use std::sync::Arc;

use keyrange::KeyspaceId;
use vterrors::{Code, VtError};
use vtproto::query::Type;

use crate::{Destination, Params, Value, Vindex, hash::hash_id, to_u64, unicode_loose_md5::loose_md5};

/// What the lookup table's last column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    /// The bytes of a keyspace id.
    Bytes,
    /// The number of which the keyspace id is the hash.
    Unhashed,
}

/// A lookup table and how it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    name: String,
    /// `table` or `keyspace.table`.
    pub table: String,
    /// Columns looked up by. The first is enough to find rows.
    pub from: Vec<String>,
    /// The column that says where.
    pub to: String,
    /// Statements run outside of the client's transaction; deletes are left out.
    pub autocommit: bool,
    /// Being filled: reads go everywhere, any value is taken as verified.
    pub write_only: bool,
    /// Rows are locked and committed around the client's transaction, so that the table may be ahead of the
    /// owner's rows but never behind.
    pub consistent: bool,
    pub unique: bool,
    to_holds: To,
    /// From-values are replaced by the first 8 bytes of their loose MD5.
    loose: bool,
}

impl Lookup {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Finds the rows of one value of the first column.
    pub fn map_sql(&self) -> String {
        let Self { table, to, .. } = self;
        let from = &self.from[0];
        format!("select {to} from {table} where {from} = :{from}")
    }

    /// Whether a value and a place belong together: a row or none.
    pub fn verify_sql(&self) -> String {
        let Self { table, to, .. } = self;
        let from = &self.from[0];
        format!("select {from} from {table} where {from} = :{from} and {to} = :{to}")
    }

    /// Adds `rows` rows; the variables of row 2 are named `column2`. `ignore` leaves rows that are there.
    pub fn insert_sql(&self, rows: usize, ignore: bool) -> String {
        let columns = self.columns();
        let ignore = if ignore { "ignore " } else { "" };
        let mut sql = format!("insert {ignore}into {}({}) values", self.table, columns.join(", "));
        for row in 0..rows {
            let names: Vec<String> = columns.iter().map(|column| format!(":{column}{row}")).collect();
            sql.push_str(if row == 0 { "(" } else { ", (" });
            sql.push_str(&names.join(", "));
            sql.push(')');
        }
        if self.autocommit && !self.unique {
            // A row that a failed statement left behind is taken over.
            let sets: Vec<String> = columns.iter().map(|column| format!("{column}=values({column})")).collect();
            sql.push_str(" on duplicate key update ");
            sql.push_str(&sets.join(", "));
        }
        sql
    }

    /// Removes one row.
    pub fn delete_sql(&self) -> String {
        let conditions: Vec<String> = self.columns().iter().map(|column| format!("{column} = :{column}")).collect();
        format!("delete from {} where {}", self.table, conditions.join(" and "))
    }

    /// Finds and locks the row that stands in the way of a new one.
    pub fn lock_sql(&self) -> String {
        format!("select {} from {} where {} for update", self.to, self.table, self.where_from())
    }

    /// Finds the row of values that are equal to the `_new` ones for mysqld. `<=>`, so that the new values choose the
    /// shard.
    pub fn equal_sql(&self) -> String {
        let conditions: Vec<String> =
            self.from.iter().map(|column| format!("{column} = :{column}_new and {column} <=> :{column}")).collect();
        format!("select {} from {} where {}", self.to, self.table, conditions.join(" and "))
    }

    /// Points a row that is there to another place.
    pub fn update_sql(&self) -> String {
        format!("update {} set {to}=:{to} where {}", self.table, self.where_from(), to = self.to)
    }

    fn where_from(&self) -> String {
        let conditions: Vec<String> = self.from.iter().map(|column| format!("{column} = :{column}")).collect();
        conditions.join(" and ")
    }

    /// The columns, the one that says where last.
    pub fn columns(&self) -> Vec<&str> {
        self.from.iter().chain([&self.to]).map(String::as_str).collect()
    }

    /// A column's value as the lookup table holds it. Errors: text that is not UTF-8, for loose ones.
    pub fn from_value(&self, value: &Value) -> Result<Value, VtError> {
        if !self.loose || value.kind == Type::NullType {
            return Ok(value.clone());
        }
        let digest = loose_md5(value).map_err(|e| e.wrap("lookup"))?;
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Ok(Value::new(Type::Uint64, u64::from_be_bytes(first).to_string()))
    }

    /// The place that a row of the lookup table says. Errors: what is no number where one belongs.
    pub fn keyspace_id(&self, value: &Value) -> Result<KeyspaceId, VtError> {
        match self.to_holds {
            To::Bytes => Ok(KeyspaceId::new(value.bytes.clone())),
            To::Unhashed => {
                let number = to_u64(value).map_err(|e| e.wrap("lookup.Map"))?;
                Ok(KeyspaceId::new(hash_id(number)))
            }
        }
    }

    /// A place as the lookup table holds it. Errors: ids that are no hash where one belongs.
    pub fn to_value(&self, id: &KeyspaceId) -> Result<Value, VtError> {
        match self.to_holds {
            To::Bytes => Ok(Value::new(Type::Varbinary, id.as_bytes())),
            To::Unhashed => Ok(Value::new(Type::Uint64, crate::hash::unhash(id)?.to_string())),
        }
    }

    /// What several rows for one value of a unique vindex are: a fault of the lookup table.
    pub fn several(&self, value: &Value) -> VtError {
        VtError::new(
            Code::Unknown,
            format!("Lookup.Map: unexpected multiple results from vindex {}: {}", self.table, value.text()),
        )
    }
}

#[derive(Debug)]
struct LookupVindex {
    lookup: Lookup,
}

impl Vindex for LookupVindex {
    fn name(&self) -> &str {
        &self.lookup.name
    }
    fn cost(&self) -> u32 {
        if self.lookup.unique { 10 } else { 20 }
    }
    fn is_unique(&self) -> bool {
        self.lookup.unique
    }
    fn needs_lookup(&self) -> bool {
        true
    }
    fn is_lookup(&self) -> bool {
        true
    }
    fn lookup(&self) -> Option<&Lookup> {
        Some(&self.lookup)
    }
    fn map(&self, _: &[Value]) -> Result<Vec<Destination>, VtError> {
        Err(self.fault())
    }
    fn verify(&self, _: &[Value], _: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        Err(self.fault())
    }
}

impl LookupVindex {
    fn fault(&self) -> VtError {
        VtError::new(Code::Internal, format!("vindex {} is asked without its table", self.lookup.name))
    }
}

/// A parameter that is `true` or `false`.
fn flag(params: &Params, name: &str) -> Result<bool, VtError> {
    match params.get(name).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(value) => {
            Err(VtError::new(Code::InvalidArgument, format!("{name} value must be 'true' or 'false': '{value}'")))
        }
    }
}

/// What tells the types apart.
struct Kind {
    unique: bool,
    to_holds: To,
    loose: bool,
    consistent: bool,
}

fn make(name: &str, params: &Params, kind: Kind) -> Result<Arc<dyn Vindex>, VtError> {
    let text = |param: &str| params.get(param).cloned().unwrap_or_default();
    let lookup = Lookup {
        name: name.to_owned(),
        table: text("table"),
        from: text("from").split(',').map(|column| column.trim().to_owned()).collect(),
        to: text("to"),
        autocommit: !kind.consistent && flag(params, "autocommit")?,
        write_only: flag(params, "write_only")?,
        consistent: kind.consistent,
        unique: kind.unique,
        to_holds: kind.to_holds,
        loose: kind.loose,
    };
    Ok(Arc::new(LookupVindex { lookup }))
}

macro_rules! kinds {
    ($($name:ident: $unique:literal $to:ident loose=$loose:literal consistent=$consistent:literal;)*) => {
        $(pub(crate) fn $name(name: &str, params: &Params) -> Result<Arc<dyn Vindex>, VtError> {
            make(name, params, Kind { unique: $unique, to_holds: To::$to, loose: $loose, consistent: $consistent })
        })*
    };
}

kinds! {
    lookup: false Bytes loose=false consistent=false;
    lookup_unique: true Bytes loose=false consistent=false;
    lookup_hash: false Unhashed loose=false consistent=false;
    lookup_hash_unique: true Unhashed loose=false consistent=false;
    lookup_unicodeloosemd5_hash: false Unhashed loose=true consistent=false;
    lookup_unicodeloosemd5_hash_unique: true Unhashed loose=true consistent=false;
    consistent_lookup: false Bytes loose=false consistent=true;
    consistent_lookup_unique: true Bytes loose=false consistent=true;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(list: &[(&str, &str)]) -> Params {
        list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn parameters_are_checked() {
        assert_eq!(
            lookup("l", &params(&[("autocommit", "yes")])).expect_err("bad").message(),
            "autocommit value must be 'true' or 'false': 'yes'"
        );
        assert!(consistent_lookup("l", &params(&[("write_only", "1")])).is_err());
    }

    #[test]
    fn statements() {
        let given = params(&[("table", "t"), ("from", "a, b"), ("to", "c"), ("autocommit", "true")]);
        let vindex = lookup("l", &given).expect("valid");
        let l = vindex.lookup().expect("a lookup");
        assert_eq!(l.map_sql(), "select c from t where a = :a");
        assert_eq!(l.verify_sql(), "select a from t where a = :a and c = :c");
        assert_eq!(
            l.insert_sql(2, true),
            "insert ignore into t(a, b, c) values(:a0, :b0, :c0), (:a1, :b1, :c1) \
             on duplicate key update a=values(a), b=values(b), c=values(c)"
        );
        assert_eq!(l.delete_sql(), "delete from t where a = :a and b = :b and c = :c");
        let vindex = consistent_lookup_unique("l", &given).expect("valid");
        let l = vindex.lookup().expect("a lookup");
        assert_eq!(l.insert_sql(1, false), "insert into t(a, b, c) values(:a0, :b0, :c0)");
        assert_eq!(l.lock_sql(), "select c from t where a = :a and b = :b for update");
        assert_eq!(l.update_sql(), "update t set c=:c where a = :a and b = :b");
        assert_eq!(l.equal_sql(), "select c from t where a = :a_new and a <=> :a and b = :b_new and b <=> :b");
        assert!(!l.autocommit, "consistent ones have no such parameter");
    }

    #[test]
    fn what_columns_hold() {
        let one = lookup_hash("l", &Params::new()).expect("valid");
        let l = one.lookup().expect("a lookup");
        let id = KeyspaceId::new(hash_id(1));
        assert_eq!(l.to_value(&id).expect("a hash"), Value::new(Type::Uint64, "1"));
        assert_eq!(l.keyspace_id(&Value::new(Type::Int64, "1")).expect("a number"), id);
        let loose = lookup_unicodeloosemd5_hash("l", &Params::new()).expect("valid");
        let l = loose.lookup().expect("a lookup");
        let from = |text: &str| l.from_value(&Value::new(Type::Varchar, text)).expect("UTF-8");
        assert_eq!(from("Test"), from("tést "));
        assert_eq!(from("Test"), Value::new(Type::Uint64, 0x0b5e_dbb4_01fd_7524_u64.to_string()));
    }
}
