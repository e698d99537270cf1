//! Damage: whatever happens to the bytes of a store, it is found, or it did no harm. Nothing that is wrong is ever
//! recovered or served, and nothing is forgotten.

use crate::common::{Disk, Model, Random, batch, identity, node, read_log, state, vote};
use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::peer::{Entry, State, Vote};
use rabia_bank_messages::promise::{Commit, Recovered};
use rabia_bank_storage::{Entries, FORMAT, LogStore, StoreError};
use redb::{ReadableTable, TableDefinition};

const PAGE: usize = 4096;
/// redb's header: two commit slots and what chooses between them.
const HEADER: usize = 320;

/// What is in a store: as it was recovered, and its log.
type Contents = (Recovered, Vec<Entry>);

fn write_some(store: &mut LogStore) -> Model {
    let (mut model, mut random) = (Model { starts: 1, ..Model::default() }, Random(12));
    for _ in 0..40 {
        let commit = model.random_commit(&mut random);
        store.commit(&commit).unwrap();
        model.apply(&commit);
    }
    model
}

/// The image of a store that was closed, and what is in it.
fn closed_store() -> (Vec<u8>, Model) {
    let disk = Disk::default();
    LogStore::create_with(disk.clone(), &identity(), 0).unwrap();
    let (mut store, _) = LogStore::open_with(disk.clone(), &identity(), || Ok(0)).unwrap();
    let model = write_some(&mut store);
    drop(store);
    assert!(model.recovered().records.len() > 3 && model.entries().len() > 20);
    (disk.after_kill(), model)
}

fn read(image: Vec<u8>) -> Result<Contents, StoreError> {
    let (store, recovered) = LogStore::open_with(Disk::new(image), &identity(), || Ok(0))?;
    let log = read_log(&store)?;
    Ok((recovered, log))
}

fn contents(model: &Model) -> Contents {
    (Model { starts: model.starts + 1, ..model.clone() }.recovered(), model.entries())
}

/// Opens each damaged image. Whatever opens must hold one of `allowed`. Answers how many were refused.
fn check(images: impl Iterator<Item = (String, Vec<u8>)>, allowed: &[Contents]) -> (usize, usize) {
    let (mut refused, mut sound) = (0, 0);
    for (damage, image) in images {
        match read(image) {
            Ok(found) => {
                assert!(allowed.contains(&found), "{damage}: opened with other contents: {found:#?}");
                sound += 1;
            }
            Err(StoreError::Damaged { .. } | StoreError::Version { .. }) => refused += 1,
            Err(error) => panic!("{damage}: not an answer to damage: {error:?}"),
        }
    }
    (refused, sound)
}

fn flips(image: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let header = (0..HEADER).flat_map(|at| (0..8).map(move |bit| (at, 1 << bit)));
    let rest = (HEADER..image.len()).step_by(211).map(|at| (at, 1 << (at % 8)));
    header.chain(rest).map(|(at, mask)| {
        let mut image = image.to_vec();
        image[at] ^= mask;
        (format!("byte {at} xor {mask:#x}"), image)
    })
}

fn holes(image: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    [512, PAGE].into_iter().flat_map(move |size| {
        (0..image.len()).step_by(size).flat_map(move |at| {
            [0, 0xFF].map(|byte| {
                let mut image = image.to_vec();
                let end = image.len().min(at + size);
                image[at..end].fill(byte);
                (format!("{size} bytes from {at} set to {byte}"), image)
            })
        })
    })
}

fn swapped_pages(image: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let pages = image.len() / PAGE;
    let mut random = Random(3);
    (0..150).map(move |_| {
        let (one, other) = (random.below(pages as u64) as usize, random.below(pages as u64) as usize);
        let mut image = image.to_vec();
        let page = image[one * PAGE..(one + 1) * PAGE].to_vec();
        image.copy_within(other * PAGE..(other + 1) * PAGE, one * PAGE);
        image[other * PAGE..(other + 1) * PAGE].copy_from_slice(&page);
        (format!("pages {one} and {other} swapped"), image)
    })
}

