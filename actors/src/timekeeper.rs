//! Looks after a node's clock: tells what is wrong with it, once a minute at most, and keeps what is known of time for the next start.

use std::path::PathBuf;
use std::time::Duration;

use rabia_bank_messages::ids::Millis;
use tracing::{error, warn};

use crate::consensus::clocks::{ClockState, Leapt, MAX_STAMP_AHEAD};
use crate::consensus::pool::{Now, Pool};
use crate::metrics::Metrics;
use crate::uptime;

/// How often the clock is looked at.
pub const LOOK: Duration = Duration::from_secs(1);
/// What is wrong with a clock is said this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// What is known of time is written again when it has changed by so many milliseconds.
const WORTH_WRITING: u64 = 60_000;

/// Looks after the clock of a node.
pub struct Timekeeper {
    /// Where it is kept: see [`uptime`].
    file: PathBuf,
    /// What was confirmed when the node started, as it was written last, in milliseconds since the Unix epoch.
    written: Option<i64>,
    /// How long ago the machine was booted, and by which clock of the node.
    booted: Option<(Duration, Duration)>,
    said: Option<Duration>,
}

impl Timekeeper {
    /// Keeps what it knows in this file.
    pub fn new(file: PathBuf) -> Timekeeper {
        Timekeeper { file, written: None, booted: None, said: None }
    }

    /// Begins with what an earlier run knew.
    pub fn start(&mut self, now: Now, pool: &mut Pool, log_time: Millis) {
        self.booted = uptime::since_boot().map(|since| (since, now.elapsed));
        pool.start_clock(now, log_time, uptime::witness(&self.file));
    }

    /// To be called every [`LOOK`].
    pub fn look(&mut self, now: Now, pool: &mut Pool, metrics: &Metrics) {
        self.follow_boot_clock(now, pool);
        let (state, confirmed) = pool.clock_state(now);
        metrics.note_clock(state.offset, state.leap);
        if let Some((by, why)) = pool.take_leap() {
            tell_leap(by, why);
        }
        self.tell(now, &state);
        if let Some(confirmed) = confirmed {
            self.keep(now, confirmed);
        }
    }

    /// The clock of [`Now`] stands still while the machine sleeps, the other one does not.
    fn follow_boot_clock(&mut self, now: Now, pool: &mut Pool) {
        let Some((booted, at)) = self.booted else { return };
        let Some(since) = uptime::since_boot() else { return };
        let by = millis(since) - millis(booted) - (millis(now.elapsed) - millis(at));
        if by != 0 {
            pool.correct_clock(by);
        }
        self.booted = Some((since, now.elapsed));
    }

    fn tell(&mut self, now: Now, state: &ClockState) {
        let ClockState { offset, others, leap, unsure, refused } = *state;
        let is_off = others > 0 && offset.unsigned_abs() > MAX_STAMP_AHEAD;
        if (leap == 0 && !is_off) || (unsure && !refused) {
            return;
        }
        if self.said.is_some_and(|said| now.elapsed.saturating_sub(said) < SAY_AGAIN) {
            return;
        }
        self.said = Some(now.elapsed);
        let folder = self.file.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
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

    fn keep(&mut self, now: Now, confirmed: Millis) {
        let at_start = i64::try_from(confirmed).unwrap_or(i64::MAX) - millis(now.elapsed);
        if self.written.is_some_and(|written| written.abs_diff(at_start) < WORTH_WRITING) {
            return;
        }
        self.written = Some(at_start);
        let file = self.file.clone();
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

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
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
