//! The snapshotter of simulated nodes, and the bank's part in snapshots: when one is due, what of the log may go then, what a
//! peer is sent that is too far behind, and what is made of it there. The work itself is done by the real [`Desk`].

use std::collections::VecDeque;
use std::time::Duration;

use rabia_bank_actors::ledger::Ledger;
use rabia_bank_actors::snapshot::{Decision, Snapshot};
use rabia_bank_actors::snapshotter::desk::{Answer, Desk, Job, Outcome, SnapshotWanted};
use rabia_bank_actors::snapshotter::offer;
use rabia_bank_messages::ids::{BatchId, Digest, Slot};
use rabia_bank_messages::lineage::log_hash;
use rabia_bank_messages::peer::{PeerMessage, SnapshotCursor};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rabia_bank_storage::{BooksReader, BooksStore, BooksView};

use super::super::properties::{Check, Violation, check};
use super::{File, MAILBOX, Mail, World, store_violation};

/// Rows that do not come are asked for again after this time …
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// … and after so many times of another peer.
const ASK_OTHERS: u32 = 2;
/// After a snapshot was received, a log that does not go back far enough is no reason for another one for this time.
const SETTLE: Duration = Duration::from_secs(1);
/// Blocks of the history that are collected at a time.
const COLLECT: usize = 1;

/// What the next snapshot is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Waiting,
    Collecting,
    Saving,
}

/// The snapshot that is being received.
struct Receiving {
    from: usize,
    /// None until it is known.
    wanted: Option<SnapshotWanted>,
    asked: Duration,
    tries: u32,
}

/// A node's books, and what goes on around them.
pub(super) struct Books {
    pub(super) reader: BooksReader,
    desk: Desk,
    /// What the desk is at.
    working: Option<Job>,
    jobs: VecDeque<Job>,
    /// The slot of the last snapshot, and of the one before.
    saved: Slot,
    stage: Stage,
    unsaved_slots: u64,
    /// The newest decisions: as many as owners of coming slots are read from.
    decisions: VecDeque<Decision>,
    /// The hash of the log up to what is applied.
    log_hash: Digest,
    /// The same, when the ledger was frozen.
    frozen: (Vec<Decision>, Digest),
    /// The snapshot that each peer is being sent.
    offers: Vec<Option<BooksView>>,
    receiving: Option<Receiving>,
    installed: Option<Duration>,
}

impl Books {
    pub(super) fn new(
        store: BooksStore,
        applied: Slot,
        decisions: Vec<Decision>,
        log_hash: Digest,
        members: usize,
    ) -> Books {
        let (reader, saved) = (store.reader(), store.slot());
        Books {
            reader,
            desk: Desk::new(store),
            working: None,
            jobs: VecDeque::new(),
            saved,
            stage: Stage::Waiting,
            unsaved_slots: applied - saved,
            decisions: decisions.into(),
            log_hash,
            frozen: (Vec::new(), Digest::ZERO),
            offers: (0..members).map(|_| None).collect(),
            receiving: None,
            installed: None,
        }
    }

    /// The job that a crash cuts short, if there is one, done as far as the disk lets it.
    pub(super) fn die(mut self) -> bool {
        let Some(job) = self.working.take() else { return false };
        self.desk.work(job);
        true
    }
}

impl World {
    // ----- the bank's part -----

    /// Takes note of a slot that was applied, and begins a snapshot if one is due.
    pub(super) fn note_slot(&mut self, index: usize, slot: Slot, value: Option<BatchId>) {
        let due = self.snapshot_slots;
        let keep = *self.genesis.owner_slots(slot + 1).start();
        let Some(node) = &mut self.machines[index].node else { return };
        let books = &mut node.books;
        books.decisions.push_back((slot, value));
        books.log_hash = log_hash(books.log_hash, slot, &value);
        while books.decisions.pop_front_if(|(slot, _)| *slot < keep).is_some() {}
        books.unsaved_slots += 1;
        if books.unsaved_slots >= due && books.stage == Stage::Waiting {
            books.unsaved_slots = 0;
            books.stage = Stage::Collecting;
            books.frozen = (books.decisions.iter().copied().collect(), books.log_hash);
            node.ledger.freeze();
            self.mail(index, MAILBOX, Mail::Collect);
        }
    }

