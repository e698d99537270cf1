//! The links to peers, and what is due by time alone.

use std::time::Duration;

use rabia_bank_messages::ids::{MAX_NODES, NodeId};

use super::setting::Setting;
use crate::forks::Forks;

/// Rule 9: what was said for an undecided slot is said again after this time.
const REPEAT: Duration = Duration::from_millis(250);
/// How often an idle node says how far it is.
const ALIVE: Duration = Duration::from_millis(200);
/// A node that is linked to no member that its log knows for so long takes decided slots from a stranger.
const ALONE: Duration = Duration::from_secs(5);

/// Which peers are linked, and when something was last said to all.
#[derive(Clone, Debug)]
pub(super) struct Links {
    setting: Setting,
    up: [bool; MAX_NODES],
    /// Whether this node dialled the link that comes up next.
    dialled: [bool; MAX_NODES],
    repeated: Duration,
    alive: Duration,
    /// Since when this node is linked to no member that its log knows.
    alone_since: Option<Duration>,
    /// It has been so for long.
    alone: bool,
}

impl Links {
    pub(super) fn new(setting: Setting) -> Links {
        Links {
            setting,
            up: [false; MAX_NODES],
            dialled: [false; MAX_NODES],
            repeated: Duration::ZERO,
            alive: Duration::ZERO,
            alone_since: None,
            alone: false,
        }
    }

    /// The link to a peer that comes up next was dialled by this node, or not.
    pub(super) fn note_dialled(&mut self, peer: NodeId, dialled: bool) {
        self.dialled[peer.index()] = dialled;
    }

    /// A link works. Answers whether this node dialled it.
    pub(super) fn connect(&mut self, peer: NodeId) -> bool {
        self.up[peer.index()] = true;
        self.dialled[peer.index()]
    }

    pub(super) fn disconnect(&mut self, peer: NodeId) {
        self.up[peer.index()] = false;
    }

    pub(super) fn is_up(&self, peer: NodeId) -> bool {
        self.up[peer.index()]
    }

    /// The peers that are linked and have not said that their log is another one.
    pub(super) fn heard<'a>(&'a self, forks: &'a Forks) -> impl Iterator<Item = NodeId> + 'a {
        self.setting.others().filter(|node| self.is_up(*node) && !forks.differs(*node))
    }

    /// Whether what was said is to be said again, after so long without progress.
    pub(super) fn repeats(&mut self, now: Duration, progressed: Duration) -> bool {
        let due = now.saturating_sub(self.repeated.max(progressed)) >= REPEAT;
        if due {
            self.repeated = now;
        }
        due
    }

    /// Whether all are to be told how far this node is.
    pub(super) fn says_alive(&mut self, now: Duration) -> bool {
        let due = now.saturating_sub(self.alive) >= ALIVE;
        if due {
            self.alive = now;
        }
        due
    }

    /// Whether this node has been linked to nobody whom its log knows for long, but to others.
    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Takes note of who is linked: anybody whom the log knows, anybody at all. True if this node is alone from now on.
    pub(super) fn look_who_is_known(&mut self, now: Duration, known: bool, any: bool) -> bool {
        if known {
            (self.alone_since, self.alone) = (None, false);
            return false;
        }
        let since = *self.alone_since.get_or_insert(now);
        let begins = !self.alone && any && now.saturating_sub(since) >= ALONE;
        self.alone |= begins;
        begins
    }
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::genesis::Genesis;
    use rabia_bank_messages::ids::{ClusterId, StoreId};

    use super::*;

    fn links() -> Links {
        let stores: Vec<_> = (1..=3).map(|number| StoreId([number; 16])).collect();
        let (me, store) = (NodeId::new(1).unwrap(), stores[0]);
        Links::new(Setting::new(&Genesis::new(ClusterId([1; 16]), stores), me, store))
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn what_was_said_is_repeated_only_without_progress() {
        let mut links = links();
        assert!(!links.repeats(ms(249), ms(0)) && links.repeats(ms(250), ms(0)));
        assert!(!links.repeats(ms(499), ms(0)) && !links.repeats(ms(500), ms(300)));
        assert!(links.repeats(ms(550), ms(300)));
        assert!(!links.says_alive(ms(199)) && links.says_alive(ms(200)) && !links.says_alive(ms(201)));
    }

    #[test]
    fn a_node_is_alone_among_strangers_after_a_while() {
        let mut links = links();
        assert!(!links.look_who_is_known(ms(0), false, false));
        assert!(!links.look_who_is_known(ms(9_000), false, false), "nobody is there whom it could ask");
        assert!(links.look_who_is_known(ms(9_001), false, true) && links.is_alone());
        assert!(!links.look_who_is_known(ms(9_002), false, true), "that is said once");
        links.look_who_is_known(ms(9_003), true, true);
        assert!(!links.is_alone());
        assert!(!links.look_who_is_known(ms(9_004), false, true), "the time begins anew");
    }
}
