//! What the bank reports: the status of the node, and how far it is where it is far behind.

use std::time::Instant;

use rabia_bank_messages::bank::{OtherFields, Status};
use tracing::info;

use super::Bank;

/// A node that is so many slots behind what it knows of says how far it is.
const FAR_BEHIND: u64 = 1_000;

impl Bank {
    /// Says how far a node is that is far behind, and drops work that nobody waits for any more.
    pub(super) fn sweep(&mut self) {
        let (applied, report) = (self.ledger.applied(), self.metrics.report());
        if report.known_elsewhere > applied + FAR_BEHIND && report.received_bytes == 0 {
            info!(slot = applied, of = report.known_elsewhere, "catching up");
        }
        self.waiting.sweep(Instant::now());
        self.work.sweep();
        self.trust.sweep();
        self.tell_digest_when_idle();
    }

    /// The state of the node.
    pub(super) fn status(&mut self) -> Status {
        let summary = self.ledger.summary();
        let report = self.metrics.report();
        Status {
            node: self.me,
            cluster: self.genesis.cluster,
            version: env!("CARGO_PKG_VERSION").into(),
            members: self.genesis.members(),
            admitted: self.trust.admitted,
            in_doubt: self.trust.in_doubt,
            connected: self.genesis.nodes().filter(|node| report.connected[node.index()]).collect(),
            applied_slot: summary.applied,
            decided_slots: summary.decided_slots,
            null_slots: summary.null_slots,
            repeated_batches: summary.repeated_batches,
            unusable_batches: summary.unusable_batches,
            phases: report.phases,
            snapshot_slot: report.snapshot_slot,
            known_slot: report.known_elsewhere.max(summary.applied),
            receiving_bytes: report.received_bytes,
            open_slots: report.open_slots,
            accounts: summary.accounts,
            transactions: summary.transactions,
            total_balance: summary.total_balance,
            sessions: summary.sessions,
            clients: report.clients,
            max_clients: report.max_clients,
            descriptors: report.descriptors,
            chain_head: self.ledger.chain_head(),
            state_digest: self.ledger.digest(),
            log_time: self.ledger.log_time(),
            clock_offset_ms: report.clock_offset_ms,
            clock_leap_ms: report.clock_leap_ms,
            commits: report.commits,
            uptime_s: report.started.elapsed().as_secs(),
            process: crate::process::used(),
            stages: self.metrics.stages.read(),
            other: OtherFields::default(),
        }
    }
}
