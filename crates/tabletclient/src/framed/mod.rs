//! The query service over our own framed transport, between a vtgate and a vttablet of this implementation.
//!
//! The messages are those of gRPC; only what carries them differs. A connection begins with [`MAGIC`], on the tablet's gRPC
//! port, where a server of HTTP/2 expects `PRI * HTTP/2.0`: one look at the first bytes tells the two apart, and a server that
//! speaks only gRPC refuses ours at once ([decision 4](../../../../docs/decisions/0004-framed-transport.md)). Then each side
//! says which versions it speaks (`hello.rs`), and frames follow (`codec.rs`): length, kind, request id, payload. All callers
//! share one connection; one task (`drive.rs`) writes whatever they have queued (`outbox.rs`, `pieces.rs`) with one call, and one
//! read brings the answers of many.
//!
//! # What a peer can make a tablet hold
//!
//! Requests that have begun to arrive are bounded in number and bytes for a connection, and in bytes for the process; beyond
//! that the connection is closed. Of what waits to be written, a connection's bytes are bounded: above 16 MiB of short frames,
//! or 64 MiB with results, the server reads nothing more from it, so no call begins and nothing asks for an answer; above
//! 256 MiB of one connection, or 512 MiB in the process, the results of calls that had begun before are given up, and the
//! client is told so. What is queued on a connection, at about 8 MiB, is not part of the bound for the process.
//!
//! This cannot leave two ends waiting for each other. Only a server stops reading, and what ends that is writing, for which it
//! needs nothing from the client but that it reads; a client reads always, whatever it has to write, and holds what it has not
//! consumed (`connection.rs`). What is queued has its credit already, so no Credit that lies unread keeps it back; a Cancel
//! comes late at most; deadlines run on the server's own clock; the keepalive of a client counts any frame as a sign of life.
//! Nor do calls wait for calls: what holds new ones back is results that are finished, never ones that run, because those may
//! wait for a row lock that only a COMMIT behind them frees. That is why calls under way are not bounded by what they may
//! bring, and why some of it may have to be given up.
//!
//! # Results in pieces
//!
//! A result that the tablet does not want to hold ([`QueryService::execute_rows`]) comes as Items, for which the client has
//! given credit as for a stream, and its end as the Response. Who asks for it says so by the method; any other call, and
//! every result that is not large, is one Response as before. Version 1 does not know those methods.
//!
//! [`dial`] makes a client of a tablet, which falls back to gRPC by itself; [`serve`] serves one connection.

mod codec;
mod connection;
mod drive;
mod hello;
mod method;
mod outbox;
mod pieces;
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

/// Bytes of one stream, or of the pieces of one result, that a client holds unread.
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
            hop: options.hop.clone(),
        },
    };
    Ok(FramedTablet::new(Arc::new(pool::Pool::new(target)), fallback, options.call_timeout))
}
