//! Snapshots between the ledger and the store: what the rows of the books mean, and how a ledger is made of them.
//!
//! Storage keeps rows and knows nothing of what is in them; the ledger makes rows and knows no disk. The row of the state
//! holds what the ledger says of itself, and the decisions that the owners of coming slots are read from.

use rabia_bank_messages::ids::{BatchId, Digest, Millis, Slot};
use rabia_bank_messages::msgpack;
use rabia_bank_storage::{BooksReader, BooksView, StoreError};
use serde::{Deserialize, Serialize};

use crate::ledger::machine::{Block, StateMachine};
use crate::ledger::replicated::Replicated;
use crate::ledger::snapshot::Loading;
use crate::ledger::{BadRow, Bank, Changes};

/// Bytes of rows that are read at a time.
const READ_BYTES: usize = 4 << 20;

/// A ledger that was made of the books, and the last decisions in it.
pub type Restored<S> = (Replicated<S>, Vec<Decision>);

/// A slot and the batch that it was decided on; none if it was forfeited.
pub type Decision = (Slot, Option<BatchId>);

/// What changed since the last snapshot.
#[derive(Debug)]
pub struct Snapshot {
    /// The rows of the ledger.
    pub changes: Changes,
    /// The last decisions, up to the slot that the rows stand after.
    pub decisions: Vec<Decision>,
    /// The hash of the log up to that slot.
    pub log_hash: Digest,
}

/// The row of the state.
#[derive(Serialize, Deserialize)]
struct State {
    #[serde(with = "serde_bytes")]
    ledger: Vec<u8>,
    decisions: Vec<Decision>,
    /// Of the log up to the slot that the rows stand after. Not in backups of 0.1.0; a new cluster begins with zero.
    #[serde(default = "no_log")]
    log_hash: Digest,
}

fn no_log() -> Digest {
    Digest::ZERO
}

/// Books that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The rows are not those of a ledger.
    #[error("the books are damaged: {0}. Replace the store of this node (`rabia-bank replace`), or restore a backup")]
    Bad(#[from] BadRow),
}

impl Snapshot {
    /// The rows, for the store.
    pub fn into_rows(self) -> rabia_bank_storage::Snapshot {
        let Snapshot { changes, decisions, log_hash } = self;
        let Changes { slot, state, accounts, sessions, new_sessions, blocks, .. } = changes;
        let state = msgpack::encode(&State { ledger: state, decisions, log_hash });
        rabia_bank_storage::Snapshot { slot, state, accounts, sessions, new_sessions, blocks }
    }
}

/// Reads a block of the history and verifies its chain.
///
/// # Errors
/// If it is missing or damaged.
pub fn read_block<B: Block>(books: &BooksReader, number: u64) -> Result<B, BooksError> {
    Ok(B::decode(number, &books.block(number)?)?)
}

/// How many blocks of the last snapshot are full, and the hash that they lead to.
///
/// # Errors
/// If the books can't be read, or are damaged.
pub fn full_blocks<S: StateMachine>(books: &BooksView) -> Result<(u64, Digest), BooksError> {
    let Some(state) = books.state()? else { return Ok((0, Digest::ZERO)) };
    let mut restoring = Restoring::<S>::new(&state)?;
    let loading = restoring.loading();
    let history = loading.history();
    let head = match loading.last_block() {
        Some(number) => S::Block::decode(number, &books.block(number)?)?.before(),
        None => history.head,
    };
    Ok((history.entries / S::Block::ENTRIES, head))
}

/// A ledger that is being made of the rows of a snapshot.
pub struct Restoring<S: StateMachine = Bank> {
    loading: Loading<S>,
    decisions: Vec<Decision>,
    log_hash: Digest,
}

impl<S: StateMachine> Restoring<S> {
    /// Begins with the row of the state.
    ///
    /// # Errors
    /// If it is none of this version.
    pub fn new(state: &[u8]) -> Result<Restoring<S>, BadRow> {
        Restoring::with(state, Loading::new)
    }

