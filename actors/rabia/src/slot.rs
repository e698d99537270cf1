//! One slot: Weak-MVC of the Rabia paper (Pan et al., SOSP 2021, algorithm 2) with crash recovery.
//!
//! A replica proposes, says what it saw (State), binds itself (Vote), and either decides or tries again in the next
//! phase, where a common coin breaks ties:
//!
//! ```text
//! Silent ─► Proposed ─► Stated(1) ─► SavingVote(1) ─► Voted(1) ─┬─► Decided
//!                           ▲                                   │
//!                           └─────────── SavingState(p+1) ◄─────┘
//! ```
//!
//! [`Slot`] is the whole of it: it takes messages and says which to send and which to make durable first. It knows
//! nothing of other slots, links, disks or time. The rules are those of the contract, by number, in the parent module.

use rabia_bank_messages::ids::{BatchId, MAX_NODES, MAX_PHASES, NodeId, Phase};
use rabia_bank_messages::peer::{State, Value, Vote};
use rabia_bank_messages::promise::Said;
use rabia_bank_messages::sabotage::{Rule, is_broken};

use rabia_bank_messages::genesis::Quorums;

/// What replicas say in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum SlotMessage {
    /// What the replica wants the slot to be decided on (rule 2).
    Proposal(Value),
    /// What it saw before the vote of this phase (rules 3 and 5).
    State(Phase, State),
    /// What it binds itself to in this phase (rule 4).
    Vote(Phase, Vote),
}

impl SlotMessage {
    /// The batch that the message names.
    pub fn names(&self) -> Option<&BatchId> {
        match self {
            SlotMessage::Proposal(value) => value.as_ref(),
            SlotMessage::State(_, State::One(id)) | SlotMessage::Vote(_, Vote::One(id)) => Some(id),
            SlotMessage::State(..) | SlotMessage::Vote(..) => None,
        }
    }

    /// Whether `other` says the same kind of thing in the same phase: of these, one per sender counts (rule 7).
    fn same_kind(&self, other: &SlotMessage) -> bool {
        match (self, other) {
            (SlotMessage::Proposal(_), SlotMessage::Proposal(_)) => true,
            (SlotMessage::State(p, _), SlotMessage::State(q, _)) => p == q,
            (SlotMessage::Vote(p, _), SlotMessage::Vote(q, _)) => p == q,
            _ => false,
        }
    }
}

/// What a slot wants done, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotEffect {
    /// This goes to every other member.
    Say(SlotMessage),
    /// Make this durable, then call [`Slot::saved`]. If it names a batch, the payload must be durable with it.
    Save(Phase, Said),
    /// The slot is decided, in this phase.
    Decide(Value, Phase),
}

/// Where a replica stands in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// It has said nothing.
    Silent,
    /// It waits for a quorum of proposals.
    Proposed,
    /// It waits for a quorum of this phase's states.
    Stated(Phase),
    /// Its vote is on its way to the disk.
    SavingVote(Phase, Vote),
    /// It waits for a quorum of this phase's votes.
    Voted(Phase),
    /// Its state for this phase is on its way to the disk.
    SavingState(Phase, State),
    /// It knows the outcome.
    Decided(Value),
}

/// The messages of one phase that count, by sender.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
struct Round {
    states: [Option<State>; MAX_NODES],
    votes: [Option<Vote>; MAX_NODES],
}

/// A replica's part in one slot.
///
/// Invariants:
/// - A message that names a batch counts only while its payload is held (rule 6); others are parked.
/// - Of one sender, kind and phase the first that counts stays (rule 7).
/// - What this replica said in a phase never changes; a vote, and a state of phase 2 and later, was durable before.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Slot {
    me: NodeId,
    quorums: Quorums,
    stage: Stage,
    proposals: [Option<Value>; MAX_NODES],
    rounds: Vec<Round>,
    /// Messages whose payload is missing: the latest of each sender, kind and phase.
    parked: Vec<(NodeId, SlotMessage)>,
}

impl Slot {
    /// A slot in which this replica never spoke.
    pub fn new(me: NodeId, quorums: Quorums) -> Slot {
        Slot { me, quorums, stage: Stage::Silent, proposals: [None; MAX_NODES], rounds: Vec::new(), parked: Vec::new() }
    }

