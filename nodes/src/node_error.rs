//! Why a node stopped, or never started.

use rabia_bank_actors::failure::{Failure, StartError};
use rabia_bank_actors::snapshot::BooksError;
use rabia_bank_storage::StoreError;

/// Why a node stopped, or never started. The kinds are exit codes of the program: one that refused, or found damage, will do so
/// again until a person changes something; one that failed may be started again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// It refused to start: its store is in use, or of another cluster or node, a port is taken … Or it found out while it ran that
    /// its store is an old copy, was replaced, or has another log than the others.
    #[error("{0}")]
    Refused(String),
    /// One of its files is not what was written, as was found at the start or later.
    #[error("{0}")]
    Damaged(String),
    /// It started and had to stop: a full disk, a storage error, a digest that differs …
    #[error("{0}")]
    Failed(String),
}

impl From<Failure> for NodeError {
    fn from(failure: Failure) -> NodeError {
        match failure {
            Failure::Damaged(why) => NodeError::Damaged(why),
            Failure::Refused(why) => NodeError::Refused(why),
            Failure::Stopped(why) => NodeError::Failed(why),
        }
    }
}

impl NodeError {
    /// Why a node did not start. One that can't read or write its files refuses, too: it would fail again at once.
    pub(crate) fn of_start(error: &StartError) -> NodeError {
        match error {
            StartError::Store(StoreError::Damaged { .. })
            | StartError::Books(BooksError::Store(StoreError::Damaged { .. }) | BooksError::Bad(_)) => {
                NodeError::Damaged(error.to_string())
            }
            _ => NodeError::Refused(error.to_string()),
        }
    }
}
