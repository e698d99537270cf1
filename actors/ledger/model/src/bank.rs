//! The bank in the words of BANK.md: balances in a map, the history in a vector; every question reads all of it.
//!
//! Source: BANK.md, "Commands", "Queries", "Records".

use std::collections::BTreeMap;

use rabia_bank_messages::bank::{
    Account, AccountId, Command, DEFAULT_PAGE, ErrorCode, HistoryFilter, HourVolume, ItemResult, MAX_BALANCE, MAX_BULK,
    MAX_PAGE, Operation, OtherFields, Query, Refusal, SideProofs, Statistics, Success, Transaction, TransactionType,
    Volume,
};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::{Digest, Millis, Salt, Secret, Slot};
use rabia_bank_messages::principal::{PrincipalNumber, PrincipalsInfo, PutPrincipal};

use crate::principals::{Principals, leaves};
use crate::{Answer, At, Plain, views};

/// Accounts and transactions in plain maps and lists. Nothing in them is ever dropped.
#[derive(Debug)]
pub struct Bank {
    limit: u64,
    balances: BTreeMap<String, u64>,
    /// When each account was created.
    created: BTreeMap<String, (Slot, Millis)>,
    history: Vec<Transaction>,
    /// The places in the history that each account is in.
    touching: BTreeMap<String, Vec<usize>>,
    /// Where the command at hand stands, and who asks.
    slot: Slot,
    time: Millis,
    asker: PrincipalNumber,
    /// What salts are made of.
    secret: Secret,
}

impl Bank {
    /// An empty bank, in which one transaction moves at most `limit` minor units, and whose salts are no secret.
    pub fn new(limit: u64) -> Bank {
        Bank::founded(limit, Secret([0; 32]))
    }

    /// The same, whose salts are made of this.
    pub fn founded(limit: u64, secret: Secret) -> Bank {
        Bank {
            limit,
            balances: BTreeMap::new(),
            created: BTreeMap::new(),
            history: Vec::new(),
            touching: BTreeMap::new(),
            slot: 0,
            time: 0,
            asker: 0,
            secret,
        }
    }

    /// The largest amount of one transaction, in minor units.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The sum of all balances.
    pub fn total(&self) -> u64 {
        self.balances.values().sum()
    }

    /// All transactions, oldest first.
    pub fn history(&self) -> &[Transaction] {
        &self.history
    }

    fn execute(&mut self, command: &Command, principals: &mut Principals) -> Answer {
        let bulk = match command {
            Command::One(operation) => {
                return self
                    .check(&mut self.balances.clone(), &mut 0, operation, principals)
                    .map(|()| self.perform(operation, principals))
                    .map_err(refusal);
            }
            Command::Bulk(bulk) => bulk,
        };
        match bulk.commands.len() {
            0 => return Err(refusal(ErrorCode::BulkEmpty)),
            1..=MAX_BULK => {}
            _ => return Err(refusal(ErrorCode::BulkTooLarge)),
        }
        if bulk.atomic {
            let (mut trial, mut spent) = (self.balances.clone(), 0);
            for (index, operation) in (0..).zip(&bulk.commands) {
                self.check(&mut trial, &mut spent, operation, principals)
                    .map_err(|code| Refusal { index: Some(index), ..refusal(code) })?;
            }
        }
        let one = |operation| match self.check(&mut self.balances.clone(), &mut 0, operation, principals) {
            Ok(()) => ItemResult::Ok(self.perform(operation, principals)),
            Err(code) => ItemResult::Error(refusal(code)),
        };
        Ok(Success::Results { results: bulk.commands.iter().map(one).collect() })
    }

