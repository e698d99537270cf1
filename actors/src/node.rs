//! A node: builds and wires the other actors, watches them, stops them.
//!
//! [`start`] opens the stores, makes the ledger of the books and of the log behind them, and starts the actors on the current arbiter; the log writer
//! gets a thread of its own. What it returns, a [`NodeHandle`], takes sockets of clients and peers, reports a failure, and
//! stops the node. Listening and dialling is the business of whoever holds the handle.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::{SinkExt, StreamExt};
use rabia_bank_messages::batch::BadPayload;
use rabia_bank_messages::codec::{decode_opening, encode_opening};
use rabia_bank_messages::genesis::{Replacement, SessionLimits};
use rabia_bank_messages::ids::{BatchId, Digest, MAX_NODES, Millis, NodeId, RunId, SessionKey, Slot, StoreId};
use rabia_bank_messages::lineage::log_hash;
use rabia_bank_messages::peer::{self, HelloRefused, Opening, RefusalReason};
use rabia_bank_messages::promise::{Identity, Recovered};
use rabia_bank_storage::{BooksStore, BooksView, Entries, LogReader, LogStore, StoreError};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::{error, info, warn};

use crate::bank::{Bank, BankState, ClientId, SnapshotPolicy, StandingOf, TakeSnapshot};
use crate::client_session::{BudgetSettings, Budgets, ClientSession, Goaway, SessionSettings, Visitor};
use crate::consensus::agreement::Agreement;
use crate::consensus::stores::{Standing, Stores};
use crate::handshake::Handshake;
use crate::host_session::{HostSession, Leave};
use crate::ledger::{Applied, Ledger};
use crate::log::Log;
use crate::metered::Meter;
use crate::owner::Owner;
use crate::pace::LongMessages;
use crate::peer_link::{Attach, MayAttach, PeerLink, PeerSocket, STANDS, link_socket, refused_by, refused_by_caller};
use crate::proposer::{AcceptClock, Proposer, Replace};
use crate::snapshot::{BooksError, log_hash_of, restore};
use crate::snapshotter::{Snapshotter, SnapshotterNeighbours};
use crate::stages::StageCounts;
use crate::timekeeper::Timekeeper;
use crate::voter::{Introduce, LinkUp, Meet, Voter, VoterNeighbours};

/// Bytes of log that are read at a time while the ledger is rebuilt.
const REPLAY_BYTES: usize = 4 << 20;
/// A node that stops waits no longer for its last write.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// How often the node looks whether all its actors live.
const WATCH: Duration = Duration::from_millis(250);
/// How often a long replay is reported.
const REPORT: Duration = Duration::from_secs(2);
/// A replacement that was not decided within this time is given up …
const REPLACING: Duration = Duration::from_secs(30);
/// … after it was proposed again this often …
const PROPOSE_AGAIN: Duration = Duration::from_secs(3);
/// … and looked for this often.
const LOOK: Duration = Duration::from_millis(20);

