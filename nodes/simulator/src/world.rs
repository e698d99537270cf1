//! The world of a run: nodes, network, disks and clients in one thread and one queue of events in virtual time.
//!
//! A [`Node`] has the parts of a real one, wired as the actors wire them. What parts say to each other waits in a mailbox for
//! [`MAILBOX`]. No rule of behaviour is made here; what is, and why it is the simulator's:
//!
//! | file | what it has | since |
//! | --- | --- | --- |
//! | `voter`, `bank`, `books`, `proposer` | doing what the parts want done, and showing it to the properties | this is what actors do in a node |
//! | `links` | dialling, delivering, losing, delaying and damaging messages | there is no network |
//! | `asking`, `authority` | what clients ask, how long they wait, and what they make of answers and of being turned away | there are no client programs |
//! | `trouble`, `stores` | crashes, restarts, broken disks and clocks, exchanged stores | there are no machines |
//! | `babble` | what members say that keep the protocol and talk nonsense besides | no part would |
//!
//! What is replicated is a [`Workload`]: the world is generic over it.
//!
//! Some sizes and times of the parts are smaller here, since a run is short: rows and bytes of an answer, steps of a turn of work,
//! transactions of a page, and how long snapshotters wait for each other.

mod asking;
mod authority;
mod babble;
mod bank;
mod books;
mod links;
mod proposer;
mod sessions;
mod stores;
mod trouble;
mod voter;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rabia_bank_actors::applied::AppliedSlot;
use rabia_bank_actors::consensus::agreement::{Event, Notice, TICK, Ticket};
use rabia_bank_actors::consensus::clocks::Witness;
use rabia_bank_actors::consensus::pool::Now;
use rabia_bank_actors::consensus::turns::ClientId;
use rabia_bank_actors::ledger::machine::StateMachine;
use rabia_bank_actors::ledger::replicated::Replicated;
use rabia_bank_actors::parts::bank::words::Install;
use rabia_bank_actors::parts::bank::{Bank, SWEEP};
use rabia_bank_actors::parts::clients::{Answered, Waiter};
use rabia_bank_actors::parts::link::Link;
use rabia_bank_actors::parts::log::Log;
use rabia_bank_actors::parts::proposer::Proposer;
use rabia_bank_actors::parts::snapshotter::books_writer::{BooksWriter, Job};
use rabia_bank_actors::parts::snapshotter::{self, Patience, Snapshotter};
use rabia_bank_actors::parts::voter::{Call, Voter};
use rabia_bank_actors::snapshot::Decision;
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::genesis::{Genesis, SessionLimits};
use rabia_bank_messages::ids::{BatchId, ClusterId, Digest, Millis, NodeId, Slot, StoreId};
use rabia_bank_messages::peer::{Opening, PeerMessage};
use rabia_bank_messages::promise::{Commit, Identity};
use rabia_bank_storage::{BooksReader, BooksStore, LogStore};

use self::babble::Babble;
use self::bank::ToBank;
use self::books::ToSnapshotter;
use self::links::{Meeting, Queue};
use self::sessions::Connection;
use self::stores::SetAside;
use super::clients::{AskOf, CLIENTS, Client};
use super::disk::Disk;
use super::faults::FaultRates;
use super::network::Network;
use super::properties::{
    Check, Violation, agreement, books as book_keeping, check, clients, digests, log_time, old_copies, principals,
    promises, quiet, read_rounds, stores as members_stores, weak_mvc,
};
use super::staff::{Badge, Staff};
use super::trace::Trace;
use super::workload::Workload;
use super::{Report, Settings};
use rabia_bank_model::Model;

