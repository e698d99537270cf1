//! Clusters of consensus cores under a random network: messages are lost, delayed, duplicated and reordered, links break,
//! nodes stand still for a while, crash (also all at once) and restart with what they had made durable, die for good, or
//! get a new store, because they lost theirs or while they go on with it.
//!
//! Checked: agreement; gapless delivery; nothing said that was not durable where it has to be, above the durable mark, or
//! beyond the window; payloads durable with what names them; linearizable reads; and progress once the faults end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rabia_bank_messages::bank::{Amount, Command, Operation};
use rabia_bank_messages::batch::{Action, EncodedRequest, Payload, RequestHeader};
use rabia_bank_messages::genesis::{Genesis, Replacement, Replacements};
use rabia_bank_messages::ids::{BatchId, ClusterId, Digest, NodeId, RunId, SessionKey, Slot, StoreId};
use rabia_bank_messages::lineage::{Memory, Secret, log_hash};
use rabia_bank_messages::peer::{Entry, PeerMessage, State, Value, Vote};
use rabia_bank_messages::promise::{Commit, Record, Recovered, Said};
use rabia_bank_rabia::agreement::{Agreement, Effect, Event, Notice};
use rabia_bank_rabia::pool::{Asker, Now, Pool, PoolEffect};
use rabia_bank_rabia::stores::{Standing, Stores};
use rabia_bank_rabia::turns::Owner;

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

const SECRET: [u8; 32] = [7; 32];

/// What a disk keeps: the semantics of the log store, in memory.
#[derive(Clone)]
struct Disk {
    store: StoreId,
    starts: u64,
    reserved: Slot,
    records: BTreeMap<(Slot, u32, bool), Record>,
    payloads: BTreeMap<BatchId, Payload>,
    decisions: BTreeMap<Slot, Value>,
    peers: BTreeMap<(NodeId, StoreId), Memory>,
    promised: u64,
}

impl Disk {
    fn new(store: StoreId) -> Disk {
        Disk {
            store,
            starts: 0,
            reserved: 0,
            records: BTreeMap::new(),
            payloads: BTreeMap::new(),
            decisions: BTreeMap::new(),
            peers: BTreeMap::new(),
            promised: 0,
        }
    }

    /// The stores that the log up to a slot replaced.
    fn replacements(&self, decided: Slot) -> Replacements {
        let mut replacements = Replacements::default();
        for (slot, id) in self.decisions.range(..=decided).filter_map(|(slot, value)| Some((*slot, (*value)?))) {
            if let Some((node, store)) = self.payloads[&id].replacement().unwrap() {
                replacements.add(Replacement { slot, node, store });
            }
        }
        replacements
    }

    fn write(&mut self, commit: &Commit) {
        self.reserved = self.reserved.max(commit.reserved.unwrap_or(0));
        self.payloads.extend(commit.payloads.iter().cloned());
        for record in &commit.records {
            assert!(record.slot < self.reserved, "{record:?} at or above the mark {}", self.reserved);
            if let Said::State(State::One(id)) | Said::Vote(Vote::One(id)) = &record.said {
                assert!(self.payloads.contains_key(id), "{record:?} names a payload that is not durable");
            }
            let key = (record.slot, record.phase, matches!(record.said, Said::Vote(_)));
            let before = self.records.insert(key, *record);
            assert!(before.is_none_or(|b| b.said == record.said), "record {key:?} was overwritten");
        }
        for (slot, value) in &commit.decisions {
            if let Some(id) = value {
                assert!(self.payloads.contains_key(id), "slot {slot} is decided on {id}, whose payload is not durable");
            }
            let before = self.decisions.insert(*slot, *value);
            assert!(before.is_none_or(|b| b == *value), "decision of slot {slot} changed");
            self.records.retain(|(s, ..), _| s != slot);
        }
        self.peers.retain(|key, _| !commit.forget.contains(key));
        self.peers.extend(commit.peers.iter().map(|(node, memory)| ((*node, memory.store), *memory)));
        self.promised = self.promised.max(commit.promised.unwrap_or(0));
    }

