//! Which store speaks for a member, in which slot.
//!
//! A member whose store is lost comes back with a new one, by a command in the log: a [`Replacement`], decided in slot r. Below
//! r + W the old store speaks for the member, from r + W on the new one. Nobody speaks in slot s before it knows all decisions
//! up to s − W, so all who speak in a slot agree on whose voices count there, and in no slot do two stores of one member
//! speak: a slot sees one store a member, which remembers what it promised, as if nothing had ever been replaced.
//!
//! A replacement has no effect if the cluster can't bear a loss (f = 0), there is no such member, or the store's id was used
//! before: so the same command can be given again and again until somebody sees it decided.

use std::ops::Range;

use rabia_bank_messages::genesis::{Genesis, Replacement, Replacements};
use rabia_bank_messages::ids::{NodeId, Slot, StoreId};
use rabia_bank_messages::sabotage::{Rule, is_broken};

/// What a store is to its member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The one that genesis, or the log after it, named last.
    Current,
    /// A former one: this took its place.
    Former(Replacement),
    /// Not known to be one.
    Unknown,
}

/// The stores of all members, as far as a log is known.
#[derive(Clone, Debug)]
pub struct Stores {
    first: Vec<StoreId>,
    window: Slot,
    bears_loss: bool,
    all: Replacements,
    /// Those that have an effect.
    effective: Vec<Replacement>,
}

impl Stores {
    /// The stores of a cluster with these replacements.
    pub fn new(genesis: &Genesis, replacements: &Replacements) -> Stores {
        let bears_loss = genesis.quorums().faults() > 0;
        let (first, window) = (genesis.stores.clone(), genesis.window);
        let mut stores = Stores { first, window, bears_loss, all: Replacements::default(), effective: Vec::new() };
        for replacement in replacements.list() {
            stores.add(*replacement);
        }
        stores
    }

    /// Takes the next replacement in the log. False if it has no effect.
    pub fn add(&mut self, replacement: Replacement) -> bool {
        let works = self.check(replacement.node, replacement.store).is_ok();
        let works = self.all.add(replacement) && works;
        if works {
            self.effective.push(replacement);
        }
        works
    }

    /// Whether replacing the member's store by this one would have an effect now.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, node: NodeId, store: StoreId) -> Result<(), String> {
        if !self.bears_loss {
            let members = self.first.len();
            return Err(format!(
                "a cluster of {members} can't replace a store: what the lost one promised and acknowledged is nowhere else. \
                 Restore a backup: `rabia-bank restore --help`"
            ));
        }
        if node.index() >= self.first.len() {
            return Err(format!("the cluster has {} members, so there is no node {node}", self.first.len()));
        }
        let used = |other: &Replacement| {
            let alike = other.node == node && runs_of(other.store) == runs_of(store);
            other.store == store || alike
        };
        if self.first.contains(&store) || self.all.list().iter().any(used) {
            return Err(format!("the id {store} was used for a store before; create another store"));
        }
        Ok(())
    }

    /// How many replacements had an effect so far.
    pub fn version(&self) -> usize {
        self.effective.len()
    }

    /// The replacements that had an effect, in their order.
    pub fn replacements(&self) -> &[Replacement] {
        &self.effective
    }

    fn of_node(&self, node: NodeId) -> impl DoubleEndedIterator<Item = &Replacement> {
        self.effective.iter().filter(move |replacement| replacement.node == node)
    }

    /// The first slot in which the store that a replacement brings may speak.
    pub fn speaks_from(&self, replacement: &Replacement) -> Slot {
        replacement.slot + if is_broken(Rule::NewStoreWindow) { 1 } else { self.window }
    }

    /// The newest store of a member.
    pub fn current(&self, node: NodeId) -> StoreId {
        self.of_node(node).next_back().map_or(self.first[node.index()], |replacement| replacement.store)
    }

    /// The former stores of a member, oldest first.
    pub fn former(&self, node: NodeId) -> Vec<StoreId> {
        let first = self.first[node.index()];
        let mut stores: Vec<StoreId> =
            [first].into_iter().chain(self.of_node(node).map(|replacement| replacement.store)).collect();
        stores.pop();
        stores
    }

    /// The store that speaks for a member in a slot. All decisions up to a window below it must be known.
    pub fn of(&self, node: NodeId, slot: Slot) -> StoreId {
        let newest = self.of_node(node).rfind(|replacement| self.speaks_from(replacement) <= slot);
        newest.map_or(self.first[node.index()], |replacement| replacement.store)
    }

    /// The replacement that brought this store.
    pub fn brought(&self, node: NodeId, store: StoreId) -> Option<Replacement> {
        self.of_node(node).find(|replacement| replacement.store == store).copied()
    }

    /// The slots in which a store speaks for its member. None if it is not known as one.
    pub fn span(&self, node: NodeId, store: StoreId) -> Option<Range<Slot>> {
        let start = match self.brought(node, store) {
            Some(replacement) => self.speaks_from(&replacement),
            None if self.first[node.index()] == store => 0,
            None => return None,
        };
        let end = match self.standing(node, store) {
            Standing::Former(next) => self.speaks_from(&next),
            Standing::Current | Standing::Unknown => Slot::MAX,
        };
        Some(start..end)
    }

    /// What this store is to the member.
    pub fn standing(&self, node: NodeId, store: StoreId) -> Standing {
        if self.current(node) == store {
            return Standing::Current;
        }
        let mut later = self.of_node(node).skip_while(|replacement| replacement.store != store).skip(1);
        let next = if self.first[node.index()] == store { self.of_node(node).next() } else { later.next() };
        next.map_or(Standing::Unknown, |next| Standing::Former(*next))
    }

    /// The number of a run, for the ids of its batches: the start counter for a first store. Another store counts its starts
    /// from 1 again, and must not name batches as the former one did, so its runs have numbers of their own.
    pub fn incarnation(&self, node: NodeId, store: StoreId, starts: u64) -> u64 {
        if self.first[node.index()] == store { starts } else { runs_of(store) + starts }
    }
}

