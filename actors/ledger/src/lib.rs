//! The ledger: the pure core of the bank.
//!
//! Every node feeds its ledger the same decided slots in the same order, and so every ledger has the same state and
//! gives the same answers. The core therefore asks nothing of the world: no clock (time is the batch's stamp, made
//! monotonic), no random source, no disk, no network, no thread. Nothing it does depends on the order of a hash map.
//!
//! What a slot may do, from the outside in:
//!
//! - A slot carries a batch or nothing. A batch that was applied lately is repeated, and changes nothing
//!   (`batches`). One that can't be applied is applied as an empty one, and remembered (`unusable`).
//! - Each request of a batch opens or closes a session, or is a command in one. The session lets a command through
//!   to the books once, and replays its outcome after that (`sessions`, `outcomes`).
//! - The books check a command and change accounts and history (`books`, `accounts`, `history`, `statistics`).
//!
//! Time is log time: the highest stamp of a batch so far. Sessions expire by it. A record's timestamp is log time too, but never
//! before that of the record before it: where a backup with a log time that was ahead came to a new cluster, log time is right
//! there, and timestamps stand still until it reaches them.
//!
//! Outcomes are compact; [`Ledger::render`] makes a client's answer of one, only on the node where a client waits.
//!
//! # Memory and disk
//!
//! Accounts, sessions and the newest part of the history are in memory. A snapshot ([`Ledger::freeze`],
//! [`Ledger::collect`]) gives what changed since the last one, in rows for a store; [`Loading`] makes a ledger of all rows.
//! Transactions that are safe in the store leave memory ([`Ledger::forget`]), in blocks ([`Block`]); an answer that needs one
//! of them waits for its block, and one that takes long is made in steps (`lookup`).
//!
//! # The chain of hashes
//!
//! Each transaction has a hash over itself and the hash before it. It is BLAKE3 over these bytes; numbers are unsigned
//! and big-endian:
//!
//! ```text
//! the hash of the transaction before it (32 bytes; zeros for transaction 1)
//! transaction_id u64 | amount u64 | timestamp u64 | slot u64
//! type u8: 1 opening, 2 deposit, 3 withdrawal, 4 transfer
//! source      | length of its name u8, its name in ASCII, its balance after the transaction u64;
//!             | one byte 0 if there is no source
//! destination | likewise
//! ```
//!
//! So whoever has the transactions as clients see them can recompute all hashes, in any language.
//!
//! # The state digest
//!
//! It covers everything that a later answer can depend on: accounts, sessions with the replies they keep, the keys of those that
//! ended, the batches remembered, log time, the count of requests, the head of the chain, which covers the history, the stores
//! of members that were replaced, and the batches that could not be applied. It does not cover
//! the slot: a forfeited slot and a repeated batch leave the state as it was. Accounts, sessions and batches are
//! hashed as sets (`set_hash`): what changes is noted, and hashed when the digest is asked for, or when much has
//! gathered; so a busy account is hashed once for many changes, and asking costs by what changed since. When it is
//! asked, and how often, makes no difference to what it says.

use rabia_bank_messages::bank::{Command, MAX_BALANCE, MAX_BULK, Query};
use rabia_bank_messages::batch::{Action, BadPayload, Contents, Payload, Request};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::genesis::{Replacement, Replacements, SessionLimits};
use rabia_bank_messages::ids::{BatchId, Digest, Millis, Slot};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use batches::AppliedBatches;
use books::Books;
use history::Moment;
use kept::KeptOutcome;
use lookup::Task;
use overview::TOP;
use sessions::{Admission, Place, Sessions};
use taking::Taking;

mod account;
mod accounts;
mod batches;
mod block;
mod books;
mod chain;
mod ended;
mod history;
mod kept;
mod lookup;
mod outcomes;
mod overview;
mod queries;
mod ranks;
mod rows;
mod sessions;
mod set_hash;
mod snapshot;
mod statistics;
mod taking;
mod unusable;

pub use block::{BLOCK, Block, BlockRecord};
pub use chain::chain_hash;
pub use lookup::{Answer, Lookup, MOST_AT_ONCE, Progress, TELL};
pub use outcomes::{CommandOutcome, Rejection};
pub use rows::BadRow;
pub use snapshot::{Changes, Loading};
pub use unusable::{NAMED, UnusableBatches};

/// What the digest is over, and in which version: nodes that compare digests must mean the same.
const DIGEST_NAME: &[u8] = b"rabia-bank state 2";

/// The state of the bank after a slot.
///
/// Invariants, asserted:
/// - Slots are applied in order without a gap; each is null or carries a batch.
/// - A command's outcome is kept before the next request is looked at, and never replaced.
/// - No balance is below 0 or above 2^53 − 1; the sum of all neither.
/// - Transaction ids count up from 1. Timestamps and slots never go down with rising ids.
/// - A record points only to records with lower ids, and an account's newest record says its balance.
#[derive(Debug)]
pub struct Ledger {
    books: Books,
    sessions: Sessions,
    batches: AppliedBatches,
    replacements: Replacements,
    unusable: UnusableBatches,
    applied: Slot,
    /// The highest stamp of a batch so far.
    time: Millis,
    /// Requests of all batches applied: the log position of the last one.
    requests: u64,
    decided_slots: u64,
    null_slots: u64,
    repeated_batches: u64,
    /// The newest transaction that a snapshot took.
    saved_transactions: u64,
    /// A snapshot that is being taken.
    taking: Option<Taking>,
}

