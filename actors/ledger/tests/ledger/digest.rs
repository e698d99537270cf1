//! The state digest: what it covers, and that nothing else shows in it.

use rabia_bank_messages::bank::Command;
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::ids::{Digest, SessionKey};

use crate::support::*;

/// Batches that touch everything the digest is over, among them accounts that change often, replies that are kept,
/// acknowledged and closed, and an atomic bulk that is undone.
fn script() -> Vec<Vec<(RequestHeader, Action)>> {
    let command = |number, acknowledged, command| (header(SESSION, number, acknowledged), Action::Command(command));
    let one = |number, acknowledged, operation| command(number, acknowledged, Command::One(operation));
    let third = RequestHeader { key: SessionKey([3; 16]), ..header(3, 1, 0) };
    vec![
        vec![open(SessionKey([3; 16])), one(1, 0, create("a", 100)), one(2, 0, create("b", 0))],
        vec![one(3, 1, transfer("a", "b", 10)), one(4, 1, transfer("b", "a", 5)), one(5, 1, withdraw("nobody", 1))],
        vec![command(6, 4, bulk(true, vec![create("c", 5), deposit("a", 1), withdraw("c", 6)]))],
        vec![command(7, 4, bulk(false, vec![create("c", 5), deposit("x", 1), withdraw("c", 5)]))],
        vec![(third, Action::Command(Command::One(create("d", 1)))), one(3, 4, deposit("a", 1))],
        vec![(RequestHeader { number: 0, ..third }, Action::Close), one(8, 7, deposit("d", 1))],
        vec![],
    ]
}

#[test]
fn it_makes_no_difference_when_it_is_asked() {
    let (mut asked, mut silent) = (Bank::new(), Bank::new());
    let mut seen = vec![asked.ledger.digest()];
    for (stamp, requests) in (5_000..).zip(script()) {
        for bank in [&mut asked, &mut silent] {
            bank.stamp = stamp;
            bank.batch(&requests);
        }
        seen.push(asked.ledger.digest());
        assert_eq!(asked.ledger.digest(), asked.ledger.digest());
    }
    assert_eq!(asked.ledger.digest(), silent.ledger.digest());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), script().len() + 1, "every batch shows in the digest");
}

#[test]
fn it_makes_no_difference_when_much_is_hashed_in_between() {
    let (mut asked, mut silent) = (Bank::new(), Bank::new());
    for bank in [&mut asked, &mut silent] {
        for first in [0, 5_000, 10_000] {
            bank.command(bulk(false, (first..first + 5_000).map(|n| create(&format!("account-{n}"), 1)).collect()))
                .ok();
        }
    }
    for number in 1..=10_000u64 {
        let operation = transfer("account-1", &format!("account-{number}"), 1);
        let acknowledged = if number > 8_000 { number - 1 } else { 0 };
        let request = (header(SESSION, number, acknowledged), Action::Command(Command::One(operation)));
        for bank in [&mut asked, &mut silent] {
            bank.batch(std::slice::from_ref(&request));
        }
        if number % 7 == 0 {
            asked.ledger.digest();
        }
    }
    assert_eq!(asked.ledger.digest(), silent.ledger.digest());
}

/// The digest after some requests in a third batch.
fn digest_after(stamp: u64, requests: &[(RequestHeader, Action)]) -> Digest {
    let mut bank = Bank::new();
    bank.done(create("a", 10));
    bank.stamp = stamp;
    bank.batch(requests);
    bank.ledger.digest()
}

#[test]
fn it_covers_what_later_answers_depend_on() {
    let request = |number, acknowledged, operation| {
        (header(SESSION, number, acknowledged), Action::Command(Command::One(operation)))
    };
    let refused = withdraw("a", 11);
    let digests = [
        ("nothing", digest_after(1_000, &[])),
        ("log time", digest_after(1_001, &[])),
        ("a refusal's reply", digest_after(1_000, &[request(1, 0, refused.clone())])),
        ("another number", digest_after(1_000, &[request(2, 0, refused.clone())])),
        ("another command", digest_after(1_000, &[request(2, 0, withdraw("a", 12))])),
        ("what is acknowledged", digest_after(1_000, &[request(2, 1, refused.clone())])),
        ("a session", digest_after(1_000, &[open(SessionKey([3; 16]))])),
        ("its key", digest_after(1_000, &[open(SessionKey([4; 16]))])),
        ("an account", digest_after(1_000, &[request(1, 0, create("b", 0))])),
        ("its name", digest_after(1_000, &[request(1, 0, create("c", 0))])),
        ("its settings", digest_after(1_000, &[request(1, 0, create_as("b", 0, |new| new.code = Some("c".into())))])),
        ("a change of nothing", digest_after(1_000, &[request(1, 0, set("a", |_| {}))])),
        ("a change of its name", digest_after(1_000, &[request(1, 0, set("a", |set| set.name = Some("A".into())))])),
        ("an asset", digest_after(1_000, &[request(1, 0, asset("EUR", 2, 1))])),
        ("its limit", digest_after(1_000, &[request(1, 0, asset("EUR", 2, 2))])),
        ("a transaction", digest_after(1_000, &[request(1, 0, deposit("a", 1))])),
        ("a log position", digest_after(1_000, &[(header(77, 1, 0), Action::Close)])),
    ];
    for (at, (one, digest)) in digests.iter().enumerate() {
        for (other, same) in &digests[..at] {
            assert_ne!(digest, same, "{one} and {other}");
        }
    }
}

#[test]
fn it_does_not_cover_the_slot() {
    let mut bank = Bank::new();
    let before = bank.ledger.digest();
    bank.apply(None);
    assert_eq!(bank.ledger.digest(), before);
}

#[test]
fn a_closed_session_leaves_only_its_key_and_log_positions() {
    let key = SessionKey([3; 16]);
    let (mut one, mut other) = (Bank::new(), Bank::new());
    one.batch(&[open(key)]);
    let command = RequestHeader { key, ..header(3, 1, 0) };
    one.batch(&[(command, Action::Command(Command::One(withdraw("nobody", 1))))]);
    one.ledger.digest();
    one.batch(&[(RequestHeader { number: 0, ..command }, Action::Close)]);
    let nothing = [(header(77, 1, 0), Action::Close)];
    other.batch(&[open(key)]);
    other.batch(&nothing);
    other.batch(&[(RequestHeader { number: 0, ..command }, Action::Close)]);
    assert_eq!(one.ledger.digest(), other.ledger.digest());
    // The key makes a difference to who opens a session.
    let mut never = Bank::new();
    (0..3).for_each(|_| drop(never.batch(&nothing)));
    assert_ne!(one.ledger.digest(), never.ledger.digest());
}
