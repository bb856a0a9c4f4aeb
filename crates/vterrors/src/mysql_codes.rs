//! Between vtrpc codes and MySQL's errno and SQLSTATE, both ways.
//!
//! Numbers and states are those of the MySQL manual, "Server Error Message Reference".

use crate::{Code, VtError};

/// What a MySQL client sees of an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (errno {errno}) (sqlstate {sqlstate})")]
pub struct MysqlError {
    pub errno: u16,
    /// Five characters.
    pub sqlstate: String,
    pub message: String,
}

impl MysqlError {
    pub fn new(errno: u16, sqlstate: impl Into<String>, message: impl Into<String>) -> Self {
        Self { errno, sqlstate: sqlstate.into(), message: message.into() }
    }
}

/// An error that mysqld sent, on its way to a vtgate.
impl From<MysqlError> for VtError {
    fn from(error: MysqlError) -> Self {
        VtError::new(code_for_errno(error.errno, &error.message), error.to_string())
    }
}

/// Numbers that clients give to errors of their own. libmariadb takes a server's error with one of them for a broken packet.
const OF_CLIENTS: std::ops::Range<u16> = 2000..3000;

/// What a MySQL client is told: the errno and SQLSTATE that the text carries, else those that stand
/// for the code. The whole text is kept.
impl From<&VtError> for MysqlError {
    fn from(error: &VtError) -> Self {
        if let Some((errno, sqlstate)) = carried(error.message()) {
            let errno = if OF_CLIENTS.contains(&errno) { 1105 } else { errno };
            return Self::new(errno, sqlstate, error.message());
        }
        let errno = match error.code() {
            Code::Canceled | Code::DeadlineExceeded | Code::Aborted => 1317,
            Code::PermissionDenied | Code::Unauthenticated => 1045,
            Code::ResourceExhausted => 1203,
            Code::Unimplemented => 1235,
            _ => 1105,
        };
        // Vitess gives every error of its own this state, whatever the number's usual one.
        Self::new(errno, "HY000", error.message())
    }
}

/// Finds `(errno N) (sqlstate S)` in a text.
fn carried(text: &str) -> Option<(u16, &str)> {
    let start = text.find("(errno ")? + "(errno ".len();
    let (number, rest) = text[start..].split_once(") (sqlstate ")?;
    let (state, _) = rest.split_once(')')?;
    (state.len() == 5).then_some(())?;
    Some((number.parse().ok()?, state))
}

/// The vtrpc code of an error that mysqld sent.
pub fn code_for_errno(errno: u16, message: &str) -> Code {
    match errno {
        1235 => Code::Unimplemented,
        // Out of disk, memory, sort memory, connections, resources; packet, user and row limits.
        1021 | 1037 | 1038 | 1040 | 1041 | 1153 | 1203 | 1226 | 1114 | 1206 => Code::ResourceExhausted,
        // Lock wait timeout; connection lost while a statement ran, which is what a KILL looks like.
        1205 | 2013 => Code::DeadlineExceeded,
        // Server gone, shutting down, cannot connect.
        2006 | 1053 | 2002 | 2003 => Code::Unavailable,
        // Unknown column, table, function, key, thread.
        1054 | 1146 | 1051 | 1176 | 1109 | 1094 | 1128 | 1305 | 1072 => Code::NotFound,
        1044 | 1045 | 1095 | 1142 | 1143 => Code::PermissionDenied,
        1227 if message.contains("failover in progress") => Code::FailedPrecondition,
        1227 => Code::PermissionDenied,
        1290 if message.contains("read-only") => Code::FailedPrecondition,
        1046 | 1091 | 1169 | 1217 | 1216 | 1451 | 1452 | 1792 | 1836 => Code::FailedPrecondition,
        1050 | 1060 | 1061 | 1062 | 1586 | 1007 => Code::AlreadyExists,
        1213 | 1078 | 1080 | 1152 => Code::Aborted,
        // Syntax errors, unknown database or collation, wrong values and value counts.
        1064 | 1048 | 1049 | 1052 | 1055 | 1063 | 1065 | 1066 | 1096 | 1110 | 1111 | 1115 | 1136 | 1140 | 1149
        | 1231 | 1241 | 1242 | 1248 | 1264 | 1265 | 1273 | 1292 | 1364 | 1365 | 1366 | 1367 | 1406 | 1690 | 1193 => {
            Code::InvalidArgument
        }
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_mysqld_reaches_the_client_with_its_own_number() {
        let sent = MysqlError::new(1062, "23000", "Duplicate entry '1' for key 'PRIMARY'");
        let error = VtError::from(sent).wrap("target: ks.0.master");
        assert_eq!(error.code(), Code::AlreadyExists);
        let seen = MysqlError::from(&error);
        assert_eq!((seen.errno, seen.sqlstate.as_str()), (1062, "23000"));
        assert!(seen.message.starts_with("target: ks.0.master: Duplicate entry"));
    }

    #[test]
    fn codes_without_a_number_of_their_own() {
        for (code, errno) in [
            (Code::Unknown, 1105),
            (Code::Canceled, 1317),
            (Code::PermissionDenied, 1045),
            (Code::ResourceExhausted, 1203),
            (Code::Unimplemented, 1235),
        ] {
            assert_eq!(MysqlError::from(&VtError::new(code, "m")).errno, errno);
        }
    }

    #[test]
    fn read_only_is_a_state_and_not_a_fault_of_the_statement() {
        let text = "The MySQL server is running with the --read-only option";
        assert_eq!(code_for_errno(1290, text), Code::FailedPrecondition);
        assert_eq!(code_for_errno(1290, "--secure-file-priv"), Code::Unknown);
    }
}