    pub(super) fn collect(&mut self, index: usize) {
        let Some(node) = &mut self.machines[index].node else { return };
        let books = &mut node.books;
        // A state that was installed meanwhile makes the snapshot superfluous.
        if books.stage != Stage::Collecting {
            return;
        }
        match node.ledger.collect(COLLECT) {
            None => self.mail(index, MAILBOX, Mail::Collect),
            Some(changes) => {
                books.stage = Stage::Saving;
                let (decisions, log_hash) = books.frozen.clone();
                books.jobs.push_back(Job::Save(Snapshot { changes, decisions, log_hash }));
                self.work(index);
            }
        }
    }

    // ----- the desk -----

    /// Begins the next job, if none is under way.
    fn work(&mut self, index: usize) {
        let slow = self.machines[index].slow_until > self.now;
        let took = if slow { self.micros(5_000, 200_000) } else { self.micros(300, 4_000) };
        let Some(node) = &mut self.machines[index].node else { return };
        let books = &mut node.books;
        if books.working.is_none() && !books.jobs.is_empty() {
            books.working = books.jobs.pop_front();
            self.mail(index, took, Mail::Worked);
        }
    }

    pub(super) fn worked(&mut self, index: usize) -> Check {
        let machine = &mut self.machines[index];
        let Some(node) = &mut machine.node else { return Ok(()) };
        let Some(job) = node.books.working.take() else { return Ok(()) };
        if machine.failing.take_if(|file| *file == File::Books).is_some() {
            machine.books.fail_after(0);
        }
        let outcome = node.books.desk.work(job);
        self.done(index, outcome)?;
        self.work(index);
        Ok(())
    }

    fn done(&mut self, index: usize, outcome: Outcome) -> Check {
        let now = self.now;
        let babblers: Vec<bool> = self.machines.iter().map(|machine| machine.babbles).collect();
        let machine = &mut self.machines[index];
        let (id, dead) = (machine.id, machine.books.is_dead());
        let Some(node) = &mut machine.node else { return Ok(()) };
        let books = &mut node.books;
        match outcome {
            Outcome::Saved { slot, transactions } => {
                // The log goes up to the snapshot before the last, and to those that peers are being sent.
                let offered = books.offers.iter().flatten().map(BooksView::slot);
                let mut upto = offered.chain([books.saved]).min().unwrap_or(0);
                if is_broken(Rule::BooksCoverLog) {
                    upto = node.ledger.applied();
                }
                books.saved = slot;
                if books.stage == Stage::Saving {
                    books.stage = Stage::Waiting;
                }
                node.ledger.forget(transactions);
                self.compact(index, upto);
                self.report.count("snapshots saved");
                self.disturbs(index, "a snapshot is saved");
                self.trace.note(self.now, None, || format!("node {id} has saved a snapshot at slot {slot}"));
            }
            Outcome::Ask(wanted) => {
                if let Some(receiving) = &mut books.receiving {
                    receiving.wanted = Some(wanted);
                    receiving.tries = 0;
                }
                return self.ask_rows(index);
            }
            Outcome::Installed { slot, hash, ledger, decisions } => {
                books.receiving = None;
                books.installed = Some(now);
                books.saved = slot;
                self.mail(index, MAILBOX, Mail::Installed { slot, hash, ledger, decisions });
            }
            Outcome::Overtaken { .. } => {
                books.receiving = None;
                self.report.count("snapshots overtaken");
            }
            // The next peer that is asked for slots may have another one.
            Outcome::GaveUp(_) if books.receiving.take_if(|receiving| babblers[receiving.from]).is_some() => {
                self.report.count("snapshots of babblers given up");
            }
            Outcome::GaveUp(why) => {
                return check(false, "snapshots", || format!("node {id} could not take one: {why}"));
            }
            Outcome::OtherHistory { slot, why } => {
                return check(false, "one log", || format!("node {id} has another history than slot {slot}: {why}"));
            }
            Outcome::Failed(_) if dead => return self.crash(index, "its disk failed"),
            Outcome::Failed(why) => return Err(store_violation(id, &why)),
            Outcome::Superseded { .. } | Outcome::Nothing => {}
        }
        Ok(())
    }

