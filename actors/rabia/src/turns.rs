//! Whose work it is that a node does, and whose turn it is. Nobody's work may keep another's waiting, so what waits is taken in turn, first between
//! owners, then between the clients of each.
//!
//! An owner is a principal, or the program that the node lives in; before a client has shown its token, the address that it comes
//! from. Who waits at a node is known to that node alone and never enters the log: nothing that is applied depends on it.
//!
//! Operators are there when something is wrong, so they do not wait behind everybody: while one of them waits, one turn in
//! [`OPERATORS_TURN`] is an operator's at least.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

use rabia_bank_messages::principal::PrincipalNumber;
use rustc_hash::FxHashMap;

/// While an operator waits, one turn in so many is an operator's at least.
pub const OPERATORS_TURN: u32 = 8;

/// Names a client of this node: one connection, or one session of a host that embeds it.
pub type ClientId = u64;

/// Who asks for work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Owner {
    /// The program that the node lives in.
    Host,
    /// Clients that connect from this address and have not said who they are. See [`Owner::at`].
    Address(IpAddr),
    /// This principal, wherever it connects from.
    Principal(PrincipalNumber),
    /// This principal, which has the role of an operator.
    Operator(PrincipalNumber),
}

impl Owner {
    /// The owner of connections from an address. Of an IPv6 address its network counts, 64 bits: one machine has all of the
    /// others.
    pub fn at(address: IpAddr) -> Owner {
        Owner::Address(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        })
    }

    /// Whether turns and connections are kept for it.
    pub fn is_operator(self) -> bool {
        matches!(self, Owner::Operator(_))
    }
}

/// Whose turn it is: owners in turn, and for each its clients in turn. A client is in it once at most.
#[derive(Debug, Default)]
pub struct Turns {
    owners: VecDeque<Owner>,
    clients: FxHashMap<Owner, VecDeque<ClientId>>,
    /// How many of the owners are operators.
    operators: usize,
    /// How many turns in a row others had.
    others: u32,
}

impl Turns {
    /// Lets a client have a turn, behind the others of its owner. It must not be waiting for one.
    pub fn push(&mut self, owner: Owner, client: ClientId) {
        let clients = self.clients.entry(owner).or_default();
        clients.push_back(client);
        if clients.len() == 1 {
            self.owners.push_back(owner);
            self.operators += usize::from(owner.is_operator());
        }
    }

    /// Whose turn it is. The client has to be pushed again to have another.
    pub fn pop(&mut self) -> Option<(Owner, ClientId)> {
        self.pop_of(|_| true)
    }

    /// Whose turn it is, of the owners that may have one. The others keep their places.
    pub fn pop_of(&mut self, may: impl Fn(Owner) -> bool) -> Option<(Owner, ClientId)> {
        let operators_turn = self.operators > 0 && self.others >= OPERATORS_TURN - 1;
        let operator = || self.owners.iter().position(|owner| owner.is_operator() && may(*owner));
        let place = operators_turn.then(operator).flatten();
        let place = place.or_else(|| self.owners.iter().position(|owner| may(*owner)))?;
        let owner = self.owners.remove(place)?;
        self.others = if owner.is_operator() { 0 } else { self.others.saturating_add(1) };
        let clients = self.clients.get_mut(&owner)?;
        let client = clients.pop_front()?;
        if clients.is_empty() {
            self.clients.remove(&owner);
            self.operators -= usize::from(owner.is_operator());
        } else {
            self.owners.push_back(owner);
        }
        Some((owner, client))
    }

    /// How many owners wait for a turn.
    pub fn owners(&self) -> usize {
        self.owners.len()
    }

    /// Whether no owner waits for a turn.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }
}

/// Work that waits, in turn by owner and client; what one client asked for in the order in which it was pushed.
#[derive(Debug)]
pub struct FairQueue<T> {
    turns: Turns,
    queues: FxHashMap<ClientId, VecDeque<T>>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> FairQueue<T> {
        FairQueue { turns: Turns::default(), queues: FxHashMap::default() }
    }
}

