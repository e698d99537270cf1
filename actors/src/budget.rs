//! Budgets: how many bytes may wait at a node, for one connection, for all of one owner, and in all.
//!
//! What waits is counted where it lies: messages that are not whole yet, requests without an answer, answers that nobody has
//! read. A little of it is free for each connection, so that whoever waits for nothing but small things goes on whatever others
//! do. Of a node's budget the second half is for owners that have less than their fair share of it: one owner, or a few, can't
//! use up what the others need.
//!
//! What nodes do with commands costs memory, too, long after their clients may have given up: so they are counted until their slot
//! is decided ([`RequestBudget`]).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::consensus::turns::Owner;

/// The most bytes that may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BudgetLimits {
    /// Of one connection, what is free included.
    pub connection: usize,
    /// Of all connections of an owner, beyond what is free.
    pub owner: usize,
    /// Of all connections of the node, beyond what is free.
    pub node: usize,
    /// What is free for each connection. With it the node's bytes are at most `node` and so much for each connection.
    pub free: usize,
}

/// Which of the limits was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exceeded {
    /// The connection has [`BudgetLimits::connection`] already.
    Connection,
    /// All connections of its owner have [`BudgetLimits::owner`] already.
    Owner,
    /// The node has [`BudgetLimits::node`] already, or more than half of that and this owner more than its share.
    Node,
}

impl Exceeded {
    /// Whose limit it is, for people.
    pub fn whose(self) -> &'static str {
        match self {
            Exceeded::Connection => "this connection",
            Exceeded::Owner => "all connections of this address",
            Exceeded::Node => "all connections of this node",
        }
    }
}

/// What waits of one kind.
#[derive(Debug)]
pub struct Budget {
    limits: BudgetLimits,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    node: usize,
    owners: FxHashMap<Owner, OfOwner>,
}

#[derive(Debug, Default)]
struct OfOwner {
    bytes: usize,
    connections: usize,
}

impl Budget {
    /// A budget with these limits, of which nothing is used.
    pub fn new(limits: BudgetLimits) -> Arc<Budget> {
        Arc::new(Budget { limits, used: Mutex::default() })
    }

    /// What waits in all, beyond what is free.
    pub fn used(&self) -> usize {
        self.lock().node
    }

    /// The account of a connection.
    pub fn open(self: &Arc<Budget>, owner: Owner) -> Account {
        self.lock().owners.entry(owner).or_default().connections += 1;
        Account { budget: self.clone(), owner, bytes: AtomicUsize::new(0) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Used> {
        // Nothing panics while it is held.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn charged(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.limits.free)
    }

    fn charge(&self, owner: Owner, more: usize) -> Result<(), Exceeded> {
        let BudgetLimits { owner: of_owner, node, .. } = self.limits;
        let mut used = self.lock();
        let owners = used.owners.values().filter(|of| of.bytes > 0).count().max(1);
        let (all, own) = (used.node + more, used.owners.get(&owner).map_or(0, |of| of.bytes) + more);
        if own > of_owner {
            return Err(Exceeded::Owner);
        }
        if all > node || (all > node / 2 && own > node / 2 / owners) {
            return Err(Exceeded::Node);
        }
        used.node = all;
        used.owners.entry(owner).or_default().bytes = own;
        Ok(())
    }

    fn discharge(&self, owner: Owner, less: usize) {
        let mut used = self.lock();
        used.node = used.node.saturating_sub(less);
        if let Some(of) = used.owners.get_mut(&owner) {
            of.bytes = of.bytes.saturating_sub(less);
        }
    }
}

/// What waits of one connection. It is given back when this goes.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    owner: Owner,
    bytes: AtomicUsize,
}

impl Account {
    /// Bytes of this connection that wait, the free ones included.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes that begin to wait.
    ///
    /// # Errors
    /// If they are too many. They are not counted then.
    pub fn take(&self, bytes: usize) -> Result<(), Exceeded> {
        let (before, after) = (self.bytes(), self.bytes() + bytes);
        if after > self.budget.limits.connection {
            return Err(Exceeded::Connection);
        }
        let more = self.budget.charged(after) - self.budget.charged(before);
        if more > 0 {
            self.budget.charge(self.owner, more)?;
        }
        self.bytes.store(after, Ordering::Relaxed);
        Ok(())
    }

