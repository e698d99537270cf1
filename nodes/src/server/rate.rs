//! Lines of the log that somebody outside can cause: one in a while, which says how many there were.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use rabia_bank_actors::rate;

/// How often the same trouble is told.
const EVERY: Duration = Duration::from_secs(10);

/// Counts what is not told, for several who share it.
pub(super) struct Rate {
    since: Instant,
    rate: RefCell<rate::Rate>,
}

impl Default for Rate {
    fn default() -> Rate {
        Rate { since: Instant::now(), rate: RefCell::new(rate::Rate::new(1, EVERY, Duration::ZERO)) }
    }
}

impl Rate {
    /// Whether it is to be told now; then how often it happened since it was told last, this time included.
    pub(super) fn count(&self) -> Option<u64> {
        self.count_at(self.since.elapsed())
    }

    fn count_at(&self, now: Duration) -> Option<u64> {
        self.rate.borrow_mut().count(now).map(|untold| untold + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_in_ten_seconds_that_counts_the_others() {
        let rate = Rate::default();
        let told: Vec<u64> = (0..2_500).filter_map(|n| rate.count_at(Duration::from_millis(10 * n))).collect();
        assert_eq!(told, [1, 1_000, 1_000]);
    }
}
