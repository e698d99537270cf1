//! What is read of the books at once: a page of the accounts, and the statistics as far as they are in memory.

use rabia_bank_messages::bank::{OtherFields, Statistics, Success};

use super::Bank;
use super::account::AccountState;
use super::ranks::Measure;

/// How many accounts or transactions each list of the statistics names.
pub(super) const TOP: usize = 10;

impl Bank {
    /// The accounts with names above `after`, `limit` at most.
    pub(super) fn list_accounts(&self, after: Option<&str>, limit: usize) -> Success {
        let mut accounts: Vec<_> = self.accounts.list(after).take(limit + 1).map(AccountState::as_now).collect();
        let more = accounts.len() > limit;
        accounts.truncate(limit);
        let next = accounts.last().filter(|_| more).map(|last| last.account_id.clone());
        Success::Accounts { accounts, next }
    }

    /// All that is at hand. The lists of top accounts must be complete; large transactions are yet to be found.
    pub(super) fn statistics(&self, large_amount: u64) -> Statistics {
        let top = |measure| self.accounts.top(measure, TOP).into_iter().map(AccountState::as_now).collect();
        Statistics {
            accounts: self.accounts.len() as u64,
            total_balance: self.total_balance,
            transactions: self.totals.all,
            by_type: self.totals.by_type(),
            by_hour: self.totals.by_hour(),
            largest_accounts: top(Measure::Balance),
            most_active_accounts: top(Measure::Transactions),
            large_amount,
            large_transactions: Vec::new(),
            other: OtherFields::default(),
        }
    }
}
