//! The snapshotter actor: drives the [part of the snapshotter](crate::parts::snapshotter). It reads the log and the books, and lets their writer
//! work, on threads for blocking work. An error of a store stops the node.

use std::time::Instant;

use actix::prelude::*;
use rabia_bank_storage::{BooksStore, LogReader, StoreError};

use crate::failure::Failure;
use crate::ledger::Bank;
use crate::ledger::machine::StateMachine;
use crate::mail::bank::{BankInbox, Install, MachineInbox, Received, Superseded, TellStandpoint};
use crate::mail::log::{Compact, LogInbox};
use crate::mail::node::{Failed, Stop};
use crate::mail::peer_link::Links;
use crate::mail::snapshotter::{
    AboutSnapshot, Linked, LookUp, Save, SendEntries, SendHash, SendStored, SnapshotterInbox,
};
use crate::mail::voter::{Installed, LookedUp, OtherHistory, VoterInbox};
use crate::parts::snapshotter::books_writer::{BooksWriter, Job};
use crate::parts::snapshotter::{self, ENTRIES_BYTES, Out, SWEEP, offer};

/// The actors that the snapshotter speaks to.
pub struct SnapshotterNeighbours<S: StateMachine = Bank> {
    /// Forgets what is durable.
    pub bank: BankInbox,
    /// Goes on from a state that came from a peer, if the voter does.
    pub machine: MachineInbox<S>,
    /// Goes on from a state that came from a peer.
    pub voter: VoterInbox,
    /// Removes what is not needed.
    pub log: LogInbox,
    /// The other members, one link each.
    pub links: Links,
    /// Stops the node where the books can't be read or written.
    pub node: Recipient<Failed>,
}

/// The shell around the snapshotter's part: mailbox, timers, files read and written on other threads.
pub struct Snapshotter<S: StateMachine = Bank> {
    part: snapshotter::Snapshotter<S>,
    reader: LogReader,
    /// None while it works.
    writer: Option<BooksWriter<S>>,
    neighbours: SnapshotterNeighbours<S>,
}

/// Nothing in it is pinned.
impl<S: StateMachine> Unpin for Snapshotter<S> {}

impl<S: StateMachine> Snapshotter<S> {
    /// The actor that drives `part`, with the log and the books of the node.
    pub fn new(
        part: snapshotter::Snapshotter<S>,
        reader: LogReader,
        store: BooksStore,
        neighbours: SnapshotterNeighbours<S>,
    ) -> Snapshotter<S> {
        Snapshotter { part, reader, writer: Some(BooksWriter::new(store)), neighbours }
    }

    fn fail(&self, why: impl Into<Failure>) {
        self.neighbours.node.do_send(Failed(why.into()));
    }

    /// Tells the part something, and does what it wants done then.
    fn tell(&mut self, ctx: &mut Context<Self>, tell: impl FnOnce(&mut snapshotter::Snapshotter<S>, &mut Vec<Out<S>>)) {
        let mut outs = Vec::new();
        tell(&mut self.part, &mut outs);
        for out in outs {
            self.perform(out, ctx);
        }
    }

    fn perform(&mut self, out: Out<S>, ctx: &mut Context<Self>) {
        let to = &self.neighbours;
        match out {
            Out::Work(job) => self.work(job, ctx),
            Out::ReadEntries(request) => {
                let from = request.from;
                let read = move |reader: &LogReader| {
                    Ok((reader.hash(from.saturating_sub(1))?, reader.entries(from, ENTRIES_BYTES)?))
                };
                self.read(ctx, read, move |part, (before, entries), out| {
                    part.entries_read(request, before, entries, out);
                });
            }
            Out::ReadPayload { to, id } => {
                let read = move |reader: &LogReader| reader.payload(&id);
                self.read(ctx, read, move |part, payload, out| part.payload_read(to, id, payload, out));
            }
            Out::ReadHash { to, slot } => {
                let read = move |reader: &LogReader| reader.hash(slot);
                self.read(ctx, read, move |part, hash, out| part.hash_read(to, slot, hash, out));
            }
            Out::ReadRows { to, view, at } => {
                let read = move |_: &LogReader| Ok((offer::rows_at(&view, at, offer::PIECE)?, view));
                self.read(ctx, read, move |part, (rows, view), out| {
                    part.rows_read(Instant::now(), to, at, (view, rows), out);
                });
            }
            Out::AskStandpoint { from, log_from } => {
                let standpoint = to.bank.tell_standpoint.send(TellStandpoint).into_actor(self);
                ctx.spawn(standpoint.map(move |standpoint, snapshotter, ctx| {
                    // Without an answer the node is stopping.
                    if let Ok(standpoint) = standpoint {
                        snapshotter.tell(ctx, |part, out| part.standpoint(from, log_from, standpoint, out));
                    }
                }));
            }
            Out::Say(peer, message) => to.links.say(peer, message),
            Out::Saved(saved) => to.bank.saved.do_send(saved),
            Out::Received(slot) => to.bank.received.do_send(Received(slot)),
            Out::Superseded(slot) => to.bank.superseded.do_send(Superseded(slot)),
            Out::Compact(upto) => to.log.compact.do_send(Compact { upto }),
            Out::Installed { slot, hash, ledger, decisions } => {
                let (replacements, before) = (ledger.replacements().clone(), decisions.clone());
                let (install, bank) = (Install { ledger, hash, decisions }, to.machine.install.clone());
                let hand_over = Box::new(move || bank.do_send(install));
                to.voter.installed.do_send(Installed { slot, hash, replacements, decisions: before, hand_over });
            }
            Out::LookedUp { slot, hash } => to.voter.looked_up.do_send(LookedUp { slot, hash }),
            Out::OtherHistory { peer, slot } => to.voter.other_history.do_send(OtherHistory { peer, slot }),
            Out::Fail(why) => self.fail(why),
        }
    }