/// What a node needs to start.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The cluster, and which member this is.
    pub identity: Identity,
    /// Its log, made when the cluster was created.
    pub log: PathBuf,
    /// Its books, likewise.
    pub books: PathBuf,
    /// Where it keeps what it knows of time: see [`uptime`](crate::uptime). Need not be there.
    pub clock: PathBuf,
    /// When it takes snapshots.
    pub snapshots: SnapshotPolicy,
    /// The longest message of a client, in bytes.
    pub max_message_bytes: usize,
    /// Requests of one connection that may wait for their answers.
    pub max_in_flight: usize,
    /// Commands of this node's clients that may wait for their slot.
    pub max_in_flight_node: usize,
    /// How long a request may wait before it is answered `no_quorum`.
    pub request_timeout: Duration,
    /// Connections of clients that are brought at most, for the status.
    pub max_clients: u64,
    /// Files and sockets that the process may have open, for the status.
    pub descriptors: u64,
    /// How many bytes of its clients may wait.
    pub budgets: BudgetSettings,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The books can't be used.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The books are of a cluster with another limit.
    #[error("the books are of a cluster with a limit of {found} per transaction, this one's is {expected}")]
    Limit {
        /// That of the books.
        found: u64,
        /// That of the configuration.
        expected: u64,
    },
    /// The books are of a cluster whose sessions expire otherwise.
    #[error(
        "the books are of a cluster with max_sessions = {} and session_idle_ms = {}, this one's are {} and {}",
        found.open, found.idle_ms, expected.open, expected.idle_ms
    )]
    Sessions {
        /// Those of the books.
        found: SessionLimits,
        /// Those of the configuration.
        expected: SessionLimits,
    },
    /// The log can't be applied.
    #[error("slot {slot} of the log can't be applied: {why}")]
    Replay {
        /// Which slot.
        slot: Slot,
        /// Why.
        why: String,
    },
    /// The store was replaced by another.
    #[error(
        "{} is of a store that was replaced: in slot {} node {} got the store {} instead. It has no part in the cluster any \
         more, and may be deleted. Check the paths: was an old file put back?",
        file.display(), by.slot, by.node, by.store
    )]
    Replaced {
        /// The log.
        file: PathBuf,
        /// By which one.
        by: Replacement,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// Figures that the actors keep for `status`.
#[derive(Debug)]
pub struct Gauges {
    /// When the node started.
    pub started: Instant,
    /// Whether the link to each peer works.
    pub connected: [AtomicBool; MAX_NODES],
    /// The last slot applied.
    pub applied_slot: AtomicU64,
    /// Slots that this node decided by votes: in phase 1, 2, 3, and 4 or later.
    pub phases: [AtomicU64; 4],
    /// Slots in agreement.
    pub open_slots: AtomicU64,
    /// The furthest slot that a peer is known to have.
    pub known_elsewhere: AtomicU64,
    /// Durable commits.
    pub commits: AtomicU64,
    /// Connections of clients.
    pub clients: AtomicU64,
    /// How many there may be.
    pub max_clients: u64,
    /// Files and sockets that the process may have open.
    pub descriptors: u64,
    /// Commands of this node's clients that wait for their slot.
    pub waiting_requests: AtomicU64,
    /// What long messages of clients have had of the thread's time.
    pub(crate) long_messages: Arc<LongMessages>,
    /// Requests of peers for decided slots.
    pub catch_ups_served: AtomicU64,
    /// The slot that the books on disk stand after.
    pub snapshot_slot: AtomicU64,
    /// Bytes of a snapshot that is being received; 0 if none is.
    pub received_bytes: AtomicU64,
    /// The wall clock less that of the others, in milliseconds.
    pub clock_offset_ms: AtomicI64,
    /// How far the wall clock is beyond what is confirmed, if that is a leap, in milliseconds.
    pub clock_leap_ms: AtomicU64,
    /// How long the stages of requests took.
    pub stages: StageCounts,
}

impl Gauges {
    /// Those of a node that started then, which brings so many clients and may have so many descriptors open.
    pub fn new(started: Instant, max_clients: u64, descriptors: u64) -> Gauges {
        Gauges {
            started,
            max_clients,
            descriptors,
            connected: Default::default(),
            applied_slot: AtomicU64::new(0),
            phases: Default::default(),
            open_slots: AtomicU64::new(0),
            known_elsewhere: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            clients: AtomicU64::new(0),
            waiting_requests: AtomicU64::new(0),
            long_messages: Arc::default(),
            catch_ups_served: AtomicU64::new(0),
            snapshot_slot: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            clock_offset_ms: AtomicI64::new(0),
            clock_leap_ms: AtomicU64::new(0),
            stages: StageCounts::new(),
        }
    }
}

/// Why a node had to stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// A file is not what was written: the node stops again at the next start, until its store is replaced.
    Damaged(String),
    /// A person has to change something before it may start again.
    Refused(String),
    /// Anything else: it may be started again.
    Stopped(String),
}

impl std::fmt::Display for Failure {
    /// What happened, and what to do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Failure::Damaged(why) | Failure::Refused(why) | Failure::Stopped(why)) = self;
        f.write_str(why)
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Stopped(why)
    }
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Failure {
        match error {
            StoreError::Damaged { .. } => Failure::Damaged(error.to_string()),
            _ => Failure::Stopped(error.to_string()),
        }
    }
}

