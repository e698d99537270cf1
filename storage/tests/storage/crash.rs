//! Crashes: whatever a power failure leaves of what was not synced, what was acknowledged is there, and what was not
//! is there as a whole or not at all. `CRASH_SEEDS=10000 cargo test --release --workspace --test storage crash::` looks
//! longer; a failure names its seed, and `CRASH_SEED=n` runs that one alone.

use std::io::ErrorKind;

use crate::common::{Disk, Model, Random, identity, read_log};
use rabia_bank_messages::promise::{Commit, Recovered};
use rabia_bank_storage::{LogStore, StoreError};

/// Seeds in a normal run: a few seconds.
const SEEDS: u64 = 150;
/// Crashes in the life of one store.
const CRASHES: usize = 8;
/// A run of a store ends within so many writes and syncs of its disk.
const LONGEST_RUN: u64 = 200;

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("CRASH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CRASH_SEEDS").unwrap_or(SEEDS),
    }
}

#[test]
fn after_a_power_failure_everything_acknowledged_is_there() {
    let (mut torn, mut kept, mut lost) = (0, 0, 0);
    for seed in seeds() {
        let mut random = Random(seed);
        let mut image = Vec::new();
        let disk = Disk::new(image.clone());
        LogStore::create_with(disk.clone(), &identity(), 0).unwrap();
        image.clone_from(&disk.after_power_failure(&mut random));
        let mut model = Model::default();
        let mut in_flight: Option<Commit> = None;
        // The failed starts whose raised counter may be durable.
        let mut silent_starts = 0;
        for crash in 0..CRASHES {
            let disk = Disk::new(image);
            // The last time nothing fails.
            if crash + 1 < CRASHES {
                disk.fail_after(random.below(LONGEST_RUN), ErrorKind::Other);
            }
            match LogStore::open_with(disk.clone(), &identity(), || Ok(0)) {
                Err(error) => {
                    assert!(disk.has_failed(), "seed {seed}, crash {crash}: {error}");
                    silent_starts += 1;
                }
                Ok((mut store, recovered)) => {
                    let raised = recovered.starts - model.starts;
                    assert!(
                        (1..=silent_starts + 1).contains(&raised),
                        "seed {seed}, crash {crash}: raised by {raised}"
                    );
                    (model.starts, silent_starts) = (recovered.starts, 0);
                    if let Some(commit) = in_flight.take() {
                        torn += 1;
                        let with = model.after(&commit);
                        if recovered == with.recovered() && recovered != model.recovered() {
                            kept += 1;
                            model = with;
                        } else {
                            lost += 1;
                        }
                    }
                    check(&model, &store, &recovered, seed, crash);
                    in_flight = run(&mut model, &mut store, &disk, &mut random);
                }
            }
            image = disk.after_power_failure(&mut random);
        }
    }
    println!("{torn} commits were in flight: {kept} were there afterwards, {lost} were not");
    if seeds().count() > 100 {
        assert!(kept > 20 && lost > 20, "the crashes hit nothing: {kept} kept, {lost} lost");
    }
}

fn check(model: &Model, store: &LogStore, recovered: &Recovered, seed: u64, crash: usize) {
    assert_eq!(*recovered, model.recovered(), "seed {seed}, crash {crash}");
    assert_eq!(read_log(store).unwrap(), model.entries(), "seed {seed}, crash {crash}");
}

/// Commits until the disk fails, or for a while. Answers the commit that failed.
fn run(model: &mut Model, store: &mut LogStore, disk: &Disk, random: &mut Random) -> Option<Commit> {
    for _ in 0..40 {
        let commit = model.random_commit(random);
        match store.commit(&commit) {
            Ok(()) => model.apply(&commit),
            Err(error) => {
                assert!(disk.has_failed(), "{error}");
                assert!(matches!(store.commit(&commit), Err(StoreError::Stopped { .. })));
                return Some(commit);
            }
        }
    }
    assert_eq!(read_log(store).unwrap(), model.entries());
    None
}

#[test]
fn a_creation_that_was_cut_short_is_no_store_or_a_whole_one() {
    let whole = Disk::default();
    LogStore::create_with(whole.clone(), &identity(), 0).unwrap();
    let (mut none, mut some) = (0, 0);
    for changes in 0..whole.changes() {
        for seed in 0..20 {
            let disk = Disk::default();
            disk.fail_after(changes, ErrorKind::Other);
            LogStore::create_with(disk.clone(), &identity(), 0).unwrap_err();
            let image = disk.after_power_failure(&mut Random(seed));
            match LogStore::open_with(Disk::new(image), &identity(), || Ok(0)) {
                Ok((_, recovered)) => {
                    assert_eq!(recovered, Model { starts: 1, ..Model::default() }.recovered());
                    some += 1;
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
                    none += 1;
                }
            }
        }
    }
    assert!(none > 0 && some > 0, "{none} were no store, {some} were whole");
}

#[test]
fn a_full_disk_says_so_and_keeps_what_was_acknowledged() {
    let writing = |disk: &Disk| -> (Model, Option<(Commit, StoreError)>) {
        let mut model = Model::default();
        let (mut store, recovered) = LogStore::open_with(disk.clone(), &identity(), || Ok(0)).unwrap();
        model.starts = recovered.starts;
        let mut random = Random(4);
        for _ in 0..30 {
            let commit = model.random_commit(&mut random);
            if let Err(error) = store.commit(&commit) {
                assert!(matches!(store.commit(&commit), Err(StoreError::Stopped { .. })));
                return (model, Some((commit, error)));
            }
            model.apply(&commit);
        }
        (model, None)
    };
    let fresh = Disk::default();
    LogStore::create_with(fresh.clone(), &identity(), 0).unwrap();
    let image = fresh.after_kill();
    let whole = Disk::new(image.clone());
    assert!(writing(&whole).1.is_none());
    let opening = {
        let disk = Disk::new(image.clone());
        let _store = LogStore::open_with(disk.clone(), &identity(), || Ok(0)).unwrap();
        disk.changes()
    };
    for changes in (opening..whole.changes()).step_by(3) {
        let disk = Disk::new(image.clone());
        disk.fail_after(changes, ErrorKind::StorageFull);
        let (model, failed) = writing(&disk);
        let Some((commit, error)) = failed else { continue }; // it failed while closing
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        let (store, recovered) = LogStore::open_with(Disk::new(disk.after_kill()), &identity(), || Ok(0)).unwrap();
        let (without, with) = (Model { starts: 2, ..model.clone() }, Model { starts: 2, ..model.after(&commit) });
        let found = if recovered == without.recovered() { without } else { with };
        check(&found, &store, &recovered, 4, 0);
    }
}

#[test]
fn a_commit_is_one_sync() {
    let disk = Disk::default();
    LogStore::create_with(disk.clone(), &identity(), 0).unwrap();
    let (mut store, _) = LogStore::open_with(disk.clone(), &identity(), || Ok(0)).unwrap();
    let (mut model, mut random) = (Model::default(), Random(1));
    let mut more = 0;
    for _ in 0..200 {
        let commit = model.random_commit(&mut random);
        let before = disk.syncs();
        store.commit(&commit).unwrap();
        match disk.syncs() - before {
            0 => assert!(commit.is_empty(), "{commit:?} was not synced"),
            1 => {}
            // The file grew, which is synced first.
            _ => more += 1,
        }
        model.apply(&commit);
    }
    assert!(more < 10, "{more} of 200 commits took more than one sync");
}
