//! The pool follows what it is told of proposals, and needs their payloads for it: it hears only of those that count.

use rabia_bank_messages::batch::{BatchBuilder, Payload};
use rabia_bank_messages::ids::{BatchId, NodeId, Slot};
use rabia_bank_messages::peer::{PeerMessage, Value};
use rabia_bank_rabia::agreement::{Agreement, Effect, Event, Notice};

use super::{effects, first_of_three};

/// What the pool hears of proposals.
fn heard(agreement: &mut Agreement, event: Event) -> Vec<(Slot, Value)> {
    let proposals = effects(agreement, event).into_iter().filter_map(|effect| match effect {
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
    let (mut agreement, second) = (first_of_three(), NodeId::new(2).unwrap());
    let (id, payload) = batch(second);
    assert_eq!(heard(&mut agreement, proposal(second, 1, Some(id))), []);
    let came = Event::Received(second, PeerMessage::Batch { id, payload });
    assert_eq!(heard(&mut agreement, came), [(1, Some(id))]);
    assert_eq!(heard(&mut agreement, proposal(second, 1, None)), [], "the first one counts");
}

/// It restarted in between, say.
#[test]
fn a_proposal_that_another_one_came_before_is_not_heard() {
    let (mut agreement, second) = (first_of_three(), NodeId::new(2).unwrap());
    let (id, payload) = batch(second);
    assert_eq!(heard(&mut agreement, proposal(second, 1, Some(id))), []);
    assert_eq!(heard(&mut agreement, proposal(second, 1, None)), [(1, None)]);
    let came = Event::Received(second, PeerMessage::Batch { id, payload });
    assert_eq!(heard(&mut agreement, came), []);
}
