//! What goes wrong in a simulated world: crashes and restarts, disks, links, clocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rabia_bank_actors::applied::AppliedSlot;
use rabia_bank_actors::budget::RequestBudget;
use rabia_bank_actors::consensus::agreement::{Agreement, TICK};
use rabia_bank_actors::consensus::handshake::Handshake;
use rabia_bank_actors::consensus::pool::Now;
use rabia_bank_actors::consensus::stores::{Standing, Stores as MembersStores};
use rabia_bank_actors::ledger::machine::StateMachine;
use rabia_bank_actors::metrics::Metrics;
use rabia_bank_actors::parts::bank::{Bank, BankState, SWEEP, SnapshotPolicy};
use rabia_bank_actors::parts::link::Link;
use rabia_bank_actors::parts::log::Log;
use rabia_bank_actors::parts::proposer::{Proposer, ProposerState, pool};
use rabia_bank_actors::parts::snapshotter::{BooksWriter, Snapshotter};
use rabia_bank_actors::parts::timekeeper::LOOK;
use rabia_bank_actors::parts::voter::Voter;
use rabia_bank_actors::rebuild::rebuild;
use rabia_bank_actors::snapshot::log_hash_of;
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{Digest, RunId, StoreId};
use rabia_bank_messages::promise::{Identity, Recovered};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rabia_bank_storage::{BooksStore, LogStore, StoreError};

use super::super::disk::Disk;
use super::super::faults::{Fault, FaultRates};
use super::super::properties::{Check, Violation, check};
use super::super::workload::Workload;
use super::bank::portions;
use super::links::Queue;
use super::{File, Item, Loss, Machine, Mail, Node, World, store_violation};

/// A minute in milliseconds.
const MINUTE: i64 = 60_000;

/// Both files of a node, open.
struct Stores {
    log: LogStore,
    recovered: Recovered,
    books: BooksStore,
}

impl<W: Workload> World<W> {
    // ----- faults -----

    pub(super) fn trouble(&mut self) -> Check {
        if self.healed {
            return Ok(());
        }
        let next = self.micros(20_000, 400_000);
        self.at(next, Item::Trouble);
        if self.rates.kinds.is_empty() {
            return Ok(());
        }
        let fault = self.rates.kinds[self.random.usize(..self.rates.kinds.len())];
        let index = self.random.usize(..self.machines.len());
        let members = self.machines.len();
        let others: Vec<usize> = (0..members).filter(|other| *other != index).collect();
        let other = others[self.random.usize(..others.len())];
        let lasts = self.micros(1_000, 600_000);
        let meets_nothing = match fault {
            Fault::CrashOne | Fault::Pause | Fault::SlowSyncs | Fault::FailingSync => {
                self.machines[index].node.is_none()
            }
            Fault::WipedDisk | Fault::OldCopy => !self.may_lose(index),
            Fault::ReplacedDisk => !self.may_replace(index),
            Fault::ResetLink | Fault::HalfOpenLink => !self.network.works(index, other),
            // The first batch of a cluster may have any stamp.
            Fault::ClocksLeap => self.agreement.slots() == 0,
            _ => false,
        };
        if meets_nothing {
            return Ok(());
        }
        self.report.count(fault.name());
        self.trace.note(self.now, None, || format!("fault: {} (node {})", fault.name(), index + 1));
        match fault {
            Fault::CrashOne => self.crash(index, "it was killed")?,
            Fault::CrashSome => {
                for node in 0..members {
                    if self.random.bool() {
                        self.crash(node, "it was killed")?;
                    }
                }
            }
            Fault::CrashAll => (0..members).try_for_each(|node| self.crash(node, "it was killed"))?,
            Fault::Pause => {
                // Never shortened: what is put off would come behind what came later.
                let paused = &mut self.machines[index].paused;
                *paused = (self.now + lasts).max(*paused);
            }
            Fault::ResetLink => self.disconnect(index, other)?,
            Fault::HalfOpenLink => self.lose_link(index, other)?,
            Fault::Isolate => {
                self.network.cut(&[index], &others);
                self.network.cut(&others, &[index]);
                self.at(lasts, Item::Mend(index));
                if self.random.bool() {
                    others.into_iter().try_for_each(|other| self.disconnect(index, other))?;
                }
            }
            Fault::Halves => {
                let (a, b) = self.network.halves(&mut self.random);
                self.network.cut(&a, &b);
                self.network.cut(&b, &a);
                a.into_iter().for_each(|node| self.at(lasts, Item::Mend(node)));
            }
            Fault::OneWay => {
                self.network.cut(&[index], &others[..self.random.usize(1..=others.len())]);
                self.at(lasts, Item::Mend(index));
            }
            Fault::Swizzle => {
                for node in 0..members {
                    if self.random.bool() {
                        let (from, to) = (self.micros(0, 300_000), self.micros(300_000, 600_000));
                        self.at(from, Item::Cut(node));
                        self.at(to, Item::Mend(node));
                    }
                }
            }
            Fault::SlowSyncs => self.machines[index].slow_until = self.now + lasts,
            Fault::FailingSync => {
                let file = if self.random.bool() { File::Log } else { File::Books };
                self.machines[index].failing = Some(file);
            }
            Fault::ClockJump => self.machines[index].ahead = self.random.i64(-3_000..3_000),
            Fault::ClocksLeap => self.leap_clocks(),
            Fault::WipedDisk => self.wipe(index)?,
            Fault::OldCopy => {
                let Machine { store, log, books, .. } = &self.machines[index];
                let (log, books) = (log.after_kill(), books.after_kill());
                let copy = Item::OldCopy { node: index, store: *store, log, books };
                let later = lasts + self.micros(0, 1_000_000);
                self.at(later, copy);
            }
            Fault::ReplacedDisk => self.replace_disk(index)?,
            Fault::UnusableBatch => self.let_in_unusable(index)?,
        }
        Ok(())
    }

