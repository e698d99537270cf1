//! Budgets: how much may wait at a node, for one connection, for all of one owner, and in all.
//!
//! What waits is counted where it lies, in bytes: messages that are not whole yet, requests without an answer, answers that nobody has
//! read; and by number: requests without an answer, subscriptions. A little of it is free for each connection, so that whoever waits
//! for nothing but small things goes on whatever others do. Of a node's budget the second half is for owners that have less than their
//! fair share of it: one owner, or a few, can't use up what the others need. A connection belongs to its address until its client has
//! said who it is, and to its principal from then on, with what waits by then.
//!
//! What nodes do with commands costs memory, too, long after their clients may have given up: so they are counted until their slot
//! is decided ([`RequestBudget`]).

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use crate::consensus::turns::Owner;
use crate::socket::pace::Pace;

/// The most that may wait: bytes, or what else is counted.
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
            Exceeded::Owner => "all connections of this principal",
            Exceeded::Node => "all connections of this node",
        }
    }
}

/// What waits of one kind.
#[derive(Debug)]
pub struct Budget {
    limits: BudgetLimits,
    /// Beyond what is free.
    node: AtomicUsize,
    /// Owners of which something waits beyond what is free.
    busy: AtomicUsize,
    owners: Mutex<FxHashMap<Owner, Arc<AtomicUsize>>>,
}

impl Budget {
    /// A budget with these limits, of which nothing is used.
    pub fn new(limits: BudgetLimits) -> Arc<Budget> {
        let (node, busy) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Budget { limits, node, busy, owners: Mutex::default() })
    }

    /// What waits in all, beyond what is free.
    pub fn used(&self) -> usize {
        self.node.load(Ordering::Relaxed)
    }

    /// The account of a connection.
    pub fn open(self: &Arc<Budget>, owner: Owner) -> Account {
        let of = Mutex::new((owner, self.enter(owner)));
        Account { budget: self.clone(), of, bytes: AtomicUsize::new(0) }
    }

    /// What waits of an owner: counted by each of its accounts.
    fn enter(&self, owner: Owner) -> Arc<AtomicUsize> {
        locked(&self.owners).entry(owner).or_default().clone()
    }

    /// An account is this owner's no longer. The last one takes the owner along.
    fn leave(&self, owner: Owner, of: Arc<AtomicUsize>) {
        let mut owners = locked(&self.owners);
        drop(of);
        if owners.get(&owner).is_some_and(|of| Arc::strong_count(of) == 1) {
            owners.remove(&owner);
        }
    }

    fn charged(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.limits.free)
    }

    fn charge(&self, of: &AtomicUsize, more: usize) -> Result<(), Exceeded> {
        let BudgetLimits { owner: of_owner, node, .. } = self.limits;
        let (own, all) = self.add(of, more);
        let owners = self.busy.load(Ordering::Relaxed).max(1);
        let exceeded = if own > of_owner {
            Exceeded::Owner
        } else if all > node || (all > node / 2 && own > node / 2 / owners) {
            Exceeded::Node
        } else {
            return Ok(());
        };
        self.discharge(of, more);
        Err(exceeded)
    }

    /// Counts what is more than nothing, and says how much its owner has then, and the node.
    fn add(&self, of: &AtomicUsize, more: usize) -> (usize, usize) {
        let own = of.fetch_add(more, Ordering::Relaxed);
        self.busy.fetch_add(usize::from(own == 0), Ordering::Relaxed);
        (own + more, self.node.fetch_add(more, Ordering::Relaxed) + more)
    }

    fn discharge(&self, of: &AtomicUsize, less: usize) {
        let own = of.fetch_sub(less, Ordering::Relaxed);
        self.busy.fetch_sub(usize::from(own == less), Ordering::Relaxed);
        self.node.fetch_sub(less, Ordering::Relaxed);
    }
}