    /// Carries out an operation that was checked.
    fn perform(&mut self, operation: &Operation, principals: &mut Principals) -> Success {
        let (kind, from, to, amount) = sides(operation);
        if leaves(operation) {
            principals.spend(self.asker, self.time, amount);
        }
        if let Operation::CreateAccount { account_id, .. } = operation {
            self.created.insert(account_id.to_string(), (self.slot, self.time));
            self.balances.insert(account_id.to_string(), 0);
        }
        if kind == TransactionType::Opening && amount == 0 {
            let account = self.account(to.map_or("", |name| name), self.slot);
            return Success::Account {
                account: account.unwrap_or_else(|| unreachable!("just created")),
                transaction: None,
            };
        }
        let mut balance_of = |name: &str, change: &dyn Fn(u64) -> u64| {
            let balance = self.balances.entry(name.into()).or_default();
            *balance = change(*balance);
            *balance
        };
        let from_balance = from.map(|name| balance_of(name, &|balance| balance - amount));
        let to_balance = to.map(|name| balance_of(name, &|balance| balance + amount));
        let mut transaction = Transaction {
            transaction_id: self.history.len() as u64 + 1,
            transaction_type: kind.into(),
            from_account: from.cloned(),
            to_account: to.cloned(),
            amount,
            from_balance,
            to_balance,
            timestamp: self.time,
            slot: self.slot,
            principal: Some(self.asker),
            proofs: None,
            act: None,
            hash: self.history.last().map_or(Digest::ZERO, |last| last.hash),
            other: OtherFields::default(),
        };
        let [from_salt, to_salt] = salts(&self.secret, transaction.transaction_id);
        transaction.proofs = SideProofs::of_salts(from.map(|_| from_salt), to.map(|_| to_salt));
        transaction.hash = chained(&transaction, transaction.hash);
        for name in [from, to].into_iter().flatten() {
            self.touching.entry(name.to_string()).or_default().push(self.history.len());
        }
        self.history.push(transaction.clone());
        match (kind, to) {
            (TransactionType::Opening, Some(name)) => {
                let account = Account {
                    account_id: name.clone(),
                    balance: amount,
                    created_at: self.time,
                    last_transaction_at: Some(self.time),
                    transaction_count: 1,
                    other: OtherFields::default(),
                };
                Success::Account { account, transaction: Some(transaction) }
            }
            _ => Success::Transaction { transaction },
        }
    }

    /// Checks an operation in the order of BANK.md's table, and changes the balances. `spent` is what left accounts before it that is
    /// not counted yet.
    fn check(
        &self,
        balances: &mut BTreeMap<String, u64>,
        spent: &mut u64,
        operation: &Operation,
        principals: &Principals,
    ) -> Result<(), ErrorCode> {
        let allowed = principals.may(self.asker, operation);
        let within = principals.within_limits(self.asker, self.time, *spent, operation);
        check(balances, self.limit, operation, (allowed, within))?;
        if leaves(operation) {
            *spent += amount_of(operation);
        }
        Ok(())
    }

    /// An account as it was after a slot.
    fn account(&self, name: &str, slot: Slot) -> Option<Account> {
        let (_, created_at) = *self.created.get(name).filter(|(created, _)| *created <= slot)?;
        let all = self.touching.get(name).map_or(&[][..], |places| &places[..]);
        let mine = &all[..all.partition_point(|place| self.history[*place].slot <= slot)];
        let last = mine.last().map(|place| &self.history[*place]);
        let balance = last.map_or(0, |last| {
            let from = last.from_account.as_deref() == Some(name);
            if from { last.from_balance } else { last.to_balance }.unwrap_or(0)
        });
        Some(Account {
            account_id: name.into(),
            balance,
            created_at,
            last_transaction_at: last.map(|last| last.timestamp),
            transaction_count: mine.len() as u64,
            other: OtherFields::default(),
        })
    }

    /// The history as it was after a slot.
    fn until(&self, slot: Slot) -> &[Transaction] {
        &self.history[..self.history.partition_point(|transaction| transaction.slot <= slot)]
    }

    fn accounts(&self, slot: Slot) -> Vec<Account> {
        self.created.keys().filter_map(|name| self.account(name, slot)).collect()
    }

