//! How rows are laid out: the tables, their keys, and the check value on every value. The crate's page has it in full.

use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Phase, Slot, StoreId};
use rabia_bank_messages::promise::Said;

/// The version of the file format that this program reads and writes.
pub const FORMAT: u32 = 6;
/// The version of a store that took the place of another. The same but for one row, by which a program that knows only the
/// former would be misled.
pub(crate) const FORMAT_REPLACING: u32 = 7;

pub(crate) const META: &str = "meta";
/// Nearly all that a commit writes lies in this one table, and close together: every page that a commit touches costs a write.
pub(crate) const LOG: &str = "log";
pub(crate) const TABLES: [&str; 2] = [META, LOG];

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

pub(crate) const STATE: &str = "state";
pub(crate) const ACCOUNTS: &str = "accounts";
pub(crate) const SESSIONS: &str = "sessions";
pub(crate) const BLOCKS: &str = "blocks";
pub(crate) const BOOKS_TABLES: [&str; 5] = [META, STATE, ACCOUNTS, SESSIONS, BLOCKS];

pub(crate) const META_FORMAT: &[u8] = b"format";
pub(crate) const META_IDENTITY: &[u8] = b"identity";
pub(crate) const META_STORE: &[u8] = b"store";
pub(crate) const META_SECRET: &[u8] = b"secret";
pub(crate) const META_STARTS: &[u8] = b"starts";
pub(crate) const META_RESERVED: &[u8] = b"reserved";
pub(crate) const META_COMPACTED: &[u8] = b"compacted";
pub(crate) const META_SLOT: &[u8] = b"slot";
/// The key of the one row of the state.
pub(crate) const STATE_KEY: &[u8] = b"state";

/// The bytes of a check value.
pub(crate) const CHECK: usize = 4;

/// The check value of a row.
pub(crate) fn check_value(table: &str, key: &[u8], body: &[u8]) -> [u8; CHECK] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(table.as_bytes());
    hasher.update(&[0]);
    hasher.update(&(key.len() as u32).to_be_bytes()); // the longest key has 50 bytes
    hasher.update(key);
    hasher.update(body);
    hasher.finalize().to_be_bytes()
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

pub(crate) fn read_digest(body: &[u8]) -> Result<Digest, String> {
    body.try_into().map(Digest).map_err(|_| format!("{} bytes where 32 should be", body.len()))
}

pub(crate) fn read_u64(body: &[u8]) -> Result<u64, String> {
    body.try_into().map(u64::from_be_bytes).map_err(|_| format!("{} bytes where 8 should be", body.len()))
}

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

    #[test]
    fn the_check_value_covers_table_key_and_body() {
        let whole = check_value("log", b"k", b"body");
        assert_ne!(whole, check_value("meta", b"k", b"body"));
        assert_ne!(whole, check_value("log", b"l", b"body"));
        assert_ne!(whole, check_value("log", b"kb", b"ody"));
        assert_ne!(whole, check_value("log", b"k", b"bodx"));
        // The exact value, so that a change of the format is seen: crc32("log" 00 00000001 "k" "body").
        assert_eq!(u32::from_be_bytes(whole), crc32fast::hash(b"log\0\0\0\0\x01kbody"));
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
