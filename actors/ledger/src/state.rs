//! The row of the state: what is replicated of every machine, and the machine's head.

use rabia_bank_messages::genesis::{Replacement, SessionLimits};
use rabia_bank_messages::ids::{BatchId, Digest, Millis, Slot};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::batches::Name;
use crate::levels::LevelsRow;
use crate::principals::PrincipalsRow;
use crate::rows::{self, BadRow};

/// What the row of the state holds of every machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct StateRow {
    pub(crate) session_limits: SessionLimits,
    pub(crate) applied: Slot,
    pub(crate) time: Millis,
    pub(crate) requests: u64,
    pub(crate) decided_slots: u64,
    pub(crate) null_slots: u64,
    pub(crate) repeated_batches: u64,
    /// How many are open.
    pub(crate) sessions: u64,
    /// By origin, in the order of application: incarnation and sequence.
    pub(crate) batches: Vec<Vec<Name>>,
    /// Of the state after `applied`.
    pub(crate) digest: Digest,
    pub(crate) replacements: Vec<Replacement>,
    /// How many sessions have ended.
    pub(crate) ended_sessions: u64,
    /// How many batches could not be applied …
    pub(crate) unusable_batches: u64,
    /// … and in which slots the newest of them were decided.
    pub(crate) newest_unusable: Vec<(Slot, BatchId)>,
    pub(crate) principals: PrincipalsRow,
    pub(crate) levels: LevelsRow,
}

/// The row of a machine of this name.
pub(crate) fn encode_state(name: &str, state: &StateRow, head: &impl Serialize) -> Vec<u8> {
    rows::encode(&(name, state, head))
}

/// What such a row says.
pub(crate) fn decode_state<H: DeserializeOwned>(name: &str, row: &[u8]) -> Result<(StateRow, H), BadRow> {
    let (found, state, head): (String, StateRow, H) = rows::decode(|| "the row of the state".into(), row)?;
    if found != name {
        return Err(BadRow::new(format!("it is the state of {found:?}, where that of {name:?} should be")));
    }
    Ok((state, head))
}
