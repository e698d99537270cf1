//! What the books should say after a run, kept from the answers; what is measured of them; and the comparison at the end.
//!
//! Money only moves between the run's accounts, so whatever was refused, or is unknown, their sum must be what was paid in;
//! and where nothing is unknown, every balance must be what the answers say.

use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rabia_bank_messages::bank::{AccountId, Amount, Bulk, Command, MAX_PAGE, Operation, Query, ReadLevel, Success};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Trouble;
use crate::client::{Answered, Client, Unanswered};

/// What each account begins with, in minor units: below any sensible limit per transaction, and more than a run moves
/// out of most accounts.
const FIRST_BALANCE: u64 = 1_000_000;
/// Transfers move 1 to this many minor units.
pub(super) const LARGEST_TRANSFER: u64 = 100;
/// Accounts opened with one request.
const ACCOUNTS_AT_ONCE: usize = 1_000;
/// The most accounts of a run: their balances are held in memory, and read back at the end.
pub(super) const MAX_ACCOUNTS: u64 = 10_000_000;
/// What was done is counted in steps of this length, so that a dip and the time to come out of it can be seen.
const TIMELINE_STEP: Duration = Duration::from_millis(100);
/// The longest latency that the histogram tells apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// A transfer between two accounts, by their places in the run's list.
#[derive(Clone, Copy)]
pub(super) struct Transfer {
    pub from: usize,
    pub to: usize,
    pub amount: u64,
}

/// What the books should say.
pub(super) struct Books {
    /// Of every account, in its order. Below 0 for a moment where answers overtake each other.
    balances: Vec<i64>,
    /// Requests whose outcome is unknown, over the whole run.
    unknown_requests: u64,
    /// There from the end of the warm-up to the end of the run.
    pub measure: Option<Measure>,
    /// All applied transfers and answered reads, for the progress line.
    pub done: u64,
}

/// What the clients of one load have measured.
pub(super) struct Measure {
    /// Of requests with an applied transfer.
    pub latency_us: Histogram<u64>,
    /// Latency of reads, in µs.
    pub read_latency_us: Histogram<u64>,
    pub acknowledged: u64,
    pub reads: u64,
    pub refused: u64,
    pub unknown: u64,
    pub not_reached: u64,
    /// Applied transfers and answered reads in each [`TIMELINE_STEP`].
    pub timeline: Vec<u64>,
    began: Instant,
    last_acknowledged: Instant,
    /// The longest time between two acknowledgements, over all clients.
    pub longest_gap: Duration,
}

impl Measure {
    pub(super) fn new(now: Instant) -> Result<Measure, Trouble> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(|e| Trouble(e.to_string()));
        Ok(Measure {
            latency_us: histogram()?,
            read_latency_us: histogram()?,
            acknowledged: 0,
            reads: 0,
            refused: 0,
            unknown: 0,
            not_reached: 0,
            timeline: Vec::new(),
            began: now,
            last_acknowledged: now,
            longest_gap: Duration::ZERO,
        })
    }

    pub(super) fn note_acknowledgement(&mut self, now: Instant) {
        self.longest_gap = self.longest_gap.max(now.saturating_duration_since(self.last_acknowledged));
        self.last_acknowledged = now;
    }

    fn note_done(&mut self, now: Instant, count: u64) {
        let step = now.saturating_duration_since(self.began).as_millis() / TIMELINE_STEP.as_millis();
        // A run is shorter than 2^32 steps by far.
        let step = step as usize;
        if self.timeline.len() <= step {
            self.timeline.resize(step + 1, 0);
        }
        self.timeline[step] += count;
    }
}

impl Books {
    /// Of so many new accounts.
    pub(super) fn new(accounts: usize) -> Books {
        Books { balances: vec![FIRST_BALANCE as i64; accounts], unknown_requests: 0, measure: None, done: 0 }
    }

    fn apply(&mut self, transfer: Transfer) {
        // An amount is at most LARGEST_TRANSFER.
        let amount = transfer.amount as i64;
        self.balances[transfer.from] -= amount;
        self.balances[transfer.to] += amount;
    }

    /// Books the outcome of a request that should have begun at `begun`: of a read if there are no transfers.
    pub(super) fn book(&mut self, transfers: &[Transfer], begun: Instant, outcome: &Result<Answered, Unanswered>) {
        let (mut applied, mut refused, mut unknown, mut not_reached) = (0, 0, 0, 0);
        let is_read = transfers.is_empty();
        let count = transfers.len().max(1) as u64;
        match outcome {
            Ok(answered) if answered.refusal.is_some() => refused = count,
            Ok(_) if is_read => applied = count,
            Ok(answered) => match applied_items(answered, transfers.len()) {
                Some(items) => {
                    for (&transfer, _) in transfers.iter().zip(&items).filter(|(_, applied)| **applied) {
                        self.apply(transfer);
                        applied += 1;
                    }
                    refused = count - applied;
                }
                None => unknown = count,
            },
            Err(Unanswered::Unknown(why)) => {
                tracing::debug!("{why}");
                unknown = count;
            }
            Err(Unanswered::NotReached(_)) => not_reached = count,
        }
        self.done += applied;
        self.unknown_requests += u64::from(unknown > 0 && !is_read);
        let Some(measure) = &mut self.measure else { return };
        measure.refused += refused;
        measure.unknown += unknown;
        measure.not_reached += not_reached;
        if applied > 0 {
            let now = Instant::now();
            measure.note_acknowledgement(now);
            measure.note_done(now, applied);
            let us = now.saturating_duration_since(begun).as_micros() as u64;
            if is_read {
                measure.reads += applied;
                measure.read_latency_us.saturating_record(us);
            } else {
                measure.acknowledged += applied;
                measure.latency_us.saturating_record(us);
            }
        }
    }

