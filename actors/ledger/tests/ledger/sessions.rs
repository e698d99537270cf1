//! Sessions, retries, and batches that are decided twice.

use rabia_bank_ledger::{Applied, Keeper, Loading, Rejection, RequestOutcome};
use rabia_bank_messages::bank::{Command, ErrorCode, MAX_BULK, Operation, Outcome, Success};
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::genesis::SessionLimits;
use rabia_bank_messages::ids::{BatchId, NodeId, SessionKey};

use crate::support::*;

fn act(operation: Operation) -> Action {
    Action::Command(Command::One(operation))
}

#[test]
fn a_session_is_the_position_of_its_opening_in_the_log() {
    let mut bank = Bank::new();
    bank.done(create("a", 0));
    let outcomes = bank.batch(&[
        (header(SESSION, 2, 0), act(deposit("a", 1))),
        (header(99, 1, 0), act(deposit("a", 1))),
        open(SessionKey([1; 16])),
        open(SessionKey([2; 16])),
    ]);
    assert_eq!(outcomes[2..], [6, 7].map(|session| RequestOutcome::Opened { session, new: true }));
    assert_eq!(bank.ledger.summary().sessions, 4);
}

#[test]
fn a_key_opens_one_session_and_never_another() {
    let mut bank = Bank::new();
    assert_eq!(
        bank.batch(&[open(KEY), open(KEY)]),
        [SESSION, SESSION].map(|session| RequestOutcome::Opened { session, new: false })
    );
    assert_eq!(bank.request(header(SESSION, 0, 0), Action::Close), RequestOutcome::Closed);
    assert_eq!(bank.ledger.summary().sessions, 1);
    assert_eq!(bank.batch(&[open(KEY)]), [RequestOutcome::Rejected(Rejection::KeyUsed)]);
    bank.reload();
    assert_eq!(bank.batch(&[open(KEY)]), [RequestOutcome::Rejected(Rejection::KeyUsed)], "after a snapshot");
    let refusal = Rejection::KeyUsed.refusal();
    assert_eq!((refusal.code, refusal.outcome), (ErrorCode::SessionExpired, Outcome::Unknown));
}

/// What a client said in a session of the old cluster must not be executed again in the new one.
#[test]
fn the_keys_of_a_bank_open_nothing_in_one_that_is_made_of_its_backup() {
    let mut bank = Bank::new();
    let ended = SessionKey([9; 16]);
    let [RequestOutcome::Opened { session, .. }] = bank.batch(&[open(ended)])[..] else { panic!() };
    bank.request(RequestHeader { key: ended, ..header(session, 0, 0) }, Action::Close);
    bank.reload();
    let mut rows = bank.rows.clone();
    let mut saved = Loading::new(&rows.state).unwrap();
    rows.sessions.iter().for_each(|(key, row)| saved.session(*key, row).unwrap());
    let keys = saved.end_sessions();
    let mut loading = Loading::of_backup(&rows.state).unwrap();
    rows.accounts.iter().for_each(|(page, row)| loading.accounts(*page, row).unwrap());
    keys.iter().for_each(|(key, row)| loading.session(*key, row).unwrap());
    rows.state = loading.into_new_cluster(None, u64::MAX).unwrap();
    rows.sessions = keys.iter().cloned().collect();
    bank.ledger = rows.load().unwrap();
    for key in [KEY, ended] {
        assert_eq!(bank.batch(&[open(key)]), [RequestOutcome::Rejected(Rejection::KeyUsed)]);
    }
    assert!(matches!(bank.batch(&[open(SessionKey([1; 16]))])[..], [RequestOutcome::Opened { new: true, .. }]));
    assert_eq!(bank.ledger.summary().sessions, 1);
}

#[test]
fn nobody_speaks_in_an_unknown_session_or_without_its_key() {
    let mut bank = Bank::new();
    bank.done(create("a", 0));
    let stranger = RequestHeader { key: SessionKey([8; 16]), ..header(SESSION, 2, 1) };
    for (header, session) in [(header(2, 2, 0), 2), (header(3, 2, 0), 3), (header(0, 2, 0), 0), (stranger, SESSION)] {
        for action in [act(deposit("a", 1)), Action::Close] {
            let expected = RequestOutcome::Rejected(Rejection::SessionExpired { session });
            assert_eq!(bank.request(header, action), expected);
        }
    }
    let refusal = Rejection::SessionExpired { session: 2 }.refusal();
    assert_eq!((refusal.code, refusal.outcome), (ErrorCode::SessionExpired, Outcome::Unknown));
    assert_eq!((bank.balance("a"), bank.ledger.summary().sessions), (0, 2));
}