    /// The voter goes on behind a snapshot, if the slots did not come one by one meanwhile.
    pub(super) fn installed(
        &mut self,
        index: usize,
        (slot, hash): (Slot, Digest),
        ledger: Box<Ledger>,
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
        self.mail(index, MAILBOX, Mail::Install { hash, ledger, decisions });
        self.perform(index, outs)
    }

    pub(super) fn install(
        &mut self,
        index: usize,
        mut ledger: Ledger,
        hash: Digest,
        decisions: Vec<Decision>,
    ) -> Check {
        let id = self.machines[index].id;
        self.digests.after(id, ledger.applied(), ledger.digest())?;
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let (own, new) = (node.ledger.applied(), ledger.applied());
        check(new > own, "order", || format!("node {id} would go back from slot {own} to a snapshot at slot {new}"))?;
        node.ledger = ledger;
        node.books.decisions = decisions.into();
        node.books.log_hash = hash;
        node.books.stage = Stage::Waiting;
        node.books.unsaved_slots = 0;
        self.tell_time(index);
        self.read_due(index)
    }

    // ----- receiving -----

    /// A peer's log does not go back far enough, and its history is this node's.
    pub(super) fn compacted(&mut self, index: usize, from: usize, log_from: Slot) -> Check {
        let now = self.now;
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let settling = node.books.installed.is_some_and(|at| now - at < SETTLE);
        let behind = node.ledger.applied() + 1 < log_from;
        if node.books.receiving.is_some() || settling || !behind {
            return Ok(());
        }
        node.books.receiving = Some(Receiving { from, wanted: None, asked: now, tries: 0 });
        let own = (node.ledger.newest_transaction(), node.ledger.chain_head());
        node.books.jobs.push_back(Job::Begin { own });
        self.work(index);
        Ok(())
    }

    fn ask_rows(&mut self, index: usize) -> Check {
        let now = self.now;
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let Some(receiving) = &mut node.books.receiving else { return Ok(()) };
        let Some(SnapshotWanted { slot, at, .. }) = receiving.wanted else { return Ok(()) };
        receiving.asked = now;
        let from = receiving.from;
        self.send(index, from, PeerMessage::GetSnapshot { slot, at })
    }

    /// Asks again where no answer comes.
    pub(super) fn ask_rows_again(&mut self, index: usize) -> Check {
        let now = self.now;
        let connected: Vec<usize> = (0..self.machines.len())
            .filter(|peer| *peer != index && self.network.works(index, *peer) && !self.network.is_cut(index, *peer))
            .collect();
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let Some(receiving) = &mut node.books.receiving else { return Ok(()) };
        if node.books.working.is_some() || now - receiving.asked < ASK_AGAIN {
            return Ok(());
        }
        receiving.tries += 1;
        if (receiving.tries > ASK_OTHERS || !connected.contains(&receiving.from))
            && let Some(other) = connected.into_iter().find(|peer| *peer != receiving.from)
        {
            receiving.from = other;
            receiving.tries = 0;
        }
        self.ask_rows(index)
    }

    pub(super) fn rows(&mut self, index: usize, from: usize, answer: Answer) {
        let Some(node) = &mut self.machines[index].node else { return };
        if node.books.receiving.as_ref().is_some_and(|receiving| receiving.from == from) {
            node.books.jobs.push_back(Job::Take(answer));
            self.work(index);
        }
    }

    // ----- sending -----

    pub(super) fn send_offer(&mut self, index: usize, to: usize, slot: Slot, at: SnapshotCursor) -> Check {
        let (id, piece) = (self.machines[index].id, self.piece);
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let failed = |error: rabia_bank_storage::StoreError| -> Violation { store_violation(id, &error) };
        let offered = node.books.offers[to].take().filter(|view| view.slot() == slot);
        let view = offered.map_or_else(|| node.books.reader.view(), Ok).map_err(failed)?;
        let (part, rows, next) = offer::rows_at(&view, at, piece).map_err(failed)?;
        let slot = view.slot();
        if next.is_some() {
            node.books.offers[to] = Some(view);
        }
        self.send(index, to, PeerMessage::SnapshotRows { slot, at, part, rows, next })
    }
}
