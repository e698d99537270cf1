//! The bank actor: drives the [part of the bank](crate::parts::bank), which owns the ledger. Old transactions are read for answers by a thread
//! of its own (`block_reader`).

use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;
use rabia_bank_messages::bank::Status;
use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::stages::Stage;
use rabia_bank_storage::{BooksReader, BooksView};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tracing::info;

use crate::block_reader::BlockReader;
use crate::failure::Failure;
use crate::ledger;
use crate::ledger::machine::StateMachine;
use crate::ledger::replicated::Applied;
use crate::mail::bank::{
    Abandon, Admitted, Apply, Ask, BankInbox, Doubt, Expect, Follow, Install, MachineInbox, ReadAt, Received, Saved,
    StandingOf, Subscribe, Superseded, TakeSnapshot, TellStandpoint, TellStatus,
};
use crate::mail::node::{Failed, Stop};
use crate::mail::proposer::{AppliedTime, Can, ProposerInbox};
use crate::mail::snapshotter::{Save, SnapshotterInbox};
use crate::mail::voter::{OwnDigest, Read, VoterInbox};
use crate::metrics::Metrics;
use crate::parts::bank::{self, Out, SWEEP};
use crate::parts::clients::{Answered, Done, Waiter};

/// A node that is so many slots behind what it knows of says how far it is.
const FAR_BEHIND: u64 = 1_000;

/// The shell around the bank's part: mailbox, timers, blocks read from disk.
pub struct Bank<S: StateMachine = ledger::Bank> {
    part: bank::Bank<S>,
    /// What the part wants done; empty between messages.
    outs: Vec<Out<S>>,
    books: BooksReader,
    /// None until the bank has started.
    reader: Option<BlockReader<S::Block>>,
    /// Who waits for a snapshot of which slot.
    snapshot_waiters: Vec<(Slot, oneshot::Sender<()>)>,
    metrics: Arc<Metrics>,
    neighbours: BankNeighbours,
}

/// The actors that the bank speaks to.
pub struct BankNeighbours {
    /// Reads with the others, and compares states.
    pub voter: VoterInbox,
    /// Goes by log time.
    pub proposer: ProposerInbox,
    /// Makes snapshots of the state durable.
    pub snapshotter: SnapshotterInbox,
    /// Stops the node where the bank can't go on.
    pub node: Recipient<Failed>,
}

/// Nothing in it is pinned.
impl<S: StateMachine> Unpin for Bank<S> {}

impl<S: StateMachine> Bank<S> {
    /// The actor that drives `part`, with the books on disk.
    pub fn new(part: bank::Bank<S>, books: BooksReader, metrics: Arc<Metrics>, neighbours: BankNeighbours) -> Bank<S> {
        Bank { part, outs: Vec::new(), books, reader: None, snapshot_waiters: Vec::new(), metrics, neighbours }
    }

    fn fail(&self, why: impl Into<Failure>) {
        self.neighbours.node.do_send(Failed(why.into()));
    }

    /// Does what the part wants done, and what follows from that at once.
    fn perform(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        while !self.outs.is_empty() {
            let mut outs = std::mem::take(&mut self.outs);
            for out in outs.drain(..) {
                self.perform_one(now, out, ctx);
            }
            // What followed is seldom anything: the list is used again.
            outs.append(&mut self.outs);
            self.outs = outs;
        }
    }

