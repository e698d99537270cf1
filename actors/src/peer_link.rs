//! The peer link actor, one a peer: one WebSocket link, which may break and come back.
//!
//! Messages to the peer are encoded at once into a frame; whatever was said before the mailbox is empty shares the frame
//! and the flush. While there is no link they are dropped, and so they are when the peer takes them too slowly: the protocol
//! repeats what matters. Frames of the peer go to the voter one at a time, so that a fast peer can't fill its mailbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use futures_util::{SinkExt, StreamExt};
use rabia_bank_messages::codec::{BadFrame, decode_frame, decode_opening, encode_message, start_frame};
use rabia_bank_messages::escape::escaped;
use rabia_bank_messages::ids::{NodeId, StoreId};
use rabia_bank_messages::peer::{HelloRefused, Opening, PeerMessage, RefusalReason};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tracing::{info, warn};

use crate::node::{Failed, Failure};
use crate::voter::{FromPeer, LinkState, Voter};

/// The most bytes that wait for a slow peer. Beyond it messages are dropped.
const MAX_QUEUED: usize = 64 << 20;
/// Frames that wait for the writer. Each holds what was said while the one before was written.
const MAX_QUEUED_FRAMES: usize = 256;
/// A frame that is this long is sent without waiting for more.
const FULL_FRAME: usize = 1 << 20;
/// How long a decision waits for something to share its frame with. Who votes tells all, so it is news only to a node that
/// missed votes.
const LINGER: Duration = Duration::from_millis(5);
/// A peer that says nothing for this long is gone: the slowest thing that it says is an [`PeerMessage::Alive`].
const SILENCE: Duration = Duration::from_secs(10);

/// A socket to a peer.
pub type PeerSocket = WebSocketStream<TcpStream>;

/// Say this to the peer.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Say(pub PeerMessage);

/// Use this socket, whose handshake is done, from now on. Answered when it is not used any more, with the reason.
#[derive(Message)]
#[rtype(result = "String")]
pub struct Attach {
    /// The socket.
    pub socket: PeerSocket,
    /// The store that the peer speaks from on it.
    pub store: StoreId,
}

/// Break the link, so that the two meet again.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct MeetAgain;

/// Comes behind all that waits in the mailbox.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

/// A socket ended.
#[derive(Message)]
#[rtype(result = "()")]
struct Ended {
    socket: u64,
    reason: String,
}

/// When the frame that gathers is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    /// There is nothing to send.
    Never,
    /// Within [`LINGER`].
    Later,
    /// Behind all that waits in the mailbox.
    Now,
}

struct Socket {
    number: u64,
    frames: mpsc::Sender<Vec<u8>>,
    queued: Arc<AtomicUsize>,
    ended: Option<oneshot::Sender<String>>,
    reading: SpawnHandle,
    writing: SpawnHandle,
}

/// The link to one peer.
pub struct PeerLink {
    peer: NodeId,
    voter: Addr<Voter>,
    node: Recipient<Failed>,
    socket: Option<Socket>,
    sockets: u64,
    frame: Vec<u8>,
    due: Due,
    dropped: u64,
}

impl PeerLink {
    /// The link to this peer, not connected yet.
    pub fn new(peer: NodeId, voter: Addr<Voter>, node: Recipient<Failed>) -> PeerLink {
        PeerLink { peer, voter, node, socket: None, sockets: 0, frame: start_frame(), due: Due::Never, dropped: 0 }
    }

    fn detach(&mut self, reason: &str, ctx: &mut Context<Self>) {
        let Some(socket) = self.socket.take() else { return };
        ctx.cancel_future(socket.reading);
        ctx.cancel_future(socket.writing);
        info!(peer = %self.peer, reason, dropped = self.dropped, "the link is down");
        self.dropped = 0;
        if let Some(ended) = socket.ended {
            // Who attached it may be gone.
            let _ = ended.send(reason.into());
        }
        if !is_broken(Rule::LinkEndTold) {
            self.voter.do_send(LinkState { peer: self.peer, store: None });
        }
    }

    fn flush(&mut self) {
        let frame = std::mem::replace(&mut self.frame, start_frame());
        let Some(socket) = &self.socket else { return };
        let length = frame.len();
        if socket.queued.fetch_add(length, Ordering::Relaxed) > MAX_QUEUED || socket.frames.try_send(frame).is_err() {
            socket.queued.fetch_sub(length, Ordering::Relaxed);
            if self.dropped == 0 {
                warn!(peer = %self.peer, "the peer takes messages too slowly: some are dropped and said again later");
            }
            self.dropped += 1;
        }
    }
}

impl Actor for PeerLink {
    type Context = Context<Self>;
}

impl Handler<Say> for PeerLink {
    type Result = ();

