//! Starting a node: [`start`] opens the stores, makes the ledger of the books and of the log behind them, and starts the actors on the
//! current arbiter, each with the inboxes of its neighbours. The log writer gets a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{NodeId, RunId, StoreId};
use rabia_bank_messages::promise::{Identity, Recovered};
use rabia_bank_storage::{BooksStore, LogStore};
use tokio::sync::watch;
use tracing::info;

use crate::applied::AppliedSlot;
use crate::bank::{Bank, BankNeighbours};
use crate::budget::{BudgetSettings, Budgets, RequestBudget};
use crate::consensus::agreement::{Agreement, Effect};
use crate::consensus::handshake::Handshake;
use crate::consensus::stores::{Standing, Stores};
use crate::failure::StartError;
use crate::handle::{Cores, NodeHandle, Sessions};
use crate::ledger;
use crate::ledger::machine::StateMachine;
use crate::ledger::replicated::Replicated;
use crate::log::Log;
use crate::mail::bank::{BankInbox, MachineInbox};
use crate::mail::log::LogInbox;
use crate::mail::node::Failed;
use crate::mail::peer_link::{LinkInbox, Links};
use crate::mail::proposer::{ProposerInbox, Submit};
use crate::mail::snapshotter::SnapshotterInbox;
use crate::mail::voter::{Persisted, VoterInbox};
use crate::metrics::Metrics;
use crate::node::{Crew, Node};
use crate::parts::bank::{self, BankState, Portions, SnapshotPolicy};
use crate::parts::proposer::{self as proposing, ProposerState};
use crate::parts::snapshotter::{self, Patience};
use crate::peer_link::PeerLink;
use crate::proposer::{Proposer, ProposerNeighbours};
use crate::rebuild::{Rebuilt, rebuild};
use crate::session::{SessionNeighbours, SessionSettings};
use crate::snapshot::log_hash_of;
use crate::snapshotter::{Snapshotter, SnapshotterNeighbours};
use crate::timekeeper::ClockFile;
use crate::uptime::since_boot;
use crate::voter::{Voter, VoterNeighbours};

/// What a node needs to start.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The cluster, and which member this is.
    pub identity: Identity,
    /// Its log, made when the cluster was created.
    pub log: PathBuf,
    /// Its books, made when the cluster was created.
    pub books: PathBuf,
    /// Where it keeps what it knows of time: see [`uptime`](crate::uptime). Need not be there.
    pub clock: PathBuf,
    /// The file of the member's key, for messages …
    pub key: PathBuf,
    /// … and the store that it is the key of.
    pub key_store: StoreId,
    /// When it takes snapshots.
    pub snapshots: SnapshotPolicy,
    /// The longest message of a client, in bytes.
    pub max_message_bytes: usize,
    /// Requests of one connection that may wait for their answers.
    pub max_in_flight: usize,
    /// Commands of this node's clients that may wait for their slot …
    pub max_in_flight_node: usize,
    /// … and of one principal.
    pub max_in_flight_per_principal: usize,
    /// Records that are looked at for queries and feeds of one principal, a second.
    pub max_scanned_per_principal: u64,
    /// How long a request may wait before it is answered `no_quorum`.
    pub request_timeout: Duration,
    /// Connections of clients that are brought at most, for the status.
    pub max_clients: u64,
    /// Files and sockets that the process may have open, for the status.
    pub descriptors: u64,
    /// How much of its clients may wait.
    pub budgets: BudgetSettings,
}

/// Opens the stores, rebuilds the ledger, and starts the actors. To be called inside an actix System. Blocks while the books
/// are read and the log behind them is applied.
///
/// # Errors
/// If a store is not there, in use, damaged or not this member's, or has another key.
pub fn start(settings: NodeSettings) -> Result<(NodeHandle, Sessions), StartError> {
    let (handle, node) = start_actors::<ledger::Bank>(settings)?;
    let (serve, sessions) = (node.clone().recipient(), Sessions(node.recipient()));
    Ok((NodeHandle { bank: Some((serve, sessions.clone())), ..handle }, sessions))
}

/// The same with another machine than the bank. Nobody but the program that the node lives in speaks to it.
///
/// # Errors
/// If a store is not there, in use, damaged, not this member's, or of another machine.
pub fn start_machine<S: StateMachine>(settings: NodeSettings) -> Result<(NodeHandle, Sessions<S>), StartError> {
    let (handle, node) = start_actors::<S>(settings)?;
    Ok((handle, Sessions(node.recipient())))
}

