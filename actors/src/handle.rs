//! What the holder of a running node can do: bring it clients and peers, ask and tell it, stop it. Listening and dialling is the
//! holder's business.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::{SinkExt, StreamExt};
use rabia_bank_messages::bank::{Status, Success};
use rabia_bank_messages::codec::{BadFrame, decode_opening, encode_opening};
use rabia_bank_messages::ids::{Millis, NodeId, RunId, SessionKey, Slot, StoreId};
use rabia_bank_messages::peer::{self, HelloRefused, Opening, RefusalReason};
use rabia_bank_messages::principal::{Admin, NO_TOKEN, PutToken};
use rabia_bank_storage::BooksView;
use tokio::sync::{oneshot, watch};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::info;

use crate::applied::AppliedSlot;
use crate::budget::Budgets;
use crate::consensus::turns::Owner;
use crate::failure::{Failure, Stopped};
use crate::host_session::HostSession;
use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;
use crate::ledger::principals::Roster;
use crate::mail::bank::{BankInbox, StandingOf, TakeSnapshot, TellStatus};
use crate::mail::host_session::{Close, OwnersAct, Reply};
use crate::mail::node::{Serve, Stop};
use crate::mail::peer_link::{Attach, IsUp, Links, MayAttach, STANDS};
use crate::mail::proposer::{AcceptClock, ProposerInbox, Replace};
use crate::mail::voter::{Introduce, Meet, VoterInbox};
use crate::metrics::Metrics;
use crate::node::OpenSession;
use crate::parts::voter::LinkUp;
use crate::peer_link::{refused_by, refused_by_caller};
use crate::socket::metered::Meter;
use crate::socket::{PeerSocket, Visitor, link_socket};

/// A replacement that was not decided within this time is given up …
const REPLACING: Duration = Duration::from_secs(30);
/// … after it was proposed again this often …
const PROPOSE_AGAIN: Duration = Duration::from_secs(3);
/// … and looked for this often.
const LOOK: Duration = Duration::from_millis(20);

/// A running node, to whoever started it.
#[derive(Clone)]
pub struct NodeHandle {
    pub(crate) me: NodeId,
    pub(crate) stop: Recipient<Stop>,
    /// Where clients of the bank are brought, and sessions with it opened; none where another machine is replicated.
    pub(crate) bank: Option<(Recipient<Serve>, Sessions)>,
    pub(crate) cores: Arc<Cores>,
    pub(crate) budgets: Budgets,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) applied: AppliedSlot,
    pub(crate) failure: watch::Receiver<Option<Failure>>,
}

/// Where the program that a node lives in opens its sessions.
pub struct Sessions<S: StateMachine = Bank>(pub(crate) Recipient<OpenSession<S>>);

impl<S: StateMachine> Clone for Sessions<S> {
    fn clone(&self) -> Sessions<S> {
        Sessions(self.0.clone())
    }
}

impl<S: StateMachine> Sessions<S> {
    /// The session with this key. It ends with [`Close`], or with the node.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn open(&self, key: SessionKey) -> Result<Addr<HostSession<S>>, Stopped> {
        self.open_as(Some(key), NO_TOKEN).await
    }

    /// The same with a key that is drawn for it, and that nobody else has: when it has expired, another takes its place.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn open_own(&self) -> Result<Addr<HostSession<S>>, Stopped> {
        self.open_as(None, NO_TOKEN).await
    }

    /// The same, with this key or one that is drawn, of the principal of the token with this number.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn open_as(&self, key: Option<SessionKey>, token: u64) -> Result<Addr<HostSession<S>>, Stopped> {
        self.0.send(OpenSession { key, token, machine: PhantomData }).await.map_err(|_| Stopped)
    }
}

/// The actors that the holder of a node speaks to.
pub(crate) struct Cores {
    pub(crate) voter: VoterInbox,
    pub(crate) proposer: ProposerInbox,
    pub(crate) bank: BankInbox,
    pub(crate) links: Links,
}

impl NodeHandle {
    /// The meter of a connection that a client of this owner opens.
    pub fn meter(&self, owner: Owner) -> Arc<Meter> {
        Meter::new(self.budgets.unfinished.open(owner))
    }

    /// Serves a client. Clients speak the bank's protocol: one of a node with another machine is turned away.
    pub fn serve_client(&self, visitor: Visitor) {
        if let Some((serve, _)) = &self.bank {
            serve.do_send(Serve(visitor));
        }
    }

    /// Where sessions with the bank are opened; none where another machine is replicated.
    pub fn bank_sessions(&self) -> Option<&Sessions> {
        self.bank.as_ref().map(|(_, sessions)| sessions)
    }

