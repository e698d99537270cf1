//! Replication around a machine: what is no machine's business.
//!
//! What a slot may do, from the outside in:
//!
//! - A slot carries a batch or nothing. A batch that was applied lately is repeated, and changes nothing
//!   (`batches`). One that can't be applied is applied as an empty one, and remembered (`unusable`).
//! - Each request of a batch opens or closes a session, or is a command in one. The session lets a command through
//!   to the machine once, and replays its outcome after that (`sessions`).
//! - The machine carries the command out.
//!
//! Which formats and commands there are follows from the [level](crate::levels), which is part of the state: one that a slot raises holds
//! from the next slot on.
//!
//! Time is log time: the highest stamp of a batch so far. Sessions expire by it.

use rabia_bank_messages::bank::Refusal;
use rabia_bank_messages::batch::{Action, BadPayload, Contents, Payload, Request};
use rabia_bank_messages::genesis::{Founding, Genesis, Replacement, Replacements, SessionLimits};
use rabia_bank_messages::ids::{BatchId, Digest, Millis, Slot};
use rabia_bank_messages::level;
use rabia_bank_messages::principal::{Admin, Administered, PrincipalNumber};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use crate::batches::AppliedBatches;
use crate::levels::Levels;
use crate::lookup::Lookup;
use crate::machine::{Ask, Begun, History, Kept, Moment, Progress, Recorded, StateMachine};
use crate::principals::{Asker, Principals, Roster};
use crate::rejection::Rejection;
use crate::rights::Rights;
use crate::sessions::{Admission, KeptReply, Place, Sessions};
use crate::taking::Taking;
use crate::unusable::UnusableBatches;

/// The state after a slot: that of the machine, and what is kept around it.
///
/// Invariants, asserted:
/// - Slots are applied in order without a gap; each is null or carries a batch.
/// - A command's outcome is kept before the next request is looked at, and never replaced.
#[derive(Debug)]
pub struct Replicated<S: StateMachine> {
    pub(crate) machine: S,
    pub(crate) sessions: Sessions<S>,
    pub(crate) batches: AppliedBatches,
    pub(crate) principals: Principals,
    pub(crate) levels: Levels,
    pub(crate) replacements: Replacements,
    pub(crate) unusable: UnusableBatches,
    pub(crate) applied: Slot,
    /// The highest stamp of a batch so far.
    pub(crate) time: Millis,
    /// Requests of all batches applied: the log position of the last one.
    pub(crate) requests: u64,
    /// The log position of the last request that a snapshot took.
    pub(crate) saved_requests: u64,
    pub(crate) decided_slots: u64,
    pub(crate) null_slots: u64,
    pub(crate) repeated_batches: u64,
    /// A snapshot that is being taken.
    pub(crate) taking: Option<Taking<S>>,
}

/// What came of a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied<O> {
    /// No batch was decided on: the slot was forfeited.
    Null,
    /// Its batch was applied in an earlier slot.
    Repeated,
    /// The outcomes of the batch's requests, in their order.
    Batch(Vec<RequestOutcome<O>>),
    /// A member was given a new store.
    Replacement,
    /// A member said which levels its program knows.
    Can,
    /// Its batch can't be applied, here or anywhere: it counts as an empty one, moves no time, and is remembered.
    Unusable(BadPayload),
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestOutcome<O> {
    /// The session with the request's key is open.
    Opened {
        /// Its number: the position in the log of the request that opened it, counted in requests from 1.
        session: u64,
        /// Whether this request opened it.
        new: bool,
    },
    /// The session is closed.
    Closed,
    /// The command was applied, now or earlier. The machine may have refused it.
    Command {
        /// The slot that it was applied in first.
        slot: Slot,
        /// Its place among the requests of that slot, from 0.
        index: u32,
        /// Whether that was an earlier request.
        replayed: bool,
        /// What came of it: see [`Replicated::render`].
        outcome: O,
    },
    /// An administrator's command was applied, now or earlier. It may have been refused.
    Administered {
        /// The slot that it was applied in first.
        slot: Slot,
        /// Its place among the requests of that slot, from 0.
        index: u32,
        /// Whether that was an earlier request.
        replayed: bool,
        /// What came of it.
        outcome: Administered,
    },
    /// The rules of sessions or of principals kept it from the machine.
    Rejected(Rejection),
}

/// The figures that are at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The last slot applied.
    pub applied: Slot,
    /// Slots that carried a batch, also one that was repeated.
    pub decided_slots: u64,
    /// Slots that were forfeited.
    pub null_slots: u64,
    /// Batches that were decided again after they had been applied.
    pub repeated_batches: u64,
    /// Batches that were decided and can't be applied.
    pub unusable_batches: u64,
    /// How many accounts there are, or whatever the machine counts.
    pub accounts: u64,
    /// How many entries of the history: also the id of the newest. Of the bank, transactions.
    pub transactions: u64,
    /// The sum of all balances, in minor units; 0 where there are none.
    pub total_balance: i64,
    /// How many sessions are open.
    pub sessions: u64,
}

