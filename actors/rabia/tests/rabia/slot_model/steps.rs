//! What the real [`Slot`] does in every place and for every cause.
//!
//! What a slot does next depends on its place ([`Local`]) and on what it hears, not on what brought it there. So each
//! step is made once, with one slot of that place, and remembered. In the end [`Steps::check`] repeats all of them with
//! other slots that came to the same place on other ways, under all namings of the nodes: they must do the same.

use rabia_bank_messages::genesis::{Genesis, Quorums};
use rabia_bank_messages::ids::{ClusterId, NodeId, StoreId};
use rabia_bank_rabia::slot::{Slot, SlotEffect, SlotMessage, Stage};
use rustc_hash::FxHashMap;

use super::words::{A, B, IDS, Kind, Messages, NEITHER, Word, Words, ZERO, id, value, value_word};

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum At {
    Silent,
    Proposed,
    Stated,
    /// The vote is on its way to the disk.
    SavingVote,
    Voted,
    /// The state of a later phase is on its way to the disk.
    SavingState,
    Decided,
    /// Decided, and the decision was on disk at the last start. The records are gone.
    Settled,
    Dead,
}

/// All that a slot's next step depends on, except what it hears.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Local {
    pub at: At,
    pub phase: u8,
    /// What it said last, is about to say, or decided.
    pub last: Word,
}

impl Local {
    pub const SILENT: Local = Local { at: At::Silent, phase: 0, last: 0 };
    pub const DEAD: Local = Local { at: At::Dead, phase: 0, last: 0 };

    pub fn decided(word: Word) -> Local {
        Local { at: At::Decided, phase: 0, last: word }
    }

    /// It knows the outcome.
    pub fn knows(self) -> bool {
        matches!(self.at, At::Decided | At::Settled)
    }

    /// What a node in this place waits for.
    pub fn awaits(self) -> Option<Kind> {
        match self.at {
            At::Proposed => Some(Kind::Proposal),
            At::Stated => Some(Kind::State(self.phase)),
            At::Voted => Some(Kind::Vote(self.phase)),
            At::Silent | At::SavingVote | At::SavingState | At::Decided | At::Settled | At::Dead => None,
        }
    }

    /// What is on its way to the disk.
    pub fn writes(self) -> Option<(Kind, Word)> {
        match self.at {
            At::SavingVote => Some((Kind::Vote(self.phase), self.last)),
            At::SavingState => Some((Kind::State(self.phase), self.last)),
            _ => None,
        }
    }
}

/// What the others say to a node, from the second entry on. They are interchangeable: it is sorted.
pub type Offers<const N: usize> = [Word; N];

/// What makes a slot step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause<const N: usize> {
    /// It proposes.
    Proposes(Word),
    /// It acts on these messages of the awaited kind. The coin is tails, or heads where this batch's `One` counts.
    Hears(Offers<N>, Word),
    /// The disk is done.
    Synced,
}

/// What a slot does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing.
    Still,
    /// It goes beyond the last phase that is looked at.
    Beyond,
    /// It goes there and says and decides this.
    Goes { to: Local, says: Messages, decides: Words },
}

/// How to bring a slot to a place: what its disk held at first, and what happened then.
#[derive(Clone, Debug)]
struct Script<const N: usize> {
    restored: Option<Messages>,
    causes: Vec<Cause<N>>,
}

/// What to call the node that is looked at, and the others.
pub type Names<const N: usize> = [u8; N];

/// Ways to one place that are kept, to see that the slots do the same.
const ALIKE: usize = 12;

pub struct Steps<const N: usize> {
    pub quorums: Quorums,
    phases: u8,
    ways: FxHashMap<Local, Vec<(Script<N>, Slot)>>,
    known: FxHashMap<(Names<N>, Local, Cause<N>), Outcome>,
    bound: FxHashMap<(Messages, Kind, Offers<N>), Outcome>,
}

fn node_id(index: u8) -> NodeId {
    NodeId::new(index + 1).unwrap()
}

impl<const N: usize> Steps<N> {
    pub fn new(phases: u8) -> Steps<N> {
        let quorums = Genesis::new(ClusterId([1; 16]), vec![StoreId([1; 16]); N]).quorums();
        let (known, bound) = (FxHashMap::default(), FxHashMap::default());
        let mut steps = Steps { quorums, phases, ways: FxHashMap::default(), known, bound };
        steps.keep(Local::SILENT, Script { restored: None, causes: Vec::new() });
        steps
    }

