use proptest::prelude::*;

use super::*;
use crate::constants::MAX_FRAME;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

/// What a writer puts on the wire for these payloads.
fn framed(payloads: &[&[u8]], seq: u8) -> Vec<u8> {
    let mut writer = PacketWriter::new(Vec::new());
    writer.set_seq(seq);
    for payload in payloads {
        writer.packet(payload);
    }
    runtime().block_on(writer.flush()).expect("writing to memory");
    writer.into_inner()
}

fn read_all(wire: &[u8], seq: u8, max: usize) -> Result<Vec<Vec<u8>>, PacketError> {
    runtime().block_on(async {
        let mut reader = PacketReader::new(wire, max);
        reader.set_seq(seq);
        let mut packets = Vec::new();
        loop {
            match reader.next().await {
                Ok(span) => packets.push(reader.get(span).to_vec()),
                Err(PacketError::Closed) => return Ok(packets),
                Err(error) => return Err(error),
            }
        }
    })
}

#[test]
fn a_payload_of_exactly_one_frame_is_closed_by_an_empty_frame() {
    let payload = vec![7; MAX_FRAME];
    let wire = framed(&[&payload], 254);
    assert_eq!(wire.len(), 4 + MAX_FRAME + 4);
    assert_eq!(wire[..4], [0xff, 0xff, 0xff, 254]);
    assert_eq!(wire[4 + MAX_FRAME..], [0, 0, 0, 255]);
    assert_eq!(read_all(&wire, 254, 64 << 20).expect("joined"), vec![payload]);
}

#[test]
fn large_packets_and_small_ones_mix() {
    let large = (0..17 << 20).map(|i| i as u8).collect::<Vec<_>>();
    let wire = framed(&[b"a", &large, b"", b"z"], 0);
    let packets = read_all(&wire, 0, 64 << 20).expect("read");
    assert_eq!(packets.len(), 4);
    assert!(packets[1] == large && packets[0] == b"a" && packets[2].is_empty() && packets[3] == b"z");
}

#[test]
fn the_limit_is_raised_by_the_header_alone() {
    // Only headers and one full frame: the reader must not wait for the rest.
    let mut wire = framed(&[&vec![0; MAX_FRAME]], 0);
    wire.truncate(4 + MAX_FRAME);
    wire.extend_from_slice(&[0, 0, 1, 1]);
    assert!(matches!(read_all(&wire, 0, MAX_FRAME + 65_535), Err(PacketError::TooLarge)));
    assert!(matches!(read_all(&[11, 0, 0, 0], 0, 10), Err(PacketError::TooLarge)));
}

#[test]
fn a_wrong_sequence_id_and_an_early_end_are_errors() {
    assert!(matches!(read_all(&[1, 0, 0, 5, 9], 0, 10), Err(PacketError::OutOfOrder)));
    for cut in [1, 3, 4] {
        assert!(matches!(read_all(&[1, 0, 0, 0, 9][..cut], 0, 10), Err(PacketError::Io(_))));
    }
}

#[test]
fn an_idle_reader_holds_no_large_buffer() {
    let wire = framed(&[&vec![1; 1 << 20]], 0);
    runtime().block_on(async {
        let mut reader = PacketReader::new(&wire[..], 2 << 20);
        reader.next().await.expect("a packet");
        reader.release();
        assert_eq!(reader.buf.capacity(), 0);
    });
}

/// A stream that hands out its bytes in pieces of given sizes.
struct Pieces<'a> {
    rest: &'a [u8],
    sizes: Vec<usize>,
}

impl tokio::io::AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let size = self.sizes.pop().unwrap_or(1).min(self.rest.len()).min(buf.remaining());
        let (head, tail) = self.rest.split_at(size);
        buf.put_slice(head);
        self.rest = tail;
        std::task::Poll::Ready(Ok(()))
    }
}

proptest! {
    #[test]
    fn lenenc_integers_round_trip(value: u64, shift in 0..64u32) {
        let value = value >> shift;
        let mut out = Vec::new();
        put_lenenc(&mut out, value);
        let mut cursor = Cursor::new(&out);
        prop_assert_eq!(cursor.lenenc(), Ok(value));
        prop_assert!(cursor.is_empty());
        for cut in 0..out.len() {
            prop_assert_eq!(Cursor::new(&out[..cut]).lenenc(), Err(WireError::Truncated));
        }
    }

    #[test]
    fn no_bytes_make_a_cursor_panic(bytes: Vec<u8>) {
        let mut cursor = Cursor::new(&bytes);
        while cursor.cell().is_ok() && !cursor.is_empty() {}
        let _ = Cursor::new(&bytes).nul_bytes();
        let _ = Cursor::new(&bytes).lenenc_str();
    }

    #[test]
    fn packets_survive_any_fragmentation(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..20),
        sizes in prop::collection::vec(1..2000usize, 0..100),
        seq: u8,
    ) {
        let slices = payloads.iter().map(Vec::as_slice).collect::<Vec<_>>();
        let wire = framed(&slices, seq);
        let got = runtime().block_on(async {
            let mut reader = PacketReader::new(Pieces { rest: &wire, sizes }, 4096);
            reader.set_seq(seq);
            let mut got = Vec::new();
            while let Ok(span) = reader.next().await {
                got.push(reader.get(span).to_vec());
            }
            got
        });
        prop_assert_eq!(got, payloads);
    }

    #[test]
    fn random_bytes_never_make_a_reader_panic(bytes: Vec<u8>) {
        let _ = read_all(&bytes, 0, 1 << 16);
    }
}
