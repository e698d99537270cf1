//! A random fuzzer over both ports of real nodes, beside an honest client.
//!
//! One round after the other: for some seconds the honest client has the cluster for itself, then attackers join it. In every second
//! round one member is stopped, and the attackers speak in its name, from its own store. What they do follows from the seed, which
//! is printed; how the nodes are scheduled does not.
//!
//! ```text
//! cargo test --release --workspace --test nodes -- --ignored --nocapture fuzzer::an_hour
//! ```
//!
//! `RABIA_BANK_SECONDS` is another time than an hour, `RABIA_BANK_SEED` one seed to repeat.
//!
//! The attackers are a process of their own at nice 19: they share the processors with the nodes, and are not what is measured.

mod clients;
mod honest;
mod mutate;
mod peers;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::{Cluster, PATIENCE, audited, from_environment, resident_memory, wait_until};
use fastrand::Rng;
use honest::Honest;
use serde::{Deserialize, Serialize};

/// The honest client is alone for so long …
const CALM: Duration = Duration::from_secs(4);
/// … and then attacked for so long, in every round.
const ATTACK: Duration = Duration::from_secs(11);
/// In an hour the honest client's 99th percentile is at most so many times what it is when it is alone. A minute in the suite shares
/// the machine with other tests …
const SLOWER: u32 = 5;
/// … so there each of its answers comes within this time.
const ANSWERED: Duration = Duration::from_secs(5);
/// The most memory of a node that is attacked, in bytes: what waits for clients (messages/WIRE.md, "Limits and closing": 64, 64 and
/// 128 MiB), and what a small bank needs with its links.
const MEMORY: u64 = (64 + 64 + 128 + 120) << 20;
/// The most lines that a node writes into its log, a second.
const LINES: f64 = 20.0;
/// The member that is stopped in every second round, from 0: it calls one of the others, and is called by the other.
const STOPPED: usize = 1;
/// Where the attackers' process finds what it is to do.
const ATTACK_VARIABLE: &str = "RABIA_BANK_ATTACK";
/// What the attackers' counts are printed behind.
const COUNTS: &str = "attacks: ";

/// What the attackers' process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Attack {
    seed: u64,
    milliseconds: u64,
    /// The nodes' configurations, those that run.
    nodes: Vec<PathBuf>,
    /// The stopped member's, in whose name they may speak.
    member: Option<PathBuf>,
}

/// How often each kind of attack was made.
#[derive(Debug, Default)]
struct Counts(Mutex<BTreeMap<String, u64>>);

impl Counts {
    fn add(&self, what: &str) {
        *self.0.lock().unwrap().entry(what.into()).or_default() += 1;
    }
}

/// An attackers' process. It ends by itself when its time is over, and when this one ends.
struct Attackers(Child);

