//! `GetPermissions`: the accounts of mysqld in a form that two servers can be compared by.

use vterrors::Result;
use vtproto::{
    query::QueryResult,
    tabletmanagerdata::{DbPermission, Permissions, UserPermission},
};

use super::{manager::TabletManager, mysqld::cells};

/// Changes by itself, at another time on each server.
const NOT_COMPARED: &str = "password_last_changed";

impl TabletManager {
    pub(super) async fn get_permissions(&self) -> Result<Permissions> {
        let mut conn = self.mysqld.dba().await?;
        let users = conn.execute("SELECT * FROM mysql.user ORDER BY host, user").await?;
        let databases = conn.execute("SELECT * FROM mysql.db ORDER BY host, db, user").await?;
        Ok(Permissions { user_permissions: user_permissions(&users), db_permissions: db_permissions(&databases) })
    }
}

fn user_permissions(result: &QueryResult) -> Vec<UserPermission> {
    let rows = result.rows.iter().map(cells);
    rows.map(|row| {
        let mut permission = UserPermission::default();
        for (field, value) in result.fields.iter().zip(row) {
            let value = value.unwrap_or_default();
            match field.name.as_str() {
                "Host" => permission.host = value,
                "User" => permission.user = value,
                "Password" => permission.password_checksum = if value.is_empty() { 0 } else { crc64(value.as_bytes()) },
                NOT_COMPARED => {}
                name => drop(permission.privileges.insert(name.to_owned(), value)),
            }
        }
        permission
    })
    .collect()
}

fn db_permissions(result: &QueryResult) -> Vec<DbPermission> {
    let rows = result.rows.iter().map(cells);
    rows.map(|row| {
        let mut permission = DbPermission::default();
        for (field, value) in result.fields.iter().zip(row) {
            let value = value.unwrap_or_default();
            match field.name.as_str() {
                "Host" => permission.host = value,
                "Db" => permission.db = value,
                "User" => permission.user = value,
                name => drop(permission.privileges.insert(name.to_owned(), value)),
            }
        }
        permission
    })
    .collect()
}

/// CRC-64 of ISO 3309, bits reversed, as Go's `hash/crc64` computes it.
fn crc64(bytes: &[u8]) -> u64 {
    const POLYNOMIAL: u64 = 0xD800_0000_0000_0000;
    !bytes.iter().fold(!0, |mut crc: u64, byte| {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_iso_3309() {
        // The check value of the CRC catalogue for CRC-64/GO-ISO.
        assert_eq!(crc64(b"123456789"), 0xb909_56c7_75a4_1001);
        assert_eq!(crc64(b""), 0);
    }
}
