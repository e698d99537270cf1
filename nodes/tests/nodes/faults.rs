//! Nodes that are killed, frozen and cut off while clients write, as real processes. After each of it the books of the
//! clients are compared with what the nodes say: see `support/books.rs`.
//!
//! The default run is short. The full ones:
//!
//! - The longest time that clients of the other nodes wait when a node is killed:
//!   `cargo test --release --workspace --test nodes -- --ignored faults::longest_gap --nocapture`
//!   (`RABIA_BANK_KILLS=N`, by default 12).
//! - All nodes killed at once, ten times over:
//!   `cargo test --release --workspace --test nodes -- --ignored faults::ten_times --nocapture` (`RABIA_BANK_CRASHES=N`).
//! - Each node frozen for 20 s: `cargo test --release --workspace --test nodes -- --ignored faults::frozen_for_20_s --nocapture`
//! - Everything at once, at random: `cargo test --release --workspace --test nodes -- --ignored faults::for_long --nocapture`
//!   (`RABIA_BANK_FAULTS=N` rounds, by default 300; `RABIA_BANK_SEED=N` repeats the faults of a run, if not their timing)

use std::time::{Duration, Instant};

use crate::support::books::{Books, Entry, Load, Outcome, Writing, longest_gap};
use crate::support::proxy::Proxy;
use crate::support::{Cluster, Connection, Node, PATIENCE, from_environment, signal, wait_until};
use nix::sys::signal::Signal;
use rabia_bank::client::NodeUrl;
use rabia_bank_messages::bank::{Amount, ErrorCode, Operation, Transaction};
use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};

/// The longest that the clients of living nodes may wait in the default run, which shares a small machine with other
/// tests, in a build that is not optimised.
const GAP_BESIDE_OTHER_TESTS: Duration = Duration::from_secs(2);
/// The longest that they may wait when measured alone, in a release build.
const GAP: Duration = Duration::from_millis(50);

fn url(node: &Node) -> NodeUrl {
    node.url().parse().unwrap()
}

fn urls(cluster: &Cluster) -> Vec<NodeUrl> {
    cluster.nodes.iter().map(url).collect()
}

/// URLs of all nodes, this one first.
fn urls_from(cluster: &Cluster, first: usize) -> Vec<NodeUrl> {
    let mut urls = urls(cluster);
    urls.rotate_left(first);
    urls
}

/// Waits until each of these writers has so many more acknowledgements.
fn wait_for_progress(what: &str, load: &Load, writers: std::ops::Range<usize>, more: u64) {
    let before = load.per_writer();
    wait_until(what, PATIENCE, || {
        load.per_writer()[writers.clone()].iter().zip(&before[writers.clone()]).all(|(now, then)| *now >= then + more)
    });
}

fn applied_slot(node: &Node) -> Option<u64> {
    node.status().map(|status| status["applied_slot"].as_u64().unwrap())
}

/// Waits until a node has all that another one had when this was called.
fn wait_until_caught_up(node: &Node, with: &Node) {
    let goal = applied_slot(with).unwrap();
    wait_until("the node has caught up", PATIENCE, || applied_slot(node).is_some_and(|slot| slot >= goal));
}

fn is_connected(node: &Node, to: &Node) -> bool {
    let status = node.status().unwrap_or_default();
    status["connected"].as_array().is_some_and(|peers| peers.contains(&json!(to.config.node)))
}

/// `kill -9` of one node while clients write through the others; it comes back. Gives the longest time that a client of
/// another node waited meanwhile.
fn kill_under_load(cluster: &mut Cluster, books: &mut Books, victim: usize) -> Duration {
    let others: Vec<usize> = (0..3).filter(|node| *node != victim).collect();
    // Four that know one living node each, and one that loses its own and goes to another.
    let mut writers: Vec<Vec<NodeUrl>> =
        others.iter().flat_map(|node| [vec![url(&cluster.nodes[*node])], vec![url(&cluster.nodes[*node])]]).collect();
    writers.push(urls_from(cluster, victim));
    let load = books.write(&writers, &Writing::default());
    wait_for_progress("all clients are served", &load, 0..5, 20);
    let from = Instant::now();
    cluster.nodes[victim].kill();
    wait_for_progress("clients are served without the node", &load, 0..5, 100);
    cluster.nodes[victim].start();
    wait_until("the node is back", PATIENCE, || cluster.nodes[victim].status().is_some());
    wait_until_caught_up(&cluster.nodes[victim], &cluster.nodes[others[0]]);
    wait_for_progress("clients are served with the node back", &load, 0..5, 50);
    let to = Instant::now();
    wait_for_progress("clients are served after that", &load, 0..5, 5);
    let entries = books.stop(load);
    let first = entries.iter().map(|entry| entry.writer).min().unwrap();
    longest_gap(&entries, first..first + 4, from, to)
}

