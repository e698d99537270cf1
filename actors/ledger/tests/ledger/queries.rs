//! Queries, compared with brute force over everything there is.

use std::cmp::Reverse;

use fastrand::Rng;
use proptest::prelude::*;
use rabia_bank_ledger::{Answer, Lookup, MOST_AT_ONCE, Progress, TELL, chain_hash};
use rabia_bank_messages::bank::{
    Account, AccountStatus, Bound, DEFAULT_PAGE, ErrorCode, HistoryFilter, HourVolume, MAX_BALANCE, MAX_PAGE,
    OtherFields, Query, Statistics, Success, Transaction, TransactionType, Volume,
};
use rabia_bank_messages::client::ServerMessage;
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::Digest;

use crate::support::*;

const HOUR: u64 = 3_600_000;

fn history(bank: &mut Bank, filter: HistoryFilter) -> (Vec<Transaction>, Option<u64>) {
    match bank.query(&Query::GetTransactionHistory(filter)) {
        Ok(Success::Transactions { transactions, next }) => (transactions, next),
        other => panic!("{other:?}"),
    }
}

fn list(bank: &mut Bank, after: Option<&str>, limit: Option<u32>) -> (Vec<Account>, Option<Box<str>>) {
    match bank.query(&Query::ListAccounts { after: after.map(Into::into), limit, code: None }) {
        Ok(Success::Accounts { accounts, next }) => (accounts, next),
        other => panic!("{other:?}"),
    }
}

/// Accounts "0" to "7" of which "6" and "7" have one transaction each, and a history of every type over three hours.
fn busy_bank(steps: &[(u8, u8, u8)]) -> Bank {
    let mut bank = Bank::new();
    for name in 0..7 {
        bank.stamp += 500;
        bank.done(create(&name.to_string(), 1_000));
    }
    bank.done(create("7", 0));
    for (kind, one, other) in steps {
        bank.stamp += u64::from(other % 3) * 40_000;
        let (one, other) = ((one % 6).to_string(), (other % 6).to_string());
        let operation = match kind % 8 {
            0 => deposit(&one, 5),
            1 => withdraw(&one, 7),
            _ => transfer(&one, &other, u64::from(*kind) + 1),
        };
        bank.run(operation).ok();
    }
    bank
}

fn wanted(filter: &HistoryFilter, t: &Transaction) -> bool {
    filter.account_id.as_ref().is_none_or(|id| [&t.from_account, &t.to_account].contains(&&Some(id.clone())))
        && filter.transaction_type.is_none_or(|kind| t.transaction_type == kind)
        && filter.from_time.is_none_or(|time| t.timestamp >= time)
        && filter.to_time.is_none_or(|time| t.timestamp <= time)
        && filter.before.is_none_or(|before| t.transaction_id < before)
}

