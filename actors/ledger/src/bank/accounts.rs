//! The table of accounts, and of the assets that they hold: found by name, listed by name, indexed by the records of the history.
//!
//! Records and outcomes refer to an account by its place in the table, so that neither holds a string. An account is
//! never closed; only the undoing of an atomic bulk takes accounts away again, the newest first.
//!
//! # Snapshots
//!
//! The table is saved in pages of [`PAGE`] accounts. A page that changes is noted. When a snapshot is taken these pages
//! are frozen, and encoded bit by bit while the bank goes on ([`Accounts::collect`]); of an account on a frozen page that is
//! about to change, what it was is kept until then. So a snapshot shows the table as it was when it was frozen, and nobody
//! waits for it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use rabia_bank_messages::bank::is_valid_balance;
use rabia_bank_messages::ids::Millis;
use rustc_hash::FxHashMap;

use super::account::{AccountIndex, AccountRow, AccountState, Standing};
use super::assets::{AssetIndex, Assets};
use super::ranks::{Measure, Ranks};
use super::settings::Settings;
use crate::rows::{self, BadRow};
use crate::set_hash::SetHash;

/// Accounts on a page: about as much as the disk writes anyway to change one.
const PAGE: usize = 64;

/// So many changed accounts are hashed in one go. More would stall an answer by more than half a millisecond, fewer
/// would hash a busy account too often.
const REHASH_AT: usize = 4096;

/// Every account there is: found by its place, by its name, and in the order of names.
#[derive(Debug)]
pub(super) struct Accounts {
    pub(super) assets: Assets,
    states: Vec<AccountState>,
    /// Names come from clients, so this is the standard library's hasher, whose seed nobody can know: else chosen names
    /// could make every lookup slow. The seed differs from node to node and shows nowhere: the map is never walked over.
    by_name: HashMap<Arc<str>, AccountIndex>,
    /// For listing. Many times slower to ask than the map above.
    in_order: BTreeMap<Arc<str>, AccountIndex>,
    changed: Vec<AccountIndex>,
    hash: SetHash,
    pages: Pages,
}

/// What a page is to the next snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PageState {
    /// As it was saved last.
    Clean,
    /// To be saved by the next snapshot.
    Changed,
    /// To be saved by the snapshot that is being taken.
    Frozen,
    /// The same, and it changed since, so that the next snapshot saves it too.
    FrozenAndChanged,
}

/// Which pages changed since they were saved.
#[derive(Debug, Default)]
struct Pages {
    states: Vec<PageState>,
    changed: Vec<u32>,
    frozen: Vec<u32>,
    /// How many accounts there were when pages were frozen.
    frozen_accounts: usize,
    /// Accounts on frozen pages that changed since, as they were.
    before: FxHashMap<AccountIndex, Standing>,
    /// Pages as they were when they were frozen.
    encoded: Vec<(u32, Vec<u8>)>,
}

impl Pages {
    /// This account is about to change, or to be created or taken away.
    fn touch(&mut self, index: AccountIndex, accounts: &[AccountState]) {
        let page = index.get() / PAGE;
        if page >= self.states.len() {
            self.states.resize(page + 1, PageState::Clean);
        }
        let state = self.states[page];
        if matches!(state, PageState::Frozen | PageState::FrozenAndChanged) && index.get() < self.frozen_accounts {
            self.before.entry(index).or_insert_with(|| accounts[index.get()].standing());
        }
        self.states[page] = match state {
            PageState::Clean => PageState::Changed,
            PageState::Frozen => PageState::FrozenAndChanged,
            PageState::Changed | PageState::FrozenAndChanged => return,
        };
        self.changed.push(page as u32); // places are u32, so pages are
    }

    /// Encodes a frozen page as it was.
    fn encode(&mut self, page: usize, accounts: &[AccountState]) {
        let places = page * PAGE..self.frozen_accounts.min((page + 1) * PAGE);
        // The page of accounts that were taken away again may be empty.
        if !places.is_empty() {
            let row = |place: usize| {
                let (account, index) = (&accounts[place], AccountIndex::new(place as u32));
                account.to_row(self.before.get(&index).cloned().unwrap_or_else(|| account.standing()))
            };
            self.encoded.push((page as u32, rows::encode(&places.map(row).collect::<Vec<_>>())));
        }
        self.states[page] = match self.states[page] {
            PageState::FrozenAndChanged => PageState::Changed,
            _ => PageState::Clean,
        };
    }
}

