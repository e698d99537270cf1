//! The clients: what they ask, of whom, and what they do when no answer comes. Each has one session, some requests in
//! flight, and little patience: it asks another node with the same request number. Now and then it says something again
//! that was answered long ago, or another command with an old number. Some are slow, or busy in bursts so that their
//! sessions expire, or never acknowledge anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use rabia_bank_actors::consensus::turns::{ClientId, Owner};
use rabia_bank_actors::ledger::machine::StateMachine;
use rabia_bank_actors::parts::clients::Client as Handle;
use rabia_bank_client::retry::Attempts;
use rabia_bank_messages::bank::ReadLevel;
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::client::SessionName;
use rabia_bank_messages::ids::{Millis, SessionKey, Slot};
use rabia_bank_model::Plain;

use super::properties::clients::Position;
use super::workload::{FeedOf, Workload};

/// How many there are.
pub(super) const CLIENTS: usize = 8;
/// Requests that a client has in flight at once.
const IN_FLIGHT: usize = 6;

/// What a client asks of a node.
#[derive(Clone, Debug)]
pub(super) enum Ask<C, Q, F> {
    /// A request that goes through the log.
    Log(RequestHeader, Action<C>),
    /// A query, and how fresh its answer must be.
    Read(Q, ReadLevel),
    /// The first command of a connection, whose session the node opens for it.
    First(C),
    /// Entries of a feed, from this id on.
    Follow(Arc<F>, u64),
}

/// What a client asks where this is simulated.
pub(super) type AskOf<W> = Ask<<W as Plain>::Command, <W as Plain>::Query, FeedOf<W>>;

/// How a client behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// It asks whenever it may.
    Steady,
    /// It asks much, and then nothing for seconds.
    InBursts,
    /// It asks one thing after the other, and thinks in between.
    Slow,
    /// It never says that it has an answer.
    NeverAcknowledges,
    /// It asks again long before an answer can have come.
    Impatient,
}

const MANNERS: [Manner; 5] =
    [Manner::Steady, Manner::InBursts, Manner::Slow, Manner::NeverAcknowledges, Manner::Impatient];

/// A request without an answer.
pub(super) struct InFlight<W: Workload> {
    pub(super) ask: AskOf<W>,
    /// What had been seen when it was first sent.
    pub(super) after: Position,
    pub(super) attempts: Attempts,
    /// When it is sent again.
    pub(super) patience: Duration,
}

/// A client with one session: what it wants, and what it waits for.
pub(super) struct Client<W: Workload> {
    index: usize,
    /// By which nodes know it on its connection.
    pub(super) handle: Handle<W::Machine>,
    manner: Manner,
    /// It begins nothing before.
    rests: Duration,
    /// The node that it asks, until one does not answer.
    pub(super) home: usize,
    key: SessionKey,
    sessions: u64,
    pub(super) session: Option<u64>,
    next: u64,
    answered: BTreeSet<u64>,
    acknowledged: u64,
    /// By the client's own mark.
    pub(super) in_flight: BTreeMap<u64, InFlight<W>>,
    marks: u64,
    /// Operations that are not begun.
    pub(super) left: u64,
    /// The highest slot of an answer.
    pub(super) token: Slot,
    last: Option<(RequestHeader, Action<W::Command>)>,
    closing: bool,
}

impl<W: Workload> Client<W> {
    pub(super) fn new(index: usize, members: usize, operations: u64, random: &mut Rng) -> Client<W> {
        Client {
            index,
            handle: handle(index, index as ClientId),
            manner: MANNERS[random.usize(..MANNERS.len())],
            rests: Duration::ZERO,
            home: index % members,
            key: SessionKey([0; 16]),
            sessions: 0,
            session: None,
            next: 1,
            answered: BTreeSet::new(),
            acknowledged: 0,
            in_flight: BTreeMap::new(),
            marks: 0,
            left: operations,
            token: 0,
            last: None,
            closing: false,
        }
    }

