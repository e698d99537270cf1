//! Linearizable reads without the log: rounds of questions, and when their answers are enough.
//!
//! A round asks all for the highest slot in which they have durably voted or which they know decided. Its reads wait for the highest
//! slot that was answered, or the own frontier if that is higher, and are served once it is applied, if the answers hold a quorum of
//! the members of the slot behind it.
//!
//! Any quorum's answers are enough, as if the others had been lost. So the lowest ones count that hold one, and answers are taken
//! until the reads are served: a member that names a slot which is far away keeps reads waiting only where a quorum can't do
//! without it.
//!
//! (What was acknowledged before a read, in a slot above its own, would be in the same epoch, where the f + 1 votes for it meet
//! the quorum. Or it is behind a change whose last slot the members of the slot behind the read's own decided, and then the read's
//! slot is not below that one.)

use std::time::Duration;

use rabia_bank_messages::ids::{NodeId, Slot, StoreId};
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_messages::promise::{Recovered, Said};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::setting::Setting;
use crate::stores::Stores;
use crate::words::Effect;

/// A round that has no quorum, or whose slot does not come, is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Rounds that wait for their slots. When there are so many, the reads of the newest join those of the next.
const MOST_ENDED: usize = 64;

/// Which node answered, from which store, and the highest slot that it knows of.
type Answer = (NodeId, StoreId, Slot);

/// A round of questions.
#[derive(Clone, Debug)]
struct Round {
    number: u64,
    /// The highest read that it serves.
    read: u64,
    asked: Duration,
    answers: Vec<Answer>,
}

impl Round {
    fn take(&mut self, answer: Answer) {
        let (node, store, _) = answer;
        self.answers.retain(|(of, from, _)| (*of, *from) != (node, store));
        self.answers.push(answer);
    }
}

/// A round with answers enough, as far as this node knows who is a member, which waits for its slot.
#[derive(Clone, Debug)]
struct EndedRound {
    round: Round,
    /// What this node had decided when the round ended: its slot is not below that.
    floor: Slot,
    /// The slot that its reads wait for.
    slot: Slot,
}

/// How far this node knows the log, where reads ask for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) frontier: Slot,
    pub(super) stores: &'a Stores,
    /// Whether this node answers in rounds: it knows all slots in which a former store of its own spoke.
    pub(super) answers: bool,
}

/// Reads that wait, and what this node answers to others'.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    setting: Setting,
    /// This run's number: rounds of another one are not confused with this one's.
    starts: u64,
    highest_vote: Slot,
    highest_decided: Slot,
    round: Option<Round>,
    ended: Vec<EndedRound>,
    rounds: u64,
    /// The highest read that no round serves yet.
    waiting: Option<u64>,
}

impl Reads {
    pub(super) fn new(setting: Setting, recovered: &Recovered) -> Reads {
        let votes = recovered.records.iter().filter(|record| matches!(record.said, Said::Vote(_)));
        let sparse = recovered.sparse.iter().map(|(slot, _)| *slot).filter(|_| !is_broken(Rule::SparseRead));
        Reads {
            setting,
            starts: recovered.starts,
            highest_vote: votes.map(|record| record.slot).max().unwrap_or(0),
            highest_decided: sparse.max().unwrap_or(0).max(recovered.decided),
            round: None,
            ended: Vec::new(),
            rounds: 0,
            waiting: None,
        }
    }

    // ----- what this node answers -----

    /// This node's vote in a slot is durable.
    pub(super) fn note_vote(&mut self, slot: Slot) {
        self.highest_vote = self.highest_vote.max(slot);
    }

    /// This node knows that a slot is decided.
    pub(super) fn note_decided(&mut self, slot: Slot) {
        self.highest_decided = self.highest_decided.max(slot);
    }

    /// The highest slot in which this node has durably voted or which it knows decided.
    pub(super) fn index(&self) -> Slot {
        let voted = if is_broken(Rule::ReadSeesVotes) { 0 } else { self.highest_vote };
        voted.max(self.highest_decided)
    }

    // ----- what it asks -----

