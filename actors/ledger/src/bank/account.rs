//! One account: its place in the table, its state, its row, and what clients see of it.

use std::sync::Arc;

use rabia_bank_messages::bank::{Account, OtherFields};
use rabia_bank_messages::ids::Millis;
use serde::{Deserialize, Serialize};

use super::assets::{AssetIndex, AssetState};
use super::settings::{Settings, USUAL};
use crate::rows;
use crate::set_hash::SetHash;

/// The place of an account in the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AccountIndex(u32);

impl AccountIndex {
    /// The place with this number, from 0.
    pub(super) fn new(number: u32) -> AccountIndex {
        AccountIndex(number)
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }

    pub(super) fn get(self) -> usize {
        self.0 as usize
    }
}

/// The newest transaction of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Last {
    /// The id of that transaction, from 1.
    pub(super) transaction: u64,
    /// When it was applied, in log time.
    pub(super) at: Millis,
}

/// An account as it is now.
#[derive(Debug)]
pub(super) struct AccountState {
    pub(super) name: Arc<str>,
    /// What it holds.
    pub(super) asset: AssetIndex,
    /// Minor units, from −(2^53 − 1) to 2^53 − 1.
    pub(super) balance: i64,
    /// None where they are the usual ones.
    pub(super) settings: Option<Arc<Settings>>,
    pub(super) created_at: Millis,
    /// Where the chain of the account's records begins.
    pub(super) last: Option<Last>,
    pub(super) transaction_count: u64,
    /// What the table's hash holds for this account: nothing yet for a new one.
    pub(super) hashed: SetHash,
    /// Whether it changed since.
    pub(super) changed: bool,
    /// In which lists of top accounts it is: see `ranks`.
    pub(super) listed: u8,
}

/// The row of an account. Its place is that of the row in its page, and of the page.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AccountRow<S> {
    name: S,
    balance: i64,
    created_at: Millis,
    /// 0 if there is none.
    last_transaction: u64,
    last_at: Millis,
    transaction_count: u64,
    /// Files of 0.1.0 end here.
    #[serde(default)]
    asset: AssetIndex,
    #[serde(default)]
    settings: Option<Settings>,
}

impl AccountState {
    pub(super) fn new(name: Arc<str>, asset: AssetIndex, settings: Settings, created_at: Millis) -> AccountState {
        AccountState {
            name,
            asset,
            balance: 0,
            settings: shared(settings),
            created_at,
            last: None,
            transaction_count: 0,
            hashed: SetHash::default(),
            changed: true,
            listed: 0,
        }
    }

    /// The account of a row.
    pub(super) fn from_row(row: AccountRow<&str>) -> AccountState {
        let AccountRow { name, balance, created_at, last_transaction, last_at, transaction_count, asset, settings } =
            row;
        let last = (last_transaction > 0).then_some(Last { transaction: last_transaction, at: last_at });
        let new = AccountState::new(Arc::from(name), asset, settings.unwrap_or_else(|| USUAL.clone()), created_at);
        AccountState { balance, last, transaction_count, ..new }
    }

    pub(super) fn settings(&self) -> &Settings {
        self.settings.as_deref().unwrap_or(&USUAL)
    }

    pub(super) fn set(&mut self, settings: Settings) {
        self.settings = shared(settings);
    }

    /// What clients see of it. It holds this asset.
    pub(super) fn as_now(&self, asset: &AssetState) -> Account {
        Account {
            balance: self.balance,
            available: self.settings().available(self.balance),
            last_transaction_at: self.last.map(|last| last.at),
            transaction_count: self.transaction_count,
            version: self.transaction_count,
            ..self.as_created(asset, self.settings())
        }
    }

    /// The same when it had no transaction yet, and these settings.
    pub(super) fn as_created(&self, asset: &AssetState, settings: &Settings) -> Account {
        let Settings { min_balance, max_balance, status, code, name } = settings.clone();
        Account {
            account_id: Box::from(&*self.name),
            asset: Box::from(&*asset.code),
            balance: 0,
            available: settings.available(0),
            min_balance,
            max_balance,
            status,
            code,
            name,
            created_at: self.created_at,
            last_transaction_at: None,
            transaction_count: 0,
            version: 0,
            other: OtherFields::default(),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        let AccountState { balance, last, transaction_count, ref settings, .. } = *self;
        Standing { balance, last, transaction_count, settings: settings.clone() }
    }

    /// The row of this account, as it stood then.
    pub(super) fn to_row(&self, standing: Standing) -> AccountRow<&str> {
        let Standing { balance, last, transaction_count, settings } = standing;
        let last = last.unwrap_or(Last { transaction: 0, at: 0 });
        AccountRow {
            name: &self.name,
            balance,
            created_at: self.created_at,
            last_transaction: last.transaction,
            last_at: last.at,
            transaction_count,
            asset: self.asset,
            settings: settings.as_deref().cloned(),
        }
    }

    /// What the table's hash is to hold for this account.
    pub(super) fn set_hash(&self, scratch: &mut Vec<u8>) -> SetHash {
        let last = self.last.unwrap_or(Last { transaction: 0, at: 0 });
        scratch.clear();
        scratch.extend_from_slice(b"account");
        scratch.extend_from_slice(&self.balance.to_be_bytes());
        for number in [self.created_at, last.transaction, last.at, self.transaction_count] {
            scratch.extend_from_slice(&number.to_be_bytes());
        }
        scratch.extend_from_slice(self.name.as_bytes());
        if self.asset != AssetIndex::OWN || self.settings.is_some() {
            // No name has a zero.
            scratch.push(0);
            scratch.extend_from_slice(&rows::encode(&(self.asset, &self.settings.as_deref())));
        }
        SetHash::of(scratch)
    }
}

/// None if they are the usual ones: most accounts then take no memory for them.
fn shared(settings: Settings) -> Option<Arc<Settings>> {
    (settings != USUAL).then(|| Arc::new(settings))
}

/// What transactions change of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    balance: i64,
    last: Option<Last>,
    transaction_count: u64,
    settings: Option<Arc<Settings>>,
}
