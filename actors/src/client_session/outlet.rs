//! The way out of a connection: answers wait until the socket has taken them, and count until then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::budget::{Account, Exceeded};
use crate::socket::ClientSocket;

/// What a frame that waits takes besides its bytes.
const FRAME: usize = 64;
/// So much is handed to the socket before it is waited for.
const AT_ONCE: usize = 64 << 10;

/// What the writer is to do.
enum Out {
    Frame(Frame),
    Close(CloseCode, &'static str),
}

/// The way out of a connection.
pub(super) struct Outlet {
    /// None once the close frame was sent off.
    queue: Option<mpsc::UnboundedSender<Out>>,
    /// What waits in it, and in the socket.
    pub(super) unread: Arc<Account>,
    /// Frames that did not go out are dropped.
    discard: Arc<AtomicBool>,
    /// The writer has ended.
    pub(super) written: bool,
    /// No more comes from the client …
    pub(super) over: bool,
    /// … since reading failed.
    pub(super) failed: bool,
}

impl Outlet {
    pub(super) fn new(unread: Account) -> Outlet {
        Outlet {
            queue: None,
            unread: Arc::new(unread),
            discard: Arc::default(),
            written: false,
            over: false,
            failed: false,
        }
    }

    /// Whether something can still be said.
    pub(super) fn is_open(&self) -> bool {
        self.queue.is_some()
    }

    /// Opens the way. What is returned writes until the connection ends, and says whether that was by a close frame.
    pub(super) fn open(&mut self, sink: SplitSink<ClientSocket, Frame>) -> impl Future<Output = bool> + use<> {
        let (queue, frames) = mpsc::unbounded_channel();
        self.queue = Some(queue);
        write(sink, frames, self.unread.clone(), self.discard.clone())
    }

    /// Lets a frame wait for its turn.
    ///
    /// # Errors
    /// If too much waits already.
    pub(super) fn push(&self, frame: Frame) -> Result<(), Exceeded> {
        let Some(queue) = &self.queue else { return Ok(()) };
        self.unread.take(frame.len() + FRAME)?;
        // An error: the writer has ended, and the connection is about to.
        let _ = queue.send(Out::Frame(frame));
        Ok(())
    }

    /// Has what waits dropped instead of written.
    pub(super) fn discard(&self) {
        self.discard.store(true, Ordering::Relaxed);
    }

    /// Sends a close frame behind what waits already, the first time. Says whether it was that.
    pub(super) fn close(&mut self, code: CloseCode, reason: &'static str) -> bool {
        let Some(queue) = self.queue.take() else { return false };
        // An error: the writer has ended already.
        let _ = queue.send(Out::Close(code, reason));
        true
    }
}

async fn write(
    mut sink: SplitSink<ClientSocket, Frame>,
    mut queue: mpsc::UnboundedReceiver<Out>,
    unread: Arc<Account>,
    discard: Arc<AtomicBool>,
) -> bool {
    while let Some(out) = queue.recv().await {
        let mut next = Some(out);
        let mut fed = 0;
        while let Some(out) = next {
            match out {
                Out::Frame(frame) => {
                    let bytes = frame.len() + FRAME;
                    if discard.load(Ordering::Relaxed) {
                        unread.give(bytes);
                    } else if sink.feed(frame).await.is_err() {
                        return false;
                    } else {
                        fed += bytes;
                    }
                }
                Out::Close(code, reason) => {
                    let close = CloseFrame { code, reason: reason.into() };
                    // The client may be gone already.
                    return sink.send(Frame::Close(Some(close))).await.is_ok() && sink.close().await.is_ok();
                }
            }
            next = if fed < AT_ONCE { queue.try_recv().ok() } else { None };
        }
        if sink.flush().await.is_err() {
            return false;
        }
        unread.give(fed);
    }
    false
}
