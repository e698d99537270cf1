//! What a store does when all is well, what it refuses, and how it says so.

use std::path::Path;

use crate::common::{Model, Random, batch, identity, memory, node, read_log, state, vote};
use rabia_bank_messages::ids::{ClusterId, Digest, RunId, StoreId};
use rabia_bank_messages::lineage::{MAX_PROMISES, log_hash};
use rabia_bank_messages::peer::{DIGEST_INTERVAL, Entry, State, Vote};
use rabia_bank_messages::promise::{Commit, Identity, Recovered};
use rabia_bank_storage::{BooksReader, BooksStore, Entries, LogStore, StoreError};
use tempfile::TempDir;

fn new_store() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.redb");
    LogStore::create(&path, &identity(), 0).unwrap();
    (directory, path)
}

/// With the secret of the model: that of a file is drawn at random.
fn open(path: &Path) -> (LogStore, Recovered) {
    let (store, recovered) = LogStore::open(path, &identity(), || Ok(0)).unwrap();
    (store, Recovered { secret: Model::default().secret, ..recovered })
}

#[test]
fn every_file_has_a_secret_of_its_own() {
    let stores = [new_store(), new_store()];
    let secret = |path: &Path| LogStore::open(path, &identity(), || Ok(0)).unwrap().1.secret;
    let [one, other] = [&stores[0].1, &stores[1].1].map(|path| secret(path));
    assert_ne!(one, other);
    assert_eq!(one, secret(&stores[0].1), "for ever");
}

fn refused(path: &Path, change: impl FnOnce(&mut Identity)) -> StoreError {
    let mut other = identity();
    change(&mut other);
    LogStore::open(path, &other, || Ok(0)).unwrap_err()
}

#[test]
fn a_new_store_holds_nothing_and_counts_its_starts() {
    let (directory, path) = new_store();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "the draft is still there");
    for starts in 1..4 {
        let (store, recovered) = open(&path);
        assert_eq!(recovered, Model { starts, ..Model::default() }.recovered());
        assert!(read_log(&store).unwrap().is_empty());
    }
}

#[test]
fn what_was_committed_is_recovered() {
    let (_directory, path) = new_store();
    let (mut model, mut random) = (Model::default(), Random(2));
    for starts in 1..6 {
        let (mut store, recovered) = open(&path);
        model.starts = starts;
        assert_eq!(recovered, model.recovered());
        for _ in 0..50 {
            let commit = model.random_commit(&mut random);
            store.commit(&commit).unwrap();
            model.apply(&commit);
        }
        assert_eq!(read_log(&store).unwrap(), model.entries());
    }
    assert!(model.decisions.len() > 50 && !model.records.is_empty() && !model.recovered().sparse.is_empty());
}

#[test]
fn a_file_is_open_until_the_last_reader_has_gone() {
    let (_directory, path) = new_store();
    let (store, _) = open(&path);
    let (held, reader) = (store.held(), store.reader());
    drop(store);
    assert!(held.is_open());
    assert!(matches!(LogStore::open(&path, &identity(), || Ok(0)), Err(StoreError::InUse { .. })));
    drop(reader);
    assert!(!held.is_open());
    open(&path);
}

#[test]
fn a_file_that_is_there_is_left_alone() {
    let (directory, path) = new_store();
    assert!(matches!(LogStore::create(&path, &identity(), 0), Err(StoreError::Exists { .. })));
    open(&path);
    let other = directory.path().join("other");
    std::fs::write(&other, "mine").unwrap();
    assert!(matches!(LogStore::create(&other, &identity(), 0), Err(StoreError::Exists { .. })));
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "mine");
    let nowhere = directory.path().join("no/such/place");
    assert!(matches!(LogStore::create(&nowhere, &identity(), 0), Err(StoreError::Io { .. })));
}