fn filters() -> impl Strategy<Value = HistoryFilter> {
    let time = prop_oneof![0u64..10_000, 0u64..4_000_000, Just(u64::MAX)];
    (
        proptest::option::of((0u8..8).prop_map(|name| name.to_string().into_boxed_str())),
        proptest::option::of(proptest::sample::select(TransactionType::ALL.to_vec())),
        proptest::option::of(time.clone()),
        proptest::option::of(time),
        proptest::option::of(prop_oneof![0u64..200, Just(u64::MAX)]),
        proptest::option::of(prop_oneof![1u32..12, Just(MAX_PAGE)]),
    )
        .prop_map(|(account_id, transaction_type, from_time, to_time, before, limit)| HistoryFilter {
            account_id,
            transaction_type,
            from_time,
            to_time,
            before,
            limit,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_page_of_a_history_is_what_a_filter_over_all_transactions_gives(
        steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..150),
        filters in proptest::collection::vec(filters(), 20),
    ) {
        let mut bank = busy_bank(&steps);
        let all = bank.transactions();
        for mut filter in filters {
            let mut expected: Vec<_> = all.iter().rev().filter(|t| wanted(&filter, t)).cloned().collect();
            let limit = filter.limit.unwrap_or(DEFAULT_PAGE) as usize;
            loop {
                let (page, next) = history(&mut bank, filter.clone());
                let rest = expected.split_off(limit.min(expected.len()));
                prop_assert_eq!(&page, &expected, "{:?}", filter);
                let last = page.last().map(|t| t.transaction_id);
                prop_assert_eq!(next, last.filter(|_| !rest.is_empty()), "{:?}", filter);
                expected = rest;
                match next {
                    Some(next) => filter.before = Some(next),
                    None => break,
                }
            }
        }
    }

    #[test]
    fn every_page_of_the_accounts_is_a_slice_of_all(
        names in proptest::collection::btree_set("[A-Ca-c_.:-]{1,3}", 0..40),
        after in proptest::option::of("[A-Da-d ]{0,3}"),
        limit in 1u32..12,
    ) {
        let mut bank = Bank::new();
        let mut shuffled: Vec<_> = names.iter().collect();
        shuffled.sort_by_key(|name| blake3::hash(name.as_bytes()).to_hex());
        for name in shuffled {
            bank.done(create(name, 3));
        }
        let mut expected: Vec<_> = names.iter().filter(|name| after.as_ref().is_none_or(|a| *name > a)).collect();
        let mut after = after;
        loop {
            let (page, next) = list(&mut bank, after.as_deref(), Some(limit));
            let rest = expected.split_off((limit as usize).min(expected.len()));
            let found: Vec<_> = page.iter().map(|account| account.account_id.to_string()).collect();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected);
            prop_assert_eq!(next.is_some(), !rest.is_empty());
            expected = rest;
            match next {
                Some(next) => after = Some(next.into()),
                None => break,
            }
        }
    }

    #[test]
    fn statistics_are_what_adding_up_gives(
        steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..150),
        large in proptest::option::of(0u64..300),
    ) {
        let mut bank = busy_bank(&steps);
        let all = bank.transactions();
        let (accounts, _) = list(&mut bank, None, None);
        let Ok(Success::Statistics { statistics }) = bank.query(&Query::GetStatistics { large_amount: large, asset: None }) else {
            panic!("no statistics")
        };
        let sum = |wanted: &dyn Fn(&Transaction) -> bool| {
            let found: Vec<_> = all.iter().filter(|t| wanted(t)).map(|t| t.amount).collect();
            Volume { count: found.len() as u64, volume: found.iter().sum() }
        };
        prop_assert_eq!(statistics.accounts, 8);
        prop_assert_eq!(statistics.total_balance, accounts.iter().map(|a| a.balance).sum::<i64>());
        prop_assert_eq!(statistics.transactions, sum(&|_| true));
        for kind in TransactionType::ALL {
            let listed = statistics.by_type.get(&kind.into()).copied();
            prop_assert_eq!(listed.is_none(), !kind.has_amount(), "what moves no money is listed where it is");
            prop_assert_eq!(listed.unwrap_or_default(), sum(&|t| t.transaction_type == kind));
        }
        let mut hours: Vec<_> = all.iter().map(|t| t.timestamp / HOUR * HOUR).collect();
        hours.dedup();
        let by_hour = |hour| HourVolume { hour, total: sum(&|t| t.timestamp / HOUR * HOUR == hour) };
        prop_assert_eq!(statistics.by_hour, hours.into_iter().map(by_hour).collect::<Vec<_>>());
        let large = large.unwrap_or(LIMIT / 10);
        let mut expected: Vec<_> = all.iter().rev().filter(|t| t.amount >= large).cloned().collect();
        expected.truncate(10);
        prop_assert_eq!(statistics.large_amount, large);
        prop_assert_eq!(statistics.large_transactions, expected);
    }
}