/// What came of a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It was forfeited.
    Null,
    /// Its batch was applied in an earlier slot.
    Repeated,
    /// The outcomes of the batch's requests, in their order.
    Batch(Vec<RequestOutcome>),
    /// A member was given a new store.
    Replacement,
    /// Its batch can't be applied, here or anywhere: it counts as an empty one, moves no time, and is remembered.
    Unusable(BadPayload),
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestOutcome {
    /// The session with the request's key is open.
    Opened {
        /// Its number: the position in the log of the request that opened it, counted in requests from 1.
        session: u64,
        /// Whether this request opened it.
        new: bool,
    },
    /// The session is closed.
    Closed,
    /// The command was applied, now or earlier. It may have been refused by the books.
    Command {
        /// The slot that it was applied in first.
        slot: Slot,
        /// Its place among the requests of that slot, from 0.
        index: u32,
        /// Whether that was an earlier request.
        replayed: bool,
        /// What came of it: see [`Ledger::render`].
        outcome: CommandOutcome,
    },
    /// The rules of sessions kept it from the books.
    Rejected(Rejection),
}

/// The figures of the ledger that are at hand.
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
    /// How many accounts there are.
    pub accounts: u64,
    /// How many transactions: also the id of the newest.
    pub transactions: u64,
    /// The sum of all balances, in minor units.
    pub total_balance: u64,
    /// How many sessions are open.
    pub sessions: u64,
}

impl Ledger {
    /// An empty bank, in which one transaction moves at most `transaction_limit` minor units.
    ///
    /// # Panics
    /// If the limit is not from 1 to [`MAX_BALANCE`], or no session may be open.
    pub fn new(transaction_limit: u64, sessions: SessionLimits) -> Ledger {
        assert!(
            (1..=MAX_BALANCE).contains(&transaction_limit),
            "a limit per transaction of {transaction_limit} is not from 1 to {MAX_BALANCE}"
        );
        Ledger {
            books: Books::new(transaction_limit),
            sessions: Sessions::new(sessions),
            batches: AppliedBatches::default(),
            replacements: Replacements::default(),
            unusable: UnusableBatches::default(),
            applied: 0,
            time: 0,
            requests: 0,
            decided_slots: 0,
            null_slots: 0,
            repeated_batches: 0,
            saved_transactions: 0,
            taking: None,
        }
    }

    /// Applies the next slot: a batch, or `None` if it was forfeited.
    ///
    /// # Panics
    /// If `slot` is not the one after [`applied`](Ledger::applied).
    pub fn apply(&mut self, slot: Slot, batch: Option<(&BatchId, &Payload)>) -> Applied {
        let applied = self.replay(slot, batch);
        self.books.accounts.rehash_if_many();
        self.sessions.rehash_if_many();
        applied
    }

    /// The same for many slots in a row of which nobody asks for the digest in between: what changed is hashed when it is
    /// asked for after the last one, each account once.
    ///
    /// # Panics
    /// As for [`apply`](Ledger::apply).
    pub fn replay(&mut self, slot: Slot, batch: Option<(&BatchId, &Payload)>) -> Applied {
        assert_eq!(slot, self.applied + 1, "slot {slot} does not follow slot {}", self.applied);
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
        assert_eq!(slot, self.decided_slots + self.null_slots, "slots were counted wrong");
        applied
    }

    fn apply_batch(&mut self, slot: Slot, id: &BatchId, payload: &Payload) -> Applied {
        let (stamp, contents) = match payload.stamp().and_then(|stamp| Ok((stamp, payload.contents::<Command>()?))) {
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
            Contents::Requests(requests) => {
                let moment = Moment { slot, time: self.time };
                let places = (0..).map(|index| Place { slot, index });
                let apply = |(place, request)| self.apply_request(request, place, moment);
                Applied::Batch(places.zip(&requests).map(apply).collect())
            }
        }
    }

    fn apply_request(&mut self, request: &Request<'_>, place: Place, moment: Moment) -> RequestOutcome {
        self.requests += 1;
        let header = &request.header;
        match &request.action {
            Action::Open => match self.sessions.open(header.key, self.requests, moment.time) {
                Ok((session, new)) => RequestOutcome::Opened { session, new },
                Err(rejection) => RequestOutcome::Rejected(rejection),
            },
            Action::Close if self.sessions.close(header.session, header.key) => RequestOutcome::Closed,
            Action::Close => RequestOutcome::Rejected(Rejection::SessionExpired { session: header.session }),
            Action::Command(command) => self.apply_command(request, command, place, moment),
        }
    }

