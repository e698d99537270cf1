//! `rabia-bank bench`: load on a cluster, what it does under it, and a check of the books afterwards.
//!
//! Every client is a connection and a session. What it sends is told in module `load`; what the answers say is kept in
//! module `books`, and a run whose books do not balance afterwards fails. The nodes' own figures (forfeited slots, syncs,
//! processor time, where a request's time goes) come from their states before and after the run: module `nodes`.
//!
//! All of it runs on one thread: the nodes need the other cores.

mod books;
mod load;
mod nodes;
mod plot;
mod probe;
mod report;
mod scratch;
mod suite;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rabia_bank_messages::bank::{AccountId, Query, ReadLevel, Success};
use rabia_bank_messages::ids::MAX_NODES;
use tokio::task::LocalSet;

use self::books::{Books, Measure};
use self::load::Load;
use self::report::Results;
use super::tls::Trust;
use super::{ClientToken, EXIT_CODES, Exit, ProgramError, runtime, terminal};
use crate::client::{Client, NodeUrl};
use crate::random;

/// How often the progress line changes.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "
Examples:
  rabia-bank bench                                 one transfer in flight for each of 64 clients
  rabia-bank bench --clients 1 --probe .           the latency of an idle cluster, and of the disk under it
  rabia-bank bench --clients 4 --bulk 8000         the most transfers
  rabia-bank bench --clients 3 --in-flight 1000    one connection a node, many users behind it
  rabia-bank bench --rate 5000 --plot latency.svg  so many a second, whether or not the cluster keeps up
  rabia-bank bench --reads 90 --read local         mostly balances
  rabia-bank bench --hot 10                        four of five transfers touch ten accounts
  rabia-bank bench --suite --duration 4 --probe .  everything that has a mark, five times each";

/// The command line of `bench`.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("\
Without --connect it makes a cluster of its own in a folder that it removes at the end. With --connect its accounts and
transfers stay in that bank for ever, so it asks for --yes where the bank is not empty. A node that dies meanwhile does not
end the run: its clients go on at the other nodes, unless --pin says that they stay.

{EXIT_CODES}
{EXAMPLES}"))]
pub struct Args {
    /// Put the load on these nodes instead of a cluster of its own.
    #[arg(long, value_name = "URL,URL…", value_delimiter = ',', conflicts_with_all = ["nodes", "dir"])]
    connect: Option<Vec<NodeUrl>>,
    #[command(flatten)]
    token: ClientToken,
    #[command(flatten)]
    trust: Trust,
    /// Write into the bank that --connect names although it is not empty: what is written stays for ever.
    #[arg(long, requires = "connect")]
    yes: bool,
    /// How many nodes the cluster of its own has.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=MAX_NODES as i64))]
    nodes: u8,
    /// Where that cluster's folder is made: its disk is what is measured.
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    load: Load,
    /// Measure this folder's disk and a bare WebSocket echo too, right before, to compare with.
    #[arg(long, value_name = "DIR")]
    probe: Option<PathBuf>,
    /// Draw the latencies into this SVG file.
    #[arg(long, value_name = "FILE", conflicts_with = "suite")]
    plot: Option<PathBuf>,
    /// Run the loads that have a mark instead, and say which marks are met.
    #[arg(long, conflicts_with_all = ["clients", "bulk", "in_flight", "rate", "reads", "hot"])]
    suite: bool,
    /// How often each load of the suite runs.
    #[arg(long, default_value_t = 5, value_name = "N", requires = "suite", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    runs: u64,
    /// Print JSON instead of a table: one object, or with --suite one for each load.
    #[arg(long)]
    json: bool,
}

/// The cluster, or this machine, did not do what a benchmark needs.
struct Trouble(String);

/// Runs the benchmark and prints what it found.
///
/// # Errors
/// If nothing could be printed or drawn.
pub fn run(mut args: Args) -> Result<Exit, ProgramError> {
    if let Some(urls) = &args.connect {
        args.load.token = args.token.find(&args.trust)?;
        args.load.tls = args.trust.tls(urls)?;
    }
    let runtime = runtime()?;
    let found = LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            found = on_a_cluster(&mut args) => found,
            // A cluster of its own goes with this.
            interrupted = tokio::signal::ctrl_c() => Ok(Err(match interrupted {
                Ok(()) => ProgramError::Other("interrupted".into()),
                Err(error) => error.into(),
            })),
        }
    });
    found.unwrap_or_else(|Trouble(why)| Err(ProgramError::Ended { exit: Exit::NotReached, why }))
}

