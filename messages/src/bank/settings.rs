//! What can be set about an account: when it is created, and later.

use serde::{Deserialize, Serialize};

use super::amount::{Amount, Bound};
use super::asset::AssetCode;
use super::record::AccountId;
use crate::named::named;

/// The most characters in the code of an account.
pub const MAX_CODE: usize = 32;
/// The most bytes in the name of an account.
pub const MAX_NAME: usize = 100;

/// Whether `code` is 1 to [`MAX_CODE`] characters of `A–Z a–z 0–9 _ - . :`.
pub fn is_valid_code(code: &str) -> bool {
    code.len() <= MAX_CODE && super::is_valid_account_id(code)
}

/// Whether `name` is up to [`MAX_NAME`] bytes of UTF-8 without control characters.
pub fn is_valid_name(name: &str) -> bool {
    name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

/// What an account lets happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountStatus {
    /// Everything.
    #[default]
    Open,
    /// No money leaves it.
    NoDebits,
    /// No money comes in.
    NoCredits,
    /// No money moves.
    Frozen,
    /// Nothing ever again: it is empty.
    Closed,
}

named!(AccountStatus {
    Open = "open",
    NoDebits = "no_debits",
    NoCredits = "no_credits",
    Frozen = "frozen",
    Closed = "closed",
});

impl AccountStatus {
    /// Whether money may leave the account.
    pub fn lets_out(self) -> bool {
        matches!(self, AccountStatus::Open | AccountStatus::NoCredits)
    }

    /// Whether money may come in.
    pub fn lets_in(self) -> bool {
        matches!(self, AccountStatus::Open | AccountStatus::NoDebits)
    }
}

/// `create_account`: see [`Operation::CreateAccount`](super::Operation::CreateAccount).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// Its id: see [`is_valid_account_id`](super::is_valid_account_id).
    pub account_id: AccountId,
    /// Its first balance, in minor units; may be 0.
    pub initial_balance: Amount,
    /// What it holds; the cluster's own asset where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset: Option<AssetCode>,
    /// No command takes its balance below; 0 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_balance: Option<Bound>,
    /// No command takes its balance above; none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_balance: Option<Bound>,
    /// Its class, to filter by: see [`is_valid_code`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Box<str>>,
    /// Whose it is, or what for: see [`is_valid_name`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
}

impl CreateAccount {
    /// An account with the usual settings, of the cluster's own asset. The ledger says whether it is valid.
    pub fn new(account_id: impl Into<AccountId>, initial_balance: Amount) -> CreateAccount {
        CreateAccount {
            account_id: account_id.into(),
            initial_balance,
            asset: None,
            min_balance: None,
            max_balance: None,
            code: None,
            name: None,
        }
    }
}

/// `set_account`: see [`Operation::SetAccount`](super::Operation::SetAccount). What is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAccount {
    /// Which account.
    pub account_id: AccountId,
    /// No command takes its balance below. It may be below already; then nothing takes it further down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_balance: Option<Bound>,
    /// No command takes its balance above, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_balance: Option<Bound>,
    /// What it lets happen from now on. `closed` is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AccountStatus>,
    /// Its class, to filter by: see [`is_valid_code`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Box<str>>,
    /// Whose it is, or what for: see [`is_valid_name`]. An empty one takes the name away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
}

impl SetAccount {
    /// A change of nothing yet.
    pub fn new(account_id: impl Into<AccountId>) -> SetAccount {
        SetAccount {
            account_id: account_id.into(),
            min_balance: None,
            max_balance: None,
            status: None,
            code: None,
            name: None,
        }
    }
}
