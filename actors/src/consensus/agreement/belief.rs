//! What a node believes of what peers say.
//!
//! - Numbers that can't be are refused, and the link with them ([`PeerMessage::check`]).
//! - Only a store that speaks for its member by this node's own log is heard. Any other that the handshake let in may ask for
//!   what is decided, and is told nothing else. A node that is linked to nobody whom it knows for [`ALONE`] learns what is
//!   decided from a stranger all the same, and says so: the stores of the others may have been replaced while it was away or
//!   had none, and then there is nobody else whom it could ask.
//! - A payload of a batch that waits is held only if all of it can be applied, and comes from its origin, was asked for, or
//!   comes with a proposal that counts. What is decided is held whatever it is: digest and decision name it.
//! - What is decided here stays. Who says that a slot was decided on something else is refused.

use std::time::Duration;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, NodeId, Slot as SlotNumber};
use rabia_bank_messages::peer::{Entry, PeerMessage, Value};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::super::slot::Slot;
use super::{AHEAD, Agreement, Effect, Stage};

/// A node that is linked to no member that its log knows for so long takes decided slots from a stranger.
pub const ALONE: Duration = Duration::from_secs(5);
/// A peer that did not answer so many requests for decided slots with any is not believed to have them.
const MISSES: u32 = 8;

/// An answer to a read round that names a slot so far beyond all that its node and this one know decided is not counted. Nodes
/// say several times a second how far they are, and no cluster decides so many slots in a minute.
const READ_AHEAD: u64 = 1_000_000;

impl Agreement {
    /// Whether the store at the other end of the link speaks for the peer, now or soon, by this node's log.
    pub fn is_in_force(&self, peer: NodeId) -> bool {
        let span = self.stores.span(peer, self.linked[peer.index()]);
        span.is_some_and(|span| span.end > self.frontier + 1) || is_broken(Rule::NewStoreByLog)
    }

    /// Whether this node takes decided slots and snapshots from the peer.
    pub fn learns_from(&self, peer: NodeId) -> bool {
        self.is_in_force(peer) || self.alone
    }

    /// Takes note of who is linked that this node's log knows.
    pub(super) fn look_who_is_known(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if self.peers_up().any(|peer| self.is_in_force(peer)) {
            (self.alone_since, self.alone) = (None, false);
            return;
        }
        let strangers: Vec<NodeId> = self.peers_up().collect();
        let since = *self.alone_since.get_or_insert(now);
        if !self.alone && now.saturating_sub(since) >= ALONE {
            self.alone = !strangers.is_empty();
            let why = "its store is not known here, but there is nobody else: decided slots are taken from it";
            effects.extend(strangers.into_iter().map(|peer| Effect::Warn(peer, why.into())));
        }
    }

    /// Whether the message is for this node to act upon. Where it shows that the peer says what can't be, the link is refused.
    /// [`Agreement::handle`] asks this by itself; who acts on messages that are not the core's business asks first.
    pub fn takes(&mut self, from: NodeId, message: &PeerMessage, effects: &mut Vec<Effect>) -> bool {
        if let Err(why) = message.check()
            && !is_broken(Rule::NumbersChecked)
        {
            self.refuse(from, format!("it says what can't be: {why}"), effects);
            return false;
        }
        let taken = match message {
            PeerMessage::CatchUp { .. } | PeerMessage::Fetch { .. } | PeerMessage::GetSnapshot { .. } => true,
            PeerMessage::Entries { .. }
            | PeerMessage::Alive { .. }
            | PeerMessage::Compacted { .. }
            | PeerMessage::SnapshotRows { .. } => self.learns_from(from),
            PeerMessage::ReadIndexAnswer { slot, .. } => {
                self.is_in_force(from) && *slot <= self.known[from.index()].max(self.frontier) + READ_AHEAD
            }
            _ => self.is_in_force(from),
        };
        if !taken {
            self.counters.not_taken += 1;
        }
        taken
    }

    pub(super) fn refuse(&mut self, peer: NodeId, why: String, effects: &mut Vec<Effect>) {
        self.counters.refused += 1;
        effects.push(Effect::Refuse(peer, why));
    }

    // ----- payloads -----

    /// Whether a batch that comes by itself is taken from this peer: its origin sends it, or it was asked for.
    pub(super) fn may_send(&self, from: NodeId, id: &BatchId) -> bool {
        id.origin == from || self.fetching.contains_key(id)
    }

