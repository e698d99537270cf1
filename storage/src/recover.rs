//! What a start reads: whose store this is, and what its node has to know before it may speak again.

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, Digest, MAX_PHASES, NodeId, Slot, StoreId, Value};
use rabia_bank_messages::lineage::{MAX_PROMISES, Memory, Secret, log_hash};
use rabia_bank_messages::promise::{Began, Identity, Record, Recovered, Said, State};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable};

use crate::commit::{LastDecisions, Remembered};
use crate::error::StoreError;
use crate::format::{
    self, FORMAT, FORMAT_REPLACING, Kind, LOG, META, META_FORMAT, META_IDENTITY, META_RESERVED, META_SECRET,
    META_STARTS, META_STORE, PROMISED_KEY, Part,
};
use crate::place::Place;
use crate::reader::{self, Decision};
use crate::rows::{Row, Rows};

/// Hashes of the newest slots that a start reads: peers that are a little behind ask for them.
const HASHES: usize = 4_096;

/// The id of the store that belongs to this identity.
pub(crate) fn store_of(identity: &Identity, place: &Place) -> Result<StoreId, StoreError> {
    identity.genesis.stores.get(identity.node.index()).copied().ok_or_else(|| StoreError::NoMember {
        file: place.file(),
        node: identity.node,
        members: identity.genesis.members(),
    })
}

