//! Which link to a peer is used, what goes onto it, and what becomes of what does not get through.
//!
//! - **Use.** A link that works is not given up for another one that comes: a hello of the run that speaks on it already is turned away
//!   while the peer is heard. It is displaced by one of another run, for then the peer was restarted, or of any run once nothing was
//!   heard for [`QUIET`]. Whether the peer may speak at all was decided before, in the handshake.
//! - **Strangers.** Until the peer's store is known to speak for it, only what any store may ask for goes to it.
//! - **Frames.** Whatever is said together shares a frame. A decision waits a little for company: who votes tells all, so it is news
//!   only to a node that missed votes.
//! - **Bounds.** Frames that the peer takes too slowly wait, up to a limit; beyond it they are dropped, and so is all that is said while
//!   there is no link. The protocol repeats what matters.
//!
//! Sockets, their reading and writing, and closing one whose peer was silent for [`SILENCE`] are the driver's business.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rabia_bank_messages::codec::{MAX_FRAME_MESSAGES, encode_message, start_frame};
use rabia_bank_messages::ids::RunId;
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_messages::sabotage::{Rule, is_broken};

/// A link on which nothing was heard for so long may be displaced: a node speaks five times a second at least.
pub const QUIET: Duration = Duration::from_secs(2);
/// A peer of whom nothing was heard for so long is gone, and its socket is given up: the slowest thing that it says is an
/// [`Alive`](PeerMessage::Alive).
pub const SILENCE: Duration = Duration::from_secs(10);
/// The most bytes that wait for a slow peer.
pub const MAX_QUEUED: usize = 64 << 20;
/// The most frames that wait. Each holds what was said while the one before was written.
pub const MAX_QUEUED_FRAMES: usize = 256;
/// A frame that is this long, in bytes, is sent without waiting for more.
pub const FULL_FRAME: usize = 1 << 20;
/// And so is one with so many messages.
const FULL_MESSAGES: usize = MAX_FRAME_MESSAGES / 2;
/// How long a decision waits for something to share its frame with.
const LINGER: Duration = Duration::from_millis(5);

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Out {
    /// Write this frame to the socket that is in use.
    Frame(Vec<u8>),
    /// Call [`Link::flush`] after this time; after none, behind all that waits by then.
    Flush(Duration),
    /// The socket that was in use is let go of, for this reason. So many frames were dropped on it.
    Down(String, u64),
    /// Tell the voter that there is no link any more.
    TellDown,
    /// The peer takes messages too slowly: the first frame on this socket is dropped.
    Slow,
}

/// What whoever reads and writes a socket notes on the way.
#[derive(Debug)]
pub struct Traffic {
    heard: Cell<Duration>,
    frames: Cell<usize>,
    bytes: Cell<usize>,
}

impl Traffic {
    /// The peer was heard at this time.
    pub fn heard(&self, now: Duration) {
        self.heard.set(now);
    }

    /// A frame of so many bytes waits no longer: it is being written.
    pub fn taken(&self, bytes: usize) {
        self.frames.set(self.frames.get() - 1);
        self.bytes.set(self.bytes.get() - bytes);
    }
}

/// When the frame that gathers is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// There is nothing to send.
    Never,
    /// Within [`LINGER`], so that more can join it.
    Later,
    /// Behind all that waits.
    Now,
}

/// The socket that is in use.
#[derive(Debug)]
struct Current {
    number: u64,
    run: RunId,
    in_force: bool,
    traffic: Rc<Traffic>,
}

/// The link to one peer.
#[derive(Debug)]
pub struct Link {
    current: Option<Current>,
    /// How many sockets there have been.
    sockets: u64,
    /// What gathers, and how many messages that is.
    frame: Vec<u8>,
    messages: usize,
    due: Due,
    /// Frames that were dropped on this socket.
    dropped: u64,
}

impl Default for Link {
    fn default() -> Link {
        Link { current: None, sockets: 0, frame: start_frame(), messages: 0, due: Due::Never, dropped: 0 }
    }
}