#[test]
fn a_closed_session_stays_closed() {
    let mut bank = Bank::new();
    bank.done(create("a", 0));
    bank.request(header(SESSION, 0, 0), Action::Close);
    bank.batch(&[open(KEY)]);
    let late = bank.request(header(SESSION, 2, 0), act(deposit("a", 1)));
    assert_eq!(late, RequestOutcome::Rejected(Rejection::SessionExpired { session: SESSION }));
    assert_eq!(bank.balance("a"), 0);
}

#[test]
fn a_repeated_request_gets_the_first_answer() {
    let mut bank = Bank::new();
    bank.done(create("a", 10));
    for operation in [withdraw("a", 6), withdraw("a", 60)] {
        let number = 2 + u64::from(operation == withdraw("a", 60));
        let first = bank.request(header(SESSION, number, 0), act(operation.clone()));
        let RequestOutcome::Command { slot, index: 0, replayed: false, outcome } = first else { panic!("{first:?}") };
        assert_eq!(slot, bank.ledger.applied());
        let answer = bank.render(&outcome);
        bank.done(create(&format!("other-{number}"), 0));
        // Had it run again, the first would be refused now and the second be carried out.
        bank.run(deposit("a", 1000)).ok();
        let again = bank.request(header(SESSION, number, 0), act(operation));
        let expected = RequestOutcome::Command { slot, index: 0, replayed: true, outcome: outcome.clone() };
        assert_eq!(again, expected);
        assert_eq!(bank.render(&outcome), answer);
        bank.run(withdraw("a", 1000)).ok();
    }
    assert_eq!(bank.balance("a"), 4);
}

#[test]
fn a_repeated_creation_and_bulk_are_answered_as_the_first_time() {
    let mut bank = Bank::new();
    let items = vec![create("b", 5), deposit("c", 1), create("d", 0)];
    let commands = [Command::One(create("a", 5)), bulk(false, items.clone()), bulk(true, items)];
    for (number, command) in (1..).zip(commands) {
        let first = bank.request(header(SESSION, number, 0), Action::Command(command.clone()));
        let RequestOutcome::Command { outcome, .. } = first else { panic!("{first:?}") };
        let answer = bank.render(&outcome);
        let change = vec![deposit("a", 1), deposit("b", 1), create("c", 0), deposit("d", 1)];
        bank.request(header(SESSION, 10 + number, 0), Action::Command(bulk(false, change)));
        let again = bank.request(header(SESSION, number, 0), Action::Command(command));
        let RequestOutcome::Command { replayed: true, outcome, .. } = again else { panic!("{again:?}") };
        assert_eq!(bank.render(&outcome), answer);
    }
}

#[test]
fn one_batch_may_repeat_its_own_request() {
    let mut bank = Bank::new();
    bank.done(create("a", 0));
    let request = (header(SESSION, 2, 1), act(deposit("a", 5)));
    let outcomes = bank.batch(&[request.clone(), request]);
    let replayed: Vec<_> =
        outcomes.iter().map(|o| matches!(o, RequestOutcome::Command { replayed: true, .. })).collect();
    assert_eq!((replayed, bank.balance("a")), (vec![false, true], 5));
}

#[test]
fn an_outcome_names_the_place_of_its_request_also_when_it_is_repeated() {
    let mut bank = Bank::new();
    bank.done(create("a", 10));
    // Refusals have a place like everything else, and requests that are no commands take one, too.
    let requests = [
        (header(SESSION, 2, 0), act(withdraw("a", 60))),
        (header(0, 0, 0), Action::Open),
        (header(SESSION, 3, 0), act(deposit("a", 5))),
    ];
    let places = |outcomes: Vec<RequestOutcome>| -> Vec<_> {
        let place = |outcome| match outcome {
            RequestOutcome::Command { slot, index, replayed, .. } => Some((slot, index, replayed)),
            _ => None,
        };
        outcomes.into_iter().map(place).collect()
    };
    let first = places(bank.batch(&requests));
    let slot = bank.ledger.applied();
    assert_eq!(first, [Some((slot, 0, false)), None, Some((slot, 2, false))]);
    let [one, _, other] = requests;
    // A ledger that was made of rows knows them, too.
    for reload in [false, true] {
        if reload {
            bank.reload();
        }
        let again = places(bank.batch(&[other.clone(), one.clone()]));
        assert_eq!(again, [Some((slot, 2, true)), Some((slot, 0, true))]);
    }
}

