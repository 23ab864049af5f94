//! A connection to a client or a server, plain or TLS, driven by polls.
//!
//! Reads go through the thread's buffers ([`super::buffer`]) and are lent to the caller; writes go straight to the
//! socket, and only what it doesn't take at once is kept. Whoever writes must not read more to write while
//! [`Stream::has_unsent`]: that is what bounds the memory.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

use super::buffer::{Buffers, with_buffers};
use crate::tls;

/// A stream.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    tls: Option<Box<tls::Session>>,
    unsent: Vec<u8>,
}

/// Why a stream can't go on.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS on top of it.
    #[error(transparent)]
    Tls(#[from] tls::Failure),
}

impl Stream {
    /// A plain stream over `tcp`.
    pub fn plain(tcp: TcpStream) -> Self {
        Self {
            tcp,
            tls: None,
            unsent: Vec::new(),
        }
    }

    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The TLS session, if there is one.
    pub fn tls(&self) -> Option<&tls::Session> {
        self.tls.as_deref()
    }

    /// Goes over to TLS with `session` and finishes its handshake, whose first bytes may have been read already:
    /// `first`. What the peer has sent after its handshake, in the same flight and encrypted as all that follows,
    /// is appended to `early`.
    pub async fn upgrade(
        &mut self,
        mut session: tls::Session,
        first: &[u8],
        early: &mut Vec<u8>,
    ) -> Result<(), StreamError> {
        let received = session.receive(first, early);
        self.tls = Some(Box::new(session));
        if let Err(failure) = received {
            poll_fn(|cx| self.poll_flush(cx)).await?;
            return Err(failure.into());
        }
        poll_fn(|cx| self.poll_handshake(cx, early)).await
    }

    /// Reads what is there and lends it to `take`, decrypted. `take` gets an empty slice at the end of the stream,
    /// and else at least one byte.
    #[inline]
    pub fn poll_read_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Context<'_>, &[u8]) -> T,
    ) -> Poll<Result<T, StreamError>> {
        with_buffers(|Buffers { raw, plain }| {
            let Some(tls) = &mut self.tls else {
                let bytes = ready!(poll_read(&mut self.tcp, cx, raw))?;
                return Poll::Ready(Ok(take(cx, bytes)));
            };
            loop {
                // Who has said goodbye in TLS may leave the socket open.
                if tls.peer_has_closed() {
                    return Poll::Ready(Ok(take(cx, &[])));
                }
                let records = ready!(poll_read(&mut self.tcp, cx, raw))?;
                if records.is_empty() {
                    return Poll::Ready(Ok(take(cx, &[])));
                }
                plain.clear();
                let received = tls.receive(records, plain);
                if tls.has_records() {
                    // Alerts and key updates; if the socket doesn't take them now, the next flush does.
                    let _ = poll_write_records(&mut self.tcp, tls, cx)?;
                }
                received?;
                if !plain.is_empty() {
                    return Poll::Ready(Ok(take(cx, plain)));
                }
            }
        })
    }

    /// Writes `bytes`, and keeps what the socket doesn't take.
    #[inline]
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), StreamError> {
        if let Some(tls) = &mut self.tls {
            tls.send(bytes)?;
            let _ = poll_write_records(&mut self.tcp, tls, cx)?;
            return Ok(());
        }
        let mut rest = bytes;
        while self.unsent.is_empty() && !rest.is_empty() {
            match Pin::new(&mut self.tcp).poll_write(cx, rest)? {
                Poll::Ready(written) => rest = rest.get(written..).unwrap_or_default(),
                Poll::Pending => break,
            }
        }
        self.unsent.extend_from_slice(rest);
        Ok(())
    }

    /// Whether bytes wait for the socket.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        match &self.tls {
            Some(tls) => tls.has_records(),
            None => !self.unsent.is_empty(),
        }
    }

    /// Writes what waits; ready when nothing does any more.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if let Some(tls) = &mut self.tls {
            return poll_write_records(&mut self.tcp, tls, cx).map_err(StreamError::Io);
        }
        while !self.unsent.is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.unsent))?;
            self.unsent.drain(..written);
        }
        // An idle stream owns no buffer.
        self.unsent = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Writes all of `bytes`.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        poll_fn(|cx| Poll::Ready(self.poll_send(cx, bytes))).await?;
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Reads what is there, at least one byte, to the end of `into`; 0 at the end of the stream.
    pub async fn read_into(&mut self, into: &mut Vec<u8>) -> Result<usize, StreamError> {
        poll_fn(|cx| {
            self.poll_read_with(cx, |_, bytes| {
                into.extend_from_slice(bytes);
                bytes.len()
            })
        })
        .await
    }

    /// Ends the stream in order: what waits is written, then the end is announced.
    pub async fn close(&mut self) -> Result<(), StreamError> {
        if let Some(tls) = &mut self.tls {
            tls.close();
        }
        poll_fn(|cx| self.poll_flush(cx)).await?;
        poll_fn(|cx| Pin::new(&mut self.tcp).poll_shutdown(cx)).await?;
        Ok(())
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>, early: &mut Vec<u8>) -> Poll<Result<(), StreamError>> {
        let Some(tls) = &mut self.tls else {
            return Poll::Ready(Ok(()));
        };
        loop {
            ready!(poll_write_records(&mut self.tcp, tls, cx))?;
            if !tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(with_buffers(|Buffers { raw, .. }| {
                let records = ready!(poll_read(&mut self.tcp, cx, raw))?;
                if records.is_empty() {
                    return Poll::Ready(Err(StreamError::Io(io::ErrorKind::UnexpectedEof.into())));
                }
                let received = tls.receive(records, early);
                if received.is_err() {
                    let _ = poll_write_records(&mut self.tcp, tls, cx)?;
                }
                Poll::Ready(received.map_err(StreamError::Tls))
            }))?;
        }
    }
}

#[inline]
fn poll_read<'a>(tcp: &mut TcpStream, cx: &mut Context<'_>, raw: &'a mut [u8]) -> Poll<io::Result<&'a [u8]>> {
    let mut buffer = ReadBuf::new(raw);
    ready!(Pin::new(tcp).poll_read(cx, &mut buffer))?;
    let filled = buffer.filled().len();
    Poll::Ready(Ok(raw.get(..filled).unwrap_or_default()))
}

/// Ready when no record waits any more.
fn poll_write_records(
    tcp: &mut TcpStream,
    tls: &mut tls::Session,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while tls.has_records() {
        match tls.write_records(&mut PolledWrite { tcp, cx }) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

/// A socket as rustls wants it: `WouldBlock` where a poll is pending.
struct PolledWrite<'a, 'b> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl io::Write for PolledWrite<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.tcp).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, chunks))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn or_would_block(poll: Poll<io::Result<usize>>) -> io::Result<usize> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
