//! Replays a history: from its records alone come every account, every asset and every hash.
//!
//! Source: BANK.md, "Invariants then", 1 to 4.

use std::collections::BTreeMap;

use rabia_bank_messages::bank::{
    Account, AccountId, AccountStatus, AssetCode, Bound, MAX_BALANCE, OtherFields, OwnAsset, Transaction,
    TransactionType,
};
use rabia_bank_messages::ids::Digest;

use crate::bank::{available, ceiling, floor};
use crate::chain::chained;

/// What a whole history leads to.
#[derive(Debug)]
pub struct Replayed {
    /// Each account that any transaction names. One of 0.1.0 that was empty when it was created has no opening: of it is known what
    /// happened since its first transaction.
    pub accounts: BTreeMap<AccountId, Account>,
    /// The hash of the last transaction.
    pub head: Digest,
    /// Of each asset, what came in less what went out: the sum of all balances of it, in minor units. The cluster's own one is
    /// there always.
    pub totals: BTreeMap<AssetCode, i128>,
    own: AssetCode,
    /// Of each asset but the own one, the largest amount of one transaction.
    limits: BTreeMap<AssetCode, u64>,
}

impl Replayed {
    /// The balance of an account, in minor units; 0 where no transaction names it.
    pub fn balance(&self, account: &str) -> i64 {
        self.accounts.get(account).map_or(0, |account| account.balance)
    }

    /// What came in of the cluster's own asset, less what went out.
    pub fn total(&self) -> i128 {
        self.totals[&self.own]
    }
}

/// Replays a history of a cluster that has no currency of its own: see [`replay_of`].
///
/// # Errors
/// What is wrong with which transaction.
pub fn replay(history: &[Transaction]) -> Result<Replayed, String> {
    replay_of(&OwnAsset::default().code, history)
}

/// Replays a history from nothing, in a cluster with this asset of its own: ids, order, every hash, every balance after every
/// transaction; that no record takes a balance across a bound or further beyond it, and that every account let it happen.
///
/// # Errors
/// What is wrong with which transaction.
pub fn replay_of(own: &str, history: &[Transaction]) -> Result<Replayed, String> {
    let mut replayed = Replayed {
        accounts: BTreeMap::new(),
        head: Digest::ZERO,
        totals: BTreeMap::from([(own.into(), 0)]),
        own: own.into(),
        limits: BTreeMap::new(),
    };
    let (mut slot, mut time) = (0, 0);
    for (transaction, id) in history.iter().zip(1..) {
        let wrong = |what: String| format!("{what}: {transaction:?}, number {id}");
        ensure(transaction.transaction_id == id, "another id").map_err(wrong)?;
        ensure(transaction.slot >= slot && transaction.timestamp >= time, "it goes back").map_err(wrong)?;
        (slot, time) = (transaction.slot, transaction.timestamp);
        replayed.follow(transaction).map_err(wrong)?;
        replayed.head = chained(transaction, replayed.head);
        ensure(transaction.hash == replayed.head, "the chain of hashes is broken").map_err(wrong)?;
    }
    Ok(replayed)
}

fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

impl Replayed {
    /// Does what a record says.
    fn follow(&mut self, transaction: &Transaction) -> Result<(), String> {
        let Transaction { from_account, to_account, amount, settings, act, .. } = transaction;
        let kind = transaction.transaction_type.known().ok_or("a type that the model does not know")?;
        let (sides, has_act) = match kind {
            TransactionType::Opening | TransactionType::Deposit | TransactionType::AccountChange => {
                ([false, true], false)
            }
            TransactionType::Withdrawal => ([true, false], false),
            TransactionType::Transfer => ([true, true], false),
            TransactionType::Admin | TransactionType::Asset => ([false, false], true),
        };
        ensure([from_account.is_some(), to_account.is_some()] == sides, "other sides")?;
        ensure(act.is_some() == has_act, "an act of which there should be none, or none")?;
        ensure(kind.has_amount() || *amount == 0, "an amount where nothing moved")?;
        ensure(*amount > 0 || !kind.has_amount() || kind == TransactionType::Opening, "it moved nothing")?;
        let may_set = matches!(kind, TransactionType::Opening | TransactionType::AccountChange);
        ensure(settings.is_none() || may_set, "settings of another record")?;
        let asset = transaction.asset.as_ref();
        ensure(asset.is_none_or(|asset| *asset != self.own), "the own asset is not named")?;
        ensure(
            asset.is_none_or(|asset| self.limits.get(asset).is_some_and(|limit| amount <= limit)),
            "above the limit",
        )?;
        let asset = asset.unwrap_or(&self.own).clone();
        match kind {
            TransactionType::Opening => self.open(transaction, &asset)?,
            TransactionType::AccountChange => self.set(transaction)?,
            TransactionType::Asset => self.create_asset(act.as_deref().unwrap_or(""))?,
            _ => {}
        }
        let moved = *amount as i64;
        if let Some(name) = from_account {
            self.turn(transaction, (name, &asset), -moved, transaction.from_balance)?;
        }
        if let Some(name) = to_account {
            self.turn(transaction, (name, &asset), moved, transaction.to_balance)?;
        }
        let total = self.totals.entry(asset).or_default();
        *total += match kind {
            TransactionType::Opening | TransactionType::Deposit => i128::from(moved),
            TransactionType::Withdrawal => -i128::from(moved),
            _ => 0,
        };
        ensure(total.unsigned_abs() <= MAX_BALANCE.into(), "the sum of all balances is too large")
    }

