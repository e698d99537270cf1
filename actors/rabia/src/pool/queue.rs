//! Batches that are not decided yet: which wait for a slot, in which order, and for how long.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, MAX_NODES, Millis, NodeId, Slot};
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::words::PoolEffect;

/// Ids of batches that were given up which are remembered.
const REMEMBERED: usize = 16_384;
/// The most bytes of another node's batches that wait here to be proposed …
pub const MAX_WAITING_BYTES: usize = 32 << 20;
/// … and how many of them.
pub const MAX_WAITING: usize = 4_096;
/// The most bytes of all other nodes' batches that wait here.
pub const MAX_ALL_WAITING_BYTES: usize = 96 << 20;
/// A batch of another node that waited for so long goes: its origin proposes it itself, or has gone.
pub const MAX_WAIT: Duration = Duration::from_secs(60);
/// How often it is looked for those.
const SWEEP: Duration = Duration::from_secs(1);

/// A batch that waits to be decided.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) payload: Payload,
    /// Its place in the queue.
    pub(super) order: u64,
    pub(super) since: Duration,
    /// The slot in which this node proposed it.
    slot: Option<Slot>,
    /// All peers were sent the payload.
    shared: bool,
    /// Commands in it; 0 for another node's, which are not counted.
    pub(super) commands: u64,
}

impl Pending {
    /// One of this node, with so many commands.
    pub(super) fn own(payload: Payload, order: u64, since: Duration, commands: u64) -> Pending {
        Pending { payload, order, since, slot: None, shared: false, commands }
    }

    /// One that another node sent to all.
    pub(super) fn shared(payload: Payload, order: u64, since: Duration) -> Pending {
        Pending { payload, order, since, slot: None, shared: true, commands: 0 }
    }

    /// Whether its stamp is no later than this.
    pub(super) fn is_ripe_by(&self, latest: Millis) -> bool {
        self.payload.stamp().is_ok_and(|stamp| stamp <= latest) || is_broken(Rule::StampAhead)
    }
}

/// The batches of all nodes that are not known to be decided.
///
/// Invariant: `waiting` has the places of those that no slot has, and `load` is what they sum up to.
#[derive(Debug)]
pub(super) struct Queue {
    me: NodeId,
    members: usize,
    order: u64,
    pending: FxHashMap<BatchId, Pending>,
    waiting: BTreeMap<u64, BatchId>,
    /// Of each origin, the bytes and the number of its batches in `waiting`.
    load: [(usize, usize); MAX_NODES],
    /// Batches that were given up or had to go, and did neither come again nor were decided …
    given_up: FxHashSet<BatchId>,
    /// … in the order in which that happened, the oldest first.
    given_up_order: VecDeque<BatchId>,
    /// Batches of other nodes that had to go.
    dropped: u64,
    swept: Duration,
}

impl Queue {
    /// Of this node, in a cluster of so many.
    pub(super) fn new(me: NodeId, members: usize) -> Queue {
        Queue {
            me,
            members,
            order: 0,
            pending: FxHashMap::default(),
            waiting: BTreeMap::new(),
            load: [(0, 0); MAX_NODES],
            given_up: FxHashSet::default(),
            given_up_order: VecDeque::new(),
            dropped: 0,
            swept: Duration::ZERO,
        }
    }

    /// A place behind all that were given out.
    pub(super) fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    pub(super) fn get(&self, id: &BatchId) -> Option<&Pending> {
        self.pending.get(id)
    }

    /// The batches of this node.
    pub(super) fn own(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter().filter(|(id, _)| id.origin == self.me).map(|(_, pending)| pending)
    }