    /// All transactions of a feed with ids from `from` on and below `next`, oldest first. None if there are not so many transactions.
    pub fn feed(&self, feed: &Feed, from: u64, next: u64) -> Option<Vec<Transaction>> {
        let from = from.max(1);
        if next == from {
            return Some(Vec::new());
        }
        let wanted = |transaction: &&Transaction| {
            let account = feed.account_id.as_ref().is_none_or(|name| touches(transaction, name));
            account && feed.min_amount.is_none_or(|amount| transaction.amount >= amount)
        };
        let looked_at = self.history().get(from as usize - 1..next as usize - 1)?;
        Some(looked_at.iter().filter(wanted).cloned().collect())
    }

    fn statistics(&self, large_amount: Option<u64>, slot: Slot) -> Success {
        const TOP: usize = 10;
        const HOUR: Millis = 3_600_000;
        const HOURS: usize = 48;
        let large_amount = large_amount.unwrap_or((self.limit / 10).max(1));
        let history = self.until(slot);
        let accounts = self.accounts(slot);
        let top = |value: &dyn Fn(&Account) -> u64| {
            let mut sorted = accounts.clone();
            sorted.sort_by(|a, b| value(b).cmp(&value(a)).then(a.account_id.cmp(&b.account_id)));
            sorted.truncate(TOP);
            sorted
        };
        let of_type = |kind: TransactionType| volume(history.iter().filter(|t| t.transaction_type == kind));
        let mut hours: Vec<Millis> = history.iter().map(|t| t.timestamp / HOUR * HOUR).collect();
        hours.dedup();
        let latest = hours.len().saturating_sub(HOURS);
        let of_hour = |hour: &Millis| volume(history.iter().filter(|t| t.timestamp / HOUR * HOUR == *hour));
        let large = history.iter().rev().filter(|transaction| transaction.amount >= large_amount);
        Success::Statistics {
            statistics: Box::new(Statistics {
                accounts: accounts.len() as u64,
                total_balance: accounts.iter().map(|account| account.balance).sum(),
                transactions: volume(history.iter()),
                by_type: TransactionType::ALL
                    .into_iter()
                    .map(|kind| (kind, of_type(kind)))
                    .filter(|(kind, volume)| *kind != TransactionType::Admin || volume.count > 0)
                    .map(|(kind, volume)| (kind.into(), volume))
                    .collect(),
                by_hour: hours[latest..].iter().map(|hour| HourVolume { hour: *hour, total: of_hour(hour) }).collect(),
                largest_accounts: top(&|account| account.balance),
                most_active_accounts: top(&|account| account.transaction_count),
                large_amount,
                large_transactions: large.take(TOP).cloned().collect(),
                other: OtherFields::default(),
            }),
        }
    }
}

impl Plain for Bank {
    type Command = Command;
    type Query = Query;
    type Success = Success;

    fn command(&mut self, command: &Command, At { slot, time, asker, principals }: At<'_>) -> Answer {
        (self.slot, self.time, self.asker) = (slot, time, asker);
        self.execute(command, principals)
    }

    fn record(&mut self, act: String, asker: PrincipalNumber, slot: Slot, time: Millis) {
        let before = self.history.last().map_or(Digest::ZERO, |last| last.hash);
        let mut transaction = Transaction {
            transaction_id: self.history.len() as u64 + 1,
            transaction_type: TransactionType::Admin.into(),
            from_account: None,
            to_account: None,
            amount: 0,
            from_balance: None,
            to_balance: None,
            timestamp: time,
            slot,
            principal: Some(asker),
            proofs: None,
            act: Some(act.into()),
            hash: before,
            other: OtherFields::default(),
        };
        transaction.hash = chained(&transaction, before);
        self.history.push(transaction);
    }

