//! The pool of a node in trouble: what waited before a snapshot came must not be proposed behind it, a peer that does so all the
//! same must not do it for ever, and a clock that is ahead must not keep batches from being backed.

use std::time::Duration;

use rabia_bank_messages::bank::{Amount, Bulk, Command, Operation};
use rabia_bank_messages::batch::{Action, BatchBuilder, EncodedRequest, MAX_STAMP, Payload, RequestHeader};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{BatchId, ClusterId, Millis, NodeId, SessionKey, StoreId};
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_rabia::agreement::Notice;
use rabia_bank_rabia::pool::{Asker, MAX_WAIT, MAX_WAITING, Now, Pool, PoolEffect};
use rabia_bank_rabia::turns::Owner;

fn at(millis: u64) -> Now {
    Now { elapsed: Duration::from_millis(millis), wall: 1_000 + millis }
}

fn submit(pool: &mut Pool, now: Now, number: u64) {
    let header = RequestHeader { session: 1, key: SessionKey([1; 16]), number, acknowledged: 0, token: 0 };
    let operation = Operation::Deposit { account_id: "a".into(), amount: Amount::new(1) };
    let from = Asker { owner: Owner::Host, client: 1, tag: number };
    pool.submit(now, from, EncodedRequest::new(&header, &Action::Command(Command::One(operation))));
}

fn pump(pool: &mut Pool, now: Now) -> Vec<PoolEffect> {
    let mut effects = Vec::new();
    pool.pump(now, &mut effects);
    effects.retain(|effect| !says_its_clock(effect));
    effects
}

/// Nodes say what their clocks show now and then.
fn says_its_clock(effect: &PoolEffect) -> bool {
    matches!(effect, PoolEffect::Send(_, PeerMessage::Clock { refuses: false, .. }))
}

/// The others have forgotten a batch that was decided long ago, and do not back it: proposing it again would forfeit slots
/// for ever.
#[test]
fn what_waited_before_a_snapshot_is_given_up() {
    let genesis = Genesis::new(ClusterId([1; 16]), vec![StoreId([7; 16]); 3]);
    let [me, other] = [1, 2].map(|node| NodeId::new(node).unwrap());
    let mut pool = Pool::new(genesis.clone(), me, 1, 0);
    submit(&mut pool, at(10), 1);
    let formed = pump(&mut pool, at(10));
    let [PoolEffect::Formed(own, payload, _), PoolEffect::Propose { slot: 1, value: Some(proposed), .. }] = &formed[..]
    else {
        panic!("{formed:?}")
    };
    assert_eq!(own, proposed);
    let mut effects = Vec::new();
    let foreign = BatchId { origin: other, ..*own };
    pool.notice(at(11), Notice::Arrived(foreign, payload.clone()), &mut effects);
    assert_eq!(effects, Vec::new());
    // This one still gathers when the snapshot comes: it was never said to anybody.
    submit(&mut pool, at(12), 2);

    pool.notice(at(5_000), Notice::Installed(1_000, vec![(999, None), (1_000, None)]), &mut effects);
    let given_up = [PoolEffect::Forget(*own), PoolEffect::Abandon(*own), PoolEffect::Forget(foreign)];
    assert_eq!(effects, given_up);

    let after = pump(&mut pool, at(6_000));
    let [PoolEffect::Formed(next, ..), PoolEffect::Propose { slot: 1_001, value: Some(proposed), .. }] = &after[..]
    else {
        panic!("{after:?}")
    };
    assert_eq!(next, proposed);
    assert!(![*own, foreign].contains(next), "{next:?} was given up");
    pool.notice(at(6_001), Notice::Decided(1_001, Some(*next)), &mut Vec::new());
    pool.notice(at(6_001), Notice::Frontier(1_001), &mut Vec::new());
    assert_eq!(pump(&mut pool, at(9_000)), Vec::new(), "nothing is left to propose");

    // Its origin says it again: the core, which was told to forget it, must keep its payload now.
    let mut effects = Vec::new();
    pool.notice(at(9_001), Notice::Arrived(foreign, payload.clone()), &mut effects);
    assert_eq!(effects, vec![PoolEffect::Hold(foreign, payload.clone())]);
}

/// The batch that a pool forms of one request.
fn formed(pool: &mut Pool, now: Now, number: u64) -> (BatchId, Payload) {
    submit(pool, now, number);
    match &pump(pool, now)[..] {
        [PoolEffect::Formed(id, payload, _), ..] => (*id, payload.clone()),
        other => panic!("{other:?}"),
    }
}

fn heard(pool: &mut Pool, now: Now, notice: Notice) -> Vec<PoolEffect> {
    let mut effects = Vec::new();
    pool.notice(now, notice, &mut effects);
    effects.retain(|effect| !says_its_clock(effect));
    effects
}

fn decide(pool: &mut Pool, now: Now, slot: u64, value: Option<BatchId>) {
    heard(pool, now, Notice::Decided(slot, value));
    heard(pool, now, Notice::Frontier(slot));
}

