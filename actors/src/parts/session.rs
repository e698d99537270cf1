//! The rules of a session, whoever speaks in it: a client over a connection, or the program that a node lives in.
//!
//! A session is opened through the log: with a key that is named, or, at the first command, with one that is drawn for it. Commands wait
//! until it is open. Requests in flight are counted (beyond: `busy`), and each has a deadline. After it a command is unknown, since it
//! may be executed yet, and a query is refused.
//!
//! Commands are numbered by whoever sends them, or here: 1, 2, 3 …, acknowledged as they are answered. A refusal that speaks of this
//! node or this attempt (`busy`, `session_expired`, `stopping`) says nothing of an earlier attempt. So where there may be one, its
//! outcome is unknown. There is none if the session has the number from here, or drew its own key and has not seen the number.
//!
//! A session ends in the log when it was idle for too long. One that [renews itself](Session::renewing) is followed by another: a command
//! that found it gone is refused, and the next one goes on in a new session. Otherwise every command is `session_expired` from then on.
//!
//! A subscription gets one page, and the next one when its owner has [asked for more](Session::more). So a slow one costs its node nothing.
//!
//! Whoever drives this hands in answers of the bank, and performs what each call adds to `out`, in that order. Times are counted from
//! any fixed moment. `A` is what the driver needs to tell who asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use rabia_bank_messages::bank::{ErrorCode, Outcome, ReadLevel, Refusal};
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::client::SessionName;
use rabia_bank_messages::ids::{NodeId, SessionKey, Slot};
use rabia_bank_messages::principal::{Admin, NO_TOKEN};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rustc_hash::FxHashMap;

use crate::ledger::Bank;
use crate::ledger::machine::{Entry, StateMachine};
use crate::parts::clients::{Answered, Done};

pub use words::{Limits, Number, Out, Reply};

mod words;

/// How far the session is.
#[derive(Clone, Copy, Debug)]
enum State {
    /// It has no key.
    None,
    /// It is opened with this key when there is a command.
    Named(SessionKey),
    /// The log was asked to open it.
    Opening(SessionKey),
    Open(SessionName),
}

/// How far its end is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Open,
    /// It ends when all is answered.
    Closing,
    Closed,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Open,
    Close,
    Command {
        number: u64,
        /// No earlier attempt of it can exist.
        first: bool,
    },
    Query(ReadLevel),
    Subscribe {
        name: u64,
        read: ReadLevel,
    },
}

impl Kind {
    /// What is said where no answer came: a command may be executed yet, and nothing else changes anything.
    fn unanswered(self, code: ErrorCode, message: impl Into<String>) -> Refusal {
        match self {
            Kind::Command { .. } | Kind::Open | Kind::Close => Refusal::unknown(code, message),
            Kind::Query(_) | Kind::Subscribe { .. } => Refusal::refused(code, message),
        }
    }

    /// What is said at the deadline.
    fn missed(self, applied: Slot, waited: Duration) -> Refusal {
        let seconds = waited.as_secs_f32();
        match self {
            Kind::Query(read) | Kind::Subscribe { read, .. } => missed(read, applied, waited),
            Kind::Open => {
                let message = "the session was not opened in time; open it with the same key on a new connection";
                Refusal::unknown(ErrorCode::NoQuorum, message)
            }
            Kind::Command { .. } | Kind::Close => {
                let message =
                    format!("no quorum of nodes answered within {seconds} s; ask again with the same request number");
                Refusal::unknown(ErrorCode::NoQuorum, message)
            }
        }
    }
}

#[derive(Debug)]
struct InFlight<A> {
    kind: Kind,
    /// None for what the session asks for itself.
    asker: Option<A>,
    deadline: Duration,
}

/// A command that waits for the session to be open.
#[derive(Debug)]
struct Queued<C> {
    tag: u64,
    number: u64,
    /// None: what the session knows when the command goes out.
    acknowledged: Option<u64>,
    action: Action<C>,
}

#[derive(Debug)]
struct Subscription<F> {
    feed: Arc<F>,
    /// The next entry to look at. 0: the bank has not said where it begins.
    next: u64,
    /// The mark of the page that the bank was asked for; none while it rests.
    asked: Option<u64>,
}

/// Where keys come from.
struct Draw(Box<dyn FnMut() -> Option<SessionKey>>);