impl Link {
    /// Whether there is one.
    pub fn is_up(&self) -> bool {
        self.current.is_some()
    }

    /// Whether a socket on which this run of the peer speaks would be used.
    pub fn may_attach(&self, now: Duration, run: RunId) -> bool {
        let stands = |current: &Current| current.run == run && now.saturating_sub(current.traffic.heard.get()) <= QUIET;
        !self.current.as_ref().is_some_and(stands)
    }

    /// A socket whose handshake is done, on which this run of the peer speaks. Answers its number, if it is used, and where its traffic
    /// is noted.
    pub fn attach(&mut self, now: Duration, run: RunId, out: &mut Vec<Out>) -> Option<(u64, Rc<Traffic>)> {
        if !self.may_attach(now, run) {
            return None;
        }
        self.detach("a newer link took its place".into(), out);
        self.sockets += 1;
        (self.frame, self.messages) = (start_frame(), 0);
        let traffic = Rc::new(Traffic { heard: Cell::new(now), frames: Cell::new(0), bytes: Cell::new(0) });
        self.current = Some(Current { number: self.sockets, run, in_force: false, traffic: traffic.clone() });
        Some((self.sockets, traffic))
    }

    /// Whether the peer's store speaks for it.
    pub fn standing(&mut self, in_force: bool) {
        if let Some(current) = &mut self.current {
            current.in_force = in_force;
        }
    }

    /// The socket of this number has ended, for this reason.
    pub fn ended(&mut self, number: u64, reason: String, out: &mut Vec<Out>) {
        if self.current.as_ref().is_some_and(|current| current.number == number) {
            self.detach(reason, out);
        }
    }

    /// The link is to be broken, for this reason.
    pub fn cut(&mut self, reason: String, out: &mut Vec<Out>) {
        self.detach(reason, out);
    }

    fn detach(&mut self, reason: String, out: &mut Vec<Out>) {
        if self.current.take().is_some() {
            out.push(Out::Down(reason, std::mem::take(&mut self.dropped)));
            if !is_broken(Rule::LinkEndTold) {
                out.push(Out::TellDown);
            }
        }
    }

    /// This is to be said to the peer.
    pub fn say(&mut self, message: &PeerMessage, out: &mut Vec<Out>) {
        if self.current.as_ref().is_none_or(|current| !current.in_force && !goes_to_strangers(message)) {
            return;
        }
        encode_message(&mut self.frame, message);
        self.messages += 1;
        if self.frame.len() >= FULL_FRAME || self.messages >= FULL_MESSAGES {
            self.queue(out);
        } else if let PeerMessage::Decide { .. } = message {
            if self.due == Due::Never {
                self.due = Due::Later;
                out.push(Out::Flush(LINGER));
            }
        } else if self.due != Due::Now {
            self.due = Due::Now;
            out.push(Out::Flush(Duration::ZERO));
        }
    }

    /// It is time to send what gathers.
    pub fn flush(&mut self, out: &mut Vec<Out>) {
        self.due = Due::Never;
        if self.messages > 0 {
            self.queue(out);
        }
    }

    fn queue(&mut self, out: &mut Vec<Out>) {
        let frame = std::mem::replace(&mut self.frame, start_frame());
        self.messages = 0;
        let Some(Current { traffic, .. }) = &self.current else { return };
        let (frames, bytes) = (traffic.frames.get(), traffic.bytes.get());
        if bytes <= MAX_QUEUED && frames < MAX_QUEUED_FRAMES {
            traffic.frames.set(frames + 1);
            traffic.bytes.set(bytes + frame.len());
            return out.push(Out::Frame(frame));
        }
        if self.dropped == 0 {
            out.push(Out::Slow);
        }
        self.dropped += 1;
    }
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

#[cfg(test)]
mod tests {
    use rabia_bank_messages::codec::decode_frame;

    use super::*;

    const FIRST: RunId = RunId([1; 16]);
    const SECOND: RunId = RunId([2; 16]);