    fn query(&self, query: &Query, slot: Slot) -> Answer {
        let account_of = |name: &str| {
            well_formed(name).map_err(refusal)?;
            self.account(name, slot).ok_or_else(|| refusal(ErrorCode::AccountNotFound))
        };
        match query {
            Query::GetAccount { account_id } => {
                let account = account_of(account_id)?;
                Ok(Success::Account { account, transaction: None })
            }
            Query::GetBalance { account_id } => Ok(Success::Balance { balance: account_of(account_id)?.balance }),
            Query::ListAccounts { after, limit } => {
                let limit = page(*limit)?;
                let mut accounts = self.accounts(slot);
                accounts.retain(|account| after.as_ref().is_none_or(|after| account.account_id > *after));
                let more = accounts.len() > limit;
                accounts.truncate(limit);
                let next = accounts.last().filter(|_| more).map(|last| last.account_id.clone());
                Ok(Success::Accounts { accounts, next })
            }
            Query::GetTransactionHistory(filter) => {
                if let Some(name) = &filter.account_id {
                    account_of(name)?;
                }
                let limit = page(filter.limit)?;
                let wanted = self.until(slot).iter().rev().filter(|transaction| matches(transaction, filter));
                let mut transactions: Vec<Transaction> = wanted.cloned().collect();
                let more = transactions.len() > limit;
                transactions.truncate(limit);
                let next = transactions.last().filter(|_| more).map(|last| last.transaction_id);
                Ok(Success::Transactions { transactions, next })
            }
            Query::GetTransaction { transaction_id } => {
                let found = self.until(slot).iter().find(|transaction| transaction.transaction_id == *transaction_id);
                let transaction = found.cloned().ok_or_else(|| refusal(ErrorCode::TransactionNotFound))?;
                Ok(Success::Transaction { transaction })
            }
            Query::GetStatistics { large_amount } => Ok(self.statistics(*large_amount, slot)),
            Query::GetStatus {} | Query::ListPrincipals {} => Err(refusal(ErrorCode::Malformed)),
        }
    }

    fn plain(answer: Answer) -> Answer {
        plain(answer)
    }

    fn is_refused(command: &Command, put: &PutPrincipal) -> bool {
        views::is_refused(put, command)
    }

    fn about_principals(query: &Query) -> Option<fn(PrincipalsInfo) -> Success> {
        matches!(query, Query::ListPrincipals {})
            .then_some(|PrincipalsInfo { principals, tokens }| Success::Principals { principals, tokens })
    }

    fn asked(query: &Query, answer: Answer, put: &PutPrincipal) -> Answer {
        views::asked(put, query, answer)
    }

    fn seen(answer: Success, put: &PutPrincipal) -> Success {
        views::seen(put, answer)
    }
}

/// An answer without the words for people.
pub fn plain(answer: Answer) -> Answer {
    let wordless = |refusal: Refusal| Refusal { message: String::new(), ..refusal };
    let item = |item| match item {
        ItemResult::Error(refusal) => ItemResult::Error(wordless(refusal)),
        ok @ ItemResult::Ok(_) => ok,
    };
    match answer {
        Ok(Success::Results { results }) => Ok(Success::Results { results: results.into_iter().map(item).collect() }),
        Ok(success) => Ok(success),
        Err(refusal) => Err(wordless(refusal)),
    }
}

pub(crate) fn refusal(code: ErrorCode) -> Refusal {
    Refusal::refused(code, String::new())
}

