//! Clients that keep their own books, and the check of what the nodes say against them.
//!
//! Every command of a writer carries an amount that no other command has, so that it can be found in the history whether
//! its answer came or not. [`Books::check`] believes nothing that a node says about itself: it replays the history,
//! recomputes the chain of hashes from the documented bytes, and compares both with the answers that the writers got.

#![allow(clippy::print_stdout)] // the result of every check, for those who run it with --nocapture

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rabia_bank::client::{CallError, Client, ClientOptions, NodeUrl};
use rabia_bank_messages::bank::{
    Account, Amount, Command, ErrorCode, HistoryFilter, MAX_PAGE, Operation, Query, ReadLevel, Status, Success,
    Transaction, TransactionType,
};
use rabia_bank_model::{amount_of, is_result_of};

/// Accounts that money is moved between.
const ACCOUNTS: usize = 40;
/// What they begin with: more than all the amounts of a test take from one of them.
const OPENING: u64 = 900_000_000;
/// An account that stays empty, for commands that must be refused.
const POOR: &str = "poor";
/// How long all nodes may take to reach one slot when nobody writes.
const SETTLING: Duration = Duration::from_secs(60);

/// What became of a command, as its writer knows it.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was applied, as this transaction.
    Acknowledged(Transaction),
    /// It was certainly not executed.
    Refused(ErrorCode),
    /// It was never sent.
    NotReached,
    /// Nobody knows.
    Unknown(String),
}

/// A command and what became of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which writer sent it.
    pub writer: usize,
    /// What it was.
    pub operation: Operation,
    /// When it was handed to the client library.
    pub sent: Instant,
    /// When its outcome was there.
    pub answered: Instant,
    /// What became of it.
    pub outcome: Outcome,
}

/// All that the clients of a test know of the bank.
#[derive(Debug)]
pub struct Books {
    urls: Vec<NodeUrl>,
    entries: Vec<Entry>,
    /// The next amount that nobody has used.
    next_amount: Arc<AtomicU64>,
    writers: usize,
}

/// How writers behave.
#[derive(Clone, Debug)]
pub struct Writing {
    /// How long a command may take, with all retries.
    pub timeout: Duration,
    /// A writer sends its next command so long after the one before, or when that is answered, whichever is later. Keeps
    /// a machine of few processors from being busy with the writers alone.
    pub pace: Duration,
}

impl Default for Writing {
    fn default() -> Writing {
        Writing { timeout: Duration::from_secs(10), pace: Duration::from_millis(4) }
    }
}

/// Writers at work, on a thread of their own.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Vec<Arc<AtomicU64>>,
    thread: JoinHandle<Vec<Entry>>,
}

impl Books {
    /// Opens the accounts of a new bank.
    pub fn open(urls: &[NodeUrl]) -> Books {
        let mut books =
            Books { urls: urls.to_vec(), entries: Vec::new(), next_amount: Arc::new(AtomicU64::new(1)), writers: 0 };
        let openings = (0..ACCOUNTS).map(|n| (account(n), OPENING + n as u64)).chain([(POOR.to_owned(), 0)]);
        let entries = block_on(async {
            let client = Client::connect(crate::support::options(urls.to_vec()));
            let mut entries = Vec::new();
            for (name, balance) in openings {
                let operation = Operation::create_account(name, Amount::new(balance));
                let sent = Instant::now();
                let applied = client.command(Command::One(operation.clone())).await.unwrap();
                let Success::Account { transaction, .. } = applied.success else { panic!("{applied:?}") };
                if let Some(transaction) = transaction {
                    let outcome = Outcome::Acknowledged(transaction);
                    entries.push(Entry { writer: usize::MAX, operation, sent, answered: Instant::now(), outcome });
                }
            }
            client.close().await;
            entries
        });
        books.entries = entries;
        books
    }