    fn handle(&mut self, Say(message): Say, ctx: &mut Self::Context) {
        if self.socket.is_none() {
            return;
        }
        encode_message(&mut self.frame, &message);
        if self.frame.len() >= FULL_FRAME {
            self.flush();
        } else if let PeerMessage::Decide { .. } = message {
            if self.due == Due::Never {
                self.due = Due::Later;
                ctx.notify_later(Flush, LINGER);
            }
        } else if self.due != Due::Now {
            self.due = Due::Now;
            ctx.notify(Flush);
        }
    }
}

impl Handler<Flush> for PeerLink {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        self.due = Due::Never;
        if self.frame.len() > start_frame().len() {
            self.flush();
        }
    }
}

impl Handler<Attach> for PeerLink {
    type Result = ResponseFuture<String>;

    fn handle(&mut self, Attach { socket, store }: Attach, ctx: &mut Self::Context) -> Self::Result {
        // The peer would not call again if it still used the former link.
        self.detach("a newer link took its place", ctx);
        self.sockets += 1;
        self.frame = start_frame();
        let number = self.sockets;
        let (frames, queue) = mpsc::channel(MAX_QUEUED_FRAMES);
        let queued = Arc::new(AtomicUsize::new(0));
        let (sink, stream) = socket.split();
        let end = move |reason: String, _: &mut Self, ctx: &mut Context<Self>| {
            ctx.notify(Ended { socket: number, reason });
        };
        let reading = read(stream, self.peer, self.voter.clone(), self.node.clone()).into_actor(self).map(end);
        let writing = write(sink, queue, queued.clone()).into_actor(self).map(end);
        let (ended, wait) = oneshot::channel();
        let (reading, writing) = (ctx.spawn(reading), ctx.spawn(writing));
        self.socket = Some(Socket { number, frames, queued, ended: Some(ended), reading, writing });
        info!(peer = %self.peer, "the link is up");
        self.voter.do_send(LinkState { peer: self.peer, store: Some(store) });
        Box::pin(async move { wait.await.unwrap_or_else(|_| "the node is stopping".into()) })
    }
}

impl Handler<MeetAgain> for PeerLink {
    type Result = ();

    fn handle(&mut self, _: MeetAgain, ctx: &mut Self::Context) {
        self.detach("the peer's store has become a member's: the two nodes meet again", ctx);
    }
}

impl Handler<Ended> for PeerLink {
    type Result = ();

    fn handle(&mut self, Ended { socket, reason }: Ended, ctx: &mut Self::Context) {
        if self.socket.as_ref().is_some_and(|current| current.number == socket) {
            self.detach(&reason, ctx);
        }
    }
}

async fn read(
    mut stream: futures_util::stream::SplitStream<PeerSocket>,
    peer: NodeId,
    voter: Addr<Voter>,
    node: Recipient<Failed>,
) -> String {
    loop {
        let frame = match tokio::time::timeout(SILENCE, stream.next()).await {
            Err(_) => return format!("nothing was heard for {} s", SILENCE.as_secs()),
            Ok(None) => return "the peer closed it".into(),
            Ok(Some(Err(error))) => return error.to_string(),
            Ok(Some(Ok(frame))) => frame,
        };
        match frame {
            Frame::Binary(bytes) => match decode_frame(&bytes) {
                Ok(messages) => {
                    if voter.send(FromPeer { peer, messages }).await.is_err() {
                        return "the node is stopping".into();
                    }
                }
                Err(error) => return not_understood(&bytes, &error, peer, &node),
            },
            Frame::Close(_) => return "the peer closed it".into(),
            Frame::Ping(_) | Frame::Pong(_) => {}
            Frame::Text(_) | Frame::Frame(_) => return "the peer sent a frame that is not binary".into(),
        }
    }
}

/// Who calls checks this node's hello when the link stands here already: its refusal comes where messages are expected.
fn not_understood(bytes: &[u8], error: &BadFrame, peer: NodeId, node: &Recipient<Failed>) -> String {
    match decode_opening(bytes) {
        Ok(Opening::Refused(refused)) => refused_by(peer, &refused, node),
        _ => format!("the peer sent what can't be understood: {error}"),
    }
}

/// A peer refuses this node. One whose store was replaced has no part in the cluster any more, and stops.
pub(crate) fn refused_by(peer: NodeId, refused: &HelloRefused, node: &Recipient<Failed>) -> String {
    let HelloRefused { reason, message } = refused;
    let why = format!("node {peer} refuses this node: {reason}: {}", escaped(message));
    if *reason == RefusalReason::Replaced {
        node.do_send(Failed(Failure::Refused(why.clone())));
    }
    why
}

async fn write(
    mut sink: futures_util::stream::SplitSink<PeerSocket, Frame>,
    mut queue: mpsc::Receiver<Vec<u8>>,
    queued: Arc<AtomicUsize>,
) -> String {
    while let Some(frame) = queue.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            queued.fetch_sub(frame.len(), Ordering::Relaxed);
            if let Err(error) = sink.feed(Frame::Binary(frame.into())).await {
                return error.to_string();
            }
            next = queue.try_recv().ok();
        }
        if let Err(error) = sink.flush().await {
            return error.to_string();
        }
    }
    "it was replaced".into()
}
