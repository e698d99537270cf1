//! Reading: answers to queries, and outcomes as clients see them.

use std::cmp::Reverse;

use rabia_bank_messages::bank::{
    Account, DEFAULT_PAGE, ErrorCode, HistoryFilter, ItemResult, MAX_PAGE, Query, Refusal, Statistics, Success,
    Transaction,
};

use super::accounts::AccountState;
use super::books::Books;
use super::history::{Side, Trail};
use super::outcomes::{CommandOutcome, Done, Kind, OperationOutcome, bulk_empty, bulk_too_large};

/// How many accounts or transactions each list of the statistics names.
const TOP: usize = 10;

type Answer = Result<Success, Refusal>;

impl Books {
    /// The answer that a client gets to a command.
    pub(super) fn render(&self, outcome: &CommandOutcome) -> Answer {
        match &outcome.0 {
            Kind::One(outcome) => self.render_operation(outcome),
            Kind::Bulk(outcomes) => {
                let item = |outcome| match self.render_operation(outcome) {
                    Ok(success) => ItemResult::Ok(success),
                    Err(refusal) => ItemResult::Error(refusal),
                };
                Ok(Success::Results { results: outcomes.iter().map(item).collect() })
            }
            Kind::BulkUndone { index, refusal } => {
                Err(Refusal { index: Some(*index), ..refusal.render(self.transaction_limit) })
            }
            Kind::BulkEmpty => Err(bulk_empty()),
            Kind::BulkTooLarge { commands } => Err(bulk_too_large(*commands)),
        }
    }

    fn render_operation(&self, outcome: &OperationOutcome) -> Answer {
        match outcome {
            Ok(Done::Created(account)) => {
                let state = self.accounts.get(*account);
                Ok(Success::Account { account: as_created(state), transaction: None })
            }
            Ok(Done::Opened(transaction)) => Ok(self.render_opening(*transaction)),
            Ok(Done::Moved(transaction)) => Ok(Success::Transaction { transaction: self.transaction(*transaction) }),
            Err(refusal) => Err(refusal.render(self.transaction_limit)),
        }
    }

    /// The answer to a creation shows the account as it was then, for it may be given again at any time.
    fn render_opening(&self, id: u64) -> Success {
        let record = self.history.get(id);
        let Some(to) = record.movement.to() else { panic!("opening {id} has no account: {record:?}") };
        let account = Account {
            balance: to.balance,
            last_transaction_at: Some(record.moment.time),
            transaction_count: 1,
            ..as_created(self.accounts.get(to.account))
        };
        Success::Account { account, transaction: Some(self.transaction(id)) }
    }

    /// The answer to a query; `None` to one that is not about the bank.
    pub(super) fn query(&self, query: &Query) -> Option<Answer> {
        Some(match query {
            Query::GetAccount { account_id } => {
                self.account(account_id).map(|state| Success::Account { account: as_now(state), transaction: None })
            }
            Query::GetBalance { account_id } => {
                self.account(account_id).map(|state| Success::Balance { balance: state.balance })
            }
            Query::ListAccounts { after, limit } => self.list_accounts(after.as_deref(), *limit),
            Query::GetTransactionHistory(filter) => self.history(filter),
            Query::GetTransaction { transaction_id } => match self.history.find(*transaction_id) {
                Some(_) => Ok(Success::Transaction { transaction: self.transaction(*transaction_id) }),
                None => Err(Refusal::refused(
                    ErrorCode::TransactionNotFound,
                    format!("there is no transaction {transaction_id}; the newest is {}", self.history.len()),
                )),
            },
            Query::GetStatistics { large_amount } => Ok(self.statistics(*large_amount)),
            Query::GetStatus {} => return None,
        })
    }