/// Runs on the nodes of the command line, or on a cluster of its own.
async fn on_a_cluster(args: &mut Args) -> Result<Result<Exit, ProgramError>, Trouble> {
    let (urls, scratch) = match &args.connect {
        Some(urls) => (urls.clone(), None),
        None => {
            let scratch = match scratch::start(&args.dir, args.nodes.into()).await {
                Ok(scratch) => scratch,
                Err(error) => return Ok(Err(error)),
            };
            args.load.token = scratch.token.clone();
            (scratch.urls.clone(), Some(scratch))
        }
    };
    if args.connect.is_some() && !args.yes && !is_empty(&urls, &args.load).await? {
        let text = "this bank is not empty, and what a benchmark writes stays in it for ever. Say --yes if that is meant, or leave \
                    --connect out: then it measures a cluster of its own";
        return Ok(Err(ProgramError::Usage(text.into())));
    }
    let found = if args.suite { suite::run(args, &urls).await } else { single(args, &urls).await };
    if let Some(scratch) = scratch {
        scratch.stop().await;
    }
    found
}

/// Whether there is no account.
async fn is_empty(urls: &[NodeUrl], load: &Load) -> Result<bool, Trouble> {
    let client = Client::connect(load.options(urls.to_vec()));
    let query = Query::ListAccounts { after: None, limit: Some(1), code: None };
    let answer = client.query(query, ReadLevel::Linearizable).await;
    client.close().await;
    match answer.map_err(|error| Trouble(error.to_string()))?.success {
        Success::Accounts { accounts, .. } => Ok(accounts.is_empty()),
        other => Err(Trouble(format!("asked for its accounts, the node answered {other:?}"))),
    }
}

async fn single(args: &Args, urls: &[NodeUrl]) -> Result<Result<Exit, ProgramError>, Trouble> {
    let probe = match &args.probe {
        Some(folder) => Some(probe::measure(folder, args.load.clients as usize).await?),
        None => None,
    };
    let (mut results, measured) = measure(urls, &args.load).await?;
    results.probe = probe;
    let report = || {
        if let Some(file) = &args.plot {
            plot::draw(file, &measured)?;
        }
        if args.json {
            terminal::print(report::json(&results)?)?;
        } else {
            report::print_table(&results)?;
        }
        Ok(if results.books_balance { Exit::Done } else { Exit::Damaged })
    };
    Ok(report())
}

/// Puts the nodes under this load, and says what came of it and what the clients measured.
async fn measure(urls: &[NodeUrl], load: &Load) -> Result<(Results, Measure), Trouble> {
    let keeper = Client::connect(load.options(urls.to_vec()));
    let prefix = format!("bench-{}-", hex_of(random::bytes()));
    let names: Rc<Vec<AccountId>> = Rc::new((0..load.accounts).map(|n| format!("{prefix}{n:07}").into()).collect());
    terminal::wait("opening accounts …", books::open_accounts(&keeper, &names)).await?;
    let books = Rc::new(RefCell::new(Books::new(names.len())));
    let start = Instant::now();
    let (begin, end) = (start + load.warm_up, start + load.warm_up + load.duration);
    let mut clients = load.start(urls, names, &books, end);
    let progress = tokio::task::spawn_local(show_progress(books.clone(), start, end));
    tokio::time::sleep_until(begin.into()).await;
    let before = nodes::ask(urls, load).await;
    let cpu_before = rabia_bank_actors::process::used().cpu_ms;
    let began = Instant::now();
    books.borrow_mut().measure = Some(Measure::new(began)?);
    tokio::time::sleep_until(end.into()).await;
    let measured = books.borrow_mut().measure.take();
    let took = began.elapsed();
    let cpu_ms = rabia_bank_actors::process::used().cpu_ms - cpu_before;
    let figures = nodes::ask(urls, load).await.since(&before, took.as_secs_f64());
    while let Some(ended) = clients.join_next().await {
        ended.map_err(|e| Trouble(format!("a client failed: {e}")))?;
    }
    let _ = progress.await;
    let balances = terminal::wait("reading the accounts back …", books::read_balances(&keeper, &prefix)).await?;
    keeper.close().await;
    let Some(mut measured) = measured else { return Err(Trouble("the run was not measured".into())) };
    measured.note_acknowledgement(began + took);
    let differences = books.borrow().differences(&balances);
    for difference in &differences {
        eprintln!("error: {difference}");
    }
    let own_cores = cpu_ms as f64 / 1_000.0 / took.as_secs_f64();
    let results = Results::new(&measured, took, figures, own_cores, differences.is_empty());
    Ok((results, measured))
}

fn hex_of(bytes: [u8; 16]) -> String {
    bytes[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn show_progress(books: Rc<RefCell<Books>>, start: Instant, end: Instant) {
    let bar = terminal::bar(end - start);
    let mut last = (start, 0);
    while Instant::now() < end && !bar.is_hidden() {
        tokio::time::sleep(PROGRESS_EVERY).await;
        let (now, done) = (Instant::now(), books.borrow().done);
        let rate = (done - last.1) as f64 / (now - last.0).as_secs_f64();
        last = (now, done);
        bar.set_position((now - start).as_millis() as u64);
        let phase = if books.borrow().measure.is_some() { "" } else { " (warming up)" };
        bar.set_message(format!("{}/s{phase}", terminal::grouped(rate as u64)));
    }
    bar.finish_and_clear();
}
