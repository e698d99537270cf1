//! The bank. What must hold of it beside its answers: the sum of all balances is openings + deposits − withdrawals, no balance is
//! below 0, and replaying the history gives every balance and every hash.
//!
//! Source: BANK.md, invariants 1 to 4 and 6.

use std::ops::Range;

use fastrand::Rng;
use rabia_bank_actors::ledger;
use rabia_bank_actors::ledger::replicated::Replicated;
use rabia_bank_messages::bank::{
    Amount, Bulk, Command, HistoryFilter, MAX_BALANCE, Operation, OperationKind, Query, Success, Transaction,
    TransactionType,
};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{Millis, Slot};
use rabia_bank_model::{Bank, Model};

use super::super::properties::{Check, Violation, check};
use super::Workload;

/// Accounts that commands are about.
const ACCOUNTS: u64 = 12;

impl Workload for Bank {
    type Machine = ledger::Bank;

    fn new_cluster(genesis: &Genesis) -> Bank {
        Bank::new(genesis.transaction_limit)
    }

    fn any_command(&self, random: &mut Rng) -> Command {
        if random.u32(..8) > 0 {
            return Command::One(operation(self.limit(), random));
        }
        let commands = (0..random.usize(..7)).map(|_| operation(self.limit(), random)).collect();
        Command::Bulk(Bulk { commands, atomic: random.bool() })
    }

    fn any_query(&self, wall: Millis, random: &mut Rng) -> Query {
        let transactions = self.history().len() as u64;
        let time = |random: &mut Rng| match random.u32(..6) {
            0 => 0,
            1 => u64::MAX,
            _ => wall.saturating_sub(random.u64(..5_000)) + random.u64(..100),
        };
        let id = |random: &mut Rng| match random.u32(..10) {
            0 => 0,
            1 => u64::MAX,
            _ => random.u64(..transactions + 3),
        };
        match random.u32(..8) {
            0 => Query::GetAccount { account_id: name(random) },
            1 => Query::GetBalance { account_id: name(random) },
            2 => Query::ListAccounts { after: maybe(random, name), limit: maybe(random, limit) },
            3 => Query::GetTransaction { transaction_id: id(random) },
            4 => Query::GetStatistics {
                large_amount: maybe(random, |random| random.u64(..MAX_BALANCE) >> random.u32(..53)),
            },
            _ => Query::GetTransactionHistory(HistoryFilter {
                account_id: maybe(random, name),
                transaction_type: maybe(random, |random| TransactionType::ALL[random.usize(..4)]),
                from_time: maybe(random, time),
                to_time: maybe(random, time),
                before: maybe(random, id),
                limit: maybe(random, limit),
            }),
        }
    }

    fn any_feed(&self, random: &mut Rng) -> (Feed, u64) {
        let feed = Feed {
            account_id: maybe(random, name),
            min_amount: maybe(random, |random| random.u64(..1_000)),
            from: None,
        };
        (feed, random.u64(..self.history().len() as u64 + 3))
    }

    fn entries(&self, feed: &Feed, ids: Range<u64>) -> Option<Vec<Transaction>> {
        self.feed(feed, ids.start, ids.end)
    }

    /// Conservation: the ledger's figure, and the model's balances, are what the history adds up to.
    fn holds(slot: Slot, ledger: &Replicated<ledger::Bank>, model: &Model) -> Check {
        let mut sum: i128 = 0;
        for transaction in model.machine().history() {
            sum += match transaction.transaction_type.known() {
                Some(TransactionType::Opening | TransactionType::Deposit) => i128::from(transaction.amount),
                Some(TransactionType::Withdrawal) => -i128::from(transaction.amount),
                Some(TransactionType::Transfer | TransactionType::Admin) | None => 0,
            };
        }
        let (ledger, model) = (ledger.summary().total_balance, model.machine().total());
        check(sum == i128::from(ledger) && ledger == model, "conservation", || {
            format!("after slot {slot} the history adds up to {sum}, the ledger says {ledger}, the model {model}")
        })
    }

    fn all_pages(mut ask: impl FnMut(&Query) -> Result<Option<Success>, Violation>) -> Check {
        let (mut after, mut before) = (None, None);
        loop {
            let answer = ask(&Query::ListAccounts { after: after.clone(), limit: Some(7) })?;
            let Some(Success::Accounts { next: Some(next), .. }) = answer else { break };
            after = Some(next);
        }
        loop {
            let filter = HistoryFilter { before, limit: Some(100), ..HistoryFilter::default() };
            let answer = ask(&Query::GetTransactionHistory(filter))?;
            let Some(Success::Transactions { next: Some(next), .. }) = answer else { return Ok(()) };
            before = Some(next);
        }
    }
}

fn name(random: &mut Rng) -> Box<str> {
    match random.u32(..60) {
        0 => "".into(),
        1 => "no such name!".into(),
        2 => "x".repeat(51).into(),
        3 => "nobody".into(),
        _ => format!("account-{}", random.u64(..ACCOUNTS)).into(),
    }
}

fn amount(most: u64, random: &mut Rng) -> Amount {
    match random.u32(..40) {
        0 => Amount::new(0),
        1 => Amount::new(most.saturating_add(1)),
        2 => Amount::INVALID,
        3 => Amount::new(most),
        4 => Amount::new(random.u64(1..=most)),
        _ => Amount::new(random.u64(1..500)),
    }
}

fn operation(most: u64, random: &mut Rng) -> Operation {
    let kind = match random.u32(..10) {
        0 => OperationKind::CreateAccount,
        1..=3 => OperationKind::Deposit,
        4 | 5 => OperationKind::Withdraw,
        _ => OperationKind::Transfer,
    };
    match kind {
        OperationKind::CreateAccount => {
            let empty = random.u32(..3) == 0;
            let initial_balance = if empty { Amount::new(0) } else { amount(most, random) };
            Operation::CreateAccount { account_id: name(random), initial_balance }
        }
        OperationKind::Deposit => Operation::Deposit { account_id: name(random), amount: amount(most, random) },
        OperationKind::Withdraw => Operation::Withdraw { account_id: name(random), amount: amount(most, random) },
        OperationKind::Transfer => {
            Operation::Transfer { from_account: name(random), to_account: name(random), amount: amount(most, random) }
        }
    }
}

fn maybe<T>(random: &mut Rng, value: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    if random.bool() { Some(value(random)) } else { None }
}

fn limit(random: &mut Rng) -> u32 {
    match random.u32(..12) {
        0 => 0,
        1 => 1_001,
        2 => 1_000,
        3 => u32::MAX,
        _ => random.u32(1..20),
    }
}