impl<S: StateMachine> Replicated<S> {
    /// The state before the first slot: the same on all nodes.
    ///
    /// # Panics
    /// If no session may be open.
    pub fn new_cluster(genesis: &Genesis) -> Replicated<S> {
        let principals = Principals::new(&genesis.founding);
        let levels = Levels::new(genesis.level, genesis.members());
        Replicated { principals, levels, ..Replicated::of(S::new_cluster(genesis), genesis.sessions) }
    }

    /// The same around this machine, at level 1, with one member and where nobody has a token.
    ///
    /// # Panics
    /// If no session may be open.
    pub fn of(machine: S, sessions: SessionLimits) -> Replicated<S> {
        Replicated {
            machine,
            principals: Principals::new(&Founding::default()),
            levels: Levels::new(1, 1),
            sessions: Sessions::new(sessions),
            batches: AppliedBatches::default(),
            replacements: Replacements::default(),
            unusable: UnusableBatches::default(),
            applied: 0,
            time: 0,
            requests: 0,
            saved_requests: 0,
            decided_slots: 0,
            null_slots: 0,
            repeated_batches: 0,
            taking: None,
        }
    }

    /// Applies the next slot: a batch, or `None` if it was forfeited.
    ///
    /// # Panics
    /// If `slot` is not the one after [`applied`](Replicated::applied), or this program does not know the level in force:
    /// [`check`](Levels::check) the [levels](Replicated::levels) first.
    pub fn apply(&mut self, slot: Slot, batch: Option<(&BatchId, &Payload)>) -> Applied<S::Outcome> {
        let applied = self.replay(slot, batch);
        self.machine.settle();
        self.sessions.rehash_if_many();
        applied
    }

    /// The same for many slots in a row of which nobody asks for the digest in between: what changed is hashed when it is
    /// asked for after the last one, once.
    ///
    /// # Panics
    /// As for [`apply`](Replicated::apply).
    pub fn replay(&mut self, slot: Slot, batch: Option<(&BatchId, &Payload)>) -> Applied<S::Outcome> {
        assert_eq!(slot, self.applied + 1, "slot {slot} does not follow slot {}", self.applied);
        assert_eq!(self.levels.check(), Ok(()), "slot {slot} would be applied all the same");
        let applied = match batch {
            None => {
                self.null_slots += 1;
                Applied::Null
            }
            Some((id, payload)) => {
                self.decided_slots += 1;
                if self.batches.insert(id) || is_broken(Rule::BatchOnce) {
                    self.apply_batch(slot, id, payload)
                } else {
                    self.repeated_batches += 1;
                    Applied::Repeated
                }
            }
        };
        self.applied = slot;
        self.levels.slot_ends();
        assert_eq!(slot, self.decided_slots + self.null_slots, "slots were counted wrong");
        applied
    }

    fn apply_batch(&mut self, slot: Slot, id: &BatchId, payload: &Payload) -> Applied<S::Outcome> {
        let level = if is_broken(Rule::LevelGate) { level::highest() } else { self.levels.level() };
        let contents = |stamp| Ok((stamp, payload.contents::<S::Command>(level)?));
        let (stamp, contents) = match payload.stamp().and_then(contents) {
            Ok(contents) => contents,
            Err(bad) => {
                assert!(!is_broken(Rule::UnusableIsEmpty), "slot {slot} can't be applied: {bad}");
                self.unusable.add(slot, *id);
                return Applied::Unusable(bad);
            }
        };
        self.time = if is_broken(Rule::MonotonicTime) { stamp } else { self.time.max(stamp) };
        if !is_broken(Rule::SessionsExpire) {
            self.sessions.expire_idle(self.time);
        }
        match contents {
            Contents::Replacement(node, store) => {
                // A store that was named before changes nothing.
                self.replacements.add(Replacement { slot, node, store });
                Applied::Replacement
            }
            // Its origin is the one whose program it speaks of.
            Contents::Can(level) => {
                self.levels.say(id.origin, level);
                Applied::Can
            }
            Contents::Requests(requests) => {
                let places = (0..).map(|index| Place { slot, index });
                let apply = |(place, request)| self.apply_request(request, place);
                Applied::Batch(places.zip(&requests).map(apply).collect())
            }
        }
    }

