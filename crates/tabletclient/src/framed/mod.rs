//! The query service over our own framed transport, between a vtgate and a vttablet of this implementation.
//!
//! The messages are those of gRPC; only what carries them differs. A connection begins with [`MAGIC`], on the tablet's gRPC
//! port, where a server of HTTP/2 expects `PRI * HTTP/2.0`: one look at the first bytes tells the two apart, and a server that
//! speaks only gRPC refuses ours at once ([decision 4](../../../../docs/decisions/0004-framed-transport.md)). Then each side
//! says which versions it speaks (`hello.rs`), and frames follow (`codec.rs`): length, kind, request id, payload. All callers
//! share one connection; one task (`drive.rs`) writes whatever they have queued (`outbox.rs`) with one call, and one read brings
//! the answers of many.
//!
//! [`dial`] makes a client of a tablet, which falls back to gRPC by itself; [`serve`] serves one connection.

mod codec;
mod connection;
mod drive;
mod hello;
mod method;
mod outbox;
mod pool;
mod server;
mod tablet;
mod tls;

use std::{sync::Arc, time::Duration};

pub use codec::{Frame, FrameCodec, FrameError, Kind, MAX_PAYLOAD};
pub use hello::MAGIC;
pub use server::{Authenticate, ServeOptions, serve};
pub use tablet::FramedTablet;
use vterrors::Result;
use vtproto::{
    framed::{Credentials, Hello},
    topodata::Tablet,
};

use crate::{
    QueryService,
    grpc::{self, DialOptions},
};

/// Bytes of one stream that a client holds unread.
const STREAM_WINDOW: u32 = 512 * 1024;
/// How long a server may be silent before it is asked whether it is there, when no flag says otherwise.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A client of a tablet's query service over framed connections; over gRPC where the tablet does not speak them. Connects
/// when first used, and again after every failure.
///
/// # Errors
/// As [`grpc::dial`].
pub fn dial(tablet: &Tablet, options: &DialOptions) -> Result<Arc<dyn QueryService>> {
    let fallback = grpc::dial(tablet, options)?;
    Ok(Arc::new(client(tablet, options, Some(fallback))?))
}

/// [`dial`] without a way back: a tablet that does not speak the transport is UNAVAILABLE.
///
/// # Errors
/// As [`grpc::dial`].
pub fn dial_only(tablet: &Tablet, options: &DialOptions) -> Result<Arc<dyn QueryService>> {
    Ok(Arc::new(client(tablet, options, None)?))
}

fn client(tablet: &Tablet, options: &DialOptions, fallback: Option<Arc<dyn QueryService>>) -> Result<FramedTablet> {
    let address = grpc::grpc_address(tablet)?;
    let tls = match &options.tls {
        Some(files) if files.is_set() => Some(tls::ClientTls::new(files, &tablet.hostname)?),
        _ => None,
    };
    let credentials = options
        .creds
        .as_ref()
        .map(|creds| Credentials { username: creds.username.clone(), password: creds.password.clone() });
    let target = pool::Target {
        address: address.into(),
        tls,
        hello: Hello {
            version_min: hello::OLDEST,
            version_max: hello::NEWEST,
            credentials,
            stream_window: STREAM_WINDOW,
        },
        connect_timeout: options.connect_timeout,
        settings: connection::Settings {
            max_message_size: options.max_message_size,
            stream_window: STREAM_WINDOW as usize,
            keepalive_time: options.keepalive_time.unwrap_or(KEEPALIVE),
            keepalive_timeout: options.keepalive_timeout,
        },
    };
    Ok(FramedTablet::new(Arc::new(pool::Pool::new(target)), fallback, options.call_timeout))
}