impl fmt::Debug for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Draw")
    }
}

/// A session and what waits in it: requests, subscriptions, its own opening and end.
#[derive(Debug)]
pub struct Session<A, S: StateMachine = Bank> {
    limits: Limits,
    /// The number of the token by which it asks.
    token: u64,
    /// Draws a key at random; none if that is not possible.
    draw: Draw,
    renews: bool,
    state: State,
    /// The key was drawn here, so nobody else has spoken in the session.
    own_key: bool,
    /// The highest request number seen or given.
    highest: u64,
    /// It was given a number.
    numbered: bool,
    /// Numbers that were given here and have no answer.
    unanswered: BTreeSet<u64>,
    /// Requests up to this tag were said in sessions that are gone.
    gone: u64,
    /// When a command was told last that the session has ended.
    ended: Option<Duration>,
    ending: Ending,
    queued: VecDeque<Queued<S::Command>>,
    tags: u64,
    in_flight: FxHashMap<u64, InFlight<A>>,
    subscriptions: BTreeMap<u64, Subscription<S::Feed>>,
}

impl<A, S: StateMachine> Session<A, S> {
    /// A session with a key that is [named](Self::open) or, at the first command, drawn for it.
    pub fn new(limits: Limits, draw: impl FnMut() -> Option<SessionKey> + 'static) -> Session<A, S> {
        Session {
            limits,
            token: NO_TOKEN,
            draw: Draw(Box::new(draw)),
            renews: false,
            state: State::None,
            own_key: false,
            highest: 0,
            numbered: false,
            unanswered: BTreeSet::new(),
            gone: 0,
            ended: None,
            ending: Ending::Open,
            queued: VecDeque::new(),
            tags: 0,
            in_flight: FxHashMap::default(),
            subscriptions: BTreeMap::new(),
        }
    }

    /// A session with a key that is drawn for it, and followed by another when it has expired, unless it was given numbers.
    pub fn renewing(limits: Limits, draw: impl FnMut() -> Option<SessionKey> + 'static) -> Session<A, S> {
        Session { renews: true, ..Session::new(limits, draw) }
    }

    /// The session with this key: opened with the first command, or gone on with.
    pub fn named(limits: Limits, draw: impl FnMut() -> Option<SessionKey> + 'static, key: SessionKey) -> Session<A, S> {
        Session { state: State::Named(key), ..Session::new(limits, draw) }
    }

    // ----- what is asked -----

    /// From now on it asks by the token with this number. Until then it asks as the program that the node lives in.
    pub fn show(&mut self, token: u64) {
        self.token = token;
    }

    /// Asks the log to open the session with this key.
    pub fn open(&mut self, now: Duration, key: SessionKey, asker: Option<A>, out: &mut Vec<Out<A, S>>) {
        self.state = State::Opening(key);
        let tag = self.track(now, Kind::Open, asker);
        let header = RequestHeader { session: 0, key, number: 0, acknowledged: 0, token: self.token };
        out.push(Out::Submit { tag, header, action: Action::Open });
    }

    /// Goes on with this session, which was opened before.
    pub fn go_on(&mut self, session: SessionName) {
        self.state = State::Open(session);
    }

    /// Its name, once it is open.
    pub fn name(&self) -> Option<SessionName> {
        match self.state {
            State::Open(session) => Some(session),
            State::None | State::Named(_) | State::Opening(_) => None,
        }
    }

    /// Carries a command out.
    pub fn command(&mut self, now: Duration, asker: A, number: Number, command: S::Command, out: &mut Vec<Out<A, S>>) {
        self.act(now, asker, number, Action::Command(command), out);
    }

    /// Carries an administrator's command out.
    pub fn admin(&mut self, now: Duration, asker: A, number: Number, admin: Admin, out: &mut Vec<Out<A, S>>) {
        self.act(now, asker, number, Action::Admin(Box::new(admin)), out);
    }

    /// Carries an administrator's command out that the owner of this node's folder gives. It needs no session.
    pub fn admin_as_owner(&mut self, now: Duration, asker: A, node: NodeId, admin: Admin, out: &mut Vec<Out<A, S>>) {
        let tag = self.track(now, Kind::Command { number: 0, first: false }, Some(asker));
        let (session, number, acknowledged, token) = (0, 0, 0, u64::from(node.get()));
        let header = RequestHeader { session, key: SessionKey([0; 16]), number, acknowledged, token };
        out.push(Out::Submit { tag, header, action: Action::Admin(Box::new(admin)) });
    }

