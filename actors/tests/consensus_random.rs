//! Clusters of consensus cores under a random network: messages are lost, delayed, duplicated and reordered, nodes crash
//! and restart with what they had made durable. Checked: agreement, gapless delivery, no vote that was not durable, and
//! progress once the faults end.
#![allow(clippy::unwrap_used)] // a test says what failed by failing

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rabia_bank_actors::consensus::agreement::{Agreement, Effect, Event, Notice};
use rabia_bank_actors::consensus::pool::{Now, Pool, PoolEffect};
use rabia_bank_messages::bank::{Amount, Command, Operation};
use rabia_bank_messages::batch::{Action, Payload, RequestHeader};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, ClusterId, NodeId, SessionKey, Slot, StoreId};
use rabia_bank_messages::peer::{Entry, PeerMessage, State, Value, Vote};
use rabia_bank_storage::{Commit, Record, Recovered, Said};

/// A small deterministic generator (splitmix64), so that a seed is a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a disk keeps: the semantics of the log store, in memory.
#[derive(Clone, Default)]
struct Disk {
    starts: u64,
    reserved: Slot,
    records: BTreeMap<(Slot, u32, bool), Record>,
    payloads: BTreeMap<BatchId, Payload>,
    decisions: BTreeMap<Slot, Value>,
    heard: Vec<(NodeId, Slot)>,
}

impl Disk {
    fn write(&mut self, commit: &Commit) {
        self.reserved = self.reserved.max(commit.reserved.unwrap_or(0));
        for record in &commit.records {
            let key = (record.slot, record.phase, matches!(record.said, Said::Vote(_)));
            let before = self.records.insert(key, record.clone());
            assert!(before.is_none_or(|b| b.said == record.said), "record {key:?} was overwritten");
        }
        self.payloads.extend(commit.payloads.iter().cloned());
        for (slot, value) in &commit.decisions {
            if let Some(id) = value {
                assert!(self.payloads.contains_key(id), "slot {slot} is decided on {id}, whose payload is not durable");
            }
            let before = self.decisions.insert(*slot, *value);
            assert!(before.is_none_or(|b| b == *value), "decision of slot {slot} changed");
            self.records.retain(|(s, ..), _| s != slot);
        }
        if !commit.heard.is_empty() {
            self.heard = commit.heard.clone();
        }
    }

    fn recover(&mut self) -> Recovered {
        self.starts += 1;
        let decided = (1..).take_while(|slot| self.decisions.contains_key(slot)).last().unwrap_or(0);
        let records: Vec<Record> = self.records.values().cloned().collect();
        let payloads = self.payloads.iter().map(|(id, payload)| (*id, payload.clone())).collect();
        Recovered {
            starts: self.starts,
            reserved: self.reserved,
            records,
            payloads,
            decided,
            sparse: Vec::new(),
            peers: Vec::new(),
            heard: self.heard.clone(),
        }
    }

    fn voted(&self, slot: Slot, phase: u32, vote: Vote) -> bool {
        self.decisions.contains_key(&slot)
            || self.records.get(&(slot, phase, true)).is_some_and(|record| record.said == Said::Vote(vote))
    }
}

struct Node {
    id: NodeId,
    disk: Disk,
    writing: Vec<(u64, Commit)>,
    agreement: Agreement,
    pool: Pool,
    up: bool,
    delivered: Slot,
    started: Duration,
}

enum Item {
    Message { to: usize, run: u64, from: usize, from_run: u64, message: PeerMessage },
    Written { node: usize, run: u64 },
    Tick { node: usize, run: u64 },
    Submit { node: usize },
    Crash,
    Restart { node: usize },
}

struct World {
    seed: u64,
    random: Random,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Item>,
    sequence: u64,
    genesis: Genesis,
    nodes: Vec<Node>,
    log: BTreeMap<Slot, Value>,
    submitted: u64,
    delivered_requests: BTreeSet<u64>,
    coin_slots: u64,
    faults: bool,
    loss: u64,
}

