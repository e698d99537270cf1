//! The links of simulated nodes. Of two members the one with the lower number calls: it introduces itself, the other answers when it
//! has written down what it is to remember, and each takes the link into use when its voter has accepted the other. What is said goes through the
//! link's part into frames; message by message the network then loses, delays and repeats it.
//!
//! A link may be gone for one side alone. The other goes on speaking into the void, until the peer comes with another link or nothing
//! was heard for [`SILENCE`].

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use rabia_bank_actors::consensus::handshake::Met;
use rabia_bank_actors::parts::link::{Link, Out, SILENCE, Traffic};
use rabia_bank_actors::parts::voter::{Call, LinkUp};
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::codec::decode_frame;
use rabia_bank_messages::ids::{NodeId, RunId, StoreId};
use rabia_bank_messages::peer::{Evidence, Hello, HelloRefused, Opening, PeerMessage, RefusalReason};

use super::super::properties::{Check, Violation, check};
use super::super::workload::Workload;
use super::{DIAL, Item, Loss, MAILBOX, Machine, Mail, World};

/// What comes too early, or not through, is tried again after this time.
const TRY_AGAIN: Duration = Duration::from_millis(1);

/// A hello that a voter has not answered.
pub(super) struct Meeting {
    call: Call,
    peer: usize,
    link: u64,
    run: RunId,
    up: LinkUp,
}

/// Frames that the network has not taken yet, and where it notes that.
#[derive(Default)]
pub(super) struct Queue {
    frames: VecDeque<Vec<u8>>,
    traffic: Option<Rc<Traffic>>,
    /// When the peer was heard last.
    heard: Duration,
}

impl<W: Workload> World<W> {
    // ----- handshakes -----

    pub(super) fn dial(&mut self, a: usize, b: usize) -> Check {
        let again = DIAL + self.micros(0, 20_000);
        self.at(again, Item::Dial { a, b });
        let down = |index: usize| self.machines[index].node.is_none() || self.machines[index].paused > self.now;
        let cut = self.network.is_cut(a, b) || self.network.is_cut(b, a);
        if self.network.works(a, b) || cut || down(a) || down(b) {
            return Ok(());
        }
        let Some(node) = &self.machines[a].node else { return Ok(()) };
        // It does not know that its link is gone.
        if node.links[b].is_up() {
            return Ok(());
        }
        let hello = node.voter.introduce(self.machines[b].id);
        self.network.turn(a, b);
        self.say_first(a, b, Opening::Hello(hello));
        Ok(())
    }

    fn say_first(&mut self, from: usize, to: usize, opening: Opening) {
        let (delay, link) = (self.micros(40, 160), self.network.link(from, to));
        self.at(delay, Item::Opening { to, from, link, opening });
    }

    pub(super) fn open(&mut self, to: usize, from: usize, link: u64, opening: Opening) -> Check {
        if self.network.link(from, to) != link {
            return Ok(());
        }
        if self.network.is_cut(from, to) {
            self.at(TRY_AGAIN, Item::Opening { to, from, link, opening });
            return Ok(());
        }
        match opening {
            Opening::Hello(hello) => self.meet(to, from, link, &hello),
            Opening::Refused(refused) => self.refused(to, from, link, refused.evidence),
        }
    }

    /// A node hears what a peer says of itself.
    fn meet(&mut self, index: usize, peer: usize, link: u64, hello: &Hello) -> Check {
        self.judge(index, link, hello)?;
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        node.calls += 1;
        let call = node.calls;
        let (run, up) = (hello.run.run, LinkUp::of(hello, index < peer));
        // A link of this run that is heard keeps its place.
        if !node.links[peer].may_attach(self.now, run) {
            return self.disconnect(index, peer);
        }
        node.meeting.push(Meeting { call, peer, link, run, up });
        self.voter(index, |voter, now, out| voter.meet(now, call, hello, out))
    }

    /// Only an old copy may be refused, or be what refuses, and a store that is not its member's yet, or not any more.
    fn judge(&mut self, index: usize, link: u64, hello: &Hello) -> Check {
        let machine = &mut self.machines[index];
        let Some(node) = &mut machine.node else { return Ok(()) };
        let refused = match node.voter.check(hello) {
            Ok(Met::Stranger) => {
                self.report.count("stores met before the log told of them");
                return Ok(());
            }
            Ok(Met::Member | Met::Disputing) => {
                node.let_in[hello.node.index()] = link;
                return self.old_copies.accepted(machine.store, hello);
            }
            Err(refused) => refused,
        };
        let (id, frontier) = (machine.id, node.voter.core().frontier());
        let old_copy = [index, hello.node.index()].iter().any(|one| self.machines[*one].lost == Some(Loss::OldCopy));
        let known = self.stores.newest(hello.node, frontier);
        let other = match refused.reason {
            RefusalReason::NotYet => self.stores.replaced_in(hello.store).is_none_or(|slot| slot > frontier),
            RefusalReason::Replaced => known != hello.store && self.is_over(hello.node, hello.store),
            _ => false,
        };
        check(old_copy || other, "handshake", || format!("node {id} refuses node {}: {}", hello.node, refused.message))
    }

