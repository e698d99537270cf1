//! All loads that have a mark: each runs several times, and its median is compared with the mark.

use console::style;
use rabia_bank_messages::bank::ReadLevel;
use serde::Serialize;

use super::load::Load;
use super::probe::{self, Probe};
use super::report::Results;
use super::{Args, Trouble, measure};
use crate::client::NodeUrl;
use crate::program::{Exit, ProgramError, terminal};

/// What is compared, and with what.
#[derive(Clone, Copy)]
enum Mark {
    /// At least so many transfers a second.
    PerSecond(f64),
    /// At most so many milliseconds in the median.
    P50(f64),
    /// At most so many times a bare commit in the median. Needs the probe.
    Commits(f64),
    /// At most so many milliseconds for 99 %, and for 99.9 %.
    Tail(f64, f64),
    /// At least this share of a bare echo's messages a second. Needs the probe.
    Echo(f64),
    /// At least this share of the transfers of the load of this name, which runs right before each run: a cluster that has more
    /// behind it is a little slower.
    Share(f64, &'static str),
}

struct Row {
    name: &'static str,
    mark: Mark,
    load: fn(&mut Load),
}

const ONE_BY_ONE: &str = "one by one, 64 clients";

const ROWS: [Row; 12] = [
    Row {
        name: "bulks of 8,000, 4 clients",
        mark: Mark::PerSecond(170_000.0),
        load: |l| (l.clients, l.bulk) = (4, 8_000),
    },
    Row {
        name: "bulks of 1,000, 8 clients",
        mark: Mark::PerSecond(80_000.0),
        load: |l| (l.clients, l.bulk) = (8, 1_000),
    },
    Row { name: ONE_BY_ONE, mark: Mark::PerSecond(20_000.0), load: |l| l.clients = 64 },
    Row { name: "one by one, 1,000 clients", mark: Mark::PerSecond(20_000.0), load: |l| l.clients = 1_000 },
    Row {
        name: "1,000 in flight, 3 clients",
        mark: Mark::PerSecond(60_000.0),
        load: |l| (l.clients, l.in_flight) = (3, 334),
    },
    Row {
        name: "5,000 in flight, 3 clients",
        mark: Mark::PerSecond(130_000.0),
        load: |l| (l.clients, l.in_flight) = (3, 1_667),
    },
    Row { name: "one by one, 1 client", mark: Mark::P50(1.0), load: |l| l.clients = 1 },
    Row { name: "one by one, 1 client, to a commit", mark: Mark::Commits(3.0), load: |l| l.clients = 1 },
    Row { name: "hot accounts, 64 clients", mark: Mark::Share(1.0, ONE_BY_ONE), load: |l| l.hot = 10 },
    Row { name: "linearizable reads, 64 clients", mark: Mark::Echo(0.4), load: |l| l.reads = 100 },
    Row {
        name: "local reads, 64 clients",
        mark: Mark::Echo(0.6),
        load: |l| (l.reads, l.read) = (100, ReadLevel::Local),
    },
    Row { name: "open loop, half of one by one", mark: Mark::Tail(10.0, 50.0), load: |l| l.clients = 64 },
];

/// What the runs of a row came to.
#[derive(Serialize)]
struct RowResults {
    load: &'static str,
    /// The median, in the unit of the mark.
    median: f64,
    /// The lowest of all runs.
    lowest: f64,
    /// The highest of all runs.
    highest: f64,
    /// Whether the median meets the mark; absent where there was nothing to compare with.
    met: Option<bool>,
    books_balance: bool,
    /// The run with the median.
    results: Results,
}

/// Runs all rows and prints a line for each.
pub(super) async fn run(args: &Args, urls: &[NodeUrl]) -> Result<Result<Exit, ProgramError>, Trouble> {
    let mut all: Vec<RowResults> = Vec::new();
    for row in &ROWS {
        let mut load = row.of(&args.load);
        if let Mark::Tail(..) = row.mark {
            load.rate =
                all.iter().find(|earlier| earlier.load == ONE_BY_ONE).map(|earlier| (earlier.median / 2.0) as u64);
        }
        let mut runs = Vec::new();
        for _ in 0..args.runs {
            let probe = match &args.probe {
                Some(folder) => Some(probe::measure(folder, load.clients as usize).await?),
                None => None,
            };
            let other = match row.other() {
                Some(other) => Some(measure(urls, &other.of(&args.load)).await?.0),
                None => None,
            };
            let (results, _) = measure(urls, &load).await?;
            let books_balance = results.books_balance && other.as_ref().is_none_or(|other| other.books_balance);
            let results = Results { probe, books_balance, ..results };
            runs.push((row.mark.value(&results, other.map_or(f64::NAN, |other| other.per_second)), results));
        }
        let results = summary(row, runs);
        if let Err(error) = print(row, &results, args.json) {
            return Ok(Err(error));
        }
        all.push(results);
    }
    Ok(Ok(if all.iter().all(|row| row.books_balance) { Exit::Done } else { Exit::Damaged }))
}

impl Row {
    fn of(&self, load: &Load) -> Load {
        let mut load = load.clone();
        (self.load)(&mut load);
        load
    }

