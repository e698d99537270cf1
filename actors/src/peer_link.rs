//! The peer link actor, one a peer: one WebSocket link, which may break and come back.
//!
//! Messages to the peer are encoded at once into a frame; whatever was said before the mailbox is empty shares the frame
//! and the flush. While there is no link they are dropped, and so they are when the peer takes them too slowly: the protocol
//! repeats what matters. Frames of the peer go to the voter one at a time, so that a fast peer can't fill its mailbox.
//!
//! A link that works is not given up for another one that comes: a hello of the run that speaks on it already is turned away
//! while the peer is heard. It is displaced by a hello that the door accepts and that is of another run, for then the peer was
//! restarted, or of any run once nothing was heard for [`QUIET`].

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::{SinkExt, StreamExt};
use rabia_bank_messages::codec::{
    BadFrame, MAX_FRAME_MESSAGES, MAX_OPENING_FRAME, MAX_PEER_FRAME, decode_frame, decode_opening, encode_message,
    start_frame,
};
use rabia_bank_messages::escape::escaped;
use rabia_bank_messages::ids::{NodeId, RunId};
use rabia_bank_messages::peer::{HelloRefused, Opening, PeerMessage};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tracing::{info, warn};

use crate::rate::Rate;
use crate::voter::{FromPeer, LinkState, LinkUp, RefusedBy, Voter};

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

/// Bytes that are read from the socket at a time.
const READ_BUFFER: usize = 16 << 10;
/// Messages are written to the socket once so many bytes wait, or none follow.
const WRITE_BUFFER: usize = 64 << 10;
/// The most bytes that wait inside the socket: what waits before it, and a frame on top.
const MAX_WRITE_BUFFER: usize = MAX_QUEUED + MAX_PEER_FRAME + FULL_FRAME;
/// A link on which nothing was heard for so long may be displaced: a node speaks five times a second at least.
pub const QUIET: Duration = Duration::from_secs(2);
/// The most messages in a frame.
const FULL_MESSAGES: usize = MAX_FRAME_MESSAGES / 2;

/// A socket to a peer.
pub type PeerSocket = WebSocketStream<TcpStream>;

/// Say this to the peer.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Say(pub PeerMessage);

/// Why a link is not used.
pub const STANDS: &str = "the link to this run of the peer stands already";

/// Use this socket, whose handshake is done, from now on. Answered when it is not used any more, with the reason.
#[derive(Message)]
#[rtype(result = "String")]
pub struct Attach {
    /// The socket.
    pub socket: PeerSocket,
    /// What the handshake said.
    pub link: LinkUp,
    /// The run in which the peer speaks.
    pub run: RunId,
}

/// Would a link to this run of the peer be used?
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "bool")]
pub struct MayAttach(pub RunId);

/// Whether the peer's store speaks for it by this node's log. Until that is known, and where it does not, only what any store may
/// ask for goes to the peer.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Standing {
    /// Whether it does.
    pub in_force: bool,
}

/// Break the link, for this reason.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct Break(pub String);

/// Why a link is broken where the store at its other end has become a member's, or is none any more.
pub const MEET_AGAIN: &str = "the peer's store has become a member's, or is none any more: the two nodes meet again";

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
    run: RunId,
    /// When the peer was heard last.
    heard: Rc<Cell<Instant>>,
    in_force: bool,
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
    socket: Option<Socket>,
    sockets: u64,
    frame: Vec<u8>,
    /// Messages in it.
    messages: usize,
    due: Due,
    dropped: u64,
    rate: Rate,
}

/// What goes to a peer whose store does not speak for it: answers, and this node's own questions.
fn goes_to_strangers(message: &PeerMessage) -> bool {
    matches!(
        message,
        PeerMessage::Alive { .. }
            | PeerMessage::Entries { .. }
            | PeerMessage::Batch { .. }
            | PeerMessage::Compacted { .. }
            | PeerMessage::SnapshotRows { .. }
            | PeerMessage::CatchUp { .. }
            | PeerMessage::Fetch { .. }
            | PeerMessage::GetSnapshot { .. }
    )
}

impl PeerLink {
    /// The link to this peer, not connected yet.
    pub fn new(peer: NodeId, voter: Addr<Voter>) -> PeerLink {
        PeerLink {
            peer,
            voter,
            socket: None,
            sockets: 0,
            frame: start_frame(),
            messages: 0,
            due: Due::Never,
            dropped: 0,
            rate: Rate::new(Instant::now()),
        }
    }

    /// See the [module documentation](self).
    fn may_attach(&self, run: RunId) -> bool {
        self.socket.as_ref().is_none_or(|socket| socket.run != run || socket.heard.get().elapsed() > QUIET)
    }

    /// Whether the log has room for what becomes of a link: who speaks in the peer's name makes and loses links as it likes.
    fn may_tell(&mut self) -> bool {
        let untold = self.rate.count(Instant::now());
        if let Some(untold @ 1..) = untold {
            info!(peer = %self.peer, untold, "links came and went without a line");
        }
        untold.is_some()
    }

    fn detach(&mut self, reason: &str, ctx: &mut Context<Self>) {
        let Some(socket) = self.socket.take() else { return };
        ctx.cancel_future(socket.reading);
        ctx.cancel_future(socket.writing);
        if self.may_tell() {
            info!(peer = %self.peer, reason, dropped = self.dropped, "the link is down");
        }
        self.dropped = 0;
        if let Some(ended) = socket.ended {
            // Who attached it may be gone.
            let _ = ended.send(reason.into());
        }
        if !is_broken(Rule::LinkEndTold) {
            self.voter.do_send(LinkState { peer: self.peer, up: None });
        }
    }

