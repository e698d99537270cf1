//! Rule 12: how many promises a store has kept is said before whatever the last of them allows to be said. Who heard a vote and no
//! count would let an old copy speak that has forgotten the vote.

use rabia_bank_messages::ids::NodeId;
use rabia_bank_messages::peer::{PeerMessage, State, Vote};
use rabia_bank_messages::sabotage::Rule;
use rabia_bank_rabia::agreement::{Effect, Event, Ticket};

use super::{effects, first_of_three, is_noticed};

#[test]
fn promises_are_counted_before_they_are_acted_upon() {
    let mut agreement = first_of_three();
    let others = [2, 3].map(|number| NodeId::new(number).unwrap());
    // The first write of all was the mark of reserved slots.
    let mut events = vec![Event::Saved(1), Event::Propose { slot: 1, value: None, with_payload: false }];
    let hear = |message: PeerMessage| others.map(|other| Event::Received(other, message.clone()));
    events.extend(hear(PeerMessage::Proposal { slot: 1, value: None, payload: None }));
    events.extend(hear(PeerMessage::State { slot: 1, phase: 1, state: State::Zero }));
    // Nobody is bound to a value, so that there is a second phase.
    events.extend(hear(PeerMessage::Vote { slot: 1, phase: 1, vote: Vote::Undecided }));
    events.extend(hear(PeerMessage::State { slot: 1, phase: 2, state: State::Zero }));

    let mut promises: Vec<Ticket> = vec![0, 1];
    let (mut durable, mut said) = (0, 0);
    let (mut votes, mut states) = (0, 0);
    events.reverse();
    while let Some(event) = events.pop() {
        if let Event::Saved(ticket) = event {
            durable = ticket;
        }
        for effect in effects(&mut agreement, event) {
            match effect {
                Effect::Save(ticket, commit) => {
                    if commit.reserved.is_some() || !commit.records.is_empty() {
                        promises.push(ticket);
                    }
                    events.push(Event::Saved(ticket));
                }
                Effect::Broadcast(PeerMessage::Promised { count, .. }) => said = count,
                Effect::Broadcast(message) => {
                    votes += usize::from(matches!(message, PeerMessage::Vote { .. }));
                    states += usize::from(matches!(message, PeerMessage::State { phase: 2, .. }));
                    let kept = promises.iter().rposition(|ticket| *ticket <= durable).unwrap();
                    assert_eq!(said, kept as u64, "before {message:?}");
                }
                _ => {}
            }
        }
    }
    assert!(votes >= 2 && states == 1, "{votes} votes, {states} states of the second phase");
}

#[test]
fn promises_that_are_counted_late_are_noticed() {
    assert!(is_noticed(Rule::PromisesFirst, promises_are_counted_before_they_are_acted_upon));
}