    /// Clocks are set wrong by hours and days, or right again, one here and one there or all at once. No two that are wrong agree.
    fn leap_clocks(&mut self) {
        let all = self.random.bool();
        for index in 0..self.machines.len() {
            let apart = index as i64 * 5 * MINUTE;
            let wrong = self.random.i64(2..700) * 60 * MINUTE + apart;
            if all {
                self.machines[index].ahead = wrong;
            } else if self.random.bool() {
                self.machines[index].ahead = [wrong, -wrong, 0][self.random.usize(..3)];
            }
        }
    }

    /// Whether this disk may be emptied: as many nodes may be lost for good, or not be back yet, as may be down at once.
    pub(super) fn may_lose(&self, index: usize) -> bool {
        let is_lost = |machine: &Machine<W>| machine.lost.is_some() || machine.replacing || machine.babbles;
        let lost = self.machines.iter().filter(|machine| is_lost(machine)).count();
        lost < (self.machines.len() - 1) / 2 && !is_lost(&self.machines[index])
    }

    /// A disk is emptied. Its node must refuse to start from it, and is lost.
    fn wipe(&mut self, index: usize) -> Check {
        self.crash(index, "its disk was wiped")?;
        let machine = &mut self.machines[index];
        machine.lost = Some(Loss::Wiped);
        machine.aside = None;
        (machine.log, machine.books) = (Disk::new(Vec::new()), Disk::new(Vec::new()));
        Ok(())
    }

    /// Whether all others have heard of every promise of this node. (A peer that has not could be deceived by an old copy,
    /// and two faults at once, a lost disk and a peer that is cut off, are more than three nodes bear.)
    fn all_have_heard(&self, index: usize) -> bool {
        let Some(node) = &self.machines[index].node else { return false };
        let others = self.machines.iter().filter(|machine| machine.id.index() != index);
        let id = self.machines[index].id;
        let heard = |other: &Node<W>| {
            let memory = other.voter.core().lineage().remembers_durably(id, self.machines[index].store);
            memory.is_some_and(|memory| memory.promises == node.voter.core().promised())
        };
        others.map(|machine| &machine.node).all(|other| other.as_ref().is_some_and(heard))
    }

    /// The files of a node are replaced by copies that were made before. Whoever has heard it say more must refuse it.
    /// (A former store knows only what it had heard until then, and could be deceived by the copy.)
    pub(super) fn put_old_copy(&mut self, index: usize, store: StoreId, log: Vec<u8>, books: Vec<u8>) -> Check {
        let former = self.machines.iter().any(|machine| machine.aside.is_some() || machine.replacing);
        let other = self.machines[index].store != store;
        if self.healed || former || other || !self.may_lose(index) || !self.all_have_heard(index) {
            return Ok(());
        }
        self.report.count("old copy of a disk put back");
        self.crash(index, "an old copy of its disk was put back")?;
        let machine = &mut self.machines[index];
        machine.lost = Some(Loss::OldCopy);
        (machine.log, machine.books) = (Disk::new(log), Disk::new(books));
        self.promises.moved(store);
        self.old_copies.moved(store);
        Ok(())
    }

