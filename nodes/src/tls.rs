//! Handshakes of TLS: what clients' and peers' have in common.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rabia_bank_actors::socket::metered::Connection;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Error, InvalidMessage, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// How each record of a TLS handshake begins.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Why a connection is not secured.
#[derive(Debug, thiserror::Error)]
pub enum NotSecured {
    /// The other end does not speak TLS.
    #[error("it does not speak TLS, and nothing else is spoken here: is it a program of an older version?")]
    Plain,
    /// The handshake has failed.
    #[error("{0}")]
    Failed(#[from] io::Error),
}

/// Answers a handshake of at most so many bytes. Nothing is said to who speaks plain.
pub(crate) async fn accept(
    config: Arc<ServerConfig>,
    stream: TcpStream,
    most: usize,
) -> Result<server::TlsStream<Bounded>, NotSecured> {
    let mut first = [0; 1];
    if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE_RECORD] {
        return Err(NotSecured::Plain);
    }
    let mut secured = TlsAcceptor::from(config).accept(Bounded { stream, left: most }).await?;
    secured.get_mut().0.left = usize::MAX;
    Ok(secured)
}

/// Calls, with a handshake of at most so many bytes.
pub(crate) async fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: TcpStream,
    most: usize,
) -> Result<client::TlsStream<Bounded>, NotSecured> {
    let connecting = TlsConnector::from(config).connect(name, Bounded { stream, left: most });
    let mut secured = connecting.await.map_err(|error| {
        let no_record = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(inner) if *inner == no_record => NotSecured::Plain,
            _ => NotSecured::Failed(error),
        }
    })?;
    secured.get_mut().0.left = usize::MAX;
    Ok(secured)
}

/// A client's connection over TLS.
#[derive(Debug)]
pub(crate) struct Secured(pub(crate) server::TlsStream<Bounded>);

impl Connection for Secured {
    fn tcp(&self) -> &TcpStream {
        &self.0.get_ref().0.stream
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(cx, buffer) {
            // An end without the farewell of TLS. Messages say how long they are, so none is taken for a shorter one.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => read,
        }
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A connection from which only so many bytes are read: who has not shown a key may not make this node keep more.
#[derive(Debug)]
pub(crate) struct Bounded {
    stream: TcpStream,
    left: usize,
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if self.left != usize::MAX {
            let bytes = buffer.filled().len() - before;
            let Some(left) = self.left.checked_sub(bytes) else {
                return Poll::Ready(Err(io::Error::other("the handshake is too long")));
            };
            self.left = left;
        }
        read
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
