//! `rabia-bank simulate`: many seeds, or one to look at.

use std::io::IsTerminal;
use std::thread::available_parallelism;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use rabia_bank_simulator::{self as simulator, Jobs, Kind, Report, Settings, Violation};
use serde_json::json;

use super::terminal::{grouped, print};
use super::{Exit, ProgramError};

/// What the nodes replicate.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Machine {
    /// The bank, with all its commands.
    Bank,
    /// A key-value store that keeps its history.
    Kv,
}

/// The command line of `simulate`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The seed to run, or the first of several.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds: up to the first that fails.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// How many seeds at once; what is printed does not depend on it. Default: as many as there are processors.
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u64).range(1..))]
    jobs: Option<u64>,
    /// What the nodes replicate.
    #[arg(long, value_enum, default_value_t = Machine::Bank)]
    machine: Machine,
    /// How many nodes, from 3 to 5. Default: by turns.
    #[arg(long, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: Option<u64>,
    /// Requests of all clients in one run.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    ops: u64,
    /// Print one JSON object, the same for the same seeds.
    #[arg(long)]
    json: bool,
    /// Print what happened, slot by slot, in the run of one seed.
    #[arg(long, conflicts_with = "seeds")]
    trace: bool,
}

/// Runs the seeds up to the first that fails.
///
/// # Errors
/// If stdout can't be written, or no threads can be had.
pub fn run(args: &Args) -> Result<Exit, ProgramError> {
    let machine = match args.machine {
        Machine::Bank => Kind::Bank,
        Machine::Kv => Kind::KeyValues,
    };
    let nodes = args.nodes.map(|nodes| nodes as usize);
    let settings = Settings { machine, nodes, operations: args.ops, trace: args.trace };
    let (started, bar) = (Instant::now(), bar(args.seeds));
    simulator::name_seeds_of_panics();
    let range = args.seed..args.seed.saturating_add(args.seeds);
    let runs = Jobs::start(range, threads(args)?, move |seed| simulator::run(seed, &settings))?;
    let (mut sum, mut seeds, mut failed) = (Report::default(), 0, None);
    for (seed, run) in runs {
        seeds += 1;
        bar.inc(1);
        sum.add(&run.report);
        for line in &run.trace {
            print(line)?;
        }
        failed = run.violation.map(|violation| (seed, violation));
    }
    bar.finish_and_clear();
    if args.json {
        print(json(seeds, &sum, failed.as_ref()))?;
    } else {
        summary(seeds, &sum, started)?;
    }
    let Some((seed, Violation { property, what })) = failed else { return Ok(Exit::Done) };
    eprintln!("violation: seed {seed}: {property}: {what}\nagain: {} --trace", command(args, seed));
    Ok(Exit::Failed)
}

/// How many threads run seeds.
fn threads(args: &Args) -> std::io::Result<usize> {
    let wanted = args.jobs.map_or_else(|| available_parallelism().map(|jobs| jobs.get() as u64), Ok)?;
    Ok(wanted.min(args.seeds) as usize)
}

/// The command that runs this seed alone.
fn command(args: &Args, seed: u64) -> String {
    let nodes = args.nodes.map_or(String::new(), |nodes| format!(" --nodes {nodes}"));
    let machine = if args.machine == Machine::Kv { " --machine kv" } else { "" };
    format!("rabia-bank simulate --seed {seed} --ops {}{nodes}{machine}", args.ops)
}

fn json(seeds: u64, sum: &Report, failed: Option<&(u64, Violation)>) -> serde_json::Value {
    json!({
        "seeds": seeds,
        "slots": sum.slots,
        "null_slots": sum.null_slots,
        "acknowledged": sum.acknowledged,
        "reads": sum.reads,
        "phases": sum.phases,
        "coin_slots": sum.coin_slots,
        "faults": sum.faults,
        "violations": u64::from(failed.is_some()),
        "first_failing_seed": failed.map(|(seed, _)| seed),
        "violation": failed.map(|(_, violation)| format!("{}: {}", violation.property, violation.what)),
    })
}

fn summary(seeds: u64, sum: &Report, started: Instant) -> Result<(), ProgramError> {
    let decisions: u64 = sum.phases.iter().sum();
    let later = decisions - sum.phases[0];
    let share = |part: u64, of: u64| part as f64 * 100.0 / of.max(1) as f64;
    print(format_args!(
        "{} seeds: {} slots, {:.1} % forfeited; {:.2} % of decisions in a later phase than the first, the coin asked in {} \
         slots",
        grouped(seeds),
        grouped(sum.slots),
        share(sum.null_slots, sum.slots),
        share(later, decisions),
        grouped(sum.coin_slots)
    ))?;
    print(format_args!("{} commands acknowledged, {} reads answered", grouped(sum.acknowledged), grouped(sum.reads)))?;
    for (what, count) in &sum.faults {
        print(format_args!("{:>12}  {what}", grouped(*count)))?;
    }
    print(format_args!("{:.0} seeds a minute", seeds as f64 * 60.0 / started.elapsed().as_secs_f64()))?;
    Ok(())
}

/// A bar on stderr; nothing where that is no terminal.
fn bar(seeds: u64) -> ProgressBar {
    if seeds == 1 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {eta} left");
    ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
