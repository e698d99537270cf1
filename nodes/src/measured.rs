//! What a large and old bank costs, as measured: start, disk, memory, stalls, audits. A page without code.
//!
//! Three nodes and their clients on one machine with two processors and one disk, release build, everything synced to disk. Starts
//! and audits were measured three times each on copies of one bank of this size, while hardly anything else ran: median, and the
//! range. All else is of one run: memory and disk beside builds and before starts and snapshots were made cheaper, stalls with
//! three snapshots on each node, on a copy of that bank. The commands that measure it, with five snapshots:
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
//! | memory of a node | 1 KiB an account + 256 MiB = 1,233 MiB | 732 to 975 MiB |
//! | the same after 1, 2, 3, 4 and 5 million transfers, the largest of the three | the same | 736, 768, 769, 786, 975 MiB |
//! | disk a transaction, everything included | 250 bytes | 84 bytes, of them 64 the books |
//! | start to serving after `kill -9`, one node | 5 s | 2.4 s (1.9 to 2.4) |
//! | the same, all three nodes at once on the two processors, the last of them | 5 s | 3.6 s (3.6 to 3.7) |
//! | `audit verify`, transactions a second without opening | 500,000 | 1,090,000 (1,060,000 to 1,200,000) |
//! | longest wait of a client of single transfers at each node while snapshots of all accounts are taken, beside 20,000 transfers/s in bulks | 100 ms | 49 to 52 ms, by node |
//! | the same in the first 16 s after such a start, whose first snapshot has 740,000 transfers | 100 ms | 99 to 113 ms, by node: missed |
//!
//! - Memory, start and the log do not depend on the transactions: a node holds the accounts, the transactions since the last
//!   snapshot but one at most, and the newest 65,536.
//! - A start reads all accounts and applies the batches behind the last snapshot, up to
//!   `snapshot_bytes` of them. Less of these is a faster start, and more writing: a snapshot writes all pages of accounts that changed.
//! - The log's file stays at about 110 MiB. The books grow with the history alone once the accounts are in them: 70 to 80 MiB a
//!   million transfers. The file is longer than what it takes on disk: redb makes it longer in large steps, and the rest is holes.
//!
//! # A node that was away for 1,000,000 transfers
//!
//! 100,000 accounts; it comes back while four clients of the other two nodes send bulks of 100 as fast as they are answered. One
//! run each.
//!
//! | the node, and the others' log | mark | back after | transfers/s of the clients: before, meanwhile, after |
//! | --- | --- | --- | --- |
//! | it was down; the log goes back so far (`snapshot_bytes` of 256 MiB) | 20 s, half the throughput | 3.2 s | 112,000, 75,000, 90,000 |
//! | it was down; the log is gone (8 MiB): by a snapshot | 20 s, half the throughput | 3.4 s | 114,000, 75,000, 84,000 |
//! | it lost its data; from `rabia-bank replace` on | 60 s, half the throughput | 4.0 s | 117,000, 88,000, 95,000 |
