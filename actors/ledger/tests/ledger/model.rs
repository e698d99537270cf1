//! The ledger against the reference model, over logs that are made up.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rabia_bank_ledger::machine::Feed as _;
use rabia_bank_ledger::{Answer, Applied, Rejection, RequestOutcome, admin_refusal};
use rabia_bank_messages::bank::{
    AccountStatus, Bound, Command, DEFAULT_TRANSACTION_LIMIT, ErrorCode, ItemResult, MAX_BALANCE, Operation,
    OperationKind, Query, Refusal, SetAccount, Success,
};
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::genesis::{BankTerms, Founding, SessionLimits};
use rabia_bank_messages::ids::SessionKey;
use rabia_bank_model::{Model, Reply, plain, replay_of};

use crate::support::*;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "not valid"];
const MODEL_LIMIT: u64 = MAX_BALANCE - 100;
const LARGEST: i64 = MAX_BALANCE as i64;

fn some<T: Clone + std::fmt::Debug + 'static>(all: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(all.to_vec())
}

fn amounts() -> impl Strategy<Value = u64> {
    let extreme = [0, MODEL_LIMIT - 50, MODEL_LIMIT, MODEL_LIMIT + 1, MAX_BALANCE, u64::MAX];
    prop_oneof![6 => 1u64..60, 1 => some(&extreme)]
}

/// The cluster's own asset, two that are there soon, one that never is, and no code of any.
fn assets() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![3 => Just(None), 4 => some(&["EUR", "A.1", "XXX"]).prop_map(Some), 1 => some(&["USD", "eur"]).prop_map(Some)]
}

/// What is said of a bound, mostly nothing.
fn bounds(usual: [i64; 3]) -> impl Strategy<Value = Option<Bound>> {
    let far =
        [Bound::INVALID, Bound::At(LARGEST), Bound::At(-LARGEST), Bound::At(LARGEST + 1), Bound::At(-LARGEST - 1)];
    prop_oneof![
        4 => Just(None),
        4 => some(&usual).prop_map(|bound| Some(Bound::At(bound))),
        2 => Just(Some(Bound::None)),
        1 => some(&far).prop_map(Some),
    ]
}

fn codes() -> impl Strategy<Value = Option<Box<str>>> {
    proptest::option::weighted(0.3, some(&["customer", "cash", "customer", "cash", "", "no code"]).prop_map(Box::from))
}

fn names() -> impl Strategy<Value = Option<Box<str>>> {
    let long = "n".repeat(101);
    let said = ["Zo\u{eb} \"Z\" \\", "", "B", "C", "bell\u{7}", &long].map(Box::from);
    proptest::option::weighted(0.3, some(&said))
}

fn statuses() -> impl Strategy<Value = Option<AccountStatus>> {
    let any = some(&AccountStatus::ALL).prop_map(Some);
    let closed = Just(Some(AccountStatus::Closed));
    prop_oneof![3 => Just(None), 3 => Just(Some(AccountStatus::Open)), 3 => any, 2 => closed]
}

/// What can be said of an account.
fn settings() -> impl Strategy<Value = SetAccount> {
    (bounds([-50, 0, 20]), bounds([0, 30, 2_000]), statuses(), codes(), names()).prop_map(
        |(min_balance, max_balance, status, code, name)| SetAccount {
            min_balance,
            max_balance,
            status,
            code,
            name,
            ..SetAccount::new("")
        },
    )
}

pub fn operations() -> impl Strategy<Value = Operation> {
    let name = || some(&NAMES);
    // A transfer is three times as frequent as the others, and half of all accounts are plain ones.
    let kinds = [&OperationKind::ALL[..], &[OperationKind::Transfer; 2]].concat();
    let limits = some(&[0, 30, MODEL_LIMIT, MAX_BALANCE, MAX_BALANCE + 1]);
    let said = (any::<bool>(), settings(), assets(), 0u64..10, limits);
    (some(&kinds), name(), name(), amounts(), said).prop_map(|(kind, account, other, amount, said)| {
        let (is_plain, settings, asset_code, scale, limit) = said;
        match kind {
            OperationKind::CreateAccount if is_plain => create(account, amount),
            OperationKind::CreateAccount => create_as(account, if amount < 25 { 0 } else { amount }, |create| {
                let SetAccount { min_balance, max_balance, code, name, .. } = settings;
                create.asset = asset_code.map(Into::into);
                (create.min_balance, create.max_balance, create.code, create.name) =
                    (min_balance, max_balance, code, name);
            }),
            OperationKind::Deposit => deposit(account, amount),
            OperationKind::Withdraw => withdraw(account, amount),
            OperationKind::Transfer => transfer(account, other, amount),
            OperationKind::SetAccount => set(account, |set| {
                *set = SetAccount { account_id: set.account_id.clone(), ..settings };
            }),
            OperationKind::CreateAsset => asset(asset_code.unwrap_or("EUR"), scale, limit),
        }
    })
}

