//! Log time is not dragged along by a wrong clock: a batch is decided only when a majority of nodes has had clocks that were at
//! most a second behind its stamp.
//!
//! Source: PROTOCOL.md, "Catching up", last sentence.

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{Millis, Slot};

use super::{Check, check};

/// How far a stamp may be ahead of a clock whose node backs it.
const AHEAD: Millis = 1_000;

/// A slot is decided; these are the latest times that clocks have shown.
pub(in crate::simulate) fn decided(
    slot: Slot,
    payload: Option<&Payload>,
    clocks: impl Iterator<Item = Millis>,
) -> Check {
    let Some(Ok(stamp)) = payload.map(Payload::stamp) else { return Ok(()) };
    let clocks: Vec<Millis> = clocks.collect();
    let backing = clocks.iter().filter(|clock| **clock + AHEAD >= stamp).count();
    check(backing > clocks.len() / 2, "log time", || {
        format!("slot {slot} is stamped {stamp}, and only {backing} clocks were ever near: {clocks:?}")
    })
}
