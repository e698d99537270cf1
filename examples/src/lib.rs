//! Small programs to copy from. Each is run by a test.
//!
//! Against the cluster that `cargo run --release -- cluster` starts:
//! - `src/bin/first_transfer.rs`: open two accounts, move money, read the balance, with the client library.
//! - `src/bin/monitor.rs`: alerts from a subscription.
//! - `python/rabia_bank.py`: a client in another language, in under 70 lines.
//!
//! With the bank inside, each a program that needs nothing else:
//! - `src/bin/smallest.rs`: one node, one deposit.
//! - `src/bin/game_economy.rs`: actors of a game that speak to the bank's actors.
//! - `src/bin/rest_service.rs`: an actix-web service over three nodes, with idempotency keys.
//! - `src/bin/web_page.rs`: three nodes and a page with a live feed; `web/rabia-bank.mjs` is a client for browsers and Node.js.
