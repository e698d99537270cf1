//! What is replicated once more, in plain words, to compare the ledger with. It shares no code with the ledger and is as plain as can
//! be. It keeps all that ever was, so that it can be asked about the state after any slot.
//!
//! [`Model`] has batches, sessions and log time, whatever the commands are about. What they do is the business of a [`Plain`] machine:
//! the [`Bank`], or another.
//!
//! It is the one model: the simulator compares every reply and every page with it, the tests of the ledger every log that they make
//! up, and the tests of whole clusters what clients got. Nothing that ships to users depends on it but the simulator.
//!
//! Source: BANK.md, "Sessions and retries".

mod answers;
mod asking;
mod bank;
mod chain;
mod principals;
mod replay;
pub mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use rabia_bank_messages::bank::{Command, ErrorCode, Refusal, Success};
use rabia_bank_messages::batch::{Action, Batched, Contents, Payload, RequestHeader};
use rabia_bank_messages::genesis::{Founding, SessionLimits};
use rabia_bank_messages::ids::{BatchId, Millis, NodeId, SessionKey, Slot};
use rabia_bank_messages::principal::{Admin, PrincipalNumber, PrincipalsInfo, PutPrincipal};

use principals::{Principals, Who};

pub use asking::ActApplied;
pub use bank::{Bank, amount_of, is_result_of, plain};
pub use chain::chained;
pub use replay::{Replayed, replay, replay_of};

/// What is answered to a command or a query. Messages of refusals are for people, and left empty here.
pub type Answer<T = Success> = Result<T, Refusal>;

/// Where a command stands, and who asks.
#[derive(Debug)]
pub struct At<'a> {
    /// The slot that is applied.
    pub slot: Slot,
    /// Log time.
    pub time: Millis,
    asker: PrincipalNumber,
    principals: &'a mut Principals,
}

/// A machine in plain words.
pub trait Plain: Debug + Sized {
    /// What changes the state.
    type Command: Batched + Clone + PartialEq + Debug + Send;
    /// What can be asked without changing anything.
    type Query: Clone + Debug + Send;
    /// What is answered where nothing is refused.
    type Success: Clone + PartialEq + Debug + Send;

    /// Carries out a command, or refuses it.
    fn command(&mut self, command: &Self::Command, at: At<'_>) -> Answer<Self::Success>;

    /// An administrator did this.
    fn record(&mut self, _act: String, _asker: PrincipalNumber, _slot: Slot, _time: Millis) {}

    /// The answer to a query after a slot.
    fn query(&self, query: &Self::Query, slot: Slot) -> Answer<Self::Success>;

    /// An answer without the words for people.
    fn plain(answer: Answer<Self::Success>) -> Answer<Self::Success> {
        answer.map_err(|refusal| Refusal { message: String::new(), ..refusal })
    }

    /// Whether a command is refused whole to this principal, whatever the state of the machine is.
    fn is_refused(_command: &Self::Command, _put: &PutPrincipal) -> bool {
        false
    }

    /// How to answer a query that is about principals.
    fn about_principals(_query: &Self::Query) -> Option<fn(PrincipalsInfo) -> Self::Success> {
        None
    }

    /// The answer to a query as this principal gets it.
    fn asked(_query: &Self::Query, answer: Answer<Self::Success>, _put: &PutPrincipal) -> Answer<Self::Success> {
        answer
    }

    /// What this principal sees of what came of a command.
    fn seen(answer: Self::Success, _put: &PutPrincipal) -> Self::Success {
        answer
    }
}

/// What came of a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply<T = Success> {
    /// The session is open.
    Opened(u64),
    /// The session is closed.
    Closed,
    /// The command was carried out or refused, in this slot and place of it.
    Command {
        /// Its slot, and its place among the requests of the slot.
        place: (Slot, Option<usize>),
        /// Whether it had been carried out or refused before.
        replayed: bool,
        /// What the client is told.
        answer: Box<Answer<T>>,
    },
    /// An administrator's command was carried out or refused, in this slot and place of it.
    Administered {
        /// Its slot, and its place among the requests of the slot.
        place: (Slot, usize),
        /// Whether it had been carried out or refused before.
        replayed: bool,
        /// The number of the principal or token.
        outcome: Result<u64, ErrorCode>,
    },
    /// The rules of sessions or principals kept it out.
    Rejected(ErrorCode),
}

