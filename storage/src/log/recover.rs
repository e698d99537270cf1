//! What a start reads: whose store this is, and what its node has to know before it may speak again.

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot, Value};
use rabia_bank_messages::lineage::{MAX_PROMISES, Memory, Secret, log_hash};
use rabia_bank_messages::promise::{Began, Identity, Record, Recovered};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use redb::{Database, ReadableDatabase, StorageBackend};

use super::commit::LastDecisions;
use super::rows::{self, Decision, LOG, META_RESERVED, META_SECRET, META_STARTS, PROMISED_KEY, Part, Remembered};
use crate::error::StoreError;
use crate::file::database;
use crate::file::path::StorePath;
use crate::file::rows::{ReadRows, Row, Rows, read_digest};
use crate::file::staged::Staged;
use crate::identity::{META, check_identity, store_of};

/// How much of the file redb keeps in memory, in bytes. The tail of the log, which is all that a healthy node reads,
/// is far smaller; redb's own default is 1 GiB.
pub(crate) const CACHE: usize = 64 << 20;

/// Hashes of the newest slots that a start reads: peers that are a little behind ask for them.
const HASHES: usize = 4_096;

/// Opens a log and verifies all of it; what redb writes meanwhile is held back, so that a file that is refused stays as it was.
/// Also answers which slots were removed.
pub(crate) fn open<B: StorageBackend>(
    backend: B,
    place: &StorePath,
    identity: &Identity,
    base: impl FnOnce() -> Result<Slot, StoreError>,
) -> Result<(Database, Staged<B>, Recovered, Removed), StoreError> {
    store_of(identity, place)?;
    let (database, staged) = database::open_staged(backend, place, CACHE, true)?;
    let (recovered, removed) = read(&database, place, identity, base)?;
    Ok((database, staged, recovered, removed))
}

/// Reads everything but the decided log's payloads, and checks it.
/// Also answers which slots were removed.
fn read(
    database: &Database,
    place: &StorePath,
    identity: &Identity,
    base: impl FnOnce() -> Result<Slot, StoreError>,
) -> Result<(Recovered, Removed), StoreError> {
    let transaction = database.begin_read().map_err(|e| place.redb(e))?;
    let meta = Rows::read(&transaction, META, place)?;
    let store = check_identity(&meta, place, identity)?;
    let log = Rows::read(&transaction, LOG, place)?;
    refuse_strangers(&log)?;
    let counter = |key| meta.get_u64(key)?.ok_or_else(|| meta.damaged(key, "the row is missing"));
    let (starts, reserved) = (counter(META_STARTS)?, counter(META_RESERVED)?);
    let ((compacted, hash), base) = (rows::read_compacted(&meta)?, base()?);
    if compacted > base && !is_broken(Rule::BooksReachLog) {
        return Err(StoreError::Gap { file: place.file(), compacted, books: base });
    }
    let stored = read_decisions(&log)?;
    let (head, hashes) = read_hashes(&log, &stored, compacted, hash)?;
    let decisions: Vec<(Slot, Value)> = stored.iter().map(|row| (row.slot, row.value)).collect();
    let (decided, sparse) = behind(&decisions, base);
    let to_remove = lacking(&decisions, compacted, base).then_some(base);
    let last = decisions.iter().filter_map(|(slot, value)| Some(((*value)?, *slot))).collect();
    let head = if to_remove.is_some() { (base, None) } else { head };
    let removed = Removed { upto: compacted, to_remove, last, head, base };
    let records = read_records(&log, reserved, base)?;
    let payloads = read_payloads(&log, &records)?;
    let promised = log.get_u64(&PROMISED_KEY)?.unwrap_or(0);
    let (peers, runs) = (read_peers(&log)?, read_runs(&log, promised)?);
    let secret = meta.get(META_SECRET)?.and_then(|secret| secret.try_into().ok().map(Secret));
    let secret = secret.ok_or_else(|| meta.damaged(META_SECRET, "no 32 bytes"))?;
    let kept = read_kept(&log)?;
    let hashes = if head == (decided, hashes.last().copied()) { hashes } else { Vec::new() };
    let recovered = Recovered {
        store,
        starts,
        reserved,
        records,
        payloads,
        decided,
        sparse,
        hashes,
        kept,
        peers,
        promised,
        runs,
        secret,
    };
    Ok((recovered, removed))
}

/// A slot, and the hash of the log up to it, if that is known.
type Frontier = (Slot, Option<Digest>);

/// The end of the log without gaps, with its hash, and the hashes up to there. Each follows from the one before it.
pub(crate) fn read_hashes(
    log: &ReadRows<'_>,
    decisions: &[Decision],
    compacted: Slot,
    hash: Option<Digest>,
) -> Result<(Frontier, Vec<Digest>), StoreError> {
    let (mut head, mut hashes) = ((compacted, hash), Vec::from_iter(hash));
    for Decision { slot, value, hash } in decisions.iter().filter(|row| row.slot > compacted) {
        let (end, Some(before)) = head else { break };
        if *slot != end + 1 {
            break;
        }
        let expected = log_hash(before, *slot, value);
        if *hash != Some(expected) {
            let what = "the hash of the log does not follow from the one before";
            return Err(log.damaged(&rows::decision_key(*slot), what));
        }
        head = (*slot, Some(expected));
        hashes.push(expected);
    }
    hashes.drain(..hashes.len().saturating_sub(HASHES));
    Ok((head, hashes))
}

