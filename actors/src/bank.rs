//! The bank actor: owns the ledger. Applies decided slots in order, answers the clients of this node, answers queries.
//!
//! A command is answered when it is applied here: at that point f + 1 disks bind it. A linearizable query waits for one
//! round among the nodes, which it shares with all others of that moment, and then until the slot that the round named is
//! applied. An answer that needs old transactions waits for their blocks, which are read off this thread, a few at a time.
//!
//! From time to time the bank takes a snapshot: it freezes the ledger between two slots, collects what changed bit by bit
//! between other messages, and hands it to the snapshotter. When that has made it durable, old transactions leave memory, and
//! the log that is not needed any more goes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::bank::{ErrorCode, OtherFields, Query, ReadLevel, Refusal, Status, Success, Transaction};
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::genesis::{Genesis, Replacement};
use rabia_bank_messages::ids::{BatchId, Millis, NodeId, Slot, StoreId};
use rabia_bank_messages::peer::DIGEST_INTERVAL;
use rabia_bank_messages::stages::Stage;
use rabia_bank_storage::{BooksReader, BooksView};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tracing::info;

use crate::consensus::stores::{Standing, Stores};
use crate::ledger::{Answer, Applied, Block, Ledger, Progress, Reading, RequestOutcome};
use crate::node::{Decision, Failed, Failure, Gauges, Rebuilt};
use crate::proposer::{AppliedTime, Proposer};
use crate::snapshot::{BooksError, Snapshot, read_block};
use crate::snapshotter::{OwnDigest, Save, Snapshotter};
use crate::voter::{Read, Voter};

/// Names a client of this node: one connection, or one host that embeds it.
pub type ClientId = u64;

/// Who waits for an answer, and the client's own mark on the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// The client.
    pub client: ClientId,
    /// Chosen by the client, handed back with the answer.
    pub tag: u64,
}

/// The answers to requests of one client.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Answers {
    /// Each of them.
    pub answers: Vec<Answered>,
    /// When the slot was applied that they come from; none for those that needed none.
    pub applied: Option<Instant>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answered {
    /// The client's mark.
    pub tag: u64,
    /// The slot that it was applied in or read at.
    pub slot: Option<Slot>,
    /// Of a request that went through the log: its place in that slot.
    pub index: Option<u32>,
    /// Whether the command had been applied before.
    pub replayed: bool,
    /// What came of it.
    pub result: Result<Done, Refusal>,
}

/// What was done.
#[derive(Debug)]
pub enum Done {
    /// A command was applied, or a query read.
    Success(Success),
    /// A session is open.
    Opened {
        /// Its number.
        session: u64,
        /// Whether it was opened by this request.
        new: bool,
    },
    /// The session is closed.
    Closed,
    /// Transactions of a feed.
    Followed {
        /// Oldest first; none if as many as make news were looked at in vain.
        transactions: Vec<Transaction>,
        /// All below this id were looked at.
        next: u64,
    },
}

/// A client has come. Its answers go there.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Register {
    /// Who.
    pub client: ClientId,
    /// Where to.
    pub answers: Recipient<Answers>,
}

/// A client has gone.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Unregister(pub ClientId);

/// These wait for the requests of a batch, in their order. Comes before the batch is proposed.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Expect {
    /// The batch.
    pub id: BatchId,
    /// One per request.
    pub waiters: Vec<Waiter>,
}

/// This node does not know what became of this batch, or may become of it. Whoever waits for its requests is told so.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Abandon(pub BatchId);

/// Tell this client that nothing was done.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Reject {
    /// Whom.
    pub waiter: Waiter,
    /// Why.
    pub refusal: Refusal,
}

/// Apply the next slot.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Apply {
    /// The slot.
    pub slot: Slot,
    /// What it was decided on.
    pub batch: Option<(BatchId, Payload)>,
    /// When it, and all slots before it, were decided.
    pub decided: Instant,
}

/// Answer this query.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Ask {
    /// Who asks.
    pub waiter: Waiter,
    /// What.
    pub query: Query,
    /// How fresh the answer must be.
    pub read: ReadLevel,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// Tell this client where a subscription begins: the id of the first transaction that it may be told of. Answered like a
/// query, with [`Success::Subscribed`], or refused if there is no such account.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Subscribe {
    /// Who asks.
    pub waiter: Waiter,
    /// What about.
    pub feed: Feed,
    /// How fresh the answer must be.
    pub read: ReadLevel,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// Tell this client of transactions of a feed, once: as soon as there are some, or as many were looked at in vain as make
