//! Members that babble: they keep the protocol, and say [`nonsense`](super::super::nonsense) besides. They count as faulty, so as
//! many may as may be down at once, and fewer disks are lost meanwhile. No property hears of nonsense: it must change nothing, but
//! that nodes may doubt for a while that all have one log.

use std::time::Duration;

use fastrand::Rng;
use rabia_bank_actors::consensus::agreement::{Event, Notice, READ_AHEAD};
use rabia_bank_actors::parts::voter::Out;
use rabia_bank_messages::peer::{PeerMessage, State, Vote};

use super::super::nonsense::{Hearer, altered, let_in, made_up};
use super::super::properties::{Check, check};
use super::super::workload::Workload;
use super::{Item, MAILBOX, Mail, World};

/// Seeds whose remainder by this …
const ONE_IN: u64 = 7;
/// … is one of these have babbling members.
const REMAINDERS: [u64; 2] = [2, 6];

/// The most batches that can't be applied in one run.
const UNUSABLE: usize = 3;

/// Who babbles, and how much.
pub(super) struct Babble {
    /// Of its own, so that worlds without nonsense are what they would be if there were none.
    random: Rng,
    /// Percent of messages that nonsense goes with, or in place of.
    percent: u32,
    /// To the end, rather than until the faults have healed.
    for_good: bool,
    /// All have come to their senses.
    over: bool,
}

impl Babble {
    pub(super) fn new(seed: u64) -> Babble {
        let mut random = Rng::with_seed(!seed);
        let babbles = REMAINDERS.contains(&(seed % ONE_IN));
        let percent = if babbles { [2, 10, 40][random.usize(..3)] } else { 0 };
        Babble { percent, for_good: random.bool(), over: false, random }
    }
}

impl<W: Workload> World<W> {
    /// Some members babble, as many as may be down at once at most.
    pub(super) fn choose_babblers(&mut self) {
        if self.babble.percent == 0 {
            return;
        }
        let faults = (self.machines.len() - 1) / 2;
        for _ in 0..self.babble.random.usize(1..=faults) {
            let index = self.babble.random.usize(..self.machines.len());
            self.machines[index].babbles = true;
        }
    }

    /// The faults have healed: some come to their senses.
    pub(super) fn come_to_senses(&mut self) {
        self.babble.over = !self.babble.for_good;
    }

    /// Whether nonsense is said until the end.
    pub(super) fn is_babbled(&self) -> bool {
        (0..self.machines.len()).any(|index| self.babbles(index))
    }

    /// Whether some member says nonsense, or has said it.
    pub(super) fn has_babblers(&self) -> bool {
        self.machines.iter().any(|machine| machine.babbles)
    }

    /// Whether a member says nonsense.
    pub(super) fn babbles(&self, index: usize) -> bool {
        self.machines[index].babbles && !self.babble.over
    }

    /// A member is about to say this to a peer. False if it says nonsense in its place.
    pub(super) fn babble_beside(&mut self, from: usize, to: usize, message: &PeerMessage) -> bool {
        if !self.babbles(from) || self.babble.random.u32(..100) >= self.babble.percent {
            return true;
        }
        let Some(hearer) = self.hearer(to) else { return true };
        let nonsense = altered(message.clone(), &hearer, &mut self.babble.random);
        self.say_nonsense(from, to, nonsense);
        self.babble.random.bool()
    }

    /// A member says something about nothing.
    pub(super) fn babble_now_and_then(&mut self, from: usize) {
        if !self.babbles(from) || self.babble.random.u32(..100) >= self.babble.percent {
            return;
        }
        let to = self.babble.random.usize(..self.machines.len());
        if to != from
            && let Some(hearer) = self.hearer(to)
        {
            let nonsense = made_up(&hearer, &mut self.babble.random);
            self.say_nonsense(from, to, nonsense);
        }
    }