#[test]
fn the_tops_of_many_accounts_are_sorted_and_equal_ones_come_by_id() {
    let mut bank = Bank::new();
    for n in 0..40u64 {
        bank.done(create(&format!("{:02}", n * 17 % 40), n * 17 % 40 / 2));
    }
    for name in ["33", "07", "33"] {
        bank.done(deposit(name, 1));
    }
    let Ok(Success::Statistics { statistics }) = bank.query(&Query::GetStatistics { large_amount: None, asset: None })
    else {
        panic!()
    };
    let (mut accounts, _) = list(&mut bank, None, None);
    accounts.sort_by_key(|account| std::cmp::Reverse(account.balance)); // stable: equal ones stay in order of id
    assert_eq!(statistics.largest_accounts, accounts[..10]);
    accounts.sort_by(|a, b| (b.transaction_count, &a.account_id).cmp(&(a.transaction_count, &b.account_id)));
    assert_eq!(statistics.most_active_accounts, accounts[..10]);
    assert_eq!(&*statistics.most_active_accounts[0].account_id, "33");
    assert_eq!(statistics.large_amount, LIMIT / 10);
}

#[test]
fn large_transactions_are_found_in_a_long_history() {
    let mut bank = Bank::new();
    bank.done(create("a", 0));
    let amount = |n: u64| if n.is_multiple_of(997) { 1_000 + n } else { n % 900 + 1 };
    for first in [0, 5_000] {
        bank.command(bulk(true, (first..first + 5_000).map(|n| deposit("a", amount(n))).collect())).unwrap();
    }
    for large in [1, 900, 1_001, 5_000, 20_000] {
        let Ok(Success::Statistics { statistics }) =
            bank.query(&Query::GetStatistics { large_amount: Some(large), asset: None })
        else {
            panic!()
        };
        let found: Vec<_> = statistics.large_transactions.iter().map(|t| t.amount).collect();
        let expected: Vec<_> = (0..10_000).rev().map(amount).filter(|a| *a >= large).take(10).collect();
        assert_eq!(found, expected, "of at least {large}");
    }
}

#[test]
fn only_the_latest_48_hours_with_transactions_are_listed() {
    let mut bank = Bank::new();
    bank.done(create("a", 1));
    for hour in 1..=60 {
        bank.stamp = hour * 2 * HOUR + 5;
        bank.done(deposit("a", 1));
    }
    let Ok(Success::Statistics { statistics }) = bank.query(&Query::GetStatistics { large_amount: None, asset: None })
    else {
        panic!()
    };
    let hours: Vec<_> = statistics.by_hour.iter().map(|hour| hour.hour).collect();
    assert_eq!(hours, (13..=60).map(|hour| hour * 2 * HOUR).collect::<Vec<_>>());
}

#[test]
fn a_volume_stays_at_its_bound() {
    let mut bank = Bank::with_limit(MAX_BALANCE);
    bank.done(create("a", MAX_BALANCE));
    bank.done(create("b", 0));
    bank.done(transfer("a", "b", MAX_BALANCE));
    bank.done(transfer("b", "a", MAX_BALANCE));
    let Ok(Success::Statistics { statistics }) = bank.query(&Query::GetStatistics { large_amount: None, asset: None })
    else {
        panic!()
    };
    assert_eq!(statistics.transactions, Volume { count: 4, volume: MAX_BALANCE });
}

#[test]
fn accounts_and_balances() {
    let mut bank = Bank::new();
    bank.done(create("a", 10));
    bank.stamp = 2_000;
    bank.done(withdraw("a", 3));
    let expected = Account {
        account_id: "a".into(),
        asset: "XXX".into(),
        balance: 7,
        available: Some(7),
        min_balance: Bound::At(0),
        max_balance: Bound::None,
        status: AccountStatus::Open,
        code: None,
        name: None,
        created_at: 1_000,
        last_transaction_at: Some(2_000),
        transaction_count: 2,
        version: 2,
        other: OtherFields::default(),
    };
    let account = bank.query(&Query::GetAccount { account_id: "a".into() });
    assert_eq!(account, Ok(Success::Account { account: Box::new(expected), transaction: None }));
    assert_eq!(bank.balance("a"), 7);
    for (name, expected) in [
        ("b", ErrorCode::AccountNotFound),
        ("A", ErrorCode::AccountNotFound),
        ("", ErrorCode::InvalidAccountId),
        ("no such name, and none that could be", ErrorCode::InvalidAccountId),
    ] {
        let account_id = || Box::<str>::from(name);
        let filter = HistoryFilter { account_id: Some(account_id()), ..HistoryFilter::default() };
        for query in [
            Query::GetAccount { account_id: account_id() },
            Query::GetBalance { account_id: account_id() },
            Query::GetTransactionHistory(filter),
        ] {
            assert_eq!(code(bank.query(&query)), expected, "{query:?}");
        }
    }
}

