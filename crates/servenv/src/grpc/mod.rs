//! gRPC both ways: the server of `-grpc_port` and channels to other servers, from flags.
//!
//! Owns: TLS, proof of identity (`-grpc_auth_mode` static or mtls), message sizes, keepalive, windows, and
//! which services `-service_map` opens. Services themselves belong to the programs.

mod accept;
mod auth;
mod client;
mod server;
mod subject;

pub(crate) use accept::Protocol;
pub use accept::{Accepted, Caller, Io, Magic, ServeProtocol};
pub use auth::ClientAuth;
pub use client::{ClientOptions, Tls};
pub(crate) use server::{ServerSettings, serve, serve_socket};
pub use subject::peer_common_name;

/// HTTP/2 stream window when no flag says otherwise. The default of 64 KiB stalls streams of rows.
const STREAM_WINDOW: u32 = 1 << 20;
/// HTTP/2 connection window when no flag says otherwise.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Whether a `-service_map` opens a service. Entries are names separated by commas; `-name` closes
/// one that an earlier entry opened.
pub(crate) fn offers(service_map: &str, service: &str) -> bool {
    let mut offered = false;
    for entry in service_map.split(',').map(str::trim) {
        match entry.strip_prefix('-') {
            Some(name) if name == service => offered = false,
            None if entry == service => offered = true,
            _ => {}
        }
    }
    offered
}

/// A window flag: 0 means our default.
fn window(flags: &crate::Parsed, name: &str, default: u32) -> u32 {
    match flags.int(name) {
        0 => default,
        size => u32::try_from(size).unwrap_or(default),
    }
}

/// A file named by a flag.
fn read(flag: &str, path: &str) -> Result<Vec<u8>, crate::Error> {
    std::fs::read(path).map_err(|source| crate::Error::Read { flag: flag.into(), path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::offers;

    #[test]
    fn the_service_map_opens_and_closes() {
        assert!(offers("grpc-vtctl,grpc-queryservice", "grpc-queryservice"));
        assert!(!offers("grpc-vtctl", "grpc-queryservice"));
        assert!(!offers("grpc-vtctl,-grpc-vtctl", "grpc-vtctl"));
        assert!(!offers("", "grpc-vtctl"));
    }
}
