//! What a run found, for people and for programs.

use std::time::Duration;

use console::style;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::books::Measure;
use super::nodes::ClusterFigures;
use super::probe::Probe;
use crate::program::ProgramError;
use crate::program::terminal::{self, grouped};

/// What a run found.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub(super) struct Results {
    /// Transfers that were applied while it measured.
    pub acknowledged: u64,
    /// Transfers and reads that the bank refused.
    pub refused: u64,
    /// Transfers and reads whose outcome is not known.
    pub unknown: u64,
    /// Transfers and reads that could not be sent.
    pub not_reached: u64,
    /// Acknowledged transfers per second.
    pub per_second: f64,
    /// Of requests with an applied transfer.
    #[serde(flatten)]
    pub latency: Latency,
    /// Of the reads, if there were any.
    pub reads: Option<Reads>,
    /// The longest time between two acknowledgements, over all clients.
    pub longest_gap_ms: f64,
    /// Applied transfers and answered reads in each tenth of a second.
    pub timeline: Vec<u64>,
    /// What the nodes say.
    #[serde(flatten)]
    pub cluster: ClusterFigures,
    /// Acknowledged transfers in a slot that carried a batch, on average.
    pub transfers_per_slot: Option<f64>,
    /// Syncs of all nodes' disks for one transfer.
    pub syncs_per_transfer: Option<f64>,
    /// Bytes to all nodes' disks for one transfer.
    pub bytes_per_transfer: Option<f64>,
    /// Cores that the benchmark itself kept busy.
    pub bench_cpu_cores: f64,
    /// Whether the money is all there, and where it should be.
    pub books_balance: bool,
    /// What the machine does without a bank, if that was measured.
    pub probe: Option<Probe>,
}

/// How many reads were answered, and how fast.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub(super) struct Reads {
    pub per_second: f64,
    #[serde(flatten)]
    pub latency: Latency,
}

/// How long requests took, from their (intended) beginning to their answer.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub(super) struct Latency {
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Latency {
    fn of(us: &Histogram<u64>) -> Latency {
        let ms = |us: u64| us as f64 / 1_000.0;
        let quantile = |q: f64| ms(us.value_at_quantile(q));
        Latency {
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: ms(us.max()),
        }
    }
}

impl Results {
    pub(super) fn new(
        measured: &Measure,
        took: Duration,
        cluster: ClusterFigures,
        bench_cpu_cores: f64,
        books_balance: bool,
    ) -> Results {
        let per_second = |count: u64| (count as f64 / took.as_secs_f64() * 10.0).round() / 10.0;
        let acknowledged = measured.acknowledged;
        let per_transfer = |of: u64| (acknowledged > 0).then(|| of as f64 / acknowledged as f64);
        let carried = cluster.slots.zip(cluster.forfeited_share).map(|(slots, null)| slots as f64 * (1.0 - null));
        let sum = |of: fn(&super::nodes::NodeFigures) -> u64| match cluster.nodes.is_empty() {
            true => None,
            false => per_transfer(cluster.nodes.iter().map(of).sum()),
        };
        Results {
            acknowledged,
            refused: measured.refused,
            unknown: measured.unknown,
            not_reached: measured.not_reached,
            per_second: per_second(acknowledged),
            latency: Latency::of(&measured.latency_us),
            reads: (measured.reads > 0).then(|| Reads {
                per_second: per_second(measured.reads),
                latency: Latency::of(&measured.read_latency_us),
            }),
            timeline: measured.timeline.clone(),
            longest_gap_ms: measured.longest_gap.as_micros() as f64 / 1_000.0,
            transfers_per_slot: carried.filter(|slots| *slots >= 1.0).map(|slots| acknowledged as f64 / slots),
            syncs_per_transfer: sum(|node| node.syncs),
            bytes_per_transfer: sum(|node| node.written_bytes),
            cluster,
            bench_cpu_cores,
            books_balance,
            probe: None,
        }
    }
}

/// The results as one line of JSON.
pub(super) fn json(results: &Results) -> Result<String, ProgramError> {
    serde_json::to_string(results).map_err(|e| ProgramError::Other(e.to_string()))
}