/// Where a command was applied, and what came of it.
#[derive(Clone, Debug)]
pub struct Applied<C = Command, T = Success> {
    /// Its slot, and its place there.
    pub position: (Slot, usize),
    /// What the client is told.
    pub answer: Answer<T>,
    command: C,
}

impl<C, T> Applied<C, T> {
    /// What was asked.
    pub fn command(&self) -> &C {
        &self.command
    }
}

/// A session that was idle for so long makes room for another, in milliseconds.
const HOUR: Millis = 3_600_000;

/// The level in force, and what members said of their programs.
#[derive(Debug)]
struct Levels {
    level: u32,
    /// The level of the next slot.
    raised: u32,
    /// Of each member, node 1 first: 1 where it said nothing.
    can: Vec<u32>,
}

impl Levels {
    fn raise(&mut self, level: u32) -> Result<u64, ErrorCode> {
        match level {
            _ if level <= self.raised || level > 65_535 => Err(ErrorCode::InvalidLevel),
            _ if self.can.iter().any(|can| *can < level) => Err(ErrorCode::MembersTooOld),
            _ => {
                self.raised = level;
                Ok(level.into())
            }
        }
    }
}

/// Where an administrator's command was applied, and what came of it.
#[derive(Debug)]
struct AppliedAdmin {
    position: (Slot, usize),
    admin: Admin,
    outcome: Result<u64, ErrorCode>,
}

#[derive(Debug)]
struct Session {
    principal: PrincipalNumber,
    key: SessionKey,
    acknowledged: u64,
    last_used: Millis,
    open: bool,
}

/// A machine, with its batches and sessions in plain maps. Nothing in them is ever dropped.
#[derive(Debug)]
pub struct Model<M: Plain = Bank> {
    machine: M,
    session_limits: SessionLimits,
    sessions: BTreeMap<u64, Session>,
    /// All commands that were carried out or refused by the machine, by session and request number.
    pub applied: BTreeMap<(u64, u64), Applied<M::Command, M::Success>>,
    administered: BTreeMap<(u64, u64), AppliedAdmin>,
    principals: Principals,
    levels: Levels,
    /// Who asks.
    asker: PrincipalNumber,
    /// The principals after the slots in which they changed, and before the first.
    rosters: Vec<(Slot, Principals)>,
    changed: bool,
    batches: BTreeSet<(NodeId, u64, u64)>,
    time: Millis,
    /// Log time after each slot, and before the first.
    times: Vec<Millis>,
    requests: u64,
    slot: Slot,
}

impl<M: Plain> Model<M> {
    /// A machine as it is before the first slot, where nobody has a token.
    pub fn new(machine: M, session_limits: SessionLimits) -> Model<M> {
        Model::founded(machine, session_limits, &Founding::default())
    }

    /// The same, that begins with these tokens.
    pub fn founded(machine: M, session_limits: SessionLimits, founding: &Founding) -> Model<M> {
        Model {
            machine,
            session_limits,
            sessions: BTreeMap::new(),
            applied: BTreeMap::new(),
            administered: BTreeMap::new(),
            principals: Principals::new(founding),
            levels: Levels { level: 1, raised: 1, can: vec![1] },
            asker: 0,
            rosters: vec![(0, Principals::new(founding))],
            changed: false,
            batches: BTreeSet::new(),
            time: 0,
            times: vec![0],
            requests: 0,
            slot: 0,
        }
    }

