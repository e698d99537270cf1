//! Lines of the log that somebody outside can cause: one in a while, which says how many there were.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How often the same trouble is told.
const EVERY: Duration = Duration::from_secs(10);

/// Counts what is not told.
#[derive(Default)]
pub(super) struct Rate {
    told: Cell<Option<Instant>>,
    untold: Cell<u64>,
}

impl Rate {
    /// Whether it is to be told now; then how often it happened since it was told last, this time included.
    pub(super) fn count(&self) -> Option<u64> {
        self.count_at(Instant::now())
    }

    fn count_at(&self, now: Instant) -> Option<u64> {
        let times = self.untold.get() + 1;
        if self.told.get().is_some_and(|told| now.saturating_duration_since(told) < EVERY) {
            self.untold.set(times);
            return None;
        }
        self.told.set(Some(now));
        self.untold.set(0);
        Some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_in_ten_seconds_that_counts_the_others() {
        let (rate, begin) = (Rate::default(), Instant::now());
        let told: Vec<u64> = (0..2_500).filter_map(|n| rate.count_at(begin + Duration::from_millis(10 * n))).collect();
        assert_eq!(told, [1, 1_000, 1_000]);
    }
}
