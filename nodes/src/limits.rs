//! What a node grants its clients: the section `[limits]` of its configuration.

use std::fmt::Write as _;
use std::time::Duration;

use rabia_bank_actors::budget::{BudgetLimits, BudgetSettings};
use rabia_bank_actors::client_session::MAX_SUBSCRIPTIONS;
use rabia_bank_messages::client::MAX_CLIENT_MESSAGE;
use serde::Deserialize;

/// What is free for each connection of a node's budgets, in bytes: of unread answers some small ones …
const FREE_UNREAD: usize = 16 << 10;
/// … of unfinished messages what is read from the socket at once, and as much again …
const FREE_UNFINISHED: usize = 8 << 10;
/// … and of requests without an answer some small ones.
const FREE_WAITING: usize = 4 << 10;
/// So many of these are free, too: one after the other is always possible.
const FREE_IN_FLIGHT: usize = 16;

/// What a node grants its clients.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The longest message of a client, in bytes; longer ones are answered `too_large`.
    pub max_message_bytes: usize,
    /// Requests of one session that may wait for their answers at once; more are answered `busy`.
    pub max_in_flight: usize,
    /// The same over all sessions of one principal.
    pub max_in_flight_per_principal: usize,
    /// The same over all sessions of the node.
    pub max_in_flight_node: usize,
    /// Connections of clients at once; more are turned away, but for 16 of operators. Fewer where the process may not have so many
    /// sockets open.
    pub max_clients: usize,
    /// The same of one principal; never more than three quarters of all.
    pub max_clients_per_principal: usize,
    /// Connections of clients at once that have not finished their handshake, or not said hello; where there are more, the oldest is
    /// closed.
    pub max_handshakes: usize,
    /// The same of one address (of IPv6: one network of 64 bits).
    pub max_handshakes_per_address: usize,
    /// Subscriptions of all connections of one principal; more are answered `busy`.
    pub max_subscriptions_per_principal: usize,
    /// The same of all connections of the node.
    pub max_subscriptions_node: usize,
    /// Records that are looked at for the queries and subscriptions of one principal, a second. Beyond, they wait.
    pub max_scanned_per_principal: u64,
    /// Bytes of answers of one connection that may wait to be read. Beyond, or beyond what follows, it is closed.
    pub max_unread_bytes: usize,
    /// The same of all connections of one principal.
    pub max_unread_bytes_per_principal: usize,
    /// The same of all connections of the node.
    pub max_unread_bytes_node: usize,
    /// Bytes of messages of one principal that have begun and are not whole. Beyond, or beyond the next, the connection is closed.
    pub max_unfinished_bytes_per_principal: usize,
    /// The same of all connections of the node.
    pub max_unfinished_bytes_node: usize,
    /// Bytes of requests of one principal that may wait for their answers; more are answered `busy`.
    pub max_waiting_bytes_per_principal: usize,
    /// The same of all connections of the node.
    pub max_waiting_bytes_node: usize,
    /// How long a request may wait for a quorum before it is answered `no_quorum`, in milliseconds.
    pub request_timeout_ms: u64,
    /// How long a connection may take for its handshake, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// After so many bytes of batches the node takes a snapshot of its books …
    pub snapshot_bytes: u64,
    /// … or after so many slots, whichever comes first. What came after it is applied again at a start.
    pub snapshot_slots: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_message_bytes: MAX_CLIENT_MESSAGE,
            max_in_flight: 8_192,
            max_in_flight_per_principal: 32_768,
            max_in_flight_node: 65_536,
            max_clients: 10_000,
            max_clients_per_principal: 5_000,
            max_handshakes: 1_024,
            max_handshakes_per_address: 256,
            max_subscriptions_per_principal: 1_024,
            max_subscriptions_node: 8_192,
            max_scanned_per_principal: 4_000_000,
            max_unread_bytes: 16 << 20,
            max_unread_bytes_per_principal: 32 << 20,
            max_unread_bytes_node: 64 << 20,
            max_unfinished_bytes_per_principal: 32 << 20,
            max_unfinished_bytes_node: 64 << 20,
            max_waiting_bytes_per_principal: 64 << 20,
            max_waiting_bytes_node: 128 << 20,
            request_timeout_ms: 5_000,
            handshake_timeout_ms: 5_000,
            snapshot_bytes: 32 << 20,
            snapshot_slots: 16_384,
        }
    }
}