    fn apply_command(
        &mut self,
        request: &Request<'_>,
        command: &Command,
        place: Place,
        moment: Moment,
    ) -> RequestOutcome {
        let results = match command {
            Command::One(_) => 1,
            Command::Bulk(bulk) => bulk.commands.len().clamp(1, MAX_BULK),
        };
        let (place, replayed, outcome) =
            match self.sessions.admit(&request.header, request.action_bytes, results, moment.time) {
                Admission::Vacant(vacancy) => {
                    // Log time may have been set back when the books came to a new cluster. Records stay in order all the same.
                    let record = Moment { time: moment.time.max(self.books.history.newest_time()), ..moment };
                    let outcome = self.books.execute(command, record);
                    vacancy.keep(self.requests, place, KeptOutcome::of(&outcome, command));
                    (place, false, outcome)
                }
                Admission::Replayed(place, kept) => (place, true, kept.restore(command)),
                Admission::Rejected(rejection) => return RequestOutcome::Rejected(rejection),
            };
        RequestOutcome::Command { slot: place.slot, index: place.index, replayed, outcome }
    }

    /// Begins the answer that a client gets to a command with this outcome of this ledger: an error if the books refused it. It
    /// is the same at any later time.
    pub fn render(&self, outcome: &CommandOutcome) -> Lookup {
        Lookup::new(Task::Outcome(outcome.clone(), Vec::new()), self.applied)
    }

    /// Begins the answer to a query, from the state after [`applied`](Ledger::applied). `None` for [`Query::GetStatus`], which
    /// is about the node.
    ///
    /// Costs by the length of the answer, with four exceptions. A history with `to_time` first looks for that time,
    /// halving what is left at each step. One of an account or a type with `before` or `to_time` then looks for where its
    /// page begins: in as many steps as the account or type has newer records, or as lie between there and its next
    /// older one, whichever is less. One account's history of a type passes over the account's records of other types.
    /// The statistics look at every account again where the lists of top accounts are not complete.
    pub fn query(&self, query: &Query) -> Option<Lookup> {
        self.books.query(query).map(|task| Lookup::new(task, self.applied))
    }

    /// Begins with the transactions of a feed with ids from `id` on, oldest first: `limit` at most, of the next `scan`. The
    /// answer's `next` is the id to go on from. (The feed's `from` plays no part.)
    pub fn transactions_from(&self, feed: &Feed, id: u64, scan: u64, limit: usize) -> Lookup {
        let next = id.max(1);
        let end = self.books.history.len().min(next.saturating_add(scan) - 1);
        let task = Task::Ascending { feed: feed.clone(), next, end, limit, found: Vec::new() };
        Lookup::new(task, self.applied)
    }

    /// Goes on with an answer, in so many steps at most, and takes those from `steps` that it took. An answer that is allowed
    /// [`MOST_AT_ONCE`] steps comes further.
    pub fn go_on(&mut self, lookup: &mut Lookup, steps: &mut u64) -> Progress {
        if matches!(lookup.task, Task::Statistics { .. }) && !self.books.accounts.complete_ranks(TOP, steps) {
            return Progress::Unfinished;
        }
        // What is read at once shows the moment when it is read, which may be long after the question was asked.
        if matches!(lookup.task, Task::Statistics { .. } | Task::Accounts { .. }) {
            lookup.slot = self.applied;
        }
        self.books.go_on(lookup, steps)
    }

    /// The answer, made at once: `None` if it needs a block of the history or lists of top accounts that are not complete.
    pub fn at_hand(&self, mut lookup: Lookup) -> Option<Answer> {
        match lookup.task {
            Task::Statistics { .. } => None,
            _ => self.books.go_on(&mut lookup, &mut u64::MAX.clone()).done(),
        }
    }

    /// The id of the newest transaction; 0 if there is none.
    pub fn newest_transaction(&self) -> u64 {
        self.books.history.len()
    }

    /// The largest amount of one transaction, in minor units.
    pub fn transaction_limit(&self) -> u64 {
        self.books.transaction_limit
    }

    /// When sessions expire.
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

    /// The hash of the newest transaction; [`Digest::ZERO`] if there is none.
    pub fn chain_head(&self) -> Digest {
        self.books.history.head()
    }

    /// The digest of the state: see the [module documentation](self).
    pub fn digest(&mut self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(DIGEST_NAME);
        for set in [self.books.accounts.set_hash(), self.sessions.set_hash(), self.batches.set_hash()] {
            hasher.update(&set.to_bytes());
        }
        for number in [self.time, self.requests, self.books.history.len(), self.sessions.ended()] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.update(&self.chain_head().0);
        for Replacement { slot, node, store } in self.replacements.list() {
            hasher.update(&slot.to_be_bytes()).update(&[node.get()]).update(&store.0);
        }
        self.unusable.add_to(&mut hasher);
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
        Summary {
            applied: self.applied,
            decided_slots: self.decided_slots,
            null_slots: self.null_slots,
            repeated_batches: self.repeated_batches,
            unusable_batches: self.unusable.count(),
            accounts: self.books.accounts.len() as u64,
            transactions: self.books.history.len(),
            total_balance: self.books.total_balance,
            sessions: self.sessions.len() as u64,
        }
    }
}
