//! Rules that tests break on purpose, to see that some check notices.
//!
//! Only with the feature `sabotage`, which nothing but tests of this workspace enables, can a rule be broken; otherwise
//! [`is_broken`] is a constant, and a program has no trace of it. A rule is broken for one thread, which suits the simulator and
//! the model checks: they run in one.

/// A rule of PROTOCOL.md or BANK.md that the code asks about at the place where it keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Rule {
    /// Rule 1: nothing is said at or above the durable mark.
    Reserve,
    /// Rule 1: slots below the mark of a former run are known to be tainted.
    TaintRemembered,
    /// Rule 3 †: a tainted slot abstains. Broken: it states Zero.
    TaintedAbstains,
    /// Rule 3: an id needs a majority of proposals. Broken: one is enough.
    ProposalMajority,
    /// Rule 4: a vote needs a quorum of States. Broken: one less is enough.
    StateQuorum,
    /// Rule 4 †: never Undecided where a majority was seen. Broken: only if all States agree is their value voted for.
    VoteFollowsMajority,
    /// Rule 4 †: a vote is durable before it is sent.
    VoteDurableFirst,
    /// Rule 5: f + 1 votes decide. Broken: f do.
    DecisionNeedsVotes,
    /// Rule 5: a value with a vote is gone on with. Broken: the coin is asked all the same.
    VoteBindsState,
    /// Rule 5: the coin is the same everywhere.
    CommonCoin,
    /// Rule 5 †: a State of phase 2 or later is durable before it is sent.
    StateDurableFirst,
    /// Rule 6 ‡: a message that names an id counts only once its payload is held.
    PayloadHeld,
    /// Rule 6 ‡: until the payload is held a later message takes the place. Broken: the first one keeps it.
    ParkedReplaced,
    /// Rule 6: records are durable together with the payload that they name.
    PayloadDurable,
    /// Rule 6: a payload has the digest that its id says.
    PayloadDigest,
    /// A payload that waits is held only if it can be applied.
    PayloadChecked,
    /// Numbers of peers that can't be are refused.
    NumbersChecked,
    /// Who contradicts what is decided here is refused. Broken: an assertion fails.
    DecisionsStay,
    /// A decided batch that can't be applied counts as an empty one. Broken: an assertion fails.
    UnusableIsEmpty,
    /// A batch of a format above the level in force is an empty one. Broken: who can read it applies it.
    LevelGate,
    /// Rule 12: a count of promises is said before what the last of them allows. Broken: behind it.
    PromisesFirst,
    /// In each slot the store counts that speaks for its member there. Broken: any that is linked.
    StoreBySlot,
    /// Rule 7: senders are counted, not messages.
    OnePerSender,
    /// Rule 7: the first message that counts stays.
    FirstCounts,
    /// Rule 9: what was said for undecided slots is said again.
    Repeat,
    /// Rule 10 †: records of earlier phases stay.
    RecordsStay,
    /// Rule 10 †: installing a snapshot removes only what lies at or below it.
    SnapshotKeepsAbove,
    /// Rule 11 ‡: Proposal(null) and Abstain are said in slots of a former run.
    RestartSpeaks,
    /// Rule 11 ‡: all stored records are said again. Broken: the last one.
    RestartSaysAll,
    /// Rule 12: who speaks knows the run in which its store was heard. Broken: only counts are compared, whatever the run.
    RunsKnown,
    /// Rule 12: … and kept so many promises in it. Broken: any number will do.
    PromiseCounts,
    /// Rule 12: hashes of logs are compared. Broken: any is taken for the own one.
    LogHash,
    /// Rule 12: who is in doubt about its log answers nobody. Broken: it goes on.
    DoubtIsSilent,
    /// Rule 12: what comes from a member with another log counts for nothing. Broken: it counts.
    ForkedIsIgnored,
    /// Rule 12: a snapshot takes the place of a log only if its history has the log's last transaction. Broken: of any.
    SnapshotHistory,
    /// Rule 12: an empty disk refuses to start. Broken in the simulator: a new store is made.
    StoreMadeOnce,
    /// A new store speaks once the log says that it took the place of another. Broken: at once, and it is believed.
    NewStoreByLog,
    /// … from r + W on. Broken: from r + 1 on.
    NewStoreWindow,
    /// … and answers reads when it knows all slots in which the former one spoke. Broken: at once.
    NewStoreReads,
    /// A former store is heard until a quorum has its last slots durably. Broken: it is refused from r on.
    FormerHeard,
    /// … and that they are durable is what counts. Broken: that they are known.
    FormerDurable,
    /// Nobody speaks in slot s before it knows all decisions up to s − W. Broken: s − 2W.
    Window,
    /// A batch whose stamp is more than a second ahead is not backed.
    StampAhead,
    /// … nor one that is stamped far beyond what monotonic clocks confirm.
    NoLeaps,
    /// Decisions are applied in slot order.
    InOrder,
    /// Decided batches are not proposed again by a node that learnt of them by a snapshot.
    SnapshotSettlesPending,
    /// A linearizable read asks the others.
    ReadRound,
    /// … and waits for a quorum of answers. Broken: the own one is enough.
    ReadQuorum,
    /// … of the members of the slot behind the one that they name. Broken: of any stores.
    ReadMembers,
    /// … which name slots that were only voted in, too.
    ReadSeesVotes,
    /// … and are answers to this very round.
    ReadEcho,
    /// … and is answered when the slot is applied. Broken: at once.
    ReadWaits,
    /// A write is reported when it is durable. Broken: when it begins.
    ReportedDurable,
    /// Records are written. Broken: they are forgotten.
    RecordsWritten,
    /// A sync syncs. Broken in the simulator: disks only say so.
    SyncsSync,
    /// The log goes only where durable books cover it. Broken: as far as the books reach that are about to be written.
    BooksCoverLog,
    /// A batch that is decided twice is applied once.
    BatchOnce,
    /// Replies are kept for retries.
    RepliesKept,
    /// The key of a session that ended opens no other.
    EndedKeysKept,
    /// A refusal of a node says nothing of an earlier attempt. Broken: none was executed.
    RetriesUnknown,
    /// A token is looked at when a request is applied. Broken: only at the door.
    TokenAtApply,
    /// Roles and scopes are looked at when a command is applied. Broken: only at the door.
    ScopesAtApply,
    /// Limits are kept when a command is applied. Broken: there are none.
    LimitsAtApply,
    /// A session belongs to the principal that opened it. Broken: to whoever has its key.
    SessionOwned,
    /// Sessions end when they were idle for too long.
    SessionsExpire,
    /// Log time never goes back.
    MonotonicTime,
    /// The sum of all balances is bounded.
    OverflowChecked,
    /// What is decided above a gap counts for reads after a restart, too.
    SparseRead,
    /// Payloads that records name stay when the log below them goes.
    NamedPayloadsStay,
    /// A log opens only with books that reach its beginning.
    BooksReachLog,
    /// A ledger that is made of rows has the digest that they say.
    LoadedDigest,
    /// A block that is received follows the one before it.
    BlocksFollow,
    /// Rows of two snapshots of a sender are not mixed. Broken: pages of accounts are.
    OneSnapshot,
    /// An own snapshot does not write over blocks that were received.
    ReceivedStays,
    /// The pool hears of decisions that came with a snapshot.
    InstalledTold,
    /// A message for a slot that is decided is answered with the decision.
    LateAnswered,
    /// The coin of each slot is its own.
    CoinBySlot,
    /// A handshake is answered when what is remembered of the peer is durable. Broken in the voter actor: at once.
    MetDurably,
    /// Whoever needs to know hears when a link has ended. Broken in the link actor: nobody.
    LinkEndTold,
}

