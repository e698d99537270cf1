//! Snapshots: the ledger in rows. What changed since the last one is collected while the bank goes on; all rows together
//! make the ledger again.
//!
//! The row of the state carries the digest, so a ledger that was made of rows is compared with the one that they were
//! taken from: a row that is wrong, missing or too many is found.

use rabia_bank_messages::genesis::{Replacement, Replacements, SessionLimits};
use rabia_bank_messages::ids::{BatchId, Digest, Millis, Slot};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use serde::{Deserialize, Serialize};

use super::Ledger;
use super::accounts::Accounts;
use super::batches::AppliedBatches;
use super::block::{BLOCK, Block, block_of};
use super::books::Books;
use super::history::{History, HistoryRow};
use super::rows::{self, BadRow};
use super::sessions::Sessions;
use super::statistics::{Totals, TotalsRow};
use super::taking::Taking;
use super::unusable::UnusableBatches;

/// The version of all rows. It stands in the row of the state, and a ledger of another version is not read.
const VERSION: u32 = 2;
/// The version of program 0.1.0. Its state, accounts and history read alike, so that its backups can be restored.
const VERSION_0_1_0: u32 = 1;

/// Pages of accounts that take as long as a block of the history.
const PAGES: usize = 32;
/// Rows of sessions, likewise.
const ROWS: usize = 1_024;

/// What the ledger keeps beside accounts, sessions and history.
#[derive(Debug, Serialize, Deserialize)]
struct StateRow {
    version: u32,
    transaction_limit: u64,
    session_limits: SessionLimits,
    applied: Slot,
    time: Millis,
    requests: u64,
    decided_slots: u64,
    null_slots: u64,
    repeated_batches: u64,
    total_balance: u64,
    accounts: u64,
    sessions: u64,
    history: HistoryRow,
    totals: TotalsRow,
    /// By origin, in the order of application: incarnation and sequence.
    batches: Vec<Vec<(u64, u64)>>,
    /// Of the state after `applied`.
    digest: Digest,
    #[serde(default)]
    replacements: Vec<Replacement>,
    /// How many sessions have ended.
    #[serde(default)]
    ended_sessions: u64,
    /// How many batches could not be applied …
    #[serde(default)]
    unusable_batches: u64,
    /// … and in which slots the newest of them were decided.
    #[serde(default)]
    newest_unusable: Vec<(Slot, BatchId)>,
}

/// What changed between two snapshots, in rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The slot that the rows stand after.
    pub slot: Slot,
    /// The newest transaction in `blocks`.
    pub transactions: u64,
    /// The state, beside what follows.
    pub state: Vec<u8>,
    /// Pages of accounts, by number.
    pub accounts: Vec<(u32, Vec<u8>)>,
    /// Sessions, their replies, and those that ended, by key; none for what went.
    pub sessions: Vec<(u64, Option<Vec<u8>>)>,
    /// Blocks of the history, by number. The last one may be partly filled.
    pub blocks: Vec<(u64, Vec<u8>)>,
}

impl Ledger {
    /// Begins a snapshot of the state as it is now. Answers how many steps of [`collect`](Ledger::collect) complete it.
    ///
    /// # Panics
    /// If one is being taken.
    pub fn freeze(&mut self) -> usize {
        assert!(self.taking.is_none(), "a snapshot is being taken already");
        let state = rows::encode(&self.state_row());
        let pages = self.books.accounts.freeze();
        let end = self.books.history.len();
        let next_block = self.saved_transactions / BLOCK;
        let unsaved_sessions = self.sessions.save();
        let blocks = (end - next_block * BLOCK).div_ceil(BLOCK) as usize;
        let steps = blocks + pages.div_ceil(PAGES) + unsaved_sessions.len().div_ceil(ROWS);
        self.taking = Some(Taking {
            slot: self.applied,
            end,
            state,
            unsaved_sessions,
            sessions: Vec::new(),
            next_block,
            blocks: Vec::new(),
        });
        steps
    }