    fn account(&self, name: &str) -> Result<&AccountState, Refusal> {
        match self.accounts.find(name) {
            Some(account) => Ok(self.accounts.get(account)),
            None => Err(account_not_found(name, self.transaction_limit)),
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

    fn history(&self, filter: &HistoryFilter) -> Answer {
        let HistoryFilter { account_id, transaction_type, from_time, to_time, before, limit } = filter;
        let trail = match (account_id, transaction_type) {
            (Some(name), _) => self.account_trail(name)?,
            (None, Some(transaction_type)) => Trail::Type(*transaction_type),
            (None, None) => Trail::All,
        };
        let limit = page_size(*limit)?;
        let end = to_time.map_or(u64::MAX, |time| self.history.first_after(time));
        let mut ids: Vec<u64> = self
            .history
            .search(trail, end.min(before.unwrap_or(u64::MAX)))
            .take_while(|(_, record)| from_time.is_none_or(|time| record.moment.time >= time))
            .filter(|(_, record)| transaction_type.is_none_or(|kind| record.movement.transaction_type() == kind))
            .take(limit + 1)
            .map(|(id, _)| id)
            .collect();
        let more = ids.len() > limit;
        ids.truncate(limit);
        let next = ids.last().filter(|_| more).copied();
        Ok(Success::Transactions { transactions: ids.into_iter().map(|id| self.transaction(id)).collect(), next })
    }

    fn account_trail(&self, name: &str) -> Result<Trail, Refusal> {
        let Some(account) = self.accounts.find(name) else {
            return Err(account_not_found(name, self.transaction_limit));
        };
        let newest = self.accounts.get(account).last.map_or(0, |last| last.transaction);
        Ok(Trail::Account { account, newest })
    }

    /// Reads every account once, for the two lists of accounts; the rest is at hand.
    fn statistics(&self, large_amount: Option<u64>) -> Success {
        let large_amount = large_amount.unwrap_or((self.transaction_limit / 10).max(1));
        let large = self.totals.large(large_amount, &self.history).take(TOP);
        Success::Statistics {
            statistics: Box::new(Statistics {
                accounts: self.accounts.len() as u64,
                total_balance: self.total_balance,
                transactions: self.totals.all,
                by_type: self.totals.by_type(),
                by_hour: self.totals.by_hour(),
                largest_accounts: self.top_accounts(|state| state.balance),
                most_active_accounts: self.top_accounts(|state| state.transaction_count),
                large_amount,
                large_transactions: large.map(|id| self.transaction(id)).collect(),
            }),
        }
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

    /// The transaction with this id, which must be there.
    fn transaction(&self, id: u64) -> Transaction {
        let record = self.history.get(id);
        let name = |side: &Side| Box::from(&*self.accounts.get(side.account).name);
        let (from, to) = (record.movement.from(), record.movement.to());
        Transaction {
            transaction_id: id,
            transaction_type: record.movement.transaction_type(),
            from_account: from.map(name),
            to_account: to.map(name),
            amount: record.amount,
            from_balance: from.map(|side| side.balance),
            to_balance: to.map(|side| side.balance),
            timestamp: record.moment.time,
            slot: record.moment.slot,
            hash: record.hash,
        }
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
fn as_created(state: &AccountState) -> Account {
    Account {
        account_id: Box::from(&*state.name),
        balance: 0,
        created_at: state.created_at,
        last_transaction_at: None,
        transaction_count: 0,
    }
}

fn account_not_found(name: &str, transaction_limit: u64) -> Refusal {
    super::outcomes::OperationRefusal::AccountNotFound(super::outcomes::shortened(name)).render(transaction_limit)
}

fn page_size(limit: Option<u32>) -> Result<usize, Refusal> {
    match limit.unwrap_or(DEFAULT_PAGE) {
        limit @ 1..=MAX_PAGE => Ok(limit as usize),
        limit => {
            Err(Refusal::refused(ErrorCode::Malformed, format!("limit is {limit}, but pages have 1 to {MAX_PAGE}")))
        }
    }
}