/// news. Answered with [`Done::Followed`]; who wants more asks again, and so nobody gets more than it can take.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Follow {
    /// Who asks.
    pub waiter: Waiter,
    /// Which transactions. (Its `from` plays no part.) The asker keeps it, too, for as long as it wants to know.
    pub feed: Arc<Feed>,
    /// With ids from here on.
    pub next: u64,
}

/// Look whether there is anything for those who follow.
#[derive(Message)]
#[rtype(result = "()")]
struct TellFollowers;

/// The proposer is told of log time when it has gone on by so many milliseconds: it looks for leaps of an hour.
const TELL_TIME: Millis = 1_000;
/// Transactions that are looked at for a follower at a time; so many in vain are news, too.
const FOLLOW_SCAN: u64 = 4096;
/// Transactions that a follower is told of at a time: some 50 KB.
const FOLLOW_PAGE: usize = 256;

/// One that waits for transactions that are not there yet.
struct Follower {
    waiter: Waiter,
    feed: Arc<Feed>,
    /// Where it asked from.
    asked: u64,
    /// What was looked at already lies below this.
    next: u64,
}

impl Follower {
    fn is_there(&self) -> bool {
        Arc::strong_count(&self.feed) > 1
    }
}

/// What a client wants to know.
#[derive(Debug)]
enum Question {
    Query(Query),
    Subscribe(Feed),
}

/// A question that can't be answered yet.
struct WaitingRead {
    waiter: Waiter,
    question: Question,
    deadline: Instant,
}

/// The snapshot up to this slot, with these transactions, is durable.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Saved {
    /// The slot.
    pub slot: Slot,
    /// The newest transaction in it.
    pub transactions: u64,
}

/// Go on from this state, which is further than this node's own.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Install {
    /// The state.
    pub ledger: Box<Ledger>,
    /// The decisions before it that owners of coming slots are read from.
    pub decisions: Vec<Decision>,
}

/// Take a snapshot of the state as it is now, unless the last one is. Answered with the books when it is durable.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Result<BooksView, String>")]
pub struct TakeSnapshot;

/// Is this a member's store now, by what is applied here? Answered with the slot in which it was decided that it takes the place
/// of another, or none if that would have an effect now; or why it would not.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Result<Option<Slot>, String>")]
pub struct StandingOf {
    /// The member.
    pub node: NodeId,
    /// The store.
    pub store: StoreId,
}

/// When a snapshot is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotPolicy {
    /// After so many bytes of batches …
    pub bytes: u64,
    /// … or so many slots, whichever comes first.
    pub slots: u64,
}

impl SnapshotPolicy {
    /// What a node counts for its first snapshot before anything comes, of the bytes and slots that the log has behind the books. The
    /// nodes of a cluster take theirs in turn, so that while one is busy with it the others are not; so the log of one that is killed
    /// again and again may become nearly twice as long as the policy says.
    fn at_start(self, me: NodeId, members: usize, (bytes, slots): (u64, u64)) -> (u64, u64) {
        let part = |whole: u64, turn: usize| whole / members as u64 * turn as u64;
        let count = |whole: u64, replayed: u64| {
            let later = part(whole, members - 1 - me.index());
            part(whole, me.index()).max(replayed.saturating_sub(later))
        };
        (count(self.bytes, bytes), count(self.slots, slots))
    }
}

/// What the next snapshot is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SnapshotStage {
    Waiting,
    Collecting,
    Saving,
}

/// A snapshot is collected in so many parts, of one step at least: half a millisecond or more each …
const PARTS: usize = 512;
/// … with this pause before the next, so that requests, which need several turns of this thread, are hardly slower meanwhile. Where
/// the pause becomes longer, since there is much to apply, more parts follow: for half as long as it was …
const BETWEEN_PARTS: Duration = Duration::from_millis(1);
/// … but no longer than this. Otherwise a snapshot under load took so long that the log behind it grew and grew.
const MOST_AT_ONCE: Duration = Duration::from_millis(10);
/// Blocks that are read from disk at once.
const MAX_READING: usize = 4;

/// An answer that waits for a block of the history.
struct OpenAnswer {
    waiter: Waiter,
    purpose: Purpose,
    reading: Box<Reading>,
}

/// What an answer is to.
enum Purpose {
    /// A command or a query.
    Request { slot: Slot, index: Option<u32>, replayed: bool },
    /// A [`Follow`].
    Follow(Follower),
}

