//! What the bank reports: the status of the node.

use std::time::Instant;

use rabia_bank_messages::bank::{OtherFields, Process, Status};
use rabia_bank_messages::level;
use rabia_bank_messages::stages::Stages;

use super::Bank;
use crate::ledger::machine::StateMachine;
use crate::metrics::Report;

impl<S: StateMachine> Bank<S> {
    /// The state of the node. What is not the bank's comes from its driver: what others count, how long the stages of requests
    /// took, and what the process has used.
    pub fn status(&mut self, now: Instant, report: &Report, stages: Stages, process: Process) -> Status {
        let summary = self.ledger.summary();
        Status {
            node: self.me,
            cluster: self.genesis.cluster,
            version: env!("CARGO_PKG_VERSION").into(),
            members: self.genesis.members(),
            admitted: self.trust.admitted,
            in_doubt: self.trust.in_doubt,
            connected: self.genesis.nodes().filter(|node| report.connected[node.index()]).collect(),
            level: self.ledger.levels().level(),
            can: level::highest(),
            members_can: self.ledger.levels().all_can().to_vec(),
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
            chain_head: self.ledger.history().head,
            state_digest: self.ledger.digest(),
            log_time: self.ledger.log_time(),
            clock_offset_ms: report.clock_offset_ms,
            clock_leap_ms: report.clock_leap_ms,
            certificate_expires_at: report.certificate_expires_at,
            commits: report.commits,
            uptime_s: (now - report.started).as_secs(),
            process,
            stages,
            other: OtherFields::default(),
        }
    }
}