    /// What is wrong with the balances, if anything.
    pub(super) fn differences(&self, balances: &[i64]) -> Vec<String> {
        let mut found = Vec::new();
        let (sum, paid_in) = (balances.iter().sum::<i64>(), self.balances.len() as i64 * FIRST_BALANCE as i64);
        if balances.len() != self.balances.len() {
            found.push(format!("{} accounts were opened, {} are there", self.balances.len(), balances.len()));
        }
        if sum != paid_in {
            found.push(format!("{paid_in} were paid in, {sum} are there"));
        }
        if self.unknown_requests == 0 {
            let wrong = balances.iter().zip(&self.balances).filter(|(there, expected)| there != expected);
            match wrong.count() {
                0 => {}
                count => found.push(format!("{count} balances are not what the answers add up to")),
            }
        }
        found
    }
}

/// Which of the request's transfers were applied; `None` if the answer can't be read.
fn applied_items(answered: &Answered, count: usize) -> Option<Vec<bool>> {
    #[derive(Deserialize)]
    struct Outcomes {
        #[serde(default)]
        results: Option<Items>,
    }
    let items = match answered.ok::<Outcomes>().ok()?.results {
        Some(Items(items)) => items,
        None => vec![true],
    };
    (items.len() == count).then_some(items)
}

/// The results of a bulk, without what is in them: thousands of transactions would be decoded for nothing.
struct Items(Vec<bool>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Items, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Item {
            Ok(IgnoredAny),
            Error(IgnoredAny),
        }
        struct Sequence;
        impl<'de> Visitor<'de> for Sequence {
            type Value = Items;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the results of a bulk")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Items, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = sequence.next_element()? {
                    items.push(match item {
                        Item::Ok(IgnoredAny) => true,
                        Item::Error(IgnoredAny) => false,
                    });
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Sequence)
    }
}

/// Opens all accounts of a run.
pub(super) async fn open_accounts(client: &Client, names: &[AccountId]) -> Result<(), Trouble> {
    let initial_balance = Amount::new(FIRST_BALANCE);
    for names in names.chunks(ACCOUNTS_AT_ONCE) {
        let create = |name: &AccountId| Operation::create_account(name.clone(), initial_balance);
        let commands = names.iter().map(create).collect();
        let opened = client.command(Command::Bulk(Bulk { commands, atomic: true })).await;
        opened.map_err(|e| Trouble(format!("the accounts were not opened: {e}")))?;
    }
    Ok(())
}

/// The balances of all accounts whose names begin with `prefix`, in the order of their names.
pub(super) async fn read_balances(client: &Client, prefix: &str) -> Result<Vec<i64>, Trouble> {
    let mut balances = Vec::new();
    let mut after = Some(AccountId::from(prefix));
    while let Some(last) = after {
        let page = Query::ListAccounts { after: Some(last), limit: Some(MAX_PAGE), code: None };
        let page = client.query(page, ReadLevel::Linearizable).await;
        let Success::Accounts { accounts, next } =
            page.map_err(|e| Trouble(format!("the accounts can't be read back: {e}")))?.success
        else {
            return Err(Trouble("the node answered something else to a question for its accounts".into()));
        };
        after = next.filter(|_| accounts.iter().all(|account| account.account_id.starts_with(prefix)));
        balances.extend(accounts.into_iter().filter(|a| a.account_id.starts_with(prefix)).map(|a| a.balance));
    }
    Ok(balances)
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::codec::Encoding;
    use rabia_bank_messages::msgpack;

    use super::*;

    #[test]
    fn lost_and_misplaced_money_is_found() {
        let mut books = Books::new(2);
        books.apply(Transfer { from: 1, to: 0, amount: 1 });
        assert!(books.differences(&[1_000_001, 999_999]).is_empty());
        assert_eq!(books.differences(&[1_000_001, 999_998]).len(), 2);
        assert_eq!(books.differences(&[1_000_000, 1_000_000]).len(), 1);
        assert_eq!(books.differences(&[2_000_000]).len(), 2);
        books.unknown_requests = 1;
        assert!(books.differences(&[1_000_000, 1_000_000]).is_empty());
        assert_eq!(books.differences(&[1_000_000, 999_999]).len(), 1);
    }

    #[test]
    fn the_results_of_a_bulk_are_counted_without_what_is_in_them() {
        let text = r#"{"results": [{"ok": {"transaction": {"amount": 1}}}, {"error": {"code": "same_account"}}]}"#;
        #[derive(Deserialize)]
        struct Outcomes {
            results: Items,
        }
        assert_eq!(serde_json::from_str::<Outcomes>(text).unwrap().results.0, [true, false]);
        let bytes = Encoding::MessagePack.encode(&serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(msgpack::decode::<Outcomes>(&bytes).unwrap().results.0, [true, false]);
    }
}
