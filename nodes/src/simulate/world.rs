//! The world of a run: nodes, network, disks and clients in one thread and one queue of events in virtual time.
//!
//! A [`Node`] has the parts of a real one, wired as the actors wire them: agreement core, pool, ledger, log store, and the
//! door that checks handshakes. What actors say to each other waits in a mailbox for [`MAILBOX`].

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use rabia_bank_actors::consensus::agreement::{Agreement, Effect, Event, Notice, TICK, Ticket};
use rabia_bank_actors::consensus::pool::{Now, Pool, PoolEffect};
use rabia_bank_actors::handshake::Door;
use rabia_bank_actors::ledger::{Applied, Ledger, RequestOutcome};
use rabia_bank_actors::node::replay;
use rabia_bank_actors::proposer::Proposer;
use rabia_bank_messages::bank::{Query, ReadLevel};
use rabia_bank_messages::batch::{Action, Payload, RequestHeader};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, ClusterId, Millis, NodeId, RunId, Slot, StoreId};
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_storage::{Commit, Entries, Identity, LogStore, PeerMemory};

use super::clients::{Ask, Bounds, Client};
use super::disk::Disk;
use super::faults::{Fault, Weather};
use super::network::Network;
use super::properties::books::in_memory;
use super::properties::model::{Answer, Model, plain};
use super::properties::{Check, Violation, agreement, books, check, clients, digests, promises};
use super::trace::Trace;
use super::{Report, Sabotage, Settings};

/// How long a message between the parts of a node waits.
const MAILBOX: Duration = Duration::from_micros(20);
/// Faults happen for about this long, in virtual time.
const TROUBLE: Duration = Duration::from_secs(4);
/// When the faults have healed, everything must be finished within this virtual time.
const BOUND: Duration = Duration::from_secs(60);
/// How many clients there are.
const CLIENTS: usize = 8;
/// How often a client looks whether it has something to ask, or to ask again.
const CLIENT_PACE: Duration = Duration::from_millis(5);
/// Every pair of nodes tries this often to make their link work.
const DIAL: Duration = Duration::from_millis(40);
/// Bytes of decided slots in one answer: small, so that catching up takes several.
const ENTRIES_BYTES: usize = 16 * 1024;
/// The wall clock at the beginning.
const EPOCH: Millis = 1_767_225_600_000;

/// Who waits for an answer: a client, and its mark on the request.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    client: usize,
    /// None for what nobody waits for.
    mark: Option<u64>,
}

#[derive(Debug)]
struct WaitingRead {
    waiter: Waiter,
    query: Query,
}

/// A running node.
struct Node {
    starts: u64,
    store: LogStore,
    core: Agreement,
    pool: Pool,
    ledger: Ledger,
    door: Door,
    started: Duration,
    waiting: Commit,
    ticket: Ticket,
    writing: Option<(Ticket, Commit)>,
    /// Peers that were met, by the write that remembers them and their link.
    meeting: Vec<(Ticket, usize, u64)>,
    /// The number of the link that is in use, by peer.
    attached: Vec<u64>,
    gathering: Vec<Waiter>,
    expected: BTreeMap<BatchId, Vec<Waiter>>,
    rounds: BTreeMap<u64, WaitingRead>,
    reads: u64,
    at_slot: BTreeMap<Slot, Vec<WaitingRead>>,
    last_batch: Option<(BatchId, Payload)>,
}

/// What a machine keeps while its node is down.
struct Machine {
    id: NodeId,
    node: Option<Node>,
    disk: Disk,
    /// It never comes back.
    lost: bool,
    paused: Duration,
    slow_until: Duration,
    failing: bool,
    /// The wall clock: milliseconds ahead, and parts per thousand that it goes too fast.
    ahead: i64,
    drift: i64,
}

enum Mail {
    Events(Vec<Event>),
    Notices(Vec<Notice>),
    Pump,
    Apply(Slot, Option<(BatchId, Payload)>),
    ReadAt(u64, Slot),
    Write,
    Written,
    Entries { to: usize, from: Slot, decided: Slot },
    Stored { to: usize, id: BatchId },
    Tick,
}

enum Item {
    Message { to: usize, from: usize, link: u64, message: PeerMessage },
    Mail { node: usize, run: u64, mail: Mail },
    Dial { a: usize, b: usize },
    Request { node: usize, waiter: Waiter, ask: Ask },
    Answer { waiter: Waiter, slot: Slot, reply: ClientReply },
    Client(usize),
    Trouble,
    Mend(usize),
    Cut(usize),
    Restart(usize),
}

#[derive(Clone, Debug)]
enum ClientReply {
    Outcome(Answer),
    Opened(u64),
    Closed,
    Gone,
}

pub(super) struct World {
    settings: Settings,
    random: Rng,
    now: Duration,
    sequence: u64,
    queue: BTreeMap<(Duration, u64), Item>,
    genesis: Genesis,
    machines: Vec<Machine>,
    network: Network,
    weather: Weather,
    healed: bool,
    clients: Vec<Client>,
    agreement: agreement::Agreement,
    digests: digests::Digests,
    promises: promises::Promises,
    answers: clients::Clients,
    model: Model,
    trace: Trace,
    report: Report,
}