    /// Lets the writer do a job.
    fn work(&mut self, job: Job, ctx: &mut Context<Self>) {
        let Some(mut writer) = self.writer.take() else { unreachable!("two jobs at once: {job:?}") };
        let working = tokio::task::spawn_blocking(move || {
            let outcome = writer.work(job);
            (writer, outcome)
        });
        ctx.spawn(working.into_actor(self).map(|worked, snapshotter, ctx| {
            match worked {
                Ok((writer, outcome)) => {
                    snapshotter.writer = Some(writer);
                    snapshotter.tell(ctx, |part, out| part.worked(Instant::now(), outcome, out));
                }
                // Half a snapshotter must not go on. If the runtime is going down nobody hears this.
                Err(error) => snapshotter.fail(format!("working on the books failed: {error}")),
            }
        }));
    }

    /// Reads on a thread for blocking work; an error of the store stops the node.
    fn read<T: Send + 'static>(
        &self,
        ctx: &mut Context<Self>,
        read: impl FnOnce(&LogReader) -> Result<T, StoreError> + Send + 'static,
        then: impl FnOnce(&mut snapshotter::Snapshotter<S>, T, &mut Vec<Out<S>>) + 'static,
    ) {
        let reader = self.reader.clone();
        let reading = tokio::task::spawn_blocking(move || read(&reader));
        ctx.spawn(reading.into_actor(self).map(|read, snapshotter, ctx| match read {
            Ok(Ok(read)) => snapshotter.tell(ctx, |part, out| then(part, read, out)),
            Ok(Err(error)) => snapshotter.fail(error.to_string()),
            // The runtime is going down.
            Err(_) => {}
        }));
    }
}

impl<S: StateMachine> From<&Addr<Snapshotter<S>>> for SnapshotterInbox {
    fn from(snapshotter: &Addr<Snapshotter<S>>) -> SnapshotterInbox {
        SnapshotterInbox {
            save: snapshotter.clone().recipient(),
            send_entries: snapshotter.clone().recipient(),
            send_stored: snapshotter.clone().recipient(),
            send_hash: snapshotter.clone().recipient(),
            look_up: snapshotter.clone().recipient(),
            about_snapshot: snapshotter.clone().recipient(),
            linked: snapshotter.clone().recipient(),
        }
    }
}

impl<S: StateMachine> Actor for Snapshotter<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP, |snapshotter, ctx| {
            snapshotter.tell(ctx, |part, out| part.sweep(Instant::now(), out));
        });
    }
}

impl<S: StateMachine> Handler<Save> for Snapshotter<S> {
    type Result = ();

    fn handle(&mut self, Save(snapshot): Save, ctx: &mut Self::Context) {
        self.tell(ctx, |part, out| part.save(snapshot, out));
    }
}

impl<S: StateMachine> Handler<AboutSnapshot> for Snapshotter<S> {
    type Result = ();

    fn handle(&mut self, AboutSnapshot(peer, message): AboutSnapshot, ctx: &mut Self::Context) {
        self.tell(ctx, |part, out| part.about_snapshot(Instant::now(), peer, message, out));
    }
}

impl<S: StateMachine> Handler<Linked> for Snapshotter<S> {
    type Result = ();

    fn handle(&mut self, Linked { peer, up }: Linked, _: &mut Self::Context) {
        self.part.linked(peer, up);
    }
}

impl<S: StateMachine> Handler<SendEntries> for Snapshotter<S> {
    type Result = ();

    fn handle(&mut self, request: SendEntries, ctx: &mut Self::Context) {
        self.tell(ctx, |part, out| part.send_entries(request, out));
    }
}

impl<S: StateMachine> Handler<SendHash> for Snapshotter<S> {
    type Result = ();

    fn handle(&mut self, SendHash { to, slot }: SendHash, ctx: &mut Self::Context) {
        self.tell(ctx, |part, out| part.send_hash(to, slot, out));
    }
}

impl<S: StateMachine> Handler<LookUp> for Snapshotter<S> {
    type Result = ();

    fn handle(&mut self, LookUp(slot): LookUp, ctx: &mut Self::Context) {
        self.tell(ctx, |part, out| part.look_up(slot, out));
    }
}

impl<S: StateMachine> Handler<SendStored> for Snapshotter<S> {
    type Result = ();

    fn handle(&mut self, SendStored { to, id }: SendStored, ctx: &mut Self::Context) {
        self.tell(ctx, |part, out| part.send_stored(to, id, out));
    }
}

impl<S: StateMachine> Handler<Stop> for Snapshotter<S> {
    type Result = ();

    /// What it still had to say, a crash might have taken too.
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
