//! Sending answers, or holding them while the node is in doubt; and what lets a doubt arise: the digests that nodes compare.

use actix::prelude::*;
use rabia_bank_messages::ids::Slot;

use super::Bank;
use crate::mail::bank::{Admitted, Doubt};
use crate::mail::client_session::{Answers, Client};
use crate::mail::voter::OwnDigest;

impl Bank {
    /// Sends answers to a client, once they may be sent.
    pub(super) fn send(&self, client: &Client, answers: Answers) {
        if self.trust.in_doubt {
            self.trust.held.borrow_mut().push((client.clone(), answers));
        } else {
            client.tell(answers);
        }
    }

    /// Others compare states with this node's also where no multiple comes for long.
    pub(super) fn tell_digest_when_idle(&mut self) {
        let applied = self.ledger.applied();
        if self.trust.seen == applied && self.trust.told != applied && applied > 0 {
            self.tell_digest(applied);
        }
        self.trust.seen = applied;
    }

    /// Lets others compare their states with this node's after the slot that is applied.
    pub(super) fn tell_digest(&mut self, slot: Slot) {
        self.trust.told = slot;
        self.neighbours.voter.own_digest.do_send(OwnDigest { slot, digest: self.ledger.digest() });
    }
}

impl Handler<Doubt> for Bank {
    type Result = ();

    fn handle(&mut self, Doubt(in_doubt): Doubt, ctx: &mut Self::Context) {
        self.trust.in_doubt = in_doubt;
        if !in_doubt {
            for (client, answers) in self.trust.held.take() {
                client.tell(answers);
            }
            self.ask_again(ctx);
        }
    }
}

impl Handler<Admitted> for Bank {
    type Result = ();

    fn handle(&mut self, _: Admitted, ctx: &mut Self::Context) {
        self.trust.admitted = true;
        self.ask_again(ctx);
    }
}
