//! What a principal may have of what all share: sessions and kept replies, by hand and against the reference model.

use proptest::prelude::*;
use rabia_bank_ledger::{Keeper, Rejection, RequestOutcome};
use rabia_bank_messages::bank::MAX_BULK;
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::genesis::{Founding, FoundingToken, SessionLimits};
use rabia_bank_messages::ids::{Digest, Secret, SessionKey, TokenId};
use rabia_bank_messages::principal::{ADMIN, DAILY, FIRST_TOKEN};

use crate::model::agrees;
use crate::support::*;

const HOSTS: u64 = 0;
const ADMINS: u64 = FIRST_TOKEN;
const DAILYS: u64 = FIRST_TOKEN + 1;
const HOUR: u64 = 3_600_000;

fn founding() -> Founding {
    let token =
        |principal, id| FoundingToken { principal, id: TokenId([id; 8]), hash: Digest([id; 32]), expires_at: u64::MAX };
    Founding { secret: Secret([5; 32]), tokens: vec![token(ADMIN, 1), token(DAILY, 2)] }
}

fn opening(token: u64, key: u8) -> (RequestHeader, Action) {
    (RequestHeader { session: 0, key: SessionKey([key; 16]), number: 0, acknowledged: 0, token }, Action::Open)
}

/// Opens sessions with keys from this one on until no more may be. Answers their numbers, and why.
fn fill(bank: &mut Bank, token: u64, first_key: u8) -> (Vec<u64>, Rejection) {
    let mut sessions = Vec::new();
    for key in first_key.. {
        match bank.batch(&[opening(token, key)])[..] {
            [RequestOutcome::Opened { session, new: true }] => sessions.push(session),
            [RequestOutcome::Rejected(rejection)] => return (sessions, rejection),
            ref other => panic!("{other:?}"),
        }
    }
    panic!("no limit");
}

#[test]
fn there_is_room_for_sessions_of_a_principal_that_comes_new() {
    // Two are the host's.
    let mut bank = Bank::founded_with(founding(), SessionLimits { open: 10, idle_ms: 1 << 40 });
    let (daily, rejection) = fill(&mut bank, DAILYS, 30);
    assert_eq!((daily.len(), rejection), (6, Rejection::TooManyOfPrincipal { open: 6 }));
    let (admins, rejection) = fill(&mut bank, ADMINS, 60);
    assert_eq!((admins.len(), rejection), (2, Rejection::TooManySessions { open: 10 }));
    bank.reload();
    // An hour later its own session makes room, not one of others, though these were idle for longer.
    bank.stamp += HOUR;
    assert!(matches!(bank.batch(&[opening(DAILYS, 50)])[..], [RequestOutcome::Opened { new: true, .. }]));
    let is_open = |bank: &mut Bank, token, key: u8| {
        matches!(bank.batch(&[opening(token, key)])[..], [RequestOutcome::Opened { new: false, .. }])
    };
    assert!(!is_open(&mut bank, DAILYS, 30) && is_open(&mut bank, DAILYS, 31) && is_open(&mut bank, ADMINS, 60));
    // Whoever has less than its share may have the place of another's that was idle for so long.
    let [ref first] = bank.batch(&[opening(HOSTS, 90)])[..] else { panic!() };
    assert!(matches!(first, RequestOutcome::Opened { new: true, .. }), "{first:?}");
    assert_eq!(bank.ledger.summary().sessions, 10);
}

#[test]
fn there_is_room_for_replies_to_a_principal_that_comes_new() {
    let mut bank = Bank::founded_with(founding(), SessionLimits::default());
    bank.done(create("a", 0));
    let large = Action::Command(bulk(false, vec![deposit("a", 1); MAX_BULK]));
    let mut fill = |token: u64, first_key: u8| {
        let mut kept = 0;
        for key in first_key.. {
            let [RequestOutcome::Opened { session, .. }] = bank.batch(&[opening(token, key)])[..] else { panic!() };
            let header = RequestHeader { session, ..opening(token, key).0 };
            for number in 1.. {
                match bank.request(RequestHeader { number, ..header }, large.clone()) {
                    RequestOutcome::Command { replayed: false, .. } => kept += 1,
                    RequestOutcome::Rejected(Rejection::RepliesFull { of: Keeper::Session, .. }) => break,
                    RequestOutcome::Rejected(Rejection::RepliesFull { of: Keeper::Principal, .. }) => return kept,
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("no limit")
    };
    let (first, second) = (fill(HOSTS, 30), fill(DAILYS, 90));
    assert!((550..750).contains(&first), "{first} bulks fill three quarters of 128 MiB");
    assert!((first / 5..first / 3).contains(&second), "{second} bulks fill three quarters of what is left");
}

fn requests() -> impl Strategy<Value = (RequestHeader, Action)> {
    let token = proptest::sample::select(vec![HOSTS, ADMINS, DAILYS, DAILYS]);
    (token, 0u64..40, 30u8..60, 0u8..5).prop_map(|(token, session, key, kind)| {
        let header = RequestHeader { session, ..opening(token, key).0 };
        (header, if kind == 0 { Action::Close } else { Action::Open })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sessions_are_shared_as_in_the_model(
        open in 3u64..12,
        log in proptest::collection::vec((0u64..HOUR, proptest::collection::vec(requests(), 1..12)), 1..25),
        reloads in any::<u32>(),
    ) {
        let (founding, limits) = (founding(), SessionLimits { open, idle_ms: 3 * HOUR });
        let mut bank = Bank::founded_with(founding.clone(), limits);
        agrees(&mut bank, limits, &founding, &log, reloads)?;
    }
}
