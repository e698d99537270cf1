//! What a node says of its clock to people, and the file in which it keeps what it knows of time. When it does either, the
//! [part](crate::parts::timekeeper) decides.

use std::path::PathBuf;

use rabia_bank_messages::ids::Millis;
use tracing::{error, warn};

use crate::consensus::clocks::{ClockState, Leapt, Witness};
use crate::parts::timekeeper::Look;
use crate::uptime;

/// The file with what a node knows of time: see [`uptime`].
#[derive(Clone, Debug)]
pub struct ClockFile(PathBuf);

impl ClockFile {
    /// This one. Need not be there.
    pub fn new(file: PathBuf) -> ClockFile {
        ClockFile(file)
    }

    /// What an earlier run knew.
    pub fn witness(&self) -> Witness {
        uptime::witness(&self.0)
    }

    /// Tells and keeps what came of a look at the clock.
    pub(crate) fn looked(&self, look: &Look) {
        if let Some((by, why)) = look.leapt {
            tell_leap(by, why);
        }
        if look.tell {
            self.tell(&look.state);
        }
        if let Some(confirmed) = look.keep {
            self.keep(confirmed);
        }
    }

    fn tell(&self, state: &ClockState) {
        let ClockState { offset, others, leap, unsure, .. } = *state;
        let folder = self.0.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        let off = span(offset.unsigned_abs());
        let way = if offset < 0 { "behind" } else { "ahead of" };
        if unsure {
            error!(
                "this node's clock shows {} more than the last time that is known. No monotonic clock tells how long it was off, \
                 and the clocks of the others do not confirm it. It takes no commands until a clock is set right; or if this one \
                 is right, say so: rabia-bank clock accept --data-dir {folder}",
                span(leap)
            );
        } else if leap > 0 {
            error!(
                "this node's clock shows {} more than monotonic clocks confirm: set it right. Time in the log goes on by what they \
                 confirm. If the clock is right, say so: rabia-bank clock accept --data-dir {folder}",
                span(leap)
            );
        } else if others == 1 {
            warn!(
                "this node's clock is {off} {way} that of the only other node that is heard: one of the two is wrong"
            );
        } else {
            warn!("this node's clock is {off} {way} those of the others: set it right");
        }
    }

    fn keep(&self, confirmed: Millis) {
        let file = self.0.clone();
        // A disk may be slow.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = uptime::write(&file, confirmed) {
                warn!(file = %file.display(), %error, "what is known of time is not kept for the next start");
            }
        }));
    }
}

fn tell_leap(by: Millis, why: Leapt) {
    let by = span(by);
    match why {
        Leapt::Majority => {
            warn!("time in the log goes on {by} later: the clocks of a majority agree that all were off for so long")
        }
        Leapt::Peer(peer) => {
            warn!("time in the log goes on {by} later: node {peer} confirms what this node's clock shows")
        }
        Leapt::Log => {
            warn!("time in the log went {by} further than monotonic clocks here confirm: a majority of nodes backed it")
        }
        Leapt::Operator => {
            warn!("time in the log goes on {by} later: an operator says that this node's clock is right")
        }
    }
}

/// A time for people, in its two largest units.
pub fn span(ms: Millis) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
    let mut left = ms;
    let mut parts = Vec::new();
    for (name, unit) in units {
        if left >= unit && parts.len() < 2 {
            parts.push(format!("{} {name}", left / unit));
            left %= unit;
        } else if !parts.is_empty() {
            break;
        }
    }
    if parts.is_empty() { "0 ms".into() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_largest_units() {
        let told = [0, 999, 1_000, 61_000, 3_600_000, 3_600_001, 2 * 86_400_000 + 3 * 3_600_000 + 5].map(span);
        assert_eq!(told, ["0 ms", "999 ms", "1 s", "1 min 1 s", "1 h", "1 h", "2 d 3 h"]);
    }
}