    /// Whether all that it wanted is answered.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.in_flight.values().all(|request| matches!(request.ask, Ask::Follow(..)))
    }

    /// It turns to another node, over another connection. The one before ends, and what it waited for there is forgotten.
    pub(super) fn move_to(&mut self, node: usize) {
        self.home = node;
        self.handle.leave();
        self.handle = handle(self.index, self.handle.id() + CLIENTS as ClientId);
        self.in_flight.values_mut().for_each(|request| request.attempts.connection_lost());
        // Said on another connection, it would be another command.
        self.in_flight.retain(|_, request| !matches!(request.ask, Ask::First(_)));
    }

    /// The node has opened a session for the first command on this connection.
    pub(super) fn announced(&mut self, connection: ClientId, session: SessionName) {
        if self.handle.id() == connection {
            (self.session, self.key) = (Some(session.number), session.key);
        }
    }

    /// The header of the command that opened the present session, if that was on this connection.
    pub(super) fn first_header(&self, connection: ClientId) -> Option<RequestHeader> {
        let session = self.session.filter(|_| self.handle.id() == connection)?;
        Some(RequestHeader { session, key: self.key, number: 1, acknowledged: 0, token: 0 })
    }

    /// It does not wait for ever for transactions of a feed. Answers how many it has given up.
    pub(super) fn give_up(&mut self, now: Duration) -> usize {
        let before = self.in_flight.len();
        self.in_flight.retain(|_, request| request.patience > now || !matches!(request.ask, Ask::Follow(..)));
        before - self.in_flight.len()
    }

    /// What it begins now, if anything, with its mark.
    pub(super) fn begin(
        &mut self,
        now: Duration,
        after: Position,
        wall: Millis,
        model: &W,
        random: &mut Rng,
    ) -> Option<u64> {
        let in_flight = if self.manner == Manner::Slow { 1 } else { IN_FLIGHT };
        if self.left == 0 || self.in_flight.len() >= in_flight || self.closing || self.rests > now {
            return None;
        }
        let rests = match self.manner {
            Manner::InBursts if random.u32(..40) == 0 => random.u64(200..2_500),
            Manner::Slow => random.u64(..80),
            _ => 0,
        };
        self.rests = now + Duration::from_millis(rests);
        let Some(session) = self.session else {
            return self.in_flight.is_empty().then(|| self.open(now, after, model, random));
        };
        if self.in_flight.is_empty() && random.u32(..400) == 0 {
            self.closing = true;
            let header = self.header(session, 0);
            return Some(self.start(now, after, Ask::Log(header, Action::Close), random));
        }
        self.left -= 1;
        if random.u32(..3) == 0 {
            let ask = match random.u32(..10) {
                0 => {
                    let (feed, from) = model.any_feed(random);
                    Ask::Follow(Arc::new(feed), from)
                }
                _ => Ask::Read(model.any_query(wall, random), self.level(random)),
            };
            return Some(self.start(now, after, ask, random));
        }
        let header = self.header(session, self.next);
        self.next += 1;
        let ask = Ask::Log(header, Action::Command(model.any_command(random)));
        Some(self.start(now, after, ask, random))
    }

    /// Each session has a connection of its own.
    fn open(&mut self, now: Duration, after: Position, model: &W, random: &mut Rng) -> u64 {
        self.move_to(self.home);
        self.sessions += 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(self.index as u64 + 1).to_be_bytes());
        key[8..].copy_from_slice(&self.sessions.to_be_bytes());
        self.key = SessionKey(key);
        (self.next, self.acknowledged) = (1, 0);
        self.answered.clear();
        if random.u32(..3) == 0 {
            self.next = 2;
            return self.start(now, after, Ask::First(model.any_command(random)), random);
        }
        let header = self.header(0, 0);
        self.start(now, after, Ask::Log(header, Action::Open), random)
    }

    fn header(&self, session: u64, number: u64) -> RequestHeader {
        let acknowledged = if self.manner == Manner::NeverAcknowledges { 0 } else { self.acknowledged };
        RequestHeader { session, key: self.key, number, acknowledged, token: 0 }
    }

    fn start(&mut self, now: Duration, after: Position, ask: AskOf<W>, random: &mut Rng) -> u64 {
        self.marks += 1;
        let patience = now + self.patience(random);
        let mut attempts = Attempts::default();
        attempts.said();
        self.in_flight.insert(self.marks, InFlight { ask, after, attempts, patience });
        self.marks
    }

    /// How long it waits before it asks again.
    pub(super) fn patience(&self, random: &mut Rng) -> Duration {
        Duration::from_millis(if self.manner == Manner::Impatient { random.u64(1..60) } else { random.u64(20..800) })
    }

    fn level(&self, random: &mut Rng) -> ReadLevel {
        match random.u32(..4) {
            0 => ReadLevel::Local,
            1 => ReadLevel::AtLeast(self.token),
            _ => ReadLevel::Linearizable,
        }
    }

    /// Something that was said before, to be said again: nobody waits for the answer.
    pub(super) fn stray(&self, model: &W, random: &mut Rng) -> Option<AskOf<W>> {
        let (header, action) = self.last.clone()?;
        let other = random.bool() && matches!(action, Action::Command(_));
        Some(Ask::Log(header, if other { Action::Command(model.any_command(random)) } else { action }))
    }

    /// The session is open.
    pub(super) fn opened(&mut self, session: u64) {
        self.session = Some(session);
    }

    /// The session was not opened: it tries again a little later, with another key.
    pub(super) fn not_opened(&mut self, now: Duration) {
        self.rests = now + Duration::from_millis(100);
    }

    /// This session is gone. What was asked in it and not answered is unknown.
    pub(super) fn gone(&mut self, session: u64) {
        if self.session == Some(session) {
            self.closed();
        }
    }

    /// The session is closed.
    pub(super) fn closed(&mut self) {
        (self.session, self.closing) = (None, false);
    }

    /// A command was answered.
    pub(super) fn commanded(&mut self, header: RequestHeader, action: Action<W::Command>, slot: Slot) {
        self.token = self.token.max(slot);
        self.answered.insert(header.number);
        while self.answered.remove(&(self.acknowledged + 1)) {
            self.acknowledged += 1;
        }
        self.last = Some((header, action));
    }
}

/// A connection of a client. Its number tells which client it is.
fn handle<S: StateMachine>(client: usize, connection: ClientId) -> Handle<S> {
    Handle::simulated(connection, Owner::at(IpAddr::from([127, 0, 0, client as u8 % 2])))
}
