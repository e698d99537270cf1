//! Who may be in the doorway, and who may come in.
//!
//! A [`Places`] is for what is short: handshakes that are not finished, questions for the status. Where all places are taken the
//! oldest makes room, first that of the address that has most: so whoever opens many connections and says nothing loses those, and
//! an honest handshake, which takes milliseconds, gets through. [`Seats`] is for connections that stay: where all are taken,
//! whoever comes is turned away, and one address never has all of them.
//!
//! An address is an IPv4 address or an IPv6 network of 64 bits, since one host may call from any address of that.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The address that counts for a connection from this one.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// Places for what is short. See the [module](self).
pub(super) struct Places {
    all: usize,
    per_address: usize,
    taken: RefCell<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// By age. Dropping a sender tells whoever is there to go.
    all: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    by_address: HashMap<IpAddr, BTreeSet<u64>>,
}

impl Taken {
    fn remove(&mut self, number: u64) {
        let Some((address, _)) = self.all.remove(&number) else { return };
        let Some(numbers) = self.by_address.get_mut(&address) else { return };
        numbers.remove(&number);
        if numbers.is_empty() {
            self.by_address.remove(&address);
        }
    }

    fn of(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).map_or(0, BTreeSet::len)
    }

    fn oldest_of(&self, address: IpAddr) -> Option<u64> {
        self.by_address.get(&address)?.first().copied()
    }

    /// The oldest place of the address that has most.
    fn oldest_of_most(&self) -> Option<u64> {
        let most = self.by_address.values().max_by_key(|numbers| numbers.len())?;
        most.first().copied()
    }
}

impl Places {
    /// So many in all, and so many for one address; one at least.
    pub(super) fn new(all: usize, per_address: usize) -> Rc<Places> {
        Rc::new(Places { all: all.max(1), per_address: per_address.max(1), taken: RefCell::default() })
    }

    /// Takes a place. Somebody else may lose theirs.
    pub(super) fn enter(self: &Rc<Self>, address: IpAddr) -> Place {
        let address = counted(address);
        let mut taken = self.taken.borrow_mut();
        while taken.of(address) >= self.per_address
            && let Some(oldest) = taken.oldest_of(address)
        {
            taken.remove(oldest);
        }
        while taken.all.len() >= self.all
            && let Some(oldest) = taken.oldest_of_most()
        {
            taken.remove(oldest);
        }
        let number = taken.next;
        taken.next += 1;
        let (stay, lost) = oneshot::channel();
        taken.all.insert(number, (address, stay));
        taken.by_address.entry(address).or_default().insert(number);
        drop(taken);
        Place { places: self.clone(), number, lost: Some(lost) }
    }
}

/// A place, until this is dropped or somebody else takes it.
pub(super) struct Place {
    places: Rc<Places>,
    number: u64,
    /// None once it is lost.
    lost: Option<oneshot::Receiver<()>>,
}

impl Place {
    /// Resolves when somebody else has taken the place.
    pub(super) async fn lost(&mut self) {
        if let Some(lost) = &mut self.lost {
            // Nothing is ever sent: the other end is dropped.
            let _ = lost.await;
            self.lost = None;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.borrow_mut().remove(self.number);
    }
}

/// Seats for those who stay. See the [module](self).
pub(super) struct Seats {
    all: usize,
    per_address: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// Why there is no seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    /// All places of the node are taken.
    All,
    /// This address has as many as one may have.
    Address,
}

impl Seats {
    /// So many in all, and so many for one address, which are never more than three quarters of all.
    pub(super) fn new(all: usize, per_address: usize) -> Arc<Seats> {
        let most = (all - all / 4).max(1);
        Arc::new(Seats { all, per_address: per_address.min(most), taken: Mutex::default() })
    }

    /// How many there are.
    pub(super) fn all(&self) -> usize {
        self.all
    }

    /// How many one address may have.
    pub(super) fn per_address(&self) -> usize {
        self.per_address
    }

    /// A place for a connection from this address, if there is one.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Full> {
        let address = counted(address);
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= self.all {
            return Err(Full::All);
        }
        let own = taken.entry(address).or_default();
        if *own >= self.per_address {
            return Err(Full::Address);
        }
        *own += 1;
        Ok(Seat { seats: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A seat, until this is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(own) = taken.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    fn is_lost(place: &mut Place) -> bool {
        place.lost().now_or_never().is_some()
    }

    #[test]
    fn who_takes_many_places_loses_the_oldest_and_others_keep_theirs() {
        let places = Places::new(10, 4);
        let mut honest = places.enter(ip(1));
        let mut many: Vec<Place> = (0..6).map(|_| places.enter(ip(2))).collect();
        let lost: Vec<bool> = many.iter_mut().map(is_lost).collect();
        assert_eq!(lost, [true, true, false, false, false, false]);
        // From many addresses: the one that has most makes room, as long as one has more than another.
        let mut others: Vec<Place> = (10..16).map(|last| places.enter(ip(last))).collect();
        assert!(!is_lost(&mut honest) && others.iter_mut().all(|other| !is_lost(other)));
        assert_eq!(many.iter_mut().filter_map(|place| is_lost(place).then_some(())).count(), 3);
        drop((honest, many, others));
        assert!(places.taken.borrow().all.is_empty() && places.taken.borrow().by_address.is_empty());
    }

    #[test]
    fn one_address_never_has_all_seats() {
        let seats = Seats::new(8, 100);
        assert_eq!((seats.all(), seats.per_address()), (8, 6));
        let mut taken: Vec<Seat> = (0..6).map(|_| seats.take(ip(1)).unwrap_or_else(|_| panic!("full"))).collect();
        assert_eq!(seats.take(ip(1)).err(), Some(Full::Address));
        taken.extend((0..2).map(|_| seats.take(ip(2)).unwrap_or_else(|_| panic!("full"))));
        assert_eq!(seats.take(ip(3)).err(), Some(Full::All));
        taken.truncate(5);
        assert!(seats.take(ip(3)).is_ok());
        drop(taken);
        assert!(seats.lock().is_empty());
        assert!(Seats::new(1, 1).take(ip(1)).is_ok(), "the only seat may be taken");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| counted(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
