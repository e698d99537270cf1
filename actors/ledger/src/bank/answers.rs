//! Answers of the bank, in steps (`lookup`). A step is a record or an account that is looked at; one that becomes part of the answer
//! takes [`TELL`].
//!
//! The newest records of the history are in memory, older ones have to be read from disk, in blocks.
//!
//! # What an answer sees
//!
//! The bank applies slots while an answer is under way. Every answer is that of one moment all the same, the one after
//! [`Lookup::slot`](crate::lookup::Lookup::slot):
//!
//! - The history never changes, so pages of it and single transactions are those of the moment when they were begun, whatever was
//!   applied since.
//! - Accounts and balances are read when the question is asked. A page of accounts takes less than [`MOST_AT_ONCE`] steps: it is read
//!   at once when its turn comes, and is of that moment.
//! - The statistics are those of the moment when the lists of top accounts are complete (`ranks`). Large transactions are then
//!   searched from the newest transaction of that moment on.

use std::cell::Cell;
use std::sync::Arc;

use rabia_bank_messages::bank::{
    Account, ItemResult, MAX_PAGE, Refusal, Statistics, Success, Transaction, TransactionType,
};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::Millis;

use super::Bank;
use super::account::AccountIndex;
use super::assets::AssetIndex;
use super::block::{Block, BlockRecord, block_of};
use super::history::Record;
use super::outcomes::{CommandOutcome, Done, Kind, OperationOutcome, bulk_empty, bulk_too_large};
use super::overview::TOP;
use super::ranks::LOOK as RANKS;
use super::settings::{Said, USUAL};
use crate::machine::{self, Given, Progress};

/// Steps that a record or an account takes that becomes part of the answer: what it holds is copied.
pub const TELL: u64 = 4;
/// Steps that the longest piece of an answer takes that is read at once, a page of accounts: an answer that is allowed as many
/// comes further each time.
pub const MOST_AT_ONCE: u64 = (MAX_PAGE as u64 + 1) * TELL;

/// The answer to a command or a query.
type Answer = Result<Success, Refusal>;

/// Why an answer stops.
enum Stop {
    /// A block is not at hand.
    Missing(u64),
    /// All steps are used up.
    Tired,
}

/// What is being answered.
#[derive(Debug)]
#[allow(private_interfaces)] // nobody but the bank looks into it
pub enum Task {
    /// A command's outcome, and what of a bulk's results is made already.
    Outcome(CommandOutcome, Vec<ItemResult>),
    Transaction(u64),
    Page(Page),
    Accounts {
        after: Option<Box<str>>,
        limit: usize,
        code: Option<Box<str>>,
    },
    /// The statistics of an asset, with transactions of this amount listed as large, when the lists of top accounts are complete.
    Statistics {
        asset: AssetIndex,
        large_amount: u64,
    },
    /// Unfinished statistics, and where the search for large transactions goes on.
    Large {
        asset: AssetIndex,
        statistics: Box<Statistics>,
        next: u64,
    },
    /// Transactions of the feed from `next` to `end`, oldest first.
    Ascending {
        feed: Feed,
        next: u64,
        end: u64,
        limit: usize,
        found: Vec<Transaction>,
    },
}

impl machine::Task<Bank> for Task {
    fn sees_now(&self) -> bool {
        matches!(self, Task::Statistics { .. } | Task::Accounts { .. })
    }

    fn needs_preparation(&self) -> bool {
        matches!(self, Task::Statistics { .. })
    }

    fn prepare(&self, bank: &mut Bank, steps: &mut u64) -> bool {
        match self {
            Task::Statistics { asset, .. } => bank.accounts.complete_ranks(*asset, TOP, steps),
            _ => true,
        }
    }

    fn run(&mut self, bank: &Bank, blocks: &Given<Block>, steps: &mut u64) -> Progress<Success> {
        let view = View { bank, blocks, steps: Cell::new(*steps) };
        let stopped = self.answer(&view);
        *steps = view.steps.get();
        match stopped {
            Ok(answer) => Progress::Done(answer),
            Err(Stop::Missing(block)) => Progress::Block(block),
            Err(Stop::Tired) => Progress::Unfinished,
        }
    }
}

/// The records at hand, and how many steps are left to look at them.
struct View<'a> {
    bank: &'a Bank,
    blocks: &'a Given<Block>,
    steps: Cell<u64>,
}

