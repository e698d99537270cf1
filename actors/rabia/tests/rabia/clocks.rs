//! Log time and wrong clocks: of one node, of a majority, while they run and between two starts.

use std::time::Duration;

use rabia_bank_messages::ids::{MAX_NODES, Millis, NodeId};
use rabia_bank_rabia::clocks::{Clocks, Leapt, PLAUSIBLE, PLAUSIBLE_ALONE, Witness};
use rabia_bank_rabia::pool::Now;

const SECOND: Millis = 1_000;
const MINUTE: Millis = 60 * SECOND;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;
/// When the tests begin.
const BEGIN: Millis = 1_700_000_000_000;
const UP: [bool; MAX_NODES] = [true; MAX_NODES];

fn node(node: u8) -> NodeId {
    NodeId::new(node).unwrap()
}

/// So long after the start, with a clock that is so far off.
fn at(elapsed: Millis, off: i64) -> Now {
    Now { elapsed: Duration::from_millis(elapsed), wall: (BEGIN + elapsed).saturating_add_signed(off) }
}

/// The clock of node 1, which starts with this log time.
fn started(members: usize, now: Now, log_time: Millis, witness: Witness) -> Clocks {
    let mut clocks = Clocks::new(node(1), members / 2 + 1);
    clocks.start(now, log_time, witness);
    clocks
}

/// The clock of node 1 of three, which has worked for an hour, and the others' likewise.
fn running() -> Clocks {
    let mut clocks = started(3, at(0, 0), BEGIN, Witness::default());
    clocks.applied(at(HOUR, 0), BEGIN + HOUR);
    clocks.look(at(HOUR, 0));
    clocks
}

fn hear(clocks: &mut Clocks, now: Now, peer: u8, off: i64, confirmed: Option<Millis>) {
    let elapsed = now.elapsed.as_millis() as Millis;
    clocks.hear(now, node(peer), at(elapsed, off).wall, confirmed);
}

fn stamp(clocks: &Clocks, now: Now) -> Millis {
    clocks.stamp(now, &UP, 3)
}

#[test]
fn the_first_batch_of_a_cluster_may_have_any_stamp() {
    let mut clocks = started(3, at(0, 0), 0, Witness::default());
    assert!(!clocks.is_unsure());
    assert_eq!(stamp(&clocks, at(5, 0)), BEGIN + 5);
    assert!(clocks.latest(at(5, 0)) >= BEGIN + 5);
    clocks.applied(at(6, 0), BEGIN + 5);
    assert!(!clocks.is_unsure());
    assert_eq!(clocks.take_leap(), None);
}

#[test]
fn a_cluster_may_be_idle_for_days() {
    let mut clocks = running();
    let later = at(HOUR + 5 * DAY, 0);
    clocks.look(later);
    assert_eq!((stamp(&clocks, later), clocks.state(later).leap), (later.wall, 0));
    assert!(clocks.latest(later) >= later.wall);
    clocks.applied(later, later.wall);
    assert_eq!(clocks.take_leap(), None);
}

/// Whatever the clocks of a majority show: two days, in which all idle sessions would expire, or years.
#[test]
fn while_nodes_run_log_time_goes_on_by_monotonic_clocks() {
    for ahead in [HOUR + 1, 2 * DAY, 700 * DAY, u64::MAX / 4] {
        let mut clocks = running();
        let leapt = |elapsed| at(elapsed, ahead as i64);
        let now = leapt(HOUR + MINUTE);
        for peer in [2, 3] {
            hear(&mut clocks, now, peer, ahead as i64, Some(BEGIN + HOUR + MINUTE));
        }
        clocks.look(now);
        assert_eq!(stamp(&clocks, now), BEGIN + HOUR + MINUTE);
        assert!(clocks.latest(now) <= BEGIN + 2 * HOUR + MINUTE, "a leap of {ahead} is backed");
        assert_eq!((clocks.state(now).leap, clocks.state(now).offset), (ahead, 0));
        // Days later it is refused as ever, and time has gone on.
        let days = leapt(3 * DAY);
        clocks.look(days);
        assert_eq!(stamp(&clocks, days), BEGIN + 3 * DAY);
        assert_eq!(clocks.take_leap(), None);
        // An operator says that it is right.
        assert_eq!(clocks.accept(days), ahead);
        assert_eq!((stamp(&clocks, days), clocks.state(days).leap), (days.wall, 0));
        assert_eq!(clocks.take_leap(), Some((ahead, Leapt::Operator)));
    }
}