impl World {
    pub(super) fn new(seed: u64, settings: &Settings) -> Result<World, Violation> {
        let mut random = Rng::with_seed(seed);
        let members = settings.nodes.unwrap_or(3 + (seed % 3) as usize);
        let mut cluster = [0; 16];
        cluster[8..].copy_from_slice(&seed.to_be_bytes());
        let stores = NodeId::all(members).map(|node| StoreId([node.get(); 16])).collect();
        let mut genesis = Genesis::new(ClusterId(cluster), stores);
        genesis.window = [2, 4, 16][random.usize(..3)];
        if random.u32(..4) == 0 {
            genesis.transaction_limit = rabia_bank_messages::bank::MAX_BALANCE;
        }
        let share = settings.operations / CLIENTS as u64;
        let clients = (0..CLIENTS).map(|index| {
            let rest = if index == 0 { settings.operations % CLIENTS as u64 } else { 0 };
            Client::new(index, members, share + rest)
        });
        let mut world = World {
            weather: Weather::new(&mut random),
            random,
            now: Duration::ZERO,
            sequence: 0,
            queue: BTreeMap::new(),
            machines: Vec::new(),
            network: Network::new(members),
            healed: false,
            clients: clients.collect(),
            agreement: agreement::Agreement::default(),
            digests: digests::Digests::default(),
            promises: promises::Promises::default(),
            answers: clients::Clients::default(),
            model: Model::new(genesis.transaction_limit),
            trace: Trace::new(settings.trace),
            report: Report::default(),
            genesis,
            settings: settings.clone(),
        };
        for id in world.genesis.nodes() {
            world.add_machine(id)?;
        }
        for a in 0..members {
            for b in a + 1..members {
                world.at(Duration::ZERO, Item::Dial { a, b });
            }
        }
        for client in 0..CLIENTS {
            world.at(Duration::from_millis(client as u64), Item::Client(client));
        }
        world.at(Duration::from_millis(50), Item::Trouble);
        Ok(world)
    }

    fn add_machine(&mut self, id: NodeId) -> Check {
        let disk = Disk::new(Vec::new());
        let identity = Identity { genesis: self.genesis.clone(), node: id };
        LogStore::create_with(disk.clone(), &identity, 0).map_err(|error| store_violation(id, &error))?;
        let drift = if self.random.bool() { self.random.i64(-20..20) } else { 0 };
        let ahead = self.random.i64(-300..300);
        self.machines.push(Machine {
            id,
            node: None,
            disk: Disk::new(disk.after_kill()),
            lost: false,
            paused: Duration::ZERO,
            slow_until: Duration::ZERO,
            failing: false,
            ahead,
            drift,
        });
        self.restart(id.index())
    }

    /// Runs to the end. The report, and what was wrong.
    pub(super) fn run(mut self) -> (Report, Option<Violation>, Vec<String>) {
        let wrong = self.live().err();
        if let Some(violation) = &wrong {
            let line = format!("VIOLATION {}: {}", violation.property, violation.what);
            self.trace.note(self.now, None, || line);
        }
        for index in 0..self.machines.len() {
            self.count_phases(index);
        }
        self.report.slots = self.agreement.slots();
        self.report.null_slots = self.agreement.null_slots();
        self.report.acknowledged = self.answers.acknowledged();
        self.report.reads = self.answers.reads;
        (self.report, wrong, self.trace.into_lines())
    }

    fn live(&mut self) -> Check {
        while self.now < TROUBLE {
            self.step()?;
        }
        self.heal()?;
        let deadline = self.now + BOUND;
        while !self.is_finished() {
            self.step()?;
            check(self.now < deadline, "liveness", || self.describe())?;
        }
        for machine in &self.machines {
            if let Some(node) = &machine.node {
                books::all_pages(machine.id, &node.ledger, &self.model)?;
            }
        }
        self.answers.nothing_lost(&self.model)
    }

    /// Every client has its answers, and every node the whole log.
    fn is_finished(&self) -> bool {
        let end = self.agreement.slots();
        let level = |machine: &Machine| machine.node.as_ref().map_or(machine.lost, |node| node.ledger.applied() == end);
        self.clients.iter().all(Client::is_done) && self.machines.iter().all(level)
    }

    fn describe(&self) -> String {
        let nodes: Vec<String> = self
            .machines
            .iter()
            .map(|machine| match &machine.node {
                None => format!("node {} is down", machine.id),
                Some(node) => format!(
                    "node {} applied {}, open slots {}, undecided {:?}",
                    machine.id,
                    node.ledger.applied(),
                    node.core.open_slots(),
                    node.pool.undecided()
                ),
            })
            .collect();
        let waiting: usize = self.clients.iter().map(|client| client.in_flight.len()).sum();
        let asks = self.clients.iter().flat_map(|client| client.in_flight.values());
        let asks: Vec<String> = asks.map(|request| format!("{:?}", request.ask)).take(5).collect();
        let left: u64 = self.clients.iter().map(|client| client.left).sum();
        format!(
            "not finished within {BOUND:?}: slot {}, {waiting} requests wait, {left} not begun; {}; waiting: {}",
            self.agreement.slots(),
            nodes.join("; "),
            asks.join(", ")
        )
    }

    // ----- time -----

