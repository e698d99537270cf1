//! Rows with right check values that no node wrote: refused, or harmless. `nodes/fuzz` goes on from here.

#[path = "common/rows.rs"]
mod rows;

use crate::common::Random;

#[test]
fn rows_that_were_altered_are_refused_or_harmless() {
    let seeds = rows::seeds();
    assert!(seeds.len() > 12, "only {} seeds", seeds.len());
    seeds.iter().for_each(|seed| rows::check(seed));
    let mut random = Random(1);
    for _ in 0..400 {
        let mut input = seeds[random.below(seeds.len() as u64) as usize].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(input.len() as u64) as usize;
            input[at] = random.next() as u8;
        }
        rows::check(&input);
    }
}

/// A record in the place of another one: the key says where, the body what.
#[test]
fn records_that_no_node_writes_are_refused() {
    let record = |phase: u32, kind: u8, body: &[u8]| {
        let key = [&[3][..], &7u64.to_be_bytes(), &phase.to_be_bytes(), &[kind]].concat();
        [&[0, key.len() as u8][..], &key, &(body.len() as u16).to_be_bytes(), body].concat()
    };
    for (phase, kind, body) in [
        (0, 1, &b"\xa4Zero"[..]),
        (u32::MAX, 1, b"\xa4Zero"),
        (1, 0, b"\xa4Zero"),
        (2, 0, b"\xa7Abstain"),
        (0, 0, b"\xa4Zero"),
    ] {
        let input = record(phase, kind, body);
        assert!(rows::refuses(&input), "phase {phase}, kind {kind}, {body:?}");
        rows::check(&input);
    }
    for stranger in [&[][..], &[0], &[6, 1], &[8, 1]] {
        let input = [&[0, stranger.len() as u8][..], stranger, &[0, 0]].concat();
        assert!(rows::refuses(&input), "no row of a log has the key {stranger:?}");
    }
    assert!(!rows::refuses(&record(1, 1, b"\xa4Zero")));
    assert!(!rows::refuses(&record(2, 0, b"\xa4Zero")));
}
