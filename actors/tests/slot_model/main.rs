//! Every interleaving of one slot, explored with the real [`Slot`](rabia_bank_actors::consensus::slot::Slot).
//!
//! # What can happen
//!
//! A state is what each node has in memory, on disk and said so far. From there everything is tried:
//!
//! - A node proposes, acts on any set of the messages that were said (the network loses, delays, duplicates and
//!   reorders), sees either side of the coin, fetches a payload from whoever holds it, and learns a decision, as such or
//!   as the votes of any phase that bind it.
//! - A write is under way until its sync is a step of its own. What is in memory, what is written and what is synced are kept
//!   apart: a crash in between finds the record, with the payload that it binds its node to, or it does not. A decision that
//!   is known is on disk after the crash, in the place of the records, or forgotten.
//! - A crash takes along what is in memory, payloads too, and what the node has said: all of it or nothing, for whoever
//!   got a part of it could have acted on it before. A node that never spoke restarts with the slot above its mark, or
//!   tainted.
//! - A node dies for good.
//!
//! # What is checked
//!
//! - No two nodes ever decide differently.
//! - Nothing gets stuck: steps only add to what was said and known, so every run without further faults ends. Where it ends,
//!   every node that lives knows the outcome and has its payload, or can go beyond the last phase that is looked at.
//!
//! # What keeps it small
//!
//! Nodes are interchangeable, so states that differ by their order are one. And what a slot does next depends on its place and
//! on what it hears, not on what brought it there: see [`steps`], where that is checked and not only assumed. Coins are
//! taken for arbitrary: heads takes any batch that a state or vote ever named.
//!
//! # What was found
//!
//! Agreement holds and nothing gets stuck. One core of a machine with two, development profile; the small ones run in the default
//! suite, the large ones are named tests that are ignored:
//! `cargo test --workspace --test slot_model -- --ignored --test-threads 1 --nocapture`.
//!
//! COUNTS
//!
//! Each rule of [`Broken`] was broken on its own, by the model around the slot: it forgets records, hides messages or lets
//! them come too early.
//!
//! BROKEN
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test says what failed by failing

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
    assert_holds(scope([A, 0], 2, 2, 0));
    assert_holds(scope([A, B], 2, 1, 0));
}

#[test]
fn three_nodes_with_one_restart() {
    assert_holds(scope([A, 0, 0], 2, 1, 0));
}

#[test]
fn broken_rules_that_few_steps_show() {
    assert_finds(Finding::Stuck, Broken::CountsWithoutPayload, scope([A, 0, 0], 2, 1, 1));
    assert_finds(Finding::Stuck, Broken::PayloadNotStored, scope([A, 0, 0], 2, 1, 1));
    assert_finds(Finding::TwoDecisions, Broken::SenderCountsTwice, scope([A, A, A], 2, 0, 0));
    assert_finds(Finding::Stuck, Broken::DecisionIsNotTold, scope([A, 0, 0], 2, 1, 0));
    assert_finds(Finding::Stuck, Broken::RecordsAreOverwritten, scope([A, 0, 0], 2, 1, 1));
    assert_finds(Finding::Stuck, Broken::OnlyLastRecordIsSaid, scope([A, 0, 0], 2, 1, 1));
    assert_finds(Finding::Stuck, Broken::NoNullAndAbstain, scope([A, 0, 0], 2, 1, 1));
    // With one node everything is shorter.
    assert_finds(Finding::TwoDecisions, Broken::TaintIsForgotten, scope([A], 2, 1, 0));
    assert_finds(Finding::TwoDecisions, Broken::VoteBeforeSync, scope([A], 2, 1, 0));
    assert_finds(Finding::TwoDecisions, Broken::RecordsGoEarly, scope([A], 2, 1, 0));
    assert_finds(Finding::TwoDecisions, Broken::EmptyDisk, scope([A], 2, 1, 0));
}

#[test]
#[ignore = "millions of states"]
fn broken_rules_that_many_steps_show() {
    let one_restart = |phases| scope([A, A, A], phases, 1, 0);
    assert_finds(Finding::TwoDecisions, Broken::VoteBeforeSync, one_restart(2));
    assert_finds(Finding::TwoDecisions, Broken::RecordsGoEarly, one_restart(2));
    assert_finds(Finding::TwoDecisions, Broken::EmptyDisk, one_restart(2));
    assert_finds(Finding::TwoDecisions, Broken::TaintIsForgotten, one_restart(3));
    assert_finds(Finding::TwoDecisions, Broken::UndecidedAgainstMajority, one_restart(3));
    assert_finds(Finding::TwoDecisions, Broken::StateBeforeSync, one_restart(3));
}