    pub(super) fn crash(&mut self, index: usize, why: &str) -> Check {
        self.count_phases(index);
        let machine = &mut self.machines[index];
        let Some(mut node) = machine.node.take() else { return Ok(()) };
        let id = machine.id;
        self.trace.note(self.now, None, || format!("node {id} is down: {why}"));
        // What is being written may get to the disk, before or between its syncs.
        if let Some(commit) = node.writing.take() {
            self.report.count("crashes between a write and its sync");
            machine.log.fail_after(self.random.u64(..2));
            if node.store.commit(&commit).is_ok() {
                self.promises.committed(machine.store, &commit);
            }
        }
        machine.books.fail_after(self.random.u64(..3));
        if let Some(job) = node.working.take() {
            node.writer.work(job);
            self.report.count("crashes while the books were written");
        }
        machine.log.kill();
        machine.books.kill();
        let power_failure = self.random.bool();
        machine.rebooted |= power_failure;
        for disk in [&mut machine.log, &mut machine.books] {
            let image = if power_failure { disk.after_power_failure(&mut self.random) } else { disk.after_kill() };
            *disk = Disk::new(image);
        }
        machine.failing = None;
        for peer in (0..self.machines.len()).filter(|peer| *peer != index) {
            // Who has no power says no goodbye.
            if power_failure && self.rates.has_half_open_links() {
                self.lose_link(index, peer)?;
            } else {
                self.disconnect(index, peer)?;
            }
        }
        let after = self.micros(1_000, 500_000);
        self.at(after, Item::Restart(index));
        Ok(())
    }

    pub(super) fn count_phases(&mut self, index: usize) {
        if let Some(node) = &self.machines[index].node {
            for (sum, count) in self.report.phases.iter_mut().zip(node.voter.core().counters().phases) {
                *sum += count;
            }
        }
    }