/// How long a message between the parts of a node waits.
const MAILBOX: Duration = Duration::from_micros(20);
/// Snapshotters that wait less than they do in a node, since all of the trouble lasts some seconds.
const HASTE: Patience = Patience {
    ask_again: Duration::from_millis(300),
    settle: Duration::from_secs(1),
    offer_kept: Duration::from_secs(2),
};
/// Faults happen for about this long, in virtual time.
const TROUBLE: Duration = Duration::from_secs(4);
/// When the faults have healed, everything must be finished within this virtual time.
const BOUND: Duration = Duration::from_secs(60);
/// Questions to each node at the end.
const AUDIT_QUERIES: usize = 40;
/// How often a client looks whether it has something to ask, or to ask again.
const CLIENT_PACE: Duration = Duration::from_millis(5);
/// Every pair of nodes tries this often to make their link work.
const DIAL: Duration = Duration::from_millis(40);
/// When all is finished the cluster must come to rest within this virtual time.
const REST: Duration = Duration::from_secs(20);
/// The wall clock at the beginning.
pub(super) const EPOCH: Millis = 1_767_225_600_000;

/// The parts of a node that runs.
struct Node<W: Workload> {
    /// Which run of its machine this is, with whatever store.
    run: u64,
    store: LogStore,
    voter: Voter,
    proposer: Proposer<Waiter<W::Machine>>,
    bank: Bank<W::Machine>,
    snapshotter: Snapshotter<W::Machine>,
    books: BooksReader,
    writer: BooksWriter<W::Machine>,
    /// What the writer of the books is at.
    working: Option<Job>,
    started: Duration,
    log: Log,
    /// What is being written.
    writing: Option<Commit>,
    /// Hellos that the voter has not answered.
    meeting: Vec<Meeting>,
    calls: Call,
    /// By peer.
    links: Vec<Link>,
    /// The number of the link that is in use, by peer.
    attached: Vec<u64>,
    queues: Vec<Queue>,
    /// The number of the last link on which a peer was let in as a member.
    let_in: Vec<u64>,
    /// By the connection.
    sessions: BTreeMap<ClientId, Connection<W>>,
    /// What its bank has applied, as its door sees it.
    applied: AppliedSlot,
    /// How far its clock is beyond what is confirmed.
    leap: Millis,
}

/// What a machine keeps while its node is down.
struct Machine<W: Workload> {
    id: NodeId,
    node: Option<Node<W>>,
    log: Disk,
    books: Disk,
    /// The store on these disks.
    store: StoreId,
    /// The one that was made last for its member.
    newest: StoreId,
    /// Disks that are not in the machine: with the newest store, or with the one before.
    aside: Option<SetAside>,
    /// The newest store is not as far as its member was.
    replacing: bool,
    runs: u64,
    /// It is not counted on any more.
    lost: Option<Loss>,
    /// It says nonsense, or has said some.
    babbles: bool,
    paused: Duration,
    slow_until: Duration,
    /// The next sync of the log, or of the books, fails.
    failing: Option<File>,
    /// The wall clock: milliseconds ahead, and parts per thousand that it goes too fast.
    ahead: i64,
    drift: i64,
    /// The latest time that it has shown.
    highest_clock: Millis,
    /// What its node last knew of time, and when.
    knew: Option<(Millis, Duration)>,
    /// The machine itself was started again since its node ran.
    rebooted: bool,
}

impl<W: Workload> Machine<W> {
    /// What a node that starts here knows of time.
    fn witness(&self, now: Duration) -> Witness {
        match self.knew {
            None => Witness::default(),
            Some((time, _)) if self.rebooted => Witness { time, continuous: false },
            Some((time, at)) => Witness { time: time + (now - at).as_millis() as Millis, continuous: true },
        }
    }
}

/// What became of a machine's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loss {
    Wiped,
    OldCopy,
}

/// A file of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum File {
    Log,
    Books,
}

enum Mail<S: StateMachine> {
    Events(Vec<Event>),
    Persisted(Ticket),
    Notices(Vec<Notice>),
    Pump,
    Wake,
    Look,
    AppliedTime(Millis),
    Can(u32),
    Apply(Slot, Option<(BatchId, Payload)>),
    ReadAt(u64, Slot),
    Install(Install<S>),
    /// Something else for the bank.
    Bank(ToBank<S>),
    /// The bank has a turn of work.
    Work,
    /// A block of the history was read.
    ReadBlock(u64),
    Snapshotter(ToSnapshotter<S>),
    /// What the snapshotter wants read was read.
    Read(snapshotter::Out<S>),
    /// The writer of the books has done its job.
    Worked,
    Installed {
        slot: Slot,
        hash: Digest,
        ledger: Box<Replicated<S>>,
        decisions: Vec<Decision>,
    },
    Write,
    Written,
    /// Send what gathers for a peer.
    Flush(usize),
    /// Give the network what waits for a peer.
    Transmit(usize),
    Tick,
    Sweep,
}

