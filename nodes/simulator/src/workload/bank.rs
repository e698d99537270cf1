//! The bank. What must hold of it beside its answers: the sum of all balances is openings + deposits − withdrawals, no balance is
//! below 0, and replaying the history gives every balance and every hash.
//!
//! Source: BANK.md, invariants 1 to 4 and 6.

use std::ops::Range;

use fastrand::Rng;
use rabia_bank_actors::ledger;
use rabia_bank_actors::ledger::replicated::Replicated;
use rabia_bank_messages::bank::{
    Amount, Bulk, Command, HistoryFilter, ItemResult, MAX_BALANCE, Operation, OperationKind, Query, Success,
    Transaction, TransactionType,
};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{Millis, Slot};
use rabia_bank_messages::principal::PutPrincipal;
use rabia_bank_model::{Bank, Model, views};

use super::super::properties::{Check, Violation, check};
use super::super::staff::ACCOUNTS;
use super::Workload;

impl Workload for Bank {
    type Machine = ledger::Bank;

    const PRINCIPALS: bool = true;

    fn new_cluster(genesis: &Genesis) -> Bank {
        Bank::founded(genesis.transaction_limit, genesis.founding.secret)
    }

    fn any_command(&self, random: &mut Rng) -> Command {
        if random.u32(..8) > 0 {
            return Command::One(operation(self.limit(), random));
        }
        let commands = (0..random.usize(..7)).map(|_| operation(self.limit(), random)).collect();
        Command::Bulk(Bulk { commands, atomic: random.bool() })
    }

    fn performed(command: &Command, success: &Success) -> Vec<(Operation, Option<Transaction>)> {
        let of = |success: &Success| match success {
            Success::Transaction { transaction } => Some(Some(transaction.clone())),
            Success::Account { transaction, .. } => Some(transaction.clone()),
            _ => None,
        };
        let (operations, successes) = match (command, success) {
            (Command::One(operation), success) => (std::slice::from_ref(operation), vec![of(success)]),
            (Command::Bulk(bulk), Success::Results { results }) => {
                let one = |result: &ItemResult| if let ItemResult::Ok(success) = result { of(success) } else { None };
                (&bulk.commands[..], results.iter().map(one).collect())
            }
            _ => return Vec::new(),
        };
        let done = operations.iter().zip(successes);
        done.filter_map(|(operation, record)| Some((operation.clone(), record?))).collect()
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
        match random.u32(..9) {
            8 => Query::ListPrincipals {},
            0 => Query::GetAccount { account_id: name(random) },
            1 => Query::GetBalance { account_id: name(random) },
            2 => Query::ListAccounts { after: maybe(random, name), limit: maybe(random, limit) },
            3 => Query::GetTransaction { transaction_id: id(random) },
            4 => Query::GetStatistics {
                large_amount: maybe(random, |random| random.u64(..MAX_BALANCE) >> random.u32(..53)),
            },
            _ => Query::GetTransactionHistory(HistoryFilter {
                account_id: maybe(random, name),
                transaction_type: maybe(random, |random| {
                    TransactionType::ALL[random.usize(..TransactionType::ALL.len())]
                }),
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

    fn slot_of(&self, id: u64) -> Slot {
        id.checked_sub(1).and_then(|place| self.history().get(place as usize)).map_or(0, |entry| entry.slot)
    }

    fn hide(feed: &Feed, entries: &mut Vec<Transaction>, put: &PutPrincipal) {
        if views::may_follow(put, feed.account_id.as_deref()) {
            entries.iter_mut().for_each(|entry| views::hide(put, entry));
        } else {
            entries.clear();
        }
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

    fn all_pages(
        mut ask: impl FnMut(&Query) -> Result<Option<Success>, Violation>,
    ) -> Result<Vec<Transaction>, Violation> {
        let (mut after, mut before, mut history) = (None, None, Vec::new());
        loop {
            let answer = ask(&Query::ListAccounts { after: after.clone(), limit: Some(7) })?;
            let Some(Success::Accounts { next: Some(next), .. }) = answer else { break };
            after = Some(next);
        }
        loop {
            let filter = HistoryFilter { before, limit: Some(100), ..HistoryFilter::default() };
            let Some(Success::Transactions { transactions, next }) = ask(&Query::GetTransactionHistory(filter))? else {
                break;
            };
            history.extend(transactions);
            before = next;
            if next.is_none() {
                break;
            }
        }
        history.reverse();
        Ok(history)
    }
}

fn name(random: &mut Rng) -> Box<str> {
    match random.u32(..60) {
        0 => "".into(),
        1 => "no such name!".into(),
        2 => "x".repeat(51).into(),
        3 => "nobody".into(),
        _ => ACCOUNTS[random.usize(..ACCOUNTS.len())].into(),
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
