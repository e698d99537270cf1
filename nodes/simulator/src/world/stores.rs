//! New stores for members, made and asked for as `rabia-bank replace` does it: where the disk is lost, and where it is not. What
//! was set aside may be put back, a former store beside its new one in turns; it must find out that it has no part any more.

use std::time::Duration;

use rabia_bank_messages::ids::StoreId;
use rabia_bank_messages::promise::Identity;
use rabia_bank_storage::{BooksStore, LogStore};

use super::super::disk::Disk;
use super::super::properties::Check;
use super::super::workload::Workload;
use super::{Item, Loss, Machine, World, store_violation};

/// Whoever wants a new store decided asks again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Disks that are not in their machine.
pub(super) struct SetAside {
    store: StoreId,
    log: Disk,
    books: Disk,
}

impl<W: Workload> World<W> {
    /// Whether this member may get a new store. Nobody may have to tell an old copy of another member's store from that store
    /// then: a new one has not heard enough of it.
    pub(super) fn may_replace(&self, index: usize) -> bool {
        self.may_lose(index) && !self.is_old_copy_about()
    }

    fn is_old_copy_about(&self) -> bool {
        self.machines.iter().any(|machine| machine.lost == Some(Loss::OldCopy))
    }

    /// A disk is replaced by another, with a new store: it is lost for good, or set aside, or in use until its node hears of
    /// it.
    pub(super) fn replace_disk(&mut self, index: usize) -> Check {
        let store = StoreId((u128::from(self.random.u64(..)) << 64 | index as u128).to_be_bytes());
        let machine = &mut self.machines[index];
        let (log, books) = (Disk::new(Vec::new()), Disk::new(Vec::new()));
        let identity = Identity { genesis: self.genesis.clone(), node: machine.id };
        let failed = |error| store_violation(machine.id, &error);
        BooksStore::create_replacing_with(books.clone(), &identity, store).map_err(failed)?;
        LogStore::create_replacing_with(log.clone(), &identity, store).map_err(failed)?;
        let (log, books) = (Disk::new(log.after_kill()), Disk::new(books.after_kill()));
        machine.aside = Some(SetAside { store, log, books });
        (machine.newest, machine.replacing) = (store, true);
        match self.random.u32(..3) {
            0 => {
                self.exchange(index)?;
                self.machines[index].aside = None;
            }
            1 => self.exchange(index)?,
            _ => {}
        }
        for _ in 0..self.random.u32(..3) {
            let later = self.micros(0, 2_000_000);
            self.at(later, Item::Exchange(index));
        }
        let later = self.micros(0, 300_000);
        self.at(later, Item::AskForStore { node: index, store });
        Ok(())
    }

    /// Somebody asks a running node to put a new store into the log.
    pub(super) fn ask_for_store(&mut self, of: usize, store: StoreId) -> Check {
        if self.stores.replaced_in(store).is_some() || self.machines[of].newest != store {
            return Ok(());
        }
        self.at(ASK_AGAIN, Item::AskForStore { node: of, store });
        let running = |index: &usize| {
            let machine = &self.machines[*index];
            *index != of && machine.node.is_some() && machine.paused <= self.now
        };
        let running: Vec<usize> = (0..self.machines.len()).filter(running).collect();
        if running.is_empty() {
            return Ok(());
        }
        let at = running[self.random.usize(..running.len())];
        let member = self.machines[of].id;
        self.proposer(at, |proposer, now, out| proposer.replace(now, member, store, out))
    }

    /// Somebody puts the other disks in, whichever they are.
    pub(super) fn exchange_now_and_then(&mut self, index: usize) -> Check {
        if self.healed || self.is_old_copy_about() {
            return Ok(());
        }
        self.exchange(index)
    }

    /// The other disks are put into a machine, if it has others.
    pub(super) fn exchange(&mut self, index: usize) -> Check {
        if self.machines[index].aside.is_none() {
            return Ok(());
        }
        self.crash(index, "its disks are exchanged")?;
        let machine = &mut self.machines[index];
        let Some(aside) = &mut machine.aside else { return Ok(()) };
        std::mem::swap(&mut machine.store, &mut aside.store);
        std::mem::swap(&mut machine.log, &mut aside.log);
        std::mem::swap(&mut machine.books, &mut aside.books);
        let (id, store, former) = (machine.id, machine.store, machine.store != machine.newest);
        self.trace.note(self.now, None, || format!("node {id} has the disks with store {store} now"));
        if former {
            self.report.count("former stores put back");
        }
        Ok(())
    }

    /// A node whose store was replaced stops. Its member goes on with the new one.
    pub(super) fn retire(&mut self, index: usize) -> Check {
        let machine = &self.machines[index];
        // An old copy of a former store has no part in anything.
        if machine.store == machine.newest {
            return Ok(());
        }
        self.report.count("former stores stopped");
        self.exchange(index)?;
        let after = self.micros(1_000, 100_000);
        self.at(after, Item::Restart(index));
        Ok(())
    }

    /// A new store that is as far as its member was is a full one.
    pub(super) fn look_after_store(&mut self, index: usize) {
        let machine = &self.machines[index];
        let Some(node) = &machine.node else { return };
        let at_work = machine.replacing && machine.store == machine.newest && node.voter.core().is_current();
        if at_work && self.is_known_to_all(machine.newest) {
            self.machines[index].replacing = false;
            self.report.count("new stores at work");
        }
    }

    /// Whether every member that is not lost has it in its own log, durably, that this is a member's store. One that has not lets the
    /// new store not speak, and needs another that does: until then the cluster bears no further loss. A member that says
    /// nonsense counts as lost: its links break too often for it to get far.
    fn is_known_to_all(&self, store: StoreId) -> bool {
        let Some(slot) = self.stores.replaced_in(store) else { return false };
        let knows = |machine: &Machine<W>| self.promises.durable(machine.store) >= slot;
        self.machines.iter().filter(|machine| machine.lost.is_none() && !machine.babbles).all(knows)
    }
}
