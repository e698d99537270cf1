//! Nodes that die in the middle of a snapshot, and files with flipped bits, with the real program: a node comes back with the
//! right state, or refuses and says why; it never answers or votes wrongly.
//!
//! The default run is short. The full ones:
//!
//! - Fifty kills at random moments of taking, sending and receiving snapshots:
//!   `cargo test --release --workspace --test nodes -- --ignored recovery::fifty_moments --nocapture` (`RABIA_BANK_KILLS=N`)
//! - A hundred bits, one at a time, at random places of a stopped node's files:
//!   `cargo test --release --workspace --test nodes -- --ignored recovery::a_hundred_bits --nocapture` (`RABIA_BANK_FLIPS=N`)
//! - Four hundred bits of a lone node's books:
//!   `cargo test --release --workspace --test nodes -- --ignored recovery::four_hundred --nocapture` (`RABIA_BANK_FLIPS=N`)

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::books::block_on;
use crate::support::bulks::{Bulks, LONG, OPENING, account, clients, opening, transfer};
use crate::support::{Cluster, Node, PATIENCE, audited, from_environment, program, wait_for, wait_until};
use rabia_bank::client::{BankCalls, Client, ClientOptions, NodeUrl};
use rabia_bank::config::{BOOKS_FILE, LOG_FILE, NodeConfig};
use rabia_bank_messages::bank::{Account, HistoryFilter, MAX_PAGE, Query, ReadLevel, Success, Transaction};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::promise::{Commit, Identity};
use rabia_bank_storage::LogStore;
use serde_json::json;

/// The exit code of a node, or an audit, that has found damage.
const DAMAGED: i32 = 7;
/// The exit code of a node that needs a person.
const NEEDS_A_PERSON: i32 = 3;

fn applied_slot(node: &Node) -> Option<u64> {
    node.status().map(|status| status["applied_slot"].as_u64().unwrap())
}

fn wait_until_caught_up(node: &Node, with: &Node) {
    let goal = wait_for("the other node answers", PATIENCE, || applied_slot(with));
    wait_until("the node has caught up", 2 * PATIENCE, || applied_slot(node).is_some_and(|slot| slot >= goal));
}

// ----- stopped -----

/// Decisions may wait for the next write. A node that is told to stop writes them.
#[test]
fn a_node_that_was_stopped_has_on_its_disk_what_it_has_applied() {
    let mut cluster = Cluster::start(3);
    let create = json!({"create_account": {"account_id": "alice", "initial_balance": 0}});
    assert!(cluster.nodes[0].connect(Encoding::Json).command(create)["ok"].is_object());
    for round in 1..=5 {
        let node = &mut cluster.nodes[0];
        let mut connection = node.connect(Encoding::Json);
        for _ in 0..10 {
            connection.command(json!({"deposit": {"account_id": "alice", "amount": 1}}));
        }
        let applied = applied_slot(node).unwrap();
        node.stop();
        let audit = audited(node);
        assert!(audit["slot"].as_u64() >= Some(applied), "it had applied slot {applied}: {audit}");
        assert_eq!(audit["total_balance"], 10 * round, "{audit}");
        node.start();
        cluster.wait_ready();
    }
}

// ----- killed in the middle of a snapshot -----

const ACCOUNTS: u64 = 4_000;

/// A snapshot is being taken most of the time.
fn all_the_time(config: &mut NodeConfig) {
    config.limits.snapshot_bytes = 1 << 30;
    config.limits.snapshot_slots = 8;
}

/// What a node says when it begins to receive a snapshot, and when it has it.
const RECEIVING: &str = "receiving a snapshot";
const RECEIVED: &str = "a snapshot was received and is durable";

