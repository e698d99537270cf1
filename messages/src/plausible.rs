//! Numbers that can't be: what a node looks for in every message of a peer before anything is done with it.

use crate::batch::MAX_STAMP;
use crate::ids::{MAX_PHASES, MAX_SLOT, Phase, Slot};
use crate::peer::{Entry, PeerMessage, SnapshotCursor, SnapshotPart};

/// A message that no node says, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Implausible(&'static str);

/// The highest number of a row, the longest row in bytes, and the most promises or starts of a store.
const MAX_NUMBER: u64 = (1 << 53) - 1;

impl PeerMessage {
    /// Whether its numbers are possible and fit together. What else they would have to fit to only the receiver knows.
    ///
    /// # Errors
    /// Why they can't be.
    pub fn check(&self) -> Result<(), Implausible> {
        match self {
            PeerMessage::Proposal { slot, value, payload } => {
                check_slot(*slot)?;
                ensure(value.is_some() || payload.is_none(), "a payload of no batch")
            }
            PeerMessage::State { slot, phase, .. } | PeerMessage::Vote { slot, phase, .. } => {
                check_slot(*slot)?;
                check_phase(*phase)
            }
            PeerMessage::Decide { slot, .. }
            | PeerMessage::CatchUp { from: slot }
            | PeerMessage::Compacted { log_from: slot } => check_slot(*slot),
            PeerMessage::Batch { .. } | PeerMessage::Fetch { .. } | PeerMessage::ReadIndex { .. } => Ok(()),
            PeerMessage::Promised { count, .. } => ensure(*count <= MAX_NUMBER, "more promises than a store can keep"),
            PeerMessage::Clock { wall, confirmed, .. } => {
                ensure((*wall).max(confirmed.unwrap_or(0)) <= MAX_STAMP, "a clock beyond the last stamp")
            }
            PeerMessage::ReadIndexAnswer { slot, .. }
            | PeerMessage::GetHash { slot }
            | PeerMessage::LogHash { slot, .. } => upto_max_slot(*slot),
            PeerMessage::Alive { decided, durable, .. } => {
                upto_max_slot(*decided)?;
                ensure(durable <= decided, "more is durable than is decided")
            }
            PeerMessage::Entries { entries, decided, .. } => {
                upto_max_slot(*decided)?;
                check_entries(entries)
            }
            PeerMessage::GetSnapshot { slot, at } => {
                upto_max_slot(*slot)?;
                check_cursor(at)
            }
            PeerMessage::SnapshotRows { slot, at, part, rows, next } => {
                check_slot(*slot)?;
                check_cursor(at)?;
                ensure(at.part <= *part, "rows of an earlier part than was asked for")?;
                check_rows(at, *part, rows.iter().map(|(number, _)| *number))?;
                let Some(next) = next else { return Ok(()) };
                check_cursor(next)?;
                ensure(at < next && *part <= next.part, "a snapshot that goes back")
            }
            PeerMessage::StateDigest { slot, .. } => check_slot(*slot),
        }
    }
}

fn ensure(holds: bool, otherwise: &'static str) -> Result<(), Implausible> {
    if holds { Ok(()) } else { Err(Implausible(otherwise)) }
}

fn upto_max_slot(slot: Slot) -> Result<(), Implausible> {
    ensure(slot <= MAX_SLOT, "a slot beyond the last one")
}

fn check_slot(slot: Slot) -> Result<(), Implausible> {
    ensure(slot > 0, "slot 0")?;
    upto_max_slot(slot)
}

fn check_phase(phase: Phase) -> Result<(), Implausible> {
    ensure((1..=MAX_PHASES).contains(&phase), "a phase that no slot needs")
}

fn check_entries(entries: &[Entry]) -> Result<(), Implausible> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
    check_slot(first.slot)?;
    upto_max_slot(last.slot)?;
    let follow = entries.windows(2).all(|pair| pair[0].slot + 1 == pair[1].slot);
    ensure(follow, "slots that do not follow each other")
}

fn check_cursor(at: &SnapshotCursor) -> Result<(), Implausible> {
    ensure(at.row <= last_row(at.part) && at.offset <= MAX_NUMBER, "a place that no snapshot has")
}

/// No row has a higher number. Those of sessions use the whole range, but for the place behind the last.
fn last_row(part: SnapshotPart) -> u64 {
    match part {
        SnapshotPart::Blocks | SnapshotPart::State | SnapshotPart::Accounts => MAX_NUMBER,
        SnapshotPart::Sessions => u64::MAX,
    }
}

