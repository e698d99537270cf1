//! The snapshotter of simulated nodes, and the writer of their books: what the part says is done here, and shown to the properties.

use std::time::Instant;

use rabia_bank_actors::consensus::agreement::Event;
use rabia_bank_actors::ledger::replicated::Replicated;
use rabia_bank_actors::parts::bank::words::Install;
use rabia_bank_actors::parts::snapshotter::books_writer::Outcome;
use rabia_bank_actors::parts::snapshotter::{Out, SendEntries, Snapshotter, offer};
use rabia_bank_actors::snapshot::Decision;
use rabia_bank_messages::ids::{Digest, Slot};
use rabia_bank_storage::{Entries, StoreError};

use super::super::properties::{Check, check};
use super::super::workload::Workload;
use super::{File, MAILBOX, Mail, Node, World, store_violation};

/// Bytes of decided slots in one answer: small, so that catching up takes several.
const ENTRIES_BYTES: usize = 16 * 1024;

/// Something for a snapshotter to do.
pub(super) type ToSnapshotter<S> = Box<dyn FnOnce(&mut Snapshotter<S>, Instant, &mut Vec<Out<S>>)>;

impl<W: Workload> World<W> {
    /// The snapshotter of a node does something, and what follows is done. Nothing happens if the node is down.
    pub(super) fn snapshotter(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Snapshotter<W::Machine>, Instant, &mut Vec<Out<W::Machine>>),
    ) -> Check {
        let now = self.instant();
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let mut outs = Vec::new();
        act(&mut node.snapshotter, now, &mut outs);
        outs.into_iter().try_for_each(|out| self.perform_snapshotter(index, out))
    }

    /// The same, when what waits for the snapshotter already has been done.
    pub(super) fn tell_snapshotter(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Snapshotter<W::Machine>, Instant, &mut Vec<Out<W::Machine>>) + 'static,
    ) {
        self.mail(index, MAILBOX, Mail::Snapshotter(Box::new(act)));
    }

    fn perform_snapshotter(&mut self, index: usize, out: Out<W::Machine>) -> Check {
        match out {
            Out::Work(job) => {
                let slow = self.machines[index].slow_until > self.now;
                let took = if slow { self.micros(5_000, 200_000) } else { self.micros(300, 4_000) };
                if let Some(node) = &mut self.machines[index].node {
                    node.working = Some(job);
                    self.mail(index, took, Mail::Worked);
                }
            }
            out @ (Out::ReadEntries(_) | Out::ReadPayload { .. } | Out::ReadHash { .. } | Out::ReadRows { .. }) => {
                let took = self.micros(50, 2_500);
                self.mail(index, took, Mail::Read(out));
            }
            Out::AskStandpoint { from, log_from } => {
                let Some(node) = &self.machines[index].node else { return Ok(()) };
                let standpoint = node.bank.standpoint();
                self.tell_snapshotter(index, move |snapshotter, _, out| {
                    snapshotter.standpoint(from, log_from, standpoint, out);
                });
            }
            Out::Say(to, message) => self.send(index, to.index(), message)?,
            Out::Saved(saved) => self.tell_bank(index, move |bank, now, out| bank.saved(now, saved, out)),
            Out::Received(slot) => self.tell_bank(index, move |bank, _, _| bank.received(slot)),
            Out::Superseded(slot) => self.tell_bank(index, move |bank, now, out| bank.superseded(now, slot, out)),
            Out::Compact(upto) => self.compact(index, upto),
            Out::Installed { slot, hash, ledger, decisions } => {
                self.mail(index, MAILBOX, Mail::Installed { slot, hash, ledger, decisions });
            }
            Out::LookedUp { slot, hash } => {
                self.mail(index, MAILBOX, Mail::Events(vec![Event::LookedUp { slot, hash }]));
            }
            Out::OtherHistory { peer, slot } => {
                self.mail(index, MAILBOX, Mail::Events(vec![Event::OtherHistory(peer, slot)]));
            }
            Out::Fail(why) => self.books_failed(index, &why)?,
        }
        Ok(())
    }

    /// The writer of the books does its job.
    pub(super) fn worked(&mut self, index: usize) -> Check {
        let machine = &mut self.machines[index];
        let Some(node) = &mut machine.node else { return Ok(()) };
        let Some(job) = node.working.take() else { return Ok(()) };
        if machine.failing.take_if(|file| *file == File::Books).is_some() {
            machine.books.fail_after(0);
        }
        let outcome = node.writer.work(job);
        self.look_at(index, &outcome)?;
        self.snapshotter(index, |snapshotter, now, out| snapshotter.worked(now, outcome, out))
    }

    /// What may come of a job, and what may not.
    fn look_at(&mut self, index: usize, outcome: &Outcome<W::Machine>) -> Check {
        let machine = &self.machines[index];
        let id = machine.id;
        let from = machine.node.as_ref().and_then(|node| node.snapshotter.receives_from());
        match outcome {
            Outcome::Saved { slot, .. } => {
                self.report.count("snapshots saved");
                self.disturbs(index, "a snapshot is saved");
                self.trace.note(self.now, None, || format!("node {id} has saved a snapshot at slot {slot}"));
            }
            Outcome::Overtaken { .. } => self.report.count("snapshots overtaken"),
            // The next peer that is asked for slots may have another one.
            Outcome::GaveUp(_) if from.is_some_and(|from| self.machines[from.index()].babbles) => {
                self.report.count("snapshots of babblers given up");
            }
            Outcome::GaveUp(why) => {
                return check(false, "snapshots", || format!("node {id} could not take one: {why}"));
            }
            Outcome::OtherHistory { slot, why } => {
                return check(false, "one log", || format!("node {id} has another history than slot {slot}: {why}"));
            }
            Outcome::Ask(_)
            | Outcome::Installed { .. }
            | Outcome::Failed(_)
            | Outcome::Superseded { .. }
            | Outcome::Nothing => {}
        }
        Ok(())
    }

    /// The voter goes on behind a snapshot, if the slots did not come one by one meanwhile.
    pub(super) fn installed(
        &mut self,
        index: usize,
        (slot, hash): (Slot, Digest),
        ledger: Box<Replicated<W::Machine>>,
        decisions: Vec<Decision>,
    ) -> Check {
        let id = self.machines[index].id;
        let (replacements, before) = (ledger.replacements().clone(), decisions.clone());
        let acted = self.act(index, |voter, now, out| voter.installed(now, (slot, hash), before, replacements, out));
        let Some((outs, true)) = acted else { return Ok(()) };
        self.report.count("snapshots installed");
        self.trace.note(self.now, None, || format!("node {id} goes on from a snapshot at slot {slot}"));
        for (slot, value) in &decisions {
            self.agreement.remembered(id, *slot, *value)?;
        }
        // Before it hears of anything that follows.
        self.mail(index, MAILBOX, Mail::Install(Install { hash, ledger, decisions }));
        self.perform(index, outs)
    }

    /// Something was read for a peer, or for the voter.
    pub(super) fn read_for_peer(&mut self, index: usize, wanted: Out<W::Machine>) -> Check {
        let (id, piece) = (self.machines[index].id, self.piece);
        let Some(node) = &self.machines[index].node else { return Ok(()) };
        let failed = |error: StoreError| store_violation(id, &error);
        match wanted {
            Out::ReadEntries(request) => {
                let (before, entries) = entries(node, request).map_err(failed)?;
                self.snapshotter(index, |snapshotter, _, out| snapshotter.entries_read(request, before, entries, out))
            }
            Out::ReadPayload { to, id } => {
                let payload = node.store.reader().payload(&id).map_err(failed)?;
                self.snapshotter(index, |snapshotter, _, out| snapshotter.payload_read(to, id, payload, out))
            }
            Out::ReadHash { to, slot } => {
                let hash = node.store.reader().hash(slot).map_err(failed)?;
                self.snapshotter(index, |snapshotter, _, out| snapshotter.hash_read(to, slot, hash, out))
            }
            Out::ReadRows { to, view, at } => {
                let rows = offer::rows_at(&view, at, piece).map_err(failed)?;
                self.snapshotter(index, |snapshotter, now, out| snapshotter.rows_read(now, to, at, (view, rows), out))
            }
            _ => Ok(()),
        }
    }

    /// Decided slots up to this one may go.
    fn compact(&mut self, index: usize, upto: Slot) {
        let Some(node) = &mut self.machines[index].node else { return };
        if node.log.compact(upto) {
            self.mail(index, MAILBOX, Mail::Write);
        }
    }
}

/// The decided slots that a peer lacks, and the hash of the log before them.
fn entries<W: Workload>(
    node: &Node<W>,
    SendEntries { from, .. }: SendEntries,
) -> Result<(Option<Digest>, Entries), StoreError> {
    let reader = node.store.reader();
    Ok((reader.hash(from.saturating_sub(1))?, reader.entries(from, ENTRIES_BYTES)?))
}