#[test]
fn a_number_belongs_to_one_command() {
    let mut bank = Bank::new();
    bank.done(create("a", 0));
    bank.request(header(SESSION, 2, 0), act(deposit("a", 5)));
    for other in [act(deposit("a", 6)), act(withdraw("a", 5)), Action::Command(bulk(true, vec![deposit("a", 5)]))] {
        let outcome = bank.request(header(SESSION, 2, 0), other);
        assert_eq!(outcome, RequestOutcome::Rejected(Rejection::RequestReused { number: 2 }));
    }
    let refusal = Rejection::RequestReused { number: 2 }.refusal();
    assert_eq!((refusal.code, refusal.outcome), (ErrorCode::RequestReused, Outcome::Refused));
    assert_eq!(bank.balance("a"), 5);
}

#[test]
fn an_acknowledged_number_is_never_executed() {
    let mut bank = Bank::new();
    bank.request(header(SESSION, 1, 0), act(create("a", 0)));
    bank.request(header(SESSION, 9, 5), act(deposit("a", 1)));
    // 1 was answered, 3 never sent, 5 is the bound itself, 0 is no number of a command.
    for number in [0, 1, 3, 5] {
        let outcome = bank.request(header(SESSION, number, 0), act(deposit("a", 100)));
        assert_eq!(outcome, RequestOutcome::Rejected(Rejection::RequestAcknowledged { number, acknowledged: 5 }));
    }
    let refusal = Rejection::RequestAcknowledged { number: 1, acknowledged: 5 }.refusal();
    assert_eq!((refusal.code, refusal.outcome), (ErrorCode::RequestAcknowledged, Outcome::Unknown));
    let out_of_order = bank.request(header(SESSION, 6, 2), act(deposit("a", 10)));
    assert!(matches!(out_of_order, RequestOutcome::Command { replayed: false, .. }), "{out_of_order:?}");
    assert_eq!(bank.balance("a"), 11);
}

