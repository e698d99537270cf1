//! Seats for the connections of clients that stay. Where all are taken, or all that a principal may have, whoever comes is turned away.
//!
//! A connection gets its seat when its client has said who it is; until then it waits in the doorway, which is the listener's business.
//! So a seat is for a principal, wherever it connects from, and [`OPERATORS`] more are for operators alone: they get in where everybody
//! else is turned away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tracing::warn;

use crate::consensus::turns::Owner;
use crate::rate::Rate;

/// Seats that operators have besides those that everybody has.
pub const OPERATORS: usize = 16;
/// How often it is told that somebody was turned away.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// The seats of a node.
#[derive(Debug)]
pub struct Seats {
    all: usize,
    per_principal: usize,
    started: Instant,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    owners: FxHashMap<Owner, usize>,
    operators: usize,
    others: usize,
    told: Rate,
}

impl Taken {
    fn of(&mut self, owner: Owner) -> &mut usize {
        if owner.is_operator() { &mut self.operators } else { &mut self.others }
    }

    fn add(&mut self, owner: Owner) {
        *self.of(owner) += 1;
        *self.owners.entry(owner).or_default() += 1;
    }

    fn remove(&mut self, owner: Owner) {
        *self.of(owner) -= 1;
        let Some(own) = self.owners.get_mut(&owner) else { return };
        *own -= 1;
        if *own == 0 {
            self.owners.remove(&owner);
        }
    }
}

/// Why there is no seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// All seats of the node are taken.
    All,
    /// This principal has as many as one may have.
    Principal,
}

impl Full {
    /// For people, with the key of the limit.
    pub fn why(self) -> &'static str {
        match self {
            Full::All => "this node has as many clients as it may have (max_clients, or its descriptors)",
            Full::Principal => {
                "this node has as many clients of this principal as it may have (max_clients_per_principal)"
            }
        }
    }
}

impl Seats {
    /// So many for everybody, and so many for one principal, which are never more than three quarters of all.
    pub fn new(all: usize, per_principal: usize) -> Arc<Seats> {
        let most = (all - all / 4).max(1);
        let told = Rate::new(1, TELL_AGAIN, Duration::ZERO);
        let taken = Mutex::new(Taken { owners: FxHashMap::default(), operators: 0, others: 0, told });
        Arc::new(Seats { all, per_principal: per_principal.min(most), started: Instant::now(), taken })
    }

    /// How many there are for everybody.
    pub fn all(&self) -> usize {
        self.all
    }

    /// How many one principal may have.
    pub fn per_principal(&self) -> usize {
        self.per_principal
    }

    /// A seat for a connection of this owner, if there is one. `late`: its socket is one that is kept for operators and whoever does
    /// not stay.
    ///
    /// # Errors
    /// If there is none.
    pub fn take(self: &Arc<Self>, owner: Owner, late: bool) -> Result<Seat, Full> {
        let mut taken = self.lock();
        let beyond = taken.operators.saturating_sub(OPERATORS);
        let kept = owner.is_operator() && taken.operators < OPERATORS;
        let full = if !kept && (late || taken.others + beyond >= self.all) {
            Full::All
        } else if taken.owners.get(&owner).copied().unwrap_or_default() >= self.per_principal {
            Full::Principal
        } else {
            taken.add(owner);
            return Ok(Seat { seats: self.clone(), owner });
        };
        if let Some(untold) = taken.told.count(self.started.elapsed()) {
            warn!(?owner, times = untold + 1, "a client is turned away: {}", full.why());
        }
        Err(full)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A seat, until this is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    owner: Owner,
}

impl Seat {
    /// Whoever has it belongs to this owner from now on: be there another seat for it or not.
    pub fn move_to(&mut self, owner: Owner) {
        let mut taken = self.seats.lock();
        taken.remove(self.owner);
        taken.add(owner);
        self.owner = owner;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().remove(self.owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(seats: &Arc<Seats>, owner: Owner, most: usize) -> Vec<Seat> {
        std::iter::repeat_with(|| seats.take(owner, false)).take(most).map_while(Result::ok).collect()
    }

    #[test]
    fn one_principal_never_has_all_seats() {
        let seats = Seats::new(8, 100);
        assert_eq!((seats.all(), seats.per_principal()), (8, 6));
        let mut taken = take(&seats, Owner::Principal(1), 100);
        assert_eq!((taken.len(), seats.take(Owner::Principal(1), false).err()), (6, Some(Full::Principal)));
        taken.extend(take(&seats, Owner::Principal(2), 100));
        assert_eq!((taken.len(), seats.take(Owner::Principal(3), false).err()), (8, Some(Full::All)));
        taken.truncate(5);
        assert!(seats.take(Owner::Principal(3), false).is_ok());
        drop(taken);
        assert!(seats.lock().owners.is_empty() && seats.lock().others == 0);
        assert!(Seats::new(1, 1).take(Owner::Principal(1), false).is_ok(), "the only seat may be taken");
    }

    #[test]
    fn operators_have_seats_where_all_are_taken() {
        let seats = Seats::new(40, 100);
        let mut others = take(&seats, Owner::Principal(1), 30);
        others.extend(take(&seats, Owner::Principal(2), 100));
        assert_eq!(others.len(), 40);
        assert_eq!(seats.take(Owner::Principal(3), true).err(), Some(Full::All));
        let mut operators = take(&seats, Owner::Operator(9), 15);
        operators.extend(seats.take(Owner::Operator(9), true));
        assert_eq!((operators.len(), seats.take(Owner::Operator(9), false).err()), (OPERATORS, Some(Full::All)));
        // They take nobody else's seat, and with more of them, one of those that everybody has.
        others.pop();
        assert!(seats.take(Owner::Principal(2), false).is_ok());
        let mut one_more = seats.take(Owner::Operator(8), false).unwrap();
        assert_eq!(seats.take(Owner::Principal(2), false).err(), Some(Full::All));
        // Who is an operator no longer has a seat like everybody.
        one_more.move_to(Owner::Principal(8));
        assert_eq!(seats.take(Owner::Principal(2), false).err(), Some(Full::All));
        drop((others, operators, one_more));
        assert!(seats.lock().owners.is_empty());
    }
}
