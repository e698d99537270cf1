//! What a node believes of what peers say: no message stops it, and none does more than its sender may.

use std::time::Duration;

use rabia_bank_messages::batch::{BatchBuilder, Payload};
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot, StoreId};
use rabia_bank_messages::lineage::log_hash;
use rabia_bank_messages::peer::{Entry, PeerMessage, SnapshotCursor, SnapshotPart, State, Value, Vote};
use rabia_bank_rabia::agreement::{Agreement, Effect, Event, Notice};

use super::{effects, first_of_three};

fn node(number: u8) -> NodeId {
    NodeId::new(number).unwrap()
}

fn batch(origin: NodeId, sequence: u64) -> (BatchId, Payload) {
    BatchBuilder::default().finish(origin, 1, sequence, 1)
}

fn damaged(origin: NodeId, sequence: u64) -> (BatchId, Payload) {
    let payload = Payload::new(vec![9; 50]);
    (BatchId { digest: Digest::of(payload.bytes()), ..batch(origin, sequence).0 }, payload)
}

fn says(agreement: &mut Agreement, from: u8, message: PeerMessage) -> Vec<Effect> {
    effects(agreement, Event::Received(node(from), message))
}

fn delivered(effects: &[Effect]) -> Vec<(Slot, Value)> {
    let delivered = effects.iter().filter_map(|effect| match effect {
        Effect::Deliver(slot, batch) => Some((*slot, batch.as_ref().map(|(id, _)| *id))),
        _ => None,
    });
    delivered.collect()
}

fn is_refused(effects: &[Effect], peer: u8) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Refuse(refused, _) if *refused == node(peer)))
}

#[test]
fn a_batch_that_can_not_be_applied_is_not_held() {
    let mut agreement = first_of_three();
    let (id, payload) = damaged(node(2), 1);
    let said = says(&mut agreement, 2, PeerMessage::Batch { id, payload: payload.clone() });
    assert!(matches!(said[..], [Effect::Warn(..)]), "{said:?}");
    let proposal = PeerMessage::Proposal { slot: 1, value: Some(id), payload: Some(payload.clone()) };
    let said = says(&mut agreement, 2, proposal);
    assert!(!said.iter().any(|effect| matches!(effect, Effect::Send(_, PeerMessage::Fetch { .. }))), "{said:?}");
    assert!(!agreement.holds(&id));
    // It is decided all the same: then it is needed, asked for, and applied as whatever it is.
    let said = says(&mut agreement, 3, PeerMessage::Decide { slot: 1, value: Some(id) });
    assert!(said.iter().any(|effect| matches!(effect, Effect::Send(_, PeerMessage::Fetch { .. }))), "{said:?}");
    let said = says(&mut agreement, 3, PeerMessage::Batch { id, payload });
    assert_eq!(delivered(&said), [(1, Some(id))]);
    // In a range of decided slots it is held at once.
    let (id, payload) = damaged(node(2), 2);
    let entries = vec![Entry { slot: 2, batch: Some((id, payload)) }];
    let before = agreement.log_hash();
    assert_eq!(
        delivered(&says(&mut agreement, 3, PeerMessage::Entries { before, entries, decided: 2 })),
        [(2, Some(id))]
    );
}

#[test]
fn payloads_are_what_their_ids_name_and_come_from_who_may_send_them() {
    let mut agreement = first_of_three();
    let ((id, payload), (other, _)) = (batch(node(2), 1), batch(node(2), 2));
    let other = BatchId { digest: Digest::of(b"another"), ..other };
    says(&mut agreement, 2, PeerMessage::Batch { id: other, payload: payload.clone() });
    assert!(!agreement.holds(&other));
    // Node 3 was not asked for a batch of node 2.
    says(&mut agreement, 3, PeerMessage::Batch { id, payload: payload.clone() });
    assert!(!agreement.holds(&id));
    // Of two proposals in a slot the first counts, and the payload of the other does not stay.
    let ((first, payload), (second, late)) = (batch(node(2), 3), batch(node(2), 4));
    for (id, payload) in [(first, payload), (second, late)] {
        says(&mut agreement, 2, PeerMessage::Proposal { slot: 3, value: Some(id), payload: Some(payload) });
    }
    assert!(agreement.holds(&first) && !agreement.holds(&second));
    let entries = vec![Entry { slot: 1, batch: Some((other, Payload::new(vec![1]))) }];
    assert!(is_refused(
        &says(&mut agreement, 2, PeerMessage::Entries { before: Digest::ZERO, entries, decided: 1 }),
        2
    ));
}