#[test]
fn a_transaction_that_is_not_there() {
    let mut bank = Bank::new();
    bank.done(create("a", 10));
    for transaction_id in [0, 2, u64::MAX] {
        assert_eq!(code(bank.query(&Query::GetTransaction { transaction_id })), ErrorCode::TransactionNotFound);
    }
    assert!(bank.query(&Query::GetTransaction { transaction_id: 1 }).is_ok());
}

#[test]
fn a_page_has_1_to_1000_records() {
    let mut bank = busy_bank(&[]);
    for limit in [0, MAX_PAGE + 1, u32::MAX] {
        let filter = HistoryFilter { limit: Some(limit), ..HistoryFilter::default() };
        assert_eq!(code(bank.query(&Query::GetTransactionHistory(filter))), ErrorCode::Malformed);
        assert_eq!(
            code(bank.query(&Query::ListAccounts { after: None, limit: Some(limit), code: None })),
            ErrorCode::Malformed
        );
    }
    assert_eq!(list(&mut bank, None, Some(MAX_PAGE)).0.len(), 8);
    assert_eq!(list(&mut bank, None, Some(8)).1, None, "a full last page has no next");
}

#[test]
fn status_is_not_the_ledgers_to_answer() {
    assert!(Bank::new().ledger.query(&Query::GetStatus {}).is_none());
}

