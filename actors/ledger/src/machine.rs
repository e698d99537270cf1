//! What is replicated: a state machine, and what it says of itself.
//!
//! A [`StateMachine`] applies commands and answers questions. Everything else is done for it by
//! [`Replicated`](crate::replicated::Replicated): batches are applied once, a command that is sent again gets the answer that it got
//! before, sessions expire, the state is compared with that of other nodes, saved and loaded. The [bank](crate::bank) is one machine.
//!
//! # The one rule
//!
//! Every node applies the same commands in the same order, and all states must stay the same. So [`apply`](StateMachine::apply) must
//! follow from the state, the command and the [`Moment`], with its level, alone: no clock, no random number, no file, no order of a hash map with a
//! random seed, no floating-point arithmetic that a platform may round otherwise. A command that can't be carried out is answered
//! with an outcome that says so; it is as much a part of the log as any other. A panic stops the node.
//!
//! # What a simple machine leaves out
//!
//! - Questions that are answered at once need no steps: `type Task = Infallible`.
//! - A state that is all in memory needs no blocks: `type Block = Infallible`.
//! - An outcome that serde can write is kept as it is: `type Kept = Whole<Outcome>`.
//! - Nothing to subscribe to: `type Feed = Infallible`.
//!
//! `examples/src/bin/own_state_machine.rs` has a key-value store in a hundred lines, and runs it on three nodes.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;

use rabia_bank_messages::bank::{Refusal, Status};
use rabia_bank_messages::batch::Batched;
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{Digest, Millis, NodeId, Secret, Slot};
use rabia_bank_messages::msgpack;
use rabia_bank_messages::principal::{Admin, PrincipalNumber, PrincipalsInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::rights::Rights;
use crate::rows::BadRow;
use crate::state::{StateRow, decode_state, encode_state};

/// Where in the log a command stands, and who asks for it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Moment<'a> {
    /// The slot that is applied.
    pub slot: Slot,
    /// The command's place among the requests of that slot, from 0.
    pub index: u32,
    /// Log time, in milliseconds since the Unix epoch: the highest stamp of a batch so far. It never goes back, but for the first
    /// slots of a cluster that goes on from a backup.
    pub time: Millis,
    /// The [level](rabia_bank_messages::level) in force: what a later one brought is not there yet.
    pub level: u32,
    /// What the principal may do that asks.
    pub rights: &'a Rights<'a>,
}

/// Where in the log an administrator's command stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Recorded {
    /// The slot that is applied.
    pub slot: Slot,
    /// Log time, in milliseconds since the Unix epoch.
    pub time: Millis,
    /// The level in force.
    pub level: u32,
    /// Who asked; 0 for the owner of a node's folder.
    pub principal: PrincipalNumber,
    /// Whose folder that is.
    pub owner: Option<NodeId>,
}

impl<'a> Moment<'a> {
    pub(crate) fn new(slot: Slot, index: u32, time: Millis, level: u32, rights: &'a Rights<'a>) -> Moment<'a> {
        Moment { slot, index, time, level, rights }
    }
}

