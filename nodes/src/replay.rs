//! What the history alone makes of an empty bank, to compare the books with. Written without a look at the ledger's code: what both
//! say is likely so.
//!
//! Source: BANK.md, invariants 1 to 4.

use std::collections::{HashMap, HashSet};

use rabia_bank_actors::ledger::{BlockRecord, chain_hash};
use rabia_bank_messages::bank::{Account, AccountStatus, Asset, Bound, Transaction, TransactionType};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::{Digest, Slot};
use serde::Deserialize;

use crate::audit::AuditError;

/// What was set about an account, as a record says it.
#[derive(Deserialize, Default)]
struct Said {
    min_balance: Option<Bound>,
    max_balance: Option<Bound>,
    status: Option<AccountStatus>,
    code: Option<Box<str>>,
    name: Option<Box<str>>,
}

/// An account, by the history alone.
#[derive(Debug)]
struct Replayed {
    balance: i64,
    transactions: u64,
    last: u64,
    last_at: u64,
    /// None is the cluster's own one.
    asset: Option<Box<str>>,
    min_balance: Bound,
    max_balance: Bound,
    status: AccountStatus,
    code: Option<Box<str>>,
    name: Option<Box<str>>,
}

impl Default for Replayed {
    fn default() -> Replayed {
        Replayed {
            balance: 0,
            transactions: 0,
            last: 0,
            last_at: 0,
            asset: None,
            min_balance: Bound::At(0),
            max_balance: Bound::None,
            status: AccountStatus::Open,
            code: None,
            name: None,
        }
    }
}

impl Replayed {
    fn set(&mut self, text: &str) -> Result<(), String> {
        let said: Said =
            Encoding::Json.decode(text.as_bytes()).map_err(|why| format!("{text:?} sets nothing: {why}"))?;
        self.min_balance = said.min_balance.unwrap_or(self.min_balance);
        self.max_balance = said.max_balance.unwrap_or(self.max_balance);
        self.status = said.status.unwrap_or(self.status);
        if said.code.is_some() {
            self.code = said.code;
        }
        if let Some(name) = said.name {
            self.name = Some(name).filter(|name| !name.is_empty());
        }
        Ok(())
    }

    /// Whether a balance may become this one: no bound is passed, and none that is passed already further.
    fn lets_become(&self, balance: i64) -> bool {
        let falls = balance < self.balance && matches!(self.min_balance, Bound::At(min) if balance < min);
        let rises = balance > self.balance && matches!(self.max_balance, Bound::At(max) if balance > max);
        !falls && !rises
    }

    fn compare(&self, account: &Account, own: &str) -> Result<(), AuditError> {
        let wrong = |what: String| Err(AuditError::Account { account: account.account_id.clone(), what });
        let last_at = (self.transactions > 0).then_some(self.last_at);
        let found = (account.balance, account.transaction_count, account.last_transaction_at);
        let expected = (self.balance, self.transactions, last_at);
        if found != expected {
            return wrong(format!(
                "balance, transactions and time of the last one are {found:?}, by the history they should be {expected:?}"
            ));
        }
        let found = (&*account.asset, account.min_balance, account.max_balance, account.status);
        let expected = (self.asset.as_deref().unwrap_or(own), self.min_balance, self.max_balance, self.status);
        let (found, expected) = ((found, &account.code, &account.name), (expected, &self.code, &self.name));
        if found != expected {
            return wrong(format!("its settings are {found:?}, by the history they should be {expected:?}"));
        }
        Ok(())
    }
}

/// Which sides a transaction of a type has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sides {
    None,
    From,
    To,
    Both,
}

fn sides(kind: TransactionType) -> Sides {
    match kind {
        TransactionType::Opening | TransactionType::Deposit | TransactionType::AccountChange => Sides::To,
        TransactionType::Withdrawal => Sides::From,
        TransactionType::Transfer => Sides::Both,
        TransactionType::Admin | TransactionType::Asset => Sides::None,
    }
}

/// One side of a transaction.
struct Leg<'a> {
    name: &'a str,
    change: i64,
    /// After it.
    balance: i64,
    /// The account's transaction before it, where that is stored.
    previous: Option<u64>,
}