/// Reads everything but the decided log's payloads, and checks it.
/// Also answers which slots were removed.
pub(crate) fn read(
    database: &Database,
    place: &Place,
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
    let ((compacted, hash), base) = (reader::read_compacted(&meta)?, base()?);
    if compacted > base && !is_broken(Rule::BooksReachLog) {
        return Err(StoreError::Gap { file: place.file(), compacted, books: base });
    }
    let rows = read_decisions(&log)?;
    let (head, hashes) = read_hashes(&log, &rows, compacted, hash)?;
    let decisions: Vec<(Slot, Value)> = rows.iter().map(|row| (row.slot, row.value)).collect();
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
    rows: &[Decision],
    compacted: Slot,
    hash: Option<Digest>,
) -> Result<(Frontier, Vec<Digest>), StoreError> {
    let (mut head, mut hashes) = ((compacted, hash), Vec::from_iter(hash));
    for Decision { slot, value, hash } in rows.iter().filter(|row| row.slot > compacted) {
        let (end, Some(before)) = head else { break };
        if *slot != end + 1 {
            break;
        }
        let expected = log_hash(before, *slot, value);
        if *hash != Some(expected) {
            let what = "the hash of the log does not follow from the one before";
            return Err(log.damaged(&format::decision_key(*slot), what));
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

pub(crate) type ReadRows<'p> = Rows<'p, ReadOnlyTable<&'static [u8], &'static [u8]>>;

/// Comes first: in a file of another version nothing else means what it does here.
fn read_format(meta: &ReadRows<'_>, place: &Place) -> Result<u32, StoreError> {
    let Some(body) = meta.get(META_FORMAT)? else {
        return Err(meta.damaged(META_FORMAT, "the row is missing"));
    };
    let Ok(bytes) = <[u8; 4]>::try_from(&body[..]) else {
        return Err(meta.damaged(META_FORMAT, format_args!("{} bytes where 4 should be", body.len())));
    };
    match u32::from_be_bytes(bytes) {
        known @ (FORMAT | FORMAT_REPLACING) => Ok(known),
        found => Err(StoreError::Version { file: place.file(), found, known: FORMAT }),
    }
}

/// Checks that the file is of a known version and belongs to this member. Answers which store it is.
pub(crate) fn check_identity(meta: &ReadRows<'_>, place: &Place, expected: &Identity) -> Result<StoreId, StoreError> {
    let format = read_format(meta, place)?;
    let Some(found) = meta.get_value::<Identity>(META_IDENTITY)? else {
        return Err(meta.damaged(META_IDENTITY, "the row is missing"));
    };
    let file = place.file();
    let (cluster, other_cluster) = (expected.genesis.cluster, found.genesis.cluster);
    if other_cluster != cluster {
        return Err(StoreError::OtherCluster { file, found: other_cluster, expected: cluster });
    }
    if found.node != expected.node {
        return Err(StoreError::OtherNode { file, found: found.node, expected: expected.node });
    }
    let (store, other_store) = (store_of(expected, place)?, store_of(&found, place)?);
    if other_store != store {
        return Err(StoreError::OtherStore { file, found: other_store, expected: store });
    }
    if found.genesis != expected.genesis {
        return Err(StoreError::OtherGenesis { file, what: difference(&found.genesis, &expected.genesis) });
    }
    match (format, meta.get(META_STORE)?) {
        (FORMAT, None) => Ok(store),
        (FORMAT_REPLACING, Some(body)) => {
            body.try_into().map(StoreId).map_err(|_| meta.damaged(META_STORE, "no id of a store"))
        }
        (FORMAT, Some(_)) => Err(meta.damaged(META_STORE, "this row does not belong into a first store")),
        _ => Err(meta.damaged(META_STORE, "the row is missing")),
    }
}

/// Writes what [`check_identity`] reads. `store` takes the place of the member's former one.
pub(crate) fn put_identity(
    meta: &mut Rows<'_, redb::Table<'_, &'static [u8], &'static [u8]>>,
    identity: &Identity,
    store: Option<StoreId>,
) -> Result<(), StoreError> {
    let format = if store.is_some() { FORMAT_REPLACING } else { FORMAT };
    meta.put(META_FORMAT, &format.to_be_bytes())?;
    meta.put_value(META_IDENTITY, identity)?;
    store.map_or(Ok(()), |store| meta.put(META_STORE, &store.0))
}

/// Says which constants differ, in the words of the configuration.
fn difference(file: &Genesis, configuration: &Genesis) -> String {
    let numbers = [
        ("members", file.members() as u64, configuration.members() as u64),
        ("window", file.window, configuration.window),
        ("owner_history", file.owner_history, configuration.owner_history),
        ("transaction_limit", file.transaction_limit, configuration.transaction_limit),
        ("max_sessions", file.sessions.open, configuration.sessions.open),
        ("session_idle_ms", file.sessions.idle_ms, configuration.sessions.idle_ms),
    ];
    let mut differences: Vec<String> = numbers
        .into_iter()
        .filter(|(_, file, configuration)| file != configuration)
        .map(|(name, file, configuration)| {
            format!("{name} is {file} in the file, {configuration} in the configuration")
        })
        .collect();
    let stores = file.nodes().zip(file.stores.iter().zip(&configuration.stores));
    differences.extend(stores.filter(|(_, (file, configuration))| file != configuration).map(
        |(node, (file, configuration))| {
            format!("the store of node {node} is {file} in the file, {configuration} in the configuration")
        },
    ));
    differences.join("; ")
}

pub(crate) fn read_decisions(log: &ReadRows<'_>) -> Result<Vec<Decision>, StoreError> {
    log.part_from(&Part::Decision.begin())?.map(|row| reader::decision(log, &row?)).collect()
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
    for row in log.part_from(&format::record_keys(base + 1).0)? {
        let row = row?;
        let record = record(log, &row)?;
        if record.slot >= reserved {
            let what = format!("something was said at or above the reserved slot {reserved}");
            return Err(log.damaged(&row.key, what));
        }
        if log.contains(&format::decision_key(record.slot))? {
            return Err(log.damaged(&row.key, "the slot is decided, so its records should be gone"));
        }
        records.push(record);
    }
    Ok(records)
}

/// Decodes a row of the records.
pub(crate) fn record<T: ReadableTable<&'static [u8], &'static [u8]>>(
    log: &Rows<'_, T>,
    row: &Row,
) -> Result<Record, StoreError> {
    let damaged = |what: String| log.damaged(&row.key, what);
    let (slot, phase, kind) = format::read_record_key(&row.key).ok_or_else(|| damaged("no key of a record".into()))?;
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

fn read_payloads(log: &ReadRows<'_>, records: &[Record]) -> Result<Vec<(BatchId, Payload)>, StoreError> {
    let mut ids: Vec<BatchId> = records.iter().filter_map(|record| record.said.batch()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().map(|id| Ok((id, reader::named_payload(log, &id)?))).collect()
}

fn read_peers(log: &ReadRows<'_>) -> Result<Vec<(NodeId, Memory)>, StoreError> {
    let rows = log.part_from(&Part::Peer.begin())?.map(|row| {
        let Row { key, body } = row?;
        let damaged = |what: String| log.damaged(&key, what);
        let (node, store) = format::read_peer_key(&key).ok_or_else(|| damaged("no store of a node".into()))?;
        let Remembered(run, promises, proof) = log.decode(&key, &body)?;
        if promises > MAX_PROMISES {
            return Err(damaged(format!("{promises} promises are more than there can be")));
        }
        Ok((node, Memory { store, run, promises, proof }))
    });
    rows.collect()
}

fn read_kept(log: &ReadRows<'_>) -> Result<Option<(Slot, Digest)>, StoreError> {
    let Some(row) = log.last_of(Part::Hash)? else { return Ok(None) };
    let damaged = |what: String| log.damaged(&row.key, what);
    let slot = format::read_number_key(Part::Hash, &row.key).ok_or_else(|| damaged("no number of a slot".into()))?;
    Ok(Some((slot, format::read_digest(&row.body).map_err(damaged)?)))
}

fn read_runs(log: &ReadRows<'_>, promised: u64) -> Result<Vec<Began>, StoreError> {
    let mut runs: Vec<Began> = Vec::new();
    for row in log.part_from(&Part::Run.begin())? {
        let Row { key, body } = row?;
        let damaged = |what: &str| log.damaged(&key, what);
        let start = format::read_number_key(Part::Run, &key).ok_or_else(|| damaged("no number of a start"))?;
        let (run, promises) = log.decode(&key, &body)?;
        if promises > promised || runs.last().is_some_and(|before| before.promises > promises) {
            return Err(damaged("a run that began with more promises than were kept then"));
        }
        runs.push(Began { start, run, promises });
    }
    Ok(runs)
}