    /// These do not wait any more.
    pub fn give(&self, bytes: usize) {
        let before = self.bytes();
        let after = before.saturating_sub(bytes);
        let less = self.budget.charged(before) - self.budget.charged(after);
        if less > 0 {
            self.budget.discharge(self.owner, less);
        }
        self.bytes.store(after, Ordering::Relaxed);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.give(self.bytes());
        let mut used = self.budget.lock();
        if let Some(of) = used.owners.get_mut(&self.owner) {
            of.connections -= 1;
            if of.connections == 0 {
                used.owners.remove(&self.owner);
            }
        }
    }
}

/// How many bytes may wait, for a connection, its owner, and the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BudgetSettings {
    /// Messages that have begun and are not whole.
    pub unfinished: BudgetLimits,
    /// Requests that wait for their answers.
    pub waiting: BudgetLimits,
    /// Answers that wait for a client to read them.
    pub unread: BudgetLimits,
}

/// What waits at a node.
#[derive(Clone, Debug)]
pub struct Budgets {
    pub(crate) unfinished: Arc<Budget>,
    pub(crate) waiting: Arc<Budget>,
    pub(crate) unread: Arc<Budget>,
    /// What long messages of clients have had of the thread's time.
    pub(crate) long_messages: Arc<LongMessages>,
}

impl Budgets {
    /// Budgets with these limits, of which nothing is used.
    pub fn new(settings: BudgetSettings) -> Budgets {
        let BudgetSettings { unfinished, waiting, unread } = settings;
        let [unfinished, waiting, unread] = [unfinished, waiting, unread].map(Budget::new);
        Budgets { unfinished, waiting, unread, long_messages: Arc::default() }
    }
}

/// No connection pauses for longer, however many there are: it would be taken for dead.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What long messages of all connections have had of the thread's time. Half of it is theirs.
#[derive(Debug)]
pub(crate) struct LongMessages {
    started: Instant,
    /// Until when that was their part. Nanoseconds since the start.
    until: AtomicU64,
}

impl Default for LongMessages {
    fn default() -> LongMessages {
        LongMessages { started: Instant::now(), until: AtomicU64::new(0) }
    }
}

impl LongMessages {
    /// One took so long. Answers how long its connection has to pause, behind the pauses of the others.
    pub(crate) fn pause(&self, took: Duration) -> Duration {
        let now = self.started.elapsed();
        let began = now.saturating_sub(took);
        let free = Duration::from_nanos(self.until.load(Ordering::Relaxed)).max(began) + 2 * took;
        self.until.store(free.as_nanos() as u64, Ordering::Relaxed); // 584 years
        free.saturating_sub(now).min(LONGEST_PAUSE)
    }
}

/// The most bytes of requests that wait for their answers, over all clients of a node: 32 of the longest. Few requests
/// of clients that mean well come near, and many that don't would otherwise fill the memory.
pub const MAX_UNANSWERED: usize = 128 << 20;

/// Commands of this node's clients that wait for their slot, and the bytes of the batches that they are in.
#[derive(Debug)]
pub struct RequestBudget {
    max_requests: usize,
    requests: usize,
    bytes: usize,
}

impl RequestBudget {
    /// For so many commands, and [`MAX_UNANSWERED`] bytes.
    pub fn new(max_requests: usize) -> RequestBudget {
        RequestBudget { max_requests, requests: 0, bytes: 0 }
    }

    /// How many commands may wait.
    pub fn max_requests(&self) -> usize {
        self.max_requests
    }

    /// How many commands wait for their slot.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Whether no more may wait.
    pub fn is_full(&self) -> bool {
        self.requests >= self.max_requests || self.bytes >= MAX_UNANSWERED
    }

