//! Which store is heard where a member's was replaced: below slot r + W the former one, from there on the new one, whichever is at
//! the other end of the link.

use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::genesis::DEFAULT_WINDOW;
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot, StoreId};
use rabia_bank_messages::peer::{PeerMessage, State, Vote};
use rabia_bank_messages::sabotage::Rule;
use rabia_bank_rabia::agreement::{Agreement, Effect, Event, Notice};

use super::{effects, first_of_three, is_noticed};

const FORMER: StoreId = StoreId([9; 16]);
const NEW: StoreId = StoreId([10; 16]);
/// The slot in which node 3 gets a new store.
const REPLACED: Slot = 1;
/// The first slot in which that speaks.
const SPEAKS: Slot = REPLACED + DEFAULT_WINDOW;

fn node(number: u8) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Node 1, which knows the log to `decided`: node 3 has a new store in it.
fn with_replacement(decided: Slot) -> Agreement {
    let mut agreement = first_of_three();
    let payload = Payload::replacing(node(3), NEW, 0);
    let digest = Digest::of(payload.bytes());
    let id = BatchId { origin: node(2), incarnation: 1, sequence: 1, digest };
    decide(&mut agreement, REPLACED, Some((id, payload)));
    (REPLACED + 1..=decided).for_each(|slot| decide(&mut agreement, slot, None));
    assert_eq!(agreement.frontier(), decided);
    agreement
}

/// Node 2 tells a decision.
fn decide(agreement: &mut Agreement, slot: Slot, batch: Option<(BatchId, Payload)>) {
    let value = batch.as_ref().map(|(id, _)| *id);
    if let Some((id, payload)) = batch {
        effects(agreement, Event::Received(node(2), PeerMessage::Batch { id, payload }));
    }
    effects(agreement, Event::Received(node(2), PeerMessage::Decide { slot, value }));
}

/// Whether something that node 3 says in this slot is heard.
fn hears(agreement: &Agreement, message: &PeerMessage) -> bool {
    let mut agreement = agreement.clone();
    let heard = effects(&mut agreement, Event::Received(node(3), message.clone()));
    heard.iter().any(|effect| matches!(effect, Effect::Pool(Notice::Heard { .. } | Notice::InUse(..))))
}

fn said_in(slot: Slot) -> [PeerMessage; 3] {
    [
        PeerMessage::Proposal { slot, value: None, payload: None },
        PeerMessage::State { slot, phase: 1, state: State::Zero },
        PeerMessage::Vote { slot, phase: 1, vote: Vote::Zero },
    ]
}

#[test]
fn in_each_slot_one_store_of_a_member_counts() {
    let mut agreement = with_replacement(REPLACED);
    for (store, is_new) in [(FORMER, false), (NEW, true), (StoreId([11; 16]), false)] {
        effects(&mut agreement, Event::LinkUp(node(3), store));
        for slot in REPLACED + 1..=SPEAKS {
            let counts = is_new == (slot >= SPEAKS) && (is_new || store == FORMER);
            for message in said_in(slot) {
                assert_eq!(hears(&agreement, &message), counts, "{store:?} says {message:?}");
            }
        }
    }
}

#[test]
fn a_store_that_counts_everywhere_is_noticed() {
    assert!(is_noticed(Rule::StoreBySlot, in_each_slot_one_store_of_a_member_counts));
}

/// Which reads may be answered, and the round that is asked for.
fn reads(effects: Vec<Effect>) -> (Vec<u64>, Option<u64>) {
    let (mut answered, mut asked) = (Vec::new(), None);
    for effect in effects {
        match effect {
            Effect::ReadAt { read, .. } => answered.push(read),
            Effect::Broadcast(PeerMessage::ReadIndex { round, .. }) => asked = Some(round),
            _ => {}
        }
    }
    (answered, asked)
}

#[test]
fn the_answer_of_a_store_that_speaks_no_more_fills_no_quorum() {
    // All slots are decided in which the former store spoke.
    let mut agreement = with_replacement(SPEAKS - 1);
    let (answered, round) = reads(effects(&mut agreement, Event::Read(1)));
    assert!(answered.is_empty(), "{answered:?}");
    let answer =
        Event::Received(node(3), PeerMessage::ReadIndexAnswer { starts: 1, round: round.unwrap(), slot: SPEAKS - 1 });
    for store in [FORMER, StoreId([11; 16])] {
        effects(&mut agreement, Event::LinkUp(node(3), store));
        assert!(reads(effects(&mut agreement, answer.clone())).0.is_empty(), "{store:?}");
    }
    effects(&mut agreement, Event::LinkUp(node(3), NEW));
    assert_eq!(reads(effects(&mut agreement, answer)).0, [1]);
}