    /// A batch that can't be applied gets past the check of every node, as if that had a bug. It is decided, and must be the end of
    /// nothing.
    pub(super) fn let_in_unusable(&mut self, index: usize) -> Check {
        if self.unusable.len() >= UNUSABLE {
            return Ok(());
        }
        let (id, payload) = let_in(self.unusable.len() as u64, &mut self.babble.random);
        self.agreement.formed(id, payload.clone())?;
        self.unusable.push((id, payload.clone()));
        for node in 0..self.machines.len() {
            self.mail(node, MAILBOX, Mail::Events(vec![Event::Hold(id, payload.clone())]));
        }
        self.mail(index, MAILBOX, Mail::Notices(vec![Notice::Arrived(id, payload)]));
        Ok(())
    }

    /// A node that starts has a check with the same bug.
    pub(super) fn hold_unusable(&mut self, index: usize) -> Check {
        self.unusable.clone().into_iter().try_for_each(|(id, payload)| self.tell(index, Event::Hold(id, payload)))
    }

    fn hearer(&self, index: usize) -> Option<Hearer> {
        let decided = self.machines[index].node.as_ref()?.voter.core().frontier();
        Some(Hearer { members: self.machines.len(), decided, next: self.agreement.decided(decided + 1) })
    }

    fn say_nonsense(&mut self, from: usize, to: usize, message: PeerMessage) {
        let link = self.network.link(from, to);
        let attached = self.machines[from].node.as_ref().is_some_and(|node| node.attached[to] == link);
        if !attached || !self.network.works(from, to) || self.network.is_cut(from, to) {
            return;
        }
        self.report.count("nonsense of members");
        let (id, to_id) = (self.machines[from].id, self.machines[to].id);
        self.trace.note(self.now, None, || format!("node {id} says nonsense to node {to_id}: {message:?}"));
        let delay = Duration::from_micros(self.babble.random.u64(40..5_000));
        self.at(delay, Item::Message { to, from, link, message, nonsense: true });
    }

    /// What names a batch that nobody has takes the place of what its sender said before, if that waits for its payload too.
    fn hears_of_nothing(&mut self, index: usize, from: usize, message: &PeerMessage) {
        self.weak_mvc.begins(Some(message));
        let (machine, from) = (&self.machines[index], &self.machines[from]);
        let Some(node) = &machine.node else { return };
        let (slot, names) = match message {
            PeerMessage::Proposal { slot, value, .. } => (*slot, value.is_some()),
            PeerMessage::State { slot, state, .. } => (*slot, matches!(state, State::One(_))),
            PeerMessage::Vote { slot, vote, .. } => (*slot, matches!(vote, Vote::One(_))),
            _ => return,
        };
        let core = node.voter.core();
        let frontier = core.frontier();
        if names && self.stores.counts(from.id, from.store, slot, frontier) && !core.has_other_log(from.id) {
            self.weak_mvc.hears::<W::Command>(machine.id, from.id, frontier, message, |_| false);
        }
    }

    /// An answer to a read round that names a slot which may come soon counts as one.
    fn hears_of_a_slot(&mut self, index: usize, from: usize, message: &PeerMessage) {
        let (machine, from) = (&self.machines[index], self.machines[from].id);
        let Some(node) = &machine.node else { return };
        if let PeerMessage::ReadIndexAnswer { slot, .. } = message
            && *slot <= node.voter.core().frontier() + READ_AHEAD
        {
            self.read_rounds.hears(machine.id, from, message);
        }
    }

    /// A node hears nonsense.
    pub(super) fn hear_nonsense(&mut self, index: usize, from: usize, message: PeerMessage) -> Check {
        self.hears_of_nothing(index, from, &message);
        self.hears_of_a_slot(index, from, &message);
        let peer = self.machines[from].id;
        let (wrong, shown) = (message.check().err(), format!("{message:?}"));
        let acted = self.act(index, |voter, now, out| voter.from_peer(now, peer, [message], out));
        let Some((outs, ())) = acted else { return Ok(()) };
        if let Some(wrong) = wrong {
            let refused = outs.iter().any(|out| matches!(out, Out::Break(refused, _) if *refused == peer));
            check(refused, "numbers that can't be", || {
                format!(
                    "node {} goes on with node {peer}, which says what can't be ({wrong}): {shown}",
                    self.machines[index].id
                )
            })?;
        }
        self.perform(index, outs)
    }
}