    fn recover(&mut self) -> Recovered {
        self.starts += 1;
        let decided = (1..).take_while(|slot| self.decisions.contains_key(slot)).last().unwrap_or(0);
        let records: Vec<Record> = self.records.values().cloned().collect();
        let named: BTreeSet<BatchId> = records
            .iter()
            .filter_map(|record| match record.said {
                Said::State(State::One(id)) | Said::Vote(Vote::One(id)) => Some(id),
                _ => None,
            })
            .collect();
        let payloads = named.iter().map(|id| (*id, self.payloads[id].clone())).collect();
        Recovered {
            store: self.store,
            starts: self.starts,
            reserved: self.reserved,
            records,
            payloads,
            decided,
            sparse: self.decisions.range(decided + 1..).map(|(slot, value)| (*slot, *value)).collect(),
            hashes: vec![self.log_hash(decided)],
            kept: None,
            peers: self.peers.iter().map(|((node, _), memory)| (*node, *memory)).collect(),
            promised: self.promised,
            runs: Vec::new(),
            secret: Secret(SECRET),
        }
    }

    /// The hash of the log up to a slot that is decided, with all before it.
    fn log_hash(&self, slot: Slot) -> Digest {
        (1..=slot).fold(Digest::ZERO, |before, slot| log_hash(before, slot, &self.decisions[&slot]))
    }

    /// Whether this record is durable, or the slot's decision, which takes its place.
    fn has(&self, slot: Slot, phase: u32, said: Said) -> bool {
        let key = (slot, phase, matches!(said, Said::Vote(_)));
        self.decisions.contains_key(&slot) || self.records.get(&key).is_some_and(|record| record.said == said)
    }
}

struct Node {
    id: NodeId,
    disk: Disk,
    writing: Vec<(u64, Commit)>,
    agreement: Agreement,
    pool: Pool,
    /// Counts its starts, with all its stores.
    run: u64,
    up: bool,
    delivered: Slot,
    started: Duration,
    /// Nothing reaches the node until then.
    paused: Duration,
    /// Reads by number: the slot that they must see at least, and the slot that they wait for, once it is known.
    reads: BTreeMap<u64, (Slot, Option<Slot>)>,
}

enum Item {
    Message {
        to: usize,
        from: usize,
        link: u64,
        message: PeerMessage,
    },
    /// To the agreement core, from links and the pool.
    Events {
        node: usize,
        run: u64,
        events: Vec<Event>,
    },
    /// To the pool, from the agreement core.
    Notices {
        node: usize,
        run: u64,
        notices: Vec<Notice>,
    },
    Connect {
        nodes: (usize, usize),
        link: u64,
    },
    Written {
        node: usize,
        run: u64,
    },
    Tick {
        node: usize,
        run: u64,
    },
    Submit {
        node: usize,
    },
    Read {
        node: usize,
    },
    Restart {
        node: usize,
    },
    /// Somebody asks a node for a new store of another, until it is decided.
    Replace {
        node: usize,
        store: StoreId,
    },
    Fault(Fault),
}

/// How long a message between the cores of a node waits: they are driven by actors, so each acts on what the other knew.
const MAILBOX: Duration = Duration::from_micros(20);

/// What goes wrong, beside single messages.
#[derive(Clone, Copy)]
enum Fault {
    /// A node crashes and comes back.
    Crash,
    /// All nodes crash and come back.
    CrashAll,
    /// A node dies for good, if that leaves a quorum.
    Death,
    /// A node stands still, then gets everything at once.
    Pause,
    /// A link breaks, with all that is under way on it, and comes back.
    Break,
    /// A node loses its disk, and gets a new store.
    Loss,
    /// A node gets a new store while it is at work with the old one.
    Exchange,
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
    dead: BTreeSet<usize>,
    /// Nodes that have or get a new store, until it is as far as the old one.
    replacing: BTreeMap<usize, StoreId>,
    /// The stores by all that was delivered anywhere.
    stores: Stores,
    /// By node and node: how often this link came up or broke; it works if that is odd.
    links: BTreeMap<(usize, usize), u64>,
    reads: u64,
}

