//! When a node speaks of its clock, and when what it knows of time is kept for its next start. What is known, and which stamps follow
//! from it, is the business of [`clocks`](crate::consensus::clocks).

use std::time::Duration;

use rabia_bank_messages::ids::Millis;

use crate::consensus::clocks::{ClockState, Leapt, MAX_STAMP_AHEAD};
use crate::consensus::pool::{Now, Pool};

/// How often the clock is looked at.
pub const LOOK: Duration = Duration::from_secs(1);
/// What is wrong with a clock is told this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// What is known of time is kept anew when it has changed by so many milliseconds.
const WORTH_KEEPING: u64 = 60_000;

/// What came of a look at the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// How the clock stands.
    pub state: ClockState,
    /// Time in the log went on by so many milliseconds more than monotonic clocks here confirm, for this reason.
    pub leapt: Option<(Millis, Leapt)>,
    /// Something is wrong with the clock, and it is time to tell.
    pub tell: bool,
    /// Keep for the next start that it is at least this late, in milliseconds since the Unix epoch.
    pub keep: Option<Millis>,
}

/// Looks after the clock of a node.
#[derive(Debug, Default)]
pub struct Timekeeper {
    /// What was confirmed when the node started, as it was kept last, in milliseconds since the Unix epoch.
    kept: Option<i64>,
    /// How long ago the machine was booted, and by which clock of the node.
    booted: Option<(Duration, Duration)>,
    told: Option<Duration>,
}

impl Timekeeper {
    /// The machine was booted so long ago, times of sleep included; none where the system does not tell.
    pub fn new(now: Now, since_boot: Option<Duration>) -> Timekeeper {
        Timekeeper { booted: since_boot.map(|since| (since, now.elapsed)), ..Timekeeper::default() }
    }

    /// To be called every [`LOOK`].
    pub fn look(&mut self, now: Now, since_boot: Option<Duration>, pool: &mut Pool) -> Look {
        self.follow_boot_clock(now, since_boot, pool);
        let (state, confirmed) = pool.clock_state(now);
        let leapt = pool.take_leap();
        let keep = confirmed.filter(|confirmed| self.is_worth_keeping(now, *confirmed));
        Look { state, leapt, tell: self.tells(now, &state), keep }
    }

    /// The clock of [`Now`] stands still while the machine sleeps, the other one does not.
    fn follow_boot_clock(&mut self, now: Now, since_boot: Option<Duration>, pool: &mut Pool) {
        let (Some((booted, at)), Some(since)) = (self.booted, since_boot) else { return };
        let by = millis(since) - millis(booted) - (millis(now.elapsed) - millis(at));
        if by != 0 {
            pool.correct_clock(by);
        }
        self.booted = Some((since, now.elapsed));
    }

    fn tells(&mut self, now: Now, state: &ClockState) -> bool {
        let ClockState { offset, others, leap, unsure, refused } = *state;
        let is_off = others > 0 && offset.unsigned_abs() > MAX_STAMP_AHEAD;
        let wrong = (leap != 0 || is_off) && (!unsure || refused);
        let tells = wrong && self.told.is_none_or(|told| now.elapsed.saturating_sub(told) >= SAY_AGAIN);
        if tells {
            self.told = Some(now.elapsed);
        }
        tells
    }

    fn is_worth_keeping(&mut self, now: Now, confirmed: Millis) -> bool {
        let at_start = i64::try_from(confirmed).unwrap_or(i64::MAX) - millis(now.elapsed);
        let worth = self.kept.is_none_or(|kept| kept.abs_diff(at_start) >= WORTH_KEEPING);
        if worth {
            self.kept = Some(at_start);
        }
        worth
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { elapsed: Duration::from_secs(seconds), wall: 0 }
    }

    #[test]
    fn a_wrong_clock_is_told_once_a_minute_and_not_before_others_could_confirm_it() {
        let mut keeper = Timekeeper::default();
        let ahead = ClockState { leap: 1, ..ClockState::default() };
        let unsure = ClockState { unsure: true, ..ahead };
        assert!(!keeper.tells(at(0), &ClockState::default()) && !keeper.tells(at(0), &unsure));
        assert!(keeper.tells(at(1), &ClockState { refused: true, ..unsure }));
        assert!(!keeper.tells(at(60), &ahead) && keeper.tells(at(61), &ahead));
        let off = |others| ClockState { offset: 1 + MAX_STAMP_AHEAD as i64, others, ..ClockState::default() };
        assert!(!keeper.tells(at(200), &off(0)) && keeper.tells(at(200), &off(1)));
    }

    #[test]
    fn what_is_known_of_time_is_kept_again_when_it_has_changed_by_a_minute() {
        let mut keeper = Timekeeper::default();
        let known = |seconds: u64, more: u64| 1_000_000 + 1_000 * seconds + more;
        assert!(keeper.is_worth_keeping(at(1), known(1, 0)));
        assert!(!keeper.is_worth_keeping(at(500), known(500, 0)), "it went on as a clock does");
        assert!(!keeper.is_worth_keeping(at(501), known(501, WORTH_KEEPING - 1)));
        assert!(keeper.is_worth_keeping(at(502), known(502, WORTH_KEEPING)));
    }
}