impl Accounts {
    /// None yet, where there are these assets.
    pub(super) fn new(assets: Assets) -> Accounts {
        Accounts {
            assets,
            states: Vec::new(),
            by_name: HashMap::new(),
            in_order: BTreeMap::new(),
            changed: Vec::new(),
            hash: SetHash::default(),
            pages: Pages::default(),
        }
    }

    /// Begins a snapshot with all pages that changed since the last one, as they are now. Answers how many they are.
    pub(super) fn freeze(&mut self) -> usize {
        let Pages { states, changed, frozen, frozen_accounts, .. } = &mut self.pages;
        assert!(frozen.is_empty(), "a snapshot is being taken already");
        *frozen_accounts = self.states.len();
        std::mem::swap(frozen, changed);
        for page in frozen.iter() {
            states[*page as usize] = PageState::Frozen;
        }
        frozen.len()
    }

    /// Encodes up to `count` frozen pages. Answers all pages once none is left.
    pub(super) fn collect(&mut self, count: usize) -> Option<Vec<(u32, Vec<u8>)>> {
        for _ in 0..count {
            let Some(page) = self.pages.frozen.pop() else { break };
            self.pages.encode(page as usize, &self.states);
        }
        self.pages.frozen.is_empty().then(|| {
            self.pages.before = FxHashMap::default();
            std::mem::take(&mut self.pages.encoded)
        })
    }

    /// Adds the accounts of the next page of a snapshot. Pages come in order, all but the last one full. They can't be found
    /// before all are [`loaded`](Accounts::loaded).
    pub(super) fn load(&mut self, page: u32, bytes: &[u8]) -> Result<(), BadRow> {
        let bad = |why: String| BadRow::new(format!("page {page} of the accounts: {why}"));
        let rows: Vec<AccountRow<&str>> = rows::decode(|| format!("page {page} of the accounts"), bytes)?;
        if page as usize * PAGE != self.states.len() || !(1..=PAGE).contains(&rows.len()) {
            return Err(bad(format!("{} accounts, where {} came before", rows.len(), self.states.len())));
        }
        for row in rows {
            let index =
                u32::try_from(self.states.len()).map(AccountIndex::new).map_err(|_| bad("no place for it".into()))?;
            let state = AccountState::from_row(row);
            if !is_valid_balance(state.balance) || !state.settings().are_valid() {
                return Err(bad(format!("account {} with balance {} can't be", state.name, state.balance)));
            }
            self.states.push(state);
            self.changed.push(index);
        }
        // As it was saved.
        self.pages.states.push(PageState::Clean);
        Ok(())
    }

    /// All pages and assets are loaded: lets accounts be found, all at once, for one by one takes several times as long. Answers the
    /// sum of the balances of each asset.
    pub(super) fn loaded(&mut self) -> Result<Vec<i128>, BadRow> {
        let mut sums = vec![0; self.assets.len()];
        for state in &self.states {
            let number = state.asset.number();
            let Some(sum) = sums.get_mut(usize::from(number)) else {
                return Err(BadRow::new(format!(
                    "account {} holds asset {number} of {}",
                    state.name,
                    self.assets.len()
                )));
            };
            *sum += i128::from(state.balance);
            let asset = self.assets.get_mut(state.asset);
            asset.accounts += 1;
            asset.ranks = Ranks::unknown();
        }
        let named = |(place, state): (u32, &AccountState)| (Arc::clone(&state.name), AccountIndex::new(place));
        self.by_name.reserve(self.states.len());
        self.by_name.extend((0..).zip(&self.states).map(named));
        let mut names: Vec<_> = (0..).zip(&self.states).map(named).collect();
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if let Some(twice) = names.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(BadRow::new(format!("account {} is there twice", twice[0].0)));
        }
        self.in_order = names.into_iter().collect();
        Ok(sums)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// The account of this name.
    pub(super) fn find(&self, name: &str) -> Option<AccountIndex> {
        self.by_name.get(name).copied()
    }