    fn perform_one(&mut self, now: Instant, out: Out<S>, ctx: &mut Context<Self>) {
        let to = &self.neighbours;
        match out {
            Out::Answers { to, answers, applied } => to.tell(answers, applied.then_some(now)),
            Out::Status { to: Waiter { client, tag }, answer } => {
                let status = Box::new(self.status(now));
                let slot = Some(status.applied_slot);
                let result = Ok(Done::Success(answer(status)));
                let answers = vec![Answered { tag, slot, index: None, replayed: false, result }];
                client.tell(answers, None);
            }
            Out::Read(number) => to.voter.read.do_send(Read(number)),
            Out::OwnDigest { slot, digest } => to.voter.own_digest.do_send(OwnDigest { slot, digest }),
            Out::AppliedTime(time) => to.proposer.applied_time.do_send(AppliedTime(time)),
            Out::Can(level) => to.proposer.can.do_send(Can(level)),
            Out::Work { pause } if pause.is_zero() => {
                ctx.spawn(yield_now().into_actor(self).map(|(), bank, ctx| bank.work(ctx)));
            }
            Out::Work { pause } => {
                ctx.run_later(pause, |bank, ctx| bank.work(ctx));
            }
            Out::ReadBlock(number) => self.read_block(number, ctx),
            Out::Collect { pause } if pause.is_zero() => self.part.collect(Instant::now(), &mut self.outs),
            Out::Collect { pause } => {
                ctx.run_later(pause, |bank, ctx| {
                    bank.part.collect(Instant::now(), &mut bank.outs);
                    bank.perform(ctx);
                });
            }
            Out::Save(snapshot) => to.snapshotter.save.do_send(Save(snapshot)),
            Out::Durable(slot) => {
                for (_, waiter) in self.snapshot_waiters.extract_if(.., |(wanted, _)| *wanted <= slot) {
                    // Who asked may be gone.
                    let _ = waiter.send(());
                }
            }
            Out::Discard(state) => drop(tokio::task::spawn_blocking(move || drop(state))),
            Out::Fail(why) => self.fail(why),
        }
    }

    fn status(&mut self, now: Instant) -> Status {
        let (report, stages) = (self.metrics.report(), self.metrics.stages.read());
        self.part.status(now, &report, stages, crate::process::used())
    }

    fn work(&mut self, ctx: &mut Context<Self>) {
        self.part.work(Instant::now(), &mut self.outs);
        self.perform(ctx);
    }