/// A node that is so many slots behind what it knows of says how far it is.
const FAR_BEHIND: u64 = 1_000;
/// How often that is said, and reads are dropped that nobody waits for any more.
const SWEEP: Duration = Duration::from_secs(1);

/// All reads up to `read` may be answered once `slot` is applied.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct ReadAt {
    /// The highest number of the reads.
    pub read: u64,
    /// The slot to wait for.
    pub slot: Slot,
}

/// Owns the ledger.
pub struct Bank {
    me: NodeId,
    genesis: Genesis,
    ledger: Ledger,
    clients: FxHashMap<ClientId, Recipient<Answers>>,
    expected: FxHashMap<BatchId, Vec<Waiter>>,
    /// Linearizable reads that wait for their round, by number.
    rounds: BTreeMap<u64, WaitingRead>,
    reads: u64,
    /// Reads that wait for a slot.
    at_slot: BTreeMap<Slot, Vec<WaitingRead>>,
    books: BooksReader,
    /// Answers that wait for their turn to read a block.
    unread: VecDeque<OpenAnswer>,
    reading: usize,
    followers: Vec<Follower>,
    /// The newest transaction when they were told last.
    told: u64,
    policy: SnapshotPolicy,
    snapshot: SnapshotStage,
    /// Who waits for a snapshot of which slot.
    snapshot_waiters: Vec<(Slot, oneshot::Sender<()>)>,
    /// Bytes of batches and slots since the last snapshot.
    unsaved: (u64, u64),
    /// The newest decisions: as many as owners of coming slots are read from.
    decisions: VecDeque<Decision>,
    /// The same, when the ledger was frozen.
    frozen_decisions: Vec<Decision>,
    failed: bool,
    gauges: Arc<Gauges>,
    /// The log time that the proposer was told of last.
    told_time: Millis,
    voter: Addr<Voter>,
    proposer: Addr<Proposer>,
    snapshotter: Addr<Snapshotter>,
    node: Recipient<Failed>,
}

/// What a bank begins with.
pub struct BankState {
    /// The state of the books and the log.
    pub rebuilt: Rebuilt,
    /// The books on disk.
    pub books: BooksReader,
    /// When to take snapshots.
    pub policy: SnapshotPolicy,
}

impl Bank {
    /// The bank of node `me`.
    #[allow(clippy::too_many_arguments)] // its neighbours, each of them once
    pub fn new(
        me: NodeId,
        genesis: Genesis,
        state: BankState,
        gauges: Arc<Gauges>,
        voter: Addr<Voter>,
        proposer: Addr<Proposer>,
        snapshotter: Addr<Snapshotter>,
        node: Recipient<Failed>,
    ) -> Bank {
        let BankState { rebuilt: Rebuilt { ledger, decisions, replayed_bytes }, books, policy } = state;
        let replayed_slots = ledger.applied() - gauges.snapshot_slot.load(Ordering::Relaxed);
        let unsaved = policy.at_start(me, genesis.members(), (replayed_bytes, replayed_slots));
        gauges.applied_slot.store(ledger.applied(), Ordering::Relaxed);
        Bank {
            me,
            genesis,
            ledger,
            books,
            unread: VecDeque::new(),
            reading: 0,
            followers: Vec::new(),
            told: 0,
            policy,
            snapshot: SnapshotStage::Waiting,
            snapshot_waiters: Vec::new(),
            unsaved,
            decisions: decisions.into(),
            frozen_decisions: Vec::new(),
            clients: FxHashMap::default(),
            expected: FxHashMap::default(),
            rounds: BTreeMap::new(),
            reads: 0,
            at_slot: BTreeMap::new(),
            failed: false,
            gauges,
            told_time: 0,
            voter,
            proposer,
            snapshotter,
            node,
        }
    }

    fn answer(&self, waiter: Waiter, slot: Option<Slot>, result: Result<Success, Refusal>) {
        if let Some(client) = self.clients.get(&waiter.client) {
            let result = result.map(Done::Success);
            let answers = vec![Answered { tag: waiter.tag, slot, index: None, replayed: false, result }];
            client.do_send(Answers { answers, applied: None });
        }
    }

    /// Tells the waiting clients that nobody knows what became of their requests, or may become of them.
    fn abandon(&self, batches: impl IntoIterator<Item = Vec<Waiter>>) {
        let message = "this node does not know what became of the request (it was far behind, or its clock is ahead)";
        for waiter in batches.into_iter().flatten() {
            self.answer(waiter, None, Err(Refusal::unknown(ErrorCode::NoQuorum, message)));
        }
    }

