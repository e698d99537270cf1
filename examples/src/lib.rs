//! Small programs to copy from, one a file in `src/bin`. Each runs against the cluster that
//! `cargo run --release -- cluster` starts, and each is run by a test.
//!
//! - `first_transfer`: open two accounts, move money, read the balance, with the client library.