    fn act(&mut self, now: Duration, asker: A, number: Number, action: Action<S::Command>, out: &mut Vec<Out<A, S>>) {
        let (number, acknowledged, first) = match number {
            Number::Next => (self.highest.saturating_add(1), None, true),
            Number::Given { number, acknowledged } => (number, Some(acknowledged), self.is_first(number)),
        };
        if let Err(refusal) = self.admit(number, acknowledged, first) {
            return out.push(Out::Answer { tag: 0, asker, reply: refusal.into() });
        }
        self.highest = self.highest.max(number);
        if acknowledged.is_none() {
            self.unanswered.insert(number);
        }
        let tag = self.track(now, Kind::Command { number, first }, Some(asker));
        let queued = Queued { tag, number, acknowledged, action };
        match self.state {
            State::Open(session) => self.submit(session, queued, out),
            State::None | State::Named(_) | State::Opening(_) => self.queued.push_back(queued),
        }
        if let State::Named(key) = self.state {
            self.open(now, key, None, out);
        }
    }

    /// Whether a command with this number can't have been said before.
    pub fn is_first(&self, number: u64) -> bool {
        number > self.highest && (self.own_key || matches!(self.state, State::None))
    }

    /// Takes note of a number that was used for something else than a command.
    pub fn saw(&mut self, number: u64) {
        self.highest = self.highest.max(number);
    }

    /// Lets a command in, or says why not. From then on there is a key.
    fn admit(&mut self, number: u64, acknowledged: Option<u64>, first: bool) -> Result<(), Refusal> {
        if let Some(acknowledged) = acknowledged {
            if acknowledged >= number {
                let message =
                    format!("request {number} can't acknowledge its own answer, nor later ones ({acknowledged})");
                return Err(Refusal::refused(ErrorCode::Malformed, message));
            }
            self.numbered = true;
        }
        if self.ended.is_some() {
            let message = "this session has ended: open another, with another key, on a new connection";
            return Err(Refusal::unknown(ErrorCode::SessionExpired, message));
        }
        let outcome = if first { Outcome::Refused } else { Outcome::Unknown };
        if acknowledged.is_some() {
            self.saw(number);
        }
        self.make_room().map_err(|refusal| Refusal { outcome, ..refusal })?;
        if let State::None = self.state {
            let Some(key) = (self.draw.0)() else {
                return Err(Refusal::refused(ErrorCode::Busy, "this machine gives no random key for a session now"));
            };
            (self.state, self.own_key) = (State::Named(key), true);
        }
        Ok(())
    }

    /// Whether one more request may wait.
    fn make_room(&self) -> Result<(), Refusal> {
        if self.ending != Ending::Open {
            return Err(Refusal::refused(ErrorCode::Stopping, "this session is being closed"));
        }
        let waiting = self.in_flight.len();
        if waiting >= self.limits.in_flight {
            return Err(Refusal::refused(ErrorCode::Busy, format!("{waiting} requests of this session wait already")));
        }
        Ok(())
    }

    fn track(&mut self, now: Duration, kind: Kind, asker: Option<A>) -> u64 {
        self.tags += 1;
        self.in_flight.insert(self.tags, InFlight { kind, asker, deadline: now + self.limits.timeout });
        self.tags
    }

    fn submit(
        &self,
        SessionName { number: session, key }: SessionName,
        queued: Queued<S::Command>,
        out: &mut Vec<Out<A, S>>,
    ) {
        let Queued { tag, number, acknowledged, action } = queued;
        let acknowledged = acknowledged.unwrap_or_else(|| if self.numbered { 0 } else { self.answered_below() });
        let header = RequestHeader { session, key, number, acknowledged, token: self.token };
        out.push(Out::Submit { tag, header, action });
    }

    /// The highest number up to which every command that was numbered here has its outcome.
    fn answered_below(&self) -> u64 {
        self.unanswered.first().map_or(self.highest, |lowest| lowest - 1)
    }

