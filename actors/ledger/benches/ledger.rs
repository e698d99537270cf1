//! What applying costs: batches of single transfers and of bulks, between a thousand accounts and between ten.
#![allow(clippy::unwrap_used, missing_docs)] // a benchmark says what failed by failing

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rabia_bank_ledger::Ledger;
use rabia_bank_messages::bank::{Amount, Bulk, Command, Operation};
use rabia_bank_messages::batch::{Action, BatchBuilder, Payload, RequestHeader};
use rabia_bank_messages::genesis::SessionLimits;
use rabia_bank_messages::ids::{BatchId, NodeId, SessionKey};

const KEY: SessionKey = SessionKey([7; 16]);
const TRANSFERS: u64 = 1_000;
const ACCOUNTS: u64 = 1_000;

/// A ledger with a session and accounts, and what is needed to make the next batch.
struct Bank {
    ledger: Ledger,
    sequence: u64,
    request: u64,
}

impl Bank {
    fn new() -> Bank {
        let mut bank = Bank { ledger: Ledger::new(1_000_000_000, SessionLimits::default()), sequence: 0, request: 0 };
        let open = (RequestHeader { session: 0, key: KEY, number: 0, acknowledged: 0, token: 0 }, Action::Open);
        let batch = bank.batch([open]);
        bank.apply(&batch);
        let create = |n| Operation::create_account(account(n), Amount::new(1 << 40));
        let commands = (0..ACCOUNTS).map(create).collect();
        let created = bank.request(Command::Bulk(Bulk { commands, atomic: true }));
        let batch = bank.batch([created]);
        bank.apply(&batch);
        bank
    }

    fn request(&mut self, command: Command) -> (RequestHeader, Action) {
        self.request += 1;
        let (number, acknowledged) = (self.request, self.request.saturating_sub(TRANSFERS));
        (RequestHeader { session: 1, key: KEY, number, acknowledged, token: 0 }, Action::Command(command))
    }

    fn batch(&mut self, requests: impl IntoIterator<Item = (RequestHeader, Action)>) -> (BatchId, Payload) {
        let mut builder = BatchBuilder::default();
        requests.into_iter().for_each(|(header, action)| builder.push(&header, &action));
        self.sequence += 1;
        builder.finish(NodeId::new(1).unwrap(), 1, self.sequence, self.sequence)
    }

    fn apply(&mut self, (id, payload): &(BatchId, Payload)) {
        self.ledger.apply(self.ledger.applied() + 1, Some((id, payload)));
    }
}

fn account(number: u64) -> Box<str> {
    format!("account-{number:07}").into()
}

/// Transfers that go round `accounts`.
fn transfers(accounts: u64) -> impl Iterator<Item = Operation> {
    (0..TRANSFERS).map(move |n| Operation::Transfer {
        from_account: account(n * 7 % accounts),
        to_account: account((n * 7 + 1) % accounts),
        amount: Amount::new(1),
    })
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("ledger");
    group.throughput(Throughput::Elements(TRANSFERS));
    for (name, accounts) in [("a thousand accounts", ACCOUNTS), ("ten accounts", 10)] {
        let bank = std::cell::RefCell::new(Bank::new());
        let singles = || {
            let mut bank = bank.borrow_mut();
            let requests: Vec<_> = transfers(accounts).map(|one| bank.request(Command::One(one))).collect();
            bank.batch(requests)
        };
        let apply = |batch: (BatchId, Payload)| bank.borrow_mut().apply(&batch);
        group.bench_function(format!("single transfers, {name}"), |b| {
            b.iter_batched(singles, apply, BatchSize::PerIteration);
        });
        let bulk = || {
            let mut bank = bank.borrow_mut();
            let request = bank.request(Command::Bulk(Bulk { commands: transfers(accounts).collect(), atomic: false }));
            bank.batch([request])
        };
        group.bench_function(format!("a bulk, {name}"), |b| b.iter_batched(bulk, apply, BatchSize::PerIteration));
    }
}

criterion_group! {
    name = benches;
    // Every batch stays in the history: few samples, or the memory is full.
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(1));
    targets = apply
}
criterion_main!(benches);