fn check_rows(
    at: &SnapshotCursor,
    part: SnapshotPart,
    numbers: impl Iterator<Item = u64> + Clone,
) -> Result<(), Implausible> {
    let first = if part == at.part { at.row } else { 0 };
    ensure(numbers.clone().all(|number| (first..last_row(part)).contains(&number)), "a row that was not asked for")?;
    ensure(numbers.is_sorted_by(|a, b| a < b), "rows that are not in their order")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Digest, Proof};
    use crate::peer::DIGEST_INTERVAL;

    fn cursor(part: SnapshotPart, row: u64, offset: u64) -> SnapshotCursor {
        SnapshotCursor { part, row, offset }
    }

    fn rows(at: SnapshotCursor, part: SnapshotPart, rows: &[u64], next: Option<SnapshotCursor>) -> PeerMessage {
        let rows = rows.iter().map(|number| (*number, Default::default())).collect();
        PeerMessage::SnapshotRows { slot: 7, at, part, rows, next }
    }

    #[test]
    fn what_nodes_say_passes() {
        use SnapshotPart::{Accounts, Blocks, Sessions, State};
        let entry = |slot| Entry { slot, batch: None };
        let said = [
            PeerMessage::Decide { slot: 1, value: None },
            PeerMessage::Decide { slot: MAX_SLOT, value: None },
            PeerMessage::Entries { before: Digest::ZERO, entries: vec![entry(4), entry(5)], decided: 9 },
            PeerMessage::Entries { before: Digest::ZERO, entries: Vec::new(), decided: 0 },
            PeerMessage::StateDigest { slot: 2 * DIGEST_INTERVAL, digest: Digest::ZERO },
            rows(cursor(Blocks, 3, 0), Blocks, &[3, 4], Some(cursor(Blocks, 5, 0))),
            rows(cursor(Blocks, 3, 0), Blocks, &[3], Some(cursor(Blocks, 3, 1))),
            rows(cursor(Blocks, 3, 0), State, &[0], Some(cursor(State, 1, 0))),
            rows(cursor(Accounts, 3, 0), SnapshotPart::Sessions, &[], None),
            rows(cursor(Sessions, 5, 0), Sessions, &[7, 1 << 63], Some(cursor(Sessions, (1 << 63) + 1, 0))),
        ];
        for message in said {
            assert_eq!(message.check(), Ok(()), "{message:?}");
        }
    }

    #[test]
    fn what_can_not_be_does_not() {
        use SnapshotPart::{Accounts, Blocks, State};
        let entry = |slot| Entry { slot, batch: None };
        let vote = |slot, phase| PeerMessage::Vote { slot, phase, vote: crate::peer::Vote::Zero };
        let nonsense = [
            vote(0, 1),
            vote(MAX_SLOT + 1, 1),
            vote(u64::MAX, 1),
            vote(1, 0),
            vote(1, u32::MAX),
            PeerMessage::CatchUp { from: 0 },
            PeerMessage::CatchUp { from: u64::MAX },
            PeerMessage::Alive { decided: u64::MAX, hash: Digest::ZERO, durable: 0 },
            PeerMessage::ReadIndexAnswer { starts: 1, round: 1, slot: u64::MAX },
            PeerMessage::Promised { count: u64::MAX, proof: Proof([0; 16]) },
            PeerMessage::Clock { wall: u64::MAX, confirmed: None, refuses: false },
            PeerMessage::Compacted { log_from: u64::MAX },
            PeerMessage::StateDigest { slot: 0, digest: Digest::ZERO },
            PeerMessage::GetHash { slot: u64::MAX },
            PeerMessage::LogHash { slot: u64::MAX, hash: Digest::ZERO },
            PeerMessage::Alive { decided: 3, hash: Digest::ZERO, durable: 4 },
            PeerMessage::Entries { before: Digest::ZERO, entries: vec![entry(4), entry(6)], decided: 9 },
            PeerMessage::Entries { before: Digest::ZERO, entries: vec![entry(5), entry(4)], decided: 9 },
            PeerMessage::Entries { before: Digest::ZERO, entries: vec![entry(u64::MAX), entry(0)], decided: 9 },
            PeerMessage::Entries { before: Digest::ZERO, entries: vec![entry(0)], decided: 9 },
            PeerMessage::GetSnapshot { slot: u64::MAX, at: cursor(Blocks, 0, 0) },
            PeerMessage::GetSnapshot { slot: 1, at: cursor(Blocks, u64::MAX, 0) },
            PeerMessage::GetSnapshot { slot: 1, at: cursor(Blocks, 0, u64::MAX) },
            rows(cursor(Blocks, 3, 0), Blocks, &[2], None),
            rows(cursor(Blocks, 3, 0), Blocks, &[4, 4], None),
            rows(cursor(Blocks, 3, 0), Blocks, &[u64::MAX], None),
            rows(cursor(SnapshotPart::Sessions, 3, 0), SnapshotPart::Sessions, &[u64::MAX], None),
            rows(cursor(Accounts, 3, 0), State, &[0], None),
            rows(cursor(Blocks, 3, 0), Blocks, &[3], Some(cursor(Blocks, 3, 0))),
            rows(cursor(Accounts, 3, 0), Accounts, &[3], Some(cursor(Blocks, 9, 0))),
        ];
        for message in nonsense {
            assert!(message.check().is_err(), "{message:?}");
        }
    }
}