impl World {
    fn new(seed: u64, members: usize, loss: u64) -> World {
        let genesis = Genesis {
            window: 4,
            owner_history: 4,
            ..Genesis::new(ClusterId([seed as u8; 16]), vec![StoreId([7; 16]); members])
        };
        let mut world = World {
            seed,
            random: Random(seed),
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            nodes: Vec::new(),
            log: BTreeMap::new(),
            submitted: 0,
            delivered_requests: BTreeSet::new(),
            coin_slots: 0,
            faults: true,
            loss,
            genesis,
        };
        for id in NodeId::all(members) {
            let mut disk = Disk::default();
            let recovered = disk.recover();
            let mut effects = Vec::new();
            let agreement = Agreement::new(world.genesis.clone(), id, &recovered, &mut effects);
            let pool = Pool::new(world.genesis.clone(), id, recovered.starts, 0);
            world.nodes.push(Node {
                id,
                disk,
                writing: Vec::new(),
                agreement,
                pool,
                up: true,
                delivered: 0,
                started: Duration::ZERO,
            });
            world.perform(id.index(), effects);
        }
        for index in 0..members {
            world.start_links(index);
        }
        world
    }

    fn at(&mut self, after: Duration, item: Item) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), item);
    }

    fn micros(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(low + self.random.below(high - low))
    }

    fn start_links(&mut self, index: usize) {
        let run = self.nodes[index].disk.starts;
        self.at(Duration::from_millis(10), Item::Tick { node: index, run });
        for peer in 0..self.nodes.len() {
            if peer != index && self.nodes[peer].up {
                let (a, b) = (self.nodes[index].id, self.nodes[peer].id);
                self.event(peer, Event::LinkDown(a));
                self.event(peer, Event::LinkUp(a));
                self.event(index, Event::LinkUp(b));
            }
        }
    }

    fn event(&mut self, index: usize, event: Event) {
        let mut effects = Vec::new();
        let now = self.now - self.nodes[index].started;
        self.nodes[index].agreement.handle(now, event, &mut effects);
        self.perform(index, effects);
    }

    fn perform(&mut self, index: usize, effects: Vec<Effect>) {
        let mut notices = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(to, message) => self.send(index, to.index(), message),
                Effect::Broadcast(message) => {
                    for to in 0..self.nodes.len() {
                        if to != index {
                            self.send(index, to, message.clone());
                        }
                    }
                }
                Effect::Save(ticket, commit) => {
                    self.nodes[index].writing.push((ticket, commit));
                    if self.nodes[index].writing.len() == 1 {
                        self.start_write(index);
                    }
                }
                Effect::Deliver(slot, batch) => self.deliver(index, slot, batch),
                Effect::Pool(notice) => notices.push(notice),
                Effect::ReadAt { slot, .. } => assert!(slot >= 1, "a read at {slot}"),
                Effect::SendEntries { to, from } => {
                    let node = &self.nodes[index];
                    let entries = (from..)
                        .map_while(|slot| node.disk.decisions.get(&slot).map(|value| (slot, *value)))
                        .take(20)
                        .map(|(slot, value)| Entry {
                            slot,
                            batch: value.map(|id| (id, node.disk.payloads[&id].clone())),
                        })
                        .collect();
                    let decided = node.agreement.frontier();
                    self.send(index, to.index(), PeerMessage::Entries { entries, decided });
                }
                Effect::SendStored { to, id } => {
                    if let Some(payload) = self.nodes[index].disk.payloads.get(&id).cloned() {
                        self.send(index, to.index(), PeerMessage::Batch { id, payload });
                    }
                }
            }
        }
        self.pool(index, notices);
    }

    fn clocks(&self, index: usize) -> Now {
        Now { elapsed: self.now - self.nodes[index].started, wall: self.now.as_millis() as u64 }
    }

    fn pool(&mut self, index: usize, notices: Vec<Notice>) {
        let now = self.clocks(index);
        let mut effects = Vec::new();
        for notice in notices {
            self.nodes[index].pool.notice(now, notice, &mut effects);
        }
        self.nodes[index].pool.pump(now, &mut effects);
        for effect in effects {
            match effect {
                PoolEffect::Formed(id, payload) => self.event(index, Event::Hold(id, payload)),
                PoolEffect::Propose { slot, value, with_payload } => {
                    self.event(index, Event::Propose { slot, value, with_payload });
                }
                PoolEffect::Send(to, message) => {
                    for peer in 0..self.nodes.len() {
                        if peer != index && to.is_none_or(|to| to.index() == peer) {
                            self.send(index, peer, message.clone());
                        }
                    }
                }
            }
        }
    }

    fn start_write(&mut self, index: usize) {
        let took = self.micros(300, 900);
        let run = self.nodes[index].disk.starts;
        self.at(took, Item::Written { node: index, run });
    }

    fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        if let PeerMessage::Vote { slot, phase, vote } = &message {
            let disk = &self.nodes[from].disk;
            assert!(disk.voted(*slot, *phase, *vote), "seed {}: a vote was sent that is not durable", self.seed);
        }
        if let PeerMessage::State { phase: 2.., state: State::One(_), .. } = &message {
            self.coin_slots += 1;
        }
        let copies = match self.faults {
            true if self.random.chance(self.loss) => 0,
            true if self.random.chance(self.loss) => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let mut delay = self.micros(50, 150);
            if self.faults && self.random.chance(self.loss) {
                delay += self.micros(100, 30_000);
            }
            let (run, from_run) = (self.nodes[to].disk.starts, self.nodes[from].disk.starts);
            self.at(delay, Item::Message { to, run, from, from_run, message: message.clone() });
        }
    }

    fn deliver(&mut self, index: usize, slot: Slot, batch: Option<(BatchId, Payload)>) {
        let node = &mut self.nodes[index];
        assert_eq!(slot, node.delivered + 1, "seed {}: node {} delivered out of order", self.seed, node.id);
        node.delivered = slot;
        let value = batch.as_ref().map(|(id, _)| *id);
        let agreed = *self.log.entry(slot).or_insert(value);
        assert_eq!(agreed, value, "seed {}: slot {slot} differs at node {}", self.seed, node.id);
        for request in batch.iter().flat_map(|(_, payload)| payload.requests().unwrap()) {
            self.delivered_requests.insert(request.unwrap().header.number);
        }
    }

    fn submit(&mut self, index: usize) {
        self.submitted += 1;
        let header = RequestHeader { session: 1, key: SessionKey([1; 16]), number: self.submitted, acknowledged: 0 };
        let operation = Operation::Deposit { account_id: "a".into(), amount: Amount::new(1) };
        let (now, mut effects) = (self.clocks(index), Vec::new());
        self.nodes[index].pool.submit(now, &header, &Action::Command(Command::One(operation)), &mut effects);
        assert!(effects.is_empty(), "one request does not fill a batch");
        self.pool(index, Vec::new());
    }

    fn crash(&mut self, index: usize) {
        // What is being written when it dies may be there afterwards, as a whole or not at all.
        if let Some((_, commit)) = self.nodes[index].writing.first().cloned()
            && self.random.chance(50)
        {
            self.nodes[index].disk.write(&commit);
        }
        self.nodes[index].writing.clear();
        self.nodes[index].up = false;
        let id = self.nodes[index].id;
        for peer in 0..self.nodes.len() {
            if peer != index && self.nodes[peer].up {
                self.event(peer, Event::LinkDown(id));
            }
        }
        let after = self.micros(1_000, 200_000);
        self.at(after, Item::Restart { node: index });
    }

    fn restart(&mut self, index: usize) {
        let recovered = self.nodes[index].disk.recover();
        let id = self.nodes[index].id;
        let mut effects = Vec::new();
        let agreement = Agreement::new(self.genesis.clone(), id, &recovered, &mut effects);
        let mut pool = Pool::new(self.genesis.clone(), id, recovered.starts, recovered.decided);
        for (slot, value) in self.nodes[index].disk.decisions.range(..=recovered.decided) {
            pool.replay(*slot, *value);
        }
        let node = &mut self.nodes[index];
        (node.agreement, node.pool, node.up, node.delivered) = (agreement, pool, true, recovered.decided);
        node.started = self.now;
        self.perform(index, effects);
        self.start_links(index);
    }

    fn step(&mut self) {
        let Some(((at, _), item)) = self.queue.pop_first() else {
            panic!("seed {}: nothing left to happen", self.seed)
        };
        self.now = at;
        let live = |world: &World, node: usize, run: u64| world.nodes[node].up && world.nodes[node].disk.starts == run;
        match item {
            Item::Message { to, run, from, from_run, message } => {
                // A link does not outlive either end.
                if live(self, to, run) && self.nodes[from].disk.starts == from_run {
                    let from = self.nodes[from].id;
                    self.event(to, Event::Received(from, message));
                }
            }
            Item::Written { node, run } if live(self, node, run) => {
                let batch = std::mem::take(&mut self.nodes[node].writing);
                let last = batch.last().map_or(0, |(ticket, _)| *ticket);
                for (_, commit) in &batch {
                    self.nodes[node].disk.write(commit);
                }
                self.event(node, Event::Saved(last));
                if !self.nodes[node].writing.is_empty() {
                    self.start_write(node);
                }
            }
            Item::Tick { node, run } if live(self, node, run) => {
                self.event(node, Event::Tick);
                self.pool(node, Vec::new());
                self.at(Duration::from_millis(10), Item::Tick { node, run });
            }
            Item::Submit { node } if self.nodes[node].up => self.submit(node),
            Item::Crash if self.faults => {
                let node = self.random.below(self.nodes.len() as u64) as usize;
                if self.nodes[node].up {
                    self.crash(node);
                }
            }
            Item::Restart { node } => self.restart(node),
            _ => {}
        }
    }

    fn run_until(&mut self, end: Duration) {
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= end) {
            self.step();
        }
        self.now = end;
    }
}

