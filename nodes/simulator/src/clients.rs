//! The clients: what they ask, of whom, and what they do when no answer comes. Each has one session, some requests in
//! flight, and little patience: it asks another node with the same request number. Now and then it says something again
//! that was answered long ago, or another command with an old number. Some are slow, or busy in bursts so that their
//! sessions expire, or never acknowledge anything. Whom they speak for is in [`staff`](super::staff).

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
use rabia_bank_messages::principal::Admin;
use rabia_bank_model::{Model, Plain};

use super::properties::clients::Position;
use super::staff::{ADMINISTRATOR, Badge, Staff};
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
    /// The owner of the node's folder wants this.
    Owner(Admin),
    /// A request in the session of another principal, whose key was stolen.
    Theft(RequestHeader, Action<C>),
}

/// A thief waits for so long.
const THIEFS_PATIENCE: Duration = Duration::from_millis(500);

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

impl<W: Workload> InFlight<W> {
    /// Whether its client wants the answer, however long that takes.
    fn is_awaited(&self) -> bool {
        !matches!(self.ask, Ask::Follow(..) | Ask::Theft(..))
    }
}

/// When and where a client begins something.
pub(super) struct At<'a, W: Workload> {
    pub(super) now: Duration,
    /// What had been seen by then.
    pub(super) after: Position,
    /// What a right clock shows.
    pub(super) wall: Millis,
    pub(super) model: &'a Model<W>,
    pub(super) staff: &'a mut Staff,
}

/// A client with one session: what it wants, and what it waits for.
pub(super) struct Client<W: Workload> {
    index: usize,
    /// By which nodes know it on its connection.
    pub(super) handle: Handle<W::Machine>,
    /// What it shows on it.
    pub(super) badge: Badge,
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
    pub(super) newest: Slot,
    last: Option<(RequestHeader, Action<W::Command>)>,
    closing: bool,
}

impl<W: Workload> Client<W> {
    pub(super) fn new(index: usize, members: usize, operations: u64, staff: &mut Staff, random: &mut Rng) -> Client<W> {
        let manner = MANNERS[random.usize(..MANNERS.len())];
        let busy = staff.is_simulated() && index == ADMINISTRATOR;
        let badge = staff.badge(index);
        Client {
            index,
            handle: handle(index, index as ClientId, &badge),
            badge,
            manner: if busy { Manner::Steady } else { manner },
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
            newest: 0,
            last: None,
            closing: false,
        }
    }

