//! A store is lost and replaced, with the real [`Agreement`](rabia_bank_rabia::agreement::Agreement) cores
//! of three members and four stores: everything that can happen in one slot.
//!
//! # What can happen
//!
//! The first slot was decided: member 3 gets a new store, r = 1. Whoever took part learns that at any time, or never;
//! the new store learns it from a member that has let it in, as the real handshake decides. One slot is looked at, W
//! slots behind the first one or before that; what is decided in between is null, and is learnt like the first. In that
//! slot every store proposes the batch or null, hears any of what was said over the links that it has, one message
//! after another as the real core takes them, and syncs what it has to write. The old store is lost for good at any
//! time, with what it said or without that; until then it goes on, or is slow: so it comes back at any time with what
//! it had. Members 1 and 2 change between links to the two stores as often as the handshake lets them. In the larger
//! searches a store crashes at any point, also between a write and its sync, and comes back, and another member is lost
//! once the new store is current and the third member knows it. (One that does not takes nothing from a store that its log does not
//! know, so it needs the member that does.)
//!
//! That decisions of the slots before are the same for all is assumed: it is what `slot_model` shows of each slot, as
//! long as one store speaks in it for each member. That it does is shown here, and so on from slot to slot.
//!
//! # What is checked
//!
//! - No two decisions in the slot.
//! - In a slot below r + W the new store says nothing, from there on the old one says nothing: two stores of a member
//!   never count in one slot.
//! - Nothing gets stuck: where nothing more can happen without a fault, all that live know the outcome and all slots
//!   before, or go on beyond the last phase.
//!
//! # What was found
//!
//! All of this holds. Members 1 and 2 propose the batch and member 3 null, or, where it says so, each of them either:
//!
//! | W | slot | phases | besides | states |
//! | --- | --- | --- | --- | --- |
//! | 1 | r + 1, the new store speaks | 1 | | 117,516 |
//! | 1 | r + 1, the new store speaks | 1 | each proposes either | 450,219 |
//! | 1 | r + 1, the new store speaks | 1 | another member is lost | 160,976 |
//! | 1 | r + 1, the new store speaks | 1 | 1 restart | 3,969,683 |
//! | 1 | r + 1, the new store speaks | 2 | heads, tails | 10,035,416, 8,146,596 |
//! | 2 | r + 1, the old store speaks | 1 | | 4,447,233 |
//! | 2 | r + 2, the new store speaks | 1 | | 602,042 |
//!
//! What takes seconds is in the default suite, the rest are tests that are ignored: 90 s and 1.2 GB in the release
//! profile.
//!
//! | broken | W | found | after states |
//! | --- | --- | --- | --- |
//! | stores are replaced by configuration, not by the log | 1 | both stores speak; two decisions | 29; 35,338 |
//! | the new store speaks from r + 1 on | 2 | the wrong store speaks; two decisions | 310; 2,658,385 |

#[allow(dead_code)] // what catching up needs
mod explorer;
mod store;

use explorer::{Finding, Scope, explore};
use rabia_bank_messages::ids::ClusterId;
use rabia_bank_messages::sabotage::{Broken, Rule};
use rabia_bank_rabia::coin::coin;
use store::{NEW, OLD, REPLACED};

/// A cluster whose coin falls on this side in the first phase of the slot.
fn cluster(slot: u64, heads: bool) -> u8 {
    (0..).find(|id| coin(ClusterId([*id; 16]), slot, 1) == heads).unwrap()
}

fn scope(window: u64, slot: u64, phases: u32) -> Scope {
    Scope {
        cluster: cluster(slot, true),
        window,
        slot,
        phases,
        restarts: 0,
        another_loss: false,
        proposers: &[0, 1],
        free: false,
        configured: &[],
    }
}

fn assert_holds(scope: Scope) {
    // The coin is thrown behind the first phase.
    let sides = if scope.phases == 1 { &[true][..] } else { &[true, false] };
    for heads in sides {
        let finding = explore(Scope { cluster: cluster(scope.slot, *heads), ..scope }, true);
        assert!(matches!(finding, Finding::Holds(_)), "{finding:?}");
    }
}

#[test]
fn the_new_store_speaks_behind_its_replacement() {
    assert_holds(scope(1, REPLACED + 1, 1));
}

#[test]
fn another_member_is_lost_later() {
    assert_holds(Scope { another_loss: true, ..scope(1, REPLACED + 1, 1) });
}

#[test]
#[ignore = "millions of states"]
fn the_old_store_speaks_below_the_window() {
    assert_holds(scope(2, REPLACED + 1, 1));
}

#[test]
fn the_new_store_speaks_behind_the_window() {
    assert_holds(scope(2, REPLACED + 2, 1));
}

#[test]
fn all_propose_what_they_like() {
    assert_holds(Scope { free: true, ..scope(1, REPLACED + 1, 1) });
}

#[test]
#[ignore = "millions of states"]
fn two_phases() {
    assert_holds(scope(1, REPLACED + 1, 2));
}

#[test]
#[ignore = "millions of states"]
fn a_store_restarts() {
    assert_holds(Scope { restarts: 1, ..scope(1, REPLACED + 1, 1) });
}

/// Member 2 and the new store are told by their configuration, member 1 and the old store are not.
#[test]
fn replacing_without_the_log_is_found() {
    let scope = Scope { configured: &[1, NEW], proposers: &[0, OLD], ..scope(1, REPLACED + 1, 1) };
    assert_eq!(explore(scope, true), Finding::WrongVoice);
    assert_eq!(explore(scope, false), Finding::TwoDecisions);
}

/// It speaks at once, whatever the log says, and is believed; or as soon as it is in the log, where others do not know
/// yet that the old one has been replaced.
const TOO_EARLY: [Rule; 2] = [Rule::NewStoreByLog, Rule::NewStoreWindow];

#[test]
fn a_new_store_that_speaks_too_early_is_found() {
    for rule in TOO_EARLY {
        let _broken = Broken::rule(rule);
        assert_eq!(explore(scope(2, REPLACED + 1, 1), true), Finding::WrongVoice, "{rule:?}");
    }
}

#[test]
#[ignore = "millions of states"]
fn a_new_store_that_speaks_too_early_decides_otherwise() {
    for rule in TOO_EARLY {
        let _broken = Broken::rule(rule);
        let scope = Scope { proposers: &[0, OLD], ..scope(2, REPLACED + 1, 1) };
        assert_eq!(explore(scope, false), Finding::TwoDecisions, "{rule:?}");
    }
}
