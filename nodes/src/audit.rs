//! Audits: the books of a node's folder, read without the node and without changing a byte of them.
//!
//! [`Books::open`] makes the state as a start of the node would: of the books on disk and the log behind them. What it believes
//! is then checked by [`Books::verify`], which replays the whole history from its first transaction on, by rules of its own:
//!
//! - the hash of every transaction follows from the one before it;
//! - every balance that a transaction names is the one before it, plus or minus the amount, and within the account's bounds, or less far
//!   beyond them than before; the account's status lets it happen;
//! - every pointer to the transaction before leads to it;
//! - ids count up, slots and timestamps do not go down;
//! - at the end every account has the balance, the settings, the count and the last transaction that the history gives it, and of each
//!   asset the sum of all balances is openings + deposits − withdrawals.
//!
//! The first transaction that is wrong is named. So are decided batches that could not be applied: no node of this version
//! proposes one, but where one was decided all nodes took it for an empty one, and the books are right without it.

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rabia_bank_actors::failure::StartError;
use rabia_bank_actors::ledger::{BLOCK, Bank, Block, BlockRecord, Ledger, UnusableBatches};
use rabia_bank_actors::rebuild::{Rebuilt, replay};
use rabia_bank_actors::snapshot::{BooksError, log_hash_of, read_block, restore};
use rabia_bank_messages::bank::{Asset, MAX_PAGE, Query, Success, Transaction};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::{Digest, Slot};
use rabia_bank_messages::promise::Identity;
use rabia_bank_storage::{BooksReader, LogReader, StoreError};

use crate::config::{CONFIG_FILE, ConfigError, NodeConfig};
use crate::replay::Replay;

/// Blocks that are read ahead of those that are verified.
const READ_AHEAD: usize = 64;

/// Why books can't be audited, or are wrong.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The folder has no usable configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The books can't be read.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The log can't be read or applied.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A block of the history can't be read, and so none of its transactions.
    #[error("transactions {first} to {last} are damaged: {what}")]
    Block {
        /// The first transaction of the block.
        first: u64,
        /// The last transaction of the block.
        last: u64,
        /// What is wrong with it.
        what: BooksError,
    },
    /// A transaction is wrong.
    #[error("transaction {id} is wrong: {what}")]
    Transaction {
        /// The first one that is.
        id: u64,
        /// What is wrong with it, with the values.
        what: String,
    },
    /// An account is not what the history makes it.
    #[error("account {account} is wrong: {what}")]
    Account {
        /// The first one, in the order of their ids.
        account: Box<str>,
        /// What is wrong with it, with the values.
        what: String,
    },
    /// A figure over everything is not what the history makes it.
    #[error("{0}")]
    Sum(String),
    /// Writing what was asked for failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The books in the folder of a node that is not running.
pub struct Books {
    reader: BooksReader,
    ledger: Ledger,
    /// The slot of the snapshot, and the newest transaction in it.
    snapshot: (Slot, u64),
}

/// Hashes over the books after a slot, to compare between nodes or to notarise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digests {
    /// The last slot of the log that is decided and here.
    pub slot: Slot,
    /// The hash of the newest transaction.
    pub chain_head: Digest,
    /// Of the whole state.
    pub state_digest: Digest,
}

/// How much was verified, and what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified {
    /// What the books say, which is right.
    pub digests: Digests,
    /// How many transactions there are.
    pub transactions: u64,
    /// How many accounts there are.
    pub accounts: u64,
    /// The sum of all balances, in minor units.
    pub total_balance: i64,
}

