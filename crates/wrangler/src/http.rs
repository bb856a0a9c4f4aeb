//! A GET of a small document from a tablet's HTTP server. HTTP/1.0, so that the answer is neither
//! chunked nor kept alive; no redirects, no TLS.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Result, bail, err};

/// Largest answer taken, bytes: a `/debug/vars` of a busy tablet is some hundred KB.
const MAX_BODY: u64 = 16 << 20;

/// The body of `http://{address}{path}`, if the server answers 200 within `limit`.
pub(crate) async fn get(address: &str, path: &str, limit: Duration) -> Result<Vec<u8>> {
    let url = format!("http://{address}{path}");
    match tokio::time::timeout(limit, fetch(address, path)).await {
        Ok(Ok((200, body))) => Ok(body),
        Ok(Ok((status, _))) => bail!("GET {url}: status {status}"),
        Ok(Err(error)) => bail!("GET {url}: {error}"),
        Err(_) => bail!("GET {url}: no answer within {limit:?}"),
    }
}

async fn fetch(address: &str, path: &str) -> Result<(u16, Vec<u8>)> {
    let io = |error: std::io::Error| err!("{error}");
    let mut stream = TcpStream::connect(address).await.map_err(io)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    let mut answer = Vec::new();
    stream.take(MAX_BODY).read_to_end(&mut answer).await.map_err(io)?;
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        bail!("not an HTTP answer");
    };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| err!("not an HTTP answer"))?;
    answer.drain(..end + 4);
    Ok((status, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves one canned answer on a free port.
    async fn server(answer: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn the_body_of_a_good_answer() {
        let address = server("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello").await;
        assert_eq!(get(&address, "/x", Duration::from_secs(5)).await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn other_answers_are_errors_that_name_the_address() {
        let address = server("HTTP/1.0 404 Not Found\r\n\r\n").await;
        let error = get(&address, "/x", Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("GET http://{address}/x: status 404"));
    }
}
