//! Every message of a slot follows by the rules from what its sender counts: a second, plain reading of Weak-MVC.
//!
//! For each node this notes which messages reached it, in which order, and whether it held the payloads that they name: of
//! one sender, kind and phase the first counts that can (rules 6 and 7). When the node speaks, some of what counts must allow
//! it: a State the proposals or the votes before it, a vote the States, a decision f + 1 votes. And between all nodes: votes
//! of one phase for two values, two batches in one slot's States, or anything but the decided value after the phase that
//! decided can't be. Nor does a node wait for a quorum of proposals that it has.
//!
//! Source: PROTOCOL.md, "Rules for one slot"; Rabia (SOSP 2021), algorithm 2 and the lemmas of section 4.

use std::collections::{BTreeMap, BTreeSet};

use rabia_bank_actors::consensus::agreement::AHEAD;
use rabia_bank_actors::consensus::coin::coin;
use rabia_bank_messages::batch::Batched;
use rabia_bank_messages::genesis::{Genesis, Quorums};
use rabia_bank_messages::ids::{BatchId, ClusterId, MAX_NODES, NodeId, Phase, Slot};
use rabia_bank_messages::peer::{PeerMessage, State, Value, Vote};
use rabia_bank_messages::promise::{Record, Recovered, Said};

use super::{Check, check};

const PROPERTY: &str = "messages follow from messages";

/// What one sender said in one phase, as one node has it.
#[derive(Clone, Copy, Debug)]
struct Heard<T> {
    counts: Option<T>,
    /// It names a batch whose payload is missing.
    parked: Option<T>,
}

impl<T> Default for Heard<T> {
    fn default() -> Heard<T> {
        Heard { counts: None, parked: None }
    }
}

impl<T: Copy> Heard<T> {
    fn hear(&mut self, message: T, held: bool) {
        match (self.counts, held) {
            (Some(_), _) => {}
            (None, true) => *self = Heard { counts: Some(message), parked: None },
            (None, false) => self.parked = Some(message),
        }
    }

    fn hold(&mut self, names: impl Fn(&T) -> bool) {
        if self.counts.is_none() && self.parked.as_ref().is_some_and(names) {
            self.counts = self.parked.take();
        }
    }
}

type Row<T> = [Heard<T>; MAX_NODES];

/// What one node has of a slot. Its own messages count like those of others, from when it says them.
#[derive(Clone, Debug, Default)]
struct Seen {
    proposals: Row<Value>,
    states: BTreeMap<Phase, Row<State>>,
    votes: BTreeMap<Phase, Row<Vote>>,
}

fn counted<T>(row: &Row<T>) -> impl Iterator<Item = &T> + Clone {
    row.iter().filter_map(|heard| heard.counts.as_ref())
}

impl Seen {
    fn hear(&mut self, from: NodeId, message: &PeerMessage, held: bool) {
        let from = from.index();
        match message {
            PeerMessage::Proposal { value, .. } => self.proposals[from].hear(*value, held),
            PeerMessage::State { phase, state, .. } => {
                self.states.entry(*phase).or_default()[from].hear(*state, held);
            }
            PeerMessage::Vote { phase, vote, .. } => self.votes.entry(*phase).or_default()[from].hear(*vote, held),
            _ => {}
        }
    }

    /// The payload of a batch is held now.
    fn hold(&mut self, id: BatchId) {
        self.proposals.iter_mut().for_each(|heard| heard.hold(|value| *value == Some(id)));
        for heard in self.states.values_mut().flatten() {
            heard.hold(|state| *state == State::One(id));
        }
        for heard in self.votes.values_mut().flatten() {
            heard.hold(|vote| *vote == Vote::One(id));
        }
    }

    fn parked(&self) -> impl Iterator<Item = BatchId> + '_ {
        let proposals = self.proposals.iter().filter_map(|heard| heard.parked.flatten());
        let states = self.states.values().flatten().filter_map(|heard| match heard.parked {
            Some(State::One(id)) => Some(id),
            _ => None,
        });
        let votes = self.votes.values().flatten().filter_map(|heard| match heard.parked {
            Some(Vote::One(id)) => Some(id),
            _ => None,
        });
        proposals.chain(states).chain(votes)
    }

    fn names_batch(&self) -> bool {
        let states = self.states.values().flat_map(counted).any(|state| matches!(state, State::One(_)));
        states || self.votes.values().flat_map(counted).any(|vote| matches!(vote, Vote::One(_)))
    }
}