fn noise(image: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..150u64).map(|seed| {
        let mut random = Random(seed);
        let mut image = image.to_vec();
        for _ in 0..1 + random.below(40) {
            let at = random.below(image.len() as u64) as usize;
            image[at] = random.next() as u8;
        }
        (format!("noise of seed {seed}"), image)
    })
}

fn cuts(image: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let early = (0..2 * HEADER).step_by(7);
    early.chain((2 * HEADER..image.len()).step_by(2039)).map(|length| {
        let cut = image[..length].to_vec();
        (format!("cut to {length} bytes"), cut)
    })
}

#[test]
fn a_closed_store_that_is_damaged_is_refused_or_whole() {
    let (image, model) = closed_store();
    let whole = [contents(&model)];
    assert_eq!(read(image.clone()).unwrap(), whole[0]);
    for (name, (refused, sound)) in [
        ("flips", check(flips(&image), &whole)),
        ("holes", check(holes(&image), &whole)),
        ("swaps", check(swapped_pages(&image), &whole)),
        ("noise", check(noise(&image), &whole)),
        ("cuts", check(cuts(&image), &whole)),
    ] {
        println!("{name}: {refused} refused, {sound} did no harm");
        assert!(refused > 0, "{name} hit nothing");
    }
}

/// After a crash, damage of the last commit looks as if that commit was torn: the one loss that can't be told.
#[test]
fn a_store_that_crashed_and_is_damaged_has_lost_its_last_commit_at_most() {
    let disk = Disk::default();
    LogStore::create_with(disk.clone(), &identity(), 0).unwrap();
    let (mut store, _) = LogStore::open_with(disk.clone(), &identity(), || Ok(0)).unwrap();
    let before = write_some(&mut store);
    let slot = before.recovered().decided + 1;
    let reserved = before.reserved + 100;
    let last = Commit { reserved: Some(reserved), decisions: vec![(slot + 50, None)], ..Commit::default() };
    store.commit(&last).unwrap();
    let image = disk.after_kill();
    let allowed = [contents(&before.after(&last)), contents(&before)];
    assert_eq!(read(image.clone()).unwrap(), allowed[0]);
    check(flips(&image), &allowed);
    check(holes(&image), &allowed);
    check(swapped_pages(&image), &allowed);
    check(noise(&image), &allowed);
    check(cuts(&image), &allowed);
}

#[test]
fn a_start_survives_damage_or_is_refused() {
    let (image, model) = closed_store();
    let disk = Disk::new(image);
    let (_store, recovered) = LogStore::open_with(disk.clone(), &identity(), || Ok(0)).unwrap();
    assert_eq!(recovered.starts, 2);
    // Killed before its first commit: the counter must not go back, whatever happens to the file.
    let allowed = [contents(&Model { starts: 2, ..model })];
    let image = disk.after_kill();
    // Byte 9 says which commit is the last, and that it took two syncs. No checksum covers it, so it may lead back.
    check(flips(&image).filter(|(damage, _)| !damage.starts_with("byte 9 ")), &allowed);
    check(holes(&image).filter(|(damage, _)| !damage.contains(" from 0 ")), &allowed);
    check(swapped_pages(&image), &allowed);
}

#[test]
fn what_is_no_store_is_refused() {
    let mut random = Random(5);
    let garbage: Vec<u8> = (0..100_000).map(|_| random.next() as u8).collect();
    let other = Disk::default();
    let database = redb::Builder::new().create_with_backend(other.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u64, u64>::new("other")).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for image in [vec![], vec![0], vec![0; 1 << 20], garbage, b"not a database".to_vec(), other.after_kill()] {
        let error = read(image).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    }
}

