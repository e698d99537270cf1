//! Answers to queries. What needs the history is begun here, and finished in `answers`.

use rabia_bank_messages::bank::{
    Account, DEFAULT_PAGE, ErrorCode, HistoryFilter, MAX_PAGE, Query, Refusal, Success, is_valid_account_id,
    is_valid_asset,
};

use super::Bank;
use super::account::AccountState;
use super::answers::{Page, Task, Trail};
use super::assets::{AssetIndex, AssetState};
use super::outcomes::{OperationRefusal, shortened};
use crate::machine::Begun;

impl Bank {
    /// Begins the answer to a query.
    pub(super) fn query(&self, query: &Query) -> Begun<Bank> {
        let task = match query {
            Query::GetAccount { account_id } => {
                let account = self.account(account_id);
                return Begun::Done(
                    account.map(|state| Success::Account { account: Box::new(self.as_now(state)), transaction: None }),
                );
            }
            Query::GetBalance { account_id } => {
                return Begun::Done(self.account(account_id).map(|state| Success::Balance { balance: state.balance }));
            }
            Query::ListAccounts { after, limit, code } => {
                let page = |limit| Task::Accounts { after: after.clone(), limit, code: code.clone() };
                page_size(*limit).map(page)
            }
            Query::ListAssets {} => {
                let assets = self.accounts.assets.iter().map(AssetState::to_asset).collect();
                return Begun::Done(Ok(Success::Assets { assets }));
            }
            Query::GetTransactionHistory(filter) => self.page(filter).map(Task::Page),
            Query::GetTransaction { transaction_id: id @ 1.. } if *id <= self.history.len() => {
                Ok(Task::Transaction(*id))
            }
            Query::GetTransaction { transaction_id } => Err(Refusal::refused(
                ErrorCode::TransactionNotFound,
                format!("there is no transaction {transaction_id}; the newest is {}", self.history.len()),
            )),
            Query::GetStatistics { large_amount, asset } => self.asset(asset.as_deref()).map(|asset| {
                let limit = self.accounts.assets.get(asset).limit;
                Task::Statistics { asset, large_amount: large_amount.unwrap_or((limit / 10).max(1)) }
            }),
            Query::GetStatus {} | Query::ListPrincipals {} => {
                Err(Refusal::refused(ErrorCode::Malformed, "that is not the bank's to answer"))
            }
        };
        task.map_or_else(|refusal| Begun::Done(Err(refusal)), Begun::Task)
    }

    /// What clients see of an account.
    pub(super) fn as_now(&self, state: &AccountState) -> Account {
        state.as_now(self.accounts.assets.get(state.asset))
    }

    /// The asset of this code; the cluster's own one where none is said.
    pub(super) fn asset(&self, code: Option<&str>) -> Result<AssetIndex, Refusal> {
        let Some(code) = code else { return Ok(AssetIndex::OWN) };
        let refusal = match is_valid_asset(code) {
            true => OperationRefusal::AssetNotFound,
            false => OperationRefusal::InvalidAsset,
        };
        let found = self.accounts.assets.find(code);
        found.ok_or_else(|| refusal(shortened(code)).render(self.transaction_limit()))
    }

    fn account(&self, name: &str) -> Result<&AccountState, Refusal> {
        match self.accounts.find(name) {
            Some(account) => Ok(self.accounts.get(account)),
            None => Err(no_account(name, self.transaction_limit())),
        }
    }

    fn page(&self, filter: &HistoryFilter) -> Result<Page, Refusal> {
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
            return Err(no_account(name, self.transaction_limit()));
        };
        let state = self.accounts.get(account);
        let newest = state.last.map_or(0, |last| last.transaction);
        Ok(Trail::Account { account, name: state.name.clone(), newest })
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
