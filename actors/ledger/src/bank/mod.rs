//! The bank: accounts, the history of their balances, and what can be asked about both.
//!
//! A command is checked and changes accounts and history (`commands`, `history`); the running figures follow (`statistics`). Outcomes
//! are compact (`outcomes`); an answer is made of one only on the node where a client waits (`answers`). A record's timestamp is log
//! time, but never before that of the record before it: where a backup with a log time that was ahead came to a new cluster, log
//! time is right there, and timestamps stand still until it reaches them.
//!
//! Accounts and the newest part of the history are in memory. Transactions that are safe in the store leave it, in blocks
//! ([`Block`]).
//!
//! # The chain of hashes
//!
//! Each transaction has a hash over itself and the hash before it. It is BLAKE3 over these bytes; numbers are unsigned
//! and big-endian:
//!
//! ```text
//! the hash of the transaction before it (32 bytes; zeros for transaction 1)
//! type u8: 5 opening, 6 deposit, 7 withdrawal, 8 transfer, 15 account_change, 16 asset, 17 admin
//! its parts, as a varint: the sum of 1 (it has a source), 2 (a destination), 4 (an act), 128 (another asset than the cluster's own)
//! transaction_id | amount | timestamp | slot | principal, each as a varint
//! the length of the asset's code u8, and that in ASCII
//! the hash of each side (32 bytes): source, then destination
//! the length of the act, as a varint, and that as text
//! ```
//!
//! A varint has seven bits of the number in each byte, the lowest first; all bytes but the last have the highest bit set. Mostly all of
//! it fits into two blocks of BLAKE3. Other bits of the parts are for a reference (8), a code (16), a time of effect (32) and a
//! memo (64).
//!
//! A side's hash is BLAKE3 over its salt (16 bytes), the length of the account's name u8, the name in ASCII, its balance after the
//! transaction as an i64 in two's complement, what is held of that u64, and of a destination what was set about it, as text. Who may not see a side gets its hash instead, and can check the chain all the same;
//! without the salt nobody can guess what was hashed. Salts are made of a secret of the cluster: the 16-byte halves of BLAKE3 of the
//! transaction's id (u64), keyed with it. A type's number, once used, stays.
//!
//! Records of 0.1.0, which name no principal, are hashed as they were there:
//!
//! ```text
//! the hash of the transaction before it (32 bytes; zeros for transaction 1)
//! transaction_id u64 | amount u64 | timestamp u64 | slot u64
//! type u8: 1 opening, 2 deposit, 3 withdrawal, 4 transfer
//! source      | length of its name u8, its name in ASCII, its balance after the transaction u64;
//!             | one byte 0 if there is no source
//! destination | likewise
//! ```
//!
//! So whoever has the transactions as clients see them can recompute all hashes, in any language.

use rabia_bank_messages::bank::{Command, MAX_BALANCE, OwnAsset, Query, Refusal, Status, Success, Transaction};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::genesis::{BankTerms, Genesis};
use rabia_bank_messages::ids::Secret;
use rabia_bank_messages::principal::{Admin, PrincipalsInfo};

use crate::machine::{self, Ask, Begun, Figures, Moment, Recorded, Rows, StateMachine};
use crate::rights::Rights;
use crate::rows::BadRow;
use crate::state::StateRow;
use accounts::Accounts;
use answers::Task;
use assets::{AssetIndex, AssetState, Assets};
use commands::Before;
use history::{History, Movement, When};
use kept::KeptOutcome;
use state::Head;

mod account;
mod accounts;
mod acts;
mod answers;
mod assets;
mod block;
mod chain;
mod commands;
mod history;
mod kept;
mod may;
mod outcomes;
mod overview;
mod queries;
mod ranks;
mod settings;
mod state;
mod statistics;

pub use answers::{MOST_AT_ONCE, TELL};
pub use block::{BLOCK, Block, BlockRecord};
pub use chain::chain_hash;
pub use outcomes::CommandOutcome;
pub use state::Head as BankHead;

