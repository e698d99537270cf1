//! How rows are laid out: the tables, their keys, and the check value on every value. The crate's page has it in full.

use rabia_bank_messages::ids::{BatchId, NodeId, Phase, Slot};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Said;

/// The version of the file format that this program reads and writes.
pub const FORMAT: u32 = 2;
/// The version of a store that took the place of another. The same but for one row, by which a program that knows only the
/// former would be misled.
pub(crate) const FORMAT_REPLACING: u32 = 3;

pub(crate) const META: &str = "meta";
pub(crate) const RECORDS: &str = "records";
pub(crate) const PAYLOADS: &str = "payloads";
pub(crate) const DECISIONS: &str = "decisions";
pub(crate) const PEERS: &str = "peers";
pub(crate) const HEARD: &str = "heard";
pub(crate) const TABLES: [&str; 6] = [META, RECORDS, PAYLOADS, DECISIONS, PEERS, HEARD];

pub(crate) const STATE: &str = "state";
pub(crate) const ACCOUNTS: &str = "accounts";
pub(crate) const SESSIONS: &str = "sessions";
pub(crate) const BLOCKS: &str = "blocks";
pub(crate) const BOOKS_TABLES: [&str; 5] = [META, STATE, ACCOUNTS, SESSIONS, BLOCKS];

pub(crate) const META_FORMAT: &[u8] = b"format";
pub(crate) const META_IDENTITY: &[u8] = b"identity";
pub(crate) const META_STORE: &[u8] = b"store";
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
    hasher.update(&(key.len() as u32).to_be_bytes()); // the longest key has 49 bytes
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

pub(crate) fn slot_key(slot: Slot) -> [u8; 8] {
    slot.to_be_bytes()
}

pub(crate) fn read_slot_key(key: &[u8]) -> Option<Slot> {
    key.try_into().ok().map(Slot::from_be_bytes)
}

pub(crate) fn node_key(node: NodeId) -> [u8; 1] {
    [node.get()]
}

pub(crate) fn read_node_key(key: &[u8]) -> Option<NodeId> {
    let [number] = key.try_into().ok()?;
    NodeId::new(number)
}

const RECORD_KEY: usize = 8 + 4 + 1;

pub(crate) fn record_key(slot: Slot, phase: Phase, kind: Kind) -> [u8; RECORD_KEY] {
    let mut key = [0; RECORD_KEY];
    key[..8].copy_from_slice(&slot.to_be_bytes());
    key[8..12].copy_from_slice(&phase.to_be_bytes());
    key[12] = kind as u8;
    key
}

/// The first and the last key that a record of this slot may have.
pub(crate) fn record_keys(slot: Slot) -> ([u8; RECORD_KEY], [u8; RECORD_KEY]) {
    (record_key(slot, Phase::MIN, Kind::State), record_key(slot, Phase::MAX, Kind::Vote))
}

pub(crate) fn read_record_key(key: &[u8]) -> Option<(Slot, Phase, Kind)> {
    let (slot, rest) = key.split_first_chunk()?;
    let (phase, rest) = rest.split_first_chunk()?;
    let kind = match rest {
        [0] => Kind::State,
        [1] => Kind::Vote,
        _ => return None,
    };
    Some((Slot::from_be_bytes(*slot), Phase::from_be_bytes(*phase), kind))
}

pub(crate) const BATCH_KEY: usize = 1 + 8 + 8 + 32;

pub(crate) fn batch_key(id: &BatchId) -> [u8; BATCH_KEY] {
    let mut key = [0; BATCH_KEY];
    key[0] = id.origin.get();
    key[1..9].copy_from_slice(&id.incarnation.to_be_bytes());
    key[9..17].copy_from_slice(&id.sequence.to_be_bytes());
    key[17..].copy_from_slice(&id.digest.0);
    key
}

/// MessagePack, in compact form.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    match rmp_serde::to_vec(value) {
        Ok(bytes) => bytes,
        Err(e) => panic!("a value has no encoding: {e}"), // writing to memory can't fail, and these types have one
    }
}

/// What [`encode`] wrote, and nothing else: encoding the value again must give the same bytes, so that no byte is
/// ignored.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let value = rmp_serde::from_slice(body).map_err(|e| e.to_string())?;
    if encode(&value) != body {
        return Err("not the encoding of what it decodes to".into());
    }
    Ok(value)
}

pub(crate) fn read_u64(body: &[u8]) -> Result<u64, String> {
    body.try_into().map(u64::from_be_bytes).map_err(|_| format!("{} bytes where 8 should be", body.len()))
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::ids::Digest;
    use rabia_bank_messages::peer::{State, Value, Vote};

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
        assert_eq!(read_record_key(&[0; RECORD_KEY - 1]), None);
        assert_eq!(read_record_key(&[0; RECORD_KEY + 1]), None);
        assert_eq!(read_record_key(&[2; RECORD_KEY]), None);
        assert_eq!(read_slot_key(&[0; 7]), None);
        assert_eq!(read_node_key(&[0]), None);
        assert_eq!(read_node_key(&[8]), None);
    }

    #[test]
    fn the_check_value_covers_table_key_and_body() {
        let whole = check_value("peers", b"k", b"body");
        assert_ne!(whole, check_value("heard", b"k", b"body"));
        assert_ne!(whole, check_value("peers", b"l", b"body"));
        assert_ne!(whole, check_value("peers", b"kb", b"ody"));
        assert_ne!(whole, check_value("peers", b"k", b"bodx"));
        // The exact value, so that a change of the format is seen: crc32("peers" 00 00000001 "k" "body").
        assert_eq!(u32::from_be_bytes(whole), crc32fast::hash(b"peers\0\0\0\0\x01kbody"));
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
        assert_eq!(decode::<Value>(&batch), Ok(Some(id)));
        batch.push(0);
        assert!(decode::<Value>(&batch).is_err(), "a byte behind the value was ignored");
    }
}
