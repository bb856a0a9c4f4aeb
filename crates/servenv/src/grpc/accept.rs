//! Accepts the connections of `-grpc_port`: TLS, then a look at the first bytes.
//!
//! Owns: which connections are gRPC's and which belong to another [`Protocol`]. Invariant: a client that connects and says
//! nothing holds up nobody and is let go after [`SILENCE`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::transport::server::Connected;

use super::server::Auth;
use super::subject;

/// How long a client may take for TLS and its first bytes.
const SILENCE: Duration = Duration::from_secs(20);
/// Go's default for accepted connections.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);
/// Pause after a failure to accept, which is mostly too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that tonic has not taken yet.
const BACKLOG: usize = 64;

/// What a connection is, whatever carries it.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection of another protocol than gRPC.
pub struct Accepted {
    /// From the first byte on.
    pub io: Box<dyn Io>,
    pub caller: Caller,
    /// The connection is too old, or the server stops: no new work, please.
    pub stop: CancellationToken,
}

/// Who is at the other end.
#[derive(Clone)]
pub struct Caller {
    auth: Option<Auth>,
    /// Subjects of the certificates shown; `None` without TLS.
    subjects: Option<Vec<String>>,
}

impl Caller {
    /// What `-grpc_auth_mode` says to a caller with this user name and password.
    ///
    /// # Errors
    /// The status that a gRPC call would get.
    // The status is the answer; it is made once per refused connection.
    #[allow(clippy::result_large_err)]
    pub fn authenticate(&self, credentials: Option<(&str, &str)>) -> Result<(), Status> {
        match &self.auth {
            None => Ok(()),
            Some(Auth::Static(auth)) => auth.check_credentials(credentials),
            Some(Auth::Mtls(auth)) => auth.check_subjects(self.subjects.as_deref()),
        }
    }
}

/// Serves one connection to its end.
pub type ServeProtocol = Arc<dyn Fn(Accepted) -> BoxFuture<'static, ()> + Send + Sync>;

/// What clients of a protocol send first. Differs from HTTP/2's `PRI * HT`.
pub type Magic = &'static [u8; 8];

/// A protocol that shares the port with gRPC.
#[derive(Clone)]
pub(crate) struct Protocol {
    pub magic: Magic,
    pub serve: ServeProtocol,
}

/// How connections are accepted.
#[derive(Clone)]
pub(super) struct Acceptor {
    pub auth: Option<Auth>,
    pub protocols: Vec<Protocol>,
    pub max_connection_age: Option<Duration>,
    pub max_connection_age_grace: Option<Duration>,
    pub stop: CancellationToken,
    /// Connections of the other protocols.
    pub tasks: TaskTracker,
    /// Ends those connections at once.
    pub abort: CancellationToken,
}

/// A connection whose first bytes were looked at, and are read again.
pub(super) struct Seen<S> {
    first: [u8; 8],
    from: u8,
    to: u8,
    io: S,
}

/// A step before the server knows whose connection it is.
pub(super) trait Handshake: Clone + Send + Sync + 'static {
    type Io: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static;
    fn shake(&self, io: TcpStream) -> impl Future<Output = io::Result<Self::Io>> + Send;
    fn subjects(io: &Self::Io) -> Option<Vec<String>>;
}

/// Without TLS.
#[derive(Clone)]
pub(super) struct Plain;

impl Handshake for Plain {
    type Io = TcpStream;

    async fn shake(&self, io: TcpStream) -> io::Result<TcpStream> {
        Ok(io)
    }

    fn subjects(_: &TcpStream) -> Option<Vec<String>> {
        None
    }
}

impl Handshake for TlsAcceptor {
    type Io = tokio_rustls::server::TlsStream<TcpStream>;

    async fn shake(&self, io: TcpStream) -> io::Result<Self::Io> {
        self.accept(io).await
    }

    fn subjects(io: &Self::Io) -> Option<Vec<String>> {
        let certificates = io.get_ref().1.peer_certificates().unwrap_or_default();
        Some(certificates.iter().map(|certificate| subject::text(certificate)).collect())
    }
}

impl Acceptor {
    /// The connections of gRPC, until `stop`.
    pub fn grpc_connections<H: Handshake>(
        self,
        listener: TcpListener,
        handshake: H,
    ) -> mpsc::Receiver<io::Result<Seen<H::Io>>> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = self.stop.cancelled() => return,
                };
                match accepted {
                    Ok((io, address)) => {
                        tokio::spawn(self.clone().greet(io, address, handshake.clone(), sender.clone()));
                    }
                    Err(error) => {
                        tracing::warn!("-grpc_port: cannot accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        receiver
    }

    async fn greet<H: Handshake>(
        self,
        io: TcpStream,
        address: SocketAddr,
        handshake: H,
        grpc: mpsc::Sender<io::Result<Seen<H::Io>>>,
    ) {
        let greeting = async {
            let socket = SockRef::from(&io);
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
            Seen::look(handshake.shake(io).await?, &self.protocols).await
        };
        let (io, protocol) = match tokio::time::timeout(SILENCE, greeting).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => return tracing::debug!("connection from {address}: {error}"),
            Err(_) => return tracing::debug!("connection from {address}: silent for {SILENCE:?}"),
        };
        match protocol {
            // An error means that the server has stopped.
            None => drop(grpc.send(Ok(io)).await),
            Some(protocol) => {
                let caller = Caller { auth: self.auth.clone(), subjects: H::subjects(&io.io) };
                let stop = self.stop.child_token();
                let serve = (protocol.serve)(Accepted { io: Box::new(io), caller, stop: stop.clone() });
                self.tasks.clone().spawn(self.until_too_old(serve, stop));
            }
        }
    }

    /// Asks a connection to end at its maximum age, and ends it after the grace.
    async fn until_too_old(self, serve: BoxFuture<'static, ()>, stop: CancellationToken) {
        let sleep = async |duration: Option<Duration>| match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        };
        let too_old = async {
            sleep(self.max_connection_age).await;
            stop.cancel();
            sleep(self.max_connection_age_grace).await;
        };
        tokio::select! {
            () = serve => {}
            () = too_old => {}
            () = self.abort.cancelled() => {}
        }
    }
}

impl<S: AsyncRead + Unpin> Seen<S> {
    /// Reads until it is clear whose connection it is: gRPC's unless the first bytes are a protocol's magic.
    async fn look(mut io: S, protocols: &[Protocol]) -> io::Result<(Self, Option<Protocol>)> {
        let mut first = [0; 8];
        let mut length = 0;
        let mut left: Vec<&Protocol> = protocols.iter().collect();
        loop {
            left.retain(|protocol| first[..length] == protocol.magic[..length]);
            let found = left.first().filter(|_| length == first.len()).map(|found| (*found).clone());
            if found.is_some() || left.is_empty() {
                return Ok((Self { first, from: 0, to: length as u8, io }, found));
            }
            let count = io.read(&mut first[length..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            length += count;
        }
    }
}

impl<S: Connected> Connected for Seen<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.io.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Seen<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.from < this.to && buf.remaining() > 0 {
            let first = &this.first[usize::from(this.from)..usize::from(this.to)];
            let count = first.len().min(buf.remaining());
            buf.put_slice(&first[..count]);
            this.from += count as u8;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seen<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
