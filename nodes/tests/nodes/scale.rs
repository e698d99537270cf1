//! What a node costs when the bank is large and old, and how long one takes that was away: with the real program, and its
//! figures printed. Start, disk and memory must depend on accounts and a bounded tail, never on how long the cluster has lived.
//!
//! The default run is small and checks that everything is right. The full one measures, alone on the machine and in a release
//! build, and fails where a figure misses its mark:
//!
//! - `cargo test --release --workspace --test nodes -- --ignored scale::million_accounts --nocapture`
//!   (`RABIA_BANK_ACCOUNTS=N`, `RABIA_BANK_TRANSACTIONS=N`)
//! - `cargo test --release --workspace --test nodes -- --ignored scale::was_away --nocapture` (`RABIA_BANK_MISSED=N`)
//! - `cargo test --release --workspace --test nodes -- --ignored scale::was_wiped --nocapture` (the same)
//!
//! The figures are in nodes/PERFORMANCE.md.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::books::block_on;
use crate::support::bulks::{Bulks, LONG, OPENING, account, clients, opening, transfer};
use crate::support::{Cluster, Node, audited, from_environment, program, resident_memory, wait_until};
use rabia_bank::client::{Client, ClientOptions, NodeUrl};
use rabia_bank_messages::bank::{Command, Query, ReadLevel};

/// What must hold in a full run.
const START: Duration = Duration::from_secs(5);
const MEMORY_PER_ACCOUNT: u64 = 1 << 10;
const MEMORY_BASE: u64 = 256 << 20;
const DISK_PER_TRANSACTION: f64 = 250.0;
const STALL: Duration = Duration::from_millis(100);
const VERIFIED_PER_SECOND: f64 = 500_000.0;
const BACK: Duration = Duration::from_secs(20);
const WIPED_BACK: Duration = Duration::from_secs(60);

/// How often a start is measured.
const STARTS: usize = 3;

