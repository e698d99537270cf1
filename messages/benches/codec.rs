//! What encoding and decoding cost: a client's transfer and its bulk, a batch, and what a node says in a slot.
#![allow(clippy::unwrap_used, missing_docs)] // a benchmark says what failed by failing

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rabia_bank_messages::bank::{Amount, Bulk, Command, Operation};
use rabia_bank_messages::batch::{Action, BatchBuilder, RequestHeader};
use rabia_bank_messages::client::ClientMessage;
use rabia_bank_messages::codec::{Encoding, decode_frame, encode_message, start_frame};
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, SessionKey};
use rabia_bank_messages::peer::{PeerMessage, Vote};

/// Transfers in a bulk, and in a batch.
const MANY: usize = 1_000;

fn transfer(number: usize) -> Operation {
    Operation::Transfer {
        from_account: format!("account-{number:07}").into(),
        to_account: format!("account-{:07}", number + 1).into(),
        amount: Amount::new(100),
    }
}

fn message(command: Command) -> ClientMessage {
    ClientMessage::Command { request: 7, command, acknowledged: 6 }
}

fn clients(c: &mut Criterion) {
    let one = message(Command::One(transfer(1)));
    let bulk = message(Command::Bulk(Bulk { commands: (0..MANY).map(transfer).collect(), atomic: false }));
    for (name, encoding) in [("json", Encoding::Json), ("msgpack", Encoding::MessagePack)] {
        let mut group = c.benchmark_group(format!("client/{name}"));
        group.bench_function("encode a transfer", |b| b.iter(|| encoding.encode(black_box(&one))));
        let bytes = encoding.encode(&one);
        group.bench_function("decode a transfer", |b| b.iter(|| encoding.decode_client(black_box(&bytes)).unwrap()));
        let bytes = encoding.encode(&bulk);
        group.throughput(Throughput::Elements(MANY as u64));
        group.bench_function("decode a bulk", |b| b.iter(|| encoding.decode_client(black_box(&bytes)).unwrap()));
    }
}

fn batches(c: &mut Criterion) {
    let header = RequestHeader { session: 1, key: SessionKey([7; 16]), number: 7, acknowledged: 6, token: 0 };
    let actions: Vec<_> = (0..MANY).map(|number| Action::Command(Command::One(transfer(number)))).collect();
    let build = || {
        let mut builder = BatchBuilder::default();
        actions.iter().for_each(|action| builder.push(&header, action));
        builder.finish(NodeId::new(1).unwrap(), 1, 1, 1)
    };
    let (_, payload) = build();
    let mut group = c.benchmark_group("batch");
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function("build", |b| b.iter(|| black_box(build())));
    group.bench_function("decode", |b| {
        b.iter(|| payload.requests::<Command>().unwrap().map(|r| r.unwrap().header.number).max())
    });
}

fn peers(c: &mut Criterion) {
    let id = BatchId { origin: NodeId::new(2).unwrap(), incarnation: 1, sequence: 9, digest: Digest::of(b"batch") };
    let said = [
        PeerMessage::Promised { count: 7, proof: rabia_bank_messages::ids::Proof([7; 16]) },
        PeerMessage::Vote { slot: 7, phase: 1, vote: Vote::One(id) },
    ];
    let encode = || {
        let mut frame = start_frame();
        said.iter().for_each(|message| encode_message(&mut frame, message));
        frame
    };
    let frame = encode();
    let mut group = c.benchmark_group("peer");
    group.bench_function("encode a vote", |b| b.iter(|| black_box(encode())));
    group.bench_function("decode a vote", |b| b.iter(|| decode_frame(black_box(&frame)).unwrap()));
}

criterion_group!(benches, clients, batches, peers);
criterion_main!(benches);
