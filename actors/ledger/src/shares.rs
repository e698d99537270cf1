//! What each principal has of what all share: open sessions, and bytes of kept replies.
//!
//! Of what the others leave, one principal may have three quarters. So there is room for one that comes new, whatever those do that
//! were there before, and a principal that is alone has three quarters of all. Both sums follow from the sessions that are open, so all
//! nodes agree on them.

use std::collections::{BTreeMap, BTreeSet};

use rabia_bank_messages::ids::Millis;
use rabia_bank_messages::principal::PrincipalNumber;

/// Of what others leave of all, one may have so much.
pub(super) fn share(all: u64, others: u64) -> u64 {
    let left = all.saturating_sub(others);
    left - left / 4
}

/// What the principals have that have a session open.
#[derive(Debug, Default)]
pub(super) struct Shares(BTreeMap<PrincipalNumber, Share>);

#[derive(Debug, Default)]
struct Share {
    /// Its sessions, as they are filed by their last use.
    by_use: BTreeSet<(Millis, u64)>,
    /// What they keep of the shared part, in bytes.
    kept: usize,
}

impl Shares {
    /// A session of this principal is open, filed like this.
    pub(super) fn opened(&mut self, principal: PrincipalNumber, filed: (Millis, u64)) {
        self.0.entry(principal).or_default().by_use.insert(filed);
    }

    /// A session of this principal has ended, and keeps nothing any more.
    pub(super) fn ended(&mut self, principal: PrincipalNumber, filed: (Millis, u64)) {
        let Some(share) = self.0.get_mut(&principal) else { return };
        share.by_use.remove(&filed);
        if share.by_use.is_empty() {
            assert_eq!(share.kept, 0, "principal {principal} keeps replies without a session");
            self.0.remove(&principal);
        }
    }

    /// How many sessions of this principal are open.
    pub(super) fn sessions(&self, principal: PrincipalNumber) -> u64 {
        self.0.get(&principal).map_or(0, |share| share.by_use.len() as u64)
    }

    /// The session of this principal that is filed first.
    pub(super) fn first(&self, principal: PrincipalNumber) -> Option<(Millis, u64)> {
        self.0.get(&principal)?.by_use.first().copied()
    }

    /// What the sessions of this principal keep of the shared part, in bytes.
    pub(super) fn kept(&self, principal: PrincipalNumber) -> usize {
        self.0.get(&principal).map_or(0, |share| share.kept)
    }

    /// A session of this principal keeps so much of the shared part, where it kept so much.
    pub(super) fn keeps(&mut self, principal: PrincipalNumber, before: usize, now: usize) {
        if let Some(share) = self.0.get_mut(&principal) {
            share.kept = share.kept + now - before;
        }
    }
}