/// Has node 3 away until it must receive a snapshot, and lets it begin. Answers who sends it.
fn begin_to_receive(cluster: &mut Cluster) -> usize {
    cluster.nodes[2].kill();
    // It was no further, but for a few slots.
    let left = wait_for("node 1 answers", PATIENCE, || applied_slot(&cluster.nodes[0]));
    // They keep the log for a while behind a snapshot that they sent lately, unless they start anew.
    for node in &mut cluster.nodes[..2] {
        node.kill();
        node.start();
        wait_until("a peer is back", PATIENCE, || node.status().is_some());
    }
    wait_until("the log of the others has gone", 2 * PATIENCE, || {
        let snapshots = |node: &Node| node.status().map(|status| status["snapshot_slot"].as_u64().unwrap());
        cluster.nodes[..2].iter().all(|node| snapshots(node).is_some_and(|slot| slot > left + 100))
    });
    let said = cluster.nodes[2].log().len();
    cluster.nodes[2].start();
    let line = wait_for("node 3 begins to receive a snapshot", PATIENCE, || {
        let log = cluster.nodes[2].log().split_off(said);
        log.lines().find(|line| line.contains(RECEIVING)).map(str::to_owned)
    });
    let peer = line.split_once("peer=").and_then(|(_, rest)| rest.chars().next()).unwrap();
    peer.to_digit(10).unwrap() as usize - 1
}

fn kill_in_snapshots(kills: usize, transactions: u64) {
    let mut cluster = Cluster::start_with(3, all_the_time);
    let fill = Bulks { clients: clients(&cluster.nodes), size: 1_000, pace: Duration::ZERO };
    fill.send_all(ACCOUNTS, opening);
    fill.send_all(transactions, transfer(ACCOUNTS));
    let (stop, applied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let bulks = Bulks { clients: clients(&cluster.nodes), size: 10, pace: Duration::from_millis(5) };
    let load = bulks.send(u64::MAX, &stop, &applied, transfer(ACCOUNTS));

    // How long it takes, undisturbed.
    begin_to_receive(&mut cluster);
    let began = Instant::now();
    wait_until("the snapshot is there", PATIENCE, || cluster.nodes[2].log().contains(RECEIVED));
    let takes = began.elapsed().max(Duration::from_millis(20));
    println!("a snapshot is sent in {takes:?}");

    let mut killed: BTreeMap<&str, usize> = BTreeMap::new();
    for kill in 0..kills {
        wait_until_caught_up(&cluster.nodes[2], &cluster.nodes[0]);
        let (what, victim) = match kill % 3 {
            0 => ("taking", fastrand::usize(..3)),
            1 => ("sending", begin_to_receive(&mut cluster)),
            _ => {
                begin_to_receive(&mut cluster);
                ("receiving", 2)
            }
        };
        std::thread::sleep(takes.mul_f64(fastrand::f64()));
        cluster.nodes[victim].kill();
        *killed.entry(what).or_default() += 1;
        std::thread::sleep(Duration::from_millis(fastrand::u64(..100)));
        cluster.nodes[victim].start();
        wait_until("the node is back", PATIENCE, || cluster.nodes[victim].status().is_some());
        wait_until_caught_up(&cluster.nodes[victim], &cluster.nodes[(victim + 1) % 3]);
    }
    stop.store(true, Ordering::Relaxed);
    load.join().unwrap();
    cluster.wait_ready();
    let states = cluster.wait_equal();
    let expected = ACCOUNTS + transactions + applied.load(Ordering::Relaxed);
    assert_eq!(states[0]["transactions"], expected, "every transfer once");
    assert_eq!(states[0]["total_balance"], ACCOUNTS * OPENING);
    println!("killed while {killed:?} a snapshot; {expected} transactions, digest {}", states[0]["state_digest"]);
    cluster.nodes.iter_mut().for_each(Node::kill);
    for node in &cluster.nodes {
        let verified = audited(node);
        if verified["slot"] == states[0]["applied_slot"] {
            assert_eq!(verified["state_digest"], states[0]["state_digest"]);
        }
    }
}

#[test]
fn nodes_are_killed_while_snapshots_are_taken_sent_and_received() {
    kill_in_snapshots(3, 20_000);
}

#[test]
#[ignore = "takes minutes"]
fn killed_at_fifty_moments_of_taking_sending_or_receiving_a_snapshot() {
    kill_in_snapshots(from_environment("RABIA_BANK_KILLS", 50), 200_000);
}

// ----- flipped bits -----

/// What the bank says before the damage.
struct Truth {
    history: Vec<Transaction>,
    accounts: u64,
}

/// The first `count` transactions as this node alone has them; `None` if it stops meanwhile.
fn read_history(url: &NodeUrl, count: u64) -> Option<Vec<Transaction>> {
    block_on(async {
        let options = ClientOptions { timeout: Duration::from_secs(5), ..crate::support::options(vec![url.clone()]) };
        let client = Client::connect(options);
        let (mut history, mut before) = (Vec::new(), Some(count + 1));
        while before.is_some() {
            let page = HistoryFilter { before, limit: Some(MAX_PAGE), ..HistoryFilter::default() };
            let answer = client.query(Query::GetTransactionHistory(page), ReadLevel::Local).await.ok()?;
            let Success::Transactions { transactions, next } = answer.success else { panic!("{answer:?}") };
            history.extend(transactions);
            before = next;
        }
        history.reverse();
        Some(history)
    })
}

fn read_accounts(url: &NodeUrl) -> Option<Vec<Account>> {
    block_on(async {
        let options = ClientOptions { timeout: Duration::from_secs(5), ..crate::support::options(vec![url.clone()]) };
        let client = Client::connect(options);
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let answer =
                client.query(Query::ListAccounts { after, limit: Some(MAX_PAGE), code: None }, ReadLevel::Local).await;
            let Success::Accounts { accounts, next } = answer.ok()?.success else { panic!("other than accounts") };
            all.extend(accounts);
            after = next;
            if after.is_none() {
                return Some(all);
            }
        }
    })
}

