//! One account: its place in the table, its state, its row, and what clients see of it.

use std::sync::Arc;

use rabia_bank_messages::bank::{Account, OtherFields};
use rabia_bank_messages::ids::Millis;
use serde::{Deserialize, Serialize};

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
    /// Minor units, 0 to 2^53 − 1.
    pub(super) balance: u64,
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
    balance: u64,
    created_at: Millis,
    /// 0 if there is none.
    last_transaction: u64,
    last_at: Millis,
    transaction_count: u64,
}

impl AccountState {
    pub(super) fn new(name: Arc<str>, created_at: Millis) -> AccountState {
        AccountState {
            name,
            balance: 0,
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
        let AccountRow { name, balance, created_at, last_transaction, last_at, transaction_count } = row;
        let last = (last_transaction > 0).then_some(Last { transaction: last_transaction, at: last_at });
        AccountState { balance, last, transaction_count, ..AccountState::new(Arc::from(name), created_at) }
    }

    /// What clients see of it.
    pub(super) fn as_now(&self) -> Account {
        Account {
            balance: self.balance,
            last_transaction_at: self.last.map(|last| last.at),
            transaction_count: self.transaction_count,
            ..self.as_created()
        }
    }

    /// The same when it had no transaction yet.
    pub(super) fn as_created(&self) -> Account {
        Account {
            account_id: Box::from(&*self.name),
            balance: 0,
            created_at: self.created_at,
            last_transaction_at: None,
            transaction_count: 0,
            other: OtherFields::default(),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        let AccountState { balance, last, transaction_count, .. } = *self;
        Standing { balance, last, transaction_count }
    }

    /// The row of this account, as it stood then.
    pub(super) fn to_row(&self, Standing { balance, last, transaction_count }: Standing) -> AccountRow<&str> {
        let last = last.unwrap_or(Last { transaction: 0, at: 0 });
        AccountRow {
            name: &self.name,
            balance,
            created_at: self.created_at,
            last_transaction: last.transaction,
            last_at: last.at,
            transaction_count,
        }
    }

    /// What the table's hash is to hold for this account.
    pub(super) fn set_hash(&self, scratch: &mut Vec<u8>) -> SetHash {
        let last = self.last.unwrap_or(Last { transaction: 0, at: 0 });
        scratch.clear();
        scratch.extend_from_slice(b"account");
        for number in [self.balance, self.created_at, last.transaction, last.at, self.transaction_count] {
            scratch.extend_from_slice(&number.to_be_bytes());
        }
        scratch.extend_from_slice(self.name.as_bytes());
        SetHash::of(scratch)
    }
}

/// What transactions change of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    balance: u64,
    last: Option<Last>,
    transaction_count: u64,
}
