//! What may happen as often as somebody outside likes is told in the log a few times, and then counted.

use std::time::Duration;

/// The lines that there may still be.
#[derive(Clone, Debug)]
pub struct Rate {
    burst: u32,
    every: Duration,
    left: u32,
    /// When the last one was added to them, or they were all there.
    added: Duration,
    untold: u64,
}

impl Rate {
    /// So many lines may follow each other at once, and after them one in this time. Not 0. Times count from any moment that stays the
    /// same.
    pub fn new(burst: u32, every: Duration, now: Duration) -> Rate {
        Rate { burst, every, left: burst, added: now, untold: 0 }
    }

    /// Whether it is to be told now; then how often it was not told since it was last.
    pub fn count(&mut self, now: Duration) -> Option<u64> {
        while self.left < self.burst && now.saturating_sub(self.added) >= self.every {
            self.left += 1;
            self.added += self.every;
        }
        if self.left == 0 {
            self.untold += 1;
            return None;
        }
        if self.left == self.burst {
            self.added = now;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 20;
    const EVERY: Duration = Duration::from_secs(5);

    #[test]
    fn a_flood_is_a_burst_of_lines_and_then_few_that_count_the_others() {
        let begin = Duration::from_secs(9);
        let mut rate = Rate::new(BURST, EVERY, begin);
        // A hundred a second for a minute.
        let told: Vec<u64> = (0..6_000).filter_map(|n| rate.count(begin + Duration::from_millis(10 * n))).collect();
        let burst = BURST as usize;
        assert_eq!(told.len(), burst + 11, "{told:?}");
        assert!(told[..burst].iter().all(|untold| *untold == 0) && told[burst + 1..] == [499; 10], "{told:?}");
    }

    #[test]
    fn what_happens_now_and_then_is_always_told() {
        let begin = Duration::from_secs(9);
        let mut rate = Rate::new(BURST, EVERY, begin);
        assert!((0..1_000).all(|n| rate.count(begin + EVERY * n) == Some(0)));
    }
}
