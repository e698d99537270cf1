//! `rabia-bank bench`: a closed loop of transfers between accounts of its own, and a check of the books afterwards.
//!
//! Every client is a connection and a session. It keeps `--in-flight` requests under way, each a transfer or a bulk of
//! them, and sends the next when one is answered. Money only moves between the run's accounts, so whatever was refused,
//! or is unknown, their sum must be what was paid in; and where nothing is unknown, every balance must be what the
//! answers say. A run that finds anything else fails.
//!
//! All of it runs on one thread: the nodes need the other cores.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use console::style;
use hdrhistogram::Histogram;
use rabia_bank_messages::bank::{
    AccountId, Amount, Bulk, Command, MAX_BULK, MAX_PAGE, Operation, Query, ReadLevel, Status, Success,
};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::task::LocalSet;

use super::client::seconds;
use super::{Connect, Exit, ProgramError, runtime, terminal};
use crate::client::{Answered, Client, ClientOptions, NodeUrl, Request, Unanswered};
use crate::random;

/// What each account begins with, in minor units: below any sensible limit per transaction, and more than a run moves
/// out of most accounts.
const FIRST_BALANCE: u64 = 1_000_000;
/// Transfers move 1 to this many minor units.
const LARGEST_TRANSFER: u64 = 100;
/// Accounts opened with one request.
const ACCOUNTS_AT_ONCE: usize = 1_000;
/// The most accounts of a run: their balances are held in memory, and read back at the end.
const MAX_ACCOUNTS: u64 = 10_000_000;
/// The longest latency that the histogram tells apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;
/// How often the progress line changes.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// The command line of `bench`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit code: 0 done, 1 the books do not balance, 2 the cluster was not reached. A node that dies meanwhile does not end the
run: its clients go on at the other nodes, unless --pin says that they stay.

Examples:
  rabia-bank bench                                one transfer in flight for each of 64 clients
  rabia-bank bench --clients 1                    the latency of an idle cluster
  rabia-bank bench --clients 4 --bulk 8000        the most transfers
  rabia-bank bench --clients 3 --in-flight 1000   one connection a node, many users behind it")]
pub struct Args {
    #[command(flatten)]
    connect: Connect,
    /// Accounts to move money between.
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=MAX_ACCOUNTS))]
    accounts: u64,
    /// Connections, spread over the nodes.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    clients: u64,
    /// Transfers in one request; 1 sends single transfers.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_BULK as u64))]
    bulk: u64,
    /// Requests that each client keeps under way.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    in_flight: u64,
    /// How long to measure, in seconds.
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    duration: Duration,
    /// How long to run before measuring, in seconds.
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    warm_up: Duration,
    /// How long a request may take, retries included, in seconds.
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    timeout: Duration,
    /// Clients stay at their node, also when it is gone.
    #[arg(long)]
    pin: bool,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// What a run found.
#[derive(Serialize, Clone, PartialEq, Debug)]
struct Results {
    /// Transfers that were applied while it measured.
    acknowledged: u64,
    /// Transfers that the bank refused.
    refused: u64,
    /// Transfers whose outcome is not known.
    unknown: u64,
    /// Transfers that could not be sent.
    not_reached: u64,
    /// Acknowledged transfers per second.
    per_second: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    /// Slots without a batch, of all that were decided while it measured.
    forfeited_share: Option<f64>,
    /// The longest time between two acknowledgements, over all clients.
    longest_gap_ms: f64,
    /// Whether the money is all there, and where it should be.
    books_balance: bool,
}

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// If the accounts can't be opened or read back.
pub fn run(args: Args) -> Result<Exit, ProgramError> {
    let runtime = runtime()?;
    let results = LocalSet::new().block_on(&runtime, measure(&args));
    let results = match results {
        Ok(results) => results,
        Err(Trouble(text)) => {
            eprintln!("error: {text}");
            return Ok(Exit::Unknown);
        }
    };
    if args.json {
        let line = serde_json::to_string(&results).map_err(|e| ProgramError::Other(e.to_string()))?;
        terminal::print(line)?;
    } else {
        print_table(&results)?;
    }
    Ok(if results.books_balance { Exit::Done } else { Exit::Refused })
}

/// The cluster did not do what a benchmark needs.
struct Trouble(String);

