//! Members whose logs or states differ: nothing of the one's log gets into the other's, and no client is answered until a majority
//! has the same (rule 12).

use std::time::Duration;

use rabia_bank_messages::batch::{BatchBuilder, Payload};
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot, StoreId};
use rabia_bank_messages::lineage::log_hash;
use rabia_bank_messages::peer::{DIGEST_INTERVAL, Entry, PeerMessage, Value};
use rabia_bank_messages::sabotage::{Broken, Rule};
use rabia_bank_rabia::agreement::{Agreement, Effect, Event};

use super::{effects, first_of_three};

const OTHER: Digest = Digest([9; 32]);

fn second() -> NodeId {
    NodeId::new(2).unwrap()
}

fn third() -> NodeId {
    NodeId::new(3).unwrap()
}

fn says(from: NodeId, message: PeerMessage) -> Event {
    Event::Received(from, message)
}

fn nulls(before: Digest, slots: std::ops::RangeInclusive<Slot>) -> PeerMessage {
    let entries = slots.map(|slot| Entry { slot, batch: None }).collect();
    PeerMessage::Entries { before, entries, decided: 0 }
}

/// Node 1 of 3 with the log up to slot 10, all null.
fn at_slot_10() -> Agreement {
    let mut agreement = first_of_three();
    effects(&mut agreement, says(second(), nulls(Digest::ZERO, 1..=10)));
    assert_eq!(agreement.frontier(), 10);
    agreement
}

fn hash_of(values: &[Value]) -> Digest {
    (1..).zip(values).fold(Digest::ZERO, |before, (slot, value)| log_hash(before, slot, value))
}

fn doubts(effects: &[Effect]) -> Vec<bool> {
    let doubts = effects.iter().filter_map(|effect| match effect {
        Effect::Doubt(begins) => Some(*begins),
        _ => None,
    });
    doubts.collect()
}

fn batch() -> (BatchId, Payload) {
    BatchBuilder::default().finish(third(), 1, 1, 1)
}

#[test]
fn decided_slots_of_another_log_are_not_taken() {
    let mut agreement = at_slot_10();
    let mine = agreement.log_hash();
    let came = effects(&mut agreement, says(third(), nulls(OTHER, 11..=12)));
    assert_eq!((agreement.frontier(), doubts(&came)), (10, vec![true]));
    assert!(agreement.in_doubt());
    // It tells the others what it has, and asks them.
    for message in [PeerMessage::LogHash { slot: 10, hash: mine }, PeerMessage::GetHash { slot: 10 }] {
        assert!(came.contains(&Effect::Broadcast(message.clone())), "{message:?} is missing in {came:?}");
    }
    let came = effects(&mut agreement, says(second(), PeerMessage::LogHash { slot: 10, hash: mine }));
    assert_eq!(doubts(&came), [false]);
    effects(&mut agreement, says(second(), nulls(mine, 11..=12)));
    assert_eq!(agreement.frontier(), 12);
}

/// Entries that begin right and lead elsewhere below what this node has.
#[test]
fn a_log_that_forks_in_the_middle_of_what_is_sent_is_found() {
    let mut agreement = at_slot_10();
    let (id, payload) = batch();
    let entries = (9..=12).map(|slot| Entry { slot, batch: (slot == 10).then(|| (id, payload.clone())) }).collect();
    let before = hash_of(&[None; 8]);
    let came = effects(&mut agreement, says(third(), PeerMessage::Entries { before, entries, decided: 12 }));
    assert_eq!((agreement.frontier(), doubts(&came)), (10, vec![true]));
}

#[test]
fn nothing_of_a_member_with_another_log_counts() {
    let decides = |agreement: &mut Agreement| {
        effects(agreement, says(third(), PeerMessage::Alive { decided: 10, hash: OTHER, durable: 10 }));
        effects(agreement, says(third(), PeerMessage::Decide { slot: 11, value: None }));
        agreement.frontier()
    };
    let mut agreement = at_slot_10();
    assert_eq!(decides(&mut agreement), 10);
    // It says the right hash: it was somebody else, or a mistake.
    let hash = agreement.log_hash();
    effects(&mut agreement, says(third(), PeerMessage::Alive { decided: 10, hash, durable: 10 }));
    effects(&mut agreement, says(third(), PeerMessage::Decide { slot: 11, value: None }));
    assert_eq!(agreement.frontier(), 11);
    let _broken = Broken::rule(Rule::ForkedIsIgnored);
    assert_eq!(decides(&mut at_slot_10()), 11, "otherwise its decisions count");
}

