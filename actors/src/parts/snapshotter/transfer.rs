//! Receiving a snapshot: a node that lacks slots which its peers' logs have no more asks one of them for the rows of its books.
//!
//! - The state is looked at first, for its level: a program that does not know it can't read what follows, and the node stops.
//! - Then come blocks of the history. A block is verified when it comes (its chain must go on where the one before ended) and
//!   stored at once: it never changes, so a transfer that is interrupted, by either side, goes on behind the last block.
//! - Then come the state again, the accounts and the sessions, all of one snapshot. They are kept in memory until all are there, make a
//!   ledger, and are stored only if that has the digest that the state says.
//! - A peer that has its snapshot no more (it was restarted, or has waited for long) answers from another one: blocks that
//!   are here stay, the rest is asked for again.

use rabia_bank_messages::ids::{Digest, Slot};
use rabia_bank_messages::peer::{SnapshotCursor, SnapshotPart};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use rabia_bank_storage::{BooksStore, Snapshot, StoreError};

use super::offer::Rows;
use crate::ledger::machine::{Block, StateMachine};
use crate::ledger::replicated::Replicated;
use crate::ledger::{BadRow, Bank};
use crate::parts::bank::words::Standpoint;
use crate::snapshot::{BooksError, Decision, Restoring, full_blocks, read_block};

/// The longest row: a session with all the replies that it may keep.
const MAX_ROW: usize = 64 << 20;
/// Bytes of blocks that are read at a time, looking for those that are here.
const READ_BYTES: usize = 4 << 20;

/// A snapshot that is being received.
pub struct Transfer<S: StateMachine = Bank> {
    /// How far this node was when it began.
    own: Standpoint,
    /// Full blocks that were on this disk when it began.
    first: u64,
    slot: Slot,
    at: SnapshotCursor,
    /// This program knows the level of the state.
    knows_level: bool,
    /// Full blocks that are on this disk, and the hash of the last transaction in them.
    full: u64,
    head: Digest,
    /// The beginning of a row that comes in pieces.
    begun: Vec<u8>,
    last: Option<(S::Block, Vec<u8>)>,
    state: Option<(Restoring<S>, Vec<u8>)>,
    accounts: Vec<(u32, Vec<u8>)>,
    sessions: Vec<(u64, Option<Vec<u8>>)>,
    received: u64,
}

/// What a peer answered.
#[derive(Debug)]
pub struct Answer {
    /// The slot that its snapshot stands after.
    pub slot: Slot,
    /// What was asked for.
    pub at: SnapshotCursor,
    /// The part that the rows are of.
    pub part: SnapshotPart,
    /// By ascending number. The last one may be cut: it goes on at `next`.
    pub rows: Rows,
    /// Where it goes on.
    pub next: Option<SnapshotCursor>,
}

/// What came of an answer.
pub enum Taken<S: StateMachine = Bank> {
    /// More is to be asked for.
    More,
    /// All is there, and stored.
    Installed(Box<Replicated<S>>, Vec<Decision>, Digest),
}

/// Why a transfer can't go on.
pub enum TransferError {
    /// This node's store failed.
    Own(BooksError),
    /// The peer sent what can't be.
    Peer(String),
    /// What the peer sent is not what went before here.
    OtherHistory(String),
}

impl From<StoreError> for TransferError {
    fn from(error: StoreError) -> TransferError {
        TransferError::Own(error.into())
    }
}

impl From<BadRow> for TransferError {
    fn from(bad: BadRow) -> TransferError {
        match bad {
            BadRow::Damaged(why) => TransferError::Peer(why),
            // Nobody else has another: this program is too old.
            BadRow::TooNew(too_new) => TransferError::Own(BooksError::TooNew(too_new)),
        }
    }
}