/// Rows that belong to no part lie before the first or behind the last one.
fn refuse_strangers(log: &ReadRows<'_>) -> Result<(), StoreError> {
    let (first, last) = (Part::Payload as u8, Part::Hash as u8);
    for row in [log.from(&[])?.next(), log.from(&[last + 1])?.next()].into_iter().flatten() {
        let Row { key, .. } = row?;
        if !key.first().is_some_and(|part| (first..=last).contains(part)) {
            return Err(log.damaged(&key, "no row of the log has such a key"));
        }
    }
    Ok(())
}

/// How far the log was removed, since the books cover it, and what is left.
#[derive(Debug)]
pub(crate) struct Removed {
    /// Up to this slot.
    pub(crate) upto: Slot,
    /// Up to this slot it must go now: it has a gap there.
    pub(crate) to_remove: Option<Slot>,
    pub(crate) last: LastDecisions,
    /// The end of the log without gaps, and the hash there.
    pub(crate) head: (Slot, Option<Digest>),
    /// The slot of the books.
    pub(crate) base: Slot,
}

/// Whether slots are missing that the books cover. Decisions are written lazily, so the books may be durable before them. Who is
/// asked for such a slot must not say that the log has it.
fn lacking(decisions: &[(Slot, Value)], compacted: Slot, base: Slot) -> bool {
    let slots = decisions.iter().map(|(slot, _)| *slot).skip_while(|slot| *slot <= compacted);
    let gapless = (compacted + 1..).zip(slots).take_while(|(expected, slot)| expected == slot).count();
    compacted + (gapless as Slot) < base
}

pub(crate) fn read_decisions(log: &ReadRows<'_>) -> Result<Vec<Decision>, StoreError> {
    log.alike_from(&Part::Decision.begin())?.map(|row| rows::decision(log, &row?)).collect()
}

/// The end of the gapless decided log, and what is decided above it. Decisions up to `base` are of no use any more.
fn behind(decisions: &[(Slot, Value)], base: Slot) -> (Slot, Vec<(Slot, Value)>) {
    let (mut decided, mut sparse) = (base, Vec::new());
    for (slot, value) in decisions.iter().filter(|(slot, _)| *slot > base) {
        if sparse.is_empty() && *slot == decided + 1 {
            decided = *slot;
        } else {
            sparse.push((*slot, *value));
        }
    }
    (decided, sparse)
}

/// Records up to `base` are of no use any more: those slots are decided.
fn read_records(log: &ReadRows<'_>, reserved: Slot, base: Slot) -> Result<Vec<Record>, StoreError> {
    let mut records = Vec::new();
    for row in log.alike_from(&rows::record_keys(base + 1).0)? {
        let row = row?;
        let record = rows::record(log, &row)?;
        if record.slot >= reserved {
            let what = format!("something was said at or above the reserved slot {reserved}");
            return Err(log.damaged(&row.key, what));
        }
        if log.contains(&rows::decision_key(record.slot))? {
            return Err(log.damaged(&row.key, "the slot is decided, so its records should be gone"));
        }
        records.push(record);
    }
    Ok(records)
}

fn read_payloads(log: &ReadRows<'_>, records: &[Record]) -> Result<Vec<(BatchId, Payload)>, StoreError> {
    let mut ids: Vec<BatchId> = records.iter().filter_map(|record| record.said.batch()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().map(|id| Ok((id, rows::named_payload(log, &id)?))).collect()
}

fn read_peers(log: &ReadRows<'_>) -> Result<Vec<(NodeId, Memory)>, StoreError> {
    let peers = log.alike_from(&Part::Peer.begin())?.map(|row| {
        let Row { key, body } = row?;
        let damaged = |what: String| log.damaged(&key, what);
        let (node, store) = rows::read_peer_key(&key).ok_or_else(|| damaged("no store of a node".into()))?;
        let Remembered(run, promises, proof) = log.decode(&key, &body)?;
        if promises > MAX_PROMISES {
            return Err(damaged(format!("{promises} promises are more than there can be")));
        }
        Ok((node, Memory { store, run, promises, proof }))
    });
    peers.collect()
}

fn read_kept(log: &ReadRows<'_>) -> Result<Option<(Slot, Digest)>, StoreError> {
    let Some(row) = log.last_of(Part::Hash as u8)? else { return Ok(None) };
    let damaged = |what: String| log.damaged(&row.key, what);
    let slot = rows::read_number_key(Part::Hash, &row.key).ok_or_else(|| damaged("no number of a slot".into()))?;
    Ok(Some((slot, read_digest(&row.body).map_err(damaged)?)))
}

fn read_runs(log: &ReadRows<'_>, promised: u64) -> Result<Vec<Began>, StoreError> {
    let mut runs: Vec<Began> = Vec::new();
    for row in log.alike_from(&Part::Run.begin())? {
        let Row { key, body } = row?;
        let damaged = |what: &str| log.damaged(&key, what);
        let start = rows::read_number_key(Part::Run, &key).ok_or_else(|| damaged("no number of a start"))?;
        let (run, promises) = log.decode(&key, &body)?;
        if promises > promised || runs.last().is_some_and(|before| before.promises > promises) {
            return Err(damaged("a run that began with more promises than were kept then"));
        }
        runs.push(Began { start, run, promises });
    }
    Ok(runs)
}
