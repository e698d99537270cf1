//! The rows of the log: their keys, and what is in them. The crate's page has it in full.

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, MAX_PHASES, NodeId, Phase, Proof, RunId, Slot, StoreId, Value};
use rabia_bank_messages::promise::{Record, Said, State};
use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::file::rows::{Row, Rows, TableId, read_digest, read_u64};
use crate::identity::META;

/// Nearly all that a commit writes lies in this one table, and close together: every page that a commit touches costs a write.
pub(crate) const LOG: TableId = TableId::described("log", describe);
pub(crate) const TABLES: [TableId; 2] = [META, LOG];

pub(crate) const META_SECRET: &[u8] = b"secret";
pub(crate) const META_STARTS: &[u8] = b"starts";
pub(crate) const META_RESERVED: &[u8] = b"reserved";
pub(crate) const META_COMPACTED: &[u8] = b"compacted";

type Bytes = &'static [u8];

/// What a row of the log is: the first byte of its key. The newest decisions lie next to the records of open slots and to what is
/// known of peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Payload = 1,
    Decision = 2,
    Record = 3,
    Promised = 4,
    Peer = 5,
    Run = 6,
    Hash = 7,
}

impl Part {
    /// Where the rows of this part begin.
    pub(crate) const fn begin(self) -> [u8; 1] {
        [self as u8]
    }
}

/// The kind of a record. States come before Votes, as they do in a phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    State = 0,
    Vote = 1,
}

impl Kind {
    pub(crate) fn of(said: &Said) -> Kind {
        match said {
            Said::State(_) => Kind::State,
            Said::Vote(_) => Kind::Vote,
        }
    }
}

const DECISION_KEY: usize = 1 + 8;

pub(crate) fn decision_key(slot: Slot) -> [u8; DECISION_KEY] {
    number_key(Part::Decision, slot)
}

pub(crate) fn read_decision_key(key: &[u8]) -> Option<Slot> {
    read_number_key(Part::Decision, key)
}

/// The key of the one row of [`Part::Promised`].
pub(crate) const PROMISED_KEY: [u8; 1] = Part::Promised.begin();

const PEER_KEY: usize = 1 + 1 + 16;

pub(crate) fn peer_key(node: NodeId, store: StoreId) -> [u8; PEER_KEY] {
    let mut key = [Part::Peer as u8; PEER_KEY];
    key[1] = node.get();
    key[2..].copy_from_slice(&store.0);
    key
}

pub(crate) fn read_peer_key(key: &[u8]) -> Option<(NodeId, StoreId)> {
    let (number, store) = key.strip_prefix(&Part::Peer.begin())?.split_first()?;
    Some((NodeId::new(*number)?, StoreId(store.try_into().ok()?)))
}

/// The key of a row that a number names: of a decision, a run or a hash.
pub(crate) fn number_key(part: Part, number: u64) -> [u8; DECISION_KEY] {
    let mut key = [part as u8; DECISION_KEY];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn read_number_key(part: Part, key: &[u8]) -> Option<u64> {
    key.strip_prefix(&part.begin())?.try_into().ok().map(u64::from_be_bytes)
}

const RECORD_KEY: usize = 1 + 8 + 4 + 1;

pub(crate) fn record_key(slot: Slot, phase: Phase, kind: Kind) -> [u8; RECORD_KEY] {
    let mut key = [Part::Record as u8; RECORD_KEY];
    key[1..9].copy_from_slice(&slot.to_be_bytes());
    key[9..13].copy_from_slice(&phase.to_be_bytes());
    key[13] = kind as u8;
    key
}

/// The first and the last key that a record of this slot may have.
pub(crate) fn record_keys(slot: Slot) -> ([u8; RECORD_KEY], [u8; RECORD_KEY]) {
    (record_key(slot, Phase::MIN, Kind::State), record_key(slot, Phase::MAX, Kind::Vote))
}

pub(crate) fn read_record_key(key: &[u8]) -> Option<(Slot, Phase, Kind)> {
    let (slot, rest) = key.strip_prefix(&Part::Record.begin())?.split_first_chunk()?;
    let (phase, rest) = rest.split_first_chunk()?;
    let kind = match rest {
        [0] => Kind::State,
        [1] => Kind::Vote,
        _ => return None,
    };
    Some((Slot::from_be_bytes(*slot), Phase::from_be_bytes(*phase), kind))
}

pub(crate) const PAYLOAD_KEY: usize = 1 + 1 + 8 + 8 + 32;

pub(crate) fn payload_key(id: &BatchId) -> [u8; PAYLOAD_KEY] {
    let mut key = [Part::Payload as u8; PAYLOAD_KEY];
    key[1] = id.origin.get();
    key[2..10].copy_from_slice(&id.incarnation.to_be_bytes());
    key[10..18].copy_from_slice(&id.sequence.to_be_bytes());
    key[18..].copy_from_slice(&id.digest.0);
    key
}

fn read_payload_key(key: &[u8]) -> Option<BatchId> {
    let (origin, rest) = key.strip_prefix(&Part::Payload.begin())?.split_first()?;
    let (incarnation, rest) = rest.split_first_chunk()?;
    let (sequence, digest) = rest.split_first_chunk()?;
    Some(BatchId {
        origin: NodeId::new(*origin)?,
        incarnation: u64::from_be_bytes(*incarnation),
        sequence: u64::from_be_bytes(*sequence),
        digest: Digest(digest.try_into().ok()?),
    })
}

/// Says in words which row of the log has this key; nothing of a key that no row has.
pub(crate) fn describe(key: &[u8]) -> Option<String> {
    let decision = || read_decision_key(key).map(|slot| format!("decision of slot {slot}"));
    let record = || read_record_key(key).map(|(slot, phase, kind)| format!("{kind:?} of slot {slot}, phase {phase}"));
    let payload = || read_payload_key(key).map(|id| format!("payload of batch {id}"));
    let promised = || (key == PROMISED_KEY).then(|| "count of promises".into());
    let peer = || read_peer_key(key).map(|(node, _)| format!("memory of node {node}"));
    let run = || read_number_key(Part::Run, key).map(|start| format!("run {start}"));
    let hash = || read_number_key(Part::Hash, key).map(|slot| format!("hash of the log up to slot {slot}"));
    decision().or_else(record).or_else(payload).or_else(promised).or_else(peer).or_else(run).or_else(hash)
}

/// A row of the decided log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decision {
    pub(crate) slot: Slot,
    pub(crate) value: Value,
    /// Of the log up to this slot; none behind a gap.
    pub(crate) hash: Option<Digest>,
}