/// What a cluster keeps alike on all its nodes, by the rule that the [page](self) states.
pub trait StateMachine: Debug + Sized + Send + 'static {
    /// Which machine it is, and in which version: nodes that compare states, and files that are read, must mean the same.
    const NAME: &'static str;

    /// What changes the state. Its encoding is in every log: see [`Batched`].
    type Command: Batched + Debug + Send;
    /// What came of a command. It must say the same at any later time, for it is told again where a client asks again.
    type Outcome: Clone + PartialEq + Debug + Send;
    /// What a session keeps of an outcome: less, where the rest can be made of the command. [`Whole`] keeps all.
    type Kept: Kept<Self>;
    /// What can be asked without changing anything.
    type Query: Debug + Send;
    /// What is answered, to commands and queries.
    type Answer: Clone + Debug + Send;
    /// A question that takes several steps to answer.
    type Task: Task<Self>;
    /// What a subscription is about.
    type Feed: Feed<Self>;
    /// A part of the history, as it stands on disk.
    type Block: Block;
    /// What the row of the state holds of the machine, beside pages and blocks: little, for it is written by every snapshot.
    type Head: Serialize + DeserializeOwned + Debug + Send;

    /// The machine of a new cluster: empty, as every member begins with it.
    fn new_cluster(genesis: &Genesis) -> Self;

    /// Whether a machine that was loaded is of a cluster with these constants.
    ///
    /// # Errors
    /// What is different, for people.
    fn check_cluster(&self, _genesis: &Genesis) -> Result<(), String> {
        Ok(())
    }

    /// Carries out a command, or refuses it. Called once for each command, in the order of the log.
    fn apply(&mut self, command: &Self::Command, at: Moment<'_>) -> Self::Outcome;

    /// An administrator's command was carried out. A machine with a history makes a record of it.
    fn record(&mut self, _act: &Admin, _at: Recorded) {}

    /// Whether applying would refuse this command to the principal, as far as can be said without the state. Asked before a command goes
    /// into the log, which is cheaper than to refuse it there.
    ///
    /// # Errors
    /// Why it would.
    fn check_command(_command: &Self::Command, _rights: &Rights<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether the principal may ask this.
    ///
    /// # Errors
    /// Why not.
    fn check_query(_query: &Self::Query, _rights: &Rights<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether the principal may subscribe to this.
    ///
    /// # Errors
    /// Why not.
    fn check_feed(_feed: &Self::Feed, _rights: &Rights<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether the principal may see the answer to a query at all, now that it is known what it is about.
    ///
    /// # Errors
    /// Why not.
    fn check_answer(_answer: &Self::Answer, _rights: &Rights<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    /// Takes out of an answer what the principal may not see.
    fn hide(_answer: &mut Self::Answer, _rights: &Rights<'_>) {}

    /// Takes out of an entry of the history what the principal may not see.
    fn hide_in_entry(_entry: &mut <Self::Feed as Feed<Self>>::Entry, _rights: &Rights<'_>) {}

    /// Between slots: a good time for work that spreads a later cost, such as hashing what has changed.
    fn settle(&mut self) {}

    /// Begins an answer, from the state as it is now. Nearly all are there at once.
    fn begin(&self, ask: Ask<'_, Self>) -> Begun<Self>;

    /// How to answer a query that is about the node rather than about what is replicated: with its status. None for all others.
    fn about_node(_query: &Self::Query) -> Option<fn(Box<Status>) -> Self::Answer> {
        None
    }

    /// How to answer a query that is about principals rather than about the machine. None for all others.
    fn about_principals(_query: &Self::Query) -> Option<fn(PrincipalsInfo) -> Self::Answer> {
        None
    }

    /// The answer to an administrator's command that was carried out, with the number of the principal or token. None where clients
    /// send no such commands.
    fn administered(_number: u64) -> Option<Self::Answer> {
        None
    }

    /// A hash of all that a later outcome or answer may depend on, but for the history. Two machines that applied the same have
    /// the same. It is asked for every thousand slots or so and by every snapshot, and should cost by what changed since.
    fn state_hash(&mut self) -> [u8; 32];

    /// How far the history goes, for machines that keep one: it never changes but at its end.
    fn history(&self) -> History {
        History::default()
    }

    /// What the status and the metrics of a node show of the machine. Nothing else depends on it.
    fn figures(&self) -> Figures {
        Figures::default()
    }

    /// What the row of the state is to hold.
    fn head(&self) -> Self::Head;

    /// Begins a snapshot of the state as it is now. Answers how many steps of [`collect`](StateMachine::collect) complete it.
    fn freeze(&mut self) -> usize;

    /// Goes on with the snapshot, by so many steps of about half a millisecond, while commands go on being applied. Answers the rows
    /// that changed since the last one when all are there, as they were when it began.
    fn collect(&mut self, steps: usize) -> Option<Rows>;

    /// The snapshots with this much of the history are durable: it may leave memory.
    fn forget(&mut self, _entries: u64) {}

    /// A machine that is being made of rows, with this head.
    fn load(head: &Self::Head) -> Self;

    /// Adds a page of a snapshot. They come in the order of their numbers.
    ///
    /// # Errors
    /// If it is not what a snapshot writes.
    fn load_page(&mut self, page: u32, row: &[u8]) -> Result<(), BadRow>;

    /// All pages are there, and the last block, if the history ends in one that is not full.
    ///
    /// # Errors
    /// If they do not belong together. (The digest is compared afterwards.)
    fn loaded(&mut self, head: Self::Head, last: Option<&Self::Block>) -> Result<(), BadRow>;

    /// The state goes on in a new cluster: it takes this secret where it is older than secrets are.
    fn adopt(_head: &mut Self::Head, _secret: Secret) {}

    /// How far the history of a snapshot with this head goes.
    fn history_of(_head: &Self::Head) -> History {
        History::default()
    }

    /// The row of the state: what is replicated of every machine, and this one's head. Only a machine whose files are older than
    /// this trait has a reason to write them otherwise.
    fn encode_state(state: StateRow, head: Self::Head) -> Vec<u8> {
        encode_state(Self::NAME, &state, &head)
    }

    /// Reads such a row; with `of_backup` also one that is only read to restore a backup.
    ///
    /// # Errors
    /// If it is of another machine or version, or damaged.
    fn decode_state(row: &[u8], _of_backup: bool) -> Result<(StateRow, Self::Head), BadRow> {
        decode_state(Self::NAME, row)
    }
}

/// What is to be answered.
#[derive(Debug)]
pub enum Ask<'a, S: StateMachine> {
    /// What came of a command, for its client. The answer is the same at any later time.
    Outcome(&'a S::Outcome),
    /// What a client asks, without a place in the log.
    Query(&'a S::Query),
    /// What a subscriber is to be told.
    Feed {
        /// Which entries belong to the subscription.
        feed: &'a S::Feed,
        /// Entries of the history with ids from here on, oldest first …
        next: u64,
        /// … of so many that are looked at …
        scan: u64,
        /// … so many at most. The answer says where it goes on.
        limit: usize,
    },
}

/// An answer, or what leads to it.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // nearly all are answers, and a box for each would be an allocation more
pub enum Begun<S: StateMachine> {
    /// This is it. An error says why there is none, by a stable code.
    Done(Result<S::Answer, Refusal>),
    /// It takes several steps, or a look at the disk.
    Task(S::Task),
}

/// How far an answer is.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // as above
pub enum Progress<A> {
    /// It is complete. An error says why there is none, by a stable code.
    Done(Result<A, Refusal>),
    /// It needs this block of the history: see [`Lookup::give`](crate::lookup::Lookup::give).
    Block(u64),
    /// It has used up its steps.
    Unfinished,
}

impl<A> Progress<A> {
    /// The answer, if this is it.
    pub fn done(self) -> Option<Result<A, Refusal>> {
        match self {
            Progress::Done(answer) => Some(answer),
            Progress::Block(_) | Progress::Unfinished => None,
        }
    }
}

/// A question that takes several steps to answer.
pub trait Task<S: StateMachine>: Debug + Send {
    /// Whether it shows the state at the moment when it is run, rather than when it was begun.
    fn sees_now(&self) -> bool {
        false
    }

    /// Whether [`prepare`](Task::prepare) has something to do.
    fn needs_preparation(&self) -> bool {
        false
    }

    /// Brings up to date what the machine keeps for answers alone. False if that takes more steps.
    fn prepare(&self, _machine: &mut S, _steps: &mut u64) -> bool {
        true
    }

    /// Goes on by so many steps at most, and takes those that it took from `steps`. `blocks` are the ones that it was given last.
    fn run(&mut self, machine: &S, blocks: &Given<S::Block>, steps: &mut u64) -> Progress<S::Answer>;
}

/// No question takes several steps.
impl<S: StateMachine> Task<S> for Infallible {
    fn run(&mut self, _: &S, _: &Given<S::Block>, _: &mut u64) -> Progress<S::Answer> {
        match *self {}
    }
}

/// What a subscription is about: some entries of the history.
pub trait Feed<S: StateMachine>: Clone + Debug + Send + Sync {
    /// What subscribers are told.
    type Entry: Clone + Debug + Send;

    /// The id of the first entry that a subscriber may be told of, 1 at least, by the state as it is now.
    ///
    /// # Errors
    /// Why there is nothing to subscribe to.
    fn first(&self, machine: &S) -> Result<u64, Refusal>;

    /// Tells a subscriber that it is told of entries from this id on.
    fn subscribed(&self, from: u64) -> S::Answer;

    /// Takes the answer to [`Ask::Feed`] apart: the entries, oldest first, and the id to go on from. None if it is no such answer.
    fn entries(&self, answer: S::Answer) -> Option<(Vec<Self::Entry>, u64)>;
}

/// What subscribers to a machine are told.
pub type Entry<S> = <<S as StateMachine>::Feed as Feed<S>>::Entry;

/// There is nothing to subscribe to.
impl<S: StateMachine> Feed<S> for Infallible {
    type Entry = Infallible;

    fn first(&self, _: &S) -> Result<u64, Refusal> {
        match *self {}
    }

    fn subscribed(&self, _: u64) -> S::Answer {
        match *self {}
    }

    fn entries(&self, _: S::Answer) -> Option<(Vec<Infallible>, u64)> {
        match *self {}
    }
}

/// The blocks that an answer was given last. Two, since a search may go down two ways at once.
#[derive(Debug)]
pub struct Given<B>([Option<Arc<B>>; 2]);

impl<B> Default for Given<B> {
    fn default() -> Given<B> {
        Given([None, None])
    }
}

impl<B> Given<B> {
    /// Those that are there, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &B> {
        self.0.iter().flatten().map(|block| &**block)
    }

    pub(crate) fn add(&mut self, block: Arc<B>) {
        let [newer, _] = std::mem::take(&mut self.0);
        self.0 = [Some(block), newer];
    }
}

/// What a session keeps of an outcome until its client has acknowledged the answer.
pub trait Kept<S: StateMachine>: Clone + Debug + Send {
    /// What to keep of what came of `command`.
    fn of(outcome: &S::Outcome, command: &S::Command) -> Self;

    /// The outcome again, given the command that it came of.
    fn restore(&self, command: &S::Command) -> S::Outcome;

    /// The most that [`bytes`](Kept::bytes) may be for this command: one for whose answer there is no room is not carried out.
    fn most_bytes(command: &S::Command) -> usize;

    /// What it takes in memory beside a constant, in bytes.
    fn bytes(&self) -> usize;

    /// Adds its bytes, for rows and digests: the same for the same outcome, and different for any two.
    fn encode(&self, bytes: &mut Vec<u8>);

    /// What [`encode`](Kept::encode) wrote, all of it. None if it is not that.
    fn decode(bytes: &[u8]) -> Option<Self>;

    /// Whether it speaks of nothing that is not in this machine, which was loaded with it.
    fn speaks_of(&self, _machine: &S) -> bool {
        true
    }
}

/// An outcome that is kept as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whole<O>(pub O);

/// The most that [`Whole`] takes of an outcome, encoded, in bytes. A machine with longer ones keeps something shorter of them.
pub const MAX_WHOLE: usize = 4 << 10;

impl<S, O> Kept<S> for Whole<O>
where
    S: StateMachine<Outcome = O>,
    O: Serialize + DeserializeOwned + Clone + Debug + Send,
{
    /// # Panics
    /// If the outcome takes more than [`MAX_WHOLE`] bytes.
    fn of(outcome: &O, _: &S::Command) -> Whole<O> {
        let kept = Whole(outcome.clone());
        let bytes = Kept::<S>::bytes(&kept);
        assert!(bytes <= MAX_WHOLE, "an outcome of {bytes} bytes is longer than {MAX_WHOLE}: {outcome:?}");
        kept
    }

    fn restore(&self, _: &S::Command) -> O {
        self.0.clone()
    }

    fn most_bytes(_: &S::Command) -> usize {
        MAX_WHOLE
    }

    fn bytes(&self) -> usize {
        msgpack::encode(&self.0).len()
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        msgpack::write(bytes, &self.0);
    }

    fn decode(bytes: &[u8]) -> Option<Whole<O>> {
        msgpack::decode_as_written(bytes).ok().map(Whole)
    }
}

/// A part of the history, as it stands on disk. Full ones never change, and are the same bytes on every node.
pub trait Block: Debug + Sized + Send + Sync {
    /// Entries in a full block.
    const ENTRIES: u64;

    /// The block of a row, verified.
    ///
    /// # Errors
    /// If it is not block `number`, or damaged.
    fn decode(number: u64, row: &[u8]) -> Result<Self, BadRow>;

    /// Blocks count from 0, in the order of the history.
    fn number(&self) -> u64;

    /// The hash of the entry before its first one.
    fn before(&self) -> Digest;

    /// How many entries it has: one at least.
    fn len(&self) -> u64;

    /// Whether it has none: never.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash of the entry with this id, if it is in the block.
    fn hash_of(&self, id: u64) -> Option<Digest>;
}

/// There are no blocks.
impl Block for Infallible {
    const ENTRIES: u64 = 1;

    fn decode(number: u64, _: &[u8]) -> Result<Infallible, BadRow> {
        Err(BadRow::new(format!("block {number} of a history, where none is kept")))
    }

    fn number(&self) -> u64 {
        match *self {}
    }

    fn before(&self) -> Digest {
        match *self {}
    }

    fn len(&self) -> u64 {
        match *self {}
    }

    fn hash_of(&self, _: u64) -> Option<Digest> {
        match *self {}
    }
}

/// How far a history goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct History {
    /// How many entries it has: also the id of the newest.
    pub entries: u64,
    /// The hash of the newest, over it and the hash before it; zero if there is none.
    pub head: Digest,
}

impl Default for History {
    fn default() -> History {
        History { entries: 0, head: Digest::ZERO }
    }
}

/// What a machine says of itself to people. Zero where it has nothing of the kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Accounts, or whatever the machine is a collection of.
    pub accounts: u64,
    /// The sum of all balances, in minor units.
    pub total_balance: i64,
}

/// The rows of a machine that changed between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// Pages of the state, by number, a few KiB each.
    pub pages: Vec<(u32, Vec<u8>)>,
    /// Blocks of the history, by number. The last one may be partly filled.
    pub blocks: Vec<(u64, Vec<u8>)>,
    /// The newest entry in the blocks.
    pub entries: u64,
}