impl From<&BooksError> for Failure {
    fn from(error: &BooksError) -> Failure {
        match error {
            BooksError::Store(error) => error.into(),
            BooksError::Bad(_) => Failure::Damaged(error.to_string()),
        }
    }
}

/// Something happened that is not the same on every node: this one stops.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct Failed(pub Failure);

/// What is let go of when a connection has ended.
pub type Seat = Box<dyn std::any::Any + Send>;

/// Serve this client.
#[derive(Message)]
#[rtype(result = "()")]
struct Serve(Visitor);

/// Open a session of the host.
#[derive(Message)]
#[rtype(result = "Addr<HostSession>")]
struct OpenSession {
    key: SessionKey,
    own_key: bool,
}

/// Stop everything.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// Knows all the others.
pub struct Node {
    settings: Arc<SessionSettings>,
    gauges: Arc<Gauges>,
    proposer: Addr<Proposer>,
    voter: Addr<Voter>,
    bank: Addr<Bank>,
    snapshotter: Addr<Snapshotter>,
    links: Vec<(NodeId, Addr<PeerLink>)>,
    log: Addr<Log>,
    log_thread: Arbiter,
    clients: ClientId,
    sessions: Vec<Addr<ClientSession>>,
    host_sessions: Vec<Addr<HostSession>>,
    failure: watch::Sender<Option<Failure>>,
}

/// The node has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// A running node, to whoever started it.
#[derive(Clone)]
pub struct NodeHandle {
    me: NodeId,
    node: Addr<Node>,
    voter: Addr<Voter>,
    links: Vec<(NodeId, Addr<PeerLink>)>,
    gauges: Arc<Gauges>,
    bank: Addr<Bank>,
    proposer: Addr<Proposer>,
    budgets: Budgets,
    failure: watch::Receiver<Option<Failure>>,
}

/// Opens the stores, rebuilds the ledger, and starts the actors. To be called inside an actix System. Blocks while the books
/// are read and the log behind them is applied.
///
/// # Errors
/// If a store is not there, in use, damaged or not this member's.
pub fn start(settings: NodeSettings) -> Result<NodeHandle, StartError> {
    let started = Instant::now();
    let mut files = Files::open(&settings)?;
    let rebuilt = rebuild(&settings.identity, &files.books, &files.log.reader(), files.recovered.decided)?;
    check_standing(&settings, &files, &rebuilt.ledger)?;
    files.begin_run()?;
    info!(
        node = %settings.identity.node,
        start = files.recovered.starts,
        snapshot = files.books.slot(),
        slot = rebuilt.ledger.applied(),
        took_ms = started.elapsed().as_millis() as u64,
        "the ledger is rebuilt"
    );
    Ok(wire(settings, files, rebuilt))
}

/// Both files of a node, open.
struct Files {
    log: LogStore,
    recovered: Recovered,
    books: BooksStore,
}

impl Files {
    fn open(settings: &NodeSettings) -> Result<Files, StartError> {
        let mut books = None;
        let (mut log, mut recovered) = LogStore::open(&settings.log, &settings.identity, || {
            let opened = books.insert(BooksStore::open(&settings.books, &settings.identity)?);
            Ok(opened.slot())
        })?;
        let Some(books) = books else { unreachable!("the log was opened without the books") };
        books.check_store(recovered.store)?;
        let hash = log_hash_of(&books.reader().view()?)?;
        log.settle(hash, &mut recovered)?;
        Ok(Files { log, recovered, books })
    }

    /// Rule 12: the run is durable before its first hello.
    fn begin_run(&mut self) -> Result<(), StartError> {
        let mut run = [0; 16];
        getrandom::fill(&mut run).map_err(|error| StartError::Random(error.to_string()))?;
        let began = self.log.begin_run(RunId(run), &self.recovered)?;
        self.recovered.runs.push(began);
        Ok(())
    }
}