/// What all nodes together said of a slot.
#[derive(Debug, Default)]
struct Together {
    ones: BTreeSet<BatchId>,
    votes: BTreeMap<Phase, BTreeSet<Value>>,
    /// The value, and the phase whose votes bound it.
    decided: Option<(Value, Phase)>,
}

/// What reached every node, and what was said.
#[derive(Debug)]
pub(crate) struct WeakMvc {
    cluster: ClusterId,
    window: u64,
    quorums: Quorums,
    nodes: Vec<BTreeMap<Slot, Seen>>,
    /// What counts at a node now is what counted when it chose what it says now. (Where one message brings payloads that
    /// others waited for, it may have chosen in between.)
    exact: bool,
    slots: BTreeMap<Slot, Together>,
    coins: BTreeSet<Slot>,
    /// What was said to be decided, by whoever decided it first.
    decided: BTreeMap<Slot, Value>,
}

impl WeakMvc {
    pub(crate) fn new(genesis: &Genesis) -> WeakMvc {
        let nodes = vec![BTreeMap::new(); genesis.members()];
        let (cluster, window, quorums) = (genesis.cluster, genesis.window, genesis.quorums());
        let (slots, coins, decided) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        WeakMvc { cluster, window, quorums, nodes, exact: false, slots, coins, decided }
    }

    /// Slots in which somebody asked the coin.
    pub(crate) fn coins(&self) -> u64 {
        self.coins.len() as u64
    }

    /// A node starts with what its store remembers, and has heard nothing.
    pub(crate) fn started(&mut self, node: NodeId, recovered: &Recovered) {
        let seen = &mut self.nodes[node.index()];
        seen.clear();
        for Record { slot, phase, said } in &recovered.records {
            let (slot, phase) = (*slot, *phase);
            let message = match *said {
                Said::State(state) => PeerMessage::State { slot, phase, state },
                Said::Vote(vote) => PeerMessage::Vote { slot, phase, vote },
            };
            seen.entry(slot).or_default().hear(node, &message, true);
        }
    }

    /// Something is about to happen to a node; if it is a message, this one.
    pub(crate) fn begins(&mut self, message: Option<&PeerMessage>) {
        let brings = |message: &PeerMessage| match message {
            PeerMessage::Proposal { payload, .. } => payload.is_some(),
            message => matches!(message, PeerMessage::Entries { .. }),
        };
        self.exact = !message.is_some_and(brings);
    }

    /// A node writes what it binds itself to. Never Undecided where it has seen a majority.
    pub(crate) fn binds(&self, node: NodeId, records: &[Record]) -> Check {
        for Record { slot, phase, said } in records {
            let row = self.nodes[node.index()].get(slot).and_then(|seen| seen.states.get(phase));
            let (Said::Vote(Vote::Undecided), Some(row), true) = (said, row, self.exact) else { continue };
            let backing = |state: &State| counted(row).filter(|other| *other == state).count();
            let majority =
                counted(row).find(|state| **state != State::Abstain && backing(state) >= self.quorums.majority());
            check(majority.is_none(), "majorities are voted for", || {
                format!("node {node} votes Undecided in slot {slot}, phase {phase}, though it counts {row:?}")
            })?;
        }
        Ok(())
    }

    /// A message of a store that speaks for its member is about to reach a node, whose log ends at `frontier`. `holds` tells
    /// which payloads it has.
    pub(crate) fn hears<C: Batched>(
        &mut self,
        node: NodeId,
        from: NodeId,
        frontier: Slot,
        message: &PeerMessage,
        holds: impl Fn(&BatchId) -> bool,
    ) {
        let (slot, names, brings) = match message {
            PeerMessage::Proposal { slot, value, payload } => {
                let brings = value
                    .zip(payload.as_ref())
                    .is_some_and(|(id, payload)| payload.matches(&id) && payload.check::<C>().is_ok());
                (*slot, *value, brings)
            }
            PeerMessage::State { slot, state: State::One(id), .. } => (*slot, Some(*id), false),
            PeerMessage::Vote { slot, vote: Vote::One(id), .. } => (*slot, Some(*id), false),
            PeerMessage::State { slot, .. } | PeerMessage::Vote { slot, .. } => (*slot, None, false),
            _ => return,
        };
        let slots = &mut self.nodes[node.index()];
        if slots.first_key_value().is_some_and(|(slot, _)| *slot <= frontier) {
            *slots = slots.split_off(&(frontier + 1));
        }
        // What is too far ahead is dropped.
        if slot > frontier && slot <= frontier + AHEAD * self.window {
            let held = brings || names.is_none_or(|id| holds(&id));
            slots.entry(slot).or_default().hear(from, message, held);
        }
    }