    fn flush(&mut self) {
        let frame = std::mem::replace(&mut self.frame, start_frame());
        self.messages = 0;
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
        if self.socket.as_ref().is_none_or(|socket| !socket.in_force && !goes_to_strangers(&message)) {
            return;
        }
        encode_message(&mut self.frame, &message);
        self.messages += 1;
        if self.frame.len() >= FULL_FRAME || self.messages >= FULL_MESSAGES {
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

    fn handle(&mut self, Attach { socket, link, run }: Attach, ctx: &mut Self::Context) -> Self::Result {
        if !self.may_attach(run) {
            return Box::pin(std::future::ready(STANDS.into()));
        }
        self.detach("a newer link took its place", ctx);
        self.sockets += 1;
        (self.frame, self.messages) = (start_frame(), 0);
        let number = self.sockets;
        let (frames, queue) = mpsc::channel(MAX_QUEUED_FRAMES);
        let queued = Arc::new(AtomicUsize::new(0));
        let (sink, stream) = socket.split();
        let end = move |reason: String, _: &mut Self, ctx: &mut Context<Self>| {
            ctx.notify(Ended { socket: number, reason });
        };
        let heard = Rc::new(Cell::new(Instant::now()));
        let reading = read(stream, self.peer, self.voter.clone(), heard.clone()).into_actor(self).map(end);
        let writing = write(sink, queue, queued.clone()).into_actor(self).map(end);
        let (ended, wait) = oneshot::channel();
        let (reading, writing) = (ctx.spawn(reading), ctx.spawn(writing));
        let (ended, in_force) = (Some(ended), false);
        self.socket = Some(Socket { number, run, heard, in_force, frames, queued, ended, reading, writing });
        if self.may_tell() {
            info!(peer = %self.peer, "the link is up");
        }
        self.voter.do_send(LinkState { peer: self.peer, up: Some(link) });
        Box::pin(async move { wait.await.unwrap_or_else(|_| "the node is stopping".into()) })
    }
}

impl Handler<MayAttach> for PeerLink {
    type Result = bool;

    fn handle(&mut self, MayAttach(run): MayAttach, _: &mut Self::Context) -> bool {
        self.may_attach(run)
    }
}

impl Handler<Standing> for PeerLink {
    type Result = ();

    fn handle(&mut self, Standing { in_force }: Standing, _: &mut Self::Context) {
        if let Some(socket) = &mut self.socket {
            socket.in_force = in_force;
        }
    }
}

impl Handler<Break> for PeerLink {
    type Result = ();

    fn handle(&mut self, Break(why): Break, ctx: &mut Self::Context) {
        self.detach(&why, ctx);
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
    heard: Rc<Cell<Instant>>,
) -> String {
    loop {
        let frame = match tokio::time::timeout(SILENCE, stream.next()).await {
            Err(_) => return format!("nothing was heard for {} s", SILENCE.as_secs()),
            Ok(None) => return "the peer closed it".into(),
            Ok(Some(Err(error))) => return error.to_string(),
            Ok(Some(Ok(frame))) => frame,
        };
        heard.set(Instant::now());
        match frame {
            Frame::Binary(bytes) => match decode_frame(&bytes) {
                Ok(messages) => {
                    if voter.send(FromPeer { peer, messages }).await.is_err() {
                        return "the node is stopping".into();
                    }
                }
                Err(error) => return not_understood(&bytes, &error, peer, &voter),
            },
            Frame::Close(_) => return "the peer closed it".into(),
            Frame::Ping(_) | Frame::Pong(_) => {}
            Frame::Text(_) | Frame::Frame(_) => return "the peer sent a frame that is not binary".into(),
        }
    }
}

/// Who calls checks this node's hello when the link stands here already: its refusal comes where messages are expected.
fn not_understood(bytes: &[u8], error: &BadFrame, peer: NodeId, voter: &Addr<Voter>) -> String {
    match decode_opening(bytes) {
        Ok(Opening::Refused(refused)) => refused_by(peer, &refused, voter),
        _ => format!("the peer sent what can't be understood: {error}"),
    }
}

/// A peer refuses this node, which looks in its own store whether that is for a good reason. Whoever listens at the peer's address
/// may say so; without evidence this node goes on, and calls again.
pub(crate) fn refused_by(peer: NodeId, refused: &HelloRefused, voter: &Addr<Voter>) -> String {
    let HelloRefused { reason, message, evidence } = refused;
    voter.do_send(RefusedBy { peer, evidence: *evidence });
    format!("node {peer} refuses this node: {reason}: {}", shown(message))
}

/// A caller refuses this node instead of saying hello.
pub(crate) fn refused_by_caller(refused: &HelloRefused) -> String {
    format!("the caller refused: {}", shown(&refused.message))
}

/// What a peer says, as much as a person needs of it.
fn shown(text: &str) -> String {
    let end = text.char_indices().nth(MAX_SHOWN).map_or(text.len(), |(end, _)| end);
    escaped(&text[..end]).to_string()
}

/// The configuration of a socket before the peer has said who it is: frames of [`MAX_OPENING_FRAME`] at most.
pub fn opening_socket() -> WebSocketConfig {
    link_socket().max_message_size(Some(MAX_OPENING_FRAME)).max_frame_size(Some(MAX_OPENING_FRAME))
}

/// The configuration of the socket of a link.
pub fn link_socket() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_PEER_FRAME))
        .max_frame_size(Some(MAX_PEER_FRAME))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
}

/// The most characters that are shown of what a peer says.
const MAX_SHOWN: usize = 500;

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