    /// Starts one writer for each list of URLs; each tries its URLs in their order.
    pub fn write(&mut self, writers: &[Vec<NodeUrl>], writing: &Writing) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: Vec<_> = writers.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
        let work: Vec<_> = writers
            .iter()
            .zip(&acknowledged)
            .map(|(urls, acknowledged)| {
                self.writers += 1;
                Writer {
                    number: self.writers - 1,
                    options: ClientOptions { timeout: writing.timeout, ..crate::support::options(urls.clone()) },
                    pace: writing.pace,
                    amounts: Arc::clone(&self.next_amount),
                    stop: Arc::clone(&stop),
                    acknowledged: Arc::clone(acknowledged),
                }
            })
            .collect();
        let thread = std::thread::spawn(move || {
            block_on(async {
                let entries = futures_util::future::join_all(work.into_iter().map(Writer::run)).await;
                entries.into_iter().flatten().collect()
            })
        });
        Load { stop, acknowledged, thread }
    }

    /// Ends the work and takes its entries into the books.
    pub fn stop(&mut self, load: Load) -> Vec<Entry> {
        load.ask_to_stop();
        let entries = load.thread.join().expect("a writer has panicked");
        self.entries.extend(entries.iter().cloned());
        entries
    }

    /// Adds a command that a test sent by other means.
    pub fn note(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// An amount that no other command has.
    pub fn amount(&self) -> u64 {
        self.next_amount.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until the nodes at `urls` have applied the same slots, and checks everything that they say. Panics with what
    /// is wrong. Nobody may write meanwhile.
    pub fn check(&self, urls: &[NodeUrl]) {
        let status = await_one_state(urls);
        let (history, accounts) = block_on(async {
            let client = Client::connect(crate::support::options(urls.to_vec()));
            let history = read_history(&client, ReadLevel::Linearizable).await;
            let accounts = read_accounts(&client, ReadLevel::Linearizable).await;
            client.close().await;
            (history, accounts)
        });
        replay(&history, &accounts, &status);
        self.compare(&history);
        for url in urls {
            let (of_node, accounts_of_node) = block_on(async {
                let client = Client::connect(crate::support::options(vec![url.clone()]));
                (read_history(&client, ReadLevel::Local).await, read_accounts(&client, ReadLevel::Local).await)
            });
            assert!(of_node == history, "the history at {url} is another than through the first node");
            assert_eq!(accounts_of_node, accounts, "accounts at {url}");
        }
        let count = |wanted: fn(&Outcome) -> bool| self.entries.iter().filter(|e| wanted(&e.outcome)).count();
        eprintln!(
            "the books are right: {} acknowledged, {} refused, {} unknown, {} not sent; {} transactions, slot {}",
            count(|o| matches!(o, Outcome::Acknowledged(_))),
            count(|o| matches!(o, Outcome::Refused(_))),
            count(|o| matches!(o, Outcome::Unknown(_))),
            count(|o| matches!(o, Outcome::NotReached)),
            history.len(),
            status.applied_slot,
        );
    }

    /// Every acknowledged command is there exactly once, as its answer said, and after those acknowledged before it was
    /// sent; an unknown one at most once; nothing else is there.
    fn compare(&self, history: &[Transaction]) {
        let mut in_books: HashMap<u64, &Entry> = HashMap::new();
        for entry in &self.entries {
            let former = in_books.insert(amount_of(&entry.operation), entry);
            assert!(former.is_none(), "the test used an amount twice: {former:?}, {entry:?}");
        }
        let mut in_history: HashMap<u64, &Transaction> = HashMap::new();
        // Of administrators nothing is in the books: a test makes its token by itself.
        for transaction in history.iter().filter(|record| record.transaction_type != TransactionType::Admin) {
            let former = in_history.insert(transaction.amount, transaction);
            assert!(former.is_none(), "applied twice: {former:?} and {transaction:?}");
            let Some(entry) = in_books.get(&transaction.amount) else {
                panic!("nobody asked for {transaction:?}");
            };
            match &entry.outcome {
                Outcome::Acknowledged(_) | Outcome::Unknown(_) => {}
                outcome => panic!("{outcome:?}, but it was executed: {transaction:?}"),
            }
            assert!(is_result_of(transaction, &entry.operation), "{transaction:?} is no result of {entry:?}");
        }
        for entry in &self.entries {
            if let Outcome::Acknowledged(transaction) = &entry.outcome {
                match in_history.get(&transaction.amount) {
                    Some(found) => assert_eq!(*found, transaction, "acknowledged otherwise than it is now"),
                    None => panic!("an acknowledged command is lost: {entry:?}"),
                }
            }
        }
        self.check_order();
    }

    fn check_order(&self) {
        let acknowledged = |entry: &Entry| match &entry.outcome {
            Outcome::Acknowledged(transaction) => Some((entry.sent, entry.answered, transaction.transaction_id)),
            _ => None,
        };
        let mut by_sending: Vec<_> = self.entries.iter().filter_map(acknowledged).collect();
        let mut by_answer = by_sending.clone();
        by_sending.sort_unstable();
        by_answer.sort_unstable_by_key(|(_, answered, _)| *answered);
        let mut answered_before = by_answer.iter().peekable();
        let mut highest = 0;
        for (sent, _, id) in by_sending {
            while let Some((_, _, before)) = answered_before.next_if(|(_, answered, _)| *answered < sent) {
                highest = highest.max(*before);
            }
            assert!(id > highest, "transaction {id} was sent after {highest} was acknowledged, but comes before it");
        }
    }
}

impl Load {
    /// Lets every writer end with the command that it has under way.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether all writers have ended.
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Commands acknowledged so far, over all writers.
    pub fn acknowledged(&self) -> u64 {
        self.per_writer().iter().sum()
    }

    /// Commands acknowledged so far, by writer.
    pub fn per_writer(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

/// The longest time that passed for one of the writers between two acknowledgements, as far as it touches the time from
/// `from` to `to`.
pub fn longest_gap(entries: &[Entry], writers: std::ops::Range<usize>, from: Instant, to: Instant) -> Duration {
    let mut longest = Duration::ZERO;
    for writer in writers {
        let of_writer = entries.iter().filter(|entry| entry.writer == writer);
        let mut last = None;
        for entry in of_writer.filter(|entry| matches!(entry.outcome, Outcome::Acknowledged(_))) {
            if let Some(last) = last.replace(entry.answered)
                && entry.answered > from
                && last < to
            {
                longest = longest.max(entry.answered - last);
            }
        }
        assert!(last.is_some_and(|last| last > to), "writer {writer} has no answer after the measured time");
    }
    longest
}

struct Writer {
    number: usize,
    options: ClientOptions,
    pace: Duration,
    amounts: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Writer {
    async fn run(self) -> Vec<Entry> {
        let client = Client::connect(self.options);
        let mut random = fastrand::Rng::with_seed(self.number as u64);
        let mut pace = tokio::time::interval(self.pace);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut entries = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            pace.tick().await;
            let operation = operation(&mut random, self.amounts.fetch_add(1, Ordering::Relaxed));
            let sent = Instant::now();
            let outcome = match client.command(Command::One(operation.clone())).await {
                Ok(applied) => match applied.success {
                    Success::Transaction { transaction } => Outcome::Acknowledged(transaction),
                    other => panic!("{operation:?} was answered with {other:?}"),
                },
                Err(CallError::Refused(refusal)) => Outcome::Refused(refusal.code),
                Err(CallError::NotReached(_)) => Outcome::NotReached,
                Err(CallError::Unknown(unknown)) => Outcome::Unknown(unknown.why),
            };
            if matches!(outcome, Outcome::Acknowledged(_)) {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            entries.push(Entry { writer: self.number, operation, sent, answered: Instant::now(), outcome });
        }
        client.close().await;
        entries
    }
}

fn account(number: usize) -> String {
    format!("account-{number:02}")
}

/// Most move money, some bring it in or take it out, some must be refused.
fn operation(random: &mut fastrand::Rng, amount: u64) -> Operation {
    let amount = Amount::new(amount);
    let (from, step) = (random.usize(..ACCOUNTS), random.usize(1..ACCOUNTS));
    let (one, other) = (account(from).into(), account((from + step) % ACCOUNTS).into());
    match random.u8(..10) {
        0 => Operation::Deposit { account_id: one, amount },
        1 => Operation::Withdraw { account_id: one, amount },
        2 => Operation::Transfer { from_account: POOR.into(), to_account: other, amount },
        3 => Operation::Transfer { from_account: one, to_account: "nobody".into(), amount },
        _ => Operation::Transfer { from_account: one, to_account: other, amount },
    }
}

/// Replays the history from nothing, and compares it with the balances and the status now.
fn replay(history: &[Transaction], accounts: &[Account], status: &Status) {
    let replayed = rabia_bank_model::replay(history).unwrap();
    let total = replayed.total();
    let mut of_history = replayed.accounts;
    for account in accounts {
        assert_eq!(of_history.remove(&account.account_id).as_ref(), Some(account), "the history gives another account");
    }
    assert!(of_history.is_empty(), "accounts that are not listed have transactions: {of_history:?}");
    let sum: i64 = accounts.iter().map(|account| account.balance).sum();
    assert_eq!(i128::from(sum), total, "sum of balances, and what came in and went out");
    assert_eq!(status.total_balance, sum);
    assert_eq!(status.transactions, history.len() as u64);
    assert_eq!(status.chain_head, replayed.head);
}

/// All transactions, oldest first.
async fn read_history(client: &Client, read: ReadLevel) -> Vec<Transaction> {
    let mut history = Vec::new();
    let mut before = None;
    loop {
        let page = HistoryFilter { before, limit: Some(MAX_PAGE), ..HistoryFilter::default() };
        let answer = client.query(Query::GetTransactionHistory(page), read).await.unwrap();
        let Success::Transactions { transactions, next } = answer.success else { panic!("{answer:?}") };
        history.extend(transactions);
        before = next;
        if before.is_none() {
            history.reverse();
            return history;
        }
    }
}

async fn read_accounts(client: &Client, read: ReadLevel) -> Vec<Account> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let answer =
            client.query(Query::ListAccounts { after, limit: Some(MAX_PAGE), code: None }, read).await.unwrap();
        let Success::Accounts { accounts, next } = answer.success else { panic!("{answer:?}") };
        all.extend(accounts);
        after = next;
        if after.is_none() {
            return all;
        }
    }
}

/// What a node says of itself; `None` if it is not there.
pub fn status(url: &NodeUrl) -> Option<Status> {
    block_on(async {
        let options = ClientOptions { timeout: Duration::from_secs(2), ..crate::support::options(vec![url.clone()]) };
        let client = Client::connect(options);
        let answer = client.query(Query::GetStatus {}, ReadLevel::Local).await.ok()?;
        match answer.success {
            Success::Status { status } => Some(*status),
            other => panic!("asked for the status, got {other:?}"),
        }
    })
}

/// Waits until the nodes have applied the same slots; their states must be the same then. Nobody may write meanwhile.
pub fn await_one_state(urls: &[NodeUrl]) -> Status {
    let deadline = Instant::now() + SETTLING;
    loop {
        let all: Vec<Option<Status>> = urls.iter().map(status).collect();
        if let Some(all) = all.iter().cloned().collect::<Option<Vec<Status>>>()
            && all.iter().all(|status| status.applied_slot == all[0].applied_slot && status.open_slots == 0)
        {
            for status in &all {
                let shown = |status: &Status| {
                    (status.state_digest, status.chain_head, status.transactions, status.total_balance)
                };
                assert_eq!(shown(status), shown(&all[0]), "states differ at one slot: {all:#?}");
            }
            return all[0].clone();
        }
        assert!(Instant::now() < deadline, "the nodes do not reach one slot: {all:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs one piece of client work.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
