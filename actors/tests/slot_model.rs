//! Every interleaving of one slot, explored with the real [`Slot`].
//!
//! A state is what each node has in memory, on disk and said so far. From there everything that can happen is tried: a
//! node proposes, acts on any set of the messages that were said (the network loses, delays, duplicates and reorders),
//! sees either side of the coin, fetches the payload from whoever holds it, adopts a decision, crashes and restarts with
//! what was durable (its other messages may be lost, also those that somebody else has acted on), or dies for good.
//!
//! Checked: no two nodes ever decide differently, and wherever a quorum is up, something can go on until somebody decides
//! or is in the last phase that is looked at.
//!
//! Two things keep the number of states finite and small. Nodes are interchangeable, so states that differ by their order
//! are one. And what a [`Slot`] does next depends on its stage, what it last said there and whether it counts a `One` of
//! this slot, not on the messages that brought it there: one slot stands for all that agree in this ([`Local`]), and in
//! the end every step is repeated with the others, which must do the same ([`Explorer::check_locals`]).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test says what failed by failing

use std::collections::VecDeque;

use rabia_bank_actors::consensus::slot::{Slot, SlotEffect, SlotMessage, Stage};
use rabia_bank_messages::genesis::{Genesis, Quorums};
use rabia_bank_messages::ids::{BatchId, ClusterId, Digest, NodeId, StoreId};
use rabia_bank_messages::peer::{State, Value, Vote};
use rabia_bank_storage::Said;
use rustc_hash::{FxHashMap, FxHashSet};

/// Phases that are looked at.
const PHASES: usize = 2;

fn batch() -> BatchId {
    BatchId { origin: NodeId::new(1).unwrap(), incarnation: 1, sequence: 1, digest: Digest::ZERO }
}

/// What a message says, as a bit: sets of messages are bytes.
type Bit = u8;
const NULL: Bit = 1;
const ZERO: Bit = 1;
const ONE: Bit = 2;
/// Abstain among states, undecided among votes.
const NEITHER: Bit = 4;

fn value_bit(value: Value) -> Bit {
    if value.is_some() { ONE } else { NULL }
}

fn state_bit(state: State) -> Bit {
    match state {
        State::Zero => ZERO,
        State::One(_) => ONE,
        State::Abstain => NEITHER,
    }
}

fn vote_bit(vote: Vote) -> Bit {
    match vote {
        Vote::Zero => ZERO,
        Vote::One(_) => ONE,
        Vote::Undecided => NEITHER,
    }
}

fn bit_value(bit: Bit) -> Value {
    (bit == ONE).then(batch)
}

fn bit_state(bit: Bit) -> State {
    match bit {
        ZERO => State::Zero,
        ONE => State::One(batch()),
        _ => State::Abstain,
    }
}

