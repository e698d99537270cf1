//! The ledger against a naive model: balances in a map, every rule as BANK.md states it, nothing clever.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rabia_bank_ledger::{Rejection, RequestOutcome};
use rabia_bank_messages::bank::{Command, ErrorCode, MAX_BALANCE, Operation, Query, Refusal, Success, TransactionType};
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::ids::{Digest, SessionKey};

use crate::support::*;

/// A transaction: its type, amount, and the sides with their balances after it.
type Moved = (TransactionType, u64, Option<(String, u64)>, Option<(String, u64)>);

/// What one operation answers: the id of its transaction, or 0; or a code.
type Answer = Result<u64, ErrorCode>;

#[derive(Clone, Default)]
struct Books {
    balances: BTreeMap<String, u64>,
    moved: Vec<Moved>,
}

/// What a command answers: one answer for each operation, or the index and code of a refused bulk.
type Answers = Result<Vec<Answer>, (Option<u32>, ErrorCode)>;

struct Model {
    limit: u64,
    books: Books,
    /// By session and request number: what was asked, and what came of it.
    replies: BTreeMap<(u64, u64), (Command, Answers)>,
    acknowledged: BTreeMap<u64, u64>,
}

impl Books {
    fn change(&mut self, kind: TransactionType, amount: u64, from: Option<&str>, to: Option<&str>) -> Answer {
        let mut side = |name: &str, change: &dyn Fn(u64) -> u64| {
            let balance = self.balances.entry(name.to_string()).or_insert(0);
            *balance = change(*balance);
            (name.to_string(), *balance)
        };
        let from = from.map(|name| side(name, &|balance| balance - amount));
        let to = to.map(|name| side(name, &|balance| balance + amount));
        self.moved.push((kind, amount, from, to));
        Ok(self.moved.len() as u64)
    }

    fn operate(&mut self, operation: &Operation, limit: u64) -> Answer {
        let total: u64 = self.balances.values().sum();
        let balance = |name: &str| self.balances.get(name).copied().ok_or(ErrorCode::AccountNotFound);
        let ensure = |holds: bool, code: ErrorCode| if holds { Ok(()) } else { Err(code) };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        let valid =
            |id: &str| ensure(!id.is_empty() && id.len() <= 50 && id.chars().all(allowed), ErrorCode::InvalidAccountId);
        match operation {
            Operation::CreateAccount { account_id: id, initial_balance } => {
                let amount = initial_balance.get();
                valid(id)?;
                ensure(amount <= limit, ErrorCode::InvalidAmount)?;
                ensure(balance(id).is_err(), ErrorCode::AccountExists)?;
                ensure(total + amount <= MAX_BALANCE, ErrorCode::BalanceOverflow)?;
                self.balances.insert(id.to_string(), 0);
                if amount == 0 { Ok(0) } else { self.change(TransactionType::Opening, amount, None, Some(id)) }
            }
            Operation::Deposit { account_id: id, amount } => {
                let amount = amount.get();
                valid(id)?;
                ensure((1..=limit).contains(&amount), ErrorCode::InvalidAmount)?;
                balance(id)?;
                ensure(total + amount <= MAX_BALANCE, ErrorCode::BalanceOverflow)?;
                self.change(TransactionType::Deposit, amount, None, Some(id))
            }
            Operation::Withdraw { account_id: id, amount } => {
                let amount = amount.get();
                valid(id)?;
                ensure((1..=limit).contains(&amount), ErrorCode::InvalidAmount)?;
                ensure(balance(id)? >= amount, ErrorCode::InsufficientFunds)?;
                self.change(TransactionType::Withdrawal, amount, Some(id), None)
            }
            Operation::Transfer { from_account: from, to_account: to, amount } => {
                let amount = amount.get();
                valid(from)?;
                valid(to)?;
                ensure((1..=limit).contains(&amount), ErrorCode::InvalidAmount)?;
                ensure(from != to, ErrorCode::SameAccount)?;
                let (from_balance, to_balance) = (balance(from)?, balance(to)?);
                ensure(from_balance >= amount, ErrorCode::InsufficientFunds)?;
                ensure(to_balance + amount <= MAX_BALANCE, ErrorCode::BalanceOverflow)?;
                self.change(TransactionType::Transfer, amount, Some(from), Some(to))
            }
        }
    }
}