#[test]
fn a_step_of_less_than_an_hour_is_no_leap_and_steps_do_not_add_up_in_a_year() {
    let mut clocks = running();
    let mut off = 0;
    for day in 1..365 {
        off += 10 * MINUTE as i64;
        for hour in 0..24 {
            let now = at(day * DAY + hour * HOUR, off);
            assert_eq!((stamp(&clocks, now), clocks.state(now).leap), (now.wall, 0), "on day {day}");
            clocks.applied(now, now.wall);
            clocks.look(now);
        }
    }
    assert_eq!(clocks.take_leap(), None);
}

/// It steps by less than an hour each time.
#[test]
fn a_clock_that_goes_too_fast_does_not_take_log_time_along() {
    let mut clocks = running();
    for minute in 60..30 * 24 * 60 {
        let elapsed = minute * MINUTE;
        let now = at(elapsed, elapsed as i64);
        let stamp = stamp(&clocks, now);
        assert!(stamp <= BEGIN + elapsed + elapsed / 24 + HOUR, "after {minute} minutes: {}", stamp - BEGIN);
        clocks.applied(now, stamp);
        clocks.look(now);
    }
}

#[test]
fn a_machine_that_slept_is_no_leap() {
    let mut clocks = running();
    // The monotonic clock of the process stood still, that of the boot did not.
    let now = at(HOUR + MINUTE, 10 * HOUR as i64);
    assert_eq!(clocks.state(now).leap, 10 * HOUR);
    clocks.correct(10 * HOUR as i64);
    assert_eq!((stamp(&clocks, now), clocks.state(now).leap), (now.wall, 0));
}

#[test]
fn what_passed_between_starts_is_confirmed_by_the_clock_of_the_boot() {
    let week = |off: i64| at(7 * DAY, off);
    let witness = Witness { time: BEGIN + 7 * DAY, continuous: true };
    let clocks = started(3, week(0), BEGIN, witness);
    assert!(!clocks.is_unsure());
    assert_eq!(stamp(&clocks, week(0)), week(0).wall);
    // With a clock that is ahead now, time goes on by what is confirmed.
    let clocks = started(3, week(2 * DAY as i64), BEGIN, witness);
    let state = clocks.state(week(2 * DAY as i64));
    assert_eq!((state.leap, state.unsure), (2 * DAY, false));
    assert_eq!(stamp(&clocks, week(2 * DAY as i64)), BEGIN + 7 * DAY);
}

#[test]
fn alone_a_node_is_believed_for_a_night_and_then_asks() {
    let now = at(PLAUSIBLE_ALONE, 0);
    let mut clocks = started(1, now, BEGIN, Witness::default());
    assert!(!clocks.is_unsure());
    assert_eq!(clocks.take_leap(), Some((PLAUSIBLE_ALONE, Leapt::Majority)));

    let now = at(PLAUSIBLE_ALONE + 1, 0);
    let mut clocks = started(1, now, BEGIN, Witness::default());
    let state = clocks.state(now);
    assert!(clocks.is_unsure() && state.unsure && state.refused && state.leap == PLAUSIBLE_ALONE + 1, "{state:?}");
    assert!(clocks.latest(now) <= BEGIN + HOUR);
    assert_eq!(clocks.accept(now), PLAUSIBLE_ALONE + 1);
    assert!(!clocks.is_unsure());
    assert_eq!(clocks.stamp(now, &UP, 1), now.wall);

    // It was told so much when it ran last.
    let witness = Witness { time: BEGIN + 3 * DAY, continuous: false };
    assert!(!started(1, at(3 * DAY + HOUR / 2, 0), BEGIN, witness).is_unsure());
    // A clock that is set right meanwhile needs nobody.
    let now = at(0, 40 * DAY as i64);
    let mut clocks = started(1, now, BEGIN, Witness::default());
    assert!(clocks.is_unsure());
    clocks.look(at(MINUTE, 0));
    assert!(!clocks.is_unsure());
}

#[test]
fn a_majority_that_agrees_is_believed_for_a_week() {
    let now = at(PLAUSIBLE, 0);
    let started = |now| started(3, now, BEGIN, Witness::default());
    let mut clocks = started(now);
    assert!(clocks.is_unsure() && !clocks.state(now).refused, "it waits for others");
    hear(&mut clocks, now, 2, 20 * SECOND as i64, None);
    assert!(!clocks.is_unsure());
    assert_eq!(clocks.take_leap(), Some((PLAUSIBLE, Leapt::Majority)));
    assert_eq!(stamp(&clocks, now), now.wall);

    // Somebody's clock says otherwise.
    for off in [-2 * DAY as i64, -2 * MINUTE as i64, 2 * MINUTE as i64] {
        let mut clocks = started(now);
        hear(&mut clocks, now, 3, off, None);
        hear(&mut clocks, now, 2, 0, None);
        assert!(clocks.is_unsure() && clocks.state(now).refused, "one of three is {off} ms off");
    }
    // It is too long.
    let now = at(PLAUSIBLE + 1, 0);
    let mut clocks = started(now);
    for peer in [2, 3] {
        hear(&mut clocks, now, peer, 0, None);
    }
    assert!(clocks.is_unsure() && clocks.state(now).refused);
    assert!(clocks.latest(now) <= BEGIN + HOUR);
}

