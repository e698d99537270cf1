//! Sessions: what makes a request apply once, however often it is sent.
//!
//! A session keeps the outcome of each command until its client acknowledges it, that is, says that it has the answers
//! to all requests up to a number. A command goes to the machine only through a [`Vacancy`], the place where its outcome
//! will be kept, and there is one only for a number that is neither acknowledged nor taken. An outcome that
//! says no is one like any other: it is kept and replayed too.
//!
//! A session ends by a goodbye, when it was idle for too long, or to make room for another where as many are open as may be, in all
//! or of its principal, and none was idle for longer: first one of the principal that opens another. How long it was idle is log time, so it ends at the same request everywhere. Its key is used
//! up then (`ended`).
//!
//! What a request acknowledges counts before its own number is looked at, and only up to the number before its own:
//! who asks cannot have the answer yet.
//!
//! # What replies may take
//!
//! A command is admitted only if the most that its reply can take fits. A session has [`MAX_KEPT`]; of these the first
//! [`OWN_KEPT`] are there for each session whatever others do, and the rest is a share of [`MAX_SHARED`], which all sessions
//! have together, and of which a principal has its [share](super::shares). So one that acknowledges nothing fills its own part and that
//! of its principal, and who acknowledges as answers come goes on.

use std::collections::{BTreeMap, BTreeSet};

use rabia_bank_messages::batch::RequestHeader;
use rabia_bank_messages::genesis::SessionLimits;
use rabia_bank_messages::ids::{Millis, SessionKey, Slot};
use rabia_bank_messages::principal::{AdminRefusal, Administered, PrincipalNumber};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use serde::{Deserialize, Serialize};

use super::ended::{Ended, EndedRow};
use super::machine::{Kept, StateMachine};
use super::rejection::{Keeper, Rejection};
use super::rows::{self, BadRow};
use super::set_hash::SetHash;
use super::shares::{Shares, share};

/// The most that a session keeps of unacknowledged replies, in bytes: room for 26 of the largest bulks in flight at once.
pub(super) const MAX_KEPT: usize = 4 << 20;
/// What a session may keep whatever others keep, in bytes: some commands in flight. It is 100 MB for 100,000 sessions.
pub(super) const OWN_KEPT: usize = 1 << 10;
/// What all sessions together keep beyond their own parts, in bytes.
pub(super) const MAX_SHARED: usize = 128 << 20;
/// Where as many sessions are open as may be, one that was idle for so long makes room for another: an hour of log time. A
/// client that is still there has said something meanwhile, and one that is not has given up.
pub(super) const MAKES_ROOM_AFTER: Millis = 60 * 60 * 1_000;
/// What a kept reply takes besides its outcome, in bytes: its entry in the tree of its session, fingerprint, slot.
const REPLY_BYTES: usize = 128;
/// So many new replies are hashed in one go. More would stall an answer by more than half a millisecond.
const REHASH_AT: usize = 4096;

/// Tells commands apart: the first half of the BLAKE3 hash of the encoded action. Only the holder of a session's key
/// could gain from two commands with one fingerprint, and only against itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fingerprint([u8; 16]);

impl Fingerprint {
    fn of(action_bytes: &[u8]) -> Fingerprint {
        let hash = blake3::hash(action_bytes);
        let (halves, _) = hash.as_bytes().as_chunks::<16>();
        Fingerprint(halves[0])
    }
}

/// A row of the sessions. Its key is a position in the log, of which every request has one: that of the request which opened
/// the session, or brought the reply. So a session comes before its replies. Pages of [`EndedRow`]s come behind, from
/// [`ENDED_ROWS`] on.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum SessionsRow {
    Session(SessionRow),
    Reply(ReplyRow),
    Ended(EndedRow),
}

/// The key of the row with the first sessions that ended. No log has so many requests.
pub(super) const ENDED_ROWS: u64 = 1 << 63;

/// What a snapshot holds of an open session.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SessionRow {
    key: SessionKey,
    acknowledged: u64,
    last_used: Millis,
    principal: PrincipalNumber,
}

