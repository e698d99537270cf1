//! The actors of a Rabia Bank node, and the two pure cores that they drive, each a crate of its own: [`consensus`] and [`ledger`].
//!
//! ```text
//!              clients                                                       peers
//!                 │ WebSocket                                                  │ WebSocket
//!                 ▼                                                            ▼
//!         ┌───────────────┐ Submit ┌──────────┐ proposals  ┌───────┐ Say ┌──────────┐
//!         │ ClientSession ├───────►│ Proposer ├───────────►│ Voter ├────►│ PeerLink │ one a peer
//!         └──┬─────────▲──┘        │  (pool)  │◄───────────┤ (core)│◄────┤          │
//!            │ Ask     │ Answers   └────┬─────┘   notices  └┬─┬─┬──┘     └────▲─────┘
//!            ▼         │                │ Expect            │ │ │             │ Entries, digests
//!         ┌────────────┴──┐◄────────────┘       Apply       │ │ │      ┌──────┴──────┐
//!         │ Bank (ledger) │◄────────────────────────────────┘ │ └─────►│ Snapshotter │
//!         └───────────────┘                           Persist │        └─────────────┘
//!                                                             ▼ Persisted
//!                                                          ┌─────┐
//!                                                          │ Log │ a thread of its own
//!                                                          └─────┘
//! ```
//!
//! # Who owns what
//!
//! | actor | owns |
//! | --- | --- |
//! | [`ClientSession`](client_session), one a connection | the socket, decoding, budgets, a [door](parts::door) and a [session](parts::session) |
//! | [`HostSession`](host_session), as many as the host wants | a session of the program that the node lives in |
//! | [`Proposer`](proposer) | the pool: what waits, how it is grouped, what to propose |
//! | [`Voter`](voter) | the agreement core, and what the node promised and heard |
//! | [`Log`](log) | the store: the one writer, group commit |
//! | [`Bank`](bank) | the ledger, who waits for which answer, and whose turn it is |
//! | [`Snapshotter`](snapshotter) | the books on disk, what peers that are behind get, comparing state digests |
//! | [`PeerLink`](peer_link), one a peer | one link: reconnecting, bounded queues |
//! | [`Node`](node) | starting sessions, watching and stopping the others |
//!
//! Actors know one another by the inboxes in [`mail`], where all messages are. [`start`] builds and wires them, and
//! [`handle`] is what the holder of a node has of it. Actors count in [`metrics`], which steer nothing. What actors
//! decide is in [`parts`], free of actors, threads and clocks; the simulator drives the same parts. An actor of the same name is the
//! shell around its part: mailbox, timers, sockets, threads.
//!
//! # What happens when
//!
//! **A vote is made durable.**
//!
//! 1. The [`PeerLink`](peer_link) decodes a frame of a peer and hands its messages to the [`Voter`](voter). It reads the next one when
//!    the voter has taken them.
//! 2. The voter's [part](parts::voter) gives them to the agreement core, which comes to a vote and wants it written, under a ticket.
//!    The part says [`Persist`](parts::voter::Out::Persist), and the actor tells the log so.
//! 3. The [log](parts::log) adds it to the commit that waits. When the write that is under way has ended, its thread writes all that waits
//!    by then, and syncs once.
//! 4. The log reports the last ticket of the commit ([`Persisted`](mail::voter::Persisted)). The core hands out what that allows: first how
//!    many promises this store has kept, then the vote. The part says [`SayAll`](parts::voter::Out::SayAll).
//! 5. Each link adds it to the frame that [gathers](parts::link), and sends that behind all that waits in its mailbox.
//!
//! **A transfer is applied.** The voter's core has decided a slot, and all before it. The voter hands the bank its batch. The
//! [bank's part](parts::bank) applies it to the ledger, which asks no clock and no random source, so that every node gets the same
//! outcomes. Where this node had proposed the batch, the proposer had told the bank who waits for it: each waiter brings the
//! handle of its client, and the client gets its answers of the batch in one message. Then come those who waited for that
//! very slot: reads, and followers of a feed, for whom looking is work that gets its turn behind votes and commands. When enough has
//! been applied since the last snapshot, the bank freezes what has changed, collects it bit by bit between other messages, and gives
//! it to the [snapshotter](parts::snapshotter). When it is durable, the bank forgets old transactions, and the log goes up to the
//! snapshot before.
//!
//! # What is guaranteed
//!
//! - **Order.** Messages from one actor to another arrive in the order in which they were sent. The voter performs the
//!   effects of its core in the core's order, so a slot is delivered to the bank after all slots before it, and who waits
//!   for a batch is known to the bank before the batch is proposed. The commands of one connection are proposed in the
//!   order in which they came; requests of several connections share batches.
//! - **Durable before sent.** A vote leaves the voter only after the log has reported it durable. A client is answered when
//!   its command is applied, and then f + 1 disks bind it.
//! - **Bounds.** Actix mailboxes are not bounded, so what enters is counted: requests in flight per connection and per node
//!   (beyond: `busy`), one frame of a peer in the voter's mailbox at a time, bytes and frames that wait for a slow peer
//!   (dropped beyond; the protocol repeats), batches of other nodes that wait to be proposed (the origin's oldest go beyond), and of
//!   clients the bytes of unfinished messages, of requests without an answer and of answers that are not read, for a connection, its
//!   owner and the node ([`budget`]; the connection is closed beyond). The table below has the numbers for peers.
//! - **Fair shares.** Work goes with who asked for it: its [owner](consensus::turns), the address of a client or the program that the node lives
//!   in. Commands are taken into batches in turn, first by owner, then by connection; so are queries, feeds and the blocks that these
//!   need, in turns of some 4,096 records behind votes and commands. Long messages, all clients' together, take half of the
//!   thread's time at most to be decoded. Of what may wait on a node, one owner has half of what the others leave at most.
//! - **Waiting.** Actors of the core never wait for one another. Outward, a link waits for the voter to take a frame, and a
//!   handshake for the write that remembers the peer. No time limit is put around a durable write.
//! - **Threads.** All actors of a node share the arbiter that [`start::start`] was called on; the log writer blocks a thread
//!   of its own, a niced one reads old transactions for answers, and reading the log for peers happens on tokio's blocking threads.
//! - **Belief.** What a peer says is checked whole before anything is done with it: its numbers, the payloads that it sends, and
//!   whether its store speaks for it by this node's own log (`consensus::agreement`). What can't be closes the link. A decided
//!   batch that can't be applied is applied as an empty one by every node, and remembered.
//! - **Failure.** A node is fail-stop. A storage error, a state that differs from the majority's, or an actor that died end
//!   in [`NodeHandle::failed`](handle::NodeHandle::failed), with the reason; whoever holds the handle stops the
//!   node. The program aborts on a panic. Nothing else stops a node: what a client or a peer sends closes its connection at
//!   most.
//! - **No globals.** Several nodes live in one process, and in one System.
//!
//! # What peers may cost
//!
//! | what | per peer | in all |
//! | --- | --- | --- |
//! | connections that have not said who they are | a frame of 4 KiB, 5 s each | a part of the process's descriptors: then the oldest goes |
//! | links | one; another run's accepted hello, or 2 s of silence, displaces it | six |
//! | one frame | 16 MiB, 65,536 messages; taken one at a time | |
//! | frames that wait for a slow peer | 64 MiB, 256 frames: then they are dropped | |
//! | payload of a batch | 14 MiB, 8,192 requests | |
//! | batches that wait to be proposed | 32 MiB, 4,096, a minute: then the oldest go | 96 MiB |
//! | slots ahead, phases ahead | 64 beyond the log's end, 16 beyond the own one | |
//! | payloads, decided slots and snapshot rows that are read for it | 8, one answer, one answer | |

pub mod applied;
pub mod bank;
mod block_reader;
pub mod budget;
pub mod client_session;
pub mod failure;
pub mod handle;
pub mod host_session;
pub mod log;
pub mod mail;
pub mod metrics;
pub mod node;
pub mod parts;
pub mod peer_link;
pub mod process;
pub mod proposer;
pub mod rate;
pub mod rebuild;
pub mod seats;
pub mod session;
pub mod snapshot;
pub mod snapshotter;
pub mod socket;
pub mod stages;
pub mod start;
pub mod timekeeper;
pub mod uptime;
pub mod voter;

pub use rabia_bank_ledger as ledger;
pub use rabia_bank_rabia as consensus;
