//! What is simulated: a state machine on the nodes, the same in plain words to compare it with, and what clients ask of it. The world
//! around it is the same for each.

mod bank;
mod key_values;

use std::ops::Range;

use fastrand::Rng;
use rabia_bank_actors::ledger::machine::{self, Feed, StateMachine};
use rabia_bank_actors::ledger::replicated::Replicated;
use rabia_bank_messages::bank::{Operation, Transaction};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{Millis, Slot};
use rabia_bank_messages::principal::PutPrincipal;
use rabia_bank_model::{Model, Plain};

use super::properties::{Check, Violation};

pub(crate) use key_values::Changes;

/// What a subscription is about.
pub(crate) type FeedOf<W> = <<W as Workload>::Machine as StateMachine>::Feed;
/// What subscribers are told.
pub(crate) type EntryOf<W> = machine::Entry<<W as Workload>::Machine>;
/// What came of a command.
pub(crate) type OutcomeOf<W> = <<W as Workload>::Machine as StateMachine>::Outcome;

/// A machine in plain words, and what there is to simulate it.
pub(crate) trait Workload: Plain + 'static {
    /// What the nodes replicate.
    type Machine: StateMachine<
            Command = Self::Command,
            Query = Self::Query,
            Answer = Self::Success,
            Feed: Feed<Self::Machine, Entry: PartialEq>,
        >;

    /// Whether clients speak for principals of their own, rather than for the host.
    const PRINCIPALS: bool;

    /// As every member of this cluster begins with it.
    fn new_cluster(genesis: &Genesis) -> Self;

    /// Any command, most of them of some effect.
    fn any_command(&self, random: &mut Rng) -> Self::Command;

    /// What was done for a command that was carried out: each operation, with its record if it has one. Nothing where there are no
    /// roles for what is done.
    fn performed(_command: &Self::Command, _success: &Self::Success) -> Vec<(Operation, Option<Transaction>)> {
        Vec::new()
    }

    /// Any question, with any combination of what it may say. `wall` is what a right clock shows.
    fn any_query(&self, wall: Millis, random: &mut Rng) -> Self::Query;

    /// What a subscription may be about, and the first entry to tell of.
    fn any_feed(&self, random: &mut Rng) -> (FeedOf<Self>, u64);

    /// The entries of the history with these ids that belong to a feed, oldest first. None if there are not so many yet.
    fn entries(&self, feed: &FeedOf<Self>, ids: Range<u64>) -> Option<Vec<EntryOf<Self>>>;

    /// In which slot the entry of this id was made; 0 if there is none.
    fn slot_of(&self, id: u64) -> Slot;

    /// Takes out of entries what this principal may not see: all of them if it may not follow the feed.
    fn hide(_feed: &FeedOf<Self>, _entries: &mut Vec<EntryOf<Self>>, _put: &PutPrincipal) {}

    /// After a slot: what must hold of the machine beside its answers.
    fn holds(slot: Slot, ledger: &Replicated<Self::Machine>, model: &Model<Self>) -> Check;

    /// Asks for all that there is, page by page. Answers the history, oldest first, if it has records.
    fn all_pages(
        ask: impl FnMut(&Self::Query) -> Result<Option<Self::Success>, Violation>,
    ) -> Result<Vec<Transaction>, Violation>;
}