    /// Whether a quorum of the members has all slots durably in which this former store of a node speaks.
    fn is_over(&self, node: NodeId, store: StoreId) -> bool {
        let Some(last) = self.stores.last_slot(node, store) else { return false };
        // A store whose disk is about to be exchanged, or was put back, had them too.
        let has = |machine: &&Machine<W>| {
            [machine.newest, machine.store].iter().any(|store| self.promises.durable(*store) >= last)
        };
        self.machines.iter().filter(has).count() >= self.genesis.quorums().quorum()
    }

    /// A voter has answered a hello.
    pub(super) fn met(&mut self, index: usize, call: Call, met: Result<Hello, HelloRefused>) -> Check {
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let asked = node.meeting.iter().position(|meeting| meeting.call == call);
        let Some(asked) = asked.map(|asked| node.meeting.swap_remove(asked)) else {
            return check(false, "handshake", || format!("node {} answers a hello twice", index + 1));
        };
        let Meeting { peer, link, run, up, .. } = asked;
        if self.network.link(index, peer) != link {
            return Ok(());
        }
        match met {
            Ok(hello) => {
                if !up.dialled {
                    self.say_first(index, peer, Opening::Hello(hello));
                }
                self.attach(index, peer, link, run, up)
            }
            Err(refused) => {
                self.report.count("handshakes refused");
                self.say_first(index, peer, Opening::Refused(refused));
                Ok(())
            }
        }
    }

    /// A node is refused. Who was called and has not answered yet makes nothing of it.
    fn refused(&mut self, index: usize, by: usize, link: u64, evidence: Option<Evidence>) -> Check {
        let attached = self.machines[index].node.as_ref().is_some_and(|node| node.attached[by] == link);
        if attached || index < by {
            let peer = self.machines[by].id;
            self.voter(index, |voter, _, out| voter.refused_by(peer, evidence, out))?;
        }
        if self.network.link(index, by) == link { self.disconnect(index, by) } else { Ok(()) }
    }

    // ----- links -----

    /// The link to a peer does something, and what follows is done. Nothing happens if the node is down.
    pub(super) fn link(&mut self, index: usize, peer: usize, act: impl FnOnce(&mut Link, &mut Vec<Out>)) -> Check {
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let mut outs = Vec::new();
        act(&mut node.links[peer], &mut outs);
        outs.into_iter().try_for_each(|out| self.done_by_link(index, peer, out))
    }

    fn done_by_link(&mut self, index: usize, peer: usize, out: Out) -> Check {
        let peer_id = self.machines[peer].id;
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        match out {
            Out::Frame(frame) => {
                let queue = &mut node.queues[peer].frames;
                queue.push_back(frame);
                if queue.len() == 1 { self.transmit(index, peer) } else { Ok(()) }
            }
            Out::Flush(after) => {
                self.mail(index, after.max(MAILBOX), Mail::Flush(peer));
                Ok(())
            }
            Out::Down(..) => {
                node.queues[peer] = Queue::default();
                Ok(())
            }
            Out::TellDown => self.voter(index, |voter, now, out| voter.link_down(now, peer_id, out)),
            Out::Slow => {
                self.report.count("links too slow for what was said");
                Ok(())
            }
        }
    }

    /// The network takes what waits for a peer, unless that stands still: then its buffers are full.
    pub(super) fn transmit(&mut self, index: usize, peer: usize) -> Check {
        let stands_still = self.machines[peer].paused.saturating_sub(self.now);
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        if !stands_still.is_zero() {
            self.mail(index, stands_still, Mail::Transmit(peer));
            return Ok(());
        }
        let Queue { frames, traffic, .. } = &mut node.queues[peer];
        let frames = std::mem::take(frames);
        traffic.iter().for_each(|traffic| frames.iter().for_each(|frame| traffic.taken(frame.len())));
        for frame in frames {
            let messages = decode_frame(&frame)
                .map_err(|error| Violation { property: "frames", what: format!("a node says {error}") })?;
            messages.into_iter().try_for_each(|message| self.carry_over(index, peer, message))?;
        }
        Ok(())
    }

    fn attach(&mut self, index: usize, peer: usize, link: u64, run: RunId, up: LinkUp) -> Check {
        let (now, peer_id) = (self.now, self.machines[peer].id);
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let mut outs = Vec::new();
        let Some((_, traffic)) = node.links[peer].attach(now, run, &mut outs) else { return Ok(()) };
        node.queues[peer] = Queue { frames: VecDeque::new(), traffic: Some(traffic), heard: now };
        node.attached[peer] = link;
        for out in outs {
            match out {
                // The socket that was in use: its queue is gone already.
                Out::Down(..) => self.report.count("links displaced by another"),
                out => self.done_by_link(index, peer, out)?,
            }
        }
        self.voter(index, |voter, now, out| voter.link_up(now, peer_id, up, out))
    }

    /// A node does not want its link to a peer any more.
    pub(super) fn hang_up(&mut self, index: usize, peer: usize) {
        let link = self.network.link(index, peer);
        self.at(MAILBOX, Item::HangUp { a: index, b: peer, link });
    }