enum Item<W: Workload> {
    Message {
        to: usize,
        from: usize,
        link: u64,
        message: PeerMessage,
        /// Whether its sender says nonsense at times.
        nonsense: bool,
    },
    /// What a node says first on a link.
    Opening {
        to: usize,
        from: usize,
        link: u64,
        opening: Opening,
    },
    Mail {
        node: usize,
        run: u64,
        mail: Mail<W::Machine>,
    },
    Dial {
        a: usize,
        b: usize,
    },
    Request {
        node: usize,
        waiter: Waiter<W::Machine>,
        /// What its client shows if this is the first that it says on its connection.
        badge: Badge,
        ask: AskOf<W>,
    },
    Answer {
        connection: ClientId,
        /// The number of the token that was shown on it.
        token: u64,
        answered: Answered<W::Machine>,
    },
    /// A node has ended a connection: the token is not in force.
    Ended(ClientId),
    Client(usize),
    Trouble,
    Mend(usize),
    Cut(usize),
    Restart(usize),
    /// An end of this link does not want it any more.
    HangUp {
        a: usize,
        b: usize,
        link: u64,
    },
    /// Somebody asks a node to give this one a new store, until it is decided.
    AskForStore {
        node: usize,
        store: StoreId,
    },
    /// The other disks are put into a machine.
    Exchange(usize),
    /// The files of a node are replaced by copies that were made before.
    OldCopy {
        node: usize,
        store: StoreId,
        log: Vec<u8>,
        books: Vec<u8>,
    },
}

pub(super) struct World<W: Workload> {
    /// Slots from one snapshot of a node to the next.
    snapshot_slots: u64,
    /// Bytes of a snapshot in one answer.
    piece: usize,
    /// How long snapshotters wait for each other.
    patience: Patience,
    /// Commands that may wait at a node.
    most_requests: usize,
    random: Rng,
    now: Duration,
    /// What the parts take for the beginning. Only differences count.
    zero: Instant,
    sequence: u64,
    queue: BTreeMap<(Duration, u64), Item<W>>,
    genesis: Genesis,
    machines: Vec<Machine<W>>,
    network: Network,
    rates: FaultRates,
    babble: Babble,
    /// Batches that can't be applied, and were let in all the same.
    unusable: Vec<(BatchId, Payload)>,
    healed: bool,
    clients: Vec<Client<W>>,
    staff: Staff,
    agreement: agreement::Agreement,
    weak_mvc: weak_mvc::WeakMvc,
    digests: digests::Digests,
    promises: promises::Promises,
    old_copies: old_copies::OldCopies,
    stores: members_stores::Stores,
    read_rounds: read_rounds::ReadRounds,
    log_time: log_time::LogTime,
    quiet: quiet::Quiet,
    answers: clients::Clients,
    principals: principals::Principals,
    model: Model<W>,
    trace: Trace,
    report: Report,
}

