//! Writing a commit: every rule on the crate's page is checked against what is stored before anything is made durable.

use std::collections::{BTreeSet, HashMap};

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, NodeId, Slot};
use rabia_bank_messages::peer::{State, Value, Vote};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use redb::{Database, Durability, WriteTransaction};

use crate::error::StoreError;
use crate::format::{self, Kind, LOG, META, META_COMPACTED, META_RESERVED, PAYLOAD_KEY, Part};
use crate::place::Place;
use crate::rows::Rows;
use crate::{PeerMemory, Record, Said};
use crate::{reader, recover};

/// One durable write: everything in it or nothing. The order inside of it does not matter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Commit {
    /// Raises `reserved`: the node will say nothing at or above this slot (rule 1).
    pub reserved: Option<Slot>,
    /// What the node binds itself to, below `reserved`.
    pub records: Vec<Record>,
    /// Payloads; those that records and decisions name must be here or in the store.
    pub payloads: Vec<(BatchId, Payload)>,
    /// Decided slots.
    pub decisions: Vec<(Slot, Value)>,
    /// What is to be remembered of peers.
    pub peers: Vec<(NodeId, PeerMemory)>,
    /// Everything up to this slot may go: the books cover it, durably. Less than was removed already is ignored.
    pub compact: Option<Slot>,
    /// The books stand after this slot since they came from a peer: what is decided or recorded up to it is removed, also
    /// where slots are missing below it.
    pub installed: Option<Slot>,
    /// How many promises each peer was heard to have kept, and this node has; less than the store knows is ignored.
    pub heard: Vec<(NodeId, u64)>,
    /// Members that have a new store: what is remembered of the former one goes, before `peers` and `heard` are written.
    pub replaced: Vec<NodeId>,
}

impl Commit {
    /// Adds what another commit holds, so that one write carries both.
    pub fn add(&mut self, other: Commit) {
        // Named one by one, so that none is forgotten.
        let Commit { reserved, records, payloads, decisions, peers, heard, replaced, installed, compact } = other;
        self.reserved = self.reserved.max(reserved);
        self.records.extend(records);
        self.payloads.extend(payloads);
        self.decisions.extend(decisions);
        self.peers.extend(peers);
        self.replaced.extend(replaced);
        self.installed = self.installed.max(installed);
        self.compact = self.compact.max(compact);
        if !heard.is_empty() {
            self.heard = heard;
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let Commit { reserved, records, payloads, decisions, peers, compact, installed, heard, replaced } = self;
        reserved.is_none()
            && compact.is_none()
            && installed.is_none()
            && records.is_empty()
            && payloads.is_empty()
            && decisions.is_empty()
            && peers.is_empty()
            && heard.is_empty()
            && replaced.is_empty()
    }
}

impl Said {
    /// The batch that it names.
    pub(crate) fn batch(&self) -> Option<BatchId> {
        match self {
            Said::State(State::One(id)) | Said::Vote(Vote::One(id)) => Some(*id),
            Said::State(State::Zero | State::Abstain) | Said::Vote(Vote::Zero | Vote::Undecided) => None,
        }
    }
}

/// What a commit may raise, and is kept at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    pub(crate) reserved: Slot,
    pub(crate) compacted: Slot,
}

/// The last decision of each batch that the log has: it may be decided again at any time, and its payload is needed as long as
/// one of the decisions is there.
pub(crate) type LastDecisions = HashMap<BatchId, Slot>;

/// Writes a commit in one transaction, and answers what the marks are afterwards. After an error `last` is not what
/// is on disk.
pub(crate) fn write(
    database: &Database,
    place: &Place,
    marks: Marks,
    last: &mut LastDecisions,
    commit: &Commit,
) -> Result<Marks, StoreError> {
    place.work();
    let mut transaction = database.begin_write().map_err(|e| place.redb(e))?;
    // redb's default, said here because everything rests on it.
    let immediate = transaction.set_durability(Durability::Immediate);
    assert!(immediate.is_ok(), "a commit could not be made durable at once: {immediate:?}");
    let mut writer = Writer::new(&transaction, place, last)?;
    let reserved = writer.reserve(marks.reserved, commit.reserved)?;
    // Payloads before what names them, decisions before the records that they make superfluous.
    writer.put_payloads(&commit.payloads)?;
    writer.put_decisions(&commit.decisions)?;
    writer.put_records(&commit.records, reserved)?;
    writer.forget_peers(&commit.replaced)?;
    writer.put_peers(&commit.peers)?;
    writer.put_heard(&commit.heard)?;
    let compacted = writer.compact(marks.compacted, commit.compact.max(commit.installed))?;
    drop(writer);
    transaction.commit().map_err(|e| place.redb(e))?;
    Ok(Marks { reserved, compacted })
}