    /// A node has acted on something that may have brought payloads.
    pub(crate) fn heard(&mut self, node: NodeId, holds: impl Fn(&BatchId) -> bool) {
        for seen in self.nodes[node.index()].values_mut() {
            let held: Vec<BatchId> = seen.parked().filter(|id| holds(id)).collect();
            held.into_iter().for_each(|id| seen.hold(id));
        }
    }

    /// A node has acted on a message for this slot: it does not wait for what it has.
    pub(crate) fn acted(&self, node: NodeId, slot: Slot) -> Check {
        let Some(seen) = self.nodes[node.index()].get(&slot).filter(|_| !self.decided.contains_key(&slot)) else {
            return Ok(());
        };
        let waits = seen.proposals[node.index()].counts.is_some()
            && seen.states.get(&1).is_none_or(|row| row[node.index()].counts.is_none());
        check(
            !waits || counted(&seen.proposals).count() < self.quorums.quorum(),
            "nobody waits for what it has",
            || format!("node {node} has a quorum of proposals in slot {slot}, and says no State: {seen:?}"),
        )
    }

    /// A node says this. What it said in a former run may be said again at any time.
    pub(crate) fn says(&mut self, node: NodeId, message: &PeerMessage) -> Check {
        let slot = match message {
            PeerMessage::Proposal { slot, .. } | PeerMessage::State { slot, .. } | PeerMessage::Vote { slot, .. } => {
                *slot
            }
            PeerMessage::Decide { slot, value } => return self.decides(node, *slot, *value),
            _ => return Ok(()),
        };
        let seen = self.nodes[node.index()].entry(slot).or_default();
        let again = match message {
            PeerMessage::State { phase, .. } => {
                seen.states.get(phase).is_some_and(|row| row[node.index()].counts.is_some())
            }
            PeerMessage::Vote { phase, .. } => {
                seen.votes.get(phase).is_some_and(|row| row[node.index()].counts.is_some())
            }
            _ => true,
        };
        seen.hear(node, message, true);
        self.together(node, message)?;
        let seen = &self.nodes[node.index()][&slot];
        let follows = again
            || match message {
                PeerMessage::State { phase: 1, state, .. } => self.first_state(seen, *state),
                PeerMessage::State { phase, state, .. } => self.later_state(seen, slot, *phase - 1, *state),
                PeerMessage::Vote { phase, vote, .. } => self.vote(seen, *phase, *vote),
                _ => true,
            };
        if let PeerMessage::State { phase, state, .. } = message
            && *phase > 1
            && !again
            && !counted(&seen.votes[&(*phase - 1)]).any(|vote| state_of(*vote) == Some(*state))
        {
            self.coins.insert(slot);
        }
        check(follows, PROPERTY, || format!("node {node} says {message:?}, which does not follow from {seen:?}"))
    }

    fn first_state(&self, seen: &Seen, state: State) -> bool {
        let proposals: Vec<Value> = counted(&seen.proposals).copied().collect();
        match state {
            // Where it must, another property says.
            State::Abstain => true,
            State::One(id) => proposals.iter().filter(|value| **value == Some(id)).count() >= self.quorums.majority(),
            State::Zero if self.exact => {
                let backing = |value: &Value| proposals.iter().filter(|other| *other == value).count();
                let majority = |value: &Value| value.is_some() && backing(value) >= self.quorums.majority();
                proposals.len() >= self.quorums.quorum() && !proposals.iter().any(majority)
            }
            State::Zero => self.can_avoid_majority(&proposals, |value| value.is_some()),
        }
    }

    fn vote(&self, seen: &Seen, phase: Phase, vote: Vote) -> bool {
        let Some(row) = seen.states.get(&phase) else { return false };
        let states: Vec<State> = counted(row).copied().collect();
        let enough = states.len() >= self.quorums.quorum();
        match state_of(vote) {
            Some(state) => enough && states.iter().filter(|other| **other == state).count() >= self.quorums.majority(),
            None => self.can_avoid_majority(&states, |state| *state != State::Abstain),
        }
    }

