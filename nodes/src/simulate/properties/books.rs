//! The books: the sum of all balances is openings + deposits − withdrawals, no balance is below 0, and replaying the history
//! gives every balance and every hash. What the ledger answers to each request is what the model answers.
//!
//! Source: BANK.md, invariants 1 to 4 and 6.

use rabia_bank_messages::bank::{Query, Success, TransactionType};
use rabia_bank_messages::ids::{NodeId, Slot};

use rabia_bank_actors::ledger::{Answer, Applied, Ledger, Progress, RequestOutcome};

use super::model::{Model, Reply, plain};
use super::{Check, check};

/// A ledger applied a slot for the first time anywhere: the model must answer the same.
pub(in crate::simulate) fn same_replies(
    slot: Slot,
    ledger: &Ledger,
    applied: &Applied,
    model: Option<&[Reply]>,
) -> Check {
    let real: Option<Vec<Reply>> = match applied {
        Applied::Null | Applied::Repeated | Applied::Replacement => None,
        Applied::Batch(outcomes) => Some(outcomes.iter().map(|outcome| reply(ledger, outcome)).collect()),
    };
    check(real.as_deref() == model, "the ledger is the model", || {
        format!("in slot {slot} the ledger answers {real:?}, the model {model:?}")
    })
}

/// Simulated nodes keep the whole history in memory.
pub(in crate::simulate) fn in_memory(progress: Progress) -> Answer {
    match progress {
        Progress::Done(answer) => answer,
        Progress::Reading(reading) => panic!("block {} of the history has left memory", reading.block()),
    }
}

fn reply(ledger: &Ledger, outcome: &RequestOutcome) -> Reply {
    match outcome {
        RequestOutcome::Opened { session } => Reply::Opened(*session),
        RequestOutcome::Closed => Reply::Closed,
        RequestOutcome::Command { slot, replayed, outcome } => {
            Reply::Command { slot: *slot, replayed: *replayed, answer: plain(in_memory(ledger.render(outcome))) }
        }
        RequestOutcome::Rejected(rejection) => Reply::Rejected(rejection.refusal().code),
    }
}

/// Conservation, after every slot: the ledger's figure, and the model's balances, are what the history adds up to.
pub(in crate::simulate) fn balance(slot: Slot, ledger: &Ledger, model: &Model) -> Check {
    let mut sum: i128 = 0;
    for transaction in model.history() {
        sum += match transaction.transaction_type {
            TransactionType::Opening | TransactionType::Deposit => i128::from(transaction.amount),
            TransactionType::Withdrawal => -i128::from(transaction.amount),
            TransactionType::Transfer => 0,
        };
    }
    let (ledger, model) = (ledger.summary().total_balance, model.total());
    check(sum == i128::from(ledger) && ledger == model, "conservation", || {
        format!("after slot {slot} the history adds up to {sum}, the ledger says {ledger}, the model {model}")
    })
}

/// At the end: all accounts and the whole history of a node's ledger, page by page, are the model's.
pub(in crate::simulate) fn all_pages(node: NodeId, ledger: &Ledger, model: &Model) -> Check {
    let slot = ledger.applied();
    let (mut after, mut before) = (None, None);
    loop {
        let query = Query::ListAccounts { after: after.clone(), limit: Some(7) };
        let answer = same_answer(node, ledger, model, &query, slot)?;
        let Some(Success::Accounts { next: Some(next), .. }) = answer else { break };
        after = Some(next);
    }
    loop {
        let filter = rabia_bank_messages::bank::HistoryFilter { before, limit: Some(100), ..Default::default() };
        let answer = same_answer(node, ledger, model, &Query::GetTransactionHistory(filter), slot)?;
        let Some(Success::Transactions { next: Some(next), .. }) = answer else { return Ok(()) };
        before = Some(next);
    }
}

fn same_answer(
    node: NodeId,
    ledger: &Ledger,
    model: &Model,
    query: &Query,
    slot: Slot,
) -> Result<Option<Success>, super::Violation> {
    let (real, expected) = (ledger.query(query).map(in_memory).map(plain), model.query(query, slot));
    check(real.as_ref() == Some(&expected), "history gives the books", || {
        format!("node {node} answers {query:?} after slot {slot} with {real:?}, the model with {expected:?}")
    })?;
    Ok(expected.ok())
}
