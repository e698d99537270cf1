//! The ledger against the reference model, over logs that are made up.

use proptest::prelude::*;
use rabia_bank_ledger::{Applied, Rejection, RequestOutcome, admin_refusal};
use rabia_bank_messages::bank::{
    Command, DEFAULT_TRANSACTION_LIMIT, MAX_BALANCE, Operation, OperationKind, Query, Success,
};
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::genesis::{Founding, SessionLimits};
use rabia_bank_messages::ids::SessionKey;
use rabia_bank_model::{Model, Reply, plain, replay};

use crate::support::*;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "not valid"];
const MODEL_LIMIT: u64 = MAX_BALANCE - 100;

fn operations() -> impl Strategy<Value = Operation> {
    let name = || proptest::sample::select(&NAMES[..]);
    let amount = || {
        prop_oneof![
            6 => 1u64..60,
            1 => proptest::sample::select(vec![0, MODEL_LIMIT - 50, MODEL_LIMIT, MODEL_LIMIT + 1, u64::MAX]),
        ]
    };
    // A transfer is twice as frequent as the others.
    let kinds = [&OperationKind::ALL[..], &[OperationKind::Transfer]].concat();
    (proptest::sample::select(kinds), name(), name(), amount()).prop_map(|(kind, account, other, amount)| match kind {
        OperationKind::CreateAccount => create(account, amount),
        OperationKind::Deposit => deposit(account, amount),
        OperationKind::Withdraw => withdraw(account, amount),
        OperationKind::Transfer => transfer(account, other, amount),
    })
}

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => operations().prop_map(Command::One),
        1 => (any::<bool>(), proptest::collection::vec(operations(), 0..6)).prop_map(|(atomic, all)| bulk(atomic, all)),
    ]
}

/// Requests in the two sessions that are open and one that is not, with numbers from a window that moves on with
/// `round`, so that all of new, repeated, reused and acknowledged ones are frequent.
fn requests(round: u64) -> impl Strategy<Value = (RequestHeader, Command)> {
    let session = proptest::sample::select(vec![SESSION, SESSION, SESSION, 3, 3, 4]);
    (session, 1u64..12, 0u64..8, commands()).prop_map(move |(session, ahead, behind, command)| {
        (header(session, round * 4 + ahead, (round * 4).saturating_sub(behind)), command)
    })
}

/// A log: batches with the step of their stamp. Some requests are said again later.
fn logs() -> impl Strategy<Value = Vec<(i64, Vec<(RequestHeader, Command)>)>> {
    let batches: Vec<_> = (0..20).map(|round| (-5i64..50, proptest::collection::vec(requests(round), 0..6))).collect();
    (batches, proptest::collection::vec((0usize..20, 0usize..20, 0usize..6), 0..20)).prop_map(|(mut log, repeats)| {
        for (from, to, which) in repeats {
            if let Some(request) = log[from.min(to)].1.get(which).cloned() {
                log[from.max(to)].1.push(request);
            }
        }
        log
    })
}

/// What the ledger answered, in the words of the model.
pub fn reply(bank: &mut Bank, outcome: &RequestOutcome) -> Reply {
    match outcome {
        RequestOutcome::Opened { session, .. } => Reply::Opened(*session),
        RequestOutcome::Closed => Reply::Closed,
        RequestOutcome::Command { slot, index, replayed, outcome } => {
            let place = (*slot, Some(*index as usize));
            Reply::Command { place, replayed: *replayed, answer: Box::new(plain(bank.render(outcome))) }
        }
        RequestOutcome::Administered { slot, index, replayed, outcome } => {
            let outcome = outcome.map_err(|refusal| admin_refusal(refusal).code);
            Reply::Administered { place: (*slot, *index as usize), replayed: *replayed, outcome }
        }
        RequestOutcome::Rejected(rejection) => Reply::Rejected(rejection.refusal().code),
    }
}

/// The numbers in a rejection are those of the request, and of what was acknowledged before or by it.
fn check_numbers(rejection: &Rejection, header: &RequestHeader) {
    match *rejection {
        Rejection::SessionExpired { session } => assert_eq!(session, header.session),
        Rejection::RequestAcknowledged { number, acknowledged } => {
            assert_eq!(number, header.number);
            assert!(acknowledged >= number.max(header.acknowledged.min(number - 1)), "{rejection:?} to {header:?}");
        }
        Rejection::RequestReused { number } => assert_eq!(number, header.number),
        ref other => panic!("{other:?}"),
    }
}

