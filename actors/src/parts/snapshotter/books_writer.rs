//! The one writer of the books: one job at a time, off the core's thread. It saves snapshots of this node, and takes the rows of one
//! that comes from a peer.

use rabia_bank_messages::ids::{Digest, Slot};
use rabia_bank_messages::peer::SnapshotCursor;
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rabia_bank_storage::BooksStore;

use super::transfer::{Taken, Transfer, TransferError};
use crate::failure::Failure;
use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;
use crate::ledger::replicated::Replicated;
use crate::parts::bank::words::Standpoint;
use crate::snapshot::{Decision, Snapshot};

pub use super::transfer::Answer;

/// Owns the books, and has the snapshot that this node is being sent.
pub struct BooksWriter<S: StateMachine = Bank> {
    store: BooksStore,
    transfer: Option<Transfer<S>>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Job {
    /// Make this snapshot durable.
    Save(Snapshot),
    /// Look which part of a peer's snapshot is to be asked for first.
    Begin {
        /// How far this node is. Its newest transaction must be in the history of a snapshot that is further; one that is not is of no
        /// use.
        own: Standpoint,
    },
    /// Take these rows of a peer's snapshot.
    Take(Answer),
}

/// What came of a job.
#[derive(Debug)]
pub enum Outcome<S: StateMachine = Bank> {
    /// The snapshot is durable.
    Saved {
        /// The slot that it stands after.
        slot: Slot,
        /// The newest transaction in it.
        transactions: u64,
    },
    /// This is to be asked for next.
    Ask(SnapshotWanted),
    /// A peer's snapshot is complete, verified and durable.
    Installed {
        /// The slot that it stands after.
        slot: Slot,
        /// The hash of the log up to it.
        hash: Digest,
        /// All that is replicated, made of the rows that came.
        ledger: Box<Replicated<S>>,
        /// The decisions before it that owners of coming slots are read from.
        decisions: Vec<Decision>,
    },
    /// This node is as far as the peer's snapshot at this slot, or further: the slots came one by one meanwhile, or the peer that was
    /// asked has an old one.
    Overtaken {
        /// The slot that it stands after.
        slot: Slot,
    },
    /// The peer sent what can't be.
    GaveUp(String),
    /// The peer's snapshot does not have this node's history.
    OtherHistory {
        /// The slot that it stands after.
        slot: Slot,
        /// Where it differs, for people.
        why: String,
    },
    /// The books can't be read or written: the node stops.
    Failed(Failure),
    /// The snapshot that was to be saved is not needed: the books stand further already, by one that came from a peer.
    Superseded {
        /// The slot that the books stand after.
        slot: Slot,
    },
    /// There was nothing to do.
    Nothing,
}

/// What a transfer asks for next.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotWanted {
    /// Which snapshot; 0 for any.
    pub slot: Slot,
    /// The first place that is not here yet.
    pub at: SnapshotCursor,
    /// Bytes that came so far.
    pub received: u64,
}

impl<S: StateMachine> BooksWriter<S> {
    /// The writer of these books.
    pub fn new(store: BooksStore) -> BooksWriter<S> {
        BooksWriter { store, transfer: None }
    }

    /// Does a job. Blocks while the disk works.
    pub fn work(&mut self, job: Job) -> Outcome<S> {
        match job {
            Job::Save(snapshot) if snapshot.changes.slot <= self.store.slot() => {
                Outcome::Superseded { slot: self.store.slot() }
            }
            Job::Save(snapshot) => {
                let (slot, transactions) = (snapshot.changes.slot, snapshot.changes.transactions);
                let mut rows = snapshot.into_rows();
                if let Some(transfer) = &self.transfer
                    && !is_broken(Rule::ReceivedStays)
                {
                    transfer.keep_received(&mut rows.blocks);
                }
                match self.store.save(&rows) {
                    Ok(()) => Outcome::Saved { slot, transactions },
                    Err(error) => Outcome::Failed((&error).into()),
                }
            }
            Job::Begin { own } => match Transfer::begin(&self.store, own) {
                Ok(transfer) => {
                    let wanted = wanted(&transfer);
                    self.transfer = Some(transfer);
                    Outcome::Ask(wanted)
                }
                Err(error) => Outcome::Failed((&error).into()),
            },
            Job::Take(answer) => self.take(answer),
        }
    }

    fn take(&mut self, answer: Answer) -> Outcome<S> {
        let Some(mut transfer) = self.transfer.take() else { return Outcome::Nothing };
        let slot = answer.slot;
        if slot <= self.store.slot().max(transfer.applied()) {
            return Outcome::Overtaken { slot };
        }
        match transfer.take(answer, &mut self.store) {
            Ok(Taken::More) => {
                let wanted = wanted(&transfer);
                self.transfer = Some(transfer);
                Outcome::Ask(wanted)
            }
            Ok(Taken::Installed(ledger, decisions, hash)) => Outcome::Installed { slot, hash, ledger, decisions },
            Err(TransferError::Peer(why)) => Outcome::GaveUp(why),
            Err(TransferError::OtherHistory(why)) => Outcome::OtherHistory { slot, why },
            Err(TransferError::Own(error)) => Outcome::Failed((&error).into()),
        }
    }
}

fn wanted<S: StateMachine>(transfer: &Transfer<S>) -> SnapshotWanted {
    let (slot, at) = transfer.wanted();
    SnapshotWanted { slot, at, received: transfer.received() }
}
