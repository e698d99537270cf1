//! How the ledger is laid out in rows: what a snapshot is made of. The rows are MessagePack in its compact form, where a struct
//! is an array of its fields in the order of their declaration.

use rabia_bank_messages::bank::{HourVolume, Volume};
use rabia_bank_messages::genesis::{Replacement, SessionLimits};
use rabia_bank_messages::ids::{BatchId, Digest, Millis, SessionKey, Slot};
use rabia_bank_messages::msgpack;
use serde::{Deserialize, Serialize};

/// The version of all rows. It stands in the row of the state, and a ledger of another version is not read.
pub(super) const VERSION: u32 = 2;
/// The version of program 0.1.0. Its state, accounts and history read alike, so that its backups can be restored.
pub(super) const VERSION_0_1_0: u32 = 1;

/// A row that is not what this ledger writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRow(pub(super) String);

impl BadRow {
    /// What is wrong with it.
    pub fn new(why: String) -> BadRow {
        BadRow(why)
    }
}

/// What the ledger keeps beside accounts, sessions and history.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StateRow {
    pub(super) version: u32,
    pub(super) transaction_limit: u64,
    pub(super) session_limits: SessionLimits,
    pub(super) applied: Slot,
    pub(super) time: Millis,
    pub(super) requests: u64,
    pub(super) decided_slots: u64,
    pub(super) null_slots: u64,
    pub(super) repeated_batches: u64,
    pub(super) total_balance: u64,
    pub(super) accounts: u64,
    pub(super) sessions: u64,
    pub(super) history: HistoryRow,
    pub(super) totals: TotalsRow,
    /// By origin, in the order of application: incarnation and sequence.
    pub(super) batches: Vec<Vec<(u64, u64)>>,
    /// Of the state after `applied`.
    pub(super) digest: Digest,
    #[serde(default)]
    pub(super) replacements: Vec<Replacement>,
    /// How many sessions have ended.
    #[serde(default)]
    pub(super) ended_sessions: u64,
    /// How many batches could not be applied …
    #[serde(default)]
    pub(super) unusable_batches: u64,
    /// … and in which slots the newest of them were decided.
    #[serde(default)]
    pub(super) newest_unusable: Vec<(Slot, BatchId)>,
}

/// Where the history stands.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct HistoryRow {
    pub(super) transactions: u64,
    pub(super) head: Digest,
    pub(super) newest_of_type: [u64; 4],
    /// Of the newest transaction; 0 if there is none.
    pub(super) slot: Slot,
    pub(super) time: Millis,
}

/// The running figures.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TotalsRow {
    pub(super) all: Volume,
    pub(super) by_type: [Volume; 4],
    pub(super) by_hour: Vec<HourVolume>,
    pub(super) forgotten: u64,
    pub(super) largest: Vec<u64>,
}

/// An account. Its place is that of the row in its page, and of the page.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AccountRow<S> {
    pub(super) name: S,
    pub(super) balance: u64,
    pub(super) created_at: Millis,
    /// 0 if there is none.
    pub(super) last_transaction: u64,
    pub(super) last_at: Millis,
    pub(super) transaction_count: u64,
}

/// A row of the sessions. Its key is a position in the log, of which every request has one: that of the request which opened
/// the session, or brought the reply. So a session comes before its replies. Pages of [`EndedRow`]s come behind, from
/// [`ENDED_ROWS`] on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum SessionsRow {
    Session(SessionRow),
    Reply(ReplyRow),
    Ended(EndedRow),
}

/// The key of the row with the first sessions that ended. No log has so many requests.
pub(super) const ENDED_ROWS: u64 = 1 << 63;

/// An open session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SessionRow {
    pub(super) key: SessionKey,
    pub(super) acknowledged: u64,
    pub(super) last_used: Millis,
}

/// A reply that a session keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ReplyRow {
    pub(super) session: u64,
    pub(super) number: u64,
    #[serde(with = "serde_bytes")]
    pub(super) fingerprint: [u8; 16],
    pub(super) slot: Slot,
    pub(super) index: u32,
    #[serde(with = "serde_bytes")]
    pub(super) outcome: Vec<u8>,
}

/// Keys of sessions that ended, 16 bytes each.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EndedRow {
    #[serde(with = "serde_bytes")]
    pub(super) keys: Vec<u8>,
}

/// Encodes a row.
pub(super) fn encode(row: &impl Serialize) -> Vec<u8> {
    msgpack::encode(row)
}

/// Decodes a row, all of it. Text in it need not be copied. `what` names the row where it is bad.
pub(super) fn decode<'a, T: Deserialize<'a>>(what: impl FnOnce() -> String, bytes: &'a [u8]) -> Result<T, BadRow> {
    msgpack::decode(bytes).map_err(|why| BadRow(format!("{}: {why}", what())))
}
