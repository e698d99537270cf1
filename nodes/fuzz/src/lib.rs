//! What comes from outside, one module for each kind: whatever the bytes are, they are taken or refused in order.
//!
//! Each module has `check`, which panics if something is wrong, and `seeds`, from which a fuzzer starts. The fuzz
//! targets in `targets` call them, and so do tests of the default suite: `nodes/tests/fuzzed.rs`, and for
//! [`stored_records`], which lies in the room that it is about, `storage/tests/stored_records.rs`.
//!
//! | target | input |
//! | --- | --- |
//! | [`client_frames`] | a message of a client or to one, JSON or MessagePack |
//! | [`handshakes`] | bytes in the place of TLS between members, on either side; hellos |
//! | [`tokens`] | what is shown for a token, and the commands that put and revoke one |
//! | [`scopes`] | a scope and an account, and the commands that put principals |
//! | [`peer_frames`] | a frame between nodes, the opening of a link, the payload of a batch |
//! | [`configuration`] | `node.toml` |
//! | [`backup`] | a backup file, as it is, or in parts that are packed with right lengths and digest |
//! | [`snapshot_rows`] | rows of the books: of a snapshot that a node sends, or the books on disk |
//! | [`stored_records`] | rows of the log on disk, with right check values |
//!
//! cargo-fuzz needs options of the compiler that are not stable. Where there is no nightly toolchain, `RUSTC_BOOTSTRAP=1`
//! allows them. From the folder `nodes`:
//!
//! ```text
//! cargo install cargo-fuzz
//! export RUSTC_BOOTSTRAP=1
//! cargo run --manifest-path fuzz/Cargo.toml --bin seeds
//! cargo fuzz run client_frames -- -max_total_time=300 -malloc_limit_mb=128 -timeout=5
//! ```
//!
//! An input that fails is in `fuzz/artifacts`. It becomes a test of the code that was wrong.
//!
//! What was run last so, on a machine that was busy with other things, with the address sanitizer:
//!
//! | target | minutes | executions | found |
//! | --- | --- | --- | --- |
//! | `client_frames` | 5 | 294,653 | nothing |
//! | `peer_frames` | 5 | 525,044 | nothing |
//! | `configuration` | 5 | 7,657 | nothing |
//! | `backup` | 5 | 12,641 | nothing |
//! | `snapshot_rows` | 9 | 43,281 | nothing |
//! | `stored_records` | 9 | 1,251 | nothing |
//!
//! The last one opens a log for every input, which takes longest.

pub mod backup;
pub mod client_frames;
pub mod configuration;
pub mod handshakes;
pub mod parts;
pub mod peer_frames;
pub mod scopes;
pub mod snapshot_rows;
#[path = "../../../storage/tests/storage/common/rows.rs"]
pub mod stored_records;
pub mod tokens;

/// What all targets start from, by name.
pub fn all_seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    vec![
        ("client_frames", client_frames::seeds()),
        ("handshakes", handshakes::seeds()),
        ("tokens", tokens::seeds()),
        ("scopes", scopes::seeds()),
        ("peer_frames", peer_frames::seeds()),
        ("configuration", configuration::seeds()),
        ("backup", backup::seeds()),
        ("snapshot_rows", snapshot_rows::seeds()),
        ("stored_records", stored_records::seeds()),
    ]
}
