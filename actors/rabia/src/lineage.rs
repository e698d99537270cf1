//! Rule 12: the runs of this store and its promises, and what is remembered of the stores of peers.
//!
//! - A run is durable before the first hello of it, and a count of promises with what it counts; a count is said once it is durable,
//!   before anything else that the write allows.
//! - What was heard of a peer is written with the next promise of this store, or with the next write of any kind, and before a
//!   hello of that peer is answered. To remember another run of a peer is a promise itself: an old copy that has forgotten it
//!   counts less.
//! - Who is remembered to have been where it never was is an old copy. Its peers refuse it, and it finds out itself: a
//!   [`Memory`] proves that the store, or a copy of it, said so.
//! - A memory that proves nothing is the work of somebody who spoke in this store's name. It is disputed, and then forgotten: an
//!   honest copy never disputes what its store has said, for both have one secret.

use std::collections::VecDeque;

use rabia_bank_messages::ids::{MAX_NODES, NodeId, Proof, RunId, StoreId};
use rabia_bank_messages::lineage::{MAX_PROMISES, Memory, Run, Secret};
use rabia_bank_messages::peer::MAX_FORMER_RUNS;
use rabia_bank_messages::promise::{Began, Commit, Recovered};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::words::Ticket;

/// What a store knows of its own runs, and remembers of others.
#[derive(Clone, Debug)]
pub struct Lineage {
    store: StoreId,
    secret: Secret,
    /// Oldest first. The last one is this run.
    runs: Vec<Began>,
    /// Promises that are durable …
    promised: u64,
    /// … and on their way to the disk.
    promising: u64,
    /// What was heard of peers' stores …
    memories: Vec<(NodeId, Memory)>,
    /// … what of it is not on its way to the disk yet …
    unwritten: bool,
    /// … is on its way …
    writing: VecDeque<(Ticket, Vec<(NodeId, Memory)>)>,
    /// … and is durable.
    durable: Vec<(NodeId, Memory)>,
    /// To be forgotten with the next write.
    forget: Vec<(NodeId, StoreId)>,
    /// What each peer was heard to remember of this store.
    told: [Option<Memory>; MAX_NODES],
    /// What a peer remembers of this store that it never said.
    disputed: [Option<Memory>; MAX_NODES],
    /// Runs that began before this start are remembered by nobody; to be written.
    forgotten_runs: Option<u64>,
}

impl Lineage {
    /// What a start finds. The last of its runs is the one that begins.
    pub fn new(recovered: &Recovered) -> Lineage {
        let this = Began { start: recovered.starts, run: RunId([0; 16]), promises: recovered.promised };
        let runs = if recovered.runs.is_empty() { vec![this] } else { recovered.runs.clone() };
        Lineage {
            store: recovered.store,
            secret: recovered.secret,
            runs,
            promised: recovered.promised,
            promising: recovered.promised,
            memories: recovered.peers.clone(),
            unwritten: false,
            writing: VecDeque::new(),
            durable: recovered.peers.clone(),
            forget: Vec::new(),
            told: [None; MAX_NODES],
            disputed: [None; MAX_NODES],
            forgotten_runs: None,
        }
    }

    // ----- this store -----

    /// How many promises this store has kept, durably.
    pub fn promised(&self) -> u64 {
        self.promised
    }

    /// This run, as others are told of it.
    pub fn run(&self) -> Run {
        self.run_at(self.runs.len() - 1)
    }

    fn run_at(&self, index: usize) -> Run {
        let promises = self.runs.get(index + 1).map_or(self.promised, |next| next.promises);
        Run { run: self.runs[index].run, promises }
    }

    /// That this store has kept so many promises.
    pub fn proof(&self, promises: u64) -> Proof {
        self.secret.prove(self.run().run, promises)
    }

    /// Former runs, as this peer is told of them: the newest, and the one that it was heard to remember.
    pub fn former(&self, to: NodeId) -> Vec<Run> {
        let former = self.runs.len() - 1;
        let told = self.told[to.index()].and_then(|memory| self.index_of(memory.run));
        let newest = former.saturating_sub(MAX_FORMER_RUNS - 1)..former;
        let older = told.filter(|index| *index < newest.start);
        older.into_iter().chain(newest).map(|index| self.run_at(index)).collect()
    }

    fn index_of(&self, run: RunId) -> Option<usize> {
        self.runs.iter().rposition(|known| known.run == run)
    }

    fn has_been(&self, memory: &Memory) -> bool {
        let kept = |index: usize| self.run_at(index).promises >= memory.promises || is_broken(Rule::PromiseCounts);
        self.index_of(memory.run).is_some_and(kept)
    }

    /// Whether this shows that this store is an old copy of the one that said it.
    pub fn is_old_copy_by(&self, memory: &Memory) -> bool {
        memory.store == self.store && self.secret.has_said(memory) && !self.has_been(memory)
    }