    /// What it is compared with.
    fn other(&self) -> Option<&'static Row> {
        match self.mark {
            Mark::Share(_, name) => ROWS.iter().find(|row| row.name == name),
            _ => None,
        }
    }
}

impl Mark {
    /// What is compared with the mark; `other` are the transfers a second of the load that it is a share of. For tails the worse
    /// of the two, as a share of what is allowed.
    fn value(self, results: &Results, other: f64) -> f64 {
        let reads = results.reads.as_ref().map_or(0.0, |reads| reads.per_second);
        match self {
            Mark::PerSecond(_) => results.per_second,
            Mark::P50(_) => results.latency.p50_ms,
            Mark::Tail(p99, p999) => (results.latency.p99_ms / p99).max(results.latency.p999_ms / p999),
            Mark::Echo(_) => results.probe.map_or(f64::NAN, |Probe { echo_per_second, .. }| reads / echo_per_second),
            Mark::Commits(_) => {
                results.probe.map_or(f64::NAN, |Probe { commit_p50_ms, .. }| results.latency.p50_ms / commit_p50_ms)
            }
            Mark::Share(..) => results.per_second / other,
        }
    }

    fn is_met(self, value: f64) -> Option<bool> {
        let met = match self {
            Mark::PerSecond(least) | Mark::Echo(least) | Mark::Share(least, _) => value >= least,
            Mark::P50(most) | Mark::Commits(most) => value <= most,
            Mark::Tail(..) => value <= 1.0,
        };
        value.is_finite().then_some(met)
    }

    fn text(self, value: f64) -> String {
        match self {
            Mark::PerSecond(_) => format!("{}/s", terminal::grouped(value as u64)),
            Mark::P50(_) => format!("{value:.2} ms"),
            _ if !value.is_finite() => "not known".into(),
            Mark::Commits(_) | Mark::Tail(..) | Mark::Echo(_) | Mark::Share(..) => format!("{value:.2} x"),
        }
    }

    fn wanted(self) -> String {
        match self {
            Mark::PerSecond(least) => format!("{}/s", terminal::grouped(least as u64)),
            Mark::P50(most) => format!("{most:.1} ms"),
            Mark::Tail(p99, p999) => format!("p99 {p99:.0} ms, p99.9 {p999:.0} ms"),
            Mark::Commits(most) => format!("{most:.1} x commit"),
            Mark::Echo(least) => format!("{least:.1} x echo"),
            Mark::Share(least, name) => format!("{least:.1} x {name}"),
        }
    }
}

/// The median of the runs and their range.
fn summary(row: &Row, mut runs: Vec<(f64, Results)>) -> RowResults {
    let books_balance = runs.iter().all(|(_, run)| run.books_balance);
    runs.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let (lowest, highest) = (runs[0].0, runs[runs.len() - 1].0);
    let (median, results) = runs.swap_remove(runs.len() / 2);
    RowResults { load: row.name, median, lowest, highest, met: row.mark.is_met(median), books_balance, results }
}

fn print(row: &Row, results: &RowResults, json: bool) -> Result<(), ProgramError> {
    if json {
        return Ok(terminal::print(serde_json::to_string(results).map_err(|e| ProgramError::Other(e.to_string()))?)?);
    }
    let text = |value| row.mark.text(value);
    let met = match results.met {
        Some(true) => style("met").green(),
        Some(false) => style("missed").red(),
        None => style("no probe").dim(),
    };
    let RowResults { median, lowest, highest, results: Results { latency, cluster, .. }, .. } = results;
    let latency = results.results.reads.as_ref().map_or(*latency, |reads| reads.latency);
    let range = format!("({} to {})", text(*lowest), text(*highest));
    let forfeited = cluster.forfeited_share.map_or("?".into(), |share| format!("{:.2} %", 100.0 * share));
    let books = if results.books_balance { "" } else { ", THE BOOKS DO NOT BALANCE" };
    terminal::print(format_args!(
        "{:<31} {:>12} {range:<28} {met} ({}); p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, forfeited {forfeited}{books}",
        row.name,
        text(*median),
        row.mark.wanted(),
        latency.p50_ms,
        latency.p99_ms,
        latency.p999_ms,
    ))?;
    Ok(())
}
