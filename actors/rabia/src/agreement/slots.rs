//! The slots: the end of the decided log, what is in agreement behind it, and what was decided lately.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Phase, Slot as SlotNumber};
use rabia_bank_messages::peer::{PeerMessage, Value};
use rabia_bank_messages::promise::{Recovered, Said};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::setting::Setting;
use crate::coin::coin;
use crate::hashes::Hashes;
use crate::slot::{Slot, SlotMessage, Stage};
use crate::words::{Effect, Notice};

/// In windows: messages for slots beyond this are dropped, the sender is far ahead.
pub const AHEAD: u64 = 4;
/// A message of a phase so far above the own one is dropped: the peer says it again. So nobody makes a slot large.
const PHASES_AHEAD: Phase = 16;
/// Decisions that are kept in memory, to answer late messages.
const RECENT: usize = 4_096;
/// A message for a slot that was decided so recently crossed our decision on the wire: no need to answer it.
const CROSSED: Duration = Duration::from_millis(50);

/// A decided slot that is kept to answer late messages.
#[derive(Clone, Debug)]
struct Decided {
    value: Value,
    at: Duration,
}

/// What became of a message for a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// It is of a phase too far ahead: its sender says it again.
    Dropped,
    /// This node has spoken in the slot.
    Spoken,
    /// This node has not spoken there yet.
    Silent {
        /// Whether it is a proposal that counts, so that this node may propose the same.
        is_proposal: bool,
    },
}

/// What is known of a decided slot that somebody still speaks in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Late {
    /// The message crossed the decision on the wire.
    Crossed,
    /// It was decided on this.
    Decided(Value),
    /// That was long ago.
    Forgotten,
}

/// All slots of which something is known in memory.
///
/// Invariants:
/// - `frontier` is the end of the gapless decided log, and `hashes` are of the log up to it.
/// - `open` holds slots above `frontier` only.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    setting: Setting,
    frontier: SlotNumber,
    hashes: Hashes,
    open: BTreeMap<SlotNumber, Slot>,
    /// Slots of a former run that have to be spoken in once the window reaches them.
    unsaid: VecDeque<SlotNumber>,
    recent: BTreeMap<SlotNumber, Decided>,
    /// When the frontier last moved.
    progressed: Duration,
}

impl Slots {
    pub(super) fn new(setting: Setting, recovered: &Recovered) -> Slots {
        Slots {
            setting,
            frontier: recovered.decided,
            hashes: Hashes::new(recovered.decided, &recovered.hashes, recovered.kept),
            open: BTreeMap::new(),
            unsaid: VecDeque::new(),
            recent: BTreeMap::new(),
            progressed: Duration::ZERO,
        }
    }

    /// Rules 1 and 11: every undecided slot below the mark is one in which this node may have spoken, where its store speaks.
    pub(super) fn restore(&mut self, recovered: &Recovered, speaks: &Range<SlotNumber>, effects: &mut Vec<Effect>) {
        let Setting { me, quorums, .. } = self.setting;
        let mut records: BTreeMap<SlotNumber, Vec<(Phase, Said)>> = BTreeMap::new();
        for record in &recovered.records {
            assert!(record.slot < recovered.reserved, "{record:?} at or above the mark {}", recovered.reserved);
            records.entry(record.slot).or_default().push((record.phase, record.said));
        }
        for slot in (self.frontier + 1..recovered.reserved).filter(|slot| speaks.contains(slot)) {
            let said = records.remove(&slot).unwrap_or_default();
            if said.is_empty() && is_broken(Rule::TaintRemembered) {
                continue;
            }
            self.open.insert(slot, Slot::restored(me, quorums, &said));
            self.unsaid.push_back(slot);
            effects.push(Effect::Pool(Notice::Spoken(slot)));
        }
        for (slot, value) in &recovered.sparse {
            self.open(*slot).adopt(*value);
            effects.push(Effect::Pool(Notice::Decided(*slot, *value)));
        }
    }

    // ----- the window -----

    /// The end of the gapless decided log.
    pub(super) fn frontier(&self) -> SlotNumber {
        self.frontier
    }

    /// The hashes of the log up to the frontier.
    pub(super) fn hashes(&self) -> &Hashes {
        &self.hashes
    }

