//! Quiet: when nobody wants anything, nothing is written and no slot is spoken in, for seconds.
//!
//! Source: PROTOCOL.md, "Slots together": an idle cluster writes nothing and sends only keep-alives.

use std::time::Duration;

/// Nothing happens for so long when the cluster is at rest.
const AT_REST: Duration = Duration::from_secs(2);

/// When something happened last.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    last: Duration,
    what: &'static str,
    times: u64,
}

impl Quiet {
    /// From now on it should become quiet.
    pub(crate) fn watch(&mut self, now: Duration) {
        *self = Quiet { last: now, what: "nothing", times: 0 };
    }

    /// Something happened that doesn't in an idle cluster.
    pub(crate) fn disturbed(&mut self, now: Duration, what: &'static str) {
        (self.last, self.what) = (now, what);
        self.times += 1;
    }

    /// Whether it is quiet.
    pub(crate) fn is_at_rest(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) >= AT_REST
    }

    /// What keeps it from that.
    pub(crate) fn describe(&self) -> String {
        format!("the cluster is not at rest: {} ({} disturbances)", self.what, self.times)
    }
}