    /// Goes on with the snapshot: `steps` blocks of the history, or as many times 32 pages of accounts or 1,024 rows of sessions,
    /// which takes about half a millisecond a step where accounts are many. Answers it when it is complete.
    ///
    /// # Panics
    /// If none is being taken.
    pub fn collect(&mut self, steps: usize) -> Option<Changes> {
        let Some(taking) = &mut self.taking else { panic!("no snapshot is being taken") };
        for _ in 0..steps {
            if taking.next_block * BLOCK >= taking.end {
                break;
            }
            let block = self.books.history.block(taking.next_block, taking.end, &self.books.accounts);
            taking.blocks.push((taking.next_block, block.encode()));
            taking.next_block += 1;
        }
        if taking.next_block * BLOCK < taking.end {
            return None;
        }
        if taking.unsaved_sessions.encode(ROWS * steps, &mut taking.sessions) {
            return None;
        }
        let accounts = self.books.accounts.collect(PAGES * steps)?;
        let Taking { slot, end, state, sessions, blocks, .. } = self.taking.take()?;
        self.saved_transactions = end;
        Some(Changes { slot, transactions: end, state, accounts, sessions, blocks })
    }

    /// The snapshots with the transactions up to this one are durable: but for the newest ones they leave memory.
    pub fn forget(&mut self, transactions: u64) {
        self.books.history.forget(transactions);
    }

    fn state_row(&mut self) -> StateRow {
        StateRow {
            version: VERSION,
            transaction_limit: self.books.transaction_limit,
            session_limits: self.sessions.limits(),
            digest: self.digest(),
            applied: self.applied,
            time: self.time,
            requests: self.requests,
            decided_slots: self.decided_slots,
            null_slots: self.null_slots,
            repeated_batches: self.repeated_batches,
            total_balance: self.books.total_balance,
            accounts: self.books.accounts.len() as u64,
            sessions: self.sessions.len() as u64,
            history: self.books.history.to_row(),
            totals: self.books.totals.to_row(),
            batches: self.batches.to_row(),
            replacements: self.replacements.list().to_vec(),
            ended_sessions: self.sessions.ended(),
            unusable_batches: self.unusable.count(),
            newest_unusable: self.unusable.newest().collect(),
        }
    }
}

/// A ledger that is being made of rows.
#[derive(Debug)]
pub struct Loading {
    state: StateRow,
    accounts: Accounts,
    sessions: Sessions,
}

impl Loading {
    /// Begins with the row of the state.
    ///
    /// # Errors
    /// If it is not what [`Ledger::collect`] gives, of this version.
    pub fn new(state: &[u8]) -> Result<Loading, BadRow> {
        Loading::of_versions(state, &[VERSION])
    }

    /// The same with the row of a backup, which may be older.
    ///
    /// # Errors
    /// If it is of a version that this program does not know, or damaged.
    pub fn of_backup(state: &[u8]) -> Result<Loading, BadRow> {
        Loading::of_versions(state, &[VERSION, VERSION_0_1_0])
    }

    fn of_versions(state: &[u8], known: &[u32]) -> Result<Loading, BadRow> {
        let state: StateRow = rows::decode(|| "the row of the state".into(), state)?;
        if !known.contains(&state.version) {
            let found = state.version;
            return Err(BadRow(format!(
                "the books are of version {found}, this program knows {VERSION}: restore a backup of them"
            )));
        }
        let sessions = Sessions::new(state.session_limits);
        Ok(Loading { state, accounts: Accounts::default(), sessions })
    }

    /// Adds the next page of accounts. They come in order.
    ///
    /// # Errors
    /// If it is not the next page.
    pub fn accounts(&mut self, page: u32, row: &[u8]) -> Result<(), BadRow> {
        self.accounts.load(page, row)
    }

    /// Adds a row of the sessions. They come in order.
    ///
    /// # Errors
    /// If it is none, or does not belong to those before it.
    pub fn session(&mut self, key: u64, row: &[u8]) -> Result<(), BadRow> {
        self.sessions.load(key, row)
    }

    /// Ends all sessions, and answers the rows with the keys of all that ended: in a cluster that goes on from here nobody
    /// speaks in them, and none of the keys opens another.
    pub fn end_sessions(&mut self) -> Vec<(u64, Vec<u8>)> {
        self.sessions.end_all();
        self.sessions.ended_rows()
    }

    /// The last block of the history, if that is partly filled: [`finish`](Loading::finish) needs it.
    pub fn last_block(&self) -> Option<u64> {
        let transactions = self.state.history.transactions;
        (!transactions.is_multiple_of(BLOCK)).then(|| block_of(transactions))
    }

    /// How many transactions there are.
    pub fn transactions(&self) -> u64 {
        self.state.history.transactions
    }

