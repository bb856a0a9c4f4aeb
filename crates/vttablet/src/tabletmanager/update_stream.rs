//! The gRPC service `binlogservice.UpdateStream`, from which destination shards read. Not built yet: it answers by name.

use std::pin::Pin;

use futures::Stream;
use tonic::{Request, Response, Status};
use vtproto::{binlogdata, binlogservice::update_stream_server::UpdateStream};

/// Answers UNIMPLEMENTED.
#[derive(Debug, Clone, Copy)]
pub struct UpdateStreamService;

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_built(method: &str) -> Status {
    Status::unimplemented(format!("UpdateStream.{method} is not built yet"))
}

#[tonic::async_trait]
impl UpdateStream for UpdateStreamService {
    type StreamKeyRangeStream = Streamed<binlogdata::StreamKeyRangeResponse>;
    type StreamTablesStream = Streamed<binlogdata::StreamTablesResponse>;

    async fn stream_key_range(
        &self,
        _: Request<binlogdata::StreamKeyRangeRequest>,
    ) -> Result<Response<Self::StreamKeyRangeStream>, Status> {
        Err(not_built("StreamKeyRange"))
    }

    async fn stream_tables(
        &self,
        _: Request<binlogdata::StreamTablesRequest>,
    ) -> Result<Response<Self::StreamTablesStream>, Status> {
        Err(not_built("StreamTables"))
    }
}
