//! What the bank answers to questions about the state after any slot: each reads all that there is.
//!
//! Source: BANK.md, "Queries".

use rabia_bank_messages::bank::{
    Account, Asset, DEFAULT_PAGE, ErrorCode, HistoryFilter, HourVolume, MAX_BALANCE, MAX_PAGE, OtherFields, Query,
    Refusal, Statistics, Success, Transaction, TransactionType, Volume,
};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::{Millis, Slot};

use crate::Answer;
use crate::bank::{Bank, PlainAsset, is_asset_code, refusal, well_formed};

/// So many accounts does a page of one class look at, at most.
const MOST_LOOKED_AT: usize = 4_000;

impl Bank {
    pub(crate) fn answer(&self, query: &Query, slot: Slot) -> Answer {
        let account_of = |name: &str| {
            well_formed(name).map_err(refusal)?;
            self.account_at(name, slot).ok_or_else(|| refusal(ErrorCode::AccountNotFound))
        };
        match query {
            Query::GetAccount { account_id } => {
                let account = account_of(account_id)?;
                Ok(Success::Account { account: Box::new(account), transaction: None })
            }
            Query::GetBalance { account_id } => Ok(Success::Balance { balance: account_of(account_id)?.balance }),
            Query::ListAccounts { after, limit, code } => {
                self.page_of_accounts(after.as_deref(), page(*limit)?, code.as_deref(), slot)
            }
            Query::ListAssets {} => {
                let assets = self.assets_at(slot).map(|asset| self.described(asset, slot)).collect();
                Ok(Success::Assets { assets })
            }
            Query::GetTransactionHistory(filter) => {
                if let Some(name) = &filter.account_id {
                    account_of(name)?;
                }
                let limit = page(filter.limit)?;
                let wanted = self.until(slot).iter().rev().filter(|transaction| matches(transaction, filter));
                let mut transactions: Vec<Transaction> = wanted.cloned().collect();
                let more = transactions.len() > limit;
                transactions.truncate(limit);
                let next = transactions.last().filter(|_| more).map(|last| last.transaction_id);
                Ok(Success::Transactions { transactions, next })
            }
            Query::GetTransaction { transaction_id } => {
                let found = self.until(slot).iter().find(|transaction| transaction.transaction_id == *transaction_id);
                let transaction = found.cloned().ok_or_else(|| refusal(ErrorCode::TransactionNotFound))?;
                Ok(Success::Transaction { transaction })
            }
            Query::GetStatistics { large_amount, asset } => {
                let code = asset.as_deref().unwrap_or(self.own());
                if !is_asset_code(code) {
                    return Err(refusal(ErrorCode::InvalidAsset));
                }
                let asset = self.assets_at(slot).find(|asset| asset.code == code);
                let asset = asset.ok_or_else(|| refusal(ErrorCode::AssetNotFound))?;
                Ok(self.statistics(asset, *large_amount, slot))
            }
            Query::GetStatus {} | Query::ListPrincipals {} => Err(refusal(ErrorCode::Malformed)),
        }
    }

    /// An account as it was after a slot.
    fn account_at(&self, name: &str, slot: Slot) -> Option<Account> {
        let versions = self.accounts.get(name)?;
        let mut until = versions.iter().rev().filter(|(place, _)| self.history()[*place].slot <= slot);
        until.next().map(|(_, account)| account.clone())
    }

    /// The history as it was after a slot.
    fn until(&self, slot: Slot) -> &[Transaction] {
        let history = self.history();
        &history[..history.partition_point(|transaction| transaction.slot <= slot)]
    }

    fn accounts_at(&self, slot: Slot) -> Vec<Account> {
        self.accounts.keys().filter_map(|name| self.account_at(name, slot)).collect()
    }

    /// The assets that there were after a slot.
    fn assets_at(&self, slot: Slot) -> impl Iterator<Item = &PlainAsset> {
        self.assets.iter().filter(move |asset| asset.since.is_none_or(|place| self.history()[place].slot <= slot))
    }

    fn described(&self, asset: &PlainAsset, slot: Slot) -> Asset {
        let mut accounts = self.accounts_at(slot);
        accounts.retain(|account| *account.asset == *asset.code);
        Asset {
            asset: asset.code.as_str().into(),
            scale: asset.scale,
            limit: asset.limit,
            accounts: accounts.len() as u64,
            total_balance: accounts.iter().map(|account| account.balance).sum(),
            other: OtherFields::default(),
        }
    }

    fn page_of_accounts(&self, after: Option<&str>, limit: usize, code: Option<&str>, slot: Slot) -> Answer {
        let mut rest = self.accounts_at(slot);
        rest.retain(|account| after.is_none_or(|after| *account.account_id > *after));
        let (mut accounts, mut last) = (Vec::new(), None);
        let mut rest = rest.into_iter().peekable();
        for account in rest.by_ref().take(if code.is_some() { MOST_LOOKED_AT } else { usize::MAX }) {
            last = Some(account.account_id.clone());
            accounts.extend(Some(account).filter(|account| code.is_none() || account.code.as_deref() == code));
            if accounts.len() == limit {
                break;
            }
        }
        let next = last.filter(|_| rest.peek().is_some());
        Ok(Success::Accounts { accounts, next })
    }