fn refusal(wall: Millis) -> PeerMessage {
    PeerMessage::Clock { wall, confirmed: None, refuses: true }
}

fn refused(peer: NodeId, wall: Millis) -> Notice {
    Notice::Clock { peer, wall, confirmed: None, refuses: true }
}

#[test]
fn a_clock_that_is_ahead_gives_way_to_those_of_a_majority() {
    let genesis = Genesis::new(ClusterId([1; 16]), vec![StoreId([7; 16]); 3]);
    let [fast, second, third] = [1, 2, 3].map(|node| NodeId::new(node).unwrap());
    let hour: Millis = 3_600_000;
    let ahead = |millis: u64| Now { wall: at(millis).wall + hour, ..at(millis) };
    let mut pool = Pool::new(genesis.clone(), fast, 1, 0);
    for peer in [second, third] {
        heard(&mut pool, ahead(0), Notice::LinkUp(peer));
    }
    let (early, payload) = formed(&mut pool, ahead(10), 1);
    assert_eq!(payload.stamp().unwrap(), at(10).wall + hour);

    // The others do not back it, and say so, but not at every batch.
    let mut other = Pool::new(genesis, second, 1, 0);
    let told = heard(&mut other, at(11), Notice::Arrived(early, payload.clone()));
    assert_eq!(told, [PoolEffect::Send(Some(fast), refusal(at(11).wall))]);
    let next = BatchId { sequence: early.sequence + 1, ..early };
    assert_eq!(heard(&mut other, at(12), Notice::Arrived(next, payload)), []);
    assert_eq!(pump(&mut other, at(300)), [], "nothing that waits can be backed");

    // One of two others with a slow clock does not matter: the fast node and the third are a majority.
    assert_eq!(heard(&mut pool, ahead(12), refused(second, at(11).wall)), []);
    // Two do. What can't be backed for an hour is given up, and what comes is stamped so that it can be.
    let given_up = heard(&mut pool, ahead(13), refused(third, at(12).wall));
    assert_eq!(given_up, [PoolEffect::Forget(early), PoolEffect::Abandon(early)]);
    decide(&mut pool, ahead(14), 1, None);
    let (id, payload) = formed(&mut pool, ahead(100), 2);
    let stamp = payload.stamp().unwrap();
    assert!(stamp <= at(100).wall && stamp + 10 >= at(100).wall, "stamped {stamp} at {}", at(100).wall);

    // With one of them gone the other is needed. With none of them slow for a minute the own clock is believed again.
    heard(&mut pool, ahead(101), Notice::LinkDown(third));
    decide(&mut pool, ahead(101), 2, Some(id));
    let (id, payload) = formed(&mut pool, ahead(200), 3);
    assert!(payload.stamp().unwrap() <= at(200).wall);
    decide(&mut pool, ahead(201), 3, Some(id));
    let (_, payload) = formed(&mut pool, ahead(61_000), 4);
    assert_eq!(payload.stamp().unwrap(), at(61_000).wall + hour);
}

/// Who skipped the slot of a batch by a snapshot, or restarted, does not know that it was decided. If the others only said null
/// to it, it would propose it in one slot after the other.
#[test]
fn a_batch_that_was_decided_long_ago_is_backed() {
    let genesis = Genesis::new(ClusterId([1; 16]), vec![StoreId([7; 16]); 3]);
    let [me, second, third] = [1, 2, 3].map(|node| NodeId::new(node).unwrap());
    let mut pool = Pool::new(genesis.clone(), me, 1, 0);
    for peer in [second, third] {
        heard(&mut pool, at(0), Notice::LinkUp(peer));
    }
    let (own, payload) = formed(&mut pool, at(1), 1);
    let decided = BatchId { origin: second, ..own };
    decide(&mut pool, at(2), 1, Some(decided));
    decide(&mut pool, at(3), 2, Some(own));
    let proposed = |slot| Notice::Heard { slot, from: third, value: Some(decided), payload: Some(payload.clone()) };

    // Third said this before it could know: it will not again.
    let mut last = genesis.window;
    (3..last).for_each(|slot| decide(&mut pool, at(10), slot, None));
    assert_eq!(heard(&mut pool, at(20), proposed(last)), [PoolEffect::Forget(decided)]);
    let null = |slot| [PoolEffect::Propose { slot, value: None, with_payload: false }];
    assert_eq!(pump(&mut pool, at(21)), [], "it waits for the slot's owner");
    assert_eq!(pump(&mut pool, at(1_000)), null(last));
    decide(&mut pool, at(1_001), last, None);

    // And this though it knew the slots a window below.
    last += 1;
    assert_eq!(heard(&mut pool, at(1_002), proposed(last)), [PoolEffect::Forget(decided)]);
    let again = PoolEffect::Propose { slot: last, value: Some(decided), with_payload: false };
    assert_eq!(pump(&mut pool, at(1_003)), [again]);
    decide(&mut pool, at(1_004), last, Some(decided));
    assert_eq!(pump(&mut pool, at(9_000)), [], "nothing is left to propose");
}