    /// Tells the waiting clients what came of the requests of a batch.
    fn answer_batch(
        &mut self,
        slot: Slot,
        applied: Instant,
        waiters: Vec<Waiter>,
        outcomes: &[RequestOutcome],
        ctx: &mut Context<Self>,
    ) {
        assert_eq!(
            waiters.len(),
            outcomes.len(),
            "a batch of this node in slot {slot} has other requests than it was given"
        );
        let mut answers: FxHashMap<ClientId, Vec<Answered>> = FxHashMap::default();
        for (index, (waiter, outcome)) in (0..).zip(waiters.iter().zip(outcomes)) {
            if self.clients.contains_key(&waiter.client)
                && let Some(answer) = self.render(*waiter, (slot, index), outcome)
            {
                answers.entry(waiter.client).or_default().push(answer);
            }
        }
        for (client, answers) in answers {
            if let Some(client) = self.clients.get(&client) {
                client.do_send(Answers { answers, applied: Some(applied) });
            }
        }
        self.read_blocks(ctx);
    }

    /// The answer to a request, unless it needs old transactions: then it comes later.
    fn render(&mut self, waiter: Waiter, place: (Slot, u32), outcome: &RequestOutcome) -> Option<Answered> {
        let tag = waiter.tag;
        let (slot, now) = (place.0, Some(place.1));
        let (slot, index, replayed, result) = match outcome {
            RequestOutcome::Opened { session, new } => {
                (slot, now, false, Ok(Done::Opened { session: *session, new: *new }))
            }
            RequestOutcome::Closed => (slot, now, false, Ok(Done::Closed)),
            RequestOutcome::Command { slot, index, replayed, outcome } => match self.ledger.render(outcome) {
                Progress::Done(answer) => (*slot, Some(*index), *replayed, answer.map(Done::Success)),
                Progress::Reading(reading) => {
                    let purpose = Purpose::Request { slot: *slot, index: Some(*index), replayed: *replayed };
                    self.unread.push_back(OpenAnswer { waiter, purpose, reading });
                    return None;
                }
            },
            RequestOutcome::Rejected(rejection) => (slot, now, false, Err(rejection.refusal())),
        };
        Some(Answered { tag, slot: Some(slot), index, replayed, result })
    }

    fn read(&mut self, waiter: Waiter, question: &Question, ctx: &mut Context<Self>) {
        let slot = self.ledger.applied();
        let query = match question {
            Question::Query(query) => query,
            Question::Subscribe(feed) => return self.answer(waiter, Some(slot), self.begin_of(feed)),
        };
        match self.ledger.query(query) {
            Some(Progress::Done(answer)) => self.answer(waiter, Some(slot), answer),
            Some(Progress::Reading(reading)) => {
                let purpose = Purpose::Request { slot, index: None, replayed: false };
                self.unread.push_back(OpenAnswer { waiter, purpose, reading });
                self.read_blocks(ctx);
            }
            None => {
                let status = Box::new(self.status());
                self.answer(waiter, Some(slot), Ok(Success::Status { status }));
            }
        }
    }

    /// Where a subscription begins.
    fn begin_of(&self, feed: &Feed) -> Result<Success, Refusal> {
        if let Some(account_id) = feed.account_id.clone() {
            let known = self.ledger.query(&Query::GetBalance { account_id }).and_then(Progress::done);
            known.transpose()?;
        }
        let from = feed.from.unwrap_or(self.ledger.newest_transaction() + 1);
        Ok(Success::Subscribed { from: from.max(1) })
    }

    /// Tells a follower what there is, or keeps it until there is something.
    fn follow(&mut self, follower: Follower, ctx: &mut Context<Self>) {
        match self.ledger.transactions_from(&follower.feed, follower.next, FOLLOW_SCAN, FOLLOW_PAGE) {
            Progress::Done(answer) => self.followed(follower, answer),
            Progress::Reading(reading) => {
                let (waiter, purpose) = (follower.waiter, Purpose::Follow(follower));
                self.unread.push_back(OpenAnswer { waiter, purpose, reading });
                self.read_blocks(ctx);
            }
        }
    }

