//! Running figures over the history: by type, by hour, and an index to find large transactions.
//!
//! Kept as transactions are applied, so that asking does not read the history again. They follow from the history, so
//! the state digest covers them by covering the head of its chain.

use std::collections::{BTreeMap, VecDeque};

use rabia_bank_messages::bank::{HourVolume, MAX_BALANCE, TransactionType, Volume};
use rabia_bank_messages::ids::Millis;

use super::history::{History, Record, type_index};

/// An hour of log time, in milliseconds.
const HOUR: Millis = 60 * 60 * 1000;
/// How many hours are kept: two days, to compare a day with the one before.
const HOURS: usize = 48;
/// Transactions to one entry of the index of large ones: a search reads the index and a block per hit, and with ten
/// million transactions and ten hits about as much of either.
const BLOCK: u64 = 1024;

/// The figures.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) all: Volume,
    by_type: [Volume; 4],
    /// The latest hours that had any transaction, oldest first.
    by_hour: VecDeque<HourVolume>,
    /// The largest amount of each [`BLOCK`] of transactions.
    largest: Vec<u64>,
}

impl Totals {
    /// Counts the next transaction of the history.
    pub(super) fn count(&mut self, record: &Record) {
        if self.all.count.is_multiple_of(BLOCK) {
            self.largest.push(0);
        }
        if let Some(largest) = self.largest.last_mut() {
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
    pub(super) fn by_type(&self) -> BTreeMap<TransactionType, Volume> {
        TransactionType::ALL.into_iter().map(|kind| (kind, self.by_type[type_index(kind)])).collect()
    }

    /// The transactions of the latest hours that had any, oldest first.
    pub(super) fn by_hour(&self) -> Vec<HourVolume> {
        self.by_hour.iter().cloned().collect()
    }

    /// The ids of the transactions of at least `amount`, newest first.
    pub(super) fn large<'a>(&'a self, amount: u64, history: &'a History) -> impl Iterator<Item = u64> + 'a {
        let blocks = self.largest.iter().enumerate().rev();
        let blocks = blocks.filter(move |(_, largest)| **largest >= amount);
        let blocks = blocks.map(|(block, _)| block as u64 * BLOCK);
        let ids = blocks.flat_map(move |before| (before + 1..=history.len().min(before + BLOCK)).rev());
        ids.filter(move |id| history.get(*id).amount >= amount)
    }
}

fn add(volume: &mut Volume, record: &Record) {
    volume.count += 1;
    volume.volume = volume.volume.saturating_add(record.amount).min(MAX_BALANCE);
}
