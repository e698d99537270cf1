//! Log time is not dragged along by wrong clocks: a batch is decided only when a majority of nodes has had clocks that were at
//! most a second behind its stamp; and since the first one, it has gone on by what has really passed and an hour at most, whatever
//! the clocks of a majority showed.
//!
//! Source: PROTOCOL.md, "Catching up", last sentence; BANK.md, "Time".

use std::time::Duration;

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{Millis, Slot};

use super::{Check, check};

/// How far a stamp may be ahead of a clock whose node backs it.
const AHEAD: Millis = 1_000;

/// How far log time may go beyond what has passed.
const LEAP: Millis = 3_600_000;
/// Clocks that are right jump by some seconds and drift.
const INACCURATE: Millis = 30_000;

/// The first stamp, and when it was applied.
#[derive(Debug, Default)]
pub(crate) struct LogTime {
    first: Option<(Millis, Duration)>,
}

impl LogTime {
    /// A slot is decided.
    pub(crate) fn has_not_leapt(&mut self, slot: Slot, payload: Option<&Payload>, now: Duration) -> Check {
        let Some(Ok(stamp)) = payload.map(Payload::stamp) else { return Ok(()) };
        let (first, at) = *self.first.get_or_insert((stamp, now));
        let most = first + (now - at).as_millis() as Millis + LEAP + INACCURATE;
        check(stamp <= most, "log time", || {
            format!("slot {slot} is stamped {stamp}, but it is no later than {most} after a first stamp of {first}")
        })
    }
}

/// A slot is decided; these are the latest times that clocks have shown.
pub(crate) fn decided(slot: Slot, payload: Option<&Payload>, clocks: impl Iterator<Item = Millis>) -> Check {
    let Some(Ok(stamp)) = payload.map(Payload::stamp) else { return Ok(()) };
    let clocks: Vec<Millis> = clocks.collect();
    let backing = clocks.iter().filter(|clock| **clock + AHEAD >= stamp).count();
    check(backing > clocks.len() / 2, "log time", || {
        format!("slot {slot} is stamped {stamp}, and only {backing} clocks were ever near: {clocks:?}")
    })
}