    fn followed(&mut self, mut follower: Follower, answer: Answer) {
        let Ok(Success::Transactions { transactions, next: Some(next) }) = answer else {
            unreachable!("the transactions of a feed were answered with {answer:?}")
        };
        follower.next = next;
        if transactions.is_empty() && next < follower.asked.saturating_add(FOLLOW_SCAN) {
            // It was not looked at what came meanwhile, if the answer had to be read.
            self.told = self.told.min(next - 1);
            self.followers.push(follower);
        } else if let Some(client) = self.clients.get(&follower.waiter.client) {
            let result = Ok(Done::Followed { transactions, next });
            let answers = vec![Answered { tag: follower.waiter.tag, slot: None, index: None, replayed: false, result }];
            client.do_send(Answers { answers, applied: None });
        }
    }

    /// Reads blocks for the answers that wait, each off this thread, the answers in turn.
    fn read_blocks(&mut self, ctx: &mut Context<Self>) {
        while self.reading < MAX_READING
            && let Some(open) = self.unread.pop_front()
        {
            if !self.clients.contains_key(&open.waiter.client) {
                continue;
            }
            self.reading += 1;
            let (books, number) = (self.books.clone(), open.reading.block());
            let block = tokio::task::spawn_blocking(move || read_block(&books, number));
            ctx.spawn(block.into_actor(self).map(move |block, bank, ctx| {
                bank.reading -= 1;
                // Without a result the runtime is going down.
                if let Ok(block) = block {
                    bank.go_on(open, block);
                    bank.tell_followers(ctx);
                }
                bank.read_blocks(ctx);
            }));
        }
    }

    fn go_on(&mut self, open: OpenAnswer, block: Result<Block, BooksError>) {
        let OpenAnswer { waiter, purpose, reading } = open;
        let block = match block {
            Ok(block) => Arc::new(block),
            Err(error) => return self.node.do_send(Failed((&error).into())),
        };
        let number = block.number();
        match (self.ledger.resume(*reading, block), purpose) {
            // It would be read again, and again.
            (Progress::Reading(reading), _) if reading.block() == number => {
                let why =
                    format!("block {number} of the history in the books is damaged: its last transactions are missing");
                self.node.do_send(Failed(Failure::Damaged(why)));
            }
            (Progress::Done(answer), Purpose::Request { slot, index, replayed }) => {
                let result = answer.map(Done::Success);
                if let Some(client) = self.clients.get(&waiter.client) {
                    let answers = vec![Answered { tag: waiter.tag, slot: Some(slot), index, replayed, result }];
                    client.do_send(Answers { answers, applied: None });
                }
            }
            (Progress::Done(answer), Purpose::Follow(follower)) => self.followed(follower, answer),
            (Progress::Reading(reading), purpose) => self.unread.push_back(OpenAnswer { waiter, purpose, reading }),
        }
    }

    /// Sees to it that those who follow are told of what is new, after what waits already.
    fn tell_followers(&self, ctx: &mut Context<Self>) {
        if !self.followers.is_empty() && self.told < self.ledger.newest_transaction() {
            ctx.notify(TellFollowers);
        }
    }

    /// Tells the proposer when log time has gone on.
    fn tell_time(&mut self) {
        let time = self.ledger.log_time();
        if time >= self.told_time.saturating_add(TELL_TIME) {
            self.told_time = time;
            self.proposer.do_send(AppliedTime(time));
        }
    }

    /// Takes note of a slot that was applied, and begins a snapshot if one is due.
    fn note_slot(&mut self, slot: Slot, batch: Option<(BatchId, u64)>, ctx: &mut Context<Self>) {
        self.decisions.push_back((slot, batch.map(|(id, _)| id)));
        let keep = *self.genesis.owner_slots(slot + 1).start();
        while self.decisions.pop_front_if(|(slot, _)| *slot < keep).is_some() {}
        let (bytes, slots) = &mut self.unsaved;
        *bytes += batch.map_or(0, |(_, bytes)| bytes);
        *slots += 1;
        self.begin_snapshot_if_due(ctx);
    }

    fn begin_snapshot_if_due(&mut self, ctx: &mut Context<Self>) {
        let (bytes, slots) = self.unsaved;
        if bytes >= self.policy.bytes || slots >= self.policy.slots {
            self.begin_snapshot(ctx);
        }
    }

    /// Begins a snapshot, unless one is under way or nothing has changed since the last one.
    fn begin_snapshot(&mut self, ctx: &mut Context<Self>) {
        let saved = self.gauges.snapshot_slot.load(Ordering::Relaxed);
        if self.snapshot != SnapshotStage::Waiting || self.ledger.applied() <= saved {
            return;
        }
        self.unsaved = (0, 0);
        self.snapshot = SnapshotStage::Collecting;
        self.frozen_decisions = self.decisions.iter().copied().collect();
        let part = self.ledger.freeze().div_ceil(PARTS);
        self.collect(part, Instant::now(), ctx);
    }