/// What the history makes of an empty bank.
pub(crate) struct Replay {
    accounts: HashMap<Box<str>, Replayed>,
    pub(crate) transactions: u64,
    pub(crate) head: Digest,
    newest_of_type: HashMap<TransactionType, u64>,
    slot: Slot,
    time: u64,
    /// Those that came into being.
    assets: HashSet<Box<str>>,
    /// Openings + deposits − withdrawals of the cluster's own asset.
    own_total: i128,
    /// The same of the others.
    totals: HashMap<Box<str>, i128>,
}

impl Default for Replay {
    fn default() -> Replay {
        Replay {
            accounts: HashMap::new(),
            transactions: 0,
            head: Digest::ZERO,
            newest_of_type: HashMap::new(),
            slot: 0,
            time: 0,
            assets: HashSet::new(),
            own_total: 0,
            totals: HashMap::new(),
        }
    }
}

impl Replay {
    /// Checks the next transaction. Where it is `stored`, so are its pointers.
    pub(crate) fn take(&mut self, record: &BlockRecord, stored: bool) -> Result<(), AuditError> {
        let id = self.transactions + 1;
        self.check(id, record, stored).map_err(|what| AuditError::Transaction { id, what })?;
        let transaction = &record.transaction;
        self.transactions = id;
        self.head = transaction.hash;
        (self.slot, self.time) = (transaction.slot, transaction.timestamp);
        Ok(())
    }

    fn check(&mut self, id: u64, record: &BlockRecord, stored: bool) -> Result<(), String> {
        let transaction = &record.transaction;
        if transaction.transaction_id != id {
            return Err(format!("{} stands in its place", transaction.transaction_id));
        }
        if transaction.slot < self.slot || transaction.timestamp < self.time {
            return Err(format!("it is older than the one before it: {transaction:?}"));
        }
        // A block's hashes were computed when it was read; those of the rest follow from the log.
        if !stored && chain_hash(self.head, transaction) != Some(transaction.hash) {
            return Err("its hash does not follow from the one before it".into());
        }
        let Some(kind) = transaction.transaction_type.known() else {
            return Err(format!("it is of no type that this program knows: {transaction:?}"));
        };
        self.check_form(kind, transaction)?;
        let amount = i64::try_from(transaction.amount).map_err(|_| "its amount is too large".to_owned())?;
        let previous = |previous: u64| stored.then_some(previous);
        if let (Some(name), Some(balance)) = (&transaction.from_account, transaction.from_balance) {
            let leg = Leg { name, change: -amount, balance, previous: previous(record.previous_of_from) };
            self.change(kind, transaction, leg)?;
        }
        if let (Some(name), Some(balance)) = (&transaction.to_account, transaction.to_balance) {
            let leg = Leg { name, change: amount, balance, previous: previous(record.previous_of_to) };
            self.change(kind, transaction, leg)?;
        }
        let newest = self.newest_of_type.insert(kind, id).unwrap_or(0);
        if stored && record.previous_of_type != newest {
            let found = record.previous_of_type;
            return Err(format!("it points back to {found} of its type, the last one was {newest}"));
        }
        let change = match sides(kind) {
            Sides::To => i128::from(amount),
            Sides::From => -i128::from(amount),
            Sides::None | Sides::Both => return Ok(()),
        };
        match &transaction.asset {
            None => self.own_total += change,
            Some(asset) => *self.totals.entry(asset.clone()).or_default() += change,
        }
        Ok(())
    }

    /// Whether a transaction has what one of its type has, and nothing else.
    fn check_form(&mut self, kind: TransactionType, transaction: &Transaction) -> Result<(), String> {
        let there = |account: bool, balance: bool| if account == balance { Some(account) } else { None };
        let from = there(transaction.from_account.is_some(), transaction.from_balance.is_some());
        let to = there(transaction.to_account.is_some(), transaction.to_balance.is_some());
        let found = match (from, to) {
            (Some(false), Some(false)) => Some(Sides::None),
            (Some(true), Some(false)) => Some(Sides::From),
            (Some(false), Some(true)) => Some(Sides::To),
            (Some(true), Some(true)) => Some(Sides::Both),
            _ => None,
        };
        if found != Some(sides(kind)) {
            return Err(format!("its sides are not those of its type: {transaction:?}"));
        }
        let no_amount = transaction.amount == 0;
        let fits = match kind {
            TransactionType::Opening => transaction.act.is_none(),
            TransactionType::Deposit | TransactionType::Withdrawal | TransactionType::Transfer => {
                !no_amount && transaction.act.is_none() && transaction.settings.is_none()
            }
            TransactionType::AccountChange => no_amount && transaction.act.is_none() && transaction.settings.is_some(),
            TransactionType::Admin | TransactionType::Asset => {
                no_amount && transaction.act.is_some() && transaction.settings.is_none()
            }
        };
        if !fits {
            return Err(format!("it says more or less than one of its type: {transaction:?}"));
        }
        if kind == TransactionType::Asset {
            #[derive(Deserialize)]
            struct Created {
                asset: Box<str>,
            }
            let act = transaction.act.as_deref().unwrap_or("");
            let created: Created =
                Encoding::Json.decode(act.as_bytes()).map_err(|why| format!("{act:?} creates no asset: {why}"))?;
            if !self.assets.insert(created.asset) {
                return Err(format!("its asset was there before: {act}"));
            }
        }
        match &transaction.asset {
            Some(asset) if !self.assets.contains(asset) => Err(format!("there is no asset {asset}")),
            _ => Ok(()),
        }
    }

