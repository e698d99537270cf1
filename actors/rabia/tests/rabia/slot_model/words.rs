//! What can be said in the slot that is looked at, as bits: a set of words is half a byte.

use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Phase};
use rabia_bank_messages::peer::{State, Value, Vote};
use rabia_bank_messages::promise::Said;
use rabia_bank_rabia::slot::SlotMessage;

/// One word: a bit.
pub type Word = u8;
/// A set of words.
pub type Words = u8;

/// Null where it is proposed or decided, `Zero` in states and votes.
pub const ZERO: Word = 1;
/// The one batch …
pub const A: Word = 2;
/// … and the other.
pub const B: Word = 4;
/// `Abstain` among states, `Undecided` among votes.
pub const NEITHER: Word = 8;
/// The words that name a batch.
pub const IDS: Words = A | B;

/// The most phases that can be looked at.
pub const MOST_PHASES: usize = 3;

/// The words of a set.
pub fn each(words: Words) -> impl Iterator<Item = Word> {
    [ZERO, A, B, NEITHER].into_iter().filter(move |word| words & word != 0)
}

/// The batch that the word names.
pub fn id(word: Word) -> BatchId {
    let origin = match word {
        A => 1,
        B => 2,
        _ => panic!("word {word} names no batch"),
    };
    BatchId { origin: NodeId::new(origin).unwrap(), incarnation: 1, sequence: 1, digest: Digest::ZERO }
}

fn naming(id: &BatchId) -> Word {
    if id.origin.index() == 0 { A } else { B }
}

/// The word for a proposed or decided value.
pub fn value_word(value: Value) -> Word {
    value.as_ref().map_or(ZERO, naming)
}

/// The proposed or decided value.
pub fn value(word: Word) -> Value {
    (word != ZERO).then(|| id(word))
}

fn state(word: Word) -> State {
    match word {
        ZERO => State::Zero,
        NEITHER => State::Abstain,
        named => State::One(id(named)),
    }
}

fn state_word(state: State) -> Word {
    match state {
        State::Zero => ZERO,
        State::One(id) => naming(&id),
        State::Abstain => NEITHER,
    }
}

fn vote(word: Word) -> Vote {
    match word {
        ZERO => Vote::Zero,
        NEITHER => Vote::Undecided,
        named => Vote::One(id(named)),
    }
}

fn vote_word(vote: Vote) -> Word {
    match vote {
        Vote::Zero => ZERO,
        Vote::One(id) => naming(&id),
        Vote::Undecided => NEITHER,
    }
}

/// Of these, one of each sender counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    Proposal,
    State(u8),
    Vote(u8),
}

impl Kind {
    /// The message of this kind that says this.
    pub fn message(self, word: Word) -> SlotMessage {
        match self {
            Kind::Proposal => SlotMessage::Proposal(value(word)),
            Kind::State(phase) => SlotMessage::State(Phase::from(phase), state(word)),
            Kind::Vote(phase) => SlotMessage::Vote(Phase::from(phase), vote(word)),
        }
    }

    /// What the message says, and of which kind it is.
    pub fn of(message: SlotMessage) -> (Kind, Word) {
        match message {
            SlotMessage::Proposal(value) => (Kind::Proposal, value_word(value)),
            SlotMessage::State(phase, state) => (Kind::State(phase as u8), state_word(state)),
            SlotMessage::Vote(phase, vote) => (Kind::Vote(phase as u8), vote_word(vote)),
        }
    }

    /// What the record says, and of which kind it is.
    pub fn of_record(phase: Phase, said: Said) -> (Kind, Word) {
        Kind::of(match said {
            Said::State(state) => SlotMessage::State(phase, state),
            Said::Vote(vote) => SlotMessage::Vote(phase, vote),
        })
    }
}

/// Messages of one node, or its records on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Messages {
    proposals: Words,
    states: [Words; MOST_PHASES],
    votes: [Words; MOST_PHASES],
}

impl Messages {
    /// How many bits [`Messages::pack`] needs.
    pub const BITS: u32 = 4 * (1 + 2 * MOST_PHASES as u32);

    pub fn is_empty(&self) -> bool {
        *self == Messages::default()
    }

    /// What they say of this kind.
    pub fn said(&self, kind: Kind) -> Words {
        match kind {
            Kind::Proposal => self.proposals,
            Kind::State(phase) => self.states[usize::from(phase) - 1],
            Kind::Vote(phase) => self.votes[usize::from(phase) - 1],
        }
    }

    pub fn add(&mut self, kind: Kind, word: Word) {
        match kind {
            Kind::Proposal => self.proposals |= word,
            Kind::State(phase) => self.states[usize::from(phase) - 1] |= word,
            Kind::Vote(phase) => self.votes[usize::from(phase) - 1] |= word,
        }
    }

    pub fn join(&mut self, other: &Messages) {
        self.proposals |= other.proposals;
        for phase in 0..MOST_PHASES {
            self.states[phase] |= other.states[phase];
            self.votes[phase] |= other.votes[phase];
        }
    }

    /// The batches that the states and votes name.
    pub fn named(&self) -> Words {
        self.states.iter().chain(&self.votes).fold(0, |named, words| named | words) & IDS
    }

    /// As records, in the order in which a node writes them.
    pub fn records(&self) -> Vec<(Phase, Said)> {
        let phases = (1..).zip(self.states.iter().zip(&self.votes));
        let records = phases.flat_map(|(phase, (states, votes))| {
            let states = each(*states).map(move |word| (phase, Said::State(state(word))));
            states.chain(each(*votes).map(move |word| (phase, Said::Vote(vote(word)))))
        });
        records.collect()
    }

    /// Only the record that was written last.
    pub fn last(&self) -> Messages {
        let mut last = Messages::default();
        if let Some((phase, said)) = self.records().pop() {
            let (kind, word) = Kind::of_record(phase, said);
            last.add(kind, word);
        }
        last
    }

    /// As few bits as possible.
    pub fn pack(&self) -> u64 {
        let sets = self.states.iter().chain(&self.votes).chain([&self.proposals]);
        sets.fold(0, |bits, words| bits << 4 | u64::from(*words))
    }

    pub fn unpack(mut bits: u64) -> Messages {
        let mut next = || {
            let words = (bits & 15) as Words;
            bits >>= 4;
            words
        };
        let mut messages = Messages { proposals: next(), ..Messages::default() };
        messages.votes.iter_mut().rev().for_each(|words| *words = next());
        messages.states.iter_mut().rev().for_each(|words| *words = next());
        messages
    }
}