fn files(node: &Node) -> [PathBuf; 2] {
    [node.config.log_path(), node.config.books_path()]
}

fn kept(path: &Path) -> PathBuf {
    path.with_extension("kept")
}

/// Flips a bit of a part of the file that holds anything. (Files have large holes.)
fn flip(path: &Path) -> String {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    loop {
        let (at, bit) = (fastrand::u64(..length), fastrand::u32(..8));
        let mut sector = [0; 512];
        let read = file.read_at(&mut sector, at - at % 512).unwrap();
        if sector[..read].iter().any(|byte| *byte != 0) {
            let byte = sector[(at % 512) as usize] ^ 1 << bit;
            file.write_all_at(&[byte], at).unwrap();
            return format!("bit {bit} of byte {at} of {}", path.file_name().unwrap().display());
        }
    }
}

/// What became of a node with a flipped bit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fate {
    /// It did not start, and said why.
    Refused,
    /// It stopped when it came to the damage, and said why.
    Stopped,
    /// It was right in everything; the audit of its files found the damage.
    Audited,
    /// It was right in everything, and so was the audit: what was flipped is not in use.
    Unharmed,
}

fn ended_well(node: &mut Node, said: usize, damage: &str) -> Fate {
    let status = node.wait();
    let log = node.log().split_off(said);
    assert!(log.contains("is damaged"), "{damage}: {status} without a word of damage: {log}");
    assert!(log.contains(LOG_FILE) || log.contains(BOOKS_FILE), "{damage}: no file is named: {log}");
    assert!(log.contains("rabia-bank replace"), "{damage}: no advice: {log}");
    assert!(!log.contains("panicked"), "{damage}: a raw panic: {log}");
    assert_eq!(status.code(), Some(DAMAGED), "{damage}: {status}: {log}");
    if log.contains("serving") { Fate::Stopped } else { Fate::Refused }
}

/// The audit finds the damage and names it, or everything is right.
fn audit_notices(node: &Node, damage: &str) -> bool {
    let output = program(["audit", "verify", "--data-dir"]).arg(&node.config.data_dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => false,
        Some(DAMAGED) => {
            assert!(!said.contains("panicked"), "{damage}: a raw panic: {said}");
            let named = [LOG_FILE, BOOKS_FILE, "block", "page", "session", "transaction", "state"];
            assert!(named.iter().any(|name| said.contains(name)), "{damage}: nothing is named: {said}");
            true
        }
        code => panic!("{damage}: the audit ended with {code:?}: {said}"),
    }
}