/// Banks with and without overdraft, some of which have a currency of their own.
fn terms() -> impl Strategy<Value = BankTerms> {
    (some(&["XXX:2", "XXX:2", "EUR:3"]), any::<bool>())
        .prop_map(|(own, allow_overdraft)| BankTerms { asset: own.parse().unwrap(), allow_overdraft })
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
fn check(log: &[(i64, Vec<(RequestHeader, Command)>)], reloads: u32, terms: BankTerms) -> Model {
    let machine = rabia_bank_model::Bank::founded(&terms, MODEL_LIMIT, Founding::default().secret);
    let mut model = Model::new(machine, SessionLimits::default());
    let mut bank = Bank::of(terms, MODEL_LIMIT);
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
    model
}

/// The answer to a query, which is the model's.
fn same(bank: &mut Bank, model: &Model, query: Query) -> Answer {
    let answer = bank.query(&query);
    assert_eq!(plain(answer.clone()), model.query(&query, bank.ledger.applied()), "{query:?}");
    answer
}

/// All that can be asked is answered as by the model, and the history alone leads to the accounts, to the sums of all balances and to
/// the head of the chain.
pub fn check_books(bank: &mut Bank, model: &Model) {
    let transactions = bank.transactions();
    assert_eq!(transactions, model.machine().history());
    let replayed = replay_of(model.machine().own(), &transactions).unwrap();
    assert_eq!(bank.ledger.chain_head(), replayed.head);
    assert_eq!(i128::from(bank.ledger.summary().total_balance), replayed.total());
    let accounts = same(bank, model, Query::ListAccounts { after: None, limit: None, code: None });
    let Ok(Success::Accounts { accounts, next: None }) = accounts else { panic!("{accounts:?}") };
    assert_eq!(accounts, replayed.accounts.into_values().collect::<Vec<_>>());
    for code in ["customer", "cash", "no code"] {
        same(bank, model, Query::ListAccounts { after: None, limit: Some(2), code: Some(code.into()) }).unwrap();
    }
    let assets = same(bank, model, Query::ListAssets {});
    let Ok(Success::Assets { assets }) = assets else { panic!("{assets:?}") };
    let totals = assets.iter().map(|asset| (asset.asset.clone(), i128::from(asset.total_balance)));
    assert_eq!(totals.collect::<BTreeMap<_, _>>(), replayed.totals);
    for asset in assets.into_iter().map(|asset| Some(asset.asset)).chain([None, Some("USD".into()), Some("?".into())]) {
        for large_amount in [None, Some(0), Some(30)] {
            same(bank, model, Query::GetStatistics { large_amount, asset: asset.clone() }).ok();
        }
        for (min_amount, account_id) in [(None, None), (Some(0), None), (Some(20), None), (None, Some("a".into()))] {
            let feed = Feed { account_id, min_amount, asset: asset.clone(), from: None };
            let next = transactions.len() as u64 + 1;
            let lookup = bank.ledger.transactions_from(&feed, 1, next, transactions.len());
            let told = bank.finish(lookup).map(|answer| feed.entries(answer));
            let expected = model.machine().feed(&feed, 1, next).map(|entries| (entries, next));
            assert_eq!(told.ok().flatten(), expected, "{feed:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_does_what_the_model_does(
        log in logs(),
        reloads in prop_oneof![Just(0), any::<u32>()],
        terms in terms(),
    ) {
        check(&log, reloads, terms);
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

/// What is made up meets every refusal that there is of operations, and carries out all of them.
#[test]
fn logs_that_are_made_up_leave_nothing_out() {
    let (mut met, mut done) = (BTreeSet::new(), BTreeSet::new());
    let mut count = |operation: &Operation, answer: Result<&Success, &Refusal>| {
        match answer {
            Ok(_) => done.insert(operation.kind()),
            Err(refusal) => met.insert(refusal.code.name().to_owned()),
        };
    };
    let mut runner = TestRunner::deterministic();
    for round in 0..150 {
        let log = logs().new_tree(&mut runner).unwrap().current();
        let terms = terms().new_tree(&mut runner).unwrap().current();
        let model = check(&log, if round % 2 == 0 { 0 } else { u32::MAX }, terms);
        for applied in model.applied.values() {
            match (applied.command(), &applied.answer) {
                (Command::One(operation), answer) => count(operation, answer.as_ref()),
                (Command::Bulk(bulk), Ok(Success::Results { results })) => {
                    for (operation, result) in bulk.commands.iter().zip(results) {
                        let answer = match result {
                            ItemResult::Ok(success) => Ok(success),
                            ItemResult::Error(refusal) => Err(refusal),
                        };
                        count(operation, answer);
                    }
                }
                (Command::Bulk(_), _) => {}
            }
        }
    }
    use ErrorCode::*;
    let all = [
        InvalidAccountId,
        InvalidAmount,
        InvalidAsset,
        InvalidBounds,
        InvalidCode,
        InvalidName,
        AccountExists,
        AccountNotFound,
        AssetNotFound,
        AssetExists,
        AssetMismatch,
        AccountClosed,
        AccountFrozen,
        AccountNotEmpty,
        InsufficientFunds,
        BalanceLimit,
        BalanceOverflow,
        SameAccount,
    ];
    assert_eq!(met, all.iter().map(|code| code.name().to_owned()).collect());
    assert_eq!(done, OperationKind::ALL.into_iter().collect());
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
    let machine = rabia_bank_model::Bank::founded(&BankTerms::default(), DEFAULT_TRANSACTION_LIMIT, founding.secret);
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
