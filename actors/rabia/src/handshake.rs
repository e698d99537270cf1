//! Who may speak to this node: rule 12 of the protocol, and everything else that a handshake compares.
//!
//! Which store is a peer's is a matter of the log:
//!
//! - A store that was replaced in slot r is heard as before in the slots below r + W. It is refused once this node knows all of them
//!   and that a quorum has them durably; the refusal names r, which the refused node checks in its own log before it stops. If it can't
//!   know r yet, it is let in to catch up, and nothing else of it counts.
//! - A store that this node's log does not know is told so: it asks another node, which does.
//! - A new store that has not found itself in its own log knows only the first stores of the others, and takes decided slots from
//!   whoever says that it took the place of one. It has promised nothing, and if it is lied to, its log differs from that of the
//!   members when it meets them.
//!
//! An old copy of a store is refused by whoever remembers that the store was where the copy never was
//! ([`lineage`](crate::lineage)). The refusal carries what is remembered, and so does every hello: the node of the copy
//! checks it in its own list of runs, and stops. Whoever spoke in a store's name without being it can lock the store out no longer
//! than until its node disputes what it never said ([`Hello::disputes`]).

use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{NodeId, Slot, StoreId};
use rabia_bank_messages::lineage::{MAX_PROMISES, Memory, Run};
use rabia_bank_messages::peer::{Evidence, Hello, HelloRefused, MAX_FORMER_RUNS, RefusalReason};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use crate::agreement::Agreement;
use crate::stores::Standing;

/// The most slots that a log can have: a million a second for half a million years.
const MAX_SLOT: Slot = 1 << 62;

/// Whom a hello that was accepted comes from, and what of it is to be remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Met {
    /// A peer with the store that is its own by the log: it is to be remembered.
    Member,
    /// The same, and what was remembered of it is to be forgotten first: it never said that.
    Disputing,
    /// A peer with a store that this node's log does not know yet, or whose time is over and which is to find that out: nothing is
    /// remembered of it.
    Stranger,
}

/// What this node says of itself in a handshake, and what it asks of others.
#[derive(Debug)]
pub struct Handshake {
    genesis: Genesis,
    me: NodeId,
    store: StoreId,
}

impl Handshake {
    /// Of a node that speaks from this store.
    pub fn new(genesis: Genesis, me: NodeId, store: StoreId) -> Handshake {
        Handshake { genesis, me, store }
    }

    /// What this node says of itself to a peer, which speaks from the store `to_store` as far as is known.
    pub fn introduce(&self, to: NodeId, to_store: StoreId, core: &Agreement) -> Hello {
        let lineage = core.lineage();
        let run = lineage.run();
        Hello {
            cluster: self.genesis.cluster,
            genesis: self.genesis.digest(),
            node: self.me,
            to,
            store: self.store,
            joined: core.joined(),
            proof: lineage.proof(run.promises),
            run,
            former: lineage.former(to),
            remembers: lineage.remembers_durably(to, to_store),
            disputes: lineage.disputes(to),
            decided: core.frontier(),
            log_hash: core.log_hash(),
        }
    }

