//! How long the ledger takes. Not a test of anything: run it in release, by name, on a quiet machine:
//! `cargo test --release -p rabia-bank-ledger --test ledger -- --ignored --nocapture timing`.

#![allow(clippy::disallowed_types)] // it measures

use std::time::{Duration, Instant};

use rabia_bank_messages::bank::{Command, Query};
use rabia_bank_messages::batch::Action;

use crate::support::*;

const ACCOUNTS: u64 = 1_000_000;
const TRANSFERS: u64 = 1_000_000;

fn account(number: u64) -> String {
    format!("acct-{number:07}")
}

/// A fixed walk over `accounts` numbers that jumps about.
fn jump(step: u64, accounts: u64) -> u64 {
    (step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % accounts
}

fn per(elapsed: Duration, count: u64) -> f64 {
    elapsed.as_secs_f64() * 1e6 / count as f64
}

#[test]
#[ignore = "prints timings"]
fn timing() {
    for accounts in [1_000, ACCOUNTS] {
        let mut bank = Bank::new();
        let mut elapsed = Duration::ZERO;
        let names: Vec<u64> = (0..accounts).collect();
        for chunk in names.chunks(10_000) {
            let commands = chunk.iter().map(|number| create(&account(*number), 1_000_000)).collect();
            let start = Instant::now();
            bank.command(bulk(false, commands)).ok();
            elapsed += start.elapsed();
        }
        println!("{accounts} accounts: {:.2} µs to create one", per(elapsed, accounts));
        for (name, in_batch) in [("requests of 100 a batch", 100), ("requests of 2000 a batch", 2000)] {
            println!("  {:.2} µs a transfer, {name}", singles(&mut bank, accounts, in_batch));
        }
        println!("  {:.2} µs a transfer, in bulks of 1000", bulks(&mut bank, accounts));
        let start = Instant::now();
        bank.ledger.digest();
        println!("  {:?} for a digest", start.elapsed());
        let start = Instant::now();
        bank.query(&Query::GetStatistics { large_amount: None, asset: None }).ok();
        println!("  {:?} for the statistics", start.elapsed());
    }
}

fn singles(bank: &mut Bank, accounts: u64, in_batch: u64) -> f64 {
    let key = rabia_bank_messages::ids::SessionKey([in_batch as u8; 16]);
    let opened = bank.batch(&[open(key)]).remove(0);
    let rabia_bank_ledger::RequestOutcome::Opened { session, .. } = opened else { panic!("{opened:?}") };
    let mut elapsed = Duration::ZERO;
    for first in (1..=TRANSFERS).step_by(in_batch as usize) {
        let requests: Vec<_> = (first..first + in_batch)
            .map(|number| {
                let operation = transfer(&account(jump(number, accounts)), &account(jump(!number, accounts)), 1);
                let header = rabia_bank_messages::batch::RequestHeader { key, ..header(session, number, first - 1) };
                (header, Action::Command(Command::One(operation)))
            })
            .collect();
        let (id, payload) = bank.payload(&requests);
        let start = Instant::now();
        bank.apply(Some((&id, &payload)));
        elapsed += start.elapsed();
    }
    per(elapsed, TRANSFERS)
}

fn bulks(bank: &mut Bank, accounts: u64) -> f64 {
    let mut elapsed = Duration::ZERO;
    for first in (0..TRANSFERS).step_by(1000) {
        let operation = |n| transfer(&account(jump(n, accounts)), &account(jump(!n, accounts)), 1);
        let action = Action::Command(bulk(true, (first..first + 1000).map(operation).collect()));
        let number = 1_000_000 + first;
        let (id, payload) = bank.payload(&[(header(SESSION, number, number - 1), action)]);
        let start = Instant::now();
        bank.apply(Some((&id, &payload)));
        elapsed += start.elapsed();
    }
    per(elapsed, TRANSFERS)
}