/// Two of three were started again with clocks that are two days ahead: they do not overrule the one that knows.
#[test]
fn whoever_was_off_believes_a_peer_that_was_not() {
    let ahead = 2 * DAY as i64;
    let now = at(MINUTE, ahead);
    let mut clocks = started(3, now, BEGIN, Witness::default());
    hear(&mut clocks, now, 3, 0, Some(BEGIN + MINUTE));
    hear(&mut clocks, now, 2, ahead, None);
    assert!(!clocks.is_unsure());
    assert_eq!(stamp(&clocks, now), BEGIN + MINUTE);
    assert!(clocks.latest(now) <= BEGIN + MINUTE + HOUR);
    assert_eq!(clocks.state(now).leap, 2 * DAY);
    // Of one that was off for a month while the others were idle both the clock and a peer say so.
    let now = at(30 * DAY, 0);
    let mut clocks = started(3, now, BEGIN, Witness::default());
    hear(&mut clocks, now, 2, 0, Some(BEGIN + 30 * DAY));
    assert_eq!((stamp(&clocks, now), clocks.state(now).leap), (now.wall, 0));
    assert_eq!(clocks.take_leap(), Some((30 * DAY, Leapt::Peer(node(2)))));
}

#[test]
fn what_an_operator_says_at_one_node_holds_where_clocks_agree() {
    let ahead = 2 * DAY as i64;
    let (mut clocks, mut right) = (running(), running());
    let (now, now_right) = (at(2 * HOUR, ahead), at(2 * HOUR, 0));
    // One peer has not heard of it yet.
    for (clocks, now) in [(&mut clocks, now), (&mut right, now_right)] {
        hear(clocks, now, 2, ahead, Some(BEGIN + 2 * HOUR));
        hear(clocks, now, 3, ahead, Some(now.wall));
    }
    assert_eq!((stamp(&clocks, now), clocks.state(now).leap), (now.wall, 0));
    hear(&mut right, now_right, 3, ahead, Some(BEGIN + 2 * HOUR + 2 * DAY));
    assert!(right.latest(now_right) <= now_right.wall + SECOND, "a clock that shows otherwise backs nothing");
}

#[test]
fn what_a_majority_has_backed_is_no_leap_any_more() {
    let mut clocks = running();
    let now = at(2 * HOUR, 2 * DAY as i64);
    clocks.applied(now, now.wall);
    assert_eq!(clocks.take_leap(), Some((2 * DAY, Leapt::Log)));
    assert_eq!((stamp(&clocks, now), clocks.state(now).leap), (now.wall, 0));
    assert!(clocks.latest(now) >= now.wall);
}

#[test]
fn a_log_that_comes_bit_by_bit_is_no_leap() {
    let now = at(0, 0);
    let mut clocks = started(3, now, 0, Witness::default());
    for days_ago in (0..100).rev() {
        clocks.applied(now, BEGIN - days_ago * DAY);
        clocks.look(at((100 - days_ago) * SECOND, 0));
    }
    assert!(!clocks.is_unsure());
    assert_eq!(clocks.take_leap(), None);
}

/// Each node knows how far its own clock is off: the wrong one of three, and not the right ones.
#[test]
fn a_clock_that_is_behind_is_known_at_its_own_node() {
    let behind = -(HOUR as i64);
    let (mut wrong, mut right) = (running(), running());
    let now = at(2 * HOUR, 0);
    hear(&mut right, now, 2, 0, Some(now.wall));
    hear(&mut right, now, 3, behind, Some(now.wall));
    let slow = at(2 * HOUR, behind);
    hear(&mut wrong, slow, 2, 0, Some(now.wall));
    hear(&mut wrong, slow, 3, 0, Some(now.wall));
    assert_eq!((right.state(now).offset, wrong.state(slow).offset), (0, behind));
    // With two it is not known which is wrong.
    let mut alone = running();
    hear(&mut alone, now, 3, behind, Some(now.wall));
    assert_eq!((alone.state(now).offset, alone.state(now).others), (-behind, 1));
}
