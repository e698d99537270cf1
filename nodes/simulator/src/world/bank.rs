//! The bank of simulated nodes: what its part says is done here, and shown to the properties.

use std::time::Instant;

use rabia_bank_actors::consensus::agreement::Event;
use rabia_bank_actors::failure::Failure;
use rabia_bank_actors::ledger::MOST_AT_ONCE;
use rabia_bank_actors::parts::bank::words::{Install, ReadAt};
use rabia_bank_actors::parts::bank::{Bank, Out, Portions};
use rabia_bank_actors::snapshot::read_block;
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Slot};

use super::super::properties::{Check, Violation, books, check, log_time};
use super::super::workload::Workload;
use super::{MAILBOX, Mail, World, store_violation};

/// Nodes compare their states after every slot that is a multiple of this, too.
const COMPARED: Slot = 8;

/// Something for a bank to do.
pub(super) type ToBank<S> = Box<dyn FnOnce(&mut Bank<S>, Instant, &mut Vec<Out<S>>)>;

impl<W: Workload> World<W> {
    /// The bank of a node does something, and what follows is done. Nothing happens if the node is down.
    pub(super) fn bank(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Bank<W::Machine>, Instant, &mut Vec<Out<W::Machine>>),
    ) -> Check {
        let now = self.instant();
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let mut outs = Vec::new();
        act(&mut node.bank, now, &mut outs);
        self.perform_bank(index, outs)
    }

    /// The same, when what waits for the bank already has been done.
    pub(super) fn tell_bank(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Bank<W::Machine>, Instant, &mut Vec<Out<W::Machine>>) + 'static,
    ) {
        self.mail(index, MAILBOX, Mail::Bank(Box::new(act)));
    }

    fn perform_bank(&mut self, index: usize, outs: Vec<Out<W::Machine>>) -> Check {
        outs.into_iter().try_for_each(|out| self.perform_bank_one(index, out))
    }

    fn perform_bank_one(&mut self, index: usize, out: Out<W::Machine>) -> Check {
        match out {
            Out::Answers { to, answers, .. } => self.answered(index, &to, answers)?,
            // No client asks for it.
            Out::Status { .. } => {}
            Out::Read(number) => {
                self.read_rounds.asks(self.machines[index].id, number, self.agreement.slots());
                self.mail(index, MAILBOX, Mail::Events(vec![Event::Read(number)]));
            }
            Out::OwnDigest { slot, digest } => {
                self.mail(index, MAILBOX, Mail::Events(vec![Event::OwnDigest { slot, digest }]));
            }
            Out::Can(level) => self.mail(index, MAILBOX, Mail::Can(level)),
            Out::AppliedTime(time) => self.mail(index, MAILBOX, Mail::AppliedTime(time)),
            Out::Work { pause } => {
                let after = if pause.is_zero() { self.micros(1, 1_000) } else { pause };
                self.mail(index, after, Mail::Work);
            }
            Out::ReadBlock(number) => {
                self.report.count("blocks of the history read");
                let took = self.micros(100, 5_000);
                self.mail(index, took, Mail::ReadBlock(number));
            }
            Out::Collect { pause } => {
                let after = if pause.is_zero() { self.micros(20, 1_000) } else { pause };
                self.mail(index, after, Mail::Bank(Box::new(Bank::collect)));
            }
            Out::Save(snapshot) => {
                self.tell_snapshotter(index, |snapshotter, _, out| snapshotter.save(snapshot, out));
            }
            // Nobody waits for it.
            Out::Durable(_) => {}
            Out::Discard(_) => {}
            Out::Fail(why) => self.books_failed(index, &why)?,
        }
        Ok(())
    }

    /// A node's books can't be used.
    pub(super) fn books_failed(&mut self, index: usize, why: &Failure) -> Check {
        let machine = &self.machines[index];
        if machine.books.is_dead() {
            return self.crash(index, "its disk failed");
        }
        Err(store_violation(machine.id, why))
    }

    pub(super) fn apply(&mut self, index: usize, slot: Slot, batch: Option<(BatchId, Payload)>) -> Check {
        let (id, now) = (self.machines[index].id, self.instant());
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let before = node.bank.standpoint().applied;
        let level = node.bank.ledger().levels().level();
        let first = self.agreement.delivered(id, before, slot, batch.as_ref())?;
        let mut outs = Vec::new();
        let applied = node.bank.apply(now, slot, batch.clone(), &mut outs);
        let Some(applied) = applied else { return self.perform_bank(index, outs) };
        let ledger = node.bank.ledger();
        check(self.stores.tell(ledger.replacements().list(), slot), "one store a member", || {
            format!("after slot {slot} the ledger of node {id} knows of {:?}", ledger.replacements())
        })?;
        if first {
            let named = batch.as_ref().map(|(id, payload)| (id, payload));
            let clocks = self.machines.iter().map(|machine| machine.highest_clock);
            let usable = |payload: &&Payload| payload.contents::<W::Command>(level).is_ok();
            let payload = named.map(|(_, payload)| payload).filter(usable);
            log_time::decided(slot, payload, clocks)?;
            self.log_time.has_not_leapt(slot, payload, self.now)?;
            let replies = self.model.apply(slot, named).map_err(|what| Violation { property: "validity", what })?;
            let what = batch.as_ref().map_or("forfeited".into(), |(id, payload)| match payload.replacement() {
                Ok(Some((node, store))) => format!("batch {id}, node {node} has the store {store} now"),
                _ => format!("batch {id}, {} requests", payload.count().unwrap_or(0)),
            });
            self.trace.note(self.now, Some(slot), || format!("node {id} is the first to apply it: {what}"));
            let Some(node) = &mut self.machines[index].node else { return Ok(()) };
            let real = books::replies::<W>(node.bank.ledger(), &node.books, &applied);
            if let (Some((_, payload)), Some(real)) = (&batch, &real) {
                self.principals.applied::<W>(slot, payload, real)?;
            }
            books::same_replies::<W>(slot, real.as_deref(), replies.as_deref())?;
            W::holds(slot, node.bank.ledger(), &self.model)?;
        }
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let digest = node.bank.ledger().digest();
        self.digests.after(id, slot, digest)?;
        if slot.is_multiple_of(COMPARED) {
            self.mail(index, MAILBOX, Mail::Events(vec![Event::OwnDigest { slot, digest }]));
        }
        self.perform_bank(index, outs)
    }

    /// A state that came from a peer takes the place of the own one.
    pub(super) fn install(&mut self, index: usize, mut install: Install<W::Machine>) -> Check {
        let id = self.machines[index].id;
        self.digests.after(id, install.ledger.applied(), install.ledger.digest())?;
        let Some(node) = &self.machines[index].node else { return Ok(()) };
        let (own, new) = (node.bank.standpoint().applied, install.ledger.applied());
        check(new > own, "order", || format!("node {id} would go back from slot {own} to a snapshot at slot {new}"))?;
        self.bank(index, |bank, now, out| bank.install(now, install, out))
    }

    pub(super) fn read_at(&mut self, index: usize, read: u64, slot: Slot) -> Check {
        self.read_rounds.ends(self.machines[index].id, read, slot)?;
        self.bank(index, |bank, _, out| bank.read_at(ReadAt { read, slot }, out))
    }

    /// A turn of work: of few steps often, so that much is applied meanwhile, and of many now and then, without which some answers would
    /// never be made.
    pub(super) fn work(&mut self, index: usize) -> Check {
        let few = self.random.u32(..4) > 0;
        let (turn, slice) =
            if few { (self.random.u64(1..512), self.random.u64(1..128)) } else { (4_096, MOST_AT_ONCE) };
        let portions = Portions { turn, slice, ..portions() };
        self.bank(index, |bank, now, out| {
            bank.set_portions(portions);
            bank.work(now, out);
        })
    }

    pub(super) fn read_block(&mut self, index: usize, number: u64) -> Check {
        let Some(node) = &self.machines[index].node else { return Ok(()) };
        let block = read_block(&node.books, number).map_err(|error| Failure::from(&error));
        self.bank(index, |bank, now, out| bank.block_read(now, number, block, out))
    }
}

/// Transactions that a feed is looked at for at a time …
pub(super) const FOLLOW_SCAN: u64 = 64;
/// … and that a follower is told of at a time.
pub(super) const FOLLOW_PAGE: usize = 10;

/// What a bank does at a time before its first turn of work.
pub(super) fn portions() -> Portions {
    Portions { follow_scan: FOLLOW_SCAN, follow_page: FOLLOW_PAGE, ..Portions::default() }
}