/// Removes what is decided or recorded up to a slot. Answers up to where all is removed.
pub(crate) fn compact(
    transaction: &WriteTransaction,
    place: &Place,
    last: &mut LastDecisions,
    compacted: Slot,
    upto: Option<Slot>,
) -> Result<Slot, StoreError> {
    Writer::new(transaction, place, last)?.compact(compacted, upto)
}

/// Removes the payloads that neither a decision nor a record names.
pub(crate) fn remove_unnamed_payloads(transaction: &WriteTransaction, place: &Place) -> Result<(), StoreError> {
    let mut log = Rows::write(transaction, LOG, place)?;
    let mut named = BTreeSet::new();
    for row in log.part_from(&Part::Decision.begin())? {
        named.extend(reader::decision(&log, &row?)?.1);
    }
    for row in log.part_from(&Part::Record.begin())? {
        named.extend(recover::record(&log, &row?)?.said.batch());
    }
    let keys: BTreeSet<[u8; PAYLOAD_KEY]> = named.iter().map(format::payload_key).collect();
    log.retain(Part::Payload, |key| key.try_into().is_ok_and(|key: [u8; PAYLOAD_KEY]| keys.contains(&key)))
}

struct Writer<'t> {
    transaction: &'t WriteTransaction,
    place: &'t Place,
    log: Rows<'t, redb::Table<'t, &'static [u8], &'static [u8]>>,
    last: &'t mut LastDecisions,
}

