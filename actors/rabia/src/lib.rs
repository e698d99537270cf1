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
//! 12. **A node speaks only from the store that made its promises.** A store counts its promises, the durable writes of what
//!     its node binds itself to, and knows its *lineage*: the runs it had, and how many promises it had kept when each began. A node says
//!     the count before what such a write allows it to say; its peers remember run and count with their own next promise, and before
//!     they answer a hello. A store that was never where it is remembered to have been is an old copy: it is refused, and its node,
//!     which is shown what is remembered, checks it in its own list and stops ([`lineage`]). Where nobody has heard more than the
//!     copy knows, it can't be told from the store, and the log may fork. That is found at the first link, by the hash of the log:
//!     who hears another one than its own answers nobody until a majority has its own, or stops ([`forks`]). Before a snapshot
//!     takes the place of a log, its history is checked to be that of the log.
//!
//! # Replacing a lost store
//!
//! A member whose store is lost gets a new one by a command in the log, decided in slot r ([`stores`]). It is not enough that
//! the new store abstains where the old one may have spoken: a vote that is forgotten may have bound a decision. So below r + W
//! only the old store speaks for the member, from r + W on only the new one, and each slot sees one store a member:
//!
//! - The new store says nothing before it has r durably in its own log: a new store that starts again and does not find r there
//!   has said nothing. The old one says nothing from r + W on, and its node stops when all slots below are decided. Each store
//!   keeps to its own slots, and every node that hears it checks that it does.
//! - The slots up to r + W − 1 are decided by the others, with null where nothing waits. Then the new store is as far as
//!   the old one was.
//! - A new store answers in the read rule once it knows all slots up to r + W − 1. Answers are kept by node and store, and a read is
//!   served where they hold a quorum of the members of the slot behind the one that it waits for.
//! - A former store is heard as before in the slots below r + W, and not refused before a quorum has all of them durably: with one
//!   more loss they could not be decided otherwise. The refusal names r, which the refused node checks in its own log before it
//!   stops; one that can't know r yet is let in to catch up. What peers remember of a former store (rule 12) goes then.
//! - A node that is behind r tells the new store so, and takes nothing from it; the new store asks another
//!   ([`handshake`]). So the cluster bears the next loss once every member that is left has r in its log.
//! - With f = 0 there is no such command, for what the lost store promised is nowhere else.
//!
//! The old store may be alive when it is replaced, several members may be replaced at once (as many as may be down), and one
//! member twice in a row. A command that is given again changes nothing.
//!
//! A new store does not know what the old one had heard of its peers' promises. Until it has heard them itself, it takes an old
//! copy of another member's store for that store; the other nodes do not. A new store whose log is still empty knows only the first
//! stores of the others, and takes decided slots from whoever says that it took the place of one: it has promised nothing, and a log
//! that is not the members' is found when it meets them.
//!
//! # Many slots
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
//! - [`stores`]: which store speaks for a member in which slot.
//! - [`lineage`]: the runs and promises of this store, and what is remembered of others (rule 12).
//! - [`forks`] and [`hashes`]: whether logs and states are the same (rule 12).
//! - [`pool`] and [`owners`]: which batch to propose in which slot. Never a matter of safety.
//! - [`words`]: what the cores are told, and what they want done.
//! - [`clocks`]: by which clock batches are stamped, and which stamps are backed.
//! - [`coin`]: the common coin.
//! - [`handshake`]: who may speak to a node.
//! - [`turns`]: whose work a node does next.
//!
//! This crate knows the words of `messages` and nothing else: no disk, no network, no runtime.
//!
//! The cores take events and append effects. What must be durable before it is sent is an effect of its own: the message
//! comes out only when the write was reported back, whoever drives the core.
//!
//! # How it is checked
//!
//! - `tests/rabia/slot_model`: every interleaving of one slot with the real [`slot::Slot`]: up to three phases, restarts, deaths,
//!   crashes between a write and its sync, payloads that are lost; 4.6 million states with three nodes and three phases.
//!   Rules are broken there one by one, to see that the search finds what that breaks; its page has the tables.
//! - `tests/rabia/replace_model`: a store is lost and replaced in every interleaving, with the real [`agreement::Agreement`].
//! - `tests/rabia/scenarios`: stories of the protocol, message by message, to read.
//! - `tests/rabia/consensus_random.rs`: whole clusters of these cores under random faults.
//!
//! # Caveats
//!
//! - Replicas fail by stopping, not by lying. What a node can check itself it does ([`agreement`]); a member that says what
//!   could be true and is not, decisions for one, is believed.
//! - A tainted node always proposes null, although the contract would let it back the owner's batch: one rule less, and
//!   only the few slots after a restart are concerned.
//! - Members can get a new store, but members can't be added or removed.

pub mod agreement;
pub mod clocks;
pub mod coin;
pub mod forks;
mod gathering;
pub mod handshake;
pub mod hashes;
pub mod lineage;
pub mod owners;
pub mod pool;
pub mod slot;
pub mod stores;
pub mod turns;
pub mod words;