#[test]
fn a_batch_that_the_pool_drops_goes_at_once_unless_a_slot_needs_it() {
    let mut agreement = first_of_three();
    let ((waiting, payload), (proposed, needed)) = (batch(node(2), 1), batch(node(2), 2));
    says(&mut agreement, 2, PeerMessage::Batch { id: waiting, payload });
    says(&mut agreement, 2, PeerMessage::Proposal { slot: 1, value: Some(proposed), payload: Some(needed) });
    effects(&mut agreement, Event::Drop(waiting));
    effects(&mut agreement, Event::Drop(proposed));
    assert!(!agreement.holds(&waiting) && agreement.holds(&proposed));
}

#[test]
fn what_is_decided_here_stays() {
    let mut agreement = first_of_three();
    let (id, _) = batch(node(3), 7);
    assert_eq!(delivered(&says(&mut agreement, 2, PeerMessage::Decide { slot: 1, value: None })), [(1, None)]);
    says(&mut agreement, 2, PeerMessage::Decide { slot: 3, value: None });
    for slot in [1, 3] {
        let said = says(&mut agreement, 3, PeerMessage::Decide { slot, value: Some(id) });
        assert!(is_refused(&said, 3) && delivered(&said).is_empty(), "{said:?}");
    }
    // Who sends a range of slots that were decided on something else has another log: that is found out, not only refused.
    let entries = vec![Entry { slot: 1, batch: Some((id, Payload::new(vec![1]))) }];
    let said = says(&mut agreement, 3, PeerMessage::Entries { before: Digest::ZERO, entries, decided: 9 });
    assert!(said.iter().any(|effect| matches!(effect, Effect::Doubt(true))) && delivered(&said).is_empty(), "{said:?}");
    assert!(agreement.in_doubt());
    assert_eq!(agreement.counters().refused, 2);
    assert_eq!(
        delivered(&says(&mut agreement, 2, PeerMessage::Decide { slot: 2, value: None })),
        [(2, None), (3, None)]
    );
}

/// Of each kind, with its numbers at their ends.
fn nonsense() -> Vec<PeerMessage> {
    let (id, payload) = batch(node(2), u64::MAX);
    let mut all = Vec::new();
    for slot in [0, 1, 17, 65, (1 << 53) - 1, 1 << 53, u64::MAX - 1, u64::MAX] {
        for value in [None, Some(id)] {
            all.push(PeerMessage::Proposal { slot, value, payload: Some(payload.clone()) });
            all.push(PeerMessage::Decide { slot, value });
            let batch = value.map(|id| (id, payload.clone()));
            let entries = vec![Entry { slot, batch: batch.clone() }, Entry { slot: slot.wrapping_add(1), batch }];
            all.push(PeerMessage::Entries { before: Digest::ZERO, entries, decided: slot });
        }
        for phase in [0, 1, 2, 15, 1_000, 1_001, u32::MAX] {
            all.push(PeerMessage::State { slot, phase, state: State::One(id) });
            all.push(PeerMessage::State { slot, phase, state: State::Abstain });
            all.push(PeerMessage::Vote { slot, phase, vote: Vote::One(id) });
            all.push(PeerMessage::Vote { slot, phase, vote: Vote::Undecided });
        }
        let at = SnapshotCursor { part: SnapshotPart::Blocks, row: slot, offset: slot };
        all.extend([
            PeerMessage::Promised { count: slot, proof: rabia_bank_messages::ids::Proof([0; 16]) },
            PeerMessage::Clock { wall: slot, confirmed: Some(slot), refuses: true },
            PeerMessage::ReadIndex { starts: slot, round: slot },
            PeerMessage::ReadIndexAnswer { starts: 1, round: slot, slot },
            PeerMessage::CatchUp { from: slot },
            PeerMessage::Alive { decided: slot, hash: Digest::ZERO, durable: 0 },
            PeerMessage::Compacted { log_from: slot },
            PeerMessage::GetSnapshot { slot, at },
            PeerMessage::StateDigest { slot, digest: Digest::ZERO },
        ]);
    }
    all.push(PeerMessage::Batch { id, payload });
    all.push(PeerMessage::Fetch { id });
    all
}

#[test]
fn no_number_trips_a_node_up() {
    // One after another, in both directions, and each of them first.
    let all = nonsense();
    for skip in [0, all.len() / 3, all.len() / 2] {
        let (mut agreement, mut now) = (first_of_three(), Duration::ZERO);
        for message in all[skip..].iter().chain(&all[..skip]) {
            for from in [node(2), node(3)] {
                let mut effects = Vec::new();
                agreement.handle(now, Event::Received(from, message.clone()), &mut effects);
                agreement.handle(now, Event::Tick, &mut effects);
                now += Duration::from_millis(7);
                for effect in effects {
                    if let Effect::Save(ticket, _) = effect {
                        agreement.handle(now, Event::Saved(ticket), &mut Vec::new());
                    }
                }
            }
        }
        assert!(agreement.frontier() < 1_000 && agreement.payloads() < 10);
    }
}

