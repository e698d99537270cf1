//! Simulated clusters: the same seed is the same run, a few dozen seeds are clean, and broken rules are noticed.
#![allow(clippy::unwrap_used)] // a test says what failed by failing

use rabia_bank::simulate::{Run, Sabotage, Settings, run};

fn settings(operations: u64) -> Settings {
    Settings { nodes: None, operations, trace: false, sabotage: None }
}

fn clean(seed: u64, settings: &Settings) -> Run {
    let run = run(seed, settings);
    assert_eq!(run.violation, None, "seed {seed}, {settings:?}");
    run
}

#[test]
fn the_same_seed_is_the_same_run() {
    let settings = Settings { trace: true, ..settings(300) };
    for seed in [3, 4, 5] {
        let (first, second) = (run(seed, &settings), run(seed, &settings));
        assert!(first.trace.len() > 1_000, "seed {seed}: {} lines", first.trace.len());
        let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn dozens_of_seeds_are_clean() {
    let settings = settings(300);
    let mut faults = std::collections::BTreeSet::new();
    for seed in 1..=36 {
        let run = clean(seed, &settings);
        assert!(run.report.slots > 50 && run.report.acknowledged > 100, "seed {seed}: {:?}", run.report);
        faults.extend(run.report.faults.into_keys());
    }
    assert!(faults.len() >= 18, "only these faults were met: {faults:?}");
}

/// Which property catches a broken rule first, within so many seeds.
fn caught(sabotage: Sabotage, seeds: u64) -> &'static str {
    let settings = Settings { sabotage: Some(sabotage), ..settings(600) };
    let found = (1..=seeds).find_map(|seed| run(seed, &settings).violation);
    found.map_or("nothing", |violation| violation.property)
}

#[test]
fn broken_rules_are_noticed() {
    assert_eq!(caught(Sabotage::SentBeforeDurable, 2), "durable before sent");
    assert_eq!(caught(Sabotage::SavesForgotten, 2), "durable before sent");
    assert_eq!(caught(Sabotage::AppliedTwice, 12), "the ledger is the model");
    assert_eq!(caught(Sabotage::ReadsWithoutRound, 12), "linearizable reads");
    let lying = caught(Sabotage::DisksLie, 30);
    assert!(["durability", "store", "handshake"].contains(&lying), "{lying}");
}