impl<W: Workload> World<W> {
    pub(super) fn new(seed: u64, settings: &Settings) -> Result<World<W>, Violation> {
        let mut random = Rng::with_seed(seed);
        let members = settings.nodes.unwrap_or(3 + (seed % 3) as usize);
        let mut genesis = genesis(seed, members, &mut random);
        let mut staff = Staff::new(seed, W::PRINCIPALS);
        genesis.founding = staff.founding();
        let share = settings.operations / CLIENTS as u64;
        let clients: Vec<Client<W>> = (0..CLIENTS)
            .map(|index| {
                let rest = if index == 0 { settings.operations % CLIENTS as u64 } else { 0 };
                Client::new(index, members, share + rest, &mut staff, &mut random)
            })
            .collect();
        let mut world = World {
            rates: FaultRates::new(seed, &mut random),
            babble: Babble::new(seed),
            unusable: Vec::new(),
            snapshot_slots: [7, 30, 120, u64::MAX][random.usize(..4)],
            piece: [300, 4_096, 1 << 20][random.usize(..3)],
            patience: if random.bool() { Patience::default() } else { HASTE },
            most_requests: [6, 40, 10_000][random.usize(..3)],
            random,
            now: Duration::ZERO,
            zero: Instant::now(),
            sequence: 0,
            queue: BTreeMap::new(),
            machines: Vec::new(),
            network: Network::new(members),
            healed: false,
            clients,
            staff,
            agreement: agreement::Agreement::default(),
            weak_mvc: weak_mvc::WeakMvc::new(&genesis),
            digests: digests::Digests::default(),
            promises: promises::Promises::default(),
            old_copies: old_copies::OldCopies::default(),
            stores: members_stores::Stores::new(&genesis),
            read_rounds: read_rounds::ReadRounds::new(genesis.quorums().quorum()),
            log_time: log_time::LogTime::default(),
            quiet: quiet::Quiet::default(),
            answers: clients::Clients::default(),
            principals: principals::Principals::new(&genesis.founding),
            model: Model::founded(W::new_cluster(&genesis), genesis.sessions, &genesis.founding)
                .at_level(genesis.level, genesis.members()),
            trace: Trace::new(settings.trace),
            report: Report::default(),
            genesis,
        };
        for id in world.genesis.nodes() {
            world.add_machine(id)?;
        }
        world.choose_babblers();
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
        let (log, books) = (Disk::new(Vec::new()), Disk::new(Vec::new()));
        let identity = Identity { genesis: self.genesis.clone(), node: id };
        LogStore::create_with(log.clone(), &identity, 0).map_err(|error| store_violation(id, &error))?;
        BooksStore::create_with(books.clone(), &identity, None).map_err(|error| store_violation(id, &error))?;
        let drift = if self.random.bool() { self.random.i64(-20..20) } else { 0 };
        let ahead = self.random.i64(-300..300);
        let store = self.genesis.stores[id.index()];
        self.machines.push(Machine {
            id,
            node: None,
            log: Disk::new(log.after_kill()),
            books: Disk::new(books.after_kill()),
            store,
            newest: store,
            aside: None,
            replacing: false,
            runs: 0,
            lost: None,
            babbles: false,
            paused: Duration::ZERO,
            slow_until: Duration::ZERO,
            failing: None,
            ahead,
            drift,
            highest_clock: 0,
            knew: None,
            rebooted: false,
        });
        self.restart(id.index())
    }

    /// Runs to the end. The report, and what was wrong.
    pub(super) fn run(mut self) -> (Report, Option<Violation>) {
        let wrong = self.live().err();
        if let Some(violation) = &wrong {
            let line = format!("VIOLATION {}: {}", violation.property, violation.what);
            self.trace.note(self.now, None, || line);
        }
        for index in 0..self.machines.len() {
            self.count_phases(index);
        }
        self.report.slots = self.agreement.slots();
        self.report.coin_slots = self.weak_mvc.coins();
        self.report.null_slots = self.agreement.null_slots();
        self.report.acknowledged = self.answers.acknowledged();
        self.report.reads = self.answers.reads;
        (self.report, wrong)
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
        self.rest()?;
        for index in 0..self.machines.len() {
            self.audit(index)?;
        }
        self.answers.nothing_lost(&self.model)
    }

    /// When nobody wants anything more, nothing more is written and no slot is spoken in.
    fn rest(&mut self) -> Check {
        if self.is_babbled() {
            return Ok(());
        }
        let deadline = self.now + REST;
        self.quiet.watch(self.now);
        while !self.quiet.is_at_rest(self.now) {
            self.step()?;
            check(self.now < deadline, "quiet", || {
                format!("{} {REST:?} after all was done; {}", self.quiet.describe(), self.describe())
            })?;
        }
        Ok(())
    }

