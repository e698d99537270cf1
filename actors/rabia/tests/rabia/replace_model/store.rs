//! One store of a member: the real [`Agreement`] core on a disk, and what it has said in the slot that is looked at.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rabia_bank_messages::batch::{BatchBuilder, Payload};
use rabia_bank_messages::genesis::{Genesis, Replacement, Replacements};
use rabia_bank_messages::ids::{BatchId, ClusterId, Digest, NodeId, Slot, StoreId};
use rabia_bank_messages::peer::{Entry, PeerMessage, Value};
use rabia_bank_messages::promise::{Commit, Said};
use rabia_bank_rabia::agreement::{Agreement, Effect, Event, Notice, Ticket};
use rabia_bank_rabia::handshake::Handshake;
use rabia_bank_rabia::slot::SlotMessage;

use crate::scenarios::disk::Disk;

/// The four stores: of members 1 and 2, the old one of member 3, and the new one.
pub const STORES: usize = 4;
pub const OLD: usize = 2;
pub const NEW: usize = 3;

/// The slot in which the replacement is decided: the first one.
pub const REPLACED: Slot = 1;

pub fn member(store: usize) -> NodeId {
    NodeId::new(store.min(OLD) as u8 + 1).unwrap()
}

fn store_id(store: usize) -> StoreId {
    StoreId([store as u8 + 1; 16])
}

/// Something that is said in the slot that is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Word {
    Says(SlotMessage),
    Decides(Value),
}

/// What a store waits for in that slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awaits {
    /// Nothing was said yet.
    ToPropose,
    Proposals,
    States(u32),
    Votes(u32),
    /// A vote is on its way to the disk.
    VoteSaved,
    /// The state of a later phase is.
    StateSaved(u32),
    /// The outcome is known.
    Nothing,
}

/// What all stores are told when they are made.
#[derive(Clone)]
pub struct Setting {
    pub genesis: Genesis,
    /// The slot that is looked at.
    pub slot: Slot,
    pub phases: u32,
    pub batch: (BatchId, Payload),
    /// What was decided below that slot.
    pub log: Vec<(Slot, Option<(BatchId, Payload)>)>,
    /// The stores that know of the replacement from their configuration, and not from the log.
    pub configured: &'static [usize],
}

impl Setting {
    /// The cluster's id throws the coin.
    pub fn new(cluster: u8, window: u64, slot: Slot, phases: u32, configured: &'static [usize]) -> Setting {
        let stores = (0..=OLD).map(store_id).collect();
        let genesis = Genesis { window, owner_history: 1, ..Genesis::new(ClusterId([cluster; 16]), stores) };
        let batch = BatchBuilder::default().finish(member(0), 1, 1, 0);
        let payload = Payload::replacing(member(NEW), store_id(NEW), 0);
        let digest = Digest::of(payload.bytes());
        let replacing = (BatchId { origin: member(0), incarnation: 1, sequence: 2, digest }, payload);
        let by_log = |number| (number == REPLACED && configured.is_empty()).then(|| replacing.clone());
        let log = (1..slot).map(|number| (number, by_log(number))).collect();
        Setting { genesis, slot, phases, batch, log, configured }
    }

    fn replacements(&self, store: usize, disk: &Disk, decided: Slot) -> Replacements {
        let mut replacements = Replacements::default();
        let decided = disk.decisions.range(..=decided).filter_map(|(slot, value)| Some((*slot, (*value)?)));
        for (slot, id) in decided {
            if let Some((node, store)) = disk.payloads[&id].replacement().unwrap() {
                replacements.add(Replacement { slot, node, store });
            }
        }
        if self.configured.contains(&store) {
            replacements.add(Replacement { slot: 0, node: member(NEW), store: store_id(NEW) });
        }
        replacements
    }

    fn says(&self, word: Word) -> PeerMessage {
        let slot = self.slot;
        match word {
            Word::Says(SlotMessage::Proposal(value)) => PeerMessage::Proposal { slot, value, payload: None },
            Word::Says(SlotMessage::State(phase, state)) => PeerMessage::State { slot, phase, state },
            Word::Says(SlotMessage::Vote(phase, vote)) => PeerMessage::Vote { slot, phase, vote },
            Word::Decides(value) => PeerMessage::Decide { slot, value },
        }
    }
}