    fn change(&mut self, kind: TransactionType, transaction: &Transaction, leg: Leg<'_>) -> Result<(), String> {
        let Leg { name, change, balance, previous } = leg;
        // Names are allocated once an account, not once a transaction.
        let mut opened = Replayed { asset: transaction.asset.clone(), ..Replayed::default() };
        let known = self.accounts.get_mut(name);
        let is_known = known.is_some();
        let state = known.unwrap_or(&mut opened);
        if kind == TransactionType::Opening && state.transactions > 0 {
            return Err(format!("{name} was opened before"));
        }
        if state.asset != transaction.asset {
            return Err(format!("{name} holds {:?}, and {:?} moves", state.asset, transaction.asset));
        }
        if let Some(previous) = previous.filter(|previous| *previous != state.last) {
            let last = state.last;
            return Err(format!("it points back to {previous} for {name}, whose last one was {last}"));
        }
        if kind == TransactionType::Opening
            && let Some(settings) = &transaction.settings
        {
            state.set(settings)?;
        }
        if state.balance.checked_add(change) != Some(balance) {
            let before = state.balance;
            return Err(format!("{name} has {before} before it, and is said to have {balance} after it"));
        }
        let lets = match change {
            0 => state.status != AccountStatus::Closed,
            ..0 => state.status.lets_out() && state.lets_become(balance),
            1.. => state.status.lets_in() && state.lets_become(balance),
        };
        if !lets {
            return Err(format!("{name} does not let it happen: {state:?}"));
        }
        if kind == TransactionType::AccountChange
            && let Some(settings) = &transaction.settings
        {
            state.set(settings)?;
            if state.status == AccountStatus::Closed && balance != 0 {
                return Err(format!("{name} is closed with {balance} in it"));
            }
        }
        state.balance = balance;
        state.transactions += 1;
        (state.last, state.last_at) = (transaction.transaction_id, transaction.timestamp);
        if !is_known {
            self.accounts.insert(name.into(), opened);
        }
        Ok(())
    }

    /// Compares an account with what the history made of it, and takes that away. `own` is the code of the cluster's own asset.
    pub(crate) fn compare_account(&mut self, account: &Account, own: &str) -> Result<(), AuditError> {
        self.accounts.remove(&account.account_id).unwrap_or_default().compare(account, own)
    }

    /// An account that the history names and nobody has compared; the first by name.
    pub(crate) fn left_over(&self) -> Option<&str> {
        self.accounts.keys().min().map(|name| &**name)
    }

    /// Compares the assets of the books, the cluster's own one first, with those of the history.
    pub(crate) fn compare_assets(&self, assets: &[Asset]) -> Result<(), AuditError> {
        for (place, asset) in assets.iter().enumerate() {
            let others = || self.totals.get(&asset.asset).copied().unwrap_or(0);
            let total = if place == 0 { self.own_total } else { others() };
            if total != i128::from(asset.total_balance) {
                return Err(AuditError::Sum(format!(
                    "of {}, openings + deposits − withdrawals are {total}, the balances are {} together",
                    asset.asset, asset.total_balance
                )));
            }
        }
        let listed: HashSet<&str> = assets.iter().skip(1).map(|asset| &*asset.asset).collect();
        let created: HashSet<&str> = self.assets.iter().map(|asset| &**asset).collect();
        if listed == created {
            return Ok(());
        }
        Err(AuditError::Sum(format!("the assets are {listed:?}, by the history they should be {created:?}")))
    }
}