impl Attackers {
    fn start(attack: &Attack) -> Attackers {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "--nocapture", "fuzzer::attackers"]);
        command.env(ATTACK_VARIABLE, serde_json::to_string(attack).unwrap());
        Attackers(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn counts(mut self) -> BTreeMap<String, u64> {
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let counts = said.lines().find_map(|line| line.split_once(COUNTS)).map(|(_, counts)| counts);
        serde_json::from_str(counts.unwrap_or_else(|| panic!("the attackers did not end well: {said}"))).unwrap()
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The attackers' process.
#[test]
#[ignore = "is a part of the others, in a process of its own"]
fn attackers() {
    let Ok(attack) = std::env::var(ATTACK_VARIABLE) else { return };
    let attack: Attack = serde_json::from_str(&attack).unwrap();
    let counts: &'static Counts = Box::leak(Box::default());
    // What is wrong with an attacker is wrong with all of it.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hook(panic);
        std::process::exit(101);
    }));
    let mut random = Rng::with_seed(attack.seed);
    for _ in 0..3 {
        clients::spawn_speakers(&attack, random.fork(), counts);
    }
    clients::spawn_breakers(&attack, random.fork(), counts);
    peers::spawn_strangers(&attack, random.fork(), counts);
    if attack.member.is_some() {
        peers::spawn_member(&attack, random.fork(), counts);
    }
    std::thread::spawn(|| {
        // Whoever started this holds the other end.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    std::thread::sleep(Duration::from_millis(attack.milliseconds));
    println!("\n{COUNTS}{}", serde_json::to_string(&*counts.0.lock().unwrap()).unwrap());
    std::process::exit(0);
}

/// The value that 99 of 100 are not above.
fn percentile_99(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies[(latencies.len() * 99).div_ceil(100) - 1]
}

/// A member that is stopped while the attackers speak in its name.
fn is_stopped(round: u64) -> bool {
    round % 2 == 1
}

fn attack_on(cluster: &Cluster, round: u64, seed: u64) -> Attack {
    let nodes = cluster.nodes.iter().filter(|node| node.is_started()).map(|node| node.config_path.clone());
    Attack {
        seed: seed.wrapping_add(round),
        milliseconds: ATTACK.as_millis() as u64,
        nodes: nodes.collect(),
        member: is_stopped(round).then(|| cluster.nodes[STOPPED].config_path.clone()),
    }
}

/// What is looked at all the time.
fn look_after(cluster: &mut Cluster, most: &mut u64) {
    for node in &mut cluster.nodes {
        if node.is_started() {
            assert!(node.is_alive(), "node {} has stopped", node.config.node);
            if node.is_inside() {
                continue;
            }
            let memory = resident_memory(node.pid());
            *most = memory.max(*most);
            assert!(memory <= MEMORY, "node {} has {} MB of memory", node.config.node, memory >> 20);
        }
    }
}

/// Attacks a cluster for this time.
/// The honest client's 99th percentile alone and beside attackers comes of it, and the longest that it waited for an answer.
fn fuzz(mut cluster: Cluster, time: Duration, seed: u64) -> (Duration, Duration, Duration) {
    println!("seed {seed}");
    let mut honest = Honest::new(&cluster);
    let (mut calm, mut attacked) = (Vec::new(), Vec::new());
    let (mut sum, mut most) = (BTreeMap::new(), 0);
    let (began, mut round) = (Instant::now(), 0);
    while began.elapsed() < time {
        if is_stopped(round) {
            cluster.nodes[STOPPED].stop();
        }
        let alone = Instant::now();
        while alone.elapsed() < CALM {
            calm.extend(honest.go_on());
        }
        let mut attackers = Attackers::start(&attack_on(&cluster, round, seed));
        let mut looked = Instant::now();
        while !attackers.has_ended() {
            attacked.extend(honest.go_on());
            if looked.elapsed() > Duration::from_millis(200) {
                looked = Instant::now();
                look_after(&mut cluster, &mut most);
            }
        }
        for (what, count) in attackers.counts() {
            *sum.entry(what).or_insert(0) += count;
        }
        if is_stopped(round) {
            cluster.nodes[STOPPED].start();
        }
        cluster.wait_ready();
        round += 1;
    }
    let slowest = attacked.iter().copied().max().unwrap();
    let (calm, attacked) = (percentile_99(calm), percentile_99(attacked));
    println!(
        "{round} rounds; the honest client's p99 {calm:?} alone, {attacked:?} beside attackers, at most {slowest:?}"
    );
    println!("{} MB of memory at most; {sum:?}", most >> 20);
    for kind in clients::KINDS.iter().chain(peers::KINDS) {
        assert!(sum.contains_key(*kind), "no {kind} in {round} rounds");
    }
    honest.is_right();
    for node in &cluster.nodes {
        let lines = node.log().lines().count() as f64 / began.elapsed().as_secs_f64();
        assert!(lines < LINES, "node {} wrote {lines:.0} lines a second into its log", node.config.node);
    }
    settle(cluster);
    (calm, attacked, slowest)
}

/// All nodes have the same books in the end, and right ones.
fn settle(mut cluster: Cluster) {
    wait_until("the attackers' connections are gone", PATIENCE, || {
        cluster.nodes.iter().all(|node| node.status().is_some_and(|status| status["clients"].as_u64() < Some(5)))
    });
    let states = cluster.wait_equal();
    cluster.nodes.iter_mut().for_each(crate::support::Node::stop);
    for node in &cluster.nodes {
        let audit = audited(node);
        assert_eq!(audit["total_balance"], states[0]["total_balance"], "node {}: {audit}", node.config.node);
        assert!(!node.log().contains("panicked"), "node {}", node.config.node);
    }
}

#[test]
fn a_minute() {
    let seed = from_environment("RABIA_BANK_SEED", fastrand::u64(..));
    let (.., slowest) = fuzz(Cluster::start(3), Duration::from_secs(60), seed);
    assert!(slowest < ANSWERED, "the honest client waited {slowest:?}");
}

#[test]
fn nodes_inside_a_program() {
    let seed = from_environment("RABIA_BANK_SEED", fastrand::u64(..));
    let (.., slowest) = fuzz(Cluster::inside(3), Duration::from_secs(16), seed);
    assert!(slowest < ANSWERED, "the honest client waited {slowest:?}");
}

#[test]
#[ignore = "takes an hour"]
fn an_hour() {
    let time = from_environment("RABIA_BANK_SECONDS", 3_600);
    let seed = from_environment("RABIA_BANK_SEED", fastrand::u64(..));
    let (calm, attacked, _) = fuzz(Cluster::start(3), Duration::from_secs(time), seed);
    assert!(attacked <= calm * SLOWER, "the honest client's p99 is {attacked:?}, and {calm:?} alone");
}

/// Where nodes listen: for clients, or for peers.
fn addresses(attack: &Attack, of: fn(&rabia_bank::config::NodeConfig) -> SocketAddr) -> Vec<SocketAddr> {
    attack.nodes.iter().map(|path| of(&rabia_bank::config::NodeConfig::load(path).unwrap())).collect()
}