/// What a message says in this slot.
fn word(of: Slot, message: &PeerMessage) -> Option<Word> {
    let (slot, word) = match *message {
        PeerMessage::Proposal { slot, value, .. } => (slot, Word::Says(SlotMessage::Proposal(value))),
        PeerMessage::State { slot, phase, state } => (slot, Word::Says(SlotMessage::State(phase, state))),
        PeerMessage::Vote { slot, phase, vote } => (slot, Word::Says(SlotMessage::Vote(phase, vote))),
        PeerMessage::Decide { slot, value } => (slot, Word::Decides(value)),
        _ => return None,
    };
    (slot == of).then_some(word)
}

/// What runs.
#[derive(Clone, Debug)]
struct Running {
    agreement: Agreement,
    disk: Disk,
    writing: VecDeque<(Ticket, Commit)>,
}

#[derive(Clone, Debug)]
pub struct Store {
    number: usize,
    /// None once it is lost, or has done its part.
    running: Option<Running>,
    done: bool,
    /// Which of its stores member 3 speaks from here.
    pub linked: usize,
    pub said: BTreeSet<Word>,
    pub decided: Option<Value>,
    /// It has gone beyond the last phase.
    pub beyond: bool,
    pub restarted: bool,
}

impl Store {
    /// A store that was just made. The mark of rule 1 is on disk where it may speak.
    pub fn new(number: usize, setting: &Setting) -> Store {
        let (disk, said) = (Disk::new(), BTreeSet::new());
        let mut store = Store {
            number,
            running: None,
            done: false,
            linked: OLD,
            said,
            decided: None,
            beyond: false,
            restarted: false,
        };
        store.start(disk, setting);
        while store.writes() > 0 {
            store.synced(setting);
        }
        store
    }

    pub fn is_up(&self) -> bool {
        self.done || self.running.is_some()
    }

    /// Whether it is up and has something left to do.
    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    fn agreement(&self) -> Option<&Agreement> {
        self.running.as_ref().map(|running| &running.agreement)
    }

    fn log_hash(&self) -> Digest {
        self.agreement().map_or(Digest::ZERO, Agreement::log_hash)
    }