    /// Asks the bank. Queries need no session in the log, and no number.
    pub fn query(&mut self, now: Duration, asker: A, query: S::Query, read: ReadLevel, out: &mut Vec<Out<A, S>>) {
        match self.make_room() {
            Err(refusal) => out.push(Out::Answer { tag: 0, asker, reply: refusal.into() }),
            Ok(()) => {
                let tag = self.track(now, Kind::Query(read), Some(asker));
                out.push(Out::Ask { tag, query, read, deadline: now + self.limits.timeout });
            }
        }
    }

    /// Begins a subscription, in the place of an earlier one of this name.
    pub fn subscribe(
        &mut self,
        now: Duration,
        asker: A,
        name: u64,
        feed: S::Feed,
        read: ReadLevel,
        out: &mut Vec<Out<A, S>>,
    ) {
        if let Err(refusal) = self.make_room() {
            return out.push(Out::Answer { tag: 0, asker, reply: refusal.into() });
        }
        let tag = self.track(now, Kind::Subscribe { name, read }, Some(asker));
        let subscription = Subscription { feed: Arc::new(feed.clone()), next: 0, asked: None };
        self.subscriptions.insert(name, subscription);
        out.push(Out::Subscribe { tag, feed, read, deadline: now + self.limits.timeout });
    }

    /// Asks for the next page of a subscription, if it waits for that.
    pub fn more(&mut self, name: u64, out: &mut Vec<Out<A, S>>) {
        let Some(subscription) = self.subscriptions.get_mut(&name) else { return };
        if subscription.next > 0 && subscription.asked.is_none() {
            self.tags += 1;
            subscription.asked = Some(self.tags);
            let (feed, next) = (subscription.feed.clone(), subscription.next);
            out.push(Out::Follow { tag: self.tags, feed, next });
        }
    }

    /// Asks for the next page of every subscription that waits for that.
    pub fn more_of_all(&mut self, out: &mut Vec<Out<A, S>>) {
        let names: Vec<u64> = self.subscriptions.keys().copied().collect();
        for name in names {
            self.more(name, out);
        }
    }

    /// No more entries come of this subscription. A name that is not in use changes nothing.
    pub fn unsubscribe(&mut self, name: u64) {
        self.subscriptions.remove(&name);
    }

    /// Ends the session in the log, once all is answered. Not before: commands in flight come in any order, and those that came
    /// behind the end of their session would not be executed.
    pub fn close(&mut self, now: Duration, out: &mut Vec<Out<A, S>>) {
        if self.ending == Ending::Open {
            self.ending = Ending::Closing;
        }
        self.close_if_done(now, out);
    }

    /// Whoever spoke in it is gone. The session stays open in the log, and subscriptions end.
    pub fn leave(&mut self) {
        self.ending = Ending::Closed;
        self.subscriptions.clear();
    }

    /// Answers everything that waits: nobody will.
    pub fn stop(&mut self, why: &str, out: &mut Vec<Out<A, S>>) {
        self.queued.clear();
        self.unanswered.clear();
        let mut waiting: Vec<_> = mem::take(&mut self.in_flight).into_iter().collect();
        waiting.sort_unstable_by_key(|(tag, _)| *tag);
        for (tag, InFlight { kind, asker, .. }) in waiting {
            if let (Some(asker), Kind::Command { .. } | Kind::Query(_) | Kind::Subscribe { .. }) = (asker, kind) {
                let reply = kind.unanswered(ErrorCode::Stopping, why).into();
                out.push(Out::Answer { tag, asker, reply });
            }
        }
        self.leave();
    }

    // ----- what is answered -----

    /// Whether this request still waits for its answer.
    pub fn waits_for(&self, tag: u64) -> bool {
        self.in_flight.contains_key(&tag)
    }

    /// Whether every request has its answer.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// When a command was told last that the session has ended in the log, and that no other takes its place.
    pub fn ended(&self) -> Option<Duration> {
        self.ended
    }

