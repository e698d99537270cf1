//! Writing a commit: every rule on the crate's page is checked against what is stored before anything is made durable.

use std::collections::{BTreeSet, HashMap};

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot, StoreId, Value};
use rabia_bank_messages::lineage::{MAX_PROMISES, Memory, log_hash};
use rabia_bank_messages::msgpack;
use rabia_bank_messages::peer::DIGEST_INTERVAL;
use rabia_bank_messages::promise::{Commit, Record, Said, State};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use redb::{Database, Durability, WriteTransaction};

use super::rows::{
    self, Kind, LOG, META_COMPACTED, META_RESERVED, PAYLOAD_KEY, PROMISED_KEY, Part, Remembered, encode_compacted,
};
use crate::error::StoreError;
use crate::file::path::StorePath;
use crate::file::rows::{Rows, WriteRows};
use crate::identity::META;

/// What a commit may raise, and is kept at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    pub(crate) reserved: Slot,
    pub(crate) compacted: Slot,
    /// The end of the log without gaps, and the hash there; none as long as it is only known how far the books are.
    pub(crate) head: (Slot, Option<Digest>),
}

/// The last decision of each batch that the log has: it may be decided again at any time, and its payload is needed as long as
/// one of the decisions is there.
pub(crate) type LastDecisions = HashMap<BatchId, Slot>;

/// Writes a commit in one transaction, and answers what the marks are afterwards. After an error `last` is not what
/// is on disk.
pub(crate) fn write(
    database: &Database,
    place: &StorePath,
    marks: Marks,
    last: &mut LastDecisions,
    commit: &Commit,
) -> Result<Marks, StoreError> {
    place.work();
    let mut transaction = database.begin_write().map_err(|e| place.redb(e))?;
    // redb's default, said here because everything rests on it.
    let immediate = transaction.set_durability(Durability::Immediate);
    assert!(immediate.is_ok(), "a commit could not be made durable at once: {immediate:?}");
    let mut writer = Writer::new(&transaction, place, last, marks.head)?;
    let reserved = writer.reserve(marks.reserved, commit.reserved)?;
    // Payloads before what names them, decisions before the records that they make superfluous.
    writer.put_payloads(&commit.payloads)?;
    writer.put_decisions(&commit.decisions)?;
    writer.put_records(&commit.records, reserved)?;
    writer.forget_peers(&commit.forget)?;
    writer.put_peers(&commit.peers)?;
    writer.put_promised(commit.promised)?;
    writer.forget_runs(commit.forget_runs)?;
    let compact = commit.compact.map(|upto| upto.min(writer.head.0));
    let compacted = match commit.installed {
        Some((slot, hash)) => writer.install(marks.compacted, slot.max(compact.unwrap_or(0)), slot, hash)?,
        None => writer.compact(marks.compacted, compact)?,
    };
    let head = writer.head;
    drop(writer);
    transaction.commit().map_err(|e| place.redb(e))?;
    Ok(Marks { reserved, compacted, head })
}

/// Makes `hash` that of the log at `base`, up to where everything is removed, and all that follows from it. Answers the end of the
/// log then.
pub(crate) fn put_base_hash(
    database: &Database,
    place: &StorePath,
    base: Slot,
    hash: Digest,
) -> Result<(Slot, Option<Digest>), StoreError> {
    let transaction = database.begin_write().map_err(|e| place.redb(e))?;
    let mut last = LastDecisions::new();
    let mut writer = Writer::new(&transaction, place, &mut last, (base, Some(hash)))?;
    writer.put_compacted(base, Some(hash))?;
    writer.move_head()?;
    let head = writer.head;
    drop(writer);
    transaction.commit().map_err(|e| place.redb(e))?;
    Ok(head)
}

