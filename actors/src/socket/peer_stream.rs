//! What a link runs over.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rabia_bank_messages::ids::StoreId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The bytes of a link, whatever carries them.
trait Bytes: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Bytes for T {}

/// A link before and behind its handshake: its bytes, and which store the other end has proved to have the key of.
#[derive(Debug)]
pub struct PeerStream {
    bytes: Box<dyn Bytes>,
    proven: Option<StoreId>,
}

impl PeerStream {
    /// To a node that has proved, on these bytes, to have the key of this store.
    pub fn proven(bytes: impl AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static, store: StoreId) -> PeerStream {
        PeerStream { bytes: Box::new(bytes), proven: Some(store) }
    }

    /// To a node in the same process, which is what it says to be.
    pub fn in_process(bytes: impl AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static) -> PeerStream {
        PeerStream { bytes: Box::new(bytes), proven: None }
    }

    /// Whether the other end may speak from this store.
    pub(crate) fn may_be(&self, store: StoreId) -> bool {
        self.proven.is_none_or(|proven| proven == store)
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.bytes).poll_read(cx, buf) {
            // Of a process that was killed there is no farewell. Frames say how long they are, so none is taken for a shorter one.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => read,
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}
