//! Rule 12, last part: whether this node's log, and its state, are those of the others.
//!
//! Members say the hash of their log with every hello, five times a second, and before the decided slots that they send; and the
//! digest of their state at multiples of [`DIGEST_INTERVAL`](rabia_bank_messages::peer::DIGEST_INTERVAL), when they are idle, and
//! when a link comes up. Where two differ, the log has forked, or a state went wrong, and nobody knows yet at whom. So a node that
//! hears another hash or digest than its own is *in doubt*: it answers no client. A majority, itself included, that says its own at
//! that slot, or behind it, ends the doubt. After [`PATIENCE`] without it the node stops.
//!
//! What comes from a member that says another hash of the log counts for nothing until it says the same: not its votes, not its
//! decisions.
//!
//! Until links are authenticated, a stop takes two comparisons at different slots over links that this node dialled; a
//! node that has not got them answers nobody for as long as it is in doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rabia_bank_messages::ids::{Digest, MAX_NODES, NodeId, Slot};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::hashes::Hashes;

/// How long a node waits for a majority that has its log and state.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// In doubt, others are asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Digests of states after so many slots are kept, for members that are behind.
const KEPT_DIGESTS: usize = 64;
/// Comparisons that stop a node, at different slots.
const COMPARISONS: usize = 2;

/// What comes of a hash that a member says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compared {
    /// It is this node's.
    Same,
    /// It is another one.
    Other,
    /// This node is not so far.
    Later,
    /// This node does not have the slot's hash in memory.
    Unknown,
}

/// Why a node is in doubt.
#[derive(Clone, Debug)]
struct Doubt {
    since: Duration,
    /// Up to which slot a majority has to say that its log is this node's.
    log: Slot,
    asked: Option<Duration>,
    told: Duration,
}

/// Something that the others are to be asked or told, or the node is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The node is in doubt from now on, or not any more.
    Doubt(bool),
    /// Ask the others for the hash of their log up to this slot.
    Ask(Slot),
    /// No majority has this node's log and state: it stops, if that is certain.
    Split {
        /// What was compared, in words.
        what: String,
        /// Whether there were enough comparisons.
        certain: bool,
    },
}

/// What members said of their logs and states.
#[derive(Clone, Debug)]
pub struct Forks {
    me: NodeId,
    majority: usize,
    dialled: [bool; MAX_NODES],
    /// Up to which slot each member has said that its log is this node's.
    same: [Slot; MAX_NODES],
    /// Whether it has said so since the link came up, or nobody can tell any more.
    agrees: [bool; MAX_NODES],
    /// The first slot at which each member has said another hash.
    other: [Option<(Slot, Digest)>; MAX_NODES],
    /// What members said of slots in which this node is not yet, the lowest of each.
    later: [Option<(Slot, Digest)>; MAX_NODES],
    /// The lowest of those slots.
    next: Slot,
    /// What they said of a slot that is not in memory.
    unknown: [Option<(Slot, Digest)>; MAX_NODES],
    digests: BTreeMap<Slot, [Option<Digest>; MAX_NODES]>,
    /// The last slot at which a majority has said that its state is this node's.
    state_agreed: Slot,
    /// Slots at which another hash or digest came over a link that this node dialled.
    compared: BTreeSet<Slot>,
    doubt: Option<Doubt>,
}

impl Forks {
    /// Of a node of a cluster where so many are a majority.
    pub fn new(me: NodeId, majority: usize) -> Forks {
        Forks {
            me,
            majority,
            dialled: [false; MAX_NODES],
            same: [0; MAX_NODES],
            agrees: [false; MAX_NODES],
            other: [None; MAX_NODES],
            later: [None; MAX_NODES],
            next: Slot::MAX,
            unknown: [None; MAX_NODES],
            digests: BTreeMap::new(),
            state_agreed: 0,
            compared: BTreeSet::new(),
            doubt: None,
        }
    }

    /// Whether no client may be answered.
    pub fn in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// Whether a member has said that its log is another one.
    pub fn differs(&self, peer: NodeId) -> bool {
        self.other[peer.index()].is_some()
    }

    /// Up to which slot a member has said that its log is this node's.
    pub fn same(&self, peer: NodeId) -> Slot {
        self.same[peer.index()]
    }

    /// Whether a member's log was compared with this node's since the link came up, and was not another one.
    pub fn agrees(&self, peer: NodeId) -> bool {
        self.agrees[peer.index()] && !self.differs(peer)
    }

