//! Sessions: what makes a request apply once, however often it is sent.
//!
//! A session keeps the outcome of each command until its client acknowledges it, that is, says that it has the answers
//! to all requests up to a number. A command goes to the books only through a [`Vacancy`], the place where its outcome
//! will be kept, and there is one only for a number that is neither acknowledged nor taken. Refusals by the books are
//! outcomes like any other: they are kept and replayed too.
//!
//! A session ends by a goodbye, when it was idle for too long, or when too many are open and it was idle for longest. How
//! long it was idle is log time, so it ends at the same request everywhere.
//!
//! What a request acknowledges counts before its own number is looked at, and only up to the number before its own:
//! who asks cannot have the answer yet.

use std::collections::{BTreeMap, BTreeSet};

use rabia_bank_messages::batch::RequestHeader;
use rabia_bank_messages::genesis::SessionLimits;
use rabia_bank_messages::ids::{Millis, SessionKey, Slot};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::outcomes::{CommandOutcome, Rejection};
use super::rows::{self, BadRow, ReplyRow, SessionRow};
use super::set_hash::SetHash;

/// The most results that a session keeps, a bulk counting one for each of its commands: room for 26 of the largest
/// bulks in flight at once, and some 20 MB for a client that never acknowledges anything.
const MAX_KEPT_RESULTS: usize = 1 << 18;
/// So many new replies are hashed in one go: see the same of the accounts.
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

#[derive(Debug)]
struct Reply {
    fingerprint: Fingerprint,
    /// The slot of the first application.
    slot: Slot,
    /// The place of the request in that slot. Replies of 0.1.0 have none.
    index: Option<u32>,
    outcome: CommandOutcome,
    /// Whether the hash of all sessions has it.
    hashed: bool,
}

impl Reply {
    fn set_hash(&self, session: u64, number: u64) -> SetHash {
        let mut bytes = Vec::with_capacity(80);
        bytes.extend_from_slice(b"reply");
        for part in [session, number, self.slot] {
            bytes.extend_from_slice(&part.to_be_bytes());
        }
        bytes.extend_from_slice(&self.fingerprint.0);
        if let Some(index) = self.index {
            bytes.extend_from_slice(&index.to_be_bytes());
        }
        self.outcome.encode(&mut bytes);
        SetHash::of(&bytes)
    }
}

#[derive(Debug)]
struct Session {
    key: SessionKey,
    /// The client has the answers up to this number.
    acknowledged: u64,
    /// Log time of the last request.
    last_used: Millis,
    /// An earlier such time, or the same.
    filed: Millis,
    /// By request number, all above `acknowledged`.
    replies: BTreeMap<u64, Reply>,
    /// The results in `replies`.
    kept: usize,
    /// What the hash of all sessions holds for this one, beside its replies.
    hashed: SetHash,
    changed: bool,
    /// It changed since it was saved.
    unsaved: bool,
}

impl Session {
    fn to_row(&self) -> SessionRow {
        let reply = |(number, reply): (&u64, &Reply)| ReplyRow {
            number: *number,
            fingerprint: reply.fingerprint.0,
            slot: reply.slot,
            outcome: reply.outcome.clone(),
            index: reply.index,
        };
        SessionRow {
            key: self.key,
            acknowledged: self.acknowledged,
            last_used: self.last_used,
            replies: self.replies.iter().map(reply).collect(),
        }
    }

    fn set_hash(&self, number: u64) -> SetHash {
        let mut bytes = [0; 7 + 8 + 16 + 8 + 8];
        bytes[..7].copy_from_slice(b"session");
        bytes[7..15].copy_from_slice(&number.to_be_bytes());
        bytes[15..31].copy_from_slice(&self.key.0);
        bytes[31..39].copy_from_slice(&self.acknowledged.to_be_bytes());
        bytes[39..].copy_from_slice(&self.last_used.to_be_bytes());
        SetHash::of(&bytes)
    }

    /// Drops the replies up to `acknowledged`, and takes them out of `hash`.
    fn acknowledge(&mut self, session: u64, acknowledged: u64, hash: &mut SetHash) {
        self.acknowledged = self.acknowledged.max(acknowledged);
        while let Some(first) = self.replies.first_entry()
            && *first.key() <= self.acknowledged
        {
            let (number, reply) = first.remove_entry();
            self.kept -= reply.outcome.results();
            if reply.hashed {
                hash.subtract(reply.set_hash(session, number));
            }
        }
    }
}