    /// A slot below the mark of a former run (rules 1, 3, 11): what is stored is said again, and null and Abstain
    /// besides, for the replica may have said something else and forgotten. Without records the slot is tainted.
    ///
    /// `records` are in the order in which they were written; payloads of batches that they name must be held.
    pub fn restored(me: NodeId, quorums: Quorums, records: &[(Phase, Said)]) -> Slot {
        let mut slot = Slot::new(me, quorums);
        if !is_broken(Rule::RestartSpeaks) {
            let state = if is_broken(Rule::TaintedAbstains) { State::Zero } else { State::Abstain };
            slot.proposals[me.index()] = Some(None);
            slot.round(1).states[me.index()] = Some(state);
        }
        slot.stage = Stage::Stated(1);
        let skipped = if is_broken(Rule::RestartSaysAll) { records.len().saturating_sub(1) } else { 0 };
        for (phase, said) in &records[skipped..] {
            match said {
                Said::State(state) => {
                    assert!(*phase >= 2, "a stored state of phase {phase}: {state:?}");
                    slot.round(*phase).states[me.index()] = Some(*state);
                    slot.stage = Stage::Stated(*phase);
                }
                Said::Vote(vote) => {
                    slot.round(*phase).votes[me.index()] = Some(*vote);
                    slot.stage = Stage::Voted(*phase);
                }
            }
        }
        slot
    }

    /// Where this replica stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The phase that this replica has come to; 0 before its first State.
    pub fn phase(&self) -> Phase {
        match self.stage {
            Stage::Silent | Stage::Proposed | Stage::Decided(_) => 0,
            Stage::Stated(phase) | Stage::SavingVote(phase, _) | Stage::Voted(phase) | Stage::SavingState(phase, _) => {
                phase
            }
        }
    }

    /// Whether this replica has nothing to do here until somebody proposes.
    pub fn is_silent(&self) -> bool {
        self.stage == Stage::Silent
    }

    /// All that this replica has said, to say it again (rules 9 and 11).
    pub fn said(&self) -> Vec<SlotMessage> {
        let me = self.me.index();
        let mut said: Vec<_> = self.proposals[me].iter().map(|value| SlotMessage::Proposal(*value)).collect();
        for (phase, round) in (1..).zip(&self.rounds) {
            said.extend(round.states[me].map(|state| SlotMessage::State(phase, state)));
            said.extend(round.votes[me].map(|vote| SlotMessage::Vote(phase, vote)));
        }
        said
    }

    /// Batches whose payload this slot needs: the decided one, or before that those that a parked message waits for.
    pub fn needed(&self) -> impl Iterator<Item = &BatchId> {
        let (decided, parked) = match &self.stage {
            Stage::Decided(value) => (value.as_ref(), &[][..]),
            _ => (None, &self.parked[..]),
        };
        decided.into_iter().chain(parked.iter().filter_map(|(_, message)| message.names()))
    }

    /// Whether a message that counts names this batch: this replica may say so too, and then needs the payload (rule 6).
    pub fn rests_on(&self, id: &BatchId) -> bool {
        let stated = |state: &State| *state == State::One(*id);
        let voted = |vote: &Vote| *vote == Vote::One(*id);
        self.proposals.contains(&Some(Some(*id)))
            || self
                .rounds
                .iter()
                .any(|round| round.states.iter().flatten().any(stated) || round.votes.iter().flatten().any(voted))
    }

    /// The proposal of a replica that counts.
    pub fn proposal(&self, of: NodeId) -> Option<Value> {
        self.proposals[of.index()]
    }

    /// Rule 2: proposes, unless this replica did already. The payload of a batch must be held.
    pub fn propose(&mut self, value: Value, coin: impl Fn(Phase) -> bool, effects: &mut Vec<SlotEffect>) {
        if self.stage != Stage::Silent {
            return;
        }
        self.proposals[self.me.index()] = Some(value);
        self.stage = Stage::Proposed;
        effects.push(SlotEffect::Say(SlotMessage::Proposal(value)));
        self.advance(coin, effects);
    }

    /// Takes a message of another replica. `held` tells whether the payload of the batch that it names is held.
    /// It is only counted: [`Slot::advance`] acts on it.
    pub fn receive(&mut self, from: NodeId, message: SlotMessage, held: bool) {
        if from == self.me || matches!(self.stage, Stage::Decided(_)) {
            return;
        }
        if let SlotMessage::State(phase, _) | SlotMessage::Vote(phase, _) = message
            && !(1..=MAX_PHASES).contains(&phase)
        {
            return;
        }
        let parked = self.parked.iter_mut().find(|(sender, parked)| *sender == from && parked.same_kind(&message));
        if parked.is_some() && is_broken(Rule::ParkedReplaced) {
            return;
        }
        if message.names().is_none() || held {
            return self.count(from, message);
        }
        match parked {
            Some((_, parked)) => *parked = message,
            None => self.parked.push((from, message)),
        }
    }

