//! Every interleaving of one slot, explored with the real [`Slot`](rabia_bank_rabia::slot::Slot).
//!
//! # What can happen
//!
//! A state is what each node has in memory, on disk and said so far. From there everything is tried:
//!
//! - A node proposes, acts on any set of the messages that were said (the network loses, delays, duplicates and
//!   reorders), sees either side of the coin, fetches a payload from whoever holds it, and learns a decision, as such
//!   or as the votes of any phase that bind it.
//! - A write is under way until its sync is a step of its own. What is in memory, what is written and what is synced
//!   are kept apart: a crash in between finds the record, with the payload that it binds its node to, or it does not. A
//!   decision that is known is on disk after the crash, in the place of the records, or forgotten.
//! - A crash takes along what is in memory, payloads too, and what the node has said: all of it or nothing, for whoever
//!   got a part of it could have acted on it before. A node that never spoke restarts with the slot above its mark, or
//!   tainted.
//! - A node dies for good.
//!
//! # What is checked
//!
//! - No two nodes ever decide differently.
//! - Nothing gets stuck: steps only add to what was said and known, so every run without further faults ends. Where it
//!   ends, every node that lives knows the outcome and has its payload, or can go beyond the last phase that is looked
//!   at.
//!
//! # What keeps it small
//!
//! Nodes are interchangeable, so states that differ by their order are one. And what a slot does next depends on its
//! place and on what it hears, not on what brought it there: see [`steps`], where that is checked and not only assumed.
//! Coins are taken for arbitrary: heads takes any batch that a state or vote ever named.
//!
//! # What was found
//!
//! Agreement holds and nothing gets stuck in:
//!
//! | nodes | payloads at first | phases | restarts | deaths | states |
//! | --- | --- | --- | --- | --- | --- |
//! | 1 | one batch | 3 | 3 | 0 | 180 |
//! | 1 | two batches | 3 | 3 | 0 | 266 |
//! | 2 | one batch, at one node | 3 | 2 | 0 | 10,391 |
//! | 2 | two batches, at one node each | 3 | 1 | 0 | 12,115 |
//! | 3 | one batch, at one node | 2 | 1 | 0 | 449,666 |
//! | 3 | one batch, at one node | 2 | 1 | 1 | 1,126,366 |
//! | 3 | one batch, at all nodes | 2 | 2 | 0 | 2,022,585 |
//! | 3 | one batch, at one node | 2 | 2 | 1 | 5,177,269 |
//! | 3 | two batches, at one node each | 2 | 1 | 0 | 9,052,105 |
//! | 3 | one batch, at one node | 3 | 1 | 0 | 4,593,679 |
//! | 3 | one batch, at one node | 3 | 1 | 1 | 12,100,105 |
//! | 4 | one batch, at one node | 2 | 1 | 0 | 3,679,215 |
//! | 4 | one batch, at one node | 2 | 1 | 1 | 10,827,581 |
//!
//! Larger scopes have tests, too, and no figures here: three nodes with three restarts, and five nodes with one death.
//!
//! What takes seconds is in the default suite, the rest are tests that are ignored: `cargo test --release
//! --workspace --test rabia slot_model:: -- --ignored --test-threads 1 --nocapture`; with the name of a test, that one alone. In
//! the release profile the one of nine million states takes 20 s of one core and 370 MB. What is said and counted before the end of the phases is all explored;
//! what comes in later phases is not.
//!
//! Each rule of [`Broken`] was broken on its own, by the model around the slot: it forgets records, hides messages or
//! lets them come too early. All of them are found, with three nodes:
//!
//! | rule | broken | phases, restarts, deaths | found | after states |
//! | --- | --- | --- | --- | --- |
//! | 1, 3 † | who may have spoken and forgotten starts afresh | 3, 1, 0 | two decisions | 3,504,555 |
//! | 4 † | undecided though a majority was seen | 3, 1, 0 | two decisions | 4,033,303 |
//! | 4 † | a vote is sent before it is durable | 2, 1, 0 | two decisions | 422,821 |
//! | 5 † | a state of a later phase is sent before it is durable | 3, 1, 0 | two decisions | 4,298,678 |
//! | 6 ‡ | what names a batch counts without its payload | 2, 1, 1 | stuck | 123,852 |
//! | 6 ‡ | a record without its payload | 2, 1, 1 | stuck | 64,488 |
//! | 7 | a message counts as often as it is repeated | 2, 0, 0 | two decisions | 1,271 |
//! | 8 | a decision is kept for oneself | 2, 1, 0 | stuck | 12,413 |
//! | 10 † | records go with a decision that is not durable | 2, 1, 0 | two decisions | 417,070 |
//! | 10 † | a record overwrites the one before | 2, 1, 1 | stuck | 57,123 |
//! | 11 ‡ | only the last record is said again | 2, 1, 1 | stuck | 2,507 |
//! | 11 ‡ | no null and Abstain besides the records | 2, 1, 1 | stuck | 2,507 |
//! | 12 | restarts find an empty disk | 2, 1, 0 | two decisions | 829,386 |
//!
//! A state of a later phase that is sent before it is durable may be followed by another one of the same sender. That
//! leads to votes that contradict each other, and what a slot makes of those depends on how the nodes are called. So
//! there the nodes are told apart; they take turns, which is enough to show it: who is least far goes on, and a crash
//! comes where a state is on its way to the disk.