/// Pages of accounts that take as long as a block of the history.
const PAGES: usize = 32;

/// Accounts, history and running figures.
///
/// Invariants, asserted:
/// - No balance is beyond 2^53 − 1, below 0 likewise, and no sum of all balances of an asset.
/// - The figures count every record of the history, between commands.
/// - Transaction ids count up from 1. Timestamps and slots never go down with rising ids.
/// - A record points only to records with lower ids, and an account's newest record says its balance.
#[derive(Debug)]
pub struct Bank {
    /// Whether accounts may have a lower bound below 0.
    allow_overdraft: bool,
    accounts: Accounts,
    history: History,
    /// How many transactions the figures of all assets count.
    counted: u64,
    /// What the accounts were that the command at hand has changed, in the order of the changes.
    undo: Vec<Before>,
    /// The newest transaction that a snapshot took.
    saved: u64,
    /// A snapshot that is being taken.
    taking: Option<Blocks>,
}

/// The blocks of a snapshot that is being taken.
#[derive(Debug)]
struct Blocks {
    /// The id of the newest transaction that belongs to the snapshot.
    end: u64,
    next: u64,
    done: Vec<(u64, Vec<u8>)>,
}

impl Bank {
    /// An empty bank without a currency of its own, in which one transaction moves at most `transaction_limit` minor units, no account
    /// may be overdrawn, and salts are made of `secret`.
    ///
    /// # Panics
    /// If the limit is not from 1 to [`MAX_BALANCE`].
    pub fn new(transaction_limit: u64, secret: Secret) -> Bank {
        Bank::of(&BankTerms::default(), transaction_limit, secret)
    }

    /// The same, with these terms.
    ///
    /// # Panics
    /// As [`new`](Bank::new).
    pub fn of(terms: &BankTerms, transaction_limit: u64, secret: Secret) -> Bank {
        assert!(
            (1..=MAX_BALANCE).contains(&transaction_limit),
            "a limit per transaction of {transaction_limit} is not from 1 to {MAX_BALANCE}"
        );
        Bank {
            allow_overdraft: terms.allow_overdraft,
            accounts: Accounts::new(Assets::new(&terms.asset, transaction_limit)),
            history: History::new(secret),
            counted: 0,
            undo: Vec::new(),
            saved: 0,
            taking: None,
        }
    }

    /// The largest amount of one transaction of the cluster's own asset, in minor units.
    pub fn transaction_limit(&self) -> u64 {
        self.own().limit
    }

    /// The cluster's own asset.
    fn own(&self) -> &AssetState {
        self.accounts.assets.get(AssetIndex::OWN)
    }

    /// What is fixed when a cluster is created.
    fn terms(&self) -> BankTerms {
        let AssetState { code, scale, .. } = self.own();
        BankTerms { asset: OwnAsset { code: Box::from(&**code), scale: *scale }, allow_overdraft: self.allow_overdraft }
    }

    /// Adds the records behind this one to the figures.
    fn count_since(&mut self, id: u64) {
        for (id, record) in (id + 1..).zip(self.history.since(id)) {
            let account = record.movement.side().map(|side| side.account);
            let asset = account.map_or(AssetIndex::OWN, |account| self.accounts.get(account).asset);
            self.accounts.assets.get_mut(asset).totals.count(id, record, asset == AssetIndex::OWN);
            self.counted += 1;
        }
        let (counted, newest) = (self.counted, self.history.len());
        assert_eq!(counted, newest, "the figures count {counted} transactions of {newest}");
    }
}

/// The answer to a query costs by its length, with four exceptions. A history with `to_time` first looks for that time,
/// halving what is left at each step. One of an account or a type with `before` or `to_time` then looks for where its
/// page begins: in as many steps as the account or type has newer records, or as lie between there and its next
/// older one, whichever is less. One account's history of a type passes over the account's records of other types.
/// The statistics look at every account again where the lists of top accounts are not complete.
impl StateMachine for Bank {
    const NAME: &'static str = "rabia-bank state 3";

