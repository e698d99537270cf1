//! The pool follows what it is told of proposals, and needs their payloads for it: it hears only of those that count.
#![allow(clippy::unwrap_used)] // a test says what failed by failing

use std::time::Duration;

use rabia_bank_actors::consensus::agreement::{Agreement, Effect, Event, Notice};
use rabia_bank_actors::consensus::stores::Replacements;
use rabia_bank_messages::batch::{BatchBuilder, Payload};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, ClusterId, NodeId, Slot, StoreId};
use rabia_bank_messages::peer::{PeerMessage, Value};
use rabia_bank_storage::Recovered;

/// Node 1 of 3, linked to node 2.
fn first_of_three() -> (Agreement, NodeId) {
    let stores: Vec<StoreId> = [7, 8, 9].map(|number| StoreId([number; 16])).into();
    let recovered = Recovered {
        store: stores[0],
        starts: 1,
        reserved: 0,
        records: Vec::new(),
        payloads: Vec::new(),
        decided: 0,
        sparse: Vec::new(),
        peers: Vec::new(),
        heard: Vec::new(),
    };
    let [me, second] = [1, 2].map(|node| NodeId::new(node).unwrap());
    let genesis = Genesis::new(ClusterId([1; 16]), stores.clone());
    let mut agreement = Agreement::new(genesis, me, &recovered, &Replacements::default(), &mut Vec::new());
    heard(&mut agreement, Event::LinkUp(second, stores[1]));
    (agreement, second)
}

/// What the pool hears of proposals.
fn heard(agreement: &mut Agreement, event: Event) -> Vec<(Slot, Value)> {
    let mut effects = Vec::new();
    agreement.handle(Duration::from_millis(1), event, &mut effects);
    let proposals = effects.into_iter().filter_map(|effect| match effect {
        Effect::Pool(Notice::Heard { slot, value, .. }) => Some((slot, value)),
        _ => None,
    });
    proposals.collect()
}

fn batch(origin: NodeId) -> (BatchId, Payload) {
    BatchBuilder::default().finish(origin, 1, 1, 1)
}

fn proposal(from: NodeId, slot: Slot, value: Value) -> Event {
    Event::Received(from, PeerMessage::Proposal { slot, value, payload: None })
}

#[test]
fn a_proposal_is_heard_when_its_payload_came() {
    let (mut agreement, second) = first_of_three();
    let (id, payload) = batch(second);
    assert_eq!(heard(&mut agreement, proposal(second, 1, Some(id))), []);
    let came = Event::Received(second, PeerMessage::Batch { id, payload });
    assert_eq!(heard(&mut agreement, came), [(1, Some(id))]);
    assert_eq!(heard(&mut agreement, proposal(second, 1, None)), [], "the first one counts");
}

/// It restarted in between, say.
#[test]
fn a_proposal_that_another_one_came_before_is_not_heard() {
    let (mut agreement, second) = first_of_three();
    let (id, payload) = batch(second);
    assert_eq!(heard(&mut agreement, proposal(second, 1, Some(id))), []);
    assert_eq!(heard(&mut agreement, proposal(second, 1, None)), [(1, None)]);
    let came = Event::Received(second, PeerMessage::Batch { id, payload });
    assert_eq!(heard(&mut agreement, came), []);
}
