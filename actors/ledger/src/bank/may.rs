//! Who may do what in the bank.
//!
//! | what | role | scopes |
//! | --- | --- | --- |
//! | transfer | teller | debit of the source, credit of the destination |
//! | deposit | minter | credit |
//! | withdraw | minter | debit |
//! | create_account | manager; with money in it minter as well | credit |
//! | set_account | manager | debit and credit |
//! | create_asset | manager | credit of all |
//! | assets | any that reads | |
//! | one account, its balance, history or feed | any that reads | read |
//! | one transaction | any that reads | read of one of its sides |
//! | everything else that is asked | auditor, or any that reads | read of all |
//! | principals | auditor, administrator | |
//! | status | auditor, operator, administrator | |

use rabia_bank_messages::bank::{
    AccountId, Command, ErrorCode, HistoryFilter, ItemResult, Operation, Query, Refusal, Success, Transaction,
};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::principal::Role;

use crate::rights::Rights;

/// Whether the principal may do this, as far as roles and scopes say.
pub(super) fn operate(operation: &Operation, rights: &Rights<'_>) -> bool {
    match operation {
        Operation::CreateAccount(account) => {
            rights.has(Role::Manager)
                && (account.initial_balance.get() == 0 || rights.has(Role::Minter))
                && rights.may_credit(&account.account_id)
        }
        Operation::SetAccount(change) => {
            rights.has(Role::Manager) && rights.may_debit(&change.account_id) && rights.may_credit(&change.account_id)
        }
        Operation::CreateAsset(_) => rights.has(Role::Manager) && rights.credits_all(),
        Operation::Deposit { account_id, .. } => rights.has(Role::Minter) && rights.may_credit(account_id),
        Operation::Withdraw { account_id, .. } => rights.has(Role::Minter) && rights.may_debit(account_id),
        Operation::Transfer { from_account, to_account, .. } => {
            rights.has(Role::Teller) && rights.may_debit(from_account) && rights.may_credit(to_account)
        }
    }
}

fn allow(may: bool, what: &str) -> Result<(), Refusal> {
    if may { Ok(()) } else { Err(Refusal::refused(ErrorCode::NotAuthorised, what)) }
}

/// A bulk is looked at when it is applied: each of its commands has its own answer.
pub(super) fn command(command: &Command, rights: &Rights<'_>) -> Result<(), Refusal> {
    match command {
        Command::One(operation) => allow(operate(operation, rights), OPERATION),
        Command::Bulk(_) => Ok(()),
    }
}

/// What is said of a command that the principal may not ask for.
pub(super) const OPERATION: &str = "the principal may not do this with these accounts";

pub(super) fn query(query: &Query, rights: &Rights<'_>) -> Result<(), Refusal> {
    const ACCOUNT: &str = "the principal may not look at this account";
    const ALL: &str = "only who may look at all accounts may ask this";
    match query {
        Query::GetAccount { account_id } | Query::GetBalance { account_id } => {
            allow(rights.may_read(account_id), ACCOUNT)
        }
        Query::GetTransactionHistory(HistoryFilter { account_id: Some(account), .. }) => {
            allow(rights.may_read(account), ACCOUNT)
        }
        Query::GetTransactionHistory(_) | Query::ListAccounts { .. } | Query::GetStatistics { .. } => {
            allow(rights.reads_all(), ALL)
        }
        Query::ListAssets {} => allow(rights.is_reader(), "only who may look at something may look at the assets"),
        // Whether it may see this one is known when it is found.
        Query::GetTransaction { .. } => Ok(()),
        Query::ListPrincipals {} => allow(
            rights.has(Role::Admin) || rights.has(Role::Auditor),
            "only administrators and auditors may look at principals",
        ),
        Query::GetStatus {} => allow(
            rights.has(Role::Operator) || rights.has(Role::Auditor) || rights.has(Role::Admin),
            "only operators, auditors and administrators may look at the status",
        ),
    }
}

pub(super) fn feed(feed: &Feed, rights: &Rights<'_>) -> Result<(), Refusal> {
    let may = feed.account_id.as_deref().map_or(rights.reads_all(), |account| rights.may_read(account));
    allow(may, "the principal may not look at these accounts")
}

/// Takes out of an answer what the principal may not see.
pub(super) fn hide(answer: &mut Success, rights: &Rights<'_>) {
    if rights.reads_all() {
        return;
    }
    let one = |transaction: &mut Transaction| transaction.hide(|account| rights.may_read(account));
    match answer {
        Success::Account { transaction, .. } => transaction.iter_mut().for_each(one),
        Success::Transaction { transaction } => one(transaction),
        Success::Transactions { transactions, .. } => transactions.iter_mut().for_each(one),
        Success::Results { results } => {
            for result in results {
                if let ItemResult::Ok(success) = result {
                    hide(success, rights);
                }
            }
        }
        _ => {}
    }
}

/// A transaction that was looked up by its id is shown to whoever may look at one of its sides.
pub(super) fn see(answer: &Success, rights: &Rights<'_>) -> Result<(), Refusal> {
    let Success::Transaction { transaction: Transaction { from_account, to_account, .. } } = answer else {
        return Ok(());
    };
    let sees = |account: &AccountId| rights.may_read(account);
    let may = rights.reads_all() || [from_account, to_account].into_iter().flatten().any(sees);
    allow(may, "the principal may not look at the accounts of this transaction")
}
