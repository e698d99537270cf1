//! Nobody's work keeps another's waiting: honest clients beside some that ask the dearest questions without pause, and beside some that
//! send more commands than a node can apply, all of one principal; and those of a principal beside another that attacks in every way
//! ([`attacks`], [`shares`]). The others run with the lowest priority (`nice` 19), since they share the machine's
//! processors with the nodes: what is left is the work that they give to the nodes.
//!
//! A binary of its own, in which one test runs at a time: it looks at how long somebody waits.
//!
//! The suite has small cases, which see whether somebody starves. The marks are measured alone, in a release build:
//!
//! ```text
//! cargo test --release --workspace --test fairness -- --ignored dearest_questions --nocapture
//! cargo test --release --workspace --test fairness -- --ignored floods --nocapture
//! cargo test --release --workspace --test fairness -- --ignored shares::attacks --nocapture
//! ```
//!
//! `RABIA_BANK_ACCOUNTS` and `RABIA_BANK_TRANSACTIONS` make the first one smaller (1,000,000 and 5,000,000) and the last one (100,000
//! and 500,000), `RABIA_BANK_SECONDS` all shorter or longer (20).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // clippy knows only functions marked as tests, not what they share

mod attacks;
mod shares;
#[path = "../nodes/support/mod.rs"]
mod support;

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use rabia_bank_messages::bank::{Amount, Operation};
use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};
use support::bulks::{Bulks, account, clients};
use support::{Cluster, Connection, PATIENCE, from_environment, status_of, wait_until};
use tokio_tungstenite::tungstenite::Error as SocketError;

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // A test that failed must not take the others along.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The account whose history is asked for.
const HOT: u64 = 0;
/// What every account begins with.
const OPENING: u64 = 1_000;

/// Clients that give a node more work than it can do, until they are told to stop.
struct Crowd {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Each of these connections keeps so many requests in flight.
    fn gather(
        addresses: impl IntoIterator<Item = SocketAddr>,
        in_flight: u64,
        request: impl Fn(u64) -> Value + Send + Clone + 'static,
    ) -> Crowd {
        let mut crowd = Crowd { stop: Arc::default(), answers: Arc::default(), threads: Vec::new() };
        for address in addresses {
            let (stop, answers, request) = (crowd.stop.clone(), crowd.answers.clone(), request.clone());
            crowd.threads.push(std::thread::spawn(move || ask_on(address, in_flight, &request, &stop, &answers)));
        }
        crowd
    }

    /// The connections are closed, whatever is in flight. Says how many answers came.
    fn disperse(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.answers.load(Ordering::Relaxed)
    }
}

/// Asks on one connection after the other: a node closes those that ask for more than it may hold for them.
fn ask_on(
    address: SocketAddr,
    in_flight: u64,
    request: &impl Fn(u64) -> Value,
    stop: &AtomicBool,
    answers: &AtomicU64,
) {
    // Of this thread alone.
    rustix::process::setpriority_process(None, 19).unwrap();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut connection) = Connection::try_open(address, Encoding::MessagePack, &[]) {
            connection.set_patience(Duration::from_millis(100));
            ask_until_closed(&mut connection, in_flight, request, stop, answers);
        }
    }
}