fn bit_vote(bit: Bit) -> Vote {
    match bit {
        ZERO => Vote::Zero,
        ONE => Vote::One(batch()),
        _ => Vote::Undecided,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum At {
    Silent,
    Proposed,
    Stated,
    Voted,
    Decided,
    Dead,
}

/// What a slot's next step depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Local {
    at: At,
    phase: u8,
    /// What it said last, or decided.
    last: Bit,
    /// It counts a state or vote for the batch.
    one: bool,
}

const SILENT: Local = Local { at: At::Silent, phase: 0, last: 0, one: false };
const DEAD: Local = Local { at: At::Dead, ..SILENT };

/// Sets of messages of one node, or of its records, which hold one of a kind at most.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
struct Messages {
    proposals: u8,
    states: [u8; PHASES],
    votes: [u8; PHASES],
}

impl Messages {
    fn add(&mut self, message: SlotMessage) {
        match message {
            SlotMessage::Proposal(value) => self.proposals |= value_bit(value),
            SlotMessage::State(phase, state) => self.states[phase as usize - 1] |= state_bit(state),
            SlotMessage::Vote(phase, vote) => self.votes[phase as usize - 1] |= vote_bit(vote),
        }
    }

    fn join(&mut self, other: &Messages) {
        self.proposals |= other.proposals;
        for phase in 0..PHASES {
            self.states[phase] |= other.states[phase];
            self.votes[phase] |= other.votes[phase];
        }
    }

    /// Of the kind that a node in this place waits for.
    fn awaited(&self, local: Local) -> u8 {
        match local.at {
            At::Proposed => self.proposals,
            At::Stated => self.states[local.phase as usize - 1],
            At::Voted => self.votes[local.phase as usize - 1],
            At::Silent | At::Decided | At::Dead => 0,
        }
    }

    fn records(&self) -> Vec<(u32, Said)> {
        let mut records = Vec::new();
        for (index, phase) in (1..=PHASES as u32).enumerate() {
            if self.states[index] != 0 {
                records.push((phase, Said::State(bit_state(self.states[index]))));
            }
            if self.votes[index] != 0 {
                records.push((phase, Said::Vote(bit_vote(self.votes[index]))));
            }
        }
        records
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Node {
    local: Local,
    /// The payload is in memory.
    holds: bool,
    /// The payload is on disk.
    stored: bool,
    disk: Messages,
    /// What may still reach the others.
    said: Messages,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct World<const N: usize> {
    nodes: [Node; N],
    /// Everything that was ever decided.
    decided: u8,
    /// Decisions that may still reach somebody though whoever made them has forgotten.
    told: u8,
    restarts: u8,
    deaths: u8,
}

impl<const N: usize> World<N> {
    /// Another node's state or vote for the batch, of an earlier step than the one this node is at, may still come.
    fn has_one_for(&self, index: usize) -> bool {
        let phase = usize::from(self.nodes[index].local.phase);
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != index);
        others
            .map(|(_, other)| other.said)
            .any(|said| said.states[..phase].iter().chain(&said.votes[..phase - 1]).any(|set| set & ONE != 0))
    }

    fn canonical(mut self) -> World<N> {
        self.nodes.sort_unstable();
        self
    }
}

/// What one step of a slot does.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Step {
    local: Local,
    said: Messages,
    saved: Messages,
    stores_payload: bool,
    decided: u8,
}

/// What makes a slot step: its place, what the others say to it, and the coin; or what it is told to propose.
type Cause<const N: usize> = (usize, Local, [Bit; N], bool);

struct Explorer<const N: usize> {
    quorums: Quorums,
    slots: FxHashMap<(usize, Local), Vec<Slot>>,
    steps: FxHashMap<Cause<N>, Option<Step>>,
}

/// Slots that are kept for one [`Local`], to see that they do the same.
const ALIKE: usize = 12;

/// What can go wrong, how often.
#[derive(Clone, Copy)]
struct Faults {
    restarts: u8,
    deaths: u8,
    /// Restarts find an empty disk: to see that the search finds what that breaks.
    empty_disk: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// So many states, and all is well.
    Holds(usize),
    TwoDecisions,
    Stuck,
}

impl<const N: usize> Explorer<N> {
    fn new() -> Explorer<N> {
        let quorums = Genesis::new(ClusterId([1; 16]), vec![StoreId([1; 16]); N]).quorums();
        let mut explorer = Explorer { quorums, slots: FxHashMap::default(), steps: FxHashMap::default() };
        for node in 0..N {
            explorer.keep(node, SILENT, Slot::new(node_id(node), quorums));
        }
        explorer
    }

    fn keep(&mut self, node: usize, local: Local, slot: Slot) {
        let alike = self.slots.entry((node, local)).or_default();
        if alike.len() < ALIKE && !alike.contains(&slot) {
            alike.push(slot);
        }
    }

    fn step(&mut self, cause: Cause<N>) -> Option<Step> {
        if let Some(step) = self.steps.get(&cause) {
            return step.clone();
        }
        let (node, local, ..) = cause;
        let mut slot = self.slots[&(node, local)][0].clone();
        let step = drive(&mut slot, cause);
        if let Some(step) = &step {
            self.keep(node, step.local, slot);
        }
        self.steps.insert(cause, step.clone());
        step
    }

    /// The same place, but a `One` of this slot came late and counts. It matters where the coin may be asked.
    fn late_one(&mut self, node: usize, local: Local) -> Local {
        let heard = Local { one: true, ..local };
        if !self.slots.contains_key(&(node, heard)) {
            let late = SlotMessage::State(1, State::One(batch()));
            let others = (0..N).filter(|from| *from != node);
            let mut tries = others.flat_map(|from| self.slots[&(node, local)].iter().map(move |slot| (from, slot)));
            let slot = tries.find_map(|(from, slot)| {
                let mut with = slot.clone();
                with.receive(node_id(from), late, true);
                (with != *slot).then_some(with)
            });
            let slot = slot.unwrap_or_else(|| panic!("node {node} has heard all others in phase 1 at {local:?}"));
            self.keep(node, heard, slot);
        }
        heard
    }

    fn restart(&mut self, node: usize, disk: &Messages) -> (Local, Messages) {
        let records = disk.records();
        let slot = Slot::restored(node_id(node), self.quorums, &records);
        let mut said = Messages::default();
        slot.said().into_iter().for_each(|message| said.add(message));
        let one =
            records.iter().any(|(_, record)| matches!(record, Said::State(State::One(_)) | Said::Vote(Vote::One(_))));
        let local = place(&slot, one);
        self.keep(node, local, slot);
        (local, said)
    }

    /// What was found with one slot holds for all that were taken for the same.
    fn check_locals(&self) {
        for (cause, step) in &self.steps {
            for slot in &self.slots[&(cause.0, cause.1)] {
                assert_eq!(&drive(&mut slot.clone(), *cause), step, "{cause:?} with {slot:?}");
            }
        }
    }

    fn successors(&mut self, world: &World<N>, faults: Faults, out: &mut Vec<World<N>>) {
        for index in 0..N {
            let node = world.nodes[index];
            let with = |change: &dyn Fn(&mut World<N>)| {
                let mut next = *world;
                change(&mut next);
                next
            };
            match node.local.at {
                At::Dead | At::Decided => {}
                At::Silent => {
                    let values: &[Bit] = if node.holds { &[ONE, NULL] } else { &[NULL] };
                    for value in values {
                        self.act(world, (index, node.local, [*value; N], false), out);
                    }
                }
                At::Proposed | At::Stated | At::Voted => self.hear(world, index, out),
            }
            let living = !matches!(node.local.at, At::Dead);
            if living && !node.holds && world.nodes.iter().any(|other| other.holds) {
                out.push(with(&|next| next.nodes[index].holds = true));
            }
            if living && node.local.at != At::Decided {
                for value in [NULL, ONE] {
                    let knows = |other: &Node| other.local.at == At::Decided && other.local.last == value;
                    if world.told & value != 0 || world.nodes.iter().any(knows) {
                        let local = Local { at: At::Decided, phase: 0, last: value, one: false };
                        out.push(with(&|next| next.nodes[index].local = local));
                    }
                }
            }
        }
        for index in 0..N {
            self.crash(world, index, faults, out);
        }
    }

    /// The node acts on every set of messages that moves it.
    fn hear(&mut self, world: &World<N>, index: usize, out: &mut Vec<World<N>>) {
        let node = &world.nodes[index];
        let mut sets = vec![[0; N]];
        for (from, other) in world.nodes.iter().enumerate().filter(|(from, _)| *from != index) {
            let awaited = other.said.awaited(node.local);
            let bits = [ZERO, ONE, NEITHER].into_iter().filter(|bit| awaited & bit != 0);
            // What names the batch counts once its payload is held.
            let bits: Vec<Bit> = bits.filter(|bit| *bit != ONE || node.holds).collect();
            for set in sets.clone() {
                sets.extend(bits.iter().map(|bit| {
                    let mut set = set;
                    set[from] = *bit;
                    set
                }));
            }
        }
        let asks_coin = node.local.at == At::Voted && usize::from(node.local.phase) < PHASES;
        if asks_coin && !node.local.one && node.holds && world.has_one_for(index) {
            let mut next = *world;
            next.nodes[index].local = self.late_one(index, node.local);
            out.push(next);
        }
        for set in sets {
            let coins: &[bool] = if node.local.at == At::Voted { &[false, true] } else { &[false] };
            for coin in coins {
                self.act(world, (index, node.local, set, *coin), out);
            }
        }
    }

    fn act(&mut self, world: &World<N>, cause: Cause<N>, out: &mut Vec<World<N>>) {
        let Some(step) = self.step(cause) else { return };
        let mut next = *world;
        let node = &mut next.nodes[cause.0];
        node.local = step.local;
        node.said.join(&step.said);
        node.disk.join(&step.saved);
        assert!(node.holds || !step.stores_payload, "{cause:?} binds a node to a payload that it does not hold");
        node.stored |= step.stores_payload;
        next.decided |= step.decided;
        next.told |= step.decided;
        out.push(next);
    }

    fn crash(&mut self, world: &World<N>, index: usize, faults: Faults, out: &mut Vec<World<N>>) {
        if world.nodes[index].local.at == At::Dead {
            return;
        }
        // What it said may reach the others after it is gone, or not.
        let mut lost = *world;
        lost.nodes[index].said = Messages::default();
        let others = || world.nodes.iter().enumerate().filter(|(other, _)| *other != index);
        if others().all(|(_, other)| other.local.at != At::Decided) {
            lost.told = 0;
        }
        for mut next in [*world, lost] {
            if world.deaths < faults.deaths {
                let mut next = next;
                next.deaths += 1;
                let node = &mut next.nodes[index];
                *node = Node { local: DEAD, holds: false, stored: false, disk: Messages::default(), said: node.said };
                out.push(next);
            }
            if world.restarts < faults.restarts {
                next.restarts += 1;
                let node = &mut next.nodes[index];
                if faults.empty_disk {
                    (node.disk, node.stored) = (Messages::default(), false);
                }
                let (local, said) = self.restart(index, &node.disk);
                node.local = local;
                node.said.join(&said);
                node.holds = node.stored;
                out.push(next);
            }
        }
    }

    /// Everything that can happen where `holders` nodes have the payload at first.
    fn explore(&mut self, holders: usize, faults: Faults) -> Finding {
        let node = |index| Node {
            local: SILENT,
            holds: index < holders,
            stored: false,
            disk: Messages::default(),
            said: Messages::default(),
        };
        let nodes = std::array::from_fn(node);
        let first = World { nodes, decided: 0, told: 0, restarts: 0, deaths: 0 };
        let mut seen: FxHashSet<World<N>> = FxHashSet::default();
        seen.insert(first.canonical());
        // Whence each state was reached, for the trace.
        let mut reached = vec![(first, usize::MAX)];
        let mut queue = VecDeque::from([0]);
        let mut out = Vec::new();
        while let Some(index) = queue.pop_front() {
            let (world, _): (World<N>, usize) = reached[index];
            if world.decided == NULL | ONE {
                print_trace("two decisions", &reached, index);
                return Finding::TwoDecisions;
            }
            out.clear();
            self.successors(&world, faults, &mut out);
            let goes_on = out.iter().any(|next| (next.restarts, next.deaths) == (world.restarts, world.deaths));
            let ends = |node: &Node| match node.local.at {
                At::Decided => true,
                At::Voted => usize::from(node.local.phase) == PHASES,
                _ => false,
            };
            if !goes_on && !world.nodes.iter().any(ends) {
                print_trace("stuck", &reached, index);
                return Finding::Stuck;
            }
            for next in &out {
                if seen.insert(next.canonical()) {
                    queue.push_back(reached.len());
                    reached.push((*next, index));
                }
            }
        }
        self.check_locals();
        println!("n {N}, {} restarts, {} deaths: {} states", faults.restarts, faults.deaths, seen.len());
        Finding::Holds(seen.len())
    }
}

fn node_id(index: usize) -> NodeId {
    NodeId::new(index as u8 + 1).unwrap()
}

/// Lets the real slot step. None if what it is offered does not move it, or moves it beyond the last phase.
fn drive<const N: usize>(slot: &mut Slot, (_, local, offers, side): Cause<N>) -> Option<Step> {
    let mut effects = Vec::new();
    let mut one = local.one;
    let coin = |_| side;
    if local.at == At::Silent {
        slot.propose(bit_value(offers[0]), coin, &mut effects);
    } else {
        for (from, bit) in offers.into_iter().enumerate().filter(|(_, bit)| *bit != 0) {
            let message = match local.at {
                At::Proposed => SlotMessage::Proposal(bit_value(bit)),
                At::Stated => SlotMessage::State(u32::from(local.phase), bit_state(bit)),
                _ => SlotMessage::Vote(u32::from(local.phase), bit_vote(bit)),
            };
            one |= bit == ONE && local.at != At::Proposed;
            // It comes before its payload, so that it is parked.
            slot.receive(node_id(from), message, false);
        }
        slot.hold(&batch());
        slot.advance(coin, &mut effects);
    }
    if effects.is_empty() {
        return None;
    }
    let mut step =
        Step { local, said: Messages::default(), saved: Messages::default(), stores_payload: false, decided: 0 };
    let mut effects = VecDeque::from(effects);
    while let Some(effect) = effects.pop_front() {
        match effect {
            SlotEffect::Say(message) => {
                one |= message.names().is_some() && !matches!(message, SlotMessage::Proposal(_));
                step.said.add(message);
            }
            SlotEffect::Save(phase, _) if phase as usize > PHASES => return None,
            // Durable at once: if it crashes before, nobody has seen that it ever wanted to write.
            SlotEffect::Save(phase, said) => {
                let message = match said {
                    Said::State(state) => SlotMessage::State(phase, state),
                    Said::Vote(vote) => SlotMessage::Vote(phase, vote),
                };
                step.saved.add(message);
                step.stores_payload |= message.names().is_some();
                let mut more = Vec::new();
                slot.saved(coin, &mut more);
                effects.extend(more);
            }
            SlotEffect::Decide(value, _) => step.decided |= value_bit(value),
        }
    }
    step.local = place(slot, one);
    Some(step)
}

fn place(slot: &Slot, one: bool) -> Local {
    let mut said = Messages::default();
    slot.said().into_iter().for_each(|message| said.add(message));
    let (at, phase) = match slot.stage() {
        Stage::Silent => return SILENT,
        Stage::Decided(value) => return Local { at: At::Decided, phase: 0, last: value_bit(value), one: false },
        Stage::Proposed => (At::Proposed, 0),
        Stage::Stated(phase) => (At::Stated, phase as u8),
        Stage::Voted(phase) => (At::Voted, phase as u8),
        stage => panic!("{stage:?} waits for a disk that is always done"),
    };
    let local = Local { at, phase, last: 0, one };
    Local { last: said.awaited(local), ..local }
}

fn print_trace<const N: usize>(what: &str, reached: &[(World<N>, usize)], last: usize) {
    let mut trace = vec![last];
    while let Some((_, before)) = trace.last().map(|index| reached[*index])
        && before != usize::MAX
    {
        trace.push(before);
    }
    println!("{what}, after {} states:", reached.len());
    for index in trace.into_iter().rev() {
        println!("  {:?}", reached[index].0);
    }
}

fn explore<const N: usize>(holders: usize, restarts: u8, deaths: u8) -> Finding {
    Explorer::<N>::new().explore(holders, Faults { restarts, deaths, empty_disk: false })
}

fn assert_holds(finding: Finding) {
    assert!(matches!(finding, Finding::Holds(_)), "{finding:?}");
}

#[test]
fn one_or_two_nodes_with_restarts() {
    assert_holds(explore::<1>(1, 3, 0));
    assert_holds(explore::<2>(1, 2, 0));
    assert_holds(explore::<2>(2, 2, 0));
}

#[test]
fn three_nodes_with_one_restart_and_one_death() {
    assert_holds(explore::<3>(1, 1, 1));
}

#[test]
fn a_disk_that_forgets_is_found_to_break_agreement() {
    let faults = Faults { restarts: 1, deaths: 0, empty_disk: true };
    assert_eq!(Explorer::<3>::new().explore(3, faults), Finding::TwoDecisions);
}

#[test]
#[ignore = "millions of states"]
fn three_nodes_with_two_restarts_and_one_death() {
    assert_holds(explore::<3>(1, 2, 1));
}

#[test]
#[ignore = "millions of states"]
fn three_nodes_with_three_restarts() {
    assert_holds(explore::<3>(1, 3, 0));
}

#[test]
#[ignore = "millions of states"]
fn four_nodes_with_one_restart_and_one_death() {
    assert_holds(explore::<4>(1, 1, 1));
}
