//! What clients of the bank send leaves nothing out.
#![allow(clippy::unwrap_used)] // a test says what failed by failing

use std::collections::BTreeSet;

use rabia_bank_messages::bank::{ErrorCode, Refusal};
use rabia_bank_messages::batch::{Action, BatchBuilder, RequestHeader};
use rabia_bank_messages::genesis::{BankTerms, SessionLimits};
use rabia_bank_messages::ids::{NodeId, Secret, SessionKey};

use super::*;

/// Runs, batches of each, and commands of these: 8,000, as forty seeds have.
const RUNS: u64 = 20;
const BATCHES: u64 = 20;
const COMMANDS: u64 = 20;

#[test]
fn clients_meet_every_refusal_and_do_everything() {
    let (mut met, mut done) = (BTreeSet::new(), BTreeSet::new());
    let mut random = Rng::with_seed(1);
    for run in 0..RUNS {
        let terms = BankTerms { allow_overdraft: run % 2 == 0, ..BankTerms::default() };
        let limit = if run % 4 == 0 { MAX_BALANCE } else { 1_000_000_000 };
        let mut model = Model::new(Bank::founded(&terms, limit, Secret([0; 32])), SessionLimits::default());
        let header = |number| RequestHeader { session: 1, key: SessionKey([1; 16]), number, acknowledged: 0, token: 0 };
        for sequence in 1..=BATCHES {
            let mut batch = BatchBuilder::default();
            if sequence == 1 {
                batch.push(&RequestHeader { session: 0, ..header(0) }, &Action::<Command>::Open);
            }
            for number in 0..COMMANDS {
                let command = model.machine().any_command(&mut random);
                batch.push(&header(sequence * COMMANDS + number), &Action::Command(command));
            }
            let (id, payload) = batch.finish(NodeId::new(1).unwrap(), 1, sequence, sequence);
            model.apply(sequence, Some((&id, &payload))).unwrap();
        }
        for applied in model.applied.values() {
            let mut count = |operation: &Operation, answer: Result<&Success, &Refusal>| {
                match answer {
                    Ok(_) => done.insert(operation.kind()),
                    Err(refusal) => met.insert(refusal.code.clone()),
                };
            };
            match (applied.command(), &applied.answer) {
                (Command::One(operation), answer) => count(operation, answer.as_ref()),
                (Command::Bulk(bulk), Ok(Success::Results { results })) => {
                    for (operation, result) in bulk.commands.iter().zip(results) {
                        match result {
                            ItemResult::Ok(success) => count(operation, Ok(success)),
                            ItemResult::Error(refusal) => count(operation, Err(refusal)),
                        }
                    }
                }
                (Command::Bulk(bulk), answer) => {
                    let codes = answer.as_ref().err().filter(|_| bulk.commands.is_empty());
                    met.extend(codes.map(|refusal| refusal.code.clone()));
                }
            }
        }
    }
    assert_eq!(done, OperationKind::ALL.into_iter().collect());
    let all = [
        ErrorCode::InvalidAccountId,
        ErrorCode::InvalidAmount,
        ErrorCode::InvalidAsset,
        ErrorCode::InvalidBounds,
        ErrorCode::InvalidCode,
        ErrorCode::InvalidName,
        ErrorCode::AccountExists,
        ErrorCode::AccountNotFound,
        ErrorCode::AssetNotFound,
        ErrorCode::AssetExists,
        ErrorCode::AssetMismatch,
        ErrorCode::AccountClosed,
        ErrorCode::AccountFrozen,
        ErrorCode::AccountNotEmpty,
        ErrorCode::InsufficientFunds,
        ErrorCode::BalanceLimit,
        ErrorCode::BalanceOverflow,
        ErrorCode::SameAccount,
        ErrorCode::BulkEmpty,
    ];
    let missing: Vec<_> = all.iter().filter(|code| !met.contains(code)).collect();
    assert!(missing.is_empty(), "nobody meets {missing:?}");
}
