//! What comes out of the snapshotter, message by message.

use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{ClusterId, StoreId};
use rabia_bank_messages::peer::SnapshotPart;
use rabia_bank_messages::promise::Identity;
use rabia_bank_storage::{BooksStore, Snapshot as Rows};

use super::*;
use crate::ledger::{Changes, Ledger};

const SECOND: Duration = Duration::from_secs(1);
const START: SnapshotCursor = SnapshotCursor { part: SnapshotPart::Blocks, row: 0, offset: 0 };

fn node(number: u8) -> NodeId {
    NodeId::new(number).unwrap()
}

/// The snapshotter of node 1, with books that stand after slot 40, and links to nodes 2 and 3.
struct World {
    part: Snapshotter,
    now: Instant,
    said: Vec<Out>,
    _folder: tempfile::TempDir,
    _store: BooksStore,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("books");
        let stores = NodeId::all(3).map(|node| StoreId([node.get(); 16])).collect();
        let identity = Identity { genesis: Genesis::new(ClusterId([1; 16]), stores), node: node(1) };
        BooksStore::create(&path, &identity, None).unwrap();
        let mut store = BooksStore::open(&path, &identity).unwrap();
        let (accounts, sessions, blocks) = (Vec::new(), Vec::new(), Vec::new());
        store.save(&Rows { slot: 40, state: vec![1], accounts, sessions, new_sessions: 0..0, blocks }).unwrap();
        let now = Instant::now();
        let metrics = Arc::new(Metrics::new(now, 0, 0));
        let mut part = Snapshotter::new(store.reader(), store.slot(), Patience::default(), metrics);
        part.linked(node(2), true);
        part.linked(node(3), true);
        World { part, now, said: Vec::new(), _folder: folder, _store: store }
    }

    fn said(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.said)
    }

    fn hears(&mut self, peer: u8, message: PeerMessage) -> Vec<Out> {
        self.part.about_snapshot(self.now, node(peer), message, &mut self.said);
        self.said()
    }

    fn worked(&mut self, outcome: Outcome) -> Vec<Out> {
        self.part.worked(self.now, outcome, &mut self.said);
        self.said()
    }

    fn sweeps(&mut self, after: Duration) -> Vec<Out> {
        self.now += after;
        self.part.sweep(self.now, &mut self.said);
        self.said()
    }

    /// What may go of the log when a snapshot is durable.
    fn compacts(&mut self, slot: Slot) -> Slot {
        self.part.save(snapshot(slot), &mut self.said);
        assert!(matches!(self.said()[..], [Out::Work(Job::Save(_))]));
        match self.worked(Outcome::Saved { slot, transactions: 0 })[..] {
            [Out::Saved(Saved { slot: saved, .. }), Out::Compact(upto)] if saved == slot => upto,
            ref said => panic!("{said:?}"),
        }
    }

    /// The node begins to receive a snapshot of node 2.
    fn receives(&mut self) {
        let said = self.hears(2, PeerMessage::Compacted { log_from: 100 });
        assert!(matches!(said[..], [Out::AskStandpoint { log_from: 100, .. }]), "{said:?}");
        let standpoint = Standpoint { applied: 50, newest: (0, Digest::ZERO) };
        self.part.standpoint(node(2), 100, standpoint, &mut self.said);
        assert!(matches!(self.said()[..], [Out::Work(Job::Begin { .. })]));
        let wanted = SnapshotWanted { slot: 0, at: START, received: 0 };
        assert_eq!(asked(&self.worked(Outcome::Ask(wanted))), Some(2));
    }
}

fn snapshot(slot: Slot) -> Snapshot {
    let (accounts, sessions, blocks) = (Vec::new(), Vec::new(), Vec::new());
    let changes =
        Changes { slot, level: 1, transactions: 0, state: Vec::new(), accounts, sessions, new_sessions: 0..0, blocks };
    Snapshot { changes, decisions: Vec::new(), log_hash: Digest::ZERO }
}

/// Who is asked for rows.
fn asked(said: &[Out]) -> Option<u8> {
    match said {
        [] => None,
        [Out::Say(to, PeerMessage::GetSnapshot { .. })] => Some(to.get()),
        said => panic!("{said:?}"),
    }
}

#[test]
fn a_peer_that_asks_again_meanwhile_is_answered_once_with_what_it_asked_last() {
    let mut world = World::new();
    let request = |from| SendEntries { to: node(2), from, decided: 90 };
    for from in [1, 5, 9] {
        world.part.send_entries(request(from), &mut world.said);
    }
    world.part.send_entries(SendEntries { to: node(3), ..request(7) }, &mut world.said);
    assert!(
        matches!(world.said()[..], [Out::ReadEntries(two), Out::ReadEntries(three)] if (two.from, three.from) == (1, 7))
    );
    world.part.entries_read(request(1), None, Entries::Compacted { upto: 4 }, &mut world.said);
    assert!(matches!(
        world.said()[..],
        [Out::Say(to, PeerMessage::Compacted { log_from: 5 }), Out::ReadEntries(next)] if to == node(2) && next.from == 9
    ));
    world.part.entries_read(request(9), None, Entries::Found(Vec::new()), &mut world.said);
    assert!(matches!(world.said()[..], [Out::Say(_, PeerMessage::Entries { decided: 90, .. })]));
}

