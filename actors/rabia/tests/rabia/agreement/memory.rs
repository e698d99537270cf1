//! Rule 12: what was heard of a peer's promises is written with the next promise of this node, and before a hello is answered.

use rabia_bank_messages::batch::BatchBuilder;
use rabia_bank_messages::ids::{NodeId, Proof, RunId, StoreId};
use rabia_bank_messages::lineage::Memory;
use rabia_bank_messages::peer::{PeerMessage, State};
use rabia_bank_messages::promise::Commit;
use rabia_bank_rabia::agreement::{Agreement, Effect, Event, Ticket};

use super::{effects, first_of_three};

fn second() -> NodeId {
    NodeId::new(2).unwrap()
}

/// Of node 2's store.
fn memory(run: u8, promises: u64) -> Memory {
    Memory { store: StoreId([8; 16]), run: RunId([run; 16]), promises, proof: Proof([run; 16]) }
}

fn promised(promises: u64) -> Event {
    Event::Received(second(), PeerMessage::Promised { count: promises, proof: Proof([1; 16]) })
}

fn saves(effects: &[Effect]) -> Vec<(Ticket, Commit)> {
    let saves = effects.iter().filter_map(|effect| match effect {
        Effect::Save(ticket, commit) => Some((*ticket, commit.clone())),
        _ => None,
    });
    saves.collect()
}

/// Node 1 of 3, which has met node 2 in its first run, durably.
fn has_met_second() -> Agreement {
    let mut agreement = first_of_three();
    let ticket = agreement.remember_peer(second(), memory(1, 5), &mut Vec::new()).unwrap();
    effects(&mut agreement, Event::Saved(ticket));
    agreement
}

#[test]
fn a_hello_is_answered_when_what_was_heard_is_durable_also_a_repeated_one() {
    let mut agreement = first_of_three();
    let mut first = Vec::new();
    let ticket = agreement.remember_peer(second(), memory(1, 5), &mut first);
    assert_eq!(ticket, saves(&first).last().map(|(ticket, _)| *ticket));
    let mut again = Vec::new();
    assert_eq!(agreement.remember_peer(second(), memory(1, 5), &mut again), ticket, "it waits for the same write");
    assert_eq!(saves(&again), []);
    let store = StoreId([8; 16]);
    assert_eq!(agreement.lineage().remembers_durably(second(), store), None, "nobody is told before");
    effects(&mut agreement, Event::Saved(ticket.unwrap()));
    assert_eq!(agreement.lineage().remembers_durably(second(), store), Some(memory(1, 5)));
    assert_eq!(agreement.remember_peer(second(), memory(1, 5), &mut again), None);
    // More was heard on the link since.
    effects(&mut agreement, promised(9));
    let mut more = Vec::new();
    let ticket = agreement.remember_peer(second(), memory(1, 5), &mut more);
    assert!(ticket.is_some() && saves(&more).last().is_some_and(|(_, commit)| commit.peers[0].1.promises == 9));
}

/// A copy that has forgotten that it met another run counts less.
#[test]
fn to_remember_another_run_is_a_promise() {
    let mut agreement = has_met_second();
    let before = agreement.promised();
    let mut met = Vec::new();
    let ticket = agreement.remember_peer(second(), memory(2, 9), &mut met).unwrap();
    assert_eq!(saves(&met).last().unwrap().1.promised, Some(before + 1));
    let said = effects(&mut agreement, Event::Saved(ticket));
    assert!(
        said.iter().any(
            |effect| matches!(effect, Effect::Broadcast(PeerMessage::Promised { count, .. }) if *count == before + 1)
        ),
        "{said:?}"
    );
}

#[test]
fn what_was_heard_is_written_with_the_next_promise() {
    let mut agreement = has_met_second();
    // The mark of rule 1 is there.
    let first = effects(&mut agreement, Event::Saved(100));
    assert_eq!(saves(&first), []);
    let (id, payload) = BatchBuilder::default().finish(second(), 1, 1, 1);
    effects(&mut agreement, Event::Hold(id, payload));
    effects(&mut agreement, promised(7));
    effects(&mut agreement, Event::Propose { slot: 1, value: Some(id), with_payload: false });
    let proposal = PeerMessage::Proposal { slot: 1, value: Some(id), payload: None };
    effects(&mut agreement, Event::Received(second(), proposal));
    effects(&mut agreement, promised(8));
    let state = PeerMessage::State { slot: 1, phase: 1, state: State::One(id) };
    let voted = saves(&effects(&mut agreement, Event::Received(second(), state)));
    let (ticket, commit) = voted.last().expect("a vote is written");
    assert!(!commit.records.is_empty());
    assert_eq!(commit.peers[0].1.promises, 8, "all that was heard before the vote");
    // And it says the count before the vote.
    let said = effects(&mut agreement, Event::Saved(*ticket));
    let place = |wanted: fn(&PeerMessage) -> bool| {
        said.iter().position(|effect| matches!(effect, Effect::Broadcast(message) if wanted(message)))
    };
    let count = place(|message| matches!(message, PeerMessage::Promised { .. }));
    let vote = place(|message| matches!(message, PeerMessage::Vote { .. }));
    assert!(count.is_some() && vote.is_some() && count < vote, "{said:?}");
}