/// Removes what is decided or recorded up to a slot. Answers up to where all is removed.
pub(crate) fn compact(
    transaction: &WriteTransaction,
    place: &StorePath,
    last: &mut LastDecisions,
    compacted: Slot,
    upto: Option<Slot>,
) -> Result<Slot, StoreError> {
    let head = (upto.unwrap_or(0), None);
    Writer::new(transaction, place, last, head)?.compact(compacted, upto)
}

/// Removes the payloads that neither a decision nor a record names.
pub(crate) fn remove_unnamed_payloads(transaction: &WriteTransaction, place: &StorePath) -> Result<(), StoreError> {
    let mut log = Rows::write(transaction, LOG, place)?;
    let mut named = BTreeSet::new();
    for row in log.alike_from(&Part::Decision.begin())? {
        named.extend(rows::decision(&log, &row?)?.value);
    }
    for row in log.alike_from(&Part::Record.begin())? {
        named.extend(rows::record(&log, &row?)?.said.batch());
    }
    let keys: BTreeSet<[u8; PAYLOAD_KEY]> = named.iter().map(rows::payload_key).collect();
    log.retain(Part::Payload as u8, |key| key.try_into().is_ok_and(|key: [u8; PAYLOAD_KEY]| keys.contains(&key)))
}

struct Writer<'t> {
    transaction: &'t WriteTransaction,
    place: &'t StorePath,
    log: WriteRows<'t, 't>,
    last: &'t mut LastDecisions,
    head: (Slot, Option<Digest>),
}

impl<'t> Writer<'t> {
    fn new(
        transaction: &'t WriteTransaction,
        place: &'t StorePath,
        last: &'t mut LastDecisions,
        head: (Slot, Option<Digest>),
    ) -> Result<Writer<'t>, StoreError> {
        Ok(Writer { transaction, place, log: Rows::write(transaction, LOG, place)?, last, head })
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
            let key = rows::payload_key(id);
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
            let key = rows::decision_key(*slot);
            match self.log.get_value::<(Value, Option<Digest>)>(&key)? {
                Some((old, _)) if old == *value => continue,
                Some((old, _)) => {
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
            self.put_decision(*slot, value)?;
            let (first, last) = rows::record_keys(*slot);
            self.log.remove_range(&first, &last)?;
        }
        self.move_head()
    }

    /// With the hash of the log up to this slot, if all before it are known.
    fn put_decision(&mut self, slot: Slot, value: &Value) -> Result<(), StoreError> {
        let (end, before) = self.head;
        let hash = before.filter(|_| slot == end + 1).map(|before| log_hash(before, slot, value));
        self.log.put_value(&rows::decision_key(slot), &(value, hash))?;
        if let Some(hash) = hash {
            self.head = (slot, Some(hash));
            if slot.is_multiple_of(DIGEST_INTERVAL) {
                self.log.put(&rows::number_key(Part::Hash, slot), &hash.0)?;
            }
        }
        Ok(())
    }

    /// Gives those decisions their hashes to which a gap was filled.
    fn move_head(&mut self) -> Result<(), StoreError> {
        while self.head.1.is_some() {
            let slot = self.head.0 + 1;
            match self.log.get_value::<(Value, Option<Digest>)>(&rows::decision_key(slot))? {
                Some((value, _)) => self.put_decision(slot, &value)?,
                None => break,
            }
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
            if self.log.contains(&rows::decision_key(*slot))? {
                continue;
            }
            let key = rows::record_key(*slot, *phase, Kind::of(said));
            let body = match said {
                Said::State(state) => msgpack::encode(state),
                Said::Vote(vote) => msgpack::encode(vote),
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
                let (first, last) = rows::record_keys(*slot);
                self.log.remove_range(&first, &last)?;
            }
            self.log.put(&key, &body)?;
        }
        Ok(())
    }

    fn check_held(&self, id: &BatchId, by: std::fmt::Arguments<'_>) -> Result<(), StoreError> {
        if self.log.contains(&rows::payload_key(id))? {
            return Ok(());
        }
        Err(self.place.contradiction(format_args!("{by} names batch {id}, whose payload is not held")))
    }