    /// What a slot in this place does, where the nodes are called so.
    pub fn step(&mut self, names: Names<N>, local: Local, cause: Cause<N>) -> Outcome {
        if let Some(outcome) = self.known.get(&(names, local, cause)) {
            return *outcome;
        }
        let mut script = match cause {
            // Heads is of use to a slot that counts a batch. This one counts nothing yet but its own vote.
            Cause::Hears(_, A | B) => {
                let mut vote = Messages::default();
                vote.add(Kind::Vote(local.phase), local.last);
                Script { restored: Some(vote), causes: Vec::new() }
            }
            _ => self.ways[&local][0].0.clone(),
        };
        let mut slot = self.replay(&script, &names);
        assert_eq!(place(&slot), local);
        let outcome = self.drive(&mut slot, cause, &names);
        if let Outcome::Goes { to, .. } = outcome {
            script.causes.push(cause);
            self.keep(to, script);
        }
        self.known.insert((names, local, cause), outcome);
        outcome
    }

    /// Where a node is and what it says after a restart with these records.
    pub fn restored(&mut self, disk: &Messages) -> (Local, Messages) {
        let script = Script { restored: Some(*disk), causes: Vec::new() };
        let slot = self.replay(&script, &by_place());
        let local = place(&slot);
        self.keep(local, script);
        (local, said(&slot))
    }

    /// What a node with these records, wherever it stands, does when it hears votes of this kind.
    pub fn late_votes(&mut self, disk: &Messages, kind: Kind, offers: Offers<N>) -> Outcome {
        if let Some(outcome) = self.bound.get(&(*disk, kind, offers)) {
            return *outcome;
        }
        let mut slot = self.replay(&Script { restored: Some(*disk), causes: Vec::new() }, &by_place());
        for (from, word) in (0..).zip(offers).filter(|(_, word)| *word != 0) {
            slot.receive(node_id(from), kind.message(word), true);
        }
        let mut effects = Vec::new();
        slot.advance(|_| false, &mut effects);
        let decides = effects.iter().find_map(|effect| match effect {
            SlotEffect::Decide(value, _) => Some(value_word(*value)),
            SlotEffect::Say(_) | SlotEffect::Save(..) => None,
        });
        let outcome = decides.map_or(Outcome::Still, |word| Outcome::Goes {
            to: Local::decided(word),
            says: Messages::default(),
            decides: word,
        });
        self.bound.insert((*disk, kind, offers), outcome);
        outcome
    }

    /// What was found with one slot holds for all that were taken for the same, whatever the nodes are called.
    pub fn check(&self) {
        for ((_, local, cause), expected) in &self.known {
            for (script, _) in &self.ways[local] {
                for names in orders::<N>() {
                    let mut slot = self.replay(script, &names);
                    let outcome = self.drive(&mut slot, *cause, &names);
                    // What heads takes is any of the batches that were named: they are all tried.
                    let heads = matches!(cause, Cause::Hears(_, coin) if *coin != ZERO) && takes_coin(outcome);
                    assert!(
                        outcome == *expected || heads,
                        "{outcome:?} and not {expected:?} in {local:?} upon {cause:?}, nodes {names:?}, by {script:?}"
                    );
                }
            }
        }
    }

    fn keep(&mut self, local: Local, script: Script<N>) {
        if self.ways.get(&local).is_some_and(|ways| ways.len() >= ALIKE) {
            return;
        }
        let slot = self.replay(&script, &by_place());
        let ways = self.ways.entry(local).or_default();
        if ways.iter().all(|(_, other)| *other != slot) {
            ways.push((script, slot));
        }
    }

    fn replay(&self, script: &Script<N>, names: &Names<N>) -> Slot {
        let me = node_id(names[0]);
        let mut slot = match &script.restored {
            Some(disk) => Slot::restored(me, self.quorums, &disk.records()),
            None => Slot::new(me, self.quorums),
        };
        script.causes.iter().for_each(|cause| {
            self.drive(&mut slot, *cause, names);
        });
        slot
    }