impl Books {
    /// Opens the books in the folder of a node (the one with its `node.toml`), which must not be running.
    ///
    /// # Errors
    /// If they are in use, missing, or not those of a ledger.
    pub fn open(node_dir: &Path) -> Result<Books, AuditError> {
        let config = NodeConfig::load(&config_path(node_dir))?;
        let identity = Identity { genesis: config.genesis(), node: config.node };
        let mut books = None;
        let opened = LogReader::open(&config.log_path(), &identity, || {
            let reader = books.insert(BooksReader::open(&config.books_path(), &identity)?);
            Ok(reader.view()?.slot())
        });
        let (log, recovered) = match opened {
            Err(StoreError::Damaged { file, what }) if file == config.books_path() => {
                name_damage(&file, &identity)?;
                return Err(BooksError::from(StoreError::Damaged { file, what }).into());
            }
            opened => opened.map_err(BooksError::from)?,
        };
        let Some(reader) = books else { unreachable!("the log was opened without the books") };
        reader.check_store(recovered.store).map_err(BooksError::from)?;
        let view = reader.view().map_err(BooksError::from)?;
        let restored = restore(&view)?;
        let (ledger, decisions) = restored.unwrap_or_else(|| (Ledger::new_cluster(&identity.genesis), Vec::new()));
        let snapshot = (ledger.applied(), ledger.summary().transactions);
        let before = (decisions, log_hash_of::<Bank>(&view)?);
        let Rebuilt { ledger, .. } = replay(&identity, ledger, before, &log, recovered.decided)?;
        Ok(Books { reader, ledger, snapshot })
    }

    /// The slot that the snapshot in the folder stands after; the log goes on from there.
    pub fn snapshot_slot(&self) -> Slot {
        self.snapshot.0
    }

    /// How many transactions there are.
    pub fn transactions(&self) -> u64 {
        self.ledger.summary().transactions
    }

    /// Whether there is an account of this name.
    pub fn has_account(&self, account: &str) -> bool {
        let found = self.ledger.query(&Query::GetBalance { account_id: account.into() });
        found.and_then(|lookup| self.ledger.at_hand(lookup)).is_some_and(|answer| answer.is_ok())
    }

    /// Decided batches that could not be applied, and were taken for empty ones.
    pub fn unusable(&self) -> &UnusableBatches {
        self.ledger.unusable()
    }

    /// Slot, chain head and state digest: the same on every node that is as far.
    pub fn digests(&mut self) -> Digests {
        Digests {
            slot: self.ledger.applied(),
            chain_head: self.ledger.chain_head(),
            state_digest: self.ledger.digest(),
        }
    }

    /// All transactions, from the first on, with what they point to where that is stored: those behind the snapshot are in
    /// the log only, and were made by applying it.
    fn for_each(&self, mut take: impl FnMut(&BlockRecord, bool) -> Result<(), AuditError>) -> Result<(), AuditError> {
        let (_, stored) = self.snapshot;
        let mut head = Digest::ZERO;
        self.for_each_block(stored.div_ceil(BLOCK), |block| {
            if block.before() != head {
                let id = block.number() * BLOCK + 1;
                let what = format!("it follows a transaction with the hash {}, not {head}", block.before());
                return Err(AuditError::Transaction { id, what });
            }
            for record in block.records().iter().take_while(|record| record.transaction.transaction_id <= stored) {
                head = record.transaction.hash;
                take(record, true)?;
            }
            Ok(())
        })?;
        let mut from = stored + 1;
        while from <= self.transactions() {
            for transaction in self.behind_snapshot(from)? {
                from = transaction.transaction_id + 1;
                let record = BlockRecord { transaction, previous_of_type: 0, previous_of_from: 0, previous_of_to: 0 };
                take(&record, false)?;
            }
        }
        Ok(())
    }