    /// Tells that the payload of `id` is held now: messages that waited for it count, if none came before them. Answers whose
    /// proposals do.
    pub fn hold(&mut self, id: &BatchId) -> Vec<NodeId> {
        let mut proposers = Vec::new();
        let parked = std::mem::take(&mut self.parked);
        for (from, message) in parked {
            if message.names() != Some(id) {
                self.parked.push((from, message));
                continue;
            }
            self.count(from, message);
            if let SlotMessage::Proposal(value) = message
                && self.proposal(from) == Some(value)
            {
                proposers.push(from);
            }
        }
        proposers
    }

    /// Tells that the last [`SlotEffect::Save`] is durable.
    pub fn saved(&mut self, coin: impl Fn(Phase) -> bool, effects: &mut Vec<SlotEffect>) {
        let me = self.me.index();
        match self.stage {
            Stage::SavingVote(phase, vote) => {
                self.round(phase).votes[me] = Some(vote);
                self.stage = Stage::Voted(phase);
                effects.push(SlotEffect::Say(SlotMessage::Vote(phase, vote)));
            }
            Stage::SavingState(phase, state) => {
                self.round(phase).states[me] = Some(state);
                self.stage = Stage::Stated(phase);
                effects.push(SlotEffect::Say(SlotMessage::State(phase, state)));
            }
            // Decided by others while the disk was busy.
            Stage::Decided(_) => return,
            stage => panic!("saved in stage {stage:?}, which waits for no disk"),
        }
        self.advance(coin, effects);
    }

    /// Rule 8: adopts a decision that another replica made.
    pub fn adopt(&mut self, value: Value) {
        if let Stage::Decided(ours) = self.stage {
            assert_eq!(ours, value, "agreement is broken: one slot was decided twice");
        }
        self.stage = Stage::Decided(value);
    }

    /// Goes as far as the messages that count allow.
    pub fn advance(&mut self, coin: impl Fn(Phase) -> bool, effects: &mut Vec<SlotEffect>) {
        if !matches!(self.stage, Stage::Decided(_))
            && let Some((value, phase)) = self.bound()
        {
            self.stage = Stage::Decided(value);
            return effects.push(SlotEffect::Decide(value, phase));
        }
        loop {
            match self.stage {
                Stage::Proposed => {
                    let Some(state) = self.first_state() else { return };
                    let me = self.me.index();
                    self.round(1).states[me] = Some(state);
                    self.stage = Stage::Stated(1);
                    effects.push(SlotEffect::Say(SlotMessage::State(1, state)));
                }
                Stage::Stated(phase) => {
                    let Some(vote) = self.vote(phase) else { return };
                    self.stage = Stage::SavingVote(phase, vote);
                    if is_broken(Rule::VoteDurableFirst) {
                        effects.push(SlotEffect::Say(SlotMessage::Vote(phase, vote)));
                    }
                    effects.push(SlotEffect::Save(phase, Said::Vote(vote)));
                    return;
                }
                Stage::Voted(phase) => {
                    // Nobody takes a message of a later phase: the slot waits until somebody tells its decision.
                    let Some(state) = self.next_state(phase, &coin).filter(|_| phase < MAX_PHASES) else { return };
                    self.stage = Stage::SavingState(phase + 1, state);
                    if is_broken(Rule::StateDurableFirst) {
                        effects.push(SlotEffect::Say(SlotMessage::State(phase + 1, state)));
                    }
                    effects.push(SlotEffect::Save(phase + 1, Said::State(state)));
                    return;
                }
                Stage::Silent | Stage::SavingVote(..) | Stage::SavingState(..) | Stage::Decided(_) => return,
            }
        }
    }

    /// Rule 3. None while a quorum of proposals is missing.
    fn first_state(&self) -> Option<State> {
        let proposals = || self.proposals.iter().flatten();
        if proposals().count() < self.quorums.quorum() {
            return None;
        }
        let least = if is_broken(Rule::ProposalMajority) { 1 } else { self.quorums.majority() };
        let majority =
            proposals().flatten().find(|id| proposals().flatten().filter(|other| other == id).count() >= least);
        Some(majority.map_or(State::Zero, |id| State::One(*id)))
    }