#[test]
fn a_missing_store_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.redb");
    let error = LogStore::open(&path, &identity(), || Ok(0)).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }));
    let message = error.to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(message.contains("do not bring back an old copy"), "{message}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn an_empty_file_is_damage_and_stays_empty() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.redb");
    std::fs::write(&path, "").unwrap();
    assert!(matches!(LogStore::open(&path, &identity(), || Ok(0)), Err(StoreError::Damaged { .. })));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_store_is_open_once() {
    let (_directory, path) = new_store();
    let (store, _) = open(&path);
    assert!(matches!(LogStore::open(&path, &identity(), || Ok(0)), Err(StoreError::InUse { .. })));
    let reader = store.reader();
    drop(store);
    assert!(matches!(LogStore::open(&path, &identity(), || Ok(0)), Err(StoreError::InUse { .. })));
    drop(reader);
    // An attempt that was refused was no start.
    assert_eq!(open(&path).1.starts, 2);
}

#[test]
fn another_members_store_is_refused() {
    let (_directory, path) = new_store();
    let error = refused(&path, |other| other.genesis.cluster = ClusterId([1; 16]));
    assert!(matches!(error, StoreError::OtherCluster { .. }), "{error}");
    let error = refused(&path, |other| other.node = node(2));
    assert!(matches!(error, StoreError::OtherNode { .. }), "{error}");
    let error = refused(&path, |other| other.genesis.stores[0] = StoreId([8; 16]));
    assert!(matches!(error, StoreError::OtherStore { .. }), "{error}");
    let error = refused(&path, |other| other.genesis.stores[2] = StoreId([8; 16]));
    assert!(error.to_string().contains("the store of node 3 is 0303"), "{error}");
    let error = refused(&path, |other| other.genesis.window = 99);
    assert!(error.to_string().contains("window is 16 in the file, 99 in the configuration"), "{error}");
    let error = refused(&path, |other| other.node = node(4));
    assert!(matches!(error, StoreError::NoMember { members: 3, .. }), "{error}");
    assert_eq!(open(&path).1.starts, 1, "a store that was refused was started");
}

#[test]
fn a_decision_takes_the_records_of_its_slot_with_it() {
    let (_directory, path) = new_store();
    let (mut store, _) = open(&path);
    let (id, payload) = batch(1, 1, 100);
    let promised = Commit {
        reserved: Some(9),
        records: vec![vote(1, 1, Vote::One(id)), state(1, 2, State::Zero), vote(2, 1, Vote::Undecided)],
        payloads: vec![(id, payload.clone())],
        ..Commit::default()
    };
    store.commit(&promised).unwrap();
    store.commit(&Commit { decisions: vec![(1, Some(id))], ..Commit::default() }).unwrap();
    // What is said about a decided slot need not be kept, even if it comes with the decision or after it.
    let late = Commit {
        records: vec![vote(1, 3, Vote::Zero), vote(3, 1, Vote::Zero)],
        decisions: vec![(3, None)],
        ..Commit::default()
    };
    store.commit(&late).unwrap();
    drop(store);
    let (store, recovered) = open(&path);
    assert_eq!(recovered.records, [vote(2, 1, Vote::Undecided)]);
    assert!(recovered.payloads.is_empty());
    assert_eq!((recovered.decided, &recovered.sparse[..]), (1, &[(3, None)][..]));
    assert_eq!(store.reader().payload(&id).unwrap(), Some(payload));
    assert_eq!(store.reader().payload(&batch(1, 2, 0).0).unwrap(), None);
}

#[test]
fn the_same_again_is_fine() {
    let (_directory, path) = new_store();
    let (mut store, _) = open(&path);
    let (id, payload) = batch(2, 1, 100);
    let commit = Commit {
        reserved: Some(9),
        records: vec![vote(2, 1, Vote::One(id))],
        payloads: vec![(id, payload.clone()), (id, payload)],
        decisions: vec![(1, Some(id)), (1, Some(id))],
        peers: vec![(node(2), memory(2, 1, 7)), (node(2), memory(2, 3, 5))],
        promised: Some(3),
        ..Commit::default()
    };
    store.commit(&commit).unwrap();
    store.commit(&commit).unwrap();
    drop(store);
    let (_, recovered) = open(&path);
    assert_eq!(recovered.promised, 3);
    assert_eq!(recovered.peers, [(node(2), memory(2, 1, 7))], "fewer promises are ignored");
    assert_eq!(recovered.records.len(), 1);
}

