//! The row of the state, in the form of files that are older than the machine: one array, in which the bank's fields stand between
//! the others.

use rabia_bank_messages::genesis::{BankTerms, Replacement, SessionLimits};
use rabia_bank_messages::ids::{BatchId, Digest, Millis, Secret, Slot};
use serde::{Deserialize, Serialize};

use super::Bank;
use super::assets::{AssetIndex, AssetRow};
use super::block::Block;
use super::history::{History, HistoryRow};
use super::statistics::{Totals, TotalsRow};
use crate::levels::LevelsRow;
use crate::principals::PrincipalsRow;
use crate::rows::{self, BadRow};
use crate::state::StateRow;

/// The version of all rows. A bank of another version is not read.
const VERSION: u32 = 4;
/// The version of program 0.1.0. Its state, accounts and history read alike, so that its backups can be restored.
const VERSION_0_1_0: u32 = 1;

/// What the row of the state holds of the bank.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    pub(super) transaction_limit: u64,
    /// Of the cluster's own asset.
    pub(super) total_balance: i64,
    pub(super) accounts: u64,
    pub(super) history: HistoryRow,
    /// Of the cluster's own asset.
    pub(super) totals: TotalsRow,
    /// What salts are made of; none in backups of 0.1.0.
    pub(super) secret: Option<Secret>,
    pub(super) terms: BankTerms,
    /// All but the cluster's own one.
    pub(super) assets: Vec<AssetRow>,
}

impl Head {
    /// The largest amount of one transaction, in minor units.
    pub fn transaction_limit(&self) -> u64 {
        self.transaction_limit
    }

    /// What is fixed when a cluster is created.
    pub fn terms(&self) -> &BankTerms {
        &self.terms
    }

    /// The timestamp of the newest transaction, in milliseconds since the Unix epoch; 0 if there is none.
    pub fn newest_timestamp(&self) -> Millis {
        self.history.time
    }
}

/// The order of the fields is the format: the row is an array without their names.
#[derive(Serialize, Deserialize)]
struct Row {
    version: u32,
    transaction_limit: u64,
    session_limits: SessionLimits,
    applied: Slot,
    time: Millis,
    requests: u64,
    decided_slots: u64,
    null_slots: u64,
    repeated_batches: u64,
    total_balance: i64,
    accounts: u64,
    sessions: u64,
    history: HistoryRow,
    totals: TotalsRow,
    batches: Vec<Vec<(u64, u64)>>,
    digest: Digest,
    #[serde(default)]
    replacements: Vec<Replacement>,
    #[serde(default)]
    ended_sessions: u64,
    #[serde(default)]
    unusable_batches: u64,
    #[serde(default)]
    newest_unusable: Vec<(Slot, BatchId)>,
    #[serde(default)]
    principals: PrincipalsRow,
    #[serde(default)]
    secret: Option<Secret>,
    #[serde(default)]
    levels: LevelsRow,
    #[serde(default)]
    terms: BankTerms,
    #[serde(default)]
    assets: Vec<AssetRow>,
}

pub(super) fn encode(state: StateRow, head: Head) -> Vec<u8> {
    rows::encode(&Row {
        version: VERSION,
        transaction_limit: head.transaction_limit,
        session_limits: state.session_limits,
        applied: state.applied,
        time: state.time,
        requests: state.requests,
        decided_slots: state.decided_slots,
        null_slots: state.null_slots,
        repeated_batches: state.repeated_batches,
        total_balance: head.total_balance,
        accounts: head.accounts,
        sessions: state.sessions,
        history: head.history,
        totals: head.totals,
        batches: state.batches,
        digest: state.digest,
        replacements: state.replacements,
        ended_sessions: state.ended_sessions,
        unusable_batches: state.unusable_batches,
        newest_unusable: state.newest_unusable,
        principals: state.principals,
        secret: head.secret,
        levels: state.levels,
        terms: head.terms,
        assets: head.assets,
    })
}

pub(super) fn decode(row: &[u8], of_backup: bool) -> Result<(StateRow, Head), BadRow> {
    let row: Row = rows::decode(|| "the row of the state".into(), row)?;
    if row.version != VERSION && !(of_backup && row.version == VERSION_0_1_0) {
        let found = row.version;
        return Err(BadRow::new(format!(
            "the books are of version {found}, this program knows {VERSION}: restore a backup of them"
        )));
    }
    let head = Head {
        transaction_limit: row.transaction_limit,
        total_balance: row.total_balance,
        accounts: row.accounts,
        history: row.history,
        totals: row.totals,
        secret: row.secret,
        terms: row.terms,
        assets: row.assets,
    };
    let state = StateRow {
        session_limits: row.session_limits,
        applied: row.applied,
        time: row.time,
        requests: row.requests,
        decided_slots: row.decided_slots,
        null_slots: row.null_slots,
        repeated_batches: row.repeated_batches,
        sessions: row.sessions,
        batches: row.batches,
        digest: row.digest,
        replacements: row.replacements,
        ended_sessions: row.ended_sessions,
        unusable_batches: row.unusable_batches,
        newest_unusable: row.newest_unusable,
        principals: row.principals,
        levels: row.levels,
    };
    Ok((state, head))
}

impl Bank {
    /// All pages of accounts are there: looks whether they are those of this head, and adds what else is in it.
    pub(super) fn load_rest(&mut self, head: Head, last: Option<&Block>) -> Result<(), BadRow> {
        self.accounts.assets.load(head.assets)?;
        let sums = self.accounts.loaded()?;
        let (found, expected) = (self.accounts.len() as u64, head.accounts);
        if found != expected {
            return Err(BadRow::new(format!("there are {found} accounts, where {expected} should be")));
        }
        let secret = head.secret.ok_or_else(|| BadRow::new("there is no secret to make salts of".into()))?;
        self.history = History::from_row(&head.history, secret, last, &self.accounts)?;
        let own = self.accounts.assets.get_mut(AssetIndex::OWN);
        own.totals = Totals::from_row(head.totals)?;
        own.total = head.total_balance;
        for (asset, sum) in self.accounts.assets.iter().zip(sums) {
            if sum != i128::from(asset.total) {
                let (code, total) = (&asset.code, asset.total);
                return Err(BadRow::new(format!("the balances of {code} add up to {sum}, not {total}")));
            }
        }
        self.counted = self.accounts.assets.iter().map(|asset| asset.totals.all.count).sum();
        if self.counted != head.history.transactions {
            let (counted, transactions) = (self.counted, head.history.transactions);
            return Err(BadRow::new(format!("the figures count {counted} transactions of {transactions}")));
        }
        self.saved = head.history.transactions;
        Ok(())
    }
}