/// A reply that a session keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ReplyRow {
    session: u64,
    number: u64,
    #[serde(with = "serde_bytes")]
    fingerprint: [u8; 16],
    slot: Slot,
    index: u32,
    #[serde(with = "serde_bytes")]
    outcome: Vec<u8>,
}

/// Where a command stands in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) slot: Slot,
    /// Its place among the requests of that slot, from 0.
    pub(super) index: u32,
}

/// What is kept of what came of a request.
#[derive(Debug)]
pub(super) enum KeptReply<S: StateMachine> {
    /// Of a command of the machine.
    Command(S::Kept),
    /// Of an administrator's command.
    Admin(Administered),
}

impl<S: StateMachine> Clone for KeptReply<S> {
    fn clone(&self) -> KeptReply<S> {
        match self {
            KeptReply::Command(kept) => KeptReply::Command(kept.clone()),
            KeptReply::Admin(outcome) => KeptReply::Admin(*outcome),
        }
    }
}

impl<S: StateMachine> KeptReply<S> {
    /// Stands before an administrator's outcome.
    const ADMIN: u8 = 1;
    /// Stands before a machine's.
    const COMMAND: u8 = 0;

    /// What it takes beside a constant, in bytes.
    fn bytes(&self) -> usize {
        match self {
            KeptReply::Command(kept) => kept.bytes(),
            KeptReply::Admin(_) => 0,
        }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            KeptReply::Command(kept) => {
                bytes.push(Self::COMMAND);
                kept.encode(bytes);
            }
            KeptReply::Admin(outcome) => {
                let (tag, number) = outcome.map_or_else(|refusal| (refusal as u8, 0), |number| (0, number));
                bytes.extend_from_slice(&[Self::ADMIN, tag]);
                bytes.extend_from_slice(&number.to_be_bytes());
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<KeptReply<S>> {
        match bytes {
            [Self::COMMAND, kept @ ..] => S::Kept::decode(kept).map(KeptReply::Command),
            [Self::ADMIN, tag, number @ ..] => {
                let number = u64::from_be_bytes(number.try_into().ok()?);
                let refusal = AdminRefusal::ALL.into_iter().find(|refusal| *refusal as u8 == *tag);
                match (tag, refusal) {
                    (0, _) => Some(KeptReply::Admin(Ok(number))),
                    (_, Some(refusal)) if number == 0 => Some(KeptReply::Admin(Err(refusal))),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn speaks_of(&self, machine: &S) -> bool {
        match self {
            KeptReply::Command(kept) => kept.speaks_of(machine),
            KeptReply::Admin(_) => true,
        }
    }
}

#[derive(Debug)]
struct Reply<S: StateMachine> {
    fingerprint: Fingerprint,
    /// The request's position in the log, counted in requests.
    position: u64,
    /// Of the first application.
    place: Place,
    outcome: KeptReply<S>,
    /// Whether the hash of all sessions has it.
    hashed: bool,
    /// Whether a snapshot has it.
    saved: bool,
}

impl<S: StateMachine> Reply<S> {
    /// What it takes, in bytes.
    fn bytes(&self) -> usize {
        REPLY_BYTES + self.outcome.bytes()
    }

    fn set_hash(&self, session: u64, number: u64) -> SetHash {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(b"reply");
        for part in [session, number, self.position, self.place.slot, u64::from(self.place.index)] {
            bytes.extend_from_slice(&part.to_be_bytes());
        }
        bytes.extend_from_slice(&self.fingerprint.0);
        self.outcome.encode(&mut bytes);
        SetHash::of(&bytes)
    }
}

#[derive(Debug)]
struct Session<S: StateMachine> {
    key: SessionKey,
    /// Who opened it: nobody else speaks in it.
    principal: PrincipalNumber,
    /// The client has the answers up to this number.
    acknowledged: u64,
    /// Log time of the last request.
    last_used: Millis,
    /// An earlier such time, or the same.
    filed: Millis,
    /// By request number, all above `acknowledged`.
    replies: BTreeMap<u64, Reply<S>>,
    /// What `replies` take, in bytes.
    kept: usize,
    /// What the hash of all sessions holds for this one, beside its replies.
    hashed: SetHash,
    changed: bool,
    /// It changed since it was saved.
    unsaved: bool,
}

impl<S: StateMachine> Session<S> {
    fn new(key: SessionKey, principal: PrincipalNumber, now: Millis) -> Session<S> {
        Session {
            key,
            principal,
            acknowledged: 0,
            last_used: now,
            filed: now,
            replies: BTreeMap::new(),
            kept: 0,
            hashed: SetHash::default(),
            changed: true,
            unsaved: true,
        }
    }

    fn to_row(&self) -> SessionRow {
        let Session { key, acknowledged, last_used, principal, .. } = *self;
        SessionRow { key, acknowledged, last_used, principal }
    }

    fn set_hash(&self, number: u64) -> SetHash {
        let mut bytes = [0; 7 + 8 + 16 + 8 + 8 + 4];
        bytes[..7].copy_from_slice(b"session");
        bytes[7..15].copy_from_slice(&number.to_be_bytes());
        bytes[15..31].copy_from_slice(&self.key.0);
        bytes[31..39].copy_from_slice(&self.acknowledged.to_be_bytes());
        bytes[39..47].copy_from_slice(&self.last_used.to_be_bytes());
        bytes[47..].copy_from_slice(&self.principal.to_be_bytes());
        SetHash::of(&bytes)
    }

    /// Whether this principal may speak in it.
    fn is_of(&self, principal: PrincipalNumber) -> bool {
        self.principal == principal || is_broken(Rule::SessionOwned)
    }

    /// Drops the replies up to `acknowledged`.
    fn acknowledge(&mut self, session: u64, acknowledged: u64, kept: &mut Sums) {
        self.acknowledged = self.acknowledged.max(acknowledged);
        while let Some(first) = self.replies.first_entry()
            && *first.key() <= self.acknowledged
        {
            let (number, reply) = first.remove_entry();
            let before = self.kept;
            self.kept -= reply.bytes();
            kept.count(self.principal, before, self.kept);
            if reply.hashed {
                kept.hash.subtract(reply.set_hash(session, number));
            }
            if reply.saved {
                kept.gone.push(reply.position);
            }
        }
    }
}

/// How much of what a session keeps is of the shared part.
fn shared(kept: usize) -> usize {
    kept.saturating_sub(OWN_KEPT)
}

/// The sums over all sessions and their replies.
#[derive(Debug, Default)]
struct Sums {
    /// What they keep of the shared part, in bytes.
    shared: usize,
    shares: Shares,
    hash: SetHash,
    /// Replies that were not hashed yet: session and request number. Some may be gone again.
    unhashed: Vec<(u64, u64)>,
    /// Positions of replies that are gone, but in the last snapshot.
    gone: Vec<u64>,
}

impl Sums {
    /// A session of this principal keeps so much, where it kept so much.
    fn count(&mut self, principal: PrincipalNumber, before: usize, now: usize) {
        let (before, now) = (shared(before), shared(now));
        if before != now {
            self.shared = self.shared + now - before;
            self.shares.keeps(principal, before, now);
        }
    }
}

/// What a session says to a command.
pub(super) enum Admission<'a, S: StateMachine> {
    /// It is new: carry it out and keep its outcome here.
    Vacant(Vacancy<'a, S>),
    /// It was carried out at this place, with this outcome.
    Replayed(Place, KeptReply<S>),
    /// It may not be carried out.
    Rejected(Rejection),
}

/// The place for the outcome of a command that was not carried out yet.
pub(super) struct Vacancy<'a, S: StateMachine> {
    session: &'a mut Session<S>,
    kept: &'a mut Sums,
    name: (u64, u64),
    fingerprint: Fingerprint,
}

impl<S: StateMachine> Vacancy<'_, S> {
    /// Keeps the outcome of the command, applied at this place and position of the log.
    pub(super) fn keep(self, position: u64, place: Place, outcome: KeptReply<S>) {
        if is_broken(Rule::RepliesKept) {
            return;
        }
        let Vacancy { session, kept, name, fingerprint } = self;
        let before = session.kept;
        let reply = Reply { fingerprint, position, place, outcome, hashed: false, saved: false };
        session.kept += reply.bytes();
        kept.count(session.principal, before, session.kept);
        let other = session.replies.insert(name.1, reply);
        assert!(other.is_none(), "request {name:?} was applied twice, first as {other:?}");
        kept.unhashed.push(name);
    }
}

/// All open sessions, and the keys of those that ended.
#[derive(Debug)]
pub(super) struct Sessions<S: StateMachine> {
    limits: SessionLimits,
    open: BTreeMap<u64, Session<S>>,
    by_key: BTreeMap<SessionKey, u64>,
    /// Every session by `filed` and number. It is filed anew only when it comes first here, so that using a session costs
    /// nothing.
    by_use: BTreeSet<(Millis, u64)>,
    ended: Ended,
    kept: Sums,
    /// Sessions that changed since they were hashed.
    changed: Vec<u64>,
    /// Sessions that changed, or ended, since they were saved.
    unsaved: Vec<u64>,
}

/// What changed of the sessions, for a snapshot: by key. It is encoded as it is asked for.
#[derive(Debug)]
pub(super) struct UnsavedRows<S: StateMachine>(std::vec::IntoIter<(u64, Unsaved<S>)>);

/// What became of a row.
#[derive(Debug)]
enum Unsaved<S: StateMachine> {
    Gone,
    Session(SessionRow),
    Reply { session: u64, number: u64, fingerprint: Fingerprint, place: Place, outcome: KeptReply<S> },
    Ended(EndedRow),
}

impl<S: StateMachine> Unsaved<S> {
    fn encode(self) -> Option<Vec<u8>> {
        Some(rows::encode(&match self {
            Unsaved::Gone => return None,
            Unsaved::Session(row) => SessionsRow::Session(row),
            Unsaved::Ended(row) => SessionsRow::Ended(row),
            Unsaved::Reply { session, number, fingerprint: Fingerprint(fingerprint), place, outcome: kept } => {
                let Place { slot, index } = place;
                let mut outcome = Vec::new();
                kept.encode(&mut outcome);
                SessionsRow::Reply(ReplyRow { session, number, fingerprint, slot, index, outcome })
            }
        }))
    }
}

impl<S: StateMachine> UnsavedRows<S> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds the next `count` rows, none for one that went. Answers whether there are more.
    pub(super) fn encode(&mut self, count: usize, rows: &mut Vec<(u64, Option<Vec<u8>>)>) -> bool {
        rows.extend(self.0.by_ref().take(count).map(|(key, row)| (key, row.encode())));
        self.len() > 0
    }
}

impl<S: StateMachine> Sessions<S> {
    pub(super) fn new(limits: SessionLimits) -> Sessions<S> {
        assert!(limits.open > 0, "no session may be open: {limits:?}");
        Sessions {
            limits,
            open: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_use: BTreeSet::new(),
            ended: Ended::default(),
            kept: Sums::default(),
            changed: Vec::new(),
            unsaved: Vec::new(),
        }
    }

    pub(super) fn limits(&self) -> SessionLimits {
        self.limits
    }

    /// What changed since it was saved: all of it goes into a snapshot now.
    pub(super) fn save(&mut self) -> UnsavedRows<S> {
        let gone = std::mem::take(&mut self.kept.gone);
        let mut rows: Vec<(u64, Unsaved<S>)> = gone.into_iter().map(|position| (position, Unsaved::Gone)).collect();
        let mut numbers = std::mem::take(&mut self.unsaved);
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let Some(session) = self.open.get_mut(&number) else {
                rows.push((number, Unsaved::Gone));
                continue;
            };
            session.unsaved = false;
            rows.push((number, Unsaved::Session(session.to_row())));
            for (request, reply) in session.replies.iter_mut().filter(|(_, reply)| !reply.saved) {
                reply.saved = true;
                let Reply { fingerprint, place, .. } = *reply;
                let outcome = reply.outcome.clone();
                let row = Unsaved::Reply { session: number, number: *request, fingerprint, place, outcome };
                rows.push((reply.position, row));
            }
        }
        let ended = self.ended.save().into_iter();
        rows.extend(ended.map(|(page, row)| (ENDED_ROWS + page, row.map_or(Unsaved::Gone, Unsaved::Ended))));
        UnsavedRows(rows.into_iter())
    }

    /// Adds a row of a snapshot. They come in the order of their keys.
    pub(super) fn load(&mut self, key: u64, bytes: &[u8]) -> Result<(), BadRow> {
        let row = rows::decode(|| format!("row {key} of the sessions"), bytes)?;
        match (row, key.checked_sub(ENDED_ROWS)) {
            (SessionsRow::Session(row), None) => self.load_session(key, row),
            (SessionsRow::Reply(row), None) => self.load_reply(key, row),
            (SessionsRow::Ended(row), Some(page)) => self.ended.load(page, row),
            _ => Err(BadRow::new(format!("row {key} of the sessions is in the place of another"))),
        }
    }

    fn load_session(&mut self, number: u64, row: SessionRow) -> Result<(), BadRow> {
        let SessionRow { key, acknowledged, last_used, principal } = row;
        if self.by_key.contains_key(&key) || self.open.contains_key(&number) || self.ended.contains(&key) {
            return Err(BadRow::new(format!("session {number} is there twice")));
        }
        self.by_key.insert(key, number);
        self.by_use.insert((last_used, number));
        self.kept.shares.opened(principal, (last_used, number));
        let session = Session { acknowledged, unsaved: false, ..Session::new(key, principal, last_used) };
        self.open.insert(number, session);
        self.changed.push(number);
        Ok(())
    }

    fn load_reply(&mut self, position: u64, row: ReplyRow) -> Result<(), BadRow> {
        let ReplyRow { session: name, number, fingerprint, slot, index, outcome } = row;
        let bad = |what: &str| BadRow::new(format!("the reply to request {number} of session {name}: {what}"));
        let session = self.open.get_mut(&name).ok_or_else(|| bad("there is no such session"))?;
        let outcome = KeptReply::decode(&outcome).ok_or_else(|| bad("no outcome"))?;
        let place = Place { slot, index };
        let fingerprint = Fingerprint(fingerprint);
        let reply = Reply { fingerprint, position, place, outcome, hashed: false, saved: true };
        let before = session.kept;
        session.kept += reply.bytes();
        self.kept.count(session.principal, before, session.kept);
        if number <= session.acknowledged || session.kept > MAX_KEPT || self.kept.shared > MAX_SHARED {
            return Err(bad("it is not kept any more, or too much is"));
        }
        if session.replies.insert(number, reply).is_some() {
            return Err(bad("it is there twice"));
        }
        self.kept.unhashed.push((name, number));
        Ok(())
    }

    /// Whether all replies speak of what is in the machine.
    pub(super) fn speak_of(&self, machine: &S) -> bool {
        let mut replies = self.open.values().flat_map(|session| session.replies.values());
        replies.all(|reply| reply.outcome.speaks_of(machine))
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// How many have ended.
    pub(super) fn ended(&self) -> u64 {
        self.ended.count()
    }

    /// The session with this key, and whether it is new: the open one, else a new one with this number, for which another may
    /// have to go.
    pub(super) fn open(
        &mut self,
        key: SessionKey,
        number: u64,
        now: Millis,
        principal: PrincipalNumber,
    ) -> Result<(u64, bool), Rejection> {
        if let Some(&number) = self.by_key.get(&key) {
            if !self.open.get(&number).is_some_and(|session| session.is_of(principal)) {
                return Err(Rejection::NotAuthorised);
            }
            touch(&mut self.open, &mut self.changed, &mut self.unsaved, number, key, now);
            return Ok((number, false));
        }
        if self.ended.contains(&key) && !is_broken(Rule::EndedKeysKept) {
            return Err(Rejection::KeyUsed);
        }
        while let Err(rejection) = self.has_room(principal) {
            let longest = self.makes_room(principal).filter(|(used, _)| now - used >= MAKES_ROOM_AFTER);
            self.end(longest.ok_or(rejection)?.1);
        }
        self.by_key.insert(key, number);
        self.by_use.insert((now, number));
        self.kept.shares.opened(principal, (now, number));
        let other = self.open.insert(number, Session::new(key, principal, now));
        assert!(other.is_none(), "session {number} was opened twice, first as {other:?}");
        self.changed.push(number);
        self.unsaved.push(number);
        Ok((number, true))
    }

    /// Whether this principal may open another session.
    fn has_room(&self, principal: PrincipalNumber) -> Result<(), Rejection> {
        let (open, own) = (self.open.len() as u64, self.kept.shares.sessions(principal));
        if open >= self.limits.open {
            Err(Rejection::TooManySessions { open })
        } else if own >= share(self.limits.open, open - own) {
            Err(Rejection::TooManyOfPrincipal { open: own })
        } else {
            Ok(())
        }
    }

    /// The session that ends where this principal opens another and there is no room, if it was idle for long enough: its own that was
    /// idle for longest, or that of all where it has less than its share.
    fn makes_room(&mut self, principal: PrincipalNumber) -> Option<(Millis, u64)> {
        let (open, own) = (self.open.len() as u64, self.kept.shares.sessions(principal));
        if own >= share(self.limits.open, (open - own).saturating_sub(1)) {
            self.first_of(|sessions| sessions.kept.shares.first(principal))
        } else {
            self.least_recently_used()
        }
    }

    /// Ends a session and forgets its replies.
    pub(super) fn close(&mut self, number: u64, key: SessionKey, principal: PrincipalNumber) -> Result<(), Rejection> {
        match self.open.get(&number).filter(|session| session.key == key) {
            None => return Err(Rejection::SessionExpired { session: number }),
            Some(session) if !session.is_of(principal) => return Err(Rejection::NotAuthorised),
            Some(_) => self.end(number),
        }
        Ok(())
    }

    /// The rows with the keys of the sessions that ended.
    pub(super) fn ended_rows(&self) -> Vec<(u64, Vec<u8>)> {
        let rows = self.ended.pages();
        rows.map(|(page, row)| (ENDED_ROWS + page, rows::encode(&SessionsRow::Ended(row)))).collect()
    }

    /// For a new cluster that begins with these books: nobody acts in it in a session of the old one.
    pub(super) fn end_all(&mut self) {
        let numbers: Vec<u64> = self.open.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.end(number));
    }

    fn end(&mut self, number: u64) {
        let Some(mut session) = self.open.remove(&number) else { return };
        self.by_use.remove(&(session.filed, number));
        session.acknowledge(number, u64::MAX, &mut self.kept);
        self.kept.shares.ended(session.principal, (session.filed, number));
        self.kept.hash.subtract(session.hashed);
        self.by_key.remove(&session.key);
        self.ended.insert(&session.key);
        self.unsaved.push(number);
    }

    /// Ends the sessions that were idle for too long.
    pub(super) fn expire_idle(&mut self, now: Millis) {
        while let Some((used, number)) = self.least_recently_used()
            && now - used > self.limits.idle_ms
        {
            self.end(number);
        }
    }

    /// The session that was idle for longest, of several the one that was opened first, and when it was last used.
    fn least_recently_used(&mut self) -> Option<(Millis, u64)> {
        self.first_of(|sessions| sessions.by_use.first().copied())
    }

    /// The first of those that are filed in one place, when it is filed by its last use, and that.
    fn first_of(&mut self, filed: impl Fn(&Self) -> Option<(Millis, u64)>) -> Option<(Millis, u64)> {
        loop {
            let first = filed(self)?;
            let Some(session) = self.open.get_mut(&first.1) else {
                panic!("session {} is filed, but not open", first.1)
            };
            if session.filed == session.last_used {
                return Some(first);
            }
            assert!(session.filed < session.last_used, "session {} was filed ahead of its use", first.1);
            session.filed = session.last_used;
            let again = (session.filed, first.1);
            self.by_use.remove(&first);
            self.by_use.insert(again);
            self.kept.shares.opened(session.principal, again);
            self.kept.shares.ended(session.principal, first);
        }
    }

    /// What becomes of a request of this principal that is encoded as `action_bytes`, of whose outcome at most so many bytes are kept.
    pub(super) fn admit(
        &mut self,
        header: &RequestHeader,
        most_bytes: usize,
        action_bytes: &[u8],
        principal: PrincipalNumber,
        now: Millis,
    ) -> Admission<'_, S> {
        let RequestHeader { session: name, key, number, acknowledged, token: _ } = *header;
        let Sessions { open, changed, kept, unsaved, .. } = self;
        if open.get(&name).is_some_and(|session| session.key == key && !session.is_of(principal)) {
            return Admission::Rejected(Rejection::NotAuthorised);
        }
        let Some(session) = touch(open, changed, unsaved, name, key, now) else {
            return Admission::Rejected(Rejection::SessionExpired { session: name });
        };
        session.acknowledge(name, acknowledged.min(number.saturating_sub(1)), kept);
        if number <= session.acknowledged {
            return Admission::Rejected(Rejection::RequestAcknowledged { number, acknowledged: session.acknowledged });
        }
        let fingerprint = Fingerprint::of(action_bytes);
        match session.replies.get(&number) {
            None => match room(session, kept, REPLY_BYTES + most_bytes) {
                Ok(()) => Admission::Vacant(Vacancy { session, kept, name: (name, number), fingerprint }),
                Err(rejection) => Admission::Rejected(rejection),
            },
            Some(reply) if reply.fingerprint == fingerprint => Admission::Replayed(reply.place, reply.outcome.clone()),
            Some(_) => Admission::Rejected(Rejection::RequestReused { number }),
        }
    }

    /// Brings the hash up to date if much has changed, to keep the next [`set_hash`](Sessions::set_hash) cheap.
    pub(super) fn rehash_if_many(&mut self) {
        if self.kept.unhashed.len().max(self.changed.len()) >= REHASH_AT {
            self.set_hash();
        }
    }

    /// The hash of the set of all sessions, their replies, and the keys of those that ended, at the cost of what changed since
    /// it was last asked for.
    pub(super) fn set_hash(&mut self) -> SetHash {
        for number in self.changed.drain(..) {
            let Some(session) = self.open.get_mut(&number) else { continue };
            self.kept.hash.subtract(session.hashed);
            session.hashed = session.set_hash(number);
            self.kept.hash.add(session.hashed);
            session.changed = false;
        }
        for (session, number) in self.kept.unhashed.drain(..) {
            let reply = self.open.get_mut(&session).and_then(|open| open.replies.get_mut(&number));
            let Some(reply) = reply else { continue };
            self.kept.hash.add(reply.set_hash(session, number));
            reply.hashed = true;
        }
        let mut hash = self.kept.hash;
        hash.add(self.ended.set_hash());
        hash
    }
}

/// Whether a reply of `most` bytes fits beside what its session keeps, and what its principal and all keep of the shared part.
fn room<S: StateMachine>(session: &Session<S>, sums: &Sums, most: usize) -> Result<(), Rejection> {
    let Session { kept, principal, .. } = *session;
    let more = shared(kept + most) - shared(kept);
    if kept + most > MAX_KEPT {
        return Err(Rejection::RepliesFull { kept, of: Keeper::Session });
    }
    if more == 0 {
        return Ok(());
    }
    let own = sums.shares.kept(principal);
    if sums.shared + more > MAX_SHARED {
        Err(Rejection::RepliesFull { kept: sums.shared, of: Keeper::All })
    } else if (own + more) as u64 > share(MAX_SHARED as u64, (sums.shared - own) as u64) {
        Err(Rejection::RepliesFull { kept: own, of: Keeper::Principal })
    } else {
        Ok(())
    }
}

/// The session with this number and key, used now.
fn touch<'a, S: StateMachine>(
    open: &'a mut BTreeMap<u64, Session<S>>,
    changed: &mut Vec<u64>,
    unsaved: &mut Vec<u64>,
    number: u64,
    key: SessionKey,
    now: Millis,
) -> Option<&'a mut Session<S>> {
    let session = open.get_mut(&number).filter(|session| session.key == key)?;
    session.last_used = now;
    if !session.changed {
        session.changed = true;
        changed.push(number);
    }
    if !session.unsaved {
        session.unsaved = true;
        unsaved.push(number);
    }
    Some(session)
}