    fn vote(slot: u64) -> PeerMessage {
        PeerMessage::Vote { slot, phase: 1, vote: rabia_bank_messages::peer::Vote::Zero }
    }

    fn up(run: RunId) -> (Link, Rc<Traffic>) {
        let mut link = Link::default();
        let (_, traffic) = link.attach(Duration::ZERO, run, &mut Vec::new()).unwrap();
        link.standing(true);
        (link, traffic)
    }

    #[test]
    fn a_link_that_is_heard_is_displaced_by_another_run_alone() {
        let (mut link, traffic) = up(FIRST);
        traffic.heard(QUIET);
        assert!(!link.may_attach(2 * QUIET, FIRST) && link.may_attach(2 * QUIET, SECOND));
        assert!(link.may_attach(2 * QUIET + Duration::from_millis(1), FIRST), "nothing is heard on it any more");
        let mut out = Vec::new();
        assert!(link.attach(2 * QUIET, FIRST, &mut out).is_none() && out.is_empty());
        let (number, _) = link.attach(2 * QUIET, SECOND, &mut out).unwrap();
        assert!(matches!(&out[..], [Out::Down(_, 0), Out::TellDown]), "{out:?}");
        out.clear();
        link.ended(number - 1, "late".into(), &mut out);
        assert!(out.is_empty() && link.is_up(), "the socket before has ended");
        link.ended(number, "gone".into(), &mut out);
        assert!(out == [Out::Down("gone".into(), 0), Out::TellDown] && !link.is_up());
    }

    #[test]
    fn what_is_said_together_shares_a_frame_and_a_decision_waits_for_company() {
        let (mut link, _) = up(FIRST);
        let decide = PeerMessage::Decide { slot: 3, value: None };
        let mut out = Vec::new();
        link.say(&decide, &mut out);
        link.say(&decide, &mut out);
        link.say(&vote(4), &mut out);
        link.say(&vote(5), &mut out);
        assert_eq!(out, [Out::Flush(LINGER), Out::Flush(Duration::ZERO)]);
        out.clear();
        link.flush(&mut out);
        let [Out::Frame(frame)] = &out[..] else { panic!("{out:?}") };
        assert_eq!(decode_frame(frame).unwrap(), [decide.clone(), decide, vote(4), vote(5)]);
        out.clear();
        link.flush(&mut out);
        assert!(out.is_empty(), "there is nothing left");
    }

    #[test]
    fn strangers_are_told_only_what_any_store_may_ask_for() {
        let (mut link, _) = up(FIRST);
        let (mut out, fetch) = (Vec::new(), PeerMessage::CatchUp { from: 1 });
        link.standing(false);
        link.say(&vote(1), &mut out);
        assert!(out.is_empty());
        link.say(&fetch, &mut out);
        link.flush(&mut out);
        let Some(Out::Frame(frame)) = out.last() else { panic!("{out:?}") };
        assert_eq!(decode_frame(frame).unwrap(), [fetch]);
    }

    #[test]
    fn what_a_peer_takes_too_slowly_is_dropped_beyond_a_limit() {
        let (mut link, traffic) = up(FIRST);
        let send = |link: &mut Link| {
            let mut out = Vec::new();
            link.say(&vote(1), &mut out);
            link.flush(&mut out);
            out.pop().unwrap()
        };
        let Out::Frame(frame) = send(&mut link) else { panic!("it is not sent") };
        assert!((1..MAX_QUEUED_FRAMES).all(|_| matches!(send(&mut link), Out::Frame(_))));
        assert_eq!([send(&mut link), send(&mut link)], [Out::Slow, Out::Flush(Duration::ZERO)], "that is told once");
        traffic.taken(frame.len());
        assert!(matches!(send(&mut link), Out::Frame(_)));
        let mut out = Vec::new();
        link.cut("over".into(), &mut out);
        assert_eq!(out, [Out::Down("over".into(), 2), Out::TellDown]);
        link.say(&vote(1), &mut out);
        assert_eq!(out.len(), 2, "there is no link");
    }
}
