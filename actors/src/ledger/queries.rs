//! Answers to queries. What needs the history is begun here, and finished in `lookup`.

use std::cmp::Reverse;

use rabia_bank_messages::bank::{
    Account, DEFAULT_PAGE, ErrorCode, HistoryFilter, MAX_PAGE, OtherFields, Query, Refusal, Statistics, Success,
    is_valid_account_id,
};

use super::accounts::AccountState;
use super::books::Books;
use super::lookup::{Answer, Page, Task, Trail};
use super::outcomes::{OperationRefusal, shortened};

/// How many accounts or transactions each list of the statistics names.
pub(super) const TOP: usize = 10;

impl Books {
    /// Begins the answer to a query; `None` to one that is not about the bank.
    pub(super) fn query(&self, query: &Query) -> Option<Task> {
        Some(match query {
            Query::GetAccount { account_id } => Task::Ready(
                self.account(account_id).map(|state| Success::Account { account: as_now(state), transaction: None }),
            ),
            Query::GetBalance { account_id } => {
                Task::Ready(self.account(account_id).map(|state| Success::Balance { balance: state.balance }))
            }
            Query::ListAccounts { after, limit } => Task::Ready(self.list_accounts(after.as_deref(), *limit)),
            Query::GetTransactionHistory(filter) => match self.history(filter) {
                Ok(page) => Task::Page(page),
                Err(refusal) => Task::Ready(Err(refusal)),
            },
            Query::GetTransaction { transaction_id: id @ 1.. } if *id <= self.history.len() => Task::Transaction(*id),
            Query::GetTransaction { transaction_id } => Task::Ready(Err(Refusal::refused(
                ErrorCode::TransactionNotFound,
                format!("there is no transaction {transaction_id}; the newest is {}", self.history.len()),
            ))),
            Query::GetStatistics { large_amount } => self.statistics(*large_amount),
            Query::GetStatus {} => return None,
        })
    }

    fn account(&self, name: &str) -> Result<&AccountState, Refusal> {
        match self.accounts.find(name) {
            Some(account) => Ok(self.accounts.get(account)),
            None => Err(no_account(name, self.transaction_limit)),
        }
    }

    fn list_accounts(&self, after: Option<&str>, limit: Option<u32>) -> Answer {
        let limit = page_size(limit)?;
        let mut accounts: Vec<_> = self.accounts.list(after).take(limit + 1).map(as_now).collect();
        let more = accounts.len() > limit;
        accounts.truncate(limit);
        let next = accounts.last().filter(|_| more).map(|last| last.account_id.clone());
        Ok(Success::Accounts { accounts, next })
    }

    fn history(&self, filter: &HistoryFilter) -> Result<Page, Refusal> {
        let HistoryFilter { account_id, transaction_type, from_time, to_time, before, limit } = filter;
        let trail = match (account_id, transaction_type) {
            (Some(name), _) => self.account_trail(name)?,
            (None, Some(kind)) => Trail::Type { kind: *kind, newest: self.history.newest_of(*kind) },
            (None, None) => Trail::All,
        };
        let limit = page_size(*limit)?;
        let end = self.history.len() + 1;
        Ok(Page::new(trail, *transaction_type, *from_time, *to_time, before.unwrap_or(end).min(end), end, limit))
    }

    fn account_trail(&self, name: &str) -> Result<Trail, Refusal> {
        let Some(account) = self.accounts.find(name) else {
            return Err(no_account(name, self.transaction_limit));
        };
        let state = self.accounts.get(account);
        let newest = state.last.map_or(0, |last| last.transaction);
        Ok(Trail::Account { account, name: state.name.clone(), newest })
    }

    /// Reads every account once, for the two lists of accounts; the rest is at hand, but for large transactions.
    fn statistics(&self, large_amount: Option<u64>) -> Task {
        let statistics = Box::new(Statistics {
            accounts: self.accounts.len() as u64,
            total_balance: self.total_balance,
            transactions: self.totals.all,
            by_type: self.totals.by_type(),
            by_hour: self.totals.by_hour(),
            largest_accounts: self.top_accounts(|state| state.balance),
            most_active_accounts: self.top_accounts(|state| state.transaction_count),
            large_amount: large_amount.unwrap_or((self.transaction_limit / 10).max(1)),
            large_transactions: Vec::new(),
            other: OtherFields::default(),
        });
        Task::Large { statistics, next: self.history.len() }
    }

    /// The accounts with the largest value, the largest first; equal ones by id.
    fn top_accounts(&self, value: impl Fn(&AccountState) -> u64) -> Vec<Account> {
        let rank = |state: &AccountState| Reverse(value(state));
        let mut top: Vec<&AccountState> = Vec::with_capacity(TOP + 1);
        for state in self.accounts.iter() {
            if top.len() == TOP && top.last().is_some_and(|least| value(least) > value(state)) {
                continue;
            }
            let place = top.partition_point(|other| (rank(other), &other.name) < (rank(state), &state.name));
            top.insert(place, state);
            top.truncate(TOP);
        }
        top.into_iter().map(as_now).collect()
    }
}

fn as_now(state: &AccountState) -> Account {
    Account {
        balance: state.balance,
        last_transaction_at: state.last.map(|last| last.at),
        transaction_count: state.transaction_count,
        ..as_created(state)
    }
}

/// The account when it had no transaction yet.
pub(super) fn as_created(state: &AccountState) -> Account {
    Account {
        account_id: Box::from(&*state.name),
        balance: 0,
        created_at: state.created_at,
        last_transaction_at: None,
        transaction_count: 0,
        other: OtherFields::default(),
    }
}

/// The answer where no account has this name: perhaps none can.
fn no_account(name: &str, transaction_limit: u64) -> Refusal {
    let refusal = match is_valid_account_id(name) {
        true => OperationRefusal::AccountNotFound,
        false => OperationRefusal::InvalidAccountId,
    };
    refusal(shortened(name)).render(transaction_limit)
}

fn page_size(limit: Option<u32>) -> Result<usize, Refusal> {
    match limit.unwrap_or(DEFAULT_PAGE) {
        limit @ 1..=MAX_PAGE => Ok(limit as usize),
        limit => {
            Err(Refusal::refused(ErrorCode::Malformed, format!("limit is {limit}, but pages have 1 to {MAX_PAGE}")))
        }
    }
}
