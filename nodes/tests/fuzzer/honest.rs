//! The client that all others must not disturb.

use std::time::{Duration, Instant};

use rabia_bank_messages::codec::Encoding;
use serde_json::json;

use crate::support::{Cluster, Connection};

/// A client that writes and reads, and knows what must come of it.
pub struct Honest {
    connection: Connection,
    account: String,
    balance: u64,
}

impl Honest {
    pub fn new(cluster: &Cluster) -> Honest {
        let account = format!("honest-{:x}", fastrand::u64(..));
        let mut connection = cluster.nodes[0].connect(Encoding::MessagePack);
        let answer = connection.command(json!({"create_account": {"account_id": account, "initial_balance": 0}}));
        assert!(answer["ok"].is_object(), "{answer}");
        Honest { connection, account, balance: 0 }
    }

    /// A write and a read, and how long each took.
    pub fn go_on(&mut self) -> [Duration; 2] {
        let began = Instant::now();
        let answer = self.connection.command(json!({"deposit": {"account_id": self.account, "amount": 1}}));
        let written = began.elapsed();
        self.balance += 1;
        assert_eq!(answer["ok"]["transaction"]["to_balance"], self.balance, "{answer}");
        self.is_right();
        [written, began.elapsed() - written]
    }

    /// The balance is what was deposited.
    pub fn is_right(&mut self) {
        let answer = self.connection.query(json!({"get_balance": {"account_id": self.account}}));
        assert_eq!(answer["ok"]["balance"], self.balance, "{answer}");
    }
}