    /// The first `count` blocks, in order. They are read, and their hashes computed, on another thread, a little ahead.
    fn for_each_block(
        &self,
        count: u64,
        mut take: impl FnMut(&Block) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        let (ahead, blocks) = mpsc::sync_channel(READ_AHEAD);
        let reader = &self.reader;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..count {
                    let block = read_block_of(reader, number);
                    let last = block.is_err();
                    // Nobody takes it where an earlier one was wrong.
                    if ahead.send(block).is_err() || last {
                        break;
                    }
                }
            });
            // The end of this loop ends the thread: the receiver goes with it.
            blocks.into_iter().try_for_each(|block| take(&block?))
        })
    }

    /// Transactions that were made by applying the log.
    fn behind_snapshot(&self, from: u64) -> Result<Vec<Transaction>, AuditError> {
        let lookup = self.ledger.transactions_from(&Feed::default(), from, BLOCK, BLOCK as usize);
        match self.ledger.at_hand(lookup) {
            Some(Ok(Success::Transactions { transactions, .. })) => Ok(transactions),
            other => Err(AuditError::Sum(format!("transactions from {from} on are not in memory: {other:?}"))),
        }
    }

    /// All transactions, oldest first.
    ///
    /// # Errors
    /// If the history can't be read, or `take` fails.
    pub fn transactions_each(
        &self,
        mut take: impl FnMut(&Transaction) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        self.for_each(|record, _| take(&record.transaction))
    }

    /// Replays the whole history and compares it with the accounts. `progress` is told how many transactions were read.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn verify(&mut self, mut progress: impl FnMut(u64)) -> Result<Verified, AuditError> {
        let mut check = Replay::default();
        self.for_each(|record, stored| {
            check.take(record, stored)?;
            if check.transactions.is_multiple_of(BLOCK) {
                progress(check.transactions);
            }
            Ok(())
        })?;
        progress(check.transactions);
        let digests = self.digests();
        let summary = self.ledger.summary();
        if check.head != digests.chain_head {
            let what = format!("the history ends with the hash {}, the state says {}", check.head, digests.chain_head);
            return Err(AuditError::Sum(what));
        }
        let assets = self.assets()?;
        check.compare_assets(&assets)?;
        let own = assets.first().map_or("", |own| &*own.asset);
        let accounts = self.check_accounts(&mut check, own)?;
        if let Some(account) = check.left_over() {
            let what = "the history names it, but it is not there".into();
            return Err(AuditError::Account { account: account.into(), what });
        }
        let total_balance = summary.total_balance;
        Ok(Verified { digests, transactions: check.transactions, accounts, total_balance })
    }

    fn assets(&self) -> Result<Vec<Asset>, AuditError> {
        let listed = self.ledger.query(&Query::ListAssets {}).and_then(|lookup| self.ledger.at_hand(lookup));
        match listed {
            Some(Ok(Success::Assets { assets })) => Ok(assets),
            other => Err(AuditError::Sum(format!("the assets can't be listed: {other:?}"))),
        }
    }

    /// Compares every account with what the replay made of it, and takes it away there.
    fn check_accounts(&self, check: &mut Replay, own: &str) -> Result<u64, AuditError> {
        let (mut count, mut after) = (0, None);
        loop {
            let query = Query::ListAccounts { after, limit: Some(MAX_PAGE), code: None };
            let listed = self.ledger.query(&query).and_then(|lookup| self.ledger.at_hand(lookup));
            let Some(Ok(Success::Accounts { accounts, next })) = listed else {
                return Err(AuditError::Sum("the accounts can't be listed".into()));
            };
            for account in &accounts {
                check.compare_account(account, own)?;
            }
            count += accounts.len() as u64;
            let Some(next) = next else { return Ok(count) };
            after = Some(next);
        }
    }
}

/// Names the first row that is damaged: pages of the file are.
fn name_damage(books: &Path, identity: &Identity) -> Result<(), AuditError> {
    let reader = BooksReader::open_damaged(books, identity).map_err(BooksError::from)?;
    let restored = restore::<Bank>(&reader.view().map_err(BooksError::from)?)?;
    let transactions = restored.map_or(0, |(ledger, _)| ledger.summary().transactions);
    (0..transactions.div_ceil(BLOCK)).try_for_each(|number| read_block_of(&reader, number).map(drop))
}

/// A block of the history. An error names its transactions.
fn read_block_of(reader: &BooksReader, number: u64) -> Result<Block, AuditError> {
    read_block(reader, number).map_err(|what| {
        let (first, last) = (number * BLOCK + 1, (number + 1) * BLOCK);
        AuditError::Block { first, last, what }
    })
}

fn config_path(node_dir: &Path) -> PathBuf {
    node_dir.join(CONFIG_FILE)
}
