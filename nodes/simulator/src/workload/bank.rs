//! The bank. What must hold of it beside its answers: of each asset the sum of all balances is openings + deposits − withdrawals, no
//! record takes a balance across a bound or further beyond it, and replaying the history gives every asset, every account with its
//! bounds, status, code and name, and every hash.
//!
//! Source: BANK.md, "Invariants then", 1 to 4.

use std::collections::BTreeMap;
use std::ops::Range;

use fastrand::Rng;
use rabia_bank_actors::ledger;
use rabia_bank_actors::ledger::replicated::Replicated;
use rabia_bank_messages::bank::{
    AccountStatus, Amount, AssetCode, Bound, Bulk, Command, CreateAccount, CreateAsset, HistoryFilter, ItemResult,
    MAX_BALANCE, Operation, OperationKind, Query, SetAccount, Success, Transaction, TransactionType,
};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{Millis, Slot};
use rabia_bank_messages::principal::PutPrincipal;
use rabia_bank_model::{Bank, Model, replay_of, views};

use super::super::properties::{Check, Violation, check};
use super::super::staff::ACCOUNTS;
use super::Workload;

#[cfg(test)]
mod tests;

impl Workload for Bank {
    type Machine = ledger::Bank;

    const PRINCIPALS: bool = true;

    fn new_cluster(genesis: &Genesis) -> Bank {
        Bank::founded(&genesis.bank, genesis.transaction_limit, genesis.founding.secret)
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
        match random.u32(..10) {
            9 => Query::ListAssets {},
            8 => Query::ListPrincipals {},
            0 => Query::GetAccount { account_id: name(random) },
            1 => Query::GetBalance { account_id: name(random) },
            2 => Query::ListAccounts {
                after: maybe(random, name),
                limit: maybe(random, limit),
                code: maybe(random, class),
            },
            3 => Query::GetTransaction { transaction_id: id(random) },
            4 => Query::GetStatistics {
                large_amount: maybe(random, |random| random.u64(..MAX_BALANCE) >> random.u32(..53)),
                asset: maybe(random, asset),
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
            asset: maybe(random, asset),
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

    /// Conservation: of each asset the ledger's figure, and the model's balances, are what the history adds up to.
    fn holds(slot: Slot, ledger: &Replicated<ledger::Bank>, model: &Model) -> Check {
        let model = model.machine();
        let mut sums: BTreeMap<&str, i128> = model.assets().map(|code| (code, 0)).collect();
        for transaction in model.history() {
            let sum = sums.entry(transaction.asset.as_deref().unwrap_or(model.own())).or_default();
            *sum += match transaction.transaction_type.known() {
                Some(TransactionType::Opening | TransactionType::Deposit) => i128::from(transaction.amount),
                Some(TransactionType::Withdrawal) => -i128::from(transaction.amount),
                Some(
                    TransactionType::Transfer
                    | TransactionType::Admin
                    | TransactionType::AccountChange
                    | TransactionType::Asset,
                )
                | None => 0,
            };
        }
        let answer = ledger.query(&Query::ListAssets {}).and_then(|lookup| ledger.at_hand(lookup));
        let Some(Ok(Success::Assets { assets })) = &answer else {
            return check(false, "conservation", || format!("after slot {slot} the ledger lists {answer:?} as assets"));
        };
        let figures: BTreeMap<&str, i128> =
            assets.iter().map(|asset| (&*asset.asset, asset.total_balance.into())).collect();
        let totals: BTreeMap<&str, i128> = model.assets().map(|code| (code, model.total(code))).collect();
        let own = i128::from(ledger.summary().total_balance) == sums[model.own()];
        check(own && sums == figures && sums == totals, "conservation", || {
            format!(
                "after slot {slot} the history adds up to {sums:?}, the ledger says {figures:?}, the model {totals:?}"
            )
        })
    }

    fn all_pages(
        mut ask: impl FnMut(&Query) -> Result<Option<Success>, Violation>,
    ) -> Result<Vec<Transaction>, Violation> {
        let (mut after, mut before, mut history) = (None, None, Vec::new());
        let mut accounts = Vec::new();
        loop {
            let answer = ask(&Query::ListAccounts { after, limit: Some(7), code: None })?;
            let Some(Success::Accounts { accounts: page, next }) = answer else { break };
            accounts.extend(page);
            after = next;
            if after.is_none() {
                break;
            }
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
        let Some(Success::Assets { assets }) = ask(&Query::ListAssets {})? else { return Ok(history) };
        for asset in &assets {
            let asset = Some(asset.asset.clone());
            ask(&Query::GetStatistics { large_amount: Some(100), asset })?;
        }
        for code in CLASSES {
            ask(&Query::ListAccounts { after: None, limit: Some(3), code: Some(code.into()) })?;
        }
        let own = assets.first().map_or("", |own| &*own.asset);
        let replayed = replay_of(own, &history);
        let totals = assets.iter().map(|asset| (asset.asset.clone(), i128::from(asset.total_balance))).collect();
        let leads_there = replayed
            .as_ref()
            .is_ok_and(|replayed| replayed.accounts.values().eq(&accounts) && replayed.totals == totals);
        check(leads_there, "history gives the books", || {
            format!("the accounts are {accounts:?}, the assets {assets:?}, the history leads to {replayed:?}")
        })?;
        Ok(history)
    }
}

/// What accounts are of beside the cluster's own asset, once it is created.
const FOREIGN: [&str; 2] = ["EUR", "PTS"];
/// Classes of accounts.
const CLASSES: [&str; 3] = ["customer", "cash", "fees"];

/// What most accounts of this name are of: some are of another asset, so that most transfers that are tried are within one.
fn usual_asset(account: &str) -> Option<AssetCode> {
    match ACCOUNTS.iter().position(|name| *name == account)? % 6 {
        4 => Some(FOREIGN[0].into()),
        5 => Some(FOREIGN[1].into()),
        _ => None,
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
        3..5 => Amount::new(most),
        5..7 => Amount::new(random.u64(1..=most)),
        _ => Amount::new(random.u64(1..500)),
    }
}

/// Any asset; one is no code, and one is never created.
fn asset(random: &mut Rng) -> AssetCode {
    match random.u32(..16) {
        0 => "eur".into(),
        1 => "GOLD".into(),
        2..6 => "XXX".into(),
        _ => FOREIGN[random.usize(..FOREIGN.len())].into(),
    }
}

fn class(random: &mut Rng) -> Box<str> {
    match random.u32(..30) {
        0 => "no class".into(),
        _ => CLASSES[random.usize(..CLASSES.len())].into(),
    }
}

fn title(random: &mut Rng) -> Box<str> {
    match random.u32(..20) {
        0 => "two\nlines".into(),
        1..8 => "".into(),
        8..12 => "The \"Shop\"".into(),
        _ => "Łukasz \\ Zoë".into(),
    }
}

/// Mostly a bound that is met within a run.
fn bound(usual: std::ops::Range<i64>, random: &mut Rng) -> Bound {
    match random.u32(..24) {
        0 => Bound::INVALID,
        1 => Bound::At(MAX_BALANCE as i64),
        2 => Bound::At(-(MAX_BALANCE as i64)),
        3..8 => Bound::None,
        8..12 => Bound::At(0),
        _ => Bound::At(random.i64(usual)),
    }
}

/// Mostly one that lets money through, or lets it through again. Few accounts that are to be closed are empty.
fn status(random: &mut Rng) -> AccountStatus {
    match random.u32(..24) {
        0..2 => AccountStatus::Closed,
        2..4 => AccountStatus::Frozen,
        4..7 => AccountStatus::NoDebits,
        7..10 => AccountStatus::NoCredits,
        _ => AccountStatus::Open,
    }
}

/// Some fields at random, each of them mostly not.
fn seldom<T>(random: &mut Rng, value: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    if random.u32(..4) == 0 { Some(value(random)) } else { None }
}

fn create_account(most: u64, random: &mut Rng) -> CreateAccount {
    let account_id = name(random);
    let empty = random.u32(..3) == 0;
    let usual = random.u32(..8) > 0;
    CreateAccount {
        initial_balance: if empty { Amount::new(0) } else { amount(most, random) },
        asset: if usual { usual_asset(&account_id) } else { maybe(random, asset) },
        min_balance: seldom(random, |random| bound(-500..100, random)),
        max_balance: seldom(random, |random| bound(100..5_000, random)),
        code: maybe(random, class),
        name: seldom(random, title),
        account_id,
    }
}

fn set_account(random: &mut Rng) -> SetAccount {
    SetAccount {
        account_id: name(random),
        min_balance: seldom(random, |random| bound(-500..100, random)),
        max_balance: seldom(random, |random| bound(100..5_000, random)),
        status: maybe(random, status),
        code: seldom(random, class),
        name: seldom(random, title),
    }
}

fn create_asset(most: u64, random: &mut Rng) -> CreateAsset {
    CreateAsset {
        asset: asset(random),
        scale: random.u64(..10),
        limit: match random.u32(..8) {
            0 => 0,
            1 => MAX_BALANCE + 1,
            2 => random.u64(1..400),
            _ => most,
        },
    }
}

/// Two accounts, mostly of one asset.
fn pair(random: &mut Rng) -> [Box<str>; 2] {
    let from = name(random);
    let mut to = name(random);
    for _ in 0..3 {
        if usual_asset(&from) == usual_asset(&to) {
            break;
        }
        to = name(random);
    }
    [from, to]
}

fn operation(most: u64, random: &mut Rng) -> Operation {
    let kind = match random.u32(..24) {
        0 => OperationKind::CreateAsset,
        1..4 => OperationKind::SetAccount,
        4..7 => OperationKind::CreateAccount,
        7..12 => OperationKind::Deposit,
        12..15 => OperationKind::Withdraw,
        _ => OperationKind::Transfer,
    };
    match kind {
        OperationKind::CreateAccount => Operation::CreateAccount(Box::new(create_account(most, random))),
        OperationKind::SetAccount => Operation::SetAccount(Box::new(set_account(random))),
        OperationKind::CreateAsset => Operation::CreateAsset(create_asset(most, random)),
        OperationKind::Deposit => Operation::Deposit { account_id: name(random), amount: amount(most, random) },
        OperationKind::Withdraw => Operation::Withdraw { account_id: name(random), amount: amount(most, random) },
        OperationKind::Transfer => {
            let [from_account, to_account] = pair(random);
            Operation::Transfer { from_account, to_account, amount: amount(most, random) }
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
