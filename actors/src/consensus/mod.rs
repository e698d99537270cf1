//! The consensus core: Rabia with crash recovery and pipelining, free of I/O, clocks and randomness.
//!
//! # The protocol
//!
//! The base is Rabia (Pan, Tuglu, Zhou, Wang, Shen, Zheng, Tassarotti, Tseng, Palmieri: "Rabia: Simplifying State-Machine
//! Replication Through Randomization", SOSP 2021): for every slot of the log one randomised binary agreement, Weak-MVC,
//! whose inputs are the replicas' proposals. There is no leader, so nothing has to be elected when a replica dies.
//! n replicas tolerate f = ⌊(n − 1) / 2⌋ that are down; a step waits for a *quorum* of n − f, and a *majority* is
//! ⌊n / 2⌋ + 1.
//!
//! The paper assumes replicas that never come back and links that never lose a message. The rules below add what that
//! leaves out. Without those marked † agreement breaks; without those marked ‡ the cluster can get stuck.
//!
//! 1. **Reserve.** Before a node sends anything for a slot, a durable mark, `reserved`, is above that slot. After a start
//!    every undecided slot below it without a stored record is *tainted*: the node may have spoken there and forgotten.
//! 2. **Propose** once per slot, and only a batch whose payload is held. In a tainted slot: null.
//! 3. **State, phase 1.** With a quorum of proposals: a batch with a majority → `One(id)`, else `Zero`. In a tainted slot
//!    `Abstain`, at once †: it fills the quorum and backs no value.
//! 4. **Vote, phase p.** With a quorum of States: a value with a majority → that value, else `Undecided`. Never
//!    `Undecided` where a majority was seen †. The vote is durable before it is sent †: the one sync of a slot.
//! 5. **Finish phase p.** A value with f + 1 Votes → decide it; whoever gets a quorum of Votes sees one of them, so nobody
//!    needs the rest. Else, with a quorum of Votes: a value with a vote → State(p + 1), else the common coin: heads takes a `One(id)` that counts in this slot, anything else goes on with `Zero`. States of
//!    phase 2 and later are durable before they are sent †.
//! 6. **Payload** ‡. A message that names a batch counts from the moment its payload is held; it is fetched at once.
//!    Until then a later message of that sender, kind and phase may take its place. Votes and later States for a batch are
//!    durable together with its payload.
//! 7. **One message per sender, slot, kind and phase counts**: the first that counts. The sender is the end of the link.
//! 8. **Decide.** Who decides tells all, and answers later messages for that slot with the decision. A decision is adopted
//!    at once and written lazily (within 100 ms): f + 1 durable votes bind it already.
//! 9. **Repeat.** What was said for undecided slots is said again when a link comes back, and after a time without progress.
//! 10. **Records stay** † per slot and phase until the slot's decision is durable.
//! 11. **Restart** ‡. In every undecided slot below `reserved`: all stored records again, and Proposal(null) and
//!     State(1) Abstain besides.
//! 12. **A node speaks only from the store that made its promises.** Store ids and start counters are compared in the
//!     handshake of every link. A store also counts its promises, the durable writes of what its node binds itself to; a
//!     node says the count before what such a write allows it to say, its peers remember it durably with what they do upon
//!     it, and refuse a store that counts less: it is an old copy, however recent. (The contract compares the mark of rule 1
//!     instead, which lets a copy pass that is younger than the mark is far.)
//!
//! Up to W slots are in agreement at once; nobody speaks in slot s before it knows all decisions up to s − W. Decisions
//! are delivered in slot order without gaps. A batch may be decided in two slots: the ledger applies it once.
//!
//! # The parts
//!
//! - [`slot`]: one slot. All of rules 2 to 8 and 11 that concern a single slot, and nothing else, so that it can be checked
//!   exhaustively.
//! - [`agreement`]: all slots in the window, durable writes and their order (rules 1, 4 to 6, 10), repeating, catching up,
//!   and the read rule.
//! - [`pool`] and [`owners`]: which batch to propose in which slot. Never a matter of safety.
//! - [`coin`]: the common coin.
//!
//! The cores take events and append effects. What must be durable before it is sent is an effect of its own: the message
//! comes out only when the write was reported back, whoever drives the core.
//!
//! # How it is checked
//!
//! - `tests/slot_model`: every interleaving of one slot with the real [`slot::Slot`]: up to three phases, restarts, deaths,
//!   crashes between a write and its sync, payloads that are lost; 4.6 million states with three nodes and three phases.
//!   Rules are broken there one by one, to see that the search finds what that breaks; its page has the tables.
//! - `tests/scenarios`: stories of the protocol, message by message, to read.
//! - `tests/consensus_random.rs`: whole clusters of these cores under random faults.
//!
//! # Caveats
//!
//! - Replicas fail by stopping, not by lying: peers are trusted once the handshake accepted them.
//! - A tainted node always proposes null, although the contract would let it back the owner's batch: one rule less, and
//!   only the few slots after a restart are concerned.
//! - Membership and the replacement of a lost store are not part of this version.

pub mod agreement;
pub mod coin;
pub mod owners;
pub mod pool;
pub mod slot;
pub mod stores;
