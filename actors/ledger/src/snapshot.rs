//! Snapshots: the ledger in rows. What changed since the last one is collected while the ledger goes on; all rows together
//! make the ledger again.
//!
//! The row of the state carries the digest, so a ledger that was made of rows is compared with the one that they were
//! taken from: a row that is wrong, missing or too many is found.

use std::ops::Range;

use rabia_bank_messages::genesis::{Founding, Replacements, SessionLimits};
use rabia_bank_messages::ids::{Millis, Slot};
use rabia_bank_messages::level;
use rabia_bank_messages::sabotage::{Rule, is_broken};

use crate::batches::AppliedBatches;
use crate::levels::Levels;
use crate::machine::{Block, History, Rows, StateMachine};
use crate::principals::Principals;
use crate::replicated::Replicated;
use crate::rows::BadRow;
use crate::sessions::{ENDED_ROWS, Sessions};
use crate::state::StateRow;
use crate::taking::Taking;
use crate::unusable::UnusableBatches;

/// Rows of sessions that make a step: half a millisecond.
const ROWS: usize = 1_024;

/// What changed between two snapshots, in rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The slot that the rows stand after.
    pub slot: Slot,
    /// The level in force then.
    pub level: u32,
    /// The newest entry of the history in `blocks`.
    pub transactions: u64,
    /// The state, beside what follows.
    pub state: Vec<u8>,
    /// Pages of the machine, by number: of the bank, accounts.
    pub accounts: Vec<(u32, Vec<u8>)>,
    /// Sessions, their replies, and those that ended, by key; none for what went.
    pub sessions: Vec<(u64, Option<Vec<u8>>)>,
    /// With these keys there is nothing but what is in `sessions`. Books that came from a peer may have more: replies that this
    /// ledger gave, and was told to be known, between two snapshots of its own.
    pub new_sessions: Range<u64>,
    /// Blocks of the history, by number. The last one may be partly filled.
    pub blocks: Vec<(u64, Vec<u8>)>,
}

impl<S: StateMachine> Replicated<S> {
    /// Begins a snapshot of the state as it is now. Answers how many steps of [`collect`](Replicated::collect) complete it.
    ///
    /// # Panics
    /// If one is being taken.
    pub fn freeze(&mut self) -> usize {
        assert!(self.taking.is_none(), "a snapshot is being taken already");
        let state = self.state_row();
        let state = S::encode_state(state, self.machine.head());
        let machine_steps = self.machine.freeze();
        let unsaved_sessions = self.sessions.save();
        let new_sessions = self.saved_requests + 1..ENDED_ROWS;
        self.saved_requests = self.requests;
        let steps = machine_steps + unsaved_sessions.len().div_ceil(ROWS);
        let level = self.levels.level();
        self.taking =
            Some(Taking { slot: self.applied, level, state, unsaved_sessions, sessions: Vec::new(), new_sessions });
        steps
    }

    /// Goes on with the snapshot: by `steps` times 1,024 rows of sessions, then by as many steps of the machine, which take about
    /// half a millisecond each. Answers it when it is complete.
    ///
    /// # Panics
    /// If none is being taken.
    pub fn collect(&mut self, steps: usize) -> Option<Changes> {
        let Some(taking) = &mut self.taking else { panic!("no snapshot is being taken") };
        if taking.unsaved_sessions.encode(ROWS * steps, &mut taking.sessions) {
            return None;
        }
        let Rows { pages, blocks, entries } = self.machine.collect(steps)?;
        let Taking { slot, level, state, sessions, new_sessions, .. } = self.taking.take()?;
        Some(Changes { slot, level, transactions: entries, state, accounts: pages, sessions, new_sessions, blocks })
    }

    /// The snapshots with this much of the history are durable: it may leave memory.
    pub fn forget(&mut self, transactions: u64) {
        self.machine.forget(transactions);
    }

    fn state_row(&mut self) -> StateRow {
        StateRow {
            session_limits: self.sessions.limits(),
            digest: self.digest(),
            applied: self.applied,
            time: self.time,
            requests: self.requests,
            decided_slots: self.decided_slots,
            null_slots: self.null_slots,
            repeated_batches: self.repeated_batches,
            sessions: self.sessions.len() as u64,
            batches: self.batches.to_row(),
            replacements: self.replacements.list().to_vec(),
            ended_sessions: self.sessions.ended(),
            unusable_batches: self.unusable.count(),
            newest_unusable: self.unusable.newest().collect(),
            principals: self.principals.to_row(),
            levels: self.levels.to_row(),
        }
    }
}

/// A ledger that is being made of rows.
#[derive(Debug)]
pub struct Loading<S: StateMachine> {
    state: StateRow,
    head: S::Head,
    machine: S,
    sessions: Sessions<S>,
}

impl<S: StateMachine> Loading<S> {
    /// Begins with the row of the state.
    ///
    /// # Errors
    /// If it is not what [`Replicated::collect`] gives, of this machine and version, or of a level that this program does not know.
    pub fn new(state: &[u8]) -> Result<Loading<S>, BadRow> {
        Loading::of_row(state, false)
    }

    /// The same with the row of a backup, which may be older.
    ///
    /// # Errors
    /// If it is of a version or level that this program does not know, or damaged.
    pub fn of_backup(state: &[u8]) -> Result<Loading<S>, BadRow> {
        Loading::of_row(state, true)
    }

    fn of_row(state: &[u8], of_backup: bool) -> Result<Loading<S>, BadRow> {
        let (state, head) = S::decode_state(state, of_backup)?;
        level::check(state.levels.level)?;
        if state.session_limits.open == 0 {
            return Err(BadRow::new("no session may be open".into()));
        }
        let sessions = Sessions::new(state.session_limits);
        Ok(Loading { machine: S::load(&head), state, head, sessions })
    }