    /// Goes on collecting the snapshot, by parts of so many steps. The pause behind the last ones began at `paused`.
    fn collect(&mut self, part: usize, paused: Instant, ctx: &mut Context<Self>) {
        // A state that was installed meanwhile makes the snapshot superfluous.
        if self.snapshot != SnapshotStage::Collecting {
            return;
        }
        let began = Instant::now();
        let most = ((began - paused) / 2).min(MOST_AT_ONCE);
        let changes = loop {
            match self.ledger.collect(part) {
                Some(changes) => break changes,
                None if began.elapsed() < most => {}
                None => {
                    let paused = Instant::now();
                    ctx.run_later(BETWEEN_PARTS, move |bank, ctx| bank.collect(part, paused, ctx));
                    return;
                }
            }
        };
        self.snapshot = SnapshotStage::Saving;
        let decisions = std::mem::take(&mut self.frozen_decisions);
        self.snapshotter.do_send(Save(Snapshot { changes, decisions }));
    }

    fn read_at(&mut self, slot: Slot, read: WaitingRead, ctx: &mut Context<Self>) {
        if slot <= self.ledger.applied() {
            self.read(read.waiter, &read.question, ctx);
        } else {
            self.at_slot.entry(slot).or_default().push(read);
        }
    }

    /// Answers the reads that waited for a slot that is applied now.
    fn read_due(&mut self, ctx: &mut Context<Self>) {
        let applied = self.ledger.applied();
        while let Some(due) = self.at_slot.first_entry().filter(|due| *due.key() <= applied) {
            for read in due.remove() {
                self.read(read.waiter, &read.question, ctx);
            }
        }
    }

    fn ask(&mut self, read: ReadLevel, waiting: WaitingRead, ctx: &mut Context<Self>) {
        match read {
            ReadLevel::Local => self.read(waiting.waiter, &waiting.question, ctx),
            ReadLevel::AtLeast(slot) => self.read_at(slot, waiting, ctx),
            ReadLevel::Linearizable => {
                self.reads += 1;
                self.rounds.insert(self.reads, waiting);
                self.voter.do_send(Read(self.reads));
            }
        }
    }

    /// Without a quorum, or for a slot far ahead, reads would gather for ever; so would followers who want no more.
    fn sweep(&mut self) {
        let now = Instant::now();
        let (applied, known) = (self.ledger.applied(), self.gauges.known_elsewhere.load(Ordering::Relaxed));
        if known > applied + FAR_BEHIND && self.gauges.received_bytes.load(Ordering::Relaxed) == 0 {
            info!(slot = applied, of = known, "catching up");
        }
        self.followers.retain(Follower::is_there);
        self.rounds.retain(|_, read| read.deadline > now);
        self.at_slot.retain(|_, reads| {
            reads.retain(|read| read.deadline > now);
            !reads.is_empty()
        });
    }

    fn status(&mut self) -> Status {
        let summary = self.ledger.summary();
        let load = |gauge: &std::sync::atomic::AtomicU64| gauge.load(Ordering::Relaxed);
        let gauges = &self.gauges;
        Status {
            node: self.me,
            cluster: self.genesis.cluster,
            version: env!("CARGO_PKG_VERSION").into(),
            members: self.genesis.members(),
            connected: self.genesis.nodes().filter(|n| gauges.connected[n.index()].load(Ordering::Relaxed)).collect(),
            applied_slot: summary.applied,
            decided_slots: summary.decided_slots,
            null_slots: summary.null_slots,
            repeated_batches: summary.repeated_batches,
            phases: std::array::from_fn(|index| load(&gauges.phases[index])),
            snapshot_slot: load(&gauges.snapshot_slot),
            known_slot: load(&gauges.known_elsewhere).max(summary.applied),
            receiving_bytes: load(&gauges.received_bytes),
            open_slots: load(&gauges.open_slots),
            accounts: summary.accounts,
            transactions: summary.transactions,
            total_balance: summary.total_balance,
            sessions: summary.sessions,
            clients: load(&gauges.clients),
            max_clients: gauges.max_clients,
            descriptors: gauges.descriptors,
            chain_head: self.ledger.chain_head(),
            state_digest: self.ledger.digest(),
            log_time: self.ledger.log_time(),
            clock_offset_ms: gauges.clock_offset_ms.load(Ordering::Relaxed),
            clock_leap_ms: load(&gauges.clock_leap_ms),
            commits: load(&gauges.commits),
            uptime_s: gauges.started.elapsed().as_secs(),
            process: crate::process::used(),
            stages: gauges.stages.read(),
            other: OtherFields::default(),
        }
    }
}

