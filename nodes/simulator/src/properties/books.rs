//! The books: what the ledger answers to each request is what the model answers, and at the end the books of every node say what the
//! model's do. What else must hold depends on what is simulated: see [`Workload`].

use std::sync::Arc;

use rabia_bank_actors::ledger::lookup::Lookup;
use rabia_bank_actors::ledger::machine::Progress;
use rabia_bank_actors::ledger::replicated::{Applied, Replicated, RequestOutcome};
use rabia_bank_actors::ledger::{MOST_AT_ONCE, admin_refusal};
use rabia_bank_actors::snapshot::read_block;
use rabia_bank_messages::ids::{NodeId, Slot};
use rabia_bank_model::{Answer, Model, Reply};
use rabia_bank_storage::BooksReader;

use super::super::workload::{OutcomeOf, Workload};
use super::{Check, Violation, check};

/// What a ledger answers to the requests of a slot; none if that has none.
pub(crate) fn replies<W: Workload>(
    ledger: &mut Replicated<W::Machine>,
    disk: &BooksReader,
    applied: &Applied<OutcomeOf<W>>,
) -> Option<Vec<Reply<W::Success>>> {
    match applied {
        Applied::Null | Applied::Repeated | Applied::Replacement | Applied::Can | Applied::Unusable(_) => None,
        Applied::Batch(outcomes) => Some(outcomes.iter().map(|outcome| reply::<W>(ledger, disk, outcome)).collect()),
    }
}

/// A ledger applied a slot for the first time anywhere: the model must answer the same.
pub(crate) fn same_replies<W: Workload>(
    slot: Slot,
    real: Option<&[Reply<W::Success>]>,
    model: Option<&[Reply<W::Success>]>,
) -> Check {
    check(real == model, "the ledger is the model", || {
        format!("in slot {slot} the ledger answers {real:?}, the model {model:?}")
    })
}

/// The answer, with all steps and all blocks of the history that it needs.
fn complete<W: Workload>(
    ledger: &mut Replicated<W::Machine>,
    disk: &BooksReader,
    mut lookup: Lookup<W::Machine>,
) -> Answer<W::Success> {
    loop {
        match ledger.go_on(&mut lookup, &mut MOST_AT_ONCE.clone()) {
            Progress::Done(answer) => return W::plain(answer),
            Progress::Unfinished => {}
            Progress::Block(number) => match read_block(disk, number) {
                Ok(block) => lookup.give(Arc::new(block)),
                Err(error) => panic!("block {number} of the history: {error}"),
            },
        }
    }
}

fn reply<W: Workload>(
    ledger: &mut Replicated<W::Machine>,
    disk: &BooksReader,
    outcome: &RequestOutcome<OutcomeOf<W>>,
) -> Reply<W::Success> {
    match outcome {
        RequestOutcome::Opened { session, .. } => Reply::Opened(*session),
        RequestOutcome::Closed => Reply::Closed,
        RequestOutcome::Command { slot, index, replayed, outcome } => {
            let place = (*slot, Some(*index as usize));
            let lookup = ledger.render(outcome);
            Reply::Command { place, replayed: *replayed, answer: Box::new(complete::<W>(ledger, disk, lookup)) }
        }
        RequestOutcome::Administered { slot, index, replayed, outcome } => {
            let outcome = outcome.map_err(|refusal| admin_refusal(refusal).code);
            Reply::Administered { place: (*slot, *index as usize), replayed: *replayed, outcome }
        }
        RequestOutcome::Rejected(rejection) => Reply::Rejected(rejection.refusal().code),
    }
}

/// A node's ledger answers a query as the model does.
pub(crate) fn same_answer<W: Workload>(
    node: NodeId,
    ledger: &mut Replicated<W::Machine>,
    disk: &BooksReader,
    model: &Model<W>,
    query: &W::Query,
) -> Result<Option<W::Success>, Violation> {
    let slot = ledger.applied();
    let real = ledger.query(query).map(|lookup| complete::<W>(ledger, disk, lookup));
    let expected = model.query(query, slot);
    check(real.as_ref() == Some(&expected), "history gives the books", || {
        format!("node {node} answers {query:?} after slot {slot} with {real:?}, the model with {expected:?}")
    })?;
    Ok(expected.ok())
}