    fn read_block(&self, number: u64, ctx: &mut Context<Self>) {
        // Without a reader the node is stopping.
        let Some(reader) = &self.reader else { return };
        let block = reader.read(number);
        ctx.spawn(block.into_actor(self).map(move |block, bank, ctx| {
            let block = match block {
                Ok(block) => block.map_err(|error| Failure::from(&error)),
                Err(_) => Err("the thread that reads old transactions has ended".to_owned().into()),
            };
            bank.part.block_read(Instant::now(), number, block, &mut bank.outs);
            bank.perform(ctx);
        }));
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        let (applied, report) = (self.part.standpoint().applied, self.metrics.report());
        if report.known_elsewhere > applied + FAR_BEHIND && report.received_bytes == 0 {
            info!(slot = applied, of = report.known_elsewhere, "catching up");
        }
        self.part.sweep(Instant::now(), &mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> From<&Addr<Bank<S>>> for MachineInbox<S> {
    fn from(bank: &Addr<Bank<S>>) -> MachineInbox<S> {
        MachineInbox {
            ask: bank.clone().recipient(),
            subscribe: bank.clone().recipient(),
            follow: bank.clone().recipient(),
            expect: bank.clone().recipient(),
            install: bank.clone().recipient(),
        }
    }
}

impl<S: StateMachine> From<&Addr<Bank<S>>> for BankInbox {
    fn from(bank: &Addr<Bank<S>>) -> BankInbox {
        BankInbox {
            abandon: bank.clone().recipient(),
            apply: bank.clone().recipient(),
            read_at: bank.clone().recipient(),
            doubt: bank.clone().recipient(),
            admitted: bank.clone().recipient(),
            saved: bank.clone().recipient(),
            received: bank.clone().recipient(),
            superseded: bank.clone().recipient(),
            tell_standpoint: bank.clone().recipient(),
            standing_of: bank.clone().recipient(),
            take_snapshot: bank.clone().recipient(),
            tell_status: bank.clone().recipient(),
        }
    }
}

impl<S: StateMachine> Actor for Bank<S> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP, Bank::<S>::sweep);
        match BlockReader::start(self.books.clone()) {
            Ok(reader) => self.reader = Some(reader),
            Err(error) => self.fail(format!("no thread to read old transactions with: {error}")),
        }
        self.part.start(Instant::now(), &mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<Ask<S>> for Bank<S> {
    type Result = ();

    fn handle(&mut self, ask: Ask<S>, ctx: &mut Self::Context) {
        self.part.ask(ask, &mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<Subscribe<S>> for Bank<S> {
    type Result = ();

    fn handle(&mut self, subscribe: Subscribe<S>, ctx: &mut Self::Context) {
        self.part.subscribe(subscribe, &mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<Follow<S>> for Bank<S> {
    type Result = ();

    fn handle(&mut self, follow: Follow<S>, ctx: &mut Self::Context) {
        self.part.follow(follow, &mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<Expect<S>> for Bank<S> {
    type Result = ();

    fn handle(&mut self, Expect { id, waiters }: Expect<S>, _: &mut Self::Context) {
        self.part.expect(id, waiters);
    }
}

impl<S: StateMachine> Handler<Abandon> for Bank<S> {
    type Result = ();

    fn handle(&mut self, Abandon(id): Abandon, ctx: &mut Self::Context) {
        self.part.abandon(&id, &mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<Apply> for Bank<S> {
    type Result = ();

    fn handle(&mut self, Apply { slot, batch, decided }: Apply, ctx: &mut Self::Context) {
        let applied = self.part.apply(Instant::now(), slot, batch, &mut self.outs);
        if let Some(Applied::Batch(_)) = applied {
            self.metrics.stages.note(Stage::Apply, decided.elapsed());
        }
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<ReadAt> for Bank<S> {
    type Result = ();

    fn handle(&mut self, read_at: ReadAt, ctx: &mut Self::Context) {
        self.part.read_at(read_at, &mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<Install<S>> for Bank<S> {
    type Result = ();

    fn handle(&mut self, install: Install<S>, ctx: &mut Self::Context) {
        self.part.install(Instant::now(), install, &mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<Doubt> for Bank<S> {
    type Result = ();

    fn handle(&mut self, Doubt(in_doubt): Doubt, ctx: &mut Self::Context) {
        self.part.doubt(in_doubt, &mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<Admitted> for Bank<S> {
    type Result = ();

    fn handle(&mut self, _: Admitted, ctx: &mut Self::Context) {
        self.part.admitted(&mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<Saved> for Bank<S> {
    type Result = ();

    fn handle(&mut self, saved: Saved, ctx: &mut Self::Context) {
        self.part.saved(Instant::now(), saved, &mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<Received> for Bank<S> {
    type Result = ();

    fn handle(&mut self, Received(slot): Received, _: &mut Self::Context) {
        self.part.received(slot);
    }
}

impl<S: StateMachine> Handler<Superseded> for Bank<S> {
    type Result = ();

    fn handle(&mut self, Superseded(slot): Superseded, ctx: &mut Self::Context) {
        self.part.superseded(Instant::now(), slot, &mut self.outs);
        self.perform(ctx);
    }
}

impl<S: StateMachine> Handler<StandingOf> for Bank<S> {
    type Result = Result<Option<Slot>, String>;

    fn handle(&mut self, StandingOf { node, store }: StandingOf, _: &mut Self::Context) -> Self::Result {
        self.part.standing_of(node, store)
    }
}

impl<S: StateMachine> Handler<TellStandpoint> for Bank<S> {
    type Result = MessageResult<TellStandpoint>;

    fn handle(&mut self, _: TellStandpoint, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.part.standpoint())
    }
}

impl<S: StateMachine> Handler<TakeSnapshot> for Bank<S> {
    type Result = ResponseFuture<Result<BooksView, String>>;

    fn handle(&mut self, _: TakeSnapshot, ctx: &mut Self::Context) -> Self::Result {
        let (done, durable) = oneshot::channel();
        let wanted = self.part.take_snapshot(Instant::now(), &mut self.outs);
        self.snapshot_waiters.push((wanted, done));
        self.perform(ctx);
        let books = self.books.clone();
        Box::pin(async move {
            durable.await.map_err(|_| "the node is stopping".to_owned())?;
            books.view().map_err(|error| error.to_string())
        })
    }
}

impl<S: StateMachine> Handler<Stop> for Bank<S> {
    type Result = ();

    /// What it still had to say, a crash might have taken too.
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl<S: StateMachine> Handler<TellStatus> for Bank<S> {
    type Result = MessageResult<TellStatus>;

    fn handle(&mut self, _: TellStatus, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.status(Instant::now()))
    }
}