/// The checks of an operation, in the order of BANK.md's table.
fn check(
    balances: &mut BTreeMap<String, u64>,
    limit: u64,
    operation: &Operation,
    (allowed, within): (bool, bool),
) -> Result<(), ErrorCode> {
    let may = || if allowed { Ok(()) } else { Err(ErrorCode::NotAuthorised) };
    let in_limits = || if within { Ok(()) } else { Err(ErrorCode::LimitExceeded) };
    let room = MAX_BALANCE - balances.values().sum::<u64>();
    let in_limit = |amount: u64, least: u64| {
        if amount < least || amount > limit { Err(ErrorCode::InvalidAmount) } else { Ok(amount) }
    };
    let balance =
        |balances: &BTreeMap<String, u64>, name: &str| balances.get(name).copied().ok_or(ErrorCode::AccountNotFound);
    match operation {
        Operation::CreateAccount { account_id, initial_balance } => {
            well_formed(account_id)?;
            may()?;
            let amount = in_limit(initial_balance.get(), 0)?;
            if balances.contains_key(&**account_id) {
                return Err(ErrorCode::AccountExists);
            }
            in_limits()?;
            if amount > room {
                return Err(ErrorCode::BalanceOverflow);
            }
            balances.insert(account_id.to_string(), amount);
        }
        Operation::Deposit { account_id, amount } => {
            well_formed(account_id)?;
            may()?;
            let amount = in_limit(amount.get(), 1)?;
            let before = balance(balances, account_id)?;
            in_limits()?;
            if amount > room {
                return Err(ErrorCode::BalanceOverflow);
            }
            balances.insert(account_id.to_string(), before + amount);
        }
        Operation::Withdraw { account_id, amount } => {
            well_formed(account_id)?;
            may()?;
            let amount = in_limit(amount.get(), 1)?;
            let before = balance(balances, account_id)?;
            in_limits()?;
            let left = before.checked_sub(amount).ok_or(ErrorCode::InsufficientFunds)?;
            balances.insert(account_id.to_string(), left);
        }
        Operation::Transfer { from_account, to_account, amount } => {
            well_formed(from_account)?;
            well_formed(to_account)?;
            may()?;
            let amount = in_limit(amount.get(), 1)?;
            if from_account == to_account {
                return Err(ErrorCode::SameAccount);
            }
            let (from, to) = (balance(balances, from_account)?, balance(balances, to_account)?);
            in_limits()?;
            let left = from.checked_sub(amount).ok_or(ErrorCode::InsufficientFunds)?;
            balances.insert(from_account.to_string(), left);
            balances.insert(to_account.to_string(), to + amount);
        }
    }
    Ok(())
}

fn well_formed(name: &str) -> Result<(), ErrorCode> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    let fits = (1..=50).contains(&name.len()) && name.chars().all(allowed);
    if fits { Ok(()) } else { Err(ErrorCode::InvalidAccountId) }
}

fn page(limit: Option<u32>) -> Result<usize, Refusal> {
    let limit = limit.unwrap_or(DEFAULT_PAGE);
    if limit == 0 || limit > MAX_PAGE { Err(refusal(ErrorCode::Malformed)) } else { Ok(limit as usize) }
}

fn touches(transaction: &Transaction, name: &str) -> bool {
    [&transaction.from_account, &transaction.to_account].into_iter().flatten().any(|account| **account == *name)
}

fn matches(transaction: &Transaction, filter: &HistoryFilter) -> bool {
    filter.account_id.as_ref().is_none_or(|name| touches(transaction, name))
        && filter.transaction_type.is_none_or(|kind| transaction.transaction_type == kind)
        && filter.from_time.is_none_or(|time| transaction.timestamp >= time)
        && filter.to_time.is_none_or(|time| transaction.timestamp <= time)
        && filter.before.is_none_or(|before| transaction.transaction_id < before)
}

fn volume<'a>(transactions: impl Iterator<Item = &'a Transaction>) -> Volume {
    transactions.fold(Volume::default(), |sum, transaction| Volume {
        count: sum.count + 1,
        volume: sum.volume.saturating_add(transaction.amount).min(MAX_BALANCE),
    })
}

/// What an operation brings in, takes out or moves, in minor units.
pub fn amount_of(operation: &Operation) -> u64 {
    sides(operation).3
}