    type Command = Command;
    type Outcome = CommandOutcome;
    type Kept = KeptOutcome;
    type Query = Query;
    type Answer = Success;
    type Task = Task;
    type Feed = Feed;
    type Block = Block;
    type Head = Head;

    fn new_cluster(genesis: &Genesis) -> Bank {
        Bank::of(&genesis.bank, genesis.transaction_limit, genesis.founding.secret)
    }

    fn check_cluster(&self, genesis: &Genesis) -> Result<(), String> {
        let (found, expected) = (self.transaction_limit(), genesis.transaction_limit);
        if found != expected {
            return Err(format!("a limit of {found} per transaction, this one's is {expected}"));
        }
        let (found, expected) = (self.terms(), &genesis.bank);
        if found.asset != expected.asset {
            return Err(format!("{} as its own asset, this one's is {}", found.asset, expected.asset));
        }
        match found.allow_overdraft == expected.allow_overdraft {
            true => Ok(()),
            false if found.allow_overdraft => Err("overdrafts, this one allows none".into()),
            false => Err("no overdrafts, this one allows them".into()),
        }
    }

    fn apply(&mut self, command: &Command, at: Moment<'_>) -> CommandOutcome {
        // Log time may have been set back when the books came to a new cluster. Records stay in order all the same.
        let time = at.time.max(self.history.newest_time());
        self.execute(command, When { slot: at.slot, time, principal: Some(at.rights.principal()) }, at.rights)
    }

    fn record(&mut self, act: &Admin, at: Recorded) {
        let time = at.time.max(self.history.newest_time());
        let moment = When { slot: at.slot, time, principal: Some(at.principal) };
        let before = self.history.len();
        let text = acts::text(act, at.owner).into();
        self.history.append_with(Movement::Admin, 0, text, moment, &self.accounts);
        self.count_since(before);
    }

    fn check_command(command: &Command, rights: &Rights<'_>) -> Result<(), Refusal> {
        may::command(command, rights)
    }

    fn check_query(query: &Query, rights: &Rights<'_>) -> Result<(), Refusal> {
        may::query(query, rights)
    }

    fn check_feed(feed: &Feed, rights: &Rights<'_>) -> Result<(), Refusal> {
        may::feed(feed, rights)
    }

    fn check_answer(answer: &Success, rights: &Rights<'_>) -> Result<(), Refusal> {
        may::see(answer, rights)
    }

    fn hide(answer: &mut Success, rights: &Rights<'_>) {
        may::hide(answer, rights);
    }

    fn hide_in_entry(entry: &mut Transaction, rights: &Rights<'_>) {
        entry.hide(|account| rights.may_read(account));
    }

    fn settle(&mut self) {
        self.accounts.rehash_if_many();
    }

    fn begin(&self, ask: Ask<'_, Bank>) -> Begun<Bank> {
        match ask {
            Ask::Outcome(outcome) => Begun::Task(Task::Outcome(outcome.clone(), Vec::new())),
            Ask::Query(query) => self.query(query),
            Ask::Feed { feed, next, scan, limit } => {
                let next = next.max(1);
                let end = self.history.len().min(next.saturating_add(scan) - 1);
                Begun::Task(Task::Ascending { feed: feed.clone(), next, end, limit, found: Vec::new() })
            }
        }
    }

    fn about_node(query: &Query) -> Option<fn(Box<Status>) -> Success> {
        match query {
            Query::GetStatus {} => Some(|status| Success::Status { status }),
            _ => None,
        }
    }

    fn about_principals(query: &Query) -> Option<fn(PrincipalsInfo) -> Success> {
        match query {
            Query::ListPrincipals {} => {
                Some(|PrincipalsInfo { principals, tokens }| Success::Principals { principals, tokens })
            }
            _ => None,
        }
    }