    /// The slot that the state stands after.
    pub fn slot(&self) -> Slot {
        self.state.applied
    }

    /// The largest amount of one transaction, in minor units.
    pub fn transaction_limit(&self) -> u64 {
        self.state.transaction_limit
    }

    /// When sessions expire.
    pub fn session_limits(&self) -> SessionLimits {
        self.state.session_limits
    }

    /// Log time, in milliseconds since the Unix epoch.
    pub fn log_time(&self) -> Millis {
        self.state.time
    }

    /// The timestamp of the newest transaction, likewise; 0 if there is none.
    pub fn newest_timestamp(&self) -> Millis {
        self.state.history.time
    }

    /// The hash of the newest transaction.
    pub fn chain_head(&self) -> Digest {
        self.state.history.head
    }

    /// The ledger.
    ///
    /// # Errors
    /// If it does not have the digest of the one that the rows were taken from.
    pub fn finish(self, last_block: Option<&Block>) -> Result<Ledger, BadRow> {
        let (expected, slot) = (self.state.digest, self.state.applied);
        let mut ledger = self.build(last_block)?;
        let digest = ledger.digest();
        if digest != expected && !is_broken(Rule::LoadedDigest) {
            return Err(BadRow(format!("the state after slot {slot} has the digest {digest}, not {expected}")));
        }
        Ok(ledger)
    }

    /// The row of the state for a cluster that goes on from these accounts and this history, without the open sessions, and
    /// with nodes that number their batches anew and have first stores of their own. Log time is `now` there if it was later.
    ///
    /// # Errors
    /// If open sessions were added, or the rows do not belong together, as far as can be seen without the digest.
    pub fn into_new_cluster(mut self, last_block: Option<&Block>, now: Millis) -> Result<Vec<u8>, BadRow> {
        self.state.time = self.state.time.min(now);
        self.state.sessions = 0;
        self.state.ended_sessions = self.sessions.ended();
        self.state.batches.clear();
        self.state.replacements.clear();
        let mut ledger = self.build(last_block)?;
        Ok(rows::encode(&ledger.state_row()))
    }

    fn build(self, last_block: Option<&Block>) -> Result<Ledger, BadRow> {
        let (found, expected) = (last_block.map(Block::number), self.last_block());
        if found != expected {
            return Err(BadRow(format!("the history goes on from block {expected:?}, not from {found:?}")));
        }
        let Loading { state, mut accounts, sessions } = self;
        accounts.loaded()?;
        let found = [accounts.len() as u64, sessions.len() as u64, sessions.ended()];
        let expected = [state.accounts, state.sessions, state.ended_sessions];
        if found != expected {
            let what = "accounts, open sessions and sessions that ended";
            return Err(BadRow(format!("{what} are {found:?}, where {expected:?} should be")));
        }
        if !sessions.speak_of(accounts.len(), state.history.transactions) {
            return Err(BadRow("a reply is about an account or a transaction that is not there".into()));
        }
        let history = History::from_row(&state.history, last_block, &accounts)?;
        let totals = Totals::from_row(state.totals);
        let books = Books::restored(state.transaction_limit, accounts, history, totals, state.total_balance);
        let batches = AppliedBatches::from_row(state.batches)
            .ok_or_else(|| BadRow("the batches remembered are not what a ledger remembers".into()))?;
        let mut replacements = Replacements::default();
        if !state.replacements.into_iter().all(|replacement| replacements.add(replacement)) {
            return Err(BadRow("a store took the place of others twice".into()));
        }
        let unusable = UnusableBatches::from_row(state.unusable_batches, state.newest_unusable)
            .ok_or_else(|| BadRow("the batches that could not be applied are not in their order".into()))?;
        let ledger = Ledger {
            books,
            sessions,
            batches,
            replacements,
            unusable,
            applied: state.applied,
            time: state.time,
            requests: state.requests,
            decided_slots: state.decided_slots,
            null_slots: state.null_slots,
            repeated_batches: state.repeated_batches,
            saved_transactions: state.history.transactions,
            taking: None,
        };
        let sum: u128 = ledger.books.accounts.iter().map(|account| u128::from(account.balance)).sum();
        if sum != u128::from(state.total_balance) {
            return Err(BadRow(format!("the balances add up to {sum}, not {}", state.total_balance)));
        }
        Ok(ledger)
    }
}