fn url(node: &Node) -> NodeUrl {
    node.url().parse().unwrap()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// What the files of a node take on disk (files have holes), and how long they are.
fn disk(node: &Node) -> [(u64, u64); 2] {
    [node.config.log_path(), node.config.books_path()].map(|path| {
        let metadata = fs::metadata(path).unwrap();
        (512 * metadata.blocks(), metadata.len())
    })
}

fn print_disk(node: &Node, transactions: u64) -> f64 {
    let [log, books] = disk(node);
    let per_transaction = (log.0 + books.0) as f64 / transactions as f64;
    println!(
        "disk of a node: log {:.0} MiB (file {:.0}), books {:.0} MiB (file {:.0}); {per_transaction:.0} bytes a transaction, {:.0} of them books",
        mib(log.0),
        mib(log.1),
        mib(books.0),
        mib(books.1),
        books.0 as f64 / transactions as f64
    );
    per_transaction
}

/// Starts a node, and waits until a linearizable question to it is answered. Needs a majority.
fn start_to_serving(nodes: &mut [Node]) -> Vec<Duration> {
    let began = Instant::now();
    nodes.iter_mut().for_each(Node::start);
    let asking: Vec<JoinHandle<Duration>> = nodes
        .iter()
        .map(|node| {
            let options = ClientOptions { timeout: LONG, ..crate::support::options(vec![url(node)]) };
            std::thread::spawn(move || {
                block_on(async {
                    let client = Client::connect(options);
                    let account_id = account(0);
                    client.query(Query::GetBalance { account_id }, ReadLevel::Linearizable).await.unwrap();
                    let took = began.elapsed();
                    client.close().await;
                    took
                })
            })
        })
        .collect();
    asking.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Sends single transfers to one node, one after the other; tells the longest time between two acknowledgements, and how many.
fn one_by_one(url: NodeUrl, accounts: u64, stop: &Arc<AtomicBool>) -> JoinHandle<(Duration, u64)> {
    let stop = stop.clone();
    std::thread::spawn(move || {
        block_on(async {
            let client = Client::connect(ClientOptions { timeout: LONG, ..crate::support::options(vec![url]) });
            let transfer = transfer(accounts);
            let (mut last, mut longest, mut count) = (None::<Instant>, Duration::ZERO, 0);
            while !stop.load(Ordering::Relaxed) {
                client.command(Command::One(transfer(count))).await.unwrap();
                let now = Instant::now();
                longest = longest.max(last.replace(now).map_or(Duration::ZERO, |last| now - last));
                count += 1;
            }
            client.close().await;
            (longest, count)
        })
    })
}

fn snapshots_of(node: &Node) -> usize {
    node.log().matches("a snapshot is durable").count()
}

/// The longest time that clients wait while every node takes so many snapshots, each of all accounts: with a steady load beside
/// them.
fn stall_while_snapshots_are_taken(cluster: &Cluster, accounts: u64, snapshots: usize) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let bulks = Bulks { clients: clients(&cluster.nodes), size: 500, pace: Duration::from_millis(150) };
    let load = bulks.send(u64::MAX, &stop, &Arc::default(), transfer(accounts));
    let pingers: Vec<_> = cluster.nodes.iter().map(|node| one_by_one(url(node), accounts, &stop)).collect();
    let before: Vec<usize> = cluster.nodes.iter().map(snapshots_of).collect();
    let began = Instant::now();
    wait_until("snapshots are taken", LONG, || {
        cluster.nodes.iter().zip(&before).all(|(node, before)| snapshots_of(node) >= before + snapshots)
    });
    stop.store(true, Ordering::Relaxed);
    let waited: Vec<(Duration, u64)> = pingers.into_iter().map(|pinger| pinger.join().unwrap()).collect();
    load.join().unwrap();
    println!(
        "longest wait for an acknowledgement while {snapshots} snapshots were taken, by node: {:?}; {:?} transfers in {:?}",
        waited.iter().map(|(longest, _)| longest).collect::<Vec<_>>(),
        waited.iter().map(|(_, count)| count).collect::<Vec<_>>(),
        began.elapsed()
    );
    waited.into_iter().map(|(longest, _)| longest).max().unwrap()
}

/// What a run of [`grow`] found.
struct Grown {
    started: Duration,
    memory: u64,
    disk_per_transaction: f64,
    stall: Duration,
    verified_per_second: f64,
}

/// A cluster with so many accounts, and transfers between them; `snapshot_bytes` for the part with snapshots under load.
fn grow(accounts: u64, transactions: u64, snapshot_bytes: u64) -> Grown {
    let mut cluster = Cluster::start(3);
    let fill = Bulks { clients: clients(&cluster.nodes), size: 5_000, pace: Duration::ZERO };
    let began = Instant::now();
    fill.send_all(accounts, opening);
    println!("{accounts} accounts were opened in {:?}", began.elapsed());
    let memory_of =
        |cluster: &Cluster| -> Vec<u64> { cluster.nodes.iter().map(|node| resident_memory(node.pid())).collect() };
    let mut memory = 0;
    for part in 1..=5 {
        let began = Instant::now();
        fill.send_all(transactions / 5, transfer(accounts));
        let now = memory_of(&cluster);
        memory = memory.max(now.iter().copied().max().unwrap());
        let [log, books] = disk(&cluster.nodes[0]);
        println!(
            "{} transfers, {:.0}/s; memory of the nodes {:.0?} MiB; log {:.0} MiB, books {:.0} MiB",
            part * transactions / 5,
            (transactions / 5) as f64 / began.elapsed().as_secs_f64(),
            now.iter().map(|bytes| mib(*bytes)).collect::<Vec<_>>(),
            mib(log.0),
            mib(books.0),
        );
    }
    let disk_per_transaction = print_disk(&cluster.nodes[0], accounts + transactions);
    let states = cluster.wait_equal();
    assert_eq!(states[0]["total_balance"], accounts * OPENING);
    assert_eq!(states[0]["transactions"], accounts + transactions);

    let mut started = Duration::ZERO;
    for _ in 0..STARTS {
        cluster.nodes[2].kill();
        let one = start_to_serving(&mut cluster.nodes[2..])[0];
        println!("one node after kill -9, the others idle: serves after {one:?}");
        cluster.wait_ready();
        cluster.nodes.iter_mut().for_each(Node::kill);
        for node in &mut cluster.nodes {
            node.config.limits.snapshot_bytes = snapshot_bytes;
            fs::write(&node.config_path, node.config.to_toml()).unwrap();
        }
        let all = start_to_serving(&mut cluster.nodes);
        println!("all nodes after kill -9, at once: serve after {all:?}");
        cluster.wait_ready();
        started = all.into_iter().chain([one, started]).max().unwrap();
    }
    println!("memory after the start: {:.0?} MiB", memory_of(&cluster).into_iter().map(mib).collect::<Vec<_>>());

    let stall = stall_while_snapshots_are_taken(&cluster, accounts, 5);
    let states = cluster.wait_equal();
    let now = memory_of(&cluster);
    memory = memory.max(now.iter().copied().max().unwrap());
    print_disk(&cluster.nodes[0], states[0]["transactions"].as_u64().unwrap());
    cluster.nodes.iter_mut().for_each(Node::kill);
    let verified = audited(&cluster.nodes[0]);
    println!(
        "audit verify: {} transactions in {} s, {} a second without opening",
        verified["transactions"], verified["seconds"], verified["per_second"]
    );
    assert_eq!(verified["total_balance"], accounts * OPENING);
    if verified["slot"] == states[0]["applied_slot"] {
        assert_eq!(verified["state_digest"], states[0]["state_digest"]);
    }
    Grown {
        started,
        memory,
        disk_per_transaction,
        stall,
        verified_per_second: verified["per_second"].as_f64().unwrap(),
    }
}

#[test]
fn a_large_bank_is_right_after_everything_that_is_measured() {
    grow(2_000, 20_000, 100_000);
}

#[test]
#[ignore = "measures: to be run alone, in a release build"]
fn a_million_accounts_and_five_million_transactions() {
    let accounts = from_environment("RABIA_BANK_ACCOUNTS", 1_000_000);
    let transactions = from_environment("RABIA_BANK_TRANSACTIONS", 5_000_000);
    let grown = grow(accounts, transactions, 4 << 20);
    assert!(grown.started <= START, "a node took {:?} to serve", grown.started);
    let allowed = accounts * MEMORY_PER_ACCOUNT + MEMORY_BASE;
    assert!(grown.memory <= allowed, "{:.0} MiB of memory, {:.0} are allowed", mib(grown.memory), mib(allowed));
    let disk = grown.disk_per_transaction;
    assert!(disk <= DISK_PER_TRANSACTION, "{disk} bytes a transaction");
    assert!(grown.stall <= STALL, "clients waited {:?} while snapshots were taken", grown.stall);
    let verified = grown.verified_per_second;
    assert!(verified >= VERIFIED_PER_SECOND, "{verified} transactions a second were verified");
}

/// A node that was away.
struct Back {
    took: Duration,
    by_snapshot: bool,
    /// Transfers a second of the others' clients: before it came, and meanwhile.
    before: f64,
    meanwhile: f64,
}

fn applied_slot(node: &Node) -> Option<u64> {
    node.status().map(|status| status["applied_slot"].as_u64().unwrap())
}

/// Measures transfers a second over some time.
fn rate(applied: &AtomicU64, during: impl FnOnce()) -> f64 {
    let (began, before) = (Instant::now(), applied.load(Ordering::Relaxed));
    during();
    (applied.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64()
}

/// What becomes of the node that is away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is started again.
    Returns,
    /// It has lost its data, and is given a new store first.
    IsReplaced,
}

fn replace(node: &Node) {
    let output = program(["replace", "--config"]).arg(&node.config_path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// One node is away for so many transfers and comes back while clients of the other two go on.
fn away(accounts: u64, missed: u64, snapshot_bytes: u64, settle: Duration, fate: Fate) -> Back {
    let mut cluster = Cluster::start_with(3, |config| config.limits.snapshot_bytes = snapshot_bytes);
    let fill = |nodes: &[Node]| Bulks { clients: clients(nodes), size: 2_000, pace: Duration::ZERO };
    fill(&cluster.nodes).send_all(accounts, opening);
    cluster.wait_equal();
    cluster.nodes[2].kill();
    fill(&cluster.nodes[..2]).send_all(missed, transfer(accounts));
    println!("the node was away for {missed} transactions; the others' snapshots are at {} bytes", snapshot_bytes);
    if fate == Fate::IsReplaced {
        cluster.nodes[2].wipe();
    }

    let (stop, applied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let two = clients(&cluster.nodes[..2]);
    let bulks = Bulks { clients: [two.clone(), two].concat(), size: 100, pace: Duration::ZERO };
    let load = bulks.send(u64::MAX, &stop, &applied, transfer(accounts));
    let before = rate(&applied, || std::thread::sleep(settle));
    let began = Instant::now();
    let meanwhile = rate(&applied, || {
        if fate == Fate::IsReplaced {
            replace(&cluster.nodes[2]);
        }
        cluster.nodes[2].start();
        wait_until("the node is back", LONG, || {
            let goal = applied_slot(&cluster.nodes[0]);
            goal.is_some() && applied_slot(&cluster.nodes[2]) >= goal
        });
    });
    let took = began.elapsed();
    let after = rate(&applied, || std::thread::sleep(settle));
    stop.store(true, Ordering::Relaxed);
    load.join().unwrap();
    let by_snapshot = cluster.nodes[2].log().contains("a snapshot was received and is durable");
    let how = if by_snapshot { "a snapshot" } else { "the log" };
    println!(
        "it is back after {took:?}, by {how}; transfers a second: {before:.0} before, {meanwhile:.0} meanwhile, {after:.0} after"
    );
    cluster.wait_ready();
    cluster.wait_equal();
    cluster.nodes.iter_mut().for_each(Node::kill);
    for node in &cluster.nodes {
        audited(node);
    }
    Back { took, by_snapshot, before, meanwhile }
}

#[test]
fn a_node_that_missed_much_is_back_and_right() {
    // By the log where that still goes back so far, else by a snapshot: what is right then is checked inside.
    away(500, 20_000, 100_000, Duration::from_millis(500), Fate::Returns);
}

#[test]
fn a_wiped_node_that_is_replaced_is_back_and_right() {
    let Back { by_snapshot, .. } = away(500, 20_000, 100_000, Duration::from_millis(500), Fate::IsReplaced);
    assert!(by_snapshot, "nobody else has its slots");
}

/// By the log where it goes back so far, and by a snapshot where it does not.
#[test]
#[ignore = "measures: to be run alone, in a release build"]
fn a_node_that_was_away_is_back() {
    let missed = from_environment("RABIA_BANK_MISSED", 1_000_000);
    for snapshot_bytes in [256 << 20, 8 << 20] {
        let Back { took, by_snapshot, before, meanwhile } =
            away(100_000, missed, snapshot_bytes, Duration::from_secs(5), Fate::Returns);
        assert_eq!(by_snapshot, snapshot_bytes == 8 << 20);
        assert!(took <= BACK, "it took {took:?}");
        assert!(meanwhile >= before / 2.0, "{meanwhile:.0} transfers a second, {before:.0} before");
    }
}

#[test]
#[ignore = "measures: to be run alone, in a release build"]
fn a_node_that_was_wiped_is_back() {
    let missed = from_environment("RABIA_BANK_MISSED", 1_000_000);
    let Back { took, by_snapshot, before, meanwhile } =
        away(100_000, missed, 8 << 20, Duration::from_secs(5), Fate::IsReplaced);
    assert!(by_snapshot);
    assert!(took <= WIPED_BACK, "it took {took:?}");
    assert!(meanwhile >= before / 2.0, "{meanwhile:.0} transfers a second, {before:.0} before");
}