    /// A link came up: whatever its member said before, it says anew. `dialled` tells who called.
    pub fn link_up(&mut self, peer: NodeId, dialled: bool) {
        let index = peer.index();
        self.dialled[index] = dialled;
        (self.same[index], self.agrees[index]) = (0, false);
        (self.other[index], self.later[index], self.unknown[index]) = (None, None, None);
        self.find_next();
    }

    fn find_next(&mut self) {
        self.next = self.later.iter().flatten().map(|(slot, _)| *slot).min().unwrap_or(Slot::MAX);
    }

    /// A member says the hash of its log up to a slot.
    pub fn says(&mut self, peer: NodeId, slot: Slot, hash: Digest, frontier: Slot, hashes: &Hashes) -> Compared {
        if slot > frontier {
            let later = &mut self.later[peer.index()];
            if later.is_none_or(|(known, _)| known > slot) {
                *later = Some((slot, hash));
                self.find_next();
            }
            return Compared::Later;
        }
        match hashes.of(slot) {
            Some(own) => self.compare(peer, slot, hash, own),
            None => {
                self.unknown[peer.index()] = Some((slot, hash));
                Compared::Unknown
            }
        }
    }

    fn compare(&mut self, peer: NodeId, slot: Slot, hash: Digest, own: Digest) -> Compared {
        let index = peer.index();
        if hash == own || is_broken(Rule::LogHash) {
            self.same[index] = self.same[index].max(slot);
            self.agrees[index] = true;
            self.other[index].take_if(|(first, _)| *first <= slot);
            return Compared::Same;
        }
        self.differ(peer, slot, hash);
        Compared::Other
    }

    /// A member's log is another one up to this slot.
    pub fn differ(&mut self, peer: NodeId, slot: Slot, hash: Digest) {
        let index = peer.index();
        if self.other[index].is_none_or(|(first, _)| slot < first) {
            self.other[index] = Some((slot, hash));
        }
        self.same[index] = self.same[index].min(slot.saturating_sub(1));
        if self.dialled[index] && self.compared.len() < KEPT_DIGESTS {
            self.compared.insert(slot);
        }
    }

    /// This node's log has come to this slot: what others said of it can be compared. True if anything was.
    pub fn advance(&mut self, frontier: Slot, hashes: &Hashes) -> bool {
        let any = self.next <= frontier;
        while self.next <= frontier {
            let due = self.later.iter_mut().zip(NodeId::all(MAX_NODES));
            let due: Vec<_> =
                due.filter_map(|(later, peer)| Some((peer, later.take_if(|(slot, _)| *slot <= frontier)?))).collect();
            self.find_next();
            for (peer, (slot, hash)) in due {
                self.says(peer, slot, hash, frontier, hashes);
            }
        }
        any
    }

    /// The hash of this node's log up to a slot that was not in memory, if it was found.
    pub fn found(&mut self, slot: Slot, own: Option<Digest>) {
        for peer in NodeId::all(MAX_NODES) {
            let asked = self.unknown[peer.index()].take_if(|(asked, _)| *asked == slot);
            match (asked, own) {
                (Some((_, hash)), Some(own)) => {
                    self.compare(peer, slot, hash, own);
                }
                // It is far behind, and will find out when it catches up.
                (Some(_), None) => self.agrees[peer.index()] = true,
                (None, _) => {}
            }
        }
    }

    /// A member, or this node, says the digest of its state after a slot.
    pub fn digest(&mut self, of: NodeId, slot: Slot, digest: Digest) {
        self.digests.entry(slot).or_default()[of.index()] = Some(digest);
        let digests = &self.digests[&slot];
        if let Some(own) = digests[self.me.index()] {
            let dialled = |index: usize| self.dialled[index] && digests[index].is_some_and(|digest| digest != own);
            if (0..MAX_NODES).any(dialled) && self.compared.len() < KEPT_DIGESTS {
                self.compared.insert(slot);
            }
            if digests.iter().flatten().filter(|digest| **digest == own).count() >= self.majority {
                self.state_agreed = self.state_agreed.max(slot);
            }
        }
        while self.digests.len() > KEPT_DIGESTS {
            self.digests.pop_first();
        }
    }