#[test]
fn a_contradiction_writes_nothing_and_ends_the_writing() {
    let (id, payload) = batch(1, 1, 100);
    let (unknown, _) = batch(1, 2, 100);
    let good = Commit {
        reserved: Some(9),
        records: vec![vote(2, 1, Vote::Zero)],
        payloads: vec![(id, payload.clone())],
        decisions: vec![(1, None)],
        peers: vec![(node(2), memory(2, 1, 5))],
        promised: Some(5),
        ..Commit::default()
    };
    let bad = [
        Commit { reserved: Some(8), ..Commit::default() },
        Commit { records: vec![vote(2, 1, Vote::One(id))], ..Commit::default() },
        Commit { records: vec![vote(9, 1, Vote::Zero)], ..Commit::default() },
        Commit { records: vec![vote(0, 1, Vote::Zero)], ..Commit::default() },
        Commit { records: vec![vote(3, 0, Vote::Zero)], ..Commit::default() },
        Commit { records: vec![vote(3, 1, Vote::One(unknown))], ..Commit::default() },
        Commit { payloads: vec![(unknown, payload)], ..Commit::default() },
        Commit { decisions: vec![(1, Some(id))], ..Commit::default() },
        Commit { decisions: vec![(0, None)], ..Commit::default() },
        Commit { decisions: vec![(3, None), (3, Some(id))], ..Commit::default() },
        Commit { decisions: vec![(3, Some(unknown))], ..Commit::default() },
        Commit { promised: Some(4), ..Commit::default() },
        Commit { promised: Some(MAX_PROMISES + 1), ..Commit::default() },
    ];
    for bad in bad {
        let (_directory, path) = new_store();
        let (mut store, _) = open(&path);
        store.commit(&good).unwrap();
        // What is good in it is not written either.
        let mixed = Commit { peers: vec![(node(3), memory(3, 1, 3))], ..bad.clone() };
        let error = store.commit(&mixed).unwrap_err();
        assert!(matches!(error, StoreError::Contradiction { .. }), "{bad:?}: {error}");
        assert!(matches!(store.commit(&Commit::default()), Err(StoreError::Stopped { .. })), "{bad:?}");
        drop(store);
        let expected = Model { starts: 2, ..Model::default().after(&good) }.recovered();
        assert_eq!(open(&path).1, expected, "{bad:?}");
    }
}

#[test]
fn entries_come_in_order_within_the_limit() {
    let (_directory, path) = new_store();
    let (mut store, _) = open(&path);
    let batches: Vec<_> = (1..=4).map(|sequence| batch(1, sequence, 1000)).collect();
    let decisions = vec![
        (1, Some(batches[0].0)),
        (2, None),
        (3, Some(batches[1].0)),
        (4, Some(batches[0].0)), // decided twice: one payload
        (5, Some(batches[2].0)),
        (7, Some(batches[3].0)),
    ];
    store.commit(&Commit { payloads: batches, decisions, ..Commit::default() }).unwrap();
    let slots = |from, max_bytes| -> Vec<u64> {
        found(store.reader().entries(from, max_bytes).unwrap()).into_iter().map(|entry| entry.slot).collect()
    };
    assert_eq!(slots(1, usize::MAX), [1, 2, 3, 4, 5]);
    assert_eq!(slots(1, 0), [1]);
    assert_eq!(slots(1, 1500), [1, 2]);
    assert_eq!(slots(3, 2200), [3, 4]);
    assert_eq!(slots(7, usize::MAX), [7]);
    for none in [0, 6, 8, u64::MAX] {
        assert!(slots(none, usize::MAX).is_empty());
    }
}

