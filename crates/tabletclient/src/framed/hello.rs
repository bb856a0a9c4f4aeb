//! How a framed connection begins: the magic, a Hello, a Welcome.
//!
//! Owns: the version that both ends speak. A server of gRPC refuses the magic, because it is not how HTTP/2 begins; a client
//! takes any answer that is not a Welcome as [`Refused::NotSpoken`], and none as [`Refused::Silent`].

use std::{io, time::Duration};

use bytes::BytesMut;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder};
use vterrors::VtError;
use vtproto::framed::{Hello, Welcome};

use super::codec::{Frame, FrameCodec, FrameError, Kind};

/// The first bytes of a client. They differ from those of HTTP/2 (`PRI * HTTP/2.0`) at once.
pub const MAGIC: &[u8; 8] = b"VTFRAMED";
/// Versions of the protocol that this code speaks.
pub(super) const OLDEST: u32 = 1;
pub(super) const NEWEST: u32 = 3;
/// The first version in which a result may come in pieces.
pub(super) const PIECES: u32 = 2;
/// The first version in which a response begins with the time that the tablet has had the request for.
pub(super) const TIMED: u32 = 3;
/// How long an end waits for the other's first frame.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Why a client did not get in.
#[derive(Debug)]
pub(super) enum Refused {
    /// Whoever answers does not know this protocol.
    NotSpoken(String),
    /// Nobody answers: one that does not know it and waits for more, or a server that is stopped.
    Silent(String),
    /// It does, and wants nothing of us.
    Error(VtError),
}

/// Begins as a client: the version to be spoken, and what the server sent after its Welcome.
pub(super) async fn greet<S>(io: &mut S, hello: &Hello) -> Result<(u32, BytesMut), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let strange = |what: &dyn std::fmt::Display| Refused::NotSpoken(what.to_string());
    let mut out = BytesMut::from(&MAGIC[..]);
    put(&mut out, Kind::Hello, hello).map_err(|error| strange(&error))?;
    let mut input = BytesMut::with_capacity(4096);
    let exchange = async {
        io.write_all(&out).await?;
        io.flush().await?;
        next(io, &mut input).await
    };
    let frame = match tokio::time::timeout(LIMIT, exchange).await {
        Ok(Ok(frame)) => frame,
        // Such as the end of the connection, or of TLS.
        Ok(Err(FrameError::Io(error))) => return Err(strange(&error)),
        Ok(Err(_)) => return Err(strange(&"what it answers are no frames")),
        Err(_) => return Err(Refused::Silent(format!("no answer within {LIMIT:?}"))),
    };
    if frame.kind != Kind::Welcome {
        return Err(strange(&format_args!("{:?} instead of a Welcome", frame.kind)));
    }
    let welcome = Welcome::decode(frame.payload).map_err(|error| strange(&error))?;
    if let Some(error) = VtError::from_rpc_error(welcome.error.as_ref()) {
        return Err(Refused::Error(error));
    }
    if !(OLDEST..=NEWEST).contains(&welcome.version) {
        return Err(strange(&format_args!("version {} of it", welcome.version)));
    }
    Ok((welcome.version, input))
}

/// Takes the Hello of a client. What came after it is in the buffer.
pub(super) async fn receive<S>(io: &mut S) -> Result<(Hello, BytesMut), FrameError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::with_capacity(4096);
    let exchange = async {
        let mut magic = [0; MAGIC.len()];
        io.read_exact(&mut magic).await?;
        if &magic != MAGIC {
            return Err(invalid("not the magic of a framed connection"));
        }
        let frame = next(io, &mut input).await?;
        if frame.kind != Kind::Hello {
            return Err(invalid("something else than a Hello"));
        }
        Hello::decode(frame.payload).map_err(|error| invalid(&error.to_string()))
    };
    let hello = tokio::time::timeout(LIMIT, exchange).await.unwrap_or_else(|_| Err(invalid("no Hello in time")))?;
    Ok((hello, input))
}

/// Answers it: with the newest version that both know, or with an error.
pub(super) async fn answer<S>(io: &mut S, outcome: Result<u32, VtError>) -> Result<(), FrameError>
where
    S: AsyncWrite + Unpin,
{
    let welcome = match outcome {
        Ok(version) => Welcome { version, error: None },
        Err(error) => Welcome { version: 0, error: Some(error.to_rpc_error()) },
    };
    let mut out = BytesMut::new();
    put(&mut out, Kind::Welcome, &welcome)?;
    let write = async {
        io.write_all(&out).await?;
        io.flush().await
    };
    tokio::time::timeout(LIMIT, write).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(())
}

/// The newest version of a client's that we know too.
pub(super) fn common_version(hello: &Hello) -> Option<u32> {
    let version = hello.version_max.min(NEWEST);
    (version >= hello.version_min.max(OLDEST)).then_some(version)
}

fn put(out: &mut BytesMut, kind: Kind, message: &impl Message) -> Result<(), FrameError> {
    FrameCodec.encode(Frame { kind, more: false, id: 0, payload: message.encode_to_vec().into() }, out)
}

async fn next<S: AsyncRead + Unpin>(io: &mut S, input: &mut BytesMut) -> Result<Frame, FrameError> {
    loop {
        if let Some(frame) = FrameCodec.decode(input)? {
            return Ok(frame);
        }
        if io.read_buf(input).await? == 0 {
            return Err(if input.is_empty() { invalid("closed") } else { FrameError::Truncated });
        }
    }
}

fn invalid(text: &str) -> FrameError {
    io::Error::new(io::ErrorKind::InvalidData, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_both_is_spoken() {
        let hello = |version_min, version_max| Hello { version_min, version_max, ..Default::default() };
        assert_eq!(common_version(&hello(1, 1)), Some(1), "one that knows no pieces");
        assert_eq!(common_version(&hello(1, 7)), Some(NEWEST));
        assert_eq!(common_version(&hello(NEWEST + 1, NEWEST + 3)), None, "too new for us");
        assert_eq!(common_version(&hello(0, 0)), None, "older than any");
    }
}
