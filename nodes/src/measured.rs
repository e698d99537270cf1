//! What a large and old bank costs, as measured: start, disk, memory, stalls, audits. A page without code.
//!
//! Three nodes and their clients on one machine with two processors and one disk, release build, everything synced to disk, while
//! hardly anything else ran. Starts were measured three times each, and give the range; stalls are those of five snapshots on each
//! node, the first ones after a start among them; all else is of one run. The commands that measure it:
//!
//! ```text
//! cargo test --release --workspace --test scale -- --ignored million_accounts --nocapture
//! cargo test --release --workspace --test scale -- --ignored was_away --nocapture
//! cargo test --release --workspace --test scale -- --ignored was_wiped --nocapture
//! cargo test --release --workspace --test recovery -- --ignored fifty_moments --nocapture
//! cargo test --release --workspace --test recovery -- --ignored hundred_bits --nocapture
//! ```
//!
//! # 1,000,000 accounts and 5,000,000 transfers
//!
//! | figure | mark | measured |
//! | --- | --- | --- |
//! | memory of a node | 1 KiB an account + 256 MiB = 1,233 MiB | 645 to 817 MiB |
//! | the same after 1, 2, 3, 4 and 5 million transfers, the largest of the three | the same | 690, 744, 793, 793, 817 MiB |
//! | disk a transaction, everything included | 250 bytes | 77 to 90 bytes, of them 53 to 68 the books |
//! | start to serving after `kill -9`, one node | 5 s | 2.5 s (2.5 to 2.5) |
//! | the same, all three nodes at once on the two processors, the last of them | 5 s | 2.8 s (2.8 to 3.3) |
//! | `audit verify`, transactions a second without opening | 500,000 | 1,537,000 |
//! | longest wait of a client of single transfers at each node while snapshots of all accounts are taken, beside 20,000 transfers/s in bulks | 100 ms | 49 to 69 ms, by node |
//!
//! - Memory, start and the log do not depend on the transactions: a node holds the accounts, the transactions since the last
//!   snapshot but one at most, and the newest 65,536.
//! - A start reads all accounts and applies the batches behind the last snapshot, up to
//!   `snapshot_bytes` of them, and those that came while a snapshot was taken. Less of these is a faster start, and more writing: a snapshot writes all pages of accounts that changed.
//! - The log's file stays at about 140 MiB. The books grow with the history alone once the accounts are in them: 70 to 80 MiB a
//!   million transfers. The file is longer than what it takes on disk: redb makes it longer in large steps, and the rest is holes.
//!
//! # A node that was away for 1,000,000 transfers
//!
//! 100,000 accounts; it comes back while four clients of the other two nodes send bulks of 100 as fast as they are answered. One
//! run each.
//!
//! | the node, and the others' log | mark | back after | transfers/s of the clients: before, meanwhile, after |
//! | --- | --- | --- | --- |
//! | it was down; the log goes back so far (`snapshot_bytes` of 256 MiB) | 20 s, half the throughput | 3.7 s | 142,000, 94,000, 104,000 |
//! | it was down; the log is gone (8 MiB): by a snapshot | 20 s, half the throughput | 3.3 s | 131,000, 93,000, 104,000 |
//! | it lost its data; from `rabia-bank replace` on | 60 s, half the throughput | 3.9 s | 123,000, 92,000, 105,000 |
