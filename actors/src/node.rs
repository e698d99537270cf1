//! The node actor: knows all others, starts the sessions of clients and of the host, watches, and stops.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use rabia_bank_messages::ids::SessionKey;
use rabia_bank_messages::principal::{HOST, Role};
use rabia_bank_storage::Held;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

use crate::client_session::ClientSession;
use crate::consensus::turns::{ClientId, Owner};
use crate::failure::Failure;
use crate::host_session::HostSession;
use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;
use crate::mail::client_session::{Answers, Client, Goaway};
use crate::mail::host_session::Close;
use crate::mail::node::{Failed, Serve, Stop};
use crate::metrics::Metrics;
use crate::session::{SessionNeighbours, SessionSettings};

/// A node that stops waits no longer for its last write, nor for its files to be closed.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// How often the node looks whether all its actors live.
const WATCH: Duration = Duration::from_millis(250);
/// A node that stops gives its clients this time to go …
const FAREWELL: Duration = Duration::from_secs(2);
/// … and looks this often whether they have.
const LOOK: Duration = Duration::from_millis(10);

/// Open a session of the host.
#[derive(Message)]
#[rtype(result = "Addr<HostSession<S>>")]
pub(crate) struct OpenSession<S: StateMachine = Bank> {
    /// Its key; none: it draws one that nobody else has.
    pub(crate) key: Option<SessionKey>,
    /// The number of the token by which it asks; [`NO_TOKEN`](rabia_bank_messages::principal::NO_TOKEN): as the host.
    pub(crate) token: u64,
    pub(crate) machine: PhantomData<fn() -> S>,
}

/// A client whose answers go to this actor.
fn answering<S: StateMachine>(id: ClientId, owner: Owner, session: Recipient<Answers<S>>) -> Client<S> {
    Client::new(id, owner, move |answers, applied| session.do_send(Answers { answers, applied }))
}

/// The actors that a node watches and stops.
pub(crate) struct Crew {
    pub(crate) proposer: Recipient<Stop>,
    pub(crate) voter: Recipient<Stop>,
    pub(crate) bank: Recipient<Stop>,
    pub(crate) snapshotter: Recipient<Stop>,
    pub(crate) links: Vec<Recipient<Stop>>,
    pub(crate) log: Recipient<Stop>,
    /// Where the log works.
    pub(crate) log_thread: Arbiter,
    /// The files of the log and of the books.
    pub(crate) held: [Held; 2],
}

/// Knows all the others.
pub struct Node<S: StateMachine = Bank> {
    settings: Arc<SessionSettings>,
    metrics: Arc<Metrics>,
    neighbours: Arc<SessionNeighbours<S>>,
    crew: Crew,
    /// The number of the newest session.
    clients: ClientId,
    sessions: Vec<Recipient<Goaway>>,
    host_sessions: Vec<Recipient<Close>>,
    failure: watch::Sender<Option<Failure>>,
}

/// Nothing in it is pinned.
impl<S: StateMachine> Unpin for Node<S> {}

impl<S: StateMachine> Node<S> {
    /// The node of this crew. Its sessions have these settings, and speak to these neighbours.
    pub(crate) fn new(
        settings: SessionSettings,
        metrics: Arc<Metrics>,
        neighbours: SessionNeighbours<S>,
        crew: Crew,
        failure: watch::Sender<Option<Failure>>,
    ) -> Node<S> {
        let (settings, neighbours) = (Arc::new(settings), Arc::new(neighbours));
        let (sessions, host_sessions) = (Vec::new(), Vec::new());
        Node { settings, metrics, neighbours, crew, clients: 0, sessions, host_sessions, failure }
    }

    /// A panicking actor vanishes and its System lives on: half a node must not.
    fn watch(&mut self) {
        let Crew { proposer, voter, bank, snapshotter, links, log, .. } = &self.crew;
        let living = [
            ("proposer", proposer.connected()),
            ("voter", voter.connected()),
            ("bank", bank.connected()),
            ("snapshotter", snapshotter.connected()),
            ("log", log.connected()),
            ("peer link", links.iter().all(Recipient::connected)),
        ];
        if let Some((name, _)) = living.iter().find(|(_, lives)| !lives) {
            self.fail(format!("the {name} actor has died: see the panic message above").into());
        }
        self.sessions.retain(Recipient::connected);
        self.host_sessions.retain(Recipient::connected);
    }