    fn drive(&self, slot: &mut Slot, cause: Cause<N>, names: &Names<N>) -> Outcome {
        let before = place(slot);
        let mut effects = Vec::new();
        match cause {
            Cause::Proposes(word) => slot.propose(value(word), |_| false, &mut effects),
            Cause::Synced => slot.saved(|_| false, &mut effects),
            Cause::Hears(offers, coin) => {
                if coin != ZERO {
                    slot.receive(node_id(names[1]), Kind::State(1).message(coin), true);
                }
                let kind = before.awaits().unwrap_or_else(|| panic!("{before:?} waits for nothing"));
                for (other, word) in offers.into_iter().enumerate().filter(|(_, word)| *word != 0) {
                    // It comes before its payload, so that it is parked.
                    slot.receive(node_id(names[other]), kind.message(word), false);
                }
                for word in [A, B] {
                    slot.hold(&id(word));
                }
                slot.advance(|_| coin != ZERO, &mut effects);
            }
        }
        self.outcome(slot, effects)
    }

    fn outcome(&self, slot: &Slot, effects: Vec<SlotEffect>) -> Outcome {
        if effects.is_empty() {
            return Outcome::Still;
        }
        let (mut says, mut decides) = (Messages::default(), 0);
        for effect in effects {
            match effect {
                SlotEffect::Say(message) => {
                    let (kind, word) = Kind::of(message);
                    says.add(kind, word);
                }
                SlotEffect::Save(phase, _) if phase > u32::from(self.phases) => return Outcome::Beyond,
                SlotEffect::Save(phase, said) => {
                    let to = place(slot);
                    assert_eq!(to.writes(), Some(Kind::of_record(phase, said)), "what it writes is what it says next");
                }
                SlotEffect::Decide(value, _) => decides |= value_word(value),
            }
        }
        Outcome::Goes { to: place(slot), says, decides }
    }
}

/// The nodes are called by their places, where it does not matter what they are called.
pub fn by_place<const N: usize>() -> Names<N> {
    std::array::from_fn(|node| node as u8)
}

/// Everything that the nodes can be called.
fn orders<const N: usize>() -> Vec<Names<N>> {
    let mut orders: Vec<Vec<u8>> = vec![Vec::new()];
    for _ in 0..N {
        orders = orders
            .into_iter()
            .flat_map(|order| {
                let free = (0..N as u8).filter(|node| !order.contains(node)).collect::<Vec<_>>();
                free.into_iter().map(move |node| [order.clone(), vec![node]].concat())
            })
            .collect();
    }
    orders.into_iter().map(|order| order.try_into().unwrap()).collect()
}

/// Whether it goes on as the coin allows.
fn takes_coin(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Goes { to, says, decides } => {
            to.at == At::SavingState && to.last & (ZERO | IDS) != 0 && says.is_empty() && decides == 0
        }
        Outcome::Still | Outcome::Beyond => false,
    }
}

fn said(slot: &Slot) -> Messages {
    let mut said = Messages::default();
    for message in slot.said() {
        let (kind, word) = Kind::of(message);
        said.add(kind, word);
    }
    said
}

fn place(slot: &Slot) -> Local {
    let last = |kind: Kind| {
        let words = said(slot).said(kind);
        assert!(words.count_ones() == 1, "{slot:?} has said {words:#b} as {kind:?}");
        words
    };
    let local = |at, kind| match kind {
        Kind::Proposal => Local { at, phase: 0, last: last(kind) },
        Kind::State(phase) | Kind::Vote(phase) => Local { at, phase, last: last(kind) },
    };
    match slot.stage() {
        Stage::Silent => Local::SILENT,
        Stage::Proposed => local(At::Proposed, Kind::Proposal),
        Stage::Stated(phase) => local(At::Stated, Kind::State(phase as u8)),
        Stage::Voted(phase) => local(At::Voted, Kind::Vote(phase as u8)),
        Stage::SavingVote(phase, vote) => {
            let (_, last) = Kind::of(SlotMessage::Vote(phase, vote));
            Local { at: At::SavingVote, phase: phase as u8, last }
        }
        Stage::SavingState(phase, state) => {
            let (_, last) = Kind::of(SlotMessage::State(phase, state));
            Local { at: At::SavingState, phase: phase as u8, last }
        }
        Stage::Decided(value) => Local::decided(value_word(value)),
    }
}

/// Whether everything that is heard and said leaves the next state to the coin.
pub fn asks_coin<const N: usize>(local: Local, offers: &Offers<N>) -> bool {
    local.at == At::Voted && local.last == NEITHER && offers.iter().all(|word| *word == 0 || *word == NEITHER)
}
