//! Writing a commit: every rule on the crate's page is checked against what is stored before anything is made durable.

use std::collections::BTreeSet;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, NodeId, Slot};
use rabia_bank_messages::peer::{State, Value, Vote};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use redb::{Database, Durability, ReadableTable, WriteTransaction};

use crate::error::StoreError;
use crate::format::{self, DECISIONS, HEARD, Kind, META, META_COMPACTED, META_RESERVED, PAYLOADS, PEERS, RECORDS};
use crate::place::Place;
use crate::rows::Rows;
use crate::{PeerMemory, Record, Said};
use crate::{reader, recover};

/// Decisions above those that are removed that are looked at for a batch that was decided twice.
const TWICE_WITHIN: usize = 1024;

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

/// Writes a commit in one transaction, and answers what the marks are afterwards.
pub(crate) fn write(database: &Database, place: &Place, marks: Marks, commit: &Commit) -> Result<Marks, StoreError> {
    let mut transaction = database.begin_write().map_err(|e| place.redb(e))?;
    // redb's default, said here because everything rests on it.
    let immediate = transaction.set_durability(Durability::Immediate);
    assert!(immediate.is_ok(), "a commit could not be made durable at once: {immediate:?}");
    let writer = Writer { transaction: &transaction, place };
    let reserved = writer.reserve(marks.reserved, commit.reserved)?;
    // Payloads before what names them, decisions before the records that they make superfluous.
    writer.put_payloads(&commit.payloads)?;
    writer.put_decisions(&commit.decisions)?;
    writer.put_records(&commit.records, reserved)?;
    writer.forget_peers(&commit.replaced)?;
    writer.put_peers(&commit.peers)?;
    writer.put_heard(&commit.heard)?;
    let compacted = writer.compact(marks.compacted, commit.compact.max(commit.installed))?;
    transaction.commit().map_err(|e| place.redb(e))?;
    Ok(Marks { reserved, compacted })
}

/// Removes what is decided or recorded up to a slot. Answers up to where all is removed.
pub(crate) fn compact(
    transaction: &WriteTransaction,
    place: &Place,
    compacted: Slot,
    upto: Option<Slot>,
) -> Result<Slot, StoreError> {
    Writer { transaction, place }.compact(compacted, upto)
}

/// Removes the payloads that neither a decision nor a record names.
pub(crate) fn remove_unnamed_payloads(transaction: &WriteTransaction, place: &Place) -> Result<(), StoreError> {
    let mut named = BTreeSet::new();
    let decisions = Rows::write(transaction, DECISIONS, place)?;
    for row in decisions.from(&[])? {
        named.extend(reader::decision(&decisions, &row?)?.1);
    }
    let records = Rows::write(transaction, RECORDS, place)?;
    for row in records.from(&[])? {
        named.extend(recover::record(&records, &row?)?.said.batch());
    }
    let keys: BTreeSet<[u8; format::BATCH_KEY]> = named.iter().map(format::batch_key).collect();
    Rows::write(transaction, PAYLOADS, place)?
        .retain(|key| key.try_into().is_ok_and(|key: [u8; format::BATCH_KEY]| keys.contains(&key)))
}

struct Writer<'t> {
    transaction: &'t WriteTransaction,
    place: &'t Place,
}

type Table<'t> = Rows<'t, redb::Table<'t, &'static [u8], &'static [u8]>>;