impl World {
    fn new(seed: u64, members: usize, loss: u64) -> World {
        let genesis = Genesis {
            window: 4,
            owner_history: 4,
            ..Genesis::new(ClusterId([seed as u8; 16]), (1..=members as u8).map(|n| StoreId([n; 16])).collect())
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
            stores: Stores::new(&genesis, &Replacements::default()),
            genesis,
            dead: BTreeSet::new(),
            replacing: BTreeMap::new(),
            links: BTreeMap::new(),
            reads: 0,
        };
        for id in NodeId::all(members) {
            let mut disk = Disk::new(world.genesis.stores[id.index()]);
            let recovered = disk.recover();
            let mut effects = Vec::new();
            let none = Replacements::default();
            let agreement = Agreement::new(world.genesis.clone(), id, &recovered, &none, &mut effects);
            let pool = Pool::new(world.genesis.clone(), id, recovered.starts, 0);
            world.nodes.push(Node {
                id,
                disk,
                writing: Vec::new(),
                agreement,
                pool,
                run: 1,
                up: true,
                delivered: 0,
                started: Duration::ZERO,
                paused: Duration::ZERO,
                reads: BTreeMap::new(),
            });
            world.perform(id.index(), effects);
        }
        for index in 0..members {
            world.start(index);
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

    fn start(&mut self, index: usize) {
        let run = self.nodes[index].run;
        self.at(Duration::from_millis(10), Item::Tick { node: index, run });
        for peer in 0..self.nodes.len() {
            // A node that is told that its store was replaced goes at once.
            if peer != index && self.nodes[peer].up && self.nodes[index].up {
                self.connect(index, peer);
            }
        }
    }

    fn link(&mut self, a: usize, b: usize) -> &mut u64 {
        self.links.entry((a.min(b), a.max(b))).or_default()
    }

    fn connect(&mut self, a: usize, b: usize) {
        let link = self.link(a, b);
        if (*link).is_multiple_of(2) {
            let link = *link;
            if ![(a, b), (b, a)].into_iter().all(|(from, to)| self.may_meet(from, to)) {
                // Who is told that its store was replaced stops.
                self.exchange_if_former(a, b);
                self.exchange_if_former(b, a);
                let after = self.micros(1_000, 100_000);
                return self.at(after, Item::Connect { nodes: (a, b), link });
            }
            *self.link(a, b) += 1;
            for (from, to) in [(a, b), (b, a)] {
                let Node { id, disk, .. } = &self.nodes[from];
                let event = Event::LinkUp(*id, disk.store);
                self.remember(from, to);
                self.tell(to, event);
            }
        }
    }

    /// What a handshake checks. It never refuses the store that made the promises.
    fn may_meet(&self, from: usize, to: usize) -> bool {
        let (Node { id, disk, agreement, .. }, other) = (&self.nodes[from], &self.nodes[to].agreement);
        match other.stores().standing(*id, disk.store) {
            Standing::Current => {
                let heard = other.lineage().remembers(*id, disk.store).map_or(0, |memory| memory.promises);
                let promised = agreement.promised();
                assert!(heard <= promised, "seed {}: {heard} promises heard, {promised} kept", self.seed);
                true
            }
            Standing::Former(by) => !other.is_settled(&by) || agreement.frontier() < by.slot,
            Standing::Unknown => other.is_newcomer() && agreement.joined().is_some(),
        }
    }

    /// Rule 12, as the handshake does it: only of stores that are known as the peer's.
    fn remember(&mut self, from: usize, to: usize) {
        let Node { id, disk, agreement, .. } = &self.nodes[from];
        let (mut run, promises) = ([0; 16], agreement.promised());
        run[..8].copy_from_slice(&disk.starts.to_be_bytes());
        let proof = agreement.lineage().proof(promises);
        let (id, memory) = (*id, Memory { store: disk.store, run: RunId(run), promises, proof });
        let standing = self.nodes[to].agreement.stores().standing(id, memory.store);
        let heard = match standing {
            Standing::Former(by) => !self.nodes[to].agreement.is_settled(&by),
            standing => standing == Standing::Current,
        };
        if heard {
            let mut effects = Vec::new();
            self.nodes[to].agreement.remember_peer(id, memory, &mut effects);
            self.perform(to, effects);
        }
    }

    /// What is under way on the link is lost.
    fn disconnect(&mut self, a: usize, b: usize) {
        let link = self.link(a, b);
        if *link % 2 == 1 {
            *link += 1;
            let (id_a, id_b) = (self.nodes[a].id, self.nodes[b].id);
            self.tell(a, Event::LinkDown(id_b));
            self.tell(b, Event::LinkDown(id_a));
        }
    }

    fn tell(&mut self, node: usize, event: Event) {
        let run = self.nodes[node].run;
        self.at(MAILBOX, Item::Events { node, run, events: vec![event] });
    }

    fn event(&mut self, index: usize, event: Event) {
        if !self.nodes[index].up {
            return;
        }
        let mut effects = Vec::new();
        let now = self.now - self.nodes[index].started;
        self.nodes[index].agreement.handle(now, event, &mut effects);
        self.perform(index, effects);
        self.look_after_stores(index);
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
                Effect::ReadAt { read, slot } => self.read_at(index, read, slot),
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
                    let known = node.disk.decisions.contains_key(&from);
                    let before = if known { node.disk.log_hash(from - 1) } else { Digest::ZERO };
                    let decided = node.agreement.frontier();
                    self.send(index, to.index(), PeerMessage::Entries { before, entries, decided });
                }
                Effect::SendStored { to, id } => {
                    if let Some(payload) = self.nodes[index].disk.payloads.get(&id).cloned() {
                        self.send(index, to.index(), PeerMessage::Batch { id, payload });
                    }
                }
                Effect::Refuse(peer, why) => panic!("{index} of {peer}: {why}"),
                Effect::Warn(_, why) => assert!(why.contains("there is nobody else"), "{why}"),
                Effect::SendHash { to, slot } => {
                    let node = &self.nodes[index];
                    if (1..=slot).all(|slot| node.disk.decisions.contains_key(&slot)) {
                        let hash = node.disk.log_hash(slot);
                        self.send(index, to.index(), PeerMessage::LogHash { slot, hash });
                    }
                }
                Effect::LookUp(slot) => {
                    let disk = &self.nodes[index].disk;
                    let known = (1..=slot).all(|slot| disk.decisions.contains_key(&slot));
                    let hash = known.then(|| disk.log_hash(slot));
                    self.tell(index, Event::LookedUp { slot, hash });
                }
                Effect::GetSnapshot { .. } => panic!("seed {}: logs are never compacted", self.seed),
                Effect::Doubt(_) | Effect::Split { .. } => {
                    panic!("seed {}: node {} doubts its log: {effect:?}", self.seed, self.nodes[index].id);
                }
                Effect::MeetAgain(peer) => {
                    let nodes = (index, peer.index());
                    self.disconnect(nodes.0, nodes.1);
                    let link = *self.link(nodes.0, nodes.1);
                    let after = self.micros(0, 50_000);
                    self.at(after, Item::Connect { nodes, link });
                }
            }
        }
        if !notices.is_empty() {
            let run = self.nodes[index].run;
            self.at(MAILBOX, Item::Notices { node: index, run, notices });
        }
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
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                PoolEffect::Formed(id, payload, _) => events.push(Event::Hold(id, payload)),
                PoolEffect::Propose { slot, value, with_payload } => {
                    events.push(Event::Propose { slot, value, with_payload });
                }
                PoolEffect::Forget(id) => events.push(Event::Forget(id)),
                PoolEffect::Drop(id) => events.push(Event::Drop(id)),
                PoolEffect::Hold(id, payload) => events.push(Event::Hold(id, payload)),
                PoolEffect::Abandon(id) => unreachable!("{id:?} is given up, but there are no snapshots and one clock"),
                PoolEffect::Send(to, message) => {
                    for peer in 0..self.nodes.len() {
                        if peer != index && to.is_none_or(|to| to.index() == peer) {
                            self.send(index, peer, message.clone());
                        }
                    }
                }
            }
        }
        if !events.is_empty() {
            let run = self.nodes[index].run;
            self.at(MAILBOX, Item::Events { node: index, run, events });
        }
    }

    fn start_write(&mut self, index: usize) {
        let took = self.micros(300, 900);
        let run = self.nodes[index].run;
        self.at(took, Item::Written { node: index, run });
    }

    fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        self.check_said(from, &message);
        if let PeerMessage::State { phase: 2.., state: State::One(_), .. } = &message {
            self.coin_slots += 1;
        }
        let link = *self.link(from, to);
        let copies = match self.faults {
            _ if link.is_multiple_of(2) => 0,
            true if self.random.chance(self.loss) => 0,
            true if self.random.chance(self.loss) => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let mut delay = self.micros(50, 150);
            if self.faults && self.random.chance(self.loss) {
                delay += self.micros(100, 30_000);
            }
            self.at(delay, Item::Message { to, from, link, message: message.clone() });
        }
    }

    fn check_said(&self, from: usize, message: &PeerMessage) {
        let Node { disk, agreement, .. } = &self.nodes[from];
        let (slot, durable) = match message {
            PeerMessage::Proposal { slot, .. } | PeerMessage::State { slot, phase: 1, .. } => (*slot, true),
            PeerMessage::State { slot, phase, state } => (*slot, disk.has(*slot, *phase, Said::State(*state))),
            PeerMessage::Vote { slot, phase, vote } => (*slot, disk.has(*slot, *phase, Said::Vote(*vote))),
            _ => return,
        };
        assert!(durable, "seed {}: said before it was durable: {message:?}", self.seed);
        assert!(slot < disk.reserved, "seed {}: the mark is {}: {message:?}", self.seed, disk.reserved);
        let of = self.stores.of(self.nodes[from].id, slot);
        assert_eq!(of, disk.store, "seed {}: another store speaks in this slot: {message:?}", self.seed);
        let end = agreement.frontier() + self.genesis.window;
        assert!(slot <= end, "seed {}: the window ends at {end}: {message:?}", self.seed);
    }

    fn deliver(&mut self, index: usize, slot: Slot, batch: Option<(BatchId, Payload)>) {
        let node = &mut self.nodes[index];
        assert_eq!(slot, node.delivered + 1, "seed {}: node {} delivered out of order", self.seed, node.id);
        node.delivered = slot;
        let value = batch.as_ref().map(|(id, _)| *id);
        let agreed = *self.log.entry(slot).or_insert(value);
        assert_eq!(agreed, value, "seed {}: slot {slot} differs at node {}", self.seed, node.id);
        if let Some((node, store)) = batch.as_ref().and_then(|(_, payload)| payload.replacement().unwrap()) {
            self.stores.add(Replacement { slot, node, store });
        } else {
            for request in batch.iter().flat_map(|(_, payload)| payload.requests::<Command>().unwrap()) {
                self.delivered_requests.insert(request.unwrap().header.number);
            }
        }
        self.nodes[index].reads.retain(|_, (_, at)| at.is_none_or(|at| at > slot));
    }

    /// A read must see every slot that was delivered anywhere before it was asked.
    fn read(&mut self, index: usize) {
        self.reads += 1;
        let must_see = self.log.last_key_value().map_or(0, |(slot, _)| *slot);
        self.nodes[index].reads.insert(self.reads, (must_see, None));
        self.event(index, Event::Read(self.reads));
    }

    fn read_at(&mut self, index: usize, read: u64, slot: Slot) {
        let node = &mut self.nodes[index];
        for (number, (must_see, at)) in node.reads.range_mut(..=read) {
            if at.is_none() {
                assert!(slot >= *must_see, "seed {}: read {number} at {slot} must see {must_see}", self.seed);
                *at = Some(slot);
            }
        }
        let delivered = node.delivered;
        node.reads.retain(|_, (_, at)| at.is_none_or(|at| at > delivered));
    }

    fn submit(&mut self, index: usize) {
        self.submitted += 1;
        let header =
            RequestHeader { session: 1, key: SessionKey([1; 16]), number: self.submitted, acknowledged: 0, token: 0 };
        let operation = Operation::Deposit { account_id: "a".into(), amount: Amount::new(1) };
        let now = self.clocks(index);
        self.nodes[index].pool.submit(
            now,
            Asker { owner: Owner::Host, client: 0, tag: 0 },
            EncodedRequest::new(&header, &Action::Command(Command::One(operation))),
        );
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
        self.nodes[index].reads.clear();
        self.nodes[index].up = false;
        for peer in 0..self.nodes.len() {
            if peer != index {
                self.disconnect(index, peer);
            }
        }
        let after = self.micros(1_000, 200_000);
        self.at(after, Item::Restart { node: index });
    }

    /// The node goes, and comes back with a new store.
    fn exchange(&mut self, index: usize, store: StoreId) {
        if self.nodes[index].up {
            self.crash(index);
        }
        self.nodes[index].disk = Disk::new(store);
    }

    fn exchange_if_former(&mut self, index: usize, at: usize) {
        let Node { id, disk, .. } = &self.nodes[index];
        let former = match self.nodes[at].agreement.stores().standing(*id, disk.store) {
            Standing::Former(by) => self.nodes[at].agreement.is_settled(&by),
            Standing::Current | Standing::Unknown => false,
        };
        if former && let Some(store) = self.replacing.get(&index).copied() {
            self.exchange(index, store);
        }
    }

    fn replace(&mut self, of: usize, store: StoreId) {
        if self.stores.brought(self.nodes[of].id, store).is_some() {
            return;
        }
        let others: Vec<usize> = (0..self.nodes.len()).filter(|node| *node != of && self.nodes[*node].up).collect();
        if !others.is_empty() {
            let at = others[self.random.below(others.len() as u64) as usize];
            let (now, id) = (self.clocks(at), self.nodes[of].id);
            let (batch, payload) = self.nodes[at].pool.replace(now, id, store);
            self.event(at, Event::Hold(batch, payload));
            self.pool(at, Vec::new());
        }
        self.at(Duration::from_millis(200), Item::Replace { node: of, store });
    }

    /// A store that was replaced goes when it has nothing more to say; one that is as far as its member was is a full one.
    fn look_after_stores(&mut self, index: usize) {
        let Node { disk, agreement, up, .. } = &self.nodes[index];
        let Some(store) = self.replacing.get(&index).copied().filter(|_| *up) else { return };
        if disk.store != store && agreement.retired().is_some() {
            self.exchange(index, store);
        } else if disk.store == store && agreement.is_current() && self.is_known_to_all(index, store) {
            self.replacing.remove(&index);
        }
    }

    /// Whether every member that lives has it on its disk that this is a member's store.
    fn is_known_to_all(&self, of: usize, store: StoreId) -> bool {
        let Some(by) = self.stores.brought(self.nodes[of].id, store) else { return false };
        let knows = |node: usize| self.nodes[node].disk.decisions.contains_key(&by.slot);
        (0..self.nodes.len()).filter(|node| !self.dead.contains(node)).all(knows)
    }

    fn fault(&mut self, fault: Fault) {
        let members = self.nodes.len();
        let node = self.random.below(members as u64) as usize;
        match fault {
            Fault::Crash if self.nodes[node].up => self.crash(node),
            Fault::CrashAll => {
                for node in (0..members).filter(|node| self.nodes[*node].up).collect::<Vec<_>>() {
                    self.crash(node);
                }
            }
            Fault::Death if self.nodes[node].up && self.can_spare(node) => {
                self.dead.insert(node);
                self.crash(node);
            }
            Fault::Pause => {
                // Never shortened: what is put off would arrive behind what came later.
                let end = self.now + self.micros(1_000, 400_000);
                self.nodes[node].paused = self.nodes[node].paused.max(end);
            }
            Fault::Break if members > 1 => {
                let other = (node + 1 + self.random.below(members as u64 - 1) as usize) % members;
                self.disconnect(node, other);
                let (link, after) = (*self.link(node, other), self.micros(0, 300_000));
                self.at(after, Item::Connect { nodes: (node, other), link });
            }
            Fault::Loss | Fault::Exchange if self.can_spare(node) => {
                let store = StoreId((u128::from(self.random.next()) << 64 | node as u128).to_be_bytes());
                self.replacing.insert(node, store);
                if matches!(fault, Fault::Loss) {
                    self.exchange(node, store);
                }
                let after = self.micros(0, 100_000);
                self.at(after, Item::Replace { node, store });
            }
            Fault::Crash | Fault::Death | Fault::Break | Fault::Loss | Fault::Exchange => {}
        }
    }

    /// Whether the others are enough without this node.
    fn can_spare(&self, node: usize) -> bool {
        let gone = self.dead.len() + self.replacing.len();
        !self.dead.contains(&node) && !self.replacing.contains_key(&node) && gone < (self.nodes.len() - 1) / 2
    }

    fn restart(&mut self, index: usize) {
        let recovered = self.nodes[index].disk.recover();
        let id = self.nodes[index].id;
        let mut effects = Vec::new();
        let replacements = self.nodes[index].disk.replacements(recovered.decided);
        let agreement = Agreement::new(self.genesis.clone(), id, &recovered, &replacements, &mut effects);
        let incarnation = agreement.stores().incarnation(id, recovered.store, recovered.starts);
        let mut pool = Pool::new(self.genesis.clone(), id, incarnation, recovered.decided);
        for (slot, value) in self.nodes[index].disk.decisions.range(..=recovered.decided) {
            pool.replay(*slot, *value);
        }
        let node = &mut self.nodes[index];
        node.run += 1;
        (node.agreement, node.pool, node.up, node.delivered) = (agreement, pool, true, recovered.decided);
        (node.started, node.paused) = (self.now, Duration::ZERO);
        self.perform(index, effects);
        self.start(index);
    }

    fn step(&mut self) {
        let Some(((at, _), item)) = self.queue.pop_first() else {
            panic!("seed {}: nothing left to happen", self.seed)
        };
        self.now = at;
        let live = |world: &World, node: usize, run: u64| world.nodes[node].up && world.nodes[node].run == run;
        if let Item::Message { to: node, .. }
        | Item::Events { node, .. }
        | Item::Notices { node, .. }
        | Item::Written { node, .. }
        | Item::Tick { node, .. }
        | Item::Submit { node }
        | Item::Read { node } = item
            && self.nodes[node].paused > self.now
        {
            return self.at(self.nodes[node].paused - self.now, item);
        }
        match item {
            // A link does not outlive either end.
            Item::Message { to, from, link, message } if *self.link(from, to) == link => {
                let from = self.nodes[from].id;
                self.event(to, Event::Received(from, message));
            }
            Item::Events { node, run, events } if live(self, node, run) => {
                events.into_iter().for_each(|event| self.event(node, event));
            }
            Item::Notices { node, run, notices } if live(self, node, run) => self.pool(node, notices),
            Item::Connect { nodes: (a, b), link }
                if *self.link(a, b) == link && self.nodes[a].up && self.nodes[b].up =>
            {
                self.connect(a, b);
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
            Item::Read { node } if self.nodes[node].up => self.read(node),
            Item::Fault(fault) if self.faults => self.fault(fault),
            Item::Restart { node } if !self.dead.contains(&node) && !self.nodes[node].up => self.restart(node),
            Item::Replace { node, store } => self.replace(node, store),
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

/// Faults for 2 s of virtual time, then 20 s at most for every live node to deliver the same log to its end, and to answer
/// all reads. Answers with the slots decided and forfeited.
fn run(seed: u64, members: usize, loss: u64, faults: &[(u64, Fault)]) -> (Slot, u64) {
    let mut world = World::new(seed, members, loss);
    for _ in 0..300 {
        let (at, node) = (world.micros(0, 2_000_000), world.random.below(members as u64) as usize);
        world.at(at, Item::Submit { node });
        let (at, node) = (world.micros(0, 2_000_000), world.random.below(members as u64) as usize);
        world.at(at, Item::Read { node });
    }
    for (times, fault) in faults {
        for _ in 0..*times {
            let at = world.micros(0, 2_000_000);
            world.at(at, Item::Fault(*fault));
        }
    }
    world.run_until(Duration::from_secs(2));
    world.faults = false;
    let deadline = Duration::from_secs(22);
    // By now all are back, or soon, with new stores. Whoever is asked must answer.
    world.run_until(Duration::from_millis(2_500));
    let living: Vec<usize> = (0..members).filter(|node| !world.dead.contains(node)).collect();
    while !world.replacing.is_empty() || living.iter().any(|node| !world.nodes[*node].up) {
        assert!(world.now < deadline, "seed {seed}, n {members}: no new stores for {:?}", world.replacing);
        world.run_until(world.now + Duration::from_millis(100));
    }
    let first = world.submitted + 1;
    for node in &living {
        world.submit(*node);
        world.read(*node);
    }
    loop {
        let end = world.now + Duration::from_millis(100);
        world.run_until(end);
        let highest = world.log.last_key_value().map_or(0, |(slot, _)| *slot);
        let done = |node: &Node| node.up && node.delivered == highest && node.reads.is_empty();
        let level = living.iter().all(|node| done(&world.nodes[*node]));
        if level && (first..=world.submitted).all(|number| world.delivered_requests.contains(&number)) {
            break;
        }
        let links = |id: NodeId| -> Vec<usize> {
            let to = |peer: &usize| {
                let pair = (id.index().min(*peer), id.index().max(*peer));
                world.links.get(&pair).is_some_and(|link| link % 2 == 1)
            };
            (0..members).filter(|peer| *peer != id.index()).filter(to).map(|peer| peer + 1).collect()
        };
        let state: Vec<_> = world
            .nodes
            .iter()
            .map(|node| {
                format!(
                    "{} up {} delivered {}, joined {:?}, current {}, linked {:?}, undecided {:?} reads {:?}",
                    node.id,
                    node.up,
                    node.delivered,
                    node.agreement.joined(),
                    node.agreement.is_current(),
                    links(node.id),
                    node.pool.undecided(),
                    node.reads
                )
            })
            .collect();
        assert!(world.now < deadline, "seed {seed}, n {members}: stuck at slot {highest}: {state:#?}");
    }
    if faults.iter().all(|(_, fault)| matches!(fault, Fault::Pause | Fault::Break)) {
        assert_eq!(world.delivered_requests.len() as u64, world.submitted, "seed {seed}: requests were lost");
    }
    // What was decided is forgotten. A batch whose node died may wait for ever.
    for node in living.iter().map(|node| &world.nodes[*node]) {
        let held = node.agreement.payloads() as u64;
        let bound = 4 * world.genesis.window + 10;
        assert!(held <= bound, "seed {seed}: {} still holds {held} payloads", node.id);
    }
    let null = world.log.values().filter(|value| value.is_none()).count() as u64;
    (world.log.len() as Slot, null)
}

#[test]
fn a_quiet_network_forfeits_little() {
    for members in 1..=7 {
        let (slots, null) = run(members as u64, members, 0, &[]);
        assert!(slots > 20, "n {members}: only {slots} slots");
        assert!(null * 5 <= slots, "n {members}: {null} of {slots} slots were forfeited without a fault");
    }
}

#[test]
fn nothing_is_lost_on_a_lossy_network() {
    for seed in 0..12 {
        for members in [2, 3, 4, 5] {
            run(1_000 + seed, members, 5 + seed, &[]);
        }
    }
}

#[test]
fn nothing_is_lost_when_links_break_and_nodes_stand_still() {
    for seed in 0..20 {
        for members in [1, 2, 3, 4, 5] {
            run(3_000 + seed, members, seed % 5, &[(6, Fault::Break), (4, Fault::Pause)]);
        }
    }
}

#[test]
fn nodes_agree_and_go_on_after_crashes() {
    for seed in 0..25 {
        for members in [1, 2, 3, 4, 5] {
            run(2_000 + seed, members, seed % 8, &[(8, Fault::Crash)]);
        }
    }
}

#[test]
fn nodes_agree_and_go_on_when_everything_goes_wrong() {
    for seed in 0..25 {
        for members in [1, 2, 3, 4, 5] {
            run(4_000 + seed, members, seed % 8, &everything());
        }
    }
}

fn everything() -> [(u64, Fault); 7] {
    [
        (4, Fault::Crash),
        (2, Fault::CrashAll),
        (1, Fault::Death),
        (3, Fault::Pause),
        (4, Fault::Break),
        (2, Fault::Loss),
        (1, Fault::Exchange),
    ]
}

#[test]
fn nodes_agree_and_go_on_with_new_stores() {
    for seed in 0..25 {
        for members in [3, 4, 5] {
            run(5_000 + seed, members, seed % 8, &[(4, Fault::Loss), (2, Fault::Exchange), (3, Fault::Crash)]);
        }
    }
}

/// For long searches: `SEEDS=100000..110000 cargo test --workspace --test rabia consensus_random:: -- --ignored`.
#[test]
#[ignore = "a long search, to be run by hand"]
fn many_seeds() {
    let seeds = std::env::var("SEEDS").unwrap_or_else(|_| "100000..101000".into());
    let (first, end) = seeds.split_once("..").expect("SEEDS=first..end");
    for seed in first.parse::<u64>().unwrap()..end.parse().unwrap() {
        let members = 1 + (seed % 5) as usize;
        println!("seed {seed}");
        run(seed, members, seed / 5 % 8, &everything());
    }
}
