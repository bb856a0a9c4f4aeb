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

/// The payloads of packets on their way through a writer in pieces of `sizes`, as its reader gets them.
fn passed_in_parts(payloads: &[&[u8]], sizes: &[usize]) -> Vec<Vec<u8>> {
    let wire = framed(payloads, 77);
    let mut writer = PacketWriter::new(Vec::new());
    writer.set_seq(250);
    let (mut rest, mut sizes) = (&wire[..], sizes.iter().cycle());
    while !rest.is_empty() {
        let size = (*sizes.next().expect("a size")).clamp(1, rest.len());
        let (mut piece, behind) = rest.split_at(size);
        rest = behind;
        while !piece.is_empty() {
            let taken = writer.part(piece).expect("no head is cut");
            assert!(taken > 0);
            piece = &piece[taken..];
            if writer.is_full() {
                runtime().block_on(writer.flush()).expect("writing to memory");
            }
        }
    }
    assert!(!writer.is_inside_packet());
    runtime().block_on(writer.flush()).expect("writing to memory");
    read_all(&writer.into_inner(), 250, 64 << 20).expect("packets under their new ids")
}

#[test]
fn packets_that_come_in_parts_are_passed_on_whole() {
    let large = (0..17 << 20).map(|i| i as u8).collect::<Vec<_>>();
    let (exact, small) = (vec![7; MAX_FRAME], vec![1; 3000]);
    let payloads: [&[u8]; 5] = [&small, &large, &exact, b"", b"z"];
    // No piece ends within a head: those lie at 0, 3004, and so on.
    for sizes in [vec![usize::MAX], vec![3004, 100_000], vec![3004, 4, 5 << 20]] {
        assert!(passed_in_parts(&payloads, &sizes) == payloads, "{sizes:?}");
    }
    let mut writer = PacketWriter::new(Vec::new());
    assert_eq!(writer.part(&[5, 0, 0, 0, 1]).expect("a beginning"), 5);
    assert!(writer.is_inside_packet());
    assert!(matches!(PacketWriter::new(Vec::new()).part(&[5, 0, 0]), Err(WireError::Truncated)));
}

/// Takes a byte at a time, every other time.
#[derive(Debug, Default)]
struct Reluctant {
    taken: Vec<u8>,
    ready: bool,
}

impl tokio::io::AsyncWrite for Reluctant {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.ready = !self.ready;
        if !self.ready {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        self.taken.push(buf[0]);
        std::task::Poll::Ready(Ok(1))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[test]
fn a_flush_that_is_dropped_is_gone_on_with() {
    let mut writer = PacketWriter::new(Reluctant::default());
    writer.packet(b"rows");
    {
        let mut flush = std::pin::pin!(writer.flush());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::future::Future::poll(flush.as_mut(), &mut cx).is_pending(), "a byte has left");
    }
    writer.packet(b"error");
    runtime().block_on(writer.flush()).expect("written");
    assert_eq!(writer.into_inner().taken, framed(&[b"rows", b"error"], 0));
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

/// The runs of rows (packets that do not begin with 0xfe) that a reader cuts out of a stream, and the packet behind the
/// last one.
async fn runs(reader: &mut PacketReader<Pieces<'_>>, most: Run) -> Result<(Vec<Vec<u8>>, Vec<u8>), PacketError> {
    let mut taken = Vec::new();
    loop {
        let mut run = Run::default();
        while reader.count(&mut run, most, |first| first != 0xfe)? == RunEnd::Part {
            assert!(reader.fill().await? > 0, "the stream ends inside a run");
        }
        if run.packets == 0 {
            let span = reader.next().await?;
            return Ok((taken, reader.get(span).to_vec()));
        }
        taken.push(reader.take_run(run).to_vec());
    }
}

#[test]
fn a_run_ends_before_what_does_not_belong_to_it() {
    let rows = [b"one".as_slice(), b"two", b"three"];
    for (behind, why) in [(b"\xfe\0\0".as_slice(), "the end"), (b"", "an empty packet"), (&[1; 100], "no room")] {
        let wire = framed(&[rows[0], rows[1], rows[2], behind], 254);
        let mut reader = PacketReader::new(Pieces { rest: &wire, sizes: Vec::new() }, 1 << 20);
        reader.set_seq(254);
        let most = Run { bytes: 100, packets: 10 };
        let (taken, next) = runtime().block_on(runs(&mut reader, most)).expect(why);
        assert_eq!(taken.concat(), framed(&rows, 254), "{why}");
        assert_eq!(next, behind, "{why}");
    }
}

#[test]
fn a_run_holds_no_more_packets_than_asked_for() {
    let wire = framed(&[b"a", b"b", b"c", b"d", b"e", b"\xfe"], 0);
    let mut reader = PacketReader::new(Pieces { rest: &wire, sizes: vec![wire.len()] }, 1 << 20);
    let most = Run { bytes: 100, packets: 2 };
    let (taken, _) = runtime().block_on(runs(&mut reader, most)).expect("read");
    assert_eq!(taken.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
}

#[test]
fn a_run_checks_sequence_ids_and_sizes() {
    let count = |wire: &[u8], max| {
        let mut reader = PacketReader::new(Pieces { rest: wire, sizes: vec![wire.len()] }, max);
        runtime().block_on(runs(&mut reader, Run { bytes: 100, packets: 10 }))
    };
    let mut wire = framed(&[b"a", b"b", b"\xfe"], 0);
    wire[8] = 7;
    assert!(matches!(count(&wire, 100), Err(PacketError::OutOfOrder)));
    let wire = framed(&[b"a", b"too long", b"\xfe"], 0);
    assert!(matches!(count(&wire, 5), Err(PacketError::TooLarge)));
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
    fn runs_survive_any_fragmentation(
        rows in prop::collection::vec(prop::collection::vec(1..9u8, 1..9), 0..400),
        sizes in prop::collection::vec(1..900usize, 0..100),
        packets in 1..300usize,
        bytes in 13..900usize,
        seq: u8,
    ) {
        let mut payloads = rows.iter().map(Vec::as_slice).collect::<Vec<_>>();
        payloads.push(b"\xfe");
        let wire = framed(&payloads, seq);
        let mut reader = PacketReader::new(Pieces { rest: &wire, sizes }, 4096);
        reader.set_seq(seq);
        let (taken, next) = runtime().block_on(runs(&mut reader, Run { bytes, packets })).expect("read");
        prop_assert_eq!(&taken.concat(), &wire[..wire.len() - 5]);
        prop_assert!(taken.iter().all(|run| run.len() <= bytes));
        prop_assert_eq!(next, b"\xfe");
    }

    #[test]
    fn random_bytes_never_make_a_reader_panic(bytes: Vec<u8>) {
        let _ = read_all(&bytes, 0, 1 << 16);
    }
}
