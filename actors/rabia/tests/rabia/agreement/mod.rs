//! The agreement core of one node, by what it says to its surroundings.

mod belief;
mod forks;
mod heard;
mod memory;
mod promised;
mod reads;
mod replaced;

use std::time::Duration;

use rabia_bank_messages::genesis::{DEFAULT_WINDOW, Genesis, Replacements};
use rabia_bank_messages::ids::{ClusterId, NodeId, StoreId};
use rabia_bank_messages::lineage::Secret;
use rabia_bank_messages::promise::Recovered;
use rabia_bank_messages::sabotage::{Broken, Rule};
use rabia_bank_rabia::agreement::{Agreement, Effect, Event};

/// Node 1 of 3, newly made, linked to both others.
fn first_of_three() -> Agreement {
    first_of_three_with(DEFAULT_WINDOW)
}

/// The same with so many slots in agreement at once.
fn first_of_three_with(window: u64) -> Agreement {
    let stores = [7, 8, 9].map(|number| StoreId([number; 16]));
    let recovered = Recovered::at_first_start(stores[0], Secret([1; 32]));
    let [me, second, third] = [1, 2, 3].map(|node| NodeId::new(node).unwrap());
    let genesis = Genesis { window, ..Genesis::new(ClusterId([1; 16]), stores.to_vec()) };
    let mut agreement = Agreement::new(genesis, me, &recovered, &Replacements::default(), &mut Vec::new());
    effects(&mut agreement, Event::LinkUp(second, stores[1]));
    effects(&mut agreement, Event::LinkUp(third, stores[2]));
    agreement
}

/// Whether a test fails where a rule is broken.
fn is_noticed(rule: Rule, test: fn()) -> bool {
    let _broken = Broken::rule(rule);
    std::panic::catch_unwind(test).is_err()
}

/// What comes of an event.
fn effects(agreement: &mut Agreement, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    agreement.handle(Duration::from_millis(1), event, &mut effects);
    effects
}
