//! What a durable commit costs: the votes of a few slots with their payloads and the decisions of those before, next to a
//! bare commit of the library below.
#![allow(clippy::unwrap_used, missing_docs)] // a benchmark says what failed by failing

use criterion::{Criterion, criterion_group, criterion_main};
use rabia_bank_messages::batch::{BatchBuilder, Payload};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, ClusterId, Digest, NodeId, Proof, RunId, StoreId};
use rabia_bank_messages::lineage::Memory;
use rabia_bank_messages::peer::Vote;
use rabia_bank_messages::promise::{Commit, Identity, Record, Said};
use rabia_bank_storage::LogStore;

/// Commits of the bare library in one sample.
const BARE: usize = 20;

/// A batch of this size, in bytes.
fn batch(sequence: u64, size: usize) -> (BatchId, Payload) {
    let (id, payload) = BatchBuilder::default().finish(NodeId::new(1).unwrap(), 1, sequence, sequence);
    // The store does not look into payloads, only at their digests.
    let mut bytes = payload.bytes().to_vec();
    bytes.resize(size, sequence as u8);
    (BatchId { digest: Digest::of(&bytes), ..id }, Payload::new(bytes))
}

fn commits(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut group = c.benchmark_group("commit");
    group.bench_function("bare", |b| {
        b.iter_custom(|count| {
            let took = rabia_bank_storage::probe(folder.path(), BARE).unwrap();
            took.iter().sum::<std::time::Duration>() / BARE as u32 * count as u32
        });
    });
    for (slots, size) in [(1, 200), (1, 2_000), (3, 2_000), (1, 60_000)] {
        let path = folder.path().join(format!("{slots}-{size}"));
        let genesis = Genesis::new(ClusterId([9; 16]), (1..=3).map(|n| StoreId([n; 16])).collect());
        let identity = Identity { genesis, node: NodeId::new(1).unwrap() };
        LogStore::create(&path, &identity, 0).unwrap();
        let (mut store, _) = LogStore::open(&path, &identity, || Ok(0)).unwrap();
        store.commit(&Commit { reserved: Some(u64::MAX), ..Commit::default() }).unwrap();
        let (mut slot, mut decisions) = (0, Vec::new());
        group.bench_function(format!("votes of {slots} with {size} bytes each"), |b| {
            b.iter(|| {
                let mut commit = Commit { decisions: std::mem::take(&mut decisions), ..Commit::default() };
                for _ in 0..slots {
                    slot += 1;
                    let (id, payload) = batch(slot, size);
                    commit.records.push(Record { slot, phase: 1, said: Said::Vote(Vote::One(id)) });
                    commit.payloads.push((id, payload));
                    decisions.push((slot, Some(id)));
                }
                let memory = |node: NodeId| {
                    let (store, run) = (StoreId([node.get(); 16]), RunId([1; 16]));
                    (node, Memory { store, run, promises: slot, proof: Proof([0; 16]) })
                };
                commit.peers = NodeId::all(2).map(memory).collect();
                commit.promised = Some(slot);
                store.commit(&commit).unwrap();
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = commits
}
criterion_main!(benches);