/// Nothing panics while one of these is held.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What waits of one connection. It is given back when this goes.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    /// Whose it is, and what waits of all that are.
    of: Mutex<(Owner, Arc<AtomicUsize>)>,
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
            self.budget.charge(&locked(&self.of).1, more)?;
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
            self.budget.discharge(&locked(&self.of).1, less);
        }
        self.bytes.store(after, Ordering::Relaxed);
    }

    /// Counts bytes that begin to wait, until what is answered goes.
    ///
    /// # Errors
    /// As for [`take`](Account::take).
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Result<Held, Exceeded> {
        self.take(bytes)?;
        Ok(Held { account: self.clone(), bytes })
    }

    /// The connection belongs to this owner from now on, with all that waits: be it too much or not.
    pub fn move_to(&self, owner: Owner) {
        let mut of = locked(&self.of);
        if of.0 == owner {
            return;
        }
        let (charged, new) = (self.budget.charged(self.bytes()), self.budget.enter(owner));
        if charged > 0 {
            self.budget.discharge(&of.1, charged);
            self.budget.add(&new, charged);
        }
        let (before, counted) = std::mem::replace(&mut *of, (owner, new));
        self.budget.leave(before, counted);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.give(self.bytes());
        let (owner, of) = locked(&self.of).clone();
        // The last but this one is the account's own.
        *locked(&self.of) = (owner, Arc::default());
        self.budget.leave(owner, of);
    }
}

/// Bytes that wait, until this goes.
#[derive(Debug)]
pub struct Held {
    account: Arc<Account>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.give(self.bytes);
    }
}

/// How much may wait, for a connection, its owner, and the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BudgetSettings {
    /// Messages that have begun and are not whole.
    pub unfinished: BudgetLimits,
    /// Requests that wait for their answers.
    pub waiting: BudgetLimits,
    /// Answers that wait for a client to read them.
    pub unread: BudgetLimits,
    /// How many requests wait for their answers.
    pub in_flight: BudgetLimits,
    /// How many subscriptions there are.
    pub subscriptions: BudgetLimits,
}

/// What waits at a node.
#[derive(Clone, Debug)]
pub struct Budgets {
    pub(crate) unfinished: Arc<Budget>,
    pub(crate) waiting: Arc<Budget>,
    pub(crate) unread: Arc<Budget>,
    pub(crate) in_flight: Arc<Budget>,
    pub(crate) subscriptions: Arc<Budget>,
    /// What the messages of clients have of the thread's time.
    pub(crate) pace: Arc<Pace>,
}

impl Budgets {
    /// Budgets with these limits, of which nothing is used.
    pub fn new(settings: BudgetSettings) -> Budgets {
        let BudgetSettings { unfinished, waiting, unread, in_flight, subscriptions } = settings;
        let budgets = [unfinished, waiting, unread, in_flight, subscriptions].map(Budget::new);
        let [unfinished, waiting, unread, in_flight, subscriptions] = budgets;
        Budgets { unfinished, waiting, unread, in_flight, subscriptions, pace: Arc::default() }
    }
}

/// The most bytes of requests that wait for their answers, over all clients of a node: 32 of the longest. Few requests
/// of clients that mean well come near, and many that don't would otherwise fill the memory.
pub const MAX_UNANSWERED: usize = 128 << 20;

/// Commands of this node's clients that wait for their slot, and their bytes: in all, and by owner. Of what the others leave an owner has
/// three quarters at most, so there is room for one that comes new.
#[derive(Debug)]
pub struct RequestBudget {
    max_requests: usize,
    max_of_owner: usize,
    all: Requests,
    owners: FxHashMap<Owner, Requests>,
}

/// How many requests there are, and the bytes that they are encoded in.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Requests {
    /// How many.
    pub number: usize,
    /// In how many bytes.
    pub bytes: usize,
}

impl Requests {
    /// One more, of so many bytes.
    pub fn add(&mut self, bytes: usize) {
        self.number += 1;
        self.bytes += bytes;
    }

    fn subtract(&mut self, less: Requests) {
        self.number -= less.number;
        self.bytes -= less.bytes;
    }
}

impl RequestBudget {
    /// For so many commands, of which an owner may have so many, and [`MAX_UNANSWERED`] bytes.
    pub fn new(max_requests: usize, max_of_owner: usize) -> RequestBudget {
        RequestBudget { max_requests, max_of_owner, all: Requests::default(), owners: FxHashMap::default() }
    }

    /// How many commands may wait.
    pub fn max_requests(&self) -> usize {
        self.max_requests
    }

    /// How many commands wait for their slot.
    pub fn requests(&self) -> usize {
        self.all.number
    }