/// A store that was replaced does not start, where its own log says so.
fn check_standing(settings: &NodeSettings, files: &Files, ledger: &Ledger) -> Result<(), StartError> {
    let Identity { genesis, node } = &settings.identity;
    match Stores::new(genesis, ledger.replacements()).standing(*node, files.recovered.store) {
        Standing::Former(by) => Err(StartError::Replaced { file: settings.log.clone(), by }),
        Standing::Current | Standing::Unknown => Ok(()),
    }
}

/// A decided slot.
pub type Decision = (Slot, Option<BatchId>);

/// What a node knows when it starts.
pub struct Rebuilt {
    /// The state after the last slot of the log.
    pub ledger: Ledger,
    /// The last decisions, from which owners of coming slots are read.
    pub decisions: Vec<Decision>,
    /// The hash of the log up to there.
    pub hash: Digest,
    /// How many bytes of batches the log has behind the books.
    pub replayed_bytes: u64,
}

/// Makes the ledger of the books, and of the log behind them up to the slot `decided`.
///
/// # Errors
/// If the books or the log can't be read or applied, or are of a cluster with other constants.
pub fn rebuild(identity: &Identity, books: &BooksStore, log: &LogReader, decided: Slot) -> Result<Rebuilt, StartError> {
    let (limit, sessions) = (identity.genesis.transaction_limit, identity.genesis.sessions);
    let view = books.reader().view().map_err(BooksError::from)?;
    let (ledger, decisions) = restore(&view)?.unwrap_or_else(|| (Ledger::new(limit, sessions), Vec::new()));
    let hash = log_hash_of(&view)?;
    if ledger.transaction_limit() != limit {
        return Err(StartError::Limit { found: ledger.transaction_limit(), expected: limit });
    }
    if ledger.session_limits() != sessions {
        return Err(StartError::Sessions { found: ledger.session_limits(), expected: sessions });
    }
    replay(identity, ledger, (decisions, hash), log, decided)
}

/// Applies the log up to the slot `decided` to a ledger; `decisions` are those before it, and `hash` that of the log there.
///
/// # Errors
/// If the log can't be read or applied.
pub fn replay(
    identity: &Identity,
    mut ledger: Ledger,
    (mut decisions, mut hash): (Vec<Decision>, Digest),
    reader: &LogReader,
    decided: Slot,
) -> Result<Rebuilt, StartError> {
    let mut replayed_bytes = 0;
    let keep = *identity.genesis.owner_slots(decided + 1).start();
    let mut reported = Instant::now();
    while ledger.applied() < decided {
        let from = ledger.applied() + 1;
        let Entries::Found(entries) = reader.entries(from, REPLAY_BYTES)? else {
            return Err(StartError::Replay { slot: from, why: "the log does not go back so far".into() });
        };
        for entry in entries {
            let batch = entry.batch.as_ref().map(|(id, payload)| (id, payload));
            if let Applied::Unusable(why) = ledger.replay(entry.slot, batch) {
                warn_of_unusable(entry.slot, batch.map(|(id, _)| id), &why);
            }
            replayed_bytes += batch.map_or(0, |(_, payload)| payload.len() as u64);
            let value = batch.map(|(id, _)| *id);
            decisions.push((entry.slot, value));
            hash = log_hash(hash, entry.slot, &value);
        }
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            info!(slot = ledger.applied(), of = decided, "applying the log");
        }
    }
    decisions.retain(|(slot, _)| *slot >= keep);
    // Hashes what has changed: the first one who asks must not wait for it.
    ledger.digest();
    Ok(Rebuilt { ledger, decisions, hash, replayed_bytes })
}

/// Says that a batch that no honest node proposes was decided.
pub(crate) fn warn_of_unusable(slot: Slot, id: Option<&BatchId>, why: &BadPayload) {
    error!(
        slot,
        batch = id.map(tracing::field::display),
        %why,
        "the batch that was decided in this slot can't be applied, so every node applies it as an empty one. No node of this \
         version proposes such a batch: look for one that is damaged or runs another program"
    );
}

