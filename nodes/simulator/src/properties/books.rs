//! The books: the sum of all balances is openings + deposits − withdrawals, no balance is below 0, and replaying the history
//! gives every balance and every hash. What the ledger answers to each request is what the model answers.
//!
//! Source: BANK.md, invariants 1 to 4 and 6.

use std::sync::Arc;

use rabia_bank_actors::ledger::{Answer, Applied, Ledger, Lookup, MOST_AT_ONCE, Progress, RequestOutcome};
use rabia_bank_actors::snapshot::read_block;
use rabia_bank_messages::bank::{HistoryFilter, Query, Success, TransactionType};
use rabia_bank_messages::ids::{NodeId, Slot};
use rabia_bank_storage::BooksReader;

use super::{Check, check};
use rabia_bank_model::{Model, Reply, plain};

/// A ledger applied a slot for the first time anywhere: the model must answer the same.
pub(crate) fn same_replies(
    slot: Slot,
    ledger: &mut Ledger,
    disk: &BooksReader,
    applied: &Applied,
    model: Option<&[Reply]>,
) -> Check {
    let real: Option<Vec<Reply>> = match applied {
        Applied::Null | Applied::Repeated | Applied::Replacement | Applied::Unusable(_) => None,
        Applied::Batch(outcomes) => Some(outcomes.iter().map(|outcome| reply(ledger, disk, outcome)).collect()),
    };
    check(real.as_deref() == model, "the ledger is the model", || {
        format!("in slot {slot} the ledger answers {real:?}, the model {model:?}")
    })
}

/// The answer, with all steps and all blocks of the history that it needs.
fn complete(ledger: &mut Ledger, disk: &BooksReader, mut lookup: Lookup) -> Answer {
    loop {
        match ledger.go_on(&mut lookup, &mut MOST_AT_ONCE.clone()) {
            Progress::Done(answer) => return plain(answer),
            Progress::Unfinished => {}
            Progress::Block(number) => match read_block(disk, number) {
                Ok(block) => lookup.give(Arc::new(block)),
                Err(error) => panic!("block {number} of the history: {error}"),
            },
        }
    }
}

fn reply(ledger: &mut Ledger, disk: &BooksReader, outcome: &RequestOutcome) -> Reply {
    match outcome {
        RequestOutcome::Opened { session, .. } => Reply::Opened(*session),
        RequestOutcome::Closed => Reply::Closed,
        RequestOutcome::Command { slot, index, replayed, outcome } => {
            let place = (*slot, Some(*index as usize));
            let lookup = ledger.render(outcome);
            Reply::Command { place, replayed: *replayed, answer: Box::new(complete(ledger, disk, lookup)) }
        }
        RequestOutcome::Rejected(rejection) => Reply::Rejected(rejection.refusal().code),
    }
}

/// Conservation, after every slot: the ledger's figure, and the model's balances, are what the history adds up to.
pub(crate) fn balance(slot: Slot, ledger: &Ledger, model: &Model) -> Check {
    let mut sum: i128 = 0;
    for transaction in model.history() {
        sum += match transaction.transaction_type.known() {
            Some(TransactionType::Opening | TransactionType::Deposit) => i128::from(transaction.amount),
            Some(TransactionType::Withdrawal) => -i128::from(transaction.amount),
            Some(TransactionType::Transfer) | None => 0,
        };
    }
    let (ledger, model) = (ledger.summary().total_balance, model.total());
    check(sum == i128::from(ledger) && ledger == model, "conservation", || {
        format!("after slot {slot} the history adds up to {sum}, the ledger says {ledger}, the model {model}")
    })
}

/// At the end: all accounts and the whole history of a node's ledger, page by page, are the model's.
pub(crate) fn all_pages(node: NodeId, ledger: &mut Ledger, disk: &BooksReader, model: &Model) -> Check {
    let (mut after, mut before) = (None, None);
    loop {
        let query = Query::ListAccounts { after: after.clone(), limit: Some(7) };
        let answer = same_answer(node, ledger, disk, model, &query)?;
        let Some(Success::Accounts { next: Some(next), .. }) = answer else { break };
        after = Some(next);
    }
    loop {
        let filter = HistoryFilter { before, limit: Some(100), ..HistoryFilter::default() };
        let answer = same_answer(node, ledger, disk, model, &Query::GetTransactionHistory(filter))?;
        let Some(Success::Transactions { next: Some(next), .. }) = answer else { return Ok(()) };
        before = Some(next);
    }
}

/// A node's ledger answers a query as the model does.
pub(crate) fn same_answer(
    node: NodeId,
    ledger: &mut Ledger,
    disk: &BooksReader,
    model: &Model,
    query: &Query,
) -> Result<Option<Success>, super::Violation> {
    let slot = ledger.applied();
    let real = ledger.query(query).map(|lookup| complete(ledger, disk, lookup));
    let expected = model.query(query, slot);
    check(real.as_ref() == Some(&expected), "history gives the books", || {
        format!("node {node} answers {query:?} after slot {slot} with {real:?}, the model with {expected:?}")
    })?;
    Ok(expected.ok())
}