/// What the books should say, kept from the answers; and what is measured.
struct Ledger {
    /// Of every account, in its order. Below 0 for a moment where answers overtake each other.
    balances: Vec<i64>,
    /// Requests whose outcome is unknown, over the whole run.
    unknown_requests: u64,
    measure: Option<Measure>,
    /// All applied transfers, for the progress line.
    applied: u64,
}

/// What is measured between the end of the warm-up and the end of the run.
struct Measure {
    latency_us: Histogram<u64>,
    acknowledged: u64,
    refused: u64,
    unknown: u64,
    not_reached: u64,
    last_acknowledged: Instant,
    longest_gap: Duration,
}

impl Measure {
    fn new(now: Instant) -> Result<Measure, Trouble> {
        let latency_us = Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(|e| Trouble(e.to_string()))?;
        Ok(Measure {
            latency_us,
            acknowledged: 0,
            refused: 0,
            unknown: 0,
            not_reached: 0,
            last_acknowledged: now,
            longest_gap: Duration::ZERO,
        })
    }

    fn note_acknowledgement(&mut self, now: Instant) {
        self.longest_gap = self.longest_gap.max(now - self.last_acknowledged);
        self.last_acknowledged = now;
    }
}

/// A transfer between two accounts, by their places in the run's list.
#[derive(Clone, Copy)]
struct Transfer {
    from: usize,
    to: usize,
    amount: u64,
}

impl Transfer {
    fn random(accounts: usize) -> Transfer {
        let from = fastrand::usize(..accounts);
        let to = (from + fastrand::usize(1..accounts)) % accounts;
        Transfer { from, to, amount: fastrand::u64(1..=LARGEST_TRANSFER) }
    }

    fn operation(self, names: &[AccountId]) -> Operation {
        Operation::Transfer {
            from_account: names[self.from].clone(),
            to_account: names[self.to].clone(),
            amount: Amount::new(self.amount),
        }
    }
}

impl Ledger {
    fn apply(&mut self, transfer: Transfer) {
        // An amount is at most LARGEST_TRANSFER.
        let amount = transfer.amount as i64;
        self.balances[transfer.from] -= amount;
        self.balances[transfer.to] += amount;
    }

    /// Books the outcome of a request that was sent at `sent`.
    fn book(&mut self, transfers: &[Transfer], sent: Instant, outcome: &Result<Answered, Unanswered>) {
        let (mut applied, mut refused, mut unknown, mut not_reached) = (0, 0, 0, 0);
        let count = transfers.len() as u64;
        match outcome {
            Ok(answered) if answered.refusal.is_some() => refused = count,
            Ok(answered) => match applied_items(answered, transfers.len()) {
                Some(items) => {
                    for (&transfer, _) in transfers.iter().zip(&items).filter(|(_, applied)| **applied) {
                        self.apply(transfer);
                        applied += 1;
                    }
                    refused = count - applied;
                }
                None => unknown = count,
            },
            Err(Unanswered::Unknown(why)) => {
                tracing::debug!("{why}");
                unknown = count;
            }
            Err(Unanswered::NotReached(_)) => not_reached = count,
        }
        self.applied += applied;
        self.unknown_requests += u64::from(unknown > 0);
        let Some(measure) = &mut self.measure else { return };
        measure.acknowledged += applied;
        measure.refused += refused;
        measure.unknown += unknown;
        measure.not_reached += not_reached;
        if applied > 0 {
            let now = Instant::now();
            measure.note_acknowledgement(now);
            measure.latency_us.saturating_record((now - sent).as_micros() as u64);
        }
    }
}

/// Which of the request's transfers were applied; `None` if the answer can't be read.
fn applied_items(answered: &Answered, count: usize) -> Option<Vec<bool>> {
    #[derive(Deserialize)]
    struct Outcomes {
        #[serde(default)]
        results: Option<Items>,
    }
    let items = match answered.ok::<Outcomes>().ok()?.results {
        Some(Items(items)) => items,
        None => vec![true],
    };
    (items.len() == count).then_some(items)
}

/// The results of a bulk, without what is in them: thousands of transactions would be decoded for nothing.
struct Items(Vec<bool>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Items, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Item {
            Ok(IgnoredAny),
            Error(IgnoredAny),
        }
        struct Sequence;
        impl<'de> Visitor<'de> for Sequence {
            type Value = Items;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the results of a bulk")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Items, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = sequence.next_element()? {
                    items.push(match item {
                        Item::Ok(IgnoredAny) => true,
                        Item::Error(IgnoredAny) => false,
                    });
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Sequence)
    }
}

