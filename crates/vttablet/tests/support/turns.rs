//! A socket before a mysqld that counts round trips.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::Mysqld;

/// See the module. Gone with the test's runtime.
pub struct Turns {
    pub socket: PathBuf,
    turns: Arc<AtomicU64>,
}

impl Turns {
    pub fn before(mysqld: &Mysqld) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let socket = mysqld.dir.join(format!("turns-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let listener = UnixListener::bind(&socket).expect("a socket");
        let (server, turns) = (mysqld.dir.join("sock"), Arc::new(AtomicU64::new(0)));
        let counter = turns.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, UnixStream::connect(&server).await.expect("mysqld"), counter.clone()));
            }
        });
        Self { socket, turns }
    }

    /// How often a client has sent something after the server had, on any connection.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }
}

async fn relay(client: UnixStream, server: UnixStream, turns: Arc<AtomicU64>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let answered = AtomicBool::new(false);
    let asking = async {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
            if answered.swap(false, Ordering::SeqCst) {
                turns.fetch_add(1, Ordering::SeqCst);
            }
            if to_server.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    let answering = async {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
            answered.store(true, Ordering::SeqCst);
            if to_client.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        () = answering => {}
    }
}