impl Limits {
    /// [`Limits::request_timeout_ms`] as a duration.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// What may wait of clients at this node.
    pub fn budgets(&self) -> BudgetSettings {
        // A message in pieces has a header for each.
        let unfinished = self.max_message_bytes + self.max_message_bytes / 4 + (64 << 10);
        BudgetSettings {
            unfinished: BudgetLimits {
                connection: unfinished,
                owner: self.max_unfinished_bytes_per_principal,
                node: self.max_unfinished_bytes_node,
                free: FREE_UNFINISHED,
            },
            waiting: BudgetLimits {
                connection: self.max_waiting_bytes_per_principal,
                owner: self.max_waiting_bytes_per_principal,
                node: self.max_waiting_bytes_node,
                free: FREE_WAITING,
            },
            unread: BudgetLimits {
                connection: self.max_unread_bytes,
                owner: self.max_unread_bytes_per_principal,
                node: self.max_unread_bytes_node,
                free: FREE_UNREAD,
            },
            in_flight: BudgetLimits {
                connection: self.max_in_flight,
                owner: self.max_in_flight_per_principal,
                node: self.max_in_flight_node,
                free: FREE_IN_FLIGHT,
            },
            subscriptions: BudgetLimits {
                connection: MAX_SUBSCRIPTIONS,
                owner: self.max_subscriptions_per_principal,
                node: self.max_subscriptions_node,
                free: 0,
            },
        }
    }

    /// [`Limits::handshake_timeout_ms`] as a duration.
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    /// Writes the section `[limits]` of a configuration, with a comment on every line.
    pub(crate) fn write_toml(&self, text: &mut String) {
        let lines = [
            ("max_message_bytes", self.max_message_bytes as u64, "the longest message of a client"),
            ("max_in_flight", self.max_in_flight as u64, "unanswered requests of one session; more are `busy`"),
            (
                "max_in_flight_per_principal",
                self.max_in_flight_per_principal as u64,
                "the same over all of a principal",
            ),
            ("max_in_flight_node", self.max_in_flight_node as u64, "of all; a principal has three quarters at most"),
            ("max_clients", self.max_clients as u64, "connections of clients at once; more are `busy`"),
            ("max_clients_per_principal", self.max_clients_per_principal as u64, "the same of one principal"),
            ("max_handshakes", self.max_handshakes as u64, "that have said no hello yet; then the oldest is closed"),
            ("max_handshakes_per_address", self.max_handshakes_per_address as u64, "the same of one address"),
            ("max_subscriptions_per_principal", self.max_subscriptions_per_principal as u64, "open at once"),
            (
                "max_subscriptions_node",
                self.max_subscriptions_node as u64,
                "of all; a principal has half of it at most",
            ),
            ("max_scanned_per_principal", self.max_scanned_per_principal, "records looked at for its queries a second"),
            ("max_unread_bytes", self.max_unread_bytes as u64, "of a connection's answers that wait to be read"),
            ("max_unread_bytes_per_principal", self.max_unread_bytes_per_principal as u64, "of all of a principal"),
            ("max_unread_bytes_node", self.max_unread_bytes_node as u64, "of all; a principal has half of it at most"),
            (
                "max_unfinished_bytes_per_principal",
                self.max_unfinished_bytes_per_principal as u64,
                "of messages without an end",
            ),
            (
                "max_unfinished_bytes_node",
                self.max_unfinished_bytes_node as u64,
                "of all; a principal has half of it at most",
            ),
            ("max_waiting_bytes_per_principal", self.max_waiting_bytes_per_principal as u64, "of unanswered requests"),
            (
                "max_waiting_bytes_node",
                self.max_waiting_bytes_node as u64,
                "of all; a principal has half of it at most",
            ),
            ("request_timeout_ms", self.request_timeout_ms, "then a request is answered `no_quorum`"),
            ("handshake_timeout_ms", self.handshake_timeout_ms, "then a connection that said nothing is closed"),
            ("snapshot_bytes", self.snapshot_bytes, "a snapshot is taken after so many bytes of batches"),
            ("snapshot_slots", self.snapshot_slots, "or so many slots"),
        ];
        text.push_str("\n[limits]\n");
        for (key, value, comment) in lines {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{:<48}# {comment}", format!("{key} = {value}"));
        }
    }
}
