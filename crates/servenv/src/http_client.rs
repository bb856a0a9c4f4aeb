//! A GET of a small document from another server. HTTP/1.0, so that the answer is neither chunked nor kept alive; no
//! redirects, no TLS.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest answer taken, bytes: a `/debug/vars` of a busy tablet is some hundred KB.
const MAX_BODY: u64 = 16 << 20;

/// Why there is no document; every text names the address.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    #[error("GET {url}: status {status}")]
    Status { url: String, status: u16 },
    #[error("GET {url}: {source}")]
    Io { url: String, source: std::io::Error },
    #[error("GET {url}: not an HTTP answer")]
    NotHttp { url: String },
    #[error("GET {url}: no answer within {limit:?}")]
    Timeout { url: String, limit: Duration },
}

/// The body of `http://{address}{path}`, if the server answers 200 within `limit`. `authorization` is the value of that
/// header, if one is to be sent.
pub async fn get(address: &str, path: &str, authorization: Option<&str>, limit: Duration) -> Result<Vec<u8>, GetError> {
    let url = format!("http://{address}{path}");
    let answer = match tokio::time::timeout(limit, fetch(address, path, authorization)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(source)) => return Err(GetError::Io { url, source }),
        Err(_) => return Err(GetError::Timeout { url, limit }),
    };
    match split(answer) {
        Some((200, body)) => Ok(body),
        Some((status, _)) => Err(GetError::Status { url, status }),
        None => Err(GetError::NotHttp { url }),
    }
}

async fn fetch(address: &str, path: &str, authorization: Option<&str>) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_BODY).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Status and body.
fn split(mut answer: Vec<u8>) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let status = String::from_utf8_lossy(&answer[..end]).split(' ').nth(1)?.parse().ok()?;
    answer.drain(..end + 4);
    Some((status, answer))
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
        assert_eq!(get(&address, "/x", None, Duration::from_secs(5)).await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn other_answers_are_errors_that_name_the_address() {
        let address = server("HTTP/1.0 404 Not Found\r\n\r\n").await;
        let error = get(&address, "/x", None, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("GET http://{address}/x: status 404"));
    }
}
