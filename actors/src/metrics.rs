//! What the actors of a node count, for its status, its log and whoever watches it.
//!
//! An actor notes what it alone knows, and reports for people are made of it ([`Metrics::report`]). Nothing that is agreed on or applied
//! depends on a metric: what one actor has to know of another travels in messages. The door to clients alone looks at two: whether the
//! clock can be trusted, and for how long there has been no quorum.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rabia_bank_messages::ids::{MAX_NODES, Millis, NodeId, Slot};

use crate::stages::StageCounts;

/// The metrics of a node.
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    max_clients: u64,
    descriptors: u64,
    clients: AtomicU64,
    connected: [AtomicBool; MAX_NODES],
    phases: [AtomicU64; 4],
    open_slots: AtomicU64,
    known_elsewhere: AtomicU64,
    commits: AtomicU64,
    snapshot_slot: AtomicU64,
    received_bytes: AtomicU64,
    clock_offset_ms: AtomicI64,
    clock_leap_ms: AtomicU64,
    certificate_expires_at: AtomicU64,
    /// Since when there is no quorum, in milliseconds since the start, and one more; 0 while there is one.
    no_quorum_since: AtomicU64,
    /// How long the stages of requests took.
    pub(crate) stages: StageCounts,
}

/// All metrics of a moment, but for the stages of requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// When the node started.
    pub started: Instant,
    /// How many connections of clients there may be.
    pub max_clients: u64,
    /// Files and sockets that the process may have open.
    pub descriptors: u64,
    /// Clients that are there: connections, and sessions of the host.
    pub clients: u64,
    /// Whether the link to each peer works.
    pub connected: [bool; MAX_NODES],
    /// Slots that this node decided by votes: in phase 1, 2, 3, and 4 or later.
    pub phases: [u64; 4],
    /// Slots that something was said in and that are not decided.
    pub open_slots: u64,
    /// The furthest slot that a peer is known to have.
    pub known_elsewhere: Slot,
    /// Durable commits of the log.
    pub commits: u64,
    /// The slot that the books on disk stand after.
    pub snapshot_slot: Slot,
    /// Bytes of a snapshot that is being received; 0 if none is.
    pub received_bytes: u64,
    /// The wall clock less that of the others, in milliseconds.
    pub clock_offset_ms: i64,
    /// How far the wall clock is beyond what is confirmed, if that is a leap, in milliseconds.
    pub clock_leap_ms: Millis,
    /// When the certificate for clients expires; 0 where there is none.
    pub certificate_expires_at: Millis,
}

impl Metrics {
    /// Those of a node that started then, which brings so many clients and may have so many descriptors open.
    pub fn new(started: Instant, max_clients: u64, descriptors: u64) -> Metrics {
        Metrics {
            started,
            max_clients,
            descriptors,
            clients: AtomicU64::new(0),
            connected: Default::default(),
            phases: Default::default(),
            open_slots: AtomicU64::new(0),
            known_elsewhere: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            snapshot_slot: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            clock_offset_ms: AtomicI64::new(0),
            clock_leap_ms: AtomicU64::new(0),
            certificate_expires_at: AtomicU64::new(0),
            no_quorum_since: AtomicU64::new(0),
            stages: StageCounts::new(),
        }
    }

    /// A client has come.
    pub(crate) fn note_client_came(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    /// A client has gone.
    pub(crate) fn note_client_went(&self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }

    /// The link to a peer works, or broke.
    pub(crate) fn note_link(&self, peer: NodeId, up: bool) {
        self.connected[peer.index()].store(up, Ordering::Relaxed);
    }

    /// How many slots were decided by votes in each phase, how many are in agreement, and which is the furthest that a peer has.
    pub(crate) fn note_slots(&self, phases: [u64; 4], open: u64, known_elsewhere: Slot) {
        for (metric, count) in self.phases.iter().zip(phases) {
            metric.store(count, Ordering::Relaxed);
        }
        self.open_slots.store(open, Ordering::Relaxed);
        self.known_elsewhere.store(known_elsewhere, Ordering::Relaxed);
    }

    /// The log has committed once more.
    pub(crate) fn note_commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// The books on disk stand after this slot.
    pub(crate) fn note_snapshot(&self, slot: Slot) {
        self.snapshot_slot.store(slot, Ordering::Relaxed);
    }

    /// So many bytes came of a snapshot that is being received; 0 if none is.
    pub(crate) fn note_received(&self, bytes: u64) {
        self.received_bytes.store(bytes, Ordering::Relaxed);
    }

    /// How far the wall clock is from those of the others, and how far beyond what is confirmed; in milliseconds.
    pub(crate) fn note_clock(&self, offset: i64, leap: Millis) {
        self.clock_offset_ms.store(offset, Ordering::Relaxed);
        self.clock_leap_ms.store(leap, Ordering::Relaxed);
    }

    /// What the wall clock shows, without what it is ahead of everything that confirms it: in milliseconds since the Unix epoch.
    pub(crate) fn trusted_time(&self) -> Millis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as Millis);
        wall.saturating_sub(self.clock_leap_ms.load(Ordering::Relaxed))
    }

    /// Since when there is no quorum, if there is none.
    pub(crate) fn note_quorum(&self, missing: Option<Instant>) {
        let since = |then: Instant| then.saturating_duration_since(self.started).as_millis() as u64 + 1;
        self.no_quorum_since.store(missing.map_or(0, since), Ordering::Relaxed);
    }

    /// For how long there has been no quorum.
    pub(crate) fn without_quorum(&self) -> Duration {
        match self.no_quorum_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.started.elapsed().saturating_sub(Duration::from_millis(since - 1)),
        }
    }

    /// The certificate for clients expires then.
    pub(crate) fn note_certificate(&self, expires_at: Millis) {
        self.certificate_expires_at.store(expires_at, Ordering::Relaxed);
    }

    /// All of it, to be shown.
    pub fn report(&self) -> Report {
        let load = |metric: &AtomicU64| metric.load(Ordering::Relaxed);
        Report {
            started: self.started,
            max_clients: self.max_clients,
            descriptors: self.descriptors,
            clients: load(&self.clients),
            connected: std::array::from_fn(|index| self.connected[index].load(Ordering::Relaxed)),
            phases: std::array::from_fn(|index| load(&self.phases[index])),
            open_slots: load(&self.open_slots),
            known_elsewhere: load(&self.known_elsewhere),
            commits: load(&self.commits),
            snapshot_slot: load(&self.snapshot_slot),
            received_bytes: load(&self.received_bytes),
            clock_offset_ms: self.clock_offset_ms.load(Ordering::Relaxed),
            clock_leap_ms: load(&self.clock_leap_ms),
            certificate_expires_at: load(&self.certificate_expires_at),
        }
    }
}
