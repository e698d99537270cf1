//! Rules that neither the simulator nor the models see broken: each is kept in a scenario here, and then broken in the same one,
//! which must show it.
//!
//! | rule | shown by |
//! | --- | --- |
//! | `NamedPayloadsStay` | a log in which a record names a payload that is gone |
//! | `BooksReachLog` | a log opens with books that end before it begins |
//! | `LoadedDigest` | books whose rows are of two states are loaded, and installed |
//! | `BlocksFollow` | a history of two banks is installed |
//! | `OneSnapshot` | rows of two snapshots are installed together |
//! | `ReceivedStays` | the history has a hole after an own snapshot during a transfer |
//! | `ReportedDurable` | a write is reported that never came to the disk |
//! | `MetDurably` | a handshake is answered before what is remembered is on the disk |
//! | `LinkEndTold` | a peer that has gone counts as connected |
#![allow(clippy::unwrap_used)] // a test says what failed by failing

mod actors;
mod received;
mod stored;

use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{ClusterId, NodeId, StoreId};
use rabia_bank_messages::promise::Identity;

fn genesis() -> Genesis {
    Genesis::new(ClusterId([1; 16]), [7, 8, 9].map(|number| StoreId([number; 16])).to_vec())
}

fn node(number: u8) -> NodeId {
    NodeId::new(number).unwrap()
}

/// That of node 1.
fn identity() -> Identity {
    Identity { genesis: genesis(), node: node(1) }
}
