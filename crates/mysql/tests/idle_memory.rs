//! What an idle connection costs. Alone in its process, because it looks at the memory of the whole of it.

mod support;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of resident memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("statm");
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

async fn packet(stream: &mut TcpStream) {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.expect("a header");
    let len = usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16;
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await.expect("a payload");
}

/// Logs in and reads a result of 100 KB, so that buffers have been in use.
async fn used_connection(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    packet(&mut stream).await;
    let mut response = vec![34, 0, 0, 1, 0, 0x82, 0, 0, 0, 0, 0, 1, 33];
    response.extend_from_slice(&[0; 23]);
    response.extend_from_slice(b"u\0\0");
    response[0] = (response.len() - 4) as u8;
    stream.write_all(&response).await.expect("written");
    packet(&mut stream).await;
    stream.write_all(b"\x0e\0\0\0\x03rows 100 1000").await.expect("written");
    for _ in 0..106 {
        packet(&mut stream).await;
    }
    stream
}

#[tokio::test]
async fn idle_connections_are_cheap() {
    let running = support::start_open().await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(used_connection(running.port).await);
    }
    let before = resident();
    let count = 400;
    for _ in 0..count {
        clients.push(used_connection(running.port).await);
    }
    let each = resident().saturating_sub(before) / count;
    println!("{each} bytes a connection, both ends together");
    assert!(each < 12 << 10, "{each} bytes a connection");
}
