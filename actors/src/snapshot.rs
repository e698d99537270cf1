//! Snapshots between the ledger and the store: what the rows of the books mean, and how a ledger is made of them.
//!
//! Storage keeps rows and knows nothing of what is in them; the ledger makes rows and knows no disk. The row of the state
//! holds what the ledger says of itself, and the decisions that the owners of coming slots are read from.

use std::fmt;

use rabia_bank_messages::ids::{BatchId, Digest, Millis, Slot};
use rabia_bank_messages::level::{self, TooNew};
use rabia_bank_messages::msgpack::{self, BadValue};
use rabia_bank_storage::{BooksReader, BooksView, StoreError};
use serde::de::{self, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

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

/// The row of the state: an array of these fields.
#[derive(Serialize, Deserialize)]
struct State {
    /// Comes first in every version: whoever does not know the level reads no further.
    level: u32,
    #[serde(with = "serde_bytes")]
    ledger: Vec<u8>,
    decisions: Vec<Decision>,
    /// Of the log up to the slot that the rows stand after; a new cluster begins with zero.
    log_hash: Digest,
}

/// The same in backups of 0.1.0.
#[derive(Deserialize)]
struct State010 {
    #[serde(with = "serde_bytes")]
    ledger: Vec<u8>,
    decisions: Vec<Decision>,
}

/// The level that a row of the state begins with, whatever follows; none in those of 0.1.0.
struct FirstOf(Option<u32>);

impl<'de> Deserialize<'de> for FirstOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FirstOf, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = FirstOf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the fields of a state")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<FirstOf, A::Error> {
                let first = fields.next_element::<First>()?;
                while fields.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstOf(first.and_then(|First(level)| level)))
            }
        }
        deserializer.deserialize_seq(Fields)
    }
}

/// A number, or bytes.
struct First(Option<u32>);

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<First, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a level, or the row of a ledger")
            }

            fn visit_u64<E: de::Error>(self, level: u64) -> Result<First, E> {
                Ok(First(Some(u32::try_from(level).unwrap_or(u32::MAX))))
            }

            fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<First, E> {
                Ok(First(None))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl State {
    fn read(row: &[u8]) -> Result<State, BadRow> {
        let bad = |error: BadValue| BadRow::new(format!("the row of the state: {error}"));
        let FirstOf(level) = msgpack::decode(row).map_err(bad)?;
        match level {
            Some(level) => {
                level::check(level)?;
                msgpack::decode(row).map_err(bad)
            }
            None => {
                let State010 { ledger, decisions } = msgpack::decode(row).map_err(bad)?;
                Ok(State { level: 1, ledger, decisions, log_hash: Digest::ZERO })
            }
        }
    }
}

/// Books that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The rows are not those of a ledger.
    #[error("the books are damaged: {0}. Replace the store of this node (`rabia-bank replace`), or restore a backup")]
    Bad(String),
    /// They are of a level that this program does not know.
    #[error(transparent)]
    TooNew(TooNew),
}

impl From<BadRow> for BooksError {
    fn from(bad: BadRow) -> BooksError {
        match bad {
            BadRow::Damaged(why) => BooksError::Bad(why),
            BadRow::TooNew(too_new) => BooksError::TooNew(too_new),
        }
    }
}

impl Snapshot {
    /// The rows, for the store.
    pub fn into_rows(self) -> rabia_bank_storage::Snapshot {
        let Snapshot { changes, decisions, log_hash } = self;
        let Changes { slot, level, state, accounts, sessions, new_sessions, blocks, .. } = changes;
        let state = msgpack::encode(&State { level, ledger: state, decisions, log_hash });
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
    /// If it is none of this version, or of a level that this program does not know.
    pub fn new(state: &[u8]) -> Result<Restoring<S>, BadRow> {
        Restoring::with(state, Loading::new)
    }

    /// The same with the row of a backup, which may be older: see [`Loading::of_backup`].
    ///
    /// # Errors
    /// If it is of a version or level that this program does not know, or damaged.
    pub fn of_backup(state: &[u8]) -> Result<Restoring<S>, BadRow> {
        Restoring::with(state, Loading::of_backup)
    }

    fn with(state: &[u8], load: impl FnOnce(&[u8]) -> Result<Loading<S>, BadRow>) -> Result<Restoring<S>, BadRow> {
        let State { level, ledger, decisions, log_hash } = State::read(state)?;
        let loading = load(&ledger)?;
        if loading.level() != level {
            return Err(BadRow::new(format!("the state of level {} begins as one of level {level}", loading.level())));
        }
        Ok(Restoring { loading, decisions, log_hash })
    }

    /// The row of the state for a new cluster: see [`Loading::into_new_cluster`].
    ///
    /// # Errors
    /// If the rows do not belong together.
    pub fn into_new_cluster(self, last_block: Option<&S::Block>, now: Millis) -> Result<Vec<u8>, BadRow> {
        let level = self.loading.level();
        let ledger = self.loading.into_new_cluster(last_block, now)?;
        Ok(msgpack::encode(&State { level, ledger, decisions: Vec::new(), log_hash: Digest::ZERO }))
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
        let why = format!("the state is that after slot {found}, the books stand at {slot}");
        return Err(BooksError::Bad(why));
    }
    Ok(Some((ledger, decisions)))
}