    fn later_state(&self, seen: &Seen, slot: Slot, phase: Phase, state: State) -> bool {
        let Some(row) = seen.votes.get(&phase) else { return false };
        let votes: Vec<Vote> = counted(row).copied().collect();
        if votes.len() < self.quorums.quorum() || state == State::Abstain {
            return false;
        }
        if votes.iter().any(|vote| state_of(*vote) == Some(state)) {
            return true;
        }
        let undecided = votes.iter().filter(|vote| **vote == Vote::Undecided).count() >= self.quorums.quorum();
        undecided
            && match state {
                State::One(_) => coin(self.cluster, slot, phase) && seen.names_batch(),
                // A batch that is named now may not have been when the coin was asked.
                _ => true,
            }
    }

    /// Whether a quorum of these messages has no majority for one value.
    fn can_avoid_majority<T: PartialEq>(&self, messages: &[T], is_value: impl Fn(&T) -> bool) -> bool {
        let (quorum, majority) = (self.quorums.quorum(), self.quorums.majority());
        (0u32..1 << messages.len()).filter(|set| set.count_ones() as usize >= quorum).any(|set| {
            let chosen = || messages.iter().enumerate().filter(move |(index, _)| set & (1 << index) != 0);
            let backing = |value: &T| chosen().filter(|(_, other)| *other == value).count();
            chosen().filter(|(_, value)| is_value(value)).all(|(_, value)| backing(value) < majority)
        })
    }

    /// What no two nodes may say.
    fn together(&mut self, node: NodeId, message: &PeerMessage) -> Check {
        let (slot, phase, said) = match message {
            PeerMessage::State { slot, phase, state } => (*slot, *phase, value_of(*state)),
            PeerMessage::Vote { slot, phase, vote } => (*slot, *phase, state_of(*vote).and_then(value_of)),
            _ => return Ok(()),
        };
        let together = self.slots.entry(slot).or_default();
        if let Some(Some(id)) = said {
            together.ones.insert(id);
            check(together.ones.len() == 1, "one batch a slot", || format!("slot {slot}: {:?}", together.ones))?;
        }
        if let (PeerMessage::Vote { .. }, Some(value)) = (message, said) {
            let votes = together.votes.entry(phase).or_default();
            votes.insert(value);
            check(votes.len() == 1, "votes of a phase agree", || format!("slot {slot}, phase {phase}: {votes:?}"))?;
        }
        match together.decided {
            Some((value, bound)) if phase > bound => check(said == Some(value), "a bound value stays", || {
                format!("slot {slot} was decided on {value:?} in phase {bound}, and node {node} says {message:?}")
            }),
            _ => Ok(()),
        }
    }

    fn decides(&mut self, node: NodeId, slot: Slot, value: Value) -> Check {
        if let Some(agreed) = self.decided.get(&slot) {
            return check(*agreed == value, "agreement", || {
                format!("slot {slot} was decided on {agreed:?}, and node {node} tells {value:?}")
            });
        }
        let seen = self.nodes[node.index()].get(&slot);
        let votes = seen.into_iter().flat_map(|seen| &seen.votes);
        let bound = votes
            .filter(|(_, row)| {
                let votes = counted(row).filter(|vote| state_of(**vote).and_then(value_of) == Some(value));
                votes.count() > self.quorums.faults()
            })
            .map(|(phase, _)| *phase)
            .next();
        let Some(phase) = bound else {
            return check(false, PROPERTY, || {
                format!("node {node} decides slot {slot} on {value:?}, but counts {seen:?}")
            });
        };
        self.decided.insert(slot, value);
        self.slots.entry(slot).or_default().decided = Some((value, phase));
        Ok(())
    }
}

/// The State that a vote is for, if it is for one.
fn state_of(vote: Vote) -> Option<State> {
    match vote {
        Vote::Zero => Some(State::Zero),
        Vote::One(id) => Some(State::One(id)),
        Vote::Undecided => None,
    }
}

/// The value that a State backs, if it backs one.
fn value_of(state: State) -> Option<Value> {
    match state {
        State::Zero => Some(None),
        State::One(id) => Some(Some(id)),
        State::Abstain => None,
    }
}