/// Prints the results for people.
pub(super) fn print_table(results: &Results) -> std::io::Result<()> {
    for line in lines(results) {
        terminal::print(line)?;
    }
    Ok(())
}

fn lines(results: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    if results.acknowledged > 0 || results.reads.is_none() {
        lines.push(style(format!("{} transfers/s", grouped(results.per_second as u64))).bold().to_string());
    }
    lines.extend(
        results.reads.iter().map(|r| style(format!("{} reads/s", grouped(r.per_second as u64))).bold().to_string()),
    );
    let line = |name: &str, text: String| format!("  {name:<19} {text:>12}");
    for (name, count) in [
        ("acknowledged", results.acknowledged),
        ("refused", results.refused),
        ("unknown", results.unknown),
        ("not reached", results.not_reached),
    ] {
        lines.push(line(name, grouped(count)));
    }
    let ms = |ms: f64| format!("{ms:.2} ms");
    let mut latency = |of: &str, l: &Latency| {
        let rows = [("p50", l.p50_ms), ("p90", l.p90_ms), ("p99", l.p99_ms), ("p99.9", l.p999_ms), ("max", l.max_ms)];
        lines.extend(rows.map(|(name, time)| line(&format!("{of} {name}"), ms(time))));
    };
    if results.acknowledged > 0 {
        latency("latency", &results.latency);
    }
    results.reads.iter().for_each(|reads| latency("read", &reads.latency));
    lines.push(line("longest gap", ms(results.longest_gap_ms)));
    let known = |value: Option<f64>, show: &dyn Fn(f64) -> String| value.map_or("not known".into(), show);
    let cluster = &results.cluster;
    lines.push(line("forfeited slots", known(cluster.forfeited_share, &|share| format!("{:.2} %", 100.0 * share))));
    lines.push(line("phases a slot", known(cluster.phases_per_slot, &|phases| format!("{phases:.3}"))));
    lines.push(line("transfers a slot", known(results.transfers_per_slot, &|transfers| format!("{transfers:.1}"))));
    lines.push(line("syncs a transfer", known(results.syncs_per_transfer, &|syncs| format!("{syncs:.3}"))));
    lines.push(line("bytes a transfer", known(results.bytes_per_transfer, &|bytes| grouped(bytes as u64))));
    for node in &cluster.nodes {
        let used = format!("{:.2} cores, {:.0} MiB at most", node.cpu_cores, node.peak_memory_mib);
        lines.push(format!("  {:<19} {used}", format!("node {}", node.node)));
    }
    lines.push(format!("  {:<19} {:.2} cores", "the benchmark", results.bench_cpu_cores));
    for stage in &cluster.stages {
        let times = format!("p50 {}, p99 {}", ms(stage.p50_ms), ms(stage.p99_ms));
        lines.push(format!("  {:<19} {times}", format!("in {}", stage.stage)));
    }
    lines.extend(results.probe.iter().flat_map(|probe| probe_lines(results, probe)));
    let books = if results.books_balance { style("balance").green() } else { style("DO NOT BALANCE").red().bold() };
    lines.push(format!("  the books {books}"));
    lines
}

fn probe_lines(results: &Results, probe: &Probe) -> Vec<String> {
    let mut lines = vec![
        format!("  {:<19} p50 {:.2} ms", "a bare commit", probe.commit_p50_ms),
        format!(
            "  {:<19} {} /s, p50 {:.2} ms",
            "a bare echo",
            grouped(probe.echo_per_second as u64),
            probe.echo_p50_ms
        ),
    ];
    if results.acknowledged > 0 {
        let times = results.latency.p50_ms / probe.commit_p50_ms;
        lines.push(format!("  {:<19} {times:.1} times a bare commit", "latency p50"));
    }
    if let Some(reads) = &results.reads {
        let times = reads.per_second / probe.echo_per_second;
        lines.push(format!("  {:<19} {times:.2} times a bare echo", "reads"));
    }
    lines
}