#[cfg(feature = "sabotage")]
std::thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Whether this rule is broken on this thread.
#[cfg(feature = "sabotage")]
pub fn is_broken(rule: Rule) -> bool {
    BROKEN.get() == Some(rule)
}

/// Whether this rule is broken on this thread: never, without the feature `sabotage`.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn is_broken(_: Rule) -> bool {
    false
}

/// A rule is broken on this thread for as long as this lives.
#[cfg(feature = "sabotage")]
#[derive(Debug)]
pub struct Broken(());

#[cfg(feature = "sabotage")]
impl Broken {
    /// Breaks a rule.
    ///
    /// # Panics
    /// If another one is broken.
    #[must_use]
    pub fn rule(rule: Rule) -> Broken {
        let other = BROKEN.replace(Some(rule));
        assert_eq!(other, None, "two rules can't be broken at once");
        Broken(())
    }
}

#[cfg(feature = "sabotage")]
impl Drop for Broken {
    fn drop(&mut self) {
        BROKEN.set(None);
    }
}

/// What a scenario has seen: that all is right, or what is wrong.
#[cfg(feature = "sabotage")]
pub type Seen = Result<(), String>;

/// A step of a scenario: `what` is wrong unless this holds.
///
/// # Errors
/// `what`, where it does not hold.
#[cfg(feature = "sabotage")]
pub fn ensure(holds: bool, what: impl Into<String>) -> Seen {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// Runs a scenario twice, which is to see that a rule is broken, and prints what it saw then.
///
/// # Panics
/// If something is wrong while the rule is kept, or nothing while it is broken.
#[cfg(feature = "sabotage")]
#[allow(clippy::print_stdout)] // a test shows it to whoever wants to see
pub fn shows(rule: Rule, scenario: impl Fn() -> Seen) {
    assert_eq!(scenario(), Ok(()), "{rule:?} is kept");
    let broken = Broken::rule(rule);
    let seen = scenario();
    drop(broken);
    println!("{rule:?}: {seen:?}");
    assert!(seen.is_err(), "nobody sees that {rule:?} is broken");
}