    /// Adds the next page of the machine. They come in order.
    ///
    /// # Errors
    /// If it is not the next page.
    pub fn accounts(&mut self, page: u32, row: &[u8]) -> Result<(), BadRow> {
        self.machine.load_page(page, row)
    }

    /// Adds a row of the sessions. They come in order.
    ///
    /// # Errors
    /// If it is none, or does not belong to those before it.
    pub fn session(&mut self, key: u64, row: &[u8]) -> Result<(), BadRow> {
        self.sessions.load(key, row)
    }

    /// Ends all sessions, and answers the rows with the keys of all that ended: in a cluster that goes on from here nobody
    /// speaks in them, and none of the keys opens another.
    pub fn end_sessions(&mut self) -> Vec<(u64, Vec<u8>)> {
        self.sessions.end_all();
        self.sessions.ended_rows()
    }

    /// The last block of the history, if that is partly filled: [`finish`](Loading::finish) needs it.
    pub fn last_block(&self) -> Option<u64> {
        let entries = self.history().entries;
        (!entries.is_multiple_of(S::Block::ENTRIES)).then(|| entries / S::Block::ENTRIES)
    }

    /// How far the history goes.
    pub fn history(&self) -> History {
        S::history_of(&self.head)
    }

    /// The machine's part of the row of the state.
    pub fn head(&self) -> &S::Head {
        &self.head
    }

    /// The slot that the state stands after.
    pub fn slot(&self) -> Slot {
        self.state.applied
    }

    /// How many sessions may be open, and how long each may be idle.
    pub fn session_limits(&self) -> SessionLimits {
        self.state.session_limits
    }

    /// The level in force.
    pub fn level(&self) -> u32 {
        self.state.levels.level
    }

    /// Log time, in milliseconds since the Unix epoch.
    pub fn log_time(&self) -> Millis {
        self.state.time
    }

    /// The ledger.
    ///
    /// # Errors
    /// If it does not have the digest of the one that the rows were taken from.
    pub fn finish(self, last_block: Option<&S::Block>) -> Result<Replicated<S>, BadRow> {
        let (expected, slot) = (self.state.digest, self.state.applied);
        let mut ledger = self.build(last_block)?;
        let digest = ledger.digest();
        if digest != expected && !is_broken(Rule::LoadedDigest) {
            return Err(BadRow::new(format!("the state after slot {slot} has the digest {digest}, not {expected}")));
        }
        Ok(ledger)
    }

    /// Takes what a new cluster of so many members begins with, at the level of the state. All tokens go, unless they are to be kept:
    /// nobody asks in a copy with a token of the cluster that it is of.
    ///
    /// # Errors
    /// If the principals do not belong together.
    pub fn found(&mut self, founding: &Founding, keep_tokens: bool, members: usize) -> Result<(), BadRow> {
        self.state.levels.begin(members);
        S::adopt(&mut self.head, founding.secret);
        let mut principals = Principals::from_row(self.state.principals.clone())?;
        principals.renew(keep_tokens, &founding.tokens);
        self.state.principals = principals.to_row();
        Ok(())
    }

    /// The row of the state for a cluster that goes on from this state and this history, without the open sessions, and
    /// with nodes that number their batches anew and have first stores of their own. Log time is `now` there if it was later.
    ///
    /// # Errors
    /// If open sessions were added, or the rows do not belong together, as far as can be seen without the digest.
    pub fn into_new_cluster(mut self, last_block: Option<&S::Block>, now: Millis) -> Result<Vec<u8>, BadRow> {
        self.state.time = self.state.time.min(now);
        self.state.sessions = 0;
        self.state.ended_sessions = self.sessions.ended();
        self.state.batches.clear();
        self.state.replacements.clear();
        let mut ledger = self.build(last_block)?;
        let state = ledger.state_row();
        Ok(S::encode_state(state, ledger.machine.head()))
    }

    fn build(self, last_block: Option<&S::Block>) -> Result<Replicated<S>, BadRow> {
        let (found, expected) = (last_block.map(Block::number), self.last_block());
        if found != expected {
            return Err(BadRow::new(format!("the history goes on from block {expected:?}, not from {found:?}")));
        }
        let Loading { state, head, mut machine, sessions } = self;
        machine.loaded(head, last_block)?;
        let found = [sessions.len() as u64, sessions.ended()];
        let expected = [state.sessions, state.ended_sessions];
        if found != expected {
            let what = "open sessions and sessions that ended";
            return Err(BadRow::new(format!("{what} are {found:?}, where {expected:?} should be")));
        }
        if !sessions.speak_of(&machine) {
            return Err(BadRow::new("a reply is about something that is not there".into()));
        }
        let batches = AppliedBatches::from_row(state.batches)
            .ok_or_else(|| BadRow::new("the batches remembered are not what a ledger remembers".into()))?;
        let mut replacements = Replacements::default();
        if !state.replacements.into_iter().all(|replacement| replacements.add(replacement)) {
            return Err(BadRow::new("a store took the place of others twice".into()));
        }
        let unusable = UnusableBatches::from_row(state.unusable_batches, state.newest_unusable)
            .ok_or_else(|| BadRow::new("the batches that could not be applied are not in their order".into()))?;
        let principals = Principals::from_row(state.principals)?;
        let levels = Levels::from_row(state.levels)?;
        Ok(Replicated {
            machine,
            principals,
            levels,
            sessions,
            batches,
            replacements,
            unusable,
            applied: state.applied,
            time: state.time,
            requests: state.requests,
            saved_requests: state.requests,
            decided_slots: state.decided_slots,
            null_slots: state.null_slots,
            repeated_batches: state.repeated_batches,
            taking: None,
        })
    }
}