#[test]
fn a_request_cannot_acknowledge_itself() {
    let mut bank = Bank::new();
    bank.request(header(SESSION, 1, 0), act(create("a", 0)));
    for (number, acknowledged) in [(5, 5), (6, 1000), (7, u64::MAX)] {
        for replay in [false, true] {
            let outcome = bank.request(header(SESSION, number, acknowledged), act(deposit("a", 1)));
            let RequestOutcome::Command { replayed, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!(replayed, replay, "request {number} acknowledging {acknowledged}");
        }
    }
    let before = bank.request(header(SESSION, 6, 0), act(deposit("a", 1)));
    let expected = Rejection::RequestAcknowledged { number: 6, acknowledged: 6 };
    assert_eq!((before, bank.balance("a")), (RequestOutcome::Rejected(expected), 3));
}

#[test]
fn sessions_do_not_share_numbers() {
    let mut bank = Bank::new();
    let other = SessionKey([9; 16]);
    assert_eq!(bank.batch(&[open(other)]), [RequestOutcome::Opened { session: 3, new: true }]);
    bank.request(header(SESSION, 1, 0), act(create("a", 0)));
    let outcome = bank.request(RequestHeader { key: other, ..header(3, 1, 0) }, act(deposit("a", 1)));
    assert!(matches!(outcome, RequestOutcome::Command { replayed: false, .. }), "{outcome:?}");
}

#[test]
fn a_session_that_acknowledges_nothing_is_full_some_day_and_goes_on_once_it_does() {
    let mut bank = Bank::new();
    bank.done(create("a", 0));
    let large = Action::Command(bulk(false, vec![deposit("a", 1); MAX_BULK]));
    let mut number = 1;
    let kept = loop {
        number += 1;
        match bank.request(header(SESSION, number, 0), large.clone()) {
            RequestOutcome::Command { .. } => assert!(number < 100, "no limit after {number} of the largest bulks"),
            RequestOutcome::Rejected(Rejection::RepliesFull { kept, of: Keeper::Session }) => break kept,
            other => panic!("{other:?}"),
        }
    };
    assert!(number > 26, "only {number} of the largest bulks take {kept} bytes");
    let refusal = Rejection::RepliesFull { kept, of: Keeper::Session }.refusal();
    assert_eq!((refusal.code, refusal.outcome), (ErrorCode::Busy, Outcome::Unknown));
    let replay = bank.request(header(SESSION, 2, 0), large.clone());
    assert!(matches!(replay, RequestOutcome::Command { replayed: true, .. }), "what is kept can be had");
    let next = bank.request(header(SESSION, number, number - 1), large);
    assert!(matches!(next, RequestOutcome::Command { replayed: false, .. }), "there is room again");
}

#[test]
fn a_batch_that_is_decided_twice_changes_nothing_the_second_time() {
    let mut bank = Bank::new();
    bank.done(create("a", 0));
    bank.stamp = 9_000;
    let (id, payload) = bank.payload(&[(header(SESSION, 2, 1), act(deposit("a", 1))), open(SessionKey([3; 16]))]);
    assert!(matches!(bank.apply(Some((&id, &payload))), Applied::Batch(_)));
    assert_eq!(bank.apply(None), Applied::Null);
    let (before, digest) = (bank.ledger.summary(), bank.ledger.digest());
    assert_eq!(bank.apply(Some((&id, &payload))), Applied::Repeated);
    let after = bank.ledger.summary();
    assert_eq!(bank.ledger.digest(), digest);
    assert_eq!((after.repeated_batches, after.decided_slots), (1, before.decided_slots + 1));
    assert_eq!((after.null_slots, after.applied), (1, before.applied + 1));
    assert_eq!((after.transactions, after.sessions), (before.transactions, before.sessions));
    let next = bank.batch(&[open(SessionKey([4; 16]))]);
    assert_eq!(next, [RequestOutcome::Opened { session: 6, new: true }], "a repeated batch takes no log positions");
}

/// Who has forgotten the first decision of a batch may propose it again any time later.
#[test]
fn a_batch_that_is_decided_again_after_thousands_of_others_changes_no_account() {
    let mut bank = Bank::new();
    bank.done(create("a", 0));
    let (id, payload) = bank.payload(&[(header(SESSION, 2, 1), act(deposit("a", 1)))]);
    assert!(matches!(bank.apply(Some((&id, &payload))), Applied::Batch(_)));
    for _ in 0..5_000 {
        bank.batch(&[open(KEY)]);
    }
    let before = bank.ledger.summary();
    match bank.apply(Some((&id, &payload))) {
        Applied::Batch(outcomes) => {
            assert!(matches!(outcomes[..], [RequestOutcome::Command { replayed: true, .. }]), "{outcomes:?}");
        }
        other => panic!("{other:?}: it is remembered after so many"),
    }
    let after = bank.ledger.summary();
    assert_eq!((after.transactions, after.sessions), (before.transactions, before.sessions));
    assert_eq!(bank.balance("a"), 1);
}

#[test]
fn batches_of_another_origin_or_incarnation_are_other_batches() {
    let mut bank = Bank::new();
    let (id, payload) = bank.payload(&[open(SessionKey([3; 16]))]);
    let others = [
        id,
        BatchId { origin: NodeId::new(2).unwrap(), ..id },
        BatchId { incarnation: 2, ..id },
        BatchId { sequence: 77, ..id },
    ];
    for (index, id) in others.into_iter().enumerate() {
        let applied = bank.apply(Some((&id, &payload)));
        let opened = RequestOutcome::Opened { session: 3, new: index == 0 };
        assert_eq!(applied, Applied::Batch(vec![opened]), "{id}");
    }
}

#[test]
#[should_panic(expected = "slot 3 does not follow slot 1")]
fn a_gap_in_the_log_stops_the_node() {
    let mut bank = Bank::new();
    bank.ledger.apply(3, None);
}

#[test]
fn an_answer_says_what_was_created_even_after_the_session_is_gone() {
    let mut bank = Bank::new();
    let first = bank.request(header(SESSION, 1, 0), act(create("a", 5)));
    let RequestOutcome::Command { outcome, .. } = first else { panic!("{first:?}") };
    bank.request(header(SESSION, 0, 0), Action::Close);
    let Ok(Success::Account { account, .. }) = bank.render(&outcome) else { panic!() };
    assert_eq!(account.balance, 5);
}

/// The bank's own session stays open: it is used as often as the others.
fn expiring(open: u64, idle_ms: u64) -> Bank {
    let mut bank = Bank::with(LIMIT, SessionLimits { open, idle_ms });
    bank.done(create("a", 0));
    bank
}

fn is_open(bank: &mut Bank, session: u64, key: SessionKey, number: u64) -> bool {
    let header = RequestHeader { session, key, number, acknowledged: number - 1, token: 0 };
    match bank.request(header, act(deposit("a", 1))) {
        RequestOutcome::Command { .. } => true,
        RequestOutcome::Rejected(Rejection::SessionExpired { .. }) => false,
        other => panic!("session {session}: {other:?}"),
    }
}

#[test]
fn a_session_that_was_idle_for_too_long_ends_and_forgets() {
    let mut bank = expiring(10, 5_000);
    let start = bank.stamp;
    bank.stamp = start + 5_000;
    assert!(is_open(&mut bank, SESSION, KEY, 2), "idle for no longer than it may");
    bank.stamp = start + 10_000;
    assert!(is_open(&mut bank, SESSION, KEY, 3), "it was used meanwhile");
    assert_eq!(bank.ledger.summary().sessions, 1, "the one that was not used is gone");
    bank.stamp = start + 15_001;
    assert!(!is_open(&mut bank, SESSION, KEY, 4));
    assert_eq!((bank.ledger.summary().sessions, bank.balance("a")), (0, 2));
    // Its key is used up.
    assert_eq!(bank.batch(&[open(KEY)]), [RequestOutcome::Rejected(Rejection::KeyUsed)]);
    assert!(!is_open(&mut bank, SESSION, KEY, 5));
}

#[test]
fn log_time_that_stands_still_ends_no_session() {
    let mut bank = expiring(10, 1);
    for _ in 0..100 {
        bank.apply(None);
    }
    assert!(is_open(&mut bank, SESSION, KEY, 2));
}

#[test]
fn of_too_many_sessions_the_one_that_was_idle_for_longest_ends_if_for_an_hour() {
    const HOUR: u64 = 3_600_000;
    // Of five a principal has four.
    let mut bank = expiring(5, 1 << 40);
    let key = |number: u8| SessionKey([number + 20; 16]);
    let mut numbers = Vec::new();
    for number in 0..2 {
        bank.stamp += 1;
        let opened = bank.batch(&[open(key(number))]);
        let [RequestOutcome::Opened { session, new: true }] = opened[..] else { panic!("{opened:?}") };
        numbers.push(session);
    }
    // The first of the two is used after the second, the others after both.
    for (session, key) in [(numbers[1], key(1)), (numbers[0], key(0)), (SESSION, KEY)] {
        bank.stamp += 1;
        assert!(is_open(&mut bank, session, key, 2));
    }
    bank.done(deposit("a", 1));
    assert_eq!(bank.ledger.summary().sessions, 4);
    let too_many = [RequestOutcome::Rejected(Rejection::TooManyOfPrincipal { open: 4 })];
    assert_eq!(bank.batch(&[open(key(9))]), too_many);
    bank.stamp += HOUR - 3;
    assert_eq!(bank.batch(&[open(key(9))]), too_many, "idle for a millisecond less than an hour");
    bank.stamp += 1;
    assert!(matches!(bank.batch(&[open(key(9))])[..], [RequestOutcome::Opened { new: true, .. }]));
    assert_eq!(bank.ledger.summary().sessions, 4);
    assert!(!is_open(&mut bank, numbers[1], key(1), 3), "the other one was used later");
    assert!(is_open(&mut bank, numbers[0], key(0), 3));
    assert_eq!(bank.batch(&[open(key(1))]), [RequestOutcome::Rejected(Rejection::KeyUsed)]);
    // A session that is open is opened again whatever the limit.
    assert!(matches!(bank.batch(&[open(key(9))])[..], [RequestOutcome::Opened { new: false, .. }]));
    for rejection in [Rejection::TooManyOfPrincipal { open: 4 }, Rejection::TooManySessions { open: 5 }] {
        let refusal = rejection.refusal();
        assert_eq!((refusal.code, refusal.outcome), (ErrorCode::TooManySessions, Outcome::Refused));
    }
}

/// A session keeps no names, and a replay says the same as the first answer.
#[test]
fn refusals_with_the_longest_names_take_no_more_than_others_and_are_told_again() {
    let mut bank = Bank::new();
    let name = || "\u{1d11e}".repeat(60);
    let refused: Vec<Operation> = (0..MAX_BULK as u64)
        .map(|number| match number % 4 {
            0 => deposit(&name(), number + 1),
            1 => transfer(&name(), "b", number + 1),
            2 => create(&name(), number),
            _ => transfer(&name(), &name(), number + 1),
        })
        .collect();
    let mut number = 0;
    let mut first = Vec::new();
    loop {
        number += 1;
        match bank.request(header(SESSION, number, 0), Action::Command(bulk(false, refused.clone()))) {
            RequestOutcome::Command { outcome, replayed: false, .. } => first.push(bank.render(&outcome)),
            RequestOutcome::Rejected(Rejection::RepliesFull { of: Keeper::Session, .. }) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(first.len(), 26, "bulks of refusals are kept as many as others");
    bank.reload();
    let longest = bank.rows.sessions.values().map(Vec::len).max().unwrap();
    assert!(longest < 200_000, "a row of {longest} bytes");
    for (number, first) in (1..).zip(&first) {
        let again = bank.request(header(SESSION, number, 0), Action::Command(bulk(false, refused.clone())));
        let RequestOutcome::Command { outcome, replayed: true, .. } = again else { panic!("{again:?}") };
        assert!(bank.render(&outcome) == *first, "the replay of bulk {number} says something else");
    }
}

/// Sessions that acknowledge nothing fill what their principal has of what all have in common, and then each still has its own part.
#[test]
fn all_sessions_of_a_principal_keep_no_more_than_its_share_and_each_has_its_own_part() {
    let mut bank = Bank::new();
    bank.done(create("a", 0));
    let large = Action::Command(bulk(false, vec![deposit("a", 1); MAX_BULK]));
    let mut greedy = 0u8;
    let mut all_full = false;
    while !all_full {
        greedy += 1;
        let key = SessionKey([greedy + 30; 16]);
        let [RequestOutcome::Opened { session, .. }] = bank.batch(&[open(key)])[..] else { panic!() };
        for number in 1.. {
            match bank.request(RequestHeader { key, ..header(session, number, 0) }, large.clone()) {
                RequestOutcome::Command { replayed: false, .. } => {}
                RequestOutcome::Rejected(Rejection::RepliesFull { of, .. }) => {
                    all_full = of == Keeper::Principal;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!((23..30).contains(&greedy), "{greedy} sessions of 4 MiB fill three quarters of 128 MiB");
    bank.reload();
    // One that has said nothing yet: a bulk finds no room, and some single commands do.
    let outcome = bank.request(header(SESSION, 1, 0), large);
    assert!(
        matches!(outcome, RequestOutcome::Rejected(Rejection::RepliesFull { of: Keeper::Principal, .. })),
        "{outcome:?}"
    );
    for number in 2..8 {
        let outcome = bank.request(header(SESSION, number, 0), act(deposit("a", 1)));
        assert!(matches!(outcome, RequestOutcome::Command { replayed: false, .. }), "{outcome:?}");
    }
    for number in 8..200 {
        let outcome = bank.request(header(SESSION, number, number - 1), act(deposit("a", 1)));
        assert!(matches!(outcome, RequestOutcome::Command { replayed: false, .. }), "{outcome:?}");
    }
    // When one of the greedy ones ends, there is room again.
    let key = SessionKey([31; 16]);
    let session = session_of(&mut bank, key);
    let ended = bank.request(RequestHeader { key, ..header(session, 0, 0) }, Action::Close);
    assert_eq!(ended, RequestOutcome::Closed);
    let outcome =
        bank.request(header(SESSION, 200, 199), Action::Command(bulk(false, vec![deposit("a", 1); MAX_BULK])));
    assert!(matches!(outcome, RequestOutcome::Command { .. }), "{outcome:?}");
}

/// The number of the open session with this key.
fn session_of(bank: &mut Bank, key: SessionKey) -> u64 {
    match bank.batch(&[open(key)])[..] {
        [RequestOutcome::Opened { session, new: false }] => session,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn what_expires_does_not_depend_on_when_snapshots_were_taken() {
    let limits = SessionLimits { open: 5, idle_ms: 3_000 };
    let (mut plain, mut reloaded) = (Bank::with(LIMIT, limits), Bank::with(LIMIT, limits));
    for step in 0..200u64 {
        for bank in [&mut plain, &mut reloaded] {
            bank.stamp += step * 7919 % 900;
            let key = SessionKey([(step * 31 % 9) as u8; 16]);
            bank.batch(&[open(key)]);
            let session = step % 40 + 1;
            bank.request(RequestHeader { session, key, number: step, acknowledged: 0, token: 0 }, act(create("a", 0)));
        }
        if step % 3 == 0 {
            reloaded.reload();
        }
        assert_eq!(plain.ledger.digest(), reloaded.ledger.digest(), "after step {step}");
        assert_eq!(plain.ledger.summary(), reloaded.ledger.summary(), "after step {step}");
    }
}
