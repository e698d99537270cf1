//! The pool of a node that was far behind: what waited there before a snapshot came must not be proposed behind it.
#![allow(clippy::unwrap_used)] // a test says what failed by failing

use std::time::Duration;

use rabia_bank_actors::consensus::agreement::Notice;
use rabia_bank_actors::consensus::pool::{Now, Pool, PoolEffect};
use rabia_bank_messages::bank::{Amount, Command, Operation};
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{ClusterId, NodeId, SessionKey, StoreId};

fn at(millis: u64) -> Now {
    Now { elapsed: Duration::from_millis(millis), wall: 1_000 + millis }
}

fn submit(pool: &mut Pool, now: Now, number: u64) {
    let header = RequestHeader { session: 1, key: SessionKey([1; 16]), number, acknowledged: 0 };
    let operation = Operation::Deposit { account_id: "a".into(), amount: Amount::new(1) };
    let mut effects = Vec::new();
    pool.submit(now, &header, &Action::Command(Command::One(operation)), &mut effects);
    assert_eq!(effects, Vec::new(), "one request does not fill a batch");
}

fn pump(pool: &mut Pool, now: Now) -> Vec<PoolEffect> {
    let mut effects = Vec::new();
    pool.pump(now, &mut effects);
    effects
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
    let [PoolEffect::Formed(own, payload), PoolEffect::Propose { slot: 1, value: Some(proposed), .. }] = &formed[..]
    else {
        panic!("{formed:?}")
    };
    assert_eq!(own, proposed);
    let mut effects = Vec::new();
    let foreign = rabia_bank_messages::ids::BatchId { origin: other, ..*own };
    pool.notice(at(11), Notice::Arrived(foreign, payload.clone()), &mut effects);
    assert_eq!(effects, Vec::new());
    // This one still gathers when the snapshot comes: it was never said to anybody.
    submit(&mut pool, at(12), 2);

    pool.notice(at(5_000), Notice::Installed(1_000, vec![(999, None), (1_000, None)]), &mut effects);
    let mut given_up = vec![PoolEffect::Forget(*own), PoolEffect::Forget(foreign), PoolEffect::Abandon];
    given_up[..2].sort_by_key(|effect| format!("{effect:?}"));
    let abandoned = effects.pop();
    effects.sort_by_key(|effect| format!("{effect:?}"));
    effects.extend(abandoned);
    assert_eq!(effects, given_up);

    let after = pump(&mut pool, at(6_000));
    let [PoolEffect::Formed(next, _), PoolEffect::Propose { slot: 1_001, value: Some(proposed), .. }] = &after[..]
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