    /// Whether another command of this owner may wait.
    ///
    /// # Errors
    /// Whose limit is reached.
    pub fn check(&self, owner: Owner) -> Result<(), Exceeded> {
        let Requests { number, bytes } = self.owners.get(&owner).copied().unwrap_or_default();
        if self.all.number >= self.max_requests || self.all.bytes >= MAX_UNANSWERED {
            Err(Exceeded::Node)
        } else if number >= self.max_of_owner.min(share(self.max_requests, self.all.number - number))
            || bytes >= share(MAX_UNANSWERED, self.all.bytes - bytes)
        {
            Err(Exceeded::Owner)
        } else {
            Ok(())
        }
    }

    /// A command of this owner begins to wait, in so many bytes.
    pub fn take(&mut self, owner: Owner, bytes: usize) {
        self.all.add(bytes);
        self.owners.entry(owner).or_default().add(bytes);
    }

    /// These of an owner do not wait any more.
    pub fn give(&mut self, owner: Owner, requests: Requests) {
        self.all.subtract(requests);
        if let Entry::Occupied(mut of) = self.owners.entry(owner) {
            of.get_mut().subtract(requests);
            if of.get().number == 0 {
                of.remove();
            }
        }
    }
}

/// Of what the others leave of all, one may have three quarters.
fn share(all: usize, others: usize) -> usize {
    let left = all.saturating_sub(others);
    left - left / 4
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
        assert!(locked(&budget.owners).is_empty());
    }

    #[test]
    fn commands_are_counted_by_owner_until_their_slot_is_decided() {
        let mut budget = RequestBudget::new(100, 60);
        let taken = |budget: &mut RequestBudget, owner| {
            (0..).take_while(|_| budget.check(owner).map(|()| budget.take(owner, 10)).is_ok()).count()
        };
        assert_eq!(taken(&mut budget, owner(1)), 60, "the limit of an owner");
        assert_eq!(taken(&mut budget, owner(2)), 30, "three quarters of what is left");
        assert_eq!(taken(&mut budget, owner(3)), 8);
        assert_eq!([budget.check(owner(1)), budget.check(owner(4))], [Err(Exceeded::Owner), Ok(())]);
        assert_eq!(budget.requests(), 98);
        budget.give(owner(1), Requests { number: 60, bytes: 600 });
        assert_eq!(budget.check(owner(1)), Ok(()));
        budget.take(owner(1), MAX_UNANSWERED - 380);
        assert_eq!([budget.check(owner(1)), budget.check(owner(4))], [Err(Exceeded::Node); 2]);
        for (number, requests) in [(1, (1, MAX_UNANSWERED - 380)), (2, (30, 300)), (3, (8, 80))] {
            budget.give(owner(number), Requests { number: requests.0, bytes: requests.1 });
        }
        assert!(budget.requests() == 0 && budget.owners.is_empty());
    }

    #[test]
    fn what_waits_moves_with_its_connection() {
        let budget = Budget::new(LIMITS);
        let [one, two] = [budget.open(owner(1)), budget.open(owner(2))];
        assert_eq!((one.take(100), two.take(80)), (Ok(()), Ok(())));
        one.move_to(Owner::Principal(7));
        two.move_to(Owner::Principal(7));
        let three = budget.open(Owner::Principal(7));
        assert_eq!((budget.used(), three.take(11)), (160, Err(Exceeded::Owner)), "the two have 160 of 150");
        one.give(50);
        assert_eq!(three.take(50), Ok(()));
        assert_eq!(locked(&budget.owners).keys().copied().collect::<Vec<_>>(), [Owner::Principal(7)]);
        drop((one, two, three));
        assert!(budget.used() == 0 && locked(&budget.owners).is_empty());
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
                2 if !accounts.is_empty() => {
                    accounts[random.usize(..accounts.len())].move_to(Owner::Principal(random.u32(..5)));
                }
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
            let owners = locked(&budget.owners);
            let busy = owners.values().filter(|of| of.load(Ordering::Relaxed) > 0).count();
            assert_eq!(busy, budget.busy.load(Ordering::Relaxed));
            assert!(owners.values().all(|of| Arc::strong_count(of) > 1), "an owner without a connection");
        }
    }
}