/// Decodes a row of the decided log.
pub(crate) fn decision<T: ReadableTable<Bytes, Bytes>>(log: &Rows<'_, T>, row: &Row) -> Result<Decision, StoreError> {
    match read_decision_key(&row.key) {
        Some(slot) if slot > 0 => {
            let (value, hash) = log.decode(&row.key, &row.body)?;
            Ok(Decision { slot, value, hash })
        }
        _ => Err(log.damaged(&row.key, "no number of a slot")),
    }
}

/// Decodes a row of the records.
pub(crate) fn record<T: ReadableTable<Bytes, Bytes>>(log: &Rows<'_, T>, row: &Row) -> Result<Record, StoreError> {
    let damaged = |what: String| log.damaged(&row.key, what);
    let (slot, phase, kind) = read_record_key(&row.key).ok_or_else(|| damaged("no key of a record".into()))?;
    let said = match kind {
        Kind::State => Said::State(log.decode(&row.key, &row.body)?),
        Kind::Vote => Said::Vote(log.decode(&row.key, &row.body)?),
    };
    let first = match said {
        Said::State(State::Abstain) => return Err(damaged("nobody who abstains stores it".into())),
        // States of phase 1 bind nobody (rule 5).
        Said::State(_) => 2,
        Said::Vote(_) => 1,
    };
    if !(first..=MAX_PHASES).contains(&phase) {
        return Err(damaged(format!("nothing like it is stored in phase {phase}")));
    }
    Ok(Record { slot, phase, said })
}

/// A payload that a record or a decision names, so that it must be there.
pub(crate) fn named_payload<T: ReadableTable<Bytes, Bytes>>(
    log: &Rows<'_, T>,
    id: &BatchId,
) -> Result<Payload, StoreError> {
    payload(log, id)?
        .ok_or_else(|| log.damaged(&payload_key(id), "a record or a decision names this payload, but it is missing"))
}

/// A payload, checked against the digest in its id; none if the store does not hold it.
pub(crate) fn payload<T: ReadableTable<Bytes, Bytes>>(
    log: &Rows<'_, T>,
    id: &BatchId,
) -> Result<Option<Payload>, StoreError> {
    let key = payload_key(id);
    let Some(body) = log.get(&key)? else { return Ok(None) };
    let payload = Payload::new(body);
    if !payload.matches(id) {
        return Err(log.damaged(&key, "the payload does not have the digest of its id"));
    }
    Ok(Some(payload))
}

/// Up to which slot everything was removed, and the hash of the log there, if it is known.
pub(crate) fn read_compacted<T: ReadableTable<Bytes, Bytes>>(
    meta: &Rows<'_, T>,
) -> Result<(Slot, Option<Digest>), StoreError> {
    let body = meta.get(META_COMPACTED)?.ok_or_else(|| meta.damaged(META_COMPACTED, "the row is missing"))?;
    split_compacted(&body).map_err(|e| meta.damaged(META_COMPACTED, e))
}

fn split_compacted(body: &[u8]) -> Result<(Slot, Option<Digest>), String> {
    let (slot, hash) = body.split_at_checked(8).ok_or_else(|| format!("{} bytes where 8 should be", body.len()))?;
    let hash = if hash.is_empty() { None } else { Some(read_digest(hash)?) };
    Ok((read_u64(slot)?, hash))
}