impl<'t> Writer<'t> {
    fn table(&self, name: &'static str) -> Result<Table<'t>, StoreError> {
        Rows::write(self.transaction, name, self.place)
    }

    fn reserve(&self, old: Slot, new: Option<Slot>) -> Result<Slot, StoreError> {
        let Some(new) = new else { return Ok(old) };
        if new < old {
            return Err(self.place.contradiction(format_args!("reserved would go down from {old} to {new}")));
        }
        if new > old {
            self.table(META)?.put(META_RESERVED, &new.to_be_bytes())?;
        }
        Ok(new)
    }

    fn put_payloads(&self, payloads: &[(BatchId, Payload)]) -> Result<(), StoreError> {
        if payloads.is_empty() {
            return Ok(());
        }
        let mut rows = self.table(PAYLOADS)?;
        for (id, payload) in payloads {
            let key = format::batch_key(id);
            if rows.contains(&key)? {
                continue;
            }
            if !payload.matches(id) {
                return Err(self.place.contradiction(format_args!("the payload of {id} does not have its digest")));
            }
            rows.put(&key, payload.bytes())?;
        }
        Ok(())
    }

    fn put_decisions(&self, decisions: &[(Slot, Value)]) -> Result<(), StoreError> {
        if decisions.is_empty() {
            return Ok(());
        }
        let (mut rows, mut records) = (self.table(DECISIONS)?, self.table(RECORDS)?);
        let payloads = self.table(PAYLOADS)?;
        for (slot, value) in decisions {
            let key = format::slot_key(*slot);
            match rows.get_value::<Value>(&key)? {
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
                self.check_held(&payloads, id, format_args!("the decision of slot {slot}"))?;
            }
            rows.put_value(&key, value)?;
            let (first, last) = format::record_keys(*slot);
            records.remove_range(&first, &last)?;
        }
        Ok(())
    }

    fn put_records(&self, records: &[Record], reserved: Slot) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut rows = self.table(RECORDS)?;
        let (decisions, payloads) = (self.table(DECISIONS)?, self.table(PAYLOADS)?);
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
            if decisions.contains(&format::slot_key(*slot))? {
                continue;
            }
            let key = format::record_key(*slot, *phase, Kind::of(said));
            let body = match said {
                Said::State(state) => format::encode(state),
                Said::Vote(vote) => format::encode(vote),
            };
            match rows.get(&key)? {
                Some(old) if old == body => continue,
                Some(_) => {
                    return Err(self.place.contradiction(format_args!("another promise was made before {record:?}")));
                }
                None => {}
            }
            if let Some(id) = said.batch() {
                self.check_held(&payloads, &id, format_args!("{record:?}"))?;
            }
            if is_broken(Rule::RecordsStay) {
                let (first, last) = format::record_keys(*slot);
                rows.remove_range(&first, &last)?;
            }
            rows.put(&key, &body)?;
        }
        Ok(())
    }

    fn check_held<T: ReadableTable<&'static [u8], &'static [u8]>>(
        &self,
        payloads: &Rows<'_, T>,
        id: &BatchId,
        by: std::fmt::Arguments<'_>,
    ) -> Result<(), StoreError> {
        if payloads.contains(&format::batch_key(id))? {
            return Ok(());
        }
        Err(self.place.contradiction(format_args!("{by} names batch {id}, whose payload is not held")))
    }

    fn forget_peers(&self, replaced: &[NodeId]) -> Result<(), StoreError> {
        for node in replaced {
            let key = format::node_key(*node);
            self.table(PEERS)?.remove(&key)?;
            self.table(HEARD)?.remove(&key)?;
        }
        Ok(())
    }

    fn put_peers(&self, peers: &[(NodeId, PeerMemory)]) -> Result<(), StoreError> {
        if peers.is_empty() {
            return Ok(());
        }
        let mut rows = self.table(PEERS)?;
        for (node, new) in peers {
            let key = format::node_key(*node);
            if let Some(old) = rows.get_value::<PeerMemory>(&key)? {
                let older = new.starts < old.starts || new.starts == old.starts && new.run != old.run;
                if new.store == old.store && older {
                    return Err(self
                        .place
                        .contradiction(format_args!("node {node} is remembered as {old:?}, and would be as {new:?}")));
                }
            }
            rows.put_value(&key, new)?;
        }
        Ok(())
    }

    fn put_heard(&self, heard: &[(NodeId, Slot)]) -> Result<(), StoreError> {
        if heard.is_empty() {
            return Ok(());
        }
        let mut rows = self.table(HEARD)?;
        for (node, slot) in heard {
            let key = format::node_key(*node);
            if rows.get_u64(&key)?.is_none_or(|old| old < *slot) {
                rows.put(&key, &slot.to_be_bytes())?;
            }
        }
        Ok(())
    }

    /// Removes what is decided or recorded up to a slot, with the payloads that nothing above it names.
    fn compact(&self, old: Slot, new: Option<Slot>) -> Result<Slot, StoreError> {
        let Some(new) = new.filter(|new| *new > old) else { return Ok(old) };
        let (mut decisions, mut records) = (self.table(DECISIONS)?, self.table(RECORDS)?);
        let mut removed = BTreeSet::new();
        for row in decisions.from(&[])? {
            let (slot, value) = reader::decision(&decisions, &row?)?;
            if slot > new {
                break;
            }
            removed.extend(value);
        }
        decisions.remove_range(&format::slot_key(0), &format::slot_key(new))?;
        let last = if is_broken(Rule::SnapshotKeepsAbove) { Slot::MAX } else { new };
        records.remove_range(&format::record_keys(0).0, &format::record_keys(last).1)?;
        // A batch that is decided twice is so within two windows, and a window is much shorter than this.
        for row in decisions.from(&[])?.take(TWICE_WITHIN) {
            if let Some(id) = reader::decision(&decisions, &row?)?.1 {
                removed.remove(&id);
            }
        }
        for row in records.from(&[])? {
            if let Some(id) = recover::record(&records, &row?)?.said.batch() {
                removed.remove(&id);
            }
        }
        let mut payloads = self.table(PAYLOADS)?;
        for id in removed {
            payloads.remove(&format::batch_key(&id))?;
        }
        self.table(META)?.put(META_COMPACTED, &new.to_be_bytes())?;
        Ok(new)
    }
}