    /// The bank, or the proposer through it, has answered.
    pub fn answered(&mut self, now: Duration, answered: Answered<S>, out: &mut Vec<Out<A, S>>) {
        let Answered { tag, slot, index, replayed, result } = answered;
        let result = match result {
            Ok(Done::Followed { entries, next }) => return self.followed(tag, entries, next, out),
            result => result,
        };
        // After its deadline nobody waits any more.
        let Some(InFlight { kind, asker, .. }) = self.in_flight.remove(&tag) else { return };
        let result = match (kind, result) {
            (Kind::Open, Ok(Done::Opened { session, new })) => {
                self.opened(session, new, asker, out);
                return self.close_if_done(now, out);
            }
            (Kind::Open, Err(refusal)) => {
                self.not_opened(now, refusal, asker, out);
                return self.close_if_done(now, out);
            }
            (Kind::Close, _) => return self.close_if_done(now, out),
            (Kind::Command { number, .. }, Ok(Done::Success(answer))) => {
                self.unanswered.remove(&number);
                Ok(answer)
            }
            (Kind::Command { number, .. }, Ok(Done::Unseen)) => {
                self.unanswered.remove(&number);
                Err(Refusal::unknown(
                    ErrorCode::NotAuthorised,
                    "it was carried out, and the token is not in force any more",
                ))
            }
            (Kind::Query(_), Ok(Done::Success(answer))) => Ok(answer),
            (Kind::Subscribe { name, .. }, Ok(Done::Subscribed { from, answer })) => {
                if let Some(subscription) = self.subscriptions.get_mut(&name) {
                    subscription.next = from;
                }
                Ok(answer)
            }
            (_, Err(refusal)) => Err(self.refused(now, tag, kind, refusal)),
            (_, Ok(done)) => unreachable!("{kind:?} was answered with {done:?}"),
        };
        if let Some(asker) = asker {
            out.push(Out::Answer { tag, asker, reply: Reply { slot, index, replayed, result } });
        }
        self.close_if_done(now, out);
    }

    fn refused(&mut self, now: Duration, tag: u64, kind: Kind, refusal: Refusal) -> Refusal {
        match kind {
            Kind::Command { number, first } => {
                self.unanswered.remove(&number);
                let gone = refusal.code == ErrorCode::SessionExpired;
                if gone && first && self.renews && !self.numbered {
                    self.renew(tag);
                    return Refusal { outcome: Outcome::Refused, ..refusal };
                }
                if gone {
                    self.ended = Some(now);
                }
                match refusal.code {
                    // Nobody but this session says so of its only attempt.
                    ErrorCode::NotAuthorised if first => Refusal { outcome: Outcome::Refused, ..refusal },
                    _ if first => refusal,
                    _ => of_a_retry(refusal),
                }
            }
            Kind::Subscribe { name, .. } => {
                self.subscriptions.remove(&name);
                refusal
            }
            Kind::Open | Kind::Close | Kind::Query(_) => refusal,
        }
    }

    /// The session of this command is gone, and nobody else spoke in it: another takes its place, unless it has already.
    fn renew(&mut self, tag: u64) {
        if tag > self.gone {
            (self.state, self.gone) = (State::None, self.tags);
        }
    }

    fn opened(&mut self, number: u64, new: bool, asker: Option<A>, out: &mut Vec<Out<A, S>>) {
        let State::Opening(key) = self.state else { return };
        let session = SessionName { number, key };
        self.state = State::Open(session);
        out.push(Out::Opened { asker, session, new });
        for queued in mem::take(&mut self.queued) {
            // Those past their deadline were answered.
            if self.in_flight.contains_key(&queued.tag) {
                self.submit(session, queued, out);
            }
        }
    }

    /// The opening was turned away, or had no answer in time, and so are the commands that waited for it.
    fn not_opened(&mut self, now: Duration, refusal: Refusal, asker: Option<A>, out: &mut Vec<Out<A, S>>) {
        if let State::Opening(key) = self.state {
            let used_up = refusal.code == ErrorCode::SessionExpired;
            self.state = if used_up && self.own_key { State::None } else { State::Named(key) };
            if used_up && !self.own_key {
                self.ended = Some(now);
            }
        }
        for Queued { tag, .. } in mem::take(&mut self.queued) {
            let Some(InFlight { kind, asker: Some(asker), .. }) = self.in_flight.remove(&tag) else { continue };
            let mut refusal = refusal.clone();
            if let Kind::Command { number, first } = kind {
                self.unanswered.remove(&number);
                if !first {
                    refusal.outcome = Outcome::Unknown;
                }
            }
            out.push(Out::Answer { tag, asker, reply: refusal.into() });
        }
        out.push(Out::NotOpened { asker, refusal });
    }