impl Actor for Bank {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP, |bank, _| bank.sweep());
        self.begin_snapshot_if_due(ctx);
    }
}

impl Handler<Register> for Bank {
    type Result = ();

    fn handle(&mut self, Register { client, answers }: Register, _: &mut Self::Context) {
        self.clients.insert(client, answers);
    }
}

impl Handler<Unregister> for Bank {
    type Result = ();

    fn handle(&mut self, Unregister(client): Unregister, _: &mut Self::Context) {
        self.clients.remove(&client);
    }
}

impl Handler<Expect> for Bank {
    type Result = ();

    fn handle(&mut self, Expect { id, waiters }: Expect, _: &mut Self::Context) {
        self.expected.insert(id, waiters);
    }
}

impl Handler<Abandon> for Bank {
    type Result = ();

    fn handle(&mut self, Abandon(id): Abandon, _: &mut Self::Context) {
        let waiters = self.expected.remove(&id);
        self.abandon(waiters);
    }
}

impl Handler<Reject> for Bank {
    type Result = ();

    fn handle(&mut self, Reject { waiter, refusal }: Reject, _: &mut Self::Context) {
        self.answer(waiter, None, Err(refusal));
    }
}

impl Handler<Apply> for Bank {
    type Result = ();

    fn handle(&mut self, Apply { slot, batch, decided }: Apply, ctx: &mut Self::Context) {
        if self.failed {
            return;
        }
        let named = batch.as_ref().map(|(id, payload)| (id, payload));
        match self.ledger.apply(slot, named) {
            Ok(Applied::Batch(outcomes)) => {
                let now = Instant::now();
                self.gauges.stages.note(Stage::Apply, now - decided);
                if let Some(waiters) = batch.as_ref().and_then(|(id, _)| self.expected.remove(id)) {
                    self.answer_batch(slot, now, waiters, &outcomes, ctx);
                }
            }
            Ok(Applied::Replacement) => {
                if let Some(Replacement { node, store, .. }) = self.ledger.replacements().list().last() {
                    info!(slot, of = %node, %store, "a store takes the place of another");
                }
            }
            Ok(Applied::Null | Applied::Repeated) => {}
            Err(error) => {
                self.failed = true;
                let message = format!("slot {slot} can't be applied: {error}. Is a newer version in the cluster?");
                return self.node.do_send(Failed(message.into()));
            }
        }
        self.gauges.applied_slot.store(slot, Ordering::Relaxed);
        self.tell_time();
        if slot.is_multiple_of(DIGEST_INTERVAL) {
            self.snapshotter.do_send(OwnDigest { slot, digest: self.ledger.digest() });
        }
        self.note_slot(slot, batch.map(|(id, payload)| (id, payload.len() as u64)), ctx);
        self.read_due(ctx);
        self.tell_followers(ctx);
    }
}

impl Handler<Saved> for Bank {
    type Result = ();

    fn handle(&mut self, Saved { slot, transactions }: Saved, ctx: &mut Self::Context) {
        if self.snapshot == SnapshotStage::Saving {
            self.snapshot = SnapshotStage::Waiting;
        }
        self.ledger.forget(transactions);
        for (_, waiter) in self.snapshot_waiters.extract_if(.., |(wanted, _)| *wanted <= slot) {
            // Who asked may be gone.
            let _ = waiter.send(());
        }
        if !self.snapshot_waiters.is_empty() {
            self.begin_snapshot(ctx);
        }
        self.begin_snapshot_if_due(ctx);
    }
}

impl Handler<TakeSnapshot> for Bank {
    type Result = ResponseFuture<Result<BooksView, String>>;

    fn handle(&mut self, _: TakeSnapshot, ctx: &mut Self::Context) -> Self::Result {
        let (done, durable) = oneshot::channel();
        let wanted = self.ledger.applied();
        if wanted > self.gauges.snapshot_slot.load(Ordering::Relaxed) {
            self.snapshot_waiters.push((wanted, done));
            self.begin_snapshot(ctx);
        } else {
            // The other end is there.
            let _ = done.send(());
        }
        let books = self.books.clone();
        Box::pin(async move {
            durable.await.map_err(|_| "the node is stopping".to_owned())?;
            books.view().map_err(|error| error.to_string())
        })
    }
}

