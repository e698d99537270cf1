//! The top accounts of an asset by balance and by number of transactions, without a look at all accounts for every question, and without an
//! order of all accounts that every transfer would have to keep.
//!
//! For each measure some accounts are *listed*, and a *floor* is kept: no account that is not listed ranks above it. A change
//! of an account is compared with the floor, and an account that rises above it is listed. Where many are listed the lowest go,
//! and the floor rises. So the top accounts are among the listed, as long as enough of these rank above the floor. Where they
//! don't any more, since listed accounts have become poor, or after a start, all accounts are looked at again, step by step, while
//! changes go on being compared.
//!
//! Which accounts are listed depends on who asked when, and differs from node to node. Which are the top ones does not.

use std::cmp::Ordering;
use std::sync::Arc;

use super::account::{AccountIndex, AccountState};
use super::assets::AssetIndex;

/// Accounts that are listed at most …
const MOST: usize = 512;
/// … and that stay when there were more.
const KEEP: usize = 256;
/// Steps that it takes to look at all that are listed.
pub(super) const LOOK: u64 = 2 * MOST as u64;

/// By what accounts are ranked: more is higher, and of equal ones the first by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Measure {
    Balance,
    Transactions,
}

impl Measure {
    const ALL: [Measure; 2] = [Measure::Balance, Measure::Transactions];

    fn of(self, state: &AccountState) -> i64 {
        match self {
            Measure::Balance => state.balance,
            Measure::Transactions => state.transaction_count as i64,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Less is higher in rank.
    fn compare(self, one: &AccountState, other: &AccountState) -> Ordering {
        self.of(other).cmp(&self.of(one)).then_with(|| one.name.cmp(&other.name))
    }
}

/// The listed accounts of one measure.
#[derive(Debug, Default)]
struct Top {
    /// None: all accounts that were compared are listed.
    floor: Option<(i64, Arc<str>)>,
    listed: Vec<AccountIndex>,
}

impl Top {
    fn is_above_floor(&self, measure: Measure, state: &AccountState) -> bool {
        let Some((floor, name)) = &self.floor else { return true };
        let value = measure.of(state);
        value > *floor || value == *floor && state.name < *name
    }
}

/// The listed accounts by balance, and by number of transactions.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    tops: [Top; 2],
    /// The next account to look at, where all have to be.
    scan: Option<usize>,
}

impl Ranks {
    /// The lists where accounts are there that were not compared.
    pub(super) fn unknown() -> Ranks {
        Ranks { scan: Some(0), ..Ranks::default() }
    }

    /// Compares an account that is new or has changed.
    pub(super) fn compare(&mut self, index: AccountIndex, accounts: &mut [AccountState]) {
        for (measure, top) in Measure::ALL.into_iter().zip(&mut self.tops) {
            let state = &mut accounts[index.get()];
            if state.listed & measure.bit() == 0 && top.is_above_floor(measure, state) {
                state.listed |= measure.bit();
                top.listed.push(index);
                if top.listed.len() > MOST {
                    shorten(measure, top, accounts);
                }
            }
        }
    }

    /// The accounts from this place on are about to be taken away.
    pub(super) fn truncate(&mut self, count: usize) {
        for top in &mut self.tops {
            top.listed.retain(|index| index.get() < count);
        }
        self.scan = self.scan.map(|next| next.min(count));
    }

    /// Makes the lists good for `count` top accounts of this asset, in so many steps at most. False if it takes more.
    pub(super) fn complete(
        &mut self,
        asset: AssetIndex,
        count: usize,
        accounts: &mut [AccountState],
        steps: &mut u64,
    ) -> bool {
        if self.scan.is_none() {
            *steps = steps.saturating_sub(LOOK);
            if self.are_enough(count, accounts) {
                return true;
            }
            self.begin_again(accounts);
        }
        while let Some(next) = self.scan {
            if next >= accounts.len() {
                self.scan = None;
            } else if *steps == 0 {
                return false;
            } else {
                *steps -= 1;
                if accounts[next].asset == asset {
                    self.compare(AccountIndex::new(next as u32), accounts);
                }
                self.scan = Some(next + 1);
            }
        }
        *steps = steps.saturating_sub(LOOK);
        self.are_enough(count, accounts)
    }

    fn are_enough(&self, count: usize, accounts: &[AccountState]) -> bool {
        Measure::ALL.into_iter().zip(&self.tops).all(|(measure, top)| {
            let above = |index: &&AccountIndex| top.is_above_floor(measure, &accounts[index.get()]);
            top.floor.is_none() || top.listed.iter().filter(above).take(count).count() == count
        })
    }

    fn begin_again(&mut self, accounts: &mut [AccountState]) {
        for top in &mut self.tops {
            for index in std::mem::take(top).listed {
                accounts[index.get()].listed = 0;
            }
        }
        self.scan = Some(0);
    }

    /// The `count` highest accounts, the highest first. The lists must be [`complete`](Ranks::complete).
    pub(super) fn top<'a>(
        &self,
        measure: Measure,
        count: usize,
        accounts: &'a [AccountState],
    ) -> Vec<&'a AccountState> {
        let mut listed: Vec<_> =
            self.tops[measure as usize].listed.iter().map(|index| &accounts[index.get()]).collect();
        listed.sort_unstable_by(|one, other| measure.compare(one, other));
        listed.truncate(count);
        listed
    }
}

/// Takes the lowest from the list.
fn shorten(measure: Measure, top: &mut Top, accounts: &mut [AccountState]) {
    let listed = std::mem::take(&mut top.listed);
    let (mut stay, mut go): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|index| top.is_above_floor(measure, &accounts[index.get()]));
    if stay.len() > KEEP {
        let compare =
            |one: &AccountIndex, other: &AccountIndex| measure.compare(&accounts[one.get()], &accounts[other.get()]);
        let (_, highest, _) = stay.select_nth_unstable_by(KEEP, compare);
        let highest = &accounts[highest.get()];
        top.floor = Some((measure.of(highest), highest.name.clone()));
        go.extend(stay.drain(KEEP..));
    }
    for index in go {
        accounts[index.get()].listed &= !measure.bit();
    }
    top.listed = stay;
}