    fn open(&mut self, transaction: &Transaction, asset: &AssetCode) -> Result<(), String> {
        let name = transaction.to_account.clone().unwrap_or_default();
        ensure(!self.accounts.contains_key(&name), "opened twice")?;
        let mut account = fresh(name.clone(), asset.clone(), transaction.timestamp);
        if let Some(settings) = &transaction.settings {
            set(&mut account, settings)?;
            ensure(account.status == AccountStatus::Open, "an opening has no status")?;
        }
        self.accounts.insert(name, account);
        Ok(())
    }

    fn set(&mut self, transaction: &Transaction) -> Result<(), String> {
        let name = transaction.to_account.clone().unwrap_or_default();
        let account = fresh(name.clone(), self.own.clone(), transaction.timestamp);
        let account = self.accounts.entry(name).or_insert(account);
        ensure(account.status != AccountStatus::Closed, "it is closed")?;
        set(account, transaction.settings.as_deref().ok_or("a change of what?")?)?;
        ensure(account.status != AccountStatus::Closed || account.balance == 0, "closed with a balance")
    }

    fn create_asset(&mut self, act: &str) -> Result<(), String> {
        let act: serde_json::Value = serde_json::from_str(act).map_err(|error| error.to_string())?;
        let code = act["asset"].as_str().ok_or("an asset without a code")?;
        let limit = act["limit"].as_u64().ok_or("an asset without a limit")?;
        ensure(act["scale"].as_u64().is_some_and(|scale| scale <= 8), "an asset without a scale")?;
        ensure(*code != *self.own && self.limits.insert(code.into(), limit).is_none(), "the asset was there")?;
        self.totals.insert(code.into(), 0);
        Ok(())
    }

    /// A record changes the balance of one account.
    fn turn(
        &mut self,
        transaction: &Transaction,
        (name, asset): (&AccountId, &AssetCode),
        change: i64,
        balance: Option<i64>,
    ) -> Result<(), String> {
        let account = fresh(name.clone(), asset.clone(), transaction.timestamp);
        let account = self.accounts.entry(name.clone()).or_insert(account);
        ensure(account.asset == *asset, "another asset")?;
        account.balance += change;
        ensure(balance == Some(account.balance), "another balance")?;
        ensure(account.balance.unsigned_abs() <= MAX_BALANCE, "a balance beyond what any may be")?;
        account.available = available(account.balance, account.min_balance);
        account.last_transaction_at = Some(transaction.timestamp);
        account.transaction_count += 1;
        account.version = account.transaction_count;
        // The status that closes an account, or stops money, may be in this very record.
        if transaction.transaction_type == TransactionType::AccountChange {
            return Ok(());
        }
        let is_debit = transaction.from_account.as_ref() == Some(name);
        let (min, max) = (floor(account.min_balance), ceiling(account.max_balance));
        let stopped: &[AccountStatus] = if is_debit {
            ensure(i128::from(account.balance) >= min, "a balance below its bound")?;
            &[AccountStatus::NoDebits, AccountStatus::Frozen, AccountStatus::Closed]
        } else {
            ensure(i128::from(account.balance) <= max, "a balance above its bound")?;
            &[AccountStatus::NoCredits, AccountStatus::Frozen, AccountStatus::Closed]
        };
        ensure(!stopped.contains(&account.status), "its status did not let it happen")
    }
}

/// An account of which nothing was said.
fn fresh(account_id: AccountId, asset: AssetCode, created_at: u64) -> Account {
    Account {
        account_id,
        asset,
        balance: 0,
        available: Some(0),
        min_balance: Bound::At(0),
        max_balance: Bound::None,
        status: AccountStatus::Open,
        code: None,
        name: None,
        created_at,
        last_transaction_at: None,
        transaction_count: 0,
        version: 0,
        other: OtherFields::default(),
    }
}

/// Takes on what a record says of an account.
fn set(account: &mut Account, settings: &str) -> Result<(), String> {
    let settings: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(settings).map_err(|error| error.to_string())?;
    for (field, value) in &settings {
        let text = value.as_str();
        let bound = || match text {
            Some("none") => Ok(Bound::None),
            _ => value.as_i64().map(Bound::At).ok_or_else(|| format!("{value} is no bound")),
        };
        match &**field {
            "min_balance" => account.min_balance = bound()?,
            "max_balance" => account.max_balance = bound()?,
            "status" => {
                account.status = text.and_then(AccountStatus::named).ok_or_else(|| format!("the status {value}"))?;
            }
            "code" => account.code = Some(text.ok_or("a code that is no text")?.into()),
            "name" => account.name = text.filter(|name| !name.is_empty()).map(Into::into),
            _ => return Err(format!("a setting {field}")),
        }
    }
    ensure(floor(account.min_balance) <= ceiling(account.max_balance), "bounds that leave nothing between")
}