/// The vector in the page for clients, which says how to check it without this program.
#[test]
fn the_chain_is_the_one_of_the_wire_page() {
    let page = include_str!("../../../../messages/WIRE.md");
    let section = page.split("\n## ").find(|section| section.starts_with("The chain of hashes")).unwrap();
    let mut head = Digest::ZERO;
    // Those of before there were principals, and those of now.
    for (place, length) in [(7, 5), (3, 9)] {
        let vector = section.split("```text\n").nth(place).and_then(|block| block.split("```").next()).unwrap();
        let mut count = 0;
        head = Digest::ZERO;
        for object in vector.split("\n{") {
            let transaction = as_told(&format!("{{{}", object.trim_start_matches('{')));
            head = chain_hash(head, &transaction).unwrap();
            assert_eq!(transaction.hash, head, "{transaction:?}");
            count += 1;
        }
        assert_eq!(count, length);
    }
    let zeros = "0".repeat(64);
    let future = as_told(&format!(r#"{{"transaction_id":6,"type":"hold","timestamp":1,"slot":2,"hash":"{zeros}"}}"#));
    assert_eq!(chain_hash(head, &future), None, "of a type with other rules");
}

/// A transaction as a node tells it.
fn as_told(json: &str) -> Transaction {
    let message = format!(r#"{{"subscription":1,"transaction":{json}}}"#);
    match Encoding::Json.decode_server(message.as_bytes()) {
        Ok(ServerMessage::Transaction { transaction, .. }) => *transaction,
        other => panic!("{json}: {other:?}"),
    }
}

fn statistics(bank: &mut Bank) -> Statistics {
    match bank.query(&Query::GetStatistics { large_amount: None, asset: None }) {
        Ok(Success::Statistics { statistics }) => *statistics,
        other => panic!("{other:?}"),
    }
}

/// Both lists of the statistics, from a look at all accounts.
fn tops(bank: &mut Bank) -> [Vec<Account>; 2] {
    let mut all = Vec::new();
    let mut after: Option<Box<str>> = None;
    loop {
        let (page, next) = list(bank, after.as_deref(), Some(MAX_PAGE));
        all.extend(page);
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let top = |measure: fn(&Account) -> i64| {
        let mut sorted = all.clone();
        sorted.sort_by_key(|account| (Reverse(measure(account)), account.account_id.clone()));
        sorted.truncate(10);
        sorted
    };
    [top(|account| account.balance), top(|account| account.transaction_count as i64)]
}

/// The lists of top accounts are kept without an order of all accounts. What tempts that: equal accounts, more of them than are
/// listed; top accounts that become poor, all of them at once; bulks that are undone, and accounts with them; a start.
#[test]
fn the_tops_are_right_whatever_becomes_of_accounts() {
    for seed in 0..20 {
        let mut random = Rng::with_seed(seed);
        let mut bank = Bank::new();
        let count = random.u64(5..3_000);
        let equal = random.bool();
        let name = |number: u64| format!("{:04}", number * 7919 % 10_000);
        for first in (0..count).step_by(500) {
            let numbers = first..count.min(first + 500);
            let balance = |number: u64| if equal { 500 } else { number % 50 };
            bank.command(bulk(false, numbers.map(|number| create(&name(number), balance(number))).collect())).unwrap();
        }
        for round in 0..30 {
            let [balances, counts] = tops(&mut bank);
            let found = statistics(&mut bank);
            assert_eq!(found.largest_accounts, balances, "seed {seed}, round {round}");
            assert_eq!(found.most_active_accounts, counts, "seed {seed}, round {round}");
            let any = |random: &mut Rng| name(random.u64(..count));
            match random.u32(..6) {
                0 => bank.reload(),
                // The richest lose all that they have.
                1 => {
                    let mut all = Vec::new();
                    for account in &balances {
                        all.push(withdraw(&account.account_id, account.balance.max(1) as u64));
                    }
                    bank.command(bulk(false, all)).unwrap();
                }
                2 => {
                    let mut all: Vec<_> = (0..700).map(|_| withdraw(&any(&mut random), random.u64(1..600))).collect();
                    all.extend((0..20).map(|_| deposit(&any(&mut random), random.u64(1..10))));
                    bank.command(bulk(false, all)).unwrap();
                }
                // Undone, with accounts that would be at the top.
                3 => {
                    let mut all = vec![create("00", 900), create("01", 0)];
                    all.extend((0..600).map(|_| deposit(&any(&mut random), 1_000)));
                    all.push(withdraw("01", 1));
                    assert!(bank.command(bulk(true, all)).is_err());
                }
                _ => {
                    let all = (0..random.u64(1..2_000)).map(|_| transfer(&any(&mut random), &any(&mut random), 1));
                    bank.command(bulk(false, all.collect())).unwrap();
                }
            }
        }
    }
}

/// Goes on with an answer by at most so many steps each time, and says how often. No step is taken that is not allowed.
fn in_turns(bank: &mut Bank, lookup: &mut Lookup, allowed: u64) -> (Answer, u64) {
    for turn in 1.. {
        let mut steps = allowed;
        let progress = bank.ledger.go_on(lookup, &mut steps);
        assert!(steps <= allowed);
        match progress {
            Progress::Done(answer) => return (answer, turn),
            Progress::Block(number) => lookup.give(std::sync::Arc::new(bank.rows.block(number))),
            Progress::Unfinished => assert!(allowed - steps >= allowed / 2, "{steps} of {allowed} were not used"),
        }
    }
    unreachable!()
}

/// The dearest question: one account's whole history, for a type that it does not have. Each turn takes no more than it may.
#[test]
fn a_filter_that_matches_nothing_takes_many_turns() {
    let mut bank = Bank::new();
    bank.done(create("hot", 0));
    for _ in 0..4 {
        bank.command(bulk(false, (0..5_000).map(|_| deposit("hot", 1)).collect())).unwrap();
    }
    for reloaded in [false, true] {
        if reloaded {
            bank.reload();
        }
        let filter = HistoryFilter {
            account_id: Some("hot".into()),
            transaction_type: Some(TransactionType::Withdrawal),
            ..HistoryFilter::default()
        };
        let mut lookup = bank.ledger.query(&Query::GetTransactionHistory(filter)).unwrap();
        let (answer, turns) = in_turns(&mut bank, &mut lookup, 100);
        assert_eq!(answer, Ok(Success::Transactions { transactions: vec![], next: None }));
        assert!(turns >= 20_000 / 100, "{turns} turns");
    }
}

/// A page of accounts whose turn comes late names the slot that it shows.
#[test]
fn a_page_of_accounts_is_of_the_moment_when_it_is_read() {
    let mut bank = Bank::new();
    bank.done(create("a", 1_000));
    bank.done(create("b", 0));
    let query = Query::ListAccounts { after: None, limit: None, code: None };
    let mut lookup = bank.ledger.query(&query).unwrap();
    assert!(matches!(bank.ledger.go_on(&mut lookup, &mut 1), Progress::Unfinished));
    bank.done(transfer("a", "b", 300));
    let expected = bank.query(&query);
    let Progress::Done(answer) = bank.ledger.go_on(&mut lookup, &mut MOST_AT_ONCE.clone()) else {
        panic!("{lookup:?}")
    };
    assert_eq!((answer, lookup.slot()), (expected, bank.ledger.applied()));
}

/// Whatever is applied while an answer is under way, it is that of the moment when it was begun.
#[test]
fn an_answer_that_takes_long_is_of_one_moment() {
    let mut bank = Bank::new();
    for name in ["a", "b"] {
        bank.done(create(name, 1_000));
    }
    bank.command(bulk(false, (0..3_000).map(|n| transfer(["a", "b"][n % 2], ["b", "a"][n % 2], 1)).collect())).unwrap();
    let filter = HistoryFilter { account_id: Some("a".into()), limit: Some(900), ..HistoryFilter::default() };
    let query = Query::GetTransactionHistory(filter);
    let (expected, slot) = (bank.query(&query), bank.ledger.applied());
    let mut lookup = bank.ledger.query(&query).unwrap();
    loop {
        match bank.ledger.go_on(&mut lookup, &mut (10 * TELL).clone()) {
            Progress::Done(answer) => {
                assert_eq!((answer, lookup.slot()), (expected, slot));
                break;
            }
            Progress::Block(_) => panic!("all of it is in memory"),
            Progress::Unfinished => bank.done(transfer("a", "b", 1)),
        }
    }
    assert!(bank.ledger.applied() > slot + 50);
}

/// The statistics may need a look at all accounts. They are those of the slot that they name, not of when they were asked for.
#[test]
fn statistics_that_take_long_are_of_one_moment() {
    let mut bank = Bank::new();
    let name = |number: u64| format!("{number:05}");
    for first in (0..20_000).step_by(5_000) {
        bank.command(bulk(false, (first..first + 5_000).map(|number| create(&name(number), 500)).collect())).unwrap();
    }
    bank.reload();
    let mut lookup = bank.ledger.query(&Query::GetStatistics { large_amount: None, asset: None }).unwrap();
    let (begun, mut random) = (bank.ledger.applied(), Rng::with_seed(1));
    let mut of_slot = std::collections::BTreeMap::new();
    let answer = loop {
        of_slot.insert(bank.ledger.applied(), tops(&mut bank));
        match bank.ledger.go_on(&mut lookup, &mut MOST_AT_ONCE.clone()) {
            Progress::Done(answer) => break answer,
            Progress::Block(_) => panic!("no block is needed"),
            Progress::Unfinished => {
                let [one, other] = [0, 1].map(|_| name(random.u64(..20_000)));
                bank.run(transfer(&one, &other, 400)).ok();
            }
        }
    };
    let Ok(Success::Statistics { statistics }) = answer else { panic!("{answer:?}") };
    assert!(lookup.slot() >= begun + 20_000 / MOST_AT_ONCE, "it took {} slots", lookup.slot() - begun);
    assert_eq!([statistics.largest_accounts, statistics.most_active_accounts], of_slot[&lookup.slot()]);
    assert_eq!(statistics.transactions.count, bank.ledger.summary().transactions);
}