    /// How many writes are on their way to the disk.
    pub fn writes(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.writing.len())
    }

    pub fn frontier(&self) -> Slot {
        self.agreement().map_or(if self.done { Slot::MAX } else { 0 }, Agreement::frontier)
    }

    /// Whether it may propose: its mark is durable.
    pub fn may_propose(&self, slot: Slot) -> bool {
        self.agreement().is_some_and(|agreement| slot < agreement.reserved())
    }

    /// Whether it stands for its member in full, so that another store may be lost.
    pub fn is_current(&self) -> bool {
        self.done || self.agreement().is_some_and(Agreement::is_current)
    }

    /// Where it stands in the slot.
    pub fn awaits(&self, slot: Slot) -> Awaits {
        if self.decided.is_some() {
            return Awaits::Nothing;
        }
        let mut writing =
            self.running.iter().flat_map(|running| &running.writing).flat_map(|(_, commit)| &commit.records);
        if let Some(record) = writing.rfind(|record| record.slot == slot) {
            return match record.said {
                Said::Vote(_) => Awaits::VoteSaved,
                Said::State(_) => Awaits::StateSaved(record.phase),
            };
        }
        let said = self.said.iter().map(|word| match word {
            Word::Says(SlotMessage::Proposal(_)) => (0, false),
            Word::Says(SlotMessage::State(phase, _)) => (*phase, false),
            Word::Says(SlotMessage::Vote(phase, _)) => (*phase, true),
            Word::Decides(_) => (0, false),
        });
        match said.max() {
            None => Awaits::ToPropose,
            Some((0, _)) => Awaits::Proposals,
            Some((phase, false)) => Awaits::States(phase),
            Some((phase, true)) => Awaits::Votes(phase),
        }
    }

    /// What a start finds on this disk.
    fn start(&mut self, mut disk: Disk, setting: &Setting) {
        let recovered = disk.recover(store_id(self.number));
        let replacements = setting.replacements(self.number, &disk, recovered.decided);
        let (me, mut effects) = (member(self.number), Vec::new());
        let agreement = Agreement::new(setting.genesis.clone(), me, &recovered, &replacements, &mut effects);
        let current = agreement.stores().current(member(NEW));
        self.linked = if current == store_id(NEW) { NEW } else { OLD };
        self.decided = disk.decisions.get(&setting.slot).copied();
        self.running = Some(Running { agreement, disk, writing: VecDeque::new() });
        self.perform(effects, setting);
        let (id, payload) = setting.batch.clone();
        self.handle(Event::Hold(id, payload), setting);
        for peer in (0..=OLD).filter(|peer| member(*peer) != me) {
            self.handle(Event::LinkUp(member(peer), if peer == OLD { current } else { store_id(peer) }), setting);
        }
    }

    fn handle(&mut self, event: Event, setting: &Setting) {
        let Some(running) = &mut self.running else { return };
        let mut effects = Vec::new();
        running.agreement.handle(Duration::ZERO, event, &mut effects);
        self.perform(effects, setting);
    }

    fn perform(&mut self, effects: Vec<Effect>, setting: &Setting) {
        let Some(running) = &mut self.running else { return };
        for effect in effects {
            match effect {
                Effect::Save(ticket, commit) => {
                    self.beyond |= commit.records.iter().any(|record| record.phase > setting.phases);
                    running.writing.push_back((ticket, commit));
                }
                Effect::Pool(Notice::Decided(slot, value)) if slot == setting.slot => self.decided = Some(value),
                Effect::Broadcast(message) => self.said.extend(word(setting.slot, &message)),
                // Who is linked to whom and who learns what is tried anyhow; reads are not looked at.
                _ => {}
            }
        }
    }

    // ----- what can happen to it -----

    pub fn hears(&mut self, from: usize, word: Word, setting: &Setting) {
        self.handle(Event::Received(member(from), setting.says(word)), setting);
    }

    pub fn proposes(&mut self, value: Value, setting: &Setting) {
        self.handle(Event::Propose { slot: setting.slot, value, with_payload: false }, setting);
    }

    /// The first of its writes is durable.
    pub fn synced(&mut self, setting: &Setting) {
        let Some(running) = &mut self.running else { return };
        let Some((ticket, commit)) = running.writing.pop_front() else { return };
        running.disk.write(&commit);
        self.handle(Event::Saved(ticket), setting);
    }

    /// Where nobody restarts, all writes may be durable at once, and who knows the slot decided and all before has done
    /// its part.
    pub fn settles(&mut self, setting: &Setting) {
        while self.writes() > 0 {
            self.synced(setting);
        }
        if self.frontier() >= setting.slot {
            (self.running, self.done, self.linked) = (None, true, OLD);
        }
    }

    /// The next decision of the log comes to it, with all that are needed for the slot.
    pub fn learns(&mut self, setting: &Setting) {
        let Some((slot, batch)) = setting.log.get(self.frontier() as usize).cloned() else { return };
        let from = if self.number == 0 { member(1) } else { member(0) };
        let entries =
            PeerMessage::Entries { before: self.log_hash(), entries: vec![Entry { slot, batch }], decided: slot };
        self.handle(Event::Received(from, entries), setting);
    }

    /// It is linked to another store of member 3.
    pub fn meets(&mut self, store: usize, setting: &Setting) {
        self.linked = store;
        self.handle(Event::LinkUp(member(store), store_id(store)), setting);
    }

    /// Whether both take each other for what they are.
    pub fn may_meet(&self, other: &Store, setting: &Setting) -> bool {
        // Who has done its part is heard by all.
        !self.done && (other.done || self.lets_in(other, setting) && other.lets_in(self, setting))
    }

    fn lets_in(&self, other: &Store, setting: &Setting) -> bool {
        let (Some(here), Some(there)) = (self.agreement(), other.agreement()) else { return false };
        let handshake =
            |store: &Store| Handshake::new(setting.genesis.clone(), member(store.number), store_id(store.number));
        let hello = handshake(other).introduce(member(self.number), store_id(self.number), there);
        handshake(self).check(&hello, here).is_ok()
    }

    /// It is gone, with its disk.
    pub fn is_lost(&mut self) {
        (self.running, self.done, self.decided, self.beyond, self.linked) = (None, false, None, false, OLD);
    }

    /// It crashes and comes back; `written` of its writes are on disk.
    pub fn restarts(&mut self, written: usize, setting: &Setting) {
        let Some(running) = self.running.take() else { return };
        let Running { mut disk, writing, .. } = running;
        writing.iter().take(written).for_each(|(_, commit)| disk.write(commit));
        self.restarted = true;
        self.start(disk, setting);
    }
}
