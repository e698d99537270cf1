//! What is replicated, and how: the pure core that applies decided slots.
//!
//! Every node feeds its ledger the same decided slots in the same order, and so every ledger has the same state and
//! gives the same answers. The core therefore asks nothing of the world: no clock (time is the batch's stamp, made
//! monotonic), no random source, no disk, no network, no thread. Nothing it does depends on the order of a hash map.
//!
//! [`Replicated`](replicated::Replicated) is what every replicated thing needs: batches, sessions and their replies, log time, replaced
//! stores, the digest. The thing itself is a [`StateMachine`](machine::StateMachine). The [bank] is one, and [`Ledger`] is the
//! two together.
//!
//! # Memory and disk
//!
//! A snapshot ([`freeze`](replicated::Replicated::freeze), [`collect`](replicated::Replicated::collect)) gives what changed since the
//! last one, in rows for a store; [`Loading`](snapshot::Loading) makes a ledger of all rows. What is safe in the store may leave memory
//! ([`forget`](replicated::Replicated::forget)). An answer that needs it waits until it was read, and one that takes long is made in steps
//! ([`lookup`]).
//!
//! # The state digest
//!
//! It covers everything that a later answer can depend on: the machine's own hash, its history by the hash that all of it leads to,
//! sessions with the replies they keep, the keys of those that
//! ended, principals and their tokens, the batches remembered, log time, the count of requests, the stores
//! of members that were replaced, the level with what members said of their programs, and the batches that could not be applied. It does not cover
//! the slot: a forfeited slot and a repeated batch leave the state as it was. Accounts, sessions and batches are
//! hashed as sets (`set_hash`): what changes is noted, and hashed when the digest is asked for, or when much has
//! gathered; so a busy account is hashed once for many changes, and asking costs by what changed since. When it is
//! asked, and how often, makes no difference to what it says.

use rabia_bank_messages::bank::{Refusal, Success};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::genesis::{BankTerms, SessionLimits};
use rabia_bank_messages::ids::{Digest, Millis, Secret};

#[doc = include_str!("../ADDING_A_COMMAND.md")]
pub mod adding_a_command {}
pub mod bank;
mod batches;
mod ended;
pub mod levels;
pub mod lookup;
pub mod machine;
pub mod principals;
mod rejection;
pub mod replicated;
pub mod rights;
mod rows;
mod sessions;
mod set_hash;
mod shares;
pub mod snapshot;
mod state;
mod taking;
mod unusable;

pub use bank::{BLOCK, Bank, Block, BlockRecord, CommandOutcome, MOST_AT_ONCE, TELL, chain_hash};
pub use rejection::{Keeper, Rejection, admin_refusal};
pub use replicated::Summary;
pub use rows::BadRow;
pub use snapshot::Changes;
pub use state::StateRow;
pub use unusable::{NAMED, UnusableBatches};

/// The bank, with the batches and the sessions of its log.
pub type Ledger = replicated::Replicated<Bank>;
/// What came of a slot of the bank's log.
pub type Applied = replicated::Applied<CommandOutcome>;
/// What came of a request to the bank.
pub type RequestOutcome = replicated::RequestOutcome<CommandOutcome>;
/// An answer of the bank that is being made.
pub type Lookup = lookup::Lookup<Bank>;
/// How far an answer of the bank is.
pub type Progress = machine::Progress<Success>;
/// A ledger that is being made of rows.
pub type Loading = snapshot::Loading<Bank>;
/// The bank's answer to a command or a query.
pub type Answer = Result<Success, Refusal>;

impl Ledger {
    /// An empty bank without tokens, whose salts are no secret, for tests: one in which one transaction moves at most `transaction_limit` minor units.
    ///
    /// # Panics
    /// If the limit is not from 1 to [`MAX_BALANCE`](rabia_bank_messages::bank::MAX_BALANCE), or no session may be open.
    pub fn new(transaction_limit: u64, sessions: SessionLimits) -> Ledger {
        Ledger::of(Bank::new(transaction_limit, Secret([0; 32])), sessions)
    }

    /// The largest amount of one transaction, in minor units.
    pub fn transaction_limit(&self) -> u64 {
        self.machine().transaction_limit()
    }

    /// The id of the newest transaction; 0 if there is none.
    pub fn newest_transaction(&self) -> u64 {
        self.history().entries
    }

    /// The hash of the newest transaction; [`Digest::ZERO`] if there is none.
    pub fn chain_head(&self) -> Digest {
        self.history().head
    }

    /// Begins with the transactions of a feed: see [`feed`](replicated::Replicated::feed). (The feed's `from` plays no part.)
    pub fn transactions_from(&self, feed: &Feed, id: u64, scan: u64, limit: usize) -> Lookup {
        self.feed(feed, id, scan, limit)
    }
}

impl Loading {
    /// How many transactions there are.
    pub fn transactions(&self) -> u64 {
        self.history().entries
    }

    /// The largest amount of one transaction, in minor units.
    pub fn transaction_limit(&self) -> u64 {
        self.head().transaction_limit()
    }

    /// What is fixed when a bank's cluster is created.
    pub fn terms(&self) -> &BankTerms {
        self.head().terms()
    }

    /// The timestamp of the newest transaction, in milliseconds since the Unix epoch; 0 if there is none.
    pub fn newest_timestamp(&self) -> Millis {
        self.head().newest_timestamp()
    }

    /// The hash of the newest transaction.
    pub fn chain_head(&self) -> Digest {
        self.history().head
    }
}