impl Model {
    fn execute(&mut self, command: &Command) -> Answers {
        match command {
            Command::One(operation) => Ok(vec![self.books.operate(operation, self.limit)]),
            Command::Bulk(bulk) if bulk.commands.is_empty() => Err((None, ErrorCode::BulkEmpty)),
            Command::Bulk(bulk) => {
                let before = self.books.clone();
                let answers: Vec<_> = bulk.commands.iter().map(|one| self.books.operate(one, self.limit)).collect();
                match (0..).zip(&answers).find_map(|(index, answer)| Some((index, answer.clone().err()?))) {
                    Some((index, code)) if bulk.atomic => {
                        self.books = before;
                        Err((Some(index), code))
                    }
                    _ => Ok(answers),
                }
            }
        }
    }

    /// Whether it is a replay, and what the command answers; or why it is kept away.
    fn request(&mut self, header: &RequestHeader, command: &Command) -> Result<(bool, Answers), Rejection> {
        let RequestHeader { session, key: _, number, acknowledged } = *header;
        let Some(so_far) = self.acknowledged.get_mut(&session) else {
            return Err(Rejection::SessionExpired { session });
        };
        *so_far = (*so_far).max(acknowledged.min(number - 1));
        if number <= *so_far {
            return Err(Rejection::RequestAcknowledged { number, acknowledged: *so_far });
        }
        if let Some((first, answers)) = self.replies.get(&(session, number)) {
            let same = first == command;
            return if same { Ok((true, answers.clone())) } else { Err(Rejection::RequestReused { number }) };
        }
        let answers = self.execute(command);
        self.replies.insert((session, number), (command.clone(), answers.clone()));
        Ok((false, answers))
    }
}

/// What the ledger answered, in the words of the model.
fn plain(command: &Command, answer: Result<Success, Refusal>) -> Answers {
    let one = |answer: &Result<Success, Refusal>| match answer {
        Ok(Success::Account { transaction, .. }) => Ok(transaction.as_ref().map_or(0, |t| t.transaction_id)),
        Ok(Success::Transaction { transaction }) => Ok(transaction.transaction_id),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code.clone()),
    };
    match (command, &answer) {
        (Command::One(_), answer) => Ok(vec![one(answer)]),
        (Command::Bulk(_), Err(refusal)) => Err((refusal.index, refusal.code.clone())),
        (Command::Bulk(_), Ok(_)) => Ok(results(answer).iter().map(one).collect()),
    }
}

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
    prop_oneof![
        2 => (name(), amount()).prop_map(|(account, amount)| create(account, amount)),
        2 => (name(), amount()).prop_map(|(account, amount)| deposit(account, amount)),
        2 => (name(), amount()).prop_map(|(account, amount)| withdraw(account, amount)),
        5 => (name(), name(), amount()).prop_map(|(from, to, amount)| transfer(from, to, amount)),
    ]
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

