//! How many steps of work an owner has had lately.
//!
//! A step is a record that was looked at. What an owner has had is forgotten at the rate that is its share, so it has a second's
//! steps at once after a while without, and that rate in the long run.

use std::time::Instant;

use rustc_hash::FxHashMap;

use crate::consensus::turns::Owner;

/// What the owners have had that is not forgotten yet, and when it was counted last.
#[derive(Debug, Default)]
pub(super) struct Rates(FxHashMap<Owner, (u64, Instant)>);

impl Rates {
    /// Whether an owner may have a turn.
    pub(super) fn may(&self, owner: Owner, now: Instant, a_second: u64) -> bool {
        self.0.get(&owner).is_none_or(|had| left_of(*had, now, a_second) < a_second)
    }

    /// An owner has had so many steps.
    pub(super) fn note(&mut self, owner: Owner, steps: u64, now: Instant, a_second: u64) {
        let had = self.0.entry(owner).or_insert((0, now));
        *had = (left_of(*had, now, a_second).saturating_add(steps), now);
    }

    /// Drops owners that have had nothing lately.
    pub(super) fn sweep(&mut self, now: Instant, a_second: u64) {
        self.0.retain(|_, had| left_of(*had, now, a_second) > 0);
    }
}

fn left_of((steps, at): (u64, Instant), now: Instant, a_second: u64) -> u64 {
    let micros = now.saturating_duration_since(at).as_micros();
    let forgotten = micros.saturating_mul(a_second.into()) / 1_000_000;
    steps.saturating_sub(u64::try_from(forgotten).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_owner_has_a_second_s_steps_at_once_and_the_rate_in_the_long_run() {
        const A_SECOND: u64 = 1_000;
        let (began, mut rates) = (Instant::now(), Rates::default());
        let mut had = 0;
        for millis in 0..5_000 {
            let now = began + Duration::from_millis(millis);
            while rates.may(Owner::Principal(1), now, A_SECOND) {
                rates.note(Owner::Principal(1), 10, now, A_SECOND);
                had += 10;
            }
            assert!(rates.may(Owner::Principal(2), now, A_SECOND));
        }
        assert!((5_900..=6_100).contains(&had), "{had}");
        rates.sweep(began + Duration::from_secs(9), A_SECOND);
        assert!(rates.0.is_empty());
    }
}