/// Changes a row behind the store's back, with redb's checksums in order.
fn tamper(image: Vec<u8>, table: &str, key: &[u8], change: impl FnOnce(Option<Vec<u8>>) -> Option<Vec<u8>>) -> Vec<u8> {
    let disk = Disk::new(image);
    let database = redb::Builder::new().create_with_backend(disk.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(TableDefinition::<&[u8], &[u8]>::new(table)).unwrap();
        let old = table.get(key).unwrap().map(|value| value.value().to_vec());
        match change(old) {
            Some(new) => drop(table.insert(key, &new[..]).unwrap()),
            None => drop(table.remove(key).unwrap()),
        }
    }
    transaction.commit().unwrap();
    drop(database);
    disk.after_kill()
}

fn flip_last(row: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut row = row.unwrap();
    *row.last_mut().unwrap() ^= 1;
    Some(row)
}

/// A row with a check value that fits, as the page of the crate says it is made.
fn row(table: &str, key: &[u8], body: &[u8]) -> Vec<u8> {
    let covered = [table.as_bytes(), &[0], &(key.len() as u32).to_be_bytes(), key, body].concat();
    [&crc32fast::hash(&covered).to_be_bytes()[..], body].concat()
}

fn decision_key(slot: Slot) -> Vec<u8> {
    [&[2][..], &slot.to_be_bytes()].concat()
}

fn record_key(slot: Slot, phase: u32, kind: u8) -> Vec<u8> {
    [&[3][..], &slot.to_be_bytes(), &phase.to_be_bytes(), &[kind]].concat()
}

/// Slot 1 decided on a batch, slot 2 on nothing; in slot 3 a vote and a state for another batch.
fn small_store() -> Vec<u8> {
    let disk = Disk::default();
    LogStore::create_with(disk.clone(), &identity(), 0).unwrap();
    let (mut store, _) = LogStore::open_with(disk.clone(), &identity(), || Ok(0)).unwrap();
    let (first, second) = (batch(1, 1, 500), batch(2, 1, 500));
    let commit = Commit {
        reserved: Some(10),
        records: vec![vote(3, 1, Vote::One(second.0)), state(3, 2, State::One(second.0))],
        payloads: vec![first.clone(), second],
        decisions: vec![(1, Some(first.0)), (2, None)],
        peers: vec![(node(2), crate::common::memory(2, 1, 3))],
        promised: Some(3),
        ..Commit::default()
    };
    store.commit(&commit).unwrap();
    drop(store);
    disk.after_kill()
}

fn batch_key(origin: u8, sequence: u64) -> Vec<u8> {
    let (id, _) = batch(origin, sequence, 500);
    [&[1, origin][..], &1u64.to_be_bytes(), &sequence.to_be_bytes(), &id.digest.0].concat()
}

#[test]
fn every_row_is_covered_by_its_check_value() {
    let image = small_store();
    let payload = |origin, sequence| format!("payload of batch {}", batch(origin, sequence, 500).0);
    let rows: [(&str, Vec<u8>, String); 13] = [
        ("meta", b"format".to_vec(), "key format".into()),
        ("meta", b"identity".to_vec(), "key identity".into()),
        ("meta", b"starts".to_vec(), "key starts".into()),
        ("meta", b"reserved".to_vec(), "key reserved".into()),
        ("meta", b"compacted".to_vec(), "key compacted".into()),
        ("meta", b"secret".to_vec(), "key secret".into()),
        ("log", record_key(3, 1, 1), "Vote of slot 3, phase 1".into()),
        ("log", record_key(3, 2, 0), "State of slot 3, phase 2".into()),
        ("log", batch_key(1, 1), payload(1, 1)),
        ("log", batch_key(2, 1), payload(2, 1)),
        ("log", decision_key(1), "decision of slot 1".into()),
        ("log", [vec![5, 2], vec![2; 16]].concat(), "memory of node 2".into()),
        ("log", vec![4], "count of promises".into()),
    ];
    for (table, key, shown) in &rows {
        for short in [0, 3] {
            let error = read(tamper(image.clone(), table, key, |_| Some(vec![0; short]))).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{table}: {error:?}");
        }
        let error = read(tamper(image.clone(), table, key, flip_last)).unwrap_err();
        let expected = format!("table {table}, {shown}: the check value does not fit");
        assert!(matches!(&error, StoreError::Damaged { what, .. } if *what == expected), "{error}");
    }
}