    fn fail(&mut self, why: Failure) {
        // The first failure is the cause, later ones follow from it.
        self.failure.send_if_modified(|failure| failure.is_none().then(|| *failure = Some(why)).is_some());
    }
}

impl<S: StateMachine> Actor for Node<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(WATCH, |node, _| node.watch());
    }
}

impl<S: StateMachine> Handler<Failed> for Node<S> {
    type Result = ();

    fn handle(&mut self, Failed(why): Failed, _: &mut Self::Context) {
        self.fail(why);
    }
}

/// Clients speak the bank's protocol: a node with another machine has none.
impl Handler<Serve> for Node {
    type Result = ();

    fn handle(&mut self, Serve(visitor): Serve, _: &mut Self::Context) {
        self.clients += 1;
        let (settings, neighbours) = (self.settings.clone(), self.neighbours.clone());
        let (id, metrics) = (self.clients, self.metrics.clone());
        let session = ClientSession::create(|ctx| {
            let client = answering(id, visitor.owner, ctx.address().recipient());
            ClientSession::new(client, visitor, settings, neighbours, metrics)
        });
        self.sessions.push(session.recipient());
    }
}

impl<S: StateMachine> Handler<OpenSession<S>> for Node<S> {
    type Result = MessageResult<OpenSession<S>>;

    fn handle(&mut self, OpenSession { key, token, .. }: OpenSession<S>, _: &mut Self::Context) -> Self::Result {
        self.clients += 1;
        let (settings, neighbours) = (self.settings.clone(), self.neighbours.clone());
        let (id, metrics) = (self.clients, self.metrics.clone());
        let owner =
            neighbours.applied.roster().rights(token, 0).map_or(Owner::Host, |rights| match rights.principal() {
                HOST => Owner::Host,
                number if rights.has(Role::Operator) => Owner::Operator(number),
                number => Owner::Principal(number),
            });
        let session = HostSession::create(|ctx| {
            let client = answering(id, owner, ctx.address().recipient());
            HostSession::new(client, key, token, &settings, neighbours, metrics)
        });
        self.host_sessions.push(session.clone().recipient());
        MessageResult(session)
    }
}

impl<S: StateMachine> Handler<Stop> for Node<S> {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, stop: Stop, ctx: &mut Self::Context) -> Self::Result {
        let (sessions, host_sessions) = (std::mem::take(&mut self.sessions), std::mem::take(&mut self.host_sessions));
        sessions.iter().for_each(|session| session.do_send(Goaway));
        host_sessions.iter().for_each(|session| session.do_send(Close { in_log: false }));
        // A link that stayed open would keep its peer from calling the node that takes the place of this one.
        let Crew { proposer, voter, bank, snapshotter, links, log, log_thread, held } = &self.crew;
        links.iter().chain([proposer, bank, snapshotter]).for_each(|actor| actor.do_send(stop));
        let (voter, log, log_thread, held) = (voter.clone(), log.clone(), log_thread.handle(), held.clone());
        self.fail(Failure::Stopped("the node was stopped".into()));
        ctx.stop();
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
            let gone = async {
                while sessions.iter().any(Recipient::connected) || host_sessions.iter().any(Recipient::connected) {
                    tokio::time::sleep(LOOK).await;
                }
            };
            // Whoever is still there then does not read what it is told.
            let _ = timeout(FAREWELL, gone).await;
            let closed = async {
                while held.iter().any(Held::is_open) {
                    tokio::time::sleep(LOOK).await;
                }
            };
            if timeout(LAST_WRITE, closed).await.is_err() {
                warn!("the node has stopped, but what it began to read or write of its files goes on for a while");
            }
        })
    }
}