/// What a session says to a command.
pub(super) enum Admission<'a> {
    /// It is new: carry it out and keep its outcome here.
    Vacant(Vacancy<'a>),
    /// It was carried out in this place, with this outcome.
    Replayed { slot: Slot, index: Option<u32>, outcome: CommandOutcome },
    /// It may not be carried out.
    Rejected(Rejection),
}

/// The place for the outcome of a command that was not carried out yet.
pub(super) struct Vacancy<'a> {
    session: &'a mut Session,
    unhashed: &'a mut Vec<(u64, u64)>,
    name: (u64, u64),
    fingerprint: Fingerprint,
}

impl Vacancy<'_> {
    /// Keeps the outcome of the command, applied in this slot as the request with this index.
    pub(super) fn keep(self, slot: Slot, index: u32, outcome: CommandOutcome) {
        if is_broken(Rule::RepliesKept) {
            return;
        }
        self.session.kept += outcome.results();
        let reply = Reply { fingerprint: self.fingerprint, slot, index: Some(index), outcome, hashed: false };
        let other = self.session.replies.insert(self.name.1, reply);
        assert!(other.is_none(), "request {:?} was applied twice, first as {other:?}", self.name);
        self.unhashed.push(self.name);
    }
}

/// All open sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    limits: SessionLimits,
    open: BTreeMap<u64, Session>,
    by_key: BTreeMap<SessionKey, u64>,
    /// Every session by `filed` and number. It is filed anew only when it comes first here, so that using a session costs
    /// nothing.
    by_use: BTreeSet<(Millis, u64)>,
    /// Sessions that changed since they were hashed.
    changed: Vec<u64>,
    /// Replies that were not hashed yet: session and request number. Some may be gone again.
    unhashed: Vec<(u64, u64)>,
    hash: SetHash,
    /// Sessions that changed, or ended, since they were saved.
    unsaved: Vec<u64>,
}

/// Sessions with their rows; none for one that ended.
pub(super) type SessionRows = Vec<(u64, Option<Vec<u8>>)>;

impl Sessions {
    pub(super) fn new(limits: SessionLimits) -> Sessions {
        assert!(limits.open > 0, "no session may be open: {limits:?}");
        Sessions {
            limits,
            open: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_use: BTreeSet::new(),
            changed: Vec::new(),
            unhashed: Vec::new(),
            hash: SetHash::default(),
            unsaved: Vec::new(),
        }
    }

    /// When sessions expire.
    pub(super) fn limits(&self) -> SessionLimits {
        self.limits
    }

    /// What changed since it was saved: all of it goes into a snapshot now.
    pub(super) fn save(&mut self) -> SessionRows {
        let mut numbers = std::mem::take(&mut self.unsaved);
        numbers.sort_unstable();
        numbers.dedup();
        let mut row = |number| {
            let session = self.open.get_mut(&number)?;
            session.unsaved = false;
            Some(rows::encode(&session.to_row()))
        };
        numbers.into_iter().map(|number| (number, row(number))).collect()
    }

