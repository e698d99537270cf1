//! Where a node's time goes: how long each stage of a request took, counted in buckets.
//!
//! The counts only grow, so what happened between two looks at a node is the difference of the two.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::named::named;

/// A stage on the way from a client's command to its answer, on one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Of a batch: from its first request to the batch's forming.
    Queue,
    /// Of a batch: from its forming to its first proposal in a slot, by this node.
    Proposal,
    /// Of a slot: from this node's proposal to the vote that the proposals and states of a quorum lead to.
    State,
    /// Of a slot: from the vote's way to the disk to its durability.
    Sync,
    /// Of a slot: from the durable vote to the decision.
    Vote,
    /// Of a slot: from the decision, over the decisions of all slots before it, to its application.
    Apply,
    /// Of the answers to one client: from the application to the encoded answers.
    Answer,
}

// In the order of a request's way.
named!(Stage {
    Queue = "queue",
    Proposal = "proposal",
    State = "state",
    Sync = "sync",
    Vote = "vote",
    Apply = "apply",
    Answer = "answer",
});

/// How long every stage took, so far. A stage that never happened may be missing.
pub type Stages = BTreeMap<Stage, Durations>;

/// Reads the stages that this program knows, and passes over those of later versions.
pub(crate) fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Stages, D::Error> {
    let stages = BTreeMap::<String, Durations>::deserialize(deserializer)?;
    Ok(stages.into_iter().filter_map(|(name, durations)| Some((Stage::named(&name)?, durations))).collect())
}

/// How often something took how long. Bucket i begins at i µs up to 4, then there are four buckets to each doubling:
/// 4, 5, 6, 7, 8, 10, 12, 14, 16, 20 …; a bucket ends where the next begins, but for the last, which has no end.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Durations(Vec<u64>);

impl Durations {
    /// How many buckets there are: the last begins at 58 seconds.
    pub const BUCKETS: usize = 100;

    /// The counts of the buckets, from the first on. Trailing zeros may be missing.
    pub fn new(mut counts: Vec<u64>) -> Durations {
        counts.truncate(counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1));
        Durations(counts)
    }

    /// The bucket of a duration in microseconds.
    pub fn bucket(us: u64) -> usize {
        let Some(exponent) = us.checked_ilog2().filter(|exponent| *exponent >= 2) else { return us as usize };
        let quarter = (us >> (exponent - 2)) as usize & 3;
        (4 * (exponent as usize - 1) + quarter).min(Self::BUCKETS - 1)
    }

    /// Where a bucket begins, in microseconds.
    fn begin(bucket: usize) -> u64 {
        match bucket {
            0..4 => bucket as u64,
            _ => (4 + bucket as u64 % 4) << (bucket / 4 - 1),
        }
    }

    /// Durations in all buckets.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What was counted since `earlier`, which is an older state of the same counts.
    pub fn since(&self, earlier: &Durations) -> Durations {
        let before = |bucket: usize| earlier.0.get(bucket).copied().unwrap_or(0);
        // A node that was started anew begins from zero.
        let counts = self.0.iter().enumerate().map(|(bucket, count)| count.saturating_sub(before(bucket)));
        Durations::new(counts.collect())
    }

    /// Adds the counts of another node.
    pub fn add(&mut self, other: &Durations) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(count, more)| *count += more);
    }

    /// The duration, in microseconds, that a share `q` of all was shorter than, interpolated inside its bucket. None where
    /// nothing was counted.
    pub fn quantile_us(&self, q: f64) -> Option<f64> {
        let wanted = q * self.count() as f64;
        let mut below = 0;
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            below += count;
            if below as f64 >= wanted {
                let inside = 1.0 - (below as f64 - wanted) / *count as f64;
                let (begin, end) = (Self::begin(bucket) as f64, Self::begin(bucket + 1) as f64);
                return Some(begin + inside.clamp(0.0, 1.0) * (end - begin));
            }
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_in_its_bucket() {
        for us in (0..5_000).chain([1 << 20, (1 << 26) - 1]) {
            let bucket = Durations::bucket(us);
            assert!(Durations::begin(bucket) <= us, "{us} µs in bucket {bucket}");
            let last = bucket == Durations::BUCKETS - 1;
            assert!(last || us < Durations::begin(bucket + 1), "{us} µs in bucket {bucket}");
        }
        assert_eq!(Durations::bucket(u64::MAX), Durations::BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_near() {
        let mut counts = vec![0; Durations::BUCKETS];
        (1..=1_000).for_each(|us| counts[Durations::bucket(us)] += 1);
        let durations = Durations::new(counts);
        for (q, us) in [(0.1, 100.0), (0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let found = durations.quantile_us(q).unwrap();
            assert!((found - us).abs() <= us / 8.0, "{q}: {found} instead of {us}");
        }
        assert_eq!(Durations::default().quantile_us(0.5), None);
    }

    #[test]
    fn the_difference_is_what_came_between() {
        let earlier = Durations::new(vec![1, 0, 2]);
        let later = Durations::new(vec![1, 0, 5, 7, 0]);
        assert_eq!(later.since(&earlier), Durations::new(vec![0, 0, 3, 7]));
        assert_eq!(earlier.since(&earlier).count(), 0);
        let mut sum = earlier.clone();
        sum.add(&Durations::new(vec![0, 1, 0, 4]));
        assert_eq!(sum, Durations::new(vec![1, 1, 2, 4]));
    }

    #[test]
    fn stages_are_named_as_on_the_wire() {
        for stage in Stage::ALL {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.name());
        }
    }
}