    fn at(&mut self, after: Duration, item: Item) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), item);
    }

    fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.random.u64(from..to))
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }

    fn mail(&mut self, node: usize, after: Duration, mail: Mail) {
        if let Some(running) = &self.machines[node].node {
            let run = running.starts;
            self.at(after, Item::Mail { node, run, mail });
        }
    }

    fn wall(&self, machine: usize) -> Millis {
        let Machine { ahead, drift, .. } = &self.machines[machine];
        let elapsed = self.now.as_millis() as i64;
        EPOCH.saturating_add_signed(elapsed + elapsed * drift / 1_000 + ahead)
    }

    fn clocks(&self, machine: usize, node: &Node) -> Now {
        Now { elapsed: self.now - node.started, wall: self.wall(machine) }
    }

    fn step(&mut self) -> Check {
        let Some(((at, _), item)) = self.queue.pop_first() else {
            return check(false, "liveness", || "nothing is left to happen");
        };
        self.now = at;
        if let Item::Message { to: node, .. } | Item::Mail { node, .. } | Item::Request { node, .. } = item
            && self.machines[node].paused > self.now
        {
            let left = self.machines[node].paused - self.now;
            self.at(left, item);
            return Ok(());
        }
        match item {
            Item::Message { to, from, link, message } => self.arrive(to, from, link, message),
            Item::Mail { node, run, mail } => {
                if self.machines[node].node.as_ref().is_some_and(|running| running.starts == run) {
                    self.open_mail(node, mail)?;
                }
                Ok(())
            }
            Item::Dial { a, b } => self.dial(a, b),
            Item::Request { node, waiter, ask } => self.request(node, waiter, ask),
            Item::Answer { waiter, slot, reply } => self.answer(waiter, slot, reply),
            Item::Client(index) => self.client(index),
            Item::Trouble => self.trouble(),
            Item::Mend(node) => {
                self.network.mend(node);
                Ok(())
            }
            Item::Cut(node) => {
                if !self.healed {
                    let others: Vec<usize> = (0..self.machines.len()).filter(|other| *other != node).collect();
                    self.network.cut(&[node], &others);
                    self.network.cut(&others, &[node]);
                }
                Ok(())
            }
            Item::Restart(node) => self.restart(node),
        }
    }

    fn open_mail(&mut self, index: usize, mail: Mail) -> Check {
        match mail {
            Mail::Events(events) => events.into_iter().try_for_each(|event| self.event(index, event)),
            Mail::Notices(notices) => self.notices(index, notices),
            Mail::Pump => self.pump(index),
            Mail::Apply(slot, batch) => self.apply(index, slot, batch),
            Mail::ReadAt(read, slot) => self.read_at(index, read, slot),
            Mail::Write => {
                self.start_write(index);
                Ok(())
            }
            Mail::Written => self.written(index),
            Mail::Entries { to, from, decided } => self.send_entries(index, to, from, decided),
            Mail::Stored { to, id } => self.send_stored(index, to, id),
            Mail::Tick => {
                self.event(index, Event::Tick)?;
                self.pump(index)?;
                self.mail(index, TICK, Mail::Tick);
                Ok(())
            }
        }
    }

    // ----- the voter -----

    fn event(&mut self, index: usize, event: Event) -> Check {
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let mut effects = Vec::new();
        node.core.handle(self.now - node.started, event, &mut effects);
        self.perform(index, effects)
    }

    fn perform(&mut self, index: usize, effects: Vec<Effect>) -> Check {
        let mut notices = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(to, message) => {
                    self.said(index, &message)?;
                    self.send(index, to.index(), message)?;
                }
                Effect::Broadcast(message) => {
                    self.said(index, &message)?;
                    for to in (0..self.machines.len()).filter(|to| *to != index) {
                        self.send(index, to, message.clone())?;
                    }
                }
                Effect::Save(ticket, commit) => self.save(index, ticket, commit),
                Effect::Deliver(slot, batch) => self.mail(index, MAILBOX, Mail::Apply(slot, batch)),
                Effect::Pool(notice) => notices.push(notice),
                Effect::ReadAt { read, slot } => self.mail(index, MAILBOX, Mail::ReadAt(read, slot)),
                Effect::SendEntries { to, from } => {
                    let decided = self.machines[index].node.as_ref().map_or(0, |node| node.core.frontier());
                    let took = self.micros(50, 2_000);
                    self.mail(index, took, Mail::Entries { to: to.index(), from, decided });
                }
                Effect::SendStored { to, id } => {
                    let took = self.micros(50, 2_000);
                    self.mail(index, took, Mail::Stored { to: to.index(), id });
                }
                Effect::MeetAgain(peer) => unreachable!("the store of node {peer} was not replaced"),
            }
        }
        if !notices.is_empty() {
            self.mail(index, MAILBOX, Mail::Notices(notices));
        }
        Ok(())
    }

    fn said(&mut self, index: usize, message: &PeerMessage) -> Check {
        let machine = &self.machines[index];
        let Some(node) = &machine.node else { return Ok(()) };
        self.promises.says(machine.id, node.starts, node.core.frontier(), self.genesis.window, message)?;
        let id = machine.id;
        let line = match message {
            PeerMessage::Proposal { slot, value, .. } => (*slot, format!("proposes {value:?}")),
            PeerMessage::State { slot, phase, state } => (*slot, format!("phase {phase}: state {state:?}")),
            PeerMessage::Vote { slot, phase, vote } => (*slot, format!("phase {phase}: vote {vote:?}")),
            _ => return Ok(()),
        };
        self.trace.note(self.now, Some(line.0), || format!("node {id} {}", line.1));
        Ok(())
    }

    // ----- the log -----

    fn save(&mut self, index: usize, ticket: Ticket, mut commit: Commit) {
        let sabotage = self.settings.sabotage;
        let Some(node) = &mut self.machines[index].node else { return };
        if sabotage == Some(Sabotage::SavesForgotten) && !commit.records.is_empty() {
            commit.records.clear();
        }
        let waiting = &mut node.waiting;
        waiting.reserved = waiting.reserved.max(commit.reserved);
        waiting.records.append(&mut commit.records);
        waiting.payloads.append(&mut commit.payloads);
        waiting.decisions.append(&mut commit.decisions);
        waiting.peers.append(&mut commit.peers);
        if !commit.heard.is_empty() {
            waiting.heard = commit.heard;
        }
        let idle = node.writing.is_none() && node.ticket == 0;
        node.ticket = ticket;
        if sabotage == Some(Sabotage::SentBeforeDurable) {
            self.mail(index, MAILBOX, Mail::Events(vec![Event::Saved(ticket)]));
        }
        if idle {
            self.mail(index, MAILBOX, Mail::Write);
        }
    }

    /// A write has begun: it takes what waits. `ticket` is 0 while nothing waits.
    fn start_write(&mut self, index: usize) {
        let slow = self.machines[index].slow_until > self.now;
        let took = if slow { self.micros(5_000, 120_000) } else { self.micros(200, 900) };
        let Some(node) = &mut self.machines[index].node else { return };
        node.writing = Some((std::mem::take(&mut node.ticket), std::mem::take(&mut node.waiting)));
        self.mail(index, took, Mail::Written);
    }

    fn written(&mut self, index: usize) -> Check {
        let machine = &mut self.machines[index];
        let Some(node) = &mut machine.node else { return Ok(()) };
        let Some((ticket, commit)) = node.writing.take() else { return Ok(()) };
        if std::mem::take(&mut machine.failing) {
            machine.disk.fail_after(0);
        }
        if let Err(error) = node.store.commit(&commit) {
            if !machine.disk.is_dead() {
                return Err(store_violation(machine.id, &error));
            }
            return self.crash(index, "its disk failed");
        }
        let more = node.ticket > 0;
        self.promises.committed(machine.id, &commit);
        if self.settings.sabotage != Some(Sabotage::SentBeforeDurable) {
            self.event(index, Event::Saved(ticket))?;
        }
        self.attach_met(index, ticket)?;
        let again = self.machines[index].node.as_ref().is_some_and(|node| node.writing.is_none() && node.ticket > 0);
        if more && again {
            self.mail(index, MAILBOX, Mail::Write);
        }
        Ok(())
    }

    // ----- links -----

    fn send(&mut self, from: usize, to: usize, message: PeerMessage) -> Check {
        let link = self.network.link(from, to);
        let attached = self.machines[from].node.as_ref().is_some_and(|node| node.attached[to] == link);
        if !attached || !self.network.works(from, to) {
            return Ok(());
        }
        let lost = self.network.is_cut(from, to) || self.percent(self.weather.loss);
        if lost {
            self.report.count("messages lost");
            return Ok(());
        }
        let twice = self.percent(self.weather.duplication);
        if twice {
            self.report.count("messages duplicated");
        }
        for _ in 0..=usize::from(twice) {
            let mut delay = self.micros(40, 160);
            if self.percent(self.weather.delay) {
                self.report.count("messages delayed");
                delay += self.micros(100, 60_000);
            }
            self.at(delay, Item::Message { to, from, link, message: message.clone() });
        }
        Ok(())
    }

    fn arrive(&mut self, to: usize, from: usize, link: u64, message: PeerMessage) -> Check {
        if self.network.link(from, to) != link {
            return Ok(());
        }
        let Some(node) = &self.machines[to].node else { return Ok(()) };
        if node.attached[from] != link {
            // Who answers a call may speak before the caller listens.
            self.at(Duration::from_millis(1), Item::Message { to, from, link, message });
            return Ok(());
        }
        self.event(to, Event::Received(self.machines[from].id, message))
    }

    fn dial(&mut self, a: usize, b: usize) -> Check {
        let again = DIAL + self.micros(0, 20_000);
        self.at(again, Item::Dial { a, b });
        let down = |index: usize| self.machines[index].node.is_none() || self.machines[index].paused > self.now;
        let cut = self.network.is_cut(a, b) || self.network.is_cut(b, a);
        if self.network.works(a, b) || cut || down(a) || down(b) {
            return Ok(());
        }
        self.network.turn(a, b);
        self.meet(a, b)?;
        self.meet(b, a)
    }

    /// The handshake, from one side: `index` hears what `peer` says of itself.
    fn meet(&mut self, index: usize, peer: usize) -> Check {
        let link = self.network.link(index, peer);
        let (id, peer_id) = (self.machines[index].id, self.machines[peer].id);
        let Some(hello) =
            self.machines[peer].node.as_ref().map(|node| node.door.introduce(id, None, node.core.promised()))
        else {
            return Ok(());
        };
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        if let Err(refused) =
            node.door.check(&hello, node.core.stores(), node.core.frontier(), |peer| node.core.heard(peer))
        {
            return check(false, "handshake", || format!("node {id} refuses node {peer_id}: {}", refused.message));
        }
        let memory = PeerMemory { store: hello.store, starts: hello.starts, run: hello.run };
        if !node.door.remember(peer_id, memory) {
            return self.attach(index, peer, link);
        }
        let mut effects = Vec::new();
        let ticket = node.core.remember_peer(peer_id, memory, &mut effects);
        node.meeting.push((ticket, peer, link));
        self.perform(index, effects)
    }

    fn attach_met(&mut self, index: usize, ticket: Ticket) -> Check {
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let met: Vec<_> = node.meeting.extract_if(.., |(needed, ..)| *needed <= ticket).collect();
        met.into_iter().try_for_each(|(_, peer, link)| self.attach(index, peer, link))
    }

    fn attach(&mut self, index: usize, peer: usize, link: u64) -> Check {
        if self.network.link(index, peer) != link {
            return Ok(());
        }
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        node.attached[peer] = link;
        let peer = self.machines[peer].id;
        self.event(index, Event::LinkUp(peer, self.genesis.stores[peer.index()]))
    }

    fn disconnect(&mut self, a: usize, b: usize) -> Check {
        if !self.network.works(a, b) {
            return Ok(());
        }
        let link = self.network.link(a, b);
        self.network.turn(a, b);
        for (side, peer) in [(a, b), (b, a)] {
            if self.machines[side].node.as_ref().is_some_and(|node| node.attached[peer] == link) {
                self.event(side, Event::LinkDown(self.machines[peer].id))?;
            }
        }
        Ok(())
    }

    fn send_entries(&mut self, index: usize, to: usize, from: Slot, decided: Slot) -> Check {
        let machine = &self.machines[index];
        let Some(node) = &machine.node else { return Ok(()) };
        let entries = node.store.reader().entries(from, ENTRIES_BYTES).map_err(|e| store_violation(machine.id, &e))?;
        match entries {
            Entries::Found(entries) => self.send(index, to, PeerMessage::Entries { entries, decided }),
            Entries::Compacted { upto } => self.send(index, to, PeerMessage::Compacted { log_from: upto + 1 }),
        }
    }

    fn send_stored(&mut self, index: usize, to: usize, id: BatchId) -> Check {
        let machine = &self.machines[index];
        let Some(node) = &machine.node else { return Ok(()) };
        match node.store.reader().payload(&id).map_err(|e| store_violation(machine.id, &e))? {
            Some(payload) => self.send(index, to, PeerMessage::Batch { id, payload }),
            None => Ok(()),
        }
    }

    // ----- the proposer -----

    fn notices(&mut self, index: usize, notices: Vec<Notice>) -> Check {
        let Some(mut node) = self.machines[index].node.take() else { return Ok(()) };
        let (now, mut effects) = (self.clocks(index, &node), Vec::new());
        for notice in notices {
            node.pool.notice(now, notice, &mut effects);
        }
        self.machines[index].node = Some(node);
        self.pool_effects(index, effects)?;
        self.mail(index, MAILBOX, Mail::Pump);
        Ok(())
    }

    fn pump(&mut self, index: usize) -> Check {
        let Some(mut node) = self.machines[index].node.take() else { return Ok(()) };
        let (now, mut effects) = (self.clocks(index, &node), Vec::new());
        node.pool.pump(now, &mut effects);
        self.machines[index].node = Some(node);
        self.pool_effects(index, effects)
    }

    fn submit(&mut self, index: usize, waiter: Waiter, header: &RequestHeader, action: &Action) -> Check {
        let Some(mut node) = self.machines[index].node.take() else { return Ok(()) };
        let (now, mut effects) = (self.clocks(index, &node), Vec::new());
        node.gathering.push(waiter);
        node.pool.submit(now, header, action, &mut effects);
        self.machines[index].node = Some(node);
        self.pool_effects(index, effects)?;
        self.mail(index, MAILBOX, Mail::Pump);
        Ok(())
    }

    fn pool_effects(&mut self, index: usize, effects: Vec<PoolEffect>) -> Check {
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                PoolEffect::Formed(id, payload) => {
                    self.agreement.formed(id, payload.clone())?;
                    if let Some(node) = &mut self.machines[index].node {
                        let waiters = std::mem::take(&mut node.gathering);
                        node.expected.insert(id, waiters);
                    }
                    events.push(Event::Hold(id, payload));
                }
                PoolEffect::Propose { slot, value, with_payload } => {
                    events.push(Event::Propose { slot, value, with_payload });
                }
                PoolEffect::Forget(id) => events.push(Event::Forget(id)),
                // Clients lose patience by themselves.
                PoolEffect::Abandon => {
                    if let Some(node) = &mut self.machines[index].node {
                        node.expected.clear();
                    }
                }
                PoolEffect::Send(to, message) => {
                    for peer in (0..self.machines.len()).filter(|peer| *peer != index) {
                        if to.is_none_or(|to| to.index() == peer) {
                            self.send(index, peer, message.clone())?;
                        }
                    }
                }
            }
        }
        if !events.is_empty() {
            self.mail(index, MAILBOX, Mail::Events(events));
        }
        Ok(())
    }

    // ----- the bank -----

    fn apply(&mut self, index: usize, slot: Slot, batch: Option<(BatchId, Payload)>) -> Check {
        let id = self.machines[index].id;
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let first = self.agreement.delivered(id, node.ledger.applied(), slot, batch.as_ref())?;
        let mut applying = batch.clone();
        if self.settings.sabotage == Some(Sabotage::AppliedTwice) && batch.is_none() {
            applying = node.last_batch.clone().map(|(id, payload)| (BatchId { incarnation: u64::MAX, ..id }, payload));
        }
        let named = applying.as_ref().map(|(id, payload)| (id, payload));
        let applied = node.ledger.apply(slot, named);
        let applied = applied.map_err(|error| Violation { property: "apply", what: error.to_string() })?;
        if batch.is_some() {
            node.last_batch.clone_from(&batch);
        }
        if first {
            let named = batch.as_ref().map(|(id, payload)| (id, payload));
            let replies = self.model.apply(slot, named).map_err(|what| Violation { property: "validity", what })?;
            let what = batch.as_ref().map_or("forfeited".into(), |(id, payload)| {
                format!("batch {id}, {} requests", payload.count().unwrap_or(0))
            });
            self.trace.note(self.now, Some(slot), || format!("node {id} is the first to apply it: {what}"));
            books::same_replies(slot, &node.ledger, &applied, replies.as_deref())?;
            books::balance(slot, &node.ledger, &self.model)?;
        }
        self.digests.after(id, slot, node.ledger.digest())?;
        let waiters = batch.and_then(|(id, _)| node.expected.remove(&id));
        let due = node.at_slot.first_entry().filter(|due| *due.key() <= slot).map(|due| due.remove());
        let mut answers = Vec::new();
        if let (Some(waiters), Applied::Batch(outcomes)) = (waiters, &applied) {
            for (waiter, outcome) in waiters.iter().zip(outcomes) {
                answers.push((*waiter, slot, outcome.clone()));
            }
        }
        let replies: Vec<_> = answers
            .into_iter()
            .map(|(waiter, slot, outcome)| {
                let (slot, reply) = client_reply(&node.ledger, slot, &outcome);
                (waiter, slot, reply)
            })
            .collect();
        for (waiter, slot, reply) in replies {
            self.reply(waiter, slot, reply);
        }
        due.into_iter().flatten().try_for_each(|read| self.read(index, read))
    }

    fn read(&mut self, index: usize, WaitingRead { waiter, query }: WaitingRead) -> Check {
        let Some(node) = &self.machines[index].node else { return Ok(()) };
        if let Some(answer) = node.ledger.query(&query) {
            self.reply(waiter, node.ledger.applied(), ClientReply::Outcome(in_memory(answer)));
        }
        Ok(())
    }

    fn read_or_wait(&mut self, index: usize, slot: Slot, read: WaitingRead) -> Check {
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        if slot <= node.ledger.applied() {
            return self.read(index, read);
        }
        node.at_slot.entry(slot).or_default().push(read);
        Ok(())
    }

    fn read_at(&mut self, index: usize, read: u64, slot: Slot) -> Check {
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let later = node.rounds.split_off(&(read + 1));
        let ready = std::mem::replace(&mut node.rounds, later);
        ready.into_values().try_for_each(|read| self.read_or_wait(index, slot, read))
    }

    fn request(&mut self, index: usize, waiter: Waiter, ask: Ask) -> Check {
        let (query, level) = match ask {
            Ask::Log(header, action) => return self.submit(index, waiter, &header, &action),
            Ask::Read(query, level) => (query, level),
        };
        let read = WaitingRead { waiter, query };
        match level {
            ReadLevel::Linearizable if self.settings.sabotage != Some(Sabotage::ReadsWithoutRound) => {
                let Some(node) = &mut self.machines[index].node else { return Ok(()) };
                node.reads += 1;
                let number = node.reads;
                node.rounds.insert(number, read);
                self.mail(index, MAILBOX, Mail::Events(vec![Event::Read(number)]));
                Ok(())
            }
            ReadLevel::AtLeast(slot) => self.read_or_wait(index, slot, read),
            ReadLevel::Local | ReadLevel::Linearizable => self.read_or_wait(index, 0, read),
        }
    }

    fn reply(&mut self, waiter: Waiter, slot: Slot, reply: ClientReply) {
        if self.percent(self.weather.loss) {
            return self.report.count("answers to clients lost");
        }
        let delay = self.micros(50, 3_000);
        self.at(delay, Item::Answer { waiter, slot, reply });
    }

    // ----- clients -----

    fn client(&mut self, index: usize) -> Check {
        let pace = CLIENT_PACE + self.micros(0, 5_000);
        self.at(pace, Item::Client(index));
        let bounds = Bounds { limit: self.genesis.transaction_limit, transactions: self.model.history().len() as u64 };
        let (now, after, wall) = (self.now, self.answers.now(), EPOCH + self.now.as_millis() as u64);
        let client = &mut self.clients[index];
        let mut marks: Vec<u64> = client.begin(now, after, wall, &bounds, &mut self.random).into_iter().collect();
        if client.in_flight.values().any(|request| request.patience <= now) {
            client.home = self.random.usize(..self.machines.len());
        }
        for (mark, request) in &mut client.in_flight {
            if request.patience <= now {
                request.patience = now + Duration::from_millis(self.random.u64(50..800));
                marks.push(*mark);
                self.report.count("requests sent again");
            }
        }
        let stray = if self.random.u32(..60) == 0 { client.stray(&bounds, &mut self.random) } else { None };
        let asks: Vec<_> = marks.iter().map(|mark| (Some(*mark), client.in_flight[mark].ask.clone())).collect();
        for (mark, ask) in asks.into_iter().chain(stray.map(|ask| (None, ask))) {
            self.ask(Waiter { client: index, mark }, ask);
        }
        Ok(())
    }

    fn ask(&mut self, waiter: Waiter, ask: Ask) {
        let node = self.clients[waiter.client].home;
        if !self.percent(self.weather.loss) {
            let delay = self.micros(50, 3_000);
            self.at(delay, Item::Request { node, waiter, ask });
        }
    }

    fn answer(&mut self, waiter: Waiter, slot: Slot, reply: ClientReply) -> Check {
        let client = &mut self.clients[waiter.client];
        let Some(request) = waiter.mark.and_then(|mark| client.in_flight.remove(&mark)) else { return Ok(()) };
        match (request.ask, reply) {
            (Ask::Read(query, level), ClientReply::Outcome(answer)) => {
                self.answers.read(&self.model, &query, level, request.after, slot, answer)
            }
            (Ask::Log(_, Action::Open), ClientReply::Opened(session)) => {
                client.opened(session);
                Ok(())
            }
            // The first attempt has closed it.
            (Ask::Log(_, Action::Close), ClientReply::Closed | ClientReply::Gone) => {
                client.closed();
                Ok(())
            }
            (Ask::Log(header, action @ Action::Command(_)), ClientReply::Outcome(answer)) => {
                client.commanded(header, action, slot);
                let name = (header.session, header.number);
                self.answers.command(&self.model, name, request.after, Some(slot), answer)
            }
            (ask, reply) => check(false, "answers", || format!("{ask:?} was answered {reply:?}")),
        }
    }

    // ----- faults -----

    fn trouble(&mut self) -> Check {
        if self.healed {
            return Ok(());
        }
        let next = self.micros(20_000, 400_000);
        self.at(next, Item::Trouble);
        if self.weather.kinds.is_empty() {
            return Ok(());
        }
        let fault = self.weather.kinds[self.random.usize(..self.weather.kinds.len())];
        let index = self.random.usize(..self.machines.len());
        let members = self.machines.len();
        let others: Vec<usize> = (0..members).filter(|other| *other != index).collect();
        let other = others[self.random.usize(..others.len())];
        let lasts = self.micros(1_000, 600_000);
        let meets_nothing = match fault {
            Fault::CrashOne | Fault::Pause | Fault::SlowSyncs | Fault::FailingSync => {
                self.machines[index].node.is_none()
            }
            Fault::WipedDisk => !self.may_lose(index),
            Fault::ResetLink => !self.network.works(index, other),
            _ => false,
        };
        if meets_nothing {
            return Ok(());
        }
        self.report.count(fault.name());
        self.trace.note(self.now, None, || format!("fault: {} (node {})", fault.name(), index + 1));
        match fault {
            Fault::CrashOne => self.crash(index, "it was killed")?,
            Fault::CrashSome => {
                for node in 0..members {
                    if self.random.bool() {
                        self.crash(node, "it was killed")?;
                    }
                }
            }
            Fault::CrashAll => (0..members).try_for_each(|node| self.crash(node, "it was killed"))?,
            Fault::Pause => self.machines[index].paused = self.now + lasts,
            Fault::ResetLink => self.disconnect(index, other)?,
            Fault::Isolate => {
                self.network.cut(&[index], &others);
                self.network.cut(&others, &[index]);
                self.at(lasts, Item::Mend(index));
                if self.random.bool() {
                    others.into_iter().try_for_each(|other| self.disconnect(index, other))?;
                }
            }
            Fault::Halves => {
                let (a, b) = self.network.halves(&mut self.random);
                self.network.cut(&a, &b);
                self.network.cut(&b, &a);
                a.into_iter().for_each(|node| self.at(lasts, Item::Mend(node)));
            }
            Fault::OneWay => {
                self.network.cut(&[index], &others[..self.random.usize(1..=others.len())]);
                self.at(lasts, Item::Mend(index));
            }
            Fault::Swizzle => {
                for node in 0..members {
                    if self.random.bool() {
                        let (from, to) = (self.micros(0, 300_000), self.micros(300_000, 600_000));
                        self.at(from, Item::Cut(node));
                        self.at(to, Item::Mend(node));
                    }
                }
            }
            Fault::SlowSyncs => self.machines[index].slow_until = self.now + lasts,
            Fault::FailingSync => self.machines[index].failing = true,
            Fault::ClockJump => self.machines[index].ahead = self.random.i64(-3_000..3_000),
            Fault::WipedDisk => self.wipe(index)?,
        }
        Ok(())
    }

    /// Whether this disk may be emptied: as many nodes may be lost for good as may be down at once.
    fn may_lose(&self, index: usize) -> bool {
        let lost = self.machines.iter().filter(|machine| machine.lost).count();
        lost < (self.machines.len() - 1) / 2 && !self.machines[index].lost
    }

    /// A disk is emptied. Its node must refuse to start from it, and is lost.
    fn wipe(&mut self, index: usize) -> Check {
        self.crash(index, "its disk was wiped")?;
        self.machines[index].lost = true;
        self.machines[index].disk = Disk::new(Vec::new());
        Ok(())
    }

    fn crash(&mut self, index: usize, why: &str) -> Check {
        self.count_phases(index);
        let machine = &mut self.machines[index];
        let Some(mut node) = machine.node.take() else { return Ok(()) };
        let id = machine.id;
        self.trace.note(self.now, None, || format!("node {id} is down: {why}"));
        // What is being written may get to the disk, before or between its syncs.
        if let Some((_, commit)) = node.writing.take() {
            self.report.count("crashes between a write and its sync");
            machine.disk.fail_after(self.random.u64(..2));
            if node.store.commit(&commit).is_ok() {
                self.promises.committed(id, &commit);
            }
        }
        machine.disk.kill();
        let image = if self.random.bool() {
            machine.disk.after_power_failure(&mut self.random)
        } else {
            machine.disk.after_kill()
        };
        drop(node);
        machine.disk = Disk::new(image);
        machine.failing = false;
        for peer in (0..self.machines.len()).filter(|peer| *peer != index) {
            self.disconnect(index, peer)?;
        }
        let after = self.micros(1_000, 500_000);
        self.at(after, Item::Restart(index));
        Ok(())
    }

    fn count_phases(&mut self, index: usize) {
        if let Some(node) = &self.machines[index].node {
            for (sum, count) in self.report.phases.iter_mut().zip(node.core.counters().phases) {
                *sum += count;
            }
        }
    }

    fn restart(&mut self, index: usize) -> Check {
        let machine = &mut self.machines[index];
        if machine.node.is_some() {
            return Ok(());
        }
        let identity = Identity { genesis: self.genesis.clone(), node: machine.id };
        if self.settings.sabotage == Some(Sabotage::DisksLie) {
            machine.disk.lie();
        }
        // A start may be cut short like anything else.
        if !self.healed && !machine.lost && self.now > Duration::ZERO && self.random.u32(..8) == 0 {
            self.report.count("starts cut short");
            machine.disk.fail_after(self.random.u64(..3));
        }
        let (store, recovered) = match LogStore::open_with(machine.disk.clone(), &identity, || Ok(0)) {
            Ok(_) if machine.lost => return check(false, "store", || "a node started from a wiped disk"),
            Ok(opened) => opened,
            Err(_) if machine.lost => return Ok(()),
            Err(_) if machine.disk.is_dead() => {
                machine.disk = Disk::new(machine.disk.after_power_failure(&mut self.random));
                let after = self.micros(1_000, 100_000);
                self.at(after, Item::Restart(index));
                return Ok(());
            }
            Err(error) => return Err(store_violation(machine.id, &error)),
        };
        // What it was to fail in may have passed without that many syncs.
        machine.disk.fail_after(u64::MAX);
        self.promises.recovered(machine.id, &recovered)?;
        let empty = Ledger::new(identity.genesis.transaction_limit, identity.genesis.sessions);
        let replayed = replay(&identity, empty, Vec::new(), &store.reader(), recovered.decided);
        let (mut ledger, last) = replayed.map_err(|error| Violation { property: "replay", what: error.to_string() })?;
        self.digests.after(machine.id, ledger.applied(), ledger.digest())?;
        for (slot, value) in &last {
            let agreed = self.agreement.decided(*slot);
            check(agreed == Some(*value), "agreement", || {
                format!("node {} has stored {value:?} for slot {slot}, elsewhere it is {agreed:?}", machine.id)
            })?;
        }
        let mut run = [machine.id.get(); 16];
        run[..8].copy_from_slice(&self.random.u64(..).to_be_bytes());
        let mut effects = Vec::new();
        let core = Agreement::new(self.genesis.clone(), machine.id, &recovered, ledger.replacements(), &mut effects);
        let pool = Proposer::pool(&self.genesis, machine.id, recovered.starts, recovered.decided, last);
        let (genesis, store_id) = (self.genesis.clone(), recovered.store);
        let door = Door::new(genesis, machine.id, store_id, recovered.starts, RunId(run), &recovered.peers);
        let (id, starts, decided) = (machine.id, recovered.starts, recovered.decided);
        machine.node = Some(Node {
            starts,
            store,
            core,
            pool,
            ledger,
            door,
            started: self.now,
            waiting: Commit::default(),
            ticket: 0,
            writing: None,
            meeting: Vec::new(),
            attached: vec![0; self.genesis.members()],
            gathering: Vec::new(),
            expected: BTreeMap::new(),
            rounds: BTreeMap::new(),
            reads: 0,
            at_slot: BTreeMap::new(),
            last_batch: None,
        });
        self.trace
            .note(self.now, None, || format!("node {id} starts for the {starts}. time, with the log to {decided}"));
        self.perform(index, effects)?;
        self.mail(index, TICK, Mail::Tick);
        Ok(())
    }

    /// All faults end.
    fn heal(&mut self) -> Check {
        self.healed = true;
        self.weather = Weather::calm();
        self.trace.note(self.now, None, || "the faults have healed".into());
        for index in 0..self.machines.len() {
            self.network.mend(index);
            let machine = &mut self.machines[index];
            machine.paused = machine.paused.min(self.now);
            machine.slow_until = Duration::ZERO;
            machine.failing = false;
            (machine.ahead, machine.drift) = (0, 0);
            self.restart(index)?;
        }
        Ok(())
    }
}

fn client_reply(ledger: &Ledger, applied: Slot, outcome: &RequestOutcome) -> (Slot, ClientReply) {
    match outcome {
        RequestOutcome::Opened { session } => (applied, ClientReply::Opened(*session)),
        RequestOutcome::Closed => (applied, ClientReply::Closed),
        RequestOutcome::Command { slot, outcome, .. } => {
            (*slot, ClientReply::Outcome(plain(in_memory(ledger.render(outcome)))))
        }
        RequestOutcome::Rejected(_) => (applied, ClientReply::Gone),
    }
}

fn store_violation(node: NodeId, error: &impl std::fmt::Display) -> Violation {
    Violation { property: "store", what: format!("the store of node {node}: {error}") }
}