    /// A peer remembers this of this store. What the store never said is disputed from now on. When all `members` remember a later
    /// run, earlier ones may go.
    pub fn is_told(&mut self, by: NodeId, memory: Option<Memory>, members: impl IntoIterator<Item = NodeId>) {
        let memory = memory.filter(|memory| memory.store == self.store);
        let says = |memory: &Memory| self.secret.has_said(memory);
        self.disputed[by.index()] = memory.filter(|memory| !says(memory));
        let Some(memory) = memory.filter(says) else { return };
        self.told[by.index()] = Some(memory);
        let index_of = |node: NodeId| self.told[node.index()].and_then(|memory| self.index_of(memory.run));
        let oldest = members.into_iter().map(|node| index_of(node).unwrap_or(0)).min().unwrap_or(0);
        let gone = oldest.min(self.runs.len().saturating_sub(MAX_FORMER_RUNS));
        if gone > 0 {
            self.runs.drain(..gone);
            self.forgotten_runs = Some(self.runs[0].start);
        }
    }

    /// What this peer was heard to remember, and this store never said.
    pub fn disputes(&self, with: NodeId) -> Option<Memory> {
        self.disputed[with.index()]
    }

    /// A peer's store was replaced: the new one remembers nothing.
    pub fn is_forgotten(&mut self, by: NodeId) {
        self.told[by.index()] = None;
    }

    // ----- peers' stores -----

    /// What is remembered of a peer's store.
    pub fn remembers(&self, peer: NodeId, store: StoreId) -> Option<&Memory> {
        find(&self.memories, peer, store)
    }

    /// The same, as far as it is durable.
    pub fn remembers_durably(&self, peer: NodeId, store: StoreId) -> Option<Memory> {
        find(&self.durable, peer, store).copied()
    }

    /// Takes note of the run of a peer. True if the peer was in another one before.
    pub fn meet(&mut self, peer: NodeId, memory: Memory) -> bool {
        let known = self.memories.iter_mut().find(|(node, known)| (*node, known.store) == (peer, memory.store));
        match known {
            Some((_, known)) => {
                let same = known.run == memory.run;
                if same && known.promises >= memory.promises {
                    return false;
                }
                *known = memory;
                self.unwritten = true;
                !same
            }
            None => {
                self.memories.push((peer, memory));
                self.unwritten = true;
                true
            }
        }
    }

    /// A peer says in its run how many promises its store has kept.
    pub fn hear(&mut self, peer: NodeId, store: StoreId, promises: u64, proof: Proof) {
        let known = self.memories.iter_mut().find(|(node, known)| (*node, known.store) == (peer, store));
        if let Some((_, known)) = known.filter(|(_, known)| (known.promises + 1..=MAX_PROMISES).contains(&promises)) {
            (known.promises, known.proof) = (promises, proof);
            self.unwritten = true;
        }
    }

    /// Forgets a store of a peer, if anything is remembered of it.
    pub fn forget(&mut self, peer: NodeId, store: StoreId) {
        if self.remembers(peer, store).is_none() {
            return;
        }
        let other = |(node, memory): &(NodeId, Memory)| (*node, memory.store) != (peer, store);
        self.memories.retain(other);
        self.forget.push((peer, store));
    }

    // ----- writes -----

    /// Adds what is to be written to a commit. If that binds the node, answers the count of promises that it makes.
    pub fn write(&mut self, ticket: Ticket, binds: bool, commit: &mut Commit) -> Option<u64> {
        commit.forget.append(&mut self.forget);
        commit.forget_runs = self.forgotten_runs.take();
        if std::mem::take(&mut self.unwritten) || !commit.forget.is_empty() {
            commit.peers.clone_from(&self.memories);
            self.writing.push_back((ticket, self.memories.clone()));
        }
        if binds {
            self.promising += 1;
            commit.promised = Some(self.promising);
        }
        binds.then_some(self.promising)
    }

    /// The write of the last of what was heard, if it is not durable yet.
    pub fn writing(&self) -> Option<Ticket> {
        self.writing.back().map(|(ticket, _)| *ticket)
    }

    /// Whether something was heard that is not on its way to the disk.
    pub fn is_unwritten(&self) -> bool {
        self.unwritten
    }

    /// All writes up to this one are durable.
    pub fn saved(&mut self, ticket: Ticket) {
        while let Some((_, memories)) = self.writing.pop_front_if(|(needed, _)| *needed <= ticket) {
            self.durable = memories;
        }
    }

    /// So many promises are durable.
    pub fn keep(&mut self, promises: u64) {
        self.promised = promises;
    }
}