#[test]
fn a_node_that_does_not_compare_or_goes_on_in_doubt_is_noticed() {
    for rule in [Rule::LogHash, Rule::DoubtIsSilent] {
        let _broken = Broken::rule(rule);
        let mut agreement = at_slot_10();
        effects(&mut agreement, says(third(), PeerMessage::Alive { decided: 10, hash: OTHER, durable: 10 }));
        assert!(!agreement.in_doubt(), "{rule:?}");
    }
}

/// What is said of a slot ahead is compared when this node is there, also in the middle of a window.
#[test]
fn a_hash_of_a_later_slot_is_compared_later() {
    let mut agreement = at_slot_10();
    let mine = agreement.log_hash();
    let came = effects(&mut agreement, says(third(), PeerMessage::LogHash { slot: 12, hash: OTHER }));
    assert_eq!(doubts(&came), Vec::<bool>::new());
    let came = effects(&mut agreement, says(second(), nulls(mine, 11..=14)));
    assert_eq!((agreement.frontier(), doubts(&came)), (14, vec![true]));
}

#[test]
fn without_a_majority_a_node_stops_after_five_seconds_and_two_comparisons() {
    let mut agreement = first_of_three();
    for (peer, store) in [(second(), 8), (third(), 9)] {
        agreement.note_dialled(peer, true);
        effects(&mut agreement, Event::LinkUp(peer, StoreId([store; 16])));
    }
    effects(&mut agreement, says(second(), nulls(Digest::ZERO, 1..=10)));
    agreement.handle(Duration::ZERO, Event::LinkDown(second()), &mut Vec::new());
    let mut splits = Vec::new();
    let mut tick = |agreement: &mut Agreement, seconds| {
        let mut effects = Vec::new();
        agreement.handle(Duration::from_secs(seconds), Event::Tick, &mut effects);
        let certain = effects.iter().find_map(|effect| match effect {
            Effect::Split { certain, .. } => Some(*certain),
            _ => None,
        });
        splits.extend(certain);
    };
    // Node 2 has said its log only of slot 0.
    for (seconds, slot) in [(1, 10), (2, 9)] {
        let said = says(third(), PeerMessage::LogHash { slot, hash: OTHER });
        agreement.handle(Duration::from_secs(seconds), said, &mut Vec::new());
        tick(&mut agreement, seconds);
    }
    assert!(agreement.in_doubt());
    tick(&mut agreement, 5);
    tick(&mut agreement, 6);
    assert_eq!(splits, [true]);
}

#[test]
fn states_are_compared_too() {
    let mut agreement = at_slot_10();
    let own = |digest| Event::OwnDigest { slot: DIGEST_INTERVAL, digest };
    let came = effects(&mut agreement, own(Digest::ZERO));
    assert!(matches!(came[..], [Effect::Broadcast(PeerMessage::StateDigest { slot: DIGEST_INTERVAL, .. })]));
    let said = |digest| PeerMessage::StateDigest { slot: DIGEST_INTERVAL, digest };
    let came = effects(&mut agreement, says(third(), said(OTHER)));
    assert_eq!(doubts(&came), [true]);
    let came = effects(&mut agreement, says(second(), said(Digest::ZERO)));
    assert_eq!(doubts(&came), [false]);
}

/// Before a snapshot takes the place of its log, a node asks whether it was one with it.
#[test]
fn a_snapshot_is_taken_of_a_member_with_the_same_history() {
    let far = || {
        let mut agreement = first_of_three();
        let mut slot = 0;
        while slot < DIGEST_INTERVAL {
            let before = agreement.log_hash();
            effects(&mut agreement, says(second(), nulls(before, slot + 1..=slot + 16)));
            slot += 16;
        }
        assert_eq!(agreement.frontier(), DIGEST_INTERVAL);
        agreement
    };
    let compacted = || says(third(), PeerMessage::Compacted { log_from: 5_000 });
    let receives = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::GetSnapshot { .. }));
    let mut agreement = far();
    let mine = agreement.log_hash();
    let came = effects(&mut agreement, compacted());
    assert_eq!(came, [Effect::Send(third(), PeerMessage::GetHash { slot: DIGEST_INTERVAL })]);
    let same = says(third(), PeerMessage::LogHash { slot: DIGEST_INTERVAL, hash: mine });
    assert!(receives(&effects(&mut agreement, same)));
    let mut agreement = far();
    effects(&mut agreement, compacted());
    let other = says(third(), PeerMessage::LogHash { slot: DIGEST_INTERVAL, hash: OTHER });
    let came = effects(&mut agreement, other);
    assert_eq!((receives(&came), doubts(&came)), (false, vec![true]));
    let _broken = Broken::rule(Rule::SnapshotHistory);
    assert!(receives(&effects(&mut far(), compacted())), "otherwise it is taken of anybody");
}
