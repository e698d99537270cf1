//! Reads of one moment share one round among the nodes, and a read never takes part in a round that was under way before it.

use rabia_bank_actors::consensus::agreement::{Agreement, Effect, Event};
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot, StoreId};
use rabia_bank_messages::peer::{Entry, PeerMessage};

use super::{effects, first_of_three};

/// The numbers of the rounds that it asks for, and which reads may be answered at which slot.
fn handle(agreement: &mut Agreement, event: Event) -> (Vec<u64>, Vec<(u64, u64)>) {
    let (mut rounds, mut reads) = (Vec::new(), Vec::new());
    for effect in effects(agreement, event) {
        match effect {
            Effect::Broadcast(PeerMessage::ReadIndex { starts: 1, round }) => rounds.push(round),
            Effect::ReadAt { read, slot } => reads.push((read, slot)),
            _ => {}
        }
    }
    (rounds, reads)
}

/// Node 2 answers.
fn answer_at(round: u64, slot: Slot) -> Event {
    let message = PeerMessage::ReadIndexAnswer { starts: 1, round, slot };
    Event::Received(NodeId::new(2).unwrap(), message)
}

/// Node 2 tells decisions.
fn entries(entries: impl IntoIterator<Item = (Slot, Option<(BatchId, Payload)>)>) -> Event {
    let entries = entries.into_iter().map(|(slot, batch)| Entry { slot, batch }).collect();
    Event::Received(NodeId::new(2).unwrap(), PeerMessage::Entries { entries, decided: 0 })
}

#[test]
fn reads_of_one_moment_share_one_round() {
    let mut agreement = first_of_three();
    // Nothing was voted on yet, so no answer has to wait for a slot.
    let answer = |round| answer_at(round, 0);
    assert_eq!(handle(&mut agreement, Event::Read(1)), (vec![1], vec![]));
    // These come while the round is under way: it may not see what was acknowledged before they came.
    for read in 2..=1_000 {
        assert_eq!(handle(&mut agreement, Event::Read(read)), (vec![], vec![]));
    }
    // The first round serves the first read alone; one more serves all the others.
    assert_eq!(handle(&mut agreement, answer(1)), (vec![2], vec![(1, 0)]));
    assert_eq!(handle(&mut agreement, answer(1)), (vec![], vec![]), "an answer to the round before");
    assert_eq!(handle(&mut agreement, answer(2)), (vec![], vec![(1_000, 0)]));
    assert_eq!(handle(&mut agreement, answer(2)), (vec![], vec![]), "nobody waits");
}

#[test]
fn a_read_that_asks_again_does_not_take_the_place_of_a_later_one() {
    let mut agreement = first_of_three();
    handle(&mut agreement, Event::Read(1));
    assert_eq!(handle(&mut agreement, answer_at(1, 5)), (vec![], vec![]), "it waits for slot 5");
    let payload = Payload::replacing(NodeId::new(3).unwrap(), StoreId([10; 16]), 0);
    let digest = Digest::of(payload.bytes());
    let id = BatchId { origin: NodeId::new(2).unwrap(), incarnation: 1, sequence: 1, digest };
    handle(&mut agreement, entries([(1, Some((id, payload)))]));
    assert_eq!(handle(&mut agreement, Event::Read(2)), (vec![2], vec![]));
    // The stores were others when the first read asked, so it asks again: behind the second one.
    assert_eq!(handle(&mut agreement, entries((2..=5).map(|slot| (slot, None)))), (vec![], vec![]));
    assert_eq!(handle(&mut agreement, answer_at(2, 9)), (vec![3], vec![]));
    assert_eq!(handle(&mut agreement, answer_at(3, 9)), (vec![], vec![]));
    assert_eq!(handle(&mut agreement, entries((6..=9).map(|slot| (slot, None)))), (vec![], vec![(2, 9)]));
}
