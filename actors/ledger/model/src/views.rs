//! What a principal may ask the bank, and what it sees of an answer, in the words of SECURITY.md.

use rabia_bank_messages::bank::{Command, ErrorCode, HistoryFilter, ItemResult, Query, Success, Transaction};
use rabia_bank_messages::principal::{PutPrincipal, Role};

use crate::Answer;
use crate::bank::refusal;
use crate::chain::{destination, source};
use crate::principals::{may, within};

/// All but operators and administrators read what their scopes let them read.
const READERS: [Role; 5] = [Role::Reader, Role::Teller, Role::Minter, Role::Manager, Role::Auditor];

fn reads(put: &PutPrincipal, account: &str) -> bool {
    put.roles.has(Role::Auditor) || (put.roles.has_any(READERS) && within(&put.scopes.read, account))
}

/// Everything, rather than all accounts of some prefix.
fn reads_all(put: &PutPrincipal) -> bool {
    let all = put.scopes.read.iter().any(|scope| scope.to_string() == "*");
    put.roles.has(Role::Auditor) || (put.roles.has_any(READERS) && all)
}

/// Whether a command is refused whole to whoever has these roles and scopes, whatever the accounts are.
pub(crate) fn is_refused(put: &PutPrincipal, command: &Command) -> bool {
    match command {
        Command::One(operation) => !may(put, operation),
        Command::Bulk(_) => false,
    }
}

fn may_ask(put: &PutPrincipal, query: &Query) -> bool {
    let has_any = |roles: &[Role]| roles.iter().any(|role| put.roles.has(*role));
    match query {
        Query::GetAccount { account_id } | Query::GetBalance { account_id } => reads(put, account_id),
        Query::GetTransactionHistory(HistoryFilter { account_id: Some(account), .. }) => reads(put, account),
        Query::GetTransactionHistory(_) | Query::ListAccounts { .. } | Query::GetStatistics { .. } => reads_all(put),
        Query::ListAssets {} => put.roles.has_any(READERS),
        Query::GetTransaction { .. } => true,
        Query::ListPrincipals {} => has_any(&[Role::Admin, Role::Auditor]),
        Query::GetStatus {} => has_any(&[Role::Admin, Role::Auditor, Role::Operator]),
    }
}

/// Whether entries of a feed are told to whoever has these roles and scopes.
pub fn may_follow(put: &PutPrincipal, account: Option<&str>) -> bool {
    account.map_or_else(|| reads_all(put), |account| reads(put, account))
}

/// The answer to a query as a principal gets it.
pub(crate) fn asked(put: &PutPrincipal, query: &Query, answer: Answer) -> Answer {
    let not_authorised = || refusal(ErrorCode::NotAuthorised);
    if !may_ask(put, query) {
        return Err(not_authorised());
    }
    let answer = answer?;
    if let (Query::GetTransaction { .. }, Success::Transaction { transaction }) = (query, &answer) {
        let mut sides = [&transaction.from_account, &transaction.to_account].into_iter().flatten();
        if !reads_all(put) && !sides.any(|account| reads(put, account)) {
            return Err(not_authorised());
        }
    }
    Ok(seen(put, answer))
}

/// An answer without the sides of accounts that a principal may not read.
pub(crate) fn seen(put: &PutPrincipal, mut answer: Success) -> Success {
    match &mut answer {
        Success::Account { transaction: Some(transaction), .. } | Success::Transaction { transaction } => {
            hide(put, transaction);
        }
        Success::Transactions { transactions, .. } => transactions.iter_mut().for_each(|one| hide(put, one)),
        Success::Results { results } => {
            for result in results {
                if let ItemResult::Ok(one) = result {
                    *one = seen(put, one.clone());
                }
            }
        }
        _ => {}
    }
    answer
}

/// Puts the hash of a side in its place where the principal may not read the account.
pub fn hide(put: &PutPrincipal, transaction: &mut Transaction) {
    let mut proofs = transaction.proofs();
    let hashes = [source(transaction, &proofs).hash(), destination(transaction, &proofs).hash()];
    let is_hidden = |account: &Option<Box<str>>| account.as_deref().is_some_and(|account| !reads(put, account));
    if is_hidden(&transaction.from_account) {
        (transaction.from_account, transaction.from_balance) = (None, None);
        (proofs.from_salt, proofs.from_hash) = (None, hashes[0]);
    }
    if is_hidden(&transaction.to_account) {
        (transaction.to_account, transaction.to_balance, transaction.settings) = (None, None, None);
        (proofs.to_salt, proofs.to_hash) = (None, hashes[1]);
    }
    transaction.proofs = proofs.boxed();
}