    /// The same, that begins at this level and has so many members.
    #[must_use]
    pub fn at_level(self, level: u32, members: usize) -> Model<M> {
        Model { levels: Levels { level, raised: level, can: vec![1; members] }, ..self }
    }

    /// The machine after the last slot.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Log time after the last slot.
    pub fn time(&self) -> Millis {
        self.time
    }

    /// Whether this session is open after the last slot.
    pub fn is_open(&self, session: u64) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.open)
    }

    /// Whether a session with this key has ended by now.
    pub fn has_ended(&self, key: SessionKey) -> bool {
        self.sessions.values().any(|session| session.key == key && !session.open)
    }

    /// Applies the next slot. None if it is no business of clients: forfeited, a batch that was applied before, or a new store.
    pub fn apply(
        &mut self,
        slot: Slot,
        batch: Option<(&BatchId, &Payload)>,
    ) -> Result<Option<Vec<Reply<M::Success>>>, String> {
        self.slot = slot;
        let replies = self.apply_batch(batch);
        self.levels.level = self.levels.raised;
        self.times.push(self.time);
        if std::mem::take(&mut self.changed) {
            self.rosters.push((slot, self.principals.clone()));
        }
        replies
    }

    fn apply_batch(&mut self, batch: Option<(&BatchId, &Payload)>) -> Result<Option<Vec<Reply<M::Success>>>, String> {
        let Some((id, payload)) = batch else { return Ok(None) };
        if !self.batches.insert((id.origin, id.incarnation, id.sequence)) {
            return Ok(None);
        }
        // What can't be applied at this level is an empty batch.
        let Ok(contents) = payload.contents::<M::Command>(self.levels.level) else { return Ok(None) };
        self.time = self.time.max(payload.stamp().map_err(|e| e.to_string())?);
        let (time, idle) = (self.time, self.session_limits.idle_ms);
        for session in self.sessions.values_mut().filter(|session| time - session.last_used > idle) {
            session.open = false;
        }
        let requests = match contents {
            Contents::Requests(requests) => requests,
            Contents::Replacement(..) => return Ok(None),
            Contents::Can(level) => {
                self.levels.can[id.origin.index()] = level;
                return Ok(None);
            }
        };
        let mut replies = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            self.requests += 1;
            replies.push(self.request(index, &request.header, &request.action));
        }
        Ok(Some(replies))
    }

    fn request(&mut self, index: usize, header: &RequestHeader, action: &Action<M::Command>) -> Reply<M::Success> {
        let who = match self.principals.who(header.token, self.time) {
            None => return Reply::Rejected(ErrorCode::NotAuthorised),
            Some(Who::Principal(number)) => number,
            Some(owner) => match action {
                Action::Admin(admin) => {
                    let (place, outcome) = ((self.slot, index), self.administer(owner, admin));
                    return Reply::Administered { place, replayed: false, outcome };
                }
                _ => return Reply::Rejected(ErrorCode::NotAuthorised),
            },
        };
        self.asker = who;
        if matches!(action, Action::Open) {
            return self.open(header.key).map_or_else(Reply::Rejected, Reply::Opened);
        }
        let session = self.sessions.get_mut(&header.session).filter(|s| s.open && s.key == header.key);
        let Some(session) = session else { return Reply::Rejected(ErrorCode::SessionExpired) };
        if session.principal != who {
            return Reply::Rejected(ErrorCode::NotAuthorised);
        }
        session.last_used = self.time;
        if matches!(action, Action::Open | Action::Close) {
            session.open = false;
            return Reply::Closed;
        }
        session.acknowledged = session.acknowledged.max(header.acknowledged.min(header.number.saturating_sub(1)));
        if header.number <= session.acknowledged {
            return Reply::Rejected(ErrorCode::RequestAcknowledged);
        }
        let name = (header.session, header.number);
        let command = match action {
            Action::Command(command) => command,
            Action::Admin(admin) => return self.admin(index, name, admin),
            Action::Open | Action::Close => unreachable!("looked at above"),
        };
        if self.administered.contains_key(&name) {
            return Reply::Rejected(ErrorCode::RequestReused);
        }
        match self.applied.get(&name) {
            Some(before) if before.command == *command => {
                let (slot, index) = before.position;
                Reply::Command { place: (slot, Some(index)), replayed: true, answer: Box::new(before.answer.clone()) }
            }
            Some(_) => Reply::Rejected(ErrorCode::RequestReused),
            None => {
                let (slot, time, asker) = (self.slot, self.time, self.asker);
                let principals = &mut self.principals;
                let answer = self.machine.command(command, At { slot, time, asker, principals });
                let applied =
                    Applied { position: (self.slot, index), answer: answer.clone(), command: command.clone() };
                self.applied.insert(name, applied);
                Reply::Command { place: (self.slot, Some(index)), replayed: false, answer: Box::new(answer) }
            }
        }
    }

    fn admin(&mut self, index: usize, name: (u64, u64), admin: &Admin) -> Reply<M::Success> {
        if self.applied.contains_key(&name) {
            return Reply::Rejected(ErrorCode::RequestReused);
        }
        match self.administered.get(&name) {
            Some(before) if before.admin == *admin => {
                let (place, outcome) = (before.position, before.outcome.clone());
                Reply::Administered { place, replayed: true, outcome }
            }
            Some(_) => Reply::Rejected(ErrorCode::RequestReused),
            None => {
                let (place, outcome) = ((self.slot, index), self.administer(Who::Principal(self.asker), admin));
                let applied = AppliedAdmin { position: place, admin: admin.clone(), outcome: outcome.clone() };
                self.administered.insert(name, applied);
                Reply::Administered { place, replayed: false, outcome }
            }
        }
    }

    fn administer(&mut self, who: Who, admin: &Admin) -> Result<u64, ErrorCode> {
        let (number, act) = self.principals.administer(&mut self.levels, who, admin, self.time)?;
        self.changed = true;
        let asker = match who {
            Who::Principal(number) => number,
            Who::Owner(_) => 0,
        };
        self.machine.record(act, asker, self.slot, self.time);
        Ok(number)
    }

    /// The open session with this key, or a new one, for which one goes that was not used for longest, if that is an hour. Of what others
    /// leave a principal may have three quarters.
    fn open(&mut self, key: SessionKey) -> Result<u64, ErrorCode> {
        let now = self.time;
        let open = |session: &Session| session.open;
        if let Some((number, session)) = self.sessions.iter_mut().find(|(_, s)| s.key == key) {
            if session.open && session.principal != self.asker {
                return Err(ErrorCode::NotAuthorised);
            }
            session.last_used = if session.open { now } else { session.last_used };
            return if session.open { Ok(*number) } else { Err(ErrorCode::SessionExpired) };
        }
        let (asker, limit) = (self.asker, self.session_limits.open);
        let share = |others: u64| limit - others - (limit - others) / 4;
        loop {
            let all = self.sessions.values().filter(|session| open(session)).count() as u64;
            let is_own = |session: &Session| open(session) && session.principal == asker;
            let own = self.sessions.values().filter(|session| is_own(session)).count() as u64;
            let others = all - own;
            if all < limit && own < share(others) {
                break;
            }
            let of_own = own >= share(others.saturating_sub(1));
            let may_go =
                self.sessions.iter_mut().filter(|(_, session)| if of_own { is_own(session) } else { open(session) });
            let oldest = may_go.min_by_key(|(number, session)| (session.last_used, **number));
            match oldest {
                Some((_, session)) if now - session.last_used >= HOUR => session.open = false,
                _ => return Err(ErrorCode::TooManySessions),
            }
        }
        let session = Session { principal: self.asker, key, acknowledged: 0, last_used: now, open: true };
        self.sessions.insert(self.requests, session);
        Ok(self.requests)
    }
}