#[test]
fn readers_read_while_the_writer_writes() {
    const SLOTS: u64 = 200;
    let (_directory, path) = new_store();
    let (mut store, _) = open(&path);
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let reader = store.reader();
            std::thread::spawn(move || {
                let mut next = 1;
                while next <= SLOTS {
                    for entry in found(reader.entries(next, 10_000).unwrap()) {
                        assert_eq!(entry.slot, next);
                        assert_eq!(entry.batch, Some(batch(1, next, 300)));
                        next += 1;
                    }
                }
            })
        })
        .collect();
    for slot in 1..=SLOTS {
        let (id, payload) = batch(1, slot, 300);
        let commit = Commit { payloads: vec![(id, payload)], decisions: vec![(slot, Some(id))], ..Commit::default() };
        store.commit(&commit).unwrap();
    }
    for reader in readers {
        reader.join().unwrap();
    }
}

/// A batch may be decided again any time later, by nodes that have forgotten the first decision.
#[test]
fn a_payload_stays_as_long_as_a_decision_names_it() {
    const AGAIN: u64 = 3_000;
    let (_directory, path) = new_store();
    let (mut store, _) = open(&path);
    let (twice, once) = (batch(1, 1, 100), batch(1, 2, 100));
    let first = Commit {
        payloads: vec![twice.clone(), once.clone()],
        decisions: vec![(1, Some(twice.0)), (2, Some(once.0))],
        ..Commit::default()
    };
    store.commit(&first).unwrap();
    let mut decisions: Vec<_> = (3..AGAIN).map(|slot| (slot, None)).collect();
    decisions.push((AGAIN, Some(twice.0)));
    store.commit(&Commit { decisions, ..Commit::default() }).unwrap();
    let held = |store: &LogStore| [&twice, &once].map(|(id, _)| store.reader().payload(id).unwrap().is_some());
    assert_eq!(held(&store), [true, true]);

    // Also by a store that was opened after both decisions.
    drop(store);
    let (mut store, _) = open(&path);
    store.commit(&Commit { compact: Some(10), ..Commit::default() }).unwrap();
    assert_eq!(held(&store), [true, false]);
    assert_eq!(found(store.reader().entries(AGAIN, 1).unwrap())[0].batch, Some(twice.clone()));
    store.commit(&Commit { compact: Some(AGAIN), ..Commit::default() }).unwrap();
    assert_eq!(held(&store), [false, false]);
}

/// Decisions are written lazily, so after a crash the books may cover slots that the log lacks. Who asks for them must hear that
/// they are gone, and not that there is nothing: it would ask for ever.
#[test]
fn a_log_that_lacks_what_the_books_cover_begins_behind_them() {
    let (_directory, path) = new_store();
    let (mut store, _) = open(&path);
    let slots = [1, 2, 5, 6].map(|slot| batch(1, slot, 100));
    let decisions = [1, 2, 5, 6].into_iter().zip(&slots).map(|(slot, (id, _))| (slot, Some(*id))).collect();
    store.commit(&Commit { payloads: slots.to_vec(), decisions, ..Commit::default() }).unwrap();
    drop(store);

    // The books stand in the gapless part: nothing goes.
    let (store, recovered) = LogStore::open(&path, &identity(), || Ok(2)).unwrap();
    assert_eq!(recovered.decided, 2);
    assert_eq!(found(store.reader().entries(1, usize::MAX).unwrap()).len(), 2);
    drop(store);

    let (store, recovered) = LogStore::open(&path, &identity(), || Ok(4)).unwrap();
    assert_eq!(recovered.decided, 6);
    for slot in 1..=4 {
        let entries = store.reader().entries(slot, usize::MAX).unwrap();
        assert!(matches!(entries, Entries::Compacted { upto: 4 }), "slot {slot}: {entries:?}");
    }
    let left = found(store.reader().entries(5, usize::MAX).unwrap());
    assert_eq!(left.iter().map(|entry| entry.slot).collect::<Vec<_>>(), [5, 6]);
    assert!(store.reader().payload(&slots[0].0).unwrap().is_none(), "a payload that nothing names is still there");
}

