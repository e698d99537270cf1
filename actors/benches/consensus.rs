//! What agreement costs without disks and networks: the cores of three nodes decide slot after slot, each message handed
//! over at once, each write durable at once.
#![allow(clippy::unwrap_used, missing_docs)] // a benchmark says what failed by failing

use std::collections::VecDeque;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rabia_bank_actors::consensus::agreement::{Agreement, Effect, Event};
use rabia_bank_actors::consensus::pool::{Asker, Now, Pool, PoolEffect};
use rabia_bank_actors::consensus::turns::Owner;
use rabia_bank_messages::bank::{Amount, Command, Operation};
use rabia_bank_messages::batch::{Action, EncodedRequest, RequestHeader};
use rabia_bank_messages::genesis::{Genesis, Replacements};
use rabia_bank_messages::ids::{ClusterId, NodeId, SessionKey, StoreId};
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_messages::promise::Identity;
use rabia_bank_storage::LogStore;

/// Requests that make a batch.
const REQUESTS: u64 = 20;

struct Node {
    core: Agreement,
    pool: Pool,
    delivered: u64,
}

struct Cluster {
    nodes: Vec<Node>,
    queue: VecDeque<(usize, Event)>,
    now: Duration,
}

impl Cluster {
    fn new() -> Cluster {
        let genesis = Genesis::new(ClusterId([1; 16]), (1..=3).map(|n| StoreId([n; 16])).collect());
        let mut cluster = Cluster { nodes: Vec::new(), queue: VecDeque::new(), now: Duration::from_secs(1) };
        for id in genesis.nodes() {
            let folder = tempfile::tempdir().unwrap();
            let (path, identity) = (folder.path().join("log"), Identity { genesis: genesis.clone(), node: id });
            LogStore::create(&path, &identity, 0).unwrap();
            let (_, recovered) = LogStore::open(&path, &identity, || Ok(0)).unwrap();
            let mut effects = Vec::new();
            let core = Agreement::new(genesis.clone(), id, &recovered, &Replacements::default(), &mut effects);
            let pool = Pool::new(genesis.clone(), id, recovered.starts, recovered.decided);
            cluster.nodes.push(Node { core, pool, delivered: 0 });
            cluster.perform(id.index(), effects);
            let peers = genesis.nodes().filter(|peer| *peer != id);
            let store = |peer: NodeId| genesis.stores[peer.index()];
            cluster.queue.extend(peers.map(|peer| (id.index(), Event::LinkUp(peer, store(peer)))));
        }
        cluster.run();
        cluster
    }

    fn now(&self) -> Now {
        Now { elapsed: self.now, wall: 1_000 }
    }

    fn perform(&mut self, at: usize, effects: Vec<Effect>) {
        let from = NodeId::new(at as u8 + 1).unwrap();
        let (now, mut wishes) = (self.now(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Send(to, message) => self.queue.push_back((to.index(), Event::Received(from, message))),
                Effect::Broadcast(message) => self.broadcast(at, &message),
                Effect::Save(ticket, _) => self.queue.push_back((at, Event::Saved(ticket))),
                Effect::Pool(notice) => self.nodes[at].pool.notice(now, notice, &mut wishes),
                Effect::Deliver(..) => self.nodes[at].delivered += 1,
                other => panic!("{other:?} in a quiet cluster"),
            }
        }
        self.nodes[at].pool.pump(now, &mut wishes);
        self.propose(at, wishes);
    }

    fn broadcast(&mut self, at: usize, message: &PeerMessage) {
        let from = NodeId::new(at as u8 + 1).unwrap();
        let others = (0..3).filter(|to| *to != at);
        self.queue.extend(others.map(|to| (to, Event::Received(from, message.clone()))));
    }

    fn propose(&mut self, at: usize, wishes: Vec<PoolEffect>) {
        for wish in wishes {
            match wish {
                PoolEffect::Formed(id, payload, _) => self.queue.push_back((at, Event::Hold(id, payload))),
                PoolEffect::Propose { slot, value, with_payload } => {
                    self.queue.push_back((at, Event::Propose { slot, value, with_payload }));
                }
                PoolEffect::Forget(id) => self.queue.push_back((at, Event::Forget(id))),
                PoolEffect::Drop(id) => self.queue.push_back((at, Event::Drop(id))),
                PoolEffect::Hold(id, payload) => self.queue.push_back((at, Event::Hold(id, payload))),
                PoolEffect::Abandon(id) => unreachable!("{id:?} is given up, but there are no snapshots and one clock"),
                PoolEffect::Send(_, message) => self.broadcast(at, &message),
            }
        }
    }

    /// Until nobody has anything to do.
    fn run(&mut self) {
        while let Some((at, event)) = self.queue.pop_front() {
            self.now += Duration::from_micros(1);
            let mut effects = Vec::new();
            self.nodes[at].core.handle(self.now, event, &mut effects);
            self.perform(at, effects);
        }
    }

    /// One batch of node 1, until all have delivered it.
    fn decide(&mut self, action: &Action) {
        let header = RequestHeader { session: 1, key: SessionKey([7; 16]), number: 1, acknowledged: 0, token: 0 };
        let (now, delivered, mut wishes) = (self.now(), self.nodes[2].delivered, Vec::new());
        for _ in 0..REQUESTS {
            self.nodes[0].pool.submit(
                now,
                Asker { owner: Owner::Host, client: 0, tag: 0 },
                EncodedRequest::new(&header, action),
            );
        }
        self.nodes[0].pool.pump(now, &mut wishes);
        self.propose(0, wishes);
        self.run();
        assert!(self.nodes.iter().all(|node| node.delivered > delivered), "a slot was not decided");
    }
}

fn decide(c: &mut Criterion) {
    let action = Action::Command(Command::One(Operation::Transfer {
        from_account: "account-0000001".into(),
        to_account: "account-0000002".into(),
        amount: Amount::new(100),
    }));
    let mut cluster = Cluster::new();
    let mut group = c.benchmark_group("consensus");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a slot on three nodes", |b| b.iter(|| cluster.decide(&action)));
}

criterion_group!(benches, decide);
criterion_main!(benches);
