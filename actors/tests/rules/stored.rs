//! The log on disk.

use rabia_bank_messages::batch::BatchBuilder;
use rabia_bank_messages::peer::Vote;
use rabia_bank_messages::promise::{Commit, Record, Said};
use rabia_bank_messages::sabotage::{Rule, ensure, shows};
use rabia_bank_storage::{LogStore, StoreError};

use super::{identity, node};

/// A batch that is decided and voted for again: its origin has forgotten that.
#[test]
fn payloads_that_records_name_stay_when_the_log_below_them_goes() {
    shows(Rule::NamedPayloadsStay, || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.redb");
        LogStore::create(&path, &identity(), 0).unwrap();
        let (mut log, _) = LogStore::open(&path, &identity(), || Ok(0)).unwrap();
        let (id, payload) = BatchBuilder::default().finish(node(2), 1, 1, 1);
        let record = Record { slot: 30, phase: 1, said: Said::Vote(Vote::One(id)) };
        let decisions = (1..=10).map(|slot| (slot, (slot == 4).then_some(id))).collect();
        let payloads = vec![(id, payload.clone())];
        let commit = Commit { reserved: Some(40), payloads, decisions, records: vec![record], ..Commit::default() };
        log.commit(&commit).unwrap();
        log.commit(&Commit { compact: Some(10), ..Commit::default() }).unwrap();
        drop(log);
        let (_, recovered) = LogStore::open(&path, &identity(), || Ok(10)).map_err(|error| error.to_string())?;
        ensure(recovered.payloads == [(id, payload)], format!("{recovered:?}"))
    });
}

#[test]
fn books_that_end_before_the_log_begins_are_refused() {
    shows(Rule::BooksReachLog, || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.redb");
        LogStore::create(&path, &identity(), 0).unwrap();
        let (mut log, _) = LogStore::open(&path, &identity(), || Ok(0)).unwrap();
        let decisions = (1..=20).map(|slot| (slot, None)).collect();
        log.commit(&Commit { decisions, ..Commit::default() }).unwrap();
        log.commit(&Commit { compact: Some(12), ..Commit::default() }).unwrap();
        drop(log);
        // An older copy of the books was put back beside it.
        match LogStore::open(&path, &identity(), || Ok(11)) {
            Err(StoreError::Gap { compacted: 12, books: 11, .. }) => {}
            other => return Err(format!("{:?}", other.map(|(_, recovered)| recovered))),
        }
        let (_, recovered) = LogStore::open(&path, &identity(), || Ok(12)).map_err(|error| error.to_string())?;
        ensure(recovered.decided == 20, format!("{recovered:?}"))
    });
}
