//! What comes from outside, altered a little: a short part of what `nodes/fuzz` does for longer.

use crate::targets::{backup, client_frames, configuration, handshakes, peer_frames, scopes, snapshot_rows, tokens};

/// Alters seeds and checks them, so many of them.
fn alter(seeds: &[Vec<u8>], count: usize, check: fn(&[u8])) {
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| check(seed));
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..count {
        let mut input = seeds[random.usize(..seeds.len())].clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..input.len());
            match random.u32(..6) {
                0 => input.truncate(at.max(1)),
                1 => input.insert(at, random.u8(..)),
                2 => input[at] = [0, 0x7f, 0x80, 0xc0, 0xff][random.usize(..5)],
                3 => input[at] ^= 1 << random.u32(..8),
                4 => {
                    let other = &seeds[random.usize(..seeds.len())];
                    let from = random.usize(..other.len());
                    let length = random.usize(..=(other.len() - from).min(64));
                    input.splice(at..at, other[from..from + length].iter().copied());
                }
                _ => input[at] = random.u8(..),
            }
        }
        check(&input);
    }
}

#[test]
fn client_frames() {
    alter(&client_frames::seeds(), 20_000, client_frames::check);
}

#[test]
fn handshakes() {
    alter(&handshakes::seeds(), 3_000, handshakes::check);
}

#[test]
fn tokens() {
    alter(&tokens::seeds(), 20_000, tokens::check);
}

#[test]
fn scopes() {
    alter(&scopes::seeds(), 20_000, scopes::check);
}

#[test]
fn peer_frames() {
    alter(&peer_frames::seeds(), 20_000, peer_frames::check);
}

#[test]
fn configurations() {
    alter(&configuration::seeds(), 3_000, configuration::check);
}

#[test]
fn backups() {
    alter(&backup::seeds(), 5_000, backup::check);
}

#[test]
fn snapshot_rows() {
    alter(&snapshot_rows::seeds(), 5_000, snapshot_rows::check);
}