/// `reloads` says, by bits, after which batches the ledger is saved and made again of its rows.
fn check(log: &[(i64, Vec<(RequestHeader, Command)>)], reloads: u32) {
    let mut bank = Bank::with_limit(MODEL_LIMIT);
    let other = bank.batch(&[open(SessionKey([9; 16]))]);
    assert_eq!(other, [RequestOutcome::Opened { session: 3, new: true }]);
    let mut model = Model {
        limit: MODEL_LIMIT,
        books: Books::default(),
        replies: BTreeMap::new(),
        acknowledged: BTreeMap::from([(SESSION, 0), (3, 0)]),
    };
    let mut times = Vec::new(); // the slot and log time of each transaction
    let mut time = bank.stamp;
    for (round, (step, requests)) in log.iter().enumerate() {
        if reloads >> round & 1 == 1 {
            bank.reload();
        }
        bank.stamp = bank.stamp.saturating_add_signed(*step);
        time = time.max(bank.stamp);
        let keyed: Vec<_> = requests
            .iter()
            .map(|(header, command)| {
                let key = if header.session == 3 { SessionKey([9; 16]) } else { header.key };
                (RequestHeader { key, ..*header }, Action::Command(command.clone()))
            })
            .collect();
        let outcomes = bank.batch(&keyed);
        assert_eq!(outcomes.len(), requests.len());
        for (outcome, (header, command)) in outcomes.into_iter().zip(requests) {
            let found = match outcome {
                RequestOutcome::Command { replayed, outcome, .. } => {
                    Ok((replayed, plain(command, bank.render(&outcome))))
                }
                RequestOutcome::Rejected(rejection) => Err(rejection),
                other => panic!("{other:?}"),
            };
            assert_eq!(found, model.request(header, command), "{header:?} {command:?}");
        }
        times.resize(model.books.moved.len(), (bank.ledger.applied(), time));
    }
    check_history(&mut bank, &model, &times);
    check_balances(&mut bank, &model);
}

/// Every transaction is the model's, and the chain of hashes can be recomputed from what clients see.
fn check_history(bank: &mut Bank, model: &Model, times: &[(u64, u64)]) {
    let transactions = bank.transactions();
    let mut hash = Digest::ZERO;
    assert_eq!(transactions.len(), model.books.moved.len());
    for (t, ((kind, amount, from, to), (slot, time))) in transactions.iter().zip(model.books.moved.iter().zip(times)) {
        let side = |name: &Option<Box<str>>, balance: Option<u64>| Some((name.as_ref()?.to_string(), balance?));
        assert!(t.transaction_type == *kind && t.amount == *amount, "{t:?}");
        assert_eq!(side(&t.from_account, t.from_balance), *from);
        assert_eq!(side(&t.to_account, t.to_balance), *to);
        assert_eq!((t.slot, t.timestamp), (*slot, *time));
        hash = chain_hash(&hash, t);
        assert_eq!(t.hash, hash, "transaction {}", t.transaction_id);
    }
    assert_eq!(bank.ledger.chain_head(), hash);
}

/// The accounts are the model's, replaying the history gives their balances, and no money came or went unseen.
fn check_balances(bank: &mut Bank, model: &Model) {
    let Ok(Success::Accounts { accounts, next: None }) = bank.query(&Query::ListAccounts { after: None, limit: None })
    else {
        panic!("no list of accounts");
    };
    let found: BTreeMap<_, _> = accounts.iter().map(|a| (a.account_id.to_string(), a.balance)).collect();
    assert_eq!(found, model.books.balances);
    let (mut replayed, mut counts, mut total) = (BTreeMap::new(), BTreeMap::new(), 0);
    for t in bank.transactions() {
        match t.transaction_type.known() {
            Some(TransactionType::Opening | TransactionType::Deposit) => total += t.amount,
            Some(TransactionType::Withdrawal) => total -= t.amount,
            Some(TransactionType::Transfer) => {}
            None => panic!("{t:?}"),
        }
        for (account, balance) in [(t.from_account, t.from_balance), (t.to_account, t.to_balance)] {
            if let (Some(account), Some(balance)) = (account, balance) {
                *counts.entry(account.clone()).or_insert(0) += 1;
                replayed.insert(account, (balance, t.timestamp));
            }
        }
    }
    for account in &accounts {
        let (balance, at) = replayed.get(&account.account_id).map_or((0, None), |(balance, at)| (*balance, Some(*at)));
        assert_eq!((account.balance, account.last_transaction_at), (balance, at), "{}", account.account_id);
        assert_eq!(account.transaction_count, counts.get(&account.account_id).copied().unwrap_or(0));
    }
    assert_eq!(bank.ledger.summary().total_balance, total);
    assert_eq!(found.values().sum::<u64>(), total);
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