    /// A command begins to wait.
    pub fn take(&mut self) {
        self.requests += 1;
    }

    /// Commands that wait are in a batch of so many bytes by now.
    pub fn formed(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The commands of a batch of so many bytes do not wait any more.
    pub fn give(&mut self, requests: usize, bytes: usize) {
        self.requests -= requests;
        self.bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const LIMITS: BudgetLimits = BudgetLimits { connection: 100, owner: 150, node: 400, free: 10 };

    fn owner(number: u8) -> Owner {
        Owner::at(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)))
    }

    #[test]
    fn a_connection_an_owner_and_the_node_have_their_limits() {
        let budget = Budget::new(LIMITS);
        let [one, two] = [budget.open(owner(1)), budget.open(owner(1))];
        assert_eq!(one.take(101), Err(Exceeded::Connection));
        assert_eq!(one.take(100), Ok(()));
        assert_eq!(one.take(1), Err(Exceeded::Connection));
        assert_eq!(two.take(71), Err(Exceeded::Owner));
        assert_eq!(two.take(70), Ok(()));
        assert_eq!((budget.used(), one.bytes(), two.bytes()), (150, 100, 70));
        // What is free is left to each connection.
        let three = budget.open(owner(1));
        assert_eq!((three.take(10), three.take(1)), (Ok(()), Err(Exceeded::Owner)));
        one.give(40);
        assert_eq!((three.take(30), budget.used()), (Ok(()), 140));
        drop((one, two, three));
        assert_eq!(budget.used(), 0);
        assert!(budget.lock().owners.is_empty());
    }

    #[test]
    fn commands_are_counted_until_their_slot_is_decided() {
        let mut budget = RequestBudget::new(2);
        assert_eq!((budget.is_full(), budget.requests()), (false, 0));
        budget.take();
        assert!(!budget.is_full());
        budget.take();
        assert!(budget.is_full());
        // Bytes count from when the commands are in a batch.
        budget.formed(MAX_UNANSWERED);
        budget.give(1, 0);
        assert!(budget.is_full() && budget.requests() == 1);
        budget.give(1, MAX_UNANSWERED);
        assert_eq!((budget.is_full(), budget.requests()), (false, 0));
    }

    #[test]
    fn a_few_owners_do_not_use_up_what_the_others_need() {
        let budget = Budget::new(LIMITS);
        let greedy: Vec<Account> =
            (1..=3).flat_map(|number| [budget.open(owner(number)), budget.open(owner(number))]).collect();
        while greedy.iter().map(|account| account.take(1)).any(|taken| taken.is_ok()) {}
        let taken = budget.used();
        assert!((LIMITS.node / 2..=LIMITS.node).contains(&taken), "{taken}");
        // Whoever comes then has a fair share all the same.
        let late = budget.open(owner(9));
        assert_eq!(late.take(10 + LIMITS.node / 2 / 4), Ok(()));
        assert!(budget.used() <= LIMITS.node);
    }

    #[test]
    fn whatever_is_taken_and_given_the_sums_are_right() {
        let mut random = fastrand::Rng::with_seed(1);
        let budget = Budget::new(LIMITS);
        let mut accounts: Vec<Account> = Vec::new();
        for _ in 0..20_000 {
            match random.u8(..10) {
                0 => accounts.push(budget.open(owner(random.u8(..5)))),
                1 if !accounts.is_empty() => drop(accounts.swap_remove(random.usize(..accounts.len()))),
                _ => {
                    let Some(account) = (!accounts.is_empty()).then(|| &accounts[random.usize(..accounts.len())])
                    else {
                        continue;
                    };
                    match random.bool() {
                        true => drop(account.take(random.usize(..60))),
                        false => account.give(random.usize(..60)),
                    }
                }
            }
            let charged: usize = accounts.iter().map(|account| account.bytes().saturating_sub(LIMITS.free)).sum();
            assert_eq!(budget.used(), charged);
            assert!(charged <= LIMITS.node);
        }
    }
}
