//! What a large and old bank costs, as measured: start, disk, memory, stalls, audits. A page without code.
//!
//! Three nodes and their clients on one machine with two processors and one disk, release build, everything synced to disk. Other
//! programs were at work on the machine (a load of about 20) at a lower priority, and each figure is of one run: take them for an
//! order of magnitude. The commands that measure it:
//!
//! ```text
//! cargo test --release --workspace --test scale -- --ignored million_accounts --nocapture
//! cargo test --release --workspace --test scale -- --ignored was_away --nocapture
//! cargo test --release --workspace --test recovery -- --ignored fifty_moments --nocapture
//! cargo test --release --workspace --test recovery -- --ignored hundred_bits --nocapture
//! ```
//!
//! # 1,000,000 accounts and 5,000,000 transfers
//!
//! | figure | mark | measured |
//! | --- | --- | --- |
//! | memory of a node | 1 KiB an account + 256 MiB = 1,233 MiB | 762 MiB |
//! | the same after 1, 2, 3, 4 and 5 million transfers | the same | 744, 759, 761, 762, 762 MiB |
//! | disk a transaction, everything included | 250 bytes | 83 bytes, of them 63 the books; with 6.6 million transactions 93 and 74 |
//! | start to serving after `kill -9`, one node | 5 s | 3.2 and 4.6 s |
//! | the same, all three nodes at once on the two processors | 5 s | 5.4 and 8.4 s: missed |
//! | `audit verify`, transactions a second without opening | 500,000 | 422,000: missed |
//! | longest time that a client of single transfers beside bulks waited while snapshots of all accounts were taken | 100 ms | 0.98 to 2.3 s: missed |
//! | the same as longest time between two acknowledgements to any client, at 10,000 transfers/s | | 68 ms; without snapshots 79 ms |
//! | a single request of that load, p99 and longest | | 260 and 362 ms; without snapshots 31 and 68 ms |
//!
//! - Memory, start and the log do not depend on the transactions: a node holds the accounts, the transactions since the last
//!   snapshot but one at most, and the newest 65,536.
//! - A start reads all accounts and applies the batches behind the last snapshot, up to
//!   `snapshot_bytes` of them. Less of these is a faster start, and more writing: a snapshot writes all pages of accounts that changed.
//! - The last three rows were measured before a snapshot was collected in turns with the other actors of the core's thread: until then a
//!   node did nothing else for the time that collecting took.
//! - The log's file stays at about 110 MiB. The books grow with the history alone once the accounts are in them: 70 to 80 MiB a
//!   million transfers. The file is longer than what it takes on disk: redb makes it longer in large steps, and the rest is holes.
//!
//! # A node that was away for 1,000,000 transfers
//!
//! 100,000 accounts; it comes back while four clients of the other two nodes send bulks of 100 as fast as they are answered.
//!
//! | the others' log | mark | back after | transfers/s of the clients: before, meanwhile, after |
//! | --- | --- | --- | --- |
//! | goes back so far (`snapshot_bytes` of 256 MiB) | 20 s, half the throughput | 7.0 s | 27,700, 21,700, 31,500 |
//! | is gone (8 MiB): by a snapshot | 20 s, half the throughput | 5.5 s | 29,300, 32,600, 29,000 |