#[test]
fn each_node_is_killed_while_the_others_serve() {
    let mut cluster = Cluster::start(3);
    let mut books = Books::open(&urls(&cluster));
    for victim in 0..3 {
        let gap = kill_under_load(&mut cluster, &mut books, victim);
        println!("node {} killed: clients of the others waited {gap:?} at most", victim + 1);
        assert!(gap < GAP_BESIDE_OTHER_TESTS, "clients of living nodes waited {gap:?}");
        cluster.wait_ready();
        books.check(&urls(&cluster));
    }
}

#[test]
#[ignore = "measures: to be run alone, in a release build"]
fn longest_gap_when_a_node_is_killed() {
    let mut cluster = Cluster::start(3);
    let mut books = Books::open(&urls(&cluster));
    let mut gaps = Vec::new();
    for kill in 0..from_environment("RABIA_BANK_KILLS", 12) {
        let gap = kill_under_load(&mut cluster, &mut books, kill % 3);
        println!("node {} killed: {gap:?}", kill % 3 + 1);
        gaps.push(gap);
        cluster.wait_ready();
    }
    books.check(&urls(&cluster));
    gaps.sort_unstable();
    let (min, median, max) = (gaps[0], gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    println!("longest gap of {} kills: min {min:?}, median {median:?}, max {max:?}", gaps.len());
    assert!(max <= GAP, "{max:?} is longer than {GAP:?}");
}

/// `kill -9` of all nodes at once under load, again and again.
fn kill_all(rounds: usize) {
    let mut cluster = Cluster::start(3);
    let mut books = Books::open(&urls(&cluster));
    for round in 0..rounds {
        let writers: Vec<_> = (0..9).map(|writer| urls_from(&cluster, writer % 3)).collect();
        let writing = Writing { timeout: Duration::from_secs(4), ..Writing::default() };
        let load = books.write(&writers, &writing);
        wait_for_progress("all clients are served", &load, 0..9, 10 + fastrand::u64(..40));
        for node in &cluster.nodes {
            signal(node.pid(), Signal::SIGKILL);
        }
        for node in &mut cluster.nodes {
            node.kill();
        }
        // In one round the clients give up while nobody is there, in the next they ask again once the nodes are back.
        let patient = round % 2 == 1;
        if !patient {
            load.ask_to_stop();
            wait_until("the clients have given up", PATIENCE, || load.is_done());
        }
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_ready();
        if patient {
            wait_for_progress("all clients are served again", &load, 0..9, 5);
        }
        books.stop(load);
        books.check(&urls(&cluster));
    }
}

#[test]
fn all_nodes_are_killed_at_once() {
    kill_all(from_environment("RABIA_BANK_CRASHES", 3));
}

#[test]
#[ignore = "takes long"]
fn all_nodes_are_killed_ten_times() {
    kill_all(from_environment("RABIA_BANK_CRASHES", 10));
}

/// SIGSTOP of one node under load, at least until the others have given its links up.
fn freeze(victim: usize, at_least: Duration) {
    let cluster = Cluster::start(3);
    let mut books = Books::open(&urls(&cluster));
    let frozen = &cluster.nodes[victim];
    let others = [&cluster.nodes[(victim + 1) % 3], &cluster.nodes[(victim + 2) % 3]];
    let mut writers: Vec<_> = others.iter().map(|node| vec![url(node)]).collect();
    writers.push(urls_from(&cluster, victim));
    // The last one can't leave the frozen node.
    writers.push(vec![url(frozen)]);
    let load = books.write(&writers, &Writing { timeout: Duration::from_secs(5), ..Writing::default() });
    wait_for_progress("all clients are served", &load, 0..4, 20);
    let from = Instant::now();
    frozen.freeze();
    while from.elapsed() < at_least || others.iter().any(|node| is_connected(node, frozen)) {
        wait_for_progress("clients are served without the frozen node", &load, 0..3, 10);
        assert!(from.elapsed() < at_least + PATIENCE, "the links to the frozen node are still held up");
    }
    let to = Instant::now();
    frozen.thaw();
    wait_until("the links are back", PATIENCE, || others.iter().all(|node| is_connected(node, frozen)));
    wait_until_caught_up(frozen, others[0]);
    wait_for_progress("all clients are served again", &load, 0..4, 20);
    let entries = books.stop(load);
    let first = entries.iter().map(|entry| entry.writer).min().unwrap();
    let gap = longest_gap(&entries, first..first + 2, from, to);
    println!("node {} frozen for {:?}: clients of the others waited {gap:?} at most", victim + 1, to - from);
    assert!(gap < GAP_BESIDE_OTHER_TESTS, "clients of living nodes waited {gap:?}");
    books.check(&urls(&cluster));
}

#[test]
fn a_node_is_frozen() {
    freeze(1, Duration::from_secs(12));
}

#[test]
#[ignore = "takes long"]
fn a_node_is_frozen_for_20_s() {
    for victim in 0..3 {
        freeze(victim, Duration::from_secs(20));
    }
}

/// Lets a node call its peer through a proxy. The lower number calls. To be done before the node is started.
fn put_proxy_between(cluster: &mut Cluster, caller: usize, called: usize) -> Proxy {
    let proxy = Proxy::start(cluster.nodes[called].peer_address());
    let caller = &mut cluster.nodes[caller];
    caller.config.members[called].address = proxy.address().to_string();
    std::fs::write(&caller.config_path, caller.config.to_toml()).unwrap();
    proxy
}

#[test]
fn a_link_is_slow_and_cut_and_late() {
    let mut cluster = Cluster::create(3);
    let proxy = put_proxy_between(&mut cluster, 0, 1);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    let mut books = Books::open(&urls(&cluster));
    let writers: Vec<_> = cluster.nodes.iter().flat_map(|node| [vec![url(node)], vec![url(node)]]).collect();
    let load = books.write(&writers, &Writing::default());
    let linked = || is_connected(&cluster.nodes[0], &cluster.nodes[1]);
    let from = Instant::now();
    wait_for_progress("all are served", &load, 0..6, 20);

    proxy.delay(Duration::from_millis(150));
    wait_for_progress("all are served beside a slow link", &load, 0..6, 50);
    proxy.delay(Duration::ZERO);
    for _ in 0..8 {
        let connections = proxy.connections();
        proxy.cut();
        wait_until("the link is made again", PATIENCE, || proxy.connections() > connections && linked());
        wait_for_progress("all are served after a cut", &load, 0..6, 5);
    }
    for _ in 0..5 {
        proxy.hold();
        wait_for_progress("all are served while a link says nothing", &load, 0..6, 20);
        proxy.release();
        wait_for_progress("all are served when it speaks again, late", &load, 0..6, 20);
    }
    proxy.close();
    wait_until("the link is seen to be down", PATIENCE, || !linked());
    wait_for_progress("all are served without the link", &load, 0..6, 50);
    proxy.reopen();
    wait_until("the link is made again", PATIENCE, linked);
    // Long enough that both ends give the link up, and what was said on it comes after that.
    proxy.hold();
    while linked() {
        wait_for_progress("all are served while a link is dead", &load, 0..6, 5);
    }
    proxy.release();
    wait_until("the link is made again", PATIENCE, linked);
    wait_for_progress("all are served at the end", &load, 0..6, 20);
    let to = Instant::now();
    wait_for_progress("all are served after the end", &load, 0..6, 5);
    let entries = books.stop(load);
    let gap = longest_gap(&entries, 0..6, from, to);
    println!("a bad link for {:?}: clients waited {gap:?} at most", to - from);
    assert!(gap < GAP_BESIDE_OTHER_TESTS, "clients waited {gap:?} for a single link");
    books.check(&urls(&cluster));
}

#[test]
fn a_node_is_cut_off_and_comes_back() {
    let mut cluster = Cluster::create(3);
    let proxies = [put_proxy_between(&mut cluster, 0, 1), put_proxy_between(&mut cluster, 0, 2)];
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    let mut books = Books::open(&urls(&cluster));
    let mut writers: Vec<_> = cluster.nodes[1..].iter().map(|node| vec![url(node)]).collect();
    writers.push(urls_from(&cluster, 0));
    writers.push(vec![url(&cluster.nodes[0])]);
    let load = books.write(&writers, &Writing { timeout: Duration::from_secs(3), ..Writing::default() });
    wait_for_progress("all are served", &load, 0..4, 20);
    for late in [false, true] {
        for proxy in &proxies {
            if late { proxy.hold() } else { proxy.close() }
        }
        wait_for_progress("the others are served while one node is cut off", &load, 0..2, 300);
        assert!(applied_slot(&cluster.nodes[0]) < applied_slot(&cluster.nodes[1]));
        for proxy in &proxies {
            if late { proxy.release() } else { proxy.reopen() }
        }
        wait_for_progress("all are served again", &load, 0..4, 20);
        wait_until_caught_up(&cluster.nodes[0], &cluster.nodes[1]);
    }
    books.stop(load);
    books.check(&urls(&cluster));
}

#[test]
fn a_node_is_killed_while_it_starts() {
    let mut cluster = Cluster::start(3);
    let mut books = Books::open(&urls(&cluster));
    let writers = [vec![url(&cluster.nodes[0])], vec![url(&cluster.nodes[2])]];
    let load = books.write(&writers, &Writing::default());
    for start in 0..20 {
        cluster.nodes[1].kill();
        wait_for_progress("the others are served", &load, 0..2, 5);
        cluster.nodes[1].start();
        // Any moment may be the wrong one: before the store is open, while links come up, while it catches up.
        std::thread::sleep(Duration::from_millis(5 * start));
    }
    wait_for_progress("the others are served", &load, 0..2, 5);
    books.stop(load);
    cluster.wait_ready();
    books.check(&urls(&cluster));
}

/// Everything that can go wrong with processes and links, at random, so often; then all is well again, and is checked.
fn random_faults(rounds: usize) {
    let seed = from_environment("RABIA_BANK_SEED", fastrand::usize(..1 << 32));
    println!("RABIA_BANK_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed as u64);
    let mut cluster = Cluster::create(3);
    let proxies = [(0, 1), (0, 2), (1, 2)].map(|(caller, called)| put_proxy_between(&mut cluster, caller, called));
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    let mut books = Books::open(&urls(&cluster));
    let mut round = 0;
    while round < rounds {
        let mut writers: Vec<_> = (0..3).map(|node| urls_from(&cluster, node)).collect();
        writers.extend(cluster.nodes.iter().map(|node| vec![url(node)]));
        let load = books.write(&writers, &Writing { timeout: Duration::from_secs(3), ..Writing::default() });
        let (mut down, mut frozen) = ([false; 3], [false; 3]);
        for _ in 0..30.min(rounds - round) {
            round += 1;
            let (node, proxy) = (random.usize(..3), &proxies[random.usize(..3)]);
            match random.u8(..12) {
                0 | 1 if !down[node] => {
                    cluster.nodes[node].kill();
                    (down[node], frozen[node]) = (true, false);
                }
                0..=3 if down[node] => {
                    cluster.nodes[node].start();
                    down[node] = false;
                }
                4 if !down[node] && !frozen[node] => {
                    cluster.nodes[node].freeze();
                    frozen[node] = true;
                }
                4 | 5 if frozen[node] => {
                    cluster.nodes[node].thaw();
                    frozen[node] = false;
                }
                6 => proxy.hold(),
                7 => proxy.release(),
                8 => proxy.close(),
                9 => proxy.reopen(),
                10 => proxy.delay(Duration::from_millis(random.u64(..80))),
                _ => proxy.cut(),
            }
            std::thread::sleep(Duration::from_millis(random.u64(..150)));
        }
        for (index, node) in cluster.nodes.iter_mut().enumerate() {
            if down[index] {
                node.start();
            } else if frozen[index] {
                node.thaw();
            }
        }
        for proxy in &proxies {
            proxy.delay(Duration::ZERO);
            proxy.reopen();
            proxy.release();
        }
        cluster.wait_ready();
        wait_for_progress("all are served when all is well again", &load, 0..6, 10);
        books.stop(load);
        books.check(&urls(&cluster));
    }
}

#[test]
fn all_kinds_of_faults_at_random() {
    random_faults(90);
}

#[test]
#[ignore = "takes long"]
fn all_kinds_of_faults_at_random_for_long() {
    random_faults(from_environment("RABIA_BANK_FAULTS", 300));
}

/// How long a node waits for a quorum in the test below.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(400);

/// A connection in a session that is already open, which other nodes know too.
fn in_session(node: &Node, session: &Value) -> Connection {
    let mut connection = node.connect(Encoding::Json);
    let welcome = connection.ask(&json!({"hello": {"version": 2, "session": session}}));
    assert_eq!(welcome["welcome"]["session"], session["number"], "{welcome}");
    connection
}

#[test]
fn two_of_three_are_down() {
    let mut cluster =
        Cluster::start_with(3, |config| config.limits.request_timeout_ms = REQUEST_TIMEOUT.as_millis() as u64);
    let all = urls(&cluster);
    let mut books = Books::open(&all);
    let key = "000102030405060708090a0b0c0d0e0f";
    let mut connection = cluster.nodes[0].connect(Encoding::Json);
    let welcome = connection.ask(&json!({"hello": {"version": 2, "open": {"key": key}}}));
    let session = json!({"number": welcome["welcome"]["session"], "key": key});
    let deposit = |amount: u64| json!({"deposit": {"account_id": "account-00", "amount": amount}});
    let before = connection.query_at(json!({"get_balance": {"account_id": "account-00"}}), json!("local"));

    let load = books.write(
        &[vec![all[0].clone()], urls_from(&cluster, 1)],
        &Writing { timeout: Duration::from_secs(1), ..Writing::default() },
    );
    wait_for_progress("all are served", &load, 0..2, 10);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    // What was on its way when they died may still have been decided.
    let amount = books.amount();
    let sent = Instant::now();
    let command = json!({"request": 100, "command": deposit(amount)});
    let answer = connection.ask(&command);
    assert!(sent.elapsed() >= REQUEST_TIMEOUT, "{answer} after {:?}", sent.elapsed());
    assert_eq!(answer["error"]["code"], "no_quorum", "{answer}");
    assert_eq!(answer["error"]["outcome"], "unknown", "{answer}");
    assert_eq!(answer["slot"], Value::Null, "{answer}");

    let query = json!({"get_balance": {"account_id": "account-00"}});
    let asked = Instant::now();
    let local = connection.ask(&json!({"request": 101, "query": query, "read": "local"}));
    assert!(local["ok"]["balance"].as_u64().is_some(), "{local} (before: {before})");
    assert!(asked.elapsed() < REQUEST_TIMEOUT, "a local read waited {:?}", asked.elapsed());
    let linearizable = connection.ask(&json!({"request": 102, "query": query, "read": "linearizable"}));
    assert_eq!(linearizable["error"]["code"], "no_quorum", "{linearizable}");
    assert_eq!(linearizable["error"]["outcome"], "refused", "a query changes nothing: {linearizable}");
    // One without a session: that can't be opened either.
    let mut other = cluster.nodes[0].connect(Encoding::MessagePack);
    let orphan = other.command(json!({"deposit": {"account_id": "nobody", "amount": 1}}));
    assert_eq!(orphan["error"]["code"], "no_quorum", "{orphan}");
    assert_eq!(orphan["error"]["outcome"], "unknown", "{orphan}");

    // The writers went on meanwhile; wait until each of them has given up on a command.
    wait_until("the writers have no answers", PATIENCE, || sent.elapsed() > Duration::from_secs(3));
    // One node returns: all goes on, and the unknown is settled by asking again, here and elsewhere.
    cluster.nodes[2].start();
    wait_for_progress("all are served again", &load, 0..2, 10);
    let settle = |node: &Node| {
        let mut connection = in_session(node, &session);
        let answer = connection.ask(&command);
        assert!(answer["error"].is_null(), "{answer}");
        answer["ok"]["transaction"].clone()
    };
    let first = settle(&cluster.nodes[2]);
    assert_eq!(first, settle(&cluster.nodes[0]), "asked again, it was applied again");
    let transaction: Transaction = serde_json::from_value(first).unwrap();
    let operation = Operation::Deposit { account_id: "account-00".into(), amount: Amount::new(amount) };
    let outcome = Outcome::Acknowledged(transaction);
    books.note(Entry { writer: usize::MAX, operation, sent, answered: Instant::now(), outcome });
    cluster.nodes[1].start();
    cluster.wait_ready();
    let entries = books.stop(load);
    for entry in &entries {
        if let Outcome::Refused(code) = &entry.outcome {
            let by_the_bank = [ErrorCode::AccountNotFound, ErrorCode::InsufficientFunds].contains(code);
            assert!(by_the_bank, "reported as failed, for no fault of its own: {entry:?}");
        }
    }
    assert!(entries.iter().any(|entry| matches!(entry.outcome, Outcome::Unknown(_))), "nobody missed the two nodes");
    books.check(&urls(&cluster));
}