    /// The same with the row of a backup, which may be older: see [`Loading::of_backup`].
    ///
    /// # Errors
    /// If it is of a version that this program does not know, or damaged.
    pub fn of_backup(state: &[u8]) -> Result<Restoring<S>, BadRow> {
        Restoring::with(state, Loading::of_backup)
    }

    fn with(state: &[u8], load: impl FnOnce(&[u8]) -> Result<Loading<S>, BadRow>) -> Result<Restoring<S>, BadRow> {
        let State { ledger, decisions, log_hash } =
            msgpack::decode(state).map_err(|error| BadRow::new(format!("the row of the state: {error}")))?;
        Ok(Restoring { loading: load(&ledger)?, decisions, log_hash })
    }

    /// The row of the state for a new cluster: see [`Loading::into_new_cluster`].
    ///
    /// # Errors
    /// If the rows do not belong together.
    pub fn into_new_cluster(self, last_block: Option<&S::Block>, now: Millis) -> Result<Vec<u8>, BadRow> {
        let ledger = self.loading.into_new_cluster(last_block, now)?;
        Ok(msgpack::encode(&State { ledger, decisions: Vec::new(), log_hash: Digest::ZERO }))
    }

    /// How many entries there are in the history: transactions, of the bank.
    pub fn transactions(&self) -> u64 {
        self.loading.history().entries
    }

    /// The hash of the log up to the slot that the rows stand after.
    pub fn log_hash(&self) -> Digest {
        self.log_hash
    }

    /// What is still to be added.
    pub fn loading(&mut self) -> &mut Loading<S> {
        &mut self.loading
    }

    /// The ledger, and the last decisions in it. `full` blocks lead to the hash `head`.
    ///
    /// # Errors
    /// If it does not have the digest that the state says, or the history is not that of the state.
    pub fn finish(self, last_block: Option<&S::Block>, full: u64, head: Digest) -> Result<Restored<S>, BadRow> {
        let transactions = self.loading.history().entries;
        let ledger = self.loading.finish(last_block)?;
        let before = last_block.map_or(ledger.history().head, S::Block::before);
        if full != transactions / S::Block::ENTRIES || head != before {
            return Err(BadRow::new(format!("{full} full blocks lead to {head}, the state goes on from {before}")));
        }
        Ok((ledger, self.decisions))
    }
}

/// The hash of the log up to the slot of the books.
///
/// # Errors
/// If they can't be read, or are damaged.
pub fn log_hash_of<S: StateMachine>(books: &BooksView) -> Result<Digest, BooksError> {
    let state = books.state()?.map(|state| Restoring::<S>::new(&state)).transpose()?;
    Ok(state.map_or(Digest::ZERO, |state| state.log_hash))
}

/// Makes a ledger of the books; `None` if they are still empty.
///
/// # Errors
/// If they can't be read, or are damaged.
pub fn restore<S: StateMachine>(books: &BooksView) -> Result<Option<Restored<S>>, BooksError> {
    let Some(state) = books.state()? else { return Ok(None) };
    let mut restoring = Restoring::<S>::new(&state)?;
    let mut from = 0;
    loop {
        let pages = books.accounts(from, READ_BYTES)?;
        let Some((last, _)) = pages.last() else { break };
        from = last + 1;
        for (page, row) in &pages {
            restoring.loading.accounts(*page, row)?;
        }
    }
    let mut from = 0;
    loop {
        let sessions = books.sessions(from, READ_BYTES)?;
        let Some((last, _)) = sessions.last() else { break };
        from = last + 1;
        for (number, row) in &sessions {
            restoring.loading.session(*number, row)?;
        }
    }
    let last = match restoring.loading.last_block() {
        Some(number) => Some(S::Block::decode(number, &books.block(number)?)?),
        None => None,
    };
    let (ledger, decisions) = (restoring.loading.finish(last.as_ref())?, restoring.decisions);
    if ledger.applied() != books.slot() {
        let (found, slot) = (ledger.applied(), books.slot());
        return Err(BadRow::new(format!("the state is that after slot {found}, the books stand at {slot}")).into());
    }
    Ok(Some((ledger, decisions)))
}