fn found(entries: Entries) -> Vec<Entry> {
    match entries {
        Entries::Found(entries) => entries,
        Entries::Compacted { upto } => panic!("the log was compacted up to slot {upto}"),
    }
}

#[test]
fn a_store_takes_the_place_of_another_under_an_id_of_its_own() {
    let (directory, first) = new_store();
    let (second, store) = (directory.path().join("second.redb"), StoreId([0xaa; 16]));
    LogStore::create_replacing(&second, &identity(), store).unwrap();
    assert_eq!(open(&first).1.store, identity().genesis.stores[0]);
    let (_, recovered) = LogStore::open(&second, &identity(), || Ok(0)).unwrap();
    assert_eq!(recovered, Recovered::at_first_start(store, recovered.secret));
    assert!(matches!(refused(&second, |other| other.node = node(2)), StoreError::OtherNode { .. }));
    assert!(matches!(LogStore::create_replacing(&second, &identity(), store), Err(StoreError::Exists { .. })));

    // The books of the one are not those of the other.
    let books = [directory.path().join("first-books.redb"), directory.path().join("second-books.redb")];
    BooksStore::create(&books[0], &identity(), None).unwrap();
    BooksStore::create_replacing(&books[1], &identity(), store).unwrap();
    let [first, second] = [&books[0], &books[1]].map(|path| BooksReader::open(path, &identity()).unwrap());
    second.check_store(store).unwrap();
    assert!(matches!(first.check_store(store), Err(StoreError::OtherStore { .. })));
    drop((first, second));
    let [first, second] = books.map(|path| BooksStore::open(&path, &identity()).unwrap());
    second.check_store(store).unwrap();
    first.check_store(identity().genesis.stores[0]).unwrap();
    let error = first.check_store(store).unwrap_err();
    assert!(error.to_string().contains("was an old file put back?"), "{error}");
}

#[test]
fn what_is_remembered_of_a_store_is_kept_beside_that_of_another_until_it_goes() {
    let (_directory, path) = new_store();
    let (mut store, _) = open(&path);
    let peers = vec![(node(2), memory(2, 1, 9)), (node(3), memory(3, 1, 4))];
    store.commit(&Commit { peers, ..Commit::default() }).unwrap();
    store.commit(&Commit { peers: vec![(node(2), memory(0xaa, 2, 3))], ..Commit::default() }).unwrap();
    drop(store);
    let (mut store, recovered) = open(&path);
    let both = [(node(2), memory(2, 1, 9)), (node(2), memory(0xaa, 2, 3)), (node(3), memory(3, 1, 4))];
    assert_eq!(recovered.peers, both);
    store.commit(&Commit { forget: vec![(node(2), StoreId([2; 16]))], ..Commit::default() }).unwrap();
    drop(store);
    assert_eq!(open(&path).1.peers, both[1..]);
}