    fn apply_request(&mut self, request: &Request<'_, S::Command>, place: Place) -> RequestOutcome<S::Outcome> {
        self.requests += 1;
        let header = &request.header;
        let principal = match self.principals.asker(header.token, self.time) {
            Some(Asker::Principal(principal)) => principal,
            Some(owner @ Asker::Owner(_)) => return self.apply_owners(request, owner, place),
            None => return RequestOutcome::Rejected(Rejection::NotAuthorised),
        };
        match &request.action {
            Action::Open => match self.sessions.open(header.key, self.requests, self.time, principal) {
                Ok((session, new)) => RequestOutcome::Opened { session, new },
                Err(rejection) => RequestOutcome::Rejected(rejection),
            },
            Action::Close => match self.sessions.close(header.session, header.key, principal) {
                Ok(()) => RequestOutcome::Closed,
                Err(rejection) => RequestOutcome::Rejected(rejection),
            },
            Action::Command(command) => self.apply_command(request, command, place, principal),
            Action::Admin(admin) => self.apply_admin(request, admin, place, principal),
        }
    }

    /// What the owner of a node's folder asks for: in no session, for it changes nothing to say it again.
    fn apply_owners(
        &mut self,
        request: &Request<'_, S::Command>,
        owner: Asker,
        place: Place,
    ) -> RequestOutcome<S::Outcome> {
        let Action::Admin(admin) = &request.action else {
            return RequestOutcome::Rejected(Rejection::NotAuthorised);
        };
        let Replicated { principals, levels, machine, time, .. } = self;
        let outcome = administer((principals, levels, machine), owner, admin, place, *time);
        RequestOutcome::Administered { slot: place.slot, index: place.index, replayed: false, outcome }
    }

    fn apply_admin(
        &mut self,
        request: &Request<'_, S::Command>,
        admin: &Admin,
        place: Place,
        principal: PrincipalNumber,
    ) -> RequestOutcome<S::Outcome> {
        let Replicated { sessions, principals, levels, machine, time, .. } = self;
        let time = *time;
        let admission = sessions.admit(&request.header, 0, request.action_bytes, principal, time);
        let (place, replayed, outcome) = match admission {
            Admission::Vacant(vacancy) => {
                let outcome =
                    administer((principals, levels, machine), Asker::Principal(principal), admin, place, time);
                vacancy.keep(self.requests, place, KeptReply::Admin(outcome));
                (place, false, outcome)
            }
            Admission::Replayed(place, KeptReply::Admin(outcome)) => (place, true, outcome),
            // Only two requests with one fingerprint could bring that about.
            Admission::Replayed(_, KeptReply::Command(_)) => {
                let number = request.header.number;
                return RequestOutcome::Rejected(Rejection::RequestReused { number });
            }
            Admission::Rejected(rejection) => return RequestOutcome::Rejected(rejection),
        };
        RequestOutcome::Administered { slot: place.slot, index: place.index, replayed, outcome }
    }

    fn apply_command(
        &mut self,
        request: &Request<'_, S::Command>,
        command: &S::Command,
        place: Place,
        principal: PrincipalNumber,
    ) -> RequestOutcome<S::Outcome> {
        let most = S::Kept::most_bytes(command);
        let (place, replayed, outcome) =
            match self.sessions.admit(&request.header, most, request.action_bytes, principal, self.time) {
                Admission::Vacant(vacancy) => {
                    let Some(rights) = self.principals.rights(principal, self.time) else {
                        unreachable!("principal {principal} asks and is not there")
                    };
                    let before = rights.spent();
                    let moment = Moment::new(place.slot, place.index, self.time, self.levels.level(), &rights);
                    let outcome = self.machine.apply(command, moment);
                    let spent = rights.spent();
                    vacancy.keep(self.requests, place, KeptReply::Command(S::Kept::of(&outcome, command)));
                    if spent != before {
                        self.principals.note_spent(principal, spent, self.time);
                    }
                    (place, false, outcome)
                }
                Admission::Replayed(place, KeptReply::Command(kept)) => (place, true, kept.restore(command)),
                // Only two requests with one fingerprint could bring that about.
                Admission::Replayed(_, KeptReply::Admin(_)) => {
                    let number = request.header.number;
                    return RequestOutcome::Rejected(Rejection::RequestReused { number });
                }
                Admission::Rejected(rejection) => return RequestOutcome::Rejected(rejection),
            };
        RequestOutcome::Command { slot: place.slot, index: place.index, replayed, outcome }
    }

    /// Begins the answer that a client gets to a command with this outcome: an error if the machine refused it. It
    /// is the same at any later time.
    pub fn render(&self, outcome: &S::Outcome) -> Lookup<S> {
        Lookup::new(self.machine.begin(Ask::Outcome(outcome)), self.applied)
    }

