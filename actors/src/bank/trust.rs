//! Whether clients may be answered at all (rule 12 of the protocol): not while the node is in doubt about its log or state, and no
//! read of what is on its disk before it has met a quorum that lets it speak.

use std::cell::RefCell;

use actix::prelude::*;
use rabia_bank_messages::bank::ReadLevel;
use rabia_bank_messages::ids::{Digest, Slot};

use super::{Answers, Bank, ClientId};
use crate::voter::OwnDigest;

/// What is this node's newest transaction, and its hash? 0 if there is none.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "(u64, Digest)")]
pub struct Newest;

/// Another member has another log or state than this node: no client is answered until that is settled.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Doubt(pub bool);

/// Links to a quorum have worked: this store is no old copy that anybody knows of. Reads of what is applied here may be answered.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Admitted;

/// What of the bank may be believed.
#[derive(Default)]
pub(super) struct Trust {
    pub(super) in_doubt: bool,
    pub(super) admitted: bool,
    /// Answers that wait for the end of a doubt, of clients that are there: what they had asked before it.
    held: RefCell<Vec<(ClientId, Answers)>>,
    /// What was applied when the bank looked last, and the last slot whose digest it told.
    seen: Slot,
    told: Slot,
}

impl Trust {
    /// Whether a read may begin. A round of reads asks whether this store may speak.
    pub(super) fn may_read(&self, level: ReadLevel) -> bool {
        !self.in_doubt && (self.admitted || level == ReadLevel::Linearizable)
    }

    /// A client has gone.
    pub(super) fn remove(&mut self, client: ClientId) {
        self.held.get_mut().retain(|(to, _)| *to != client);
    }
}

impl Bank {
    /// Sends answers to a client, once they may be sent.
    pub(super) fn send(&self, client: ClientId, answers: Answers) {
        if self.trust.in_doubt {
            if self.clients.contains_key(&client) {
                self.trust.held.borrow_mut().push((client, answers));
            }
        } else {
            self.send_now(client, answers);
        }
    }

    /// Sends answers that tell nothing of what clients keep in the bank.
    pub(super) fn send_now(&self, client: ClientId, answers: Answers) {
        if let Some(client) = self.clients.get(&client) {
            client.answers.do_send(answers);
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
        self.voter.do_send(OwnDigest { slot, digest: self.ledger.digest() });
    }
}

impl Handler<Newest> for Bank {
    type Result = MessageResult<Newest>;

    fn handle(&mut self, _: Newest, _: &mut Self::Context) -> Self::Result {
        MessageResult((self.ledger.newest_transaction(), self.ledger.chain_head()))
    }
}

impl Handler<Doubt> for Bank {
    type Result = ();

    fn handle(&mut self, Doubt(in_doubt): Doubt, ctx: &mut Self::Context) {
        self.trust.in_doubt = in_doubt;
        if !in_doubt {
            for (client, answers) in self.trust.held.take() {
                self.send_now(client, answers);
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
