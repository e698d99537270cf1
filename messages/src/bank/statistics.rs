//! Figures over the whole bank.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::asset::{AssetCode, no_currency};
use super::record::{Account, Transaction, TypeName};
use crate::ids::Millis;
use crate::number;
use crate::open::OtherFields;

/// How many transactions, and their amounts added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Volume {
    /// All of them, or those of one kind or hour.
    pub count: u64,
    /// Minor units; stays at 2^53 − 1 once there.
    pub volume: u64,
}

/// The transactions of one hour of log time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HourVolume {
    /// The hour's first millisecond.
    pub hour: Millis,
    /// Of this hour alone.
    #[serde(flatten)]
    pub total: Volume,
}

/// Figures over all accounts and transactions of one asset. What moves nothing counts for the cluster's own one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Statistics {
    /// Which asset.
    #[serde(default = "no_currency")]
    pub asset: AssetCode,
    /// How many accounts that hold it were ever created; none is deleted.
    pub accounts: u64,
    /// The sum of their balances, in minor units.
    #[serde(deserialize_with = "number::signed")]
    pub total_balance: i64,
    /// The same of every asset.
    #[serde(default)]
    pub totals: BTreeMap<AssetCode, i64>,
    /// Since the first slot.
    pub transactions: Volume,
    /// By type, every type present.
    pub by_type: BTreeMap<TypeName, Volume>,
    /// By hour, the latest 48 hours that had any, oldest first.
    pub by_hour: Vec<HourVolume>,
    /// The ten with the highest balance.
    pub largest_accounts: Vec<Account>,
    /// The ten with the most transactions.
    pub most_active_accounts: Vec<Account>,
    /// From which amount on a transaction is listed as large.
    pub large_amount: u64,
    /// The ten newest large transactions, newest first.
    pub large_transactions: Vec<Transaction>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub other: OtherFields,
}