/// Why money moves, from where, where to, and how much.
fn sides(operation: &Operation) -> (TransactionType, Option<&AccountId>, Option<&AccountId>, u64) {
    match operation {
        Operation::CreateAccount { account_id, initial_balance } => {
            (TransactionType::Opening, None, Some(account_id), initial_balance.get())
        }
        Operation::Deposit { account_id, amount } => (TransactionType::Deposit, None, Some(account_id), amount.get()),
        Operation::Withdraw { account_id, amount } => {
            (TransactionType::Withdrawal, Some(account_id), None, amount.get())
        }
        Operation::Transfer { from_account, to_account, amount } => {
            (TransactionType::Transfer, Some(from_account), Some(to_account), amount.get())
        }
    }
}

/// Whether a transaction may be what came of an operation, as far as can be seen without the balances.
pub fn is_result_of(transaction: &Transaction, operation: &Operation) -> bool {
    let (kind, from, to, amount) = sides(operation);
    transaction.transaction_type == kind
        && (transaction.from_account.as_ref(), transaction.to_account.as_ref()) == (from, to)
        && transaction.amount == amount
}

/// What a whole history leads to.
#[derive(Debug)]
pub struct Replayed {
    /// Of each account that any transaction names.
    pub balances: BTreeMap<AccountId, u64>,
    /// The hash of the last transaction.
    pub head: Digest,
    /// What came in less what went out: the sum of all balances.
    pub total: u64,
}

/// Replays a history from nothing: ids, order, every hash, and every balance after every transaction.
///
/// # Errors
/// What is wrong with which transaction.
pub fn replay(history: &[Transaction]) -> Result<Replayed, String> {
    let mut replayed = Replayed { balances: BTreeMap::new(), head: Digest::ZERO, total: 0 };
    let (mut slot, mut time) = (0, 0);
    for (transaction, id) in history.iter().zip(1..) {
        let ensure =
            |holds: bool, what: &str| if holds { Ok(()) } else { Err(format!("{what}: {transaction:?}, number {id}")) };
        ensure(transaction.transaction_id == id, "another id")?;
        ensure(transaction.slot >= slot && transaction.timestamp >= time, "it goes back")?;
        (slot, time) = (transaction.slot, transaction.timestamp);
        let (from, to) = (&transaction.from_account, &transaction.to_account);
        let is_opening = transaction.transaction_type == TransactionType::Opening;
        let known = |account: &AccountId| replayed.balances.contains_key(account);
        ensure(!to.as_ref().is_some_and(|to| is_opening && known(to)), "opened twice")?;
        if let Some(from) = from {
            let balance = replayed.balances.entry(from.clone()).or_default();
            ensure(*balance >= transaction.amount, "a balance below 0")?;
            *balance -= transaction.amount;
            ensure(transaction.from_balance == Some(*balance), "another balance of the source")?;
        }
        if let Some(to) = to {
            let balance = replayed.balances.entry(to.clone()).or_default();
            *balance += transaction.amount;
            ensure(transaction.to_balance == Some(*balance), "another balance of the destination")?;
        }
        let sides = (from.is_some(), to.is_some());
        match transaction.transaction_type.known() {
            Some(TransactionType::Opening | TransactionType::Deposit) => {
                ensure(sides == (false, true), "other sides")?;
                replayed.total += transaction.amount;
            }
            Some(TransactionType::Withdrawal) => {
                ensure(sides == (true, false), "other sides")?;
                replayed.total -= transaction.amount;
            }
            Some(TransactionType::Transfer) => ensure(sides == (true, true), "other sides")?,
            Some(TransactionType::Admin) => {
                ensure(sides == (false, false) && transaction.amount == 0 && transaction.act.is_some(), "other sides")?;
            }
            None => ensure(false, "a type that the model does not know")?,
        }
        replayed.head = chained(transaction, replayed.head);
        ensure(transaction.hash == replayed.head, "the chain of hashes is broken")?;
    }
    Ok(replayed)
}

