//! Whether clients may be answered at all (rule 12 of the protocol): not while the node is in doubt about its log or state, and no
//! read of what is on its disk before it has met a quorum that lets it speak. And what lets a doubt arise: the digests that nodes
//! compare.

use rabia_bank_messages::bank::ReadLevel;
use rabia_bank_messages::ids::Slot;

use super::{Bank, Out};
use crate::ledger::machine::StateMachine;
use crate::parts::clients::{Answered, Client};

/// What of the bank may be believed.
pub(super) struct Trust<S: StateMachine> {
    pub(super) in_doubt: bool,
    pub(super) admitted: bool,
    /// Answers that wait for the end of a doubt: clients had asked before it.
    held: Vec<(Client<S>, Vec<Answered<S>>)>,
    /// What was applied when the bank looked last, and the last slot whose digest it told.
    seen: Slot,
    told: Slot,
}

impl<S: StateMachine> Default for Trust<S> {
    fn default() -> Trust<S> {
        Trust { in_doubt: false, admitted: false, held: Vec::new(), seen: 0, told: 0 }
    }
}

impl<S: StateMachine> Trust<S> {
    /// Whether a read may begin. A round of reads asks whether this store may speak.
    pub(super) fn may_read(&self, level: ReadLevel) -> bool {
        !self.in_doubt && (self.admitted || level == ReadLevel::Linearizable)
    }

    /// Drops answers to clients that have gone.
    pub(super) fn sweep(&mut self) {
        self.held.retain(|(client, _)| !client.is_gone());
    }
}

impl<S: StateMachine> Bank<S> {
    /// Another member has another log or state than this node: no client is answered until that is settled. With false: it is settled.
    pub fn doubt(&mut self, in_doubt: bool, out: &mut Vec<Out<S>>) {
        self.trust.in_doubt = in_doubt;
        if !in_doubt {
            let held = std::mem::take(&mut self.trust.held);
            out.extend(held.into_iter().map(|(to, answers)| Out::Answers { to, answers, applied: false }));
            self.ask_again(out);
        }
    }

    /// Links to a quorum have worked: reads of what is applied here may be answered.
    pub fn admitted(&mut self, out: &mut Vec<Out<S>>) {
        self.trust.admitted = true;
        self.ask_again(out);
    }

    /// Sends answers to a client, once they may be sent. `applied`: they come from the slot that is being applied.
    pub(super) fn send(&mut self, to: Client<S>, answers: Vec<Answered<S>>, applied: bool, out: &mut Vec<Out<S>>) {
        if self.trust.in_doubt {
            self.trust.held.push((to, answers));
        } else {
            out.push(Out::Answers { to, answers, applied });
        }
    }

    /// Others compare states with this node's also where no multiple comes for long.
    pub(super) fn tell_digest_when_idle(&mut self, out: &mut Vec<Out<S>>) {
        let applied = self.ledger.applied();
        if self.trust.seen == applied && self.trust.told != applied && applied > 0 {
            self.tell_digest(applied, out);
        }
        self.trust.seen = applied;
    }

    /// Lets others compare their states with this node's after the slot that is applied.
    pub(super) fn tell_digest(&mut self, slot: Slot, out: &mut Vec<Out<S>>) {
        self.trust.told = slot;
        out.push(Out::OwnDigest { slot, digest: self.ledger.digest() });
    }
}