/// A record, from memory or from a block.
enum Found<'a> {
    Memory(&'a Record),
    Block(&'a BlockRecord),
}

impl<'a> View<'a> {
    fn spend(&self, steps: u64) -> Result<(), Stop> {
        let left = self.steps.get().checked_sub(steps).ok_or(Stop::Tired)?;
        self.steps.set(left);
        Ok(())
    }

    /// Counts steps that were or will be taken in any case.
    fn charge(&self, steps: u64) {
        self.steps.set(self.steps.get().saturating_sub(steps));
    }

    /// The record with this id, which must exist.
    fn get(&self, id: u64) -> Result<Found<'a>, Stop> {
        self.spend(1)?;
        self.find(id)
    }

    fn find(&self, id: u64) -> Result<Found<'a>, Stop> {
        let newest = self.bank.history.len();
        assert!((1..=newest).contains(&id), "there is no transaction {id} of {newest}");
        if let Some(record) = self.bank.history.find(id) {
            return Ok(Found::Memory(record));
        }
        let found = self.blocks.iter().find_map(|block| block.find(id));
        found.map(Found::Block).ok_or(Stop::Missing(block_of(id)))
    }

    fn transaction(&self, id: u64) -> Result<Transaction, Stop> {
        let found = self.find(id)?;
        self.spend(TELL)?;
        Ok(match found {
            Found::Memory(record) => self.bank.history.to_transaction(id, record, &self.bank.accounts),
            Found::Block(record) => record.transaction.clone(),
        })
    }
}

impl Found<'_> {
    fn time(&self) -> Millis {
        match self {
            Found::Memory(record) => record.moment.time,
            Found::Block(record) => record.transaction.timestamp,
        }
    }

    fn is_of(&self, kind: TransactionType) -> bool {
        match self {
            Found::Memory(record) => record.movement.transaction_type() == kind,
            Found::Block(record) => record.transaction.transaction_type == kind,
        }
    }

    fn amount(&self) -> u64 {
        match self {
            Found::Memory(record) => record.amount,
            Found::Block(record) => record.transaction.amount,
        }
    }

    /// Whether it is of this asset: what moves nothing is of the cluster's own.
    fn is_of_asset(&self, asset: AssetIndex, bank: &Bank) -> bool {
        match self {
            Found::Memory(record) => {
                let side = record.movement.side();
                side.map_or(AssetIndex::OWN, |side| bank.accounts.get(side.account).asset) == asset
            }
            Found::Block(record) => {
                record.transaction.asset.as_deref() == bank.accounts.assets.foreign(asset).map(|code| &**code)
            }
        }
    }

    fn touches(&self, (account, name): (Option<AccountIndex>, &str)) -> bool {
        match self {
            Found::Memory(record) => account.is_some_and(|account| record.movement.side_of(account).is_some()),
            Found::Block(record) => {
                let BlockRecord { transaction, .. } = record;
                [&transaction.from_account, &transaction.to_account].into_iter().flatten().any(|of| **of == *name)
            }
        }
    }

    /// The record before this one, if this is one of the account's.
    fn previous_of_account(&self, account: AccountIndex, name: &str) -> Option<u64> {
        match self {
            Found::Memory(record) => record.movement.side_of(account).map(|side| side.previous),
            Found::Block(record) if record.transaction.from_account.as_deref() == Some(name) => {
                Some(record.previous_of_from)
            }
            Found::Block(record) if record.transaction.to_account.as_deref() == Some(name) => {
                Some(record.previous_of_to)
            }
            Found::Block(_) => None,
        }
    }
}

/// Which records a search is about.
#[derive(Debug)]
pub(super) enum Trail {
    /// Every record there is.
    All,
    /// Those of a type, of which this is the newest; 0 if there is none.
    Type { kind: TransactionType, newest: u64 },
    /// Those that touch an account, likewise.
    Account { account: AccountIndex, name: Arc<str>, newest: u64 },
}

impl Trail {
    /// The record of the trail before this one; 0 if it is the first. `None` if it is not on the trail.
    fn previous(&self, id: u64, record: &Found<'_>) -> Option<u64> {
        match self {
            Trail::All => Some(id - 1),
            Trail::Type { kind, .. } => record.is_of(*kind).then_some(match record {
                Found::Memory(record) => record.previous_of_type,
                Found::Block(record) => record.previous_of_type,
            }),
            Trail::Account { account, name, .. } => record.previous_of_account(*account, name),
        }
    }