pub(crate) fn encode_compacted(slot: Slot, hash: Option<Digest>) -> Vec<u8> {
    [&slot.to_be_bytes()[..], hash.as_ref().map_or(&[], |hash| &hash.0)].concat()
}

/// The body of a row of [`Part::Peer`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Remembered(pub(crate) RunId, pub(crate) u64, pub(crate) Proof);

#[cfg(test)]
mod tests {
    use rabia_bank_messages::ids::Value;
    use rabia_bank_messages::msgpack::{decode_as_written, encode};
    use rabia_bank_messages::promise::{State, Vote};

    use super::*;

    #[test]
    fn keys_sort_as_slot_then_phase_then_state_before_vote() {
        let parts = [
            (1, 1, Kind::Vote),
            (1, 2, Kind::State),
            (1, 256, Kind::State),
            (2, 1, Kind::State),
            (256, 1, Kind::State),
        ];
        let keys = parts.map(|(slot, phase, kind)| record_key(slot, phase, kind));
        assert!(keys.is_sorted());
        for (key, parts) in keys.iter().zip(parts) {
            assert_eq!(read_record_key(key), Some(parts));
        }
        let (first, last) = record_keys(1);
        assert!(keys.iter().filter(|key| (first..=last).contains(key)).count() == 3);
    }

    #[test]
    fn keys_of_other_lengths_and_kinds_are_refused() {
        let record = record_key(1, 1, Kind::Vote);
        assert_eq!(read_record_key(&record[..RECORD_KEY - 1]), None);
        assert_eq!(read_record_key(&[&record[..], &[0]].concat()), None);
        assert_eq!(read_record_key(&[&record[..RECORD_KEY - 1], &[2]].concat()), None);
        assert_eq!(read_record_key(&[Part::Peer as u8; RECORD_KEY]), None);
        assert_eq!(read_decision_key(&decision_key(7)), Some(7));
        assert_eq!(read_decision_key(&decision_key(7)[..8]), None);
        assert_eq!(read_decision_key(&record), None);
        let Some(node) = NodeId::new(1) else { unreachable!() };
        let store = StoreId([2; 16]);
        assert_eq!(read_peer_key(&peer_key(node, store)), Some((node, store)));
        assert_eq!(read_peer_key(&peer_key(node, store)[..17]), None);
        let mut nobody = peer_key(node, store);
        nobody[1] = 8;
        assert_eq!(read_peer_key(&nobody), None);
        assert_eq!(read_number_key(Part::Run, &number_key(Part::Run, 3)), Some(3));
        assert_eq!(read_number_key(Part::Hash, &number_key(Part::Run, 3)), None);
    }

    #[test]
    fn rows_are_described_by_what_they_are() {
        let Some(node) = NodeId::new(3) else { unreachable!() };
        let id = BatchId { origin: node, incarnation: 2, sequence: 300, digest: Digest([7; 32]) };
        assert_eq!(describe(&decision_key(5)).unwrap(), "decision of slot 5");
        assert_eq!(describe(&record_key(5, 2, Kind::Vote)).unwrap(), "Vote of slot 5, phase 2");
        assert_eq!(describe(&payload_key(&id)).unwrap(), format!("payload of batch {id}"));
        assert_eq!(describe(&PROMISED_KEY).unwrap(), "count of promises");
        assert_eq!(describe(&peer_key(node, StoreId([9; 16]))).unwrap(), "memory of node 3");
        assert_eq!(describe(&number_key(Part::Run, 4)).unwrap(), "run 4");
        assert_eq!(describe(&number_key(Part::Hash, 1024)).unwrap(), "hash of the log up to slot 1024");
        assert_eq!(describe(b"starts"), None);
    }

    /// Files that are out there are read by these bytes: if this fails, the format has changed, and its version must.
    #[test]
    fn encodings_are_as_documented() {
        let Some(node) = NodeId::new(3) else { unreachable!() };
        let id = BatchId { origin: node, incarnation: 2, sequence: 300, digest: Digest([7; 32]) };
        let mut batch = vec![0x94, 3, 2, 0xcd, 1, 0x2c, 0xc4, 32];
        batch.extend_from_slice(&[7; 32]);
        assert_eq!(encode(&Some(id)), batch);
        assert_eq!(encode(&None::<BatchId>), [0xc0]);
        assert_eq!(encode(&Vote::Zero), b"\xa4Zero");
        assert_eq!(encode(&State::Abstain), b"\xa7Abstain");
        assert_eq!(encode(&Vote::One(id)), [&b"\x81\xa3One"[..], &batch].concat());
        assert_eq!(decode_as_written::<Value>(&batch), Ok(Some(id)));
        batch.push(0);
        assert!(decode_as_written::<Value>(&batch).is_err(), "a byte behind the value was ignored");
    }
}