    /// Whether the peer that says this of itself may speak to this node.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, hello: &Hello, core: &Agreement) -> Result<Met, HelloRefused> {
        let (stores, frontier, lineage) = (core.stores(), core.frontier(), core.lineage());
        let refuse = |reason, message: String| Err(HelloRefused { reason, message, evidence: None });
        if hello.cluster != self.genesis.cluster {
            let message = format!("this is cluster {}, you are of cluster {}", self.genesis.cluster, hello.cluster);
            return refuse(RefusalReason::Cluster, message);
        }
        if hello.genesis != self.genesis.digest() {
            let message = "members, stores, window or limits in your configuration are not those of this node's";
            return refuse(RefusalReason::Genesis, message.into());
        }
        if hello.to != self.me {
            let message = format!("this is node {}, you called for node {}", self.me, hello.to);
            return refuse(RefusalReason::Node, message);
        }
        if hello.node == self.me || hello.node.index() >= self.genesis.members() {
            return refuse(RefusalReason::Node, format!("node {} can't be a peer of node {}", hello.node, self.me));
        }
        if let Err(what) = check_numbers(hello) {
            return refuse(RefusalReason::Number, what);
        }
        match stores.standing(hello.node, hello.store) {
            Standing::Current => {}
            Standing::Former(by) if !core.is_settled(&by) => {}
            Standing::Former(by) if hello.decided < by.slot && !is_broken(Rule::FormerHeard) => {
                return Ok(Met::Stranger);
            }
            Standing::Former(by) => {
                let message = format!(
                    "your store was replaced: in slot {} node {} got another one instead. Stop this node, it has no part in the \
                     cluster any more; its files may be deleted",
                    by.slot, hello.node
                );
                let evidence = Some(Evidence::Replaced(by.slot));
                return Err(HelloRefused { reason: RefusalReason::Replaced, message, evidence });
            }
            Standing::Unknown if is_broken(Rule::NewStoreByLog) => {}
            Standing::Unknown if core.is_newcomer() && hello.joined.is_some() => return Ok(Met::Stranger),
            Standing::Unknown => {
                let message = format!(
                    "the log of this node, which knows it up to slot {frontier}, does not say that your store is that of node {}: \
                     if it shall be, tell the cluster (`rabia-bank replace --help`); if that was done, another node knows it",
                    hello.node
                );
                return refuse(RefusalReason::NotYet, message);
            }
        }
        match lineage.remembers(hello.node, hello.store) {
            Some(memory) if hello.disputes == Some(*memory) => Ok(Met::Disputing),
            Some(memory) if !has_been(hello, memory) => Err(old_copy(hello, memory)),
            _ => Ok(Met::Member),
        }
    }
}

/// What the speaker is to be remembered by.
pub fn memory_of(hello: &Hello) -> Memory {
    let Run { run, promises } = hello.run;
    Memory { store: hello.store, run, promises, proof: hello.proof }
}

fn check_numbers(hello: &Hello) -> Result<(), String> {
    let mut runs = hello.former.iter().chain([&hello.run]).map(|run| run.promises);
    if hello.former.len() > MAX_FORMER_RUNS || !hello.former.is_sorted_by_key(|run| run.promises) {
        return Err(format!(
            "more than {MAX_FORMER_RUNS} former runs, or in another order than that of their promises"
        ));
    }
    if runs.any(|promises| promises > hello.run.promises || promises > MAX_PROMISES) {
        return Err("a number of promises that no store can have kept".into());
    }
    if hello.decided > MAX_SLOT || hello.joined.is_some_and(|slot| slot > MAX_SLOT) {
        return Err("a slot that no log can have".into());
    }
    Ok(())
}

/// Whether the speaker's store has been where it is remembered to have been.
fn has_been(hello: &Hello, memory: &Memory) -> bool {
    let known = |run: &Run| run.run == memory.run || is_broken(Rule::RunsKnown);
    let kept = |run: &Run| run.promises >= memory.promises || is_broken(Rule::PromiseCounts);
    hello.former.iter().chain([&hello.run]).any(|run| known(run) && kept(run))
}

fn old_copy(hello: &Hello, memory: &Memory) -> HelloRefused {
    let Memory { run, promises, .. } = memory;
    let message = format!(
        "your store was heard to have made {promises} promises in its run {run}; the one that you speak from, with {} promises \
         and in run {}, has not been there: it is an old copy",
        hello.run.promises, hello.run.run
    );
    HelloRefused { reason: RefusalReason::OldCopy, message, evidence: Some(Evidence::OldCopy(*memory)) }
}

