//! Clients as the parts know them: whom answers go to, whose work it is that they ask for, and what an answer is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rabia_bank_messages::bank::Refusal;
use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::principal::{NO_TOKEN, PrincipalNumber};

use crate::consensus::turns::{ClientId, Owner};
use crate::ledger::Bank;
use crate::ledger::machine::{Entry, StateMachine};

/// Where a client hears its answers, and since when those of a slot were there.
type Ear<S> = Box<dyn Fn(Vec<Answered<S>>, Option<Instant>) + Send + Sync>;

/// A client of this node, to whoever works for it. It goes with every request, so whoever has the answer knows where to send it and
/// whose work it was. A clone is a count.
pub struct Client<S: StateMachine = Bank>(Arc<Handle<S>>);

struct Handle<S: StateMachine> {
    id: ClientId,
    /// Whose it is until it has said who it is.
    owner: Owner,
    /// Its principal's number twice, and one more for an operator; 0 until that is known.
    principal: AtomicU64,
    /// None where the driver delivers answers itself, by the id.
    ear: Option<Ear<S>>,
    gone: AtomicBool,
    /// The number of the token that it has shown.
    token: AtomicU64,
}

/// No token has this number: that of a client that has shown none.
const NOBODY: u64 = u64::MAX;

impl<S: StateMachine> Clone for Client<S> {
    fn clone(&self) -> Client<S> {
        Client(self.0.clone())
    }
}

impl<S: StateMachine> Client<S> {
    /// One that hears its answers this way, with the time when the slot was applied that they come from, if they come from one.
    pub fn new(
        id: ClientId,
        owner: Owner,
        ear: impl Fn(Vec<Answered<S>>, Option<Instant>) + Send + Sync + 'static,
    ) -> Client<S> {
        Client::of(id, owner, Some(Box::new(ear)), NOBODY)
    }

    /// One whose answers are delivered by its id, and that is the program which the node lives in.
    pub fn simulated(id: ClientId, owner: Owner) -> Client<S> {
        Client::of(id, owner, None, NO_TOKEN)
    }

    fn of(id: ClientId, owner: Owner, ear: Option<Ear<S>>, token: u64) -> Client<S> {
        let (gone, token, principal) = (AtomicBool::new(false), AtomicU64::new(token), AtomicU64::new(0));
        Client(Arc::new(Handle { id, owner, principal, ear, gone, token }))
    }

    /// Unique on this node.
    pub fn id(&self) -> ClientId {
        self.0.id
    }

    /// Whose work it is that the client asks for.
    pub fn owner(&self) -> Owner {
        let principal = self.0.principal.load(Ordering::Relaxed);
        let number = (principal >> 1) as PrincipalNumber; // it was one
        match principal {
            0 => self.0.owner,
            _ if principal.is_multiple_of(2) => Owner::Principal(number),
            _ => Owner::Operator(number),
        }
    }

    /// Its work is this owner's from now on, where that is a principal.
    pub fn belong_to(&self, owner: Owner) {
        let principal = match owner {
            Owner::Principal(number) => 2 * u64::from(number),
            Owner::Operator(number) => 2 * u64::from(number) + 1,
            Owner::Host | Owner::Address(_) => 0,
        };
        self.0.principal.store(principal, Ordering::Relaxed);
    }

    /// The number of the token that it has shown. Until then nothing is answered to it.
    pub fn token(&self) -> u64 {
        self.0.token.load(Ordering::Relaxed)
    }

    /// It has shown this token; [`NO_TOKEN`] for the program that the node lives in.
    pub fn show(&self, token: u64) {
        self.0.token.store(token, Ordering::Relaxed);
    }

    /// Sends answers, unless the client has gone.
    pub fn tell(&self, answers: Vec<Answered<S>>, applied: Option<Instant>) {
        if let Some(ear) = self.0.ear.as_ref().filter(|_| !self.is_gone()) {
            ear(answers, applied);
        }
    }

    /// The client wants no more answers: its session has ended. What waits for its turn is dropped.
    pub fn leave(&self) {
        self.0.gone.store(true, Ordering::Relaxed);
    }

    /// Whether it has left.
    pub fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Relaxed)
    }
}

impl<S: StateMachine> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} of {:?}", self.id(), self.owner())
    }
}

/// Who waits for an answer, and the client's own mark on the request.
#[derive(Debug)]
pub struct Waiter<S: StateMachine = Bank> {
    /// Where the answer goes.
    pub client: Client<S>,
    /// Chosen by the client, handed back with the answer.
    pub tag: u64,
}

impl<S: StateMachine> Clone for Waiter<S> {
    fn clone(&self) -> Waiter<S> {
        Waiter { client: self.client.clone(), tag: self.tag }
    }
}

impl<S: StateMachine> Waiter<S> {
    /// Tells the client that nothing was done, and why.
    pub fn refuse(self, refusal: Refusal) {
        let answers = vec![Answered { tag: self.tag, slot: None, index: None, replayed: false, result: Err(refusal) }];
        self.client.tell(answers, None);
    }
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answered<S: StateMachine = Bank> {
    /// The mark that the client gave its request.
    pub tag: u64,
    /// The slot that it was applied in or read at.
    pub slot: Option<Slot>,
    /// Of a request that went through the log: its place in that slot.
    pub index: Option<u32>,
    /// Whether the command had been applied before.
    pub replayed: bool,
    /// What came of it.
    pub result: Result<Done<S>, Refusal>,
}

/// What a client gets for a request that was not refused.
#[derive(Debug)]
pub enum Done<S: StateMachine = Bank> {
    /// A command was applied, or a query read.
    Success(S::Answer),
    /// A command was carried out. What came of it its client may not see any more.
    Unseen,
    /// A subscription has begun.
    Subscribed {
        /// With the entry of this id.
        from: u64,
        /// What the client is told.
        answer: S::Answer,
    },
    /// A session is open.
    Opened {
        /// The number that the log has given it.
        session: u64,
        /// Whether it was opened by this request.
        new: bool,
    },
    /// The session is closed.
    Closed,
    /// Entries of a feed.
    Followed {
        /// Oldest first; none if many were looked at and none belongs to the feed.
        entries: Vec<Entry<S>>,
        /// All below this id were looked at.
        next: u64,
    },
}