#[test]
fn a_store_knows_its_runs_and_how_many_promises_it_had_kept_when_each_began() {
    let (_directory, path) = new_store();
    for start in 1..=4 {
        let (mut store, recovered) = open(&path);
        let known: Vec<_> = recovered.runs.iter().map(|began| (began.start, began.run, began.promises)).collect();
        let expected: Vec<_> = (1..start).map(|run| (run, RunId([run as u8; 16]), 10 * (run - 1))).collect();
        assert_eq!(known, expected);
        let began = store.begin_run(RunId([start as u8; 16]), &recovered).unwrap();
        assert_eq!((began.start, began.promises), (start, 10 * (start - 1)));
        store.commit(&Commit { promised: Some(10 * start), ..Commit::default() }).unwrap();
    }
    let (mut store, _) = open(&path);
    store.commit(&Commit { forget_runs: Some(3), ..Commit::default() }).unwrap();
    drop(store);
    assert_eq!(open(&path).1.runs.iter().map(|began| began.start).collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn each_slot_has_the_hash_of_the_log_up_to_it_and_multiples_keep_it() {
    const SLOTS: u64 = 2 * DIGEST_INTERVAL + 10;
    let (_directory, path) = new_store();
    let (mut store, _) = open(&path);
    let hashes: Vec<Digest> = std::iter::successors(Some((0, Digest::ZERO)), |(slot, before)| {
        Some((slot + 1, log_hash(*before, slot + 1, &None)))
    })
    .map(|(_, hash)| hash)
    .take(SLOTS as usize + 1)
    .collect();
    let decisions = |slots: std::ops::RangeInclusive<u64>| Commit {
        decisions: slots.map(|slot| (slot, None)).collect(),
        ..Commit::default()
    };
    let known = |store: &LogStore, slot: u64| store.reader().hash(slot).unwrap();
    // Behind a gap it is not known.
    store.commit(&decisions(5..=9)).unwrap();
    assert_eq!(known(&store, 7), None);
    store.commit(&decisions(1..=4)).unwrap();
    assert_eq!(known(&store, 7), Some(hashes[7]));
    store.commit(&decisions(10..=SLOTS)).unwrap();
    drop(store);
    let (mut store, recovered) = open(&path);
    assert_eq!(recovered.hashes, hashes);
    assert_eq!(recovered.kept, Some((2 * DIGEST_INTERVAL, hashes[2 * DIGEST_INTERVAL as usize])));
    store.commit(&Commit { compact: Some(SLOTS - 3), ..Commit::default() }).unwrap();
    let multiples = [DIGEST_INTERVAL, 2 * DIGEST_INTERVAL];
    for slot in multiples.into_iter().chain(SLOTS - 3..=SLOTS) {
        assert_eq!(known(&store, slot), Some(hashes[slot as usize]), "slot {slot}");
    }
    assert_eq!((known(&store, SLOTS + 1), known(&store, SLOTS - 4)), (None, None));
    // A snapshot of another node brings its own.
    let installed = (SLOTS + 100, Digest([7; 32]));
    store.commit(&Commit { installed: Some(installed), ..Commit::default() }).unwrap();
    store.commit(&decisions(SLOTS + 101..=SLOTS + 101)).unwrap();
    let next = log_hash(Digest([7; 32]), SLOTS + 101, &None);
    assert_eq!((known(&store, SLOTS + 100), known(&store, SLOTS + 101)), (Some(Digest([7; 32])), Some(next)));
    assert_eq!(known(&store, DIGEST_INTERVAL), Some(hashes[DIGEST_INTERVAL as usize]));
    drop(store);
    let (_, recovered) = LogStore::open(&path, &identity(), || Ok(SLOTS + 100)).unwrap();
    assert_eq!(recovered.hashes, [Digest([7; 32]), next]);
}

#[test]
fn the_books_of_another_log_are_refused() {
    let (_directory, path) = new_store();
    let (mut store, _) = open(&path);
    let decisions = (1..=4).map(|slot| (slot, None)).collect();
    store.commit(&Commit { decisions, ..Commit::default() }).unwrap();
    let second = store.reader().hash(2).unwrap().unwrap();
    drop(store);
    let (mut store, mut recovered) = LogStore::open(&path, &identity(), || Ok(2)).unwrap();
    let error = store.settle(Digest([1; 32]), &mut recovered).unwrap_err();
    assert!(matches!(error, StoreError::OtherLog { slot: 2, .. }), "{error}");
    store.settle(second, &mut recovered).unwrap();
    drop(store);
    // The log lacks what the books cover, and learns the hash from them.
    let (mut store, mut recovered) = LogStore::open(&path, &identity(), || Ok(9)).unwrap();
    assert!(recovered.hashes.is_empty());
    store.settle(Digest([9; 32]), &mut recovered).unwrap();
    assert_eq!(recovered.hashes, [Digest([9; 32])]);
    drop(store);
    let (mut store, mut recovered) = LogStore::open(&path, &identity(), || Ok(9)).unwrap();
    assert_eq!(recovered.hashes, [Digest([9; 32])]);
    assert!(store.settle(second, &mut recovered).is_err());
}