    /// The state of the node.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.cores.bank.tell_status.send(TellStatus).await.map_err(|_| Stopped)
    }

    /// Whether the link to this peer works, for reports.
    pub fn is_connected(&self, peer: NodeId) -> bool {
        self.metrics.report().connected[peer.index()]
    }

    /// Since when links to too few peers work for a quorum, if they do.
    pub fn note_quorum(&self, missing: Option<Instant>) {
        self.metrics.note_quorum(missing);
    }

    /// The certificate that clients are shown expires then: for the status.
    pub fn note_certificate(&self, expires_at: Millis) {
        self.metrics.note_certificate(expires_at);
    }

    /// What the wall clock shows, without what it is ahead of everything that confirms it: in milliseconds since the Unix epoch. Tokens
    /// that are shown to this node are in force by it.
    pub fn trusted_time(&self) -> Millis {
        self.metrics.trusted_time()
    }

    /// Principals and tokens, by what is applied.
    pub fn roster(&self) -> Arc<Roster> {
        self.applied.roster()
    }

    /// The level in force, by what is applied.
    pub fn level(&self) -> u32 {
        self.applied.level()
    }

    /// The last slot applied.
    pub fn applied_slot(&self) -> Slot {
        self.applied.get()
    }

    /// The books with everything that is applied now, from a snapshot that is taken for it where the last one is older.
    ///
    /// # Errors
    /// If the node stops meanwhile, or the store can't be read.
    pub async fn snapshot(&self) -> Result<BooksView, String> {
        self.cores.bank.take_snapshot.send(TakeSnapshot).await.unwrap_or_else(|_| Err("the node is stopping".into()))
    }

    /// An operator says that this node's clock is right, whatever it shows: see [`clocks`](crate::consensus::clocks). Answers how
    /// far that goes beyond what was confirmed, in milliseconds; 0 where nothing was wrong with it.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn accept_clock(&self) -> Result<Millis, Stopped> {
        self.cores.proposer.accept_clock.send(AcceptClock).await.map_err(|_| Stopped)
    }

    /// Puts a token for an administrator into the log, as the owner of this node's folder. Answers its number.
    ///
    /// # Errors
    /// Why it was not put, or that this is not known.
    pub async fn put_token_as_owner(&self, put: PutToken) -> Result<u64, String> {
        let Some(sessions) = self.bank_sessions() else { return Err("this node has no clients".into()) };
        let stopping = || "the node is stopping".to_owned();
        let session = sessions.open_own().await.map_err(|_| stopping())?;
        let answer = session.send(OwnersAct::new(self.me, Admin::PutToken(put))).await;
        session.do_send(Close { in_log: false });
        match answer.map_err(|_| stopping())? {
            Ok(Reply { success: Success::Administered { number }, .. }) => Ok(number),
            Ok(other) => Err(format!("it was answered with {other:?}")),
            Err(refusal) => Err(refusal.to_string()),
        }
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
            let standing = self.cores.bank.standing_of.send(StandingOf { node, store }).await;
            match standing.map_err(|_| "the node is stopping".to_owned())?? {
                Some(slot) => return Ok(slot),
                None if proposed.is_none_or(|at| at.elapsed() >= PROPOSE_AGAIN) => {
                    if proposed.is_none() && self.is_up(node).await {
                        return Err(format!("node {node} is at work with its store: stop it first"));
                    }
                    info!(of = %node, %store, "proposing a new store");
                    self.cores.proposer.replace.do_send(Replace { node, store });
                    proposed = Some(Instant::now());
                }
                None => tokio::time::sleep(LOOK).await,
            }
        }
        let seconds = REPLACING.as_secs();
        Err(format!("not decided within {seconds} s: are enough of the other nodes running? It may be yet; ask again"))
    }

    /// Serves a peer that called on a socket with [`opening_socket`](crate::socket::opening_socket) as its configuration, until
    /// the link ends. Tells `met` when the peer was accepted. Returns why the link ended.
    pub async fn serve_peer(&self, mut socket: PeerSocket, met: oneshot::Sender<()>) -> String {
        let hello = match read_opening(&mut socket).await {
            Ok(Opening::Hello(hello)) => hello,
            Ok(Opening::Refused(refused)) => return refused_by_caller(&refused),
            Err(refused) => return self.refuse(socket, refused).await,
        };
        if let Err(refused) = check_key(&socket, &hello) {
            return self.refuse(socket, refused).await;
        }
        let (peer, run, link) = (hello.node, hello.run.run, LinkUp::of(&hello, false));
        if let Some(link) = self.cores.links.to(peer) {
            if !self.is_called_by(peer) {
                let message = format!("node {peer} is called by this node, and does not call it");
                let refused = HelloRefused { reason: RefusalReason::Node, message, evidence: None };
                return self.refuse(socket, refused).await;
            }
            if !link.may_attach.send(MayAttach(run)).await.unwrap_or(false) {
                // No refusal: whoever speaks in the peer's name on the other link, the peer itself calls again.
                let _ = socket.close(None).await;
                return STANDS.into();
            }
        }
        let answer = match self.cores.voter.meet.send(Meet(hello)).await {
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

    /// Whether the link to this member works. This node has none to itself.
    async fn is_up(&self, member: NodeId) -> bool {
        match self.cores.links.to(member) {
            Some(link) => link.is_up.send(IsUp).await.unwrap_or(false),
            None => false,
        }
    }

    /// Of two members the one with the lower number calls.
    fn is_called_by(&self, peer: NodeId) -> bool {
        peer < self.me
    }

    /// Uses a socket on which this node called a peer, until the link ends. Returns why it ended.
    pub async fn call_peer(&self, peer: NodeId, mut socket: PeerSocket) -> String {
        let Ok(hello) = self.cores.voter.introduce.send(Introduce(peer)).await else {
            return "the node is stopping".into();
        };
        if let Err(error) = socket.send(Frame::binary(encode_opening(&Opening::Hello(hello)))).await {
            return error.to_string();
        }
        let hello: peer::Hello = match read_opening(&mut socket).await {
            Ok(Opening::Hello(hello)) => hello,
            Ok(Opening::Refused(refused)) => return refused_by(peer, &refused, &self.cores.voter),
            Err(refused) => return self.refuse(socket, refused).await,
        };
        if let Err(refused) = check_key(&socket, &hello) {
            return self.refuse(socket, refused).await;
        }
        if hello.node != peer {
            let message = format!("node {} answered where node {peer} was called", hello.node);
            let refused = HelloRefused { reason: RefusalReason::Node, message, evidence: None };
            return self.refuse(socket, refused).await;
        }
        let (link, run) = (LinkUp::of(&hello, true), hello.run.run);
        match self.cores.voter.meet.send(Meet(hello)).await {
            Ok(Ok(_)) => self.attach(peer, link, run, socket).await,
            Ok(Err(refused)) => self.refuse(socket, refused).await,
            Err(_) => "the node is stopping".into(),
        }
    }

    async fn attach(&self, peer: NodeId, up: LinkUp, run: RunId, socket: PeerSocket) -> String {
        let Some(link) = self.cores.links.to(peer) else {
            return format!("node {peer} is no peer");
        };
        link.attach.send(Attach { socket, link: up, run }).await.unwrap_or_else(|_| "the node is stopping".into())
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

    /// Stops the node: tells its clients, closes its links, lets go of the store when the write that is under way has ended, and
    /// gives the clients two seconds to go.
    pub async fn stop(&self) {
        // A node that is gone needs no stopping.
        let _ = self.stop.send(Stop).await;
    }
}

/// Whoever speaks from a store has shown its key on this very link.
fn check_key(socket: &PeerSocket, hello: &peer::Hello) -> Result<(), HelloRefused> {
    if socket.get_ref().may_be(hello.store) {
        return Ok(());
    }
    let message = format!("your key is not that of store {}, from which you say to speak", hello.store);
    Err(HelloRefused { reason: RefusalReason::Key, message, evidence: None })
}

/// How long a peer may take to introduce itself.
const OPENING: Duration = Duration::from_secs(5);

async fn read_opening(socket: &mut PeerSocket) -> Result<Opening, HelloRefused> {
    let refused = |reason, message: String| HelloRefused { reason, message, evidence: None };
    match tokio::time::timeout(OPENING, socket.next()).await {
        Ok(Some(Ok(Frame::Binary(bytes)))) => decode_opening(&bytes).map_err(|error| match error {
            BadFrame::Version(_) => refused(RefusalReason::Version, error.to_string()),
            error => refused(RefusalReason::NoHello, error.to_string()),
        }),
        Ok(Some(Ok(_))) => Err(refused(RefusalReason::NoHello, "the first frame is not binary".into())),
        Ok(Some(Err(error))) => Err(refused(RefusalReason::NoHello, error.to_string())),
        Ok(None) => Err(refused(RefusalReason::NoHello, "the link was closed before a hello".into())),
        Err(_) => Err(refused(RefusalReason::NoHello, format!("no hello within {} s", OPENING.as_secs()))),
    }
}