fn ask_until_closed(
    connection: &mut Connection,
    in_flight: u64,
    request: &impl Fn(u64) -> Value,
    stop: &AtomicBool,
    answers: &AtomicU64,
) {
    let mut waiting = 0;
    while !stop.load(Ordering::Relaxed) {
        while waiting < in_flight && !stop.load(Ordering::Relaxed) {
            let number = connection.number();
            let mut message = request(number);
            message["request"] = json!(number);
            if connection.try_send(&message).is_err() {
                return;
            }
            waiting += 1;
        }
        match connection.try_receive() {
            Ok(_) => {
                waiting -= 1;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            Err(SocketError::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// What an honest client saw, that sends one deposit after the other.
struct Seen {
    answers: usize,
    half: Duration,
    /// The longest wait, and how long after its start the client had to wait like that.
    longest: Duration,
    at: Duration,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { answers, half, longest, at } = self;
        write!(
            f,
            "{answers} answers, half of them within {half:.1?}, the slowest within {longest:.1?} (asked {at:.1?} after the start)"
        )
    }
}

/// An honest client of this node, for so long.
fn honest(address: SocketAddr, account_id: &str, time: Duration) -> Seen {
    let mut connection = Connection::open(address, Encoding::Json);
    let (began, mut took) = (Instant::now(), Vec::new());
    let mut longest = (Duration::ZERO, Duration::ZERO);
    while began.elapsed() < time {
        let asked = Instant::now();
        let answer = connection.command(json!({"deposit": {"account_id": account_id, "amount": 1}}));
        assert!(answer["ok"].is_object(), "{answer}");
        let waited = asked.elapsed();
        longest = longest.max((waited, asked - began));
        took.push(waited);
    }
    took.sort_unstable();
    let (longest, at) = longest;
    Seen { answers: took.len(), half: took[took.len() / 2], longest, at }
}

/// An honest client of each node, all at once.
fn honest_ones(cluster: &Cluster, time: Duration) -> Vec<Seen> {
    let nodes = (1..).zip(cluster.nodes.iter().map(crate::support::Node::address));
    let clients: Vec<JoinHandle<Seen>> =
        nodes.map(|(number, address)| std::thread::spawn(move || honest(address, &account(number), time))).collect();
    clients.into_iter().map(|client| client.join().unwrap()).collect()
}

/// A bank of accounts of equal balance, of which one has so many deposits. They are in blocks on disk but for the newest.
fn equal_accounts(accounts: u64, deposits: u64) -> Cluster {
    filled(Cluster::start_with(3, |config| config.limits.snapshot_bytes = 1 << 20), accounts, deposits)
}

/// The same in this cluster.
fn filled(cluster: Cluster, accounts: u64, deposits: u64) -> Cluster {
    let fill = Bulks { clients: clients(&cluster.nodes), size: 5_000, pace: Duration::ZERO };
    fill.send_all(accounts, |number| Operation::create_account(account(number), Amount::new(OPENING)));
    fill.send_all(deposits, |_| Operation::Deposit { account_id: account(HOT), amount: Amount::new(1) });
    cluster.wait_equal();
    cluster
}

/// The dearest questions that there are: one that reads all the history, one about all accounts, the longest pages, and one that
/// has to look for where its page begins.
fn dear_question(number: u64) -> Value {
    let hot = account(HOT);
    json!({"read": "local", "query": match number % 5 {
        0 | 1 => json!({"get_transaction_history": {"account_id": hot, "type": "withdrawal"}}),
        2 => json!({"get_statistics": {"large_amount": number % 7 + 1}}),
        3 => json!({"list_accounts": {"limit": 1_000}}),
        _ => json!({"get_transaction_history": {"account_id": hot, "before": 1_000 + number, "limit": 1_000}}),
    }})
}

/// The nodes' work for clients that have gone ends with them.
fn assert_rest(cluster: &Cluster) {
    let cpu = |address| status_of(address).and_then(|status| status["process"]["cpu_ms"].as_u64()).unwrap();
    sleep(Duration::from_millis(500));
    for node in &cluster.nodes {
        let before = cpu(node.address());
        sleep(Duration::from_millis(1_000));
        let used = cpu(node.address()) - before;
        assert!(used < 600, "{used} ms of processor time in a second, with nobody there");
    }
}

#[test]
fn dear_questions_cost_those_who_ask_them() {
    let _alone = alone();
    let cluster = equal_accounts(3_000, 100_000);
    let addresses = (0..10).map(|index| cluster.nodes[index % 3].address());
    let crowd = Crowd::gather(addresses, 50, dear_question);
    let seen = honest_ones(&cluster, Duration::from_secs(4));
    let answers = crowd.disperse();
    println!("{seen:?}, {answers} dear questions were answered");
    assert!(answers >= 10, "{answers} questions were answered: those who ask them starve");
    for seen in &seen {
        assert!(seen.answers >= 40 && seen.longest < Duration::from_secs(2), "{seen:?}");
    }
    assert_rest(&cluster);
}

/// A question that is still being answered when its client goes takes no work any more, and neither does one past its deadline.
#[test]
fn work_ends_with_its_client_and_its_deadline() {
    let _alone = alone();
    let cluster = Cluster::start_with(1, |config| config.limits.request_timeout_ms = 500);
    let fill = Bulks { clients: clients(&cluster.nodes), size: 5_000, pace: Duration::ZERO };
    fill.send_all(1, |number| Operation::create_account(account(number), Amount::new(OPENING)));
    fill.send_all(60_000, |_| Operation::Deposit { account_id: account(HOT), amount: Amount::new(1) });
    let address = cluster.nodes[0].address();
    let question = json!({"get_transaction_history": {"account_id": account(HOT), "type": "withdrawal"}});
    let ask_much = || {
        let mut connection = Connection::open(address, Encoding::Json);
        for _ in 0..2_000 {
            let request = connection.number();
            connection.send(&json!({"request": request, "query": question, "read": "local"}));
        }
        connection
    };
    // 2,000 × 60,000 records would take minutes.
    drop(ask_much());
    assert_rest(&cluster);
    let mut connection = ask_much();
    let began = Instant::now();
    let refused = (0..2_000).filter(|_| connection.receive()["error"].is_object()).count();
    assert!(refused > 0 && began.elapsed() < PATIENCE, "{refused} refused after {:?}", began.elapsed());
    assert_rest(&cluster);
}

#[test]
fn a_flood_of_commands_does_not_keep_a_single_one_waiting() {
    let _alone = alone();
    let cluster = equal_accounts(20, 0);
    let alone = honest_ones(&cluster, Duration::from_secs(1));
    let deposit = |_| json!({"command": {"deposit": {"account_id": account(9), "amount": 1}}});
    let crowd = Crowd::gather([cluster.nodes[0].address(); 6], 4_000, deposit);
    sleep(Duration::from_millis(300));
    let beside = honest_ones(&cluster, Duration::from_secs(3));
    let answers = crowd.disperse();
    println!("alone {alone:?}, beside {beside:?}, {answers} answers to the others");
    assert!(answers > 5_000, "{answers}");
    for seen in &beside {
        assert!(seen.half < Duration::from_millis(250) && seen.longest < Duration::from_secs(3), "{seen:?}");
    }
}

fn bulk(number: u64) -> Value {
    let deposit = json!({"deposit": {"account_id": account(10 + number % 5), "amount": 1}});
    json!({"command": {"bulk": {"atomic": false, "commands": vec![deposit; 10_000]}}})
}

#[test]
fn bulks_do_not_keep_a_single_command_waiting() {
    let _alone = alone();
    let cluster = equal_accounts(20, 0);
    let crowd = Crowd::gather([cluster.nodes[0].address(); 6], 30, bulk);
    sleep(Duration::from_millis(300));
    let beside = honest_ones(&cluster, Duration::from_secs(6));
    let answers = crowd.disperse();
    println!("beside {beside:?}, {answers} answers to the others");
    for seen in &beside {
        assert!(seen.answers >= 4 && seen.longest < Duration::from_secs(5), "{seen:?}");
    }
}

/// A subscription to what can't come yet waits. Other subscriptions hear what is new meanwhile.
#[test]
fn a_subscription_from_the_end_of_all_numbers_waits() {
    let _alone = alone();
    let cluster = equal_accounts(3, 0);
    let address = cluster.nodes[0].address();
    let mut late = Connection::open(address, Encoding::Json);
    for (request, from) in [(1, u64::MAX), (2, u64::MAX - 1), (3, 1 << 53), (4, 1_000_000)] {
        let answer = late.ask(&json!({"request": request, "subscribe": {"from": from}}));
        assert_eq!((&answer["request"], &answer["ok"]["from"]), (&json!(request), &json!(from)), "{answer}");
    }
    let mut reader = Connection::open(address, Encoding::Json);
    assert!(reader.ask(&json!({"request": 1, "subscribe": {}}))["ok"].is_object());
    let mut writer = Connection::open(address, Encoding::Json);
    for _ in 0..3 {
        writer.command(json!({"deposit": {"account_id": account(1), "amount": 1}}));
        assert_eq!(reader.receive()["transaction"]["to_account"], *account(1));
    }
    assert_rest(&cluster);
    late.set_patience(Duration::from_millis(200));
    let came = late.try_receive();
    assert!(came.is_err(), "{came:?}");
}

fn seconds() -> Duration {
    Duration::from_secs(from_environment("RABIA_BANK_SECONDS", 20))
}

/// The mark: honest clients wait 50 ms at most for an acknowledgement, beside ten connections that ask the dearest questions.
#[test]
#[ignore = "measures: to be run alone, in a release build"]
fn dearest_questions() {
    let _alone = alone();
    const MARK: Duration = Duration::from_millis(50);
    let accounts = from_environment("RABIA_BANK_ACCOUNTS", 1_000_000);
    let deposits = from_environment("RABIA_BANK_TRANSACTIONS", 5_000_000);
    let cluster = equal_accounts(accounts, deposits);
    println!("alone: {:?}", honest_ones(&cluster, seconds()));
    let mut longest = Duration::ZERO;
    for (what, nodes) in [("ten at one node", 1), ("ten over three nodes", 3)] {
        let addresses = (0..10).map(|index| cluster.nodes[index % nodes].address());
        let crowd = Crowd::gather(addresses, 50, dear_question);
        sleep(Duration::from_secs(1));
        // One at a time, so that honest clients do not wait for each other.
        for node in &cluster.nodes {
            let seen = honest(node.address(), &account(1), seconds() / 3);
            println!("{what}, honest client of node {}: {seen:?}", node.config.node);
            longest = longest.max(seen.longest);
        }
        println!("{what}: {} dear questions were answered", crowd.disperse());
    }
    assert!(longest <= MARK, "the longest wait was {longest:?}");
}

/// Six connections with 8,000 deposits in flight each, then six with 30 bulks of 10,000.
#[test]
#[ignore = "measures: to be run alone, in a release build"]
fn floods() {
    let _alone = alone();
    let cluster = equal_accounts(20, 0);
    println!("alone: {:?}", honest_ones(&cluster, seconds() / 4));
    let deposit = |_| json!({"command": {"deposit": {"account_id": account(9), "amount": 1}}});
    let floods = [("8,000 deposits", 8_000, deposit as fn(u64) -> Value), ("30 bulks of 10,000", 30, bulk)];
    for (what, in_flight, request) in floods {
        let crowd = Crowd::gather([cluster.nodes[0].address(); 6], in_flight, request);
        sleep(Duration::from_secs(2));
        for node in &cluster.nodes {
            let seen = honest(node.address(), &account(1), seconds() / 4);
            println!("6 × {what} in flight, honest client of node {}: {seen:?}", node.config.node);
        }
        println!("6 × {what} in flight: {} answers to these", crowd.disperse());
        wait_until("the nodes have done what was left", PATIENCE, || {
            cluster.nodes.iter().all(|node| node.status().is_some_and(|status| status["open_slots"] == 0))
        });
    }
}