    /// The question of the round that goes on.
    pub(super) fn question(&self) -> Option<PeerMessage> {
        self.round.as_ref().map(|round| PeerMessage::ReadIndex { starts: self.starts, round: round.number })
    }

    /// Somebody wants to read.
    pub(super) fn wait(&mut self, read: u64) {
        self.waiting = Some(read);
    }

    /// Begins a round for all reads that wait, unless one goes on.
    pub(super) fn start(&mut self, now: Duration, view: &View<'_>, effects: &mut Vec<Effect>) {
        if self.round.is_some() {
            return;
        }
        let Some(read) = self.waiting.take() else { return };
        if is_broken(Rule::ReadRound) {
            return effects.push(Effect::ReadAt { read, slot: 0 });
        }
        self.rounds += 1;
        self.round = Some(Round { number: self.rounds, read, asked: now, answers: Vec::new() });
        if self.setting.quorums.members() > 1 {
            effects.extend(self.question().map(Effect::Broadcast));
        }
        self.finish(now, view, effects);
    }

    /// Takes the answer to the round `echo`, a start counter and a number, of a peer that speaks from this store.
    pub(super) fn answer(
        &mut self,
        now: Duration,
        answer: Answer,
        echo: (u64, u64),
        view: &View<'_>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(round) = &mut self.round
            && (echo == (self.starts, round.number) || is_broken(Rule::ReadEcho))
        {
            round.take(answer);
            return self.finish(now, view, effects);
        }
        if let Some(at) = self.ended.iter().position(|ended| echo == (self.starts, ended.round.number)) {
            let ended = &mut self.ended[at];
            ended.round.take(answer);
            let lower = answer.2 < ended.slot;
            // What it had is enough, but with this it may be so at a lower slot.
            if lower && let Some(slot) = self.read_slot(&self.ended[at], view) {
                self.ended[at].slot = slot;
                self.release(now, view, effects);
            }
        }
    }

