//! Who may be in the doorway.
//!
//! A [`Places`] is for what is short: connections whose handshake is not finished or that have said no hello, questions for the status.
//! Where all places are taken the oldest makes room, first that of the address that has most: so whoever opens many connections and
//! says nothing loses those, and an honest client, which takes milliseconds, gets through. Those who stay have a seat: see
//! [`seats`](rabia_bank_actors::seats).
//!
//! An address is an IPv4 address or an IPv6 network of 64 bits, since one host may call from any address of that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
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
    taken: Mutex<Taken>,
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
    pub(super) fn new(all: usize, per_address: usize) -> Arc<Places> {
        Arc::new(Places { all: all.max(1), per_address: per_address.max(1), taken: Mutex::default() })
    }

    /// Takes a place. Somebody else may lose theirs.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let address = counted(address);
        let mut taken = self.lock();
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

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing panics while it is held.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place, until this is dropped or somebody else takes it.
pub(super) struct Place {
    places: Arc<Places>,
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
        self.places.lock().remove(self.number);
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
        let taken = places.lock();
        assert!(taken.all.is_empty() && taken.by_address.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| counted(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