/// Rows whose check value fits, but which can't stand where they stand.
#[test]
fn rows_that_contradict_each_other_are_damage() {
    let image = small_store();
    type Case = (&'static str, Vec<u8>, Option<Vec<u8>>, &'static str);
    let cases: [Case; 17] = [
        ("meta", b"starts".to_vec(), None, "the row is missing"),
        ("meta", b"reserved".to_vec(), Some(3u64.to_be_bytes().to_vec()), "at or above the reserved slot 3"),
        ("meta", b"starts".to_vec(), Some(vec![0; 9]), "9 bytes where 8 should be"),
        ("meta", b"starts".to_vec(), Some(vec![0xFF; 8]), "the start counter is at its end"),
        ("log", batch_key(1, 1), None, "names this payload, but it is missing"),
        ("log", batch_key(2, 1), None, "names this payload, but it is missing"),
        ("log", batch_key(1, 1), Some(vec![1; 500]), "does not have the digest of its id"),
        ("log", record_key(2, 1, 1), Some(b"\xa4Zero".to_vec()), "the slot is decided"),
        ("log", record_key(4, 1, 2), Some(b"\xa4Zero".to_vec()), "no key of a record"),
        ("log", record_key(4, 1, 1), Some(b"\xa7Abstain".to_vec()), "unknown variant"),
        ("log", decision_key(0), Some(vec![0xC0]), "no number of a slot"),
        ("log", decision_key(3), Some(vec![0x92, 0xC0, 0xC0, 0xC0]), "1 bytes behind its end"),
        ("log", decision_key(3), Some(vec![0xDC, 0, 2, 0xC0, 0xC0]), "not the encoding of what it decodes to"),
        ("log", decision_key(2), Some(vec![0x92, 0xC0, 0xC0]), "does not follow from the one before"),
        ("log", vec![4], Some(vec![0; 9]), "9 bytes where 8 should be"),
        ("log", vec![5, 2, 2], Some(vec![0xC0]), "no store of a node"),
        ("meta", b"secret".to_vec(), None, "no 32 bytes"),
    ];
    for (table, key, body, expected) in cases {
        let new = body.map(|body| row(table, &key, &body));
        let error = read(tamper(image.clone(), table, &key, |_| new)).unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { what, .. } if what.contains(expected)), "{expected}: {error}");
    }
}

#[test]
fn a_row_that_was_moved_is_damage() {
    let image = small_store();
    let mut moved = None;
    let taken = tamper(image, "log", &decision_key(1), |row| {
        moved.clone_from(&row);
        row
    });
    let error = read(tamper(taken, "log", &decision_key(3), |_| moved)).unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { what, .. } if what.contains("check value")), "{error}");
}

#[test]
fn a_later_format_is_not_read() {
    let image = small_store();
    // The next one is that of a store which took the place of another.
    let later = row("meta", b"format", &(FORMAT + 2).to_be_bytes());
    let error = read(tamper(image, "meta", b"format", |_| Some(later))).unwrap_err();
    assert!(matches!(error, StoreError::Version { found, known: FORMAT, .. } if found == FORMAT + 2), "{error}");
}

#[test]
fn damage_of_a_payload_is_found_when_it_is_served() {
    let image = small_store();
    let wrong = row("log", &batch_key(1, 1), &[1; 500]);
    let image = tamper(image, "log", &batch_key(1, 1), |_| Some(wrong));
    let (store, recovered) = LogStore::open_with(Disk::new(image), &identity(), || Ok(0)).unwrap();
    assert_eq!(recovered.decided, 2);
    assert!(matches!(store.reader().payload(&batch(1, 1, 500).0), Err(StoreError::Damaged { .. })));
    assert!(matches!(store.reader().entries(1, 1000), Err(StoreError::Damaged { .. })));
    assert!(matches!(store.reader().entries(2, 1000), Ok(Entries::Found(entries)) if entries.len() == 1));
}