impl<'t> Writer<'t> {
    fn new(
        transaction: &'t WriteTransaction,
        place: &'t Place,
        last: &'t mut LastDecisions,
    ) -> Result<Writer<'t>, StoreError> {
        Ok(Writer { transaction, place, log: Rows::write(transaction, LOG, place)?, last })
    }

    fn put_mark(&self, key: &[u8], slot: Slot) -> Result<(), StoreError> {
        Rows::write(self.transaction, META, self.place)?.put(key, &slot.to_be_bytes())
    }

    fn reserve(&self, old: Slot, new: Option<Slot>) -> Result<Slot, StoreError> {
        let Some(new) = new else { return Ok(old) };
        if new < old {
            return Err(self.place.contradiction(format_args!("reserved would go down from {old} to {new}")));
        }
        if new > old {
            self.put_mark(META_RESERVED, new)?;
        }
        Ok(new)
    }

    fn put_payloads(&mut self, payloads: &[(BatchId, Payload)]) -> Result<(), StoreError> {
        for (id, payload) in payloads {
            let key = format::payload_key(id);
            if self.log.contains(&key)? {
                continue;
            }
            if !payload.matches(id) {
                return Err(self.place.contradiction(format_args!("the payload of {id} does not have its digest")));
            }
            self.log.put(&key, payload.bytes())?;
        }
        Ok(())
    }

    fn put_decisions(&mut self, decisions: &[(Slot, Value)]) -> Result<(), StoreError> {
        for (slot, value) in decisions {
            let key = format::decision_key(*slot);
            match self.log.get_value::<Value>(&key)? {
                Some(old) if old == *value => continue,
                Some(old) => {
                    return Err(self.place.contradiction(format_args!(
                        "slot {slot} is decided on {old:?}, and would be decided on {value:?}"
                    )));
                }
                None => {}
            }
            if *slot == 0 {
                return Err(self.place.contradiction("slot 0 would be decided"));
            }
            if let Some(id) = value {
                self.check_held(id, format_args!("the decision of slot {slot}"))?;
                let last = self.last.entry(*id).or_default();
                *last = (*slot).max(*last);
            }
            self.log.put_value(&key, value)?;
            let (first, last) = format::record_keys(*slot);
            self.log.remove_range(&first, &last)?;
        }
        Ok(())
    }

    fn put_records(&mut self, records: &[Record], reserved: Slot) -> Result<(), StoreError> {
        for record in records {
            let Record { slot, phase, said } = record;
            if *slot == 0 || *phase == 0 || *slot >= reserved {
                return Err(self
                    .place
                    .contradiction(format_args!("reserved is {reserved}, so it can't hold {record:?}")));
            }
            if matches!(said, Said::State(State::Abstain)) || matches!(said, Said::State(_) if *phase == 1) {
                return Err(self
                    .place
                    .contradiction(format_args!("nobody is bound by {record:?}, and nothing reads it back")));
            }
            if self.log.contains(&format::decision_key(*slot))? {
                continue;
            }
            let key = format::record_key(*slot, *phase, Kind::of(said));
            let body = match said {
                Said::State(state) => format::encode(state),
                Said::Vote(vote) => format::encode(vote),
            };
            match self.log.get(&key)? {
                Some(old) if old == body => continue,
                Some(_) => {
                    return Err(self.place.contradiction(format_args!("another promise was made before {record:?}")));
                }
                None => {}
            }
            if let Some(id) = said.batch() {
                self.check_held(&id, format_args!("{record:?}"))?;
            }
            if is_broken(Rule::RecordsStay) {
                let (first, last) = format::record_keys(*slot);
                self.log.remove_range(&first, &last)?;
            }
            self.log.put(&key, &body)?;
        }
        Ok(())
    }

    fn check_held(&self, id: &BatchId, by: std::fmt::Arguments<'_>) -> Result<(), StoreError> {
        if self.log.contains(&format::payload_key(id))? {
            return Ok(());
        }
        Err(self.place.contradiction(format_args!("{by} names batch {id}, whose payload is not held")))
    }

    fn forget_peers(&mut self, replaced: &[NodeId]) -> Result<(), StoreError> {
        for node in replaced {
            self.log.remove(&format::node_key(Part::Peer, *node))?;
            self.log.remove(&format::node_key(Part::Heard, *node))?;
        }
        Ok(())
    }

    fn put_peers(&mut self, peers: &[(NodeId, PeerMemory)]) -> Result<(), StoreError> {
        for (node, new) in peers {
            let key = format::node_key(Part::Peer, *node);
            if let Some(old) = self.log.get_value::<PeerMemory>(&key)? {
                let older = new.starts < old.starts || new.starts == old.starts && new.run != old.run;
                if new.store == old.store && older {
                    return Err(self
                        .place
                        .contradiction(format_args!("node {node} is remembered as {old:?}, and would be as {new:?}")));
                }
            }
            self.log.put_value(&key, new)?;
        }
        Ok(())
    }

    fn put_heard(&mut self, heard: &[(NodeId, Slot)]) -> Result<(), StoreError> {
        for (node, slot) in heard {
            let key = format::node_key(Part::Heard, *node);
            if self.log.get_u64(&key)?.is_none_or(|old| old < *slot) {
                self.log.put(&key, &slot.to_be_bytes())?;
            }
        }
        Ok(())
    }

    /// Removes what is decided or recorded up to a slot, with the payloads that nothing above it names.
    fn compact(&mut self, old: Slot, new: Option<Slot>) -> Result<Slot, StoreError> {
        let Some(new) = new.filter(|new| *new > old) else { return Ok(old) };
        let mut removed = BTreeSet::new();
        for row in self.log.part_from(&Part::Decision.begin())? {
            let (slot, value) = reader::decision(&self.log, &row?)?;
            if slot > new {
                break;
            }
            let Some(id) = value else { continue };
            if self.last.get(&id).is_none_or(|last| *last <= new) {
                self.last.remove(&id);
                removed.insert(id);
            }
        }
        self.log.remove_range(&format::decision_key(0), &format::decision_key(new))?;
        let last = if is_broken(Rule::SnapshotKeepsAbove) { Slot::MAX } else { new };
        self.log.remove_range(&format::record_keys(0).0, &format::record_keys(last).1)?;
        for row in self.log.part_from(&Part::Record.begin())? {
            if let Some(id) = recover::record(&self.log, &row?)?.said.batch()
                && !is_broken(Rule::NamedPayloadsStay)
            {
                removed.remove(&id);
            }
        }
        for id in removed {
            self.log.remove(&format::payload_key(&id))?;
        }
        self.put_mark(META_COMPACTED, new)?;
        Ok(new)
    }
}