/// Starts all nodes, of which the third has damaged files, and looks whether it answers or votes wrongly.
fn live_with(cluster: &mut Cluster, truth: &Truth, damage: &str, noticed: bool) -> Fate {
    let said = cluster.nodes[2].log().len();
    cluster.nodes.iter_mut().for_each(Node::start);
    wait_until("the others are there", PATIENCE, || {
        cluster.nodes[..2]
            .iter()
            .all(|node| node.status().is_some_and(|s| !s["connected"].as_array().unwrap().is_empty()))
    });
    wait_until("the node is there or has ended", PATIENCE, || {
        cluster.nodes[2].ended().is_some() || cluster.nodes[2].status().is_some()
    });
    if cluster.nodes[2].ended().is_some() {
        let fate = ended_well(&mut cluster.nodes[2], said, damage);
        // The others go on without it.
        let mut connection = cluster.nodes[0].connect(Encoding::Json);
        let answer = connection.command(json!({"deposit": {"account_id": account(1), "amount": 1}}));
        assert!(answer["ok"].is_object(), "{damage}: {answer}");
        return fate;
    }
    // It has to vote: one of the others does not.
    wait_until("it has links", PATIENCE, || {
        cluster.nodes[2].ended().is_some()
            || cluster.nodes[2].status().is_some_and(|s| s["connected"].as_array().unwrap().len() == 2)
    });
    let url: NodeUrl = cluster.nodes[2].url().parse().unwrap();
    cluster.nodes[0].freeze();
    let voted = block_on(async {
        let second: NodeUrl = cluster.nodes[1].url().parse().unwrap();
        let options = ClientOptions { timeout: Duration::from_secs(5), ..crate::support::options(vec![second]) };
        let client = Client::connect(options);
        for number in 0..5 {
            if client.deposit(account(number), 1).await.is_err() {
                return false;
            }
        }
        true
    });
    cluster.nodes[0].thaw();
    let history = read_history(&url, truth.history.len() as u64);
    let accounts = read_accounts(&url);
    let (Some(history), Some(accounts), true) = (history, accounts, voted) else {
        wait_until("a node that does not answer has stopped", PATIENCE, || cluster.nodes[2].ended().is_some());
        return ended_well(&mut cluster.nodes[2], said, damage);
    };
    assert!(history == truth.history, "{damage}: the node has another history");
    assert_eq!(accounts.len() as u64, truth.accounts, "{damage}");
    cluster.wait_equal();
    assert_eq!(read_accounts(&url), read_accounts(&cluster.nodes[0].url().parse().unwrap()), "{damage}");
    if noticed { Fate::Audited } else { Fate::Unharmed }
}

fn flip_bits(flips: usize, transactions: u64) {
    let mut cluster = Cluster::start_with(3, |config| config.limits.snapshot_bytes = 300_000);
    let fill = Bulks { clients: clients(&cluster.nodes), size: 500, pace: Duration::ZERO };
    fill.send_all(ACCOUNTS, opening);
    fill.send_all(transactions, transfer(ACCOUNTS));
    let states = cluster.wait_equal();
    let count = states[0]["transactions"].as_u64().unwrap();
    let history = read_history(&cluster.nodes[0].url().parse().unwrap(), count).unwrap();
    assert_eq!(history.len() as u64, ACCOUNTS + transactions);
    let truth = Truth { history, accounts: ACCOUNTS };
    cluster.nodes.iter_mut().for_each(Node::kill);
    for path in cluster.nodes.iter().flat_map(files) {
        fs::copy(&path, kept(&path)).unwrap();
    }
    let mut fates: BTreeMap<Fate, usize> = BTreeMap::new();
    for round in 0..flips {
        for path in cluster.nodes.iter().flat_map(files) {
            fs::copy(kept(&path), &path).unwrap();
        }
        let damage = flip(&files(&cluster.nodes[2])[round % 2]);
        let noticed = audit_notices(&cluster.nodes[2], &damage);
        let fate = live_with(&mut cluster, &truth, &damage, noticed);
        println!("{damage}: {fate:?}");
        *fates.entry(fate).or_default() += 1;
        for node in &mut cluster.nodes {
            if node.is_started() {
                node.kill();
            }
        }
    }
    println!("{flips} flipped bits: {fates:?}");
    // Whole again, it is a member as before.
    for path in cluster.nodes.iter().flat_map(files) {
        fs::copy(kept(&path), &path).unwrap();
    }
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    cluster.wait_equal();
}

#[test]
fn flipped_bits_are_noticed_or_do_no_harm() {
    flip_bits(4, 10_000);
}

#[test]
#[ignore = "takes minutes"]
fn a_hundred_bits_are_flipped() {
    flip_bits(from_environment("RABIA_BANK_FLIPS", 100), 60_000);
}