    pub(super) fn restart(&mut self, index: usize) -> Check {
        let machine = &mut self.machines[index];
        if machine.node.is_some() {
            return Ok(());
        }
        let identity = Identity { genesis: self.genesis.clone(), node: machine.id };
        if is_broken(Rule::SyncsSync) {
            machine.log.lie();
            machine.books.lie();
        }
        if machine.lost == Some(Loss::Wiped) && is_broken(Rule::StoreMadeOnce) {
            LogStore::create_with(machine.log.clone(), &identity, 0).map_err(|e| store_violation(machine.id, &e))?;
            BooksStore::create_with(machine.books.clone(), &identity, None)
                .map_err(|e| store_violation(machine.id, &e))?;
            machine.store = self.genesis.stores[machine.id.index()];
            self.promises.moved(machine.store);
            machine.lost = None;
        }
        // A start may be cut short like anything else.
        if !self.healed && machine.lost.is_none() && self.now > Duration::ZERO && self.random.u32(..8) == 0 {
            self.report.count("starts cut short");
            let disk = if self.random.bool() { &machine.log } else { &machine.books };
            disk.fail_after(self.random.u64(..3));
        }
        let Stores { log: mut store, mut recovered, books } =
            match open::<W::Machine>(&machine.log, &machine.books, &identity) {
                Ok(_) if machine.lost == Some(Loss::Wiped) => {
                    return check(false, "store", || "a node started from a wiped disk");
                }
                Ok(opened) => opened,
                Err(_) if machine.lost == Some(Loss::Wiped) => return Ok(()),
                Err(_) if machine.log.is_dead() || machine.books.is_dead() => {
                    for disk in [&mut machine.log, &mut machine.books] {
                        *disk = Disk::new(disk.after_power_failure(&mut self.random));
                    }
                    let after = self.micros(1_000, 100_000);
                    self.at(after, Item::Restart(index));
                    return Ok(());
                }
                Err(error) => return Err(store_violation(machine.id, &error)),
            };
        // What it was to fail in may have passed without that many syncs.
        machine.log.fail_after(u64::MAX);
        machine.books.fail_after(u64::MAX);
        self.promises.recovered(machine.id, &recovered)?;
        self.old_copies.started(recovered.store);
        self.read_rounds.started(machine.id);
        let rebuilt = rebuild::<W::Machine>(&identity, &books, &store.reader(), recovered.decided);
        let mut rebuilt = rebuilt.map_err(|error| Violation { property: "replay", what: error.to_string() })?;
        let (ledger, last) = (&mut rebuilt.ledger, rebuilt.decisions.clone());
        self.digests.after(machine.id, ledger.applied(), ledger.digest())?;
        for (slot, value) in &last {
            self.agreement.remembered(machine.id, *slot, *value)?;
        }
        let standing = MembersStores::new(&self.genesis, ledger.replacements()).standing(machine.id, recovered.store);
        if matches!(standing, Standing::Former(_)) {
            return self.retire(index);
        }
        let members = self.genesis.members();
        let wall = self.wall(index);
        let machine = &mut self.machines[index];
        let mut run = [machine.id.get(); 16];
        run[..8].copy_from_slice(&self.random.u64(..).to_be_bytes());
        let began = store.begin_run(RunId(run), &recovered).map_err(|e| store_violation(machine.id, &e))?;
        recovered.runs.push(began);
        let mut effects = Vec::new();
        let core = Agreement::new(self.genesis.clone(), machine.id, &recovered, ledger.replacements(), &mut effects);
        let core = core.checking(Payload::check::<W::Command>);
        let incarnation = core.stores().incarnation(machine.id, recovered.store, recovered.starts);
        let of_proposer = ProposerState {
            pool: pool(&self.genesis, machine.id, incarnation, recovered.decided, last),
            log_time: ledger.log_time(),
            witness: machine.witness(self.now),
            since_boot: Some(self.now),
            requests: RequestBudget::new(self.most_requests, self.most_requests),
            peers: self.genesis.nodes().filter(|peer| *peer != machine.id).collect(),
        };
        machine.rebooted = false;
        let (genesis, store_id) = (self.genesis.clone(), recovered.store);
        let handshake = Handshake::new(genesis, machine.id, store_id);
        let policy = SnapshotPolicy { bytes: u64::MAX, slots: self.snapshot_slots };
        let state = BankState { rebuilt, saved: books.slot(), policy, portions: portions() };
        let applied = AppliedSlot::default();
        let bank = Bank::new(machine.id, self.genesis.clone(), state, applied.clone());
        // What is counted for people nobody reads here.
        let metrics = Arc::new(Metrics::new(Instant::now(), 0, 0));
        let snapshotter = Snapshotter::new(books.reader(), books.slot(), self.patience, metrics.clone());
        let voter = Voter::new(core, effects, handshake, metrics.clone());
        let proposer = Proposer::new(Now { elapsed: Duration::ZERO, wall }, of_proposer, metrics);
        let (id, starts, decided) = (machine.id, recovered.starts, recovered.decided);
        self.weak_mvc.started(id, &recovered);
        machine.runs += 1;
        machine.node = Some(Node {
            run: machine.runs,
            store,
            voter,
            proposer,
            bank,
            snapshotter,
            books: books.reader(),
            writer: BooksWriter::new(books),
            working: None,
            started: self.now,
            log: Log::default(),
            writing: None,
            meeting: Vec::new(),
            calls: 0,
            links: (0..members).map(|_| Link::default()).collect(),
            attached: vec![0; members],
            queues: (0..members).map(|_| Queue::default()).collect(),
            let_in: vec![0; members],
            sessions: BTreeMap::new(),
            applied,
            leap: 0,
        });
        self.trace
            .note(self.now, None, || format!("node {id} starts for the {starts}. time, with the log to {decided}"));
        self.bank(index, Bank::start)?;
        self.voter(index, Voter::start)?;
        self.hold_unusable(index)?;
        self.mail(index, TICK, Mail::Tick);
        self.mail(index, SWEEP, Mail::Sweep);
        self.mail(index, LOOK, Mail::Look);
        Ok(())
    }

    /// All faults end; a pause that has begun goes on for its time.
    pub(super) fn heal(&mut self) -> Check {
        self.healed = true;
        self.rates = FaultRates::calm();
        self.come_to_senses();
        self.trace.note(self.now, None, || "the faults have healed".into());
        for index in 0..self.machines.len() {
            self.network.mend(index);
            let machine = &mut self.machines[index];
            machine.slow_until = Duration::ZERO;
            machine.failing = None;
            (machine.ahead, machine.drift) = (0, 0);
            if machine.store != machine.newest {
                self.exchange(index)?;
            }
            self.restart(index)?;
        }
        Ok(())
    }
}

/// Opens both files as a node does: the log first, which asks for the slot of the books.
fn open<S: StateMachine>(log: &Disk, books: &Disk, identity: &Identity) -> Result<Stores, StoreError> {
    let mut opened = None;
    let (mut log, mut recovered) = LogStore::open_with(log.clone(), identity, || {
        let books = opened.insert(BooksStore::open_with(books.clone(), identity)?);
        Ok(books.slot())
    })?;
    let Some(books) = opened else { unreachable!("the log was opened without the books") };
    books.check_store(recovered.store)?;
    let hash = books.reader().view().map(|view| log_hash_of::<S>(&view))?;
    log.settle(hash.unwrap_or(Digest::ZERO), &mut recovered)?;
    Ok(Stores { log, recovered, books })
}