#[test]
fn who_claims_slots_and_never_shows_them_is_asked_last_and_not_believed() {
    let (mut agreement, mut now, mut asked) = (first_of_three(), Duration::ZERO, Vec::new());
    let hash = (1..=500).fold(Digest::ZERO, |before, slot| log_hash(before, slot, &None));
    for round in 0..200 {
        now += Duration::from_millis(100);
        let mut effects = Vec::new();
        agreement.handle(
            now,
            Event::Received(node(2), PeerMessage::Alive { decided: 1 << 50, hash: Digest::ZERO, durable: 0 }),
            &mut effects,
        );
        agreement.handle(
            now,
            Event::Received(node(3), PeerMessage::Alive { decided: 500, hash, durable: 0 }),
            &mut effects,
        );
        agreement.handle(now, Event::Tick, &mut effects);
        while let Some(effect) = effects.pop() {
            let Effect::Send(to, PeerMessage::CatchUp { from }) = effect else { continue };
            asked.push(to);
            if to == node(3) && from <= 500 {
                let entries = (from..from + 10).map(|slot| Entry { slot, batch: None }).collect();
                let message = PeerMessage::Entries { before: agreement.log_hash(), entries, decided: 500 };
                agreement.handle(now, Event::Received(to, message), &mut effects);
            }
        }
        if round == 10 {
            assert!(agreement.frontier() == 500, "the honest node's slots are here: {}", agreement.frontier());
        }
    }
    assert_eq!(agreement.known_elsewhere(), 500);
    assert!(asked.iter().filter(|to| **to == node(2)).count() <= 50, "it is asked twice a second at most");
}

#[test]
fn a_stranger_may_ask_and_nothing_else() {
    let mut agreement = first_of_three();
    for slot in 1..=40 {
        says(&mut agreement, 3, PeerMessage::Decide { slot, value: None });
    }
    let stranger = effects(&mut agreement, Event::LinkUp(node(2), StoreId([99; 16])));
    assert!(matches!(stranger[..], [Effect::Send(_, PeerMessage::Alive { decided: 40, .. })]), "{stranger:?}");
    let (id, payload) = batch(node(2), 1);
    let entries = vec![Entry { slot: 41, batch: Some((id, payload.clone())) }];
    let at = SnapshotCursor { part: SnapshotPart::Blocks, row: 0, offset: 0 };
    let said = [
        PeerMessage::Batch { id, payload: payload.clone() },
        PeerMessage::Proposal { slot: 41, value: Some(id), payload: Some(payload) },
        PeerMessage::State { slot: 41, phase: 1, state: State::One(id) },
        PeerMessage::Vote { slot: 41, phase: 1, vote: Vote::One(id) },
        PeerMessage::Decide { slot: 41, value: Some(id) },
        PeerMessage::Entries { before: Digest::ZERO, entries, decided: 41 },
        PeerMessage::Alive { decided: 1_000_000, hash: Digest::ZERO, durable: 0 },
        PeerMessage::Clock { wall: 1, confirmed: Some(1), refuses: true },
        PeerMessage::Promised { count: 1 << 40, proof: rabia_bank_messages::ids::Proof([0; 16]) },
        PeerMessage::ReadIndex { starts: 1, round: 1 },
        PeerMessage::ReadIndexAnswer { starts: 1, round: 1, slot: 41 },
    ];
    for message in said {
        assert_eq!(says(&mut agreement, 2, message.clone()), [], "{message:?}");
    }
    for message in [
        PeerMessage::Compacted { log_from: 1_000 },
        PeerMessage::StateDigest { slot: 1_024, digest: Digest::ZERO },
        PeerMessage::SnapshotRows { slot: 1_000, at, part: SnapshotPart::Blocks, rows: Vec::new(), next: None },
    ] {
        assert!(!agreement.takes(node(2), &message, &mut Vec::new()), "{message:?}");
    }
    assert!(!agreement.holds(&id) && agreement.known_elsewhere() < 1_000);
    assert_eq!(agreement.counters().not_taken, 14);
    // What any store may ask for.
    let catch_up = says(&mut agreement, 2, PeerMessage::CatchUp { from: 3 });
    assert_eq!(catch_up, [Effect::SendEntries { to: node(2), from: 3 }]);
    assert!(agreement.takes(node(2), &PeerMessage::GetSnapshot { slot: 0, at }, &mut Vec::new()));
    // Nor is it among those that are told what is said to all: no notice of it reaches the pool.
    assert!(!stranger.iter().any(|effect| matches!(effect, Effect::Pool(Notice::LinkUp(_)))));
}