impl<S: StateMachine> Transfer<S> {
    /// Looks which blocks are here already: those of the last snapshot, which need not be read again, and what an earlier
    /// transfer stored behind them. `own` is how far this node is.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn begin(books: &BooksStore, own: Standpoint) -> Result<Transfer<S>, BooksError> {
        let view = books.reader().view()?;
        let (mut full, mut head) = full_blocks::<S>(&view)?;
        'blocks: loop {
            let rows = view.blocks(full, READ_BYTES)?;
            if rows.is_empty() {
                break;
            }
            for (number, row) in rows {
                if number != full {
                    break 'blocks;
                }
                let block = S::Block::decode(number, &row)?;
                if block.before() != head || block.len() < S::Block::ENTRIES {
                    break 'blocks;
                }
                full += 1;
                head = end_of(&block).unwrap_or(head);
            }
        }
        Ok(Transfer {
            own,
            first: full,
            slot: 0,
            at: SnapshotCursor { part: SnapshotPart::State, row: 0, offset: 0 },
            knows_level: false,
            full,
            head,
            begun: Vec::new(),
            last: None,
            state: None,
            accounts: Vec::new(),
            sessions: Vec::new(),
            received: 0,
        })
    }

    /// What to ask for: the snapshot (0 for any), and from where on.
    pub fn wanted(&self) -> (Slot, SnapshotCursor) {
        (self.slot, self.at)
    }

    /// This node may take a snapshot of its own meanwhile, with a last block that is not full. Blocks that were received are, and
    /// are not written over.
    pub fn keep_received(&self, blocks: &mut Vec<(u64, Vec<u8>)>) {
        blocks.retain(|(number, _)| *number >= self.full);
    }

    /// The slot that this node had applied when it began.
    pub fn applied(&self) -> Slot {
        self.own.applied
    }

    /// Bytes that came so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Where a snapshot begins that is taken from now on.
    fn first_place(&self) -> SnapshotCursor {
        match self.knows_level {
            false => SnapshotCursor { part: SnapshotPart::State, row: 0, offset: 0 },
            true => SnapshotCursor { part: SnapshotPart::Blocks, row: self.full, offset: 0 },
        }
    }

    /// Goes on with what is here, with another snapshot.
    fn restart(&mut self, slot: Slot) {
        self.slot = slot;
        self.at = self.first_place();
        self.begun.clear();
        self.last = None;
        self.state = None;
        if !is_broken(Rule::OneSnapshot) {
            self.accounts.clear();
        }
        self.sessions.clear();
    }

    /// Takes an answer. One that was not asked for is ignored.
    ///
    /// # Errors
    /// If the store fails, or the rows are not those of a ledger.
    pub fn take(&mut self, answer: Answer, books: &mut BooksStore) -> Result<Taken<S>, TransferError> {
        let Answer { slot, at, part, rows, next } = answer;
        if slot != self.slot {
            let other = self.slot != 0;
            self.restart(slot);
            if other {
                return Ok(Taken::More);
            }
        }
        if at != self.at {
            return Ok(Taken::More);
        }
        let knew_level = self.knows_level;
        let mut blocks = Vec::new();
        let goes_on = next.filter(|next| next.offset > 0).map(|next| (next.part, next.row));
        for (number, row) in rows {
            self.received += row.len() as u64;
            if self.begun.len() + row.len() > MAX_ROW {
                return Err(TransferError::Peer(format!("a row of more than {MAX_ROW} bytes")));
            }
            self.begun.extend_from_slice(&row);
            if goes_on != Some((part, number)) {
                let row = std::mem::take(&mut self.begun);
                self.row(part, number, row, &mut blocks)?;
            }
        }
        if !knew_level && self.knows_level {
            self.at = self.first_place();
            return Ok(Taken::More);
        }
        books.save_blocks(&blocks)?;
        match next {
            Some(next) => {
                self.at = next;
                Ok(Taken::More)
            }
            None => self.finish(books),
        }
    }

    /// Takes a row that is complete. Full blocks are to be stored at once.
    fn row(
        &mut self,
        part: SnapshotPart,
        number: u64,
        row: Vec<u8>,
        blocks: &mut Vec<(u64, Vec<u8>)>,
    ) -> Result<(), TransferError> {
        let early = || TransferError::Peer("accounts or sessions came before the state".into());
        match part {
            _ if self.knows_level => {}
            SnapshotPart::State => {
                Restoring::<S>::new(&row)?;
                self.knows_level = true;
                return Ok(());
            }
            _ => return Err(TransferError::Peer("a snapshot without a state".into())),
        }
        match part {
            SnapshotPart::Blocks => {
                let block = S::Block::decode(number, &row)?;
                if number == self.full && self.last.is_none() {
                    self.check_history(&block)?;
                }
                let follows = block.before() == self.head || is_broken(Rule::BlocksFollow);
                if number != self.full || !follows || self.last.is_some() {
                    return Err(TransferError::Peer(format!("block {number} does not follow block {}", self.full)));
                }
                if block.len() == S::Block::ENTRIES {
                    self.full += 1;
                    self.head = end_of(&block).unwrap_or(self.head);
                    blocks.push((number, row));
                } else {
                    self.last = Some((block, row));
                }
            }
            SnapshotPart::State => self.state = Some((Restoring::new(&row)?, row)),
            SnapshotPart::Accounts => {
                let (restoring, _) = self.state.as_mut().ok_or_else(early)?;
                let page =
                    u32::try_from(number).map_err(|_| BadRow::new(format!("no page has the number {number}")))?;
                restoring.loading().accounts(page, &row)?;
                self.accounts.push((page, row));
            }
            SnapshotPart::Sessions => {
                let (restoring, _) = self.state.as_mut().ok_or_else(early)?;
                restoring.loading().session(number, &row)?;
                self.sessions.push((number, Some(row)));
            }
        }
        Ok(())
    }

    /// Whether a block goes on from what this node has, and has its newest transaction, if that is in it.
    fn check_history(&self, block: &S::Block) -> Result<(), TransferError> {
        let (newest, hash) = self.own.newest;
        let number = block.number();
        if is_broken(Rule::SnapshotHistory) {
            return Ok(());
        }
        if number == self.first && number > 0 && block.before() != self.head {
            return Err(TransferError::OtherHistory(format!("block {number} does not go on from this node's history")));
        }
        match block.hash_of(newest).filter(|found| *found != hash) {
            Some(_) => Err(TransferError::OtherHistory(format!("transaction {newest} is another one than here"))),
            None => Ok(()),
        }
    }

    /// All rows are here: they are stored if they are those of a ledger.
    fn finish(&mut self, books: &mut BooksStore) -> Result<Taken<S>, TransferError> {
        let Some((restoring, state)) = self.state.take() else {
            return Err(TransferError::Peer("a snapshot without a state".into()));
        };
        let (log_hash, transactions) = (restoring.log_hash(), restoring.transactions());
        let whole = transactions / S::Block::ENTRIES;
        let (block, blocks) = self.last.take().map(|(block, row)| (block, vec![(self.full, row)])).unzip();
        let (block, full, head) = if self.full > whole {
            // A transfer of a later snapshot has stored more blocks than this one has, and did not come to its end.
            let block: S::Block = read_block(&books.reader(), whole).map_err(TransferError::Own)?;
            let head = block.before();
            (Some(block).filter(|_| !transactions.is_multiple_of(S::Block::ENTRIES)), whole, head)
        } else {
            (block, self.full, self.head)
        };
        if transactions < self.own.newest.0 && !is_broken(Rule::SnapshotHistory) {
            let why = format!("it ends with transaction {transactions}, this node knows {}", self.own.newest.0);
            return Err(TransferError::OtherHistory(why));
        }
        let (ledger, decisions) = restoring.finish(block.as_ref(), full, head)?;
        if ledger.applied() != self.slot {
            let found = ledger.applied();
            return Err(TransferError::Peer(format!("the state is that after slot {found}, not {}", self.slot)));
        }
        let accounts = std::mem::take(&mut self.accounts);
        let sessions = std::mem::take(&mut self.sessions);
        let blocks = blocks.unwrap_or_default();
        books.install(&Snapshot { slot: self.slot, state, accounts, sessions, new_sessions: 0..0, blocks })?;
        Ok(Taken::Installed(Box::new(ledger), decisions, log_hash))
    }
}

/// The hash of the last entry of a full block.
fn end_of<B: Block>(block: &B) -> Option<Digest> {
    block.hash_of((block.number() + 1) * B::ENTRIES)
}
