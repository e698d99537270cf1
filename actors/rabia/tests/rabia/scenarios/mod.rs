//! The protocol in stories, one file each: what is done, and below it every message, write and decision that comes of it.
//!
//! A script drives a cluster of the real [`Agreement`](rabia_bank_rabia::agreement::Agreement) cores, and of
//! the real pools where it says so, message by message. `scripts/README` lists the commands. After a change that is meant
//! to alter what happens, `UPDATE_GOLDENFILES=1 cargo test --workspace --test rabia scenarios::` writes the files again: read what
//! changed.

mod cluster;
pub mod disk;
mod script;

use std::collections::BTreeSet;
use std::path::Path;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rabia/scenarios/scripts");

macro_rules! scripts {
    ($($name:ident)*) => {
        const SCRIPTS: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            let path = Path::new(FOLDER).join(stringify!($name));
            goldenscript::run(&mut script::Script::default(), path).unwrap();
        })*
    };
}

scripts! {
    coin_heads
    coin_tails
    decided_batch_is_proposed_again
    decision_learnt_late
    decision_while_the_disk_is_busy
    first_message_counts
    five_nodes_two_down
    forfeit
    hearing_first_proposes_the_same
    link_breaks_and_comes_back
    normal_case
    old_messages_are_answered
    one_node_alone
    owner_proposes_for_others
    owner_that_is_down_is_replaced
    payload_is_missing
    payload_lost_with_its_proposer
    reserved_before_speaking
    restart_after_state
    restart_after_vote
    restart_in_later_phase
    restart_in_proposal
    restart_while_vote_is_written
    read_waits_for_votes
    snapshot_installed
    straggler
    window_is_closed
}

#[test]
fn every_script_is_run() {
    let files = std::fs::read_dir(FOLDER).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<_> = files.filter(|name| name != "README").collect();
    assert_eq!(files, SCRIPTS.iter().map(|name| name.to_string()).collect());
}