/// What a node says that finds out that its store is an old copy.
pub fn is_old_copy(peer: NodeId, memory: &Memory, run: Run) -> String {
    format!(
        "the store of this node is an old copy: node {peer} has heard it make {} promises in run {}, and it knows nothing of that (it \
         has made {} in run {}). It may have promised, and acknowledged to clients, what it does not know, so the node stops. If \
         the right files are still there, put them back; otherwise give this member a new store: `rabia-bank replace --help`",
        memory.promises, memory.run, run.promises, run.run
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agreement::{Effect, Event};
    use rabia_bank_messages::batch::Payload;
    use rabia_bank_messages::genesis::Replacements;
    use rabia_bank_messages::ids::{BatchId, ClusterId, Digest, RunId};
    use rabia_bank_messages::lineage::Secret;
    use rabia_bank_messages::peer::{Entry, PeerMessage};
    use rabia_bank_messages::promise::{Began, Recovered};
    use rabia_bank_messages::sabotage::Broken;

    fn genesis() -> Genesis {
        Genesis::new(ClusterId([1; 16]), (1..=3).map(|n| StoreId([n; 16])).collect())
    }

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn store(number: u8) -> StoreId {
        StoreId([number; 16])
    }

    fn run(number: u8) -> RunId {
        RunId([number; 16])
    }

    /// A node whose runs began at these counts of promises; it has kept `promised`.
    fn agreement(number: u8, of: StoreId, runs: &[(u8, u64)], promised: u64) -> Agreement {
        let starts = runs.len() as u64;
        let runs = (1..).zip(runs).map(|(start, (id, promises))| Began { start, run: run(*id), promises: *promises });
        let first = Recovered::at_first_start(of, Secret([number; 32]));
        let recovered = Recovered { starts, promised, runs: runs.collect(), ..first };
        Agreement::new(genesis(), node(number), &recovered, &Replacements::default(), &mut Vec::new())
    }

    fn handshake(number: u8) -> Handshake {
        Handshake::new(genesis(), node(number), store(number))
    }

    /// What node 2 says to node 1.
    fn hello(runs: &[(u8, u64)], promised: u64) -> Hello {
        handshake(2).introduce(node(1), store(1), &agreement(2, store(2), runs, promised))
    }

    fn checked(core: &Agreement, hello: &Hello) -> Result<Met, HelloRefused> {
        handshake(1).check(hello, core)
    }

    fn reason(core: &Agreement, hello: &Hello) -> Option<RefusalReason> {
        checked(core, hello).err().map(|refused| refused.reason)
    }

    /// Node 1 as it begins: it has met nobody.
    fn first() -> Agreement {
        agreement(1, store(1), &[(1, 0)], 0)
    }

    /// Node 1, which has met node 2 when it said this.
    fn has_met(hello: &Hello) -> Agreement {
        let mut core = first();
        assert!(core.remember_peer(hello.node, memory_of(hello), &mut Vec::new()).is_some());
        core
    }

    #[test]
    fn a_member_may_speak() {
        assert_eq!(checked(&first(), &hello(&[(1, 0)], 11)), Ok(Met::Member));
    }

    #[test]
    fn everything_that_does_not_fit_is_named() {
        let good = hello(&[(1, 0), (2, 5)], 11);
        let many = vec![Run { run: run(1), promises: 0 }; MAX_FORMER_RUNS + 1];
        let impossible = Run { run: run(2), promises: u64::MAX };
        let cases = [
            (Hello { cluster: ClusterId([9; 16]), ..good.clone() }, RefusalReason::Cluster),
            (Hello { genesis: Genesis { window: 3, ..genesis() }.digest(), ..good.clone() }, RefusalReason::Genesis),
            (Hello { to: node(3), ..good.clone() }, RefusalReason::Node),
            (Hello { node: node(1), ..good.clone() }, RefusalReason::Node),
            (Hello { node: node(5), ..good.clone() }, RefusalReason::Node),
            (Hello { store: StoreId([9; 16]), ..good.clone() }, RefusalReason::NotYet),
            (Hello { former: many, ..good.clone() }, RefusalReason::Number),
            (Hello { former: vec![impossible], ..good.clone() }, RefusalReason::Number),
            (Hello { run: impossible, ..good.clone() }, RefusalReason::Number),
            (Hello { decided: u64::MAX, ..good.clone() }, RefusalReason::Number),
            (Hello { joined: Some(u64::MAX), ..good.clone() }, RefusalReason::Number),
        ];
        for (hello, expected) in cases {
            assert_eq!(reason(&first(), &hello), Some(expected), "{hello:?}");
        }
    }

    #[test]
    fn an_old_copy_of_a_store_is_refused_whatever_it_has_promised_since() {
        let met = hello(&[(1, 0), (2, 5)], 11);
        let core = has_met(&met);
        for fine in [met.clone(), hello(&[(1, 0), (2, 5)], 12), hello(&[(1, 0), (2, 5), (3, 11)], 11)] {
            assert_eq!(checked(&core, &fine), Ok(Met::Member), "{fine:?}");
        }
        let copies = [
            ("the same run, earlier", hello(&[(1, 0), (2, 5)], 10)),
            ("a run before", hello(&[(1, 0)], 5)),
            ("another run after the one before", hello(&[(1, 0), (7, 5)], 900)),
            ("a run after an earlier end", hello(&[(1, 0), (2, 5), (8, 10)], 900)),
        ];
        for (what, copy) in copies {
            let refused = checked(&core, &copy).unwrap_err();
            assert_eq!(refused.reason, RefusalReason::OldCopy, "{what}");
            // Its node finds it so in its own list; that of the store itself does not.
            let Some(Evidence::OldCopy(memory)) = refused.evidence else { panic!("{refused:?}") };
            assert_eq!(memory, memory_of(&met));
            let runs: Vec<_> = copy.former.iter().chain([&copy.run]).map(|run| run.run.0[0]).collect();
            let begins = [0, 5, copy.former.last().map_or(0, |run| run.promises)];
            let runs: Vec<_> = runs.into_iter().zip(begins).collect();
            assert!(agreement(2, store(2), &runs, copy.run.promises).lineage().is_old_copy_by(&memory), "{what}");
            assert!(!agreement(2, store(2), &[(1, 0), (2, 5), (3, 12)], 20).lineage().is_old_copy_by(&memory));
            for rule in [Rule::RunsKnown, Rule::PromiseCounts] {
                let _broken = Broken::rule(rule);
                let is_noticed = checked(&core, &copy) == Ok(Met::Member);
                let shows = if rule == Rule::RunsKnown { copy.run.promises > 11 } else { copy.run.run == run(2) };
                assert!(is_noticed || !shows, "{what}: {rule:?} is not noticed");
            }
        }
    }

    #[test]
    fn who_spoke_in_a_stores_name_does_not_lock_it_out() {
        let mut forged = hello(&[(1, 0)], 1);
        forged.run = Run { run: run(99), promises: MAX_PROMISES };
        let mut core = has_met(&forged);
        let mut honest = agreement(2, store(2), &[(1, 0)], 7);
        let said = handshake(2).introduce(node(1), store(1), &honest);
        let refused = checked(&core, &said).unwrap_err();
        let Some(Evidence::OldCopy(memory)) = refused.evidence else { panic!("{refused:?}") };
        assert!(!honest.lineage().is_old_copy_by(&memory), "it is no reason to stop");
        honest.is_told(node(1), Some(memory));
        let said = handshake(2).introduce(node(1), store(1), &honest);
        assert_eq!(checked(&core, &said), Ok(Met::Disputing));
        core.forget_disputed(node(2), store(2));
        assert!(core.remember_peer(node(2), memory_of(&said), &mut Vec::new()).is_some());
        assert_eq!(checked(&core, &handshake(2).introduce(node(1), store(1), &honest)), Ok(Met::Member));
        // A copy of the store disputes nothing that the store said.
        let core = has_met(&hello(&[(1, 0), (2, 5)], 11));
        let mut copy = agreement(2, store(2), &[(1, 0)], 3);
        let refused = checked(&core, &handshake(2).introduce(node(1), store(1), &copy)).unwrap_err();
        let Some(Evidence::OldCopy(memory)) = refused.evidence else { panic!("{refused:?}") };
        copy.is_told(node(1), Some(memory));
        assert_eq!(reason(&core, &handshake(2).introduce(node(1), store(1), &copy)), Some(RefusalReason::OldCopy));
    }

    /// Nulls and a new store of node 2, decided in these slots.
    fn learns(core: &mut Agreement, slots: std::ops::RangeInclusive<Slot>, replaced: Slot) {
        let payload = Payload::replacing(node(2), NEW, 0);
        let id = BatchId { origin: node(1), incarnation: 1, sequence: 1, digest: Digest::of(payload.bytes()) };
        let batch = |slot| (slot == replaced).then(|| (id, payload.clone()));
        let entries = slots.map(|slot| Entry { slot, batch: batch(slot) }).collect();
        let message = PeerMessage::Entries { before: core.log_hash(), entries, decided: 0 };
        let mut effects = Vec::new();
        core.handle(Duration::ZERO, Event::LinkUp(node(3), store(3)), &mut effects);
        core.handle(Duration::ZERO, Event::Received(node(3), message), &mut effects);
        core.handle(LATER, Event::Tick, &mut effects);
        let tickets = effects.iter().filter_map(|effect| match effect {
            Effect::Save(ticket, _) => Some(*ticket),
            _ => None,
        });
        let last = tickets.max().unwrap();
        core.handle(LATER, Event::Saved(last), &mut Vec::new());
    }

    fn says_durable(core: &mut Agreement, slot: Slot) {
        let message = PeerMessage::Alive { decided: core.frontier(), hash: core.log_hash(), durable: slot };
        core.handle(LATER, Event::Received(node(3), message), &mut Vec::new());
    }

    const NEW: StoreId = StoreId([0x22; 16]);
    const LATER: Duration = Duration::from_secs(1);

    #[test]
    fn a_store_is_the_peers_from_the_slot_on_that_says_so() {
        let fresh = |joined| Hello { joined, store: NEW, ..hello(&[(5, 0)], 0) };
        // Before its log says so, a node tells it to ask another, whatever it says of itself.
        let mut core = first();
        for joined in [None, Some(5), Some(1 << 60)] {
            assert_eq!(reason(&core, &fresh(joined)), Some(RefusalReason::NotYet), "{joined:?}");
        }
        learns(&mut core, 1..=5, 5);
        assert_eq!(checked(&core, &fresh(Some(5))), Ok(Met::Member));
        // A new store knows nobody but the first ones, and has to learn from those that took their places.
        let newcomer = agreement(1, StoreId([0x11; 16]), &[(1, 0)], 0);
        assert!(newcomer.is_newcomer());
        assert_eq!(checked(&newcomer, &fresh(Some(5))), Ok(Met::Stranger));
        assert_eq!(reason(&newcomer, &fresh(None)), Some(RefusalReason::NotYet));
    }

    /// W is 16: the former store speaks up to slot 20.
    #[test]
    fn a_former_store_is_heard_until_a_quorum_has_its_slots_durably() {
        let old = hello(&[(1, 0)], 11);
        let mut core = has_met(&old);
        let knows = |slot| Hello { decided: slot, ..old.clone() };
        learns(&mut core, 1..=5, 5);
        assert_eq!(checked(&core, &old), Ok(Met::Member));
        learns(&mut core, 6..=20, 0);
        assert_eq!(checked(&core, &knows(20)), Ok(Met::Member), "only this node has them");
        // Old copies of it are refused all the while.
        let copy = Hello { run: Run { run: run(9), promises: 400 }, ..old.clone() };
        assert_eq!(reason(&core, &copy), Some(RefusalReason::OldCopy));
        says_durable(&mut core, 19);
        assert_eq!(checked(&core, &knows(20)), Ok(Met::Member), "node 3 does not have the last one durably");
        says_durable(&mut core, 20);
        let refused = checked(&core, &knows(5)).unwrap_err();
        assert_eq!((refused.reason, refused.evidence), (RefusalReason::Replaced, Some(Evidence::Replaced(5))));
        assert!(!refused.message.contains(&NEW.to_string()), "a store's id is nobody's business: {}", refused.message);
        assert_eq!(checked(&core, &knows(4)), Ok(Met::Stranger), "it can't know yet, and may find out");
        for rule in [Rule::FormerHeard, Rule::FormerDurable] {
            let mut core = has_met(&old);
            let _broken = Broken::rule(rule);
            learns(&mut core, 1..=20, 5);
            says_durable(&mut core, if rule == Rule::FormerDurable { 20 } else { 0 });
            assert_eq!(reason(&core, &knows(20)), Some(RefusalReason::Replaced), "{rule:?} is noticed");
        }
    }
}