    /// The same of a record that the trail led to.
    fn before(&self, id: u64, record: &Found<'_>) -> u64 {
        match self.previous(id, record) {
            Some(previous) => previous,
            None => panic!("transaction {id} is not on the trail that led to it: {self:?}"),
        }
    }
}

/// A page of the history, newest first.
#[derive(Debug)]
pub struct Page {
    trail: Trail,
    kind: Option<TransactionType>,
    from_time: Option<Millis>,
    limit: usize,
    found: Vec<Transaction>,
    step: Step,
}

/// What a page is at.
#[derive(Debug)]
enum Step {
    /// Which is the first record after `time`? One from `low` to `high`.
    Bound { time: Millis, low: u64, high: u64, before: u64 },
    /// Which is the newest record of the trail with an id below `before`?
    ///
    /// Two ways lead there: down the trail from its newest record, short if few records of the trail are newer; and
    /// down the whole history from `before`, short if many records belong to the trail. Which is shorter is not known,
    /// so both are taken at once, and cost twice the shorter one.
    Begin { before: u64, id: u64, on_trail: u64 },
    /// Down the trail from here.
    Collect { next: u64 },
}

impl Page {
    /// `before` and `end` are at most the newest id plus one; `end` is exactly that.
    pub(super) fn new(
        trail: Trail,
        kind: Option<TransactionType>,
        from_time: Option<Millis>,
        to_time: Option<Millis>,
        before: u64,
        end: u64,
        limit: usize,
    ) -> Page {
        let step = match to_time {
            Some(time) => Step::Bound { time, low: 1, high: end, before },
            None => trail.begin(before),
        };
        Page { trail, kind, from_time, limit, found: Vec::new(), step }
    }

    fn run(&mut self, view: &View<'_>) -> Result<Answer, Stop> {
        loop {
            match &mut self.step {
                Step::Bound { time, low, high, before } => {
                    while *low < *high {
                        let middle = *low + (*high - *low) / 2;
                        if view.get(middle)?.time() <= *time {
                            *low = middle + 1;
                        } else {
                            *high = middle;
                        }
                    }
                    self.step = self.trail.begin((*low).min(*before));
                }
                Step::Begin { before, id, on_trail } => {
                    let next = loop {
                        if *on_trail < *before {
                            break *on_trail;
                        }
                        if *id == 0 {
                            break 0;
                        }
                        if self.trail.previous(*id, &view.get(*id)?).is_some() {
                            break *id;
                        }
                        *on_trail = self.trail.before(*on_trail, &view.get(*on_trail)?);
                        *id -= 1;
                    };
                    self.step = Step::Collect { next };
                }
                Step::Collect { next } => {
                    while *next > 0 && self.found.len() <= self.limit {
                        let record = view.get(*next)?;
                        if self.from_time.is_some_and(|time| record.time() < time) {
                            break;
                        }
                        let previous = self.trail.before(*next, &record);
                        if self.kind.is_none_or(|kind| record.is_of(kind)) {
                            self.found.push(view.transaction(*next)?);
                        }
                        *next = previous;
                    }
                    return Ok(Ok(self.answer()));
                }
            }
        }
    }

    fn answer(&mut self) -> Success {
        let mut transactions = std::mem::take(&mut self.found);
        let more = transactions.len() > self.limit;
        transactions.truncate(self.limit);
        let next = transactions.last().filter(|_| more).map(|last| last.transaction_id);
        Success::Transactions { transactions, next }
    }
}

impl Trail {
    fn begin(&self, before: u64) -> Step {
        let id = before.saturating_sub(1);
        match self {
            Trail::All => Step::Collect { next: id },
            Trail::Type { newest, .. } | Trail::Account { newest, .. } => Step::Begin { before, id, on_trail: *newest },
        }
    }
}