    /// Asks again where answers are missing, or where it may be that too high a slot was answered.
    pub(super) fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        // A later round serves the reads of those before it, too.
        let newest = self.round.as_mut().or(self.ended.last_mut().map(|ended| &mut ended.round));
        if let Some(round) = newest
            && now.saturating_sub(round.asked) >= ASK_AGAIN
        {
            round.asked = now;
            effects.push(Effect::Broadcast(PeerMessage::ReadIndex { starts: self.starts, round: round.number }));
        }
    }

    fn finish(&mut self, now: Duration, view: &View<'_>, effects: &mut Vec<Effect>) {
        let own = view.answers.then(|| (self.setting.me, self.setting.store, self.index()));
        let Some(mut round) = self.round.take() else { return };
        // A store that has become able to since the round began answers, too.
        if !round.answers.iter().any(|(node, ..)| *node == self.setting.me) {
            round.answers.extend(own);
        }
        let mut ended = EndedRound { round, floor: view.frontier, slot: 0 };
        let Some(slot) = self.read_slot(&ended, view) else {
            self.round = Some(ended.round);
            return;
        };
        ended.slot = slot;
        self.push_ended(ended);
        self.release(now, view, effects);
        self.start(now, view, effects);
    }

    /// Of two rounds that wait for the same slot, and of the last two where too many wait, the later serves the reads of both.
    fn push_ended(&mut self, ended: EndedRound) {
        let full = self.ended.len() >= MOST_ENDED;
        match self.ended.last_mut().filter(|last| last.slot == ended.slot || full) {
            // One that asked again may come behind a later one.
            Some(last) if last.round.read >= ended.round.read => {}
            Some(last) => *last = ended,
            None => self.ended.push(ended),
        }
    }

    /// The slot that the reads of a round wait for, if its answers are enough: the lowest that a quorum of them allows.
    fn read_slot(&self, ended: &EndedRound, view: &View<'_>) -> Option<Slot> {
        let applied = if is_broken(Rule::ReadQuorum) { 0 } else { ended.floor };
        let mut answers = ended.round.answers.clone();
        answers.sort_unstable_by_key(|(.., slot)| *slot);
        (1..=answers.len()).find_map(|count| {
            let slot = answers[count - 1].2.max(applied);
            self.holds_quorum(&answers[..count], slot, view).then_some(slot)
        })
    }

    /// Whether answers hold a quorum of the members of the slot behind this one, and this node's store is one of them. Where
    /// decisions are missing that say who they are, as far as they are known.
    fn holds_quorum(&self, answers: &[Answer], slot: Slot, view: &View<'_>) -> bool {
        let Setting { me, store, quorums, .. } = self.setting;
        let is_member = |node: NodeId, store: StoreId| view.stores.of(node, slot + 1) == store;
        let counts = |(node, store, _): &&Answer| is_member(*node, *store) || is_broken(Rule::ReadMembers);
        let enough = answers.iter().filter(counts).count() >= quorums.quorum();
        (enough || is_broken(Rule::ReadQuorum)) && is_member(me, store)
    }

    /// Lets those reads go whose slot is decided, with all before it. Only then it is known who the members of the slot behind it are:
    /// where the answers do not hold a quorum of them, more are asked.
    pub(super) fn release(&mut self, now: Duration, view: &View<'_>, effects: &mut Vec<Effect>) {
        let mut served = 0;
        for ended in std::mem::take(&mut self.ended) {
            if ended.slot > view.frontier {
                self.ended.push(ended);
                continue;
            }
            match self.read_slot(&ended, view) {
                Some(slot) if slot <= view.frontier => {
                    served = served.max(ended.round.read);
                    effects.push(Effect::ReadAt { read: ended.round.read, slot });
                }
                Some(slot) => self.ended.push(EndedRound { slot, ..ended }),
                None => self.ask_more(now, ended.round, effects),
            }
        }
        // Who asked before these rounds began is served, too.
        self.ended.retain(|ended| ended.round.read > served);
        self.start(now, view, effects);
    }

    /// The answers of a round are not enough after all.
    fn ask_more(&mut self, now: Duration, round: Round, effects: &mut Vec<Effect>) {
        match &mut self.round {
            // It began later, so it serves these reads, too.
            Some(later) => later.read = later.read.max(round.read),
            None => {
                self.round = Some(Round { asked: now, ..round });
                effects.extend(self.question().map(Effect::Broadcast));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::genesis::{Genesis, Replacements};
    use rabia_bank_messages::ids::ClusterId;
    use rabia_bank_messages::lineage::Secret;

    use super::*;

    fn store(number: u8) -> StoreId {
        StoreId([number; 16])
    }

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    /// Node 1 of three, in its second run, which knows this slot decided.
    fn reads(decided: Slot) -> (Reads, Stores) {
        let genesis = Genesis::new(ClusterId([1; 16]), (1..=3).map(store).collect());
        let first = Recovered::at_first_start(store(1), Secret([1; 32]));
        let recovered = Recovered { starts: 2, decided, ..first };
        let stores = Stores::new(&genesis, &Replacements::default());
        (Reads::new(Setting::new(&genesis, node(1), store(1)), &recovered), stores)
    }

    const NOW: Duration = Duration::ZERO;

    fn asks(round: u64) -> Effect {
        Effect::Broadcast(PeerMessage::ReadIndex { starts: 2, round })
    }

    #[test]
    fn a_read_waits_for_the_highest_slot_that_a_quorum_knows() {
        let (mut reads, stores) = reads(5);
        let view = |frontier| View { frontier, stores: &stores, answers: true };
        let mut effects = Vec::new();
        reads.wait(7);
        reads.start(NOW, &view(5), &mut effects);
        assert_eq!(effects, [asks(1)]);
        effects.clear();
        for echo in [(1, 1), (2, 2)] {
            reads.answer(NOW, (node(2), store(2), 6), echo, &view(5), &mut effects);
        }
        reads.answer(NOW, (node(2), store(9), 6), (2, 1), &view(5), &mut effects);
        assert_eq!(effects, [], "another run's, another round's, another store's");
        // Who asks now may see more than the round that goes on: it waits for the next.
        reads.wait(8);
        reads.answer(NOW, (node(2), store(2), 6), (2, 1), &view(5), &mut effects);
        assert_eq!(effects, [asks(2)]);
        effects.clear();
        reads.release(NOW, &view(6), &mut effects);
        assert_eq!(effects, [Effect::ReadAt { read: 7, slot: 6 }]);
    }

    #[test]
    fn a_round_is_asked_again_until_it_has_a_quorum() {
        let (mut reads, stores) = reads(5);
        let view = View { frontier: 5, stores: &stores, answers: false };
        let mut effects = Vec::new();
        reads.wait(1);
        reads.start(NOW, &view, &mut effects);
        reads.answer(NOW, (node(2), store(2), 5), (2, 1), &view, &mut effects);
        reads.tick(ASK_AGAIN, &mut effects);
        reads.tick(ASK_AGAIN, &mut effects);
        assert_eq!(effects, [asks(1), asks(1)], "this node does not answer, so one answer is missing");
        reads.answer(NOW, (node(3), store(3), 4), (2, 1), &view, &mut effects);
        assert_eq!(effects[2..], [Effect::ReadAt { read: 1, slot: 5 }]);
    }

    /// Node 1 of three has slot 5, and node 2 names one that does not come.
    fn misled() -> (Reads, Stores, Vec<Effect>) {
        let (mut reads, stores) = reads(5);
        let mut effects = Vec::new();
        let view = View { frontier: 5, stores: &stores, answers: true };
        reads.wait(1);
        reads.start(NOW, &view, &mut effects);
        reads.answer(NOW, (node(2), store(2), 900_000), (2, 1), &view, &mut effects);
        assert_eq!(effects, [asks(1)], "the read waits");
        effects.clear();
        (reads, stores, effects)
    }

    #[test]
    fn who_names_a_slot_that_does_not_come_keeps_no_read_waiting_where_others_answer() {
        let (mut reads, stores, mut effects) = misled();
        let view = View { frontier: 5, stores: &stores, answers: true };
        reads.tick(ASK_AGAIN, &mut effects);
        assert_eq!(effects, [asks(1)], "the answer of node 3 may have been lost");
        effects.clear();
        reads.answer(ASK_AGAIN, (node(3), store(3), 6), (2, 1), &view, &mut effects);
        assert_eq!(effects, []);
        reads.release(ASK_AGAIN, &View { frontier: 6, ..view }, &mut effects);
        assert_eq!(effects, [Effect::ReadAt { read: 1, slot: 6 }]);
    }

    #[test]
    fn a_later_round_serves_those_who_asked_before() {
        let (mut reads, stores, mut effects) = misled();
        let view = View { frontier: 5, stores: &stores, answers: true };
        reads.wait(2);
        reads.start(NOW, &view, &mut effects);
        reads.answer(NOW, (node(3), store(3), 5), (2, 2), &view, &mut effects);
        assert_eq!(effects, [asks(2), Effect::ReadAt { read: 2, slot: 5 }]);
        assert!(reads.ended.is_empty(), "{reads:?}");
    }

    #[test]
    fn rounds_that_wait_are_few_however_many_are_misled() {
        let (mut reads, stores, mut effects) = misled();
        let view = View { frontier: 5, stores: &stores, answers: true };
        for round in 2..1_000 {
            reads.wait(round);
            reads.start(NOW, &view, &mut effects);
            reads.answer(NOW, (node(2), store(2), 900_000 + round), (2, round), &view, &mut effects);
        }
        assert_eq!(reads.ended.len(), MOST_ENDED);
        effects.clear();
        reads.answer(NOW, (node(3), store(3), 5), (2, 999), &view, &mut effects);
        assert_eq!(effects, [Effect::ReadAt { read: 999, slot: 5 }]);
        assert!(reads.ended.is_empty());
    }

    #[test]
    fn votes_count_as_well_as_decisions() {
        let (mut reads, _) = reads(5);
        assert_eq!(reads.index(), 5);
        reads.note_vote(9);
        reads.note_decided(8);
        assert_eq!(reads.index(), 9);
    }
}
