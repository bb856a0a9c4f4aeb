//! A framed connection spoken in raw bytes.

use bytes::BytesMut;
use prost::Message;
use tabletclient::framed::{Frame, FrameCodec, Kind, MAGIC};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::codec::{Decoder, Encoder};
use vtproto::framed::Hello;

pub fn bytes(kind: Kind, id: u64, payload: &[u8]) -> Vec<u8> {
    part(kind, id, payload, false)
}

pub fn part(kind: Kind, id: u64, payload: &[u8], more: bool) -> Vec<u8> {
    let mut out = BytesMut::new();
    let frame = Frame { kind, more, id, payload: payload.to_vec().into() };
    FrameCodec.encode(frame, &mut out).expect("a frame");
    out.to_vec()
}

/// A call without a deadline: the number of its method, its message.
pub fn request(id: u64, method: u8, message: &impl Message) -> Vec<u8> {
    bytes(Kind::Request, id, &[&[method, 0, 0, 0, 0], &*message.encode_to_vec()].concat())
}

pub fn hello(version_min: u32, version_max: u32) -> Vec<u8> {
    let hello = Hello { version_min, version_max, credentials: None, stream_window: 1 << 16 };
    [&MAGIC[..], &bytes(Kind::Hello, 0, &hello.encode_to_vec())].concat()
}

pub async fn read_frame(io: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> Option<Frame> {
    loop {
        if let Some(frame) = FrameCodec.decode(input).expect("a frame") {
            return Some(frame);
        }
        if io.read_buf(input).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