impl Task {
    fn answer(&mut self, view: &View<'_>) -> Result<Answer, Stop> {
        match self {
            Task::Accounts { after, limit, code } => {
                view.spend(if code.is_some() { MOST_AT_ONCE } else { (*limit as u64 + 1) * TELL })?;
                Ok(Ok(view.bank.list_accounts(after.as_deref(), *limit, code.as_deref())))
            }
            Task::Statistics { asset, large_amount } => {
                view.charge(RANKS);
                let statistics = Box::new(view.bank.statistics(*asset, *large_amount));
                *self = Task::Large { asset: *asset, statistics, next: view.bank.history.len() };
                self.answer(view)
            }
            Task::Outcome(outcome, results) => render(view, outcome, results),
            Task::Transaction(id) => Ok(Ok(Success::Transaction { transaction: view.transaction(*id)? })),
            Task::Page(page) => page.run(view),
            Task::Large { asset, statistics, next } => {
                let totals = &view.bank.accounts.assets.get(*asset).totals;
                while statistics.large_transactions.len() < TOP
                    && let Some(id) = totals.next_large(statistics.large_amount, *next)
                {
                    *next = id;
                    let record = view.get(id)?;
                    if record.amount() >= statistics.large_amount && record.is_of_asset(*asset, view.bank) {
                        statistics.large_transactions.push(view.transaction(id)?);
                    }
                    *next = id - 1;
                }
                Ok(Ok(Success::Statistics { statistics: statistics.clone() }))
            }
            Task::Ascending { feed, next, end, limit, found } => {
                let account = feed.account_id.as_deref().map(|name| (view.bank.accounts.find(name), name));
                let asset = view.bank.asset_of(feed);
                while *next <= *end && found.len() < *limit {
                    let record = view.get(*next)?;
                    if record.amount() >= feed.min_amount.unwrap_or(0)
                        && account.is_none_or(|of| record.touches(of))
                        && asset.is_none_or(|asset| asset.is_some_and(|asset| record.is_of_asset(asset, view.bank)))
                    {
                        found.push(view.transaction(*next)?);
                    }
                    *next += 1;
                }
                Ok(Ok(Success::Transactions { transactions: std::mem::take(found), next: Some(*next) }))
            }
        }
    }
}

/// The answer that a client gets to a command.
fn render(view: &View<'_>, outcome: &CommandOutcome, results: &mut Vec<ItemResult>) -> Result<Answer, Stop> {
    Ok(match &outcome.0 {
        Kind::One(outcome) => operation(view, outcome)?,
        Kind::Bulk(outcomes) => {
            results.reserve(outcomes.len() - results.len());
            while let Some(outcome) = outcomes.get(results.len()) {
                results.push(match operation(view, outcome)? {
                    Ok(success) => ItemResult::Ok(success),
                    Err(refusal) => ItemResult::Error(refusal),
                });
            }
            Ok(Success::Results { results: std::mem::take(results) })
        }
        Kind::BulkUndone { index, refusal } => {
            Err(Refusal { index: Some(*index), ..refusal.render(view.bank.transaction_limit()) })
        }
        Kind::BulkEmpty => Err(bulk_empty()),
        Kind::BulkTooLarge { commands } => Err(bulk_too_large(*commands)),
    })
}

fn operation(view: &View<'_>, outcome: &OperationOutcome) -> Result<Answer, Stop> {
    view.spend(1)?;
    Ok(match outcome {
        Ok(Done::Created(account)) => {
            let state = view.bank.accounts.get(*account);
            let account = state.as_created(view.bank.accounts.assets.get(state.asset), &USUAL);
            Ok(Success::Account { account: Box::new(account), transaction: None })
        }
        Ok(Done::Opened(transaction)) => Ok(opening(view, view.transaction(*transaction)?)),
        Ok(Done::Moved(transaction)) => Ok(Success::Transaction { transaction: view.transaction(*transaction)? }),
        Err(refusal) => Err(refusal.render(view.bank.transaction_limit())),
    })
}

/// The answer to a creation shows the account as it was then, for it may be given again at any time.
fn opening(view: &View<'_>, transaction: Transaction) -> Success {
    let (name, balance) = (transaction.to_account.as_deref(), transaction.to_balance);
    let account = name.and_then(|name| view.bank.accounts.find(name)).zip(balance);
    let Some((account, balance)) = account else { panic!("an opening without its account: {transaction:?}") };
    let said = transaction.settings.as_deref().and_then(Said::of_text).unwrap_or_default();
    let (state, settings) = (view.bank.accounts.get(account), said.on(&USUAL));
    let account = Account {
        balance,
        available: settings.available(balance),
        last_transaction_at: Some(transaction.timestamp),
        transaction_count: 1,
        version: 1,
        ..state.as_created(view.bank.accounts.assets.get(state.asset), &settings)
    };
    Success::Account { account: Box::new(account), transaction: Some(transaction) }
}

impl Bank {
    /// The asset that the transactions of a feed must be of; none if any will do. One that is not there has no transactions.
    fn asset_of(&self, feed: &Feed) -> Option<Option<AssetIndex>> {
        match &feed.asset {
            Some(code) => Some(self.accounts.assets.find(code)),
            None => feed.min_amount.map(|_| Some(AssetIndex::OWN)),
        }
    }
}