    /// It ends for both, or for the one alone that does not know yet that it is gone.
    pub(super) fn hung_up(&mut self, index: usize, peer: usize, link: u64) -> Check {
        if self.is_unaware(index, peer) {
            self.link(index, peer, |link, out| link.cut("it was given up".into(), out))
        } else if self.network.link(index, peer) == link {
            self.disconnect(index, peer)
        } else {
            Ok(())
        }
    }

    /// Whether a node does not know that the link is gone which it has to a peer.
    fn is_unaware(&self, index: usize, peer: usize) -> bool {
        let link = self.network.link(index, peer);
        let node = self.machines[index].node.as_ref();
        node.is_some_and(|node| node.links[peer].is_up() && node.attached[peer] != link)
    }

    /// A node loses its link to a peer, which is not told.
    pub(super) fn lose_link(&mut self, index: usize, peer: usize) -> Check {
        if !self.network.works(index, peer) {
            return Ok(());
        }
        let link = self.network.link(index, peer);
        self.network.turn(index, peer);
        if self.machines[index].node.as_ref().is_some_and(|node| node.attached[peer] == link) {
            self.link(index, peer, |link, out| link.cut("the link broke".into(), out))?;
        }
        Ok(())
    }

    /// A node gives up links on which nothing was heard for too long.
    pub(super) fn give_up_silent_links(&mut self, index: usize) -> Check {
        for peer in 0..self.machines.len() {
            let Some(node) = &self.machines[index].node else { return Ok(()) };
            if !node.links[peer].is_up() || self.now.saturating_sub(node.queues[peer].heard) < SILENCE {
                continue;
            }
            self.report.count("links given up in silence");
            let link = self.network.link(index, peer);
            self.hung_up(index, peer, link)?;
        }
        Ok(())
    }

    pub(super) fn disconnect(&mut self, a: usize, b: usize) -> Check {
        if !self.network.works(a, b) {
            return Ok(());
        }
        let link = self.network.link(a, b);
        self.network.turn(a, b);
        for (side, peer) in [(a, b), (b, a)] {
            if self.machines[side].node.as_ref().is_some_and(|node| node.attached[peer] == link) {
                self.link(side, peer, |link, out| link.cut("the link broke".into(), out))?;
            }
        }
        Ok(())
    }

    // ----- messages -----

    /// A node says something to a peer.
    pub(super) fn send(&mut self, from: usize, to: usize, message: PeerMessage) -> Check {
        self.link(from, to, |link, out| link.say(&message, out))
    }

    /// The network takes a message, or loses it.
    fn carry_over(&mut self, from: usize, to: usize, message: PeerMessage) -> Check {
        let link = self.network.link(from, to);
        let attached = self.machines[from].node.as_ref().is_some_and(|node| node.attached[to] == link);
        if !attached || !self.network.works(from, to) || !self.babble_beside(from, to, &message) {
            return Ok(());
        }
        let lost = self.network.is_cut(from, to) || self.percent(self.rates.loss);
        if lost {
            self.report.count("messages lost");
            return Ok(());
        }
        let twice = self.percent(self.rates.duplication);
        if twice {
            self.report.count("messages duplicated");
        }
        for _ in 0..=usize::from(twice) {
            let mut delay = self.micros(40, 160);
            if self.percent(self.rates.delay) {
                self.report.count("messages delayed");
                delay += self.micros(100, 60_000);
            }
            let message = self.carry(message.clone());
            self.at(delay, Item::Message { to, from, link, message, nonsense: false });
        }
        Ok(())
    }

    /// What arrives of a message: a payload may be damaged on its way.
    fn carry(&mut self, mut message: PeerMessage) -> PeerMessage {
        if self.rates.damage == 0 {
            return message;
        }
        let damage = self.percent(self.rates.damage);
        let payload = match &mut message {
            PeerMessage::Proposal { payload: Some(payload), .. } | PeerMessage::Batch { payload, .. } => payload,
            _ => return message,
        };
        if damage {
            self.report.count("payloads damaged on their way");
            let mut bytes = payload.bytes().to_vec();
            let place = self.random.usize(..bytes.len());
            bytes[place] ^= 1 << self.random.u32(..8);
            *payload = Payload::new(bytes);
        }
        message
    }

    pub(super) fn arrive(&mut self, to: usize, from: usize, link: u64, message: PeerMessage, nonsense: bool) -> Check {
        if self.network.link(from, to) != link {
            return Ok(());
        }
        let now = self.now;
        let Some(node) = &mut self.machines[to].node else { return Ok(()) };
        if node.attached[from] != link {
            // Who answers a call may speak before the caller listens.
            self.at(TRY_AGAIN, Item::Message { to, from, link, message, nonsense });
            return Ok(());
        }
        let queue = &mut node.queues[from];
        queue.heard = now;
        if let Some(traffic) = &queue.traffic {
            traffic.heard(now);
        }
        if nonsense { self.hear_nonsense(to, from, message) } else { self.hear(to, from, message) }
    }
}