fn find(memories: &[(NodeId, Memory)], peer: NodeId, store: StoreId) -> Option<&Memory> {
    memories.iter().find(|(node, memory)| (*node, memory.store) == (peer, store)).map(|(_, memory)| memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([1; 16]);
    const SECRET: Secret = Secret([9; 32]);

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    /// Runs that began at these counts of promises, numbered from 1; now it is at the last one.
    fn lineage(runs: &[u64], promised: u64) -> Lineage {
        let run = |(start, promises): (u64, &u64)| Began { start, run: run_id(start), promises: *promises };
        Lineage::new(&Recovered {
            starts: runs.len() as u64,
            promised,
            runs: (1..).zip(runs).map(run).collect(),
            ..Recovered::at_first_start(STORE, SECRET)
        })
    }

    fn run_id(number: u64) -> RunId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        RunId(id)
    }

    fn heard(run: u64, promises: u64) -> Memory {
        Memory { store: STORE, run: run_id(run), promises, proof: SECRET.prove(run_id(run), promises) }
    }

    #[test]
    fn a_store_knows_where_it_has_been() {
        let lineage = lineage(&[0, 50, 80], 100);
        for (run, promises) in [(1, 0), (1, 50), (2, 80), (3, 100)] {
            assert!(!lineage.is_old_copy_by(&heard(run, promises)), "run {run}, {promises}");
        }
        for (run, promises) in [(1, 51), (2, 81), (3, 101), (4, 1)] {
            let memory = heard(run, promises);
            assert!(lineage.is_old_copy_by(&memory), "run {run}, {promises}");
            assert!(!lineage.is_old_copy_by(&Memory { proof: Proof([0; 16]), ..memory }), "nobody can prove that");
            assert!(!lineage.is_old_copy_by(&Memory { store: StoreId([2; 16]), ..memory }), "another store's");
        }
    }

    #[test]
    fn what_a_store_never_said_is_disputed_until_it_is_forgotten() {
        let mut lineage = lineage(&[0], 100);
        let forged = Memory { proof: Proof([0; 16]), ..heard(7, 1 << 60) };
        lineage.is_told(node(2), Some(forged), [node(2)]);
        assert_eq!(lineage.disputes(node(2)), Some(forged));
        assert_eq!(lineage.disputes(node(3)), None);
        lineage.is_told(node(2), None, [node(2)]);
        assert_eq!(lineage.disputes(node(2)), None);
    }

    #[test]
    fn a_run_leaves_the_list_when_all_remember_a_later_one() {
        let begins: Vec<u64> = (0..100).collect();
        let mut lineage = lineage(&begins, 1_000);
        assert_eq!(lineage.former(node(2)).len(), MAX_FORMER_RUNS - 1);
        let others = [node(2), node(3)];
        lineage.is_told(node(2), Some(heard(3, 1)), others);
        let former = lineage.former(node(2));
        assert_eq!(
            (former.len(), former[0].run),
            (MAX_FORMER_RUNS, run_id(3)),
            "the one that it remembers comes along"
        );
        lineage.is_told(node(2), Some(heard(99, 1)), others);
        let mut commit = Commit::default();
        lineage.write(1, false, &mut commit);
        assert_eq!(commit.forget_runs, None, "node 3 has not said what it remembers");
        lineage.is_told(node(3), Some(heard(20, 1)), others);
        lineage.write(2, false, &mut commit);
        assert_eq!(commit.forget_runs, Some(20));
        assert!(lineage.is_old_copy_by(&heard(19, 1)) && !lineage.is_old_copy_by(&heard(20, 1)));
    }

    #[test]
    fn what_was_heard_is_written_and_then_said_to_be_remembered() {
        let (mut lineage, other) = (lineage(&[0], 0), StoreId([2; 16]));
        let memory = |run, promises| Memory { store: other, ..heard(run, promises) };
        assert!(lineage.meet(node(2), memory(1, 5)));
        assert!(!lineage.meet(node(2), memory(1, 5)), "once more");
        lineage.hear(node(2), other, 7, memory(1, 7).proof);
        lineage.hear(node(2), other, 6, memory(1, 6).proof);
        lineage.hear(node(2), other, u64::MAX, memory(1, u64::MAX).proof);
        lineage.hear(node(2), StoreId([3; 16]), 9, memory(1, 9).proof);
        assert_eq!(lineage.remembers_durably(node(2), other), None);
        let mut commit = Commit::default();
        assert_eq!(lineage.write(1, true, &mut commit), Some(1));
        assert_eq!(commit.peers, [(node(2), memory(1, 7))]);
        lineage.saved(1);
        assert_eq!(lineage.remembers_durably(node(2), other), Some(memory(1, 7)));
        assert!(lineage.meet(node(2), memory(2, 7)), "another run");
        lineage.forget(node(2), other);
        let mut commit = Commit::default();
        assert_eq!(lineage.write(2, false, &mut commit), None);
        assert_eq!((commit.peers, commit.forget), (Vec::new(), vec![(node(2), other)]));
    }
}