/// Creates all mailboxes, so that every actor gets the addresses of its neighbours, and then the actors.
fn wire(settings: NodeSettings, files: Files, rebuilt: Rebuilt) -> NodeHandle {
    let Files { log: store, recovered, books } = files;
    let Identity { genesis, node: me } = settings.identity.clone();
    let started = Instant::now();
    let gauges = Arc::new(Gauges::new(started, settings.max_clients, settings.descriptors));
    let node = Context::<Node>::new();
    let voter = Context::<Voter>::new();
    let proposer = Context::<Proposer>::new();
    let bank = Context::<Bank>::new();
    let snapshotter = Context::<Snapshotter>::new();
    let failed = node.address().recipient::<Failed>();

    let peers = genesis.nodes().filter(|peer| *peer != me);
    let links: Vec<_> = peers.map(|peer| (peer, PeerLink::new(peer, voter.address()).start())).collect();
    let reader = store.reader();
    let log_thread = Arbiter::new();
    let log = Log::start_in_arbiter(&log_thread.handle(), {
        let (gauges, persisted, failed) = (gauges.clone(), voter.address().recipient(), failed.clone());
        move |_| Log::new(store, gauges, persisted, failed)
    });

    let mut first = Vec::new();
    let core = Agreement::new(genesis.clone(), me, &recovered, rebuilt.ledger.replacements(), &mut first);
    let handshake = Handshake::new(genesis.clone(), me, recovered.store);
    let incarnation = core.stores().incarnation(me, recovered.store, recovered.starts);
    let neighbours = VoterNeighbours {
        log: log.clone(),
        bank: bank.address(),
        proposer: proposer.address(),
        snapshotter: snapshotter.address(),
        links: links.clone(),
        node: failed.clone(),
    };
    let voter = voter.run(Voter::new(core, first, handshake, started, gauges.clone(), neighbours));
    let pool = Proposer::pool(&genesis, me, incarnation, recovered.decided, rebuilt.decisions.iter().copied());
    let proposer = proposer.run(Proposer::new(
        pool,
        started,
        Timekeeper::new(settings.clock),
        rebuilt.ledger.log_time(),
        settings.max_in_flight_node,
        gauges.clone(),
        bank.address(),
        voter.clone(),
        links.clone(),
    ));
    let bank_state = BankState { rebuilt, books: books.reader(), policy: settings.snapshots };
    let snapshotter_neighbours = SnapshotterNeighbours {
        bank: bank.address(),
        voter: voter.clone(),
        log: log.clone(),
        links: links.clone(),
        node: failed.clone(),
    };
    let snapshotter = snapshotter.run(Snapshotter::new(reader, books, snapshotter_neighbours, gauges.clone()));
    let budgets = Budgets::new(settings.budgets);
    let session_settings = SessionSettings {
        node: me,
        cluster: genesis.cluster,
        max_message_bytes: settings.max_message_bytes,
        max_in_flight: settings.max_in_flight,
        request_timeout: settings.request_timeout,
        budgets: budgets.clone(),
    };
    let bank = bank.run(Bank::new(
        me,
        genesis,
        bank_state,
        gauges.clone(),
        voter.clone(),
        proposer.clone(),
        snapshotter.clone(),
        failed.clone(),
    ));
    let (failure, watched) = watch::channel(None);
    let node = node.run(Node {
        settings: Arc::new(session_settings),
        gauges: gauges.clone(),
        proposer: proposer.clone(),
        voter: voter.clone(),
        bank: bank.clone(),
        snapshotter,
        links: links.clone(),
        log,
        log_thread,
        clients: 0,
        sessions: Vec::new(),
        host_sessions: Vec::new(),
        failure,
    });
    NodeHandle { me, node, voter, links, gauges, bank, proposer, failure: watched, budgets }
}

impl Node {
    /// A panicking actor vanishes and its System lives on: half a node must not.
    fn watch(&mut self) {
        let living = [
            ("proposer", self.proposer.connected()),
            ("voter", self.voter.connected()),
            ("bank", self.bank.connected()),
            ("snapshotter", self.snapshotter.connected()),
            ("log", self.log.connected()),
            ("peer link", self.links.iter().all(|(_, link)| link.connected())),
        ];
        if let Some((name, _)) = living.iter().find(|(_, lives)| !lives) {
            self.fail(format!("the {name} actor has died: see the panic message above").into());
        }
        self.sessions.retain(Addr::connected);
        self.host_sessions.retain(Addr::connected);
    }