/// `reloads` says, by bits, after which batches the ledger is saved and made again of its rows.
fn check(log: &[(i64, Vec<(RequestHeader, Command)>)], reloads: u32) {
    let mut model = Model::new(rabia_bank_model::Bank::new(MODEL_LIMIT), SessionLimits::default());
    let mut bank = Bank::with_limit(MODEL_LIMIT);
    // The sessions of a new bank, and one more.
    let (id, payload) = Bank::opening();
    model.apply(1, Some((&id, &payload))).unwrap();
    let (id, payload) = bank.payload(&[open(SessionKey([9; 16]))]);
    bank.apply(Some((&id, &payload)));
    let opened = model.apply(2, Some((&id, &payload))).unwrap();
    assert_eq!(opened, Some(vec![Reply::Opened(3)]));
    for (round, (step, requests)) in log.iter().enumerate() {
        if reloads >> round & 1 == 1 {
            bank.reload();
        }
        bank.stamp = bank.stamp.saturating_add_signed(*step);
        let keyed: Vec<_> = requests
            .iter()
            .map(|(header, command)| {
                let key = if header.session == 3 { SessionKey([9; 16]) } else { header.key };
                (RequestHeader { key, ..*header }, Action::Command(command.clone()))
            })
            .collect();
        let (id, payload) = bank.payload(&keyed);
        let Applied::Batch(outcomes) = bank.apply(Some((&id, &payload))) else { panic!("a new batch is applied") };
        let expected = model.apply(bank.ledger.applied(), Some((&id, &payload))).unwrap();
        for (outcome, (header, _)) in outcomes.iter().zip(requests) {
            if let RequestOutcome::Rejected(rejection) = outcome {
                check_numbers(rejection, header);
            }
        }
        let found: Vec<_> = outcomes.iter().map(|outcome| reply(&mut bank, outcome)).collect();
        assert_eq!(Some(found), expected, "{requests:?}");
    }
    check_books(&mut bank, &model);
}

/// History and accounts are the model's, the history leads to the balances and the head of the chain, and no money came or went
/// unseen.
pub fn check_books(bank: &mut Bank, model: &Model) {
    let transactions = bank.transactions();
    assert_eq!(transactions, model.machine().history());
    let replayed = replay(&transactions).unwrap();
    assert_eq!((bank.ledger.chain_head(), bank.ledger.summary().total_balance), (replayed.head, replayed.total));
    let all = Query::ListAccounts { after: None, limit: None };
    let accounts = bank.query(&all);
    assert_eq!(accounts, model.query(&all, bank.ledger.applied()));
    let Ok(Success::Accounts { accounts, next: None }) = accounts else { panic!("{accounts:?}") };
    for account in &accounts {
        let balance = replayed.balances.get(&account.account_id).copied().unwrap_or(0);
        assert_eq!(account.balance, balance, "{account:?}");
    }
    assert_eq!(accounts.iter().map(|account| account.balance).sum::<u64>(), replayed.total);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_does_what_the_model_does(log in logs(), reloads in prop_oneof![Just(0), any::<u32>()]) {
        check(&log, reloads);
    }

    #[test]
    fn two_ledgers_agree_however_often_the_digest_is_asked(log in logs(), asked in any::<u32>()) {
        let (mut one, mut other) = (Bank::with_limit(MODEL_LIMIT), Bank::with_limit(MODEL_LIMIT));
        for (round, (_, requests)) in log.iter().enumerate() {
            let requests: Vec<_> = requests.iter().map(|(h, c)| (*h, Action::Command(c.clone()))).collect();
            prop_assert_eq!(one.batch(&requests), other.batch(&requests));
            if asked >> round & 1 == 1 {
                one.ledger.digest();
            }
        }
        prop_assert_eq!(one.ledger.digest(), other.ledger.digest());
        prop_assert_eq!(one.ledger.summary(), other.ledger.summary());
    }
}

/// Batches of requests with what time passes before each give the same in a founded bank as in a new model, which is handed out. The bank
/// is loaded again before the rounds of which a bit is set.
pub fn agrees(
    bank: &mut Bank,
    limits: SessionLimits,
    founding: &Founding,
    log: &[(u64, Vec<(RequestHeader, Action)>)],
    reloads: u32,
) -> Result<Model, TestCaseError> {
    let machine = rabia_bank_model::Bank::founded(DEFAULT_TRANSACTION_LIMIT, founding.secret);
    let mut model = Model::founded(machine, limits, founding);
    let (id, payload) = Bank::opening();
    model.apply(1, Some((&id, &payload))).unwrap();
    for (round, (step, requests)) in log.iter().enumerate() {
        if reloads >> (round % 32) & 1 == 1 {
            bank.reload();
        }
        bank.stamp += step;
        let (id, payload) = bank.payload(requests);
        let Applied::Batch(outcomes) = bank.apply(Some((&id, &payload))) else { panic!("a new batch is applied") };
        let expected = model.apply(bank.ledger.applied(), Some((&id, &payload))).unwrap();
        let found: Vec<Reply> = outcomes.iter().map(|outcome| reply(bank, outcome)).collect();
        prop_assert_eq!(Some(found), expected, "{:?}", requests);
    }
    Ok(model)
}