async fn measure(args: &Args) -> Result<Results, Trouble> {
    let urls = &args.connect.connect;
    let keeper = Client::connect(options(args, urls.clone()));
    let prefix = format!("bench-{}-", hex_of(random::bytes()));
    let names: Rc<Vec<AccountId>> = Rc::new((0..args.accounts).map(|n| format!("{prefix}{n:07}").into()).collect());
    terminal::wait("opening accounts …", open_accounts(&keeper, &names)).await?;
    let ledger = Rc::new(RefCell::new(Ledger {
        balances: vec![FIRST_BALANCE as i64; names.len()],
        unknown_requests: 0,
        measure: None,
        applied: 0,
    }));
    let start = Instant::now();
    let (begin, end) = (start + args.warm_up, start + args.warm_up + args.duration);
    let mut workers = Vec::new();
    let mut clients = Vec::new();
    for index in 0..args.clients as usize {
        let client = Rc::new(Client::connect(options(args, urls_of(urls, index, args.pin))));
        for _ in 0..args.in_flight {
            let (client, names, ledger) = (client.clone(), names.clone(), ledger.clone());
            workers.push(tokio::task::spawn_local(work(client, names, ledger, args.bulk as usize, end)));
        }
        clients.push(client);
    }
    let progress = tokio::task::spawn_local(show_progress(ledger.clone(), start, end));
    tokio::time::sleep_until(begin.into()).await;
    let slots_before = slots(&keeper).await;
    let began = Instant::now();
    ledger.borrow_mut().measure = Some(Measure::new(began)?);
    tokio::time::sleep_until(end.into()).await;
    let measured = ledger.borrow_mut().measure.take();
    let took = began.elapsed();
    let slots_after = slots(&keeper).await;
    for worker in workers {
        worker.await.map_err(|e| Trouble(format!("a client failed: {e}")))?;
    }
    let _ = progress.await;
    let clients = clients.into_iter().filter_map(Rc::into_inner);
    futures_util::future::join_all(clients.map(Client::close)).await;
    let balances = terminal::wait("reading the accounts back …", read_balances(&keeper, &prefix)).await?;
    keeper.close().await;
    let Some(mut measured) = measured else { return Err(Trouble("the run was not measured".into())) };
    measured.note_acknowledgement(began + took);
    let differences = differences(&balances, &ledger.borrow());
    for difference in &differences {
        eprintln!("error: {difference}");
    }
    let books_balance = differences.is_empty();
    Ok(results(&measured, took, forfeited_share(slots_before, slots_after), books_balance))
}

fn options(args: &Args, urls: Vec<NodeUrl>) -> ClientOptions {
    ClientOptions { timeout: args.timeout, max_in_flight: args.in_flight as usize, ..ClientOptions::new(urls) }
}

/// The URLs of a client: its own node first; alone where it is pinned.
fn urls_of(urls: &[NodeUrl], client: usize, pin: bool) -> Vec<NodeUrl> {
    let mut urls = urls.to_vec();
    let count = urls.len();
    urls.rotate_left(client % count);
    if pin {
        urls.truncate(1);
    }
    urls
}

