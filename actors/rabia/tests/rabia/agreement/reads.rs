//! Reads of one moment share one round among the nodes, and a read never takes part in a round that was under way before it.

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot, StoreId};
use rabia_bank_messages::peer::{Entry, PeerMessage};
use rabia_bank_messages::sabotage::{Broken, Rule};
use rabia_bank_rabia::agreement::{Agreement, Effect, Event};

use super::{effects, first_of_three, first_of_three_with};

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
fn entries(agreement: &Agreement, entries: impl IntoIterator<Item = (Slot, Option<(BatchId, Payload)>)>) -> Event {
    let before = agreement.log_hash();
    let entries = entries.into_iter().map(|(slot, batch)| Entry { slot, batch }).collect();
    Event::Received(NodeId::new(2).unwrap(), PeerMessage::Entries { before, entries, decided: 0 })
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

/// Node 3 gets a new store in slot 2, W is 2: its former store speaks up to slot 3. The reader is behind, and the former store
/// answers it; slot 4 was acknowledged by node 2 and the new store meanwhile.
#[test]
fn a_read_is_answered_by_a_quorum_of_the_members_of_the_slot_behind_its_own() {
    let third = NodeId::new(3).unwrap();
    let payload = Payload::replacing(third, StoreId([10; 16]), 0);
    let digest = Digest::of(payload.bytes());
    let id = BatchId { origin: NodeId::new(2).unwrap(), incarnation: 1, sequence: 1, digest };
    let begun = || {
        let mut agreement = first_of_three_with(2);
        assert_eq!(handle(&mut agreement, Event::Read(1)), (vec![1], vec![]));
        let answer = Event::Received(third, PeerMessage::ReadIndexAnswer { starts: 1, round: 1, slot: 3 });
        assert_eq!(handle(&mut agreement, answer), (vec![], vec![]), "it waits for slot 3");
        agreement
    };
    let to_slot_3 =
        |agreement: &Agreement| entries(agreement, [(1, None), (2, Some((id, payload.clone()))), (3, None)]);
    let mut agreement = begun();
    let event = to_slot_3(&agreement);
    assert_eq!(
        handle(&mut agreement, event),
        (vec![1], vec![]),
        "the former store has no voice in slot 4: more are asked"
    );
    assert_eq!(handle(&mut agreement, answer_at(1, 4)), (vec![], vec![]));
    let event = entries(&agreement, [(4, None)]);
    assert_eq!(handle(&mut agreement, event), (vec![], vec![(1, 4)]), "it sees slot 4");
    // With answers of any store it would not.
    let _broken = Broken::rule(Rule::ReadMembers);
    let mut agreement = begun();
    let event = to_slot_3(&agreement);
    assert_eq!(handle(&mut agreement, event), (vec![], vec![(1, 3)]));
}

/// Where nobody was replaced in time to matter, the answers stay good.
#[test]
fn a_replacement_that_holds_later_does_not_concern_a_read() {
    let mut agreement = first_of_three();
    handle(&mut agreement, Event::Read(1));
    assert_eq!(handle(&mut agreement, answer_at(1, 5)), (vec![], vec![]), "it waits for slot 5");
    let payload = Payload::replacing(NodeId::new(3).unwrap(), StoreId([10; 16]), 0);
    let digest = Digest::of(payload.bytes());
    let id = BatchId { origin: NodeId::new(2).unwrap(), incarnation: 1, sequence: 1, digest };
    let event = entries(&agreement, [(1, Some((id, payload)))]);
    handle(&mut agreement, event);
    assert_eq!(handle(&mut agreement, Event::Read(2)), (vec![2], vec![]));
    let event = entries(&agreement, (2..=5).map(|slot| (slot, None)));
    assert_eq!(handle(&mut agreement, event), (vec![], vec![(1, 5)]));
    assert_eq!(handle(&mut agreement, answer_at(2, 9)), (vec![], vec![]));
    let event = entries(&agreement, (6..=9).map(|slot| (slot, None)));
    assert_eq!(handle(&mut agreement, event), (vec![], vec![(2, 9)]));
}