impl<T> FairQueue<T> {
    /// Adds work behind all that this client has waiting.
    pub fn push(&mut self, owner: Owner, client: ClientId, work: T) {
        let queue = self.queues.entry(client).or_default();
        queue.push_back(work);
        if queue.len() == 1 {
            self.turns.push(owner, client);
        }
    }

    /// Takes what is to be done next.
    pub fn pop(&mut self) -> Option<T> {
        self.pop_of(|_| true)
    }

    /// Takes what is to be done next, of the owners that may have a turn.
    pub fn pop_of(&mut self, may: impl Fn(Owner) -> bool) -> Option<T> {
        let (owner, client) = self.turns.pop_of(may)?;
        let queue = self.queues.get_mut(&client)?;
        let work = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&client);
        } else {
            self.turns.push(owner, client);
        }
        work
    }

    /// Whether no client has work here.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn owner(last: u8) -> Owner {
        Owner::at(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
    }

    fn all(queue: &mut FairQueue<u64>) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn owners_take_turns_and_their_clients_within() {
        let mut queue = FairQueue::default();
        for work in 0..4 {
            queue.push(owner(1), 1, 100 + work);
            queue.push(owner(1), 2, 200 + work);
        }
        queue.push(owner(2), 3, 300);
        queue.push(owner(2), 3, 301);
        assert_eq!(all(&mut queue), [100, 300, 200, 301, 101, 201, 102, 202, 103, 203]);
        assert!(queue.is_empty());
    }

    #[test]
    fn who_comes_late_waits_for_one_turn_of_each() {
        let mut queue = FairQueue::default();
        for work in 0..1_000 {
            queue.push(owner(1), work % 3, work);
        }
        queue.pop();
        queue.push(owner(2), 9, 9_999);
        queue.push(owner(1), 10, 8_888);
        let next = all(&mut queue);
        let place = |work| next.iter().position(|next| *next == work).unwrap();
        assert!(place(9_999) <= 1, "{:?}", &next[..8]);
        assert!(place(8_888) <= 4, "{:?}", &next[..8]);
    }

    #[test]
    fn of_eight_turns_one_is_an_operators() {
        let mut queue = FairQueue::default();
        for work in 0..400 {
            queue.push(Owner::Principal(work as u32 % 40), work % 40, work);
        }
        for work in 0..10 {
            queue.push(Owner::Operator(99), 99, 1_000 + work);
        }
        let next = all(&mut queue);
        let places: Vec<usize> =
            next.iter().enumerate().filter(|(_, work)| **work >= 1_000).map(|(place, _)| place).collect();
        assert_eq!(places, (0..10).map(|turn| 7 + 8 * turn).collect::<Vec<_>>());
        // Beside one other owner an operator has every second turn, like anybody.
        for work in 0..10 {
            queue.push(Owner::Principal(1), 1, work);
            queue.push(Owner::Operator(99), 99, 1_000 + work);
        }
        let next = all(&mut queue);
        assert!(next.chunks(2).all(|pair| (pair[0] >= 1_000) != (pair[1] >= 1_000)), "{next:?}");
    }

    #[test]
    fn who_may_not_have_a_turn_keeps_its_place() {
        let mut queue = FairQueue::default();
        for work in 0..3 {
            queue.push(owner(1), 1, 100 + work);
            queue.push(owner(2), 2, 200 + work);
        }
        let other = |resting: Owner| move |one: Owner| one != resting;
        assert_eq!([queue.pop_of(other(owner(1))), queue.pop_of(other(owner(1)))], [Some(200), Some(201)]);
        assert_eq!(queue.pop_of(|_| false), None);
        assert_eq!(all(&mut queue), [100, 202, 101, 102]);
    }

    #[test]
    fn an_ipv6_network_is_one_owner() {
        let at = |address: &str| Owner::at(address.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::7"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }
}