    /// Adds a session of a snapshot.
    pub(super) fn load(&mut self, number: u64, bytes: &[u8]) -> Result<(), BadRow> {
        let SessionRow { key, acknowledged, last_used, replies } = rows::decode(|| format!("session {number}"), bytes)?;
        if self.by_key.contains_key(&key) || self.open.contains_key(&number) {
            return Err(BadRow(format!("session {number} is there twice")));
        }
        self.open(key, number, last_used);
        let Some(session) = self.open.get_mut(&number) else { unreachable!("session {number} was just opened") };
        session.acknowledged = acknowledged;
        session.unsaved = false;
        for ReplyRow { number: request, fingerprint, slot, outcome, index } in replies {
            session.kept += outcome.results();
            let reply = Reply { fingerprint: Fingerprint(fingerprint), slot, index, outcome, hashed: false };
            session.replies.insert(request, reply);
            self.unhashed.push((number, request));
        }
        self.unsaved.clear();
        Ok(())
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// The session with this key: the open one, else a new one with this number, for which another may have to go.
    pub(super) fn open(&mut self, key: SessionKey, number: u64, now: Millis) -> u64 {
        if let Some(&number) = self.by_key.get(&key) {
            touch(&mut self.open, &mut self.changed, &mut self.unsaved, number, key, now);
            return number;
        }
        while self.open.len() as u64 >= self.limits.open
            && let Some((_, longest)) = self.least_recently_used()
        {
            self.end(longest);
        }
        self.by_key.insert(key, number);
        self.by_use.insert((now, number));
        let session = Session {
            key,
            acknowledged: 0,
            last_used: now,
            filed: now,
            replies: BTreeMap::new(),
            kept: 0,
            hashed: SetHash::default(),
            changed: true,
            unsaved: true,
        };
        let other = self.open.insert(number, session);
        assert!(other.is_none(), "session {number} was opened twice, first as {other:?}");
        self.changed.push(number);
        self.unsaved.push(number);
        number
    }

    /// Ends a session and forgets its replies. False if it is not open with this key.
    pub(super) fn close(&mut self, number: u64, key: SessionKey) -> bool {
        if self.open.get(&number).is_none_or(|session| session.key != key) {
            return false;
        }
        self.end(number);
        true
    }

    fn end(&mut self, number: u64) {
        let Some(mut session) = self.open.remove(&number) else { return };
        self.by_use.remove(&(session.filed, number));
        session.acknowledge(number, u64::MAX, &mut self.hash);
        self.hash.subtract(session.hashed);
        self.by_key.remove(&session.key);
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
        loop {
            let first = *self.by_use.first()?;
            let Some(session) = self.open.get_mut(&first.1) else {
                panic!("session {} is filed, but not open", first.1)
            };
            if session.filed == session.last_used {
                return Some(first);
            }
            assert!(session.filed < session.last_used, "session {} was filed ahead of its use", first.1);
            session.filed = session.last_used;
            self.by_use.remove(&first);
            self.by_use.insert((session.filed, first.1));
        }
    }

    /// What becomes of a command with up to `results` results, encoded as `action_bytes`.
    pub(super) fn admit(
        &mut self,
        header: &RequestHeader,
        action_bytes: &[u8],
        results: usize,
        now: Millis,
    ) -> Admission<'_> {
        let RequestHeader { session: name, key, number, acknowledged } = *header;
        let Sessions { open, changed, unhashed, hash, unsaved, .. } = self;
        let Some(session) = touch(open, changed, unsaved, name, key, now) else {
            return Admission::Rejected(Rejection::SessionExpired { session: name });
        };
        session.acknowledge(name, acknowledged.min(number.saturating_sub(1)), hash);
        if number <= session.acknowledged {
            return Admission::Rejected(Rejection::RequestAcknowledged { number, acknowledged: session.acknowledged });
        }
        let fingerprint = Fingerprint::of(action_bytes);
        match session.replies.get(&number) {
            None if session.kept + results > MAX_KEPT_RESULTS => {
                Admission::Rejected(Rejection::RepliesFull { kept: session.kept })
            }
            None => Admission::Vacant(Vacancy { session, unhashed, name: (name, number), fingerprint }),
            Some(reply) if reply.fingerprint == fingerprint => {
                Admission::Replayed { slot: reply.slot, index: reply.index, outcome: reply.outcome.clone() }
            }
            Some(_) => Admission::Rejected(Rejection::RequestReused { number }),
        }
    }

    /// Brings the hash up to date if much has changed, to keep the next [`set_hash`](Sessions::set_hash) cheap.
    pub(super) fn rehash_if_many(&mut self) {
        if self.unhashed.len().max(self.changed.len()) >= REHASH_AT {
            self.set_hash();
        }
    }

    /// The hash of the set of all sessions and their replies, at the cost of what changed since it was last asked for.
    pub(super) fn set_hash(&mut self) -> SetHash {
        for number in self.changed.drain(..) {
            let Some(session) = self.open.get_mut(&number) else { continue };
            self.hash.subtract(session.hashed);
            session.hashed = session.set_hash(number);
            self.hash.add(session.hashed);
            session.changed = false;
        }
        for (session, number) in self.unhashed.drain(..) {
            let reply = self.open.get_mut(&session).and_then(|open| open.replies.get_mut(&number));
            let Some(reply) = reply else { continue };
            self.hash.add(reply.set_hash(session, number));
            reply.hashed = true;
        }
        self.hash
    }
}

/// The session with this number and key, used now.
fn touch<'a>(
    open: &'a mut BTreeMap<u64, Session>,
    changed: &mut Vec<u64>,
    unsaved: &mut Vec<u64>,
    number: u64,
    key: SessionKey,
    now: Millis,
) -> Option<&'a mut Session> {
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