    /// When the frontier last moved.
    pub(super) fn progressed(&self) -> Duration {
        self.progressed
    }

    /// The last slot of the window.
    pub(super) fn window_end(&self) -> SlotNumber {
        self.frontier + self.setting.window
    }

    /// The last slot that this node may speak in.
    pub(super) fn reach(&self) -> SlotNumber {
        let windows = if is_broken(Rule::Window) { 2 } else { 1 };
        self.frontier + windows * self.setting.window
    }

    /// The last slot that messages are taken for.
    pub(super) fn horizon(&self) -> SlotNumber {
        self.frontier + AHEAD * self.setting.window
    }

    /// Whether the slot is undecided, or not delivered, and messages are taken for it.
    pub(super) fn is_ahead(&self, slot: SlotNumber) -> bool {
        slot > self.frontier && slot <= self.horizon()
    }

    /// The common coin of a slot.
    pub(super) fn coin(&self, slot: SlotNumber) -> impl Fn(Phase) -> bool + use<> {
        let Setting { me, cluster, .. } = self.setting;
        let own = is_broken(Rule::CommonCoin) && me.index() == 0;
        move |phase| coin(cluster, slot, phase) != own
    }

    /// The slots that came into the window when the frontier moved from here, as far as anything is known of them.
    pub(super) fn entered_since(&self, before: SlotNumber) -> Vec<SlotNumber> {
        let old_end = before + self.setting.window;
        self.open.range(old_end + 1..=self.window_end()).map(|(slot, _)| *slot).collect()
    }