/// A lone node with a bit of its books flipped, again and again: it starts and tells the truth, or says which file is damaged and
/// what to do. No panic of the database below is ever what a person gets to read.
fn flip_bits_of_books(flips: usize, transactions: u64) {
    let mut cluster = Cluster::start_with(1, |config| config.limits.snapshot_bytes = 100_000);
    let fill = Bulks { clients: clients(&cluster.nodes), size: 500, pace: Duration::ZERO };
    fill.send_all(ACCOUNTS, opening);
    fill.send_all(transactions, transfer(ACCOUNTS));
    let url: NodeUrl = cluster.nodes[0].url().parse().unwrap();
    let history = read_history(&url, ACCOUNTS + transactions).unwrap();
    let accounts = read_accounts(&url).unwrap();
    let node = &mut cluster.nodes[0];
    node.stop();
    for path in files(node) {
        fs::copy(&path, kept(&path)).unwrap();
    }
    let mut fates: BTreeMap<Fate, usize> = BTreeMap::new();
    for _ in 0..flips {
        for path in files(node) {
            fs::copy(kept(&path), &path).unwrap();
        }
        let damage = flip(&node.config.books_path());
        let said = node.log().len();
        node.start();
        wait_until("the node is there or has ended", PATIENCE, || node.ended().is_some() || node.status().is_some());
        let told = read_history(&url, history.len() as u64).and_then(|told| Some((told, read_accounts(&url)?)));
        let fate = match told {
            Some(told) => {
                assert!(told == (history.clone(), accounts.clone()), "{damage}: the node tells something else");
                node.kill();
                Fate::Unharmed
            }
            None => {
                wait_until("a node that does not answer has ended", PATIENCE, || node.ended().is_some());
                let fate = ended_well(node, said, &damage);
                let log = node.log().split_off(said);
                assert!(log.contains(&*node.config.books_path().to_string_lossy()), "{damage}: not by its name: {log}");
                fate
            }
        };
        *fates.entry(fate).or_default() += 1;
    }
    println!("{flips} flipped bits of the books: {fates:?}");
}

#[test]
fn flipped_bits_of_the_books_are_told_by_the_name_of_the_file() {
    flip_bits_of_books(12, 5_000);
}

#[test]
#[ignore = "takes minutes"]
fn four_hundred_bits_of_the_books_are_flipped() {
    flip_bits_of_books(from_environment("RABIA_BANK_FLIPS", 400), 20_000);
}

// ----- a state that differs -----

/// Node 1 is made to believe that slots were forfeited in which the others apply batches.
#[test]
fn a_node_whose_log_differs_stops_and_keeps_its_files() {
    let mut cluster = Cluster::start(3);
    let fill = Bulks { clients: clients(&cluster.nodes), size: 10, pace: Duration::ZERO };
    fill.send_all(100, opening);
    cluster.wait_equal();
    cluster.nodes[0].kill();
    let config = &cluster.nodes[0].config;
    let identity = Identity { genesis: config.genesis(), node: config.node };
    let (mut store, recovered) = LogStore::open(&config.log_path(), &identity, || Ok(0)).unwrap();
    let forged = (1..=5).map(|more| (recovered.decided + more, None)).collect();
    store.commit(&Commit { decisions: forged, ..Commit::default() }).unwrap();
    drop(store);

    let two = Bulks { clients: clients(&cluster.nodes[1..]), size: 1, pace: Duration::ZERO };
    // Ten slots at least.
    two.send_all(20, transfer(100));
    let said = cluster.nodes[0].log().len();
    cluster.nodes[0].start();
    let (stop, applied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = two.send(u64::MAX, &stop, &applied, transfer(100));
    wait_until("node 1 stops", LONG, || cluster.nodes[0].ended().is_some());
    let before = applied.load(Ordering::Relaxed);
    wait_until("the others go on", PATIENCE, || applied.load(Ordering::Relaxed) > before + 20);
    stop.store(true, Ordering::Relaxed);
    load.join().unwrap();
    let status = cluster.nodes[0].wait();
    let log = cluster.nodes[0].log().split_off(said);
    assert_eq!(status.code(), Some(NEEDS_A_PERSON), "{log}");
    assert!(log.contains("no client is answered") && log.contains("no majority has this node's"), "{log}");
    assert!(log.contains("keeps its files"), "{log}");
    assert!(files(&cluster.nodes[0]).iter().all(|path| path.exists()));
    let [one, other] = [1, 2].map(|node: usize| cluster.nodes[node].status().unwrap());
    assert_eq!(one["total_balance"], other["total_balance"]);
}
