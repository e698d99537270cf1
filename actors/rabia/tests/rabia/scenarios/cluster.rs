//! A cluster of consensus cores, driven step by step. Everything that happens is noted in words.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use rabia_bank_messages::bank::Command;
use rabia_bank_messages::batch::{Action, BatchBuilder, EncodedRequest, Payload, RequestHeader};
use rabia_bank_messages::genesis::{Genesis, Replacements};
use rabia_bank_messages::ids::{BatchId, ClusterId, Digest, NodeId, Phase, SessionKey, Slot, StoreId};
use rabia_bank_messages::peer::{PeerMessage, State, Value, Vote};
use rabia_bank_messages::promise::{Commit, Record, Said};
use rabia_bank_rabia::agreement::{Agreement, Effect, Event, Notice, Ticket};
use rabia_bank_rabia::coin::coin;
use rabia_bank_rabia::pool::{Asker, Now, Pool, PoolEffect};
use rabia_bank_rabia::turns::Owner;

use super::disk::Disk;

/// What a running node has beside its disk.
struct Running {
    agreement: Agreement,
    pool: Option<Pool>,
    started: Duration,
    writing: VecDeque<(Ticket, Commit)>,
}

struct Node {
    id: NodeId,
    disk: Disk,
    running: Option<Running>,
}

/// The cluster.
pub struct Cluster {
    genesis: Genesis,
    pools: bool,
    now: Duration,
    nodes: Vec<Node>,
    /// By sender and receiver: what is under way.
    links: BTreeMap<(u8, u8), VecDeque<PeerMessage>>,
    /// Pairs that are linked, the lower number first …
    linked: BTreeSet<(u8, u8)>,
    /// … and pairs that can't be.
    cut: BTreeSet<(u8, u8)>,
    /// Messages that arrive are told even if nothing comes of them.
    every_arrival: bool,
    names: BTreeMap<BatchId, String>,
    batches: BTreeMap<String, (BatchId, Payload)>,
    requests: u64,
    notes: String,
}

impl Cluster {
    pub fn new(members: usize, window: u64, id: u8, pools: bool) -> Cluster {
        let stores = (1..=members as u8).map(|node| StoreId([node; 16])).collect();
        let genesis = Genesis { window, owner_history: 2, ..Genesis::new(ClusterId([id; 16]), stores) };
        let nodes = genesis.nodes().map(|id| Node { id, disk: Disk::new(), running: None });
        let mut cluster = Cluster {
            pools,
            now: Duration::ZERO,
            nodes: nodes.collect(),
            links: BTreeMap::new(),
            linked: BTreeSet::new(),
            cut: BTreeSet::new(),
            every_arrival: true,
            names: BTreeMap::new(),
            batches: BTreeMap::new(),
            requests: 0,
            notes: String::new(),
            genesis,
        };
        cluster.members().for_each(|node| cluster.start(node));
        cluster.run();
        // A new cluster marks its first slots. That is the same in all scripts.
        cluster.notes.clear();
        cluster
    }

    /// What happened since the last call.
    pub fn notes(&mut self) -> String {
        std::mem::take(&mut self.notes)
    }

    fn members(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.nodes.len() as u8
    }

    fn node(&mut self, node: u8) -> &mut Node {
        &mut self.nodes[usize::from(node) - 1]
    }

    fn is_up(&self, node: u8) -> bool {
        self.nodes[usize::from(node) - 1].running.is_some()
    }

    fn is_linked(&self, a: u8, b: u8) -> bool {
        self.linked.contains(&pair(a, b))
    }

    // ----- what a script does -----

    /// A batch that somebody will propose.
    pub fn batch(&mut self, name: &str, origin: u8) {
        let sequence = self.batches.len() as u64 + 1;
        let (id, payload) = BatchBuilder::default().finish(self.node(origin).id, 1, sequence, sequence);
        self.names.insert(id, name.into());
        self.batches.insert(name.into(), (id, payload));
    }

    pub fn hold(&mut self, node: u8, name: &str) {
        let (id, payload) = self.batches[name].clone();
        self.event(node, Event::Hold(id, payload));
    }

    pub fn propose(&mut self, node: u8, slot: Slot, value: &str, with_payload: bool) {
        let value = self.value(value);
        self.event(node, Event::Propose { slot, value, with_payload });
    }