    fn followed(&mut self, tag: u64, entries: Vec<Entry<S>>, next: u64, out: &mut Vec<Out<A, S>>) {
        let mut asked = self.subscriptions.iter_mut().filter(|(_, subscription)| subscription.asked == Some(tag));
        // It may have been ended meanwhile.
        let Some((name, subscription)) = asked.next() else { return };
        (subscription.asked, subscription.next) = (None, next);
        out.push(Out::Entries { subscription: *name, entries, next });
    }

    fn close_if_done(&mut self, now: Duration, out: &mut Vec<Out<A, S>>) {
        if self.ending != Ending::Closing || !self.in_flight.is_empty() {
            return;
        }
        match mem::replace(&mut self.state, State::None) {
            State::Open(SessionName { number, key }) => {
                let tag = self.track(now, Kind::Close, None);
                let header = RequestHeader { session: number, key, number: 0, acknowledged: 0, token: self.token };
                out.push(Out::Submit { tag, header, action: Action::Close });
            }
            State::None | State::Named(_) | State::Opening(_) => {
                self.ending = Ending::Closed;
                out.push(Out::Closed);
            }
        }
    }

    // ----- time -----

    /// Settles what is past its deadline, on a node that has applied the slots up to `applied`.
    pub fn check(&mut self, now: Duration, applied: Slot, out: &mut Vec<Out<A, S>>) {
        let late = |(tag, waiting): (&u64, &InFlight<A>)| (waiting.deadline <= now).then_some(*tag);
        let mut due: Vec<u64> = self.in_flight.iter().filter_map(late).collect();
        due.sort_unstable();
        for tag in due {
            self.expire(now, tag, applied, out);
        }
        self.close_if_done(now, out);
    }

    fn expire(&mut self, now: Duration, tag: u64, applied: Slot, out: &mut Vec<Out<A, S>>) {
        let Some(in_flight) = self.in_flight.get_mut(&tag) else { return };
        if let (Kind::Open, None, Ending::Open) = (in_flight.kind, &in_flight.asker, self.ending) {
            // It goes on waiting: commands behind it have their own deadlines.
            in_flight.deadline = now + self.limits.timeout;
            return;
        }
        let Some(InFlight { kind, asker, .. }) = self.in_flight.remove(&tag) else { return };
        let refusal = kind.missed(applied, self.limits.timeout);
        match kind {
            Kind::Open => return self.not_opened(now, refusal, asker, out),
            Kind::Close | Kind::Query(_) => {}
            Kind::Command { number, .. } => _ = self.unanswered.remove(&number),
            Kind::Subscribe { name, .. } => _ = self.subscriptions.remove(&name),
        }
        if let Some(asker) = asker {
            out.push(Out::Answer { tag, asker, reply: refusal.into() });
        }
    }
}

/// This node can't tell whether an earlier attempt was executed.
fn of_a_retry(mut refusal: Refusal) -> Refusal {
    if is_broken(Rule::RetriesUnknown) {
        refusal.outcome = Outcome::Refused;
    } else if matches!(refusal.code, ErrorCode::Busy | ErrorCode::SessionExpired | ErrorCode::Stopping) {
        refusal.outcome = Outcome::Unknown;
    }
    refusal
}

/// The refusal of a question that had no answer by its deadline, so long after it was asked, on a node that has applied the
/// slots up to `applied`. A slot that is not there yet is no sign of a lost quorum, and the client can tell from the answer
/// whether it will ever come.
fn missed(read: ReadLevel, applied: Slot, waited: Duration) -> Refusal {
    let seconds = waited.as_secs_f32();
    match read {
        ReadLevel::AtLeast(slot) if slot > applied => Refusal::refused(
            ErrorCode::NotYetApplied,
            format!("slot {slot} was not applied here within {seconds} s; the last one is slot {applied}"),
        ),
        ReadLevel::Linearizable => {
            let message = format!("no quorum of nodes answered within {seconds} s, or there is too much to look at");
            Refusal::refused(ErrorCode::NoQuorum, message)
        }
        ReadLevel::Local | ReadLevel::AtLeast(_) => {
            let message = format!(
                "not answered within {seconds} s: this node has met no quorum since its start, or doubts its log (its status says \
                 so), or there is too much to look at"
            );
            Refusal::refused(ErrorCode::NoQuorum, message)
        }
    }
}

#[cfg(test)]
mod tests;