/// Where the numbers of a store's runs begin. Two stores of a member for which this is the same are never both accepted.
fn runs_of(store: StoreId) -> u64 {
    let [a, b, c, d, e, ..] = store.0;
    // There is room for 16 million starts. The highest bit is set, so that no first store ever counts so far.
    u64::from_be_bytes([a | 0x80, b, c, d, e, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabia_bank_messages::ids::ClusterId;

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn store(number: u8) -> StoreId {
        StoreId([number; 16])
    }

    fn stores(members: u8) -> Stores {
        let genesis = Genesis::new(ClusterId([1; 16]), (1..=members).map(store).collect());
        Stores::new(&genesis, &Replacements::default())
    }

    fn replace(slot: Slot, node: u8, by: u8) -> Replacement {
        Replacement { slot, node: self::node(node), store: store(by) }
    }

    #[test]
    fn one_store_speaks_for_a_member_in_every_slot() {
        let mut stores = stores(3);
        assert!(stores.add(replace(100, 2, 0x22)));
        assert!(stores.add(replace(105, 2, 0x23)), "before the first one speaks at all");
        let window = 16;
        let spans: Vec<_> = [2, 0x22, 0x23].map(|id| stores.span(node(2), store(id)).unwrap()).into();
        assert_eq!(spans, [0..100 + window, 100 + window..105 + window, 105 + window..Slot::MAX]);
        for slot in 0..200 {
            let speaking: Vec<_> = spans.iter().filter(|span| span.contains(&slot)).collect();
            assert_eq!(speaking.len(), 1, "slot {slot}");
            let of = stores.of(node(2), slot);
            assert!(stores.span(node(2), of).unwrap().contains(&slot));
            assert_eq!(stores.of(node(1), slot), store(1));
        }
        assert_eq!(stores.standing(node(2), store(2)), Standing::Former(replace(100, 2, 0x22)));
        assert_eq!(stores.standing(node(2), store(0x22)), Standing::Former(replace(105, 2, 0x23)));
        assert_eq!(stores.standing(node(2), store(0x23)), Standing::Current);
        assert_eq!(stores.standing(node(2), store(9)), Standing::Unknown);
        assert_eq!(stores.span(node(1), store(0x23)), None, "another member's");
    }

    #[test]
    fn a_replacement_works_once() {
        let mut stores = stores(5);
        assert!(stores.add(replace(7, 4, 0x44)));
        assert!(!stores.add(replace(9, 4, 0x44)), "again");
        assert!(!stores.add(replace(9, 5, 0x44)), "for another member");
        assert!(!stores.add(replace(9, 5, 1)), "the first store of another member");
        assert!(!stores.add(replace(9, 7, 0x77)), "for nobody");
        let alike = StoreId([&[0x44; 5][..], &[1; 11]].concat().try_into().unwrap());
        assert!(!stores.add(Replacement { slot: 9, node: node(4), store: alike }), "its batches might be named alike");
        assert_eq!(stores.replacements(), [replace(7, 4, 0x44)]);
    }

    #[test]
    fn who_can_bear_no_loss_can_replace_no_store() {
        for members in [1, 2] {
            assert!(stores(members).check(node(1), store(0x11)).unwrap_err().contains("backup"));
            assert!(!stores(members).add(replace(3, 1, 0x11)));
        }
    }

    #[test]
    fn runs_of_different_stores_have_different_numbers() {
        let stores = stores(3);
        assert_eq!(stores.incarnation(node(1), store(1), 5), 5);
        let other = stores.incarnation(node(1), store(0x11), 5);
        assert!(other > 1 << 63);
        assert_ne!(other, stores.incarnation(node(1), store(0x12), 5));
    }
}