    fn fail(&mut self, why: Failure) {
        // The first failure is the cause, later ones follow from it.
        self.failure.send_if_modified(|failure| failure.is_none().then(|| *failure = Some(why)).is_some());
    }
}

impl Actor for Node {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(WATCH, |node, _| node.watch());
    }
}

impl Handler<Failed> for Node {
    type Result = ();

    fn handle(&mut self, Failed(why): Failed, _: &mut Self::Context) {
        self.fail(why);
    }
}

impl Handler<Serve> for Node {
    type Result = ();

    fn handle(&mut self, Serve(visitor): Serve, _: &mut Self::Context) {
        self.clients += 1;
        let session = ClientSession::new(
            self.clients,
            visitor,
            self.settings.clone(),
            self.gauges.clone(),
            self.proposer.clone(),
            self.bank.clone(),
        );
        self.sessions.push(session.start());
    }
}

impl Handler<OpenSession> for Node {
    type Result = MessageResult<OpenSession>;

    fn handle(&mut self, OpenSession { key, own_key }: OpenSession, _: &mut Self::Context) -> Self::Result {
        self.clients += 1;
        let (proposer, bank) = (self.proposer.clone(), self.bank.clone());
        let session =
            HostSession::new(self.clients, key, own_key, self.settings.clone(), self.gauges.clone(), proposer, bank)
                .start();
        self.host_sessions.push(session.clone());
        MessageResult(session)
    }
}

impl Handler<Stop> for Node {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, stop: Stop, ctx: &mut Self::Context) -> Self::Result {
        for session in &self.sessions {
            session.do_send(Goaway);
        }
        for session in &self.host_sessions {
            session.do_send(Leave { close: false });
        }
        // Half a node would keep its links and the store, and its peers would not call the one that takes its place.
        self.links.iter().for_each(|(_, link)| link.do_send(stop));
        self.proposer.do_send(stop);
        self.bank.do_send(stop);
        self.snapshotter.do_send(stop);
        self.fail(Failure::Stopped("the node was stopped".into()));
        ctx.stop();
        let (voter, log, log_thread) = (self.voter.clone(), self.log.clone(), self.log_thread.handle());
        Box::pin(async move {
            let written = async {
                // An actor that has failed has nothing to write.
                let _ = voter.send(stop).await;
                let _ = log.send(stop).await;
            };
            if timeout(LAST_WRITE, written).await.is_err() {
                warn!("the disk is slow: the last decisions may not be on it, and will be learned from other nodes");
            }
            log_thread.stop();
        })
    }
}

/// These end at once: what they still had to say, a crash might have taken too.
macro_rules! stops {
    ($($actor:ty),*) => {$(
        impl Handler<Stop> for $actor {
            type Result = ();

            fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
                ctx.stop();
            }
        }
    )*};
}

stops!(PeerLink, Proposer, Bank, Snapshotter);

impl NodeHandle {
    /// The meter of a connection that a client of this owner opens.
    pub fn meter(&self, owner: Owner) -> Arc<Meter> {
        Meter::new(self.budgets.unfinished.open(owner))
    }

    /// Serves a client.
    pub fn serve_client(&self, visitor: Visitor) {
        self.node.do_send(Serve(visitor));
    }

