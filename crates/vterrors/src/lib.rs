//! The error that crosses processes: a vtrpc code, a message, and how both travel.
//!
//! Owns: [`VtError`]; the mapping to and from gRPC statuses, `vtrpc.RPCError` bodies and MySQL
//! errno/SQLSTATE. Libraries have their own small errors and turn into this one at their edge.
//! An error that mysqld itself sent keeps its errno and SQLSTATE on the whole way to the client:
//! they stand in the text as `(errno N) (sqlstate S)`, which is how Vitess carries them.

mod mysql_codes;

pub use mysql_codes::{MysqlError, code_for_errno};
pub use vtproto::vtrpc::Code;
use vtproto::vtrpc::{LegacyErrorCode, RpcError};

pub type Result<T, E = VtError> = std::result::Result<T, E>;

/// Longest error text put into a gRPC status: HTTP/2 header lists are limited to 8 KiB, some of
/// which other headers need.
const MAX_STATUS_TEXT: usize = 8 * 1024 - 512;
/// The same as it travels, with most bytes that are not letters or digits as `%XX`: clients here take 16 KiB.
const MAX_ENCODED_TEXT: usize = 15 * 1024;
const TRUNCATED: &str = " [...] [remainder of the error is truncated because gRPC has a size limit on errors.]";

/// A code that callers branch on and a text for people. The text is never parsed to decide
/// anything but the MySQL errno it may carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VtError {
    code: Code,
    message: String,
}

impl VtError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error said from one level further out: `context: message`.
    #[must_use]
    pub fn wrap(self, context: impl std::fmt::Display) -> Self {
        Self { message: format!("{context}: {}", self.message), ..self }
    }

    /// The form in an RPC body. The legacy code is always filled: old clients read only that.
    pub fn to_rpc_error(&self) -> RpcError {
        RpcError { legacy_code: legacy_code(self.code).into(), message: self.message.clone(), code: self.code.into() }
    }

    /// Reads an error from an RPC body; `None` when there is none.
    pub fn from_rpc_error(error: Option<&RpcError>) -> Option<Self> {
        let error = error?;
        let code = match error.code() {
            Code::Ok => code_of_legacy(error.legacy_code()),
            code => code,
        };
        (code != Code::Ok).then(|| Self::new(code, error.message.clone()))
    }

    /// What a tablet's error looks like to its caller: `vttablet: rpc error: code = C desc = TEXT`.
    pub fn from_tablet_status(status: &tonic::Status) -> Self {
        let code = code_of_status(status);
        Self::new(code, format!("vttablet: rpc error: code = {} desc = {}", go_code_name(code), status.message()))
    }

    /// A gRPC failure printed as Go's client prints it: `rpc error: code = C desc = TEXT`.
    pub fn from_status(status: &tonic::Status) -> Self {
        let code = code_of_status(status);
        Self::new(code, format!("rpc error: code = {} desc = {}", go_code_name(code), status.message()))
    }
}

impl From<VtError> for tonic::Status {
    fn from(error: VtError) -> Self {
        let mut text = error.message;
        let mut encoded = 0;
        let mut fits = |byte: u8| {
            encoded += if byte.is_ascii_alphanumeric() { 1 } else { 3 };
            encoded <= MAX_ENCODED_TEXT
        };
        let mut cut = text.bytes().take(MAX_STATUS_TEXT).take_while(|byte| fits(*byte)).count();
        if cut < text.len() {
            while !text.is_char_boundary(cut) {
                cut -= 1;
            }
            text.truncate(cut);
            text.push_str(TRUNCATED);
        }
        tonic::Status::new(tonic::Code::from(error.code as i32), text)
    }
}

/// The vtrpc code of a gRPC status: the numbers are the same.
pub fn code_of_status(status: &tonic::Status) -> Code {
    Code::try_from(status.code() as i32).unwrap_or(Code::Unknown)
}

/// The code as Go's gRPC library spells it, which users see in error texts.
pub fn go_code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Canceled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::Unauthenticated => "Unauthenticated",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
    }
}

fn legacy_code(code: Code) -> LegacyErrorCode {
    use LegacyErrorCode as L;
    match code {
        Code::Ok => L::SuccessLegacy,
        Code::Canceled => L::CancelledLegacy,
        Code::InvalidArgument => L::BadInputLegacy,
        Code::DeadlineExceeded => L::DeadlineExceededLegacy,
        Code::AlreadyExists => L::IntegrityErrorLegacy,
        Code::PermissionDenied => L::PermissionDeniedLegacy,
        Code::ResourceExhausted => L::ResourceExhaustedLegacy,
        Code::FailedPrecondition => L::QueryNotServedLegacy,
        Code::Aborted => L::NotInTxLegacy,
        Code::Internal | Code::Unavailable => L::InternalErrorLegacy,
        Code::Unauthenticated => L::UnauthenticatedLegacy,
        Code::Unknown | Code::NotFound | Code::OutOfRange | Code::Unimplemented | Code::DataLoss => {
            L::UnknownErrorLegacy
        }
    }
}

fn code_of_legacy(code: LegacyErrorCode) -> Code {
    use LegacyErrorCode as L;
    match code {
        L::SuccessLegacy => Code::Ok,
        L::CancelledLegacy => Code::Canceled,
        L::UnknownErrorLegacy => Code::Unknown,
        L::BadInputLegacy => Code::InvalidArgument,
        L::DeadlineExceededLegacy => Code::DeadlineExceeded,
        L::IntegrityErrorLegacy => Code::AlreadyExists,
        L::PermissionDeniedLegacy => Code::PermissionDenied,
        L::ResourceExhaustedLegacy => Code::ResourceExhausted,
        L::QueryNotServedLegacy => Code::FailedPrecondition,
        L::NotInTxLegacy => Code::Aborted,
        L::InternalErrorLegacy | L::TransientErrorLegacy => Code::Unavailable,
        L::UnauthenticatedLegacy => Code::Unauthenticated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let status = tonic::Status::from(VtError::new(Code::Internal, "é".repeat(6000)));
        assert!(status.message().ends_with(TRUNCATED));
        assert!(status.message().len() <= MAX_STATUS_TEXT + TRUNCATED.len());
    }

    #[test]
    fn a_body_without_a_code_is_read_by_its_legacy_code() {
        let body = RpcError { legacy_code: LegacyErrorCode::TransientErrorLegacy.into(), message: "m".into(), code: 0 };
        assert_eq!(VtError::from_rpc_error(Some(&body)), Some(VtError::new(Code::Unavailable, "m")));
        assert_eq!(VtError::from_rpc_error(Some(&RpcError::default())), None);
    }

    #[test]
    fn codes_survive_the_way_over_grpc() {
        for number in 1..=16 {
            let code = Code::try_from(number).expect("every number is a code");
            let status = tonic::Status::from(VtError::new(code, "text"));
            assert_eq!(code_of_status(&status), code);
            let body = VtError::new(code, "text").to_rpc_error();
            assert_eq!(VtError::from_rpc_error(Some(&body)), Some(VtError::new(code, "text")));
        }
    }
}