/// Faults for 2 s of virtual time, then 20 s at most for every live node to deliver the same log to its end.
fn run(seed: u64, members: usize, loss: u64, crashes: u64) -> (Slot, u64) {
    let mut world = World::new(seed, members, loss);
    for _ in 0..300 {
        let (at, node) = (world.micros(0, 2_000_000), world.random.below(members as u64) as usize);
        world.at(at, Item::Submit { node });
    }
    for _ in 0..crashes {
        let at = world.micros(0, 2_000_000);
        world.at(at, Item::Crash);
    }
    world.run_until(Duration::from_secs(2));
    world.faults = false;
    let deadline = Duration::from_secs(22);
    // Whoever is asked now must be answered.
    let first = world.submitted + 1;
    for node in 0..members {
        world.at(Duration::from_millis(500), Item::Submit { node });
    }
    loop {
        let end = world.now + Duration::from_millis(100);
        world.run_until(end);
        let highest = world.log.last_key_value().map_or(0, |(slot, _)| *slot);
        let level = world.nodes.iter().all(|node| node.up && node.delivered == highest);
        let asked = first..first + members as u64;
        if level && world.submitted + 1 == asked.end && asked.clone().all(|n| world.delivered_requests.contains(&n)) {
            break;
        }
        let state: Vec<_> = world
            .nodes
            .iter()
            .map(|node| {
                format!("{} up {} delivered {} undecided {:?}", node.id, node.up, node.delivered, node.pool.undecided())
            })
            .collect();
        assert!(world.now < deadline, "seed {seed}, n {members}: stuck at slot {highest}: {state:#?}");
    }
    if crashes == 0 {
        assert_eq!(world.delivered_requests.len() as u64, world.submitted, "seed {seed}: requests were lost");
    }
    let null = world.log.values().filter(|value| value.is_none()).count() as u64;
    (world.log.len() as Slot, null)
}

#[test]
fn a_quiet_network_forfeits_little() {
    for members in 1..=7 {
        let (slots, null) = run(members as u64, members, 0, 0);
        assert!(slots > 20, "n {members}: only {slots} slots");
        assert!(null * 5 <= slots, "n {members}: {null} of {slots} slots were forfeited without a fault");
    }
}

#[test]
fn nothing_is_lost_on_a_lossy_network() {
    for seed in 0..12 {
        for members in [2, 3, 4, 5] {
            run(1_000 + seed, members, 5 + seed, 0);
        }
    }
}

#[test]
fn nodes_agree_and_go_on_after_crashes() {
    for seed in 0..25 {
        for members in [1, 2, 3, 4, 5] {
            run(2_000 + seed, members, seed % 8, 8);
        }
    }
}