    fn forget_peers(&mut self, stores: &[(NodeId, StoreId)]) -> Result<(), StoreError> {
        stores.iter().try_for_each(|(node, store)| self.log.remove(&rows::peer_key(*node, *store)))
    }

    fn put_peers(&mut self, peers: &[(NodeId, Memory)]) -> Result<(), StoreError> {
        for (node, Memory { store, run, promises, proof }) in peers {
            let (key, new) = (rows::peer_key(*node, *store), Remembered(*run, *promises, *proof));
            let old = self.log.get_value::<Remembered>(&key)?;
            if old.as_ref().is_none_or(|old| old.1 <= *promises && *old != new) {
                self.log.put_value(&key, &new)?;
            }
        }
        Ok(())
    }

    fn put_promised(&mut self, promised: Option<u64>) -> Result<(), StoreError> {
        let Some(promised) = promised else { return Ok(()) };
        let old = self.log.get_u64(&PROMISED_KEY)?.unwrap_or(0);
        if promised < old || promised > MAX_PROMISES {
            return Err(self.place.contradiction(format_args!("{old} promises were kept, and would be {promised}")));
        }
        self.log.put(&PROMISED_KEY, &promised.to_be_bytes())
    }

    fn forget_runs(&mut self, before: Option<u64>) -> Result<(), StoreError> {
        let Some(last) = before.and_then(|start| start.checked_sub(1)) else { return Ok(()) };
        self.log.remove_range(&rows::number_key(Part::Run, 0), &rows::number_key(Part::Run, last))
    }

    fn put_compacted(&self, slot: Slot, hash: Option<Digest>) -> Result<(), StoreError> {
        Rows::write(self.transaction, META, self.place)?.put(META_COMPACTED, &encode_compacted(slot, hash))
    }

    /// Goes on behind books that came from a peer. All up to the slot `upto` may go.
    fn install(&mut self, old: Slot, upto: Slot, slot: Slot, hash: Digest) -> Result<Slot, StoreError> {
        if self.head.0 <= slot || self.head.1.is_none() {
            self.head = (slot, Some(hash));
            self.move_head()?;
        }
        let compacted = self.compact(old, Some(upto))?;
        if compacted == slot {
            self.put_compacted(slot, Some(hash))?;
        }
        Ok(compacted)
    }

    /// Removes what is decided or recorded up to a slot, with the payloads that nothing above it names.
    fn compact(&mut self, old: Slot, new: Option<Slot>) -> Result<Slot, StoreError> {
        let Some(new) = new.filter(|new| *new > old) else { return Ok(old) };
        let mut removed = BTreeSet::new();
        let mut hash = if self.head.0 == new { self.head.1 } else { None };
        for row in self.log.alike_from(&Part::Decision.begin())? {
            let decision = rows::decision(&self.log, &row?)?;
            if decision.slot > new {
                break;
            }
            if decision.slot == new {
                hash = hash.or(decision.hash);
            }
            let Some(id) = decision.value else { continue };
            if self.last.get(&id).is_none_or(|last| *last <= new) {
                self.last.remove(&id);
                removed.insert(id);
            }
        }
        self.log.remove_range(&rows::decision_key(0), &rows::decision_key(new))?;
        let last = if is_broken(Rule::SnapshotKeepsAbove) { Slot::MAX } else { new };
        self.log.remove_range(&rows::record_keys(0).0, &rows::record_keys(last).1)?;
        for row in self.log.alike_from(&Part::Record.begin())? {
            if let Some(id) = rows::record(&self.log, &row?)?.said.batch()
                && !is_broken(Rule::NamedPayloadsStay)
            {
                removed.remove(&id);
            }
        }
        for id in removed {
            self.log.remove(&rows::payload_key(&id))?;
        }
        self.put_compacted(new, hash)?;
        Ok(new)
    }
}
