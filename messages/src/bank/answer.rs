//! What a command or a query that was carried out answers.
//!
//! The fields that are there say which answer it is.

use serde::{Deserialize, Serialize};

use super::asset::Asset;
use super::record::{Account, AccountId, Transaction};
use super::refusal::Refusal;
use super::statistics::Statistics;
use super::status::Status;
use crate::number;
use crate::open::OtherFields;
use crate::principal::{PrincipalInfo, TokenInfo};

/// The result of one command of a bulk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "ItemFields")]
pub enum ItemResult {
    /// It was applied. The answer is what the command would have got alone.
    Ok(Success),
    /// It was refused and changed nothing.
    Error(Refusal),
}

/// Every field that a result may have.
#[derive(Deserialize)]
struct ItemFields {
    ok: Option<Success>,
    error: Option<Refusal>,
}

impl TryFrom<ItemFields> for ItemResult {
    type Error = &'static str;

    fn try_from(fields: ItemFields) -> Result<ItemResult, &'static str> {
        match (fields.ok, fields.error) {
            (Some(success), None) => Ok(ItemResult::Ok(success)),
            (None, Some(refusal)) => Ok(ItemResult::Error(refusal)),
            _ => Err("expected either ok or error"),
        }
    }
}

/// What a command or query that was carried out answers: the fields of `"ok"`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged, try_from = "SuccessFields")]
pub enum Success {
    /// Of `create_account` (with the opening transaction), of `set_account` (with the change), and of `get_account`.
    Account {
        /// As it is now; of a command as it was then.
        account: Box<Account>,
        /// What created or changed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        transaction: Option<Transaction>,
    },
    /// Of `deposit`, `withdraw`, `transfer`, `create_asset`, `get_transaction`.
    Transaction {
        /// As it stands in the history.
        transaction: Transaction,
    },
    /// Of a `bulk` that was applied.
    Results {
        /// One per command, in their order.
        results: Vec<ItemResult>,
    },
    /// Of `get_balance`.
    Balance {
        /// Minor units, from −(2^53 − 1) to [`MAX_BALANCE`](super::MAX_BALANCE).
        balance: i64,
    },
    /// Of `list_accounts`.
    Accounts {
        /// By id, in byte order.
        accounts: Vec<Account>,
        /// The `after` of the next page, if there is more.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<AccountId>,
    },
    /// Of `list_assets`.
    Assets {
        /// The cluster's own one first.
        assets: Vec<Asset>,
    },
    /// Of `get_transaction_history`.
    Transactions {
        /// Newest first, as many as the page holds.
        transactions: Vec<Transaction>,
        /// The `before` of the next page, if there is more.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<u64>,
    },
    /// Of `get_statistics`.
    Statistics {
        /// As of the slot of the answer.
        statistics: Box<Statistics>,
    },
    /// Of `get_status`.
    Status {
        /// Of the node that was asked.
        status: Box<Status>,
    },
    /// Of `subscribe`.
    Subscribed {
        /// The first transaction that may come.
        from: u64,
    },
    /// Of the commands of administrators.
    Administered {
        /// The number of the principal or token.
        number: u64,
    },
    /// Of `list_principals`.
    Principals {
        /// By number.
        principals: Vec<PrincipalInfo>,
        /// By number.
        tokens: Vec<TokenInfo>,
    },
    /// Of a command or query of a later version: it was carried out, and this is all that it says.
    Other(OtherFields),
}

/// `next` is an account id or a transaction id, as the page's records are.
#[derive(Deserialize)]
#[serde(untagged)]
enum Next {
    Account(AccountId),
    Transaction(u64),
}

/// Every field that `"ok"` may have. Which are there says which [`Success`] it is.
#[derive(Deserialize)]
struct SuccessFields {
    account: Option<Box<Account>>,
    transaction: Option<Transaction>,
    results: Option<Vec<ItemResult>>,
    #[serde(default, deserialize_with = "number::optional_signed")]
    balance: Option<i64>,
    assets: Option<Vec<Asset>>,
    accounts: Option<Vec<Account>>,
    transactions: Option<Vec<Transaction>>,
    statistics: Option<Box<Statistics>>,
    status: Option<Box<Status>>,
    from: Option<u64>,
    number: Option<u64>,
    principals: Option<Vec<PrincipalInfo>>,
    #[serde(default)]
    tokens: Vec<TokenInfo>,
    next: Option<Next>,
    #[serde(flatten)]
    other: OtherFields,
}

impl TryFrom<SuccessFields> for Success {
    type Error = &'static str;

    fn try_from(fields: SuccessFields) -> Result<Success, &'static str> {
        Ok(match fields {
            SuccessFields { account: Some(account), transaction, .. } => Success::Account { account, transaction },
            SuccessFields { transaction: Some(transaction), .. } => Success::Transaction { transaction },
            SuccessFields { results: Some(results), .. } => Success::Results { results },
            SuccessFields { balance: Some(balance), .. } => Success::Balance { balance },
            SuccessFields { accounts: Some(accounts), next, .. } => Success::Accounts {
                accounts,
                next: match next {
                    None => None,
                    Some(Next::Account(id)) => Some(id),
                    Some(Next::Transaction(_)) => return Err("the next page of accounts starts at an account id"),
                },
            },
            SuccessFields { assets: Some(assets), .. } => Success::Assets { assets },
            SuccessFields { transactions: Some(transactions), next, .. } => Success::Transactions {
                transactions,
                next: match next {
                    None => None,
                    Some(Next::Transaction(id)) => Some(id),
                    Some(Next::Account(_)) => return Err("the next page of a history starts at a transaction id"),
                },
            },
            SuccessFields { statistics: Some(statistics), .. } => Success::Statistics { statistics },
            SuccessFields { status: Some(status), .. } => Success::Status { status },
            SuccessFields { from: Some(from), .. } => Success::Subscribed { from },
            SuccessFields { number: Some(number), .. } => Success::Administered { number },
            SuccessFields { principals: Some(principals), tokens, .. } => Success::Principals { principals, tokens },
            SuccessFields { other, .. } if !other.is_empty() => Success::Other(other),
            _ => return Err("an answer without a field"),
        })
    }
}