impl Handler<StandingOf> for Bank {
    type Result = Result<Option<Slot>, String>;

    fn handle(&mut self, StandingOf { node, store }: StandingOf, _: &mut Self::Context) -> Self::Result {
        let stores = Stores::new(&self.genesis, self.ledger.replacements());
        if node.index() < self.genesis.members()
            && let Standing::Former(by) = stores.standing(node, store)
        {
            return Err(format!("store {store} was replaced itself, in slot {}, by {}", by.slot, by.store));
        }
        match stores.brought(node, store) {
            Some(replacement) => Ok(Some(replacement.slot)),
            None => stores.check(node, store).map(|()| None),
        }
    }
}

impl Handler<Install> for Bank {
    type Result = ();

    fn handle(&mut self, Install { ledger, decisions }: Install, ctx: &mut Self::Context) {
        let (own, new) = (self.ledger.applied(), ledger.applied());
        assert!(new > own, "a state after slot {new} would take the place of one after slot {own}");
        let old = std::mem::replace(&mut self.ledger, *ledger);
        // A million accounts take a while to go: not on this thread.
        drop(tokio::task::spawn_blocking(move || drop(old)));
        self.decisions = decisions.into();
        self.snapshot = SnapshotStage::Waiting;
        self.unsaved = self.policy.at_start(self.me, self.genesis.members(), (0, 0));
        self.gauges.applied_slot.store(new, Ordering::Relaxed);
        self.tell_time();
        // Slots were skipped, and what was answered in them is not known.
        let waiters = std::mem::take(&mut self.expected);
        self.abandon(waiters.into_values());
        self.read_due(ctx);
        self.tell_followers(ctx);
    }
}

impl Handler<Ask> for Bank {
    type Result = ();

    fn handle(&mut self, Ask { waiter, query, read, deadline }: Ask, ctx: &mut Self::Context) {
        let read = if query == (Query::GetStatus {}) { ReadLevel::Local } else { read };
        self.ask(read, WaitingRead { waiter, question: Question::Query(query), deadline }, ctx);
    }
}

impl Handler<Subscribe> for Bank {
    type Result = ();

    fn handle(&mut self, Subscribe { waiter, feed, read, deadline }: Subscribe, ctx: &mut Self::Context) {
        self.ask(read, WaitingRead { waiter, question: Question::Subscribe(feed), deadline }, ctx);
    }
}

impl Handler<Follow> for Bank {
    type Result = ();

    fn handle(&mut self, Follow { waiter, feed, next }: Follow, ctx: &mut Self::Context) {
        self.follow(Follower { waiter, feed, asked: next, next }, ctx);
    }
}

impl Handler<TellFollowers> for Bank {
    type Result = ();

    fn handle(&mut self, _: TellFollowers, ctx: &mut Self::Context) {
        let newest = self.ledger.newest_transaction();
        // Of several slots in a row, the first one's message finds what all of them brought.
        if self.told >= newest {
            return;
        }
        self.told = newest;
        for follower in std::mem::take(&mut self.followers) {
            if follower.is_there() {
                self.follow(follower, ctx);
            }
        }
        self.tell_followers(ctx);
    }
}

impl Handler<ReadAt> for Bank {
    type Result = ();

    fn handle(&mut self, ReadAt { read, slot }: ReadAt, ctx: &mut Self::Context) {
        let later = self.rounds.split_off(&(read + 1));
        for (_, read) in std::mem::replace(&mut self.rounds, later) {
            self.read_at(slot, read, ctx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_their_first_snapshots_in_turn_and_do_not_put_them_off_for_ever() {
        let policy = SnapshotPolicy { bytes: 300, slots: 3_000 };
        let at_start =
            |bytes, slots| [1, 2, 3].map(|node| policy.at_start(NodeId::new(node).unwrap(), 3, (bytes, slots)));
        assert_eq!(at_start(0, 0), [(0, 0), (100, 1_000), (200, 2_000)]);
        assert_eq!(at_start(290, 2_900), [(90, 900), (190, 1_900), (290, 2_900)]);
        assert!(at_start(500, 0).iter().all(|(bytes, _)| *bytes >= policy.bytes));
        assert!(at_start(0, 5_000).iter().all(|(_, slots)| *slots >= policy.slots));
        assert_eq!(policy.at_start(NodeId::new(1).unwrap(), 1, (290, 7)), (290, 7));
    }
}
