//! The voter and the log of simulated nodes: what their parts say is done here, and shown to the properties.

use std::time::Duration;

use rabia_bank_actors::consensus::agreement::{Event, Ticket};
use rabia_bank_actors::parts::log::Begun;
use rabia_bank_actors::parts::snapshotter::SendEntries;
use rabia_bank_actors::parts::voter::{End, MEET_AGAIN, Out, Voter, Warning};
use rabia_bank_messages::ids::{BatchId, Slot};
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_messages::promise::Commit;

use super::super::properties::{Check, check};
use super::super::workload::Workload;
use super::{File, Loss, MAILBOX, Mail, World, store_violation};

impl<W: Workload> World<W> {
    // ----- the voter -----

    /// The voter of a node does something, and what follows is done. Nothing happens if the node is down.
    pub(super) fn voter(&mut self, index: usize, act: impl FnOnce(&mut Voter, Duration, &mut Vec<Out>)) -> Check {
        self.weak_mvc.begins(None);
        let Some((outs, ())) = self.act(index, act) else { return Ok(()) };
        self.perform(index, outs)
    }

    /// The same without what follows.
    pub(super) fn act<T>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Voter, Duration, &mut Vec<Out>) -> T,
    ) -> Option<(Vec<Out>, T)> {
        let machine = &mut self.machines[index];
        let node = machine.node.as_mut()?;
        let mut outs = Vec::new();
        let answer = act(&mut node.voter, self.now - node.started, &mut outs);
        // What is delivered was held, though it may be let go of by now.
        let applied = |batch: &BatchId| {
            outs.iter().any(|out| matches!(out, Out::Apply(_, Some((applied, _))) if applied == batch))
        };
        self.weak_mvc.heard(machine.id, |batch| node.voter.core().holds(batch) || applied(batch));
        Some((outs, answer))
    }

    pub(super) fn tell(&mut self, index: usize, event: Event) -> Check {
        self.voter(index, |voter, now, out| voter.tell(now, [event], out))
    }

    pub(super) fn persisted(&mut self, index: usize, ticket: Ticket) -> Check {
        self.voter(index, |voter, now, out| voter.persisted(now, ticket, out))
    }

    /// A node hears a message that is no nonsense.
    pub(super) fn hear(&mut self, index: usize, from: usize, message: PeerMessage) -> Check {
        let slot = self.hears(index, from, &message);
        let (id, peer) = (self.machines[index].id, self.machines[from].id);
        let acted = self.act(index, |voter, now, out| voter.from_peer(now, peer, [message], out));
        self.perform(index, acted.map_or(Vec::new(), |(outs, ())| outs))?;
        slot.map_or(Ok(()), |slot| self.weak_mvc.acted(id, slot))
    }

    /// The properties take note of what a node is about to hear. Answers the slot, if it is about one.
    fn hears(&mut self, index: usize, from: usize, message: &PeerMessage) -> Option<Slot> {
        let link = self.network.link(index, from);
        let (machine, from) = (&self.machines[index], &self.machines[from]);
        let node = machine.node.as_ref()?;
        let core = node.voter.core();
        self.weak_mvc.begins(Some(message));
        self.read_rounds.hears(machine.id, from.id, message);
        let frontier = core.frontier();
        if let PeerMessage::Promised { count, .. } = message
            && node.let_in[from.id.index()] == link
        {
            self.old_copies.hears(machine.store, from.store, *count);
        }
        let slot = match message {
            PeerMessage::Proposal { slot, .. } | PeerMessage::State { slot, .. } | PeerMessage::Vote { slot, .. } => {
                *slot
            }
            _ => return None,
        };
        if self.stores.counts(from.id, from.store, slot, frontier) && !core.has_other_log(from.id) {
            self.weak_mvc.hears::<W::Command>(machine.id, from.id, frontier, message, |batch| core.holds(batch));
        }
        Some(slot)
    }

    pub(super) fn perform(&mut self, index: usize, outs: Vec<Out>) -> Check {
        outs.into_iter().try_for_each(|out| self.perform_one(index, out))
    }

    fn perform_one(&mut self, index: usize, out: Out) -> Check {
        match out {
            Out::Say(to, message) => {
                self.said(index, &message)?;
                self.send(index, to.index(), message)?;
            }
            Out::SayAll(message) => {
                self.said(index, &message)?;
                for to in (0..self.machines.len()).filter(|to| *to != index) {
                    self.send(index, to, message.clone())?;
                }
            }
            Out::Persist(ticket, commit) => {
                self.weak_mvc.binds(self.machines[index].id, &commit.records)?;
                if commit.reserved.is_some() || !commit.records.is_empty() {
                    self.old_copies.binds(self.machines[index].store, ticket);
                }
                self.save(index, ticket, commit);
            }
            Out::Apply(slot, batch) => {
                self.stores.decided::<W::Command>(slot, batch.as_ref().map(|(_, payload)| payload))?;
                self.mail(index, MAILBOX, Mail::Apply(slot, batch));
            }
            Out::Notices(notices) => self.mail(index, MAILBOX, Mail::Notices(notices)),
            Out::ReadAt { read, slot } => self.mail(index, MAILBOX, Mail::ReadAt(read, slot)),
            Out::SendEntries { to, from, decided } => {
                let request = SendEntries { to, from, decided };
                self.tell_snapshotter(index, move |snapshotter, _, out| snapshotter.send_entries(request, out));
            }
            Out::SendStored { to, id } => {
                self.tell_snapshotter(index, move |snapshotter, _, out| snapshotter.send_stored(to, id, out));
            }
            Out::SendHash { to, slot } => {
                self.tell_snapshotter(index, move |snapshotter, _, out| snapshotter.send_hash(to, slot, out));
            }
            Out::LookUp(slot) => {
                self.tell_snapshotter(index, move |snapshotter, _, out| snapshotter.look_up(slot, out));
            }
            Out::AboutSnapshot(from, message) => self.tell_snapshotter(index, move |snapshotter, now, out| {
                snapshotter.about_snapshot(now, from, message, out);
            }),
            Out::Linked(peer, up) => {
                self.tell_snapshotter(index, move |snapshotter, _, _| snapshotter.linked(peer, up));
            }
            Out::Standing(peer, in_force) => {
                self.link(index, peer.index(), |link, _| link.standing(in_force))?;
            }
            Out::Admitted => self.tell_bank(index, |bank, _, out| bank.admitted(out)),
            Out::Break(peer, why) => {
                self.report.count(if why == MEET_AGAIN { "stores met again" } else { "links refused" });
                self.hang_up(index, peer.index());
            }
            // There is one log, whatever happens to it. Only who says nonsense may say that it has another.
            Out::Doubt(begins) => {
                let what = || format!("node {} is in doubt about its log or its state", self.machines[index].id);
                check(!begins || self.has_babblers(), "one log", what)?;
                self.report.count(if begins { "doubts about a log" } else { "doubts about a log that ended" });
                self.tell_bank(index, move |bank, _, out| bank.doubt(begins, out));
            }
            Out::Met(call, met) => self.met(index, call, *met)?,
            Out::Warn(warning) => self.warned(warning)?,
            Out::Stop(End::OldCopy(..)) => self.stop_as_old_copy(index)?,
            Out::Stop(End::Replaced(_)) => self.retire(index)?,
            Out::Stop(End::Split(what)) => {
                check(self.has_babblers(), "one log", || what)?;
                self.crash(index, "no majority says that it has this log")?;
            }
        }
        Ok(())
    }

    fn warned(&mut self, warning: Warning) -> Check {
        match warning {
            Warning::NoMajority(what) => check(self.has_babblers(), "one log", || what),
            Warning::Impersonated(peer, _) => {
                check(false, "old copies", || format!("node {peer} disputes what it said"))
            }
            Warning::NotTaken(..) => {
                self.report.count("payloads refused");
                Ok(())
            }
            Warning::Refused(..) | Warning::UnknownStore(..) => Ok(()),
        }
    }

    fn stop_as_old_copy(&mut self, index: usize) -> Check {
        check(self.machines[index].lost == Some(Loss::OldCopy), "old copies", || {
            format!("node {} takes its store for an old copy, and it is none", self.machines[index].id)
        })?;
        self.report.count("old copies stopped");
        self.crash(index, "its store is an old copy")
    }

    /// This does not happen in an idle cluster. An old copy that nobody listens to may do what it wants.
    pub(super) fn disturbs(&mut self, index: usize, what: &'static str) {
        if self.machines[index].lost.is_none() {
            self.quiet.disturbed(self.now, what);
        }
    }

    fn said(&mut self, index: usize, message: &PeerMessage) -> Check {
        let machine = &self.machines[index];
        let Some(node) = &machine.node else { return Ok(()) };
        let (id, window) = (machine.id, self.genesis.window);
        let (store, frontier) = (machine.store, node.voter.core().frontier());
        self.stores.says(id, store, frontier, message)?;
        self.promises.says((id, store, node.run), frontier, window, message)?;
        self.weak_mvc.says(id, message)?;
        self.read_rounds.says(id, message)?;
        let (slot, what) = match message {
            PeerMessage::Proposal { slot, value, .. } => (*slot, format!("proposes {value:?}")),
            PeerMessage::State { slot, phase, state } => (*slot, format!("phase {phase}: state {state:?}")),
            PeerMessage::Vote { slot, phase, vote } => (*slot, format!("phase {phase}: vote {vote:?}")),
            PeerMessage::Decide { slot, value } => (*slot, format!("tells the decision {value:?}")),
            _ => return Ok(()),
        };
        if !matches!(message, PeerMessage::Decide { .. }) {
            self.disturbs(index, "a slot is spoken in");
        }
        self.trace.note(self.now, Some(slot), || format!("node {id} {what}"));
        Ok(())
    }

    // ----- the log -----

    fn save(&mut self, index: usize, ticket: Ticket, commit: Commit) {
        let Some(node) = &mut self.machines[index].node else { return };
        if node.log.persist(ticket, commit) {
            self.mail(index, MAILBOX, Mail::Write);
        }
    }

    /// A write has begun.
    pub(super) fn start_write(&mut self, index: usize) {
        let slow = self.machines[index].slow_until > self.now;
        let took = if slow { self.micros(5_000, 120_000) } else { self.micros(200, 900) };
        let Some(node) = &mut self.machines[index].node else { return };
        let Some(Begun { commit, reported }) = node.log.begin(|upto| node.store.next_compaction(upto)) else { return };
        node.writing = Some(commit);
        if let Some(ticket) = reported {
            self.mail(index, MAILBOX, Mail::Persisted(ticket));
        }
        self.mail(index, took, Mail::Written);
    }

    pub(super) fn written(&mut self, index: usize) -> Check {
        let machine = &mut self.machines[index];
        let Some(node) = &mut machine.node else { return Ok(()) };
        let Some(commit) = node.writing.take() else { return Ok(()) };
        if machine.failing.take_if(|file| *file == File::Log).is_some() {
            machine.log.fail_after(0);
        }
        if let Err(error) = node.store.commit(&commit) {
            if !machine.log.is_dead() {
                return Err(store_violation(machine.id, &error));
            }
            return self.crash(index, "its disk failed");
        }
        let ended = node.log.written(|upto| node.store.next_compaction(upto));
        self.promises.committed(machine.store, &commit);
        self.disturbs(index, "a log is written");
        if let Some(ticket) = ended.persisted {
            self.old_copies.written(self.machines[index].store, ticket);
            self.persisted(index, ticket)?;
        }
        if ended.due {
            self.mail(index, MAILBOX, Mail::Write);
        }
        Ok(())
    }
}