    /// A session of the program that this node lives in. It ends with [`Leave`], or with the node.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn open_session(&self, key: SessionKey) -> Result<Addr<HostSession>, Stopped> {
        self.node.send(OpenSession { key, own_key: false }).await.map_err(|_| Stopped)
    }

    /// The same with a key that was drawn for it, and that nobody else has: when it has expired, another takes its place.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn open_own_session(&self, key: SessionKey) -> Result<Addr<HostSession>, Stopped> {
        self.node.send(OpenSession { key, own_key: true }).await.map_err(|_| Stopped)
    }

    /// Connections of clients now, and sessions of the host.
    pub fn clients(&self) -> u64 {
        self.gauges.clients.load(Ordering::Relaxed)
    }

    /// Whether the link to this peer works.
    pub fn is_connected(&self, peer: NodeId) -> bool {
        self.gauges.connected[peer.index()].load(Ordering::Relaxed)
    }

    /// The last slot applied.
    pub fn applied_slot(&self) -> Slot {
        self.gauges.applied_slot.load(Ordering::Relaxed)
    }

    /// The books with everything that is applied now, from a snapshot that is taken for it where the last one is older.
    ///
    /// # Errors
    /// If the node stops meanwhile, or the store can't be read.
    pub async fn snapshot(&self) -> Result<BooksView, String> {
        self.bank.send(TakeSnapshot).await.unwrap_or_else(|_| Err("the node is stopping".into()))
    }

    /// An operator says that this node's clock is right, whatever it shows: see [`clocks`](crate::consensus::clocks). Answers how
    /// far that goes beyond what was confirmed, in milliseconds; 0 where nothing was wrong with it.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn accept_clock(&self) -> Result<Millis, Stopped> {
        self.proposer.send(AcceptClock).await.map_err(|_| Stopped)
    }

    /// Gives a member a new store, by the log: see [`consensus::stores`](crate::consensus::stores). Answers the slot in which
    /// that was decided, also if it was long ago.
    ///
    /// # Errors
    /// Why it would have no effect, or that it is not known to be decided; it may be all the same, and the same can be asked
    /// again.
    pub async fn replace(&self, node: NodeId, store: StoreId) -> Result<Slot, String> {
        let began = Instant::now();
        let mut proposed: Option<Instant> = None;
        while began.elapsed() < REPLACING {
            let standing = self.bank.send(StandingOf { node, store }).await;
            match standing.map_err(|_| "the node is stopping".to_owned())?? {
                Some(slot) => return Ok(slot),
                None if proposed.is_none_or(|at| at.elapsed() >= PROPOSE_AGAIN) => {
                    if proposed.is_none() && self.gauges.connected[node.index()].load(Ordering::Relaxed) {
                        return Err(format!("node {node} is at work with its store: stop it first"));
                    }
                    info!(of = %node, %store, "proposing a new store");
                    self.proposer.do_send(Replace { node, store });
                    proposed = Some(Instant::now());
                }
                None => tokio::time::sleep(LOOK).await,
            }
        }
        let seconds = REPLACING.as_secs();
        Err(format!("not decided within {seconds} s: are enough of the other nodes running? It may be yet; ask again"))
    }

    /// Serves a peer that called on a socket with [`opening_socket`](crate::peer_link::opening_socket) as its configuration, until
    /// the link ends. Tells `met` when the peer was accepted. Returns why the link ended.
    pub async fn serve_peer(&self, mut socket: PeerSocket, met: oneshot::Sender<()>) -> String {
        let hello = match read_opening(&mut socket).await {
            Ok(Opening::Hello(hello)) => hello,
            Ok(Opening::Refused(refused)) => return refused_by_caller(&refused),
            Err(refused) => return self.refuse(socket, refused).await,
        };
        let (peer, run, link) = (hello.node, hello.run.run, link_up(&hello, false));
        if let Some((_, link)) = self.links.iter().find(|(id, _)| *id == peer) {
            if !self.is_called_by(peer) {
                let message = format!("node {peer} is called by this node, and does not call it");
                let refused = HelloRefused { reason: RefusalReason::Node, message, evidence: None };
                return self.refuse(socket, refused).await;
            }
            if !link.send(MayAttach(run)).await.unwrap_or(false) {
                // No refusal: whoever speaks in the peer's name on the other link, the peer itself calls again.
                let _ = socket.close(None).await;
                return STANDS.into();
            }
        }
        let answer = match self.voter.send(Meet(hello)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(refused)) => return self.refuse(socket, refused).await,
            Err(_) => return "the node is stopping".into(),
        };
        // Whoever waits for it may be gone.
        let _ = met.send(());
        // The caller says nothing more before it is answered, so nothing is lost that was read ahead.
        let mut socket = PeerSocket::from_raw_socket(socket.into_inner(), Role::Server, Some(link_socket())).await;
        if let Err(error) = socket.send(Frame::binary(encode_opening(&Opening::Hello(answer)))).await {
            return error.to_string();
        }
        self.attach(peer, link, run, socket).await
    }

    /// Of two members the one with the lower number calls.
    fn is_called_by(&self, peer: NodeId) -> bool {
        peer < self.me
    }

    /// Uses a socket on which this node called a peer, until the link ends. Returns why it ended.
    pub async fn call_peer(&self, peer: NodeId, mut socket: PeerSocket) -> String {
        let Ok(hello) = self.voter.send(Introduce(peer)).await else { return "the node is stopping".into() };
        if let Err(error) = socket.send(Frame::binary(encode_opening(&Opening::Hello(hello)))).await {
            return error.to_string();
        }
        let hello: peer::Hello = match read_opening(&mut socket).await {
            Ok(Opening::Hello(hello)) => hello,
            Ok(Opening::Refused(refused)) => return refused_by(peer, &refused, &self.voter),
            Err(refused) => return self.refuse(socket, refused).await,
        };
        if hello.node != peer {
            let message = format!("node {} answered where node {peer} was called", hello.node);
            let refused = HelloRefused { reason: RefusalReason::Node, message, evidence: None };
            return self.refuse(socket, refused).await;
        }
        let (link, run) = (link_up(&hello, true), hello.run.run);
        match self.voter.send(Meet(hello)).await {
            Ok(Ok(_)) => self.attach(peer, link, run, socket).await,
            Ok(Err(refused)) => self.refuse(socket, refused).await,
            Err(_) => "the node is stopping".into(),
        }
    }

    async fn attach(&self, peer: NodeId, up: LinkUp, run: RunId, socket: PeerSocket) -> String {
        let Some((_, link)) = self.links.iter().find(|(id, _)| *id == peer) else {
            return format!("node {peer} is no peer");
        };
        link.send(Attach { socket, link: up, run }).await.unwrap_or_else(|_| "the node is stopping".into())
    }

    async fn refuse(&self, mut socket: PeerSocket, refused: HelloRefused) -> String {
        let why = format!("refused: {}: {}", refused.reason, refused.message);
        // Who is refused may be gone already.
        let _ = socket.send(Frame::binary(encode_opening(&Opening::Refused(refused)))).await;
        let _ = socket.close(None).await;
        why
    }

    /// Resolves when the node has failed, with the reason, or was stopped. The holder of a node that failed stops it.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.failure.clone();
        let failed = failure.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        failed.unwrap_or_else(|| Failure::Stopped("the node actor has died: see the panic message above".into()))
    }

    /// Stops the node: tells its clients, closes its links, and lets go of the store when the write that is under way has
    /// ended.
    pub async fn stop(&self) {
        // A node that is gone needs no stopping.
        let _ = self.node.send(Stop).await;
    }
}

