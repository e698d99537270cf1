//! Running figures over the history of one asset: by type, by hour, and an index to find large transactions.
//!
//! Kept as transactions are applied, so that asking does not read the history again. They follow from the history, so
//! the state digest covers them by covering the head of its chain.

use std::collections::{BTreeMap, VecDeque};

use rabia_bank_messages::bank::{HourVolume, MAX_BALANCE, TransactionType, TypeName, Volume};
use rabia_bank_messages::ids::Millis;
use serde::{Deserialize, Serialize};

use super::chain::{TYPES, type_index};
use super::history::Record;
use crate::rows::BadRow;

/// An hour of log time, in milliseconds.
const HOUR: Millis = 60 * 60 * 1000;
/// How many hours are kept: two days, to compare a day with the one before.
const HOURS: usize = 48;
/// Transactions to one entry of the index of large ones, those of other assets counted: a search reads the index, and these for every
/// entry that hits.
pub(super) const LARGEST_OF: u64 = 4096;
/// Entries that this index keeps: large transactions are found among the newest 67 million …
const ENTRIES: usize = 1 << 14;
/// … but of an asset that is not the cluster's own, of which there may be many, among the newest four million and more.
const ENTRIES_OF_OTHERS: usize = 1 << 10;

/// Volumes over the whole history of an asset, by type and by hour, and the largest amounts.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) all: Volume,
    by_type: [Volume; TYPES],
    /// The latest hours that had any transaction, oldest first.
    by_hour: VecDeque<HourVolume>,
    /// The largest amounts, oldest first.
    largest: VecDeque<Largest>,
}

/// The largest amount of an asset among [`LARGEST_OF`] transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Largest {
    /// Which transactions: (id − 1) / [`LARGEST_OF`].
    entry: u64,
    amount: u64,
}

/// The figures in the row of the state.
#[derive(Debug, Serialize, Deserialize)]
pub struct TotalsRow {
    all: Volume,
    /// Files of older versions have fewer types.
    by_type: Vec<Volume>,
    by_hour: Vec<HourVolume>,
    /// The first entry, in files of 0.1.0, where the others follow without a gap.
    forgotten: u64,
    largest: Vec<u64>,
    /// The entries of the amounts.
    #[serde(default)]
    entries: Vec<u64>,
}

impl Totals {
    /// Counts a transaction, which has this id.
    pub(super) fn count(&mut self, id: u64, record: &Record, is_own: bool) {
        let entry = (id - 1) / LARGEST_OF;
        match self.largest.back_mut() {
            Some(largest) if largest.entry == entry => largest.amount = record.amount.max(largest.amount),
            _ => {
                self.largest.push_back(Largest { entry, amount: record.amount });
                if self.largest.len() > if is_own { ENTRIES } else { ENTRIES_OF_OTHERS } {
                    self.largest.pop_front();
                }
            }
        }
        add(&mut self.all, record);
        add(&mut self.by_type[type_index(record.movement.transaction_type())], record);
        let hour = record.moment.time - record.moment.time % HOUR;
        if self.by_hour.back().is_none_or(|latest| latest.hour != hour) {
            self.by_hour.push_back(HourVolume { hour, total: Volume::default() });
            if self.by_hour.len() > HOURS {
                self.by_hour.pop_front();
            }
        }
        if let Some(latest) = self.by_hour.back_mut() {
            add(&mut latest.total, record);
        }
    }

    /// The transactions of every type.
    pub(super) fn by_type(&self) -> BTreeMap<TypeName, Volume> {
        let all = TransactionType::ALL.into_iter().map(|kind| (kind, self.by_type[type_index(kind)]));
        // What moves no money is listed where there is any.
        let listed = all.filter(|(kind, volume)| kind.has_amount() || volume.count > 0);
        listed.map(|(kind, volume)| (kind.into(), volume)).collect()
    }

    /// The transactions of the latest hours that had any, oldest first.
    pub(super) fn by_hour(&self) -> Vec<HourVolume> {
        self.by_hour.iter().cloned().collect()
    }

    /// Where the next transaction of at least `amount` may be, searching from `id` down: a lower id, or `id` itself. `None`
    /// if there is none below.
    pub(super) fn next_large(&self, amount: u64, id: u64) -> Option<u64> {
        let entry = id.checked_sub(1)? / LARGEST_OF;
        let up_to = self.largest.partition_point(|largest| largest.entry <= entry);
        let found = self.largest.range(..up_to).rev().find(|largest| largest.amount >= amount)?;
        Some(id.min((found.entry + 1) * LARGEST_OF))
    }

    /// What a snapshot has of it.
    pub(super) fn to_row(&self) -> TotalsRow {
        TotalsRow {
            all: self.all,
            by_type: self.by_type.to_vec(),
            by_hour: self.by_hour.iter().cloned().collect(),
            forgotten: 0,
            largest: self.largest.iter().map(|largest| largest.amount).collect(),
            entries: self.largest.iter().map(|largest| largest.entry).collect(),
        }
    }

    /// The figures of a snapshot.
    pub(super) fn from_row(row: TotalsRow) -> Result<Totals, BadRow> {
        let TotalsRow { all, by_type: known, by_hour, forgotten, largest, mut entries } = row;
        if entries.is_empty() {
            entries = (forgotten..=u64::MAX).take(largest.len()).collect();
        }
        if entries.len() != largest.len() || !entries.is_sorted_by(|one, next| one < next) {
            return Err(BadRow::new("the index of large transactions is in another order".into()));
        }
        let largest = entries.into_iter().zip(largest).map(|(entry, amount)| Largest { entry, amount }).collect();
        let by_type = std::array::from_fn(|place| known.get(place).copied().unwrap_or_default());
        Ok(Totals { all, by_type, by_hour: by_hour.into(), largest })
    }
}

fn add(volume: &mut Volume, record: &Record) {
    volume.count += 1;
    volume.volume = volume.volume.saturating_add(record.amount).min(MAX_BALANCE);
}
