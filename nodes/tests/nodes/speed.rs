//! The marks of speed that take more than one `rabia-bank bench`: five nodes against three, a rare speaker beside a busy node, a
//! node that comes back under load, and a cluster that does nothing. All of it measures, so each is to be run alone, in a release
//! build:
//!
//! ```text
//! cargo test --release --workspace --test nodes -- --ignored speed::five_nodes --nocapture
//! cargo test --release --workspace --test nodes -- --ignored speed::rare_speaker --nocapture
//! cargo test --release --workspace --test nodes -- --ignored speed::comes_back --nocapture
//! cargo test --release --workspace --test nodes -- --ignored speed::idle --nocapture
//! ```
//!
//! Each measures `RABIA_BANK_RUNS=N` times, by default 5, and prints the median with the lowest and the highest.

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Cluster, from_environment, program, wait_until};
use serde_json::Value;

fn runs() -> usize {
    from_environment("RABIA_BANK_RUNS", 5).max(1)
}

/// Begins a benchmark of these nodes.
fn begin(urls: &str, args: &str) -> Child {
    let mut command = program(["bench", "--json", "--yes", "--connect", urls]);
    command.args(args.split_whitespace()).stdout(Stdio::piped()).spawn().unwrap()
}

/// What it came to. The books were in order.
fn end(bench: Child) -> Value {
    let output = bench.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The median. Prints it, with the lowest and the highest.
fn median(what: &str, mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let median = values[values.len() / 2];
    println!("{what}: {median:.2} ({:.2} to {:.2})", values[0], values[values.len() - 1]);
    median
}

#[test]
#[ignore = "measures: to be run alone, in a release build"]
fn five_nodes_against_three() {
    /// The share of three nodes' transfers that is reached; the mark is 0.6.
    const LOADS: [(&str, &str, f64); 3] = [
        ("bulks of 8,000, 4 clients", "--clients 4 --bulk 8000", 0.6),
        ("bulks of 1,000, 8 clients", "--clients 8 --bulk 1000", 0.6),
        ("one by one, 64 clients", "--clients 64", 0.5),
    ];
    for (name, load, least) in LOADS {
        let per_second = |nodes| {
            let cluster = Cluster::start(nodes);
            number(&end(begin(&cluster.urls(), &format!("{load} --duration 3")))["per_second"])
        };
        let pairs: Vec<_> = (0..runs()).map(|_| (per_second(3), per_second(5))).collect();
        println!("{name}");
        median("  three nodes, transfers/s", pairs.iter().map(|(three, _)| *three).collect());
        median("  five nodes, transfers/s", pairs.iter().map(|(_, five)| *five).collect());
        let share = median("  five to three (mark: 0.60)", pairs.iter().map(|(three, five)| five / three).collect());
        assert!(share >= least, "below {least}");
    }
}

#[test]
#[ignore = "measures: to be run alone, in a release build"]
fn a_rare_speaker_beside_a_busy_node_costs_no_slots() {
    let mut forfeited = Vec::new();
    let mut latencies = Vec::new();
    for _ in 0..runs() {
        let cluster = Cluster::start(3);
        let busy = begin(&cluster.nodes[0].url(), "--clients 32 --duration 4");
        let rare = begin(&cluster.nodes[1].url(), "--clients 1 --rate 200 --duration 4");
        let (busy, rare) = (end(busy), end(rare));
        forfeited.push(100.0 * number(&busy["forfeited_share"]));
        latencies.push(number(&rare["p50_ms"]));
    }
    median("p50 of the rare speaker, ms", latencies);
    let forfeited = median("forfeited slots, % (mark: 2)", forfeited);
    assert!(forfeited <= 2.0);
}

/// How long after the node's start the clients' throughput was below 90 % of what it was before the node was killed for the last
/// time, on the average of a second: snapshots of any node cost a fifth of it for some tenths now and then. Prints it beside the
/// throughput meanwhile.
#[test]
#[ignore = "measures: to be run alone, in a release build"]
fn a_node_that_comes_back_under_load() {
    const TENTH: f64 = 0.1;
    const SECOND: usize = 10;
    let (mut took, mut lowest) = (Vec::new(), Vec::new());
    for _ in 0..runs() {
        let mut cluster = Cluster::start(3);
        let others = format!("{},{}", cluster.nodes[0].url(), cluster.nodes[1].url());
        let began = Instant::now();
        let bench = begin(&others, "--clients 60 --duration 10 --warm-up 1");
        sleep(Duration::from_secs(5));
        cluster.nodes[2].kill();
        sleep(Duration::from_secs(1));
        let started = began.elapsed().as_secs_f64();
        cluster.nodes[2].start();
        wait_until("the node is back", crate::support::PATIENCE, || cluster.nodes[2].status().is_some());
        let result = end(bench);
        // The timeline begins when the warm-up is over; connecting takes a little, too.
        let timeline: Vec<f64> = result["timeline"].as_array().unwrap().iter().map(number).collect();
        let at = |second: f64| ((second - 1.0) / TENTH) as usize;
        let mean = |tenths: &[f64]| tenths.iter().sum::<f64>() / tenths.len() as f64;
        let (killed, restarted) = (at(started - 1.0), at(started));
        let before = mean(&timeline[killed - 20..killed - 2]);
        let seconds = || restarted..timeline.len() - SECOND;
        let share = |at: usize| mean(&timeline[at..at + SECOND]) / before;
        lowest.push(seconds().map(share).fold(f64::INFINITY, f64::min));
        let last_low = seconds().rfind(|at| share(*at) < 0.9);
        let back = last_low.map_or(0.0, |at| (at + SECOND - restarted) as f64 * TENTH);
        let (without, after) = (mean(&timeline[killed + 3..restarted]), mean(&timeline[restarted + 10..]));
        println!(
            "transfers/s: {:.0} before, {:.0} without the node, {:.0} from a second after its start on; back after {back:.1} s",
            before / TENTH,
            without / TENTH,
            after / TENTH
        );
        took.push(back);
    }
    median("the lowest second after its start, of the transfers before", lowest);
    let took = median("above 90 % again after, s (mark: 1)", took);
    assert!(took <= 1.0);
}

#[test]
#[ignore = "measures: to be run alone, in a release build"]
fn an_idle_cluster_does_next_to_nothing() {
    const LOOK: Duration = Duration::from_secs(5);
    let cluster = Cluster::start(3);
    end(begin(&cluster.urls(), "--clients 3 --duration 1"));
    sleep(Duration::from_secs(2));
    let read = || -> Vec<(f64, f64)> {
        let statuses = cluster.nodes.iter().map(|node| node.status().unwrap());
        statuses.map(|status| (number(&status["process"]["cpu_ms"]), number(&status["commits"]))).collect()
    };
    let mut shares = Vec::new();
    let mut commits = 0.0;
    for _ in 0..runs() {
        let before = read();
        sleep(LOOK);
        for ((cpu, written), (cpu_before, written_before)) in read().into_iter().zip(before) {
            shares.push((cpu - cpu_before) / LOOK.as_millis() as f64 * 100.0);
            commits += written - written_before;
        }
    }
    let share = median("of a core, a node, % (mark: 1)", shares);
    println!("commits: {commits}");
    assert!(share < 1.0 && commits == 0.0);
}