    /// The newest digests of this node's state, for a member that the link to has come up.
    pub fn own_digests(&self) -> impl Iterator<Item = (Slot, Digest)> + '_ {
        self.digests.iter().rev().filter_map(|(slot, digests)| Some((*slot, digests[self.me.index()]?))).take(2)
    }

    /// Up to which slot a majority has said that its log is this node's.
    pub fn agreed(&self, frontier: Slot) -> Slot {
        let mut same = self.same;
        same[self.me.index()] = frontier;
        same.sort_unstable_by(|a, b| b.cmp(a));
        same[self.majority - 1]
    }

    /// The slot at which the log is in doubt.
    fn doubtful_log(&self, frontier: Slot) -> Option<Slot> {
        let first = self.other.iter().flatten().map(|(slot, _)| *slot).max()?;
        (self.agreed(frontier) < first).then_some(first)
    }

    /// The slot after which the state is.
    fn doubtful_state(&self) -> Option<Slot> {
        let doubtful = |digests: &[Option<Digest>; MAX_NODES]| {
            let own = digests[self.me.index()];
            own.is_some() && digests.iter().flatten().any(|digest| Some(*digest) != own)
        };
        let mut behind = self.digests.range(self.state_agreed + 1..);
        behind.find(|(_, digests)| doubtful(digests)).map(|(slot, _)| *slot)
    }

    /// What comes of all that was said, and of time.
    pub fn look(&mut self, now: Duration, frontier: Slot) -> Vec<Step> {
        let mut steps = Vec::new();
        // Who has gone away has not said that its log is this node's.
        let doubted = self.doubt.as_ref().map(|doubt| doubt.log).filter(|slot| self.agreed(frontier) < *slot);
        let log = self.doubtful_log(frontier).max(doubted);
        let doubtful = (log.is_some() || self.doubtful_state().is_some()) && !is_broken(Rule::DoubtIsSilent);
        if !doubtful {
            if self.doubt.take().is_some() {
                steps.push(Step::Doubt(false));
            }
            return steps;
        }
        if self.doubt.is_none() {
            self.doubt = Some(Doubt { since: now, log: 0, asked: None, told: now });
            steps.push(Step::Doubt(true));
        }
        let what = self.describe(frontier);
        let Some(doubt) = &mut self.doubt else { return steps };
        doubt.log = doubt.log.max(log.unwrap_or(0));
        if doubt.asked.is_none_or(|asked| now.saturating_sub(asked) >= ASK_AGAIN) {
            doubt.asked = Some(now);
            // At a second slot, too: one comparison may be a mistake of somebody's.
            steps.extend(log.into_iter().flat_map(|slot| [slot, slot.saturating_sub(1)]).map(Step::Ask));
        }
        if now.saturating_sub(doubt.since) >= PATIENCE && now.saturating_sub(doubt.told) >= PATIENCE {
            doubt.told = now;
            steps.push(Step::Split { what, certain: self.compared.len() >= COMPARISONS });
        }
        steps
    }

    fn describe(&self, frontier: Slot) -> String {
        let others = self.other.iter().zip(1..).filter_map(|(other, node)| Some((node, (*other)?)));
        let mut said: Vec<String> = others
            .map(|(node, (slot, hash)): (u8, _)| format!("node {node} has the log {hash} up to slot {slot}"))
            .collect();
        if let Some(slot) = self.doubtful_state() {
            let digests = self.digests[&slot].iter().zip(1..);
            said.extend(
                digests.filter_map(|(digest, node)| Some((node, (*digest)?))).map(|(node, digest): (u8, Digest)| {
                    format!("node {node} has the state {digest} after slot {slot}")
                }),
            );
        }
        format!("this node knows its log up to slot {frontier}; {}", said.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    /// A log of nulls up to this slot.
    fn log(slots: Slot) -> Hashes {
        let mut hashes = Hashes::new(0, &[], None);
        (0..slots).for_each(|_| hashes.push(&None));
        hashes
    }

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const OTHER: Digest = Digest([9; 32]);

    /// Node 1 of 3 with links that it dialled, and the log up to slot 10.
    fn first() -> (Forks, Hashes) {
        let mut forks = Forks::new(node(1), 2);
        forks.link_up(node(2), true);
        forks.link_up(node(3), true);
        (forks, log(10))
    }

    #[test]
    fn who_has_the_log_of_a_majority_goes_on() {
        let (mut forks, hashes) = first();
        assert_eq!(forks.says(node(3), 7, OTHER, 10, &hashes), Compared::Other);
        assert_eq!(forks.look(second(0), 10), [Step::Doubt(true), Step::Ask(7), Step::Ask(6)]);
        assert_eq!(forks.look(second(0), 10), []);
        assert_eq!(forks.says(node(2), 6, hashes.of(6).unwrap(), 10, &hashes), Compared::Same);
        assert_eq!(forks.look(second(0), 10), [], "that says nothing of slot 7");
        forks.says(node(2), 9, hashes.of(9).unwrap(), 10, &hashes);
        assert_eq!(forks.look(second(1), 10), [Step::Doubt(false)], "a hash covers all slots before");
        assert!(forks.differs(node(3)) && !forks.differs(node(2)));
        // It was somebody else who spoke for node 3, or it has got its right log back.
        forks.says(node(3), 8, hashes.of(8).unwrap(), 10, &hashes);
        assert!(!forks.differs(node(3)));
    }

    #[test]
    fn without_a_majority_a_node_stops_after_two_comparisons() {
        let (mut forks, hashes) = first();
        forks.says(node(3), 7, OTHER, 10, &hashes);
        forks.look(second(0), 10);
        let split = |steps: &[Step]| {
            steps.iter().find_map(|step| match step {
                Step::Split { certain, .. } => Some(*certain),
                _ => None,
            })
        };
        assert_eq!(split(&forks.look(second(4), 10)), None);
        assert_eq!(split(&forks.look(second(5), 10)), Some(false), "one comparison");
        assert!(forks.in_doubt());
        forks.says(node(3), 6, OTHER, 10, &hashes);
        assert_eq!(split(&forks.look(second(6), 10)), None);
        assert_eq!(split(&forks.look(second(10), 10)), Some(true));
        // Over links that others called it stays silent.
        let (mut forks, hashes) = first();
        forks.link_up(node(3), false);
        for slot in 5..8 {
            forks.says(node(3), slot, OTHER, 10, &hashes);
        }
        forks.look(second(0), 10);
        assert_eq!(split(&forks.look(second(9), 10)), Some(false));
        assert!(forks.in_doubt());
    }

    #[test]
    fn what_is_said_of_later_or_older_slots_is_compared_when_they_are_known() {
        let (mut forks, hashes) = first();
        let longer = log(14);
        assert_eq!(forks.says(node(2), 13, longer.of(13).unwrap(), 10, &hashes), Compared::Later);
        assert_eq!(forks.says(node(3), 12, OTHER, 10, &hashes), Compared::Later);
        forks.says(node(3), 14, longer.of(14).unwrap(), 10, &hashes);
        forks.advance(14, &longer);
        assert_eq!((forks.same(node(2)), forks.differs(node(3))), (13, true));
        let recent = Hashes::new(20, &[Digest([1; 32])], None);
        let (mut forks, _) = first();
        assert_eq!(forks.says(node(2), 10, OTHER, 20, &recent), Compared::Unknown);
        forks.found(10, None);
        assert!(!forks.differs(node(2)));
        forks.says(node(2), 10, OTHER, 20, &recent);
        forks.found(10, hashes.of(10));
        assert!(forks.differs(node(2)));
    }

    #[test]
    fn a_member_that_comes_back_says_anew_what_its_log_is() {
        let (mut forks, hashes) = first();
        forks.says(node(2), 10, hashes.last(), 10, &hashes);
        forks.says(node(3), 10, OTHER, 10, &hashes);
        assert_eq!(forks.look(second(0), 10), []);
        // It comes back with another log: node 1 is alone.
        forks.link_up(node(2), true);
        forks.says(node(2), 9, OTHER, 10, &hashes);
        assert_eq!(forks.look(second(0), 10)[0], Step::Doubt(true));
    }

    #[test]
    fn states_are_compared_at_one_slot() {
        let (mut forks, _) = first();
        forks.digest(node(3), 1_024, OTHER);
        assert_eq!(forks.look(second(0), 2_000), [], "this node has not told its own");
        forks.digest(node(1), 1_024, Digest::ZERO);
        assert_eq!(forks.look(second(0), 2_000), [Step::Doubt(true)]);
        forks.digest(node(2), 1_024, Digest::ZERO);
        assert_eq!(forks.look(second(0), 2_000), [Step::Doubt(false)]);
        // Node 2 is away. Two states after two slots are enough to stop.
        for slot in [2_048, 3_072] {
            forks.digest(node(1), slot, Digest::ZERO);
            forks.digest(node(3), slot, OTHER);
        }
        forks.look(second(0), 4_000);
        assert!(matches!(forks.look(second(5), 4_000)[..], [Step::Split { certain: true, .. }]));
        // It comes back and says the same of the last one.
        forks.digest(node(2), 3_072, Digest::ZERO);
        assert_eq!(forks.look(second(6), 4_000), [Step::Doubt(false)]);
        assert_eq!(forks.own_digests().map(|(slot, _)| slot).collect::<Vec<_>>(), [3_072, 2_048]);
    }
}