fn link_up(hello: &peer::Hello, dialled: bool) -> LinkUp {
    LinkUp { store: hello.store, dialled, decided: hello.decided, log_hash: hello.log_hash }
}

/// How long a peer may take to introduce itself.
const OPENING: Duration = Duration::from_secs(5);

async fn read_opening(socket: &mut PeerSocket) -> Result<Opening, HelloRefused> {
    let refused = |reason, message: String| HelloRefused { reason, message, evidence: None };
    match tokio::time::timeout(OPENING, socket.next()).await {
        Ok(Some(Ok(Frame::Binary(bytes)))) => decode_opening(&bytes).map_err(|error| match error {
            rabia_bank_messages::codec::BadFrame::Version(_) => refused(RefusalReason::Version, error.to_string()),
            error => refused(RefusalReason::NoHello, error.to_string()),
        }),
        Ok(Some(Ok(_))) => Err(refused(RefusalReason::NoHello, "the first frame is not binary".into())),
        Ok(Some(Err(error))) => Err(refused(RefusalReason::NoHello, error.to_string())),
        Ok(None) => Err(refused(RefusalReason::NoHello, "the link was closed before a hello".into())),
        Err(_) => Err(refused(RefusalReason::NoHello, format!("no hello within {} s", OPENING.as_secs()))),
    }
}