#[test]
fn few_payloads_are_read_for_a_peer_at_a_time() {
    let mut world = World::new();
    let id = BatchId { origin: node(2), incarnation: 1, sequence: 1, digest: Digest::ZERO };
    for _ in 0..2 * MAX_FETCHES {
        world.part.send_stored(node(2), id, &mut world.said);
    }
    assert_eq!(world.said().len(), MAX_FETCHES);
    world.part.payload_read(node(2), id, None, &mut world.said);
    world.part.send_stored(node(2), id, &mut world.said);
    assert!(matches!(world.said()[..], [Out::ReadPayload { .. }]));
}

#[test]
fn the_log_goes_up_to_the_snapshot_before_and_to_those_that_peers_are_sent() {
    let mut world = World::new();
    assert_eq!(world.compacts(50), 40);
    assert_eq!(world.compacts(60), 50);
    let said = world.hears(2, PeerMessage::GetSnapshot { slot: 0, at: START });
    assert!(matches!(said[..], [Out::ReadRows { .. }]), "{said:?}");
    assert!(world.hears(2, PeerMessage::GetSnapshot { slot: 0, at: START }).is_empty(), "one answer is under way");
    assert_eq!(world.compacts(70), 40, "the books on disk still stand after slot 40");
    let [Out::ReadRows { view, .. }] = <[Out; 1]>::try_from(said).unwrap() else { panic!("checked above") };
    let rows = offer::rows_at(&view, START, 1).unwrap();
    world.part.rows_read(world.now, node(2), START, (view, rows), &mut world.said);
    assert!(matches!(world.said()[..], [Out::Say(_, PeerMessage::SnapshotRows { slot: 40, .. })]));
    assert_eq!(world.compacts(80), 40);
    world.sweeps(Patience::default().offer_kept + SECOND);
    assert_eq!(world.compacts(90), 80);
}

#[test]
fn the_books_have_one_job_at_a_time() {
    let mut world = World::new();
    world.part.save(snapshot(50), &mut world.said);
    world.part.save(snapshot(60), &mut world.said);
    assert!(matches!(&world.said()[..], [Out::Work(Job::Save(first))] if first.changes.slot == 50));
    let said = world.worked(Outcome::Superseded { slot: 55 });
    assert!(matches!(&said[..], [Out::Superseded(55), Out::Work(Job::Save(next))] if next.changes.slot == 60));
}

#[test]
fn rows_that_do_not_come_are_asked_for_again_and_then_of_another_peer() {
    let mut world = World::new();
    world.receives();
    assert_eq!(asked(&world.sweeps(SECOND)), None);
    let patience = Patience::default().ask_again;
    let again: Vec<Option<u8>> = (0..4).map(|_| asked(&world.sweeps(patience))).collect();
    assert_eq!(again, [Some(2), Some(2), Some(3), Some(3)]);
    world.part.linked(node(3), false);
    assert_eq!(asked(&world.sweeps(patience)), Some(2), "whose link does not work is asked no more");
    // Nobody else's rows are taken.
    let rows = || PeerMessage::SnapshotRows { slot: 99, at: START, part: START.part, rows: Vec::new(), next: None };
    assert!(world.hears(3, rows()).is_empty());
    assert!(matches!(world.hears(2, rows())[..], [Out::Work(Job::Take(_))]));
    assert_eq!(asked(&world.sweeps(patience)), None, "they are being taken");
}

#[test]
fn one_snapshot_is_received_at_a_time_and_settles_before_the_next() {
    let mut world = World::new();
    world.receives();
    assert!(world.hears(3, PeerMessage::Compacted { log_from: 200 }).is_empty());
    let ledger = Box::new(Ledger::new(1, rabia_bank_messages::genesis::SessionLimits::default()));
    let outcome = Outcome::Installed { slot: 99, hash: Digest::ZERO, ledger, decisions: Vec::new() };
    assert!(matches!(world.worked(outcome)[..], [Out::Received(99), Out::Installed { .. }]));
    assert!(world.hears(3, PeerMessage::Compacted { log_from: 200 }).is_empty());
    world.now += Patience::default().settle;
    assert!(matches!(world.hears(3, PeerMessage::Compacted { log_from: 200 })[..], [Out::AskStandpoint { .. }]));
    // The slots came one by one meanwhile.
    let standpoint = Standpoint { applied: 199, newest: (0, Digest::ZERO) };
    world.part.standpoint(node(3), 200, standpoint, &mut world.said);
    assert!(world.said().is_empty() && world.part.receives_from().is_none());
}