    fn administered(number: u64) -> Option<Success> {
        Some(Success::Administered { number })
    }

    fn state_hash(&mut self) -> [u8; 32] {
        self.accounts.set_hash().to_bytes()
    }

    fn history(&self) -> machine::History {
        machine::History { entries: self.history.len(), head: self.history.head() }
    }

    fn figures(&self) -> Figures {
        Figures { accounts: self.accounts.len() as u64, total_balance: self.own().total }
    }

    fn head(&self) -> Head {
        Head {
            transaction_limit: self.transaction_limit(),
            total_balance: self.own().total,
            accounts: self.accounts.len() as u64,
            history: self.history.to_row(),
            totals: self.own().totals.to_row(),
            secret: Some(self.history.secret()),
            terms: self.terms(),
            assets: self.accounts.assets.to_rows(),
        }
    }

    fn freeze(&mut self) -> usize {
        let pages = self.accounts.freeze();
        let (end, next) = (self.history.len(), self.saved / BLOCK);
        self.taking = Some(Blocks { end, next, done: Vec::new() });
        (end - next * BLOCK).div_ceil(BLOCK) as usize + pages.div_ceil(PAGES)
    }

    /// A step is a block of the history, or 32 pages of accounts.
    fn collect(&mut self, steps: usize) -> Option<Rows> {
        let Some(Blocks { end, next, done }) = &mut self.taking else { panic!("no snapshot is being taken") };
        for _ in 0..steps {
            if *next * BLOCK >= *end {
                break;
            }
            done.push((*next, self.history.block_row(*next, *end, &self.accounts)));
            *next += 1;
        }
        if *next * BLOCK < *end {
            return None;
        }
        let pages = self.accounts.collect(PAGES * steps)?;
        let Blocks { end, done: blocks, .. } = self.taking.take()?;
        self.saved = end;
        Some(Rows { pages, blocks, entries: end })
    }

    fn forget(&mut self, entries: u64) {
        self.history.forget(entries);
    }

    fn load(head: &Head) -> Bank {
        Bank::of(&head.terms, head.transaction_limit.clamp(1, MAX_BALANCE), Secret([0; 32]))
    }

    fn load_page(&mut self, page: u32, row: &[u8]) -> Result<(), BadRow> {
        self.accounts.load(page, row)
    }

    fn loaded(&mut self, head: Head, last: Option<&Block>) -> Result<(), BadRow> {
        self.load_rest(head, last)
    }

    fn adopt(head: &mut Head, secret: Secret) {
        head.secret.get_or_insert(secret);
    }

    fn history_of(head: &Head) -> machine::History {
        machine::History { entries: head.history.transactions, head: head.history.head }
    }

    fn encode_state(state: StateRow, head: Head) -> Vec<u8> {
        state::encode(state, head)
    }

    fn decode_state(row: &[u8], of_backup: bool) -> Result<(StateRow, Head), BadRow> {
        state::decode(row, of_backup)
    }
}

impl machine::Feed<Bank> for Feed {
    type Entry = Transaction;

    /// An account that is not there has none.
    fn first(&self, bank: &Bank) -> Result<u64, Refusal> {
        if let Some(account_id) = self.account_id.clone()
            && let Begun::Done(balance) = bank.begin(Ask::Query(&Query::GetBalance { account_id }))
        {
            balance?;
        }
        if let Some(asset) = &self.asset {
            bank.asset(Some(asset))?;
        }
        Ok(self.from.unwrap_or(bank.history.len() + 1).max(1))
    }

    fn subscribed(&self, from: u64) -> Success {
        Success::Subscribed { from }
    }

    fn entries(&self, answer: Success) -> Option<(Vec<Transaction>, u64)> {
        match answer {
            Success::Transactions { transactions, next: Some(next) } => Some((transactions, next)),
            _ => None,
        }
    }
}