    /// Those that wait for a slot, the longest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (BatchId, &Pending)> {
        self.waiting.values().filter_map(|id| Some((*id, self.pending.get(id)?)))
    }

    /// Batches of other nodes that had to go, since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    // ----- coming and going -----

    /// A batch waits for a slot.
    pub(super) fn add(&mut self, id: BatchId, pending: Pending) {
        let order = pending.order;
        self.pending.insert(id, pending);
        self.wait(order, id);
    }

    fn wait(&mut self, order: u64, id: BatchId) {
        let bytes = self.pending.get(&id).map_or(0, |pending| pending.payload.len());
        if self.waiting.insert(order, id).is_none() {
            let (sum, count) = &mut self.load[id.origin.index()];
            *sum += bytes;
            *count += 1;
        }
    }

    /// The batch of this place waits no longer. To be called while it is pending.
    fn wait_no_more(&mut self, order: u64) {
        let Some(id) = self.waiting.remove(&order) else { return };
        let bytes = self.pending.get(&id).map_or(0, |pending| pending.payload.len());
        let (sum, count) = &mut self.load[id.origin.index()];
        *sum -= bytes;
        *count -= 1;
    }

    fn remove(&mut self, id: &BatchId) -> Option<Pending> {
        let order = self.pending.get(id)?.order;
        self.wait_no_more(order);
        self.pending.remove(id)
    }

    /// A batch is decided. Answers what was known of it.
    pub(super) fn decided(&mut self, id: &BatchId) -> Option<Pending> {
        self.given_up.remove(id);
        self.remove(id)
    }

    /// A batch is proposed in a slot. Answers whether its payload is to be sent along.
    pub(super) fn propose(&mut self, id: &BatchId, slot: Slot) -> bool {
        let Some(order) = self.pending.get(id).map(|pending| pending.order) else { return false };
        self.wait_no_more(order);
        self.pending.get_mut(id).is_some_and(|pending| {
            pending.slot.get_or_insert(slot);
            !std::mem::replace(&mut pending.shared, true)
        })
    }

    /// This slot was decided on something else: if the batch was proposed there, it waits for another.
    pub(super) fn release(&mut self, id: &BatchId, slot: Slot) {
        if let Some(pending) = self.pending.get_mut(id)
            && pending.slot == Some(slot)
        {
            pending.slot = None;
            let order = pending.order;
            self.wait(order, *id);
        }
    }

    /// All wait for a slot again.
    pub(super) fn release_all(&mut self) {
        self.pending.values_mut().for_each(|pending| pending.slot = None);
        let all: Vec<_> = self.pending.iter().map(|(id, pending)| (pending.order, *id)).collect();
        all.into_iter().for_each(|(order, id)| self.wait(order, id));
    }

    // ----- sharing -----

    /// Those of this node that wait and were sent to all.
    pub(super) fn shared(&self) -> impl Iterator<Item = PeerMessage> {
        let shared = self.waiting().filter(|(id, pending)| id.origin == self.me && pending.shared);
        shared.map(|(id, pending)| PeerMessage::Batch { id, payload: pending.payload.clone() })
    }

    /// Sends those of this node that wait to all, once.
    pub(super) fn share(&mut self, effects: &mut Vec<PoolEffect>) {
        for id in self.waiting.values().filter(|id| id.origin == self.me) {
            if let Some(pending) = self.pending.get_mut(id)
                && !std::mem::replace(&mut pending.shared, true)
            {
                let message = PeerMessage::Batch { id: *id, payload: pending.payload.clone() };
                effects.push(PoolEffect::Send(None, message));
            }
        }
    }

    // ----- giving up -----

    /// Gives up these of the batches.
    pub(super) fn abandon(&mut self, effects: &mut Vec<PoolEffect>, which: impl Fn(&BatchId, &Pending) -> bool) {
        let given_up = self.pending.iter().filter(|(id, pending)| which(id, pending));
        let mut given_up: Vec<BatchId> = given_up.map(|(id, _)| *id).collect();
        given_up.sort_unstable();
        for id in given_up {
            self.remove(&id);
            self.give_up(id);
            effects.push(PoolEffect::Forget(id));
            if id.origin == self.me {
                effects.push(PoolEffect::Abandon(id));
            }
        }
    }

    /// If it comes again, the core has to be told to hold its payload.
    fn give_up(&mut self, id: BatchId) {
        if self.given_up.insert(id) {
            self.given_up_order.push_back(id);
        }
        if self.given_up_order.len() > REMEMBERED
            && let Some(oldest) = self.given_up_order.pop_front()
        {
            self.given_up.remove(&oldest);
        }
    }

    /// A batch came. True if it was given up before.
    pub(super) fn comes_again(&mut self, id: &BatchId) -> bool {
        self.given_up.remove(id)
    }

    /// What was given up may have been decided since.
    pub(super) fn forget_given_up(&mut self) {
        self.given_up.clear();
        self.given_up_order.clear();
    }

    /// Makes room for the batches of an origin that came last.
    pub(super) fn keep_within_budget(&mut self, origin: NodeId, effects: &mut Vec<PoolEffect>) {
        let others = NodeId::all(self.members).filter(|node| *node != self.me);
        let all: usize = others.map(|node| self.load[node.index()].0).sum();
        let (bytes, count) = self.load[origin.index()];
        let (mut over, mut many) = (
            bytes.saturating_sub(MAX_WAITING_BYTES).max(all.saturating_sub(MAX_ALL_WAITING_BYTES)),
            count.saturating_sub(MAX_WAITING),
        );
        if (over, many) == (0, 0) {
            return;
        }
        let mut gone = Vec::new();
        for (id, pending) in self.waiting().filter(|(id, _)| id.origin == origin) {
            if (over, many) == (0, 0) {
                break;
            }
            over = over.saturating_sub(pending.payload.len());
            many = many.saturating_sub(1);
            gone.push(id);
        }
        self.drop_all(gone, effects);
    }

    /// Lets go of batches of others that waited for too long.
    pub(super) fn sweep(&mut self, now: Duration, effects: &mut Vec<PoolEffect>) {
        if now.saturating_sub(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        let waited = |pending: &Pending| now.saturating_sub(pending.since) > MAX_WAIT;
        let stale = self.waiting().filter(|(id, pending)| id.origin != self.me && waited(pending));
        let stale: Vec<_> = stale.map(|(id, _)| id).collect();
        self.drop_all(stale, effects);
    }

    fn drop_all(&mut self, gone: Vec<BatchId>, effects: &mut Vec<PoolEffect>) {
        for id in gone {
            self.remove(&id);
            self.give_up(id);
            self.dropped += 1;
            effects.push(PoolEffect::Drop(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::ids::Digest;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn batch(origin: u8, sequence: u64) -> BatchId {
        BatchId { origin: node(origin), incarnation: 1, sequence, digest: Digest([0; 32]) }
    }

    /// That of node 1 of 3, with a batch of its own and two of node 2.
    fn queue() -> Queue {
        let mut queue = Queue::new(node(1), 3);
        for id in [batch(2, 1), batch(1, 1), batch(2, 2)] {
            let (payload, order) = (Payload::new(vec![0; 100]), queue.next_order());
            queue.add(id, Pending::own(payload, order, Duration::ZERO, 1));
        }
        queue
    }

    fn waiting(queue: &Queue) -> Vec<BatchId> {
        queue.waiting().map(|(id, _)| id).collect()
    }

    #[test]
    fn a_batch_that_was_not_decided_in_its_slot_has_its_old_place_again() {
        let mut queue = queue();
        assert!(queue.propose(&batch(1, 1), 7), "its payload goes along");
        assert_eq!(waiting(&queue), [batch(2, 1), batch(2, 2)]);
        queue.release(&batch(1, 1), 8);
        assert_eq!(waiting(&queue).len(), 2, "it was proposed in slot 7");
        queue.release(&batch(1, 1), 7);
        assert_eq!(waiting(&queue), [batch(2, 1), batch(1, 1), batch(2, 2)]);
        assert!(!queue.propose(&batch(1, 1), 9), "its payload went along before");
        assert!(queue.decided(&batch(1, 1)).is_some());
        queue.release(&batch(1, 1), 9);
        assert_eq!(waiting(&queue), [batch(2, 1), batch(2, 2)]);
    }

    #[test]
    fn batches_of_others_go_after_a_while_and_are_known_when_they_come_again() {
        let (mut queue, mut effects) = (queue(), Vec::new());
        queue.sweep(MAX_WAIT, &mut effects);
        assert_eq!(effects, []);
        queue.sweep(MAX_WAIT + SWEEP, &mut effects);
        assert_eq!(effects, [PoolEffect::Drop(batch(2, 1)), PoolEffect::Drop(batch(2, 2))]);
        assert_eq!((waiting(&queue), queue.dropped()), (vec![batch(1, 1)], 2));
        assert!(queue.comes_again(&batch(2, 1)) && !queue.comes_again(&batch(2, 1)));
        queue.abandon(&mut effects, |_, _| true);
        assert_eq!(effects[2..], [PoolEffect::Forget(batch(1, 1)), PoolEffect::Abandon(batch(1, 1))]);
        assert_eq!((waiting(&queue), queue.own().count()), (Vec::new(), 0));
    }
}
