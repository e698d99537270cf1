//! Making the ledger anew: of the books, and of the log behind them.

use std::time::{Duration, Instant};

use rabia_bank_messages::batch::BadPayload;
use rabia_bank_messages::ids::{BatchId, Digest, Slot};
use rabia_bank_messages::lineage::log_hash;
use rabia_bank_messages::promise::Identity;
use rabia_bank_storage::{BooksStore, Entries, LogReader};
use tracing::{error, info};

use crate::failure::StartError;
use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;
use crate::ledger::replicated::{Applied, Replicated};
use crate::snapshot::{BooksError, Decision, log_hash_of, restore};

/// Bytes of log that are read at a time while the ledger is rebuilt.
const REPLAY_BYTES: usize = 4 << 20;
/// How often a long replay is reported.
const REPORT: Duration = Duration::from_secs(2);

/// What a node knows when it starts.
pub struct Rebuilt<S: StateMachine = Bank> {
    /// The state after the last slot of the log.
    pub ledger: Replicated<S>,
    /// The last decisions, from which owners of coming slots are read.
    pub decisions: Vec<Decision>,
    /// The hash of the log up to there.
    pub hash: Digest,
    /// How many bytes of batches the log has behind the books.
    pub replayed_bytes: u64,
}

/// Makes the ledger of the books, and of the log behind them up to the slot `decided`.
///
/// # Errors
/// If the books or the log can't be read or applied, are of a cluster with other constants, or lead to a level that this program does
/// not know.
pub fn rebuild<S: StateMachine>(
    identity: &Identity,
    books: &BooksStore,
    log: &LogReader,
    decided: Slot,
) -> Result<Rebuilt<S>, StartError> {
    let (genesis, sessions) = (&identity.genesis, identity.genesis.sessions);
    let view = books.reader().view().map_err(BooksError::from)?;
    let new = || (Replicated::<S>::new_cluster(genesis), Vec::new());
    let (ledger, decisions) = restore(&view)?.unwrap_or_else(new);
    let hash = log_hash_of::<S>(&view)?;
    ledger.machine().check_cluster(genesis).map_err(StartError::Cluster)?;
    if ledger.session_limits() != sessions {
        return Err(StartError::Sessions { found: ledger.session_limits(), expected: sessions });
    }
    replay(identity, ledger, (decisions, hash), log, decided)
}

/// Applies the log up to the slot `decided` to a ledger; `decisions` are those before it, and `hash` that of the log there.
///
/// # Errors
/// If the log can't be read or applied, or leads to a level that this program does not know.
pub fn replay<S: StateMachine>(
    identity: &Identity,
    mut ledger: Replicated<S>,
    (mut decisions, mut hash): (Vec<Decision>, Digest),
    reader: &LogReader,
    decided: Slot,
) -> Result<Rebuilt<S>, StartError> {
    let mut replayed_bytes = 0;
    let keep = *identity.genesis.owner_slots(decided + 1).start();
    let mut reported = Instant::now();
    while ledger.applied() < decided {
        let from = ledger.applied() + 1;
        let Entries::Found(entries) = reader.entries(from, REPLAY_BYTES)? else {
            return Err(StartError::Replay { slot: from, why: "the log does not go back so far".into() });
        };
        for entry in entries {
            ledger.levels().check()?;
            let batch = entry.batch.as_ref().map(|(id, payload)| (id, payload));
            if let Applied::Unusable(why) = ledger.replay(entry.slot, batch) {
                warn_of_unusable(entry.slot, batch.map(|(id, _)| id), &why);
            }
            replayed_bytes += batch.map_or(0, |(_, payload)| payload.len() as u64);
            let value = batch.map(|(id, _)| *id);
            decisions.push((entry.slot, value));
            hash = log_hash(hash, entry.slot, &value);
        }
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            info!(slot = ledger.applied(), of = decided, "applying the log");
        }
    }
    ledger.levels().check()?;
    decisions.retain(|(slot, _)| *slot >= keep);
    // Hashes what has changed: the first one who asks must not wait for it.
    ledger.digest();
    Ok(Rebuilt { ledger, decisions, hash, replayed_bytes })
}

/// Says that a batch that no honest node proposes was decided.
pub(crate) fn warn_of_unusable(slot: Slot, id: Option<&BatchId>, why: &BadPayload) {
    error!(
        slot,
        batch = id.map(tracing::field::display),
        %why,
        "the batch that was decided in this slot can't be applied, so every node applies it as an empty one. No node of this \
         version proposes such a batch: look for one that is damaged or runs another program"
    );
}
