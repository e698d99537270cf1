//! The assets: what accounts hold, and the figures of each.

use std::collections::HashMap;
use std::sync::Arc;

use rabia_bank_messages::bank::{
    Asset, CreateAsset, MAX_ASSETS, MAX_BALANCE, MAX_SCALE, OtherFields, OwnAsset, is_valid_asset, is_valid_balance,
};
use serde::{Deserialize, Serialize};

use super::ranks::Ranks;
use super::statistics::{Totals, TotalsRow};
use crate::rows::BadRow;

/// The place of an asset, from 0: that of the cluster's own one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct AssetIndex(u16);

impl AssetIndex {
    /// The cluster's own asset.
    pub(super) const OWN: AssetIndex = AssetIndex(0);

    pub(super) fn number(self) -> u16 {
        self.0
    }

    fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// An asset and what there is of it.
#[derive(Debug)]
pub(super) struct AssetState {
    pub(super) code: Arc<str>,
    pub(super) scale: u8,
    /// The largest amount of one transaction, in minor units.
    pub(super) limit: u64,
    /// How many accounts hold it.
    pub(super) accounts: u64,
    /// The sum of all balances, in minor units.
    pub(super) total: i64,
    pub(super) totals: Totals,
    /// Which of its accounts are the top ones.
    pub(super) ranks: Ranks,
}

/// An asset in the row of the state. That it has accounts is known from these.
#[derive(Debug, Serialize, Deserialize)]
pub struct AssetRow {
    code: Box<str>,
    scale: u8,
    limit: u64,
    pub(super) total: i64,
    totals: TotalsRow,
}

impl AssetState {
    fn new(code: &str, scale: u8, limit: u64) -> AssetState {
        AssetState {
            code: code.into(),
            scale,
            limit,
            accounts: 0,
            total: 0,
            totals: Totals::default(),
            ranks: Ranks::default(),
        }
    }

    /// What clients see of it.
    pub(super) fn to_asset(&self) -> Asset {
        Asset {
            asset: Box::from(&*self.code),
            scale: self.scale,
            limit: self.limit,
            accounts: self.accounts,
            total_balance: self.total,
            other: OtherFields::default(),
        }
    }
}

/// All assets, in the order in which they were created, the cluster's own one first.
#[derive(Debug)]
pub(super) struct Assets {
    states: Vec<AssetState>,
    /// By the standard library's hasher, as account names are.
    by_code: HashMap<Arc<str>, AssetIndex>,
}

impl Assets {
    /// The cluster's own asset alone, of which one transaction moves so much at most.
    pub(super) fn new(own: &OwnAsset, limit: u64) -> Assets {
        let mut assets = Assets { states: Vec::new(), by_code: HashMap::new() };
        assets.add(AssetState::new(&own.code, own.scale, limit));
        assets
    }

    fn add(&mut self, state: AssetState) -> AssetIndex {
        let index = AssetIndex(self.states.len() as u16); // there are at most 1,000
        self.by_code.insert(state.code.clone(), index);
        self.states.push(state);
        index
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    pub(super) fn get(&self, index: AssetIndex) -> &AssetState {
        &self.states[index.get()]
    }

    pub(super) fn get_mut(&mut self, index: AssetIndex) -> &mut AssetState {
        &mut self.states[index.get()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &AssetState> {
        self.states.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut AssetState> {
        self.states.iter_mut()
    }

    /// The asset of this code.
    pub(super) fn find(&self, code: &str) -> Option<AssetIndex> {
        self.by_code.get(code).copied()
    }

    /// The code of an asset that is not the cluster's own.
    pub(super) fn foreign(&self, index: AssetIndex) -> Option<&Arc<str>> {
        (index != AssetIndex::OWN).then(|| &self.get(index).code)
    }

    /// Adds an asset. There must be room for it, and none of its code.
    pub(super) fn create(&mut self, asset: &CreateAsset) -> AssetIndex {
        assert!(self.has_room() && self.find(&asset.asset).is_none() && asset.is_valid(), "no room for {asset:?}");
        self.add(AssetState::new(&asset.asset, asset.scale as u8, asset.limit))
    }

    pub(super) fn has_room(&self) -> bool {
        self.states.len() < MAX_ASSETS
    }

    /// Takes the newest assets away, until `count` are left. No account may hold them.
    pub(super) fn truncate(&mut self, count: usize) {
        for state in self.states.drain(count..) {
            self.by_code.remove(&state.code);
        }
    }

    /// The rows of all but the cluster's own one.
    pub(super) fn to_rows(&self) -> Vec<AssetRow> {
        let row = |state: &AssetState| AssetRow {
            code: Box::from(&*state.code),
            scale: state.scale,
            limit: state.limit,
            total: state.total,
            totals: state.totals.to_row(),
        };
        self.states.iter().skip(1).map(row).collect()
    }

    /// Adds the assets of these rows, with the sums that they have.
    pub(super) fn load(&mut self, rows: Vec<AssetRow>) -> Result<(), BadRow> {
        for AssetRow { code, scale, limit, total, totals } in rows {
            let is_one = is_valid_asset(&code)
                && scale <= MAX_SCALE
                && (1..=MAX_BALANCE).contains(&limit)
                && is_valid_balance(total);
            if !is_one || !self.has_room() || self.find(&code).is_some() {
                return Err(BadRow::new(format!("no asset can be {code:?} beside the {} before it", self.len())));
            }
            let totals = Totals::from_row(totals)?;
            self.add(AssetState { total, totals, ..AssetState::new(&code, scale, limit) });
        }
        Ok(())
    }
}