    /// Takes the payload of a batch that waits. False if it is not taken, or was held.
    pub(super) fn hold_waiting(
        &mut self,
        now: Duration,
        from: NodeId,
        id: BatchId,
        payload: Payload,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if self.payloads.contains_key(&id) {
            return false;
        }
        if !payload.matches(&id) && !is_broken(Rule::PayloadDigest) {
            self.counters.bad_payloads += 1;
            return false;
        }
        let decided = || self.open.values().any(|open| open.stage() == Stage::Decided(Some(id)));
        if let Err(why) = payload.check()
            && !decided()
            && !is_broken(Rule::PayloadChecked)
        {
            self.counters.bad_payloads += 1;
            self.refuse_batch(id);
            effects.push(Effect::Warn(from, format!("it sent batch {id}, which can't be applied: {why}")));
            return false;
        }
        self.hold(now, id, payload, effects)
    }

    /// The batch is not asked for again, unless it is decided.
    fn refuse_batch(&mut self, id: BatchId) {
        self.fetching.remove(&id);
        if !self.refused.contains(&id) {
            self.refused.push_back(id);
            if self.refused.len() > super::REFUSED {
                self.refused.pop_front();
            }
        }
    }

    /// Lets go of a payload that no slot needs.
    pub(super) fn drop_payload(&mut self, id: BatchId) {
        let rests = |open: &Slot| open.rests_on(&id) || open.needed().any(|needed| *needed == id);
        let unwritten = self.unwritten.iter().any(|(_, value)| *value == Some(id));
        let unsaid = self.unreserved.iter().any(|(_, value, _)| *value == Some(id));
        if unwritten || unsaid || self.open.values().any(rests) {
            self.let_go_after(self.frontier, id);
        } else {
            self.payloads.remove(&id);
        }
    }

    // ----- decisions -----

    /// Whether a peer that says this contradicts what is decided here.
    pub(super) fn contradicts(&self, slot: SlotNumber, value: Value) -> bool {
        let here = match self.open.get(&slot).map(Slot::stage) {
            Some(Stage::Decided(here)) => Some(here),
            _ => self.recent.get(&slot).map(|decided| decided.value),
        };
        here.is_some_and(|here| here != value)
    }

    pub(super) fn refuse_decision(&mut self, from: NodeId, slot: SlotNumber, value: Value, effects: &mut Vec<Effect>) {
        assert!(!is_broken(Rule::DecisionsStay), "slot {slot} was decided twice");
        let said = value.map_or("nothing".into(), |id| format!("batch {id}"));
        self.refuse(from, format!("it says that slot {slot} was decided on {said}, which it was not here"), effects);
    }

    /// Decided slots, in order. The payloads are held whatever they are.
    pub(super) fn entries(
        &mut self,
        now: Duration,
        from: NodeId,
        entries: Vec<Entry>,
        decided: SlotNumber,
        effects: &mut Vec<Effect>,
    ) {
        self.knows(from, decided);
        let useful = entries.iter().any(|entry| entry.slot > self.frontier);
        let asked = self.catching_up.is_some_and(|(_, peer)| peer == from);
        if useful {
            self.misses[from.index()] = 0;
            if asked {
                self.catching_up = None;
            }
        }
        for Entry { slot, batch } in entries {
            let value = batch.as_ref().map(|(id, _)| *id);
            if self.contradicts(slot, value) {
                return self.refuse_decision(from, slot, value, effects);
            }
            let ahead = slot > self.frontier && slot <= self.frontier + AHEAD * self.genesis.window;
            if let Some((id, payload)) = batch
                && ahead
                && !self.payloads.contains_key(&id)
            {
                if !payload.matches(&id) {
                    return self.refuse(from, format!("it sent another payload than that of batch {id}"), effects);
                }
                self.hold(now, id, payload, effects);
            }
            self.adopt(now, slot, value, effects);
        }
        if useful && asked && self.known[from.index()] > self.frontier {
            self.ask_entries(now, from, effects);
        }
    }

    /// The peer to ask for decided slots: of those that say that they know more, the next in turn that has left the fewest
    /// requests without an answer.
    pub(super) fn whom_to_ask(&mut self) -> Option<NodeId> {
        let ahead: Vec<_> = self
            .peers_up()
            .filter(|peer| self.known[peer.index()] > self.frontier && self.learns_from(*peer))
            .collect();
        let fewest = ahead.iter().map(|peer| self.misses[peer.index()]).min()?;
        let best: Vec<_> = ahead.into_iter().filter(|peer| self.misses[peer.index()] == fewest).collect();
        let peer = best[self.last_asked % best.len()];
        self.last_asked += 1;
        Some(peer)
    }

    /// The furthest slot that any peer is known to have. One that says so and never shows it is not believed.
    pub fn known_elsewhere(&self) -> SlotNumber {
        let known = self.genesis.nodes().filter(|peer| self.misses[peer.index()] < MISSES);
        known.map(|peer| self.known[peer.index()]).max().unwrap_or(0)
    }
}
