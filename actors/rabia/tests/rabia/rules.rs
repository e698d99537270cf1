//! Rules that neither the simulator nor the models see broken: each is kept in a scenario here, and then broken in the same one,
//! which must show it.
//!
//! | rule | shown by |
//! | --- | --- |
//! | `SparseRead` | a node that was started again and knows a decision above a gap does not name it to who reads |
//! | `InstalledTold` | a batch that was decided below a snapshot is taken for a new one |
//! | `LateAnswered` | a node that asks about a decided slot hears nothing |
//! | `CoinBySlot` | the same coin in every slot |

use std::time::Duration;

use rabia_bank_messages::batch::BatchBuilder;
use rabia_bank_messages::genesis::{Genesis, Replacements};
use rabia_bank_messages::ids::{ClusterId, Digest, NodeId, Slot, StoreId};
use rabia_bank_messages::lineage::Secret;
use rabia_bank_messages::peer::{PeerMessage, State, Value};
use rabia_bank_messages::promise::Recovered;
use rabia_bank_messages::sabotage::{Rule, Seen, ensure, shows};
use rabia_bank_rabia::agreement::{Agreement, Effect, Event, Notice};
use rabia_bank_rabia::coin::coin;
use rabia_bank_rabia::pool::{Now, Pool, PoolEffect};

fn genesis() -> Genesis {
    Genesis::new(ClusterId([1; 16]), [7, 8, 9].map(|number| StoreId([number; 16])).to_vec())
}

fn node(number: u8) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Node 1 with what its log says, linked to both others.
fn started(decided: Slot, sparse: Vec<(Slot, Value)>) -> Agreement {
    let first = Recovered::at_first_start(genesis().stores[0], Secret([1; 32]));
    let recovered = Recovered { starts: 2, reserved: 20, decided, sparse, hashes: vec![Digest([1; 32])], ..first };
    let mut agreement = Agreement::new(genesis(), node(1), &recovered, &Replacements::default(), &mut Vec::new());
    for peer in [2, 3] {
        let store = genesis().stores[usize::from(peer) - 1];
        handle(&mut agreement, 1, Event::LinkUp(node(peer), store));
    }
    agreement
}

fn handle(agreement: &mut Agreement, millis: u64, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    agreement.handle(Duration::from_millis(millis), event, &mut effects);
    effects
}

/// What node 1 says to node 2 alone.
fn answers(effects: Vec<Effect>) -> Vec<PeerMessage> {
    let said = effects.into_iter().filter_map(|effect| match effect {
        Effect::Send(to, message) if to == node(2) => Some(message),
        _ => None,
    });
    said.collect()
}

#[test]
fn what_is_decided_above_a_gap_counts_for_reads_after_a_restart() {
    shows(Rule::SparseRead, || {
        let mut agreement = started(3, vec![(7, None)]);
        let asked = Event::Received(node(2), PeerMessage::ReadIndex { starts: 5, round: 4 });
        let said = answers(handle(&mut agreement, 2, asked));
        ensure(said == [PeerMessage::ReadIndexAnswer { starts: 5, round: 4, slot: 7 }], format!("{said:?}"))
    });
}

#[test]
fn a_message_for_a_decided_slot_is_answered_with_the_decision() {
    shows(Rule::LateAnswered, || {
        let mut agreement = started(3, Vec::new());
        handle(&mut agreement, 2, Event::Received(node(3), PeerMessage::Decide { slot: 4, value: None }));
        let late = || Event::Received(node(2), PeerMessage::State { slot: 4, phase: 1, state: State::Zero });
        let crossed = answers(handle(&mut agreement, 3, late()));
        let said = answers(handle(&mut agreement, 1_000, late()));
        ensure(crossed.is_empty() && said == [PeerMessage::Decide { slot: 4, value: None }], format!("{said:?}"))
    });
}

/// The pool would propose again what was decided, and not know whose turn it is.
#[test]
fn the_pool_hears_of_decisions_that_come_with_a_snapshot() {
    shows(Rule::InstalledTold, || {
        let (id, payload) = BatchBuilder::default().finish(node(2), 1, 9, 1);
        let mut agreement = started(3, Vec::new());
        let replacements = Replacements::default();
        let installed = Event::Installed {
            slot: 100,
            hash: Digest([2; 32]),
            decisions: vec![(99, Some(id)), (100, None)],
            replacements,
        };
        let mut pool = Pool::new(genesis(), node(1), 1, 3);
        let now = Now { elapsed: Duration::from_millis(5), wall: 1_000 };
        let mut wishes = Vec::new();
        for effect in handle(&mut agreement, 5, installed) {
            if let Effect::Pool(notice) = effect {
                pool.notice(now, notice, &mut wishes);
            }
        }
        wishes.clear();
        pool.notice(now, Notice::Arrived(id, payload.clone()), &mut wishes);
        ensure(wishes == [PoolEffect::Forget(id)], format!("{wishes:?}"))
    });
}

#[test]
fn every_slot_has_a_coin_of_its_own() {
    shows(Rule::CoinBySlot, coins_differ);
}

/// Of a fair coin 64 throws are alike once in 2^63 clusters.
fn coins_differ() -> Seen {
    (1..=3).try_for_each(|phase| {
        let heads = (1..=64).filter(|slot| coin(ClusterId([3; 16]), *slot, phase)).count();
        ensure((1..64).contains(&heads), format!("{heads} of 64 slots have heads in phase {phase}"))
    })
}
