//! The client that all others must not disturb.

use std::time::{Duration, Instant};

use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};

use super::ANSWERED;
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
        let answer = self.write(&json!({"deposit": {"account_id": self.account, "amount": 1}}));
        let written = began.elapsed();
        self.balance += 1;
        assert_eq!(answer["ok"]["transaction"]["to_balance"], self.balance, "{answer}");
        self.is_right();
        [written, began.elapsed() - written]
    }

    /// What is unknown is asked again with its number, as clients do: a member that lies can make a node give a batch up.
    fn write(&mut self, command: &Value) -> Value {
        let (request, began) = (self.connection.number(), Instant::now());
        loop {
            let message = json!({"request": request, "command": command, "acknowledged": request - 1});
            let answer = self.connection.ask(&message);
            assert_eq!(answer["request"], request, "{answer}");
            if answer["error"]["outcome"] != "unknown" || began.elapsed() > ANSWERED {
                return answer;
            }
        }
    }

    /// The balance is what was deposited.
    pub fn is_right(&mut self) {
        let answer = self.connection.query(json!({"get_balance": {"account_id": self.account}}));
        assert_eq!(answer["ok"]["balance"], self.balance, "{answer}");
    }
}