mod explorer;
mod steps;
mod words;
mod world;

use explorer::{Broken, Finding, Scope, explore};
use words::{A, B, Words};

/// Which payloads each node holds at first, how many phases are looked at, and how often nodes restart and die.
fn scope<const N: usize>(holds: [Words; N], phases: u8, restarts: u8, deaths: u8) -> Scope<N> {
    Scope { holds, phases, restarts, deaths, broken: None }
}

fn assert_holds<const N: usize>(scope: Scope<N>) {
    let finding = explore(scope);
    assert!(matches!(finding, Finding::Holds(_)), "{finding:?}");
}

fn assert_finds<const N: usize>(expected: Finding, broken: Broken, scope: Scope<N>) {
    assert_eq!(explore(Scope { broken: Some(broken), ..scope }), expected, "{broken:?}");
}

#[test]
fn one_or_two_nodes() {
    assert_holds(scope([A], 3, 3, 0));
    assert_holds(scope([A | B], 3, 3, 0));
    assert_holds(scope([A, 0], 3, 2, 0));
    assert_holds(scope([A, B], 3, 1, 0));
}

#[test]
fn three_nodes_with_one_restart() {
    assert_holds(scope([A, 0, 0], 2, 1, 0));
}

#[test]
fn broken_rules_that_few_steps_show() {
    use Finding::{Stuck, TwoDecisions};
    assert_finds(TwoDecisions, Broken::TaintIsForgotten, scope([A, A], 2, 2, 0));
    assert_finds(Stuck, Broken::VoteBeforeSync, scope([A, A], 2, 2, 0));
    assert_finds(Stuck, Broken::CountsWithoutPayload, scope([A, 0, 0], 2, 1, 1));
    assert_finds(Stuck, Broken::PayloadNotStored, scope([A, 0, 0], 2, 1, 1));
    assert_finds(TwoDecisions, Broken::SenderCountsTwice, scope([A, A, A], 2, 0, 0));
    assert_finds(Stuck, Broken::DecisionIsNotTold, scope([A, 0, 0], 2, 1, 0));
    assert_finds(TwoDecisions, Broken::RecordsGoEarly, scope([A], 2, 1, 0));
    assert_finds(Stuck, Broken::RecordsAreOverwritten, scope([A, A], 2, 2, 0));
    assert_finds(Stuck, Broken::OnlyLastRecordIsSaid, scope([A, 0, 0], 2, 1, 1));
    assert_finds(Stuck, Broken::NoNullAndAbstain, scope([A, 0, 0], 2, 1, 1));
    assert_finds(Stuck, Broken::EmptyDisk, scope([A], 2, 1, 0));
}

#[test]
#[ignore = "millions of states"]
fn three_nodes_with_one_restart_and_one_death() {
    assert_holds(scope([A, 0, 0], 2, 1, 1));
}

#[test]
#[ignore = "millions of states"]
fn three_nodes_with_two_restarts() {
    assert_holds(scope([A, A, A], 2, 2, 0));
}

#[test]
#[ignore = "millions of states"]
fn three_nodes_with_two_restarts_and_one_death() {
    assert_holds(scope([A, 0, 0], 2, 2, 1));
}

#[test]
#[ignore = "millions of states"]
fn three_nodes_with_one_restart_in_three_phases() {
    assert_holds(scope([A, 0, 0], 3, 1, 0));
}

#[test]
#[ignore = "millions of states"]
fn three_nodes_with_two_batches_and_one_restart() {
    assert_holds(scope([A, B, 0], 2, 1, 0));
}

#[test]
#[ignore = "millions of states"]
fn four_nodes_with_one_restart() {
    assert_holds(scope([A, 0, 0, 0], 2, 1, 0));
}

#[test]
#[ignore = "millions of states"]
fn three_nodes_with_three_restarts() {
    assert_holds(scope([A, 0, 0], 2, 3, 0));
}

#[test]
#[ignore = "millions of states"]
fn three_nodes_with_one_restart_and_one_death_in_three_phases() {
    assert_holds(scope([A, 0, 0], 3, 1, 1));
}

#[test]
#[ignore = "millions of states"]
fn four_nodes_with_one_restart_and_one_death() {
    assert_holds(scope([A, 0, 0, 0], 2, 1, 1));
}

#[test]
#[ignore = "millions of states"]
fn five_nodes() {
    assert_holds(scope([A, 0, 0, 0, 0], 2, 0, 1));
}

#[test]
#[ignore = "millions of states"]
fn broken_rules_that_many_steps_show_in_two_phases() {
    let scope = scope([A, A, A], 2, 1, 0);
    assert_finds(Finding::TwoDecisions, Broken::VoteBeforeSync, scope);
    assert_finds(Finding::TwoDecisions, Broken::RecordsGoEarly, scope);
    assert_finds(Finding::TwoDecisions, Broken::EmptyDisk, scope);
}

#[test]
#[ignore = "millions of states"]
fn broken_rules_that_many_steps_show_in_three_phases() {
    let scope = scope([A, A, A], 3, 1, 0);
    assert_finds(Finding::TwoDecisions, Broken::TaintIsForgotten, scope);
    assert_finds(Finding::TwoDecisions, Broken::UndecidedAgainstMajority, scope);
    assert_finds(Finding::TwoDecisions, Broken::StateBeforeSync, scope);
}