/// However much one client has sent, little of it is ahead of what another asks for next.
#[test]
fn a_backlog_waits_for_its_turn_and_not_in_formed_batches() {
    let genesis = Genesis::new(ClusterId([1; 16]), vec![StoreId([7; 16]); 3]);
    let mut pool = Pool::new(genesis, NodeId::new(1).unwrap(), 1, 0);
    let deposit = Operation::Deposit { account_id: "a".into(), amount: Amount::new(1) };
    let bulk = Command::Bulk(Bulk { commands: vec![deposit; 10_000], atomic: false });
    for number in 1..=30 {
        let header = RequestHeader { session: 1, key: SessionKey([1; 16]), number, acknowledged: 0, token: 0 };
        let from = Asker { owner: Owner::Host, client: 1, tag: number };
        pool.submit(at(10), from, EncodedRequest::new(&header, &Action::Command(bulk.clone())));
    }
    let all_formed = |effects: Vec<PoolEffect>| -> Vec<(BatchId, Vec<Asker>)> {
        let formed = effects.into_iter().filter_map(|effect| match effect {
            PoolEffect::Formed(id, _, askers) => Some((id, askers)),
            _ => None,
        });
        formed.collect()
    };
    let mut ahead = all_formed(pump(&mut pool, at(10)));
    ahead.extend(all_formed(pump(&mut pool, at(11))));
    let bulks: usize = ahead.iter().map(|(_, askers)| askers.len()).sum();
    assert!((1..=3).contains(&bulks), "{bulks} bulks are in flight");

    let owner = Owner::at([127, 0, 0, 2].into());
    let header = RequestHeader { session: 2, key: SessionKey([2; 16]), number: 1, acknowledged: 0, token: 0 };
    pool.submit(at(12), Asker { owner, client: 2, tag: 7 }, EncodedRequest::new(&header, &Action::<Command>::Close));
    let mut next = Vec::new();
    for (slot, (id, _)) in (1..).zip(&ahead) {
        if next.is_empty() {
            decide(&mut pool, at(13), slot, Some(*id));
            next.extend(all_formed(pump(&mut pool, at(13))));
        }
    }
    let (_, askers) = &next[0];
    assert!(askers.iter().any(|asker| asker.client == 2), "{askers:?}");
    assert!(askers.len() <= 2, "one bulk beside it: {askers:?}");
}

/// A batch of another node, with a payload of this length.
fn foreign(origin: NodeId, sequence: u64, length: usize, stamp: Millis) -> Notice {
    let mut builder = BatchBuilder::default();
    let header = RequestHeader { session: 1, key: SessionKey([1; 16]), number: sequence, acknowledged: 0, token: 0 };
    let account_id = "x".repeat(length).into();
    builder.push(&header, &Action::Command(Command::One(Operation::Deposit { account_id, amount: Amount::new(1) })));
    let (id, payload) = builder.finish(origin, 1, sequence, stamp);
    Notice::Arrived(id, payload)
}

fn dropped(effects: &[PoolEffect]) -> Vec<u64> {
    let dropped = effects.iter().filter_map(|effect| match effect {
        PoolEffect::Drop(id) => Some(id.sequence),
        _ => None,
    });
    dropped.collect()
}

#[test]
fn batches_of_others_that_never_ripen_have_a_budget() {
    let genesis = Genesis::new(ClusterId([1; 16]), vec![StoreId([7; 16]); 3]);
    let [me, second, third] = [1, 2, 3].map(|node| NodeId::new(node).unwrap());
    let mut pool = Pool::new(genesis, me, 1, 0);
    let (big, mut gone) = (10 << 20, Vec::new());
    for sequence in 1..=20 {
        gone.extend(dropped(&heard(&mut pool, at(10), foreign(second, sequence, big, MAX_STAMP))));
    }
    // Three of them have room; the oldest went first.
    assert_eq!(gone, (1..=17).collect::<Vec<_>>());
    // Many small ones likewise, and nobody else's go for them.
    gone.clear();
    for sequence in 1..=MAX_WAITING as u64 + 3 {
        gone.extend(dropped(&heard(&mut pool, at(10), foreign(third, sequence, 1, MAX_STAMP))));
    }
    assert_eq!(gone, [1, 2, 3]);
    assert_eq!(pool.dropped(), 20);
    // What waits for too long goes, too.
    let stale = dropped(&pump(&mut pool, at(10 + MAX_WAIT.as_millis() as u64)));
    assert!(stale.is_empty(), "{stale:?}");
    let stale = dropped(&pump(&mut pool, at(1_100 + MAX_WAIT.as_millis() as u64)));
    assert_eq!(stale.len(), 3 + MAX_WAITING);
}
