//! The peer link actor, one a peer: one WebSocket link, which may break and come back. Which link is used, and what goes onto it, is
//! the [part](crate::parts::link)'s matter.
//!
//! Frames of the peer go to the voter one at a time, so that a fast peer can't fill its mailbox.

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::{SinkExt, StreamExt};
use rabia_bank_messages::codec::{BadFrame, decode_frame, decode_opening};
use rabia_bank_messages::escape::escaped;
use rabia_bank_messages::ids::NodeId;
use rabia_bank_messages::peer::{HelloRefused, Opening};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message as Frame;
use tracing::{info, warn};

use crate::mail::node::Stop;
use crate::mail::peer_link::{Attach, Break, IsUp, LinkInbox, MayAttach, STANDS, Say, Standing};
use crate::mail::voter::{FromPeer, LinkState, RefusedBy, VoterInbox};
use crate::parts::link::{Link, Out, SILENCE, Traffic};
use crate::rate::Rate;
use crate::socket::PeerSocket;

/// What becomes of a link is told so often at once …
const LINES: u32 = 20;
/// … and then once in this time.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Comes behind all that waits in the mailbox, or after a while.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

/// Reading from a socket, or writing to it, has come to an end.
#[derive(Message)]
#[rtype(result = "()")]
struct Ended {
    socket: u64,
    reason: String,
}

/// The socket that is in use.
struct Socket {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    ended: oneshot::Sender<String>,
    reading: SpawnHandle,
    writing: SpawnHandle,
}

/// The link to one peer.
pub struct PeerLink {
    peer: NodeId,
    voter: VoterInbox,
    part: Link,
    socket: Option<Socket>,
    rate: Rate,
    /// The zero of the part's clock.
    started: Instant,
    /// Empty, and kept for its room.
    outs: Vec<Out>,
}

impl PeerLink {
    /// The link to this peer, not connected yet.
    pub fn new(peer: NodeId, voter: VoterInbox) -> PeerLink {
        PeerLink {
            peer,
            voter,
            part: Link::default(),
            socket: None,
            rate: Rate::new(LINES, LINE_EVERY, Duration::ZERO),
            started: Instant::now(),
            outs: Vec::new(),
        }
    }

    /// Whether the log has room for what becomes of a link: who speaks in the peer's name makes and loses links as it likes.
    fn may_tell(&mut self) -> bool {
        let untold = self.rate.count(self.started.elapsed());
        if let Some(untold @ 1..) = untold {
            info!(peer = %self.peer, untold, "links came and went without a line");
        }
        untold.is_some()
    }

    fn act<T>(&mut self, ctx: &mut Context<Self>, act: impl FnOnce(&mut Link, &mut Vec<Out>) -> T) -> T {
        let mut outs = std::mem::take(&mut self.outs);
        let answer = act(&mut self.part, &mut outs);
        outs.drain(..).for_each(|out| self.perform(out, ctx));
        self.outs = outs;
        answer
    }

    fn perform(&mut self, out: Out, ctx: &mut Context<Self>) {
        match out {
            Out::Frame(frame) => {
                if let Some(socket) = &self.socket {
                    // A socket that has ended says so by itself.
                    let _ = socket.frames.send(frame);
                }
            }
            Out::Flush(Duration::ZERO) => ctx.notify(Flush),
            Out::Flush(after) => {
                ctx.notify_later(Flush, after);
            }
            Out::Down(reason, dropped) => self.let_go(reason, dropped, ctx),
            Out::TellDown => self.voter.link_state.do_send(LinkState { peer: self.peer, up: None }),
            Out::Slow => {
                warn!(peer = %self.peer, "the peer takes messages too slowly: some are dropped and said again later");
            }
        }
    }

    fn let_go(&mut self, reason: String, dropped: u64, ctx: &mut Context<Self>) {
        let Some(socket) = self.socket.take() else { return };
        ctx.cancel_future(socket.reading);
        ctx.cancel_future(socket.writing);
        if self.may_tell() {
            info!(peer = %self.peer, reason, dropped, "the link is down");
        }
        // Who attached it may be gone.
        let _ = socket.ended.send(reason);
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
        self.act(ctx, |part, out| part.say(&message, out));
    }
}

impl Handler<Flush> for PeerLink {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.act(ctx, Link::flush);
    }
}

impl Handler<Attach> for PeerLink {
    type Result = ResponseFuture<String>;

    fn handle(&mut self, Attach { socket, link, run }: Attach, ctx: &mut Self::Context) -> Self::Result {
        let now = self.started.elapsed();
        let Some((number, traffic)) = self.act(ctx, |part, out| part.attach(now, run, out)) else {
            return Box::pin(std::future::ready(STANDS.into()));
        };
        let (frames, queue) = mpsc::unbounded_channel();
        let (sink, stream) = socket.split();
        let end = move |reason: String, _: &mut Self, ctx: &mut Context<Self>| {
            ctx.notify(Ended { socket: number, reason });
        };
        let heard = Heard { started: self.started, traffic: traffic.clone() };
        let reading = read(stream, self.peer, self.voter.clone(), heard).into_actor(self).map(end);
        let writing = write(sink, queue, traffic).into_actor(self).map(end);
        let (ended, wait) = oneshot::channel();
        let (reading, writing) = (ctx.spawn(reading), ctx.spawn(writing));
        self.socket = Some(Socket { frames, ended, reading, writing });
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
        self.part.may_attach(self.started.elapsed(), run)
    }
}

impl Handler<IsUp> for PeerLink {
    type Result = bool;

    fn handle(&mut self, _: IsUp, _: &mut Self::Context) -> bool {
        self.part.is_up()
    }
}

impl Handler<Standing> for PeerLink {
    type Result = ();

    fn handle(&mut self, Standing { in_force }: Standing, _: &mut Self::Context) {
        self.part.standing(in_force);
    }
}

impl Handler<Break> for PeerLink {
    type Result = ();

    fn handle(&mut self, Break(why): Break, ctx: &mut Self::Context) {
        self.act(ctx, |part, out| part.cut(why, out));
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
        self.act(ctx, |part, out| part.ended(socket, reason, out));
    }
}

/// Notes when a peer was heard, by the clock of the part.
struct Heard {
    started: Instant,
    traffic: Rc<Traffic>,
}

async fn read(
    mut stream: futures_util::stream::SplitStream<PeerSocket>,
    peer: NodeId,
    voter: VoterInbox,
    heard: Heard,
) -> String {
    loop {
        let frame = match tokio::time::timeout(SILENCE, stream.next()).await {
            Err(_) => return format!("nothing was heard for {} s", SILENCE.as_secs()),
            Ok(None) => return "the peer closed it".into(),
            Ok(Some(Err(error))) => return error.to_string(),
            Ok(Some(Ok(frame))) => frame,
        };
        heard.traffic.heard(heard.started.elapsed());
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
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    traffic: Rc<Traffic>,
) -> String {
    while let Some(frame) = queue.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            traffic.taken(frame.len());
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