    /// The account at this place.
    pub(super) fn get(&self, index: AccountIndex) -> &AccountState {
        &self.states[index.get()]
    }

    /// The account at this place, to change it.
    pub(super) fn get_mut(&mut self, index: AccountIndex) -> &mut AccountState {
        self.pages.touch(index, &self.states);
        let state = &mut self.states[index.get()];
        if !state.changed {
            state.changed = true;
            self.changed.push(index);
        }
        state
    }

    /// Tells the lists of top accounts that this one has changed. To be called after every change.
    pub(super) fn rank(&mut self, index: AccountIndex) {
        let asset = self.states[index.get()].asset;
        self.assets.get_mut(asset).ranks.compare(index, &mut self.states);
    }

    /// Makes it possible to tell the `count` [`top`](Accounts::top) accounts of an asset. False if that takes more steps.
    pub(super) fn complete_ranks(&mut self, asset: AssetIndex, count: usize, steps: &mut u64) -> bool {
        self.assets.get_mut(asset).ranks.complete(asset, count, &mut self.states, steps)
    }

    /// The `count` accounts with the most of an asset, the first of them first; equal ones by name.
    pub(super) fn top(&self, asset: AssetIndex, measure: Measure, count: usize) -> Vec<&AccountState> {
        self.assets.get(asset).ranks.top(measure, count, &self.states)
    }

    /// The accounts with a name above `after`, in byte order of the names.
    pub(super) fn list<'a>(&'a self, after: Option<&str>) -> impl Iterator<Item = &'a AccountState> + use<'a> {
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.in_order.range::<str, _>((lower, Bound::Unbounded)).map(|(_, index)| self.get(*index))
    }

    /// Adds an account with a balance of 0. There must be none of this name.
    pub(super) fn create(
        &mut self,
        name: &str,
        asset: AssetIndex,
        settings: Settings,
        created_at: Millis,
    ) -> AccountIndex {
        let count = self.states.len();
        let Ok(place) = u32::try_from(count) else { panic!("no place for more than {count} accounts") };
        self.pages.touch(AccountIndex::new(place), &self.states);
        let (index, name) = (AccountIndex::new(place), Arc::<str>::from(name));
        let other = self.by_name.insert(Arc::clone(&name), index);
        assert!(other.is_none(), "account {name} was created as {index:?}, but exists as {other:?}");
        self.in_order.insert(Arc::clone(&name), index);
        self.states.push(AccountState::new(name, asset, settings, created_at));
        self.assets.get_mut(asset).accounts += 1;
        self.changed.push(index);
        self.rank(index);
        index
    }

    /// Takes the newest accounts away, until `count` are left. Their balances must be 0.
    pub(super) fn truncate(&mut self, count: usize) {
        if count == self.states.len() {
            return;
        }
        for place in count..self.states.len() {
            self.pages.touch(AccountIndex::new(place as u32), &self.states);
            self.assets.get_mut(self.states[place].asset).accounts -= 1;
        }
        self.assets.iter_mut().for_each(|asset| asset.ranks.truncate(count));
        for state in self.states.drain(count..) {
            assert_eq!(state.balance, 0, "account {} was taken away with money in it", state.name);
            self.hash.subtract(state.hashed);
            self.by_name.remove(&*state.name);
            self.in_order.remove(&*state.name);
        }
        self.changed.retain(|index| index.get() < count);
    }

    /// Brings the hash up to date if much has changed, to keep the next [`set_hash`](Accounts::set_hash) cheap.
    pub(super) fn rehash_if_many(&mut self) {
        if self.changed.len() >= REHASH_AT {
            self.set_hash();
        }
    }

    /// The hash of the set of all accounts, at the cost of those that changed since it was last asked for.
    pub(super) fn set_hash(&mut self) -> SetHash {
        let mut scratch = Vec::new();
        // In the order of their places, the memory of the next ones is there before it is asked for.
        self.changed.sort_unstable();
        for index in self.changed.drain(..) {
            let state = &mut self.states[index.get()];
            self.hash.subtract(state.hashed);
            state.hashed = state.set_hash(&mut scratch);
            self.hash.add(state.hashed);
            state.changed = false;
        }
        self.hash
    }
}