    /// Rule 4. None while a quorum of states is missing.
    fn vote(&self, phase: Phase) -> Option<Vote> {
        let round = self.rounds.get(phase as usize - 1)?;
        let states = || round.states.iter().flatten();
        let missing = usize::from(is_broken(Rule::StateQuorum));
        if states().count() + missing < self.quorums.quorum() {
            return None;
        }
        let agreeing = |state: &State| states().filter(|other| *other == state).count();
        let enough = |state: &State| match is_broken(Rule::VoteFollowsMajority) {
            false => agreeing(state) >= self.quorums.majority(),
            true => agreeing(state) == states().count(),
        };
        let majority = states().filter(|state| **state != State::Abstain).find(|state| enough(state));
        Some(match majority {
            Some(State::Zero) => Vote::Zero,
            Some(State::One(id)) => Vote::One(*id),
            Some(State::Abstain) | None => Vote::Undecided,
        })
    }

    /// Rule 5: the value that f + 1 votes of one phase bind, and the phase. It is decided, however far this replica is: its
    /// own disk may be slower than those of the others.
    fn bound(&self) -> Option<(Value, Phase)> {
        (1..).zip(&self.rounds).find_map(|(phase, round)| {
            let votes = || round.votes.iter().flatten();
            let needed = self.quorums.faults() + usize::from(!is_broken(Rule::DecisionNeedsVotes));
            let bound = |vote: &Vote| votes().filter(|other| *other == vote).count() >= needed;
            votes().find_map(|vote| match vote {
                Vote::One(id) => bound(vote).then_some((Some(*id), phase)),
                Vote::Zero => bound(vote).then_some((None, phase)),
                Vote::Undecided => None,
            })
        })
    }

    /// Rule 5, where nothing is bound: what to go on with. None while a quorum of votes is missing.
    fn next_state(&self, phase: Phase, coin: &impl Fn(Phase) -> bool) -> Option<State> {
        let round = self.rounds.get(phase as usize - 1)?;
        let votes = || round.votes.iter().flatten();
        if votes().count() < self.quorums.quorum() {
            return None;
        }
        let binds = |vote: &&Vote| **vote != Vote::Undecided && !is_broken(Rule::VoteBindsState);
        Some(match votes().find(binds) {
            Some(Vote::One(id)) => State::One(*id),
            Some(Vote::Zero | Vote::Undecided) => State::Zero,
            None => self.any_one().filter(|_| coin(phase)).map_or(State::Zero, State::One),
        })
    }

    /// A batch that somebody's state or vote of this slot names, among those that count.
    fn any_one(&self) -> Option<BatchId> {
        self.rounds.iter().find_map(|round| {
            let states = round.states.iter().flatten().find_map(|state| match state {
                State::One(id) => Some(*id),
                State::Zero | State::Abstain => None,
            });
            states.or_else(|| {
                round.votes.iter().flatten().find_map(|vote| match vote {
                    Vote::One(id) => Some(*id),
                    Vote::Zero | Vote::Undecided => None,
                })
            })
        })
    }

    fn count(&mut self, from: NodeId, message: SlotMessage) {
        let from = from.index();
        match message {
            SlotMessage::Proposal(value) => count_first(&mut self.proposals, from, value),
            SlotMessage::State(phase, state) => count_first(&mut self.round(phase).states, from, state),
            SlotMessage::Vote(phase, vote) => count_first(&mut self.round(phase).votes, from, vote),
        }
    }

    fn round(&mut self, phase: Phase) -> &mut Round {
        let index = phase as usize - 1;
        if self.rounds.len() <= index {
            self.rounds.resize(index + 1, Round::default());
        }
        &mut self.rounds[index]
    }
}

/// Of each sender the first message of a kind counts (rule 7).
fn count_first<T>(counted: &mut [Option<T>; MAX_NODES], from: usize, message: T) {
    if counted[from].is_none() || is_broken(Rule::FirstCounts) {
        counted[from] = Some(message);
    } else if is_broken(Rule::OnePerSender)
        && let Some(free) = counted.iter_mut().find(|place| place.is_none())
    {
        *free = Some(message);
    }
}
