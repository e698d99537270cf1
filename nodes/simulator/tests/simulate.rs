//! Simulated clusters: the same seed is the same run, hundreds of seeds are clean, and broken rules are noticed.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test says what failed by failing

use std::thread::available_parallelism;
use std::time::Instant;

use rabia_bank_messages::sabotage::{Broken, Rule};
use rabia_bank_simulator::{Jobs, Kind, Report, Settings, run};

fn settings(operations: u64) -> Settings {
    Settings { machine: Kind::Bank, nodes: None, operations, trace: false }
}

/// The same with a key-value store in the place of the bank.
fn key_values(operations: u64) -> Settings {
    Settings { machine: Kind::KeyValues, ..settings(operations) }
}

/// The runs of these seeds up to the first with a violation, with a rule broken, if any.
fn runs(rule: Option<Rule>, seeds: u64, settings: Settings) -> Jobs {
    let threads = available_parallelism().unwrap().get();
    let run = move |seed| {
        let _broken = rule.map(Broken::rule);
        run(seed, &settings)
    };
    Jobs::start(1..seeds + 1, threads, run).unwrap()
}

#[test]
fn the_same_seed_is_the_same_run() {
    for (seed, settings) in [(3, settings(300)), (4, settings(300)), (5, settings(300)), (6, key_values(300))] {
        let settings = Settings { trace: true, ..settings };
        let (first, second) = (run(seed, &settings), run(seed, &settings));
        assert!(first.trace.len() > 1_000, "seed {seed}: {} lines", first.trace.len());
        let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn hundreds_of_seeds_are_clean() {
    let mut sum = Report::default();
    for (seed, run) in runs(None, 300, settings(200)) {
        assert_eq!(run.violation, None, "seed {seed}");
        assert!(run.report.slots > 50 && run.report.acknowledged > 20, "seed {seed}: {:?}", run.report);
        sum.add(&run.report);
    }
    assert!(sum.faults.len() >= 38, "only these faults were met: {:?}", sum.faults);
    assert!(sum.faults.contains_key("commands that were certainly not executed"), "{:?}", sum.faults);
    assert!(sum.coin_slots > 5_000, "the coin was rarely asked: {sum:?}");
}

/// Something else than the bank suffers the same, and its history is read back from disk meanwhile.
#[test]
fn a_key_value_store_is_right_under_the_same_faults() {
    let mut sum = Report::default();
    for (seed, run) in runs(None, 100, key_values(200)) {
        assert_eq!(run.violation, None, "seed {seed}");
        assert!(run.report.slots > 50 && run.report.acknowledged > 20, "seed {seed}: {:?}", run.report);
        sum.add(&run.report);
    }
    let met = |what: &str| sum.faults.get(what).copied().unwrap_or(0);
    for what in ["blocks of the history read", "snapshots installed", "new stores at work", "nonsense of members"] {
        assert!(met(what) > 20, "{what}: {:?}", sum.faults);
    }
}

/// One seed of thirteen has links that are gone for one side alone, and power failures of which peers are not told. The other side
/// finds out when the peer comes with another link, or by the silence.
#[test]
fn links_that_one_side_still_believes_in_are_replaced_or_given_up() {
    for settings in [settings(200), key_values(200)] {
        let mut sum = Report::default();
        for seed in (7..1_200).step_by(13) {
            let run = run(seed, &settings);
            assert_eq!(run.violation, None, "seed {seed}");
            sum.add(&run.report);
        }
        let met = |what: &str| sum.faults.get(what).copied().unwrap_or(0);
        for what in ["link gone for one side alone", "links displaced by another", "links given up in silence"] {
            assert!(met(what) > 5, "{what}: {:?}", sum.faults);
        }
    }
}

/// All rules that can be broken.
const RULES: &[Rule] = &[
    Rule::Reserve,
    Rule::TaintRemembered,
    Rule::TaintedAbstains,
    Rule::ProposalMajority,
    Rule::StateQuorum,
    Rule::VoteFollowsMajority,
    Rule::VoteDurableFirst,
    Rule::DecisionNeedsVotes,
    Rule::VoteBindsState,
    Rule::CommonCoin,
    Rule::StateDurableFirst,
    Rule::PayloadHeld,
    Rule::ParkedReplaced,
    Rule::PayloadDurable,
    Rule::PayloadDigest,
    Rule::PayloadChecked,
    Rule::NumbersChecked,
    Rule::DecisionsStay,
    Rule::UnusableIsEmpty,
    Rule::OnePerSender,
    Rule::FirstCounts,
    Rule::Repeat,
    Rule::RecordsStay,
    Rule::SnapshotKeepsAbove,
    Rule::RestartSpeaks,
    Rule::RestartSaysAll,
    Rule::RunsKnown,
    Rule::PromiseCounts,
    Rule::StoreMadeOnce,
    Rule::NewStoreByLog,
    Rule::NewStoreWindow,
    Rule::NewStoreReads,
    Rule::Window,
    Rule::StampAhead,
    Rule::NoLeaps,
    Rule::InOrder,
    Rule::SnapshotSettlesPending,
    Rule::ReadRound,
    Rule::ReadQuorum,
    Rule::ReadSeesVotes,
    Rule::ReadEcho,
    Rule::ReadWaits,
    Rule::ReportedDurable,
    Rule::RecordsWritten,
    Rule::SyncsSync,
    Rule::BooksCoverLog,
    Rule::BatchOnce,
    Rule::RepliesKept,
    Rule::RetriesUnknown,
    Rule::TokenAtApply,
    Rule::ScopesAtApply,
    Rule::LimitsAtApply,
    Rule::SessionOwned,
    Rule::SessionsExpire,
    Rule::MonotonicTime,
    Rule::OverflowChecked,
];

/// What was found wrong with the shipped code, by seed and requests.
const FOUND: &[(u64, u64)] = &[
    // A payload was forgotten though its batch was decided after it had been given up, and again though it came again.
    (5, 500),
    // A snapshot that was still being received was installed over newer books.
    (88, 300),
    // Decisions that waited long for the disk named a payload that had gone with another decision of the same batch.
    (22, 600),
    // Books covered a slot that the log lacked after a crash; whoever asked for it got nothing, for ever.
    (242, 200),
    // A batch that some had forgotten to be decided was proposed for ever, and no one else backed it.
    (100_667, 2_000),
    // A payload went from memory though an open slot named it.
    (102_537, 2_000),
];

#[test]
fn seeds_that_found_something_are_clean() {
    for (seed, operations) in FOUND {
        assert_eq!(run(*seed, &settings(*operations)).violation, None, "seed {seed}, {operations} requests");
    }
}

/// Rules that are noticed within a few seeds, and by what. The campaign below runs all of them.
const NOTICED: &[(Rule, &[&str])] = &[
    (Rule::Reserve, &["reserve"]),
    (Rule::TaintRemembered, &["tainted slots"]),
    (Rule::TaintedAbstains, &["tainted slots"]),
    (Rule::ProposalMajority, &["messages follow from messages", "one batch a slot"]),
    (Rule::StateQuorum, &["messages follow from messages"]),
    (Rule::VoteFollowsMajority, &["majorities are voted for"]),
    (Rule::VoteDurableFirst, &["durable before sent"]),
    (Rule::DecisionNeedsVotes, &["messages follow from messages"]),
    (Rule::VoteBindsState, &["messages follow from messages", "a bound value stays"]),
    (Rule::CommonCoin, &["messages follow from messages"]),
    (Rule::StateDurableFirst, &["durable before sent"]),
    (Rule::PayloadHeld, &["messages follow from messages", "store"]),
    (Rule::PayloadDurable, &["store"]),
    (Rule::PayloadDigest, &["validity", "store", "nobody waits for what it has"]),
    (Rule::PayloadChecked, &["validity", "messages follow from messages"]),
    (Rule::NumbersChecked, &["numbers that can't be"]),
    (Rule::DecisionsStay, &["assertions"]),
    (Rule::UnusableIsEmpty, &["assertions"]),
    // What takes a free place may take the node's own, which then says it for itself.
    (Rule::OnePerSender, &["messages follow from messages", "reserve"]),
    (Rule::Repeat, &["liveness"]),
    (Rule::RecordsStay, &["durability"]),
    (Rule::SnapshotKeepsAbove, &["durability"]),
    (Rule::RestartSpeaks, &["liveness"]),
    (Rule::PromiseCounts, &["old copies"]),
    (Rule::StoreMadeOnce, &["handshake", "one message per sender", "old copies"]),
    (Rule::NewStoreByLog, &["handshake", "one store a member"]),
    (Rule::NewStoreWindow, &["one store a member", "handshake", "assertions"]),
    (Rule::NewStoreReads, &["one store a member"]),
    (Rule::Window, &["window"]),
    // Batches of the far future are those that somebody made up.
    (Rule::StampAhead, &["log time", "validity"]),
    (Rule::NoLeaps, &["log time"]),
    (Rule::InOrder, &["order"]),
    (Rule::ReadRound, &["linearizable reads"]),
    (Rule::ReadQuorum, &["read rounds", "linearizable reads"]),
    (Rule::ReadEcho, &["read rounds"]),
    (Rule::ReadWaits, &["linearizable reads"]),
    (Rule::ReportedDurable, &["durable before sent"]),
    (Rule::RecordsWritten, &["durable before sent"]),
    (Rule::SyncsSync, &["store", "durability", "handshake", "assertions"]),
    (Rule::BooksCoverLog, &["store"]),
    (Rule::BatchOnce, &["the ledger is the model"]),
    (Rule::RepliesKept, &["the ledger is the model"]),
    (Rule::RetriesUnknown, &["refused is not executed"]),
    (Rule::TokenAtApply, &["tokens are in force"]),
    // What is let through may be refused for another reason.
    (Rule::ScopesAtApply, &["roles and scopes", "reads", "the ledger is the model"]),
    (Rule::LimitsAtApply, &["limits", "the ledger is the model"]),
    (Rule::SessionOwned, &["sessions are their principal's"]),
    (Rule::SessionsExpire, &["the ledger is the model"]),
    (Rule::MonotonicTime, &["the ledger is the model", "assertions"]),
    (Rule::OverflowChecked, &["assertions", "the ledger is the model"]),
];
/// What "a few" is. Three hundred seeds that find nothing take thirty seconds.
const FEW: u64 = 300;

/// Rules that the key-value store depends on as the bank does.
const NOTICED_WITH_KEY_VALUES: &[(Rule, &[&str])] = &[
    (Rule::ReadRound, &["linearizable reads"]),
    (Rule::ReadWaits, &["linearizable reads"]),
    (Rule::RepliesKept, &["the ledger is the model"]),
    (Rule::BatchOnce, &["the ledger is the model"]),
    (Rule::SessionsExpire, &["the ledger is the model"]),
    (Rule::RetriesUnknown, &["refused is not executed"]),
    (Rule::UnusableIsEmpty, &["assertions"]),
    (Rule::PayloadChecked, &["validity", "messages follow from messages"]),
    // What the log no longer has, books that lag behind have lost.
    (Rule::BooksCoverLog, &["store", "exactly once"]),
];

/// Which property catches a broken rule first, and with which seed.
fn caught(rule: Rule, seeds: u64, settings: Settings) -> Option<(u64, &'static str, String)> {
    let (seed, run) = runs(Some(rule), seeds, settings).last()?;
    run.violation.map(|violation| (seed, violation.property, violation.what))
}

#[test]
fn broken_rules_are_noticed() {
    are_noticed(NOTICED, &settings(300));
}

#[test]
fn broken_rules_are_noticed_with_a_key_value_store() {
    are_noticed(NOTICED_WITH_KEY_VALUES, &key_values(300));
}

fn are_noticed(rules: &[(Rule, &[&str])], settings: &Settings) {
    for (rule, properties) in rules {
        let found = caught(*rule, FEW, settings.clone());
        let property = found.as_ref().map_or("nothing", |(_, property, _)| property);
        assert!(properties.contains(&property), "{rule:?}: {found:?}");
    }
}

/// Prints the table in the documentation of `rabia_bank_simulator`. With `RULE` one rule; with `SEEDS` so many seeds at most,
/// with `OPS` of so many requests, with `MACHINE=kv` of the key-value store.
#[test]
#[ignore = "takes minutes: prints after how many seeds each broken rule is noticed"]
fn after_how_many_seeds_broken_rules_are_noticed() {
    let variable = |name: &str| std::env::var(name).ok();
    let number = |name: &str, or: u64| variable(name).map_or(or, |number| number.parse().unwrap());
    let seeds = number("SEEDS", 300);
    let operations = number("OPS", 300);
    let settings =
        if variable("MACHINE").as_deref() == Some("kv") { key_values(operations) } else { settings(operations) };
    for rule in RULES {
        if variable("RULE").is_some_and(|only| only != format!("{rule:?}")) {
            continue;
        }
        let began = Instant::now();
        match caught(*rule, seeds, settings.clone()) {
            Some((seed, property, what)) => {
                let what: String = what.chars().take(160).collect();
                println!("| {rule:?} | {property} | {seed} | {:.1} s | {what}", began.elapsed().as_secs_f64());
            }
            None => println!("| {rule:?} | nothing | > {seeds} | {:.1} s |", began.elapsed().as_secs_f64()),
        }
    }
}
