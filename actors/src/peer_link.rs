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
    BadFrame, MAX_FRAME_MESSAGES, decode_frame, decode_opening, encode_message, start_frame,
};
use rabia_bank_messages::escape::escaped;
use rabia_bank_messages::ids::{NodeId, RunId};
use rabia_bank_messages::peer::{HelloRefused, Opening, PeerMessage};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message as Frame;
use tracing::{info, warn};

use crate::mail::node::Stop;
use crate::mail::peer_link::{Attach, Break, IsUp, LinkInbox, MayAttach, STANDS, Say, Standing};
use crate::mail::voter::{FromPeer, LinkState, RefusedBy, VoterInbox};
use crate::rate::Rate;
use crate::socket::{FULL_FRAME, MAX_QUEUED, PeerSocket};

/// What becomes of a link is told so often at once …
const LINES: u32 = 20;
/// … and then once in this time.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Frames that wait for the writer. Each holds what was said while the one before was written.
const MAX_QUEUED_FRAMES: usize = 256;
/// How long a decision waits for something to share its frame with. Who votes tells all, so it is news only to a node that
/// missed votes.
const LINGER: Duration = Duration::from_millis(5);
/// A peer that says nothing for this long is gone: the slowest thing that it says is an [`PeerMessage::Alive`].
const SILENCE: Duration = Duration::from_secs(10);

/// A link on which nothing was heard for so long may be displaced: a node speaks five times a second at least.
pub const QUIET: Duration = Duration::from_secs(2);
/// The most messages in a frame.
const FULL_MESSAGES: usize = MAX_FRAME_MESSAGES / 2;

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
    voter: VoterInbox,
    socket: Option<Socket>,
    sockets: u64,
    frame: Vec<u8>,
    /// Messages in it.
    messages: usize,
    due: Due,
    dropped: u64,
    rate: Rate,
    started: Instant,
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
    pub fn new(peer: NodeId, voter: VoterInbox) -> PeerLink {
        PeerLink {
            peer,
            voter,
            socket: None,
            sockets: 0,
            frame: start_frame(),
            messages: 0,
            due: Due::Never,
            dropped: 0,
            rate: Rate::new(LINES, LINE_EVERY, Duration::ZERO),
            started: Instant::now(),
        }
    }

    /// See the [module documentation](self).
    fn may_attach(&self, run: RunId) -> bool {
        self.socket.as_ref().is_none_or(|socket| socket.run != run || socket.heard.get().elapsed() > QUIET)
    }

    /// Whether the log has room for what becomes of a link: who speaks in the peer's name makes and loses links as it likes.
    fn may_tell(&mut self) -> bool {
        let untold = self.rate.count(self.started.elapsed());
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
            self.voter.link_state.do_send(LinkState { peer: self.peer, up: None });
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

impl From<&Addr<PeerLink>> for LinkInbox {
    fn from(link: &Addr<PeerLink>) -> LinkInbox {
        LinkInbox {
            say: link.clone().recipient(),
            attach: link.clone().recipient(),
            may_attach: link.clone().recipient(),
            is_up: link.clone().recipient(),
            standing: link.clone().recipient(),
            cut: link.clone().recipient(),
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
        self.voter.link_state.do_send(LinkState { peer: self.peer, up: Some(link) });
        Box::pin(async move { wait.await.unwrap_or_else(|_| "the node is stopping".into()) })
    }
}

impl Handler<MayAttach> for PeerLink {
    type Result = bool;

    fn handle(&mut self, MayAttach(run): MayAttach, _: &mut Self::Context) -> bool {
        self.may_attach(run)
    }
}

impl Handler<IsUp> for PeerLink {
    type Result = bool;

    fn handle(&mut self, _: IsUp, _: &mut Self::Context) -> bool {
        self.socket.is_some()
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

impl Handler<Stop> for PeerLink {
    type Result = ();

    /// What it still had to say, a crash might have taken too.
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
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
    voter: VoterInbox,
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
                    if voter.from_peer.send(FromPeer { peer, messages }).await.is_err() {
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
fn not_understood(bytes: &[u8], error: &BadFrame, peer: NodeId, voter: &VoterInbox) -> String {
    match decode_opening(bytes) {
        Ok(Opening::Refused(refused)) => refused_by(peer, &refused, voter),
        _ => format!("the peer sent what can't be understood: {error}"),
    }
}

/// A peer refuses this node, which looks in its own store whether that is for a good reason. Whoever listens at the peer's address
/// may say so; without evidence this node goes on, and calls again.
pub(crate) fn refused_by(peer: NodeId, refused: &HelloRefused, voter: &VoterInbox) -> String {
    let HelloRefused { reason, message, evidence } = refused;
    voter.refused_by.do_send(RefusedBy { peer, evidence: *evidence });
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
