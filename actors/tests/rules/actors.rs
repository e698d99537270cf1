//! The actors around the cores, with disks that fail and lie.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_actors::bank::Bank;
use rabia_bank_actors::consensus::agreement::{Agreement, Ticket};
use rabia_bank_actors::consensus::handshake::Handshake;
use rabia_bank_actors::log::Log;
use rabia_bank_actors::mail::bank::BankInbox;
use rabia_bank_actors::mail::log::{LogInbox, Persist};
use rabia_bank_actors::mail::node::Failed;
use rabia_bank_actors::mail::peer_link::{Attach, IsUp, LinkInbox, Links};
use rabia_bank_actors::mail::proposer::ProposerInbox;
use rabia_bank_actors::mail::snapshotter::{Linked, SnapshotterInbox};
use rabia_bank_actors::mail::voter::{Meet, Persisted, VoterInbox};
use rabia_bank_actors::metrics::Metrics;
use rabia_bank_actors::parts::voter::LinkUp;
use rabia_bank_actors::peer_link::PeerLink;
use rabia_bank_actors::proposer::Proposer;
use rabia_bank_actors::snapshotter::Snapshotter;
use rabia_bank_actors::socket::PeerStream;
use rabia_bank_actors::voter::{Voter, VoterNeighbours};
use rabia_bank_messages::genesis::Replacements;
use rabia_bank_messages::ids::{Digest, NodeId, RunId};
use rabia_bank_messages::peer::{Hello, Vote};
use rabia_bank_messages::promise::{Commit, Identity, Record, Said};
use rabia_bank_messages::sabotage::{Rule, ensure, shows};
use rabia_bank_storage::{LogStore, StorageBackend};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{genesis, identity, node};

/// Longer than anything takes that does not wait for something.
const AT_ONCE: Duration = Duration::from_millis(300);
/// Longer than anything takes.
const AT_ALL: Duration = Duration::from_secs(10);

/// A disk that keeps what was synced, and may fail, or say that it synced.
#[derive(Clone, Debug, Default)]
struct Disk {
    live: Arc<Mutex<Vec<u8>>>,
    synced: Arc<Mutex<Vec<u8>>>,
    fails: Arc<AtomicBool>,
    lies: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        if self.fails.load(Ordering::Relaxed) { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }

    /// What a start finds when the power has failed.
    fn after_power_failure(&self) -> Disk {
        let image = self.synced.lock().unwrap().clone();
        Disk { live: Arc::new(Mutex::new(image.clone())), synced: Arc::new(Mutex::new(image)), ..Disk::default() }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.live.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (from, live) = (offset as usize, self.live.lock().unwrap());
        out.copy_from_slice(&live[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.check()?;
        self.live.lock().unwrap().resize(length as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        if !self.lies.load(Ordering::Relaxed) {
            *self.synced.lock().unwrap() = self.live.lock().unwrap().clone();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let from = offset as usize;
        self.live.lock().unwrap()[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// Hears what the node would hear.
#[derive(Default)]
struct Witness {
    disk: Disk,
    seen: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    persisted: Vec<Ticket>,
    failed: Vec<String>,
    /// Links that came and went.
    linked: Vec<(NodeId, bool)>,
    /// A write was reported, and the disk does not have it.
    missing: Vec<Ticket>,
}

impl Actor for Witness {
    type Context = Context<Self>;
}

impl Handler<Persisted> for Witness {
    type Result = ();

    fn handle(&mut self, Persisted(ticket): Persisted, _: &mut Self::Context) {
        let found = LogStore::open_with(self.disk.after_power_failure(), &identity(), || Ok(0));
        let has_it = found.is_ok_and(|(_, recovered)| recovered.records.contains(&vote(ticket)));
        let mut seen = self.seen.lock().unwrap();
        seen.persisted.push(ticket);
        if !has_it {
            seen.missing.push(ticket);
        }
    }
}

impl Handler<Linked> for Witness {
    type Result = ();

    fn handle(&mut self, Linked { peer, up }: Linked, _: &mut Self::Context) {
        self.seen.lock().unwrap().linked.push((peer, up));
    }
}

impl Handler<Failed> for Witness {
    type Result = ();

    fn handle(&mut self, Failed(why): Failed, _: &mut Self::Context) {
        self.seen.lock().unwrap().failed.push(why.to_string());
    }
}

fn vote(slot: u64) -> Record {
    Record { slot, phase: 1, said: Said::Vote(Vote::Zero) }
}

async fn wait_until(mut condition: impl FnMut() -> bool, most: Duration) -> bool {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() > most {
            return false;
        }
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

/// Writes two votes by the log actor; before the second one the disk does this.
fn two_votes(then: impl Fn(&Disk)) -> Heard {
    System::new().block_on(async {
        let disk = Disk::default();
        LogStore::create_with(disk.clone(), &identity(), 0).unwrap();
        let (store, _) = LogStore::open_with(disk.clone(), &identity(), || Ok(0)).unwrap();
        let seen = Arc::new(Mutex::new(Heard::default()));
        let witness = Witness { disk: disk.clone(), seen: seen.clone() }.start();
        let metrics = Arc::new(Metrics::new(Instant::now(), 10, 100));
        let log = Log::new(store, metrics, witness.clone().recipient(), witness.recipient()).start();
        let commit = |slot| Commit { reserved: Some(100), records: vec![vote(slot)], ..Commit::default() };
        log.send(Persist { ticket: 1, commit: commit(1) }).await.unwrap();
        assert!(wait_until(|| seen.lock().unwrap().persisted.contains(&1), AT_ALL).await);
        then(&disk);
        log.send(Persist { ticket: 2, commit: commit(2) }).await.unwrap();
        let ended = || {
            let heard = seen.lock().unwrap();
            heard.persisted.contains(&2) || !heard.failed.is_empty()
        };
        assert!(wait_until(ended, AT_ALL).await);
        // What comes behind the first word.
        actix_rt::time::sleep(Duration::from_millis(50)).await;
        std::mem::take(&mut *seen.lock().unwrap())
    })
}

#[test]
fn a_write_is_reported_when_it_is_committed() {
    shows(Rule::ReportedDurable, || {
        let Heard { persisted, failed, missing, .. } = two_votes(|disk| disk.fails.store(true, Ordering::Relaxed));
        ensure(
            persisted == [1] && missing.is_empty(),
            format!("reported {persisted:?}, and {missing:?} is not there"),
        )?;
        ensure(failed.len() == 1 && failed[0].contains("the disk is gone"), format!("{failed:?}"))
    });
}

/// What the test above looks at sees a disk that lies, too.
#[test]
fn a_disk_that_lies_is_seen() {
    let right = two_votes(|_| ());
    assert_eq!((right.persisted, right.missing, right.failed), (vec![1, 2], vec![], vec![]));
    let lying = two_votes(|disk| disk.lies.store(true, Ordering::Relaxed));
    assert_eq!((lying.persisted, lying.missing), (vec![1, 2], vec![2]));
}

/// The voter of node 1 and its link to node 2; the log writes when the test wants it.
struct Half {
    voter: Addr<Voter>,
    link: Addr<PeerLink>,
    metrics: Arc<Metrics>,
    log: Option<(Context<Log>, LogStore)>,
    failed: Recipient<Failed>,
    /// What the node and the snapshotter hear.
    seen: Arc<Mutex<Heard>>,
    /// Nobody reads what these are sent.
    _others: (Context<Bank>, Context<Proposer>, Context<Snapshotter>),
}

impl Half {
    fn start() -> Half {
        let disk = Disk::default();
        LogStore::create_with(disk.clone(), &identity(), 0).unwrap();
        let (store, recovered) = LogStore::open_with(disk, &identity(), || Ok(0)).unwrap();
        let (log, others) = (Context::<Log>::new(), (Context::new(), Context::new(), Context::new()));
        let witness = Witness::default();
        let seen = witness.seen.clone();
        let witness = witness.start();
        let failed = witness.clone().recipient::<Failed>();
        let metrics = Arc::new(Metrics::new(Instant::now(), 10, 100));
        let voter = Context::<Voter>::new();
        let link = PeerLink::new(node(2), VoterInbox::from(&voter.address())).start();
        let mut first = Vec::new();
        let core = Agreement::new(genesis(), node(1), &recovered, &Replacements::default(), &mut first);
        let neighbours = VoterNeighbours {
            log: LogInbox::from(&log.address()),
            bank: BankInbox::from(&others.0.address()),
            proposer: ProposerInbox::from(&others.1.address()),
            snapshotter: SnapshotterInbox {
                linked: witness.recipient(),
                ..SnapshotterInbox::from(&others.2.address())
            },
            links: Links::new(vec![(node(2), LinkInbox::from(&link))]),
            node: failed.clone(),
        };
        let handshake = Handshake::new(genesis(), node(1), recovered.store);
        let voter = voter.run(Voter::new(core, first, handshake, Instant::now(), metrics.clone(), neighbours));
        Half { voter, link, metrics, log: Some((log, store)), failed, seen, _others: others }
    }

    fn let_log_write(&mut self) {
        let (log, store) = self.log.take().unwrap();
        let persisted = self.voter.clone().recipient();
        log.run(Log::new(store, self.metrics.clone(), persisted, self.failed.clone()));
    }

    /// Whether the link works, by all who say or need to know so.
    async fn is_connected(&self) -> [bool; 3] {
        let told = self.seen.lock().unwrap().linked.last() == Some(&(node(2), true));
        [self.link.send(IsUp).await.unwrap(), told, self.metrics.report().connected[node(2).index()]]
    }

    async fn wait_until_connected(&self, is: bool, most: Duration) -> bool {
        let began = Instant::now();
        while self.is_connected().await != [is; 3] {
            if began.elapsed() > most {
                return false;
            }
            actix_rt::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

/// What node 2 says of itself.
fn hello() -> Hello {
    let identity = Identity { node: node(2), ..identity() };
    let disk = Disk::default();
    LogStore::create_with(disk.clone(), &identity, 0).unwrap();
    let (_, recovered) = LogStore::open_with(disk, &identity, || Ok(0)).unwrap();
    let core = Agreement::new(genesis(), node(2), &recovered, &Replacements::default(), &mut Vec::new());
    Handshake::new(genesis(), node(2), recovered.store).introduce(node(1), genesis().stores[0], &core)
}

#[test]
fn a_handshake_is_answered_when_what_is_remembered_is_durable() {
    shows(Rule::MetDurably, || {
        System::new().block_on(async {
            let mut half = Half::start();
            let mut met = Box::pin(half.voter.send(Meet(hello())));
            let early = actix_rt::time::timeout(AT_ONCE, &mut met).await;
            ensure(early.is_err(), "it was answered before anything was written")?;
            half.let_log_write();
            let answer = actix_rt::time::timeout(AT_ALL, met).await;
            ensure(matches!(answer, Ok(Ok(Ok(_)))), format!("{answer:?}"))
        })
    });
}

#[test]
fn who_needs_to_know_hears_when_a_link_has_ended() {
    shows(Rule::LinkEndTold, || {
        System::new().block_on(async {
            let mut half = Half::start();
            half.let_log_write();
            half.voter.send(Meet(hello())).await.unwrap().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (ours, _) = listener.accept().await.unwrap();
            let socket = WebSocketStream::from_raw_socket(PeerStream::in_process(ours), Role::Server, None).await;
            let store = genesis().stores[1];
            let link = LinkUp { store, dialled: false, decided: 0, log_hash: Digest::ZERO };
            half.link.do_send(Attach { socket, link, run: RunId([2; 16]) });
            ensure(half.wait_until_connected(true, AT_ALL).await, "the link did not come up")?;
            drop(theirs);
            ensure(half.wait_until_connected(false, Duration::from_secs(2)).await, "a peer that has gone is connected")
        })
    });
}