fn hex_of(bytes: [u8; 16]) -> String {
    bytes[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn open_accounts(client: &Client, names: &[AccountId]) -> Result<(), Trouble> {
    let initial_balance = Amount::new(FIRST_BALANCE);
    for names in names.chunks(ACCOUNTS_AT_ONCE) {
        let create = |name: &AccountId| Operation::CreateAccount { account_id: name.clone(), initial_balance };
        let commands = names.iter().map(create).collect();
        let opened = client.command(Command::Bulk(Bulk { commands, atomic: true })).await;
        opened.map_err(|e| Trouble(format!("the accounts were not opened: {e}")))?;
    }
    Ok(())
}

/// Keeps one request under way until `end`.
async fn work(client: Rc<Client>, names: Rc<Vec<AccountId>>, ledger: Rc<RefCell<Ledger>>, bulk: usize, end: Instant) {
    let mut transfers = Vec::with_capacity(bulk);
    loop {
        let sent = Instant::now();
        if sent >= end {
            return;
        }
        transfers.clear();
        transfers.extend((0..bulk).map(|_| Transfer::random(names.len())));
        let command = match transfers.as_slice() {
            [one] => Command::One(one.operation(&names)),
            many => {
                let commands = many.iter().map(|transfer| transfer.operation(&names)).collect();
                Command::Bulk(Bulk { commands, atomic: false })
            }
        };
        let outcome = client.ask(Request::Command(command)).await;
        ledger.borrow_mut().book(&transfers, sent, &outcome);
    }
}

async fn show_progress(ledger: Rc<RefCell<Ledger>>, start: Instant, end: Instant) {
    let bar = terminal::bar(end - start);
    let mut last = (start, 0);
    while Instant::now() < end && !bar.is_hidden() {
        tokio::time::sleep(PROGRESS_EVERY).await;
        let (now, applied) = (Instant::now(), ledger.borrow().applied);
        let rate = (applied - last.1) as f64 / (now - last.0).as_secs_f64();
        last = (now, applied);
        bar.set_position((now - start).as_millis() as u64);
        let phase = if ledger.borrow().measure.is_some() { "" } else { " (warming up)" };
        bar.set_message(format!("{} transfers/s{phase}", terminal::grouped(rate as u64)));
    }
    bar.finish_and_clear();
}

/// Slots with a batch and without, so far.
async fn slots(client: &Client) -> Option<(u64, u64)> {
    match client.query(Query::GetStatus {}, ReadLevel::Local).await.ok()?.success {
        Success::Status { status } => {
            let Status { decided_slots, null_slots, .. } = *status;
            Some((decided_slots, null_slots))
        }
        _ => None,
    }
}

fn forfeited_share(before: Option<(u64, u64)>, after: Option<(u64, u64)>) -> Option<f64> {
    let ((decided_before, null_before), (decided_after, null_after)) = (before?, after?);
    let null = null_after.checked_sub(null_before)?;
    let all = decided_after.checked_sub(decided_before)? + null;
    Some(if all == 0 { 0.0 } else { null as f64 / all as f64 })
}

/// The balances of all accounts whose names begin with `prefix`, in the order of their names.
async fn read_balances(client: &Client, prefix: &str) -> Result<Vec<u64>, Trouble> {
    let mut balances = Vec::new();
    let mut after = Some(AccountId::from(prefix));
    while let Some(last) = after {
        let page = Query::ListAccounts { after: Some(last), limit: Some(MAX_PAGE) };
        let page = client.query(page, ReadLevel::Linearizable).await;
        let Success::Accounts { accounts, next } =
            page.map_err(|e| Trouble(format!("the accounts can't be read back: {e}")))?.success
        else {
            return Err(Trouble("the node answered something else to a question for its accounts".into()));
        };
        after = next.filter(|_| accounts.iter().all(|account| account.account_id.starts_with(prefix)));
        balances.extend(accounts.into_iter().filter(|a| a.account_id.starts_with(prefix)).map(|a| a.balance));
    }
    Ok(balances)
}

/// What is wrong with the balances, if anything.
fn differences(balances: &[u64], ledger: &Ledger) -> Vec<String> {
    let mut found = Vec::new();
    let (sum, paid_in) = (balances.iter().sum::<u64>(), ledger.balances.len() as u64 * FIRST_BALANCE);
    if balances.len() != ledger.balances.len() {
        found.push(format!("{} accounts were opened, {} are there", ledger.balances.len(), balances.len()));
    }
    if sum != paid_in {
        found.push(format!("{paid_in} were paid in, {sum} are there"));
    }
    if ledger.unknown_requests == 0 {
        let wrong = balances.iter().zip(&ledger.balances).filter(|(there, expected)| **there as i64 != **expected);
        match wrong.count() {
            0 => {}
            count => found.push(format!("{count} balances are not what the answers add up to")),
        }
    }
    found
}

fn results(measured: &Measure, took: Duration, forfeited_share: Option<f64>, books_balance: bool) -> Results {
    let ms = |us: u64| us as f64 / 1_000.0;
    let quantile = |q: f64| ms(measured.latency_us.value_at_quantile(q));
    Results {
        acknowledged: measured.acknowledged,
        refused: measured.refused,
        unknown: measured.unknown,
        not_reached: measured.not_reached,
        per_second: (measured.acknowledged as f64 / took.as_secs_f64() * 10.0).round() / 10.0,
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        max_ms: ms(measured.latency_us.max()),
        forfeited_share,
        longest_gap_ms: ms(measured.longest_gap.as_micros() as u64),
        books_balance,
    }
}

fn print_table(results: &Results) -> std::io::Result<()> {
    let share = results.forfeited_share.map_or("not known".to_owned(), |share| format!("{:.2} %", 100.0 * share));
    let books = if results.books_balance { style("balance").green() } else { style("DO NOT BALANCE").red().bold() };
    let rate = style(format!("{} transfers/s", terminal::grouped(results.per_second as u64))).bold();
    terminal::print(rate)?;
    let counts = [
        ("acknowledged", results.acknowledged),
        ("refused", results.refused),
        ("unknown", results.unknown),
        ("not reached", results.not_reached),
    ];
    for (name, count) in counts {
        terminal::print(format_args!("  {name:<16} {:>12}", terminal::grouped(count)))?;
    }
    let times = [
        ("latency p50", results.p50_ms),
        ("p90", results.p90_ms),
        ("p99", results.p99_ms),
        ("p99.9", results.p999_ms),
        ("max", results.max_ms),
        ("longest gap", results.longest_gap_ms),
    ];
    for (name, ms) in times {
        terminal::print(format_args!("  {name:<16} {ms:>12.2} ms"))?;
    }
    terminal::print(format_args!("  {:<16} {share:>12}", "forfeited slots"))?;
    terminal::print(format_args!("  the books {books}"))
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::codec::Encoding;

    use super::*;

    fn ledger(balances: &[i64]) -> Ledger {
        Ledger { balances: balances.to_vec(), unknown_requests: 0, measure: None, applied: 0 }
    }

    #[test]
    fn lost_and_misplaced_money_is_found() {
        let mut ledger = ledger(&[1_000_001, 999_999]);
        assert!(differences(&[1_000_001, 999_999], &ledger).is_empty());
        assert_eq!(differences(&[1_000_001, 999_998], &ledger).len(), 2);
        assert_eq!(differences(&[1_000_000, 1_000_000], &ledger).len(), 1);
        assert_eq!(differences(&[2_000_000], &ledger).len(), 2);
        ledger.unknown_requests = 1;
        assert!(differences(&[1_000_000, 1_000_000], &ledger).is_empty());
        assert_eq!(differences(&[1_000_000, 999_999], &ledger).len(), 1);
    }

    #[test]
    fn the_results_of_a_bulk_are_counted_without_what_is_in_them() {
        let text = r#"{"results": [{"ok": {"transaction": {"amount": 1}}}, {"error": {"code": "same_account"}}]}"#;
        #[derive(Deserialize)]
        struct Outcomes {
            results: Items,
        }
        assert_eq!(serde_json::from_str::<Outcomes>(text).unwrap().results.0, [true, false]);
        let bytes = Encoding::MessagePack.encode(&serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(rmp_serde::from_slice::<Outcomes>(&bytes).unwrap().results.0, [true, false]);
    }

    #[test]
    fn transfers_never_stay_in_one_account() {
        for _ in 0..1_000 {
            let Transfer { from, to, amount } = Transfer::random(2);
            assert!(from < 2 && to < 2 && from != to && (1..=LARGEST_TRANSFER).contains(&amount));
        }
    }

    #[test]
    fn clients_are_spread_over_the_nodes() {
        let urls = NodeUrl::list("a:1,b:2,c:3").unwrap();
        let first = |client| urls_of(&urls, client, false)[0].to_string();
        assert_eq!([first(0), first(1), first(5)], ["ws://a:1", "ws://b:2", "ws://c:3"]);
        assert_eq!(urls_of(&urls, 4, true).len(), 1);
    }

    #[test]
    fn the_share_of_forfeited_slots_is_that_of_the_time_measured() {
        assert_eq!(forfeited_share(Some((100, 50)), Some((190, 60))), Some(0.1));
        assert_eq!(forfeited_share(Some((100, 50)), Some((100, 50))), Some(0.0));
        assert_eq!(forfeited_share(Some((100, 50)), Some((1, 1))), None);
        assert_eq!(forfeited_share(None, Some((1, 1))), None);
    }
}