    /// Asks a node all sorts of things at the end.
    fn audit(&mut self, index: usize) -> Check {
        let wall = self.true_time();
        let machine = &mut self.machines[index];
        let Some(node) = &mut machine.node else { return Ok(()) };
        let (ledger, model) = (node.bank.ledger(), &self.model);
        let mut ask = |query: &W::Query| book_keeping::same_answer(machine.id, ledger, &node.books, model, query);
        let history = W::all_pages(&mut ask)?;
        for _ in 0..AUDIT_QUERIES {
            ask(&model.machine().any_query(wall, &mut self.random))?;
        }
        if W::PRINCIPALS {
            self.principals.is_told_by(&history, ledger.applied(), ledger.history().head)?;
        }
        Ok(())
    }

    /// Every client has its answers, and every node the whole log.
    fn is_finished(&self) -> bool {
        let end = self.agreement.slots();
        let level = |(index, machine): (usize, &Machine<W>)| {
            let up_to_date = machine.node.as_ref().is_some_and(|node| node.bank.standpoint().applied == end);
            machine.lost.is_some() || self.babbles(index) || (up_to_date && !machine.replacing)
        };
        let staffed = !self.staff.is_needed();
        staffed && self.clients.iter().all(Client::is_done) && self.machines.iter().enumerate().all(level)
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
                    node.bank.standpoint().applied,
                    node.voter.core().open_slots(),
                    node.proposer.undecided()
                ),
            })
            .collect();
        let waiting: usize = self.clients.iter().map(|client| client.in_flight.len()).sum();
        let asks = self.clients.iter().flat_map(|client| client.in_flight.values());
        let asks: Vec<String> = asks.map(|request| format!("{:?}", request.ask)).take(5).collect();
        let left: Vec<String> = (0..)
            .zip(&self.clients)
            .filter(|(_, client)| client.left > 0)
            .map(|(index, client)| {
                let lacks = if self.staff.lacks(index) { ", who lacks a token" } else { "" };
                format!("{} of client {index}{lacks}", client.left)
            })
            .collect();
        let left = if left.is_empty() { "0".into() } else { left.join(", ") };
        format!(
            "not finished within {BOUND:?}: slot {}, {waiting} requests wait, {left} not begun; {}; waiting: {}",
            self.agreement.slots(),
            nodes.join("; "),
            asks.join(", ")
        )
    }

    // ----- time -----

    fn at(&mut self, after: Duration, item: Item<W>) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), item);
    }

    fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.random.u64(from..to))
    }

    fn instant(&self) -> Instant {
        self.zero + self.now
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }

    fn mail(&mut self, node: usize, after: Duration, mail: Mail<W::Machine>) {
        if let Some(running) = &self.machines[node].node {
            let run = running.run;
            self.at(after, Item::Mail { node, run, mail });
        }
    }

    fn wall(&self, machine: usize) -> Millis {
        let Machine { ahead, drift, .. } = &self.machines[machine];
        let elapsed = self.now.as_millis() as i64;
        EPOCH.saturating_add_signed(elapsed + elapsed * drift / 1_000 + ahead)
    }

    fn clocks(&mut self, machine: usize, node: &Node<W>) -> Now {
        let wall = self.wall(machine);
        let highest = &mut self.machines[machine].highest_clock;
        *highest = wall.max(*highest);
        Now { elapsed: self.now - node.started, wall }
    }

    /// What a right clock shows.
    fn true_time(&self) -> Millis {
        EPOCH + self.now.as_millis() as u64
    }

    fn step(&mut self) -> Check {
        let Some(((at, _), item)) = self.queue.pop_first() else {
            return check(false, "liveness", || "nothing is left to happen");
        };
        self.now = at;
        if let Item::Message { to: node, .. }
        | Item::Opening { to: node, .. }
        | Item::Mail { node, .. }
        | Item::Request { node, .. } = item
            && self.machines[node].paused > self.now
        {
            let left = self.machines[node].paused - self.now;
            self.at(left, item);
            return Ok(());
        }
        match item {
            Item::Message { to, from, link, message, nonsense } => self.arrive(to, from, link, message, nonsense),
            Item::Opening { to, from, link, opening } => self.open(to, from, link, opening),
            Item::Mail { node, run, mail } => {
                if self.machines[node].node.as_ref().is_some_and(|running| running.run == run) {
                    self.open_mail(node, mail)?;
                }
                Ok(())
            }
            Item::Dial { a, b } => self.dial(a, b),
            Item::Request { node, waiter, badge, ask } => self.request(node, waiter, &badge, ask),
            Item::Answer { connection, token, answered } => self.answer(connection, token, answered),
            Item::Ended(connection) => {
                self.connection_ended(connection);
                Ok(())
            }
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
            Item::HangUp { a, b, link } => self.hung_up(a, b, link),
            Item::AskForStore { node, store } => self.ask_for_store(node, store),
            Item::Exchange(node) => self.exchange_now_and_then(node),
            Item::OldCopy { node, store, log, books } => self.put_old_copy(node, store, log, books),
        }
    }

    fn open_mail(&mut self, index: usize, mail: Mail<W::Machine>) -> Check {
        match mail {
            Mail::Events(events) => events.into_iter().try_for_each(|event| self.tell(index, event)),
            Mail::Persisted(ticket) => self.persisted(index, ticket),
            Mail::Notices(notices) => self.notices(index, notices),
            Mail::Pump => self.pump(index),
            Mail::Wake => self.proposer(index, |proposer, _, out| proposer.wake(out)),
            Mail::Look => self.look_at_clock(index),
            Mail::Apply(slot, batch) => self.apply(index, slot, batch),
            Mail::AppliedTime(time) => self.applied_time(index, time),
            Mail::Can(level) => self.can(index, level),
            Mail::ReadAt(read, slot) => self.read_at(index, read, slot),
            Mail::Install(install) => self.install(index, install),
            Mail::Bank(act) => self.bank(index, act),
            Mail::Work => self.work(index),
            Mail::ReadBlock(number) => self.read_block(index, number),
            Mail::Snapshotter(act) => self.snapshotter(index, act),
            Mail::Read(wanted) => self.read_for_peer(index, wanted),
            Mail::Worked => self.worked(index),
            Mail::Installed { slot, hash, ledger, decisions } => self.installed(index, (slot, hash), ledger, decisions),
            Mail::Write => {
                self.start_write(index);
                Ok(())
            }
            Mail::Written => self.written(index),
            Mail::Flush(peer) => self.link(index, peer, Link::flush),
            Mail::Transmit(peer) => self.transmit(index, peer),
            Mail::Tick => {
                self.voter(index, Voter::tick)?;
                self.babble_now_and_then(index);
                self.proposer(index, |proposer, _, out| proposer.tick(out))?;
                self.check_sessions(index)?;
                self.give_up_silent_links(index)?;
                self.look_after_store(index);
                self.mail(index, TICK, Mail::Tick);
                Ok(())
            }
            Mail::Sweep => {
                self.bank(index, Bank::sweep)?;
                self.snapshotter(index, Snapshotter::sweep)?;
                self.mail(index, SWEEP, Mail::Sweep);
                Ok(())
            }
        }
    }
}

/// The constants of the cluster of a seed, with small windows and few sessions in some.
fn genesis(seed: u64, members: usize, random: &mut Rng) -> Genesis {
    let mut cluster = [0; 16];
    cluster[8..].copy_from_slice(&seed.to_be_bytes());
    let stores = NodeId::all(members).map(|node| StoreId([node.get(); 16])).collect();
    let mut genesis = Genesis::new(ClusterId(cluster), stores);
    genesis.window = [2, 4, 16][random.usize(..3)];
    if random.u32(..4) == 0 {
        genesis.transaction_limit = rabia_bank_messages::bank::MAX_BALANCE;
    }
    genesis.bank.allow_overdraft = random.bool();
    if random.u32(..3) == 0 {
        // Of which one principal has 2, 5 and 100.
        let open = [2, 6, 133][random.usize(..3)];
        genesis.sessions = SessionLimits { open, idle_ms: random.u64(300..3_000) };
    }
    genesis
}

fn store_violation(node: NodeId, error: &impl std::fmt::Display) -> Violation {
    Violation { property: "store", what: format!("the store of node {node}: {error}") }
}