fn start_actors<S: StateMachine>(settings: NodeSettings) -> Result<(NodeHandle, Addr<Node<S>>), StartError> {
    let started = Instant::now();
    let mut files = Files::open::<S>(&settings)?;
    let rebuilt = rebuild::<S>(&settings.identity, &files.books, &files.log.reader(), files.recovered.decided)?;
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
    fn open<S: StateMachine>(settings: &NodeSettings) -> Result<Files, StartError> {
        let mut books = None;
        let (mut log, mut recovered) = LogStore::open(&settings.log, &settings.identity, || {
            let opened = books.insert(BooksStore::open(&settings.books, &settings.identity)?);
            Ok(opened.slot())
        })?;
        let Some(books) = books else { unreachable!("the log was opened without the books") };
        books.check_store(recovered.store)?;
        let hash = log_hash_of::<S>(&books.reader().view()?)?;
        log.settle(hash, &mut recovered)?;
        if recovered.store != settings.key_store {
            let (file, found) = (settings.key.clone(), settings.key_store);
            return Err(StartError::OtherKey { file, found, expected: recovered.store });
        }
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
fn check_standing<S: StateMachine>(
    settings: &NodeSettings,
    files: &Files,
    ledger: &Replicated<S>,
) -> Result<(), StartError> {
    let Identity { genesis, node } = &settings.identity;
    match Stores::new(genesis, ledger.replacements()).standing(*node, files.recovered.store) {
        Standing::Former(by) => Err(StartError::Replaced { file: settings.log.clone(), by }),
        Standing::Current | Standing::Unknown => Ok(()),
    }
}

/// The inboxes of all actors.
struct Inboxes<S: StateMachine> {
    voter: VoterInbox,
    proposer: ProposerInbox,
    submit: Recipient<Submit<S>>,
    bank: BankInbox,
    machine: MachineInbox<S>,
    snapshotter: SnapshotterInbox,
    log: LogInbox,
    links: Links,
    node: Recipient<Failed>,
}

impl<S: StateMachine> Inboxes<S> {
    fn for_voter(&self) -> VoterNeighbours {
        VoterNeighbours {
            log: self.log.clone(),
            bank: self.bank.clone(),
            proposer: self.proposer.clone(),
            snapshotter: self.snapshotter.clone(),
            links: self.links.clone(),
            node: self.node.clone(),
        }
    }

    fn for_proposer(&self) -> ProposerNeighbours<S> {
        ProposerNeighbours {
            bank: self.bank.clone(),
            machine: self.machine.clone(),
            voter: self.voter.clone(),
            links: self.links.clone(),
        }
    }

    fn for_snapshotter(&self) -> SnapshotterNeighbours<S> {
        SnapshotterNeighbours {
            bank: self.bank.clone(),
            machine: self.machine.clone(),
            voter: self.voter.clone(),
            log: self.log.clone(),
            links: self.links.clone(),
            node: self.node.clone(),
        }
    }

    fn for_sessions(&self, applied: AppliedSlot) -> SessionNeighbours<S> {
        SessionNeighbours { submit: self.submit.clone(), machine: self.machine.clone(), applied }
    }

    fn for_bank(&self) -> BankNeighbours {
        BankNeighbours {
            voter: self.voter.clone(),
            proposer: self.proposer.clone(),
            snapshotter: self.snapshotter.clone(),
            node: self.node.clone(),
        }
    }
}

/// Creates all mailboxes, so that every actor gets the inboxes of its neighbours, and then the actors.
fn wire<S: StateMachine>(settings: NodeSettings, files: Files, rebuilt: Rebuilt<S>) -> (NodeHandle, Addr<Node<S>>) {
    let Files { log: store, recovered, books } = files;
    let held = [store.held(), books.held()];
    let session_settings = session_settings(&settings);
    let Identity { genesis, node: me } = settings.identity.clone();
    let (started, applied) = (Instant::now(), AppliedSlot::default());
    let metrics = Arc::new(Metrics::new(started, settings.max_clients, settings.descriptors));

    let (node, voter, proposer) = (Context::<Node<S>>::new(), Context::<Voter>::new(), Context::<Proposer<S>>::new());
    let (bank, snapshotter) = (Context::<Bank<S>>::new(), Context::<Snapshotter<S>>::new());
    let failed = node.address().recipient::<Failed>();
    let reader = store.reader();
    let log_thread = Arbiter::new();
    let (to_log, persisted) = (metrics.clone(), voter.address().recipient());
    let log = start_log(&log_thread, store, to_log, persisted, failed.clone());
    let to_voter = VoterInbox::from(&voter.address());
    let links = start_links(&settings.identity, &to_voter);
    let inboxes = Inboxes {
        voter: to_voter,
        proposer: ProposerInbox::from(&proposer.address()),
        submit: proposer.address().recipient(),
        bank: BankInbox::from(&bank.address()),
        machine: MachineInbox::from(&bank.address()),
        snapshotter: SnapshotterInbox::from(&snapshotter.address()),
        log: LogInbox::from(&log),
        links: Links::new(links.iter().map(|(peer, link)| (*peer, LinkInbox::from(link))).collect()),
        node: failed,
    };

    let (core, first) = agreement(&settings.identity, &recovered, &rebuilt);
    let incarnation = core.stores().incarnation(me, recovered.store, recovered.starts);
    let handshake = Handshake::new(genesis.clone(), me, recovered.store);
    let voter = voter.run(Voter::new(core, first, handshake, started, metrics.clone(), inboxes.for_voter()));
    let clock = ClockFile::new(settings.clock);
    let state = ProposerState {
        pool: proposing::pool(&genesis, me, incarnation, recovered.decided, rebuilt.decisions.iter().copied()),
        log_time: rebuilt.ledger.log_time(),
        witness: clock.witness(),
        since_boot: since_boot(),
        requests: RequestBudget::new(settings.max_in_flight_node, settings.max_in_flight_per_principal),
        peers: links.iter().map(|(peer, _)| *peer).collect(),
    };
    let proposer = proposer.run(Proposer::new(state, clock, started, metrics.clone(), inboxes.for_proposer()));
    let portions = Portions { a_second: settings.max_scanned_per_principal, ..Portions::default() };
    let state = BankState { rebuilt, saved: books.slot(), policy: settings.snapshots, portions };
    let ledger_books = books.reader();
    let part = snapshotter::Snapshotter::new(books.reader(), books.slot(), Patience::default(), metrics.clone());
    let snapshotter = snapshotter.run(Snapshotter::new(part, reader, books, inboxes.for_snapshotter()));
    let part = bank::Bank::new(me, genesis, state, applied.clone());
    let bank = bank.run(Bank::new(part, ledger_books, metrics.clone(), inboxes.for_bank()));

    let (failure, watched) = watch::channel(None);
    let crew = Crew {
        proposer: proposer.recipient(),
        voter: voter.recipient(),
        bank: bank.recipient(),
        snapshotter: snapshotter.recipient(),
        links: links.into_iter().map(|(_, link)| link.recipient()).collect(),
        log: log.recipient(),
        log_thread,
        held,
    };
    let neighbours = inboxes.for_sessions(applied.clone());
    let budgets = session_settings.budgets.clone();
    let node = node.run(Node::new(session_settings, metrics.clone(), neighbours, crew, failure));
    let Inboxes { voter, proposer, bank, links, .. } = inboxes;
    let cores = Arc::new(Cores { voter, proposer, bank, links });
    let stop = node.clone().recipient();
    (NodeHandle { me, stop, bank: None, cores, budgets, metrics, applied, failure: watched }, node)
}

/// The log, in a thread of its own, since it waits for the disk.
fn start_log(
    thread: &Arbiter,
    store: LogStore,
    metrics: Arc<Metrics>,
    persisted: Recipient<Persisted>,
    failed: Recipient<Failed>,
) -> Addr<Log> {
    Log::start_in_arbiter(&thread.handle(), move |_| Log::new(store, metrics, persisted, failed))
}

/// An actor for the link to each peer.
fn start_links(identity: &Identity, voter: &VoterInbox) -> Vec<(NodeId, Addr<PeerLink>)> {
    let peers = identity.genesis.nodes().filter(|peer| *peer != identity.node);
    peers.map(|peer| (peer, PeerLink::new(peer, voter.clone()).start())).collect()
}

/// The agreement as the log left it, and what it does first.
fn agreement<S: StateMachine>(
    identity: &Identity,
    recovered: &Recovered,
    rebuilt: &Rebuilt<S>,
) -> (Agreement, Vec<Effect>) {
    let mut first = Vec::new();
    let core =
        Agreement::new(identity.genesis.clone(), identity.node, recovered, rebuilt.ledger.replacements(), &mut first)
            .checking(Payload::check::<S::Command>);
    (core, first)
}

fn session_settings(settings: &NodeSettings) -> SessionSettings {
    let Identity { genesis, node } = &settings.identity;
    SessionSettings {
        node: *node,
        cluster: genesis.cluster,
        nodes: genesis.nodes().collect(),
        max_message_bytes: settings.max_message_bytes,
        max_in_flight: settings.max_in_flight,
        request_timeout: settings.request_timeout,
        budgets: Budgets::new(settings.budgets),
    }
}
