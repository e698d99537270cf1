//! What can be asked without changing anything, and how fresh the answer must be.

use serde::{Deserialize, Serialize};

use super::asset::AssetCode;
use super::record::{AccountId, TransactionType};
use crate::ids::{Millis, Slot};
use crate::number;

/// The most records on one page of a query.
pub const MAX_PAGE: u32 = 1_000;

/// The records on one page where the query names no limit.
pub const DEFAULT_PAGE: u32 = 100;

/// What can be asked without changing anything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// The account, or `account_not_found`.
    GetAccount {
        /// Its name: see [`is_valid_account_id`](super::is_valid_account_id).
        account_id: AccountId,
    },
    /// The balance alone, or `account_not_found`.
    GetBalance {
        /// Its name: see [`is_valid_account_id`](super::is_valid_account_id).
        account_id: AccountId,
    },
    /// Accounts by id, in byte order.
    ListAccounts {
        /// Only ids above this one: the `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<AccountId>,
        /// 1 to [`MAX_PAGE`]; [`DEFAULT_PAGE`] where absent.
        #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
        /// Those of this class.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<Box<str>>,
    },
    /// All assets, the cluster's own one first, in the order in which they were created.
    ListAssets {},
    /// A page of the transactions that pass the filter, newest first.
    GetTransactionHistory(HistoryFilter),
    /// One transaction, or `transaction_not_found`.
    GetTransaction {
        /// From 1, in the order in which they were applied.
        #[serde(deserialize_with = "number::whole")]
        transaction_id: u64,
    },
    /// Figures over the whole bank.
    GetStatistics {
        /// Transactions of at least this amount are listed as large; a tenth of the asset's limit per transaction where absent.
        #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
        large_amount: Option<u64>,
        /// Of which asset, or `asset_not_found`; the cluster's own one where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asset: Option<AssetCode>,
    },
    /// All principals and tokens: for administrators and auditors.
    ListPrincipals {},
    /// The state of the node that is asked. Always answered at once, from what it has applied.
    GetStatus {},
}

/// Which transactions a history query wants. Every condition that is there must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryFilter {
    /// Those that touch this account; `account_not_found` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    /// Those of this kind: `"type"` on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub transaction_type: Option<TransactionType>,
    /// Those at or after this time.
    #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub from_time: Option<Millis>,
    /// Those at or before this time.
    #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub to_time: Option<Millis>,
    /// Those with a lower id: the `next` of the page before.
    #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// 1 to [`MAX_PAGE`]; [`DEFAULT_PAGE`] where absent.
    #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// How fresh a query's answer must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadLevel {
    /// It sees every command that was acknowledged, anywhere, before the query was sent.
    #[default]
    Linearizable,
    /// What this node has applied: it may lag behind.
    Local,
    /// What this node has applied, once that reaches this slot.
    AtLeast(#[serde(deserialize_with = "number::whole")] Slot),
}
