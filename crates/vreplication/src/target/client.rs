//! Asking a source tablet for a stream: `binlogservice.UpdateStream`.

use futures::{StreamExt, stream::BoxStream};
use tabletclient::grpc::{self, DialOptions};
use tonic::{Request, Status, metadata::AsciiMetadataValue};
use vterrors::{Code, Result, VtError, go_code_name};
use vtproto::{
    binlogdata::{BinlogTransaction, Charset, RowTable, StreamKeyRangeRequest, StreamTablesRequest},
    binlogservice::update_stream_client::UpdateStreamClient,
    topodata::Tablet,
};

use super::{merge::Keys, source::SourceKind};
use crate::{OnDdl, StreamOptions};

/// The transactions of a source, in its order.
pub(super) type Transactions = BoxStream<'static, Result<BinlogTransaction>>;

/// Asks `tablet` for everything of `kind` behind `position`, transactions in parts; changes of `row_tables` may come as
/// rows.
///
/// # Errors
/// The tablet's own, or UNAVAILABLE when it cannot be reached. A Go tablet answers with its first transaction only, so
/// that this may wait for as long as the source is idle.
pub(super) async fn stream(
    tablet: &Tablet,
    options: &DialOptions,
    kind: &SourceKind,
    position: &str,
    charset: Charset,
    on_ddl: OnDdl,
    row_tables: Keys,
) -> Result<Transactions> {
    let wanted = StreamOptions { parts: true, on_ddl };
    let channel = grpc::endpoint(&grpc::grpc_address(tablet)?, options)?.connect_lazy();
    let mut client = UpdateStreamClient::new(channel)
        .max_decoding_message_size(options.max_message_size)
        .max_encoding_message_size(options.max_message_size);
    let position = position.to_owned();
    let row_tables = row_tables.into_iter().map(|(name, key)| RowTable { name, key }).collect();
    match kind {
        SourceKind::Tables(tables) => {
            let tables = tables.clone();
            let request = StreamTablesRequest { position, tables, charset: Some(charset), row_tables };
            let answers =
                client.stream_tables(signed(request, wanted, options)?).await.map_err(|status| broken(&status))?;
            let transaction = |answer: Result<vtproto::binlogdata::StreamTablesResponse, Status>| match answer {
                Ok(answer) => Ok(answer.binlog_transaction.unwrap_or_default()),
                Err(status) => Err(broken(&status)),
            };
            Ok(answers.into_inner().map(transaction).boxed())
        }
        SourceKind::KeyRange(range) => {
            let key_range = Some(range.clone());
            let request = StreamKeyRangeRequest { position, key_range, charset: Some(charset), row_tables };
            let answers =
                client.stream_key_range(signed(request, wanted, options)?).await.map_err(|status| broken(&status))?;
            let transaction = |answer: Result<vtproto::binlogdata::StreamKeyRangeResponse, Status>| match answer {
                Ok(answer) => Ok(answer.binlog_transaction.unwrap_or_default()),
                Err(status) => Err(broken(&status)),
            };
            Ok(answers.into_inner().map(transaction).boxed())
        }
    }
}

/// The request with its options and the credentials of the flags.
fn signed<Q>(message: Q, wanted: StreamOptions, options: &DialOptions) -> Result<Request<Q>> {
    let mut request = Request::new(message);
    wanted.write(request.metadata_mut());
    if let Some(creds) = &options.creds {
        let value = |text: &str| {
            AsciiMetadataValue::try_from(text)
                .map_err(|_| VtError::new(Code::InvalidArgument, "credentials for gRPC have to be ASCII"))
        };
        request.metadata_mut().insert("username", value(&creds.username)?);
        request.metadata_mut().insert("password", value(&creds.password)?);
    }
    Ok(request)
}

/// Why a stream ended, as Go's gRPC client prints it.
fn broken(status: &Status) -> VtError {
    let code = vterrors::code_of_status(status);
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(status);
    let mut innermost = String::new();
    while let Some(error) = cause {
        innermost = format!(": {error}");
        cause = error.source();
    }
    VtError::new(code, format!("rpc error: code = {} desc = {}{innermost}", go_code_name(code), status.message()))
}