    /// A client's request, for the pool of a node.
    pub fn request(&mut self, node: u8) {
        self.requests += 1;
        let number = self.requests;
        let header = RequestHeader { session: 1, key: SessionKey([1; 16]), number, acknowledged: 0, token: 0 };
        let now = self.clocks(node);
        let request = EncodedRequest::new(&header, &Action::<Command>::Close);
        self.pool(node).submit(now, Asker { owner: Owner::Host, client: 0, tag: 0 }, request);
        self.pump(node, Vec::new(), Vec::new());
    }

    /// Lets a node hear what somebody did not say, or says out of turn.
    pub fn hear(&mut self, node: u8, from: u8, words: &[String]) {
        let message = self.parse(words);
        self.arrive(from, node, message);
    }

    /// Delivers what is under way on these links, and what is said upon it on them, oldest first.
    pub fn deliver(&mut self, from: Option<u8>, to: Option<u8>, most: usize) {
        let on = |link: &(u8, u8)| from.is_none_or(|node| node == link.0) && to.is_none_or(|node| node == link.1);
        let mut delivered = 0;
        while delivered < most {
            let waiting = self.links.iter().find(|(link, queue)| on(link) && !queue.is_empty());
            let Some((&(from, to), _)) = waiting else { break };
            let Some(message) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { break };
            delivered += usize::from(!is_small_talk(&message));
            self.arrive(from, to, message);
        }
    }

    /// Loses what is under way on these links.
    pub fn lose(&mut self, from: Option<u8>, to: Option<u8>) {
        let on = |link: &(u8, u8)| from.is_none_or(|node| node == link.0) && to.is_none_or(|node| node == link.1);
        let links: Vec<_> = self.links.keys().copied().filter(on).collect();
        for (from, to) in links {
            for message in self.links.remove(&(from, to)).into_iter().flatten().filter(|m| !is_small_talk(m)) {
                let words = self.words(&message);
                self.note(format!("lost {from}→{to}: {words}"));
            }
        }
    }

    /// Makes durable what nodes write.
    pub fn sync(&mut self, node: Option<u8>) {
        for node in self.members().filter(|member| node.is_none_or(|node| node == *member)) {
            while let Some((ticket, commit)) = self.node(node).running.as_mut().and_then(|run| run.writing.pop_front())
            {
                self.node(node).disk.write(&commit);
                self.event(node, Event::Saved(ticket));
            }
        }
    }

    /// Delivers and syncs until nothing is left to do. Tells only the messages that something comes of.
    pub fn run(&mut self) {
        self.every_arrival = false;
        while self.links.values().any(|queue| !queue.is_empty())
            || self.nodes.iter().any(|node| node.running.as_ref().is_some_and(|run| !run.writing.is_empty()))
        {
            self.deliver(None, None, usize::MAX);
            self.sync(None);
        }
        self.every_arrival = true;
    }

    /// The node is gone, with what is under way from and to it. What it was writing is on its disk or not.
    pub fn crash(&mut self, node: u8, written: bool) {
        let Some(running) = self.node(node).running.take() else { return };
        if written {
            running.writing.iter().for_each(|(_, commit)| self.node(node).disk.write(commit));
        }
        self.lose(Some(node), None);
        self.lose(None, Some(node));
        let peer = self.node(node).id;
        for other in self.members().filter(|other| *other != node) {
            if self.linked.remove(&pair(node, other)) {
                self.event(other, Event::LinkDown(peer));
            }
        }
    }

    pub fn start(&mut self, node: u8) {
        let (genesis, id) = (self.genesis.clone(), self.node(node).id);
        let store = genesis.stores[id.index()];
        let recovered = self.node(node).disk.recover(store);
        let mut effects = Vec::new();
        let agreement = Agreement::new(genesis.clone(), id, &recovered, &Replacements::default(), &mut effects);
        let pool = self.pools.then(|| {
            let mut pool = Pool::new(genesis, id, recovered.starts, recovered.decided);
            for (slot, value) in &self.node(node).disk.decisions {
                pool.replay(*slot, *value);
            }
            pool
        });
        let started = self.now;
        self.node(node).running = Some(Running { agreement, pool, started, writing: VecDeque::new() });
        self.perform(node, effects);
        for other in self.members().filter(|other| *other != node) {
            self.meet(node, other);
        }
    }

    pub fn cut(&mut self, a: u8, b: u8) {
        self.lose(Some(a), Some(b));
        self.lose(Some(b), Some(a));
        let (id_a, id_b) = (self.node(a).id, self.node(b).id);
        self.cut.insert(pair(a, b));
        self.linked.remove(&pair(a, b));
        self.event(a, Event::LinkDown(id_b));
        self.event(b, Event::LinkDown(id_a));
    }

