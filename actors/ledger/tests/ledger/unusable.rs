//! Batches that were decided and can't be applied: each counts as an empty one, the same everywhere, and is remembered.

use rabia_bank_ledger::{Applied, NAMED};
use rabia_bank_messages::bank::{Command, Success};
use rabia_bank_messages::batch::{Action, MAX_STAMP, Payload};
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, SessionKey, StoreId};

use crate::support::*;

fn named(sequence: u64, bytes: Vec<u8>) -> (BatchId, Payload) {
    let payload = Payload::new(bytes);
    let origin = NodeId::new(2).unwrap();
    (BatchId { origin, incarnation: 7, sequence, digest: Digest::of(payload.bytes()) }, payload)
}

/// One of each kind: cut off, of an unknown version, with too much behind it, stamped too late, with a command that nobody knows,
/// and two replacements that are none.
fn all_kinds() -> Vec<Vec<u8>> {
    let mut bank = Bank::new();
    bank.stamp = 5_000;
    let (_, whole) = bank
        .payload(&[open(SessionKey([3; 16])), (header(SESSION, 2, 1), Action::Command(Command::One(deposit("a", 1))))]);
    let whole = whole.bytes().to_vec();
    let mut late = whole.clone();
    late[1..9].copy_from_slice(&(MAX_STAMP + 1).to_be_bytes());
    let mut latest = whole.clone();
    latest[1..9].copy_from_slice(&u64::MAX.to_be_bytes());
    let at = whole.windows(7).position(|window| window == b"deposit").unwrap();
    let mut unknown = whole.clone();
    unknown[at..at + 7].copy_from_slice(b"destroy");
    let replacing = Payload::replacing(NodeId::new(2).unwrap(), StoreId([9; 16]), 5_000).bytes().to_vec();
    let nobody = [&replacing[..9], &[200], &replacing[10..]].concat();
    let mut late_store = replacing.clone();
    late_store[1..9].copy_from_slice(&u64::MAX.to_be_bytes());
    let longer = [&whole[..], &[0]].concat();
    let (cut, other) = (whole[..whole.len() - 1].to_vec(), [&[9], &whole[1..]].concat());
    let short = replacing[..20].to_vec();
    vec![Vec::new(), cut, other, longer, late, latest, unknown, nobody, late_store, short]
}

#[test]
fn each_is_applied_as_an_empty_batch_and_named() {
    let (mut bank, mut other) = (Bank::new(), Bank::new());
    for bank in [&mut bank, &mut other] {
        bank.done(create("a", 5));
    }
    let mut digests = vec![bank.ledger.digest()];
    let mut expected = Vec::new();
    for (sequence, bytes) in (1..).zip(all_kinds()) {
        let (id, payload) = named(sequence, bytes);
        let before = bank.ledger.summary();
        let Applied::Unusable(why) = bank.apply(Some((&id, &payload))) else { panic!("{payload:?} was applied") };
        assert_eq!(payload.check::<Command>(), Err(why));
        let after = bank.ledger.summary();
        let changed = (after.applied, after.decided_slots, after.unusable_batches);
        assert_eq!(changed, (before.applied + 1, before.decided_slots + 1, sequence));
        assert_eq!(
            (after.accounts, after.transactions, after.sessions),
            (before.accounts, before.transactions, before.sessions)
        );
        expected.push((after.applied, id));
        assert!(!digests.contains(&bank.ledger.digest()), "it shows in the digest");
        digests.push(bank.ledger.digest());
        // It is the same whether many are applied in a row, and when the digest is asked.
        other.ledger.replay(after.applied, Some((&id, &payload)));
        // Decided once more it is an ordinary repetition.
        if sequence == 1 {
            assert_eq!(bank.apply(Some((&id, &payload))), Applied::Repeated);
            assert_eq!(other.apply(Some((&id, &payload))), Applied::Repeated);
        }
    }
    assert_eq!(bank.ledger.unusable().newest().collect::<Vec<_>>(), expected);
    assert_eq!(bank.ledger.digest(), other.ledger.digest());
    // Nothing moved the time, and the bank goes on.
    bank.stamp = 1_001;
    match bank.command(Command::One(deposit("a", 1))) {
        Ok(Success::Transaction { transaction }) => assert_eq!(transaction.timestamp, 1_001),
        other => panic!("{other:?}"),
    }
    bank.reload();
    assert_eq!(bank.ledger.unusable().newest().collect::<Vec<_>>(), expected);
    assert_eq!(bank.balance("a"), 6);
}

#[test]
fn the_newest_are_named_and_all_are_counted() {
    let mut bank = Bank::new();
    let first = bank.ledger.applied() + 1;
    for sequence in 1..=NAMED as u64 + 5 {
        let (id, payload) = named(sequence, vec![9, 9]);
        assert!(matches!(bank.apply(Some((&id, &payload))), Applied::Unusable(_)));
    }
    bank.reload();
    let unusable = bank.ledger.unusable();
    assert_eq!((unusable.count(), unusable.newest().len()), (NAMED as u64 + 5, NAMED));
    assert_eq!(unusable.newest().next().map(|(slot, _)| slot), Some(first + 5));
}