    /// Whether all that it wanted is answered.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.in_flight.values().all(|request| !request.is_awaited())
    }

    /// It turns to another node, over another connection. The one before ends, and what it waited for there is forgotten.
    pub(super) fn move_to(&mut self, node: usize, badge: Badge) {
        self.home = node;
        self.handle.leave();
        self.handle = handle(self.index, self.handle.id() + CLIENTS as ClientId, &badge);
        self.badge = badge;
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

    /// It does not wait for ever for transactions of a feed, nor for what a stolen key brings. Answers how many it has given up.
    pub(super) fn give_up(&mut self, now: Duration) -> usize {
        let before = self.in_flight.len();
        self.in_flight.retain(|_, request| request.patience > now || request.is_awaited());
        before - self.in_flight.len()
    }

    /// What it begins now, if anything, with its mark.
    pub(super) fn begin(&mut self, at: At<'_, W>, random: &mut Rng) -> Option<u64> {
        let At { now, after, wall, model, staff } = at;
        if let Some(admin) = staff.owners_act(self.index, now, model.time()) {
            return Some(self.start(now, after, Ask::Owner(admin), random));
        }
        let in_flight = if self.manner == Manner::Slow { 1 } else { IN_FLIGHT };
        let only_urgent = self.left == 0;
        let needed = !only_urgent || (self.index == ADMINISTRATOR && staff.is_needed());
        if !needed || self.in_flight.len() >= in_flight || self.closing || self.rests > now {
            return None;
        }
        let rests = match self.manner {
            Manner::InBursts if random.u32(..40) == 0 => random.u64(200..2_500),
            Manner::Slow => random.u64(..80),
            _ => 0,
        };
        self.rests = now + Duration::from_millis(rests);
        let Some(session) = self.session else {
            if !self.in_flight.values().all(|request| matches!(request.ask, Ask::Owner(_) | Ask::Theft(..))) {
                return None;
            }
            let badge = staff.badge(self.index);
            return Some(self.open(now, after, model.machine(), badge, random));
        };
        let known = || model.principals();
        if self.in_flight.is_empty() && random.u32(..400) == 0 {
            self.closing = true;
            let header = self.header(session, 0);
            return Some(self.start(now, after, Ask::Log(header, Action::Close), random));
        }
        let is_busy = staff.is_simulated() && self.index == ADMINISTRATOR;
        if !only_urgent && random.u32(..if is_busy { 24 } else { 3 }) == 0 {
            self.left -= 1;
            let ask = match random.u32(..10) {
                0 => {
                    let (feed, from) = model.machine().any_feed(random);
                    Ask::Follow(Arc::new(feed), from)
                }
                _ => Ask::Read(model.machine().any_query(wall, random), self.level(random)),
            };
            return Some(self.start(now, after, ask, random));
        }
        let action = match staff.errand(self.index, only_urgent, (now, model.time()), known) {
            Some(admin) => Action::Admin(Box::new(admin)),
            // It has no roles for anything else.
            None if is_busy => return None,
            None => Action::Command(model.machine().any_command(random)),
        };
        self.left = self.left.saturating_sub(1);
        let header = self.header(session, self.next);
        self.next += 1;
        Some(self.start(now, after, Ask::Log(header, action), random))
    }

    /// It tries another principal's session, whose name and key it has.
    pub(super) fn steal(
        &mut self,
        now: Duration,
        after: Position,
        header: RequestHeader,
        action: Action<W::Command>,
    ) -> u64 {
        self.marks += 1;
        let patience = now + THIEFS_PATIENCE;
        let ask = Ask::Theft(header, action);
        self.in_flight.insert(self.marks, InFlight { ask, after, attempts: Attempts::default(), patience });
        self.marks
    }

    /// What was said last in its session and was answered, to be stolen.
    pub(super) fn loot(&self) -> Option<(RequestHeader, Action<W::Command>)> {
        let (header, action) = self.last.clone()?;
        (Some(header.session) == self.session).then_some((header, action))
    }

    /// Each session has a connection of its own.
    fn open(&mut self, now: Duration, after: Position, model: &W, badge: Badge, random: &mut Rng) -> u64 {
        self.move_to(self.home, badge);
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
            1 => ReadLevel::AtLeast(self.newest),
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

    /// It was turned away: it begins nothing for a moment.
    pub(super) fn turned_away(&mut self, now: Duration) {
        self.rests = self.rests.max(now + Duration::from_millis(60));
    }

    /// It asks no more for this request, which is not in the log and never will be.
    pub(super) fn dropped(&mut self, header: &RequestHeader) {
        if self.session == Some(header.session) {
            self.settled(header.number);
        }
    }

    fn settled(&mut self, number: u64) {
        self.answered.insert(number);
        while self.answered.remove(&(self.acknowledged + 1)) {
            self.acknowledged += 1;
        }
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
        self.newest = self.newest.max(slot);
        self.settled(header.number);
        self.last = Some((header, action));
    }
}

/// A connection of a client. Its number tells which client it is. Nobody knows by now what the token is worth that it will show.
fn handle<S: StateMachine>(client: usize, connection: ClientId, badge: &Badge) -> Handle<S> {
    let handle = Handle::simulated(connection, Owner::at(IpAddr::from([127, 0, 0, client as u8 % 2])));
    if !matches!(badge, Badge::Host) {
        handle.show(u64::MAX);
    }
    handle
}
