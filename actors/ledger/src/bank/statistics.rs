//! Running figures over the history: by type, by hour, and an index to find large transactions.
//!
//! Kept as transactions are applied, so that asking does not read the history again. They follow from the history, so
//! the state digest covers them by covering the head of its chain.

use std::collections::{BTreeMap, VecDeque};

use rabia_bank_messages::bank::{HourVolume, MAX_BALANCE, TransactionType, TypeName, Volume};
use rabia_bank_messages::ids::Millis;
use serde::{Deserialize, Serialize};

use super::chain::{TYPES, type_index};
use super::history::Record;

/// An hour of log time, in milliseconds.
const HOUR: Millis = 60 * 60 * 1000;
/// How many hours are kept: two days, to compare a day with the one before.
const HOURS: usize = 48;
/// Transactions to one entry of the index of large ones: a search reads the index, and these for every entry that hits.
pub(super) const LARGEST_OF: u64 = 4096;
/// Entries that this index keeps: large transactions are found among the newest 67 million.
const ENTRIES: usize = 1 << 14;

/// Volumes over the whole history, by type and by hour, and the largest amounts.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) all: Volume,
    by_type: [Volume; TYPES],
    /// The latest hours that had any transaction, oldest first.
    by_hour: VecDeque<HourVolume>,
    /// The largest amount of each [`LARGEST_OF`] transactions …
    largest: VecDeque<u64>,
    /// … but for so many of the oldest of them.
    forgotten: u64,
}

/// The figures in the row of the state.
#[derive(Debug, Serialize, Deserialize)]
pub struct TotalsRow {
    all: Volume,
    /// Files of 0.1.0 have one type less.
    by_type: Vec<Volume>,
    by_hour: Vec<HourVolume>,
    forgotten: u64,
    largest: Vec<u64>,
}

impl Totals {
    /// Counts the next transaction of the history.
    pub(super) fn count(&mut self, record: &Record) {
        if self.all.count.is_multiple_of(LARGEST_OF) {
            self.largest.push_back(0);
            if self.largest.len() > ENTRIES {
                self.largest.pop_front();
                self.forgotten += 1;
            }
        }
        if let Some(largest) = self.largest.back_mut() {
            *largest = record.amount.max(*largest);
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
        let listed = all.filter(|(kind, volume)| *kind != TransactionType::Admin || volume.count > 0);
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
        let below = entry.checked_sub(self.forgotten)? as usize;
        if self.largest.get(below).is_some_and(|largest| *largest >= amount) {
            return Some(id);
        }
        let found = (0..below).rev().find(|entry| self.largest[*entry] >= amount)?;
        Some((self.forgotten + found as u64 + 1) * LARGEST_OF)
    }

    /// What a snapshot has of it.
    pub(super) fn to_row(&self) -> TotalsRow {
        let (by_hour, largest) = (self.by_hour.iter().cloned().collect(), self.largest.iter().copied().collect());
        TotalsRow { all: self.all, by_type: self.by_type.to_vec(), by_hour, forgotten: self.forgotten, largest }
    }

    /// The figures of a snapshot.
    pub(super) fn from_row(row: TotalsRow) -> Totals {
        let TotalsRow { all, by_type: known, by_hour, forgotten, largest } = row;
        let by_type = std::array::from_fn(|place| known.get(place).copied().unwrap_or_default());
        Totals { all, by_type, by_hour: by_hour.into(), largest: largest.into(), forgotten }
    }
}

fn add(volume: &mut Volume, record: &Record) {
    volume.count += 1;
    volume.volume = volume.volume.saturating_add(record.amount).min(MAX_BALANCE);
}
