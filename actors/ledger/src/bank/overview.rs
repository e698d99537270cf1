//! What is read of the books at once: a page of the accounts, and the statistics as far as they are in memory.

use rabia_bank_messages::bank::{MAX_PAGE, OtherFields, Statistics, Success};

use super::Bank;
use super::assets::AssetIndex;
use super::ranks::Measure;

/// How many accounts or transactions each list of the statistics names.
pub(super) const TOP: usize = 10;

/// How many accounts a page looks at, at most: those that it may hold are fewer.
const LOOKED_AT: usize = 4 * MAX_PAGE as usize;

impl Bank {
    /// The accounts with names above `after`, `limit` at most, and of this class. Where a class is asked for, so many accounts are looked
    /// at that a page may hold fewer than `limit`, though more follow.
    pub(super) fn list_accounts(&self, after: Option<&str>, limit: usize, code: Option<&str>) -> Success {
        let mut seen = Vec::new();
        let (mut last, mut more) = (None, false);
        for (looked_at, state) in self.accounts.list(after).enumerate() {
            if seen.len() == limit || looked_at == LOOKED_AT {
                more = true;
                break;
            }
            last = Some(&state.name);
            if code.is_none() || state.settings().code.as_deref() == code {
                seen.push(self.as_now(state));
            }
        }
        let next = last.filter(|_| more).map(|name| Box::from(&**name));
        Success::Accounts { accounts: seen, next }
    }

    /// All that is at hand. The lists of top accounts must be complete; large transactions are yet to be found.
    pub(super) fn statistics(&self, asset: AssetIndex, large_amount: u64) -> Statistics {
        let top =
            |measure| self.accounts.top(asset, measure, TOP).into_iter().map(|state| self.as_now(state)).collect();
        let state = self.accounts.assets.get(asset);
        Statistics {
            asset: Box::from(&*state.code),
            accounts: state.accounts,
            total_balance: state.total,
            totals: self.accounts.assets.iter().map(|asset| (Box::from(&*asset.code), asset.total)).collect(),
            transactions: state.totals.all,
            by_type: state.totals.by_type(),
            by_hour: state.totals.by_hour(),
            largest_accounts: top(Measure::Balance),
            most_active_accounts: top(Measure::Transactions),
            large_amount,
            large_transactions: Vec::new(),
            other: OtherFields::default(),
        }
    }
}