    /// What a record is of: what says no asset is of the cluster's own one.
    fn asset_of<'a>(&'a self, transaction: &'a Transaction) -> &'a str {
        transaction.asset.as_deref().unwrap_or(self.own())
    }

    /// All transactions of a feed with ids from `from` on and below `next`, oldest first. None if there are not so many transactions.
    pub fn feed(&self, feed: &Feed, from: u64, next: u64) -> Option<Vec<Transaction>> {
        let from = from.max(1);
        if next == from {
            return Some(Vec::new());
        }
        let asset = feed.asset.as_deref().or(feed.min_amount.map(|_| self.own()));
        let wanted = |transaction: &&Transaction| {
            let account = feed.account_id.as_ref().is_none_or(|name| touches(transaction, name));
            let amount = feed.min_amount.is_none_or(|amount| transaction.amount >= amount);
            account && amount && asset.is_none_or(|asset| self.asset_of(transaction) == asset)
        };
        let looked_at = self.history().get(from as usize - 1..next as usize - 1)?;
        Some(looked_at.iter().filter(wanted).cloned().collect())
    }

    fn statistics(&self, asset: &PlainAsset, large_amount: Option<u64>, slot: Slot) -> Success {
        const TOP: usize = 10;
        const HOUR: Millis = 3_600_000;
        const HOURS: usize = 48;
        let large_amount = large_amount.unwrap_or((asset.limit / 10).max(1));
        let history: Vec<&Transaction> =
            self.until(slot).iter().filter(|transaction| self.asset_of(transaction) == asset.code).collect();
        let mut accounts = self.accounts_at(slot);
        let totals = self.assets_at(slot).map(|asset| {
            let of_asset = accounts.iter().filter(|account| *account.asset == *asset.code);
            (asset.code.as_str().into(), of_asset.map(|account| account.balance).sum())
        });
        let totals = totals.collect();
        accounts.retain(|account| *account.asset == *asset.code);
        let of_type = |kind: TransactionType| volume(history.iter().filter(|t| t.transaction_type == kind));
        let mut hours: Vec<Millis> = history.iter().map(|t| t.timestamp / HOUR * HOUR).collect();
        hours.dedup();
        let latest = hours.len().saturating_sub(HOURS);
        let of_hour = |hour: &Millis| volume(history.iter().filter(|t| t.timestamp / HOUR * HOUR == *hour));
        let large = history.iter().rev().filter(|transaction| transaction.amount >= large_amount);
        Success::Statistics {
            statistics: Box::new(Statistics {
                asset: asset.code.as_str().into(),
                accounts: accounts.len() as u64,
                total_balance: accounts.iter().map(|account| account.balance).sum(),
                totals,
                transactions: volume(history.iter()),
                by_type: TransactionType::ALL
                    .into_iter()
                    .map(|kind| (kind, of_type(kind)))
                    .filter(|(kind, volume)| kind.has_amount() || volume.count > 0)
                    .map(|(kind, volume)| (kind.into(), volume))
                    .collect(),
                by_hour: hours[latest..].iter().map(|hour| HourVolume { hour: *hour, total: of_hour(hour) }).collect(),
                largest_accounts: top(&accounts, TOP, |account| account.balance),
                most_active_accounts: top(&accounts, TOP, |account| account.transaction_count as i64),
                large_amount,
                large_transactions: large.take(TOP).map(|transaction| (*transaction).clone()).collect(),
                other: OtherFields::default(),
            }),
        }
    }
}

/// The accounts with the highest value, equal ones by name.
fn top(accounts: &[Account], count: usize, value: impl Fn(&Account) -> i64) -> Vec<Account> {
    let mut sorted = accounts.to_vec();
    sorted.sort_by(|a, b| value(b).cmp(&value(a)).then(a.account_id.cmp(&b.account_id)));
    sorted.truncate(count);
    sorted
}

fn page(limit: Option<u32>) -> Result<usize, Refusal> {
    let limit = limit.unwrap_or(DEFAULT_PAGE);
    if limit == 0 || limit > MAX_PAGE { Err(refusal(ErrorCode::Malformed)) } else { Ok(limit as usize) }
}

fn touches(transaction: &Transaction, name: &str) -> bool {
    [&transaction.from_account, &transaction.to_account].into_iter().flatten().any(|account| **account == *name)
}

fn matches(transaction: &Transaction, filter: &HistoryFilter) -> bool {
    filter.account_id.as_ref().is_none_or(|name| touches(transaction, name))
        && filter.transaction_type.is_none_or(|kind| transaction.transaction_type == kind)
        && filter.from_time.is_none_or(|time| transaction.timestamp >= time)
        && filter.to_time.is_none_or(|time| transaction.timestamp <= time)
        && filter.before.is_none_or(|before| transaction.transaction_id < before)
}

fn volume<'a>(transactions: impl Iterator<Item = &'a &'a Transaction>) -> Volume {
    transactions.fold(Volume::default(), |sum, transaction| Volume {
        count: sum.count + 1,
        volume: sum.volume.saturating_add(transaction.amount).min(MAX_BALANCE),
    })
}