    /// Begins the answer to a query, from the state after [`applied`](Replicated::applied). `None` for one that is about the node.
    pub fn query(&self, query: &S::Query) -> Option<Lookup<S>> {
        if S::about_node(query).is_some() {
            return None;
        }
        let begun = match S::about_principals(query) {
            Some(answer) => Begun::Done(Ok(answer(self.principals.roster().info()))),
            None => self.machine.begin(Ask::Query(query)),
        };
        Some(Lookup::new(begun, self.applied))
    }

    /// Begins with the entries of a feed with ids from `next` on, oldest first: `limit` at most, of the next `scan`. The
    /// answer says where to go on from.
    pub fn feed(&self, feed: &S::Feed, next: u64, scan: u64, limit: usize) -> Lookup<S> {
        Lookup::new(self.machine.begin(Ask::Feed { feed, next, scan, limit }), self.applied)
    }

    /// Goes on with an answer, in so many steps at most, and takes those from `steps` that it took.
    pub fn go_on(&mut self, lookup: &mut Lookup<S>, steps: &mut u64) -> Progress<S::Answer> {
        lookup.go_on(&mut self.machine, self.applied, steps)
    }

    /// The answer, made at once: `None` if it needs a block of the history, or the machine to be prepared for it.
    pub fn at_hand(&self, lookup: Lookup<S>) -> Option<Result<S::Answer, Refusal>> {
        lookup.at_hand(&self.machine).done()
    }

    /// The state of the machine, without sessions and batches.
    pub fn machine(&self) -> &S {
        &self.machine
    }

    /// The level in force, and what members have said of their programs.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Principals and tokens.
    pub fn roster(&self) -> &std::sync::Arc<Roster> {
        self.principals.roster()
    }

    /// What may be done now with the token of this number. None if it is not in force.
    pub fn rights(&self, token: u64) -> Option<Rights<'_>> {
        self.principals.roster().rights(token, self.time)
    }

    /// How far the history of the machine goes.
    pub fn history(&self) -> History {
        self.machine.history()
    }

    /// How many sessions may be open, and how long each may be idle.
    pub fn session_limits(&self) -> SessionLimits {
        self.sessions.limits()
    }

    /// The last slot applied; 0 if there is none.
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// The highest stamp of a batch so far, in milliseconds since the Unix epoch; 0 if there is none.
    pub fn log_time(&self) -> Millis {
        self.time
    }

    /// The digest of the state: see the [crate's documentation](crate).
    pub fn digest(&mut self) -> Digest {
        let History { entries, head } = self.machine.history();
        let mut hasher = blake3::Hasher::new();
        hasher.update(S::NAME.as_bytes());
        hasher.update(&self.machine.state_hash());
        for set in [self.sessions.set_hash(), self.batches.set_hash()] {
            hasher.update(&set.to_bytes());
        }
        for number in [self.time, self.requests, entries, self.sessions.ended()] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.update(&head.0);
        self.principals.add_to(&mut hasher);
        for Replacement { slot, node, store } in self.replacements.list() {
            hasher.update(&slot.to_be_bytes()).update(&[node.get()]).update(&store.0);
        }
        self.unusable.add_to(&mut hasher);
        self.levels.add_to(&mut hasher);
        Digest(*hasher.finalize().as_bytes())
    }

    /// The stores of members that were replaced.
    pub fn replacements(&self) -> &Replacements {
        &self.replacements
    }

    /// The decided batches that could not be applied.
    pub fn unusable(&self) -> &UnusableBatches {
        &self.unusable
    }

    /// The figures that are at hand.
    pub fn summary(&self) -> Summary {
        let figures = self.machine.figures();
        Summary {
            applied: self.applied,
            decided_slots: self.decided_slots,
            null_slots: self.null_slots,
            repeated_batches: self.repeated_batches,
            unusable_batches: self.unusable.count(),
            accounts: figures.accounts,
            transactions: self.machine.history().entries,
            total_balance: figures.total_balance,
            sessions: self.sessions.len() as u64,
        }
    }
}

fn administer<S: StateMachine>(
    (principals, levels, machine): (&mut Principals, &mut Levels, &mut S),
    asker: Asker,
    admin: &Admin,
    place: Place,
    time: Millis,
) -> Administered {
    principals.check(asker, admin)?;
    let number = match admin {
        Admin::RaiseLevel { level } => levels.raise(*level)?.into(),
        Admin::Note(_) => levels.level().into(),
        _ => principals.administer(admin, time)?,
    };
    let (principal, owner) = match asker {
        Asker::Principal(principal) => (principal, None),
        Asker::Owner(node) => (0, Some(node)),
    };
    machine.record(admin, Recorded { slot: place.slot, time, level: levels.level(), principal, owner });
    Ok(number)
}
