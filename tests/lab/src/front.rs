//! The door of the stand-in for RDS: TCP, TLS, CancelRequest, and the way to a login.
//!
//! It answers as PostgreSQL does, to SSLRequest, GSSENCRequest and TLS without asking first. Whether a login is let in is decided
//! in [`login`]; what happens afterwards, in [`relay`]. Without TLS nobody is let in.

mod login;
mod relay;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::Shared;
use crate::faults::LoginFault;
use crate::tls::ALPN;
use crate::wire::{First, fatal, malformed, read_first, send};

use login::Upstream;

/// Accepts connections until it is dropped.
pub(crate) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                let shared = Arc::clone(&shared);
                // A connection that fails concerns nobody but its client, who sees it fail.
                tokio::spawn(async move { serve(&shared, tcp, peer).await.ok() });
            }
            // Out of file descriptors, most likely: wait for some to come free.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// The client's side of a connection, with or without TLS.
trait Client: AsyncRead + AsyncWrite + Unpin + Send + Sync {
    fn tcp(&self) -> &TcpStream;
    fn encrypted(&self) -> bool;
}

impl Client for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }

    fn encrypted(&self) -> bool {
        false
    }
}

impl Client for Box<TlsStream<TcpStream>> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn encrypted(&self) -> bool {
        true
    }
}

/// A connection whose first real message has been read.
enum Greeted {
    Plain(TcpStream, First, Option<LoginFault>),
    Encrypted(Box<TlsStream<TcpStream>>, First),
}

async fn serve(shared: &Shared, tcp: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let _counted = shared.sockets.enter();
    tcp.set_nodelay(true)?;
    if shared.faults.meet(&[LoginFault::ResetAtAccept], None).is_some() {
        return tcp.set_zero_linger();
    }
    match timeout(shared.authentication_timeout, greet(shared, tcp)).await?? {
        Greeted::Plain(client, first, fault) => attend(shared, client, first, fault, peer).await,
        Greeted::Encrypted(client, first) => attend(shared, client, first, None, peer).await,
    }
}

/// Negotiates encryption and reads the message after that.
async fn greet(shared: &Shared, mut tcp: TcpStream) -> io::Result<Greeted> {
    let mut start = [0];
    tcp.peek(&mut start).await?;
    if start == [TLS_HANDSHAKE] {
        let tls = encrypt(shared, tcp).await?;
        if tls.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(malformed());
        }
        return greet_encrypted(tls).await;
    }
    let mut fault = None;
    for _ in 0..MAX_ENCRYPTION_REQUESTS {
        match read_first(&mut tcp).await? {
            First::Ssl => {
                fault = shared
                    .faults
                    .meet(&[LoginFault::RefuseTls, LoginFault::AskPasswordWithoutTls], None);
                if fault.is_none() {
                    send(&mut tcp, b"S").await?;
                    return greet_encrypted(encrypt(shared, tcp).await?).await;
                }
                send(&mut tcp, b"N").await?;
            }
            First::Gss => send(&mut tcp, b"N").await?,
            first => {
                let fault = fault.or_else(|| shared.faults.meet(&[LoginFault::AskPasswordWithoutTls], None));
                return Ok(Greeted::Plain(tcp, first, fault));
            }
        }
    }
    Err(malformed())
}

async fn encrypt(shared: &Shared, tcp: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
    let certificate = shared.faults.current().certificate;
    shared.tls.acceptor(certificate).accept(tcp).await.map(Box::new)
}

async fn greet_encrypted(mut tls: Box<TlsStream<TcpStream>>) -> io::Result<Greeted> {
    match read_first(&mut tls).await? {
        First::Ssl | First::Gss => Err(malformed()),
        first => Ok(Greeted::Encrypted(tls, first)),
    }
}

/// Does what the first message asks for.
async fn attend<C: Client>(
    shared: &Shared,
    mut client: C,
    first: First,
    fault: Option<LoginFault>,
    peer: SocketAddr,
) -> io::Result<()> {
    match first {
        First::Cancel(request) => cancel(shared, client, &request).await,
        First::Startup(startup) => {
            let login = login::login(shared, &mut client, &startup, fault, peer);
            let Ok(end) = timeout(shared.authentication_timeout, login).await else {
                return send(
                    &mut client,
                    &fatal("57014", "canceling authentication due to timeout"),
                )
                .await;
            };
            match end? {
                Some(Upstream::Unix(server)) => relay::relay(shared, client, server).await,
                Some(Upstream::Tcp(server)) => relay::relay(shared, client, server).await,
                // Refused, and told so. Closing in order makes sure that the answer arrives.
                None => client.shutdown().await,
            }
        }
        First::Ssl | First::Gss => Err(malformed()),
    }
}

/// Passes a CancelRequest on, and closes when the server has taken it.
async fn cancel<C: Client>(shared: &Shared, mut client: C, request: &[u8]) -> io::Result<()> {
    shared.count_cancel();
    let mut server = UnixStream::connect(shared.postgres.socket()).await?;
    server.write_all(request).await?;
    timeout(shared.authentication_timeout, server.read(&mut [0; 1])).await??;
    client.shutdown().await
}

/// SSLRequest and GSSENCRequest, once each.
const MAX_ENCRYPTION_REQUESTS: u32 = 3;
/// The first byte of a TLS ClientHello.
const TLS_HANDSHAKE: u8 = 0x16;