    pub fn heal(&mut self, a: u8, b: u8) {
        self.cut.remove(&pair(a, b));
        self.meet(a, b);
    }

    /// Time passes: all nodes notice.
    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        for node in self.members() {
            self.event(node, Event::Tick);
        }
    }

    pub fn read(&mut self, node: u8) {
        self.requests += 1;
        let read = self.requests;
        self.event(node, Event::Read(read));
    }

    /// A snapshot of the state after this slot came, and is durable.
    pub fn install(&mut self, node: u8, slot: Slot) {
        let (hash, replacements) = (self.log_hash(slot), Replacements::default());
        self.event(node, Event::Installed { slot, hash, decisions: Vec::new(), replacements });
    }

    /// On which side the coin falls.
    pub fn coin(&mut self, slot: Slot, phase: Phase) {
        let side = if coin(self.genesis.cluster, slot, phase) { "heads" } else { "tails" };
        self.note(format!("the coin of {slot}.{phase} is {side}"));
    }

    /// What is on the node's disk.
    pub fn disk(&mut self, node: u8) {
        let disk = &self.node(node).disk;
        let (reserved, base) = (disk.reserved, disk.base);
        let records: Vec<Record> = disk.records.values().copied().collect();
        let decisions: Vec<_> = disk.decisions.iter().map(|(slot, value)| (*slot, *value)).collect();
        let payloads: Vec<BatchId> = disk.payloads.keys().copied().collect();
        self.note(format!("nothing said at or above slot {reserved}"));
        if base > 0 {
            self.note(format!("a snapshot at slot {base}"));
        }
        for record in records {
            let words = self.record(&record);
            self.note(words);
        }
        for (slot, value) in decisions {
            let value = self.name(value);
            self.note(format!("decision {slot} {value}"));
        }
        for id in payloads {
            let name = self.name(Some(id));
            self.note(format!("payload of {name}"));
        }
    }

    /// How far the nodes are.
    pub fn frontiers(&mut self) {
        for node in self.members() {
            let words = match &self.node(node).running {
                Some(running) => {
                    format!("all decided up to slot {}", running.agreement.frontier())
                }
                None => "down".into(),
            };
            self.note(format!("{node}: {words}"));
        }
    }

    // ----- what comes of it -----

    fn meet(&mut self, a: u8, b: u8) {
        if self.is_up(a) && self.is_up(b) && !self.cut.contains(&pair(a, b)) {
            self.linked.insert(pair(a, b));
            let (id_a, id_b) = (self.node(a).id, self.node(b).id);
            let store = |id: NodeId| self.genesis.stores[id.index()];
            let (store_a, store_b) = (store(id_a), store(id_b));
            self.event(a, Event::LinkUp(id_b, store_b));
            self.event(b, Event::LinkUp(id_a, store_a));
        }
    }

    fn arrive(&mut self, from: u8, to: u8, message: PeerMessage) {
        let before = self.notes.len();
        if !is_small_talk(&message) {
            let words = self.words(&message);
            self.note(format!("{from}→{to}: {words}"));
        }
        let after = self.notes.len();
        let from = self.node(from).id;
        self.event(to, Event::Received(from, message));
        if self.notes.len() == after && !self.every_arrival {
            self.notes.truncate(before);
        }
    }

    fn event(&mut self, node: u8, event: Event) {
        let now = self.now;
        let Some(running) = &mut self.node(node).running else { return };
        let mut effects = Vec::new();
        running.agreement.handle(now - running.started, event, &mut effects);
        self.perform(node, effects);
    }

    fn perform(&mut self, node: u8, effects: Vec<Effect>) {
        let mut notices = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(to, message) => self.send(node, Some(to), message),
                Effect::Broadcast(message) => self.send(node, None, message),
                Effect::Save(ticket, commit) => self.write(node, ticket, commit),
                Effect::Deliver(slot, batch) => {
                    let value = self.name(batch.map(|(id, _)| id));
                    self.note(format!("  {node} applies {slot} {value}"));
                }
                Effect::Pool(notice) => notices.push(notice),
                Effect::ReadAt { slot, .. } => self.note(format!("  {node} reads once slot {slot} is applied")),
                Effect::SendEntries { to, from } => {
                    let entries = self.node(node).disk.entries(from);
                    let before = if entries.is_empty() { Digest::ZERO } else { self.log_hash(from - 1) };
                    let decided = self.frontier(node);
                    self.send(node, Some(to), PeerMessage::Entries { before, entries, decided });
                }
                Effect::SendStored { to, id } => {
                    if let Some(payload) = self.node(node).disk.payloads.get(&id).cloned() {
                        self.send(node, Some(to), PeerMessage::Batch { id, payload });
                    }
                }
                Effect::Refuse(peer, why) => self.note(format!("  {node} breaks the link to {peer}: {why}")),
                Effect::Warn(peer, why) => self.note(format!("  {node} warns of {peer}: {why}")),
                Effect::SendHash { .. } | Effect::LookUp(_) | Effect::GetSnapshot { .. } => {}
                Effect::Doubt(begins) => {
                    let words = if begins { "doubts its log" } else { "knows that a majority has its log" };
                    self.note(format!("  {node} {words}"));
                }
                Effect::Split { .. } => self.note(format!("  {node} is alone with its log")),
                Effect::MeetAgain(peer) => unreachable!("the store of node {peer} was not replaced"),
            }
        }
        if self.pools && self.is_up(node) {
            self.pump(node, notices, Vec::new());
        }
    }

    /// The hash of the log of those that have it up to this slot, on disk or before.
    fn log_hash(&self, slot: Slot) -> Digest {
        let whole = |node: &&Node| (1..=slot).all(|slot| node.disk.decisions.contains_key(&slot));
        let disk = self.nodes.iter().find(whole).map(|node| &node.disk);
        disk.map_or(Digest::ZERO, |disk| disk.log_hash(slot))
    }

    fn frontier(&mut self, node: u8) -> Slot {
        self.node(node).running.as_ref().map_or(0, |running| running.agreement.frontier())
    }

    fn pump(&mut self, node: u8, notices: Vec<Notice>, mut effects: Vec<PoolEffect>) {
        let now = self.clocks(node);
        let pool = self.pool(node);
        for notice in notices {
            pool.notice(now, notice, &mut effects);
        }
        pool.pump(now, &mut effects);
        for effect in effects {
            match effect {
                PoolEffect::Formed(id, payload, _) => {
                    let name = format!("{}#{}", id.origin, id.sequence);
                    self.note(format!("  {node} forms {name}"));
                    self.names.insert(id, name);
                    self.event(node, Event::Hold(id, payload));
                }
                PoolEffect::Propose { slot, value, with_payload } => {
                    self.event(node, Event::Propose { slot, value, with_payload });
                }
                PoolEffect::Forget(id) => self.event(node, Event::Forget(id)),
                PoolEffect::Drop(id) => self.event(node, Event::Drop(id)),
                PoolEffect::Hold(id, payload) => self.event(node, Event::Hold(id, payload)),
                PoolEffect::Abandon(id) => {
                    let name = self.name(Some(id));
                    self.note(format!("  {node} gives up {name}"));
                }
                // All clocks show the same here.
                PoolEffect::Send(_, PeerMessage::Clock { .. }) => {}
                PoolEffect::Send(to, message) => self.send(node, to, message),
            }
        }
    }

    fn pool(&mut self, node: u8) -> &mut Pool {
        let running = self.node(node).running.as_mut().expect("the node is down");
        running.pool.as_mut().expect("this cluster has no pools")
    }

    fn clocks(&mut self, node: u8) -> Now {
        let now = self.now;
        let started = self.node(node).running.as_ref().map_or(now, |running| running.started);
        Now { elapsed: now - started, wall: 1_000_000 + now.as_millis() as u64 }
    }

    fn write(&mut self, node: u8, ticket: Ticket, commit: Commit) {
        let mut words: Vec<String> = commit.records.iter().map(|record| self.record(record)).collect();
        words.extend(commit.decisions.iter().map(|(slot, value)| format!("decision {slot} {}", self.name(*value))));
        words.extend(commit.payloads.iter().map(|(id, _)| format!("payload of {}", self.name(Some(*id)))));
        words.extend(commit.reserved.map(|mark| format!("mark {mark}")));
        words.extend(commit.installed.map(|(slot, _)| format!("snapshot {slot}")));
        if !words.is_empty() {
            self.note(format!("  {node} writes {}", words.join(", ")));
        }
        let running = self.node(node).running.as_mut().expect("a node that is down writes nothing");
        running.writing.push_back((ticket, commit));
    }

    fn send(&mut self, from: u8, to: Option<NodeId>, message: PeerMessage) {
        let others = self.members().filter(|other| to.is_none_or(|to| to.get() == *other));
        let others: Vec<_> = others.filter(|other| self.is_linked(from, *other)).collect();
        if !is_small_talk(&message) && (!others.is_empty() || self.nodes.len() == 1) {
            let words = self.words(&message);
            let whom = to.map(|to| format!(" to {to}")).unwrap_or_default();
            self.note(format!("  {from} says{whom}: {words}"));
        }
        for other in others {
            self.links.entry((from, other)).or_default().push_back(message.clone());
        }
    }

    // ----- words -----

    fn note(&mut self, line: impl AsRef<str>) {
        // Writing to a String can't fail.
        let _ = writeln!(self.notes, "{}", line.as_ref());
    }

    fn name(&self, value: Value) -> String {
        value.map_or("null".into(), |id| self.names[&id].clone())
    }

    fn value(&self, name: &str) -> Value {
        (name != "null").then(|| self.batches[name].0)
    }

    fn state(&self, state: State) -> String {
        match state {
            State::Zero => "zero".into(),
            State::One(id) => self.name(Some(id)),
            State::Abstain => "abstain".into(),
        }
    }

    fn vote(&self, vote: Vote) -> String {
        match vote {
            Vote::Zero => "zero".into(),
            Vote::One(id) => self.name(Some(id)),
            Vote::Undecided => "undecided".into(),
        }
    }

    fn record(&self, record: &Record) -> String {
        let Record { slot, phase, said } = record;
        match said {
            Said::State(state) => format!("state {slot}.{phase} {}", self.state(*state)),
            Said::Vote(vote) => format!("vote {slot}.{phase} {}", self.vote(*vote)),
        }
    }

    fn words(&self, message: &PeerMessage) -> String {
        match message {
            PeerMessage::Proposal { slot, value, payload } => {
                let with = if payload.is_some() { ", with its payload" } else { "" };
                format!("proposal {slot} {}{with}", self.name(*value))
            }
            PeerMessage::State { slot, phase, state } => format!("state {slot}.{phase} {}", self.state(*state)),
            PeerMessage::Vote { slot, phase, vote } => format!("vote {slot}.{phase} {}", self.vote(*vote)),
            PeerMessage::Decide { slot, value } => format!("decide {slot} {}", self.name(*value)),
            PeerMessage::Batch { id, .. } => format!("payload of {}", self.name(Some(*id))),
            PeerMessage::Fetch { id } => format!("who has the payload of {}?", self.name(Some(*id))),
            PeerMessage::ReadIndex { .. } => "how far are you?".into(),
            PeerMessage::ReadIndexAnswer { slot, .. } => format!("voted or decided up to slot {slot}"),
            PeerMessage::CatchUp { from } => format!("what was decided from slot {from} on?"),
            PeerMessage::Entries { entries, decided, .. } => {
                let slots: Vec<_> = entries.iter().map(|e| e.slot.to_string()).collect();
                format!("the log: [{}] of {decided}", slots.join(" "))
            }
            other => format!("{other:?}"),
        }
    }

    fn parse(&self, words: &[String]) -> PeerMessage {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let number = |word: &str| word.parse::<u64>().expect("a number");
        let place = |word: &str| {
            let (slot, phase) = word.split_once('.').expect("SLOT.PHASE");
            (number(slot), number(phase) as Phase)
        };
        match words[..] {
            ["proposal", slot, value] => {
                PeerMessage::Proposal { slot: number(slot), value: self.value(value), payload: None }
            }
            ["state", at, word] => {
                let (slot, phase) = place(at);
                let state = match word {
                    "zero" => State::Zero,
                    "abstain" => State::Abstain,
                    name => State::One(self.batches[name].0),
                };
                PeerMessage::State { slot, phase, state }
            }
            ["vote", at, word] => {
                let (slot, phase) = place(at);
                let vote = match word {
                    "zero" => Vote::Zero,
                    "undecided" => Vote::Undecided,
                    name => Vote::One(self.batches[name].0),
                };
                PeerMessage::Vote { slot, phase, vote }
            }
            ["decide", slot, value] => PeerMessage::Decide { slot: number(slot), value: self.value(value) },
            ["payload", name] => {
                let (id, payload) = self.batches[name].clone();
                PeerMessage::Batch { id, payload }
            }
            _ => panic!("no message: {words:?}"),
        }
    }
}

/// The ends of a link.
fn pair(a: u8, b: u8) -> (u8, u8) {
    (a.min(b), a.max(b))
}

/// What nodes say all the time and no story is about: delivered like all else, but not told.
fn is_small_talk(message: &PeerMessage) -> bool {
    matches!(
        message,
        PeerMessage::Promised { .. }
            | PeerMessage::Alive { .. }
            | PeerMessage::GetHash { .. }
            | PeerMessage::LogHash { .. }
            | PeerMessage::StateDigest { .. }
    )
}