/// The salts of the sides of a transaction, as the ledger's documentation says how they are made.
fn salts(secret: &Secret, id: u64) -> [Salt; 2] {
    let mut hasher = blake3::Hasher::new_keyed(&secret.0);
    let hash = *hasher.update(&id.to_be_bytes()).finalize().as_bytes();
    [0, 16].map(|from| {
        let mut salt = [0; 16];
        salt.copy_from_slice(&hash[from..from + 16]);
        Salt(salt)
    })
}

/// The hash of a transaction behind the one with the hash `previous`, as the ledger's documentation lists its bytes.
pub fn chained(transaction: &Transaction, previous: Digest) -> Digest {
    match transaction.principal {
        Some(principal) => chained_by(transaction, previous, principal),
        None => chained_plain(transaction, previous),
    }
}

fn chained_by(transaction: &Transaction, previous: Digest, principal: PrincipalNumber) -> Digest {
    let kind = match transaction.transaction_type.name() {
        "opening" => 5,
        "deposit" => 6,
        "withdrawal" => 7,
        "transfer" => 8,
        _ => 17,
    };
    let mut bytes = previous.0.to_vec();
    bytes.push(kind);
    let from = u8::from(transaction.from_account.is_some() || transaction.proofs().from_hash.is_some());
    let to = u8::from(transaction.to_account.is_some() || transaction.proofs().to_hash.is_some());
    bytes.push(from + 2 * to + 4 * u8::from(transaction.act.is_some()));
    let Transaction { transaction_id, amount, timestamp, slot, .. } = *transaction;
    bytes.extend([transaction_id, amount, timestamp, slot, principal.into()].into_iter().flat_map(varint));
    let Transaction { from_account, from_balance, to_account, to_balance, .. } = transaction;
    let SideProofs { from_salt, to_salt, from_hash, to_hash } = &transaction.proofs();
    let sides = [(from_account, from_balance, from_salt, from_hash), (to_account, to_balance, to_salt, to_hash)];
    let hashes: Vec<Digest> = sides.into_iter().filter_map(side_hash).collect();
    hashes.iter().for_each(|hash| bytes.extend(hash.0));
    if let Some(act) = &transaction.act {
        bytes.extend(varint(act.len() as u64));
        bytes.extend(act.as_bytes());
    }
    Digest::of(&bytes)
}

/// Seven bits a byte, the lowest first.
fn varint(number: u64) -> Vec<u8> {
    match number {
        0..0x80 => vec![number as u8],
        _ => [vec![(number % 0x80) as u8 + 0x80], varint(number / 0x80)].concat(),
    }
}

pub(crate) type SideOf<'a> = (&'a Option<AccountId>, &'a Option<u64>, &'a Option<Salt>, &'a Option<Digest>);

pub(crate) fn side_hash((account, balance, salt, hash): SideOf<'_>) -> Option<Digest> {
    let (Some(account), Some(balance), Some(salt)) = (account, balance, salt) else { return *hash };
    let mut bytes = salt.0.to_vec();
    bytes.push(account.len() as u8);
    bytes.extend(account.as_bytes());
    bytes.extend(balance.to_be_bytes());
    bytes.extend(0u64.to_be_bytes());
    Some(Digest::of(&bytes))
}

/// The same of a record of before there were principals.
fn chained_plain(transaction: &Transaction, previous: Digest) -> Digest {
    let mut bytes = previous.0.to_vec();
    let numbers = [transaction.transaction_id, transaction.amount, transaction.timestamp, transaction.slot];
    bytes.extend(numbers.into_iter().flat_map(u64::to_be_bytes));
    bytes.push(match transaction.transaction_type.name() {
        "opening" => 1,
        "deposit" => 2,
        "withdrawal" => 3,
        _ => 4,
    });
    let sides =
        [(&transaction.from_account, transaction.from_balance), (&transaction.to_account, transaction.to_balance)];
    for (name, balance) in sides {
        let name = name.as_deref().unwrap_or("");
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend(balance.into_iter().flat_map(u64::to_be_bytes));
    }
    Digest::of(&bytes)
}
