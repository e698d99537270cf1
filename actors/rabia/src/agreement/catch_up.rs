//! Catching up: how far peers are, and whom to ask for decided slots.

use std::time::Duration;

use rabia_bank_messages::ids::{MAX_NODES, NodeId, Slot};
use rabia_bank_messages::peer::PeerMessage;

use crate::words::Effect;

/// A node that makes no progress for this time while a peer knows more asks for the decided slots.
const STALLED: Duration = Duration::from_millis(100);
/// An unanswered request for decided slots is repeated, to another peer, after this time.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// A peer that did not answer so many requests for decided slots with any is not believed to have them.
const MISSES: u32 = 8;

/// What peers know that this node does not.
#[derive(Clone, Debug, Default)]
pub(super) struct CatchUp {
    /// What each peer says that it knows decided.
    known: [Slot; MAX_NODES],
    /// Requests for decided slots that each peer left without an answer, since it gave one.
    misses: [u32; MAX_NODES],
    /// The request that waits for an answer: since when, and of whom.
    asked: Option<(Duration, NodeId)>,
    /// How often somebody was chosen.
    turns: usize,
    /// Peers whose log begins at this slot, and that were asked whether they have this node's history.
    snapshots: [Option<Slot>; MAX_NODES],
}

impl CatchUp {
    /// A link came up: what its peer knows, it says anew.
    pub(super) fn link_up(&mut self, peer: NodeId) {
        let index = peer.index();
        (self.known[index], self.misses[index], self.snapshots[index]) = (0, 0, None);
    }

    /// A peer knows at least this slot decided, by what it says.
    pub(super) fn knows(&mut self, peer: NodeId, decided: Slot) {
        let known = &mut self.known[peer.index()];
        *known = decided.max(*known);
    }

    /// A peer says how far it is, which may be less than what was once said in its name.
    pub(super) fn says(&mut self, peer: NodeId, decided: Slot) {
        self.known[peer.index()] = decided;
    }

    /// How far a peer says that it is.
    pub(super) fn known(&self, peer: NodeId) -> Slot {
        self.known[peer.index()]
    }

    /// The furthest slot that one of these is known to have. One that says so and never shows it is not believed.
    pub(super) fn known_elsewhere(&self, nodes: impl Iterator<Item = NodeId>) -> Slot {
        nodes.filter(|peer| self.misses[peer.index()] < MISSES).map(|peer| self.known(peer)).max().unwrap_or(0)
    }

    /// Whether slots are missing that agreement alone does not bring: peers know `furthest`, beyond the window, or this node has made
    /// no progress since `progressed`.
    pub(super) fn is_needed(now: Duration, furthest: Slot, frontier: Slot, window: u64, progressed: Duration) -> bool {
        let stalled = now.saturating_sub(progressed) >= STALLED;
        furthest > frontier + window || (furthest > frontier && stalled)
    }

    /// Whether the request that was sent last may still be answered. If it was left for too long, its peer is asked less.
    pub(super) fn is_waiting(&mut self, now: Duration, is_up: impl Fn(NodeId) -> bool) -> bool {
        let Some((asked, peer)) = self.asked.filter(|(_, peer)| is_up(*peer)) else { return false };
        if now.saturating_sub(asked) < ASK_AGAIN {
            return true;
        }
        let misses = &mut self.misses[peer.index()];
        *misses = misses.saturating_add(1);
        false
    }

    /// The peer to ask for decided slots: of these, that say that they know more, the next in turn that has left the fewest
    /// requests without an answer.
    pub(super) fn whom_to_ask(&mut self, ahead: &[NodeId]) -> Option<NodeId> {
        let fewest = ahead.iter().map(|peer| self.misses[peer.index()]).min()?;
        let best: Vec<_> = ahead.iter().filter(|peer| self.misses[peer.index()] == fewest).collect();
        let peer = *best[self.turns % best.len()];
        self.turns += 1;
        Some(peer)
    }

    /// Asks a peer for what is decided behind the frontier.
    pub(super) fn ask(&mut self, now: Duration, peer: NodeId, frontier: Slot, effects: &mut Vec<Effect>) {
        self.asked = Some((now, peer));
        effects.push(Effect::Send(peer, PeerMessage::CatchUp { from: frontier + 1 }));
    }

    /// Whether this peer was asked last.
    pub(super) fn is_asked(&self, peer: NodeId) -> bool {
        self.asked.is_some_and(|(_, asked)| asked == peer)
    }

    /// A peer sent what this node did not know.
    pub(super) fn is_answered(&mut self, by: NodeId) {
        self.misses[by.index()] = 0;
        self.asked.take_if(|(_, asked)| *asked == by);
    }

    /// A snapshot brought this node further.
    pub(super) fn installed(&mut self) {
        self.asked = None;
        self.misses = [0; MAX_NODES];
    }

    // ----- snapshots -----

    /// A peer's log begins at this slot, and it was asked whether it has this node's history.
    pub(super) fn note_snapshot(&mut self, peer: NodeId, log_from: Slot) {
        self.snapshots[peer.index()] = Some(log_from);
    }

    /// Where a peer's log begins that was asked whether it has this node's history.
    pub(super) fn snapshot(&self, peer: NodeId) -> Option<Slot> {
        self.snapshots[peer.index()]
    }

    /// Nobody waits for what that peer says of its history.
    pub(super) fn forget_snapshot(&mut self, peer: NodeId) {
        self.snapshots[peer.index()] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn who_is_in_the_window_waits_for_agreement_first() {
        let is_needed = |now, furthest| CatchUp::is_needed(ms(now), furthest, 100, 16, ms(0));
        assert!(!is_needed(0, 116) && is_needed(0, 117), "beyond the window");
        assert!(!is_needed(99, 101) && is_needed(100, 101), "without progress");
        assert!(!is_needed(100_000, 100), "nobody knows more");
    }

    #[test]
    fn who_leaves_requests_without_an_answer_is_asked_less_and_believed_no_more() {
        let (mut catch_up, all) = (CatchUp::default(), [node(2), node(3)]);
        catch_up.knows(node(2), 50);
        catch_up.knows(node(3), 40);
        let mut asked = Vec::new();
        let mut effects = Vec::new();
        for round in 0..6 {
            let now = ms(round * 500);
            assert!(!catch_up.is_waiting(now, |_| true));
            let peer = catch_up.whom_to_ask(&all).unwrap();
            catch_up.ask(now, peer, 7, &mut effects);
            assert!(catch_up.is_waiting(now + ms(499), |_| true));
            assert!(!catch_up.is_waiting(now, |_| false), "its link broke");
            asked.push(peer);
            if peer == node(3) {
                catch_up.is_answered(peer);
                assert!(!catch_up.is_asked(peer));
            }
        }
        assert_eq!(asked[0], node(2));
        assert_eq!(asked[1..], [node(3); 5], "the one that answers");
        for _ in 0..MISSES {
            catch_up.ask(ms(0), node(2), 7, &mut effects);
            catch_up.is_waiting(ms(500), |_| true);
        }
        assert_eq!(catch_up.known_elsewhere(all.into_iter()), 40);
        catch_up.link_up(node(2));
        catch_up.says(node(2), 60);
        assert_eq!(catch_up.known_elsewhere(all.into_iter()), 60);
    }
}