    /// The slots of the window of which anything is known.
    pub(super) fn in_window(&self) -> impl Iterator<Item = SlotNumber> + '_ {
        self.open.range(..=self.window_end()).map(|(slot, _)| *slot)
    }

    // ----- slots in agreement -----

    pub(super) fn get(&self, slot: SlotNumber) -> Option<&Slot> {
        self.open.get(&slot)
    }

    pub(super) fn get_mut(&mut self, slot: SlotNumber) -> Option<&mut Slot> {
        self.open.get_mut(&slot)
    }

    /// The slot, which must be above the frontier, whether or not anything was known of it.
    pub(super) fn open(&mut self, slot: SlotNumber) -> &mut Slot {
        let Setting { me, quorums, .. } = self.setting;
        self.open.entry(slot).or_insert_with(|| Slot::new(me, quorums))
    }

    /// How many slots are in agreement and undecided.
    pub(super) fn undecided(&self) -> usize {
        self.open.values().filter(|slot| !slot.is_silent() && !matches!(slot.stage(), Stage::Decided(_))).count()
    }

    /// Takes what a peer says in a slot above the frontier. `held` tells whether the payload of the batch that it names is held.
    pub(super) fn receive(&mut self, from: NodeId, slot: SlotNumber, message: SlotMessage, held: bool) -> Taken {
        let open = self.open(slot);
        if let SlotMessage::State(phase, _) | SlotMessage::Vote(phase, _) = message
            && phase > open.phase() + PHASES_AHEAD
        {
            return Taken::Dropped;
        }
        open.receive(from, message, held);
        if !open.is_silent() {
            return Taken::Spoken;
        }
        let is_proposal = match message {
            SlotMessage::Proposal(value) => open.proposal(from) == Some(value),
            SlotMessage::State(..) | SlotMessage::Vote(..) => false,
        };
        Taken::Silent { is_proposal }
    }

    /// All that this node has said in a slot.
    pub(super) fn said(&self, slot: SlotNumber) -> impl Iterator<Item = PeerMessage> {
        let said = self.open.get(&slot).map(Slot::said).unwrap_or_default();
        said.into_iter().map(move |message| peer_message(slot, message, None))
    }

    /// The next slot of a former run that has come into the window.
    pub(super) fn pop_unsaid(&mut self) -> Option<SlotNumber> {
        let end = self.window_end();
        self.unsaid.pop_front_if(|slot| *slot <= end)
    }

    /// This node's store says nothing from this slot on.
    pub(super) fn fall_silent(&mut self, end: SlotNumber) {
        self.unsaid.retain(|slot| *slot < end);
        self.open.retain(|slot, open| *slot < end || matches!(open.stage(), Stage::Decided(_)));
    }

    // ----- their payloads -----

    /// Batches whose payload some slot needs.
    pub(super) fn needed(&self) -> impl Iterator<Item = &BatchId> {
        self.open.values().flat_map(Slot::needed)
    }

    /// The slots that need this payload.
    pub(super) fn waiting_for(&self, id: &BatchId) -> Vec<SlotNumber> {
        let waits = |open: &Slot| open.needed().any(|needed| needed == id);
        self.open.iter().filter(|(_, open)| waits(open)).map(|(slot, _)| *slot).collect()
    }

    /// Whether a message that counts in some slot names this batch.
    pub(super) fn rests_on(&self, id: &BatchId) -> bool {
        self.open.values().any(|open| open.rests_on(id))
    }

    /// Whether some slot rests on this batch, or waits for its payload.
    pub(super) fn is_of_use(&self, id: &BatchId) -> bool {
        self.open.values().any(|open| open.rests_on(id) || open.needed().any(|needed| needed == id))
    }

    /// Whether a slot that is not delivered yet was decided on this batch.
    pub(super) fn is_undelivered(&self, id: &BatchId) -> bool {
        self.open.values().any(|open| open.stage() == Stage::Decided(Some(*id)))
    }

    // ----- decided slots -----

    /// Whether this slot is decided, as far as this node knows.
    pub(super) fn is_decided(&self, slot: SlotNumber) -> bool {
        slot <= self.frontier || self.open.get(&slot).is_some_and(|open| matches!(open.stage(), Stage::Decided(_)))
    }

    /// Whether who says that this slot was decided on this contradicts what is known here.
    pub(super) fn contradicts(&self, slot: SlotNumber, value: Value) -> bool {
        let here = match self.open.get(&slot).map(Slot::stage) {
            Some(Stage::Decided(here)) => Some(here),
            _ => self.recent.get(&slot).map(|decided| decided.value),
        };
        here.is_some_and(|here| here != value)
    }

    /// What is known of a decided slot.
    pub(super) fn late(&self, now: Duration, slot: SlotNumber) -> Late {
        match self.recent.get(&slot) {
            Some(decided) if now.saturating_sub(decided.at) < CROSSED => Late::Crossed,
            Some(decided) => Late::Decided(decided.value),
            None => Late::Forgotten,
        }
    }

    /// A slot was decided, in order or not.
    pub(super) fn note_decided(&mut self, now: Duration, slot: SlotNumber, value: Value) {
        self.recent.insert(slot, Decided { value, at: now });
    }

    /// What the slot behind the frontier was decided on, if it was.
    pub(super) fn next_decision(&self) -> Option<Value> {
        match self.open.get(&(self.frontier + 1))?.stage() {
            Stage::Decided(value) => Some(value),
            _ => None,
        }
    }

    /// The slot behind the frontier was decided on this: it is delivered.
    pub(super) fn step(&mut self, now: Duration, value: Value) -> SlotNumber {
        self.frontier += 1;
        self.progressed = now;
        self.open.remove(&self.frontier);
        self.hashes.push(&value);
        self.recent.entry(self.frontier).or_insert(Decided { value, at: now });
        while self.recent.len() > RECENT {
            self.recent.pop_first();
        }
        self.frontier
    }

    /// Goes on behind a snapshot. Only what lies at or below it is forgotten (rule 10).
    pub(super) fn skip_to(&mut self, now: Duration, slot: SlotNumber, hash: Digest) {
        assert!(slot > self.frontier, "a snapshot at slot {slot} is not above the frontier {}", self.frontier);
        self.frontier = slot;
        self.progressed = now;
        self.hashes.restart(slot, hash);
        self.open = self.open.split_off(&(slot + 1));
        self.unsaid.retain(|unsaid| *unsaid > slot);
        self.recent.retain(|recent, _| *recent > slot);
    }
}

/// What a slot says, as it is said to peers.
pub(super) fn peer_message(slot: SlotNumber, message: SlotMessage, payload: Option<Payload>) -> PeerMessage {
    match message {
        SlotMessage::Proposal(value) => PeerMessage::Proposal { slot, value, payload },
        SlotMessage::State(phase, state) => PeerMessage::State { slot, phase, state },
        SlotMessage::Vote(phase, vote) => PeerMessage::Vote { slot, phase, vote },
    }
}
