//! Why a node does not start, and why one that runs has to stop.

use std::path::PathBuf;

use rabia_bank_messages::genesis::{Replacement, SessionLimits};
use rabia_bank_messages::ids::{Slot, StoreId};
use rabia_bank_messages::level::TooNew;
use rabia_bank_storage::StoreError;

use crate::snapshot::BooksError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The books can't be used.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The books are of a cluster with other constants of the machine: with which ones, and which this one has.
    #[error("the books are of a cluster with {0}")]
    Cluster(String),
    /// The books are of a cluster whose sessions expire otherwise.
    #[error(
        "the books are of a cluster with max_sessions = {} and session_idle_ms = {}, this one's are {} and {}",
        found.open, found.idle_ms, expected.open, expected.idle_ms
    )]
    Sessions {
        /// Those of the books.
        found: SessionLimits,
        /// Those of the configuration.
        expected: SessionLimits,
    },
    /// The cluster is at a level that this program does not know.
    #[error(transparent)]
    TooNew(#[from] TooNew),
    /// The log can't be applied.
    #[error("slot {slot} of the log can't be applied: {why}")]
    Replay {
        /// The first one that can't be applied.
        slot: Slot,
        /// What is wrong with it, for people.
        why: String,
    },
    /// The store was replaced by another.
    #[error(
        "{} is of a store that was replaced: in slot {} node {} got the store {} instead. It has no part in the cluster any \
         more, and may be deleted. Check the paths: was an old file put back?",
        file.display(), by.slot, by.node, by.store
    )]
    Replaced {
        /// The log of the store that was replaced.
        file: PathBuf,
        /// The store that took its place, and the slot that says so.
        by: Replacement,
    },
    /// The key that lies beside the store is of another one.
    #[error(
        "{} is the key of store {found}, but the store beside it is {expected}. Put the right key back; if it is lost, this member \
         needs a new store, which comes with a key: `rabia-bank replace --help`", file.display()
    )]
    OtherKey {
        /// The key.
        file: PathBuf,
        /// The store that it is of.
        found: StoreId,
        /// The store that is there.
        expected: StoreId,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// Why a node had to stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// A file is not what was written: the node stops again at the next start, until its store is replaced.
    Damaged(String),
    /// A person has to change something before it may start again.
    Refused(String),
    /// Anything else: it may be started again.
    Stopped(String),
}

impl std::fmt::Display for Failure {
    /// What happened, and what to do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Failure::Damaged(why) | Failure::Refused(why) | Failure::Stopped(why)) = self;
        f.write_str(why)
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Stopped(why)
    }
}

impl From<TooNew> for Failure {
    fn from(error: TooNew) -> Failure {
        Failure::Refused(error.to_string())
    }
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Failure {
        match error {
            StoreError::Damaged { .. } => Failure::Damaged(error.to_string()),
            _ => Failure::Stopped(error.to_string()),
        }
    }
}

impl From<&BooksError> for Failure {
    fn from(error: &BooksError) -> Failure {
        match error {
            BooksError::Store(error) => error.into(),
            BooksError::Bad(_) => Failure::Damaged(error.to_string()),
            BooksError::TooNew(error) => (*error).into(),
        }
    }
}

/// The node has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;
